use super::*;
use adit_ike::{Dpd, Encryption, Group, Integrity, Mode, Prf, Protocol};
use std::time::Duration;

const GOOD: &str = include_str!("tests/good.toml");
const SECRET: &str = "Sentinel-0f-the-secret-key";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("adit.toml"), text)
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// The good file with a line added to the end of one of its tables.
fn with(table: &str, line: &str) -> String {
    let at = GOOD.find(table).unwrap_or_else(|| panic!("{table}"));
    let end = GOOD[at + 1..].find("\n[").map_or(GOOD.len(), |i| at + 1 + i + 1);
    format!("{}{line}\n{}", &GOOD[..end], &GOOD[end..])
}

#[test]
fn what_is_not_said_is_as_documented() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.api.socket, Path::new("/run/adit/adit.sock"));
    assert_eq!(config.api.metrics, None);
    let t = &config.tunnels[0];
    assert_eq!(
        (t.enabled, t.start, t.nat_t, t.mtu, t.mss_clamp),
        (true, Start::Immediate, NatT::Auto, None, None)
    );
    assert_eq!(t.ike.encryption, [Encryption::Aes256Gcm16]);
    assert_eq!(
        (t.ike.integrity.as_slice(), t.ike.prf.as_slice()),
        ([Integrity::Sha256].as_slice(), [Prf::Sha256].as_slice())
    );
    assert_eq!(t.ike.dh, [Group::X25519, Group::P256, Group::Modp2048]);
    assert_eq!((t.ike.lifetime.as_secs(), t.ipsec.lifetime.as_secs()), (86400, 3600));
    assert_eq!(
        (t.ipsec.encryption.as_slice(), t.ipsec.esn, t.replay_window),
        ([Encryption::Aes256Gcm16].as_slice(), true, 1024)
    );
    let dpd = Dpd { delay: Duration::from_secs(8), timeout: Duration::from_secs(13) };
    assert_eq!((t.dpd, t.dpd_action), (Some(dpd), DpdAction::Restart));
    assert_eq!(t.local_id.to_string(), "192.0.2.1");
    assert_eq!(t.peer_id.to_string(), "198.51.100.1");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    assert_eq!(error(include_str!("tests/bad.toml")), include_str!("tests/bad.txt").trim_end());
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (table, line, field) in [
        ("[gateway]", "model = \"primary-backup\"", "gateway.model"),
        ("[[tunnel]]", "group = \"g\"", "tunnel \"a-b\".group"),
        ("[[tunnel]]", "id = \"x\"", "tunnel \"a-b\".id"),
        ("[tunnel.ipsec]", "tfc = 1400", "tunnel \"a-b\".ipsec.tfc"),
    ] {
        let said = error(&with(table, line));
        assert!(
            said.contains(&format!(": {field}: ")) && said.contains("is not available in this version"),
            "{said}"
        );
    }
}

#[test]
fn a_health_check_lies_in_what_the_tunnel_carries() {
    let checked = |lines: &str| format!("{GOOD}[tunnel.health_check]\n{lines}");
    let t = parse(&checked("destination = \"10.2.0.9\"\nsource = \"10.1.0.1\"\n")).unwrap().tunnels.remove(0);
    let expected = HealthCheck {
        destination: [10, 2, 0, 9].into(),
        source: [10, 1, 0, 1].into(),
        interval: Duration::from_secs(3),
        retries: 3,
        switch_route: false,
    };
    assert_eq!(t.health_check, Some(expected));
    let without = parse(GOOD).unwrap().tunnels.remove(0);
    assert_eq!((without.health_check, t.fingerprint()), (None, without.fingerprint()));
    assert!(t.is_same_traffic(&without), "it is looked after otherwise, and negotiated as before");
    for (lines, field, words) in [
        ("destination = \"10.2.0.9\"", "source", "required"),
        ("destination = \"10.9.0.9\"\nsource = \"10.1.0.1\"", "destination", "outside"),
        ("destination = \"10.2.0.9\"\nsource = \"10.9.0.1\"", "source", "outside"),
        ("destination = \"x\"\nsource = \"10.1.0.1\"", "destination", "is not an IP address"),
        ("destination = \"10.2.0.9\"\nsource = \"10.1.0.1\"\ninterval = 61", "interval", "1..60"),
        ("destination = \"10.2.0.9\"\nsource = \"10.1.0.1\"\nretries = 0", "retries", "1..10"),
        ("destination = \"10.2.0.9\"\nsource = \"10.1.0.1\"\nport = 1", "port", "is not a field"),
    ] {
        let said = error(&checked(lines));
        assert!(said.contains(&format!("health_check.{field}: ")) && said.contains(words), "{said}");
    }
    let by_route = GOOD
        .replace("local_subnets = [\"10.1.0.0/16\"]", "routing_mode = \"route\"")
        .replace("remote_subnets", "routes");
    let said = error(&format!(
        "{by_route}[tunnel.health_check]\ndestination = \"198.51.100.1\"\nsource = \"10.1.0.1\"\n"
    ));
    assert!(said.contains("asks 198.51.100.1, where the peer of tunnel \"a-b\" is itself"), "{said}");
}

#[test]
fn by_route_everything_is_negotiated_and_destinations_are_named() {
    let by_route = |lines: &str| {
        let subnets = |line: &&str| !line.starts_with("local_subnets") && !line.starts_with("remote_subnets");
        let good: String = GOOD.lines().filter(subnets).map(|line| format!("{line}\n")).collect();
        good.replace("[[tunnel]]\n", &format!("[[tunnel]]\nrouting_mode = \"route\"\n{lines}\n"))
    };
    let all = |subnets: &[Subnet]| subnets.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (routes, negotiated) in [
        ("[\"10.2.0.0/16\", \"10.3.0.0/16\"]", vec!["0.0.0.0/0"]),
        ("[\"2001:db8:2::/48\"]", vec!["::/0"]),
        ("[\"2001:db8:2::/48\", \"10.2.0.0/16\"]", vec!["0.0.0.0/0", "::/0"]),
    ] {
        let t = parse(&by_route(&format!("routes = {routes}"))).unwrap().tunnels.remove(0);
        assert_eq!((all(&t.local_subnets), all(&t.remote_subnets)), {
            let negotiated: Vec<String> = negotiated.into_iter().map(str::to_owned).collect();
            (negotiated.clone(), negotiated)
        });
        assert_eq!(t.routes.as_deref(), Some(t.destinations()));
        assert_eq!(t.pairs().count(), t.destinations().len());
    }
    let said_aloud =
        "routes = \"10.2.0.0/16\"\nlocal_subnets = \"0.0.0.0/0\"\nremote_subnets = \"0.0.0.0/0\"";
    assert!(parse(&by_route(said_aloud)).is_ok());
    for (lines, field, words) in [
        ("", "routes", "required"),
        ("routes = \"10.2.0.0/16\"\nlocal_subnets = \"10.1.0.0/16\"", "local_subnets", "is everything"),
        ("routes = \"198.51.100.0/24\"", "routes", "holds the peer's own address"),
    ] {
        let said = error(&by_route(lines));
        assert!(said.contains(&format!("tunnel \"a-b\".{field}: ")) && said.contains(words), "{said}");
    }
    let said = error(&with("[[tunnel]]", "routes = \"10.2.0.0/16\""));
    assert!(said.contains("is of routing_mode route only"), "{said}");
}

#[test]
fn every_algorithm_of_the_product_is_known() {
    for (table, field, words) in [
        (
            "[tunnel.ike]",
            "encryption",
            "des 3des aes128 aes192 aes256 aes128gcm16 aes256gcm16 chacha20poly1305",
        ),
        (
            "[tunnel.ipsec]",
            "encryption",
            "null des 3des aes128 aes192 aes256 aes128gcm16 aes192gcm16 aes256gcm16 chacha20poly1305",
        ),
        ("[tunnel.ike]", "integrity", "md5 sha1 sha256 sha384 sha512"),
        ("[tunnel.ike]", "prf", "md5 sha1 sha256 sha384 sha512"),
        ("[tunnel.ipsec]", "integrity", "md5 sha1 sha256 sha384 sha512"),
        ("[tunnel.ike]", "dh", "1 2 5 14 15 16 19 20 21 24 31"),
        ("[tunnel.ike]", "additional_ke", "mlkem768"),
        ("[tunnel.ipsec]", "pfs", "disabled 1 2 5 14 15 16 19 20 21 24 31"),
        ("[tunnel.ipsec]", "protocol", "esp ah"),
    ] {
        for word in words.split(' ') {
            parse(&with(table, &format!("{field} = \"{word}\""))).unwrap();
        }
    }
    let groups = parse(&with("[tunnel.ipsec]", "pfs = [14, \"31\"]")).unwrap();
    assert_eq!(groups.tunnels[0].ipsec.pfs, [Group::Modp2048, Group::X25519]);
    assert_eq!(parse(&with("[tunnel.ipsec]", "pfs = \"disabled\"")).unwrap().tunnels[0].ipsec.pfs, []);
    let as_ike = parse(&with("[tunnel.ike]", "dh = [20, 19]")).unwrap();
    assert_eq!(as_ike.tunnels[0].ipsec.pfs, [Group::P384, Group::P256]);
}

#[test]
fn ikev1_has_defaults_that_it_can_say() {
    let main = parse(&with("[tunnel.ike]", "version = \"ikev1\"")).unwrap();
    assert_eq!(main.warnings, []);
    let t = &main.tunnels[0];
    assert_eq!((t.ike.version, t.ike.mode, t.ipsec.esn), (Version::Ikev1, Mode::Main, false));
    assert_eq!((&t.ike.encryption[..], &t.ike.prf[..]), (&[Encryption::Aes256][..], &[Prf::Sha256][..]));
    assert_eq!(t.ipsec.encryption, [Encryption::Aes256Gcm16]);
    let text = "version = \"ikev1\"\nmode = \"aggressive\"\nintegrity = [\"sha512\", \"sha1\"]";
    let aggressive = parse(&with("[tunnel.ike]", text)).unwrap();
    let t = &aggressive.tunnels[0];
    assert_eq!((t.ike.mode, &t.ike.dh[..], &t.ipsec.pfs[..]), (Mode::Aggressive, MODP, MODP));
    assert_eq!(t.ike.prf, [Prf::Sha512, Prf::Sha1]);
}

const MODP: &[Group] = &[Group::Modp2048];

#[test]
fn what_a_version_does_not_know_is_refused() {
    let ikev1 = GOOD.replace("[tunnel.ike]", "[tunnel.ike]\nversion = \"ikev1\"");
    let said = |table: &str, line: &str| {
        let at = ikev1.find(table).unwrap() + table.len();
        error(&format!("{}\n{line}{}", &ikev1[..at], &ikev1[at..]))
    };
    for (table, line, words) in [
        (
            "[tunnel.ike]",
            "encryption = \"aes256gcm16\"",
            "ike.encryption: \"aes256gcm16\" cannot be with ikev1",
        ),
        ("[tunnel.ike]", "encryption = \"chacha20poly1305\"", "allowed: des, 3des, aes128, aes192, aes256"),
        ("[tunnel.ike]", "prf = \"sha512\"", "ike.prf: \"sha512\" must be as integrity"),
        ("[tunnel.ike]", "additional_ke = \"mlkem768\"", "ike.additional_ke: \"mlkem768\" is of IKEv2 only"),
        ("[tunnel.ike]", "childless = true", "ike.childless: true is of IKEv2 only"),
        ("[tunnel.ike]", "ppk = { id = \"a\", key = \"b\" }", "ike.ppk: is of IKEv2 only"),
        ("[tunnel.ike]", "mode = \"aggressive\"\ndh = [14, 19]", "ike.dh: [14, 19] are several"),
        ("[tunnel.ipsec]", "esn = true", "ipsec.esn: true is of IKEv2 only; allowed: false"),
        (
            "[tunnel.ipsec]",
            "encryption = \"chacha20poly1305\"",
            "ipsec.encryption: \"chacha20poly1305\" cannot be with ikev1",
        ),
    ] {
        let said = said(table, line);
        assert!(said.contains(words), "{said}");
    }
    let said = error(&with("[tunnel.ike]", "mode = \"aggressive\""));
    assert!(said.contains("ike.mode: \"aggressive\" is of IKEv1 only"), "{said}");
}

#[test]
fn ah_encrypts_nothing_and_goes_in_no_udp() {
    let ah = with("[tunnel.ipsec]", "protocol = \"ah\"\nintegrity = \"sha512\"");
    let config = parse(&ah).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.tunnels[0].ipsec.protocol, Protocol::Ah);
    assert_eq!(config.tunnels[0].ipsec.integrity, [Integrity::Sha512]);
    let said = error(&ah.replace("protocol =", "encryption = \"aes256\"\nprotocol ="));
    assert!(said.contains("ipsec.encryption: \"aes256\" cannot be with protocol ah"), "{said}");
    let said = error(&ah.replace("[tunnel.ike]", "nat_t = \"force\"\n[tunnel.ike]"));
    assert!(said.contains("nat_t: \"force\" cannot be with ipsec.protocol ah"), "{said}");
}

#[test]
fn a_post_quantum_key_is_digits_or_text_and_never_shown() {
    let digits = "00ff".repeat(16);
    let text = format!("ppk = {{ id = \"a-b\", key = \"0x{digits}\", required = false }}");
    let config = parse(&with("[tunnel.ike]", &text)).unwrap();
    let ppk = config.tunnels[0].ppk.as_ref().unwrap();
    assert_eq!((ppk.id.as_slice(), ppk.required), (b"a-b".as_slice(), false));
    assert_eq!(ppk.key, Psk::new([0, 0xff].repeat(16)));
    assert_eq!(config.warnings, []);
    let short = parse(&with("[tunnel.ike]", "ppk = { id = \"a-b\", key = \"Sentinel-0f\" }")).unwrap();
    assert!(short.tunnels[0].ppk.as_ref().unwrap().required);
    assert!(short.warnings[0].message.contains("shorter than 32 octets"));
    assert!(!format!("{short:?}").contains("Sentinel"));
    for line in [
        "ppk = \"Sentinel-0f\"",
        "ppk = { id = \"a-b\", key = \"0xSentinel-0f\" }",
        "ppk = { id = \"a-b\", key = [\"Sentinel-0f\"] }",
        "ppk = { id = \"a b\", key = \"Sentinel-0f\" }",
        "ppk = { id = \"a-b\", kei = \"Sentinel-0f\" }",
    ] {
        let said = error(&with("[tunnel.ike]", line));
        assert!(said.contains("ike.ppk") && !said.contains("Sentinel"), "{said}");
    }
}

#[test]
fn lifetimes_may_be_in_bytes_and_packets() {
    let config =
        parse(&with("[tunnel.ipsec]", "lifetime_bytes = 5000000000\nlifetime_packets = 100")).unwrap();
    let t = &config.tunnels[0];
    assert_eq!((t.ipsec.lifetime_bytes, t.lifetime_packets), (Some(5_000_000_000), Some(100)));
    let said = error(&with("[tunnel.ipsec]", "lifetime_bytes = 5"));
    assert!(said.contains("ipsec.lifetime_bytes: 5 is out of range; allowed: 65536 bytes or more"), "{said}");
}

#[test]
fn the_endpoint_is_set_as_the_gateway_says() {
    let text = "ike = { cookie_threshold = 0, half_open_limit = 100, fragment_size = 576, retransmit_after = 250, \
                retransmit_ceiling = 1000, attempts = 3, keepalive = 10 }";
    let ike = parse(&with("[gateway]", text)).unwrap().gateway.ike;
    assert_eq!((ike.cookie_threshold, ike.half_open_limit, ike.fragment_size), (0, 100, 576));
    assert_eq!((ike.retransmission.initial.as_millis(), ike.retransmission.attempts), (250, 3));
    assert_eq!((ike.retransmission.ceiling.as_secs(), ike.keepalive.as_secs()), (1, 10));
    assert_eq!(parse(GOOD).unwrap().gateway.ike, EndpointConfig::default());
    let said = error(&with("[gateway]", "ike = { half_open_limit = 64 }"));
    assert!(said.contains("gateway.ike.half_open_limit: 64 leaves no room for cookies"), "{said}");
}

#[test]
fn the_way_of_packets_is_one_of_five() {
    assert_eq!(parse(GOOD).unwrap().gateway.xdp, Xdp::Auto);
    for (word, xdp) in Xdp::WORDS {
        let config = parse(&with("[gateway]", &format!("xdp = \"{word}\""))).unwrap();
        assert_eq!(config.gateway.xdp, xdp);
        // Without XDP, rules stand in for the program, in both directions on a gateway with two arms.
        let mut rules = std::collections::BTreeSet::new();
        config.tunnels.iter().for_each(|t| crate::rules::block(&config.gateway, t, &mut rules));
        let rules = rules.len();
        let pairs: usize = config.tunnels.iter().map(|t| t.pairs().count()).sum();
        assert_eq!(rules, if xdp == Xdp::None { 2 * pairs } else { 0 });
    }
    // By route, what is routed is blocked and nothing else; no rule is of two families.
    let by_route = with("[gateway]", "xdp = \"none\"")
        .replace("local_subnets = [\"10.1.0.0/16\"]", "routing_mode = \"route\"")
        .replace("remote_subnets = [\"10.2.0.0/16\"]", "routes = [\"10.2.0.0/16\", \"2001:db8:2::/48\"]");
    let config = parse(&by_route).unwrap();
    let mut rules = std::collections::BTreeSet::new();
    crate::rules::block(&config.gateway, &config.tunnels[0], &mut rules);
    let mut rules: Vec<_> = rules.iter().map(|r| format!("{} {}", r.from, r.to)).collect();
    rules.sort();
    assert_eq!(
        rules,
        ["0.0.0.0/0 10.2.0.0/16", "10.2.0.0/16 0.0.0.0/0", "2001:db8:2::/48 ::/0", "::/0 2001:db8:2::/48"]
    );
    let said = error(&with("[gateway]", "xdp = \"native\""));
    assert!(said.contains("gateway.xdp: is unknown") || said.contains("native"), "{said}");
    assert!(said.contains("allowed: auto, zero-copy, driver, generic, none"), "{said}");
}

#[test]
fn a_peer_that_may_have_either_family_meets_both_addresses_of_the_gateway() {
    let both = "[\"192.0.2.1\", \"2001:db8::1\"]";
    let turned = "[\"2001:db8::1\", \"192.0.2.1\"]";
    for (ours, peer, local, other) in [
        (both, "b.example.net", "192.0.2.1", Some("2001:db8::1")),
        (both, "any", "192.0.2.1", Some("2001:db8::1")),
        (turned, "any", "2001:db8::1", Some("192.0.2.1")),
        (both, "198.51.100.1", "192.0.2.1", None),
        (both, "2001:db8:b::1", "2001:db8::1", None),
        ("\"192.0.2.1\"", "b.example.net", "192.0.2.1", None),
    ] {
        let text = with("[tunnel.ike]", "peer_id = \"b.example.net\"")
            .replace("\"192.0.2.1\"", ours)
            .replace("address = \"198.51.100.1\"", &format!("address = \"{peer}\""));
        let t = parse(&text).unwrap().tunnels.remove(0);
        let other = other.map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!((t.local.to_string(), t.other_local), (local.to_owned(), other), "{ours} {peer}");
        assert_eq!(t.local_id.to_string(), local, "the ID does not depend on where the peer turns out to be");
        let (far4, far6) = ("198.51.100.1".parse().unwrap(), "2001:db8:b::1".parse().unwrap());
        if other.is_some() {
            assert_eq!([far4, far6].map(|ip| t.local_to(ip).is_ipv4()), [true, false]);
        }
    }
}

#[test]
fn main_mode_takes_one_key_for_all_who_come_from_anywhere() {
    let any = GOOD.replace("198.51.100.1", "any");
    let first = any.replace("[tunnel.ike]", "[tunnel.ike]\nversion = \"ikev1\"\npeer_id = \"b.example.net\"");
    let tunnel = first[first.find("[[tunnel]]").unwrap()..].replace("a-b", "other").replace("10.2.", "10.3.");
    let same = format!("{first}\n{}", tunnel.replace("b.example", "c.example"));
    parse(&same).unwrap();
    let said = error(&format!("{first}\n{}", tunnel.replace(SECRET, "another-key-that-is-long")));
    assert!(said.contains("tunnel \"other\".psk: differs from that of tunnel \"a-b\""), "{said}");
    assert!(!said.contains("another-key"), "{said}");
    parse(&format!("{first}\n{tunnel}").replace(SECRET, "x").replace("\"ikev1\"", "\"ikev2\"")).unwrap();
}

#[test]
fn what_works_and_should_not_be_used_is_warned_of() {
    for (table, line, words) in [
        ("[tunnel.ike]", "dh = 2", "group 2 is broken or deprecated"),
        ("[tunnel.ike]", "dh = [14, 1, 5, 24]", "group 24 is broken or deprecated"),
        ("[tunnel.ike]", "encryption = \"des\"", "des is broken or deprecated"),
        ("[tunnel.ike]", "version = \"ikev1\"\nmode = \"aggressive\"", "hash of the key in clear"),
        ("[tunnel.ike]", "version = \"ikev1\"\nreauthenticate = true", "says nothing"),
        ("[tunnel.ipsec]", "pfs = 5", "group 5 is broken or deprecated"),
        ("[tunnel.ipsec]", "encryption = [\"3des\", \"null\"]", "null encrypts nothing"),
        ("[tunnel.ipsec]", "protocol = \"ah\"\nintegrity = \"md5\"", "md5 is broken or deprecated"),
        ("[tunnel.ike]", "prf = [\"sha256\", \"sha1\"]", "sha1 is broken or deprecated"),
        ("[tunnel.ipsec]", "encryption = \"aes128\"\nintegrity = \"sha1\"", "sha1 is broken or deprecated"),
        ("[tunnel.ipsec]", "integrity = \"sha256\"", "authenticates by itself"),
        ("[tunnel.ipsec]", "replay_window = 0", "replays"),
    ] {
        let config = parse(&with(table, line)).unwrap();
        assert!(config.warnings_for(Path::new("adit.toml")).contains(words), "{:?}", config.warnings);
    }
    let short = parse(&GOOD.replace(SECRET, "tooshort")).unwrap();
    assert!(short.warnings[0].message.contains("shorter than 16"));
    assert!(!format!("{:?}", short.warnings).contains("tooshort"));
    assert!(
        parse(&GOOD.replace(SECRET, "what's-in-a-name-anyway")).unwrap().warnings[0]
            .message
            .contains("clouds")
    );
}

#[test]
fn what_could_never_work_is_refused() {
    let ipv6 = "remote_subnets = [\"2001:db8::/32\"]";
    let many: Vec<_> = (0..=255).map(|i| format!("\"10.2.{i}.0/24\"")).collect();
    for (from, to, words) in [
        (
            "198.51.100.1",
            "::ffff:198.51.100.1",
            "peer \"b\".address: \"::ffff:198.51.100.1\" is not where a peer",
        ),
        ("198.51.100.1", "255.255.255.255", "is not where a peer can be"),
        ("198.51.100.1", "192.0.2.1", "tunnel \"a-b\".peer: \"b\" has an address of this gateway"),
        ("\"192.0.2.1\"", "\"::ffff:192.0.2.1\"", "is no address that a gateway can have"),
        (
            "remote_subnets = [\"10.2.0.0/16\"]",
            ipv6,
            "2001:db8::/32 has no prefix of its family in local_subnets",
        ),
        (
            "\"10.2.0.0/16\"",
            &many.join(", "),
            "remote_subnets: are 256, more than IKE can name at once; allowed: 1..255",
        ),
        (
            "[tunnel.ike]",
            "[tunnel.ike]\nencryption = \"aes192gcm16\"",
            "\"aes192gcm16\" is unknown; did you mean",
        ),
    ] {
        let said = error(&GOOD.replace(from, to));
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn no_more_tunnels_than_slots() {
    let at = GOOD.find("[[tunnel]]").unwrap();
    let tunnel = |i: usize| {
        let remote = format!("172.{}.{}.{}/32", 16 + i / 65536, i / 256 % 256, i % 256);
        GOOD[at..].replace("a-b", &format!("t{i}")).replace("10.2.0.0/16", &remote)
    };
    let tunnels = (0..=adit_maps::policy::MAX_POLICIES).map(tunnel);
    let said = error(&(GOOD[..at].to_owned() + &tunnels.collect::<String>()));
    assert!(
        said.contains("allowed: at most 16384") && said.contains("tunnel: need 16385 slots of the SPD"),
        "{said}"
    );
}

#[test]
fn a_pair_of_subnets_belongs_to_one_tunnel() {
    let second = GOOD[GOOD.find("[[tunnel]]").unwrap()..].replace("a-b", "other");
    let said = error(&format!("{GOOD}\n{second}"));
    assert!(said.contains("the pair 10.1.0.0/16, 10.2.0.0/16 is also that of tunnel \"a-b\""), "{said}");
}

#[test]
fn a_peer_from_anywhere_is_known_by_its_id_and_comes_to_us() {
    let any = GOOD.replace("198.51.100.1", "any");
    assert!(error(&any).contains("needs ike.peer_id"));
    let with_id = any.replace("[tunnel.ike]", "[tunnel.ike]\npeer_id = \"b.example.net\"");
    assert_eq!(parse(&with_id).unwrap().tunnels[0].start, Start::Respond);
    let eager = with_id.replace("[[tunnel]]", "[[tunnel]]\nstart = \"immediate\"");
    assert!(error(&eager).contains("allowed: respond"));
}

#[test]
fn a_secret_is_in_no_output() {
    let config = parse(GOOD).unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    let line = format!("psk = \"{SECRET}\"");
    for text in [
        GOOD.replace(&line, &format!("psk = \"{SECRET} \"")),
        GOOD.replace(&line, &format!("psk = [\"{SECRET}\"]")),
        GOOD.replace(&line, &format!("psk = \"{SECRET}")),
        GOOD.replace(&line, &format!("psk = {SECRET}")),
        GOOD.replace(&line, &format!("psk = {{ key = \"{SECRET}\" }}")),
        GOOD.replace(&line, &format!("{line}\n{line}")),
        GOOD.replace(&line, &format!("pks = \"{SECRET}\"")),
        with("[gateway]", &line),
    ] {
        let e = parse(&text).expect_err(&text);
        assert!(!format!("{e} {e:?}").contains(SECRET), "{e}");
    }
}

#[test]
fn a_wrong_file_is_told_apart_from_a_missing_one() {
    let e = Config::load(Path::new("/nonexistent/adit.toml")).unwrap_err();
    assert!(
        matches!(e, ConfigError::Unreadable { .. }) && e.to_string().starts_with("/nonexistent/adit.toml: ")
    );
    let said = error("[gateway]\nname = \"a");
    assert!(said.starts_with("adit.toml:2:") && said.contains("not TOML"), "{said}");
}

#[test]
fn a_file_that_names_no_resource_has_none_and_one_that_names_any_needs_a_gateway() {
    for text in ["", "# nothing\n", "[api]\nlisten = \"127.0.0.1:8443\"\n"] {
        let config = parse(text).unwrap();
        assert!(!config.names_resources(), "{text}");
        assert_eq!(config.api.listen.is_some(), text.contains("listen"));
    }
    let warned = parse("[api]\nreveal_secrets = true\n").unwrap().warnings;
    assert!(warned.len() == 1 && warned[0].message.contains("reveal-secrets"), "{warned:?}");
    for text in
        ["[gateway]\n", "gateway = {}\n", "[[peer]]\nname = \"b\"\naddress = \"any\"\n", "[[alarm]]\n"]
    {
        assert!(error(text).contains("gateway.name: is required"), "{text}");
    }
    for (text, words) in [
        ("[[tunel]]\n", "did you mean tunnel?"),
        ("[api]\nlisten = 1\n", "api.listen: 1 must be text in quotes"),
        ("[api]\nlisen = \"127.0.0.1:8443\"\n", "did you mean listen?"),
    ] {
        let said = error(text);
        assert!(said.contains(words) && !said.contains("gateway.name"), "{said}");
    }
}
