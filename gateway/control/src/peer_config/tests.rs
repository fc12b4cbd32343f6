//! Golden files: `golden/TUNNEL/VENDOR.txt` is what is written for the tunnels of `golden/tunnels.toml`, errors included.
//! `ADIT_UPDATE_GOLDEN=1` writes them anew; what they say is for people to judge.

use super::{PeerFile, Request, Vendor, write};
use crate::config::{Config, Tunnel};
use std::{fs, path::PathBuf};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/peer_config/golden")
}

fn config() -> Config {
    Config::load(&directory().join("tunnels.toml")).unwrap()
}

fn request(vendor: Vendor) -> Request {
    Request { vendor, with_psk: true, address: None }
}

fn text(files: &[PeerFile]) -> String {
    match files {
        [one] => one.text.clone(),
        several => several.iter().map(|f| format!("---- {} ----\n{}", f.name, f.text)).collect(),
    }
}

fn written(config: &Config, tunnel: &Tunnel, vendor: Vendor) -> String {
    match write(&config.gateway.name, tunnel, request(vendor)) {
        Ok(files) => text(&files),
        Err(e) => format!("error: {e}\n"),
    }
}

#[test]
fn every_vendor_gets_what_its_golden_file_says() {
    let config = config();
    let update = std::env::var_os("ADIT_UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for tunnel in &config.tunnels {
        for vendor in Vendor::ALL {
            let file = directory()
                .join(tunnel.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
                .join(format!("{vendor}.txt"));
            // A version in the first line would change every file at every release.
            let now = written(&config, tunnel, vendor)
                .replace(concat!("Adit ", env!("CARGO_PKG_VERSION")), "Adit VERSION");
            if update {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, &now).unwrap();
            } else if fs::read_to_string(&file).ok().as_ref() != Some(&now) {
                wrong.push(format!("{}:\n{now}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "ADIT_UPDATE_GOLDEN=1 writes them:\n{}", wrong.join("\n"));
}

#[test]
fn without_leave_no_vendor_gets_a_key() {
    let config = config();
    for tunnel in &config.tunnels {
        let psk = std::str::from_utf8(tunnel.psk.reveal()).unwrap();
        for vendor in Vendor::ALL {
            let hidden = Request { with_psk: false, ..request(vendor) };
            let Ok(files) = write(&config.gateway.name, tunnel, hidden) else { continue };
            let hidden = text(&files);
            assert!(
                !hidden.contains(psk) && hidden.contains("PUT-THE-PRE-SHARED-KEY-HERE"),
                "{vendor}: {hidden}"
            );
            assert!(!hidden.contains("0x0102030405060708"), "{vendor}: {hidden}");
            let shown = written(&config, tunnel, vendor);
            assert!(
                shown.contains(psk) || shown.contains("0x") || psk.contains(['"', '\\']),
                "{vendor}: {shown}"
            );
            assert!(!format!("{files:?}").contains("KEY-HERE"));
        }
    }
}

/// What is written for another Adit is the other end of the same tunnel: written back from there, it is what it was.
#[test]
fn an_adit_reads_what_is_written_for_it() {
    let config = config();
    for tunnel in &config.tunnels {
        let gateway = |address: &str| {
            format!("[gateway]\nname = \"other\"\naddress = \"{address}\"\nwan = \"w\"\nlan = [\"l\"]\n")
        };
        let address = match &tunnel.peer {
            crate::config::PeerAddress::Ip(ip) => ip.to_string(),
            _ => "198.51.100.1".to_owned(),
        };
        let files = write(&config.gateway.name, tunnel, request(Vendor::Adit)).unwrap();
        let text = text(&files).replace("PUT-THE-NETWORKS-BEHIND-THE-OTHER-SIDE-HERE", "10.20.0.0/16");
        let there = Config::parse("there".as_ref(), &(gateway(&address) + &text)).unwrap();
        let [other] = &there.tunnels[..] else { panic!() };
        assert_eq!(
            (&other.psk, &other.ppk, other.local),
            (&tunnel.psk, &tunnel.ppk, address.parse().unwrap())
        );
        assert_eq!(other.ipsec.encryption, tunnel.ipsec.encryption);
        assert_eq!(
            (other.ipsec.protocol, &other.ipsec.pfs, other.ipsec.esn),
            (tunnel.ipsec.protocol, &tunnel.ipsec.pfs, tunnel.ipsec.esn)
        );
        assert_eq!(other.dpd, tunnel.dpd);
        assert_eq!((&other.local_id, &other.peer_id), (&tunnel.peer_id, &tunnel.local_id));
        assert_eq!(
            (&other.local_subnets, &other.remote_subnets),
            (&tunnel.remote_subnets, &tunnel.local_subnets)
        );
        assert_eq!(other.ike.encryption, tunnel.ike.encryption);
        assert_eq!(
            (&other.ike.dh, &other.ike.prf, other.ike.mode),
            (&tunnel.ike.dh, &tunnel.ike.prf, tunnel.ike.mode)
        );
    }
}

#[test]
fn an_address_before_a_nat_takes_the_place_of_the_private_one() {
    let config = config();
    let behind = config.tunnels.iter().find(|t| t.name == "ikev2-gcm").unwrap();
    let behind = Tunnel { local: "192.168.9.1".parse().unwrap(), ..behind.clone() };
    let said = |address| {
        let request = Request { address, ..request(Vendor::Strongswan) };
        text(&write("a", &behind, request).unwrap())
    };
    assert!(said(None).contains("192.168.9.1 is a private address"));
    let public = said("203.0.113.9".parse().ok());
    assert!(
        public.contains("remote_addrs = 203.0.113.9") && !public.contains("is a private address"),
        "{public}"
    );
}
