//! Why negotiations fail, sorted by who is to blame, and the one place that turns a failure into a notify.
//! The words for people are in `words`.

use std::{net::IpAddr, time::Duration};

use crate::{
    algorithm::Group,
    config::{Id, Mode, Protocol, Version},
    event::{Path, Phase},
    selector::TrafficSelector,
    v1::wire::NotifyType as Ikev1NotifyType,
    wire::{Notify, NotifyType, WireError},
};

/// Why a negotiation failed. Its `Display` is an answer for people, with both sides' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No answer, or none of use, to any sending of a request.
    NoAnswer {
        /// From where to where it was sent.
        path: Path,
        /// How often.
        attempts: u32,
        /// For how long.
        waited: Duration,
        /// Whether the peer answered anything at all to this attempt.
        heard: bool,
    },
    /// An initiator was answered and did not go on to IKE_AUTH (responder).
    NotContinued {
        /// From where to where it was answered.
        path: Path,
        /// For how long the next message was waited for.
        waited: Duration,
    },
    /// The peer allows no NAT on the way, and there is one (RFC 4555 section 3.9).
    NatRefused {
        /// From where to where its message came, as seen from here.
        path: Path,
    },
    /// No proposal in common.
    NoProposal {
        /// What we offer.
        ours: Vec<String>,
        /// What the peer offers; `None` where it refused ours without saying.
        theirs: Option<Vec<String>>,
        /// Where they first differ.
        first_difference: Option<String>,
    },
    /// The peer refused IKE_SA_INIT with NO_PROPOSAL_CHOSEN, which it also does where it has no tunnel to our address,
    /// or one of another version of IKE.
    NothingChosen {
        /// What we offer.
        ours: Vec<String>,
    },
    /// The peer refused the first Child SA with NO_PROPOSAL_CHOSEN, which does not say what it would take, not even
    /// whether that is ESP or AH.
    NoChildChosen {
        /// What protects packets here.
        protocol: Protocol,
        /// What we offer.
        ours: Vec<String>,
    },
    /// The peer of an IKEv1 tunnel refused our first message with NO-PROPOSAL-CHOSEN, which it also does where it has no
    /// tunnel to our address, or one of another mode or version.
    NothingChosenV1 {
        /// The mode we began.
        mode: Mode,
        /// What we offer.
        ours: Vec<String>,
    },
    /// The peer refused a quick mode with NO-PROPOSAL-CHOSEN, which does not say what it would take.
    NoPairChosen {
        /// What protects packets here.
        protocol: Protocol,
        /// What we offer.
        ours: Vec<String>,
        /// The group of perfect forward secrecy in our offer.
        pfs: Option<Group>,
    },
    /// The peer refused the pair of subnets of a quick mode with INVALID-ID-INFORMATION.
    PairRefused {
        /// Our side.
        local: TrafficSelector,
        /// The peer's side.
        remote: TrafficSelector,
    },
    /// Several tunnels have these addresses, and the IKE SA was given algorithms of another one than the peer then
    /// turned out to want (responder). The next attempt is given those of the right one.
    NotOurAlgorithms {
        /// What the tunnel that is wanted offers.
        ours: Vec<String>,
        /// What the IKE SA has.
        chosen: String,
    },
    /// One side protects packets with ESP, the other with AH.
    ProtocolMismatch {
        /// What we are configured for.
        ours: Protocol,
        /// The only one the peer offers.
        theirs: Protocol,
    },
    /// The algorithms fit, but not the groups of the Child SA's own key exchange (perfect forward secrecy).
    PfsMismatch {
        /// Ours; none for no exchange.
        ours: Vec<Group>,
        /// The numbers of the peer's, none for no exchange; `None` where it refused ours without saying.
        theirs: Option<Vec<u16>>,
    },
    /// The peer speaks another version of IKE than the tunnel is configured for.
    VersionMismatch {
        /// The version that is configured.
        ours: Version,
        /// The version that came, or that the peer says it has.
        theirs: Version,
    },
    /// The peer begins phase 1 of IKEv1 in another mode than the tunnel is configured for.
    ModeMismatch {
        /// The mode that is configured.
        ours: Mode,
        /// The mode that came.
        theirs: Mode,
    },
    /// The peer refused the mode in which we began phase 1 of IKEv1.
    ModeRefused {
        /// The mode that is configured.
        ours: Mode,
    },
    /// A peer whose address is not known beforehand begins main mode, which needs the key before the peer has said who
    /// it is, and the tunnels that take a peer from anywhere have keys of their own (responder).
    UnknownAddress {
        /// The peer's address.
        remote: IpAddr,
        /// How many tunnels take a peer from anywhere.
        tunnels: usize,
    },
    /// What the peer encrypts after a good key exchange of main mode does not decrypt: most likely the pre-shared keys
    /// differ, from which the keys of IKEv1 come.
    NotDecrypted {
        /// Our identity.
        local_id: Id,
        /// The peer's, as configured.
        peer_id: Id,
    },
    /// Main mode went as far as our identity, which was not answered.
    IdentityUnanswered {
        /// The peer's UDP port that it was sent to.
        port: u16,
        /// Whether the peer sent something that it encrypted with other keys.
        garbled: bool,
        /// Our identity.
        local_id: Id,
        /// The peer's, as configured.
        peer_id: Id,
    },
    /// The peer of an IKEv1 tunnel refused us before it could tell who we are, without a proof that it was the peer. It also
    /// does so where it has a tunnel of another mode.
    RefusedV1 {
        /// The mode in which phase 1 goes.
        mode: Mode,
        /// Our identity.
        local_id: Id,
        /// The peer's, as configured.
        peer_id: Id,
    },
    /// The peer of an IKEv1 tunnel answered with an error of another kind.
    PeerRefusedV1 {
        /// Which.
        notify: Ikev1NotifyType,
    },
    /// The peer asks for XAUTH or Mode Config, as remote-access servers do.
    Xauth,
    /// The peer insists on a group that we do not have.
    InvalidGroup {
        /// The groups we offer.
        ours: Vec<Group>,
        /// The number of the one it wants.
        theirs: u16,
    },
    /// The peer's public value is not a valid one of the group.
    InvalidPublicValue {
        /// The group.
        group: Group,
    },
    /// The key exchange was good, yet AUTH did not verify: the pre-shared keys differ.
    AuthenticationFailed {
        /// Whether the peer told us, rather than we found out.
        told_by_peer: bool,
        /// Our identity.
        local_id: Id,
        /// The peer's, as configured or as it came.
        peer_id: Id,
    },
    /// The peer is somebody else than expected.
    IdMismatch {
        /// The identities that would have been taken.
        expected: Vec<Id>,
        /// What came, in words.
        came: String,
    },
    /// The peer wants to authenticate by something else than a shared key.
    AuthMethod {
        /// IANA's number of it.
        method: u8,
    },
    /// The peer wants to authenticate by EAP, or wants us to.
    Eap,
    /// We require a post-quantum pre-shared key, and the peer uses none.
    NoPpk {
        /// The ID of ours.
        ours: String,
    },
    /// The peer names another post-quantum pre-shared key than ours, and one of the two sides requires its own.
    PpkIdMismatch {
        /// The ID of ours, if we have one.
        ours: Option<String>,
        /// The ID that came.
        theirs: String,
    },
    /// The post-quantum pre-shared keys of this ID differ; the pre-shared keys are the same.
    PpkDiffers {
        /// The ID.
        id: String,
    },
    /// The peer authenticates by something else than a pre-shared key (IKEv1, where that is part of the proposal).
    OtherAuthentication {
        /// What the peer offers, in words.
        theirs: String,
    },
    /// The version of IKE has no numbers for any of the algorithms that are configured.
    NothingToOffer {
        /// Which version.
        version: Version,
        /// Whose algorithms.
        phase: Phase,
        /// The algorithms.
        names: Vec<String>,
    },
    /// Traffic selectors have nothing in common, or the answer is not within the offer.
    TrafficSelectors {
        /// Our side, as we see it.
        our_local: Vec<TrafficSelector>,
        /// The peer's side, as we see it.
        our_remote: Vec<TrafficSelector>,
        /// Our side and the peer's side as the peer sees them; `None` where it refused ours without saying.
        theirs: Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)>,
    },
    /// More traffic selectors than a payload can hold.
    TooManySelectors {
        /// How many there are on one side.
        count: usize,
    },
    /// The peer answered with an error of another kind.
    PeerRefused {
        /// Which.
        notify: NotifyType,
    },
    /// The peer's message breaks the protocol.
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Octets that are no message.
    Undecodable(WireError),
    /// No tunnel is configured for this pair of addresses (responder).
    NoTunnel {
        /// Our address.
        local: IpAddr,
        /// The peer's address.
        remote: IpAddr,
    },
    /// The peer went on demanding new cookies or groups.
    TooManyRetries,
}

/// Who is to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blame {
    /// The peer breaks the protocol.
    PeerMisbehaved,
    /// The peer is configured for something else, and both sides' values are known.
    PeerIncompatible,
    /// One of the two configurations is wrong; which, only people can tell.
    ConfigMismatch,
    /// Nothing came through, or not in time.
    Unreachable,
}

impl Cause {
    /// Who is to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NoAnswer { .. } | Self::NotContinued { .. } => Blame::Unreachable,
            Self::NoProposal { .. }
            | Self::ProtocolMismatch { .. }
            | Self::PfsMismatch { .. }
            | Self::VersionMismatch { .. }
            | Self::ModeMismatch { .. }
            | Self::Xauth
            | Self::InvalidGroup { .. }
            | Self::TrafficSelectors { .. }
            | Self::AuthMethod { .. }
            | Self::OtherAuthentication { .. }
            | Self::Eap => Blame::PeerIncompatible,
            Self::AuthenticationFailed { .. }
            | Self::NotOurAlgorithms { .. }
            | Self::NothingChosen { .. }
            | Self::NoChildChosen { .. }
            | Self::NothingChosenV1 { .. }
            | Self::NoPairChosen { .. }
            | Self::PairRefused { .. }
            | Self::ModeRefused { .. }
            | Self::NatRefused { .. }
            | Self::NoPpk { .. }
            | Self::PpkIdMismatch { .. }
            | Self::PpkDiffers { .. }
            | Self::IdMismatch { .. }
            | Self::NoTunnel { .. }
            | Self::TooManySelectors { .. }
            | Self::NothingToOffer { .. }
            | Self::UnknownAddress { .. }
            | Self::NotDecrypted { .. }
            | Self::IdentityUnanswered { .. }
            | Self::RefusedV1 { .. }
            | Self::PeerRefusedV1 { .. }
            | Self::PeerRefused { .. } => Blame::ConfigMismatch,
            Self::InvalidPublicValue { .. }
            | Self::Malformed { .. }
            | Self::Undecodable(_)
            | Self::TooManyRetries => Blame::PeerMisbehaved,
        }
    }

    /// What the peer is told. IDs are not told apart from keys: a stranger must not learn which of them was
    /// wrong.
    pub(crate) fn to_notify(&self) -> Notify {
        let (kind, data) = match self {
            Self::NoProposal { .. }
            | Self::NotOurAlgorithms { .. }
            | Self::NothingChosen { .. }
            | Self::NoChildChosen { .. }
            | Self::NothingChosenV1 { .. }
            | Self::NoPairChosen { .. }
            | Self::ProtocolMismatch { .. }
            | Self::PfsMismatch { .. }
            | Self::VersionMismatch { .. }
            | Self::OtherAuthentication { .. }
            | Self::NothingToOffer { .. }
            | Self::ModeMismatch { .. }
            | Self::ModeRefused { .. }
            | Self::UnknownAddress { .. }
            | Self::NoTunnel { .. } => (NotifyType::NO_PROPOSAL_CHOSEN, Vec::new()),
            Self::InvalidGroup { ours, .. } => {
                let wanted = ours.first().map_or(0, |g| g.number());
                (NotifyType::INVALID_KE_PAYLOAD, wanted.to_be_bytes().to_vec())
            }
            Self::AuthenticationFailed { .. }
            | Self::NotDecrypted { .. }
            | Self::IdentityUnanswered { .. }
            | Self::RefusedV1 { .. }
            | Self::Xauth
            | Self::IdMismatch { .. }
            | Self::AuthMethod { .. }
            | Self::NoPpk { .. }
            | Self::PpkIdMismatch { .. }
            | Self::PpkDiffers { .. }
            | Self::Eap => (NotifyType::AUTHENTICATION_FAILED, Vec::new()),
            Self::TrafficSelectors { .. } | Self::TooManySelectors { .. } | Self::PairRefused { .. } => {
                (NotifyType::TS_UNACCEPTABLE, Vec::new())
            }
            Self::NatRefused { .. } => (NotifyType::UNEXPECTED_NAT_DETECTED, Vec::new()),
            Self::Undecodable(WireError::Critical(number)) => {
                (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![*number])
            }
            Self::InvalidPublicValue { .. }
            | Self::Malformed { .. }
            | Self::Undecodable(_)
            | Self::TooManyRetries
            | Self::PeerRefused { .. }
            | Self::PeerRefusedV1 { .. }
            | Self::NotContinued { .. }
            | Self::NoAnswer { .. } => (NotifyType::INVALID_SYNTAX, Vec::new()),
        };
        Notify::new(kind, data)
    }
}

impl std::error::Error for Cause {}
