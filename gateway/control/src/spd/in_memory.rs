//! The SPD as the XDP program looks it up, in memory.

use super::{CompileError, Tables, Transition};
use adit_maps::{
    classes::{Damaged, Image, Side, class},
    policy::{ClassPair, Flow, Rule, RuleList, Spd},
};
use std::collections::BTreeMap;

/// What the two maps hold.
pub(crate) struct InMemory {
    pub(crate) classes: Image,
    pub(crate) rules: BTreeMap<ClassPair, RuleList>,
}

impl InMemory {
    pub(crate) fn new(tables: &Tables) -> Result<Self, CompileError> {
        let way = Transition::between(&Tables::default(), tables)?;
        let nothing = || Image::new(&BTreeMap::new(), &BTreeMap::new()).expect("nothing fits");
        Ok(InMemory {
            classes: way.classes.unwrap_or_else(nothing),
            rules: way.publish.into_iter().collect(),
        })
    }
}

impl Spd for InMemory {
    fn generation(&self) -> u64 {
        0
    }
    fn is_still(&self, _: u64) -> bool {
        true
    }
    fn classes(&self, _: u64, flow: &Flow) -> Result<Option<ClassPair>, Damaged> {
        let source = class(&self.classes, 0, Side::Source, &flow.source)?;
        let destination = class(&self.classes, 0, Side::Destination, &flow.destination)?;
        Ok(source.zip(destination).map(|(source, destination)| ClassPair { source, destination }))
    }
    fn with_rules(&self, pair: &ClassPair, f: impl FnOnce(&RuleList) -> Option<Rule>) -> Option<Rule> {
        self.rules.get(pair).and_then(f)
    }
}
