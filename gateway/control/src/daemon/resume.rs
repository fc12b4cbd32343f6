//! From one process to the next: what is kept of the tunnels, and how they go on with it.
//!
//! A tunnel goes on where its configuration is what it was and its Child SAs are in the maps. What else was kept is gone:
//! its peer is told, and the tunnel, if there still is one, begins anew.

use super::{data_plane::DataPlane, run::Daemon, tunnels::Tunnels};
use crate::{
    config::{self, Subnet},
    kept::{Keeper, Kept},
    routes::Wanted,
    sadb::Totals,
    spd::CompileError,
    status::Rekeys,
    tunnel::{Groups, Slots, Tunnel},
};
use adit_ike::{Endpoint, RestoredChild, TunnelId};
use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

/// What an earlier process has left, until the data plane is met.
#[derive(Default)]
pub(super) struct Legacy {
    /// Of tunnels that are configured as they were.
    same: HashMap<TunnelId, Kept>,
    /// Of others.
    other: Vec<Kept>,
    /// What the SAs have done that are gone, by tunnel: its counters go on, however it is configured.
    pub(super) totals: HashMap<TunnelId, Totals>,
}

impl Legacy {
    /// Gives every tunnel of the configuration a number and slots: what it had where it is configured as it was.
    ///
    /// # Errors
    /// [`CompileError::TooManySlots`].
    pub(super) fn tunnels(
        found: Vec<Kept>,
        configured: Vec<config::Tunnel>,
        slots: &mut Slots,
        next_id: &mut u32,
    ) -> Result<(Self, Vec<Tunnel>), CompileError> {
        let counted: HashMap<String, _> =
            found.iter().map(|kept| (kept.name.clone(), (kept.totals, kept.rekeys))).collect();
        *next_id = found.iter().map(|kept| kept.id).max().unwrap_or(0);
        let mut legacy = Legacy::default();
        let mut by_name: HashMap<String, Kept> = HashMap::new();
        for kept in found {
            legacy.other.extend(by_name.insert(kept.name.clone(), kept));
        }
        let mut resumed = HashMap::new();
        for config in &configured {
            let Some(kept) = by_name.remove(&config.name) else { continue };
            let id = TunnelId(kept.id);
            let same = kept.fingerprint == config.fingerprint();
            match same.then(|| Groups::resume(id, config, &kept.groups, slots)).flatten() {
                Some(groups) => {
                    resumed.insert(config.name.clone(), (id, groups));
                    legacy.same.insert(id, kept);
                }
                None => legacy.other.push(kept),
            }
        }
        legacy.other.extend(by_name.into_values());
        let tunnels = configured.into_iter().map(|config| {
            let (id, groups) = match resumed.remove(&config.name) {
                Some(resumed) => resumed,
                None => {
                    *next_id += 1;
                    let id = TunnelId(*next_id);
                    (id, Groups::new(id, &config, slots).ok_or(CompileError::TooManySlots)?)
                }
            };
            let mut tunnel = Tunnel::new(id, config, groups);
            if let Some((totals, (ike, child))) = counted.get(&tunnel.config().name) {
                legacy.totals.insert(id, *totals);
                tunnel.carry(Rekeys { ike: *ike, child: *child });
            }
            if legacy.same.get(&id).is_some_and(|kept| kept.held) {
                tunnel.hold();
            }
            if legacy.same.get(&id).is_some_and(|kept| kept.silent) {
                tunnel.distrust();
            }
            Ok(tunnel)
        });
        let tunnels = tunnels.collect::<Result<_, _>>()?;
        Ok((legacy, tunnels))
    }

    /// What is to be routed. Until the data plane is met, tunnels that are about to go on have their routes as if they did.
    pub(super) fn wanted<'a>(
        &self,
        gateway: &config::Gateway,
        tunnels: impl Iterator<Item = &'a Tunnel>,
    ) -> Wanted {
        let goes_on =
            |kept: &Kept| !kept.held && !kept.silent && kept.ike.is_some() && !kept.pairs.is_empty();
        Wanted::of(
            gateway,
            tunnels.map(|tunnel| {
                let goes_on = self.same.get(&tunnel.id()).is_some_and(goes_on);
                (tunnel.config(), tunnel.is_withdrawn() && !goes_on)
            }),
        )
    }
}

/// Opens the directory of what is kept, and reads it. Without one, what is up ends with the process.
pub(super) fn open(directory: &std::path::Path) -> (Option<Keeper>, Vec<Kept>) {
    let mut keeper = match Keeper::open(directory) {
        Ok(keeper) => keeper,
        Err(e) => {
            tracing::error!("{e}");
            return (None, Vec::new());
        }
    };
    let found = keeper.load().unwrap_or_else(|e| {
        tracing::error!("{}: {e}", directory.display());
        Vec::new()
    });
    (Some(keeper), found)
}

impl Daemon {
    /// Keeps what has changed, so that what is sent after it may be sent.
    pub(super) fn keep_changes(&mut self) {
        while let Some(id) = self.endpoint.poll_changed() {
            self.keep(id);
        }
    }

    /// Keeps what a later process needs to go on with a tunnel.
    pub(super) fn keep(&mut self, id: TunnelId) {
        let Some(keeper) = &mut self.keeper else { return };
        let Some(tunnel) = self.tunnels.get(id) else { return keeper.forget(id.0) };
        let ike = self.endpoint.record(id, keeper.origin());
        let Rekeys { ike: ike_rekeys, child } = tunnel.rekeys();
        let rekeys = (ike_rekeys, child);
        let totals = match &self.data_plane {
            Some(data_plane) => data_plane.sadb.ended(id),
            None => self.totals.get(&id).copied().unwrap_or_default(),
        };
        if ike.is_none() && !tunnel.is_held() && (rekeys, totals) == Default::default() {
            return keeper.forget(id.0);
        }
        keeper.keep(&Kept {
            id: id.0,
            name: tunnel.config().name.clone(),
            fingerprint: tunnel.fingerprint(),
            held: tunnel.is_held(),
            silent: tunnel.is_silent(),
            rekeys,
            totals,
            groups: tunnel.groups().kept(),
            pairs: self.data_plane.as_ref().map(|d| d.sadb.kept(id)).unwrap_or_default(),
            ike,
        });
    }

    /// Goes on with what an earlier process has left, and begins the other tunnels.
    pub(super) async fn take_over(&mut self, data_plane: DataPlane) -> Result<(), super::ControlError> {
        let now = Instant::now();
        let Legacy { same, other, .. } = std::mem::take(&mut self.legacy);
        let mut resumed = HashSet::new();
        let mut gone = other;
        // What is in the maps of the groups seals, and goes on.
        let named =
            |(local, remote): &(Subnet, Subnet)| data_plane.slot_of(&local.prefix(), &remote.prefix());
        self.groups.resume(named, &data_plane.slots());
        let policies = self.policies();
        let data_plane = self.data_plane.insert(data_plane);
        for kept in &gone {
            if let Some(heir) = self.tunnels.named(&kept.name) {
                kept.pairs.iter().for_each(|p| data_plane.sadb.count_lost(&data_plane.maps, heir, p));
            }
        }
        for (id, kept) in same {
            match resume(
                now,
                &mut self.endpoint,
                &mut self.tunnels,
                data_plane,
                self.keeper.as_ref(),
                id,
                &kept,
            ) {
                Outcome::GoesOn => drop(resumed.insert(id)),
                Outcome::Missing => self.endpoint.remove_tunnel(now, id),
                Outcome::Gone => {
                    kept.pairs.iter().for_each(|p| data_plane.sadb.count_lost(&data_plane.maps, id, p));
                    gone.push(kept);
                }
            }
        }
        data_plane.adopt();
        self.follow_groups();
        let Some(data_plane) = &mut self.data_plane else { return Ok(()) };
        let spent = data_plane.take_over(policies).await?;
        self.spent_spis.extend(spent);
        for kept in gone {
            self.dismiss(now, &kept);
        }
        let (all, resumed_count) = (self.tunnels.len(), resumed.len());
        self.log
            .info(format!("the data plane is there with its maps: {resumed_count} of {all} tunnels go on"));
        for id in self.order.clone() {
            if !resumed.contains(&id) {
                self.begin(now, id);
            }
        }
        self.all_have_begun();
        // Some may not have gone on.
        self.route();
        Ok(())
    }

    /// Tells a peer that what was kept of a tunnel is gone.
    fn dismiss(&mut self, now: Instant, kept: &Kept) {
        let Some(keeper) = &mut self.keeper else { return };
        if let Some(ike) = &kept.ike
            && let Err(e) = self.endpoint.dismiss(now, keeper.origin(), ike)
        {
            tracing::warn!("what was kept of tunnel {:?} is {e}: its peer is not told", kept.name);
        }
        // Not to be told once more by the next process: that would be with the same IVs.
        self.keep(TunnelId(kept.id));
    }
}

/// What becomes of a tunnel of which something was kept.
enum Outcome {
    /// It goes on.
    GoesOn,
    /// Its IKE SA is there, and its Child SAs are not in the maps any more.
    Missing,
    /// There is nothing to go on with.
    Gone,
}

/// Goes on with a tunnel as far as that is possible.
fn resume(
    now: Instant,
    endpoint: &mut Endpoint,
    tunnels: &mut Tunnels,
    data_plane: &mut DataPlane,
    keeper: Option<&Keeper>,
    id: TunnelId,
    kept: &Kept,
) -> Outcome {
    let enabled = tunnels.get(id).filter(|t| t.is_enabled()).map(|t| (t.ike_config(), t.limits()));
    let (Some(ike), Some(keeper), Some((config, limits))) = (&kept.ike, keeper, enabled) else {
        return Outcome::Gone;
    };
    endpoint.set_tunnel(now, config);
    let mut restored = match endpoint.restore(now, keeper.origin(), id, ike) {
        Ok(restored) => restored,
        Err(e) => {
            tunnels.with(id, |t| t.say(&format!("what an earlier control has kept is {e}")));
            return Outcome::Gone;
        }
    };
    let children = restored.children.len();
    let mut missing = Vec::new();
    restored.children.retain(|RestoredChild { child, .. }| {
        let spi = child.inbound.spi;
        let pair = kept.pairs.iter().find(|pair| pair.spi == spi);
        let adopted =
            pair.is_some_and(|pair| data_plane.sadb.adopt(&mut data_plane.maps, id, child, limits, pair));
        if let Some(pair) = pair.filter(|_| !adopted) {
            data_plane.sadb.count_lost(&data_plane.maps, id, pair);
        }
        missing.extend((!adopted).then_some(spi));
        adopted
    });
    if children > 0 && restored.children.is_empty() {
        tunnels.with(id, |t| t.say("the SAs of an earlier control are not in the maps any more"));
        return Outcome::Missing;
    }
    missing.into_iter().for_each(|spi| endpoint.close_child(now, id, spi));
    data_plane.sadb.begin(id);
    tunnels.with(id, |t| t.resume(now, &restored));
    Outcome::GoesOn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, sadb::KeptPair};
    use std::path::Path;

    fn config(switch_route: bool) -> Config {
        let text = format!(
            "{}[tunnel.health_check]\ndestination = \"10.2.0.1\"\nsource = \"10.1.0.1\"\nswitch_route = {switch_route}\n",
            include_str!("../config/tests/good.toml")
        );
        Config::parse(Path::new("t"), &text).unwrap()
    }

    /// What an earlier process leaves of a tunnel that was up.
    fn kept(config: &config::Tunnel) -> Kept {
        Kept {
            id: 7,
            name: config.name.clone(),
            fingerprint: config.fingerprint(),
            held: false,
            silent: false,
            rekeys: (1, 1),
            totals: Totals::default(),
            groups: Groups::new(TunnelId(7), config, &mut Slots::default()).unwrap().kept(),
            pairs: vec![KeptPair::default()],
            ike: Some(vec![1].into()),
        }
    }

    #[test]
    fn routes_are_withdrawn_from_the_start_where_nothing_is_known_to_answer() {
        let is_routed = |switch_route, left: Option<fn(&mut Kept)>| {
            let Config { gateway, tunnels, .. } = config(switch_route);
            let found = left.map(|change| {
                let mut kept = kept(&tunnels[0]);
                change(&mut kept);
                kept
            });
            let found = found.into_iter().collect();
            let (legacy, tunnels) = Legacy::tunnels(found, tunnels, &mut Slots::default(), &mut 0).unwrap();
            let wanted = legacy.wanted(&gateway, tunnels.iter());
            assert_ne!(wanted.remote.is_empty(), wanted.withdrawn.is_empty());
            !wanted.remote.is_empty()
        };
        assert!(is_routed(true, Some(|_| ())), "it goes on");
        assert!(!is_routed(true, None), "it has never been up");
        assert!(!is_routed(true, Some(|kept| kept.silent = true)));
        assert!(!is_routed(true, Some(|kept| kept.held = true)));
        assert!(!is_routed(true, Some(|kept| kept.ike = None)));
        assert!(!is_routed(true, Some(|kept| kept.pairs.clear())));
        assert!(!is_routed(true, Some(|kept| kept.fingerprint = [0; 32])), "it is another by now");
        assert!(is_routed(false, None));
    }
}
