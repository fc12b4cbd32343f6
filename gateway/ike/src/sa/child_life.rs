//! The life of a pair of Child SAs once it is installed: switched to, rekeyed, replaced, deleted.
//!
//! In a rekey nothing that the peer may still send with is removed before packets on their way have had time to come:
//!
//! ```text
//! who rekeys       Live ──another is made──▶ Deleting ──DELETE answered──▶ Draining ──overlap──▶ removed
//! who answers      Live ──DELETE comes──▶ Draining ──overlap──▶ removed
//! the new one, at who answers   Awaited ──the peer is known to have it──▶ Live
//! ```
//!
//! The peer is known to have a pair when it deletes the one that went before, when it sends with the new one, or when
//! it would have given up asking for it. So it is in a reauthentication, where the two are of different IKE SAs.

use std::time::Instant;

use super::{Child, Established, Goal, IkeSa, Purpose, Stage, Standing, child::Agreement};
use crate::{
    TunnelId, config,
    endpoint::Endpoint,
    event::{DownReason, Event},
    timer::TimerKind,
    wire::{ExchangeType, Payload, Protocol},
};

/// How long an IKE SA without a Child SA is left to the peer to close.
const CHILDLESS: std::time::Duration = std::time::Duration::from_secs(10);

/// A pair that is gone here, or never was, and that the peer was asked to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deleting {
    pub(super) protocol: config::Protocol,
    pub(super) inbound_spi: u32,
    pub(super) outbound_spi: u32,
}

impl super::Established {
    /// What protects the packets of a pair that is installed or being deleted.
    pub(super) fn protocol_of(&self, inbound_spi: u32) -> Option<config::Protocol> {
        let mut deleting = self.deleting.iter().filter(|d| d.inbound_spi == inbound_spi).map(|d| d.protocol);
        deleting.next().or_else(|| self.child(inbound_spi).map(|child| child.suite.protocol))
    }

    /// Whether we have asked the peer to delete the pair that it names so.
    pub(super) fn is_deleting(&self, protocol: Protocol, outbound_spi: u32) -> bool {
        self.deleting.iter().any(|d| Protocol::from(d.protocol) == protocol && d.outbound_spi == outbound_spi)
    }
}

/// Deadlines.
impl Endpoint {
    /// Sets the deadline of whatever is due first.
    pub(super) fn schedule_children(&mut self, sa: &IkeSa) {
        let Some(established) = sa.established() else { return };
        let later = established.agenda.later.iter().map(|(at, _)| *at);
        match established.children.iter().map(super::Child::due).chain(later).min() {
            Some(at) => self.timers.set(sa.spi, TimerKind::Children, at),
            None => self.timers.stop(sa.spi, TimerKind::Children),
        }
    }

    /// Something is due to be done about a Child SA.
    pub(crate) fn children_due(&mut self, now: Instant, mut sa: IkeSa) -> Option<IkeSa> {
        let Some(established) = sa.established_mut() else { return Some(sa) };
        let goals = established.agenda.later.extract_if(.., |(at, _)| *at <= now);
        let goals: Vec<Goal> = goals.map(|(_, goal)| goal).collect();
        let due = established.children.iter().filter(|child| child.due() <= now);
        let due: Vec<(u32, Stage, bool)> = due.map(|c| (c.inbound_spi, c.stage, c.hard <= now)).collect();
        goals.into_iter().for_each(|goal| self.want(now, &mut sa, goal));
        for (spi, stage, expired) in due {
            match stage {
                Stage::Live | Stage::Awaited(_) if expired => sa = self.child_expired(now, sa, spi)?,
                Stage::Live => self.soft_lifetime_of_child(now, &mut sa, spi),
                Stage::Awaited(_) => self.switch_to(now, &mut sa, spi),
                Stage::Redundant(_) if !expired => self.retire_child(now, &mut sa, spi),
                Stage::Redundant(_) | Stage::Deleting | Stage::Draining(_) => {
                    self.remove_child(&mut sa, spi, DownReason::Replaced);
                }
            }
        }
        self.schedule_children(&sa);
        Some(sa)
    }

    fn soft_lifetime_of_child(&mut self, now: Instant, sa: &mut IkeSa, spi: u32) {
        let Some(established) = sa.established_mut() else { return };
        let renews = established.refuses_rekeys;
        if let Some(child) = established.child_mut(spi) {
            // Should this come to nothing, there is time for some more attempts, and for ever longer ones to fail.
            let left = child.hard.saturating_duration_since(now);
            child.soft = now + (left / 4).max(super::lifetime::RENEWAL_RETRY).min(left);
        }
        if renews {
            self.renew(now, sa);
        } else {
            self.want(now, sa, Goal::RekeyChild(spi));
        }
    }

    /// A pair of Child SAs has come to its end before another took its place.
    pub(crate) fn child_expired(&mut self, now: Instant, mut sa: IkeSa, spi: u32) -> Option<IkeSa> {
        let others = sa
            .established()
            .is_some_and(|e| e.children.iter().any(|c| c.is_usable() && c.inbound_spi != spi));
        if others {
            self.close_child_of(now, &mut sa, spi, DownReason::Expired);
            return Some(sa);
        }
        self.close_sa(now, sa, DownReason::Expired)
    }
}

/// From one pair to another.
impl Endpoint {
    /// The peer is known to have this pair.
    pub(crate) fn switch_to(&mut self, now: Instant, sa: &mut IkeSa, inbound_spi: u32) {
        let until = now + self.config.linger;
        let Some(tunnel) = sa.tunnel_id() else { return };
        let Some(established) = sa.established_mut() else { return };
        let Some(child) = established.child_mut(inbound_spi) else { return };
        if !matches!(child.stage, Stage::Awaited(_)) {
            return;
        }
        child.stage = Stage::Live;
        let old = child.replaces;
        self.events.push_back(Event::SwitchOutbound { tunnel, inbound_spi });
        if let Some(old) = old
            && let Some(replaced) = established.child_mut(old.inbound_spi)
            && replaced.is_usable()
        {
            if old.deleted_by_us {
                self.retire_child(now, sa, old.inbound_spi);
            } else {
                replaced.stage = Stage::Redundant(until);
            }
        }
        self.schedule_children(sa);
    }

    /// The peer sends no more with a pair: what takes its place, if anything, is in use there.
    pub(super) fn switch_from(&mut self, now: Instant, sa: &mut IkeSa, inbound_spi: u32) {
        if let Some(successor) = sa.established().and_then(|e| e.successor(inbound_spi)) {
            let successor = successor.inbound_spi;
            self.switch_to(now, sa, successor);
        }
    }

    /// Whether another IKE SA of the tunnel, whose peer is not in doubt, has a pair for all of this: the peer
    /// authenticates anew.
    pub(super) fn is_served_elsewhere(&self, sa: &IkeSa, agreement: &Agreement) -> bool {
        let Some(tunnel) = sa.tunnel_id() else { return false };
        let flows = [&agreement.local_ts[..], &agreement.remote_ts];
        let others = self.others(tunnel, sa.spi);
        let mut others = others.iter().filter_map(|spi| self.sas.get(spi)?.established());
        others.any(|e| e.probed.is_none() && e.children.iter().any(|c| c.is_usable() && c.covers_all(flows)))
    }

    /// The IKE SA of the tunnel that has a pair in place of this one of `sa`.
    pub(super) fn heir(&self, sa: &IkeSa, child: &Child) -> Option<u64> {
        let flows = [&child.local_ts[..], &child.remote_ts];
        let serves = |e: &Established| e.children.iter().any(|c| c.is_usable() && c.covers_all(flows));
        let others = self.others(sa.tunnel_id()?, sa.spi);
        others.into_iter().find(|spi| self.sas.get(spi).and_then(IkeSa::established).is_some_and(serves))
    }

    /// The peer sends no more with the pairs of an IKE SA, or will not for long: those of the tunnel's others are in use
    /// there, and from now on here.
    pub(super) fn switch_elsewhere(&mut self, tunnel: TunnelId, spi: u64) {
        let mut others = self.others(tunnel, spi);
        let in_use = |sa: &IkeSa| sa.established().is_some_and(|e| e.standing == Standing::InUse);
        others.sort_by_key(|other| self.sas.get(other).is_some_and(in_use));
        for other in others {
            self.with_sa(other, |endpoint, mut other| {
                let children = other.established_mut().map(|e| &mut e.children[..]).unwrap_or_default();
                let ready = |c: &&mut Child| match c.stage {
                    Stage::Live => true,
                    Stage::Awaited(_) => c.replaces.is_none(),
                    Stage::Redundant(_) | Stage::Deleting | Stage::Draining(_) => false,
                };
                for child in children.iter_mut().filter(ready) {
                    child.stage = Stage::Live;
                    let inbound_spi = child.inbound_spi;
                    endpoint.events.push_back(Event::SwitchOutbound { tunnel, inbound_spi });
                }
                endpoint.schedule_children(&other);
                Some(other)
            });
        }
    }

    /// Has the peer delete a pair that another has taken the place of.
    pub(super) fn retire_child(&mut self, now: Instant, sa: &mut IkeSa, inbound_spi: u32) {
        let Some(child) = sa.established_mut().and_then(|e| e.child_mut(inbound_spi)) else { return };
        if matches!(child.stage, Stage::Deleting | Stage::Draining(_)) {
            return;
        }
        child.stage = Stage::Deleting;
        let protocol = child.suite.protocol;
        self.schedule_children(sa);
        self.request_delete(now, sa, protocol, inbound_spi, DownReason::Replaced);
    }

    /// Both sides have deleted a pair: only what is on its way is still taken.
    pub(super) fn drain_child(&mut self, now: Instant, sa: &mut IkeSa, inbound_spi: u32) {
        let until = now + self.config.overlap;
        if let Some(child) = sa.established_mut().and_then(|e| e.child_mut(inbound_spi)) {
            child.stage = Stage::Draining(until);
            self.schedule_children(sa);
        }
    }

    /// The peer has answered our DELETE.
    pub(super) fn child_deleted(&mut self, now: Instant, sa: &mut IkeSa, inbound_spi: u32) {
        let Some(established) = sa.established_mut() else { return };
        match established.deleting.iter().position(|d| d.inbound_spi == inbound_spi) {
            Some(at) => {
                established.deleting.remove(at);
                self.release_esp_spi(sa, inbound_spi);
            }
            None => self.drain_child(now, sa, inbound_spi),
        }
    }
}

/// Removal.
impl Endpoint {
    /// Closes one pair of Child SAs, and tells the peer.
    pub(crate) fn close_child_of(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        inbound_spi: u32,
        reason: DownReason,
    ) {
        let (spi, tunnel) = (sa.spi, sa.tunnel_id());
        let (Some(established), Some(tunnel)) = (sa.established_mut(), tunnel) else { return };
        let Some(at) = established.children.iter().position(|c| c.inbound_spi == inbound_spi) else { return };
        // What is being made in its place is not wanted either.
        if let Some(task) =
            established.agenda.task.as_mut().filter(|t| t.goal == Goal::RekeyChild(inbound_spi))
        {
            task.doomed = true;
        }
        let stage = established.children[at].stage;
        if matches!(stage, Stage::Live | Stage::Awaited(_) | Stage::Redundant(_)) {
            let child = established.children.remove(at);
            let (protocol, outbound_spi) = (child.suite.protocol, child.outbound_spi);
            self.switch_elsewhere(tunnel, spi);
            let reason = self.down_reason(tunnel, spi, reason);
            self.child_down(tunnel, &child, reason);
            self.delete_spis(now, sa, protocol, inbound_spi, outbound_spi);
            self.switch_from(now, sa, inbound_spi);
            self.schedule_children(sa);
            self.maybe_childless(now, sa);
        }
    }

    /// Has the peer delete a pair that is not installed here.
    pub(super) fn delete_spis(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        protocol: config::Protocol,
        inbound_spi: u32,
        outbound_spi: u32,
    ) {
        if let Some(established) = sa.established_mut() {
            established.deleting.push(Deleting { protocol, inbound_spi, outbound_spi });
            self.request_delete(now, sa, protocol, inbound_spi, DownReason::ClosedByUs);
        }
    }

    fn request_delete(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        protocol: config::Protocol,
        inbound_spi: u32,
        reason: DownReason,
    ) {
        let delete = Payload::Delete { protocol: protocol.into(), spis: vec![inbound_spi] };
        let purpose = Purpose::DeleteChild(inbound_spi, reason);
        self.request(now, sa, ExchangeType::Informational, vec![delete], purpose);
    }

    /// Removes a pair without a word to the peer.
    pub(super) fn remove_child(&mut self, sa: &mut IkeSa, inbound_spi: u32, reason: DownReason) {
        let (spi, tunnel) = (sa.spi, sa.tunnel_id());
        let (Some(established), Some(tunnel)) = (sa.established_mut(), tunnel) else { return };
        let Some(at) = established.children.iter().position(|c| c.inbound_spi == inbound_spi) else { return };
        let child = established.children.remove(at);
        if child.is_usable() {
            self.switch_elsewhere(tunnel, spi);
        }
        let reason = self.down_reason(tunnel, spi, reason);
        self.child_down(tunnel, &child, reason);
        self.release_esp_spi(sa, inbound_spi);
        self.schedule_children(sa);
    }

    /// Sees to an IKE SA that may have no Child SA any more, and no prospect of one.
    pub(super) fn maybe_childless(&mut self, now: Instant, sa: &mut IkeSa) {
        let Some(established) = sa.established_mut() else { return };
        if established.standing != Standing::InUse || established.is_usable() {
            return;
        }
        established.settled = false;
        if !established.agenda.makes_child() {
            self.timers.set(sa.spi, TimerKind::Superseded, now + CHILDLESS);
        }
    }

    pub(super) fn no_longer_childless(&mut self, now: Instant, sa: &mut IkeSa) {
        let Some(established) = sa.established() else { return };
        if established.standing == Standing::InUse {
            self.timers.stop(sa.spi, TimerKind::Superseded);
            if !established.settled {
                self.settle(now, sa, false);
            }
        }
    }

    pub(super) fn release_esp_spi(&mut self, sa: &mut IkeSa, spi: u32) {
        sa.esp_spis.retain(|drawn| *drawn != spi);
        self.esp_spis.remove(&spi);
    }
}
