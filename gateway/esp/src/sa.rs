//! What an SA is made of.

use std::fmt;
use std::net::IpAddr;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that the longest cipher key takes.
pub const KEY_LEN: usize = 32;

/// Bytes that the longest integrity key takes.
pub const AUTH_KEY_LEN: usize = 64;

/// Largest anti-replay window in packets.
pub const REPLAY_WINDOW_MAX: u32 = 4096;

/// What protects the packets of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Encapsulating Security Payload (RFC 4303).
    Esp,
    /// Authentication Header (RFC 4302): encrypts nothing, protects the outer header too.
    Ah,
}

/// Encryption algorithm of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// None: NULL (RFC 2410) with ESP, and the only one with AH.
    Null,
    /// DES-CBC (RFC 2405). Broken; for peers that have nothing else.
    DesCbc,
    /// 3DES-CBC with three keys (RFC 2451).
    TripleDesCbc,
    /// AES-CBC with a 128-bit key (RFC 3602).
    Aes128Cbc,
    /// AES-CBC with a 192-bit key (RFC 3602).
    Aes192Cbc,
    /// AES-CBC with a 256-bit key (RFC 3602).
    Aes256Cbc,
    /// AES-GCM with a 128-bit key and a 16-byte ICV (RFC 4106).
    Aes128Gcm16,
    /// AES-GCM with a 192-bit key and a 16-byte ICV (RFC 4106).
    Aes192Gcm16,
    /// AES-GCM with a 256-bit key and a 16-byte ICV (RFC 4106).
    Aes256Gcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
}

impl Cipher {
    /// Every cipher.
    pub const ALL: [Cipher; 10] = [
        Cipher::Null,
        Cipher::DesCbc,
        Cipher::TripleDesCbc,
        Cipher::Aes128Cbc,
        Cipher::Aes192Cbc,
        Cipher::Aes256Cbc,
        Cipher::Aes128Gcm16,
        Cipher::Aes192Gcm16,
        Cipher::Aes256Gcm16,
        Cipher::ChaCha20Poly1305,
    ];

    /// Bytes of the key, DES's parity bits included, without an AEAD's salt.
    pub const fn key_len(self) -> usize {
        match self {
            Cipher::Null => 0,
            Cipher::DesCbc => 8,
            Cipher::Aes128Cbc | Cipher::Aes128Gcm16 => 16,
            Cipher::TripleDesCbc | Cipher::Aes192Cbc | Cipher::Aes192Gcm16 => 24,
            Cipher::Aes256Cbc | Cipher::Aes256Gcm16 | Cipher::ChaCha20Poly1305 => 32,
        }
    }

    /// Whether the cipher authenticates by itself and takes [`Auth::None`].
    pub const fn is_aead(self) -> bool {
        matches!(
            self,
            Cipher::Aes128Gcm16 | Cipher::Aes192Gcm16 | Cipher::Aes256Gcm16 | Cipher::ChaCha20Poly1305
        )
    }
}

/// Integrity algorithm of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Auth {
    /// The cipher authenticates.
    None,
    /// HMAC-MD5-96 (RFC 2403).
    HmacMd5_96,
    /// HMAC-SHA1-96 (RFC 2404).
    HmacSha1_96,
    /// HMAC-SHA256-128 (RFC 4868).
    HmacSha256_128,
    /// HMAC-SHA384-192 (RFC 4868).
    HmacSha384_192,
    /// HMAC-SHA512-256 (RFC 4868).
    HmacSha512_256,
}

impl Auth {
    /// Every integrity algorithm.
    pub const ALL: [Auth; 6] = [
        Auth::None,
        Auth::HmacMd5_96,
        Auth::HmacSha1_96,
        Auth::HmacSha256_128,
        Auth::HmacSha384_192,
        Auth::HmacSha512_256,
    ];

    /// Bytes of the key.
    pub const fn key_len(self) -> usize {
        match self {
            Auth::None => 0,
            Auth::HmacMd5_96 => 16,
            Auth::HmacSha1_96 => 20,
            Auth::HmacSha256_128 => 32,
            Auth::HmacSha384_192 => 48,
            Auth::HmacSha512_256 => 64,
        }
    }

    /// Bytes of the ICV; an AEAD's belongs to the cipher and counts as 0 here.
    pub const fn icv_len(self) -> usize {
        match self {
            Auth::None => 0,
            Auth::HmacMd5_96 | Auth::HmacSha1_96 => 12,
            Auth::HmacSha256_128 => 16,
            Auth::HmacSha384_192 => 24,
            Auth::HmacSha512_256 => 32,
        }
    }
}

/// Everything [`Engine::install`](crate::Engine::install) expands into an SA.
#[derive(Clone)]
pub struct SaParams {
    /// Which of the SAs that have had this index; told back by [`Engine::generation`](crate::Engine::generation).
    pub generation: u32,
    /// Security parameter index, above 255 (RFC 4303 section 2.1).
    pub spi: u32,
    /// ESP or AH.
    pub protocol: Protocol,
    /// Encryption algorithm; [`Cipher::Null`] with AH.
    pub cipher: Cipher,
    /// Integrity algorithm; [`Auth::None`] with an AEAD and only then.
    pub auth: Auth,
    /// Cipher key: the first [`Cipher::key_len`] bytes.
    pub key: [u8; KEY_LEN],
    /// Salt of an AEAD's nonce (RFC 4106 section 4, RFC 7634 section 2); not used by others.
    pub salt: [u8; 4],
    /// Integrity key: the first [`Auth::key_len`] bytes.
    pub auth_key: [u8; AUTH_KEY_LEN],
    /// Extended sequence numbers (RFC 4303 section 2.2.1).
    pub esn: bool,
    /// Anti-replay window in packets up to [`REPLAY_WINDOW_MAX`]; 0 turns anti-replay off. Inbound only.
    pub replay_window: u32,
    /// The outer header that sealing puts on.
    pub outer: Outer,
}

impl std::ops::Drop for SaParams {
    fn drop(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
        self.auth_key.zeroize();
    }
}

impl ZeroizeOnDrop for SaParams {}

impl fmt::Debug for SaParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaParams")
            .field("generation", &self.generation)
            .field("spi", &format_args!("{:#010x}", self.spi))
            .field("protocol", &self.protocol)
            .field("cipher", &self.cipher)
            .field("auth", &self.auth)
            .field("esn", &self.esn)
            .field("replay_window", &self.replay_window)
            .field("outer", &self.outer)
            .finish_non_exhaustive()
    }
}

/// Outer header of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outer {
    /// Our address.
    pub local: IpAddr,
    /// The peer's address, of the same family.
    pub peer: IpAddr,
    /// Source and destination port when UDP-encapsulated (RFC 3948); native ESP without. Never with AH.
    pub udp: Option<(u16, u16)>,
}

/// Parameters that no SA can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSa {
    /// The index does not fit the engine.
    #[error("SA index {index} is beyond the engine's capacity of {capacity}")]
    Index {
        /// The index asked for.
        index: u32,
        /// SAs the engine was made for.
        capacity: usize,
    },
    /// 0 is local and 1..=255 are reserved (RFC 4303 section 2.1).
    #[error("SPI {0} is reserved; an SPI is 256 or above")]
    Spi(u32),
    /// An AEAD takes no integrity algorithm, everything else needs one (RFC 8221 section 4); AH takes no cipher.
    #[error("{protocol:?} cannot have {cipher:?} with {auth:?}")]
    Combination {
        /// The protocol asked for.
        protocol: Protocol,
        /// The cipher asked for.
        cipher: Cipher,
        /// The integrity algorithm asked for.
        auth: Auth,
    },
    /// AH protects the addresses that a NAT changes, so there is no encapsulation of it (RFC 3948 covers ESP only).
    #[error("AH cannot be UDP-encapsulated")]
    EncapsulatedAh,
    /// Larger than [`REPLAY_WINDOW_MAX`].
    #[error("a replay window of {0} packets is too large; 0 to {REPLAY_WINDOW_MAX} are allowed")]
    ReplayWindow(u32),
    /// One outer address is IPv4 and the other IPv6.
    #[error("outer addresses {local} and {peer} are of different families")]
    Family {
        /// Our address.
        local: IpAddr,
        /// The peer's address.
        peer: IpAddr,
    },
}
