//! Failures as values: of which kind they are, which fields of the configuration to look at, and what each side said. The
//! words for people are in `words`.

use std::fmt::Display;

use crate::{algorithm::Group, config::Protocol, error::Cause, event::Phase};

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Matter {
    /// Nothing came back, or not all that had to.
    NoAnswer,
    /// A NAT is on the way that one side does not allow.
    Nat,
    /// Algorithms.
    Proposal,
    /// ESP on one side, AH on the other.
    Protocol,
    /// Perfect forward secrecy.
    Pfs,
    /// IKEv1 on one side, IKEv2 on the other.
    Version,
    /// Main mode on one side, aggressive mode on the other.
    Mode,
    /// The pre-shared key, or the identities by which it is found.
    Psk,
    /// Identities.
    Id,
    /// How the ends authenticate.
    Authentication,
    /// The post-quantum pre-shared key.
    Ppk,
    /// Subnets.
    Subnets,
    /// Which tunnel it is.
    Tunnel,
    /// Something else, which the words tell.
    Other,
}

impl Matter {
    /// The word for it, as in `no-answer`.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoAnswer => "no-answer",
            Self::Nat => "nat",
            Self::Proposal => "proposal",
            Self::Protocol => "protocol",
            Self::Pfs => "pfs",
            Self::Version => "version",
            Self::Mode => "mode",
            Self::Psk => "psk",
            Self::Id => "id",
            Self::Authentication => "authentication",
            Self::Ppk => "ppk",
            Self::Subnets => "subnets",
            Self::Tunnel => "tunnel",
            Self::Other => "other",
        }
    }
}

/// What to look at after a failure. Never holds a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What it is about.
    pub matter: Matter,
    /// Fields of a tunnel's configuration, the likeliest first.
    pub fields: Vec<&'static str>,
    /// What we have.
    pub ours: Vec<String>,
    /// What the peer has, as it looks from here; `None` where it did not say.
    pub theirs: Option<Vec<String>>,
    /// Where the two first differ, in words.
    pub first_difference: Option<String>,
}

const PROPOSAL: [&str; 4] = ["ike.encryption", "ike.integrity", "ike.prf", "ike.dh"];
const SUBNETS: [&str; 2] = ["local_subnets", "remote_subnets"];
const NOTHING: [String; 0] = [];
const IDS: [&str; 2] = ["ike.local_id", "ike.peer_id"];

impl Cause {
    /// What to look at, where it was this phase that failed.
    pub fn advice(&self, phase: Phase) -> Advice {
        match self {
            Self::NoAnswer { path, .. } => advice(Matter::NoAnswer, &["peer"], [ports(path)], None),
            Self::NotContinued { path, .. } => advice(Matter::NoAnswer, &["nat_t"], [ports(path)], None),
            Self::NatRefused { path } => advice(Matter::Nat, &["nat_t"], [ports(path)], None),
            Self::NoProposal { ours, theirs, first_difference } => {
                let field = first_difference.as_deref().and_then(|words| field_of(words, phase));
                let fields = field.map_or_else(|| algorithms(phase, Protocol::Esp), |field| vec![field]);
                let mut advice = advice(Matter::Proposal, &fields, ours.clone(), theirs.as_deref());
                advice.first_difference.clone_from(first_difference);
                advice
            }
            Self::NothingChosen { ours } => {
                advice(Matter::Proposal, &[&PROPOSAL[..], &["ike.version"]].concat(), ours.clone(), None)
            }
            Self::NothingChosenV1 { mode, ours } => {
                let ours = ours.iter().map(|o| format!("{o} in {mode}"));
                let fields = ["ike.encryption", "ike.integrity", "ike.dh", "ike.version", "ike.mode"];
                advice(Matter::Proposal, &fields, ours, None)
            }
            Self::NoChildChosen { protocol, ours } => {
                let ours = ours.iter().map(|o| format!("{protocol} with {o}"));
                advice(Matter::Proposal, &algorithms(Phase::Two, *protocol), ours, None)
            }
            Self::NoPairChosen { protocol, ours, pfs } => {
                let pfs =
                    pfs.map_or("without PFS".to_owned(), |g| format!("with PFS in group {}", g.number()));
                let ours = ours.iter().map(|o| format!("{protocol} with {o} {pfs}"));
                let fields = [&["ipsec.pfs"][..], &algorithms(Phase::Two, *protocol), &SUBNETS].concat();
                advice(Matter::Proposal, &fields, ours, None)
            }
            Self::NotOurAlgorithms { ours, chosen } => {
                advice(Matter::Proposal, &PROPOSAL, ours.clone(), Some(std::slice::from_ref(chosen)))
            }
            Self::NothingToOffer { names, phase, .. } => {
                advice(Matter::Proposal, &algorithms(*phase, Protocol::Esp), names.clone(), None)
            }
            Self::ProtocolMismatch { ours, theirs } => {
                differ(Matter::Protocol, &["ipsec.protocol"], &[ours], Some(&[theirs]))
            }
            Self::PfsMismatch { ours, theirs } => {
                let theirs = theirs.as_ref().map(|groups| match groups.is_empty() {
                    true => vec!["disabled".to_owned()],
                    false => groups.iter().map(|n| format!("group {n}")).collect(),
                });
                let ours = match ours.is_empty() {
                    true => vec!["disabled".to_owned()],
                    false => groups(ours),
                };
                advice(Matter::Pfs, &["ipsec.pfs"], ours, theirs.as_deref())
            }
            Self::VersionMismatch { ours, theirs } => {
                differ(Matter::Version, &["ike.version"], &[ours], Some(&[theirs]))
            }
            Self::ModeMismatch { ours, theirs } => {
                differ(Matter::Mode, &["ike.mode"], &[ours], Some(&[theirs]))
            }
            Self::ModeRefused { ours } => differ(Matter::Mode, &["ike.mode"], &[ours], None),
            Self::InvalidGroup { ours, theirs } => {
                let theirs = [format!("group {theirs}")];
                let field = if phase == Phase::One { "ike.dh" } else { "ipsec.pfs" };
                advice(Matter::Proposal, &[field], groups(ours), Some(&theirs))
            }
            Self::NotDecrypted { local_id, peer_id } => {
                differ(Matter::Psk, &["psk"], &[local_id], Some(&[peer_id]))
            }
            Self::IdentityUnanswered { local_id, garbled, .. } => {
                let fields: &[_] =
                    if *garbled { &["psk", "ike.mode"] } else { &["psk", "ike.local_id", "nat_t"] };
                differ(Matter::Psk, fields, &[local_id], None)
            }
            Self::RefusedV1 { local_id, mode, .. } => {
                let fields = ["psk", "ike.local_id", "ike.peer_id", "ike.mode"];
                advice(Matter::Psk, &fields, [local_id.to_string(), mode.to_string()], None)
            }
            Self::AuthenticationFailed { told_by_peer: true, local_id, .. } => {
                differ(Matter::Psk, &["psk", "ike.local_id", "ike.peer_id"], &[local_id], None)
            }
            Self::AuthenticationFailed { local_id, peer_id, .. } => {
                differ(Matter::Psk, &["psk"], &[local_id], Some(&[peer_id]))
            }
            Self::UnknownAddress { remote, .. } => {
                advice(Matter::Psk, &["psk", "ike.mode", "peer"], NOTHING, Some(&[remote.to_string()]))
            }
            Self::IdMismatch { expected, came } => {
                let mut advice =
                    advice(Matter::Id, &["ike.peer_id"], words(expected), Some(std::slice::from_ref(came)));
                advice.first_difference =
                    expected.first().map(|expected| format!("ID: {expected} expected here, {came} came"));
                advice
            }
            Self::AuthMethod { method } => {
                let theirs = [format!("method {method}")];
                advice(Matter::Authentication, &[], ["pre-shared key".to_owned()], Some(&theirs))
            }
            Self::OtherAuthentication { theirs } => advice(
                Matter::Authentication,
                &[],
                ["pre-shared key".to_owned()],
                Some(std::slice::from_ref(theirs)),
            ),
            Self::Eap => differ(Matter::Authentication, &[], &["pre-shared key"], Some(&["EAP"])),
            Self::Xauth => differ(Matter::Authentication, &[], &["pre-shared key"], Some(&["XAUTH"])),
            Self::NoPpk { ours } => advice(Matter::Ppk, &["ike.ppk"], [ours.clone()], Some(&[])),
            Self::PpkIdMismatch { ours, theirs } => {
                advice(Matter::Ppk, &["ike.ppk"], ours.clone(), Some(std::slice::from_ref(theirs)))
            }
            Self::PpkDiffers { id } => advice(Matter::Ppk, &["ike.ppk"], [id.clone()], None),
            Self::TrafficSelectors { our_local, our_remote, theirs } => {
                let theirs = theirs.as_ref().map(|(local, remote)| sides(local, remote));
                advice(Matter::Subnets, &SUBNETS, sides(our_local, our_remote), theirs.as_deref())
            }
            Self::PairRefused { local, remote } => {
                let ours = sides(std::slice::from_ref(local), std::slice::from_ref(remote));
                advice(Matter::Subnets, &SUBNETS, ours, None)
            }
            Self::TooManySelectors { count } => {
                advice(Matter::Subnets, &SUBNETS, [format!("{count} subnets")], None)
            }
            Self::NoTunnel { local, remote } => {
                differ(Matter::Tunnel, &["peer", "ike.version"], &[local], Some(&[remote]))
            }
            Self::PeerRefused { .. } | Self::PeerRefusedV1 { .. } => {
                advice(Matter::Other, &IDS, NOTHING, None)
            }
            Self::InvalidPublicValue { .. }
            | Self::Malformed { .. }
            | Self::Undecodable(_)
            | Self::TooManyRetries => advice(Matter::Other, &[], NOTHING, None),
        }
    }
}

fn advice(
    matter: Matter,
    fields: &[&'static str],
    ours: impl IntoIterator<Item = String>,
    theirs: Option<&[String]>,
) -> Advice {
    let ours = ours.into_iter().collect();
    Advice {
        matter,
        fields: fields.to_vec(),
        ours,
        theirs: theirs.map(<[_]>::to_vec),
        first_difference: None,
    }
}

/// Where one value stands against another.
fn differ<T: Display>(matter: Matter, fields: &[&'static str], ours: &[T], theirs: Option<&[T]>) -> Advice {
    let mut advice = advice(matter, fields, words(ours), theirs.map(words).as_deref());
    if let (Some(field), Some(ours), Some(theirs)) =
        (fields.first(), ours.first(), theirs.and_then(<[_]>::first))
        && matter != Matter::Psk
    {
        advice.first_difference = Some(format!("{field}: {ours} here, {theirs} there"));
    }
    advice
}

fn words<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn ports(path: &crate::event::Path) -> String {
    format!("UDP {path}")
}

fn groups(groups: &[Group]) -> Vec<String> {
    groups.iter().map(|group| format!("group {}", group.number())).collect()
}

fn sides<T: Display>(local: &[T], remote: &[T]) -> Vec<String> {
    let side = |word: &str, values: &[T]| format!("{word} {}", words(values).join(", "));
    vec![side("local", local), side("remote", remote)]
}

/// The fields that say which algorithms a phase offers.
fn algorithms(phase: Phase, protocol: Protocol) -> Vec<&'static str> {
    match (phase, protocol) {
        (Phase::One, _) => PROPOSAL.to_vec(),
        (Phase::Two, Protocol::Esp) => {
            vec!["ipsec.encryption", "ipsec.integrity", "ipsec.esn", "ipsec.protocol"]
        }
        (Phase::Two, Protocol::Ah) => vec!["ipsec.integrity", "ipsec.esn", "ipsec.protocol"],
    }
}

/// The field that a first difference is about.
fn field_of(words: &str, phase: Phase) -> Option<&'static str> {
    let (kind, _) = words.split_once(':')?;
    Some(match (kind, phase) {
        ("encryption", Phase::One) => "ike.encryption",
        ("encryption", Phase::Two) => "ipsec.encryption",
        ("integrity", Phase::One) => "ike.integrity",
        ("integrity", Phase::Two) => "ipsec.integrity",
        ("prf", _) => "ike.prf",
        ("dh", Phase::One) => "ike.dh",
        ("dh" | "pfs", Phase::Two) => "ipsec.pfs",
        ("additional key exchange", _) => "ike.additional_ke",
        ("esn", _) => "ipsec.esn",
        ("protocol", _) => "ipsec.protocol",
        _ => return None,
    })
}
