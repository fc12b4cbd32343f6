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
mod collision;
mod cookie;
mod create_child_sa;
mod extensions;
mod fragment;
mod handshake;
mod ike_auth;
mod ike_intermediate;
mod ike_sa_init;
mod informational;
mod lifetime;
mod mobike;
mod nat;
mod ppk;
mod report;
#[cfg(test)]
mod tests;
mod window;

use std::{sync::Arc, time::Instant};

pub(crate) use child::Child;
pub(crate) use cookie::Cookies;
pub(crate) use extensions::Extensions;
pub(crate) use fragment::{Opened, Reassembly};
pub(crate) use handshake::Handshake;
pub(crate) use report::Reports;
pub(crate) use window::{Purpose, Queued, Request, Turn, Window};

use crate::{
    TunnelId,
    config::TunnelConfig,
    crypto::{cipher::MessageKey, keys::SaKeys},
    event::{Nat, Path},
    proposal::IkeSuite,
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
    /// Ni, which settles simultaneous initiations.
    pub(crate) initiator_nonce: Vec<u8>,
    /// What both sides can do beyond RFC 7296; an IKE SA that takes the place of this one inherits it.
    pub(crate) extensions: Extensions,
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
    Answering(Box<ike_sa_init::Answering>),
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
    pub(crate) children: Vec<Child>,
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
            children: Vec::new(),
        })
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

    /// Whether it carries traffic.
    pub(crate) fn is_usable(&self) -> bool {
        self.established().is_some_and(|e| !e.children.is_empty())
    }

    /// The keys of its messages, once there are some.
    pub(crate) fn channel(&mut self) -> Option<&mut Channel> {
        match &mut self.state {
            State::Opening(_) | State::Answering(_) => None,
            State::Intermediate(intermediate) => Some(intermediate.channel()),
            State::AuthSent(auth) => Some(auth.channel()),
            State::HalfOpen(half_open) => Some(&mut half_open.channel),
            State::Established(established) => Some(&mut established.channel),
            State::Closing(channel) => Some(channel),
        }
    }
}
