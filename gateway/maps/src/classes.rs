//! From an address to its class by longest prefix: SPD_CLASSES, in as many steps as the prefix has octets.
//!
//! The kernel's LPM trie has a level for each bit in which prefixes differ, so that a look-up grows with the number of
//! tunnels. This one takes 16 bits at once from a table, then 8 from each node: an IPv4 address is found after two
//! nodes at most, an IPv6 address after fourteen, and one prefix that has its part of the space to itself after none.
//!
//! The map is an array of cells of two 64-bit words: a head, whose first word counts generations, and two areas. The
//! generation's parity says which area is current; the other one is written, and then made current by one store.
//! Within an area everything is found by numbers that count from its start, in cells or in slots, four slots a cell:
//!
//! | what | cells | holds |
//! |---|---|---|
//! | tables | 4 × 2¹⁴ | for each side and IP version a slot for each value of the first 16 bits |
//! | index | 1 | where the list is, and how many prefixes it has of either side |
//! | node | 4 | for each quarter of the 256 values of an octet: bits that say where a run of equal slots begins, and the number before that of the first run's slot; the slots of all runs lie behind |
//! | tail | 2 | a prefix, its class, and what there is around it |
//! | list | 2 a prefix | the prefixes and their classes, for whoever goes on with the SPD |
//!
//! A slot is no class, a class, a node or a tail: the upper two bits tell which. The tables of the IP versions are
//! separate, so that no prefix of one holds an address of the other.

#[cfg(any(test, feature = "user"))]
mod image;

#[cfg(any(test, feature = "user"))]
pub use image::{ClassOf, Image, TooLarge, prefixes};

use crate::address::Address;
use zerocopy::transmute;

/// Two words of the array.
pub type Cell = [u64; 2];

/// Cells before the areas; the first word counts generations.
pub const HEAD_CELLS: u32 = 4;
/// Cells of one area: 16 MiB.
pub const AREA_CELLS: u32 = 1 << 20;
/// Cells of the map.
pub const CELLS: u32 = HEAD_CELLS + 2 * AREA_CELLS;
/// Classes that there may be on one side.
pub const MAX_CLASSES: u32 = VALUE;

/// Bits that a table decides.
const TABLE_BITS: u32 = 16;
/// Bits that a node decides.
const NODE_BITS: u32 = 8;

const KIND_SHIFT: u32 = 30;
/// The bits of a slot that say which class, or where.
const VALUE: u32 = (1 << KIND_SHIFT) - 1;
/// Kinds of slots; 0 is no class.
const CLASS: u32 = 1;
const NODE: u32 = 2;
const TAIL: u32 = 3;
/// The class that there is none of: the path ends here, because it led out of the array.
const DAMAGED: u32 = CLASS << KIND_SHIFT | VALUE;

/// A word of two slots that say that they lie beyond the end. No `Option`: LLVM would shift what is in it before it asks whether it is
/// there, and the verifier knows no value that is not used.
pub const BEYOND: u64 = (DAMAGED as u64) << 32 | DAMAGED as u64;

/// Which end of a flow a prefix is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sources.
    Source = 0,
    /// Destinations.
    Destination = 1,
}

/// The array does not hold what [`Image`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// An array of cells, wherever it lies.
pub trait Cells {
    /// A cell, `None` beyond the end.
    fn cell(&self, index: u32) -> Option<Cell>;
    /// One of its words, by the last bit of `word`; [`BEYOND`] beyond the end.
    fn word(&self, index: u32, word: u32) -> u64;
}

/// The cell that an area begins with: the current one in this generation.
#[inline(always)]
pub fn area(generation: u64) -> u32 {
    HEAD_CELLS + (generation & 1) as u32 * AREA_CELLS
}

/// The class of the longest prefix of `side` that holds `address`, in the area that begins at `area`; `None` where none
/// does.
///
/// # Errors
/// [`Damaged`] where a number leads out of the array or a path does not end.
#[inline(always)]
pub fn class(cells: &impl Cells, area: u32, side: Side, address: &Address) -> Result<Option<u32>, Damaged> {
    let Key { table, high, low } = Key::new(side, *address);
    found(find(cells, area, table, high, low))
}

/// The slot in which a key's path ends; [`found`] says what it means. Whatever the array holds, no more than 14 nodes are
/// looked at.
#[inline(always)]
pub fn find(cells: &impl Cells, area: u32, table: u32, high: u64, low: u64) -> u32 {
    let mut slot = slot_at(cells, area, table.wrapping_add((high >> (64 - TABLE_BITS)) as u32));
    let mut depth = TABLE_BITS;
    while depth < 128 && slot >> KIND_SHIFT == NODE {
        let octet = octet(high, low, depth);
        let Some([runs, before]) = cells.cell(area.wrapping_add(value(slot) + (octet >> 6))) else {
            return DAMAGED;
        };
        let run = (runs & u64::MAX >> (63 - (octet & 63))).count_ones();
        slot = slot_at(cells, area, (before as u32).wrapping_add(run));
        depth += NODE_BITS;
    }
    if slot >> KIND_SHIFT == TAIL {
        let at = area.wrapping_add(value(slot));
        let (Some(first), Some([len, slots])) = (cells.cell(at), cells.cell(at.wrapping_add(1))) else {
            return DAMAGED;
        };
        let is_in = begins_with([high, low], first, len as u32);
        slot = if is_in { slots as u32 } else { (slots >> 32) as u32 };
    }
    slot
}

/// The class of a slot in which a path ends.
///
/// # Errors
/// [`Damaged`] where the path led out of the array, or did not end.
#[inline(always)]
pub fn found(slot: u32) -> Result<Option<u32>, Damaged> {
    match slot >> KIND_SHIFT {
        0 => Ok(None),
        CLASS if slot != DAMAGED => Ok(Some(value(slot))),
        _ => Err(Damaged),
    }
}

/// An address as it is looked up: IPv4 without the 96 bits before it, at the upper end.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The slot that the table of its side and IP version begins with.
    pub table: u32,
    /// The first 64 bits.
    pub high: u64,
    /// The others.
    pub low: u64,
}

impl Key {
    /// The key of an address of one end of a flow. By value: a reference would forget how the flow is aligned.
    #[inline(always)]
    pub fn new(side: Side, address: Address) -> Self {
        let [high, low]: [[u8; 8]; 2] = transmute!(address.0);
        let [high, low] = [u64::from_be_bytes(high), u64::from_be_bytes(low)];
        let table = |family: u32| ((side as u32) << 1 | family) << TABLE_BITS;
        if high == 0 && low >> 32 == 0xffff {
            Key { table: table(1), high: low << 32, low: 0 }
        } else {
            Key { table: table(0), high, low }
        }
    }
}

/// The octet that begins after `depth` bits, a multiple of 8 below 128.
#[inline(always)]
fn octet(high: u64, low: u64, depth: u32) -> u32 {
    let word = if depth < 64 { high } else { low };
    (word >> (56 - (depth & 63))) as u32 & 0xff
}

/// Whether the first `len` bits of two keys, of which there is at least one, are the same.
#[inline(always)]
fn begins_with(a: [u64; 2], b: [u64; 2], len: u32) -> bool {
    let differ = |i: usize, rest: u32| (a[i] ^ b[i]) >> (rest & 63) != 0;
    if len <= 64 {
        !differ(0, 64u32.wrapping_sub(len))
    } else {
        a[0] == b[0] && !differ(1, 128u32.wrapping_sub(len))
    }
}

#[inline(always)]
fn slot_at(cells: &impl Cells, area: u32, number: u32) -> u32 {
    (cells.word(area.wrapping_add(number >> 2), number >> 1) >> ((number & 1) << 5)) as u32
}

/// The class of a slot, or the cell that it leads to.
#[inline(always)]
fn value(slot: u32) -> u32 {
    slot & VALUE
}

#[cfg(all(test, not(loom)))]
mod tests;
