//! Siblings: tunnels that phase 1 cannot tell apart, with the same addresses, identities, key and proposals. Their subnets
//! tell them apart in quick mode (RFC 2409 section 5.5: IDci and IDcr).
//!
//! One ISAKMP SA speaks for all of them. It is of one tunnel; a sibling with pairs on it and no ISAKMP SA of its own is a
//! guest. To the caller the IKE SA of a guest is up from its first pair to its last.
//!
//! ```text
//! ISAKMP SA of tunnel 1 ─┬─ pairs of tunnel 1
//!                        └─ pairs of tunnel 2, a guest
//! ```
//!
//! Where its tunnel is closed, or is left without a pair, a guest gets the ISAKMP SA; the peer does not notice.

use std::{collections::BTreeSet, iter, sync::Arc, time::Instant};

use super::{Established, Sa, State, quick::Step};
use crate::{
    TunnelId,
    config::TunnelConfig,
    endpoint::Endpoint,
    event::{DownReason, Event},
    kept::RestoredIke,
    sa::Role,
    selector::TrafficSelector,
    timer::TimerKind,
};

/// The ISAKMP SA that serves a guest.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) cookie: u64,
    /// What the caller was told of it.
    pub(super) ike: RestoredIke,
}

impl TunnelConfig {
    /// Whether phase 1 cannot tell two tunnels apart, as far as each is with one peer: those that begin with a peer whose
    /// address they are told only then may be with two.
    fn is_sibling(&self, other: &Self) -> bool {
        let place = |t: &Self| (t.local, t.other_local, t.peer, t.nat_t, t.ike.version, t.ike.mode);
        self.id != other.id
            && place(self) == place(other)
            && (self.peer.is_some() || !(self.initiates || other.initiates))
            && self.has_credentials_of(other)
            && (&self.ike.encryption, &self.ike.integrity) == (&other.ike.encryption, &other.ike.integrity)
            && self.ike.dh == other.ike.dh
    }

    /// Whether who proves in phase 1 to be the peer of the one proves to be that of the other.
    pub(super) fn has_credentials_of(&self, other: &Self) -> bool {
        self.local_id.matches(&other.local_id)
            && self.peer_id.matches(&other.peer_id)
            && self.psk == other.psk
    }

    /// Whether flows between these selectors are its own.
    pub(super) fn admits(&self, local: &TrafficSelector, remote: &TrafficSelector) -> bool {
        let within = |own: &[TrafficSelector], came| own.iter().any(|own| own.contains(came));
        within(&self.local_ts, local) && within(&self.remote_ts, remote)
    }
}

impl Sa {
    /// What the caller is told of it, if it is up.
    pub(super) fn told(&self) -> Option<RestoredIke> {
        let established = self.established()?;
        Some(RestoredIke {
            path: self.path,
            suite: established.suite.to_string(),
            handshake: established.since.saturating_duration_since(self.started),
            nat: established.nat,
            initiator: self.role == Role::Initiator,
            since: established.since,
        })
    }
}

/// Who is whose sibling, and what they have together.
impl Endpoint {
    /// A tunnel and its siblings.
    pub(super) fn kin(&self, tunnel: &Arc<TunnelConfig>) -> Vec<Arc<TunnelConfig>> {
        let beside = self.tunnels.beside(tunnel).filter(|other| other.is_sibling(tunnel));
        iter::once(tunnel).chain(beside).cloned().collect()
    }

    /// Their ISAKMP SAs but for one.
    pub(super) fn kin_sas(&self, tunnel: TunnelId, but: u64) -> BTreeSet<u64> {
        let mut found: BTreeSet<u64> = self.v1.others(tunnel, but).into_iter().collect();
        if let Some(tunnel) = self.tunnels.get(&tunnel) {
            let is_kin = |cookie: &u64| {
                let of = self.v1.sa(*cookie).and_then(|sa| sa.tunnel.as_ref());
                *cookie != but && of.is_some_and(|of| of.is_sibling(tunnel))
            };
            found.extend(self.v1.of_tunnel.between(tunnel).filter(is_kin));
        }
        found
    }

    /// The ISAKMP SA that speaks for a tunnel's Child SAs: its own, or a sibling's.
    pub(super) fn speaker(&self, tunnel: TunnelId) -> Option<u64> {
        let sas = self.kin_sas(tunnel, 0).into_iter().filter_map(|cookie| self.v1.sa(cookie));
        Some(newest(sas)?.cookie)
    }

    /// Our attempt at phase 1 for a tunnel, or for a sibling.
    pub(super) fn v1_begun(&self, tunnel: TunnelId) -> Option<u64> {
        let begun =
            |sa: &&Sa| matches!(sa.state, State::PhaseOne(_)) && sa.role == Role::Initiator && !sa.doomed;
        let sas = self.kin_sas(tunnel, 0).into_iter().filter_map(|cookie| self.v1.sa(cookie));
        sas.filter(begun).map(|sa| sa.cookie).next()
    }

    /// The tunnel of a responder's new ISAKMP SA: that of the one it takes the place of, if there is one.
    pub(super) fn tunnel_to_renew(&self, tunnel: Arc<TunnelConfig>) -> Arc<TunnelConfig> {
        let speaker = self.speaker(tunnel.id).and_then(|cookie| self.v1.sa(cookie)?.tunnel_id());
        let known = speaker.and_then(|id| self.tunnels.get(&id));
        known.filter(|known| known.is_sibling(&tunnel)).cloned().unwrap_or(tunnel)
    }

    /// The tunnel that a quick mode of the peer's is of, on an ISAKMP SA of `tunnel` as phase 1 was made with; `None` when
    /// these subnets are of none.
    pub(super) fn tunnel_of_pair(
        &self,
        tunnel: &Arc<TunnelConfig>,
        local: &TrafficSelector,
        remote: &TrafficSelector,
    ) -> Option<Arc<TunnelConfig>> {
        let exactly = |t: &TunnelConfig| t.local_ts.contains(local) && t.remote_ts.contains(remote);
        let mut kin = self.kin(tunnel);
        if let Some(known) = self.tunnels.get(&tunnel.id).filter(|known| known.has_credentials_of(tunnel)) {
            kin[0] = known.clone();
        }
        let fitting = kin.into_iter().filter(|t| t.admits(local, remote));
        fitting.min_by_key(|t| !exactly(t))
    }

    /// What of its siblings an ISAKMP SA is to negotiate, or is at.
    pub(super) fn expected_on(&self, sa: &Sa) -> BTreeSet<TunnelId> {
        let under_way = sa.established().into_iter().flat_map(|established| {
            let quicks = established.quicks().filter(|(_, quick)| quick.step != Step::Done);
            let wants = established.wants.iter().map(|want| want.tunnel);
            wants.chain(quicks.map(|(_, quick)| quick.want.tunnel))
        });
        let mut expected: BTreeSet<_> = sa.waiting.iter().copied().chain(under_way).collect();
        expected.retain(|tunnel| Some(*tunnel) != sa.tunnel_id() && self.tunnels.get(tunnel).is_some());
        expected
    }

    /// Who is to have an ISAKMP SA that its own tunnel has no use for, while it is out of the table: a guest on it, or a
    /// sibling that it was to serve.
    fn v1_heir(&self, sa: &Sa) -> Option<Arc<TunnelConfig>> {
        let tunnel = sa.tunnel.as_ref()?;
        if self.speaker(tunnel.id).is_some() {
            return None;
        }
        let expected = self.expected_on(sa);
        let kin = || self.kin(tunnel).into_iter().skip(1);
        let guest = kin().find(|t| sa.established().is_some() && self.v1.is_up(t.id));
        guest.or_else(|| kin().find(|t| expected.contains(&t.id)))
    }
}

/// The newest of those that are up and that no other took the place of, or else of all that are up.
pub(super) fn newest<'a>(sas: impl Iterator<Item = &'a Sa>) -> Option<&'a Sa> {
    let established = sas.filter_map(|sa| Some((sa, sa.established()?)));
    let newest = established.max_by_key(|(_, established)| (!established.superseded, established.since));
    newest.map(|(sa, _)| sa)
}

/// Guests come and go.
impl Endpoint {
    /// A tunnel is about to get a pair on an ISAKMP SA.
    pub(super) fn serve(&mut self, sa: &Sa, tunnel: TunnelId) {
        let is_up = |cookie| self.v1.sa(cookie).is_some_and(|own| own.established().is_some());
        let own = sa.tunnel_id() == Some(tunnel) || self.v1.others(tunnel, 0).into_iter().any(is_up);
        if !own && self.v1.families.get(&tunnel).is_none_or(|family| family.host.is_none()) {
            self.tell_guest(sa, tunnel);
        }
    }

    fn tell_guest(&mut self, sa: &Sa, tunnel: TunnelId) {
        let Some(ike) = sa.told() else { return };
        self.events.push_back(Event::IkeUp {
            tunnel,
            path: ike.path,
            suite: ike.suite.clone(),
            handshake: ike.handshake,
            nat: ike.nat,
            initiator: ike.initiator,
        });
        self.family(tunnel).host = Some(Box::new(Host { cookie: sa.cookie, ike }));
        self.changed.insert(tunnel);
    }

    /// An ISAKMP SA has taken the place of the one that served the guests.
    pub(super) fn tell_guests(&mut self, sa: &Sa) {
        let (Some(tunnel), Some(established)) = (&sa.tunnel, sa.established()) else { return };
        if established.superseded {
            return;
        }
        for guest in self.kin(tunnel).into_iter().skip(1).map(|tunnel| tunnel.id) {
            if self.v1.families.get(&guest).is_some_and(|family| family.host.is_some()) {
                self.tell_guest(sa, guest);
                self.events.push_back(Event::IkeDown { tunnel: guest, reason: DownReason::Replaced });
            }
        }
    }

    /// A tunnel has lost a pair.
    pub(super) fn guest_may_go(&mut self, tunnel: TunnelId, reason: DownReason) {
        let family = self.v1.families.get_mut(&tunnel).filter(|family| family.children.is_empty());
        if family.and_then(|family| family.host.take()).is_some() {
            self.isakmp_gone(tunnel, reason);
        }
    }

    fn isakmp_gone(&mut self, tunnel: TunnelId, reason: DownReason) {
        // Nothing has taken its place.
        let reason = if reason == DownReason::Replaced { DownReason::ClosedByPeer } else { reason };
        self.events.push_back(Event::IkeDown { tunnel, reason });
    }

    /// An ISAKMP SA of a tunnel is gone; `alive` is out of the table and goes on. Where that or another is a sibling's, the
    /// tunnel is a guest from now on if it has a pair.
    pub(super) fn isakmp_down(&mut self, tunnel: TunnelId, reason: DownReason, alive: Option<&Sa>) {
        let is_own = |sa: &Sa| sa.tunnel_id() == Some(tunnel) && sa.established().is_some();
        let others = self.v1.others(tunnel, 0).into_iter().filter_map(|cookie| self.v1.sa(cookie));
        if others.chain(alive).any(is_own) {
            return self.events.push_back(Event::IkeDown { tunnel, reason: DownReason::Replaced });
        }
        let speaker = match alive {
            Some(alive) => Some(alive.cookie),
            None => self.speaker(tunnel),
        };
        match speaker {
            None => self.events.push_back(Event::IkeDown { tunnel, reason }),
            Some(_) if !self.v1.is_up(tunnel) => self.isakmp_gone(tunnel, reason),
            Some(cookie) => {
                match alive {
                    Some(alive) => self.tell_guest(alive, tunnel),
                    None => self.with_v1(cookie, |endpoint, sa| {
                        endpoint.tell_guest(&sa, tunnel);
                        Some(sa)
                    }),
                }
                self.events.push_back(Event::IkeDown { tunnel, reason: DownReason::Replaced });
            }
        }
    }

    /// What an ISAKMP SA that ends, and is out of the table, was to bring its siblings: another is to bring it, if there is
    /// one. Else those that have no pair are down.
    pub(super) fn leave_siblings(&mut self, now: Instant, sa: &Sa, reason: DownReason) {
        let Some(tunnel) = sa.tunnel_id() else { return };
        let expected = self.expected_on(sa);
        match self.speaker(tunnel).filter(|_| !expected.is_empty()) {
            Some(speaker) => self.with_v1(speaker, |endpoint, mut sa| {
                sa.waiting.extend(expected);
                endpoint.expect_children(now, &sa);
                Some(sa)
            }),
            None => {
                let idle = expected.into_iter().filter(|tunnel| !self.v1.is_up(*tunnel));
                for tunnel in idle.collect::<Vec<_>>() {
                    self.isakmp_gone(tunnel, reason);
                }
            }
        }
    }

    /// Whether [`Self::v1_hand_over`] has somebody to give it to.
    pub(super) fn has_heir(&self, sa: &Sa) -> bool {
        self.v1_heir(sa).is_some()
    }

    /// Gives an ISAKMP SA that its tunnel has no use for to a sibling that has, if there is one.
    pub(super) fn v1_hand_over(&mut self, now: Instant, sa: &mut Sa) -> bool {
        let (Some(heir), Some(tunnel)) = (self.v1_heir(sa), sa.tunnel.clone()) else { return false };
        let cookie = sa.cookie;
        self.v1.of_tunnel.remove(&tunnel, cookie);
        self.v1.of_tunnel.insert(&heir, cookie);
        self.family(tunnel.id).sas.remove(&cookie);
        self.drop_empty_family(tunnel.id);
        self.changed.extend([tunnel.id, heir.id]);
        sa.waiting.remove(&heir.id);
        sa.tunnel = Some(heir.clone());
        if let Some(dpd) = heir.dpd.filter(|_| sa.peer.dpd && sa.established().is_some()) {
            self.timers.set(cookie, TimerKind::Liveness, now + dpd.delay);
        }
        let was_guest = self.v1.families.get(&heir.id).is_some_and(|family| family.host.is_some());
        if !was_guest {
            self.tell_guest(sa, heir.id);
        }
        let family = self.family(heir.id);
        family.host = None;
        family.sas.insert(cookie);
        true
    }

    /// A tunnel is closed whose siblings an ISAKMP SA goes on to serve: what it was to bring the tunnel is given up, and
    /// the tunnel's pairs end with it if it is the one that speaks for them.
    pub(super) fn withdraw(&mut self, now: Instant, sa: &mut Sa, tunnel: TunnelId, speaks: bool) {
        sa.waiting.remove(&tunnel);
        let Some(established) = sa.established_mut() else { return };
        established.wants.retain(|want| want.tunnel != tunnel);
        let of_tunnel = |established: &Established| -> Vec<u32> {
            let quicks = established.quicks().filter(|(_, quick)| quick.want.tunnel == tunnel);
            quicks.map(|(id, _)| id).collect()
        };
        let ids = of_tunnel(established);
        let protocol = self.tunnels.get(&tunnel).map_or_else(Default::default, |t| t.ipsec.protocol);
        for id in ids {
            let Some(quick) = self.drop_quick(sa, id) else { continue };
            match quick.step {
                Step::Done | Step::Answered => {}
                Step::Generating | Step::Responding => drop(self.esp_spis.remove(&quick.inbound_spi)),
                Step::OfferSent | Step::Agreeing => {
                    // The peer may have made the pair.
                    self.esp_spis.remove(&quick.inbound_spi);
                    self.delete_unmade_children(now, sa, protocol, &[quick.inbound_spi]);
                }
            }
        }
        if speaks {
            self.close_children(now, sa, tunnel, DownReason::ClosedByUs);
        }
        self.next_quick_modes(now, sa);
    }

    /// Ends every pair of a tunnel, and says so.
    pub(super) fn close_children(&mut self, now: Instant, sa: &mut Sa, tunnel: TunnelId, reason: DownReason) {
        let children = self.v1.families.get(&tunnel).map_or(&[][..], |family| &family.children[..]);
        let spis: Vec<u32> = children.iter().map(|child| child.inbound_spi).collect();
        for spi in spis {
            self.remove_child_on(now, Some(sa), tunnel, spi, reason, true);
        }
    }
}
