//! Child SAs of a tunnel: installed, switched to, rekeyed make-before-break, removed.

use std::time::{Duration, Instant};

use super::{
    Sa,
    keys::QuickExchanged,
    proposal::PhaseTwoSuite,
    quick::{Step, Want},
    wire::{Delete, Payload, ProtocolId},
};
use crate::{
    TunnelId,
    crypto::dh::Shared,
    endpoint::Endpoint,
    event::{ChildSa, DownReason, Event},
    selector::TrafficSelector,
    timer::TimerKind,
};

/// The wait before a rekey that has failed is tried again.
pub(super) const REKEY_RETRY: Duration = Duration::from_secs(10);
/// How long we go on sending with the old pair when a quick mode of ours has made a new one and nothing tells that the
/// peer has it: nobody answers the third message. strongSwan asks for a lost one after 4 s.
pub(super) const UNANSWERED: Duration = Duration::from_secs(5);

/// A pair of Child SAs.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) local: TrafficSelector,
    pub(super) remote: TrafficSelector,
    pub(super) suite: PhaseTwoSuite,
    pub(super) inbound_spi: u32,
    pub(super) outbound_spi: u32,
    pub(super) encapsulated: bool,
    /// Whether we began the quick mode that made it.
    pub(super) initiator: bool,
    /// Its Ni, which settles simultaneous quick modes.
    pub(super) nonce: Vec<u8>,
    /// When its first message was sent or came.
    pub(super) began: Instant,
    /// From when on it could be used.
    pub(super) since: Instant,
    /// Whether the peer is known to be ready for what is sent with it.
    pub(super) confirmed: bool,
    /// When it is sent with, if nothing has shown by then that the peer is ready.
    pub(super) switch_at: Option<Instant>,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expires: Instant,
    /// After how many bytes the peer ends it.
    pub(super) lifetime_bytes: Option<u64>,
    /// When it goes, because another has its place.
    pub(super) retire_at: Option<Instant>,
    /// Whether the peer is told that it goes: then it stays for what was on its way.
    pub(super) told: bool,
}

impl Child {
    /// Whether it serves exactly these selectors.
    pub(super) fn is_of(&self, local: &TrafficSelector, remote: &TrafficSelector) -> bool {
        (&self.local, &self.remote) == (local, remote)
    }

    /// Whether it serves the same flows.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.is_of(&other.local, &other.remote)
    }

    /// Whether packets can go with it where no other pair is left: the peer has it, or will once our third message is
    /// there.
    pub(super) fn can_serve(&self) -> bool {
        (self.confirmed || self.initiator) && !self.told
    }

    fn due(&self) -> Instant {
        [self.switch_at, self.rekey_at, self.retire_at].into_iter().flatten().fold(self.expires, Instant::min)
    }
}

impl Endpoint {
    /// A quick mode has made a pair: the caller is to install it.
    pub(super) fn install_child(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        shared: Option<&Shared>,
        initiator: bool,
    ) {
        let (path, nat_t_port) = (sa.path, self.config.nat_t_port);
        let Some(established) = sa.established() else { return };
        let Some((_, quick)) = established.quicks().find(|(known, _)| *known == id) else { return };
        let of = quick.want.tunnel;
        // As the tunnel was configured when phase 1 was made, if it is gone.
        let Some(tunnel) = self.tunnels.get(&of).or(sa.tunnel.as_ref()).cloned() else { return };
        let Some(suite) = quick.suite else { return };
        let (initiator_nonce, responder_nonce) = match initiator {
            true => (&quick.nonce, &quick.peer_nonce),
            false => (&quick.peer_nonce, &quick.nonce),
        };
        let shared = shared.map(|shared| shared.as_slice());
        let exchanged = QuickExchanged { initiator_nonce, responder_nonce, shared };
        let encapsulated = established.nat.any() && path.local.port() == nat_t_port;
        let lifetime = quick.lifetime.time.unwrap_or(tunnel.ipsec.lifetime).max(Duration::from_secs(1));
        let Want { local, remote, replaces, .. } = quick.want.clone();
        // What is sent with a pair that the peer does not have yet is lost there: while another serves, it waits.
        let family = self.v1.families.get(&of);
        let serves = |child: &Child| child.is_of(&local, &remote) && child.can_serve();
        let served = family.is_some_and(|family| family.children.iter().any(serves));
        let confirmed = initiator && !served;
        let child = ChildSa {
            inbound: established.keys.keymat(&suite, &exchanged, quick.inbound_spi),
            outbound: established.keys.keymat(&suite, &exchanged, quick.outbound_spi),
            switch_outbound: confirmed,
            replaces,
            protocol: suite.protocol,
            encryption: suite.encryption,
            integrity: suite.integrity,
            pfs: suite.group,
            esn: false,
            local_ts: vec![local.clone()],
            remote_ts: vec![remote.clone()],
            local: path.local.ip(),
            peer: path.remote.ip(),
            encapsulation: encapsulated.then(|| (path.local.port(), path.remote.port())),
            lifetime,
            lifetime_bytes: quick.lifetime.bytes,
            initiator,
        };
        // The other side's turn comes only if ours has not.
        let least = if initiator { 850 } else { 920 };
        let kept = Child {
            local,
            remote,
            suite,
            inbound_spi: quick.inbound_spi,
            outbound_spi: quick.outbound_spi,
            encapsulated,
            initiator,
            nonce: initiator_nonce.clone(),
            began: quick.began,
            since: now,
            confirmed,
            switch_at: (initiator && served).then_some(now + UNANSWERED),
            rekey_at: Some(now + lifetime * (least + self.rng.next_u32() % 50) / 1000),
            expires: now + lifetime,
            lifetime_bytes: quick.lifetime.bytes,
            retire_at: None,
            told: false,
        };
        let inbound_spi = kept.inbound_spi;
        let superseded = established.superseded;
        sa.waiting.remove(&of);
        if !superseded && sa.waiting.is_empty() && sa.tunnel_id() == Some(of) {
            self.timers.stop(sa.cookie, TimerKind::Superseded);
        }
        self.serve(sa, of);
        self.family(of).children.push(kept);
        self.events.push_back(Event::ChildUp { tunnel: of, child: Box::new(child) });
        if initiator {
            self.settle_child(now, of, inbound_spi);
        }
        self.arm_children(of);
    }

    /// The peer is ready for what is sent with a pair. One of ours that goes is not switched to all the same.
    pub(super) fn confirm_child(&mut self, now: Instant, tunnel: TunnelId, inbound_spi: u32) {
        let overlap = self.config.overlap;
        let family = self.family(tunnel);
        let child = family.children.iter_mut().find(|c| c.inbound_spi == inbound_spi);
        let Some(child) = child.filter(|child| !child.confirmed) else {
            return self.drop_empty_family(tunnel);
        };
        child.confirmed = true;
        let (begun_by_us, goes) = (child.initiator, child.retire_at.is_some());
        if let Some(at) = child.switch_at.take() {
            // What this one takes the place of need not wait any longer.
            let replaced = family.children.iter_mut().filter(|other| other.retire_at == Some(at + overlap));
            replaced.for_each(|other| other.retire_at = Some(now + overlap));
        } else {
            child.since = now;
        }
        if !(begun_by_us && goes) {
            self.events.push_back(Event::SwitchOutbound { tunnel, inbound_spi });
        }
        if !begun_by_us {
            self.settle_child(now, tunnel, inbound_spi);
        }
        self.arm_children(tunnel);
    }

    /// The peer has asked again for the third message of a quick mode of ours: it has the pair some time later.
    pub(super) fn put_off_switch(&mut self, now: Instant, tunnel: TunnelId, inbound_spi: u32) {
        let Some(family) = self.v1.families.get_mut(&tunnel) else { return };
        let child = family.children.iter_mut().find(|c| c.inbound_spi == inbound_spi);
        if let Some(at) = child.and_then(|child| child.switch_at.as_mut()) {
            *at = now + UNANSWERED;
            self.arm_children(tunnel);
        }
    }

    pub(super) fn arm_children(&mut self, tunnel: TunnelId) {
        self.changed.insert(tunnel);
        let Some(family) = self.v1.families.get(&tunnel) else { return };
        match family.children.iter().map(Child::due).min() {
            Some(at) => self.timers.set(family.key, TimerKind::Children, at),
            None => self.timers.stop(family.key, TimerKind::Children),
        }
    }

    /// Something is to be done about a tunnel's Child SAs.
    pub(super) fn v1_children_due(&mut self, now: Instant, tunnel: TunnelId) {
        let is_guest = self.v1.families.get(&tunnel).is_some_and(|family| family.host.is_some());
        if is_guest && self.speaker(tunnel).is_none() {
            // Another process has left the pairs alone.
            return self.drop_children(now, tunnel, None, DownReason::Broken);
        }
        let due = |child: &&Child| child.due() <= now;
        let family = self.v1.families.get(&tunnel);
        let due: Vec<u32> =
            family.map_or_else(Vec::new, |f| f.children.iter().filter(due).map(|c| c.inbound_spi).collect());
        for spi in due {
            let Some(family) = self.v1.families.get_mut(&tunnel) else { return };
            let Some(at) = family.children.iter().position(|c| c.inbound_spi == spi) else { continue };
            let child = &family.children[at];
            let remains = |other: &&Child| other.is_like(child) && other.retire_at.is_none();
            let served = family.children.iter().filter(remains).any(|other| other.confirmed);
            let awaited = family.children.iter().filter(remains).filter_map(|other| other.switch_at).max();
            if child.expires <= now {
                self.v1_remove_child(now, tunnel, spi, DownReason::Expired, true);
            } else if child.retire_at.is_some_and(|at| at <= now) {
                if child.told {
                    self.remove_child_on(now, None, tunnel, spi, DownReason::Replaced, false);
                } else if served {
                    self.v1_retire_child(now, tunnel, spi);
                } else {
                    // Without one that it waits for, what was to take its place is gone: it is needed after all.
                    family.children[at].retire_at = awaited.map(|at| at + self.config.overlap);
                }
            } else if child.switch_at.is_some_and(|at| at <= now) {
                self.confirm_child(now, tunnel, spi);
            } else {
                let retry = now + self.config.give_up_after() + REKEY_RETRY;
                let Some(family) = self.v1.families.get_mut(&tunnel) else { return };
                family.children[at].rekey_at = Some(retry);
                self.v1_rekey_child(now, tunnel, spi);
            }
        }
        self.arm_children(tunnel);
    }

    /// A rekey has failed: it is tried again after a while.
    pub(super) fn rekey_later(&mut self, now: Instant, tunnel: TunnelId, inbound_spi: u32) {
        let family = self.v1.families.get_mut(&tunnel);
        if let Some(child) = family.and_then(|f| f.children.iter_mut().find(|c| c.inbound_spi == inbound_spi))
        {
            child.rekey_at = Some(now + REKEY_RETRY);
        }
        self.arm_children(tunnel);
    }

    /// A pair is to be rekeyed on this SA, unless that is under way.
    pub(super) fn want_rekey(&mut self, now: Instant, sa: &mut Sa, tunnel: TunnelId, inbound_spi: u32) {
        let Some(family) = self.v1.families.get(&tunnel) else { return };
        let Some(child) = family.children.iter().find(|c| c.inbound_spi == inbound_spi) else { return };
        if child.retire_at.is_some() {
            return;
        }
        let want = Want {
            tunnel,
            local: child.local.clone(),
            remote: child.remote.clone(),
            replaces: Some(inbound_spi),
        };
        let Some(established) = sa.established_mut() else { return };
        let same = |other: &Want| other.is_of(tunnel, &want.local, &want.remote);
        let under_way = established.wants.iter().any(same)
            || established.quicks().any(|(_, quick)| quick.step != Step::Done && same(&quick.want));
        if !under_way {
            // One that is there has a time to end. Those to come may each wait long for a peer that says nothing.
            let rekeys = established.wants.iter().take_while(|other| other.replaces.is_some()).count();
            established.wants.insert(rekeys, want);
            self.next_quick_modes(now, sa);
        }
    }

    /// Removes a pair, and tells the peer where it is to be told, through the SA that is current.
    pub(super) fn v1_remove_child(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        inbound_spi: u32,
        reason: DownReason,
        tell: bool,
    ) {
        match self.speaker(tunnel) {
            Some(cookie) => self.with_v1(cookie, |endpoint, mut sa| {
                endpoint.remove_child_on(now, Some(&mut sa), tunnel, inbound_spi, reason, tell);
                endpoint.expect_children(now, &sa);
                Some(sa)
            }),
            None => self.remove_child_on(now, None, tunnel, inbound_spi, reason, false),
        }
    }

    /// Tells the peer that a pair goes, which another has the place of. What the peer sent with it until it is told, is
    /// still taken.
    fn v1_retire_child(&mut self, now: Instant, tunnel: TunnelId, inbound_spi: u32) {
        let Some(cookie) = self.speaker(tunnel) else {
            return self.remove_child_on(now, None, tunnel, inbound_spi, DownReason::Replaced, false);
        };
        let until = now + self.config.overlap;
        let Some(family) = self.v1.families.get_mut(&tunnel) else { return };
        let Some(child) = family.children.iter_mut().find(|c| c.inbound_spi == inbound_spi) else { return };
        (child.told, child.retire_at) = (true, Some(until));
        let protocol = ProtocolId::from(child.suite.protocol);
        let subnets = (child.local.clone(), child.remote.clone());
        self.switch_to_heir(tunnel, (&subnets.0, &subnets.1));
        self.with_v1(cookie, |endpoint, mut sa| {
            endpoint.inform(now, &mut sa, Payload::Delete(Delete::children(protocol, &[inbound_spi])), true);
            Some(sa)
        });
    }

    /// Sends with the newest of the pairs between these subnets that are left; with one that the peer is known to have, if
    /// there is any. Whether there is one at all.
    fn switch_to_heir(
        &mut self,
        tunnel: TunnelId,
        (local, remote): (&TrafficSelector, &TrafficSelector),
    ) -> bool {
        let Some(family) = self.v1.families.get_mut(&tunnel) else { return false };
        let heirs =
            family.children.iter_mut().filter(|other| other.is_of(local, remote) && other.can_serve());
        let heir = heirs.max_by_key(|other| (other.confirmed, other.retire_at.is_none(), other.since));
        let Some(heir) = heir else { return false };
        (heir.confirmed, heir.switch_at) = (true, None);
        self.events.push_back(Event::SwitchOutbound { tunnel, inbound_spi: heir.inbound_spi });
        true
    }

    pub(super) fn remove_child_on(
        &mut self,
        now: Instant,
        sa: Option<&mut Sa>,
        tunnel: TunnelId,
        inbound_spi: u32,
        reason: DownReason,
        tell: bool,
    ) {
        let Some(family) = self.v1.families.get_mut(&tunnel) else { return };
        let Some(at) = family.children.iter().position(|c| c.inbound_spi == inbound_spi) else { return };
        let child = family.children.remove(at);
        self.esp_spis.remove(&inbound_spi);
        let has_heir = self.switch_to_heir(tunnel, (&child.local, &child.remote));
        let reason = if has_heir { DownReason::Replaced } else { reason };
        let outbound_spi = child.outbound_spi;
        self.events.push_back(Event::ChildDown { tunnel, inbound_spi, outbound_spi, reason });
        if let Some(sa) = sa.filter(|_| tell && !child.told) {
            let delete = Delete::children(ProtocolId::from(child.suite.protocol), &[inbound_spi]);
            self.inform(now, sa, Payload::Delete(delete), true);
        }
        self.arm_children(tunnel);
        self.guest_may_go(tunnel, reason);
        self.drop_empty_family(tunnel);
    }

    /// Every pair of a tunnel goes, without a word: those there were before `before`, if that is given.
    pub(super) fn drop_children(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        before: Option<Instant>,
        reason: DownReason,
    ) {
        let Some(family) = self.v1.families.get(&tunnel) else { return };
        let older = family.children.iter().filter(|child| before.is_none_or(|before| child.since <= before));
        let spis: Vec<u32> = older.map(|child| child.inbound_spi).collect();
        for spi in spis {
            self.remove_child_on(now, None, tunnel, spi, reason, false);
        }
    }
}
