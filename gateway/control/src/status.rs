//! What `control` says about itself: plain values that serialise, without any secret.

pub use crate::tunnel::State;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};
use utoipa::ToSchema;

/// Seconds since 1970 (UTC).
pub type Timestamp = u64;

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// This machine.
    pub gateway: GatewayStatus,
    /// Every configured tunnel, in the order of the configuration.
    pub tunnels: Vec<TunnelStatus>,
    /// Every connection group, by name.
    #[serde(default)]
    pub groups: Vec<GroupStatus>,
    /// IKE as a whole.
    pub ike: IkeStatus,
    /// The interfaces that carry the XDP program.
    pub ports: Vec<PortStatus>,
    /// What the data plane says of itself; `None` when nothing answers on its socket.
    #[serde(default)]
    pub data_plane: Option<DataPlaneStatus>,
    /// Where the API is served over HTTPS, if it is.
    #[serde(default)]
    pub api: Option<ApiStatus>,
}

/// The API as other machines reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiStatus {
    /// Address and port.
    pub listen: String,
    /// SHA-256 of its certificate, as octets in hexadecimal digits between colons.
    pub fingerprint: String,
}

/// The gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GatewayStatus {
    /// Its name.
    pub name: String,
    /// Its public addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Version of this build.
    pub version: String,
    /// When `control` started.
    pub started_at: Timestamp,
    /// Why no packet can pass yet; `None` when the data plane's maps are there.
    pub waiting_for: Option<String>,
    /// Why the last reload was refused; `None` when it was not.
    pub refused_reload: Option<String>,
}

/// How far a resource has got. Whether a tunnel carries anything is its [`State`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResourceStatus {
    /// It is configured, and its policies are not in the maps yet.
    Creating,
    /// It does what it is configured for.
    #[default]
    Running,
    /// It is no longer configured, and its SAs, policies and routes are still there.
    Deleting,
}

impl ResourceStatus {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            ResourceStatus::Creating => "creating",
            ResourceStatus::Running => "running",
            ResourceStatus::Deleting => "deleting",
        }
    }
}

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TunnelStatus {
    /// Its name.
    pub name: String,
    /// Its number, as the maps have it. It stays with the tunnel while its SAs are there.
    pub id: u32,
    /// The resource status.
    #[serde(default)]
    pub status: ResourceStatus,
    /// The connection status.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// The peer's name.
    pub peer: String,
    /// The peer's address as configured.
    pub peer_address: String,
    /// The address that the IKE SA has, or the last attempt had.
    #[schema(value_type = Option<String>)]
    pub remote: Option<IpAddr>,
    /// Our address that the IKE SA has, or the last attempt had; before any, the one that an attempt would have.
    #[schema(value_type = String)]
    pub local: IpAddr,
    /// What is protected on our side.
    pub local_subnets: Vec<String>,
    /// What is protected on the peer's side.
    pub remote_subnets: Vec<String>,
    /// What is sent through it in routing mode `route`; empty in mode `protected`.
    #[serde(default)]
    pub routes: Vec<String>,
    /// The version of IKE that is spoken: `ikev2`, `ikev1`.
    pub version: String,
    /// How phase 1 of IKEv1 goes: `main`, `aggressive`.
    pub mode: Option<String>,
    /// Since when the IKE SA is up.
    pub ike_since: Option<Timestamp>,
    /// Whether we began it.
    pub ike_begun_by_us: Option<bool>,
    /// Algorithms of the IKE SA.
    pub ike_suite: Option<String>,
    /// From the first message of the negotiation to the last, in milliseconds.
    pub handshake_ms: Option<f64>,
    /// How long the peer took to answer when it was last asked for a sign of life, in milliseconds; `None` until it has
    /// been asked.
    #[serde(default)]
    pub dpd_round_trip_ms: Option<f64>,
    /// Who is behind a NAT: `local`, `peer`, `both`.
    pub nat: Option<String>,
    /// The Child SAs.
    pub children: Vec<ChildStatus>,
    /// SAs that others have taken the place of, since the tunnel was configured.
    pub rekeys: Rekeys,
    /// Packets opened since the tunnel was configured.
    pub inbound: Traffic,
    /// Packets sealed since the tunnel was configured.
    pub outbound: Traffic,
    /// Packets dropped in both directions, by cause; every cause is there.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub drops: BTreeMap<Cow<'static, str>, u64>,
    /// What went wrong last, until a negotiation succeeds.
    pub last_error: Option<Failure>,
    /// Whether packets can pass: it is connected, and its health check, if it has one, gets answers.
    #[serde(default)]
    pub healthy: bool,
    /// What its health check finds, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthStatus>,
    /// How BGP through it is, if there is BGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpStatus>,
}

/// A session of BGP, as BIRD tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BgpStatus {
    /// Our end, inside the tunnel.
    #[schema(value_type = String)]
    pub local_ip: IpAddr,
    /// Our autonomous system.
    pub local_asn: u32,
    /// The peer's end.
    #[schema(value_type = String)]
    pub peer_ip: IpAddr,
    /// The peer's autonomous system.
    pub peer_asn: u32,
    /// `idle`, `connect`, `active`, `opensent`, `openconfirm`, `established`; `unknown` where BIRD does not tell.
    pub state: String,
    /// Whether prefixes are exchanged.
    pub up: bool,
    /// Prefixes that the peer teaches within the tunnel's routes.
    pub received: u64,
    /// Prefixes that are announced to it.
    pub announced: u64,
    /// What is sent through the tunnel by that, as CIDR prefixes: where several peers teach one, it is with one of them.
    pub routes: Vec<String>,
    /// What is wrong, as far as BIRD says it, or how much is not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A connection group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// `active-standby`, `active-active`.
    pub mode: String,
    /// Its members, in the order of preference.
    pub members: Vec<MemberStatus>,
}

/// A member of a connection group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberStatus {
    /// The tunnel's name.
    pub tunnel: String,
    /// Whether packets can pass through it.
    pub healthy: bool,
    /// Which part of the group's flows it carries: 0 to 1.
    pub share: f64,
}

/// What a health check finds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthStatus {
    /// Who is asked.
    #[schema(value_type = String)]
    pub destination: IpAddr,
    /// Where the requests come from.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// Whether somebody answers, as far as is known.
    pub answers: bool,
    /// How long the last answer took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
}

/// How often SAs of a tunnel have been renewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rekeys {
    /// IKE SAs, by rekey or by a new authentication.
    pub ike: u64,
    /// Pairs of Child SAs.
    pub child: u64,
}

/// A pair of Child SAs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChildStatus {
    /// SPI of packets from the peer, as `0x` and eight digits.
    pub inbound_spi: String,
    /// SPI of packets to the peer.
    pub outbound_spi: String,
    /// `esp`, `ah`.
    pub protocol: String,
    /// Its algorithms.
    pub suite: String,
    /// The group of its own Diffie-Hellman exchange, if it had one.
    pub pfs: Option<String>,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// Whether ESP goes in UDP.
    pub encapsulated: bool,
    /// What it covers on our side.
    pub local: Vec<String>,
    /// What it covers on the peer's side.
    pub remote: Vec<String>,
    /// Since when it is there.
    pub installed_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// Bytes in one direction after which it ends.
    pub lifetime_bytes: Option<u64>,
    /// Packets in one direction after which it ends.
    pub lifetime_packets: Option<u64>,
    /// Longest packet in bytes that fits into it; `None` while the data plane has not looked, or there is no way to the
    /// peer.
    pub mtu: Option<u16>,
    /// Longest sealed packet in bytes that fits the path to the peer, as far as is known.
    pub path_mtu: Option<u16>,
    /// Packets it has opened.
    pub inbound: Traffic,
    /// Packets it has sealed.
    pub outbound: Traffic,
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of the inner packets.
    pub bytes: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// 1 or 2; `None` where it is not a matter of negotiation.
    pub phase: Option<u8>,
    /// In which exchange, where there was one.
    pub exchange: Option<String>,
    /// The address of the peer that it was with, where one was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub peer: Option<IpAddr>,
    /// Whether we began what went wrong.
    pub ours: bool,
    /// Why, for people.
    pub cause: String,
    /// The same for programs, where it is a matter between the two sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<Box<Mismatch>>,
}

/// [`Mismatch::about`] where a health check gets no answers.
pub const HEALTH: &str = "health";

impl Failure {
    /// Whether it is the tunnel's health check that gets no answers.
    pub fn is_of_health(&self) -> bool {
        self.mismatch.as_ref().is_some_and(|m| m.about == HEALTH)
    }
}

/// What a negotiation failed about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mismatch {
    /// `no-answer`, `nat`, `proposal`, `protocol`, `pfs`, `version`, `mode`, `psk`, `id`, `authentication`, `ppk`, `subnets`,
    /// `tunnel`, `other`.
    pub about: String,
    /// The fields of the tunnel to compare with the peer's, the likeliest first.
    pub fields: Vec<String>,
    /// What we have or offer.
    pub ours: Vec<String>,
    /// What the peer has or offers; `None` where it did not say.
    pub theirs: Option<Vec<String>>,
    /// Where the two first differ.
    pub first_difference: Option<String>,
}

/// IKE as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IkeStatus {
    /// Datagrams that came.
    pub received: u64,
    /// Datagrams that went.
    pub sent: u64,
    /// Requests sent again.
    pub retransmissions: u64,
    /// Datagrams dropped, by cause.
    pub dropped: BTreeMap<String, u64>,
    /// Exchanges by kind and result.
    pub exchanges: Vec<ExchangeCount>,
    /// How long the task that serves IKE was busy with one thing.
    #[serde(default)]
    pub rounds: RoundsStatus,
}

/// Rounds of the task that serves IKE, since it met the data plane: as long as one lasts, datagrams and timers wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RoundsStatus {
    /// Bounds in seconds, each with how many rounds took no longer.
    #[schema(value_type = Vec<Vec<f64>>)]
    pub within: Vec<(f64, u64)>,
    /// How many rounds there were.
    pub count: u64,
    /// Seconds that all of them took.
    pub seconds: f64,
    /// Seconds that the longest took.
    pub longest_seconds: f64,
}

/// Exchanges of one kind that ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExchangeCount {
    /// `ike_sa_init`, `ike_auth`, …
    pub exchange: String,
    /// `done`, `refused`, `timed_out`.
    pub result: String,
    /// How many.
    pub count: u64,
}

/// An interface that carries the XDP program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortStatus {
    /// Its name.
    pub interface: String,
    /// How packets come and go: `zero-copy`, `driver`, `generic`, `sockets`; `None` while no data plane runs.
    #[serde(default)]
    pub mode: Option<String>,
    /// Why so.
    #[serde(default)]
    pub reason: Option<String>,
    /// What the kernel counts of it; `None` where it does not tell.
    #[serde(default)]
    pub nic: Option<NicStatus>,
    /// Packets by verdict; every verdict is there.
    pub verdicts: BTreeMap<String, u64>,
}

/// An interface, as the kernel counts: everything that passes it, whether Adit has to do with it or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NicStatus {
    /// Frames that came in.
    pub received: Traffic,
    /// Frames that went out.
    pub sent: Traffic,
    /// Bits per second of the link; `None` where it has no speed, as a virtual one.
    pub speed_bits: Option<u64>,
}

/// The data plane, as it tells on its own socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DataPlaneStatus {
    /// What the cryptography runs on: `avx512`, `avx2`, `aesni`, `portable`.
    pub crypto: String,
    /// Its threads.
    pub workers: Vec<WorkerStatus>,
    /// Packets that belong to no SA, by what became of them.
    pub counters: BTreeMap<String, u64>,
    /// Packets of SAs that were dropped since the maps were made, by cause: also of SAs that are gone.
    pub drops: BTreeMap<String, u64>,
}

/// A thread of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    /// 0..
    pub id: usize,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Whether its thread lives.
    pub running: bool,
    /// Rounds that had packets in them.
    pub batches: u64,
    /// Packets that came in.
    pub packets: u64,
    /// Nanoseconds spent on packets.
    pub busy_ns: u64,
    /// Packets that wait for a neighbour's address or for an SA.
    pub held: u64,
    /// What part of its fullest receive ring waited when a round began, the last time in a second, in millionths.
    #[serde(default)]
    pub receive_fill: u64,
    /// The same of its fullest transmit ring.
    #[serde(default)]
    pub transmit_fill: u64,
}

/// Something that happens while somebody looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A tunnel's connection status is another.
    State {
        /// Its name.
        tunnel: String,
        /// The new one.
        state: State,
    },
    /// A tunnel's connection log has another entry.
    Log {
        /// Its name.
        tunnel: String,
        /// The entry.
        entry: LogEntry,
    },
    /// The gateway's own log has another entry.
    Gateway {
        /// The entry.
        entry: LogEntry,
    },
    /// A tunnel has another name from now on.
    Renamed {
        /// The name that it had.
        tunnel: String,
        /// The name that it has.
        to: String,
    },
    /// A tunnel is no longer configured.
    Removed {
        /// The name that it had.
        tunnel: String,
    },
    /// Who looks has not kept up.
    Lost {
        /// How many events he has missed.
        count: u64,
    },
}

impl Event {
    /// The tunnel that it is about, if it is about one.
    pub fn tunnel(&self) -> Option<&str> {
        match self {
            Event::State { tunnel, .. }
            | Event::Log { tunnel, .. }
            | Event::Renamed { tunnel, .. }
            | Event::Removed { tunnel } => Some(tunnel),
            Event::Gateway { .. } | Event::Lost { .. } => None,
        }
    }
}

/// One line of a tunnel's connection log, or of the gateway's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// Counts the entries of the log from 0, those too that are no longer kept.
    #[serde(default)]
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What happened, for people.
    pub text: String,
}

pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
