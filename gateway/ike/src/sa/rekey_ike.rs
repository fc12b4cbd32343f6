//! The rekey of an IKE SA (RFC 7296 section 1.3.2, 2.8 and 2.18): the IKE SA that takes the place of another.
//!
//! The Child SAs move to the new one as soon as its keys are known. Where both sides rekey at once there are two new
//! ones for a moment, and the Child SAs move to where the nonces have them stay: the one with the lowest of the four
//! nonces is closed by who began its exchange, the old one by the other side (RFC 7296 section 2.8.2).

use std::time::Instant;

use super::{
    Channel, Established, Goal, IkeSa, Purpose, Queued, Role, Standing, State, Window, create_child_sa::Task,
};
use crate::{
    config::IkePolicy,
    crypto::keys::Exchanged,
    endpoint::Endpoint,
    error::Cause,
    event::{DownReason, Event},
    proposal::{IkeSuite, accept_ike, in_words, offer_ike, select_ike},
    timer::TimerKind,
    wire::{NotifyType, Payload, Proposal},
};

use super::ike_sa_init::no_proposal;

/// What both sides agreed on for the new IKE SA.
#[derive(Debug)]
pub(super) struct IkeAgreement {
    pub(super) suite: IkeSuite,
    peer_spi: u64,
}

/// The IKE SA that another took the place of, and the lower of the nonces of the exchange that made it.
#[derive(Debug)]
pub(crate) struct Rekeyed {
    pub(super) of: u64,
    pub(super) nonce: Vec<u8>,
}

/// The secrets of the key exchanges that a rekey of an IKE SA, or a Child SA, is made by.
#[derive(Clone, Copy)]
pub(super) struct Secrets<'a> {
    /// Of the exchange itself, empty where it has no key exchange.
    pub(super) shared: &'a [u8],
    /// Of the additional key exchange, empty where there is none.
    pub(super) additional: &'a [u8],
}

impl IkeAgreement {
    /// The initiator's offer, with our new SPI.
    pub(super) fn offer(policy: &IkePolicy, spi: u64) -> Payload {
        let with_spi = |proposal| Proposal { spi: spi.to_be_bytes().to_vec(), ..proposal };
        Payload::Sa(offer_ike(policy).into_iter().map(with_spi).collect())
    }

    /// The responder's choice, and the payload that says it with our new SPI.
    pub(super) fn respond(
        policy: &IkePolicy,
        offered: &[Proposal],
        spi: u64,
    ) -> Result<(Self, Payload), Cause> {
        let (suite, chosen) =
            select_ike(policy, offered).ok_or_else(|| no_proposal(&offer_ike(policy), offered))?;
        let proposal = offered.iter().find(|p| p.number == chosen.number);
        let peer_spi =
            proposal.and_then(spi_of).ok_or(Cause::Malformed { what: "the new SPI is missing" })?;
        let chosen = Proposal { spi: spi.to_be_bytes().to_vec(), ..chosen };
        Ok((Self { suite, peer_spi }, Payload::Sa(vec![chosen])))
    }

    /// What the responder's answer comes to for the initiator.
    pub(super) fn accept(policy: &IkePolicy, payloads: &[Payload]) -> Result<Self, Cause> {
        let answered = payloads.iter().find_map(|p| if let Payload::Sa(sa) = p { Some(sa) } else { None });
        let answered = answered.ok_or(Cause::Malformed { what: "SA is missing" })?;
        let suite = accept_ike(policy, answered).ok_or_else(|| no_proposal(&offer_ike(policy), answered))?;
        let peer_spi = answered.first().and_then(spi_of);
        Ok(Self { suite, peer_spi: peer_spi.ok_or(Cause::Malformed { what: "the new SPI is missing" })? })
    }

    /// Why the peer refuses a rekey of the IKE SA.
    pub(super) fn refusal(policy: &IkePolicy, notify: NotifyType) -> Cause {
        match notify {
            NotifyType::NO_PROPOSAL_CHOSEN => Cause::NoProposal {
                ours: offer_ike(policy).iter().map(in_words).collect(),
                theirs: None,
                first_difference: None,
            },
            notify => Cause::PeerRefused { notify },
        }
    }
}

fn spi_of(proposal: &Proposal) -> Option<u64> {
    let spi = u64::from_be_bytes(proposal.spi.as_slice().try_into().ok()?);
    (spi != 0).then_some(spi)
}

impl Endpoint {
    /// The peer has agreed to our rekey of `old`.
    pub(super) fn ike_rekeyed(
        &mut self,
        now: Instant,
        mut old: IkeSa,
        task: &Task,
        agreement: &IkeAgreement,
        responder_nonce: &[u8],
        secrets: Secrets<'_>,
    ) -> Option<IkeSa> {
        let nonces = [task.nonce.as_slice(), responder_nonce];
        let mut new = successor(now, &mut old, Role::Initiator, task.ike_spi, agreement, nonces, secrets)?;
        new.started = task.started;
        let rival = self.rival(&old);
        let lower = nonces[0].min(nonces[1]);
        let lost = rival.as_ref().is_some_and(|(_, nonce)| lower < &nonce[..]);
        if lost || task.doomed {
            if let Some(tunnel) = &new.tunnel {
                self.of_tunnel.insert(tunnel, new.spi);
            }
            if let State::Established(established) = new.state {
                new.state = State::Closing(established.channel);
            }
            self.send_delete(now, &mut new);
            self.sas.insert(new.spi, new);
            if task.doomed {
                return self.finish_closing(now, old);
            }
            // The winner's initiator closes the old one.
            self.await_close(now, &old);
            return Some(old);
        }
        if let Some((spi, _)) = rival
            && let Some(mut rival) = self.sas.remove(&spi)
        {
            self.hand_over(&mut rival, &mut new);
            self.await_close(now, &rival);
            self.sas.insert(spi, rival);
        }
        self.hand_over(&mut old, &mut new);
        self.take_over(now, new);
        self.close_sa(now, old, DownReason::Replaced)
    }

    /// We have agreed to the peer's rekey of `old`, and answer it next.
    pub(super) fn ike_rekeyed_by_peer(
        &mut self,
        now: Instant,
        old: &mut IkeSa,
        spi: u64,
        agreement: &IkeAgreement,
        nonces: [&[u8]; 2],
        secrets: Secrets<'_>,
    ) {
        let Some(mut new) = successor(now, old, Role::Responder, spi, agreement, nonces, secrets) else {
            return;
        };
        self.hand_over(old, &mut new);
        self.take_over(now, new);
        self.await_close(now, old);
    }

    /// The IKE SA that the peer's rekey of `old` has made, and the lower of its nonces.
    fn rival(&self, old: &IkeSa) -> Option<(u64, Vec<u8>)> {
        self.others(old.tunnel_id()?, old.spi).into_iter().find_map(|spi| {
            let sa = self.sas.get(&spi).filter(|sa| sa.role == Role::Responder)?;
            let rekeyed = sa.established()?.rekeyed.as_ref().filter(|rekeyed| rekeyed.of == old.spi)?;
            Some((spi, rekeyed.nonce.clone()))
        })
    }

    /// Moves what `old` has to its successor.
    fn hand_over(&mut self, old: &mut IkeSa, new: &mut IkeSa) {
        // What the peer is asked for on the old one it does not do any more.
        let task =
            old.established_mut().and_then(|e| e.agenda.task.take_if(|task| task.goal != Goal::RekeyIke));
        if let Some(task) = &task {
            self.release_spi(old, task);
        }
        new.esp_spis.append(&mut old.esp_spis);
        // A DELETE of a Child SA is said again, as it may be on an IKE SA that the peer does not have.
        new.window.queue.extend(old.window.outstanding.as_ref().and_then(|request| match request.purpose {
            Purpose::DeleteChild(inbound_spi, _) => {
                let protocol = old.established()?.protocol_of(inbound_spi)?;
                let delete = Payload::Delete { protocol: protocol.into(), spis: vec![inbound_spi] };
                let (exchange, purpose) = (request.exchange, request.purpose);
                Some(Queued { exchange, payloads: vec![delete], purpose })
            }
            _ => None,
        }));
        let queue = std::mem::take(&mut old.window.queue);
        new.window.queue.extend(queue.into_iter().filter(|q| matches!(q.purpose, Purpose::DeleteChild(..))));
        let (spi, superseded_at) = (new.spi, self.timers.get(old.spi, TimerKind::Superseded));
        self.timers.stop_all_but(old.spi, &[TimerKind::Retransmit, TimerKind::Reassembly]);
        let (Some(from), Some(to)) = (old.established_mut(), new.established_mut()) else { return };
        if let (Standing::Superseded, Some(at)) = (from.standing, superseded_at) {
            to.standing = Standing::Superseded;
            self.timers.set(spi, TimerKind::Superseded, at);
        }
        from.standing = Standing::Rekeyed;
        to.children.append(&mut from.children);
        to.deleting.append(&mut from.deleting);
        to.agenda.goals.extend(task.map(|task| task.goal));
        // The rekey that was wanted is this one, whoever began it.
        to.agenda.goals.extend(from.agenda.goals.drain(..).filter(|goal| *goal != Goal::RekeyIke));
        to.agenda.later.extend(from.agenda.later.drain(..).filter(|(_, goal)| *goal != Goal::RekeyIke));
        to.heard = to.heard.max(from.heard);
    }

    /// The peer closes what its rekey has made because ours of the same IKE SA has won, of which we do not know yet: the
    /// Child SAs wait for that on the old one.
    pub(super) fn take_back(&mut self, now: Instant, redundant: &mut IkeSa) {
        let rekeyed = redundant.established().and_then(|e| e.rekeyed.as_ref());
        let Some(mut old) = rekeyed.and_then(|rekeyed| self.sas.remove(&rekeyed.of)) else { return };
        let rekeys = |e: &Established| {
            e.standing == Standing::Rekeyed && e.agenda.is_under_way(|goal| *goal == Goal::RekeyIke)
        };
        if let Some(tunnel) = old.tunnel.clone().filter(|_| old.established().is_some_and(rekeys)) {
            self.hand_over(redundant, &mut old);
            if let Some(established) = old.established_mut() {
                established.standing = Standing::InUse;
            }
            self.timers.stop(old.spi, TimerKind::Superseded);
            self.start_lifetimes(now, &mut old, &tunnel);
            self.schedule_children(&old);
            self.next_request(now, &mut old);
        }
        self.sas.insert(old.spi, old);
    }

    fn take_over(&mut self, now: Instant, mut new: IkeSa) {
        let Some(tunnel) = new.tunnel.clone() else { return };
        let Some(established) = new.established() else { return };
        self.events.push_back(Event::IkeUp {
            tunnel: tunnel.id,
            path: new.path,
            suite: established.suite.to_string(),
            handshake: now.saturating_duration_since(new.started),
            nat: established.nat,
            initiator: new.role == Role::Initiator,
        });
        self.of_tunnel.insert(&tunnel, new.spi);
        self.start_lifetimes(now, &mut new, &tunnel);
        self.schedule_children(&new);
        self.maybe_childless(now, &mut new);
        self.next_request(now, &mut new);
        let spi = new.spi;
        self.sas.insert(spi, new);
        self.bound_replaced(now, tunnel.id, spi);
    }

    /// The peer is to close an IKE SA that was rekeyed; we do where it does not, though not while it may still ask for
    /// our answer.
    fn await_close(&mut self, now: Instant, sa: &IkeSa) {
        let at = now + self.config.give_up_after() + self.config.linger;
        self.timers.set(sa.spi, TimerKind::Superseded, at);
    }
}

/// The new IKE SA, without Child SAs yet.
fn successor(
    now: Instant,
    old: &mut IkeSa,
    role: Role,
    spi: u64,
    agreement: &IkeAgreement,
    nonces: [&[u8]; 2],
    secrets: Secrets<'_>,
) -> Option<IkeSa> {
    let line = old.line()?;
    let established = old.established()?;
    let suite = agreement.suite;
    let (initiator_spi, responder_spi) = match role {
        Role::Initiator => (spi, agreement.peer_spi),
        Role::Responder => (agreement.peer_spi, spi),
    };
    let [initiator_nonce, responder_nonce] = nonces;
    let exchanged = Exchanged { initiator_nonce, responder_nonce, initiator_spi, responder_spi };
    let (keys, from_initiator, from_responder) =
        established.keys.rekey(&suite, secrets.shared, secrets.additional, &exchanged);
    let channel = match role {
        Role::Initiator => Channel { outgoing: from_initiator, incoming: from_responder },
        Role::Responder => Channel { outgoing: from_responder, incoming: from_initiator },
    };
    let mut next = Established::new(now, channel, keys, suite, established.nat);
    next.line = Some(line);
    next.settled = established.settled;
    next.rekeyed = Some(Rekeyed { of: old.spi, nonce: initiator_nonce.min(responder_nonce).to_vec() });
    Some(IkeSa {
        spi,
        peer_spi: agreement.peer_spi,
        role,
        path: old.path,
        tunnel: old.tunnel.clone(),
        started: now,
        initiator_nonce: old.initiator_nonce.clone(),
        extensions: old.extensions,
        flow: None,
        window: Window::default(),
        esp_spis: Vec::new(),
        first_message: None,
        doomed: false,
        state: State::Established(next),
    })
}
