//! The way of a packet through ESP and AH, in both directions.

use crate::ah::Ah;
use crate::inner::{self, Inner};
use crate::kernels::{BURST, Backend, Queue};
use crate::outer::{self, Template};
use crate::packet::{Drop, Outcome, Packet};
use crate::replay::SaStates;
use crate::sa::{InvalidSa, Protocol, REPLAY_WINDOW_MAX, SaParams};
use crate::transform::{HEADER_LEN, Transform};
use arrayvec::ArrayVec;
use std::fmt;
use std::ops::Range;

/// Pad length and next header.
const TRAILER_LEN: usize = 2;
/// Largest outer packet that both IP versions can express.
const MAX_OUTER_LEN: usize = 65_535;

/// The expanded SAs of one worker, by index.
///
/// Every worker has its own; what they share of an SA, the sequence number and the replay window, lives with the
/// caller. The same SA may be sealed or opened by several engines at once.
pub struct Engine {
    sas: Box<[Option<Box<Sa>>]>,
    backend: Backend,
}

impl Engine {
    /// An engine for the SA indices `0..capacity`, none installed, on the fastest backend of this processor.
    pub fn new(capacity: usize) -> Self {
        Self::with_backend(capacity, Backend::detect())
    }

    /// The same on another backend; one that this processor does not have leaves the portable one.
    pub fn with_backend(capacity: usize, backend: Backend) -> Self {
        let backend = if backend.is_available() { backend } else { Backend::Portable };
        Self { sas: (0..capacity).map(|_| None).collect(), backend }
    }

    /// What the cryptography runs on.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Expands an SA at `index`, in place of the one there if any. The only call that allocates.
    ///
    /// # Errors
    /// [`InvalidSa`] when the parameters cannot make an SA; what was installed stays.
    pub fn install(&mut self, index: u32, params: &SaParams) -> Result<(), InvalidSa> {
        let capacity = self.sas.len();
        let slot = self.sas.get_mut(index as usize).ok_or(InvalidSa::Index { index, capacity })?;
        *slot = Some(Box::new(Sa::new(params, self.backend)?));
        Ok(())
    }

    /// Removes the SA at `index`, if there is one, and wipes its keys.
    pub fn remove(&mut self, index: u32) {
        if let Some(slot) = self.sas.get_mut(index as usize) {
            *slot = None;
        }
    }

    /// Generation of the SA at `index`.
    pub fn generation(&self, index: u32) -> Option<u32> {
        self.sa(index).map(|sa| sa.generation)
    }

    /// Bytes that sealing adds to an inner packet of `inner_len` bytes; 0 without an SA at `index`.
    pub fn overhead(&self, index: u32, inner_len: usize) -> usize {
        self.sa(index).map_or(0, |sa| sa.head_len() + sa.tail_len(inner_len))
    }

    /// Bytes of the longest inner packet whose outer packet fits `mtu`; 0 when none does and without an SA at `index`.
    pub fn max_inner(&self, index: u32, mtu: usize) -> usize {
        let Some(sa) = self.sa(index) else { return 0 };
        let room = mtu.min(MAX_OUTER_LEN).saturating_sub(sa.head_len());
        match &sa.form {
            Form::Esp(transform) => {
                let text = room.saturating_sub(transform.icv_len());
                (text - text % transform.alignment()).saturating_sub(TRAILER_LEN)
            }
            Form::Ah(_) => room,
        }
    }

    /// Encapsulates the pending packets of `batch`, each `start..end` being an inner IP packet and `seq` a sequence
    /// number never used before under the key (RFC 4303 section 3.3, RFC 4302 section 3.3).
    ///
    /// Bytes after the inner packet's own length are not sent. A packet that is dropped stays as it was. Never inlined, as
    /// [`Engine::open`]: a profile tells the engine from what is around it by their names.
    #[inline(never)]
    pub fn seal(&mut self, batch: &mut [Packet<'_>]) {
        for burst in batch.chunks_mut(BURST) {
            let mut headless = ArrayVec::<_, BURST>::new();
            self.seal_texts(burst, &mut headless);
            for &(position, sa, class) in &headless {
                let packet = &mut burst[position];
                // The UDP checksum covers what only now is encrypted.
                sa.template.write(&mut packet.buf[packet.start..packet.end], class);
            }
        }
    }

    /// Seals all but the outer headers that `headless` names, with SA and traffic class.
    fn seal_texts<'s>(
        &'s self,
        burst: &mut [Packet<'_>],
        headless: &mut ArrayVec<(usize, &'s Sa, u8), BURST>,
    ) {
        let mut queue = Queue::default();
        for (position, packet) in burst.iter_mut().enumerate() {
            if packet.outcome != Outcome::Pending {
                continue;
            }
            let Packet { buf, start, end, sa, seq, outcome } = packet;
            let sealed = self.sa(*sa).ok_or(Drop::NoSa).and_then(|sa| {
                let (range, class) = sa.seal(buf, *start..*end, *seq, position, &mut queue)?;
                headless.extend(class.map(|class| (position, sa, class)));
                Ok(range)
            });
            (*start, *end, *outcome) = finished(*start..*end, sealed);
        }
        queue.seal();
    }

    /// Decapsulates the pending packets of `batch`, each `start..end` holding an outer IP packet and perhaps the
    /// link's padding (RFC 4303 section 3.4, RFC 4302 section 3.4).
    ///
    /// Of two packets with one sequence number, here or in another engine that shares `states`, one at most is
    /// [`Outcome::Done`]. A packet that is dropped holds no plaintext that it did not come with.
    #[inline(never)]
    pub fn open(&mut self, batch: &mut [Packet<'_>], states: &impl SaStates) {
        for burst in batch.chunks_mut(BURST) {
            let mut under_way = ArrayVec::<_, BURST>::new();
            self.open_texts(burst, states, &mut under_way);
            for (position, opening) in &under_way {
                let packet = &mut burst[*position];
                let opened = opening.finish(packet, states);
                (packet.start, packet.end, packet.outcome) = finished(packet.start..packet.end, opened);
            }
        }
    }

    /// Verifies and decrypts; what is dropped at once has its outcome, the rest is in `under_way` by position.
    fn open_texts<'s>(
        &'s self,
        burst: &mut [Packet<'_>],
        states: &impl SaStates,
        under_way: &mut ArrayVec<(usize, Opening<'s>), BURST>,
    ) {
        let mut queue = Queue::default();
        for (position, packet) in burst.iter_mut().enumerate() {
            if packet.outcome != Outcome::Pending {
                continue;
            }
            let Packet { buf, start, end, sa, seq, outcome } = packet;
            let begun = self
                .sa(*sa)
                .ok_or(Drop::NoSa)
                .and_then(|at| at.open(buf, *start..*end, (*sa, states), seq, under_way.len(), &mut queue));
            match begun {
                Ok(opening) => under_way.push((position, opening)),
                Err(drop) => *outcome = Outcome::Dropped(drop),
            }
        }
        queue.open(|position| under_way[position].1.authentic = true);
    }

    fn sa(&self, index: u32) -> Option<&Sa> {
        self.sas.get(index as usize)?.as_deref()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let installed = self.sas.iter().flatten().count();
        f.debug_struct("Engine")
            .field("backend", &self.backend)
            .field("capacity", &self.sas.len())
            .field("installed", &installed)
            .finish()
    }
}

fn finished(before: Range<usize>, result: Result<Range<usize>, Drop>) -> (usize, usize, Outcome) {
    match result {
        Ok(range) => (range.start, range.end, Outcome::Done),
        Err(drop) => (before.start, before.end, Outcome::Dropped(drop)),
    }
}

struct Sa {
    generation: u32,
    spi: u32,
    esn: bool,
    replay_window: u32,
    template: Template,
    form: Form,
}

/// What stands between the outer header and the inner packet, and behind it.
#[expect(
    clippy::large_enum_variant,
    reason = "an SA has a box of its own; another would cost ESP a cache miss"
)]
enum Form {
    Esp(Transform),
    Ah(Ah),
}

impl Sa {
    fn new(params: &SaParams, backend: Backend) -> Result<Self, InvalidSa> {
        if params.spi < 256 {
            return Err(InvalidSa::Spi(params.spi));
        }
        if params.replay_window > REPLAY_WINDOW_MAX {
            return Err(InvalidSa::ReplayWindow(params.replay_window));
        }
        let form = match params.protocol {
            Protocol::Esp => Form::Esp(Transform::new(params, backend)?),
            Protocol::Ah => Form::Ah(Ah::new(params)?),
        };
        Ok(Self {
            generation: params.generation,
            spi: params.spi,
            esn: params.esn,
            replay_window: params.replay_window,
            template: Template::new(params.protocol, &params.outer)?,
            form,
        })
    }

    /// Seals but for what waits in `queue`. Gives where the outer packet lies, and the traffic class of its header if
    /// that is still to be written.
    fn seal<'a>(
        &'a self,
        buf: &'a mut [u8],
        given: Range<usize>,
        seq: u64,
        position: usize,
        queue: &mut Queue<'a>,
    ) -> Result<(Range<usize>, Option<u8>), Drop> {
        let inner = buf.get(given.clone()).ok_or(Drop::Malformed)?;
        let inner = Inner::parse(inner).ok_or(Drop::BadInner)?;
        if seq == 0 || !self.esn && seq > u64::from(u32::MAX) {
            return Err(Drop::SequenceExhausted);
        }
        let start = given.start.checked_sub(self.head_len()).ok_or(Drop::TooBig)?;
        let end = given.start + inner.len + self.tail_len(inner.len);
        let outer = buf.get_mut(start..end).ok_or(Drop::TooBig)?;
        if outer.len() > MAX_OUTER_LEN {
            return Err(Drop::TooBig);
        }

        let seq_high = self.seq_high(seq);
        match &self.form {
            Form::Esp(transform) => {
                let esp = &mut outer[self.template.len()..];
                esp[..4].copy_from_slice(&self.spi.to_be_bytes());
                esp[4..8].copy_from_slice(&(seq as u32).to_be_bytes());
                write_trailer(esp, transform, inner);
                if let Err(esp) = transform.queue(queue, position, esp, Some(seq), seq_high) {
                    transform.seal(esp, seq, seq_high);
                }
                Ok((start..end, Some(inner.traffic_class)))
            }
            Form::Ah(ah) => {
                self.template.write(outer, inner.traffic_class);
                ah.seal(outer, self.template.len(), inner.next_header, self.spi, seq, seq_high);
                Ok((start..end, None))
            }
        }
    }

    /// Begins to open: everything up to whether the packet is authentic, unless that waits in `queue`.
    fn open<'s: 'b, 'b>(
        &'s self,
        buf: &'b mut [u8],
        given: Range<usize>,
        (index, states): (u32, &impl SaStates),
        seq: &mut u64,
        position: usize,
        queue: &mut Queue<'b>,
    ) -> Result<Opening<'s>, Drop> {
        let first = given.start;
        let frame = buf.get_mut(given).ok_or(Drop::Malformed)?;
        let carried = outer::parse(frame, self.protocol()).ok_or(Drop::Malformed)?;
        let carrier = carried.payload.start;
        let frame = &mut frame[..carried.payload.end];
        let ipsec = &frame[carrier..];
        // AH has four bytes in front of what both have.
        let numbers = match &self.form {
            Form::Esp(_) => ipsec.first_chunk::<8>(),
            Form::Ah(_) => ipsec.get(4..).and_then(<[u8]>::first_chunk::<8>),
        };
        let &[a, b, c, d, e, f, g, h] = numbers.ok_or(Drop::Malformed)?;
        let (spi, low) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        if spi != self.spi {
            return Err(Drop::NoSa);
        }
        let text = match &self.form {
            Form::Esp(transform) => transform.text(ipsec.len()),
            Form::Ah(ah) => ah.payload(ipsec),
        };
        let text = text.ok_or(Drop::Malformed)?;
        let replay = states.replay(index).ok_or(Drop::NoSa)?;
        *seq = if self.esn { replay.extend(low, self.replay_window) } else { u64::from(low) };
        if !replay.check(*seq, self.replay_window) {
            return Err(Drop::Replay);
        }
        let seq_high = self.seq_high(*seq);
        let mut opening = Opening {
            sa: self,
            text: first + carrier + text.start..first + carrier + text.end,
            // AH's own; that of ESP is inside.
            next_header: ipsec[0],
            traffic_class: carried.traffic_class,
            authentic: false,
        };
        match &self.form {
            Form::Esp(transform) => {
                let ipsec = &mut frame[carrier..];
                if let Err(ipsec) = transform.queue(queue, position, ipsec, None, seq_high) {
                    opening.authentic = transform.open(ipsec, seq_high);
                }
            }
            Form::Ah(ah) => opening.authentic = ah.verify(frame, carrier, seq_high),
        }
        Ok(opening)
    }

    const fn protocol(&self) -> Protocol {
        match self.form {
            Form::Esp(_) => Protocol::Esp,
            Form::Ah(_) => Protocol::Ah,
        }
    }

    /// The half of the sequence number that is not sent, when it is extended.
    fn seq_high(&self, seq: u64) -> Option<u32> {
        self.esn.then_some((seq >> 32) as u32)
    }

    /// Bytes in front of the inner packet.
    fn head_len(&self) -> usize {
        self.template.len()
            + match &self.form {
                Form::Esp(transform) => HEADER_LEN + transform.iv_len(),
                Form::Ah(ah) => ah.len(),
            }
    }

    /// Bytes behind an inner packet of `inner_len` bytes.
    fn tail_len(&self, inner_len: usize) -> usize {
        match &self.form {
            Form::Esp(transform) => {
                let end = inner_len + TRAILER_LEN;
                end.next_multiple_of(transform.alignment()) - inner_len + transform.icv_len()
            }
            Form::Ah(_) => 0,
        }
    }
}

/// A packet that is being opened.
struct Opening<'a> {
    sa: &'a Sa,
    /// Where in the buffer its text lies.
    text: Range<usize>,
    next_header: u8,
    traffic_class: u8,
    authentic: bool,
}

impl Opening<'_> {
    /// Where the inner packet lies, if there is one to give out.
    fn finish(&self, packet: &mut Packet<'_>, states: &impl SaStates) -> Result<Range<usize>, Drop> {
        if !self.authentic {
            return Err(Drop::Authentication);
        }
        let replay = states.replay(packet.sa).ok_or(Drop::NoSa)?;
        let start = self.text.start;
        let text = &mut packet.buf[self.text.clone()];
        let stripped = match (replay.commit(packet.seq, self.sa.replay_window), &self.sa.form) {
            (false, _) => Err(Drop::Replay),
            (true, Form::Esp(_)) => strip_trailer(text)
                .and_then(|(payload, next_header)| strip(payload, next_header, self.traffic_class)),
            (true, Form::Ah(_)) => strip(text, self.next_header, self.traffic_class),
        };
        match stripped {
            Ok(len) => Ok(start..start + len),
            Err(drop) => {
                text.fill(0);
                Err(drop)
            }
        }
    }
}

/// Writes padding, pad length and next header behind the inner packet in `esp`.
fn write_trailer(esp: &mut [u8], transform: &Transform, inner: Inner) {
    let start = HEADER_LEN + transform.iv_len() + inner.len;
    let end = esp.len() - transform.icv_len();
    let trailer = &mut esp[start..end];
    let pad_len = trailer.len() - TRAILER_LEN;
    for (value, pad) in (1..=u8::MAX).zip(&mut trailer[..pad_len]) {
        *pad = value;
    }
    trailer[pad_len] = pad_len as u8;
    trailer[pad_len + 1] = inner.next_header;
}

/// Takes the trailer off a decrypted text: the payload, and its next header.
fn strip_trailer(text: &mut [u8]) -> Result<(&mut [u8], u8), Drop> {
    let [padded @ .., pad_len, next_header] = text else { return Err(Drop::BadPadding) };
    let inner_end = padded.len().checked_sub(usize::from(*pad_len)).ok_or(Drop::BadPadding)?;
    let (payload, padding) = padded.split_at_mut(inner_end);
    if (1..=u8::MAX).zip(padding.iter()).any(|(value, pad)| *pad != value) {
        return Err(Drop::BadPadding);
    }
    Ok((payload, *next_header))
}

/// Takes everything behind the inner packet off an authentic payload and merges the ECN fields; the length of the
/// inner packet.
fn strip(payload: &mut [u8], next_header: u8, outer_traffic_class: u8) -> Result<usize, Drop> {
    if next_header == inner::NO_NEXT_HEADER {
        return Err(Drop::Dummy);
    }
    let inner =
        Inner::parse(payload).filter(|inner| inner.next_header == next_header).ok_or(Drop::BadInner)?;
    if !inner.decapsulate_ecn(payload, outer_traffic_class) {
        return Err(Drop::BadInner);
    }
    Ok(inner.len)
}
