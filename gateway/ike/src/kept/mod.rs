//! What another process needs to go on with a tunnel's SAs: a record of octets, kept by the caller, which is another one
//! whenever [`Endpoint::poll_changed`] names the tunnel.
//!
//! As long as a record is in a safe place before the datagrams are sent that [`Endpoint::poll_transmit`] gives after it,
//! a process may end at any moment, and another one that takes the record up loses nothing: no message ID and no IV comes
//! twice, a request that is repeated gets the answer it got, and the exchanges under way come to an end.
//!
//! A record holds every key of the IKE SAs. The keys of Child SAs are not in it: they are where the caller has put them.

mod words;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use crate::{
    TunnelId,
    codec::{Damaged, Field, Reader, Writer},
    config::Version,
    endpoint::Endpoint,
    event::{ChildSa, DirectionKeys, Nat, Path},
    sa::{IkeSa, Resumed, Stage, Standing},
    v1::ResumedFamily,
};

/// What records begin with; another number whenever anything in them is another.
const FORMAT: u16 = 3;

/// Child SAs that a tunnel may have and be kept. Each change of the tunnel writes all of them.
const MAX_CHILDREN: usize = 1024;

/// A tunnel that goes on in this process.
#[derive(Debug)]
pub struct Restored {
    /// The IKE SA that speaks for it, if one is established.
    pub ike: Option<RestoredIke>,
    /// Its pairs of Child SAs, which the caller has installed already. Their keys are not here.
    pub children: Vec<RestoredChild>,
}

/// An IKE SA that goes on in this process.
#[derive(Clone, Debug)]
pub struct RestoredIke {
    /// Where its messages go.
    pub path: Path,
    /// Its algorithms.
    pub suite: String,
    /// How long its negotiation took.
    pub handshake: Duration,
    /// Which side is behind a NAT.
    pub nat: Nat,
    /// Whether we began.
    pub initiator: bool,
    /// When it was established.
    pub since: Instant,
}

/// A pair of Child SAs that goes on in this process.
#[derive(Debug)]
pub struct RestoredChild {
    /// What it is; its lifetime is what is left of it, and its keys are empty.
    pub child: ChildSa,
    /// Whether it is there for traffic, and not only for what is on its way.
    pub usable: bool,
}

/// What a record holds.
enum Contents {
    V2(Vec<Resumed>),
    V1(ResumedFamily),
}

impl Contents {
    fn read(now: Instant, origin: Instant, octets: &[u8]) -> Result<Self, Damaged> {
        let mut from = Reader::new(octets, origin);
        if u16::read(&mut from)? != FORMAT {
            return Err(Damaged);
        }
        let contents = match u8::read(&mut from)? {
            2 => {
                let count = u16::read(&mut from)?;
                Self::V2((0..count).map(|_| IkeSa::read(now, &mut from)).collect::<Result<_, _>>()?)
            }
            1 => Self::V1(ResumedFamily::read(now, &mut from)?),
            _ => return Err(Damaged),
        };
        from.end()?;
        Ok(contents)
    }

    /// Whether none of its SAs has the SPI of another, of the record or of `endpoint`.
    fn has_spis_of_its_own(&self, endpoint: &Endpoint) -> bool {
        let (ike, esp): (Vec<u64>, Vec<u32>) = match self {
            Self::V2(sas) => (
                sas.iter().map(|resumed| resumed.sa.spi).collect(),
                sas.iter().flat_map(|resumed| resumed.sa.esp_spis.iter().copied()).collect(),
            ),
            Self::V1(family) => (family.cookies().collect(), Vec::new()),
        };
        let free = |spi: &u64| *spi != 0 && !endpoint.sas.contains_key(spi) && !endpoint.v1.owns(*spi);
        ike.iter().all(free)
            && ike.iter().collect::<BTreeSet<_>>().len() == ike.len()
            && esp.iter().all(|spi| !endpoint.esp_spis.contains(spi))
            && esp.iter().collect::<BTreeSet<_>>().len() == esp.len()
    }
}

impl Endpoint {
    /// A tunnel whose record may be another now; each is named once. To be drained after the events and before the
    /// datagrams.
    pub fn poll_changed(&mut self) -> Option<TunnelId> {
        self.changed.pop_first()
    }

    /// What another process needs to go on with a tunnel's SAs; `None` when there is nothing to go on with. Times in it
    /// are distances from `origin`.
    pub fn record(&self, id: TunnelId, origin: Instant) -> Option<Zeroizing<Vec<u8>>> {
        let mut to = Writer::new(origin);
        FORMAT.write(&mut to);
        if self.v1_has(id) {
            1u8.write(&mut to);
            let written = self.v1_children_of(id) <= MAX_CHILDREN && self.write_family(id, &mut to);
            return written.then(|| to.into_octets());
        }
        let sas: Vec<&IkeSa> = self.others(id, 0).iter().filter_map(|spi| self.sas.get(spi)).collect();
        let kept: Vec<&IkeSa> = sas.into_iter().filter(|sa| sa.is_kept()).collect();
        let children: usize = kept.iter().filter_map(|sa| sa.established()).map(|e| e.children.len()).sum();
        let count = u16::try_from(kept.len()).ok().filter(|count| *count > 0)?;
        if children > MAX_CHILDREN || !kept.iter().all(|sa| sa.is_resumable()) {
            return None;
        }
        2u8.write(&mut to);
        count.write(&mut to);
        kept.into_iter().for_each(|sa| sa.write(&self.timers.of(sa.spi), &mut to));
        Some(to.into_octets())
    }

    /// Goes on with what a record holds, for a tunnel that is known and has nothing yet.
    ///
    /// # Errors
    /// The record is damaged, of another version, or of an IKE version that the tunnel does not speak: nothing has
    /// changed then.
    pub fn restore(
        &mut self,
        now: Instant,
        origin: Instant,
        id: TunnelId,
        record: &[u8],
    ) -> Result<Restored, Damaged> {
        let contents = Contents::read(now, origin, record)?;
        let tunnel = self.tunnels.get(&id).cloned().ok_or(Damaged)?;
        if !contents.has_spis_of_its_own(self) || self.v1_has(id) || !self.others(id, 0).is_empty() {
            return Err(Damaged);
        }
        match (contents, tunnel.ike.version) {
            (Contents::V2(sas), Version::Ikev2) => {
                sas.into_iter().for_each(|resumed| self.resume(now, &tunnel, resumed));
                Ok(self.restored_v2(now, id))
            }
            (Contents::V1(family), Version::Ikev1) => {
                self.resume_family(now, &tunnel, family);
                Ok(self.restored_v1(now, id))
            }
            _ => Err(Damaged),
        }
    }

    /// Tells the peer that what a record holds is closed: for a tunnel that is gone, or that is to be negotiated anew.
    ///
    /// # Errors
    /// The record is damaged or of another version.
    pub fn dismiss(&mut self, now: Instant, origin: Instant, record: &[u8]) -> Result<(), Damaged> {
        let contents = Contents::read(now, origin, record)?;
        if !contents.has_spis_of_its_own(self) {
            return Err(Damaged);
        }
        match contents {
            Contents::V2(sas) => sas.into_iter().for_each(|resumed| self.dismiss_sa(now, resumed)),
            Contents::V1(family) => self.dismiss_family(now, family),
        }
        Ok(())
    }

    fn restored_v2(&self, now: Instant, id: TunnelId) -> Restored {
        let all = self.others(id, 0);
        let established = || {
            let sas = all.iter().filter_map(|spi| self.sas.get(spi));
            sas.filter_map(|sa| Some((sa, sa.established()?)))
        };
        let speaks = established().max_by_key(|(_, e)| (e.standing == Standing::InUse, e.since));
        let ike = speaks.map(|(sa, e)| RestoredIke {
            path: sa.path,
            suite: e.suite.to_string(),
            handshake: e.since.saturating_duration_since(sa.started),
            nat: e.nat,
            initiator: sa.role == crate::sa::Role::Initiator,
            since: e.since,
        });
        let children = established().flat_map(|(sa, e)| {
            e.children.iter().map(|child| RestoredChild {
                child: ChildSa {
                    inbound: without_keys(child.inbound_spi),
                    outbound: without_keys(child.outbound_spi),
                    switch_outbound: !matches!(child.stage, Stage::Awaited(_)),
                    replaces: child.replaces.map(|replaces| replaces.inbound_spi),
                    protocol: child.suite.protocol,
                    encryption: child.suite.encryption,
                    integrity: child.suite.integrity,
                    pfs: child.suite.group,
                    esn: child.suite.esn,
                    local_ts: child.local_ts.clone(),
                    remote_ts: child.remote_ts.clone(),
                    local: sa.path.local.ip(),
                    peer: sa.path.remote.ip(),
                    encapsulation: ports(sa.path, child.encapsulated),
                    lifetime: child.hard.saturating_duration_since(now),
                    lifetime_bytes: None,
                    initiator: child.initiator,
                },
                usable: child.is_usable(),
            })
        });
        Restored { ike, children: children.collect() }
    }
}

/// The ports of ESP in UDP, where it goes so.
pub(crate) fn ports(path: Path, encapsulated: bool) -> Option<(u16, u16)> {
    encapsulated.then(|| (path.local.port(), path.remote.port()))
}

pub(crate) fn without_keys(spi: u32) -> DirectionKeys {
    DirectionKeys {
        spi,
        encryption_key: Zeroizing::default(),
        salt: [0; 4],
        integrity_key: Zeroizing::default(),
    }
}
