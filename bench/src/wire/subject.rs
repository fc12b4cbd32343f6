//! Who forwards: two gateways of one kind in a lab of their own, and how to look at the first of them.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use adit_dataplane::bare::Forwarder;
use adit_tests::namespace::{Namespace, wait_for};
use adit_tests::pair::Pair;
use adit_tests::run::Run;
use adit_tests::site::{AES256_GCM, PSK, Site, Suite};
use adit_tests::strongswan::{Place, StrongSwan};
use adit_tests::topology::{GATEWAY_A, GATEWAY_B, HOST_B, LAN, TO_A, TO_B, Topology, WAN};
use adit_tests::traffic::ping_until_answered;
use anyhow::{Context, Result};

use super::redirect::Redirect;

/// How long gateways may take to connect.
const PATIENCE: Duration = Duration::from_secs(20);

/// A kind of gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// AF_XDP sockets and nothing else.
    Bare,
    /// The kernel, in clear.
    Kernel,
    Adit(&'static str),
    StrongSwan(&'static str),
}

impl Kind {
    /// Whose figures these are.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Bare => "bare AF_XDP",
            Kind::Kernel => "kernel, in clear",
            Kind::Adit(_) => "adit",
            Kind::StrongSwan(_) => "strongSwan, kernel-libipsec",
        }
    }

    /// Its algorithms, in the words of a configuration; none in clear.
    pub(super) fn suite(self) -> Option<&'static str> {
        match self {
            Kind::Bare | Kind::Kernel => None,
            Kind::Adit(suite) | Kind::StrongSwan(suite) => Some(suite),
        }
    }
}

/// What runs on the gateways, ended when it is dropped.
#[expect(dead_code, reason = "it is kept until the lab goes")]
enum Running {
    Nothing,
    Adit(Box<Pair>),
    StrongSwan([Box<StrongSwan>; 2]),
    Bare([Thread; 2]),
}

/// Two gateways, connected.
pub(super) struct Subject {
    pub(super) kind: Kind,
    // Ended before the lab is removed.
    running: Running,
    pub(super) lab: Topology,
}

impl Subject {
    /// Makes the lab and lets both gateways connect.
    ///
    /// # Errors
    /// They do not: with their logs.
    pub(super) fn start(kind: Kind) -> Result<Self> {
        let lab = Topology::two_sites(Run::begin()?)?;
        let running = match kind {
            Kind::Kernel => {
                ping_until_answered(&lab.host_a, HOST_B, PATIENCE)?;
                Running::Nothing
            }
            Kind::Bare => Running::Bare(bare(&lab)?),
            Kind::Adit(name) => {
                let (encryption, integrity) = name.split_once('-').unwrap_or((name, "sha256"));
                let suite = Suite { esp_encryption: encryption, esp_integrity: integrity, ..AES256_GCM };
                let sites = [Site::a(&lab).with(suite), Site::b(&lab).with(suite)];
                Running::Adit(Box::new(Pair::of(&lab, &sites, HOST_B.into())?))
            }
            Kind::StrongSwan(name) => {
                let start = |gateway| StrongSwan::start(gateway, gateway, Place::Namespace, "");
                let (b, a) = (start(&lab.gateway_b)?, start(&lab.gateway_a)?);
                b.load(&connection(&Site::b(&lab), name))?;
                a.load(&connection(&Site::a(&lab), name))?;
                a.initiate("net", PATIENCE)?;
                ping_until_answered(&lab.host_a, HOST_B, PATIENCE).with_context(|| a.log_tail(15))?;
                Running::StrongSwan([Box::new(a), Box::new(b)])
            }
        };
        Ok(Subject { kind, running, lab })
    }

    /// Lets the programs of both gateways run on this processor only.
    pub(super) fn pin(&self, cpu: usize) -> Result<()> {
        for gateway in [&self.lab.gateway_a, &self.lab.gateway_b] {
            for pid in pids(gateway)? {
                gateway.run("taskset", &["-a", "-p", "-c", &cpu.to_string(), &pid.to_string()])?;
            }
        }
        if let Running::Bare(threads) = &self.running {
            for thread in threads {
                let (cpu, task) = (cpu.to_string(), thread.task.to_string());
                self.lab.gateway_a.run("taskset", &["-p", "-c", &cpu, &task])?;
            }
        }
        Ok(())
    }

    /// Processor time that the first gateway's programs have taken; none where the kernel does it all.
    pub(super) fn cpu_time(&self) -> Result<Option<Duration>> {
        let tasks = match &self.running {
            Running::Nothing => return Ok(None),
            Running::Bare([first, _]) => vec![format!("/proc/self/task/{}", first.task)],
            _ => {
                let mut tasks = Vec::new();
                for pid in pids(&self.lab.gateway_a)? {
                    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                        tasks.push(task?.path().display().to_string());
                    }
                }
                tasks
            }
        };
        let ran = |task: String| {
            let text = fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
        };
        Ok(Some(Duration::from_nanos(tasks.into_iter().map(ran).sum())))
    }

    /// Packets that the first gateway has sent by its WAN.
    pub(super) fn sent(&self) -> Result<u64> {
        let text = self.lab.router.inside(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(TO_A)?.strip_prefix(':'));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        packets.context("the router has lost an interface")
    }

    /// Drops at the router what comes from the first gateway and is longer than `longest`; everything passes without.
    pub(super) fn drop_at_router(&self, longest: Option<usize>) -> Result<()> {
        let router = &self.lab.router;
        match longest {
            None => router.run("nft", &["delete", "table", "netdev", "bench"]).map(|_| ()),
            Some(longest) => {
                let rules = format!(
                    "table netdev bench {{ chain arriving {{ type filter hook ingress device \"{TO_A}\" priority 0; \
                     meta length > {longest} drop\n }}\n }}\n"
                );
                router.run("nft", &[&rules]).map(|_| ())
            }
        }
    }

    /// Ends the gateways and removes the lab.
    ///
    /// # Errors
    /// Something is left behind.
    pub(super) fn end(self) -> Result<()> {
        drop(self.running);
        self.lab.end()
    }
}

/// Programs in a namespace.
fn pids(namespace: &Namespace) -> Result<Vec<u32>> {
    let output = std::process::Command::new("ip").args(["netns", "pids", namespace.name()]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.trim().parse().ok()).collect())
}

/// Index and MAC address of an interface.
pub(super) fn interface(namespace: &Namespace, name: &str) -> Result<(u32, [u8; 6])> {
    let text = namespace.ip(&["-o", "link", "show", "dev", name])?;
    let index = text.split(':').next().and_then(|index| index.trim().parse().ok());
    let mac = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    let mac = mac.and_then(|mac| {
        let octets: Vec<u8> = mac.split(':').filter_map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        octets.try_into().ok()
    });
    index.zip(mac).with_context(|| format!("{name} has no index or no MAC address: {text}"))
}

/// A swanctl.conf of one end.
fn connection(site: &Site, suite: &str) -> String {
    let Site { address, peer_address, local_subnet, remote_subnet, .. } = site;
    let ike = AES256_GCM.swan_ike;
    format!(
        "connections {{ net {{ version = 2\n local_addrs = {address}\n remote_addrs = {peer_address}\n proposals = {ike}
           local {{ auth = psk\n id = {address}\n }}\n remote {{ auth = psk\n id = {peer_address}\n }}
           children {{ net {{ local_ts = {local_subnet}\n remote_ts = {remote_subnet}\n esp_proposals = {suite}\n }} }} }} }}
         secrets {{ ike-1 {{ secret = \"{PSK}\" }} }}\n"
    )
}

/// A thread that forwards.
struct Thread {
    task: i32,
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Forwards in a gateway's namespace, to the neighbour with this MAC address.
    fn start(gateway: &Namespace, from: &str, to: &str, neighbour: [u8; 6]) -> Result<Self> {
        let ((from, _), (to, source)) = (interface(gateway, from)?, interface(gateway, to)?);
        let mut header = [0; 14];
        header[..6].copy_from_slice(&neighbour);
        header[6..12].copy_from_slice(&source);
        header[12..].copy_from_slice(&[8, 0]);
        let (mut forwarder, redirect) = gateway.inside(|| {
            let forwarder = Forwarder::open(from, to).context("AF_XDP sockets")?;
            let redirect =
                Redirect::attach(from, forwarder.receiver()).context("the program that redirects")?;
            Ok((forwarder, redirect))
        })?;
        let (stop, (tell, told)) = (Arc::new(AtomicBool::new(false)), sync_channel(1));
        let stopped = stop.clone();
        let handle = thread::spawn(move || {
            // SAFETY: no pointer is passed.
            let _ = tell.send(unsafe { libc::gettid() });
            forwarder.run(&header, &stopped);
            drop(redirect);
        });
        Ok(Thread { task: told.recv()?, stop, handle: Some(handle) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

/// Forwards from A to B, and lets the kernel do so from B to A. What comes to a port with the program is redirected,
/// neighbours' answers included: they are told to everybody beforehand.
fn bare(lab: &Topology) -> Result<[Thread; 2]> {
    for (one, other) in [
        (
            (&lab.host_a, "eth0", adit_tests::topology::HOST_A),
            (&lab.gateway_a, LAN, adit_tests::topology::LAN_A),
        ),
        ((&lab.gateway_a, WAN, GATEWAY_A), (&lab.router, TO_A, adit_tests::topology::router_of(GATEWAY_A))),
        ((&lab.gateway_b, WAN, GATEWAY_B), (&lab.router, TO_B, adit_tests::topology::ROUTER_B)),
        ((&lab.host_b, "eth0", HOST_B), (&lab.gateway_b, LAN, adit_tests::topology::LAN_B)),
    ] {
        know(one.0, one.1, other)?;
        know(other.0, other.1, one)?;
    }
    let router = interface(&lab.router, TO_A)?.1;
    let host = interface(&lab.host_b, "eth0")?.1;
    let threads =
        [Thread::start(&lab.gateway_a, LAN, WAN, router)?, Thread::start(&lab.gateway_b, WAN, LAN, host)?];
    wait_for("bare forwarding", PATIENCE, || {
        Ok(adit_tests::traffic::ping(&lab.host_a, HOST_B, 1, 56)?.received > 0)
    })?;
    Ok(threads)
}

/// Tells a host the MAC address of a neighbour.
fn know(host: &Namespace, by: &str, (neighbour, its, address): (&Namespace, &str, Ipv4Addr)) -> Result<()> {
    let mac = interface(neighbour, its)?.1.map(|octet| format!("{octet:02x}")).join(":");
    let address = address.to_string();
    host.ip(&["neighbour", "replace", &address, "lladdr", &mac, "dev", by, "nud", "permanent"]).map(|_| ())
}
