//! How often a source may fail to show a good token.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Failures in a row that a source has free.
const BURST: u32 = 10;
/// One of them comes back after this time.
const REGAIN: Duration = Duration::from_secs(6);
/// Sources that are remembered at a time.
const SOURCES: usize = 4096;

/// The failures of sources: an IPv4 address, or the /64 of an IPv6 one.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// When the last failure of a source is forgotten: each moves it [`REGAIN`] on.
    forgotten_at: HashMap<IpAddr, Instant>,
}

impl Attempts {
    /// How long `source` has to wait before it is heard; `None` when it is heard now.
    pub(super) fn wait(&self, now: Instant, source: IpAddr) -> Option<Duration> {
        let forgotten_at = self.forgotten_at.get(&network(source))?;
        let free = REGAIN * (BURST - 1);
        forgotten_at.checked_duration_since(now)?.checked_sub(free).filter(|wait| !wait.is_zero())
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self, now: Instant, source: IpAddr) {
        let source = network(source);
        if self.forgotten_at.len() >= SOURCES && !self.forgotten_at.contains_key(&source) {
            self.forgotten_at.retain(|_, at| *at > now);
            // Where all are recent, the one with the least to answer for makes room.
            if self.forgotten_at.len() >= SOURCES
                && let Some(mildest) = self.forgotten_at.iter().min_by_key(|(_, at)| **at).map(|(s, _)| *s)
            {
                self.forgotten_at.remove(&mildest);
            }
        }
        let at = self.forgotten_at.entry(source).or_insert(now);
        *at = (*at).max(now) + REGAIN;
    }
}

/// By what a source is counted: who has an IPv6 address has its /64.
pub(crate) fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_goes_on_failing_is_not_heard_for_a_while() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let bad = "2001:db8::1".parse().unwrap();
        for _ in 0..BURST {
            assert_eq!(attempts.wait(now, bad), None);
            attempts.failed(now, bad);
        }
        assert_eq!(attempts.wait(now, "2001:db8::2".parse().unwrap()), Some(REGAIN));
        assert_eq!(attempts.wait(now, "2001:db8:0:1::1".parse().unwrap()), None);
        assert_eq!(attempts.wait(now + REGAIN, bad), None);
        attempts.failed(now + REGAIN, bad);
        assert_eq!(attempts.wait(now + REGAIN, bad), Some(REGAIN));
    }

    #[test]
    fn no_more_than_so_many_sources_are_remembered() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let worst = IpAddr::from([192, 0, 2, 1]);
        (0..BURST).for_each(|_| attempts.failed(now, worst));
        for i in 0..2 * SOURCES as u32 {
            attempts.failed(now, IpAddr::from(i.to_be_bytes()));
        }
        assert_eq!(attempts.forgotten_at.len(), SOURCES);
        assert!(attempts.wait(now, worst).is_some(), "newcomers do not push out who fails most");
    }
}
