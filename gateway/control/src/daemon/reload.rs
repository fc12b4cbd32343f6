//! From one desired state to the next: what differs, tunnel by tunnel.

use super::{ControlError, Reloaded, run::Daemon};
use crate::{
    config::{self, Gateway},
    memory,
    spd::{self, CompileError, Tables},
    store::{Change, GatewayChange},
    tunnel::{ConnectionGroups, Groups, Slots, Tunnel, policies},
};
use adit_ike::{Endpoint, TunnelId};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

/// Why a change is refused. What runs goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// Something changed that is only taken at a start.
    #[error("{0} changed, which takes a restart; everything goes on as it was")]
    Restart(String),
    /// The gateway's new addresses cannot be listened on.
    #[error("{0}; everything goes on as it was")]
    Address(ControlError),
    /// The tunnels do not fit into the SPD.
    #[error("the tunnels do not fit into the SPD: {0}; everything goes on as it was")]
    Spd(#[from] CompileError),
    /// The maps refused in the middle of it.
    #[error("what is configured is applied in part: {0}; the next reload completes it")]
    Applied(ControlError),
}

/// What becomes of one tunnel of a change.
enum Step {
    Add(TunnelId, Groups),
    /// But for names it is what it was.
    Keep(TunnelId),
    Change(TunnelId, Groups),
}

/// A change, as it will be.
struct Next {
    /// One for each tunnel of the change.
    steps: Vec<Step>,
    removed: Vec<TunnelId>,
    slots: Slots,
    groups: ConnectionGroups,
}

impl Daemon {
    /// Whether a change can be followed. Nothing is touched.
    pub(super) fn plan(&mut self, change: &Change) -> Result<(), ReloadError> {
        if let Some(fields) = self.needs_restart(change) {
            return Err(ReloadError::Restart(fields));
        }
        if let Some(gateway) = gateway_after(change) {
            self.sockets.can_be(&gateway.addresses, &gateway.ike).map_err(ReloadError::Address)?;
        }
        let next = self.next(change)?;
        let changed: HashMap<TunnelId, &Groups> = next
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Change(id, groups) => Some((*id, groups)),
                Step::Add(..) | Step::Keep(_) => None,
            })
            .collect();
        let removed: HashSet<TunnelId> = next.removed.iter().copied().collect();
        let kept = self.order.iter().filter(|id| !removed.contains(id)).filter_map(|id| {
            let groups = changed.get(id).copied().or_else(|| self.tunnels.get(*id).map(Tunnel::groups));
            Some((*id, groups?))
        });
        let added = next.steps.iter().filter_map(|step| match step {
            Step::Add(id, groups) => Some((*id, groups)),
            Step::Change(..) | Step::Keep(_) => None,
        });
        let wanted = policies(kept.chain(added), &next.groups);
        match &self.data_plane {
            Some(data_plane) => drop(data_plane.plan(&wanted)?),
            None => drop(spd::plan(&wanted, &Tables::default())?),
        }
        Ok(())
    }

    /// Follows a change that [`Daemon::plan`] has found possible. Tunnels that are not in it are not looked at.
    pub(super) async fn follow(&mut self, change: &Change) -> Result<Reloaded, ReloadError> {
        let now = Instant::now();
        let next = self.next(change)?;
        self.slots = next.slots;
        if let Some(groups) = &change.groups {
            self.options.config.groups.clone_from(groups);
        }
        if let Some(gateway) = gateway_after(change) {
            if !self.options.config.gateway.is_there() {
                // What IKE as a whole is to do was not known before. No tunnel can be without a gateway.
                self.endpoint = Endpoint::new(gateway.ike.clone(), Box::new(UnwrapErr(SysRng)));
            }
            self.options.config.gateway = gateway;
        }
        if let Some(api) = &change.api {
            self.options.config.api = api.clone();
        }
        let mut done = Reloaded::default();
        let mut begin = Vec::new();
        for id in next.removed {
            self.endpoint.remove_tunnel(now, id);
            self.discard_events(id);
            let removed = self.tunnels.remove(id);
            self.stale.extend(removed.iter().flat_map(|t| t.groups().slots()));
            done.removed.extend(removed.map(|t| t.config().name.clone()));
            self.order.retain(|known| *known != id);
            self.gone.push(id);
        }
        for ((_, tunnel), step) in change.tunnels.iter().zip(next.steps) {
            match step {
                Step::Add(id, groups) => {
                    done.added.push(tunnel.name.clone());
                    self.tunnels.insert(Tunnel::new(id, tunnel.clone(), groups));
                    self.order.push(id);
                    begin.push(id);
                }
                Step::Keep(id) => self.rename(id, tunnel),
                Step::Change(id, groups) => {
                    done.changed.push(tunnel.name.clone());
                    let before = self.tunnels.get(id).map(Tunnel::groups);
                    self.stale.extend(before.into_iter().flat_map(Groups::slots));
                    self.endpoint.remove_tunnel(now, id);
                    self.tunnels.rename(id, tunnel);
                    self.tunnels.with(id, |running| {
                        running.reconfigure(tunnel.clone(), groups);
                        running.reset("configured anew");
                    });
                    self.discard_events(id);
                    begin.push(id);
                }
            }
        }
        self.groups = next.groups;
        // Before policies name their slots.
        self.follow_groups();
        done.unchanged = self.tunnels.len() - done.added.len() - done.changed.len();
        // Good-byes leave from where the tunnels were.
        self.drain(now);
        let Gateway { addresses, ike, .. } = &self.options.config.gateway;
        let listens = self.sockets.change(addresses, ike).await;
        self.gateway.send_if_modified(|told| {
            let differs = *told != self.options.config.gateway;
            told.clone_from(&self.options.config.gateway);
            differs
        });
        self.route();
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
        tracing::info!(
            added = done.added.len(),
            changed = done.changed.len(),
            removed = done.removed.len(),
            unchanged = done.unchanged,
            "configuration changed"
        );
        // Reading thousands of tunnels takes many times their size for a moment.
        drop(tokio::task::spawn_blocking(memory::give_back));
        listens.and(protected).map(|()| done).map_err(ReloadError::Applied)
    }

    fn next(&mut self, change: &Change) -> Result<Next, ReloadError> {
        let mut slots = self.slots.clone();
        let mut steps = Vec::with_capacity(change.tunnels.len());
        for (before, tunnel) in &change.tunnels {
            let running = before.as_ref().and_then(|name| self.tunnels.named(name));
            let running = running.and_then(|id| self.tunnels.get(id));
            let same = running.is_some_and(|running| running.config().is_same_traffic(tunnel));
            steps.push(match running.map(Tunnel::id) {
                Some(id) if same => Step::Keep(id),
                known => {
                    let id = known.unwrap_or_else(|| self.new_id());
                    let groups = Groups::new(id, tunnel, &mut slots).ok_or(CompileError::TooManySlots)?;
                    if known.is_some() { Step::Change(id, groups) } else { Step::Add(id, groups) }
                }
            });
        }
        let removed = change.removed.iter().filter_map(|name| self.tunnels.named(name)).collect();
        let configured = change.groups.as_ref().unwrap_or(&self.options.config.groups);
        // What is new or changed by the names that it will have, the rest by those that it has.
        let mut changed: HashMap<&str, (TunnelId, &Groups)> = HashMap::new();
        for ((_, tunnel), step) in change.tunnels.iter().zip(&steps) {
            let groups = match step {
                Step::Add(id, groups) | Step::Change(id, groups) => Some((*id, groups)),
                Step::Keep(id) => self.tunnels.get(*id).map(|running| (*id, running.groups())),
            };
            changed.extend(groups.map(|groups| (tunnel.name.as_str(), groups)));
        }
        let groups = self.groups.next(configured, |name| {
            changed.get(name).copied().or_else(|| {
                let tunnel = self.tunnels.get(self.tunnels.named(name)?)?;
                Some((tunnel.id(), tunnel.groups()))
            })
        })?;
        Ok(Next { steps, removed, slots, groups })
    }

    /// Takes the names of a tunnel that is the same in all else. What is kept for a later process has them as well.
    fn rename(&mut self, id: TunnelId, tunnel: &config::Tunnel) {
        let before = self.tunnels.get(id).map(|running| running.config().name.clone());
        self.tunnels.rename(id, tunnel);
        if before.as_ref() != Some(&tunnel.name) {
            self.keep(id);
        }
    }

    /// What a running `control` does not change.
    fn needs_restart(&self, change: &Change) -> Option<String> {
        let running = &self.options.config;
        let mut changed = Vec::new();
        match &change.gateway {
            GatewayChange::Now(next) if running.gateway.is_there() && running.gateway.ike != next.ike => {
                changed.push("gateway.ike");
            }
            GatewayChange::Same | GatewayChange::Gone | GatewayChange::Now(_) => {}
        }
        if let Some(api) = &change.api {
            let fields = [
                ("api.socket", running.api.socket != api.socket),
                ("api.metrics", running.api.metrics != api.metrics),
                ("api.listen", running.api.listen != api.listen),
                ("api.certificate, api.key", running.api.certificate != api.certificate),
            ];
            changed.extend(fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name));
        }
        (!changed.is_empty()).then(|| changed.join(", "))
    }
}

/// What the gateway is after a change that has to do with it.
fn gateway_after(change: &Change) -> Option<Gateway> {
    match &change.gateway {
        GatewayChange::Same => None,
        GatewayChange::Now(gateway) => Some(Gateway::clone(gateway)),
        GatewayChange::Gone => Some(Gateway::none()),
    }
}
