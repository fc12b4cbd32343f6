//! What time does to an SA in use: signs of life, NAT keepalives, renewal and expiry.
//!
//! IKE SAs and Child SAs have lifetimes of their own (those of Child SAs are in `child_life`). Before one ends, whoever's
//! soft lifetime ends first rekeys it, or begins a new IKE SA for the tunnel and closes the old one when that is up
//! (`collision`). The initiator's ends at 85 to 90 percent, the responder's at 92 to 97, so that with equal lifetimes
//! they seldom begin at once.

use std::time::{Duration, Instant};

use super::{Goal, IkeSa, Purpose, Role};
use crate::{
    config::{NatT, TunnelConfig},
    endpoint::Endpoint,
    event::{DownReason, Event, Path, Transmit},
    timer::TimerKind,
    wire::ExchangeType,
};

/// The wait after a renewal that failed.
pub(super) const RENEWAL_RETRY: Duration = Duration::from_secs(10);

impl Endpoint {
    pub(super) fn start_lifetimes(&mut self, now: Instant, sa: &mut IkeSa, tunnel: &TunnelConfig) {
        self.timers.set(sa.spi, TimerKind::HardLifetime, now + tunnel.ike.lifetime);
        self.start_soft_lifetime(now, sa, tunnel);
        if let Some(dpd) = tunnel.dpd {
            self.timers.set(sa.spi, TimerKind::Liveness, now + dpd.delay);
        }
        if sa.established().is_some_and(|e| e.nat.local) {
            self.timers.set(sa.spi, TimerKind::Keepalive, now + self.config.keepalive);
        }
    }

    pub(super) fn start_soft_lifetime(&mut self, now: Instant, sa: &mut IkeSa, tunnel: &TunnelConfig) {
        let Some(established) = sa.established() else { return };
        let least = if sa.role == Role::Initiator { 850 } else { 920 };
        let permille = least + self.rng.next_u32() % 50;
        let due = established.since + tunnel.ike.lifetime * permille / 1000;
        self.timers.set(sa.spi, TimerKind::SoftLifetime, due.max(now));
    }

    /// An IKE SA is to be renewed: rekeyed, or authenticated anew where that is wanted or all that the peer can do.
    pub(crate) fn soft_lifetime(&mut self, now: Instant, mut sa: IkeSa) -> Option<IkeSa> {
        let (Some(established), Some(tunnel)) = (sa.established(), &sa.tunnel) else { return Some(sa) };
        let anew = tunnel.initiates && (tunnel.ike.reauthenticate || established.refuses_rekeys);
        self.timers.set(sa.spi, TimerKind::SoftLifetime, now + self.config.give_up_after() + RENEWAL_RETRY);
        if anew {
            self.renew(now, &sa);
        } else {
            self.want(now, &mut sa, Goal::RekeyIke);
        }
        Some(sa)
    }

    /// Begins another IKE SA, with Child SAs of its own, that takes the place of this one; if we may, and are not at it
    /// already.
    pub(crate) fn renew(&mut self, now: Instant, sa: &IkeSa) {
        let (Some(established), Some(old)) = (sa.established(), &sa.tunnel) else { return };
        // As the tunnel is configured now, not as it was then.
        let Some(tunnel) = self.tunnels.get(&old.id).filter(|tunnel| tunnel.initiates).cloned() else {
            return;
        };
        let under_way =
            self.others(tunnel.id, sa.spi).iter().any(|o| self.sas.get(o).is_some_and(IkeSa::is_attempt));
        if !under_way {
            // Through the peer's NAT only the mapping that is there leads back to it.
            let path = if established.nat.peer && tunnel.is_local(sa.path.local.ip()) {
                sa.path
            } else {
                self.path_to(&tunnel, sa.path.remote.ip())
            };
            self.initiate(now, tunnel, path, None);
        }
    }

    /// An SA has come to its end before another was up.
    pub(crate) fn hard_lifetime(&mut self, now: Instant, sa: IkeSa) -> Option<IkeSa> {
        self.close_sa(now, sa, DownReason::Expired)
    }

    /// The peer has been silent for some time, or for too long.
    pub(crate) fn liveness(&mut self, now: Instant, mut sa: IkeSa) -> Option<IkeSa> {
        let Some(dpd) = sa.tunnel.as_ref().and_then(|t| t.dpd) else { return Some(sa) };
        let spi = sa.spi;
        let Some(established) = sa.established_mut() else { return Some(sa) };
        let (quiet_until, probed) = (established.heard + dpd.delay, established.probed);
        match probed {
            Some(since) if established.heard <= since => {
                if now >= since + dpd.timeout {
                    return self.dead(sa);
                }
                self.timers.set(spi, TimerKind::Liveness, since + dpd.timeout);
            }
            _ if now < quiet_until => {
                established.probed = None;
                self.timers.set(spi, TimerKind::Liveness, quiet_until);
            }
            _ => {
                established.probed = Some(now);
                self.timers.set(spi, TimerKind::Liveness, now + dpd.timeout);
                // Any request under way asks for a sign of life as well.
                if sa.window.outstanding.is_none() {
                    self.request(now, &mut sa, ExchangeType::Informational, Vec::new(), Purpose::Liveness);
                }
            }
        }
        Some(sa)
    }

    /// The peer has given a sign of life.
    pub(crate) fn alive(&mut self, now: Instant, sa: &mut IkeSa) {
        let dpd = sa.tunnel.as_ref().and_then(|t| t.dpd);
        let spi = sa.spi;
        let Some(established) = sa.established_mut() else { return };
        established.heard = now;
        if established.probed.take().is_some()
            && let Some(dpd) = dpd
        {
            self.timers.set(spi, TimerKind::Liveness, now + dpd.delay);
        }
    }

    /// Tells how long the peer took to answer a question for a sign of life.
    pub(crate) fn answered_probe(&mut self, tunnel: Option<&TunnelConfig>, round_trip: Duration) {
        self.events.extend(tunnel.map(|tunnel| Event::Alive { tunnel: tunnel.id, round_trip }));
    }

    /// The peer is held for dead: nothing is sent to it any more.
    pub(crate) fn dead(&mut self, mut sa: IkeSa) -> Option<IkeSa> {
        self.down(&mut sa, DownReason::PeerDead);
        None
    }

    pub(crate) fn keepalive(&mut self, now: Instant, sa: &IkeSa) {
        self.counters.sent += 1;
        self.transmits.push_back(Transmit { path: sa.path, payload: vec![0xff] });
        self.timers.set(sa.spi, TimerKind::Keepalive, now + self.config.keepalive);
    }

    /// Follows a peer behind a NAT to where its authenticated messages now come from, unless we are behind one
    /// ourselves (RFC 7296 section 2.23).
    pub(crate) fn follow(&mut self, sa: &mut IkeSa, path: Path) {
        let before = sa.path;
        let (Some(established), Some(tunnel)) = (sa.established(), &sa.tunnel) else { return };
        let (behind_nat, tunnel) = (established.nat.local && tunnel.nat_t != NatT::Force, tunnel.id);
        if !established.nat.peer || behind_nat || path == before {
            return;
        }
        let encapsulation = Some((path.local.port(), path.remote.port()));
        for child in &established.children {
            self.events.push_back(Event::ChildMoved {
                tunnel,
                inbound_spi: child.inbound_spi,
                outbound_spi: child.outbound_spi,
                peer: path.remote.ip(),
                encapsulation: encapsulation.filter(|_| child.encapsulated),
            });
        }
        sa.path = path;
    }
}
