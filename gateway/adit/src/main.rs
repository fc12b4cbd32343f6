//! `adit`: the gateway's one binary.
//!
//! | command | does |
//! |---|---|
//! | `adit run` | the whole gateway: data plane and control |
//! | `adit dataplane`, `adit control` | one of the two alone; they meet in the maps under `--bpf-dir` |
//! | `adit gateway`, `adit peer`, `adit tunnel`, `adit group`, `adit alarm` with `list`, `create`, `edit`, `delete` | what is configured, through the API |
//! | `adit status`, `adit tunnel`, `adit gateway log`, `adit token`, `adit reload`, `adit metrics` | ask a running gateway, or have it do something, through its API |
//! | `adit tunnel watch` | shows state and rates of tunnels as they are |
//! | `adit tunnel config`, `adit tunnel import` | write the configuration of the other side, read one of others |
//! | `adit check` | says what is wrong with a configuration file |
//! | `adit completion`, `adit man` | the completion of a shell, the manual |
//! | `adit unload` | takes the XDP program, its maps, the TUN device, routes and rules away |
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or wrong configuration, 3 no gateway answers, 4 it does not let us, 5 there is
//! no such thing.

mod capture;
mod cli;
mod diagnose;
mod document;
mod import;
mod log;
mod logging;
mod notify;
mod peer_config;
mod resources;
mod run;
mod screen;
mod table;
mod token;
mod watch;

use adit_api::{Client, ClientError};
use adit_control::{
    Action, Config, ConfigError, Rekey, kept, peer_config::Request, resource::Kind, routes, status::Status,
};
use adit_maps::user::{self as maps, Directory};
use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use cli::{AlarmCommand, Arguments, Command, GatewayCommand, TunnelCommand};
use logging::Logging;
use screen::Screen;
use serde_json::Value;
use std::{
    fmt,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

const FAILED: u8 = 1;
/// Exit code of a wrong configuration, the same that wrong usage has.
const WRONG_CONFIGURATION: u8 = 2;
/// Exit codes by what a gateway answers.
const NO_ANSWER: u8 = 3;
const NOT_ALLOWED: u8 = 4;
const NOT_THERE: u8 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let logging = Logging::begin(&arguments.log, arguments.log_format);
    // What a command has to say is for whoever has typed it.
    let logging = if arguments.command.is_service() { logging } else { Logging::Text };
    match execute(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let why = chain(&e);
            let in_text = if e.is::<ConfigError>() { e.to_string() } else { format!("adit: {why}") };
            logging.ends(&why, &in_text);
            ExitCode::from(code(&e))
        }
    }
}

/// The exit code of a failure.
fn code(error: &anyhow::Error) -> u8 {
    match (error.downcast_ref::<Fault>(), error.downcast_ref::<ClientError>()) {
        _ if error.is::<ConfigError>() => WRONG_CONFIGURATION,
        (Some(fault), _) => fault.code,
        (None, Some(refused)) => refusal(refused),
        (None, None) => FAILED,
    }
}

/// A failure whose exit code says more than that it failed.
#[derive(Debug)]
struct Fault {
    code: u8,
    words: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Fault {}

/// The command is used wrongly.
fn wrong_usage(words: impl Into<String>) -> anyhow::Error {
    Fault { code: WRONG_CONFIGURATION, words: words.into() }.into()
}

/// What is named does not exist.
fn not_there(words: impl Into<String>) -> anyhow::Error {
    Fault { code: NOT_THERE, words: words.into() }.into()
}

/// Nobody is there to be asked.
fn no_answer(words: impl Into<String>) -> anyhow::Error {
    Fault { code: NO_ANSWER, words: words.into() }.into()
}

fn refusal(error: &ClientError) -> u8 {
    match error {
        ClientError::Unreachable { .. } => NO_ANSWER,
        ClientError::Place(_) => WRONG_CONFIGURATION,
        ClientError::Refused(problem) => match problem.status {
            401 | 403 | 429 => NOT_ALLOWED,
            404 => NOT_THERE,
            // What was given cannot be, whatever the gateway does.
            400 | 413 | 422 => WRONG_CONFIGURATION,
            _ => FAILED,
        },
        _ => FAILED,
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
        Command::Unload { bpf_dir, check: true, .. } => match Directory::new(&bpf_dir).check() {
            Ok(()) => print(&format!("this version goes on with the maps in {}", bpf_dir.display())),
            Err(maps::Error::Absent(_)) => print(&format!("no maps are in {}", bpf_dir.display())),
            Err(e) => Err(e.into()),
        },
        Command::Unload { bpf_dir, state_dir, check: false } => unload(&bpf_dir, state_dir.as_ref()),
        Command::Status { access, shown, json } => {
            let shown = if json { shown.for_programs() } else { shown };
            let table = |status: &Status| match Screen::of_stdout().filter(|_| shown.goes_to_stdout()) {
                Some(screen) => table::status_on(status, SystemTime::now(), screen),
                None => table::status(status, SystemTime::now()),
            };
            shown.show_one(
                "tunnels",
                || ask(access, Client::status),
                |status| listed(status, "tunnels"),
                table,
            )
        }
        Command::Metrics { access } => print(ask(access, Client::metrics)?.trim_end()),
        Command::Reload { access } => {
            let done = ask(access, Client::reload)?;
            done.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
            if let Some(note) = &done.note {
                print(note)?;
            }
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
        Command::Gateway { command: GatewayCommand::Log { log } } => log::run(None, log),
        Command::Gateway { command: GatewayCommand::Resource(command) } => {
            resources::run(Kind::Gateway, command)
        }
        Command::Peer { command } => resources::run(Kind::Peer, command),
        Command::Group { command } => resources::run(Kind::Group, command),
        Command::Alarm { command: AlarmCommand::Resource(command) } => resources::run(Kind::Alarm, command),
        Command::Alarm { command: AlarmCommand::Rules { out, access } } => {
            resources::give(ask(access, Client::alarm_rules)?.as_bytes(), out.as_deref())
        }
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
        TunnelCommand::Log { name, log } => return log::run(Some(&name), log),
        TunnelCommand::Show { name, access, shown } => {
            let tunnel = || ask(access, async |client| client.tunnel(&name).await);
            let row = |tunnel: &Value| vec![tunnel.clone()];
            return shown.show_one("tunnels", tunnel, row, |tunnel| table::tunnel(tunnel, SystemTime::now()));
        }
        TunnelCommand::Diagnose { name, access, shown } => {
            let diagnosis = || ask(access, async |client| client.diagnose(&name).await);
            let findings = |diagnosis: &Value| listed(diagnosis, "findings");
            return shown.show_one("findings", diagnosis, findings, diagnose::text);
        }
        TunnelCommand::Capture { name, inner, outer, both: _, write, keys, access } => {
            let sides: &[&str] = match (inner, outer) {
                (true, _) => &["inner"],
                (_, true) => &["outer"],
                _ => &["inner", "outer"],
            };
            let Client::Local(socket) = access.client()? else {
                return Err(wrong_usage("a capture is taken on the machine of the gateway"));
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

/// What something lists.
fn listed(value: &Value, field: &str) -> Vec<Value> {
    value[field].as_array().cloned().unwrap_or_default()
}

/// Takes everything of a gateway away that stays when its processes end. Neither of them may run.
fn unload(bpf_dir: &Path, state_dir: Option<&PathBuf>) -> anyhow::Result<()> {
    let state_dir = cli::state_dir(state_dir, bpf_dir);
    let of_state = || state_dir.display().to_string();
    if kept::is_in_use(&state_dir).with_context(of_state)? {
        bail!("control runs, and keeps SAs in {}: stop it first", state_dir.display());
    }
    adit_dataplane::unload(bpf_dir, adit_dataplane::DEFAULT_TUN)?;
    // Last of all: until then they keep what is protected from leaving in clear.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let removed = runtime.block_on(routes::remove()).map_err(anyhow::Error::msg);
    kept::clear(&state_dir).with_context(of_state)?;
    removed?;
    print(&format!("nothing of Adit is left in {}, on an interface or among the routes", bpf_dir.display()))
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
    if !config.names_resources() {
        let words = "names no resource: its [api] counts, and what is stored stays as it is";
        return print(&format!("{}: {words}", file.display()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use adit_api::Problem;

    #[test]
    fn a_failure_has_the_code_that_the_manual_says() {
        let of = |words: &[&str]| {
            let words = ["adit"].iter().chain(words);
            code(&execute(Arguments::parse_from(words).command).unwrap_err())
        };
        assert_eq!(of(&["tunnel", "create", "x", "foo"]), 2);
        assert_eq!(of(&["tunnel", "edit", "x"]), 2);
        assert_eq!(of(&["status", "--url", "ftp://x", "--token-file", "/dev/null"]), 2);
        assert_eq!(of(&["tunnel", "capture", "x", "-w", "/dev/null", "--socket", "/nonexistent"]), 3);
        let check = Arguments::parse_from(["adit", "check", "--config", "/dev/null"]).command;
        execute(check).expect("a file that names no resource is all right");
        let good = concat!(env!("CARGO_MANIFEST_DIR"), "/../control/src/config/tests/good.toml");
        assert_eq!(of(&["tunnel", "config", "none", "--for", "adit", "--config", good]), 5);
        for (status, wanted) in
            [(400, 2), (401, 4), (404, 5), (409, 1), (412, 1), (422, 2), (429, 4), (500, 1)]
        {
            let problem =
                serde_json::json!({"type": "about:blank", "title": "", "status": status, "detail": ""});
            let problem: Problem = serde_json::from_value(problem).unwrap();
            assert_eq!(code(&ClientError::Refused(Box::new(problem)).into()), wanted, "{status}");
        }
    }
}
