//! `bench spd`: what the number of tunnels costs the look-up of a policy, and how long it takes to load them.
//!
//! Policies as `control` makes them of tunnels from some subnets of ours to some of each peer's, compiled by it and
//! written by it into maps of their own; the look-up is the whole XDP program, run by the kernel on one frame of the
//! first tunnel, whose rule discards: nothing is redirected, and every run does the same.

use std::{net::Ipv4Addr, path::Path, time::Instant};

use adit_control::{
    maps::Pinned,
    spd::{Policy, Tables, Transition, compile},
};
use adit_maps::{
    address::Prefix,
    policy::action,
    port::{Port, role},
    user::{Directory, Ports, name},
};
use anyhow::{Context, Result, ensure};
use aya::{
    EbpfLoader,
    programs::{TestRun, TestRunOptions, Xdp},
};

use crate::isolated::isolated;
use crate::report::{Report, Row, figure};

/// The interface that `BPF_PROG_TEST_RUN` says the frame came from.
const LOOPBACK: u32 = 1;
const XDP_DROP: u32 = 1;
/// Tunnels, and the subnets of each at either end.
const SHAPES: [(u32, u32); 4] = [(1, 1), (1_000, 1), (10_000, 1), (1_000, 20)];
/// Runs of the program between two looks at the clock.
const RUNS: u32 = 200_000;
const ROUNDS: usize = 9;

/// Takes all figures.
///
/// # Errors
/// The XDP program is not built, or the kernel lets us have no maps of our own.
pub(crate) fn run(report: &mut Report, quick: bool) -> Result<()> {
    let rows = SHAPES.into_iter().map(|shape| isolated(move |dir| row(dir, shape, quick)));
    let rows = rows.collect::<Result<_>>()?;
    report.table("spd", "Policies: from the configuration to the maps, and one look-up", rows);
    Ok(())
}

fn row(dir: &Directory, (tunnels, subnets): (u32, u32), quick: bool) -> Result<Row> {
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/adit-xdp.o");
    let object = std::fs::read(&object).with_context(|| format!("{} is missing", object.display()))?;
    let mut loader = EbpfLoader::new();
    for name in name::ALL {
        loader.map_pin_path(name, dir.pin(name));
    }
    let mut ebpf = loader.load(&object)?;
    dir.stamp_or_check()?;
    Ports::open(dir)?.insert(LOOPBACK, Port { slot: 0, roles: role::LAN, ..Port::default() })?;
    let mut pinned = Pinned::open(dir)?;

    let policies = policies(tunnels, subnets)?;
    let begun = Instant::now();
    let tables = compile(&policies, &Tables::default())?;
    let compiled = begun.elapsed();
    let transition = Transition::between(&Tables::default(), &tables);
    let begun = Instant::now();
    pinned.change_spd(&transition.publish)?;
    let loaded = begun.elapsed();

    let program: &mut Xdp = ebpf.program_mut("adit_xdp").context("no program adit_xdp")?.try_into()?;
    program.load()?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let frame = frame();
        let result = program.test_run(TestRunOptions {
            data_in: Some(&frame),
            repeat: if quick { RUNS / 10 } else { RUNS },
            ..TestRunOptions::new()
        })?;
        ensure!(result.return_value == XDP_DROP, "action {}, and the rule discards", result.return_value);
        times.push(result.duration.as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(vec![
        ("tunnels", tunnels.into()),
        ("subnets", format!("{subnets} × {subnets}").into()),
        ("policies", policies.len().into()),
        ("entries", transition.publish.len().into()),
        ("compile_ms", figure(compiled.as_secs_f64() * 1e3)),
        ("write_ms", figure(loaded.as_secs_f64() * 1e3)),
        ("look_up_ns", figure(times[ROUNDS / 2])),
    ])
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
                policies.push(if tunnel == 0 {
                    Policy { action: action::DISCARD, ..policy }
                } else {
                    policy
                });
            }
        }
    }
    Ok(policies)
}

/// UDP from 10.0.0.2 to 16.0.0.2, in Ethernet.
fn frame() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0]);
    frame.extend([0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 16, 0, 0, 2]);
    frame.extend([0x30, 0x39, 0, 9, 0, 30, 0, 0]);
    frame.resize(64, 0);
    frame
}
