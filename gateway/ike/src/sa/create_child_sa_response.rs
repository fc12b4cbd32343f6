//! CREATE_CHILD_SA (RFC 7296 section 1.3) as responder.
//!
//! A request is judged when it comes and, where a key exchange had to be computed in between, again when that is done:
//! what it asks for may be gone by then. What cannot be done now and may be later is TEMPORARY_FAILURE (RFC 7296
//! section 2.25).

use std::time::Instant;

use super::{
    Goal, IkeSa, Purpose, Stage, Standing,
    child::{self, Making, NEWS, Replaces},
    create_child_sa::NONCE_LEN,
    rekey_ike::{IkeAgreement, Secrets},
};
use crate::{
    algorithm::Group,
    counters::ExchangeResult,
    crypto::dh::{InvalidPublic, Job, Secret, Shared, Work},
    endpoint::Endpoint,
    error::Cause,
    event::{Path, Phase},
    wire::{ExchangeType, Notify, NotifyType, Payload, Proposal, Protocol},
};

/// More pairs of Child SAs than any tunnel has use for.
const MAX_CHILDREN: usize = 256;
/// More than there are while every one of them is being replaced.
const MAX_CHILDREN_IN_REKEYS: usize = 2 * MAX_CHILDREN;

/// A request that waits for its key exchange.
#[derive(Debug)]
pub(crate) struct Answering {
    payloads: Vec<Payload>,
    path: Path,
    group: Group,
}

/// What a request asks for.
#[derive(Clone, Copy)]
enum Asked {
    Child {
        /// The pair that is to be rekeyed, by its inbound SPI.
        old: Option<u32>,
    },
    Ike,
}

/// Why a request is refused.
enum Refusal {
    Notify(Notify),
    /// Reported, since people can do something about it.
    Cause(Cause),
    /// The request breaks the protocol, which ends the IKE SA (RFC 7296 section 2.21.3).
    Broken(&'static str),
}

impl From<NotifyType> for Refusal {
    fn from(kind: NotifyType) -> Self {
        Self::Notify(Notify::new(kind, []))
    }
}

impl Endpoint {
    /// The peer's authentic request for a new SA on this one.
    pub(crate) fn create_child_sa_request(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        payloads: Vec<Payload>,
    ) -> Option<IkeSa> {
        let outcome = judge(&mut sa, &payloads).and_then(|asked| key_exchange(&sa, asked, &payloads));
        match outcome {
            Ok(None) => self.make(now, sa, path, &payloads, &[], &[]),
            Ok(Some((group, public))) => {
                let secret = Secret::random(group, &mut *self.rng);
                if let Some(established) = sa.established_mut() {
                    established.answering = Some(Box::new(Answering { payloads, path, group }));
                    self.jobs.push_back(Job { sa: sa.spi, secret, work: Work::Respond(public) });
                }
                Some(sa)
            }
            Err(refusal) => self.refuse(now, sa, path, refusal),
        }
    }

    /// Our public value and the shared secret are computed.
    pub(crate) fn child_responded(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        result: Result<(Vec<u8>, Shared), InvalidPublic>,
    ) -> Option<IkeSa> {
        let answering = sa.established_mut().and_then(|e| e.answering.take());
        let Some(answering) = answering else { return self.follow_up_responded(now, sa, result) };
        let Answering { payloads, path, group } = *answering;
        match result {
            Ok((public, shared)) => self.make(now, sa, path, &payloads, &public, &shared),
            Err(InvalidPublic) => {
                let cause = Cause::InvalidPublicValue { group };
                self.refuse(now, sa, path, Refusal::Cause(cause))
            }
        }
    }

    fn make(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        payloads: &[Payload],
        public: &[u8],
        shared: &[u8],
    ) -> Option<IkeSa> {
        let made = match judge(&mut sa, payloads) {
            Ok(Asked::Ike) => self.make_ike(now, &mut sa, payloads, public, shared),
            Ok(Asked::Child { old }) => self.make_child(now, &mut sa, old, payloads, public, shared),
            Err(refusal) => Err(refusal),
        };
        match made {
            Ok(answer) => {
                self.counters.exchange(ExchangeType::CreateChildSa, ExchangeResult::Done);
                self.answer(&mut sa, path, ExchangeType::CreateChildSa, &answer);
                Some(sa)
            }
            Err(refusal) => self.refuse(now, sa, path, refusal),
        }
    }

    fn make_child(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        old: Option<u32>,
        payloads: &[Payload],
        public: &[u8],
        shared: &[u8],
    ) -> Result<Vec<Payload>, Refusal> {
        let tunnel = sa.tunnel.clone().ok_or(NotifyType::TEMPORARY_FAILURE)?;
        let initiator_nonce = nonce_of(payloads)?.to_vec();
        let inbound_spi = self.draw_esp_spi(&mut sa.esp_spis);
        let outcome = child::respond(&tunnel, payloads, inbound_spi, Some(&tunnel.ipsec.pfs));
        let (agreement, [chosen, ts_initiator, ts_responder]) = match outcome {
            Some(Ok(agreed)) => agreed,
            refused => {
                self.release_esp_spi(sa, inbound_spi);
                let cause = refused.and_then(Result::err);
                return Err(cause.map_or(Refusal::Broken("traffic selectors are missing"), Refusal::Cause));
            }
        };
        let mut nonce = vec![0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        let lower = initiator_nonce.as_slice().min(&nonce);
        // Both began at once where ours for the same was made while theirs was on its way; see `child_made`.
        let twin = sa
            .established()
            .filter(|_| old.is_none())
            .and_then(|e| e.children.iter().find(|c| c.initiator && c.is_usable() && c.is_for(&agreement)));
        let awaited = if old.is_some() || twin.is_some() {
            Some(self.config.give_up_after())
        } else {
            self.is_served_elsewhere(sa, &agreement).then_some(NEWS)
        };
        let replaces = match (old, twin) {
            (Some(inbound_spi), _) => Some(Replaces { inbound_spi, deleted_by_us: false }),
            (None, Some(twin)) if twin.nonce.as_slice() < lower => {
                Some(Replaces { inbound_spi: twin.inbound_spi, deleted_by_us: true })
            }
            (None, _) => None,
        };
        let mut answer = vec![chosen, Payload::Nonce(nonce.clone())];
        if let Some(group) = agreement.suite.group {
            answer.push(Payload::KeyExchange { group: group.number(), public: public.to_vec() });
        }
        answer.extend([ts_initiator, ts_responder]);
        let nonces = [initiator_nonce.as_slice(), &nonce];
        let making = Making { initiator: false, nonces, shared, replaces, awaited };
        self.install(now, sa, agreement, &making);
        self.no_longer_childless(now, sa);
        Ok(answer)
    }

    fn make_ike(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        payloads: &[Payload],
        public: &[u8],
        shared: &[u8],
    ) -> Result<Vec<Payload>, Refusal> {
        let tunnel = sa.tunnel.clone().ok_or(NotifyType::TEMPORARY_FAILURE)?;
        let initiator_nonce = nonce_of(payloads)?;
        let spi = self.draw_spi();
        let (agreement, chosen) =
            IkeAgreement::respond(&tunnel.ike, proposals_of(payloads)?, spi).map_err(Refusal::Cause)?;
        let mut nonce = vec![0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        let group = agreement.suite.group.number();
        let key_exchange = Payload::KeyExchange { group, public: public.to_vec() };
        let mut answer = vec![chosen, Payload::Nonce(nonce.clone()), key_exchange];
        let nonces = [initiator_nonce, &nonce];
        match agreement.suite.additional {
            Some(group) => answer.push(self.pend(sa, group, spi, agreement, nonces, shared)),
            None => {
                let secrets = Secrets { shared, additional: &[] };
                self.ike_rekeyed_by_peer(now, sa, spi, &agreement, nonces, secrets);
            }
        }
        Ok(answer)
    }

    fn refuse(&mut self, now: Instant, mut sa: IkeSa, path: Path, refusal: Refusal) -> Option<IkeSa> {
        self.counters.exchange(ExchangeType::CreateChildSa, ExchangeResult::Refused);
        let notify = match refusal {
            Refusal::Notify(notify) => notify,
            Refusal::Cause(cause) => {
                let notify = cause.to_notify();
                if self.reports.permit(now, sa.tunnel_id()) {
                    self.failed(sa.tunnel_id(), path, false, Phase::Two, ExchangeType::CreateChildSa, cause);
                }
                notify
            }
            Refusal::Broken(what) => {
                return self.break_off(
                    now,
                    sa,
                    path,
                    ExchangeType::CreateChildSa,
                    &Cause::Malformed { what },
                );
            }
        };
        self.answer(&mut sa, path, ExchangeType::CreateChildSa, &[Payload::Notify(notify)]);
        Some(sa)
    }
}

/// What is asked for, unless the state of things does not allow it (RFC 7296 section 2.25).
fn judge(sa: &mut IkeSa, payloads: &[Payload]) -> Result<Asked, Refusal> {
    let closing =
        sa.window.queue.iter().map(|q| &q.purpose).chain(sa.window.outstanding.iter().map(|r| &r.purpose));
    let closes_child = closing.into_iter().any(|purpose| matches!(purpose, Purpose::DeleteChild(..)));
    let follows_up = sa.tunnel.as_ref().is_some_and(|tunnel| !tunnel.ike.additional_ke.is_empty());
    let Some(established) = sa.established_mut() else { return Err(NotifyType::TEMPORARY_FAILURE.into()) };
    if established.standing != Standing::InUse {
        return Err(NotifyType::TEMPORARY_FAILURE.into());
    }
    let agenda = &mut established.agenda;
    if proposals_of(payloads)?.iter().all(|p| p.protocol == Protocol::Ike) {
        // Of two rekeys with additional key exchanges at once neither would be done when the other must be judged.
        let both = follows_up && agenda.is_under_way(|goal| *goal == Goal::RekeyIke);
        if closes_child || both || agenda.is_under_way(|goal| *goal != Goal::RekeyIke) {
            return Err(NotifyType::TEMPORARY_FAILURE.into());
        }
        agenda.withdraw(|goal| *goal == Goal::RekeyIke);
        return Ok(Asked::Ike);
    }
    if agenda.is_under_way(|goal| *goal == Goal::RekeyIke) {
        return Err(NotifyType::TEMPORARY_FAILURE.into());
    }
    let rekey = payloads.iter().find_map(|p| match p {
        Payload::Notify(notify) if notify.kind == NotifyType::REKEY_SA => Some(notify),
        _ => None,
    });
    let Some(rekey) = rekey else {
        let full = established.children.len() >= MAX_CHILDREN;
        return if full { Err(NotifyType::NO_ADDITIONAL_SAS.into()) } else { Ok(Asked::Child { old: None }) };
    };
    let named = rekey
        .about
        .as_ref()
        .and_then(|(protocol, spi)| Some((*protocol, u32::from_be_bytes(spi.as_slice().try_into().ok()?))));
    let (protocol, spi) = named.ok_or(Refusal::Broken("REKEY_SA names no SA"))?;
    if established.is_deleting(protocol, spi) {
        return Err(NotifyType::TEMPORARY_FAILURE.into());
    }
    let old = established
        .children
        .iter()
        .find(|child| Protocol::from(child.suite.protocol) == protocol && child.outbound_spi == spi);
    match old.map(|old| (old.stage, old.inbound_spi)) {
        // A pair stays until it is deleted, however often it is rekeyed.
        Some(_) if established.children.len() >= MAX_CHILDREN_IN_REKEYS => {
            Err(NotifyType::TEMPORARY_FAILURE.into())
        }
        Some((Stage::Live | Stage::Awaited(_), old)) => {
            established.agenda.withdraw(|goal| *goal == Goal::RekeyChild(old));
            Ok(Asked::Child { old: Some(old) })
        }
        Some((Stage::Redundant(_) | Stage::Deleting, _)) => Err(NotifyType::TEMPORARY_FAILURE.into()),
        // It may be what our task makes, whose answer is on its way.
        None if established.agenda.is_under_way(|_| true) => Err(NotifyType::TEMPORARY_FAILURE.into()),
        Some((Stage::Draining(_), _)) | None => Err(Refusal::Notify(Notify {
            kind: NotifyType::CHILD_SA_NOT_FOUND,
            about: rekey.about.clone(),
            data: Vec::new(),
        })),
    }
}

/// The group of the key exchange that the answer needs, and the peer's public value; or that it needs none.
fn key_exchange(sa: &IkeSa, asked: Asked, payloads: &[Payload]) -> Result<Option<(Group, Vec<u8>)>, Refusal> {
    let tunnel = sa.tunnel.as_ref().ok_or(NotifyType::TEMPORARY_FAILURE)?;
    nonce_of(payloads)?;
    let group = match asked {
        Asked::Ike => {
            let agreed = IkeAgreement::respond(&tunnel.ike, proposals_of(payloads)?, 0);
            Some(agreed.map_err(Refusal::Cause)?.0.suite.group)
        }
        Asked::Child { .. } => {
            let agreed = child::respond(tunnel, payloads, 0, Some(&tunnel.ipsec.pfs));
            let agreed = agreed.ok_or(Refusal::Broken("traffic selectors are missing"))?;
            agreed.map_err(Refusal::Cause)?.0.suite.group
        }
    };
    let Some(group) = group else { return Ok(None) };
    let public = payloads.iter().find_map(|p| match p {
        Payload::KeyExchange { group: said, public } if *said == group.number() => Some(public.clone()),
        _ => None,
    });
    let wanted = || Notify::new(NotifyType::INVALID_KE_PAYLOAD, group.number().to_be_bytes());
    public.map(|public| Some((group, public))).ok_or_else(|| Refusal::Notify(wanted()))
}

fn nonce_of(payloads: &[Payload]) -> Result<&[u8], Refusal> {
    let nonce = payloads.iter().find_map(|p| if let Payload::Nonce(n) = p { Some(&n[..]) } else { None });
    nonce.ok_or(Refusal::Broken("Nonce is missing"))
}

fn proposals_of(payloads: &[Payload]) -> Result<&[Proposal], Refusal> {
    let proposals = payloads.iter().find_map(|p| if let Payload::Sa(sa) = p { Some(&sa[..]) } else { None });
    // Proposals of protocols that nobody here knows are left out when they are decoded.
    proposals.ok_or(Refusal::Broken("SA is missing"))
}
