//! Routes to the remote subnets, through the TUN device of the data plane.
//!
//! They are there as long as a tunnel is configured, whether it is up or not: traffic that the gateway itself sends to
//! a remote subnet always meets the data plane, which seals it or drops it, and never leaves in clear. Behind each stands
//! an unreachable route of the worst metric, for when the device is not there. All carry a protocol number of their own
//! ([`PROTOCOL`]), by which stale ones are found and removed; whatever removes or changes one is answered by putting it
//! back. Where a tunnel's health check withdraws its routes, the unreachable ones stay. Where there is no XDP program,
//! `rules` stand beside them.

use crate::{
    bird,
    config::{Gateway, Subnet, Tunnel},
    links,
    rules::{self, Blocked},
};
use futures_util::{StreamExt, TryStreamExt, future::join_all};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// rtm_protocol of our routes, as in `ip route show proto 173`.
pub const PROTOCOL: u8 = 173;

/// The TUN device of the data plane.
pub const DEVICE: &str = "adit0";

/// Metric of the unreachable routes: every other is better.
const LAST: u32 = u32::MAX;

/// How long changes are collected before routes are looked at again.
const SETTLE: Duration = Duration::from_millis(100);

/// How many routes are asked for before the kernel has answered.
const AT_ONCE: usize = 64;

/// How long the kernel may take for all of what is to change. 20,000 routes take it about a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long until the next try after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Of how many routes and rules that stay it is said which they are.
const LISTED: usize = 8;

/// What is to be routed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// To the TUN device.
    pub remote: BTreeSet<Subnet>,
    /// To nowhere: their tunnels do not carry anything at the moment.
    pub withdrawn: BTreeSet<Subnet>,
    /// To the TUN device for health checks: from where, to where.
    pub checks: BTreeSet<(IpAddr, IpAddr)>,
    /// The ends of BGP's sessions, ours by itself, with the length of the network that both are in.
    pub inside: BTreeSet<(IpAddr, IpAddr, u8)>,
    /// Where the preferred source address must lie, for each remote subnet that has one there.
    pub local: BTreeMap<Subnet, Vec<Subnet>>,
    /// The interfaces whose addresses are preferred where every address would do.
    pub lan: BTreeSet<String>,
    /// What is not to be forwarded.
    pub(crate) blocked: BTreeSet<Blocked>,
}

impl Wanted {
    /// What the tunnels of a gateway want, each with whether its routes are withdrawn.
    pub fn of<'a>(gateway: &Gateway, tunnels: impl Iterator<Item = (&'a Tunnel, bool)>) -> Self {
        let lan = gateway.lan.iter().cloned().collect();
        let mut wanted = Wanted { lan, ..Wanted::default() };
        for (tunnel, withdrawn) in tunnels {
            rules::block(gateway, tunnel, &mut wanted.blocked);
            wanted.checks.extend(tunnel.health_check.map(|check| (check.source, check.destination)));
            wanted.inside.extend(tunnel.bgp.as_deref().filter(|_| tunnel.enabled).map(|bgp| {
                let (ours, theirs) = bgp.ends();
                (ours, theirs, bgp.inside_cidr.length())
            }));
            if withdrawn {
                wanted.withdrawn.extend(tunnel.destinations());
                continue;
            }
            for remote in tunnel.destinations() {
                wanted.remote.insert(*remote);
                wanted.local.entry(*remote).or_default().extend(&tunnel.local_subnets);
            }
        }
        wanted
    }

    /// The routes, each with the source address that traffic from this machine takes.
    fn routes(&self, device: Option<u32>, addresses: &[Own]) -> BTreeMap<(Subnet, Way), Option<IpAddr>> {
        let source = |remote: &Subnet| {
            let local = self.local.get(remote)?;
            let may_be = |own: &&Own| {
                own.interface != DEVICE
                    && local
                        .iter()
                        .any(|l| l.holds(own.ip) && (l.length() > 0 || self.lan.contains(&own.interface)))
            };
            addresses.iter().find(may_be).map(|own| own.ip)
        };
        let mut routes = BTreeMap::new();
        routes.extend(self.withdrawn.iter().map(|remote| ((*remote, Way::Nowhere), None)));
        for remote in &self.remote {
            routes.insert((*remote, Way::Nowhere), None);
            routes.extend(device.map(|index| ((*remote, Way::Through(index)), source(remote))));
        }
        for (from, to) in self.checks.iter().copied().chain(self.inside.iter().map(|(l, r, _)| (*l, *r))) {
            let to = Subnet::host(to);
            routes.insert((to, Way::Nowhere), None);
            let is_ours = addresses.iter().any(|own| own.ip == from);
            if let Some(index) = device {
                routes.entry((to, Way::Through(index))).or_insert(is_ours.then_some(from));
            }
        }
        routes
    }

    /// The addresses that the TUN device is to have, with the lengths of their networks: our ends of BGP's sessions, and
    /// where health checks come from, if no interface has them. Without, the answers would not be for this machine.
    fn own_addresses(&self, addresses: &[Own]) -> BTreeSet<(IpAddr, u8)> {
        let elsewhere = |ip: &IpAddr| addresses.iter().any(|own| own.ip == *ip && own.interface != DEVICE);
        let inside: BTreeSet<(IpAddr, u8)> =
            self.inside.iter().map(|(ours, _, length)| (*ours, *length)).collect();
        let is_inside = |ip: &IpAddr| inside.iter().any(|(ours, _)| ours == ip);
        let checks = self.checks.iter().map(|(from, _)| *from).filter(|ip| !elsewhere(ip) && !is_inside(ip));
        checks.map(|ip| (ip, Subnet::host(ip).length())).chain(inside.iter().copied()).collect()
    }
}

/// An address of this machine, of more than its link.
struct Own {
    ip: IpAddr,
    /// Name of the interface that has it.
    interface: String,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// The sender is told that nothing is there.
    Nowhere,
    /// To the interface of this index.
    Through(u32),
}

/// Names of the interfaces by index, kept current by the task that keeps the routes.
#[derive(Clone, Debug, Default)]
pub struct Interfaces(Arc<Mutex<BTreeMap<u32, String>>>);

impl Interfaces {
    /// The name of an interface; its number where it is not known.
    pub fn name(&self, index: u32) -> String {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(&index).cloned().unwrap_or_else(|| index.to_string())
    }

    fn replace(&self, names: BTreeMap<u32, String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

/// Keeps the routes as `wanted` says until its sender is gone; the routes stay then.
///
/// # Errors
/// When no netlink socket can be opened, or the one that was breaks.
pub async fn keep(mut wanted: watch::Receiver<Wanted>, interfaces: Interfaces) -> std::io::Result<()> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ];
    let mut said = None;
    loop {
        let (connection, handle, mut changes) = rtnetlink::new_multicast_connection(&groups)?;
        let connection = Ended(tokio::spawn(connection));
        loop {
            let goal = wanted.borrow_and_update().clone();
            let Ok(reconciled) = timeout(PATIENCE, reconcile(&handle, &goal, &interfaces)).await else {
                // What the kernel had no room for in the socket is lost, an answer among it: it is never told of then.
                tracing::warn!("routes: the kernel does not answer; asking it again by another socket");
                break;
            };
            let (problem, wait) = match reconciled {
                Ok(true) => (None, Duration::MAX),
                // That it comes is told: until then nothing is to be done, however often it is looked at.
                Ok(false) => {
                    (Some(format!("{DEVICE} is not there yet; the data plane makes it")), Duration::MAX)
                }
                Err(problem) => (Some(problem), RETRY),
            };
            if problem != said
                && let Some(problem) = &problem
            {
                tracing::warn!("routes: {problem}");
            }
            said = problem;
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return Ok(()) },
                change = changes.next() => {
                    if change.is_none() {
                        return Err(std::io::Error::other("the connection to the kernel's routing (netlink) broke"));
                    }
                    let settled = async { while changes.next().await.is_some() {} };
                    // A burst of changes is looked at once, also when it does not end.
                    let _ = timeout(SETTLE, settled).await;
                }
                () = sleep(wait.min(Duration::from_secs(3600))) => {}
            }
        }
        drop(connection);
    }
}

/// Removes every route and every rule of ours from every table, those among them that BIRD has learned for us: nothing
/// keeps traffic to the remote subnets from leaving in clear any more. That there are none is no error.
///
/// # Errors
/// What could not be removed, or is there again because a `control` keeps it, in words.
pub async fn remove() -> Result<(), String> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|e| format!("cannot ask the kernel for its routes: {e}"))?;
    let _connection = Ended(tokio::spawn(connection));
    match timeout(PATIENCE, remove_all(&handle)).await {
        Ok(removed) => removed,
        Err(_) => Err("the kernel does not answer, and routes may be left".to_owned()),
    }
}

async fn remove_all(handle: &Handle) -> Result<(), String> {
    let failed = |what: &'static str| move |e: rtnetlink::Error| format!("cannot list {what}: {e}");
    let (routes, rules) =
        (all(handle).await.map_err(failed("routes"))?, rules::all(handle).await.map_err(failed("rules"))?);
    if routes.is_empty() && rules.is_empty() {
        return Ok(());
    }
    // By what they are, why they stay. What another actor removed in the meantime is as good as removed, and not found below.
    let mut refused = BTreeMap::new();
    for some in routes.chunks(AT_ONCE) {
        let asked = some.iter().map(|route| handle.route().del(route.clone()).execute());
        for (route, answer) in some.iter().zip(join_all(asked).await) {
            refused.extend(answer.err().map(|e| (words(route), e.to_string())));
        }
    }
    for some in rules.chunks(AT_ONCE) {
        let asked = some.iter().map(|rule| handle.rule().del(rule.clone()).execute());
        for (rule, answer) in some.iter().zip(join_all(asked).await) {
            refused.extend(answer.err().map(|e| (rules::words(rule), e.to_string())));
        }
    }
    // By then whoever keeps them has put them back.
    sleep(3 * SETTLE).await;
    let mut left: Vec<String> = all(handle).await.map_err(failed("routes"))?.iter().map(words).collect();
    left.extend(rules::all(handle).await.map_err(failed("rules"))?.iter().map(rules::words));
    let Some(first) = left.first() else { return Ok(()) };
    let why = refused.get(first).map_or("it is put back: stop the control that runs", String::as_str);
    let more = match left.len() - 1 {
        0 => String::new(),
        more => format!("; so do {more} more: {}", left[1..left.len().min(LISTED)].join(", ")),
    };
    Err(format!("{first} stays: {why}{more}"))
}

/// Routes of ours in every table, and BIRD's in the table that it has for us.
async fn all(handle: &Handle) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
    let mut found = Vec::new();
    for family in
        [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
    {
        let mut routes = handle.route().get(family).execute();
        while let Some(route) = routes.try_next().await? {
            let is_learned =
                route.header.table == bird::TABLE && route.header.protocol == RouteProtocol::Bird;
            if route.header.protocol == RouteProtocol::Other(PROTOCOL) || is_learned {
                found.push(route);
            }
        }
    }
    Ok(found)
}

/// A route in words: to where, and how.
fn words(route: &RouteMessage) -> String {
    let table = match route.header.table {
        bird::TABLE => format!(" of table {}", bird::TABLE),
        _ => String::new(),
    };
    match read(route.clone()) {
        Some(Found { subnet, way: Way::Nowhere, .. }) => format!("route {subnet} nowhere{table}"),
        Some(Found { subnet, .. }) => format!("route {subnet}{table}"),
        None => format!("route{table}"),
    }
}

/// A task that ends with whoever holds it.
struct Ended(JoinHandle<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the routes what is wanted, as far as the TUN device is there: whether it is.
async fn reconcile(handle: &Handle, wanted: &Wanted, interfaces: &Interfaces) -> Result<bool, String> {
    let words = |what: &'static str| move |e: rtnetlink::Error| format!("{what}: {e}");
    let names = link_names(handle).await.map_err(words("cannot list interfaces"))?;
    let device = names.iter().find(|(_, name)| *name == DEVICE).map(|(index, _)| *index);
    let addresses = addresses(handle, &names).await.map_err(words("cannot list addresses"))?;
    interfaces.replace(names);
    let mut problems = Vec::new();
    if let Some(device) = device {
        problems.extend(take_addresses(handle, device, &wanted.own_addresses(&addresses)).await?);
    }
    let goal = wanted.routes(device, &addresses);
    let (mut present, mut stale) = (BTreeSet::new(), Vec::new());
    for found in ours(handle).await.map_err(words("cannot list routes"))? {
        match goal.get(&(found.subnet, found.way)) {
            Some(source) if *source == found.source => drop(present.insert((found.subnet, found.way))),
            // Replaced below.
            Some(_) => {}
            None => stale.push(found),
        }
    }
    let missing: Vec<(Subnet, Way, Option<IpAddr>)> = goal
        .into_iter()
        .filter(|(route, _)| !present.contains(route))
        .map(|((subnet, way), source)| (subnet, way, source))
        .collect();
    for some in missing.chunks(AT_ONCE) {
        let mut results = Vec::new();
        for (subnet, way, source) in some {
            results.push(handle.route().add(message(subnet, *source, *way)).replace().execute());
        }
        for ((subnet, way, _), result) in some.iter().zip(join_all(results).await) {
            match result {
                Ok(()) if *way == Way::Nowhere => {
                    tracing::debug!("route {subnet} nowhere, as the last resort")
                }
                Ok(()) => tracing::info!("route {subnet} through {DEVICE}"),
                Err(e) => problems.push(format!("{subnet}: {e}")),
            }
        }
    }
    for found in stale {
        // A route that another actor removed in the meantime is as good as removed.
        if let Err(e) = handle.route().del(found.message).execute().await {
            tracing::debug!("route {}: {e}", found.subnet);
        }
    }
    if let Err(problem) = rules::reconcile(handle, &wanted.blocked).await {
        problems.push(problem);
    }
    if problems.is_empty() { Ok(device.is_some()) } else { Err(problems.join("; ")) }
}

struct Found {
    subnet: Subnet,
    way: Way,
    source: Option<IpAddr>,
    message: RouteMessage,
}

/// Our routes.
async fn ours(handle: &Handle) -> Result<Vec<Found>, rtnetlink::Error> {
    let mut found = Vec::new();
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for all in [v4, v6] {
        let mut routes = handle.route().get(all).execute();
        while let Some(message) = routes.try_next().await? {
            if message.header.protocol == RouteProtocol::Other(PROTOCOL) {
                found.extend(read(message));
            }
        }
    }
    Ok(found)
}

fn read(message: RouteMessage) -> Option<Found> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let (mut destination, mut source, mut device) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => destination = ip(a),
            RouteAttribute::PrefSource(a) => source = ip(a),
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    // A default route has no destination attribute.
    let destination = destination.unwrap_or(match message.header.address_family {
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    });
    let subnet = format!("{destination}/{}", message.header.destination_prefix_length).parse().ok()?;
    let way = match message.header.kind {
        RouteType::Unreachable => Way::Nowhere,
        _ => Way::Through(device?),
    };
    Some(Found { subnet, way, source, message })
}

fn message(subnet: &Subnet, source: Option<IpAddr>, way: Way) -> RouteMessage {
    let mut message = match subnet.address() {
        IpAddr::V4(address) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, subnet.length());
            match source {
                Some(IpAddr::V4(source)) => route.pref_source(source).build(),
                _ => route.build(),
            }
        }
        IpAddr::V6(address) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, subnet.length());
            match source {
                Some(IpAddr::V6(source)) => route.pref_source(source).build(),
                _ => route.build(),
            }
        }
    };
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    match way {
        Way::Through(index) => message.attributes.push(RouteAttribute::Oif(index)),
        Way::Nowhere => {
            message.header.kind = RouteType::Unreachable;
            message.attributes.push(RouteAttribute::Priority(LAST));
        }
    }
    message
}

/// Makes the addresses of the TUN device, which is Adit's, those that are wanted, of hosts and of BGP's sessions. What refuses is returned in words.
async fn take_addresses(
    handle: &Handle,
    device: u32,
    wanted: &BTreeSet<(IpAddr, u8)>,
) -> Result<Vec<String>, String> {
    let failed = |e: rtnetlink::Error| format!("cannot list the addresses of {DEVICE}: {e}");
    let mut present = BTreeSet::new();
    let mut stale = Vec::new();
    let mut list = handle.address().get().set_link_index_filter(device).execute();
    while let Some(message) = list.try_next().await.map_err(failed)? {
        let ip = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        });
        match ip {
            Some(ip) if wanted.contains(&(ip, message.header.prefix_len)) => {
                present.insert((ip, message.header.prefix_len));
            }
            Some(ip) if is_taken(ip, message.header.prefix_len) => stale.push(message),
            _ => {}
        }
    }
    let mut problems = Vec::new();
    for message in stale {
        // One that another actor removed in the meantime is as good as removed.
        if let Err(e) = handle.address().del(message).execute().await {
            tracing::debug!("an address of {DEVICE} stays: {e}");
        }
    }
    for (ip, length) in wanted.difference(&present) {
        match handle.address().add(device, *ip, *length).execute().await {
            Ok(()) => tracing::info!("address {ip}/{length} on {DEVICE}"),
            Err(e) => problems.push(format!("{ip} on {DEVICE}: {e}")),
        }
    }
    Ok(problems)
}

/// Whether an address is such as the TUN device is given: a host's, or an end of a session of BGP.
fn is_taken(ip: IpAddr, length: u8) -> bool {
    let inside = matches!(ip, IpAddr::V4(v4) if v4.is_link_local()) && length == 30;
    inside || length == Subnet::host(ip).length()
}

async fn link_names(handle: &Handle) -> Result<BTreeMap<u32, String>, rtnetlink::Error> {
    let mut names = BTreeMap::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        let index = link.header.index;
        names.extend(links::name_of(link.attributes).map(|name| (index, name)));
    }
    Ok(names)
}

async fn addresses(handle: &Handle, names: &BTreeMap<u32, String>) -> Result<Vec<Own>, rtnetlink::Error> {
    let mut found = Vec::new();
    let mut list = handle.address().get().execute();
    while let Some(message) = list.try_next().await? {
        let interface = names.get(&message.header.index).cloned().unwrap_or_default();
        let is_of_link = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        found.extend(
            links::own_of(message.attributes).filter(|ip| !is_of_link(ip)).map(|ip| Own { ip, interface }),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_address_lies_in_the_local_subnets_of_the_same_tunnel() {
        let subnet = |s: &str| s.parse::<Subnet>().unwrap();
        let mut wanted = Wanted::default();
        for (local, remote) in [("10.1.0.0/16", "10.2.0.0/16"), ("10.9.0.0/16", "10.3.0.0/16")] {
            wanted.remote.insert(subnet(remote));
            wanted.local.insert(subnet(remote), vec![subnet(local)]);
        }
        for everything in [Subnet::ALL_V4, Subnet::ALL_V6] {
            wanted.remote.insert(subnet("10.4.0.0/16"));
            wanted.local.entry(subnet("10.4.0.0/16")).or_default().push(everything);
        }
        wanted.lan.insert("eth1".into());
        let own = [("127.0.0.1", "lo"), ("192.0.2.1", "eth0"), ("10.1.0.1", "eth1")];
        let addresses = own.map(|(ip, name)| Own { ip: ip.parse().unwrap(), interface: name.into() });
        let routes = wanted.routes(Some(7), &addresses);
        let through = Way::Through(7);
        assert_eq!(routes[&(subnet("10.2.0.0/16"), through)], Some("10.1.0.1".parse().unwrap()));
        assert_eq!(routes[&(subnet("10.3.0.0/16"), through)], None);
        assert_eq!(routes[&(subnet("10.4.0.0/16"), through)], Some("10.1.0.1".parse().unwrap()));
        let without = wanted.routes(None, &addresses);
        assert!(without.len() == 3 && without.keys().all(|(_, way)| *way == Way::Nowhere));
    }

    #[test]
    fn a_withdrawn_tunnels_routes_lead_nowhere_and_its_health_check_goes_on() {
        let subnet = |s: &str| s.parse::<Subnet>().unwrap();
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let wanted = Wanted {
            withdrawn: [subnet("10.2.0.0/16")].into(),
            checks: [(ip("169.254.9.2"), ip("10.2.0.1")), (ip("10.1.0.1"), ip("10.3.0.1"))].into(),
            ..Wanted::default()
        };
        let own = |ip: &str, name: &str| Own { ip: ip.parse().unwrap(), interface: name.into() };
        let addresses = [own("10.1.0.1", "eth1")];
        let routes = wanted.routes(Some(7), &addresses);
        let (tun, nowhere) = (Way::Through(7), Way::Nowhere);
        let found: Vec<_> =
            routes.into_iter().map(|((to, way), source)| (to.to_string(), way, source)).collect();
        let expected = [
            ("10.2.0.0/16", nowhere, None),
            ("10.2.0.1/32", nowhere, None),
            ("10.2.0.1/32", tun, None),
            ("10.3.0.1/32", nowhere, None),
            ("10.3.0.1/32", tun, Some(ip("10.1.0.1"))),
        ];
        assert_eq!(found, expected.map(|(to, way, source)| (to.to_owned(), way, source)));
        assert_eq!(wanted.own_addresses(&addresses), [(ip("169.254.9.2"), 32)].into());
        let taken = [own("10.1.0.1", "eth1"), own("169.254.9.2", DEVICE)];
        assert_eq!(wanted.own_addresses(&taken), [(ip("169.254.9.2"), 32)].into(), "it keeps what it took");
        assert!(wanted.own_addresses(&[own("10.1.0.1", "eth1"), own("169.254.9.2", "lo")]).is_empty());
    }

    #[test]
    fn ends_of_bgp_are_the_devices_own() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let inside = (ip("169.254.10.2"), ip("169.254.10.1"), 30);
        let checks = [(ip("169.254.10.2"), ip("10.2.0.1"))].into();
        let wanted = Wanted { inside: [inside].into(), checks, ..Wanted::default() };
        assert_eq!(wanted.own_addresses(&[]), [(inside.0, 30)].into());
        let taken = [Own { ip: inside.0, interface: DEVICE.into() }];
        let peer = Subnet::host(inside.1);
        let routes = wanted.routes(Some(7), &taken);
        assert_eq!(routes[&(peer, Way::Through(7))], Some(inside.0));
        assert!(routes.contains_key(&(peer, Way::Nowhere)), "for when the device is gone");
        assert!(is_taken(inside.0, 30) && is_taken(ip("10.1.0.1"), 32) && !is_taken(ip("10.1.0.1"), 30));
    }

    #[test]
    fn a_route_reads_back_as_it_was_written() {
        for (subnet, source) in [("10.2.0.0/16", Some("10.1.0.1")), ("2001:db8::/32", None)] {
            let subnet = subnet.parse::<Subnet>().unwrap();
            let source = source.map(|s| s.parse().unwrap());
            for way in [Way::Through(7), Way::Nowhere] {
                let found = read(message(&subnet, source, way)).unwrap();
                assert_eq!((found.subnet, found.source, found.way), (subnet, source, way));
                assert_eq!(found.message.header.protocol, RouteProtocol::Other(PROTOCOL));
            }
        }
    }
}
