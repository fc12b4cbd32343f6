//! The tunnels an endpoint knows, found by number, by addresses and by the peer's identity. Whoever can send a
//! datagram can have them looked up: what a look-up costs must not grow with how many share their addresses.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    config::{Id, IkePolicy, Mode, NatT, TunnelConfig, TunnelId, Version},
    event::Path,
};

/// Every tunnel.
#[derive(Default)]
pub(crate) struct Tunnels {
    by_number: BTreeMap<TunnelId, Arc<TunnelConfig>>,
    places: BTreeMap<Place, Residents>,
}

/// How a peer speaks, which says as early as its addresses what tunnels it cannot mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dialect {
    Ikev2,
    MainMode,
    AggressiveMode,
}

/// Our address and the peer's, if it has one.
type Place = (Dialect, IpAddr, Option<IpAddr>);

/// Identities that are named where another came, as many as people read.
const NAMED: usize = 8;

/// The tunnels of one place. None of the sets is empty.
#[derive(Default)]
struct Residents {
    all: BTreeSet<TunnelId>,
    kinds: BTreeMap<Traits, BTreeSet<TunnelId>>,
    by_peer_id: BTreeMap<Id, BTreeSet<TunnelId>>,
    /// Main mode needs the key before it is told an identity.
    by_psk: BTreeMap<ByPsk, BTreeSet<TunnelId>>,
}

/// What a first message can tell apart: phase 1, NAT traversal, and whether there is a post-quantum pre-shared key.
type Traits = (IkePolicy, NatT, bool);

/// A tunnel in the order of the pre-shared keys. Only keys of our own configuration are compared so, never what came.
struct ByPsk(Arc<TunnelConfig>);

impl PartialEq for ByPsk {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByPsk {}

impl PartialOrd for ByPsk {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByPsk {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.psk.as_bytes().cmp(other.0.psk.as_bytes())
    }
}

/// The tunnels that an initiator of main mode may mean: those of its address, or else those of any.
pub(crate) struct MainMode {
    /// The first of those with each pre-shared key, by number.
    pub(crate) keys: Vec<Arc<TunnelConfig>>,
    pub(crate) kinds: Vec<Kind>,
    /// Whether they are of the initiator's address.
    pub(crate) of_address: bool,
    /// How many they are.
    pub(crate) count: usize,
}

/// Tunnels that are the same as far as a first message goes.
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
        let tunnel = Arc::new(tunnel);
        for place in places(&tunnel) {
            let residents = self.places.entry(place).or_default();
            residents.all.insert(id);
            residents.kinds.entry(traits(&tunnel)).or_default().insert(id);
            residents.by_peer_id.entry(folded(&tunnel.peer_id)).or_default().insert(id);
            if place.0 == Dialect::MainMode {
                residents.by_psk.entry(ByPsk(tunnel.clone())).or_default().insert(id);
            }
        }
        self.by_number.insert(id, tunnel);
    }

    pub(crate) fn remove(&mut self, id: &TunnelId) {
        let Some(tunnel) = self.by_number.remove(id) else { return };
        for place in places(&tunnel) {
            let Some(residents) = self.places.get_mut(&place) else { continue };
            residents.all.remove(id);
            withdraw(&mut residents.kinds, &traits(&tunnel), *id);
            withdraw(&mut residents.by_peer_id, &folded(&tunnel.peer_id), *id);
            withdraw(&mut residents.by_psk, &ByPsk(tunnel.clone()), *id);
            if residents.all.is_empty() {
                self.places.remove(&place);
            }
        }
    }

    /// The tunnels that a peer at this path may be of, by number; those of its address before those of any.
    pub(crate) fn at(&self, path: Path, version: Version) -> impl Iterator<Item = &Arc<TunnelConfig>> {
        let dialects = match version {
            Version::Ikev1 => &[Dialect::MainMode, Dialect::AggressiveMode][..],
            Version::Ikev2 => &[Dialect::Ikev2],
        };
        let residents = dialects.iter().flat_map(move |dialect| self.residents(path, *dialect));
        residents.flat_map(|r| &r.all).filter_map(|id| self.get(id))
    }

    /// The one tunnel that a peer at this path may be of, if it is one.
    pub(crate) fn only(&self, path: Path, version: Version) -> Option<&Arc<TunnelConfig>> {
        let mut all = self.at(path, version);
        let tunnel = all.next()?;
        all.next().is_none().then_some(tunnel)
    }

    /// What kinds of tunnels there are, those of the peer's address before those of any.
    pub(crate) fn kinds_at(&self, path: Path, dialect: Dialect) -> Vec<Kind> {
        self.residents(path, dialect).flat_map(|residents| self.kinds_of(residents)).collect()
    }

    /// Those whose peer has this identity, in the same order.
    pub(crate) fn of_peer(&self, path: Path, dialect: Dialect, peer: &Id) -> Vec<Arc<TunnelConfig>> {
        let peer = folded(peer);
        let named = self.residents(path, dialect).filter_map(|r| r.by_peer_id.get(&peer));
        named.flatten().filter_map(|id| self.get(id).cloned()).collect()
    }

    /// The other tunnels at a tunnel's first address whose peer has the same identity.
    pub(crate) fn beside(&self, tunnel: &TunnelConfig) -> impl Iterator<Item = &Arc<TunnelConfig>> {
        let residents = self.places.get(&place(tunnel, tunnel.local));
        let named = residents.and_then(|residents| residents.by_peer_id.get(&folded(&tunnel.peer_id)));
        named.into_iter().flatten().filter(|id| **id != tunnel.id).filter_map(|id| self.get(id))
    }

    /// What peers have for identities there: the first few, to be told where another came.
    pub(crate) fn peer_ids(&self, path: Path, dialect: Dialect) -> Vec<Id> {
        let first = self.residents(path, dialect).flat_map(|r| r.by_peer_id.keys().take(NAMED));
        first.collect::<BTreeSet<_>>().into_iter().take(NAMED).cloned().collect()
    }

    /// What an initiator of main mode at this path may mean, if anything.
    pub(crate) fn main_mode(&self, path: Path) -> Option<MainMode> {
        let residents = self.residents(path, Dialect::MainMode).next()?;
        let mut firsts: Vec<_> = residents.by_psk.values().filter_map(|ids| ids.first()).collect();
        firsts.sort_unstable();
        let keys: Vec<_> = firsts.into_iter().filter_map(|id| self.get(id).cloned()).collect();
        Some(MainMode {
            of_address: keys.iter().any(|tunnel| tunnel.peer.is_some()),
            keys,
            kinds: self.kinds_of(residents),
            count: residents.all.len(),
        })
    }

    fn kinds_of(&self, residents: &Residents) -> Vec<Kind> {
        let mut kinds: Vec<_> = residents.kinds.values().collect();
        kinds.sort_by_key(|ids| ids.first());
        let kind = |ids: &BTreeSet<TunnelId>| {
            Some(Kind { tunnel: self.get(ids.first()?)?.clone(), count: ids.len() })
        };
        kinds.into_iter().filter_map(kind).collect()
    }

    fn residents(&self, path: Path, dialect: Dialect) -> impl Iterator<Item = &Residents> {
        let (local, peer) = (path.local.ip(), path.remote.ip());
        [Some(peer), None].into_iter().filter_map(move |peer| self.places.get(&(dialect, local, peer)))
    }
}

impl TunnelConfig {
    /// The addresses of ours that it is at.
    fn locals(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [self.local].into_iter().chain(self.other_local)
    }

    /// Our address for a peer: the one of its family.
    pub(crate) fn local_to(&self, peer: IpAddr) -> IpAddr {
        self.locals().find(|local| local.is_ipv4() == peer.is_ipv4()).unwrap_or(self.local)
    }

    /// Whether it is at this address of ours.
    pub(crate) fn is_local(&self, ip: IpAddr) -> bool {
        self.locals().any(|local| local == ip)
    }

    /// Whether a peer at this path may be of it.
    pub(crate) fn is_at(&self, path: Path, version: Version) -> bool {
        let (local, peer) = (path.local.ip(), path.remote.ip());
        self.ike.version == version && self.is_local(local) && self.peer.is_none_or(|p| p == peer)
    }
}

/// Where a tunnel is found.
fn places(tunnel: &TunnelConfig) -> impl Iterator<Item = Place> {
    tunnel.locals().map(|local| place(tunnel, local))
}

fn place(tunnel: &TunnelConfig, local: IpAddr) -> Place {
    let dialect = match (tunnel.ike.version, tunnel.ike.mode) {
        (Version::Ikev2, _) => Dialect::Ikev2,
        (Version::Ikev1, Mode::Main) => Dialect::MainMode,
        (Version::Ikev1, Mode::Aggressive) => Dialect::AggressiveMode,
    };
    (dialect, local, tunnel.peer)
}

fn traits(tunnel: &TunnelConfig) -> Traits {
    (tunnel.ike.clone(), tunnel.nat_t, tunnel.ppk.is_some())
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
    use crate::{config::Psk, sa::tests::tunnel};

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
        assert_eq!(numbers(tunnels.of_peer(path, Dialect::Ikev2, &road)), [2, 1]);
        assert!(tunnels.of_peer(path, Dialect::MainMode, &road).is_empty());
        let expected: Vec<_> = tunnels.peer_ids(path, Dialect::Ikev2).iter().map(Id::to_string).collect();
        assert_eq!(expected, ["long.example", "other.example", "road.example"]);
        let kinds: Vec<_> =
            tunnels.kinds_at(path, Dialect::Ikev2).iter().map(|k| (k.tunnel.id.0, k.count)).collect();
        assert_eq!(kinds, [(2, 2), (5, 1), (1, 1)]);

        tunnels.insert(named(2, "moved.example", Some("203.0.113.9")));
        assert_eq!(numbers(tunnels.of_peer(path, Dialect::Ikev2, &road)), [1]);
        (1..=5).for_each(|id| tunnels.remove(&TunnelId(id)));
        assert_eq!((tunnels.len(), tunnels.places.len()), (0, 0));
    }

    #[test]
    fn a_tunnel_of_two_addresses_is_found_at_both_until_it_goes() {
        let [v4, v6] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let far = ["203.0.113.9", "2001:db8:f::9"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let at = |local, peer: IpAddr| Path { local: (local, 500).into(), remote: (peer, 500).into() };
        let mut tunnels = Tunnels::default();
        let both = TunnelConfig { local: v4, other_local: Some(v6), ..named(1, "a.example", None) };
        assert_eq!(far.map(|peer| both.local_to(peer)), [v4, v6]);
        assert!(both.is_at(at(v6, far[1]), Version::Ikev2));
        tunnels.insert(both);
        let one = TunnelConfig { local: v4, ..named(2, "a.example", None) };
        assert!(!one.is_at(at(v6, far[1]), Version::Ikev2));
        tunnels.insert(one);

        let numbers = |path| tunnels.at(path, Version::Ikev2).map(|t| t.id.0).collect::<Vec<_>>();
        assert_eq!((numbers(at(v4, far[0])), numbers(at(v6, far[1]))), (vec![1, 2], vec![1]));
        assert!(numbers(at("2001:db8::2".parse().unwrap(), far[1])).is_empty());
        (1..=2).for_each(|id| tunnels.remove(&TunnelId(id)));
        assert_eq!((tunnels.len(), tunnels.places.len()), (0, 0));
    }

    #[test]
    fn main_mode_is_given_one_tunnel_of_each_key_of_the_nearest_place() {
        let path = Path {
            local: (tunnel(0).local, 500).into(),
            remote: ("203.0.113.9".parse::<IpAddr>().unwrap(), 500).into(),
        };
        let mut tunnels = Tunnels::default();
        let mut add = |id, peer, psk: &str, mode| {
            let mut tunnel = TunnelConfig { psk: Psk::new(psk), ..named(id, &format!("{id}.example"), peer) };
            (tunnel.ike.version, tunnel.ike.mode) = (Version::Ikev1, mode);
            tunnels.insert(tunnel);
        };
        (10..30).for_each(|id| add(id, None, "shared", Mode::Main));
        add(1, None, "aggressive", Mode::Aggressive);
        let seen = |tunnels: &Tunnels| {
            let main = tunnels.main_mode(path).unwrap();
            let keys = main.keys.iter().map(|t| t.id.0).collect::<Vec<_>>();
            (keys, main.of_address, main.count, main.kinds.len())
        };
        assert_eq!(seen(&tunnels), (vec![10], false, 20, 1));
        assert_eq!(tunnels.peer_ids(path, Dialect::MainMode).len(), NAMED);
        tunnels.remove(&TunnelId(10));
        assert_eq!(seen(&tunnels), (vec![11], false, 19, 1));
        let mut add = |id, psk: &str| {
            let peer = Some("203.0.113.9");
            let mut tunnel = TunnelConfig { psk: Psk::new(psk), ..named(id, "a.example", peer) };
            tunnel.ike.version = Version::Ikev1;
            tunnels.insert(tunnel);
        };
        [(4, "z"), (5, "a"), (6, "z")].into_iter().for_each(|(id, psk)| add(id, psk));
        assert_eq!(seen(&tunnels), (vec![4, 5], true, 3, 1));
        assert!(tunnels.only(path, Version::Ikev1).is_none());
        (0..30).for_each(|id| tunnels.remove(&TunnelId(id)));
        assert!(tunnels.main_mode(path).is_none() && tunnels.places.is_empty());
    }
}
