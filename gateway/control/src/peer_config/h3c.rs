//! H3C Comware 7: an ISAKMP policy on the outer interface.

use super::{
    PeerConfigError,
    choice::{Dialect, Ids, Phase, resolve, single, words},
    dotted::with_wildcard,
    script::{PSK, Script},
};
use adit_ike::{Encryption, Group, Id, Integrity, Mode, Prf, Protocol, Version};
use zeroize::Zeroizing;

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Md5, "md5"),
    (Integrity::Sha1, "sha1"),
    (Integrity::Sha256, "sha256"),
    (Integrity::Sha384, "sha384"),
    (Integrity::Sha512, "sha512"),
];

const IKEV2: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Des, "des-cbc"),
        (Encryption::TripleDes, "3des-cbc"),
        (Encryption::Aes128, "aes-cbc-128"),
        (Encryption::Aes192, "aes-cbc-192"),
        (Encryption::Aes256, "aes-cbc-256"),
    ],
    ike_integrity: HASHES,
    prf: Some(&[
        (Prf::Md5, "md5"),
        (Prf::Sha1, "sha1"),
        (Prf::Sha256, "sha256"),
        (Prf::Sha384, "sha384"),
        (Prf::Sha512, "sha512"),
    ]),
    dh: &[
        (Group::Modp768, "group1"),
        (Group::Modp1024, "group2"),
        (Group::Modp1536, "group5"),
        (Group::Modp2048, "group14"),
        (Group::P256, "group19"),
        (Group::P384, "group20"),
        (Group::Modp2048S256, "group24"),
    ],
    esp_encryption: &[
        (Encryption::Null, "null"),
        (Encryption::Des, "des-cbc"),
        (Encryption::TripleDes, "3des-cbc"),
        (Encryption::Aes128, "aes-cbc-128"),
        (Encryption::Aes192, "aes-cbc-192"),
        (Encryption::Aes256, "aes-cbc-256"),
        (Encryption::Aes128Gcm16, "gcm-128"),
        (Encryption::Aes192Gcm16, "gcm-192"),
        (Encryption::Aes256Gcm16, "gcm-256"),
    ],
    esp_integrity: HASHES,
    ah: HASHES,
    pfs: &[
        (Group::Modp768, "dh-group1"),
        (Group::Modp1024, "dh-group2"),
        (Group::Modp1536, "dh-group5"),
        (Group::Modp2048, "dh-group14"),
        (Group::P256, "dh-group19"),
        (Group::P384, "dh-group20"),
        (Group::Modp2048S256, "dh-group24"),
    ],
    ike_lifetime: 120..=86_400,
    ipsec_lifetime: 180..=604_800,
    has_esn: true,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: false,
    ipv6_inside: false,
    has_ikev1: true,
    has_aggressive: true,
    ids: Ids::Names,
};

const IKEV1: Dialect = Dialect {
    ike_integrity: &[
        (Integrity::Md5, "md5"),
        (Integrity::Sha1, "sha"),
        (Integrity::Sha256, "sha256"),
        (Integrity::Sha384, "sha384"),
        (Integrity::Sha512, "sha512"),
    ],
    dh: &[
        (Group::Modp768, "group1"),
        (Group::Modp1024, "group2"),
        (Group::Modp1536, "group5"),
        (Group::Modp2048, "group14"),
        (Group::Modp2048S256, "group24"),
    ],
    ..IKEV2
};

/// The commands for the system view.
///
/// # Errors
/// Of the tunnel's fields that Comware cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| match key.contains('?') {
        true => Err("takes no ? in a key"),
        false => Ok(Zeroizing::new(key.to_owned())),
    });
    let tunnel = script.view.tunnel;
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let (ike, ipsec) = resolve(script, if ikev1 { &IKEV1 } else { &IKEV2 })?;
    let (ike, ipsec) = (single(script, ike, false), single(script, ipsec, true));
    script.note("put the interface that faces the other side in place of GigabitEthernet0/1; ACL 3900 and IKE proposal 90 have to be free");
    let name = format!("adit-{}", script.view.slug(26));
    let (remote, local) = (script.view.remote, script.view.local_ip());

    script.line("acl advanced 3900");
    for (i, (local, remote)) in script.view.pairs().iter().enumerate() {
        script.line(format_args!(
            " rule {} permit ip source {} destination {}",
            5 * (i + 1),
            with_wildcard(local),
            with_wildcard(remote)
        ));
    }
    script.line("#");
    script.line(format_args!("ipsec transform-set {name}"));
    let ah = tunnel.ipsec.protocol == Protocol::Ah;
    script.line(" encapsulation-mode tunnel");
    script.line(if ah { " protocol ah" } else { " protocol esp" });
    for encryption in &ipsec.encryption {
        script.line(format_args!(" esp encryption-algorithm {}", encryption.word));
    }
    for integrity in &ipsec.integrity {
        let protocol = if ah { "ah" } else { "esp" };
        script.line(format_args!(" {protocol} authentication-algorithm {}", integrity.word));
    }
    for group in &ipsec.groups {
        script.line(format_args!(" pfs {}", group.word));
    }
    if tunnel.ipsec.esn {
        script.line(" esn enable both");
    }
    script.line("#");
    match ikev1 {
        true => phase1_of_ikev1(script, &name, &ike)?,
        false => phase1(script, &name, &ike)?,
    }
    script.line(format_args!("ipsec policy {name} 10 isakmp"));
    script.line(format_args!(" transform-set {name}"));
    script.line(" security acl 3900");
    if let Some(local) = local {
        script.line(format_args!(" local-address {local}"));
    }
    script.line(format_args!(" remote-address {remote}"));
    script.line(format_args!(" {} {name}", if ikev1 { "ike-profile" } else { "ikev2-profile" }));
    script.line(format_args!(" sa duration time-based {}", ipsec.lifetime));
    script.lines(&["#", "interface GigabitEthernet0/1"]);
    script.line(format_args!(" ipsec apply policy {name}"));
    script.line("#");
    Ok(())
}

fn phase1(script: &mut Script<'_>, name: &str, ike: &Phase) -> Result<(), PeerConfigError> {
    let remote = script.view.remote;
    let (local_id, remote_id) = ids(script)?;
    script.line(format_args!("ikev2 proposal {name}"));
    script.line(format_args!(" encryption {}", words(&ike.encryption).join(" ")));
    script.line(format_args!(" integrity {}", words(&ike.integrity).join(" ")));
    script.line(format_args!(" prf {}", words(&ike.prf).join(" ")));
    script.line(format_args!(" dh {}", words(&ike.groups).join(" ")));
    script.line("#");
    script.line(format_args!("ikev2 policy {name}"));
    script.line(format_args!(" proposal {name}"));
    script.line("#");
    script.line(format_args!("ikev2 keychain {name}"));
    script.line(format_args!(" peer {name}"));
    script.line(format_args!("  address {remote} 32"));
    script.line(format_args!("  identity {remote_id}"));
    script.line(format_args!("  pre-shared-key plaintext {PSK}"));
    script.line("#");
    script.line(format_args!("ikev2 profile {name}"));
    script.lines(&[" authentication-method local pre-share", " authentication-method remote pre-share"]);
    script.line(format_args!(" keychain {name}"));
    script.line(format_args!(" identity local {local_id}"));
    let mask = if remote_id.starts_with("address") { " 32" } else { "" };
    script.line(format_args!(" match remote identity {remote_id}{mask}"));
    script.line(format_args!(" sa duration {}", ike.lifetime));
    if let Some(dpd) = script.view.tunnel.dpd {
        script.line(format_args!(" dpd interval {} periodic", dpd.delay.as_secs().clamp(10, 3600)));
    }
    script.line("#");
    Ok(())
}

fn phase1_of_ikev1(script: &mut Script<'_>, name: &str, ike: &Phase) -> Result<(), PeerConfigError> {
    let (remote, tunnel) = (script.view.remote, script.view.tunnel);
    let (local_id, remote_id) = ids(script)?;
    // Here a mail address goes as user-fqdn.
    let of_v1 = |id: String| id.replacen("email ", "user-fqdn ", 1);
    script.line("ike proposal 90");
    script.line(format_args!(" encryption-algorithm {}", words(&ike.encryption).join("")));
    script.line(format_args!(" authentication-algorithm {}", words(&ike.integrity).join("")));
    script.lines(&[" authentication-method pre-share"]);
    script.line(format_args!(" dh {}", words(&ike.groups).join("")));
    script.line(format_args!(" sa duration {}", ike.lifetime));
    script.line("#");
    script.line(format_args!("ike keychain {name}"));
    script.line(format_args!(" pre-shared-key address {remote} 32 key simple {PSK}"));
    script.line("#");
    script.line(format_args!("ike profile {name}"));
    script.line(format_args!(" keychain {name}"));
    script.line(" proposal 90");
    let mode = if tunnel.ike.mode == Mode::Aggressive { "aggressive" } else { "main" };
    script.line(format_args!(" exchange-mode {mode}"));
    script.line(format_args!(" local-identity {}", of_v1(local_id)));
    let mask = if remote_id.starts_with("address") { " 32" } else { "" };
    script.line(format_args!(" match remote identity {}{mask}", of_v1(remote_id)));
    if let Some(dpd) = tunnel.dpd {
        script.line(format_args!(" dpd interval {} periodic", dpd.delay.as_secs().clamp(10, 300)));
    }
    script.line("#");
    Ok(())
}

/// The identities, the peer's first, with the words that say of what kind they are.
fn ids(script: &Script<'_>) -> Result<(String, String), PeerConfigError> {
    let (local, remote) = script.ids()?;
    let kind = |id: &Id, text: String| match id {
        Id::Fqdn(_) => format!("fqdn {text}"),
        Id::UserFqdn(_) => format!("email {text}"),
        _ => format!("address {text}"),
    };
    Ok((kind(script.view.local_id, local), kind(script.view.remote_id, remote)))
}
