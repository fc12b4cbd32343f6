//! From one set of tables to another while packets are looked up in them.
//!
//! A look-up sees the old tables or the new ones, and nothing between:
//!
//! 1. the rules of pairs that only the new tables have come first; nothing leads to them yet, because a class whose rules
//!    differ has another number ([`super::compile`]);
//! 2. the classes of all prefixes are replaced at once;
//! 3. the rules of pairs that only the old tables had go last, after every look-up that began before is over.
//!
//! So what both protect is protected throughout, and whoever dies on the way leaves the maps at one end of it.

use super::{CompileError, Tables};
use adit_maps::{
    classes::{Image, TooLarge},
    policy::{ClassPair, MAX_PAIRS, RuleList},
};

/// The way from one set of tables to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// Rules to be written first.
    pub publish: Vec<(ClassPair, RuleList)>,
    /// Then the classes, where they differ.
    pub classes: Option<Image>,
    /// Pairs whose rules are to be removed once no look-up that began before is under way.
    pub retire: Vec<ClassPair>,
}

impl Transition {
    /// The way from `old`, which the maps hold, to `new`, compiled with `old` before it.
    ///
    /// # Errors
    /// [`CompileError::TooManyPrefixes`], [`CompileError::TooManyPairs`] where the maps have no room for it.
    pub fn between(old: &Tables, new: &Tables) -> Result<Transition, CompileError> {
        let publish: Vec<_> = new
            .rules
            .iter()
            .filter(|(pair, list)| old.rules.get(pair) != Some(list))
            .map(|(pair, list)| (*pair, *list))
            .collect();
        let retire: Vec<_> = old.rules.keys().filter(|pair| !new.rules.contains_key(pair)).copied().collect();
        let pairs = new.rules.len() + retire.len();
        if pairs > MAX_PAIRS {
            return Err(CompileError::TooManyPairs(pairs));
        }
        let differs = (&old.sources, &old.destinations) != (&new.sources, &new.destinations);
        let classes = differs.then(|| Image::new(&new.sources, &new.destinations)).transpose();
        let classes = classes
            .map_err(|TooLarge| CompileError::TooManyPrefixes(new.sources.len() + new.destinations.len()))?;
        Ok(Transition { publish, classes, retire })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.classes.is_none() && self.retire.is_empty()
    }
}
