//! VyOS: `set` commands of a site-to-site peer, with a tunnel for each pair of subnets or a VTI.

use super::{
    PeerConfigError,
    bgp::session,
    choice::{Dialect, Ids, resolve, single, words},
    script::{PSK, Script},
};
use crate::config::Start;
use adit_ike::{Encryption, Group, Integrity, Mode, NatT, Prf, Version};
use zeroize::Zeroizing;

const CIPHERS: &[(Encryption, &str)] = &[
    (Encryption::Null, "null"),
    (Encryption::TripleDes, "3des"),
    (Encryption::Aes128, "aes128"),
    (Encryption::Aes192, "aes192"),
    (Encryption::Aes256, "aes256"),
    (Encryption::Aes128Gcm16, "aes128gcm128"),
    (Encryption::Aes192Gcm16, "aes192gcm128"),
    (Encryption::Aes256Gcm16, "aes256gcm128"),
    (Encryption::ChaCha20Poly1305, "chacha20poly1305"),
];

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Md5, "md5"),
    (Integrity::Sha1, "sha1"),
    (Integrity::Sha256, "sha256"),
    (Integrity::Sha384, "sha384"),
    (Integrity::Sha512, "sha512"),
];

const DIALECT: Dialect = Dialect {
    ike_encryption: CIPHERS,
    ike_integrity: HASHES,
    prf: Some(&[
        (Prf::Md5, "prfmd5"),
        (Prf::Sha1, "prfsha1"),
        (Prf::Sha256, "prfsha256"),
        (Prf::Sha384, "prfsha384"),
        (Prf::Sha512, "prfsha512"),
    ]),
    dh: &[
        (Group::Modp768, "1"),
        (Group::Modp1024, "2"),
        (Group::Modp1536, "5"),
        (Group::Modp2048, "14"),
        (Group::Modp3072, "15"),
        (Group::Modp4096, "16"),
        (Group::P256, "19"),
        (Group::P384, "20"),
        (Group::P521, "21"),
        (Group::Modp2048S256, "24"),
        (Group::X25519, "31"),
    ],
    esp_encryption: CIPHERS,
    esp_integrity: HASHES,
    ah: &[],
    pfs: &[
        (Group::Modp768, "dh-group1"),
        (Group::Modp1024, "dh-group2"),
        (Group::Modp1536, "dh-group5"),
        (Group::Modp2048, "dh-group14"),
        (Group::Modp3072, "dh-group15"),
        (Group::Modp4096, "dh-group16"),
        (Group::P256, "dh-group19"),
        (Group::P384, "dh-group20"),
        (Group::P521, "dh-group21"),
        (Group::Modp2048S256, "dh-group24"),
        (Group::X25519, "dh-group31"),
    ],
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

/// The commands for configuration mode.
///
/// # Errors
/// Of the tunnel's fields that VyOS cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| match key.contains(['\'', '"', '\\']) {
        true => Err("takes no quotes and no backslash in a key"),
        false => Ok(Zeroizing::new(format!("'{key}'"))),
    });
    let tunnel = script.view.tunnel;
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    let (ike, ipsec) = (single(script, ike, false), single(script, ipsec, true));
    script.note("put the interface that faces the other side in place of eth0");
    let name = script.view.slug(32);
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let (remote, start) = (script.view.remote, script.view.start);
    let local = script.view.local_ip().map_or("any".to_owned(), |ip| ip.to_string());
    let (local_id, remote_id) = script.ids()?;
    let vpn = "set vpn ipsec";
    script.line(format_args!("{vpn} interface 'eth0'"));
    for id in [&local_id, &remote_id] {
        script.line(format_args!("{vpn} authentication psk {name} id '{id}'"));
    }
    script.line(format_args!("{vpn} authentication psk {name} secret {PSK}"));

    let group = format!("{vpn} ike-group {name}");
    script.line(format_args!("{group} key-exchange '{}'", if ikev1 { "ikev1" } else { "ikev2" }));
    if ikev1 {
        let mode = if tunnel.ike.mode == Mode::Aggressive { "aggressive" } else { "main" };
        script.line(format_args!("{group} mode '{mode}'"));
    } else {
        script.line(format_args!("{group} disable-mobike"));
    }
    script.line(format_args!("{group} lifetime '{}'", ike.lifetime));
    script.line(format_args!("{group} proposal 1 encryption '{}'", words(&ike.encryption).join("")));
    // A hash has to be there; beside a cipher with authentication it says nothing.
    let hash = words(&ike.integrity).first().copied().unwrap_or("sha256");
    script.line(format_args!("{group} proposal 1 hash '{hash}'"));
    for prf in &ike.prf {
        script.line(format_args!("{group} proposal 1 prf '{}'", prf.word));
    }
    script.line(format_args!("{group} proposal 1 dh-group '{}'", words(&ike.groups).join("")));
    if let Some(dpd) = tunnel.dpd {
        let action = match start {
            Start::Immediate => "restart",
            Start::OnDemand => "trap",
            Start::Respond => "clear",
        };
        script.line(format_args!("{group} dead-peer-detection action '{action}'"));
        script.line(format_args!("{group} dead-peer-detection interval '{}'", dpd.delay.as_secs().max(2)));
        script.line(format_args!(
            "{group} dead-peer-detection timeout '{}'",
            (dpd.delay + dpd.timeout).as_secs()
        ));
    }

    let group = format!("{vpn} esp-group {name}");
    script.line(format_args!("{group} mode 'tunnel'"));
    script.line(format_args!("{group} lifetime '{}'", ipsec.lifetime));
    let pfs = words(&ipsec.groups).first().copied().unwrap_or("disable");
    script.line(format_args!("{group} pfs '{pfs}'"));
    script.line(format_args!("{group} proposal 1 encryption '{}'", words(&ipsec.encryption).join("")));
    let hash = words(&ipsec.integrity).first().copied().unwrap_or("sha256");
    script.line(format_args!("{group} proposal 1 hash '{hash}'"));

    let peer = format!("{vpn} site-to-site peer {name}");
    script.line(format_args!("{peer} authentication mode 'pre-shared-secret'"));
    script.line(format_args!("{peer} authentication local-id '{local_id}'"));
    script.line(format_args!("{peer} authentication remote-id '{remote_id}'"));
    let begins = match start {
        Start::Immediate => "initiate",
        Start::OnDemand => "none",
        Start::Respond => "respond",
    };
    script.line(format_args!("{peer} connection-type '{begins}'"));
    script.line(format_args!("{peer} ike-group '{name}'"));
    script.line(format_args!("{peer} default-esp-group '{name}'"));
    script.line(format_args!("{peer} local-address '{local}'"));
    script.line(format_args!("{peer} remote-address '{remote}'"));
    if tunnel.nat_t == NatT::Force {
        script.line(format_args!("{peer} force-udp-encapsulation"));
    }
    if script.view.is_by_route() {
        script.lines(&["set interfaces vti vti100"]);
        script.line(format_args!("{peer} vti bind 'vti100'"));
        script.line(format_args!("{peer} vti esp-group '{name}'"));
        if let Some(bgp) = session(script) {
            let neighbor = format!("set protocols bgp neighbor {}", bgp.remote_ip);
            script.line(format_args!("set interfaces vti vti100 address '{}/30'", bgp.local_ip));
            script.line(format_args!("set protocols bgp system-as '{}'", bgp.local_asn));
            script.line(format_args!("{neighbor} remote-as '{}'", bgp.remote_asn));
            script.line(format_args!("{neighbor} timers keepalive '{}'", bgp.keepalive()));
            script.line(format_args!("{neighbor} timers holdtime '{}'", bgp.hold_time));
            script.line(format_args!("{neighbor} address-family ipv4-unicast"));
            script.remark("`set protocols bgp address-family ipv4-unicast network NETWORK` announces a network of this side");
            return Ok(());
        }
        script.remark("routing mode route: `set protocols static route NETWORK interface vti100` for each network there");
        return Ok(());
    }
    for (i, (local, remote)) in script.view.pairs().iter().enumerate() {
        script.line(format_args!("{peer} tunnel {} local prefix '{local}'", i + 1));
        script.line(format_args!("{peer} tunnel {} remote prefix '{remote}'", i + 1));
    }
    Ok(())
}
