//! Routes by longest prefix.

use adit_maps::address::{Address, Prefix};
use std::collections::HashMap;

/// A route of the kernel's main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) prefix: Prefix,
    /// Among routes to one prefix the lowest wins.
    pub(crate) metric: u32,
    /// Index of the interface; `None` when the route refuses its packets (unreachable, blackhole, prohibit).
    pub(crate) interface: Option<u32>,
    /// The gateway; without one the destination itself is on the link.
    pub(crate) via: Option<Address>,
    /// MTU set on the route.
    pub(crate) mtu: Option<u16>,
}

/// Routes, to be looked up by destination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// Routes by prefix, for each prefix length, longest first; the routes of a prefix by metric.
    lengths: Vec<(u32, HashMap<Address, Vec<Route>>)>,
}

impl Table {
    pub(crate) fn new(routes: &[Route]) -> Self {
        let mut table = Table::default();
        for route in routes {
            let len = route.prefix.len;
            let at = match table.lengths.binary_search_by(|(l, _)| len.cmp(l)) {
                Ok(at) => at,
                Err(at) => {
                    table.lengths.insert(at, (len, HashMap::new()));
                    at
                }
            };
            table.lengths[at].1.entry(route.prefix.address).or_default().push(route.clone());
        }
        for routes in table.lengths.iter_mut().flat_map(|(_, by_prefix)| by_prefix.values_mut()) {
            routes.sort_by_key(|r| r.metric);
        }
        table
    }

    /// The best route to `destination` among those that `admits` lets through.
    pub(crate) fn look_up(&self, destination: &Address, admits: impl Fn(&Route) -> bool) -> Option<&Route> {
        let bits = u128::from_be_bytes(destination.0);
        self.lengths
            .iter()
            // `::/0` and its like do not hold the IPv4 space, although its key lies in theirs.
            .take_while(|(len, _)| !destination.is_v4() || *len >= Address::V4_PREFIX)
            .filter_map(|(len, by_prefix)| {
                let masked = if *len == 0 { 0 } else { bits & (u128::MAX << (128 - len)) };
                by_prefix.get(&Address(masked.to_be_bytes()))
            })
            .flatten()
            .find(|route| admits(route))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn route(prefix: &str, metric: u32, interface: u32) -> Route {
        let (ip, len) = prefix.split_once('/').unwrap();
        let prefix = Prefix::new(ip.parse().unwrap(), len.parse().unwrap()).unwrap();
        Route { prefix, metric, interface: Some(interface), via: None, mtu: None }
    }

    fn address(s: &str) -> Address {
        s.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn the_longest_prefix_then_the_lowest_metric_wins() {
        let table = Table::new(&[
            route("0.0.0.0/0", 0, 1),
            route("10.0.0.0/8", 100, 2),
            route("10.0.0.0/8", 50, 3),
            route("10.1.0.0/16", 900, 4),
            route("::/0", 0, 5),
            route("2001:db8::/32", 0, 6),
        ]);
        let best = |s: &str| table.look_up(&address(s), |_| true).and_then(|r| r.interface);
        assert_eq!(best("10.1.2.3"), Some(4));
        assert_eq!(best("10.2.2.3"), Some(3));
        assert_eq!(best("192.0.2.1"), Some(1));
        assert_eq!(best("2001:db8::1"), Some(6));
        assert_eq!(best("2001:db9::1"), Some(5));
        let without = table.look_up(&address("10.1.2.3"), |r| r.interface != Some(4));
        assert_eq!(without.and_then(|r| r.interface), Some(3));
        assert!(Table::new(&[route("::/0", 0, 5)]).look_up(&address("10.0.0.1"), |_| true).is_none());
    }

    proptest! {
        #[test]
        fn a_lookup_is_the_naive_scan(
            routes in proptest::collection::vec((any::<u8>(), 0u8..=32, 0u32..3), 0..20), destination: u8,
        ) {
            let routes: Vec<Route> = routes.iter().enumerate().map(|(i, (net, len, metric))| Route {
                prefix: Prefix::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, *net)), *len).unwrap(),
                metric: *metric, interface: Some(i as u32), via: None, mtu: None,
            }).collect();
            let destination = Address::v4([10, 0, 0, destination]);
            let naive = routes.iter().filter(|r| r.prefix.holds(&destination))
                .min_by_key(|r| (std::cmp::Reverse(r.prefix.len), r.metric));
            let table = Table::new(&routes);
            let found = table.look_up(&destination, |_| true);
            prop_assert_eq!(found.map(|r| (r.prefix, r.metric)), naive.map(|r| (r.prefix, r.metric)));
        }
    }
}
