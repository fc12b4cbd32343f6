//! Libreswan's ipsec.conf and ipsec.secrets.

use super::{
    PeerConfigError,
    choice::{Dialect, Ids, Phase, resolve, words},
    script::{PPK, PSK, Script, quoted_or_hexadecimal},
    strongswan::list,
};
use crate::config::{PeerAddress, Start};
use adit_ike::{Encryption, Group, Id, Integrity, Mode, NatT, Prf, Protocol, Version};
use std::fmt::Display;

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Md5, "md5"),
    (Integrity::Sha1, "sha1"),
    (Integrity::Sha256, "sha2_256"),
    (Integrity::Sha384, "sha2_384"),
    (Integrity::Sha512, "sha2_512"),
];

/// Groups 1, 2 and 24 are left out when it is built.
const GROUPS: &[(Group, &str)] = &[
    (Group::Modp1536, "dh5"),
    (Group::Modp2048, "dh14"),
    (Group::Modp3072, "dh15"),
    (Group::Modp4096, "dh16"),
    (Group::P256, "dh19"),
    (Group::P384, "dh20"),
    (Group::P521, "dh21"),
    (Group::X25519, "dh31"),
];

const CIPHERS: &[(Encryption, &str)] = &[
    (Encryption::TripleDes, "3des"),
    (Encryption::Aes128, "aes128"),
    (Encryption::Aes192, "aes192"),
    (Encryption::Aes256, "aes256"),
    (Encryption::Aes128Gcm16, "aes_gcm128"),
    (Encryption::Aes192Gcm16, "aes_gcm192"),
    (Encryption::Aes256Gcm16, "aes_gcm256"),
    (Encryption::ChaCha20Poly1305, "chacha20_poly1305"),
];

const DIALECT: Dialect = Dialect {
    ike_encryption: CIPHERS,
    ike_integrity: HASHES,
    prf: Some(&[
        (Prf::Md5, "md5"),
        (Prf::Sha1, "sha1"),
        (Prf::Sha256, "sha2_256"),
        (Prf::Sha384, "sha2_384"),
        (Prf::Sha512, "sha2_512"),
    ]),
    dh: GROUPS,
    esp_encryption: &[
        (Encryption::Null, "null"),
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes128"),
        (Encryption::Aes192, "aes192"),
        (Encryption::Aes256, "aes256"),
        (Encryption::Aes128Gcm16, "aes_gcm128"),
        (Encryption::Aes192Gcm16, "aes_gcm192"),
        (Encryption::Aes256Gcm16, "aes_gcm256"),
        (Encryption::ChaCha20Poly1305, "chacha20_poly1305"),
    ],
    esp_integrity: HASHES,
    ah: HASHES,
    pfs: GROUPS,
    ike_lifetime: 60..=86_400,
    ipsec_lifetime: 60..=86_400,
    has_esn: true,
    additional_ke: &[],
    has_ppk: true,
    ipv6_outside: true,
    ipv6_inside: true,
    has_ikev1: true,
    has_aggressive: true,
    ids: Ids::All,
};

/// ipsec.conf and ipsec.secrets.
///
/// # Errors
/// Of the tunnel's fields that Libreswan cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| Ok(quoted_or_hexadecimal(key, &['"'])));
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    let tunnel = script.view.tunnel;
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    if !ikev1 && !ike.integrity.is_empty() && words(&ike.integrity) != words(&ike.prf) {
        return Err(script.inexpressible("ike.prf", "has one hash for both, and ike.integrity differs"));
    }
    if script.view.is_by_route() {
        script.note(
            "routing mode route: `ipsec-interface=1` makes the interface ipsec1; route the networks of the other side into it",
        );
    }
    if ike.integrity.iter().chain(&ipsec.integrity).any(|i| i.value == Integrity::Md5) {
        script.note("md5 takes a Libreswan whose NSS is not in FIPS mode");
    }
    let name = script.view.slug(32);
    let local_id = id(script, "ike.peer_id", script.view.local_id)?;
    let remote_id = id(script, "ike.local_id", script.view.remote_id)?;

    script.file("ipsec.conf");
    script.line(format_args!("conn {name}"));
    let view = &script.view;
    let local = match view.local {
        PeerAddress::Any => "%defaultroute".to_owned(),
        local => local.to_string(),
    };
    let (remote, start, by_route) = (view.remote, view.start, view.is_by_route());
    let subnets = [view.local_subnets, view.remote_subnets].map(|s| match s {
        [one] => (one.to_string(), ""),
        // One Child SA for each pair.
        several => (format!("{{ {} }}", list(several, " ")), "s"),
    });
    let mut field = |name: &str, value: &dyn Display| script.line(format_args!("    {name}={value}"));
    field("ikev2", &if ikev1 { "no" } else { "yes" });
    if ikev1 && tunnel.ike.mode == Mode::Aggressive {
        field("aggressive", &"yes");
    }
    field("type", &"tunnel");
    field("authby", &"secret");
    field("ike", &ike_proposals(&ike));
    let ah = tunnel.ipsec.protocol == Protocol::Ah;
    field("phase2", &if ah { "ah" } else { "esp" });
    field("phase2alg", &child_proposals(&ipsec));
    field("pfs", &if ipsec.groups.is_empty() { "no" } else { "yes" });
    field("left", &local);
    field("leftid", &format_args!("\"{local_id}\""));
    field(&format!("leftsubnet{}", subnets[0].1), &subnets[0].0);
    field("right", &remote);
    field("rightid", &format_args!("\"{remote_id}\""));
    field(&format!("rightsubnet{}", subnets[1].1), &subnets[1].0);
    field("ikelifetime", &format_args!("{}s", ike.lifetime));
    field("salifetime", &format_args!("{}s", ipsec.lifetime));
    if !ikev1 {
        field("esn", &if tunnel.ipsec.esn { "either" } else { "no" });
        field("mobike", &"no");
    }
    field("replay-window", &tunnel.replay_window);
    let (auto, after) = match start {
        Start::Immediate => ("start", "restart"),
        Start::OnDemand => ("ondemand", "hold"),
        Start::Respond => ("add", "clear"),
    };
    if let Some(dpd) = tunnel.dpd {
        field("dpddelay", &format_args!("{}s", dpd.delay.as_secs()));
        field("dpdtimeout", &format_args!("{}s", (dpd.delay + dpd.timeout).as_secs()));
        field("dpdaction", &after);
    }
    let encapsulation = match tunnel.nat_t {
        NatT::Auto => "auto",
        NatT::Force => "yes",
        NatT::Off => "no",
    };
    field("encapsulation", &encapsulation);
    if by_route {
        field("ipsec-interface", &1);
    }
    if let Some(ppk) = &tunnel.ppk {
        field("ppk", &if ppk.required { "insist" } else { "propose" });
    }
    field("auto", &auto);
    script.file("ipsec.secrets");
    script.line(format_args!("{local_id} {remote_id} : PSK {PSK}"));
    if let Some(ppk) = &tunnel.ppk {
        let name = String::from_utf8_lossy(&ppk.id).into_owned();
        script.line(format_args!("{local_id} {remote_id} : PPKS {name:?} {PPK}"));
    }
    Ok(())
}

/// `aes_gcm256-sha2_256-dh31+dh19,aes256-sha2_256-dh31+dh19`: a hash is the PRF, and the integrity algorithm where one is
/// needed.
fn ike_proposals(phase: &Phase) -> String {
    let hashes = if phase.prf.is_empty() { words(&phase.integrity) } else { words(&phase.prf) };
    let (hashes, groups) = (hashes.join("+"), words(&phase.groups).join("+"));
    let proposal =
        |(encryption, _): (Vec<&str>, Vec<&str>)| format!("{}-{hashes}-{groups}", encryption.join("+"));
    phase.parts().into_iter().map(proposal).collect::<Vec<_>>().join(",")
}

fn child_proposals(phase: &Phase) -> String {
    let groups = words(&phase.groups).join("+");
    let with_group = |proposal: String| match groups.is_empty() {
        true => proposal,
        false => format!("{proposal}-{groups}"),
    };
    if phase.encryption.is_empty() {
        return with_group(words(&phase.integrity).join("+"));
    }
    let proposal = |(encryption, integrity): (Vec<&str>, Vec<&str>)| {
        let encryption = encryption.join("+");
        with_group(match integrity.is_empty() {
            // Without the word a group would be taken for the integrity algorithm.
            true => format!("{encryption}-none"),
            false => format!("{encryption}-{}", integrity.join("+")),
        })
    };
    phase.parts().into_iter().map(proposal).collect::<Vec<_>>().join(",")
}

fn id(script: &Script<'_>, field: &'static str, id: &Id) -> Result<String, PeerConfigError> {
    let text = script.id_text(field, id)?;
    Ok(match id {
        Id::KeyId(_) => format!("@#{}", text.trim_start_matches("keyid:")),
        Id::Fqdn(_) => format!("@{text}"),
        _ => text,
    })
}
