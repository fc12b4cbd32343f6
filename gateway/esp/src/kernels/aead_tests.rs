//! The kernels of the AEADs over batches, beside RustCrypto packet by packet.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use chacha20poly1305::ChaCha20Poly1305;
use cipher::KeyInit;
use cipher::array::Array;
use cipher::consts::U12;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{AeadJob, Backend, chacha, gcm, narrow_gcm};

/// What one packet is sealed to: text and tag.
type Oracle = fn(key: &[u8], nonce: &[u8; 12], aad: &[u8], text: &[u8]) -> (Vec<u8>, [u8; 16]);

/// A kernel, and who knows what it should make of a packet.
struct Kernel<Key> {
    keys: Vec<Vec<u8>>,
    is_available: fn() -> bool,
    expand: fn(&[u8]) -> Option<Box<Key>>,
    seal: fn(&mut [AeadJob<'_, Key>]),
    open: fn(&mut [AeadJob<'_, Key>]),
    /// Whether a text that is not authentic is wiped; else it stays.
    wipes: bool,
    oracle: Oracle,
}

fn aes_gcm() -> Kernel<gcm::Key> {
    Kernel {
        keys: keys(&[16, 24, 32, 16, 24, 32]),
        is_available: gcm::is_available,
        expand: |key| gcm::Key::new(key).map(Box::new),
        seal: gcm::seal,
        open: gcm::open,
        wipes: true,
        oracle: aes_gcm_by_rustcrypto,
    }
}

fn narrow_aes_gcm(
    is_available: fn() -> bool,
    expand: fn(&[u8]) -> Option<Box<narrow_gcm::Key>>,
) -> Kernel<narrow_gcm::Key> {
    Kernel {
        keys: keys(&[16, 24, 32, 16, 24, 32]),
        is_available,
        expand,
        seal: narrow_gcm::seal,
        open: narrow_gcm::open,
        wipes: true,
        oracle: aes_gcm_by_rustcrypto,
    }
}

fn aes_gcm_of_avx2() -> Kernel<narrow_gcm::Key> {
    narrow_aes_gcm(|| Backend::Avx2.is_available(), |key| narrow_gcm::Key::new(Backend::Avx2, key))
}

fn aes_gcm_of_aesni() -> Kernel<narrow_gcm::Key> {
    narrow_aes_gcm(|| Backend::AesNi.is_available(), |key| narrow_gcm::Key::new(Backend::AesNi, key))
}

fn aes_gcm_by_rustcrypto(key: &[u8], nonce: &[u8; 12], aad: &[u8], text: &[u8]) -> (Vec<u8>, [u8; 16]) {
    match key.len() {
        16 => sealed::<AesGcm<Aes128, U12>>(key, nonce, aad, text),
        24 => sealed::<AesGcm<Aes192, U12>>(key, nonce, aad, text),
        _ => sealed::<AesGcm<Aes256, U12>>(key, nonce, aad, text),
    }
}

fn chacha20_poly1305() -> Kernel<chacha::Key> {
    Kernel {
        keys: keys(&[32; 3]),
        is_available: chacha::is_available,
        expand: chacha::Key::new,
        seal: chacha::seal,
        open: chacha::open,
        wipes: false,
        oracle: sealed::<ChaCha20Poly1305>,
    }
}

/// Keys of these lengths, none like another.
fn keys(lengths: &[usize]) -> Vec<Vec<u8>> {
    let key = |(n, length): (usize, &usize)| (0..*length).map(|i| (i * 31 + n * 77) as u8).collect();
    lengths.iter().enumerate().map(key).collect()
}

fn sealed<A: aes_gcm::AeadInOut<NonceSize = U12> + KeyInit>(
    key: &[u8],
    nonce: &[u8; 12],
    aad: &[u8],
    text: &[u8],
) -> (Vec<u8>, [u8; 16]) {
    let mut sealed = text.to_vec();
    let nonce = Array::<u8, U12>::from(*nonce);
    let aead = A::new_from_slice(key).unwrap();
    let tag = aead.encrypt_inout_detached(&nonce, aad, sealed.as_mut_slice().into()).unwrap();
    (sealed, tag.as_slice().try_into().unwrap())
}

#[derive(Clone, Debug)]
struct Case {
    key: usize,
    nonce: [u8; 12],
    aad: [u8; 16],
    aad_len: u8,
    text: Vec<u8>,
    offset: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let length = prop_oneof![4 => 0..200usize, 3 => 200..1600usize, 1 => 1600..9000usize];
    let text = (length, any::<u8>()).prop_map(|(length, seed)| {
        (0..length).map(|i| (i as u8).wrapping_mul(167).wrapping_add(seed)).collect::<Vec<_>>()
    });
    (0..6usize, any::<[u8; 12]>(), any::<[u8; 16]>(), prop::sample::select(vec![8u8, 12]), text, 0..64usize)
        .prop_map(|(key, nonce, mut aad, aad_len, text, offset)| {
            aad[usize::from(aad_len)..].fill(0);
            Case { key, nonce, aad, aad_len, text, offset }
        })
}

impl<Key> Kernel<Key> {
    /// Runs cases as one batch, each text at an offset of its own in a buffer with guards around it.
    fn batch(
        &self,
        work: fn(&mut [AeadJob<'_, Key>]),
        cases: &[Case],
        texts: &mut [Vec<u8>],
        tags: &mut [[u8; 16]],
    ) -> Vec<bool> {
        let expanded: Vec<_> = self.keys.iter().map(|key| (self.expand)(key).unwrap()).collect();
        let mut buffers: Vec<Vec<u8>> = cases
            .iter()
            .zip(texts.iter())
            .map(|(case, text)| [vec![0xa5; case.offset], text.clone(), vec![0xa5; 64]].concat())
            .collect();
        let mut jobs: Vec<AeadJob<'_, Key>> = cases
            .iter()
            .zip(&mut buffers)
            .zip(tags.iter_mut())
            .enumerate()
            .map(|(position, ((case, buffer), tag))| AeadJob {
                position,
                authentic: false,
                key: &*expanded[case.key % expanded.len()],
                nonce: case.nonce,
                aad: case.aad,
                aad_len: case.aad_len,
                text: &mut buffer[case.offset..case.offset + case.text.len()],
                tag,
            })
            .collect();
        work(&mut jobs);
        let authentic = jobs.iter().map(|job| job.authentic).collect();
        for ((case, buffer), text) in cases.iter().zip(&buffers).zip(texts) {
            let (before, rest) = buffer.split_at(case.offset);
            let (now, after) = rest.split_at(case.text.len());
            assert!(before.iter().chain(after).all(|octet| *octet == 0xa5), "written outside the text");
            text.copy_from_slice(now);
        }
        authentic
    }

    fn expected(&self, case: &Case) -> (Vec<u8>, [u8; 16]) {
        let key = &self.keys[case.key % self.keys.len()];
        (self.oracle)(key, &case.nonce, &case.aad[..usize::from(case.aad_len)], &case.text)
    }

    fn batches_are_what_rustcrypto_makes_of_each_packet(&self) {
        if !(self.is_available)() {
            return;
        }
        let mut runner = TestRunner::new(ProptestConfig::with_cases(256));
        let given = (prop::collection::vec(case(), 1..40), any::<u64>());
        let result = runner.run(&given, |(cases, broken)| self.agrees(&cases, broken));
        result.unwrap_or_else(|error| panic!("{error}"));
    }

    fn agrees(&self, cases: &[Case], broken: u64) -> Result<(), TestCaseError> {
        let mut texts: Vec<_> = cases.iter().map(|case| case.text.clone()).collect();
        let mut tags = vec![[0; 16]; cases.len()];
        self.batch(self.seal, cases, &mut texts, &mut tags);
        for ((case, text), tag) in cases.iter().zip(&texts).zip(&tags) {
            let (sealed, expected) = self.expected(case);
            prop_assert!(*text == sealed, "{} octets differ", case.text.len());
            prop_assert_eq!(*tag, expected);
        }
        // Every packet that is touched fails, and no other.
        let broken: Vec<bool> = (0..cases.len()).map(|i| broken >> i & 1 == 1).collect();
        for (i, broken) in broken.iter().enumerate() {
            if *broken {
                let length = texts[i].len();
                match texts[i].get_mut(length / 2) {
                    Some(octet) if i % 2 == 0 => *octet ^= 0x10,
                    _ => tags[i][i % 16] ^= 1,
                }
            }
        }
        let touched = texts.clone();
        let authentic = self.batch(self.open, cases, &mut texts, &mut tags);
        for (i, case) in cases.iter().enumerate() {
            prop_assert_eq!(authentic[i], !broken[i]);
            if !broken[i] {
                prop_assert!(texts[i] == case.text);
            } else if self.wipes {
                prop_assert!(texts[i].iter().all(|octet| *octet == 0), "a packet that failed leaves a text");
            } else {
                prop_assert!(texts[i] == touched[i], "a packet that failed was decrypted");
            }
        }
        Ok(())
    }

    /// One packet of every length up to `longest`.
    fn every_length(&self, longest: usize) {
        if !(self.is_available)() {
            return;
        }
        for length in 0..longest {
            let case = Case {
                key: length % 3,
                nonce: [length as u8; 12],
                aad: [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0],
                aad_len: 8,
                text: (0..length).map(|i| (i * 7) as u8).collect(),
                offset: length % 64,
            };
            let (sealed, tag) = self.expected(&case);
            let (mut texts, mut tags) = ([case.text.clone()], [[0; 16]]);
            self.batch(self.seal, std::slice::from_ref(&case), &mut texts, &mut tags);
            assert!(texts[0] == sealed && tags[0] == tag, "{length} octets");
        }
    }
}

#[test]
fn batches_of_aes_gcm_are_what_rustcrypto_makes_of_each_packet() {
    aes_gcm().batches_are_what_rustcrypto_makes_of_each_packet();
}

#[test]
fn batches_of_aes_gcm_in_narrower_registers_are_what_rustcrypto_makes_of_each_packet() {
    aes_gcm_of_avx2().batches_are_what_rustcrypto_makes_of_each_packet();
    aes_gcm_of_aesni().batches_are_what_rustcrypto_makes_of_each_packet();
}

#[test]
fn batches_of_chacha20_poly1305_are_what_rustcrypto_makes_of_each_packet() {
    chacha20_poly1305().batches_are_what_rustcrypto_makes_of_each_packet();
}

#[test]
fn every_length_up_to_three_groups_of_aes_gcm() {
    aes_gcm().every_length(3 * gcm::GROUP * 16 + 70);
}

#[test]
fn every_length_up_to_three_groups_of_aes_gcm_in_narrower_registers() {
    aes_gcm_of_avx2().every_length(3 * 256 + 70);
    aes_gcm_of_aesni().every_length(3 * 128 + 70);
}

#[test]
fn every_length_up_to_two_groups_of_chacha20_poly1305() {
    chacha20_poly1305().every_length(2 * 1024 + 70);
}
