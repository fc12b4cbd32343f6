use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{
    cipher::MessageKey,
    dh::{InvalidPublic, Job, Outcome, Secret, Work},
    keys::{Exchanged, derive},
    prf::{hash, icv, prf, prf_plus},
};
use crate::{
    algorithm::{Encryption, Group, Integrity, Prf},
    config::Protocol,
    proposal::{ChildSuite, IkeSuite},
    wire::{ExchangeType, Header},
};

mod ciphers;
mod cost;
mod derivation;
mod groups;
mod modp;
mod wycheproof;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// RFC 2202 for MD5 and SHA-1, RFC 4231 for the others: their cases 1 to 3.
#[test]
fn hmacs_of_the_rfcs() {
    let cases = [
        (
            Integrity::Md5,
            [
                "9294727a3638bb1c13f48ef8158bfc9d",
                "750c783e6ab0b503eaa86e310a5db738",
                "56be34521d144c88dbb8c733f0e8b3f6",
            ],
        ),
        (
            Integrity::Sha1,
            [
                "b617318655057264e28bc0b6fb378c8ef146be00",
                "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
                "125d7342b9ac11cd91a39af48aa17b4f63f175d3",
            ],
        ),
        (
            Integrity::Sha256,
            [
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ],
        ),
        (
            Integrity::Sha384,
            [
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
                "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27",
            ],
        ),
        (
            Integrity::Sha512,
            [
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39\
                 bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
            ],
        ),
    ];
    for (integrity, digests) in cases {
        // RFC 2202 has keys as long as the digest of MD5, else all have 20 octets.
        let length = if integrity == Integrity::Md5 { 16 } else { 20 };
        let inputs = [
            (vec![0x0b; length], &b"Hi There"[..]),
            (b"Jefe".to_vec(), b"what do ya want for nothing?"),
            (vec![0xaa; length], &[0xdd; 50]),
        ];
        for ((key, data), digest) in inputs.into_iter().zip(digests) {
            let (head, tail) = data.split_at(3);
            assert_eq!(*prf(integrity.prf(), &key, &[head, tail]), hex(digest), "{integrity}");
            assert_eq!(*icv(integrity, &key, data), hex(digest)[..integrity.icv_len()], "{integrity}");
        }
    }
}

/// RFC 1321 appendix A.5, RFC 3174 section 7.3 and FIPS 180-2 appendices B to D: "abc".
#[test]
fn hashes_of_abc() {
    let cases = [
        (Prf::Md5, "900150983cd24fb0d6963f7d28e17f72"),
        (Prf::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Prf::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Prf::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            Prf::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ];
    for (kind, digest) in cases {
        assert_eq!(*hash(kind, &[b"a", b"", b"bc"]), hex(digest), "{kind}");
    }
}

/// A feature that is left out of Cargo.toml does not compile here, as long as the crate is built by itself.
#[test]
fn what_holds_keys_is_wiped_when_it_is_dropped() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<md5::Md5>();
    wiped::<sha1::Sha1>();
    wiped::<sha2::Sha256>();
    wiped::<sha2::Sha384>();
    wiped::<sha2::Sha512>();
    wiped::<aes::Aes128>();
    wiped::<aes::Aes192>();
    wiped::<aes::Aes256>();
    wiped::<des::Des>();
    wiped::<des::TdesEde3>();
    wiped::<aes_gcm::Aes256Gcm>();
    wiped::<chacha20poly1305::ChaCha20Poly1305>();
    wiped::<cbc::Encryptor<aes::Aes256>>();
    wiped::<cbc::Decryptor<aes::Aes256>>();
    wiped::<p256::SecretKey>();
    wiped::<p384::SecretKey>();
    wiped::<p521::SecretKey>();
    wiped::<p521::ecdh::SharedSecret>();
    wiped::<x25519_dalek::StaticSecret>();
    wiped::<x25519_dalek::SharedSecret>();
    wiped::<ml_kem::DecapsulationKey<ml_kem::MlKem768>>();
}

#[test]
fn prf_plus_iterates() {
    for kind in Prf::ALL {
        let t1 = prf(kind, b"key", &[b"se", b"ed", &[1]]);
        let t2 = prf(kind, b"key", &[&t1, b"seed", &[2]]);
        let t3 = prf(kind, b"key", &[&t2, b"seed", &[3]]);
        let whole = [&t1[..], &t2, &t3].concat();
        for length in [0, 1, kind.output_len(), kind.output_len() + 1, 2 * kind.output_len() + 5] {
            assert_eq!(*prf_plus(kind, b"key", &[b"se", b"ed"], length), whole[..length]);
        }
    }
}

#[test]
fn invalid_public_values_are_refused() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let x25519 = Secret::random(Group::X25519, &mut rng);
    assert_eq!(x25519.agree(&[0; 32]), Err(InvalidPublic));
    assert_eq!(x25519.agree(&[1; 31]), Err(InvalidPublic));
    for group in [Group::P256, Group::P384, Group::P521] {
        let secret = Secret::random(group, &mut rng);
        let valid = secret.public();
        assert!(secret.agree(&valid).is_ok());
        let mut off_the_curve = valid.clone();
        *off_the_curve.last_mut().unwrap() ^= 1;
        let compressed = [&[2], &valid[..valid.len() / 2]].concat();
        for bad in [off_the_curve, compressed, vec![0; valid.len()], vec![0xff; valid.len()], vec![]] {
            assert_eq!(secret.agree(&bad), Err(InvalidPublic), "{group}");
        }
        assert_eq!(secret.agree(&[&[4], &valid[..]].concat()), Err(InvalidPublic), "{group}");
    }
    let mlkem = Secret::random(Group::MlKem768, &mut rng);
    assert_eq!(mlkem.agree(&[0; 1087]), Err(InvalidPublic));
    assert_eq!(mlkem.respond(&[0; 1183]), Err(InvalidPublic));
    // Coefficients that are not reduced modulo 3329 (FIPS 203 section 7.2).
    assert_eq!(mlkem.respond(&[0xff; 1184]), Err(InvalidPublic));
}

#[test]
fn jobs_of_both_sides_come_to_the_same() {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    for group in Group::ALL.into_iter().chain(Group::ADDITIONAL) {
        let job = Job { sa: 1, secret: Secret::random(group, &mut rng), work: Work::Generate };
        let Outcome::Generated { secret, public } = job.run().outcome else { panic!() };
        assert_eq!(public.len(), group.public_len());
        let responder = Job { sa: 2, secret: Secret::random(group, &mut rng), work: Work::Respond(public) };
        let Outcome::Responded(Ok((answer, theirs))) = responder.run().outcome else { panic!() };
        assert_eq!(answer.len(), group.answer_len());
        let Outcome::Agreed(Ok(ours)) = (Job { sa: 1, secret, work: Work::Agree(answer) }).run().outcome
        else {
            panic!()
        };
        assert_eq!(ours, theirs);
    }
}

/// The order of RFC 7296 section 2.14 and 2.17, spelled out.
#[test]
fn keys_are_cut_in_the_order_of_the_rfc() {
    let exchanged = Exchanged {
        initiator_nonce: &[1; 32],
        responder_nonce: &[2; 32],
        initiator_spi: 3,
        responder_spi: 4,
    };
    let suite = IkeSuite {
        encryption: Encryption::Aes128,
        integrity: Some(Integrity::Sha1),
        prf: Prf::Sha1,
        group: Group::Modp1024,
        additional: None,
    };
    let (keys, mut from_initiator, mut from_responder) = derive(&suite, &[5; 128], &exchanged);
    let nonces = [[1; 32], [2; 32]].concat();
    let skeyseed = prf(Prf::Sha1, &nonces, &[&[5; 128]]);
    let seed = [&nonces[..], &3u64.to_be_bytes(), &4u64.to_be_bytes()].concat();
    let stream = prf_plus(Prf::Sha1, &skeyseed, &[&seed], 7 * 20);
    let (sk_d, sk_pi) = (&stream[..20], &stream[20 + 40 + 32..20 + 40 + 32 + 20]);
    let header = Header {
        initiator_spi: 3,
        responder_spi: 4,
        exchange: ExchangeType::Informational,
        from_initiator: true,
        response: false,
        message_id: 0,
    };
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for (derived, sk_a, sk_e) in [
        (&mut from_initiator, &stream[20..40], &stream[60..76]),
        (&mut from_responder, &stream[40..60], &stream[76..92]),
    ] {
        let sealed = derived.seal(header, &[], &mut rng);
        let integrity = Some((Integrity::Sha1, Zeroizing::new(sk_a.to_vec())));
        let cut = MessageKey::new(Encryption::Aes128, Zeroizing::new(sk_e.to_vec()), integrity);
        assert_eq!(cut.open(&sealed).unwrap().payloads(), Ok(vec![]));
    }
    let maced_id = prf(Prf::Sha1, sk_pi, &[b"id"]);
    let padded = prf(Prf::Sha1, b"psk", &[b"Key Pad for IKEv2"]);
    let auth = prf(Prf::Sha1, &padded, &[b"message", b"nonce", &maced_id]);
    assert_eq!(keys.shared_key_auth(true, b"psk", b"message", b"nonce", b"id", b""), auth);

    let esp = ChildSuite {
        protocol: Protocol::Esp,
        encryption: Some(Encryption::Aes256),
        integrity: Some(Integrity::Sha256),
        esn: false,
        group: None,
    };
    let keymat = prf_plus(Prf::Sha1, sk_d, &[&nonces], 128);
    let [there, back] = keys.child(&esp, &[], &[1; 32], &[2; 32]).map(|keys| keys.with_spi(256));
    let cut = [&there.encryption_key, &there.integrity_key, &back.encryption_key, &back.integrity_key];
    assert_eq!(cut.map(|key| key.len()), [32; 4]);
    assert_eq!(cut.map(|key| key.to_vec()).concat(), *keymat);

    for (encryption, key_len) in [
        (Encryption::Aes128Gcm16, 16),
        (Encryption::Aes192Gcm16, 24),
        (Encryption::Aes256Gcm16, 32),
        (Encryption::ChaCha20Poly1305, 32),
    ] {
        let gcm = ChildSuite { encryption: Some(encryption), integrity: None, ..esp };
        let keymat = prf_plus(Prf::Sha1, sk_d, &[&nonces], 2 * (key_len + 4));
        let [there, back] = keys.child(&gcm, &[], &[1; 32], &[2; 32]).map(|keys| keys.with_spi(256));
        let cut = [&there.encryption_key[..], &there.salt, &back.encryption_key[..], &back.salt].concat();
        assert_eq!(cut, *keymat);
    }
}
