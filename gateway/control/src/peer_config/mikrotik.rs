//! MikroTik RouterOS 7: commands for the terminal; a policy for each pair of subnets.

use super::{
    PeerConfigError,
    choice::{Dialect, Ids, resolve, single, words},
    script::{PSK, Script},
};
use crate::config::Start;
use adit_ike::{Encryption, Group, Id, Integrity, Mode, NatT, Prf, Version};
use zeroize::Zeroizing;

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
    (Group::X25519, "x25519"),
];

const DIALECT: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Des, "des"),
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes-128"),
        (Encryption::Aes192, "aes-192"),
        (Encryption::Aes256, "aes-256"),
    ],
    ike_integrity: &[
        (Integrity::Md5, "md5"),
        (Integrity::Sha1, "sha1"),
        (Integrity::Sha256, "sha256"),
        (Integrity::Sha384, "sha384"),
        (Integrity::Sha512, "sha512"),
    ],
    prf: Some(&[
        (Prf::Sha1, "sha1"),
        (Prf::Sha256, "sha256"),
        (Prf::Sha384, "sha384"),
        (Prf::Sha512, "sha512"),
    ]),
    dh: GROUPS,
    esp_encryption: &[
        (Encryption::Null, "null"),
        (Encryption::Des, "des"),
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes-128-cbc"),
        (Encryption::Aes192, "aes-192-cbc"),
        (Encryption::Aes256, "aes-256-cbc"),
        (Encryption::Aes128Gcm16, "aes-128-gcm"),
        (Encryption::Aes192Gcm16, "aes-192-gcm"),
        (Encryption::Aes256Gcm16, "aes-256-gcm"),
        (Encryption::ChaCha20Poly1305, "chacha20poly1305"),
    ],
    esp_integrity: &[
        (Integrity::Md5, "md5"),
        (Integrity::Sha1, "sha1"),
        (Integrity::Sha256, "sha256"),
        (Integrity::Sha512, "sha512"),
    ],
    ah: &[],
    pfs: &[
        (Group::Modp768, "modp768"),
        (Group::Modp1024, "modp1024"),
        (Group::Modp1536, "modp1536"),
        (Group::Modp2048, "modp2048"),
        (Group::Modp3072, "modp3072"),
        (Group::Modp4096, "modp4096"),
        (Group::P256, "ecp256"),
        (Group::P384, "ecp384"),
        (Group::P521, "ecp521"),
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

/// The commands.
///
/// # Errors
/// Of the tunnel's fields that RouterOS cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", key);
    let tunnel = script.view.tunnel;
    if script.view.is_by_route() {
        return Err(script.inexpressible(
            "routing_mode",
            "binds no interface to IPsec: a policy for everything would take all traffic; use routing mode protected",
        ));
    }
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    let encryption = words(&ike.encryption).join(",");
    let groups = words(&ike.groups).join(",");
    let ike = single(script, ike, false);
    let pfs = super::choice::one_group(script, &ipsec);
    let name = format!("adit-{}", script.view.slug(32));
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let (remote, start, local) = (script.view.remote, script.view.start, script.view.local_ip());
    let (local_id, remote_id) = script.ids()?;
    let kind = |id: &Id| match id {
        Id::Fqdn(_) => "fqdn",
        Id::UserFqdn(_) => "user-fqdn",
        _ => "address",
    };
    let ids = (kind(script.view.local_id), kind(script.view.remote_id));

    let hash = words(&ike.integrity).join("");
    let prf = words(&ike.prf).first().map_or_else(String::new, |prf| format!(" prf-algorithm={prf}"));
    let nat = if tunnel.nat_t == NatT::Off { "no" } else { "yes" };
    let dpd = tunnel.dpd.map_or_else(
        || "disable-dpd".to_owned(),
        |dpd| format!("{}s dpd-maximum-failures={}", dpd.delay.as_secs(), 1 + dpd.timeout.as_secs() / 5),
    );
    script.line(format_args!(
        "/ip ipsec profile add name={name} hash-algorithm={hash}{prf} enc-algorithm={encryption} dh-group={groups} \
         lifetime={}s nat-traversal={nat} dpd-interval={dpd}",
        ike.lifetime
    ));
    let hashes = words(&ipsec.integrity);
    // Beside a cipher with authentication none is used, and one has to be there.
    let hashes = if hashes.is_empty() { "null".to_owned() } else { hashes.join(",") };
    let pfs = words(&pfs).first().copied().unwrap_or("none");
    script.line(format_args!(
        "/ip ipsec proposal add name={name} auth-algorithms={hashes} enc-algorithms={} lifetime={}s pfs-group={pfs}",
        words(&ipsec.encryption).join(","),
        ipsec.lifetime
    ));
    let mode = match (ikev1, tunnel.ike.mode) {
        (false, _) => "ike2",
        (true, Mode::Main) => "main",
        (true, Mode::Aggressive) => "aggressive",
    };
    let length = if remote.is_ipv4() { 32 } else { 128 };
    let at = local.map_or_else(String::new, |local| format!(" local-address={local}"));
    let passive = if start == Start::Respond { "yes" } else { "no" };
    script.line(format_args!(
        "/ip ipsec peer add name={name} address={remote}/{length}{at} profile={name} exchange-mode={mode} passive={passive}"
    ));
    script.line(format_args!(
        "/ip ipsec identity add peer={name} auth-method=pre-shared-key secret={PSK} my-id={}:{local_id} \
         remote-id={}:{remote_id}",
        ids.0, ids.1
    ));
    for (local, remote) in script.view.pairs() {
        script.line(format_args!(
            "/ip ipsec policy add peer={name} tunnel=yes src-address={local} dst-address={remote} protocol=all \
             action=encrypt level=unique ipsec-protocols=esp proposal={name}"
        ));
    }
    script.remark("before any masquerading rule, so that the networks are seen as they are:");
    for (local, remote) in script.view.pairs() {
        let table = if local.address().is_ipv4() { "ip" } else { "ipv6" };
        script.line(format_args!(
            "/{table} firewall nat add chain=srcnat action=accept src-address={local} dst-address={remote} comment={name}"
        ));
    }
    Ok(())
}

/// Between double quotes, with what the terminal takes for its own escaped.
fn key(key: &str) -> Result<Zeroizing<String>, &'static str> {
    let mut text = Zeroizing::new(String::with_capacity(2 * key.len() + 2));
    text.push('"');
    for c in key.chars() {
        if "\"\\$?".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    Ok(text)
}
