//! What crosses the router, counted by its kernel: exact, cheap, and there for as many cases as one topology serves.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::topology::{TO_A, TO_B};

/// Packets that the router received since the counters were set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// ESP from gateway A, as protocol 50.
    pub esp_a: u64,
    /// ESP from gateway B, as protocol 50.
    pub esp_b: u64,
    /// ESP in UDP from gateway A.
    pub udp_a: u64,
    /// ESP in UDP from gateway B.
    pub udp_b: u64,
    /// AH from gateway A.
    pub ah_a: u64,
    /// AH from gateway B.
    pub ah_b: u64,
    /// IKE and NAT keepalives from both.
    pub ike: u64,
    /// Anything else from gateway A's side, but for ICMP errors of its own.
    pub clear_a: u64,
    /// Anything else from gateway B's side, likewise.
    pub clear_b: u64,
}

impl Counters {
    /// What came since `before`.
    pub fn since(&self, before: &Counters) -> Counters {
        Counters {
            esp_a: self.esp_a - before.esp_a,
            esp_b: self.esp_b - before.esp_b,
            udp_a: self.udp_a - before.udp_a,
            udp_b: self.udp_b - before.udp_b,
            ah_a: self.ah_a - before.ah_a,
            ah_b: self.ah_b - before.ah_b,
            ike: self.ike - before.ike,
            clear_a: self.clear_a - before.clear_a,
            clear_b: self.clear_b - before.clear_b,
        }
    }

    /// Protected packets from gateway A.
    pub fn protected_a(&self) -> u64 {
        self.esp_a + self.udp_a + self.ah_a
    }

    /// Protected packets from gateway B.
    pub fn protected_b(&self) -> u64 {
        self.esp_b + self.udp_b + self.ah_b
    }

    /// How the protected packets were carried, in words.
    pub fn carriage(&self) -> &'static str {
        let esp = self.esp_a + self.esp_b > 0;
        let udp = self.udp_a + self.udp_b > 0;
        match (esp, udp, self.ah_a + self.ah_b > 0) {
            (true, false, false) => "ESP",
            (false, true, false) => "ESP in UDP",
            (false, false, true) => "AH",
            (false, false, false) => "nothing",
            _ => "several ways",
        }
    }
}

/// Sets the counters up. `router` is between [`TO_A`] and [`TO_B`].
///
/// # Errors
/// `nft` failed.
pub fn watch(router: &Namespace) -> Result<()> {
    let names = ["esp_a", "esp_b", "udp_a", "udp_b", "ah_a", "ah_b", "ike", "clear_a", "clear_b"];
    let objects: String = names.iter().map(|name| format!("counter {name} {{ }}\n")).collect();
    // The payload of a datagram begins 8 bytes behind its header: zeros there are the non-ESP marker. A fragment but the
    // first has no ports; the first of the same packet is judged. ICMP errors are the gateways' own.
    let mut rules = String::from("ip frag-off & 0x1fff != 0 accept\n");
    for (interface, side) in [(TO_A, 'a'), (TO_B, 'b')] {
        let from = format!("iifname \"{interface}\"");
        for (protocol, name) in [("esp", "esp"), ("ah", "ah")] {
            rules += &format!("{from} meta l4proto {protocol} counter name {name}_{side} accept\n");
        }
        for port in ["udp sport 4500", "udp dport 4500"] {
            rules += &format!("{from} {port} @th,64,32 != 0 counter name udp_{side} accept\n");
        }
    }
    for port in ["udp sport { 500, 4500 }", "udp dport { 500, 4500 }"] {
        rules += &format!("{port} counter name ike accept\n");
    }
    rules += "ip saddr != 10.0.0.0/8 ip daddr != 10.0.0.0/8 \
              icmp type { destination-unreachable, time-exceeded } accept\n";
    rules += "meta l4proto icmpv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, \
              nd-router-advert, mld-listener-query, mld-listener-report, mld2-listener-report } accept\n";
    for (interface, side) in [(TO_A, 'a'), (TO_B, 'b')] {
        rules += &format!("iifname \"{interface}\" counter name clear_{side} accept\n");
    }
    let text = format!(
        "table inet wire {{\n{objects}chain in {{\ntype filter hook prerouting priority -400\n{rules}}}\n}}\n"
    );
    let file = router.logs().join("wire.nft");
    std::fs::write(&file, text)?;
    router.run("nft", &["-f", &file.to_string_lossy()]).map(|_| ())
}

/// Reads the counters.
///
/// # Errors
/// `nft` failed, or [`watch`] was not called.
pub fn read(router: &Namespace) -> Result<Counters> {
    let text = router.run("nft", &["-j", "list", "counters", "table", "inet", "wire"])?;
    parse(&text).with_context(|| format!("nft says: {text}"))
}

fn parse(text: &str) -> Result<Counters> {
    let listing: Value = serde_json::from_str(text).context("nft wrote no JSON")?;
    let entries = listing.get("nftables").and_then(Value::as_array).context("nft listed nothing")?;
    let counter = |name: &str| {
        let is_it = |entry: &&Value| entry.pointer("/counter/name").and_then(Value::as_str) == Some(name);
        let packets =
            entries.iter().find(is_it).and_then(|entry| entry.pointer("/counter/packets")?.as_u64());
        packets.with_context(|| format!("there is no counter {name:?}"))
    };
    Ok(Counters {
        esp_a: counter("esp_a")?,
        esp_b: counter("esp_b")?,
        udp_a: counter("udp_a")?,
        udp_b: counter("udp_b")?,
        ah_a: counter("ah_a")?,
        ah_b: counter("ah_b")?,
        ike: counter("ike")?,
        clear_a: counter("clear_a")?,
        clear_b: counter("clear_b")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name_and_told_apart() {
        let one = |name: &str, packets: u64| {
            format!(
                r#"{{"counter": {{"name": "{name}", "table": "wire", "packets": {packets}, "bytes": 9}}}}"#
            )
        };
        let names = ["ike", "udp_a", "udp_b", "esp_a", "esp_b", "ah_a", "ah_b", "clear_a", "clear_b"];
        let entries: Vec<String> =
            names.iter().zip([8, 5, 4, 0, 0, 0, 0, 2, 3]).map(|(n, p)| one(n, p)).collect();
        let text = format!(r#"{{"nftables": [{{"metainfo": {{}}}}, {}]}}"#, entries.join(", "));
        let counters = parse(&text).unwrap();
        assert_eq!((counters.ike, counters.protected_a(), counters.protected_b()), (8, 5, 4));
        assert_eq!(counters.carriage(), "ESP in UDP");
        let later = Counters { clear_a: 9, ..counters }.since(&counters);
        assert_eq!((later.clear_a, later.clear_b, later.carriage()), (7, 0, "nothing"));
        assert!(parse(r#"{"nftables": []}"#).is_err());
    }
}
