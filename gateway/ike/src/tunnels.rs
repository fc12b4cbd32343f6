//! The tunnels an endpoint knows, found by number, by addresses and by the peer's identity. Whoever can send a
//! datagram can have them looked up: what a look-up costs must not grow with how many share their addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    config::{Id, IkePolicy, TunnelConfig, TunnelId, Version},
    event::Path,
};

/// Every tunnel.
#[derive(Default)]
pub(crate) struct Tunnels {
    by_number: BTreeMap<TunnelId, Arc<TunnelConfig>>,
    places: BTreeMap<Place, Residents>,
}

/// Version, our address and the peer's, if it has one.
type Place = (Version, IpAddr, Option<IpAddr>);

/// The tunnels of one place. None of the sets is empty.
#[derive(Default)]
struct Residents {
    all: BTreeSet<TunnelId>,
    /// What IKE_SA_INIT can tell apart: phase 1, and whether there is a post-quantum pre-shared key.
    kinds: BTreeMap<(IkePolicy, bool), BTreeSet<TunnelId>>,
    by_peer_id: BTreeMap<Id, BTreeSet<TunnelId>>,
}

/// Tunnels that are the same as far as IKE_SA_INIT goes.
pub(crate) struct Kind {
    /// The first of them.
    pub(crate) tunnel: Arc<TunnelConfig>,
    /// How many they are.
    pub(crate) count: usize,
}

impl Tunnels {
    pub(crate) fn get(&self, id: &TunnelId) -> Option<&Arc<TunnelConfig>> {
        self.by_number.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Adds a tunnel, in place of the one that had its number.
    pub(crate) fn insert(&mut self, tunnel: TunnelConfig) {
        let id = tunnel.id;
        self.remove(&id);
        let residents = self.places.entry(place(&tunnel)).or_default();
        residents.all.insert(id);
        residents.kinds.entry(kind(&tunnel)).or_default().insert(id);
        residents.by_peer_id.entry(folded(&tunnel.peer_id)).or_default().insert(id);
        self.by_number.insert(id, Arc::new(tunnel));
    }

    pub(crate) fn remove(&mut self, id: &TunnelId) {
        let Some(tunnel) = self.by_number.remove(id) else { return };
        let place = place(&tunnel);
        let Some(residents) = self.places.get_mut(&place) else { return };
        residents.all.remove(id);
        withdraw(&mut residents.kinds, &kind(&tunnel), *id);
        withdraw(&mut residents.by_peer_id, &folded(&tunnel.peer_id), *id);
        if residents.all.is_empty() {
            self.places.remove(&place);
        }
    }

    /// The tunnels that a peer at this path may be of, by number; those of its address before those of any.
    pub(crate) fn at(&self, path: Path, version: Version) -> impl Iterator<Item = &Arc<TunnelConfig>> {
        self.residents(path, version).flat_map(|r| &r.all).filter_map(|id| self.get(id))
    }

    /// What kinds of those there are, in the same order.
    pub(crate) fn kinds_at(&self, path: Path, version: Version) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for residents in self.residents(path, version) {
            let mut here: Vec<_> = residents.kinds.values().collect();
            here.sort_by_key(|ids| ids.first());
            kinds.extend(
                here.into_iter().filter_map(|ids| {
                    Some(Kind { tunnel: self.get(ids.first()?)?.clone(), count: ids.len() })
                }),
            );
        }
        kinds
    }

    /// Those whose peer has this identity, in the same order.
    pub(crate) fn of_peer(&self, path: Path, version: Version, peer: &Id) -> Vec<Arc<TunnelConfig>> {
        let peer = folded(peer);
        let named = self.residents(path, version).filter_map(|r| r.by_peer_id.get(&peer));
        named.flatten().filter_map(|id| self.get(id).cloned()).collect()
    }

    fn residents(&self, path: Path, version: Version) -> impl Iterator<Item = &Residents> {
        let (local, peer) = (path.local.ip(), path.remote.ip());
        [Some(peer), None].into_iter().filter_map(move |peer| self.places.get(&(version, local, peer)))
    }
}

impl TunnelConfig {
    /// Whether a peer at this path may be of it.
    pub(crate) fn is_at(&self, path: Path, version: Version) -> bool {
        let (local, peer) = (path.local.ip(), path.remote.ip());
        self.ike.version == version && self.local == local && self.peer.is_none_or(|p| p == peer)
    }
}

fn place(tunnel: &TunnelConfig) -> Place {
    (tunnel.ike.version, tunnel.local, tunnel.peer)
}

fn kind(tunnel: &TunnelConfig) -> (IkePolicy, bool) {
    (tunnel.ike.clone(), tunnel.ppk.is_some())
}

/// The same for all identities that match each other.
fn folded(id: &Id) -> Id {
    match id {
        Id::Fqdn(name) => Id::Fqdn(name.to_ascii_lowercase()),
        Id::UserFqdn(name) => Id::UserFqdn(name.to_ascii_lowercase()),
        other => other.clone(),
    }
}

fn withdraw<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<TunnelId>>, key: &K, id: TunnelId) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(&id);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sa::tests::tunnel;

    fn named(id: u32, name: &str, peer: Option<&str>) -> TunnelConfig {
        TunnelConfig {
            id: TunnelId(id),
            peer_id: Id::Fqdn(name.into()),
            peer: peer.map(|p| p.parse().unwrap()),
            ..tunnel(0)
        }
    }

    #[test]
    fn tunnels_are_found_by_place_and_identity_until_they_go() {
        let local = tunnel(0).local;
        let path = Path {
            local: (local, 500).into(),
            remote: ("203.0.113.9".parse::<IpAddr>().unwrap(), 500).into(),
        };
        let mut tunnels = Tunnels::default();
        tunnels.insert(named(1, "Road.example", None));
        tunnels.insert(named(2, "road.example", Some("203.0.113.9")));
        tunnels.insert(named(3, "other.example", Some("203.0.113.9")));
        tunnels.insert(named(4, "road.example", Some("203.0.113.8")));
        let mut long = named(5, "long.example", Some("203.0.113.9"));
        long.ike.lifetime += Duration::from_secs(1);
        tunnels.insert(long);

        let numbers = |found: Vec<Arc<TunnelConfig>>| found.iter().map(|t| t.id.0).collect::<Vec<_>>();
        let road = Id::Fqdn("ROAD.example".into());
        assert_eq!(numbers(tunnels.at(path, Version::Ikev2).cloned().collect()), [2, 3, 5, 1]);
        assert_eq!(numbers(tunnels.of_peer(path, Version::Ikev2, &road)), [2, 1]);
        assert!(tunnels.of_peer(path, Version::Ikev1, &road).is_empty());
        let kinds: Vec<_> =
            tunnels.kinds_at(path, Version::Ikev2).iter().map(|k| (k.tunnel.id.0, k.count)).collect();
        assert_eq!(kinds, [(2, 2), (5, 1), (1, 1)]);

        tunnels.insert(named(2, "moved.example", Some("203.0.113.9")));
        assert_eq!(numbers(tunnels.of_peer(path, Version::Ikev2, &road)), [1]);
        (1..=5).for_each(|id| tunnels.remove(&TunnelId(id)));
        assert_eq!((tunnels.len(), tunnels.places.len()), (0, 0));
    }
}
