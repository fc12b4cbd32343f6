//! One ISAKMP SA for a tunnel and one pair of Child SAs for a pair of subnets: what happens to the others when one
//! more is up.
//!
//! For both the same holds, as for the IKE SAs of IKEv2. Whoever began the new one knows what was up before: that is
//! replaced, and it closes it. What the other side made up meanwhile is a simultaneous initiation: of the two, the one
//! with the lower Ni goes, closed by whoever began it. Where the decision is the peer's and does not come, the older
//! one goes after `linger`.
//!
//! ```text
//! A ── QM1(a) ──▶╲ ╱◀── QM1(b) ── B      both pairs come up at both ends;
//!                 ╳                      Ni(a) < Ni(b): A sends DELETE for a, after `overlap`
//! A ◀── QM2(a) ──╱ ╲──▶ QM2(b) ── B
//! ```

use std::time::{Duration, Instant};

use super::{Sa, State};
use crate::{
    TunnelId, endpoint::Endpoint, event::DownReason, of_tunnel::MAX_REPLACED, sa::Role, timer::TimerKind,
};

/// How long an ISAKMP SA is left without a Child SA.
const CHILDLESS: Duration = Duration::from_secs(10);
/// How long we wait for the peer to negotiate what we wanted too.
const PEERS_TURN: Duration = Duration::from_secs(2);

impl Endpoint {
    /// Settles which ISAKMP SA of its tunnel remains, now that `sa` is up.
    pub(super) fn settle_sas(&mut self, now: Instant, sa: &mut Sa, initial_contact: bool) {
        let Some(tunnel) = sa.tunnel.clone() else { return };
        if initial_contact {
            self.drop_older_children(now, sa);
        }
        for cookie in self.kin_sas(tunnel.id, sa.cookie) {
            let Some(mut other) = self.v1.sas.remove(&cookie) else { continue };
            let Some(of) = other.tunnel_id() else { continue };
            let lower = other.initiator_nonce < sa.initiator_nonce;
            let responder = sa.role == Role::Responder;
            let since = match &other.state {
                State::PhaseOne(one) => {
                    let waits = other.role == Role::Initiator && !one.step.may_be_up_at_peer();
                    if responder && waits {
                        sa.waiting.append(&mut other.waiting);
                        sa.waiting.insert(of);
                        self.v1_forget(cookie, other.first_message, other.tunnel);
                        continue;
                    }
                    None
                }
                State::Established(established) => Some(established.since),
                State::Closing(_) => None,
            };
            let Some(since) = since else {
                self.v1.sas.insert(cookie, other);
                continue;
            };
            // The peer may not have got the last message of one that nothing has come back on: it may come yet.
            let known = other.established().is_some_and(|established| !established.unconfirmed);
            if responder && initial_contact && known && since <= sa.started {
                sa.waiting.append(&mut self.expected_on(&other));
                self.abandon_quicks(now, &mut other, of);
                self.isakmp_down(of, DownReason::Replaced, Some(sa));
                self.v1_forget(cookie, other.first_message, other.tunnel);
                continue;
            }
            let (overlap, linger) = (now + self.config.overlap, now + self.config.linger);
            match sa.role {
                Role::Initiator if since <= sa.started || other.role == Role::Initiator => {
                    self.supersede_sa(overlap, &mut other);
                }
                Role::Initiator if lower => self.supersede_sa(linger, &mut other),
                Role::Initiator => self.supersede_sa(overlap, sa),
                Role::Responder if other.role == Role::Initiator && lower => {
                    self.supersede_sa(overlap, &mut other);
                }
                Role::Responder => self.supersede_sa(linger, &mut other),
            }
            self.v1.sas.insert(cookie, other);
        }
        self.bound_sas(now, tunnel.id, sa.cookie);
    }

    /// Holds few SAs of a tunnel that others have taken the place of: the oldest of them are closed before their time, and
    /// of those that are closed the oldest forgotten.
    fn bound_sas(&mut self, now: Instant, tunnel: TunnelId, new: u64) {
        let oldest_beyond = |endpoint: &Self, is_one: fn(&Sa) -> bool| {
            let others = endpoint.kin_sas(tunnel, new).into_iter();
            let mut found: Vec<_> =
                others.filter_map(|cookie| endpoint.v1.sa(cookie)).filter(|sa| is_one(sa)).collect();
            found.sort_by_key(|sa| sa.started);
            found.truncate(found.len().saturating_sub(MAX_REPLACED));
            found.into_iter().map(|sa| sa.cookie).collect::<Vec<_>>()
        };
        for cookie in oldest_beyond(self, |sa| sa.established().is_some_and(|e| e.superseded)) {
            self.with_v1(cookie, |endpoint, sa| endpoint.v1_close_sa(now, sa, DownReason::Replaced));
        }
        for cookie in oldest_beyond(self, |sa| matches!(sa.state, State::Closing(_))) {
            self.with_v1(cookie, |_, _| None);
        }
    }

    /// The peer has begun from nothing: what was there before this SA is gone.
    pub(super) fn drop_older_children(&mut self, now: Instant, sa: &Sa) {
        let Some(tunnel) = &sa.tunnel else { return };
        for kin in self.kin(tunnel) {
            self.drop_children(now, kin.id, Some(sa.started), DownReason::Replaced);
        }
        self.family(tunnel.id).sas.insert(sa.cookie);
    }

    fn supersede_sa(&mut self, at: Instant, sa: &mut Sa) {
        if let Some(established) = sa.established_mut() {
            established.superseded = true;
        }
        self.timers.stop(sa.cookie, TimerKind::SoftLifetime);
        self.timers.stop(sa.cookie, TimerKind::Liveness);
        self.timers.set(sa.cookie, TimerKind::Superseded, at);
    }

    /// The time has come to look at an SA that another took the place of, or that has no use.
    pub(super) fn v1_superseded(&mut self, now: Instant, mut sa: Sa) -> Option<Sa> {
        let (Some(established), Some(tunnel)) = (sa.established(), sa.tunnel.clone()) else {
            return Some(sa);
        };
        if established.superseded {
            if self.speaker(tunnel.id).is_some() {
                return self.v1_close_sa(now, sa, DownReason::Replaced);
            }
            // What was to take its place is gone: it is needed after all.
            if let Some(established) = sa.established_mut() {
                established.superseded = false;
            }
            self.start_v1_lifetimes(now, &sa, &tunnel);
            return Some(sa);
        }
        let is_negotiating = established.is_negotiating();
        let waiting = std::mem::take(&mut sa.waiting);
        if !waiting.is_empty() {
            for tunnel in waiting {
                self.want_missing(now, &mut sa, tunnel, None);
            }
            self.expect_children(now, &sa);
            return Some(sa);
        }
        if self.v1.is_up(tunnel.id) {
            return Some(sa);
        }
        if is_negotiating {
            self.expect_children(now, &sa);
            return Some(sa);
        }
        if self.v1_hand_over(now, &mut sa) {
            self.isakmp_down(tunnel.id, DownReason::NoChild, Some(&sa));
            return Some(sa);
        }
        self.v1_close_sa(now, sa, DownReason::NoChild)
    }

    /// Sees to it that an SA without a Child SA does not stay for ever. Ours goes at once when nothing is left to
    /// negotiate on it, the peer's after a while.
    pub(super) fn expect_children(&mut self, now: Instant, sa: &Sa) {
        let (Some(established), Some(tunnel)) = (sa.established(), sa.tunnel_id()) else { return };
        if established.superseded || (sa.waiting.is_empty() && self.v1.is_up(tunnel)) {
            return;
        }
        let at = match (sa.role, established.is_negotiating()) {
            (Role::Initiator, false) => now,
            (Role::Responder, false) if !sa.waiting.is_empty() => now + PEERS_TURN,
            _ => now + CHILDLESS,
        };
        // Signs of life alone must not put off the end of an SA whose peer has lost the Child SAs.
        let set = self.timers.get(sa.cookie, TimerKind::Superseded);
        self.timers.set(sa.cookie, TimerKind::Superseded, set.map_or(at, |set| set.min(at)));
    }

    /// Settles which pair remains of those for the same subnets, now that one more is there.
    pub(super) fn settle_child(&mut self, now: Instant, tunnel: TunnelId, inbound_spi: u32) {
        let Some(family) = self.v1.families.get_mut(&tunnel) else { return };
        let Some(at) = family.children.iter().position(|c| c.inbound_spi == inbound_spi) else { return };
        let mut new = family.children.remove(at);
        let (overlap, linger) =
            (new.switch_at.unwrap_or(now) + self.config.overlap, now + self.config.linger);
        for other in &mut family.children {
            if !other.is_like(&new) {
                continue;
            }
            let lower = other.nonce < new.nonce;
            let (retired, when) = match new.initiator {
                true if other.initiator || (other.confirmed && other.since <= new.began) => {
                    (&mut *other, overlap)
                }
                true if lower => (&mut *other, linger),
                true => (&mut new, overlap),
                false if other.initiator && lower => (&mut *other, overlap),
                false => (&mut *other, linger),
            };
            retired.retire_at = Some(retired.retire_at.map_or(when, |at| at.min(when)));
        }
        family.children.insert(at, new);
    }
}
