//! `adit`: the gateway's one binary.
//!
//! | command | does |
//! |---|---|
//! | `adit run` | the whole gateway: data plane and control |
//! | `adit dataplane`, `adit control` | one of the two alone; they meet in the maps under `--bpf-dir` |
//! | `adit status`, `adit tunnel`, `adit reload`, `adit metrics` | ask a running gateway, or have it do something, through its socket |
//! | `adit tunnel config`, `adit tunnel import` | write the configuration of the other side, read one of others |
//! | `adit check` | says what is wrong with a configuration file |
//! | `adit unload` | takes the XDP program, its maps and the TUN device away |
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or wrong configuration.

mod capture;
mod cli;
mod import;
mod peer_config;
mod run;
mod table;

use adit_api::Client;
use adit_control::{Action, Config, ConfigError, Rekey, peer_config::Request};
use anyhow::Context;
use clap::Parser;
use cli::{Arguments, Command, Format, TunnelCommand};
use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Exit code of a wrong configuration, the same that wrong usage has.
const WRONG_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr(&arguments.log);
    match execute(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.is::<ConfigError>() => {
            eprintln!("{e}");
            ExitCode::from(WRONG_CONFIGURATION)
        }
        Err(e) => {
            eprintln!("adit: {}", chain(&e));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, without those that the one before quotes.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(gateway) => run::gateway(&gateway, true, true),
        Command::Control(gateway) => run::gateway(&gateway, true, false),
        Command::Dataplane(gateway) => run::gateway(&gateway, false, true),
        Command::Check { config } => check(&config),
        Command::Unload { bpf_dir, state_dir } => {
            adit_dataplane::unload(&bpf_dir, adit_dataplane::DEFAULT_TUN)?;
            let state_dir = cli::state_dir(state_dir.as_ref(), &bpf_dir);
            adit_control::kept::clear(&state_dir).with_context(|| state_dir.display().to_string())?;
            print(&format!("nothing of Adit is left in {} or on an interface", bpf_dir.display()))
        }
        Command::Status { socket, output, json } => {
            let output = if json { Format::Json } else { output };
            let status = ask(async { Client::new(socket).status().await })?;
            print(&match output {
                Format::Json => serde_json::to_string_pretty(&status)?,
                Format::Table => table::status(&status, std::time::SystemTime::now()),
            })
        }
        Command::Metrics { socket } => {
            let text = ask(async { Client::new(socket).metrics().await })?;
            print(text.trim_end())
        }
        Command::Reload { socket } => {
            let done = ask(async { Client::new(socket).reload().await })?;
            done.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
            let list = |names: &[String]| if names.is_empty() { "none".into() } else { names.join(", ") };
            print(&format!(
                "added: {}\nchanged: {}\nremoved: {}\nunchanged: {}",
                list(&done.added),
                list(&done.changed),
                list(&done.removed),
                done.unchanged
            ))
        }
        Command::Tunnel { command } => tunnel(command),
    }
}

fn tunnel(command: TunnelCommand) -> anyhow::Result<()> {
    let (name, socket, action) = match command {
        TunnelCommand::Log { name, socket } => {
            let entries = ask(async { Client::new(socket).log(&name).await })?;
            let line = |e: &adit_control::status::LogEntry| format!("{}  {}", table::utc(e.at), e.text);
            return print(&entries.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        TunnelCommand::Show { name, socket, output } => {
            let status = ask(async { Client::new(socket).status().await })?;
            let Some(tunnel) = status.tunnels.iter().find(|t| t.name == name) else {
                anyhow::bail!("there is no tunnel {name:?}");
            };
            return print(&match output {
                Format::Json => serde_json::to_string_pretty(tunnel)?,
                Format::Table => table::tunnel(tunnel, std::time::SystemTime::now()),
            });
        }
        TunnelCommand::Capture { name, inner, outer, both: _, write, keys, socket } => {
            let sides: &[&str] = match (inner, outer) {
                (true, _) => &["inner"],
                (_, true) => &["outer"],
                _ => &["inner", "outer"],
            };
            let socket = PathBuf::from(socket);
            return capture::run(&name, sides, write.as_deref(), keys.as_deref(), &socket);
        }
        TunnelCommand::Config { name, vendor, with_psk, address, write, config, socket } => {
            let request = Request { vendor, with_psk, address };
            return peer_config::run(&name, request, write.as_deref(), config.as_deref(), socket.into());
        }
        TunnelCommand::Import { from, file, secrets, remote_subnets, into } => {
            return import::run(from, &file, secrets.as_deref(), &remote_subnets, into.as_deref());
        }
        TunnelCommand::Up { name, socket } => (name, socket, Action::Up),
        TunnelCommand::Down { name, socket } => (name, socket, Action::Down),
        TunnelCommand::Rekey { name, ike, child, socket } => {
            let what = match (ike, child) {
                (true, _) => Rekey::Ike,
                (_, true) => Rekey::Child,
                _ => Rekey::All,
            };
            (name, socket, Action::Rekey(what))
        }
    };
    print(&ask(async { Client::new(socket).act(&name, action).await })?)
}

fn check(file: &Path) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    for line in config.warnings_for(file).lines() {
        eprintln!("warning: {line}");
    }
    let count = config.tunnels.len();
    let tunnels = if count == 1 { "tunnel" } else { "tunnels" };
    print(&format!("{}: gateway {:?}, {count} {tunnels}", file.display(), config.gateway.name))
}

fn ask<T, E>(question: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(question)?)
}

/// Writes to stdout. A reader that went away (`| head`) has read what it wanted.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

fn log_to_stderr(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|e| {
        eprintln!("adit: the log filter {filter:?} is not understood ({e}); info it is");
        tracing_subscriber::EnvFilter::new("info")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
