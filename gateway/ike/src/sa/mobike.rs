//! MOBIKE (RFC 4555) as responder: the initiator of an IKE SA says from which address it goes on, and the IKE SA and
//! its Child SAs follow.
//!
//! Where the request comes from is what counts, not what it says. A NAT may change it on its way, so the initiator is
//! told what was seen where it asks for that, and refused where it allows no NAT.

use std::{net::IpAddr, ops::RangeInclusive, time::Instant};

use super::{
    IkeSa, Role,
    extensions::{data_of, says},
    nat,
};
use crate::{
    config::NatT,
    endpoint::Endpoint,
    event::{Event, Nat, Path},
    timer::TimerKind,
    wire::{Notify, NotifyType, Payload},
};

/// Octets that the data of COOKIE2 may have (RFC 4555 section 4.2.5).
const COOKIE2_LEN: RangeInclusive<usize> = 8..=64;

/// What NO_NATS_ALLOWED says for a path: the addresses and ports as their sender sees them.
fn addresses(path: Path) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut said = [octets(path.remote.ip()), octets(path.local.ip())].concat();
    said.extend(path.remote.port().to_be_bytes());
    said.extend(path.local.port().to_be_bytes());
    said
}

/// Whether a message came through a NAT that its sender does not allow.
pub(super) fn is_nat_refused(path: Path, payloads: &[Payload]) -> bool {
    data_of(payloads, NotifyType::NO_NATS_ALLOWED).is_some_and(|said| *said != addresses(path)[..])
}

impl Endpoint {
    /// What is answered to the notifies of MOBIKE and of NAT detection in an INFORMATIONAL request, and what they
    /// ask for.
    pub(super) fn mobike(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        path: Path,
        payloads: &[Payload],
    ) -> Vec<Payload> {
        let (Some(tunnel), true) = (sa.tunnel.clone(), sa.established().is_some()) else { return Vec::new() };
        let mut answer = Vec::new();
        if says(payloads, NotifyType::UPDATE_SA_ADDRESSES)
            && sa.extensions.mobike
            && sa.began() == Role::Responder
        {
            if is_nat_refused(path, payloads) {
                answer.push(NotifyType::UNEXPECTED_NAT_DETECTED);
            } else if path.local.ip() != sa.path.local.ip() {
                // We have told the peer of no other address of ours.
                answer.push(NotifyType::UNACCEPTABLE_ADDRESSES);
            } else {
                let spis = (sa.initiator_spi(), sa.responder_spi());
                self.relocate(now, sa, path, nat::detect(tunnel.nat_t, spis, path, payloads));
            }
        }
        let mut answer: Vec<_> =
            answer.into_iter().map(|kind| Payload::Notify(Notify::new(kind, []))).collect();
        // Return routability: whoever gets this answer receives where the request came from.
        let cookie = data_of(payloads, NotifyType::COOKIE2);
        if let Some(cookie) = cookie.filter(|cookie| COOKIE2_LEN.contains(&cookie.len())) {
            answer.push(Payload::Notify(Notify::new(NotifyType::COOKIE2, cookie)));
        }
        if says(payloads, NotifyType::NAT_DETECTION_SOURCE_IP) && tunnel.nat_t != NatT::Off {
            answer.extend(nat::notifies(tunnel.nat_t, (sa.initiator_spi(), sa.responder_spi()), path));
        }
        answer
    }

    /// Moves an IKE SA and its Child SAs to where the peer now is. `nat` is what was found out about NATs on the new
    /// path, if anything.
    fn relocate(&mut self, now: Instant, sa: &mut IkeSa, path: Path, nat: Option<Nat>) {
        let (spi, nat_t_port) = (sa.spi, self.config.nat_t_port);
        sa.path = path;
        let (Some(tunnel), Some(established)) = (sa.tunnel_id(), sa.established_mut()) else { return };
        established.nat = nat.unwrap_or(established.nat);
        let encapsulation = (established.nat.any() && path.local.port() == nat_t_port)
            .then_some((path.local.port(), path.remote.port()));
        for child in &mut established.children {
            child.encapsulated = encapsulation.is_some();
            self.events.push_back(Event::ChildMoved {
                tunnel,
                inbound_spi: child.inbound_spi,
                outbound_spi: child.outbound_spi,
                peer: path.remote.ip(),
                encapsulation,
            });
        }
        match established.nat.local {
            true => self.timers.set(spi, TimerKind::Keepalive, now + self.config.keepalive),
            false => self.timers.stop(spi, TimerKind::Keepalive),
        }
    }
}
