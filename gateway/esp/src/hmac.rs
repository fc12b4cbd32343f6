//! The integrity algorithms: HMAC-MD5-96 (RFC 2403), HMAC-SHA1-96 (RFC 2404) and HMAC-SHA2 (RFC 4868).

use crate::sa::{AUTH_KEY_LEN, Auth};
use ::hmac::{KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

/// Bytes of the longest MAC before it is cut to an ICV.
const MAC_LEN: usize = 64;

const _: () = assert!(AUTH_KEY_LEN == MAC_LEN);

/// The key of an SA as the states that both hashes start from.
pub(crate) struct Hmac {
    keyed: Keyed,
    icv_len: usize,
}

enum Keyed {
    Md5(::hmac::Hmac<Md5>),
    Sha1(::hmac::Hmac<Sha1>),
    Sha256(::hmac::Hmac<Sha256>),
    Sha384(::hmac::Hmac<Sha384>),
    Sha512(::hmac::Hmac<Sha512>),
}

impl Hmac {
    /// Absorbs `key`, of the algorithm's length; `None` for [`Auth::None`].
    pub(crate) fn new(auth: Auth, key: &[u8]) -> Option<Self> {
        let keyed = match auth {
            Auth::None => return None,
            Auth::HmacMd5_96 => Keyed::Md5(::hmac::Hmac::new_from_slice(key).ok()?),
            Auth::HmacSha1_96 => Keyed::Sha1(::hmac::Hmac::new_from_slice(key).ok()?),
            Auth::HmacSha256_128 => Keyed::Sha256(::hmac::Hmac::new_from_slice(key).ok()?),
            Auth::HmacSha384_192 => Keyed::Sha384(::hmac::Hmac::new_from_slice(key).ok()?),
            Auth::HmacSha512_256 => Keyed::Sha512(::hmac::Hmac::new_from_slice(key).ok()?),
        };
        Some(Self { keyed, icv_len: auth.icv_len() })
    }

    /// Bytes of the ICV.
    pub(crate) const fn icv_len(&self) -> usize {
        self.icv_len
    }

    /// Writes the ICV of the bytes in `parts` and, when extended, of the high half of the sequence number (RFC 4303
    /// section 2.2.1, RFC 4302 section 3.3.3.2.2). `icv` has the length of one.
    pub(crate) fn sign(&self, parts: &[&[u8]], seq_high: Option<u32>, icv: &mut [u8]) {
        icv.copy_from_slice(&self.mac(parts, seq_high)[..self.icv_len]);
    }

    /// Whether `icv` is the one that [`Hmac::sign`] would write, in constant time.
    #[must_use]
    pub(crate) fn verify(&self, parts: &[&[u8]], seq_high: Option<u32>, icv: &[u8]) -> bool {
        self.mac(parts, seq_high)[..self.icv_len].ct_eq(icv).into()
    }

    fn mac(&self, parts: &[&[u8]], seq_high: Option<u32>) -> [u8; MAC_LEN] {
        fn of<M: Mac + Clone>(state: &M, parts: &[&[u8]], seq_high: Option<u32>) -> [u8; MAC_LEN] {
            let mut mac = state.clone();
            parts.iter().for_each(|part| mac.update(part));
            if let Some(high) = seq_high {
                mac.update(&high.to_be_bytes());
            }
            let output = mac.finalize().into_bytes();
            let mut bytes = [0; MAC_LEN];
            bytes[..output.len()].copy_from_slice(&output);
            bytes
        }
        match &self.keyed {
            Keyed::Md5(state) => of(state, parts, seq_high),
            Keyed::Sha1(state) => of(state, parts, seq_high),
            Keyed::Sha256(state) => of(state, parts, seq_high),
            Keyed::Sha384(state) => of(state, parts, seq_high),
            Keyed::Sha512(state) => of(state, parts, seq_high),
        }
    }
}

#[cfg(test)]
#[path = "hmac_tests.rs"]
mod tests;
