//! Following the kernel by rtnetlink: links, addresses, routes, neighbours.
//!
//! Neighbours change often and are followed change by change. A change of anything else reads that table anew: the
//! kernel says nothing of the routes that vanish with a link, and a route that replaces another looks like a new one.

use super::{Known, Neighbour, PortLink, Published, Route, Snapshot, Table, paths::Paths};
use crate::{
    error::Error,
    port::Port,
    sys::{Waker, poll, readable},
};
use adit_maps::{
    address::{Address, Prefix},
    user::{Locals, Ports, Sad},
};
use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteType, RouteVia,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Neighbours asked for that may wait for the thread.
const WANTED: usize = 256;
/// Changes come in bursts: what comes within this time makes one snapshot.
const BURST: Duration = Duration::from_millis(5);
/// How often what could not be read is read again, and what has become of paths is told.
const TICK: Duration = Duration::from_secs(1);
/// Dumps that a change interrupts are repeated so many times.
const ATTEMPTS: usize = 5;

/// An interface as the kernel lists it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: u32,
    pub(crate) is_up: bool,
    /// The interface of this namespace that it is stacked on, as a macvlan or a VLAN.
    pub(crate) lower: Option<u32>,
    /// Whether it is a port of a bridge or a bond.
    pub(crate) is_enslaved: bool,
    /// Whether an XDP program is attached in driver (or offloaded) mode; `None` when there is none.
    pub(crate) xdp_in_driver: Option<bool>,
}

/// The thread that follows the kernel, and what it publishes.
pub(crate) struct Followed {
    pub(crate) published: Arc<Published>,
    pub(crate) wanted: SyncSender<Neighbour>,
    pub(crate) waker: Waker,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Ends the workers with the thread that holds it, however that ends: without it they would go on by next hops of the
/// past.
struct Lifeline {
    stop: Arc<AtomicBool>,
    workers: Vec<Waker>,
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.workers.iter().for_each(Waker::wake);
    }
}

impl Followed {
    /// Reads everything once, fills LOCALS and the MAC addresses of PORTS, and goes on in a thread until `stop`. `workers` are woken after every
    /// change, and when the thread ends, which sets `stop`.
    pub(crate) fn start(
        ports: &[Port],
        tun: &str,
        (locals, entries, sad): (Locals, Ports, Arc<Sad>),
        workers: Vec<Waker>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let published = Arc::new(Published::default());
        let (wanted, asked) = sync_channel(WANTED);
        let waker = Waker::new().map_err(Error::system("making an eventfd"))?;

        let events = subscribe().map_err(Error::Netlink)?;
        let mut follower = Follower {
            events,
            solicitor: Solicitor::open().map_err(Error::Netlink)?,
            ports: ports.to_vec(),
            tun: tun.to_owned(),
            links: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            neighbours: HashMap::new(),
            written: locals.entries()?.into_iter().map(|(a, _)| a).collect(),
            locals,
            entries,
            macs: vec![[0; 6]; ports.len()],
            paths: Paths::open(sad, Instant::now()).map_err(Error::system("opening raw sockets"))?,
            published: published.clone(),
            workers: workers.clone(),
        };
        follower.read_all().map_err(Error::Netlink)?;
        follower.write_locals()?;
        follower.write_macs()?;
        follower.publish();

        let (lifeline, woken) = (Lifeline { stop: stop.clone(), workers }, waker.clone());
        let thread = thread::Builder::new()
            .name("adit-nexthop".into())
            .spawn(move || follower.follow(&asked, &woken, &lifeline.stop))
            .map_err(Error::system("starting a thread"))?;
        Ok(Followed { published, wanted, waker, stop, thread })
    }

    pub(crate) fn stop(self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        self.thread.join().map_err(|_| Error::Died("the thread that follows routes".into()))
    }
}

/// What has to be read anew.
#[derive(Default)]
struct Stale {
    tables: bool,
    neighbours: bool,
}

impl Stale {
    fn any(&self) -> bool {
        self.tables || self.neighbours
    }
}

struct Follower {
    events: Socket,
    solicitor: Solicitor,
    ports: Vec<Port>,
    tun: String,
    links: Vec<Link>,
    addresses: Vec<(u32, Address, AddressScope)>,
    routes: Vec<Route>,
    neighbours: HashMap<Neighbour, Known>,
    locals: Locals,
    written: HashSet<Address>,
    entries: Ports,
    /// Of each port, as it stands in `entries`.
    macs: Vec<[u8; 6]>,
    paths: Paths,
    published: Arc<Published>,
    workers: Vec<Waker>,
}

impl Follower {
    fn follow(mut self, asked: &Receiver<Neighbour>, waker: &Waker, stop: &AtomicBool) {
        let mut stale = Stale::default();
        let mut tick = Instant::now() + TICK;
        loop {
            self.wait(waker, tick);
            waker.reset();
            if stop.load(Ordering::Acquire) {
                return;
            }
            asked.try_iter().for_each(|neighbour| self.solicitor.solicit(&neighbour));
            let mut changed = self.drain(&mut stale);
            let now = Instant::now();
            changed |= self.paths.hear(now, &self.published.current()) | self.paths.forget(now);
            if stale.any() {
                thread::sleep(BURST);
                self.drain(&mut stale);
                let read = if stale.neighbours { self.read_all() } else { self.read_tables() };
                match read {
                    Ok(()) => stale = Stale::default(),
                    Err(error) => tracing::warn!(
                        %error, "cannot read links, addresses and routes; the last ones stay in use"
                    ),
                }
                if let Err(error) = self.write_locals().and_then(|()| self.write_macs()) {
                    tracing::error!(%error, "the gateway's addresses cannot be written to LOCALS and PORTS");
                    stale.tables = true;
                }
                changed = true;
            }
            if changed {
                self.publish();
            }
            if changed || now >= tick {
                self.paths.show(&self.published.current());
                tick = now + TICK;
            }
        }
    }

    /// Waits until there is something to do, `until` at the latest.
    fn wait(&self, waker: &Waker, until: Instant) {
        let now = Instant::now();
        let mut fds = vec![readable(&self.events), readable(waker)];
        let until = match self.paths.sockets(now) {
            Ok(sockets) => {
                fds.extend(sockets.map(readable));
                until
            }
            Err(pause) => until.min(pause),
        };
        // Rounded up: what is a fraction of a millisecond away must not be waited for by spinning.
        poll(&mut fds, until.saturating_duration_since(now).as_millis() as i32 + 1);
    }

    /// Takes every event that waits; whether a neighbour changed.
    fn drain(&mut self, stale: &mut Stale) -> bool {
        let mut changed = false;
        loop {
            match self.events.recv_from_full() {
                Ok((bytes, _)) => {
                    for message in messages(&bytes) {
                        match message.payload {
                            NetlinkPayload::InnerMessage(m) => changed |= self.event(&m, stale),
                            NetlinkPayload::Overrun(_) => *stale = Stale { tables: true, neighbours: true },
                            _ => {}
                        }
                    }
                }
                // Events were lost.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    *stale = Stale { tables: true, neighbours: true };
                }
                Err(_) => return changed,
            }
        }
    }

    fn event(&mut self, message: &RouteNetlinkMessage, stale: &mut Stale) -> bool {
        match message {
            RouteNetlinkMessage::NewNeighbour(m) => self.neighbour(m, false),
            RouteNetlinkMessage::DelNeighbour(m) => self.neighbour(m, true),
            _ => {
                stale.tables = true;
                false
            }
        }
    }

    /// Takes in one neighbour; whether it changed.
    fn neighbour(&mut self, message: &NeighbourMessage, gone: bool) -> bool {
        let Some((neighbour, mac)) = parse_neighbour(message) else { return false };
        if !is_on_port(&self.ports, &neighbour) {
            return false;
        }
        let Some(mac) = mac.filter(|_| !gone) else { return self.neighbours.remove(&neighbour).is_some() };
        let Some(known) = self.neighbours.get_mut(&neighbour) else {
            self.neighbours.insert(neighbour, Known::new(mac));
            return true;
        };
        // What is sent past the kernel does not keep its entry fresh.
        if message.header.state == NeighbourState::Stale && known.used.swap(false, Ordering::Relaxed) {
            self.solicitor.solicit(&neighbour);
        }
        std::mem::replace(&mut known.mac, mac) != mac
    }

    fn read_all(&mut self) -> io::Result<()> {
        self.read_tables()?;
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let neighbours = Requests::open()?.dump(&request)?;
        self.neighbours = neighbours
            .iter()
            .filter_map(|m| {
                let RouteNetlinkMessage::NewNeighbour(m) = m else { return None };
                let (neighbour, mac) = parse_neighbour(m)?;
                is_on_port(&self.ports, &neighbour).then_some((neighbour, Known::new(mac?)))
            })
            .collect();
        Ok(())
    }

    fn read_tables(&mut self) -> io::Result<()> {
        let requests = Requests::open()?;
        let links = requests.links()?;
        let addresses = requests.dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let addresses = addresses.iter().filter_map(|m| match m {
            RouteNetlinkMessage::NewAddress(m) => parse_address(m),
            _ => None,
        });
        let addresses = addresses.collect();
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let found = requests.dump(&RouteNetlinkMessage::GetRoute(request))?;
            routes.extend(found.iter().filter_map(|m| match m {
                RouteNetlinkMessage::NewRoute(m) => parse_route(m),
                _ => None,
            }));
        }
        (self.links, self.addresses, self.routes) = (links, addresses, routes);
        Ok(())
    }

    /// Brings LOCALS in line with the addresses.
    fn write_locals(&mut self) -> Result<(), adit_maps::user::Error> {
        let now: HashSet<Address> = self.addresses.iter().map(|(_, a, _)| *a).collect();
        for gone in self.written.difference(&now) {
            self.locals.remove(gone)?;
        }
        for new in now.difference(&self.written) {
            self.locals.insert(*new, 1)?;
        }
        self.written = now;
        Ok(())
    }

    /// Brings the MAC addresses in PORTS in line with the interfaces'.
    fn write_macs(&mut self) -> Result<(), adit_maps::user::Error> {
        for (port, written) in self.ports.iter().zip(&mut self.macs) {
            let link = self.links.iter().find(|l| l.index == port.ifindex);
            let mac = link.map_or([0; 6], |link| own_mac(&self.links, link));
            if mac != *written {
                self.entries.insert(port.ifindex, port.entry(mac))?;
                *written = mac;
            }
        }
        Ok(())
    }

    fn publish(&mut self) {
        let mut snapshot = Snapshot {
            tun: self.links.iter().find(|l| l.name == self.tun).map(|l| l.index),
            locals: self.written.clone(),
            routes: Table::new(&self.routes),
            neighbours: self.neighbours.clone(),
            paths: self.paths.learned(),
            ..Snapshot::default()
        };
        for port in &self.ports {
            // By index: an interface that was made anew under the old name does not carry the program.
            let Some(link) = self.links.iter().find(|l| l.index == port.ifindex) else {
                if self.published.current().ports[port.slot as usize].is_some() {
                    tracing::error!(
                        interface = port.interface,
                        "is gone; restart the data plane when it is back"
                    );
                }
                continue;
            };
            let Some(mac) = link.mac else { continue };
            let address = |v4: bool| {
                self.addresses
                    .iter()
                    .find(|(i, a, s)| *i == port.ifindex && a.is_v4() == v4 && *s == AddressScope::Universe)
                    .map(|(_, a, _)| *a)
            };
            snapshot.ports[port.slot as usize] = Some(PortLink {
                interface: link.index,
                roles: port.roles,
                mac,
                mtu: link.mtu.min(u32::from(u16::MAX)) as u16,
                is_up: link.is_up,
                addresses: [address(true), address(false)],
            });
        }
        self.published.replace(snapshot);
        self.workers.iter().for_each(Waker::wake);
    }
}

/// The MAC address that all frames have which are ours; zero where others share the interface: a bridge that it is a port
/// of, or a macvlan on it with another address, such as VRRP makes.
fn own_mac(links: &[Link], port: &Link) -> [u8; 6] {
    let is_shared = port.is_enslaved
        || links.iter().any(|l| l.lower == Some(port.index) && l.mac.is_some() && l.mac != port.mac);
    port.mac.filter(|_| !is_shared).unwrap_or_default()
}

fn is_on_port(ports: &[Port], neighbour: &Neighbour) -> bool {
    ports.iter().any(|p| p.ifindex == neighbour.interface)
}

/// Every interface of this network namespace.
pub(crate) fn links() -> io::Result<Vec<Link>> {
    Requests::open()?.links()
}

/// A socket for questions. After one that failed it is not used again: what still comes would be taken for the answer
/// to the next.
struct Requests(Socket);

impl Requests {
    fn open() -> io::Result<Self> {
        to_the_kernel().map(Requests)
    }

    /// Every entry of a table.
    fn dump(&self, request: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut entries = Vec::new();
        for _ in 0..ATTEMPTS {
            entries.clear();
            send(&self.0, request.clone(), NLM_F_DUMP)?;
            if self.replies(&mut entries)? {
                break;
            }
        }
        // Whatever keeps changing tells of its changes, and is read again then.
        Ok(entries)
    }

    /// Reads the answer to a dump; false when a change interrupted it.
    fn replies(&self, entries: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let mut consistent = true;
        loop {
            let (bytes, _) = self.0.recv_from_full()?;
            for message in messages(&bytes) {
                consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(m) => entries.push(m),
                    NetlinkPayload::Done(_) => return Ok(consistent),
                    NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                    _ => {}
                }
            }
        }
    }

    fn links(&self) -> io::Result<Vec<Link>> {
        let links = self.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let links = links.iter().filter_map(|m| match m {
            RouteNetlinkMessage::NewLink(m) => parse_link(m),
            _ => None,
        });
        Ok(links.collect())
    }
}

/// A socket that nobody reads: the kernel answers to a solicitation only when it refuses it, and drops that answer when
/// there is no room for more.
struct Solicitor(Socket);

impl Solicitor {
    fn open() -> io::Result<Self> {
        to_the_kernel().map(Solicitor)
    }

    /// Lets the kernel look for a neighbour, or check that it is still there.
    fn solicit(&self, neighbour: &Neighbour) {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = neighbour.interface;
        message.header.flags = NeighbourFlags::Use;
        message.header.state = NeighbourState::None;
        let ip = std::net::IpAddr::from(neighbour.address);
        message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.attributes.push(NeighbourAttribute::Destination(ip.into()));
        // What comes of it is heard as an event.
        if let Err(error) = send(&self.0, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE) {
            tracing::debug!(%error, "asking for a neighbour");
        }
    }
}

fn to_the_kernel() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn send(socket: &Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

fn subscribe() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    for group in [
        libc::RTNLGRP_LINK,
        libc::RTNLGRP_NEIGH,
        libc::RTNLGRP_IPV4_IFADDR,
        libc::RTNLGRP_IPV6_IFADDR,
        libc::RTNLGRP_IPV4_ROUTE,
        libc::RTNLGRP_IPV6_ROUTE,
    ] {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// The messages in a datagram; those that the parser does not know are left out.
fn messages(bytes: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            let len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
            if len < 16 || len > rest.len() {
                return None;
            }
            let (message, after) = (&rest[..len], &rest[len.next_multiple_of(4).min(rest.len())..]);
            rest = after;
            match NetlinkMessage::deserialize(message) {
                Ok(message) => return Some(message),
                Err(error) => tracing::debug!(%error, "a netlink message of unknown form"),
            }
        }
    })
}

fn parse_link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        is_up: message.header.flags.contains(LinkFlags::Up),
        lower: None,
        is_enslaved: false,
        xdp_in_driver: None,
    };
    let elsewhere = |a: &LinkAttribute| matches!(a, LinkAttribute::LinkNetNsId(_));
    let is_here = !message.attributes.iter().any(elsewhere);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(lower) => link.lower = is_here.then_some(*lower),
            LinkAttribute::Controller(_) => link.is_enslaved = true,
            LinkAttribute::Xdp(xdp) => {
                for entry in xdp {
                    match entry {
                        LinkXdp::Attached(
                            XdpAttached::Driver | XdpAttached::Hardware | XdpAttached::Multiple,
                        ) => {
                            link.xdp_in_driver = Some(true);
                        }
                        LinkXdp::Attached(XdpAttached::SocketBuffer) => link.xdp_in_driver = Some(false),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn parse_address(message: &AddressMessage) -> Option<(u32, Address, AddressScope)> {
    // On a point-to-point link ADDRESS is the other end's; LOCAL, where there is one, is ours.
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => {
                found = Some(*ip);
                break;
            }
            AddressAttribute::Address(ip) => found = Some(*ip),
            _ => {}
        }
    }
    Some((message.header.index, found?.into(), message.header.scope))
}

fn parse_route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let unspecified: std::net::IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut destination, mut metric, mut interface, mut via, mut mtu) = (unspecified, 0, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = (*ip).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => destination = (*ip).into(),
            RouteAttribute::Priority(p) => metric = *p,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => via = gateway(attribute).or(via),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) => u16::try_from(*mtu).ok().filter(|m| *m > 0),
                    _ => None,
                });
            }
            // Of several next hops the first is taken.
            RouteAttribute::MultiPath(hops) => {
                if let Some(hop) = hops.first() {
                    interface = Some(hop.interface_index);
                    via = hop.attributes.iter().find_map(gateway);
                }
            }
            _ => {}
        }
    }
    // The kernel's own exceptions are listed too: what it believes of paths, by whatever quotes a packet that it may have
    // sent, is not for sealed ones.
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let interface = match header.kind {
        RouteType::Unicast => Some(interface?),
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => None,
        _ => return None,
    };
    let prefix = Prefix::new(destination, header.destination_prefix_length)?;
    Some(Route { prefix, metric, interface, via, mtu })
}

fn gateway(attribute: &RouteAttribute) -> Option<Address> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) | RouteAttribute::Via(RouteVia::Inet(ip)) => {
            Some(Address::v4(ip.octets()))
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) | RouteAttribute::Via(RouteVia::Inet6(ip)) => {
            Some(Address::v6(ip.octets()))
        }
        _ => None,
    }
}

/// A neighbour and its MAC address; without one that can be used now, `None` in its place.
fn parse_neighbour(message: &NeighbourMessage) -> Option<(Neighbour, Option<[u8; 6]>)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(Address::v4(ip.octets()));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(Address::v6(ip.octets()));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let is_usable = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    let neighbour = Neighbour { interface: message.header.ifindex, address: address? };
    Some((neighbour, mac.filter(|_| is_usable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_end_with_the_thread_that_follows() {
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), Waker::new().unwrap());
        let lifeline = Lifeline { stop: stop.clone(), workers: vec![waker.clone()] };
        let thread = thread::spawn(move || assert!(lifeline.stop.load(Ordering::Acquire), "on purpose"));
        assert!(thread.join().is_err());
        assert!(stop.load(Ordering::Acquire));
        let mut fds = [readable(&waker)];
        poll(&mut fds, 0);
        assert_eq!(fds[0].revents, libc::POLLIN);
    }

    #[test]
    fn a_port_that_others_share_has_no_address_of_its_own() {
        let link = |index, mac: u8, lower, is_enslaved| Link {
            index,
            name: String::new(),
            mac: Some([2, 0, 0, 0, 0, mac]),
            mtu: 1500,
            is_up: true,
            lower,
            is_enslaved,
            xdp_in_driver: None,
        };
        let port = link(3, 7, None, false);
        let vlan = link(4, 7, Some(3), false);
        let other = link(5, 8, Some(9), false);
        assert_eq!(own_mac(&[port.clone(), vlan.clone(), other], &port), [2, 0, 0, 0, 0, 7]);
        let macvlan = link(6, 8, Some(3), false);
        assert_eq!(own_mac(&[port.clone(), vlan, macvlan], &port), [0; 6]);
        assert_eq!(own_mac(&[], &link(3, 7, None, true)), [0; 6]);
        assert_eq!(own_mac(&[], &Link { mac: None, ..port }), [0; 6]);
    }

    #[test]
    fn refused_solicitations_hold_up_nobody() {
        let solicitor = Solicitor::open().unwrap();
        let nowhere = Neighbour { interface: u32::MAX >> 1, address: Address::v4([192, 0, 2, 9]) };
        // More answers than a socket has room for.
        (0..10_000).for_each(|_| solicitor.solicit(&nowhere));
        assert!(links().unwrap().iter().any(|l| l.name == "lo"));
    }
}
