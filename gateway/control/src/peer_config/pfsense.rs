//! pfSense: it is configured by its pages, so what is written is what goes into their fields.

use super::{
    PeerConfigError,
    choice::{Dialect, Ids, resolve, single, words},
    script::{PSK, Script},
};
use crate::config::Start;
use adit_ike::{Encryption, Group, Id, Integrity, Mode, NatT, Prf, Protocol, Version};
use std::fmt::Display;
use zeroize::Zeroizing;

const GROUPS: &[(Group, &str)] = &[
    (Group::Modp768, "1 (768 bit)"),
    (Group::Modp1024, "2 (1024 bit)"),
    (Group::Modp1536, "5 (1536 bit)"),
    (Group::Modp2048, "14 (2048 bit)"),
    (Group::Modp3072, "15 (3072 bit)"),
    (Group::Modp4096, "16 (4096 bit)"),
    (Group::P256, "19 (nist ecp256)"),
    (Group::P384, "20 (nist ecp384)"),
    (Group::P521, "21 (nist ecp521)"),
    (Group::Modp2048S256, "24 (2048(sub 256) bit)"),
    (Group::X25519, "31 (Elliptic Curve 25519, 256 bit)"),
];

const CIPHERS: &[(Encryption, &str)] = &[
    (Encryption::TripleDes, "3DES"),
    (Encryption::Aes128, "AES, 128 bits"),
    (Encryption::Aes192, "AES, 192 bits"),
    (Encryption::Aes256, "AES, 256 bits"),
    (Encryption::Aes128Gcm16, "AES128-GCM, 128 bits"),
    (Encryption::Aes192Gcm16, "AES192-GCM, 128 bits"),
    (Encryption::Aes256Gcm16, "AES256-GCM, 128 bits"),
    (Encryption::ChaCha20Poly1305, "CHACHA20-POLY1305"),
];

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Md5, "MD5"),
    (Integrity::Sha1, "SHA1"),
    (Integrity::Sha256, "SHA256"),
    (Integrity::Sha384, "SHA384"),
    (Integrity::Sha512, "SHA512"),
];

const DIALECT: Dialect = Dialect {
    ike_encryption: CIPHERS,
    ike_integrity: HASHES,
    prf: Some(&[
        (Prf::Md5, "MD5"),
        (Prf::Sha1, "SHA1"),
        (Prf::Sha256, "SHA256"),
        (Prf::Sha384, "SHA384"),
        (Prf::Sha512, "SHA512"),
    ]),
    dh: GROUPS,
    esp_encryption: CIPHERS,
    esp_integrity: HASHES,
    ah: HASHES,
    pfs: GROUPS,
    ike_lifetime: 60..=86_400,
    ipsec_lifetime: 60..=86_400,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: true,
    ipv6_inside: true,
    has_ikev1: true,
    has_aggressive: true,
    ids: Ids::Names,
};

/// The fields of VPN > IPsec > Tunnels.
///
/// # Errors
/// Of the tunnel's fields that the pages do not have.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| Ok(Zeroizing::new(key.to_owned())));
    let tunnel = script.view.tunnel;
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    let (ike, ipsec) = (single(script, ike, false), single(script, ipsec, true));
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let (remote, start) = (script.view.remote, script.view.start);
    let (local_id, remote_id) = script.ids()?;
    let kind = |id: &Id| match id {
        Id::Fqdn(_) => "Fully qualified domain name",
        Id::UserFqdn(_) => "User fully qualified domain name",
        _ => "IP address",
    };
    let kinds = (kind(script.view.local_id), kind(script.view.remote_id));
    let name = tunnel.name.clone();
    let mut field = |name: &str, value: &dyn Display| script.line(format_args!("  {name:<26} {value}"));

    field("VPN > IPsec > Tunnels > Add P1", &"");
    field("Description", &name);
    field("Key Exchange version", &if ikev1 { "IKEv1" } else { "IKEv2" });
    field("Internet Protocol", &if remote.is_ipv4() { "IPv4" } else { "IPv6" });
    field("Interface", &"WAN");
    field("Remote Gateway", &remote);
    field("Authentication Method", &"Mutual PSK");
    if ikev1 {
        field("Negotiation mode", &if tunnel.ike.mode == Mode::Aggressive { "Aggressive" } else { "Main" });
    }
    field("My identifier", &format_args!("{}: {local_id}", kinds.0));
    field("Peer identifier", &format_args!("{}: {remote_id}", kinds.1));
    field("Pre-Shared Key", &PSK);
    field("Encryption Algorithm", &words(&ike.encryption).join(""));
    match ike.integrity.is_empty() {
        false => field("Hash", &words(&ike.integrity).join("")),
        // The hash of a cipher with authentication is the PRF.
        true => field("Hash", &words(&ike.prf).join("")),
    }
    let differs =
        !ike.integrity.is_empty() && !ike.prf.is_empty() && words(&ike.integrity) != words(&ike.prf);
    if differs {
        field("PRF Selection", &"enabled");
        field("PRF Algorithm", &words(&ike.prf).join(""));
    }
    field("DH Group", &words(&ike.groups).join(""));
    field("Life Time", &ike.lifetime);
    let action = match start {
        Start::Immediate => "Initiate at start (VTI or Tunnel Mode)",
        Start::OnDemand => "Default",
        Start::Respond => "None (Responder Only)",
    };
    field("Child SA Start Action", &action);
    field("NAT Traversal", &if tunnel.nat_t == NatT::Force { "Force" } else { "Auto" });
    if !ikev1 {
        field("MOBIKE", &"Disable");
    }
    if let Some(dpd) = tunnel.dpd {
        field("Dead Peer Detection", &"enabled");
        field("Delay", &dpd.delay.as_secs());
        field("Max failures", &(1 + dpd.timeout.as_secs() / 5));
    }
    let pairs = script.view.pairs();
    let by_route = script.view.is_by_route();
    for (local, remote) in pairs {
        let mut field = |name: &str, value: &dyn Display| script.line(format_args!("  {name:<26} {value}"));
        let family = if local.address().is_ipv4() { "IPv4" } else { "IPv6" };
        field("\n  Show Phase 2 Entries > Add P2", &"");
        match by_route {
            true => field("Mode", &"Routed (VTI)"),
            false => field("Mode", &format_args!("Tunnel {family}")),
        }
        field("Local Network", &format_args!("Network {local}"));
        field("Remote Network", &format_args!("Network {remote}"));
        field("Protocol", &if tunnel.ipsec.protocol == Protocol::Ah { "AH" } else { "ESP" });
        if !ipsec.encryption.is_empty() {
            field("Encryption Algorithms", &words(&ipsec.encryption).join(""));
        }
        if !ipsec.integrity.is_empty() {
            field("Hash Algorithms", &words(&ipsec.integrity).join(""));
        }
        field("PFS key group", &words(&ipsec.groups).first().copied().unwrap_or("off"));
        field("Life Time", &ipsec.lifetime);
    }
    script.note("Firewall > Rules > IPsec has to allow the traffic");
    Ok(())
}
