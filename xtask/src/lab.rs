//! `cargo xtask demo` and `cargo xtask lab`: the test lab, to look at and to play in.

use std::os::unix::process::CommandExt;

use adit_tests::run::{self, Run};
use adit_tests::topology::{NAMES, Topology};
use adit_tests::{demo, namespace};
use anyhow::{Result, bail};

use crate::shell::{announce, note};
use crate::{build, setup};

/// Shows the main job from end to end; with `json`, as one object on the last line of stdout.
///
/// # Errors
/// Any part of it failed.
pub(crate) fn demo(json: bool) -> Result<()> {
    setup()?;
    build::build(true)?;
    let report = demo::run(announce)?;
    note("nothing is left behind");
    if json {
        println!("{}", report.json());
    } else {
        print!("\n{}", report.table());
    }
    Ok(())
}

/// Makes the topology `name` and leaves it up.
///
/// # Errors
/// There is no such topology, it is up already, or it cannot be made.
pub(crate) fn up(name: &str) -> Result<()> {
    setup()?;
    announce(&format!("making the lab {name}"));
    let topology = Topology::by_name(name, Run::lasting(name)?)?;
    for (host, namespace) in topology.hosts() {
        let addresses = namespace.ip(&["-brief", "-4", "address", "show", "scope", "global"])?;
        note(&format!("{host}: `cargo xtask lab shell {}`", namespace.host()));
        addresses.lines().for_each(|line| note(&format!("  {line}")));
    }
    topology.keep();
    Ok(())
}

/// Removes the labs that are up, or only the one named, and what killed runs left behind.
///
/// # Errors
/// The one named is not up.
pub(crate) fn down(name: Option<&str>) -> Result<()> {
    for dead in run::remove_dead_runs() {
        note(&format!("removed what {dead} left behind"));
    }
    let names = name.map_or_else(run::lasting_runs, |name| vec![name.to_owned()]);
    for name in names {
        if !run::remove_lasting(&name) {
            bail!("the lab {name} is not up");
        }
        note(&format!("removed the lab {name}"));
    }
    Ok(())
}

/// Becomes a shell on a host of the lab that is up.
///
/// # Errors
/// No lab or several are up, or it has no such host.
pub(crate) fn shell(host: &str) -> Result<()> {
    let names = run::lasting_runs();
    let [lab] = names.as_slice() else {
        bail!(
            "{} labs are up; `cargo xtask lab up NAME` makes one: {}",
            names.len(),
            NAMES.map(|(name, what)| format!("{name} ({what})")).join(", ")
        );
    };
    let namespace = format!("adit-{lab}-{host}");
    if !std::path::Path::new("/run/netns").join(&namespace).exists() {
        let there = namespace::command("ip", &["netns", "list"])?;
        let ours =
            there.lines().filter_map(|line| line.split(' ').next()?.strip_prefix(&format!("adit-{lab}-")));
        bail!("the lab {lab} has no host {host:?}; it has {}", ours.collect::<Vec<_>>().join(", "));
    }
    let program = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    note(&format!("on {host} of {lab}; `exit` leaves it"));
    let error = std::process::Command::new("nsenter")
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("--")
        .arg(program)
        .exec();
    bail!("nsenter could not be started ({error})\n  what to do: `cargo xtask setup`")
}
