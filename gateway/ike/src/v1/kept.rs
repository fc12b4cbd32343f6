//! An ISAKMP SA, and the Child SAs of a tunnel, in octets and back: what another process needs to go on with them.
//!
//! A quick mode is kept from when its pair of Child SAs is installed. One that had not got so far is given up: the peer
//! is told to delete what it may have made, and what was wanted is negotiated anew.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    Capabilities, Established, Flight, Sa, State,
    children::Child,
    cipher::MessageCipher,
    exchanges::Exchange,
    fragment::Reassembly,
    proposal::{Encapsulation, Lifetime, PhaseOneSuite, PhaseTwoSuite},
    quick::{Quick, Step, Want},
    siblings::Host,
    wire::{Delete, NatTraversal, Payload, ProtocolId},
};
use crate::{
    TunnelId,
    codec::{Damaged, Field, Reader, Writer, numbered},
    config::{Protocol, TunnelConfig},
    endpoint::Endpoint,
    event::ChildSa,
    kept,
    kept::{Restored, RestoredChild, RestoredIke, ports, without_keys},
    timer::TimerKind,
};

/// Deadlines that are not kept: they begin anew.
const BEGUN_ANEW: [TimerKind; 3] = [TimerKind::Retransmit, TimerKind::Reassembly, TimerKind::Liveness];

kept! {
    Capabilities { nat_traversal, dpd, fragmentation }
    Lifetime { time, bytes }
    PhaseOneSuite { encryption, integrity, group, lifetime }
    PhaseTwoSuite { protocol, encryption, integrity, group, encapsulation, lifetime }
    Want { tunnel, local, remote, replaces }
    Host { cookie, ike }
    RestoredIke { path, suite, handshake, nat, initiator, since }
    Child {
        local, remote, suite, inbound_spi, outbound_spi, encapsulated, initiator, nonce, began, since, confirmed,
        switch_at, rekey_at, expires, lifetime_bytes, retire_at, told,
    }
}

numbered! {
    NatTraversal { Draft = 0, Rfc3947 = 1 }
    Step { Generating = 0, OfferSent = 1, Agreeing = 2, Responding = 3, Answered = 4, Done = 5 }
}

impl Field for TunnelId {
    fn write(&self, to: &mut Writer) {
        self.0.write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Field::read(from).map(Self)
    }
}

impl Field for Encapsulation {
    fn write(&self, to: &mut Writer) {
        let way = match self {
            Self::Tunnel => None,
            Self::UdpTunnel(way) => Some(*way),
        };
        way.write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Option::read(from)?.map_or(Self::Tunnel, Self::UdpTunnel))
    }
}

/// A quick mode whose pair is installed.
struct Made {
    step: Step,
    want: Want,
    inbound_spi: u32,
    outbound_spi: u32,
    suite: Option<PhaseTwoSuite>,
    lifetime: Lifetime,
    nonce: Vec<u8>,
    peer_nonce: Vec<u8>,
    began: Instant,
}

kept! { Made { step, want, inbound_spi, outbound_spi, suite, lifetime, nonce, peer_nonce, began } }

impl Made {
    fn of(quick: &Quick) -> Self {
        Self {
            step: quick.step,
            want: quick.want.clone(),
            inbound_spi: quick.inbound_spi,
            outbound_spi: quick.outbound_spi,
            suite: quick.suite,
            lifetime: quick.lifetime,
            nonce: quick.nonce.clone(),
            peer_nonce: quick.peer_nonce.clone(),
            began: quick.began,
        }
    }

    fn again(self) -> Quick {
        let Self { step, want, inbound_spi, outbound_spi, suite, lifetime, nonce, peer_nonce, began } = self;
        let mut quick = Quick::new(began, step, want, inbound_spi, nonce);
        (quick.outbound_spi, quick.suite) = (outbound_spi, suite);
        (quick.lifetime, quick.peer_nonce) = (lifetime, peer_nonce);
        quick
    }
}

/// Something of phase 2 that the peer may still ask for, or be told again.
struct Said {
    messages: Vec<Vec<u8>>,
    /// Whether it is to be sent again.
    repeats: bool,
    forget_at: Option<Instant>,
    made: Option<Made>,
}

kept! { Said { messages, repeats, forget_at, made } }

impl Exchange {
    /// Whether another process can go on with it.
    fn is_kept(&self) -> bool {
        self.quick.as_ref().is_none_or(|quick| matches!(quick.step, Step::Answered | Step::Done))
    }

    fn said(&self) -> Said {
        Said {
            messages: self.flight.messages.clone(),
            repeats: self.flight.resend_at.is_some(),
            forget_at: self.forget_at,
            made: self.quick.as_deref().map(Made::of),
        }
    }
}

impl Said {
    fn again(self, now: Instant) -> Exchange {
        let Self { messages, repeats, forget_at, made } = self;
        let flight = Flight { messages, resend_at: repeats.then_some(now), ..Flight::default() };
        Exchange { flight, forget_at, quick: made.map(|made| Box::new(made.again())) }
    }
}

impl Established {
    fn write(&self, to: &mut Writer) {
        // Signs of life begin anew.
        let Self { keys, cipher, suite, nat, since, heard: _, probed: _, sequence, .. } = self;
        let Self { asked: _, superseded, unconfirmed, exchanges, wants, answers, .. } = self;
        let kept = |id: u32| exchanges.get(&id).is_some_and(Exchange::is_kept);
        keys.write(to);
        cipher.write(kept, to);
        suite.write(to);
        nat.write(to);
        since.write(to);
        sequence.write(to);
        (*superseded, *unconfirmed).write(to);
        let said = exchanges.iter().filter(|(_, exchange)| exchange.is_kept());
        said.map(|(id, exchange)| (*id, exchange.said())).collect::<Vec<_>>().write(to);
        let given_up = || {
            let unmade = exchanges.values().filter(|exchange| !exchange.is_kept());
            unmade.filter_map(|exchange| exchange.quick.as_deref())
        };
        let ours = given_up().filter(|quick| quick.is_ours()).map(|quick| &quick.want);
        ours.chain(wants).cloned().collect::<Vec<_>>().write(to);
        let offered = given_up().filter(|quick| matches!(quick.step, Step::OfferSent | Step::Agreeing));
        offered.map(|quick| quick.inbound_spi).collect::<Vec<_>>().write(to);
        answers.write(to);
    }

    fn read(now: Instant, from: &mut Reader<'_>) -> Result<(Box<Self>, Vec<u32>), Damaged> {
        let keys = Field::read(from)?;
        let cipher = MessageCipher::read(from)?;
        let suite = Field::read(from)?;
        let nat = Field::read(from)?;
        let since = Field::read(from)?;
        let sequence = Field::read(from)?;
        let (superseded, unconfirmed) = Field::read(from)?;
        let said = <Vec<(u32, Said)>>::read(from)?;
        let exchanges: BTreeMap<_, _> = said.into_iter().map(|(id, said)| (id, said.again(now))).collect();
        let wants = Field::read(from)?;
        let unmade = Field::read(from)?;
        let answers = Field::read(from)?;
        let established = Self {
            keys,
            cipher,
            suite,
            nat,
            since,
            heard: now,
            probed: None,
            sequence,
            asked: None,
            superseded,
            unconfirmed,
            exchanges,
            wants,
            answers,
            worn: false,
        };
        Ok((Box::new(established), unmade))
    }
}

/// What an ISAKMP SA's record holds.
pub(crate) struct ResumedSa {
    sa: Sa,
    timers: Vec<(TimerKind, Instant)>,
    /// SPIs of ours that the peer may have made Child SAs with.
    unmade: Vec<u32>,
}

/// What a tunnel's record holds of IKEv1.
pub(crate) struct ResumedFamily {
    pub(super) children: Vec<Child>,
    pub(super) host: Option<Box<Host>>,
    pub(super) sas: Vec<ResumedSa>,
}

impl Sa {
    fn write(&self, timers: &[(TimerKind, Instant)], to: &mut Writer) {
        let Self { cookie, peer_cookie, role, mode, path, started, initiator_nonce, peer, .. } = self;
        let Self { first_message, anew, waiting, fragmented, received, flight, .. } = self;
        (*cookie, *peer_cookie).write(to);
        (*role, *mode).write(to);
        path.write(to);
        started.write(to);
        initiator_nonce.write(to);
        peer.write(to);
        (*first_message, *received).write(to);
        (*anew, *fragmented).write(to);
        waiting.iter().copied().collect::<Vec<_>>().write(to);
        flight.messages.write(to);
        timers.iter().filter(|(kind, _)| !BEGUN_ANEW.contains(kind)).copied().collect::<Vec<_>>().write(to);
        let (open, established) = match &self.state {
            State::Closing(established) => (false, Some(established)),
            State::Established(established) => (true, Some(established)),
            State::PhaseOne(_) => (false, None),
        };
        open.write(to);
        established.into_iter().for_each(|established| established.write(to));
    }

    fn read(now: Instant, from: &mut Reader<'_>) -> Result<ResumedSa, Damaged> {
        let (cookie, peer_cookie) = Field::read(from)?;
        let (role, mode) = Field::read(from)?;
        let path = Field::read(from)?;
        let started = Field::read(from)?;
        let initiator_nonce = Field::read(from)?;
        let peer = Field::read(from)?;
        let (first_message, received) = Field::read(from)?;
        let (anew, fragmented) = Field::read(from)?;
        let waiting = <Vec<TunnelId>>::read(from)?;
        let messages = Field::read(from)?;
        let timers = Field::read(from)?;
        let open = bool::read(from)?;
        let (established, unmade) = Established::read(now, from)?;
        let sa = Self {
            cookie,
            peer_cookie,
            role,
            mode,
            path,
            tunnel: None,
            started,
            initiator_nonce,
            peer,
            first_message,
            doomed: false,
            anew,
            waiting: waiting.into_iter().collect(),
            flow: None,
            fragments: Reassembly::default(),
            fragmented,
            received,
            flight: Flight { messages, ..Flight::default() },
            state: if open { State::Established(established) } else { State::Closing(established) },
        };
        Ok(ResumedSa { sa, timers, unmade })
    }
}

impl ResumedFamily {
    /// Takes one off the front.
    pub(crate) fn read(now: Instant, from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let children = Field::read(from)?;
        let host = Field::read(from)?;
        let count = u16::read(from)?;
        let sas = (0..count).map(|_| Sa::read(now, from)).collect::<Result<_, _>>()?;
        Ok(Self { children, host, sas })
    }

    /// Every number that an ISAKMP SA of it goes by.
    pub(crate) fn cookies(&self) -> impl Iterator<Item = u64> {
        self.sas.iter().map(|resumed| resumed.sa.cookie)
    }
}

impl Endpoint {
    /// Appends what a tunnel has of IKEv1 that outlasts a process; `false` when that is nothing.
    pub(crate) fn write_family(&self, tunnel: TunnelId, to: &mut Writer) -> bool {
        let Some(family) = self.v1.families.get(&tunnel) else { return false };
        let sas = family.sas.iter().filter_map(|cookie| self.v1.sa(*cookie));
        let kept: Vec<&Sa> = sas.filter(|sa| !matches!(sa.state, State::PhaseOne(_))).collect();
        let Ok(count) = u16::try_from(kept.len()) else { return false };
        if count == 0 && family.host.is_none() {
            return false;
        }
        family.children.write(to);
        family.host.write(to);
        count.write(to);
        kept.into_iter().for_each(|sa| sa.write(&self.timers.of(sa.cookie), to));
        true
    }

    /// Takes up again what a tunnel has of IKEv1.
    pub(crate) fn resume_family(&mut self, now: Instant, tunnel: &Arc<TunnelConfig>, resumed: ResumedFamily) {
        let ResumedFamily { children, host, sas } = resumed;
        self.esp_spis.extend(children.iter().map(|child| child.inbound_spi));
        let is_guest = host.is_some();
        let family = self.family(tunnel.id);
        (family.children, family.host) = (children, host);
        let unmade: Vec<_> = sas.into_iter().map(|resumed| self.resume_sa(now, tunnel, resumed)).collect();
        self.arm_children(tunnel.id);
        if is_guest {
            // Whether the ISAKMP SA goes on is known when every record has been read.
            let key = self.family(tunnel.id).key;
            self.timers.set(key, TimerKind::Children, now);
        }
        for (cookie, spis) in unmade {
            self.with_v1(cookie, |endpoint, mut sa| {
                endpoint.delete_unmade_children(now, &mut sa, tunnel.ipsec.protocol, &spis);
                endpoint.next_quick_modes(now, &mut sa);
                Some(sa)
            });
        }
    }

    /// Takes up an ISAKMP SA again for a tunnel; gives its cookie, and SPIs that the peer may have made Child SAs with.
    fn resume_sa(&mut self, now: Instant, tunnel: &Arc<TunnelConfig>, resumed: ResumedSa) -> (u64, Vec<u32>) {
        let ResumedSa { mut sa, timers, unmade } = resumed;
        let cookie = sa.cookie;
        sa.tunnel = Some(tunnel.clone());
        timers.into_iter().for_each(|(kind, at)| self.timers.set(cookie, kind, at));
        if let Some(dpd) = tunnel.dpd.filter(|_| sa.peer.dpd && sa.established().is_some()) {
            self.timers.set(cookie, TimerKind::Liveness, now + dpd.delay);
        }
        if let Some(digest) = sa.first_message {
            self.v1.first_messages.insert(digest, cookie);
        }
        self.arm(&sa);
        self.family(tunnel.id).sas.insert(cookie);
        self.v1.of_tunnel.insert(tunnel, cookie);
        self.v1.sas.insert(cookie, sa);
        (cookie, unmade)
    }

    /// Tells the peer to delete pairs of which it is not known whether it has made them.
    pub(super) fn delete_unmade_children(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        protocol: Protocol,
        spis: &[u32],
    ) {
        if !spis.is_empty() {
            let delete = Delete::children(ProtocolId::from(protocol), spis);
            self.inform(now, sa, Payload::Delete(delete), false);
        }
    }

    /// How many pairs of Child SAs a tunnel has.
    pub(crate) fn v1_children_of(&self, tunnel: TunnelId) -> usize {
        self.v1.families.get(&tunnel).map_or(0, |family| family.children.len())
    }

    /// What the caller is told of a tunnel that goes on.
    pub(crate) fn restored_v1(&self, now: Instant, tunnel: TunnelId) -> Restored {
        let family = self.v1.families.get(&tunnel);
        let host = family.and_then(|family| family.host.as_ref()).map(|host| host.ike.clone());
        let own = self.v1.current(tunnel).and_then(|cookie| self.v1.sa(cookie));
        let Some(ike) = own.and_then(Sa::told).or(host) else {
            return Restored { ike: None, children: Vec::new() };
        };
        let children = family.map_or(&[][..], |family| &family.children[..]);
        let children = children.iter().map(|child| RestoredChild {
            child: ChildSa {
                inbound: without_keys(child.inbound_spi),
                outbound: without_keys(child.outbound_spi),
                switch_outbound: child.confirmed,
                replaces: None,
                protocol: child.suite.protocol,
                encryption: child.suite.encryption,
                integrity: child.suite.integrity,
                pfs: child.suite.group,
                esn: false,
                local_ts: vec![child.local.clone()],
                remote_ts: vec![child.remote.clone()],
                local: ike.path.local.ip(),
                peer: ike.path.remote.ip(),
                encapsulation: ports(ike.path, child.encapsulated),
                lifetime: child.expires.saturating_duration_since(now),
                lifetime_bytes: child.lifetime_bytes,
                initiator: child.initiator,
            },
            usable: child.retire_at.is_none(),
        });
        let children = children.collect();
        Restored { ike: Some(ike), children }
    }

    /// A tunnel that goes on and that an ISAKMP SA has served.
    fn guest_on(&self, cookie: u64) -> Option<Arc<TunnelConfig>> {
        let is_on = |family: &&super::Family| family.host.as_ref().is_some_and(|host| host.cookie == cookie);
        let family = self.v1.families.values().find(is_on)?;
        self.tunnels.get(self.v1.family_keys.get(&family.key)?).cloned()
    }

    /// Tells the peer that the SAs of a tunnel that nobody knows any more are closed. An ISAKMP SA that guests still need goes
    /// on as one of theirs.
    pub(crate) fn dismiss_family(&mut self, now: Instant, resumed: ResumedFamily) {
        let child = |child: &Child| (ProtocolId::from(child.suite.protocol), child.inbound_spi);
        let children: Vec<_> = resumed.children.iter().map(child).collect();
        if let Some(host) = &resumed.host {
            self.delete_dismissed(now, host.cookie, &children);
        }
        for resumed_sa in resumed.sas {
            if let Some(guest) = self.guest_on(resumed_sa.sa.cookie) {
                let (cookie, unmade) = self.resume_sa(now, &guest, resumed_sa);
                self.family(guest.id).host = None;
                let unmade = unmade.into_iter().map(|spi| (ProtocolId::from(guest.ipsec.protocol), spi));
                let gone: Vec<_> = children.iter().copied().chain(unmade).collect();
                self.delete_dismissed(now, cookie, &gone);
                continue;
            }
            let ResumedSa { mut sa, .. } = resumed_sa;
            if sa.established().is_none() {
                continue;
            }
            for (protocol, spi) in &children {
                self.inform(now, &mut sa, Payload::Delete(Delete::children(*protocol, &[*spi])), false);
            }
            let delete = Delete::isakmp(sa.cookies());
            self.inform(now, &mut sa, Payload::Delete(delete), true);
            let cookie = sa.cookie;
            sa.state = match sa.state {
                State::Established(established) => State::Closing(established),
                other => other,
            };
            self.timers.set(cookie, TimerKind::Linger, now + self.config.linger);
            self.arm(&sa);
            self.v1.sas.insert(cookie, sa);
        }
    }
    /// Tells the peer of pairs that are gone on an ISAKMP SA that goes on.
    fn delete_dismissed(&mut self, now: Instant, cookie: u64, gone: &[(ProtocolId, u32)]) {
        self.with_v1(cookie, |endpoint, mut sa| {
            for (protocol, spi) in gone {
                let delete = Delete::children(*protocol, &[*spi]);
                endpoint.inform(now, &mut sa, Payload::Delete(delete), true);
            }
            endpoint.next_quick_modes(now, &mut sa);
            Some(sa)
        });
    }
}
