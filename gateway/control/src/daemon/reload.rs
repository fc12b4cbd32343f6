//! From one desired state to the next: what differs, tunnel by tunnel.

use super::{ControlError, data_plane::Policies, run::Daemon, tunnels::Tunnels};
use crate::{
    config::{self, Gateway},
    spd::{self, CompileError, Tables},
    store::{Change, GatewayChange, Own},
    tunnel::{ConnectionGroups, Groups, Slots, Tunnel, policies},
};
use adit_ike::TunnelId;
use std::collections::{HashMap, HashSet};
use tokio::sync::oneshot;

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
    #[error("what is configured is applied in part: {0}; it is tried again every 5 s")]
    Applied(String),
}

/// What becomes of one tunnel of a change.
pub(super) enum Step {
    Add(TunnelId, Groups),
    /// But for names it is what it was.
    Keep(TunnelId),
    Change(TunnelId, Groups),
}

/// A change, as it will be.
pub(super) struct Next {
    /// One for each tunnel of the change.
    pub(super) steps: Vec<Step>,
    pub(super) removed: Vec<TunnelId>,
    pub(super) slots: Slots,
    pub(super) groups: ConnectionGroups,
}

impl Daemon {
    /// Answers whether a change can be followed. Nothing is touched.
    pub(super) fn plan(&mut self, change: &Change, answer: oneshot::Sender<Result<(), ReloadError>>) {
        let planned = self.policies_after(change).map(|wanted| {
            let spd = self.data_plane.as_ref().map(|data_plane| data_plane.spd());
            move || match spd {
                Some(spd) => spd.plan(&wanted),
                None => spd::plan(wanted.least(), &Tables::default()).map(drop),
            }
        });
        // Who asked may have gone away.
        match planned {
            Err(e) => drop(answer.send(Err(e))),
            // Compiling thousands of policies takes longer than IKE waits.
            Ok(plan) => drop(tokio::task::spawn_blocking(|| answer.send(plan().map_err(ReloadError::from)))),
        }
    }

    /// What the SPD is to say when a change is followed.
    fn policies_after(&mut self, change: &Change) -> Result<Policies, ReloadError> {
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
        let kept = || {
            self.order.iter().filter(|id| !removed.contains(id)).filter_map(|id| {
                let groups = changed.get(id).copied().or_else(|| self.tunnels.get(*id).map(Tunnel::groups));
                Some((*id, groups?))
            })
        };
        let added = || {
            next.steps.iter().filter_map(|step| match step {
                Step::Add(id, groups) => Some((*id, groups)),
                Step::Change(..) | Step::Keep(_) => None,
            })
        };
        let wanted = |learned| policies(kept().chain(added()), &next.groups, learned);
        let learned = kept().any(|(_, groups)| groups.learned().next().is_some());
        Ok(Policies { all: wanted(true), configured: learned.then(|| wanted(false)) })
    }

    /// What becomes of each tunnel of a change.
    ///
    /// # Errors
    /// When there is no slot for one.
    pub(super) fn next(&mut self, change: &Change) -> Result<Next, ReloadError> {
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
    pub(super) fn rename(&mut self, id: TunnelId, tunnel: &config::Tunnel) {
        let kept =
            |all: &Tunnels| all.get(id).map(|running| (running.config().name.clone(), running.is_silent()));
        let before = kept(&self.tunnels);
        self.tunnels.rename(id, tunnel);
        if before != kept(&self.tunnels) {
            self.keep(id);
        }
    }

    /// What a running `control` does not change.
    fn needs_restart(&self, change: &Change) -> Option<String> {
        let running = &self.options.config;
        let mut changed = Vec::new();
        if let Some(Own { api, .. }) = &change.own {
            let fields = [
                ("api.socket", running.api.socket != api.socket),
                ("api.metrics", running.api.metrics != api.metrics),
                ("api.listen", running.api.listen != api.listen),
                ("api.certificate, api.key", running.api.certificate != api.certificate),
                ("api.capture_keys", running.api.capture_keys != api.capture_keys),
            ];
            changed.extend(fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name));
        }
        (!changed.is_empty()).then(|| changed.join(", "))
    }
}

/// What the gateway is after a change that has to do with it.
pub(super) fn gateway_after(change: &Change) -> Option<Gateway> {
    match &change.gateway {
        GatewayChange::Same => None,
        GatewayChange::Now(gateway) => Some(Gateway::clone(gateway)),
        GatewayChange::Gone => Some(Gateway::none()),
    }
}
