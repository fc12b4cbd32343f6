//! The logs that people ask for: the last events of a tunnel, and those of the gateway itself, in words.

use crate::status::{Event, LogEntry, timestamp};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::broadcast;
use tracing::Level;

/// How many events are kept.
pub const KEPT: usize = 1000;

/// Characters of an event at most: what a peer offers may fill a datagram.
const LONGEST: usize = 2000;

/// Strangers whose doings are counted at a time.
const STRANGERS: usize = 16;
/// After how long without what he did a stranger is forgotten.
const QUIET: Duration = Duration::from_secs(60);
/// How often one who goes on is told of.
const SAID: Duration = Duration::from_secs(600);

/// A text as one line of bounded length: what peers send must not write lines of its own into a log or a terminal.
pub(crate) fn line(text: &str) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = characters.by_ref().take(LONGEST).collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

/// The last [`KEPT`] events.
#[derive(Debug, Default)]
pub struct Log {
    kept: VecDeque<(SystemTime, Box<str>)>,
    /// How many have come and gone before these.
    gone: u64,
}

impl Log {
    /// Adds an event, and lets the oldest go when there is no room.
    pub fn push(&mut self, at: SystemTime, text: String) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
            self.gone += 1;
        }
        self.kept.push_back((at, text.into()));
    }

    /// How many events there have been.
    pub fn count(&self) -> u64 {
        self.gone + self.kept.len() as u64
    }

    /// The events from number `first` on, oldest first, as far as they are kept.
    pub fn since(&self, first: u64) -> Vec<LogEntry> {
        let skipped = usize::try_from(first.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        let kept = self.kept.iter().zip(self.gone..).skip(skipped);
        kept.map(|((at, text), number)| LogEntry { number, at: timestamp(*at), text: text.to_string() })
            .collect()
    }
}

/// What happens to the gateway itself, from whichever thread it is told: kept, told to who follows, and written to the log of
/// the process, in which `log=gateway` marks it.
#[derive(Clone, Debug)]
pub struct GatewayLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Remembered>,
    events: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Remembered {
    log: Log,
    strangers: Strangers,
    /// What failed here, which strangers are not to crowd out.
    faults: Strangers,
}

impl GatewayLog {
    /// An empty one, which tells `events`.
    pub(crate) fn new(events: broadcast::Sender<Event>) -> Self {
        GatewayLog(Arc::new(Shared { state: Mutex::default(), events }))
    }

    /// Something happened.
    pub fn info(&self, text: impl AsRef<str>) {
        self.say(Level::INFO, text.as_ref());
    }

    /// Something happened that somebody may have to look at.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.say(Level::WARN, text.as_ref());
    }

    /// Something failed.
    pub fn error(&self, text: impl AsRef<str>) {
        self.say(Level::ERROR, text.as_ref());
    }

    /// A stranger, or anybody as often as he likes, does what is refused: told when it begins, and counted from then on until
    /// it has not happened for a minute.
    pub fn refused(&self, who: &str, text: impl AsRef<str>) {
        let is_new = self.remembered().strangers.note(Instant::now(), who, text.as_ref());
        if is_new {
            self.warn(text);
        }
    }

    /// Something failed here that may fail again and again for the same reason: told as what is refused is.
    pub fn fault(&self, why: &str, text: impl AsRef<str>) {
        let is_new = self.remembered().faults.note(Instant::now(), why, text.as_ref());
        if is_new {
            self.error(text);
        }
    }

    /// Tells how often what was refused has happened, where it is over or goes on for long. To be called every second or so.
    pub(crate) fn settle(&self, now: Instant) {
        let due = {
            let mut state = self.remembered();
            let mut due = state.strangers.settle(now);
            due.extend(state.faults.settle(now));
            due
        };
        due.iter().for_each(|text| self.warn(text));
    }

    /// Every event that is kept, oldest first.
    pub fn entries(&self) -> Vec<LogEntry> {
        self.remembered().log.since(0)
    }

    fn say(&self, level: Level, text: &str) {
        let text = line(text);
        match level {
            Level::ERROR => tracing::error!(log = "gateway", "{text}"),
            Level::WARN => tracing::warn!(log = "gateway", "{text}"),
            _ => tracing::info!(log = "gateway", "{text}"),
        }
        let mut state = self.remembered();
        let number = state.log.count();
        state.log.push(SystemTime::now(), text);
        // Under the lock, so that who follows is told in the order of the numbers.
        for entry in state.log.since(number) {
            // Nobody may be there.
            let _ = self.0.events.send(Event::Gateway { entry });
        }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        // What is held under the lock is whole after each step.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What strangers go on doing.
#[derive(Debug, Default)]
struct Strangers {
    known: BTreeMap<String, Doing>,
    /// What others did, when there was no room to remember them.
    others: u64,
}

#[derive(Debug)]
struct Doing {
    text: String,
    /// How often since it was said last.
    count: u64,
    last: Instant,
    said: Instant,
}

impl Strangers {
    /// Counts what somebody did; whether it is to be said.
    fn note(&mut self, now: Instant, who: &str, text: &str) -> bool {
        if let Some(known) = self.known.get_mut(who) {
            (known.count, known.last) = (known.count + 1, now);
            return false;
        }
        if self.known.len() >= STRANGERS {
            self.others += 1;
            return false;
        }
        let doing = Doing { text: text.to_owned(), count: 0, last: now, said: now };
        self.known.insert(who.to_owned(), doing);
        true
    }

    /// What is to be said now of who was told of before.
    fn settle(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        let before = self.known.len();
        self.known.retain(|_, doing| {
            let is_over = now.saturating_duration_since(doing.last) >= QUIET;
            if doing.count > 0 && (is_over || now.saturating_duration_since(doing.said) >= SAID) {
                let over = if is_over { ", and none for a minute" } else { "" };
                due.push(format!("{} ({} more{over})", doing.text, doing.count));
                (doing.count, doing.said) = (0, now);
            }
            !is_over
        });
        if self.known.len() < before && self.others > 0 {
            due.push(format!("{} things that others did and were refused are not listed", self.others));
            self.others = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_not_too_long() {
        assert_eq!(line("ID a\n2026 forged \x1b[2J"), "ID a 2026 forged  [2J");
        let long = "é".repeat(LONGEST);
        assert_eq!(line(&long), long);
        assert_eq!(line(&format!("{long}!")), format!("{long}…"));
    }

    #[test]
    fn the_last_thousand_are_kept() {
        let mut log = Log::default();
        for i in 0..1500 {
            log.push(SystemTime::UNIX_EPOCH, i.to_string());
        }
        let entries = log.since(0);
        assert_eq!(
            (entries.len(), entries[0].text.as_str(), entries[999].text.as_str()),
            (1000, "500", "1499")
        );
        assert_eq!((log.count(), entries[0].number), (1500, 500));
        assert_eq!(log.since(1499), entries[999..]);
        assert!(log.since(1500).is_empty() && log.since(u64::MAX).is_empty());
    }

    #[test]
    fn what_happens_to_the_gateway_is_kept_and_told_in_order() {
        let (events, mut told) = broadcast::channel(8);
        let log = GatewayLog::new(events);
        log.info("begins");
        let other = log.clone();
        std::thread::spawn(move || other.warn("a\nb")).join().unwrap();
        let entries = log.entries();
        assert_eq!(
            entries.iter().map(|e| (e.number, e.text.as_str())).collect::<Vec<_>>(),
            [(0, "begins"), (1, "a b")]
        );
        for entry in entries {
            assert_eq!(told.try_recv().unwrap(), Event::Gateway { entry });
        }
    }

    #[test]
    fn who_goes_on_is_told_of_first_and_last() {
        let (mut strangers, begun) = (Strangers::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(strangers.note(at(0), "a", "a knocks"));
        assert!((1..700).all(|second| !strangers.note(at(second), "a", "a knocks")));
        assert_eq!(strangers.settle(at(599)), [""; 0]);
        assert_eq!(strangers.settle(at(700)), ["a knocks (699 more)"]);
        assert!(!strangers.note(at(701), "a", "a knocks"));
        assert_eq!(strangers.settle(at(761)), ["a knocks (1 more, and none for a minute)"]);
        assert!(strangers.note(at(762), "a", "a knocks"));
        assert_eq!(strangers.settle(at(900)), [""; 0], "once is told once");
    }

    #[test]
    fn however_many_strangers_there_are_few_are_remembered() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        let told = (0..1000).filter(|i| strangers.note(now, &i.to_string(), "knocks")).count();
        assert_eq!((told, strangers.known.len()), (STRANGERS, STRANGERS));
        let due = strangers.settle(now + QUIET);
        assert_eq!(
            due,
            [format!("{} things that others did and were refused are not listed", 1000 - STRANGERS)]
        );
    }
}
