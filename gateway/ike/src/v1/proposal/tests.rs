use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    algorithm::{Encryption, Integrity},
    config::{self, IkePolicy, IpsecPolicy, Mode, Version},
    error::Cause,
    event::Phase,
    v1::wire::{Attribute, NatTraversal, NotifyType, ProtocolId, sa::Value},
};

fn ike(encryption: &[Encryption], integrity: &[Integrity], dh: &[Group]) -> IkePolicy {
    IkePolicy {
        version: Version::Ikev1,
        encryption: encryption.to_vec(),
        integrity: integrity.to_vec(),
        dh: dh.to_vec(),
        ..IkePolicy::default()
    }
}

fn ipsec(encryption: &[Encryption], integrity: &[Integrity], pfs: &[Group]) -> IpsecPolicy {
    IpsecPolicy {
        encryption: encryption.to_vec(),
        integrity: integrity.to_vec(),
        pfs: pfs.to_vec(),
        ..IpsecPolicy::default()
    }
}

fn offer(policy: &IkePolicy) -> SecurityAssociation {
    offer_phase_one(policy).unwrap()
}

fn offer_two(policy: &IpsecPolicy) -> SecurityAssociation {
    offer_phase_two(policy, 0x1234, Encapsulation::Tunnel).unwrap()
}

const TUNNEL: [Encapsulation; 1] = [Encapsulation::Tunnel];

#[test]
fn phase_one_offers_every_combination_best_first() {
    use Encryption::*;
    let policy = ike(
        &[Aes256, TripleDes, Des],
        &[Integrity::Sha256, Integrity::Md5],
        &[Group::Modp2048, Group::X25519],
    );
    let sa = offer(&policy);
    assert_eq!(
        in_words(&sa),
        [
            "aes256-sha256-modp2048",
            "aes256-sha256-x25519",
            "aes256-md5-modp2048",
            "aes256-md5-x25519",
            "3des-sha256-modp2048",
            "3des-sha256-x25519",
            "3des-md5-modp2048",
            "3des-md5-x25519",
            "des-sha256-modp2048",
            "des-sha256-x25519",
            "des-md5-modp2048",
            "des-md5-x25519",
        ]
    );
    let numbers: Vec<_> = sa.proposals[0].transforms.iter().map(|t| t.number).collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
}

/// Appendix A of RFC 2409 and RFC 3602 have the numbers.
#[test]
fn phase_one_in_octets() {
    let policy = IkePolicy {
        lifetime: Duration::from_secs(86_400),
        ..ike(&[Encryption::Aes128], &[Integrity::Sha1], &[Group::Modp1024])
    };
    let attributes = &offer(&policy).proposals[0].transforms[0].attributes;
    let short = |kind, value| Attribute { kind, value: Value::Short(value) };
    let expected = [short(1, 7), short(14, 128), short(2, 2), short(4, 2), short(3, 1), short(11, 1)];
    assert_eq!(attributes[..6], expected);
    assert_eq!(attributes[6], Attribute { kind: 12, value: Value::Long(vec![0, 1, 0x51, 0x80]) });
}

#[test]
fn aggressive_mode_offers_its_first_group_alone() {
    let policy = IkePolicy {
        mode: Mode::Aggressive,
        ..ike(&[Encryption::Aes128], &[Integrity::Sha1], &[Group::Modp1024, Group::Modp2048])
    };
    assert_eq!(in_words(&offer(&policy)), ["aes128-sha1-modp1024"]);
    let answer = select_phase_one(&policy, &offer(&policy)).unwrap().1;
    assert!(accept_phase_one(&policy, &answer).is_some());

    // As responder it takes whichever of its groups the initiator chose, and only that.
    let main = IkePolicy { mode: Mode::Main, dh: vec![Group::Modp2048, Group::Modp1024], ..policy.clone() };
    let (suite, _) = select_phase_one(&policy, &offer(&main)).unwrap();
    assert_eq!(suite.group, Group::Modp2048);
    let answer =
        select_phase_one(&main, &offer(&IkePolicy { dh: vec![Group::Modp2048], ..main.clone() })).unwrap().1;
    assert_eq!(accept_phase_one(&policy, &answer), None);
}

#[test]
fn what_ikev1_has_no_numbers_for_is_left_out_or_told() {
    use Encryption::*;
    let mixed = ike(&[Aes256Gcm16, ChaCha20Poly1305, Aes128], &[Integrity::Sha256], &[Group::Modp2048]);
    assert_eq!(in_words(&offer(&mixed)), ["aes128-sha256-modp2048"]);
    let cause = offer_phase_one(&IkePolicy { version: Version::Ikev1, ..IkePolicy::default() }).unwrap_err();
    assert!(matches!(&cause, Cause::NothingToOffer { phase: Phase::One, .. }));
    assert_eq!(
        cause.to_string(),
        "IKEv1 cannot negotiate aes256gcm16 in phase 1: configure others, or the other version"
    );
    let chacha = ipsec(&[ChaCha20Poly1305], &[], &[]);
    let cause = offer_phase_two(&chacha, 300, Encapsulation::Tunnel).unwrap_err();
    assert_eq!(
        cause.to_string(),
        "IKEv1 cannot negotiate chacha20poly1305 in phase 2: configure others, or the other version"
    );
}

#[test]
fn phase_one_offers_no_more_than_a_proposal_can_hold() {
    let ciphers =
        [Encryption::Des, Encryption::TripleDes, Encryption::Aes128, Encryption::Aes192, Encryption::Aes256];
    let policy = ike(&ciphers, &Integrity::ALL, &Group::ALL);
    let sa = offer(&policy);
    assert_eq!(sa.proposals[0].transforms.len(), 255);
    let octets = crate::v1::wire::Payload::Sa(sa).body();
    assert!(octets.len() < 10_000);
}

#[test]
fn the_responder_chooses_by_its_own_order() {
    use Encryption::*;
    let theirs =
        ike(&[Aes128, Aes256], &[Integrity::Sha1, Integrity::Sha256], &[Group::Modp1024, Group::Modp2048]);
    let ours =
        ike(&[Aes256, Aes128], &[Integrity::Sha256, Integrity::Sha1], &[Group::Modp2048, Group::Modp1024]);
    let (suite, answer) = select_phase_one(&ours, &offer(&theirs)).unwrap();
    assert_eq!(suite.to_string(), "aes256-sha256-modp2048");
    assert_eq!(suite.lifetime, Lifetime { time: Some(theirs.lifetime), bytes: None });
    assert_eq!(accept_phase_one(&theirs, &answer), Some(suite));
    // The transform goes back as it came.
    let offered = offer(&theirs);
    assert!(offered.proposals[0].transforms.contains(&answer.proposals[0].transforms[0]));
}

#[test]
fn an_answer_that_was_not_offered_is_refused() {
    let policy = ike(&[Encryption::Aes128], &[Integrity::Sha1], &[Group::Modp2048]);
    let other = |encryption, integrity, group| offer(&ike(&[encryption], &[integrity], &[group]));
    for answer in [
        other(Encryption::Aes256, Integrity::Sha1, Group::Modp2048),
        other(Encryption::Aes128, Integrity::Sha256, Group::Modp2048),
        other(Encryption::Aes128, Integrity::Sha1, Group::Modp1024),
        SecurityAssociation::default(),
        SecurityAssociation {
            proposals: vec![offer(&policy).proposals[0].clone(), offer(&policy).proposals[0].clone()],
        },
        offer(&ike(&[Encryption::Aes128], &[Integrity::Sha1, Integrity::Md5], &[Group::Modp2048])),
    ] {
        assert_eq!(accept_phase_one(&policy, &answer), None);
    }
    // Some responders put their own lifetime there.
    let shorter = IkePolicy { lifetime: Duration::from_secs(3600), ..policy.clone() };
    let suite = accept_phase_one(&policy, &offer(&shorter)).unwrap();
    assert_eq!(suite.lifetime.time, Some(Duration::from_secs(3600)));
}

fn with(sa: &SecurityAssociation, change: impl Fn(&mut Transform)) -> SecurityAssociation {
    let mut sa = sa.clone();
    sa.proposals.iter_mut().flat_map(|p| &mut p.transforms).for_each(change);
    sa
}

fn set(transform: &mut Transform, kind: u16, number: u32) {
    transform.attributes.retain(|attribute| attribute.kind != kind);
    transform.attributes.push(Attribute::new(kind, number));
}

#[test]
fn transforms_that_ask_for_more_are_not_chosen() {
    let policy = ike(&[Encryption::Aes128], &[Integrity::Sha1], &[Group::Modp2048]);
    let good = offer(&policy);
    assert!(select_phase_one(&policy, &good).is_some());
    for bad in [
        with(&good, |t| set(t, 13, 1)),                           // a PRF of its own
        with(&good, |t| t.attributes.push(Attribute::new(2, 1))), // two hashes
        with(&good, |t| set(t, 3, 3)),                            // a certificate
        with(&good, |t| t.id = 2),
        with(&good, |t| t.attributes.retain(|a| a.kind != 14)), // AES of no length
        with(&good, |t| t.attributes.push(Attribute::new(11, 1))), // a unit without a lifetime
        with(&good, |t| set(t, 11, 9)),                         // an unknown unit
        with(&good, |t| t.attributes.push(Attribute { kind: 4, value: Value::Long(vec![]) })),
    ] {
        assert_eq!(select_phase_one(&policy, &bad), None, "{bad:?}");
    }
    // A key length that goes without saying, and numbers in the long form.
    let des = ike(&[Encryption::TripleDes], &[Integrity::Sha1], &[Group::Modp2048]);
    let said = with(&offer(&des), |t| set(t, 14, 192));
    assert!(select_phase_one(&des, &said).is_some());
    let long = with(&good, |t| {
        t.attributes.iter_mut().for_each(|a| {
            a.value = Value::Long(a.number().unwrap().to_be_bytes().to_vec());
        });
    });
    let (_, answer) = select_phase_one(&policy, &long).unwrap();
    assert_eq!(answer.proposals[0].transforms, long.proposals[0].transforms);
}

#[test]
fn proposals_that_belong_together_are_passed_over() {
    let policy = ipsec(&[Encryption::Aes128], &[Integrity::Sha1], &[]);
    let mut sa = offer_two(&policy);
    let compression = Proposal { protocol: ProtocolId::Other(4), spi: vec![0, 3], ..sa.proposals[0].clone() };
    sa.proposals.push(compression);
    assert_eq!(select_phase_two(&policy, &sa, 300, &TUNNEL), None);
    sa.proposals.push(Proposal { number: 2, ..offer_two(&policy).proposals[0].clone() });
    let (.., answer) = select_phase_two(&policy, &sa, 300, &TUNNEL).unwrap();
    assert_eq!(answer.proposals[0].number, 2);
}

/// As Cisco and strongSwan spread their offers over proposals.
#[test]
fn one_suite_a_proposal_is_understood_too() {
    let policy = ipsec(&[Encryption::Aes256, Encryption::Aes128], &[Integrity::Sha256, Integrity::Sha1], &[]);
    let spread = |sa: SecurityAssociation| {
        let proposals = sa.proposals[0].transforms.iter().enumerate().map(|(at, transform)| Proposal {
            number: at as u8 + 1,
            spi: (0x1000u32 + at as u32).to_be_bytes().to_vec(),
            transforms: vec![transform.clone()],
            ..sa.proposals[0].clone()
        });
        SecurityAssociation { proposals: proposals.collect() }
    };
    let theirs = ipsec(&[Encryption::Aes128, Encryption::Aes256], &[Integrity::Sha1], &[]);
    let (suite, spi, answer) = select_phase_two(&policy, &spread(offer_two(&theirs)), 300, &TUNNEL).unwrap();
    assert_eq!((suite.to_string().as_str(), spi), ("aes256-sha1", 0x1001));
    assert_eq!(accept_phase_two(&theirs, &answer, Encapsulation::Tunnel), Some((suite, 300)));
    let phase_one = ike(&[Encryption::Aes128, Encryption::Aes256], &[Integrity::Sha1], &[Group::Modp2048]);
    let mut one = spread(offer(&phase_one));
    one.proposals.iter_mut().for_each(|p| p.spi = vec![0; 8]);
    assert_eq!(select_phase_one(&phase_one, &one).unwrap().0.to_string(), "aes128-sha1-modp2048");
}

/// Sections 4.4 and 4.5 of RFC 2407 and RFC 4868 have the numbers.
#[test]
fn phase_two_in_octets() {
    let policy = IpsecPolicy {
        lifetime: Duration::from_secs(3600),
        lifetime_bytes: Some(1 << 30),
        ..ipsec(&[Encryption::Aes256], &[Integrity::Sha256], &[Group::Modp2048])
    };
    let encapsulation = Encapsulation::UdpTunnel(NatTraversal::Draft);
    let sa = offer_phase_two(&policy, 0x01020304, encapsulation).unwrap();
    let proposal = &sa.proposals[0];
    assert_eq!((proposal.protocol, &proposal.spi[..]), (ProtocolId::Esp, &[1, 2, 3, 4][..]));
    let short = |kind, value| Attribute { kind, value: Value::Short(value) };
    assert_eq!(
        proposal.transforms[0].attributes,
        [
            short(1, 1),
            short(2, 3600),
            short(1, 2),
            Attribute { kind: 2, value: Value::Long(vec![0, 0x10, 0, 0]) },
            short(3, 14),
            short(4, 61443),
            short(5, 5),
            short(6, 256),
        ]
    );
    assert_eq!(proposal.transforms[0].id, 12);
}

#[test]
fn every_suite_of_phase_two_survives() {
    for protocol in [config::Protocol::Esp, config::Protocol::Ah] {
        for encryption in Encryption::ALL {
            for integrity in Integrity::ALL {
                let policy = IpsecPolicy { protocol, ..ipsec(&[encryption], &[integrity], &[]) };
                let Ok(sa) = offer_phase_two(&policy, 0x1234, Encapsulation::Tunnel) else {
                    assert_eq!(encryption, Encryption::ChaCha20Poly1305);
                    continue;
                };
                let (suite, spi, answer) = select_phase_two(&policy, &sa, 0x5678, &TUNNEL).unwrap();
                assert_eq!(spi, 0x1234);
                assert_eq!(accept_phase_two(&policy, &answer, Encapsulation::Tunnel), Some((suite, 0x5678)));
                match protocol {
                    config::Protocol::Ah => {
                        assert_eq!((suite.encryption, suite.integrity), (None, Some(integrity)));
                    }
                    config::Protocol::Esp => {
                        let expected = (!encryption.is_aead()).then_some(integrity);
                        assert_eq!((suite.encryption, suite.integrity), (Some(encryption), expected));
                    }
                }
                assert_eq!(in_words(&sa), [suite.to_string()]);
            }
        }
    }
}

#[test]
fn every_suite_of_phase_one_survives() {
    for encryption in
        [Encryption::Des, Encryption::TripleDes, Encryption::Aes128, Encryption::Aes192, Encryption::Aes256]
    {
        for integrity in Integrity::ALL {
            for group in Group::ALL {
                let policy = ike(&[encryption], &[integrity], &[group]);
                let (suite, answer) = select_phase_one(&policy, &offer(&policy)).unwrap();
                assert_eq!((suite.encryption, suite.integrity, suite.group), (encryption, integrity, group));
                assert_eq!(accept_phase_one(&policy, &answer), Some(suite));
                assert_eq!(in_words(&answer), [suite.to_string()]);
            }
        }
    }
}

#[test]
fn perfect_forward_secrecy_must_be_with_a_group_of_ours_or_not_at_all() {
    let policy = |pfs: &[Group]| ipsec(&[Encryption::Aes128], &[Integrity::Sha1], pfs);
    let both = [Group::Modp2048, Group::P256];
    for (ours, theirs, group) in [
        (&[][..], &[][..], Some(None)),
        (&both[..], &both[1..], Some(Some(Group::P256))),
        (&both[..1], &both[1..], None),
        (&both[..], &[][..], None),
        (&[][..], &both[..], None),
    ] {
        let selected = select_phase_two(&policy(ours), &offer_two(&policy(theirs)), 300, &TUNNEL);
        assert_eq!(selected.map(|(suite, ..)| suite.group), group, "{ours:?} {theirs:?}");
    }
    let (.., answer) = select_phase_two(&policy(&both), &offer_two(&policy(&both)), 300, &TUNNEL).unwrap();
    assert!(accept_phase_two(&policy(&both), &answer, Encapsulation::Tunnel).is_some());
    assert_eq!(accept_phase_two(&policy(&both[1..]), &answer, Encapsulation::Tunnel), None);
    assert_eq!(accept_phase_two(&policy(&[]), &answer, Encapsulation::Tunnel), None);
}

#[test]
fn encapsulation_goes_by_the_path() {
    let policy = ipsec(&[Encryption::Aes128], &[Integrity::Sha1], &[]);
    let udp = [NatTraversal::Rfc3947, NatTraversal::Draft].map(Encapsulation::UdpTunnel);
    let offered = |encapsulation| offer_phase_two(&policy, 300, encapsulation).unwrap();
    for encapsulation in udp {
        let sa = offered(encapsulation);
        assert_eq!(select_phase_two(&policy, &sa, 300, &TUNNEL), None);
        let (suite, _, answer) = select_phase_two(&policy, &sa, 300, &udp).unwrap();
        assert_eq!(suite.encapsulation, encapsulation);
        assert!(accept_phase_two(&policy, &answer, encapsulation).is_some());
        assert_eq!(accept_phase_two(&policy, &answer, Encapsulation::Tunnel), None);
        assert_eq!(in_words(&sa), ["aes128-sha1"]);
    }
    let sa = offered(Encapsulation::Tunnel);
    let transport = with(&sa, |t| set(t, 4, 2));
    assert_eq!(select_phase_two(&policy, &transport, 300, &[TUNNEL[0], udp[0], udp[1]]), None);
    assert_eq!(in_words(&transport), ["aes128-sha1-transport"]);
    assert_eq!(first_difference(&sa, &transport).unwrap(), "encapsulation: tunnel here, transport there");
    let silent = with(&sa, |t| t.attributes.retain(|a| a.kind != 4));
    assert!(select_phase_two(&policy, &silent, 300, &TUNNEL).is_some());
}

#[test]
fn reserved_spis_are_refused() {
    let policy = ipsec(&[Encryption::Aes128Gcm16], &[], &[]);
    for (spi, taken) in [(0, false), (255, false), (256, true)] {
        let sa = offer_phase_two(&policy, spi, Encapsulation::Tunnel).unwrap();
        assert_eq!(select_phase_two(&policy, &sa, 300, &TUNNEL).is_some(), taken);
    }
    let mut sa = offer_two(&policy);
    sa.proposals[0].spi = vec![1; 16];
    assert_eq!(select_phase_two(&policy, &sa, 300, &TUNNEL), None);
}

#[test]
fn differences_are_named() {
    use Encryption::*;
    let base = ike(&[Aes256], &[Integrity::Sha256], &[Group::Modp2048]);
    for (theirs, words) in [
        (
            ike(&[Des, TripleDes], &[Integrity::Sha1], &[Group::Modp2048]),
            "encryption: aes256 here, des, 3des there",
        ),
        (ike(&[Aes256], &[Integrity::Sha1], &[Group::Modp1024]), "integrity: sha256 here, sha1 there"),
        (ike(&[Aes256], &[Integrity::Sha256], &[Group::Modp1024]), "dh: modp2048 here, modp1024 there"),
    ] {
        assert_eq!(first_difference(&offer(&base), &offer(&theirs)).unwrap(), words);
    }
    assert_eq!(first_difference(&offer(&base), &offer(&base)), None);
    let xauth = with(&offer(&base), |t| set(t, 3, 65001));
    assert_eq!(
        first_difference(&offer(&base), &xauth).unwrap(),
        "authentication: pre-shared key here, pre-shared key with XAUTH there"
    );
    assert_eq!(in_words(&xauth), ["aes256-sha256-pre-shared key with XAUTH-modp2048"]);
    assert_eq!(other_authentication(&xauth).unwrap(), "pre-shared key with XAUTH");
    assert_eq!(other_authentication(&offer(&base)), None);

    let two = |pfs: &[Group]| offer_two(&ipsec(&[Aes256], &[Integrity::Sha1], pfs));
    assert_eq!(
        first_difference(&two(&[Group::Modp2048]), &two(&[])).unwrap(),
        "pfs: modp2048 here, none there"
    );
    let ah = IpsecPolicy { protocol: config::Protocol::Ah, ..ipsec(&[], &[Integrity::Sha1], &[]) };
    assert_eq!(first_difference(&two(&[]), &offer_two(&ah)).unwrap(), "protocol: ESP here, AH there");
    assert_eq!(in_words(&offer_two(&ah)), ["ah:sha1"]);
    assert_eq!(other_protocol(config::Protocol::Esp, &offer_two(&ah)), Some(config::Protocol::Ah));
    assert_eq!(other_protocol(config::Protocol::Ah, &offer_two(&ah)), None);
    assert_eq!(other_protocol(config::Protocol::Esp, &SecurityAssociation::default()), None);
}

#[test]
fn what_has_no_name_goes_by_number() {
    let base = offer(&ike(&[Encryption::Aes256], &[Integrity::Sha256], &[Group::Modp2048]));
    let strange = with(&base, |t| {
        set(t, 1, 3);
        set(t, 2, 70_000);
        set(t, 4, 25);
        set(t, 99, 1);
    });
    assert_eq!(in_words(&strange), ["encryption3/256-hash65535-dh25-attribute99"]);
    let many = SecurityAssociation {
        proposals: vec![Proposal {
            transforms: (0..100)
                .map(|at| {
                    let mut transform = base.proposals[0].transforms[0].clone();
                    set(&mut transform, 4, 100 + at);
                    transform
                })
                .collect(),
            ..base.proposals[0].clone()
        }],
    };
    let words = in_words(&many);
    assert_eq!((words.len(), words.last().map(String::as_str)), (25, Some("76 more")));
}

#[test]
fn responder_lifetime_tells_both_units() {
    let lifetime = Lifetime { time: Some(Duration::from_secs(86_400)), bytes: Some(5 << 30) };
    let child = lifetime.notify_child(ProtocolId::Esp, 0x1234);
    assert_eq!((child.kind, &child.spi[..]), (NotifyType::RESPONDER_LIFETIME, &[0, 0, 0x12, 0x34][..]));
    assert_eq!(Lifetime::of_notify(&child), Some(lifetime));
    let isakmp = lifetime.notify_isakmp((1, 2));
    assert_eq!(Lifetime::of_notify(&isakmp), Some(lifetime));
    // About the ISAKMP SA, but with the numbers of phase 2.
    let other = crate::v1::wire::Notify { data: child.data.clone(), ..isakmp };
    assert_eq!(Lifetime::of_notify(&other), Some(lifetime));
    let broken = crate::v1::wire::Notify { data: vec![0x80, 2, 0, 1], ..child.clone() };
    assert_eq!(Lifetime::of_notify(&broken), None);
    let replay = crate::v1::wire::Notify { kind: NotifyType::REPLAY_STATUS, ..child };
    assert_eq!(Lifetime::of_notify(&replay), None);

    let shorter = Lifetime { time: Some(Duration::from_secs(60)), bytes: None };
    assert_eq!(lifetime.min(shorter), Lifetime { time: shorter.time, bytes: lifetime.bytes });
}

proptest! {
    /// Whatever a peer proposes is chosen from, put in words and compared without a panic, and what is chosen is
    /// within the policy.
    #[test]
    fn anything_proposed_is_dealt_with(
        numbers in proptest::collection::vec((0u8..4, 0u8..6, 0usize..7), 1..4),
        attributes in proptest::collection::vec((0u16..20, prop_oneof![0u32..8, any::<u32>()], any::<bool>()), 0..40),
    ) {
        let mut attributes = attributes.into_iter().map(|(kind, number, long)| match long {
            true => Attribute { kind, value: Value::Long(number.to_be_bytes()[number as usize % 4..].to_vec()) },
            false => Attribute { kind, value: Value::Short(number as u16) },
        });
        let proposals = numbers.into_iter().map(|(number, protocol, count)| Proposal {
            number,
            protocol: ProtocolId::from_number(protocol),
            spi: vec![1; usize::from(protocol) * 2],
            transforms: (0..count)
                .map(|at| Transform { number: at as u8, id: at as u8, attributes: attributes.by_ref().take(6).collect() })
                .collect(),
        });
        let sa = SecurityAssociation { proposals: proposals.collect() };
        let one = ike(&[Encryption::Des, Encryption::Aes128], &Integrity::ALL, &Group::ALL);
        let two = ipsec(&Encryption::ALL, &Integrity::ALL, &Group::ALL);
        if let Some((suite, _)) = select_phase_one(&one, &sa) {
            prop_assert!(one.encryption.contains(&suite.encryption));
        }
        if let Some((suite, ..)) = select_phase_two(&two, &sa, 300, &TUNNEL) {
            prop_assert!(suite.encryption.is_some() && suite.group.is_some());
        }
        let _ = (in_words(&sa), other_authentication(&sa), other_protocol(config::Protocol::Esp, &sa));
        let _ = (first_difference(&offer(&one), &sa), first_difference(&offer_two(&two), &sa));
        let _ = (accept_phase_one(&one, &sa), accept_phase_two(&two, &sa, Encapsulation::Tunnel));
    }
}
