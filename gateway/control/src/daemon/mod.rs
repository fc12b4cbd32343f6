//! The task that owns everything: the IKE endpoint, its sockets, the maps and the tunnels. [`Control`] talks to it.

mod act;
mod attempts;
mod bgp;
mod data_plane;
mod failover;
mod follow;
mod inspect;
mod negotiate;
mod pace;
mod policies;
mod pool;
mod probes;
mod reload;
mod resume;
mod run;
mod sockets;
mod tell;
mod tunnels;
mod write;

pub use act::{Action, ActionError, Rekey};
pub use reload::ReloadError;
pub use write::own_document;

use crate::{
    config::{self, Config},
    diagnose::{self, Diagnosis, Inspected, Machine},
    log::GatewayLog,
    nic,
    peer_config::{self, PeerConfigError, PeerFile},
    status::{Event, LogEntry, Status, TunnelStatus},
    store::{Adopted, Change, Store},
};
use adit_ike::TunnelId;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    runtime::{Builder, Handle},
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};

/// What `control` needs to begin.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the process's own file, which every reload reads again, has come to; `None` where there is none.
    pub adopted: Option<Adopted>,
    /// The resources.
    pub store: Store,
    /// What they say now, with [`config::Gateway::none`] where they say nothing. Once `control` runs, each tunnel has its own part of it, and this has none.
    pub config: Config,
    /// Where the data plane pins its maps.
    pub bpf_dir: PathBuf,
    /// Where what a later process needs to go on is kept: a directory in memory.
    pub state_dir: PathBuf,
}

/// Why `control` does not start, or stops by itself.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A UDP socket cannot be opened.
    #[error("cannot listen on UDP {address}: {source}{}", remedy(source))]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The maps are there, and cannot be used.
    #[error(transparent)]
    Maps(#[from] adit_maps::user::Error),
    /// The system refuses to tell of events in the maps.
    #[error("cannot wait for events of the data plane: {0}")]
    Events(std::io::Error),
    /// Without routes, what the gateway itself sends to a remote subnet would leave in clear.
    #[error("routes to the remote subnets are no longer kept: {0}")]
    Routes(std::io::Error),
    /// The system gives no threads.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    /// The tunnels do not fit into the SPD.
    #[error("the tunnels do not fit into the SPD: {0}")]
    Spd(#[from] crate::spd::CompileError),
    /// A thread of ours has panicked.
    #[error("a thread that writes policies has ended: {0}")]
    Panicked(String),
}

fn panicked(e: tokio::task::JoinError) -> ControlError {
    ControlError::Panicked(e.to_string())
}

fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another IKE daemon (strongSwan, Libreswan, Adit) is running: stop it"
        }
        std::io::ErrorKind::AddrNotAvailable => "; gateway.address must be an address of this machine",
        std::io::ErrorKind::PermissionDenied => "; run as root, or with CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// `control` has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("control has stopped")]
pub struct Stopped;

/// A handle to a running `control`.
#[derive(Clone, Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
    gateway: watch::Receiver<config::Gateway>,
    log: GatewayLog,
    store: Store,
    file: Option<Arc<Path>>,
}

enum Command {
    /// Everything but some tunnels, and the numbers of those.
    Status(oneshot::Sender<(Status, Vec<TunnelId>)>),
    Statuses(Vec<TunnelId>, oneshot::Sender<Vec<TunnelStatus>>),
    StatusOf(String, oneshot::Sender<Option<TunnelStatus>>),
    Log(String, oneshot::Sender<Option<Vec<LogEntry>>>),
    Configured(String, oneshot::Sender<Option<Configured>>),
    Inspect(String, oneshot::Sender<Option<Box<Inspected>>>),
    Act(String, Action, oneshot::Sender<Result<String, ActionError>>),
    RevealsSecrets(oneshot::Sender<bool>),
    /// Whether a change can be followed.
    Plan(Arc<Change>, oneshot::Sender<Result<(), ReloadError>>),
    Follow(Arc<Change>, oneshot::Sender<Result<Reloaded, ReloadError>>),
    /// Why the last reload was refused, if it was.
    Refused(Option<String>),
    /// Whether the tunnels are closed.
    Shutdown(bool, oneshot::Sender<()>),
}

/// What the configuration says of a tunnel, for whoever writes of it.
struct Configured {
    gateway: String,
    tunnel: config::Tunnel,
    reveals_secrets: bool,
}

/// Why the other side's configuration is not given.
#[derive(Debug, thiserror::Error)]
pub enum PeerFilesError {
    /// There is no such tunnel.
    #[error("there is no tunnel {0:?}")]
    NoTunnel(String),
    /// It was asked for with its keys.
    #[error(
        "this gateway shows its keys to nobody; `reveal_secrets = true` in [api] of its configuration, and a reload, let \
         whoever has its socket have them, and whoever has a token of scope reveal-secrets"
    )]
    Secret,
    /// The vendor has no way to say it.
    #[error(transparent)]
    Vendor(#[from] PeerConfigError),
}

/// What a reload did, by the names of tunnels.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Reloaded {
    /// New.
    pub added: Vec<String>,
    /// Negotiated anew, because something about them changed.
    pub changed: Vec<String>,
    /// No longer configured.
    pub removed: Vec<String>,
    /// Left alone.
    pub unchanged: usize,
    /// The file's warnings, a line each.
    pub warnings: Vec<String>,
    /// What there is to say where no file has said what there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Control {
    /// Opens the sockets and starts the task, on a thread of its own: nothing else that this process does makes IKE wait. It
    /// waits for the data plane's maps, whenever they come, and runs until
    /// [`Control::shutdown`].
    ///
    /// # Errors
    /// [`ControlError::Socket`], [`ControlError::Spd`].
    pub async fn start(
        options: Options,
    ) -> Result<(Control, JoinHandle<Result<(), ControlError>>), ControlError> {
        let (commands, receiver) = mpsc::channel(16);
        let file = options.adopted.as_ref().map(|adopted| Arc::from(adopted.own.file.as_path()));
        let store = options.store.clone();
        let (begun, told) = oneshot::channel();
        let others = Handle::current();
        let task = tokio::task::spawn_blocking(move || {
            let runtime =
                Builder::new_current_thread().enable_all().build().map_err(ControlError::Threads)?;
            runtime.block_on(async {
                let daemon = run::Daemon::new(options, &others).await?;
                // Who started it may have gone away: then nobody sends commands, and it ends.
                let _ = begun.send((daemon.tunnels.events(), daemon.gateway.subscribe(), daemon.log.clone()));
                daemon.run(receiver).await
            })
        });
        match told.await {
            Ok((events, gateway, log)) => Ok((Control { commands, events, gateway, log, store, file }, task)),
            Err(_) => match task.await {
                Ok(Err(e)) => Err(e),
                Ok(Ok(())) => Err(ControlError::Threads(std::io::Error::other("it ended at once"))),
                Err(e) => Err(ControlError::Threads(e.into())),
            },
        }
    }

    /// Everything at this moment. Where there are many tunnels, some are seen a little later than others.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn status(&self) -> Result<Status, Stopped> {
        let (mut status, rest) = self.ask(Command::Status).await?;
        status.tunnels.reserve(rest.len());
        // IKE has its turn between two asks.
        for some in rest.chunks(tell::AT_A_TIME) {
            status.tunnels.extend(self.ask(|answer| Command::Statuses(some.to_vec(), answer)).await?);
        }
        // Asked for here and not by the task, which IKE waits for.
        let mut nics = nic::all().await;
        status.ports.iter_mut().for_each(|port| port.nic = nics.remove(&port.interface));
        Ok(status)
    }

    /// One tunnel at this moment; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn tunnel_status(&self, tunnel: &str) -> Result<Option<TunnelStatus>, Stopped> {
        self.ask(|answer| Command::StatusOf(tunnel.to_owned(), answer)).await
    }

    /// The connection log of a tunnel, oldest first; `None` when there is no such tunnel.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn log(&self, tunnel: &str) -> Result<Option<Vec<LogEntry>>, Stopped> {
        self.ask(|answer| Command::Log(tunnel.to_owned(), answer)).await
    }

    /// The gateway's own log.
    pub fn gateway_log(&self) -> &GatewayLog {
        &self.log
    }

    /// Why a tunnel does not do what it should, from `status`, which is of this moment, and from what the machine says;
    /// `None` when there is no such tunnel.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn diagnose(&self, tunnel: &str, status: &Status) -> Result<Option<Diagnosis>, Stopped> {
        let Some(inspected) = self.ask(|answer| Command::Inspect(tunnel.to_owned(), answer)).await? else {
            return Ok(None);
        };
        let Some(shown) = status.tunnels.iter().find(|t| t.name == tunnel) else { return Ok(None) };
        // Looked at here and not by the task, which IKE waits for.
        let machine = Machine::look(shown.local, shown.remote).await.unwrap_or_default();
        Ok(Some(diagnose::diagnose(shown, status, &inspected, &machine)))
    }

    /// What happens to the tunnels and to the gateway from now on. Who does not keep up misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// What the gateway is, and what becomes of it: [`config::Gateway::none`] as long as there is none.
    pub fn gateway(&self) -> watch::Receiver<config::Gateway> {
        self.gateway.clone()
    }

    /// The configuration of the other side of a tunnel. It holds keys only where both the request and `api.reveal_secrets`
    /// say so.
    ///
    /// # Errors
    /// [`Stopped`], and inside it [`PeerFilesError`].
    pub async fn peer_files(
        &self,
        tunnel: &str,
        request: peer_config::Request,
    ) -> Result<Result<Vec<PeerFile>, PeerFilesError>, Stopped> {
        let configured = self.ask(|answer| Command::Configured(tunnel.to_owned(), answer)).await?;
        // Written here and not by the task, which IKE waits for.
        Ok(match configured {
            None => Err(PeerFilesError::NoTunnel(tunnel.to_owned())),
            Some(c) if request.with_psk && !c.reveals_secrets => Err(PeerFilesError::Secret),
            Some(c) => peer_config::write(&c.gateway, &c.tunnel, request).map_err(PeerFilesError::from),
        })
    }

    /// Whether `api.reveal_secrets` lets pre-shared keys leave the process.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn reveals_secrets(&self) -> Result<bool, Stopped> {
        self.ask(Command::RevealsSecrets).await
    }

    /// Takes a tunnel up, takes it down, or renews its SAs. What is answered says what comes of it.
    ///
    /// # Errors
    /// [`Stopped`], and inside it [`ActionError`].
    pub async fn act(&self, tunnel: &str, action: Action) -> Result<Result<String, ActionError>, Stopped> {
        self.ask(|answer| Command::Act(tunnel.to_owned(), action, answer)).await
    }

    /// Says good-bye to every peer and stops. The policies stay in the maps: what they protect is dropped from then on.
    pub async fn shutdown(&self) {
        // One that has stopped already has said good-bye.
        let _ = self.ask(|answer| Command::Shutdown(true, answer)).await;
    }

    /// Stops without a word to any peer: every SA stays in the maps, and whatever is needed to go on is kept for the next
    /// process. That should come before peers look for signs of life.
    pub async fn leave(&self) {
        let _ = self.ask(|answer| Command::Shutdown(false, answer)).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (answer, received) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| Stopped)?;
        received.await.map_err(|_| Stopped)
    }
}
