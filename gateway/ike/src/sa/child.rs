//! Child SAs: what is offered for one, how a responder narrows it, what comes of it.

use super::ike_sa_init::no_proposal;
use crate::{
    config::{Protocol, TunnelConfig},
    error::Cause,
    event::ChildSa,
    proposal::{ChildSuite, accept_child, in_words, offer_child, other_protocol, select_child},
    selector::{MAX_SELECTORS, TrafficSelector, is_subset, narrow},
    wire::{NotifyType, Payload, Proposal},
};

/// A pair of Child SAs, by its SPIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) protocol: Protocol,
    pub(crate) inbound_spi: u32,
    pub(crate) outbound_spi: u32,
    pub(crate) encapsulated: bool,
}

impl Child {
    pub(super) fn of(child: &ChildSa) -> Self {
        Self {
            protocol: child.protocol,
            inbound_spi: child.inbound.spi,
            outbound_spi: child.outbound.spi,
            encapsulated: child.encapsulation.is_some(),
        }
    }
}

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

/// The initiator's offer.
pub(super) fn offer(tunnel: &TunnelConfig, inbound_spi: u32) -> [Payload; 3] {
    [
        Payload::Sa(offer_child(&tunnel.ipsec, inbound_spi)),
        Payload::TsInitiator(tunnel.local_ts.clone()),
        Payload::TsResponder(tunnel.remote_ts.clone()),
    ]
}

/// The responder's choice and the payloads that say it. `None` where the peer asks for no Child SA.
pub(super) fn respond(
    tunnel: &TunnelConfig,
    payloads: &[Payload],
    inbound_spi: u32,
) -> Option<Result<(Agreement, [Payload; 3]), Cause>> {
    let offer = Offer::of(payloads)?;
    let Some((suite, outbound_spi, chosen)) = select_child(&tunnel.ipsec, offer.proposals, inbound_spi)
    else {
        return Some(Err(mismatch(tunnel, offer.proposals)));
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

/// What the responder's answer comes to for the initiator.
pub(super) fn accept(
    tunnel: &TunnelConfig,
    payloads: &[Payload],
    inbound_spi: u32,
) -> Result<Agreement, Cause> {
    let Some(answer) = Offer::of(payloads) else {
        return Err(refusal(tunnel, payloads));
    };
    let Some((suite, outbound_spi)) = accept_child(&tunnel.ipsec, answer.proposals) else {
        return Err(mismatch(tunnel, answer.proposals));
    };
    let (local_ts, remote_ts) = (answer.initiator.to_vec(), answer.responder.to_vec());
    let within = is_subset(&local_ts, &tunnel.local_ts) && is_subset(&remote_ts, &tunnel.remote_ts);
    if local_ts.is_empty() || remote_ts.is_empty() || !within {
        return Err(selectors(tunnel, Some((local_ts, remote_ts))));
    }
    Ok(Agreement { suite, inbound_spi, outbound_spi, local_ts, remote_ts })
}

/// Why nothing of what the peer offers for a Child SA can be taken.
fn mismatch(tunnel: &TunnelConfig, theirs: &[Proposal]) -> Cause {
    match other_protocol(tunnel.ipsec.protocol, theirs) {
        Some(theirs) => Cause::ProtocolMismatch { ours: tunnel.ipsec.protocol, theirs },
        None => no_proposal(&offer_child(&tunnel.ipsec, 0), theirs),
    }
}

fn refusal(tunnel: &TunnelConfig, payloads: &[Payload]) -> Cause {
    let error = payloads.iter().find_map(|p| match p {
        Payload::Notify(notify) if notify.kind.is_error() => Some(notify.kind),
        _ => None,
    });
    match error {
        Some(NotifyType::TS_UNACCEPTABLE) => selectors(tunnel, None),
        Some(NotifyType::NO_PROPOSAL_CHOSEN) => Cause::NoProposal {
            ours: offer_child(&tunnel.ipsec, 0).iter().map(in_words).collect(),
            theirs: None,
            first_difference: None,
        },
        Some(notify) => Cause::PeerRefused { notify },
        None => Cause::Malformed { what: "SA or traffic selectors are missing" },
    }
}

fn selectors(tunnel: &TunnelConfig, theirs: Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)>) -> Cause {
    Cause::TrafficSelectors {
        our_local: tunnel.local_ts.clone(),
        our_remote: tunnel.remote_ts.clone(),
        theirs,
    }
}
