//! `adit tunnel log`: what happened to a tunnel, and what happens.

use crate::{
    cli::{Access, Format},
    print, table,
};
use adit_api::Client;
use adit_control::status::{Event, LogEntry};
use anyhow::bail;

/// Writes the connection log of a tunnel to stdout, and goes on with it if it is to be followed.
pub(crate) fn run(name: &str, follow: bool, output: Format, access: Access) -> anyhow::Result<()> {
    let client = access.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(show(&client, name, follow, output))
}

async fn show(client: &Client, name: &str, follow: bool, output: Format) -> anyhow::Result<()> {
    let mut next = 0;
    let mut show = |entry: &LogEntry| {
        if entry.number < next {
            return Ok(());
        }
        next = entry.number + 1;
        print(&match output {
            Format::Json => serde_json::to_string(entry)?,
            Format::Table => format!("{}  {}", table::utc(entry.at), entry.text),
        })
    };
    loop {
        // Before the log is read: what comes between the two is in both, rather than in none.
        let events = if follow { Some(client.events(Some(name)).await?) } else { None };
        client.log(name).await?.iter().try_for_each(&mut show)?;
        let Some(mut events) = events else { return Ok(()) };
        while let Some(event) = events.next().await? {
            match event {
                Event::Log { entry, .. } => show(&entry)?,
                Event::Removed { .. } => bail!("tunnel {name:?} is no longer configured"),
                Event::State { .. } => {}
                // The log still has them.
                Event::Lost { .. } => break,
            }
        }
    }
}
