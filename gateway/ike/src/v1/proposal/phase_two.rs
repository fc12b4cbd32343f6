//! The suites of phase 2 (RFC 2407 sections 4.4 and 4.5, RFC 4868, RFC 3602, RFC 4106): ESP and AH in tunnel mode.

use std::fmt;

use super::{
    Attributes, Lifetime, MAX_TRANSFORMS, alone, group_of, is_diffie_hellman, lifetime::LIFE_TYPE_PHASE_TWO,
};
use crate::{
    algorithm::{Encryption, Group, Integrity},
    config::{self, IpsecPolicy, Version},
    error::Cause,
    event::Phase,
    v1::wire::{Attribute, NatTraversal, Proposal, ProtocolId, SecurityAssociation, Transform},
};

pub(super) const GROUP: u16 = 3;
pub(super) const ENCAPSULATION: u16 = 4;
pub(super) const AUTHENTICATION: u16 = 5;
pub(super) const KEY_LENGTH: u16 = 6;

/// The algorithms of a pair of Child SAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PhaseTwoSuite {
    pub(crate) protocol: config::Protocol,
    /// `None` with AH.
    pub(crate) encryption: Option<Encryption>,
    /// `None` with AEAD.
    pub(crate) integrity: Option<Integrity>,
    /// With perfect forward secrecy.
    pub(crate) group: Option<Group>,
    pub(crate) encapsulation: Encapsulation,
    /// What the initiator offered.
    pub(crate) lifetime: Lifetime,
}

/// How packets go over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encapsulation {
    /// In IP.
    Tunnel,
    /// In UDP, as the RFC or the drafts of NAT traversal number it.
    UdpTunnel(NatTraversal),
}

impl Encapsulation {
    fn number(self) -> u16 {
        match self {
            Self::Tunnel => 1,
            Self::UdpTunnel(NatTraversal::Rfc3947) => 3,
            Self::UdpTunnel(NatTraversal::Draft) => 61443,
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        [Self::Tunnel, Self::UdpTunnel(NatTraversal::Rfc3947), Self::UdpTunnel(NatTraversal::Draft)]
            .into_iter()
            .find(|e| e.number() == number)
    }
}

/// What can be chosen, in other words a transform without its group, encapsulation and lifetime.
type Algorithms = (Option<Encryption>, Option<Integrity>);

/// As IKEv2 names its suites, the group at the end.
impl fmt::Display for PhaseTwoSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            self.encryption.map(|e| e.to_string()),
            self.integrity.map(|i| i.to_string()),
            self.group.map(|g| g.to_string()),
        ];
        f.write_str(if self.protocol == config::Protocol::Ah { "ah:" } else { "" })?;
        f.write_str(&names.into_iter().flatten().collect::<Vec<_>>().join("-"))
    }
}

/// The ESP transform ID and the key length, `None` for a cipher that IKEv1 has no number for. Those it has are the
/// same as in IKEv2.
pub(super) fn esp_transform(encryption: Encryption) -> Option<(u8, Option<u16>)> {
    if encryption == Encryption::ChaCha20Poly1305 {
        return None;
    }
    let (id, key_bits) = encryption.transform();
    Some((u8::try_from(id).ok()?, key_bits))
}

/// A key length that says what goes without saying is passed over.
pub(super) fn esp_encryption(id: u8, key_bits: Option<u16>) -> Option<Encryption> {
    Encryption::ALL.into_iter().find(|e| {
        let own_bits = e.key_len() as u16 * 8;
        esp_transform(*e).is_some_and(|(number, bits)| {
            number == id && (key_bits == bits || (bits.is_none() && key_bits == Some(own_bits)))
        })
    })
}

/// The authentication algorithm attribute.
pub(super) fn authentication_number(integrity: Integrity) -> u16 {
    match integrity {
        Integrity::Md5 => 1,
        Integrity::Sha1 => 2,
        Integrity::Sha256 => 5,
        Integrity::Sha384 => 6,
        Integrity::Sha512 => 7,
    }
}

pub(super) fn authentication_of(number: u16) -> Option<Integrity> {
    Integrity::ALL.into_iter().find(|i| authentication_number(*i) == number)
}

/// The AH transform ID.
pub(super) fn ah_transform(integrity: Integrity) -> u8 {
    match integrity {
        Integrity::Md5 => 2,
        Integrity::Sha1 => 3,
        Integrity::Sha256 => 5,
        Integrity::Sha384 => 6,
        Integrity::Sha512 => 7,
    }
}

/// Every combination of a policy, best first.
fn combinations(policy: &IpsecPolicy) -> Vec<Algorithms> {
    let integrity = || policy.integrity.iter().copied().map(Some);
    match policy.protocol {
        config::Protocol::Ah => integrity().map(|i| (None, i)).collect(),
        config::Protocol::Esp => {
            let ciphers = policy.encryption.iter().copied().filter(|e| esp_transform(*e).is_some());
            let with_integrity = |e: Encryption| -> Vec<Algorithms> {
                match e.is_aead() {
                    true => vec![(Some(e), None)],
                    false => integrity().map(|i| (Some(e), i)).collect(),
                }
            };
            ciphers.flat_map(with_integrity).collect()
        }
    }
}

/// The group that an initiator makes perfect forward secrecy with: quick mode cannot offer a choice, for its key
/// exchange goes with the offer.
pub(crate) fn pfs_group(policy: &IpsecPolicy) -> Option<Group> {
    policy.pfs.iter().copied().find(|group| is_diffie_hellman(*group))
}

/// What an IPsec policy offers, with our inbound SPI; the cause of failure where none of its algorithms can be said
/// in IKEv1.
pub(crate) fn offer_phase_two(
    policy: &IpsecPolicy,
    spi: u32,
    encapsulation: Encapsulation,
) -> Result<SecurityAssociation, Cause> {
    let lifetime = Lifetime { time: Some(policy.lifetime), bytes: policy.lifetime_bytes };
    let transforms: Vec<_> = combinations(policy)
        .into_iter()
        .zip(1..=MAX_TRANSFORMS)
        .map(|((encryption, integrity), number)| {
            let (id, key_bits) = match encryption {
                Some(encryption) => esp_transform(encryption).unwrap_or_default(),
                None => (integrity.map_or(0, ah_transform), None),
            };
            let mut attributes = lifetime.attributes(LIFE_TYPE_PHASE_TWO);
            attributes.extend(pfs_group(policy).map(|g| Attribute::new(GROUP, g.number().into())));
            attributes.push(Attribute::new(ENCAPSULATION, encapsulation.number().into()));
            attributes
                .extend(integrity.map(|i| Attribute::new(AUTHENTICATION, authentication_number(i).into())));
            attributes.extend(key_bits.map(|bits| Attribute::new(KEY_LENGTH, bits.into())));
            Transform { number: number as u8, id, attributes }
        })
        .collect();
    if transforms.is_empty() {
        let names = match policy.protocol {
            config::Protocol::Esp => policy.encryption.iter().map(Encryption::to_string).collect(),
            config::Protocol::Ah => policy.integrity.iter().map(Integrity::to_string).collect(),
        };
        return Err(Cause::NothingToOffer { version: Version::Ikev1, phase: Phase::Two, names });
    }
    let (protocol, spi) = (ProtocolId::from(policy.protocol), spi.to_be_bytes().to_vec());
    Ok(SecurityAssociation { proposals: vec![Proposal { number: 1, protocol, spi, transforms }] })
}

/// The suite of a transform, `None` for one that asks for anything this endpoint does not have: transport mode,
/// extended sequence numbers, compression.
fn suite_of(protocol: ProtocolId, transform: &Transform) -> Option<PhaseTwoSuite> {
    let mut attributes = Attributes::of(transform, LIFE_TYPE_PHASE_TWO)?;
    let key_bits = attributes.take_u16(KEY_LENGTH);
    let integrity = match attributes.take_u16(AUTHENTICATION) {
        Some(number) => Some(authentication_of(number)?),
        None => None,
    };
    let group = match attributes.take_u16(GROUP) {
        Some(number) => Some(group_of(number)?),
        None => None,
    };
    // Where nothing is said, "tunnel" is what a gateway means.
    let encapsulation = match attributes.take_u16(ENCAPSULATION) {
        Some(number) => Encapsulation::from_number(number)?,
        None => Encapsulation::Tunnel,
    };
    let (protocol, encryption) = match protocol {
        ProtocolId::Esp => {
            let encryption = esp_encryption(transform.id, key_bits)?;
            (config::Protocol::Esp, Some(encryption))
        }
        ProtocolId::Ah if key_bits.is_none() => (config::Protocol::Ah, None),
        _ => return None,
    };
    let fits = match encryption {
        Some(encryption) => encryption.is_aead() == integrity.is_none(),
        None => integrity.is_some_and(|i| ah_transform(i) == transform.id),
    };
    let lifetime = attributes.lifetime;
    let suite = PhaseTwoSuite { protocol, encryption, integrity, group, encapsulation, lifetime };
    (fits && attributes.values.is_empty()).then_some(suite)
}

/// The responder's choice: the suite, the peer's SPI, and the SA payload that answers with ours. Of the groups of
/// the policy whichever the peer chose is taken; none where there is to be one is not, nor the other way round.
///
/// `allowed` are the encapsulations that the path allows.
pub(crate) fn select_phase_two(
    policy: &IpsecPolicy,
    offered: &SecurityAssociation,
    spi: u32,
    allowed: &[Encapsulation],
) -> Option<(PhaseTwoSuite, u32, SecurityAssociation)> {
    let offers: Vec<_> = alone(offered)
        .flat_map(|proposal| proposal.transforms.iter().map(move |transform| (proposal, transform)))
        .filter_map(|(proposal, transform)| {
            Some((proposal, transform, suite_of(proposal.protocol, transform)?))
        })
        .filter(|(_, _, suite)| {
            let group = match suite.group {
                Some(group) => policy.pfs.contains(&group),
                None => policy.pfs.is_empty(),
            };
            group && suite.protocol == policy.protocol && allowed.contains(&suite.encapsulation)
        })
        .collect();
    combinations(policy).into_iter().find_map(|algorithms| {
        let (proposal, transform, suite) =
            offers.iter().find(|(_, _, suite)| (suite.encryption, suite.integrity) == algorithms)?;
        let peer_spi = child_spi(proposal)?;
        let answer = Proposal {
            number: proposal.number,
            protocol: proposal.protocol,
            spi: spi.to_be_bytes().to_vec(),
            transforms: vec![(*transform).clone()],
        };
        Some((*suite, peer_spi, SecurityAssociation { proposals: vec![answer] }))
    })
}

/// The suite that a responder answered with and its SPI; `None` unless it is one we offered. Its lifetime is passed
/// over: some responders put their own there.
pub(crate) fn accept_phase_two(
    policy: &IpsecPolicy,
    answered: &SecurityAssociation,
    offered: Encapsulation,
) -> Option<(PhaseTwoSuite, u32)> {
    let [answer] = &answered.proposals[..] else { return None };
    let [transform] = &answer.transforms[..] else { return None };
    let suite = suite_of(answer.protocol, transform)?;
    let algorithms = combinations(policy).into_iter().take(MAX_TRANSFORMS);
    let same = suite.protocol == policy.protocol
        && suite.group == pfs_group(policy)
        && suite.encapsulation == offered
        && algorithms.into_iter().any(|algorithms| algorithms == (suite.encryption, suite.integrity));
    same.then_some((suite, child_spi(answer)?))
}

/// The groups of perfect forward secrecy that a peer offers, by number.
pub(crate) fn pfs_groups(theirs: &SecurityAssociation) -> Vec<u16> {
    let mut groups = Vec::new();
    let transforms = theirs.proposals.iter().flat_map(|proposal| &proposal.transforms);
    for mut attributes in transforms.filter_map(|t| Attributes::of(t, LIFE_TYPE_PHASE_TWO)) {
        if let Some(group) = attributes.take_u16(GROUP)
            && !groups.contains(&group)
        {
            groups.push(group);
        }
    }
    groups
}

/// 1 to 255 are reserved (RFC 4303 section 2.1), and so is 0.
fn child_spi(proposal: &Proposal) -> Option<u32> {
    let spi = u32::from_be_bytes(proposal.spi.as_slice().try_into().ok()?);
    (spi > 255).then_some(spi)
}

/// The other protocol than ours, where the peer's proposals have nothing but that.
pub(crate) fn other_protocol(
    ours: config::Protocol,
    theirs: &SecurityAssociation,
) -> Option<config::Protocol> {
    let other = match ours {
        config::Protocol::Esp => config::Protocol::Ah,
        config::Protocol::Ah => config::Protocol::Esp,
    };
    let only_other = theirs.proposals.iter().all(|p| p.protocol == ProtocolId::from(other));
    (!theirs.proposals.is_empty() && only_other).then_some(other)
}
