//! Cisco ASA: a crypto map on the outside interface.

use super::{
    PeerConfigError,
    choice::{Dialect, Ids, Phase, resolve, single, words},
    dotted::with_mask,
    script::{PSK, Script},
};
use adit_ike::{Encryption, Group, Integrity, Prf, Version};
use zeroize::Zeroizing;

const GROUPS: &[(Group, &str)] = &[
    (Group::Modp2048, "14"),
    (Group::Modp3072, "15"),
    (Group::Modp4096, "16"),
    (Group::P256, "19"),
    (Group::P384, "20"),
    (Group::P521, "21"),
    (Group::X25519, "31"),
];

const IKEV2: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Aes128, "aes"),
        (Encryption::Aes192, "aes-192"),
        (Encryption::Aes256, "aes-256"),
        (Encryption::Aes128Gcm16, "aes-gcm"),
        (Encryption::Aes256Gcm16, "aes-gcm-256"),
    ],
    ike_integrity: &[
        (Integrity::Sha1, "sha"),
        (Integrity::Sha256, "sha256"),
        (Integrity::Sha384, "sha384"),
        (Integrity::Sha512, "sha512"),
    ],
    prf: Some(&[
        (Prf::Sha1, "sha"),
        (Prf::Sha256, "sha256"),
        (Prf::Sha384, "sha384"),
        (Prf::Sha512, "sha512"),
    ]),
    dh: GROUPS,
    esp_encryption: &[
        (Encryption::Null, "null"),
        (Encryption::Aes128, "aes"),
        (Encryption::Aes192, "aes-192"),
        (Encryption::Aes256, "aes-256"),
        (Encryption::Aes128Gcm16, "aes-gcm"),
        (Encryption::Aes192Gcm16, "aes-gcm-192"),
        (Encryption::Aes256Gcm16, "aes-gcm-256"),
    ],
    esp_integrity: &[
        (Integrity::Sha1, "sha-1"),
        (Integrity::Sha256, "sha-256"),
        (Integrity::Sha384, "sha-384"),
        (Integrity::Sha512, "sha-512"),
    ],
    ah: &[],
    pfs: GROUPS,
    ike_lifetime: 120..=86_400,
    ipsec_lifetime: 120..=86_400,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: true,
    ipv6_inside: true,
    has_ikev1: true,
    has_aggressive: false,
    ids: Ids::Addresses,
};

const IKEV1: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Aes128, "aes"),
        (Encryption::Aes192, "aes-192"),
        (Encryption::Aes256, "aes-256"),
    ],
    ike_integrity: &[(Integrity::Sha1, "sha")],
    dh: &[(Group::Modp1536, "5"), (Group::Modp2048, "14")],
    esp_encryption: &[
        (Encryption::Null, "esp-null"),
        (Encryption::Aes128, "esp-aes"),
        (Encryption::Aes192, "esp-aes-192"),
        (Encryption::Aes256, "esp-aes-256"),
    ],
    esp_integrity: &[(Integrity::Sha1, "esp-sha-hmac")],
    pfs: &[(Group::Modp1536, "group5"), (Group::Modp2048, "group14")],
    ..IKEV2
};

/// The lines for configuration mode.
///
/// # Errors
/// Of the tunnel's fields that an ASA cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("!", |key| Ok(Zeroizing::new(key.to_owned())));
    let tunnel = script.view.tunnel;
    if script.view.is_by_route() {
        return Err(script.inexpressible(
            "routing_mode",
            "is written with a crypto map, which takes subnets; use routing mode protected",
        ));
    }
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let (ike, ipsec) = resolve(script, if ikev1 { &IKEV1 } else { &IKEV2 })?;
    script.note("`outside` is the interface that faces the other side; the policies take priority 100 and the entry of the map 100");
    script.note("exempt the traffic from NAT where the ASA has any: nat (inside,outside) source static …");
    let name = format!("adit-{}", script.view.slug(40));
    let remote = script.view.remote;
    let (ike, ipsec) = match ikev1 {
        true => (single(script, ike, false), single(script, ipsec, true)),
        false => {
            let pfs = super::choice::one_group(script, &ipsec);
            (ike, Phase { groups: pfs, ..ipsec })
        }
    };
    match ikev1 {
        true => phase1_of_ikev1(script, &ike),
        false => phase1(script, &ike),
    }
    let (encryption, integrity) = (words(&ipsec.encryption), words(&ipsec.integrity));
    let mut proposals = vec![name.clone()];
    if ikev1 {
        let transforms = [encryption, integrity].concat().join(" ");
        script.line(format_args!("crypto ipsec ikev1 transform-set {name} {transforms}"));
    } else {
        let parts = ipsec.parts();
        proposals = (1..=parts.len()).map(|i| format!("{name}-{i}")).collect();
        for (proposal, (encryption, integrity)) in proposals.iter().zip(parts) {
            let integrity = if integrity.is_empty() { "null".into() } else { integrity.join(" ") };
            script.line(format_args!("crypto ipsec ikev2 ipsec-proposal {proposal}"));
            script.line(format_args!(" protocol esp encryption {}", encryption.join(" ")));
            script.line(format_args!(" protocol esp integrity {integrity}"));
        }
    }
    for (local, remote) in script.view.pairs() {
        let (local, remote) = (with_mask(&local), with_mask(&remote));
        script.line(format_args!("access-list {name} extended permit ip {local} {remote}"));
    }
    let map = "crypto map outside_map 100";
    script.line(format_args!("{map} match address {name}"));
    if let [group] = &ipsec.groups[..] {
        let group = group.word.trim_start_matches("group");
        script.line(format_args!("{map} set pfs group{group}"));
    }
    script.line(format_args!("{map} set peer {remote}"));
    match ikev1 {
        true => script.line(format_args!("{map} set ikev1 transform-set {name}")),
        false => script.line(format_args!("{map} set ikev2 ipsec-proposal {}", proposals.join(" "))),
    }
    script.line(format_args!("{map} set security-association lifetime seconds {}", ipsec.lifetime));
    script.lines(&["crypto map outside_map interface outside"]);
    script.line(format_args!("tunnel-group {remote} type ipsec-l2l"));
    script.line(format_args!("tunnel-group {remote} ipsec-attributes"));
    match ikev1 {
        true => script.line(format_args!(" ikev1 pre-shared-key {PSK}")),
        false => {
            script.line(format_args!(" ikev2 remote-authentication pre-shared-key {PSK}"));
            script.line(format_args!(" ikev2 local-authentication pre-shared-key {PSK}"));
        }
    }
    match tunnel.dpd {
        Some(dpd) => {
            let (threshold, retry) =
                (dpd.delay.as_secs().clamp(10, 3600), dpd.timeout.as_secs().clamp(2, 10));
            script.line(format_args!(" isakmp keepalive threshold {threshold} retry {retry}"));
        }
        None => script.line(" isakmp keepalive disable"),
    }
    Ok(())
}

fn phase1(script: &mut Script<'_>, ike: &Phase) {
    for (i, (encryption, integrity)) in ike.parts().into_iter().enumerate() {
        let integrity = if integrity.is_empty() { "null".into() } else { integrity.join(" ") };
        script.line(format_args!("crypto ikev2 policy {}", 100 + i));
        script.line(format_args!(" encryption {}", encryption.join(" ")));
        script.line(format_args!(" integrity {integrity}"));
        script.line(format_args!(" group {}", words(&ike.groups).join(" ")));
        script.line(format_args!(" prf {}", words(&ike.prf).join(" ")));
        script.line(format_args!(" lifetime seconds {}", ike.lifetime));
    }
    script.lines(&["crypto ikev2 enable outside", "crypto isakmp identity address"]);
}

fn phase1_of_ikev1(script: &mut Script<'_>, ike: &Phase) {
    script.line("crypto ikev1 policy 100");
    script.line(" authentication pre-share");
    script.line(format_args!(" encryption {}", words(&ike.encryption).join("")));
    script.line(format_args!(" hash {}", words(&ike.integrity).join("")));
    script.line(format_args!(" group {}", words(&ike.groups).join("")));
    script.line(format_args!(" lifetime {}", ike.lifetime));
    script.lines(&["crypto ikev1 enable outside", "crypto isakmp identity address"]);
}
