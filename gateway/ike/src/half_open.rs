//! The responder's IKE SAs whose initiator has not proved who it is: what bounds the memory that strangers can take.
//! Whoever can send a datagram has it asked: no answer may cost more the more of them there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// IKE SAs by our SPI, each with the address that it came from.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    of: BTreeMap<u64, Entry>,
    /// How many came from each address, never none.
    from: BTreeMap<IpAddr, usize>,
    /// Those that give way to others, the oldest first: by when they began to.
    giving_way: BTreeMap<u64, u64>,
    giving_way_of: BTreeSet<(IpAddr, u64, u64)>,
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: IpAddr,
    /// Its place among those that give way.
    gives_way: Option<u64>,
}

/// Whether there is room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// If this one goes.
    Instead(u64),
    None,
}

impl HalfOpen {
    pub(crate) fn insert(&mut self, spi: u64, address: IpAddr) {
        self.remove(&spi);
        self.of.insert(spi, Entry { address, gives_way: None });
        *self.from.entry(address).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, spi: &u64) {
        self.stay(spi);
        let Some(Entry { address, .. }) = self.of.remove(spi) else { return };
        if let Some(count) = self.from.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.from.remove(&address);
            }
        }
    }

    /// From now on it makes room for others when there is none: nothing shows that its initiator receives at its address,
    /// so that anybody may have made it up.
    pub(crate) fn give_way(&mut self, spi: u64) {
        let Some(entry) = self.of.get_mut(&spi).filter(|entry| entry.gives_way.is_none()) else { return };
        self.turn += 1;
        entry.gives_way = Some(self.turn);
        self.giving_way.insert(self.turn, spi);
        self.giving_way_of.insert((entry.address, self.turn, spi));
    }

    /// It makes room no more.
    pub(crate) fn stay(&mut self, spi: &u64) {
        let Some(entry) = self.of.get_mut(spi) else { return };
        if let Some(turn) = entry.gives_way.take() {
            self.giving_way.remove(&turn);
            self.giving_way_of.remove(&(entry.address, turn, *spi));
        }
    }

    /// Whether there is room for one more from an address, of so many at all and of so many of one address.
    pub(crate) fn room(&self, address: IpAddr, limit: usize, share: usize) -> Room {
        let oldest = if self.from(address) >= share {
            let of_address = self.giving_way_of.range((address, 0, 0)..=(address, u64::MAX, u64::MAX));
            of_address.map(|(_, _, spi)| *spi).next()
        } else if self.len() >= limit {
            self.giving_way.values().next().copied()
        } else {
            return Room::Free;
        };
        oldest.map_or(Room::None, Room::Instead)
    }

    pub(crate) fn contains_key(&self, spi: &u64) -> bool {
        self.of.contains_key(spi)
    }

    pub(crate) fn len(&self) -> usize {
        self.of.len()
    }

    /// How many came from an address.
    pub(crate) fn from(&self, address: IpAddr) -> usize {
        self.from.get(&address).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_count_of_an_address_is_that_of_a_scan(
            steps in prop::collection::vec((any::<bool>(), 0..20u64, 0..4u8), 0..100),
        ) {
            let mut half_open = HalfOpen::default();
            let mut plain = BTreeMap::new();
            for (adds, spi, host) in steps {
                let address = IpAddr::from([192, 0, 2, host]);
                if adds {
                    half_open.insert(spi, address);
                    plain.insert(spi, address);
                } else {
                    half_open.remove(&spi);
                    plain.remove(&spi);
                }
                let scanned = plain.values().filter(|a| **a == address).count();
                prop_assert_eq!(half_open.from(address), scanned);
                prop_assert_eq!(half_open.len(), plain.len());
                prop_assert_eq!(half_open.contains_key(&spi), plain.contains_key(&spi));
            }
            plain.keys().for_each(|spi| half_open.remove(spi));
            prop_assert!(half_open.of.is_empty() && half_open.from.is_empty());
        }

        #[test]
        fn the_oldest_that_gives_way_is_that_of_a_scan(
            steps in prop::collection::vec((0..4u8, 0..20u64, 0..4u8), 0..100),
        ) {
            let mut half_open = HalfOpen::default();
            // By age: number, address, whether it gives way.
            let mut plain: Vec<(u64, IpAddr, bool)> = Vec::new();
            for (step, spi, host) in steps {
                let address = IpAddr::from([192, 0, 2, host]);
                let at = plain.iter().position(|(known, ..)| *known == spi);
                match (step, at) {
                    (0, None) => {
                        half_open.insert(spi, address);
                        plain.push((spi, address, false));
                    }
                    (1, Some(at)) => {
                        half_open.give_way(spi);
                        if !plain[at].2 {
                            let (spi, address, _) = plain.remove(at);
                            plain.push((spi, address, true));
                        }
                    }
                    (2, Some(at)) => {
                        half_open.stay(&spi);
                        plain[at].2 = false;
                    }
                    (3, Some(at)) => {
                        half_open.remove(&spi);
                        plain.remove(at);
                    }
                    _ => half_open.give_way(u64::MAX),
                }
                let oldest = |of: &dyn Fn(&IpAddr) -> bool| {
                    let found = plain.iter().find(|(_, address, gives_way)| *gives_way && of(address));
                    found.map_or(Room::None, |(spi, ..)| Room::Instead(*spi))
                };
                let full = plain.len();
                prop_assert_eq!(half_open.room(address, full, usize::MAX), oldest(&|_| true));
                prop_assert_eq!(half_open.room(address, usize::MAX, 0), oldest(&|a| *a == address));
                prop_assert_eq!(half_open.room(address, full + 1, full + 1), Room::Free);
            }
            plain.iter().for_each(|(spi, ..)| half_open.remove(spi));
            prop_assert!(half_open.giving_way.is_empty() && half_open.giving_way_of.is_empty());
        }
    }
}
