//! The SAD as `control` keeps it: which SA lies at which index, and what each tunnel's SAs have done in all.
//!
//! A pair comes up inbound first and goes down outbound first. An index that was freed rests for [`REST`] before it is
//! given out again, because packets for it may still be on their way; until then its counters count.

mod entry;
#[cfg(test)]
mod tests;

use crate::maps::{Counters, SaMaps};
use adit_ike::{ChildSa, TunnelId};
use adit_maps::{
    address::Address,
    policy::{PortRange, Selector},
    sa::{SaRef, SpiKey},
    user,
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long a freed index or a freed range of selectors is not used.
pub const REST: Duration = Duration::from_secs(2);

/// How many sequence numbers are skipped when an outbound SA moves to another index: more than workers can reserve
/// under the old one between reading its counter and freeing it.
const SKIP: u64 = 1 << 20;

/// What the SAs of a tunnel have done, in both directions, since the tunnel was configured. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Opened.
    pub inbound: Counters,
    /// Sealed.
    pub outbound: Counters,
}

/// What a tunnel says about its SAs beyond what was negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Anti-replay window in packets.
    pub replay_window: u16,
    /// Largest outer packet in bytes, 0 for the interface's.
    pub mtu: u16,
    /// Largest inner TCP segment in bytes, 0 to derive it.
    pub mss: u16,
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
    /// A map refused.
    #[error(transparent)]
    Map(#[from] user::Error),
}

/// Every SA that is installed, and every index that rests.
pub struct Sadb {
    free: Vec<u32>,
    selectors: Ranges,
    /// By tunnel and inbound SPI.
    pairs: BTreeMap<(TunnelId, u32), Pair>,
    resting: VecDeque<Resting>,
    totals: HashMap<TunnelId, Totals>,
    installed: u64,
}

struct Pair {
    /// How many pairs were installed before it.
    age: u64,
    inbound: SaRef,
    outbound: SaRef,
    spi: SpiKey,
    selectors: (u32, u32),
}

struct Resting {
    until: Instant,
    tunnel: TunnelId,
    index: u32,
    inbound: bool,
    selectors: Option<(u32, u32)>,
}

impl Sadb {
    /// An empty SAD over maps in which no SA is left. The totals go on from `totals`, which those of earlier maps were.
    pub fn new(maps: &impl SaMaps, totals: HashMap<TunnelId, Totals>) -> Self {
        Sadb {
            free: (0..maps.sa_capacity()).rev().collect(),
            selectors: Ranges::new(maps.selector_capacity()),
            pairs: BTreeMap::new(),
            resting: VecDeque::new(),
            totals,
            installed: 0,
        }
    }

    /// Installs a pair: the inbound SA, then the outbound one, which seals for the tunnel's slot from then on.
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
    ) -> Result<(), SadbError> {
        self.reap(maps, now);
        let sides = [&child.local_ts, &child.remote_ts];
        let all = sides.into_iter().flatten();
        let count = u32::try_from(child.local_ts.len() + child.remote_ts.len()).unwrap_or(u32::MAX);
        let [inbound, outbound] = match (self.free.pop(), self.free.pop()) {
            (Some(a), Some(b)) => [a, b],
            (one, _) => {
                self.free.extend(one);
                return Err(SadbError::Full("SA"));
            }
        };
        let Some(first) = self.selectors.take(count) else {
            self.free.extend([outbound, inbound]);
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
        let written = self.write(maps, tunnel, child, limits, selectors, [inbound, outbound], spi);
        let pair = match written {
            Ok(pair) => pair,
            Err(e) => {
                maps.free(inbound);
                maps.free(outbound);
                self.free.extend([outbound, inbound]);
                self.selectors.give_back(selectors);
                return Err(e);
            }
        };
        self.installed += 1;
        maps.set_outbound(tunnel.0, pair.outbound);
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
    ) -> Result<Pair, SadbError> {
        let [mut open, mut seal] = entry::pair(tunnel, child, limits, selectors.0).ok_or(SadbError::Keys)?;
        let refs = maps.install(inbound, &open).zip(maps.install(outbound, &seal));
        open.wipe();
        seal.wipe();
        let (inbound, outbound) = refs.ok_or(SadbError::Full("SA"))?;
        maps.insert_spi(spi, inbound)?;
        Ok(Pair { age: self.installed, inbound, outbound, spi, selectors })
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
        if maps.outbound(tunnel.0) == Some(pair.outbound) {
            // Another pair of the tunnel may still be up: the youngest takes over.
            let youngest = self.pairs_of(tunnel).max_by_key(|(_, p)| p.age);
            let next = youngest.map_or(SaRef::default(), |(_, p)| p.outbound);
            maps.set_outbound(tunnel.0, next);
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

    /// Sends the packets of a pair to another address or port from now on.
    ///
    /// The entry moves to another index: a worker may be reading the old one. The SA's sequence numbers go on behind a
    /// gap that no reservation under the old index can reach, so none is used twice.
    ///
    /// # Errors
    /// When no index is free; the pair stays as it was.
    pub fn relocate(
        &mut self,
        maps: &mut impl SaMaps,
        now: Instant,
        (tunnel, inbound_spi): (TunnelId, u32),
        peer: IpAddr,
        encapsulation: Option<(u16, u16)>,
    ) -> Result<(), SadbError> {
        self.reap(maps, now);
        let Some(pair) = self.pairs.get_mut(&(tunnel, inbound_spi)) else { return Ok(()) };
        let index = self.free.pop().ok_or(SadbError::Full("SA"))?;
        let moved = maps.config(pair.outbound.index).and_then(|mut config| {
            entry::set_peer(&mut config, Address::from(peer), encapsulation);
            let sa = maps.install(index, &config);
            config.wipe();
            sa
        });
        let Some(moved) = moved else {
            self.free.push(index);
            return Err(SadbError::Full("SA"));
        };
        let old = std::mem::replace(&mut pair.outbound, moved);
        maps.set_sequence(index, maps.sequence(old.index).saturating_add(SKIP));
        if maps.outbound(tunnel.0) == Some(old) {
            maps.set_outbound(tunnel.0, moved);
        }
        maps.free(old.index);
        let rest = Resting { until: now + REST, tunnel, index: old.index, inbound: false, selectors: None };
        self.resting.push_back(rest);
        Ok(())
    }

    /// Makes indices that have rested long enough available again, and adds what their SAs did to the totals.
    pub fn reap(&mut self, maps: &impl SaMaps, now: Instant) {
        while let Some(resting) = self.resting.pop_front_if(|r| r.until <= now) {
            if let Some(totals) = self.totals.get_mut(&resting.tunnel) {
                *totals.side(resting.inbound) += maps.counters(resting.index);
            }
            self.free.insert(0, resting.index);
            if let Some(range) = resting.selectors {
                self.selectors.give_back(range);
            }
        }
    }

    /// What each tunnel's SAs have done since the tunnel came to be.
    pub fn totals(&self, maps: &impl SaMaps) -> HashMap<TunnelId, Totals> {
        let mut all = self.totals.clone();
        for ((tunnel, _), pair) in &self.pairs {
            if let Some(totals) = all.get_mut(tunnel) {
                totals.inbound += maps.counters(pair.inbound.index);
                totals.outbound += maps.counters(pair.outbound.index);
            }
        }
        for resting in &self.resting {
            if let Some(totals) = all.get_mut(&resting.tunnel) {
                *totals.side(resting.inbound) += maps.counters(resting.index);
            }
        }
        all
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
        let until = now + REST;
        for (sa, inbound, selectors) in
            [(pair.outbound, false, None), (pair.inbound, true, Some(pair.selectors))]
        {
            maps.free(sa.index);
            self.resting.push_back(Resting { until, tunnel, index: sa.index, inbound, selectors });
        }
    }
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
