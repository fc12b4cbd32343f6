//! The way of a packet through ESP and AH, in both directions.

use crate::aead::Aead;
use crate::ah::Ah;
use crate::inner::{self, Inner};
use crate::kernels::{self, BURST, Backend, Fours, Queue, gcm};
use crate::outer::{self, Template};
use crate::packet::{Drop, Outcome, Packet};
use crate::replay::{self, SaStates};
use crate::sa::{InvalidSa, Protocol, REPLAY_WINDOW_MAX, SaParams};
use crate::transform::{HEADER_LEN, Transform};
use arrayvec::ArrayVec;
use std::fmt;
use std::ops::Range;

/// Pad length and next header.
const TRAILER_LEN: usize = 2;
/// Largest outer packet that both IP versions can express.
const MAX_OUTER_LEN: usize = 65_535;
/// The bytes of padding: 1, 2, 3 and so on, the first lowest.
const PADDING: u64 = LONG_PADDING as u64;
/// As [`PADDING`], for ciphers with longer blocks.
const LONG_PADDING: u128 = 0x100f_0e0d_0c0b_0a09_0807_0605_0403_0201;
/// Packets that are opened as they come before any of them is finished: few enough to stay in the nearest cache.
const CHUNK: usize = 32;
/// How many packets ahead an SA is fetched: with thousands of SAs they are far.
const AHEAD: usize = 8;
/// Lines of an SA that every packet needs: what is in front of the powers of its key.
const HOT_LINES: usize = 7;

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
            if !self.seal_streamed(burst, &mut headless) {
                self.seal_queued(burst, &mut headless);
            }
            for &(position, sa, class) in &headless {
                let packet = &mut burst[position];
                // The UDP checksum covers what only now is encrypted.
                sa.template.write(&mut packet.buf[packet.start..packet.end], class);
            }
        }
    }

    /// Seals what goes through a kernel as it comes, but for the outer headers that `headless` names, with SA and traffic
    /// class. Whether that is all there is.
    fn seal_streamed<'s>(
        &'s self,
        burst: &mut [Packet<'_>],
        headless: &mut ArrayVec<(usize, &'s Sa, u8), BURST>,
    ) -> bool {
        let sas: ArrayVec<u32, BURST> = burst.iter().map(|packet| packet.sa).collect();
        let (mut fours, mut all) = (Fours::default(), true);
        for (position, packet) in burst.iter_mut().enumerate() {
            self.prefetch(&sas, position);
            if packet.outcome != Outcome::Pending {
                continue;
            }
            let Packet { buf, start, end, sa, seq, outcome } = packet;
            let Some(sa) = self.sa(*sa) else {
                *outcome = Outcome::Dropped(Drop::NoSa);
                continue;
            };
            let Some((aead, key)) = sa.streamed() else {
                all = false;
                continue;
            };
            let (range, class, esp) = match sa.seal(buf, *start..*end, *seq) {
                Ok(sealed) => sealed,
                Err(drop) => {
                    *outcome = Outcome::Dropped(drop);
                    continue;
                }
            };
            (*start, *end, *outcome) = (range.start, range.end, Outcome::Done);
            fours.seal(aead.job_to_seal(key, position, esp, *seq, sa.seq_high(*seq)));
            headless.extend(class.map(|class| (position, sa, class)));
        }
        fours.seal_rest();
        all
    }

    /// The same of all others, which wait until there are as many as their kernels want.
    #[inline(never)]
    fn seal_queued<'s>(
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
                let (range, class, esp) = sa.seal(buf, *start..*end, *seq)?;
                let seq_high = sa.seq_high(*seq);
                if let Form::Esp(transform) = &sa.form
                    && let Err(esp) = transform.queue(&mut queue, position, esp, Some(*seq), seq_high)
                {
                    transform.seal(esp, *seq, seq_high);
                }
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
            let mut all = true;
            for chunk in burst.chunks_mut(CHUNK) {
                let mut under_way = ArrayVec::<_, CHUNK>::new();
                all &= self.open_streamed(chunk, states, &mut under_way);
                finish(chunk, &mut under_way, states);
            }
            if !all {
                self.open_queued(burst, states);
            }
        }
    }

    /// Verifies and decrypts what goes through a kernel as it comes; what is dropped at once has its outcome, the rest is
    /// in `under_way`. Whether that is all there is.
    fn open_streamed<'s>(
        &'s self,
        chunk: &mut [Packet<'_>],
        states: &impl SaStates,
        under_way: &mut ArrayVec<Opening<'s>, CHUNK>,
    ) -> bool {
        let sas: ArrayVec<u32, CHUNK> = chunk.iter().map(|packet| packet.sa).collect();
        let (mut fours, mut all) = (Fours::default(), true);
        for (position, packet) in chunk.iter_mut().enumerate() {
            self.prefetch(&sas, position);
            if packet.outcome != Outcome::Pending {
                continue;
            }
            let Packet { buf, start, end, sa: index, seq, outcome } = packet;
            let Some(sa) = self.sa(*index) else {
                *outcome = Outcome::Dropped(Drop::NoSa);
                continue;
            };
            let Some((aead, key)) = sa.streamed() else {
                all = false;
                continue;
            };
            match sa.open(buf, *start..*end, (*index, states), seq, position) {
                Ok((opening, esp)) => {
                    fours.open(aead.job(key, under_way.len(), esp, opening.seq_high()));
                    under_way.push(opening);
                }
                Err(drop) => *outcome = Outcome::Dropped(drop),
            }
        }
        let authentic = fours.open_rest();
        for (n, opening) in under_way.iter_mut().enumerate() {
            opening.authentic = authentic >> n & 1 == 1;
        }
        all
    }

    /// The same of all others, which wait until there are as many as their kernels want; to the end.
    #[inline(never)]
    fn open_queued(&self, burst: &mut [Packet<'_>], states: &impl SaStates) {
        let mut under_way = ArrayVec::<Opening<'_>, BURST>::new();
        let mut queue = Queue::default();
        for (position, packet) in burst.iter_mut().enumerate() {
            if packet.outcome != Outcome::Pending {
                continue;
            }
            let Packet { buf, start, end, sa, seq, outcome } = packet;
            let begun = self
                .sa(*sa)
                .ok_or(Drop::NoSa)
                .and_then(|at| at.open(buf, *start..*end, (*sa, states), seq, position));
            let (mut opening, ipsec) = match begun {
                Ok(begun) => begun,
                Err(drop) => {
                    *outcome = Outcome::Dropped(drop);
                    continue;
                }
            };
            let seq_high = opening.seq_high();
            match &opening.sa.form {
                Form::Esp(transform) => {
                    if let Err(esp) = transform.queue(&mut queue, under_way.len(), ipsec, None, seq_high) {
                        opening.authentic = transform.open(esp, seq_high);
                    }
                }
                Form::Ah(ah) => {
                    let carrier = opening.carrier;
                    opening.authentic = ah.verify(ipsec, carrier, seq_high);
                }
            }
            under_way.push(opening);
        }
        queue.open(|n| under_way[n].authentic = true);
        drop(queue);
        finish(burst, &mut under_way, states);
    }

    /// Fetches the SA of a packet that is some way behind the one at `position`.
    #[inline(always)]
    fn prefetch(&self, sas: &[u32], position: usize) {
        if let Some(ahead) = sas.get(position + AHEAD)
            && *ahead != sas[position]
            && let Some(sa) = self.sa(*ahead)
        {
            kernels::prefetch(sa, HOT_LINES);
        }
    }

    #[inline(always)]
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

#[inline(always)]
fn finished(before: Range<usize>, result: Result<Range<usize>, Drop>) -> (usize, usize, Outcome) {
    match result {
        Ok(range) => (range.start, range.end, Outcome::Done),
        Err(drop) => (before.start, before.end, Outcome::Dropped(drop)),
    }
}

/// The fields that every packet needs are in front.
#[repr(C, align(64))]
struct Sa {
    generation: u32,
    spi: u32,
    replay_window: u32,
    esn: bool,
    /// Bytes in front of the inner packet.
    head_len: u16,
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
        let template = Template::new(params.protocol, &params.outer)?;
        let head_len = template.len()
            + match &form {
                Form::Esp(transform) => HEADER_LEN + transform.iv_len(),
                Form::Ah(ah) => ah.len(),
            };
        Ok(Self {
            generation: params.generation,
            spi: params.spi,
            replay_window: params.replay_window,
            esn: params.esn,
            head_len: head_len as u16,
            template,
            form,
        })
    }

    /// What seals and opens as packets come, where that is AES-GCM in a kernel.
    #[inline(always)]
    fn streamed(&self) -> Option<(&Aead, &gcm::Key)> {
        match &self.form {
            Form::Esp(transform) => transform.streamed(),
            Form::Ah(_) => None,
        }
    }

    /// Seals AH, and of ESP everything but IV, encryption and ICV.
    #[inline(always)]
    fn seal<'a>(
        &'a self,
        buf: &'a mut [u8],
        given: Range<usize>,
        seq: u64,
    ) -> Result<Encapsulated<'a>, Drop> {
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

        let is_headless = self.template.covers_payload();
        if !is_headless {
            self.template.write(outer, inner.traffic_class);
        }
        match &self.form {
            Form::Esp(transform) => {
                let esp = &mut outer[self.template.len()..];
                if let Some(header) = esp.first_chunk_mut() {
                    *header = (u64::from(self.spi) << 32 | seq & 0xffff_ffff).to_be_bytes();
                }
                write_trailer(esp, transform, inner);
                Ok((start..end, is_headless.then_some(inner.traffic_class), esp))
            }
            Form::Ah(ah) => {
                ah.seal(outer, self.template.len(), inner.next_header, self.spi, seq, self.seq_high(seq));
                Ok((start..end, None, outer))
            }
        }
    }

    /// Begins to open: everything up to whether the packet is authentic. Gives what that is asked of: ESP from its SPI to
    /// the end of its ICV, AH with the IP header in front of it.
    #[inline(always)]
    fn open<'b>(
        &self,
        buf: &'b mut [u8],
        given: Range<usize>,
        (index, states): (u32, &impl SaStates),
        seq: &mut u64,
        position: usize,
    ) -> Result<(Opening<'_>, &'b mut [u8]), Drop> {
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
        let opening = Opening {
            sa: self,
            index,
            seq: *seq,
            position,
            carrier,
            text: first + carrier + text.start..first + carrier + text.end,
            // AH's own; that of ESP is inside.
            next_header: ipsec[0],
            traffic_class: carried.traffic_class,
            authentic: false,
        };
        let covered = if opening.sa.protocol() == Protocol::Ah { frame } else { &mut frame[carrier..] };
        Ok((opening, covered))
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
        usize::from(self.head_len)
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

/// Where an outer packet lies, the traffic class of its header if that is still to be written, and of ESP the packet from
/// its SPI to the room for its ICV.
type Encapsulated<'a> = (Range<usize>, Option<u8>, &'a mut [u8]);

/// A packet that is being opened.
struct Opening<'a> {
    sa: &'a Sa,
    index: u32,
    seq: u64,
    /// Which of the packets it is.
    position: usize,
    /// Bytes of the outer header.
    carrier: usize,
    /// Where in the buffer its text lies.
    text: Range<usize>,
    next_header: u8,
    traffic_class: u8,
    authentic: bool,
}

impl Opening<'_> {
    fn seq_high(&self) -> Option<u32> {
        self.sa.seq_high(self.seq)
    }

    /// Whether its sequence number is marked together with that of another.
    #[inline]
    fn is_marked_with(&self, other: &Self) -> bool {
        self.index == other.index
            && replay::block_of(self.seq).0 == replay::block_of(other.seq).0
            && u64::from(self.sa.replay_window) >= replay::BLOCK
    }

    /// Where the inner packet lies, if there is one to give out, in a packet that was accepted.
    #[inline(always)]
    fn strip(&self, buf: &mut [u8]) -> Result<Range<usize>, Drop> {
        let start = self.text.start;
        let text = &mut buf[self.text.clone()];
        let stripped = match &self.sa.form {
            Form::Esp(_) => strip_trailer(text)
                .and_then(|(payload, next_header)| strip(payload, next_header, self.traffic_class)),
            Form::Ah(_) => strip(text, self.next_header, self.traffic_class),
        };
        if stripped.is_err() {
            text.fill(0);
        }
        Ok(start..start + stripped?)
    }
}

/// Marks the sequence numbers of what is authentic, takes off what is behind the inner packets, and writes the outcomes.
/// Numbers of one block are marked at once: each time is an atomic operation on memory that workers share.
#[inline]
fn finish(packets: &mut [Packet<'_>], under_way: &mut [Opening<'_>], states: &impl SaStates) {
    for run in under_way.chunk_by(Opening::is_marked_with) {
        let (block, window) = (replay::block_of(run[0].seq).0, run[0].sa.replay_window);
        let authentic = run.iter().filter(|opening| opening.authentic);
        let bits = authentic.fold(0, |bits, opening| bits | replay::block_of(opening.seq).1);
        let replay = states.replay(run[0].index);
        let mut fresh = match &replay {
            Some(replay) if bits != 0 => replay.commit_block(block, bits, window),
            _ => 0,
        };
        for opening in run {
            let packet = &mut packets[opening.position];
            let bit = replay::block_of(opening.seq).1;
            let opened = if !opening.authentic {
                Err(Drop::Authentication)
            } else if replay.is_none() {
                Err(Drop::NoSa)
            } else if fresh & bit == 0 {
                packet.buf[opening.text.clone()].fill(0);
                Err(Drop::Replay)
            } else {
                // Whoever comes with the same number after this one comes too late.
                fresh &= !bit;
                opening.strip(packet.buf)
            };
            (packet.start, packet.end, packet.outcome) = finished(packet.start..packet.end, opened);
        }
    }
}

/// Writes padding, pad length and next header behind the inner packet in `esp`.
#[inline(always)]
fn write_trailer(esp: &mut [u8], transform: &Transform, inner: Inner) {
    let start = HEADER_LEN + transform.iv_len() + inner.len;
    let end = esp.len() - transform.icv_len();
    let pad_len = end - start - TRAILER_LEN;
    if pad_len + TRAILER_LEN <= size_of::<u64>()
        && let Some(trailer) = esp[start..].first_chunk_mut()
    {
        // What is too much of it lies where the ICV will be.
        let last = u64::from(inner.next_header) << 8 | pad_len as u64;
        let padding = PADDING & ((1 << (8 * pad_len)) - 1);
        *trailer = (padding | last << (8 * pad_len)).to_le_bytes();
        return;
    }
    if pad_len <= size_of::<u128>()
        && let Some(padding) = esp[start..].first_chunk_mut()
    {
        *padding = LONG_PADDING.to_le_bytes();
    } else {
        for (value, pad) in (1..=u8::MAX).zip(&mut esp[start..start + pad_len]) {
            *pad = value;
        }
    }
    let trailer = &mut esp[start..end];
    trailer[pad_len] = pad_len as u8;
    trailer[pad_len + 1] = inner.next_header;
}

/// Takes the trailer off a decrypted text: the payload, and its next header.
#[inline(always)]
fn strip_trailer(text: &mut [u8]) -> Result<(&mut [u8], u8), Drop> {
    let [padded @ .., pad_len, next_header] = text else { return Err(Drop::BadPadding) };
    let pad_len = usize::from(*pad_len);
    let inner_end = padded.len().checked_sub(pad_len).ok_or(Drop::BadPadding)?;
    let is_right = match padded.last_chunk().filter(|_| pad_len < size_of::<u64>()) {
        // The padding is the highest bytes of the word.
        Some(last) if pad_len > 0 => {
            u64::from_le_bytes(*last) >> (64 - 8 * pad_len) == PADDING & ((1 << (8 * pad_len)) - 1)
        }
        Some(_) => true,
        None if let Some(last) = padded.last_chunk().filter(|_| pad_len < size_of::<u128>())
            && pad_len > 0 =>
        {
            u128::from_le_bytes(*last) >> (128 - 8 * pad_len) == LONG_PADDING & ((1 << (8 * pad_len)) - 1)
        }
        None => (1..=u8::MAX).zip(&padded[inner_end..]).all(|(value, pad)| *pad == value),
    };
    if !is_right {
        return Err(Drop::BadPadding);
    }
    Ok((&mut padded[..inner_end], *next_header))
}

/// Takes everything behind the inner packet off an authentic payload and merges the ECN fields; the length of the
/// inner packet.
#[inline(always)]
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
