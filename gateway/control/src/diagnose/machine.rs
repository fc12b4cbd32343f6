//! What this machine says at the moment: its interfaces, its addresses, its ways.

use super::{Finding, Severity};
use crate::{routes::DEVICE, status::TunnelStatus};
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags},
        route::{RouteAttribute, RouteType},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use tokio::time::timeout;

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// UDP ports of IKE.
const PORTS: [u16; 2] = [500, 4500];

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// Interfaces by name: whether each is up and has a carrier.
    pub(super) links: BTreeMap<String, bool>,
    /// Its own addresses.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// The way to the peer, or why there is none; `None` where nobody asked, or the kernel did not tell.
    pub(super) way: Option<Result<Way, String>>,
    /// UDP ports of IKE that nobody listens on; `None` where the kernel does not tell.
    pub(super) deaf: Option<Vec<u16>>,
}

/// Where packets to an address go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// By this interface.
    pub(super) interface: String,
    /// Whether it is this machine itself.
    pub(super) is_local: bool,
}

impl Machine {
    /// Looks, on the way from our address to the peer's. `None` where the kernel does not tell.
    pub(crate) async fn look(local: IpAddr, peer: Option<IpAddr>) -> Option<Machine> {
        match timeout(PATIENCE, look(local, peer)).await {
            Ok(Ok(machine)) => Some(machine),
            Ok(Err(error)) => {
                tracing::debug!("the kernel does not tell of its interfaces: {error}");
                None
            }
            Err(_) => {
                tracing::debug!("the kernel does not tell of its interfaces in time");
                None
            }
        }
    }
}

async fn look(local: IpAddr, peer: Option<IpAddr>) -> std::io::Result<Machine> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    // It ends with the handle.
    tokio::spawn(connection);
    let mut names = BTreeMap::new();
    let mut machine = Machine { deaf: deaf(local), ..Machine::default() };
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await.map_err(std::io::Error::other)? {
        let name = link.attributes.into_iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        if let Some(name) = name {
            let is_up = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
            machine.links.insert(name.clone(), is_up);
            names.insert(link.header.index, name);
        }
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.map_err(std::io::Error::other)? {
        machine.addresses.extend(message.attributes.into_iter().filter_map(|a| match a {
            AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(ip),
            _ => None,
        }));
    }
    if let Some(peer) = peer {
        machine.way = Some(way(&handle, &names, peer).await);
    }
    Ok(machine)
}

/// The way of the kernel to an address, as `ip route get` tells it.
async fn way(handle: &Handle, names: &BTreeMap<u32, String>, to: IpAddr) -> Result<Way, String> {
    let question = match to {
        IpAddr::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).build(),
        IpAddr::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128).build(),
    };
    let mut answers = handle.route().get(question).execute();
    let answer = answers.try_next().await.map_err(|e| e.to_string())?;
    let answer = answer.ok_or_else(|| "no route".to_owned())?;
    let index = answer.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    match answer.header.kind {
        RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit => Err("unreachable".to_owned()),
        kind => Ok(Way {
            interface: index.and_then(|i| names.get(&i).cloned()).unwrap_or_default(),
            is_local: kind == RouteType::Local,
        }),
    }
}

/// The ports of IKE that no socket of this machine has at `local`.
fn deaf(local: IpAddr) -> Option<Vec<u16>> {
    let (file, address) = match local {
        IpAddr::V4(ip) => ("/proc/net/udp", hex(&ip.octets())),
        IpAddr::V6(ip) => ("/proc/net/udp6", hex(&ip.octets())),
    };
    let table = fs::read_to_string(file).ok()?;
    let any = "0".repeat(address.len());
    let listens = |port: u16| {
        let wanted = [format!("{address}:{port:04X}"), format!("{any}:{port:04X}")];
        table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .any(|at| wanted.iter().any(|w| w == at))
    };
    Some(PORTS.into_iter().filter(|port| !listens(*port)).collect())
}

/// An address as /proc writes it: words of 32 bits in the machine's own order.
fn hex(octets: &[u8]) -> String {
    let word = |w: &[u8]| u32::from_ne_bytes([w[0], w[1], w[2], w[3]]);
    octets.chunks_exact(4).map(|w| format!("{:08X}", word(w))).collect()
}

/// What stands in a tunnel's way on this machine.
pub(super) fn findings(machine: &Machine, tunnel: &TunnelStatus, wan: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wrong = |about: &str, words: String| Finding::new(Severity::Error, about, words);
    if !machine.addresses.is_empty() && !machine.addresses.contains(&tunnel.local) {
        findings.push(
            wrong("address", format!("{} is no address of this machine", tunnel.local))
                .remedy("give it to the WAN interface, or set gateway.address to one that is there")
                .field("gateway.address", tunnel.local),
        );
    }
    for (name, what) in [(wan, "the WAN interface"), (DEVICE, "the data plane's device")] {
        let words = match machine.links.get(name) {
            Some(true) => continue,
            Some(false) => format!("{what} {name} is down"),
            None if machine.links.is_empty() => continue,
            None => format!("{what} {name} is not there"),
        };
        findings.push(if name == wan {
            wrong("interface", words).remedy("plug it in, or take it up").field("gateway.wan", name)
        } else {
            wrong("interface", words).remedy("start the data plane")
        });
    }
    if let Some(deaf) = machine.deaf.as_ref().filter(|deaf| !deaf.is_empty()) {
        let ports: Vec<_> = deaf.iter().map(u16::to_string).collect();
        let words = format!("nobody listens on UDP port {} of {}", ports.join(", "), tunnel.local);
        findings.push(wrong("socket", words).remedy("restart the gateway and look at its log"));
    }
    findings.extend(machine.way.as_ref().and_then(|way| wrong_way(way, tunnel, wan)));
    findings
}

fn wrong_way(way: &Result<Way, String>, tunnel: &TunnelStatus, wan: &str) -> Option<Finding> {
    let peer = tunnel.remote?;
    let (severity, words, remedy) = match way {
        Err(why) => (
            Severity::Error,
            format!("this machine has no way to the peer {peer}: {why}"),
            format!("add a route to it by {wan}"),
        ),
        Ok(way) if way.interface == DEVICE => (
            Severity::Error,
            format!("the way to the peer {peer} leads into the tunnel itself"),
            "take the peer's address out of remote_subnets, or add a more specific route to it".to_owned(),
        ),
        Ok(way) if way.is_local => (
            Severity::Error,
            format!("the peer's address {peer} is this machine's own"),
            "set the peer's address to that of the other gateway".to_owned(),
        ),
        Ok(way) if way.interface != wan => (
            Severity::Warning,
            format!("the way to the peer {peer} leaves by {}, not by {wan}", way.interface),
            format!("route it by {wan}, or set gateway.wan to {}", way.interface),
        ),
        Ok(_) => return None,
    };
    Some(Finding::new(severity, "route", words).remedy(remedy).field("peer", peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_bound_is_found() {
        let ip: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(hex(&[127, 0, 0, 1]), format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1])));
        let table = fs::read_to_string("/proc/net/udp").unwrap();
        let socket = std::net::UdpSocket::bind((ip, 0)).unwrap();
        let wanted = format!("{}:{:04X}", hex(&[127, 0, 0, 1]), socket.local_addr().unwrap().port());
        assert!(!table.contains(&wanted));
        assert!(fs::read_to_string("/proc/net/udp").unwrap().contains(&wanted));
    }

    #[tokio::test]
    async fn loopback_is_up_and_leads_to_itself() {
        let ip: IpAddr = "127.0.0.1".parse().unwrap();
        let machine = Machine::look(ip, Some(ip)).await.unwrap();
        assert_eq!(machine.links.get("lo"), Some(&true));
        assert!(machine.addresses.contains(&ip));
        assert_eq!(machine.way, Some(Ok(Way { interface: "lo".into(), is_local: true })));
    }
}
