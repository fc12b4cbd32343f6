//! CREATE_CHILD_SA (RFC 7296 section 1.3) as initiator: another pair of Child SAs, the rekey of one, the rekey of the
//! IKE SA.
//!
//! The window allows one request, so there is one [`Task`] at a time; what else is wanted waits as a [`Goal`]. A task
//! goes from `Preparing` (our public value is computed, or another request is under way) over `Sent` to `Agreeing`
//! (the shared secret is computed) and, where there is an additional key exchange, `FollowingUp`. From `Agreeing` on no
//! other request is sent, since the peer takes our next one for word that we have its answer.

use std::{collections::VecDeque, time::Instant};

use super::{
    IkeSa, Purpose, Request, Role, Stage,
    child::{self, Agreement, Flow, Making, Replaces},
    ike_followup_ke::{FollowUp, link_of},
    rekey_ike::{IkeAgreement, Secrets},
};
use crate::{
    algorithm::Group,
    config::TunnelConfig,
    counters::ExchangeResult,
    crypto::dh::{InvalidPublic, Job, Secret, Shared, Work},
    endpoint::Endpoint,
    error::Cause,
    event::{DownReason, Phase},
    wire::{ExchangeType, Notify, NotifyType, Payload, WireError},
};

/// What is to be done by a CREATE_CHILD_SA exchange of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A pair of Child SAs, for this flow before others.
    Create(Option<Flow>),
    /// The rekey of the pair with this inbound SPI.
    RekeyChild(u32),
    RekeyIke,
}

/// What CREATE_CHILD_SA is to do for an IKE SA.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    pub(crate) task: Option<Box<Task>>,
    pub(crate) goals: VecDeque<Goal>,
    /// What the peer could not do when it was asked, and when it is asked again.
    pub(crate) later: Vec<(Instant, Goal)>,
}

/// An exchange of ours under way.
#[derive(Debug)]
pub(crate) struct Task {
    pub(super) goal: Goal,
    pub(super) step: Step,
    pub(super) nonce: Vec<u8>,
    pub(super) started: Instant,
    /// Our SPI of the IKE SA that is to be made; drawn when the request is sent.
    pub(super) ike_spi: u64,
    /// Our SPI of the pair of Child SAs that is to be made, once the request is sent.
    pub(super) child_spi: Option<u32>,
    /// What it makes is to be deleted at once: it was closed in the meantime.
    pub(super) doomed: bool,
    /// SPIs that the peer has deleted and that we know nothing of: that of what it makes may be among them.
    pub(super) gone: Vec<u32>,
    pub(super) group: Option<Group>,
    /// Our part of the key exchange; not here while a job has it.
    pub(super) secret: Option<(Secret, Vec<u8>)>,
    /// The request and our part of the key exchange while the shared secret is computed: what another process has to
    /// begin with again.
    pub(super) asked: Option<(Request, Secret)>,
    pub(super) retries: u32,
    /// The additional key exchange that is to follow, and the peer's link to it.
    pub(super) follow_up: Option<(Group, Vec<u8>)>,
}

#[derive(Debug)]
pub(super) enum Step {
    Preparing,
    Sent,
    Agreeing(Box<Made>),
    /// The additional key exchange of the rekey of an IKE SA (RFC 9370).
    FollowingUp(Box<FollowUp>),
}

/// What the peer has agreed to, and its nonce.
#[derive(Debug)]
pub(super) enum Made {
    Child(Agreement, Vec<u8>),
    Ike(IkeAgreement, Vec<u8>),
}

/// How often another group is given in to, in one task.
const MAX_RETRIES: u32 = 4;
/// Flows that may wait for a Child SA of their own.
const MAX_GOALS: usize = 32;
pub(super) const NONCE_LEN: usize = 32;

impl Agenda {
    /// Whether the peer may have acted, or be about to act, on a task of this kind.
    pub(super) fn is_under_way(&self, kind: impl Fn(&Goal) -> bool) -> bool {
        self.task.as_ref().is_some_and(|task| !matches!(task.step, Step::Preparing) && kind(&task.goal))
    }

    /// Whether a request must wait although none is outstanding.
    pub(crate) fn holds_window(&self) -> bool {
        self.task.as_ref().is_some_and(|task| matches!(task.step, Step::Agreeing(_) | Step::FollowingUp(_)))
    }

    /// Whether anything here is to make a pair of Child SAs.
    pub(super) fn makes_child(&self) -> bool {
        let goals = self.task.iter().map(|t| &t.goal).chain(&self.goals);
        goals.chain(self.later.iter().map(|(_, goal)| goal)).any(|goal| *goal != Goal::RekeyIke)
    }

    /// Gives up a task that the peer knows nothing of.
    pub(super) fn withdraw(&mut self, kind: impl Fn(&Goal) -> bool) {
        self.task.take_if(|task| matches!(task.step, Step::Preparing) && kind(&task.goal));
    }
}

/// What is wanted, and its beginning.
impl Endpoint {
    /// Has something done by CREATE_CHILD_SA, as soon as its turn comes.
    pub(crate) fn want(&mut self, now: Instant, sa: &mut IkeSa, goal: Goal) {
        let Some(established) = sa.established_mut() else { return };
        let agenda = &mut established.agenda;
        let known = agenda.task.iter().map(|t| &t.goal).chain(&agenda.goals).any(|g| *g == goal);
        if !known && agenda.goals.len() < MAX_GOALS {
            agenda.later.retain(|(_, later)| *later != goal);
            agenda.goals.push_back(goal);
        }
        self.pursue(now, sa);
    }

    /// Goes on with what is wanted, if the window is free.
    pub(crate) fn pursue(&mut self, now: Instant, sa: &mut IkeSa) {
        while sa.window.outstanding.is_none() {
            let Some(established) = sa.established_mut() else { return };
            if let Some(task) = &established.agenda.task {
                if !matches!(task.step, Step::Preparing) || (task.group.is_some() && task.secret.is_none()) {
                    return;
                }
                if established.is_attainable(&task.goal) {
                    return self.send_task(now, sa);
                }
                established.agenda.task = None;
            } else {
                let Some(goal) = established.agenda.goals.pop_front() else { return };
                if established.is_attainable(&goal) {
                    self.begin_task(now, sa, goal);
                }
            }
        }
    }

    fn begin_task(&mut self, now: Instant, sa: &mut IkeSa, goal: Goal) {
        let Some(tunnel) = sa.tunnel.clone() else { return };
        let spi = sa.spi;
        let Some(established) = sa.established_mut() else { return };
        let groups = groups(&tunnel, &goal);
        // The group that the peer has taken before saves a round.
        let last = match &goal {
            Goal::RekeyIke => Some(established.suite.group),
            Goal::RekeyChild(old) => established.child(*old).and_then(|child| child.suite.group),
            Goal::Create(_) => None,
        };
        let group = last.filter(|last| groups.contains(last)).or(groups.first().copied());
        let mut nonce = vec![0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        established.agenda.task = Some(Box::new(Task {
            goal,
            step: Step::Preparing,
            nonce,
            started: now,
            ike_spi: 0,
            child_spi: None,
            doomed: false,
            gone: Vec::new(),
            group,
            secret: None,
            asked: None,
            retries: 0,
            follow_up: None,
        }));
        if let Some(group) = group {
            self.generate(spi, group);
        }
    }

    /// Our public value is computed.
    pub(crate) fn child_generated(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        secret: Secret,
        public: Vec<u8>,
    ) -> Option<IkeSa> {
        let task = sa.established_mut().and_then(|e| e.agenda.task.as_mut());
        if task.as_ref().is_some_and(|task| matches!(task.step, Step::FollowingUp(_))) {
            self.follow_up_generated(now, &mut sa, secret, public);
            return Some(sa);
        }
        if let Some(task) = task
            && matches!(task.step, Step::Preparing)
            && task.group == Some(secret.group())
        {
            task.secret = Some((secret, public));
            self.pursue(now, &mut sa);
        }
        Some(sa)
    }

    fn send_task(&mut self, now: Instant, sa: &mut IkeSa) {
        let Some(tunnel) = sa.tunnel.clone() else { return };
        let Some(mut task) = sa.established_mut().and_then(|e| e.agenda.task.take()) else { return };
        let key_exchange = task.secret.as_ref().map(|(secret, public)| Payload::KeyExchange {
            group: secret.group().number(),
            public: public.clone(),
        });
        let nonce = Payload::Nonce(task.nonce.clone());
        let mut payloads = Vec::with_capacity(6);
        if task.goal == Goal::RekeyIke {
            task.ike_spi = self.draw_spi();
            payloads.push(IkeAgreement::offer(&tunnel.ike, task.ike_spi));
            payloads.push(nonce);
            payloads.extend(key_exchange);
        } else {
            let spi = self.draw_esp_spi(&mut sa.esp_spis);
            task.child_spi = Some(spi);
            let pfs = &tunnel.ipsec.pfs;
            let old = match &task.goal {
                Goal::RekeyChild(old) => sa.established().and_then(|e| e.child(*old)),
                _ => None,
            };
            let [offer, ts_initiator, ts_responder] = match (old, &task.goal) {
                (Some(old), _) => {
                    let about = Some((old.suite.protocol.into(), old.inbound_spi.to_be_bytes().to_vec()));
                    payloads.push(Payload::Notify(Notify {
                        kind: NotifyType::REKEY_SA,
                        about,
                        data: Vec::new(),
                    }));
                    old.offer_rekey(&tunnel, spi, pfs)
                }
                (None, Goal::Create(flow)) => child::offer(&tunnel, flow.as_ref(), spi, pfs),
                (None, _) => return,
            };
            payloads.extend([offer, nonce]);
            payloads.extend(key_exchange);
            payloads.extend([ts_initiator, ts_responder]);
        }
        task.step = Step::Sent;
        if let Some(established) = sa.established_mut() {
            established.agenda.task = Some(task);
        }
        self.request(now, sa, ExchangeType::CreateChildSa, payloads, Purpose::Create);
    }
}

/// The groups that may be used.
fn groups<'a>(tunnel: &'a TunnelConfig, goal: &Goal) -> &'a [Group] {
    if *goal == Goal::RekeyIke { &tunnel.ike.dh } else { &tunnel.ipsec.pfs }
}

/// The answer.
impl Endpoint {
    /// The authentic answer to our CREATE_CHILD_SA.
    pub(crate) fn create_child_sa_answer(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        request: Request,
        payloads: Result<&[Payload], WireError>,
    ) -> Option<IkeSa> {
        let Some(tunnel) = sa.tunnel.clone() else { return Some(sa) };
        let Some(mut task) = sa.established_mut().and_then(|e| e.agenda.task.take()) else { return Some(sa) };
        let payloads = match payloads {
            Ok(payloads) => payloads,
            Err(error) => return self.answer_is_lost(now, sa, &tunnel, *task, Cause::Undecodable(error)),
        };
        let error = payloads.iter().find_map(|p| match p {
            Payload::Notify(notify) if notify.kind.is_error() => Some(notify),
            _ => None,
        });
        if let Some(notify) = error {
            return self.task_refused(now, sa, &tunnel, *task, notify, payloads);
        }
        let (made, public) = match read_answer(&tunnel, &task, payloads) {
            Ok(read) => read,
            Err(cause) => return self.answer_is_lost(now, sa, &tunnel, *task, cause),
        };
        if let Made::Ike(agreement, _) = &made
            && let Some(group) = agreement.suite.additional
        {
            task.follow_up = link_of(payloads).map(|link| (group, link));
            if task.follow_up.is_none() {
                let cause = Cause::Malformed { what: "ADDITIONAL_KEY_EXCHANGE is missing" };
                return self.task_failed(now, sa, *task, cause);
            }
        }
        match (public, task.secret.take()) {
            (Some(public), Some((secret, _))) => {
                task.step = Step::Agreeing(Box::new(made));
                task.asked = Some((request, secret.clone()));
                let job = Job { sa: sa.spi, secret, work: Work::Agree(public) };
                if let Some(established) = sa.established_mut() {
                    established.agenda.task = Some(task);
                    self.jobs.push_back(job);
                }
                Some(sa)
            }
            _ => self.task_done(now, sa, *task, made, Secrets { shared: &[], additional: &[] }),
        }
    }

    /// The shared secret is computed.
    pub(crate) fn child_agreed(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        shared: Result<Shared, InvalidPublic>,
    ) -> Option<IkeSa> {
        let Some(tunnel) = sa.tunnel.clone() else { return Some(sa) };
        let agenda = sa.established_mut().map(|e| &mut e.agenda);
        let agreeing = |task: &mut Box<Task>| matches!(task.step, Step::Agreeing(_) | Step::FollowingUp(_));
        let Some(mut task) = agenda.and_then(|a| a.task.take_if(agreeing)) else { return Some(sa) };
        task.asked = None;
        let made = match std::mem::replace(&mut task.step, Step::Sent) {
            Step::Agreeing(made) => made,
            Step::FollowingUp(follow_up) => {
                return self.follow_up_agreed(now, sa, task, *follow_up, shared);
            }
            Step::Preparing | Step::Sent => return Some(sa),
        };
        let follow_up = task.follow_up.take();
        let sa = match (shared, task.group) {
            // The peer has made nothing yet.
            (Ok(_), _) if follow_up.is_some() && task.doomed => self.finish_closing(now, sa),
            (Ok(shared), _) => match follow_up {
                Some(follow_up) => {
                    self.begin_follow_up(&mut sa, task, made, follow_up, shared);
                    return Some(sa);
                }
                None => {
                    let secrets = Secrets { shared: &shared, additional: &[] };
                    self.task_done(now, sa, *task, *made, secrets)
                }
            },
            (Err(InvalidPublic), Some(group)) => {
                self.answer_is_lost(now, sa, &tunnel, *task, Cause::InvalidPublicValue { group })
            }
            (Err(InvalidPublic), None) => Some(sa),
        };
        let mut sa = sa?;
        self.next_request(now, &mut sa);
        Some(sa)
    }

    pub(super) fn task_done(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        task: Task,
        made: Made,
        secrets: Secrets<'_>,
    ) -> Option<IkeSa> {
        self.counters.exchange(ExchangeType::CreateChildSa, ExchangeResult::Done);
        match made {
            Made::Child(agreement, nonce) => {
                if let Goal::Create(Some(flow)) = &task.goal
                    && !agreement.covers(flow)
                {
                    let cause = agreement.misses(flow);
                    self.failed(
                        sa.tunnel_id(),
                        sa.path,
                        true,
                        Phase::Two,
                        ExchangeType::CreateChildSa,
                        cause,
                    );
                    let (protocol, inbound_spi) = (agreement.suite.protocol, agreement.inbound_spi);
                    self.delete_spis(now, &mut sa, protocol, inbound_spi, agreement.outbound_spi);
                    self.maybe_childless(now, &mut sa);
                    return Some(sa);
                }
                self.child_made(now, &mut sa, &task, agreement, &nonce, secrets.shared);
                Some(sa)
            }
            Made::Ike(agreement, nonce) => self.ike_rekeyed(now, sa, &task, &agreement, &nonce, secrets),
        }
    }

    /// The pair is agreed on. Where the peer made one for the same at the same time, the one with the lowest of the
    /// four nonces goes, deleted by who began its exchange (RFC 7296 section 2.8.1).
    fn child_made(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        task: &Task,
        agreement: Agreement,
        nonce: &[u8],
        shared: &[u8],
    ) {
        let until = now + self.config.linger;
        let Some(established) = sa.established_mut() else { return };
        let old = match task.goal {
            Goal::RekeyChild(old) => Some(old),
            _ => None,
        };
        let rival = established.children.iter_mut().find(|child| {
            let same = match old {
                Some(old) => child.replaces.is_some_and(|r| r.inbound_spi == old),
                None => child.is_for(&agreement),
            };
            same && !child.initiator && child.is_usable()
        });
        let lost = rival.as_ref().is_some_and(|rival| task.nonce.as_slice().min(nonce) < &rival.nonce[..]);
        if task.gone.contains(&agreement.outbound_spi) {
            self.release_esp_spi(sa, agreement.inbound_spi);
            return self.maybe_childless(now, sa);
        }
        if lost || task.doomed {
            let (protocol, inbound_spi) = (agreement.suite.protocol, agreement.inbound_spi);
            return self.delete_spis(now, sa, protocol, inbound_spi, agreement.outbound_spi);
        }
        let replaces = old.or(rival.as_ref().map(|rival| rival.inbound_spi));
        if let Some(rival) = rival {
            rival.stage = Stage::Redundant(until);
        }
        let replaces = replaces.map(|inbound_spi| Replaces { inbound_spi, deleted_by_us: old.is_some() });
        let making =
            Making { initiator: true, nonces: [&task.nonce, nonce], shared, replaces, awaited: None };
        self.install(now, sa, agreement, &making);
        if let Some(old) = old {
            self.retire_child(now, sa, old);
        }
        self.no_longer_childless(now, sa);
    }

    /// The peer has answered what we cannot take, and may hold for made what is not: it is to delete that Child SA. Where
    /// it was an IKE SA, our Child SAs may have moved to it, and nothing is left to go on with.
    pub(super) fn answer_is_lost(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        tunnel: &TunnelConfig,
        task: Task,
        cause: Cause,
    ) -> Option<IkeSa> {
        if task.goal == Goal::RekeyIke && !sa.is_closing() {
            return self.close_sa(now, sa, DownReason::Broken);
        }
        if let Some(spi) = task.child_spi {
            self.delete_spis(now, &mut sa, tunnel.ipsec.protocol, spi, 0);
        }
        self.task_failed(now, sa, task, cause)
    }
}

/// What a well-formed answer agrees to, and the peer's public value where there is a key exchange.
fn read_answer(
    tunnel: &TunnelConfig,
    task: &Task,
    payloads: &[Payload],
) -> Result<(Made, Option<Vec<u8>>), Cause> {
    let nonce = payloads.iter().find_map(|p| if let Payload::Nonce(n) = p { Some(n.clone()) } else { None });
    let (made, group) = match task.child_spi {
        None => {
            let agreement = IkeAgreement::accept(&tunnel.ike, payloads)?;
            let group = agreement.suite.group;
            let nonce = nonce.ok_or(Cause::Malformed { what: "Nonce is missing" })?;
            (Made::Ike(agreement, nonce), Some(group))
        }
        Some(spi) => {
            let agreement = child::accept(tunnel, payloads, spi, Some(&tunnel.ipsec.pfs))?;
            let group = agreement.suite.group;
            let nonce = nonce.ok_or(Cause::Malformed { what: "Nonce is missing" })?;
            (Made::Child(agreement, nonce), group)
        }
    };
    let Some(group) = group else { return Ok((made, None)) };
    let public = payloads.iter().find_map(|p| match p {
        Payload::KeyExchange { group: said, public } if *said == group.number() => Some(public.clone()),
        _ => None,
    });
    match public {
        Some(public) if task.group == Some(group) => Ok((made, Some(public))),
        _ => Err(Cause::Malformed { what: "the group of KE is not the one agreed on" }),
    }
}

/// What a task comes to that the peer refuses.
impl Endpoint {
    fn task_refused(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        tunnel: &TunnelConfig,
        task: Task,
        notify: &Notify,
        payloads: &[Payload],
    ) -> Option<IkeSa> {
        if sa.is_closing() {
            return self.finish_closing(now, sa);
        }
        match (&task.goal, notify.kind) {
            (_, NotifyType::INVALID_KE_PAYLOAD) => self.another_group(now, sa, tunnel, task, &notify.data),
            (_, NotifyType::TEMPORARY_FAILURE) => {
                self.counters.exchange(ExchangeType::CreateChildSa, ExchangeResult::Refused);
                self.release_spi(&mut sa, &task);
                self.try_again(now, &mut sa, task.goal);
                Some(sa)
            }
            (Goal::RekeyChild(old), NotifyType::CHILD_SA_NOT_FOUND) => {
                self.counters.exchange(ExchangeType::CreateChildSa, ExchangeResult::Refused);
                self.release_spi(&mut sa, &task);
                self.child_is_unknown(now, &mut sa, *old);
                Some(sa)
            }
            // Fatal for both sides, and no DELETE follows (RFC 7296 section 2.21.3).
            (_, kind @ NotifyType::INVALID_SYNTAX) => {
                self.counters.exchange(ExchangeType::CreateChildSa, ExchangeResult::Refused);
                let cause = Cause::PeerRefused { notify: kind };
                self.failed(sa.tunnel_id(), sa.path, true, Phase::Two, ExchangeType::CreateChildSa, cause);
                self.down(&mut sa, DownReason::Broken);
                None
            }
            (Goal::RekeyIke, kind) => {
                let cause = IkeAgreement::refusal(&tunnel.ike, kind);
                self.task_failed(now, sa, task, cause)
            }
            (_, kind @ NotifyType::NO_ADDITIONAL_SAS) => {
                self.task_failed(now, sa, task, Cause::PeerRefused { notify: kind })
            }
            _ => {
                let accepted = child::accept(tunnel, payloads, 0, Some(&tunnel.ipsec.pfs));
                let cause = accepted.err().unwrap_or(Cause::PeerRefused { notify: notify.kind });
                self.task_failed(now, sa, task, cause)
            }
        }
    }

    /// The peer wants another group (RFC 7296 section 1.3).
    fn another_group(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        tunnel: &TunnelConfig,
        mut task: Task,
        wanted: &[u8],
    ) -> Option<IkeSa> {
        let ours = groups(tunnel, &task.goal);
        let theirs = <[u8; 2]>::try_from(wanted).map(u16::from_be_bytes).unwrap_or_default();
        let group = Group::from_number(theirs).filter(|g| ours.contains(g) && task.group != Some(*g));
        let Some(group) = group.filter(|_| task.retries < MAX_RETRIES) else {
            let cause = match task.goal {
                Goal::RekeyIke => Cause::InvalidGroup { ours: ours.to_vec(), theirs },
                _ => Cause::PfsMismatch { ours: ours.to_vec(), theirs: Some(vec![theirs]) },
            };
            return self.task_failed(now, sa, task, cause);
        };
        self.release_spi(&mut sa, &task);
        task.step = Step::Preparing;
        task.retries += 1;
        task.group = Some(group);
        task.secret = None;
        self.rng.fill_bytes(&mut task.nonce);
        let spi = sa.spi;
        if let Some(established) = sa.established_mut() {
            established.agenda.task = Some(Box::new(task));
            self.generate(spi, group);
        }
        Some(sa)
    }

    /// The peer could not do it at the time: it is asked again, after a wait that is not the one that it takes itself
    /// where both have refused each other (RFC 7296 section 2.25): the responder's begins when the initiator's is long
    /// over.
    fn try_again(&mut self, now: Instant, sa: &mut IkeSa, goal: Goal) {
        let percent = match sa.role {
            Role::Initiator => 100 + self.rng.next_u32() % 100,
            Role::Responder => 300 + self.rng.next_u32() % 200,
        };
        let at = now + self.config.retransmission.initial * 2 * percent / 100;
        if let Some(established) = sa.established_mut()
            && established.is_attainable(&goal)
        {
            established.agenda.later.push((at, goal));
            self.schedule_children(sa);
        }
    }

    /// The peer does not have the pair that was to be rekeyed: another is made from scratch (RFC 7296 section 2.25),
    /// unless the peer has rekeyed it itself.
    fn child_is_unknown(&mut self, now: Instant, sa: &mut IkeSa, old: u32) {
        let goal = Goal::RekeyChild(old);
        let Some(established) = sa.established_mut() else { return };
        if !established.is_attainable(&goal) || established.successor(old).is_some() {
            return;
        }
        let flow = established
            .child(old)
            .and_then(|child| Some((child.local_ts.first()?.clone(), child.remote_ts.first()?.clone())));
        self.remove_child(sa, old, DownReason::ClosedByPeer);
        self.want(now, sa, Goal::Create(flow));
    }

    /// What cannot be rekeyed is renewed by another IKE SA before it expires.
    pub(super) fn task_failed(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        task: Task,
        cause: Cause,
    ) -> Option<IkeSa> {
        if sa.is_closing() {
            return self.finish_closing(now, sa);
        }
        self.counters.exchange(ExchangeType::CreateChildSa, ExchangeResult::Refused);
        self.release_spi(&mut sa, &task);
        let refuses_all = cause == Cause::PeerRefused { notify: NotifyType::NO_ADDITIONAL_SAS };
        let phase = if task.goal == Goal::RekeyIke { Phase::One } else { Phase::Two };
        if !refuses_all || matches!(task.goal, Goal::Create(_)) {
            self.failed(sa.tunnel_id(), sa.path, true, phase, ExchangeType::CreateChildSa, cause);
        }
        let Some(established) = sa.established_mut() else { return Some(sa) };
        let attainable = established.is_attainable(&task.goal);
        match task.goal {
            Goal::Create(_) => self.maybe_childless(now, &mut sa),
            Goal::RekeyChild(_) | Goal::RekeyIke => {
                established.refuses_rekeys |= refuses_all;
                if attainable {
                    self.renew(now, &sa);
                }
            }
        }
        Some(sa)
    }

    pub(super) fn release_spi(&mut self, sa: &mut IkeSa, task: &Task) {
        if let Some(spi) = task.child_spi {
            self.release_esp_spi(sa, spi);
        }
    }
}
