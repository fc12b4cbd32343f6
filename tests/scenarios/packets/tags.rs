//! Frames with tags: a priority hides nothing from the policies, and a VLAN is another interface's.

use adit_tests::capture::{Capture, Kind};
use adit_tests::inject;
use adit_tests::namespace::Namespace;
use adit_tests::pair::Pair;
use adit_tests::topology::{HOST_A, HOST_B, LAN, TO_A, TO_B, Topology, WAN};
use anyhow::{Context, Result, ensure};

/// Port of the datagrams.
const PROBE: u16 = 7778;
const SENT: usize = 5;

/// VLAN 0, with the highest priority.
const PRIORITY: [u8; 4] = [0x81, 0, 0xe0, 0];
const SERVICE_PRIORITY: [u8; 4] = [0x88, 0xa8, 0xe0, 0];
/// VLAN 7.
const VLAN: [u8; 4] = [0x81, 0, 0, 7];

pub(crate) fn looked_behind() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    let wan = Capture::start(&topology.router, TO_A)?;
    let [a, b] = [(&topology.gateway_a, LAN), (&topology.gateway_b, WAN)]
        .map(|(gateway, interface)| mac(gateway, interface));
    let (a, b) = (a?, b?);
    for (tags, arriving) in [
        (&[][..], SENT),
        (&[PRIORITY][..], SENT),
        (&[SERVICE_PRIORITY, PRIORITY][..], SENT),
        (&[VLAN][..], 0),
        (&[PRIORITY, VLAN][..], 0),
        (&[PRIORITY, PRIORITY, PRIORITY][..], 0),
    ] {
        // From the LAN of gateway A into the tunnel.
        let arrived = arrived(&topology, || sent(&topology.host_a, "eth0", a, tags))?;
        ensure!(arrived == arriving, "{arrived} of {SENT} came through the tunnel with the tags {tags:02x?}");
    }
    // In clear from the WAN of gateway B, nothing arrives whatever it carries.
    for tags in [&[][..], &[PRIORITY][..], &[VLAN][..]] {
        let arrived = self::arrived(&topology, || sent(&topology.router, TO_B, b, tags))?;
        ensure!(arrived == 0, "{arrived} of {SENT} came in clear from the WAN with the tags {tags:02x?}");
    }
    let tally = wan.finish()?.tally()?;
    tally.expect_no_plaintext("the router")?;
    ensure!(tally.count(Kind::Esp) as usize >= 3 * SENT, "{tally}");
    pair.still_works(&topology)?;
    pair.end(topology)
}

/// How many of the datagrams come to host B while `work` is done.
fn arrived(topology: &Topology, work: impl FnOnce() -> Result<()>) -> Result<usize> {
    let capture = Capture::whole(&topology.host_b, "eth0", &format!("udp port {PROBE}"))?;
    work()?;
    Ok(capture.finish()?.frames(Kind::Plaintext)?.len())
}

/// Sends datagrams from host A's address to host B's with these tags, to the MAC address `to`.
fn sent(from: &Namespace, interface: &str, to: [u8; 6], tags: &[[u8; 4]]) -> Result<()> {
    let packet = inject::ipv4(HOST_A, HOST_B, 17, &inject::udp(PROBE, PROBE, b"tagged"));
    let frame = [&to[..], &mac(from, interface)?, &tags.concat(), &[8, 0], &summed(packet)].concat();
    inject::frames(from, interface, &vec![frame; SENT])
}

/// An IPv4 packet with its header's checksum, which no kernel fills in on the way.
fn summed(mut packet: Vec<u8>) -> Vec<u8> {
    let sum: u32 = packet[..20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet
}

fn mac(namespace: &Namespace, interface: &str) -> Result<[u8; 6]> {
    let text = namespace.ip(&["-o", "link", "show", "dev", interface])?;
    let word = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    let bytes: Vec<u8> = word
        .context("no MAC address")?
        .split(':')
        .map(|b| u8::from_str_radix(b, 16))
        .collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("a MAC address has six bytes")
}
