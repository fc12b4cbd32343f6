//! Handshakes recorded between strongSwan daemons, followed with the secrets of the initiator's log.

use super::*;
use crate::{
    algorithm::{Encryption, Group, Integrity},
    config::{IkePolicy, IpsecPolicy},
    golden::Golden,
    proposal::{accept_child, accept_ike},
    wire::{ExchangeType, Header, Payload, Proposal, payload::decode_chain},
};

/// Follows a handshake to its end: every key must be what charon logged, and every AUTH what came.
fn follow(name: &str, ike: &IkePolicy, ipsec: &IpsecPolicy, suites: [&str; 2]) {
    let golden = Golden::read(name);
    let secret = |name: &str| golden.secrets(name).first().cloned().unwrap_or_default();
    let [(true, request), (false, answer), (true, auth_request), (false, auth_answer)] =
        &golden.datagrams[..]
    else {
        panic!("not two exchanges")
    };
    let clear = [request, answer].map(|message| {
        let (header, first, rest) = Header::decode(message).unwrap();
        assert_eq!(header.exchange, ExchangeType::IkeSaInit);
        (header, decode_chain(first, rest).unwrap())
    });
    let nonces = [0, 1].map(|side: usize| {
        let nonce = clear[side].1.iter().find_map(|payload| match payload {
            Payload::Nonce(nonce) => Some(nonce.clone()),
            _ => None,
        });
        nonce.unwrap()
    });
    let suite = accept_ike(ike, proposals(&clear[1].1)).unwrap();
    assert_eq!(suite.to_string(), suites[0]);
    let exchanged = Exchanged {
        initiator_nonce: &nonces[0],
        responder_nonce: &nonces[1],
        initiator_spi: clear[1].0.initiator_spi,
        responder_spi: clear[1].0.responder_spi,
    };
    let (keys, from_initiator, from_responder) =
        derive(&suite, &secret("shared_Diffie_Hellman_secret"), &exchanged);
    let derived = [&keys.derive, &keys.auth_initiator, &keys.auth_responder].map(|key| key.to_vec());
    assert_eq!(derived, ["Sk_d_secret", "Sk_pi_secret", "Sk_pr_secret"].map(secret));

    // SK_ei, SK_ai and so on: with others than charon's the messages would not open.
    let opened = [from_initiator.open(auth_request), from_responder.open(auth_answer)]
        .map(|inner| inner.unwrap().payloads().unwrap());
    for (side, payloads) in opened.iter().enumerate() {
        let id_body = payloads.iter().find_map(|payload| match payload {
            Payload::IdInitiator { kind, data } if side == 0 => Some([&[*kind, 0, 0, 0], &data[..]].concat()),
            Payload::IdResponder { kind, data } if side == 1 => Some([&[*kind, 0, 0, 0], &data[..]].concat()),
            _ => None,
        });
        let auth = payloads.iter().find_map(|payload| match payload {
            Payload::Auth { method: 2, data } => Some(data.clone()),
            _ => None,
        });
        let expected = keys.shared_key_auth(
            side == 0,
            &golden.psk,
            &golden.datagrams[side].1,
            &nonces[1 - side],
            &id_body.unwrap(),
            &[],
        );
        assert_eq!(auth.unwrap(), *expected);
    }

    let (child, responder_spi) = accept_child(ipsec, proposals(&opened[1]), None).unwrap();
    assert_eq!(child.to_string(), suites[1]);
    let [there, back] = keys.child(&child, &[], &nonces[0], &nonces[1]);
    for (keys, name) in [(there, "initiator"), (back, "responder")] {
        let keys = keys.with_spi(responder_spi);
        let salt = &keys.salt[..child.encryption.unwrap().salt_len()];
        let cipher_key = [&keys.encryption_key[..], salt].concat();
        assert_eq!(cipher_key, secret(&format!("encryption_{name}_key")));
        assert_eq!(*keys.integrity_key, secret(&format!("integrity_{name}_key")));
    }
}

fn proposals(payloads: &[Payload]) -> &[Proposal] {
    let proposals = payloads.iter().find_map(|payload| match payload {
        Payload::Sa(proposals) => Some(&proposals[..]),
        _ => None,
    });
    proposals.unwrap()
}

#[test]
fn a_handshake_of_strongswan_with_cbc() {
    let ike = IkePolicy {
        encryption: vec![Encryption::Aes256],
        integrity: vec![Integrity::Sha256],
        prf: vec![Prf::Sha256],
        dh: vec![Group::X25519],
        ..IkePolicy::default()
    };
    let ipsec = IpsecPolicy {
        encryption: vec![Encryption::Aes256],
        integrity: vec![Integrity::Sha384],
        ..IpsecPolicy::default()
    };
    follow("v2-cbc", &ike, &ipsec, ["aes256-sha256-prfsha256-x25519", "aes256-sha384"]);
}

#[test]
fn a_handshake_of_strongswan_with_gcm() {
    let ike = IkePolicy {
        encryption: vec![Encryption::Aes256Gcm16],
        prf: vec![Prf::Sha384],
        dh: vec![Group::P384],
        ..IkePolicy::default()
    };
    let ipsec = IpsecPolicy { encryption: vec![Encryption::Aes256Gcm16], ..IpsecPolicy::default() };
    follow("v2-gcm", &ike, &ipsec, ["aes256gcm16-prfsha384-ecp384", "aes256gcm16"]);
}
