//! What is fuzzed: one function a target, each of which takes any octets and must not panic.
//!
//! `gateway/ike/fuzz` gives these functions to libFuzzer (`cargo xtask fuzz`); the tests here run them over the
//! committed corpus and over changed copies of it.

mod jobs;
mod world;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::{
    algorithm::{Encryption, Group, Integrity, Prf},
    config::{self, Id, IkePolicy, IpsecPolicy, Mode, Version},
    proposal,
    selector::narrow,
    v1,
    wire::{HEADER_LEN, Header, Payload, encode_message, header, payload},
};

/// A function that is fuzzed.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 5] = [
    ("ike2_message", ike2_message),
    ("ike1_message", ike1_message),
    ("ike2_decrypted_payloads", ike2_decrypted_payloads),
    ("ike1_decrypted_payloads", ike1_decrypted_payloads),
    ("endpoint", endpoint),
];

/// A datagram with the length in its header put right: nothing is found behind a check that all but fails by chance.
fn with_length(datagram: &[u8]) -> Vec<u8> {
    let mut datagram = datagram.to_vec();
    if datagram.len() >= HEADER_LEN {
        header::set_length(&mut datagram);
    }
    datagram
}

/// A datagram as IKEv2 reads it. What is understood is encoded and understood again.
pub fn ike2_message(datagram: &[u8]) {
    let _ = (header::refuse_version(datagram), Header::decode(datagram));
    let datagram = &with_length(datagram);
    let Ok((header, first, rest)) = Header::decode(datagram) else { return };
    let Ok(payloads) = payload::decode_chain(first, rest) else { return };
    let message = encode_message(header, &payloads);
    let (again, first, rest) = Header::decode(&message).expect("what was encoded is a message");
    assert_eq!(again, header);
    let again = payload::decode_chain(first, rest).expect("what was encoded is a chain");
    assert_eq!(again.len(), payloads.len());
}

/// A datagram as IKEv1 reads it. What is understood is encoded and understood again, as the same.
pub fn ike1_message(datagram: &[u8]) {
    use v1::wire::{Chain, Header, encode_message};
    let _ = Header::decode(datagram);
    let datagram = &with_length(datagram);
    let Ok((header, first, rest)) = Header::decode(datagram) else { return };
    let Ok(chain) = Chain::decode(first, rest) else { return };
    let message = encode_message(header, &chain.payloads);
    let (again, first, rest) = Header::decode(&message).expect("what was encoded is a message");
    assert_eq!(again, header);
    let again = Chain::decode(first, rest).expect("what was encoded is a chain");
    assert_eq!(again.payloads, chain.payloads);
    for part in v1::fragment::split(message.clone(), 1, header.exchange, 200, false) {
        let (header, ..) = Header::decode(&part).expect("each fragment is a message");
        assert!(v1::fragment::belongs(&header, &message));
    }
}

/// The payloads of a message of IKEv2 that has been decrypted, and what is done with them: the first octet is the
/// type of the first.
pub fn ike2_decrypted_payloads(octets: &[u8]) {
    let Some((first, chain)) = octets.split_first() else { return };
    let Ok(payloads) = payload::decode_chain(*first, chain) else { return };
    let (ike, ipsec) = policies(Version::Ikev2);
    for payload in &payloads {
        match payload {
            Payload::Sa(proposals) => {
                let ours =
                    [proposal::offer_ike(&ike), proposal::offer_child(&ipsec, 0x1234, &Group::ALL)].concat();
                let _ = proposal::select_ike(&ike, proposals);
                let _ = proposal::accept_ike(&ike, proposals);
                for pfs in [None, Some(&Group::ALL[..])] {
                    let _ = proposal::select_child(&ipsec, proposals, 0x5678, pfs);
                    let _ = proposal::accept_child(&ipsec, proposals, pfs);
                }
                let _ = proposal::first_difference(&ours, proposals);
                let _ = proposal::other_protocol(config::Protocol::Esp, proposals);
                proposals.iter().for_each(|proposal| {
                    let _ = proposal::in_words(proposal);
                });
            }
            Payload::IdInitiator { kind, data } | Payload::IdResponder { kind, data } => {
                let _ = Id::from_wire(*kind, data).map(|id| id.to_string());
            }
            Payload::TsInitiator(selectors) | Payload::TsResponder(selectors) => {
                for selector in narrow(selectors, selectors) {
                    assert!(selectors.iter().any(|wide| wide.contains(&selector)), "{selector}");
                }
            }
            _ => {}
        }
    }
}

/// The same for IKEv1.
pub fn ike1_decrypted_payloads(octets: &[u8]) {
    use v1::{
        proposal::*,
        wire::{Chain, NatTraversal, Payload, VendorId},
    };
    let Some((first, chain)) = octets.split_first() else { return };
    let Ok(chain) = Chain::decode_padded(*first, chain) else { return };
    let (ike, ipsec) = policies(Version::Ikev1);
    let mut reassembly = v1::fragment::Reassembly::default();
    for (payload, _) in chain.iter() {
        match payload {
            Payload::Sa(sa) => {
                for mode in [Mode::Main, Mode::Aggressive] {
                    let ike = IkePolicy { mode, ..ike.clone() };
                    if let Some((suite, answer)) = select_phase_one(&ike, sa) {
                        assert!(ike.encryption.contains(&suite.encryption) && ike.dh.contains(&suite.group));
                        assert_eq!(in_words(&answer).len(), 1);
                    }
                    let _ = accept_phase_one(&ike, sa);
                }
                let encapsulation = Encapsulation::UdpTunnel(NatTraversal::Rfc3947);
                for protocol in [config::Protocol::Esp, config::Protocol::Ah] {
                    let ipsec = IpsecPolicy { protocol, ..ipsec.clone() };
                    let allowed = [Encapsulation::Tunnel, encapsulation];
                    let _ = select_phase_two(&ipsec, sa, 0x5678, &allowed);
                    let _ = accept_phase_two(&ipsec, sa, encapsulation);
                    let _ = other_protocol(protocol, sa);
                    let ours = offer_phase_two(&ipsec, 0x1234, encapsulation).unwrap_or_default();
                    let _ = first_difference(&ours, sa);
                }
                let _ = (in_words(sa), other_authentication(sa));
                let _ = first_difference(&offer_phase_one(&ike).unwrap_or_default(), sa);
            }
            Payload::Id(id) => {
                let _ = (id.identity(), id.to_string());
                if let Some(again) = id.selector().as_ref().and_then(v1::id::Identification::of_selector) {
                    assert_eq!(again.selector(), id.selector());
                }
            }
            Payload::Notify(notify) => {
                let _ = (Lifetime::of_notify(notify), notify.dpd_sequence(), notify.kind.to_string());
            }
            Payload::Delete(delete) => {
                let _ = (delete.child_spis().count(), delete.names_isakmp((1, 2)));
            }
            Payload::VendorId(octets) => {
                let _ = VendorId::recognise(octets);
            }
            Payload::NatOa(_, IpAddr::V4(_) | IpAddr::V6(_)) => {}
            Payload::Fragment(fragment) => {
                let _ = reassembly.add(fragment.clone(), usize::MAX);
            }
            _ => {}
        }
    }
}

/// Two endpoints that negotiate, with everything between them as the octets say: datagrams lost, changed, repeated,
/// cut and made up, messages of a peer that has the keys and says what it likes, time, commands. At its end nothing
/// of it may have grown without bound.
pub fn endpoint(script: &[u8]) {
    let _ = world::World::new(script).run();
}

/// Policies with every algorithm of a version.
fn policies(version: Version) -> (IkePolicy, IpsecPolicy) {
    let ike = IkePolicy {
        version,
        encryption: Encryption::FOR_IKE.to_vec(),
        integrity: Integrity::ALL.to_vec(),
        prf: Prf::ALL.to_vec(),
        dh: Group::ALL.to_vec(),
        ..IkePolicy::default()
    };
    let ipsec = IpsecPolicy {
        encryption: Encryption::FOR_IPSEC.to_vec(),
        integrity: Integrity::ALL.to_vec(),
        pfs: Group::ALL.to_vec(),
        ..IpsecPolicy::default()
    };
    (ike, ipsec)
}
