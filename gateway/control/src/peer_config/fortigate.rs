//! FortiGate: an interface-mode tunnel with a phase 2 for each pair of subnets.

use super::{
    PeerConfigError,
    bgp::session,
    choice::{Dialect, Ids, Phase, resolve, words},
    dotted::with_mask,
    script::{PSK, Script, quoted_or_hexadecimal},
};
use crate::config::{Start, Subnet};
use adit_ike::{Encryption, Group, Id, Integrity, Mode, NatT, Prf, Version};

const GROUPS: &[(Group, &str)] = &[
    (Group::Modp768, "1"),
    (Group::Modp1024, "2"),
    (Group::Modp1536, "5"),
    (Group::Modp2048, "14"),
    (Group::Modp3072, "15"),
    (Group::Modp4096, "16"),
    (Group::P256, "19"),
    (Group::P384, "20"),
    (Group::P521, "21"),
    (Group::X25519, "31"),
];

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Md5, "md5"),
    (Integrity::Sha1, "sha1"),
    (Integrity::Sha256, "sha256"),
    (Integrity::Sha384, "sha384"),
    (Integrity::Sha512, "sha512"),
];

const DIALECT: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Des, "des"),
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes128"),
        (Encryption::Aes192, "aes192"),
        (Encryption::Aes256, "aes256"),
        (Encryption::Aes128Gcm16, "aes128gcm"),
        (Encryption::Aes256Gcm16, "aes256gcm"),
        (Encryption::ChaCha20Poly1305, "chacha20poly1305"),
    ],
    ike_integrity: HASHES,
    // Beside a cipher without authentication it is the hash.
    prf: Some(&[
        (Prf::Sha1, "prfsha1"),
        (Prf::Sha256, "prfsha256"),
        (Prf::Sha384, "prfsha384"),
        (Prf::Sha512, "prfsha512"),
        (Prf::Md5, "md5"),
    ]),
    dh: GROUPS,
    esp_encryption: &[
        (Encryption::Null, "null"),
        (Encryption::Des, "des"),
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes128"),
        (Encryption::Aes192, "aes192"),
        (Encryption::Aes256, "aes256"),
        (Encryption::Aes128Gcm16, "aes128gcm"),
        (Encryption::Aes256Gcm16, "aes256gcm"),
        (Encryption::ChaCha20Poly1305, "chacha20poly1305"),
    ],
    esp_integrity: HASHES,
    ah: &[],
    pfs: GROUPS,
    ike_lifetime: 120..=172_800,
    ipsec_lifetime: 120..=172_800,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: true,
    ipv6_inside: true,
    has_ikev1: true,
    has_aggressive: true,
    ids: Ids::Names,
};

/// The commands.
///
/// # Errors
/// Of the tunnel's fields that FortiOS cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| match key.len() {
        0..6 => Err("takes a key of at least 6 characters"),
        _ => Ok(quoted_or_hexadecimal(key, &['"', '\\', '?'])),
    });
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    let tunnel = script.view.tunnel;
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let cbc = |e: &super::choice::Choice<Encryption>| !e.value.is_aead();
    if !ikev1 && ike.encryption.iter().any(cbc) {
        let is_prf = |i: &super::choice::Choice<Integrity>| {
            tunnel.ike.prf.iter().any(|p| p.hash_name() == i.value.to_string())
        };
        if !ike.integrity.iter().any(is_prf) {
            return Err(script
                .inexpressible("ike.prf", "takes the PRF from ike.integrity, and the tunnel wants another"));
        }
    }
    script.note("put the interface that faces the other side in place of wan1, and that of the networks in place of internal");
    // An interface of that name is made.
    let name = script.view.slug(15);
    let (remote, start) = (script.view.remote, script.view.start);
    let (local_id, remote_id) = script.ids()?;
    let is_address = |id: &Id| matches!(id, Id::V4(_) | Id::V6(_));

    script.lines(&["config vpn ipsec phase1-interface"]);
    script.line(format_args!("    edit \"{name}\""));
    let names = (!is_address(script.view.local_id), !is_address(script.view.remote_id));
    let mut set =
        |name: &str, value: &dyn std::fmt::Display| script.line(format_args!("        set {name} {value}"));
    set("type", &"static");
    set("interface", &"\"wan1\"");
    set("ike-version", &if ikev1 { 1 } else { 2 });
    if ikev1 {
        set("mode", &if tunnel.ike.mode == Mode::Aggressive { "aggressive" } else { "main" });
    }
    if remote.is_ipv6() {
        set("ip-version", &6);
        set("remote-gw6", &remote);
    } else {
        set("remote-gw", &remote);
    }
    if names.0 {
        set("localid", &format_args!("\"{local_id}\""));
    }
    match names.1 {
        true => {
            set("peertype", &"one");
            set("peerid", &format_args!("\"{remote_id}\""));
        }
        false => set("peertype", &"any"),
    }
    set("authmethod", &"psk");
    set("psksecret", &PSK);
    set("proposal", &ike_proposals(&ike));
    set("dhgrp", &words(&ike.groups).join(" "));
    set("keylife", &ike.lifetime);
    set("net-device", &"disable");
    let nat_t = match tunnel.nat_t {
        NatT::Auto => "enable",
        NatT::Force => "forced",
        NatT::Off => "disable",
    };
    set("nattraversal", &nat_t);
    match tunnel.dpd {
        Some(dpd) => {
            set("dpd", &"on-idle");
            set("dpd-retryinterval", &dpd.delay.as_secs().max(1));
        }
        None => set("dpd", &"disable"),
    }
    set("passive-mode", &if start == Start::Respond { "enable" } else { "disable" });
    script.lines(&["    next", "end", "config vpn ipsec phase2-interface"]);

    for (i, (local, remote)) in script.view.pairs().iter().enumerate() {
        script.line(format_args!("    edit \"{name}-{}\"", i + 1));
        let mut set = |name: &str, value: &dyn std::fmt::Display| {
            script.line(format_args!("        set {name} {value}"))
        };
        set("phase1name", &format_args!("\"{name}\""));
        set("proposal", &esp_proposals(&ipsec));
        match ipsec.groups.is_empty() {
            true => set("pfs", &"disable"),
            false => {
                set("pfs", &"enable");
                set("dhgrp", &words(&ipsec.groups).join(" "));
            }
        }
        for (side, subnet) in [("src", local), ("dst", remote)] {
            if subnet.address().is_ipv6() {
                set(&format!("{side}-addr-type"), &"subnet6");
                set(&format!("{side}-subnet6"), subnet);
            } else {
                set(&format!("{side}-subnet"), &with_mask(subnet));
            }
        }
        set("keylifeseconds", &ipsec.lifetime);
        set("replay", &if tunnel.replay_window == 0 { "disable" } else { "enable" });
        set("auto-negotiate", &if start == Start::Immediate { "enable" } else { "disable" });
        script.line("    next");
    }
    script.line("end");
    if let Some(bgp) = session(script) {
        script.line("config system interface");
        script.line(format_args!("    edit \"{name}\""));
        script.line(format_args!("        set ip {} 255.255.255.255", bgp.local_ip));
        script.line(format_args!("        set remote-ip {} 255.255.255.252", bgp.remote_ip));
        script.lines(&["    next", "end", "config router bgp"]);
        script.line(format_args!("    set as {}", bgp.local_asn));
        script.line("    config neighbor");
        script.line(format_args!("        edit \"{}\"", bgp.remote_ip));
        script.line(format_args!("            set remote-as {}", bgp.remote_asn));
        script.line(format_args!("            set keep-alive-timer {}", bgp.keepalive()));
        script.line(format_args!("            set holdtime-timer {}", bgp.hold_time));
        script.lines(&["        next", "    end", "end"]);
        script.remark("`config network` in router bgp announces the networks of this side");
    } else if script.view.is_by_route() {
        script.remark("routing mode route: a static route to each network behind the other side, with the tunnel as its device");
    } else {
        routes(script, &name);
    }
    script.lines(&["config firewall policy"]);
    for (from, to) in [("internal", name.as_str()), (&name, "internal")] {
        script.lines(&["    edit 0"]);
        script.line(format_args!("        set name \"{from} to {to}\""));
        script.line(format_args!("        set srcintf \"{from}\""));
        script.line(format_args!("        set dstintf \"{to}\""));
        script.lines(&[
            "        set srcaddr \"all\"",
            "        set dstaddr \"all\"",
            "        set action accept",
            "        set schedule \"always\"",
            "        set service \"ALL\"",
            "    next",
        ]);
    }
    script.line("end");
    Ok(())
}

fn routes(script: &mut Script<'_>, name: &str) {
    for (v6, table) in [(false, "static"), (true, "static6")] {
        let of_family = |s: &&Subnet| s.address().is_ipv6() == v6;
        let subnets: Vec<_> = script.view.remote_subnets.iter().filter(of_family).copied().collect();
        if subnets.is_empty() {
            continue;
        }
        script.line(format_args!("config router {table}"));
        for subnet in subnets {
            script.line("    edit 0");
            script.line(format_args!("        set dst {}", with_mask(&subnet)));
            script.line(format_args!("        set device \"{name}\""));
            script.line("    next");
        }
        script.line("end");
    }
}

/// `aes256gcm-prfsha256 aes256-sha256`: every cipher with every hash.
fn ike_proposals(phase: &Phase) -> String {
    let prfs = words(&phase.prf);
    let all = phase.parts().into_iter().flat_map(|(encryption, integrity)| {
        let seconds = if integrity.is_empty() { prfs.clone() } else { integrity };
        encryption.into_iter().flat_map(move |e| seconds.clone().into_iter().map(move |s| format!("{e}-{s}")))
    });
    all.collect::<Vec<_>>().join(" ")
}

fn esp_proposals(phase: &Phase) -> String {
    let mut all = Vec::new();
    for (encryption, integrity) in phase.parts() {
        for cipher in encryption {
            match integrity.is_empty() {
                true => all.push(cipher.to_owned()),
                false => all.extend(integrity.iter().map(|hash| format!("{cipher}-{hash}"))),
            }
        }
    }
    all.join(" ")
}
