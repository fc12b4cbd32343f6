//! The clockwork of an ISAKMP SA that is up: renewal, expiry, signs of life, NAT keepalives and a peer that moves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Sa,
    wire::{Notify, NotifyType, Payload},
};
use crate::{
    config::{NatT, TunnelConfig},
    endpoint::Endpoint,
    event::{DownReason, Event, Path, Transmit},
    sa::Role,
    timer::TimerKind,
};

/// The wait before a renewal that has failed is tried again.
const RENEWAL_RETRY: Duration = Duration::from_secs(10);

impl Endpoint {
    pub(super) fn start_v1_lifetimes(&mut self, now: Instant, sa: &Sa, tunnel: &Arc<TunnelConfig>) {
        let Some(established) = sa.established() else { return };
        let offered = established.suite.lifetime.time.filter(|_| sa.role == Role::Responder);
        let lifetime = offered.map_or(tunnel.ike.lifetime, |offered| offered.min(tunnel.ike.lifetime));
        let lifetime = lifetime.max(Duration::from_secs(1));
        let hard = established.since + lifetime;
        self.timers.set(sa.cookie, TimerKind::HardLifetime, hard.max(now));
        self.start_v1_soft_lifetime(now, sa, established.since, lifetime);
        if let Some(dpd) = tunnel.dpd
            && sa.peer.dpd
        {
            self.timers.set(sa.cookie, TimerKind::Liveness, now + dpd.delay);
        }
        if established.nat.local {
            self.timers.set(sa.cookie, TimerKind::Keepalive, now + self.config.keepalive);
        }
    }

    /// The other side's turn comes only if ours has not.
    fn start_v1_soft_lifetime(&mut self, now: Instant, sa: &Sa, since: Instant, lifetime: Duration) {
        let least = if sa.role == Role::Initiator { 850 } else { 920 };
        let permille = least + self.rng.next_u32() % 50;
        let due = since + lifetime * permille / 1000;
        self.timers.set(sa.cookie, TimerKind::SoftLifetime, due.max(now));
    }

    /// The peer has a shorter lifetime than we.
    pub(super) fn shorten(&mut self, now: Instant, sa: &Sa, end: Instant) {
        let Some(tunnel) = &sa.tunnel else { return };
        let Some(established) = sa.established() else { return };
        let lifetime = end.saturating_duration_since(established.since);
        if lifetime < tunnel.ike.lifetime {
            self.timers.set(sa.cookie, TimerKind::HardLifetime, end.max(now));
            self.start_v1_soft_lifetime(now, sa, established.since, lifetime);
        }
    }

    pub(super) fn v1_soft_lifetime(&mut self, now: Instant, sa: &Sa) {
        self.timers.set(
            sa.cookie,
            TimerKind::SoftLifetime,
            now + self.config.give_up_after() + RENEWAL_RETRY,
        );
        self.v1_renew(now, sa);
    }

    /// Begins another ISAKMP SA to take the place of this one, if we are not at it already.
    pub(super) fn v1_renew(&mut self, now: Instant, sa: &Sa) {
        let (Some(established), Some(old)) = (sa.established(), &sa.tunnel) else { return };
        // As the tunnel is configured now, not as it was then.
        let Some(tunnel) = self.tunnels.get(&old.id).cloned() else { return };
        if self.v1_begun(tunnel.id).is_some() || established.superseded {
            return;
        }
        // Through the peer's NAT only the mapping that is there leads back to it.
        let path = if established.nat.peer && tunnel.is_local(sa.path.local.ip()) {
            sa.path
        } else {
            self.path_to(&tunnel, sa.path.remote.ip())
        };
        self.v1_initiate_on(now, tunnel, path, None, false);
    }

    /// The peer has been silent for some time, or for too long.
    pub(super) fn v1_liveness(&mut self, now: Instant, mut sa: Sa) -> Option<Sa> {
        let Some(dpd) = sa.tunnel.as_ref().and_then(|tunnel| tunnel.dpd) else { return Some(sa) };
        let (cookie, cookies) = (sa.cookie, sa.cookies());
        let again = self.config.retransmission.wait(2).min(dpd.timeout);
        let Some(established) = sa.established_mut() else { return Some(sa) };
        let quiet_until = established.heard + dpd.delay;
        match established.probed {
            Some(since) if established.heard <= since && now >= since + dpd.timeout => {
                return self.v1_down(now, sa, DownReason::PeerDead);
            }
            Some(since) if established.heard <= since => {
                let next = (now + again).min(since + dpd.timeout);
                self.timers.set(cookie, TimerKind::Liveness, next);
            }
            _ if now < quiet_until => {
                established.probed = None;
                self.timers.set(cookie, TimerKind::Liveness, quiet_until);
                return Some(sa);
            }
            _ => {
                established.probed = Some(now);
                self.timers.set(cookie, TimerKind::Liveness, now + again);
            }
        }
        established.sequence = established.sequence.wrapping_add(1);
        established.asked = Some(now);
        let probe = Notify::dpd(NotifyType::R_U_THERE, cookies, established.sequence);
        self.inform(now, &mut sa, Payload::Notify(probe), false);
        Some(sa)
    }

    /// The peer has given a sign of life.
    pub(super) fn v1_alive(&mut self, now: Instant, sa: &mut Sa) {
        let dpd = sa.tunnel.as_ref().and_then(|tunnel| tunnel.dpd);
        let cookie = sa.cookie;
        let Some(established) = sa.established_mut() else { return };
        established.heard = now;
        established.unconfirmed = false;
        if established.probed.take().is_some()
            && let Some(dpd) = dpd
        {
            self.timers.set(cookie, TimerKind::Liveness, now + dpd.delay);
        }
    }

    pub(super) fn v1_keepalive(&mut self, now: Instant, sa: &Sa) {
        self.counters.sent += 1;
        self.transmits.push_back(Transmit { path: sa.path, payload: vec![0xff] });
        self.timers.set(sa.cookie, TimerKind::Keepalive, now + self.config.keepalive);
    }

    /// Follows a peer behind a NAT to where its authenticated messages now come from, unless we are behind one
    /// ourselves.
    pub(super) fn v1_follow(&mut self, sa: &mut Sa, path: Path) {
        let (Some(established), Some(tunnel)) = (sa.established(), &sa.tunnel) else { return };
        let behind_nat = established.nat.local && tunnel.nat_t != NatT::Force;
        if !established.nat.peer || behind_nat || path == sa.path {
            return;
        }
        let encapsulation = Some((path.local.port(), path.remote.port()));
        for tunnel in self.kin(tunnel).into_iter().map(|tunnel| tunnel.id) {
            let children = self.v1.families.get(&tunnel).map_or(&[][..], |family| &family.children[..]);
            for child in children {
                self.events.push_back(Event::ChildMoved {
                    tunnel,
                    inbound_spi: child.inbound_spi,
                    outbound_spi: child.outbound_spi,
                    peer: path.remote.ip(),
                    encapsulation: encapsulation.filter(|_| child.encapsulated),
                });
            }
        }
        sa.path = path;
    }
}
