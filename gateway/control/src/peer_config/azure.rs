//! Azure VPN Gateway: a local network gateway and a connection with its own IPsec policy, by the Azure CLI.

use super::{
    PeerConfigError,
    bgp::session,
    choice::{Dialect, Ids, resolve, single, words},
    cloud::{has_subnets, joined, note_its_address, shell_quoted},
    script::{PSK, Script},
};
use adit_ike::{Encryption, Group, Integrity};

const DIALECT: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::Des, "DES"),
        (Encryption::TripleDes, "DES3"),
        (Encryption::Aes128, "AES128"),
        (Encryption::Aes192, "AES192"),
        (Encryption::Aes256, "AES256"),
        (Encryption::Aes128Gcm16, "GCMAES128"),
        (Encryption::Aes256Gcm16, "GCMAES256"),
    ],
    ike_integrity: &[
        (Integrity::Md5, "MD5"),
        (Integrity::Sha1, "SHA1"),
        (Integrity::Sha256, "SHA256"),
        (Integrity::Sha384, "SHA384"),
    ],
    prf: None,
    dh: &[
        (Group::Modp768, "DHGroup1"),
        (Group::Modp1024, "DHGroup2"),
        (Group::Modp2048, "DHGroup14"),
        (Group::P256, "ECP256"),
        (Group::P384, "ECP384"),
        (Group::Modp2048S256, "DHGroup24"),
    ],
    esp_encryption: &[
        (Encryption::Null, "None"),
        (Encryption::Des, "DES"),
        (Encryption::TripleDes, "DES3"),
        (Encryption::Aes128, "AES128"),
        (Encryption::Aes192, "AES192"),
        (Encryption::Aes256, "AES256"),
        (Encryption::Aes128Gcm16, "GCMAES128"),
        (Encryption::Aes192Gcm16, "GCMAES192"),
        (Encryption::Aes256Gcm16, "GCMAES256"),
    ],
    esp_integrity: &[(Integrity::Md5, "MD5"), (Integrity::Sha1, "SHA1"), (Integrity::Sha256, "SHA256")],
    ah: &[],
    pfs: &[
        (Group::Modp768, "PFS1"),
        (Group::Modp1024, "PFS2"),
        (Group::Modp2048, "PFS2048"),
        (Group::P256, "ECP256"),
        (Group::P384, "ECP384"),
        (Group::Modp2048S256, "PFS24"),
    ],
    ike_lifetime: 28_800..=28_800,
    ipsec_lifetime: 300..=172_799,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: false,
    ipv6_inside: false,
    has_ikev1: false,
    has_aggressive: false,
    ids: Ids::Addresses,
};

/// The commands for a shell.
///
/// # Errors
/// Of the tunnel's fields that Azure does not take.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| Ok(shell_quoted(key)));
    let bgp = session(script);
    if let Some(bgp) = bgp {
        let [_, _, third, _] = bgp.local_ip.octets();
        if !(21..=22).contains(&third) {
            let why = "takes inside addresses of 169.254.21.0 to 169.254.22.255";
            return Err(script.inexpressible("bgp.inside_cidr", why));
        }
    } else {
        has_subnets(script)?;
    }
    let (ike, ipsec) = resolve(script, &DIALECT)?;
    let (ike, ipsec) = (single(script, ike, false), single(script, ipsec, true));
    note_its_address(script);
    script.note("put your resource group, location and virtual network gateway (VpnGw1 or larger, route-based) in their places");
    if ike.integrity.is_empty() {
        script.note(
            "ike.prf: the PRF beside GCM in phase 1 cannot be set there; where phase 1 fails for it, offer sha256 and sha384",
        );
    }
    let name = script.view.slug(40);
    let (address, networks) = (script.view.remote, joined(script.view.remote_subnets, " "));
    let locals = script.view.local_subnets.to_vec();
    // A cipher with authentication stands for its integrity algorithm as well.
    let integrity = |phase: &super::choice::Phase| match phase.integrity.is_empty() {
        true => words(&phase.encryption).join(""),
        false => words(&phase.integrity).join(""),
    };
    script.lines(&["GROUP=my-group", "LOCATION=westeurope", "GATEWAY=my-vpn-gateway"]);
    script.line(format_args!("az network local-gateway create -g \"$GROUP\" -l \"$LOCATION\" -n {name} \\"));
    match bgp {
        Some(bgp) => {
            script.line(format_args!("  --gateway-ip-address {address} --asn {} \\", bgp.remote_asn));
            script.line(format_args!("  --bgp-peering-address {}", bgp.remote_ip));
            script.line(format_args!(
                "az network vnet-gateway update -g \"$GROUP\" -n \"$GATEWAY\" --asn {} \\",
                bgp.local_asn
            ));
            script.line(format_args!(
                "  --set 'bgpSettings.bgpPeeringAddresses[0].customBgpIpAddresses=[\"{}\"]'",
                bgp.local_ip
            ));
        }
        None => {
            script.line(format_args!("  --gateway-ip-address {address} --local-address-prefixes {networks}"))
        }
    }
    script.line(format_args!("az network vpn-connection create -g \"$GROUP\" -l \"$LOCATION\" -n {name} \\"));
    script.line(format_args!("  --vnet-gateway1 \"$GATEWAY\" --local-gateway2 {name} --shared-key {PSK} \\"));
    match bgp {
        Some(_) => script.line("  --enable-bgp true"),
        None => script.line("  --use-policy-based-traffic-selectors true"),
    }
    script.line(format_args!(
        "az network vpn-connection ipsec-policy add -g \"$GROUP\" --connection-name {name} \\"
    ));
    script.line(format_args!(
        "  --ike-encryption {} --ike-integrity {} --dh-group {} \\",
        words(&ike.encryption).join(""),
        integrity(&ike),
        words(&ike.groups).join("")
    ));
    script.line(format_args!(
        "  --ipsec-encryption {} --ipsec-integrity {} --pfs-group {} \\",
        words(&ipsec.encryption).join(""),
        integrity(&ipsec),
        words(&ipsec.groups).first().copied().unwrap_or("None")
    ));
    script.line(format_args!("  --sa-lifetime {} --sa-max-size 102400000", ipsec.lifetime));
    if bgp.is_some() {
        script.note("bgp.hold_time: it is 180 s there, of which the lesser of both sides' counts");
        return Ok(());
    }
    script.remark(format_args!(
        "the address space of the virtual network has to be {}: Azure takes its selectors from there",
        joined(&locals, ", ")
    ));
    Ok(())
}
