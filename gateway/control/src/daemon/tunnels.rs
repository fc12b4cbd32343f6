//! The tunnels by number, by name, and by when they have something to do: no step of the task looks at all of them.

use super::attempts::Attempts;
use crate::{
    config,
    status::Event,
    tunnel::{State, Tunnel},
};
use adit_ike::TunnelId;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};
use tokio::sync::broadcast;

/// Events that are kept for who is slow to take them.
const KEPT_EVENTS: usize = 1024;

/// Every tunnel.
pub(super) struct Tunnels {
    all: BTreeMap<TunnelId, Box<Tunnel>>,
    names: HashMap<String, TunnelId>,
    due: BTreeSet<(Instant, TunnelId)>,
    /// When their health checks go on.
    checks: BTreeSet<(Instant, TunnelId)>,
    /// Whether routes of one are to be withdrawn, or are to come back.
    rerouted: bool,
    /// Those that something happened to.
    touched: BTreeSet<TunnelId>,
    attempts: Attempts,
    events: broadcast::Sender<Event>,
}

impl Default for Tunnels {
    fn default() -> Self {
        Tunnels {
            all: BTreeMap::new(),
            names: HashMap::new(),
            due: BTreeSet::new(),
            checks: BTreeSet::new(),
            rerouted: false,
            touched: BTreeSet::new(),
            attempts: Attempts::default(),
            events: broadcast::Sender::new(KEPT_EVENTS),
        }
    }
}

impl Tunnels {
    /// Where what happens to them is told.
    pub(super) fn events(&self) -> broadcast::Sender<Event> {
        self.events.clone()
    }

    pub(super) fn insert(&mut self, tunnel: Tunnel) {
        self.remove(tunnel.id());
        self.names.insert(tunnel.config().name.clone(), tunnel.id());
        self.due.extend(tunnel.due().map(|at| (at, tunnel.id())));
        self.checks.extend(tunnel.check_due().map(|at| (at, tunnel.id())));
        self.all.insert(tunnel.id(), Box::new(tunnel));
    }

    pub(super) fn remove(&mut self, id: TunnelId) -> Option<Tunnel> {
        let tunnel = self.all.remove(&id)?;
        self.names.remove(&tunnel.config().name);
        if let Some(at) = tunnel.due() {
            self.due.remove(&(at, id));
        }
        if let Some(at) = tunnel.check_due() {
            self.checks.remove(&(at, id));
        }
        self.attempts.end(id);
        if self.events.receiver_count() > 0 {
            // Nobody may be there any more.
            let _ = self.events.send(Event::Removed { tunnel: tunnel.config().name.clone() });
        }
        Some(*tunnel)
    }

    pub(super) fn get(&self, id: TunnelId) -> Option<&Tunnel> {
        self.all.get(&id).map(|tunnel| &**tunnel)
    }

    /// Takes the names of another configuration of a tunnel.
    pub(super) fn rename(&mut self, id: TunnelId, config: &config::Tunnel) {
        let Some(tunnel) = self.all.get_mut(&id) else { return };
        // Its old name may be another's by now.
        if self.names.get(&tunnel.config().name) == Some(&id) {
            self.names.remove(&tunnel.config().name);
        }
        if tunnel.config().name != config.name && self.events.receiver_count() > 0 {
            let (tunnel, to) = (tunnel.config().name.clone(), config.name.clone());
            // Nobody may be there any more.
            let _ = self.events.send(Event::Renamed { tunnel, to });
        }
        let before = (tunnel.check_due(), tunnel.is_withdrawn());
        let told = (tunnel.state(), tunnel.log().count());
        tunnel.rename(config);
        if self.events.receiver_count() > 0 {
            tell(&self.events, tunnel, told);
        }
        note_check(&mut self.checks, before.0, tunnel);
        self.rerouted |= before.1 != tunnel.is_withdrawn();
        self.names.insert(config.name.clone(), id);
        self.touched.insert(id);
    }

    /// Does something to a tunnel, if it is there. It keeps its name.
    pub(super) fn with<T>(&mut self, id: TunnelId, f: impl FnOnce(&mut Tunnel) -> T) -> Option<T> {
        let tunnel = self.all.get_mut(&id)?;
        let (before, check_before, withdrawn) = (tunnel.due(), tunnel.check_due(), tunnel.is_withdrawn());
        let told = (tunnel.state(), tunnel.log().count());
        let result = f(tunnel);
        let after = tunnel.due();
        if self.events.receiver_count() > 0 {
            tell(&self.events, tunnel, told);
        }
        if before != after {
            before.map(|at| self.due.remove(&(at, id)));
            self.due.extend(after.map(|at| (at, id)));
        }
        note_check(&mut self.checks, check_before, tunnel);
        self.rerouted |= withdrawn != tunnel.is_withdrawn();
        self.touched.insert(id);
        if !tunnel.is_attempting() {
            self.attempts.end(id);
        }
        Some(result)
    }

    /// Something happened to one.
    pub(super) fn touch(&mut self, id: TunnelId) {
        self.touched.insert(id);
    }

    pub(super) fn named(&self, name: &str) -> Option<TunnelId> {
        self.names.get(name).copied()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Tunnel> {
        self.all.values().map(|tunnel| &**tunnel)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// When [`Tunnels::pop_due`] has something to give, unless a negotiation under way ends before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let (first, _) = self.due.first()?;
        Some(self.attempts.room_at().map_or(*first, |room| room.max(*first)))
    }

    /// When a health check goes on.
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.checks.first().map(|(at, _)| *at)
    }

    /// The one whose health check is due first, if its time has come.
    pub(super) fn due_check(&self, now: Instant) -> Option<TunnelId> {
        self.checks.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }

    /// Those that something happened to since this was asked last.
    pub(super) fn take_touched(&mut self) -> BTreeSet<TunnelId> {
        std::mem::take(&mut self.touched)
    }

    /// Whether routes of a tunnel are to be withdrawn, or are to come back, since this was asked last.
    pub(super) fn take_rerouted(&mut self) -> bool {
        std::mem::take(&mut self.rerouted)
    }

    /// The one that is due first, if its time has come and not too many negotiate already: it is to negotiate.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<TunnelId> {
        while self.attempts.has_room(now)
            && let Some((_, id)) = self.due.first().copied().filter(|(at, _)| *at <= now)
        {
            if self.with(id, |t| t.handle_timeout(now)) == Some(true) {
                self.attempts.begin(now, id);
                return Some(id);
            }
        }
        None
    }
}

fn note_check(checks: &mut BTreeSet<(Instant, TunnelId)>, before: Option<Instant>, tunnel: &Tunnel) {
    let after = tunnel.check_due();
    if before != after {
        before.map(|at| checks.remove(&(at, tunnel.id())));
        checks.extend(after.map(|at| (at, tunnel.id())));
    }
}

/// Tells what is new of a tunnel that had this state and as many entries in its log.
fn tell(events: &broadcast::Sender<Event>, tunnel: &Tunnel, (state, logged): (State, u64)) {
    let name = || tunnel.config().name.clone();
    let entries = tunnel.log().since(logged).into_iter().map(|entry| Event::Log { tunnel: name(), entry });
    let state = (tunnel.state() != state).then(|| Event::State { tunnel: name(), state: tunnel.state() });
    // Nobody may be there any more.
    entries.chain(state).for_each(|event| drop(events.send(event)));
}

#[cfg(test)]
mod tests {
    use super::{
        super::attempts::{AT_ONCE, PATIENCE},
        *,
    };
    use crate::{
        config::{Config, HealthCheck},
        tunnel::{Failed, Groups},
    };
    use std::{path::Path, time::Duration};

    fn tunnel(id: u32) -> Tunnel {
        let text = include_str!("../config/tests/good.toml").replace("a-b", &format!("t{id}"));
        let config = Config::parse(Path::new("t"), &text).unwrap().tunnels.remove(0);
        Tunnel::new(TunnelId(id), config, Groups::default())
    }

    fn check() -> HealthCheck {
        HealthCheck {
            destination: [10, 2, 0, 1].into(),
            source: [10, 1, 0, 1].into(),
            interval: Duration::from_secs(1),
            retries: 1,
            switch_route: false,
        }
    }

    #[test]
    fn each_is_due_once_and_in_order() {
        let mut tunnels = Tunnels::default();
        let now = Instant::now();
        for id in 0..3 {
            tunnels.insert(tunnel(id));
            let at = now + Duration::from_secs(3 - u64::from(id));
            tunnels.with(TunnelId(id), |t| t.begin(at));
        }
        assert_eq!((tunnels.len(), tunnels.pop_due(now)), (3, None));
        assert_eq!(tunnels.next_due(), Some(now + Duration::from_secs(1)));
        tunnels.remove(TunnelId(1));
        let late = now + Duration::from_secs(9);
        assert_eq!([0; 3].map(|_| tunnels.pop_due(late)), [Some(TunnelId(2)), Some(TunnelId(0)), None]);
        assert_eq!(tunnels.next_due(), None);
        assert_eq!((tunnels.named("t2"), tunnels.named("t1")), (Some(TunnelId(2)), None));
        assert_eq!(tunnels.get(TunnelId(2)).unwrap().state(), State::Connecting);
    }

    #[test]
    fn who_looks_is_told_what_happens() {
        let mut tunnels = Tunnels::default();
        tunnels.insert(tunnel(1));
        let mut events = tunnels.events().subscribe();
        tunnels.with(TunnelId(1), |t| t.child_up(&crate::sadb::tests::child(256)));
        let mut told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        assert_eq!(told.pop(), Some(Event::State { tunnel: "t1".into(), state: State::Connected }));
        let is_said = |event: &Event| matches!(event, Event::Log { tunnel, entry } if tunnel == "t1" && entry.text == "connecting → connected");
        assert!(told.iter().any(is_said), "{told:?}");
        let mut renamed = tunnel(1).config().clone();
        tunnels.rename(TunnelId(1), &renamed);
        renamed.name = "other".into();
        tunnels.rename(TunnelId(1), &renamed);
        assert_eq!(events.try_recv().unwrap(), Event::Renamed { tunnel: "t1".into(), to: "other".into() });
        renamed.health_check = Some(check());
        tunnels.rename(TunnelId(1), &renamed);
        let told = events.try_recv().unwrap();
        let is_said = |event: &Event| matches!(event, Event::Log { tunnel, entry } if tunnel == "other" && entry.text == "the health check begins anew");
        assert!(is_said(&told), "{told:?}");
        tunnels.remove(TunnelId(1));
        assert_eq!(events.try_recv().unwrap(), Event::Removed { tunnel: "other".into() });
    }

    /// `count` tunnels that are all to negotiate now.
    fn many(now: Instant, count: u32) -> Tunnels {
        let mut tunnels = Tunnels::default();
        for id in 0..count {
            tunnels.insert(tunnel(id));
            tunnels.with(TunnelId(id), |t| t.begin(now));
        }
        tunnels
    }

    fn all_due(tunnels: &mut Tunnels, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| tunnels.pop_due(now)).map(|id| id.0).collect()
    }

    #[test]
    fn only_some_negotiate_at_once_and_in_order() {
        let (now, at_once) = (Instant::now(), AT_ONCE as u32);
        let mut tunnels = many(now, at_once + 10);
        assert!(all_due(&mut tunnels, now).into_iter().eq(0..at_once));
        assert_eq!(tunnels.next_due(), Some(now + PATIENCE));
        // One ends well, one goes, one fails and comes again later.
        tunnels.with(TunnelId(3), |t| t.child_up(&crate::sadb::tests::child(256)));
        tunnels.remove(TunnelId(4));
        tunnels.with(TunnelId(5), |t| t.failed(now, Failed::early(), &"refused", None));
        assert!(all_due(&mut tunnels, now).into_iter().eq(at_once..at_once + 3));
        // What the peer began in vain leaves our own attempt under way.
        let theirs = Failed { ours: false, ..Failed::early() };
        tunnels.with(TunnelId(6), |t| t.failed(now, theirs, &"refused", None));
        assert_eq!(all_due(&mut tunnels, now), [0; 0]);
    }

    #[test]
    fn peers_that_do_not_answer_hold_up_nobody_for_long() {
        let (begun, at_once) = (Instant::now(), AT_ONCE as u32);
        let (silent, all) = (3 * at_once, 4 * at_once);
        let mut tunnels = many(begun, all);
        let (mut now, mut up) = (begun, 0);
        while up < all - silent {
            let due = all_due(&mut tunnels, now);
            assert!(due.len() <= AT_ONCE && tunnels.next_due().is_none_or(|at| at > now));
            for id in due.into_iter().filter(|id| *id >= silent) {
                tunnels.with(TunnelId(id), |t| t.child_up(&crate::sadb::tests::child(256)));
                up += 1;
            }
            now = tunnels.next_due().unwrap_or(now);
        }
        assert_eq!(now, begun + 3 * PATIENCE);
    }
}
