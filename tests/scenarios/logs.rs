//! What a gateway writes of itself: as JSON on stderr, and in a journal, for which a systemd-journald of its own runs in a
//! mount namespace.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adit_tests::adit::{Adit, binary, configuration};
use adit_tests::namespace::{Process, wait_for};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::{PSK, Site};
use adit_tests::topology::{GATEWAY_A, LAN, Topology, WAN};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// Where the gateway serves HTTPS, in its namespace.
const LISTEN: &str = "127.0.0.1:8443";

/// The journal's daemon, where systemd puts it.
const JOURNALD: &str = "/lib/systemd/systemd-journald";
/// Gives a program a `/run` of its own, with what a journal needs to leave the machine's logs and audit alone.
const WITH_JOURNAL: &str = "mount --make-rprivate / && mount -t tmpfs none /run && \
    mkdir -p /run/systemd/journal /run/systemd/journald.conf.d && \
    printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=\\nRateLimitIntervalSec=0\\n' \
    > /run/systemd/journald.conf.d/adit.conf && exec \"$0\"";
/// Tells a program of the stream to the journal that its stderr is, as systemd does (systemd.exec(5)).
const AS_SYSTEMD: &str = "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && exec \"$0\" \"$@\"";

fn main() -> std::process::ExitCode {
    let has_journal = Path::new(JOURNALD).exists() && Path::new("/etc/machine-id").exists();
    let lacking = (!has_journal).then_some("there is no systemd-journald here");
    scenario::main(vec![
        Scenario::new("json_is_an_object_a_line_to_the_last", json),
        Scenario::new("the_journal_has_each_field", journal).lacking(lacking),
        Scenario::new("the_gateway_says_what_happens_to_it_as_it_happens", gateway),
        Scenario::new("the_last_thousand_events_are_kept_and_who_is_slow_is_told", thousands),
    ])
}

/// The arguments of an `adit control` with this configuration.
fn control(topology: &Topology, configuration: &str) -> Result<Vec<PathBuf>> {
    let directory = topology.run().directory().join("control");
    fs::create_dir_all(directory.join("bpf"))?;
    let file = directory.join("adit.toml");
    fs::write(&file, configuration)?;
    let option = |name: &str, value: PathBuf| [name.into(), value];
    let options = [
        option("--config", file),
        option("--bpf-dir", directory.join("bpf")),
        option("--data-dir", directory.join("data")),
    ];
    Ok([vec!["control".into()], options.concat()].concat())
}

/// Asks for the tunnel to be down, so that something happens to it.
fn take_down(topology: &Topology) -> Result<()> {
    let socket = topology.run().directory().join("control/adit.sock");
    let adit = binary()?;
    let arguments = ["tunnel", "down", "a-b", "--socket", &socket.to_string_lossy()];
    wait_for("control to take the tunnel down", PATIENCE, || {
        Ok(topology.gateway_a.run(&adit.to_string_lossy(), &arguments).is_ok())
    })
}

fn json() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let directory = topology.run().directory().join("control");
    let good = configuration(&Site::a(&topology), &directory);
    let mut command = topology.gateway_a.command(&binary()?.to_string_lossy());
    command.args(["--log-format", "json"]).args(control(&topology, &good)?);
    let mut running = topology.gateway_a.spawn("good", &mut command)?;
    take_down(&topology)?;
    let entries = |process: &Process| -> Result<Vec<Value>> {
        let log = process.log();
        log.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect()
    };
    wait_for("what happened to the tunnel", PATIENCE, || {
        Ok(entries(&running)?.iter().any(|entry| entry["tunnel"] == "a-b"))
    })?;
    running.stop()?;
    for entry in entries(&running)? {
        ensure!(
            entry["message"].is_string() && entry["level"].is_string() && entry["timestamp"].is_string(),
            "{entry}"
        );
    }

    // An error that ends it is an object as well.
    let wrong = good.replace("wan = ", "wam = ");
    let mut command = topology.gateway_a.command(&binary()?.to_string_lossy());
    command.args(["--log-format", "json"]).args(control(&topology, &wrong)?);
    let mut running = topology.gateway_a.spawn("wrong", &mut command)?;
    let status = running.wait(PATIENCE)?;
    let told = entries(&running)?;
    let is_told = |entry: &Value| {
        entry["message"].as_str().is_some_and(|m| m.contains("wam")) && entry["level"] == "ERROR"
    };
    ensure!(status.code() == Some(2) && told.iter().any(is_told), "{status}: {told:?}");
    topology.end()
}

/// A systemd-journald in a mount namespace.
struct Journal(Process);

impl Journal {
    fn start(topology: &Topology) -> Result<Journal> {
        let mut command = topology.gateway_a.command("unshare");
        command.args(["--mount", "sh", "-c", WITH_JOURNAL, JOURNALD]);
        let journal = Journal(topology.gateway_a.spawn("journald", &mut command)?);
        wait_for("the journal to answer", PATIENCE, || {
            let mut there = journal.command(topology, "test");
            Ok(there.args(["-S", "/run/systemd/journal/stdout"]).output()?.status.success())
        })
        .with_context(|| journal.0.log_tail(5))?;
        Ok(journal)
    }

    /// A program where this is the journal.
    fn command(&self, topology: &Topology, program: &str) -> Command {
        let mut command = topology.gateway_a.command("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.0.pid())).arg("--").arg(program);
        command
    }

    /// Every entry that an Adit has made.
    fn entries(&self, topology: &Topology) -> Result<Vec<Value>> {
        let mut command = self.command(topology, "journalctl");
        command.args(["--directory=/run/log/journal", "--output=json", "--quiet", "SYSLOG_IDENTIFIER=adit"]);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        said.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect()
    }

    /// Starts `adit control` with stderr and stdout leading into the journal, as under systemd.
    fn run(&self, topology: &Topology, name: &str, configuration: &str) -> Result<Process> {
        let mut command = self.command(topology, "systemd-cat");
        command
            .args(["--identifier=stderr-of-adit", "sh", "-c", AS_SYSTEMD])
            .arg(binary()?)
            .args(control(topology, configuration)?);
        topology.gateway_a.spawn(name, &mut command)
    }
}

fn journal() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let journal = Journal::start(&topology)?;
    let directory = topology.run().directory().join("control");
    let good = configuration(&Site::a(&topology), &directory);
    let mut running = journal.run(&topology, "good", &good)?;
    let socket = directory.join("adit.sock");
    wait_for("control to listen", PATIENCE, || Ok(socket.exists()))?;
    take_down(&topology)?;
    let of_tunnel = |entry: &Value| entry["ADIT_TUNNEL"] == "a-b";
    wait_for("what happened to the tunnel", PATIENCE, || {
        Ok(journal.entries(&topology)?.iter().any(of_tunnel))
    })
    .with_context(|| running.log_tail(10))?;
    running.stop()?;
    let wrong = good.replace("wan = ", "wam = ");
    let status = journal.run(&topology, "wrong", &wrong)?.wait(PATIENCE)?;
    ensure!(status.code() == Some(2), "{status}");

    let is_refused = |entry: &Value| {
        entry["PRIORITY"] == "3" && entry["MESSAGE"].as_str().is_some_and(|text| text.contains("wam"))
    };
    wait_for("the wrong configuration in the journal", PATIENCE, || {
        Ok(journal.entries(&topology)?.iter().any(is_refused))
    })?;
    let entries = journal.entries(&topology)?;
    let tunnel = entries.iter().find(|entry| of_tunnel(entry)).context("no entry of the tunnel")?;
    for (field, value) in [("_TRANSPORT", "journal"), ("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "adit")] {
        ensure!(tunnel[field] == value, "{field} of {tunnel}");
    }
    ensure!(entries.iter().all(|entry| !entry.to_string().contains(PSK)), "a key is in the journal");
    topology.end()
}

/// `adit gateway log -f` or `adit tunnel log -f`, as it goes on.
struct Follower(Process);

impl Follower {
    fn start(topology: &Topology, adit: &Adit, log: &[&str]) -> Result<Follower> {
        let mut command = topology.gateway_a.command(&binary()?.to_string_lossy());
        command.args(log).args(["--follow", "--output", "json", "--socket"]);
        command.arg(adit.configuration().with_file_name("adit.sock"));
        topology.gateway_a.spawn(&format!("follow-{}", log[0]), &mut command).map(Follower)
    }

    /// The entries that it has shown.
    fn entries(&self) -> Vec<Value> {
        self.0.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it has shown an entry with these words.
    fn wait(&self, words: &str) -> Result<()> {
        let has = |entry: &Value| entry["text"].as_str().is_some_and(|text| text.contains(words));
        wait_for(&format!("{words:?} in the log"), PATIENCE, || Ok(self.entries().iter().any(has)))
            .with_context(|| self.0.log_tail(30))
    }
}

/// The entries of a log, as they are kept.
fn kept(adit: &Adit, log: &[&str]) -> Result<Vec<Value>> {
    let said = adit.done(&[log, &["--output", "json"]].concat())?;
    said.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}

fn gateway() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let site = Site::a(&topology);
    let mut a = Adit::start_control(&topology.gateway_a, "a-b", |directory| {
        configuration(&site, directory).replace("[api]", &format!("[api]\nlisten = \"{LISTEN}\""))
    })?;
    let follower = Follower::start(&topology, &a, &["gateway", "log"])?;
    follower.wait("starts: gateway \"a\", 1 tunnel")?;
    follower.wait("a certificate for HTTPS is made: ")?;
    let mut data_plane = a.data_plane(&[])?;
    follower.wait("the data plane runs: ")?;
    follower.wait("the data plane is there with its maps: 0 of 1 tunnels go on")?;

    // Who changes what.
    let token = a.done(&["token", "create", "ci"])?;
    follower.wait("token \"ci\" made, with read, by uid 0")?;
    a.done(&[
        "tunnel",
        "edit",
        "a-b",
        "mtu=1400",
        "ipsec.lifetime=1800",
        "psk=another-key-of-this-tunnel-0001",
    ])?;
    follower.wait("tunnel \"a-b\" changed (ipsec.lifetime, mtu, psk), by uid 0")?;
    let document = topology.run().directory().join("more.toml");
    fs::write(&document, "[[peer]]\nname = \"c\"\naddress = \"198.51.100.7\"\n")?;
    a.done(&["apply", "--yes", "--file", &document.to_string_lossy()])?;
    follower.wait("a document is applied: peer \"c\" created; 3 unchanged, by uid 0")?;
    a.done(&["peer", "delete", "c"])?;
    follower.wait("peer \"c\" deleted, by uid 0")?;
    a.done(&["tunnel", "down", "a-b"])?;
    follower.wait("tunnel \"a-b\" is down, until `adit tunnel up`, by uid 0")?;
    a.done(&["reload"])?;
    follower.wait("is applied again, by uid 0: tunnel \"a-b\" changed (")?;

    // Who may not, once however often.
    let certificate = a.configuration().with_file_name("data").join("api.crt");
    let ask = |token: &str, arguments: &[&str]| {
        let mut curl = topology.gateway_a.command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(&certificate);
        curl.arg("--header").arg(format!("Authorization: Bearer {token}")).args(arguments);
        let output = curl.arg(format!("https://{LISTEN}/v1/tunnels/a-b")).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    (0..3).try_for_each(|_| ask("adit_0.1", &[]))?;
    (0..3).try_for_each(|_| ask(token.trim(), &["--request", "DELETE"]))?;
    follower.wait("127.0.0.1 showed a token that is none, or has ended")?;
    follower.wait("token \"ci\" from 127.0.0.1 may not DELETE /v1/tunnels/a-b")?;
    let listed = a.done(&["token", "list", "-o", "csv"])?;
    ensure!(listed.lines().count() == 2 && listed.contains(",ci,"), "{listed}");
    a.done(&["token", "delete", "ci"])?;
    follower.wait("token \"ci\" deleted, by uid 0")?;

    // A peer that nobody knows.
    a.done(&["tunnel", "delete", "a-b"])?;
    let b = Site::b(&topology);
    let stranger = Adit::start_with(&topology.gateway_b, "a-b", |directory| {
        configuration(&b, directory).replace("start = \"respond\"", "start = \"immediate\"")
    })?;
    follower.wait("198.51.100.1 was refused in IKE_SA_INIT: no tunnel is configured between")?;

    // What becomes of the machine and of the data plane.
    topology.gateway_a.ip(&["link", "set", LAN, "down"])?;
    follower.wait("interface lan is down")?;
    topology.gateway_a.ip(&["link", "set", LAN, "up"])?;
    follower.wait("interface lan is up")?;
    let address = format!("{GATEWAY_A}/24");
    topology.gateway_a.ip(&["address", "del", &address, "dev", WAN])?;
    follower.wait("address 192.0.2.1 is no address of this machine")?;
    topology.gateway_a.ip(&["address", "add", &address, "dev", WAN])?;
    follower.wait("address 192.0.2.1 is there again")?;
    data_plane.kill();
    follower.wait("the data plane has ended")?;
    let runs = |entries: &[Value]| {
        entries
            .iter()
            .filter(|e| e["text"].as_str().is_some_and(|t| t.starts_with("the data plane runs")))
            .count()
    };
    let again = a.data_plane(&[])?;
    wait_for("the other data plane", PATIENCE, || Ok(runs(&follower.entries()) == 2))?;

    // Who followed has seen all of it, each once; and what is shown last is what there is.
    let all = kept(&a, &["gateway", "log"])?;
    wait_for("the follower to have seen it all", PATIENCE, || Ok(follower.entries().len() >= all.len()))?;
    ensure!(follower.entries()[..all.len()] == all, "{:?} is not {all:?}", follower.entries());
    for (number, entry) in (0..).zip(&all) {
        ensure!(entry["number"] == Value::from(number), "{entry} is not number {number}");
    }
    // How often it has happened since is told after a minute.
    let says = |text: &str, words: &str| text.contains(words) && !text.ends_with("for a minute)");
    let once =
        |words: &str| all.iter().filter(|e| e["text"].as_str().is_some_and(|t| says(t, words))).count();
    for words in ["showed a token", "may not DELETE", "198.51.100.1 was refused"] {
        ensure!(once(words) == 1, "{words:?} is there {} times", once(words));
    }
    let last = kept(&a, &["gateway", "log", "-n", "2"])?;
    ensure!(last == all[all.len() - 2..], "{last:?}");
    let said = serde_json::to_string(&all)?;
    for secret in [PSK, "another-key-of-this-tunnel-0001", token.trim()] {
        ensure!(!said.contains(secret), "a secret is in the gateway's log");
    }

    // The log is of one process; the next begins its own.
    a.restart()?;
    follower.wait("control stops; every SA is left to the next one")?;
    let begun = kept(&a, &["gateway", "log"])?;
    let first = begun[0]["text"].as_str().unwrap_or_default();
    ensure!(begun[0]["number"] == 0 && first.contains(" starts: gateway \"a\""), "{}", begun[0]);
    drop((stranger, again));
    topology.end()
}

/// Requests to the API on one connection.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn open(adit: &Adit) -> Result<Connection> {
        let stream = UnixStream::connect(adit.configuration().with_file_name("adit.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection(BufReader::new(stream)))
    }

    fn send(&mut self, method: &str, path: &str) -> Result<()> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: adit\r\n\r\n");
        Ok(self.0.get_mut().write_all(request.as_bytes())?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line)? > 0, "the connection has ended");
        Ok(line.trim_end().to_owned())
    }

    /// The body of an answer.
    fn ask(&mut self, method: &str, path: &str) -> Result<Value> {
        self.send(method, path)?;
        let status = self.line()?;
        ensure!(status.contains(" 200 "), "{method} {path}: {status}");
        let mut length = 0;
        loop {
            let line = self.line()?.to_lowercase();
            match line.strip_prefix("content-length: ") {
                Some(octets) => length = octets.parse()?,
                None if line.is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(serde_json::from_slice(&body)?)
    }
}

fn thousands() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let site = Site::a(&topology);
    let a = Adit::start_control(&topology.gateway_a, "a-b", |directory| configuration(&site, directory))?;
    let mut followers = [
        Follower::start(&topology, &a, &["tunnel", "log", "a-b"])?,
        Follower::start(&topology, &a, &["gateway", "log"])?,
    ];
    a.done(&["tunnel", "down", "a-b"])?;
    let mut slow = Connection::open(&a)?;
    slow.send("GET", "/v1/events")?;
    ensure!(slow.line()?.contains(" 200 "), "events are refused");
    a.done(&["tunnel", "up", "a-b"])?;
    // They have begun before they stop to listen.
    while !slow.line()?.contains("\"event\":\"gateway\"") {}
    followers[0].wait("disabled")?;
    followers[1].wait("is down")?;
    followers.iter_mut().try_for_each(|follower| follower.0.signal(libc::SIGSTOP))?;
    let mut connection = Connection::open(&a)?;
    for _ in 0..1100 {
        connection.ask("POST", "/v1/tunnels/a-b/down")?;
        connection.ask("POST", "/v1/tunnels/a-b/up")?;
    }
    connection.ask("POST", "/v1/tunnels/a-b/down")?;
    followers.iter_mut().try_for_each(|follower| follower.0.signal(libc::SIGCONT))?;

    let logs = [connection.ask("GET", "/v1/tunnels/a-b/log")?, connection.ask("GET", "/v1/log")?];
    for (log, follower) in logs.iter().zip(&followers) {
        let entries = log.as_array().context("no list")?;
        let number = |entry: &Value| entry["number"].as_u64().context("no number");
        let (first, last) = (number(&entries[0])?, number(entries.last().context("empty")?)?);
        ensure!(entries.len() == 1000 && last - first == 999 && first > 1000, "{first} to {last}");
        ensure!(entries.windows(2).all(|two| number(&two[0]).ok() < number(&two[1]).ok()), "out of order");
        wait_for("the follower to catch up", PATIENCE, || {
            Ok(follower.entries().last().is_some_and(|entry| entry["number"] == Value::from(last)))
        })
        .with_context(|| follower.0.log_tail(3))?;
        let (shown, said) = (follower.entries().len() as u64, follower.0.log());
        let told = said.lines().filter(|line| line.contains("were too many to be told"));
        let lost: u64 = told.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).sum();
        ensure!(lost > 0 && shown + lost == last + 1, "{shown} and {lost} of {}", last + 1);
    }
    // A reader of the API is told as well, and then goes on with what comes.
    let lost = loop {
        let line = slow.line()?;
        if let Some(data) = line.strip_prefix("data: ").filter(|data| data.contains("\"event\":\"lost\"")) {
            break serde_json::from_str::<Value>(data)?["count"].as_u64().context("no count")?;
        }
    };
    ensure!(lost > 0, "nothing is lost");
    a.done(&["tunnel", "edit", "a-b", "remark=after"])?;
    while !slow.line()?.contains("changed (remark), by uid 0") {}
    drop((a, slow));
    topology.end()
}
