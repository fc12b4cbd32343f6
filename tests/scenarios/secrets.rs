//! No secret is in anything that Adit writes: not in a log of everything that is of use to anybody, an answer, a metric, a file of its store. The
//! pre-shared keys, the key of PPK, a token, and the keys of the SAs are looked for as they are, in hexadecimal digits and in
//! base64, after a run with traffic, rekeys, changes, and all that can go wrong with keys.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use adit_tests::adit::{Adit, binary, configuration};
use adit_tests::namespace::wait_for;
use adit_tests::pair::{PATIENCE, Pair};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::{PSK, Site};
use adit_tests::topology::{HOST_A, HOST_B, Topology};
use adit_tests::traffic::{ping, ping_until_answered};
use anyhow::{Context, Result, ensure};

/// The key of PPK on both sides.
const PPK: &str = "a-shared-quantum-safe-key-0123456789";
/// A key that is not the peer's.
const OTHER: &str = "another-key-with-32-characters-02";

/// What is asked of a gateway by command.
const COMMANDS: [&[&str]; 25] = [
    &["status"],
    &["status", "-o", "json"],
    &["status", "-o", "csv"],
    &["status", "-o", "yaml"],
    &["metrics"],
    &["tunnel", "show", "a-b", "-o", "json"],
    &["tunnel", "show", "a-b", "-o", "yaml"],
    &["tunnel", "settings", "a-b"],
    &["tunnel", "settings", "a-b", "-o", "json"],
    &["tunnel", "list", "-o", "json"],
    &["tunnel", "list", "-o", "yaml"],
    &["tunnel", "list", "-o", "csv"],
    &["tunnel", "log", "a-b", "-o", "json"],
    &["tunnel", "diagnose", "a-b"],
    &["tunnel", "diagnose", "a-b", "-o", "json"],
    &["tunnel", "diagnose", "a-b", "-o", "csv"],
    &["tunnel", "config", "a-b", "--for", "strongswan"],
    &["tunnel", "config", "a-b", "--for", "adit"],
    &["peer", "list", "-o", "json"],
    &["gateway", "list", "-o", "json"],
    &["gateway", "log", "-o", "json"],
    &["token", "list", "-o", "json"],
    &["export"],
    &["tunnel", "edit", "a-b", "remark=Berlin, main", "-o", "yaml"],
    &["tunnel", "edit", "a-b", "psk=short key"],
];

/// What is asked of its API.
const PATHS: [&str; 14] = [
    "/v1/status",
    "/v1/log",
    "/v1/tunnels",
    "/v1/tunnels/a-b",
    "/v1/tunnels/a-b/status",
    "/v1/tunnels/a-b/log",
    "/v1/tunnels/a-b/diagnosis",
    "/v1/tunnels/a-b/peer-config?for=strongswan",
    "/v1/tunnels/a-b/peer-config?for=strongswan&with_psk=true",
    "/v1/export",
    "/v1/export?with_psk=true",
    "/v1/gateways",
    "/v1/tokens",
    "/metrics",
];

fn main() -> std::process::ExitCode {
    scenario::main(vec![Scenario::new("no_secret_is_in_what_is_written", nothing_is_told)])
}

fn nothing_is_told() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let start = |gateway, site: &Site| {
        Adit::start_talkative(gateway, &site.tunnel(), |directory| {
            configuration(site, directory)
                .replace(
                    "[tunnel.ike]\n",
                    &format!("[tunnel.ike]\nppk = {{ id = \"p\", key = \"{PPK}\" }}\n"),
                )
                .replace("[api]\n", "[api]\ncapture_keys = true\n")
        })
    };
    let b = start(&topology.gateway_b, &Site::b(&topology))?;
    let a = start(&topology.gateway_a, &Site::a(&topology))?;
    let mut pair = Pair { a, b };
    pair.a.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    let mut secrets: Vec<Vec<u8>> = [PSK, PPK, OTHER].map(|key| key.as_bytes().to_vec()).into();
    secrets.extend(sa_keys(&topology, &pair)?);
    let token = pair.a.done(&["token", "create", "ci", "--scope", "read,write"])?;
    secrets.push(token.trim().as_bytes().to_vec());

    let mut said = asked(&pair.a)?;
    // From here on the keys differ.
    let file = topology.run().directory().join("psk");
    fs::write(&file, OTHER)?;
    pair.a.done(&["tunnel", "edit", "a-b", &format!("psk=@{}", file.display())])?;
    wait_for("the refusal of the other key", PATIENCE, || {
        Ok(pair.a.done(&["tunnel", "diagnose", "a-b"])?.contains("pre-shared keys differ"))
    })?;
    said.extend(asked(&pair.a)?);
    said.extend(asked(&pair.b)?);
    for gateway in [&pair.a, &pair.b] {
        said.push(("its log".into(), gateway.log().into_bytes()));
        let directory = gateway.configuration().with_file_name("data");
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            said.push((path.display().to_string(), fs::read(&path)?));
        }
    }
    ensure!(said.iter().any(|(what, text)| what == "its log" && text.len() > 10_000), "the logs are short");
    for (what, text) in &said {
        for secret in &secrets {
            ensure!(!tells(text, secret), "{what} has a secret of {} octets", secret.len());
        }
    }
    // The search finds what is there: the document with its keys is the one place that has one.
    let document = fs::read(pair.a.configuration())?;
    ensure!(tells(&document, &secrets[0]) && tells(&document, &secrets[1]), "the search finds nothing");
    pair.end(topology)
}

/// The keys of the Child SAs, as a capture has them, which is allowed to have them.
fn sa_keys(topology: &Topology, pair: &Pair) -> Result<Vec<Vec<u8>>> {
    let directory = topology.run().directory();
    let (file, keys) = (directory.join("outer.pcapng"), directory.join("esp_sa"));
    let mut command = topology.gateway_a.command(&binary()?.to_string_lossy());
    command.args(["tunnel", "capture", "a-b", "--outer", "-w"]).arg(&file).arg("--keys").arg(&keys);
    command.arg("--socket").arg(pair.a.configuration().with_file_name("adit.sock"));
    let mut capture = topology.gateway_a.spawn("capture", &mut command)?;
    wait_for("keys of two pairs", PATIENCE, || {
        ping(&topology.host_a, HOST_B, 1, 56)?;
        ping(&topology.host_b, HOST_A, 1, 56)?;
        let lines = fs::read_to_string(&keys).unwrap_or_default();
        if lines.lines().count() == 2 {
            pair.a.done(&["tunnel", "rekey", "a-b", "--child"])?;
        }
        Ok(lines.lines().count() >= 4)
    })?;
    capture.stop()?;
    let text = fs::read_to_string(&keys)?;
    let words = text.split(['"', ',']).filter_map(|word| word.strip_prefix("0x")).filter(|w| w.len() >= 32);
    let keys: Vec<_> = words.map(octets).collect::<Result<_>>()?;
    ensure!(keys.len() >= 4, "{} keys of two pairs of SAs", keys.len());
    Ok(keys)
}

fn octets(hex: &str) -> Result<Vec<u8>> {
    let pairs = (0..hex.len() / 2).map(|i| &hex[2 * i..2 * i + 2]);
    pairs.map(|pair| u8::from_str_radix(pair, 16).context("not hexadecimal")).collect()
}

/// Everything that a gateway answers, what it refuses included.
fn asked(adit: &Adit) -> Result<Vec<(String, Vec<u8>)>> {
    let tunnel = adit.tunnel();
    let mut said = Vec::new();
    for command in COMMANDS {
        let words: Vec<&str> =
            command.iter().map(|word| if *word == "a-b" { tunnel } else { *word }).collect();
        let output = adit.command(&words)?;
        ensure!(
            !output.stdout.is_empty() || !output.stderr.is_empty(),
            "`adit {}` says nothing",
            words.join(" ")
        );
        said.push((format!("adit {}", words.join(" ")), [output.stdout, output.stderr].concat()));
    }
    let socket = adit.configuration().with_file_name("adit.sock");
    for path in PATHS.map(|path| path.replace("a-b", tunnel)) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: adit\r\nConnection: close\r\n\r\n");
        let answer = answer(&socket, request.as_bytes())?;
        ensure!(answer.starts_with(b"HTTP/1.1 "), "{path} is not answered");
        said.push((path, answer));
    }
    let data = socket.with_file_name("adit.sock.data");
    said.push(("the data plane".into(), answer(&data, b"\"report\"\n")?));
    Ok(said)
}

fn answer(socket: &Path, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Whether a text has a secret: as it is, in hexadecimal digits of either case, or within base64 at any place.
fn tells(text: &[u8], secret: &[u8]) -> bool {
    let hex: String = secret.iter().map(|octet| format!("{octet:02x}")).collect();
    let mut forms = vec![hex.to_uppercase(), hex];
    for skipped in 0..3 {
        // Where base64 holds more than the secret, whole groups of three octets of it are as they would be by themselves.
        let inner = &secret[skipped..];
        let whole = base64(&inner[..inner.len() / 3 * 3]);
        forms.push(whole.replace('+', "-").replace('/', "_"));
        forms.push(whole);
    }
    let words = String::from_utf8_lossy(text);
    let first = |octet: &u8| *octet == secret[0];
    let mut places = text.iter().enumerate().filter(|(_, octet)| first(octet)).map(|(place, _)| place);
    forms.iter().any(|form| words.contains(form)) || places.any(|place| text[place..].starts_with(secret))
}

/// RFC 4648 section 4, of whole groups.
fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in octets.chunks_exact(3) {
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        text.extend([18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift) as usize & 63])));
    }
    text
}
