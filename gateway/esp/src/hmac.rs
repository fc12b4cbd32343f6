//! HMAC-SHA1-96 (RFC 2404) and HMAC-SHA256-128 (RFC 4868).

use crate::sa::Auth;
use ::hmac::{KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The key of an SA as the states that both hashes start from.
pub(crate) enum Hmac {
    Sha1(::hmac::Hmac<Sha1>),
    Sha256(::hmac::Hmac<Sha256>),
}

impl Hmac {
    /// Absorbs `key`, of the algorithm's length; `None` for [`Auth::None`].
    pub(crate) fn new(auth: Auth, key: &[u8]) -> Option<Self> {
        match auth {
            Auth::None => None,
            Auth::HmacSha1_96 => ::hmac::Hmac::new_from_slice(key).ok().map(Hmac::Sha1),
            Auth::HmacSha256_128 => ::hmac::Hmac::new_from_slice(key).ok().map(Hmac::Sha256),
        }
    }

    /// Bytes of the ICV.
    pub(crate) const fn icv_len(&self) -> usize {
        match self {
            Hmac::Sha1(_) => Auth::HmacSha1_96.icv_len(),
            Hmac::Sha256(_) => Auth::HmacSha256_128.icv_len(),
        }
    }

    /// Writes the ICV at the end of `esp`, which runs from the SPI to there.
    pub(crate) fn sign(&self, esp: &mut [u8], seq_high: Option<u32>) {
        let (covered, icv) = esp.split_at_mut(esp.len() - self.icv_len());
        icv.copy_from_slice(&self.mac(covered, seq_high)[..icv.len()]);
    }

    /// Whether the ICV at the end of `esp` is right, in constant time.
    #[must_use]
    pub(crate) fn verify(&self, esp: &[u8], seq_high: Option<u32>) -> bool {
        let (covered, icv) = esp.split_at(esp.len() - self.icv_len());
        self.mac(covered, seq_high)[..icv.len()].ct_eq(icv).into()
    }

    /// The MAC of `covered` and, when extended, the high half of the sequence number (RFC 4303 section 2.2.1).
    fn mac(&self, covered: &[u8], seq_high: Option<u32>) -> [u8; 32] {
        fn of<M: Mac + Clone>(state: &M, covered: &[u8], seq_high: Option<u32>) -> [u8; 32] {
            let mut mac = state.clone();
            mac.update(covered);
            if let Some(high) = seq_high {
                mac.update(&high.to_be_bytes());
            }
            let output = mac.finalize().into_bytes();
            let mut bytes = [0; 32];
            bytes[..output.len()].copy_from_slice(&output);
            bytes
        }
        match self {
            Hmac::Sha1(state) => of(state, covered, seq_high),
            Hmac::Sha256(state) => of(state, covered, seq_high),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(auth: Auth, key: &[u8], data: &[u8]) -> String {
        let mac = Hmac::new(auth, key).unwrap().mac(data, None);
        let len = if auth == Auth::HmacSha1_96 { 20 } else { 32 };
        mac[..len].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn rfc_2202_hmac_sha1() {
        let counting: Vec<u8> = (1..=25).collect();
        for (key, data, expected) in [
            (&[0x0b; 20][..], &b"Hi There"[..], "b617318655057264e28bc0b6fb378c8ef146be00"),
            (b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (&[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
            (&counting, &[0xcd; 50], "4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
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
        let counting: Vec<u8> = (1..=25).collect();
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
            (&counting, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        ] {
            assert_eq!(mac(Auth::HmacSha256_128, key, data), expected);
        }
    }

    #[test]
    fn the_high_half_of_the_sequence_number_is_covered() {
        let hmac = Hmac::new(Auth::HmacSha256_128, &[7; 32]).unwrap();
        let mut esp = [1; 64];
        hmac.sign(&mut esp, Some(5));
        assert!(hmac.verify(&esp, Some(5)));
        assert!(!hmac.verify(&esp, Some(6)));
        assert!(!hmac.verify(&esp, None));
    }
}
