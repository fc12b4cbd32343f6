//! Google Cloud, by gcloud: a Classic VPN tunnel with traffic selectors, or with BGP one of HA VPN with a Cloud Router.

use super::{
    PeerConfigError,
    bgp::{Session, session},
    choice::{Dialect, Ids, resolve},
    cloud::{has_subnets, joined, note_its_address, shell_quoted},
    script::{PSK, Script},
};
use adit_ike::{Encryption, Group, Integrity, Prf, Version};

const GROUPS: &[(Group, &str)] = &[
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
];

const HASHES: &[(Integrity, &str)] = &[
    (Integrity::Sha1, "sha1"),
    (Integrity::Sha256, "sha256"),
    (Integrity::Sha384, "sha384"),
    (Integrity::Sha512, "sha512"),
];

/// Nothing of it can be set: it is what Google offers and takes, of which one has to be the tunnel's.
const IKEV2: Dialect = Dialect {
    ike_encryption: &[
        (Encryption::TripleDes, "3des"),
        (Encryption::Aes128, "aes128"),
        (Encryption::Aes192, "aes192"),
        (Encryption::Aes256, "aes256"),
        (Encryption::Aes128Gcm16, "aes128gcm16"),
        (Encryption::Aes256Gcm16, "aes256gcm16"),
    ],
    ike_integrity: HASHES,
    prf: Some(&[
        (Prf::Sha1, "sha1"),
        (Prf::Sha256, "sha256"),
        (Prf::Sha384, "sha384"),
        (Prf::Sha512, "sha512"),
    ]),
    dh: GROUPS,
    esp_encryption: &[
        (Encryption::Aes128, "aes128"),
        (Encryption::Aes192, "aes192"),
        (Encryption::Aes256, "aes256"),
        (Encryption::Aes128Gcm16, "aes128gcm16"),
        (Encryption::Aes192Gcm16, "aes192gcm16"),
        (Encryption::Aes256Gcm16, "aes256gcm16"),
    ],
    esp_integrity: HASHES,
    ah: &[],
    pfs: GROUPS,
    ike_lifetime: 36_000..=36_000,
    ipsec_lifetime: 10_800..=10_800,
    has_esn: false,
    additional_ke: &[],
    has_ppk: false,
    ipv6_outside: false,
    ipv6_inside: false,
    has_ikev1: true,
    has_aggressive: false,
    ids: Ids::Addresses,
};

const IKEV1: Dialect = Dialect {
    ike_encryption: &[(Encryption::Aes128, "aes128")],
    ike_integrity: &[(Integrity::Sha1, "sha1")],
    dh: &[(Group::Modp1024, "2")],
    esp_encryption: &[(Encryption::Aes128, "aes128")],
    esp_integrity: &[(Integrity::Sha1, "sha1")],
    pfs: &[(Group::Modp1024, "2")],
    ike_lifetime: 36_600..=36_600,
    ..IKEV2
};

/// The commands for a shell.
///
/// # Errors
/// Of the tunnel's fields that Google Cloud does not take.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| Ok(shell_quoted(key)));
    let tunnel = script.view.tunnel;
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let bgp = session(script);
    if bgp.is_none() {
        has_subnets(script)?;
    }
    let (_, ipsec) = resolve(script, if ikev1 { &IKEV1 } else { &IKEV2 })?;
    if ipsec.groups.is_empty() {
        script.note("ipsec.pfs: Google Cloud asks for PFS when it rekeys, and the tunnel has it disabled: it will be refused");
    }
    let (locals, remotes) = (script.view.local_subnets, script.view.remote_subnets);
    if ikev1 && (locals.len() > 1 || remotes.len() > 1) {
        return Err(script.inexpressible("local_subnets, remote_subnets", "takes one of each with ikev1"));
    }
    let (locals, networks) = (joined(locals, ","), remotes.to_vec());
    let remotes = joined(remotes, ",");
    note_its_address(script);
    script.note("algorithms and lifetimes cannot be set there: Google Cloud takes those of the tunnel that are not named above");
    script.note("put your project's region and network in place of europe-west1 and default");
    let name = script.view.slug(40);
    let address = script.view.remote;
    script.lines(&["REGION=europe-west1", "NETWORK=default"]);
    if let Some(bgp) = bgp {
        highly_available(script, &name, bgp, ikev1);
        return Ok(());
    }
    script.line(format_args!("gcloud compute addresses create {name} --region=\"$REGION\""));
    script.line(format_args!(
        "ADDRESS=$(gcloud compute addresses describe {name} --region=\"$REGION\" --format='value(address)')"
    ));
    script.line(format_args!(
        "gcloud compute target-vpn-gateways create {name} --region=\"$REGION\" --network=\"$NETWORK\""
    ));
    for (rule, what) in [
        ("esp", "--ip-protocol=ESP"),
        ("udp500", "--ip-protocol=UDP --ports=500"),
        ("udp4500", "--ip-protocol=UDP --ports=4500"),
    ] {
        script.line(format_args!(
            "gcloud compute forwarding-rules create {name}-{rule} --region=\"$REGION\" --address=\"$ADDRESS\" {what} \
             --target-vpn-gateway={name}"
        ));
    }
    script.line(format_args!("gcloud compute vpn-tunnels create {name} --region=\"$REGION\" \\"));
    script.line(format_args!("  --target-vpn-gateway={name} --peer-address={address} \\"));
    script.line(format_args!("  --ike-version={} --shared-secret={PSK} \\", if ikev1 { 1 } else { 2 }));
    script.line(format_args!("  --local-traffic-selector={locals} --remote-traffic-selector={remotes}"));
    for (i, network) in networks.iter().enumerate() {
        script.line(format_args!(
            "gcloud compute routes create {name}-{} --network=\"$NETWORK\" --destination-range={network} \
             --next-hop-vpn-tunnel={name} --next-hop-vpn-tunnel-region=\"$REGION\"",
            i + 1
        ));
    }
    Ok(())
}

/// One tunnel of HA VPN, from its first interface, and the router that speaks BGP through it.
fn highly_available(script: &mut Script<'_>, name: &str, bgp: Session, ikev1: bool) {
    let address = script.view.remote;
    let region = "--region=\"$REGION\"";
    let network = "--network=\"$NETWORK\"";
    script.line(format_args!("gcloud compute vpn-gateways create {name} {region} {network}"));
    script.line(format_args!("gcloud compute external-vpn-gateways create {name} --interfaces=0={address}"));
    script.line(format_args!(
        "gcloud compute routers create {name} {region} {network} --asn={}",
        bgp.local_asn
    ));
    script.line(format_args!("gcloud compute vpn-tunnels create {name} {region} \\"));
    script.line(format_args!("  --vpn-gateway={name} --interface=0 --router={name} \\"));
    script.line(format_args!("  --peer-external-gateway={name} --peer-external-gateway-interface=0 \\"));
    script.line(format_args!("  --ike-version={} --shared-secret={PSK}", if ikev1 { 1 } else { 2 }));
    script.line(format_args!(
        "gcloud compute routers add-interface {name} {region} --interface-name={name} \\"
    ));
    script.line(format_args!("  --vpn-tunnel={name} --ip-address={} --mask-length=30", bgp.local_ip));
    script.line(format_args!("gcloud compute routers add-bgp-peer {name} {region} --peer-name={name} \\"));
    script.line(format_args!(
        "  --interface={name} --peer-ip-address={} --peer-asn={}",
        bgp.remote_ip, bgp.remote_asn
    ));
}
