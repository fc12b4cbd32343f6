//! Packets that do not fit, and packets that came in pieces.

use super::{
    lab::{
        AH, AH_V6, CBC_UDP, CHACHA_V6, GCM, Gateway, INBOUND, Lab, OUTBOUND, Suite, TRIPLE_DES_UDP_V6,
        eventually,
    },
    tools::{drops, echo, mac_address, option, tap},
};
use adit_esp::{Auth, Cipher, Engine, Outcome, Outer, Packet, Protocol, SaParams};
use adit_maps::sa::DropCause;
use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

pub(crate) fn too_big() {
    let lab = Lab::up(GCM);
    let client = lab.host_a.run(|| UdpSocket::bind("10.1.0.2:0").unwrap());
    let discover = libc::IP_PMTUDISC_DO;
    // SAFETY: four readable bytes and their length.
    let set = unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const discover).cast(),
            4,
        )
    };
    assert_eq!(set, 0);
    let server: SocketAddr = "10.2.0.2:9".parse().unwrap();
    client.connect(server).unwrap();
    client.send(&[0; 1472]).unwrap();
    eventually("the sender learns the path MTU", || {
        (1400..1500).contains(&option(&client, libc::IPPROTO_IP, libc::IP_MTU))
    });
    assert_eq!(drops(&lab.a, OUTBOUND, DropCause::TooBig), 1);
    let mtu = option(&client, libc::IPPROTO_IP, libc::IP_MTU) as usize;
    assert!(echo(&lab.host_a, "10.1.0.2:0", &lab.host_b, "10.2.0.2:7777", &vec![7; mtu - 28]));
}

/// The host cuts a long datagram for its own link; the gateway cuts those pieces again, which carry no DF.
pub(crate) fn cut() {
    let lab = Lab::up(GCM);
    let long: Vec<u8> = (0..3500u32).map(|i| (i * 11 / 4) as u8).collect();
    assert!(echo(&lab.host_a, "10.1.0.2:0", &lab.host_b, "10.2.0.2:7777", &long));
    // Two pieces of 1,500 bytes in two each, and the rest.
    assert_eq!(lab.a.state(OUTBOUND, |s| s.packets.load(Relaxed)), 5);
    assert!(echo(&lab.a.namespace, "10.1.0.1:0", &lab.host_b, "10.2.0.2:7777", &long));
    for gateway in [&lab.a, &lab.b] {
        for sa in [OUTBOUND, INBOUND] {
            assert!(gateway.state(sa, |s| s.drops.iter().all(|d| d.load(Relaxed) == 0)));
        }
    }
}

/// Packets that lie in several buffers: as long as the links take, both ways, and cut where the far LAN takes less.
pub(crate) fn jumbo() {
    let mut lab = Lab::up(GCM);
    lab.a.stop();
    lab.b.stop();
    for (namespace, interfaces) in [
        (&lab.host_a, &["eth0"][..]),
        (&lab.a.namespace, &["lan.1", "wan"]),
        (&lab.router, &["to-a", "to-b"]),
        (&lab.b.namespace, &["wan", "lan.1"]),
        (&lab.host_b, &["eth0"]),
    ] {
        interfaces.iter().for_each(|name| namespace.ip(&format!("link set {name} mtu 9000")));
    }
    lab.a.start();
    lab.b.start();
    // 20 IP, 8 ESP, 8 IV, 16 ICV leave 8948, less the trailer of 2; 28 of that are headers.
    for len in [100, 3300, 3900, 4100, 8100, 8946 - 28] {
        let data: Vec<u8> = (0..len as u32).map(|i| (i * 13 / 4) as u8).collect();
        assert!(echo(&lab.host_a, "10.1.0.2:0", &lab.host_b, "10.2.0.2:7777", &data), "{len}");
        assert!(echo(&lab.host_b, "10.2.0.2:0", &lab.host_a, "10.1.0.2:7777", &data), "{len}");
    }
    let sealed = |gateway: &Gateway| gateway.state(OUTBOUND, |s| s.packets.load(Relaxed));
    assert_eq!((sealed(&lab.a), sealed(&lab.b)), (12, 12));
    // A burst of them: long frames go round.
    for n in 0..300 {
        let data = vec![n as u8; 8900];
        assert!(echo(&lab.host_a, "10.1.0.2:0", &lab.host_b, "10.2.0.2:7777", &data), "{n}");
    }
    // Without DF it is cut for the LAN.
    lab.host_a.run(|| std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1").unwrap());
    lab.b.namespace.ip("link set lan.1 mtu 1500");
    lab.host_b.ip("link set eth0 mtu 1500");
    let long: Vec<u8> = (0..8000u32).map(|i| (i * 7 / 2) as u8).collect();
    // The gateway hears of the LAN's new MTU a little later.
    eventually("pieces arrive", || echo(&lab.host_a, "10.1.0.2:0", &lab.host_b, "10.2.0.2:7777", &long));
    for gateway in [&lab.a, &lab.b] {
        for sa in [OUTBOUND, INBOUND] {
            assert!(gateway.state(sa, |s| s.drops.iter().all(|d| d.load(Relaxed) == 0)));
        }
        let counters = gateway.dataplane().report().counters;
        assert_eq!((counters.no_frame, counters.bad_metadata), (0, 0));
    }
}

/// A packet that came in fragments is opened whole, and cut anew for the LAN.
pub(crate) fn long_fragmented() {
    let lab = Lab::up(GCM);
    let server = lab.host_b.run(|| UdpSocket::bind("10.2.0.2:7777").unwrap());
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let tap = tap(&lab.router, c"to-b");
    let [ours, theirs] =
        [(&lab.router, "to-b"), (&lab.b.namespace, "wan")].map(|(n, name)| n.run(|| mac_address(name)));
    let params = parameters(&lab, GCM, Protocol::Esp, Cipher::Aes256Gcm16, Auth::None);
    for (seq, len) in [(1, 5000), (2, 15_000), (3, 20_000)] {
        for fragment in fragments(&seal(&params, seq, &vec![seq as u8; len]), 1400, seq as u32) {
            let frame = [&theirs[..], &ours, &[8, 0], &fragment].concat();
            assert_eq!(tap.send(&frame).unwrap(), frame.len());
        }
    }
    let mut buf = vec![0; 32_768];
    for (seq, len) in [(1, 5000), (2, 15_000)] {
        assert_eq!(server.recv(&mut buf).unwrap(), len);
        assert!(buf[..len].iter().all(|b| *b == seq));
    }
    // The third is longer than a long frame.
    eventually("the third is counted", || {
        let counters = lab.b.dataplane().report().counters;
        (counters.reassembled, counters.reassembled_dropped) == (3, 1)
    });
}

/// Some peers cut packets after sealing them.
pub(crate) fn fragmented() {
    for (suite, protocol, cipher, auth) in [
        (GCM, Protocol::Esp, Cipher::Aes256Gcm16, Auth::None),
        (CBC_UDP, Protocol::Esp, Cipher::Aes128Cbc, Auth::HmacSha1_96),
        (AH, Protocol::Ah, Cipher::Null, Auth::HmacSha256_128),
        (CHACHA_V6, Protocol::Esp, Cipher::ChaCha20Poly1305, Auth::None),
        (TRIPLE_DES_UDP_V6, Protocol::Esp, Cipher::TripleDesCbc, Auth::HmacMd5_96),
        (AH_V6, Protocol::Ah, Cipher::Null, Auth::HmacSha384_192),
    ] {
        let lab = Lab::up(suite);
        let server = lab.host_b.run(|| UdpSocket::bind("10.2.0.2:7777").unwrap());
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let tap = tap(&lab.router, c"to-b");
        let [ours, theirs] =
            [(&lab.router, "to-b"), (&lab.b.namespace, "wan")].map(|(n, name)| n.run(|| mac_address(name)));
        let params = parameters(&lab, suite, protocol, cipher, auth);
        let stranger = SaParams { spi: 0x9999, ..params.clone() };
        for (seq, params) in [(1, &params), (2, &stranger), (3, &params)] {
            for fragment in fragments(&seal(params, seq, &[seq as u8; 1300]), 720, seq as u32) {
                let ethertype: [u8; 2] = if suite.v6 { [0x86, 0xdd] } else { [0x08, 0] };
                let frame = [&theirs[..], &ours, &ethertype, &fragment].concat();
                assert_eq!(tap.send(&frame).unwrap(), frame.len());
            }
        }
        let mut buf = [0; 2048];
        for seq in [1, 3] {
            let n = server.recv(&mut buf).unwrap_or_else(|e| panic!("{seq} of {params:?}: {e}"));
            assert_eq!(buf[..n], [seq; 1300]);
        }
        let counters = lab.b.dataplane().report().counters;
        assert_eq!((counters.reassembled, counters.reassembled_dropped), (3, 1));
        assert_eq!(lab.b.state(INBOUND, |s| s.packets.load(Relaxed)), 2);
    }
}

/// What gateway A seals with.
fn parameters(lab: &Lab, suite: Suite, protocol: Protocol, cipher: Cipher, auth: Auth) -> SaParams {
    SaParams {
        generation: 1,
        spi: 0x1001,
        protocol,
        cipher,
        auth,
        key: [0x11; 32],
        salt: [0x33; 4],
        auth_key: [0x22; 64],
        esn: suite.esn,
        replay_window: 0,
        outer: Outer { local: lab.a.wan, peer: lab.b.wan, udp: suite.udp.then_some((4500, 4500)) },
    }
}

/// A datagram from host A to host B that may be cut, sealed as gateway A would.
fn seal(params: &SaParams, seq: u64, payload: &[u8]) -> Vec<u8> {
    let mut inner = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], 63)
        .udp(5000, 7777)
        .write(&mut inner, payload)
        .unwrap();
    inner[6] = 0;
    let check = etherparse::Ipv4Header::from_slice(&inner).unwrap().0.calc_header_checksum();
    inner[10..12].copy_from_slice(&check.to_be_bytes());
    let mut engine = Engine::new(1);
    engine.install(0, params).unwrap();
    let mut buf = [&[0; 128], &inner[..], &[0; 128]].concat();
    let mut batch = [Packet::new(&mut buf, 128, 128 + inner.len(), 0, seq)];
    engine.seal(&mut batch);
    assert_eq!(batch[0].outcome, Outcome::Done);
    batch[0].bytes().to_vec()
}

/// The fragments of an IP packet, `step` bytes of payload each, the last one first.
fn fragments(packet: &[u8], step: usize, id: u32) -> Vec<Vec<u8>> {
    let v6 = packet[0] >> 4 == 6;
    let (header, payload) = packet.split_at(if v6 { 40 } else { 20 });
    let pieces: Vec<&[u8]> = payload.chunks(step).collect();
    let cut = |(n, piece): (usize, &&[u8])| {
        let more = u16::from(n + 1 < pieces.len());
        let mut head = header.to_vec();
        if v6 {
            head[4..6].copy_from_slice(&(8 + piece.len() as u16).to_be_bytes());
            head[6] = 44;
            let place = ((n * step) as u16 | more).to_be_bytes();
            head.extend([&[header[6], 0], &place[..], &id.to_be_bytes()].concat());
        } else {
            head[2..4].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
            head[6..8].copy_from_slice(&((n * step / 8) as u16 | more << 13).to_be_bytes());
            let check = etherparse::Ipv4Header::from_slice(&head).unwrap().0.calc_header_checksum();
            head[10..12].copy_from_slice(&check.to_be_bytes());
        }
        [&head[..], piece].concat()
    };
    pieces.iter().enumerate().rev().map(cut).collect()
}
