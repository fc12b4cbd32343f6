//! What is written for BIRD 2: the same text for the same tunnels.

use crate::config::{Bgp, Gateway, Subnet, Tunnel};
use std::{collections::BTreeSet, fmt::Write, net::IpAddr};

use super::TABLE;
use crate::routes::DEVICE;

/// What the names of our protocols begin with.
pub(super) const PREFIX: &str = "adit_";

/// What a file of ours begins with.
pub(super) const COMMENT: &str = "# Written by Adit, and again whenever it is otherwise.\n";

/// Routes that a session may teach; more are blocked. Each is a policy.
const MAX_LEARNED: u32 = 1000;

/// The name of a tunnel's protocol: by its inside network, which no other tunnel has.
pub fn protocol(bgp: &Bgp) -> String {
    format!("{PREFIX}{}", bgp.inside_cidr.address().to_string().replace('.', "_"))
}

/// The whole file, for tunnels that have BGP.
pub(super) fn text(gateway: &Gateway, tunnels: &[&Tunnel]) -> String {
    let mut sorted: Vec<(&Tunnel, &Bgp)> =
        tunnels.iter().filter_map(|tunnel| Some((*tunnel, tunnel.bgp.as_deref()?))).collect();
    sorted.sort_by_key(|(_, bgp)| bgp.inside_cidr);
    let mut out = String::from(COMMENT);
    if sorted.is_empty() {
        return out;
    }
    // Writing to a text does not fail.
    let _ = write!(
        out,
        "\nipv4 table adit4;\n\n\
         # Where Adit is told what is learned. No rule leads to this table.\n\
         protocol kernel adit_kernel {{\n  kernel table {TABLE};\n  \
         ipv4 {{ table adit4; import none; export where source = RTS_BGP; }};\n}}\n"
    );
    if sorted.iter().any(|(_, bgp)| bgp.announce.is_empty()) {
        let lan: Vec<String> = gateway.lan.iter().map(|name| format!("\"{}\"", plain(name))).collect();
        let _ = write!(
            out,
            "\nprotocol direct adit_lan {{\n  interface {};\n  ipv4 {{ table adit4; }};\n}}\n",
            lan.join(", ")
        );
    }
    let announced: BTreeSet<Subnet> =
        sorted.iter().flat_map(|(_, bgp)| bgp.announce.iter().copied()).collect();
    if !announced.is_empty() {
        out.push_str("\nprotocol static adit_announced {\n  ipv4 { table adit4; };\n");
        for subnet in announced {
            let _ = writeln!(out, "  route {subnet} unreachable;");
        }
        out.push_str("}\n");
    }
    let router_id = gateway.addresses.iter().find_map(|ip| match ip {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    // Without one each session has its own, so that no other tunnel changes it: that would restart it.
    let router_id = |bgp: &Bgp| router_id.unwrap_or(bgp.local_ip);
    for (tunnel, bgp) in sorted {
        let learned = set(tunnel.destinations(), "+");
        let announced = match bgp.announce.is_empty() {
            true => "source = RTS_DEVICE".to_owned(),
            false => format!("source = RTS_STATIC && net ~ {}", set(&bgp.announce, "")),
        };
        let _ = write!(
            out,
            "\n# Tunnel {}\nprotocol bgp {} {{\n  router id {};\n  local {} as {};\n  neighbor {} as {};\n  \
             direct;\n  interface \"{DEVICE}\";\n  check link no;\n  strict bind;\n  hold time {};\n  connect delay time 1;\n  connect retry time 5;\n  \
             error wait time 1, 10;\n  ipv4 {{\n    table adit4;\n    import where net ~ {learned};\n    \
             import limit {MAX_LEARNED} action block;\n    export where {announced};\n    next hop self;\n  }};\n}}\n",
            plain(&tunnel.name),
            protocol(bgp),
            router_id(bgp),
            bgp.local_ip,
            bgp.local_asn,
            bgp.peer_ip(),
            bgp.peer_asn,
            bgp.hold_time.as_secs(),
        );
    }
    out
}

/// A set of prefixes of IPv4; with `+` of those within them as well.
fn set(subnets: &[Subnet], suffix: &str) -> String {
    let subnets = subnets.iter().filter(|subnet| subnet.address().is_ipv4());
    let list: Vec<String> = subnets.map(|subnet| format!("{subnet}{suffix}")).collect();
    format!("[ {} ]", list.join(", "))
}

/// What cannot end a comment or a text of BIRD's.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    fn config(tunnels: &str) -> Config {
        let text = format!(
            "[gateway]\nname = \"g\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"eth1\", \"eth2\"]\n\
             [[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\nasn = 64512\n{tunnels}"
        );
        Config::parse(Path::new("t"), &text).unwrap()
    }

    fn tunnel(name: &str, inside: u8, more: &str) -> String {
        format!(
            "[[tunnel]]\nname = {name:?}\npeer = \"b\"\npsk = \"0123456789abcdef\"\nrouting_mode = \"route\"\n\
             routes = [\"10.2.0.0/16\", \"10.3.0.0/16\"]\n[tunnel.bgp]\nlocal_asn = 65000\n\
             inside_cidr = \"169.254.{inside}.0/30\"\nlocal_ip = \"169.254.{inside}.2\"\n{more}"
        )
    }

    #[test]
    fn the_same_tunnels_are_the_same_text_in_whatever_order() {
        let (one, two) =
            (tunnel("one", 10, ""), tunnel("two \"}", 9, "announce = [\"10.1.0.0/16\"]\nhold_time = 9\n"));
        let write = |tunnels: &str| {
            let config = config(tunnels);
            text(&config.gateway, &config.tunnels.iter().collect::<Vec<_>>())
        };
        let said = write(&format!("{one}{two}"));
        assert_eq!(said, write(&format!("{two}{one}")));
        let expected = include_str!("sample.conf");
        if std::env::var_os("ADIT_UPDATE_GOLDEN").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/bird/sample.conf"), &said).unwrap();
            return;
        }
        assert_eq!(said, expected);
        // Without an address of IPv4 nothing that is said of one session depends on another.
        let mut v6 = config(&format!("{one}{two}"));
        v6.gateway.addresses = vec!["2001:db8::1".parse().unwrap()];
        let alone = text(&v6.gateway, &[&v6.tunnels[0]]);
        let session = alone.split("# Tunnel ").nth(1).unwrap();
        assert!(session.contains("router id 169.254.10.2;"), "{session}");
        assert!(text(&v6.gateway, &v6.tunnels.iter().collect::<Vec<_>>()).contains(session));
        let none = write("");
        assert!(none.lines().all(|line| line.starts_with('#')), "{none}");
    }
}
