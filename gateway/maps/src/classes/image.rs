//! What an area of SPD_CLASSES holds, made of prefixes and their classes, and the prefixes read back from it.

use super::{
    AREA_CELLS, BEYOND, CLASS, Cell, Cells, Damaged, KIND_SHIFT, MAX_CLASSES, NODE, NODE_BITS, Side,
    TABLE_BITS, TAIL,
};
use crate::address::{Address, Prefix};
use std::{collections::BTreeMap, fmt};

/// The cell after the tables.
const INDEX: u32 = 4 << (TABLE_BITS - 2);
const NODE_CELLS: usize = 4;
const SLOTS_PER_CELL: usize = 4;

/// The class of each prefix of one side.
pub type ClassOf = BTreeMap<Prefix, u32>;

/// The prefixes do not fit an area of SPD_CLASSES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The contents of an area, from its first cell on.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    cells: Vec<Cell>,
}

impl Image {
    /// Lays out the prefixes of both sides with their classes.
    ///
    /// # Errors
    /// [`TooLarge`] when they take more than [`AREA_CELLS`], or a class is not below [`MAX_CLASSES`].
    pub fn new(sources: &ClassOf, destinations: &ClassOf) -> Result<Self, TooLarge> {
        let mut image = Image { cells: vec![[0; 2]; INDEX as usize + 1] };
        for (side, prefixes) in [(Side::Source, sources), (Side::Destination, destinations)] {
            let mut families = [Vec::new(), Vec::new()];
            for (prefix, class) in prefixes {
                if *class >= MAX_CLASSES {
                    return Err(TooLarge);
                }
                families[usize::from(prefix.is_v4())].push(Entry::new(prefix, *class));
            }
            for (family, entries) in families.iter().enumerate().filter(|(_, entries)| !entries.is_empty()) {
                let mut table = vec![0; 1 << TABLE_BITS];
                image.fill(&mut table, 0, TABLE_BITS, entries)?;
                let first = (side as usize * 2 + family) * table.len() / SLOTS_PER_CELL;
                image.write_slots(first, &table);
            }
        }
        let list = image.cells.len();
        for (prefix, class) in sources.iter().chain(destinations) {
            let bits = u128::from_be_bytes(prefix.address.0);
            image.cells.push([(bits >> 64) as u64, bits as u64]);
            image.cells.push([u64::from(prefix.len), u64::from(*class)]);
        }
        image.cells[INDEX as usize] = [list as u64, (sources.len() as u64) << 32 | destinations.len() as u64];
        image.check()?;
        Ok(image)
    }

    /// The cells, in order.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Fills a table or node that decides the `bits` after `depth`, and starts with what there is around it. `entries` lie
    /// within it, are in order, and are longer than `depth` bits, or a table's.
    fn fill(
        &mut self,
        slots: &mut [u32],
        depth: u32,
        bits: u32,
        mut entries: &[Entry],
    ) -> Result<(), TooLarge> {
        let end = depth + bits;
        let index = |entry: &Entry| (entry.bits << depth >> (128 - bits)) as usize;
        while let Some(first) = entries.first() {
            let at = index(first);
            if first.len <= end {
                slots[at..at + (1 << (end - first.len))].fill(first.slot());
                entries = &entries[1..];
            } else {
                // A shorter prefix with the same bits was before these, one with more bits comes after them.
                let count = entries.iter().take_while(|e| index(e) == at).count();
                let (below, others) = entries.split_at(count);
                slots[at] = self.below(below, end, slots[at])?;
                entries = others;
            }
        }
        Ok(())
    }

    /// The slot that leads to prefixes which have their first `depth` bits in common, and more; `around` is what holds where
    /// none of them does.
    fn below(&mut self, entries: &[Entry], depth: u32, around: u32) -> Result<u32, TooLarge> {
        if let [only] = entries {
            // Even, so that both are in one line of the cache.
            let at = self.cells.len().next_multiple_of(2);
            self.cells.resize(at + 2, [0; 2]);
            self.cells[at] = [(only.bits >> 64) as u64, only.bits as u64];
            self.cells[at + 1] = [u64::from(only.len), u64::from(only.slot()) | u64::from(around) << 32];
            self.check()?;
            return Ok(TAIL << KIND_SHIFT | at as u32);
        }
        let mut slots = [around; 1 << NODE_BITS];
        self.fill(&mut slots, depth, NODE_BITS, entries)?;
        let at = self.cells.len();
        let first = (at + NODE_CELLS) * SLOTS_PER_CELL;
        let mut runs: Vec<u32> = Vec::new();
        for quarter in slots.chunks_exact(64) {
            let mut begins = 0u64;
            let before = first + runs.len() - 1;
            for (i, slot) in quarter.iter().enumerate() {
                if i == 0 || runs.last() != Some(slot) {
                    begins |= 1 << i;
                    runs.push(*slot);
                }
            }
            self.cells.push([begins, before as u64]);
        }
        self.cells.resize(at + NODE_CELLS + runs.len().div_ceil(SLOTS_PER_CELL), [0; 2]);
        self.write_slots(at + NODE_CELLS, &runs);
        self.check()?;
        Ok(NODE << KIND_SHIFT | at as u32)
    }

    fn write_slots(&mut self, first: usize, slots: &[u32]) {
        for (cell, slots) in self.cells[first..].iter_mut().zip(slots.chunks(SLOTS_PER_CELL)) {
            for (i, slot) in slots.iter().enumerate() {
                cell[i >> 1] |= u64::from(*slot) << ((i & 1) << 5);
            }
        }
    }

    fn check(&self) -> Result<(), TooLarge> {
        if self.cells.len() > AREA_CELLS as usize { Err(TooLarge) } else { Ok(()) }
    }
}

/// As the current area of an array of which there is no more.
impl Cells for Image {
    fn cell(&self, index: u32) -> Option<Cell> {
        self.cells.get(index as usize).copied()
    }
    fn word(&self, index: u32, word: u32) -> u64 {
        self.cell(index).map_or(BEYOND, |cell| cell[word as usize & 1])
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("cells", &self.cells.len()).finish()
    }
}

/// The prefixes of the area that begins at `area`, with their classes: sources, and destinations.
///
/// # Errors
/// [`Damaged`] where the list does not lie within the area, or holds what is no prefix.
pub fn prefixes(cells: &impl Cells, area: u32) -> Result<(ClassOf, ClassOf), Damaged> {
    let [first, counts] = cells.cell(area + INDEX).ok_or(Damaged)?;
    let (sources, destinations) = (counts >> 32, counts & u64::from(u32::MAX));
    let read = |number: u64| {
        let at = first.checked_add(2 * number).filter(|at| *at < u64::from(AREA_CELLS) - 1).ok_or(Damaged)?;
        let [high, low] = cells.cell(area + at as u32).ok_or(Damaged)?;
        let [len, class] = cells.cell(area + at as u32 + 1).ok_or(Damaged)?;
        let bits = u128::from(high) << 64 | u128::from(low);
        let prefix =
            Prefix { address: Address(bits.to_be_bytes()), len: u32::try_from(len).map_err(|_| Damaged)? };
        let is_prefix = prefix.len <= 128 && bits.checked_shl(prefix.len).unwrap_or(0) == 0;
        let class = u32::try_from(class).ok().filter(|class| *class < MAX_CLASSES);
        class.filter(|_| is_prefix).map(|class| (prefix, class)).ok_or(Damaged)
    };
    let of_sources = (0..sources).map(read).collect::<Result<_, _>>()?;
    let of_destinations = (sources..sources + destinations).map(read).collect::<Result<_, _>>()?;
    Ok((of_sources, of_destinations))
}

/// A prefix as the tables have it: see [`super::Key::new`].
struct Entry {
    bits: u128,
    len: u32,
    class: u32,
}

impl Entry {
    fn new(prefix: &Prefix, class: u32) -> Self {
        let skipped = if prefix.is_v4() { Address::V4_PREFIX } else { 0 };
        Entry { bits: u128::from_be_bytes(prefix.address.0) << skipped, len: prefix.len - skipped, class }
    }

    fn slot(&self) -> u32 {
        CLASS << KIND_SHIFT | self.class
    }
}
