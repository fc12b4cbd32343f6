//! Diffie-Hellman as data: a [`Job`] holds all that one computation needs and can be run anywhere.

use std::fmt;

use p256::elliptic_curve::sec1::ToSec1Point;
use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::modp::Modulus;
use crate::algorithm::Group;

/// A private value. Wiped when dropped.
pub(crate) struct Secret {
    group: Group,
    scalar: Zeroizing<[u8; 32]>,
}

/// The peer's public value is not one: out of range, not on the curve, or of small order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidPublic;

/// g^ir, wiped when dropped.
pub(crate) type Shared = Zeroizing<Vec<u8>>;

impl Secret {
    pub(crate) fn random(group: Group, rng: &mut dyn CryptoRng) -> Self {
        let mut scalar = Zeroizing::new([0; 32]);
        loop {
            rng.fill_bytes(&mut *scalar);
            // A P-256 scalar must lie below the group's order, which nearly all do.
            if group != Group::P256 || p256::SecretKey::from_slice(&*scalar).is_ok() {
                return Self { group, scalar };
            }
        }
    }

    #[cfg(test)]
    pub(super) fn from_scalar(group: Group, scalar: [u8; 32]) -> Self {
        Self { group, scalar: Zeroizing::new(scalar) }
    }

    pub(crate) fn group(&self) -> Group {
        self.group
    }

    /// Our public value as it goes on the wire.
    pub(crate) fn public(&self) -> Vec<u8> {
        match self.group {
            Group::Modp1024 => Modulus::Bits1024.public(&self.scalar),
            Group::Modp2048 => Modulus::Bits2048.public(&self.scalar),
            // The uncompressed point without its leading 4 (RFC 5903 section 7).
            Group::P256 => self.p256().public_key().to_sec1_point(false).as_bytes()[1..].to_vec(),
            Group::X25519 => {
                x25519_dalek::PublicKey::from(&StaticSecret::from(*self.scalar)).to_bytes().to_vec()
            }
        }
    }

    /// The shared secret with a peer's public value, which is checked first.
    pub(crate) fn agree(&self, peer: &[u8]) -> Result<Shared, InvalidPublic> {
        match self.group {
            Group::Modp1024 => Modulus::Bits1024.agree(&self.scalar, peer).ok_or(InvalidPublic),
            Group::Modp2048 => Modulus::Bits2048.agree(&self.scalar, peer).ok_or(InvalidPublic),
            Group::P256 => {
                if peer.len() != Group::P256.public_len() {
                    return Err(InvalidPublic);
                }
                let point = [&[4][..], peer].concat();
                let peer = p256::PublicKey::from_sec1_bytes(&point).map_err(|_| InvalidPublic)?;
                let secret = self.p256();
                // The x coordinate alone (RFC 5903 section 7).
                Ok(Zeroizing::new(secret.diffie_hellman(&peer).raw_secret_bytes().to_vec()))
            }
            Group::X25519 => {
                let peer: [u8; 32] = peer.try_into().map_err(|_| InvalidPublic)?;
                let shared = StaticSecret::from(*self.scalar).diffie_hellman(&peer.into());
                // All zero for points of small order (RFC 7748 section 6.1).
                shared
                    .was_contributory()
                    .then(|| Zeroizing::new(shared.to_bytes().to_vec()))
                    .ok_or(InvalidPublic)
            }
        }
    }

    fn p256(&self) -> p256::SecretKey {
        p256::SecretKey::from_slice(&*self.scalar).expect("drawn below the group's order")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, ..)", self.group)
    }
}

/// A Diffie-Hellman computation that the caller is to run, here or on another thread.
#[derive(Debug)]
pub struct Job {
    pub(crate) sa: u64,
    pub(crate) secret: Secret,
    pub(crate) work: Work,
}

/// What a [`Job`] is to compute.
#[derive(Debug)]
pub(crate) enum Work {
    /// Our public value (initiator, first message).
    Generate,
    /// The shared secret (initiator, on the answer).
    Agree(Vec<u8>),
    /// Both (responder).
    Respond(Vec<u8>),
}

/// What a [`Job`] came to; goes back in through `Endpoint::handle_job`.
#[derive(Debug)]
pub struct JobResult {
    pub(crate) sa: u64,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    Generated { secret: Secret, public: Vec<u8> },
    Agreed(Result<Shared, InvalidPublic>),
    Responded(Result<(Vec<u8>, Shared), InvalidPublic>),
}

impl Job {
    /// Computes. Depends on nothing but the job, and takes from 50 µs (x25519) to some milliseconds (MODP).
    pub fn run(self) -> JobResult {
        let Self { sa, secret, work } = self;
        let outcome = match work {
            Work::Generate => Outcome::Generated { public: secret.public(), secret },
            Work::Agree(peer) => Outcome::Agreed(secret.agree(&peer)),
            Work::Respond(peer) => {
                Outcome::Responded(secret.agree(&peer).map(|shared| (secret.public(), shared)))
            }
        };
        JobResult { sa, outcome }
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generated { .. } => "Generated",
            Self::Agreed(_) => "Agreed",
            Self::Responded(_) => "Responded",
        })
    }
}
