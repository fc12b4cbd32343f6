//! `bench control`: what people and Prometheus ask of a gateway, and how long IKE waits for it.
//!
//! A gateway with two tunnels that are up, and that are asked for signs of life and rekeyed by hand all the while, is
//! given many more in one document; they are listed and one of them shown, one is changed, everything is scraped. Beside
//! how long each takes stands the longest round of the task that serves IKE since the gateway has had a data plane
//! (`adit_ike_loop_longest_seconds`): so long have datagrams and timers waited at worst.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use adit_tests::metrics::Metrics;
use adit_tests::namespace::wait_for;
use adit_tests::run::Run;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::ike::gateways::{ADDRESSES, Gateway, PATIENCE, configuration, pair, usage};
use crate::report::{Report, Row, figure};

/// Tunnels that are up.
const UP: u32 = 2;
/// How often the figures that are small are taken.
const TIMES: u32 = 10;
/// Between two rekeys of the tunnels that are up.
const REKEY: Duration = Duration::from_millis(200);
/// How long a gateway is left alone.
const IDLE: Duration = Duration::from_secs(10);

/// Takes all figures for growing numbers of tunnels.
pub(crate) fn run(report: &mut Report, quick: bool, counts: &[u32]) -> Result<()> {
    let counts = match counts {
        [] if quick => &[1, 100],
        [] => &[1, 1000, 10_000][..],
        counts => counts,
    };
    let (mut waits, mut scrapes) = (Vec::new(), Vec::new());
    for &count in counts {
        println!("give {count} tunnels to a gateway, and ask for them");
        let (wait, scrape) = with(count)?;
        waits.push(wait);
        scrapes.push(scrape);
    }
    report.table("control", "A gateway is given tunnels, and asked for them, while others rekey", waits);
    report.table("control", "A scrape of a gateway, and a gateway that is left alone", scrapes);
    Ok(())
}

/// The figures with one number of tunnels.
fn with(count: u32) -> Result<(Row, Row)> {
    let run = Run::begin()?;
    let namespaces = pair(&run)?;
    let mut responder = Gateway::start(&run, &namespaces[1], 1, 0..UP, false)?;
    responder.wait_started()?;
    let mut subject = Gateway::start(&run, &namespaces[0], 0, 0..count + UP, true)?;
    subject.wait_started()?;
    subject.reload(0..UP)?;
    wait_for("the tunnels", PATIENCE, || Ok(subject.up()? >= f64::from(UP)))
        .with_context(|| subject.process.log_tail(10))?;
    let api = Api { socket: subject.socket() };
    let (over, rekeys) = (AtomicBool::new(false), AtomicU32::new(0));
    let (wait, scrape) = thread::scope(|scope| {
        let rekeying = scope.spawn(|| rekey(&api, &over, &rekeys));
        let figures = ask(&api, &subject, count);
        over.store(true, Relaxed);
        let rekeyed = rekeying.join().unwrap_or_else(|_| anyhow::bail!("who rekeys panicked"));
        let figures = figures?;
        rekeyed.map(|()| figures)
    })
    .with_context(|| format!("the gateway's log ends:\n{}", subject.process.log_tail(10)))?;
    ensure!(rekeys.load(Relaxed) > 0, "nothing was rekeyed");
    let up = api.metrics()?.1.get("adit_tunnel_health", &[]).unwrap_or(0.0);
    ensure!(up >= f64::from(UP), "{up} tunnels are up in the end, of {UP}");
    let left_alone = left_alone(subject.process.pid())?;
    drop((subject, responder));
    run.end()?;
    let mut scrape = scrape;
    scrape.push(("idle_percent_of_a_core", figure(left_alone * 100.0)));
    Ok((wait, scrape))
}

/// Applies, lists, shows, changes and scrapes.
fn ask(api: &Api, subject: &Gateway, count: u32) -> Result<(Row, Row)> {
    let mut rounds = Rounds::default();
    rounds.look(api)?;
    let document = configuration(subject.directory(), 0, ADDRESSES[1], UP..UP + count, false);
    let body = json!({ "document": document, "name": "bench" }).to_string();
    let (applied, _) = timed(|| api.ask("POST", "/v1/apply", &body))?;
    rounds.look(api)?;

    let mut listed = 0;
    let (list, ()) = timed(|| {
        while listed < count + UP {
            let page = api.json(&format!("/v1/tunnels?limit=1000&offset={listed}"))?;
            let items = page["items"].as_array().map_or(0, Vec::len) as u32;
            ensure!(items > 0, "a page is empty");
            listed += items;
        }
        Ok(())
    })?;
    let (status, everything) = timed(|| api.json("/v1/status"))?;
    let told = everything["tunnels"].as_array().map_or(0, Vec::len) as u32;
    ensure!(told == count + UP, "{told} tunnels are told of");
    let name = format!("t{}", UP + count / 2);
    let (show, _) = average(|| api.ask("GET", &format!("/v1/tunnels/{name}/status"), ""))?;
    rounds.look(api)?;
    let patch = |lifetime: u32| json!({ "ipsec": { "lifetime": lifetime } }).to_string();
    let mut lifetime = 3600;
    let (change, _) = average(|| {
        lifetime += 60;
        api.ask("PATCH", &format!("/v1/tunnels/{name}"), &patch(lifetime))
    })?;
    rounds.look(api)?;

    let pid = subject.process.pid();
    let before = usage(pid)?.cpu;
    let (scrape, (bytes, _)) = average(|| api.metrics())?;
    let cpu = (usage(pid)?.cpu - before) / TIMES;
    rounds.look(api)?;
    let milliseconds = |d: Duration| figure(d.as_secs_f64() * 1e3);
    let wait = vec![
        ("tunnels", Value::from(count)),
        ("apply_s", figure(applied.as_secs_f64())),
        ("list_ms", milliseconds(list)),
        ("status_of_all_ms", milliseconds(status)),
        ("show_one_ms", milliseconds(show)),
        ("change_one_ms", milliseconds(change)),
        ("longest_round_ms", figure(rounds.longest * 1e3)),
        ("rounds_above_10_ms", Value::from(rounds.above(0.01))),
        ("rounds_above_100_ms", Value::from(rounds.above(0.1))),
    ];
    let scrape = vec![
        ("tunnels", Value::from(count)),
        ("scrape_ms", milliseconds(scrape)),
        ("cpu_ms", milliseconds(cpu)),
        ("kib", figure(bytes as f64 / 1024.0)),
        ("cpu_us_per_tunnel", figure(cpu.as_secs_f64() * 1e6 / f64::from(count + UP))),
        ("bytes_per_tunnel", figure(bytes as f64 / f64::from(count + UP))),
    ];
    Ok((wait, scrape))
}

/// Rekeys the tunnels that are up, one after the other, until it is over.
fn rekey(api: &Api, over: &AtomicBool, rekeys: &AtomicU32) -> Result<()> {
    for number in (0..UP).cycle() {
        if over.load(Relaxed) {
            break;
        }
        // One that is being rekeyed already refuses.
        if api.ask("POST", &format!("/v1/tunnels/t{number}/rekey"), "").is_ok() {
            rekeys.fetch_add(1, Relaxed);
        }
        thread::sleep(REKEY);
    }
    Ok(())
}

/// The rounds of the task that serves IKE.
#[derive(Default)]
struct Rounds {
    longest: f64,
    count: f64,
    within: Vec<(String, f64)>,
}

impl Rounds {
    /// Looks, and says when one was longer than all before.
    fn look(&mut self, api: &Api) -> Result<()> {
        let metrics = api.metrics()?.1;
        let get = |name: &str| metrics.get(name, &[]).with_context(|| format!("there is no {name}"));
        self.longest = get("adit_ike_loop_longest_seconds")?;
        self.count = get("adit_ike_loop_seconds_count")?;
        let buckets = metrics.samples().iter().filter(|s| s.name == "adit_ike_loop_seconds_bucket");
        self.within = buckets.map(|s| (s.labels.get("le").cloned().unwrap_or_default(), s.value)).collect();
        Ok(())
    }

    /// How many took longer than a bound in seconds.
    fn above(&self, bound: f64) -> u64 {
        let within = self.within.iter().find(|(le, _)| le.parse() == Ok(bound)).map_or(0.0, |(_, n)| *n);
        (self.count - within) as u64
    }
}

/// A gateway's API on its Unix socket.
struct Api {
    socket: PathBuf,
}

impl Api {
    /// Asks for something; the body of the answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let length = body.len();
        let kind = "Content-Type: application/json\r\n";
        let head = format!("{method} {path} HTTP/1.0\r\n{kind}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").context("the answer is not HTTP")?;
        let body = answer.split_off(end + 4);
        let head = String::from_utf8_lossy(&answer);
        let is_done = head.split(' ').nth(1).is_some_and(|code| code.starts_with('2'));
        ensure!(is_done, "{method} {path}: {head}{}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    fn json(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.ask("GET", path, "")?)?)
    }

    /// A scrape: its octets, and what it says.
    fn metrics(&self) -> Result<(usize, Metrics)> {
        let text = String::from_utf8(self.ask("GET", "/metrics", "")?)?;
        Ok((text.len(), Metrics::parse(&text)?))
    }
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let begun = Instant::now();
    let done = work()?;
    Ok((begun.elapsed(), done))
}

/// The same several times, on average; what came last.
fn average<T>(mut work: impl FnMut() -> Result<T>) -> Result<(Duration, T)> {
    let (mut sum, mut last) = timed(&mut work)?;
    for _ in 1..TIMES {
        let (took, done) = timed(&mut work)?;
        (sum, last) = (sum + took, done);
    }
    Ok((sum / TIMES, last))
}

/// What part of a core a process takes that nobody asks for anything.
fn left_alone(pid: u32) -> Result<f64> {
    let before = usage(pid)?.cpu;
    thread::sleep(IDLE);
    Ok((usage(pid)?.cpu - before).as_secs_f64() / IDLE.as_secs_f64())
}
