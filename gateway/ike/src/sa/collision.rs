//! One tunnel, one IKE SA: what happens to the others when one is established.
//!
//! Both ends may initiate at once, and either may re-establish a tunnel that is up. The two cases look alike
//! to a responder, but never to an initiator, which knows what was established before it began. So the
//! initiator of an SA decides:
//!
//! - What was established before it began is replaced by its new SA: it closes the old one.
//! - What the peer established meanwhile is a simultaneous initiation: of the two, the SA with the lower Ni
//!   (compared as octets) goes, and the initiator of that one closes it.
//!
//! A responder closes its own initiated SA too where that has the lower Ni, since it goes in both readings.
//! Where the decision is the peer's and does not come, the older SA is closed after `linger`. An attempt of
//! ours that has not reached IKE_AUTH when the peer's SA is established is dropped in silence.
//!
//! INITIAL_CONTACT says that the sender knew no SA but the new one. It cannot mean an SA that was not yet
//! established here when the sender's first message came, for that one may just be on its way; every other
//! goes at once.

use std::time::{Duration, Instant};

use super::{IkeSa, Role, Standing, State};
use crate::{TunnelId, endpoint::Endpoint, event::DownReason, of_tunnel::MAX_REPLACED, timer::TimerKind};

/// How often it is looked whether an SA that is wound up has lost its last pair of Child SAs.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What becomes of another SA of the same tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is gone at the peer: forget it.
    Drop,
    /// An attempt that is not needed any more.
    Abandon,
    /// Close it as soon as packets on their way have arrived.
    Close,
    /// The peer is expected to close one of the two; this one if it does not.
    Backstop,
    /// It stays, and the new one is to be closed.
    Outlives,
    /// Nothing to decide yet.
    Wait,
}

impl Endpoint {
    /// Settles which SA of its tunnel remains, now that `sa` is established.
    pub(super) fn settle(&mut self, now: Instant, sa: &mut IkeSa, initial_contact: bool) {
        let (Some(tunnel), Some(established)) = (sa.tunnel_id(), sa.established_mut()) else { return };
        let usable = established.is_usable();
        established.settled = usable;
        if !usable {
            self.maybe_childless(now, sa);
        }
        if initial_contact {
            self.forget_lost_state(sa);
        }
        for spi in self.others(tunnel, sa.spi) {
            let Some(mut other) = self.sas.remove(&spi) else { continue };
            let fate = match fate(sa, &other, initial_contact) {
                Fate::Drop => Fate::Drop,
                fate if usable => fate,
                _ => Fate::Wait,
            };
            match fate {
                Fate::Drop => {
                    self.down(&mut other, DownReason::Replaced);
                    self.forget(&other);
                    continue;
                }
                Fate::Abandon => {
                    self.forget(&other);
                    continue;
                }
                Fate::Close | Fate::Backstop => {
                    let wait = if fate == Fate::Close { self.config.overlap } else { self.config.linger };
                    self.supersede(now + wait, &mut other);
                }
                Fate::Outlives => self.supersede(now + self.config.overlap, sa),
                Fate::Wait => {}
            }
            self.sas.insert(spi, other);
        }
        self.bound_replaced(now, tunnel, sa.spi);
    }

    /// Holds few IKE SAs of a tunnel that others have taken the place of, by a rekey or otherwise: the oldest of them are
    /// closed before their time, and of those that are closed the oldest forgotten.
    pub(super) fn bound_replaced(&mut self, now: Instant, tunnel: TunnelId, new: u64) {
        let oldest_beyond = |endpoint: &Self, is_one: fn(&IkeSa) -> bool| {
            let others = endpoint.others(tunnel, new).into_iter();
            let mut found: Vec<_> =
                others.filter_map(|spi| endpoint.sas.get(&spi)).filter(|sa| is_one(sa)).collect();
            found.sort_by_key(|sa| sa.started);
            found.truncate(found.len().saturating_sub(MAX_REPLACED));
            found.into_iter().map(|sa| sa.spi).collect::<Vec<_>>()
        };
        let is_replaced = |sa: &IkeSa| {
            let standing = sa.established().map(|established| established.standing);
            matches!(standing, Some(Standing::Superseded | Standing::Rekeyed))
        };
        for spi in oldest_beyond(self, is_replaced) {
            self.with_sa(spi, |endpoint, sa| endpoint.close_sa(now, sa, DownReason::Replaced));
        }
        for spi in oldest_beyond(self, |sa| sa.is_closing() || matches!(sa.state, State::Closing(_))) {
            self.with_sa(spi, |_, _| None);
        }
    }

    /// The peer of `sa` has lost what it knew: what is up between the same two identities for other tunnels is gone
    /// too (RFC 7296 section 2.4).
    fn forget_lost_state(&mut self, sa: &IkeSa) {
        let (Some(tunnel), Some(line)) = (&sa.tunnel, sa.line()) else { return };
        let is_lost = |other: &IkeSa| {
            other.path.remote.ip() == sa.path.remote.ip()
                && other.line().is_some_and(|other| other.since <= line.started)
                && other.tunnel.as_ref().is_some_and(|other| {
                    other.id != tunnel.id
                        && other.peer_id.matches(&tunnel.peer_id)
                        && other.local_id.matches(&tunnel.local_id)
                })
        };
        let known = self.of_tunnel.between(tunnel).filter_map(|spi| self.sas.get(&spi));
        let lost: Vec<u64> = known.filter(|other| is_lost(other)).map(|other| other.spi).collect();
        for spi in lost {
            self.with_sa(spi, |endpoint, mut other| {
                endpoint.down(&mut other, DownReason::ClosedByPeer);
                None
            });
        }
    }

    fn supersede(&mut self, at: Instant, sa: &mut IkeSa) {
        let Some(established) = sa.established_mut() else { return };
        // One that was rekeyed is closed in its own time.
        if established.standing != Standing::InUse {
            return;
        }
        established.standing = Standing::Superseded;
        self.timers.stop(sa.spi, TimerKind::SoftLifetime);
        self.timers.set(sa.spi, TimerKind::Superseded, at);
    }

    /// The time has come to close an SA that another took the place of, or that has no use.
    pub(crate) fn superseded(&mut self, now: Instant, mut sa: IkeSa) -> Option<IkeSa> {
        let (spi, tunnel) = (sa.spi, sa.tunnel.clone());
        let (Some(established), Some(tunnel)) = (sa.established_mut(), tunnel) else { return Some(sa) };
        match established.standing {
            Standing::Closing => return Some(sa),
            Standing::Rekeyed => return self.close_sa(now, sa, DownReason::Replaced),
            Standing::Superseded if self.has_usable(tunnel.id, spi) => {
                return self.wind_up(now, sa, tunnel.id);
            }
            // What was to take its place is gone: it is needed after all.
            Standing::Superseded => {
                established.standing = Standing::InUse;
                self.start_soft_lifetime(now, &mut sa, &tunnel);
                self.maybe_childless(now, &mut sa);
            }
            Standing::InUse if established.is_usable() => {}
            Standing::InUse => return self.close_sa(now, sa, DownReason::NoChild),
        }
        Some(sa)
    }

    /// Closes an SA that another is in use instead of. Its pairs of Child SAs go first, one by one: the peer may still
    /// send with them until it is told, and what is on its way then is still to be taken.
    fn wind_up(&mut self, now: Instant, mut sa: IkeSa, tunnel: TunnelId) -> Option<IkeSa> {
        let children = sa.established().map(|e| &e.children[..]).unwrap_or_default();
        let pairs: Vec<u32> = children.iter().map(|child| child.inbound_spi).collect();
        if pairs.is_empty() {
            return self.close_sa(now, sa, DownReason::Replaced);
        }
        self.switch_elsewhere(tunnel, sa.spi);
        pairs.into_iter().for_each(|spi| self.retire_child(now, &mut sa, spi));
        self.timers.set(sa.spi, TimerKind::Superseded, now + LOOK_AGAIN);
        Some(sa)
    }

    /// The other SAs of a tunnel, attempts included.
    pub(crate) fn others(&self, tunnel: TunnelId, spi: u64) -> Vec<u64> {
        self.of_tunnel.of(tunnel).filter(|other| *other != spi).collect()
    }

    /// Whether a tunnel has an SA that carries traffic besides this one.
    pub(crate) fn has_usable(&self, tunnel: TunnelId, spi: u64) -> bool {
        self.others(tunnel, spi).iter().any(|o| self.sas.get(o).is_some_and(IkeSa::is_usable))
    }
}

/// What becomes of `other` now that `new` is established. What counts is how each began, before any rekey.
fn fate(new: &IkeSa, other: &IkeSa, initial_contact: bool) -> Fate {
    let other_loses = other.initiator_nonce < new.initiator_nonce;
    let Some(line) = new.line() else { return Fate::Wait };
    let Some(other_line) = other.line() else {
        let attempt = matches!(other.state, State::Opening(_) | State::Intermediate(_));
        return if attempt && line.role == Role::Responder { Fate::Abandon } else { Fate::Wait };
    };
    match line.role {
        Role::Initiator if other_line.since <= line.started || other_line.role == Role::Initiator => {
            Fate::Close
        }
        Role::Initiator if other_loses => Fate::Backstop,
        Role::Initiator => Fate::Outlives,
        Role::Responder if initial_contact && other_line.since <= line.started => Fate::Drop,
        Role::Responder if other_line.role == Role::Initiator && other_loses => Fate::Close,
        Role::Responder => Fate::Backstop,
    }
}
