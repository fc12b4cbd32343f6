//! As responder: QM2, or a refusal in words; and what QM3 confirms.

use std::{sync::Arc, time::Instant};

use super::{
    Hash, PAIRS_ALIKE, PEERS_AT_ONCE, QUICK, Quick, Step, Want, encapsulations, ids_of, mismatch, seal,
};
use crate::{
    TunnelId,
    config::TunnelConfig,
    counters::ExchangeResult,
    crypto::dh::{Secret, Shared, Work},
    endpoint::Endpoint,
    error::Cause,
    event::{DownReason, Phase},
    selector::TrafficSelector,
    v1::{
        Established, Flight, Sa, State,
        exchanges::Exchange,
        phase_one::find,
        proposal::{Lifetime, select_phase_two},
        wire::{Notify, NotifyType, Payload, ProtocolId, SecurityAssociation},
    },
};

/// Subnets on each side that a tunnel is told of with its own where the peer asks for others: as many as people read.
const NAMED: usize = 16;

impl Endpoint {
    /// QM1.
    pub(super) fn quick_offer(&mut self, now: Instant, sa: &mut Sa, id: u32, payloads: &[Payload]) {
        let (nat_t_port, cookie) = (self.config.nat_t_port, sa.cookie);
        let Some(tunnel) = sa.tunnel.clone() else { return };
        let State::Established(established) = &sa.state else { return };
        let allowed = encapsulations(sa, established, nat_t_port);
        let crowded = established.quicks().filter(|(_, quick)| !quick.is_ours()).count() >= PEERS_AT_ONCE;
        let (Some(offered), Some(nonce), false) = (find!(payloads, Sa), find!(payloads, Nonce), crowded)
        else {
            self.counters.overloaded += u64::from(crowded);
            self.counters.malformed += u64::from(!crowded);
            self.drop_quick(sa, id);
            return;
        };
        let ids = ids_of(payloads);
        let host = |ip| TrafficSelector::from_prefix(ip, 128);
        let (remote, local) = match &ids[..] {
            [initiator, responder] => (initiator.selector(), responder.selector()),
            _ => (Some(host(sa.path.remote.ip())), Some(host(sa.path.local.ip()))),
        };
        let pair = local.clone().zip(remote.clone());
        let fitting = pair.as_ref().and_then(|(local, remote)| self.tunnel_of_pair(&tunnel, local, remote));
        let Some((tunnel, (local, remote))) = fitting.zip(pair) else {
            let theirs = (local.into_iter().collect(), remote.into_iter().collect());
            return self.refuse_pair(now, sa, id, offered, theirs);
        };
        let spi = self.draw_esp_spi(&mut Vec::new());
        let chosen = select_phase_two(&tunnel.ipsec, offered, spi, &allowed);
        let Some((suite, outbound_spi, answer)) = chosen else {
            self.esp_spis.remove(&spi);
            let cause = mismatch(&tunnel.ipsec, offered, allowed[0]);
            let told = vec![(tunnel.id, cause)];
            return self.refuse_quick(now, sa, id, NotifyType::NO_PROPOSAL_CHOSEN, offered, told);
        };
        if !self.has_room_for_child(now, sa, tunnel.id, (&local, &remote)) {
            self.esp_spis.remove(&spi);
            self.drop_quick(sa, id);
            self.counters.overloaded += 1;
            return;
        }
        let public = find!(payloads, KeyExchange);
        if suite.group.is_some() != public.is_some() {
            self.esp_spis.remove(&spi);
            let cause = Cause::Malformed { what: "KE is missing, or not asked for" };
            let kind = NotifyType::INVALID_KEY_INFORMATION;
            return self.refuse_quick(now, sa, id, kind, offered, vec![(tunnel.id, cause)]);
        }
        let own = self.v1_nonce();
        let want = Want { tunnel: tunnel.id, local, remote, replaces: None };
        let mut quick = Quick::new(now, Step::Responding, want, spi, own);
        let policy = Lifetime { time: Some(tunnel.ipsec.lifetime), bytes: tunnel.ipsec.lifetime_bytes };
        quick.lifetime = policy.min(suite.lifetime);
        (quick.suite, quick.outbound_spi, quick.answer) = (Some(suite), outbound_spi, answer);
        quick.peer_nonce = nonce.clone();
        quick.ids = ids.into_iter().cloned().map(Payload::Id).collect();
        let exchange = Exchange { flight: Flight::default(), forget_at: None, quick: Some(Box::new(quick)) };
        if let Some(established) = sa.established_mut() {
            established.exchanges.insert(id, exchange);
        }
        match (suite.group, public) {
            (Some(group), Some(public)) => {
                let secret = Secret::random(group, &mut *self.rng);
                self.quick_job(cookie, id, secret, Work::Respond(public.clone()));
            }
            _ => self.send_quick_answer(now, sa, id, None),
        }
    }

    /// Whether there is room for one more pair between these subnets; the oldest of those that another has taken the
    /// place of makes it.
    pub(super) fn has_room_for_child(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        tunnel: TunnelId,
        (local, remote): (&TrafficSelector, &TrafficSelector),
    ) -> bool {
        let children = self.v1.families.get(&tunnel).map_or(&[][..], |family| &family.children[..]);
        let alike = || children.iter().filter(|child| child.is_of(local, remote));
        let computing = sa.established().into_iter().flat_map(Established::quicks);
        let computing = computing.filter(|(_, quick)| {
            quick.step == Step::Responding && (&quick.want.local, &quick.want.remote) == (local, remote)
        });
        if alike().count() + computing.count() < PAIRS_ALIKE {
            return true;
        }
        let replaced = alike().filter(|child| child.retire_at.is_some() && child.confirmed);
        let Some(spi) = replaced.min_by_key(|child| child.since).map(|child| child.inbound_spi) else {
            return false;
        };
        self.remove_child_on(now, Some(sa), tunnel, spi, DownReason::Replaced, true);
        true
    }

    /// The peer asks for subnets that are of no tunnel. Those that have no pair are told, for each may be the one that is
    /// meant.
    pub(super) fn refuse_pair(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        offered: &SecurityAssociation,
        theirs: (Vec<TrafficSelector>, Vec<TrafficSelector>),
    ) {
        let Some(owner) = sa.tunnel.clone() else { return };
        let kin = self.kin(&owner);
        let mut told: Vec<_> = kin.iter().filter(|t| !self.v1.is_up(t.id)).cloned().collect();
        if told.is_empty() {
            told.push(owner);
        }
        let cause = |told: &Arc<TunnelConfig>| {
            let of_kin = |ts: fn(&TunnelConfig) -> &Vec<TrafficSelector>| {
                let mut named = ts(told).clone();
                for more in kin.iter().flat_map(|t| ts(t)).take(NAMED) {
                    if !named.contains(more) {
                        named.push(more.clone());
                    }
                }
                named
            };
            let (our_local, our_remote) = (of_kin(|t| &t.local_ts), of_kin(|t| &t.remote_ts));
            (told.id, Cause::TrafficSelectors { our_local, our_remote, theirs: Some(theirs.clone()) })
        };
        let told = told.iter().map(cause).collect();
        self.refuse_quick(now, sa, id, NotifyType::INVALID_ID_INFORMATION, offered, told);
    }

    /// Refuses a quick mode of the peer's; `told` is why, for each tunnel that is to hear of it.
    pub(super) fn refuse_quick(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        kind: NotifyType,
        offered: &SecurityAssociation,
        told: Vec<(TunnelId, Cause)>,
    ) {
        self.counters.exchange(QUICK, ExchangeResult::Refused);
        let spi = offered.proposals.first().map_or_else(Vec::new, |proposal| proposal.spi.clone());
        let protocol = offered.proposals.first().map_or(ProtocolId::Esp, |proposal| proposal.protocol);
        let notify = Notify { protocol, spi, kind, data: Vec::new() };
        if let Some(established) = sa.established_mut() {
            established.cipher.finish(id);
        }
        self.inform(now, sa, Payload::Notify(notify), false);
        for (tunnel, cause) in told {
            if !sa.doomed && self.reports.permit(now, Some(tunnel)) {
                self.failed(Some(tunnel), sa.path, false, Phase::Two, QUICK, cause);
            }
        }
    }

    /// QM2.
    pub(super) fn send_quick_answer(&mut self, now: Instant, sa: &mut Sa, id: u32, shared: Option<&Shared>) {
        let cookies = sa.cookies();
        self.install_child(now, sa, id, shared, false);
        let Some(established) = sa.established_mut() else { return };
        let Some(quick) = established.quick_mut(id) else { return };
        let Some(suite) = quick.suite else { return };
        quick.step = Step::Answered;
        let answer = std::mem::take(&mut quick.answer);
        let mut rest = vec![Payload::Sa(answer), Payload::Nonce(quick.nonce.clone())];
        rest.extend(quick.public.clone().map(Payload::KeyExchange));
        rest.extend(quick.ids.iter().cloned());
        if quick.lifetime != suite.lifetime {
            let protocol = ProtocolId::from(suite.protocol);
            rest.push(Payload::Notify(quick.lifetime.notify_child(protocol, quick.inbound_spi)));
        }
        let nonce = quick.peer_nonce.clone();
        let message = seal(established, cookies, id, rest, &Hash::Two(&nonce));
        self.send_exchange(now, sa, id, message, true);
    }

    /// QM3, or packets that tell as much.
    pub(in crate::v1) fn quick_confirmed(&mut self, now: Instant, sa: &mut Sa, id: u32) {
        let Some(quick) = self.drop_quick(sa, id) else { return };
        self.counters.exchange(QUICK, ExchangeResult::Done);
        self.confirm_child(now, quick.want.tunnel, quick.inbound_spi);
    }

    /// Packets of the peer's have come in with a pair that waits for QM3.
    pub(in crate::v1) fn confirm_by_traffic(&mut self, now: Instant, sa: &mut Sa, inbound_spi: u32) {
        let answered = sa.established().and_then(|established| {
            let mut quicks = established.quicks();
            quicks.find(|(_, quick)| quick.awaits_traffic(inbound_spi)).map(|(id, _)| id)
        });
        if let Some(id) = answered {
            self.quick_confirmed(now, sa, id);
        }
    }
}
