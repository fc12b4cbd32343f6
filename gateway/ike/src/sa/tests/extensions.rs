//! What goes beyond RFC 7296, said by a peer that has the right keys.

use super::*;

/// Fragments of a request of the initiator's, as many as `longest` makes of it.
fn fragments(pair: &mut Pair, octets: usize, longest: usize) -> Vec<Vec<u8>> {
    let end = &mut pair.ends[0];
    let sa = end.sas.values_mut().next().unwrap();
    let header = Header {
        initiator_spi: sa.initiator_spi(),
        responder_spi: sa.responder_spi(),
        exchange: ExchangeType::Informational,
        from_initiator: true,
        response: false,
        message_id: 2,
    };
    let vain = Payload::Notify(Notify::new(NotifyType(40_000), vec![0; octets]));
    sa.channel().unwrap().outgoing.seal_within(longest, header, &[vain], &mut *end.rng)
}

#[test]
fn a_message_divided_anew_into_more_fragments_counts_and_into_fewer_does_not() {
    let (mut pair, flight) = Pair::until(3);
    pair.deliver(0, flight);
    let (few, many) = (fragments(&mut pair, 1000, 500), fragments(&mut pair, 1000, 300));
    assert!(few.len() < many.len());
    assert!(pair.deliver(1, few[..1].to_vec()).is_empty());
    assert!(pair.deliver(1, many[..many.len() - 1].to_vec()).is_empty());
    assert!(pair.deliver(1, few.clone()).is_empty(), "what was divided into fewer is passed over");
    assert_eq!(pair.deliver(1, many[many.len() - 1..].to_vec()).len(), 1);
    assert_eq!(pair.deliver(1, many[1..].to_vec()).len(), 0, "only the first brings the answer again");
    assert_eq!(pair.deliver(1, many[..1].to_vec()).len(), 1);
}

#[test]
fn fragments_without_the_others_are_dropped_after_a_while_and_are_bounded() {
    let (mut pair, flight) = Pair::until(3);
    pair.deliver(0, flight);
    let kept = |pair: &Pair| pair.ends[1].sas.values().next().unwrap().window.request_fragments.is_some();
    let parts = fragments(&mut pair, 1000, 300);
    pair.deliver(1, parts[..1].to_vec());
    assert!(kept(&pair));
    pair.now += Duration::from_secs(30);
    pair.ends[1].handle_timeout(pair.now);
    assert!(!kept(&pair));

    let many = fragments(&mut pair, 1000, 66);
    assert!(many.len() > 128);
    pair.sent(1);
    assert!(pair.deliver(1, many[..1].to_vec()).is_empty());
    assert!(!kept(&pair));
    assert_eq!(pair.ends[1].counters().malformed, 1);
    let long = fragments(&mut pair, 60_000, 1200);
    let sealed = 32_768 / (long[0].len() - 60);
    assert!(pair.deliver(1, long[..sealed].to_vec()).is_empty());
    assert!(kept(&pair));
    assert!(pair.deliver(1, long[sealed..=sealed].to_vec()).is_empty());
    assert!(!kept(&pair));
    assert_eq!(pair.ends[1].counters().malformed, 2);
}

#[test]
fn fragments_are_sent_and_taken_only_where_both_can() {
    let (mut pair, flight) = Pair::until(3);
    pair.deliver(0, flight);
    pair.ends[1].sas.values_mut().for_each(|sa| sa.extensions.fragmentation = false);
    let parts = fragments(&mut pair, 1000, 300);
    assert!(pair.deliver(1, parts).is_empty());
    assert_eq!(pair.ends[1].counters().unexpected, 5);
}

/// A pair that is up, with MOBIKE.
fn mobile() -> Pair {
    let (mut pair, _) = Pair::until(2);
    let end = &mut pair.ends[0];
    let sa = end.sas.values_mut().next().unwrap();
    let request = sa.window.outstanding.as_ref().unwrap().messages[0].clone();
    let spi = sa.peer_spi;
    let mut payloads = pair.ends[1].sas.get_mut(&spi).unwrap().channel().unwrap().incoming.open(&request);
    let mut payloads = payloads.as_mut().unwrap().payloads().unwrap();
    payloads.push(Payload::Notify(Notify::new(NotifyType::MOBIKE_SUPPORTED, [])));
    let forged = pair.forge(0, ExchangeType::IkeAuth, false, 1, &payloads);
    let answer = pair.deliver(1, vec![forged]);
    pair.deliver(0, answer);
    assert!(pair.is_up(0));
    std::iter::from_fn(|| pair.ends[1].poll_event()).count();
    pair
}

/// Where a Child SA went: the peer's address, and the ports of ESP in UDP.
type Moved = Option<(std::net::IpAddr, Option<(u16, u16)>)>;

/// What the responder answers to this request from this address and port, and where its Child SA then goes.
fn moved(pair: &mut Pair, id: u32, remote: &str, payloads: &[Payload]) -> (Vec<Payload>, Path, Moved) {
    let forged = pair.forge(0, ExchangeType::Informational, false, id, payloads);
    let remote: std::net::SocketAddr = remote.parse().unwrap();
    let local = std::net::SocketAddr::new(ADDRESSES[1].parse().unwrap(), remote.port());
    let marked = if remote.port() == 4500 { [&[0; 4][..], &forged].concat() } else { forged };
    pair.ends[1].handle_datagram(pair.now, Path { local, remote }, &marked);
    let event = std::iter::from_fn(|| pair.ends[1].poll_event()).find_map(|event| match event {
        Event::ChildMoved { peer, encapsulation, .. } => Some((peer, encapsulation)),
        _ => None,
    });
    let answer = pair.ends[1].poll_transmit().unwrap();
    let bytes = answer.payload.strip_prefix(&[0; 4][..]).unwrap_or(&answer.payload);
    let sa = pair.ends[0].sas.values_mut().next().unwrap();
    let said = sa.channel().unwrap().incoming.open(bytes).unwrap().payloads().unwrap();
    (said, answer.path, event)
}

#[test]
fn a_mobike_initiator_takes_its_sas_along() {
    let mut pair = mobile();
    let update = notify(NotifyType::UPDATE_SA_ADDRESSES, []);
    let (said, path, moved_to) = moved(&mut pair, 2, "203.0.113.5:500", std::slice::from_ref(&update));
    assert_eq!((said, path.remote.to_string()), (vec![], "203.0.113.5:500".to_owned()));
    assert_eq!(moved_to, Some(("203.0.113.5".parse().unwrap(), None)));

    // Through a NAT: what the notifies say is not where the request came from.
    let cookie = notify(NotifyType::COOKIE2, [7; 8]);
    let detect = [NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP]
        .map(|kind| notify(kind, [9; 20]));
    let request = [&[update.clone(), cookie.clone()][..], &detect].concat();
    let (said, _, moved_to) = moved(&mut pair, 3, "203.0.113.6:4500", &request);
    assert_eq!(moved_to, Some(("203.0.113.6".parse().unwrap(), Some((4500, 4500)))));
    let kinds = |said: &[Payload]| {
        said.iter()
            .filter_map(|p| if let Payload::Notify(n) = p { Some(n.kind) } else { None })
            .collect::<Vec<_>>()
    };
    assert_eq!(said[0], cookie);
    assert_eq!(
        kinds(&said),
        [NotifyType::COOKIE2, NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP]
    );

    // One that allows no NAT is not followed where there is one.
    let said_to_be = [[10, 0, 0, 1], [198, 51, 100, 1]].concat();
    let refuses = notify(NotifyType::NO_NATS_ALLOWED, [&said_to_be[..], &[0x11, 0x94, 0x11, 0x94]].concat());
    let (said, _, moved_to) = moved(&mut pair, 4, "203.0.113.7:4500", &[update.clone(), refuses]);
    assert_eq!((kinds(&said), moved_to), (vec![NotifyType::UNEXPECTED_NAT_DETECTED], None));
    let said_to_be = [[203, 0, 113, 7], [198, 51, 100, 1]].concat();
    let allows = notify(NotifyType::NO_NATS_ALLOWED, [&said_to_be[..], &[0x11, 0x94, 0x11, 0x94]].concat());
    let (said, _, moved_to) = moved(&mut pair, 5, "203.0.113.7:4500", &[update, allows]);
    assert_eq!(said, []);
    assert!(moved_to.is_some());
    assert_eq!(pair.ends[1].sas.values().next().unwrap().path.remote.to_string(), "203.0.113.7:4500");
}

#[test]
fn without_mobike_an_sa_stays_where_it_is() {
    let (mut pair, flight) = Pair::until(3);
    pair.deliver(0, flight);
    std::iter::from_fn(|| pair.ends[1].poll_event()).count();
    let update = notify(NotifyType::UPDATE_SA_ADDRESSES, []);
    let (said, _, moved_to) = moved(&mut pair, 2, "203.0.113.5:500", &[update]);
    assert_eq!((said, moved_to), (vec![], None));
    assert_eq!(pair.ends[1].sas.values().next().unwrap().path.remote.ip().to_string(), ADDRESSES[0]);
}

#[test]
fn an_additional_key_exchange_that_was_agreed_on_cannot_be_passed_over() {
    let (mut pair, flight) = Pair::with_additional_until(2);
    let (kind, data) = (1, ADDRESSES[0].parse::<std::net::Ipv4Addr>().unwrap().octets().to_vec());
    let said = [Payload::IdInitiator { kind, data }, Payload::Auth { method: 2, data: vec![0; 32] }];
    let forged = pair.forge(0, ExchangeType::IkeAuth, false, 1, &said);
    assert!(pair.deliver(1, vec![forged]).is_empty());
    assert_eq!(pair.ends[1].counters().unexpected, 1);
    // Nor made twice; and a copy of the request gets the answer that went before, by the keys of before.
    let answer = pair.deliver(1, flight.clone());
    assert_eq!((answer.len(), kind_of(&answer[0])), (1, ExchangeType::IkeIntermediate));
    assert_eq!(pair.deliver(1, flight), answer);
    let auth = pair.deliver(0, answer);
    let answer = pair.deliver(1, auth);
    pair.deliver(0, answer);
    assert!(pair.is_up(0) && pair.is_up(1));
}

#[test]
fn an_initiator_may_begin_at_the_nat_traversal_port() {
    let (mut pair, flight) = Pair::until(0);
    let marked = |bytes: &[u8]| [&[0; 4][..], bytes].concat();
    let at = |side: usize, port: u16| format!("{}:{port}", ADDRESSES[side]).parse().unwrap();
    let path = Path { local: at(1, 4500), remote: at(0, 1024) };
    pair.ends[1].handle_datagram(pair.now, path, &marked(&flight[0]));
    let answer = pair.sent(1).remove(0);
    let answer = answer.strip_prefix(&[0; 4]).unwrap().to_vec();
    // It was sent from port 500: what the responder has seen is a NAT.
    let auth = pair.deliver(0, vec![answer]).remove(0);
    pair.ends[1].handle_datagram(pair.now, path, &auth);
    let child = std::iter::from_fn(|| pair.ends[1].poll_event()).find_map(|event| match event {
        Event::ChildUp { child, .. } => Some(child),
        _ => None,
    });
    assert_eq!(child.unwrap().encapsulation, Some((4500, 1024)));
}

/// What a peer tells that gets this IKE_AUTH message.
fn told_of(to: usize, payloads: &[Payload]) -> String {
    let (mut pair, _) = Pair::until(if to == 1 { 2 } else { 3 });
    let forged = pair.forge(1 - to, ExchangeType::IkeAuth, to == 0, 1, payloads);
    pair.deliver(to, vec![forged]);
    let Some(Event::Failed { cause, .. }) = pair.ends[to].poll_event() else { panic!("not reported") };
    cause.to_string()
}

#[test]
fn eap_and_certificates_are_refused_in_words() {
    let id = |side: usize| {
        let address: std::net::Ipv4Addr = ADDRESSES[side].parse().unwrap();
        (1, address.octets().to_vec())
    };
    let (kind, data) = id(0);
    let from = Payload::IdInitiator { kind, data };
    let [cert, certreq] = [37, 38].map(|number| Payload::Ignored { number });
    let signature = Payload::Auth { method: 14, data: vec![0; 64] };
    assert!(told_of(1, std::slice::from_ref(&from)).starts_with("the peer asks for EAP"));
    let words = told_of(1, &[from, cert.clone(), certreq, signature.clone()]);
    assert!(
        words.starts_with("the peer authenticates by a certificate or a public key (method 14)"),
        "{words}"
    );

    let (kind, data) = id(1);
    let from = Payload::IdResponder { kind, data };
    let words = told_of(0, &[from.clone(), cert, signature.clone()]);
    assert!(words.starts_with("the peer authenticates by a certificate"), "{words}");
    let eap = Payload::Ignored { number: 48 };
    assert!(told_of(0, &[from, signature, eap]).starts_with("the peer asks for EAP"));
}

#[test]
fn vendor_ids_and_notifies_that_nobody_knows_are_passed_over() {
    let (mut pair, flight) = Pair::until(0);
    let (header, first, rest) = Header::decode(&flight[0]).unwrap();
    let mut payloads = decode_chain(first, rest).unwrap();
    payloads.insert(0, Payload::Ignored { number: 43 });
    payloads.push(Payload::Ignored { number: 43 });
    payloads.push(Payload::Notify(Notify::new(NotifyType(40_000), [1, 2, 3])));
    let answer = pair.deliver(1, vec![encode_message(header, &payloads)]);
    assert!(Header::decode(&answer[0]).unwrap().0.responder_spi != 0, "taken for what it is");
}

#[test]
fn an_unknown_critical_payload_is_named_and_the_sa_stays() {
    let (mut pair, flight) = Pair::until(3);
    pair.deliver(0, flight);
    let end = &mut pair.ends[0];
    let sa = end.sas.values_mut().next().unwrap();
    let header = Header {
        initiator_spi: sa.initiator_spi(),
        responder_spi: sa.responder_spi(),
        exchange: ExchangeType::Informational,
        from_initiator: true,
        response: false,
        message_id: 2,
    };
    let channel = sa.channel().unwrap();
    let critical = channel.outgoing.seal_critical(header, 200, &mut *end.rng);
    let answer = pair.deliver(1, vec![critical]).remove(0);
    let opened = pair.ends[0].sas.values_mut().next().unwrap().channel().unwrap().incoming.open(&answer);
    let expected = Payload::Notify(Notify::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, [200]));
    assert_eq!(opened.unwrap().payloads().unwrap(), [expected]);
    assert!(pair.ends[1].sas.values().next().unwrap().is_usable());
}
