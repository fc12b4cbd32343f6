//! Protection of messages in the Encrypted payload: AES-CBC with an HMAC (RFC 7296 section 3.14) and AES-GCM
//! (RFC 5282).

use std::fmt;

use aes::{
    Aes128, Aes192, Aes256,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt},
};
use aes_gcm::{
    AesGcm,
    aead::{AeadInOut, array::typenum::U12},
};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::prf::icv;
use crate::{
    algorithm::{Encryption, Integrity},
    wire::{
        HEADER_LEN, Header, Payload, WireError,
        header::set_length,
        payload::{ENCRYPTED, FRAGMENT, decode_chain, encode_chain, first_type},
    },
};

const BLOCK: usize = 16;
const GCM_IV: usize = 8;
const GCM_ICV: usize = 16;
/// Where the body of the Encrypted payload starts: it comes first, after the header.
const BODY: usize = HEADER_LEN + 4;
/// And that of the Encrypted Fragment payload, behind the fragment's number and the number of fragments.
const FRAGMENT_BODY: usize = BODY + 4;
/// Where a header names its first payload.
const NEXT_PAYLOAD: usize = 16;

/// The keys that protect one direction of an IKE SA.
pub(crate) struct MessageKey {
    encryption: Encryption,
    /// SK_e: for GCM with the salt at its end.
    encryption_key: Zeroizing<Vec<u8>>,
    integrity: Option<(Integrity, Zeroizing<Vec<u8>>)>,
    /// Messages sealed so far: the IV of GCM, which must never come twice.
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
    pub(crate) fn new(
        encryption: Encryption,
        encryption_key: Zeroizing<Vec<u8>>,
        integrity: Option<(Integrity, Zeroizing<Vec<u8>>)>,
    ) -> Self {
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
        if BODY + self.iv_len() + inner.len() + self.pad_len(inner.len()) + 1 + self.icv_len() <= longest {
            return vec![self.protect(header, ENCRYPTED, first, &[], inner, rng)];
        }
        let space = longest.saturating_sub(FRAGMENT_BODY + self.iv_len() + self.icv_len());
        let room = (space - space % self.block_len()).saturating_sub(1).max(1);
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

        let payload_len = 4 + before.len() + self.iv_len() + inner.len() + self.icv_len();
        let mut out = Vec::with_capacity(HEADER_LEN + payload_len);
        header.encode(kind, &mut out);
        out.extend([first_inner, 0]);
        out.extend(u16::try_from(payload_len).expect("what this endpoint says fits in 64 KiB").to_be_bytes());
        out.extend(before);
        let start = out.len();
        out.resize(HEADER_LEN + payload_len, 0);
        set_length(&mut out);
        out.truncate(start);

        if self.encryption.is_aead() {
            let iv = self.sealed.to_be_bytes();
            self.sealed += 1;
            let tag = self.gcm_seal(&iv, &out, &mut inner);
            out.extend(iv);
            out.extend_from_slice(&inner);
            out.extend(tag);
        } else {
            let mut iv = [0; BLOCK];
            rng.fill_bytes(&mut iv);
            self.cbc(&iv, &mut inner, true);
            out.extend(iv);
            out.extend_from_slice(&inner);
        }
        if let Some((integrity, key)) = &self.integrity {
            let icv = icv(*integrity, key, &out);
            out.extend_from_slice(&icv);
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
        let (head, body) = message.split_at_checked(start).ok_or(OpenError::Integrity)?;
        let payload_len = usize::from(u16::from_be_bytes([head[BODY - 2], head[BODY - 1]]));
        if head[NEXT_PAYLOAD] != kind || payload_len != message.len() - HEADER_LEN {
            return Err(OpenError::Integrity);
        }
        let inner =
            if self.encryption.is_aead() { self.gcm_open(head, body) } else { self.cbc_open(message, body) };
        let mut octets = inner.ok_or(OpenError::Integrity)?;
        let pad = usize::from(*octets.last().ok_or(OpenError::Inner(WireError::Truncated))?);
        let length = octets.len().checked_sub(pad + 1).ok_or(OpenError::Inner(WireError::Length))?;
        octets.truncate(length);
        Ok(Inner { head: head[..BODY].to_vec(), octets })
    }

    fn iv_len(&self) -> usize {
        if self.encryption.is_aead() { GCM_IV } else { BLOCK }
    }

    /// What the padded octets, their length included, are a multiple of.
    fn block_len(&self) -> usize {
        if self.encryption.is_aead() { 1 } else { BLOCK }
    }

    fn pad_len(&self, plain: usize) -> usize {
        self.block_len() - 1 - plain % self.block_len()
    }

    fn icv_len(&self) -> usize {
        self.integrity.as_ref().map_or(GCM_ICV, |(integrity, _)| integrity.icv_len())
    }

    fn cbc_open(&self, message: &[u8], body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (integrity, key) = self.integrity.as_ref()?;
        let (covered, tag) = message.split_at_checked(message.len().checked_sub(integrity.icv_len())?)?;
        if !bool::from(icv(*integrity, key, covered).ct_eq(tag)) {
            return None;
        }
        let (iv, ciphertext) = body.split_first_chunk::<BLOCK>()?;
        let ciphertext = &ciphertext[..ciphertext.len().checked_sub(integrity.icv_len())?];
        if ciphertext.len() % BLOCK != 0 {
            return None;
        }
        let mut inner = Zeroizing::new(ciphertext.to_vec());
        self.cbc(iv, &mut inner, false);
        Some(inner)
    }

    fn cbc(&self, iv: &[u8; BLOCK], data: &mut [u8], encrypt: bool) {
        match self.encryption.key_len() {
            16 => cbc_in_place::<Aes128>(&self.encryption_key, iv, data, encrypt),
            24 => cbc_in_place::<Aes192>(&self.encryption_key, iv, data, encrypt),
            _ => cbc_in_place::<Aes256>(&self.encryption_key, iv, data, encrypt),
        }
    }

    fn gcm_nonce(&self, iv: &[u8; GCM_IV]) -> (&[u8], [u8; 12]) {
        let (key, salt) = self.encryption_key.split_at(self.encryption.key_len());
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(salt);
        nonce[4..].copy_from_slice(iv);
        (key, nonce)
    }

    fn gcm_seal(&self, iv: &[u8; GCM_IV], aad: &[u8], data: &mut [u8]) -> [u8; GCM_ICV] {
        let (key, nonce) = self.gcm_nonce(iv);
        match key.len() {
            16 => gcm_encrypt::<AesGcm<Aes128, U12>>(key, &nonce, aad, data),
            24 => gcm_encrypt::<AesGcm<Aes192, U12>>(key, &nonce, aad, data),
            _ => gcm_encrypt::<AesGcm<Aes256, U12>>(key, &nonce, aad, data),
        }
    }

    fn gcm_open(&self, aad: &[u8], body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (iv, rest) = body.split_first_chunk::<GCM_IV>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<GCM_ICV>()?;
        let (key, nonce) = self.gcm_nonce(iv);
        let mut inner = Zeroizing::new(ciphertext.to_vec());
        let opened = match key.len() {
            16 => gcm_decrypt::<AesGcm<Aes128, U12>>(key, &nonce, aad, &mut inner, tag),
            24 => gcm_decrypt::<AesGcm<Aes192, U12>>(key, &nonce, aad, &mut inner, tag),
            _ => gcm_decrypt::<AesGcm<Aes256, U12>>(key, &nonce, aad, &mut inner, tag),
        };
        opened.then_some(inner)
    }
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageKey({}, ..)", self.encryption)
    }
}

fn cbc_in_place<C>(key: &[u8], iv: &[u8; BLOCK], data: &mut [u8], encrypt: bool)
where
    C: KeyInit + BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16> + BlockCipherDecrypt,
{
    const LENGTHS: &str = "the key has its algorithm's length, the IV a block's";
    let (blocks, rest) = aes::cipher::Array::slice_as_chunks_mut(data);
    debug_assert!(rest.is_empty());
    if encrypt {
        cbc::Encryptor::<C>::new_from_slices(key, iv).expect(LENGTHS).encrypt_blocks(blocks);
    } else {
        cbc::Decryptor::<C>::new_from_slices(key, iv).expect(LENGTHS).decrypt_blocks(blocks);
    }
}

fn gcm_encrypt<A>(key: &[u8], nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> [u8; GCM_ICV]
where
    A: KeyInit + AeadInOut<NonceSize = U12, TagSize = aes::cipher::consts::U16>,
{
    let cipher = A::new_from_slice(key).expect("the key has its algorithm's length");
    cipher
        .encrypt_inout_detached(nonce.into(), aad, data.into())
        .expect("a datagram is far below the limit of GCM")
        .into()
}

fn gcm_decrypt<A>(key: &[u8], nonce: &[u8; 12], aad: &[u8], data: &mut [u8], tag: &[u8; GCM_ICV]) -> bool
where
    A: KeyInit + AeadInOut<NonceSize = U12, TagSize = aes::cipher::consts::U16>,
{
    let cipher = A::new_from_slice(key).expect("the key has its algorithm's length");
    cipher.decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into()).is_ok()
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::wire::ExchangeType;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn keys(encryption: Encryption) -> MessageKey {
        let key = Zeroizing::new(vec![7; encryption.key_len() + encryption.salt_len()]);
        let integrity = (!encryption.is_aead()).then(|| (Integrity::Sha256, Zeroizing::new(vec![9; 32])));
        MessageKey::new(encryption, key, integrity)
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
    fn aes_cbc_of_rfc_3602() {
        let cases = [
            (
                "06a9214036b8a15b512e03d534120006",
                "3dafba429d9eb430b422da802c9fac41",
                b"Single block msg".to_vec(),
                "e353779c1079aeb82708942dbe77181a",
            ),
            (
                "c286696d887c9aa0611bbb3e2025a45a",
                "562e17996d093d28ddb3ba695a2e6f58",
                (0..32).collect(),
                "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
            ),
        ];
        for (key, iv, plain, sealed) in cases {
            let integrity = Some((Integrity::Sha1, Zeroizing::default()));
            let key = MessageKey::new(Encryption::Aes128, Zeroizing::new(hex(key)), integrity);
            let iv = hex(iv).try_into().unwrap();
            let mut data = plain.clone();
            key.cbc(&iv, &mut data, true);
            assert_eq!(data, hex(sealed));
            key.cbc(&iv, &mut data, false);
            assert_eq!(data, plain);
        }
    }

    /// Test case 4 of McGrew and Viega, "The Galois/Counter Mode of Operation".
    #[test]
    fn aes_gcm_test_case_4() {
        let key = [hex("feffe9928665731c6d6a8f9467308308"), hex("cafebabe")].concat();
        let key = MessageKey::new(Encryption::Aes128Gcm16, Zeroizing::new(key), None);
        let mut data = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                            1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
        let iv = hex("facedbaddecaf888").try_into().unwrap();
        let tag = key.gcm_seal(&iv, &hex("feedfacedeadbeeffeedfacedeadbeefabaddad2"), &mut data);
        let sealed = hex("42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
                          21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091");
        assert_eq!((data, tag.to_vec()), (sealed, hex("5bc94fbc3221a5db94fae95ae7121a47")));
    }

    #[test]
    fn a_sealed_message_opens_and_no_octet_of_it_may_change() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for encryption in Encryption::ALL {
            for length in 0..40 {
                let payloads = [Payload::Auth { method: 2, data: vec![1; length] }];
                let message = keys(encryption).seal(HEADER, &payloads, &mut rng);
                assert_eq!(keys(encryption).open(&message).unwrap().payloads().unwrap(), payloads);
                for at in 0..message.len() {
                    let mut changed = message.clone();
                    changed[at] ^= 0x10;
                    assert!(keys(encryption).open(&changed).is_err(), "octet {at}");
                    assert!(keys(encryption).open(&message[..at]).is_err(), "cut at {at}");
                }
            }
        }
    }

    #[test]
    fn fragments_are_as_long_as_they_may_be_and_hold_the_whole() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let payloads = [Payload::Auth { method: 2, data: (0..3000).map(|n| n as u8).collect() }];
        for encryption in Encryption::ALL {
            for longest in 600..640 {
                let fragments = keys(encryption).seal_within(longest, HEADER, &payloads, &mut rng);
                let (last, others) = fragments.split_last().unwrap();
                let least = longest - keys(encryption).block_len();
                assert!(others.iter().all(|f| f.len() > least && f.len() <= longest));
                assert!(last.len() <= longest);
                let opened = fragments.iter().map(|f| keys(encryption).open_fragment(f).unwrap());
                let whole = opened.reduce(|mut whole, part| {
                    whole.append(&part);
                    whole
                });
                assert_eq!(whole.unwrap().payloads().unwrap(), payloads);
                assert_eq!(keys(encryption).open(&fragments[0]).unwrap_err(), OpenError::Integrity);
            }
            let whole = keys(encryption).seal(HEADER, &payloads, &mut rng).len();
            let one = |longest| {
                let pieces = keys(encryption).seal_within(
                    longest,
                    HEADER,
                    &payloads,
                    &mut ChaCha20Rng::seed_from_u64(3),
                );
                pieces.len() == 1 && keys(encryption).open(&pieces[0]).is_ok()
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
        for encryption in Encryption::ALL {
            let whole = keys(encryption).seal(HEADER, &payloads, &mut rng);
            assert_eq!(keys(encryption).open(&whole).unwrap().covered(), expected);
            let parts = keys(encryption).seal_within(500, HEADER, &payloads, &mut rng);
            let mut opened = parts.iter().map(|part| keys(encryption).open_fragment(part).unwrap());
            let mut whole = opened.next().unwrap();
            opened.for_each(|part| whole.append(&part));
            assert_eq!(whole.covered(), expected);
        }
    }

    #[test]
    fn no_octet_of_a_fragment_may_change() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let payloads = [Payload::Auth { method: 2, data: vec![1; 100] }];
        for encryption in Encryption::ALL {
            let fragments = keys(encryption).seal_within(120, HEADER, &payloads, &mut rng);
            for at in 0..fragments[0].len() {
                let mut changed = fragments[0].clone();
                changed[at] ^= 0x10;
                assert!(keys(encryption).open_fragment(&changed).is_err(), "octet {at}");
                assert!(keys(encryption).open_fragment(&fragments[0][..at]).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn no_two_messages_are_alike() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for encryption in Encryption::ALL {
            let mut key = keys(encryption);
            assert_ne!(key.seal(HEADER, &[], &mut rng), key.seal(HEADER, &[], &mut rng));
        }
    }
}
