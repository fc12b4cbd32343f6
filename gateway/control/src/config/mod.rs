//! The configuration: one TOML file, read into types that can hold nothing invalid.
//!
//! ```toml
//! [gateway]
//! name = "a"
//! address = "192.0.2.1"          # or a list of one IPv4 and one IPv6 address
//! wan = "eth0"
//! lan = ["eth1"]                 # the same interface as wan on a one-armed gateway
//! # local_id = "a.example.net"   # the gateway's address
//! # alarm_template = "night"     # the usual one
//! # xdp = "auto"                 # or zero-copy, driver, generic, none
//! [gateway.ike]
//! # cookie_threshold = 64        # half-open IKE SAs from which on strangers have to show a cookie
//! # half_open_limit = 4096       # half-open IKE SAs from which on strangers are ignored
//! # fragment_size = 1280         # largest IP packet of an IKE message in bytes
//! # retransmit_after = 500       # milliseconds; doubled each time
//! # retransmit_ceiling = 8000    # milliseconds
//! # attempts = 5                 # how often a request is sent in all
//! # keepalive = 20               # seconds between NAT keepalives
//! [gateway.bird]                 # BIRD, which speaks BGP
//! # file = "/run/bird/adit.conf"   # what is written for it, and its own configuration includes
//! # socket = "/run/bird/bird.ctl"  # its control socket
//!
//! [api]
//! # socket = "/run/adit/adit.sock"
//! # metrics = "127.0.0.1:9360"   # none: /metrics on the socket only
//! # listen = "192.0.2.1:8443"    # none: the API on the socket only
//! # certificate = "/etc/adit/api.crt"   # one of our own, with its key
//! # key = "/etc/adit/api.key"
//! # capture_keys = false
//! # reveal_secrets = false
//!
//! [[peer]]
//! name = "b"
//! address = "198.51.100.1"       # or a name, or "any"
//! # asn = 64512                  # its autonomous system, or "hi.lo"; none
//!
//! [[tunnel]]
//! name = "a-b"
//! peer = "b"
//! local_subnets = ["10.1.0.0/16"]
//! remote_subnets = ["10.2.0.0/16"]
//! psk = "correct-horse-battery-staple"
//! # routing_mode = "protected"   # route: everything may pass, and `routes` says what is sent through it
//! # routes = ["10.2.0.0/16"]     # instead of local_subnets and remote_subnets, with routing_mode = "route"
//! # enabled = true
//! # start = "immediate"          # on-demand, respond
//! # nat_t = "auto"               # force, off
//! # mtu = "auto"                 # largest outer packet in bytes
//! # mss_clamp = "auto"           # largest inner TCP segment in bytes
//! # alarm_template = "night"     # the gateway's
//! [tunnel.ike]
//! # version = "ikev2"            # ikev1
//! # mode = "main"                # aggressive, with ikev1
//! # encryption = "aes256gcm16"   # or a list: each of these four takes one value or an ordered list
//! # integrity = "sha256"
//! # prf = "sha256"
//! # dh = [31, 19, 14]
//! # additional_ke = "mlkem768"   # none; with ikev2
//! # lifetime = 86400             # seconds
//! # reauthenticate = false
//! # childless = false
//! # ppk = { id = "a-b", key = "0x…", required = true }   # none; with ikev2
//! # local_id = "192.0.2.1"       # the gateway's local_id
//! # peer_id = "198.51.100.1"     # the peer's address
//! [tunnel.ipsec]
//! # protocol = "esp"             # ah
//! # encryption = "aes256gcm16"
//! # integrity = "sha256"
//! # pfs = [31, 19, 14]           # ike.dh; or "disabled"
//! # lifetime = 3600
//! # lifetime_bytes = 1000000000  # none
//! # lifetime_packets = 1000000   # none
//! # esn = true
//! # replay_window = 1024         # packets
//! [tunnel.dpd]
//! # enabled = true
//! # delay = 8
//! # timeout = 13
//! # action = "restart"           # clear, hold
//! [tunnel.health_check]          # none
//! # destination = "10.2.0.10"    # who is asked, through the tunnel
//! # source = "10.1.0.1"          # where from: an address of the gateway, or one that it may take
//! # interval = 3                 # seconds
//! # retries = 3                  # echo requests
//! # switch_route = false
//! [tunnel.bgp]                   # none; with routing_mode = "route"
//! # local_asn = 65000            # our autonomous system, or "hi.lo"
//! # peer_asn = 64512             # the peer's asn
//! # inside_cidr = "169.254.10.0/30"   # both ends, inside the tunnel
//! # local_ip = "169.254.10.2"    # our end
//! # hold_time = 30               # seconds
//! # announce = ["10.1.0.0/16"]   # the networks of the LAN ports
//!
//! [[group]]                      # tunnels to the same networks
//! # name = "b"
//! # members = ["a-b", "a-b-2"]   # in the order of preference
//! # mode = "active-standby"      # active-active
//!
//! [[alarm]]                      # an alarm template
//! # name = "night"
//! # remark = ""
//! [[alarm.rules]]
//! # figure = "sa-expiry"         # one of `alarm::FIGURES`
//! # threshold = 60               # in the figure's unit
//! # comparison = "below"         # above: the figure's own side
//! # for = 60                     # seconds
//! # severity = "warning"         # info, critical
//! # causes = ["replay"]          # all but dummy, with drops and gateway-drops
//! # summary = "SAs are not renewed"
//! ```
//!
//! The values after `#` are the defaults, unless said otherwise; IKEv1 has `aes256` in phase 1 and no `esn`. Fields and
//! words of the product that this version does not have are refused by name. A `psk` may be left out of what is applied to
//! the store ([`crate::store`]), which keeps the one that the tunnel has, or generates one. A file that names no resource,
//! one of `[api]` alone or an empty one, says nothing of resources: [`Config::names_resources`].

mod alarm;
mod bgp;
mod check;
mod diagnostic;
mod group;
mod health;
mod one;
mod policies;
mod reader;
mod sections;
mod subnet;
#[cfg(test)]
mod tests;
pub(crate) mod tree;

pub(crate) use alarm::{MAX_RULES, NO_TEMPLATE, SUMMARY, listed, not_of_a_tunnel, read_alarms};
pub use bgp::{Bgp, Bird};
pub(crate) use bgp::{MAX_ANNOUNCED, same_inside};
pub(crate) use check::{asks_a_peer, other_key, peer_is_asked, same_pair};
pub use diagnostic::{ConfigError, Diagnostic};
pub(crate) use group::{MAX_MEMBERS, in_another, misfits, same_check};
pub(crate) use one::{read_alarm, read_gateway, read_group, read_peer, read_tunnel};
pub(crate) use sections::Keys;
pub use subnet::Subnet;

use crate::{alarm::Alarm, resource::Kind};
use adit_ike::{Dpd, EndpointConfig, Id, IkePolicy, IpsecPolicy, Mode, NatT, Ppk, Psk, Version};
use diagnostic::lines;
use reader::{Section, Source};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use toml_edit::{Document, Item, Table, TableLike};
use zeroize::Zeroizing;

/// Dead peer detection where nothing else is said.
pub(crate) const DEFAULT_DPD: Dpd = Dpd { delay: Duration::from_secs(8), timeout: Duration::from_secs(13) };

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This machine.
    pub gateway: Gateway,
    /// Where status and metrics are served.
    pub api: Api,
    /// The tunnels, in the order of the file.
    pub tunnels: Vec<Tunnel>,
    /// The connection groups, in the order of the file.
    pub groups: Vec<Group>,
    /// The alarm templates, in the order of the file.
    pub alarms: Vec<Alarm>,
    /// What works and should not be used.
    pub warnings: Vec<Diagnostic>,
}

/// The local end of every tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// Its public addresses: one, or one of each family.
    pub addresses: Vec<IpAddr>,
    /// The interface that faces the peers.
    pub wan: String,
    /// The interfaces that face the protected networks.
    pub lan: Vec<String>,
    /// What it calls itself unless a tunnel says otherwise; `None` is the address.
    pub local_id: Option<Id>,
    /// The alarm template that it and its tunnels have; `None` is the usual one.
    pub alarm_template: Option<String>,
    /// How packets come and go.
    pub xdp: Xdp,
    /// IKE as a whole.
    pub ike: EndpointConfig,
    /// Where BIRD is.
    pub bird: Bird,
}

impl Gateway {
    /// What there is before a gateway is created: nothing that listens, and no interface.
    pub fn none() -> Gateway {
        Gateway {
            name: String::new(),
            addresses: Vec::new(),
            wan: String::new(),
            lan: Vec::new(),
            local_id: None,
            alarm_template: None,
            xdp: Xdp::Auto,
            ike: EndpointConfig::default(),
            bird: Bird::default(),
        }
    }

    /// Whether there is one: it has an address then.
    pub fn is_there(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Whether one interface is both sides.
    pub fn is_one_armed(&self) -> bool {
        self.lan.contains(&self.wan)
    }
}

/// How packets come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xdp {
    /// The fastest way that the interfaces have.
    Auto,
    /// XDP in the driver without copying, or not at all.
    ZeroCopy,
    /// XDP in the driver with copying, or not at all.
    Driver,
    /// XDP in the kernel's generic path.
    Generic,
    /// No XDP: the kernel forwards, and the TUN device and raw sockets take part in that.
    None,
}

impl Xdp {
    pub(crate) const WORDS: [(&str, Xdp); 5] = [
        ("auto", Xdp::Auto),
        ("zero-copy", Xdp::ZeroCopy),
        ("driver", Xdp::Driver),
        ("generic", Xdp::Generic),
        ("none", Xdp::None),
    ];
}

/// Where status and metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Address of `/metrics` over TCP, if any.
    pub metrics: Option<SocketAddr>,
    /// Address of the API over HTTPS, if any.
    pub listen: Option<SocketAddr>,
    /// Files of its certificate and key, where they are not our own.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whether a capture may come with the keys of its SAs.
    pub capture_keys: bool,
    /// Whether pre-shared keys may leave it, where they are asked for.
    pub reveal_secrets: bool,
}

impl Default for Api {
    fn default() -> Self {
        Api {
            socket: sections::SOCKET.into(),
            metrics: None,
            listen: None,
            certificate: None,
            capture_keys: false,
            reveal_secrets: false,
        }
    }
}

/// The remote gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: PeerAddress,
    /// Its autonomous system.
    pub asn: Option<u32>,
}

/// Where the peer of a tunnel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// At this address.
    Ip(IpAddr),
    /// At whatever address the name has when a negotiation starts.
    Name(String),
    /// Not known beforehand: it comes to us.
    Any,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Ip(ip) => write!(f, "{ip}"),
            PeerAddress::Name(name) => f.write_str(name),
            PeerAddress::Any => f.write_str("any"),
        }
    }
}

/// Who begins a negotiation, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// We, at once.
    Immediate,
    /// We, with the first packet for the remote subnets.
    OnDemand,
    /// The peer.
    Respond,
}

/// What follows when a peer is found dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpdAction {
    /// Negotiate again at once.
    Restart,
    /// Forget the SAs and wait for the peer.
    Clear,
    /// Forget the SAs and wait for traffic.
    Hold,
}

/// One tunnel, with the gateway and the peer that it names looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its name.
    pub name: String,
    /// Whether it is to be up at all.
    pub enabled: bool,
    /// Our address; where the peer's is not known beforehand, the gateway's first.
    pub local: IpAddr,
    /// The gateway's address of the other family, for a peer whose address is not known beforehand.
    pub other_local: Option<IpAddr>,
    /// The peer's name in the configuration.
    pub peer_name: String,
    /// Where the peer is.
    pub peer: PeerAddress,
    /// What we call ourselves.
    pub local_id: Id,
    /// What the peer must call itself.
    pub peer_id: Id,
    /// What is protected on our side; everything in routing mode `route`.
    pub local_subnets: Vec<Subnet>,
    /// What is protected on the peer's side; everything in routing mode `route`.
    pub remote_subnets: Vec<Subnet>,
    /// What is sent through it in routing mode `route`, by destination; `None` in mode `protected`.
    pub routes: Option<Vec<Subnet>>,
    /// The pre-shared key; its `Debug` does not show it.
    pub psk: Psk,
    /// Who begins.
    pub start: Start,
    /// NAT traversal.
    pub nat_t: NatT,
    /// Largest outer packet in bytes; `None` takes the interface's MTU.
    pub mtu: Option<u16>,
    /// Largest inner TCP segment in bytes; `None` derives it from the MTU.
    pub mss_clamp: Option<u16>,
    /// Phase 1.
    pub ike: IkePolicy,
    /// Whether the IKE SA is begun without a Child SA.
    pub childless: bool,
    /// A post-quantum pre-shared key; its `Debug` does not show it.
    pub ppk: Option<Ppk>,
    /// Phase 2.
    pub ipsec: IpsecPolicy,
    /// Packets after which a Child SA ends.
    pub lifetime_packets: Option<u64>,
    /// Anti-replay window in packets, 0 for off.
    pub replay_window: u16,
    /// Dead peer detection, if it is on.
    pub dpd: Option<Dpd>,
    /// What follows when it strikes.
    pub dpd_action: DpdAction,
    /// How it is found out whether anything answers at the other end, if it is.
    pub health_check: Option<HealthCheck>,
    /// Its own alarm template; `None` is the gateway's.
    pub alarm_template: Option<String>,
    /// BGP with the peer, by which it is known what is sent through the tunnel, within its routes.
    pub bgp: Option<Box<Bgp>>,
}

/// Tunnels to the same networks that back each other up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Who of the members carries what.
    pub mode: GroupMode,
    /// The names of its tunnels, in the order of preference.
    pub members: Vec<String>,
}

/// Who of a group's members carries what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupMode {
    /// The first healthy one carries everything.
    ActiveStandby,
    /// Flows are spread over the healthy ones.
    ActiveActive,
}

impl GroupMode {
    pub(crate) const ALL: [GroupMode; 2] = [GroupMode::ActiveStandby, GroupMode::ActiveActive];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            GroupMode::ActiveStandby => "active-standby",
            GroupMode::ActiveActive => "active-active",
        }
    }
}

/// Echo requests (RFC 792, RFC 4443) through a tunnel, by which its health is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Who is asked.
    pub destination: IpAddr,
    /// Where they come from, of the same family.
    pub source: IpAddr,
    /// From one to the next.
    pub interval: Duration,
    /// How many in a row have to fail, or to be answered, to change what is believed.
    pub retries: u32,
    /// Whether the tunnel's routes are withdrawn while nothing answers.
    pub switch_route: bool,
}

impl Tunnel {
    /// The networks that are reached through it.
    pub fn destinations(&self) -> &[Subnet] {
        self.routes.as_deref().unwrap_or(&self.remote_subnets)
    }

    /// The pairs of prefixes it protects: each of ours with each destination of the same family.
    pub fn pairs(&self) -> impl Iterator<Item = (Subnet, Subnet)> {
        self.local_subnets.iter().flat_map(|l| self.pairs_of(*l))
    }

    fn pairs_of(&self, local: Subnet) -> impl Iterator<Item = (Subnet, Subnet)> {
        let pairs = self.destinations().iter().map(move |r| (local, *r));
        pairs.filter(|(l, r)| l.address().is_ipv4() == r.address().is_ipv4())
    }

    /// The same pairs, by the Child SA that is to carry them. IKEv2 negotiates all at once, IKEv1 each pair of subnets for
    /// itself (RFC 2409 section 5.5): in routing mode `route` that is all of a family.
    pub fn groups(&self) -> Vec<Vec<(Subnet, Subnet)>> {
        match (self.ike.version, &self.routes) {
            (Version::Ikev2, _) => vec![self.pairs().collect()],
            (Version::Ikev1, None) => self.pairs().map(|pair| vec![pair]).collect(),
            (Version::Ikev1, Some(_)) => {
                self.local_subnets.iter().map(|l| self.pairs_of(*l).collect()).collect()
            }
        }
    }

    /// By which a later process knows whether the tunnel is configured as it was: the same for all that
    /// [`Tunnel::is_same_traffic`]. As secret as the pre-shared key.
    pub fn fingerprint(&self) -> [u8; 32] {
        let nameless = Tunnel {
            peer_name: String::new(),
            health_check: None,
            alarm_template: None,
            bgp: None,
            ..self.clone()
        };
        let mut hash = Sha256::new();
        // Keys do not show in it.
        hash.update(format!("{nameless:?}"));
        hash.update(self.psk.digest());
        self.ppk.iter().for_each(|ppk| hash.update(ppk.key.digest()));
        hash.finalize().into()
    }

    /// Whether the two differ in nothing but what people call them and the peer, how their health is looked after, BGP,
    /// and what people are told of them: in nothing that is negotiated.
    pub fn is_same_traffic(&self, other: &Tunnel) -> bool {
        let (name, peer_name, health_check) = (self.name.clone(), self.peer_name.clone(), self.health_check);
        let (alarm_template, bgp) = (self.alarm_template.clone(), self.bgp.clone());
        self == &Tunnel { name, peer_name, health_check, alarm_template, bgp, ..other.clone() }
    }

    /// The addresses of ours that the peer may meet, in the gateway's order.
    pub(crate) fn locals(&self) -> impl Iterator<Item = IpAddr> {
        [self.local].into_iter().chain(self.other_local)
    }

    /// Our address for a peer: the one of its family.
    pub(crate) fn local_to(&self, peer: IpAddr) -> IpAddr {
        self.locals().find(|local| local.is_ipv4() == peer.is_ipv4()).unwrap_or(self.local)
    }

    /// The address of ours where strangers choose its key before they say who they are: main mode with a peer from anywhere
    /// (RFC 2409 section 5.4).
    pub(crate) fn strangers_at(&self) -> Option<IpAddr> {
        let main_mode = (self.ike.version, self.ike.mode) == (Version::Ikev1, Mode::Main);
        (main_mode && self.peer == PeerAddress::Any).then_some(self.local)
    }
}

impl Config {
    /// Of no resource at all.
    pub fn of_no_resource(api: Api) -> Config {
        Config {
            gateway: Gateway::none(),
            api,
            tunnels: Vec::new(),
            groups: Vec::new(),
            alarms: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Whether there is any resource in it. A file without one says nothing of what is stored: not that it is to go.
    pub fn names_resources(&self) -> bool {
        // Whatever else there is needs it.
        self.gateway.is_there()
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or [`ConfigError::Invalid`] with everything that is wrong.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        match std::fs::read_to_string(file) {
            Ok(text) => Config::parse(file, &Zeroizing::new(text)),
            Err(source) => Err(ConfigError::Unreadable { file: file.to_owned(), source }),
        }
    }

    /// Reads and checks a text; `file` is what errors call it.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is wrong.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        read_document(file, text, &Objects::default(), &sections::NO_KEYS).map(|(config, _)| config)
    }

    /// As [`Config::parse`] for a file that is to be applied, where a tunnel needs no key: one that nobody else has stands in
    /// for it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn check(file: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file).map(Zeroizing::new);
        let text = text.map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        let keys = Keys { psk: &|_| crate::store::generated_psk().ok(), ppk: &|_| None };
        read_document(file, &text, &Objects::default(), &keys).map(|(config, _)| config)
    }

    /// The warnings, a line each, led by the file's name.
    pub fn warnings_for(&self, file: &Path) -> String {
        lines(file, &self.warnings)
    }
}

/// Resources as objects.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) gateway: Option<Map<String, Value>>,
    pub(crate) peers: Vec<Map<String, Value>>,
    pub(crate) tunnels: Vec<Map<String, Value>>,
    pub(crate) groups: Vec<Map<String, Value>>,
    pub(crate) alarms: Vec<Map<String, Value>>,
}

/// Reads and checks a text together with those of `beside` that it does not name; the whole, and what the text itself has.
/// Of a text that names no resource there is no whole: it has none, whatever is beside it.
///
/// # Errors
/// As [`Config::parse`].
pub(crate) fn read_document(
    file: &Path,
    text: &str,
    beside: &Objects,
    keys: &Keys<'_>,
) -> Result<(Config, Objects), ConfigError> {
    let invalid = |problems| ConfigError::Invalid { file: file.to_owned(), problems };
    let document = document(file, text)?;
    let objects = |name: &str| -> Vec<Map<String, Value>> {
        let tables = document.get(name).and_then(Item::as_array_of_tables).into_iter().flatten();
        tables.map(|table| tree::object(table)).collect()
    };
    let gateway = document.get("gateway").and_then(Item::as_table_like).map(tree::object);
    let ours = Objects {
        gateway,
        peers: objects("peer"),
        tunnels: objects("tunnel"),
        groups: objects("group"),
        alarms: objects("alarm"),
    };
    let others = |ours: &[Map<String, Value>], beside: &[Map<String, Value>]| -> Vec<Table> {
        let named: BTreeSet<_> = ours.iter().filter_map(|object| object.get("name")?.as_str()).collect();
        let is_other = |object: &&Map<String, Value>| {
            object.get("name").and_then(Value::as_str).is_none_or(|name| !named.contains(name))
        };
        beside.iter().filter(is_other).map(tree::table).collect()
    };
    let (peers, tunnels) = (others(&ours.peers, &beside.peers), others(&ours.tunnels, &beside.tunnels));
    let (groups, alarms) = (others(&ours.groups, &beside.groups), others(&ours.alarms, &beside.alarms));
    let gateway = beside.gateway.as_ref().filter(|_| ours.gateway.is_none()).map(tree::table);
    let source = Source::new(text);
    let read = {
        let root = Section::new(&source, "", Some(document.as_table()), Some(0..0));
        let mut parts = sections::Parts::of(root);
        let section = |table, name| Section::new(&source, name, Some(table as &dyn TableLike), None);
        if Kind::ALL.iter().any(|kind| document.contains_key(kind.word())) {
            if let Some(gateway) = &gateway {
                parts.gateway = section(gateway, "gateway");
            }
            parts.peers.extend(peers.iter().map(|table| section(table, "peer")));
            parts.tunnels.extend(tunnels.iter().map(|table| section(table, "tunnel")));
            parts.groups.extend(groups.iter().map(|table| section(table, "group")));
            parts.alarms.extend(alarms.iter().map(|table| section(table, "alarm")));
            sections::read(parts, keys)
        } else {
            sections::api(parts.api).map(Config::of_no_resource)
        }
    };
    let (problems, warnings) = source.into_diagnostics();
    match read {
        Some(read) if problems.is_empty() => Ok((Config { warnings, ..read }, ours)),
        _ => Err(invalid(problems)),
    }
}

/// A text as TOML.
///
/// # Errors
/// [`ConfigError::Invalid`]: it is none.
fn document<'t>(file: &Path, text: &'t str) -> Result<Document<&'t str>, ConfigError> {
    Document::parse(text).map_err(|e| {
        // Only the message: the rest of what the parser says quotes the line, which may hold a key.
        let at = Diagnostic::at(text, Some(&e.span().unwrap_or(0..0)), "");
        let message = format!("not TOML: {}", e.message().lines().collect::<Vec<_>>().join(", "));
        ConfigError::Invalid { file: file.to_owned(), problems: vec![Diagnostic { message, ..at }] }
    })
}
