//! Two gateways that seal and open for each other, with SAs written straight into their maps.

mod lab;

use adit_dataplane::{Config, Dataplane, Error, XdpMode};
use adit_esp::{Auth, Cipher, Engine, Outcome, Outer, Packet, Protocol, SaParams};
use adit_maps::{
    address::Address,
    policy::Selector,
    sa::{DropCause, SaRef, SpiKey},
    user::{Locals, Outbounds, Sad, Selectors, SpiIndex, Verdicts},
    verdict::Verdict,
};
use lab::{
    AH, AH_V6, CBC_UDP, CHACHA_V6, GCM, INBOUND, Lab, NULL_SHA512, Namespace, OUTBOUND, Suite,
    TRIPLE_DES_UDP_V6, eventually,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::{
    collections::HashSet,
    ffi::CStr,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::Duration,
};

fn main() {
    let mut arguments = Arguments::from_args();
    // The cores are few and the timings are real.
    arguments.test_threads = Some(1);
    let usable = lab::isolate().and_then(|()| has_program());
    let tests: [(&'static str, fn()); 25] = [
        ("udp_and_tcp_cross_the_tunnel_both_ways", udp_and_tcp_cross),
        ("cbc_in_udp_encapsulation_crosses_too", cbc_crosses),
        ("chacha20_over_ipv6_with_extended_numbers_crosses", chacha_crosses),
        ("triple_des_in_udp_over_ipv6_crosses", triple_des_crosses),
        ("null_with_sha512_crosses", null_crosses),
        ("ah_crosses_with_its_longer_segments", ah_crosses),
        ("ah_over_ipv6_crosses_padded_to_eight_bytes", ah_v6_crosses),
        ("generic_mode_carries_the_same", generic_mode),
        ("two_workers_share_an_sa_over_two_queues", two_queues),
        ("a_port_that_vanishes_stops_neither_worker_nor_wan", vanishing_port),
        ("replayed_and_corrupted_packets_are_dropped_and_counted", replay_and_corruption),
        ("what_an_sa_must_not_carry_is_dropped", forbidden),
        ("an_sa_that_was_freed_opens_nothing", freed),
        ("a_peer_that_moves_under_traffic_loses_nothing", moved_peer),
        ("the_packet_that_asks_for_an_sa_waits_for_it", first_packet),
        ("what_waited_is_not_sealed_for_somebody_else", reused_policy),
        ("the_gateway_itself_is_reached_and_reaches", the_gateway_itself),
        ("what_does_not_fit_is_answered", too_big),
        ("what_does_not_fit_and_may_be_cut_is_cut", cut),
        ("what_comes_in_fragments_is_opened", fragmented),
        ("what_came_to_everybody_on_the_link_is_not_answered", link_broadcast),
        ("every_frame_comes_back_whatever_became_of_its_packet", frames_come_back),
        ("a_neighbour_that_changes_its_mac_address_is_found_again", moved_neighbour),
        ("a_restart_continues_every_sa_and_leaks_nothing", restart),
        ("unload_leaves_nothing", unload),
    ];
    let trials = tests.map(|(name, test)| {
        let usable = usable.clone();
        Trial::ignorable_test(name, move || match usable {
            Ok(()) => {
                test();
                Ok::<_, Failed>(Completion::Completed)
            }
            Err(reason) => Ok(Completion::ignored_with(reason)),
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit();
}

/// Whether this build embeds the program. Without an interface nothing else is touched.
fn has_program() -> Result<(), String> {
    let config = Config {
        bpf_dir: std::env::temp_dir(),
        ports: vec![],
        tun: String::new(),
        workers: None,
        max_sas: 1,
        mode: XdpMode::Auto,
    };
    match Dataplane::start(config) {
        Err(e @ Error::NoProgram) => Err(e.to_string()),
        _ => Ok(()),
    }
}

/// Sends `payload` from one host to the other and back; whether it came back.
fn echo(from: &Namespace, source: &str, to: &Namespace, destination: &str, payload: &[u8]) -> bool {
    let server: UdpSocket = to.run(|| UdpSocket::bind(destination).unwrap());
    let client: UdpSocket = from.run(|| UdpSocket::bind(source).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    }
    client.send_to(payload, server.local_addr().unwrap()).unwrap();
    let mut buf = [0; 4096];
    let Ok((n, sender)) = server.recv_from(&mut buf) else { return false };
    server.send_to(&buf[..n], sender).unwrap();
    client.recv(&mut buf).is_ok_and(|n| &buf[..n] == payload)
}

fn echo_hosts(lab: &Lab) -> bool {
    echo(&lab.host_a, "10.1.0.2:0", &lab.host_b, "10.2.0.2:7777", b"across")
}

fn drops(gateway: &lab::Gateway, sa: u32, cause: DropCause) -> u64 {
    gateway.state(sa, |s| s.drops[cause as usize].load(Relaxed))
}

fn udp_and_tcp_cross() {
    // 20 IP, 8 ESP, 8 IV, 16 ICV leave 1448, a multiple of 4, less the trailer of 2.
    crosses(GCM, 1446);
}

fn cbc_crosses() {
    // 20 IP, 8 UDP, 8 ESP, 16 IV, 12 ICV leave 1436, of which 1424 are blocks.
    crosses(CBC_UDP, 1422);
}

fn chacha_crosses() {
    // 40 IP, 8 ESP, 8 IV, 16 ICV leave 1428.
    crosses(CHACHA_V6, 1426);
}

fn triple_des_crosses() {
    // 40 IP, 8 UDP, 8 ESP, 8 IV, 12 ICV leave 1424, all blocks of 8.
    crosses(TRIPLE_DES_UDP_V6, 1422);
}

fn null_crosses() {
    // 20 IP, 8 ESP, 32 ICV leave 1440.
    crosses(NULL_SHA512, 1438);
}

fn ah_crosses() {
    // 20 IP, 12 AH, 16 ICV.
    crosses(AH, 1452);
}

fn ah_v6_crosses() {
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
        assert!(report.ports.iter().all(|p| p.xdp_mode == "driver" && p.fallback.is_none()), "{report:?}");
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

fn option(socket: &impl AsRawFd, level: i32, name: i32) -> i32 {
    let (mut value, mut len) = (0i32, 4);
    // SAFETY: four writable bytes and their length.
    let got =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(got, 0);
    value
}

fn generic_mode() {
    let mut lab = Lab::up(GCM);
    lab.a.stop();
    let config = Config { mode: XdpMode::Generic, ..lab.a.config() };
    lab.a.start_with(config);
    assert!(lab.a.dataplane().report().ports.iter().all(|p| p.xdp_mode == "generic"));
    assert!(echo_hosts(&lab));
}

fn two_queues() {
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

fn vanishing_port() {
    let lab = Lab::up(GCM);
    assert!(echo_hosts(&lab));
    lab.a.namespace.ip("link del dev lan.1");
    let lost = lab.host_b.run(|| UdpSocket::bind("10.2.0.2:0").unwrap());
    eventually("what is for it has no route", || {
        lost.send_to(b"lost", "10.1.0.2:7777").unwrap();
        drops(&lab.a, INBOUND, DropCause::NoRoute) > 0
    });
    thread::sleep(Duration::from_millis(50));
    let busy = |lab: &Lab| lab.a.dataplane().report().workers.iter().map(|w| w.batches).sum::<u64>();
    let (before, cpu) = (busy(&lab), cpu_time());
    thread::sleep(Duration::from_millis(500));
    assert!(lab.a.dataplane().report().workers.iter().all(|w| w.running));
    // A few packets of the kernel's own come by the TUN device.
    assert!(busy(&lab) - before < 10);
    assert!(cpu_time() - cpu < Duration::from_millis(200), "workers spin");
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a writable timespec.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut t) }, 0);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// A packet socket on an interface of a namespace.
fn tap(namespace: &Namespace, interface: &CStr) -> UdpSocket {
    use std::os::fd::{FromRawFd, OwnedFd};
    namespace.run(|| {
        // SAFETY: no pointer is passed; the descriptor is new and ours.
        let fd = unsafe {
            let all = (libc::ETH_P_ALL as u16).to_be();
            OwnedFd::from_raw_fd(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(all)))
        };
        // SAFETY: all-zero bytes are a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: a string that ends in NUL.
        address.sll_ifindex = unsafe { libc::if_nametoindex(interface.as_ptr()) } as i32;
        // SAFETY: an address of the size that is given.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        assert_eq!(bound, 0);
        // A datagram socket is a datagram socket: the standard library's reads and writes bytes all the same.
        let socket = UdpSocket::from(fd);
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    })
}

fn replay_and_corruption() {
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

fn forbidden() {
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

fn freed() {
    let lab = Lab::up(GCM);
    assert!(echo_hosts(&lab));
    Sad::open(&lab.b.directory()).unwrap().free(INBOUND);
    assert!(!echo_hosts(&lab));
    assert_eq!(drops(&lab.b, INBOUND, DropCause::NoSa), 1);
}

/// RFC 7296 section 2.23: the SA's other end goes to another address, and then behind a NAT.
fn moved_peer() {
    const PACKETS: u32 = 150;
    let lab = Lab::up(GCM);
    assert!(echo_hosts(&lab));
    let old: Address = "198.51.100.1".parse::<IpAddr>().unwrap().into();
    let new: Address = "198.51.100.7".parse::<IpAddr>().unwrap().into();
    lab.b.namespace.ip("address add 198.51.100.7/24 dev wan");
    let sad = Sad::open(&lab.b.directory()).unwrap();
    let inbound = SaRef { index: INBOUND, generation: sad.generation(INBOUND) };
    let mut spis = SpiIndex::open(&lab.b.directory()).unwrap();
    let spi = sad.read(INBOUND).unwrap().spi;
    spis.insert(SpiKey { destination: new, spi, protocol: 50 }, inbound).unwrap();
    let is_local =
        || Locals::open(&lab.b.directory()).unwrap().entries().unwrap().iter().any(|(a, _)| *a == new);
    eventually("the new address is known to be ours", is_local);

    let sad = Sad::open(&lab.a.directory()).unwrap();
    let outbound = SaRef { index: OUTBOUND, generation: sad.generation(OUTBOUND) };
    let before = lab.a.state(OUTBOUND, |s| s.last_sequence.load(Relaxed));
    let tap = tap(&lab.router, c"to-b");
    let server = lab.host_b.run(|| UdpSocket::bind("10.2.0.2:7777").unwrap());
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let client = lab.host_a.run(|| UdpSocket::bind("10.1.0.2:0").unwrap());
    client.connect("10.2.0.2:7777").unwrap();
    let received = thread::spawn(move || {
        let mut buf = [0; 64];
        (0..PACKETS).map(|_| server.recv(&mut buf).map_or(0, |n| n as u64)).sum::<u64>()
    });
    let local = lab.a.wan.into();
    for n in 0..PACKETS {
        client.send(&n.to_be_bytes()).unwrap();
        match n {
            50 => assert!(sad.relocate(outbound, local, new, None)),
            100 => assert!(sad.relocate(outbound, local, new, Some((4500, 4500)))),
            _ => {}
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(received.join().unwrap(), u64::from(PACKETS) * 4, "{:?}", lab.a.dataplane().report());
    assert_eq!(lab.a.state(OUTBOUND, |s| s.last_sequence.load(Relaxed)), before + u64::from(PACKETS));
    for (gateway, sa) in [(&lab.a, OUTBOUND), (&lab.b, INBOUND)] {
        assert!(gateway.state(sa, |s| s.drops.iter().all(|d| d.load(Relaxed) == 0)));
    }

    // What the router saw went to the old place, to the new one, and there in UDP, with no number twice.
    let (mut ways, mut numbers) = ([0; 3], HashSet::new());
    tap.set_nonblocking(true).unwrap();
    let mut frame = [0; 2048];
    while let Ok(n) = tap.recv(&mut frame) {
        let seen = &frame[..n];
        if n < 50 || seen[12..14] != [8, 0] || seen[26..30] != [192, 0, 2, 1] {
            continue;
        }
        let (way, esp) = match (seen[23], Address::v4(seen[30..34].try_into().unwrap())) {
            (50, to) if to == old => (0, 34),
            (50, to) if to == new => (1, 34),
            (17, to) if to == new => (2, 42),
            other => panic!("{other:?}"),
        };
        assert!(numbers.insert(seen[esp + 4..esp + 8].to_vec()));
        ways[way] += 1;
    }
    assert!(ways.iter().all(|seen| *seen > 0), "{ways:?}");
    assert_eq!(ways.iter().sum::<u32>(), PACKETS);
}

fn first_packet() {
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
    host.send_to(b"first of a host", "10.2.0.2:7777").unwrap();
    gateway.send_to(b"first of the gateway", "10.2.0.2:7778").unwrap();
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

/// Of the second port that the lab configures.
const LAN_SLOT: u32 = 1;

/// A slot of OUTBOUND that was given to another tunnel meanwhile must not seal what waited for the first.
fn reused_policy() {
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

fn the_gateway_itself() {
    let lab = Lab::up(GCM);
    assert!(echo(&lab.a.namespace, "10.1.0.1:0", &lab.host_b, "10.2.0.2:7777", b"from the gateway"));
    assert!(echo(&lab.host_a, "10.1.0.2:0", &lab.b.namespace, "10.2.0.1:7777", b"to the gateway"));
    assert!(echo(&lab.a.namespace, "10.1.0.1:0", &lab.b.namespace, "10.2.0.1:7778", b"both"));
    // A source that no policy protects goes nowhere.
    let before = lab.a.dataplane().report().counters.tun_no_policy;
    assert!(!echo(&lab.a.namespace, "192.0.2.1:0", &lab.host_b, "10.2.0.2:7777", b"no policy"));
    assert!(lab.a.dataplane().report().counters.tun_no_policy > before);
}

fn too_big() {
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
fn cut() {
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

/// Some peers cut packets after sealing them.
fn fragmented() {
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
        let params = SaParams {
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
        };
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

/// A datagram from host A to host B, sealed as gateway A would.
fn seal(params: &SaParams, seq: u64, payload: &[u8]) -> Vec<u8> {
    let mut inner = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], 63)
        .udp(5000, 7777)
        .write(&mut inner, payload)
        .unwrap();
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

fn link_broadcast() {
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

/// MAC address of an interface of this thread's namespace.
fn mac_address(interface: &str) -> [u8; 6] {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: all-zero bytes are a valid ifreq, with an empty name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: an ifreq on this stack, which the kernel fills.
    let got = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &mut request) };
    assert_eq!(got, 0);
    // SAFETY: the ioctl wrote the hardware address.
    let bytes = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    std::array::from_fn(|i| bytes[i] as u8)
}

fn frames_come_back() {
    let lab = Lab::up(GCM);
    let free = |gateway: &lab::Gateway| -> u64 {
        gateway.dataplane().report().workers.iter().map(|w| w.free_frames).sum()
    };
    let at_rest = |gateway: &lab::Gateway| {
        let mut last = 0;
        eventually("a worker's store is looked at", || {
            last = free(gateway);
            last > 0
        });
        last
    };
    let before = [at_rest(&lab.a), at_rest(&lab.b)];
    assert!(echo_hosts(&lab));
    assert!(echo(&lab.a.namespace, "10.1.0.1:0", &lab.b.namespace, "10.2.0.1:7778", b"by TUN"));
    assert!(!echo(&lab.a.namespace, "192.0.2.1:0", &lab.host_b, "10.2.0.2:7777", b"no policy"));
    let client = lab.host_a.run(|| UdpSocket::bind("10.1.0.2:0").unwrap());
    for i in 0..5000u32 {
        // To nobody, who is waited for; to a host; and with no hop left.
        client.set_ttl(if i % 7 == 0 { 1 } else { 64 }).unwrap();
        let last = if i % 3 == 0 { 100 + i % 100 } else { 2 };
        let _ = client.send_to(&[0; 900], format!("10.2.0.{last}:9"));
    }
    assert!(lab.a.dataplane().report().counters.icmp_sent > 0);
    assert!(drops(&lab.a, OUTBOUND, DropCause::HopLimit) > 0);
    eventually("those for nobody are given up", || drops(&lab.b, INBOUND, DropCause::NoRoute) > 0);
    // Until the last of them is, and the stores were looked at again.
    thread::sleep(Duration::from_millis(3200));
    assert_eq!([free(&lab.a), free(&lab.b)], before);
    assert!(echo_hosts(&lab));
}

fn moved_neighbour() {
    let mut lab = Lab::up(GCM);
    assert!(echo_hosts(&lab));
    // After a restart it has asked for nobody: it knows what the kernel knows.
    lab.b.stop();
    lab.b.namespace.run(|| {
        let directory = "/proc/sys/net/ipv4/neigh/lan.1";
        std::fs::write(format!("{directory}/delay_first_probe_time"), "0").unwrap();
        std::fs::write(format!("{directory}/retrans_time_ms"), "50").unwrap();
    });
    // The host asks for nobody either, or its question would tell where it is.
    let [a, b, c, d, e, f] = lab.b.namespace.run(|| mac_address("lan.1"));
    lab.host_b.ip(&format!(
        "neighbour replace 10.2.0.1 dev eth0 lladdr {a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x} nud permanent"
    ));
    lab.b.namespace.ip("neighbour replace 10.2.0.2 dev lan.1 lladdr 02:00:00:00:00:99 nud stale");
    lab.b.start();
    let server = lab.host_b.run(|| UdpSocket::bind("10.2.0.2:7777").unwrap());
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let client = lab.host_a.run(|| UdpSocket::bind("10.1.0.2:0").unwrap());
    eventually("its new address is used", || {
        client.send_to(b"are you there", "10.2.0.2:7777").unwrap();
        server.recv(&mut [0; 64]).is_ok()
    });
}

fn restart() {
    let mut lab = Lab::up(GCM);
    assert!(echo_hosts(&lab));
    let sequence = |lab: &Lab| lab.a.state(OUTBOUND, |s| s.last_sequence.load(Relaxed));
    let before = sequence(&lab);
    lab.a.stop();
    let tap = tap(&lab.router, c"to-b");
    tap.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(!echo_hosts(&lab));
    let mut frame = [0; 2048];
    // SAFETY: as many writable bytes as are said.
    while let n @ 1.. = unsafe { libc::recv(tap.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) } {
        let seen = &frame[..n as usize];
        assert!(!seen.windows(6).any(|w| w == b"across"), "a protected packet went out in clear");
    }
    lab.a.start();
    assert!(echo_hosts(&lab));
    assert_eq!(sequence(&lab), before + 1);
    assert_eq!(drops(&lab.b, INBOUND, DropCause::Replay), 0);
}

fn unload() {
    let mut lab = Lab::up(GCM);
    // Two at once are refused in words.
    let second = lab.a.namespace.run(|| Dataplane::start(lab.a.config())).err().unwrap().to_string();
    assert!(second.contains("running already"), "{second}");
    lab.a.stop();
    lab.a.namespace.run(|| adit_dataplane::unload(&lab.a.bpf_dir, adit_dataplane::DEFAULT_TUN)).unwrap();
    assert!(!lab.a.bpf_dir.exists());
    let links = lab
        .a
        .namespace
        .run(|| std::process::Command::new("ip").args(["-d", "link"]).output().unwrap().stdout);
    let links = String::from_utf8_lossy(&links).into_owned();
    assert!(!links.contains("xdp") && !links.contains("adit0"), "{links}");
    // And again, on nothing.
    lab.a.namespace.run(|| adit_dataplane::unload(&lab.a.bpf_dir, adit_dataplane::DEFAULT_TUN)).unwrap();
}
