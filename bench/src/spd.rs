//! `bench spd`: what the number of tunnels costs the look-up of a policy, and how long it takes to load them.
//!
//! Policies as `control` makes them of tunnels from some subnets of ours to some of each peer's, compiled by it and
//! written by it into maps of their own; the look-up is the whole XDP program, run by the kernel. Every policy discards:
//! nothing is redirected, and every run does the same. All sizes are measured in turns.
//!
//! `look_up_ns` is of one frame again and again: everything it meets is in the nearest cache. `once_ns` is of one frame
//! at a time, between system calls, always the same; `scattered_ns` the same with the frame of a tunnel at random. What
//! that takes longer is what the caches do not hold. Of the rounds, the least is given: the machine may run a fifth slower for
//! seconds at a time, which would then be the figure of some of the sizes and not of others.

use std::{net::Ipv4Addr, path::Path, time::Instant};

use adit_control::{
    maps::SpdMaps,
    spd::{Policy, Tables, plan},
};
use adit_maps::{
    address::Prefix,
    policy::action,
    port::{Port, role},
    user::{Directory, Ports, name},
};
use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{TestRun, TestRunOptions, Xdp},
};

use crate::isolated::isolated;
use crate::report::{Report, Row, figure};

/// The interface that `BPF_PROG_TEST_RUN` says the frame came from.
const LOOPBACK: u32 = 1;
const XDP_DROP: u32 = 1;
/// Tunnels, and the subnets of each at either end.
const SHAPES: [(u32, u32); 5] = [(1, 1), (100, 1), (1_000, 1), (10_000, 1), (1_000, 20)];
/// Runs of the program on one frame, and on one frame each, in a round.
const RUNS: u32 = 100_000;
const SINGLE_RUNS: u32 = 1_000;
const ROUNDS: usize = 15;
/// SAs that the maps have room for: none is used.
const SAS: u32 = 16;

/// Takes all figures.
///
/// # Errors
/// The XDP program is not built, or the kernel lets us have no maps of our own.
pub(crate) fn run(report: &mut Report, quick: bool) -> Result<()> {
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/adit-xdp.o");
    let object = std::fs::read(&object).with_context(|| format!("{} is missing", object.display()))?;
    let rows = isolated(move |dir| {
        let mut subjects = Vec::new();
        for (number, shape) in SHAPES.into_iter().enumerate() {
            let dir = Directory::new(dir.path().join(number.to_string()));
            std::fs::create_dir(dir.path())?;
            subjects.push(Subject::new(&object, &dir, shape)?);
        }
        for _ in 0..ROUNDS {
            for subject in &mut subjects {
                subject.measure(if quick { 10 } else { 1 })?;
            }
        }
        Ok(subjects.into_iter().map(Subject::row).collect())
    })?;
    report.table("spd", "Policies: from the configuration to the maps, and one look-up", rows);
    Ok(())
}

/// The program with the policies of some tunnels, and what was measured.
struct Subject {
    ebpf: Ebpf,
    shape: (u32, u32),
    policies: usize,
    entries: usize,
    /// Milliseconds of planning and of writing.
    loading: [f64; 2],
    /// Nanoseconds of a look-up, a round each: of one frame, one at a time, one of all at a time.
    look_ups: [Vec<f64>; 3],
    random: u32,
}

impl Subject {
    fn new(object: &[u8], dir: &Directory, shape: (u32, u32)) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for name in name::ALL {
            loader.map_pin_path(name, dir.pin(name));
        }
        for name in [name::SAD_CONFIG, name::SAD_STATE, name::SPI_INDEX] {
            loader.map_max_entries(name, SAS);
        }
        let mut ebpf = loader.load(object)?;
        dir.stamp_or_check()?;
        Ports::open(dir)?.insert(LOOPBACK, Port { slot: 0, roles: role::LAN, ..Port::default() })?;
        let mut pinned = SpdMaps::open(dir)?;

        let (tunnels, subnets) = shape;
        let policies = policies(tunnels, subnets)?;
        let begun = Instant::now();
        let (tables, way) = plan(&policies, &Tables::default())?;
        let planned = begun.elapsed();
        let begun = Instant::now();
        pinned.publish(&way)?;
        let written = begun.elapsed();
        program(&mut ebpf)?.load()?;
        Ok(Subject {
            ebpf,
            shape,
            policies: policies.len(),
            entries: way.publish.len() + tables.sources.len() + tables.destinations.len(),
            loading: [planned, written].map(|d| d.as_secs_f64() * 1e3),
            look_ups: Default::default(),
            random: 1,
        })
    }

    /// A round of each kind, of so small a part.
    fn measure(&mut self, part: u32) -> Result<()> {
        let same = self.run(&frame(0), RUNS / part)?;
        self.look_ups[0].push(same);
        let (mut once, mut scattered) = (Vec::new(), Vec::new());
        for _ in 0..SINGLE_RUNS / part {
            once.push(self.run(&frame(0), 1)?);
            // Marsaglia's xorshift.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            let (tunnels, subnets) = self.shape;
            scattered.push(self.run(&frame(self.random % (tunnels * subnets)), 1)?);
        }
        self.look_ups[1].push(median(once));
        self.look_ups[2].push(median(scattered));
        Ok(())
    }

    fn run(&mut self, frame: &[u8], repeat: u32) -> Result<f64> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = program(&mut self.ebpf)?.test_run(options)?;
        ensure!(result.return_value == XDP_DROP, "action {}, and the rule discards", result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }

    fn row(self) -> Row {
        let (tunnels, subnets) = self.shape;
        let [same, once, scattered] = self.look_ups.map(least);
        vec![
            ("tunnels", tunnels.into()),
            ("subnets", format!("{subnets} × {subnets}").into()),
            ("policies", self.policies.into()),
            ("entries", self.entries.into()),
            ("compile_ms", figure(self.loading[0])),
            ("write_ms", figure(self.loading[1])),
            ("look_up_ns", figure(same)),
            ("once_ns", figure(once)),
            ("scattered_ns", figure(scattered)),
        ]
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    Ok(ebpf.program_mut("adit_xdp").context("no program adit_xdp")?.try_into()?)
}

fn least(figures: Vec<f64>) -> f64 {
    figures.into_iter().min_by(f64::total_cmp).unwrap_or(f64::NAN)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// From 10.0.0.0/24 and those behind it to as many /24 for each tunnel from 16.0.0.0 on.
fn policies(tunnels: u32, subnets: u32) -> Result<Vec<Policy>> {
    let subnet = |base: u32, n: u32| {
        Prefix::new(Ipv4Addr::from_bits(base + (n << 8)).into(), 24).context("a prefix of 24 bits")
    };
    let mut policies = Vec::new();
    for tunnel in 0..tunnels {
        for local in 0..subnets {
            for remote in 0..subnets {
                let local = subnet(0x0a00_0000, local)?;
                let remote = subnet(0x1000_0000, tunnel * subnets + remote)?;
                let policy = Policy::protect(local, remote, tunnel);
                policies.push(Policy { action: action::DISCARD, ..policy });
            }
        }
    }
    Ok(policies)
}

/// UDP from 10.0.0.2 to a host in the subnet of this number at the far side, in Ethernet.
fn frame(subnet: u32) -> Vec<u8> {
    let [a, b, c, _] = (0x1000_0000 + (subnet << 8)).to_be_bytes();
    let mut frame = vec![2; 12];
    frame.extend([8, 0]);
    frame.extend([0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, a, b, c, 2]);
    frame.extend([0x30, 0x39, 0, 9, 0, 30, 0, 0]);
    frame.resize(64, 0);
    frame
}
