//! Key exchange as data: a [`Job`] holds all that one computation needs and can be run anywhere.

use std::fmt;

use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::{ecp::Curve, mlkem, modp::Modulus};
use crate::{
    algorithm::Group,
    codec::{Damaged, Field, Reader, Writer},
};

/// A private value. Wiped when dropped.
#[derive(Clone)]
pub(crate) struct Secret {
    group: Group,
    octets: Zeroizing<Vec<u8>>,
}

/// The peer's public value is not one: of the wrong length, out of range, not on the curve, of small order, or not
/// in the subgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidPublic;

/// g^ir, wiped when dropped.
pub(crate) type Shared = Zeroizing<Vec<u8>>;

/// The arithmetic behind a group.
enum Method {
    Modp(Modulus),
    Ecp(Curve),
    X25519,
    MlKem,
}

impl Group {
    fn method(self) -> Method {
        match self {
            Self::Modp768 => Method::Modp(Modulus::Bits768),
            Self::Modp1024 => Method::Modp(Modulus::Bits1024),
            Self::Modp1536 => Method::Modp(Modulus::Bits1536),
            Self::Modp2048 => Method::Modp(Modulus::Bits2048),
            Self::Modp3072 => Method::Modp(Modulus::Bits3072),
            Self::Modp4096 => Method::Modp(Modulus::Bits4096),
            Self::Modp2048S256 => Method::Modp(Modulus::Bits2048S256),
            Self::P256 => Method::Ecp(Curve::P256),
            Self::P384 => Method::Ecp(Curve::P384),
            Self::P521 => Method::Ecp(Curve::P521),
            Self::X25519 => Method::X25519,
            Self::MlKem768 => Method::MlKem,
        }
    }
}

impl Method {
    fn secret_len(&self) -> usize {
        match self {
            Self::Modp(modulus) => modulus.group().exponent_len(),
            Self::Ecp(curve) => curve.scalar_len(),
            Self::X25519 => 32,
            Self::MlKem => mlkem::SECRET_LEN,
        }
    }

    /// Whether as many octets may be a private value.
    fn is_secret(&self, octets: &[u8]) -> bool {
        match self {
            Self::Modp(modulus) => modulus.group().is_exponent(octets),
            Self::Ecp(curve) => curve.is_scalar(octets),
            Self::X25519 | Self::MlKem => true,
        }
    }
}

impl Field for Secret {
    fn write(&self, to: &mut Writer) {
        self.group.write(to);
        self.octets.write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let group = Group::read(from)?;
        let octets = <Zeroizing<Vec<u8>>>::read(from)?;
        let method = group.method();
        let fits = octets.len() == method.secret_len() && method.is_secret(&octets);
        if fits { Ok(Self { group, octets }) } else { Err(Damaged) }
    }
}

impl Secret {
    pub(crate) fn random(group: Group, rng: &mut dyn CryptoRng) -> Self {
        let method = group.method();
        let mut octets = Zeroizing::new(vec![0; method.secret_len()]);
        loop {
            rng.fill_bytes(&mut octets);
            if let Method::Ecp(curve) = &method {
                curve.cut_to_size(&mut octets);
            }
            // Drawn again until it is below the order, so that every value is as likely as any other.
            if method.is_secret(&octets) {
                return Self { group, octets };
            }
        }
    }

    #[cfg(test)]
    pub(super) fn from_octets(group: Group, octets: &[u8]) -> Self {
        Self { group, octets: Zeroizing::new(octets.to_vec()) }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(crate) fn group(&self) -> Group {
        self.group
    }

    /// Our public value as it goes on the wire; of ML-KEM that of the initiator.
    pub(crate) fn public(&self) -> Vec<u8> {
        match self.group.method() {
            Method::Modp(modulus) => modulus.group().public(&self.octets),
            Method::Ecp(curve) => curve.public(&self.octets),
            Method::X25519 => x25519_dalek::PublicKey::from(&self.x25519()).to_bytes().to_vec(),
            Method::MlKem => mlkem::public(&self.octets),
        }
    }

    /// The shared secret with a peer's public value, which is checked first; of ML-KEM with that of the responder.
    pub(crate) fn agree(&self, peer: &[u8]) -> Result<Shared, InvalidPublic> {
        match self.group.method() {
            Method::Modp(modulus) => modulus.group().agree(&self.octets, peer),
            Method::Ecp(curve) => curve.agree(&self.octets, peer),
            Method::X25519 => <[u8; 32]>::try_from(peer).ok().and_then(|peer| {
                let shared = self.x25519().diffie_hellman(&peer.into());
                // All zero for points of small order (RFC 7748 section 6.1).
                shared.was_contributory().then(|| Zeroizing::new(shared.as_bytes().to_vec()))
            }),
            Method::MlKem => mlkem::decapsulate(&self.octets, peer),
        }
        .ok_or(InvalidPublic)
    }

    /// The responder's public value and the shared secret with the initiator's, which is checked first.
    pub(crate) fn respond(&self, peer: &[u8]) -> Result<(Vec<u8>, Shared), InvalidPublic> {
        match self.group.method() {
            Method::MlKem => mlkem::encapsulate(&self.octets, peer).ok_or(InvalidPublic),
            _ => self.agree(peer).map(|shared| (self.public(), shared)),
        }
    }

    fn x25519(&self) -> StaticSecret {
        let mut scalar = Zeroizing::new([0; 32]);
        scalar.copy_from_slice(&self.octets);
        StaticSecret::from(*scalar)
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
            Work::Respond(peer) => Outcome::Responded(secret.respond(&peer)),
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
