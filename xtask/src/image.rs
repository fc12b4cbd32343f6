//! `cargo xtask image`: the appliance, a disk that boots into a gateway.
//!
//! Debian's packages of `images/appliance/packages.txt` are put into a tar file by mmdebstrap, which is kept below `target/image`
//! as long as that list is the same. In a copy of it the Debian package of Adit is installed and the files of
//! `images/appliance/root` are put in their places; [`disk`] makes a disk of that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell::{self, Step, announce, note};
use crate::{disk, package, packages};

/// Largest image that is let pass, in bytes.
const LARGEST: u64 = 600 << 20;

/// What makes the disk, as Debian calls it.
const TOOLS: [&str; 8] =
    ["mmdebstrap", "e2fsprogs", "dosfstools", "mtools", "fdisk", "qemu-utils", "curl", "diffutils"];

const SUITE: &str = "bookworm";
/// Where its packages come from: mirror and suite.
const ARCHIVES: [(&str, &str); 3] = [
    ("http://deb.debian.org/debian", "bookworm"),
    ("http://deb.debian.org/debian", "bookworm-updates"),
    ("http://deb.debian.org/debian-security", "bookworm-security"),
];

/// Files that Debian's packages bring and nobody reads on a gateway.
const LEFT_OUT: [&str; 5] = [
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/javascript/moment-timezone/data/unpacked/*",
    "/usr/share/i18n/locales/*",
];

/// Services that wait for somebody to configure them.
const IDLE: [&str; 3] = ["bird.service", "keepalived.service", "netplan-ovs-cleanup.service"];
/// Services that Debian does not start by itself.
const STARTED: [&str; 5] = [
    "nftables.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "adit-appliance.timer",
    "adit-alarms.path",
];

/// What an installation leaves that no two machines may share, or that differs each time.
const CLEARED: [&str; 12] = [
    "etc/ssh/ssh_host_*",
    "etc/.pwd.lock",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
    "var/lib/dbus/machine-id",
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/*-old",
    "var/log/*.log",
    "var/log/apt",
    "tmp/*",
];

/// Hooks of GRUB's packages that would write a `grub.cfg` of theirs over the image's at the next kernel. dpkg does not bring back
/// a file of configuration that somebody has removed.
const HOOKS: [&str; 2] = ["etc/kernel/postinst.d/zz-update-grub", "etc/kernel/postrm.d/zz-update-grub"];

/// Debian's packages, installed into a tar file.
struct Base {
    tar: PathBuf,
    /// When Debian's mirror was last changed before that: nothing that a package holds is younger.
    epoch: u64,
}

/// Builds the image, with no time and no name in it that is this machine's; returns the compressed one. With `check`, Debian's
/// packages are fetched and everything is built a second time, and has to be the same.
///
/// # Errors
/// Not root, a program that it takes is missing or failed, the image is larger than [`LARGEST`], or the two differ.
pub(crate) fn image(check: bool) -> Result<PathBuf> {
    ready()?;
    let deb = package::package()?;
    let raw = build(&directory(), &base(&directory())?, &deb)?;
    if check {
        let other = other()?;
        again(&other, &base(&other)?, &deb, &raw)?;
    }
    fs::remove_dir_all(directory().join("root"))?;
    let compressed = compress(&raw)?;
    for file in [&raw, &compressed] {
        note(&format!("{}: SHA-256 {}", file.display(), package::sha256(file)?));
    }
    Ok(compressed)
}

/// The disk with the package `deb` as [`image`] makes it, but not compressed, which nobody who tries it needs.
///
/// # Errors
/// As [`image`].
pub(crate) fn disk(deb: &Path) -> Result<PathBuf> {
    ready()?;
    let raw = build(&directory(), &base(&directory())?, deb)?;
    fs::remove_dir_all(directory().join("root"))?;
    Ok(raw)
}

/// The disk as [`disk`] makes it, after it was made twice from the same base and was the same, and small enough when compressed.
///
/// # Errors
/// As [`image`].
pub(crate) fn proven_disk(deb: &Path) -> Result<PathBuf> {
    ready()?;
    let base = base(&directory())?;
    let raw = build(&directory(), &base, deb)?;
    again(&other()?, &base, deb, &raw)?;
    fs::remove_dir_all(directory().join("root"))?;
    fs::remove_file(compress(&raw)?)?;
    Ok(raw)
}

/// The disk as most who take it want it.
fn compress(raw: &Path) -> Result<PathBuf> {
    let compressed = raw.with_extension("qcow2");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-c", "-O", "qcow2"]).arg(raw).arg(&compressed);
    announce("compress the disk");
    Step::new("compress the disk", convert, "read qemu-img's message above").quiet()?;
    let size = fs::metadata(&compressed)?.len();
    note(&format!("{} MiB compressed", size >> 20));
    if size > LARGEST {
        bail!(
            "the image is larger than {} MiB: see what images/appliance/packages.txt can do without",
            LARGEST >> 20
        );
    }
    Ok(compressed)
}

/// Fetches what an image takes from the network, as far as it is not here.
///
/// # Errors
/// It cannot be had, or nobody but root may make images.
pub(crate) fn fetch() -> Result<()> {
    ready()?;
    base(&directory()).map(drop)
}

/// Sees that an image can be made on this machine, and that Debian's mirrors answer.
///
/// # Errors
/// Nobody but root may, on Debian; or there is no network.
pub(crate) fn can_be_made() -> Result<()> {
    ready()?;
    archive_time().map(drop)
}

/// Where images are made.
fn directory() -> PathBuf {
    shell::target().join("image")
}

/// Sees that there is what makes an image.
fn ready() -> Result<()> {
    if !packages::is_debian() || !shell::is_root() {
        bail!(
            "the image is put together from Debian's packages, with files of many owners: run this as root, on Debian 12"
        );
    }
    packages::install(&packages::not_installed(TOOLS.map(str::to_owned).to_vec())?)
}

/// Makes `adit.raw` and `adit.manifest` in the directory `at`, and leaves the files that are on the disk in `root` there.
fn build(at: &Path, base: &Base, deb: &Path) -> Result<PathBuf> {
    let epoch = package::epoch()?.max(base.epoch);
    announce("install Adit and its files in a copy of the base");
    let begun = Instant::now();
    let root = at.join("root");
    fill(&root, &base.tar, deb)?;
    let boot = disk::boot_images(&root)?;
    let installed =
        inside(&root, "list the packages", &["dpkg-query", "-W", "-f", "${binary:Package} ${Version}\n"])?;
    tidy(&root, epoch)?;
    note(&format!("done in {:.1} s", begun.elapsed().as_secs_f64()));
    announce("make the disk");
    let begun = Instant::now();
    let raw = at.join("adit.raw");
    disk::make(&root, &boot, epoch, &raw)?;
    let head = format!("SOURCE_DATE_EPOCH {epoch}\nadit.deb SHA-256 {}\n\n", package::sha256(deb)?);
    fs::write(at.join("adit.manifest"), head + &installed)?;
    note(&format!("done in {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(raw)
}

/// An empty directory to build in once more.
fn other() -> Result<PathBuf> {
    let other = directory().join("again");
    if other.exists() {
        fs::remove_dir_all(&other)?;
    }
    fs::create_dir_all(&other)?;
    Ok(other)
}

/// Builds once more in the directory `other`, and compares: where the disks differ, the files say more.
fn again(other: &Path, base: &Base, deb: &Path, first: &Path) -> Result<()> {
    let second = build(other, base, deb)?;
    let (one, two) = (package::sha256(first)?, package::sha256(&second)?);
    if one != two {
        let mut compare = Command::new("diff");
        compare.args(["-rq", "--no-dereference"]).arg(directory().join("root")).arg(other.join("root"));
        let said = String::from_utf8_lossy(&compare.output()?.stdout).into_owned();
        bail!("two builds differ: {one} and {two}; the second is {}\n{said}", second.display());
    }
    note(&format!("a second build is the same, octet by octet: SHA-256 {one}"));
    fs::remove_dir_all(other)?;
    Ok(())
}

/// Debian as a tar file in the directory `at`, made unless one of the same list is there.
fn base(at: &Path) -> Result<Base> {
    let list = fs::read_to_string(shell::root().join("images/appliance/packages.txt"))?;
    let include = names(&list).join(",");
    let recipe = format!("{SUITE} {include} {}", LEFT_OUT.join(" "));
    let (tar, stamp) = (at.join("base.tar"), at.join("base.recipe"));
    let known = fs::read_to_string(&stamp).unwrap_or_default();
    if let Some((made, epoch)) = known.split_once('\n')
        && made == recipe
        && tar.exists()
    {
        announce("Debian's packages are here");
        note(&format!(
            "{}; without it they are fetched anew, with what Debian has mended since",
            tar.display()
        ));
        return Ok(Base { tar, epoch: epoch.trim().parse().with_context(|| stamp.display().to_string())? });
    }
    fs::create_dir_all(at)?;
    let epoch = archive_time()?;
    let partial = at.join("base.partial.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--aptopt=APT::Install-Recommends \"false\"", "--quiet"]);
    command.arg(format!("--include={include}"));
    for pattern in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    command.arg(SUITE).arg(&partial).env("SOURCE_DATE_EPOCH", epoch.to_string()).env("TMPDIR", at);
    for (mirror, suite) in ARCHIVES {
        command.arg(format!("deb {mirror} {suite} main"));
    }
    let remedy = "read mmdebstrap's message above; it needs Debian's mirror";
    Step::new("install Debian's packages into a directory (minutes, once)", command, remedy).shown()?;
    fs::rename(partial, &tar)?;
    fs::write(stamp, format!("{recipe}\n{epoch}\n"))?;
    Ok(Base { tar, epoch })
}

/// When the archives were last changed, as they say themselves, in seconds since 1970.
fn archive_time() -> Result<u64> {
    let mut newest = 0;
    for (mirror, suite) in ARCHIVES {
        let mut fetch = Command::new("curl");
        fetch.args(["--silent", "--show-error", "--fail", "--location", "--max-time", "60"]);
        fetch.arg(format!("{mirror}/dists/{suite}/InRelease"));
        let text =
            Step::new("ask Debian's mirror for its date", fetch, "it takes curl and a network").quiet()?;
        let date =
            text.lines().find_map(|line| line.strip_prefix("Date: ")).context("InRelease has no date")?;
        let mut read = Command::new("date");
        read.args(["--utc", "+%s", "--date", date]);
        let time: u64 = Step::new("read Debian's date", read, "install coreutils").quiet()?.trim().parse()?;
        newest = newest.max(time);
    }
    Ok(newest)
}

/// The first word of every line that is no comment.
fn names(list: &str) -> Vec<&str> {
    list.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next()).collect()
}

/// The root of the appliance's files.
fn fill(root: &Path, base: &Path, deb: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("failed to remove {}", root.display()))?;
    }
    fs::create_dir_all(root)?;
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--xattrs", "-xpf"]).arg(base).arg("-C").arg(root);
    Step::new("unpack the base", tar, "is there room below target?").quiet()?;
    fs::copy(deb, root.join("tmp/adit.deb"))?;
    inside(root, "install the Debian package", &["dpkg", "--install", "/tmp/adit.deb"])?;
    let mut copy = Command::new("cp");
    copy.args(["-r", "--no-preserve=ownership"]).arg(shell::root().join("images/appliance/root/.")).arg(root);
    Step::new("copy the appliance's files", copy, "").quiet()?;
    for name in ["etc/fstab", "boot/grub/grub.cfg"] {
        let text = fs::read_to_string(root.join(name))?;
        fs::write(
            root.join(name),
            text.replace("@ROOT@", disk::ROOT_UUID).replace("@ESP@", &disk::esp_uuid()),
        )?;
    }
    fs::create_dir_all(root.join("boot/efi"))?;
    let present: Vec<&str> = IDLE
        .into_iter()
        .filter(|unit| {
            ["lib", "etc"].iter().any(|place| root.join(place).join("systemd/system").join(unit).exists())
        })
        .collect();
    inside(
        root,
        "leave idle what nobody has configured",
        &[&["systemctl", "disable"], &present[..]].concat(),
    )?;
    inside(root, "enable services", &[&["systemctl", "enable"], &STARTED[..]].concat())?;
    fs::write(root.join("etc/hostname"), "adit\n")?;
    Ok(())
}

/// Takes away what is of this installation only or not for this machine, and gives everything newer the time of the source.
fn tidy(root: &Path, epoch: u64) -> Result<()> {
    let mut script =
        format!("set -e; cd '{}'; rm -rf {}\n", root.display(), [&CLEARED[..], &HOOKS].concat().join(" "));
    // systemd takes an empty one for its first boot's to fill.
    script += "mkdir -p var/log/apt; : >etc/machine-id\n";
    script += "ln -sf /run/systemd/resolve/stub-resolv.conf etc/resolv.conf\n";
    script += &format!("find . -newermt @{epoch} -exec touch -h -d @{epoch} {{}} +\n");
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    Step::new("tidy the appliance's files", command, "read the message above").quiet()?;
    Ok(())
}

/// Runs a program in `root`.
pub(crate) fn inside(root: &Path, what: &str, words: &[&str]) -> Result<String> {
    let mut command = Command::new("chroot");
    command.arg(root).args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Step::new(what, command, "read the message above").quiet()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_of_the_list_has_its_reason() {
        let list = fs::read_to_string(shell::root().join("images/appliance/packages.txt")).unwrap();
        for name in names(&list) {
            let line = list.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
            assert!(line.split_once('#').is_some_and(|(_, why)| why.len() > 4), "{line}");
        }
        assert!(names(&list).len() > 10);
        assert_eq!(names("# a\n\nb  # c\n"), ["b"]);
    }
}
