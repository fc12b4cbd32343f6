//! `adit`: the gateway's one binary.
//!
//! | command | does |
//! |---|---|
//! | `adit run` | the whole gateway: data plane and control |
//! | `adit dataplane`, `adit control` | one of the two alone; they meet in the maps under `--bpf-dir` |
//! | `adit gateway`, `adit peer`, `adit tunnel`, `adit group` with `list`, `create`, `edit`, `delete` | what is configured, through the API |
//! | `adit status`, `adit tunnel`, `adit token`, `adit reload`, `adit metrics` | ask a running gateway, or have it do something, through its API |
//! | `adit tunnel watch` | shows state and rates of tunnels as they are |
//! | `adit tunnel config`, `adit tunnel import` | write the configuration of the other side, read one of others |
//! | `adit check` | says what is wrong with a configuration file |
//! | `adit completion`, `adit man` | the completion of a shell, the manual |
//! | `adit unload` | takes the XDP program, its maps and the TUN device away |
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or wrong configuration, 3 no gateway answers, 4 it does not let us, 5 there is
//! no such thing.

mod capture;
mod cli;
mod diagnose;
mod document;
mod import;
mod log;
mod notify;
mod peer_config;
mod resources;
mod run;
mod screen;
mod table;
mod token;
mod watch;

use adit_api::{Client, ClientError};
use adit_control::{Action, Config, ConfigError, Rekey, peer_config::Request, resource::Kind};
use anyhow::Context;
use clap::{CommandFactory, Parser};
use cli::{Arguments, Command, Format, TunnelCommand};
use screen::Screen;
use std::{
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::SystemTime,
};

/// Exit code of a wrong configuration, the same that wrong usage has.
const WRONG_CONFIGURATION: u8 = 2;
/// Exit codes by what a gateway answers.
const NO_ANSWER: u8 = 3;
const NOT_ALLOWED: u8 = 4;
const NOT_THERE: u8 = 5;

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
            e.downcast_ref::<ClientError>().map_or(ExitCode::FAILURE, refusal)
        }
    }
}

fn refusal(error: &ClientError) -> ExitCode {
    match error {
        ClientError::Unreachable { .. } => ExitCode::from(NO_ANSWER),
        ClientError::Refused(problem) => match problem.status {
            401 | 403 | 429 => ExitCode::from(NOT_ALLOWED),
            404 => ExitCode::from(NOT_THERE),
            _ => ExitCode::FAILURE,
        },
        _ => ExitCode::FAILURE,
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
        Command::Status { access, output, json } => {
            let output = if json { Format::Json } else { output };
            let status = ask(access, Client::status)?;
            print(&match output {
                Format::Json => serde_json::to_string_pretty(&status)?,
                Format::Table => match Screen::of_stdout() {
                    Some(screen) => table::status_on(&status, SystemTime::now(), screen),
                    None => table::status(&status, SystemTime::now()),
                },
            })
        }
        Command::Metrics { access } => print(ask(access, Client::metrics)?.trim_end()),
        Command::Reload { access } => {
            let done = ask(access, Client::reload)?;
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
        Command::Apply { file, dry_run, prune, yes, access } => {
            document::apply(&file, (dry_run, prune, yes), access)
        }
        Command::Export { with_psk, access } => document::export(with_psk, access),
        Command::Gateway { command } => resources::run(Kind::Gateway, command),
        Command::Peer { command } => resources::run(Kind::Peer, command),
        Command::Group { command } => resources::run(Kind::Group, command),
        Command::Tunnel { command } => tunnel(command),
        Command::Token { command } => token::run(command),
        Command::Completion { shell } => {
            // It panics where its output cannot be written, as into a pipe that nobody reads.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "adit", &mut text);
            print(String::from_utf8_lossy(&text).trim_end())
        }
        Command::Man { directory } => manual(&directory),
    }
}

fn tunnel(command: TunnelCommand) -> anyhow::Result<()> {
    let (name, access, action) = match command {
        TunnelCommand::Settings(one) => return resources::show(Kind::Tunnel, one),
        TunnelCommand::Resource(verb) => return resources::act(Kind::Tunnel, verb),
        TunnelCommand::Log { name, follow, output, access } => {
            return log::run(&name, follow, output, access);
        }
        TunnelCommand::Show { name, access, output } => {
            let tunnel = ask(access, async |client| client.tunnel(&name).await)?;
            return print(&match output {
                Format::Json => serde_json::to_string_pretty(&tunnel)?,
                Format::Table => table::tunnel(&tunnel, SystemTime::now()),
            });
        }
        TunnelCommand::Diagnose { name, access, output } => {
            let diagnosis = ask(access, async |client| client.diagnose(&name).await)?;
            return print(&match output {
                Format::Json => serde_json::to_string_pretty(&diagnosis)?,
                Format::Table => diagnose::text(&diagnosis),
            });
        }
        TunnelCommand::Capture { name, inner, outer, both: _, write, keys, access } => {
            let sides: &[&str] = match (inner, outer) {
                (true, _) => &["inner"],
                (_, true) => &["outer"],
                _ => &["inner", "outer"],
            };
            let Client::Local(socket) = access.client()? else {
                anyhow::bail!("a capture is taken on the machine of the gateway");
            };
            return capture::run(&name, sides, write.as_deref(), keys.as_deref(), &socket);
        }
        TunnelCommand::Config { name, vendor, with_psk, address, write, config, access } => {
            let request = Request { vendor, with_psk, address };
            return peer_config::run(&name, request, write.as_deref(), config.as_deref(), access);
        }
        TunnelCommand::Import { from, file, secrets, remote_subnets, into } => {
            return import::run(from, &file, secrets.as_deref(), &remote_subnets, into.as_deref());
        }
        TunnelCommand::Watch(options) => return watch::run(options),
        TunnelCommand::Up { name, access } => (name, access, Action::Up),
        TunnelCommand::Down { name, access } => (name, access, Action::Down),
        TunnelCommand::Rekey { name, ike, child, access } => {
            let what = match (ike, child) {
                (true, _) => Rekey::Ike,
                (_, true) => Rekey::Child,
                _ => Rekey::All,
            };
            (name, access, Action::Rekey(what))
        }
    };
    print(&ask(access, async |client| client.act(&name, action).await)?)
}

/// Writes a page of the manual for each command, and says how many.
fn manual(directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    clap_mangen::generate_to(Arguments::command(), directory)
        .with_context(|| directory.display().to_string())?;
    print(&format!("{}: `man -l {}`", directory.display(), directory.join("adit.1").display()))
}

fn check(file: &Path) -> anyhow::Result<()> {
    let config = Config::check(file)?;
    for line in config.warnings_for(file).lines() {
        eprintln!("warning: {line}");
    }
    let count = config.tunnels.len();
    let tunnels = if count == 1 { "tunnel" } else { "tunnels" };
    print(&format!("{}: gateway {:?}, {count} {tunnels}", file.display(), config.gateway.name))
}

/// Asks a gateway.
fn ask<T>(
    access: cli::Access,
    question: impl AsyncFnOnce(&Client) -> Result<T, ClientError>,
) -> anyhow::Result<T> {
    let client = access.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(question(&client))?)
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
