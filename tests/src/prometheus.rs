//! A real Prometheus in a namespace.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::adit::METRICS;
use crate::namespace::{Namespace, Process, wait_for};
use crate::roots;

const PATIENCE: Duration = Duration::from_secs(30);
/// Where Prometheus answers, in the gateway's namespace.
const PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Why scenarios with it cannot run, if they cannot.
pub fn lacking() -> Option<&'static str> {
    roots::prometheus().is_none().then_some("Prometheus is not here; `cargo xtask test interop` tells why")
}

/// Starts Prometheus in a namespace, with its files in a directory and these files of rules, and waits until it has scraped.
///
/// # Errors
/// It is not here, or does not scrape: with its log.
pub fn start(namespace: &Namespace, directory: &Path, rules: &[&Path]) -> Result<Process> {
    let root = roots::prometheus().context("Prometheus is not here")?;
    let configuration = directory.join("prometheus.yml");
    fs::write(
        &configuration,
        format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: {rules:?}\nscrape_configs:\n\
             - job_name: adit\n  static_configs:\n  - targets: [\"{METRICS}\"]\n"
        ),
    )?;
    let mut command = namespace.command(&root.join("usr/bin/prometheus").to_string_lossy());
    command.arg(format!("--config.file={}", configuration.display()));
    command.arg(format!("--storage.tsdb.path={}", directory.join("prometheus").display()));
    command.arg(format!("--web.listen-address={PROMETHEUS}"));
    for pages in ["templates", "libraries"] {
        command.arg(format!("--web.console.{pages}={}", directory.display()));
    }
    let process = namespace.spawn("prometheus", &mut command)?;
    let scraped =
        wait_for("Prometheus to scrape", PATIENCE, || Ok(scrapes(namespace).unwrap_or_default() > 0.0));
    scraped.with_context(|| process.log_tail(20))?;
    Ok(process)
}

/// How many times the gateway has been scraped with success.
///
/// # Errors
/// As [`value`].
pub fn scrapes(namespace: &Namespace) -> Result<f64> {
    Ok(value(namespace, "sum(sum_over_time(up[10m]))")?.unwrap_or_default())
}

/// What an expression that yields one value yields now.
///
/// # Errors
/// Prometheus does not answer, or not with a number.
pub fn value(namespace: &Namespace, expression: &str) -> Result<Option<f64>> {
    let query: String = expression.bytes().map(|octet| format!("%{octet:02x}")).collect();
    let answer = namespace.inside(|| {
        let mut stream = TcpStream::connect_timeout(&PROMETHEUS, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /api/v1/query?query={query} HTTP/1.0\r\nHost: {PROMETHEUS}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let (_, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let answer: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
    ensure!(answer["status"] == "success", "{expression}: {answer}");
    let found = answer["data"]["result"][0]["value"][1].as_str();
    found.map(|figure| figure.parse().with_context(|| format!("not a number: {figure}"))).transpose()
}
