//! What phase 2 has under way on an ISAKMP SA, by message ID: sent, sent again, forgotten; and what is being computed.

use std::time::Instant;

use super::{
    Flight, Sa, State,
    quick::{Quick, Step},
};
use crate::{
    counters::ExchangeResult,
    crypto::dh::{Job, Outcome, Secret, Work},
    endpoint::Endpoint,
    error::Cause,
    event::DownReason,
    wire::ExchangeType,
};

/// Something of phase 2 with a message ID of its own.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) flight: Flight,
    pub(super) forget_at: Option<Instant>,
    /// `None` for an informational message that is said several times.
    pub(super) quick: Option<Box<Quick>>,
}

impl Exchange {
    pub(super) fn due(&self) -> Option<Instant> {
        self.flight.resend_at.into_iter().chain(self.forget_at).min()
    }
}

impl Endpoint {
    /// Sends a message of an exchange; again until it is answered, if it is to be.
    pub(super) fn send_exchange(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        message: Vec<u8>,
        repeat: bool,
    ) {
        let messages = self.v1_send(sa, message);
        let exchange = match &mut sa.state {
            State::Established(e) | State::Closing(e) => e.exchanges.get_mut(&id),
            State::PhaseOne(_) => None,
        };
        if let Some(exchange) = exchange {
            exchange.flight = Flight { messages, ..Flight::default() };
            if repeat {
                exchange.flight.schedule(now, &self.config);
            }
        }
    }

    /// Sends again what was not answered in time, and forgets what is over.
    pub(super) fn resend_exchanges(&mut self, now: Instant, mut sa: Sa) -> Option<Sa> {
        let settings = self.config.retransmission;
        let (State::Established(established) | State::Closing(established)) = &sa.state else {
            return Some(sa);
        };
        let due = |exchange: &Exchange| exchange.due().is_some_and(|at| at <= now);
        let due: Vec<u32> = established.exchanges.iter().filter(|(_, e)| due(e)).map(|(id, _)| *id).collect();
        for id in due {
            let (path, unconfirmed) = match &sa.state {
                State::Established(e) => (sa.path, e.unconfirmed),
                _ => (sa.path, false),
            };
            let (State::Established(established) | State::Closing(established)) = &mut sa.state else {
                continue;
            };
            let Some(exchange) = established.exchanges.get_mut(&id) else { continue };
            if exchange.forget_at.is_some_and(|at| at <= now) {
                self.drop_quick(&mut sa, id);
                continue;
            }
            if exchange.flight.attempts < settings.attempts {
                exchange.flight.schedule(now, &self.config);
                self.counters.retransmissions += 1;
                // The peer may lack the last message of phase 1, without which it cannot read this one.
                if unconfirmed {
                    self.transmit(path, &sa.flight.messages);
                }
                let messages = exchange.flight.messages.clone();
                self.transmit(path, &messages);
                continue;
            }
            match exchange.quick.as_ref().map(|quick| (quick.step, quick.inbound_spi, quick.want.tunnel)) {
                None => {
                    self.drop_quick(&mut sa, id);
                }
                Some((Step::Answered, spi, tunnel)) => {
                    self.counters.exchange(ExchangeType::QuickMode, ExchangeResult::TimedOut);
                    self.drop_quick(&mut sa, id);
                    self.remove_child_on(now, Some(&mut sa), tunnel, spi, DownReason::Broken, true);
                    self.expect_children(now, &sa);
                }
                Some(_) => {
                    self.counters.exchange(ExchangeType::QuickMode, ExchangeResult::TimedOut);
                    let flight = &exchange.flight;
                    let waited = flight
                        .first_sent
                        .map_or_else(Default::default, |at| now.saturating_duration_since(at));
                    let cause = Cause::NoAnswer { path, attempts: flight.attempts, waited, heard: true };
                    self.quick_failed(now, &mut sa, id, cause);
                }
            }
        }
        Some(sa)
    }

    /// Takes an exchange away; what still comes of it is an old message.
    pub(super) fn drop_quick(&mut self, sa: &mut Sa, id: u32) -> Option<Box<Quick>> {
        self.v1.drop_job((sa.cookie, id));
        let established = match &mut sa.state {
            State::Established(e) | State::Closing(e) => e,
            State::PhaseOne(_) => return None,
        };
        established.cipher.finish(id);
        established.exchanges.remove(&id)?.quick
    }

    pub(super) fn quick_job(&mut self, cookie: u64, id: u32, secret: Secret, work: Work) {
        let key = self.draw_spi();
        self.v1.jobs.insert(key, (cookie, id));
        self.v1.jobs_of.insert((cookie, id), key);
        self.jobs.push_back(Job { sa: key, secret, work });
    }

    /// What a computation of phase 1 or of a quick mode came to.
    pub(crate) fn v1_job(&mut self, now: Instant, key: u64, outcome: Outcome) {
        if let Some((cookie, id)) = self.v1.jobs.remove(&key) {
            self.v1.jobs_of.remove(&(cookie, id));
            return self.with_v1(cookie, |endpoint, mut sa| {
                match outcome {
                    Outcome::Generated { secret, public } => {
                        endpoint.quick_generated(now, &mut sa, id, secret, public);
                    }
                    Outcome::Agreed(shared) => endpoint.quick_agreed(now, &mut sa, id, shared),
                    Outcome::Responded(result) => endpoint.quick_responded(now, &mut sa, id, result),
                }
                Some(sa)
            });
        }
        self.with_v1(key, |endpoint, sa| match outcome {
            Outcome::Generated { secret, public } => endpoint.phase_one_generated(now, sa, secret, public),
            Outcome::Agreed(shared) => endpoint.phase_one_agreed(now, sa, shared),
            Outcome::Responded(result) => endpoint.phase_one_responded(now, sa, result),
        });
    }
}
