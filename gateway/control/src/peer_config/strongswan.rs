//! strongSwan's swanctl.conf, and what its two formats have in common.

use super::{
    PeerConfigError,
    bgp::remark_bird,
    choice::{Choice, Dialect, Ids, Phase, resolve, words},
    script::{PPK, PSK, Script, quoted_or_hexadecimal},
};
use crate::config::{PeerAddress, Start, Subnet};
use adit_ike::{Encryption, Group, Id, Integrity, Mode, NatT, Prf, Protocol, Version};
use std::fmt::Display;
use zeroize::Zeroizing;

const CIPHERS: &[(Encryption, &str)] = &[
    (Encryption::Null, "null"),
    (Encryption::Des, "des"),
    (Encryption::TripleDes, "3des"),
    (Encryption::Aes128, "aes128"),
    (Encryption::Aes192, "aes192"),
    (Encryption::Aes256, "aes256"),
    (Encryption::Aes128Gcm16, "aes128gcm16"),
    (Encryption::Aes192Gcm16, "aes192gcm16"),
    (Encryption::Aes256Gcm16, "aes256gcm16"),
    (Encryption::ChaCha20Poly1305, "chacha20poly1305"),
];

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Md5, "md5"),
    (Integrity::Sha1, "sha1"),
    (Integrity::Sha256, "sha256"),
    (Integrity::Sha384, "sha384"),
    (Integrity::Sha512, "sha512"),
];

const GROUPS: &[(Group, &str)] = &[
    (Group::Modp768, "modp768"),
    (Group::Modp1024, "modp1024"),
    (Group::Modp1536, "modp1536"),
    (Group::Modp2048, "modp2048"),
    (Group::Modp3072, "modp3072"),
    (Group::Modp4096, "modp4096"),
    (Group::P256, "ecp256"),
    (Group::P384, "ecp384"),
    (Group::P521, "ecp521"),
    (Group::Modp2048S256, "modp2048s256"),
    (Group::X25519, "x25519"),
];

/// What strongSwan knows in either format.
pub(super) const DIALECT: Dialect = Dialect {
    ike_encryption: CIPHERS,
    ike_integrity: HASHES,
    prf: Some(&[
        (Prf::Md5, "prfmd5"),
        (Prf::Sha1, "prfsha1"),
        (Prf::Sha256, "prfsha256"),
        (Prf::Sha384, "prfsha384"),
        (Prf::Sha512, "prfsha512"),
    ]),
    dh: GROUPS,
    esp_encryption: CIPHERS,
    esp_integrity: HASHES,
    ah: HASHES,
    pfs: GROUPS,
    ike_lifetime: 60..=86_400,
    ipsec_lifetime: 60..=86_400,
    has_esn: true,
    additional_ke: &[(Group::MlKem768, "ke1_mlkem768")],
    has_ppk: true,
    ipv6_outside: true,
    ipv6_inside: true,
    has_ikev1: true,
    has_aggressive: true,
    ids: Ids::All,
};

/// Proposals of phase 1, with commas between them.
pub(super) fn ike_proposals(phase: &Phase) -> String {
    let proposal = |(encryption, integrity): (Vec<&str>, Vec<&str>)| {
        let lists =
            [encryption, integrity, words(&phase.prf), words(&phase.groups), words(&phase.additional)];
        lists.concat().join("-")
    };
    phase.parts().into_iter().map(proposal).collect::<Vec<_>>().join(",")
}

/// Proposals of phase 2, with commas between them.
pub(super) fn esp_proposals(phase: &Phase, esn: bool) -> String {
    let parts = match phase.encryption.is_empty() {
        true => vec![(Vec::new(), words(&phase.integrity))],
        false => phase.parts(),
    };
    let esn: &[&str] = if esn { &["esn", "noesn"] } else { &[] };
    let proposal = |(encryption, integrity): (Vec<&str>, Vec<&str>)| {
        [encryption, integrity, words(&phase.groups), esn.to_vec()].concat().join("-")
    };
    parts.into_iter().map(proposal).collect::<Vec<_>>().join(",")
}

/// An identity as strongSwan takes it in quotes; a key ID as hexadecimal digits behind `@#`.
///
/// # Errors
/// As [`Script::id_text`].
pub(super) fn id(script: &Script<'_>, field: &'static str, id: &Id) -> Result<String, PeerConfigError> {
    let text = script.id_text(field, id)?;
    Ok(match id {
        Id::KeyId(_) => format!("@#{}", text.trim_start_matches("keyid:")),
        // Without the sign, a name of digits would be an address.
        Id::Fqdn(_) => format!("@{text}"),
        _ => text,
    })
}

/// A key as strongSwan reads it.
pub(super) fn quote(key: &str) -> Result<Zeroizing<String>, &'static str> {
    Ok(quoted_or_hexadecimal(key, &['"', '\\']))
}

/// What both formats say beforehand.
pub(super) fn say(script: &mut Script<'_>, phases: (&Phase, &Phase)) {
    let tunnel = script.view.tunnel;
    let aggressive = (tunnel.ike.version, tunnel.ike.mode) == (Version::Ikev1, Mode::Aggressive);
    if aggressive && script.view.start != Start::Immediate {
        script.note(
            "aggressive mode: charon answers it only with i_dont_care_about_security_and_use_aggressive_mode_psk = yes \
             in strongswan.conf",
        );
    }
    if !phases.0.additional.is_empty() {
        script.note("ML-KEM takes strongSwan 6.0");
    }
    let is_old = |e: &Choice<Encryption>| e.value.is_deprecated();
    if phases.0.encryption.iter().chain(&phases.1.encryption).any(is_old) {
        script.note("DES and 3DES take the legacy provider where charon has OpenSSL 3 (openssl { load_legacy = yes })");
    }
    if tunnel.nat_t == NatT::Off {
        script.note("nat_t: charon cannot be kept from NAT detection; it does nothing where there is no NAT");
    }
}

/// Prefixes with `between` between them.
pub(super) fn list(subnets: &[Subnet], between: &str) -> String {
    subnets.iter().map(Subnet::to_string).collect::<Vec<_>>().join(between)
}

/// swanctl.conf.
///
/// # Errors
/// Of the tunnel's fields that strongSwan cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    write_as(script, "swanctl.conf")?;
    let interface = script.view.slug(32);
    remark_bird(script, &interface);
    Ok(())
}

/// The same under another name.
///
/// # Errors
/// As [`write`].
pub(super) fn write_as(script: &mut Script<'_>, file: &str) -> Result<(), PeerConfigError> {
    script.style("#", quote);
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    say(script, (&ike, &ipsec));
    let tunnel = script.view.tunnel;
    let name = script.view.slug(32);
    let local_id = id(script, "ike.peer_id", script.view.local_id)?;
    let remote_id = id(script, "ike.local_id", script.view.remote_id)?;
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    if script.view.is_by_route() {
        let number = interface_number(&name);
        script.note(format!(
            "routing mode route: make the interface with `ip link add {name} type xfrm if_id {number}`, set it up, and \
             route {} of {:?} into it",
            "the networks",
            script.view.gateway
        ));
    }

    script.file(file);
    script.line("connections {");
    script.line(format_args!("  {name} {{"));
    let field = |script: &mut Script<'_>, depth: usize, name: &str, value: &dyn Display| {
        script.line(format_args!("{}{name} = {value}", "  ".repeat(depth)));
    };
    field(script, 2, "version", &if ikev1 { 1 } else { 2 });
    if ikev1 {
        field(script, 2, "aggressive", &if tunnel.ike.mode == Mode::Aggressive { "yes" } else { "no" });
    }
    match script.view.local {
        PeerAddress::Any => {
            script.remark("local_addrs: whichever this machine has on the way to the other side")
        }
        local => field(script, 2, "local_addrs", local),
    }
    field(script, 2, "remote_addrs", &script.view.remote.to_string());
    field(script, 2, "proposals", &ike_proposals(&ike));
    // The hard end is a tenth of the lifetime after the rekey.
    let tenth = ike.lifetime / 10;
    field(script, 2, "rekey_time", &format_args!("{}s", ike.lifetime - tenth));
    field(script, 2, "over_time", &format_args!("{tenth}s"));
    if let Some(dpd) = tunnel.dpd {
        field(script, 2, "dpd_delay", &format_args!("{}s", dpd.delay.as_secs()));
        if ikev1 {
            field(script, 2, "dpd_timeout", &format_args!("{}s", (dpd.delay + dpd.timeout).as_secs()));
        }
    }
    if tunnel.nat_t == NatT::Force {
        field(script, 2, "encap", &"yes");
    }
    if !ikev1 {
        field(script, 2, "mobike", &"no");
    }
    if tunnel.childless {
        field(script, 2, "childless", &"allow");
    }
    if let Some(ppk) = &tunnel.ppk {
        field(script, 2, "ppk_id", &format_args!("{:?}", String::from_utf8_lossy(&ppk.id)));
        field(script, 2, "ppk_required", &if ppk.required { "yes" } else { "no" });
    }
    for (side, id) in [("local", &local_id), ("remote", &remote_id)] {
        script.line(format_args!("    {side} {{"));
        field(script, 3, "auth", &"psk");
        field(script, 3, "id", &format_args!("\"{id}\""));
        script.line("    }");
    }
    script.line("    children {");
    let pairs = script.view.pairs();
    if ikev1 && !script.view.is_by_route() && pairs.len() > 1 {
        // A child of IKEv1 carries one pair of subnets (RFC 2409 section 5.5).
        for (i, (local, remote)) in pairs.iter().enumerate() {
            child(script, &format!("{name}-{}", i + 1), &local.to_string(), &remote.to_string(), &ipsec);
        }
    } else {
        let (local, remote) = (list(script.view.local_subnets, ","), list(script.view.remote_subnets, ","));
        child(script, &name, &local, &remote, &ipsec);
    }
    script.line("    }");
    script.line("  }");
    script.line("}");
    script.line("secrets {");
    script.line(format_args!("  ike-{name} {{"));
    field(script, 2, "id-local", &format_args!("\"{local_id}\""));
    field(script, 2, "id-remote", &format_args!("\"{remote_id}\""));
    field(script, 2, "secret", &PSK);
    script.line("  }");
    if let Some(ppk) = &tunnel.ppk {
        script.line(format_args!("  ppk-{name} {{"));
        field(script, 2, "id", &format_args!("{:?}", String::from_utf8_lossy(&ppk.id)));
        field(script, 2, "secret", &PPK);
        script.line("  }");
    }
    script.line("}");
    Ok(())
}

fn child(script: &mut Script<'_>, name: &str, local: &str, remote: &str, phase: &Phase) {
    let tunnel = script.view.tunnel;
    let what = if tunnel.ipsec.protocol == Protocol::Ah { "ah_proposals" } else { "esp_proposals" };
    let (start, after) = match script.view.start {
        Start::Immediate => ("start", "restart"),
        Start::OnDemand => ("trap", "trap"),
        Start::Respond => ("none", "clear"),
    };
    script.line(format_args!("      {name} {{"));
    let mut field = |name: &str, value: &dyn Display| script.line(format_args!("        {name} = {value}"));
    field("local_ts", &local);
    field("remote_ts", &remote);
    field(what, &esp_proposals(phase, tunnel.ipsec.esn));
    field("mode", &"tunnel");
    field("start_action", &start);
    if tunnel.dpd.is_some() {
        field("dpd_action", &after);
    }
    field("life_time", &format_args!("{}s", phase.lifetime));
    field("rekey_time", &format_args!("{}s", phase.lifetime - phase.lifetime / 10));
    field("replay_window", &tunnel.replay_window);
    if tunnel.routes.is_some() {
        let number = interface_number(&script.view.slug(32));
        script.line(format_args!("        if_id_in = {number}"));
        script.line(format_args!("        if_id_out = {number}"));
    }
    script.line("      }");
}

/// A number for the XFRM interface of the tunnel, the same every time.
fn interface_number(name: &str) -> u32 {
    1 + name.bytes().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 65_535
}
