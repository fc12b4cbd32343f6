//! The gateway's processes.

use crate::{cli, notify::Manager};
use adit_api::{Identity, Listen, Server, data_plane_socket};
use adit_control::{
    Config, Control, ControlError, Options, alarm,
    config::{Api, Gateway, Xdp},
    memory, own_document,
    store::{Adopted, Store, StoreError, gateway_of, nobody},
};
use adit_dataplane::{Backend, Dataplane, PortConfig, XdpMode};
use adit_maps::port::role;
use anyhow::Context;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::MissedTickBehavior,
};

/// How often the workers are looked after.
const LOOK: Duration = Duration::from_secs(1);
/// How long until a data plane that did not start is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs control, the data plane, or both, until a signal or until one of them cannot go on.
pub(crate) fn gateway(arguments: &cli::Gateway, control: bool, data_plane: bool) -> anyhow::Result<()> {
    memory::one_arena();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (config, stored, follows) = match control {
            true => stored(arguments).await.map(|(config, stored)| (config, Some(stored), false))?,
            false => looked_up(arguments).map(|(config, follows)| (config, None, follows))?,
        };
        let mut workers = data_plane.then(|| Workers::new(arguments, config.api.clone(), follows));
        if let Some(workers) = &mut workers {
            workers.follow(&config.gateway)?;
        }
        if !config.gateway.is_there() {
            tracing::info!("there is no gateway in {} yet", arguments.data_dir.display());
        }
        let result = match stored {
            Some(stored) => run_control(config, stored, arguments, workers.as_mut(), &mut signals).await,
            None => watch(workers.as_mut(), None, &mut signals).await,
        };
        let stopped = workers.map_or(Ok(()), |mut workers| workers.stop());
        // What stopped the data plane explains why control found it stopped.
        stopped.and(result)
    })
}

/// The store, and what the file has made of it, if there is one.
struct Stored {
    store: Store,
    adopted: Option<Adopted>,
}

/// What the store says, after it has been made what the file says, if there is one.
async fn stored(arguments: &cli::Gateway) -> anyhow::Result<(Config, Stored)> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let store = Store::open(&arguments.data_dir, credentials.as_deref())?;
    let mut adopted = None;
    if let Some(file) = &arguments.config {
        let done = store.adopt(own_document(file).await?, nobody()).await.map_err(|e| match e {
            StoreError::Document(e) => anyhow::Error::from(e),
            e => e.into(),
        })?;
        done.plan.warnings.iter().for_each(|line| tracing::warn!("{line}"));
        adopted = Some(done);
    }
    let api = adopted.as_ref().map_or_else(Api::default, |adopted| adopted.own.api.clone());
    let config = store.config(api.clone()).await?.unwrap_or_else(|| Config::of_no_resource(api));
    Ok((config, Stored { store, adopted }))
}

/// What a data plane alone has to know, and whether it is the database, which may change, that says what the gateway is.
fn looked_up(arguments: &cli::Gateway) -> anyhow::Result<(Config, bool)> {
    let mut api = Api::default();
    if let Some(file) = &arguments.config {
        let config = Config::check(file)?;
        if config.names_resources() {
            let Config { gateway, api, .. } = config;
            // With 10,000 tunnels that is 100 MiB, of which nothing is needed again.
            memory::give_back();
            return Ok((Config { gateway, ..Config::of_no_resource(api) }, false));
        }
        tracing::info!("{} is read: {}", file.display(), Adopted::NO_RESOURCE);
        api = config.api;
    }
    let gateway = gateway_of(&arguments.data_dir)?.unwrap_or_else(Gateway::none);
    Ok((Config { gateway, ..Config::of_no_resource(api) }, true))
}

/// The data plane of this process, as long as there is a gateway to have one.
struct Workers<'a> {
    arguments: &'a cli::Gateway,
    api: Api,
    /// Whether it looks by itself what the gateway is, in the database.
    follows: bool,
    /// For what it was started last, whether that went well or not.
    of: Gateway,
    running: Option<Dataplane>,
    /// When to try once more after it did not start, and why it did not.
    again: Option<(Instant, String)>,
}

impl<'a> Workers<'a> {
    fn new(arguments: &'a cli::Gateway, api: Api, follows: bool) -> Self {
        Workers { arguments, api, follows, of: Gateway::none(), running: None, again: None }
    }

    /// Has it run for what the gateway is now: with other interfaces, another one takes its place and goes on with every SA.
    ///
    /// # Errors
    /// It cannot be stopped, or does not start.
    fn follow(&mut self, gateway: &Gateway) -> anyhow::Result<()> {
        let what = |of: &Gateway| (of.wan.clone(), of.lan.clone(), of.xdp);
        let same = what(&self.of) == what(gateway);
        self.of = gateway.clone();
        if same && self.running.is_some() == gateway.is_there() {
            return Ok(());
        }
        self.stop()?;
        if gateway.is_there() {
            self.running = Some(start_data_plane(gateway, &self.api, self.arguments)?);
        }
        self.again = None;
        Ok(())
    }

    /// [`Workers::follow`] while others go on: what fails is told, and tried again.
    fn try_to_follow(&mut self, gateway: &Gateway) {
        let Err(e) = tokio::task::block_in_place(|| self.follow(gateway)) else { return };
        let why = format!("{e:#}");
        if self.again.as_ref().is_none_or(|(_, known)| *known != why) {
            tracing::error!("{why}; it is tried again every {} s", AGAIN.as_secs());
        }
        self.again = Some((Instant::now() + AGAIN, why));
    }

    /// Looks after it.
    ///
    /// # Errors
    /// One of its workers has ended.
    fn look(&mut self) -> anyhow::Result<()> {
        let dead = |w: &Dataplane| w.report().workers.into_iter().find(|w| !w.running);
        if let Some(dead) = self.running.as_ref().and_then(dead) {
            anyhow::bail!("worker {} of the data plane has ended", dead.id);
        }
        let is_due = self.again.as_ref().is_some_and(|(at, _)| *at <= Instant::now());
        let mut gateway = self.of.clone();
        if self.follows {
            // Control may be writing; then the next look finds it.
            gateway =
                gateway_of(&self.arguments.data_dir).map_or(gateway, |g| g.unwrap_or_else(Gateway::none));
        }
        if is_due || gateway != self.of {
            self.try_to_follow(&gateway);
        }
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.running.take().map_or(Ok(()), Dataplane::stop).context("stopping the data plane")
    }
}

fn start_data_plane(gateway: &Gateway, api: &Api, arguments: &cli::Gateway) -> anyhow::Result<Dataplane> {
    let mut roles = BTreeMap::from([(gateway.wan.as_str(), role::WAN)]);
    for lan in &gateway.lan {
        *roles.entry(lan).or_default() |= role::LAN;
    }
    let ports =
        roles.into_iter().map(|(name, roles)| PortConfig { interface: name.to_owned(), roles }).collect();
    let data_plane = Dataplane::start(adit_dataplane::Config {
        bpf_dir: arguments.bpf_dir.clone(),
        ports,
        tun: adit_control::routes::DEVICE.to_owned(),
        workers: None,
        max_sas: arguments.max_sas,
        mode: match gateway.xdp {
            Xdp::Auto => XdpMode::Auto,
            Xdp::ZeroCopy => XdpMode::ZeroCopy,
            Xdp::Driver => XdpMode::Driver,
            Xdp::Generic => XdpMode::Generic,
            Xdp::None => XdpMode::None,
        },
        socket: Some(data_plane_socket(&api.socket)),
        gives_keys: api.capture_keys,
        crypto: arguments.crypto.map(|crypto| match crypto {
            cli::Crypto::Avx512 => Backend::Avx512,
            cli::Crypto::Avx2 => Backend::Avx2,
            cli::Crypto::AesNi => Backend::AesNi,
            cli::Crypto::Portable => Backend::Portable,
        }),
    })
    .context("the data plane does not start")?;
    let report = data_plane.report();
    for port in report.ports {
        tracing::info!("{}: {} queues, mode {}: {}", port.interface, port.queues, port.mode, port.reason);
    }
    tracing::info!("cryptography on {}, {} workers", report.crypto, report.workers.len());
    Ok(data_plane)
}

async fn run_control(
    config: Config,
    Stored { store, adopted }: Stored,
    arguments: &cli::Gateway,
    workers: Option<&mut Workers<'_>>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let alone = workers.is_none();
    let api = config.api.clone();
    let options = Options {
        adopted,
        store,
        config,
        bpf_dir: arguments.bpf_dir.clone(),
        state_dir: cli::state_dir(arguments.state_dir.as_ref(), &arguments.bpf_dir),
    };
    let listen = listen(&options.config, arguments);
    let rules = arguments.alarm_rules.clone().map(|file| alarm::keep(options.store.clone(), file));
    let adopted = options.adopted.as_ref().map(|adopted| adopted.words(None));
    let started = Control::start(options).await;
    // One that runs has it in the gateway's log.
    let (control, mut task) =
        started.inspect_err(|_| adopted.iter().for_each(|words| tracing::info!("{words}")))?;
    let server = match Server::start(control.clone(), &listen).await {
        Ok(server) => server,
        Err(e) => {
            control.shutdown().await;
            return Err(e.into());
        }
    };
    match server.metrics_address() {
        Some(address) => {
            tracing::info!("API on {}, metrics on http://{address}/metrics", api.socket.display())
        }
        None => tracing::info!("API on {}", api.socket.display()),
    }
    if let Some((address, fingerprint)) = server.https() {
        tracing::info!("API on https://{address}, certificate {fingerprint}");
    }
    let rules = rules.map(tokio::spawn);
    let result = watch(workers, Some((&control, &mut task)), signals).await;
    rules.iter().for_each(JoinHandle::abort);
    // Without control packets flow on, and the next one goes on from here. Without the data plane nothing does.
    match alone {
        false => control.shutdown().await,
        true => control.leave().await,
    }
    server.close().await;
    result
}

fn listen(config: &Config, arguments: &cli::Gateway) -> Listen {
    let (api, data_dir) = (&config.api, &arguments.data_dir);
    let identity = |address: SocketAddr| match api.certificate.clone() {
        Some((certificate, key)) => Identity::Given { certificate, key },
        None => {
            let mut addresses = config.gateway.addresses.clone();
            addresses.push(address.ip());
            Identity::Own { directory: data_dir.clone(), addresses }
        }
    };
    Listen {
        socket: api.socket.clone(),
        metrics: api.metrics.or(arguments.metrics.0),
        https: api.listen.map(|address| (address, identity(address))),
        tokens_of_old: data_dir.join("tokens.json"),
    }
}

/// Goes on until a signal says stop, or something that runs has ended by itself.
async fn watch(
    mut workers: Option<&mut Workers<'_>>,
    mut control: Option<(&Control, &mut JoinHandle<Result<(), ControlError>>)>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let manager = Manager::from_environment();
    manager.ready();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gateway = control.as_ref().map(|(control, _)| control.gateway());
    loop {
        let ended = async {
            match &mut control {
                Some((_, task)) => task.await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            let told = match &mut gateway {
                Some(gateway) => gateway.changed().await.map(|()| gateway.borrow_and_update().clone()).ok(),
                None => None,
            };
            match told {
                Some(gateway) => gateway,
                // Nobody tells, or control has ended, which is seen by itself.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = ended => {
                result.context("control has panicked")?.context("control cannot go on")?;
                return Ok(());
            }
            stop = signals.next() => {
                if stop {
                    tracing::info!("stopping");
                    manager.stopping();
                    return Ok(());
                }
                if let Some((control, _)) = &control {
                    // It has logged what it did, or why not.
                    let _ = control.reload("SIGHUP").await;
                }
            }
            gateway = changed => {
                if let Some(workers) = &mut workers {
                    workers.try_to_follow(&gateway);
                }
            }
            _ = look.tick() => {
                manager.alive();
                if let Some(workers) = &mut workers {
                    workers.look()?;
                }
            }
        }
    }
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal: whether it says stop.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.hangup.recv() => false,
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_control::resource;
    use clap::Parser;
    use std::fs;

    #[tokio::test]
    async fn a_data_plane_takes_the_gateway_from_a_file_that_names_one_and_else_from_the_database() {
        let dir = std::env::temp_dir().join(format!("adit-run-{}", std::process::id()));
        let (data, file) = (dir.join("data"), dir.join("adit.toml"));
        fs::create_dir_all(&dir).unwrap();
        let (data_dir, config) = (data.display().to_string(), file.display().to_string());
        let look = |with_file: bool| {
            let mut words = vec!["adit", "dataplane", "--data-dir", &data_dir];
            words.extend(["--config", &config].into_iter().filter(|_| with_file));
            let cli::Command::Dataplane(arguments) = cli::Arguments::parse_from(words).command else {
                panic!()
            };
            let (config, follows) = looked_up(&arguments).unwrap();
            (config.gateway.name, config.api.capture_keys, follows)
        };
        let api = "[api]\ncapture_keys = true\n";
        fs::write(&file, api).unwrap();
        assert_eq!(look(true), (String::new(), true, true));
        let store = Store::open(&data, None).unwrap();
        let given = serde_json::json!({"name": "stored", "address": "192.0.2.1", "wan": "w", "lan": ["l"]});
        let given = given.as_object().unwrap().clone();
        store.create::<resource::Gateway>(given, nobody()).await.unwrap();
        assert_eq!(look(true), ("stored".into(), true, true));
        assert_eq!(look(false), ("stored".into(), false, true));
        let named = "[gateway]\nname = \"named\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\n";
        fs::write(&file, format!("{named}{api}")).unwrap();
        assert_eq!(look(true), ("named".into(), true, false));
        fs::remove_dir_all(dir).unwrap();
    }
}
