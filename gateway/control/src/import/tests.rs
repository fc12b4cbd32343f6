//! Samples made after the documented structure of each format, with keys made up, and what comes of them: `samples/` holds
//! both. `ADIT_UPDATE_GOLDEN=1` writes the latter anew.

use super::{Extra, Format, ImportError, import};
use crate::{
    config::{Config, Tunnel},
    peer_config::{self, Request, Vendor},
};
use adit_ike::{Encryption, Group, Id, Mode, Version};
use proptest::prelude::*;
use std::{fs, path::PathBuf};

const GATEWAY: &str = "[gateway]\nname = \"here\"\naddress = [\"203.0.113.12\", \"2001:db8:ffff::1\"]\nwan = \"w\"\nlan = [\"l\"]\n";

const SAMPLES: [(Format, &str); 6] = [
    (Format::Aws, "aws-generic.txt"),
    (Format::Aws, "aws-generic-bgp.txt"),
    (Format::Strongswan, "swanctl.conf"),
    (Format::Strongswan, "ipsec.conf"),
    (Format::Alibaba, "alibaba.json"),
    (Format::Alibaba, "alibaba-dual.json"),
];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/import/samples")
}

fn sample(name: &str) -> String {
    fs::read_to_string(directory().join(name)).unwrap()
}

fn read(format: Format, name: &str) -> super::Imported {
    let secrets = sample("ipsec.secrets");
    let routes = ["172.16.0.0/12".parse().unwrap()];
    let extra = Extra { secrets: Some(&secrets), remote_subnets: &routes };
    import(format, &sample(name), extra).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The tunnels of the text below a gateway.
fn tunnels(text: &str) -> Vec<Tunnel> {
    Config::parse("here".as_ref(), &format!("{GATEWAY}{text}"))
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
        .tunnels
}

fn refused(format: Format, text: &str) -> ImportError {
    import(format, text, Extra::default()).unwrap_err()
}

#[test]
fn every_sample_becomes_what_its_golden_file_says() {
    for (format, name) in SAMPLES {
        let text =
            read(format, name).text.replace(concat!("Adit ", env!("CARGO_PKG_VERSION")), "Adit VERSION");
        let golden = directory().join(format!("{name}.toml"));
        if std::env::var_os("ADIT_UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&golden).ok().as_deref(), Some(text.as_str()), "{name}");
        tunnels(&text);
    }
}

#[test]
fn aws_gives_two_tunnels_of_which_one_backs_up_the_other() {
    let imported = read(Format::Aws, "aws-generic.txt");
    assert_eq!(imported.tunnels, ["vpn-0a1b2c3d4e5f60718-1", "vpn-0a1b2c3d4e5f60718-2"]);
    let [first, second] = &tunnels(&imported.text)[..] else { panic!() };
    assert_eq!(first.peer.to_string(), "198.51.100.21");
    assert_eq!(first.psk.reveal(), b"AbcDefGhiJkl.MnoPqr_1234567890ab");
    assert_eq!((first.ike.version, &first.ike.encryption[..]), (Version::Ikev2, &[Encryption::Aes128][..]));
    assert_eq!((&first.ike.dh[..], &first.ipsec.pfs[..]), (&[Group::Modp1024][..], &[Group::Modp1024][..]));
    assert_eq!((first.ike.lifetime.as_secs(), first.mss_clamp), (28_800, Some(1379)));
    assert_eq!(first.routes.as_ref().unwrap()[0].to_string(), "172.16.0.0/12");
    let check = first.health_check.unwrap();
    assert_eq!(
        (check.source.to_string(), check.destination.to_string()),
        ("169.254.42.2".into(), "169.254.42.1".into())
    );
    assert_eq!(second.health_check.unwrap().destination.to_string(), "169.254.43.1");
    assert_eq!(second.peer.to_string(), "198.51.100.22");
    assert_eq!(second.psk.reveal(), b"ZyxWvuTsrQpo.NmlKji_0987654321zy");
    let group = "[[group]]\nname = \"vpn-0a1b2c3d4e5f60718\"\nmembers = [\"vpn-0a1b2c3d4e5f60718-1\", \"vpn-0a1b2c3d4e5f60718-2\"]\n";
    assert!(imported.text.ends_with(group), "{}", *imported.text);
}

#[test]
fn aws_with_bgp_gives_two_sessions() {
    let imported = read(Format::Aws, "aws-generic-bgp.txt");
    assert!(!imported.text.contains("[[group]]"), "BGP says which of them carries what");
    let tunnels = tunnels(&imported.text);
    let spoken: Vec<_> = tunnels
        .iter()
        .map(|t| t.bgp.as_deref().unwrap())
        .map(|b| {
            (b.local_asn, b.peer_asn, b.local_ip.to_string(), b.peer_ip().to_string(), b.hold_time.as_secs())
        })
        .collect();
    let session = |net: u8| (65_000, 7224, format!("169.254.{net}.2"), format!("169.254.{net}.1"), 30);
    assert_eq!(spoken, [session(42), session(43)]);
    assert!(tunnels.iter().all(|t| t.health_check.is_none()));
    let wrong = sample("aws-generic-bgp.txt").replace("ASN	          : 65000", "ASN : AS65000");
    assert!(refused(Format::Aws, &wrong).to_string().contains("is no AS number"));
}

#[test]
fn swanctl_conf_is_read_with_its_children_and_keys() {
    let imported = read(Format::Strongswan, "swanctl.conf");
    let [paris, old] = &tunnels(&imported.text)[..] else { panic!("{}", *imported.text) };
    assert_eq!(paris.psk.reveal(), b"Sesame_paris_0123456789");
    assert_eq!(
        (&paris.local_id, &paris.peer_id),
        (&Id::Fqdn("berlin.example.net".into()), &Id::UserFqdn("vpn@paris.example.net".into()))
    );
    assert_eq!(paris.ike.encryption, [Encryption::Aes256Gcm16, Encryption::Aes256]);
    assert_eq!((paris.local_subnets.len(), paris.remote_subnets.len(), paris.ipsec.esn), (2, 2, true));
    assert_eq!((old.name.as_str(), old.ike.version), ("old-device", Version::Ikev1));
    assert_eq!((old.local_subnets.len(), old.remote_subnets.len(), old.psk.reveal()), (2, 1, &b"Sesa"[..]));
}

#[test]
fn ipsec_conf_is_read_with_what_its_conns_take_over() {
    let imported = read(Format::Strongswan, "ipsec.conf");
    let [paris, old] = &tunnels(&imported.text)[..] else { panic!("{}", *imported.text) };
    assert_eq!((&paris.peer_id, paris.ike.lifetime.as_secs()), (&Id::KeyId(vec![0x0a, 0xff]), 28_800));
    assert_eq!(paris.dpd.unwrap().timeout.as_secs(), 30);
    assert_eq!(paris.ike.prf[0].hash_name(), "sha384");
    assert_eq!((old.ike.version, old.ike.mode), (Version::Ikev1, Mode::Aggressive));
    assert_eq!((old.remote_subnets.len(), old.psk.reveal()), (2, &b"Sesame_old_0123456789"[..]));
}

#[test]
fn another_adits_file_keeps_its_tunnels_and_not_its_gateway() {
    let text = "# mine\n[gateway]\nname = \"x\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\n[[peer]]\nname = \"b\"\n\
                address = \"198.51.100.1\"\n[[tunnel]]\nname = \"t\"\npeer = \"b\"\nlocal_subnets = [\"10.1.0.0/16\"]\n\
                remote_subnets = [\"10.2.0.0/16\"]\npsk = \"Sesame_0123456789\" # ours\n";
    let imported = import(Format::Adit, text, Extra::default()).unwrap();
    assert!(!imported.text.contains("[gateway]") && imported.text.contains("# ours"), "{}", *imported.text);
    assert_eq!((imported.tunnels, tunnels(&imported.text).len()), (vec!["t".to_owned()], 1));
    let wrong = refused(Format::Adit, &text.replace("10.2.0.0/16", "10.2.0.0/33"));
    assert_eq!((wrong.line, wrong.message.contains("remote_subnets")), (14, true));
}

#[test]
fn a_key_that_is_hidden_is_none() {
    let text = "[[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\n[[tunnel]]\nname = \"t\"\npeer = \"b\"\n\
                local_subnets = [\"10.1.0.0/16\"]\nremote_subnets = [\"10.2.0.0/16\"]\n\
                psk = \"PUT-THE-PRE-SHARED-KEY-HERE\" # ours\n[tunnel.ike]\nppk = { id = \"x\", key = \"PUT-THE-POST-QUANTUM-KEY-HERE\" }\n";
    let read = import(Format::Adit, text, Extra::default()).unwrap().text;
    for part in
        ["psk = \"PUT THE PRE SHARED KEY HERE\" # ours\n", "key = \"PUT THE POST QUANTUM KEY HERE\" }"]
    {
        assert!(read.contains(part), "{part}: {}", *read);
    }
    let refused = Config::parse("here".as_ref(), &format!("{GATEWAY}{}", *read)).unwrap_err().to_string();
    assert!(refused.contains("psk: ") && refused.contains("ppk.key: "), "{refused}");
}

/// What is written for strongSwan or another Adit, read again: the same tunnel from the other side.
#[test]
fn what_is_written_for_the_other_side_is_read_from_there() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/peer_config/golden/tunnels.toml");
    let config = Config::load(&golden).unwrap();
    let mut read = 0;
    for tunnel in &config.tunnels {
        for (vendor, format) in [
            (Vendor::Strongswan, Format::Strongswan),
            (Vendor::StrongswanIpsec, Format::Strongswan),
            (Vendor::Adit, Format::Adit),
        ] {
            let request = Request { vendor, with_psk: true, address: None };
            let Ok(files) = peer_config::write("berlin", tunnel, request) else { continue };
            let text = files[0].text.replace("PUT-THE-NETWORKS-BEHIND-THE-OTHER-SIDE-HERE", "10.20.0.0/16");
            let extra = Extra {
                secrets: files.get(1).map(|f| f.text.as_str()),
                remote_subnets: &["10.20.0.0/16".parse().unwrap()],
            };
            let imported =
                import(format, &text, extra).unwrap_or_else(|e| panic!("{vendor}, {}: {e}", tunnel.name));
            let [other] = &tunnels(&imported.text)[..] else { panic!("{}", *imported.text) };
            assert_eq!(
                (&other.psk, &other.local_id),
                (&tunnel.psk, &tunnel.peer_id),
                "{vendor} {}",
                tunnel.name
            );
            assert_eq!(other.peer_id, tunnel.local_id);
            assert_eq!(
                (&other.ike.encryption, &other.ike.dh, &other.ike.prf),
                (&tunnel.ike.encryption, &tunnel.ike.dh, &tunnel.ike.prf)
            );
            assert_eq!(
                (&other.ipsec.pfs, other.ipsec.protocol, other.ipsec.esn),
                (&tunnel.ipsec.pfs, tunnel.ipsec.protocol, tunnel.ipsec.esn)
            );
            let sorted = |mut list: Vec<crate::config::Subnet>| {
                list.sort();
                list
            };
            assert_eq!(sorted(other.local_subnets.clone()), sorted(tunnel.remote_subnets.clone()));
            assert_eq!(sorted(other.remote_subnets.clone()), sorted(tunnel.local_subnets.clone()));
            read += 1;
        }
    }
    assert!(read > 20, "{read}");
}

#[test]
fn what_cannot_be_taken_is_refused_with_its_line() {
    let swanctl = sample("swanctl.conf");
    for (format, text, line, words) in [
        (Format::Strongswan, swanctl.replace("modp1024", "frodo640"), 34, "frodo640"),
        (Format::Strongswan, swanctl.replace("remote { auth = psk }", "remote { auth = pubkey }"), 36, "pre-shared keys only"),
        (Format::Strongswan, swanctl.replace("remote_ts = 10.4.0.0/16\n                esp_proposals = aes128-sha1\n                start_action = trap }\n        }", "remote_ts = 10.9.0.0/16\n esp_proposals = aes128-sha1\n start_action = trap }\n }"), 38, "not all pairs"),
        (Format::Strongswan, "connections {\n a {\n".into(), 2, "not closed"),
        (Format::Strongswan, "connections {\n}\n}\n".into(), 3, "closes nothing"),
        (Format::Strongswan, "include other.conf\n".into(), 1, "not read"),
        (Format::Strongswan, "conn a\n  also=a\n  right=1.2.3.4\n".into(), 2, "circles"),
        (Format::Strongswan, "conn a\n  nonsense\n".into(), 2, "no value"),
        (Format::Aws, sample("aws-generic.txt").replace("Group 2", "Group 23"), 29, "Diffie-Hellman"),
        (Format::Aws, "nothing\n".into(), 1, "no tunnel"),
        (Format::Alibaba, sample("alibaba.json").replace("\"group2\"", "\"group22\""), 15, "IkePfs"),
        (Format::Alibaba, "{\n\"Remote\": }".into(), 2, "not JSON"),
        (Format::Adit, "[[tunnel]]\nname = ".into(), 2, "not TOML"),
    ] {
        let e = refused(format, &text);
        assert!(e.line == line && e.message.contains(words), "{words}: {e}");
    }
    let secret = sample("alibaba.json").replace("Sesame_alibaba_0123456789", "two words");
    let e = refused(Format::Alibaba, &secret);
    assert!(e.line == 16 && !e.message.contains("two words"), "{e}");
    assert!(refused(Format::Aws, &"x".repeat(super::LONGEST + 1)).message.contains("longer"));
    let deep = "a {\n".repeat(1000);
    assert!(refused(Format::Strongswan, &deep).message.contains("deeper"));
}

/// Reads it as everything; what it says is nobody's business here, but that it comes back.
#[test]
fn what_others_wrote_stays_behind_the_sign_of_a_comment() {
    let secrets = sample("ipsec.secrets");
    let extra = || Extra { secrets: Some(&secrets), remote_subnets: &[] };
    for (format, name, break_) in
        [(Format::Alibaba, "alibaba.json", "\\n"), (Format::Strongswan, "swanctl.conf", "\n")]
    {
        let plain = sample(name);
        let evil = ["1.2.3.4", "[api]", "reveal_secrets=true", "#"].join(break_);
        let (address, quoted) = match format {
            Format::Alibaba => ("203.0.113.12", evil),
            _ => ("local_addrs = 203.0.113.12", format!("local_addrs = \"{evil}\"")),
        };
        assert!(plain.contains(address));
        // Refused, or harmless.
        if let Ok(read) = import(format, &plain.replacen(address, &quoted, 1), extra()) {
            assert!(read.text.contains("reveal_secrets") || format == Format::Strongswan);
            assert!(!read.text.lines().any(|line| line.starts_with("[api]") || line.starts_with("reveal")));
        } else {
            assert_eq!(format, Format::Strongswan);
        }
    }
}

fn everywhere(text: &str) {
    for format in Format::ALL {
        let extra = Extra { secrets: Some(text), ..Extra::default() };
        if let Err(e) = import(format, text, extra) {
            assert!(e.line >= 1 && e.line <= text.lines().count() + 1, "{e}");
        }
    }
    let _ = super::ipsec_conf::read(text, Extra { secrets: Some(text), ..Extra::default() });
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        everywhere(&text);
    }

    #[test]
    fn a_changed_sample_is_read_or_refused(
        which in 0..SAMPLES.len(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40, "[ \\n{}=#:\"a-z0-9@./-]{0,6}"), 1..6),
    ) {
        let mut text: Vec<char> = sample(SAMPLES[which].1).chars().collect();
        for (at, length, put) in cuts {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, put.chars());
        }
        everywhere(&text.into_iter().collect::<String>());
    }
}
