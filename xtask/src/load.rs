//! `cargo xtask load` and `unload`: the XDP program on interfaces of this machine.
//!
//! Without policies the program passes everything; `adit run` with the same `--bpf-dir` fills its maps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build;
use crate::shell::{self, Step, Stream, announce, note};

/// How long the data plane may take to attach.
const PATIENCE: Duration = Duration::from_secs(20);

/// Builds, loads and attaches; the program stays attached until [`unload`]. The first interface is the WAN, the others
/// are LANs.
///
/// # Errors
/// Not root, an interface is not there or has no address, or the build or adit failed.
pub(crate) fn load(interfaces: &[String], directory: &Path) -> Result<()> {
    need_root()?;
    let Some(wan) = interfaces.first() else { bail!("name at least one interface: `--iface eth0`") };
    for interface in interfaces {
        address_of(interface)?;
    }
    // The data plane pins one link per interface; once they are there, the program stays attached without it.
    // A bpffs takes no dots in names.
    let links: Vec<PathBuf> =
        interfaces.iter().map(|name| directory.join("links").join(name.replace('.', ":"))).collect();
    if links.iter().all(|link| link.exists()) {
        announce(&format!("already attached to {}", interfaces.join(", ")));
        note("`cargo xtask unload` takes it away, to load another build");
        return Ok(());
    }
    let address = address_of(wan)?.with_context(|| {
        format!("{wan} has no IPv4 address, which the gateway would be known by; give it one")
    })?;
    let binary = binary()?;
    let file = shell::target().join("xtask-load.toml");
    fs::write(&file, configuration(interfaces, &address))?;
    announce(&format!("load the XDP program and attach it to {}", interfaces.join(", ")));
    let mut command = Command::new(binary);
    command.arg("dataplane").arg("--config").arg(&file).arg("--bpf-dir").arg(directory);
    let child = command.stdin(Stdio::null()).spawn().context("adit could not be started")?;
    let attached = wait_for_links(child, &links);
    fs::remove_file(&file)?;
    attached?;
    note(&format!("pinned below {}; `cargo xtask unload` takes it away", directory.display()));
    Ok(())
}

/// Detaches the program and removes its maps.
///
/// # Errors
/// Not root, or the build or adit failed.
pub(crate) fn unload(directory: &Path) -> Result<()> {
    need_root()?;
    if !directory.exists() {
        announce(&format!("nothing is loaded: there is no {}", directory.display()));
        return Ok(());
    }
    let mut command = Command::new(binary()?);
    command.arg("unload").arg("--bpf-dir").arg(directory);
    Step::new("detach the XDP program", command, "read adit's message above")
        .watched(Stream::Stdout, |_| ())?;
    Ok(())
}

/// The `adit` that `$ADIT_BIN` names, else a fresh one.
fn binary() -> Result<PathBuf> {
    std::env::var_os("ADIT_BIN").map_or_else(|| build::build(true), |path| Ok(path.into()))
}

fn need_root() -> Result<()> {
    if !shell::is_root() {
        bail!("loading an XDP program takes root; run this as root");
    }
    Ok(())
}

/// The first global IPv4 address of an interface.
fn address_of(interface: &str) -> Result<Option<String>> {
    let mut command = Command::new("ip");
    command.args(["-o", "-4", "address", "show", "scope", "global", "dev", interface]);
    let remedy = "`ip -brief link` lists the interfaces of this machine";
    Step::new(format!("find the interface {interface}"), command, remedy)
        .quiet()
        .map(|text| first_address(&text))
}

/// The address in a line as `2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0`.
fn first_address(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(" inet ")?;
    rest.split(['/', ' ']).next().map(str::to_owned)
}

/// A gateway without tunnels.
fn configuration(interfaces: &[String], address: &str) -> String {
    let quoted: Vec<String> = interfaces.iter().map(|name| format!("{name:?}")).collect();
    // A gateway with one interface has it on both sides.
    let (wan, lan) = (&quoted[0], if quoted.len() > 1 { &quoted[1..] } else { &quoted[..] });
    format!("[gateway]\nname = \"xtask\"\naddress = {address:?}\nwan = {wan}\nlan = [{}]\n", lan.join(", "))
}

fn wait_for_links(mut child: Child, links: &[PathBuf]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !links.iter().all(|link| link.exists()) {
        if let Some(status) = child.try_wait()? {
            bail!("`adit dataplane` ended with {status} before it had attached; its message is above");
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            bail!(
                "`adit dataplane` had not attached after {} s; `cargo xtask unload` tidies up",
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut command = Command::new("kill");
    command.args(["-TERM", &child.id().to_string()]);
    Step::new("stop the data plane", command, "end it by hand").quiet()?;
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_an_interface_is_read() {
        let text =
            "2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever\n";
        assert_eq!(first_address(text).as_deref(), Some("192.0.2.1"));
        assert_eq!(first_address(""), None);
    }

    #[test]
    fn one_interface_is_both_sides() {
        let one = configuration(&["eth0".to_owned()], "192.0.2.1");
        assert!(one.contains("wan = \"eth0\"\nlan = [\"eth0\"]"), "{one}");
        let three = configuration(&["a".to_owned(), "b".to_owned(), "c".to_owned()], "192.0.2.1");
        assert!(three.contains("wan = \"a\"\nlan = [\"b\", \"c\"]"), "{three}");
    }
}
