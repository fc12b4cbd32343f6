//! The tables of the SPD: classes that are replaced as a whole, and the rules of their pairs.

use super::{Directory, Error, Mapped, name, tables::Hash};
use crate::{
    atomic::{AtomicU64, fence},
    classes::{self, BEYOND, CELLS, Cell, Cells, ClassOf, Damaged, Image, Side},
    policy::{ClassPair, Flow, PairRules, Rule, RuleList, Spd},
};
use std::{
    io,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

/// SPD_CLASSES and SPD_RULES.
pub struct SpdTables {
    classes: Classes,
    rules: Hash<ClassPair, PairRules>,
}

impl SpdTables {
    /// Opens the two maps.
    ///
    /// # Errors
    /// As [`Directory::check`] and [`Mapped::open`].
    pub fn open(dir: &Directory) -> Result<Self, Error> {
        dir.check()?;
        let classes = Classes(Mapped::open(dir, name::SPD_CLASSES)?);
        if classes.0.len() != CELLS {
            let source =
                io::Error::other(format!("it has {} cells where {CELLS} are expected", classes.0.len()));
            return Err(Error::Mmap { name: name::SPD_CLASSES, source });
        }
        Ok(SpdTables { classes, rules: Hash::open(dir, name::SPD_RULES)? })
    }

    /// Gives all prefixes of both sides their classes at once: a look-up sees those before or these. The one call that
    /// writes them, and only `control` makes it.
    ///
    /// On machines that reorder loads, the XDP program may believe what it read of the area that the next call overwrites:
    /// leave more time between two calls than a look-up takes.
    pub fn replace_classes(&mut self, image: &Image) {
        self.classes.replace(image);
    }

    /// Gives a pair of classes its rules.
    ///
    /// # Errors
    /// When the map is full.
    pub fn insert_rules(&mut self, pair: ClassPair, rules: RuleList) -> Result<(), Error> {
        self.rules.insert(pair, PairRules { pair, rules })
    }

    /// Removes the rules of a pair.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_rules(&mut self, pair: &ClassPair) -> Result<(), Error> {
        self.rules.remove(pair)
    }

    /// The source prefixes and the destination prefixes with their classes.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn prefixes(&self) -> Result<(ClassOf, ClassOf), Error> {
        self.classes.prefixes().map_err(|Damaged| Error::Damaged(name::SPD_CLASSES))
    }

    /// Every pair of classes that has rules.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rules(&self) -> Result<Vec<(ClassPair, RuleList)>, Error> {
        Ok(self.rules.entries()?.into_iter().map(|(pair, value)| (pair, value.rules)).collect())
    }
}

impl Spd for SpdTables {
    fn generation(&self) -> u64 {
        self.classes.generation()
    }
    fn is_still(&self, generation: u64) -> bool {
        self.classes.is_still(generation)
    }
    fn classes(&self, generation: u64, flow: &Flow) -> Result<Option<ClassPair>, Damaged> {
        self.classes.pair(generation, flow)
    }
    fn with_rules(&self, pair: &ClassPair, f: impl FnOnce(&RuleList) -> Option<Rule>) -> Option<Rule> {
        let value = self.rules.get(pair).ok()??;
        value.checked(pair, f(&value.rules))
    }
}

/// SPD_CLASSES in memory.
struct Classes(Mapped<2>);

impl Classes {
    fn generation(&self) -> u64 {
        self.0.get(0).map_or(0, begun)
    }

    fn is_still(&self, generation: u64) -> bool {
        self.0.get(0).is_none_or(|head| is_still(head, generation))
    }

    fn pair(&self, generation: u64, flow: &Flow) -> Result<Option<ClassPair>, Damaged> {
        let class = |side, address| classes::class(&self.0, classes::area(generation), side, address);
        let source = class(Side::Source, &flow.source)?;
        let destination = class(Side::Destination, &flow.destination)?;
        Ok(source.zip(destination).map(|(source, destination)| ClassPair { source, destination }))
    }

    fn replace(&self, image: &Image) {
        let Some(head) = self.0.get(0) else { return };
        replace(head, |generation| {
            for (index, [high, low]) in (classes::area(generation)..).zip(image.cells()) {
                let Some(cell) = self.0.get(index) else { return };
                cell[0].store(*high, Relaxed);
                cell[1].store(*low, Relaxed);
            }
        });
    }

    fn prefixes(&self) -> Result<(ClassOf, ClassOf), Damaged> {
        classes::prefixes(&self.0, classes::area(self.generation()))
    }
}

impl Cells for Mapped<2> {
    #[inline]
    fn cell(&self, index: u32) -> Option<Cell> {
        self.get(index).map(|[high, low]| [high.load(Relaxed), low.load(Relaxed)])
    }
    #[inline]
    fn word(&self, index: u32, word: u32) -> u64 {
        self.get(index).map_or(BEYOND, |cell| cell[word as usize & 1].load(Relaxed))
    }
}

/// The generation, before an area of it is read.
fn begun(head: &[AtomicU64; 2]) -> u64 {
    head[0].load(Acquire)
}

/// Whether what was read since belongs to `generation`: an area is only written in a later one.
fn is_still(head: &[AtomicU64; 2], generation: u64) -> bool {
    fence(Acquire);
    head[0].load(Relaxed) == generation
}

/// Lets `write` fill the area of the next generation, and makes that current.
fn replace(head: &[AtomicU64; 2], write: impl FnOnce(u64)) {
    let next = head[0].load(Acquire).wrapping_add(1);
    // Who reads anything of what comes now sees, after its fence, that the generation before this one is over.
    fence(Release);
    write(next);
    head[0].store(next, Release);
}

#[cfg(all(test, not(loom)))]
#[path = "spd_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "spd_interleavings.rs"]
mod interleavings;
