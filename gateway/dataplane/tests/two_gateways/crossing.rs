//! Traffic through the tunnel, for several suites, modes and numbers of queues.

use super::{
    lab::{
        AH, AH_V6, CBC_UDP, CHACHA_V6, GCM, INBOUND, Lab, NULL_SHA512, OUTBOUND, Suite, TRIPLE_DES_UDP_V6,
    },
    tools::{drops, echo, echo_hosts, option},
};
use adit_dataplane::{Config, PortMode, XdpMode};
use adit_maps::sa::DropCause;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::Duration,
};

pub(crate) fn udp_and_tcp_cross() {
    // 20 IP, 8 ESP, 8 IV, 16 ICV leave 1448, a multiple of 4, less the trailer of 2.
    crosses(GCM, 1446);
}

pub(crate) fn cbc_crosses() {
    // 20 IP, 8 UDP, 8 ESP, 16 IV, 12 ICV leave 1436, of which 1424 are blocks.
    crosses(CBC_UDP, 1422);
}

pub(crate) fn chacha_crosses() {
    // 40 IP, 8 ESP, 8 IV, 16 ICV leave 1428.
    crosses(CHACHA_V6, 1426);
}

pub(crate) fn triple_des_crosses() {
    // 40 IP, 8 UDP, 8 ESP, 8 IV, 12 ICV leave 1424, all blocks of 8.
    crosses(TRIPLE_DES_UDP_V6, 1422);
}

pub(crate) fn null_crosses() {
    // 20 IP, 8 ESP, 32 ICV leave 1440.
    crosses(NULL_SHA512, 1438);
}

pub(crate) fn ah_crosses() {
    // 20 IP, 12 AH, 16 ICV.
    crosses(AH, 1452);
}

pub(crate) fn ah_v6_crosses() {
    // 40 IP, 12 AH, 24 ICV and 4 to a multiple of 8.
    crosses(AH_V6, 1420);
}

/// `longest` is the longest inner packet that fits 1500 bytes.
fn crosses(suite: Suite, longest: i32) {
    let lab = Lab::up(suite);
    // The very first packet waits for the neighbour and arrives.
    assert!(echo_hosts(&lab), "{:?}", lab.a.dataplane().report());
    assert!(echo(&lab.host_b, "[2001:db8:2::2]:0", &lab.host_a, "[2001:db8:1::2]:7777", b"six"));
    for gateway in [&lab.a, &lab.b] {
        for sa in [OUTBOUND, INBOUND] {
            gateway.state(sa, |s| {
                let inner = (20 + 8 + 6) + (40 + 8 + 3);
                assert_eq!((s.packets.load(Relaxed), s.bytes.load(Relaxed)), (2, inner));
                assert!(s.last_seen.load(Relaxed) > 0);
                assert!(s.drops.iter().all(|d| d.load(Relaxed) == 0), "{:?}", s.drops);
            });
        }
        assert_eq!(gateway.state(OUTBOUND, |s| s.last_sequence.load(Relaxed)), 2);
        let report = gateway.dataplane().report();
        assert!(report.workers.iter().all(|w| w.running));
        assert!(
            report.ports.iter().all(|p| p.mode == PortMode::Driver && p.reason.contains("has no zero-copy")),
            "{report:?}"
        );
    }

    let data: Vec<u8> = (0..3_000_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let listener = lab.host_b.run(|| TcpListener::bind("10.2.0.2:80").unwrap());
    let received = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mss = segment_size(&stream);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        (mss, all)
    });
    let mut stream = lab.host_a.run(|| TcpStream::connect("10.2.0.2:80").unwrap());
    stream.write_all(&data).unwrap();
    drop(stream);
    let (mss, all) = received.join().unwrap();
    assert!(all == data);
    // Headers of IPv4 and TCP, and the timestamps that Linux puts into every segment.
    assert_eq!(mss + 20 + 20 + 12, longest, "segments of {mss} bytes");
}

fn segment_size(stream: &TcpStream) -> i32 {
    option(stream, libc::IPPROTO_TCP, libc::TCP_MAXSEG)
}

pub(crate) fn generic_mode() {
    let mut lab = Lab::up(GCM);
    lab.a.stop();
    let config = Config { mode: XdpMode::Generic, ..lab.a.config() };
    lab.a.start_with(config);
    assert!(lab.a.dataplane().report().ports.iter().all(|p| p.mode == PortMode::Generic));
    assert!(echo_hosts(&lab));
}

pub(crate) fn two_queues() {
    let lab = Lab::with_queues(GCM, 2);
    let report = lab.a.dataplane().report();
    assert!(report.ports.iter().all(|p| p.queues == 2), "{report:?}");
    if report.workers.len() < 2 {
        eprintln!("only one CPU: one worker serves both queues");
    }
    // The queue is chosen by a hash over the ports: a few flows meet both.
    for port in 0..16 {
        let (client, server) = (format!("10.1.0.2:{}", 20000 + port), format!("10.2.0.2:{}", 7000 + port));
        assert!(echo(&lab.host_a, &client, &lab.host_b, &server, &[port as u8; 600]));
    }
    let report = lab.a.dataplane().report();
    assert!(report.workers.iter().all(|w| w.packets > 0), "{report:?}");
    for gateway in [&lab.a, &lab.b] {
        assert_eq!(gateway.state(OUTBOUND, |s| s.last_sequence.load(Relaxed)), 16);
        assert_eq!(gateway.state(INBOUND, |s| s.packets.load(Relaxed)), 16);
        assert_eq!(drops(gateway, INBOUND, DropCause::Replay), 0);
    }
}

/// Flows are spread over queues and so over workers; within a flow every datagram arrives, and in its order, and what
/// the workers' shared SA mixes stays within its window.
pub(crate) fn flows_in_order() {
    // The kernel draws a flow's queue by lot: of so many there are some on either.
    const FLOWS: usize = 32;
    const EACH: u32 = 500;
    let lab = Lab::with_queues(GCM, 2);
    let clients: Vec<UdpSocket> = lab
        .host_a
        .run(|| (0..FLOWS).map(|n| UdpSocket::bind(("10.1.0.2", 30_000 + n as u16)).unwrap()).collect());
    let servers: Vec<UdpSocket> = lab
        .host_b
        .run(|| (0..FLOWS).map(|n| UdpSocket::bind(("10.2.0.2", 9000 + n as u16)).unwrap()).collect());
    for (n, (client, server)) in clients.iter().zip(&servers).enumerate() {
        client.connect(("10.2.0.2", 9000 + n as u16)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    // Neighbours are found before it counts.
    assert!(echo_hosts(&lab));
    let arrived: Vec<Vec<u32>> = thread::scope(|scope| {
        let receivers: Vec<_> = servers
            .iter()
            .map(|server| {
                scope.spawn(move || {
                    let mut buf = [0; 1500];
                    let number = |buf: &[u8]| u32::from_be_bytes(*buf.first_chunk().unwrap());
                    (0..EACH).map_while(|_| server.recv(&mut buf).ok().map(|n| number(&buf[..n]))).collect()
                })
            })
            .collect();
        for number in 0..EACH {
            for client in &clients {
                client.send(&[&number.to_be_bytes()[..], &[7; 400]].concat()).unwrap();
            }
            // No faster than the debug build of two gateways on two cores takes it.
            if number % 2 == 1 {
                thread::sleep(Duration::from_millis(5));
            }
        }
        receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect()
    });
    for (flow, numbers) in arrived.iter().enumerate() {
        let expected: Vec<u32> = (0..EACH).collect();
        assert!(*numbers == expected, "flow {flow}: {} of {EACH} arrived in order", in_order(numbers));
    }
    // By which queue sealed frames come to the other gateway, the router between them decides: some kernels' by one alone.
    let packets: Vec<u64> = lab.a.dataplane().report().workers.iter().map(|w| w.packets).collect();
    assert!(packets.iter().all(|n| *n > u64::from(EACH)), "{packets:?}");
    assert!([&lab.a, &lab.b].iter().all(|gateway| drops(gateway, INBOUND, DropCause::Replay) == 0));
    let sealed = u64::from(EACH) * FLOWS as u64 + 1;
    assert_eq!(lab.a.state(OUTBOUND, |s| s.last_sequence.load(Relaxed)), sealed);
    assert_eq!(lab.b.state(INBOUND, |s| s.packets.load(Relaxed)), sealed);
}

/// How many numbers come in their place before the first that does not.
fn in_order(numbers: &[u32]) -> usize {
    numbers.iter().enumerate().take_while(|(at, number)| *at == **number as usize).count()
}

pub(crate) fn the_gateway_itself() {
    let lab = Lab::up(GCM);
    assert!(echo(&lab.a.namespace, "10.1.0.1:0", &lab.host_b, "10.2.0.2:7777", b"from the gateway"));
    assert!(echo(&lab.host_a, "10.1.0.2:0", &lab.b.namespace, "10.2.0.1:7777", b"to the gateway"));
    assert!(echo(&lab.a.namespace, "10.1.0.1:0", &lab.b.namespace, "10.2.0.1:7778", b"both"));
    // A source that no policy protects goes nowhere.
    let before = lab.a.dataplane().report().counters.tun_no_policy;
    assert!(!echo(&lab.a.namespace, "192.0.2.1:0", &lab.host_b, "10.2.0.2:7777", b"no policy"));
    assert!(lab.a.dataplane().report().counters.tun_no_policy > before);
}
