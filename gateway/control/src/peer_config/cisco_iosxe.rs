//! Cisco IOS-XE: a tunnel interface, whose traffic selectors an access list gives (multi-SA VTI) or which takes everything.

use super::{
    PeerConfigError,
    bgp::session,
    choice::{Dialect, Ids, Phase, resolve, single, words},
    dotted::with_wildcard,
    script::{PSK, Script},
};
use crate::config::PeerAddress;
use adit_ike::{Encryption, Group, Id, Integrity, Mode, NatT, Prf, Version};
use zeroize::Zeroizing;

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
    (Group::Modp2048S256, "24"),
];

const PFS: &[(Group, &str)] = &[
    (Group::Modp768, "group1"),
    (Group::Modp1024, "group2"),
    (Group::Modp1536, "group5"),
    (Group::Modp2048, "group14"),
    (Group::Modp3072, "group15"),
    (Group::Modp4096, "group16"),
    (Group::P256, "group19"),
    (Group::P384, "group20"),
    (Group::P521, "group21"),
    (Group::Modp2048S256, "group24"),
];

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Md5, "md5"),
    (Integrity::Sha1, "sha1"),
    (Integrity::Sha256, "sha256"),
    (Integrity::Sha384, "sha384"),
    (Integrity::Sha512, "sha512"),
];

const IKEV2: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Des, "des"),
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes-cbc-128"),
        (Encryption::Aes192, "aes-cbc-192"),
        (Encryption::Aes256, "aes-cbc-256"),
        (Encryption::Aes128Gcm16, "aes-gcm-128"),
        (Encryption::Aes256Gcm16, "aes-gcm-256"),
    ],
    ike_integrity: HASHES,
    prf: Some(&[
        (Prf::Md5, "md5"),
        (Prf::Sha1, "sha1"),
        (Prf::Sha256, "sha256"),
        (Prf::Sha384, "sha384"),
        (Prf::Sha512, "sha512"),
    ]),
    dh: GROUPS,
    esp_encryption: &[
        (Encryption::Null, "esp-null"),
        (Encryption::Des, "esp-des"),
        (Encryption::TripleDes, "esp-3des"),
        (Encryption::Aes128, "esp-aes"),
        (Encryption::Aes192, "esp-aes 192"),
        (Encryption::Aes256, "esp-aes 256"),
        (Encryption::Aes128Gcm16, "esp-gcm"),
        (Encryption::Aes192Gcm16, "esp-gcm 192"),
        (Encryption::Aes256Gcm16, "esp-gcm 256"),
    ],
    esp_integrity: &[
        (Integrity::Md5, "esp-md5-hmac"),
        (Integrity::Sha1, "esp-sha-hmac"),
        (Integrity::Sha256, "esp-sha256-hmac"),
        (Integrity::Sha384, "esp-sha384-hmac"),
        (Integrity::Sha512, "esp-sha512-hmac"),
    ],
    ah: &[
        (Integrity::Md5, "ah-md5-hmac"),
        (Integrity::Sha1, "ah-sha-hmac"),
        (Integrity::Sha256, "ah-sha256-hmac"),
        (Integrity::Sha384, "ah-sha384-hmac"),
        (Integrity::Sha512, "ah-sha512-hmac"),
    ],
    pfs: PFS,
    ike_lifetime: 120..=86_400,
    ipsec_lifetime: 120..=86_400,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: false,
    ipv6_inside: false,
    has_ikev1: true,
    has_aggressive: true,
    ids: Ids::Names,
};

const IKEV1: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Des, "des"),
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes"),
        (Encryption::Aes192, "aes 192"),
        (Encryption::Aes256, "aes 256"),
    ],
    ike_integrity: &[
        (Integrity::Md5, "md5"),
        (Integrity::Sha1, "sha"),
        (Integrity::Sha256, "sha256"),
        (Integrity::Sha384, "sha384"),
        (Integrity::Sha512, "sha512"),
    ],
    ..IKEV2
};

/// The lines for configuration mode.
///
/// # Errors
/// Of the tunnel's fields that IOS-XE cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("!", key);
    let tunnel = script.view.tunnel;
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let (ike, ipsec) = resolve(script, if ikev1 { &IKEV1 } else { &IKEV2 })?;
    // A transform set and PFS are one value each; so is a policy of IKEv1.
    let ipsec = single(script, ipsec, true);
    script.note("put the interface that faces the other side in place of GigabitEthernet1, and a free number for Tunnel100");
    script.note("weak algorithms (DES, 3DES, MD5, groups 1, 2, 5 and 24) take `crypto engine compliance shield disable` from 17.11 on");
    script.note("a ? in a key is typed as Ctrl-V ?");
    let name = format!("adit-{}", script.view.slug(40));
    match ikev1 {
        true => phase1_of_ikev1(script, &name, ike)?,
        false => phase1(script, &name, &ike)?,
    }

    let (encryption, integrity) = (words(&ipsec.encryption), words(&ipsec.integrity));
    let transforms = [encryption, integrity].concat().join(" ");
    script.line(format_args!("crypto ipsec transform-set {name} {transforms}"));
    script.lines(&[" mode tunnel", "!"]);
    if !script.view.is_by_route() {
        script.line(format_args!("ip access-list extended {name}"));
        for (local, remote) in script.view.pairs() {
            script.line(format_args!(" permit ip {} {}", with_wildcard(&local), with_wildcard(&remote)));
        }
        script.line("!");
    }
    script.line(format_args!("crypto ipsec profile {name}"));
    script.line(format_args!(" set transform-set {name}"));
    for group in &ipsec.groups {
        script.line(format_args!(" set pfs {}", group.word));
    }
    script.line(format_args!(" set security-association lifetime seconds {}", ipsec.lifetime));
    let windows = [64, 128, 256, 512, 1024];
    match windows.into_iter().find(|w| *w >= tunnel.replay_window).unwrap_or(1024) {
        _ if tunnel.replay_window == 0 => script.line(" set security-association replay disable"),
        window => script.line(format_args!(" set security-association replay window-size {window}")),
    }
    script.line(format_args!(" set {} {name}", if ikev1 { "isakmp-profile" } else { "ikev2-profile" }));
    if !script.view.is_by_route() {
        script.line(" reverse-route");
    }
    script.lines(&["!", "interface Tunnel100"]);
    let bgp = session(script);
    match bgp {
        Some(bgp) => script.line(format_args!(" ip address {} 255.255.255.252", bgp.local_ip)),
        None => script.line(" ip unnumbered GigabitEthernet1"),
    }
    script.lines(&[" tunnel source GigabitEthernet1", " tunnel mode ipsec ipv4"]);
    let remote = script.view.remote;
    script.line(format_args!(" tunnel destination {remote}"));
    if !script.view.is_by_route() {
        script.line(format_args!(" tunnel protection ipsec policy ipv4 {name}"));
    }
    script.line(format_args!(" tunnel protection ipsec profile {name}"));
    tunnel.mss_clamp.iter().for_each(|mss| script.line(format_args!(" ip tcp adjust-mss {mss}")));
    script.line("!");
    if let Some(bgp) = bgp {
        let neighbor = format!(" neighbor {}", bgp.remote_ip);
        script.line(format_args!("router bgp {}", bgp.local_asn));
        script.line(format_args!("{neighbor} remote-as {}", bgp.remote_asn));
        script.line(format_args!("{neighbor} timers {} {}", bgp.keepalive(), bgp.hold_time));
        script.line(" address-family ipv4");
        script.line(format_args!(" {neighbor} activate"));
        script.lines(&[" exit-address-family", "!"]);
        script.remark("`network NETWORK mask MASK` in the address family announces a network of this side");
    } else if script.view.is_by_route() {
        script.remark(
            "routing mode route: `ip route NETWORK MASK Tunnel100` for each network behind the other side",
        );
    }
    Ok(())
}

fn phase1(script: &mut Script<'_>, name: &str, ike: &Phase) -> Result<(), PeerConfigError> {
    let tunnel = script.view.tunnel;
    let parts = ike.parts();
    let proposals: Vec<_> = (1..=parts.len()).map(|i| format!("{name}-{i}")).collect();
    for (proposal, (encryption, integrity)) in proposals.iter().zip(parts) {
        script.line(format_args!("crypto ikev2 proposal {proposal}"));
        script.line(format_args!(" encryption {}", encryption.join(" ")));
        if !integrity.is_empty() {
            script.line(format_args!(" integrity {}", integrity.join(" ")));
        }
        script.line(format_args!(" prf {}", words(&ike.prf).join(" ")));
        script.line(format_args!(" group {}", words(&ike.groups).join(" ")));
        script.line("!");
    }
    let (remote, local) = (script.view.remote, script.view.local.clone());
    script.line(format_args!("crypto ikev2 policy {name}"));
    if let PeerAddress::Ip(local) = local {
        script.line(format_args!(" match address local {local}"));
    }
    proposals.iter().for_each(|proposal| script.line(format_args!(" proposal {proposal}")));
    script.line("!");
    script.line(format_args!("crypto ikev2 keyring {name}"));
    script.line(format_args!(" peer {name}"));
    script.line(format_args!("  address {remote}"));
    script.line(format_args!("  pre-shared-key {PSK}"));
    script.line("!");
    let (local_id, remote_id) = ids(script)?;
    script.line(format_args!("crypto ikev2 profile {name}"));
    script.line(format_args!(" match identity remote {remote_id}"));
    script.line(format_args!(" identity local {local_id}"));
    script.lines(&[" authentication remote pre-share", " authentication local pre-share"]);
    script.line(format_args!(" keyring local {name}"));
    script.line(format_args!(" lifetime {}", ike.lifetime));
    if let Some(dpd) = tunnel.dpd {
        let (interval, retry) = (dpd.delay.as_secs().clamp(10, 3600), dpd.timeout.as_secs().clamp(2, 60));
        script.line(format_args!(" dpd {interval} {retry} periodic"));
    }
    if tunnel.nat_t == NatT::Force {
        script.line(" nat force-encap");
    }
    script.line("!");
    Ok(())
}

fn phase1_of_ikev1(script: &mut Script<'_>, name: &str, ike: Phase) -> Result<(), PeerConfigError> {
    let tunnel = script.view.tunnel;
    let ike = single(script, ike, false);
    let (remote, aggressive) = (script.view.remote, tunnel.ike.mode == Mode::Aggressive);
    script.line("crypto isakmp policy 100");
    script.line(format_args!(" encryption {}", words(&ike.encryption).join("")));
    script.line(format_args!(" hash {}", words(&ike.integrity).join("")));
    script.line(" authentication pre-share");
    script.line(format_args!(" group {}", words(&ike.groups).join("")));
    script.line(format_args!(" lifetime {}", ike.lifetime));
    script.line("!");
    script.line(format_args!("crypto keyring {name}"));
    script.line(format_args!(" pre-shared-key address {remote} key {PSK}"));
    script.line("!");
    let (local_id, remote_id) = ids(script)?;
    if let Some(dpd) = tunnel.dpd {
        let (interval, retry) = (dpd.delay.as_secs().clamp(10, 3600), dpd.timeout.as_secs().clamp(2, 60));
        script.line(format_args!("crypto isakmp keepalive {interval} {retry} periodic"));
    }
    script.line(format_args!("crypto isakmp profile {name}"));
    script.line(format_args!(" keyring {name}"));
    match (script.view.local_id, local_id.split_once(' ')) {
        (Id::V4(_), _) => script.line(" self-identity address"),
        (_, Some(("email", name))) => script.line(format_args!(" self-identity user-fqdn {name}")),
        // The router's own name with its domain goes without a word.
        (_, Some((_, name))) => script.line(format_args!(" self-identity fqdn {name}")),
        (_, None) => {}
    }
    match remote_id.split_once(' ') {
        Some(("address", address)) => script.line(format_args!(" match identity address {address}")),
        Some(("email", name)) => script.line(format_args!(" match identity user {name}")),
        Some((_, name)) => script.line(format_args!(" match identity host {name}")),
        None => {}
    }
    if aggressive {
        script.line(" initiate mode aggressive");
    }
    script.line("!");
    Ok(())
}

/// The identities, the peer's first, with the words that say of what kind they are.
fn ids(script: &Script<'_>) -> Result<(String, String), PeerConfigError> {
    let (local, remote) = script.ids()?;
    let kind = |id: &Id, text: String, mask: &str| match id {
        Id::V4(_) | Id::V6(_) => format!("address {text}{mask}"),
        Id::Fqdn(_) => format!("fqdn {text}"),
        Id::UserFqdn(_) | Id::KeyId(_) => format!("email {text}"),
    };
    Ok((kind(script.view.local_id, local, ""), kind(script.view.remote_id, remote, " 255.255.255.255")))
}

fn key(key: &str) -> Result<Zeroizing<String>, &'static str> {
    Ok(Zeroizing::new(key.to_owned()))
}
