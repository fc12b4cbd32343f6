use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use zeroize::Zeroizing;

use super::{
    cipher::MessageKey,
    dh::{InvalidPublic, Job, Outcome, Secret, Work},
    keys::{Exchanged, derive},
    prf::{icv, prf, prf_plus},
};
use crate::{
    algorithm::{Encryption, Group, Integrity, Prf},
    config::Protocol,
    proposal::{ChildSuite, IkeSuite},
    wire::{ExchangeType, Header},
};

mod ciphers;
mod cost;
mod modp;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn secret(group: Group, scalar: &str) -> Secret {
    Secret::from_octets(group, &hex(scalar))
}

#[test]
fn hmac_sha1_of_rfc_2202() {
    let cases = [
        (vec![0x0b; 20], &b"Hi There"[..], "b617318655057264e28bc0b6fb378c8ef146be00"),
        (b"Jefe".to_vec(), b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (vec![0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
    ];
    for (key, data, digest) in cases {
        assert_eq!(*prf(Prf::Sha1, &key, &[data]), hex(digest));
        assert_eq!(*icv(Integrity::Sha1, &key, data), hex(digest)[..12]);
    }
}

#[test]
fn hmac_sha256_of_rfc_4231() {
    let cases = [
        (
            vec![0x0b; 20],
            &b"Hi There"[..],
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (vec![0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    ];
    for (key, data, digest) in cases {
        assert_eq!(*prf(Prf::Sha256, &key, &[data]), hex(digest));
        assert_eq!(*icv(Integrity::Sha256, &key, data), hex(digest)[..16]);
    }
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
fn p256_of_rfc_5903() {
    let i = secret(Group::P256, "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433");
    let r = secret(Group::P256, "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53");
    let gi = hex("DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
                  5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3");
    let gr = hex("D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63
                  56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB");
    let shared = hex("D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE");
    assert_eq!((i.public(), r.public()), (gi.clone(), gr.clone()));
    assert_eq!(*i.agree(&gr).unwrap(), shared);
    assert_eq!(*r.agree(&gi).unwrap(), shared);
}

#[test]
fn x25519_of_rfc_7748() {
    let alice = secret(Group::X25519, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let bob = secret(Group::X25519, "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    assert_eq!(alice.public(), hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
    assert_eq!(bob.public(), hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(*alice.agree(&bob.public()).unwrap(), shared);
    assert_eq!(*bob.agree(&alice.public()).unwrap(), shared);
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
