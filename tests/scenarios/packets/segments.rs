//! TCP whose segments are made to fit the tunnel, of hosts and of a gateway itself.

use adit_tests::capture::{Capture, Kind};
use adit_tests::pair::Pair;
use adit_tests::topology::{HOST_A, HOST_B, LAN_A, TO_A, Topology, WAN};
use adit_tests::traffic::tcp_stream;
use anyhow::{Context, Result, ensure};
use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};

/// The MTU between gateway A and the router. AES-GCM leaves 1,246 bytes of it to a packet, of which 40 are headers.
const NARROW: &str = "1300";
const LARGEST: u16 = 1206;
const SYN: &str = "tcp[tcpflags] & tcp-syn != 0";

/// Both hosts announce what their own links take, and neither hears more than what the tunnel takes.
pub(crate) fn of_hosts() -> Result<()> {
    let (topology, pair) = narrow()?;
    let captures = [&topology.host_a, &topology.host_b].map(|host| Capture::whole(host, "eth0", SYN));
    tcp_stream(&topology.host_a, &topology.host_b, HOST_B, 1).with_context(|| pair.words())?;
    for (capture, own) in captures.into_iter().zip([HOST_A, HOST_B]) {
        let (mut sent, mut heard) = (0, 0);
        for (source, size) in announced(capture?)? {
            let expected = if source == own.octets() { &mut sent } else { &mut heard };
            *expected += 1;
            let largest = if source == own.octets() { 1460 } else { LARGEST };
            ensure!(size == largest, "{source:?} announces {size} where {own} sees it, not {largest}");
        }
        ensure!(sent > 0 && heard > 0, "{sent} SYNs of {own}, {heard} of the other");
    }
    pair.end(topology)
}

/// What the gateway sends goes through the TUN device, whose MTU knows nothing of the path.
pub(crate) fn of_the_gateway() -> Result<()> {
    let (topology, pair) = narrow()?;
    let clear = Capture::start(&topology.router, TO_A)?;
    for (client, server, address) in
        [(&topology.gateway_a, &topology.host_b, HOST_B), (&topology.host_b, &topology.gateway_a, LAN_A)]
    {
        let capture = Capture::whole(&topology.host_b, "eth0", SYN)?;
        let rate = tcp_stream(client, server, address, 1).with_context(|| pair.words())?;
        ensure!(rate > 1.0, "{rate} Mbit/s");
        let gateway: Vec<u16> =
            announced(capture)?.into_iter().filter(|(s, _)| *s == LAN_A.octets()).map(|(_, m)| m).collect();
        ensure!(!gateway.is_empty() && gateway.iter().all(|m| *m == LARGEST), "announced: {gateway:?}");
    }
    clear.finish()?.tally()?.expect_no_plaintext("the router")?;
    pair.end(topology)
}

/// Two connected Adits, the link of gateway A's WAN narrow.
fn narrow() -> Result<(Topology, Pair)> {
    let (topology, pair) = Pair::up()?;
    topology.gateway_a.ip(&["link", "set", WAN, "mtu", NARROW])?;
    topology.router.ip(&["link", "set", TO_A, "mtu", NARROW])?;
    pair.still_works(&topology)?;
    Ok((topology, pair))
}

/// Source and maximum segment size of each SYN.
fn announced(capture: Capture) -> Result<Vec<([u8; 4], u16)>> {
    let frames = capture.finish()?.frames(Kind::Plaintext)?;
    let read = |frame: &Vec<u8>| {
        let source = frame.get(26..30)?.try_into().ok()?;
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
        let size = tcp.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
            _ => None,
        })?;
        Some((source, size))
    };
    frames.iter().map(|frame| read(frame).context("a SYN that announces nothing")).collect()
}
