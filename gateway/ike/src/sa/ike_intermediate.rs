//! IKE_INTERMEDIATE (RFC 9242): the additional key exchange of RFC 9370, between IKE_SA_INIT and IKE_AUTH.
//!
//! Its messages are protected by the keys of IKE_SA_INIT, so they may be fragmented; that is what lets a public
//! value be longer than a packet. IKE_AUTH and everything after it uses keys that both key exchanges went into, and
//! AUTH covers what was said here.

use std::time::Instant;

use super::{Handshake, IkeSa, Purpose, State};
use crate::{
    algorithm::Group,
    config::Version,
    counters::ExchangeResult,
    crypto::{
        cipher::Inner,
        dh::{InvalidPublic, Job, Secret, Shared, Work},
    },
    endpoint::Endpoint,
    error::Cause,
    event::{Path, Phase},
    exchange::header,
    wire::{ExchangeType, Payload},
};

/// An initiator between IKE_SA_INIT and IKE_AUTH.
#[derive(Debug)]
pub(crate) struct Intermediate {
    pub(super) handshake: Handshake,
    group: Group,
    /// Our part of the key exchange; not here while a job has it.
    secret: Option<Secret>,
}

fn key_exchange_of(payloads: &[Payload]) -> Option<(u16, &[u8])> {
    payloads.iter().find_map(|payload| match payload {
        Payload::KeyExchange { group, public } => Some((*group, public.as_slice())),
        _ => None,
    })
}

/// As initiator.
impl Endpoint {
    /// Begins the additional key exchange. Its request goes out when our public value is computed.
    pub(super) fn begin_intermediate(
        &mut self,
        mut sa: IkeSa,
        handshake: Handshake,
        group: Group,
    ) -> Option<IkeSa> {
        let secret = Secret::random(group, &mut *self.rng);
        self.jobs.push_back(Job { sa: sa.spi, secret, work: Work::Generate });
        sa.state = State::Intermediate(Box::new(Intermediate { handshake, group, secret: None }));
        Some(sa)
    }

    /// Our public value of the additional key exchange is computed.
    pub(crate) fn intermediate_generated(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        secret: Secret,
        public: Vec<u8>,
    ) -> Option<IkeSa> {
        let payloads = vec![Payload::KeyExchange { group: secret.group().number(), public }];
        let said = Inner::of(header(&sa, ExchangeType::IkeIntermediate, false, sa.window.next), &payloads);
        let State::Intermediate(state) = &mut sa.state else { return Some(sa) };
        state.handshake.cover(true, &said);
        state.secret = Some(secret);
        self.request(now, &mut sa, ExchangeType::IkeIntermediate, payloads, Purpose::Establish);
        Some(sa)
    }

    /// The authentic answer to our IKE_INTERMEDIATE.
    pub(crate) fn intermediate_answer(
        &mut self,
        mut sa: IkeSa,
        said: &Inner,
        payloads: &[Payload],
    ) -> Option<IkeSa> {
        let State::Intermediate(state) = &mut sa.state else { return Some(sa) };
        let refusal = payloads.iter().find_map(|p| match p {
            Payload::Notify(notify) if notify.kind.is_error() => Some(notify.kind),
            _ => None,
        });
        let cause = match (refusal, key_exchange_of(payloads), state.secret.take()) {
            (None, Some((group, public)), Some(secret)) if group == state.group.number() => {
                state.handshake.cover(false, said);
                self.jobs.push_back(Job { sa: sa.spi, secret, work: Work::Agree(public.to_vec()) });
                return Some(sa);
            }
            (Some(notify), ..) => Cause::PeerRefused { notify },
            _ => Cause::Malformed { what: "KE is missing in IKE_INTERMEDIATE, or of another group" },
        };
        self.attempt_failed(sa, Phase::One, ExchangeType::IkeIntermediate, cause)
    }

    /// The shared secret of the additional key exchange is computed: IKE_AUTH can go.
    pub(crate) fn intermediate_agreed(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        shared: Result<Shared, InvalidPublic>,
    ) -> Option<IkeSa> {
        let spis = (sa.initiator_spi(), sa.responder_spi());
        let (State::Intermediate(state), Some(tunnel)) = (sa.state, sa.tunnel.clone()) else { return None };
        let Intermediate { mut handshake, group, .. } = *state;
        let Ok(shared) = shared else {
            sa.state = State::Closing(handshake.into_channel());
            let cause = Cause::InvalidPublicValue { group };
            return self.attempt_failed(sa, Phase::One, ExchangeType::IkeIntermediate, cause);
        };
        handshake.advance(&shared, spis, true);
        self.counters.exchange(ExchangeType::IkeIntermediate, ExchangeResult::Done);
        let (state, payloads) =
            self.auth_payloads(&tunnel, sa.extensions, sa.flow.as_ref(), &mut sa.esp_spis, handshake);
        sa.state = state;
        self.request(now, &mut sa, ExchangeType::IkeAuth, payloads, Purpose::Establish);
        Some(sa)
    }
}

/// As responder.
impl Endpoint {
    /// The authentic IKE_INTERMEDIATE request of a peer that is yet to prove who it is.
    pub(crate) fn intermediate_request(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        said: &Inner,
        payloads: &[Payload],
    ) -> Option<IkeSa> {
        let State::HalfOpen(handshake) = &mut sa.state else { return Some(sa) };
        let Some(group) = handshake.additional() else { return Some(sa) };
        if handshake.computing.is_some() {
            self.counters.old_message_id += 1;
            return Some(sa);
        }
        let Some((_, public)) = key_exchange_of(payloads).filter(|(offered, _)| *offered == group.number())
        else {
            let cause = Cause::Malformed { what: "KE is missing in IKE_INTERMEDIATE, or of another group" };
            return self.refuse_intermediate(now, sa, path, cause);
        };
        let public = public.to_vec();
        handshake.cover(true, said);
        handshake.computing = Some(path);
        let secret = Secret::random(group, &mut *self.rng);
        self.jobs.push_back(Job { sa: sa.spi, secret, work: Work::Respond(public) });
        Some(sa)
    }

    /// The additional key exchange is computed: the answer can go, by the keys that protected the request.
    pub(crate) fn intermediate_responded(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        result: Result<(Vec<u8>, Shared), InvalidPublic>,
    ) -> Option<IkeSa> {
        let State::HalfOpen(handshake) = &mut sa.state else { return Some(sa) };
        let (Some(path), Some(group)) = (handshake.computing.take(), handshake.additional()) else {
            return Some(sa);
        };
        let Ok((public, shared)) = result else {
            self.counters.malformed += 1;
            return self.refuse_intermediate(now, sa, path, Cause::InvalidPublicValue { group });
        };
        let payloads = [Payload::KeyExchange { group: group.number(), public }];
        let said = Inner::of(header(&sa, ExchangeType::IkeIntermediate, true, sa.window.expected), &payloads);
        self.answer(&mut sa, path, ExchangeType::IkeIntermediate, &payloads);
        self.counters.exchange(ExchangeType::IkeIntermediate, ExchangeResult::Done);
        let spis = (sa.initiator_spi(), sa.responder_spi());
        if let State::HalfOpen(handshake) = &mut sa.state {
            handshake.cover(false, &said);
            handshake.advance(&shared, spis, false);
        }
        Some(sa)
    }

    /// Tells an initiator why it gets no further. The SA is forgotten when its time as half-open is up.
    fn refuse_intermediate(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        cause: Cause,
    ) -> Option<IkeSa> {
        self.counters.exchange(ExchangeType::IkeIntermediate, ExchangeResult::Refused);
        let notify = Payload::Notify(cause.to_notify());
        self.answer(&mut sa, path, ExchangeType::IkeIntermediate, &[notify]);
        let tunnel = self.sole(path, Version::Ikev2);
        self.failed_now_and_then(now, tunnel, path, ExchangeType::IkeIntermediate, cause);
        sa.state = match sa.state {
            State::HalfOpen(handshake) => State::Closing(handshake.into_channel()),
            other => other,
        };
        Some(sa)
    }
}
