//! Ciphers against published vectors.

use super::{
    super::{aead, cbc},
    hex,
};
use crate::algorithm::Encryption;

/// RFC 3602 section 4, cases 1 and 2.
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
        let (key, iv, sealed) = (hex(key), hex(iv), hex(sealed));
        let last = sealed[sealed.len() - 16..].to_vec();
        let mut data = plain.clone();
        assert_eq!(cbc::encrypt(Encryption::Aes128, &key, &iv, &mut data), Ok(last.clone()));
        assert_eq!(data, sealed);
        assert_eq!(cbc::decrypt(Encryption::Aes128, &key, &iv, &mut data), Ok(last));
        assert_eq!(data, plain);
    }
}

/// DES: FIPS 81 table C2. 3DES: the case that Eric Young's destest has had since 1995, now in OpenSSL's evpciph_des3.
#[test]
fn des_and_3des_cbc() {
    let cases = [
        (
            Encryption::Des,
            "0123456789abcdef",
            "1234567890abcdef",
            b"Now is the time for all ".to_vec(),
            "e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6",
        ),
        (
            Encryption::TripleDes,
            "0123456789abcdeff1e0d3c2b5a49786fedcba9876543210",
            "fedcba9876543210",
            b"7654321 Now is the time for \0\0\0\0".to_vec(),
            "3fe301c962ac01d02213763c1cbd4cdc799657c064ecf5d41c673812cfde9675",
        ),
    ];
    for (encryption, key, iv, plain, sealed) in cases {
        let (key, iv, sealed) = (hex(key), hex(iv), hex(sealed));
        let last = sealed[sealed.len() - 8..].to_vec();
        let mut data = plain.clone();
        assert_eq!(cbc::encrypt(encryption, &key, &iv, &mut data), Ok(last.clone()));
        assert_eq!(data, sealed);
        assert_eq!(cbc::decrypt(encryption, &key, &iv, &mut data), Ok(last));
        assert_eq!(data, plain);
    }
}

/// What one message ends with is what the next begins with (RFC 2409 appendix B).
#[test]
fn the_last_block_chains_messages() {
    let key = [7; 24];
    let whole: Vec<u8> = (0..64).collect();
    let mut at_once = whole.clone();
    cbc::encrypt(Encryption::TripleDes, &key, &[1; 8], &mut at_once).unwrap();
    let mut iv = vec![1; 8];
    let mut in_parts = Vec::new();
    for part in whole.chunks(24) {
        let mut part = part.to_vec();
        iv = cbc::encrypt(Encryption::TripleDes, &key, &iv, &mut part).unwrap();
        in_parts.extend(part);
    }
    assert_eq!(in_parts, at_once);
}

/// Test case 4 of McGrew and Viega, "The Galois/Counter Mode of Operation".
#[test]
fn aes_gcm_test_case_4() {
    let key = [hex("feffe9928665731c6d6a8f9467308308"), hex("cafebabe")].concat();
    let plain = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                     1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let sealed = hex("42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
                      21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091");
    let iv = hex("facedbaddecaf888").try_into().unwrap();
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let mut data = plain.clone();
    let tag = aead::seal(Encryption::Aes128Gcm16, &key, &iv, &aad, &mut data).unwrap();
    assert_eq!((&data, tag.to_vec()), (&sealed, hex("5bc94fbc3221a5db94fae95ae7121a47")));
    assert_eq!(aead::open(Encryption::Aes128Gcm16, &key, &iv, &aad, &mut data, &tag), Ok(()));
    assert_eq!(data, plain);
}

#[test]
fn wrong_lengths_and_wrong_algorithms_are_refused() {
    for e in Encryption::ALL {
        let (key, iv) = (vec![7; e.key_len() + e.salt_len()], vec![1; e.iv_len()]);
        let good = cbc::encrypt(e, &key, &iv, &mut [0; 48]);
        assert_eq!(good.is_ok(), e.block_len() > 1, "{e}");
        assert_eq!(cbc::encrypt(e, &key, &iv, &mut []).is_ok(), good.is_ok(), "{e}");
        assert!(cbc::encrypt(e, &key, &iv, &mut [0; 47]).is_err());
        assert!(cbc::decrypt(e, &key, &iv, &mut [0; 47]).is_err());
        assert!(cbc::encrypt(e, &[&key[..], &[0]].concat(), &iv, &mut [0; 48]).is_err());
        assert!(cbc::decrypt(e, &key, &[&iv[..], &[0]].concat(), &mut [0; 48]).is_err());
        assert_eq!(aead::seal(e, &key, &[0; 8], &[], &mut []).is_ok(), e.is_aead(), "{e}");
        assert!(aead::seal(e, &[&key[..], &[0]].concat(), &[0; 8], &[], &mut []).is_err());
        assert!(aead::seal(e, &[], &[0; 8], &[], &mut []).is_err());
    }
}
