//! Message IDs of an IKE SA (RFC 7296 section 2.1 to 2.3): one request of ours at a time, and the answer to
//! the peer's last.

use std::{collections::VecDeque, time::Instant};

use super::Reassembly;
use crate::{
    event::DownReason,
    wire::{ExchangeType, Payload},
};

/// From here on, IDs are kept for the rekey and what goes with it.
const FIRST_OF_THE_LAST_IDS: u32 = u32::MAX - 4096;

/// The window of size one, both ways.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// ID of our next request.
    pub(crate) next: u32,
    /// Our request that waits for its answer.
    pub(crate) outstanding: Option<Request>,
    /// Our requests that wait for their turn.
    pub(crate) queue: VecDeque<Queued>,
    /// ID of the peer's next request.
    pub(crate) expected: u32,
    /// Our answer to its last one, whole or in fragments.
    pub(crate) answer: Option<Vec<Vec<u8>>>,
    /// The peer's next request, as far as its fragments have come.
    pub(crate) request_fragments: Option<Reassembly>,
    /// The answer to our outstanding request, as far as its fragments have come.
    pub(crate) answer_fragments: Option<Reassembly>,
}

/// A request on the wire.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) exchange: ExchangeType,
    pub(crate) id: u32,
    /// The message, whole or in fragments.
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) purpose: Purpose,
    pub(crate) attempts: u32,
    pub(crate) first_sent: Instant,
}

/// A request to come.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) exchange: ExchangeType,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) purpose: Purpose,
}

/// What a request is for: what its answer, or the lack of one, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To establish the SA.
    Establish,
    /// To do what the task of the SA's agenda is about.
    Create,
    /// To see whether the peer is alive.
    Liveness,
    /// To close the SA, or to tell the peer that it is not authenticated.
    Close,
    /// To remove the Child SA with this inbound SPI.
    DeleteChild(u32, DownReason),
}

/// What a request's message ID says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    New,
    /// The last one again: its answer is to be sent again.
    Repeated,
    Outside,
}

impl Window {
    pub(crate) fn turn(&self, id: u32) -> Turn {
        // The last ID is never used: after it came the first, and with it every old request.
        if id == u32::MAX {
            Turn::Outside
        } else if id == self.expected {
            Turn::New
        } else if self.answer.is_some() && self.expected.checked_sub(1) == Some(id) {
            Turn::Repeated
        } else {
            Turn::Outside
        }
    }

    /// Whether message IDs are about to run out (RFC 7296 section 2.2).
    pub(crate) fn is_nearly_used_up(&self) -> bool {
        self.next.max(self.expected) >= FIRST_OF_THE_LAST_IDS
    }

    /// Our outstanding request, if `id` and `exchange` are those of an answer to it.
    pub(crate) fn take_answered(&mut self, exchange: ExchangeType, id: u32) -> Option<Request> {
        self.outstanding.take_if(|request| request.id == id && request.exchange == exchange)
    }
}
