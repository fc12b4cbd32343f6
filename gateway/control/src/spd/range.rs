//! A range of addresses as prefixes.

use adit_maps::address::{Address, Prefix};

/// The fewest prefixes that together hold what lies from `first` to `last`, both included, in order; none where `last`
/// comes before `first`.
pub fn prefixes(first: Address, last: Address) -> impl Iterator<Item = Prefix> {
    let last = u128::from_be_bytes(last.0);
    let mut next = Some(u128::from_be_bytes(first.0));
    std::iter::from_fn(move || {
        let start = next.filter(|start| *start <= last)?;
        let left = last - start;
        // As many host bits as the start has zeros and the rest has room for.
        let room = left.checked_add(1).map_or(128, |n| n.ilog2());
        let bits = start.trailing_zeros().min(room);
        next = 1u128.checked_shl(bits).and_then(|size| start.checked_add(size));
        Some(Prefix { address: Address(start.to_be_bytes()), len: 128 - bits })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(first: [u8; 4], last: [u8; 4]) -> Vec<String> {
        let text = |p: Prefix| format!("{}/{}", std::net::IpAddr::from(p.address), p.len - 96);
        prefixes(Address::v4(first), Address::v4(last)).map(text).collect()
    }

    #[test]
    fn ranges_of_both_families() {
        assert_eq!(shown([10, 1, 0, 0], [10, 1, 255, 255]), ["10.1.0.0/16"]);
        assert_eq!(shown([0; 4], [255; 4]), ["0.0.0.0/0"]);
        assert_eq!(shown([10, 0, 0, 1], [10, 0, 0, 4]), ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]);
        assert_eq!(shown([10, 0, 0, 2], [10, 0, 0, 1]), Vec::<String>::new());
        let all: Vec<_> = prefixes(Address([0; 16]), Address([255; 16])).collect();
        assert_eq!(all, [Prefix { address: Address([0; 16]), len: 0 }]);
    }

    proptest! {
        #[test]
        fn each_address_of_the_range_is_held_once_and_no_other(first in 0u16..500, count in 0u16..500) {
            let address = |n: u16| Address::v4([10, 0, (n >> 8) as u8, n as u8]);
            let all: Vec<_> = prefixes(address(first), address(first + count)).collect();
            for n in 0..1100 {
                let inside = (first..=first + count).contains(&n);
                let holders = all.iter().filter(|p| p.holds(&address(n))).count();
                prop_assert_eq!(holders, usize::from(inside));
            }
        }
    }
}
