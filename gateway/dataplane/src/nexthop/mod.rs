//! Where a packet goes next: port, MAC addresses, MTU.
//!
//! One thread ([`netlink`]) follows the kernel's links, addresses, routes and neighbours and publishes a
//! [`Snapshot`] after every change. Workers hold the current snapshot through a [`View`]: they compare one atomic
//! number a batch and take the new snapshot only when it has changed. A lookup allocates nothing and takes no lock.
//!
//! What is sent by AF_XDP passes the kernel by, which would let the entries of neighbours grow old, or keep a MAC address
//! that nobody has any more. So a lookup marks the neighbours that it leads to, whoever marks one first asks the kernel
//! to check it, and the thread asks again whenever an entry goes stale that was marked since.

mod netlink;
mod paths;
mod table;

pub(crate) use netlink::{Followed, Link, links};
pub(crate) use table::{Route, Table};

use crate::packet::is_host;
use adit_maps::{
    address::Address,
    port::{MAX_PORTS, role},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::SyncSender,
    },
};

/// What a packet is, which decides what routes it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// A sealed packet on its way to a peer. Routes into a tunnel are not looked at.
    Outer,
    /// An opened packet in clear. It never leaves by a port that only faces peers.
    Inner,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    /// Slot of the port.
    pub(crate) slot: u32,
    /// MTU of port, route or path in bytes.
    pub(crate) mtu: u16,
    /// Its MAC address.
    pub(crate) destination: [u8; 6],
    /// The port's MAC address.
    pub(crate) source: [u8; 6],
}

/// What is known about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Send it there.
    Hop(Hop),
    /// It is one of our own addresses.
    Local,
    /// The way is known, the neighbour's MAC address not yet.
    Unresolved {
        /// MTU of port, route or path in bytes.
        mtu: u16,
        /// The neighbour to ask for.
        neighbour: Neighbour,
    },
    /// There is no way.
    None,
}

/// A neighbour: interface index and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Neighbour {
    pub(crate) interface: u32,
    pub(crate) address: Address,
}

/// A neighbour whose MAC address is known.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) mac: [u8; 6],
    /// Whether somebody has sent to it since the kernel was last asked to check it. Shared by all snapshots.
    pub(crate) used: Arc<AtomicBool>,
}

impl Known {
    pub(crate) fn new(mac: [u8; 6]) -> Self {
        Known { mac, used: Arc::default() }
    }
}

/// A port as the kernel has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortLink {
    pub(crate) interface: u32,
    pub(crate) roles: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    pub(crate) is_up: bool,
    /// Its first IPv4 and IPv6 address of global scope.
    pub(crate) addresses: [Option<Address>; 2],
}

/// The kernel's view of the network at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// By slot.
    pub(crate) ports: [Option<PortLink>; MAX_PORTS as usize],
    pub(crate) tun: Option<u32>,
    pub(crate) locals: HashSet<Address>,
    pub(crate) routes: Table,
    pub(crate) neighbours: HashMap<Neighbour, Known>,
    /// What routers have said of the paths to peers, in bytes.
    pub(crate) paths: HashMap<Address, u16>,
}

impl Snapshot {
    /// The next hop to `destination`. A neighbour that is used and not marked so is given to `check`, and marked if that
    /// returns true.
    pub(crate) fn resolve(
        &self,
        way: Way,
        destination: &Address,
        check: impl FnOnce(Neighbour) -> bool,
    ) -> Resolution {
        if self.locals.contains(destination) {
            return Resolution::Local;
        }
        if !is_host(destination) {
            return Resolution::None;
        }
        let admits = |r: &Route| way == Way::Inner || r.interface.is_none() || r.interface != self.tun;
        let Some(route) = self.routes.look_up(destination, admits) else { return Resolution::None };
        let Some((slot, port)) = (0..).zip(&self.ports).find_map(|(slot, port)| {
            let port = port.as_ref()?;
            (Some(port.interface) == route.interface).then_some((slot, port))
        }) else {
            return Resolution::None;
        };
        if !port.is_up || (way == Way::Inner && port.roles & role::LAN == 0) {
            return Resolution::None;
        }
        let neighbour = Neighbour { interface: port.interface, address: route.via.unwrap_or(*destination) };
        let path = (way == Way::Outer).then(|| self.paths.get(destination)).flatten();
        let mtu = [route.mtu, path.copied()].into_iter().flatten().fold(port.mtu, u16::min);
        match self.neighbours.get(&neighbour) {
            Some(Known { mac, used }) => {
                if !used.load(Ordering::Relaxed) && check(neighbour) {
                    used.store(true, Ordering::Relaxed);
                }
                Resolution::Hop(Hop { slot, mtu, destination: *mac, source: port.mac })
            }
            None => Resolution::Unresolved { mtu, neighbour },
        }
    }

    /// The gateway's address on a port, of the version of `like`.
    pub(crate) fn own_address(&self, slot: u32, like: &Address) -> Option<Address> {
        let port = self.ports.get(slot as usize)?.as_ref()?;
        port.addresses[usize::from(!like.is_v4())]
    }
}

/// Where snapshots are published.
#[derive(Default)]
pub(crate) struct Published {
    /// Raised with every snapshot.
    epoch: AtomicU64,
    current: Mutex<Arc<Snapshot>>,
}

impl Published {
    pub(crate) fn replace(&self, snapshot: Snapshot) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Destinations that a worker remembers.
const REMEMBERED: usize = 1024;

#[derive(Clone, Copy)]
struct Memory {
    way: Way,
    destination: Address,
    resolution: Resolution,
}

/// A worker's eyes on the published snapshots.
pub(crate) struct View {
    published: Arc<Published>,
    epoch: u64,
    snapshot: Arc<Snapshot>,
    /// Resolutions of this epoch, by a hash of the destination.
    memory: Box<[Option<Memory>]>,
    /// Raised whenever these are forgotten.
    stamp: u64,
    wanted: SyncSender<Neighbour>,
    waker: crate::sys::Waker,
}

impl View {
    pub(crate) fn new(
        published: Arc<Published>,
        wanted: SyncSender<Neighbour>,
        waker: crate::sys::Waker,
    ) -> Self {
        let epoch = published.epoch.load(Ordering::Acquire);
        let snapshot = published.current();
        View { published, epoch, snapshot, memory: vec![None; REMEMBERED].into(), stamp: 0, wanted, waker }
    }

    /// Takes the newest snapshot; whether there was a newer one.
    pub(crate) fn refresh(&mut self) -> bool {
        let epoch = self.published.epoch.load(Ordering::Acquire);
        if epoch == self.epoch {
            return false;
        }
        (self.epoch, self.snapshot) = (epoch, self.published.current());
        self.forget();
        true
    }

    /// Forgets what it remembers, so that the neighbours in use are marked anew.
    pub(crate) fn forget(&mut self) {
        self.memory.fill(None);
        self.stamp += 1;
    }

    /// A number that is another once what was resolved before may be so no longer, or its neighbours are to be marked
    /// anew: for who remembers a resolution himself.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// As [`Snapshot::resolve`], remembered.
    #[inline(always)]
    pub(crate) fn resolve(&mut self, way: Way, destination: &Address) -> Resolution {
        let [.., a, b, c, d] = destination.0;
        let hash = u32::from_be_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1) >> 16;
        let place = (hash as usize + way as usize) % REMEMBERED;
        match &self.memory[place] {
            Some(m) if m.way == way && m.destination == *destination => m.resolution,
            _ => self.resolve_anew(way, *destination, place),
        }
    }

    #[inline(never)]
    fn resolve_anew(&mut self, way: Way, destination: Address, place: usize) -> Resolution {
        let resolution = self.snapshot.resolve(way, &destination, |n| self.ask_for(n));
        self.memory[place] = Some(Memory { way, destination, resolution });
        resolution
    }

    /// Lets the kernel look for a neighbour, or check that it is still there; false when too many are waiting.
    pub(crate) fn ask_for(&self, neighbour: Neighbour) -> bool {
        let is_asked = self.wanted.try_send(neighbour).is_ok();
        if is_asked {
            self.waker.wake();
        }
        is_asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_maps::address::Prefix;
    use std::net::IpAddr;

    const TUN: u32 = 9;
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn address(s: &str) -> Address {
        s.parse::<IpAddr>().unwrap().into()
    }

    fn route(prefix: &str, interface: Option<u32>, via: Option<&str>) -> Route {
        let (ip, len) = prefix.split_once('/').unwrap();
        let prefix = Prefix::new(ip.parse().unwrap(), len.parse().unwrap()).unwrap();
        Route { prefix, metric: 0, interface, via: via.map(address), mtu: None }
    }

    fn port(interface: u32, roles: u32) -> Option<PortLink> {
        Some(PortLink {
            interface,
            roles,
            mac: [2, 0, 0, 0, 1, interface as u8],
            mtu: 1500,
            is_up: true,
            addresses: [Some(address("192.0.2.1")), None],
        })
    }

    fn snapshot() -> Snapshot {
        let mut s = Snapshot { tun: Some(TUN), ..Snapshot::default() };
        s.ports[0] = port(3, role::WAN);
        s.ports[1] = port(4, role::LAN);
        s.locals = HashSet::from([address("192.0.2.1"), address("10.1.0.1")]);
        s.routes = Table::new(&[
            route("0.0.0.0/0", Some(3), Some("192.0.2.254")),
            route("0.0.0.0/1", Some(TUN), None),
            route("10.1.0.0/16", Some(4), None),
            route("10.9.0.0/16", None, None),
            route("10.8.0.0/16", Some(77), None),
        ]);
        s.neighbours = HashMap::from([
            (Neighbour { interface: 3, address: address("192.0.2.254") }, Known::new(MAC)),
            (Neighbour { interface: 4, address: address("10.1.0.2") }, Known::new(MAC)),
        ]);
        s
    }

    fn find(s: &Snapshot, way: Way, destination: &Address) -> Resolution {
        s.resolve(way, destination, |_| true)
    }

    #[test]
    fn sealed_packets_never_go_into_a_tunnel_again() {
        let s = snapshot();
        let hop = Hop { slot: 0, mtu: 1500, destination: MAC, source: [2, 0, 0, 0, 1, 3] };
        assert_eq!(find(&s, Way::Outer, &address("100.64.0.1")), Resolution::Hop(hop));
        assert_eq!(find(&s, Way::Inner, &address("100.64.0.1")), Resolution::None);
    }

    #[test]
    fn opened_packets_never_leave_in_clear_towards_peers() {
        let s = snapshot();
        assert_eq!(find(&s, Way::Inner, &address("198.51.100.1")), Resolution::None);
        assert!(matches!(find(&s, Way::Outer, &address("198.51.100.1")), Resolution::Hop(_)));
        assert!(matches!(find(&s, Way::Inner, &address("10.1.0.2")), Resolution::Hop(Hop { slot: 1, .. })));
    }

    #[test]
    fn a_path_is_as_long_as_its_narrowest_place() {
        let mut s = snapshot();
        let mtu = |s: &Snapshot, way, to: &str| match find(s, way, &address(to)) {
            Resolution::Hop(hop) => Some(hop.mtu),
            _ => None,
        };
        s.paths = HashMap::from([(address("198.51.100.1"), 1300), (address("10.1.0.2"), 1200)]);
        assert_eq!(mtu(&s, Way::Outer, "198.51.100.1"), Some(1300));
        assert_eq!(mtu(&s, Way::Outer, "198.51.100.2"), Some(1500));
        assert_eq!(mtu(&s, Way::Inner, "10.1.0.2"), Some(1500));
        s.ports[0].as_mut().unwrap().mtu = 1280;
        assert_eq!(mtu(&s, Way::Outer, "198.51.100.1"), Some(1280));
    }

    #[test]
    fn unknown_neighbours_refusing_routes_and_foreign_interfaces() {
        let mut s = snapshot();
        let neighbour = Neighbour { interface: 4, address: address("10.1.0.3") };
        let unresolved = Resolution::Unresolved { mtu: 1500, neighbour };
        assert_eq!(find(&s, Way::Inner, &address("10.1.0.3")), unresolved);
        assert_eq!(find(&s, Way::Inner, &address("10.1.0.1")), Resolution::Local);
        for nowhere in ["10.9.0.1", "10.8.0.1", "224.0.0.5", "255.255.255.255", "2001:db8::1"] {
            assert_eq!(find(&s, Way::Inner, &address(nowhere)), Resolution::None, "{nowhere}");
        }
        s.ports[1].as_mut().unwrap().is_up = false;
        assert_eq!(find(&s, Way::Inner, &address("10.1.0.2")), Resolution::None);
    }

    #[test]
    fn a_neighbour_is_checked_once_when_it_is_used_until_its_mark_is_taken_away() {
        let published = Arc::new(Published::default());
        published.replace(snapshot());
        let (wanted, asked) = std::sync::mpsc::sync_channel(1);
        let mut view = View::new(published.clone(), wanted, crate::sys::Waker::new().unwrap());
        let host = Neighbour { interface: 4, address: address("10.1.0.2") };
        for expected in [Some(host), None] {
            let stamp = view.stamp();
            view.forget();
            assert_ne!(view.stamp(), stamp);
            assert!(matches!(view.resolve(Way::Inner, &host.address), Resolution::Hop(_)));
            assert_eq!(asked.try_recv().ok(), expected);
        }
        view.snapshot().neighbours[&host].used.store(false, Ordering::Relaxed);
        // With no room to ask, it is left for the next one.
        assert!(view.ask_for(host) && !view.ask_for(host));
        view.forget();
        view.resolve(Way::Inner, &host.address);
        asked.try_recv().unwrap();
        view.forget();
        view.resolve(Way::Inner, &host.address);
        assert_eq!(asked.try_recv(), Ok(host));
    }

    #[test]
    fn a_view_forgets_with_the_epoch() {
        let published = Arc::new(Published::default());
        let (wanted, _asked) = std::sync::mpsc::sync_channel(1);
        let mut view = View::new(published.clone(), wanted, crate::sys::Waker::new().unwrap());
        assert_eq!(view.resolve(Way::Inner, &address("10.1.0.2")), Resolution::None);
        published.replace(snapshot());
        assert_eq!(view.resolve(Way::Inner, &address("10.1.0.2")), Resolution::None);
        assert!(view.refresh() && !view.refresh());
        for _ in 0..2 {
            assert!(matches!(view.resolve(Way::Inner, &address("10.1.0.2")), Resolution::Hop(_)));
        }
    }
}
