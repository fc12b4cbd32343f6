//! What the ICV covers and what it does not, against a header worked out by hand.

use super::*;

#[test]
fn mutable_fields_are_masked_and_nothing_else() {
    let v4: [u8; 20] = [0x45, 0xb9, 1, 2, 3, 4, 0x40, 5, 64, 51, 6, 7, 192, 0, 2, 1, 198, 51, 100, 2];
    let expected: [u8; 20] = [0x45, 0, 1, 2, 3, 4, 0, 0, 0, 51, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
    assert_eq!(mask(&v4, &mut [0; MAX_IP_LEN]), Some(&expected[..]));

    let mut v6 = [0x20; 40];
    v6[..8].copy_from_slice(&[0x6b, 0x9a, 0xbc, 0xde, 1, 2, 51, 64]);
    let mut expected = v6;
    expected[..8].copy_from_slice(&[0x60, 0, 0, 0, 1, 2, 51, 0]);
    assert_eq!(mask(&v6, &mut [0; MAX_IP_LEN]), Some(&expected[..]));
}

/// RFC 4302 appendix A1.
#[test]
fn options_are_masked_by_their_kind() {
    let masked = |options: &[u8]| {
        let mut options = options.to_vec();
        mask_options(&mut options).map(|()| options)
    };
    // Router alert and security stay, a timestamp and what nobody knows go, an end ends it.
    assert_eq!(masked(&[148, 4, 0, 0]), Some(vec![148, 4, 0, 0]));
    assert_eq!(
        masked(&[1, 68, 4, 5, 6, 130, 3, 9, 222, 2, 1, 0]),
        Some(vec![1, 0, 0, 0, 0, 130, 3, 9, 0, 0, 1, 0])
    );
    assert_eq!(masked(&[0, 68, 4, 5]), Some(vec![0, 68, 4, 5]));
    for bad in [&[68, 0, 1, 1][..], &[68, 1, 1, 1], &[68, 5, 1, 1], &[1, 1, 1, 68]] {
        assert_eq!(masked(bad), None, "{bad:?}");
    }
}

#[test]
fn the_header_has_the_length_of_rfc_4302() {
    // ICVs of 12, 12, 16, 24 and 32 bytes behind 12 bytes; multiples of four, and of eight under IPv6.
    for (auth, v4, v6) in [
        (Auth::HmacMd5_96, 24, 24),
        (Auth::HmacSha1_96, 24, 24),
        (Auth::HmacSha256_128, 28, 32),
        (Auth::HmacSha384_192, 36, 40),
        (Auth::HmacSha512_256, 44, 48),
    ] {
        for (address, expected) in [("192.0.2.1", v4), ("2001:db8::1", v6)] {
            let address = address.parse().unwrap();
            let params = SaParams {
                generation: 1,
                spi: 0x100,
                protocol: Protocol::Ah,
                cipher: Cipher::Null,
                auth,
                key: [0; 32],
                salt: [0; 4],
                auth_key: [1; 64],
                esn: false,
                replay_window: 0,
                outer: crate::Outer { local: address, peer: address, udp: None },
            };
            assert_eq!(Ah::new(&params).unwrap().len(), expected);
        }
    }
}
