//! Honest traffic: pings and TCP streams, with their figures.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::namespace::{Namespace, wait_for};

/// What came of a ping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ping {
    /// Echo requests sent.
    pub sent: u32,
    /// Echo replies received.
    pub received: u32,
    /// Mean round trip in milliseconds; `None` when nothing came back.
    pub average_ms: Option<f64>,
}

impl Ping {
    /// # Errors
    /// A reply is missing.
    pub fn expect_all(self) -> Result<Ping> {
        if self.received < self.sent {
            bail!("{} of {} pings got no answer", self.sent - self.received, self.sent);
        }
        Ok(self)
    }
}

/// Sends `count` echo requests of `size` bytes of data to `destination`, 100 ms apart, and waits up to 1 s for the last reply.
///
/// # Errors
/// `ping` cannot be started, or says something that is not understood.
pub fn ping(from: &Namespace, destination: impl Into<IpAddr>, count: u32, size: u32) -> Result<Ping> {
    let destination = destination.into();
    let output = from
        .command("ping")
        .args(["-n", "-q", "-W", "1", "-i", "0.1", "-c", &count.to_string(), "-s", &size.to_string()])
        .arg(destination.to_string())
        .output()
        .context("`ping` could not be started; `cargo xtask setup` installs it")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_ping(&text).with_context(|| format!("ping says: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Pings until a reply comes.
///
/// # Errors
/// None came for as long as `limit`.
pub fn ping_until_answered(from: &Namespace, destination: impl Into<IpAddr>, limit: Duration) -> Result<()> {
    let destination = destination.into();
    let what = format!("an answer of {destination} to a ping from {}", from.host());
    wait_for(&what, limit, || Ok(ping(from, destination, 1, 56)?.received > 0))
}

/// One TCP stream from `client` to `server` for some seconds; the rate in Mbit/s that the server received.
///
/// # Errors
/// iperf3 failed: with its words.
pub fn tcp_stream(
    client: &Namespace,
    server: &Namespace,
    address: impl Into<IpAddr>,
    seconds: u32,
) -> Result<f64> {
    let address = address.into();
    let mut command = server.command("iperf3");
    command.args(["--server", "--one-off", "--forceflush", "--bind", &address.to_string()]);
    let mut listener = server.spawn("iperf3", &mut command)?;
    let begun = listener.log().matches("Server listening").count();
    wait_for("the iperf3 server", Duration::from_secs(5), || {
        if listener.ended().is_some() {
            bail!("iperf3's server ended at once:\n{}", listener.log_tail(5));
        }
        Ok(listener.log().matches("Server listening").count() > begun || listens(server)?)
    })?;
    let output = client
        .command("iperf3")
        .args(["--json", "--connect-timeout", "5000", "--time", &seconds.to_string(), "--client"])
        .arg(address.to_string())
        .output()
        .context("`iperf3` could not be started; `cargo xtask setup` installs it")?;
    parse_iperf(&output.stdout).with_context(|| format!("a TCP stream from {} to {address}", client.host()))
}

fn listens(server: &Namespace) -> Result<bool> {
    Ok(server.run("ss", &["-Hltn", "sport", "=", ":5201"])?.contains(":5201"))
}

fn parse_ping(text: &str) -> Option<Ping> {
    let counts = text.lines().find(|line| line.contains("packets transmitted"))?;
    let number =
        |part: &str| counts.split(", ").find(|field| field.contains(part))?.split(' ').next()?.parse().ok();
    let average = text.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
    let average_ms = average.and_then(|line| line.split('/').nth(1)?.parse().ok());
    Some(Ping { sent: number("transmitted")?, received: number("received")?, average_ms })
}

fn parse_iperf(json: &[u8]) -> Result<f64> {
    let report: serde_json::Value = serde_json::from_slice(json).context("iperf3 wrote no JSON")?;
    if let Some(error) = report.get("error").and_then(|error| error.as_str()) {
        bail!("iperf3 says: {error}");
    }
    let rate = report.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
    Ok(rate.context("iperf3's report has no rate")? / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_figures_are_read() {
        let text = "PING 10.2.0.2 (10.2.0.2) 56(84) bytes of data.\n\n--- 10.2.0.2 ping statistics ---\n\
                    5 packets transmitted, 4 received, 20% packet loss, time 403ms\n\
                    rtt min/avg/max/mdev = 0.050/0.123/0.210/0.052 ms\n";
        assert_eq!(parse_ping(text), Some(Ping { sent: 5, received: 4, average_ms: Some(0.123) }));
    }

    #[test]
    fn a_ping_without_answers_has_no_round_trip() {
        let text = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2042ms\npipe 3\n";
        let ping = parse_ping(text).unwrap();
        assert_eq!(ping, Ping { sent: 3, received: 0, average_ms: None });
        assert!(ping.expect_all().is_err());
        assert_eq!(parse_ping("ping: connect: Network is unreachable"), None);
    }

    #[test]
    fn the_received_rate_is_read_from_iperf() {
        let json =
            br#"{"end": {"sum_sent": {"bits_per_second": 2e9}, "sum_received": {"bits_per_second": 1.5e9}}}"#;
        assert_eq!(parse_iperf(json).unwrap(), 1500.0);
        let error = parse_iperf(br#"{"error": "unable to connect"}"#).unwrap_err();
        assert!(error.to_string().contains("unable to connect"));
        assert!(parse_iperf(b"").is_err());
    }
}
