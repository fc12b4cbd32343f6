//! The tunnels by number, by name, and by when they have something to do: no step of the task looks at all of them.

use crate::tunnel::Tunnel;
use adit_ike::TunnelId;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

/// Every tunnel.
#[derive(Default)]
pub(super) struct Tunnels {
    all: BTreeMap<TunnelId, Tunnel>,
    names: HashMap<String, TunnelId>,
    due: BTreeSet<(Instant, TunnelId)>,
}

impl Tunnels {
    pub(super) fn insert(&mut self, tunnel: Tunnel) {
        self.remove(tunnel.id());
        self.names.insert(tunnel.config().name.clone(), tunnel.id());
        self.due.extend(tunnel.due().map(|at| (at, tunnel.id())));
        self.all.insert(tunnel.id(), tunnel);
    }

    pub(super) fn remove(&mut self, id: TunnelId) -> Option<Tunnel> {
        let tunnel = self.all.remove(&id)?;
        self.names.remove(&tunnel.config().name);
        if let Some(at) = tunnel.due() {
            self.due.remove(&(at, id));
        }
        Some(tunnel)
    }

    pub(super) fn get(&self, id: TunnelId) -> Option<&Tunnel> {
        self.all.get(&id)
    }

    /// Does something to a tunnel, if it is there. It keeps its name.
    pub(super) fn with<T>(&mut self, id: TunnelId, f: impl FnOnce(&mut Tunnel) -> T) -> Option<T> {
        let tunnel = self.all.get_mut(&id)?;
        let before = tunnel.due();
        let result = f(tunnel);
        let after = tunnel.due();
        if before != after {
            before.map(|at| self.due.remove(&(at, id)));
            self.due.extend(after.map(|at| (at, id)));
        }
        Some(result)
    }

    pub(super) fn named(&self, name: &str) -> Option<TunnelId> {
        self.names.get(name).copied()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Tunnel> {
        self.all.values()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// When the first of them has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The one that is due first, if its time has come: it is to negotiate.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<TunnelId> {
        while let Some((_, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            if self.with(id, |t| t.handle_timeout(now)) == Some(true) {
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        tunnel::{Groups, State},
    };
    use std::{path::Path, time::Duration};

    fn tunnel(id: u32) -> Tunnel {
        let text = include_str!("../config/tests/good.toml").replace("a-b", &format!("t{id}"));
        let config = Config::parse(Path::new("t"), &text).unwrap().tunnels.remove(0);
        Tunnel::new(TunnelId(id), config, Groups::default())
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
}
