//! How much a pair of Child SAs may carry before another takes its place (RFC 4301 section 4.4.2.1, lifetimes; RFC 4303
//! section 3.3.3, sequence numbers).

use super::Limits;
use crate::maps::Counters;
use adit_ike::ChildSa;

/// Sequence numbers of 32 bits.
const SEQUENCE_NUMBERS: u64 = u32::MAX as u64;

/// What a pair may carry in each direction; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    bytes: Option<u64>,
    packets: Option<u64>,
    sequence: Option<u64>,
}

/// How much of a budget is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spent {
    /// There is time.
    Little,
    /// Time for another pair.
    Nearly,
    /// Nothing is left.
    All,
}

impl Budget {
    /// The stricter of what we and the peer say.
    pub fn of(child: &ChildSa, limits: Limits) -> Self {
        Budget {
            bytes: [limits.lifetime_bytes, child.lifetime_bytes].into_iter().flatten().min(),
            packets: limits.lifetime_packets,
            sequence: (!child.esn).then_some(SEQUENCE_NUMBERS),
        }
    }

    /// Whether there is any limit.
    pub fn is_limited(&self) -> bool {
        *self != Budget::default()
    }

    /// Where a pair is that has carried this much inbound and outbound, and given out this many sequence numbers. The
    /// share from which on it is nearly all lies between 85 and 95 %, by the random `spi`, so that neither both ends
    /// nor many tunnels begin at once.
    pub fn spent(&self, carried: [Counters; 2], sequence: u64, spi: u32) -> Spent {
        let most = |of: fn(&Counters) -> u64| carried.iter().map(of).max().unwrap_or_default();
        let used =
            [(most(|c| c.bytes), self.bytes), (most(|c| c.packets), self.packets), (sequence, self.sequence)];
        let soft = |limit: u64| u128::from(limit) * u128::from(8500 + spi % 1001) / 10_000;
        let spent = |(used, limit): (u64, Option<u64>)| match limit {
            Some(limit) if used >= limit => Spent::All,
            Some(limit) if u128::from(used) >= soft(limit) => Spent::Nearly,
            _ => Spent::Little,
        };
        used.into_iter().map(spent).max().unwrap_or(Spent::Little)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(packets: u64, bytes: u64) -> Counters {
        Counters { packets, bytes, ..Counters::default() }
    }

    #[test]
    fn the_fuller_direction_and_the_scarcest_limit_decide() {
        let budget = Budget { bytes: Some(1000), packets: Some(100), sequence: Some(SEQUENCE_NUMBERS) };
        let none = Counters::default();
        for (inbound, outbound, sequence, spent) in [
            (carried(84, 849), carried(84, 849), 84, Spent::Little),
            (carried(1, 850), none, 0, Spent::Nearly),
            (none, carried(85, 1), 85, Spent::Nearly),
            (none, carried(1, 1000), 1, Spent::All),
            (carried(100, 1), carried(1, 900), 1, Spent::All),
            (none, none, SEQUENCE_NUMBERS / 100 * 86, Spent::Nearly),
            (none, none, SEQUENCE_NUMBERS, Spent::All),
        ] {
            assert_eq!(budget.spent([inbound, outbound], sequence, 0), spent);
        }
        assert_eq!(Budget::default().spent([carried(u64::MAX, u64::MAX); 2], u64::MAX, 7), Spent::Little);
    }

    #[test]
    fn the_time_for_another_pair_differs_but_is_never_late() {
        let budget = Budget { bytes: Some(10_000), ..Budget::default() };
        for spi in [0, 500, 1000, u32::MAX] {
            let first = (0..=10_000).find(|n| budget.spent([carried(0, *n); 2], 0, spi) == Spent::Nearly);
            assert_eq!(first, Some(u64::from(8500 + spi % 1001)));
        }
    }
}
