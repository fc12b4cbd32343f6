//! From one set of tables to another while packets are looked up in them.
//!
//! A lookup reads three tables one after the other, and each change is one entry. So that a flow which is protected
//! both before and after is so at every moment between:
//!
//! 1. rules come first, also those of the mixed pairs that a lookup sees between the change of its source's class and
//!    that of its destination's;
//! 2. new prefixes come longest first, and stale ones go shortest first, so that an address never rests in a class that
//!    is neither its old nor its new one;
//! 3. stale rules go last, after every lookup that began before is over ([`Transition::retire`] is separate from
//!    [`Transition::publish`] for that).

use super::{CompileError, DISCARD, Tables, ancestor, rule_list};
use adit_maps::{
    address::Prefix,
    policy::{ClassPair, MAX_PAIRS, MAX_PREFIXES, RuleList},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// One write to one of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add or replace the rules of a pair.
    SetRules(ClassPair, RuleList),
    /// Remove the rules of a pair.
    RemoveRules(ClassPair),
    /// Give a source prefix its class.
    SetSource(Prefix, u32),
    /// Remove a source prefix.
    RemoveSource(Prefix),
    /// Give a destination prefix its class.
    SetDestination(Prefix, u32),
    /// Remove a destination prefix.
    RemoveDestination(Prefix),
}

/// The way from one set of tables to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// To be written first, in this order.
    pub publish: Vec<Change>,
    /// To be written once no lookup that began before the end of `publish` is under way.
    pub retire: Vec<Change>,
}

impl Transition {
    /// The way from `old` to `new`. A class number that both use must stand for the same prefixes in both, as
    /// [`super::compile`] sees to.
    pub fn between(old: &Tables, new: &Tables) -> Transition {
        let mixed = mixed_rules(old, new);
        let mut publish: Vec<Change> =
            mixed.iter().map(|(pair, list)| Change::SetRules(*pair, *list)).collect();
        for (pair, list) in &new.rules {
            if old.rules.get(pair) != Some(list) {
                publish.push(Change::SetRules(*pair, *list));
            }
        }
        side(&old.sources, &new.sources, Change::SetSource, Change::RemoveSource, &mut publish);
        side(
            &old.destinations,
            &new.destinations,
            Change::SetDestination,
            Change::RemoveDestination,
            &mut publish,
        );
        let stale: BTreeSet<_> = old.rules.keys().chain(mixed.keys()).collect();
        let retire = stale
            .into_iter()
            .filter(|pair| !new.rules.contains_key(pair))
            .map(|pair| Change::RemoveRules(*pair))
            .collect();
        Transition { publish, retire }
    }

    /// Whether the maps, which hold `old`, have room for everything that is in them on the way.
    ///
    /// # Errors
    /// [`CompileError::TooManyPrefixes`], [`CompileError::TooManyPairs`].
    pub fn fits(&self, old: &Tables) -> Result<(), CompileError> {
        let (mut sources, mut destinations, mut pairs) =
            (old.sources.len(), old.destinations.len(), old.rules.len());
        let mut set = BTreeSet::new();
        for change in &self.publish {
            match change {
                Change::SetSource(prefix, _) if !old.sources.contains_key(prefix) => sources += 1,
                Change::SetDestination(prefix, _) if !old.destinations.contains_key(prefix) => {
                    destinations += 1
                }
                Change::SetRules(pair, _) if !old.rules.contains_key(pair) && set.insert(*pair) => pairs += 1,
                _ => {}
            }
        }
        match sources.max(destinations) {
            prefixes if prefixes > MAX_PREFIXES => Err(CompileError::TooManyPrefixes(prefixes)),
            _ if pairs > MAX_PAIRS => Err(CompileError::TooManyPairs(pairs)),
            _ => Ok(()),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.retire.is_empty()
    }
}

fn side(
    old: &BTreeMap<Prefix, u32>,
    new: &BTreeMap<Prefix, u32>,
    set: fn(Prefix, u32) -> Change,
    remove: fn(Prefix) -> Change,
    changes: &mut Vec<Change>,
) {
    let mut added: Vec<_> = new.iter().filter(|(p, class)| old.get(p) != Some(class)).collect();
    added.sort_by_key(|(p, _)| Reverse(p.len));
    changes.extend(added.into_iter().map(|(p, class)| set(*p, *class)));
    let mut stale: Vec<_> = old.keys().filter(|p| !new.contains_key(p)).collect();
    stale.sort_by_key(|p| p.len);
    changes.extend(stale.into_iter().map(|p| remove(*p)));
}

/// The rules of the pairs that are seen only while one side has its new class and the other still its old one. Where
/// several regions share such a pair and disagree, or the flow was or will be unprotected, it is discarded for the moment.
fn mixed_rules(old: &Tables, new: &Tables) -> BTreeMap<ClassPair, RuleList> {
    let sources = moves(&old.sources, &new.sources);
    let destinations = moves(&old.destinations, &new.destinations);
    let mut mixed: BTreeMap<ClassPair, Option<RuleList>> = BTreeMap::new();
    for &(old_source, new_source) in &sources {
        for &(old_destination, new_destination) in &destinations {
            let before = old.rules.get(&ClassPair { source: old_source, destination: old_destination });
            let after = new.rules.get(&ClassPair { source: new_source, destination: new_destination });
            let (Some(_), Some(after)) = (before, after) else { continue };
            for pair in [
                ClassPair { source: new_source, destination: old_destination },
                ClassPair { source: old_source, destination: new_destination },
            ] {
                if !old.rules.contains_key(&pair) && !new.rules.contains_key(&pair) {
                    let list = mixed.entry(pair).or_insert(Some(*after));
                    *list = list.filter(|known| known == after);
                }
            }
        }
    }
    let discard = rule_list(std::iter::once(DISCARD)).expect("one rule fits into a list");
    mixed.into_iter().map(|(pair, list)| (pair, list.unwrap_or(discard))).collect()
}

/// Every change of class that some address undergoes, from a class to another.
fn moves(old: &BTreeMap<Prefix, u32>, new: &BTreeMap<Prefix, u32>) -> BTreeSet<(u32, u32)> {
    let lengths = |side: &BTreeMap<Prefix, u32>| side.keys().map(|p| p.len).collect::<BTreeSet<_>>();
    let (old_lengths, new_lengths) = (lengths(old), lengths(new));
    let longest = |side: &BTreeMap<Prefix, u32>, lengths: &BTreeSet<u32>, prefix: &Prefix| {
        lengths.range(..=prefix.len).rev().find_map(|&len| side.get(&ancestor(prefix, len)).copied())
    };
    old.keys()
        .chain(new.keys())
        .filter_map(|p| longest(old, &old_lengths, p).zip(longest(new, &new_lengths, p)))
        .filter(|(before, after)| before != after)
        .collect()
}
