//! IKE_AUTH (RFC 7296 section 1.2 and 2.15): identities, proof of the pre-shared key, and the first Child SA.

use std::{sync::Arc, time::Instant};

use subtle::ConstantTimeEq;

use super::{
    Established, Extensions, Flow, Goal, Handshake, IkeSa, Purpose, Role, State,
    child::{self, Agreement, Making, NEWS},
    extensions::says,
    mobike::is_nat_refused,
    ppk::{self, Proof},
};
use crate::{
    config::{Id, Ppk, TunnelConfig, Version},
    counters::ExchangeResult,
    crypto::keys::SaKeys,
    endpoint::Endpoint,
    error::Cause,
    event::{DownReason, Event, Path, Phase},
    proposal::{in_words, offer_ike},
    timer::TimerKind,
    tunnels::Dialect,
    wire::{ExchangeType, Notify, NotifyType, Payload, payload::EAP},
};

/// Shared key message integrity code.
const METHOD_PSK: u8 = 2;

/// An initiator that waits for the answer to IKE_AUTH.
#[derive(Debug)]
pub(crate) struct AuthSent {
    pub(super) handshake: Handshake,
    /// `None` where no Child SA was asked for (RFC 6023).
    inbound_spi: Option<u32>,
    /// Whether a PPK was named.
    ppk: bool,
}

/// ID type, identification data and the payload's body, which AUTH covers.
fn id_payload(id: &Id) -> (u8, Vec<u8>, Vec<u8>) {
    let (kind, data) = id.to_wire();
    let body = id_body(kind, &data);
    (kind, data, body)
}

fn id_body(kind: u8, data: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0], data].concat()
}

/// Octets of a name or a mail address.
const LONGEST_ID_SAID: usize = 255;

/// An identity that came, for people to read: it need not be one that we could have.
fn id_in_words(kind: u8, data: &[u8]) -> String {
    let known = (data.len() <= LONGEST_ID_SAID).then(|| Id::from_wire(kind, data)).flatten();
    known.map_or_else(
        || format!("an ID of type {kind} ({})", Id::KeyId(data.iter().copied().take(32).collect())),
        |id| id.to_string(),
    )
}

fn auth_of(payloads: &[Payload]) -> Option<(u8, &[u8])> {
    payloads.iter().find_map(|p| match p {
        Payload::Auth { method, data } => Some((*method, data.as_slice())),
        _ => None,
    })
}

fn error_of(payloads: &[Payload]) -> Option<NotifyType> {
    payloads.iter().find_map(|p| match p {
        Payload::Notify(notify) if notify.kind.is_error() => Some(notify.kind),
        _ => None,
    })
}

/// As initiator.
impl Endpoint {
    /// What an initiator says in IKE_AUTH, and its state from then on.
    pub(super) fn auth_payloads(
        &mut self,
        tunnel: &TunnelConfig,
        extensions: Extensions,
        flow: Option<&Flow>,
        esp_spis: &mut Vec<u32>,
        handshake: Handshake,
    ) -> (State, Vec<Payload>) {
        let (kind, data, body) = id_payload(&tunnel.local_id);
        let ppk = tunnel.ppk.as_ref().filter(|_| extensions.ppk);
        let auth = |keys: &SaKeys| handshake.auth(keys, true, tunnel.psk.as_bytes(), &body).to_vec();
        let mut payloads = vec![Payload::IdInitiator { kind, data }];
        // The address says nothing that the peer, which may have several identities there, does not know.
        if tunnel.peer.is_none_or(|peer| tunnel.peer_id != Id::from(peer)) {
            let (kind, data) = tunnel.peer_id.to_wire();
            payloads.push(Payload::IdResponder { kind, data });
        }
        if self.is_initial_contact(tunnel) {
            payloads.push(Payload::Notify(Notify::new(NotifyType::INITIAL_CONTACT, [])));
        }
        match ppk {
            Some(ppk) => {
                let keys = handshake.keys.mixed_with(ppk.key.as_bytes());
                payloads.push(Payload::Auth { method: METHOD_PSK, data: auth(&keys) });
                payloads.push(ppk::identity(ppk));
                if !ppk.required {
                    let without = auth(&handshake.keys);
                    payloads.push(Payload::Notify(Notify::new(NotifyType::NO_PPK_AUTH, without)));
                }
            }
            None => payloads.push(Payload::Auth { method: METHOD_PSK, data: auth(&handshake.keys) }),
        }
        let childless = tunnel.childless && extensions.childless;
        let inbound_spi = (!childless).then(|| self.draw_esp_spi(esp_spis));
        payloads.extend(inbound_spi.into_iter().flat_map(|spi| child::offer(tunnel, flow, spi, &[])));
        let ppk = ppk.is_some();
        (State::AuthSent(Box::new(AuthSent { handshake, inbound_spi, ppk })), payloads)
    }

    /// Whether no other IKE SA between the same two identities is up, or may be when the peer hears of it: the
    /// peer closes every one of them, those of other tunnels too (RFC 7296 section 2.4).
    fn is_initial_contact(&self, tunnel: &TunnelConfig) -> bool {
        !self.of_tunnel.between(tunnel).filter_map(|spi| self.sas.get(&spi)).any(|sa| {
            let same = |other: &TunnelConfig| {
                other.local_id.matches(&tunnel.local_id) && other.peer_id.matches(&tunnel.peer_id)
            };
            matches!(sa.state, State::AuthSent(_) | State::Established(_))
                && sa.tunnel.as_ref().is_some_and(|other| same(other))
        })
    }

    /// The authentic answer to our IKE_AUTH.
    pub(crate) fn auth_answer(&mut self, now: Instant, mut sa: IkeSa, payloads: &[Payload]) -> Option<IkeSa> {
        let (State::AuthSent(auth), Some(tunnel)) = (sa.state, sa.tunnel.clone()) else { return None };
        let AuthSent { handshake, inbound_spi, ppk } = *auth;
        let named = tunnel.ppk.as_ref().filter(|_| ppk);
        let checked = check_responder(&tunnel, &handshake, named, payloads);
        let Handshake { channel, keys, suite, nat, responder_nonce, .. } = handshake;
        let proof = match checked {
            Ok(proof) => proof,
            Err(cause) => {
                self.counters.exchange(ExchangeType::IkeAuth, ExchangeResult::Refused);
                sa.state = State::Closing(channel);
                self.report_failure(&sa, Phase::One, ExchangeType::IkeAuth, cause.clone());
                let told_by_peer = auth_of(payloads).is_none() && error_of(payloads).is_some();
                if told_by_peer {
                    return None;
                }
                let notify = Payload::Notify(cause.to_notify());
                self.request(now, &mut sa, ExchangeType::Informational, vec![notify], Purpose::Close);
                return Some(sa);
            }
        };
        self.counters.exchange(ExchangeType::IkeAuth, ExchangeResult::Done);
        if sa.doomed {
            sa.state = State::Closing(channel);
            self.send_delete(now, &mut sa);
            return Some(sa);
        }
        let keys = final_keys(keys, proof);
        let agreement = inbound_spi.map(|spi| child::accept(&tunnel, payloads, spi, None));
        sa.state = State::Established(Established::new(now, channel, keys, suite, nat.unwrap_or_default()));
        self.establish(now, sa, &responder_nonce, agreement, None)
    }
}

/// The keys that the IKE SA has from IKE_AUTH on.
fn final_keys(keys: SaKeys, proof: Proof<'_>) -> SaKeys {
    match proof {
        Proof::Mixed(ppk) => keys.mixed_with(ppk.key.as_bytes()),
        Proof::Plain | Proof::Fallback(_) => keys,
    }
}

fn check_responder<'a>(
    tunnel: &TunnelConfig,
    handshake: &Handshake,
    ppk: Option<&'a Ppk>,
    payloads: &[Payload],
) -> Result<Proof<'a>, Cause> {
    if payloads.contains(&Payload::Ignored { number: EAP }) {
        return Err(Cause::Eap);
    }
    let Some((method, data)) = auth_of(payloads) else {
        return Err(match error_of(payloads) {
            Some(NotifyType::AUTHENTICATION_FAILED) => authentication_failed(tunnel, true),
            Some(notify) => Cause::PeerRefused { notify },
            None => Cause::Malformed { what: "AUTH is missing" },
        });
    };
    let id = payloads.iter().find_map(|p| match p {
        Payload::IdResponder { kind, data } => Some((*kind, data)),
        _ => None,
    });
    let (kind, id) = id.ok_or(Cause::Malformed { what: "IDr is missing" })?;
    if method != METHOD_PSK {
        return Err(Cause::AuthMethod { method });
    }
    if !Id::from_wire(kind, id).is_some_and(|came| tunnel.peer_id.matches(&came)) {
        return Err(Cause::IdMismatch {
            expected: vec![tunnel.peer_id.clone()],
            came: id_in_words(kind, id),
        });
    }
    let proof = ppk::of_responder(ppk, payloads)?;
    let verifies = |keys: &SaKeys| {
        let expected = handshake.auth(keys, false, tunnel.psk.as_bytes(), &id_body(kind, id));
        bool::from(expected.ct_eq(data))
    };
    let verified = match proof {
        Proof::Mixed(ppk) => verifies(&handshake.keys.mixed_with(ppk.key.as_bytes())),
        Proof::Plain | Proof::Fallback(_) => verifies(&handshake.keys),
    };
    verified.then_some(proof).ok_or_else(|| authentication_failed(tunnel, false))
}

pub(super) fn authentication_failed(tunnel: &TunnelConfig, told_by_peer: bool) -> Cause {
    Cause::AuthenticationFailed {
        told_by_peer,
        local_id: tunnel.local_id.clone(),
        peer_id: tunnel.peer_id.clone(),
    }
}

/// As responder.
impl Endpoint {
    /// The authentic IKE_AUTH request of a peer that is yet to prove who it is.
    pub(crate) fn auth_request(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        payloads: &[Payload],
    ) -> Option<IkeSa> {
        let State::HalfOpen(handshake) = sa.state else { return None };
        self.timers.stop(sa.spi, TimerKind::HalfOpen);
        // The tunnels as they are configured by now.
        let named = self.named(sa.path, payloads);
        sa.path = path;
        let verified = match &named {
            Ok((id, known)) => check_initiator(known, *id, &handshake, sa.extensions.ppk, payloads),
            Err(stranger) => Err(stranger.clone()),
        };
        let verified = match verified.and_then(|verified| match is_nat_refused(path, payloads) {
            true => Err((Some(Arc::clone(&verified[0].0)), Cause::NatRefused { path })),
            false => Ok(verified),
        }) {
            Ok(verified) => verified,
            Err((tunnel, cause)) => {
                if let (Some(tunnel), Cause::NotOurAlgorithms { .. }) = (&tunnel, &cause) {
                    self.wanted.insert((sa.path.local.ip(), sa.path.remote.ip()), tunnel.id);
                    if self.wanted.len() > self.tunnels.len() {
                        self.wanted.pop_first();
                    }
                }
                sa.tunnel = tunnel;
                self.counters.exchange(ExchangeType::IkeAuth, ExchangeResult::Refused);
                sa.state = State::Closing(handshake.into_channel());
                if self.reports.permit(now, sa.tunnel_id()) {
                    self.report_failure(&sa, Phase::One, ExchangeType::IkeAuth, cause.clone());
                }
                self.answer(&mut sa, path, ExchangeType::IkeAuth, &[Payload::Notify(cause.to_notify())]);
                self.timers.set(sa.spi, TimerKind::Linger, now + self.config.linger);
                return Some(sa);
            }
        };
        self.half_open.remove(&sa.spi);
        let inbound_spi = self.draw_esp_spi(&mut sa.esp_spis);
        // Tunnels that share addresses, IDs and keys are told apart by their subnets.
        let offers = verified
            .iter()
            .map(|(tunnel, proof)| (tunnel, proof, child::respond(tunnel, payloads, inbound_spi, None)));
        let (tunnel, proof, child) = offers.min_by_key(|(tunnel, _, child)| match child {
            Some(Ok((agreement, _))) => agreement.loss(tunnel, payloads),
            _ => u8::MAX,
        })?;
        let (agreement, child_payloads) = match child {
            Some(Ok((agreement, payloads))) => (Some(Ok(agreement)), payloads.to_vec()),
            Some(Err(cause)) => {
                let notify = Payload::Notify(cause.to_notify());
                (Some(Err(cause)), vec![notify])
            }
            None => (None, Vec::new()),
        };
        let (kind, data, body) = id_payload(&tunnel.local_id);
        let auth = |keys: &SaKeys| handshake.auth(keys, false, tunnel.psk.as_bytes(), &body).to_vec();
        let (data_of_auth, keys) = match proof {
            Proof::Mixed(ppk) => {
                let keys = handshake.keys.mixed_with(ppk.key.as_bytes());
                (auth(&keys), Some(keys))
            }
            Proof::Plain | Proof::Fallback(_) => (auth(&handshake.keys), None),
        };
        let mut reply = vec![
            Payload::IdResponder { kind, data },
            Payload::Auth { method: METHOD_PSK, data: data_of_auth },
        ];
        if keys.is_some() {
            reply.push(Payload::Notify(Notify::new(NotifyType::PPK_IDENTITY, [])));
        }
        reply.extend(child_payloads);
        if says(payloads, NotifyType::MOBIKE_SUPPORTED) {
            sa.extensions.mobike = true;
            reply.push(Payload::Notify(Notify::new(NotifyType::MOBIKE_SUPPORTED, [])));
        }
        self.counters.exchange(ExchangeType::IkeAuth, ExchangeResult::Done);
        self.of_tunnel.insert(tunnel, sa.spi);
        sa.tunnel = Some(tunnel.clone());
        let initial_contact = says(payloads, NotifyType::INITIAL_CONTACT);
        let Handshake { channel, keys: plain, suite, nat, responder_nonce, .. } = *handshake;
        let keys = keys.unwrap_or(plain);
        sa.state = State::Established(Established::new(now, channel, keys, suite, nat.unwrap_or_default()));
        if !matches!(agreement, Some(Ok(_))) {
            self.release_esp_spi(&mut sa, inbound_spi);
        }
        let accepted = Some(Accepted { path, reply, initial_contact });
        self.establish(now, sa, &responder_nonce, agreement, accepted)
    }

    /// IDi, type and data, and the candidates whose peer has it, never none: first those that IDr means.
    fn named<'a>(&self, path: Path, payloads: &'a [Payload]) -> Result<Named<'a>, Stranger> {
        let only = || self.tunnels.only(path, Version::Ikev2).cloned();
        let id = payloads.iter().find_map(|p| match p {
            Payload::IdInitiator { kind, data } => Some((*kind, data.as_slice())),
            _ => None,
        });
        let Some((kind, id)) = id else {
            return Err((only(), Cause::Malformed { what: "IDi is missing" }));
        };
        let came = Id::from_wire(kind, id);
        let mut known = came.map_or_else(Vec::new, |came| self.candidates_named(path, &came));
        if known.is_empty() {
            let expected = self.tunnels.peer_ids(path, Dialect::Ikev2);
            return Err((only(), Cause::IdMismatch { expected, came: id_in_words(kind, id) }));
        }
        let wanted = payloads.iter().find_map(|p| match p {
            Payload::IdResponder { kind, data } => Id::from_wire(*kind, data),
            _ => None,
        });
        // IDr is a wish, which a responder may pass over (RFC 7296 section 1.2).
        known.sort_by_key(|c| !wanted.as_ref().is_some_and(|wanted| c.local_id.matches(wanted)));
        Ok(((kind, id), known))
    }
}

/// What a responder still has to do once its side is established.
struct Accepted {
    path: Path,
    reply: Vec<Payload>,
    initial_contact: bool,
}

/// Why an initiator is not let in, and the tunnel it comes closest to.
type Stranger = (Option<Arc<TunnelConfig>>, Cause);

/// IDi, type and data, and the tunnels whose peer has it.
type Named<'a> = ((u8, &'a [u8]), Vec<Arc<TunnelConfig>>);

/// The candidates that the initiator has proved to be the peer of, of those whose peer has its ID; or why there are
/// none, and for which tunnel.
fn check_initiator<'a>(
    known: &'a [Arc<TunnelConfig>],
    (kind, id): (u8, &[u8]),
    handshake: &Handshake,
    uses_ppk: bool,
    payloads: &'a [Payload],
) -> Result<Vec<(Arc<TunnelConfig>, Proof<'a>)>, Stranger> {
    // No AUTH in the first request asks for EAP (RFC 7296 section 2.16).
    let Some((method, auth)) = auth_of(payloads) else {
        return Err((Some(known[0].clone()), Cause::Eap));
    };
    if method != METHOD_PSK {
        return Err((Some(known[0].clone()), Cause::AuthMethod { method }));
    }
    let body = id_body(kind, id);
    let mut refusal = None;
    let mut verified = Vec::new();
    for tunnel in known {
        match verify(tunnel, handshake, uses_ppk, payloads, &body, auth) {
            Ok(proof) => verified.push((Arc::clone(tunnel), proof)),
            Err(cause) => {
                refusal.get_or_insert((Arc::clone(tunnel), cause));
            }
        }
    }
    let Some((first, _)) = verified.first() else {
        let (tunnel, cause) =
            refusal.unwrap_or_else(|| (Arc::clone(&known[0]), authentication_failed(&known[0], false)));
        return Err((Some(tunnel), cause));
    };
    let suite = &handshake.suite;
    let ours = offer_ike(&first.ike).iter().map(in_words).collect();
    let other = (Some(Arc::clone(first)), Cause::NotOurAlgorithms { ours, chosen: suite.to_string() });
    verified.retain(|(tunnel, _)| suite.is_within(&tunnel.ike));
    if verified.is_empty() { Err(other) } else { Ok(verified) }
}

/// How an initiator has proved to be the peer of a tunnel, if it has.
fn verify<'a>(
    tunnel: &'a TunnelConfig,
    handshake: &Handshake,
    uses_ppk: bool,
    payloads: &'a [Payload],
    id_body: &[u8],
    auth: &[u8],
) -> Result<Proof<'a>, Cause> {
    let proof = ppk::of_initiator(tunnel.ppk.as_ref(), uses_ppk, payloads)?;
    let verifies = |keys: &SaKeys, auth: &[u8]| {
        bool::from(handshake.auth(keys, true, tunnel.psk.as_bytes(), id_body).ct_eq(auth))
    };
    let verified = match proof {
        Proof::Plain => verifies(&handshake.keys, auth),
        Proof::Fallback(auth) => verifies(&handshake.keys, auth),
        Proof::Mixed(ppk) => {
            let verified = verifies(&handshake.keys.mixed_with(ppk.key.as_bytes()), auth);
            let without = ppk::without(payloads).is_some_and(|auth| verifies(&handshake.keys, auth));
            if !verified && without {
                return Err(Cause::PpkDiffers { id: ppk::in_words(&ppk.id) });
            }
            verified
        }
    };
    verified.then_some(proof).ok_or_else(|| authentication_failed(tunnel, false))
}

/// As either.
impl Endpoint {
    /// Both sides are authenticated: the IKE SA is up, and the Child SA if there is agreement on one.
    fn establish(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        responder_nonce: &[u8],
        agreement: Option<Result<Agreement, Cause>>,
        accepted: Option<Accepted>,
    ) -> Option<IkeSa> {
        let (State::Established(established), Some(tunnel)) = (&mut sa.state, sa.tunnel.clone()) else {
            return None;
        };
        let initiator = sa.role == Role::Initiator;
        let initial_contact = accepted.as_ref().is_some_and(|a| a.initial_contact);
        self.events.push_back(Event::IkeUp {
            tunnel: tunnel.id,
            path: sa.path,
            suite: established.suite.to_string(),
            handshake: now.saturating_duration_since(sa.started),
            nat: established.nat,
            initiator,
        });
        let mut failure = None;
        // Without one asked for, the first Child SA comes by CREATE_CHILD_SA (RFC 6023).
        let begun_childless = initiator && agreement.is_none();
        match agreement {
            Some(Ok(agreement)) => {
                let ni = sa.initiator_nonce.clone();
                let nonces = [ni.as_slice(), responder_nonce];
                let elsewhere = !initial_contact && self.is_served_elsewhere(&sa, &agreement);
                let awaited = elsewhere.then_some(NEWS);
                let making = Making { initiator, nonces, shared: &[], replaces: None, awaited };
                self.install(now, &mut sa, agreement, &making);
            }
            Some(Err(cause)) => failure = Some(cause),
            None => {}
        }
        let childless = !sa.is_usable();
        if let Some(cause) = failure {
            self.report_failure(&sa, Phase::Two, ExchangeType::IkeAuth, cause);
        }
        if let Some(Accepted { path, reply, .. }) = accepted {
            self.answer(&mut sa, path, ExchangeType::IkeAuth, &reply);
        }
        if childless && initiator && !begun_childless {
            return self.close_sa(now, sa, DownReason::NoChild);
        }
        self.start_lifetimes(now, &mut sa, &tunnel);
        self.settle(now, &mut sa, initial_contact);
        if begun_childless {
            let flow = sa.flow.take();
            self.want(now, &mut sa, Goal::Create(flow));
        }
        Some(sa)
    }
}
