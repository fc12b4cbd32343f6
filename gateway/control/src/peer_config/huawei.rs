//! Huawei firewalls: an ISAKMP policy on the outer interface.

use super::{
    PeerConfigError,
    choice::{Dialect, Ids, resolve, single, words},
    dotted::with_wildcard,
    script::{PSK, Script},
};
use crate::config::Start;
use adit_ike::{Encryption, Group, Id, Integrity, Mode, NatT, Prf, Protocol, Version};
use zeroize::Zeroizing;

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Md5, "md5"),
    (Integrity::Sha1, "sha1"),
    (Integrity::Sha256, "sha2-256"),
    (Integrity::Sha384, "sha2-384"),
    (Integrity::Sha512, "sha2-512"),
];

const DIALECT: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Des, "des"),
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes-128"),
        (Encryption::Aes192, "aes-192"),
        (Encryption::Aes256, "aes-256"),
    ],
    ike_integrity: HASHES,
    prf: Some(&[
        (Prf::Md5, "hmac-md5"),
        (Prf::Sha1, "hmac-sha1"),
        (Prf::Sha256, "hmac-sha2-256"),
        (Prf::Sha384, "hmac-sha2-384"),
        (Prf::Sha512, "hmac-sha2-512"),
    ]),
    dh: &[
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
    ],
    esp_encryption: &[
        (Encryption::Des, "des"),
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes-128"),
        (Encryption::Aes192, "aes-192"),
        (Encryption::Aes256, "aes-256"),
        (Encryption::Aes128Gcm16, "aes-128-gcm-128"),
        (Encryption::Aes192Gcm16, "aes-192-gcm-128"),
        (Encryption::Aes256Gcm16, "aes-256-gcm-128"),
    ],
    esp_integrity: HASHES,
    ah: HASHES,
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
    ],
    ike_lifetime: 60..=604_800,
    ipsec_lifetime: 30..=604_800,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: false,
    ipv6_inside: false,
    has_ikev1: true,
    has_aggressive: true,
    ids: Ids::Names,
};

/// The commands for the system view.
///
/// # Errors
/// Of the tunnel's fields that VRP cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| match key.contains('?') {
        true => Err("takes no ? in a key"),
        false => Ok(Zeroizing::new(key.to_owned())),
    });
    let tunnel = script.view.tunnel;
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    let (ike, ipsec) = (single(script, ike, false), single(script, ipsec, true));
    script.note("put the interface that faces the other side in place of GigabitEthernet0/0/1; ACL 3900, IKE proposal 90 and policy 10 have to be free");
    script.note(
        "security policies between the zones have to allow the traffic, and UDP 500, 4500 and ESP to `local`",
    );
    script.note("weak algorithms take the component package for them in newer versions");
    // Names of policies are short.
    let name = format!("adit-{}", script.view.slug(10));
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let (remote, local, start) = (script.view.remote, script.view.local_ip(), script.view.start);
    let (local_id, remote_id) = script.ids()?;
    let kind = |id: &Id| match id {
        Id::Fqdn(_) => "fqdn",
        Id::UserFqdn(_) => "user-fqdn",
        _ => "ip",
    };
    let kinds = (kind(script.view.local_id), kind(script.view.remote_id));

    script.line("acl number 3900");
    for (i, (local, remote)) in script.view.pairs().iter().enumerate() {
        script.line(format_args!(
            " rule {} permit ip source {} destination {}",
            5 * (i + 1),
            with_wildcard(local),
            with_wildcard(remote)
        ));
    }
    script.lines(&["#", "ike proposal 90", " authentication-method pre-share"]);
    script.line(format_args!(" encryption-algorithm {}", words(&ike.encryption).join("")));
    script.line(format_args!(" dh {}", words(&ike.groups).join("")));
    let hash = words(&ike.integrity).join("");
    if ikev1 {
        script.line(format_args!(" authentication-algorithm {hash}"));
    } else {
        script.line(format_args!(" integrity-algorithm hmac-{hash}"));
        script.line(format_args!(" prf {}", words(&ike.prf).join("")));
    }
    script.line(format_args!(" sa duration {}", ike.lifetime));
    script.line("#");
    script.line(format_args!("ike peer {name}"));
    script.line(if ikev1 { " undo version 2" } else { " undo version 1" });
    if ikev1 {
        let mode = if tunnel.ike.mode == Mode::Aggressive { "aggressive" } else { "main" };
        script.line(format_args!(" exchange-mode {mode}"));
    }
    script.line(format_args!(" pre-shared-key {PSK}"));
    script.line(" ike-proposal 90");
    for (side, kind, id) in [("local", kinds.0, local_id), ("remote", kinds.1, remote_id)] {
        script.line(format_args!(" {side}-id-type {kind}"));
        script.line(format_args!(" {side}-id {id}"));
    }
    script.line(format_args!(" remote-address {remote}"));
    if tunnel.nat_t == NatT::Off {
        script.line(" undo nat traversal");
    }
    if let Some(dpd) = tunnel.dpd {
        script.line(" dpd type periodic");
        script.line(format_args!(" dpd idle-time {}", dpd.delay.as_secs().clamp(10, 3600)));
        script.line(format_args!(" dpd retransmit-interval {}", dpd.timeout.as_secs().clamp(2, 60)));
    }
    script.line("#");
    script.line(format_args!("ipsec proposal {name}"));
    let ah = tunnel.ipsec.protocol == Protocol::Ah;
    script.line(if ah { " transform ah" } else { " transform esp" });
    for encryption in &ipsec.encryption {
        script.line(format_args!(" esp encryption-algorithm {}", encryption.word));
    }
    for integrity in &ipsec.integrity {
        let protocol = if ah { "ah" } else { "esp" };
        script.line(format_args!(" {protocol} authentication-algorithm {}", integrity.word));
    }
    script.line("#");
    script.line(format_args!("ipsec policy {name} 10 isakmp"));
    script.line(" security acl 3900");
    script.line(format_args!(" ike-peer {name}"));
    script.line(format_args!(" proposal {name}"));
    for group in &ipsec.groups {
        script.line(format_args!(" pfs {}", group.word));
    }
    if let Some(local) = local {
        script.line(format_args!(" tunnel local {local}"));
    }
    script.line(format_args!(" sa duration time-based {}", ipsec.lifetime));
    if start == Start::Immediate {
        script.line(" sa trigger-mode auto");
    }
    script.lines(&["#", "interface GigabitEthernet0/0/1"]);
    script.line(format_args!(" ipsec policy {name}"));
    script.line("#");
    Ok(())
}
