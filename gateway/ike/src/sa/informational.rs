//! INFORMATIONAL (RFC 7296 section 1.4): DELETE of IKE and Child SAs, signs of life, late errors.

use std::time::{Duration, Instant};

use super::{Goal, IkeSa, Purpose, Stage, Standing, State, ike_auth::authentication_failed};
use crate::{
    TunnelId,
    counters::ExchangeResult,
    endpoint::Endpoint,
    event::{DownReason, Event, Path, Phase},
    timer::TimerKind,
    wire::{ExchangeType, NotifyType, Payload, Protocol},
};

/// SPIs that a peer may delete before we know them.
const MAX_GONE: usize = 16;

/// How long the answer to a DELETE is held back where a packet of ours may still be on its way with what is deleted: with
/// the answer a peer forgets how to open it. Nobody sends a request again as early as this.
const FAREWELL: Duration = Duration::from_millis(100);

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
                Payload::Notify(notify)
                    if notify.kind == NotifyType::AUTHENTICATION_FAILED && sa.established().is_some() =>
                {
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
        if closed == Some(DownReason::ClosedByPeer) && self.is_succeeded(&sa) {
            self.answer_at(now + FAREWELL, &mut sa, path, ExchangeType::Informational, &answer);
        } else {
            self.answer(&mut sa, path, ExchangeType::Informational, &answer);
        }
        match closed {
            Some(reason) => self.closed_by_peer(now, sa, reason),
            None => Some(sa),
        }
    }

    /// Removes the Child SAs that the peer names by their outbound SPIs; the inbound ones of those that were
    /// still there. Where both sides delete the same pair at once, it is left to the answer to our own DELETE (RFC
    /// 7296 section 1.4.1).
    fn delete_children(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        protocol: Protocol,
        outbound: &[u32],
    ) -> Vec<u32> {
        let mut deleted = Vec::new();
        for spi in outbound {
            let Some(established) = sa.established_mut() else { break };
            let child = established
                .children
                .iter()
                .find(|child| Protocol::from(child.suite.protocol) == protocol && child.outbound_spi == *spi);
            let Some(child) = child else {
                let task = established.agenda.task.as_mut().filter(|task| task.gone.len() < MAX_GONE);
                task.into_iter().for_each(|task| task.gone.push(*spi));
                continue;
            };
            if matches!(child.stage, Stage::Deleting | Stage::Draining(_)) {
                continue;
            }
            let inbound_spi = child.inbound_spi;
            deleted.push(inbound_spi);
            let replaced =
                matches!(child.stage, Stage::Redundant(_)) || established.successor(inbound_spi).is_some();
            let child = sa.established().and_then(|e| e.child(inbound_spi));
            let elsewhere = child.and_then(|child| self.heir(sa, child)).and(sa.tunnel_id());
            if replaced || elsewhere.is_some() {
                self.switch_from(now, sa, inbound_spi);
                if let Some(tunnel) = elsewhere {
                    self.switch_elsewhere(tunnel, sa.spi);
                }
                self.drain_child(now, sa, inbound_spi);
            } else {
                self.remove_child(sa, inbound_spi, DownReason::ClosedByPeer);
            }
        }
        if !deleted.is_empty() {
            self.maybe_childless(now, sa);
        }
        deleted
    }

    /// The peer has closed the SA. It stays to answer a DELETE that comes again.
    fn closed_by_peer(&mut self, now: Instant, mut sa: IkeSa, reason: DownReason) -> Option<IkeSa> {
        // What is closed is not kept the longer for being closed again.
        let closed_at = self.timers.get(sa.spi, TimerKind::Linger);
        self.take_back(now, &mut sa);
        self.drain_elsewhere(now, &mut sa);
        self.down(&mut sa, reason);
        sa.state = match sa.state {
            State::Established(established) => State::Closing(established.channel),
            State::Closing(channel) => State::Closing(channel),
            _ => return None,
        };
        self.timers.stop_all_but(sa.spi, &[TimerKind::Answer]);
        sa.window.outstanding = None;
        sa.window.queue.clear();
        self.timers.set(sa.spi, TimerKind::Linger, closed_at.unwrap_or(now + self.config.linger));
        Some(sa)
    }

    /// Whether another IKE SA of the tunnel has a pair in place of one of these.
    fn is_succeeded(&self, sa: &IkeSa) -> bool {
        let mut children = sa.established().into_iter().flat_map(|e| &e.children);
        children.any(|child| self.heir(sa, child).is_some())
    }

    /// Where another IKE SA of the tunnel has pairs in place of those of the one that the peer closes, what the peer sent
    /// with these may still be on its way: they stay for a while, with the other.
    fn drain_elsewhere(&mut self, now: Instant, sa: &mut IkeSa) {
        let until = now + self.config.overlap;
        let (Some(tunnel), Some(established)) = (sa.tunnel_id(), sa.established_mut()) else { return };
        for mut child in std::mem::take(&mut established.children) {
            let heir = self.heir(sa, &child);
            let Some(mut heir) = heir.and_then(|spi| self.sas.remove(&spi)) else {
                if let Some(established) = sa.established_mut() {
                    established.children.push(child);
                }
                continue;
            };
            if !matches!(child.stage, Stage::Draining(_)) {
                child.stage = Stage::Draining(until);
            }
            sa.esp_spis.retain(|spi| *spi != child.inbound_spi);
            heir.esp_spis.push(child.inbound_spi);
            if let Some(established) = heir.established_mut() {
                established.children.push(child);
            }
            self.schedule_children(&heir);
            self.sas.insert(heir.spi, heir);
        }
        self.switch_elsewhere(tunnel, sa.spi);
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
            Purpose::DeleteChild(inbound_spi, _) => self.child_deleted(now, &mut sa, inbound_spi),
            Purpose::Establish | Purpose::Create => {}
        }
        Some(sa)
    }

    /// Closes an SA in use: the peer is told, its Child SAs go at once.
    pub(crate) fn close_sa(&mut self, now: Instant, mut sa: IkeSa, reason: DownReason) -> Option<IkeSa> {
        self.down(&mut sa, reason);
        let (spi, attempts) = (sa.spi, sa.window.outstanding.as_ref().map(|request| request.attempts));
        let Some(established) = sa.established_mut() else { return Some(sa) };
        if established.standing == Standing::Closing {
            return Some(sa);
        }
        let rekeys = established.agenda.is_under_way(|goal| *goal == Goal::RekeyIke);
        self.timers.stop_all(spi);
        // The window allows one request: DELETE follows the one under way, as soon as that is answered.
        if let Some(attempts) = attempts {
            self.timers.set(spi, TimerKind::Retransmit, now + self.config.retransmission.wait(attempts));
        }
        if rekeys {
            established.standing = Standing::Closing;
            if let Some(task) = &mut established.agenda.task {
                task.doomed = true;
            }
            sa.window.queue.clear();
            return Some(sa);
        }
        self.finish_closing(now, sa)
    }

    /// Sends DELETE for an SA of which nothing else is left.
    pub(super) fn finish_closing(&mut self, now: Instant, mut sa: IkeSa) -> Option<IkeSa> {
        let State::Established(established) = sa.state else { return Some(sa) };
        sa.state = State::Closing(established.channel);
        sa.window.queue.clear();
        self.send_delete(now, &mut sa);
        Some(sa)
    }

    pub(super) fn send_delete(&mut self, now: Instant, sa: &mut IkeSa) {
        let delete = Payload::Delete { protocol: Protocol::Ike, spis: Vec::new() };
        self.request(now, sa, ExchangeType::Informational, vec![delete], Purpose::Close);
    }

    /// Tells the caller that everything of an SA in use is gone.
    pub(crate) fn down(&mut self, sa: &mut IkeSa, reason: DownReason) {
        let (spi, tunnel) = (sa.spi, sa.tunnel_id());
        let (Some(established), Some(tunnel)) = (sa.established_mut(), tunnel) else { return };
        if established.standing == Standing::Closing {
            return;
        }
        let children = std::mem::take(&mut established.children);
        self.switch_elsewhere(tunnel, spi);
        let reason = self.down_reason(tunnel, spi, reason);
        for child in &children {
            let reason = if child.is_usable() { reason } else { DownReason::Replaced };
            self.child_down(tunnel, child, reason);
        }
        self.events.push_back(Event::IkeDown { tunnel, reason });
    }

    pub(super) fn child_down(&mut self, tunnel: TunnelId, child: &super::Child, reason: DownReason) {
        let (inbound_spi, outbound_spi) = (child.inbound_spi, child.outbound_spi);
        self.events.push_back(Event::ChildDown { tunnel, inbound_spi, outbound_spi, reason });
    }

    /// Whatever the cause: while the tunnel has another SA, this one was replaced.
    pub(super) fn down_reason(&self, tunnel: TunnelId, spi: u64, reason: DownReason) -> DownReason {
        if self.has_usable(tunnel, spi) { DownReason::Replaced } else { reason }
    }
}
