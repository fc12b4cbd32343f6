//! Many tunnels under traffic: what is changed of one touches no other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use adit_tests::adit::{Adit, METRICS};
use adit_tests::namespace::{Namespace, wait_for};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::topology::{GATEWAY_A, GATEWAY_B, HOST_A, INNER_A, INNER_B, LAN, Topology, WAN};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const TUNNELS: u8 = 200;
/// The one whose subnet and policy change, on both gateways.
const CHANGED: u8 = 10;
/// The one that goes.
const DELETED: u8 = 20;
/// Where the changed one leads afterwards.
const MOVED: u8 = TUNNELS + 1;
/// The one that comes.
const ADDED: u8 = TUNNELS + 2;
/// Between two datagrams of a tunnel in one direction.
const PACE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last datagrams may take.
const GRACE: Duration = Duration::from_secs(1);

fn main() -> std::process::ExitCode {
    scenario::main(vec![Scenario::new("a_change_of_one_tunnel_touches_none_of_the_others", untouched)])
}

/// Where tunnel `number` leads: an address of host B's own.
fn behind_b(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 0, number + 20)
}

/// A tunnel's name, and its fields as one end has them, beside what is the default.
fn fields(of_a: bool, number: u8) -> (String, [String; 6]) {
    let (ours, theirs) = if of_a { ("a", "b") } else { ("b", "a") };
    let (site_a, site_b) = ("10.1.0.0/24".to_owned(), format!("{}/32", behind_b(number)));
    let (local, remote) = if of_a { (site_a, site_b) } else { (site_b, site_a) };
    let fields = [
        format!("local_subnets={local}"),
        format!("remote_subnets={remote}"),
        format!("ike.local_id={ours}{number}.example"),
        format!("ike.peer_id={theirs}{number}.example"),
        "psk=open-sesame-with-32-characters-1".to_owned(),
        format!("start={}", if of_a { "immediate" } else { "respond" }),
    ];
    (format!("t{number}"), fields)
}

fn configuration(of_a: bool, directory: &std::path::Path) -> String {
    let (address, peer) = if of_a { (GATEWAY_A, GATEWAY_B) } else { (GATEWAY_B, GATEWAY_A) };
    let mut text = format!(
        "gateway = {{ name = \"g\", address = \"{address}\", wan = \"{WAN}\", lan = \"{LAN}\" }}\n\
         api = {{ socket = \"{}/adit.sock\", metrics = \"{METRICS}\" }}\n\
         [[peer]]\nname = \"p\"\naddress = \"{peer}\"\n",
        directory.display()
    );
    for number in 1..=TUNNELS {
        let (name, fields) = fields(of_a, number);
        text += &format!("[[tunnel]]\nname = \"{name}\"\npeer = \"p\"\n");
        for field in fields {
            let (key, value) = field.split_once('=').unwrap_or((&field, ""));
            text += &format!("{key} = \"{value}\"\n");
        }
    }
    text
}

/// The SPIs of each connected tunnel.
fn spis(adit: &Adit) -> Result<BTreeMap<String, String>> {
    let status: Value = serde_json::from_str(&adit.done(&["status", "-o", "json"])?)?;
    let tunnels = status["tunnels"].as_array().context("a status has tunnels")?;
    let connected = tunnels.iter().filter(|tunnel| tunnel["state"] == "connected");
    let spis = connected.map(|tunnel| {
        let of = |child: &Value| format!("{}/{} ", child["inbound_spi"], child["outbound_spi"]);
        let children = tunnel["children"].as_array().into_iter().flatten().map(of).collect();
        (tunnel["name"].as_str().unwrap_or_default().to_owned(), children)
    });
    Ok(spis.collect())
}

/// Numbered datagrams through each tunnel in one direction, until they are counted.
struct Flow {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u32>>,
    receiver: JoinHandle<Result<BTreeSet<(u8, u32)>>>,
}

impl Flow {
    /// From sockets, one for each tunnel, to one.
    fn begin(from: Vec<(u8, UdpSocket, SocketAddr)>, to: UdpSocket) -> Result<Flow> {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = [stop.clone(), stop.clone()];
        let [at_sender, at_receiver] = ends;
        to.set_read_timeout(Some(Duration::from_millis(50)))?;
        let sender = thread::spawn(move || {
            let mut round = 0u32;
            while !at_sender.load(Ordering::Relaxed) {
                for (number, socket, to) in &from {
                    let datagram = [&[*number][..], &round.to_be_bytes()].concat();
                    socket.send_to(&datagram, to).context("a datagram could not be sent")?;
                    thread::sleep(PACE / u32::from(TUNNELS));
                }
                round += 1;
            }
            Ok(round)
        });
        let receiver = thread::spawn(move || {
            let (mut seen, mut datagram) = (BTreeSet::new(), [0; 64]);
            let mut ended = None;
            while ended.is_none_or(|at: std::time::Instant| at.elapsed() < GRACE) {
                if at_receiver.load(Ordering::Relaxed) {
                    ended = ended.or_else(|| Some(std::time::Instant::now()));
                }
                if let Ok((5, _)) = to.recv_from(&mut datagram) {
                    let [number, a, b, c, d, ..] = datagram;
                    seen.insert((number, u32::from_be_bytes([a, b, c, d])));
                }
            }
            Ok(seen)
        });
        Ok(Flow { stop, sender, receiver })
    }

    /// Ends it; how many datagrams went through each tunnel, and which tunnels lost some.
    fn end(self) -> Result<(u32, BTreeMap<u8, u32>)> {
        self.stop.store(true, Ordering::Relaxed);
        let rounds = self.sender.join().ok().context("the sender panicked")??;
        let seen = self.receiver.join().ok().context("the receiver panicked")??;
        let lost = |number| (0..rounds).filter(|round| !seen.contains(&(number, *round))).count() as u32;
        Ok((
            rounds,
            (1..=TUNNELS).map(|number| (number, lost(number))).filter(|(_, lost)| *lost > 0).collect(),
        ))
    }
}

fn bind(at: &Namespace, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    at.inside(|| Ok(UdpSocket::bind((address, port))?))
}

fn untouched() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    // What no tunnel protects any more goes nowhere, as on the Internet.
    for subnet in [INNER_A, INNER_B] {
        topology.router.ip(&["route", "delete", subnet])?;
    }
    for number in 1..=ADDED {
        let address = format!("{}/24", behind_b(number));
        topology.host_b.ip(&["address", "add", &address, "dev", "eth0"])?;
    }
    let b = Adit::start_with(&topology.gateway_b, "t1", |directory| configuration(false, directory))?;
    let a = Adit::start_with(&topology.gateway_a, "t1", |directory| configuration(true, directory))?;
    wait_for("every tunnel to be up", PATIENCE, || {
        Ok(spis(&a)?.len() == usize::from(TUNNELS) && spis(&b)?.len() == usize::from(TUNNELS))
    })
    .with_context(|| a.log_tail(10))?;

    let (forth, back) = (4001, 4002);
    let to_b = bind(&topology.host_b, Ipv4Addr::UNSPECIFIED, forth)?;
    let to_a = bind(&topology.host_a, HOST_A, back)?;
    let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
    for number in 1..=TUNNELS {
        from_a.push((number, bind(&topology.host_a, HOST_A, 0)?, (behind_b(number), forth).into()));
        from_b.push((number, bind(&topology.host_b, behind_b(number), 0)?, (HOST_A, back).into()));
    }
    // The way is known to every hop before anything is counted.
    adit_tests::traffic::ping_until_answered(&topology.host_a, behind_b(1), PATIENCE)?;
    let before = [spis(&a)?, spis(&b)?];
    let flows = [Flow::begin(from_a, to_b)?, Flow::begin(from_b, to_a)?];
    thread::sleep(PACE * 2);

    // Both ends of one are made another, and lead elsewhere.
    let moved = format!("{}/32", behind_b(MOVED));
    let changed = format!("t{CHANGED}");
    for (adit, field) in [(&b, "local_subnets"), (&a, "remote_subnets")] {
        let field = format!("{field}={moved}");
        adit.done(&[
            "tunnel",
            "edit",
            &changed,
            &field,
            "ipsec.encryption=aes128gcm16",
            "ipsec.lifetime=1800",
        ])?;
    }
    for adit in [&a, &b] {
        adit.done(&["tunnel", "delete", &format!("t{DELETED}")])?;
    }
    for (adit, of_a) in [(&b, false), (&a, true)] {
        let (name, fields) = fields(of_a, ADDED);
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        adit.done(&[&["tunnel", "create", &name, "peer=p"], &fields[..]].concat())?;
    }
    let is_up = |adit: &Adit, name: &str| -> Result<bool> { Ok(spis(adit)?.contains_key(name)) };
    wait_for("what changed and what came to be up", PATIENCE, || {
        Ok(is_up(&a, &changed)? && is_up(&a, &format!("t{ADDED}"))?)
    })
    .with_context(|| a.log_tail(20))?;
    for number in [MOVED, ADDED] {
        adit_tests::traffic::ping_until_answered(&topology.host_a, behind_b(number), PATIENCE)?;
    }
    thread::sleep(PACE * 2);
    for (flow, way) in flows.into_iter().zip(["forth", "back"]) {
        let (rounds, mut lost) = flow.end()?;
        let theirs = [CHANGED, DELETED].map(|number| lost.remove(&number).unwrap_or(0));
        ensure!(rounds >= 4 && lost.is_empty(), "{way}, of {rounds} each: lost by tunnel {lost:?}");
        ensure!(theirs.iter().all(|lost| *lost > 0), "{way}: what is gone carries on: {theirs:?}");
    }
    for (adit, mut before) in [&a, &b].into_iter().zip(before) {
        let mut after = spis(adit)?;
        for number in [CHANGED, DELETED, ADDED] {
            let name = format!("t{number}");
            ensure!(before.remove(&name) != after.remove(&name), "{name} is as it was");
        }
        ensure!(before.len() == usize::from(TUNNELS) - 2 && before == after, "SAs of others are others");
    }
    drop((a, b));
    topology.end()
}
