//! From one configuration to another: what differs, tunnel by tunnel.

use super::{ControlError, Reloaded, run::Daemon};
use crate::{
    config::{Config, ConfigError},
    memory,
    routes::Wanted,
    spd::{self, CompileError, Tables},
    tunnel::{Groups, Tunnel, policies},
};
use std::{collections::BTreeSet, time::Instant};

/// Why a reload is refused. The running configuration goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something changed that is only taken at a start.
    #[error("{0} changed, which takes a restart; everything goes on as it was")]
    Restart(String),
    /// The tunnels do not fit into the SPD.
    #[error("the tunnels do not fit into the SPD: {0}; everything goes on as it was")]
    Spd(#[from] CompileError),
    /// The maps refused in the middle of it.
    #[error("the tunnels are applied, their policies in part: {0}; the next reload completes them")]
    Applied(ControlError),
}

impl Daemon {
    /// Reads the file again and applies what differs.
    pub(super) async fn reload(&mut self) -> Result<Reloaded, ReloadError> {
        let file = self.options.file.clone();
        let loaded = tokio::task::spawn_blocking(move || Config::load(&file)).await;
        let result = match loaded.expect("reading a configuration does not panic, and is not cancelled") {
            Ok(config) => self.apply(config).await,
            Err(e) => Err(e.into()),
        };
        match &result {
            Ok(done) => tracing::info!(
                added = done.added.len(),
                changed = done.changed.len(),
                removed = done.removed.len(),
                unchanged = done.unchanged,
                "configuration reloaded"
            ),
            Err(e) => tracing::error!("reload refused: {e}"),
        }
        self.refused_reload = result.as_ref().err().map(ToString::to_string);
        // Reading a file of thousands of tunnels takes many times its size for a moment.
        drop(tokio::task::spawn_blocking(memory::give_back));
        result
    }

    async fn apply(&mut self, mut config: Config) -> Result<Reloaded, ReloadError> {
        if let Some(fields) = needs_restart(&self.options.config, &config) {
            return Err(ReloadError::Restart(fields));
        }
        let now = Instant::now();
        let mut done = Reloaded {
            warnings: config.warnings_for(&self.options.file).lines().map(str::to_owned).collect(),
            ..Reloaded::default()
        };
        // Whatever can be refused is refused before anything is touched.
        let mut slots = self.slots.clone();
        let mut next = Vec::new();
        let routed = Wanted::of(&config);
        for tunnel in std::mem::take(&mut config.tunnels) {
            let running = self.tunnels.named(&tunnel.name).and_then(|id| self.tunnels.get(id));
            let kept = running.filter(|r| r.config().is_same_traffic(&tunnel));
            let (id, groups) = match (running.map(Tunnel::id), kept) {
                (Some(id), Some(kept)) => (id, kept.groups().clone()),
                (known, _) => {
                    let id = known.unwrap_or_else(|| self.new_id());
                    let groups = Groups::new(id, &tunnel, &mut slots).ok_or(CompileError::TooManySlots)?;
                    (id, groups)
                }
            };
            next.push(Tunnel::new(id, tunnel, groups));
        }
        let wanted = policies(next.iter().map(Tunnel::groups));
        match &self.data_plane {
            Some(data_plane) => drop(data_plane.plan(&wanted)?),
            None => drop(spd::plan(&wanted, &Tables::default())?),
        }
        self.slots = slots;

        let kept: BTreeSet<_> = next.iter().map(Tunnel::id).collect();
        let removed: Vec<_> = self.tunnels.values().map(Tunnel::id).filter(|id| !kept.contains(id)).collect();
        let order: Vec<_> = next.iter().map(Tunnel::id).collect();
        let mut begin = Vec::new();
        for tunnel in next {
            let id = tunnel.id();
            let Some(running) = self.tunnels.get(id) else {
                done.added.push(tunnel.config().name.clone());
                self.tunnels.insert(tunnel);
                begin.push(id);
                continue;
            };
            if running.config().is_same_traffic(tunnel.config()) {
                self.tunnels.with(id, |running| running.rename_peer(tunnel.config()));
                done.unchanged += 1;
                continue;
            }
            done.changed.push(tunnel.config().name.clone());
            self.stale.extend(running.groups().slots());
            self.endpoint.remove_tunnel(now, id);
            self.tunnels.with(id, |running| {
                running.reconfigure(tunnel.config().clone(), tunnel.groups().clone());
                running.reset("configured anew");
            });
            self.discard_events(id);
            begin.push(id);
        }
        for id in removed {
            self.endpoint.remove_tunnel(now, id);
            self.discard_events(id);
            let removed = self.tunnels.remove(id);
            self.stale.extend(removed.iter().flat_map(|t| t.groups().slots()));
            done.removed.extend(removed.map(|t| t.config().name.clone()));
            self.gone.push(id);
        }
        self.order = order;
        self.options.config = config;
        self.wanted.send_replace(routed);
        let protected = self.protect().await;
        if protected.is_ok() {
            for id in std::mem::take(&mut self.gone) {
                self.totals.remove(&id);
                if let Some(data_plane) = &mut self.data_plane {
                    data_plane.sadb.forget(id);
                }
            }
        }
        for id in begin {
            self.begin(now, id);
        }
        self.drain(now);
        protected.map(|()| done).map_err(ReloadError::Applied)
    }
}

/// What the two differ in that a running `control` does not change.
fn needs_restart(running: &Config, next: &Config) -> Option<String> {
    let fields = [
        ("gateway.address", running.gateway.addresses != next.gateway.addresses),
        ("gateway.wan", running.gateway.wan != next.gateway.wan),
        ("gateway.ike", running.gateway.ike != next.gateway.ike),
        ("gateway.lan", running.gateway.lan != next.gateway.lan),
        ("api.socket", running.api.socket != next.api.socket),
        ("api.metrics", running.api.metrics != next.api.metrics),
        ("api.listen", running.api.listen != next.api.listen),
        ("api.certificate and api.key", running.api.certificate != next.api.certificate),
    ];
    let changed: Vec<_> = fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    (!changed.is_empty()).then(|| changed.join(", "))
}
