//! BGP through a tunnel: `[tunnel.bgp]`, the numbers of autonomous systems, and `[gateway.bird]`, where BIRD is.

use super::{
    Subnet,
    reader::{Field, Section},
    sections::parsed,
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

/// Prefixes that a session announces, at most.
pub(crate) const MAX_ANNOUNCED: usize = 255;

/// What the clouds keep for themselves.
const RESERVED: [&str; 7] = [
    "169.254.0.0/30",
    "169.254.1.0/30",
    "169.254.2.0/30",
    "169.254.3.0/30",
    "169.254.4.0/30",
    "169.254.5.0/30",
    "169.254.169.252/30",
];

const ASN: &str = "1..4294967295, or in quotes as \"hi.lo\"";

/// BGP with the peer of a tunnel (RFC 4271), through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// Our autonomous system.
    pub local_asn: u32,
    /// The peer's.
    pub peer_asn: u32,
    /// The network of the two ends: four addresses, of which two are hosts'.
    pub inside_cidr: Subnet,
    /// Our end.
    pub local_ip: Ipv4Addr,
    /// How long the peer may be silent.
    pub hold_time: Duration,
    /// What is announced; empty for the networks of the LAN ports.
    pub announce: Vec<Subnet>,
}

impl Bgp {
    /// The peer's end: the other host of the inside network.
    pub fn peer_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.local_ip) ^ 0b11)
    }

    /// Both ends, ours first.
    pub fn ends(&self) -> (IpAddr, IpAddr) {
        (self.local_ip.into(), self.peer_ip().into())
    }
}

/// Where BIRD is, which speaks BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bird {
    /// The file that is written for it, which its own configuration includes.
    pub file: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
}

impl Default for Bird {
    fn default() -> Self {
        Bird { file: "/run/bird/adit.conf".into(), socket: "/run/bird/bird.ctl".into() }
    }
}

/// What a tunnel with BGP has to be, and whose it is.
pub(super) struct Beside<'a> {
    /// The destinations of routing mode `route`, with the field that gave them.
    pub(super) routes: Option<(Field<'a>, &'a [Subnet])>,
    /// The peer's name and its number, if it has one.
    pub(super) peer: Option<(&'a str, Option<u32>)>,
}

/// Reads `[tunnel.bgp]`.
pub(super) fn bgp(field: &Field<'_>, s: Section<'_>, beside: &Beside<'_>) -> Option<Bgp> {
    let local_asn = s.require("local_asn").and_then(|f| asn(&f));
    let peer_asn = match (s.get("peer_asn"), beside.peer) {
        (Some(f), _) => asn(&f),
        (None, Some((_, Some(of_peer)))) => Some(of_peer),
        (None, Some((name, None))) => {
            field.clash(format!("needs peer_asn: peer {name:?} has no asn"), None);
            None
        }
        (None, None) => None,
    };
    let inside_cidr = s.require("inside_cidr").and_then(|f| inside(&f));
    let local_ip_field = s.require("local_ip");
    let local_ip =
        local_ip_field.as_ref().and_then(|f| parsed::<Ipv4Addr>(f, "is not an IPv4 address", None));
    let hold_time = s.get("hold_time").map_or(Some(30), |f| f.number(3..=3600, "seconds"));
    let announce = s.get("announce").map_or_else(Vec::new, |f| announced(&f));
    s.finish(&[]);
    if let (Some(f), Some(ip), Some(net)) = (&local_ip_field, local_ip, inside_cidr) {
        let hosts = hosts(net);
        if !hosts.contains(&ip) {
            let message =
                if net.holds(ip.into()) { "is no host's address" } else { "is outside of inside_cidr" };
            f.fail(message, Some(format!("{}, {}", hosts[0], hosts[1])));
            return None;
        }
    }
    match &beside.routes {
        None => field.clash(
            "needs routing_mode route: BGP decides by destination, so everything may pass through the SAs"
                .into(),
            None,
        ),
        Some((routes, subnets)) => {
            if let Some(v6) = subnets.iter().find(|subnet| subnet.address().is_ipv6()) {
                routes.clash(format!("{v6} cannot be with bgp, which exchanges IPv4 prefixes"), None);
            }
        }
    }
    Some(Bgp {
        local_asn: local_asn?,
        peer_asn: peer_asn?,
        inside_cidr: inside_cidr?,
        local_ip: local_ip?,
        hold_time: Duration::from_secs(hold_time?.into()),
        announce,
    })
}

/// Reads the number of an autonomous system (RFC 4893): one number, or its halves with a dot between them (RFC 5396).
pub(super) fn asn(f: &Field<'_>) -> Option<u32> {
    let Some(text) = f.as_text() else { return f.number_or(1..=u32::MAX, ASN) };
    let number = text.split_once('.').and_then(|(high, low)| {
        let half = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| digits)
        };
        Some(u32::from(half(high)?) << 16 | u32::from(half(low)?)).filter(|n| *n != 0)
    });
    if number.is_none() {
        f.fail("is no number of an autonomous system", Some(ASN.into()));
    }
    number
}

/// Reads `[gateway.bird]`.
pub(super) fn bird(s: Section<'_>) -> Option<Bird> {
    let path = |name, default: PathBuf, longest: usize, what: &str| {
        let Some(f) = s.get(name) else { return Some(default) };
        let path = PathBuf::from(f.text()?);
        let plain = path.to_str().is_some_and(|p| !p.chars().any(|c| c.is_control() || c == '"'));
        let fits = path.is_absolute() && path.file_name().is_some() && path.as_os_str().len() <= longest;
        if !fits || !plain {
            f.fail(&format!("is not {what}"), Some(format!("an absolute path of at most {longest} bytes")));
            return None;
        }
        Some(path)
    };
    let Bird { file, socket } = Bird::default();
    let file = path("file", file, 4000, "the path of a file");
    // sun_path holds 108 bytes with the final zero.
    let socket = path("socket", socket, 107, "the path of a socket");
    s.finish(&[]);
    Some(Bird { file: file?, socket: socket? })
}

/// The inside network of a tunnel, for what must hold between tunnels.
pub(super) struct Inside<'a> {
    pub(super) tunnel: String,
    pub(super) field: Field<'a>,
    pub(super) network: Subnet,
}

/// Reports inside networks that two tunnels have.
pub(super) fn insides(all: &[Inside<'_>]) {
    let mut owners: HashMap<Subnet, &str> = HashMap::new();
    for inside in all {
        if let Some(owner) = owners.insert(inside.network, &inside.tunnel) {
            inside.field.clash(same_inside(inside.network, owner), Some(owner));
        }
    }
}

/// What is said of an inside network that another tunnel has.
pub(crate) fn same_inside(network: Subnet, owner: &str) -> String {
    format!("inside_cidr {network} is also that of tunnel {owner:?}")
}

fn inside(f: &Field<'_>) -> Option<Subnet> {
    let allowed = || Some(format!("a /30 within 169.254.0.0/16, none of {}", RESERVED.join(", ")));
    let text = f.text()?;
    let Ok(net) = text.parse::<Subnet>() else {
        f.fail("is not a CIDR prefix", allowed());
        return None;
    };
    let link_local = matches!(net.address(), IpAddr::V4(ip) if ip.is_link_local());
    if !link_local || net.length() != 30 {
        f.fail("is no network for the two ends of a tunnel", allowed());
        return None;
    }
    if RESERVED.contains(&net.to_string().as_str()) {
        f.fail("is one that clouds keep for themselves", allowed());
        return None;
    }
    Some(net)
}

/// The two addresses that hosts may have.
fn hosts(inside: Subnet) -> [Ipv4Addr; 2] {
    let first = match inside.address() {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(_) => 0,
    };
    [Ipv4Addr::from(first | 1), Ipv4Addr::from(first | 2)]
}

fn announced(f: &Field<'_>) -> Vec<Subnet> {
    let elements = f.elements();
    if elements.len() > MAX_ANNOUNCED {
        let why = format!("are {}, more than can be announced", elements.len());
        f.refuse_whole(&why, &format!("1..{MAX_ANNOUNCED} CIDR prefixes"));
    }
    let mut subnets: Vec<Subnet> = Vec::new();
    for element in elements {
        match element.text().map(str::parse::<Subnet>) {
            Some(Ok(subnet)) if subnets.contains(&subnet) => element.fail("is in the list twice", None),
            Some(Ok(subnet)) if subnet.address().is_ipv6() => {
                element.fail("is of IPv6, and bgp exchanges IPv4 prefixes", None);
            }
            Some(Ok(subnet)) => subnets.push(subnet),
            Some(Err(e)) => element.fail(&e.to_string(), None),
            None => {}
        }
    }
    subnets
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use std::path::Path;

    const TOP: &str = "[gateway]\nname = \"g\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\n\
                       [[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\n";
    const GOOD: &str = "local_asn = 65000\ninside_cidr = \"169.254.10.0/30\"\nlocal_ip = \"169.254.10.2\"\n";

    fn tunnel(name: &str, bgp: &str) -> String {
        format!(
            "[[tunnel]]\nname = \"{name}\"\npeer = \"b\"\npsk = \"0123456789abcdef\"\nrouting_mode = \"route\"\n\
             routes = [\"10.2.0.0/16\"]\n[tunnel.bgp]\n{bgp}"
        )
    }

    fn read(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("t"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_come_from_the_peer_and_numbers_have_two_notations() {
        let top = format!("{TOP}asn = \"1.10\"\n");
        let config = read(&format!("{top}{}", tunnel("t", GOOD))).unwrap();
        let bgp = config.tunnels[0].bgp.as_ref().unwrap();
        assert_eq!((bgp.local_asn, bgp.peer_asn, bgp.hold_time.as_secs()), (65000, 65546, 30));
        assert_eq!(bgp.peer_ip().to_string(), "169.254.10.1");
        assert!(bgp.announce.is_empty());
        let given = format!("{GOOD}peer_asn = 4294967295\nhold_time = 9\nannounce = \"10.1.0.0/16\"\n");
        let config = read(&format!("{top}{}", tunnel("t", &given))).unwrap();
        let bgp = config.tunnels[0].bgp.as_ref().unwrap();
        assert_eq!((bgp.peer_asn, bgp.hold_time.as_secs(), bgp.announce.len()), (u32::MAX, 9, 1));
    }

    #[test]
    fn what_cannot_be_is_said_with_field_value_and_what_is_allowed() {
        let with = |from: &str, to: &str| tunnel("t", &format!("{GOOD}peer_asn = 64512\n").replace(from, to));
        for (text, words) in [
            (tunnel("t", GOOD), vec!["tunnel \"t\".bgp: needs peer_asn: peer \"b\" has no asn"]),
            (with("65000", "0"), vec!["bgp.local_asn", "0 is out of range", "1..4294967295", "hi.lo"]),
            (with("65000", "4294967296"), vec!["bgp.local_asn", "is out of range"]),
            (with("65000", "\"1.65536\""), vec!["bgp.local_asn", "no number of an autonomous system"]),
            (with("65000", "\"0.0\""), vec!["bgp.local_asn"]),
            (with("65000", "\"+1.1\""), vec!["bgp.local_asn"]),
            (
                with("169.254.10.0/30", "169.254.10.0/29"),
                vec!["bgp.inside_cidr", "a /30 within 169.254.0.0/16"],
            ),
            (with("169.254.10.0/30", "10.0.0.0/30"), vec!["bgp.inside_cidr", "no network for the two ends"]),
            (with("169.254.10.0/30", "169.254.169.252/30"), vec!["clouds keep for themselves", "none of"]),
            (
                with("169.254.10.2", "169.254.10.3"),
                vec!["bgp.local_ip", "no host's", "169.254.10.1, 169.254.10.2"],
            ),
            (with("169.254.10.2", "169.254.10.6"), vec!["bgp.local_ip", "outside of inside_cidr"]),
            (with("local_asn", "hold_time = 2\nlocal_asn"), vec!["bgp.hold_time", "3..3600 seconds"]),
            (with("local_asn", "announce = \"2001:db8::/32\"\nlocal_asn"), vec!["bgp.announce", "IPv6"]),
            (
                with("local_asn", "local_asn").replace(
                    "routing_mode = \"route\"\nroutes",
                    "local_subnets = [\"10.1.0.0/16\"]\nremote_subnets",
                ),
                vec!["tunnel \"t\".bgp: needs routing_mode route"],
            ),
            (
                with("65000", "65000").replace("10.2.0.0/16", "2001:db8::/32"),
                vec!["routes", "cannot be with bgp"],
            ),
        ] {
            let said = read(&format!("{TOP}{text}")).unwrap_err();
            for word in words {
                assert!(said.contains(word), "{text}\n{said}");
            }
        }
    }

    #[test]
    fn inside_networks_are_unique_and_destinations_need_not_be() {
        let good = format!("{GOOD}peer_asn = 64512\n");
        let other = good.replace("169.254.10", "169.254.11");
        let said = read(&format!("{TOP}{}{}", tunnel("one", &good), tunnel("two", &good))).unwrap_err();
        assert!(
            said.contains("tunnel \"two\".bgp: inside_cidr 169.254.10.0/30 is also that of tunnel \"one\""),
            "{said}"
        );
        assert!(read(&format!("{TOP}{}{}", tunnel("one", &good), tunnel("two", &other))).is_ok());
        let without = tunnel("two", "").replace("[tunnel.bgp]\n", "");
        let said = read(&format!("{TOP}{}{without}", tunnel("one", &good))).unwrap_err();
        assert!(said.contains("is also that of tunnel \"one\""), "{said}");
        let group = "[[group]]\nname = \"g\"\nmembers = [\"one\", \"two\"]\n";
        let said =
            read(&format!("{TOP}{}{}{group}", tunnel("one", &good), tunnel("two", &other))).unwrap_err();
        assert!(said.contains("BGP says already which of them carries what"), "{said}");
    }

    #[test]
    fn paths_of_bird_are_absolute() {
        let bird = |text: &str| TOP.replace("[[peer]]", &format!("[gateway.bird]\n{text}\n[[peer]]"));
        let config = read(&bird("file = \"/run/x/adit.conf\"")).unwrap();
        assert_eq!(config.gateway.bird.file.to_str(), Some("/run/x/adit.conf"));
        assert_eq!(config.gateway.bird.socket.to_str(), Some("/run/bird/bird.ctl"));
        for wrong in ["file = \"adit.conf\"", "socket = \"/\"", "file = \"/a\\\"b\""] {
            let said = read(&bird(wrong)).unwrap_err();
            assert!(said.contains("gateway.bird."), "{said}");
        }
    }
}
