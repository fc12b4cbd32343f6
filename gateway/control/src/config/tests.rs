use super::*;
use adit_ike::{Dpd, Encryption, Group, Integrity, Prf};
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
        ("[gateway]", "alarm_template = \"x\"", "gateway.alarm_template"),
        ("[gateway]", "remark = \"x\"", "gateway.remark"),
        ("[[peer]]", "asn = 65001", "peer \"b\".asn"),
        ("[[peer]]", "labels = { a = \"b\" }", "peer \"b\".labels"),
        ("[[tunnel]]", "routing_mode = \"route\"", "tunnel \"a-b\".routing_mode"),
        ("[[tunnel]]", "bgp = { local_asn = 1 }", "tunnel \"a-b\".bgp"),
        ("[[tunnel]]", "health_check = { destination = \"10.2.0.1\" }", "tunnel \"a-b\".health_check"),
        ("[[tunnel]]", "group = \"g\"", "tunnel \"a-b\".group"),
        ("[[tunnel]]", "id = \"x\"", "tunnel \"a-b\".id"),
        ("[tunnel.ike]", "version = \"ikev1\"", "tunnel \"a-b\".ike.version"),
        ("[tunnel.ike]", "mode = \"aggressive\"", "tunnel \"a-b\".ike.mode"),
        ("[tunnel.ike]", "additional_ke = \"mlkem768\"", "tunnel \"a-b\".ike.additional_ke"),
        ("[tunnel.ipsec]", "protocol = \"ah\"", "tunnel \"a-b\".ipsec.protocol"),
        ("[tunnel.ipsec]", "pfs = 14", "tunnel \"a-b\".ipsec.pfs"),
        ("[tunnel.ipsec]", "lifetime_bytes = 1", "tunnel \"a-b\".ipsec.lifetime_bytes"),
        ("[tunnel.ipsec]", "lifetime_packets = 1", "tunnel \"a-b\".ipsec.lifetime_packets"),
    ] {
        let said = error(&with(table, line));
        assert!(
            said.contains(&format!(": {field}: ")) && said.contains("is not available in this version"),
            "{said}"
        );
    }
    let said = error(&format!("{GOOD}\n[[group]]\nname = \"g\"\n"));
    assert!(said.contains(": group: is not available in this version"), "{said}");
}

#[test]
fn every_algorithm_of_the_product_is_known_or_refused_by_name() {
    let absent = "is not available in this version";
    for (table, field, words) in [
        ("[tunnel.ike]", "encryption", "des 3des chacha20poly1305"),
        ("[tunnel.ike]", "integrity", "md5 sha384 sha512"),
        ("[tunnel.ike]", "prf", "md5 sha384 sha512"),
        ("[tunnel.ike]", "dh", "1 5 15 16 20 21 24"),
        ("[tunnel.ipsec]", "encryption", "null des 3des chacha20poly1305"),
        ("[tunnel.ipsec]", "integrity", "md5 sha384 sha512"),
        ("[tunnel.ipsec]", "pfs", "1 2 5 14 15 16 19 20 21 24 31"),
    ] {
        for word in words.split(' ') {
            let said = error(&with(table, &format!("{field} = [\"{word}\"]")));
            assert!(said.contains(absent) && said.contains(word), "{said}");
        }
    }
    for (table, field, words) in [
        ("[tunnel.ike]", "encryption", "aes128 aes192 aes256 aes128gcm16 aes256gcm16"),
        ("[tunnel.ipsec]", "encryption", "aes128 aes192 aes256 aes128gcm16 aes192gcm16 aes256gcm16"),
        ("[tunnel.ike]", "prf", "sha1 sha256"),
        ("[tunnel.ike]", "dh", "2 14 19 31"),
        ("[tunnel.ipsec]", "integrity", "sha1 sha256"),
        ("[tunnel.ipsec]", "pfs", "disabled"),
    ] {
        for word in words.split(' ') {
            parse(&with(table, &format!("{field} = \"{word}\""))).unwrap();
        }
    }
}

#[test]
fn what_works_and_should_not_be_used_is_warned_of() {
    for (table, line, words) in [
        ("[tunnel.ike]", "dh = 2", "group 2"),
        ("[tunnel.ike]", "prf = [\"sha256\", \"sha1\"]", "sha1 is deprecated"),
        ("[tunnel.ipsec]", "encryption = \"aes128\"\nintegrity = \"sha1\"", "sha1 is deprecated"),
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
            "remote_subnets: are 256, more than IKEv2 can name at once; allowed: 1..255",
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
    assert!(said.contains("tunnel: are 16385; allowed: at most 16384"), "{said}");
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
    assert!(error("").contains("gateway.name: is required"));
}
