//! BGP: what BIRD is to do, and what follows from what it tells.

use super::run::Daemon;
use crate::bird::{Goal, Learned, Report, protocol};
use adit_ike::TunnelId;
use adit_maps::policy::MAX_PAIRS;
use std::{collections::BTreeSet, net::Ipv4Addr, time::Instant};

/// Pairs of classes that all that is learned may become: there is room for them twice, before and after a change, beside as
/// many that are configured.
const LEARNED_PAIRS: usize = MAX_PAIRS / 4;

impl Daemon {
    /// Has BIRD follow the tunnels, and the tunnels what is learned.
    pub(super) fn follow_bgp(&mut self) {
        let tunnels = self.order.iter().filter_map(|id| self.tunnels.get(*id));
        let goal = Goal::of(&self.options.config.gateway, tunnels.map(|tunnel| tunnel.config()));
        self.bird.send_if_modified(|told| {
            let differs = *told != goal;
            *told = goal;
            differs
        });
        self.follow_learned();
        self.follow_sessions();
    }

    /// BIRD tells something.
    pub(super) fn handle_report(&mut self, now: Instant, report: Report) {
        match report {
            Report::Sessions(sessions) => {
                self.sessions = Some(sessions);
                self.follow_sessions();
            }
            Report::Learned(learned) => {
                self.learned = learned;
                if self.follow_learned() {
                    self.policies_changed(now);
                }
            }
        }
    }

    /// Gives each tunnel what BIRD last said of its session. A tunnel that has begun anew may have the session it had, of which
    /// BIRD has nothing new to say.
    fn follow_sessions(&mut self) {
        let Some(sessions) = self.sessions.take() else { return };
        for (id, name) in self.speakers(protocol) {
            let known = match &sessions {
                // One that BIRD is not told of yet is not there either.
                Ok(sessions) => sessions.get(&name).cloned().map(Ok),
                Err(why) => Some(Err(why.clone())),
            };
            self.tunnels.with(id, |tunnel| known.map(|known| tunnel.session_is(known)));
        }
        self.sessions = Some(sessions);
    }

    /// What an earlier process left BIRD with is sent on from the first moment.
    pub(super) fn resume_learned(&mut self, learned: Learned) {
        self.learned = learned;
        self.follow_learned();
    }

    /// Gives each tunnel what its peer teaches. Whether policies have to follow.
    fn follow_learned(&mut self) -> bool {
        let nothing = BTreeSet::new();
        let mut changed = false;
        let speakers = self.speakers(crate::config::Bgp::peer_ip);
        let room = match speakers.iter().any(|(_, hop)| self.learned.contains_key(hop)) {
            true => self.room(&speakers),
            false => 0,
        };
        for (id, hop) in speakers {
            let prefixes = self.learned.get(&hop).unwrap_or(&nothing);
            changed |= self.tunnels.with(id, |tunnel| tunnel.learn(prefixes, room)) == Some(true);
        }
        changed
    }

    /// How many prefixes each peer may teach: each becomes a pair with every source prefix of all policies.
    fn room(&self, speakers: &[(TunnelId, Ipv4Addr)]) -> usize {
        let sources: BTreeSet<_> = self.configured_policies().iter().map(|policy| policy.local).collect();
        let weigh = |(id, hop): &(TunnelId, Ipv4Addr)| {
            let groups = self.tunnels.get(*id)?.groups();
            Some((self.learned.get(hop)?.len(), groups.weight()))
        };
        let taught: Vec<(usize, usize)> = speakers.iter().filter_map(weigh).collect();
        let heaviest = taught.iter().map(|(_, weight)| *weight).max().unwrap_or(1);
        // What a narrowed Child SA makes of a pair has sources of its own, no more than it has parts.
        let sources = (sources.len() + if heaviest > 1 { heaviest } else { 0 }).max(1);
        fair_share(LEARNED_PAIRS / sources / heaviest, taught.into_iter().map(|(count, _)| count).collect())
    }

    /// The tunnels that have BGP and are enabled.
    fn speakers<T>(&self, f: impl Fn(&crate::config::Bgp) -> T) -> Vec<(TunnelId, T)> {
        let of = |id: &TunnelId| {
            let config = self.tunnels.get(*id)?.config();
            config.bgp.as_deref().filter(|_| config.enabled).map(|bgp| (*id, f(bgp)))
        };
        self.order.iter().filter_map(of).collect()
    }
}

/// How much each may have where all together have `room`: who wants less than others has it all, and what that leaves is the
/// others'.
fn fair_share(mut room: usize, mut wanted: Vec<usize>) -> usize {
    wanted.sort_unstable();
    let count = wanted.len();
    for (at, want) in wanted.into_iter().enumerate() {
        let share = room / (count - at);
        if want > share {
            return share;
        }
        room -= want;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_most_gets_less_and_nobody_else_does() {
        assert_eq!(fair_share(10, vec![]), usize::MAX);
        assert_eq!(fair_share(10, vec![4, 3, 3]), usize::MAX);
        assert_eq!(fair_share(10, vec![1000, 2, 2]), 6);
        assert_eq!(fair_share(10, vec![1000, 2, 1000]), 4);
        assert_eq!(fair_share(1, vec![5, 5]), 0);
    }
}
