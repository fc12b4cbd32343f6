//! What people are told when two configurations of IKEv1 do not fit.

use adit_ike::*;

use crate::{v1::v1_tunnels, world::*};

/// Connects two ends that do not fit, A first; what each tells.
fn failures(mode: Mode, change: impl FnOnce(&mut [TunnelConfig; 2])) -> [String; 2] {
    let mut tunnels = v1_tunnels(mode);
    change(&mut tunnels);
    let mut world = World::new(1, tunnels);
    world.connect(A);
    world.seconds(60);
    world.assert_down();
    assert!(
        world.ends.iter().all(|end| end.endpoint.counts() == Counts::default()),
        "something is left behind"
    );
    world.ends.map(|end| end.failures.join("; "))
}

#[test]
fn phase_1_proposals() {
    for (mode, name, other) in
        [(Mode::Main, "Main Mode", "aggressive mode"), (Mode::Aggressive, "Aggressive Mode", "main mode")]
    {
        let [a, b] = failures(mode, |tunnels| tunnels[B].ike.dh = vec![Group::Modp2048]);
        assert_eq!(
            a,
            format!(
                "One {name}: no proposal in common; we offer IKEv1 in {mode} with aes128-sha1-x25519; the peer refused it \
                 without saying what it takes (NO-PROPOSAL-CHOSEN): compare ike.encryption, ike.integrity and ike.dh with \
                 the peer's, and that it uses a pre-shared key; it also refuses so where it has no tunnel to this address, \
                 one of IKEv2 (ike.version), or one in {other} (ike.mode)"
            )
        );
        assert_eq!(
            b,
            format!(
                "One {name}: no proposal in common; we offer aes128-sha1-modp2048; the peer offers aes128-sha1-x25519; \
                 first difference: dh: modp2048 here, x25519 there"
            )
        );
    }
}

#[test]
fn modes() {
    for (mine, yours, name) in
        [(Mode::Main, Mode::Aggressive, "Main Mode"), (Mode::Aggressive, Mode::Main, "Aggressive Mode")]
    {
        let [a, b] = failures(mine, |tunnels| tunnels[B].ike.mode = yours);
        assert_eq!(
            a,
            format!(
                "One {name}: the peer refused {mine} (UNSUPPORTED-EXCHANGE-TYPE): it may be configured for {yours} (ike.mode)"
            )
        );
        assert_eq!(
            b,
            format!(
                "One {name}: different modes of IKEv1: we are configured for {yours}, the peer speaks {mine}"
            )
        );
    }
}

/// What the initiator of a quick mode says when it is refused with NO-PROPOSAL-CHOSEN.
fn not_chosen(offer: &str, cipher: &str, other: &str) -> String {
    format!(
        "Two Quick Mode: no proposal in common for packets; we offer {offer}; the peer refused it without saying what it \
         takes (NO-PROPOSAL-CHOSEN): compare {cipher}ipsec.integrity and ipsec.pfs with the peer's, and ipsec.protocol, for \
         it may use {other}; some peers refuse subnets so, too"
    )
}

#[test]
fn groups_of_pfs() {
    let cases: [(&[Group], &[Group], &str, &str); 3] = [
        (&[], &[Group::X25519], "aes128gcm16, without PFS", "ours 31; the peer's none"),
        (&[Group::X25519], &[], "aes128gcm16-x25519, with PFS in group 31", "ours none; the peer's 31"),
        (
            &[Group::X25519],
            &[Group::Modp2048, Group::P256],
            "aes128gcm16-x25519, with PFS in group 31",
            "ours 14, 19; the peer's 31",
        ),
    ];
    for (mine, yours, offer, words) in cases {
        let [a, b] = failures(Mode::Main, |tunnels| {
            tunnels[A].ipsec.pfs = mine.to_vec();
            tunnels[B].ipsec.pfs = yours.to_vec();
        });
        assert_eq!(a, not_chosen(&format!("ESP with {offer}"), "ipsec.encryption, ", "AH"));
        assert_eq!(
            b,
            format!("Two Quick Mode: the groups of perfect forward secrecy (PFS) do not match: {words}")
        );
    }
}

#[test]
fn esp_against_ah() {
    let [a, b] = failures(Mode::Main, |tunnels| tunnels[B].ipsec.protocol = Protocol::Ah);
    assert_eq!(a, not_chosen("ESP with aes128gcm16, without PFS", "ipsec.encryption, ", "AH"));
    let words = "Two Quick Mode: packets are protected by different protocols";
    assert_eq!(b, format!("{words}: we use AH, the peer offers ESP alone"));

    let [a, b] = failures(Mode::Main, |tunnels| tunnels[A].ipsec.protocol = Protocol::Ah);
    assert_eq!(a, not_chosen("AH with ah:sha256, without PFS", "", "ESP"));
    assert_eq!(b, format!("{words}: we use ESP, the peer offers AH alone"));
}

#[test]
fn phase_2_proposals() {
    let [a, b] =
        failures(Mode::Aggressive, |tunnels| tunnels[B].ipsec.encryption = vec![Encryption::Aes256Gcm16]);
    assert_eq!(a, not_chosen("ESP with aes128gcm16, without PFS", "ipsec.encryption, ", "AH"));
    assert_eq!(
        b,
        "Two Quick Mode: no proposal in common; we offer aes256gcm16; the peer offers aes128gcm16; first difference: \
         encryption: aes256gcm16 here, aes128gcm16 there"
    );
}

#[test]
fn subnets() {
    let [a, b] = failures(Mode::Main, |tunnels| tunnels[B].local_ts = vec![subnet("172.16.0.0/12")]);
    assert_eq!(
        a,
        "Two Quick Mode: subnets do not match; we ask for 10.1.0.0/16 here and 10.2.0.0/16 at the peer; the peer refused \
         these without saying what it takes (INVALID-ID-INFORMATION): each pair is negotiated by itself, and most peers \
         take one only as they have it, so compare local_subnets and remote_subnets with the peer's"
    );
    assert_eq!(
        b,
        "Two Quick Mode: subnets do not match; ours: local 172.16.0.0/12, remote 10.1.0.0/16; the peer's, seen from here: \
         local 10.2.0.0/16, remote 10.1.0.0/16"
    );
}
