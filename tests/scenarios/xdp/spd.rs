//! The classes of addresses as the kernel runs the look-up: longest prefixes of both families, and tables that are not
//! what they should be.

use super::*;
use adit_maps::{classes::area, user::Mapped};
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

/// Prefixes that nest, meet, and end in a table, a node and a tail; each is a class of its own.
const NESTED: [&str; 24] = [
    "0.0.0.0/1",
    "10.0.0.0/8",
    "10.2.0.0/15",
    "10.2.0.0/16",
    "10.2.0.0/17",
    "10.2.3.0/24",
    "10.2.3.4/31",
    "10.2.3.4/32",
    "10.2.4.0/22",
    "10.2.255.255/32",
    "172.16.9.0/24",
    "255.255.255.255/32",
    "::/0",
    "2001:db8::/32",
    "2001:db8:2::/48",
    "2001:db8:2::/49",
    "2001:db8:2:8000::/50",
    "2001:db8:2:3::/64",
    "2001:db8:2:3:4::/80",
    "2001:db8:2:3:4::8000/113",
    "2001:db8:2:3:4::7/128",
    "2001:db8:2:3:4::8/128",
    "2001:db8:2:3:4::9/127",
    "fd00::/8",
];

fn rule_of(class: u32) -> Option<Rule> {
    match class % 3 {
        0 => None,
        1 => Some(Rule { action: action::BYPASS, ..Rule::NONE }),
        _ => Some(Rule::DISCARD),
    }
}

pub(super) fn the_longest_prefix_decides(p: &mut Program) -> Result<()> {
    let everywhere = [(prefix("0.0.0.0/0")?, 100), (prefix("::/0")?, 100)].into();
    let nested: BTreeMap<Prefix, u32> =
        NESTED.iter().zip(0..).map(|(text, class)| Ok((prefix(text)?, class))).collect::<Result<_>>()?;
    for (class, rule) in nested.values().filter_map(|class| Some((*class, rule_of(*class)?))) {
        let list = RuleList { len: 1, rules: [rule; MAX_RULES] };
        p.spd.insert_rules(ClassPair { source: 100, destination: class }, list)?;
    }
    p.replace_classes(&everywhere, &nested)?;
    for destination in nested.keys().flat_map(around) {
        let longest = nested.iter().filter(|(p, _)| p.holds(&destination)).max_by_key(|(p, _)| p.len);
        let (action, verdict) = match longest.and_then(|(_, class)| rule_of(*class)) {
            Some(rule) if rule.action == action::DISCARD => (XDP_DROP, Verdict::Discard),
            Some(_) => (XDP_PASS, Verdict::Bypass),
            None => (XDP_PASS, Verdict::Unprotected),
        };
        let frame = match IpAddr::from(destination) {
            IpAddr::V4(v4) => udp(SITE_A, v4.octets(), (1, 2), b"x"),
            IpAddr::V6(v6) => udp6("2001:db8:1::2", &v6.to_string(), (1, 2), b"x"),
        };
        p.expect(&frame, action, verdict).with_context(|| format!("to {}", IpAddr::from(destination)))?;
    }
    Ok(())
}

/// The first and last address of a prefix and those beside it, of its family.
fn around(prefix: &Prefix) -> Vec<adit_maps::address::Address> {
    let [first, last] = [prefix.address, prefix.last()].map(|a| u128::from_be_bytes(a.0));
    let of = |bits: u128| adit_maps::address::Address(bits.to_be_bytes());
    let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(of);
    all.into_iter().filter(|a| a.is_v4() == prefix.is_v4()).collect()
}

pub(super) fn classes_are_replaced_at_once(p: &mut Program) -> Result<()> {
    let frame = udp(SITE_A, SITE_B, (1, 9), b"x");
    let side = |text: &str, class| Ok::<_, anyhow::Error>([(prefix(text)?, class)].into());
    for _ in 0..3 {
        p.expect(&frame, XDP_DROP, Verdict::Discard)?;
        p.replace_classes(&side("10.1.0.0/16", 1)?, &side("10.3.0.0/16", 1)?)?;
        p.expect(&frame, XDP_PASS, Verdict::Unprotected)?;
        p.standard_policies()?;
    }
    Ok(())
}

pub(super) fn damaged_classes_discard(p: &mut Program) -> Result<()> {
    let frame = udp(SITE_A, [203, 0, 113, 9], (1, 2), b"x");
    p.expect(&frame, XDP_PASS, Verdict::Unprotected)?;
    let cells = Mapped::<2>::open(&p.dir, name::SPD_CLASSES)?;
    let generation = cells.get(0).context("no head")?[0].load(Relaxed);
    // The table of IPv4 sources, as slots that lead to nodes and tails: in the table itself, and out of the array.
    for slot in [0x8000_4000u64, 0xbfff_ffff, 0xc000_4000, 0xffff_ffff] {
        for index in (1 << 14)..(2 << 14) {
            let cell = cells.get(area(generation) + index).context("no such cell")?;
            cell.iter().for_each(|word| word.store(slot << 32 | slot, Relaxed));
        }
        p.expect(&frame, XDP_DROP, Verdict::Discard).with_context(|| format!("{slot:x}"))?;
    }
    Ok(())
}
