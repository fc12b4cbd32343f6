use super::*;
use adit_maps::policy::{Flow, Spd, look_up};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The three tables as the kernel looks them up: longest prefix over the raw 128 bits, families not told apart.
impl Spd for Tables {
    fn source_class(&self, address: &Address) -> Option<u32> {
        longest(&self.sources, address)
    }
    fn destination_class(&self, address: &Address) -> Option<u32> {
        longest(&self.destinations, address)
    }
    fn with_rules(&self, pair: &ClassPair, f: impl FnOnce(&RuleList) -> Option<Rule>) -> Option<Rule> {
        f(self.rules.get(pair)?)
    }
}

fn longest(side: &BTreeMap<Prefix, u32>, address: &Address) -> Option<u32> {
    let host = Prefix { address: *address, len: 128 };
    (0..=128).rev().find_map(|len| side.get(&ancestor(&host, len)).copied())
}

fn apply(tables: &mut Tables, change: &Change) {
    match *change {
        Change::SetRules(pair, list) => drop(tables.rules.insert(pair, list)),
        Change::RemoveRules(pair) => drop(tables.rules.remove(&pair)),
        Change::SetSource(prefix, class) => drop(tables.sources.insert(prefix, class)),
        Change::RemoveSource(prefix) => drop(tables.sources.remove(&prefix)),
        Change::SetDestination(prefix, class) => drop(tables.destinations.insert(prefix, class)),
        Change::RemoveDestination(prefix) => drop(tables.destinations.remove(&prefix)),
    }
}

/// One rule for all addresses: whether it covers the protocol and ports of a flow is for `adit-maps` to say.
struct Single(RuleList);

impl Spd for Single {
    fn source_class(&self, _: &Address) -> Option<u32> {
        Some(0)
    }
    fn destination_class(&self, _: &Address) -> Option<u32> {
        Some(0)
    }
    fn with_rules(&self, _: &ClassPair, f: impl FnOnce(&RuleList) -> Option<Rule>) -> Option<Rule> {
        f(&self.0)
    }
}

/// What the policies say, read one after the other.
fn naive(policies: &[Policy], flow: &Flow) -> Option<Rule> {
    policies
        .iter()
        .filter(|p| p.local.holds(&flow.source) && p.remote.holds(&flow.destination))
        .find_map(|p| look_up(&Single(rule_list(std::iter::once(p.rule())).unwrap()), flow))
}

/// Few bits vary, so that prefixes nest and meet; both families, and IPv6 around the place where IPv4 is mapped.
fn address() -> impl Strategy<Value = IpAddr> {
    let bits = 0u8..8;
    prop_oneof![
        (bits.clone(), bits.clone()).prop_map(|(a, b)| IpAddr::from(Ipv4Addr::new(10, a << 5, b << 5, 1))),
        bits.clone().prop_map(|a| IpAddr::from(Ipv6Addr::new(
            0x2001,
            0xdb8,
            u16::from(a) << 13,
            0,
            0,
            0,
            0,
            1
        ))),
        bits.prop_map(|a| IpAddr::from(Ipv6Addr::new(
            0,
            0,
            0,
            0,
            u16::from(a) & 1,
            0xfff0 | u16::from(a),
            1,
            1
        ))),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let v4 = prop::sample::select(vec![0u8, 8, 10, 11, 16, 18, 19, 24, 32]);
    let v6 = prop::sample::select(vec![0u8, 1, 32, 33, 34, 35, 64, 80, 90, 94, 95, 128]);
    (address(), v4, v6).prop_map(|(ip, v4, v6)| Prefix::new(ip, if ip.is_ipv4() { v4 } else { v6 }).unwrap())
}

fn total(slot: std::ops::Range<u32>) -> impl Strategy<Value = Policy> {
    (prefix(), prefix(), slot).prop_map(|(l, r, slot)| Policy::protect(l, r, slot))
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let ports = prop_oneof![Just(PortRange::ANY), Just(PortRange { first: 443, last: 500 })];
    let protocol = prop_oneof![Just(0u8), Just(6), Just(17)];
    (total(0..9), protocol, ports.clone(), ports, 1u8..=3).prop_map(
        |(p, protocol, local_ports, remote_ports, action)| Policy {
            protocol,
            local_ports,
            remote_ports,
            action,
            ..p
        },
    )
}

fn flow() -> impl Strategy<Value = Flow> {
    let ports =
        prop_oneof![Just(None), Just(Some((443u16, 80u16))), Just(Some((80, 443))), Just(Some((500, 443)))];
    (address(), address(), prop_oneof![Just(6u8), Just(17), Just(1)], ports).prop_map(
        |(s, d, protocol, ports)| Flow::new(s.into(), d.into(), protocol, ports.filter(|_| protocol != 1)),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn the_tables_decide_as_the_ordered_list(
        policies in prop::collection::vec(any_policy(), 0..20),
        flows in prop::collection::vec(flow(), 64),
    ) {
        match compile(&policies, &Tables::default()) {
            Ok(tables) => for flow in &flows {
                prop_assert_eq!(look_up(&tables, flow), naive(&policies, flow));
            },
            Err(e) => prop_assert_eq!(e, CompileError::TooManyRules),
        }
    }

    #[test]
    fn on_the_way_to_other_tables_nothing_protected_is_in_clear(
        old in prop::collection::vec(total(0..9), 0..12),
        kept in any::<u16>(),
        added in prop::collection::vec(total(9..20), 0..6),
        flows in prop::collection::vec(flow(), 48),
    ) {
        let survivors = old.iter().enumerate().filter(|(i, _)| kept >> i & 1 == 1).map(|(_, p)| *p);
        let new: Vec<Policy> = survivors.chain(added).collect();
        let from = compile(&old, &Tables::default()).unwrap();
        let to = compile(&new, &from).unwrap();
        let watched: Vec<_> = flows
            .iter()
            .filter(|f| naive(&old, f).is_some() && naive(&new, f).is_some())
            .collect();
        let way = Transition::between(&from, &to);
        let mut states = vec![from.clone()];
        for change in way.publish.iter().chain(&way.retire) {
            let mut next = states.last().unwrap().clone();
            apply(&mut next, change);
            states.push(next);
        }
        prop_assert_eq!(states.last().unwrap(), &to);
        for flow in &watched {
            for state in &states {
                prop_assert!(look_up(state, flow).is_some(), "{:?}", flow);
            }
            // A lookup that reads the source's class, is overtaken by changes, and reads the rest.
            let published = &states[..=way.publish.len()];
            for (i, early) in published.iter().enumerate() {
                let source = early.source_class(&flow.source).unwrap();
                for late in &published[i..] {
                    let destination = late.destination_class(&flow.destination).unwrap();
                    prop_assert!(late.rules.contains_key(&ClassPair { source, destination }), "{:?}", flow);
                }
            }
        }
    }

    #[test]
    fn the_same_policies_need_no_change(policies in prop::collection::vec(any_policy(), 0..12)) {
        if let Ok(tables) = compile(&policies, &Tables::default()) {
            let again = compile(&policies, &tables).unwrap();
            prop_assert!(Transition::between(&tables, &again).is_empty());
        }
    }
}

fn cidr(text: &str) -> Prefix {
    let (ip, len) = text.split_once('/').unwrap();
    Prefix::new(ip.parse().unwrap(), len.parse().unwrap()).unwrap()
}

#[test]
fn a_short_ipv6_prefix_does_not_capture_ipv4() {
    let policies = [Policy::protect(cidr("::/0"), cidr("2001:db8::/32"), 1)];
    let tables = compile(&policies, &Tables::default()).unwrap();
    assert!(tables.sources.contains_key(&cidr("0.0.0.0/0")));
    assert!(!tables.destinations.contains_key(&cidr("0.0.0.0/0")));
}

#[test]
fn one_more_tunnel_leaves_the_others_alone() {
    let tunnel = |i: u32| Policy::protect(cidr("10.0.0.0/16"), cidr(&format!("172.16.{i}.0/24")), i);
    let ten: Vec<_> = (0..10).map(tunnel).collect();
    let eleven: Vec<_> = (0..11).map(tunnel).collect();
    let from = compile(&ten, &Tables::default()).unwrap();
    let to = compile(&eleven, &from).unwrap();
    let way = Transition::between(&from, &to);
    assert_eq!((way.publish.len(), way.retire.len()), (2, 0), "{way:?}");
}

#[test]
fn ten_thousand_tunnels_compile_in_no_time() {
    let policies: Vec<_> = (0..10_000u32)
        .map(|i| {
            Policy::protect(cidr("10.0.0.0/8"), cidr(&format!("172.{}.{}.0/24", 16 + i / 256, i % 256)), i)
        })
        .collect();
    let tables = compile(&policies, &Tables::default()).unwrap();
    assert_eq!((tables.sources.len(), tables.rules.len()), (1, 10_000));
}

#[test]
fn too_many_partial_policies_are_refused() {
    let partial = |i: u16| Policy {
        protocol: 6,
        remote_ports: PortRange { first: i, last: i },
        ..Policy::protect(cidr("10.0.0.0/8"), cidr("172.16.0.0/12"), 0)
    };
    let policies: Vec<_> = (0..9).map(partial).collect();
    assert_eq!(compile(&policies, &Tables::default()), Err(CompileError::TooManyRules));
    assert!(compile(&policies[..8], &Tables::default()).is_ok());
}

#[test]
fn a_change_for_which_the_maps_have_no_room_is_refused_beforehand() {
    let half = (MAX_PREFIXES / 2 + 1) as u32;
    let tables = |first: u32| {
        let class = |i: u32| (Prefix { address: Address::v4((first + i).to_be_bytes()), len: 128 }, i);
        Tables { sources: (0..half).map(class).collect(), ..Tables::default() }
    };
    let (old, new) = (tables(0), tables(half));
    let way = Transition::between(&old, &new);
    assert_eq!(way.fits(&old), Err(CompileError::TooManyPrefixes(2 * half as usize)));
    assert_eq!(Transition::between(&Tables::default(), &new).fits(&Tables::default()), Ok(()));
    assert_eq!(Transition::between(&old, &old).fits(&old), Ok(()));
}
