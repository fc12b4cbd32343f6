//! What BIRD has learned: the routes that it puts into a table of the kernel.

use super::Report;
use crate::config::Subnet;
use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};

/// The kernel's table.
pub const TABLE: u8 = 173;

/// How long changes are collected.
const SETTLE: Duration = Duration::from_millis(50);
/// How often something new is told, at most: each time policies are compiled and written. What is gone is told at once.
const DAMP: Duration = Duration::from_secs(1);
/// How long until the next try after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// The prefixes that each next hop is for.
pub type Learned = BTreeMap<Ipv4Addr, BTreeSet<Subnet>>;

/// What the table says at this moment.
///
/// # Errors
/// When the kernel does not tell.
pub async fn now() -> std::io::Result<Learned> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let learned = read(&handle).await.map_err(std::io::Error::other);
    connection.abort();
    learned
}

/// Tells what the table says, and again whenever that is otherwise.
pub(super) async fn follow(reports: mpsc::Sender<Report>) {
    loop {
        match watch(&reports).await {
            Ok(()) => return,
            Err(e) => tracing::warn!("what BGP teaches is not followed: {e}"),
        }
        sleep(RETRY).await;
    }
}

async fn watch(reports: &mpsc::Sender<Report>) -> std::io::Result<()> {
    let (connection, handle, mut changes) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv4Route])?;
    let connection = tokio::spawn(connection);
    let mut told: Option<Learned> = None;
    // When something was told last that was not there before.
    let mut added: Option<Instant> = None;
    loop {
        let learned = read(&handle).await.map_err(std::io::Error::other)?;
        let left = told.as_ref().map(|told| left(told, &learned));
        let is_more = left.as_ref() != Some(&learned);
        let waits = added.filter(|at| is_more && at.elapsed() < DAMP).map(|at| at + DAMP);
        let now = match left {
            Some(left) if waits.is_some() => left,
            _ => learned,
        };
        if told.as_ref() != Some(&now) {
            added = if is_more && waits.is_none() { Some(Instant::now()) } else { added };
            told = Some(now.clone());
            if reports.send(Report::Learned(now)).await.is_err() {
                break;
            }
        }
        let changed = match waits {
            Some(until) => timeout_at(until, changes.next()).await.ok(),
            None => Some(changes.next().await),
        };
        if changed.is_some_and(|message| message.is_none()) {
            return Err(std::io::Error::other("the connection to the kernel's routing (netlink) broke"));
        }
        let settled = async { while changes.next().await.is_some() {} };
        // A burst of changes is looked at once, also when it does not end.
        let _ = timeout(SETTLE, settled).await;
    }
    connection.abort();
    Ok(())
}

/// What of `told` is still there.
fn left(told: &Learned, now: &Learned) -> Learned {
    let both = |(hop, prefixes): (&Ipv4Addr, &BTreeSet<Subnet>)| {
        let both: BTreeSet<Subnet> = now.get(hop)?.intersection(prefixes).copied().collect();
        (!both.is_empty()).then_some((*hop, both))
    };
    told.iter().filter_map(both).collect()
}

async fn read(handle: &Handle) -> Result<Learned, rtnetlink::Error> {
    let mut learned = Learned::new();
    let mut routes = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    while let Some(message) = routes.try_next().await? {
        if let Some((hop, subnet)) = route(&message) {
            learned.entry(hop).or_default().insert(subnet);
        }
    }
    Ok(learned)
}

/// Where a route of the table leads by.
fn route(message: &RouteMessage) -> Option<(Ipv4Addr, Subnet)> {
    if message.header.table != TABLE || message.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut destination, mut hop) = (Ipv4Addr::UNSPECIFIED, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = *ip,
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => hop = Some(*ip),
            _ => {}
        }
    }
    let length = message.header.destination_prefix_length;
    let subnet = format!("{}/{length}", IpAddr::from(destination)).parse().ok()?;
    Some((hop?, subnet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_was_told_and_is_still_there() {
        let learned = |all: &[(u8, &str)]| {
            all.iter().fold(Learned::new(), |mut learned, (hop, prefix)| {
                learned.entry([169, 254, 10, *hop].into()).or_default().insert(prefix.parse().unwrap());
                learned
            })
        };
        let told = learned(&[(1, "10.2.0.0/16"), (1, "10.3.0.0/16"), (5, "10.4.0.0/16")]);
        let now = learned(&[(1, "10.3.0.0/16"), (1, "10.5.0.0/16"), (9, "10.4.0.0/16")]);
        assert_eq!(left(&told, &now), learned(&[(1, "10.3.0.0/16")]));
        assert_eq!(left(&told, &told), told);
    }

    #[test]
    fn only_routes_of_the_table_that_lead_somewhere_count() {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix([10, 2, 0, 0].into(), 16)
            .gateway([169, 254, 10, 1].into())
            .build();
        assert_eq!(route(&message), None, "it is of the main table");
        message.header.table = TABLE;
        let subnet: Subnet = "10.2.0.0/16".parse().unwrap();
        assert_eq!(route(&message), Some(([169, 254, 10, 1].into(), subnet)));
        message.header.kind = RouteType::Unreachable;
        assert_eq!(route(&message), None);
        let mut everything = RouteMessageBuilder::<Ipv4Addr>::new().gateway([169, 254, 10, 1].into()).build();
        everything.header.table = TABLE;
        assert_eq!(route(&everything), Some(([169, 254, 10, 1].into(), Subnet::ALL_V4)));
    }
}
