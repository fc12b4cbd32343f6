//! The MODP groups: exponentiation modulo a prime, in constant time for whatever is secret (`crypto-bigint` in
//! Montgomery form).
//!
//! Powers of the generator come from a table (the comb of Lim and Lee): the exponent's bits are written in rows, and
//! each column picks the product of those rows' generators in which it has a one. That takes a squaring and a
//! multiplication for each column rather than a squaring for each bit, which is a quarter of the time.

use std::sync::LazyLock;

use crypto_bigint::{
    Odd, U256, Uint,
    modular::{FixedMontyForm, FixedMontyParams},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::primes::*;

/// Rows of the comb: the table has 2 to the power of that many entries, 8 to 32 KiB of them for moduli in use.
const ROWS: usize = 6;

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
    /// At index i, in Montgomery form: the product of generator^(2^(r * columns)) over the rows r whose bit i has.
    comb: Vec<Uint<LIMBS>>,
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
        let mut comb = vec![FixedMontyForm::one(&params)];
        let mut row = FixedMontyForm::new(&generator, &params);
        for _ in 0..ROWS {
            comb.extend_from_within(..);
            let half = comb.len() / 2;
            comb[half..].iter_mut().for_each(|entry| *entry *= &row);
            row = row.square_repeat_vartime(Self::COLUMNS as u32);
        }
        Self { params, comb: comb.iter().map(FixedMontyForm::to_montgomery).collect(), order }
    }

    const COLUMNS: usize = (64 * EXPONENT).div_ceil(ROWS);

    /// The generator to the power of a secret exponent.
    fn generator_power(&self, exponent: &Uint<EXPONENT>) -> FixedMontyForm<LIMBS> {
        let mut power = FixedMontyForm::one(&self.params);
        // What the last one is tells some of the exponent's bits.
        let mut entry = Zeroizing::new(power);
        for column in (0..Self::COLUMNS).rev() {
            power = power.square();
            let index =
                (0..ROWS).fold(0, |index, row| index | bit(exponent, row * Self::COLUMNS + column) << row);
            *entry = self.comb_entry(index);
            power *= &*entry;
        }
        power
    }

    /// The entry at a secret index: all are read.
    fn comb_entry(&self, index: u64) -> FixedMontyForm<LIMBS> {
        let mut entry = Zeroizing::new([0; LIMBS]);
        for (at, candidate) in (0u64..).zip(&self.comb) {
            let mask = 0u64.wrapping_sub(at.ct_eq(&index).unwrap_u8().into());
            entry.iter_mut().zip(candidate.as_words()).for_each(|(word, from)| *word |= from & mask);
        }
        FixedMontyForm::from_montgomery(Uint::from_words(*entry), &self.params)
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
        let exponent = Zeroizing::new(from_octets(exponent));
        to_octets(&self.generator_power(&exponent).retrieve())
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
        in_group.then(|| {
            let exponent: Zeroizing<Uint<EXPONENT>> = Zeroizing::new(from_octets(exponent));
            let power = Zeroizing::new(peer.pow(&exponent));
            let shared = Zeroizing::new(power.retrieve());
            Zeroizing::new(to_octets(&shared))
        })
    }
}

/// Big-endian octets of exactly the number's length.
fn from_octets<const LIMBS: usize>(octets: &[u8]) -> Uint<LIMBS> {
    let (words, _) = octets.as_chunks::<8>();
    let mut limbs = [0; LIMBS];
    limbs.iter_mut().zip(words.iter().rev()).for_each(|(limb, word)| *limb = u64::from_be_bytes(*word));
    Uint::from_words(limbs)
}

fn to_octets<const LIMBS: usize>(number: &Uint<LIMBS>) -> Vec<u8> {
    let mut octets = Vec::with_capacity(8 * LIMBS);
    number.as_words().iter().rev().for_each(|word| octets.extend(word.to_be_bytes()));
    octets
}

/// The bit at a place that is no secret; 0 beyond the number's end.
fn bit<const LIMBS: usize>(number: &Uint<LIMBS>, place: usize) -> u64 {
    number.as_words().get(place / 64).map_or(0, |word| word >> (place % 64) & 1)
}
