//! The responder's IKE SAs whose initiator has not proved who it is: what bounds the memory that strangers can take.
//! Whoever can send a datagram has it asked: no answer may cost more the more of them there are.

use std::{collections::BTreeMap, net::IpAddr};

/// IKE SAs by our SPI, each with the address that it came from.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    of: BTreeMap<u64, IpAddr>,
    /// How many came from each address, never none.
    from: BTreeMap<IpAddr, usize>,
}

impl HalfOpen {
    pub(crate) fn insert(&mut self, spi: u64, address: IpAddr) {
        self.remove(&spi);
        self.of.insert(spi, address);
        *self.from.entry(address).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, spi: &u64) {
        let Some(address) = self.of.remove(spi) else { return };
        if let Some(count) = self.from.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.from.remove(&address);
            }
        }
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
    }
}
