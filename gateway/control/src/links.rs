//! The gateway's interfaces and addresses as the kernel has them: what goes, and what comes back, is told in its log.

use crate::{config::Gateway, log::GatewayLog};
use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_route::{
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How long changes are collected before they are looked at.
const SETTLE: Duration = Duration::from_millis(100);
/// How long until the next try where the kernel does not answer.
const RETRY: Duration = Duration::from_secs(5);

/// Tells of the gateway's interfaces and addresses until the sender of the gateway is gone.
pub(crate) async fn watch(mut gateway: watch::Receiver<Gateway>, log: GatewayLog) {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, mut changes) = match rtnetlink::new_multicast_connection(&groups) {
        Ok(opened) => opened,
        Err(e) => return log.error(format!("interfaces and addresses are not watched: {e}")),
    };
    let connection = tokio::spawn(connection);
    let mut known = Known::default();
    loop {
        let now = gateway.borrow_and_update().clone();
        let wait = match look(&handle).await {
            Ok(found) => {
                known.follow(&now, &found).iter().for_each(|told| told.say(&log));
                Duration::MAX
            }
            Err(e) => {
                tracing::debug!("the kernel does not tell of interfaces and addresses: {e}");
                RETRY
            }
        };
        tokio::select! {
            changed = gateway.changed() => if changed.is_err() { break },
            change = changes.next() => {
                if change.is_none() {
                    return log.error("interfaces and addresses are no longer watched: netlink broke");
                }
                let settled = async { while changes.next().await.is_some() {} };
                // A burst of changes is looked at once, also when it does not end.
                let _ = timeout(SETTLE, settled).await;
            }
            () = sleep(wait.min(Duration::from_secs(3600))) => {}
        }
    }
    connection.abort();
}

/// What the kernel has.
#[derive(Default)]
struct Found {
    interfaces: BTreeMap<String, Link>,
    addresses: BTreeSet<IpAddr>,
}

/// How an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    /// Set down by somebody.
    Down,
    /// Nothing at the other end.
    NoCarrier,
    Absent,
}

impl Link {
    fn of(flags: LinkFlags) -> Link {
        match (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::LowerUp)) {
            (false, _) => Link::Down,
            (true, false) => Link::NoCarrier,
            (true, true) => Link::Up,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Link::Up => "up",
            Link::Down => "down",
            Link::NoCarrier => "without a carrier",
            Link::Absent => "not there",
        }
    }
}

/// Something to be told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    is_well: bool,
    text: String,
}

impl Told {
    fn say(&self, log: &GatewayLog) {
        if self.is_well { log.info(&self.text) } else { log.warn(&self.text) }
    }
}

/// What has been told of the gateway's interfaces and addresses.
#[derive(Default)]
struct Known {
    interfaces: BTreeMap<String, Link>,
    addresses: BTreeMap<IpAddr, bool>,
}

impl Known {
    /// What is to be told where this is found: what differs from before, and of what is new what is wrong.
    fn follow(&mut self, gateway: &Gateway, found: &Found) -> Vec<Told> {
        let mut told = Vec::new();
        let is_there = gateway.is_there();
        let names = std::iter::once(&gateway.wan).chain(&gateway.lan).filter(|_| is_there);
        let interfaces: BTreeMap<String, Link> = names
            .map(|name| (name.clone(), found.interfaces.get(name).copied().unwrap_or(Link::Absent)))
            .collect();
        for (name, link) in &interfaces {
            if self.interfaces.get(name).copied().unwrap_or(Link::Up) != *link {
                told.push(Told {
                    is_well: *link == Link::Up,
                    text: format!("interface {name} is {}", link.words()),
                });
            }
        }
        let addresses = gateway.addresses.iter().filter(|_| is_there);
        let addresses: BTreeMap<IpAddr, bool> =
            addresses.map(|ip| (*ip, found.addresses.contains(ip))).collect();
        for (ip, is_here) in &addresses {
            if self.addresses.get(ip).copied().unwrap_or(true) != *is_here {
                let words = if *is_here { "is there again" } else { "is no address of this machine" };
                told.push(Told { is_well: *is_here, text: format!("address {ip} {words}") });
            }
        }
        (self.interfaces, self.addresses) = (interfaces, addresses);
        told
    }
}

async fn look(handle: &Handle) -> Result<Found, rtnetlink::Error> {
    let mut found = Found::default();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        let flags = link.header.flags;
        found.interfaces.extend(name_of(link.attributes).map(|name| (name, Link::of(flags))));
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        found.addresses.extend(own_of(message.attributes));
    }
    Ok(found)
}

/// The name of a link, as the kernel tells it.
pub(crate) fn name_of(attributes: Vec<LinkAttribute>) -> Option<String> {
    attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })
}

/// Our own address among those that the kernel tells of one: on a point-to-point link the other is the peer's.
pub(crate) fn own_of(attributes: Vec<AddressAttribute>) -> Option<IpAddr> {
    let (mut local, mut address) = (None, None);
    for attribute in attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => address = Some(ip),
            _ => {}
        }
    }
    local.or(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    #[test]
    fn what_goes_and_comes_back_is_told_once() {
        let text = include_str!("config/tests/good.toml");
        let gateway = Config::parse(Path::new("t"), text).unwrap().gateway;
        let (wan, ip) = (gateway.wan.clone(), gateway.addresses[0]);
        let whole = || {
            let names = std::iter::once(&gateway.wan).chain(&gateway.lan);
            Found {
                interfaces: names.map(|name| (name.clone(), Link::Up)).collect(),
                addresses: gateway.addresses.iter().copied().collect(),
            }
        };
        let mut known = Known::default();
        let mut told = |found: &Found, gateway: &Gateway| -> Vec<String> {
            known.follow(gateway, found).into_iter().map(|told| told.text).collect()
        };
        assert_eq!(told(&whole(), &gateway), [""; 0]);
        let mut broken = whole();
        broken.interfaces.insert(wan.clone(), Link::NoCarrier);
        broken.addresses.remove(&ip);
        let words = [
            format!("interface {wan} is without a carrier"),
            format!("address {ip} is no address of this machine"),
        ];
        assert_eq!(told(&broken, &gateway), words);
        assert_eq!(told(&broken, &gateway), [""; 0]);
        let words = [format!("interface {wan} is up"), format!("address {ip} is there again")];
        assert_eq!(told(&whole(), &gateway), words);
        assert_eq!(
            told(&Found::default(), &Gateway::none()),
            [""; 0],
            "nothing is wanted where there is no gateway"
        );
    }
}
