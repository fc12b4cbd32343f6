//! An Adit in a namespace.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::metrics::Metrics;
use crate::namespace::{Namespace, Process, wait_for};
use crate::site::Site;
use crate::topology::{LAN, WAN};

/// Where every Adit of the lab serves `/metrics`, in its own namespace.
pub const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9360);

/// The file in its directory that, where it is there, an Adit resolves names by.
pub const HOSTS: &str = "hosts";

/// An `adit run` or `adit control`, and its files.
#[derive(Debug)]
pub struct Adit {
    /// `run` or `control`.
    command: &'static str,
    namespace: Namespace,
    tunnel: String,
    directory: PathBuf,
    process: Process,
}

impl Adit {
    /// Starts `adit run` on a gateway with one tunnel.
    ///
    /// # Errors
    /// The binary is not there, or ends at once: with its log.
    pub fn start(namespace: &Namespace, site: &Site) -> Result<Adit> {
        Adit::start_with(namespace, &site.tunnel(), |directory| configuration(site, directory))
    }

    /// Starts `adit run` with the configuration that `text` makes of the directory for its files. `tunnel` is what
    /// status and logs are asked about.
    ///
    /// # Errors
    /// As [`Adit::start`].
    pub fn start_with(
        namespace: &Namespace,
        tunnel: &str,
        text: impl FnOnce(&Path) -> String,
    ) -> Result<Adit> {
        Adit::start_as("run", namespace, tunnel, &[], text)
    }

    /// As [`Adit::start_with`], with more in its log than is usual.
    ///
    /// # Errors
    /// As [`Adit::start`].
    pub fn start_talkative(
        namespace: &Namespace,
        tunnel: &str,
        text: impl FnOnce(&Path) -> String,
    ) -> Result<Adit> {
        Adit::start_as("run", namespace, tunnel, &["--log", "debug"], text)
    }

    /// Starts `adit control` alone; [`Adit::data_plane`] is the other half.
    ///
    /// # Errors
    /// As [`Adit::start`].
    pub fn start_control(
        namespace: &Namespace,
        tunnel: &str,
        text: impl FnOnce(&Path) -> String,
    ) -> Result<Adit> {
        Adit::start_as("control", namespace, tunnel, &[], text)
    }

    /// Starts `adit dataplane` with the same configuration and these further arguments.
    ///
    /// # Errors
    /// The binary is not there.
    pub fn data_plane(&self, arguments: &[&str]) -> Result<Process> {
        spawn(&self.namespace, &self.directory, "dataplane", arguments)
    }

    /// Starts its own part again after that was stopped or killed, without waiting for it to answer.
    ///
    /// # Errors
    /// The binary is not there.
    pub fn start_again(&mut self) -> Result<()> {
        let _ = fs::remove_file(self.socket());
        self.process = spawn(&self.namespace, &self.directory, self.command, &[])?;
        Ok(())
    }

    /// Where its maps are pinned.
    pub fn bpf_dir(&self) -> PathBuf {
        self.directory.join("bpf")
    }

    fn start_as(
        command: &'static str,
        namespace: &Namespace,
        tunnel: &str,
        arguments: &[&str],
        text: impl FnOnce(&Path) -> String,
    ) -> Result<Adit> {
        let directory = namespace.logs().join(format!("adit-{}", namespace.host()));
        fs::create_dir_all(directory.join("bpf"))?;
        fs::write(directory.join("adit.toml"), text(&directory))?;
        let process = spawn(namespace, &directory, command, arguments)?;
        let (namespace, tunnel) = (namespace.clone(), tunnel.to_owned());
        let mut adit = Adit { command, namespace, tunnel, directory, process };
        adit.wait_started()?;
        Ok(adit)
    }

    /// Gives it another configuration without stopping it.
    ///
    /// # Errors
    /// It is refused: with the words.
    pub fn reload(&self, text: impl FnOnce(&Path) -> String) -> Result<()> {
        fs::write(self.configuration(), text(&self.directory))?;
        self.done(&["reload"]).map(|_| ())
    }

    /// Runs `adit` with these arguments and the gateway's socket; what it wrote to stdout.
    ///
    /// # Errors
    /// It did not succeed: with its words.
    pub fn done(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("`adit {}` ended with {}: {}", arguments.join(" "), output.status, words.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Everything it wrote.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Starts it again after it was stopped or killed.
    ///
    /// # Errors
    /// As [`Adit::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop()?;
        self.start_again()?;
        self.wait_started()
    }

    /// The running program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("adit.toml")
    }

    /// Where it keeps the rules of its alarm templates.
    pub fn alarm_rules(&self) -> PathBuf {
        self.directory.join("alarms.yml")
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.log_tail(lines)
    }

    /// Runs `adit` with these arguments and the gateway's socket, and returns what came of it.
    ///
    /// # Errors
    /// The binary is not there.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.namespace.command(&binary()?.to_string_lossy());
        command.args(arguments).arg("--socket").arg(self.socket()).stdin(Stdio::null());
        command.output().context("adit could not be started")
    }

    /// What `adit status -o json` says about the tunnel.
    ///
    /// # Errors
    /// The gateway does not answer, or does not know the tunnel.
    pub fn status(&self) -> Result<Value> {
        let output = self.command(&["status", "-o", "json"])?;
        if !output.status.success() {
            bail!(
                "`adit status` ended with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let status: Value =
            serde_json::from_slice(&output.stdout).context("`adit status -o json` wrote no JSON")?;
        named(&status, &self.tunnel)
            .cloned()
            .with_context(|| format!("no tunnel {:?} in {status}", self.tunnel))
    }

    /// The connection status of one of its tunnels.
    ///
    /// # Errors
    /// As [`Adit::status`].
    pub fn state_of(&self, tunnel: &str) -> Result<String> {
        let shown: Value = serde_json::from_str(&self.done(&["tunnel", "show", tunnel, "-o", "json"])?)?;
        Ok(shown["state"].as_str().context("a tunnel has no state")?.to_owned())
    }

    /// The SPIs of the Child SAs of one of its tunnels, inbound and outbound.
    ///
    /// # Errors
    /// As [`Adit::status`].
    pub fn spis_of(&self, tunnel: &str) -> Result<Vec<String>> {
        let shown: Value = serde_json::from_str(&self.done(&["tunnel", "show", tunnel, "-o", "json"])?)?;
        let children = shown["children"].as_array().context("a tunnel has no children")?;
        let spi = |child: &Value| format!("{} {}", child["inbound_spi"], child["outbound_spi"]);
        let mut spis: Vec<_> = children.iter().map(spi).collect();
        spis.sort();
        Ok(spis)
    }

    /// The tunnel's connection status in one word, as `connected`.
    ///
    /// # Errors
    /// As [`Adit::status`], or there is no such field.
    pub fn state(&self) -> Result<String> {
        let status = self.status()?;
        let word = ["state", "status"].iter().find_map(|field| status.get(*field)?.as_str());
        word.map(str::to_owned).with_context(|| format!("the tunnel has no state in {status}"))
    }

    /// Waits until the tunnel is connected.
    ///
    /// # Errors
    /// It is not after `limit`: with the status and the log.
    pub fn wait_connected(&mut self, limit: Duration) -> Result<()> {
        self.wait_state(limit, "connected")
    }

    /// Waits until the tunnel is in this state.
    ///
    /// # Errors
    /// It is not after `limit`: with the status and the log.
    pub fn wait_state(&mut self, limit: Duration, state: &str) -> Result<()> {
        let mut last = String::from("never answered");
        let waited = wait_for(&format!("tunnel {} to be {state}", self.tunnel), limit, || {
            if let Some(status) = self.process.ended() {
                bail!("adit ended ({status})");
            }
            if let Ok(status) = self.status() {
                last = status.to_string();
            }
            Ok(self.state().is_ok_and(|now| now == state))
        });
        waited.with_context(|| {
            format!("status of {}: {last}\n  its log ends:\n{}", self.namespace.host(), self.log_tail(30))
        })
    }

    /// Milliseconds that the negotiation took.
    ///
    /// # Errors
    /// As [`Adit::status`], or the tunnel was never up.
    pub fn handshake_ms(&self) -> Result<f64> {
        let status = self.status()?;
        let figure = find(&status, "handshake_ms").and_then(Value::as_f64);
        figure.with_context(|| format!("no handshake_ms in {status}"))
    }

    /// Scrapes `/metrics`.
    ///
    /// # Errors
    /// As [`Metrics::scrape`].
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(&self.namespace, METRICS)
            .with_context(|| format!("its log ends:\n{}", self.log_tail(15)))
    }

    /// Name of the tunnel.
    pub fn tunnel(&self) -> &str {
        &self.tunnel
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("adit.sock")
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer in time: with its log.
    pub fn wait_started(&mut self) -> Result<()> {
        let begun = Instant::now();
        while self.command(&["status", "-o", "json"]).map(|output| !output.status.success()).unwrap_or(true) {
            if let Some(status) = self.process.ended() {
                bail!("adit ended at once ({status}); its log:\n{}", self.log_tail(30));
            }
            if begun.elapsed() > Duration::from_secs(20) {
                let error = self.status().err().map(|error| format!("{error:#}")).unwrap_or_default();
                bail!("adit does not answer: {error}\n  its log ends:\n{}", self.log_tail(30));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The binary under test: `$ADIT_BIN`, or what `cargo xtask build --release` made.
///
/// # Errors
/// It is not there.
pub fn binary() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/adit");
    let path = std::env::var_os("ADIT_BIN").map_or(built, PathBuf::from);
    path.canonicalize().with_context(|| {
        format!(
            "there is no {}; `cargo xtask build --release` makes it, or name one in $ADIT_BIN",
            path.display()
        )
    })
}

/// The configuration file of one end of the tunnel.
pub fn configuration(site: &Site, directory: &Path) -> String {
    let directory = directory.display();
    let Site { name, peer, address, peer_address, local_id, peer_id, .. } = site;
    let Site { local_subnet, remote_subnet, psk, suite, .. } = site;
    let start = if site.initiates { "immediate" } else { "respond" };
    format!(
        r#"[gateway]
name = "{name}"
address = "{address}"
wan = "{WAN}"
lan = ["{LAN}"]

[api]
socket = "{directory}/adit.sock"
metrics = "{METRICS}"

[[peer]]
name = "{peer}"
address = "{peer_address}"

[[tunnel]]
name = "{tunnel}"
peer = "{peer}"
local_subnets = ["{local_subnet}"]
remote_subnets = ["{remote_subnet}"]
psk = "{psk}"
start = "{start}"

[tunnel.ike]
encryption = "{encryption}"
integrity = "{integrity}"
prf = "{prf}"
dh = {dh}
local_id = "{local_id}"
peer_id = "{peer_id}"

[tunnel.ipsec]
encryption = "{esp_encryption}"
integrity = "{esp_integrity}"
pfs = "disabled"
"#,
        tunnel = site.tunnel(),
        encryption = suite.encryption,
        integrity = suite.integrity,
        prf = suite.prf,
        dh = suite.dh,
        esp_encryption = suite.esp_encryption,
        esp_integrity = suite.esp_integrity,
    )
}

/// Starts a part of it. A file `hosts` in its directory is its /etc/hosts.
fn spawn(namespace: &Namespace, directory: &Path, subcommand: &str, arguments: &[&str]) -> Result<Process> {
    let (binary, hosts) = (binary()?, directory.join(HOSTS));
    let mut command = if hosts.exists() {
        let mut command = namespace.command("unshare");
        command.args(["--mount", "--", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
        command.arg(hosts).arg(binary);
        command
    } else {
        namespace.command(&binary.to_string_lossy())
    };
    command.arg(subcommand).arg("--config").arg(directory.join("adit.toml"));
    command.arg("--bpf-dir").arg(directory.join("bpf"));
    command.arg("--data-dir").arg(directory.join("data"));
    command.arg("--alarm-rules").arg(directory.join("alarms.yml")).args(arguments);
    namespace.spawn(if subcommand == "run" { "adit" } else { subcommand }, &mut command)
}

/// The object with this name, anywhere in `value`.
fn named<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) if fields.get("name").and_then(Value::as_str) == Some(name) => Some(value),
        Value::Object(fields) => fields.values().find_map(|value| named(value, name)),
        Value::Array(values) => values.iter().find_map(|value| named(value, name)),
        _ => None,
    }
}

/// The field with this key, anywhere in `value`.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => {
            fields.get(key).or_else(|| fields.values().find_map(|value| find(value, key)))
        }
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_found_by_name_in_any_status() {
        let status: Value = serde_json::from_str(
            r#"{"gateway": {"name": "a", "tunnels": [{"name": "a-b", "x": {"handshake_ms": 3}}]}}"#,
        )
        .unwrap();
        let tunnel = named(&status, "a-b").unwrap();
        assert_eq!(find(tunnel, "handshake_ms"), Some(&Value::from(3)));
        assert_eq!(named(&status, "b-a"), None);
    }
}
