//! The two sites of a soak: their tunnels, subnets and configurations.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::thread;

use anyhow::Result;

use super::flows::Flow;
use super::line::interface;
use crate::adit::configuration;
use crate::namespace::Namespace;
use crate::site::Site;
use crate::topology::{HOST_A, HOST_B, LAN, LAN_A, LAN_B, SIDE_A6, SIDE_B6, TO_A, TO_B, Topology, WAN};

/// Tunnels, each with two subnets on either side.
pub(super) const TUNNELS: u8 = 24;

/// Workers of a gateway on a machine with as many cores, each with a queue of every interface.
const WORKERS: usize = 2;

/// The IP version between the gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    V4,
    V6,
}

impl Outside {
    /// That of a seed.
    pub(super) fn of(seed: u64) -> Outside {
        if seed.is_multiple_of(2) { Outside::V6 } else { Outside::V4 }
    }

    /// Sites A and B, with addresses of this version outside.
    pub(super) fn sites(self, topology: &Topology) -> [Site; 2] {
        let sites = [Site::a(topology), Site::b(topology)];
        match self {
            Outside::V4 => sites,
            Outside::V6 => sites.map(Site::ipv6_outside),
        }
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outside::V4 => "IPv4",
            Outside::V6 => "IPv6",
        })
    }
}

/// Workers of a gateway on this machine.
pub(super) fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(WORKERS)
}

/// Algorithms of the Child SAs, in turn.
const ESP: [(&str, &str); 4] =
    [("aes256gcm16", ""), ("aes128", "sha256"), ("aes128gcm16", ""), ("aes256", "sha1")];

/// The lifetime of a Child SA: the shortest in seconds that there is, or so many packets, whichever ends first.
const LIFETIME: &str = "lifetime = 60\nlifetime_packets = 4000";
/// That of an IKE SA.
const IKE_LIFETIME: &str = "lifetime = 60";

/// Whether a tunnel has IPv6 inside.
fn is_ipv6(tunnel: u8) -> bool {
    tunnel.is_multiple_of(3)
}

/// The hosts of one site that a tunnel carries, one in each of its subnets. Sites are 1 and 2.
fn hosts(site: u8, tunnel: u8) -> [IpAddr; 2] {
    match is_ipv6(tunnel) {
        true => [0, 1].map(|half| {
            let subnet = u16::from(tunnel + 1) << 1 | half;
            Ipv6Addr::new(0x2001, 0xdb8, site.into(), subnet, 0, 0, 0, 2).into()
        }),
        false => [2, 130].map(|host| Ipv4Addr::new(10, site, tunnel + 1, host).into()),
    }
}

fn subnets(site: u8, tunnel: u8) -> [String; 2] {
    hosts(site, tunnel).map(|host| match host {
        IpAddr::V4(host) => format!("{}/25", Ipv4Addr::from_bits(host.to_bits() & !127)),
        IpAddr::V6(host) => format!("{}/64", Ipv6Addr::from_bits(host.to_bits() >> 64 << 64)),
    })
}

/// The name of a tunnel, the same on both sides.
pub(super) fn name(tunnel: u8) -> String {
    format!("t{tunnel}")
}

/// Every flow from one site to the other.
pub(super) fn flows(from: u8, to: u8) -> Vec<Flow> {
    let of_tunnel = |tunnel| {
        let flow = move |from| hosts(to, tunnel).map(|to| Flow { from, to });
        hosts(from, tunnel).into_iter().flat_map(flow)
    };
    (0..TUNNELS).flat_map(of_tunnel).collect()
}

/// The prefixes of a site's hosts, of either version.
pub(super) const PREFIXES: [[&str; 2]; 2] =
    [["10.1.0.0/16", "2001:db8:1::/48"], ["10.2.0.0/16", "2001:db8:2::/48"]];

/// Gives the hosts their addresses, and tells the gateways the way to them. The hosts say nothing of their own, and count
/// the packets of the other site's as they come in. They know the gateway's MAC addresses for good: what a host drops while
/// it asks for them, as in the second or two that its own IPv6 address takes, is in no counter of its namespace.
pub(super) fn prepare(topology: &Topology) -> Result<()> {
    topology.add_ipv6()?;
    let queues = workers().to_string();
    for (namespace, interfaces) in [
        (&topology.host_a, &["eth0"][..]),
        (&topology.gateway_a, &[LAN, WAN]),
        (&topology.router, &[TO_A, TO_B]),
        (&topology.gateway_b, &[LAN, WAN]),
        (&topology.host_b, &["eth0"]),
    ] {
        for interface in interfaces {
            namespace.run("ethtool", &["-L", interface, "rx", &queues, "tx", &queues])?;
        }
    }
    let sides = [
        (1, &topology.host_a, &topology.gateway_a, (HOST_A, LAN_A), SIDE_A6),
        (2, &topology.host_b, &topology.gateway_b, (HOST_B, LAN_B), SIDE_B6),
    ];
    for (site, host, gateway, (address, lan), side6) in sides {
        let [own, others] = [PREFIXES[site - 1], PREFIXES[2 - site]];
        for address in (0..TUNNELS).flat_map(|tunnel| hosts(site as u8, tunnel)) {
            host.ip(&["address", "add", &address.to_string(), "dev", "lo"])?;
        }
        let mac = interface(gateway, LAN)?.1.map(|octet| format!("{octet:02x}")).join(":");
        for lan in [lan.to_string(), side6.lan.to_owned()] {
            host.ip(&["neighbour", "replace", &lan, "lladdr", &mac, "dev", "eth0", "nud", "permanent"])?;
        }
        gateway.ip(&["route", "add", own[0], "via", &address.to_string(), "dev", LAN])?;
        gateway.ip(&["-6", "route", "add", own[1], "via", side6.host, "dev", LAN])?;
        // What the kernel sends is finished before it is on the line, which looks at nothing.
        gateway.run("ethtool", &["-K", WAN, "tx", "off"])?;
        let rules = format!(
            "table ip soak {{
               counter arrived {{}}
               chain in {{
                 type filter hook prerouting priority -450
                 ip saddr {} ip protocol udp counter name arrived
               }}
               chain out {{
                 type filter hook output priority 0
                 ip protocol icmp drop
               }}
             }}
             table ip6 soak {{
               counter arrived {{}}
               chain in {{
                 type filter hook prerouting priority -450
                 ip6 saddr {} meta l4proto udp counter name arrived
               }}
               chain out {{
                 type filter hook output priority 0
                 icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded }} drop
               }}
             }}
            ",
            others[0], others[1]
        );
        let file = host.logs().join(format!("soak-{site}.nft"));
        std::fs::write(&file, rules)?;
        host.run("nft", &["-f", &file.to_string_lossy()])?;
    }
    Ok(())
}

/// Packets of the other site's hosts that have come to a host, of which either version.
pub(super) fn arrived(host: &Namespace) -> Result<u64> {
    let shown = host.run("nft", &["-json", "list", "counters"])?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let counters = shown["nftables"].as_array().into_iter().flatten();
    Ok(counters.filter_map(|object| object["counter"]["packets"].as_u64()).sum())
}

/// The configuration of a gateway. Each begins every other tunnel.
pub(super) fn text(site: &Site, directory: &Path) -> String {
    let one = configuration(site, directory);
    let begins = one.find("[[tunnel]]").unwrap_or(one.len());
    let mut text = one[..begins].to_owned();
    let (own, other) = if site.name == "a" { (1, 2) } else { (2, 1) };
    for tunnel in 0..TUNNELS {
        let quoted = |subnets: [String; 2]| format!("[\"{}\", \"{}\"]", subnets[0], subnets[1]);
        let (encryption, integrity) = ESP[usize::from(tunnel) % ESP.len()];
        let integrity = match integrity {
            "" => String::new(),
            integrity => format!("integrity = \"{integrity}\"\n"),
        };
        let start = if (tunnel % 2 == 0) == site.initiates { "immediate" } else { "respond" };
        let _ = write!(
            text,
            r#"
[[tunnel]]
name = "{name}"
peer = "{peer}"
local_subnets = {local}
remote_subnets = {remote}
psk = "{psk}"
start = "{start}"

[tunnel.ike]
local_id = "{name}.{own}.example"
peer_id = "{name}.{other}.example"
{IKE_LIFETIME}

[tunnel.ipsec]
encryption = "{encryption}"
{integrity}pfs = "disabled"
{LIFETIME}
"#,
            name = name(tunnel),
            peer = site.peer,
            local = quoted(subnets(own, tunnel)),
            remote = quoted(subnets(other, tunnel)),
            psk = site.psk,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_subnets_of_a_tunnel_has_a_flow_and_no_address_is_in_two() {
        let flows = flows(1, 2);
        assert_eq!(flows.len(), 4 * usize::from(TUNNELS));
        assert!(flows.iter().all(|flow| flow.from.is_ipv4() == flow.to.is_ipv4()));
        assert!(flows.iter().any(|flow| flow.from.is_ipv6()));
        let mut all: Vec<String> = (0..TUNNELS).flat_map(|tunnel| subnets(1, tunnel)).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2 * usize::from(TUNNELS));
        assert_eq!(subnets(2, 1), ["10.2.2.0/25", "10.2.2.128/25"]);
        assert_eq!(subnets(1, 0), ["2001:db8:1:2::/64", "2001:db8:1:3::/64"]);
    }
}
