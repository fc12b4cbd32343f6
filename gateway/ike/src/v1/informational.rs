//! Messages on an ISAKMP SA that is up: informational ones (RFC 2409 section 5.7) with DELETE, notifies and dead peer
//! detection (RFC 3706), and the way of all of them through hash and cipher.

use std::time::Instant;

use super::{
    Established, Flight, Sa, State,
    children::Child,
    cipher::{MessageCipher, OpenError, Opened},
    exchanges::Exchange,
    keys::{SaKeys, same_hash},
    message::digest,
    proposal::Lifetime,
    wire::{Chain, Delete, Header, Notify, NotifyType, Payload, ProtocolId, payload},
};
use crate::{
    counters::ExchangeResult,
    endpoint::Endpoint,
    error::Cause,
    event::{DownReason, Path, Phase},
    timer::TimerKind,
    wire::ExchangeType,
};

/// Answers to informational messages that are kept for when those come again.
const ANSWERS: usize = 8;
/// Messages of an SA that are said several times at a time; beyond, each is said once, but for the end of the SA itself.
const REPEATED: usize = 256;
/// Sequence numbers of R-U-THERE that an acknowledgement may be of.
const PROBES: u32 = 64;

impl Endpoint {
    /// An informational message, sealed.
    pub(super) fn seal_informational(
        &mut self,
        keys: &SaKeys,
        cipher: &mut MessageCipher,
        cookies: (u64, u64),
        rest: Vec<Payload>,
    ) -> Vec<u8> {
        let id = loop {
            let id = self.rng.next_u32();
            if id != 0 && !cipher.knows(id) {
                break id;
            }
        };
        seal_with(keys, cipher, cookies, id, rest)
    }

    /// Tells the peer something; several times where it matters that it hears of it, for nobody answers.
    pub(super) fn inform(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        payload: Payload,
        several_times: bool,
    ) -> Vec<Vec<u8>> {
        let cookies = sa.cookies();
        let (State::Established(established) | State::Closing(established)) = &mut sa.state else {
            return Vec::new();
        };
        let id = loop {
            let id = self.rng.next_u32();
            if id != 0 && !established.cipher.knows(id) && !established.exchanges.contains_key(&id) {
                break id;
            }
        };
        let repeated = established.exchanges.values().filter(|exchange| exchange.quick.is_none());
        let ends = matches!(&payload, Payload::Delete(delete) if delete.protocol == ProtocolId::Isakmp);
        let several_times = several_times && (ends || repeated.count() < REPEATED);
        let message = seal_with(&established.keys, &mut established.cipher, cookies, id, vec![payload]);
        if several_times {
            let exchange = Exchange { flight: Flight::default(), forget_at: None, quick: None };
            established.exchanges.insert(id, exchange);
            self.send_exchange(now, sa, id, message.clone(), true);
            return Vec::new();
        }
        established.cipher.finish(id);
        self.v1_send(sa, message)
    }

    /// A message with the cookies of an SA that has keys.
    pub(super) fn protected(
        &mut self,
        now: Instant,
        mut sa: Sa,
        path: Path,
        header: &Header,
        message: &[u8],
    ) -> Option<Sa> {
        let id = header.message_id;
        let (State::Established(established) | State::Closing(established)) = &mut sa.state else {
            return Some(sa);
        };
        let Ok((_, first, rest)) = Header::decode(message) else { return Some(sa) };
        if !header.encrypted || id == 0 {
            // Whoever has no keys cannot say anything about an SA that has.
            self.counters.unexpected += 1;
            return Some(sa);
        }
        let opened = match established.cipher.open(id, rest) {
            Ok(opened) => opened,
            Err(error) => {
                self.repeated(now, &sa, header, message, error);
                return Some(sa);
            }
        };
        let Ok(chain) = opened.chain(first) else {
            self.counters.failed_integrity += 1;
            return Some(sa);
        };
        if header.exchange == ExchangeType::QuickMode {
            if matches!(sa.state, State::Closing(_)) {
                return self.quick_on_closed(now, sa, id, &opened, &chain);
            }
            if self.quick_message(now, &mut sa, id, &opened, &chain) {
                self.v1_alive(now, &mut sa);
                self.v1_follow(&mut sa, path);
            } else {
                self.counters.failed_integrity += 1;
            }
            return Some(sa);
        }
        let Some(Payload::Hash(came)) = chain.payloads.first() else {
            self.counters.failed_integrity += 1;
            return Some(sa);
        };
        if !same_hash(&established.keys.hash_1(id, chain.after_first()), came) {
            self.counters.failed_integrity += 1;
            return Some(sa);
        }
        established.cipher.accept(&opened);
        if !established.exchanges.contains_key(&id) {
            established.cipher.finish(id);
        }
        self.v1_alive(now, &mut sa);
        self.v1_follow(&mut sa, path);
        if sa.established_mut().is_some_and(Established::begins_to_wear) {
            self.v1_soft_lifetime(now, &sa);
        }
        match header.exchange {
            ExchangeType::InformationalMode => self.informed(now, sa, &chain.payloads, digest(message)),
            exchange => {
                self.counters.exchange(exchange, ExchangeResult::Refused);
                let notify = Notify::about_isakmp(NotifyType::UNSUPPORTED_EXCHANGE_TYPE, sa.cookies(), []);
                self.inform(now, &mut sa, Payload::Notify(notify), false);
                let tunnel = sa.tunnel_id();
                if !sa.doomed && self.reports.permit(now, tunnel) {
                    self.failed(tunnel, sa.path, false, Phase::One, exchange, Cause::Xauth);
                }
                Some(sa)
            }
        }
    }

    /// A message that came before gets what it got before.
    fn repeated(&mut self, now: Instant, sa: &Sa, header: &Header, message: &[u8], error: OpenError) {
        let (State::Established(established) | State::Closing(established)) = &sa.state else { return };
        let asked = established.exchanges.get(&header.message_id);
        let made = asked.and_then(|exchange| exchange.quick.as_deref());
        let made = made.map(|quick| (quick.want.tunnel, quick.inbound_spi));
        let answer = match error {
            OpenError::Length => {
                self.counters.malformed += 1;
                return;
            }
            OpenError::Exhausted => {
                self.counters.overloaded += 1;
                return;
            }
            OpenError::Repeated => asked.map(|exchange| &exchange.flight.messages),
            OpenError::Spent => {
                let digest = digest(message);
                established.answers.iter().find(|(came, _)| *came == digest).map(|(_, answer)| answer)
            }
        };
        match answer.filter(|messages| !messages.is_empty()).cloned() {
            Some(messages) => {
                self.counters.repeated_answers += 1;
                self.transmit(sa.path, &messages);
                if let Some((tunnel, inbound_spi)) = made {
                    self.put_off_switch(now, tunnel, inbound_spi);
                }
            }
            None => self.counters.old_message_id += 1,
        }
    }

    /// A quick mode that the peer begins on an SA that we have closed; nothing else of one is answered there.
    fn quick_on_closed(
        &mut self,
        now: Instant,
        mut sa: Sa,
        id: u32,
        opened: &Opened,
        chain: &Chain<'_>,
    ) -> Option<Sa> {
        let State::Closing(established) = &mut sa.state else { return Some(sa) };
        let hash = established.keys.hash_1(id, chain.after_first());
        let authentic = matches!(chain.payloads.first(), Some(Payload::Hash(came)) if same_hash(&hash, came));
        if !authentic {
            self.counters.failed_integrity += 1;
            return Some(sa);
        }
        established.cipher.accept(opened);
        established.cipher.finish(id);
        self.say_closed(now, sa)
    }

    /// A peer that still speaks on an SA that we have closed does not know that.
    fn say_closed(&mut self, now: Instant, mut sa: Sa) -> Option<Sa> {
        let delete = Delete::isakmp(sa.cookies());
        self.inform(now, &mut sa, Payload::Delete(delete), false);
        Some(sa)
    }

    /// The peer's authentic informational message.
    fn informed(&mut self, now: Instant, mut sa: Sa, payloads: &[Payload], digest: [u8; 32]) -> Option<Sa> {
        self.counters.exchange(ExchangeType::InformationalMode, ExchangeResult::Done);
        let cookies = sa.cookies();
        let closed = |p: &Payload| matches!(p, Payload::Delete(delete) if delete.names_isakmp(cookies));
        if matches!(sa.state, State::Closing(_)) {
            return if payloads.iter().any(closed) { Some(sa) } else { self.say_closed(now, sa) };
        }
        for payload in payloads {
            match payload {
                Payload::Delete(delete) if delete.protocol == ProtocolId::Isakmp => {
                    self.isakmp_deleted(now, &mut sa, delete);
                }
                Payload::Delete(delete) => self.children_deleted(now, &mut sa, delete),
                Payload::Notify(notify) => self.notified(now, &mut sa, notify, digest),
                _ => {}
            }
        }
        if payloads.iter().any(closed) {
            return self.v1_down(now, sa, DownReason::ClosedByPeer);
        }
        self.expect_children(now, &sa);
        Some(sa)
    }

    /// DELETE of another ISAKMP SA of the same peer.
    fn isakmp_deleted(&mut self, now: Instant, sa: &mut Sa, delete: &Delete) {
        let Some(tunnel) = sa.tunnel_id() else { return };
        for cookie in self.kin_sas(tunnel, sa.cookie) {
            let named = self
                .v1
                .sa(cookie)
                .is_some_and(|other| other.established().is_some() && delete.names_isakmp(other.cookies()));
            if named {
                self.with_v1(cookie, |endpoint, mut other| {
                    // This one goes on, and its Child SAs with it.
                    let of = other.tunnel_id()?;
                    sa.waiting.append(&mut endpoint.expected_on(&other));
                    endpoint.abandon_quicks(now, &mut other, of);
                    endpoint.isakmp_down(of, DownReason::Replaced, Some(sa));
                    None
                });
            }
        }
    }

    fn children_deleted(&mut self, now: Instant, sa: &mut Sa, delete: &Delete) {
        let Some(owner) = sa.tunnel.clone() else { return };
        let kin = self.kin(&owner);
        for spi in delete.child_spis() {
            let is_named = |child: &&Child| {
                child.outbound_spi == spi && ProtocolId::from(child.suite.protocol) == delete.protocol
            };
            let named = kin.iter().find_map(|tunnel| {
                let mut children = self.v1.families.get(&tunnel.id)?.children.iter();
                Some((tunnel.id, children.find(is_named)?.inbound_spi))
            });
            let Some((tunnel, inbound_spi)) = named else { continue };
            let waiting = sa.established().and_then(|established| {
                let mut quicks = established.quicks();
                quicks.find(|(_, quick)| quick.inbound_spi == inbound_spi).map(|(id, _)| id)
            });
            if let Some(id) = waiting {
                self.drop_quick(sa, id);
            }
            self.remove_child_on(now, Some(sa), tunnel, inbound_spi, DownReason::ClosedByPeer, false);
            self.family(owner.id).sas.insert(sa.cookie);
        }
    }

    fn notified(&mut self, now: Instant, sa: &mut Sa, notify: &Notify, digest: [u8; 32]) {
        match notify.kind {
            NotifyType::R_U_THERE => {
                let Some(sequence) = notify.dpd_sequence() else { return };
                let answer = Notify::dpd(NotifyType::R_U_THERE_ACK, sa.cookies(), sequence);
                let messages = self.inform(now, sa, Payload::Notify(answer), false);
                if let Some(established) = sa.established_mut() {
                    if established.answers.len() == ANSWERS {
                        established.answers.pop_front();
                    }
                    established.answers.push_back((digest, messages));
                }
            }
            NotifyType::R_U_THERE_ACK => {
                let (Some(sequence), Some(established)) = (notify.dpd_sequence(), sa.established_mut())
                else {
                    self.counters.unexpected += 1;
                    return;
                };
                match established.sequence.wrapping_sub(sequence) {
                    0 => {
                        let asked = established.asked.take();
                        if let Some(round_trip) = asked.map(|asked| now.saturating_duration_since(asked)) {
                            self.answered_probe(sa.tunnel.as_deref(), round_trip);
                        }
                    }
                    1..PROBES => {}
                    _ => self.counters.unexpected += 1,
                }
            }
            NotifyType::INITIAL_CONTACT => self.drop_older_children(now, sa),
            NotifyType::RESPONDER_LIFETIME if notify.protocol == ProtocolId::Isakmp => {
                let shorter = Lifetime::of_notify(notify).and_then(|lifetime| lifetime.time);
                // The peer may say more seconds than there will ever be.
                let end = sa.established().zip(shorter).and_then(|(e, time)| e.since.checked_add(time));
                if let Some(end) = end {
                    self.shorten(now, sa, end);
                }
            }
            kind if kind.is_error() => self.quick_refused(now, sa, kind, &notify.spi),
            _ => {}
        }
    }

    /// Closes an SA that is up: the peer is told, several times. With the tunnel's last one its Child SAs go.
    pub(super) fn v1_close_sa(&mut self, now: Instant, mut sa: Sa, reason: DownReason) -> Option<Sa> {
        let tunnel = sa.tunnel_id()?;
        if sa.established().is_none() {
            return Some(sa);
        }
        self.leave_siblings(now, &sa, reason);
        if self.speaker(tunnel).is_none() {
            for kin in sa.tunnel.as_ref().map_or_else(Vec::new, |tunnel| self.kin(tunnel)) {
                self.close_children(now, &mut sa, kin.id, reason);
            }
        }
        self.family(tunnel).sas.insert(sa.cookie);
        self.abandon_quicks(now, &mut sa, tunnel);
        let delete = Delete::isakmp(sa.cookies());
        self.inform(now, &mut sa, Payload::Delete(delete), true);
        self.isakmp_down(tunnel, reason, None);
        self.timers.stop_all(sa.cookie);
        self.timers.set(sa.cookie, TimerKind::Linger, now + self.config.linger);
        sa.state = match sa.state {
            State::Established(established) => State::Closing(established),
            other => other,
        };
        Some(sa)
    }

    /// An SA that is up ends, and the peer knows, or is dead.
    pub(super) fn v1_down(&mut self, now: Instant, mut sa: Sa, reason: DownReason) -> Option<Sa> {
        let tunnel = sa.tunnel_id()?;
        self.leave_siblings(now, &sa, reason);
        self.abandon_quicks(now, &mut sa, tunnel);
        if self.speaker(tunnel).is_none() {
            for kin in sa.tunnel.as_ref().map_or_else(Vec::new, |tunnel| self.kin(tunnel)) {
                self.drop_children(now, kin.id, None, reason);
            }
        }
        self.isakmp_down(tunnel, reason, None);
        None
    }

    /// The quick modes of an SA that ends.
    pub(super) fn abandon_quicks(&mut self, now: Instant, sa: &mut Sa, tunnel: crate::TunnelId) {
        let quicks = sa.established().into_iter().flat_map(|e| e.quicks().map(|(id, _)| id));
        for id in quicks.collect::<Vec<_>>() {
            self.abandon_quick(now, sa, tunnel, id);
        }
    }

    /// A quick mode ends with its SA. What it was to bring is negotiated on another one, if there is one.
    fn abandon_quick(&mut self, now: Instant, sa: &mut Sa, tunnel: crate::TunnelId, id: u32) {
        use super::quick::Step;
        let Some(quick) = self.drop_quick(sa, id) else { return };
        match quick.step {
            Step::Done => {}
            Step::Answered => {
                // The peer may have sent the third message, and hold the pair for made.
                self.v1_remove_child(now, quick.want.tunnel, quick.inbound_spi, DownReason::Broken, true);
                self.family(tunnel).sas.insert(sa.cookie);
            }
            _ => {
                self.esp_spis.remove(&quick.inbound_spi);
                if let Some(spi) = quick.want.replaces {
                    self.rekey_later(now, quick.want.tunnel, spi);
                }
            }
        }
    }
}

fn seal_with(
    keys: &SaKeys,
    cipher: &mut MessageCipher,
    cookies: (u64, u64),
    id: u32,
    rest: Vec<Payload>,
) -> Vec<u8> {
    let mut octets = Vec::new();
    payload::encode_chain(&rest, &mut octets);
    let hash = Payload::Hash(keys.hash_1(id, &octets));
    let payloads: Vec<_> = [hash].into_iter().chain(rest).collect();
    cipher.seal(Header::new(cookies.0, cookies.1, ExchangeType::InformationalMode, id), &payloads)
}
