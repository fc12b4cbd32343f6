//! Connection groups as they run: which member carries which flows.
//!
//! The policies of a group name a run of [`RUN`] slots of OUTBOUND; which of them a flow has is decided by its hash. Each
//! slot of a run follows a slot of one member: it seals with what that seals with. So a failover is a few stores, and no
//! policy changes.

use super::Groups;
use crate::{
    config::{self, GroupMode, Subnet},
    spd::{CompileError, Policy},
};
use adit_ike::TunnelId;
use adit_maps::policy::{FIRST_RUN, MAX_RUNS, RUN};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// A connection group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionGroup {
    config: config::Group,
    /// Those that run, in the order of preference.
    members: Vec<TunnelId>,
    runs: Vec<Run>,
}

/// Pairs of subnets that one Child SA of each member covers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    /// Its first slot.
    first: u32,
    pairs: Vec<(Subnet, Subnet)>,
    /// The slot of each member.
    slots: Vec<u32>,
}

/// What a member can do for some flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// It has no SA for them.
    None,
    /// It has one, and nothing answers at its other end.
    Silent,
    /// It has one.
    Healthy,
}

/// Every group, and the runs that are free.
#[derive(Clone, Debug)]
pub struct ConnectionGroups {
    groups: BTreeMap<String, ConnectionGroup>,
    members: HashMap<TunnelId, String>,
    /// By the first slot of each run that is taken.
    owners: HashMap<u32, String>,
    /// Nobody's, and named by policies in the maps, maybe.
    resting: Vec<u32>,
    free: VecDeque<u32>,
}

impl Default for ConnectionGroups {
    fn default() -> Self {
        let free = (0..MAX_RUNS as u32).map(|run| FIRST_RUN + run * RUN).collect();
        ConnectionGroups {
            groups: BTreeMap::new(),
            members: HashMap::new(),
            owners: HashMap::new(),
            resting: Vec::new(),
            free,
        }
    }
}

impl ConnectionGroups {
    /// What becomes of them with this configuration and these tunnels: runs for pairs that a group had stay what they are.
    /// Runs that nobody has any more rest until no policy in the maps names them ([`ConnectionGroups::take_resting`]).
    ///
    /// # Errors
    /// [`CompileError::TooManySlots`].
    pub fn next<'t>(
        &self,
        configured: &[config::Group],
        tunnel: impl Fn(&str) -> Option<(TunnelId, &'t Groups)>,
    ) -> Result<ConnectionGroups, CompileError> {
        let mut next = ConnectionGroups {
            free: self.free.clone(),
            resting: self.resting.clone(),
            ..ConnectionGroups::default()
        };
        let mut wanting = Vec::new();
        for config in configured {
            let found: Vec<_> = config.members.iter().filter_map(|name| tunnel(name)).collect();
            let members: Vec<TunnelId> = found.iter().map(|(id, _)| *id).collect();
            next.members.extend(members.iter().map(|id| (*id, config.name.clone())));
            // Where members negotiate some pairs apart, so do the group's runs.
            let finest = found.iter().max_by_key(|(_, groups)| groups.wholes().count());
            let before = self.groups.get(&config.name);
            let mut runs = Vec::new();
            for pairs in finest.into_iter().flat_map(|(_, groups)| groups.wholes()) {
                let slots = found.iter().filter_map(|(_, groups)| groups.slot_for(pairs.first()?)).collect();
                let known = before.and_then(|g| g.runs.iter().find(|run| run.pairs == pairs));
                let first = known.map_or(u32::MAX, |run| run.first);
                runs.push(Run { first, pairs: pairs.to_vec(), slots });
            }
            next.owners.extend(
                runs.iter().filter(|run| run.first != u32::MAX).map(|run| (run.first, config.name.clone())),
            );
            wanting.push(config.name.clone());
            next.groups
                .insert(config.name.clone(), ConnectionGroup { config: config.clone(), members, runs });
        }
        next.resting.extend(self.owners.keys().filter(|first| !next.owners.contains_key(first)));
        for name in wanting {
            let Some(group) = next.groups.get_mut(&name) else { continue };
            for run in group.runs.iter_mut().filter(|run| run.first == u32::MAX) {
                run.first = next.free.pop_front().ok_or(CompileError::TooManySlots)?;
                next.owners.insert(run.first, name.clone());
            }
        }
        Ok(next)
    }

    /// Takes the runs that policies in the maps name for the same pairs: whoever compiled them may have been an earlier
    /// process, and what they name seals. Other runs that are `in_use` there are the last to be taken: what follows a member
    /// now would be sealed with by policies for something else, until others are written.
    pub fn resume(&mut self, named: impl Fn(&(Subnet, Subnet)) -> Option<u32>, in_use: &BTreeSet<u32>) {
        let is_run = |first: &u32| {
            (*first).checked_sub(FIRST_RUN).is_some_and(|at| at % RUN == 0 && at / RUN < MAX_RUNS as u32)
        };
        let mut taken = BTreeSet::new();
        let mut runs: Vec<(&String, &mut Run)> = self
            .groups
            .iter_mut()
            .flat_map(|(name, g)| g.runs.iter_mut().map(move |run| (name, run)))
            .collect();
        let wanted: Vec<Option<u32>> = runs
            .iter()
            .map(|(_, run)| {
                run.pairs.first().and_then(&named).filter(is_run).filter(|first| taken.insert(*first))
            })
            .collect();
        let mut free: Vec<u32> = (0..MAX_RUNS as u32).map(|run| FIRST_RUN + run * RUN).collect();
        free.retain(|first| !taken.contains(first));
        free.sort_by_key(|first| in_use.contains(first));
        let mut free = free.into_iter();
        self.owners.clear();
        for ((name, run), first) in runs.iter_mut().zip(wanted) {
            // There are as many as before.
            if let Some(first) = first.or_else(|| free.next()) {
                run.first = first;
                self.owners.insert(first, (*name).clone());
            }
        }
        self.free = free.collect();
        self.resting.clear();
    }

    /// The runs, by their first slots, that nobody has any more, for whoever writes policies without them: when those are in
    /// the maps, [`ConnectionGroups::free`] takes them, and [`ConnectionGroups::rest`] where they could not be written.
    pub fn take_resting(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.resting)
    }

    /// Has runs rest as they did.
    pub fn rest(&mut self, runs: Vec<u32>) {
        self.resting.extend(runs);
    }

    /// Frees a run that no policy names any more, by its first slot; `false` where a group has it by now.
    pub fn free(&mut self, first: u32) -> bool {
        if self.owners.contains_key(&first) {
            return false;
        }
        if !self.free.contains(&first) {
            self.free.push_back(first);
        }
        true
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// All, by their names.
    pub fn values(&self) -> impl Iterator<Item = &ConnectionGroup> {
        self.groups.values()
    }

    /// The group of a tunnel.
    pub fn of(&self, tunnel: TunnelId) -> Option<&ConnectionGroup> {
        self.groups.get(self.members.get(&tunnel)?)
    }

    /// The group that has a slot of OUTBOUND in one of its runs.
    pub fn owner(&self, slot: u32) -> Option<&ConnectionGroup> {
        let first = slot - slot.checked_sub(FIRST_RUN)? % RUN;
        self.groups.get(self.owners.get(&first)?)
    }
}

impl ConnectionGroup {
    /// The policies of each pair of subnets.
    pub fn policies(&self) -> impl Iterator<Item = ((Subnet, Subnet), Vec<Policy>)> {
        self.runs
            .iter()
            .flat_map(|run| run.pairs.iter().map(|pair| (run.first, *pair)))
            .map(|(first, (l, r))| ((l, r), vec![Policy::protect(l.prefix(), r.prefix(), first)]))
    }

    /// Its configuration.
    pub fn config(&self) -> &config::Group {
        &self.config
    }

    /// Those that run, in the order of preference.
    pub fn members(&self) -> &[TunnelId] {
        &self.members
    }

    /// Which slot of a member each slot of its runs follows: (slot of a run, slot of a member).
    pub fn followed(&self, fitness: impl Fn(TunnelId, u32) -> Fitness) -> Vec<(u32, u32)> {
        let mut followed = Vec::with_capacity(self.runs.len() * RUN as usize);
        for run in &self.runs {
            let fit: Vec<Fitness> =
                self.members.iter().zip(&run.slots).map(|(id, slot)| fitness(*id, *slot)).collect();
            let carriers = carriers(self.config.mode, &fit);
            followed.extend(
                (run.first..).zip(carriers).filter_map(|(at, member)| Some((at, *run.slots.get(member)?))),
            );
        }
        followed
    }

    /// How many slots of its runs follow each member, of how many: what it carries of the flows.
    pub fn shares(&self, followed: impl Fn(u32) -> Option<u32>) -> Vec<(TunnelId, usize, usize)> {
        let all = self.runs.len() * RUN as usize;
        let count = |member: usize| {
            let of_run = |run: &Run| {
                let slot = run.slots.get(member).copied();
                (run.first..run.first + RUN).filter(|at| slot.is_some() && followed(*at) == slot).count()
            };
            self.runs.iter().map(of_run).sum()
        };
        self.members.iter().enumerate().map(|(at, id)| (*id, count(at), all)).collect()
    }
}

/// The member that carries each slot of a run. Those that are fittest do: where none is healthy, those that have an SA all
/// the same. With `active-active` each slot has a home, and only slots whose home is unfit move: a flow stays where it is
/// when another member goes, and comes back when its own does.
pub fn carriers(mode: GroupMode, fit: &[Fitness]) -> Vec<usize> {
    let best = fit.iter().max().copied().unwrap_or(Fitness::None);
    let able: Vec<usize> = (0..fit.len()).filter(|at| fit[*at] == best).collect();
    let Some(first) = able.first() else { return Vec::new() };
    let slots = 0..RUN as usize;
    match mode {
        GroupMode::ActiveStandby => slots.map(|_| *first).collect(),
        GroupMode::ActiveActive => slots
            .map(|slot| {
                let home = slot % fit.len();
                if fit[home] == best { home } else { able[slot / fit.len() % able.len()] }
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Slots, *};
    use proptest::prelude::*;

    const UP: Fitness = Fitness::Healthy;
    const SILENT: Fitness = Fitness::Silent;
    const DOWN: Fitness = Fitness::None;

    #[test]
    fn the_first_healthy_member_carries_everything() {
        for (fit, expected) in [
            ([UP, UP], 0),
            ([DOWN, UP], 1),
            ([SILENT, UP], 1),
            ([UP, DOWN], 0),
            ([SILENT, SILENT], 0),
            ([DOWN, SILENT], 1),
            ([DOWN, DOWN], 0),
        ] {
            assert_eq!(carriers(GroupMode::ActiveStandby, &fit), [expected; RUN as usize], "{fit:?}");
        }
    }

    fn all(groups: &ConnectionGroups) -> impl Iterator<Item = ((Subnet, Subnet), Vec<Policy>)> {
        groups.values().flat_map(ConnectionGroup::policies)
    }

    fn tunnel(name: &str, version: &str) -> config::Tunnel {
        let text = format!(
            "[gateway]\nname = \"a\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\n\
             [[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\n\
             [[tunnel]]\nname = \"{name}\"\npeer = \"b\"\nlocal_subnets = [\"10.1.0.0/16\"]\n\
             remote_subnets = [\"10.2.0.0/16\", \"10.3.0.0/16\"]\npsk = \"0123456789abcdef\"\n\
             ike.version = \"{version}\"\n"
        );
        config::Config::parse(std::path::Path::new("t"), &text).unwrap().tunnels.remove(0)
    }

    #[test]
    fn runs_stay_while_the_pairs_do_and_follow_each_members_own_slots() {
        let mut slots = Slots::default();
        let ids = [TunnelId(1), TunnelId(2)];
        let one = Groups::new(ids[0], &tunnel("one", "ikev2"), &mut slots).unwrap();
        let two = Groups::new(ids[1], &tunnel("two", "ikev1"), &mut slots).unwrap();
        let known = |name: &str| match name {
            "one" => Some((ids[0], &one)),
            "two" => Some((ids[1], &two)),
            _ => None,
        };
        let config = |members: &[&str], mode| config::Group {
            name: "g".into(),
            mode,
            members: members.iter().map(|name| (*name).to_owned()).collect(),
        };
        let both = [config(&["one", "two"], GroupMode::ActiveStandby)];
        let groups = ConnectionGroups::default().next(&both, known).unwrap();
        let group = groups.of(ids[1]).unwrap();
        // The second negotiates each pair by itself: so there are two runs, and the first has one slot for both.
        assert_eq!(group.followed(|_, _| UP).len(), 2 * RUN as usize);
        let only = |id: TunnelId| move |member: TunnelId, _: u32| if member == id { UP } else { DOWN };
        let leaders =
            |followed: Vec<(u32, u32)>| followed.into_iter().map(|(_, l)| l).collect::<BTreeSet<_>>();
        assert_eq!(leaders(group.followed(only(ids[0]))), [0].into());
        assert_eq!(leaders(group.followed(only(ids[1]))), [1, 2].into());

        let policies: Vec<Policy> = all(&groups).flat_map(|(_, policies)| policies).collect();
        let named: Vec<u32> = policies.iter().map(|p| p.slot).collect();
        assert_eq!(named, [FIRST_RUN, FIRST_RUN + RUN]);
        assert_eq!(groups.owner(FIRST_RUN + RUN + 3).unwrap().config().name, "g");
        assert!(groups.owner(0).is_none() && groups.owner(FIRST_RUN + 2 * RUN).is_none());
        let tables = crate::spd::compile(&policies, &Default::default()).unwrap();

        // Another mode, and another order: the same runs.
        let spread = [config(&["two", "one"], GroupMode::ActiveActive)];
        let next = groups.next(&spread, known).unwrap();
        assert_eq!(all(&next).flat_map(|(_, p)| p).map(|p| p.slot).collect::<Vec<_>>(), named);
        let shares = next.of(ids[0]).unwrap().shares(|slot| Some(if slot % 2 == 0 { 0 } else { 9 }));
        assert_eq!(shares, [(ids[1], 0, 32), (ids[0], 16, 32)]);

        // A later process goes on with what the maps name.
        let crowd = [config::Group { name: "a".into(), ..both[0].clone() }, both[0].clone()];
        let mut later = ConnectionGroups::default().next(&crowd[1..], known).unwrap();
        later.resume(
            |(l, r)| tables.slot_of(&l.prefix(), &r.prefix()).map(|slot| slot ^ RUN),
            &BTreeSet::new(),
        );
        let resumed: Vec<u32> = all(&later).flat_map(|(_, p)| p).map(|p| p.slot).collect();
        assert_eq!(resumed, [FIRST_RUN + RUN, FIRST_RUN]);
        later.resume(|_| Some(FIRST_RUN + 1), &BTreeSet::new());
        assert_eq!(all(&later).count(), 2, "what is no run is not taken");
        assert!(all(&later).flat_map(|(_, p)| p).all(|p| (p.slot - FIRST_RUN).is_multiple_of(RUN)));

        // What others' policies name is the last to be taken: it is sealed with until they are gone.
        later.resume(|_| None, &named.iter().copied().collect());
        assert!(all(&later).flat_map(|(_, p)| p).all(|p| !named.contains(&p.slot)));

        // Without the group its runs rest until they are in no policy; nobody has them in the meantime.
        let mut none = groups.next(&[], known).unwrap();
        assert!(none.is_empty() && none.owner(FIRST_RUN).is_none() && none.of(ids[0]).is_none());
        let named_by = |groups: &ConnectionGroups| {
            all(groups).flat_map(|(_, p)| p).map(|p| p.slot).collect::<BTreeSet<_>>()
        };
        let again = none.next(&both, known).unwrap();
        assert!(named_by(&again).is_disjoint(&named.iter().copied().collect()));
        let mut resting = none.take_resting();
        resting.sort_unstable();
        assert_eq!((resting, none.take_resting()), (named.clone(), Vec::new()));
        none.rest(named.clone());
        assert_eq!(none.next(&[], known).unwrap().take_resting(), named);
        assert!(named.iter().all(|first| none.free(*first) && none.free(*first)));
        assert_eq!(none.free.len(), MAX_RUNS);
        assert!(!groups.clone().free(FIRST_RUN), "it is the group's");
    }

    #[test]
    fn a_group_of_disabled_members_comes_behind_a_tunnel_that_runs() {
        let mut slots = Slots::default();
        let ids = [TunnelId(1), TunnelId(2), TunnelId(3)];
        let disabled = config::Tunnel { enabled: false, ..tunnel("t", "ikev2") };
        let [one, two] = [ids[0], ids[1]].map(|id| Groups::new(id, &disabled, &mut slots).unwrap());
        let runs = Groups::new(ids[2], &tunnel("runs", "ikev2"), &mut slots).unwrap();
        let group = config::Group {
            name: "g".into(),
            mode: GroupMode::ActiveStandby,
            members: vec!["one".into(), "two".into()],
        };
        let known = |name: &str| Some(if name == "one" { (ids[0], &one) } else { (ids[1], &two) });
        let groups = ConnectionGroups::default().next(&[group], known).unwrap();
        let first = |one: &Groups| {
            let tunnels = [(ids[0], one), (ids[1], &two), (ids[2], &runs)];
            crate::tunnel::policies(tunnels.into_iter(), &groups, true)[0].slot
        };
        assert_eq!(first(&one), runs.slots().next().unwrap());
        let mut enabled = Slots::default();
        assert_eq!(first(&Groups::new(ids[0], &tunnel("one", "ikev2"), &mut enabled).unwrap()), FIRST_RUN);
    }

    proptest! {
        #[test]
        fn flows_are_spread_and_move_only_where_they_must(
            fit in prop::collection::vec(prop_oneof![Just(UP), Just(DOWN)], 2..=8),
            goes in 0usize..8,
        ) {
            let goes = goes % fit.len();
            let before = carriers(GroupMode::ActiveActive, &fit);
            prop_assert_eq!(before.len(), RUN as usize);
            let healthy = fit.iter().filter(|f| **f == UP).count();
            if healthy > 0 {
                prop_assert!(before.iter().all(|member| fit[*member] == UP));
            }
            let mut after = fit.clone();
            after[goes] = DOWN;
            if healthy > 1 && fit[goes] == UP {
                let then = carriers(GroupMode::ActiveActive, &after);
                for (slot, (was, is)) in before.iter().zip(&then).enumerate() {
                    prop_assert!(*is != goes);
                    // One at home stays; one that was moved may move again.
                    if *was != goes && slot % fit.len() == *was {
                        prop_assert_eq!(was, is);
                    }
                }
                prop_assert_eq!(carriers(GroupMode::ActiveActive, &fit), before, "and come back");
            }
        }
    }

    #[test]
    fn every_healthy_member_has_its_share() {
        let share = |fit: &[Fitness]| {
            let carried = carriers(GroupMode::ActiveActive, fit);
            (0..fit.len()).map(|m| carried.iter().filter(|c| **c == m).count()).collect::<Vec<_>>()
        };
        assert_eq!(share(&[UP, UP]), [8, 8]);
        assert_eq!(share(&[UP, DOWN]), [16, 0]);
        assert_eq!(share(&[UP, UP, UP, UP]), [4, 4, 4, 4]);
        assert_eq!(share(&[UP, UP, UP, DOWN]), [6, 5, 5, 0]);
        assert_eq!(share(&[SILENT, DOWN]), [16, 0]);
    }
}
