//! How long the task is busy with one thing: so long do datagrams and timers of IKE wait.

use crate::status::RoundsStatus;
use std::time::Duration;

/// Up to how many microseconds rounds are told apart.
const BOUNDS: [u64; 9] = [100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// The rounds of the task since it met the data plane.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Rounds that took no longer than each bound, and longer than the one before; the last is all others.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
    longest: Duration,
}

impl Pace {
    /// Counts a round.
    pub(super) fn note(&mut self, took: Duration) {
        let at = BOUNDS.partition_point(|bound| Duration::from_micros(*bound) < took);
        self.counts[at] += 1;
        self.sum += took;
        self.longest = self.longest.max(took);
    }

    pub(super) fn status(&self) -> RoundsStatus {
        let mut within = 0;
        let cumulative = BOUNDS.iter().zip(self.counts).map(|(bound, count)| {
            within += count;
            (*bound as f64 / 1e6, within)
        });
        RoundsStatus {
            within: cumulative.collect(),
            count: self.counts.iter().sum(),
            seconds: self.sum.as_secs_f64(),
            longest_seconds: self.longest.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_counts_for_every_bound_that_it_keeps() {
        let mut pace = Pace::default();
        [0, 100, 101, 100_000, 2_000_000].into_iter().for_each(|us| pace.note(Duration::from_micros(us)));
        let status = pace.status();
        assert_eq!((status.count, status.longest_seconds), (5, 2.0));
        assert!((status.seconds - 2.100_201).abs() < 1e-9);
        let within = |bound: f64| status.within.iter().find(|(b, _)| *b == bound).unwrap().1;
        assert_eq!([within(0.0001), within(0.001), within(0.05), within(0.1), within(1.0)], [2, 3, 3, 4, 4]);
    }
}
