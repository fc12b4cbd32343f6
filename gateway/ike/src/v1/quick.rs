//! Quick mode (RFC 2409 section 5.5): one for each pair of subnets, as initiator and as responder.
//!
//! A responder installs its Child SAs before it answers, and sends with them from the third message on, or from when
//! packets of the peer's come in. Nobody answers the third message: an initiator that rekeys sends with the old ones until
//! packets come in with the new, or long enough for the peer to have asked for that message again.

mod initiator;
mod responder;

use std::time::Instant;

use super::{
    Established, Sa,
    id::Identification,
    keys::{QuickExchanged, same_hash},
    proposal::{
        Encapsulation, Lifetime, PhaseTwoSuite, first_difference, in_words, offer_phase_two, other_protocol,
        select_phase_two,
    },
    wire::{Chain, Header, NatTraversal, NotifyType, Payload, SecurityAssociation, payload},
};
use crate::{
    TunnelId,
    config::{IpsecPolicy, TunnelConfig},
    crypto::dh::{InvalidPublic, Secret, Shared},
    endpoint::Endpoint,
    error::Cause,
    selector::TrafficSelector,
    wire::ExchangeType,
};

const QUICK: ExchangeType = ExchangeType::QuickMode;
/// Quick modes of ours that an SA has under way at a time. strongSwan loses one of four that overlap.
const AT_ONCE: usize = 1;
/// Quick modes of the peer's that an SA has under way at a time.
const PEERS_AT_ONCE: usize = 128;
/// Pairs for the same subnets, those included that another has taken the place of. More than a peer needs that rekeys,
/// and few enough to hold.
const PAIRS_ALIKE: usize = 16;

/// A pair of Child SAs to be negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// Whose pair it is: the ISAKMP SA's tunnel, or a sibling of it.
    pub(super) tunnel: TunnelId,
    pub(super) local: TrafficSelector,
    pub(super) remote: TrafficSelector,
    /// The pair it is to take the place of, by its inbound SPI.
    pub(super) replaces: Option<u32>,
}

impl Want {
    pub(super) fn is_of(&self, tunnel: TunnelId, local: &TrafficSelector, remote: &TrafficSelector) -> bool {
        (self.tunnel, &self.local, &self.remote) == (tunnel, local, remote)
    }
}

/// Where a quick mode stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Our public value is being computed, for QM1.
    Generating,
    /// QM1 is sent.
    OfferSent,
    /// The shared secret is being computed, for QM3.
    Agreeing,
    /// The key exchange is being computed, for QM2.
    Responding,
    /// QM2 is sent.
    Answered,
    /// QM3 is sent.
    Done,
}

/// A quick mode.
#[derive(Debug)]
pub(super) struct Quick {
    pub(super) step: Step,
    pub(super) want: Want,
    pub(super) inbound_spi: u32,
    pub(super) outbound_spi: u32,
    pub(super) suite: Option<PhaseTwoSuite>,
    /// The shorter of both sides'.
    pub(super) lifetime: Lifetime,
    pub(super) nonce: Vec<u8>,
    pub(super) peer_nonce: Vec<u8>,
    pub(super) began: Instant,
    secret: Option<Secret>,
    public: Option<Vec<u8>>,
    /// The responder's choice, until it is sent.
    answer: SecurityAssociation,
    /// IDci and IDcr, as they go back.
    ids: Vec<Payload>,
}

impl Quick {
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.step, Step::Generating | Step::OfferSent | Step::Agreeing | Step::Done)
    }

    /// Whether packets with this SPI say that the peer has the pair.
    pub(super) fn awaits_traffic(&self, inbound_spi: u32) -> bool {
        self.step == Step::Answered && self.inbound_spi == inbound_spi
    }

    pub(super) fn new(now: Instant, step: Step, want: Want, inbound_spi: u32, nonce: Vec<u8>) -> Self {
        Self {
            step,
            want,
            inbound_spi,
            outbound_spi: 0,
            suite: None,
            lifetime: Lifetime::default(),
            nonce,
            peer_nonce: Vec::new(),
            began: now,
            secret: None,
            public: None,
            answer: SecurityAssociation::default(),
            ids: Vec::new(),
        }
    }
}

impl Established {
    fn quick_mut(&mut self, id: u32) -> Option<&mut Quick> {
        self.exchanges.get_mut(&id)?.quick.as_deref_mut()
    }

    pub(super) fn quicks(&self) -> impl Iterator<Item = (u32, &Quick)> {
        self.exchanges.iter().filter_map(|(id, exchange)| Some((*id, exchange.quick.as_deref()?)))
    }

    /// Whether a quick mode is under way, or to come.
    pub(super) fn is_negotiating(&self) -> bool {
        !self.wants.is_empty() || self.quicks().any(|(_, quick)| quick.step != Step::Done)
    }
}

/// A message of phase 2 with its hash in front.
fn seal(
    established: &mut Established,
    cookies: (u64, u64),
    id: u32,
    rest: Vec<Payload>,
    hash: &Hash<'_>,
) -> Vec<u8> {
    let mut octets = Vec::new();
    payload::encode_chain(&rest, &mut octets);
    let hash = match hash {
        Hash::One => established.keys.hash_1(id, &octets),
        Hash::Two(nonce) => established.keys.hash_2(id, nonce, &octets),
        Hash::Three(exchanged) => established.keys.hash_3(id, exchanged),
    };
    let payloads: Vec<_> = [Payload::Hash(hash)].into_iter().chain(rest).collect();
    established.cipher.seal(Header::new(cookies.0, cookies.1, QUICK, id), &payloads)
}

enum Hash<'a> {
    One,
    Two(&'a [u8]),
    Three(QuickExchanged<'a>),
}

/// How packets are to go, as the path of the SA says.
fn encapsulations(sa: &Sa, established: &Established, nat_t_port: u16) -> Vec<Encapsulation> {
    let way = sa.peer.nat_traversal.unwrap_or(NatTraversal::Rfc3947);
    if established.nat.any() && sa.path.local.port() == nat_t_port {
        let other = match way {
            NatTraversal::Rfc3947 => NatTraversal::Draft,
            NatTraversal::Draft => NatTraversal::Rfc3947,
        };
        return vec![Encapsulation::UdpTunnel(way), Encapsulation::UdpTunnel(other)];
    }
    vec![Encapsulation::Tunnel]
}

impl Endpoint {
    /// A decrypted message of quick mode. Its hash tells whether it is the peer's.
    pub(super) fn quick_message(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        opened: &super::cipher::Opened,
        chain: &Chain<'_>,
    ) -> bool {
        let Some(Payload::Hash(came)) = chain.payloads.first() else { return false };
        let Some(established) = sa.established_mut() else { return false };
        let rest = chain.after_first();
        let (expected, step) = match established.exchanges.get(&id).and_then(|e| e.quick.as_deref()) {
            None if established.exchanges.contains_key(&id) => return false,
            None => (established.keys.hash_1(id, rest), None),
            Some(quick) => match quick.step {
                Step::OfferSent => (established.keys.hash_2(id, &quick.nonce, rest), Some(quick.step)),
                Step::Answered => {
                    let exchanged = QuickExchanged {
                        initiator_nonce: &quick.peer_nonce,
                        responder_nonce: &quick.nonce,
                        shared: None,
                    };
                    (established.keys.hash_3(id, &exchanged), Some(quick.step))
                }
                Step::Done => {
                    // The message that the commit bit promises (RFC 2408 section 3.1): the peer has the pair.
                    // Its hash is of either form with the peers in the field.
                    let connected = chain
                        .payloads
                        .iter()
                        .any(|p| matches!(p, Payload::Notify(n) if n.kind == NotifyType::CONNECTED));
                    let keys = &established.keys;
                    let forms = [keys.hash_2(id, &quick.nonce, rest), keys.hash_1(id, rest)];
                    let authentic = connected && forms.iter().any(|form| same_hash(form, came));
                    if authentic {
                        let (tunnel, inbound_spi) = (quick.want.tunnel, quick.inbound_spi);
                        established.cipher.accept(opened);
                        self.confirm_child(now, tunnel, inbound_spi);
                    }
                    return authentic;
                }
                _ => return false,
            },
        };
        if !same_hash(&expected, came) {
            return false;
        }
        established.cipher.accept(opened);
        match step {
            None => self.quick_offer(now, sa, id, &chain.payloads),
            Some(Step::OfferSent) => self.quick_answer(now, sa, id, &chain.payloads),
            Some(_) => self.quick_confirmed(now, sa, id),
        }
        true
    }

    /// A key exchange of a quick mode is computed.
    pub(super) fn quick_generated(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        secret: Secret,
        public: Vec<u8>,
    ) {
        let Some(quick) = sa.established_mut().and_then(|e| e.quick_mut(id)) else { return };
        let Some(tunnel) = self.tunnels.get(&quick.want.tunnel).cloned() else { return };
        (quick.secret, quick.public) = (Some(secret), Some(public));
        self.send_quick_offer(now, sa, id, &tunnel);
    }

    pub(super) fn quick_agreed(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        shared: Result<Shared, InvalidPublic>,
    ) {
        let group =
            sa.established_mut().and_then(|e| e.quick_mut(id)).and_then(|q| q.suite).and_then(|s| s.group);
        match (shared, group) {
            (Ok(shared), Some(_)) => self.quick_done(now, sa, id, Some(&shared)),
            (Err(_), Some(group)) => self.quick_failed(now, sa, id, Cause::InvalidPublicValue { group }),
            (_, None) => {}
        }
    }

    pub(super) fn quick_responded(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        result: Result<(Vec<u8>, Shared), InvalidPublic>,
    ) {
        let Some(quick) = sa.established_mut().and_then(|e| e.quick_mut(id)) else { return };
        match result {
            Ok((public, shared)) => {
                quick.public = Some(public);
                self.send_quick_answer(now, sa, id, Some(&shared));
            }
            Err(InvalidPublic) => {
                self.counters.malformed += 1;
                if let Some(quick) = self.drop_quick(sa, id) {
                    self.esp_spis.remove(&quick.inbound_spi);
                }
            }
        }
    }
}

/// Every pair of subnets of one family.
fn pairs(tunnel: &TunnelConfig) -> impl Iterator<Item = (TrafficSelector, TrafficSelector)> {
    tunnel.local_ts.iter().flat_map(|local| {
        let same = tunnel.remote_ts.iter().filter(|remote| remote.start.is_ipv4() == local.start.is_ipv4());
        same.map(|remote| (local.clone(), remote.clone()))
    })
}

fn ids_of(payloads: &[Payload]) -> Vec<&Identification> {
    payloads.iter().filter_map(|p| if let Payload::Id(id) = p { Some(id) } else { None }).take(2).collect()
}

fn selectors(tunnel: &TunnelConfig, theirs: Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)>) -> Cause {
    Cause::TrafficSelectors {
        our_local: tunnel.local_ts.clone(),
        our_remote: tunnel.remote_ts.clone(),
        theirs,
    }
}

/// Why nothing of what the peer offers for a Child SA can be taken.
fn mismatch(policy: &IpsecPolicy, theirs: &SecurityAssociation, encapsulation: Encapsulation) -> Cause {
    if let Some(theirs) = other_protocol(policy.protocol, theirs) {
        return Cause::ProtocolMismatch { ours: policy.protocol, theirs };
    }
    let groups = super::proposal::pfs_groups(theirs);
    let theirs_pfs: Vec<_> = groups.iter().filter_map(|number| crate::Group::from_number(*number)).collect();
    let as_theirs = IpsecPolicy { pfs: theirs_pfs, ..policy.clone() };
    if select_phase_two(&as_theirs, theirs, 256, &[encapsulation]).is_some() {
        return Cause::PfsMismatch { ours: policy.pfs.clone(), theirs: Some(groups) };
    }
    match offer_phase_two(policy, 256, encapsulation) {
        Ok(ours) => Cause::NoProposal {
            ours: in_words(&ours),
            theirs: Some(in_words(theirs)),
            first_difference: first_difference(&ours, theirs),
        },
        Err(cause) => cause,
    }
}

#[cfg(test)]
pub(super) mod tests;
