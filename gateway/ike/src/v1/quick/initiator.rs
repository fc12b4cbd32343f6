//! As initiator: what is wanted, QM1, and QM3 when QM2 is there.

use std::time::Instant;

use super::{
    AT_ONCE, Hash, QUICK, Quick, Step, Want, encapsulations, ids_of, mismatch, pairs, seal, selectors,
};
use crate::{
    TunnelId,
    config::TunnelConfig,
    counters::ExchangeResult,
    crypto::dh::{Secret, Shared, Work},
    endpoint::Endpoint,
    error::Cause,
    event::Phase,
    selector::TrafficSelector,
    v1::{
        Flight, Sa, State,
        exchanges::Exchange,
        id::Identification,
        keys::QuickExchanged,
        phase_one::find,
        proposal::{Encapsulation, Lifetime, accept_phase_two, in_words, offer_phase_two, pfs_group},
        wire::{NotifyType, Payload},
    },
};

impl Endpoint {
    /// Negotiates a Child SA for every pair of subnets that has none; that of `flow` first.
    pub(in crate::v1) fn want_missing(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        tunnel: TunnelId,
        flow: Option<&(TrafficSelector, TrafficSelector)>,
    ) {
        let Some(tunnel) = self.tunnels.get(&tunnel).cloned() else { return };
        let children = self.v1.families.get(&tunnel.id).map_or(&[][..], |family| &family.children[..]);
        let anew = std::mem::take(&mut sa.anew);
        let Some(established) = sa.established_mut() else { return };
        let mut wants = Vec::new();
        for (local, remote) in pairs(&tunnel) {
            let existing = children.iter().find(|c| c.is_of(&local, &remote) && c.retire_at.is_none());
            let same = |want: &Want| want.is_of(tunnel.id, &local, &remote);
            let under_way = established.wants.iter().any(same)
                || established.quicks().any(|(_, quick)| quick.step != Step::Done && same(&quick.want));
            if !under_way && (anew || existing.is_none()) {
                let replaces = existing.map(|child| child.inbound_spi);
                wants.push(Want { tunnel: tunnel.id, local, remote, replaces });
            }
        }
        established.wants.extend(wants);
        if let Some((local, remote)) = flow {
            let holds = |want: &Want| want.local.contains(local) && want.remote.contains(remote);
            established.wants.make_contiguous().sort_by_key(|want| !holds(want));
        }
        self.next_quick_modes(now, sa);
    }

    /// Begins the quick modes for which there is room.
    pub(in crate::v1) fn next_quick_modes(&mut self, now: Instant, sa: &mut Sa) {
        loop {
            let Some(established) = sa.established_mut() else { return };
            let ours = established.quicks().filter(|(_, quick)| quick.is_ours() && quick.step != Step::Done);
            if ours.count() >= AT_ONCE {
                return;
            }
            let Some(want) = established.wants.pop_front() else { return };
            self.begin_quick(now, sa, want);
        }
    }

    pub(super) fn begin_quick(&mut self, now: Instant, sa: &mut Sa, want: Want) {
        let Some(tunnel) = self.tunnels.get(&want.tunnel).cloned() else { return };
        let inbound_spi = self.draw_esp_spi(&mut Vec::new());
        let nonce = self.v1_nonce();
        let cookie = sa.cookie;
        let Some(established) = sa.established_mut() else { return };
        let id = loop {
            let id = self.rng.next_u32();
            if id != 0 && !established.cipher.knows(id) && !established.exchanges.contains_key(&id) {
                break id;
            }
        };
        let quick = Quick::new(now, Step::Generating, want, inbound_spi, nonce);
        let exchange = Exchange { flight: Flight::default(), forget_at: None, quick: Some(Box::new(quick)) };
        established.exchanges.insert(id, exchange);
        match pfs_group(&tunnel.ipsec) {
            Some(group) => {
                let secret = Secret::random(group, &mut *self.rng);
                self.quick_job(cookie, id, secret, Work::Generate);
            }
            None => self.send_quick_offer(now, sa, id, &tunnel),
        }
    }

    /// QM1.
    pub(super) fn send_quick_offer(&mut self, now: Instant, sa: &mut Sa, id: u32, tunnel: &TunnelConfig) {
        let (cookies, nat_t_port) = (sa.cookies(), self.config.nat_t_port);
        let State::Established(established) = &sa.state else { return };
        let encapsulation = encapsulations(sa, established, nat_t_port)[0];
        let Some(established) = sa.established_mut() else { return };
        let Some(quick) = established.quick_mut(id) else { return };
        let offer = offer_phase_two(&tunnel.ipsec, quick.inbound_spi, encapsulation);
        let ids = [&quick.want.local, &quick.want.remote].map(Identification::of_selector);
        let (offer, ids) = match (offer, ids) {
            (Ok(offer), [Some(local), Some(remote)]) => {
                (offer, vec![Payload::Id(local), Payload::Id(remote)])
            }
            (Err(cause), _) => return self.quick_failed(now, sa, id, cause),
            (Ok(_), _) => return self.quick_failed(now, sa, id, selectors(tunnel, None)),
        };
        quick.ids = ids;
        quick.step = Step::OfferSent;
        let mut rest = vec![Payload::Sa(offer), Payload::Nonce(quick.nonce.clone())];
        rest.extend(quick.public.clone().map(Payload::KeyExchange));
        rest.extend(quick.ids.iter().cloned());
        let message = seal(established, cookies, id, rest, &Hash::One);
        self.send_exchange(now, sa, id, message, true);
    }

    /// QM2.
    pub(super) fn quick_answer(&mut self, now: Instant, sa: &mut Sa, id: u32, payloads: &[Payload]) {
        let nat_t_port = self.config.nat_t_port;
        let State::Established(established) = &sa.state else { return };
        let offered = encapsulations(sa, established, nat_t_port)[0];
        let cookie = sa.cookie;
        let Some(tunnel) = sa.tunnel.clone() else { return };
        let Some(quick) = sa.established_mut().and_then(|e| e.quick_mut(id)) else { return };
        let tunnel = self.tunnels.get(&quick.want.tunnel).cloned().unwrap_or(tunnel);
        let (Some(answered), Some(nonce)) = (find!(payloads, Sa), find!(payloads, Nonce)) else {
            return self.quick_failed(now, sa, id, Cause::Malformed { what: "SA or Nonce is missing" });
        };
        let Some((suite, outbound_spi)) = accept_phase_two(&tunnel.ipsec, answered, offered) else {
            let cause = mismatch(&tunnel.ipsec, answered, offered);
            return self.quick_failed(now, sa, id, cause);
        };
        let ids = ids_of(payloads);
        let same = |at: usize, own: &TrafficSelector| {
            ids.get(at).is_none_or(|id| id.selector().as_ref() == Some(own))
        };
        if !same(0, &quick.want.local) || !same(1, &quick.want.remote) {
            let theirs = ids.iter().map(|id| id.selector().into_iter().collect());
            let [local, remote]: [Vec<_>; 2] = theirs.collect::<Vec<_>>().try_into().unwrap_or_default();
            return self.quick_failed(now, sa, id, selectors(&tunnel, Some((local, remote))));
        }
        let own = Lifetime { time: Some(tunnel.ipsec.lifetime), bytes: tunnel.ipsec.lifetime_bytes };
        let said = payloads
            .iter()
            .filter_map(|p| if let Payload::Notify(n) = p { Lifetime::of_notify(n) } else { None });
        quick.lifetime = said.fold(own, Lifetime::min);
        (quick.suite, quick.outbound_spi, quick.peer_nonce) = (Some(suite), outbound_spi, nonce.clone());
        match (quick.secret.take(), find!(payloads, KeyExchange)) {
            (Some(secret), Some(public)) => {
                quick.step = Step::Agreeing;
                let work = Work::Agree(public.clone());
                if let Some(exchange) = sa.established_mut().and_then(|e| e.exchanges.get_mut(&id)) {
                    // There is nothing to say until the secret is shared. Our offer would have the peer answer again a
                    // copy of its answer, and that copy us again, without end.
                    exchange.flight = Flight::default();
                }
                self.quick_job(cookie, id, secret, work);
            }
            (None, _) => self.quick_done(now, sa, id, None),
            (Some(_), None) => self.quick_failed(now, sa, id, Cause::Malformed { what: "KE is missing" }),
        }
    }

    /// QM3.
    pub(super) fn quick_done(&mut self, now: Instant, sa: &mut Sa, id: u32, shared: Option<&Shared>) {
        let cookies = sa.cookies();
        let Some(established) = sa.established_mut() else { return };
        let Some(quick) = established.quick_mut(id) else { return };
        quick.step = Step::Done;
        let (nonce, peer_nonce) = (quick.nonce.clone(), quick.peer_nonce.clone());
        let exchanged =
            QuickExchanged { initiator_nonce: &nonce, responder_nonce: &peer_nonce, shared: None };
        let message = seal(established, cookies, id, Vec::new(), &Hash::Three(exchanged));
        self.counters.exchange(QUICK, ExchangeResult::Done);
        self.install_child(now, sa, id, shared, true);
        self.send_exchange(now, sa, id, message, false);
        let forget_at = now + self.config.linger;
        if let Some(exchange) = sa.established_mut().and_then(|e| e.exchanges.get_mut(&id)) {
            exchange.forget_at = Some(forget_at);
        }
        self.next_quick_modes(now, sa);
    }

    /// A quick mode of ours has come to nothing.
    pub(in crate::v1) fn quick_failed(&mut self, now: Instant, sa: &mut Sa, id: u32, cause: Cause) {
        let Some(quick) = self.drop_quick(sa, id) else { return };
        self.esp_spis.remove(&quick.inbound_spi);
        let tunnel = quick.want.tunnel;
        self.counters.exchange(QUICK, ExchangeResult::Refused);
        match quick.want.replaces {
            Some(spi) => self.rekey_later(now, tunnel, spi),
            None if !sa.doomed => self.failed(Some(tunnel), sa.path, true, Phase::Two, QUICK, cause),
            None => {}
        }
        self.next_quick_modes(now, sa);
        self.expect_children(now, sa);
    }

    /// The peer refuses a quick mode of ours, named by our SPI or else the oldest.
    pub(in crate::v1) fn quick_refused(&mut self, now: Instant, sa: &mut Sa, kind: NotifyType, spi: &[u8]) {
        let Some(tunnel) = sa.tunnel.clone() else { return };
        let Some(established) = sa.established() else { return };
        let offers = || established.quicks().filter(|(_, quick)| quick.step == Step::OfferSent);
        let named = offers().find(|(_, quick)| quick.inbound_spi.to_be_bytes() == *spi);
        let Some((id, quick)) = named.or_else(|| offers().min_by_key(|(_, quick)| quick.began)) else {
            return;
        };
        let tunnel = self.tunnels.get(&quick.want.tunnel).cloned().unwrap_or(tunnel);
        let encapsulation = Encapsulation::Tunnel;
        let cause = match kind {
            NotifyType::NO_PROPOSAL_CHOSEN => {
                let ours = offer_phase_two(&tunnel.ipsec, quick.inbound_spi, encapsulation);
                let ours = ours.map_or_else(|_| Vec::new(), |ours| in_words(&ours));
                let pfs = pfs_group(&tunnel.ipsec);
                Cause::NoPairChosen { protocol: tunnel.ipsec.protocol, ours, pfs }
            }
            NotifyType::INVALID_ID_INFORMATION => {
                Cause::PairRefused { local: quick.want.local.clone(), remote: quick.want.remote.clone() }
            }
            notify => Cause::PeerRefusedV1 { notify },
        };
        self.quick_failed(now, sa, id, cause);
    }
}
