//! `cargo xtask image`: the appliance, a disk that boots into a gateway.
//!
//! Debian's packages of `images/appliance/packages.txt` are put into a tar file by mmdebstrap, which is kept below `target/image`
//! as long as that list is the same. In a copy of it the Debian package of Adit is installed and the files of
//! `images/appliance/root` are put in their places; [`disk`] makes a disk of that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, Step, announce, note};
use crate::{disk, package, packages};

/// Largest image that is let pass, in bytes.
const LARGEST: u64 = 600 << 20;

/// What makes the disk, as Debian calls it.
const TOOLS: [&str; 6] = ["mmdebstrap", "e2fsprogs", "dosfstools", "mtools", "fdisk", "qemu-utils"];

const SUITE: &str = "bookworm";

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
const STARTED: [&str; 4] =
    ["nftables.service", "systemd-networkd.service", "systemd-resolved.service", "adit-appliance.timer"];

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

/// What an image is called, below `target/image`.
pub(crate) struct Image {
    /// For hypervisors of the kind of qemu, and most clouds: compressed.
    pub(crate) qcow2: PathBuf,
    /// The disk octet by octet; most of it is a hole.
    pub(crate) raw: PathBuf,
}

/// Builds the image, with no time and no name in it that is this machine's.
///
/// # Errors
/// Not root, a program that it takes is missing or failed, or the image is larger than [`LARGEST`].
pub(crate) fn image() -> Result<Image> {
    if !packages::is_debian() || !shell::is_root() {
        bail!(
            "the image is put together from Debian's packages, with files of many owners: run this as root, on Debian 12"
        );
    }
    packages::install(&packages::not_installed(TOOLS.map(str::to_owned).to_vec())?)?;
    let deb = package::package()?;
    let epoch = package::epoch()?;
    let base = base(epoch)?;
    announce("install Adit and its files in a copy of the base");
    let root = directory().join("root");
    fill(&root, &base, &deb)?;
    let boot = disk::boot_images(&root)?;
    tidy(&root, epoch)?;
    announce("make the disk");
    let image = Image { qcow2: directory().join("adit.qcow2"), raw: directory().join("adit.raw") };
    disk::make(&root, &boot, epoch, &image.raw)?;
    fs::remove_dir_all(&root)?;
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-c", "-O", "qcow2"]).arg(&image.raw).arg(&image.qcow2);
    Step::new("compress the disk", convert, "read qemu-img's message above").quiet()?;
    let size = fs::metadata(&image.qcow2)?.len();
    for file in [&image.raw, &image.qcow2] {
        note(&format!("{}: SHA-256 {}", file.display(), package::sha256(file)?));
    }
    note(&format!("{} MiB compressed", size >> 20));
    if size > LARGEST {
        bail!(
            "the image is larger than {} MiB: see what images/appliance/packages.txt can do without",
            LARGEST >> 20
        );
    }
    Ok(image)
}

/// Where images are made.
pub(crate) fn directory() -> PathBuf {
    shell::target().join("image")
}

/// Debian as a tar file, made unless one of the same list is there.
fn base(epoch: u64) -> Result<PathBuf> {
    let list = fs::read_to_string(shell::root().join("images/appliance/packages.txt"))?;
    let include = names(&list).join(",");
    let recipe = format!("{SUITE} {include} {}", LEFT_OUT.join(" "));
    let (file, stamp) = (directory().join("base.tar"), directory().join("base.recipe"));
    if file.exists() && fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
        announce("Debian's packages are here");
        note(&format!(
            "{}; without it they are fetched anew, with what Debian has mended since",
            file.display()
        ));
        return Ok(file);
    }
    fs::create_dir_all(directory())?;
    let partial = directory().join("base.partial.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--aptopt=APT::Install-Recommends \"false\"", "--quiet"]);
    command.arg(format!("--include={include}"));
    for pattern in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    command.arg(SUITE).arg(&partial).env("SOURCE_DATE_EPOCH", epoch.to_string()).env("TMPDIR", directory());
    for source in [
        "http://deb.debian.org/debian SUITE",
        "http://deb.debian.org/debian SUITE-updates",
        "http://deb.debian.org/debian-security SUITE-security",
    ] {
        command.arg(format!("deb {} main", source.replace("SUITE", SUITE)));
    }
    let remedy = "read mmdebstrap's message above; it needs Debian's mirror";
    Step::new("install Debian's packages into a directory (minutes, once)", command, remedy).shown()?;
    fs::rename(partial, &file)?;
    fs::write(stamp, recipe)?;
    Ok(file)
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

/// Takes away what is of this installation only, and gives everything newer the time of the source.
fn tidy(root: &Path, epoch: u64) -> Result<()> {
    let mut script = format!("set -e; cd '{}'; rm -rf {}\n", root.display(), CLEARED.join(" "));
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
