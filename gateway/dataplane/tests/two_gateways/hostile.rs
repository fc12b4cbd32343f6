//! Packets that must not get through.

use super::{
    lab::{GCM, INBOUND, LAN_SLOT, Lab, OUTBOUND, eventually},
    tools::{drops, echo_hosts, mac_address, tap},
};
use adit_maps::{
    address::Address,
    sa::DropCause,
    user::{Sad, Selectors, Verdicts},
    verdict::Verdict,
};
use std::{net::UdpSocket, os::fd::AsRawFd, sync::atomic::Ordering::Relaxed};

pub(crate) fn replay_and_corruption() {
    let lab = Lab::up(GCM);
    assert!(echo_hosts(&lab));
    let tap = tap(&lab.router, c"to-b");
    assert!(echo_hosts(&lab));
    let mut frame = vec![0; 2048];
    let esp = loop {
        // SAFETY: as many writable bytes as are said.
        let n = unsafe { libc::recv(tap.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        assert!(n > 0, "no ESP packet was seen on the router");
        let seen = &frame[..n as usize];
        // ESP from A to B.
        if seen.len() > 34 && seen[12..14] == [8, 0] && seen[23] == 50 && seen[26..30] == [192, 0, 2, 1] {
            break seen.to_vec();
        }
    };
    let send = |frame: &[u8]| {
        // SAFETY: as many readable bytes as are said.
        let n = unsafe { libc::send(tap.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(n, frame.len() as isize);
    };
    let before = lab.b.state(INBOUND, |s| s.packets.load(Relaxed));
    send(&esp);
    eventually("a replay is counted", || drops(&lab.b, INBOUND, DropCause::Replay) == 1);
    let mut corrupted = esp.clone();
    // A number not used yet, so that the ICV has to tell.
    corrupted[41] = 200;
    send(&corrupted);
    eventually("a wrong ICV is counted", || drops(&lab.b, INBOUND, DropCause::Authentication) == 1);
    let mut truncated = esp[..44].to_vec();
    truncated[16..18].copy_from_slice(&30u16.to_be_bytes());
    send(&truncated);
    eventually("a truncated packet is counted", || drops(&lab.b, INBOUND, DropCause::Malformed) == 1);
    assert_eq!(lab.b.state(INBOUND, |s| s.packets.load(Relaxed)), before);
    assert!(echo_hosts(&lab));
}

pub(crate) fn forbidden() {
    let lab = Lab::up(GCM);
    // The first remote selector of B, read with the first packet.
    let selectors = Selectors::open(&lab.b.directory()).unwrap();
    let mut selector = selectors.get(2).unwrap();
    selector.first = Address::v4([10, 1, 0, 77]);
    selectors.set(2, selector);
    let client = lab.host_a.run(|| UdpSocket::bind("10.1.0.2:0").unwrap());
    client.connect("10.2.0.2:7777").unwrap();
    client.send(b"not for this SA").unwrap();
    eventually("the selector is checked", || drops(&lab.b, INBOUND, DropCause::Selector) == 1);
    assert_eq!(lab.b.state(INBOUND, |s| s.packets.load(Relaxed)), 0);

    client.set_ttl(1).unwrap();
    client.send(b"its last hop").unwrap();
    eventually("the hop limit runs out", || drops(&lab.a, OUTBOUND, DropCause::HopLimit) == 1);
    assert_eq!(lab.a.dataplane().report().counters.icmp_sent, 1);
}

pub(crate) fn freed() {
    let lab = Lab::up(GCM);
    assert!(echo_hosts(&lab));
    Sad::open(&lab.b.directory()).unwrap().free(INBOUND);
    assert!(!echo_hosts(&lab));
    assert_eq!(drops(&lab.b, INBOUND, DropCause::NoSa), 1);
}

/// A promiscuous interface picks up what the host sends to another gateway of its link; and the port's own MAC address
/// may change.
pub(crate) fn other_mac() {
    let lab = Lab::up(GCM);
    assert!(echo_hosts(&lab));
    let tap = tap(&lab.host_a, c"eth0");
    let host = lab.host_a.run(|| mac_address("eth0"));
    let sealed = || lab.a.state(OUTBOUND, |s| s.packets.load(Relaxed));
    let verdicts = Verdicts::open(&lab.a.directory()).unwrap();
    let foreign = || verdicts.read(LAN_SLOT, Verdict::ForeignMac).unwrap();
    let send = |destination| {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2(host, destination)
            .ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64)
            .udp(5000, 7777)
            .write(&mut frame, b"by which gateway")
            .unwrap();
        assert_eq!(tap.send(&frame).unwrap(), frame.len());
    };
    let (before, new) = (sealed(), [2, 0, 0, 0, 0, 0x77]);
    send(new);
    eventually("it is told from ours", || foreign() == 1);
    assert_eq!(sealed(), before);

    lab.a.namespace.ip("link set dev lan.1 address 02:00:00:00:00:77");
    eventually("the new address is taken", || {
        send(new);
        sealed() > before
    });
}

pub(crate) fn link_broadcast() {
    let lab = Lab::up(GCM);
    let tap = tap(&lab.host_a, c"eth0");
    let gateway = lab.a.namespace.run(|| mac_address("lan.1"));
    let host = lab.host_a.run(|| mac_address("eth0"));
    for (dropped, (destination, answers)) in (1..).zip([([0xff; 6], 0), (gateway, 1)]) {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2(host, destination)
            .ipv4([10, 1, 0, 2], [10, 2, 0, 2], 1)
            .udp(5000, 7777)
            .write(&mut frame, b"its last hop")
            .unwrap();
        // SAFETY: as many readable bytes as are said.
        let n = unsafe { libc::send(tap.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(n, frame.len() as isize);
        eventually("the hop limit runs out", || drops(&lab.a, OUTBOUND, DropCause::HopLimit) == dropped);
        assert_eq!(lab.a.dataplane().report().counters.icmp_sent, answers);
    }
}
