//! The pinned maps as `control` writes and reads them, behind a trait that tests implement in memory.

use crate::spd::{Tables, Transition};
use adit_ike::codec::{Damaged, Field, Reader, Writer};
use adit_maps::{
    address::Address,
    policy::Selector,
    sa::{DropCause, Mtu, SaRef, SadConfig, SpiKey},
    user::{Directory, Error, Outbounds, Ports, Sad, Selectors, SpdTables, SpiIndex, Verdicts},
    verdict::Verdict,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::Ordering::Relaxed,
};

/// What one SA, or a whole tunnel in one direction, has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets sealed or opened.
    pub packets: u64,
    /// Bytes of the inner packets.
    pub bytes: u64,
    /// Packets dropped, by the number of the [`DropCause`].
    pub drops: [u64; DropCause::ALL.len()],
    /// What fits the path of an outbound SA, once the data plane knows; a sum has none.
    pub mtu: Option<Mtu>,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.drops.iter_mut().zip(other.drops).for_each(|(sum, n)| *sum += n);
    }
}

impl Counters {
    /// What has been counted since `earlier`, of the same SA.
    #[must_use]
    pub fn since(mut self, earlier: &Counters) -> Counters {
        self.packets = self.packets.saturating_sub(earlier.packets);
        self.bytes = self.bytes.saturating_sub(earlier.bytes);
        self.drops.iter_mut().zip(earlier.drops).for_each(|(now, then)| *now = now.saturating_sub(then));
        self
    }
}

/// What outlasts a process, which a path's MTU does not. A cause of drops that another build does not know is left out.
impl Field for Counters {
    fn write(&self, to: &mut Writer) {
        (self.packets, (self.bytes, self.drops.to_vec())).write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let (packets, (bytes, dropped)) = <(u64, (u64, Vec<u64>))>::read(from)?;
        let mut counters = Counters { packets, bytes, ..Counters::default() };
        counters.drops.iter_mut().zip(dropped).for_each(|(drops, n)| *drops = n);
        Ok(counters)
    }
}

/// Packets by verdict.
pub type PerVerdict = Vec<(Verdict, u64)>;

/// The part of the maps that SAs live in.
pub trait SaMaps {
    /// SAs that fit.
    fn sa_capacity(&self) -> u32;
    /// Entries of SELECTORS.
    fn selector_capacity(&self) -> u32;
    /// Publishes an entry with fresh state; `None` when the index does not exist.
    fn install(&mut self, index: u32, config: &SadConfig) -> Option<SaRef>;
    /// Sends the packets of an SA from and to other addresses and ports, and expects them from there, without a change of
    /// its state; `false` when the entry is another SA's.
    fn relocate(
        &mut self,
        sa: SaRef,
        local: Address,
        peer: Address,
        encapsulation: Option<(u16, u16)>,
    ) -> bool;
    /// A copy of an entry without its keys; `None` when it is another SA's.
    fn entry(&self, sa: SaRef) -> Option<SadConfig>;
    /// Frees an entry and overwrites its keys.
    fn free(&mut self, index: u32);
    /// The next sequence number that an outbound SA hands out, less one.
    fn sequence(&self, index: u32) -> u64;
    /// What the SA has done so far.
    fn counters(&self, index: u32) -> Counters;
    /// Adds an entry to SPI_INDEX.
    ///
    /// # Errors
    /// When the map is full.
    fn insert_spi(&mut self, key: SpiKey, sa: SaRef) -> Result<(), Error>;
    /// Removes an entry of SPI_INDEX.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove_spi(&mut self, key: &SpiKey) -> Result<(), Error>;
    /// The SA that seals for a slot of OUTBOUND.
    fn outbound(&self, slot: u32) -> Option<SaRef>;
    /// Replaces it; generation 0 is none.
    fn set_outbound(&mut self, slot: u32, sa: SaRef);
    /// Writes an entry of SELECTORS.
    fn set_selector(&mut self, index: u32, selector: Selector);
}

/// The maps of the SPD, as `control` writes and reads them.
pub struct SpdMaps(SpdTables);

impl SpdMaps {
    /// Opens them.
    ///
    /// # Errors
    /// As [`Pinned::open`].
    pub fn open(dir: &Directory) -> Result<Self, Error> {
        SpdTables::open(dir).map(SpdMaps)
    }

    /// What the maps of the SPD hold.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn tables(&self) -> Result<Tables, Error> {
        let (sources, destinations) = self.0.prefixes()?;
        Ok(Tables { sources, destinations, rules: self.0.rules()?.into_iter().collect() })
    }

    /// Makes the maps of the SPD say what a transition leads to. What is to be retired is still there.
    ///
    /// # Errors
    /// When a map is full; then look-ups still see what they saw before.
    pub fn publish(&mut self, way: &Transition) -> Result<(), Error> {
        for (pair, list) in &way.publish {
            self.0.insert_rules(*pair, *list)?;
        }
        if let Some(classes) = &way.classes {
            self.0.replace_classes(classes);
        }
        Ok(())
    }

    /// Removes what no look-up is led to any more.
    ///
    /// # Errors
    /// When the kernel refuses; what came before is removed.
    pub fn retire(&mut self, way: &Transition) -> Result<(), Error> {
        way.retire.iter().try_for_each(|pair| self.0.remove_rules(pair))
    }
}

/// Every map that `control` uses, but EVENTS and those of the SPD.
pub struct Pinned {
    sad: Sad,
    spi: SpiIndex,
    outbounds: Outbounds,
    selectors: Selectors,
    verdicts: Verdicts,
    ports: Ports,
    followers: Followers,
}

/// Slots of OUTBOUND that seal with what another seals with.
#[derive(Clone, Debug, Default)]
pub struct Followers {
    /// By slot.
    leaders: HashMap<u32, u32>,
    /// By leader.
    followers: HashMap<u32, BTreeSet<u32>>,
}

impl Followers {
    /// Has `slot` follow `leader`, or none. Whether it did not yet.
    pub fn follow(&mut self, slot: u32, leader: Option<u32>) -> bool {
        let before = match leader {
            Some(leader) => self.leaders.insert(slot, leader),
            None => self.leaders.remove(&slot),
        };
        if before == leader {
            return false;
        }
        if let Some(before) = before
            && let Some(of) = self.followers.get_mut(&before)
        {
            of.remove(&slot);
            if of.is_empty() {
                self.followers.remove(&before);
            }
        }
        if let Some(leader) = leader {
            self.followers.entry(leader).or_default().insert(slot);
        }
        true
    }

    /// Who a slot follows.
    pub fn leader(&self, slot: u32) -> Option<u32> {
        self.leaders.get(&slot).copied()
    }

    /// Who follows a slot.
    pub fn of(&self, leader: u32) -> impl Iterator<Item = u32> {
        self.followers.get(&leader).into_iter().flatten().copied()
    }
}

impl Pinned {
    /// Opens them.
    ///
    /// # Errors
    /// As [`Directory::check`]; [`Error::Absent`] as long as the data plane has not made all of them.
    pub fn open(dir: &Directory) -> Result<Self, Error> {
        Ok(Pinned {
            sad: Sad::open(dir)?,
            spi: SpiIndex::open(dir)?,
            outbounds: Outbounds::open(dir)?,
            selectors: Selectors::open(dir)?,
            verdicts: Verdicts::open(dir)?,
            ports: Ports::open(dir)?,
            followers: Followers::default(),
        })
    }

    /// Leaves every policy without an SA, so that what it protects is dropped; but for those that seal with one that
    /// `owned` says is ours.
    pub fn withdraw_outbound(&mut self, owned: impl Fn(u32, SaRef) -> bool) {
        for slot in 0..self.outbounds.capacity() {
            // One that follows another has been given what that has.
            let is_owned = |sa| self.followers.leader(slot).is_some() || owned(slot, sa);
            if self.outbounds.get(slot).is_some_and(|sa| !is_owned(sa)) {
                self.outbounds.set(slot, SaRef::default());
            }
        }
    }

    /// From now on `slot` seals with what `leader` seals with, or with nothing.
    pub fn follow(&mut self, slot: u32, leader: Option<u32>) {
        if self.followers.follow(slot, leader) {
            let sa = leader.and_then(|leader| self.outbounds.get(leader));
            self.outbounds.set(slot, sa.unwrap_or_default());
        }
    }

    /// The slots that follow others.
    pub fn followers(&self) -> &Followers {
        &self.followers
    }

    /// Forgets every SA of an earlier `control` that nobody here knows the negotiation of: all but those that are
    /// `owned`. Returns the inbound SPIs that are gone, and how many entries.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_sas(&mut self, owned: impl Fn(SaRef) -> bool) -> Result<(Vec<u32>, usize), Error> {
        let mut spis = Vec::new();
        for (key, sa) in self.spi.entries()? {
            if !owned(sa) {
                self.spi.remove(&key)?;
                spis.push(key.spi);
            }
        }
        let mut count = 0;
        for index in 0..self.sad.capacity() {
            let generation = self.sad.generation(index);
            if generation != 0 && !owned(SaRef { index, generation }) {
                self.sad.free(index);
                count += 1;
            }
        }
        Ok((spis, count))
    }

    /// Packets per verdict of every interface that carries the XDP program, by interface index.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn verdicts(&self) -> Result<Vec<(u32, PerVerdict)>, Error> {
        let mut ports = self.ports.entries()?;
        ports.sort_by_key(|(ifindex, _)| *ifindex);
        ports
            .into_iter()
            .map(|(ifindex, port)| {
                let read = |v: &Verdict| self.verdicts.read(port.slot, *v).map(|n| (*v, n));
                Ok((ifindex, Verdict::ALL.iter().map(read).collect::<Result<_, _>>()?))
            })
            .collect()
    }
}

impl SaMaps for Pinned {
    fn sa_capacity(&self) -> u32 {
        self.sad.capacity()
    }
    fn selector_capacity(&self) -> u32 {
        self.selectors.capacity()
    }
    fn install(&mut self, index: u32, config: &SadConfig) -> Option<SaRef> {
        self.sad.install(index, config)
    }
    fn relocate(
        &mut self,
        sa: SaRef,
        local: Address,
        peer: Address,
        encapsulation: Option<(u16, u16)>,
    ) -> bool {
        self.sad.relocate(sa, local, peer, encapsulation)
    }
    fn entry(&self, sa: SaRef) -> Option<SadConfig> {
        let mut entry = self.sad.read(sa.index)?;
        entry.wipe();
        (entry.generation == sa.generation).then_some(entry)
    }
    fn free(&mut self, index: u32) {
        self.sad.free(index);
    }
    fn sequence(&self, index: u32) -> u64 {
        self.sad.state(index).map_or(0, |s| s.last_sequence.load(Relaxed))
    }
    fn counters(&self, index: u32) -> Counters {
        let Some(state) = self.sad.state(index) else { return Counters::default() };
        let mut drops = [0; DropCause::ALL.len()];
        drops.iter_mut().zip(&state.drops).for_each(|(to, from)| *to = from.load(Relaxed));
        let (packets, bytes) = (state.packets.load(Relaxed), state.bytes.load(Relaxed));
        Counters { packets, bytes, drops, mtu: state.mtu() }
    }
    fn insert_spi(&mut self, key: SpiKey, sa: SaRef) -> Result<(), Error> {
        self.spi.insert(key, sa)
    }
    fn remove_spi(&mut self, key: &SpiKey) -> Result<(), Error> {
        self.spi.remove(key)
    }
    fn outbound(&self, slot: u32) -> Option<SaRef> {
        self.outbounds.get(slot)
    }
    fn set_outbound(&mut self, slot: u32, sa: SaRef) {
        self.outbounds.set(slot, sa);
        self.followers.of(slot).for_each(|follower| self.outbounds.set(follower, sa));
    }
    fn set_selector(&mut self, index: u32, selector: Selector) {
        self.selectors.set(index, selector);
    }
}

#[cfg(test)]
mod tests {
    use super::Followers;

    #[test]
    fn a_slot_follows_one_other_at_a_time() {
        let mut followers = Followers::default();
        assert!(followers.follow(100, Some(1)) && followers.follow(101, Some(1)));
        assert!(!followers.follow(100, Some(1)), "it does already");
        assert_eq!(followers.of(1).collect::<Vec<_>>(), [100, 101]);
        assert!(followers.follow(100, Some(2)));
        assert_eq!((followers.of(1).collect::<Vec<_>>(), followers.leader(100)), (vec![101], Some(2)));
        assert!(followers.follow(101, None) && !followers.follow(101, None));
        assert_eq!((followers.of(1).count(), followers.leader(101)), (0, None));
    }
}
