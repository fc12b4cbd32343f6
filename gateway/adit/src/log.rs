//! `adit tunnel log`, `adit gateway log`: what happened, and what happens.

use crate::{
    cli::{self, Format},
    print, table,
};
use adit_api::{Client, ClientError};
use adit_control::status::{Event, LogEntry};
use anyhow::bail;

/// Writes the connection log of a tunnel, or without one the gateway's own, to stdout, and goes on with it if it is to be
/// followed.
pub(crate) fn run(tunnel: Option<&str>, log: cli::LogView) -> anyhow::Result<()> {
    let client = log.access.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut shown = Shown { next: 0, output: log.output };
    runtime.block_on(show(&client, tunnel, log.follow, log.last, &mut shown))
}

async fn show(
    client: &Client,
    tunnel: Option<&str>,
    follow: bool,
    last: Option<usize>,
    shown: &mut Shown,
) -> anyhow::Result<()> {
    let mut is_first = true;
    let mut tunnel = tunnel.map(str::to_owned);
    loop {
        // Before the log is read: what comes between the two is in both, rather than in none.
        let events = match (follow, &tunnel) {
            (false, _) => None,
            (true, Some(name)) => Some(client.events(Some(name)).await?),
            (true, None) => Some(client.gateway_events().await?),
        };
        let entries = kept(client, tunnel.as_deref()).await?;
        match last.filter(|_| is_first) {
            Some(last) => shown.begin_with(&entries, last)?,
            None => shown.go_on_with(&entries, is_first)?,
        }
        is_first = false;
        let Some(mut events) = events else { return Ok(()) };
        while let Some(event) = events.next().await? {
            match event {
                Event::Log { entry, .. } | Event::Gateway { entry } => shown.entry(&entry)?,
                Event::Renamed { to, .. } => tunnel = Some(to),
                Event::Removed { tunnel } => bail!("tunnel {tunnel:?} is no longer configured"),
                Event::State { .. } => {}
                // The log still has them, or most.
                Event::Lost { .. } => break,
            }
        }
    }
}

async fn kept(client: &Client, tunnel: Option<&str>) -> Result<Vec<LogEntry>, ClientError> {
    match tunnel {
        Some(name) => client.log(name).await,
        None => client.gateway_log().await,
    }
}

/// What has been shown.
struct Shown {
    /// The number of the entry that comes next.
    next: u64,
    output: Format,
}

impl Shown {
    /// Shows the last so many, and lets the others be.
    fn begin_with(&mut self, entries: &[LogEntry], last: usize) -> anyhow::Result<()> {
        let skipped = entries.len().saturating_sub(last);
        self.next = entries.last().map_or(0, |entry| entry.number + 1);
        entries[skipped..].iter().try_for_each(|entry| self.write(entry))
    }

    /// Shows those that are new, and tells of those that are gone before they were.
    fn go_on_with(&mut self, entries: &[LogEntry], is_first: bool) -> anyhow::Result<()> {
        if entries.last().is_none_or(|entry| entry.number + 1 < self.next) {
            // Another control has begun to count anew.
            self.next = 0;
        } else if let Some(first) = entries.first().filter(|first| !is_first && first.number > self.next) {
            eprintln!("adit: {} events were too many to be told", first.number - self.next);
        }
        entries.iter().try_for_each(|entry| self.entry(entry))
    }

    fn entry(&mut self, entry: &LogEntry) -> anyhow::Result<()> {
        if entry.number < self.next {
            return Ok(());
        }
        self.next = entry.number + 1;
        self.write(entry)
    }

    fn write(&self, entry: &LogEntry) -> anyhow::Result<()> {
        print(&match self.output {
            Format::Json => serde_json::to_string(entry)?,
            Format::Table => format!("{}  {}", table::utc(entry.at), entry.text),
        })
    }
}
