//! Alibaba Cloud VPN Gateway: a customer gateway and an IPsec connection, by the Alibaba Cloud CLI.

use super::{
    PeerConfigError,
    bgp::session,
    choice::{Dialect, Ids, resolve, single, words},
    cloud::{has_subnets, joined, note_its_address},
    script::{PSK, Script},
};
use adit_ike::{Encryption, Group, Integrity, Mode, NatT, Version};
use zeroize::Zeroizing;

const CIPHERS: &[(Encryption, &str)] = &[
    (Encryption::Des, "des"),
    (Encryption::TripleDes, "3des"),
    (Encryption::Aes128, "aes"),
    (Encryption::Aes192, "aes192"),
    (Encryption::Aes256, "aes256"),
];

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Md5, "md5"),
    (Integrity::Sha1, "sha1"),
    (Integrity::Sha256, "sha256"),
    (Integrity::Sha384, "sha384"),
    (Integrity::Sha512, "sha512"),
];

const GROUPS: &[(Group, &str)] = &[
    (Group::Modp768, "group1"),
    (Group::Modp1024, "group2"),
    (Group::Modp1536, "group5"),
    (Group::Modp2048, "group14"),
];

const DIALECT: Dialect = Dialect {
    ike_encryption: CIPHERS,
    ike_integrity: HASHES,
    prf: None,
    dh: GROUPS,
    esp_encryption: CIPHERS,
    esp_integrity: HASHES,
    ah: &[],
    pfs: GROUPS,
    ike_lifetime: 60..=86_400,
    ipsec_lifetime: 60..=86_400,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: false,
    ipv6_inside: false,
    has_ikev1: true,
    has_aggressive: true,
    ids: Ids::Names,
};

/// The commands for a shell.
///
/// # Errors
/// Of the tunnel's fields that Alibaba Cloud does not take.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| match key.len() <= 100 && !key.contains(['\'', '?', '"', '\\']) {
        true => Ok(Zeroizing::new(key.to_owned())),
        false => Err("takes keys of up to 100 characters, and neither ' nor ? nor \" nor \\"),
    });
    let tunnel = script.view.tunnel;
    let bgp = session(script);
    if bgp.is_none() {
        has_subnets(script)?;
    }
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    let (ike, ipsec) = (single(script, ike, false), single(script, ipsec, true));
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let pairs = script.view.pairs().len();
    if ikev1 && pairs > 1 {
        return Err(script.inexpressible("local_subnets, remote_subnets", "takes several with ikev2 only"));
    }
    note_its_address(script);
    script.note("put your region and VPN gateway in their places");
    script.note(
        "this is for a gateway of single tunnels; one of dual tunnels takes the same words in TunnelOptionsSpecification.N",
    );
    let name = script.view.slug(40);
    let (address, local_id) = (script.view.remote, script.ids()?);
    let (local, remote) = (joined(script.view.local_subnets, ","), joined(script.view.remote_subnets, ","));
    let (local_id, remote_id) = local_id;
    let mode = if tunnel.ike.mode == Mode::Aggressive { "aggressive" } else { "main" };
    script.lines(&["REGION=eu-central-1", "GATEWAY=vpn-…"]);
    script.line(format_args!(
        "aliyun vpc CreateCustomerGateway --RegionId \"$REGION\" --Name {name} --IpAddress {address}{}",
        bgp.map_or(String::new(), |bgp| format!(" --Asn {}", bgp.remote_asn))
    ));
    script.line("CUSTOMER=cgw-…  # as the answer says");
    script.line(format_args!("aliyun vpc CreateVpnConnection --RegionId \"$REGION\" --Name {name} \\"));
    script.line("  --VpnGatewayId \"$GATEWAY\" --CustomerGatewayId \"$CUSTOMER\" \\");
    script.line(format_args!("  --LocalSubnet {local} --RemoteSubnet {remote} --AutoConfigRoute true \\"));
    script.line(format_args!(
        "  --EffectImmediately true --EnableDpd {} --EnableNatTraversal {} \\",
        tunnel.dpd.is_some(),
        tunnel.nat_t != NatT::Off
    ));
    script.line("  --IkeConfig '{");
    let mut field =
        |name: &str, value: &str, end: &str| script.line(format_args!("    \"{name}\": {value}{end}"));
    let text = |word: &str| format!("\"{word}\"");
    field("Psk", &text(PSK), ",");
    field("IkeVersion", &text(if ikev1 { "ikev1" } else { "ikev2" }), ",");
    field("IkeMode", &text(mode), ",");
    field("IkeEncAlg", &text(&words(&ike.encryption).join("")), ",");
    field("IkeAuthAlg", &text(&words(&ike.integrity).join("")), ",");
    field("IkePfs", &text(&words(&ike.groups).join("")), ",");
    field("IkeLifetime", &ike.lifetime.to_string(), ",");
    field("LocalId", &text(&local_id), ",");
    field("RemoteId", &text(&remote_id), "");
    script.line("  }' --IpsecConfig '{");
    let mut field =
        |name: &str, value: &str, end: &str| script.line(format_args!("    \"{name}\": {value}{end}"));
    field("IpsecEncAlg", &text(&words(&ipsec.encryption).join("")), ",");
    field("IpsecAuthAlg", &text(&words(&ipsec.integrity).join("")), ",");
    field("IpsecPfs", &text(words(&ipsec.groups).first().copied().unwrap_or("disabled")), ",");
    field("IpsecLifetime", &ipsec.lifetime.to_string(), "");
    let (Some(bgp), Some(configured)) = (bgp, &tunnel.bgp) else {
        script.line("  }'");
        return Ok(());
    };
    script.line("  }' --BgpConfig '{");
    let mut field =
        |name: &str, value: &str, end: &str| script.line(format_args!("    \"{name}\": {value}{end}"));
    field("EnableBgp", "true", ",");
    field("LocalAsn", &bgp.local_asn.to_string(), ",");
    field("TunnelCidr", &text(&configured.inside_cidr.to_string()), ",");
    field("LocalBgpIp", &text(&bgp.local_ip.to_string()), "");
    script.line("  }'");
    Ok(())
}
