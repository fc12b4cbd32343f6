//! Following a change. One of thousands of tunnels is followed some tunnels at a time, and IKE has its turn in between.

use super::{
    ReloadError, Reloaded,
    policies::Following,
    reload::{Next, Step, gateway_after},
    run::Daemon,
};
use crate::{
    config::{self, Gateway},
    memory,
    status::ResourceStatus,
    store::{Change, GatewayChange},
    tunnel::{ConnectionGroups, Groups, Tunnel},
};
use adit_ike::TunnelId;
use std::{collections::HashSet, sync::Arc, time::Instant, vec};
use tokio::sync::oneshot;

/// Tunnels that are seen to before IKE has its turn.
const AT_A_TIME: usize = 64;

/// A change that is being followed.
pub(super) struct Underway {
    change: Arc<Change>,
    removed: vec::IntoIter<TunnelId>,
    /// One for each tunnel of the change.
    steps: std::iter::Enumerate<vec::IntoIter<Step>>,
    groups: ConnectionGroups,
    done: Reloaded,
    /// New tunnels, which begin when they are protected.
    begin: Vec<TunnelId>,
    answer: oneshot::Sender<Result<Reloaded, ReloadError>>,
}

impl Underway {
    /// No policy names a run any more, by its first slot.
    pub(super) fn free_run(&mut self, first: u32) {
        self.groups.free(first);
    }

    /// Runs go on resting.
    pub(super) fn rest(&mut self, runs: &[u32]) {
        self.groups.rest(runs.to_vec());
    }
}

impl Daemon {
    /// Follows a change that [`Daemon::plan`] has found possible, and answers when its policies are in the maps. Tunnels that
    /// are not in it are not looked at.
    pub(super) fn follow(
        &mut self,
        change: Arc<Change>,
        answer: oneshot::Sender<Result<Reloaded, ReloadError>>,
    ) {
        let next = match self.next(&change) {
            Ok(next) => next,
            // Who asked may have gone away.
            Err(e) => return drop(answer.send(Err(e))),
        };
        let Next { steps, removed, slots, groups } = next;
        self.slots = slots;
        if let Some(groups) = &change.groups {
            self.options.config.groups.clone_from(groups);
        }
        if let Some(gateway) = gateway_after(&change) {
            self.endpoint.set_config(Instant::now(), gateway.ike.clone());
            self.options.config.gateway = gateway;
        }
        if let Some(own) = &change.own {
            self.options.config.api = own.api.clone();
        }
        self.underway = Some(Underway {
            change,
            removed: removed.into_iter(),
            steps: steps.into_iter().enumerate(),
            groups,
            done: Reloaded::default(),
            begin: Vec::new(),
            answer,
        });
    }

    /// Tunnels that are no longer configured, and not closed yet.
    pub(super) fn doomed(&self) -> HashSet<TunnelId> {
        self.underway.iter().flat_map(|underway| underway.removed.as_slice()).copied().collect()
    }

    /// How far a tunnel has got, where `doomed` are on their way out.
    pub(super) fn resource_status(&self, id: TunnelId, doomed: &HashSet<TunnelId>) -> ResourceStatus {
        match (doomed.contains(&id), self.creating.contains(&id)) {
            (true, _) => ResourceStatus::Deleting,
            (false, true) => ResourceStatus::Creating,
            (false, false) => ResourceStatus::Running,
        }
    }

    /// Whether tunnels wait to be seen to.
    pub(super) fn has_work(&self) -> bool {
        self.underway.is_some() || !self.beginning.is_empty()
    }

    /// Sees to some tunnels that wait for it: those of a change, or those that are to begin.
    pub(super) async fn work(&mut self, now: Instant) {
        for _ in 0..AT_A_TIME {
            let Some(id) = self.beginning.pop_first() else { break };
            self.begin(now, id);
        }
        let Some(mut underway) = self.underway.take() else { return };
        for _ in 0..AT_A_TIME {
            if let Some(id) = underway.removed.next() {
                underway.done.removed.extend(self.remove(now, id));
            } else if let Some((at, step)) = underway.steps.next()
                && let Some((_, tunnel)) = underway.change.tunnels.get(at)
            {
                match step {
                    Step::Add(id, groups) => {
                        underway.done.added.push(tunnel.name.clone());
                        self.tunnels.insert(Tunnel::new(id, tunnel.clone(), groups));
                        self.order.push(id);
                        self.creating.insert(id);
                        underway.begin.push(id);
                    }
                    Step::Keep(id) => self.rename(id, tunnel),
                    Step::Change(id, groups) => {
                        underway.done.changed.push(tunnel.name.clone());
                        self.change(now, id, tunnel, groups);
                        // From other addresses it begins when those can be had.
                        match underway.change.gateway {
                            GatewayChange::Same => drop(self.beginning.insert(id)),
                            _ => self.changed.push(id),
                        }
                    }
                }
            } else {
                return self.finish(now, underway).await;
            }
        }
        self.underway = Some(underway);
    }

    /// Nobody waits to begin any more: a data plane was met, and every tunnel has begun.
    pub(super) fn all_have_begun(&mut self) {
        self.beginning.clear();
        self.changed.clear();
        self.creating.clear();
        self.underway.iter_mut().for_each(|underway| underway.begin.clear());
        self.all_followed_have_begun();
    }

    /// Closes a tunnel that is no longer configured; its name.
    fn remove(&mut self, now: Instant, id: TunnelId) -> Option<String> {
        self.endpoint.remove_tunnel(now, id);
        self.discard_events(id);
        self.beginning.remove(&id);
        self.creating.remove(&id);
        self.gone.push(id);
        let removed = self.tunnels.remove(id)?;
        self.stale.extend(removed.groups().slots());
        Some(removed.config().name.clone())
    }

    /// Closes a tunnel, which is to begin anew with another configuration.
    fn change(&mut self, now: Instant, id: TunnelId, tunnel: &config::Tunnel, groups: Groups) {
        let before = self.tunnels.get(id).map(Tunnel::groups);
        self.stale.extend(before.into_iter().flat_map(Groups::slots));
        self.endpoint.remove_tunnel(now, id);
        self.tunnels.rename(id, tunnel);
        self.tunnels.with(id, |running| {
            running.reconfigure(tunnel.clone(), groups);
            running.reset("configured anew");
        });
        self.discard_events(id);
    }

    async fn finish(&mut self, now: Instant, underway: Underway) {
        let Underway { groups, mut done, begin, answer, .. } = underway;
        self.order.retain(|id| self.tunnels.get(*id).is_some());
        self.groups = groups;
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
        self.follow_bgp();
        self.beginning.extend(std::mem::take(&mut self.changed));
        tracing::info!(
            added = done.added.len(),
            changed = done.changed.len(),
            removed = done.removed.len(),
            unchanged = done.unchanged,
            "configuration changed"
        );
        // Reading thousands of tunnels takes many times their size for a moment.
        drop(tokio::task::spawn_blocking(memory::give_back));
        self.protect(Some(Following { done, begin, listens, answer }));
    }
}
