//! What must hold between the subnets of tunnels.

use super::{PeerAddress, Subnet, group::same_check, reader::Field};
use adit_ike::Psk;
use std::{collections::HashMap, net::IpAddr};

/// The subnets of one tunnel, with the fields that gave them.
pub(super) struct Subnets<'a> {
    pub(super) tunnel: String,
    pub(super) peer: Option<PeerAddress>,
    pub(super) enabled: bool,
    /// Whether everything on our side is meant, whatever the remote prefixes are.
    pub(super) by_route: bool,
    /// Whether BGP says what of it is sent through the tunnel.
    pub(super) bgp: bool,
    pub(super) local: (Field<'a>, Vec<Subnet>),
    pub(super) remote: (Field<'a>, Vec<Subnet>),
    /// Source and destination of its health check, if there is one.
    pub(super) check: Option<(Field<'a>, (IpAddr, IpAddr))>,
}

/// Reports subnets that overlap within a tunnel, a peer inside the subnets it protects, and pairs that two tunnels
/// have in common, unless they are in one group by `group_of`, both have BGP or one is disabled; and health checks that two have in
/// common, or that ask a peer itself: the route to it would lead into the tunnel, and IKE with it.
pub(super) fn tunnels(all: &[Subnets<'_>], group_of: &HashMap<&str, &str>) {
    let peers: HashMap<IpAddr, &str> =
        all.iter().filter_map(|t| Some((t.peer_ip()?, t.tunnel.as_str()))).collect();
    let mut checks: HashMap<(IpAddr, IpAddr), &str> = HashMap::new();
    let mut owners: HashMap<(Subnet, Subnet), (&str, bool)> = HashMap::new();
    for tunnel in all {
        let (local_field, local) = &tunnel.local;
        let (remote_field, remote) = &tunnel.remote;
        for r in remote {
            if !local.is_empty() && local.iter().all(|l| l.address().is_ipv4() != r.address().is_ipv4()) {
                remote_field.clash(format!("{r} has no prefix of its family in local_subnets"), None);
            }
            if let Some(l) = local.iter().find(|l| !tunnel.by_route && l.overlaps(r)) {
                remote_field.clash(format!("{r} overlaps {l} of local_subnets"), None);
            }
            if let Some(ip) = tunnel.peer_ip()
                && r.holds(ip)
            {
                remote_field
                    .clash(format!("{r} holds the peer's own address {ip}: IKE could not reach it"), None);
            }
        }
        if let Some((field, (_, destination))) = &tunnel.check
            && let Some(&owner) = peers.get(destination)
        {
            field.clash(asks_a_peer(*destination, owner), (owner != tunnel.tunnel).then_some(owner));
        }
        if !tunnel.enabled {
            continue;
        }
        let pairs = local.iter().flat_map(|l| remote.iter().map(move |r| (*l, *r)));
        let pairs = pairs.filter(|(l, r)| l.address().is_ipv4() == r.address().is_ipv4());
        let group = group_of.get(tunnel.tunnel.as_str());
        let is_other = |(owner, bgp): &(&str, bool)| {
            !(tunnel.bgp && *bgp) && (group.is_none() || group_of.get(owner) != group)
        };
        let clash = pairs
            .filter_map(|pair| {
                owners
                    .insert(pair, (&tunnel.tunnel, tunnel.bgp))
                    .filter(is_other)
                    .map(|owner| (pair, owner.0))
            })
            .next();
        if let Some(((l, r), owner)) = clash {
            local_field.clash(same_pair((l, r), owner), Some(owner));
        }
        if let Some((field, check)) = &tunnel.check
            && let Some(owner) = checks.insert(*check, &tunnel.tunnel)
        {
            field.clash(same_check(*check, owner), Some(owner));
        }
    }
}

impl Subnets<'_> {
    fn peer_ip(&self) -> Option<IpAddr> {
        match self.peer {
            Some(PeerAddress::Ip(ip)) => Some(ip),
            _ => None,
        }
    }
}

/// What is said of a health check that asks where a peer is.
pub(crate) fn asks_a_peer(destination: IpAddr, owner: &str) -> String {
    format!(
        "asks {destination}, where the peer of tunnel {owner:?} is itself: IKE could not reach it any more"
    )
}

/// What is said of a peer that the health check of another tunnel asks.
pub(crate) fn peer_is_asked(peer: IpAddr, by: &str) -> String {
    format!("is at {peer}, which the health check of tunnel {by:?} asks: IKE could not reach it any more")
}

/// What is said of a pair of subnets that another tunnel has.
pub(crate) fn same_pair((l, r): (Subnet, Subnet), owner: &str) -> String {
    format!("the pair {l}, {r} is also that of tunnel {owner:?}")
}

/// What is said of a key that cannot be told from another tunnel's.
pub(crate) fn other_key(owner: &str) -> String {
    format!(
        "differs from that of tunnel {owner:?}: main mode with peers from anywhere takes one key for all of them; \
         use ike.mode aggressive, or ikev2"
    )
}

/// The key of a tunnel that is negotiated in IKEv1's main mode with a peer from anywhere.
pub(super) struct StrangersKey<'a> {
    pub(super) tunnel: String,
    pub(super) field: Field<'a>,
    pub(super) psk: Psk,
    pub(super) local: Option<IpAddr>,
}

/// Reports keys that could not be told apart: main mode needs the key before it learns the peer's identity (RFC 2409
/// section 5.4), and the address says nothing.
pub(super) fn keys_of_strangers(all: &[StrangersKey<'_>]) {
    for (i, one) in all.iter().enumerate() {
        if let Some(other) = all[..i].iter().find(|o| o.local == one.local && o.psk != one.psk) {
            one.field.clash(other_key(&other.tunnel), Some(&other.tunnel));
        }
    }
}
