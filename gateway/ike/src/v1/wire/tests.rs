use std::net::IpAddr;

use proptest::prelude::*;

use super::{payload::*, sa::*, *};
use crate::{
    config::Version,
    v1::id::Identification,
    wire::{ExchangeType, WireError},
};

fn octets(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), range)
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value = prop_oneof![any::<u16>().prop_map(Value::Short), octets(0..9).prop_map(Value::Long)];
    (0u16..0x8000, value).prop_map(|(kind, value)| Attribute { kind, value })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let transform = (any::<u8>(), any::<u8>(), proptest::collection::vec(attribute(), 0..6))
        .prop_map(|(number, id, attributes)| Transform { number, id, attributes });
    (any::<u8>(), any::<u8>(), octets(0..17), proptest::collection::vec(transform, 0..6)).prop_map(
        |(number, protocol, spi, transforms)| Proposal {
            number,
            protocol: ProtocolId::from_number(protocol),
            spi,
            transforms,
        },
    )
}

fn nat() -> impl Strategy<Value = NatTraversal> {
    prop_oneof![Just(NatTraversal::Draft), Just(NatTraversal::Rfc3947)]
}

fn delete() -> impl Strategy<Value = Delete> {
    let children = (any::<bool>(), proptest::collection::vec(any::<u32>(), 1..5))
        .prop_map(|(ah, spis)| Delete::children(if ah { ProtocolId::Ah } else { ProtocolId::Esp }, &spis));
    prop_oneof![children, any::<(u64, u64)>().prop_map(Delete::isakmp)]
}

pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    let notify =
        (any::<u8>(), octets(0..17), any::<u16>(), octets(0..40)).prop_map(|(protocol, spi, kind, data)| {
            Notify { protocol: ProtocolId::from_number(protocol), spi, kind: NotifyType(kind), data }
        });
    let id = (any::<u8>(), any::<u8>(), any::<u16>(), octets(0..40))
        .prop_map(|(kind, protocol, port, data)| Identification { kind, protocol, port, data });
    let fragment = (any::<u16>(), any::<u8>(), any::<bool>(), octets(0..300))
        .prop_map(|(id, number, last, data)| FragmentPayload { id, number, last, data });
    prop_oneof![
        proptest::collection::vec(proposal(), 1..4)
            .prop_map(|proposals| Payload::Sa(SecurityAssociation { proposals })),
        octets(0..300).prop_map(Payload::KeyExchange),
        id.prop_map(Payload::Id),
        octets(0..65).prop_map(Payload::Hash),
        octets(8..257).prop_map(Payload::Nonce),
        notify.prop_map(Payload::Notify),
        delete().prop_map(Payload::Delete),
        octets(0..40).prop_map(Payload::VendorId),
        (nat(), octets(0..65)).prop_map(|(nat, hash)| Payload::NatD(nat, hash)),
        (nat(), any::<IpAddr>()).prop_map(|(nat, address)| Payload::NatOa(nat, address)),
        fragment.prop_map(Payload::Fragment),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    let exchange = prop::sample::select(ExchangeType::of(Version::Ikev1).collect::<Vec<_>>());
    (1u64.., any::<u64>(), exchange, any::<[bool; 3]>(), any::<u32>()).prop_map(
        |(initiator_cookie, responder_cookie, exchange, flags, message_id)| Header {
            encrypted: flags[0],
            commit: flags[1],
            authentication_only: flags[2],
            ..Header::new(initiator_cookie, responder_cookie, exchange, message_id)
        },
    )
}

proptest! {
    #[test]
    fn a_message_survives_the_wire(header in header(), payloads in proptest::collection::vec(payload(), 0..8)) {
        let message = encode_message(header, &payloads);
        let (decoded, first, rest) = Header::decode(&message).unwrap();
        prop_assert_eq!(decoded, header);
        let chain = Chain::decode(first, rest).unwrap();
        prop_assert_eq!(&chain.payloads, &payloads);
        for (payload, body) in chain.iter() {
            prop_assert_eq!(&payload.body(), body);
        }
        for cut in 0..message.len() {
            prop_assert!(Header::decode(&message[..cut]).is_err());
        }
    }

    #[test]
    fn hashes_cover_what_follows_the_first_payload_but_not_the_padding(
        payloads in proptest::collection::vec(payload(), 1..6), padding in octets(0..33),
    ) {
        let (mut octets, mut tail) = (Vec::new(), Vec::new());
        encode_chain(&payloads, &mut octets);
        encode_chain(&payloads[1..], &mut tail);
        octets.extend(&padding);
        let chain = Chain::decode_padded(first_type(&payloads), &octets).unwrap();
        prop_assert_eq!(&chain.payloads, &payloads);
        prop_assert_eq!(chain.after_first(), &tail[..]);
        let strict = Chain::decode(first_type(&payloads), &octets).map(|_| ()).err();
        prop_assert_eq!(strict, (!padding.is_empty()).then_some(WireError::Length));
    }

    #[test]
    fn random_octets_are_refused_or_taken_but_never_panic(first: u8, bytes in octets(0..400)) {
        let _ = Header::decode(&bytes);
        let _ = Chain::decode(first, &bytes);
        let _ = Chain::decode_padded(first, &bytes);
    }

    #[test]
    fn a_changed_octet_never_panics(
        payloads in proptest::collection::vec(payload(), 1..6), at in any::<prop::sample::Index>(), octet: u8,
    ) {
        let mut chain = Vec::new();
        encode_chain(&payloads, &mut chain);
        let at = at.index(chain.len());
        chain[at] = octet;
        let _ = Chain::decode_padded(first_type(&payloads), &chain);
    }

    #[test]
    fn attributes_keep_their_form_and_tell_their_number(attributes in proptest::collection::vec(attribute(), 0..9)) {
        let mut octets = Vec::new();
        encode_attributes(&attributes, &mut octets);
        prop_assert_eq!(decode_attributes(&octets).unwrap(), attributes);
    }

    #[test]
    fn a_number_survives_an_attribute(number: u32) {
        prop_assert_eq!(Attribute::new(1, number).number(), Some(number.into()));
    }
}

#[test]
fn long_attributes_are_numbers_where_they_fit() {
    let long = |octets: &[u8]| Attribute { kind: 1, value: Value::Long(octets.to_vec()) }.number();
    assert_eq!(long(&[0, 0, 0x70, 0x80]), Some(28_800));
    assert_eq!(long(&[0; 40]), Some(0));
    assert_eq!(long(&[0xff; 8]), Some(u64::MAX));
    assert_eq!(long(&[1; 9]), None);
    assert_eq!(long(&[]), None);
}

#[test]
fn reserved_payloads_are_refused_and_private_ones_passed_over() {
    let chain = [0, 0, 0, 6, 1, 2];
    for (number, expected) in [
        (200, Ok(vec![Payload::Ignored { number: 200 }])),
        (7, Ok(vec![Payload::Ignored { number: 7 }])),
        (33, Err(WireError::Field("payload type"))),
        (2, Err(WireError::Field("payload type"))),
    ] {
        assert_eq!(Chain::decode(number, &chain).map(|chain| chain.payloads), expected);
    }
}

#[test]
fn exchanges_of_the_other_version_are_refused() {
    for exchange in ExchangeType::ALL {
        let message = encode_message(Header::new(1, 0, exchange, 0), &[]);
        let decoded = Header::decode(&message).map(|(header, ..)| header.exchange);
        match exchange.version() {
            Version::Ikev1 => assert_eq!(decoded, Ok(exchange)),
            Version::Ikev2 => assert_eq!(decoded, Err(WireError::Field("exchange type"))),
        }
        assert_eq!(crate::wire::Header::decode(&message).err(), Some(WireError::Version(1)));
    }
}

#[test]
fn another_doi_or_situation_is_refused() {
    let sa = SecurityAssociation { proposals: vec![] };
    let mut body = Payload::Sa(sa).body();
    body.extend([0, 0, 0, 8, 1, 1, 0, 0]);
    let decoded = |body: &[u8]| SecurityAssociation::decode(body);
    assert!(decoded(&body).is_ok());
    for (at, what) in [(3, "DOI"), (7, "situation")] {
        let mut other = body.clone();
        other[at] = 2;
        assert_eq!(decoded(&other), Err(WireError::Field(what)));
    }
}

#[test]
fn counts_that_do_not_fit_are_refused() {
    let proposal = |transforms| Proposal {
        number: 1,
        protocol: ProtocolId::Isakmp,
        spi: vec![],
        transforms: vec![Transform { number: 1, id: 1, attributes: vec![] }; transforms],
    };
    let decoded = |proposals: Vec<Proposal>| {
        SecurityAssociation::decode(&Payload::Sa(SecurityAssociation { proposals }).body()).map(|_| ())
    };
    assert_eq!(decoded(vec![proposal(128); 8]), Ok(()));
    assert_eq!(decoded(vec![proposal(128); 9]), Err(WireError::Field("number of transforms")));
    assert_eq!(decoded(vec![proposal(0); 1025]), Err(WireError::Field("number of transforms")));
    assert_eq!(decoded(vec![]), Err(WireError::Truncated));

    // A proposal that says it has fewer transforms than it has, or more.
    for (said, error) in [(1, WireError::Length), (3, WireError::Field("next payload within an SA payload"))]
    {
        let mut body = Payload::Sa(SecurityAssociation { proposals: vec![proposal(2)] }).body();
        body[8 + 7] = said;
        assert_eq!(SecurityAssociation::decode(&body), Err(error));
    }
}

#[test]
fn a_delete_has_spis_of_its_protocol() {
    let body = |protocol: u8, size: u8, count: u8, spis: usize| {
        [&[0, 0, 0, 1, protocol, size, 0, count][..], &vec![7; spis]].concat()
    };
    let decoded = |body: Vec<u8>| {
        let octets = [&[0, 0, 0, body.len() as u8 + 4][..], &body].concat();
        Chain::decode(12, &octets).map(|chain| chain.payloads)
    };
    assert!(decoded(body(3, 4, 2, 8)).is_ok());
    assert!(decoded(body(1, 16, 1, 16)).is_ok());
    for wrong in [body(3, 16, 1, 16), body(1, 4, 1, 4), body(9, 0, 200, 0)] {
        assert_eq!(decoded(wrong), Err(WireError::Field("SPI size in DELETE")));
    }
    assert_eq!(decoded(body(3, 4, 0, 0)), Err(WireError::Field("number of SPIs in DELETE")));
    assert_eq!(decoded(body(3, 4, 3, 8)), Err(WireError::Truncated));
    assert_eq!(decoded(body(3, 4, 1, 8)), Err(WireError::Length));
    let delete = Delete::isakmp((1, 2));
    assert!(delete.names_isakmp((1, 2)) && !delete.names_isakmp((2, 1)));
    assert_eq!(Delete::children(ProtocolId::Ah, &[5, 6]).child_spis().collect::<Vec<_>>(), [5, 6]);
}

#[test]
fn notifies_keep_what_they_are_about() {
    let dpd = Notify::dpd(NotifyType::R_U_THERE, (1, 2), 0x01020304);
    assert_eq!(dpd.dpd_sequence(), Some(0x01020304));
    assert_eq!(dpd.spi, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    let life = Notify::about_child(NotifyType::RESPONDER_LIFETIME, ProtocolId::Esp, 9, [])
        .with_attributes(&[Attribute::new(1, 1), Attribute::new(2, 3600)]);
    assert_eq!(life.data, [0x80, 1, 0, 1, 0x80, 2, 0x0e, 0x10]);
    assert_eq!(NotifyType::NO_PROPOSAL_CHOSEN.to_string(), "NO-PROPOSAL-CHOSEN");
    assert_eq!(NotifyType(40_000).to_string(), "notify 40000");
    assert!(NotifyType::INVALID_ID_INFORMATION.is_error() && !NotifyType::R_U_THERE.is_error());
}

#[test]
fn vendor_ids_mean_what_they_say() {
    for said in [
        VendorId::NatTraversal(NatTraversal::Rfc3947),
        VendorId::NatTraversal(NatTraversal::Draft),
        VendorId::DeadPeerDetection,
        VendorId::Fragmentation,
        VendorId::Xauth,
    ] {
        for octets in said.octets() {
            assert_eq!(VendorId::recognise(&octets), Some(said));
            assert_eq!(VendorId::recognise(&octets[1..]), None);
        }
    }
    let bare = &VendorId::Fragmentation.octets()[0][..16];
    assert_eq!(VendorId::recognise(bare), Some(VendorId::Fragmentation));
    assert_eq!(VendorId::recognise(b""), None);
}
