//! ML-KEM-768 (FIPS 203) as a key exchange of IKEv2 (RFC 9370): the initiator's public value is an encapsulation
//! key, the responder's a ciphertext.

use ml_kem::{DecapsulationKey, EncapsulationKey, MlKem768, kem::Decapsulate, kem::KeyExport};
use zeroize::{Zeroize, Zeroizing};

/// Octets of randomness that either side's part needs: the initiator takes d and z of FIPS 203 algorithm 16 from
/// them, the responder m of algorithm 17 from the first half.
pub(super) const SECRET_LEN: usize = 64;

/// The initiator's public value: the encapsulation key.
pub(super) fn public(secret: &[u8]) -> Vec<u8> {
    key(secret).encapsulation_key().to_bytes().to_vec()
}

/// The responder's public value and the shared secret; `None` unless `peer` is an encapsulation key whose
/// coefficients are reduced (FIPS 203 section 7.2).
pub(super) fn encapsulate(secret: &[u8], peer: &[u8]) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let key = EncapsulationKey::<MlKem768>::new(peer.try_into().ok()?).ok()?;
    let m = secret.first_chunk::<32>()?;
    let (ciphertext, mut shared) = key.encapsulate_deterministic(m.into());
    let octets = Zeroizing::new(shared.to_vec());
    shared.zeroize();
    Some((ciphertext.to_vec(), octets))
}

/// The shared secret with a responder's ciphertext; `None` for a wrong length. A ciphertext that is not of our key
/// gives a secret that nobody knows (implicit rejection).
pub(super) fn decapsulate(secret: &[u8], peer: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let ciphertext = peer.try_into().ok()?;
    let mut shared = key(secret).decapsulate(ciphertext);
    let octets = Zeroizing::new(shared.to_vec());
    shared.zeroize();
    Some(octets)
}

fn key(secret: &[u8]) -> DecapsulationKey<MlKem768> {
    let mut seed = ml_kem::Seed::try_from(secret).expect("a secret is drawn with this length");
    let key = DecapsulationKey::from_seed(seed);
    seed.zeroize();
    key
}
