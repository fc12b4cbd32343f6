use super::*;
use adit_maps::{
    classes::Damaged,
    policy::{Flow, Spd, look_up},
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One rule for all addresses: whether it covers the protocol and ports of a flow is for `adit-maps` to say.
struct Single(RuleList);

impl Spd for Single {
    fn generation(&self) -> u64 {
        0
    }
    fn is_still(&self, _: u64) -> bool {
        true
    }
    fn classes(&self, _: u64, _: &Flow) -> Result<Option<ClassPair>, Damaged> {
        Ok(Some(ClassPair::default()))
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
            Ok(tables) => {
                let tables = InMemory::new(&tables).unwrap();
                for flow in &flows {
                    prop_assert_eq!(look_up(&tables, flow), naive(&policies, flow));
                }
            }
            Err(e) => prop_assert_eq!(e, CompileError::TooManyRules),
        }
    }

    #[test]
    fn on_the_way_to_other_tables_every_look_up_is_of_one_of_them(
        old in prop::collection::vec(any_policy(), 0..12),
        kept in any::<u16>(),
        turned in any::<bool>(),
        added in prop::collection::vec(any_policy(), 0..6),
        flows in prop::collection::vec(flow(), 48),
    ) {
        let survivors = old.iter().enumerate().filter(|(i, _)| kept >> i & 1 == 1).map(|(_, p)| *p);
        let mut new: Vec<Policy> = survivors.chain(added).collect();
        if turned {
            new.reverse();
        }
        let (Ok(from), Ok(to)) = (compile(&old, &Tables::default()), compile(&new, &Tables::default())) else {
            return Ok(());
        };
        let (to, way) = plan(&new, &from).map(|(planned, way)| {
            assert_eq!(planned.rules.len(), to.rules.len());
            (planned, way)
        }).unwrap();
        let mut maps = InMemory::new(&from).unwrap();
        for (pair, list) in &way.publish {
            maps.rules.insert(*pair, *list);
            for flow in &flows {
                prop_assert_eq!(look_up(&maps, flow), naive(&old, flow), "{:?}", flow);
            }
        }
        maps.classes = way.classes.clone().unwrap_or(maps.classes);
        for flow in &flows {
            prop_assert_eq!(look_up(&maps, flow), naive(&new, flow), "{:?}", flow);
        }
        for pair in &way.retire {
            maps.rules.remove(pair);
        }
        for flow in &flows {
            prop_assert_eq!(look_up(&maps, flow), naive(&new, flow), "{:?}", flow);
        }
        prop_assert_eq!(maps.rules, to.rules);
    }

    #[test]
    fn the_same_policies_need_no_change(policies in prop::collection::vec(any_policy(), 0..12)) {
        if let Ok(tables) = compile(&policies, &Tables::default()) {
            let again = compile(&policies, &tables).unwrap();
            prop_assert!(Transition::between(&tables, &again).unwrap().is_empty());
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
    let tables = InMemory::new(&compile(&policies, &Tables::default()).unwrap()).unwrap();
    let to = |source: &str, destination: &str| {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        look_up(&tables, &Flow::new(address(source), address(destination), 6, None)).is_some()
    };
    assert!(to("2001:db8:1::1", "2001:db8::1"));
    assert!(!to("10.0.0.1", "2001:db8::1"));
}

#[test]
fn one_more_tunnel_leaves_the_others_alone() {
    let tunnel = |i: u32| Policy::protect(cidr("10.0.0.0/16"), cidr(&format!("172.16.{i}.0/24")), i);
    let ten: Vec<_> = (0..10).map(tunnel).collect();
    let eleven: Vec<_> = (0..11).map(tunnel).collect();
    let from = compile(&ten, &Tables::default()).unwrap();
    let to = compile(&eleven, &from).unwrap();
    let way = Transition::between(&from, &to).unwrap();
    assert_eq!((way.publish.len(), way.retire.len()), (1, 0), "{way:?}");
    assert!(from.destinations.iter().all(|(prefix, class)| to.destinations.get(prefix) == Some(class)));
}

#[test]
fn what_a_killed_control_left_behind_is_nobodys_number() {
    let tunnel = |i: u32| Policy::protect(cidr("10.0.0.0/16"), cidr(&format!("172.16.{i}.0/24")), i);
    let mut found = compile(&[tunnel(0)], &Tables::default()).unwrap();
    let (next, way) = plan(&[tunnel(0), tunnel(1)], &found).unwrap();
    // It died after it had written the rules.
    found.rules.extend(way.publish.iter().copied());
    let (again, way) = plan(&[tunnel(0), tunnel(2)], &found).unwrap();
    let left = next.rules.keys().find(|pair| !again.rules.contains_key(pair)).unwrap();
    assert_eq!(way.retire, [*left]);
    assert!(again.destinations.values().all(|class| *class != left.destination));
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
    let half = (MAX_PAIRS / 2 + 1) as u32;
    let tables = |first: u32| {
        let list = rule_list(std::iter::once(Rule::DISCARD)).unwrap();
        let pair = |i: u32| (ClassPair { source: 0, destination: first + i }, list);
        Tables { rules: (0..half).map(pair).collect(), ..Tables::default() }
    };
    let (old, new) = (tables(0), tables(half));
    assert_eq!(Transition::between(&old, &new), Err(CompileError::TooManyPairs(2 * half as usize)));
    assert!(Transition::between(&Tables::default(), &new).is_ok());
    assert!(Transition::between(&old, &old).unwrap().is_empty());
    // By way of policies that discard everything there is room.
    let (nothing, _) = plan(&discard_everything(), &old).unwrap();
    assert!(Transition::between(&nothing, &new).is_ok());
    let nothing = InMemory::new(&nothing).unwrap();
    for (from, to) in [("10.0.0.1", "172.16.0.1"), ("2001:db8::1", "2001:db8::2")] {
        let ip = |a: &str| a.parse::<IpAddr>().unwrap().into();
        assert_eq!(look_up(&nothing, &Flow::new(ip(from), ip(to), 6, None)), Some(Rule::DISCARD));
    }
}

#[test]
fn prefixes_for_which_there_is_no_room_are_refused_in_words() {
    let pair = |i: u32| {
        let host =
            |side: u32| cidr(&format!("2001:{:x}:{:x}::{}/128", i >> 14, i >> 1 & 0x1fff, side + (i & 1)));
        Policy::protect(host(1), host(3), 0)
    };
    let policies: Vec<_> = (0..20_000).map(pair).collect();
    let error = plan(&policies, &Tables::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "40000 different prefixes on both sides together take more than the 16 MiB that there are for them"
    );
}
