//! The SAD as `control` keeps it: which SA lies at which index, and what each tunnel's SAs have done in all.
//!
//! A pair comes up inbound first and goes down outbound first. An index that was freed rests for [`REST`] before it is
//! given out again, because packets for it may still be on their way; until then its counters count.

mod budget;
mod entry;
#[cfg(test)]
pub(crate) mod tests;

pub use budget::{Budget, Spent};

use crate::maps::{Counters, SaMaps};
use adit_ike::{ChildSa, TunnelId};
use adit_maps::{
    address::Address,
    policy::{PortRange, Selector},
    sa::{SaRef, SpiKey},
    user,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long a freed index or a freed range of selectors is not used.
pub const REST: Duration = Duration::from_secs(2);

/// How long after a pair is found to be nearly used up it is said again, unless another takes its place.
const REMIND: Duration = Duration::from_secs(10);

/// What the SAs of a tunnel have done, in both directions, since the tunnel was configured. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Opened.
    pub inbound: Counters,
    /// Sealed.
    pub outbound: Counters,
}

adit_ike::kept! { Totals { inbound, outbound } }

/// What a tunnel says about its SAs beyond what was negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Anti-replay window in packets.
    pub replay_window: u16,
    /// Largest outer packet in bytes, 0 for the interface's.
    pub mtu: u16,
    /// Largest inner TCP segment in bytes, 0 to derive it.
    pub mss: u16,
    /// Bytes in one direction after which a pair ends.
    pub lifetime_bytes: Option<u64>,
    /// Packets in one direction after which a pair ends.
    pub lifetime_packets: Option<u64>,
}

/// What a look at the counters has found, pairs by their inbound SPIs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Packets of the peer were opened since the last look.
    pub heard: Vec<(TunnelId, u32)>,
    /// Nearly used up: another is to take its place.
    pub low: Vec<(TunnelId, u32)>,
    /// Used up: not to be used any more.
    pub empty: Vec<(TunnelId, u32)>,
}

/// Why a pair of SAs is not installed.
#[derive(Debug, thiserror::Error)]
pub enum SadbError {
    /// No index or no range of selectors is free.
    #[error("the data plane has no room for another {0}")]
    Full(&'static str),
    /// The negotiated algorithms cannot be written into an entry.
    #[error("the negotiated keys do not fit their algorithm")]
    Keys,
    /// The pair that is to move is not in the maps.
    #[error("its entries in the maps are those of another SA")]
    Moved,
    /// An earlier process sealed with the same keys.
    #[error("an earlier control has used its keys")]
    Spent,
    /// No slot is left for flows of its own.
    #[error("no slot of the SPD is free for what the peer narrowed the Child SA to")]
    Slots,
    /// The peer's selectors cannot be turned into policies.
    #[error(
        "what the peer narrowed the Child SA to ({0}) cannot be told apart from the rest of the tunnel's traffic"
    )]
    Selectors(String),
    /// A map refused.
    #[error(transparent)]
    Map(#[from] user::Error),
}

/// Every SA that is installed, and every index that rests.
pub struct Sadb {
    free: VecDeque<u32>,
    selectors: Ranges,
    /// By tunnel and inbound SPI.
    pairs: BTreeMap<(TunnelId, u32), Pair>,
    resting: VecDeque<Resting>,
    totals: HashMap<TunnelId, Totals>,
    installed: u64,
    /// Pairs that end after some bytes or packets.
    limited: usize,
}

/// Where a pair is in the maps, for a later process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptPair {
    /// Its inbound SPI.
    pub spi: u32,
    /// Index and generation of the inbound SA.
    pub inbound: (u32, u32),
    /// Index and generation of the outbound SA.
    pub outbound: (u32, u32),
    /// Slots of OUTBOUND whose flows it covers.
    pub slots: Vec<u32>,
    /// Whether the peer is known to be ready for it.
    pub sends: bool,
    /// Whether another has taken its place.
    pub done: bool,
}

adit_ike::kept! { KeptPair { spi, inbound, outbound, slots, sends, done } }

struct Pair {
    /// How many pairs were installed before it.
    age: u64,
    inbound: SaRef,
    outbound: SaRef,
    spi: SpiKey,
    selectors: (u32, u32),
    /// Slots of OUTBOUND whose flows it covers.
    slots: Vec<u32>,
    /// Whether the peer is known to be ready for it.
    sends: bool,
    budget: Budget,
    /// Whether bytes or packets are.
    limited: bool,
    /// Packets opened at the last look.
    opened: u64,
    /// When it was last said to be nearly used up.
    reminded: Option<Instant>,
    /// Whether another has taken its place, or it has been said to be used up.
    done: bool,
}

struct Resting {
    until: Instant,
    tunnel: TunnelId,
    index: u32,
    inbound: bool,
    selectors: Option<(u32, u32)>,
    /// What is among the totals already: a worker may be in the middle of a batch when an SA goes.
    counted: Counters,
}

impl Sadb {
    /// An empty SAD over maps in which no SA is left. The totals go on from `totals`, which those of earlier maps were.
    pub fn new(maps: &impl SaMaps, totals: HashMap<TunnelId, Totals>) -> Self {
        Sadb {
            free: (0..maps.sa_capacity()).collect(),
            selectors: Ranges::new(maps.selector_capacity()),
            pairs: BTreeMap::new(),
            resting: VecDeque::new(),
            totals,
            installed: 0,
            limited: 0,
        }
    }

    /// Installs a pair: the inbound SA, then the outbound one. That seals for `slots` from then on, unless the peer may
    /// not be ready for it yet: then [`Sadb::switch`] is to follow.
    ///
    /// # Errors
    /// When there is no room; nothing is installed then.
    pub fn install(
        &mut self,
        maps: &mut impl SaMaps,
        now: Instant,
        tunnel: TunnelId,
        child: &ChildSa,
        limits: Limits,
        slots: Vec<u32>,
    ) -> Result<(), SadbError> {
        self.reap(maps, now);
        let sides = [&child.local_ts, &child.remote_ts];
        let all = sides.into_iter().flatten();
        let count = u32::try_from(child.local_ts.len() + child.remote_ts.len()).unwrap_or(u32::MAX);
        let [inbound, outbound] = match (self.free.pop_front(), self.free.pop_front()) {
            (Some(a), Some(b)) => [a, b],
            (one, _) => {
                self.free.extend(one);
                return Err(SadbError::Full("SA"));
            }
        };
        let Some(first) = self.selectors.take(count) else {
            self.free.extend([inbound, outbound]);
            return Err(SadbError::Full("selector"));
        };
        for (index, ts) in (first..).zip(all) {
            maps.set_selector(
                index,
                Selector {
                    first: ts.start.into(),
                    last: ts.end.into(),
                    ports: PortRange { first: *ts.ports.start(), last: *ts.ports.end() },
                    protocol: ts.protocol,
                    reserved: [0; 3],
                },
            );
        }
        let selectors = (first, count);
        let spi = SpiKey {
            destination: child.local.into(),
            spi: child.inbound.spi,
            protocol: entry::number(child.protocol).into(),
        };
        let written = self.write(maps, tunnel, child, limits, selectors, [inbound, outbound], spi, slots);
        let pair = match written {
            Ok(pair) => pair,
            Err(e) => {
                maps.free(inbound);
                maps.free(outbound);
                self.free.extend([inbound, outbound]);
                self.selectors.give_back(selectors);
                return Err(e);
            }
        };
        self.installed += 1;
        self.limited += usize::from(pair.limited);
        if pair.sends {
            pair.slots.iter().for_each(|slot| maps.set_outbound(*slot, pair.outbound));
        }
        let replaced = child.replaces.and_then(|spi| self.pairs.get_mut(&(tunnel, spi)));
        if let Some(replaced) = replaced {
            replaced.done = true;
        }
        if let Some(earlier) = self.pairs.insert((tunnel, child.inbound.spi), pair) {
            self.retire(maps, now, tunnel, earlier);
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of install, split off for its early returns")]
    fn write(
        &self,
        maps: &mut impl SaMaps,
        tunnel: TunnelId,
        child: &ChildSa,
        limits: Limits,
        selectors: (u32, u32),
        [inbound, outbound]: [u32; 2],
        spi: SpiKey,
        slots: Vec<u32>,
    ) -> Result<Pair, SadbError> {
        let slot = slots.first().copied().unwrap_or_default();
        let [mut open, mut seal] =
            entry::pair(tunnel, slot, child, limits, selectors.0).ok_or(SadbError::Keys)?;
        let refs = maps.install(inbound, &open).zip(maps.install(outbound, &seal));
        open.wipe();
        seal.wipe();
        let (inbound, outbound) = refs.ok_or(SadbError::Full("SA"))?;
        maps.insert_spi(spi, inbound)?;
        Ok(Pair {
            age: self.installed,
            inbound,
            outbound,
            spi,
            selectors,
            slots,
            sends: child.switch_outbound,
            limited: is_limited(child, limits),
            budget: Budget::of(child, limits),
            opened: 0,
            reminded: None,
            done: false,
        })
    }

    /// Goes on with a pair of an earlier process that is in the maps, as it is there: its sequence numbers, its replay
    /// window and its counters go on. Whether it is. To be followed by [`Sadb::adopted`].
    pub fn adopt(
        &mut self,
        maps: &mut impl SaMaps,
        tunnel: TunnelId,
        child: &ChildSa,
        limits: Limits,
        kept: &KeptPair,
    ) -> bool {
        let [inbound, outbound] =
            [kept.inbound, kept.outbound].map(|(index, generation)| SaRef { index, generation });
        let entries = maps.entry(inbound).zip(maps.entry(outbound));
        let Some((open, seal)) = entries else { return false };
        if !entry::is_of(&open, tunnel, child, true) || !entry::is_of(&seal, tunnel, child, false) {
            return false;
        }
        let selectors = (open.selectors, u32::from(open.local_selectors) + u32::from(open.remote_selectors));
        let spi = SpiKey { destination: open.local, spi: open.spi, protocol: open.protocol.into() };
        let same = seal.selectors == open.selectors;
        if !same || !self.selectors.claim(selectors) || maps.insert_spi(spi, inbound).is_err() {
            return false;
        }
        let pair = Pair {
            age: self.installed,
            inbound,
            outbound,
            spi,
            selectors,
            slots: kept.slots.clone(),
            sends: kept.sends,
            limited: is_limited(child, limits),
            budget: Budget::of(child, limits),
            opened: maps.counters(inbound.index).packets,
            reminded: None,
            done: kept.done,
        };
        self.installed += 1;
        self.limited += usize::from(pair.limited);
        self.pairs.insert((tunnel, kept.spi), pair);
        true
    }

    /// Every pair that is to be adopted is: what else the maps hold is free. Each slot seals with the pair that it sealed
    /// with, or else with the youngest that the peer is ready for. What slots may seal with.
    pub fn adopted(&mut self, maps: &mut impl SaMaps) -> HashSet<(u32, SaRef)> {
        let indices: HashSet<u32> = self.owned().iter().map(|sa| sa.index).collect();
        self.free.retain(|index| !indices.contains(index));
        let mut youngest: HashMap<u32, &Pair> = HashMap::new();
        let ready = self.pairs.values().filter(|p| p.sends && !p.done);
        for pair in ready {
            for slot in &pair.slots {
                let other = youngest.entry(*slot).or_insert(pair);
                if other.age < pair.age {
                    *other = pair;
                }
            }
        }
        let slots = |p: &Pair| p.slots.iter().map(|slot| (*slot, p.outbound)).collect::<Vec<_>>();
        let sealing: HashSet<(u32, SaRef)> = self.pairs.values().flat_map(slots).collect();
        for (slot, pair) in youngest {
            if maps.outbound(slot).is_none_or(|sa| !sealing.contains(&(slot, sa))) {
                maps.set_outbound(slot, pair.outbound);
            }
        }
        sealing
    }

    /// Every SA in the maps that is one of ours.
    pub fn owned(&self) -> HashSet<SaRef> {
        self.pairs.values().flat_map(|p| [p.inbound, p.outbound]).collect()
    }

    /// Where the pairs of a tunnel are, for a later process.
    pub fn kept(&self, tunnel: TunnelId) -> Vec<KeptPair> {
        let place = |sa: SaRef| (sa.index, sa.generation);
        let mut pairs: Vec<_> = self.pairs_of(tunnel).collect();
        pairs.sort_by_key(|(_, pair)| pair.age);
        let kept = |(spi, pair): (u32, &Pair)| KeptPair {
            spi,
            inbound: place(pair.inbound),
            outbound: place(pair.outbound),
            slots: pair.slots.clone(),
            sends: pair.sends,
            done: pair.done,
        };
        pairs.into_iter().map(kept).collect()
    }

    /// Lets a pair seal for its slots from now on: the peer is ready for it.
    pub fn switch(&mut self, maps: &mut impl SaMaps, tunnel: TunnelId, inbound_spi: u32) {
        if let Some(pair) = self.pairs.get_mut(&(tunnel, inbound_spi)) {
            pair.sends = true;
            pair.slots.iter().for_each(|slot| maps.set_outbound(*slot, pair.outbound));
        }
    }

    /// Removes a pair, if it is there: the outbound SA first. The keys are overwritten.
    ///
    /// # Errors
    /// When a map refuses; the SAs are free all the same.
    pub fn remove(
        &mut self,
        maps: &mut impl SaMaps,
        now: Instant,
        tunnel: TunnelId,
        inbound_spi: u32,
    ) -> Result<(), SadbError> {
        let Some(pair) = self.pairs.remove(&(tunnel, inbound_spi)) else { return Ok(()) };
        let spi = pair.spi;
        for slot in &pair.slots {
            if maps.outbound(*slot) == Some(pair.outbound) {
                // Another pair for these flows may still be up: the youngest that the peer is ready for takes over.
                let others = self.pairs_of(tunnel).filter(|(_, p)| p.slots.contains(slot));
                let youngest = others.max_by_key(|(_, p)| (p.sends, p.age));
                maps.set_outbound(*slot, youngest.map_or(SaRef::default(), |(_, p)| p.outbound));
            }
        }
        self.retire(maps, now, tunnel, pair);
        Ok(maps.remove_spi(&spi)?)
    }

    /// Removes every pair of a tunnel and returns how many there were.
    pub fn remove_all(&mut self, maps: &mut impl SaMaps, now: Instant, tunnel: TunnelId) -> usize {
        let spis: Vec<u32> = self.pairs_of(tunnel).map(|(spi, _)| spi).collect();
        for spi in &spis {
            if let Err(e) = self.remove(maps, now, tunnel, *spi) {
                tracing::warn!(%tunnel, "{e}");
            }
        }
        spis.len()
    }

    /// Sends the packets of a pair to another address or port from now on, and expects them from there. The SAs stay
    /// what they are: no packet on its way is lost, and no sequence number comes twice.
    ///
    /// # Errors
    /// When the entries are not those of the pair, which then stays as it was.
    pub fn relocate(
        &mut self,
        maps: &mut impl SaMaps,
        (tunnel, inbound_spi): (TunnelId, u32),
        peer: IpAddr,
        encapsulation: Option<(u16, u16)>,
    ) -> Result<(), SadbError> {
        let Some(pair) = self.pairs.get(&(tunnel, inbound_spi)) else { return Ok(()) };
        let (local, peer) = (pair.spi.destination, Address::from(peer));
        let moved = [pair.inbound, pair.outbound].map(|sa| maps.relocate(sa, local, peer, encapsulation));
        if moved == [true, true] { Ok(()) } else { Err(SadbError::Moved) }
    }

    /// Whether a pair is to end after some bytes or packets.
    pub fn has_limits(&self) -> bool {
        self.limited > 0
    }

    /// Whether another pair of the tunnel seals, or will, for a slot.
    pub fn serves(&self, tunnel: TunnelId, slot: u32) -> bool {
        self.pairs_of(tunnel).any(|(_, p)| p.slots.contains(&slot))
    }

    /// What each pair of a tunnel has done, by inbound SPI: inbound and outbound.
    pub fn counters(&self, maps: &impl SaMaps, tunnel: TunnelId) -> BTreeMap<u32, [Counters; 2]> {
        let both = |p: &Pair| [p.inbound, p.outbound].map(|sa| maps.counters(sa.index));
        self.pairs_of(tunnel).map(|(spi, pair)| (spi, both(pair))).collect()
    }

    /// The pairs of a tunnel, by inbound SPI, whose entries in the maps are not theirs.
    pub fn missing(&self, maps: &impl SaMaps, tunnel: TunnelId) -> Vec<u32> {
        let lacks = |pair: &Pair| [pair.inbound, pair.outbound].iter().any(|sa| maps.entry(*sa).is_none());
        self.pairs_of(tunnel).filter(|(_, pair)| lacks(pair)).map(|(spi, _)| spi).collect()
    }

    /// Looks at every pair: who was heard, and what is nearly or wholly used up. The latter is said once, the former
    /// again from time to time.
    pub fn look(&mut self, maps: &impl SaMaps, now: Instant) -> Look {
        let mut look = Look::default();
        for (&(tunnel, spi), pair) in &mut self.pairs {
            let inbound = maps.counters(pair.inbound.index);
            if std::mem::replace(&mut pair.opened, inbound.packets) < inbound.packets {
                look.heard.push((tunnel, spi));
            }
            if pair.done && !pair.budget.is_limited() {
                continue;
            }
            let outbound = maps.counters(pair.outbound.index);
            match pair.budget.spent([inbound, outbound], maps.sequence(pair.outbound.index), spi) {
                Spent::Little => {}
                Spent::Nearly => {
                    let again = pair.reminded.is_none_or(|at| at + REMIND <= now);
                    if !pair.done && again {
                        pair.reminded = Some(now);
                        look.low.push((tunnel, spi));
                    }
                }
                Spent::All => {
                    pair.budget = Budget::default();
                    pair.done = true;
                    look.empty.push((tunnel, spi));
                }
            }
        }
        look
    }

    /// Makes indices that have rested long enough available again, and adds what their SAs did to the totals.
    pub fn reap(&mut self, maps: &impl SaMaps, now: Instant) {
        while let Some(resting) = self.resting.pop_front_if(|r| r.until <= now) {
            let more = maps.counters(resting.index).since(&resting.counted);
            self.count(resting.tunnel, resting.inbound, more);
            self.free.push_back(resting.index);
            if let Some(range) = resting.selectors {
                self.selectors.give_back(range);
            }
        }
    }

    /// What each tunnel's SAs have done since the tunnel came to be.
    pub fn totals(&self, maps: &impl SaMaps) -> HashMap<TunnelId, Totals> {
        let totals_of = self.totals_of(maps);
        self.totals.keys().map(|tunnel| (*tunnel, totals_of(*tunnel))).collect()
    }

    /// The same for one tunnel after the other.
    pub fn totals_of(&self, maps: &impl SaMaps) -> impl Fn(TunnelId) -> Totals {
        let mut resting: HashMap<TunnelId, Totals> = HashMap::new();
        for r in &self.resting {
            *resting.entry(r.tunnel).or_default().side(r.inbound) += maps.counters(r.index).since(&r.counted);
        }
        move |tunnel| {
            let Some(mut totals) = self.totals.get(&tunnel).copied() else { return Totals::default() };
            if let Some(resting) = resting.get(&tunnel) {
                totals.inbound += resting.inbound;
                totals.outbound += resting.outbound;
            }
            for (_, pair) in self.pairs_of(tunnel) {
                totals.inbound += maps.counters(pair.inbound.index);
                totals.outbound += maps.counters(pair.outbound.index);
            }
            totals
        }
    }

    /// What those SAs of a tunnel have done that are gone.
    pub fn ended(&self, tunnel: TunnelId) -> Totals {
        self.totals.get(&tunnel).copied().unwrap_or_default()
    }

    /// Adds to a tunnel's totals what a pair of an earlier process has done that is in the maps and is not adopted.
    pub fn count_lost(&mut self, maps: &impl SaMaps, tunnel: TunnelId, kept: &KeptPair) {
        self.begin(tunnel);
        for ((index, generation), inbound) in [(kept.inbound, true), (kept.outbound, false)] {
            if maps.entry(SaRef { index, generation }).is_some() {
                self.count(tunnel, inbound, maps.counters(index));
            }
        }
    }

    fn count(&mut self, tunnel: TunnelId, inbound: bool, counted: Counters) {
        if let Some(totals) = self.totals.get_mut(&tunnel) {
            *totals.side(inbound) += counted;
        }
    }

    /// Begins to keep the totals of a tunnel.
    pub fn begin(&mut self, tunnel: TunnelId) {
        self.totals.entry(tunnel).or_default();
    }

    /// Forgets the totals of a tunnel that is no longer configured.
    pub fn forget(&mut self, tunnel: TunnelId) {
        self.totals.remove(&tunnel);
    }

    /// The pairs of a tunnel, each with its inbound SPI.
    fn pairs_of(&self, tunnel: TunnelId) -> impl Iterator<Item = (u32, &Pair)> {
        self.pairs.range((tunnel, 0)..=(tunnel, u32::MAX)).map(|((_, spi), pair)| (*spi, pair))
    }

    fn retire(&mut self, maps: &mut impl SaMaps, now: Instant, tunnel: TunnelId, pair: Pair) {
        self.limited -= usize::from(pair.limited);
        let until = now + REST;
        for (sa, inbound, selectors) in
            [(pair.outbound, false, None), (pair.inbound, true, Some(pair.selectors))]
        {
            maps.free(sa.index);
            let counted = maps.counters(sa.index);
            self.count(tunnel, inbound, counted);
            self.resting.push_back(Resting { until, tunnel, index: sa.index, inbound, selectors, counted });
        }
    }
}

/// Whether a pair ends after some bytes or packets.
fn is_limited(child: &ChildSa, limits: Limits) -> bool {
    limits.lifetime_packets.is_some() || limits.lifetime_bytes.or(child.lifetime_bytes).is_some()
}

impl Totals {
    fn side(&mut self, inbound: bool) -> &mut Counters {
        if inbound { &mut self.inbound } else { &mut self.outbound }
    }
}

/// Free ranges of an array, first fit.
struct Ranges(BTreeMap<u32, u32>);

impl Ranges {
    fn new(len: u32) -> Self {
        Ranges(BTreeMap::from([(0, len)]))
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        let (start, len) = self.0.iter().find(|(_, len)| **len >= count).map(|(s, l)| (*s, *l))?;
        self.0.remove(&start);
        if len > count {
            self.0.insert(start + count, len - count);
        }
        Some(start)
    }

    /// Takes a range that lies within a free one. Whether it does.
    fn claim(&mut self, (start, count): (u32, u32)) -> bool {
        let Some((&first, &len)) = self.0.range(..=start).next_back() else { return false };
        let (Some(end), whole) = (start.checked_add(count), first + len) else { return false };
        if end > whole {
            return false;
        }
        self.0.remove(&first);
        let rest = [(first, start - first), (end, whole - end)];
        self.0.extend(rest.into_iter().filter(|(_, len)| *len > 0));
        true
    }

    fn give_back(&mut self, (mut start, mut count): (u32, u32)) {
        if let Some((&before, &len)) = self.0.range(..start).next_back()
            && before + len == start
        {
            self.0.remove(&before);
            (start, count) = (before, len + count);
        }
        if let Some(len) = self.0.remove(&(start + count)) {
            count += len;
        }
        if count > 0 {
            self.0.insert(start, count);
        }
    }
}
