//! One IKE connection between the gateway and a peer, with its subnets and policies.

use super::Word;
use crate::config::{self, DpdAction, Start};
use adit_ike::{Group, Mode, NatT, Protocol, Psk, Version};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

super::resource! {
    /// One IKE connection between the gateway and a peer. Its keys do not show in it: see [`Secrets`].
    Tunnel, TunnelSpec
}

/// What a tunnel is. Fields that take a list take one value as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TunnelSpec {
    /// The peer's name.
    pub peer: String,
    /// `protected`: both lists of subnets say what goes through; `route`: everything may, and `routes` says what is sent.
    pub routing_mode: String,
    /// What is protected on our side, as CIDR prefixes.
    #[schema(example = json!(["10.1.0.0/16"]))]
    pub local_subnets: Vec<String>,
    /// What is protected on the peer's side, as CIDR prefixes.
    #[schema(example = json!(["10.2.0.0/16"]))]
    pub remote_subnets: Vec<String>,
    /// What is sent through it in routing mode `route`, as CIDR prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// The pre-shared key: 1..128 printable characters without space. Never shown; generated where none is given, and kept
    /// where a change gives none.
    #[serde(default, skip_serializing)]
    #[schema(write_only, value_type = Option<String>)]
    pub psk: (),
    /// Whether it is to be up at all.
    pub enabled: bool,
    /// Who begins: `immediate`, `on-demand`, `respond`.
    pub start: String,
    /// UDP encapsulation: `auto`, `force`, `off`.
    pub nat_t: String,
    /// Largest outer packet in bytes, or `auto`.
    pub mtu: Word,
    /// Largest inner TCP segment in bytes, or `auto`.
    pub mss_clamp: Word,
    /// Phase 1.
    pub ike: IkeSpec,
    /// Phase 2.
    pub ipsec: IpsecSpec,
    /// Dead peer detection.
    pub dpd: DpdSpec,
    /// Echo requests through the tunnel, by which its health is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckSpec>,
    /// Its own alarm template; none is the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm_template: Option<String>,
    /// BGP with the peer, which says what is sent through the tunnel, within its routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpSpec>,
}

/// Phase 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IkeSpec {
    /// `ikev2`, `ikev1`.
    pub version: String,
    /// `main`, `aggressive`; with `ikev1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Ciphers in the order of preference.
    pub encryption: Vec<String>,
    /// Integrity algorithms in the order of preference.
    pub integrity: Vec<String>,
    /// Pseudo-random functions in the order of preference.
    pub prf: Vec<String>,
    /// Diffie-Hellman groups in the order of preference.
    pub dh: Vec<Word>,
    /// Additional key exchanges (RFC 9370).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_ke: Vec<String>,
    /// Seconds.
    pub lifetime: u64,
    /// Whether a new IKE SA takes the place of a rekey.
    pub reauthenticate: bool,
    /// Whether the IKE SA is begun without a Child SA (RFC 6023).
    pub childless: bool,
    /// A post-quantum pre-shared key (RFC 8784).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppk: Option<PpkSpec>,
    /// What we call ourselves.
    pub local_id: String,
    /// What the peer must call itself.
    pub peer_id: String,
}

/// A post-quantum pre-shared key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PpkSpec {
    /// Its name on both sides.
    pub id: String,
    /// The key: `0x` and hexadecimal digits, or text. Never shown; kept where a change gives none.
    #[serde(default, skip_serializing)]
    #[schema(write_only, value_type = Option<String>)]
    pub key: (),
    /// Whether a peer without it is refused.
    pub required: bool,
}

/// Phase 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IpsecSpec {
    /// `esp`, `ah`.
    pub protocol: String,
    /// Ciphers in the order of preference; none with `ah`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encryption: Vec<String>,
    /// Integrity algorithms in the order of preference.
    pub integrity: Vec<String>,
    /// Diffie-Hellman groups of each Child SA's own exchange, or `disabled`.
    pub pfs: Vec<Word>,
    /// Seconds.
    pub lifetime: u64,
    /// Bytes after which a Child SA ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_bytes: Option<u64>,
    /// Packets after which a Child SA ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_packets: Option<u64>,
    /// Whether extended sequence numbers are offered.
    pub esn: bool,
    /// Packets; 0 is off.
    pub replay_window: u16,
}

/// Dead peer detection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DpdSpec {
    /// Whether it is on.
    pub enabled: bool,
    /// Seconds of silence after which the peer is asked.
    pub delay: u64,
    /// Seconds without an answer after which it is dead.
    pub timeout: u64,
    /// `restart`, `clear`, `hold`.
    pub action: String,
}

/// Echo requests through a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheckSpec {
    /// Who is asked: an address on the peer's side.
    #[schema(example = "10.2.0.10")]
    pub destination: String,
    /// Where they come from: an address on our side. One that the machine does not have becomes one of `adit0`.
    #[schema(example = "10.1.0.1")]
    pub source: String,
    /// Seconds from one to the next: 1..60.
    pub interval: u64,
    /// How many in a row decide: 1..10.
    pub retries: u32,
    /// Whether the tunnel's routes are withdrawn while nothing answers.
    pub switch_route: bool,
}

/// BGP through a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BgpSpec {
    /// Our autonomous system.
    #[schema(example = 65000)]
    pub local_asn: u32,
    /// The peer's.
    #[schema(example = 64512)]
    pub peer_asn: u32,
    /// The network of both ends, inside the tunnel.
    #[schema(example = "169.254.10.0/30")]
    pub inside_cidr: String,
    /// Our end, which `adit0` has.
    #[schema(example = "169.254.10.2")]
    pub local_ip: String,
    /// Seconds that the peer may be silent: 3..3600.
    pub hold_time: u64,
    /// What is announced, as CIDR prefixes; empty for the networks of the LAN ports.
    pub announce: Vec<String>,
}

impl From<&config::Bgp> for BgpSpec {
    fn from(b: &config::Bgp) -> Self {
        BgpSpec {
            local_asn: b.local_asn,
            peer_asn: b.peer_asn,
            inside_cidr: b.inside_cidr.to_string(),
            local_ip: b.local_ip.to_string(),
            hold_time: b.hold_time.as_secs(),
            announce: texts(&b.announce),
        }
    }
}

impl From<&config::HealthCheck> for HealthCheckSpec {
    fn from(c: &config::HealthCheck) -> Self {
        HealthCheckSpec {
            destination: c.destination.to_string(),
            source: c.source.to_string(),
            interval: c.interval.as_secs(),
            retries: c.retries,
            switch_route: c.switch_route,
        }
    }
}

impl From<&config::Tunnel> for TunnelSpec {
    fn from(t: &config::Tunnel) -> Self {
        let automatic = |n: Option<u16>| n.map_or(Word::Text("auto".into()), |n| Word::Number(n.into()));
        let start = match t.start {
            Start::Immediate => "immediate",
            Start::OnDemand => "on-demand",
            Start::Respond => "respond",
        };
        let nat_t = match t.nat_t {
            NatT::Auto => "auto",
            NatT::Force => "force",
            NatT::Off => "off",
        };
        TunnelSpec {
            peer: t.peer_name.clone(),
            routing_mode: if t.routes.is_some() { "route" } else { "protected" }.into(),
            local_subnets: texts(&t.local_subnets),
            remote_subnets: texts(&t.remote_subnets),
            routes: texts(t.routes.as_deref().unwrap_or_default()),
            psk: (),
            enabled: t.enabled,
            start: start.into(),
            nat_t: nat_t.into(),
            mtu: automatic(t.mtu),
            mss_clamp: automatic(t.mss_clamp),
            ike: ike(t),
            ipsec: ipsec(t),
            dpd: dpd(t),
            health_check: t.health_check.as_ref().map(HealthCheckSpec::from),
            alarm_template: t.alarm_template.clone(),
            bgp: t.bgp.as_deref().map(BgpSpec::from),
        }
    }
}

fn ike(t: &config::Tunnel) -> IkeSpec {
    let ikev1 = t.ike.version == Version::Ikev1;
    let mode = if t.ike.mode == Mode::Aggressive { "aggressive" } else { "main" };
    IkeSpec {
        version: if ikev1 { "ikev1" } else { "ikev2" }.into(),
        mode: ikev1.then(|| mode.to_owned()),
        encryption: texts(&t.ike.encryption),
        integrity: texts(&t.ike.integrity),
        prf: t.ike.prf.iter().map(|prf| prf.hash_name().to_owned()).collect(),
        dh: groups(&t.ike.dh),
        additional_ke: texts(&t.ike.additional_ke),
        lifetime: t.ike.lifetime.as_secs(),
        reauthenticate: t.ike.reauthenticate,
        childless: t.childless,
        ppk: t.ppk.as_ref().map(|ppk| PpkSpec {
            id: String::from_utf8_lossy(&ppk.id).into_owned(),
            key: (),
            required: ppk.required,
        }),
        local_id: t.local_id.to_string(),
        peer_id: t.peer_id.to_string(),
    }
}

fn ipsec(t: &config::Tunnel) -> IpsecSpec {
    let ah = t.ipsec.protocol == Protocol::Ah;
    let disabled = || vec![Word::Text("disabled".into())];
    IpsecSpec {
        protocol: if ah { "ah" } else { "esp" }.into(),
        encryption: if ah { Vec::new() } else { texts(&t.ipsec.encryption) },
        integrity: texts(&t.ipsec.integrity),
        pfs: if t.ipsec.pfs.is_empty() { disabled() } else { groups(&t.ipsec.pfs) },
        lifetime: t.ipsec.lifetime.as_secs(),
        lifetime_bytes: t.ipsec.lifetime_bytes,
        lifetime_packets: t.lifetime_packets,
        esn: t.ipsec.esn,
        replay_window: t.replay_window,
    }
}

fn dpd(t: &config::Tunnel) -> DpdSpec {
    let action = match t.dpd_action {
        DpdAction::Restart => "restart",
        DpdAction::Clear => "clear",
        DpdAction::Hold => "hold",
    };
    let times = t.dpd.unwrap_or(config::DEFAULT_DPD);
    DpdSpec {
        enabled: t.dpd.is_some(),
        delay: times.delay.as_secs(),
        timeout: times.timeout.as_secs(),
        action: action.into(),
    }
}

fn texts<T: fmt::Display>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn groups(list: &[Group]) -> Vec<Word> {
    list.iter().map(|group| Word::Number(group.number().into())).collect()
}

/// The keys of a tunnel, for whoever may have them. Their `Debug` does not show them, and they are overwritten when they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// The pre-shared key.
    pub psk: Psk,
    /// The post-quantum pre-shared key, as it was given.
    pub ppk_key: Option<Psk>,
}
