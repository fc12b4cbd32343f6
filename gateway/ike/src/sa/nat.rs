//! NAT detection (RFC 7296 section 2.23).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{
    algorithm::Prf,
    config::NatT,
    crypto::prf::hash,
    event::{Nat, Path},
    wire::{Notify, NotifyType, Payload},
};

/// SHA-1 over the SPIs, the address and the port.
fn digest(spis: (u64, u64), address: SocketAddr) -> Vec<u8> {
    let spis = [spis.0.to_be_bytes(), spis.1.to_be_bytes()].concat();
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(v4) => hash(Prf::Sha1, &[&spis, &v4.octets(), &port]).to_vec(),
        IpAddr::V6(v6) => hash(Prf::Sha1, &[&spis, &v6.octets(), &port]).to_vec(),
    }
}

/// The notifies that let the peer detect NATs. `Force` gives a source that is not ours, so that it sees one.
pub(super) fn notifies(nat_t: NatT, spis: (u64, u64), path: Path) -> Vec<Payload> {
    let source = match nat_t {
        NatT::Off => return Vec::new(),
        NatT::Auto => path.local,
        NatT::Force => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
    };
    [(NotifyType::NAT_DETECTION_SOURCE_IP, source), (NotifyType::NAT_DETECTION_DESTINATION_IP, path.remote)]
        .map(|(kind, address)| Payload::Notify(Notify::new(kind, digest(spis, address))))
        .to_vec()
}

/// What the peer's notifies say; `None` if there are none, for then it knows nothing of NATs.
pub(super) fn detect(nat_t: NatT, spis: (u64, u64), path: Path, payloads: &[Payload]) -> Option<Nat> {
    if nat_t == NatT::Off {
        return None;
    }
    let digests = |kind: NotifyType| {
        payloads.iter().filter_map(move |payload| match payload {
            Payload::Notify(notify) if notify.kind == kind => Some(&notify.data),
            _ => None,
        })
    };
    let mut sources = digests(NotifyType::NAT_DETECTION_SOURCE_IP).peekable();
    let mut destinations = digests(NotifyType::NAT_DETECTION_DESTINATION_IP).peekable();
    sources.peek()?;
    destinations.peek()?;
    let (remote, local) = (digest(spis, path.remote), digest(spis, path.local));
    Some(Nat {
        local: nat_t == NatT::Force || !destinations.any(|d| *d == local),
        peer: !sources.any(|d| *d == remote),
    })
}
