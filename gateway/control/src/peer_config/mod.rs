//! The configuration of the other side: a tunnel as its peer has to be told of it, in the words of the peer's vendor.
//!
//! [`write`] is pure: a tunnel and a [`Request`] go in, files come out. A vendor is one file here: a table of what it knows
//! ([`choice::Dialect`]) and the text around it. What the vendor takes of a list is offered, what it does not take is said in
//! a comment at the top, and what leaves nothing to agree on is an error that names the field.
//!
//! | module | holds |
//! |---|---|
//! | `view` | the tunnel with local and remote swapped |
//! | `choice` | of what the tunnel offers, what the vendor has a word for |
//! | `cloud`, `dotted`, `bgp` | what several vendors share |
//! | `script` | the text, its comments, and the keys, which are put in last |

mod adit;
mod alibaba;
mod aws;
mod azure;
mod bgp;
mod choice;
mod cisco_asa;
mod cisco_iosxe;
mod cloud;
mod dotted;
mod fortigate;
mod gcloud;
#[cfg(test)]
mod guides;
mod h3c;
mod huawei;
mod juniper_srx;
mod libreswan;
mod mikrotik;
mod opnsense;
mod pfsense;
mod script;
mod strongswan;
mod strongswan_ipsec;
#[cfg(test)]
mod tests;
mod view;
mod vyos;

use crate::config::Tunnel;
use script::Script;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};
use view::View;
use zeroize::Zeroize;

/// Whose configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// strongSwan's swanctl.conf.
    Strongswan,
    /// strongSwan's ipsec.conf and ipsec.secrets.
    StrongswanIpsec,
    /// Libreswan's ipsec.conf and ipsec.secrets.
    Libreswan,
    /// Cisco IOS-XE.
    CiscoIosxe,
    /// Cisco ASA.
    CiscoAsa,
    /// Juniper SRX.
    JuniperSrx,
    /// FortiGate.
    Fortigate,
    /// Huawei firewalls.
    Huawei,
    /// H3C routers and firewalls.
    H3c,
    /// VyOS.
    Vyos,
    /// pfSense.
    Pfsense,
    /// OPNsense.
    Opnsense,
    /// MikroTik.
    Mikrotik,
    /// AWS Site-to-Site VPN.
    Aws,
    /// Google Cloud VPN.
    Gcloud,
    /// Azure VPN Gateway.
    Azure,
    /// Alibaba Cloud VPN Gateway.
    Alibaba,
    /// The tunnel's part of another Adit's file.
    Adit,
}

impl Vendor {
    /// Every vendor.
    pub const ALL: [Vendor; 18] = [
        Vendor::Strongswan,
        Vendor::StrongswanIpsec,
        Vendor::Libreswan,
        Vendor::CiscoIosxe,
        Vendor::CiscoAsa,
        Vendor::JuniperSrx,
        Vendor::Fortigate,
        Vendor::Huawei,
        Vendor::H3c,
        Vendor::Vyos,
        Vendor::Pfsense,
        Vendor::Opnsense,
        Vendor::Mikrotik,
        Vendor::Aws,
        Vendor::Gcloud,
        Vendor::Azure,
        Vendor::Alibaba,
        Vendor::Adit,
    ];

    /// By which it is asked for.
    pub fn word(self) -> &'static str {
        match self {
            Vendor::Strongswan => "strongswan",
            Vendor::StrongswanIpsec => "strongswan-ipsec",
            Vendor::Libreswan => "libreswan",
            Vendor::CiscoIosxe => "cisco-iosxe",
            Vendor::CiscoAsa => "cisco-asa",
            Vendor::JuniperSrx => "juniper-srx",
            Vendor::Fortigate => "fortigate",
            Vendor::Huawei => "huawei",
            Vendor::H3c => "h3c",
            Vendor::Vyos => "vyos",
            Vendor::Pfsense => "pfsense",
            Vendor::Opnsense => "opnsense",
            Vendor::Mikrotik => "mikrotik",
            Vendor::Aws => "aws",
            Vendor::Gcloud => "gcloud",
            Vendor::Azure => "azure",
            Vendor::Alibaba => "alibaba",
            Vendor::Adit => "adit",
        }
    }

    /// What people call it, with the version that this was written for.
    pub fn title(self) -> &'static str {
        match self {
            Vendor::Strongswan => "strongSwan 5.9 and 6.0 (swanctl.conf)",
            Vendor::StrongswanIpsec => "strongSwan 5.9 (ipsec.conf)",
            Vendor::Libreswan => "Libreswan 4.10 and 5.2",
            Vendor::CiscoIosxe => "Cisco IOS-XE 17.9",
            Vendor::CiscoAsa => "Cisco ASA 9.16 to 9.20",
            Vendor::JuniperSrx => "Juniper SRX, Junos 21.4",
            Vendor::Fortigate => "FortiGate, FortiOS 7.4",
            Vendor::Huawei => "Huawei USG6000E V600",
            Vendor::H3c => "H3C Comware 7",
            Vendor::Vyos => "VyOS 1.4",
            Vendor::Pfsense => "pfSense 2.7",
            Vendor::Opnsense => "OPNsense 24.1 (strongSwan)",
            Vendor::Mikrotik => "MikroTik RouterOS 7",
            Vendor::Aws => "AWS Site-to-Site VPN (AWS CLI 2)",
            Vendor::Gcloud => "Google Cloud Classic VPN (gcloud)",
            Vendor::Azure => "Azure VPN Gateway (Azure CLI 2)",
            Vendor::Alibaba => "Alibaba Cloud VPN Gateway (aliyun)",
            Vendor::Adit => concat!("Adit ", env!("CARGO_PKG_VERSION")),
        }
    }

    /// What errors and comments call it: without the version.
    fn name(self) -> &'static str {
        match self {
            Vendor::Strongswan | Vendor::StrongswanIpsec => "strongSwan",
            Vendor::Libreswan => "Libreswan",
            Vendor::CiscoIosxe => "Cisco IOS-XE",
            Vendor::CiscoAsa => "Cisco ASA",
            Vendor::JuniperSrx => "Juniper SRX",
            Vendor::Fortigate => "FortiGate",
            Vendor::Huawei => "Huawei",
            Vendor::H3c => "H3C",
            Vendor::Vyos => "VyOS",
            Vendor::Pfsense => "pfSense",
            Vendor::Opnsense => "OPNsense",
            Vendor::Mikrotik => "RouterOS",
            Vendor::Aws => "AWS",
            Vendor::Gcloud => "Google Cloud",
            Vendor::Azure => "Azure",
            Vendor::Alibaba => "Alibaba Cloud",
            Vendor::Adit => "Adit",
        }
    }

    /// Whether BGP is part of what is written for it.
    fn has_bgp(self) -> bool {
        match self {
            Vendor::Strongswan
            | Vendor::CiscoIosxe
            | Vendor::JuniperSrx
            | Vendor::Fortigate
            | Vendor::Vyos
            | Vendor::Aws
            | Vendor::Gcloud
            | Vendor::Azure
            | Vendor::Alibaba
            | Vendor::Adit => true,
            Vendor::StrongswanIpsec
            | Vendor::Libreswan
            | Vendor::CiscoAsa
            | Vendor::Huawei
            | Vendor::H3c
            | Vendor::Pfsense
            | Vendor::Opnsense
            | Vendor::Mikrotik => false,
        }
    }

    fn write(self, script: &mut Script<'_>) -> Result<(), PeerConfigError> {
        match self {
            Vendor::Strongswan => strongswan::write(script),
            Vendor::StrongswanIpsec => strongswan_ipsec::write(script),
            Vendor::Libreswan => libreswan::write(script),
            Vendor::CiscoIosxe => cisco_iosxe::write(script),
            Vendor::CiscoAsa => cisco_asa::write(script),
            Vendor::JuniperSrx => juniper_srx::write(script),
            Vendor::Fortigate => fortigate::write(script),
            Vendor::Huawei => huawei::write(script),
            Vendor::H3c => h3c::write(script),
            Vendor::Vyos => vyos::write(script),
            Vendor::Pfsense => pfsense::write(script),
            Vendor::Opnsense => opnsense::write(script),
            Vendor::Mikrotik => mikrotik::write(script),
            Vendor::Aws => aws::write(script),
            Vendor::Gcloud => gcloud::write(script),
            Vendor::Azure => azure::write(script),
            Vendor::Alibaba => alibaba::write(script),
            Vendor::Adit => adit::write(script),
        }
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that is no [`Vendor`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no vendor whose configuration can be written; allowed: {allowed}")]
pub struct UnknownVendor {
    word: String,
    allowed: String,
}

impl FromStr for Vendor {
    type Err = UnknownVendor;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Vendor::ALL.into_iter().find(|v| v.word() == word).ok_or_else(|| UnknownVendor {
            word: word.to_owned(),
            allowed: Vendor::ALL.map(Vendor::word).join(", "),
        })
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// For whom.
    pub vendor: Vendor,
    /// Whether the keys are part of it; otherwise a line says where they go.
    pub with_psk: bool,
    /// Where the peer reaches this gateway, if that is not `gateway.address`: the public address of a NAT before it.
    pub address: Option<IpAddr>,
}

/// A file of the other side.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PeerFile {
    /// What it is called there.
    pub name: String,
    /// What it holds, perhaps keys.
    pub text: String,
}

impl Drop for PeerFile {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

impl fmt::Debug for PeerFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why there is no configuration for this vendor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerConfigError {
    /// The vendor has none of the values that the tunnel offers.
    #[error("{field}: {vendor} has no {values}; allowed there: {known}")]
    Unknown {
        /// Whose configuration was asked for.
        vendor: &'static str,
        /// The tunnel's field.
        field: &'static str,
        /// What the field says.
        values: String,
        /// What the vendor has.
        known: String,
    },
    /// The vendor cannot say what the field says.
    #[error("{field}: {vendor} {why}")]
    Inexpressible {
        /// Whose configuration was asked for.
        vendor: &'static str,
        /// The tunnel's field.
        field: &'static str,
        /// In words that go on after the vendor's name; never with a value that is secret.
        why: String,
    },
}

/// Writes the configuration of the other side of `tunnel`, as `request` wants it; `gateway` is what comments call this one.
///
/// # Errors
/// [`PeerConfigError`] where the vendor has no way to say what the tunnel says.
pub fn write(gateway: &str, tunnel: &Tunnel, request: Request) -> Result<Vec<PeerFile>, PeerConfigError> {
    let view = View::new(gateway, tunnel, request.address);
    let mut script = Script::new(view, request);
    if !request.vendor.has_bgp() {
        bgp::note(&mut script);
    }
    request.vendor.write(&mut script)?;
    script.finish()
}
