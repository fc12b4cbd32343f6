//! The pseudorandom function, its iterated form prf+ (RFC 7296 section 2.13) and truncated HMACs.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::algorithm::{Integrity, Prf};

/// prf(key, parts in sequence).
pub(crate) fn prf(prf: Prf, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    match prf {
        Prf::Sha1 => hmac::<Hmac<Sha1>>(key, parts),
        Prf::Sha256 => hmac::<Hmac<Sha256>>(key, parts),
    }
}

/// prf+(key, seed), `length` octets of it; at most 255 times the PRF's output.
pub(crate) fn prf_plus(kind: Prf, key: &[u8], seed: &[&[u8]], length: usize) -> Zeroizing<Vec<u8>> {
    debug_assert!(length <= 255 * kind.output_len());
    let mut stream = Zeroizing::new(Vec::with_capacity(length + kind.output_len()));
    let mut block: Zeroizing<Vec<u8>> = Zeroizing::default();
    for counter in 1u8..=255 {
        if stream.len() >= length {
            break;
        }
        let mut parts: Vec<&[u8]> = vec![&block];
        parts.extend(seed);
        let counter = [counter];
        parts.push(&counter);
        block = prf(kind, key, &parts);
        stream.extend_from_slice(&block);
    }
    stream.truncate(length);
    stream
}

/// The truncated ICV over `message`.
pub(crate) fn icv(integrity: Integrity, key: &[u8], message: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut icv = match integrity {
        Integrity::Sha1 => hmac::<Hmac<Sha1>>(key, &[message]),
        Integrity::Sha256 => hmac::<Hmac<Sha256>>(key, &[message]),
    };
    icv.truncate(integrity.icv_len());
    icv
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}
