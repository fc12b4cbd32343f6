//! Key derivation: SKEYSEED and the SK_ keys (RFC 7296 section 2.14), the AUTH data of a shared key (section
//! 2.15) and keying material of Child SAs (section 2.17).

use std::fmt;

use zeroize::Zeroizing;

use super::{
    cipher::MessageKey,
    prf::{prf, prf_plus},
};
use crate::{
    algorithm::Prf,
    event::DirectionKeys,
    kept,
    proposal::{ChildSuite, IkeSuite},
};

const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// What both sides of an IKE SA know after IKE_SA_INIT, apart from the shared secret.
pub(crate) struct Exchanged<'a> {
    pub(crate) initiator_nonce: &'a [u8],
    pub(crate) responder_nonce: &'a [u8],
    pub(crate) initiator_spi: u64,
    pub(crate) responder_spi: u64,
}

/// The keys of an IKE SA, apart from those that protect its messages. Wiped when dropped.
pub(crate) struct SaKeys {
    prf: Prf,
    /// SK_d.
    derive: Zeroizing<Vec<u8>>,
    /// SK_pi.
    auth_initiator: Zeroizing<Vec<u8>>,
    /// SK_pr.
    auth_responder: Zeroizing<Vec<u8>>,
}

kept! { SaKeys { prf, derive, auth_initiator, auth_responder } }

/// The keys of a new IKE SA, and those of its messages from the initiator and from the responder.
pub(crate) fn derive(
    suite: &IkeSuite,
    shared: &[u8],
    exchanged: &Exchanged<'_>,
) -> (SaKeys, MessageKey, MessageKey) {
    let nonces = [exchanged.initiator_nonce, exchanged.responder_nonce].concat();
    expand(suite, &prf(suite.prf, &nonces, &[shared]), exchanged)
}

/// The SK_ keys from SKEYSEED (RFC 7296 section 2.14).
fn expand(suite: &IkeSuite, seed: &[u8], exchanged: &Exchanged<'_>) -> (SaKeys, MessageKey, MessageKey) {
    let nonces = [exchanged.initiator_nonce, exchanged.responder_nonce].concat();
    let spis = [exchanged.initiator_spi.to_be_bytes(), exchanged.responder_spi.to_be_bytes()].concat();
    let key_len = suite.prf.output_len();
    let integrity_len = suite.integrity.map_or(0, |i| i.key_len());
    let encryption_len = suite.encryption.key_len() + suite.encryption.salt_len();
    let stream =
        prf_plus(suite.prf, seed, &[&nonces, &spis], 3 * key_len + 2 * (integrity_len + encryption_len));
    let mut keys = Splitter(&stream);
    let derive = keys.take(key_len);
    let integrity = [keys.take(integrity_len), keys.take(integrity_len)];
    let encryption = [keys.take(encryption_len), keys.take(encryption_len)];
    let (auth_initiator, auth_responder) = (keys.take(key_len), keys.take(key_len));
    let [from_initiator, from_responder] = std::array::from_fn(|i| {
        let integrity = suite.integrity.map(|algorithm| (algorithm, integrity[i].clone()));
        MessageKey::new(suite.encryption, encryption[i].clone(), integrity)
    });
    (SaKeys { prf: suite.prf, derive, auth_initiator, auth_responder }, from_initiator, from_responder)
}

impl SaKeys {
    /// The keys of the IKE SA that a rekey of this one makes, and those of its messages from the rekey's initiator
    /// and from its responder (RFC 7296 section 2.18). `additional` is the secret of its additional key exchange, empty
    /// where it has none (RFC 9370 section 2.2.4).
    pub(crate) fn rekey(
        &self,
        suite: &IkeSuite,
        shared: &[u8],
        additional: &[u8],
        exchanged: &Exchanged<'_>,
    ) -> (SaKeys, MessageKey, MessageKey) {
        let nonces = [exchanged.initiator_nonce, exchanged.responder_nonce];
        let seed = prf(self.prf, &self.derive, &[shared, nonces[0], nonces[1], additional]);
        expand(suite, &seed, exchanged)
    }

    /// The keys after an additional key exchange of the same IKE SA (RFC 9370 section 2.2.2): computed like those of
    /// a rekey, from the same nonces and SPIs.
    pub(crate) fn additional(
        &self,
        suite: &IkeSuite,
        shared: &[u8],
        exchanged: &Exchanged<'_>,
    ) -> (SaKeys, MessageKey, MessageKey) {
        self.rekey(suite, shared, &[], exchanged)
    }

    /// These keys with a post-quantum pre-shared key mixed into those that derive and authenticate (RFC 8784 section
    /// 3).
    pub(crate) fn mixed_with(&self, ppk: &[u8]) -> Self {
        let mix = |key: &[u8]| prf_plus(self.prf, ppk, &[key], self.prf.output_len());
        Self {
            prf: self.prf,
            derive: mix(&self.derive),
            auth_initiator: mix(&self.auth_initiator),
            auth_responder: mix(&self.auth_responder),
        }
    }

    /// IntAuth of one side after one more IKE_INTERMEDIATE message of it (RFC 9242 section 3.3.2).
    pub(crate) fn int_auth(&self, by_initiator: bool, before: &[u8], message: &[u8]) -> Vec<u8> {
        prf(self.prf, self.sk_p(by_initiator), &[before, message]).to_vec()
    }

    fn sk_p(&self, initiator: bool) -> &[u8] {
        if initiator { &self.auth_initiator } else { &self.auth_responder }
    }

    /// AUTH data by which the initiator or the responder proves to know `psk`: over its own first message,
    /// the other's nonce, the body of its own ID payload, and IntAuth where there were IKE_INTERMEDIATE exchanges.
    pub(crate) fn shared_key_auth(
        &self,
        by_initiator: bool,
        psk: &[u8],
        first_message: &[u8],
        peer_nonce: &[u8],
        id_body: &[u8],
        int_auth: &[u8],
    ) -> Zeroizing<Vec<u8>> {
        let maced_id = prf(self.prf, self.sk_p(by_initiator), &[id_body]);
        let key = prf(self.prf, psk, &[KEY_PAD]);
        prf(self.prf, &key, &[first_message, peer_nonce, &maced_id, int_auth])
    }

    /// Keys of a Child SA: from the initiator of the exchange that makes it to the responder, and back. `shared` is
    /// the secret of the Child SA's own key exchange, empty where it has none.
    pub(crate) fn child(
        &self,
        suite: &ChildSuite,
        shared: &[u8],
        initiator_nonce: &[u8],
        responder_nonce: &[u8],
    ) -> [ChildKeys; 2] {
        let (key_len, salt_len) = suite.encryption.map_or((0, 0), |e| (e.key_len(), e.salt_len()));
        let integrity_len = suite.integrity.map_or(0, |i| i.key_len());
        let length = 2 * (key_len + salt_len + integrity_len);
        let stream = prf_plus(self.prf, &self.derive, &[shared, initiator_nonce, responder_nonce], length);
        let mut keys = Splitter(&stream);
        std::array::from_fn(|_| ChildKeys::split([key_len, salt_len, integrity_len], &mut keys))
    }
}

impl fmt::Debug for SaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaKeys({}, ..)", self.prf)
    }
}

/// Keys of one direction of a Child SA, before its SPI is put to them.
pub(crate) struct ChildKeys {
    encryption_key: Zeroizing<Vec<u8>>,
    salt: Zeroizing<[u8; 4]>,
    integrity_key: Zeroizing<Vec<u8>>,
}

impl ChildKeys {
    fn split([key_len, salt_len, integrity_len]: [usize; 3], keys: &mut Splitter<'_>) -> Self {
        let encryption_key = keys.take(key_len);
        let mut salt = Zeroizing::new([0; 4]);
        salt[..salt_len].copy_from_slice(&keys.take(salt_len));
        Self { encryption_key, salt, integrity_key: keys.take(integrity_len) }
    }

    pub(crate) fn with_spi(self, spi: u32) -> DirectionKeys {
        let Self { encryption_key, salt, integrity_key } = self;
        DirectionKeys { spi, encryption_key, salt: *salt, integrity_key }
    }
}

/// Cuts keys off the front of keying material.
struct Splitter<'a>(&'a [u8]);

impl Splitter<'_> {
    fn take(&mut self, length: usize) -> Zeroizing<Vec<u8>> {
        let (key, rest) = self.0.split_at(length);
        self.0 = rest;
        Zeroizing::new(key.to_vec())
    }
}

#[cfg(test)]
mod tests;
