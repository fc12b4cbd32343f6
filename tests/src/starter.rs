//! A strongSwan that reads ipsec.conf: the starter, and the charon that it starts. It keeps its sockets below `/run`, so it
//! gets one of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::namespace::{Namespace, Process, tail};
use crate::strongswan::PLUGINS;

/// Where Debian has it.
const STARTER: &str = "/usr/lib/ipsec/starter";

/// A running starter.
#[derive(Debug)]
pub struct Starter {
    process: Process,
    directory: PathBuf,
}

impl Starter {
    /// Starts it on a gateway with these files, which are in `directory`.
    ///
    /// # Errors
    /// It is not there.
    pub fn start(namespace: &Namespace, directory: &Path) -> Result<Starter> {
        ensure!(
            Path::new(STARTER).exists(),
            "there is no {STARTER}; `cargo xtask setup` installs strongswan-starter"
        );
        let settings = directory.join("strongswan.conf");
        fs::write(&settings, strongswan_conf(directory))?;
        let script = "mount -t tmpfs tmpfs /run && exec \"$@\"";
        let mut command = namespace.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", STARTER]);
        command.args(["--daemon", "charon", "--nofork", "--conf"]).arg(directory.join("ipsec.conf"));
        command.env("STRONGSWAN_CONF", &settings);
        let process = namespace.spawn("starter", &mut command).context("the starter could not be started")?;
        Ok(Starter { process, directory: directory.to_owned() })
    }

    /// The last lines of what both wrote.
    pub fn log_tail(&self, lines: usize) -> String {
        let charon = fs::read(self.directory.join("charon.log")).unwrap_or_default();
        format!("{}{}", self.process.log_tail(lines), tail(&String::from_utf8_lossy(&charon), lines))
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        // It ends its charon. What does not end is ended with the namespace.
        drop(self.process.stop());
    }
}

fn strongswan_conf(directory: &Path) -> String {
    let files = directory.display();
    format!(
        "charon {{
           load = kernel-libipsec {PLUGINS} stroke
           retransmit_tries = 3
           retransmit_timeout = 1
           i_dont_care_about_security_and_use_aggressive_mode_psk = yes
           plugins {{
             stroke {{
               secrets_file = {files}/ipsec.secrets
             }}
             openssl {{
               load_legacy = yes
             }}
           }}
           filelog {{
             log {{
               path = {files}/charon.log
               default = 1
               ike = 2
               cfg = 2
               flush_line = yes
             }}
           }}
         }}
        "
    )
}
