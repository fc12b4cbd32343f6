//! A worker without a kernel around it, for who measures it: its rings lie in memory, everything else is as it is in a
//! gateway. Whoever has one gives it frames with the metadata of the XDP program, lets it work, and takes what it sends.

use super::{Shared, SlowPath, Wire, Worker};
use crate::{
    XdpMode, backend,
    defrag::Defrag,
    error::Error,
    load,
    nexthop::{Known, Neighbour, PortLink, Published, Route, Snapshot, Table, View},
    report::{Counters, Figures},
    sys::{Waker, interface_index},
    tun::Tun,
    xsk::{FarSide, RING, Umem},
};
use adit_esp::Backend;
use adit_maps::{
    address::{Address, Prefix},
    meta::Meta,
    port::role,
    user::{Directory, Outbounds, Sad, Selectors, SpdTables, SpiIndex},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

/// The two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards the peers.
    Wan = 0,
    /// Towards the site's hosts.
    Lan = 1,
}

/// The network as the kernel would tell of it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Our address on the WAN.
    pub address: Address,
    /// The router on the WAN; every peer is behind it.
    pub router: Address,
    /// What is on the link of the LAN.
    pub lan: Prefix,
    /// The hosts there whose MAC addresses are known.
    pub hosts: Vec<Address>,
    /// What is behind tunnels.
    pub remote: Vec<Prefix>,
}

const MTU: u16 = 1500;
/// Interface indices of the two ports; nothing asks the kernel about them.
const INTERFACES: [u32; 2] = [1001, 1002];

/// A worker, and the far side of its two ports.
pub struct Gateway {
    worker: Worker,
    far: [FarSide; 2],
    figures: Figures,
    /// Neighbours that the worker would have the kernel ask for.
    _wanted: Receiver<Neighbour>,
}

impl Gateway {
    /// A worker on the maps in `dir`, made there for `max_sas` SAs, with a TUN device of this name and raw sockets in
    /// the calling thread's network namespace: it should be one of its own.
    ///
    /// # Errors
    /// As [`Dataplane::start`](crate::Dataplane::start).
    pub fn start(
        dir: &Directory,
        tun: &str,
        max_sas: u32,
        crypto: Option<Backend>,
        surroundings: &Surroundings,
    ) -> Result<Self, Error> {
        load::is_built()?;
        load::load(dir, max_sas, XdpMode::None)?;
        let shared = Shared {
            sad: Arc::new(Sad::open(dir)?),
            selectors: Arc::new(Selectors::open(dir)?),
            outbounds: Outbounds::open(dir)?,
            tun: Tun::open(tun)?,
            counters: Arc::new(Counters::open(dir, 0)?),
            crypto: backend(crypto),
            taps: Arc::default(),
            stop: Arc::default(),
        };
        let slow_path = SlowPath {
            spd: SpdTables::open(dir)?,
            spis: SpiIndex::open(dir)?,
            asker: Arc::default(),
            defrag: Defrag::open().map_err(Error::system("opening raw sockets"))?,
            looked: Instant::now(),
            tun_looked: None,
        };
        let published = Arc::new(Published::default());
        published.replace(snapshot(surroundings, interface_index(tun)));
        let (wanting, wanted) = sync_channel(1 << 16);
        let waker = Waker::new().map_err(Error::system("making an eventfd"))?;
        let view = View::new(published, wanting, waker);
        let memory = || Error::system("mapping memory for packets");
        let umem = Umem::new(4 * RING + crate::SPARE_FRAMES, crate::REASSEMBLED_FRAMES).map_err(memory())?;
        let (wan, far_wan) = FarSide::new().map_err(memory())?;
        let (lan, far_lan) = FarSide::new().map_err(memory())?;
        let wire = Wire::new(umem, vec![wan, lan], vec![Side::Wan as u32, Side::Lan as u32], view);
        Ok(Gateway {
            worker: Worker::new(wire, Arc::new(shared), Some(slow_path)),
            far: [far_wan, far_lan],
            figures: Figures::default(),
            _wanted: wanted,
        })
    }

    /// Lets a frame come in by a port, as the XDP program says; false when there is no room for it.
    pub fn give(&mut self, side: Side, meta: &Meta, frame: &[u8]) -> bool {
        let far = &mut self.far[side as usize];
        let given = far.give(&mut self.worker.wire.umem, meta.as_bytes(), frame);
        far.commit();
        given
    }

    /// Lets the worker go round once, and says how many packets it found and how long it took. Never inlined: whoever
    /// counts instructions finds it by its name.
    #[inline(never)]
    pub fn turn(&mut self) -> (usize, Duration) {
        let begun = Instant::now();
        let (packets, ended) = self.worker.turn(&self.figures);
        (packets, ended - begun)
    }

    /// Takes every frame that the worker has sent by a port; how many there were.
    pub fn take(&mut self, side: Side, each: impl FnMut(&[u8])) -> usize {
        self.far[side as usize].take(&mut self.worker.wire.umem, each)
    }
}

fn snapshot(around: &Surroundings, tun: Option<u32>) -> Snapshot {
    let mac = |last| [2, 0, 0, 0, 0, last];
    let port = |side: Side, roles, address: Option<Address>| PortLink {
        interface: INTERFACES[side as usize],
        roles,
        mac: mac(side as u8),
        mtu: MTU,
        is_up: true,
        addresses: [address, None],
    };
    let route = |prefix, interface, via| Route { prefix, metric: 0, interface, via, mtu: None };
    let everywhere = Prefix { len: Address::V4_PREFIX, address: Address::v4([0; 4]) };
    let mut routes = vec![
        route(everywhere, Some(INTERFACES[0]), Some(around.router)),
        route(around.lan, Some(INTERFACES[1]), None),
    ];
    routes.extend(around.remote.iter().map(|prefix| route(*prefix, tun, None)));
    let mut neighbours: HashMap<_, _> = around
        .hosts
        .iter()
        .map(|host| (Neighbour { interface: INTERFACES[1], address: *host }, Known::new(mac(20))))
        .collect();
    neighbours.insert(Neighbour { interface: INTERFACES[0], address: around.router }, Known::new(mac(10)));
    let mut ports = [const { None }; _];
    ports[0] = Some(port(Side::Wan, role::WAN, Some(around.address)));
    ports[1] = Some(port(Side::Lan, role::LAN, None));
    Snapshot {
        ports,
        tun,
        locals: HashSet::from([around.address]),
        routes: Table::new(&routes),
        neighbours,
        paths: HashMap::new(),
    }
}
