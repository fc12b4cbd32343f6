use super::*;

fn mac(auth: Auth, key: &[u8], data: &[u8]) -> String {
    let mac = Hmac::new(auth, key).unwrap().mac(&[data], None);
    let len = match auth {
        Auth::HmacMd5_96 => 16,
        Auth::HmacSha1_96 => 20,
        Auth::HmacSha256_128 => 32,
        Auth::HmacSha384_192 => 48,
        _ => 64,
    };
    mac[..len].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn counting() -> Vec<u8> {
    (1..=25).collect()
}

#[test]
fn rfc_2202_hmac_md5() {
    for (key, data, expected) in [
        (&[0x0b; 16][..], &b"Hi There"[..], "9294727a3638bb1c13f48ef8158bfc9d"),
        (b"Jefe", b"what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"),
        (&[0xaa; 16], &[0xdd; 50], "56be34521d144c88dbb8c733f0e8b3f6"),
        (&counting(), &[0xcd; 50], "697eaf0aca3a3aea3a75164746ffaa79"),
        (
            &[0xaa; 80],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd",
        ),
    ] {
        assert_eq!(mac(Auth::HmacMd5_96, key, data), expected);
    }
}

#[test]
fn rfc_2202_hmac_sha1() {
    for (key, data, expected) in [
        (&[0x0b; 20][..], &b"Hi There"[..], "b617318655057264e28bc0b6fb378c8ef146be00"),
        (b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (&[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
        (&counting(), &[0xcd; 50], "4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
        (
            &[0xaa; 80],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "aa4ae5e15272d00e95705637ce8a3b55ed402112",
        ),
    ] {
        assert_eq!(mac(Auth::HmacSha1_96, key, data), expected);
    }
}

#[test]
fn rfc_4231_hmac_sha256() {
    for (key, data, expected) in [
        (
            &[0x0b; 20][..],
            &b"Hi There"[..],
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (&counting(), &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    ] {
        assert_eq!(mac(Auth::HmacSha256_128, key, data), expected);
    }
}

#[test]
fn rfc_4231_hmac_sha384_and_sha512() {
    for (key, data, sha384, sha512) in [
        (
            &[0x0b; 20][..],
            &b"Hi There"[..],
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c\
             faea9ea9076ede7f4af152e8b2fa9cb6",
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
             daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
             8e2240ca5e69e2c78b3239ecfab21649",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ] {
        assert_eq!(mac(Auth::HmacSha384_192, key, data), sha384);
        assert_eq!(mac(Auth::HmacSha512_256, key, data), sha512);
    }
}

#[test]
fn parts_and_the_high_half_of_the_sequence_number_are_covered() {
    let hmac = Hmac::new(Auth::HmacSha256_128, &[7; 32]).unwrap();
    let mut icv = [0; 16];
    hmac.sign(&[&[1; 40], &[2; 8]], Some(5), &mut icv);
    assert!(hmac.verify(&[&[1; 40], &[2; 8]], Some(5), &icv));
    assert!(hmac.verify(&[&[[1; 40].as_slice(), &[2; 8]].concat()], Some(5), &icv));
    assert!(hmac.verify(&[&[1; 40], &[2; 8], &[0, 0, 0, 5]], None, &icv));
    assert!(!hmac.verify(&[&[1; 40], &[2; 8]], Some(6), &icv));
    assert!(!hmac.verify(&[&[1; 40], &[2; 8]], None, &icv));
    assert!(!hmac.verify(&[&[1; 40], &[3; 8]], Some(5), &icv));
    assert!(!hmac.verify(&[&[1; 40], &[2; 8]], Some(5), &icv[..12]));
}
