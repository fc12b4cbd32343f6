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
use adit_maps::{event::Event, policy::RUN};
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

    /// Frees runs of slots that no policy in the maps names any more.
    pub(super) fn free_runs(&mut self, runs: Vec<u32>) {
        for first in runs {
            self.underway.iter_mut().for_each(|underway| underway.free_run(first));
            if self.groups.free(first)
                && let Some(data_plane) = &mut self.data_plane
            {
                (first..first + RUN).for_each(|slot| data_plane.maps.follow(slot, None));
            }
        }
    }

    /// Has every group carry on with those members that are fittest now. Runs that no group has any more go on with whom they
    /// followed for as long as policies in the maps name them.
    pub(super) fn follow_groups(&mut self) {
        let (groups, carried) = (&self.groups, &mut self.carried);
        carried.retain(|id, _| groups.of(*id).is_some());
        let groups: Vec<ConnectionGroup> = self.groups.values().cloned().collect();
        groups.iter().for_each(|group| self.follow_group(group));
    }

    fn follow_group(&mut self, group: &ConnectionGroup) {
        let Some(data_plane) = &mut self.data_plane else { return };
        let tunnels = &self.tunnels;
        let followed = group.followed(|id, slot| match data_plane.maps.outbound(slot) {
            None => Fitness::None,
            Some(_) if tunnels.get(id).is_some_and(Tunnel::is_healthy) => Fitness::Healthy,
            Some(_) => Fitness::Silent,
        });
        for (slot, leader) in followed {
            data_plane.maps.follow(slot, Some(leader));
        }
        let name = &group.config().name;
        let mut carried = Vec::new();
        let mut differs = false;
        for (id, has, all) in shares(group, &data_plane.maps) {
            let percent = has * 100 / all.max(1);
            carried.extend(self.tunnels.get(id).map(|t| format!("tunnel {:?} {percent} %", t.config().name)));
            if self.carried.insert(id, percent).unwrap_or(0) != percent {
                differs = true;
                let share = if has == 0 { "nothing".into() } else { format!("{percent} %") };
                self.tunnels.with(id, |t| t.say(&format!("carries {share} of group {name:?} from now on")));
            }
        }
        if differs {
            self.log.info(format!("group {name:?} is carried otherwise: {}", carried.join(", ")));
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
                let share = has as f64 / all.max(1) as f64;
                Some(MemberStatus {
                    tunnel: tunnel.config().name.clone(),
                    healthy: tunnel.is_healthy(),
                    share,
                })
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

/// What the members of a group carry of its flows. One that has no SA carries nothing, whatever would be its own.
fn shares(group: &ConnectionGroup, maps: &crate::maps::Pinned) -> Vec<(TunnelId, usize, usize)> {
    group.shares(|slot| maps.followers().leader(slot).filter(|_| maps.outbound(slot).is_some()))
}
