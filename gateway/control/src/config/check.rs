//! What must hold between the subnets of tunnels.

use super::{
    PeerAddress, Subnet,
    reader::{Field, Source},
};
use adit_ike::Psk;
use std::{collections::HashMap, net::IpAddr};

/// The subnets of one tunnel, with the fields that gave them.
pub(super) struct Subnets<'a> {
    pub(super) tunnel: String,
    pub(super) peer: Option<PeerAddress>,
    /// Whether everything on our side is meant, whatever the remote prefixes are.
    pub(super) by_route: bool,
    pub(super) local: (Field<'a>, Vec<Subnet>),
    pub(super) remote: (Field<'a>, Vec<Subnet>),
}

/// Reports subnets that overlap within a tunnel, a peer inside the subnets it protects, and pairs that two tunnels
/// have in common.
pub(super) fn tunnels(all: &[Subnets<'_>], source: &Source<'_>) {
    let mut owners: HashMap<(Subnet, Subnet), &str> = HashMap::new();
    for tunnel in all {
        let (local_field, local) = &tunnel.local;
        let (remote_field, remote) = &tunnel.remote;
        for r in remote {
            if !local.is_empty() && local.iter().all(|l| l.address().is_ipv4() != r.address().is_ipv4()) {
                let message = format!("{r} has no prefix of its family in local_subnets");
                source.problem(remote_field.span(), remote_field.path(), message);
            }
            if let Some(l) = local.iter().find(|l| !tunnel.by_route && l.overlaps(r)) {
                source.problem(
                    remote_field.span(),
                    remote_field.path(),
                    format!("{r} overlaps {l} of local_subnets"),
                );
            }
            if let Some(PeerAddress::Ip(ip)) = tunnel.peer
                && r.holds(ip)
            {
                let message = format!("{r} holds the peer's own address {ip}: IKE could not reach it");
                source.problem(remote_field.span(), remote_field.path(), message);
            }
        }
        let pairs = local.iter().flat_map(|l| remote.iter().map(move |r| (*l, *r)));
        let clash =
            pairs.filter_map(|pair| owners.insert(pair, &tunnel.tunnel).map(|owner| (pair, owner))).next();
        if let Some(((l, r), owner)) = clash {
            let message = format!("the pair {l}, {r} is also that of tunnel {owner:?}");
            source.problem(local_field.span(), local_field.path(), message);
        }
    }
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
pub(super) fn keys_of_strangers(all: &[StrangersKey<'_>], source: &Source<'_>) {
    for (i, one) in all.iter().enumerate() {
        if let Some(other) = all[..i].iter().find(|o| o.local == one.local && o.psk != one.psk) {
            let message = format!(
                "differs from that of tunnel {:?}: main mode with peers from anywhere takes one key for all of them; \
                 use ike.mode aggressive, or ikev2",
                other.tunnel
            );
            source.problem(one.field.span(), one.field.path(), message);
        }
    }
}
