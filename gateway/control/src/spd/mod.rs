//! Compiles an ordered list of policies into the tables of the SPD (RFC 4301 section 4.4.1).
//!
//! A prefix's class stands for the set of policies whose own prefix on that side contains it. The longest prefix that
//! holds an address is contained in every other that does, so its class knows every policy that could cover the
//! address; the rules of a pair of classes are the policies that are in both sets, in order.

#[cfg(test)]
mod in_memory;
mod range;
#[cfg(test)]
mod tests;
mod transition;

#[cfg(test)]
pub(crate) use in_memory::InMemory;
pub use range::prefixes;
pub use transition::Transition;

use adit_maps::{
    address::{Address, Prefix},
    classes::{AREA_CELLS, Cell},
    policy::{ClassPair, MAX_PAIRS, MAX_POLICIES, MAX_RULES, PortRange, Rule, RuleList, action},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// One entry of the ordered SPD. The order of a list of them decides: the first that covers a flow is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Sources on our side.
    pub local: Prefix,
    /// Destinations on the peer's side.
    pub remote: Prefix,
    /// Upper-layer protocol, 0 for any.
    pub protocol: u8,
    /// Ports on our side.
    pub local_ports: PortRange,
    /// Ports on the peer's side.
    pub remote_ports: PortRange,
    /// One of [`action`].
    pub action: u8,
    /// Slot of OUTBOUND when the action is `PROTECT`.
    pub slot: u32,
}

impl Policy {
    /// Protects everything between two prefixes with the SA of `slot`.
    pub fn protect(local: Prefix, remote: Prefix, slot: u32) -> Self {
        let any = PortRange::ANY;
        Policy {
            local,
            remote,
            protocol: 0,
            local_ports: any,
            remote_ports: any,
            action: action::PROTECT,
            slot,
        }
    }

    /// Drops everything between two prefixes.
    pub fn discard(local: Prefix, remote: Prefix) -> Self {
        Policy { action: action::DISCARD, ..Policy::protect(local, remote, 0) }
    }

    /// The rule that stands for it between its prefixes.
    pub fn rule(&self) -> Rule {
        Rule {
            action: self.action,
            protocol: self.protocol,
            reserved: 0,
            source_ports: self.local_ports,
            destination_ports: self.remote_ports,
            policy: self.slot,
        }
    }
}

/// The policies by which nothing passes.
pub fn discard_everything() -> Vec<Policy> {
    let all = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    let all = all.into_iter().filter_map(|any| Prefix::new(any, 0));
    all.map(|any| Policy { action: action::DISCARD, ..Policy::protect(any, any, 0) }).collect()
}

/// What the maps of the SPD hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The classes of source prefixes in SPD_CLASSES.
    pub sources: BTreeMap<Prefix, u32>,
    /// Those of destination prefixes.
    pub destinations: BTreeMap<Prefix, u32>,
    /// SPD_RULES.
    pub rules: BTreeMap<ClassPair, RuleList>,
}

impl Tables {
    /// The slot that everything between two prefixes is protected with, where the tables have both.
    pub fn slot_of(&self, local: &Prefix, remote: &Prefix) -> Option<u32> {
        let pair =
            ClassPair { source: *self.sources.get(local)?, destination: *self.destinations.get(remote)? };
        let list = self.rules.get(&pair)?;
        let last = list.rules.get(..list.len as usize)?.last()?;
        (last.action == action::PROTECT && last.is_total()).then_some(last.policy)
    }

    /// Every slot that something is protected with.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        let rules = self.rules.values().flat_map(|list| list.rules.iter().take(list.len as usize));
        rules.filter(|rule| rule.action == action::PROTECT).map(|rule| rule.policy)
    }

    /// How many rules the longest list has.
    pub fn longest(&self) -> usize {
        self.rules.values().map(|list| list.len as usize).max().unwrap_or(0)
    }
}

/// Why a list of policies has no tables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More policies meet between two prefixes than a rule list holds.
    #[error("more than {MAX_RULES} policies with protocols or ports meet between two of their prefixes")]
    TooManyRules,
    /// More prefixes than SPD_CLASSES holds.
    #[error(
        "{0} different prefixes on both sides together take more than the {mib} MiB that there are for them",
        mib = (AREA_CELLS as usize * size_of::<Cell>()) >> 20
    )]
    TooManyPrefixes(usize),
    /// More pairs of classes than the hash holds.
    #[error("at least {0} pairs of classes (before and after a change together), {MAX_PAIRS} fit")]
    TooManyPairs(usize),
    /// No slot of OUTBOUND is free.
    #[error("more than {MAX_POLICIES} slots, before and after a change together")]
    TooManySlots,
}

/// The tables for `policies`, and the way there from what the maps hold.
///
/// # Errors
/// When the maps cannot hold the tables, or what lies on the way.
pub fn plan(policies: &[Policy], current: &Tables) -> Result<(Tables, Transition), CompileError> {
    let next = compile(policies, current)?;
    let way = Transition::between(current, &next)?;
    Ok((next, way))
}

/// Compiles `policies`. A class that has the same prefixes and the same rules with every other such class as in `previous`
/// keeps its number; no other number is one that `previous` uses. So the rules of both can be in the map at once, and a
/// [`Transition`] between the two touches only what differs.
///
/// # Errors
/// When the tables of the maps cannot hold the result.
pub fn compile(policies: &[Policy], previous: &Tables) -> Result<Tables, CompileError> {
    let sources = Side::new(policies.iter().map(|p| p.local));
    let destinations = Side::new(policies.iter().map(|p| p.remote));
    let mut source_numbers = Numbers::new(&previous.sources, previous.rules.keys().map(|p| p.source));
    let mut destination_numbers =
        Numbers::new(&previous.destinations, previous.rules.keys().map(|p| p.destination));
    let of_sources = sources.numbers(&previous.sources, &mut source_numbers);
    let mut of_destinations = destinations.numbers(&previous.destinations, &mut destination_numbers);
    let mut rules = BTreeMap::new();
    for policy in 0..policies.len() {
        for &source in &sources.classes_with[policy] {
            for &destination in &destinations.classes_with[policy] {
                let pair =
                    ClassPair { source: of_sources[source], destination: of_destinations[destination] };
                if let std::collections::btree_map::Entry::Vacant(vacant) = rules.entry(pair) {
                    let common = common(&sources.members[source], &destinations.members[destination]);
                    vacant.insert(rule_list(common.map(|i| policies[i].rule()))?);
                    // Before what does not fit takes more memory than there is.
                    if rules.len() > MAX_PAIRS {
                        return Err(CompileError::TooManyPairs(rules.len()));
                    }
                }
            }
        }
    }
    let is_kept = |pair: &ClassPair| {
        source_numbers.kept.contains(&pair.source) && destination_numbers.kept.contains(&pair.destination)
    };
    let changed: BTreeSet<u32> = rules
        .keys()
        .chain(previous.rules.keys())
        .filter(|pair| is_kept(pair) && rules.get(pair) != previous.rules.get(pair))
        .map(|pair| pair.destination)
        .collect();
    if !changed.is_empty() {
        let fresh: BTreeMap<u32, u32> =
            changed.into_iter().map(|number| (number, destination_numbers.fresh())).collect();
        let moved: Vec<_> = rules.extract_if(.., |pair, _| fresh.contains_key(&pair.destination)).collect();
        rules.extend(
            moved
                .into_iter()
                .map(|(pair, list)| (ClassPair { destination: fresh[&pair.destination], ..pair }, list)),
        );
        of_destinations.iter_mut().for_each(|number| *number = *fresh.get(number).unwrap_or(number));
    }
    let numbered = |side: &Side, numbers: &[u32]| {
        side.class_of.iter().map(|(prefix, class)| (*prefix, numbers[*class])).collect()
    };
    Ok(Tables {
        sources: numbered(&sources, &of_sources),
        destinations: numbered(&destinations, &of_destinations),
        rules,
    })
}

/// The numbers of one side's classes, before and now.
struct Numbers {
    /// Every one that the maps hold.
    used: HashSet<u32>,
    /// Those that classes keep.
    kept: HashSet<u32>,
    next: u32,
}

impl Numbers {
    fn new(previous: &BTreeMap<Prefix, u32>, in_rules: impl Iterator<Item = u32>) -> Self {
        Numbers { used: previous.values().copied().chain(in_rules).collect(), kept: HashSet::new(), next: 0 }
    }

    /// One that the maps do not hold. There are more than prefixes fit.
    fn fresh(&mut self) -> u32 {
        while self.used.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }
}

/// The prefixes of one side and their classes, numbered from 0 until they are given numbers that are free in the maps.
struct Side {
    class_of: BTreeMap<Prefix, usize>,
    /// Of each class: the policies that contain its prefixes, in order.
    members: Vec<Vec<usize>>,
    /// Of each policy: the classes that it is a member of.
    classes_with: Vec<Vec<usize>>,
}

impl Side {
    fn new(prefixes: impl Iterator<Item = Prefix>) -> Self {
        let mut policies_of: BTreeMap<Prefix, Vec<usize>> = BTreeMap::new();
        let mut policies = 0;
        for (policy, prefix) in prefixes.enumerate() {
            policies_of.entry(prefix).or_default().push(policy);
            policies = policy + 1;
        }
        let lengths: BTreeSet<u32> = policies_of.keys().map(|p| p.len).collect();
        let mut side =
            Side { class_of: BTreeMap::new(), members: Vec::new(), classes_with: vec![Vec::new(); policies] };
        let mut known: HashMap<Vec<usize>, usize> = HashMap::new();
        for prefix in policies_of.keys() {
            let mut members: Vec<usize> = lengths
                .range(..=prefix.len)
                .map(|&len| ancestor(prefix, len))
                .filter(|a| a.contains(prefix))
                .filter_map(|a| policies_of.get(&a))
                .flatten()
                .copied()
                .collect();
            members.sort_unstable();
            let class = *known.entry(members.clone()).or_insert_with(|| {
                let class = side.members.len();
                members.iter().for_each(|&policy| side.classes_with[policy].push(class));
                side.members.push(members);
                class
            });
            side.class_of.insert(*prefix, class);
        }
        side
    }

    /// The number of each class: the one it had, or one that is not in use.
    fn numbers(&self, previous: &BTreeMap<Prefix, u32>, numbers: &mut Numbers) -> Vec<u32> {
        let mut groups: HashMap<u32, Vec<Prefix>> = HashMap::new();
        for (prefix, class) in previous {
            groups.entry(*class).or_default().push(*prefix);
        }
        let mut prefixes: Vec<Vec<Prefix>> = vec![Vec::new(); self.members.len()];
        for (prefix, class) in &self.class_of {
            prefixes[*class].push(*prefix);
        }
        prefixes
            .iter()
            .map(|mine| {
                let old = mine.first().and_then(|p| previous.get(p)).copied();
                let kept = old.filter(|number| groups.get(number).is_some_and(|g| g == mine));
                numbers.kept.extend(kept);
                kept.unwrap_or_else(|| numbers.fresh())
            })
            .collect()
    }
}

/// The prefix of `len` bits that covers `prefix`; `len` is at most its own.
fn ancestor(prefix: &Prefix, len: u32) -> Prefix {
    let mask = if len == 0 { 0 } else { u128::MAX << (128 - len) };
    Prefix { address: Address((u128::from_be_bytes(prefix.address.0) & mask).to_be_bytes()), len }
}

/// What is in both of two ascending lists.
fn common<'a>(a: &'a [usize], b: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    few.iter().copied().filter(|i| many.binary_search(i).is_ok())
}

/// A list that ends with the first rule after which none is reached.
fn rule_list(rules: impl Iterator<Item = Rule>) -> Result<RuleList, CompileError> {
    let mut list = RuleList { len: 0, rules: [Rule::NONE; MAX_RULES] };
    for rule in rules {
        let slot = list.rules.get_mut(list.len as usize).ok_or(CompileError::TooManyRules)?;
        *slot = rule;
        list.len += 1;
        if rule.is_total() {
            break;
        }
    }
    Ok(list)
}
