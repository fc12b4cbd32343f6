//! Proposals in words, for people to compare.

use super::{
    lifetime::{LIFE_TYPE_PHASE_ONE, LIFE_TYPE_PHASE_TWO},
    phase_one, phase_two,
};
use crate::{
    algorithm::Group,
    v1::wire::{ProtocolId, SecurityAssociation, Transform},
};

/// No more transforms are named than that; the number of the others is.
const MAX_WORDS: usize = 24;

/// What a transform says, in the order in which people read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Protocol,
    Encryption,
    Integrity,
    Authentication,
    Group,
    Encapsulation,
    Other,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Protocol,
        Self::Encryption,
        Self::Integrity,
        Self::Authentication,
        Self::Group,
        Self::Encapsulation,
        Self::Other,
    ];

    fn in_words(self, phase_one: bool) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Encryption => "encryption",
            Self::Integrity => "integrity",
            Self::Authentication => "authentication",
            Self::Group if phase_one => "dh",
            Self::Group => "pfs",
            Self::Encapsulation => "encapsulation",
            Self::Other => "attributes",
        }
    }
}

/// The transforms of all proposals, each as a suite in words, none twice: `aes128-sha1-modp1024`, in phase 2 with
/// the group of perfect forward secrecy at the end. Numbers stand for what has no name here.
pub(crate) fn in_words(sa: &SecurityAssociation) -> Vec<String> {
    let mut suites: Vec<String> = Vec::new();
    for proposal in &sa.proposals {
        for transform in &proposal.transforms {
            let suite = suite_in_words(proposal.protocol, transform);
            if !suites.contains(&suite) {
                suites.push(suite);
            }
        }
    }
    if suites.len() > MAX_WORDS {
        let others = suites.len() - MAX_WORDS;
        suites.truncate(MAX_WORDS);
        suites.push(format!("{others} more"));
    }
    suites
}

fn suite_in_words(protocol: ProtocolId, transform: &Transform) -> String {
    let said = |kind| value(protocol, transform, kind);
    let prefix = match protocol {
        ProtocolId::Ah => "ah:".to_owned(),
        ProtocolId::Other(number) => format!("protocol{number}:"),
        ProtocolId::Isakmp | ProtocolId::Esp => String::new(),
    };
    let usual = |kind, word: &String| match kind {
        Kind::Protocol => true,
        Kind::Authentication => word == &phase_one::authentication_in_words(phase_one::PRE_SHARED_KEY),
        Kind::Group => word == NONE,
        Kind::Encapsulation => word != TRANSPORT && !word.starts_with(ENCAPSULATION),
        _ => false,
    };
    let words = Kind::ALL.into_iter().filter_map(|kind| said(kind).filter(|word| !usual(kind, word)));
    prefix + &words.collect::<Vec<_>>().join("-")
}

const NONE: &str = "none";
const TUNNEL: &str = "tunnel";
const UDP_TUNNEL: &str = "tunnel in UDP";
const TRANSPORT: &str = "transport";
const ENCAPSULATION: &str = "encapsulation";

fn number_of(transform: &Transform, kind: u16) -> Option<u16> {
    let attribute = transform.attributes.iter().find(|attribute| attribute.kind == kind)?;
    Some(attribute.number().and_then(|number| u16::try_from(number).ok()).unwrap_or(u16::MAX))
}

/// What a transform says about one matter; `None` where it has nothing to say.
fn value(protocol: ProtocolId, transform: &Transform, kind: Kind) -> Option<String> {
    match protocol {
        ProtocolId::Isakmp => phase_one_value(transform, kind),
        ProtocolId::Ah | ProtocolId::Esp => phase_two_value(protocol, transform, kind),
        ProtocolId::Other(number) => (kind == Kind::Protocol).then(|| format!("protocol {number}")),
    }
}

fn named(name: Option<String>, kind: &str, number: impl std::fmt::Display, bits: Option<u16>) -> String {
    name.unwrap_or_else(|| match bits {
        Some(bits) => format!("{kind}{number}/{bits}"),
        None => format!("{kind}{number}"),
    })
}

fn group_in_words(number: u16) -> String {
    named(Group::from_number(number).map(|g| g.to_string()), "dh", number, None)
}

fn phase_one_value(transform: &Transform, kind: Kind) -> Option<String> {
    use phase_one::*;
    let number = |attribute| number_of(transform, attribute);
    match kind {
        Kind::Protocol | Kind::Encapsulation => None,
        Kind::Encryption => {
            let (cipher, bits) = (number(ENCRYPTION)?, number(KEY_LENGTH));
            Some(named(encryption_of(cipher, bits).map(|e| e.to_string()), "encryption", cipher, bits))
        }
        Kind::Integrity => {
            let hash = number(HASH)?;
            Some(named(hash_of(hash).map(|i| i.to_string()), "hash", hash, None))
        }
        Kind::Authentication => number(AUTHENTICATION).map(authentication_in_words),
        Kind::Group => Some(number(GROUP).map_or_else(|| NONE.to_owned(), group_in_words)),
        Kind::Other => {
            let known = [ENCRYPTION, HASH, AUTHENTICATION, GROUP, KEY_LENGTH];
            others(transform, &known, LIFE_TYPE_PHASE_ONE)
        }
    }
}

fn phase_two_value(protocol: ProtocolId, transform: &Transform, kind: Kind) -> Option<String> {
    use phase_two::*;
    let number = |attribute| number_of(transform, attribute);
    match kind {
        Kind::Protocol => Some(if protocol == ProtocolId::Ah { "AH" } else { "ESP" }.to_owned()),
        Kind::Encryption if protocol == ProtocolId::Ah => None,
        Kind::Encryption => {
            let (id, bits) = (transform.id, number(KEY_LENGTH));
            Some(named(esp_encryption(id, bits).map(|e| e.to_string()), "encryption", id, bits))
        }
        Kind::Integrity => {
            let algorithm = number(AUTHENTICATION)?;
            Some(named(authentication_of(algorithm).map(|i| i.to_string()), "integrity", algorithm, None))
        }
        Kind::Authentication => None,
        Kind::Group => Some(number(GROUP).map_or_else(|| NONE.to_owned(), group_in_words)),
        Kind::Encapsulation => Some(match number(phase_two::ENCAPSULATION) {
            None | Some(1) => TUNNEL.to_owned(),
            Some(3 | 61443) => UDP_TUNNEL.to_owned(),
            Some(2 | 4 | 61444) => TRANSPORT.to_owned(),
            Some(other) => format!("{}{other}", self::ENCAPSULATION),
        }),
        Kind::Other => {
            let known = [GROUP, phase_two::ENCAPSULATION, AUTHENTICATION, KEY_LENGTH];
            others(transform, &known, LIFE_TYPE_PHASE_TWO)
        }
    }
}

/// Attributes that nobody asked for, by number: a transform with any is not chosen.
fn others(transform: &Transform, known: &[u16], life_type: u16) -> Option<String> {
    let unknown = transform
        .attributes
        .iter()
        .map(|attribute| attribute.kind)
        .filter(|kind| !known.contains(kind) && !(life_type..=life_type + 1).contains(kind));
    let words: Vec<_> = unknown.map(|kind| format!("attribute{kind}")).collect();
    (!words.is_empty()).then(|| words.join("-"))
}

/// The first matter, in the order in which people read a proposal, in which no transform of ours is like any of the
/// peer's.
pub(crate) fn first_difference(ours: &SecurityAssociation, theirs: &SecurityAssociation) -> Option<String> {
    let phase_one = ours.proposals.iter().any(|proposal| proposal.protocol == ProtocolId::Isakmp);
    Kind::ALL.into_iter().find_map(|kind| {
        let (ours, theirs) = (values(ours, kind), values(theirs, kind));
        let differ = !ours.is_empty() && !theirs.is_empty() && ours.iter().all(|word| !theirs.contains(word));
        differ.then(|| {
            format!("{}: {} here, {} there", kind.in_words(phase_one), ours.join(", "), theirs.join(", "))
        })
    })
}

fn values(sa: &SecurityAssociation, kind: Kind) -> Vec<String> {
    let mut words = Vec::new();
    for proposal in &sa.proposals {
        for word in proposal.transforms.iter().filter_map(|t| value(proposal.protocol, t, kind)) {
            if !words.contains(&word) {
                words.push(word);
            }
        }
    }
    words
}
