//! IKE SAs: their states, and one file for each exchange that moves them from state to state.
//!
//! ```text
//! initiator   Opening ──IKE_SA_INIT──▶ AuthSent ──IKE_AUTH──▶ Established ──DELETE──▶ Closing
//! responder   Answering ──key exchange──▶ HalfOpen ──IKE_AUTH──▶ Established ──DELETE──▶ Closing
//!
//! with an additional key exchange
//! initiator   Opening ──IKE_SA_INIT──▶ Intermediate ──IKE_INTERMEDIATE──▶ AuthSent
//! responder   HalfOpen ──IKE_INTERMEDIATE──▶ HalfOpen
//! ```

mod child;
mod child_life;
mod collision;
mod cookie;
mod create_child_sa;
mod create_child_sa_response;
mod extensions;
mod fragment;
mod handshake;
#[cfg(test)]
mod hostile_tests;
mod ike_auth;
mod ike_followup_ke;
mod ike_intermediate;
mod ike_sa_init;
mod ike_sa_init_response;
mod informational;
mod kept;
mod lifetime;
mod mobike;
mod nat;
mod ppk;
mod rekey_ike;
#[cfg(test)]
mod rekey_tests;
mod report;
#[cfg(test)]
pub(crate) mod tests;
mod window;

use std::{sync::Arc, time::Instant};

pub(crate) use child::{Child, Flow, Stage};
pub(crate) use cookie::Cookies;
pub(crate) use create_child_sa::{Agenda, Goal};
pub(crate) use extensions::Extensions;
pub(crate) use fragment::{Opened, Reassembly};
pub(crate) use handshake::Handshake;
pub(crate) use ike_followup_ke::Pending;
pub(crate) use kept::Resumed;
pub(crate) use report::Reports;
pub(crate) use window::{Purpose, Queued, Request, Turn, Window};

use crate::{
    TunnelId,
    config::TunnelConfig,
    crypto::{cipher::MessageKey, keys::SaKeys},
    event::{Nat, Path},
    proposal::IkeSuite,
    wire::Header,
};

/// One IKE SA from its first message on.
#[derive(Debug)]
pub(crate) struct IkeSa {
    /// Our SPI, by which the endpoint knows the SA.
    pub(crate) spi: u64,
    /// The peer's SPI; zero until it is known.
    pub(crate) peer_spi: u64,
    pub(crate) role: Role,
    /// Where our requests go.
    pub(crate) path: Path,
    /// Known from the start to an initiator, from IKE_AUTH on to a responder.
    pub(crate) tunnel: Option<Arc<TunnelConfig>>,
    /// When the first message was sent or came.
    pub(crate) started: Instant,
    /// Ni, which settles simultaneous initiations; inherited in a rekey.
    pub(crate) initiator_nonce: Vec<u8>,
    /// What both sides can do beyond RFC 7296; an IKE SA that takes the place of this one inherits it.
    pub(crate) extensions: Extensions,
    /// The flow that asked for the tunnel (initiator).
    pub(crate) flow: Option<Flow>,
    pub(crate) window: Window,
    /// SPIs of ESP that were drawn for this SA's Child SAs.
    pub(crate) esp_spis: Vec<u32>,
    /// Digest of the peer's first message (responder).
    pub(crate) first_message: Option<[u8; 32]>,
    /// To be closed as soon as it is established: it could not be called back any more when it should have
    /// been.
    pub(crate) doomed: bool,
    pub(crate) state: State,
}

/// Which side of the IKE SA we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// Where an IKE SA stands.
#[derive(Debug)]
pub(crate) enum State {
    Opening(Box<ike_sa_init::Opening>),
    Intermediate(Box<ike_intermediate::Intermediate>),
    AuthSent(Box<ike_auth::AuthSent>),
    Answering(Box<ike_sa_init_response::Answering>),
    HalfOpen(Box<Handshake>),
    Established(Box<Established>),
    /// Only answers what still comes, and waits for the answer to a DELETE.
    Closing(Channel),
}

/// The keys of an IKE SA's messages.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) outgoing: MessageKey,
    pub(crate) incoming: MessageKey,
}

impl Channel {
    /// Of the initiator of an IKE SA, or of its responder.
    fn new(initiator: bool, from_initiator: MessageKey, from_responder: MessageKey) -> Self {
        match initiator {
            true => Self { outgoing: from_initiator, incoming: from_responder },
            false => Self { outgoing: from_responder, incoming: from_initiator },
        }
    }
}

/// An IKE SA in use.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) channel: Channel,
    /// SK_d and its like, from which the keys of later Child SAs come.
    pub(crate) keys: SaKeys,
    pub(crate) suite: IkeSuite,
    pub(crate) nat: Nat,
    pub(crate) since: Instant,
    /// The last authenticated sign of life.
    pub(crate) heard: Instant,
    /// When the peer was asked for a sign of life that has not come yet.
    pub(crate) probed: Option<Instant>,
    pub(crate) standing: Standing,
    /// What it is a rekey of, at first and last.
    line: Option<Line>,
    rekeyed: Option<rekey_ike::Rekeyed>,
    /// The pairs of Child SAs that the caller has installed.
    pub(crate) children: Vec<Child>,
    /// The others that the peer has been asked to delete.
    deleting: Vec<child_life::Deleting>,
    pub(crate) agenda: Agenda,
    /// The peer's CREATE_CHILD_SA that waits for its key exchange.
    pub(crate) answering: Option<Box<create_child_sa_response::Answering>>,
    /// A rekey of this IKE SA by the peer that waits for its additional key exchange.
    pub(crate) pending: Option<Box<ike_followup_ke::Pending>>,
    /// The peer has answered NO_ADDITIONAL_SAS, as those do that know no CREATE_CHILD_SA (RFC 7296 section 1.3).
    refuses_rekeys: bool,
    /// Whether it was settled what becomes of the tunnel's other IKE SAs: whenever it comes to have a Child SA.
    settled: bool,
}

/// Where an established IKE SA stands among those of its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    InUse,
    /// Another was established from scratch in its place; it is closed, or falls back into use, when time is up.
    Superseded,
    /// Rekeyed: its Child SAs have moved.
    Rekeyed,
    /// Closed by us as soon as the rekey under way is answered, so that what the peer makes by it can be closed too.
    Closing,
}

/// The IKE SA that a line of rekeys began with: what counts between IKE SAs that were authenticated each by itself.
#[derive(Clone, Copy, Debug)]
struct Line {
    role: Role,
    started: Instant,
    since: Instant,
}

impl Established {
    /// An IKE SA that is just established, without Child SAs.
    fn new(now: Instant, channel: Channel, keys: SaKeys, suite: IkeSuite, nat: Nat) -> Box<Self> {
        Box::new(Self {
            channel,
            keys,
            suite,
            nat,
            since: now,
            heard: now,
            probed: None,
            standing: Standing::InUse,
            line: None,
            rekeyed: None,
            children: Vec::new(),
            deleting: Vec::new(),
            agenda: Agenda::default(),
            answering: None,
            pending: None,
            refuses_rekeys: false,
            settled: false,
        })
    }

    /// The pair of Child SAs with this inbound SPI.
    fn child(&self, inbound_spi: u32) -> Option<&Child> {
        self.children.iter().find(|child| child.inbound_spi == inbound_spi)
    }

    fn child_mut(&mut self, inbound_spi: u32) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.inbound_spi == inbound_spi)
    }

    /// The pair that takes the place of the one with this inbound SPI.
    fn successor(&self, inbound_spi: u32) -> Option<&Child> {
        let mut usable = self.children.iter().filter(|child| child.is_usable());
        usable.find(|child| child.replaces.is_some_and(|old| old.inbound_spi == inbound_spi))
    }

    /// Whether any pair is there for traffic.
    pub(crate) fn is_usable(&self) -> bool {
        self.children.iter().any(Child::is_usable)
    }

    /// Whether there is still something to do for a goal, and this is the IKE SA to do it with.
    fn is_attainable(&self, goal: &Goal) -> bool {
        let usable = || self.children.iter().filter(|child| child.is_usable());
        self.standing == Standing::InUse
            && match goal {
                Goal::Create(None) => !self.is_usable(),
                Goal::Create(Some(flow)) => !usable().any(|child| child.covers(flow)),
                Goal::RekeyChild(old) => {
                    self.child(*old).is_some_and(|child| child.stage == Stage::Live)
                        && self.successor(*old).is_none()
                }
                Goal::RekeyIke => true,
            }
    }
}

impl IkeSa {
    pub(crate) fn tunnel_id(&self) -> Option<TunnelId> {
        self.tunnel.as_ref().map(|t| t.id)
    }

    pub(crate) fn initiator_spi(&self) -> u64 {
        if self.role == Role::Initiator { self.spi } else { self.peer_spi }
    }

    pub(crate) fn responder_spi(&self) -> u64 {
        if self.role == Role::Initiator { self.peer_spi } else { self.spi }
    }

    pub(crate) fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Established(established) => Some(established),
            _ => None,
        }
    }

    pub(crate) fn established_mut(&mut self) -> Option<&mut Established> {
        match &mut self.state {
            State::Established(established) => Some(established),
            _ => None,
        }
    }

    /// Whether it is an attempt of ours that is under way.
    pub(crate) fn is_attempt(&self) -> bool {
        matches!(self.state, State::Opening(_) | State::Intermediate(_) | State::AuthSent(_))
    }

    /// Whether it still counts as half-open for a responder under load.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.state, State::Answering(_) | State::HalfOpen(_))
    }

    fn line(&self) -> Option<Line> {
        let established = self.established()?;
        Some(established.line.unwrap_or(Line {
            role: self.role,
            started: self.started,
            since: established.since,
        }))
    }

    /// Which side of the first IKE SA of a line of rekeys we were.
    pub(crate) fn began(&self) -> Role {
        self.line().map_or(self.role, |line| line.role)
    }

    /// Whether another request than that under way must wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.window.outstanding.is_some() || self.established().is_some_and(|e| e.agenda.holds_window())
    }

    /// Whether it is only there until our rekey of it is answered.
    fn is_closing(&self) -> bool {
        self.established().is_some_and(|e| e.standing == Standing::Closing)
    }

    /// Whether it carries traffic.
    pub(crate) fn is_usable(&self) -> bool {
        self.established().is_some_and(Established::is_usable)
    }

    /// The key of a message of the peer's, once there is one.
    pub(crate) fn incoming_key(&self, header: &Header) -> Option<&MessageKey> {
        let repeated = !header.response && self.window.turn(header.message_id) == Turn::Repeated;
        let channel = match &self.state {
            State::Opening(_) | State::Answering(_) => return None,
            State::Intermediate(intermediate) => &intermediate.handshake.channel,
            State::AuthSent(auth) => &auth.handshake.channel,
            State::HalfOpen(handshake) => match &handshake.last_incoming {
                Some(last) if repeated => return Some(last),
                _ => &handshake.channel,
            },
            State::Established(established) => &established.channel,
            State::Closing(channel) => channel,
        };
        Some(&channel.incoming)
    }

    /// The keys of its messages, once there are some.
    pub(crate) fn channel(&mut self) -> Option<&mut Channel> {
        match &mut self.state {
            State::Opening(_) | State::Answering(_) => None,
            State::Intermediate(intermediate) => Some(&mut intermediate.handshake.channel),
            State::AuthSent(auth) => Some(&mut auth.handshake.channel),
            State::HalfOpen(half_open) => Some(&mut half_open.channel),
            State::Established(established) => Some(&mut established.channel),
            State::Closing(channel) => Some(channel),
        }
    }
}
