//! A strongSwan in a namespace: the peer that Adit must get on with.
//!
//! charon runs with a configuration of its own in the run's directory, and with ESP in userspace (kernel-libipsec),
//! because the kernels of test machines need not have IPsec. In this mode it pretends to be behind NAT: ESP comes in
//! UDP even where no NAT is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::namespace::{Namespace, Process, tail, wait_for};
use crate::site::Site;

/// The plugins charon needs here. Debian's default list makes it crash where a plugin finds its device missing.
const PLUGINS: &str = "random nonce aes sha1 sha2 hmac kdf gmp gcm curve25519 openssl pem pkcs1 x509 constraints \
                       pubkey kernel-libipsec kernel-netlink socket-default vici updown";

/// A charon and the configuration it has loaded.
#[derive(Debug)]
pub struct StrongSwan {
    namespace: Namespace,
    process: Process,
    directory: PathBuf,
}

impl StrongSwan {
    /// Starts charon in `namespace` with one connection, named `net` like its only child. It begins by itself only when
    /// [`StrongSwan::initiate`] tells it to.
    ///
    /// # Errors
    /// charon does not start or refuses the configuration: with its log.
    pub fn start(namespace: &Namespace, site: &Site) -> Result<StrongSwan> {
        let directory = namespace.logs().join(format!("strongswan-{}", site.name));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("strongswan.conf"), settings(&directory))?;
        fs::write(directory.join("swanctl.conf"), connection(site))?;
        let charon = ["/usr/sbin/charon-systemd", "/usr/libexec/ipsec/charon-systemd", "charon-systemd"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("charon-systemd");
        let mut command = namespace.command(charon);
        command.env("STRONGSWAN_CONF", directory.join("strongswan.conf"));
        let process = namespace.spawn("charon", &mut command)?;
        let mut swan = StrongSwan { namespace: namespace.clone(), process, directory };
        let socket = swan.directory.join("vici.sock");
        wait_for("charon's control socket", Duration::from_secs(10), || {
            if let Some(status) = swan.process.ended() {
                bail!("charon ended at once ({status}):\n{}{}", swan.process.log_tail(10), swan.log_tail(10));
            }
            Ok(socket.exists())
        })?;
        let file = swan.directory.join("swanctl.conf");
        swan.swanctl(&["--load-all", "--file", &file.to_string_lossy()])?;
        Ok(swan)
    }

    /// Brings the tunnel up.
    ///
    /// # Errors
    /// It does not come up within 15 s: with swanctl's words and charon's log.
    pub fn initiate(&self) -> Result<()> {
        self.swanctl(&["--initiate", "--child", "net", "--timeout", "15"]).map(|_| ())
    }

    /// Sends DELETE for the IKE SA and waits for the answer.
    ///
    /// # Errors
    /// There is no SA, or the peer does not answer.
    pub fn terminate(&self) -> Result<()> {
        self.swanctl(&["--terminate", "--ike", "net", "--timeout", "10"]).map(|_| ())
    }

    /// The SAs, as `swanctl --list-sas` shows them.
    ///
    /// # Errors
    /// charon does not answer.
    pub fn sas(&self) -> Result<String> {
        self.swanctl(&["--list-sas"])
    }

    /// Waits until the Child SA is up.
    ///
    /// # Errors
    /// It is not after `limit`: with charon's log.
    pub fn wait_connected(&self, limit: Duration) -> Result<()> {
        wait_for("strongSwan's Child SA", limit, || Ok(self.sas()?.contains("INSTALLED")))
            .with_context(|| format!("charon's log ends:\n{}", self.log_tail(30)))
    }

    /// Waits until no SA is left.
    ///
    /// # Errors
    /// One is there after `limit`.
    pub fn wait_disconnected(&self, limit: Duration) -> Result<()> {
        wait_for("strongSwan to have no SA", limit, || Ok(!self.sas()?.contains("ESTABLISHED")))
            .with_context(|| format!("charon's log ends:\n{}", self.log_tail(30)))
    }

    /// The last lines of charon's log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&fs::read_to_string(self.directory.join("charon.log")).unwrap_or_default(), lines)
    }

    fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let socket = format!("unix://{}", self.directory.join("vici.sock").display());
        let output = self
            .namespace
            .command("swanctl")
            .args(arguments)
            .args(["--uri", &socket])
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
        let _ = self.process.stop();
    }
}

fn settings(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "charon-systemd {{
           load = {PLUGINS}
           retransmit_tries = 3
           retransmit_timeout = 1
           plugins {{
             vici {{ socket = unix://{directory}/vici.sock }}
             openssl {{ load_legacy = yes }}
           }}
           journal {{ default = -1 }}
           filelog {{ log {{
             path = {directory}/charon.log
             default = 1
             ike = 2
             cfg = 2
             flush_line = yes
             time_format = %T
           }} }}
         }}
         swanctl {{ socket = unix://{directory}/vici.sock }}
        "
    )
}

fn connection(site: &Site) -> String {
    let remote = if site.peer_address == "any" { "%any" } else { &site.peer_address };
    format!(
        "connections {{ net {{
           version = 2
           local_addrs = {address}
           remote_addrs = {remote}
           proposals = {ike}
           local {{
             auth = psk
             id = {local_id}
           }}
           remote {{
             auth = psk
             id = {peer_id}
           }}
           children {{ net {{
             local_ts = {local_subnet}
             remote_ts = {remote_subnet}
             esp_proposals = {esp}
             mode = tunnel
           }} }}
         }} }}
         secrets {{ ike-net {{ secret = \"{psk}\" }} }}
        ",
        address = site.address,
        ike = site.suite.swan_ike,
        esp = site.suite.swan_esp,
        local_id = site.local_id,
        peer_id = site.peer_id,
        local_subnet = site.local_subnet,
        remote_subnet = site.remote_subnet,
        psk = site.psk,
    )
}
