//! NAT detection (RFC 3947 section 3.2): hashes of both ends of the path, each side's as it sees them.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    keys::nat_hash,
    proposal::PhaseOneSuite,
    wire::{NatTraversal, Payload},
};
use crate::{
    config::NatT,
    event::{Nat, Path},
};

/// The peer's end first, then ours. `Force` gives an end that is not ours, so that the peer sees a NAT.
pub(super) fn payloads(
    nat_t: NatT,
    way: Option<NatTraversal>,
    suite: &PhaseOneSuite,
    cookies: (u64, u64),
    path: Path,
) -> Vec<Payload> {
    let source = match nat_t {
        NatT::Off => return Vec::new(),
        NatT::Auto => path.local,
        NatT::Force => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
    };
    let Some(way) = way else { return Vec::new() };
    let hash = |end| Payload::NatD(way, nat_hash(suite, cookies.0, cookies.1, end));
    vec![hash(path.remote), hash(source)]
}

/// What the peer's hashes say; `None` where there are none, for then it knows nothing of NATs.
pub(super) fn detect(
    nat_t: NatT,
    suite: &PhaseOneSuite,
    cookies: (u64, u64),
    path: Path,
    payloads: &[Payload],
) -> Option<Nat> {
    if nat_t == NatT::Off {
        return None;
    }
    let mut hashes =
        payloads.iter().filter_map(|p| if let Payload::NatD(_, hash) = p { Some(hash) } else { None });
    let destination = hashes.next()?;
    let sources: Vec<_> = hashes.collect();
    if sources.is_empty() {
        return None;
    }
    let (local, remote) = (
        nat_hash(suite, cookies.0, cookies.1, path.local),
        nat_hash(suite, cookies.0, cookies.1, path.remote),
    );
    Some(Nat { local: nat_t == NatT::Force || *destination != local, peer: !sources.contains(&&remote) })
}
