//! Protection of messages in the Encrypted payload: CBC with an HMAC (RFC 7296 section 3.14), AES-GCM (RFC 5282) and
//! ChaCha20-Poly1305 (RFC 7634).

use std::fmt;

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{aead, cbc, prf::icv};
use crate::{
    algorithm::{Encryption, Integrity},
    codec::{Damaged, Field, Reader, Writer},
    wire::{
        HEADER_LEN, Header, Payload, WireError,
        header::set_length,
        payload::{ENCRYPTED, FRAGMENT, decode_chain, encode_chain, first_type},
    },
};

/// Where the body of the Encrypted payload starts: it comes first, after the header.
const BODY: usize = HEADER_LEN + 4;
/// And that of the Encrypted Fragment payload, behind the fragment's number and the number of fragments.
const FRAGMENT_BODY: usize = BODY + 4;
/// Where a header names its first payload.
const NEXT_PAYLOAD: usize = 16;
const LENGTHS: &str = "a message key has its algorithm's length, what it seals whole blocks";

/// The keys that protect one direction of an IKE SA.
pub(crate) struct MessageKey {
    encryption: Encryption,
    /// SK_e: of an AEAD with the salt at its end.
    encryption_key: Zeroizing<Vec<u8>>,
    integrity: Option<(Integrity, Zeroizing<Vec<u8>>)>,
    /// Messages sealed so far: the IV of an AEAD, which must never come twice.
    sealed: u64,
}

/// Why a protected message was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The integrity check failed, or there was nothing to check: nothing in the message may be believed.
    Integrity,
    /// The message is the peer's, but malformed inside.
    Inner(WireError),
}

/// What a message says inside its Encrypted payload, or a part of it.
#[derive(Clone)]
pub(crate) struct Inner {
    /// The IKE header and the generic header of the payload that held it.
    head: Vec<u8>,
    octets: Zeroizing<Vec<u8>>,
}

impl Inner {
    /// The payloads.
    pub(crate) fn payloads(&self) -> Result<Vec<Payload>, WireError> {
        decode_chain(self.head[HEADER_LEN], &self.octets)
    }

    /// Appends what the next fragment held.
    pub(crate) fn append(&mut self, next: &Self) {
        self.octets.extend_from_slice(&next.octets);
    }

    pub(crate) fn len(&self) -> usize {
        self.octets.len()
    }

    /// What a message of ours with these payloads says.
    pub(crate) fn of(header: Header, payloads: &[Payload]) -> Self {
        let mut head = Vec::with_capacity(BODY);
        header.encode(ENCRYPTED, &mut head);
        head.extend([first_type(payloads), 0, 0, 0]);
        let mut octets = Zeroizing::default();
        encode_chain(payloads, &mut octets);
        Self { head, octets }
    }

    /// What IntAuth covers of an IKE_INTERMEDIATE message (RFC 9242 section 3.3.2): its headers, as if it were whole
    /// and its IV, padding and ICV took no room, and what it says.
    pub(crate) fn covered(&self) -> Zeroizing<Vec<u8>> {
        let mut covered = Zeroizing::new(Vec::with_capacity(BODY + self.len()));
        covered.extend_from_slice(&self.head[..HEADER_LEN - 4]);
        covered[NEXT_PAYLOAD] = ENCRYPTED;
        covered.extend(u32::try_from(BODY + self.len()).expect("a message fits in a datagram").to_be_bytes());
        covered.extend_from_slice(&self.head[HEADER_LEN..HEADER_LEN + 2]);
        covered.extend(u16::try_from(4 + self.len()).expect("a message fits in a datagram").to_be_bytes());
        covered.extend_from_slice(&self.octets);
        covered
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inner({} octets)", self.len())
    }
}

impl MessageKey {
    /// `encryption` is not NULL, which no IKE SA may have.
    pub(crate) fn new(
        encryption: Encryption,
        encryption_key: Zeroizing<Vec<u8>>,
        integrity: Option<(Integrity, Zeroizing<Vec<u8>>)>,
    ) -> Self {
        debug_assert_ne!(encryption, Encryption::Null);
        debug_assert_eq!(encryption_key.len(), encryption.key_len() + encryption.salt_len());
        debug_assert_eq!(encryption.is_aead(), integrity.is_none());
        Self { encryption, encryption_key, integrity, sealed: 0 }
    }

    #[cfg(test)]
    pub(crate) fn seal(&mut self, header: Header, payloads: &[Payload], rng: &mut dyn CryptoRng) -> Vec<u8> {
        self.seal_within(usize::MAX, header, payloads, rng).remove(0)
    }

    /// A message of one empty payload of this type, marked critical.
    #[cfg(test)]
    pub(crate) fn seal_critical(&mut self, header: Header, number: u8, rng: &mut dyn CryptoRng) -> Vec<u8> {
        self.protect(header, ENCRYPTED, number, &[], Zeroizing::new(vec![0, 0x80, 0, 4]), rng)
    }

    /// A protected message in pieces of at most `longest` octets: whole where it fits, else in fragments (RFC
    /// 7383 section 2.5), each of which is protected by itself. Each call uses new IVs, so a retransmission must send
    /// the same octets again.
    pub(crate) fn seal_within(
        &mut self,
        longest: usize,
        header: Header,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Vec<Vec<u8>> {
        let mut inner = Zeroizing::new(Vec::with_capacity(256));
        encode_chain(payloads, &mut inner);
        let first = first_type(payloads);
        if BODY + self.encryption.iv_len() + inner.len() + self.pad_len(inner.len()) + 1 + self.icv_len()
            <= longest
        {
            return vec![self.protect(header, ENCRYPTED, first, &[], inner, rng)];
        }
        let space = longest.saturating_sub(FRAGMENT_BODY + self.encryption.iv_len() + self.icv_len());
        let room = (space - space % self.encryption.block_len()).saturating_sub(1).max(1);
        let total =
            u16::try_from(inner.len().div_ceil(room)).expect("what this endpoint says fits in 64 KiB");
        (1..=total)
            .zip(inner.chunks(room))
            .map(|(number, part)| {
                let numbers = [number.to_be_bytes(), total.to_be_bytes()].concat();
                let first = if number == 1 { first } else { 0 };
                self.protect(header, FRAGMENT, first, &numbers, Zeroizing::new(part.to_vec()), rng)
            })
            .collect()
    }

    /// Puts `inner` into the one payload of a message; `before` goes in front of its IV.
    fn protect(
        &mut self,
        header: Header,
        kind: u8,
        first_inner: u8,
        before: &[u8],
        mut inner: Zeroizing<Vec<u8>>,
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        let pad = self.pad_len(inner.len());
        let padded = inner.len() + pad;
        inner.resize(padded, 0);
        inner.push(pad as u8);

        let payload_len = 4 + before.len() + self.encryption.iv_len() + inner.len() + self.icv_len();
        let mut out = Vec::with_capacity(HEADER_LEN + payload_len);
        header.encode(kind, &mut out);
        out.extend([first_inner, 0]);
        out.extend(u16::try_from(payload_len).expect("what this endpoint says fits in 64 KiB").to_be_bytes());
        out.extend(before);
        let start = out.len();
        out.resize(HEADER_LEN + payload_len, 0);
        set_length(&mut out);
        out.truncate(start);

        let (encryption, key) = (self.encryption, &self.encryption_key);
        match &self.integrity {
            None => {
                let iv = self.sealed.to_be_bytes();
                let icv = aead::seal(encryption, key, &iv, &out, &mut inner).expect(LENGTHS);
                self.sealed += 1;
                out.extend(iv);
                out.extend_from_slice(&inner);
                out.extend(icv);
            }
            Some((integrity, integrity_key)) => {
                let mut iv = [0; 16];
                let iv = &mut iv[..encryption.iv_len()];
                rng.fill_bytes(iv);
                cbc::encrypt(encryption, key, iv, &mut inner).expect(LENGTHS);
                out.extend_from_slice(iv);
                out.extend_from_slice(&inner);
                let icv = icv(*integrity, integrity_key, &out);
                out.extend_from_slice(&icv);
            }
        }
        out
    }

    /// Checks and decrypts a whole message whose first payload must be SK.
    pub(crate) fn open(&self, message: &[u8]) -> Result<Inner, OpenError> {
        self.unprotect(message, ENCRYPTED, BODY)
    }

    /// Checks and decrypts a fragment, whose first payload must be SKF.
    pub(crate) fn open_fragment(&self, message: &[u8]) -> Result<Inner, OpenError> {
        self.unprotect(message, FRAGMENT, FRAGMENT_BODY)
    }

    fn unprotect(&self, message: &[u8], kind: u8, start: usize) -> Result<Inner, OpenError> {
        let (head, _) = message.split_at_checked(start).ok_or(OpenError::Integrity)?;
        let payload_len = usize::from(u16::from_be_bytes([head[BODY - 2], head[BODY - 1]]));
        if head[NEXT_PAYLOAD] != kind || payload_len != message.len() - HEADER_LEN {
            return Err(OpenError::Integrity);
        }
        let mut octets = self.decrypt(message, start).ok_or(OpenError::Integrity)?;
        let pad = usize::from(*octets.last().ok_or(OpenError::Inner(WireError::Truncated))?);
        let length = octets.len().checked_sub(pad + 1).ok_or(OpenError::Inner(WireError::Length))?;
        octets.truncate(length);
        Ok(Inner { head: head[..BODY].to_vec(), octets })
    }

    /// Checks the ICV at the end of a message whose IV is at `start`, and decrypts what is between.
    fn decrypt(&self, message: &[u8], start: usize) -> Option<Zeroizing<Vec<u8>>> {
        let (covered, icv_there) = message.split_at_checked(message.len().checked_sub(self.icv_len())?)?;
        let (head, body) = covered.split_at_checked(start)?;
        let (iv, ciphertext) = body.split_at_checked(self.encryption.iv_len())?;
        let mut inner = Zeroizing::new(ciphertext.to_vec());
        match &self.integrity {
            None => {
                let (iv, icv) = (iv.try_into().ok()?, icv_there.try_into().ok()?);
                aead::open(self.encryption, &self.encryption_key, iv, head, &mut inner, icv).ok()?;
            }
            Some((integrity, key)) => {
                if !bool::from(icv(*integrity, key, covered).ct_eq(icv_there)) {
                    return None;
                }
                cbc::decrypt(self.encryption, &self.encryption_key, iv, &mut inner).ok()?;
            }
        }
        Some(inner)
    }

    /// Octets of padding, without the one that says how many.
    fn pad_len(&self, plain: usize) -> usize {
        (plain + 1).next_multiple_of(self.encryption.block_len()) - plain - 1
    }

    fn icv_len(&self) -> usize {
        self.integrity.as_ref().map_or(aead::ICV_LEN, |(integrity, _)| integrity.icv_len())
    }
}

/// How far the IV of an AEAD goes on when a key is read again: beyond whatever may have been sealed since it was written.
const SKIPPED: u64 = 1 << 32;

impl Field for MessageKey {
    fn write(&self, to: &mut Writer) {
        let Self { encryption, encryption_key, integrity, sealed } = self;
        encryption.write(to);
        encryption_key.write(to);
        integrity.write(to);
        sealed.write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let encryption = Encryption::read(from)?;
        let encryption_key = <Zeroizing<Vec<u8>>>::read(from)?;
        let integrity = <Option<(Integrity, Zeroizing<Vec<u8>>)>>::read(from)?;
        let sealed = u64::read(from)?.checked_add(SKIPPED).ok_or(Damaged)?;
        let fits = encryption != Encryption::Null
            && encryption_key.len() == encryption.key_len() + encryption.salt_len()
            && encryption.is_aead() == integrity.is_none()
            && integrity.as_ref().is_none_or(|(integrity, key)| key.len() == integrity.key_len());
        if fits { Ok(Self { encryption, encryption_key, integrity, sealed }) } else { Err(Damaged) }
    }
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageKey({}, ..)", self.encryption)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::wire::{ExchangeType, Notify, NotifyType};

    fn keys((encryption, integrity): (Encryption, Option<Integrity>)) -> MessageKey {
        let key = Zeroizing::new(vec![7; encryption.key_len() + encryption.salt_len()]);
        let integrity = integrity.map(|i| (i, Zeroizing::new(vec![9; i.key_len()])));
        MessageKey::new(encryption, key, integrity)
    }

    /// Every cipher, and every integrity algorithm with one of those that need it.
    fn suites() -> Vec<(Encryption, Option<Integrity>)> {
        let ciphers = Encryption::ALL.into_iter().filter(|e| *e != Encryption::Null);
        let ciphers = ciphers.map(|e| (e, (!e.is_aead()).then_some(Integrity::Sha256)));
        ciphers.chain(Integrity::ALL.map(|i| (Encryption::Des, Some(i)))).collect()
    }

    const HEADER: Header = Header {
        initiator_spi: 1,
        responder_spi: 2,
        exchange: ExchangeType::Informational,
        from_initiator: true,
        response: false,
        message_id: 5,
    };

    #[test]
    fn a_sealed_message_opens_and_no_octet_of_it_may_change() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for suite in suites() {
            for length in 0..40 {
                let payloads = [Payload::Auth { method: 2, data: vec![1; length] }];
                let message = keys(suite).seal(HEADER, &payloads, &mut rng);
                assert_eq!(keys(suite).open(&message).unwrap().payloads().unwrap(), payloads);
                for at in 0..message.len() {
                    let mut changed = message.clone();
                    changed[at] ^= 0x10;
                    assert!(keys(suite).open(&changed).is_err(), "octet {at}");
                    assert!(keys(suite).open(&message[..at]).is_err(), "cut at {at}");
                }
            }
        }
    }

    #[test]
    fn fragments_are_as_long_as_they_may_be_and_hold_the_whole() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let payloads = [Payload::Auth { method: 2, data: (0..3000).map(|n| n as u8).collect() }];
        for suite in suites() {
            for longest in 600..640 {
                let fragments = keys(suite).seal_within(longest, HEADER, &payloads, &mut rng);
                let (last, others) = fragments.split_last().unwrap();
                let least = longest - suite.0.block_len();
                assert!(others.iter().all(|f| f.len() > least && f.len() <= longest));
                assert!(last.len() <= longest);
                let opened = fragments.iter().map(|f| keys(suite).open_fragment(f).unwrap());
                let whole = opened.reduce(|mut whole, part| {
                    whole.append(&part);
                    whole
                });
                assert_eq!(whole.unwrap().payloads().unwrap(), payloads);
                assert_eq!(keys(suite).open(&fragments[0]).unwrap_err(), OpenError::Integrity);
            }
            let whole = keys(suite).seal(HEADER, &payloads, &mut rng).len();
            let one = |longest| {
                let pieces =
                    keys(suite).seal_within(longest, HEADER, &payloads, &mut ChaCha20Rng::seed_from_u64(3));
                pieces.len() == 1 && keys(suite).open(&pieces[0]).is_ok()
            };
            assert!(one(whole) && !one(whole - 1));
        }
    }

    #[test]
    fn what_int_auth_covers_depends_neither_on_the_cipher_nor_on_fragments() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let payloads = [Payload::KeyExchange { group: 36, public: vec![7; 1184] }];
        let expected = Inner::of(HEADER, &payloads).covered();
        assert_eq!(expected[24..32], [0, 0, 0x04, 0xc8, 34, 0, 0x04, 0xac]);
        assert_eq!(expected.len(), 0x4c8);
        for suite in suites() {
            let whole = keys(suite).seal(HEADER, &payloads, &mut rng);
            assert_eq!(keys(suite).open(&whole).unwrap().covered(), expected);
            let parts = keys(suite).seal_within(500, HEADER, &payloads, &mut rng);
            let mut opened = parts.iter().map(|part| keys(suite).open_fragment(part).unwrap());
            let mut whole = opened.next().unwrap();
            opened.for_each(|part| whole.append(&part));
            assert_eq!(whole.covered(), expected);
        }
    }

    #[test]
    fn no_octet_of_a_fragment_may_change() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let payloads = [Payload::Auth { method: 2, data: vec![1; 100] }];
        for suite in suites() {
            let fragments = keys(suite).seal_within(130, HEADER, &payloads, &mut rng);
            for at in 0..fragments[0].len() {
                let mut changed = fragments[0].clone();
                changed[at] ^= 0x10;
                assert!(keys(suite).open_fragment(&changed).is_err(), "octet {at}");
                assert!(keys(suite).open_fragment(&fragments[0][..at]).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn chacha20_poly1305_of_rfc_7634_appendix_b() {
        let message = "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029\
                       1011121314151617\
                       610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2";
        let message: Vec<u8> = (0..message.len() / 2)
            .map(|at| u8::from_str_radix(&message[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let payloads = [Payload::Notify(Notify::new(NotifyType(16385), vec![0, 0, 0, 10]))];
        let header = Header {
            initiator_spi: 0xc0c1_c2c3_c4c5_c6c7,
            responder_spi: 0xd0d1_d2d3_d4d5_d6d7,
            exchange: ExchangeType::Informational,
            from_initiator: false,
            response: false,
            message_id: 9,
        };
        let key = Zeroizing::new((0x80..=0xa3).collect());
        let mut key = MessageKey::new(Encryption::ChaCha20Poly1305, key, None);
        key.sealed = 0x1011_1213_1415_1617;
        assert_eq!(key.seal(header, &payloads, &mut ChaCha20Rng::seed_from_u64(3)), message);
        assert_eq!(key.open(&message).unwrap().payloads().unwrap(), payloads);
    }

    #[test]
    fn no_two_messages_are_alike() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for suite in suites() {
            let mut key = keys(suite);
            assert_ne!(key.seal(HEADER, &[], &mut rng), key.seal(HEADER, &[], &mut rng));
        }
    }
}
