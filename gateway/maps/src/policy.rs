//! The security policy database (RFC 4301 section 4.4.1) as the XDP program looks it up, and the selectors of SAs.
//!
//! [`crate::classes`] maps the addresses of a flow to classes by longest prefix; a hash maps the pair of classes to a
//! short ordered list of rules, which look at protocol and ports. `control` compiles classes and lists so that the list
//! of a pair holds every policy whose prefixes contain both: one lookup of each decides, however many tunnels there are.
//! A rule that protects names a slot of OUTBOUND, which names the SA: a rekey replaces one slot, however many prefixes
//! the policy has. That of a connection group names a run of slots, and the flow's hash says which of them.

use crate::{address::Address, classes::Damaged, decode, sa::SaRef};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

/// Pairs of classes.
pub const MAX_PAIRS: usize = 1 << 19;
/// Slots of OUTBOUND for policies that protect with the SAs of one tunnel.
pub const MAX_POLICIES: usize = 16384;
/// Runs of slots behind those, for connection groups: their policies' flows are spread over the slots of a run.
pub const MAX_RUNS: usize = 8192;
/// Slots in a run; a power of two.
pub const RUN: u32 = 16;
/// The first slot of the first run.
pub const FIRST_RUN: u32 = MAX_POLICIES as u32;
/// Slots of OUTBOUND.
pub const MAX_SLOTS: usize = MAX_POLICIES + MAX_RUNS * RUN as usize;
/// Entries of SELECTORS.
pub const MAX_SELECTORS: usize = 1 << 17;
/// Rules in one list.
pub const MAX_RULES: usize = 8;

/// Key of SPD_RULES: the classes of source and destination as SPD_CLASSES gives them.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct ClassPair {
    /// Class of the source address.
    pub source: u32,
    /// Class of the destination address.
    pub destination: u32,
}

/// Values of [`Rule::action`]: RFC 4301's processing choices.
pub mod action {
    /// Seal with the SA of the rule's OUTBOUND slot.
    pub const PROTECT: u8 = 1;
    /// Let it pass in clear.
    pub const BYPASS: u8 = 2;
    /// Drop it.
    pub const DISCARD: u8 = 3;
}

/// An inclusive range of ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

impl PortRange {
    /// Every port; matches packets without ports too.
    pub const ANY: PortRange = PortRange { first: 0, last: u16::MAX };

    #[inline(always)]
    fn holds(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// One policy within the list of a pair of classes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Rule {
    /// One of [`action`].
    pub action: u8,
    /// Upper-layer protocol, 0 for any.
    pub protocol: u8,
    /// Zero.
    pub reserved: u16,
    /// Source ports.
    pub source_ports: PortRange,
    /// Destination ports.
    pub destination_ports: PortRange,
    /// Slot of OUTBOUND when the action is `PROTECT`; from [`FIRST_RUN`] on the first of a run.
    pub policy: u32,
}

impl Rule {
    /// No action; a value to be overwritten.
    pub const NONE: Rule = Rule {
        action: 0,
        protocol: 0,
        reserved: 0,
        source_ports: PortRange::ANY,
        destination_ports: PortRange::ANY,
        policy: 0,
    };
    /// Discards whatever comes.
    pub const DISCARD: Rule = Rule { action: action::DISCARD, ..Rule::NONE };

    /// The slot of OUTBOUND for a flow of the rule. `is_whole` is `false` for a fragment: no two parts of a packet have
    /// different ones, though only the first shows its ports.
    #[inline(always)]
    pub fn slot(&self, flow: &Flow, is_whole: bool) -> u32 {
        if self.policy < FIRST_RUN {
            return self.policy;
        }
        self.policy + (flow.hash(is_whole) & (RUN - 1))
    }

    /// Whether the rule covers every packet between its prefixes, so that none after it is ever reached.
    pub fn is_total(&self) -> bool {
        self.protocol == 0 && self.has_any_port()
    }

    #[inline(always)]
    fn has_any_port(&self) -> bool {
        self.source_ports == PortRange::ANY && self.destination_ports == PortRange::ANY
    }
}

/// The rules of a pair of classes, first match first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RuleList {
    /// How many of `rules` are used.
    pub len: u32,
    /// The rules, in order.
    pub rules: [Rule; MAX_RULES],
}

/// Value of SPD_RULES.
///
/// The kernel may give an element that `control` replaces or removes to another pair while somebody still reads it.
/// So the value says whose it is, and is asked after the rules were read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PairRules {
    /// Equal to the key. First, so that it is overwritten first.
    pub pair: ClassPair,
    /// The rules.
    pub rules: RuleList,
}

impl PairRules {
    /// `found`, if the value still is that of `pair`; else the packet is discarded.
    #[inline(always)]
    pub fn checked(&self, pair: &ClassPair, found: Option<Rule>) -> Option<Rule> {
        // SAFETY: a reference is valid for reads; volatile keeps the read after those of the rules.
        let now = unsafe { (&raw const self.pair).read_volatile() };
        if now == *pair { found } else { Some(Rule::DISCARD) }
    }
}

/// Slot of OUTBOUND.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Outbound {
    /// The SA that seals now; generation 0 when there is none. Eight bytes, aligned: replaced in one store.
    pub sa: SaRef,
    /// When the XDP program last asked for an SA, in nanoseconds of CLOCK_MONOTONIC.
    pub asked: u64,
}

/// Entry of SELECTORS: one traffic selector (RFC 7296 section 3.13.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Selector {
    /// First address.
    pub first: Address,
    /// Last address.
    pub last: Address,
    /// Ports of this side.
    pub ports: PortRange,
    /// Upper-layer protocol, 0 for any.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl Selector {
    /// Whether the selector admits this side of a packet. A packet whose ports cannot be seen (a later fragment, a
    /// protocol that has none) passes only where every port does (RFC 4301 section 7.2).
    #[inline]
    pub fn admits(&self, address: &Address, protocol: u8, port: Option<u16>) -> bool {
        // As numbers: octet by octet, a comparison is a call.
        let [first, last, address] = [&self.first, &self.last, address].map(|a| u128::from_be_bytes(a.0));
        let is_v4 = |address: u128| address >> 32 == 0xffff;
        is_v4(first) == is_v4(address)
            && first <= address
            && address <= last
            && (self.protocol == 0 || self.protocol == protocol)
            && match port {
                Some(port) => self.ports.holds(port),
                None => self.ports == PortRange::ANY,
            }
    }
}

/// What a policy is looked up by.
///
/// Plain fields, no `Option` inside: the type stands in signatures of BPF functions, and the kernel refuses the type
/// information of an enum that hides its discriminant in a niche. Aligned, so that the program reads an address in two
/// loads, not in sixteen.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Upper-layer protocol.
    pub protocol: u8,
    has_ports: bool,
    source_port: u16,
    destination_port: u16,
}

impl Flow {
    /// From nowhere to nowhere; a value to be overwritten.
    pub const EMPTY: Flow = Flow {
        source: Address([0; 16]),
        destination: Address([0; 16]),
        protocol: 0,
        has_ports: false,
        source_port: 0,
        destination_port: 0,
    };

    /// `ports` are source and destination; `None` when the packet has none or they are in another fragment.
    #[inline(always)]
    pub fn new(source: Address, destination: Address, protocol: u8, ports: Option<(u16, u16)>) -> Self {
        let (source_port, destination_port) = ports.unwrap_or((0, 0));
        Flow { source, destination, protocol, has_ports: ports.is_some(), source_port, destination_port }
    }

    /// Source and destination port, if they can be seen.
    #[inline(always)]
    pub fn ports(&self) -> Option<(u16, u16)> {
        if self.has_ports { Some((self.source_port, self.destination_port)) } else { None }
    }

    /// The same for every packet of the flow, and as good as random over flows. Ports count where `with_ports`.
    #[inline(always)]
    pub fn hash(&self, with_ports: bool) -> u32 {
        // Words of the addresses and what tells flows between two hosts apart, each step one multiplication by an odd
        // number that has no pattern (the golden ratio's, of Knuth's multiplicative hashing).
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let ports = if with_ports && self.has_ports {
            (u64::from(self.source_port) << 16) | u64::from(self.destination_port)
        } else {
            0
        };
        let [a, b]: [[u8; 8]; 2] = transmute!(self.source.0);
        let [c, d]: [[u8; 8]; 2] = transmute!(self.destination.0);
        let mut hash = (u64::from(self.protocol) << 32) | ports;
        for octets in [a, b, c, d] {
            hash = (hash ^ u64::from_be_bytes(octets)).wrapping_mul(FACTOR);
            hash ^= hash >> 32;
        }
        (hash.wrapping_mul(FACTOR) >> 32) as u32
    }

    /// The same flow seen from the other end.
    #[inline(always)]
    pub fn reversed(&self) -> Flow {
        Flow {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }
}

/// The tables of the SPD, wherever they live.
pub trait Spd {
    /// Counts how often the classes were replaced; read before anything else.
    fn generation(&self) -> u64;
    /// Whether this still is the generation, after everything that was read since [`Spd::generation`] gave it.
    fn is_still(&self, generation: u64) -> bool;
    /// The classes of a flow's source and destination; `None` where one has none.
    ///
    /// # Errors
    /// [`Damaged`] where the tables are, or were replaced meanwhile.
    fn classes(&self, generation: u64, flow: &Flow) -> Result<Option<ClassPair>, Damaged>;
    /// Calls `f` on the rules of the pair, if there are any.
    fn with_rules(&self, pair: &ClassPair, f: impl FnOnce(&RuleList) -> Option<Rule>) -> Option<Rule>;
}

/// Times that a look-up is tried where the classes are replaced under it.
pub const ATTEMPTS: u32 = 2;

/// The classes were replaced while a flow was looked up in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced;

/// The first rule that covers `flow`; what gets no answer in [`ATTEMPTS`] is discarded.
#[inline(always)]
pub fn look_up(spd: &impl Spd, flow: &Flow) -> Option<Rule> {
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        if let Ok(found) = try_look_up(spd, flow) {
            return found;
        }
        attempts += 1;
    }
    Some(Rule::DISCARD)
}

/// The first rule that covers `flow`. Where the tables are damaged, one that discards it.
///
/// # Errors
/// What is read while the classes are replaced may be of no moment: it is only believed when the generation is the same
/// before and after, and else is [`Replaced`].
#[inline(always)]
pub fn try_look_up(spd: &impl Spd, flow: &Flow) -> Result<Option<Rule>, Replaced> {
    let generation = spd.generation();
    let found = match spd.classes(generation, flow) {
        Ok(Some(pair)) => spd.with_rules(&pair, |list| first_match(list, flow)),
        Ok(None) => None,
        Err(Damaged) => Some(Rule::DISCARD),
    };
    if spd.is_still(generation) { Ok(found) } else { Err(Replaced) }
}

/// What cannot be seen in a later fragment (ports; the protocol, when it is behind extension headers) matches a rule
/// that protects or discards, and does not match one that lets pass in clear: no part of a protected flow slips past.
#[inline(always)]
fn first_match(list: &RuleList, flow: &Flow) -> Option<Rule> {
    let mut i = 0;
    while i < MAX_RULES {
        if i as u32 >= list.len {
            return None;
        }
        let rule = &list.rules[i];
        let guess = rule.action != action::BYPASS;
        let protocol = rule.protocol == 0
            || rule.protocol == flow.protocol
            || (guess && decode::is_extension(flow.protocol));
        let ports = match flow.ports() {
            Some((s, d)) => rule.source_ports.holds(s) && rule.destination_ports.holds(d),
            None => guess || rule.has_any_port(),
        };
        if protocol && ports {
            return Some(*rule);
        }
        i += 1;
    }
    None
}

const _: () =
    assert!(size_of::<Rule>() == 16 && size_of::<RuleList>() == 132 && size_of::<PairRules>() == 140);
const _: () = assert!(size_of::<Outbound>() == 16 && size_of::<Selector>() == 40);
const _: () =
    assert!(core::mem::offset_of!(Flow, source) == 0 && core::mem::offset_of!(Flow, destination) == 16);

#[cfg(test)]
mod tests {
    use super::*;

    const TCP_443: Rule = Rule {
        action: action::PROTECT,
        protocol: 6,
        reserved: 0,
        source_ports: PortRange::ANY,
        destination_ports: PortRange { first: 443, last: 443 },
        policy: 7,
    };
    const REST: Rule = Rule {
        action: action::DISCARD,
        protocol: 0,
        reserved: 0,
        source_ports: PortRange::ANY,
        destination_ports: PortRange::ANY,
        policy: 0,
    };

    fn flow(protocol: u8, ports: Option<(u16, u16)>) -> Flow {
        Flow::new(Address::v4([10, 1, 0, 2]), Address::v4([10, 2, 0, 2]), protocol, ports)
    }

    fn list(rules: &[Rule]) -> RuleList {
        let mut l = RuleList { len: rules.len() as u32, rules: [REST; MAX_RULES] };
        l.rules[..rules.len()].copy_from_slice(rules);
        l
    }

    #[test]
    fn the_first_rule_that_covers_a_flow_wins() {
        let l = list(&[TCP_443, REST]);
        assert_eq!(first_match(&l, &flow(6, Some((1024, 443)))), Some(TCP_443));
        assert_eq!(first_match(&l, &flow(6, Some((1024, 80)))), Some(REST));
        assert_eq!(first_match(&l, &flow(17, Some((1024, 443)))), Some(REST));
        assert_eq!(first_match(&list(&[]), &flow(6, None)), None);
    }

    #[test]
    fn a_later_fragment_cannot_slip_past_a_rule_with_ports() {
        assert_eq!(first_match(&list(&[TCP_443]), &flow(6, None)), Some(TCP_443));
        assert_eq!(first_match(&list(&[TCP_443]), &flow(17, None)), None);
        // Destination options before the protocol of an IPv6 fragment: it may well be TCP.
        assert_eq!(first_match(&list(&[TCP_443]), &flow(60, None)), Some(TCP_443));
        let bypass = Rule { action: action::BYPASS, ..TCP_443 };
        assert_eq!(first_match(&list(&[bypass, REST]), &flow(6, None)), Some(REST));
        assert_eq!(first_match(&list(&[bypass, REST]), &flow(60, None)), Some(REST));
        let whole = Rule { destination_ports: PortRange::ANY, ..bypass };
        assert_eq!(first_match(&list(&[whole, REST]), &flow(6, None)), Some(whole));
    }

    #[test]
    fn a_run_is_spread_by_flow_and_a_slot_is_not() {
        let run = Rule { policy: FIRST_RUN + 5 * RUN, ..TCP_443 };
        let mut hits = [0; RUN as usize];
        for host in 0..=255 {
            for port in 0..16u16 {
                let (source, destination) = (Address::v4([10, 1, 0, host]), Address::v4([10, 2, 0, 1]));
                let flow = Flow::new(source, destination, 6, Some((1024 + port, 443)));
                assert_eq!(TCP_443.slot(&flow, true), 7);
                let slot = run.slot(&flow, true);
                assert_eq!(slot, run.slot(&flow, true));
                hits[(slot - run.policy) as usize] += 1;
                // Parts of one packet, of which the first shows the ports.
                let later = Flow::new(source, destination, 6, None);
                assert_eq!(run.slot(&flow, false), run.slot(&later, false));
            }
        }
        let mean = 256 * 16 / RUN as i32;
        assert!(hits.iter().all(|n: &i32| (n - mean).abs() < mean / 3), "{hits:?}");
        // Hosts of one IPv6 network, a port each.
        let mut hits = [0; RUN as usize];
        for host in 0..=255u8 {
            let mut source = [0x20; 16];
            source[15] = host;
            let flow = Flow::new(Address(source), Address([0x21; 16]), 17, Some((500, 500)));
            hits[(run.slot(&flow, true) - run.policy) as usize] += 1;
        }
        assert!(hits.iter().all(|n| (4..=32).contains(n)), "{hits:?}");
    }

    #[test]
    fn a_list_that_became_another_pairs_discards() {
        let pair = ClassPair { source: 1, destination: 2 };
        let value = PairRules { pair, rules: list(&[TCP_443]) };
        assert_eq!(value.checked(&pair, Some(TCP_443)), Some(TCP_443));
        let other = ClassPair { source: 1, destination: 3 };
        assert_eq!(value.checked(&other, Some(TCP_443)).map(|r| r.action), Some(action::DISCARD));
        assert_eq!(value.checked(&other, None).map(|r| r.action), Some(action::DISCARD));
    }

    #[test]
    fn a_selector_tells_families_apart() {
        let s = Selector {
            first: Address([0; 16]),
            last: Address([0xff; 16]),
            ports: PortRange::ANY,
            protocol: 0,
            reserved: [0; 3],
        };
        assert!(s.admits(&Address([0x20; 16]), 6, Some(1)));
        assert!(!s.admits(&Address::v4([10, 0, 0, 1]), 6, Some(1)));
        assert!(s.admits(&Address([0x20; 16]), 6, None));
        let one_port = Selector { ports: PortRange { first: 1, last: 1 }, ..s };
        assert!(!one_port.admits(&Address([0x20; 16]), 6, None));
    }
}
