//! Failures in words: what went wrong, both sides' values, and what to look at.

use std::fmt::{self, Display};

use crate::{
    config::{Mode, Protocol, Version},
    error::Cause,
    event::Phase,
    selector::MAX_SELECTORS,
};

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { path, attempts, waited, heard } => {
                write!(
                    f,
                    "no answer from {} to {attempts} requests from UDP port {} within {:.1} s; ",
                    path.remote,
                    path.local.port(),
                    waited.as_secs_f32()
                )?;
                if *heard {
                    write!(
                        f,
                        "earlier messages of this attempt were answered: check that UDP port {} passes the firewalls \
                         both ways",
                        path.remote.port()
                    )
                } else {
                    write!(
                        f,
                        "nothing ever came back: check the peer's address, that it runs IKE, and that UDP \
                         ports 500 and 4500 pass the firewalls both ways"
                    )
                }
            }
            Self::NotContinued { path, waited } => write!(
                f,
                "the peer began, was answered at {}, and did not go on within {:.1} s: check that our answers pass the \
                 firewalls, and UDP port 4500 both ways if one side is behind a NAT",
                path.remote,
                waited.as_secs_f32()
            ),
            Self::NatRefused { path } => write!(
                f,
                "the peer allows no NAT on the way, and there is one: its message came from {} to {}, which is not what \
                 it sent",
                path.remote, path.local
            ),
            Self::NoProposal { ours, theirs, first_difference } => {
                write!(f, "no proposal in common; we offer {}; ", ours.join(", "))?;
                match theirs {
                    Some(theirs) if theirs.is_empty() => f.write_str("the peer offers none that we know")?,
                    Some(theirs) => write!(f, "the peer offers {}", theirs.join(", "))?,
                    None => {
                        f.write_str("the peer refused it without saying what it takes (NO_PROPOSAL_CHOSEN)")?
                    }
                }
                first_difference.as_ref().map_or(Ok(()), |first| write!(f, "; first difference: {first}"))
            }
            Self::NothingChosen { ours } => write!(
                f,
                "no proposal in common; we offer IKEv2 with {}; the peer refused it without saying what it takes \
                 (NO_PROPOSAL_CHOSEN): compare ike.encryption, ike.integrity, ike.prf and ike.dh with the peer's; it also \
                 refuses so where it has no tunnel to this address, or one of IKEv1 (ike.version)",
                ours.join(", ")
            ),
            Self::NoChildChosen { protocol, ours } => {
                let (other, cipher) = match protocol {
                    Protocol::Esp => (Protocol::Ah, "ipsec.encryption, "),
                    Protocol::Ah => (Protocol::Esp, ""),
                };
                write!(
                    f,
                    "no proposal in common for packets; we offer {protocol} with {}; the peer refused it without saying what \
                     it takes (NO_PROPOSAL_CHOSEN): compare {cipher}ipsec.integrity and ipsec.esn with the peer's, and \
                     ipsec.protocol, for it may use {other}",
                    ours.join(", ")
                )
            }
            Self::NothingChosenV1 { mode, ours } => write!(
                f,
                "no proposal in common; we offer IKEv1 in {mode} with {}; the peer refused it without saying what it takes \
                 (NO-PROPOSAL-CHOSEN): compare ike.encryption, ike.integrity and ike.dh with the peer's, and that it uses a \
                 pre-shared key; it also refuses so where it has no tunnel to this address, one of IKEv2 (ike.version), or \
                 one in {} (ike.mode)",
                ours.join(", "),
                mode.other()
            ),
            Self::NoPairChosen { protocol, ours, pfs } => {
                let pfs = pfs.map_or("without PFS".to_owned(), |g| format!("with PFS in group {}", g.number()));
                let (other, cipher) = match protocol {
                    Protocol::Esp => (Protocol::Ah, "ipsec.encryption, "),
                    Protocol::Ah => (Protocol::Esp, ""),
                };
                write!(
                    f,
                    "no proposal in common for packets; we offer {protocol} with {}, {pfs}; the peer refused it without \
                     saying what it takes (NO-PROPOSAL-CHOSEN): compare {cipher}ipsec.integrity and ipsec.pfs with the \
                     peer's, and ipsec.protocol, for it may use {other}; some peers refuse subnets so, too",
                    ours.join(", ")
                )
            }
            Self::PairRefused { local, remote } => write!(
                f,
                "subnets do not match; we ask for {local} here and {remote} at the peer; the peer refused these without \
                 saying what it takes (INVALID-ID-INFORMATION): each pair is negotiated by itself, and most peers take one \
                 only as they have it, so compare local_subnets and remote_subnets with the peer's"
            ),
            Self::NotOurAlgorithms { ours, chosen } => write!(
                f,
                "several tunnels have these addresses, and the peer was given the algorithms of another one, {chosen}; \
                 this one offers {}: the next attempt is given those",
                ours.join(", ")
            ),
            Self::ProtocolMismatch { ours, theirs } => write!(
                f,
                "packets are protected by different protocols: we use {ours}, the peer offers {theirs} alone"
            ),
            Self::PfsMismatch { ours, theirs } => {
                let ours = list(&ours.iter().map(|g| g.number()).collect::<Vec<_>>());
                write!(f, "the groups of perfect forward secrecy (PFS) do not match: ours {ours}; ")?;
                match theirs {
                    Some(theirs) => write!(f, "the peer's {}", list(theirs)),
                    None => f.write_str(
                        "the peer refused that without saying what it takes, and took the same algorithms without PFS \
                         before",
                    ),
                }
            }
            Self::VersionMismatch { ours, theirs } => {
                write!(f, "different versions of IKE: we are configured for {ours}, the peer speaks {theirs}")
            }
            Self::ModeMismatch { ours, theirs } => {
                write!(f, "different modes of IKEv1: we are configured for {ours}, the peer speaks {theirs}")
            }
            Self::ModeRefused { ours } => write!(
                f,
                "the peer refused {ours} (UNSUPPORTED-EXCHANGE-TYPE): it may be configured for {} (ike.mode)",
                ours.other()
            ),
            Self::UnknownAddress { remote, tunnels } => write!(
                f,
                "{remote} begins main mode, and {tunnels} tunnels with different pre-shared keys take a peer from anywhere: \
                 main mode needs the key before the peer has said who it is. Use aggressive mode or IKEv2, give the \
                 tunnel the peer's address, or give these tunnels one pre-shared key"
            ),
            Self::NotDecrypted { local_id, peer_id } => write!(
                f,
                "the key exchange was good, and what the peer then encrypts does not decrypt: most likely the pre-shared \
                 keys differ (we are {local_id}, the peer is {peer_id})"
            ),
            Self::IdentityUnanswered { port, garbled, local_id, peer_id } => {
                let hint = if *garbled {
                    "the peer encrypts with other keys, so most likely the pre-shared keys differ, or it is configured for \
                     aggressive mode (ike.mode)"
                } else {
                    "most likely the pre-shared keys differ, or the peer does not know our ID, or a firewall stops"
                };
                write!(f, "the key exchange was good, and the peer did not answer our identity: {hint}")?;
                if !garbled {
                    write!(f, " UDP port {port}")?;
                }
                write!(f, " (we are {local_id}, we expect {peer_id})")
            }
            Self::RefusedV1 { mode, local_id, peer_id } => write!(
                f,
                "the peer refused our authentication: the pre-shared keys differ, it does not know the IDs (we are {local_id}, \
                 we expect {peer_id}), or it is configured for {} (ike.mode)",
                mode.other()
            ),
            Self::PeerRefusedV1 { notify } => write!(f, "the peer refused with {notify}"),
            Self::Xauth => f.write_str(
                "the peer asks for XAUTH or Mode Config, as remote-access servers do; we authenticate by a pre-shared key \
                 alone: set the peer to that",
            ),
            Self::InvalidGroup { ours, theirs } => {
                let ours = list(&ours.iter().map(|g| g.number()).collect::<Vec<_>>());
                write!(f, "the peer wants Diffie-Hellman group {theirs}, we offer {ours}")
            }
            Self::InvalidPublicValue { group } => {
                write!(f, "the peer's Diffie-Hellman value is not valid in group {}", group.number())
            }
            Self::AuthenticationFailed { told_by_peer: false, local_id, peer_id } => write!(
                f,
                "authentication failed after a good key exchange: the pre-shared keys differ \
                 (we are {local_id}, the peer is {peer_id})"
            ),
            Self::AuthenticationFailed { told_by_peer: true, local_id, peer_id } => write!(
                f,
                "the peer refused our authentication after a good key exchange: the pre-shared keys differ, \
                 or it does not know the IDs (we are {local_id}, we expect {peer_id})"
            ),
            Self::IdMismatch { expected, came } => {
                write!(f, "the peer's ID is not the expected one: we expect {}, {came} came", list(expected))
            }
            Self::AuthMethod { method } => {
                let what = match method {
                    1 | 3 | 9..=11 | 14 => "a certificate or a public key",
                    12 => "a password",
                    13 => "nothing (null authentication)",
                    _ => "a method that we do not know",
                };
                write!(
                    f,
                    "the peer authenticates by {what} (method {method}), we by a pre-shared key (method 2): set the peer \
                     to a pre-shared key"
                )
            }
            Self::Eap => f.write_str(
                "the peer asks for EAP, as remote-access clients and servers do; we authenticate by a pre-shared key: set \
                 the peer to that",
            ),
            Self::NoPpk { ours } => write!(
                f,
                "we require a post-quantum pre-shared key (PPK), {ours}, and the peer uses none: give it one, or do not \
                 require it here"
            ),
            Self::PpkIdMismatch { ours: Some(ours), theirs } => write!(
                f,
                "different post-quantum pre-shared keys (PPK): ours has the ID {ours}, the peer names {theirs}"
            ),
            Self::PpkIdMismatch { ours: None, theirs } => write!(
                f,
                "the peer requires a post-quantum pre-shared key (PPK), {theirs}, and we have none"
            ),
            Self::PpkDiffers { id } => write!(
                f,
                "the post-quantum pre-shared keys (PPK) with the ID {id} differ; the pre-shared keys are the same"
            ),
            Self::OtherAuthentication { theirs } => {
                write!(f, "the peer authenticates by {theirs}, we by a pre-shared key")
            }
            Self::NothingToOffer { version, phase, names } => write!(
                f,
                "{version} cannot negotiate {} in {}: configure others, or the other version",
                list(names),
                match phase {
                    Phase::One => "phase 1",
                    Phase::Two => "phase 2",
                }
            ),
            Self::TrafficSelectors { our_local, our_remote, theirs } => {
                write!(
                    f,
                    "subnets do not match; ours: local {}, remote {}; ",
                    list(our_local),
                    list(our_remote)
                )?;
                match theirs {
                    Some((local, remote)) => {
                        write!(
                            f,
                            "the peer's, seen from here: local {}, remote {}",
                            list(local),
                            list(remote)
                        )
                    }
                    None => {
                        f.write_str("the peer refused them without saying what it takes (TS_UNACCEPTABLE)")
                    }
                }
            }
            Self::TooManySelectors { count } => write!(
                f,
                "{count} or more subnets on one side, and IKEv2 holds {MAX_SELECTORS} a tunnel: \
                 join some of them, or divide them among several tunnels"
            ),
            Self::PeerRefused { notify } => write!(f, "the peer refused with {notify}"),
            Self::Malformed { what } => write!(f, "the peer sent a malformed answer: {what}"),
            Self::Undecodable(error) => write!(f, "the peer sent a malformed message: {error}"),
            Self::NoTunnel { local, remote } => {
                write!(f, "no tunnel is configured between {local} and {remote}")
            }
            Self::TooManyRetries => f.write_str("the peer kept demanding new cookies or key exchange groups"),
        }
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Esp => "ESP",
            Self::Ah => "AH",
        })
    }
}

impl Mode {
    fn other(self) -> Self {
        match self {
            Self::Main => Self::Aggressive,
            Self::Aggressive => Self::Main,
        }
    }
}

impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main mode",
            Self::Aggressive => "aggressive mode",
        })
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ikev2 => "IKEv2",
            Self::Ikev1 => "IKEv1",
        })
    }
}

fn list<T: Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
