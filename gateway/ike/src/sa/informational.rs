//! INFORMATIONAL (RFC 7296 section 1.4): DELETE of IKE and Child SAs, signs of life, late errors.

use std::time::Instant;

use super::{IkeSa, Purpose, State, ike_auth::authentication_failed};
use crate::{
    TunnelId,
    counters::ExchangeResult,
    endpoint::Endpoint,
    event::{DownReason, Event, Path, Phase},
    timer::TimerKind,
    wire::{ExchangeType, NotifyType, Payload, Protocol},
};

/// How long an IKE SA without a Child SA is left to the peer to close.
pub(super) const CHILDLESS: std::time::Duration = std::time::Duration::from_secs(10);

impl Endpoint {
    /// The peer's request on an SA in use or on one that is closing.
    pub(crate) fn informational_request(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        payloads: &[Payload],
    ) -> Option<IkeSa> {
        self.counters.exchange(ExchangeType::Informational, ExchangeResult::Done);
        let mut answer = Vec::new();
        let mut closed = None;
        for payload in payloads {
            match payload {
                Payload::Delete { protocol: Protocol::Ike, .. } => closed = Some(DownReason::ClosedByPeer),
                Payload::Delete { protocol, spis } => {
                    let deleted = self.delete_children(now, &mut sa, *protocol, spis);
                    if !deleted.is_empty() {
                        answer.push(Payload::Delete { protocol: *protocol, spis: deleted });
                    }
                }
                Payload::Notify(notify) if notify.kind == NotifyType::AUTHENTICATION_FAILED => {
                    if let Some(cause) = sa.tunnel.as_ref().map(|tunnel| authentication_failed(tunnel, true))
                    {
                        self.report_failure(&sa, Phase::One, ExchangeType::IkeAuth, cause);
                    }
                    closed = Some(DownReason::Broken);
                }
                _ => {}
            }
        }
        answer.extend(self.mobike(now, &mut sa, path, payloads));
        self.answer(&mut sa, path, ExchangeType::Informational, &answer);
        match closed {
            Some(reason) => self.closed_by_peer(now, sa, reason),
            None => Some(sa),
        }
    }

    /// Removes the Child SAs that the peer names by their outbound SPIs; the inbound ones of those that were
    /// still there.
    fn delete_children(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        protocol: Protocol,
        outbound: &[u32],
    ) -> Vec<u32> {
        let (spi, tunnel) = (sa.spi, sa.tunnel_id());
        let (Some(established), Some(tunnel)) = (sa.established_mut(), tunnel) else { return Vec::new() };
        let mut deleted = Vec::new();
        established.children.retain(|child| {
            let named = Protocol::from(child.protocol) == protocol && outbound.contains(&child.outbound_spi);
            if named {
                deleted.push(*child);
            }
            !named
        });
        let childless = established.children.is_empty();
        let reason = self.down_reason(tunnel, spi, DownReason::ClosedByPeer);
        for child in &deleted {
            self.child_down(tunnel, child, reason);
        }
        if childless && !deleted.is_empty() {
            self.timers.set(spi, TimerKind::Superseded, now + CHILDLESS);
        }
        deleted.iter().map(|child| child.inbound_spi).collect()
    }

    /// The peer has closed the SA. It stays to answer a DELETE that comes again.
    fn closed_by_peer(&mut self, now: Instant, mut sa: IkeSa, reason: DownReason) -> Option<IkeSa> {
        self.down(&mut sa, reason);
        sa.state = match sa.state {
            State::Established(established) => State::Closing(established.channel),
            State::Closing(channel) => State::Closing(channel),
            _ => return None,
        };
        self.timers.stop_all(sa.spi);
        sa.window.outstanding = None;
        sa.window.queue.clear();
        self.timers.set(sa.spi, TimerKind::Linger, now + self.config.linger);
        Some(sa)
    }

    /// The authentic answer to a request of ours on an SA in use or closing.
    pub(crate) fn informational_answer(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        purpose: Purpose,
    ) -> Option<IkeSa> {
        self.counters.exchange(ExchangeType::Informational, ExchangeResult::Done);
        match purpose {
            Purpose::Close => return None,
            Purpose::Liveness => self.alive(now, &mut sa),
            Purpose::Establish | Purpose::DeleteChild(..) => {}
        }
        Some(sa)
    }

    /// Closes an SA in use: the peer is told, its Child SAs go at once.
    pub(crate) fn close_sa(&mut self, now: Instant, mut sa: IkeSa, reason: DownReason) -> Option<IkeSa> {
        self.down(&mut sa, reason);
        let State::Established(established) = sa.state else { return Some(sa) };
        sa.state = State::Closing(established.channel);
        self.timers.stop_all(sa.spi);
        sa.window.queue.clear();
        // The window allows one request: DELETE follows the one under way, as soon as that is answered.
        if let Some(request) = &sa.window.outstanding {
            let wait = self.config.retransmission.wait(request.attempts);
            self.timers.set(sa.spi, TimerKind::Retransmit, now + wait);
        }
        self.send_delete(now, &mut sa);
        Some(sa)
    }

    pub(super) fn send_delete(&mut self, now: Instant, sa: &mut IkeSa) {
        let delete = Payload::Delete { protocol: Protocol::Ike, spis: Vec::new() };
        self.request(now, sa, ExchangeType::Informational, vec![delete], Purpose::Close);
    }

    /// Closes one pair of Child SAs, and tells the peer.
    pub(crate) fn close_child_of(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        inbound_spi: u32,
        reason: DownReason,
    ) {
        let (spi, tunnel) = (sa.spi, sa.tunnel_id());
        let (Some(established), Some(tunnel)) = (sa.established_mut(), tunnel) else { return };
        let Some(at) = established.children.iter().position(|c| c.inbound_spi == inbound_spi) else { return };
        let child = established.children.remove(at);
        let childless = established.children.is_empty();
        self.child_down(tunnel, &child, reason);
        let delete = Payload::Delete { protocol: child.protocol.into(), spis: vec![inbound_spi] };
        let purpose = Purpose::DeleteChild(inbound_spi, reason);
        self.request(now, sa, ExchangeType::Informational, vec![delete], purpose);
        if childless {
            self.timers.set(spi, TimerKind::Superseded, now + CHILDLESS);
        }
    }

    /// Tells the caller that everything of an SA in use is gone.
    pub(crate) fn down(&mut self, sa: &mut IkeSa, reason: DownReason) {
        let (spi, tunnel) = (sa.spi, sa.tunnel_id());
        let (Some(established), Some(tunnel)) = (sa.established_mut(), tunnel) else { return };
        let children = std::mem::take(&mut established.children);
        let reason = self.down_reason(tunnel, spi, reason);
        children.iter().for_each(|child| self.child_down(tunnel, child, reason));
        self.events.push_back(Event::IkeDown { tunnel, reason });
    }

    fn child_down(&mut self, tunnel: TunnelId, child: &super::Child, reason: DownReason) {
        let (inbound_spi, outbound_spi) = (child.inbound_spi, child.outbound_spi);
        self.events.push_back(Event::ChildDown { tunnel, inbound_spi, outbound_spi, reason });
    }

    /// Whatever the cause: while the tunnel has another SA, this one was replaced.
    fn down_reason(&self, tunnel: TunnelId, spi: u64, reason: DownReason) -> DownReason {
        if self.has_usable(tunnel, spi) { DownReason::Replaced } else { reason }
    }
}
