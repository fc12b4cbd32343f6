//! Connection groups: what their members are fit for, and what follows from it in OUTBOUND.

use super::run::Daemon;
use crate::{
    config,
    maps::SaMaps,
    spd::CompileError,
    status::{GroupStatus, MemberStatus},
    tunnel::{ConnectionGroup, ConnectionGroups, Fitness, Tunnel},
};
use adit_ike::TunnelId;
use adit_maps::event::Event;
use std::{collections::BTreeSet, time::Instant};

impl Daemon {
    /// The groups as this configuration has them, of the tunnels that run.
    ///
    /// # Errors
    /// [`CompileError::TooManySlots`].
    pub(super) fn next_groups(&self, configured: &[config::Group]) -> Result<ConnectionGroups, CompileError> {
        self.groups.next(configured, |name| {
            let tunnel = self.tunnels.get(self.tunnels.named(name)?)?;
            Some((tunnel.id(), tunnel.groups()))
        })
    }

    /// Has the groups carry on with those members that are fittest now, after something happened to some.
    pub(super) fn follow_members(&mut self) {
        let touched = self.tunnels.take_touched();
        if self.groups.is_empty() || self.data_plane.is_none() {
            return;
        }
        let names: BTreeSet<&str> =
            touched.iter().filter_map(|id| self.groups.of(*id)).map(|g| g.config().name.as_str()).collect();
        let groups: Vec<ConnectionGroup> =
            self.groups.values().filter(|g| names.contains(g.config().name.as_str())).cloned().collect();
        groups.iter().for_each(|group| self.follow_group(group));
    }

    /// Has every group carry on with those members that are fittest now, and frees the slots that no group has.
    pub(super) fn follow_groups(&mut self) {
        if let Some(data_plane) = &mut self.data_plane {
            for slot in data_plane.maps.followers().slots() {
                if self.groups.owner(slot).is_none() {
                    data_plane.maps.follow(slot, None);
                }
            }
        }
        let groups: Vec<ConnectionGroup> = self.groups.values().cloned().collect();
        groups.iter().for_each(|group| self.follow_group(group));
    }

    fn follow_group(&mut self, group: &ConnectionGroup) {
        let Some(data_plane) = &mut self.data_plane else { return };
        let before = shares(group, &data_plane.maps);
        let tunnels = &self.tunnels;
        let followed = group.followed(|id, slot| match data_plane.maps.outbound(slot) {
            None => Fitness::None,
            Some(_) if tunnels.get(id).is_some_and(Tunnel::is_healthy) => Fitness::Healthy,
            Some(_) => Fitness::Silent,
        });
        for (slot, leader) in followed {
            data_plane.maps.follow(slot, Some(leader));
        }
        let after = shares(group, &data_plane.maps);
        if before == after {
            return;
        }
        let name = &group.config().name;
        for ((id, had, _), (_, has, all)) in before.into_iter().zip(after) {
            if had != has {
                let percent = has * 100 / all.max(1);
                self.tunnels
                    .with(id, |t| t.say(&format!("carries {percent} % of group {name:?} from now on")));
            }
        }
    }

    /// Traffic of a group found no SA: its members are asked for one.
    pub(super) fn acquire_for_group(&mut self, now: Instant, event: &Event) -> bool {
        let Some(group) = self.groups.owner(event.subject) else { return false };
        for id in group.members().to_vec() {
            self.acquire(now, id, event);
        }
        true
    }

    /// What people see of the groups.
    pub(super) fn group_status(&self) -> Vec<GroupStatus> {
        let status = |group: &ConnectionGroup| {
            let carried = match &self.data_plane {
                Some(data_plane) => shares(group, &data_plane.maps),
                None => group.members().iter().map(|id| (*id, 0, 1)).collect(),
            };
            let member = |(id, has, all): (TunnelId, usize, usize)| {
                let tunnel = self.tunnels.get(id)?;
                let healthy = tunnel.is_healthy();
                // One that has no SA carries nothing, whatever would be its own.
                let share = if tunnel.has_ike() { has as f64 / all.max(1) as f64 } else { 0.0 };
                Some(MemberStatus { tunnel: tunnel.config().name.clone(), healthy, share })
            };
            GroupStatus {
                name: group.config().name.clone(),
                mode: group.config().mode.word().into(),
                members: carried.into_iter().filter_map(member).collect(),
            }
        };
        self.groups.values().map(status).collect()
    }
}

/// What the members of a group carry of its flows.
fn shares(group: &ConnectionGroup, maps: &crate::maps::Pinned) -> Vec<(TunnelId, usize, usize)> {
    group.shares(|slot| maps.followers().leader(slot))
}
