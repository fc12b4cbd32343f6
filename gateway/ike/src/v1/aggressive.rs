//! Aggressive mode (RFC 2409 section 5): three messages. The identities go in clear, so the pre-shared key can be
//! looked up by them: what peers need whose address is not known beforehand.

use std::{sync::Arc, time::Instant};

use super::{
    Sa, State,
    id::Identification,
    keys::same_hash,
    message::{Came, vendor_ids},
    nat,
    phase_one::{
        PhaseOne, Step, authentication_failed, find, find_with_body, identified, no_proposal,
        says_initial_contact, says_nat_t,
    },
    proposal::{accept_phase_one, offer_phase_one, select_phase_one},
    psk::by_key,
    wire::{Chain, Header, NotifyType, Payload, encode_message},
};
use crate::{
    config::{Mode, NatT, TunnelConfig, Version},
    crypto::dh::{Job, Secret, Shared, Work},
    endpoint::Endpoint,
    error::Cause,
    event::{Nat, Path},
    sa::Role,
    tunnels::{Dialect, Tunnels},
    wire::ExchangeType,
};

const AGGRESSIVE: ExchangeType = ExchangeType::AggressiveMode;

impl Endpoint {
    /// AM1.
    pub(super) fn send_aggressive_offer(&mut self, now: Instant, sa: &mut Sa) {
        let (State::PhaseOne(one), Some(tunnel)) = (&mut sa.state, &sa.tunnel) else { return };
        let Ok(offer) = offer_phase_one(&tunnel.ike) else { return };
        one.step = Step::AggressiveSent;
        let payloads: Vec<_> = [
            Payload::Sa(offer),
            Payload::KeyExchange(one.public.clone()),
            Payload::Nonce(one.nonce.clone()),
            Payload::Id(Identification::of(&tunnel.local_id)),
        ]
        .into_iter()
        .chain(vendor_ids(tunnel.nat_t != NatT::Off))
        .collect();
        let message = encode_message(Header::new(sa.cookie, 0, AGGRESSIVE, 0), &payloads);
        self.send_flight(now, sa, message);
    }

    /// AM1, from whoever.
    pub(super) fn aggressive_first(&mut self, now: Instant, came: &Came<'_>, chain: &Chain<'_>) {
        let Came { path, header, digest, .. } = *came;
        let (Some((offered, offer)), Some((id, id_body)), Some(public), Some(nonce)) = (
            find_with_body!(chain, Sa),
            find_with_body!(chain, Id),
            find!(chain.payloads, KeyExchange),
            find!(chain.payloads, Nonce),
        ) else {
            self.counters.malformed += 1;
            return;
        };
        if self.tunnels.at(path, Version::Ikev1).next().is_none() {
            return self.v1_no_tunnel(now, path, header);
        }
        let known = match known_peers(&self.tunnels, path, id) {
            Ok(known) => known,
            Err(cause) => {
                let only = self.tunnels.only(path, Version::Ikev1).map(|only| only.id);
                return self.v1_refuse_first(now, path, header, only, cause);
            }
        };
        let Some((suite, answer)) = known.iter().find_map(|t| select_phase_one(&t.ike, offered)) else {
            let (tunnel, cause) = (known[0].id, no_proposal(&known[0], offered));
            return self.v1_refuse_first(now, path, header, Some(tunnel), cause);
        };
        if !self.v1_admits(path) {
            return;
        }
        let mut one = PhaseOne::new(Step::AggressiveResponding, offer.to_vec(), self.v1_nonce());
        (one.suite, one.answer) = (Some(suite), answer);
        (one.peer_public, one.peer_nonce) = (public.clone(), nonce.clone());
        (one.peer_id, one.peer_id_body) = (Some(id.clone()), id_body.to_vec());
        one.sole = if let [only] = &known[..] { Some(only.clone()) } else { None };
        one.candidates = known;
        let mut sa = self.v1_respond(now, path, header, Mode::Aggressive, digest, one);
        sa.peer.learn(&chain.payloads);
        let secret = Secret::random(suite.group, &mut *self.rng);
        self.jobs.push_back(Job { sa: sa.cookie, secret, work: Work::Respond(public.clone()) });
        self.v1.sas.insert(sa.cookie, sa);
    }

    /// AM2: our proof goes before the peer's. Of several tunnels of this peer with keys of their own, the first is
    /// meant.
    pub(super) fn send_aggressive_answer(&mut self, now: Instant, sa: &mut Sa, shared: &Shared) {
        let cookies = sa.cookies();
        let State::PhaseOne(one) = &mut sa.state else { return };
        let groups = by_key(&one.candidates);
        one.derive(Role::Responder, cookies, shared, groups);
        one.keys.truncate(1);
        one.step = Step::AggressiveAnswered;
        let (Some(suite), Some(keyed)) = (one.suite, one.keys.first()) else { return };
        let tunnel = &keyed.tunnels[0];
        let id = Payload::Id(Identification::of(&tunnel.local_id));
        let hash = keyed.keys.hash_r(&one.exchanged(Role::Responder, cookies), &one.offer, &id.body());
        let mut payloads = vec![
            Payload::Sa(one.answer.clone()),
            Payload::KeyExchange(one.public.clone()),
            Payload::Nonce(one.nonce.clone()),
            id,
            Payload::Hash(hash),
        ];
        payloads.extend(vendor_ids(says_nat_t(&keyed.tunnels)));
        payloads.extend(nat::payloads(tunnel.nat_t, sa.peer.nat_traversal, &suite, cookies, sa.path));
        let message = encode_message(Header::new(cookies.0, cookies.1, AGGRESSIVE, 0), &payloads);
        self.send_flight(now, sa, message);
        // Not before: as many key exchanges are under way for strangers as there may be half-open SAs, and no more.
        self.half_open.give_way(sa.cookie);
    }

    /// AM2, from whoever.
    pub(super) fn aggressive_answer(&mut self, mut sa: Sa, came: &Came<'_>) -> Option<Sa> {
        let Came { path, header, digest, .. } = *came;
        let Some(chain) = self.phase_one_payloads(&mut sa, came) else { return Some(sa) };
        let (State::PhaseOne(one), Some(tunnel)) = (&mut sa.state, sa.tunnel.clone()) else {
            return Some(sa);
        };
        let (Some(answered), Some((id, body)), Some(public), Some(nonce), Some(hash), true) = (
            find!(chain.payloads, Sa),
            find_with_body!(chain, Id),
            find!(chain.payloads, KeyExchange),
            find!(chain.payloads, Nonce),
            find!(chain.payloads, Hash),
            header.responder_cookie != 0,
        ) else {
            self.counters.malformed += 1;
            one.trouble = Some(Cause::Malformed { what: "a payload of aggressive mode is missing" });
            return Some(sa);
        };
        let suite = accept_phase_one(&tunnel.ike, answered);
        let Some(suite) = suite.filter(|suite| Some(&suite.group) == tunnel.ike.dh.first()) else {
            one.trouble = Some(no_proposal(&tunnel, answered));
            return Some(sa);
        };
        let Some(secret) = one.secret.take() else { return Some(sa) };
        sa.peer.learn(&chain.payloads);
        sa.peer_cookie = header.responder_cookie;
        one.suite = Some(suite);
        (one.peer_public, one.peer_nonce, one.peer_hash) = (public.clone(), nonce.clone(), hash.clone());
        (one.peer_id, one.peer_id_body) = (Some(id.clone()), body.to_vec());
        one.nat = nat::detect(tunnel.nat_t, &suite, (sa.cookie, sa.peer_cookie), path, &chain.payloads);
        one.step = Step::AggressiveAgreeing;
        sa.received = Some(digest);
        sa.flight.stop();
        self.jobs.push_back(Job { sa: sa.cookie, secret, work: Work::Agree(public.clone()) });
        Some(sa)
    }

    /// The secret is shared: AM3, if the peer has proved who it is.
    pub(super) fn aggressive_agreed(
        &mut self,
        now: Instant,
        mut sa: Sa,
        tunnel: &Arc<TunnelConfig>,
    ) -> Option<Sa> {
        let cookies = sa.cookies();
        let initial_contact = self.initial_contact(&sa, tunnel);
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        let (Some(mut keyed), Some(suite), Some(id)) = (one.keys.pop(), one.suite, one.peer_id.take()) else {
            return None;
        };
        let exchanged = one.exchanged(Role::Initiator, cookies);
        let expected = keyed.keys.hash_r(&exchanged, &one.offer, &one.peer_id_body);
        if let Err(cause) = identified(&keyed, &keyed.tunnels, &suite, &id, &expected, &one.peer_hash) {
            self.refuse_unprotected(sa.path, cookies, NotifyType::AUTHENTICATION_FAILED);
            return self.attempt_over(now, sa, cause);
        }
        let body = Payload::Id(Identification::of(&tunnel.local_id)).body();
        let hash = keyed.keys.hash_i(&exchanged, &one.offer, &body);
        let nat = one.nat.unwrap_or_default();
        let mut payloads = vec![Payload::Hash(hash)];
        payloads.extend(nat::payloads(tunnel.nat_t, sa.peer.nat_traversal, &suite, cookies, sa.path));
        payloads.extend(initial_contact);
        if nat.any() {
            sa.path = self.floated(sa.path);
        }
        let message = keyed.cipher.seal(Header::new(cookies.0, cookies.1, AGGRESSIVE, 0), &payloads);
        self.send_flight(now, &mut sa, message);
        self.v1_establish(now, sa, tunnel.clone(), keyed.keys, keyed.cipher, suite, nat, false)
    }

    /// AM3, encrypted or not.
    pub(super) fn aggressive_proof(&mut self, now: Instant, mut sa: Sa, came: &Came<'_>) -> Option<Sa> {
        let Came { path, header, digest, octets } = *came;
        let cookies = sa.cookies();
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        let (Some(suite), Some(keyed), Some(id), Ok((_, first, rest))) =
            (one.suite, one.keys.first_mut(), &one.peer_id, Header::decode(octets))
        else {
            return Some(sa);
        };
        let opened = match header.encrypted {
            true => keyed.cipher.open(0, rest).ok(),
            false => None,
        };
        let chain = match &opened {
            Some(opened) => opened.chain(first),
            None => Chain::decode(first, rest),
        };
        let tunnel = keyed.tunnels[0].clone();
        let Some(hash) = chain.as_ref().ok().and_then(|chain| find!(chain.payloads, Hash)) else {
            self.counters.failed_integrity += 1;
            sa.received = Some(digest);
            return self.aggressive_stranger(now, sa, &tunnel);
        };
        let exchanged = super::keys::Exchanged {
            initiator_cookie: cookies.0,
            responder_cookie: cookies.1,
            initiator_nonce: &one.peer_nonce,
            responder_nonce: &one.nonce,
            initiator_public: &one.peer_public,
            responder_public: &one.public,
        };
        let expected = keyed.keys.hash_i(&exchanged, &one.offer, &one.peer_id_body);
        if !same_hash(&expected, hash) {
            self.counters.failed_integrity += 1;
            sa.received = Some(digest);
            return self.aggressive_stranger(now, sa, &tunnel);
        }
        // Since its first message one may have been closed, or have got another key.
        let as_it_is = |then: &Arc<TunnelConfig>| {
            let now = self.tunnels.get(&then.id).filter(|now| now.has_credentials_of(then));
            now.cloned()
        };
        let known: Vec<_> = keyed.tunnels.iter().filter_map(as_it_is).collect();
        let verified = match known.is_empty() {
            true => Err(authentication_failed(&tunnel)),
            false => identified(keyed, &known, &suite, id, &expected, hash),
        };
        let payloads = chain.map_or_else(|_| Vec::new(), |chain| chain.payloads);
        let contact = says_initial_contact(&payloads);
        if let Some(opened) = &opened {
            keyed.cipher.accept(opened);
        }
        let keyed = one.keys.swap_remove(0);
        let tunnel = match verified {
            Ok(tunnel) => tunnel,
            Err(cause) => return self.attempt_over(now, sa, cause),
        };
        // The initiator may have changed over to the other port before it made its hashes, or after.
        let before = nat::detect(tunnel.nat_t, &suite, cookies, sa.path, &payloads);
        let after = nat::detect(tunnel.nat_t, &suite, cookies, path, &payloads);
        let nat = match (before, after) {
            (Some(before), Some(after)) => {
                Nat { local: before.local && after.local, peer: before.peer && after.peer }
            }
            _ => Nat::default(),
        };
        sa.received = Some(digest);
        sa.flight.messages.clear();
        sa.path = path;
        self.v1_establish(now, sa, tunnel, keyed.keys, keyed.cipher, suite, nat, contact)
    }

    /// The peer's proof is wrong: that is told once, and what is left waits for a better one.
    fn aggressive_stranger(&mut self, now: Instant, sa: Sa, tunnel: &TunnelConfig) -> Option<Sa> {
        self.refuse_unprotected(sa.path, sa.cookies(), NotifyType::AUTHENTICATION_FAILED);
        self.v1_stranger_failed(now, Some(tunnel.id), sa.path, AGGRESSIVE, authentication_failed(tunnel));
        Some(sa)
    }
}

/// The tunnels whose peer says to be this one, never none; or why there are none.
fn known_peers(tunnels: &Tunnels, path: Path, id: &Identification) -> Result<Vec<Arc<TunnelConfig>>, Cause> {
    let known = id.identity().map_or_else(Vec::new, |id| tunnels.of_peer(path, Dialect::AggressiveMode, &id));
    if !known.is_empty() {
        return Ok(known);
    }
    let expected = tunnels.peer_ids(path, Dialect::AggressiveMode);
    if expected.is_empty() {
        return Err(Cause::ModeMismatch { ours: Mode::Main, theirs: Mode::Aggressive });
    }
    Err(Cause::IdMismatch { expected, came: id.to_string() })
}
