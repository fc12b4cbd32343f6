//! Scraping and reading `/metrics`: the Prometheus text format.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Everything one scrape said.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Sample>);

impl Metrics {
    /// Fetches `/metrics` from inside a namespace.
    ///
    /// # Errors
    /// Nobody listens, the answer is not 200, or a line is not in the format.
    pub fn scrape(namespace: &Namespace, address: SocketAddr) -> Result<Metrics> {
        let answer = namespace.inside(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.with_context(|| format!("failed to scrape http://{address}/metrics"))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("http://{address}/metrics answers {:?}", head.lines().next().unwrap_or_default());
        }
        Metrics::parse(body)
    }

    /// Reads the text format.
    ///
    /// # Errors
    /// A line is not in it: the line is shown.
    pub fn parse(text: &str) -> Result<Metrics> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| parse_line(line).with_context(|| format!("not a metric: {line:?}")));
        samples.collect::<Result<_>>().map(Metrics)
    }

    /// Every sample.
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The sum of all samples of this name whose labels have these values; `None` when there is no such sample.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            let has = |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|own| own == value);
            sample.name == name && labels.iter().all(has)
        };
        let mut found = self.0.iter().filter(fits).map(|sample| sample.value).peekable();
        found.peek().is_some().then(|| found.sum())
    }

    /// Like [`Metrics::get`].
    ///
    /// # Errors
    /// There is no such sample: the names that there are are shown.
    pub fn expect(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        self.get(name, labels).with_context(|| {
            let mut names: Vec<&str> = self.0.iter().map(|sample| sample.name.as_str()).collect();
            names.dedup();
            format!("/metrics has no {name} with {labels:?}; it has {}", names.join(", "))
        })
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(key.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        _ => value.parse().ok()?,
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, unescaped, and what follows the quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP in_bytes Bytes.\n# TYPE in_bytes counter\nin_bytes{tunnel=\"a-b\",why=\"x\"} 12\n\
                        in_bytes{tunnel=\"a-b\",why=\"y,}\\\"\"} 3 1700000000\nup 1\nlimit +Inf\n";

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(TEXT).unwrap();
        assert_eq!(metrics.get("in_bytes", &[("why", "x")]), Some(12.0));
        assert_eq!(metrics.get("in_bytes", &[("why", "y,}\"")]), Some(3.0));
        assert_eq!(metrics.get("in_bytes", &[("tunnel", "a-b")]), Some(15.0));
        assert_eq!(metrics.get("up", &[]), Some(1.0));
        assert_eq!(metrics.get("limit", &[]), Some(f64::INFINITY));
        assert_eq!(metrics.get("in_bytes", &[("tunnel", "b")]), None);
    }

    #[test]
    fn what_is_missing_is_told_with_what_is_there() {
        let error = Metrics::parse(TEXT).unwrap().expect("out_bytes", &[]).unwrap_err().to_string();
        assert!(error.contains("out_bytes") && error.contains("in_bytes"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_metric_is_shown() {
        let error = Metrics::parse("up 1\nbroken{a=\"b} 2\n").unwrap_err();
        assert!(format!("{error:#}").contains("broken"), "{error:#}");
    }
}
