//! AWS Site-to-Site VPN: a customer gateway and a VPN connection with static routes, by the AWS CLI.

use super::{
    PeerConfigError,
    bgp::session,
    choice::{Choice, Dialect, Ids, resolve, words},
    cloud::note_its_address,
    script::{PSK, Script},
};
use crate::config::{Start, Subnet};
use adit_ike::{Encryption, Group, Integrity, Version};
use zeroize::Zeroizing;

const CIPHERS: &[(Encryption, &str)] = &[
    (Encryption::Aes128, "AES128"),
    (Encryption::Aes256, "AES256"),
    (Encryption::Aes128Gcm16, "AES128-GCM-16"),
    (Encryption::Aes256Gcm16, "AES256-GCM-16"),
];

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Sha1, "SHA1"),
    (Integrity::Sha256, "SHA2-256"),
    (Integrity::Sha384, "SHA2-384"),
    (Integrity::Sha512, "SHA2-512"),
];

const DIALECT: Dialect = Dialect {
    ike_encryption: CIPHERS,
    ike_integrity: HASHES,
    prf: None,
    dh: &[
        (Group::Modp1024, "2"),
        (Group::Modp2048, "14"),
        (Group::Modp3072, "15"),
        (Group::Modp4096, "16"),
        (Group::P256, "19"),
        (Group::P384, "20"),
        (Group::P521, "21"),
        (Group::Modp2048S256, "24"),
    ],
    esp_encryption: CIPHERS,
    esp_integrity: HASHES,
    ah: &[],
    pfs: &[
        (Group::Modp1024, "2"),
        (Group::Modp1536, "5"),
        (Group::Modp2048, "14"),
        (Group::Modp3072, "15"),
        (Group::Modp4096, "16"),
        (Group::P256, "19"),
        (Group::P384, "20"),
        (Group::P521, "21"),
        (Group::Modp2048S256, "24"),
    ],
    ike_lifetime: 900..=28_800,
    ipsec_lifetime: 900..=3_600,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: false,
    ipv6_inside: false,
    has_ikev1: true,
    has_aggressive: false,
    ids: Ids::Addresses,
};

/// The commands for a shell.
///
/// # Errors
/// Of the tunnel's fields that AWS does not take.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| {
        let fits = (8..=64).contains(&key.len())
            && !key.starts_with('0')
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
        match fits {
            true => Ok(Zeroizing::new(key.to_owned())),
            false => Err("takes 8..64 letters, digits, . and _ in a key, no 0 at the beginning"),
        }
    });
    let tunnel = script.view.tunnel;
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    if ipsec.groups.is_empty() {
        return Err(
            script.inexpressible("ipsec.pfs", "does phase 2 with PFS only, and the tunnel has it disabled")
        );
    }
    let by_route = script.view.is_by_route();
    let (locals, remotes) = (script.view.local_subnets, script.view.remote_subnets);
    let (local, remote) = match (locals, remotes) {
        ([local], [remote]) => (*local, *remote),
        _ => {
            script.note(
                "several subnets: AWS negotiates one pair, here everything; IKEv2 narrows that to the tunnel's, IKEv1 takes \
                 routing mode route",
            );
            if tunnel.ike.version == Version::Ikev1 {
                return Err(script.inexpressible(
                    "local_subnets, remote_subnets",
                    "negotiates one pair, and IKEv1 needs one for each",
                ));
            }
            (Subnet::ALL_V4, Subnet::ALL_V4)
        }
    };
    let networks = remotes.to_vec();
    let bgp = session(script);
    if let Some(bgp) = bgp {
        if u32::from(bgp.local_ip) & 3 != 1 {
            let why = "takes the first address of inside_cidr for itself, and leaves the second";
            return Err(script.inexpressible("bgp.local_ip", why));
        }
        script.note(format!(
            "the virtual private gateway's own autonomous system (AmazonSideAsn) has to be {}",
            bgp.local_asn
        ));
        script.note("bgp.hold_time: it is 30 s there");
    }
    note_its_address(script);
    script.note("AWS makes two tunnels, of which this is the first; `adit tunnel import --from aws` reads both from what it downloads");
    script.note("vgw-… is the virtual private gateway of your VPC; a transit gateway goes as --transit-gateway-id instead");
    let name = script.view.slug(32);
    let address = script.view.remote;
    let start = if script.view.start == Start::Immediate { "start" } else { "add" };
    let version = if tunnel.ike.version == Version::Ikev1 { "ikev1" } else { "ikev2" };
    script.line(format_args!(
        "CGW=$(aws ec2 create-customer-gateway --type ipsec.1 --ip-address {address} --bgp-asn {} \\",
        bgp.map_or(65_000, |bgp| bgp.remote_asn)
    ));
    script.line(format_args!(
        "  --tag-specifications 'ResourceType=customer-gateway,Tags=[{{Key=Name,Value={name}}}]' \\"
    ));
    script.line("  --query CustomerGateway.CustomerGatewayId --output text)");
    script.line("VPN=$(aws ec2 create-vpn-connection --type ipsec.1 --customer-gateway-id \"$CGW\" --vpn-gateway-id vgw-… \\");
    script.line("  --query VpnConnection.VpnConnectionId --output text --options '{");
    script.line(format_args!("    \"StaticRoutesOnly\": {},", bgp.is_none()));
    // Local is the customer's side there.
    script.line(format_args!("    \"LocalIpv4NetworkCidr\": \"{remote}\","));
    script.line(format_args!("    \"RemoteIpv4NetworkCidr\": \"{local}\","));
    script.line("    \"TunnelOptions\": [{");
    script.line(format_args!("      \"PreSharedKey\": \"{PSK}\","));
    if let Some(bgp) = &tunnel.bgp {
        script.line(format_args!("      \"TunnelInsideCidr\": \"{}\",", bgp.inside_cidr));
    }
    script.line(format_args!("      \"IKEVersions\": [{{\"Value\": \"{version}\"}}],"));
    script.line(format_args!("      \"Phase1EncryptionAlgorithms\": {},", values(&ike.encryption)));
    if !ike.integrity.is_empty() {
        script.line(format_args!("      \"Phase1IntegrityAlgorithms\": {},", values(&ike.integrity)));
    }
    script.line(format_args!("      \"Phase1DHGroupNumbers\": {},", numbers(&ike.groups)));
    script.line(format_args!("      \"Phase1LifetimeSeconds\": {},", ike.lifetime));
    script.line(format_args!("      \"Phase2EncryptionAlgorithms\": {},", values(&ipsec.encryption)));
    if !ipsec.integrity.is_empty() {
        script.line(format_args!("      \"Phase2IntegrityAlgorithms\": {},", values(&ipsec.integrity)));
    }
    script.line(format_args!("      \"Phase2DHGroupNumbers\": {},", numbers(&ipsec.groups)));
    // It may not be longer than phase 1's.
    script.line(format_args!("      \"Phase2LifetimeSeconds\": {},", ipsec.lifetime.min(ike.lifetime)));
    if let Some(dpd) = tunnel.dpd {
        let timeout = (dpd.delay + dpd.timeout).as_secs().max(30);
        script.line(format_args!("      \"DPDTimeoutSeconds\": {timeout},"));
    }
    let action = if start == "start" { "restart" } else { "clear" };
    script.line(format_args!("      \"DPDTimeoutAction\": \"{action}\","));
    script.line(format_args!("      \"StartupAction\": \"{start}\""));
    script.lines(&["    }]", "  }')"]);
    if bgp.is_some() {
        return Ok(());
    }
    if by_route {
        script.remark(
            "routing mode route: a create-vpn-connection-route for each network behind the other side",
        );
        return Ok(());
    }
    for network in networks {
        script.line(format_args!(
            "aws ec2 create-vpn-connection-route --vpn-connection-id \"$VPN\" --destination-cidr-block {network}"
        ));
    }
    Ok(())
}

fn values<T>(choices: &[Choice<T>]) -> String {
    let values: Vec<_> =
        words(choices).into_iter().map(|word| format!("{{\"Value\": \"{word}\"}}")).collect();
    format!("[{}]", values.join(", "))
}

fn numbers(choices: &[Choice<Group>]) -> String {
    let values: Vec<_> = words(choices).into_iter().map(|word| format!("{{\"Value\": {word}}}")).collect();
    format!("[{}]", values.join(", "))
}
