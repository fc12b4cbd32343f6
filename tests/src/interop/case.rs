//! A case: who meets whom, how each end is configured, and what must hold. The configurations of both ends are made here.

use std::fmt::{self, Write as _};
use std::path::Path;

use anyhow::Result;

use crate::adit::METRICS;
use crate::interop::proposal::Proposal;
use crate::topology::{GATEWAY_A, GATEWAY_B, LAN, SUBNET_A, SUBNET_B, Topology, WAN};

/// The key both ends hold unless a case says otherwise.
pub const PSK: &str = "open-sesame-with-32-characters-1";

/// Name of the one tunnel on Adit's side.
pub const TUNNEL: &str = "net";

/// The peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// strongSwan 5.9 in a namespace.
    Swan5,
    /// strongSwan 6.0 in a Debian 13.
    Swan6,
    /// strongSwan 5.9 on a kernel with IPsec.
    Kernel,
}

/// What is between the gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Network {
    /// A router.
    Direct,
    /// NAT in front of Adit.
    NatAdit,
    /// NAT in front of the peer.
    NatPeer,
    /// NAT in front of both.
    NatBoth,
}

/// IKE's version and mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// IKEv2.
    V2,
    /// IKEv1, main mode.
    Main,
    /// IKEv1, aggressive mode.
    Aggressive,
}

/// Who sends the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Adit.
    Initiates,
    /// The peer.
    Responds,
}

/// What is rekeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sa {
    /// The Child SA.
    Child,
    /// The IKE SA.
    Ike,
}

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Adit.
    Adit,
    /// The peer.
    Peer,
}

/// What a case shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Shows {
    /// Pings both ways, then a DELETE that leaves nothing.
    Traffic,
    /// The same, with TCP streams both ways.
    Tcp,
    /// Pings between every pair of hosts, one in each pair of subnets.
    Subnets,
    /// Datagrams both ways while SAs are replaced: none lost.
    Rekey(Side, Sa),
    /// Datagrams both ways while each side in turn replaces what it can: none lost.
    RekeyAll,
    /// One side authenticates anew, with datagrams both ways: none lost.
    Reauthenticate(Side),
    /// Datagrams both ways where the peer takes part of Adit's subnets; nothing of the rest leaves Adit.
    Narrowed,
    /// The peer sends DELETE: nothing leaves in clear, and the tunnel comes again.
    PeerDeletes,
    /// The peer is killed: found dead, nothing leaves in clear, and it comes again when the peer does.
    PeerDies,
    /// No tunnel; Adit's status or log says one of these words.
    Mismatch(&'static [&'static str]),
    /// The tunnel, and all of this in the peer's log.
    PeerLogs(&'static [&'static str]),
    /// The peer asks for a cookie.
    Cookie,
    /// The peer moves to another address.
    Moves,
}

/// One end's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Version and mode.
    pub version: Version,
    /// Phase 1, as strongSwan writes it.
    pub ike: &'static str,
    /// Phase 2, as strongSwan writes it; the group is for PFS.
    pub esp: &'static str,
    /// AH instead of ESP.
    pub ah: bool,
    /// The key.
    pub psk: &'static str,
    /// What it calls itself; its own address if `None`.
    pub id: Option<&'static str>,
    /// What it expects the other to call itself; the other's own address if `None`.
    pub peer_id: Option<&'static str>,
    /// Adit's subnets.
    pub subnets_a: Vec<&'static str>,
    /// The peer's subnets.
    pub subnets_b: Vec<&'static str>,
    /// Lines added to `[tunnel]`, `[tunnel.ike]`, `[tunnel.ipsec]`, `[tunnel.dpd]`, after the tunnel, and the peer's
    /// address (Adit), or to the connection, the child, the secrets, beside the connection (strongSwan).
    pub more: Vec<(&'static str, &'static str)>,
}

impl End {
    /// An end that speaks this, with everything else as usual.
    pub fn new(version: Version, ike: &'static str, esp: &'static str) -> End {
        End {
            version,
            ike,
            esp,
            ah: false,
            psk: PSK,
            id: None,
            peer_id: None,
            subnets_a: vec![SUBNET_A],
            subnets_b: vec![SUBNET_B],
            more: Vec::new(),
        }
    }

    fn lines(&self, place: &str) -> String {
        let here = self.more.iter().filter(|(at, _)| *at == place);
        here.fold(String::new(), |text, (_, line)| text + line + "\n")
    }
}

/// A case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Which part of the matrix it belongs to.
    pub group: &'static str,
    /// What it is called within the group, beside version, role and network.
    pub name: String,
    /// The peer.
    pub peer: Peer,
    /// What is between the gateways.
    pub network: Network,
    /// Who begins.
    pub role: Role,
    /// Adit.
    pub adit: End,
    /// The peer.
    pub swan: End,
    /// Added to charon's settings; such a charon serves only cases with the same.
    pub settings: &'static str,
    /// Added to Adit's `[gateway]`; likewise.
    pub gateway: &'static str,
    /// What must hold.
    pub shows: Shows,
}

impl Case {
    /// A case in which both ends are configured alike.
    pub fn new(group: &'static str, role: Role, end: End, shows: Shows) -> Case {
        Case {
            group,
            name: String::new(),
            peer: Peer::Swan5,
            network: Network::Direct,
            role,
            adit: end.clone(),
            swan: end,
            settings: "",
            gateway: "",
            shows,
        }
    }

    /// The name it is selected by.
    pub fn full_name(&self) -> String {
        let mut name = format!("{}/{}", self.group, self.adit.version);
        if self.swan.version != self.adit.version {
            let _ = write!(name, "-{}", self.swan.version);
        }
        let _ = write!(name, "/{}", self.role);
        for part in [self.peer.tag(), self.network.tag(), &self.name] {
            if !part.is_empty() {
                let _ = write!(name, "/{part}");
            }
        }
        name
    }

    /// Adit's configuration file, with its files in `directory`.
    ///
    /// # Errors
    /// A proposal has no counterpart in Adit's configuration.
    pub fn adit_toml(&self, topology: &Topology, directory: &Path) -> Result<String> {
        let end = &self.adit;
        let (ike, esp) = (Proposal::parse(end.ike)?, Proposal::parse(end.esp)?);
        let mut text = gateway(topology, directory, self.gateway);
        let own = topology.address_a.to_string();
        let peer = topology.address_b.to_string();
        let start = if self.role == Role::Initiates { "immediate" } else { "respond" };
        let list = |subnets: &[&str]| format!("{subnets:?}");
        let _ = write!(
            text,
            "[[peer]]\nname = \"b\"\naddress = \"{}\"\n\n[[tunnel]]\nname = \"{TUNNEL}\"\npeer = \"b\"\n\
             local_subnets = {}\nremote_subnets = {}\npsk = \"{}\"\nstart = \"{start}\"\n{}\n",
            end.more
                .iter()
                .find(|(at, _)| *at == "address")
                .map_or(GATEWAY_B.to_string(), |(_, to)| (*to).to_owned()),
            list(&end.subnets_a),
            list(&end.subnets_b),
            end.psk,
            end.lines("tunnel"),
        );
        let mut field = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                let _ = writeln!(text, "{name} = \"{value}\"");
            }
        };
        field("[tunnel.ike]\nlocal_id", Some(end.id.unwrap_or(&own)));
        field("peer_id", Some(end.peer_id.unwrap_or(&peer)));
        field("encryption", Some(&ike.encryption));
        field("integrity", ike.integrity.as_deref());
        field("prf", ike.prf.as_deref());
        match end.version {
            Version::V2 => {}
            Version::Main => field("version", Some("ikev1")),
            Version::Aggressive => field("version = \"ikev1\"\nmode", Some("aggressive")),
        }
        if let Some(group) = ike.group {
            let _ = writeln!(text, "dh = {group}");
        }
        if let Some(additional) = &ike.additional {
            let _ = writeln!(text, "additional_ke = [\"{additional}\"]");
        }
        let _ = write!(text, "{}\n[tunnel.ipsec]\n", end.lines("ike"));
        let mut field = |name: &str, value: &str| {
            let _ = writeln!(text, "{name} = {value}");
        };
        if end.ah {
            field("protocol", "\"ah\"");
        } else {
            field("encryption", &format!("\"{}\"", esp.encryption));
        }
        if let Some(integrity) = &esp.integrity {
            field("integrity", &format!("\"{integrity}\""));
        }
        field("pfs", &esp.group.map_or("\"disabled\"".to_owned(), |group| group.to_string()));
        field("esn", &esp.esn.unwrap_or(false).to_string());
        let after = end.lines("after");
        let _ = write!(text, "{}\n[tunnel.dpd]\n{}\n{after}", end.lines("ipsec"), end.lines("dpd"));
        Ok(text)
    }

    /// strongSwan's swanctl.conf.
    pub fn swanctl_conf(&self, topology: &Topology) -> String {
        let end = &self.swan;
        let (own, peer) = (topology.address_b.to_string(), topology.address_a.to_string());
        let version = if end.version == Version::V2 { 2 } else { 1 };
        let aggressive = if end.version == Version::Aggressive { "yes" } else { "no" };
        let what = if end.ah { "ah_proposals" } else { "esp_proposals" };
        let mut children = String::new();
        let mut child = |name: &str, local: &str, remote: &str| {
            let more = end.lines("child");
            let _ = write!(
                children,
                "{name} {{\nlocal_ts = {local}\nremote_ts = {remote}\n{what} = {}\nmode = tunnel\n{more}}}\n",
                end.esp
            );
        };
        if end.version == Version::V2 || end.subnets_a.len() * end.subnets_b.len() == 1 {
            child(TUNNEL, &end.subnets_b.join(","), &end.subnets_a.join(","));
        } else {
            // IKEv1 carries one pair in a quick mode, and strongSwan asks for the first of a child only.
            let pairs = end.subnets_b.iter().flat_map(|b| end.subnets_a.iter().map(move |a| (b, a)));
            for (number, (b, a)) in pairs.enumerate() {
                child(&format!("{TUNNEL}{number}"), b, a);
            }
        }
        format!(
            "connections {{ {}{TUNNEL} {{\nversion = {version}\naggressive = {aggressive}\n{}\n\
             remote_addrs = {GATEWAY_A}\nproposals = {}\n{}local {{\nauth = psk\nid = {}\n}}\n\
             remote {{\nauth = psk\nid = {}\n}}\nchildren {{\n{children}}}\n}} }}\n\
             secrets {{ ike-net {{ secret = \"{}\" }}\n{} }}\n",
            end.lines("connections"),
            // One that moves takes whichever address it has.
            if self.shows == Shows::Moves { String::new() } else { format!("local_addrs = {own}") },
            end.ike,
            end.lines("connection"),
            end.id.unwrap_or(&own),
            end.peer_id.unwrap_or(&peer),
            end.psk,
            end.lines("secrets"),
        )
    }

    /// Names of the peer's children.
    pub fn children(&self) -> Vec<String> {
        let pairs = self.swan.subnets_a.len() * self.swan.subnets_b.len();
        match self.swan.version {
            Version::V2 => vec![TUNNEL.to_owned()],
            _ if pairs == 1 => vec![TUNNEL.to_owned()],
            _ => (0..pairs).map(|number| format!("{TUNNEL}{number}")).collect(),
        }
    }
}

/// Adit's configuration without a tunnel, with `more` in `[gateway]`.
pub fn gateway(topology: &Topology, directory: &Path, more: &str) -> String {
    format!(
        "[gateway]\nname = \"a\"\naddress = \"{}\"\nwan = \"{WAN}\"\nlan = [\"{LAN}\"]\n{more}\n\n[api]\n\
         socket = \"{}/adit.sock\"\nmetrics = \"{METRICS}\"\n\n",
        topology.address_a,
        directory.display()
    )
}

impl Peer {
    fn tag(self) -> &'static str {
        match self {
            Peer::Swan5 => "",
            Peer::Swan6 => "strongswan6",
            Peer::Kernel => "kernel",
        }
    }
}

impl Network {
    fn tag(self) -> &'static str {
        match self {
            Network::Direct => "",
            Network::NatAdit => "nat-before-adit",
            Network::NatPeer => "nat-before-peer",
            Network::NatBoth => "nat-before-both",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V2 => "ikev2",
            Version::Main => "ikev1-main",
            Version::Aggressive => "ikev1-aggressive",
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Role::Initiates { "adit-initiates" } else { "adit-responds" })
    }
}
