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
    reread(&guest)?;
    configured(&guest)?;
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

#[cfg(test)]
mod tests {
    #[test]
    fn how_long_it_is_up_does_not_count() {
        let line = "no gateway yet, Adit 0.1.0, up 38 s: 0 of 0 tunnels connected";
        assert_eq!(super::timeless(line), ("no gateway yet, Adit 0.1.0", "0 of 0 tunnels connected"));
        assert_eq!(super::timeless("waits for a gateway"), ("waits for a gateway", ""));
    }
}
