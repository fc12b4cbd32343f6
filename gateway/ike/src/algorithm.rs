//! The algorithms this endpoint knows: their words in configuration, their transform numbers (IANA "IKEv2
//! Parameters") and their sizes.

use std::{fmt, str::FromStr};

/// An encryption transform (transform type 1), for IKE SAs and for ESP alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encryption {
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
}

impl Encryption {
    /// Every encryption algorithm.
    pub const ALL: [Self; 6] =
        [Self::Aes128, Self::Aes192, Self::Aes256, Self::Aes128Gcm16, Self::Aes192Gcm16, Self::Aes256Gcm16];

    /// Whether the algorithm authenticates by itself and takes no integrity transform.
    pub fn is_aead(self) -> bool {
        matches!(self, Self::Aes128Gcm16 | Self::Aes192Gcm16 | Self::Aes256Gcm16)
    }

    /// Octets of the AES key, without the salt of GCM.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128 | Self::Aes128Gcm16 => 16,
            Self::Aes192 | Self::Aes192Gcm16 => 24,
            Self::Aes256 | Self::Aes256Gcm16 => 32,
        }
    }

    /// Octets of salt that follow the key in keying material (RFC 4106 section 8.1).
    pub fn salt_len(self) -> usize {
        if self.is_aead() { 4 } else { 0 }
    }

    pub(crate) fn transform(self) -> (u16, u16) {
        (if self.is_aead() { 20 } else { 12 }, self.key_len() as u16 * 8)
    }

    pub(crate) fn from_transform(id: u16, key_bits: Option<u16>) -> Option<Self> {
        Self::ALL.into_iter().find(|e| (e.transform().0, Some(e.transform().1)) == (id, key_bits))
    }
}

/// An integrity transform (transform type 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Integrity {
    /// HMAC-SHA1-96 (RFC 2404).
    Sha1,
    /// HMAC-SHA2-256-128 (RFC 4868).
    Sha256,
}

impl Integrity {
    /// Every integrity algorithm.
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    /// Octets of the key.
    pub fn key_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Octets of the truncated ICV.
    pub fn icv_len(self) -> usize {
        match self {
            Self::Sha1 => 12,
            Self::Sha256 => 16,
        }
    }

    pub(crate) fn transform(self) -> u16 {
        match self {
            Self::Sha1 => 2,
            Self::Sha256 => 12,
        }
    }

    pub(crate) fn from_transform(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.transform() == id)
    }
}

/// A pseudorandom function (transform type 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prf {
    /// PRF-HMAC-SHA1 (RFC 2104).
    Sha1,
    /// PRF-HMAC-SHA2-256 (RFC 4868).
    Sha256,
}

impl Prf {
    /// Every pseudorandom function.
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    /// Octets of output, which is also the preferred key length.
    pub fn output_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    pub(crate) fn transform(self) -> u16 {
        match self {
            Self::Sha1 => 2,
            Self::Sha256 => 5,
        }
    }

    pub(crate) fn from_transform(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.transform() == id)
    }
}

/// A Diffie-Hellman group (transform type 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Group 2, 1024-bit MODP (RFC 7296 appendix B.2).
    Modp1024,
    /// Group 14, 2048-bit MODP (RFC 3526).
    Modp2048,
    /// Group 19, NIST P-256 (RFC 5903).
    P256,
    /// Group 31, Curve25519 (RFC 8031).
    X25519,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 4] = [Self::Modp1024, Self::Modp2048, Self::P256, Self::X25519];

    /// The IANA number, which is also how people name the group.
    pub fn number(self) -> u16 {
        match self {
            Self::Modp1024 => 2,
            Self::Modp2048 => 14,
            Self::P256 => 19,
            Self::X25519 => 31,
        }
    }

    /// The group with this IANA number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.number() == number)
    }

    /// Octets of a public value on the wire.
    pub fn public_len(self) -> usize {
        match self {
            Self::Modp1024 => 128,
            Self::Modp2048 => 256,
            Self::P256 => 64,
            Self::X25519 => 32,
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes128 => "aes128",
            Self::Aes192 => "aes192",
            Self::Aes256 => "aes256",
            Self::Aes128Gcm16 => "aes128gcm16",
            Self::Aes192Gcm16 => "aes192gcm16",
            Self::Aes256Gcm16 => "aes256gcm16",
        })
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        })
    }
}

impl fmt::Display for Prf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "prfsha1",
            Self::Sha256 => "prfsha256",
        })
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Modp1024 => "modp1024",
            Self::Modp2048 => "modp2048",
            Self::P256 => "ecp256",
            Self::X25519 => "x25519",
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
        parse(word, &Self::ALL, |p| p.to_string().trim_start_matches("prf").to_owned())
    }
}

/// Takes the group's number, as in `14`.
impl FromStr for Group {
    type Err = UnknownAlgorithm;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        parse(word, &Self::ALL, |g| g.number().to_string())
    }
}
