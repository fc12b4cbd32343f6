//! The MODP groups: exponentiation modulo a prime, in constant time for whatever is secret (`crypto-bigint` in
//! Montgomery form).

use std::sync::LazyLock;

use crypto_bigint::{
    Odd, U256, Uint,
    modular::{FixedMontyForm, FixedMontyParams},
};
use zeroize::{Zeroize, Zeroizing};

use super::primes::*;

/// A MODP group.
pub(super) trait Modp {
    /// Octets of an exponent: at least twice the group's strength in bits, which is what the best attack on the
    /// exponent alone takes (RFC 3526 section 8, RFC 7919 section 5.2).
    fn exponent_len(&self) -> usize;

    /// Whether a random number of [`Modp::exponent_len`] may be an exponent.
    fn is_exponent(&self, exponent: &[u8]) -> bool;

    /// The generator to the power of a secret exponent, padded to the length of the modulus.
    fn public(&self, exponent: &[u8]) -> Vec<u8>;

    /// The peer's value to the power of a secret exponent; `None` unless it is within 2..=p-2 and, in a group with
    /// a subgroup, in that (RFC 6989 section 2).
    fn agree(&self, exponent: &[u8], peer: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}

/// One of the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modulus {
    Bits768,
    Bits1024,
    Bits1536,
    Bits2048,
    Bits3072,
    Bits4096,
    Bits2048S256,
}

impl Modulus {
    /// Its numbers, worked out on first use.
    pub(super) fn group(self) -> &'static dyn Modp {
        static BITS_768: LazyLock<Group<12, 3>> = LazyLock::new(|| Group::safe_prime(MODP_768));
        static BITS_1024: LazyLock<Group<16, 3>> = LazyLock::new(|| Group::safe_prime(MODP_1024));
        static BITS_1536: LazyLock<Group<24, 4>> = LazyLock::new(|| Group::safe_prime(MODP_1536));
        static BITS_2048: LazyLock<Group<32, 4>> = LazyLock::new(|| Group::safe_prime(MODP_2048));
        static BITS_3072: LazyLock<Group<48, 5>> = LazyLock::new(|| Group::safe_prime(MODP_3072));
        static BITS_4096: LazyLock<Group<64, 6>> = LazyLock::new(|| Group::safe_prime(MODP_4096));
        static BITS_2048_S256: LazyLock<Group<32, 4>> = LazyLock::new(|| {
            Group::with_subgroup(MODP_2048_S256, GENERATOR_2048_S256, U256::from_be_hex(ORDER_2048_S256))
        });
        match self {
            Self::Bits768 => &*BITS_768,
            Self::Bits1024 => &*BITS_1024,
            Self::Bits1536 => &*BITS_1536,
            Self::Bits2048 => &*BITS_2048,
            Self::Bits3072 => &*BITS_3072,
            Self::Bits4096 => &*BITS_4096,
            Self::Bits2048S256 => &*BITS_2048_S256,
        }
    }
}

/// A modulus of `LIMBS` times 64 bits, with exponents of `EXPONENT` times 64 bits.
struct Group<const LIMBS: usize, const EXPONENT: usize> {
    params: FixedMontyParams<LIMBS>,
    generator: FixedMontyForm<LIMBS>,
    /// The order of the subgroup that the generator makes; `None` where p is a safe prime.
    order: Option<Uint<EXPONENT>>,
}

impl<const LIMBS: usize, const EXPONENT: usize> Group<LIMBS, EXPONENT> {
    fn safe_prime(modulus: &str) -> Self {
        Self::new(modulus, Uint::from_u8(2), None)
    }

    fn with_subgroup(modulus: &str, generator: &str, order: Uint<EXPONENT>) -> Self {
        Self::new(modulus, Uint::from_be_hex(generator), Some(order))
    }

    fn new(modulus: &str, generator: Uint<LIMBS>, order: Option<Uint<EXPONENT>>) -> Self {
        let modulus = Odd::new(Uint::from_be_hex(modulus)).expect("the moduli are odd primes");
        let params = FixedMontyParams::new_vartime(modulus);
        Self { params, generator: FixedMontyForm::new(&generator, &params), order }
    }

    fn power(&self, base: &FixedMontyForm<LIMBS>, exponent: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut exponent: Uint<EXPONENT> = from_octets(exponent);
        let mut result = base.pow(&exponent).retrieve();
        exponent.zeroize();
        let octets = result.as_words().iter().rev().flat_map(|word| word.to_be_bytes()).collect();
        result.zeroize();
        Zeroizing::new(octets)
    }
}

impl<const LIMBS: usize, const EXPONENT: usize> Modp for Group<LIMBS, EXPONENT> {
    fn exponent_len(&self) -> usize {
        8 * EXPONENT
    }

    fn is_exponent(&self, exponent: &[u8]) -> bool {
        let exponent: Zeroizing<Uint<EXPONENT>> = Zeroizing::new(from_octets(exponent));
        *exponent != Uint::ZERO && self.order.is_none_or(|order| *exponent < order)
    }

    fn public(&self, exponent: &[u8]) -> Vec<u8> {
        self.power(&self.generator, exponent).to_vec()
    }

    fn agree(&self, exponent: &[u8], peer: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if peer.len() != 8 * LIMBS {
            return None;
        }
        let peer = from_octets(peer);
        let greatest = self.params.modulus().wrapping_sub(&Uint::from_u8(2));
        if peer < Uint::from_u8(2) || peer > greatest {
            return None;
        }
        let peer = FixedMontyForm::new(&peer, &self.params);
        let one = FixedMontyForm::one(&self.params);
        let in_group = self.order.is_none_or(|order| peer.pow_vartime(&order) == one);
        in_group.then(|| self.power(&peer, exponent))
    }
}

/// Big-endian octets of exactly the number's length.
fn from_octets<const LIMBS: usize>(octets: &[u8]) -> Uint<LIMBS> {
    let (words, _) = octets.as_chunks::<8>();
    let mut limbs = [0; LIMBS];
    limbs.iter_mut().zip(words.iter().rev()).for_each(|(limb, word)| *limb = u64::from_be_bytes(*word));
    Uint::from_words(limbs)
}
