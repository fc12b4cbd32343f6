//! The ready-made networks.
//!
//! ```text
//!  host A ─── gateway A ─── router ─── gateway B ─── host B
//!  10.1.0.2   10.1.0.1      192.0.2.254              10.2.0.2
//!             192.0.2.1     198.51.100.254  198.51.100.1, 10.2.0.1
//! ```
//!
//! The router knows the way to both sites' inner networks, as no real one would: what a gateway lets out in clear
//! arrives, and the tests see it.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use crate::namespace::{Namespace, link};
use crate::run::Run;

/// Gateway A on the WAN; behind NAT it is what the router shows to the outside.
pub const GATEWAY_A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Gateway A's own WAN address in the topology with NAT.
pub const GATEWAY_A_BEHIND_NAT: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);
/// Gateway B on the WAN.
pub const GATEWAY_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Gateway B's own WAN address in topologies where it is behind NAT.
pub const GATEWAY_B_BEHIND_NAT: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 1);
/// The router on B's side; with NAT, where A's packets seem to come from.
pub const ROUTER_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
/// Host A.
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// Host B.
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
/// Gateway A on its LAN.
pub const LAN_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Gateway B on its LAN.
pub const LAN_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// Site A's protected prefix.
pub const SUBNET_A: &str = "10.1.0.0/24";
/// Site B's protected prefix.
pub const SUBNET_B: &str = "10.2.0.0/24";
/// Everything behind gateway A, as the router knows it.
pub const INNER_A: &str = "10.1.0.0/16";
/// Everything behind gateway B.
pub const INNER_B: &str = "10.2.0.0/16";
/// The router's interface towards gateway A.
pub const TO_A: &str = "to-a";
/// The router's interface towards gateway B.
pub const TO_B: &str = "to-b";
/// A gateway's interface towards the router.
pub const WAN: &str = "wan";
/// A gateway's interface towards its host.
pub const LAN: &str = "lan";

/// The IPv6 addresses of one side, where [`Topology::add_ipv6`] has given them.
#[derive(Clone, Copy, Debug)]
pub struct Side6 {
    /// The gateway's, on the WAN.
    pub gateway: &'static str,
    /// The router's towards the gateway.
    pub router: &'static str,
    /// The gateway's, on the LAN.
    pub lan: &'static str,
    /// The host's.
    pub host: &'static str,
    /// The prefix behind the gateway.
    pub subnet: &'static str,
}

/// Side A.
pub const SIDE_A6: Side6 = Side6 {
    gateway: "2001:db8:a::1",
    router: "2001:db8:a::fe",
    lan: "2001:db8:1::1",
    host: "2001:db8:1::2",
    subnet: "2001:db8:1::/64",
};

/// Side B.
pub const SIDE_B6: Side6 = Side6 {
    gateway: "2001:db8:b::1",
    router: "2001:db8:b::fe",
    lan: "2001:db8:2::1",
    host: "2001:db8:2::2",
    subnet: "2001:db8:2::/64",
};

/// Names that [`Topology::by_name`] knows, with what they are.
pub const NAMES: [(&str, &str); 2] = [
    ("two-sites", "two sites with a router between their gateways"),
    ("nat", "the same, gateway A behind NAT"),
];

/// Two sites with a router in between.
#[derive(Debug)]
pub struct Topology {
    /// A machine of site A.
    pub host_a: Namespace,
    /// The gateway of site A.
    pub gateway_a: Namespace,
    /// The Internet.
    pub router: Namespace,
    /// The gateway of site B.
    pub gateway_b: Namespace,
    /// A machine of site B.
    pub host_b: Namespace,
    /// Gateway A's own WAN address.
    pub address_a: Ipv4Addr,
    /// Gateway B's own WAN address.
    pub address_b: Ipv4Addr,
    run: Run,
}

impl Topology {
    /// Both gateways have public addresses.
    ///
    /// # Errors
    /// Not root, or `ip` failed.
    pub fn two_sites(run: Run) -> Result<Topology> {
        let topology = Topology::joined(run, GATEWAY_A, GATEWAY_B)?;
        topology.route_inner()?;
        Ok(topology)
    }

    /// Gateway A has a private address, which the router hides behind its own. The router lets neither ESP nor
    /// anything that A did not ask for through.
    ///
    /// # Errors
    /// Not root, or `ip` or `nft` failed.
    pub fn behind_nat(run: Run) -> Result<Topology> {
        let topology = Topology::joined(run, GATEWAY_A_BEHIND_NAT, GATEWAY_B)?;
        let rules = format!(
            "table ip nat {{
               chain out {{
                 type nat hook postrouting priority 100
                 oifname \"{TO_B}\" masquerade random
               }}
             }}
             table ip filter {{
               chain pass {{
                 type filter hook forward priority 0
                 ip protocol {{ esp, ah }} drop
                 iifname \"{TO_B}\" ct state new drop
               }}
             }}
            "
        );
        topology.translate(&rules)?;
        Ok(topology)
    }

    /// Either gateway or both behind NAT that forwards IKE to it: the one behind NAT is reached at the same public address
    /// as in [`Topology::two_sites`], and its packets come from there, from a random port. ESP and AH do not pass.
    ///
    /// # Errors
    /// Not root, or `ip` or `nft` failed.
    pub fn forwarded(run: Run, hide_a: bool, hide_b: bool) -> Result<Topology> {
        let own = |hidden, behind, public| if hidden { behind } else { public };
        let address_a = own(hide_a, GATEWAY_A_BEHIND_NAT, GATEWAY_A);
        let address_b = own(hide_b, GATEWAY_B_BEHIND_NAT, GATEWAY_B);
        let topology = Topology::joined(run, address_a, address_b)?;
        topology.route_inner()?;
        let (mut inward, mut outward) = (String::new(), String::new());
        for (hidden, public, behind, others) in
            [(hide_a, GATEWAY_A, address_a, TO_B), (hide_b, GATEWAY_B, address_b, TO_A)]
        {
            if hidden {
                topology.router.ip(&["address", "add", &format!("{public}/32"), "dev", "lo"])?;
                inward += &format!("ip daddr {public} udp dport {{ 500, 4500 }} dnat to {behind}\n");
                outward += &format!("oifname \"{others}\" ip saddr {behind} snat to {public} random\n");
            }
        }
        topology.translate(&format!(
            "table ip nat {{
               chain inward {{
                 type nat hook prerouting priority -100
                 {inward}
               }}
               chain outward {{
                 type nat hook postrouting priority 100
                 {outward}
               }}
             }}
             table ip filter {{
               chain pass {{
                 type filter hook forward priority 0
                 ip protocol {{ esp, ah }} drop
               }}
             }}
            "
        ))?;
        Ok(topology)
    }

    /// Tells the router the way to both inner networks, as no real one would know it: what leaks arrives.
    fn route_inner(&self) -> Result<()> {
        for (gateway, nets) in [(self.address_a, INNER_A), (self.address_b, INNER_B)] {
            self.router.ip(&["route", "add", nets, "via", &gateway.to_string()])?;
        }
        Ok(())
    }

    fn translate(&self, rules: &str) -> Result<()> {
        let file = self.run.directory().join("nat.nft");
        std::fs::write(&file, rules)?;
        self.router.run("nft", &["-f", &file.to_string_lossy()]).map(|_| ())
    }

    /// The topology of this name.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be made.
    pub fn by_name(name: &str, run: Run) -> Result<Topology> {
        match name {
            "two-sites" => Topology::two_sites(run),
            "nat" => Topology::behind_nat(run),
            _ => {
                bail!("there is no topology {name:?}; there are: {}", NAMES.map(|(name, _)| name).join(", "))
            }
        }
    }

    /// The run that it belongs to.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Every host, with the name it goes by.
    pub fn hosts(&self) -> [(&'static str, &Namespace); 5] {
        [
            ("host A", &self.host_a),
            ("gateway A", &self.gateway_a),
            ("router", &self.router),
            ("gateway B", &self.gateway_b),
            ("host B", &self.host_b),
        ]
    }

    /// Leaves it up after this process.
    pub fn keep(mut self) {
        self.run.keep();
    }

    /// Removes it.
    ///
    /// # Errors
    /// Something is still there: it is named.
    pub fn end(self) -> Result<()> {
        self.run.end()
    }

    /// Gives every host an IPv6 address beside its IPv4 one, routed alike.
    ///
    /// # Errors
    /// `ip` or `sysctl` failed.
    pub fn add_ipv6(&self) -> Result<()> {
        for (_, namespace) in self.hosts() {
            let settings = ["net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.all.forwarding=1"];
            namespace.sysctl(&settings)?;
        }
        let sides =
            [(&self.host_a, &self.gateway_a, TO_A, SIDE_A6), (&self.host_b, &self.gateway_b, TO_B, SIDE_B6)];
        for (host, gateway, to_gateway, side) in sides {
            let add = |namespace: &Namespace, address: &str, interface: &str| {
                namespace.ip(&["address", "add", &format!("{address}/64"), "dev", interface, "nodad"])
            };
            let default = |namespace: &Namespace, via: &str| {
                namespace.ip(&["-6", "route", "add", "default", "via", via])
            };
            add(gateway, side.gateway, WAN)?;
            add(&self.router, side.router, to_gateway)?;
            add(gateway, side.lan, LAN)?;
            add(host, side.host, "eth0")?;
            default(gateway, side.router)?;
            default(host, side.lan)?;
        }
        Ok(())
    }

    fn joined(run: Run, address_a: Ipv4Addr, address_b: Ipv4Addr) -> Result<Topology> {
        let [host_a, gateway_a, router, gateway_b, host_b] =
            ["ha", "ga", "rt", "gb", "hb"].map(|host| Namespace::create(&run, host));
        let topology = Topology {
            host_a: host_a?,
            gateway_a: gateway_a?,
            router: router?,
            gateway_b: gateway_b?,
            host_b: host_b?,
            address_a,
            address_b,
            run,
        };
        topology.connect()?;
        Ok(topology)
    }

    fn connect(&self) -> Result<()> {
        for (_, namespace) in self.hosts() {
            // Set before the links exist, so that each interface takes them over as it comes.
            let quiet = ["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"];
            namespace.sysctl(&quiet)?;
        }
        for gateway in [&self.gateway_a, &self.router, &self.gateway_b] {
            gateway.sysctl(&["net.ipv4.ip_forward=1"])?;
        }
        let prefixed = |address: Ipv4Addr| format!("{address}/24");
        let (router_a, router_b) = (router_of(self.address_a), router_of(self.address_b));
        let (a, b) = (prefixed(self.address_a), prefixed(self.address_b));
        link((&self.gateway_a, WAN, &a), (&self.router, TO_A, &prefixed(router_a)))?;
        link((&self.gateway_b, WAN, &b), (&self.router, TO_B, &prefixed(router_b)))?;
        link((&self.gateway_a, LAN, &prefixed(LAN_A)), (&self.host_a, "eth0", &prefixed(HOST_A)))?;
        link((&self.gateway_b, LAN, &prefixed(LAN_B)), (&self.host_b, "eth0", &prefixed(HOST_B)))?;
        let default = |namespace: &Namespace, via: Ipv4Addr| {
            namespace.ip(&["route", "add", "default", "via", &via.to_string()])
        };
        default(&self.gateway_a, router_a)?;
        default(&self.gateway_b, router_b)?;
        default(&self.host_a, LAN_A)?;
        default(&self.host_b, LAN_B)?;
        for host in [&self.host_a, &self.host_b] {
            // A veth leaves TCP checksums to a card that is not there; XDP would forward them unfinished.
            host.run("ethtool", &["-K", "eth0", "tx", "off"])?;
        }
        Ok(())
    }
}

/// The router's address in a gateway's network.
pub fn router_of(gateway: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = gateway.octets();
    Ipv4Addr::new(a, b, c, 254)
}
