//! Fragmented messages (RFC 7383 section 2.6): what has come of one is kept until it is whole, for some time.
//!
//! A fragment is believed once it passes its own integrity check. What a stranger can send is dropped before
//! that costs memory.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{IkeSa, Turn};
use crate::{
    crypto::cipher::{Inner, OpenError},
    endpoint::Endpoint,
    event::Path,
    timer::TimerKind,
    wire::{HEADER_LEN, Header, WireError, payload::FRAGMENT},
};

/// Fragments of one message, and octets in all: more than those of the longest message that we would send. A responder keeps them for
/// initiators that have proved nothing yet.
const MAX_FRAGMENTS: u16 = 128;
const MAX_OCTETS: usize = 32 * 1024;
/// How long fragments wait for the others. A peer that goes on trying sends them all again meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message of which some fragments have come.
#[derive(Debug)]
pub(crate) struct Reassembly {
    message_id: u32,
    total: u16,
    parts: BTreeMap<u16, Inner>,
}

/// What came of a datagram for an SA with keys.
#[derive(Debug)]
pub(crate) enum Opened {
    /// An authentic message, which may be malformed inside.
    Message(Result<Inner, WireError>),
    /// Nothing to act on: it was not authentic, or a fragment among others.
    Nothing,
}

/// The fragment's number and the number of fragments.
fn numbers(message: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *message.get(HEADER_LEN + 4..)?.first_chunk()?;
    let (number, total) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    (total <= MAX_FRAGMENTS && (1..=total).contains(&number)).then_some((number, total))
}

impl Reassembly {
    /// Whether a fragment of this message, divided like this, is still missing. A message that is divided into
    /// more fragments than before takes the place of what has come of it.
    fn wants(&self, message_id: u32, (number, total): (u16, u16)) -> bool {
        self.message_id != message_id
            || total > self.total
            || (total == self.total && !self.parts.contains_key(&number))
    }

    /// Adds a fragment; the whole message once it is that.
    fn add(&mut self, number: u16, part: Inner) -> Option<Inner> {
        self.parts.insert(number, part);
        if self.parts.len() < usize::from(self.total) {
            return None;
        }
        std::mem::take(&mut self.parts).into_values().reduce(|mut whole, part| {
            whole.append(&part);
            whole
        })
    }

    fn octets(&self) -> usize {
        self.parts.values().map(Inner::len).sum()
    }
}

impl Endpoint {
    /// Opens a protected message, or takes it as a fragment of one.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        path: Path,
        header: &Header,
        message: &[u8],
    ) -> Opened {
        if Header::decode(message).is_ok_and(|(_, first, _)| first == FRAGMENT) {
            return self.open_fragment(now, sa, path, header, message);
        }
        let Some(key) = sa.incoming_key(header) else {
            self.counters.unexpected += 1;
            return Opened::Nothing;
        };
        match key.open(message) {
            Ok(inner) => Opened::Message(Ok(inner)),
            Err(OpenError::Inner(error)) => Opened::Message(Err(error)),
            Err(OpenError::Integrity) => {
                self.counters.failed_integrity += 1;
                Opened::Nothing
            }
        }
    }

    fn open_fragment(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        path: Path,
        header: &Header,
        message: &[u8],
    ) -> Opened {
        if !sa.extensions.fragmentation {
            self.counters.unexpected += 1;
            return Opened::Nothing;
        }
        let Some((number, total)) = numbers(message) else {
            self.counters.malformed += 1;
            return Opened::Nothing;
        };
        let id = header.message_id;
        let turn = match &sa.window.outstanding {
            _ if !header.response => sa.window.turn(id),
            Some(request) if request.id == id && request.exchange == header.exchange => Turn::New,
            _ => Turn::Outside,
        };
        let kept = if header.response { &sa.window.answer_fragments } else { &sa.window.request_fragments };
        let wanted = match turn {
            Turn::New => kept.as_ref().is_none_or(|kept| kept.wants(id, (number, total))),
            // The first fragment stands for a request that comes again (RFC 7383 section 2.6.1).
            Turn::Repeated => number == 1 && (id > 0 || !sa.is_half_open()),
            Turn::Outside => false,
        };
        if !wanted {
            self.counters.old_message_id += 1;
            return Opened::Nothing;
        }
        let Some(key) = sa.incoming_key(header) else {
            self.counters.unexpected += 1;
            return Opened::Nothing;
        };
        let part = match key.open_fragment(message) {
            Ok(part) => part,
            Err(OpenError::Integrity) => {
                self.counters.failed_integrity += 1;
                return Opened::Nothing;
            }
            Err(OpenError::Inner(_)) => {
                self.counters.malformed += 1;
                return Opened::Nothing;
            }
        };
        if turn == Turn::Repeated {
            self.repeat_answer(sa, path);
            return Opened::Nothing;
        }
        self.timers.set(sa.spi, TimerKind::Reassembly, now + PATIENCE);
        let kept =
            if header.response { &mut sa.window.answer_fragments } else { &mut sa.window.request_fragments };
        let current = kept.take_if(|kept| kept.message_id == id && kept.total == total);
        let mut current =
            current.unwrap_or_else(|| Reassembly { message_id: id, total, parts: BTreeMap::new() });
        if current.octets() + part.len() > MAX_OCTETS {
            *kept = None;
            self.counters.malformed += 1;
            return Opened::Nothing;
        }
        match current.add(number, part) {
            Some(whole) => {
                *kept = None;
                Opened::Message(Ok(whole))
            }
            None => {
                *kept = Some(current);
                Opened::Nothing
            }
        }
    }

    /// Fragments that the others did not come to in time.
    pub(crate) fn drop_fragments(&mut self, mut sa: IkeSa) -> IkeSa {
        sa.window.request_fragments = None;
        sa.window.answer_fragments = None;
        sa
    }
}
