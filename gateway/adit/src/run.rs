//! The gateway's processes.

use crate::{cli, notify::Manager};
use adit_api::{Identity, Listen, Server, data_plane_socket};
use adit_control::{
    Config, Control, ControlError, Options,
    config::{Api, Xdp},
    own_document,
    store::{Store, StoreError, gateway_of},
};
use adit_dataplane::{Backend, Dataplane, PortConfig, XdpMode};
use adit_maps::port::role;
use anyhow::Context;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

/// How often the workers are looked after.
const LOOK: Duration = Duration::from_secs(1);

/// Runs control, the data plane, or both, until a signal or until one of them cannot go on.
pub(crate) fn gateway(arguments: &cli::Gateway, control: bool, data_plane: bool) -> anyhow::Result<()> {
    adit_control::memory::one_arena();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (config, store) = match control {
            true => stored(arguments).await.map(|(config, store)| (config, Some(store)))?,
            false => (looked_up(arguments)?, None),
        };
        let workers = data_plane.then(|| start_data_plane(&config, arguments)).transpose()?;
        let result = match store {
            Some(store) => run_control(config, store, arguments, workers.as_ref(), &mut signals).await,
            None => watch(workers.as_ref(), None, &mut signals).await,
        };
        let stopped = workers.map_or(Ok(()), Dataplane::stop).context("stopping the data plane");
        // What stopped the data plane explains why control found it stopped.
        stopped.and(result)
    })
}

/// What the store says, after it has been made what the file says, if there is one.
async fn stored(arguments: &cli::Gateway) -> anyhow::Result<(Config, Store)> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let store = Store::open(&arguments.data_dir, credentials.as_deref())?;
    let mut api = Api::default();
    if let Some(file) = &arguments.config {
        let (plan, own) = store.adopt(own_document(file).await?).await.map_err(|e| match e {
            StoreError::Document(e) => anyhow::Error::from(e),
            e => e.into(),
        })?;
        plan.warnings.iter().for_each(|line| tracing::warn!("{line}"));
        api = own.unwrap_or(api);
    }
    let config = store.config(api).await?.with_context(|| no_gateway(arguments))?;
    Ok((config, store))
}

/// What a data plane alone has to know.
fn looked_up(arguments: &cli::Gateway) -> anyhow::Result<Config> {
    if let Some(file) = &arguments.config {
        return Ok(Config::check(file)?);
    }
    let gateway = gateway_of(&arguments.data_dir)?.with_context(|| no_gateway(arguments))?;
    Ok(Config { gateway, api: Api::default(), tunnels: Vec::new(), warnings: Vec::new() })
}

fn no_gateway(arguments: &cli::Gateway) -> String {
    format!(
        "there is no gateway in {}: say what it is with --config FILE, once, or always",
        arguments.data_dir.display()
    )
}

fn start_data_plane(config: &Config, arguments: &cli::Gateway) -> anyhow::Result<Dataplane> {
    let mut roles = BTreeMap::from([(config.gateway.wan.as_str(), role::WAN)]);
    for lan in &config.gateway.lan {
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
        mode: match config.gateway.xdp {
            Xdp::Auto => XdpMode::Auto,
            Xdp::ZeroCopy => XdpMode::ZeroCopy,
            Xdp::Driver => XdpMode::Driver,
            Xdp::Generic => XdpMode::Generic,
            Xdp::None => XdpMode::None,
        },
        socket: Some(data_plane_socket(&config.api.socket)),
        gives_keys: config.api.capture_keys,
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
    store: Store,
    arguments: &cli::Gateway,
    workers: Option<&Dataplane>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let api = config.api.clone();
    let options = Options {
        file: arguments.config.clone(),
        store,
        config,
        bpf_dir: arguments.bpf_dir.clone(),
        state_dir: cli::state_dir(arguments.state_dir.as_ref(), &arguments.bpf_dir),
    };
    let listen = listen(&options.config, &arguments.data_dir);
    let (control, mut task) = Control::start(options).await?;
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
    let result = watch(workers, Some((&control, &mut task)), signals).await;
    // Without control packets flow on, and the next one goes on from here. Without the data plane nothing does.
    match workers {
        Some(_) => control.shutdown().await,
        None => control.leave().await,
    }
    drop(server);
    result
}

fn listen(config: &Config, data_dir: &Path) -> Listen {
    let api = &config.api;
    let identity = |address: SocketAddr| match api.certificate.clone() {
        Some((certificate, key)) => Identity::Given { certificate, key },
        None => {
            let mut addresses = config.gateway.addresses.clone();
            addresses.push(address.ip());
            Identity::Own { directory: data_dir.to_owned(), addresses }
        }
    };
    Listen {
        socket: api.socket.clone(),
        metrics: api.metrics,
        https: api.listen.map(|address| (address, identity(address))),
        tokens_of_old: data_dir.join("tokens.json"),
    }
}

/// Goes on until a signal says stop, or something that runs has ended by itself.
async fn watch(
    workers: Option<&Dataplane>,
    mut control: Option<(&Control, &mut JoinHandle<Result<(), ControlError>>)>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let manager = Manager::from_environment();
    manager.ready();
    let mut look = tokio::time::interval(LOOK);
    loop {
        let ended = async {
            match &mut control {
                Some((_, task)) => task.await,
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
                    let _ = control.reload().await;
                }
            }
            _ = look.tick() => {
                manager.alive();
                if let Some(dead) = workers.and_then(|w| w.report().workers.into_iter().find(|w| !w.running)) {
                    anyhow::bail!("worker {} of the data plane has ended", dead.id);
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
