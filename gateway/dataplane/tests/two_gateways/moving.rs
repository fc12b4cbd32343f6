//! Peers, neighbours, ports and data planes that come and go.

use super::{
    lab::{self, GCM, INBOUND, Lab, OUTBOUND, eventually},
    tools::{drops, echo, echo_hosts, mac_address, tap},
};
use adit_dataplane::Dataplane;
use adit_maps::{
    address::Address,
    sa::{DropCause, SaRef, SpiKey},
    user::{Locals, Sad, SpiIndex},
};
use std::{
    collections::HashSet,
    net::{IpAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::Duration,
};

/// RFC 7296 section 2.23: the SA's other end goes to another address, and then behind a NAT.
pub(crate) fn moved_peer() {
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

pub(crate) fn moved_neighbour() {
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

pub(crate) fn vanishing_port() {
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

pub(crate) fn frames_come_back() {
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

pub(crate) fn restart() {
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

pub(crate) fn unload() {
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
