//! From policies to proposals and from proposals to suites (RFC 7296 section 2.7 and 3.3).
//!
//! AEAD algorithms and those that need integrity go in separate proposals, in the order in which the policy
//! first names one of either. A responder takes the first of its own algorithms that the peer offers too.

use std::fmt;

use crate::{
    algorithm::{Encryption, Group, Integrity, Prf},
    config::{self, IkePolicy, IpsecPolicy},
    wire::{Proposal, Protocol, Transform, TransformType},
};

const ESN: u16 = 1;
const NO_ESN: u16 = 0;
const NO_INTEGRITY: u16 = 0;

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IkeSuite {
    pub(crate) encryption: Encryption,
    /// `None` with AEAD.
    pub(crate) integrity: Option<Integrity>,
    pub(crate) prf: Prf,
    pub(crate) group: Group,
    /// The group of the additional key exchange, if there is one (RFC 9370).
    pub(crate) additional: Option<Group>,
}

/// The algorithms of a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChildSuite {
    pub(crate) protocol: config::Protocol,
    /// `None` with AH.
    pub(crate) encryption: Option<Encryption>,
    /// `None` with AEAD.
    pub(crate) integrity: Option<Integrity>,
    pub(crate) esn: bool,
    /// The group of its own Diffie-Hellman exchange, if it has one.
    pub(crate) group: Option<Group>,
}

impl IkeSuite {
    /// Whether a policy allows these algorithms.
    pub(crate) fn is_within(&self, policy: &IkePolicy) -> bool {
        policy.encryption.contains(&self.encryption)
            && self.integrity.is_none_or(|i| policy.integrity.contains(&i))
            && policy.prf.contains(&self.prf)
            && policy.dh.contains(&self.group)
            && match self.additional {
                Some(group) => policy.additional_ke.contains(&group),
                None => policy.additional_ke.is_empty(),
            }
    }
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encryption)?;
        self.integrity.map_or(Ok(()), |i| write!(f, "-{i}"))?;
        write!(f, "-{}-{}", self.prf, self.group)?;
        self.additional.map_or(Ok(()), |group| write!(f, "-{group}"))
    }
}

impl fmt::Display for ChildSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [self.encryption.map(|e| e.to_string()), self.integrity.map(|i| i.to_string())];
        f.write_str(if self.protocol == config::Protocol::Ah { "ah:" } else { "" })?;
        f.write_str(&names.into_iter().flatten().collect::<Vec<_>>().join("-"))?;
        self.group.map_or(Ok(()), |group| write!(f, "-{group}"))?;
        f.write_str(if self.esn { "-esn" } else { "" })
    }
}

/// What an IKE policy offers.
pub(crate) fn offer_ike(policy: &IkePolicy) -> Vec<Proposal> {
    let encryption: Vec<_> = ike_encryption(policy).collect();
    offer(&encryption, &policy.integrity, Protocol::Ike, &[], |transforms| {
        transforms.extend(policy.prf.iter().map(|p| prf(*p)));
        transforms.extend(policy.dh.iter().map(|g| group(*g)));
        transforms.extend(policy.additional_ke.iter().map(|g| additional(*g)));
    })
}

/// An IKE SA never goes without encryption, whatever its policy says.
fn ike_encryption(policy: &IkePolicy) -> impl Iterator<Item = Encryption> {
    policy.encryption.iter().copied().filter(|e| *e != Encryption::Null)
}

/// What an IPsec policy offers, with our inbound SPI and the groups of an exchange of its own. AH has no
/// encryption (RFC 7296 section 3.3.3).
pub(crate) fn offer_child(policy: &IpsecPolicy, spi: u32, pfs: &[Group]) -> Vec<Proposal> {
    let spi = spi.to_be_bytes();
    let esn = esn_choices(policy).iter().map(|id| Transform::new(TransformType::Esn, *id, None));
    let rest = pfs.iter().map(|g| group(*g)).chain(esn);
    match policy.protocol {
        config::Protocol::Esp => {
            offer(&policy.encryption, &policy.integrity, Protocol::Esp, &spi, |transforms| {
                transforms.extend(rest.clone());
            })
        }
        config::Protocol::Ah if policy.integrity.is_empty() => Vec::new(),
        config::Protocol::Ah => {
            let integrity = policy.integrity.iter().map(|i| integrity_transform(*i));
            let transforms = integrity.chain(rest).collect();
            vec![Proposal { number: 1, protocol: Protocol::Ah, spi: spi.to_vec(), transforms }]
        }
    }
}

fn esn_choices(policy: &IpsecPolicy) -> &'static [u16] {
    if policy.esn { &[ESN, NO_ESN] } else { &[NO_ESN] }
}

fn offer(
    encryption: &[Encryption],
    integrity: &[Integrity],
    protocol: Protocol,
    spi: &[u8],
    rest: impl Fn(&mut Vec<Transform>),
) -> Vec<Proposal> {
    let aead_first = encryption.first().is_some_and(|e| e.is_aead());
    let mut proposals = Vec::with_capacity(2);
    for aead in [aead_first, !aead_first] {
        let mut transforms: Vec<_> =
            encryption.iter().filter(|e| e.is_aead() == aead).map(|e| encryption_transform(*e)).collect();
        if transforms.is_empty() || (!aead && integrity.is_empty()) {
            continue;
        }
        if !aead {
            transforms.extend(integrity.iter().map(|i| integrity_transform(*i)));
        }
        rest(&mut transforms);
        proposals.push(Proposal {
            number: proposals.len() as u8 + 1,
            protocol,
            spi: spi.to_vec(),
            transforms,
        });
    }
    proposals
}

/// The responder's choice: the suite, and the proposal that answers with it.
pub(crate) fn select_ike(policy: &IkePolicy, offered: &[Proposal]) -> Option<(IkeSuite, Proposal)> {
    ike_encryption(policy).find_map(|encryption| {
        offered.iter().filter(|p| p.protocol == Protocol::Ike).find_map(|proposal| {
            let has = |t: Transform| has(proposal, t);
            let integrity = choose_integrity(encryption, &policy.integrity, proposal)?;
            let prf = policy.prf.iter().copied().find(|p| has(prf(*p)))?;
            let group = policy.dh.iter().copied().find(|g| has(group(*g)))?;
            let additional = match &policy.additional_ke[..] {
                [] => None,
                groups => Some(groups.iter().copied().find(|g| has(additional(*g)))?),
            };
            use TransformType::{AdditionalKe, DiffieHellman, Encryption, Integrity, Prf};
            let known = [Encryption, Integrity, Prf, DiffieHellman];
            if !only_types(proposal, known.into_iter().chain(additional.map(|_| AdditionalKe))) {
                return None;
            }
            let suite = IkeSuite { encryption, integrity, prf, group, additional };
            Some((suite, answer_ike(&suite, proposal.number)))
        })
    })
}

fn answer_ike(suite: &IkeSuite, number: u8) -> Proposal {
    let mut transforms = vec![encryption_transform(suite.encryption)];
    transforms.extend(suite.integrity.map(integrity_transform));
    transforms.extend([prf(suite.prf), group(suite.group)]);
    transforms.extend(suite.additional.map(additional));
    Proposal { number, protocol: Protocol::Ike, spi: Vec::new(), transforms }
}

/// The responder's choice for a Child SA: the suite, the peer's SPI, and the answer with ours.
///
/// `pfs` are the groups one of which it is to have a key exchange of its own in, or none where there are none. The
/// first Child SA never has one (RFC 7296 section 1.2), whatever some peers offer: there `pfs` is `None`, and groups
/// are passed over.
pub(crate) fn select_child(
    policy: &IpsecPolicy,
    offered: &[Proposal],
    spi: u32,
    pfs: Option<&[Group]>,
) -> Option<(ChildSuite, u32, Proposal)> {
    let ciphers = match policy.protocol {
        config::Protocol::Esp => policy.encryption.iter().copied().map(Some).collect(),
        config::Protocol::Ah => vec![None],
    };
    let protocol = Protocol::from(policy.protocol);
    ciphers.into_iter().find_map(|encryption| {
        offered.iter().filter(|p| p.protocol == protocol).find_map(|proposal| {
            let integrity = match encryption {
                Some(encryption) => choose_integrity(encryption, &policy.integrity, proposal)?,
                None => Some(common_integrity(&policy.integrity, proposal)?),
            };
            let says_esn = proposal.transforms.iter().any(|t| t.kind == TransformType::Esn);
            let esn = match says_esn {
                true => *esn_choices(policy)
                    .iter()
                    .find(|id| has(proposal, Transform::new(TransformType::Esn, **id, None)))?,
                false => NO_ESN,
            };
            let own_group = match pfs {
                None | Some([]) => None,
                Some(groups) => Some(groups.iter().copied().find(|g| has(proposal, group(*g)))?),
            };
            let grouped = (pfs.is_none() || own_group.is_some()).then_some(TransformType::DiffieHellman);
            let answered = [TransformType::Integrity, TransformType::Esn];
            let cipher = encryption.map(|_| TransformType::Encryption);
            if !only_types(proposal, answered.into_iter().chain(cipher).chain(grouped)) {
                return None;
            }
            let peer_spi = child_spi(proposal)?;
            let suite = ChildSuite {
                protocol: policy.protocol,
                encryption,
                integrity,
                esn: esn == ESN,
                group: own_group,
            };
            let mut transforms: Vec<_> = encryption.map(encryption_transform).into_iter().collect();
            transforms.extend(integrity.map(integrity_transform));
            transforms.extend(own_group.map(group));
            if says_esn {
                transforms.push(Transform::new(TransformType::Esn, esn, None));
            }
            let spi = spi.to_be_bytes().to_vec();
            Some((suite, peer_spi, Proposal { number: proposal.number, protocol, spi, transforms }))
        })
    })
}

/// The suite a responder answered with; `None` unless it is one we offered.
pub(crate) fn accept_ike(policy: &IkePolicy, answered: &[Proposal]) -> Option<IkeSuite> {
    let [answer] = answered else { return None };
    let (suite, expected) = select_ike(policy, answered)?;
    same_transforms(answer, &expected).then_some(suite)
}

/// The Child SA suite a responder answered with and its SPI; `None` unless it is one we offered.
pub(crate) fn accept_child(
    policy: &IpsecPolicy,
    answered: &[Proposal],
    pfs: Option<&[Group]>,
) -> Option<(ChildSuite, u32)> {
    let [answer] = answered else { return None };
    let (suite, peer_spi, expected) = select_child(policy, answered, 0, pfs)?;
    same_transforms(answer, &expected).then_some((suite, peer_spi))
}

/// An answer names one transform of each type; "no integrity" and "no group" may be said or not.
fn same_transforms(answer: &Proposal, expected: &Proposal) -> bool {
    let said = |t: &&Transform| t.id != 0 || t.kind == TransformType::Esn;
    answer.transforms.iter().filter(said).count() == expected.transforms.len()
}

/// `Some(None)` for AEAD. A proposal mixes both kinds only if it is malformed, and is then not chosen.
fn choose_integrity(
    encryption: Encryption,
    ours: &[Integrity],
    proposal: &Proposal,
) -> Option<Option<Integrity>> {
    if !has(proposal, encryption_transform(encryption)) {
        return None;
    }
    if encryption.is_aead() {
        let mut theirs = proposal.transforms.iter().filter(|t| t.kind == TransformType::Integrity).peekable();
        return (theirs.peek().is_none() || theirs.any(|t| t.id == NO_INTEGRITY)).then_some(None);
    }
    common_integrity(ours, proposal).map(Some)
}

fn common_integrity(ours: &[Integrity], proposal: &Proposal) -> Option<Integrity> {
    ours.iter().copied().find(|i| has(proposal, integrity_transform(*i)))
}

fn has(proposal: &Proposal, wanted: Transform) -> bool {
    proposal.transforms.contains(&wanted)
}

/// A transform type that we do not answer makes the whole proposal unusable, unless it offers to go without.
fn only_types(proposal: &Proposal, known: impl IntoIterator<Item = TransformType>) -> bool {
    let known: Vec<_> = known.into_iter().collect();
    proposal.transforms.iter().all(|t| {
        let without = || proposal.transforms.iter().any(|other| other.kind == t.kind && other.id == 0);
        known.contains(&t.kind) || without()
    })
}

fn child_spi(proposal: &Proposal) -> Option<u32> {
    let spi = u32::from_be_bytes(proposal.spi.as_slice().try_into().ok()?);
    (spi > 255).then_some(spi)
}

fn encryption_transform(encryption: Encryption) -> Transform {
    let (id, bits) = encryption.transform();
    Transform::new(TransformType::Encryption, id, bits)
}

fn integrity_transform(integrity: Integrity) -> Transform {
    Transform::new(TransformType::Integrity, integrity.transform(), None)
}

fn prf(prf: Prf) -> Transform {
    Transform::new(TransformType::Prf, prf.transform(), None)
}

fn group(group: Group) -> Transform {
    Transform::new(TransformType::DiffieHellman, group.number(), None)
}

fn additional(group: Group) -> Transform {
    Transform::new(TransformType::AdditionalKe, group.number(), None)
}

/// A proposal in words: transforms by name, alternatives joined by `|`, types by `-`. Unknown ones go by
/// number.
pub(crate) fn in_words(proposal: &Proposal) -> String {
    let mut kinds: Vec<TransformType> = proposal.transforms.iter().map(|t| t.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let names = |kind| {
        let names = proposal.transforms.iter().filter(|t| t.kind == kind).map(transform_in_words);
        names.collect::<Vec<_>>().join("|")
    };
    let words = kinds.into_iter().map(names).collect::<Vec<_>>().join("-");
    if proposal.protocol == Protocol::Ah { format!("ah:{words}") } else { words }
}

fn transform_in_words(transform: &Transform) -> String {
    let (kind, id) = (transform.kind, transform.id);
    let known = match kind {
        TransformType::Encryption => {
            Encryption::from_transform(id, transform.key_bits).map(|e| e.to_string())
        }
        TransformType::Integrity => Integrity::from_transform(id).map(|i| i.to_string()),
        TransformType::Prf => Prf::from_transform(id).map(|p| p.to_string()),
        TransformType::AdditionalKe if id == 0 => Some("none".to_owned()),
        TransformType::DiffieHellman | TransformType::AdditionalKe => {
            Group::from_number(id).map(|g| g.to_string())
        }
        TransformType::Esn => Some(if id == ESN { "esn" } else { "noesn" }.to_owned()),
        TransformType::Other(_) => None,
    };
    known.unwrap_or_else(|| match transform.key_bits {
        Some(bits) => format!("{}{id}/{bits}", kind_in_words(kind)),
        None => format!("{}{id}", kind_in_words(kind)),
    })
}

fn kind_in_words(kind: TransformType) -> &'static str {
    match kind {
        TransformType::Encryption => "encryption",
        TransformType::Prf => "prf",
        TransformType::Integrity => "integrity",
        TransformType::DiffieHellman => "dh",
        TransformType::AdditionalKe => "additional key exchange",
        TransformType::Esn => "esn",
        TransformType::Other(_) => "transform",
    }
}

/// The numbers of the groups that are named, each once.
pub(crate) fn groups_of(proposals: &[Proposal]) -> Vec<u16> {
    let mut groups: Vec<u16> = Vec::new();
    let named = |t: &&Transform| t.kind == TransformType::DiffieHellman && t.id != 0;
    for transform in proposals.iter().flat_map(|p| &p.transforms).filter(named) {
        if !groups.contains(&transform.id) {
            groups.push(transform.id);
        }
    }
    groups
}

/// The other protocol than ours, where the peer's proposals have nothing but that.
pub(crate) fn other_protocol(ours: config::Protocol, theirs: &[Proposal]) -> Option<config::Protocol> {
    let other = match ours {
        config::Protocol::Esp => config::Protocol::Ah,
        config::Protocol::Ah => config::Protocol::Esp,
    };
    let only_other = !theirs.is_empty() && theirs.iter().all(|p| p.protocol == Protocol::from(other));
    only_other.then_some(other)
}

/// The first transform type, in the order in which people read a proposal, for which no offer of ours meets
/// one of theirs.
pub(crate) fn first_difference(ours: &[Proposal], theirs: &[Proposal]) -> Option<String> {
    use TransformType::*;
    [Encryption, Integrity, Prf, DiffieHellman, AdditionalKe, Esn].into_iter().find_map(|kind| {
        let names = |proposals: &[Proposal]| {
            let mut names: Vec<String> = Vec::new();
            for t in proposals.iter().flat_map(|p| &p.transforms).filter(|t| t.kind == kind) {
                let name = transform_in_words(t);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            names
        };
        let (mut ours, mut theirs) = (names(ours), names(theirs));
        if kind == AdditionalKe && ours.is_empty() != theirs.is_empty() {
            // What says nothing of it wants none.
            [&mut ours, &mut theirs]
                .into_iter()
                .filter(|n| n.is_empty())
                .for_each(|n| n.push("none".to_owned()));
        }
        let differ = !ours.is_empty() && !theirs.is_empty() && ours.iter().all(|name| !theirs.contains(name));
        differ.then(|| {
            format!("{}: {} here, {} there", kind_in_words(kind), ours.join(", "), theirs.join(", "))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ike(encryption: &[Encryption], integrity: &[Integrity], dh: &[Group]) -> IkePolicy {
        IkePolicy {
            encryption: encryption.to_vec(),
            integrity: integrity.to_vec(),
            prf: vec![Prf::Sha256],
            dh: dh.to_vec(),
            ..IkePolicy::default()
        }
    }

    fn ipsec(encryption: &[Encryption], integrity: &[Integrity], esn: bool) -> IpsecPolicy {
        IpsecPolicy {
            encryption: encryption.to_vec(),
            integrity: integrity.to_vec(),
            esn,
            ..IpsecPolicy::default()
        }
    }

    #[test]
    fn aead_and_the_others_are_offered_apart() {
        use Encryption::*;
        let policy = ike(&[Aes256Gcm16, Aes128, Aes128Gcm16], &[Integrity::Sha256], &[Group::X25519]);
        let words: Vec<_> = offer_ike(&policy).iter().map(in_words).collect();
        assert_eq!(words, ["aes256gcm16|aes128gcm16-prfsha256-x25519", "aes128-sha256-prfsha256-x25519"]);
    }

    #[test]
    fn the_responder_chooses_by_its_own_order() {
        use Encryption::*;
        let theirs =
            offer_ike(&ike(&[Aes128, Aes256Gcm16], &[Integrity::Sha1], &[Group::Modp2048, Group::X25519]));
        let policy = ike(&[Aes256Gcm16, Aes128], &[Integrity::Sha1], &[Group::X25519, Group::Modp2048]);
        let (suite, answer) = select_ike(&policy, &theirs).unwrap();
        assert_eq!(suite.to_string(), "aes256gcm16-prfsha256-x25519");
        assert_eq!(answer.number, 2);
        assert_eq!(accept_ike(&policy, &[answer]), Some(suite));
    }

    #[test]
    fn an_answer_that_was_not_offered_is_refused() {
        let policy = ike(&[Encryption::Aes128], &[Integrity::Sha1], &[Group::Modp2048]);
        let both =
            offer_ike(&ike(&[Encryption::Aes128], &[Integrity::Sha1, Integrity::Sha256], &[Group::Modp2048]));
        assert_eq!(accept_ike(&policy, &both), None);
        assert_eq!(accept_ike(&policy, &[]), None);
        let other = offer_ike(&ike(&[Encryption::Aes256], &[Integrity::Sha1], &[Group::Modp2048]));
        assert_eq!(accept_ike(&policy, &other), None);
    }

    #[test]
    fn esn_is_preferred_where_both_can() {
        let (with, without) =
            (ipsec(&[Encryption::Aes128Gcm16], &[], true), ipsec(&[Encryption::Aes128Gcm16], &[], false));
        for (ours, theirs, esn) in [(&with, &with, true), (&with, &without, false), (&without, &with, false)]
        {
            let (suite, peer_spi, answer) =
                select_child(ours, &offer_child(theirs, 0x1234, &[]), 0x5678, None).unwrap();
            assert_eq!((suite.esn, peer_spi), (esn, 0x1234));
            assert_eq!(accept_child(theirs, &[answer], None), Some((suite, 0x5678)));
        }
    }

    #[test]
    fn ah_is_offered_and_taken_without_encryption() {
        let ah = |integrity: &[Integrity], esn| IpsecPolicy {
            protocol: config::Protocol::Ah,
            ..ipsec(&[Encryption::Aes128Gcm16], integrity, esn)
        };
        let theirs = offer_child(&ah(&[Integrity::Sha1, Integrity::Sha256], true), 0x1234, &[]);
        assert_eq!(theirs.iter().map(in_words).collect::<Vec<_>>(), ["ah:sha1|sha256-esn|noesn"]);
        let ours = ah(&[Integrity::Sha256], false);
        let (suite, peer_spi, answer) = select_child(&ours, &theirs, 0x5678, None).unwrap();
        assert_eq!((suite.to_string(), peer_spi), ("ah:sha256".to_owned(), 0x1234));
        assert_eq!((suite.encryption, answer.protocol), (None, Protocol::Ah));
        assert_eq!(accept_child(&ours, &[answer], None), Some((suite, 0x5678)));

        let esp = ipsec(&[Encryption::Aes128], &[Integrity::Sha256], false);
        assert_eq!(select_child(&esp, &theirs, 0x5678, None), None);
        assert_eq!(select_child(&ours, &offer_child(&esp, 0x1234, &[]), 0x5678, None), None);
        assert_eq!(other_protocol(config::Protocol::Esp, &theirs), Some(config::Protocol::Ah));
        assert_eq!(other_protocol(config::Protocol::Ah, &theirs), None);
    }

    #[test]
    fn an_ah_proposal_with_encryption_is_not_taken() {
        let ours = IpsecPolicy { protocol: config::Protocol::Ah, ..ipsec(&[], &[Integrity::Sha256], false) };
        let mut theirs = offer_child(&ours, 0x1234, &[]);
        theirs[0].transforms.push(encryption_transform(Encryption::Aes128));
        assert_eq!(select_child(&ours, &theirs, 0x5678, None), None);
    }

    #[test]
    fn an_ike_sa_is_never_without_encryption() {
        use Encryption::*;
        let careless = ike(&[Null, Aes128], &[Integrity::Sha256], &[Group::X25519]);
        let words: Vec<_> = offer_ike(&careless).iter().map(in_words).collect();
        assert_eq!(words, ["aes128-sha256-prfsha256-x25519"]);
        let mut theirs = offer_ike(&careless);
        theirs[0].transforms[0] = encryption_transform(Null);
        assert_eq!(select_ike(&careless, &theirs), None);
        let child = offer_child(&ipsec(&[Null], &[Integrity::Sha1], false), 0x1234, &[]);
        assert_eq!(child.iter().map(in_words).collect::<Vec<_>>(), ["null-sha1-noesn"]);
    }

    #[test]
    fn reserved_spis_are_refused() {
        let policy = ipsec(&[Encryption::Aes128Gcm16], &[], false);
        assert_eq!(select_child(&policy, &offer_child(&policy, 255, &[]), 300, None), None);
    }

    #[test]
    fn the_first_difference_is_named() {
        let ours = offer_ike(&ike(&[Encryption::Aes256], &[Integrity::Sha256], &[Group::Modp2048]));
        let theirs = offer_ike(&ike(&[Encryption::Aes256], &[Integrity::Sha1], &[Group::Modp1024]));
        assert_eq!(first_difference(&ours, &theirs).unwrap(), "integrity: sha256 here, sha1 there");
        assert_eq!(first_difference(&ours, &ours), None);
    }
}
