//! Juniper SRX: `set` commands; an st0 interface and a traffic selector for each pair of subnets.

use super::{
    PeerConfigError,
    bgp::session,
    choice::{Dialect, Ids, resolve, single, words},
    script::{PSK, Script, hexadecimal},
};
use crate::config::{PeerAddress, Start};
use adit_ike::{Encryption, Group, Id, Integrity, Mode, NatT, Prf, Protocol, Version};
use zeroize::Zeroizing;

const GROUPS: &[(Group, &str)] = &[
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

const HMACS: &[(Integrity, &str)] = &[
    (Integrity::Md5, "hmac-md5-96"),
    (Integrity::Sha1, "hmac-sha1-96"),
    (Integrity::Sha256, "hmac-sha-256-128"),
    (Integrity::Sha384, "hmac-sha-384"),
    (Integrity::Sha512, "hmac-sha-512"),
];

const DIALECT: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Des, "des-cbc"),
        (Encryption::TripleDes, "3des-cbc"),
        (Encryption::Aes128, "aes-128-cbc"),
        (Encryption::Aes192, "aes-192-cbc"),
        (Encryption::Aes256, "aes-256-cbc"),
        (Encryption::Aes128Gcm16, "aes-128-gcm"),
        (Encryption::Aes256Gcm16, "aes-256-gcm"),
    ],
    ike_integrity: &[
        (Integrity::Md5, "md5"),
        (Integrity::Sha1, "sha1"),
        (Integrity::Sha256, "sha-256"),
        (Integrity::Sha384, "sha-384"),
        (Integrity::Sha512, "sha-512"),
    ],
    // The authentication algorithm stands for both.
    prf: Some(&[
        (Prf::Md5, "md5"),
        (Prf::Sha1, "sha1"),
        (Prf::Sha256, "sha-256"),
        (Prf::Sha384, "sha-384"),
        (Prf::Sha512, "sha-512"),
    ]),
    dh: GROUPS,
    esp_encryption: &[
        (Encryption::Des, "des-cbc"),
        (Encryption::TripleDes, "3des-cbc"),
        (Encryption::Aes128, "aes-128-cbc"),
        (Encryption::Aes192, "aes-192-cbc"),
        (Encryption::Aes256, "aes-256-cbc"),
        (Encryption::Aes128Gcm16, "aes-128-gcm"),
        (Encryption::Aes192Gcm16, "aes-192-gcm"),
        (Encryption::Aes256Gcm16, "aes-256-gcm"),
    ],
    esp_integrity: HMACS,
    ah: HMACS,
    pfs: GROUPS,
    ike_lifetime: 180..=86_400,
    ipsec_lifetime: 180..=86_400,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: true,
    ipv6_inside: true,
    has_ikev1: true,
    has_aggressive: true,
    // Its key ID is text, and ours octets.
    ids: Ids::Names,
};

/// The commands for configuration mode.
///
/// # Errors
/// Of the tunnel's fields that Junos cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    // A key with quotes would have to be escaped for the command line and for the file.
    script.style("#", |key| {
        if !key.contains(['"', '\\', '?']) {
            return Ok(Zeroizing::new(format!("ascii-text \"{key}\"")));
        }
        let digits = hexadecimal(key.as_bytes());
        Ok(Zeroizing::new(format!("hexadecimal {}", digits.trim_start_matches("0x"))))
    });
    let tunnel = script.view.tunnel;
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    let (ike, ipsec) = (single(script, ike, false), single(script, ipsec, true));
    let (hash, prf) = (words(&ike.integrity), words(&ike.prf));
    if !hash.is_empty() && !prf.is_empty() && hash != prf {
        return Err(script.inexpressible("ike.prf", "has one hash for both, and ike.integrity differs"));
    }
    script.note(
        "put the interface that faces the other side in place of ge-0/0/0.0, and a free unit for st0.0",
    );
    script.note("security policies between the zones `trust` and `vpn` say what may pass; host-inbound-traffic of the outer zone has to allow ike");
    let name = format!("adit-{}", script.view.slug(26));
    let (remote, start, local) = (script.view.remote, script.view.start, script.view.local.clone());
    let (local_id, remote_id) = script.ids()?;
    let kind = |id: &Id, text: &str| match id {
        Id::V4(_) => format!("inet {text}"),
        Id::V6(_) => format!("inet6 {text}"),
        Id::Fqdn(_) => format!("hostname {text}"),
        Id::UserFqdn(_) | Id::KeyId(_) => format!("user-at-hostname {text}"),
    };
    let (local_id, remote_id) =
        (kind(script.view.local_id, &local_id), kind(script.view.remote_id, &remote_id));

    let proposal = format!("set security ike proposal {name}");
    script.line(format_args!("{proposal} authentication-method pre-shared-keys"));
    script.line(format_args!("{proposal} dh-group {}", words(&ike.groups).join("")));
    script.line(format_args!("{proposal} encryption-algorithm {}", words(&ike.encryption).join("")));
    let hash = if hash.is_empty() { prf } else { hash };
    script.line(format_args!("{proposal} authentication-algorithm {}", hash.join("")));
    script.line(format_args!("{proposal} lifetime-seconds {}", ike.lifetime));
    let policy = format!("set security ike policy {name}");
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    if ikev1 {
        let mode = if tunnel.ike.mode == Mode::Aggressive { "aggressive" } else { "main" };
        script.line(format_args!("{policy} mode {mode}"));
    }
    script.line(format_args!("{policy} proposals {name}"));
    script.line(format_args!("{policy} pre-shared-key {PSK}"));
    let gateway = format!("set security ike gateway {name}");
    script.line(format_args!("{gateway} ike-policy {name}"));
    script.line(format_args!("{gateway} address {remote}"));
    script.line(format_args!("{gateway} external-interface ge-0/0/0.0"));
    if let PeerAddress::Ip(local) = local {
        script.line(format_args!("{gateway} local-address {local}"));
    }
    script.line(format_args!("{gateway} local-identity {local_id}"));
    script.line(format_args!("{gateway} remote-identity {remote_id}"));
    script.line(format_args!("{gateway} version {}", if ikev1 { "v1-only" } else { "v2-only" }));
    if tunnel.nat_t == NatT::Off {
        script.line(format_args!("{gateway} no-nat-traversal"));
    }
    if let Some(dpd) = tunnel.dpd {
        let interval = dpd.delay.as_secs().clamp(10, 60);
        script.line(format_args!("{gateway} dead-peer-detection always-send"));
        script.line(format_args!("{gateway} dead-peer-detection interval {interval}"));
        script.line(format_args!("{gateway} dead-peer-detection threshold 3"));
    }

    let proposal = format!("set security ipsec proposal {name}");
    let protocol = if tunnel.ipsec.protocol == Protocol::Ah { "ah" } else { "esp" };
    script.line(format_args!("{proposal} protocol {protocol}"));
    for encryption in &ipsec.encryption {
        script.line(format_args!("{proposal} encryption-algorithm {}", encryption.word));
    }
    for integrity in &ipsec.integrity {
        script.line(format_args!("{proposal} authentication-algorithm {}", integrity.word));
    }
    script.line(format_args!("{proposal} lifetime-seconds {}", ipsec.lifetime));
    for group in &ipsec.groups {
        script.line(format_args!(
            "set security ipsec policy {name} perfect-forward-secrecy keys {}",
            group.word
        ));
    }
    script.line(format_args!("set security ipsec policy {name} proposals {name}"));
    let vpn = format!("set security ipsec vpn {name}");
    script.line(format_args!("{vpn} bind-interface st0.0"));
    script.line(format_args!("{vpn} ike gateway {name}"));
    script.line(format_args!("{vpn} ike ipsec-policy {name}"));
    if tunnel.replay_window == 0 {
        script.line(format_args!("{vpn} ike no-anti-replay"));
    }
    let establish = match start {
        Start::Immediate => "immediately",
        Start::OnDemand => "on-traffic",
        Start::Respond => "responder-only",
    };
    if !script.view.is_by_route() {
        for (i, (local, remote)) in script.view.pairs().iter().enumerate() {
            script
                .line(format_args!("{vpn} traffic-selector ts{} local-ip {local} remote-ip {remote}", i + 1));
        }
    }
    script.line(format_args!("{vpn} establish-tunnels {establish}"));
    let is_ipv6 = |v6: bool| script.view.local_subnets.iter().any(|s| s.address().is_ipv6() == v6);
    let families = [(false, "inet"), (true, "inet6")].map(|(v6, family)| (is_ipv6(v6), family));
    for (_, family) in families.into_iter().filter(|(used, _)| *used) {
        script.line(format_args!("set interfaces st0 unit 0 family {family}"));
    }
    script.line("set security zones security-zone vpn interfaces st0.0");
    if let Some(bgp) = session(script) {
        let group = format!("set protocols bgp group {name}");
        script.line(format_args!("set interfaces st0 unit 0 family inet address {}/30", bgp.local_ip));
        script
            .line("set security zones security-zone vpn interfaces st0.0 host-inbound-traffic protocols bgp");
        script.line(format_args!("set routing-options autonomous-system {}", bgp.local_asn));
        let kind = if bgp.local_asn == bgp.remote_asn { "internal" } else { "external" };
        script.line(format_args!("{group} type {kind}"));
        script.line(format_args!("{group} local-address {}", bgp.local_ip));
        script.line(format_args!("{group} hold-time {}", bgp.hold_time));
        script.line(format_args!("{group} peer-as {}", bgp.remote_asn));
        script.line(format_args!("{group} neighbor {}", bgp.remote_ip));
        script.remark("`export POLICY` in the group announces the networks of this side");
    } else if script.view.is_by_route() {
        script.remark("routing mode route: `set routing-options static route NETWORK next-hop st0.0` for each network there");
    }
    Ok(())
}
