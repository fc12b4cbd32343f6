use super::*;
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use cipher::array::Array;
use cipher::consts::U12;
use proptest::prelude::*;

/// One packet as RustCrypto seals it: text and tag.
fn oracle(key: &[u8], nonce: &[u8; 12], aad: &[u8], text: &[u8]) -> (Vec<u8>, [u8; 16]) {
    fn with<A: AeadInOut<NonceSize = U12> + KeyInit>(
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
    match key.len() {
        16 => with::<AesGcm<Aes128, U12>>(key, nonce, aad, text),
        24 => with::<AesGcm<Aes192, U12>>(key, nonce, aad, text),
        _ => with::<AesGcm<Aes256, U12>>(key, nonce, aad, text),
    }
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

/// Six keys, two of each length.
fn keys() -> Vec<Vec<u8>> {
    [16, 24, 32, 16, 24, 32]
        .iter()
        .enumerate()
        .map(|(n, length)| (0..*length).map(|i| (i * 31 + n * 77) as u8).collect())
        .collect()
}

/// Runs cases as one batch, each text at an offset of its own in a buffer with guards around it.
fn batch(cases: &[Case], texts: &mut [Vec<u8>], tags: &mut [[u8; 16]], seals: bool) -> Vec<bool> {
    let expanded: Vec<_> = keys().iter().map(|key| Key::new(key).unwrap()).collect();
    let mut buffers: Vec<Vec<u8>> = cases
        .iter()
        .zip(texts.iter())
        .map(|(case, text)| [vec![0xa5; case.offset], text.clone(), vec![0xa5; 64]].concat())
        .collect();
    let mut jobs: Vec<GcmJob<'_>> = cases
        .iter()
        .zip(&mut buffers)
        .zip(tags.iter_mut())
        .enumerate()
        .map(|(position, ((case, buffer), tag))| GcmJob {
            position,
            authentic: false,
            key: &expanded[case.key],
            nonce: case.nonce,
            aad: case.aad,
            aad_len: case.aad_len,
            text: &mut buffer[case.offset..case.offset + case.text.len()],
            tag,
        })
        .collect();
    if seals {
        seal(&mut jobs);
    } else {
        open(&mut jobs);
    }
    let authentic = jobs.iter().map(|job| job.authentic).collect();
    for ((case, buffer), text) in cases.iter().zip(&buffers).zip(texts) {
        let (before, rest) = buffer.split_at(case.offset);
        let (now, after) = rest.split_at(case.text.len());
        assert!(before.iter().chain(after).all(|octet| *octet == 0xa5), "written outside the text");
        text.copy_from_slice(now);
    }
    authentic
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn batches_are_what_rustcrypto_makes_of_each_packet(cases in prop::collection::vec(case(), 1..20), broken in any::<u64>()) {
        if !is_available() {
            return Ok(());
        }
        let keys = keys();
        let mut texts: Vec<_> = cases.iter().map(|case| case.text.clone()).collect();
        let mut tags = vec![[0; 16]; cases.len()];
        batch(&cases, &mut texts, &mut tags, true);
        for ((case, text), tag) in cases.iter().zip(&texts).zip(&tags) {
            let aad = &case.aad[..usize::from(case.aad_len)];
            let (sealed, expected) = oracle(&keys[case.key], &case.nonce, aad, &case.text);
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
        let authentic = batch(&cases, &mut texts, &mut tags, false);
        for (i, case) in cases.iter().enumerate() {
            prop_assert_eq!(authentic[i], !broken[i]);
            if broken[i] {
                prop_assert!(texts[i].iter().all(|octet| *octet == 0), "a packet that failed leaves a text");
            } else {
                prop_assert!(texts[i] == case.text);
            }
        }
    }
}

#[test]
fn every_length_up_to_three_groups() {
    if !is_available() {
        return;
    }
    let keys = keys();
    for length in 0..3 * GROUP * 16 + 70 {
        let case = Case {
            key: length % 3,
            nonce: [length as u8; 12],
            aad: [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0],
            aad_len: 8,
            text: (0..length).map(|i| (i * 7) as u8).collect(),
            offset: length % 64,
        };
        let (sealed, tag) = oracle(&keys[case.key], &case.nonce, &case.aad[..8], &case.text);
        let (mut texts, mut tags) = ([case.text.clone()], [[0; 16]]);
        batch(std::slice::from_ref(&case), &mut texts, &mut tags, true);
        assert!(texts[0] == sealed && tags[0] == tag, "{length} octets");
    }
}
