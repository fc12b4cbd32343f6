//! The way of a packet through ESP, in both directions.

use crate::cbc::{self, Cbc};
use crate::gcm::{self, Gcm};
use crate::hmac::Hmac;
use crate::inner::{self, Inner};
use crate::outer::{self, Template};
use crate::packet::{Drop, Outcome, Packet};
use crate::replay::SaStates;
use crate::sa::{InvalidSa, REPLAY_WINDOW_MAX, SaParams};
use std::fmt;
use std::ops::Range;

/// SPI and sequence number.
const HEADER_LEN: usize = 8;
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
}

impl Engine {
    /// An engine for the SA indices `0..capacity`, none installed.
    pub fn new(capacity: usize) -> Self {
        Self { sas: (0..capacity).map(|_| None).collect() }
    }

    /// Expands an SA at `index`, in place of the one there if any. The only call that allocates.
    ///
    /// # Errors
    /// [`InvalidSa`] when the parameters cannot make an SA; what was installed stays.
    pub fn install(&mut self, index: u32, params: &SaParams) -> Result<(), InvalidSa> {
        let capacity = self.sas.len();
        let slot = self.sas.get_mut(index as usize).ok_or(InvalidSa::Index { index, capacity })?;
        *slot = Some(Box::new(Sa::new(params)?));
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
        let text = mtu.min(MAX_OUTER_LEN).saturating_sub(sa.head_len() + sa.transform.icv_len());
        (text - text % sa.transform.alignment()).saturating_sub(TRAILER_LEN)
    }

    /// Encapsulates the pending packets of `batch`, each `start..end` being an inner IP packet and `seq` a sequence
    /// number never used before under the key (RFC 4303 section 3.3).
    ///
    /// Bytes after the inner packet's own length are not sent. A packet that is dropped stays as it was.
    pub fn seal(&mut self, batch: &mut [Packet<'_>]) {
        for packet in batch.iter_mut().filter(|packet| packet.outcome == Outcome::Pending) {
            let sealed = self.sa(packet.sa).ok_or(Drop::NoSa).and_then(|sa| sa.seal(packet));
            finish(packet, sealed);
        }
    }

    /// Decapsulates the pending packets of `batch`, each `start..end` holding an outer IP packet and perhaps the
    /// link's padding (RFC 4303 section 3.4).
    ///
    /// Of two packets with one sequence number, here or in another engine that shares `states`, one at most is
    /// [`Outcome::Done`]. A packet that is dropped holds no plaintext.
    pub fn open(&mut self, batch: &mut [Packet<'_>], states: &impl SaStates) {
        for packet in batch.iter_mut().filter(|packet| packet.outcome == Outcome::Pending) {
            let opened = self.sa(packet.sa).ok_or(Drop::NoSa).and_then(|sa| sa.open(packet, states));
            finish(packet, opened);
        }
    }

    fn sa(&self, index: u32) -> Option<&Sa> {
        self.sas.get(index as usize)?.as_deref()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let installed = self.sas.iter().flatten().count();
        f.debug_struct("Engine").field("capacity", &self.sas.len()).field("installed", &installed).finish()
    }
}

fn finish(packet: &mut Packet<'_>, result: Result<Range<usize>, Drop>) {
    packet.outcome = match result {
        Ok(range) => {
            (packet.start, packet.end) = (range.start, range.end);
            Outcome::Done
        }
        Err(drop) => Outcome::Dropped(drop),
    };
}

struct Sa {
    generation: u32,
    spi: u32,
    esn: bool,
    replay_window: u32,
    template: Template,
    transform: Transform,
}

impl Sa {
    fn new(params: &SaParams) -> Result<Self, InvalidSa> {
        if params.spi < 256 {
            return Err(InvalidSa::Spi(params.spi));
        }
        if params.replay_window > REPLAY_WINDOW_MAX {
            return Err(InvalidSa::ReplayWindow(params.replay_window));
        }
        Ok(Self {
            generation: params.generation,
            spi: params.spi,
            esn: params.esn,
            replay_window: params.replay_window,
            template: Template::new(&params.outer)?,
            transform: Transform::new(params)?,
        })
    }

    fn seal(&self, packet: &mut Packet<'_>) -> Result<Range<usize>, Drop> {
        let given = packet.buf.get(packet.start..packet.end).ok_or(Drop::Malformed)?;
        let inner = Inner::parse(given).ok_or(Drop::BadInner)?;
        if packet.seq == 0 || !self.esn && packet.seq > u64::from(u32::MAX) {
            return Err(Drop::SequenceExhausted);
        }
        let start = packet.start.checked_sub(self.head_len()).ok_or(Drop::TooBig)?;
        let end = packet.start + inner.len + self.tail_len(inner.len);
        let outer = packet.buf.get_mut(start..end).ok_or(Drop::TooBig)?;
        if outer.len() > MAX_OUTER_LEN {
            return Err(Drop::TooBig);
        }

        let esp = &mut outer[self.template.len()..];
        esp[..4].copy_from_slice(&self.spi.to_be_bytes());
        esp[4..8].copy_from_slice(&(packet.seq as u32).to_be_bytes());
        let text = HEADER_LEN + self.transform.iv_len()..esp.len() - self.transform.icv_len();
        let trailer = &mut esp[text.start + inner.len..text.end];
        let pad_len = trailer.len() - TRAILER_LEN;
        for (value, pad) in (1..=u8::MAX).zip(&mut trailer[..pad_len]) {
            *pad = value;
        }
        trailer[pad_len] = pad_len as u8;
        trailer[pad_len + 1] = inner.next_header;
        self.transform.seal(esp, packet.seq, self.seq_high(packet.seq));
        self.template.write(outer, inner.traffic_class);
        Ok(start..end)
    }

    fn open(&self, packet: &mut Packet<'_>, states: &impl SaStates) -> Result<Range<usize>, Drop> {
        let frame = packet.buf.get_mut(packet.start..packet.end).ok_or(Drop::Malformed)?;
        let carried = outer::parse(frame).ok_or(Drop::Malformed)?;
        let esp = &mut frame[carried.esp.clone()];
        let (spi, low) = match esp.first_chunk::<HEADER_LEN>() {
            Some([a, b, c, d, e, f, g, h]) => {
                (u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h]))
            }
            None => return Err(Drop::Malformed),
        };
        if spi != self.spi {
            return Err(Drop::NoSa);
        }
        let text = self.transform.text(esp.len()).ok_or(Drop::Malformed)?;
        let replay = states.replay(packet.sa).ok_or(Drop::NoSa)?;
        packet.seq = if self.esn { replay.extend(low, self.replay_window) } else { u64::from(low) };
        if !replay.check(packet.seq, self.replay_window) {
            return Err(Drop::Replay);
        }
        if !self.transform.open(esp, self.seq_high(packet.seq)) {
            return Err(Drop::Authentication);
        }

        let text_start = packet.start + carried.esp.start + text.start;
        let text = &mut esp[text];
        let stripped = match replay.commit(packet.seq, self.replay_window) {
            true => strip(text, carried.traffic_class),
            false => Err(Drop::Replay),
        };
        match stripped {
            Ok(len) => Ok(text_start..text_start + len),
            Err(drop) => {
                text.fill(0);
                Err(drop)
            }
        }
    }

    /// The half of the sequence number that is not sent, when it is extended.
    fn seq_high(&self, seq: u64) -> Option<u32> {
        self.esn.then_some((seq >> 32) as u32)
    }

    /// Bytes in front of the inner packet.
    fn head_len(&self) -> usize {
        self.template.len() + HEADER_LEN + self.transform.iv_len()
    }

    /// Bytes behind an inner packet of `inner_len` bytes.
    fn tail_len(&self, inner_len: usize) -> usize {
        let end = inner_len + TRAILER_LEN;
        end.next_multiple_of(self.transform.alignment()) - inner_len + self.transform.icv_len()
    }
}

/// Takes the trailer and everything behind the inner packet off a decrypted payload and merges the ECN fields; the
/// length of the inner packet.
fn strip(text: &mut [u8], outer_traffic_class: u8) -> Result<usize, Drop> {
    let [padded @ .., pad_len, next_header] = text else { return Err(Drop::BadPadding) };
    let inner_end = padded.len().checked_sub(usize::from(*pad_len)).ok_or(Drop::BadPadding)?;
    let (payload, padding) = padded.split_at_mut(inner_end);
    if (1..=u8::MAX).zip(padding.iter()).any(|(value, pad)| *pad != value) {
        return Err(Drop::BadPadding);
    }
    if *next_header == inner::NO_NEXT_HEADER {
        return Err(Drop::Dummy);
    }
    let inner =
        Inner::parse(payload).filter(|inner| inner.next_header == *next_header).ok_or(Drop::BadInner)?;
    if !inner.decapsulate_ecn(payload, outer_traffic_class) {
        return Err(Drop::BadInner);
    }
    Ok(inner.len)
}

/// The algorithms of an SA with their keys.
enum Transform {
    Gcm(Gcm),
    Cbc(Cbc, Hmac),
}

impl Transform {
    fn new(params: &SaParams) -> Result<Self, InvalidSa> {
        let (cipher, auth) = (params.cipher, params.auth);
        let key = &params.key[..cipher.key_len()];
        let hmac = Hmac::new(auth, &params.auth_key[..auth.key_len()]);
        match (Gcm::new(cipher, key, params.salt), Cbc::new(cipher, key), hmac) {
            (Some(gcm), None, None) => Ok(Transform::Gcm(gcm)),
            (None, Some(cbc), Some(hmac)) => Ok(Transform::Cbc(cbc, hmac)),
            _ => Err(InvalidSa::Combination { cipher, auth }),
        }
    }

    const fn iv_len(&self) -> usize {
        match self {
            Transform::Gcm(_) => gcm::IV_LEN,
            Transform::Cbc(..) => cbc::BLOCK_LEN,
        }
    }

    const fn icv_len(&self) -> usize {
        match self {
            Transform::Gcm(_) => gcm::ICV_LEN,
            Transform::Cbc(_, hmac) => hmac.icv_len(),
        }
    }

    /// What the length of the encrypted text is a multiple of.
    const fn alignment(&self) -> usize {
        match self {
            Transform::Gcm(_) => 4,
            Transform::Cbc(..) => cbc::BLOCK_LEN,
        }
    }

    /// Where the encrypted text lies in an ESP packet of `esp_len` bytes; `None` when no text has that length.
    fn text(&self, esp_len: usize) -> Option<Range<usize>> {
        let start = HEADER_LEN + self.iv_len();
        let end = esp_len.checked_sub(self.icv_len())?;
        let len = end.checked_sub(start)?;
        (len >= self.alignment() && len % self.alignment() == 0).then_some(start..end)
    }

    /// Writes the IV and the ICV of `esp`, complete from the SPI to the room for the ICV, and encrypts the text.
    fn seal(&self, esp: &mut [u8], seq: u64, seq_high: Option<u32>) {
        match self {
            Transform::Gcm(gcm) => gcm.seal(esp, seq, seq_high),
            Transform::Cbc(cbc, hmac) => {
                let icv = esp.len() - hmac.icv_len();
                cbc.encrypt(&mut esp[HEADER_LEN..icv], seq);
                hmac.sign(esp, seq_high);
            }
        }
    }

    /// Verifies `esp`, whose length [`Transform::text`] has accepted, and then decrypts its text; when false, `esp` is
    /// as it was.
    #[must_use]
    fn open(&self, esp: &mut [u8], seq_high: Option<u32>) -> bool {
        match self {
            Transform::Gcm(gcm) => gcm.open(esp, seq_high),
            Transform::Cbc(cbc, hmac) => {
                if !hmac.verify(esp, seq_high) {
                    return false;
                }
                let icv = esp.len() - hmac.icv_len();
                cbc.decrypt(&mut esp[HEADER_LEN..icv]);
                true
            }
        }
    }
}
