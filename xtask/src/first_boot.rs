//! The first boot of an appliance that nobody has configured: one guest, which says what to do next, is made a gateway by one
//! command, and is one. `cargo xtask test` does it too: one guest alone boots in minutes without KVM.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adit_tests::namespace::wait_for;
use adit_tests::run::Run;
use anyhow::{Context, Result, ensure};

use crate::guests::{self, Guest, Power};
use crate::shell::{announce, note};
use crate::{image, image_test, package};

/// How long a gateway may take from the command that makes it: without KVM the kernel verifies the XDP program for a minute.
const PATIENCE: Duration = Duration::from_secs(300);
/// Nothing else runs meanwhile.
const PROCESSORS: u8 = 2;

/// Boots `given`, or a disk that is built now, and tries it.
///
/// # Errors
/// What does not hold, in words.
pub(crate) fn first_boot(given: Option<&Path>) -> Result<()> {
    let image: PathBuf = match given {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
        None => image::disk(&package::package()?)?,
    };
    of(&image)
}

/// Boots a disk of the format that its name ends with, and tries it.
///
/// # Errors
/// What does not hold, in words.
pub(crate) fn of(image: &Path) -> Result<()> {
    image_test::ready()?;
    let begun = Instant::now();
    let run = Run::begin()?;
    guests::make_key(&run)?;
    let kvm = guests::has_kvm(&run, image)?;
    announce(&format!("boot a guest {}", if kvm { "by KVM" } else { "without KVM: minutes" }));
    let started = Instant::now();
    let power = Power { kvm, processors: PROCESSORS };
    let mut guest = Guest::start(&run, image, guests::ALONE, None, power)?;
    image_test::up(&mut guest, started)?;
    unconfigured(&guest)?;
    cared_for(&guest)?;
    reread(&guest)?;
    configured(&guest)?;
    bgp(&guest)?;
    announce(&format!("the first boot is as it should be ({:.0} s)", begun.elapsed().as_secs_f64()));
    drop(guest);
    run.end()
}

/// It tells its addresses and what to do next, and answers.
fn unconfigured(guest: &Guest) -> Result<()> {
    image_test::console(guest, "No gateway is configured.")?;
    image_test::console(guest, &format!("lan: {}/24", guest.side().gateway()))?;
    let status = guest.says("sudo adit status")?;
    note(&format!("adit status: {}", status.lines().next().unwrap_or_default()));
    let banner = guest.says("sudo run-parts /etc/update-motd.d")?;
    let missing =
        status.lines().find(|line| !banner.contains(timeless(line).0) || !banner.contains(timeless(line).1));
    ensure!(missing.is_none(), "who logs in sees:\n{banner}\nbut `adit status` says:\n{status}");
    Ok(())
}

/// What a line of the status says before and after how long the gateway is up, which goes on from one look to the next.
fn timeless(line: &str) -> (&str, &str) {
    let Some((before, rest)) = line.split_once(", up ") else { return (line, "") };
    (before, rest.split_once(": ").map_or("", |(_, after)| after))
}

/// Another kernel leaves GRUB's configuration as the image has it, packages whose files the image has replaced are upgraded all the
/// same, and logs do not grow for ever.
fn cared_for(guest: &Guest) -> Result<()> {
    // As a kernel's package does when it is installed, and when an old one goes; what makes its initial file system is Debian's
    // and takes a minute here.
    for (directory, mode) in [("postinst.d", "configure"), ("postrm.d", "remove")] {
        let hooks = format!(
            "sudo env INITRD=No DEB_MAINT_PARAMS={mode} run-parts --report --exit-on-error --arg=$(uname -r) \
             --arg=/boot/vmlinuz-$(uname -r) /etc/kernel/{directory}"
        );
        guest.says(&format!(
            "cp /boot/grub/grub.cfg /tmp/grub.cfg && {hooks} && cmp /boot/grub/grub.cfg /tmp/grub.cfg"
        ))?;
    }
    ensure!(guest.says("cat /boot/grub/grub.cfg")?.contains("serial --unit=0"), "GRUB has no serial console");
    let options = guest.says("apt-config dump Dpkg::Options")?;
    ensure!(
        options.contains("\"--force-confold\""),
        "dpkg is to ask about files of configuration:\n{options}"
    );
    guest.says("systemctl is-active logrotate.timer")?;
    let logs = guest.says("sudo logrotate --debug /etc/logrotate.conf 2>&1")?;
    for log in
        ["cloud-init.log", "apt/history.log", "dpkg.log", "unattended-upgrades/unattended-upgrades.log"]
    {
        ensure!(logs.contains(&format!("/var/log/{log}")), "nobody cuts {log} off:\n{logs}");
    }
    note("a kernel's hooks leave grub.cfg as it is; dpkg keeps the image's files; logs are cut off");
    Ok(())
}

/// A Prometheus that has just started is not ended by being told of other rules, and one that is ended so comes back.
fn reread(guest: &Guest) -> Result<()> {
    let restarts = "systemctl show --property NRestarts --value prometheus";
    guest.says("sudo systemctl restart prometheus && sudo systemctl start adit-alarms && systemctl is-active prometheus")?;
    let count = guest.says(restarts)?;
    ensure!(count.trim() == "0", "Prometheus was ended by being told of other rules, {} times", count.trim());
    // Tried again where the signal came too late to end it.
    let ended = "sudo systemctl restart prometheus && sudo systemctl kill --signal=HUP prometheus && sleep 2";
    wait_for("Prometheus to be ended, and back", PATIENCE, || {
        let after = guest.says(&format!("{ended} && systemctl is-active prometheus && {restarts}"));
        Ok(after.is_ok_and(|after| after.lines().eq(["active", "1"])))
    })?;
    note("Prometheus reads rules again when it listens, and comes back when it did not");
    Ok(())
}

/// One command makes it a gateway, with the LAN let in, the ports in XDP, and Prometheus looking.
fn configured(guest: &Guest) -> Result<()> {
    announce("make it a gateway");
    let begun = Instant::now();
    guest.says(&format!("sudo adit gateway create site-a address={} wan=wan lan=lan", guest.side().wan()))?;
    wait_for("the data plane", PATIENCE, || {
        Ok(guest.says("sudo adit metrics")?.lines().any(|line| line == "adit_data_plane_up 1"))
    })?;
    note(&format!("the data plane runs after {:.0} s", begun.elapsed().as_secs_f64()));
    image_test::modes(guest)?;
    image_test::console(guest, "Gateway site-a.")?;
    image_test::hardened(guest)?;
    image_test::scraped(guest, "adit_data_plane_up")
}

/// BIRD is started by one command, and then has the sessions of tunnels with BGP.
fn bgp(guest: &Guest) -> Result<()> {
    announce("give it a tunnel with BGP");
    guest.says("sudo systemctl enable --now bird")?;
    guest.says(&format!("sudo adit peer create other address={} asn=64513", guest.side().across()))?;
    guest.says(
        "sudo adit tunnel create across peer=other start=respond routing_mode=route routes=10.9.0.0/16 \
         bgp.local_asn=64512 bgp.inside_cidr=169.254.10.0/30 bgp.local_ip=169.254.10.1",
    )?;
    wait_for("BIRD to have the tunnel's session", PATIENCE, || {
        Ok(guest.says("sudo birdc show protocols").is_ok_and(|said| said.contains("adit_169_254_10_0")))
    })?;
    let shown = guest.says("sudo adit tunnel show across")?;
    ensure!(
        shown.contains("169.254.10.1 (64512) with 169.254.10.2 (64513)"),
        "adit knows nothing of BIRD:\n{shown}"
    );
    note("BIRD has the tunnel's session");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn how_long_it_is_up_does_not_count() {
        let line = "no gateway yet, Adit 0.1.0, up 38 s: 0 of 0 tunnels connected";
        assert_eq!(super::timeless(line), ("no gateway yet, Adit 0.1.0", "0 of 0 tunnels connected"));
        assert_eq!(super::timeless("waits for a gateway"), ("waits for a gateway", ""));
    }
}
