//! Whether anything answers at the other end of a tunnel: echo requests, counted.
//!
//! ```text
//!              `retries` in a row unanswered
//!   answers ────────────────────────────────► silent
//!           ◄────────────────────────────────
//!              `retries` in a row answered
//! ```
//!
//! Requests leave while the tunnel has SAs; without, nothing is counted, and what is believed stays: a tunnel that went
//! down while nothing answered has to show that something does.

use crate::config::HealthCheck;
use std::time::{Duration, Instant};

/// How long an answer may take. Less than the shortest interval: there is one request at a time, and silence is known
/// within `retries` intervals and this.
pub const PATIENCE: Duration = Duration::from_millis(800);

/// The state of a check.
#[derive(Clone, Debug)]
pub struct Health {
    check: HealthCheck,
    silent: bool,
    /// Outcomes in a row that speak against what is believed.
    against: u32,
    /// When the next request leaves; `None` without SAs.
    next: Option<Instant>,
    asked: Option<Asked>,
    round_trip: Option<Duration>,
    sequence: u16,
}

/// The request that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    nonce: u64,
    at: Instant,
}

/// What is believed has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing answers any more.
    Silent,
    /// Something answers again, after this long.
    Answers(Duration),
}

/// What became due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// A request has to leave, with this number and the nonce that was given.
    pub ask: Option<u16>,
    /// What follows from one that was not answered in time.
    pub turn: Option<Turn>,
}

impl Health {
    /// A check that has not begun. The tunnel is believed in.
    pub fn new(check: HealthCheck) -> Self {
        let (next, asked, round_trip) = (None, None, None);
        Health { check, silent: false, against: 0, next, asked, round_trip, sequence: 0 }
    }

    /// How it is done.
    pub fn check(&self) -> &HealthCheck {
        &self.check
    }

    /// Whether nothing answers.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// How long the last answer took.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Nothing answered in an earlier process.
    pub fn distrust(&mut self) {
        self.silent = true;
    }

    /// The tunnel has SAs: the first request leaves at once.
    pub fn begin(&mut self, now: Instant) {
        if self.next.is_none() {
            self.next = Some(now);
        }
    }

    /// The tunnel has none any more.
    pub fn end(&mut self) {
        (self.next, self.asked, self.against) = (None, None, 0);
    }

    /// When [`Health::handle_timeout`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        let patience = self.asked.map(|asked| asked.at + PATIENCE);
        [self.next, patience].into_iter().flatten().min()
    }

    /// Counts a request that was not answered in time, and says whether another is to leave; that has `nonce`.
    pub fn handle_timeout(&mut self, now: Instant, nonce: u64) -> Due {
        let mut due = Due::default();
        if self.asked.is_some_and(|asked| asked.at + PATIENCE <= now) {
            self.asked = None;
            due.turn = self.count(false).then_some(Turn::Silent);
        }
        if self.next.is_some_and(|at| at <= now) && self.asked.is_none() {
            self.sequence = self.sequence.wrapping_add(1);
            self.asked = Some(Asked { nonce, at: now });
            self.next = Some(now + self.check.interval);
            due.ask = Some(self.sequence);
        }
        due
    }

    /// An answer has come. One that nobody waits for, or of another request, counts nothing.
    pub fn handle_answer(&mut self, now: Instant, nonce: u64) -> Option<Turn> {
        let asked = self.asked.filter(|asked| asked.nonce == nonce)?;
        self.asked = None;
        let took = now.saturating_duration_since(asked.at);
        self.round_trip = Some(took);
        self.count(true).then_some(Turn::Answers(took))
    }

    /// Whether what is believed has changed.
    fn count(&mut self, answered: bool) -> bool {
        if answered != self.silent {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.against < self.check.retries {
            return false;
        }
        (self.silent, self.against) = (!answered, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn health(interval: u64, retries: u32) -> Health {
        Health::new(HealthCheck {
            destination: [10, 2, 0, 1].into(),
            source: [10, 1, 0, 1].into(),
            interval: Duration::from_secs(interval),
            retries,
            switch_route: false,
        })
    }

    /// Lets virtual time pass until `end`; requests that `answers` says so are answered within a millisecond. The turns,
    /// and when they came.
    fn run(
        health: &mut Health,
        mut now: Instant,
        end: Instant,
        answers: impl Fn(Instant) -> bool,
    ) -> Vec<(Instant, Turn)> {
        let mut turns = Vec::new();
        while let Some(at) = health.due().filter(|at| *at <= end) {
            now = now.max(at);
            let due = health.handle_timeout(now, 1);
            turns.extend(due.turn.map(|turn| (now, turn)));
            if due.ask.is_some() && answers(now) {
                now += Duration::from_millis(1);
                turns.extend(health.handle_answer(now, 1).map(|turn| (now, turn)));
            }
        }
        turns
    }

    #[test]
    fn silence_is_known_in_time_and_so_is_its_end() {
        let start = Instant::now();
        for (interval, retries) in [(1, 1), (3, 3), (60, 10)] {
            // Wherever between two requests the end comes.
            for part in 0..10 {
                let mut health = health(interval, retries);
                let interval = health.check().interval;
                let dies = start + interval * 20 + interval * part / 10 + Duration::from_millis(2);
                let lives = dies + interval * 40;
                health.begin(start);
                let end = lives + interval * 40;
                let turns = run(&mut health, start, end, |now| now < dies || now >= lives);
                let [(silent, Turn::Silent), (answers, Turn::Answers(_))] = turns[..] else {
                    panic!("{turns:?}")
                };
                assert!(silent - dies <= interval * retries + PATIENCE, "{:?}", silent - dies);
                assert!(answers - lives <= interval * retries + PATIENCE, "{:?}", answers - lives);
                assert!(answers - lives >= interval * (retries - 1), "as many as were lost");
            }
        }
    }

    #[test]
    fn single_losses_change_nothing() {
        let start = Instant::now();
        let mut health = health(3, 3);
        health.begin(start);
        let second = Duration::from_secs(1);
        let lost = |now: Instant| !((now - start).as_secs() / 3).is_multiple_of(3);
        assert_eq!(run(&mut health, start, start + second * 3000, |now| !lost(now)), []);
        assert!(!health.is_silent());
        let mut health = Health { silent: true, ..health };
        assert_eq!(run(&mut health, start + second * 3001, start + second * 6000, lost), []);
        assert!(health.is_silent());
    }

    #[test]
    fn without_sas_nothing_is_counted_and_what_is_believed_stays() {
        let start = Instant::now();
        let mut health = health(1, 2);
        assert_eq!(health.due(), None);
        health.begin(start);
        health.handle_timeout(start, 1);
        health.end();
        assert_eq!((health.due(), health.is_silent()), (None, false));
        assert_eq!(health.handle_answer(start, 1), None, "it comes too late");
        let again = start + Duration::from_secs(60);
        health.begin(again);
        assert!(matches!(
            run(&mut health, again, again + Duration::from_secs(9), |_| false)[..],
            [(_, Turn::Silent)]
        ));
        health.end();
        health.begin(again + Duration::from_secs(20));
        assert!(health.is_silent());
    }

    #[test]
    fn another_ones_answer_does_not_count() {
        let start = Instant::now();
        let mut health = health(1, 1);
        health.begin(start);
        assert_eq!(health.handle_timeout(start, 5), Due { ask: Some(1), turn: None });
        assert_eq!(health.handle_answer(start, 6), None);
        let late = start + PATIENCE;
        assert_eq!(health.handle_timeout(late, 7).turn, Some(Turn::Silent));
        assert_eq!(health.handle_answer(late, 5), None);
    }

    proptest! {
        #[test]
        fn what_is_believed_follows_as_many_in_a_row(
            retries in 1u32..5,
            outcomes in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut health = health(1, retries);
            let mut now = Instant::now();
            health.begin(now);
            let (mut believed, mut row) = (true, 0);
            for answered in outcomes {
                let due = health.handle_timeout(now, 1);
                prop_assert!(due.ask.is_some());
                if answered {
                    health.handle_answer(now, 1);
                } else {
                    health.handle_timeout(now + PATIENCE, 1);
                }
                row = if answered == believed { 0 } else { row + 1 };
                if row == retries {
                    (believed, row) = (answered, 0);
                }
                prop_assert_eq!(health.is_silent(), !believed);
                now += Duration::from_secs(1);
            }
        }
    }
}
