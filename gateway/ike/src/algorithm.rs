//! The algorithms this endpoint knows: their words in configuration, their transform numbers (IANA "IKEv2
//! Parameters") and their sizes.

use std::{fmt, str::FromStr};

/// An encryption transform (transform type 1), for IKE SAs and for ESP alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encryption {
    /// No encryption (RFC 2410); ESP only.
    Null,
    /// DES-CBC (RFC 2405). Broken.
    Des,
    /// 3DES-CBC with three keys (RFC 2451). Deprecated.
    TripleDes,
    /// AES-CBC with a 128-bit key (RFC 3602).
    Aes128,
    /// AES-CBC with a 192-bit key.
    Aes192,
    /// AES-CBC with a 256-bit key.
    Aes256,
    /// AES-GCM with a 128-bit key and a 16-octet ICV (RFC 4106, RFC 5282).
    Aes128Gcm16,
    /// AES-GCM with a 192-bit key and a 16-octet ICV.
    Aes192Gcm16,
    /// AES-GCM with a 256-bit key and a 16-octet ICV.
    Aes256Gcm16,
    /// ChaCha20 with Poly1305 (RFC 7634).
    ChaCha20Poly1305,
}

impl Encryption {
    /// Every encryption algorithm.
    pub const ALL: [Self; 10] = [
        Self::Null,
        Self::Des,
        Self::TripleDes,
        Self::Aes128,
        Self::Aes192,
        Self::Aes256,
        Self::Aes128Gcm16,
        Self::Aes192Gcm16,
        Self::Aes256Gcm16,
        Self::ChaCha20Poly1305,
    ];

    /// What phase 1 may be configured with.
    pub const FOR_IKE: [Self; 8] = [
        Self::Des,
        Self::TripleDes,
        Self::Aes128,
        Self::Aes192,
        Self::Aes256,
        Self::Aes128Gcm16,
        Self::Aes256Gcm16,
        Self::ChaCha20Poly1305,
    ];

    /// What ESP may be configured with.
    pub const FOR_IPSEC: [Self; 10] = Self::ALL;

    /// Whether the algorithm authenticates by itself and takes no integrity transform.
    pub fn is_aead(self) -> bool {
        matches!(self, Self::Aes128Gcm16 | Self::Aes192Gcm16 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305)
    }

    /// Whether it is broken or deprecated (RFC 8247, RFC 8221), and only there for peers that have nothing else.
    pub fn is_deprecated(self) -> bool {
        matches!(self, Self::Des | Self::TripleDes)
    }

    /// Octets of the cipher's key, without the salt of an AEAD.
    pub fn key_len(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Des => 8,
            Self::Aes128 | Self::Aes128Gcm16 => 16,
            Self::TripleDes | Self::Aes192 | Self::Aes192Gcm16 => 24,
            Self::Aes256 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Octets of salt that follow the key in keying material (RFC 4106 section 8.1, RFC 7634 section 2).
    pub fn salt_len(self) -> usize {
        if self.is_aead() { 4 } else { 0 }
    }

    /// Octets that the plaintext must be padded to a multiple of.
    pub fn block_len(self) -> usize {
        match self {
            Self::Null => 1,
            Self::Des | Self::TripleDes => 8,
            Self::Aes128 | Self::Aes192 | Self::Aes256 => 16,
            Self::Aes128Gcm16 | Self::Aes192Gcm16 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 1,
        }
    }

    /// Octets of the IV that goes with each message or packet.
    pub fn iv_len(self) -> usize {
        match self {
            Self::Null => 0,
            _ if self.is_aead() => 8,
            _ => self.block_len(),
        }
    }

    /// The transform ID, and the key length in bits of those algorithms that have the attribute.
    pub(crate) fn transform(self) -> (u16, Option<u16>) {
        let id = match self {
            Self::Des => 2,
            Self::TripleDes => 3,
            Self::Null => 11,
            Self::Aes128 | Self::Aes192 | Self::Aes256 => 12,
            Self::Aes128Gcm16 | Self::Aes192Gcm16 | Self::Aes256Gcm16 => 20,
            Self::ChaCha20Poly1305 => 28,
        };
        (id, matches!(id, 12 | 20).then_some(self.key_len() as u16 * 8))
    }

    pub(crate) fn from_transform(id: u16, key_bits: Option<u16>) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.transform() == (id, key_bits))
    }
}

/// An integrity transform (transform type 3): a truncated HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Integrity {
    /// HMAC-MD5-96 (RFC 2403). Broken.
    Md5,
    /// HMAC-SHA1-96 (RFC 2404). Deprecated.
    Sha1,
    /// HMAC-SHA2-256-128 (RFC 4868).
    Sha256,
    /// HMAC-SHA2-384-192 (RFC 4868).
    Sha384,
    /// HMAC-SHA2-512-256 (RFC 4868).
    Sha512,
}

impl Integrity {
    /// Every integrity algorithm.
    pub const ALL: [Self; 5] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Whether it is broken or deprecated.
    pub fn is_deprecated(self) -> bool {
        self.prf().is_deprecated()
    }

    /// Octets of the key.
    pub fn key_len(self) -> usize {
        self.prf().output_len()
    }

    /// Octets of the truncated ICV.
    pub fn icv_len(self) -> usize {
        match self {
            Self::Md5 | Self::Sha1 => 12,
            Self::Sha256 => 16,
            Self::Sha384 => 24,
            Self::Sha512 => 32,
        }
    }

    /// The HMAC before it is truncated.
    pub(crate) fn prf(self) -> Prf {
        match self {
            Self::Md5 => Prf::Md5,
            Self::Sha1 => Prf::Sha1,
            Self::Sha256 => Prf::Sha256,
            Self::Sha384 => Prf::Sha384,
            Self::Sha512 => Prf::Sha512,
        }
    }

    pub(crate) fn transform(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha1 => 2,
            Self::Sha256 => 12,
            Self::Sha384 => 13,
            Self::Sha512 => 14,
        }
    }

    pub(crate) fn from_transform(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.transform() == id)
    }
}

/// A pseudorandom function (transform type 2): an HMAC. IKEv1 negotiates it as the hash within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prf {
    /// PRF-HMAC-MD5 (RFC 2104). Broken.
    Md5,
    /// PRF-HMAC-SHA1 (RFC 2104). Deprecated.
    Sha1,
    /// PRF-HMAC-SHA2-256 (RFC 4868).
    Sha256,
    /// PRF-HMAC-SHA2-384 (RFC 4868).
    Sha384,
    /// PRF-HMAC-SHA2-512 (RFC 4868).
    Sha512,
}

impl Prf {
    /// Every pseudorandom function.
    pub const ALL: [Self; 5] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Whether it is broken or deprecated.
    pub fn is_deprecated(self) -> bool {
        matches!(self, Self::Md5 | Self::Sha1)
    }

    /// Octets of output, which is also the preferred key length.
    pub fn output_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    pub(crate) fn transform(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha1 => 2,
            Self::Sha256 => 5,
            Self::Sha384 => 6,
            Self::Sha512 => 7,
        }
    }

    pub(crate) fn from_transform(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.transform() == id)
    }
}

/// A Diffie-Hellman group or another key exchange method (transform type 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Group 1, 768-bit MODP (RFC 7296 appendix B.1). Broken.
    Modp768,
    /// Group 2, 1024-bit MODP (RFC 7296 appendix B.2). Broken.
    Modp1024,
    /// Group 5, 1536-bit MODP (RFC 3526). Deprecated.
    Modp1536,
    /// Group 14, 2048-bit MODP (RFC 3526).
    Modp2048,
    /// Group 15, 3072-bit MODP (RFC 3526).
    Modp3072,
    /// Group 16, 4096-bit MODP (RFC 3526).
    Modp4096,
    /// Group 19, NIST P-256 (RFC 5903).
    P256,
    /// Group 20, NIST P-384 (RFC 5903).
    P384,
    /// Group 21, NIST P-521 (RFC 5903).
    P521,
    /// Group 24, 2048-bit MODP with a 256-bit prime order subgroup (RFC 5114). Deprecated: nobody knows where its
    /// prime is from.
    Modp2048S256,
    /// Group 31, Curve25519 (RFC 8031).
    X25519,
    /// Method 36, ML-KEM-768 (FIPS 203), as an additional key exchange (RFC 9370) only.
    MlKem768,
}

impl Group {
    /// Every Diffie-Hellman group: what an IKE SA or a Child SA may be configured with.
    pub const ALL: [Self; 11] = [
        Self::Modp768,
        Self::Modp1024,
        Self::Modp1536,
        Self::Modp2048,
        Self::Modp3072,
        Self::Modp4096,
        Self::P256,
        Self::P384,
        Self::P521,
        Self::Modp2048S256,
        Self::X25519,
    ];

    /// Every method that an additional key exchange (RFC 9370) may be configured with.
    pub const ADDITIONAL: [Self; 1] = [Self::MlKem768];

    /// Whether it is broken or deprecated (RFC 8247).
    pub fn is_deprecated(self) -> bool {
        matches!(self, Self::Modp768 | Self::Modp1024 | Self::Modp1536 | Self::Modp2048S256)
    }

    /// The IANA number, which is also how people name a Diffie-Hellman group.
    pub fn number(self) -> u16 {
        match self {
            Self::Modp768 => 1,
            Self::Modp1024 => 2,
            Self::Modp1536 => 5,
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::P256 => 19,
            Self::P384 => 20,
            Self::P521 => 21,
            Self::Modp2048S256 => 24,
            Self::X25519 => 31,
            Self::MlKem768 => 36,
        }
    }

    /// The group with this IANA number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::ADDITIONAL).find(|g| g.number() == number)
    }

    /// The word in configuration: the number of a Diffie-Hellman group, `mlkem768` for ML-KEM-768.
    pub fn word(self) -> String {
        match self {
            Self::MlKem768 => self.to_string(),
            _ => self.number().to_string(),
        }
    }

    /// Octets of the initiator's public value on the wire. The responder's has as many, but for ML-KEM-768, where
    /// the first is an encapsulation key and the second a ciphertext of [`Group::answer_len`].
    pub fn public_len(self) -> usize {
        match self {
            Self::Modp768 => 96,
            Self::Modp1024 => 128,
            Self::Modp1536 => 192,
            Self::Modp2048 | Self::Modp2048S256 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::P256 => 64,
            Self::P384 => 96,
            Self::P521 => 132,
            Self::X25519 => 32,
            Self::MlKem768 => 1184,
        }
    }

    /// Octets of the responder's public value on the wire.
    pub fn answer_len(self) -> usize {
        match self {
            Self::MlKem768 => 1088,
            _ => self.public_len(),
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Des => "des",
            Self::TripleDes => "3des",
            Self::Aes128 => "aes128",
            Self::Aes192 => "aes192",
            Self::Aes256 => "aes256",
            Self::Aes128Gcm16 => "aes128gcm16",
            Self::Aes192Gcm16 => "aes192gcm16",
            Self::Aes256Gcm16 => "aes256gcm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
        })
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prf().hash_name())
    }
}

/// As in `prfsha256`, so that a suite does not name two things alike.
impl fmt::Display for Prf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prf{}", self.hash_name())
    }
}

impl Prf {
    /// The hash within, by which the PRF goes in configuration: `sha256`.
    pub fn hash_name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Modp768 => "modp768",
            Self::Modp1024 => "modp1024",
            Self::Modp1536 => "modp1536",
            Self::Modp2048 => "modp2048",
            Self::Modp3072 => "modp3072",
            Self::Modp4096 => "modp4096",
            Self::P256 => "ecp256",
            Self::P384 => "ecp384",
            Self::P521 => "ecp521",
            Self::Modp2048S256 => "modp2048s256",
            Self::X25519 => "x25519",
            Self::MlKem768 => "mlkem768",
        })
    }
}

/// A word that names no algorithm of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not one of {allowed}")]
pub struct UnknownAlgorithm {
    /// The word that came.
    pub word: String,
    /// The words that would have been taken.
    pub allowed: String,
}

fn parse<T: Copy>(word: &str, all: &[T], name: impl Fn(T) -> String) -> Result<T, UnknownAlgorithm> {
    all.iter().copied().find(|&a| name(a) == word).ok_or_else(|| UnknownAlgorithm {
        word: word.to_owned(),
        allowed: all.iter().map(|&a| name(a)).collect::<Vec<_>>().join(", "),
    })
}

impl FromStr for Encryption {
    type Err = UnknownAlgorithm;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        parse(word, &Self::ALL, |e| e.to_string())
    }
}

impl FromStr for Integrity {
    type Err = UnknownAlgorithm;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        parse(word, &Self::ALL, |i| i.to_string())
    }
}

/// Takes the words of integrity (`sha1`, `sha256`): a PRF goes by its hash in configuration.
impl FromStr for Prf {
    type Err = UnknownAlgorithm;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        parse(word, &Self::ALL, |p| p.hash_name().to_owned())
    }
}

/// Takes the group's number, as in `14`, or `mlkem768`.
impl FromStr for Group {
    type Err = UnknownAlgorithm;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        parse(word, &[&Self::ALL[..], &Self::ADDITIONAL].concat(), Self::word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_taken_back() {
        for e in Encryption::ALL {
            assert_eq!(e.to_string().parse(), Ok(e));
        }
        for i in Integrity::ALL {
            assert_eq!(i.to_string().parse(), Ok(i));
        }
        for p in Prf::ALL {
            assert_eq!(p.hash_name().parse(), Ok(p));
        }
        for g in Group::ALL.into_iter().chain(Group::ADDITIONAL) {
            assert_eq!(g.word().parse(), Ok(g));
            assert_eq!(Group::from_number(g.number()), Some(g));
        }
        assert_eq!(
            "modp2048".parse::<Group>().unwrap_err().allowed,
            "1, 2, 5, 14, 15, 16, 19, 20, 21, 24, 31, mlkem768"
        );
    }

    /// The key length goes with AES only (RFC 7296 section 3.3.5, RFC 7634 section 4).
    #[test]
    fn transforms_are_taken_back_with_their_own_key_length_only() {
        for e in Encryption::ALL {
            let (id, bits) = e.transform();
            assert_eq!(Encryption::from_transform(id, bits), Some(e));
            let other = if bits.is_some() { None } else { Some(e.key_len() as u16 * 8) };
            assert_eq!(Encryption::from_transform(id, other), None);
        }
        assert_eq!(Encryption::from_transform(12, Some(512)), None);
        for i in Integrity::ALL {
            assert_eq!(Integrity::from_transform(i.transform()), Some(i));
        }
        for p in Prf::ALL {
            assert_eq!(Prf::from_transform(p.transform()), Some(p));
        }
    }

    #[test]
    fn a_phase_1_has_no_null_encryption() {
        assert!(Encryption::FOR_IKE.iter().all(|e| *e != Encryption::Null && e.key_len() > 0));
    }
}
