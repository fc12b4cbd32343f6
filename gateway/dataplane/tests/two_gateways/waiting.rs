//! Packets that wait for an SA.

use super::lab::{GCM, LAN_SLOT, Lab, OUTBOUND, eventually};
use adit_maps::{
    address::Address,
    event::{Event, INTERVAL_NS, kind},
    policy::Selector,
    sa::SaRef,
    user::{Events, Outbounds, Selectors, Verdicts},
    verdict::Verdict,
};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::Duration,
};

pub(crate) fn first_packet() {
    let lab = Lab::up(GCM);
    let outbounds = Outbounds::open(&lab.a.directory()).unwrap();
    let sa = outbounds.get(0).unwrap();
    outbounds.set(0, SaRef::default());
    let receiver = |address: &str| {
        let socket = lab.host_b.run(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    };
    let (of_host, of_gateway) = (receiver("10.2.0.2:7777"), receiver("10.2.0.2:7778"));
    let host = lab.host_a.run(|| UdpSocket::bind("10.1.0.2:0").unwrap());
    let gateway = lab.a.namespace.run(|| UdpSocket::bind("10.1.0.1:0").unwrap());
    let mut events = Events::open(&lab.a.directory()).unwrap();
    let mut asked = |socket: &UdpSocket, payload: &[u8], to: &str| {
        socket.send_to(payload, to).unwrap();
        let mut event = None;
        eventually("control is asked", || {
            event = event.or_else(|| events.next_event());
            event.is_some()
        });
        let (from, to): (SocketAddr, SocketAddr) = (socket.local_addr().unwrap(), to.parse().unwrap());
        let expected = Event {
            kind: kind::ACQUIRE,
            subject: 0,
            source: from.ip().into(),
            destination: to.ip().into(),
            protocol: 17,
            reserved: [0; 3],
            source_port: from.port(),
            destination_port: to.port(),
        };
        assert_eq!(event, Some(expected));
    };
    asked(&gateway, b"first of the gateway", "10.2.0.2:7778");
    thread::sleep(Duration::from_nanos(INTERVAL_NS));
    asked(&host, b"first of a host", "10.2.0.2:7777");
    let mut buf = [0; 64];
    assert!(of_host.recv(&mut buf).is_err(), "it was sent without an SA");

    outbounds.set(0, sa);
    for (socket, expected) in [(&of_host, &b"first of a host"[..]), (&of_gateway, b"first of the gateway")] {
        let n = socket.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], expected);
    }
    assert_eq!(lab.a.dataplane().report().counters.no_sa, 0);
    // Waited for too long, it is given up and its frame comes back.
    outbounds.set(0, SaRef::default());
    host.send_to(b"never", "10.2.0.2:7777").unwrap();
    for _ in 0..60 {
        if lab.a.dataplane().report().counters.no_sa == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(lab.a.dataplane().report().counters.no_sa, 1);
    outbounds.set(0, sa);
    assert!(of_host.recv(&mut buf).is_err());
}

/// A slot of OUTBOUND that was given to another tunnel meanwhile must not seal what waited for the first.
pub(crate) fn reused_policy() {
    let lab = Lab::up(GCM);
    let outbounds = Outbounds::open(&lab.a.directory()).unwrap();
    let sa = outbounds.get(0).unwrap();
    outbounds.set(0, SaRef::default());
    let host = lab.host_a.run(|| UdpSocket::bind("10.1.0.2:0").unwrap());
    host.send_to(b"for one peer only", "10.2.0.2:7777").unwrap();
    let verdicts = Verdicts::open(&lab.a.directory()).unwrap();
    eventually("it waits", || verdicts.read(LAN_SLOT, Verdict::Hold).unwrap() == 1);
    // The first remote selector of A, not read by a worker yet.
    let selectors = Selectors::open(&lab.a.directory()).unwrap();
    let remote = selectors.get(2).unwrap();
    selectors.set(2, Selector { first: Address::v4([10, 2, 0, 77]), ..remote });
    outbounds.set(0, sa);
    eventually("it is dropped", || lab.a.dataplane().report().counters.no_sa == 1);
    assert_eq!(lab.a.state(OUTBOUND, |s| s.last_sequence.load(Relaxed)), 0);
}
