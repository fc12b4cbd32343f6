//! Two gateways in namespaces, one tunnel after the other told to both, from nothing to all of them up.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adit_tests::adit::{METRICS, binary};
use adit_tests::metrics::Metrics;
use adit_tests::namespace::{Namespace, Process, link, wait_for};
use adit_tests::run::Run;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Extent, charon};
use crate::report::{Report, figure};

/// The WAN addresses of the two gateways.
pub(crate) const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// The key of every tunnel.
pub(super) const PSK: &str = "open-sesame-with-32-characters-1";
/// How long tunnels may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What bringing up tunnels took.
pub(super) struct Taken {
    /// From the first message to the last tunnel.
    pub(super) wall: Duration,
    /// Processor time of the initiator and of the responder.
    pub(super) cpu: [Duration; 2],
    /// Growth of the initiator and of the responder, in bytes.
    pub(super) memory: [u64; 2],
}

/// Brings up many tunnels with Adit and with charon, and tables both.
pub(crate) fn tunnels(report: &mut Report, extent: &Extent) -> Result<()> {
    let counts: &[u32] = match extent.tunnels.as_slice() {
        [] if extent.quick => &[100],
        [] => &[1000, 5000, 10_000],
        counts => counts,
    };
    let mut rows = Vec::new();
    for &count in counts {
        println!("bring up {count} tunnels: adit");
        let ours = adit(count)?;
        // Ten charons of a thousand connections each would tell no more than five.
        let theirs = if count <= 5000 {
            println!("bring up {count} tunnels: charon");
            Some(charon::bring_up(count)?)
        } else {
            None
        };
        for (name, taken) in [("adit", Some(&ours)), ("charon", theirs.as_ref())] {
            let Some(taken) = taken else { continue };
            let rate = |cpu: Duration| f64::from(count) / cpu.as_secs_f64();
            let mut ratios = json!({});
            if name == "adit"
                && let Some(theirs) = &theirs
            {
                let ratio =
                    |theirs: Duration, ours: Duration| figure(theirs.as_secs_f64() / ours.as_secs_f64());
                ratios = json!({
                    "initiator": ratio(theirs.cpu[0], ours.cpu[0]),
                    "responder": ratio(theirs.cpu[1], ours.cpu[1]),
                });
            }
            rows.push(vec![
                ("impl", Value::from(name)),
                ("tunnels", Value::from(count)),
                ("seconds", figure(taken.wall.as_secs_f64())),
                ("initiator_per_cpu_second", figure(rate(taken.cpu[0]))),
                ("responder_per_cpu_second", figure(rate(taken.cpu[1]))),
                ("initiator_kib_per_tunnel", figure(taken.memory[0] as f64 / 1024.0 / f64::from(count))),
                ("responder_kib_per_tunnel", figure(taken.memory[1] as f64 / 1024.0 / f64::from(count))),
                ("ratios", ratios),
            ]);
        }
    }
    let title = "Tunnels of two gateways on this machine, aes256gcm16-prfsha256-x25519, from nothing to up";
    report.table("ike", title, rows);
    Ok(())
}

/// Two namespaces with a link.
pub(crate) fn pair(run: &Run) -> Result<[Namespace; 2]> {
    let pair = [Namespace::create(run, "ga")?, Namespace::create(run, "gb")?];
    link((&pair[0], "wan", "192.0.2.1/24"), (&pair[1], "wan", "192.0.2.2/24"))?;
    for namespace in &pair {
        namespace.ip(&["link", "add", "lan", "type", "veth", "peer", "name", "lan-host"])?;
        namespace.ip(&["link", "set", "lan", "up"])?;
        namespace.ip(&["link", "set", "lan-host", "up"])?;
    }
    Ok(pair)
}

fn adit(count: u32) -> Result<Taken> {
    let run = Run::begin()?;
    let namespaces = pair(&run)?;
    // The responder first: the initiator finds it there.
    let mut responder = Gateway::start(&run, &namespaces[1], 1, 0..count, false)?;
    responder.wait_started()?;
    let mut initiator = Gateway::start(&run, &namespaces[0], 0, 0..count, true)?;
    initiator.wait_started()?;
    let begun = Instant::now();
    let before = [0, 1].map(|end| usage([&initiator, &responder][end].process.pid()));
    let [before_a, before_b] = before;
    initiator.reload(0..count)?;
    let mut last = 0.0;
    wait_for(&format!("{count} tunnels"), PATIENCE, || {
        for gateway in [&mut initiator, &mut responder] {
            if let Some(status) = gateway.process.ended() {
                bail!("adit ended ({status}):\n{}", gateway.process.log_tail(20));
            }
        }
        std::thread::sleep(Duration::from_millis(80));
        last = initiator.up()?;
        Ok(last >= f64::from(count))
    })
    .with_context(|| {
        format!("{last} are up; the initiator's log ends:\n{}", initiator.process.log_tail(10))
    })?;
    wait_for("the responder to have them as well", Duration::from_secs(5), || {
        Ok(responder.up()? >= f64::from(count))
    })?;
    let wall = begun.elapsed();
    let [after_a, after_b] = [usage(initiator.process.pid())?, usage(responder.process.pid())?];
    let (before_a, before_b) = (before_a?, before_b?);
    drop((initiator, responder));
    run.end()?;
    Ok(Taken {
        wall,
        cpu: [after_a.cpu - before_a.cpu, after_b.cpu - before_b.cpu],
        memory: [
            after_a.resident.saturating_sub(before_a.resident),
            after_b.resident.saturating_sub(before_b.resident),
        ],
    })
}

/// An `adit run` with many tunnels.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    namespace: Namespace,
    directory: PathBuf,
    side: usize,
}

impl Gateway {
    /// Starts one. A responder takes its tunnels' peers from anywhere; an initiator begins without its tunnels: [`Gateway::reload`] gives them to it.
    pub(crate) fn start(
        run: &Run,
        namespace: &Namespace,
        side: usize,
        tunnels: Range<u32>,
        initiates: bool,
    ) -> Result<Gateway> {
        let peer = if initiates { ADDRESSES[1 - side] } else { "any" };
        let directory = run.directory().join(namespace.host());
        fs::create_dir_all(directory.join("bpf"))?;
        let count = tunnels.len() as u32;
        let first = if initiates { 0..0 } else { tunnels };
        fs::write(directory.join("adit.toml"), configuration(&directory, side, peer, first, initiates))?;
        let mut command = namespace.command(&binary()?.to_string_lossy());
        command.arg("--log=warn").arg("run").arg("--config").arg(directory.join("adit.toml"));
        command.arg("--bpf-dir").arg(directory.join("bpf"));
        command.arg("--data-dir").arg(directory.join("data"));
        command.arg("--max-sas").arg((4 * count).max(8192).to_string());
        let process = namespace.spawn("adit", &mut command)?;
        Ok(Gateway { process, namespace: namespace.clone(), directory, side })
    }

    pub(crate) fn wait_started(&mut self) -> Result<()> {
        wait_for("adit to answer", Duration::from_secs(30), || {
            if let Some(status) = self.process.ended() {
                bail!("adit ended at once ({status}):\n{}", self.process.log_tail(20));
            }
            Ok(self.up().is_ok())
        })
    }

    /// Gives it these tunnels to initiate.
    pub(crate) fn reload(&self, tunnels: Range<u32>) -> Result<()> {
        let file = self.directory.join("adit.toml");
        fs::write(&file, configuration(&self.directory, self.side, ADDRESSES[1 - self.side], tunnels, true))?;
        let socket = self.directory.join("adit.sock");
        let arguments = ["reload", "--socket", &socket.to_string_lossy()];
        self.namespace.run(&binary()?.to_string_lossy(), &arguments).map(|_| ())
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The socket of its API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("adit.sock")
    }

    /// How many tunnels are up.
    pub(crate) fn up(&self) -> Result<f64> {
        let address: SocketAddr = METRICS;
        Ok(Metrics::scrape(&self.namespace, address)?.get("adit_tunnel_health", &[]).unwrap_or(0.0))
    }
}

/// A configuration with these tunnels.
pub(crate) fn configuration(
    directory: &Path,
    side: usize,
    peer: &str,
    tunnels: Range<u32>,
    initiates: bool,
) -> String {
    let directory = directory.display();
    let local = ADDRESSES[side];
    let mut text = format!(
        "[gateway]\nname = \"bench\"\naddress = \"{local}\"\nwan = \"wan\"\nlan = [\"lan\"]\n\n\
         [api]\nsocket = \"{directory}/adit.sock\"\nmetrics = \"{METRICS}\"\n\n\
         [[peer]]\nname = \"peer\"\naddress = \"{peer}\"\n"
    );
    let start = if initiates { "immediate" } else { "respond" };
    for id in tunnels {
        let (x, y) = (id / 250, id % 250);
        let subnets = [format!("10.{x}.{y}.0/24"), format!("100.{}.{y}.0/24", 64 + x)];
        let ids = [format!("t{id}.a.example"), format!("t{id}.b.example")];
        let _ = write!(
            text,
            "\n[[tunnel]]\nname = \"t{id}\"\npeer = \"peer\"\nlocal_subnets = [\"{}\"]\nremote_subnets = [\"{}\"]\n\
             psk = \"{PSK}\"\nstart = \"{start}\"\n[tunnel.ike]\nencryption = \"aes256gcm16\"\nprf = \"sha256\"\n\
             dh = 31\nlocal_id = \"{}\"\npeer_id = \"{}\"\n[tunnel.ipsec]\nencryption = \"aes256gcm16\"\n",
            subnets[side],
            subnets[1 - side],
            ids[side],
            ids[1 - side],
        );
    }
    text
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time of all its threads.
    pub(crate) cpu: Duration,
    /// Bytes in memory.
    pub(super) resident: u64,
}

/// What the process has used so far.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The second field is a name in brackets that may hold spaces.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n: usize| after.split_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    // utime and stime in ticks of 10 ms, the rest of proc(5)'s fields before them; resident pages.
    Ok(Usage { cpu: Duration::from_millis(10 * (field(11) + field(12))), resident: field(21) * 4096 })
}
