//! Hashes, the pseudorandom function, its iterated form prf+ (RFC 7296 section 2.13) and truncated HMACs.

use hmac::{EagerHash, Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::{Zeroize, Zeroizing};

use crate::algorithm::{Integrity, Prf};

/// The hash within the PRF over `parts` in sequence, as IKEv1 has it for IVs and NAT detection.
pub(crate) fn hash(kind: Prf, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    match kind {
        Prf::Md5 => digest::<Md5>(parts),
        Prf::Sha1 => digest::<Sha1>(parts),
        Prf::Sha256 => digest::<Sha256>(parts),
        Prf::Sha384 => digest::<Sha384>(parts),
        Prf::Sha512 => digest::<Sha512>(parts),
    }
}

/// prf(key, parts in sequence).
pub(crate) fn prf(kind: Prf, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    match kind {
        Prf::Md5 => hmac::<Md5>(key, parts),
        Prf::Sha1 => hmac::<Sha1>(key, parts),
        Prf::Sha256 => hmac::<Sha256>(key, parts),
        Prf::Sha384 => hmac::<Sha384>(key, parts),
        Prf::Sha512 => hmac::<Sha512>(key, parts),
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
    let mut icv = prf(integrity.prf(), key, &[message]);
    icv.truncate(integrity.icv_len());
    icv
}

fn digest<D: Digest>(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut digest = D::new();
    parts.iter().for_each(|part| digest.update(part));
    wiped(digest.finalize())
}

fn hmac<D: EagerHash>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut mac = <Hmac<D> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    wiped(mac.finalize().into_bytes())
}

/// Octets in memory that is wiped; where they were is wiped at once.
fn wiped(mut octets: impl AsMut<[u8]>) -> Zeroizing<Vec<u8>> {
    let octets = octets.as_mut();
    let moved = Zeroizing::new(octets.to_vec());
    octets.zeroize();
    moved
}
