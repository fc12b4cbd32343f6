//! An IKE SA in octets, and back: what another process needs to go on with it.
//!
//! A key exchange under way is no part of it: the request that it is for is sent again, or comes again, and is answered
//! as it was. So what the initiator needs for that is kept with the request, its private value included. Only the second
//! key exchange of a rekey with two (RFC 9370) is not begun again: such an IKE SA is not kept while it lasts.

use std::{sync::Arc, time::Instant};

use super::{
    Agenda, Channel, Child, Established, Extensions, Goal, IkeSa, Line, Purpose, Queued, Request, Stage,
    Standing, State, Window,
    child::Replaces,
    child_life::Deleting,
    create_child_sa::{Step, Task},
    rekey_ike::Rekeyed,
};
use crate::{
    codec::{Damaged, Field, Reader, Writer, numbered},
    config::{Protocol, TunnelConfig},
    crypto::dh::Secret,
    endpoint::Endpoint,
    kept,
    timer::TimerKind,
    wire::{ExchangeType, Payload},
};

/// Deadlines that are not kept: they begin anew.
const BEGUN_ANEW: [TimerKind; 3] = [TimerKind::Retransmit, TimerKind::Reassembly, TimerKind::Liveness];

kept! {
    Channel { outgoing, incoming }
    Extensions { fragmentation, intermediate, ppk, childless, mobike }
    Line { role, started, since }
    Rekeyed { of, nonce }
    Replaces { inbound_spi, deleted_by_us }
    Deleting { protocol, inbound_spi, outbound_spi }
    Child {
        suite, inbound_spi, outbound_spi, encapsulated, local_ts, remote_ts, initiator, nonce, replaces, stage, soft,
        hard,
    }
}

numbered! { Standing { InUse = 0, Superseded = 1, Rekeyed = 2, Closing = 3 } }

impl Field for Stage {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Live => 0u8.write(to),
            Self::Awaited(at) => (1u8, *at).write(to),
            Self::Redundant(at) => (2u8, *at).write(to),
            Self::Deleting => 3u8.write(to),
            Self::Draining(at) => (4u8, *at).write(to),
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(match u8::read(from)? {
            0 => Self::Live,
            1 => Self::Awaited(Field::read(from)?),
            2 => Self::Redundant(Field::read(from)?),
            3 => Self::Deleting,
            4 => Self::Draining(Field::read(from)?),
            _ => return Err(Damaged),
        })
    }
}

impl Field for Goal {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Create(flow) => (0u8, flow.clone()).write(to),
            Self::RekeyChild(spi) => (1u8, *spi).write(to),
            Self::RekeyIke => 2u8.write(to),
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(match u8::read(from)? {
            0 => Self::Create(Field::read(from)?),
            1 => Self::RekeyChild(Field::read(from)?),
            2 => Self::RekeyIke,
            _ => return Err(Damaged),
        })
    }
}

impl Field for Purpose {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Establish => 0u8.write(to),
            Self::Create => 1u8.write(to),
            Self::Liveness => 2u8.write(to),
            Self::Close => 3u8.write(to),
            Self::DeleteChild(spi, reason) => (4u8, (*spi, *reason)).write(to),
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(match u8::read(from)? {
            0 => Self::Establish,
            1 => Self::Create,
            2 => Self::Liveness,
            3 => Self::Close,
            4 => {
                let (spi, reason) = Field::read(from)?;
                Self::DeleteChild(spi, reason)
            }
            _ => return Err(Damaged),
        })
    }
}

/// A request of ours that waits for its answer. How often it was sent does not matter: that begins anew.
struct Asked {
    exchange: ExchangeType,
    id: u32,
    messages: Vec<Vec<u8>>,
    purpose: Purpose,
}

kept! { Asked { exchange, id, messages, purpose } }

impl Asked {
    fn of(request: &Request) -> Self {
        let Request { exchange, id, messages, purpose, .. } = request;
        Self { exchange: *exchange, id: *id, messages: messages.clone(), purpose: *purpose }
    }

    fn again(self, now: Instant) -> Request {
        let Self { exchange, id, messages, purpose } = self;
        Request { exchange, id, messages, purpose, attempts: 0, first_sent: now }
    }
}

/// A request of ours that waits for its turn and would not be made again by itself: a DELETE.
struct Delete {
    /// `None` is the IKE SA.
    child: Option<(Protocol, u32)>,
    purpose: Purpose,
}

kept! { Delete { child, purpose } }

impl Delete {
    fn of(queued: &Queued) -> Option<Self> {
        match (queued.purpose, queued.payloads.first()) {
            (Purpose::Close, _) => Some(Self { child: None, purpose: queued.purpose }),
            (Purpose::DeleteChild(spi, _), Some(Payload::Delete { protocol, .. })) => {
                let known = [Protocol::Esp, Protocol::Ah].into_iter().find(|p| *protocol == (*p).into())?;
                Some(Self { child: Some((known, spi)), purpose: queued.purpose })
            }
            _ => None,
        }
    }

    fn again(self) -> Queued {
        let (protocol, spis) = match self.child {
            Some((protocol, spi)) => (protocol.into(), vec![spi]),
            None => (crate::wire::Protocol::Ike, Vec::new()),
        };
        let payloads = vec![Payload::Delete { protocol, spis }];
        Queued { exchange: ExchangeType::Informational, payloads, purpose: self.purpose }
    }
}

/// An exchange of ours whose request is sent.
struct Begun {
    goal: Goal,
    nonce: Vec<u8>,
    started: Instant,
    ike_spi: u64,
    child_spi: Option<u32>,
    doomed: bool,
    gone: Vec<u32>,
    group: Option<crate::Group>,
    secret: Option<Secret>,
}

kept! { Begun { goal, nonce, started, ike_spi, child_spi, doomed, gone, group, secret } }

impl Begun {
    fn of(task: &Task) -> Self {
        let Task { goal, nonce, started, ike_spi, child_spi, doomed, gone, group, .. } = task;
        let secret = task.secret.as_ref().map(|(secret, _)| secret);
        Self {
            goal: goal.clone(),
            nonce: nonce.clone(),
            started: *started,
            ike_spi: *ike_spi,
            child_spi: *child_spi,
            doomed: *doomed,
            gone: gone.clone(),
            group: *group,
            secret: secret.or(task.asked.as_ref().map(|(_, secret)| secret)).cloned(),
        }
    }

    fn again(self) -> Task {
        let Self { goal, nonce, started, ike_spi, child_spi, doomed, gone, group, secret } = self;
        Task {
            goal,
            step: Step::Sent,
            nonce,
            started,
            ike_spi,
            child_spi,
            doomed,
            gone,
            group,
            // The public value is in the request already.
            secret: secret.map(|secret| (secret, Vec::new())),
            asked: None,
            retries: 0,
            follow_up: None,
        }
    }
}

impl Agenda {
    fn write(&self, to: &mut Writer) {
        let Self { task, goals, later } = self;
        let begun = task.as_deref().filter(|task| !matches!(task.step, Step::Preparing));
        begun.map(Begun::of).write(to);
        // What the peer knows nothing of yet is begun anew.
        let preparing =
            task.iter().filter(|task| matches!(task.step, Step::Preparing)).map(|task| &task.goal);
        preparing.chain(goals).cloned().collect::<Vec<_>>().write(to);
        later.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let begun = <Option<Begun>>::read(from)?;
        let task = begun.map(|begun| Box::new(begun.again()));
        Ok(Self { task, goals: Field::read(from)?, later: Field::read(from)? })
    }

    /// The request that is answered, and whose key exchange is being computed.
    fn asked(&self) -> Option<&Request> {
        self.task.as_ref().and_then(|task| task.asked.as_ref()).map(|(request, _)| request)
    }
}

impl Established {
    fn write(&self, to: &mut Writer) {
        // Signs of life, and what the peer asks for again, begin anew.
        let Self { channel, keys, suite, nat, since, heard: _, probed: _, standing, line, rekeyed, .. } =
            self;
        let Self { children, deleting, agenda, answering: _, pending: _, refuses_rekeys, settled, .. } = self;
        channel.write(to);
        keys.write(to);
        suite.write(to);
        nat.write(to);
        since.write(to);
        standing.write(to);
        line.write(to);
        rekeyed.write(to);
        children.write(to);
        deleting.write(to);
        agenda.write(to);
        (*refuses_rekeys, *settled).write(to);
    }

    fn read(now: Instant, from: &mut Reader<'_>) -> Result<Box<Self>, Damaged> {
        let mut established =
            Self::new(now, Field::read(from)?, Field::read(from)?, Field::read(from)?, Field::read(from)?);
        established.since = Field::read(from)?;
        established.standing = Field::read(from)?;
        established.line = Field::read(from)?;
        established.rekeyed = Field::read(from)?;
        established.children = Field::read(from)?;
        established.deleting = Field::read(from)?;
        established.agenda = Agenda::read(from)?;
        (established.refuses_rekeys, established.settled) = Field::read(from)?;
        Ok(established)
    }

    /// Whether what is under way can be taken up again by another process.
    fn is_resumable(&self) -> bool {
        self.agenda.task.as_ref().is_none_or(|task| match &task.step {
            Step::Preparing | Step::Sent => true,
            Step::Agreeing(_) => task.asked.is_some(),
            Step::FollowingUp(_) => false,
        })
    }
}

impl Window {
    fn write(&self, asked: Option<&Request>, to: &mut Writer) {
        let Self { next, outstanding, queue, expected, answer, request_fragments: _, answer_fragments: _ } =
            self;
        next.write(to);
        outstanding.as_ref().or(asked).map(Asked::of).write(to);
        queue.iter().filter_map(Delete::of).collect::<Vec<_>>().write(to);
        expected.write(to);
        answer.write(to);
    }

    fn read(now: Instant, from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            next: Field::read(from)?,
            outstanding: <Option<Asked>>::read(from)?.map(|asked| asked.again(now)),
            queue: <Vec<Delete>>::read(from)?.into_iter().map(Delete::again).collect(),
            expected: Field::read(from)?,
            answer: Field::read(from)?,
            ..Self::default()
        })
    }
}

/// What an IKE SA's record holds.
pub(crate) struct Resumed {
    pub(crate) sa: IkeSa,
    timers: Vec<(TimerKind, Instant)>,
}

impl IkeSa {
    /// Whether it is one to be kept: established, or closed and not yet forgotten.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self.state, State::Established(_) | State::Closing(_))
    }

    /// Whether it can be kept at this moment.
    pub(crate) fn is_resumable(&self) -> bool {
        self.established().is_none_or(Established::is_resumable)
    }

    /// Appends one that [`Self::is_kept`], with those of its deadlines that stay.
    pub(crate) fn write(&self, timers: &[(TimerKind, Instant)], to: &mut Writer) {
        let Self {
            spi, peer_spi, role, path, started, initiator_nonce, extensions, window, esp_spis, ..
        } = self;
        (*spi, *peer_spi).write(to);
        (*role, *path).write(to);
        started.write(to);
        initiator_nonce.write(to);
        extensions.write(to);
        window.write(self.established().and_then(|e| e.agenda.asked()), to);
        esp_spis.write(to);
        timers.iter().filter(|(kind, _)| !BEGUN_ANEW.contains(kind)).copied().collect::<Vec<_>>().write(to);
        match &self.state {
            State::Established(established) => {
                true.write(to);
                established.write(to);
            }
            State::Closing(channel) => {
                false.write(to);
                channel.write(to);
            }
            _ => {}
        }
    }

    /// Takes one off the front. Its tunnel is not known yet.
    pub(crate) fn read(now: Instant, from: &mut Reader<'_>) -> Result<Resumed, Damaged> {
        let (spi, peer_spi) = Field::read(from)?;
        let (role, path) = Field::read(from)?;
        let started = Field::read(from)?;
        let initiator_nonce = Field::read(from)?;
        let extensions = Field::read(from)?;
        let window = Window::read(now, from)?;
        let esp_spis = Field::read(from)?;
        let timers = Field::read(from)?;
        let state = match bool::read(from)? {
            true => State::Established(Established::read(now, from)?),
            false => State::Closing(Field::read(from)?),
        };
        let sa = IkeSa {
            spi,
            peer_spi,
            role,
            path,
            tunnel: None,
            started,
            initiator_nonce,
            extensions,
            flow: None,
            window,
            esp_spis,
            first_message: None,
            doomed: false,
            state,
        };
        Ok(Resumed { sa, timers })
    }
}

impl Endpoint {
    /// Takes an IKE SA of a tunnel up again: what it waits for is asked for again, and the peer gets the time to show
    /// that it is alive.
    pub(crate) fn resume(&mut self, now: Instant, tunnel: &Arc<TunnelConfig>, resumed: Resumed) {
        let Resumed { mut sa, timers } = resumed;
        let spi = sa.spi;
        sa.tunnel = Some(tunnel.clone());
        timers.into_iter().for_each(|(kind, at)| self.timers.set(spi, kind, at));
        self.esp_spis.extend(&sa.esp_spis);
        self.of_tunnel.insert(tunnel, spi);
        if let Some(dpd) = tunnel.dpd.filter(|_| sa.established().is_some()) {
            self.timers.set(spi, TimerKind::Liveness, now + dpd.delay);
        }
        self.schedule_children(&sa);
        match sa.window.outstanding {
            Some(_) => self.timers.set(spi, TimerKind::Retransmit, now),
            None => self.next_request(now, &mut sa),
        }
        self.sas.insert(spi, sa);
    }

    /// Tells the peer that an IKE SA, of which nobody knows the tunnel any more, is closed.
    pub(crate) fn dismiss_sa(&mut self, now: Instant, resumed: Resumed) {
        let mut sa = resumed.sa;
        let spi = sa.spi;
        if sa.window.outstanding.is_some() {
            self.timers.set(spi, TimerKind::Retransmit, now);
        }
        self.timers.set(spi, TimerKind::Linger, now + self.config.linger);
        sa.esp_spis.clear();
        let sa = match sa.state {
            State::Established(_) => self.finish_closing(now, sa),
            _ => Some(sa),
        };
        self.sas.extend(sa.map(|sa| (spi, sa)));
    }
}
