//! IKE_FOLLOWUP_KE (RFC 9370 section 2.2.4): the additional key exchange in the rekey of an IKE SA.
//!
//! CREATE_CHILD_SA makes the first key exchange, and the responder's answer holds a link: octets of its own by which
//! the next exchange refers to it. The new IKE SA exists once that exchange is done too. In between nothing else is
//! asked by the initiator of the rekey; its responder keeps what it agreed to until the next rekey takes its place.

use std::time::Instant;

use super::{
    IkeSa, Purpose, Standing,
    create_child_sa::{Made, Step, Task},
    extensions::data_of,
    rekey_ike::{IkeAgreement, Secrets},
};
use crate::{
    algorithm::Group,
    counters::ExchangeResult,
    crypto::dh::{InvalidPublic, Job, Secret, Shared, Work},
    endpoint::Endpoint,
    error::Cause,
    event::{Path, Phase},
    wire::{ExchangeType, Notify, NotifyType, Payload, WireError},
};

/// Octets of a link of ours.
const LINK_LEN: usize = 16;

/// What the initiator of a rekey has in hand between the two key exchanges.
#[derive(Debug)]
pub(super) struct FollowUp {
    made: Box<Made>,
    group: Group,
    link: Vec<u8>,
    /// SK(0), once it is computed.
    shared: Shared,
    /// Our part of the additional key exchange; not here while a job has it.
    secret: Option<Secret>,
    /// Whether the request is sent.
    asked: bool,
}

/// What the responder of a rekey has in hand between the two key exchanges.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) spi: u64,
    pub(super) agreement: IkeAgreement,
    /// Ni and Nr.
    pub(super) nonces: [Vec<u8>; 2],
    /// SK(0).
    pub(super) shared: Shared,
    group: Group,
    link: Vec<u8>,
    /// The request whose key exchange is being computed: where its answer goes.
    pub(crate) computing: Option<Path>,
}

fn public_of(payloads: &[Payload], group: Group) -> Option<Vec<u8>> {
    payloads.iter().find_map(|payload| match payload {
        Payload::KeyExchange { group: said, public } if *said == group.number() => Some(public.clone()),
        _ => None,
    })
}

/// The link in an answer to CREATE_CHILD_SA that agrees on an additional key exchange.
pub(super) fn link_of(payloads: &[Payload]) -> Option<Vec<u8>> {
    data_of(payloads, NotifyType::ADDITIONAL_KEY_EXCHANGE).filter(|link| !link.is_empty()).map(<[u8]>::to_vec)
}

/// As initiator.
impl Endpoint {
    /// The first key exchange of a rekey is done: the additional one begins.
    pub(super) fn begin_follow_up(
        &mut self,
        sa: &mut IkeSa,
        mut task: Box<Task>,
        made: Box<Made>,
        (group, link): (Group, Vec<u8>),
        shared: Shared,
    ) {
        task.step =
            Step::FollowingUp(Box::new(FollowUp { made, group, link, shared, secret: None, asked: false }));
        let spi = sa.spi;
        if let Some(established) = sa.established_mut() {
            established.agenda.task = Some(task);
            self.generate(spi, group);
        }
    }

    /// Our public value of the additional key exchange is computed.
    pub(super) fn follow_up_generated(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        secret: Secret,
        public: Vec<u8>,
    ) {
        let task = sa.established_mut().and_then(|e| e.agenda.task.as_mut());
        let Some(Step::FollowingUp(follow_up)) = task.map(|task| &mut task.step) else { return };
        // What was computed for a task that was given up may come this late.
        if follow_up.asked || follow_up.group != secret.group() {
            return;
        }
        follow_up.asked = true;
        let payloads = vec![
            Payload::KeyExchange { group: secret.group().number(), public },
            Payload::Notify(Notify::new(NotifyType::ADDITIONAL_KEY_EXCHANGE, follow_up.link.clone())),
        ];
        follow_up.secret = Some(secret);
        self.request_next(now, sa, ExchangeType::IkeFollowupKe, payloads, Purpose::Create);
    }

    /// The authentic answer to our IKE_FOLLOWUP_KE.
    pub(crate) fn follow_up_answer(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        payloads: Result<&[Payload], WireError>,
    ) -> Option<IkeSa> {
        let (spi, tunnel) = (sa.spi, sa.tunnel.clone());
        let (Some(established), Some(tunnel)) = (sa.established_mut(), tunnel) else { return Some(sa) };
        let following_up = |task: &mut Box<Task>| matches!(task.step, Step::FollowingUp(_));
        let Some(mut task) = established.agenda.task.take_if(following_up) else { return Some(sa) };
        let Step::FollowingUp(follow_up) = &mut task.step else { return Some(sa) };
        let cause = match payloads {
            Err(error) => Cause::Undecodable(error),
            Ok(payloads) => {
                let refusal = payloads.iter().find_map(|p| match p {
                    Payload::Notify(notify) if notify.kind.is_error() => Some(notify.kind),
                    _ => None,
                });
                match (refusal, public_of(payloads, follow_up.group), follow_up.secret.take()) {
                    (None, Some(public), Some(secret)) => {
                        established.agenda.task = Some(task);
                        self.jobs.push_back(Job { sa: spi, secret, work: Work::Agree(public) });
                        return Some(sa);
                    }
                    (Some(notify), ..) => {
                        return self.task_failed(now, sa, *task, Cause::PeerRefused { notify });
                    }
                    _ => Cause::Malformed { what: "KE is missing in IKE_FOLLOWUP_KE, or of another group" },
                }
            }
        };
        self.answer_is_lost(now, sa, &tunnel, *task, cause)
    }

    /// The secret of the additional key exchange is computed: the rekey is done.
    pub(super) fn follow_up_agreed(
        &mut self,
        now: Instant,
        sa: IkeSa,
        mut task: Box<Task>,
        follow_up: FollowUp,
        additional: Result<Shared, InvalidPublic>,
    ) -> Option<IkeSa> {
        let Some(tunnel) = sa.tunnel.clone() else { return Some(sa) };
        task.step = Step::Sent;
        let FollowUp { made, group, shared, .. } = follow_up;
        let sa = match additional {
            Ok(additional) => {
                self.counters.exchange(ExchangeType::IkeFollowupKe, ExchangeResult::Done);
                let secrets = Secrets { shared: &shared, additional: &additional };
                self.task_done(now, sa, *task, *made, secrets)
            }
            Err(InvalidPublic) => {
                self.answer_is_lost(now, sa, &tunnel, *task, Cause::InvalidPublicValue { group })
            }
        };
        let mut sa = sa?;
        self.next_request(now, &mut sa);
        Some(sa)
    }
}

/// As responder.
impl Endpoint {
    /// What is kept of a rekey that we have agreed to, until its additional key exchange; the payload with the link.
    pub(super) fn pend(
        &mut self,
        sa: &mut IkeSa,
        group: Group,
        spi: u64,
        agreement: IkeAgreement,
        nonces: [&[u8]; 2],
        shared: &[u8],
    ) -> Payload {
        let mut link = vec![0; LINK_LEN];
        self.rng.fill_bytes(&mut link);
        let notify = Payload::Notify(Notify::new(NotifyType::ADDITIONAL_KEY_EXCHANGE, link.clone()));
        if let Some(established) = sa.established_mut() {
            let (nonces, shared) = (nonces.map(<[u8]>::to_vec), Shared::new(shared.to_vec()));
            let pending = Pending { spi, agreement, nonces, shared, group, link, computing: None };
            established.pending = Some(Box::new(pending));
        }
        notify
    }

    /// The peer's authentic IKE_FOLLOWUP_KE.
    pub(crate) fn follow_up_request(
        &mut self,
        mut sa: IkeSa,
        path: Path,
        payloads: &[Payload],
    ) -> Option<IkeSa> {
        let spi = sa.spi;
        let link = data_of(payloads, NotifyType::ADDITIONAL_KEY_EXCHANGE);
        let in_use = sa.established_mut().filter(|e| e.standing == Standing::InUse);
        let pending = in_use.and_then(|e| e.pending.as_mut());
        let Some(pending) = pending.filter(|pending| link == Some(&pending.link[..])) else {
            return self.refuse_follow_up(sa, path, Notify::new(NotifyType::STATE_NOT_FOUND, []));
        };
        let Some(public) = public_of(payloads, pending.group) else {
            return self.refuse_follow_up(sa, path, Notify::new(NotifyType::INVALID_SYNTAX, []));
        };
        pending.computing = Some(path);
        let secret = Secret::random(pending.group, &mut *self.rng);
        self.jobs.push_back(Job { sa: spi, secret, work: Work::Respond(public) });
        Some(sa)
    }

    /// The additional key exchange is computed: the new IKE SA takes over.
    pub(super) fn follow_up_responded(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        result: Result<(Vec<u8>, Shared), InvalidPublic>,
    ) -> Option<IkeSa> {
        let sent_to = sa.path;
        let Some(established) = sa.established_mut() else { return Some(sa) };
        let Some(pending) = established.pending.take_if(|pending| pending.computing.is_some()) else {
            return Some(sa);
        };
        let Pending { spi, agreement, nonces, shared, group, computing, .. } = *pending;
        let path = computing.unwrap_or(sent_to);
        // Closed or replaced while it was computed.
        if established.standing != Standing::InUse {
            return self.refuse_follow_up(sa, path, Notify::new(NotifyType::TEMPORARY_FAILURE, []));
        }
        let Ok((public, additional)) = result else {
            let cause = Cause::InvalidPublicValue { group };
            let notify = cause.to_notify();
            if self.reports.permit(now, sa.tunnel_id()) {
                self.failed(sa.tunnel_id(), path, false, Phase::One, ExchangeType::IkeFollowupKe, cause);
            }
            return self.refuse_follow_up(sa, path, notify);
        };
        let secrets = Secrets { shared: &shared, additional: &additional };
        let [initiator, responder] = &nonces;
        self.ike_rekeyed_by_peer(now, &mut sa, spi, &agreement, [initiator, responder], secrets);
        self.counters.exchange(ExchangeType::IkeFollowupKe, ExchangeResult::Done);
        let answer = [Payload::KeyExchange { group: group.number(), public }];
        self.answer(&mut sa, path, ExchangeType::IkeFollowupKe, &answer);
        Some(sa)
    }

    fn refuse_follow_up(&mut self, mut sa: IkeSa, path: Path, notify: Notify) -> Option<IkeSa> {
        self.counters.exchange(ExchangeType::IkeFollowupKe, ExchangeResult::Refused);
        self.answer(&mut sa, path, ExchangeType::IkeFollowupKe, &[Payload::Notify(notify)]);
        Some(sa)
    }
}
