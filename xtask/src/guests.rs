//! The guests of `cargo xtask image-test`: a copy of the image in qemu, with what cloud-init gives it, a wire to another
//! guest, and a LAN with one host, which is a network namespace; and one that has nothing of that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use adit_tests::namespace::{Namespace, Process, wait_for};
use adit_tests::run::Run;
use anyhow::{Context, Result, bail, ensure};

use crate::shell::{Step, note};

/// Ports of the API and of the metrics, as docs/appliance.md has them.
pub(crate) const API: u16 = 8443;
pub(crate) const METRICS: u16 = 9360;

/// What qemu's own DHCP gives.
pub(crate) const LEASED: &str = "10.0.2.15/24";

/// Disks grow to this when they boot first.
const DISK: &str = "6G";
/// How long a kernel may take under KVM until it says its name; without KVM it takes 20 s.
const PROBE: Duration = Duration::from_secs(25);

/// What a guest boots from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firmware {
    Bios,
    Uefi,
    /// UEFI that starts nothing without a signature that Microsoft's keys vouch for.
    SecureBoot,
}

impl Firmware {
    /// Code and variables, from Debian's `ovmf`.
    fn files(self) -> Option<[&'static str; 2]> {
        match self {
            Firmware::Bios => None,
            Firmware::Uefi => Some(["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"]),
            Firmware::SecureBoot => {
                Some(["/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"])
            }
        }
    }
}

/// One side of the tunnel.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    /// `a` or `b`.
    pub(crate) name: &'static str,
    number: u8,
    /// The first one waits for the other end of the wire.
    listens: bool,
    pub(crate) firmware: Firmware,
}

pub(crate) const A: Side = Side { name: "a", number: 1, listens: true, firmware: Firmware::Bios };
pub(crate) const B: Side = Side { name: "b", number: 2, listens: false, firmware: Firmware::Uefi };
/// One that has no other side.
pub(crate) const ALONE: Side = Side { firmware: Firmware::SecureBoot, ..A };

/// How guests run.
#[derive(Clone, Copy)]
pub(crate) struct Power {
    /// By the processor, or by qemu alone.
    pub(crate) kvm: bool,
    /// Processors of each.
    pub(crate) processors: u8,
}

impl Side {
    /// Its own address on the wire.
    pub(crate) fn wan(self) -> String {
        format!("192.0.2.{}", self.number)
    }

    /// The address of the other one on the wire.
    pub(crate) fn across(self) -> String {
        format!("192.0.2.{}", 3 - self.number)
    }

    /// The gateway's own address on its LAN.
    pub(crate) fn gateway(self) -> String {
        format!("10.{}.0.1", self.number)
    }

    /// The host on its LAN.
    pub(crate) fn host(self) -> String {
        format!("10.{}.0.2", self.number)
    }

    fn subnet(self) -> String {
        format!("10.{}.0.0/24", self.number)
    }

    fn mac(self, port: u8) -> String {
        format!("52:54:00:ad:{:02x}:{port:02x}", self.number)
    }

    /// What cloud-init is told: who may come in and, where there is another side, the configuration of a tunnel to it, with the
    /// API and the metrics on every address, so that the firewall alone says who reaches them, and a token.
    fn user_data(self, other: Option<Side>, key: &str) -> String {
        let mut text =
            format!("#cloud-config\nhostname: site-{}\nssh_authorized_keys: [{key:?}]\n", self.name);
        let Some(other) = other else { return text };
        let toml = format!(
            "[gateway]\nname = \"site-{}\"\naddress = \"{}\"\nwan = \"wan\"\nlan = [\"lan\"]\n\n[api]\nlisten = \
             \"0.0.0.0:{API}\"\nmetrics = \"0.0.0.0:{METRICS}\"\n\n[[peer]]\nname = \
             \"other\"\naddress = \"{}\"\n\n[[tunnel]]\nname = \"across\"\npeer = \"other\"\nlocal_subnets = \
             [\"{}\"]\nremote_subnets = [\"{}\"]\npsk = \"a-key-that-only-this-test-uses\"\n",
            self.name,
            self.wan(),
            other.wan(),
            self.subnet(),
            other.subnet()
        );
        text += "write_files:\n  - path: /etc/adit/adit.toml\n    permissions: \"0600\"\n    content: |\n";
        toml.lines().for_each(|line| text += &format!("      {line}\n"));
        text + "runcmd:\n  - adit token create ci --scope read,write >/root/token\n"
    }

    fn network(self) -> String {
        let port = |name: &str, number: u8, address: String| {
            format!(
                "  {name}:\n    match: {{macaddress: \"{}\"}}\n    set-name: {name}\n    addresses: [{address}/24]\n",
                self.mac(number)
            )
        };
        format!("version: 2\nethernets:\n{}{}", port("wan", 1, self.wan()), port("lan", 2, self.gateway()))
    }
}

/// A guest that was started, and the namespace that is its LAN.
pub(crate) struct Guest {
    side: Side,
    lan: Namespace,
    directory: PathBuf,
    process: Process,
}

impl Guest {
    /// Starts `side` on a copy of `image`, configured for a tunnel to `other` if there is one. The run's directory holds the
    /// key to it.
    pub(crate) fn start(
        run: &Run,
        image: &Path,
        side: Side,
        other: Option<Side>,
        power: Power,
    ) -> Result<Guest> {
        let directory = run.directory().to_owned();
        let lan = Namespace::create(run, &format!("h{}", side.name))?;
        lan.ip(&["tuntap", "add", "dev", "lan", "mode", "tap"])?;
        lan.ip(&["address", "add", &format!("{}/24", side.host()), "dev", "lan"])?;
        lan.ip(&["link", "set", "lan", "up"])?;
        if let Some(other) = other {
            lan.ip(&["route", "add", &other.subnet(), "via", &side.gateway()])?;
        }
        let seed = seed(&directory, side, other)?;
        let disk = on_top(image, &directory, side.name)?;
        let mut qemu = qemu(&lan, power, &console(&directory, side.name));
        for (file, format) in [(&disk, "qcow2"), (&seed, "raw")] {
            qemu.arg("-drive").arg(format!("if=virtio,format={format},file={}", file.display()));
        }
        let wire = directory.join("wire");
        let server = if side.listens { "on" } else { "off" };
        qemu.arg("-netdev");
        qemu.arg(format!("stream,id=wan,addr.type=unix,addr.path={},server={server}", wire.display()));
        qemu.args(["-device", &format!("virtio-net-pci,netdev=wan,mac={}", side.mac(1))]);
        qemu.args(["-netdev", "tap,id=lan,ifname=lan,script=no,downscript=no"]);
        qemu.args(["-device", &format!("virtio-net-pci,netdev=lan,mac={}", side.mac(2))]);
        if let Some([code, variables]) = side.firmware.files() {
            let own = directory.join(format!("{}.variables", side.name));
            fs::copy(variables, &own).with_context(|| format!("failed to copy {variables}"))?;
            for (unit, readonly, file) in [(0, "on", Path::new(code)), (1, "off", &own)] {
                let file = file.display();
                qemu.arg("-drive")
                    .arg(format!("if=pflash,format=raw,unit={unit},readonly={readonly},file={file}"));
            }
        }
        if side.firmware == Firmware::SecureBoot {
            // Nothing but the firmware itself may write what it believes.
            qemu.args(["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]);
            qemu.args(["-global", "ICH9-LPC.disable_s3=1"]);
        }
        let process = lan.spawn("qemu", &mut qemu)?;
        if side.listens {
            wait_for("qemu's end of the wire", Duration::from_secs(20), || Ok(wire.exists()))?;
        }
        Ok(Guest { side, lan, directory, process })
    }

    /// Which side it is.
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// What runs on its LAN.
    pub(crate) fn lan(&self) -> &Namespace {
        &self.lan
    }

    /// Everything it has written to its serial console.
    pub(crate) fn console(&self) -> String {
        read(&console(&self.directory, self.side.name))
    }

    /// An ssh from the host of its LAN to it.
    pub(crate) fn ssh(&self, options: &[&str], words: &str) -> Command {
        let mut command = ssh(&self.lan, options);
        command.arg("-i").arg(self.directory.join("key"));
        command.arg(format!("admin@{}", self.side.gateway())).arg(words).stdin(Stdio::null());
        command
    }

    /// What a command in it writes to stdout.
    ///
    /// # Errors
    /// It does not answer, or the command failed: with its words.
    pub(crate) fn says(&self, words: &str) -> Result<String> {
        let output = self.ssh(&[], words).output().context("ssh could not be started")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            bail!("`{words}` in site-{} ended with {}:\n{text}", self.side.name, output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Copies a file into it.
    pub(crate) fn takes(&self, file: &Path, place: &str) -> Result<()> {
        let input = fs::File::open(file).with_context(|| file.display().to_string())?;
        let status = self
            .ssh(&[], &format!("cat >{place}"))
            .stdin(input)
            .status()
            .context("ssh could not be started")?;
        ensure!(status.success(), "{} was not copied to site-{}", file.display(), self.side.name);
        Ok(())
    }

    /// Waits until it lets us in.
    pub(crate) fn wait_for_ssh(&mut self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            if self.says("true").is_ok() {
                return Ok(());
            }
            if let Some(status) = self.process.ended() {
                bail!("qemu of site-{} ended with {status}:\n{}", self.side.name, self.process.log_tail(10));
            }
            if Instant::now() > until {
                let tail = adit_tests::namespace::tail(&self.console(), 30);
                bail!("site-{} let nobody in within {limit:?}; its console:\n{tail}", self.side.name);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// A guest that finds nobody who tells it anything, on a network that qemu makes up: one that has DHCP.
pub(crate) struct Unseeded {
    lan: Namespace,
    directory: PathBuf,
    disk: PathBuf,
    /// Ended when this is dropped.
    _process: Process,
}

impl Unseeded {
    const NAME: &str = "unseeded";
    /// Where its SSH is seen outside.
    const SSH: &str = "2222";

    /// Starts one on a copy of `image`.
    pub(crate) fn start(run: &Run, image: &Path, power: Power) -> Result<Unseeded> {
        let directory = run.directory().to_owned();
        let lan = Namespace::create(run, "hu")?;
        let disk = on_top(image, &directory, Self::NAME)?;
        let mut qemu = qemu(&lan, power, &console(&directory, Self::NAME));
        qemu.arg("-drive").arg(format!("if=virtio,format=qcow2,file={}", disk.display()));
        qemu.args(["-netdev", &format!("user,id=port,hostfwd=tcp:127.0.0.1:{}-:22", Self::SSH)]);
        qemu.args(["-device", "virtio-net-pci,netdev=port"]);
        let process = lan.spawn("qemu-unseeded", &mut qemu)?;
        Ok(Unseeded { lan, directory, disk, _process: process })
    }

    /// Everything it has written to its serial console.
    pub(crate) fn console(&self) -> String {
        read(&console(&self.directory, Self::NAME))
    }

    /// What its SSH says to somebody without a key.
    pub(crate) fn greets(&self) -> Result<String> {
        let mut command = ssh(&self.lan, &["PubkeyAuthentication=no"]);
        command.args(["-p", Self::SSH, "admin@127.0.0.1", "true"]).stdin(Stdio::null());
        let output = command.output().context("ssh could not be started")?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Where its last partition ends, in octets, as its GPT says.
    pub(crate) fn root_ends(&self) -> Result<u64> {
        const ENTRY: usize = 2 * 512 + 2 * 128;
        let start = self.directory.join("unseeded.gpt");
        let mut take = Command::new("qemu-img");
        take.args(["dd", "-U", "-f", "qcow2", "-O", "raw", "bs=512", "count=4"]);
        take.arg(format!("if={}", self.disk.display())).arg(format!("of={}", start.display()));
        Step::new("read the guest's GPT", take, "install qemu-utils").quiet()?;
        let gpt = fs::read(start)?;
        let last = gpt.get(ENTRY + 40..ENTRY + 48).context("its disk has no GPT")?;
        Ok(512 * (1 + u64::from_le_bytes(last.try_into()?)))
    }
}

/// A disk that begins as the image and grows.
fn on_top(image: &Path, directory: &Path, name: &str) -> Result<PathBuf> {
    let disk = directory.join(format!("{name}.qcow2"));
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", format(image), "-b"]).arg(image.canonicalize()?);
    create.arg(&disk).arg(DISK);
    Step::new("make a disk on top of the image", create, "install qemu-utils").quiet()?;
    Ok(disk)
}

/// What every guest has besides its disks and ports.
fn qemu(lan: &Namespace, power: Power, console: &Path) -> Command {
    let mut qemu = lan.command("qemu-system-x86_64");
    qemu.args(machine(power.kvm)).args(["-m", "1024", "-display", "none", "-nodefaults"]);
    qemu.args(["-smp", &power.processors.to_string()]);
    qemu.arg("-serial").arg(format!("file:{}", console.display()));
    qemu.args(["-device", "virtio-rng-pci"]);
    qemu
}

/// An ssh from a namespace that asks nobody anything.
fn ssh(from: &Namespace, options: &[&str]) -> Command {
    let mut command = from.command("ssh");
    for option in
        ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
            .iter()
            .chain(&["ConnectTimeout=10", "ServerAliveInterval=10"])
            .chain(options)
    {
        command.args(["-o", option]);
    }
    command
}

/// An image's format, as qemu calls it.
fn format(image: &Path) -> &'static str {
    if image.extension().is_some_and(|extension| extension == "raw") { "raw" } else { "qcow2" }
}

/// What the machine is, with hardware's help or without.
fn machine(kvm: bool) -> [&'static str; 6] {
    let (accelerator, processor) = if kvm { ("kvm", "host") } else { ("tcg,thread=multi", "max") };
    ["-machine", "q35", "-accel", accelerator, "-cpu", processor]
}

/// Whether KVM runs a guest here. A device that opens is not enough: the image's kernel has to come as far as to say its name.
pub(crate) fn has_kvm(run: &Run, image: &Path) -> Result<bool> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(false);
    }
    let said = run.directory().join("probe.console");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(machine(true)).args([
        "-m",
        "512",
        "-display",
        "none",
        "-nodefaults",
        "-net",
        "none",
        "-snapshot",
    ]);
    qemu.arg("-serial").arg(format!("file:{}", said.display()));
    qemu.arg("-drive").arg(format!("if=virtio,format={},file={}", format(image), image.display()));
    let mut child =
        qemu.stdin(Stdio::null()).stderr(Stdio::null()).spawn().context("qemu could not be started")?;
    let until = Instant::now() + PROBE;
    let works = loop {
        let text = fs::read(&said).unwrap_or_default();
        if String::from_utf8_lossy(&text).contains("Linux version") {
            break true;
        }
        if Instant::now() > until || child.try_wait()?.is_some() {
            break false;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    if !works {
        note("there is a /dev/kvm, but the guest's kernel does not start by it");
    }
    Ok(works)
}

/// The key to both guests, made anew.
pub(crate) fn make_key(run: &Run) -> Result<()> {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "image-test", "-f"])
        .arg(run.directory().join("key"));
    Step::new("make a key", command, "install openssh-client").quiet().map(drop)
}

/// What cloud-init finds: a file system named CIDATA.
fn seed(directory: &Path, side: Side, other: Option<Side>) -> Result<PathBuf> {
    let key = fs::read_to_string(directory.join("key.pub"))?;
    let files = directory.join(format!("seed-{}", side.name));
    fs::create_dir_all(&files)?;
    fs::write(files.join("user-data"), side.user_data(other, key.trim()))?;
    fs::write(files.join("meta-data"), format!("instance-id: site-{}\n", side.name))?;
    fs::write(files.join("network-config"), side.network())?;
    let image = directory.join(format!("seed-{}.img", side.name));
    let mut make = Command::new("mkfs.vfat");
    make.args(["-n", "CIDATA", "-C"]).arg(&image).arg("1024");
    Step::new("make what cloud-init reads", make, "install dosfstools").quiet()?;
    let mut copy = Command::new("mcopy");
    copy.arg("-i").arg(&image);
    copy.args(["user-data", "meta-data", "network-config"].map(|name| files.join(name))).arg("::");
    Step::new("fill what cloud-init reads", copy, "install mtools").quiet()?;
    Ok(image)
}

fn console(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.console"))
}

fn read(console: &Path) -> String {
    String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_is_configured_for_the_other() {
        let text = A.user_data(Some(B), "ssh-ed25519 AAAA");
        assert!(
            text.contains("      address = \"192.0.2.1\"\n") && text.contains("address = \"192.0.2.2\""),
            "{text}"
        );
        assert!(text.contains("remote_subnets = [\"10.2.0.0/24\"]"), "{text}");
        assert!(text.contains("listen = \"0.0.0.0:8443\"") && text.contains("\nruncmd:\n"), "{text}");
        assert_eq!(A.across(), B.wan());
        assert!(!ALONE.user_data(None, "ssh-ed25519 AAAA").contains("adit.toml"));
        assert!(B.network().contains("addresses: [10.2.0.1/24]"), "{}", B.network());
    }
}
