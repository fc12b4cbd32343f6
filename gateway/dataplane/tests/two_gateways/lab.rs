//! Two sites in unnamed namespaces: host A – gateway A – router – gateway B – host B.
//!
//! Namespaces live as long as their file descriptors, mounts as long as this process' mount namespace: nothing is left
//! behind, however the test ends.

use adit_dataplane::{Config, Dataplane, PortConfig, XdpMode};
use adit_maps::{
    address::Prefix,
    classes::Image,
    decode::protocol,
    policy::{ClassPair, MAX_RULES, PortRange, Rule, RuleList, Selector, action},
    port::role,
    sa::{SadConfig, SadState, SpiKey, auth, cipher, direction, flags},
    user::{Directory, Outbounds, Sad, Selectors, SpdTables, SpiIndex},
};
use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// A network namespace without a name.
pub(crate) struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let file = thread::spawn(|| {
            // SAFETY: no pointer is passed; it changes the namespace of this thread only.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Namespace(file.join().unwrap());
        // Duplicate address detection takes a second in which the kernel solicits no neighbour.
        namespace.run(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap());
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `f` on a thread in this namespace.
    pub(crate) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // SAFETY: a descriptor of a network namespace; it changes the namespace of this thread only.
                let entered = unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "{}", io::Error::last_os_error());
                f()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` with these arguments.
    pub(crate) fn ip(&self, arguments: &str) {
        let output = self.run(|| Command::new("ip").args(arguments.split(' ')).output().unwrap());
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A veth pair between this namespace and another.
    fn wire(&self, name: &str, other: &Namespace, other_name: &str, queues: u32) {
        let target = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        let queues = format!("numtxqueues {queues} numrxqueues {queues}");
        self.ip(&format!(
            "link add {name} {queues} type veth peer name {other_name} netns {target} {queues}"
        ));
        for (namespace, name) in [(self, name), (other, other_name)] {
            // What a half-done checksum leaves to the NIC must not be sealed as it is.
            namespace.run(|| checksums_in_software(name));
            namespace.ip(&format!("link set {name} up"));
        }
    }
}

/// `ethtool -K … tx off`.
fn checksums_in_software(name: &str) {
    const ETHTOOL_STXCSUM: u32 = 0x17;
    let mut command = [ETHTOOL_STXCSUM, 0];
    // SAFETY: all-zero bytes are a valid ifreq, with an empty name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // SAFETY: an ifreq on this stack whose data points at the command on this stack.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &mut request) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// One gateway: its namespace, its maps, its side of the SAs.
pub(crate) struct Gateway {
    pub(crate) namespace: Namespace,
    pub(crate) bpf_dir: PathBuf,
    pub(crate) wan: IpAddr,
    local: [Prefix; 2],
    dataplane: Option<Dataplane>,
}

/// Slot of the second port that [`Gateway::config`] has.
pub(crate) const LAN_SLOT: u32 = 1;

/// Indices of the SAs of a gateway.
pub(crate) const OUTBOUND: u32 = 0;
pub(crate) const INBOUND: u32 = 1;

impl Gateway {
    fn new(name: &str, wan: &str, local: [&str; 2]) -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let bpf_dir = std::env::temp_dir().join(format!("adit-test-{}-{lab}-{name}", std::process::id()));
        let prefix = |s: &str| {
            let (ip, len) = s.split_once('/').unwrap();
            Prefix::new(ip.parse().unwrap(), len.parse().unwrap()).unwrap()
        };
        Gateway {
            namespace: Namespace::new(),
            bpf_dir,
            wan: wan.parse().unwrap(),
            local: local.map(prefix),
            dataplane: None,
        }
    }

    pub(crate) fn config(&self) -> Config {
        let port = |interface: &str, roles| PortConfig { interface: interface.into(), roles };
        Config {
            bpf_dir: self.bpf_dir.clone(),
            ports: vec![port("wan", role::WAN), port("lan.1", role::LAN)],
            tun: adit_dataplane::DEFAULT_TUN.into(),
            workers: None,
            max_sas: 64,
            mode: XdpMode::Auto,
            socket: None,
            gives_keys: false,
            crypto: None,
        }
    }

    pub(crate) fn start(&mut self) {
        self.start_with(self.config());
    }

    pub(crate) fn start_with(&mut self, config: Config) {
        let started = self.namespace.run(|| Dataplane::start(config));
        self.dataplane = Some(started.unwrap_or_else(|e| panic!("{e}")));
    }

    pub(crate) fn stop(&mut self) {
        self.dataplane.take().unwrap().stop().unwrap();
    }

    pub(crate) fn dataplane(&self) -> &Dataplane {
        self.dataplane.as_ref().unwrap()
    }

    pub(crate) fn directory(&self) -> Directory {
        Directory::new(&self.bpf_dir)
    }

    /// What `look` sees in the state of an SA.
    pub(crate) fn state<R>(&self, sa: u32, look: impl FnOnce(&SadState) -> R) -> R {
        look(Sad::open(&self.directory()).unwrap().state(sa).unwrap())
    }

    /// Writes both SAs towards `peer`, and the policy that uses them.
    fn install(&self, peer: &Gateway, spi: [u32; 2], suite: &Suite) {
        let dir = self.directory();
        let selectors = Selectors::open(&dir).unwrap();
        for (i, prefix) in (0..).zip(self.local.iter().chain(&peer.local)) {
            let ports = PortRange::ANY;
            let (first, last) = (prefix.address, prefix.last());
            selectors.set(i, Selector { first, last, ports, protocol: 0, reserved: [0; 3] });
        }
        let sad = Sad::open(&dir).unwrap();
        let mut config = SadConfig::free();
        config.protocol = suite.protocol;
        (config.cipher, config.auth) = (suite.cipher, suite.auth);
        (config.key, config.auth_key, config.salt) = ([0x11; 32], [0x22; 64], [0x33; 4]);
        (config.local, config.peer) = (self.wan.into(), peer.wan.into());
        (config.local_selectors, config.remote_selectors) = (2, 2);
        config.replay_window = 1024;
        config.flags = if suite.esn { flags::ESN } else { 0 };
        if suite.udp {
            config.flags |= flags::UDP;
            (config.local_port, config.peer_port) = (4500, 4500);
        }
        (config.direction, config.spi) = (direction::OUTBOUND, spi[0]);
        let outbound = sad.install(OUTBOUND, &config).unwrap();
        (config.direction, config.spi) = (direction::INBOUND, spi[1]);
        let inbound = sad.install(INBOUND, &config).unwrap();

        let key = SpiKey { destination: self.wan.into(), spi: spi[1], protocol: suite.protocol.into() };
        SpiIndex::open(&dir).unwrap().insert(key, inbound).unwrap();
        Outbounds::open(&dir).unwrap().set(0, outbound);
        let rule = Rule {
            action: action::PROTECT,
            protocol: 0,
            reserved: 0,
            source_ports: PortRange::ANY,
            destination_ports: PortRange::ANY,
            policy: 0,
        };
        let mut spd = SpdTables::open(&dir).unwrap();
        let side = |prefixes: &[Prefix]| prefixes.iter().map(|prefix| (*prefix, 1)).collect();
        spd.replace_classes(&Image::new(&side(&self.local), &side(&peer.local)).unwrap());
        let pair = ClassPair { source: 1, destination: 1 };
        spd.insert_rules(pair, RuleList { len: 1, rules: [rule; MAX_RULES] }).unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(dataplane) = self.dataplane.take() {
            let _ = dataplane.stop();
        }
        let _ = self.namespace.run(|| adit_dataplane::unload(&self.bpf_dir, adit_dataplane::DEFAULT_TUN));
        let _ = fs::remove_dir(&self.bpf_dir);
    }
}

/// Algorithms, encapsulation and outer addresses of a tunnel.
#[derive(Clone, Copy)]
pub(crate) struct Suite {
    pub(crate) protocol: u8,
    pub(crate) cipher: u8,
    pub(crate) auth: u8,
    pub(crate) udp: bool,
    pub(crate) esn: bool,
    /// Whether the gateways' own addresses are IPv6.
    pub(crate) v6: bool,
}

pub(crate) const GCM: Suite = Suite {
    protocol: protocol::ESP,
    cipher: cipher::AES256_GCM16,
    auth: auth::NONE,
    udp: false,
    esn: false,
    v6: false,
};
pub(crate) const CBC_UDP: Suite =
    Suite { cipher: cipher::AES128_CBC, auth: auth::HMAC_SHA1_96, udp: true, ..GCM };
pub(crate) const CHACHA_V6: Suite = Suite { cipher: cipher::CHACHA20_POLY1305, esn: true, v6: true, ..GCM };
pub(crate) const TRIPLE_DES_UDP_V6: Suite =
    Suite { cipher: cipher::TRIPLE_DES_CBC, auth: auth::HMAC_MD5_96, udp: true, v6: true, ..GCM };
pub(crate) const NULL_SHA512: Suite = Suite { cipher: cipher::NULL, auth: auth::HMAC_SHA512_256, ..GCM };
pub(crate) const AH: Suite =
    Suite { protocol: protocol::AH, cipher: cipher::NONE, auth: auth::HMAC_SHA256_128, esn: true, ..GCM };
pub(crate) const AH_V6: Suite = Suite { auth: auth::HMAC_SHA384_192, esn: false, v6: true, ..AH };

/// The whole of it.
pub(crate) struct Lab {
    pub(crate) host_a: Namespace,
    pub(crate) a: Gateway,
    pub(crate) router: Namespace,
    pub(crate) b: Gateway,
    pub(crate) host_b: Namespace,
}

impl Lab {
    /// Both gateways run, with a tunnel between them.
    pub(crate) fn up(suite: Suite) -> Self {
        Lab::with_queues(suite, 1)
    }

    /// The same with so many queues on every interface.
    pub(crate) fn with_queues(suite: Suite, queues: u32) -> Self {
        let mut lab = Lab {
            host_a: Namespace::new(),
            a: Gateway::new(
                "a",
                if suite.v6 { "2001:db8:a::1" } else { "192.0.2.1" },
                ["10.1.0.0/24", "2001:db8:1::/64"],
            ),
            router: Namespace::new(),
            b: Gateway::new(
                "b",
                if suite.v6 { "2001:db8:b::1" } else { "198.51.100.1" },
                ["10.2.0.0/24", "2001:db8:2::/64"],
            ),
            host_b: Namespace::new(),
        };
        lab.host_a.wire("eth0", &lab.a.namespace, "lan.1", queues);
        lab.a.namespace.wire("wan", &lab.router, "to-a", queues);
        lab.router.wire("to-b", &lab.b.namespace, "wan", queues);
        lab.b.namespace.wire("lan.1", &lab.host_b, "eth0", queues);
        lab.router.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        lab.router.run(|| fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap());
        lab.router.ip("address add 192.0.2.254/24 dev to-a");
        lab.router.ip("address add 198.51.100.254/24 dev to-b");
        lab.router.ip("-6 address add 2001:db8:a::254/64 dev to-a nodad");
        lab.router.ip("-6 address add 2001:db8:b::254/64 dev to-b nodad");
        for (gateway, host, site, wan, via, net6) in [
            (&lab.a, &lab.host_a, 1, "192.0.2.1/24", "192.0.2.254", "2001:db8:a"),
            (&lab.b, &lab.host_b, 2, "198.51.100.1/24", "198.51.100.254", "2001:db8:b"),
        ] {
            let gateway = &gateway.namespace;
            gateway.ip(&format!("address add {wan} dev wan"));
            gateway.ip(&format!("route add default via {via}"));
            gateway.ip(&format!("-6 address add {net6}::1/64 dev wan nodad"));
            gateway.ip(&format!("-6 route add default via {net6}::254"));
            gateway.ip(&format!("address add 10.{site}.0.1/24 dev lan.1"));
            gateway.ip(&format!("-6 address add 2001:db8:{site}::1/64 dev lan.1 nodad"));
            host.ip(&format!("address add 10.{site}.0.2/24 dev eth0"));
            host.ip(&format!("route add default via 10.{site}.0.1"));
            host.ip(&format!("-6 address add 2001:db8:{site}::2/64 dev eth0 nodad"));
            host.ip(&format!("-6 route add default via 2001:db8:{site}::1"));
        }
        lab.a.start();
        lab.b.start();
        lab.a.namespace.ip("route add 10.2.0.0/24 dev adit0 src 10.1.0.1");
        lab.b.namespace.ip("route add 10.1.0.0/24 dev adit0 src 10.2.0.1");
        lab.a.install(&lab.b, [0x1001, 0x2001], &suite);
        lab.b.install(&lab.a, [0x2001, 0x1001], &suite);
        lab
    }
}

/// Waits until `is` holds, two seconds at most.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..200 {
        if is() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within two seconds");
}

/// Gives this process a mount namespace of its own; the reason, when it must not.
pub(crate) fn isolate() -> Result<(), String> {
    // SAFETY: no precondition.
    if unsafe { libc::geteuid() } != 0 {
        return Err("needs root, for network namespaces and XDP".into());
    }
    // SAFETY: no pointer is passed; nothing else runs yet in this process.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(format!("needs a mount namespace: {}", io::Error::last_os_error()));
    }
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: strings that end in NUL, and null where the kernel looks at nothing.
    let made =
        unsafe { libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    if made != 0 {
        return Err(format!("cannot make mounts private: {}", io::Error::last_os_error()));
    }
    Ok(())
}
