//! `adit tunnel watch`: state and rates of tunnels as they are now, and what happens to them.

mod view;

use crate::{
    cli::Watch,
    table::{bytes, utc},
};
use adit_api::{Client, ClientError, Events};
use adit_control::status::{Event, State, Status, Timestamp, Traffic};
use anyhow::bail;
use crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::DefaultTerminal;
use serde::Serialize;
use std::{
    collections::{HashMap, VecDeque},
    io::{ErrorKind, IsTerminal, Write},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

/// Things that happened, of which a screen shows the last.
const HAPPENED: usize = 100;

/// Octets in and out, by tunnel.
type Counters = HashMap<String, (u64, u64)>;

/// What is known of the tunnels.
#[derive(Debug, Default)]
struct Known {
    /// One tunnel alone.
    only: Option<String>,
    gateway: String,
    rows: Vec<Row>,
    sort: Sort,
    /// What the counters were, and when.
    before: Option<(Instant, Counters)>,
    happened: VecDeque<String>,
    /// Why the gateway was not asked the last time.
    failed: Option<String>,
}

/// A tunnel as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    at: Timestamp,
    tunnel: String,
    state: State,
    since: Timestamp,
    peer: String,
    /// Bits per second that came in since the last look; none at the first.
    inbound_bits: Option<u64>,
    /// Bits per second that went out.
    outbound_bits: Option<u64>,
    inbound: Traffic,
    outbound: Traffic,
    /// What went wrong last.
    error: Option<String>,
}

/// What the tunnels are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    /// By name.
    #[default]
    Name,
    /// Those that are not connected first.
    State,
    /// By what comes in, the most first.
    In,
    /// By what goes out, the most first.
    Out,
}

/// Watches until it is told to end.
pub(crate) fn run(options: Watch) -> anyhow::Result<()> {
    let Watch { name, json, interval, count, access } = options;
    let client = access.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let known = Known { only: name, ..Known::default() };
    let every = Duration::from_secs(interval);
    if json || !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
        return runtime.block_on(lines(&client, known, every, count, json));
    }
    runtime.block_on(async {
        let mut known = known;
        // What is wrong from the beginning is told on a screen that stays.
        known.look(&client).await?;
        let terminal = ratatui::try_init()?;
        let ended = on_screen(&client, known, every, terminal).await;
        ratatui::try_restore()?;
        ended
    })
}

/// Writes a line a tunnel and look.
async fn lines(
    client: &Client,
    mut known: Known,
    every: Duration,
    count: Option<u64>,
    json: bool,
) -> anyhow::Result<()> {
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        looks.tick().await;
        left -= 1;
        known.look(client).await?;
        let mut text = String::new();
        for row in &known.rows {
            text += &match json {
                true => serde_json::to_string(row)?,
                false => row.line(),
            };
            text.push('\n');
        }
        let mut out = std::io::stdout();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // A reader that went away has read what it wanted.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}

/// Draws until somebody ends it.
async fn on_screen(
    client: &Client,
    mut known: Known,
    every: Duration,
    mut terminal: DefaultTerminal,
) -> anyhow::Result<()> {
    let mut inputs = inputs();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut events: Option<Events> = None;
    let mut offset = 0;
    loop {
        let height = terminal.draw(|frame| view::draw(frame, &known, &mut offset))?.area.height.into();
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            input = inputs.recv() => match input {
                Some(Input::Key(key)) if key.kind != KeyEventKind::Release => match pressed(key, offset, height) {
                    Pressed::End => return Ok(()),
                    Pressed::To(place) => offset = place,
                    Pressed::By(sort) => known.sort_by(sort),
                    Pressed::Nothing => {}
                },
                Some(_) => {}
                // Nobody can end it any more.
                None => bail!("the terminal is gone"),
            },
            _ = looks.tick() => {
                if events.is_none() {
                    events = client.events(known.only.as_deref()).await.ok();
                }
                known.try_to_look(client).await;
            }
            event = next(&mut events) => {
                match event {
                    Some(event) => known.note(&event, now()),
                    // The next look asks for others.
                    None => events = None,
                }
                known.try_to_look(client).await;
            }
        }
    }
}

/// What is pressed, from a thread that ends with the process: nothing else can wait for a key.
fn inputs() -> mpsc::Receiver<Input> {
    let (sender, inputs) = mpsc::channel(16);
    thread::spawn(move || {
        while let Ok(input) = event::read() {
            if sender.blocking_send(input).is_err() {
                return;
            }
        }
    });
    inputs
}

async fn next(events: &mut Option<Events>) -> Option<Event> {
    match events {
        Some(events) => events.next().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Pressed {
    End,
    /// That this row is the first.
    To(usize),
    By(Sort),
    Nothing,
}

fn pressed(key: KeyEvent, offset: usize, height: usize) -> Pressed {
    let page = (height / 2).max(1);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Pressed::End,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Pressed::End,
        KeyCode::Up | KeyCode::Char('k') => Pressed::To(offset.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => Pressed::To(offset + 1),
        KeyCode::PageUp => Pressed::To(offset.saturating_sub(page)),
        KeyCode::PageDown | KeyCode::Char(' ') => Pressed::To(offset + page),
        KeyCode::Home | KeyCode::Char('g') => Pressed::To(0),
        // The last row that there can be; drawing knows which that is.
        KeyCode::End | KeyCode::Char('G') => Pressed::To(usize::MAX),
        KeyCode::Char('n') => Pressed::By(Sort::Name),
        KeyCode::Char('s') => Pressed::By(Sort::State),
        KeyCode::Char('i') => Pressed::By(Sort::In),
        KeyCode::Char('o') => Pressed::By(Sort::Out),
        _ => Pressed::Nothing,
    }
}

fn now() -> Timestamp {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Known {
    /// Asks the gateway.
    async fn look(&mut self, client: &Client) -> anyhow::Result<()> {
        let status = client.status().await?;
        self.take(&status, Instant::now(), now());
        match &self.only {
            // The gateway says it in its own words, and the exit code follows from them.
            Some(name) if self.rows.is_empty() => Err(client.tunnel(name).await.err().map_or_else(
                || anyhow::anyhow!("tunnel {name:?} came this moment: ask again"),
                ClientError::into,
            )),
            _ => Ok(()),
        }
    }

    /// Asks it while the screen stays: what is known stays too where it does not answer.
    async fn try_to_look(&mut self, client: &Client) {
        self.failed = self.look(client).await.err().map(|e| format!("{e:#}"));
    }

    /// What a status says, taken at this moment.
    fn take(&mut self, status: &Status, at: Instant, time: Timestamp) {
        let before = self.before.take();
        let rate = |name: &str, now: u64, which: fn(&(u64, u64)) -> u64| {
            let (then, counters) = before.as_ref()?;
            let known = which(counters.get(name)?);
            let seconds = at.saturating_duration_since(*then).as_secs_f64();
            // Looks that an event asked for may be too near each other to say anything.
            (seconds >= 0.1).then(|| (now.saturating_sub(known) as f64 * 8.0 / seconds) as u64)
        };
        let is_wanted = |name: &String| self.only.as_ref().is_none_or(|only| only == name);
        let tunnels = status.tunnels.iter().filter(|t| is_wanted(&t.name));
        let rows: Vec<Row> = tunnels
            .map(|t| {
                let last = self.rows.iter().find(|row| row.tunnel == t.name);
                let inbound = rate(&t.name, t.inbound.bytes, |(inbound, _)| *inbound);
                let outbound = rate(&t.name, t.outbound.bytes, |(_, outbound)| *outbound);
                Row {
                    at: time,
                    tunnel: t.name.clone(),
                    state: t.state,
                    since: t.since,
                    peer: t.remote.map_or(t.peer_address.clone(), |ip| ip.to_string()),
                    inbound_bits: inbound.or(last.and_then(|row| row.inbound_bits)),
                    outbound_bits: outbound.or(last.and_then(|row| row.outbound_bits)),
                    inbound: t.inbound,
                    outbound: t.outbound,
                    error: t.last_error.as_ref().map(|error| error.cause.clone()),
                }
            })
            .collect();
        let is_near =
            before.as_ref().is_some_and(|(then, _)| at.saturating_duration_since(*then).as_secs_f64() < 0.1);
        self.before = match before {
            Some(before) if is_near => Some(before),
            _ => {
                let counters = rows.iter().map(|r| (r.tunnel.clone(), (r.inbound.bytes, r.outbound.bytes)));
                Some((at, counters.collect()))
            }
        };
        self.rows = rows;
        self.gateway.clone_from(&status.gateway.name);
        self.sort_by(self.sort);
    }

    fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.rows.sort_by(|a, b| {
            let by = match sort {
                Sort::Name => std::cmp::Ordering::Equal,
                Sort::State => (a.state == State::Connected).cmp(&(b.state == State::Connected)),
                Sort::In => b.inbound_bits.cmp(&a.inbound_bits),
                Sort::Out => b.outbound_bits.cmp(&a.outbound_bits),
            };
            by.then_with(|| a.tunnel.cmp(&b.tunnel))
        });
    }

    /// Keeps what happened, for people.
    fn note(&mut self, event: &Event, time: Timestamp) {
        let line = match event {
            Event::Log { tunnel, entry } => format!("{}  {tunnel}: {}", utc(entry.at), entry.text),
            Event::Gateway { entry } => format!("{}  {}", utc(entry.at), entry.text),
            Event::Renamed { tunnel, to } => format!("{}  {tunnel}: is {to} now", utc(time)),
            Event::Removed { tunnel } => format!("{}  {tunnel}: no longer configured", utc(time)),
            Event::Lost { count } => format!("{}  {count} events were too many to be told", utc(time)),
            // The log says it in words.
            Event::State { .. } => return,
        };
        self.happened.push_back(line);
        if self.happened.len() > HAPPENED {
            self.happened.pop_front();
        }
    }
}

impl Row {
    fn line(&self) -> String {
        let error = self.error.as_ref().map_or(String::new(), |error| format!("  {error}"));
        format!(
            "{}  {}  {}  in {} ({})  out {} ({}){error}",
            utc(self.at),
            self.tunnel,
            self.state,
            rate(self.inbound_bits),
            bytes(self.inbound.bytes),
            rate(self.outbound_bits),
            bytes(self.outbound.bytes)
        )
    }
}

/// Bits per second in words.
fn rate(bits: Option<u64>) -> String {
    let Some(bits) = bits else { return "-".into() };
    let units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    let (mut value, mut unit) = (bits as f64, 0);
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bits} bit/s") } else { format!("{value:.1} {}", units[unit]) }
}
