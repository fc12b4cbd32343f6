//! Key derivation of IKEv1: SKEYID and what follows from it (RFC 2409 section 5), the hashes that authenticate
//! (sections 5 and 5.5), the cipher's key (appendix B) and keying material of quick mode (section 5.5).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    cipher::MessageCipher,
    proposal::{PhaseOneSuite, PhaseTwoSuite},
    wire::ProtocolId,
};
use crate::{
    algorithm::Prf,
    crypto::prf::{hash, prf},
    event::DirectionKeys,
    kept,
};

/// What both sides know after the key exchange of phase 1, apart from the shared secret: bodies of payloads as they
/// went over the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchanged<'a> {
    /// CKY-I.
    pub(crate) initiator_cookie: u64,
    /// CKY-R.
    pub(crate) responder_cookie: u64,
    /// Ni_b.
    pub(crate) initiator_nonce: &'a [u8],
    /// Nr_b.
    pub(crate) responder_nonce: &'a [u8],
    /// g^xi.
    pub(crate) initiator_public: &'a [u8],
    /// g^xr.
    pub(crate) responder_public: &'a [u8],
}

/// What both sides know after a quick mode.
#[derive(Clone, Copy)]
pub(crate) struct QuickExchanged<'a> {
    /// Ni_b.
    pub(crate) initiator_nonce: &'a [u8],
    /// Nr_b.
    pub(crate) responder_nonce: &'a [u8],
    /// g(qm)^xy, with perfect forward secrecy.
    pub(crate) shared: Option<&'a [u8]>,
}

/// The keys of an ISAKMP SA, apart from the one that encrypts its messages. Wiped when dropped.
pub(crate) struct SaKeys {
    prf: Prf,
    /// SKEYID.
    root: Zeroizing<Vec<u8>>,
    /// SKEYID_d.
    derive: Zeroizing<Vec<u8>>,
    /// SKEYID_a.
    authenticate: Zeroizing<Vec<u8>>,
}

kept! { SaKeys { prf, root, derive, authenticate } }

/// The keys of a new ISAKMP SA with a pre-shared key, and the cipher of its messages; `shared` is g^xy.
pub(crate) fn derive(
    suite: &PhaseOneSuite,
    psk: &[u8],
    shared: &[u8],
    exchanged: &Exchanged<'_>,
) -> (SaKeys, MessageCipher) {
    let kind = suite.integrity.prf();
    let root = prf(kind, psk, &[exchanged.initiator_nonce, exchanged.responder_nonce]);
    let (keys, encrypt) =
        expand(kind, root, shared, (exchanged.initiator_cookie, exchanged.responder_cookie));
    let key = cipher_key(kind, &encrypt, suite.encryption.key_len());
    let iv = hash(kind, &[exchanged.initiator_public, exchanged.responder_public]);
    (keys, MessageCipher::new(suite.encryption, kind, key, &iv))
}

/// What follows from SKEYID; SKEYID_e apart, for it only serves to make the cipher's key.
fn expand(
    kind: Prf,
    root: Zeroizing<Vec<u8>>,
    shared: &[u8],
    (initiator_cookie, responder_cookie): (u64, u64),
) -> (SaKeys, Zeroizing<Vec<u8>>) {
    let cookies = [initiator_cookie.to_be_bytes(), responder_cookie.to_be_bytes()].concat();
    let derive = prf(kind, &root, &[shared, &cookies, &[0]]);
    let authenticate = prf(kind, &root, &[&derive, shared, &cookies, &[1]]);
    let encrypt = prf(kind, &root, &[&authenticate, shared, &cookies, &[2]]);
    (SaKeys { prf: kind, root, derive, authenticate }, encrypt)
}

/// Ka: the front of SKEYID_e, which is stretched where it is too short (RFC 2409 appendix B).
fn cipher_key(kind: Prf, encrypt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + kind.output_len()));
    if encrypt.len() >= length {
        key.extend_from_slice(encrypt);
    } else {
        let mut block = prf(kind, encrypt, &[&[0]]);
        key.extend_from_slice(&block);
        while key.len() < length {
            block = prf(kind, encrypt, &[&block]);
            key.extend_from_slice(&block);
        }
    }
    key.truncate(length);
    key
}

impl SaKeys {
    /// HASH_I, by which the initiator proves to know the pre-shared key: `sa_body` is SAi_b, `id_body` IDii_b.
    pub(crate) fn hash_i(&self, exchanged: &Exchanged<'_>, sa_body: &[u8], id_body: &[u8]) -> Vec<u8> {
        let Exchanged { initiator_public, responder_public, .. } = *exchanged;
        let cookies = (exchanged.initiator_cookie, exchanged.responder_cookie);
        self.phase_one_hash(initiator_public, responder_public, cookies, sa_body, id_body)
    }

    /// HASH_R, the same of the responder: `sa_body` is SAi_b here too, `id_body` IDir_b.
    pub(crate) fn hash_r(&self, exchanged: &Exchanged<'_>, sa_body: &[u8], id_body: &[u8]) -> Vec<u8> {
        let Exchanged { initiator_public, responder_public, .. } = *exchanged;
        let cookies = (exchanged.responder_cookie, exchanged.initiator_cookie);
        self.phase_one_hash(responder_public, initiator_public, cookies, sa_body, id_body)
    }

    fn phase_one_hash(
        &self,
        own_public: &[u8],
        other_public: &[u8],
        (own_cookie, other_cookie): (u64, u64),
        sa_body: &[u8],
        id_body: &[u8],
    ) -> Vec<u8> {
        let cookies = [own_cookie.to_be_bytes(), other_cookie.to_be_bytes()].concat();
        prf(self.prf, &self.root, &[own_public, other_public, &cookies, sa_body, id_body]).to_vec()
    }

    /// HASH(1) of quick mode, and the hash of informational messages: over the payloads after the hash.
    pub(crate) fn hash_1(&self, message_id: u32, rest: &[u8]) -> Vec<u8> {
        prf(self.prf, &self.authenticate, &[&message_id.to_be_bytes(), rest]).to_vec()
    }

    /// HASH(2) of quick mode: over Ni_b and the payloads after the hash. With the commit bit the CONNECTED notify
    /// that ends quick mode has a hash of this form too.
    pub(crate) fn hash_2(&self, message_id: u32, initiator_nonce: &[u8], rest: &[u8]) -> Vec<u8> {
        prf(self.prf, &self.authenticate, &[&message_id.to_be_bytes(), initiator_nonce, rest]).to_vec()
    }

    /// HASH(3) of quick mode: over Ni_b and Nr_b.
    pub(crate) fn hash_3(&self, message_id: u32, exchanged: &QuickExchanged<'_>) -> Vec<u8> {
        let QuickExchanged { initiator_nonce, responder_nonce, .. } = *exchanged;
        let parts: [&[u8]; 4] = [&[0], &message_id.to_be_bytes(), initiator_nonce, responder_nonce];
        prf(self.prf, &self.authenticate, &parts).to_vec()
    }

    /// Keys of the direction whose packets carry `spi`, which their receiver chose (KEYMAT, RFC 2409 section 5.5).
    /// The cipher's key and salt come first, the key of integrity after (RFC 2407 section 4.5, RFC 4106 section 8.1).
    pub(crate) fn keymat(
        &self,
        suite: &PhaseTwoSuite,
        exchanged: &QuickExchanged<'_>,
        spi: u32,
    ) -> DirectionKeys {
        let (key_len, salt_len) = suite.encryption.map_or((0, 0), |e| (e.key_len(), e.salt_len()));
        let integrity_len = suite.integrity.map_or(0, |i| i.key_len());
        let length = key_len + salt_len + integrity_len;
        let protocol = [ProtocolId::from(suite.protocol).number()];
        let spi_octets = spi.to_be_bytes();
        let mut keymat: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::with_capacity(length + 64));
        let mut block: Zeroizing<Vec<u8>> = Zeroizing::default();
        while keymat.len() < length {
            let parts: [&[u8]; 6] = [
                &block,
                exchanged.shared.unwrap_or(&[]),
                &protocol,
                &spi_octets,
                exchanged.initiator_nonce,
                exchanged.responder_nonce,
            ];
            block = prf(self.prf, &self.derive, &parts);
            keymat.extend_from_slice(&block);
        }
        let (encryption_key, rest) = keymat.split_at(key_len);
        let (salt_octets, rest) = rest.split_at(salt_len);
        let mut salt = [0; 4];
        salt[..salt_len].copy_from_slice(salt_octets);
        DirectionKeys {
            spi,
            encryption_key: Zeroizing::new(encryption_key.to_vec()),
            salt,
            integrity_key: Zeroizing::new(rest[..integrity_len].to_vec()),
        }
    }
}

impl fmt::Debug for SaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaKeys({}, ..)", self.prf)
    }
}

/// Whether a hash that came is the one expected; takes the same time whichever octet differs.
pub(crate) fn same_hash(expected: &[u8], came: &[u8]) -> bool {
    expected.ct_eq(came).into()
}

/// The content of a NAT-D payload for one end of the path (RFC 3947 section 3.2).
pub(crate) fn nat_hash(
    suite: &PhaseOneSuite,
    initiator_cookie: u64,
    responder_cookie: u64,
    end: SocketAddr,
) -> Vec<u8> {
    let cookies = [initiator_cookie.to_be_bytes(), responder_cookie.to_be_bytes()].concat();
    let address = match end.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    hash(suite.integrity.prf(), &[&cookies, &address, &end.port().to_be_bytes()]).to_vec()
}

#[cfg(test)]
mod tests;
