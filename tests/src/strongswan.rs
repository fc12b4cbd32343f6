//! A strongSwan: the peer that Adit must get on with, in three places that differ in how they carry ESP.
//!
//! | place | strongSwan | ESP |
//! |---|---|---|
//! | [`Place::Namespace`] | 5.9, of this machine | in userspace, always in UDP: it pretends to be behind NAT |
//! | [`Place::Trixie`] | 6.0, of a Debian 13 in a directory | in userspace, as protocol 50; in UDP behind NAT |
//! | [`Place::Uml`] | 5.9, in a guest with a kernel of its own | the kernel's: both, and AH, and ESN |
//!
//! charon stays up from case to case: a case loads its own connections, as `swanctl --load-all` does for anybody.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::namespace::{Namespace, Process, tail, wait_for};
use crate::roots::Uml;
use crate::run::end_processes;

/// Plugins of every charon. Debian's default list makes it crash where a plugin finds its device missing; one that a
/// version does not have is passed over.
pub(crate) const PLUGINS: &str = "random nonce openssl aes sha1 sha2 md5 hmac kdf gmp gcm curve25519 chapoly mlkem xcbc cmac ctr \
                       ccm pem pkcs1 x509 constraints pubkey kernel-netlink socket-default vici updown";

/// TCP port of the guest's control socket.
const GUEST_PORT: u16 = 4502;

/// Where a charon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the gateway's namespace, installed on this machine.
    Namespace,
    /// In the gateway's namespace, installed in this root directory.
    Trixie(PathBuf),
    /// In a guest whose interfaces are those of the gateway's namespace.
    Uml(Uml, Guest),
}

/// The addresses of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its WAN address with prefix length.
    pub wan: String,
    /// Its LAN address.
    pub lan: Ipv4Addr,
    /// Its default router.
    pub router: Ipv4Addr,
}

/// A charon and the configuration it has loaded.
#[derive(Debug)]
pub struct StrongSwan {
    namespace: Namespace,
    /// Where `swanctl` runs.
    control: Namespace,
    place: Place,
    process: Process,
    directory: PathBuf,
}

impl StrongSwan {
    /// Starts charon on a gateway, without connections. `control` is where `swanctl` can reach it from: the gateway, or
    /// for a guest a host on its LAN. `settings` are added to its strongswan.conf.
    ///
    /// # Errors
    /// charon does not start: with its log.
    pub fn start(
        namespace: &Namespace,
        control: &Namespace,
        place: Place,
        settings: &str,
    ) -> Result<StrongSwan> {
        let directory = namespace.logs().join(format!("strongswan-{}", namespace.host()));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("strongswan.conf"), file(&directory, &place, settings))?;
        if let Place::Uml(..) = place {
            lend_interfaces(namespace)?;
        }
        let process = run(namespace, &place, &directory)?;
        let mut swan =
            StrongSwan { namespace: namespace.clone(), control: control.clone(), place, process, directory };
        swan.wait_started()?;
        Ok(swan)
    }

    /// Starts it again after it was stopped or killed, without connections.
    ///
    /// # Errors
    /// As [`StrongSwan::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let _ = fs::remove_file(self.directory.join("vici.sock"));
        self.process = run(&self.namespace, &self.place, &self.directory)?;
        self.wait_started()
    }

    /// Ends it with SIGKILL: the peer is told nothing.
    pub fn kill(&mut self) {
        self.process.kill();
        if let Place::Uml(..) = self.place {
            // The guest's processes are the host's processes, and nobody else is in this namespace.
            end_processes(self.namespace.name());
        }
    }

    /// Replaces its connections and secrets by those of a swanctl.conf.
    ///
    /// # Errors
    /// charon refuses it: with its words.
    pub fn load(&self, configuration: &str) -> Result<()> {
        let file = self.directory.join("swanctl.conf");
        fs::write(&file, configuration)?;
        self.swanctl(&["--load-all", "--clear", "--file", &file.to_string_lossy()]).map(|_| ())
    }

    /// Brings a child up; its connection too if need be.
    ///
    /// # Errors
    /// It does not come up within `limit`: with swanctl's words and charon's log.
    pub fn initiate(&self, child: &str, limit: Duration) -> Result<()> {
        let seconds = limit.as_secs().max(1).to_string();
        self.swanctl(&["--initiate", "--child", child, "--timeout", &seconds]).map(|_| ())
    }

    /// Sends DELETE for the IKE SAs of connection `net` and waits for the answer.
    ///
    /// # Errors
    /// There is no SA, or the peer does not answer.
    pub fn terminate(&self) -> Result<()> {
        self.swanctl(&["--terminate", "--ike", "net", "--timeout", "10"]).map(|_| ())
    }

    /// Drops the IKE SAs of connection `net` without waiting for anybody.
    pub fn forget(&self) {
        let _ = self.swanctl(&["--terminate", "--ike", "net", "--force", "--timeout", "1"]);
    }

    /// Rekeys (or, with `--reauth` among `how`, authenticates anew) what `how` names.
    ///
    /// # Errors
    /// There is no such SA.
    pub fn rekey(&self, how: &[&str]) -> Result<()> {
        self.swanctl(&[&["--rekey"], how].concat()).map(|_| ())
    }

    /// The SAs, as `swanctl --list-sas` shows them.
    ///
    /// # Errors
    /// charon does not answer.
    pub fn sas(&self) -> Result<String> {
        self.swanctl(&["--list-sas"])
    }

    /// Waits until this many Child SAs are up.
    ///
    /// # Errors
    /// They are not after `limit`: with charon's log.
    pub fn wait_children(&self, count: usize, limit: Duration) -> Result<()> {
        let what = format!("strongSwan to have {count} Child SAs");
        wait_for(&what, limit, || Ok(self.sas()?.matches("INSTALLED").count() >= count))
            .with_context(|| format!("charon's log ends:\n{}", self.log_tail(30)))
    }

    /// Waits until no SA is left.
    ///
    /// # Errors
    /// One is there after `limit`.
    pub fn wait_empty(&self, limit: Duration) -> Result<()> {
        wait_for("strongSwan to have no SA", limit, || Ok(!self.sas()?.contains("ESTABLISHED")))
            .with_context(|| format!("charon's log ends:\n{}", self.log_tail(30)))
    }

    /// charon's log.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.directory.join("charon.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of charon's log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }

    fn wait_started(&mut self) -> Result<()> {
        wait_for("charon's control socket", Duration::from_secs(20), || {
            if let Some(status) = self.process.ended() {
                bail!("charon ended at once ({status}):\n{}{}", self.process.log_tail(10), self.log_tail(10));
            }
            Ok(self.swanctl(&["--stats"]).is_ok())
        })
        .with_context(|| format!("it said:\n{}{}", self.process.log_tail(15), self.log_tail(15)))
    }

    fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let uri = match &self.place {
            Place::Uml(_, guest) => format!("tcp://{}:{GUEST_PORT}", guest.lan),
            _ => format!("unix://{}", self.directory.join("vici.sock").display()),
        };
        let output = self
            .control
            .command("swanctl")
            .args(arguments)
            .args(["--uri", &uri])
            .env("STRONGSWAN_CONF", self.directory.join("strongswan.conf"))
            .stdin(Stdio::null())
            .output()
            .context("`swanctl` could not be started; `cargo xtask setup` installs it")?;
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let more = String::from_utf8_lossy(&output.stderr);
            bail!(
                "`swanctl {}` failed:\n{}{}  charon's log ends:\n{}",
                arguments.join(" "),
                tail(&words, 10),
                tail(&more, 10),
                self.log_tail(30)
            );
        }
        Ok(words)
    }
}

impl Drop for StrongSwan {
    fn drop(&mut self) {
        match self.place {
            Place::Uml(..) => self.kill(),
            _ => drop(self.process.stop()),
        }
    }
}

/// Starts charon, or the guest that starts it.
fn run(namespace: &Namespace, place: &Place, directory: &Path) -> Result<Process> {
    let command = match place {
        Place::Namespace => {
            let charon = ["/usr/sbin/charon-systemd", "/usr/libexec/ipsec/charon-systemd"];
            let charon = charon.into_iter().find(|path| Path::new(path).exists());
            let mut command = namespace.command(charon.unwrap_or("charon-systemd"));
            command.env("STRONGSWAN_CONF", directory.join("strongswan.conf"));
            command
        }
        Place::Trixie(root) => in_root(namespace, root, directory),
        Place::Uml(uml, guest) => guest_command(namespace, uml, guest, directory),
    };
    namespace.spawn("charon", &mut { command })
}

/// charon in a root directory, which sees the run's files where they are and the machine's devices. The mounts are seen
/// by it alone and go with it.
fn in_root(namespace: &Namespace, root: &Path, directory: &Path) -> Command {
    let script = "set -e; root=$1 files=$2
                  mkdir -p \"$root$files\"
                  mount --bind /dev \"$root/dev\"; mount -t proc proc \"$root/proc\"; mount -t tmpfs tmpfs \"$root/run\"
                  mount --bind \"$files\" \"$root$files\"
                  exec chroot \"$root\" /usr/bin/env STRONGSWAN_CONF=\"$files/strongswan.conf\" /usr/sbin/charon-systemd";
    let mut command = namespace.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(root).arg(directory);
    command
}

fn guest_command(namespace: &Namespace, uml: &Uml, guest: &Guest, directory: &Path) -> Command {
    let mut command = namespace.command("env");
    command.arg(format!("HOME={}", directory.display()));
    command.arg(format!("LD_PRELOAD={}", uml.shim.display())).arg(&uml.kernel);
    command.args(["root=/dev/root", "rootfstype=hostfs", "rw", "mem=128M", "init=/adit-init", "quiet"]);
    command.arg(format!("rootflags={}", uml.root.display()));
    command.args(["con=null", "con0=null,fd:1", "random.trust_cpu=on", "random.trust_bootloader=on"]);
    for (device, interface) in [("vec0", "wan"), ("vec1", "lan")] {
        command.arg(format!("{device}:transport=raw,ifname={interface},depth=128,gro=0"));
    }
    let Guest { wan, lan, router } = guest;
    command.arg(format!("adit_wan={wan}")).arg(format!("adit_lan={lan}/24"));
    command.arg(format!("adit_router={router}")).arg(format!("adit_files={}", directory.display()));
    command
}

/// Takes the addresses off the interfaces that the guest will use, and the work that a network card would do.
fn lend_interfaces(namespace: &Namespace) -> Result<()> {
    for interface in ["wan", "lan"] {
        namespace.ip(&["address", "flush", "dev", interface])?;
        let off = ["tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off"];
        namespace.run("ethtool", &[&["-K", interface], &off[..]].concat())?;
    }
    namespace.sysctl(&["net.ipv4.ip_forward=0"])
}

fn file(directory: &Path, place: &Place, settings: &str) -> String {
    let (files, socket, ipsec) = match place {
        Place::Namespace => {
            let files = directory.display().to_string();
            (files.clone(), format!("unix://{files}/vici.sock"), "kernel-libipsec")
        }
        Place::Trixie(_) => {
            let files = directory.display().to_string();
            (files.clone(), format!("unix://{files}/vici.sock"), "kernel-libipsec")
        }
        Place::Uml(..) => ("/mnt".to_owned(), format!("tcp://0.0.0.0:{GUEST_PORT}"), ""),
    };
    let raw = if matches!(place, Place::Trixie(_)) { "kernel-libipsec { raw_esp = yes }" } else { "" };
    format!(
        "charon-systemd {{
           load = {ipsec} {PLUGINS}
           retransmit_tries = 3
           retransmit_timeout = 1
           make_before_break = yes
           i_dont_care_about_security_and_use_aggressive_mode_psk = yes
           {settings}
           plugins {{
             vici {{
               socket = {socket}
             }}
             openssl {{
               load_legacy = yes
             }}
             {raw}
           }}
           journal {{
             default = -1
           }}
           filelog {{
             log {{
               path = {files}/charon.log
               default = 1
               ike = 2
               cfg = 2
               flush_line = yes
               time_format = %T
             }}
           }}
         }}
        "
    )
}
