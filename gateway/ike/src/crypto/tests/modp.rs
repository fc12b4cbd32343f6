//! MODP groups against plain arithmetic.

use num_bigint::BigUint;
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use super::super::{
    dh::{InvalidPublic, Secret},
    primes::*,
};
use crate::algorithm::Group;

/// The groups with a safe prime, their bits and the constant of the prime's definition.
const SAFE_PRIMES: [(Group, usize, u32, &str); 6] = [
    (Group::Modp768, 768, 149_686, MODP_768),
    (Group::Modp1024, 1024, 129_093, MODP_1024),
    (Group::Modp1536, 1536, 741_804, MODP_1536),
    (Group::Modp2048, 2048, 124_476, MODP_2048),
    (Group::Modp3072, 3072, 1_690_314, MODP_3072),
    (Group::Modp4096, 4096, 240_904, MODP_4096),
];

fn number(hex: &str) -> BigUint {
    BigUint::parse_bytes(hex.as_bytes(), 16).unwrap()
}

/// Generator and modulus of every MODP group.
fn groups() -> Vec<(Group, BigUint, BigUint)> {
    let safe = SAFE_PRIMES.map(|(group, _, _, prime)| (group, BigUint::from(2u8), number(prime)));
    let with_subgroup = (Group::Modp2048S256, number(GENERATOR_2048_S256), number(MODP_2048_S256));
    safe.into_iter().chain([with_subgroup]).collect()
}

fn padded(value: &BigUint, group: Group) -> Vec<u8> {
    let octets = value.to_bytes_be();
    [vec![0; group.public_len() - octets.len()], octets].concat()
}

/// 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + c), as RFC 7296 appendix B and RFC 3526 define them, with the digits
/// of pi by Machin's formula.
#[test]
fn the_primes_are_those_of_their_definition() {
    let arctan_of_inverse = |x: u32, bits: usize| {
        let mut term = (BigUint::from(1u8) << (bits + 128)) / x;
        let (mut plus, mut minus) = (term.clone(), BigUint::ZERO);
        for n in (3u32..).step_by(2) {
            term /= x * x;
            if term == BigUint::ZERO {
                break;
            }
            if n % 4 == 3 { minus += &term / n } else { plus += &term / n }
        }
        plus - minus
    };
    for (group, bits, offset, prime) in SAFE_PRIMES {
        let pi = (arctan_of_inverse(5, bits) * 16u8 - arctan_of_inverse(239, bits) * 4u8) >> (128usize + 130);
        let one = || BigUint::from(1u8);
        let defined = (one() << bits) - (one() << (bits - 64)) - one() + ((pi + offset) << 64usize);
        assert_eq!(number(prime), defined, "{group}");
    }
}

/// Fermat's test to several bases; the numbers of RFC 5114 have no definition to follow.
#[test]
fn group_24_is_a_prime_with_a_prime_subgroup() {
    let (p, q, g) = (number(MODP_2048_S256), number(ORDER_2048_S256), number(GENERATOR_2048_S256));
    let one = BigUint::from(1u8);
    for base in [2u8, 3, 5, 7] {
        assert_eq!(BigUint::from(base).modpow(&(&p - &one), &p), one);
        assert_eq!(BigUint::from(base).modpow(&(&q - &one), &q), one);
    }
    assert_eq!((&p - &one) % &q, BigUint::ZERO);
    assert_eq!(g.modpow(&q, &p), one);
    assert_ne!(g, one);
}

#[test]
fn exponentiation_agrees_with_plain_arithmetic() {
    let mut rng = ChaCha20Rng::seed_from_u64(42);
    for (group, generator, p) in groups() {
        let length = Secret::random(group, &mut rng).octets().len();
        let mut exponents = vec![vec![0; length]; 3];
        exponents[0][length - 1] = 1;
        exponents[1][0] = 0x80;
        exponents[2].fill(0xff);
        exponents.extend((0..4).map(|_| {
            let mut random = vec![0; length];
            rng.fill_bytes(&mut random);
            random
        }));
        for octets in exponents {
            let exponent = BigUint::from_bytes_be(&octets);
            let secret = Secret::from_octets(group, &octets);
            assert_eq!(secret.public(), padded(&generator.modpow(&exponent, &p), group), "{group}");
            let mut peer = vec![0; length];
            rng.fill_bytes(&mut peer);
            let peer = generator.modpow(&BigUint::from_bytes_be(&peer), &p);
            let shared = secret.agree(&padded(&peer, group)).unwrap();
            assert_eq!(*shared, padded(&peer.modpow(&exponent, &p), group), "{group}");
        }
    }
}

#[test]
fn values_out_of_range_are_refused() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for (group, _, p) in groups() {
        let secret = Secret::random(group, &mut rng);
        let one = BigUint::from(1u8);
        for bad in [BigUint::ZERO, one.clone(), &p - &one, p.clone(), &p + &one] {
            assert_eq!(secret.agree(&padded(&bad, group)), Err(InvalidPublic), "{group}");
        }
        assert_eq!(secret.agree(&[2]), Err(InvalidPublic));
        assert_eq!(
            secret.agree(&[&[0], &padded(&BigUint::from(4u8), group)[..]].concat()),
            Err(InvalidPublic)
        );
        let safe_prime = group != Group::Modp2048S256;
        assert_eq!(secret.agree(&padded(&(&p - 2u8), group)).is_ok(), safe_prime, "{group}");
        assert_eq!(secret.agree(&padded(&BigUint::from(2u8), group)).is_ok(), safe_prime, "{group}");
    }
}

/// A value of small order would tell the exponent modulo that order (RFC 6989 section 2.2).
#[test]
fn group_24_refuses_what_is_not_in_its_subgroup() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let secret = Secret::random(Group::Modp2048S256, &mut rng);
    let (p, q, g) = (number(MODP_2048_S256), number(ORDER_2048_S256), number(GENERATOR_2048_S256));
    let cofactor = (&p - 1u8) / &q;
    for base in 2u8..6 {
        let of_other_order = BigUint::from(base).modpow(&q, &p);
        assert_eq!(secret.agree(&padded(&of_other_order, Group::Modp2048S256)), Err(InvalidPublic));
        let mixed = of_other_order * &g % &p;
        assert_eq!(secret.agree(&padded(&mixed, Group::Modp2048S256)), Err(InvalidPublic));
        let of_order_q = BigUint::from(base).modpow(&cofactor, &p);
        assert!(secret.agree(&padded(&of_order_q, Group::Modp2048S256)).is_ok());
    }
}

/// Exponents are drawn below the order of the subgroup.
#[test]
fn exponents_of_group_24_are_below_its_order() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let q = number(ORDER_2048_S256);
    for _ in 0..64 {
        let secret = Secret::random(Group::Modp2048S256, &mut rng);
        assert!(BigUint::from_bytes_be(secret.octets()) < q);
    }
}
