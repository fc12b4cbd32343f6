//! `cargo xtask image-test`: two copies of the image in qemu, a tunnel between them, and what must hold of an appliance; then one
//! that nobody tells anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use adit_tests::namespace::{Namespace, tail, wait_for};
use adit_tests::run::Run;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::guests::{self, Firmware, Guest, Power, Side, Unseeded};
use crate::shell::{Step, announce, note};
use crate::{image, package, packages};

/// What runs the guests, as Debian calls it.
const TOOLS: [&str; 8] = [
    "qemu-system-x86",
    "qemu-utils",
    "ovmf",
    "openssh-client",
    "mtools",
    "dosfstools",
    "iputils-ping",
    "curl",
];

/// Each guest has a processor: two are what a small machine has.
const PROCESSORS: u8 = 1;

/// How long a guest may take from power to a login: without KVM 80 s of a processor, which took 15 minutes where fifteen others
/// wanted it.
const BOOT: Duration = Duration::from_secs(1500);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// How much the threads for Diffie-Hellman yield, as control has it.
const NICE: &str = "5";
/// What a later version of the package ends with.
const NEWER: &str = "+next";

/// Asks the guest's Prometheus a question: `python3 - QUERY`.
const ASK: &str = "python3 -c 'import sys,urllib.parse,urllib.request as r; \
     print(r.urlopen(\"http://127.0.0.1:9090/api/v1/query?query=\"+urllib.parse.quote(sys.argv[1]),timeout=20).read().decode())' ";

/// Boots two guests from `given`, or from an image that is built now, and tries everything.
///
/// # Errors
/// What does not hold, in words.
pub(crate) fn image_test(given: Option<&Path>) -> Result<()> {
    ready()?;
    let image: PathBuf = match given {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
        None => image::image(false)?,
    };
    let deb = package::package()?;
    let begun = Instant::now();
    let run = Run::begin()?;
    guests::make_key(&run)?;
    let kvm = guests::has_kvm(&run, &image)?;
    announce(&format!("boot two guests {}", if kvm { "by KVM" } else { "without KVM: minutes" }));
    let started = Instant::now();
    let power = Power { kvm, processors: PROCESSORS };
    let mut a = Guest::start(&run, &image, guests::A, Some(guests::B), power)?;
    let mut b = Guest::start(&run, &image, guests::B, Some(guests::A), power)?;
    for guest in [&mut a, &mut b] {
        up(guest, started)?;
    }
    tunnel(&a, &b)?;
    for guest in [&a, &b] {
        hardened(guest)?;
    }
    firewall(&a, &b)?;
    modes(&a)?;
    scraped(&a, "adit_tunnel_health")?;
    console(&a, "Gateway site-a.")?;
    upgraded(&a, guests::B, &newer(&run, &deb)?)?;
    rebooted(&a, &mut b)?;
    drop((a, b));
    unseeded(&run, &image, power)?;
    announce(&format!("the appliance holds what it promises ({:.0} s)", begun.elapsed().as_secs_f64()));
    run.end()
}

/// Installs what runs the guests.
///
/// # Errors
/// Nothing can be installed here.
pub(crate) fn ready() -> Result<()> {
    if !packages::is_debian() {
        bail!("the guests are run by Debian's qemu: run this on Debian 12");
    }
    packages::install(&packages::not_installed(TOOLS.map(str::to_owned).to_vec())?)
}

fn name(side: Side) -> String {
    format!("site-{}", side.name)
}

/// The guest that was started at `started` lets us in, cloud-init has done what it was told, and systemd has no complaint.
///
/// # Errors
/// Not so, or not in time.
pub(crate) fn up(guest: &mut Guest, started: Instant) -> Result<()> {
    guest.wait_for_ssh(BOOT)?;
    let (who, firmware) = (name(guest.side()), guest.side().firmware);
    note(&format!("{who}: {firmware:?}, a login after {:.0} s", started.elapsed().as_secs_f64()));
    if firmware == Firmware::SecureBoot {
        let state = guest.says("sudo mokutil --sb-state && sudo cat /sys/kernel/security/lockdown")?;
        ensure!(state.contains("SecureBoot enabled"), "{who} did not boot by Secure Boot: {state}");
        note(&format!("{who}: {}", state.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    wait_for("cloud-init to end", BOOT, || {
        Ok(guest.says("cloud-init status").is_ok_and(|s| s.contains("done")))
    })?;
    let times = guest.says("systemd-analyze time | head -n 1")?;
    note(&format!("{}: {}", name(guest.side()), times.trim()));
    wait_for("systemd to be done", BOOT, || {
        let state = guest.says("systemctl is-system-running || true")?;
        Ok(!state.contains("starting") && !state.contains("initializing"))
    })?;
    let failed = guest.says("systemctl --failed --no-legend --plain")?;
    ensure!(failed.trim().is_empty(), "these services of {} failed:\n{failed}", name(guest.side()));
    for unit in ["adit-control", "adit-dataplane", "prometheus", "prometheus-alertmanager", "nftables"] {
        guest.says(&format!("systemctl is-active {unit}"))?;
    }
    for unit in ["bird", "keepalived"] {
        ensure!(
            guest.says(&format!("systemctl is-active {unit} || true"))?.contains("inactive"),
            "{unit} runs"
        );
    }
    let disk = guest.says("df --output=size -BM / | tail -n 1")?;
    let size: u32 = disk.trim().trim_end_matches('M').parse().context("df")?;
    ensure!(size > 4500, "the root file system did not grow: {size} MB");
    note(&format!("{}: no service failed; the root file system has {size} MB", name(guest.side())));
    Ok(())
}

/// Connected, and a host of one LAN reaches the host of the other.
fn tunnel(a: &Guest, b: &Guest) -> Result<()> {
    announce("wait for the tunnel");
    let begun = Instant::now();
    wait_for("`connected`", PATIENCE, || {
        Ok(a.says("sudo adit status --json").is_ok_and(|status| status.contains("\"connected\"")))
    })?;
    note(&format!("connected after {:.0} s", begun.elapsed().as_secs_f64()));
    for (from, to) in [(a, b), (b, a)] {
        reaches(from.lan(), to.side())?;
        let lost = ping(from.lan(), to.side(), 20, 0.2)?;
        ensure!(lost == 0, "{lost} of 20 pings to {} were lost", to.side().host());
    }
    note("20 of 20 pings came back, each way, from host to host");
    Ok(())
}

/// Nobody comes in by a password, and nothing but what is meant to listens outside.
pub(crate) fn hardened(guest: &Guest) -> Result<()> {
    let refused = guest.ssh(&["PubkeyAuthentication=no"], "true").output()?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && words.contains("publickey"), "a login without a key: {words}");
    ensure!(!words.contains("password"), "passwords are taken: {words}");
    let mut knock = guest.lan().command("bash");
    knock.args(["-c", &format!("timeout 3 bash -c '</dev/tcp/{}/9090'", guest.side().gateway())]);
    ensure!(!knock.output()?.status.success(), "Prometheus listens outside");
    let set = guest.says("sudo nft list set inet adit lan")?;
    ensure!(set.contains("\"lan\""), "the firewall does not know the LAN side:\n{set}");
    let priorities = guest.says("ps -eLo ni=,comm= | grep adit-dh-")?;
    ensure!(
        priorities.lines().all(|line| line.split_whitespace().next() == Some(NICE)),
        "Diffie-Hellman does not wait for other work:\n{priorities}"
    );
    note(&format!("{}: keys only, the firewall knows its LAN, Diffie-Hellman waits", name(guest.side())));
    Ok(())
}

/// Who reaches the API and the metrics of `a`: its LAN, with the token that cloud-init had made. Not the other LAN through the
/// tunnel, nor the other gateway from the Internet: the firewall keeps them out, for without it they are let in.
fn firewall(a: &Guest, b: &Guest) -> Result<()> {
    announce("knock at the API and the metrics");
    let gateway = a.side().gateway();
    let token = a.says("sudo cat /root/token")?;
    let asks = |what: String| {
        let mut curl = a.lan().command("curl");
        curl.args(["--silent", "--insecure", "--max-time", "10", "--header"]);
        curl.arg(format!("Authorization: Bearer {}", token.trim())).arg(what);
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&curl.output()?.stdout).into_owned())
    };
    // The LAN is let in once the console's text is written.
    wait_for("the API to let the LAN in", PATIENCE, || {
        Ok(asks(format!("https://{gateway}:{}/v1/tunnels", guests::API))?.contains("\"across\""))
    })?;
    let metrics = asks(format!("http://{gateway}:{}/metrics", guests::METRICS))?;
    ensure!(metrics.contains("adit_tunnel_health"), "its LAN has no metrics:\n{metrics}");
    let knocks = |host: &str, port: u16| format!("timeout 5 bash -c '</dev/tcp/{host}/{port}'");
    let through = |port| {
        let mut knock = b.lan().command("bash");
        Ok::<_, anyhow::Error>(knock.args(["-c", &knocks(&gateway, port)]).output()?.status.success())
    };
    let outside = |port| b.says(&knocks(&a.side().wan(), port)).is_ok();
    for port in [guests::API, guests::METRICS] {
        ensure!(!through(port)?, "the other LAN reaches port {port} of {gateway} through the tunnel");
        ensure!(!outside(port), "the other gateway reaches port {port} of {}", a.side().wan());
    }
    let ports = format!("{}, {}", guests::API, guests::METRICS);
    a.says(&format!("sudo nft insert rule inet adit input tcp dport {{ {ports} }} accept"))?;
    for port in [guests::API, guests::METRICS] {
        ensure!(through(port)? && outside(port), "something else than the firewall is before port {port}");
    }
    a.says("sudo nft delete rule inet adit input handle $(sudo nft -a list chain inet adit input | awk '/dport/ { print $NF; exit }')")?;
    ensure!(!outside(guests::API), "the rule of this test is still there");
    note("its LAN has both, with a token; the other LAN and the Internet have neither");
    Ok(())
}

/// Without anybody who says anything: an address by DHCP, host keys, the whole disk, and what to do next on the console.
fn unseeded(run: &Run, image: &Path, power: Power) -> Result<()> {
    announce("boot a guest that nobody tells anything");
    let guest = Unseeded::start(run, image, power)?;
    for wanted in ["No gateway is configured.", guests::LEASED] {
        wait_for(&format!("{wanted:?} on the console"), BOOT, || Ok(guest.console().contains(wanted)))
            .with_context(|| format!("the console ends:\n{}", tail(&guest.console(), 30)))?;
    }
    ensure!(!guest.console().contains("169.254.169.254"), "it asked a stranger who may come in");
    wait_for("it to show a host key and ask for ours", PATIENCE, || {
        Ok(guest.greets()?.contains("Permission denied (publickey)"))
    })?;
    wait_for("the root partition to take the whole disk", PATIENCE, || Ok(guest.root_ends()? > 4500 << 20))?;
    note("it has an address, host keys and its whole disk, and lets nobody in without a key");
    Ok(())
}

/// By which way packets come and go in the guest's own kernel.
pub(crate) fn modes(guest: &Guest) -> Result<()> {
    let metrics = guest.says("sudo adit metrics")?;
    let ports: Vec<&str> = metrics.lines().filter(|line| line.starts_with("adit_port_info{")).collect();
    ensure!(ports.len() == 2, "there are other ports than wan and lan:\n{}", ports.join("\n"));
    let kernel = guest.says("uname -r")?;
    note(&format!("Linux {}", kernel.trim()));
    for port in ports {
        // What virtio-net can, and docs/appliance.md promises.
        ensure!(port.contains("mode=\"driver\""), "XDP does not run in the driver: {port}");
        note(port);
    }
    Ok(())
}

/// The guest's Prometheus has 1 as the value of `metric`, and the rules that watch the gateway.
pub(crate) fn scraped(guest: &Guest, metric: &str) -> Result<()> {
    announce("ask the guest's Prometheus");
    wait_for(&format!("{metric} in Prometheus"), PATIENCE, || {
        let Ok(answer) = guest.says(&format!("{ASK} '{metric}'")) else { return Ok(false) };
        let answer: Value = serde_json::from_str(&answer)?;
        Ok(answer["data"]["result"][0]["value"][1] == "1")
    })?;
    // Of the alarm template that every gateway has; control writes them when there is a gateway.
    let rules = "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:9090/api/v1/rules\").read().decode())'";
    wait_for("the rules in Prometheus", PATIENCE, || {
        Ok(guest.says(rules).is_ok_and(|rules| rules.contains("AditHealth")))
    })?;
    note(&format!("{metric} is 1, and the rules are loaded"));
    Ok(())
}

/// The console says `wanted`.
pub(crate) fn console(guest: &Guest, wanted: &str) -> Result<()> {
    wait_for(&format!("{wanted:?} on the console"), PATIENCE, || Ok(guest.console().contains(wanted)))
        .with_context(|| format!("the console ends:\n{}", tail(&guest.console(), 30)))?;
    note(&format!("the console says {wanted:?}"));
    Ok(())
}

/// The package of the guest is installed again while packets flow: none is lost.
fn upgraded(guest: &Guest, other: Side, deb: &Path) -> Result<()> {
    announce("upgrade the package in place, under 10 pings a second");
    guest.takes(deb, "/tmp/adit.deb")?;
    let mut pings = guest.lan().spawn("pings", guest.lan().command("ping").args(pinged(other, 300, 0.1)))?;
    guest.says("sudo dpkg --install /tmp/adit.deb && systemctl is-active adit-control adit-dataplane")?;
    wait_for("control to answer", PATIENCE, || Ok(guest.says("sudo adit status").is_ok()))?;
    pings.wait(Duration::from_secs(120))?;
    let lost = lost(&pings.log())?;
    ensure!(lost == 0, "{lost} of 300 pings were lost during the upgrade:\n{}", pings.log_tail(4));
    let version = guest.says("dpkg-query -W -f '${Version}' adit")?;
    ensure!(version.ends_with(NEWER), "the upgrade left {version}");
    note(&format!("300 of 300 pings came back, and it is {version}"));
    Ok(())
}

/// The same package with a later version.
fn newer(run: &Run, deb: &Path) -> Result<PathBuf> {
    let (apart, file) = (run.directory().join("newer"), run.directory().join("newer.deb"));
    let mut take = Command::new("dpkg-deb");
    take.arg("-R").arg(deb).arg(&apart);
    Step::new("take the package apart", take, "install dpkg").quiet()?;
    let control = apart.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let version = text.lines().find(|line| line.starts_with("Version: ")).context("it has no version")?;
    fs::write(&control, text.replace(version, &format!("{version}{NEWER}")))?;
    let mut put = Command::new("dpkg-deb");
    put.args(["--root-owner-group", "-Zxz", "-z1", "-b"]).arg(&apart).arg(&file);
    Step::new("put it together again", put, "read dpkg-deb's message above").quiet()?;
    Ok(file)
}

/// The tunnel returns when a gateway has been started anew.
fn rebooted(a: &Guest, b: &mut Guest) -> Result<()> {
    announce("reboot site-b");
    let boot = b.says("cat /proc/sys/kernel/random/boot_id")?;
    let begun = Instant::now();
    // Its own end of the connection goes with it.
    let _ = b.says("sudo systemctl reboot");
    wait_for("another boot", BOOT, || {
        Ok(b.says("cat /proc/sys/kernel/random/boot_id").is_ok_and(|now| now != boot))
    })?;
    reaches(a.lan(), b.side())?;
    note(&format!("hosts reach each other again {:.0} s after the command", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Waits for the first answer of the other side's host.
fn reaches(from: &Namespace, to: Side) -> Result<()> {
    wait_for("an answer from the other LAN", PATIENCE, || {
        let mut ping = from.command("ping");
        Ok(ping.args(["-c", "1", "-W", "2", &to.host()]).output()?.status.success())
    })
}

/// How many of `count` pings were lost.
fn ping(from: &Namespace, to: Side, count: u32, interval: f64) -> Result<u32> {
    let output = from.command("ping").args(pinged(to, count, interval)).output()?;
    lost(&String::from_utf8_lossy(&output.stdout))
}

fn pinged(to: Side, count: u32, interval: f64) -> [String; 7] {
    ["-q", "-c", &count.to_string(), "-i", &interval.to_string(), "-W5", &to.host()].map(str::to_owned)
}

/// What ping's last lines say: `300 packets transmitted, 299 received, …`.
fn lost(text: &str) -> Result<u32> {
    let line =
        text.lines().find(|line| line.contains(" packets transmitted")).context("ping has not ended")?;
    let mut numbers = line.split(", ").filter_map(|part| part.split(' ').next()?.parse::<u32>().ok());
    let (sent, received) = (numbers.next().context("ping")?, numbers.next().context("ping")?);
    Ok(sent - received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_pings_are_counted() {
        let text = "--- 10.2.0.2 ping statistics ---\n300 packets transmitted, 298 received, 0.66% packet loss, time 3ms\n";
        assert_eq!(lost(text).unwrap(), 2);
        assert!(lost("PING 10.2.0.2").is_err());
    }
}
