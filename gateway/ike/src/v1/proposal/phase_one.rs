//! The suites of phase 1 (RFC 2409 appendix A): encryption, hash, group, and a pre-shared key.

use std::fmt;

use super::{
    Attributes, Lifetime, MAX_TRANSFORMS, alone, group_of, is_diffie_hellman, lifetime::LIFE_TYPE_PHASE_ONE,
};
use crate::{
    algorithm::{Encryption, Group, Integrity},
    config::{IkePolicy, Mode, Version},
    error::Cause,
    event::Phase,
    v1::wire::{Attribute, Proposal, ProtocolId, SecurityAssociation, Transform},
};

/// The one transform ID of ISAKMP (RFC 2407 section 4.4.2).
pub(super) const KEY_IKE: u8 = 1;
pub(super) const ENCRYPTION: u16 = 1;
pub(super) const HASH: u16 = 2;
pub(super) const AUTHENTICATION: u16 = 3;
pub(super) const GROUP: u16 = 4;
pub(super) const KEY_LENGTH: u16 = 14;
/// Authentication by a pre-shared key.
pub(super) const PRE_SHARED_KEY: u16 = 1;

/// The algorithms of an ISAKMP SA. The hash is also the PRF, as an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PhaseOneSuite {
    pub(crate) encryption: Encryption,
    pub(crate) integrity: Integrity,
    pub(crate) group: Group,
    /// What the initiator offered.
    pub(crate) lifetime: Lifetime,
}

impl fmt::Display for PhaseOneSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.encryption, self.integrity, self.group)
    }
}

/// The number and the key length of an encryption algorithm, `None` for one that phase 1 of IKEv1 does not have.
pub(super) fn encryption_number(encryption: Encryption) -> Option<(u16, Option<u16>)> {
    let bits = Some(encryption.key_len() as u16 * 8);
    match encryption {
        Encryption::Des => Some((1, None)),
        Encryption::TripleDes => Some((5, None)),
        Encryption::Aes128 | Encryption::Aes192 | Encryption::Aes256 => Some((7, bits)),
        _ => None,
    }
}

/// A key length that says what goes without saying is passed over.
pub(super) fn encryption_of(number: u16, key_bits: Option<u16>) -> Option<Encryption> {
    Encryption::ALL.into_iter().find(|e| {
        let own_bits = e.key_len() as u16 * 8;
        encryption_number(*e).is_some_and(|(id, bits)| {
            id == number && (key_bits == bits || (bits.is_none() && key_bits == Some(own_bits)))
        })
    })
}

pub(super) fn hash_number(integrity: Integrity) -> u16 {
    match integrity {
        Integrity::Md5 => 1,
        Integrity::Sha1 => 2,
        Integrity::Sha256 => 4,
        Integrity::Sha384 => 5,
        Integrity::Sha512 => 6,
    }
}

pub(super) fn hash_of(number: u16) -> Option<Integrity> {
    Integrity::ALL.into_iter().find(|i| hash_number(*i) == number)
}

/// Every combination of a policy, best first. Aggressive mode has one group only: its key exchange is under way
/// before there is an answer (RFC 2409 section 5).
fn combinations(policy: &IkePolicy) -> impl Iterator<Item = (Encryption, Integrity, Group)> {
    let groups = match policy.mode {
        Mode::Main => &policy.dh[..],
        Mode::Aggressive => policy.dh.get(..1).unwrap_or(&[]),
    };
    let ciphers = policy.encryption.iter().copied().filter(|e| encryption_number(*e).is_some());
    let groups =
        move |(e, i)| groups.iter().copied().filter(|g| is_diffie_hellman(*g)).map(move |g| (e, i, g));
    ciphers.flat_map(|e| policy.integrity.iter().map(move |i| (e, *i))).flat_map(groups)
}

/// What an IKE policy offers; the cause of failure where none of its algorithms can be said in IKEv1.
pub(crate) fn offer_phase_one(policy: &IkePolicy) -> Result<SecurityAssociation, Cause> {
    let lifetime = Lifetime { time: Some(policy.lifetime), bytes: None }.attributes(LIFE_TYPE_PHASE_ONE);
    let transforms: Vec<_> = combinations(policy)
        .zip(1..=MAX_TRANSFORMS)
        .map(|((encryption, integrity, group), number)| {
            let (cipher, key_bits) = encryption_number(encryption).unwrap_or_default();
            let mut attributes = vec![Attribute::new(ENCRYPTION, cipher.into())];
            attributes.extend(key_bits.map(|bits| Attribute::new(KEY_LENGTH, bits.into())));
            attributes.extend([
                Attribute::new(HASH, hash_number(integrity).into()),
                Attribute::new(GROUP, group.number().into()),
                Attribute::new(AUTHENTICATION, PRE_SHARED_KEY.into()),
            ]);
            attributes.extend(lifetime.iter().cloned());
            Transform { number: number as u8, id: KEY_IKE, attributes }
        })
        .collect();
    if transforms.is_empty() {
        let names = policy.encryption.iter().map(Encryption::to_string).collect();
        return Err(Cause::NothingToOffer { version: Version::Ikev1, phase: Phase::One, names });
    }
    let proposal = Proposal { number: 1, protocol: ProtocolId::Isakmp, spi: Vec::new(), transforms };
    Ok(SecurityAssociation { proposals: vec![proposal] })
}

/// The suite of a transform, `None` for one that asks for anything this endpoint does not have.
fn suite_of(transform: &Transform) -> Option<PhaseOneSuite> {
    let mut attributes = Attributes::of(transform, LIFE_TYPE_PHASE_ONE)?;
    let key_bits = attributes.take_u16(KEY_LENGTH);
    let encryption = encryption_of(attributes.take_u16(ENCRYPTION)?, key_bits)?;
    let integrity = hash_of(attributes.take_u16(HASH)?)?;
    let group = group_of(attributes.take_u16(GROUP)?)?;
    let psk = attributes.take_u16(AUTHENTICATION)? == PRE_SHARED_KEY;
    let suite = PhaseOneSuite { encryption, integrity, group, lifetime: attributes.lifetime };
    (psk && transform.id == KEY_IKE && attributes.values.is_empty()).then_some(suite)
}

/// The responder's choice: the suite, and the SA payload that answers with it. In aggressive mode the groups of all
/// transforms but the first's are passed over, for there is but one key exchange payload.
pub(crate) fn select_phase_one(
    policy: &IkePolicy,
    offered: &SecurityAssociation,
) -> Option<(PhaseOneSuite, SecurityAssociation)> {
    let offers: Vec<_> = alone(offered)
        .filter(|proposal| proposal.protocol == ProtocolId::Isakmp)
        .flat_map(|proposal| proposal.transforms.iter().map(move |transform| (proposal.number, transform)))
        .filter_map(|(number, transform)| Some((number, transform, suite_of(transform)?)))
        .collect();
    let only_group = match policy.mode {
        Mode::Main => None,
        Mode::Aggressive => Some(first_group(offered)?),
    };
    // A responder may take any of its groups in aggressive mode, for the initiator has chosen.
    let every = IkePolicy { mode: Mode::Main, ..policy.clone() };
    combinations(&every).find_map(|(encryption, integrity, group)| {
        if only_group.is_some_and(|only| only != group.number()) {
            return None;
        }
        let (number, transform, suite) = offers.iter().find(|(_, _, suite)| {
            (suite.encryption, suite.integrity, suite.group) == (encryption, integrity, group)
        })?;
        let transforms = vec![(*transform).clone()];
        let answer = Proposal { number: *number, protocol: ProtocolId::Isakmp, spi: Vec::new(), transforms };
        Some((*suite, SecurityAssociation { proposals: vec![answer] }))
    })
}

fn first_group(offered: &SecurityAssociation) -> Option<u16> {
    let transform = offered.proposals.first()?.transforms.first()?;
    Attributes::of(transform, LIFE_TYPE_PHASE_ONE)?.take_u16(GROUP)
}

/// The suite that a responder answered with; `None` unless it is one we offered. Its lifetime is passed over: some
/// responders put their own there.
pub(crate) fn accept_phase_one(policy: &IkePolicy, answered: &SecurityAssociation) -> Option<PhaseOneSuite> {
    let [Proposal { protocol: ProtocolId::Isakmp, transforms, .. }] = &answered.proposals[..] else {
        return None;
    };
    let [transform] = &transforms[..] else { return None };
    let suite = suite_of(transform)?;
    combinations(policy)
        .take(MAX_TRANSFORMS)
        .any(|offered| offered == (suite.encryption, suite.integrity, suite.group))
        .then_some(suite)
}

/// The ways to authenticate that a peer offers, in words, where a pre-shared key is not among them.
pub(crate) fn other_authentication(offered: &SecurityAssociation) -> Option<String> {
    let mut methods = Vec::new();
    for transform in offered.proposals.iter().flat_map(|proposal| &proposal.transforms) {
        let method = Attributes::of(transform, LIFE_TYPE_PHASE_ONE)?.take_u16(AUTHENTICATION)?;
        if method == PRE_SHARED_KEY {
            return None;
        }
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    let words: Vec<_> = methods.into_iter().map(authentication_in_words).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// A way to authenticate (RFC 2409 appendix A; XAUTH and hybrid ones as drafts number them).
pub(super) fn authentication_in_words(method: u16) -> String {
    let name = match method {
        PRE_SHARED_KEY => "pre-shared key",
        2 => "DSS certificate",
        3 => "RSA certificate",
        4 | 5 => "RSA encryption",
        9..=11 => "ECDSA certificate",
        64221..=64228 => "hybrid XAUTH",
        65001 | 65002 => "pre-shared key with XAUTH",
        65003..=65010 => "certificate with XAUTH",
        _ => return format!("authentication method {method}"),
    };
    name.to_owned()
}
