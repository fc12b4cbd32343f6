//! A tunnel's connection log: its last events in words.

use crate::status::{LogEntry, timestamp};
use std::{collections::VecDeque, time::SystemTime};

/// How many events are kept.
pub const KEPT: usize = 1000;

/// Characters of an event at most: what a peer offers may fill a datagram.
const LONGEST: usize = 2000;

/// A text as one line of bounded length: what peers send must not write lines of its own into a log or a terminal.
pub(super) fn line(text: &str) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = characters.by_ref().take(LONGEST).collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

/// The last [`KEPT`] events of a tunnel.
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
}
