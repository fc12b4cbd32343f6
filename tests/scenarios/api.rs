//! The API as other machines find it: over HTTPS with a token, by programs that are not ours.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adit_tests::adit::{Adit, binary, configuration};
use adit_tests::namespace::wait_for;
use adit_tests::roots;
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::Site;
use adit_tests::topology::Topology;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Where the gateway serves HTTPS, in its namespace.
const LISTEN: &str = "127.0.0.1:8443";
const PATIENCE: Duration = Duration::from_secs(30);
/// How long requests are made up for.
const FUZZED: &str = "40";

fn main() -> std::process::ExitCode {
    let lacking = roots::schemathesis()
        .is_none()
        .then_some("schemathesis is not here; `cargo xtask test interop` tells why");
    scenario::main(vec![
        Scenario::new("no_answer_is_unlike_what_the_document_says", documented).lacking(lacking),
        Scenario::new("a_token_opens_what_it_says_and_nothing_else", scopes),
        Scenario::new("who_was_slower_or_sends_too_much_changes_nothing", refused),
        Scenario::new("who_takes_his_time_is_let_go", slow),
        Scenario::new("what_happens_is_told_as_it_happens", told),
    ])
}

/// A gateway without a peer that answers, with its API on [`LISTEN`].
struct Gateway {
    topology: Topology,
    adit: Adit,
    directory: PathBuf,
}

impl Gateway {
    fn start() -> Result<Gateway> {
        let topology = Topology::two_sites(Run::begin()?)?;
        let site = Site::a(&topology);
        let adit = Adit::start_with(&topology.gateway_a, &site.tunnel(), |directory| {
            configuration(&site, directory).replace("[api]", &format!("[api]\nlisten = \"{LISTEN}\""))
        })?;
        let directory = adit.configuration().parent().context("it lies somewhere")?.to_owned();
        Ok(Gateway { topology, adit, directory })
    }

    /// Makes a token of these scopes.
    fn token(&self, name: &str, scopes: &str) -> Result<String> {
        Ok(self.adit.done(&["token", "create", name, "--scope", scopes])?.trim().to_owned())
    }

    /// curl to a path of the API, with a token and further arguments.
    fn curl(&self, token: &str, path: &str, arguments: &[&str]) -> Command {
        let mut command = self.topology.gateway_a.command("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]);
        command.arg(self.directory.join("data/api.crt")).arg(format!("https://{LISTEN}{path}"));
        command.args(["--header", &format!("Authorization: Bearer {token}")]).args(arguments);
        command
    }

    /// The status of an answer, its header in lower case, and its body.
    fn ask(&self, token: &str, path: &str, arguments: &[&str]) -> Result<(u16, String, Value)> {
        let output = self.curl(token, path, &[&["--include"], arguments].concat()).output()?;
        let said = String::from_utf8(output.stdout)?;
        // What a body that is refused before it is sent is answered with comes first.
        let said = said.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&said);
        let (header, body) = said
            .split_once("\r\n\r\n")
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let code = header.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        Ok((code, header.to_lowercase(), serde_json::from_str(body).unwrap_or_default()))
    }

    /// One request with a body of JSON.
    fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        header: &str,
        body: &Value,
    ) -> Result<(u16, String, Value)> {
        let body = body.to_string();
        let json = "Content-Type: application/json";
        self.ask(token, path, &["--request", method, "--header", json, "--header", header, "--data", &body])
    }

    /// What `adit` elsewhere ends with, and what it says.
    fn elsewhere(&self, token: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let file = self.directory.join("token");
        fs::write(&file, token)?;
        let mut command = self.topology.gateway_a.command(&binary()?.to_string_lossy());
        command.args(arguments).arg("--url").arg(format!("https://{LISTEN}")).arg("--token-file").arg(file);
        command.arg("--ca").arg(self.directory.join("data/api.crt"));
        let output = command.stdin(Stdio::null()).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    }

    fn end(mut self) -> Result<()> {
        let status = self.adit.process().stop()?;
        ensure!(status.success(), "adit ended with {status}:\n{}", self.adit.log_tail(20));
        self.topology.end()
    }
}

/// Every operation with requests made up from the document, right ones and wrong ones: what comes back is never an error of
/// the server's, nor a status, a media type, a header or a body that the document does not have.
fn documented() -> Result<()> {
    let gateway = Gateway::start()?;
    let token = gateway.token("tester", "read,write,reveal-secrets")?;
    let root = roots::schemathesis().context("schemathesis is not here")?;
    let mut command = gateway.topology.gateway_a.command("python3");
    command.arg(root.join("bin/st")).args(["run", "--no-color", "--url", &format!("https://{LISTEN}")]);
    command.arg("--tls-verify").arg(gateway.directory.join("data/api.crt"));
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
    command.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]);
    command.args(["--checks", "response_headers_conformance,response_schema_conformance"]);
    // A stream has no end; and a tester that guesses tokens, or deletes its own, learns nothing any more.
    command.args([
        "--generation-with-security-parameters",
        "false",
        "--exclude-name",
        "DELETE /v1/tokens/{name}",
    ]);
    command.args(["--exclude-path", "/v1/events", "--phases", "examples,coverage,fuzzing"]);
    command.args(["--max-time", FUZZED, "--max-examples", "60", "--seed", "7", "--workers", "1"]);
    command.args(["--request-timeout", "15", "--suppress-health-check", "all", "--warnings", "off"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json"));
    command.env("PYTHONPATH", &root).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(&gateway.directory);
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{said}\n  the gateway's log ends:\n{}", gateway.adit.log_tail(20));
    let (code, ..) = gateway.ask(&token, "/v1/status", &[])?;
    ensure!(code == 200, "at the end the token opens nothing: {code}\n{said}");
    println!(
        "{}",
        said.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    );
    gateway.end()
}

fn scopes() -> Result<()> {
    let gateway = Gateway::start()?;
    let [read, write] = [gateway.token("r", "read")?, gateway.token("w", "write")?];
    let peer = ["peer", "create", "c", "address=198.51.100.7"];
    for (token, arguments, wanted, words) in [
        (&read, &["peer", "list"][..], 0, "b"),
        (&read, &peer, 4, "this takes a token of the scope write"),
        (&write, &["peer", "list"], 4, "this takes a token of the scope read"),
        (&read, &["peer", "show", "none"], 5, "there is no peer \"none\""),
        (&read, &["status"], 0, "a-b"),
    ] {
        let (code, said) = gateway.elsewhere(token, arguments)?;
        ensure!(code == Some(wanted) && said.contains(words), "{arguments:?}: {code:?}: {said}");
    }
    let (code, _, made) =
        gateway.send(&write, "POST", "/v1/peers", "A: b", &json!({"name": "c", "address": "any"}))?;
    ensure!(code == 201 && made["name"] == "c", "{code}: {made}");
    let (code, _, refused) = gateway.ask(&read, "/v1/export?with_psk=true", &[])?;
    ensure!(code == 403, "{code}: {refused}");

    // Whoever goes on guessing is not heard, with a good token either; the socket's callers are.
    let wrong = format!("{}0", &read[..read.len() - 1]);
    let wrong = if wrong == read { format!("{}1", &read[..read.len() - 1]) } else { wrong };
    let mut codes = Vec::new();
    while codes.last() != Some(&429) && codes.len() < 40 {
        codes.push(gateway.ask(&wrong, "/v1/status", &[])?.0);
    }
    let heard = codes.iter().take_while(|code| **code == 401).count();
    ensure!((10..=20).contains(&heard) && heard + 1 == codes.len(), "{codes:?}");
    let (code, header, problem) = gateway.ask(&read, "/v1/status", &[])?;
    ensure!(code == 429 && header.contains("retry-after: "), "{code}: {header}");
    ensure!(problem["status"] == 429 && header.contains("application/problem+json"), "{problem}");
    gateway.adit.status()?;
    gateway.end()
}

fn refused() -> Result<()> {
    let gateway = Gateway::start()?;
    let token = gateway.token("ci", "read,write")?;
    let path = "/v1/tunnels/a-b";
    let (code, header, tunnel) = gateway.ask(&token, path, &[])?;
    let tag = format!("\"{}\"", tunnel["revision"]);
    ensure!(code == 200 && header.contains(&format!("etag: {tag}")), "{header}");
    let change = |remark: &str| {
        gateway.send(&token, "PATCH", path, &format!("If-Match: {tag}"), &json!({"remark": remark}))
    };
    let (code, _, first) = change("first")?;
    ensure!(code == 200 && first["remark"] == "first", "{code}: {first}");
    let (code, _, second) = change("second")?;
    ensure!(
        code == 412 && second["detail"].as_str().is_some_and(|d| d.contains("changed meanwhile")),
        "{second}"
    );
    let (_, _, now) = gateway.ask(&token, path, &[])?;
    ensure!(now["remark"] == "first", "{now}");

    let large = gateway.directory.join("large.json");
    fs::write(&large, format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20)))?;
    let data = format!("@{}", large.display());
    let json = "Content-Type: application/json";
    let (code, _, problem) = gateway.ask(&token, "/v1/peers", &["--header", json, "--data-binary", &data])?;
    ensure!(code == 413 && problem["status"] == 413, "{code}: {problem}");
    let wrong = json!({"name": "c", "address": "any", "labels": {"a": 1}});
    let (code, _, problem) = gateway.send(&token, "POST", "/v1/peers", "A: b", &wrong)?;
    ensure!(code == 422 && problem["errors"][0]["field"] == "labels.a", "{code}: {problem}");
    let (_, _, peers) = gateway.ask(&token, "/v1/peers", &[])?;
    ensure!(peers["total"] == 1, "{peers}");
    gateway.end()
}

/// Who connects and says nothing, and who begins a header and does not end it.
fn slow() -> Result<()> {
    let gateway = Gateway::start()?;
    let mut local = UnixStream::connect(gateway.directory.join("adit.sock"))?;
    local.write_all(b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX-Slow: ")?;
    local.set_read_timeout(Some(PATIENCE))?;
    let begun = Instant::now();
    gateway.topology.gateway_a.inside(|| {
        let mut silent = TcpStream::connect(LISTEN)?;
        silent.set_read_timeout(Some(PATIENCE))?;
        // Closed, in whichever way.
        let read = silent.read(&mut [0; 64]);
        ensure!(!matches!(read, Ok(1..)), "a connection that says nothing is answered");
        Ok(())
    })?;
    let mut rest = Vec::new();
    // As above.
    let _ = local.read_to_end(&mut rest);
    let waited = begun.elapsed();
    ensure!(waited < PATIENCE && !rest.starts_with(b"HTTP/1.1 200"), "let go after {waited:?}");
    gateway.adit.status()?;
    gateway.end()
}

/// A program that goes with the test.
struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn told() -> Result<()> {
    let gateway = Gateway::start()?;
    let token = gateway.token("r", "read")?;
    let (code, ..) = gateway.ask(&token, "/v1/events?tunnel=none", &[])?;
    ensure!(code == 404, "{code}");
    let mut command = gateway.curl(&token, "/v1/events?tunnel=a-b", &["--no-buffer", "--include"]);
    let mut reader = Reader(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    let mut lines = BufReader::new(reader.0.stdout.take().context("it is piped")?).lines();
    let mut next = |wanted: &str| -> Result<String> {
        for line in lines.by_ref() {
            let line = line?;
            if line.contains(wanted) {
                return Ok(line);
            }
        }
        bail!("the stream ended without {wanted}")
    };
    // The header comes when somebody listens.
    next("text/event-stream")?;
    gateway.adit.done(&["tunnel", "down", "a-b"])?;
    let state = next("\"event\":\"state\"")?;
    let state: Value = serde_json::from_str(state.trim_start_matches("data:").trim())?;
    ensure!(state["tunnel"] == "a-b" && state["state"] == "disabled", "{state}");
    gateway.adit.done(&["tunnel", "delete", "a-b"])?;
    next("\"event\":\"removed\"")?;
    wait_for(
        "the tunnel to be gone",
        PATIENCE,
        || Ok(gateway.ask(&token, "/v1/tunnels/a-b", &[])?.0 == 404),
    )?;
    gateway.end()
}
