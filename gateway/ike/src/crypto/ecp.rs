//! The NIST curves P-256, P-384 and P-521 (RFC 5903): a public value is the uncompressed point without its leading
//! octet 4, the shared secret the x coordinate alone.

use p256::{
    NistP256,
    elliptic_curve::{
        AffinePoint, CurveArithmetic, FieldBytesSize, NonZeroScalar, PublicKey, SecretKey,
        ecdh::diffie_hellman,
        sec1::{FromSec1Point, ModulusSize, ToSec1Point},
    },
};
use p384::NistP384;
use p521::NistP521;
use zeroize::Zeroizing;

/// One of the three curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// Octets of a scalar.
    pub(super) fn scalar_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Clears the bits of random octets that no scalar has.
    pub(super) fn cut_to_size(self, scalar: &mut [u8]) {
        if self == Self::P521 {
            scalar[0] &= 1;
        }
    }

    /// Whether a scalar is within 1..n, n being the group's order.
    pub(super) fn is_scalar(self, scalar: &[u8]) -> bool {
        match self {
            Self::P256 => SecretKey::<NistP256>::from_slice(scalar).is_ok(),
            Self::P384 => SecretKey::<NistP384>::from_slice(scalar).is_ok(),
            Self::P521 => SecretKey::<NistP521>::from_slice(scalar).is_ok(),
        }
    }

    /// The public value of a scalar.
    pub(super) fn public(self, scalar: &[u8]) -> Vec<u8> {
        match self {
            Self::P256 => public::<NistP256>(scalar),
            Self::P384 => public::<NistP384>(scalar),
            Self::P521 => public::<NistP521>(scalar),
        }
    }

    /// The shared secret; `None` unless the peer's value is a point on the curve.
    pub(super) fn agree(self, scalar: &[u8], peer: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::P256 => agree::<NistP256>(scalar, peer),
            Self::P384 => agree::<NistP384>(scalar, peer),
            Self::P521 => agree::<NistP521>(scalar, peer),
        }
    }
}

fn secret<C: CurveArithmetic>(scalar: &[u8]) -> SecretKey<C> {
    SecretKey::from_slice(scalar).expect("a secret is drawn within 1..n")
}

fn public<C>(scalar: &[u8]) -> Vec<u8>
where
    C: CurveArithmetic,
    FieldBytesSize<C>: ModulusSize,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
{
    secret::<C>(scalar).public_key().to_sec1_point(false).as_bytes()[1..].to_vec()
}

fn agree<C>(scalar: &[u8], peer: &[u8]) -> Option<Zeroizing<Vec<u8>>>
where
    C: CurveArithmetic,
    FieldBytesSize<C>: ModulusSize,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
{
    if peer.len() != 2 * scalar.len() {
        return None;
    }
    let peer = PublicKey::<C>::from_sec1_bytes(&[&[4], peer].concat()).ok()?;
    let secret = Zeroizing::new(secret::<C>(scalar).to_nonzero_scalar());
    let scalar: &NonZeroScalar<C> = &secret;
    let shared = diffie_hellman(scalar, peer.as_affine());
    Some(Zeroizing::new(shared.raw_secret_bytes().to_vec()))
}
