//! Main mode (RFC 2409 section 5): six messages; both identities go encrypted.
//!
//! Nothing is authenticated before the last two. So an initiator that gets an answer of no use goes on waiting for a
//! better one, and a responder keeps little: no key exchange is made before the peer's second message, by which it has
//! shown to receive at its address.

use std::time::Instant;

use super::{
    Sa, State,
    id::Identification,
    message::{Came, vendor_ids},
    nat,
    phase_one::{
        PhaseOne, Step, find, find_with_body, identified, no_proposal, says_initial_contact, says_nat_t,
    },
    proposal::{accept_phase_one, select_phase_one},
    psk,
    wire::{Chain, Delete, Header, NotifyType, Payload, encode_message},
};
use crate::{
    config::{Mode, NatT, TunnelConfig, Version},
    counters::ExchangeResult,
    crypto::dh::{Job, Secret, Shared, Work},
    endpoint::Endpoint,
    error::Cause,
    event::{Nat, Path},
    sa::Role,
    tunnels::Dialect,
    wire::ExchangeType,
};

const MAIN: ExchangeType = ExchangeType::MainMode;

impl Endpoint {
    /// MM1.
    pub(super) fn send_main_offer(&mut self, now: Instant, sa: &mut Sa, offer: Payload) {
        let nat_t = sa.tunnel.as_ref().is_some_and(|tunnel| tunnel.nat_t != NatT::Off);
        let payloads: Vec<_> = [offer].into_iter().chain(vendor_ids(nat_t)).collect();
        let message = encode_message(Header::new(sa.cookie, 0, MAIN, 0), &payloads);
        self.send_flight(now, sa, message);
    }

    /// MM1, from whoever.
    pub(super) fn main_mode_first(&mut self, now: Instant, came: &Came<'_>, chain: &Chain<'_>) {
        let Came { path, header, digest, .. } = *came;
        let Some((offered, body)) = find_with_body!(chain, Sa) else {
            self.counters.malformed += 1;
            return;
        };
        let Some(main) = self.tunnels.main_mode(path) else {
            let tunnel = self.tunnels.only(path, Version::Ikev1).map(|only| only.id);
            let none = self.tunnels.at(path, Version::Ikev1).next().is_none();
            return match none {
                true => self.v1_no_tunnel(now, path, header),
                false => {
                    let cause = Cause::ModeMismatch { ours: Mode::Aggressive, theirs: Mode::Main };
                    self.v1_refuse_first(now, path, header, tunnel, cause);
                }
            };
        };
        if let Err(cause) = psk::is_known(&main, path.remote.ip()) {
            return self.v1_refuse_first(now, path, header, None, cause);
        }
        let Some(first) = main.keys.first().cloned() else { return };
        let sole = (main.count == 1).then(|| first.clone());
        let kinds = || main.kinds.iter().map(|kind| &kind.tunnel);
        let Some((suite, answer)) = kinds().find_map(|t| select_phase_one(&t.ike, offered)) else {
            let tunnel = sole.map(|only| only.id);
            return self.v1_refuse_first(now, path, header, tunnel, no_proposal(&first, offered));
        };
        if !self.v1_admits(path) {
            return;
        }
        let mut one = PhaseOne::new(Step::OfferAnswered, body.to_vec(), self.v1_nonce());
        (one.suite, one.sole) = (Some(suite), sole);
        let said = [Payload::Sa(answer)].into_iter().chain(vendor_ids(says_nat_t(kinds())));
        let said: Vec<_> = said.collect();
        one.candidates = main.keys;
        let mut sa = self.v1_respond(now, path, header, Mode::Main, digest, one);
        self.half_open.give_way(sa.cookie);
        sa.peer.learn(&chain.payloads);
        let message = encode_message(Header::new(sa.peer_cookie, sa.cookie, MAIN, 0), &said);
        self.send_flight(now, &mut sa, message);
        self.v1.sas.insert(sa.cookie, sa);
    }

    /// No tunnel of IKEv1 is between these addresses.
    pub(super) fn v1_no_tunnel(&mut self, now: Instant, path: Path, header: &Header) {
        self.counters.no_tunnel += 1;
        let cause = match self.tunnels.at(path, Version::Ikev2).next().is_none() {
            true => Cause::NoTunnel { local: path.local.ip(), remote: path.remote.ip() },
            false => Cause::VersionMismatch { ours: Version::Ikev2, theirs: Version::Ikev1 },
        };
        let tunnel = self.sole(path, Version::Ikev2);
        self.v1_refuse_first(now, path, header, tunnel, cause);
    }

    /// Refuses a first message, and keeps nothing of it.
    pub(super) fn v1_refuse_first(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        tunnel: Option<crate::TunnelId>,
        cause: Cause,
    ) {
        let notify = match cause {
            Cause::VersionMismatch { .. } => NotifyType::INVALID_MAJOR_VERSION,
            Cause::ModeMismatch { .. } => NotifyType::UNSUPPORTED_EXCHANGE_TYPE,
            Cause::IdMismatch { .. } => NotifyType::INVALID_ID_INFORMATION,
            _ => NotifyType::NO_PROPOSAL_CHOSEN,
        };
        let cookie = self.draw_spi();
        self.refuse_unprotected(path, (header.initiator_cookie, cookie), notify);
        self.v1_stranger_failed(now, tunnel, path, header.exchange, cause);
    }

    /// MM2 to MM4, from whoever knows the cookies.
    pub(super) fn main_mode_clear(&mut self, mut sa: Sa, came: &Came<'_>) -> Option<Sa> {
        let Came { path, header, digest, .. } = *came;
        let Some(chain) = self.phase_one_payloads(&mut sa, came) else { return Some(sa) };
        let payloads = chain.payloads;
        sa.peer.learn(&payloads);
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        if one.step == Step::OfferSent {
            return self.main_mode_answer(sa, header, &payloads, digest);
        }
        let (Some(public), Some(nonce), Some(suite)) =
            (find!(payloads, KeyExchange), find!(payloads, Nonce), one.suite)
        else {
            self.counters.malformed += 1;
            one.trouble = Some(Cause::Malformed { what: "KE or Nonce is missing" });
            return Some(sa);
        };
        let initiator = sa.role == Role::Initiator;
        let nat_t = match &sa.tunnel {
            Some(tunnel) => tunnel.nat_t,
            None => one.candidates.first().map_or(NatT::Auto, |tunnel| tunnel.nat_t),
        };
        let cookies = if initiator { (sa.cookie, sa.peer_cookie) } else { (sa.peer_cookie, sa.cookie) };
        one.nat = nat::detect(nat_t, &suite, cookies, path, &payloads);
        (one.peer_public, one.peer_nonce) = (public.clone(), nonce.clone());
        let (step, job) = if initiator {
            let Some(secret) = one.secret.take() else { return Some(sa) };
            (Step::Agreeing, Job { sa: sa.cookie, secret, work: Work::Agree(public.clone()) })
        } else {
            sa.initiator_nonce = nonce.clone();
            self.half_open.stay(&sa.cookie);
            let secret = Secret::random(suite.group, &mut *self.rng);
            (Step::Responding, Job { sa: sa.cookie, secret, work: Work::Respond(public.clone()) })
        };
        one.step = step;
        sa.received = Some(digest);
        sa.flight.stop();
        if !initiator {
            sa.flight.messages.clear();
        }
        self.jobs.push_back(job);
        Some(sa)
    }

    /// MM2.
    fn main_mode_answer(
        &mut self,
        mut sa: Sa,
        header: &Header,
        payloads: &[Payload],
        digest: [u8; 32],
    ) -> Option<Sa> {
        let (State::PhaseOne(one), Some(tunnel)) = (&mut sa.state, &sa.tunnel) else { return Some(sa) };
        let answered = find!(payloads, Sa);
        let suite = answered.and_then(|answered| accept_phase_one(&tunnel.ike, answered));
        let Some(suite) = suite.filter(|_| header.responder_cookie != 0) else {
            self.counters.malformed += 1;
            one.trouble = Some(match answered {
                Some(answered) => no_proposal(tunnel, answered),
                None => Cause::Malformed { what: "SA is missing" },
            });
            return Some(sa);
        };
        one.suite = Some(suite);
        one.step = Step::Generating;
        sa.peer_cookie = header.responder_cookie;
        sa.received = Some(digest);
        sa.flight.stop();
        let secret = Secret::random(suite.group, &mut *self.rng);
        self.jobs.push_back(Job { sa: sa.cookie, secret, work: Work::Generate });
        Some(sa)
    }

    /// MM3 and MM4.
    fn key_payloads(&self, sa: &Sa, nat_t: NatT) -> Vec<Payload> {
        let State::PhaseOne(one) = &sa.state else { return Vec::new() };
        let mut payloads = vec![Payload::KeyExchange(one.public.clone()), Payload::Nonce(one.nonce.clone())];
        if let Some(suite) = &one.suite {
            payloads.extend(nat::payloads(nat_t, sa.peer.nat_traversal, suite, sa.cookies(), sa.path));
        }
        payloads
    }

    /// MM3.
    pub(super) fn send_main_key(&mut self, now: Instant, sa: &mut Sa) {
        let nat_t = sa.tunnel.as_ref().map_or(NatT::Auto, |tunnel| tunnel.nat_t);
        let payloads = self.key_payloads(sa, nat_t);
        let message = encode_message(Header::new(sa.cookie, sa.peer_cookie, MAIN, 0), &payloads);
        if let State::PhaseOne(one) = &mut sa.state {
            one.step = Step::KeySent;
        }
        self.send_flight(now, sa, message);
    }

    /// MM4.
    pub(super) fn send_main_key_answer(&mut self, now: Instant, sa: &mut Sa, shared: &Shared) {
        let cookies = sa.cookies();
        let State::PhaseOne(one) = &mut sa.state else { return };
        let each = one.candidates.iter().map(|tunnel| vec![tunnel.clone()]).collect();
        one.derive(Role::Responder, cookies, shared, each);
        one.step = Step::KeyAnswered;
        let nat_t = one.candidates.first().map_or(NatT::Auto, |tunnel| tunnel.nat_t);
        let payloads = self.key_payloads(sa, nat_t);
        let message = encode_message(Header::new(sa.peer_cookie, sa.cookie, MAIN, 0), &payloads);
        self.send_flight(now, sa, message);
    }

    /// MM5.
    pub(super) fn send_main_identity(&mut self, now: Instant, sa: &mut Sa, tunnel: &TunnelConfig) {
        let initial_contact = self.initial_contact(sa, tunnel);
        let cookies = sa.cookies();
        let State::PhaseOne(one) = &mut sa.state else { return };
        let Some(mut keyed) = one.keys.pop() else { return };
        let id = Payload::Id(Identification::of(&tunnel.local_id));
        let hash = keyed.keys.hash_i(&one.exchanged(Role::Initiator, cookies), &one.offer, &id.body());
        let payloads: Vec<_> = [id, Payload::Hash(hash)].into_iter().chain(initial_contact).collect();
        let message = keyed.cipher.seal(Header::new(cookies.0, cookies.1, MAIN, 0), &payloads);
        one.keys.push(keyed);
        one.step = Step::IdSent;
        if one.nat.is_some_and(Nat::any) {
            sa.path = self.floated(sa.path);
        }
        self.send_flight(now, sa, message);
    }

    /// The path on the NAT traversal port. One that is there already keeps the peer's port, which a NAT may have
    /// mapped.
    pub(super) fn floated(&self, mut path: Path) -> Path {
        if path.local.port() != self.config.nat_t_port {
            path.local.set_port(self.config.nat_t_port);
            path.remote.set_port(self.config.nat_t_port);
        }
        path
    }

    /// MM5 or MM6.
    pub(super) fn main_mode_identity(&mut self, now: Instant, mut sa: Sa, came: &Came<'_>) -> Option<Sa> {
        let Came { path, header, digest, octets } = *came;
        let (role, cookies) = (sa.role, sa.cookies());
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        let (Some(suite), Ok((_, first, ciphertext))) = (one.suite, Header::decode(octets)) else {
            return Some(sa);
        };
        let exchanged = one.exchanged(role, cookies);
        let mut found = None;
        let mut cause = None;
        for (at, keyed) in one.keys.iter().enumerate() {
            let Ok(opened) = keyed.cipher.open(header.message_id, ciphertext) else { continue };
            let Ok(chain) = opened.chain(first) else { continue };
            let (Some((id, body)), Some(hash)) = (find_with_body!(chain, Id), find!(chain.payloads, Hash))
            else {
                continue;
            };
            let expected = match role {
                Role::Initiator => keyed.keys.hash_r(&exchanged, &one.offer, body),
                Role::Responder => keyed.keys.hash_i(&exchanged, &one.offer, body),
            };
            let contact = says_initial_contact(&chain.payloads);
            let named = match role {
                Role::Initiator => keyed.tunnels.clone(),
                Role::Responder => psk::with_key(&self.tunnels, sa.path, &keyed.tunnels[0], id.identity()),
            };
            match identified(keyed, &named, &suite, id, &expected, hash) {
                Ok(tunnel) => {
                    found = Some((at, opened, tunnel, contact));
                    break;
                }
                Err(Cause::IdMismatch { mut expected, came }) => {
                    if role == Role::Responder {
                        expected = self.tunnels.peer_ids(sa.path, Dialect::MainMode);
                    }
                    cause = Some((Cause::IdMismatch { expected, came }, Some((at, opened))));
                }
                Err(other) => {
                    cause.get_or_insert((other, None));
                }
            }
        }
        let Some((at, opened, tunnel, contact)) = found else {
            sa.received = Some(digest);
            return self.main_mode_stranger(now, sa, cause);
        };
        let mut keyed = one.keys.swap_remove(at);
        let nat = one.nat.unwrap_or_default();
        keyed.cipher.accept(&opened);
        sa.received = Some(digest);
        if role == Role::Responder {
            sa.path = path;
            let id = Payload::Id(Identification::of(&tunnel.local_id));
            let State::PhaseOne(one) = &sa.state else { return None };
            let hash = keyed.keys.hash_r(&one.exchanged(role, cookies), &one.offer, &id.body());
            let message =
                keyed.cipher.seal(Header::new(cookies.0, cookies.1, MAIN, 0), &[id, Payload::Hash(hash)]);
            self.send_flight(now, &mut sa, message);
        }
        self.v1_establish(now, sa, tunnel, keyed.keys, keyed.cipher, suite, nat, contact)
    }

    /// The peer's identity was not to be taken: nothing decrypted, or it is somebody else.
    fn main_mode_stranger(
        &mut self,
        now: Instant,
        mut sa: Sa,
        cause: Option<(Cause, Option<(usize, super::cipher::Opened)>)>,
    ) -> Option<Sa> {
        let (role, cookies) = (sa.role, sa.cookies());
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        let Some((cause, proved)) = cause else {
            self.counters.failed_integrity += 1;
            one.garbled = true;
            if role == Role::Responder {
                // Said once; what is left is kept for the peer's retransmissions alone.
                let Some(only) = one.sole.take() else {
                    one.trouble = None;
                    return Some(sa);
                };
                let cause =
                    Cause::NotDecrypted { local_id: only.local_id.clone(), peer_id: only.peer_id.clone() };
                let only = only.id;
                self.refuse_unprotected(sa.path, cookies, NotifyType::AUTHENTICATION_FAILED);
                self.v1_stranger_failed(now, Some(only), sa.path, MAIN, cause.clone());
            }
            return Some(sa);
        };
        if let Some(only) = &one.sole {
            sa.tunnel = Some(only.clone());
        }
        if let Some((at, opened)) = proved {
            // It knows the key: it is told, and believes us.
            let mut keyed = one.keys.swap_remove(at);
            keyed.cipher.accept(&opened);
            let payload = match role {
                Role::Initiator => Payload::Delete(Delete::isakmp(cookies)),
                Role::Responder => Payload::Notify(super::wire::Notify::about_isakmp(
                    NotifyType::INVALID_ID_INFORMATION,
                    cookies,
                    [],
                )),
            };
            let message = self.seal_informational(&keyed.keys, &mut keyed.cipher, cookies, vec![payload]);
            self.v1_send(&mut sa, message);
        }
        self.counters.exchange(MAIN, ExchangeResult::Refused);
        self.phase_one_failed(now, &sa, cause);
        sa.tunnel = sa.tunnel.filter(|_| role == Role::Initiator);
        None
    }
}
