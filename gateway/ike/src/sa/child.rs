//! Child SAs: what is offered for one, how a responder narrows it, what comes of it, and what is kept of it.

use std::time::{Duration, Instant};

use super::{IkeSa, ike_sa_init::no_proposal};
use crate::{
    algorithm::Group,
    config::TunnelConfig,
    endpoint::Endpoint,
    error::Cause,
    event::{ChildSa, Event},
    proposal::{ChildSuite, accept_child, groups_of, in_words, offer_child, other_protocol, select_child},
    selector::{MAX_SELECTORS, TrafficSelector, is_subset, narrow},
    wire::{NotifyType, Payload, Proposal},
};

/// How long the peer's word is waited for that it has a pair for what an older one is still there for, where none of the
/// two says that it replaces the other: until a peer that missed the answer has asked for it again, and no longer, since
/// one that was restarted without saying so has the new pair alone.
pub(super) const NEWS: Duration = Duration::from_secs(5);

/// A pair of Child SAs that the caller has installed.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) suite: ChildSuite,
    pub(crate) inbound_spi: u32,
    pub(crate) outbound_spi: u32,
    pub(crate) encapsulated: bool,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    /// Whether we began the exchange that made it.
    pub(crate) initiator: bool,
    /// The lower of that exchange's nonces, which settles collisions (RFC 7296 section 2.8.1).
    pub(crate) nonce: Vec<u8>,
    /// The pair that it takes the place of.
    pub(crate) replaces: Option<Replaces>,
    pub(crate) stage: Stage,
    /// When it is to be rekeyed.
    pub(crate) soft: Instant,
    /// When it ends at the latest.
    pub(crate) hard: Instant,
}

/// A pair of Child SAs that another takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replaces {
    pub(crate) inbound_spi: u32,
    /// Whether we are the one who deletes it.
    pub(crate) deleted_by_us: bool,
}

/// Where a pair of Child SAs stands in the course of its rekeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In use both ways.
    Live,
    /// The peer has not yet been seen to have it: what it replaces is sent with, until this time at the latest.
    Awaited(Instant),
    /// Another pair is used in its place. The peer is to delete it, and we do where it has not by this time.
    Redundant(Instant),
    /// We have asked the peer to delete it. Packets on their way may still arrive.
    Deleting,
    /// Deleted on both sides, but for packets that are on their way until this time.
    Draining(Instant),
}

impl Child {
    /// Whether it is there for traffic, or will be.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Awaited(_))
    }

    /// When something is to be done about it next.
    pub(crate) fn due(&self) -> Instant {
        match self.stage {
            Stage::Live => self.soft.min(self.hard),
            Stage::Awaited(at) | Stage::Redundant(at) | Stage::Draining(at) => at.min(self.hard),
            Stage::Deleting => self.hard,
        }
    }

    /// Whether a flow between these selectors goes through it.
    pub(crate) fn covers(&self, flow: &Flow) -> bool {
        covers([&self.local_ts, &self.remote_ts], flow)
    }

    /// Whether every flow between these goes through it.
    pub(super) fn covers_all(&self, [local, remote]: [&[TrafficSelector]; 2]) -> bool {
        is_subset(local, &self.local_ts) && is_subset(remote, &self.remote_ts)
    }

    /// Whether it protects just what was agreed on.
    pub(super) fn is_for(&self, agreement: &Agreement) -> bool {
        self.local_ts == agreement.local_ts && self.remote_ts == agreement.remote_ts
    }

    /// What is offered in a rekey: the selectors that are in use (RFC 7296 section 2.9.2).
    pub(super) fn offer_rekey(&self, tunnel: &TunnelConfig, inbound_spi: u32, pfs: &[Group]) -> [Payload; 3] {
        [
            Payload::Sa(offer_child(&tunnel.ipsec, inbound_spi, pfs)),
            Payload::TsInitiator(self.local_ts.clone()),
            Payload::TsResponder(self.remote_ts.clone()),
        ]
    }
}

/// What a packet has on our side and on the peer's.
pub(crate) type Flow = (TrafficSelector, TrafficSelector);

/// What both sides agreed on for a pair of Child SAs.
#[derive(Debug)]
pub(super) struct Agreement {
    pub(super) suite: ChildSuite,
    pub(super) inbound_spi: u32,
    pub(super) outbound_spi: u32,
    pub(super) local_ts: Vec<TrafficSelector>,
    pub(super) remote_ts: Vec<TrafficSelector>,
}

impl Agreement {
    /// Whether a flow between these selectors is among what was agreed on.
    pub(super) fn covers(&self, flow: &Flow) -> bool {
        covers([&self.local_ts, &self.remote_ts], flow)
    }

    /// Why the agreement does not serve the flow that it was made for.
    pub(super) fn misses(&self, flow: &Flow) -> Cause {
        Cause::TrafficSelectors {
            our_local: vec![flow.0.clone()],
            our_remote: vec![flow.1.clone()],
            theirs: Some((self.local_ts.clone(), self.remote_ts.clone())),
        }
    }

    /// How ill a tunnel fits what the peer asks for: most where the peer gets less than it asked for, less where
    /// only the tunnel protects more.
    pub(super) fn loss(&self, tunnel: &TunnelConfig, payloads: &[Payload]) -> u8 {
        let Some(offer) = Offer::of(payloads) else { return u8::MAX };
        let whole = |local: &[_], remote: &[_]| {
            is_subset(local, &self.local_ts) && is_subset(remote, &self.remote_ts)
        };
        2 * u8::from(!whole(offer.responder, offer.initiator))
            + u8::from(!whole(&tunnel.local_ts, &tunnel.remote_ts))
    }
}

fn covers([local, remote]: [&[TrafficSelector]; 2], flow: &Flow) -> bool {
    is_subset(std::slice::from_ref(&flow.0), local) && is_subset(std::slice::from_ref(&flow.1), remote)
}

/// How a pair of Child SAs was made, apart from what was agreed on.
pub(super) struct Making<'a> {
    /// Whether we began the exchange.
    pub(super) initiator: bool,
    /// Ni and Nr of the exchange.
    pub(super) nonces: [&'a [u8]; 2],
    /// The secret of its own key exchange, empty where it had none.
    pub(super) shared: &'a [u8],
    pub(super) replaces: Option<Replaces>,
    /// For how long a responder goes on with another pair for the same, if there is one, unless the peer is known to have
    /// this one before.
    pub(super) awaited: Option<Duration>,
}

/// The payloads that negotiate a Child SA, as far as a message has them.
struct Offer<'a> {
    proposals: &'a [Proposal],
    initiator: &'a [TrafficSelector],
    responder: &'a [TrafficSelector],
}

impl<'a> Offer<'a> {
    fn of(payloads: &'a [Payload]) -> Option<Self> {
        Some(Self {
            proposals: payloads.iter().find_map(|p| if let Payload::Sa(sa) = p { Some(sa) } else { None })?,
            initiator: payloads
                .iter()
                .find_map(|p| if let Payload::TsInitiator(ts) = p { Some(ts) } else { None })?,
            responder: payloads
                .iter()
                .find_map(|p| if let Payload::TsResponder(ts) = p { Some(ts) } else { None })?,
        })
    }
}

/// Why a tunnel's selectors cannot be said to the peer, if so.
pub(super) fn unsayable(tunnel: &TunnelConfig) -> Option<Cause> {
    let count = tunnel.local_ts.len().max(tunnel.remote_ts.len());
    (count > MAX_SELECTORS).then_some(Cause::TooManySelectors { count })
}

/// The initiator's offer. The selectors of the packet that asks for the SA come first, so that a responder that
/// narrows knows which of the others is meant (RFC 7296 section 2.9).
pub(super) fn offer(
    tunnel: &TunnelConfig,
    flow: Option<&Flow>,
    inbound_spi: u32,
    pfs: &[Group],
) -> [Payload; 3] {
    let flow = flow.filter(|(local, remote)| {
        let within = |own: &TrafficSelector, all: &[TrafficSelector]| all.iter().any(|ts| ts.contains(own));
        within(local, &tunnel.local_ts) && within(remote, &tunnel.remote_ts)
    });
    let with_flow = |own: Option<&TrafficSelector>, all: &[TrafficSelector]| {
        let own = own.filter(|own| all.len() < MAX_SELECTORS && all.first() != Some(own));
        own.into_iter().chain(all).cloned().collect()
    };
    [
        Payload::Sa(offer_child(&tunnel.ipsec, inbound_spi, pfs)),
        Payload::TsInitiator(with_flow(flow.map(|f| &f.0), &tunnel.local_ts)),
        Payload::TsResponder(with_flow(flow.map(|f| &f.1), &tunnel.remote_ts)),
    ]
}

/// The responder's choice and the payloads that say it. `None` where the peer asks for no Child SA; `pfs` as in
/// [`select_child`].
pub(super) fn respond(
    tunnel: &TunnelConfig,
    payloads: &[Payload],
    inbound_spi: u32,
    pfs: Option<&[Group]>,
) -> Option<Result<(Agreement, [Payload; 3]), Cause>> {
    let offer = Offer::of(payloads)?;
    let Some((suite, outbound_spi, chosen)) = select_child(&tunnel.ipsec, offer.proposals, inbound_spi, pfs)
    else {
        return Some(Err(mismatch(tunnel, offer.proposals, pfs)));
    };
    let local_ts = narrow(&tunnel.local_ts, offer.responder);
    let remote_ts = narrow(&tunnel.remote_ts, offer.initiator);
    if local_ts.is_empty() || remote_ts.is_empty() {
        let theirs = Some((offer.responder.to_vec(), offer.initiator.to_vec()));
        return Some(Err(selectors(tunnel, theirs)));
    }
    let count = local_ts.len().max(remote_ts.len());
    if count > MAX_SELECTORS {
        return Some(Err(Cause::TooManySelectors { count }));
    }
    let answer = [
        Payload::Sa(vec![chosen]),
        Payload::TsInitiator(remote_ts.clone()),
        Payload::TsResponder(local_ts.clone()),
    ];
    Some(Ok((Agreement { suite, inbound_spi, outbound_spi, local_ts, remote_ts }, answer)))
}

/// What the responder's answer comes to for the initiator; `pfs` as in [`select_child`].
pub(super) fn accept(
    tunnel: &TunnelConfig,
    payloads: &[Payload],
    inbound_spi: u32,
    pfs: Option<&[Group]>,
) -> Result<Agreement, Cause> {
    let Some(answer) = Offer::of(payloads) else {
        return Err(refusal(tunnel, payloads, pfs));
    };
    let Some((suite, outbound_spi)) = accept_child(&tunnel.ipsec, answer.proposals, pfs) else {
        return Err(mismatch(tunnel, answer.proposals, pfs));
    };
    let (local_ts, remote_ts) = (answer.initiator.to_vec(), answer.responder.to_vec());
    let within = is_subset(&local_ts, &tunnel.local_ts) && is_subset(&remote_ts, &tunnel.remote_ts);
    if local_ts.is_empty() || remote_ts.is_empty() || !within {
        return Err(selectors(tunnel, Some((local_ts, remote_ts))));
    }
    Ok(Agreement { suite, inbound_spi, outbound_spi, local_ts, remote_ts })
}

/// Why nothing of what the peer offers for a Child SA can be taken.
fn mismatch(tunnel: &TunnelConfig, theirs: &[Proposal], pfs: Option<&[Group]>) -> Cause {
    if let Some(theirs) = other_protocol(tunnel.ipsec.protocol, theirs) {
        return Cause::ProtocolMismatch { ours: tunnel.ipsec.protocol, theirs };
    }
    match pfs {
        Some(pfs) if select_child(&tunnel.ipsec, theirs, 0, None).is_some() => {
            Cause::PfsMismatch { ours: pfs.to_vec(), theirs: Some(groups_of(theirs)) }
        }
        _ => no_proposal(&offer_child(&tunnel.ipsec, 0, pfs.unwrap_or_default()), theirs),
    }
}

fn refusal(tunnel: &TunnelConfig, payloads: &[Payload], pfs: Option<&[Group]>) -> Cause {
    let error = payloads.iter().find_map(|p| match p {
        Payload::Notify(notify) if notify.kind.is_error() => Some(notify.kind),
        _ => None,
    });
    match (error, pfs) {
        (Some(NotifyType::TS_UNACCEPTABLE), _) => selectors(tunnel, None),
        // The first Child SA of this IKE SA was negotiated without a group, and else with the same proposal.
        (Some(NotifyType::NO_PROPOSAL_CHOSEN), Some(pfs)) => {
            Cause::PfsMismatch { ours: pfs.to_vec(), theirs: None }
        }
        (Some(NotifyType::NO_PROPOSAL_CHOSEN), None) => Cause::NoChildChosen {
            protocol: tunnel.ipsec.protocol,
            ours: offer_child(&tunnel.ipsec, 0, &[]).iter().map(in_words).collect(),
        },
        (Some(notify), _) => Cause::PeerRefused { notify },
        (None, _) => Cause::Malformed { what: "SA or traffic selectors are missing" },
    }
}

fn selectors(tunnel: &TunnelConfig, theirs: Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)>) -> Cause {
    Cause::TrafficSelectors {
        our_local: tunnel.local_ts.clone(),
        our_remote: tunnel.remote_ts.clone(),
        theirs,
    }
}

impl Endpoint {
    /// Has the caller install the pair that was agreed on, and begins its lifetimes.
    ///
    /// Who began the exchange sends with it from now on. A responder whose pair takes the place of another, in a rekey or
    /// by reauthentication, goes on with that until the peer is known to have the new one (RFC 7296 section 2.8).
    pub(super) fn install(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        agreement: Agreement,
        making: &Making<'_>,
    ) {
        let permille = 850 + self.rng.next_u32() % 50 + if making.initiator { 0 } else { 70 };
        let nat_t_port = self.config.nat_t_port;
        let path = sa.path;
        let Some(tunnel) = sa.tunnel.clone() else { return };
        let Some(established) = sa.established_mut() else { return };
        let [ni, nr] = making.nonces;
        let [from_initiator, from_responder] =
            established.keys.child(&agreement.suite, making.shared, ni, nr);
        let (inbound, outbound) = if making.initiator {
            (from_responder, from_initiator)
        } else {
            (from_initiator, from_responder)
        };
        let awaited = making.awaited.filter(|_| !making.initiator);
        let switch_outbound = awaited.is_none();
        let lifetime = tunnel.ipsec.lifetime;
        // Without a NAT a peer may use the NAT traversal port and yet take no ESP in UDP.
        let encapsulated = established.nat.any() && path.local.port() == nat_t_port;
        established.children.push(Child {
            suite: agreement.suite,
            inbound_spi: agreement.inbound_spi,
            outbound_spi: agreement.outbound_spi,
            encapsulated,
            local_ts: agreement.local_ts.clone(),
            remote_ts: agreement.remote_ts.clone(),
            initiator: making.initiator,
            nonce: ni.min(nr).to_vec(),
            replaces: making.replaces,
            stage: awaited.map_or(Stage::Live, |patience| Stage::Awaited(now + patience)),
            soft: now + lifetime * permille / 1000,
            hard: now + lifetime,
        });
        let child = ChildSa {
            inbound: inbound.with_spi(agreement.inbound_spi),
            outbound: outbound.with_spi(agreement.outbound_spi),
            switch_outbound,
            replaces: making.replaces.map(|replaces| replaces.inbound_spi),
            protocol: agreement.suite.protocol,
            encryption: agreement.suite.encryption,
            integrity: agreement.suite.integrity,
            pfs: agreement.suite.group,
            esn: agreement.suite.esn,
            local_ts: agreement.local_ts,
            remote_ts: agreement.remote_ts,
            local: path.local.ip(),
            peer: path.remote.ip(),
            encapsulation: encapsulated.then(|| (path.local.port(), path.remote.port())),
            lifetime,
            lifetime_bytes: None,
            initiator: making.initiator,
        };
        self.events.push_back(Event::ChildUp { tunnel: tunnel.id, child: Box::new(child) });
        self.schedule_children(sa);
    }
}
