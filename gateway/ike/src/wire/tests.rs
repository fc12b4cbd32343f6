use proptest::prelude::*;

use super::{payload::*, *};
use crate::{config::Version, selector::TrafficSelector};

fn transform() -> impl Strategy<Value = Transform> {
    (1u8..=7, any::<u16>(), any::<Option<u16>>()).prop_map(|(kind, id, key_bits)| {
        let kind = match kind {
            1 => TransformType::Encryption,
            2 => TransformType::Prf,
            3 => TransformType::Integrity,
            4 => TransformType::DiffieHellman,
            5 => TransformType::Esn,
            6 => TransformType::AdditionalKe,
            other => TransformType::Other(other),
        };
        Transform::new(kind, id, key_bits)
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Ike), Just(Protocol::Ah), Just(Protocol::Esp)]
}

fn octets(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), range)
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    (any::<u8>(), any::<(u16, u16)>(), any::<bool>(), any::<(u128, u128)>()).prop_map(
        |(protocol, p, v4, a)| {
            let address = |bits: u128| match v4 {
                true => std::net::Ipv4Addr::from_bits(bits as u32).into(),
                false => std::net::IpAddr::from(std::net::Ipv6Addr::from_bits(bits)),
            };
            let (a, b): (std::net::IpAddr, _) = (address(a.0), address(a.1));
            TrafficSelector { protocol, ports: p.0.min(p.1)..=p.0.max(p.1), start: a.min(b), end: a.max(b) }
        },
    )
}

pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    let proposal = (any::<u8>(), protocol(), octets(0..9), proptest::collection::vec(transform(), 0..6))
        .prop_map(|(number, protocol, spi, transforms)| Proposal { number, protocol, spi, transforms });
    let notify = (any::<u16>(), proptest::option::of((protocol(), octets(1..9))), octets(0..40))
        .prop_map(|(kind, about, data)| Notify { kind: NotifyType(kind), about, data });
    let selectors = || proptest::collection::vec(selector(), 0..5);
    prop_oneof![
        proptest::collection::vec(proposal, 0..4).prop_map(Payload::Sa),
        (any::<u16>(), octets(0..300)).prop_map(|(group, public)| Payload::KeyExchange { group, public }),
        (any::<u8>(), octets(0..30)).prop_map(|(kind, data)| Payload::IdInitiator { kind, data }),
        (any::<u8>(), octets(0..30)).prop_map(|(kind, data)| Payload::IdResponder { kind, data }),
        (any::<u8>(), octets(0..40)).prop_map(|(method, data)| Payload::Auth { method, data }),
        octets(16..257).prop_map(Payload::Nonce),
        notify.prop_map(Payload::Notify),
        proptest::collection::vec(any::<u32>(), 0..4)
            .prop_map(|spis| Payload::Delete { protocol: Protocol::Esp, spis })
            .prop_filter(
                "no SPIs mean the IKE SA",
                |p| !matches!(p, Payload::Delete { spis, .. } if spis.is_empty())
            ),
        Just(Payload::Delete { protocol: Protocol::Ike, spis: vec![] }),
        selectors().prop_map(Payload::TsInitiator),
        selectors().prop_map(Payload::TsResponder),
    ]
}

proptest! {
    #[test]
    fn a_message_survives_the_wire(
        payloads in proptest::collection::vec(payload(), 0..8),
        spis in (1u64.., any::<u64>()),
        bits in any::<(bool, bool)>(),
        message_id in any::<u32>(),
        exchange in prop::sample::select(ExchangeType::of(Version::Ikev2).collect::<Vec<_>>()),
    ) {
        let header = Header {
            initiator_spi: spis.0,
            responder_spi: spis.1,
            exchange,
            from_initiator: bits.0,
            response: bits.1,
            message_id,
        };
        let message = encode_message(header, &payloads);
        let (decoded, first, rest) = Header::decode(&message).unwrap();
        prop_assert_eq!(decoded, header);
        prop_assert_eq!(decode_chain(first, rest).unwrap(), payloads);
        for cut in 0..message.len() {
            prop_assert!(Header::decode(&message[..cut]).is_err());
        }
    }

    #[test]
    fn random_octets_are_refused_or_taken_but_never_panic(first in any::<u8>(), bytes in octets(0..400)) {
        let _ = Header::decode(&bytes);
        let _ = decode_chain(first, &bytes);
    }

    #[test]
    fn a_flipped_octet_never_panics(
        payloads in proptest::collection::vec(payload(), 1..6),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut chain = Vec::new();
        encode_chain(&payloads, &mut chain);
        let at = at.index(chain.len());
        chain[at] ^= 1 << bit;
        let _ = decode_chain(first_type(&payloads), &chain);
    }
}

#[test]
fn unknown_payloads_are_skipped_unless_critical() {
    let chain = [0, 0, 0, 6, 1, 2];
    assert_eq!(decode_chain(200, &chain).unwrap(), [Payload::Ignored { number: 200 }]);
    let critical = [0, 0x80, 0, 6, 1, 2];
    assert_eq!(decode_chain(200, &critical), Err(WireError::Critical(200)));
    assert_eq!(decode_chain(43, &critical).unwrap(), [Payload::Ignored { number: 43 }]);
}

#[test]
fn other_versions_are_told_apart() {
    let header = Header {
        initiator_spi: 1,
        responder_spi: 0,
        exchange: ExchangeType::IkeSaInit,
        from_initiator: true,
        response: false,
        message_id: 0,
    };
    let mut message = encode_message(header, &[]);
    message[17] = 0x10;
    assert_eq!(Header::decode(&message), Err(WireError::Version(1)));
}

#[test]
fn more_transforms_than_anybody_needs_are_refused() {
    let proposal = |transforms| Proposal {
        number: 1,
        protocol: Protocol::Ike,
        spi: vec![],
        transforms: vec![Transform::new(TransformType::Prf, 5, None); transforms],
    };
    let decoded = |proposals: Vec<Proposal>| {
        let mut out = Vec::new();
        encode_chain(&[Payload::Sa(proposals)], &mut out);
        decode_chain(33, &out).map(|_| ())
    };
    let refused = Err(WireError::Field("number of transforms"));
    assert_eq!(decoded(vec![proposal(128); 4]), Ok(()));
    assert_eq!(decoded(vec![proposal(171); 3]), refused);
    assert_eq!(decoded(vec![proposal(0); 513]), refused);
}
