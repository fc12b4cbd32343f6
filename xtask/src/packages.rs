//! The programs and libraries that come from the system: which are missing, and how they get here.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell::{self, Step, note};

/// A program the lab needs, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// What the lab, the demo and the build call by name.
const TOOLS: [Tool; 16] = [
    tool("ip", "iproute2"),
    tool("nsenter", "util-linux"),
    tool("ping", "iputils-ping"),
    tool("iperf3", "iperf3"),
    tool("tcpdump", "tcpdump"),
    tool("curl", "curl"),
    tool("tshark", "tshark"),
    tool("nft", "nftables"),
    tool("ethtool", "ethtool"),
    tool("sysctl", "procps"),
    tool("cc", "gcc"),
    tool("swanctl", "strongswan-swanctl"),
    tool("charon-systemd", "charon-systemd"),
    tool("ipsec", "strongswan-starter"),
    tool("bird", "bird2"),
    tool("python3", "python3"),
];

/// Debian packages without a program of their own: the C library's headers, and strongSwan's plugins.
const LIBRARIES: [&str; 7] = [
    "libc6-dev",
    "strongswan-charon",
    "strongswan-libcharon",
    "libcharon-extra-plugins",
    "libcharon-extauth-plugins",
    "libstrongswan-standard-plugins",
    "libstrongswan-extra-plugins",
];

/// Whether packages are installed with apt here.
pub(crate) fn is_debian() -> bool {
    shell::has_program("apt-get") && shell::has_program("dpkg-query")
}

/// Names of the Debian packages that the lab and the build need and this machine lacks. On a machine without apt,
/// the programs that are missing are an error that names them.
pub(crate) fn missing() -> Result<Vec<String>> {
    let absent = || TOOLS.iter().filter(|tool| !shell::has_program(tool.program));
    if is_debian() {
        let libraries = LIBRARIES.iter().map(|name| (*name).to_owned());
        let mut packages: Vec<String> = absent().map(|tool| tool.package.to_owned()).collect();
        packages.extend(not_installed(libraries.collect())?);
        return Ok(packages);
    }
    let absent: Vec<&str> = absent().map(|tool| tool.program).collect();
    if !absent.is_empty() {
        bail!(
            "these programs are not on this machine: {}.\n  what to do: install them with the system's package \
             manager; only Debian's apt is known here",
            absent.join(", ")
        );
    }
    Ok(Vec::new())
}

/// The Debian packages that make the peers of the interop matrix, as far as they are missing. A machine without apt goes
/// without those peers.
pub(crate) fn missing_for_peers() -> Vec<String> {
    let lacks = |program: &str| is_debian() && !shell::has_program(program);
    let wanted = [("mmdebstrap", "mmdebstrap"), ("pip3", "python3-pip")];
    wanted.into_iter().filter(|(program, _)| lacks(program)).map(|(_, package)| package.to_owned()).collect()
}

/// Those of `packages` that dpkg does not have installed.
pub(crate) fn not_installed(packages: Vec<String>) -> Result<Vec<String>> {
    // dpkg-query ends with 1 when it does not know one of the names, and still answers for the others.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(&packages)
        .output()?;
    let known = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(packages.into_iter().filter(|package| !is_installed(&known, package)).collect())
}

/// Installs `packages` with apt.
///
/// # Errors
/// Not root, or apt failed: told with the remedy.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !shell::is_root() {
        bail!(
            "Debian packages are missing: {names}.\n  what to do: run this as root, or `apt-get install {names}`"
        );
    }
    let fetch = Step::new(
        "read Debian's package lists",
        apt(&["update", "-q"]),
        "check the network and apt's sources",
    );
    if let Err(error) = fetch.shown() {
        note(&format!("{error}\n    going on with the lists that are here"));
    }
    let mut command = apt(&["install", "-y", "-q", "--no-install-recommends"]);
    command.args(packages);
    let remedy = "read apt's message above; a name it cannot locate needs bookworm and bookworm-security in apt's sources";
    Step::new(format!("install the Debian packages {names}"), command, remedy).shown()?;
    for (package, service) in
        [("charon-systemd", "strongswan"), ("strongswan-starter", "strongswan-starter"), ("bird2", "bird")]
    {
        if packages.iter().any(|installed| installed == package) {
            stop_service(service);
        }
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=120"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Debian starts a system-wide charon, and BIRD, when one is first installed; they would hold UDP 500 and 4500 of the
/// machine, and TCP 179.
fn stop_service(service: &str) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    let unit = format!("{service}.service");
    match Command::new("systemctl").args(["disable", "--now", &unit]).output() {
        Ok(output) if output.status.success() => {
            note(&format!("{unit} is switched off: the lab runs its own"))
        }
        _ => note(&format!("{unit} could not be switched off; `systemctl disable --now {service}` does it")),
    }
}

fn is_installed(known: &str, package: &str) -> bool {
    known.lines().any(|line| line.split_once(' ') == Some((package, "installed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_only_when_dpkg_says_installed() {
        let known = "iperf3 installed\nnftables config-files\n";
        assert!(is_installed(known, "iperf3"));
        assert!(!is_installed(known, "nftables"));
        assert!(!is_installed(known, "tcpdump"));
    }
}
