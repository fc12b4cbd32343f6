//! The MODP groups 2 and 14: safe primes p with generator 2.
//!
//! Exponentiation is that of `crypto-bigint` in Montgomery form, in constant time; exponents are 256 bits, at least
//! twice the strength of either group (RFC 3526 section 8).

use crypto_bigint::{Odd, U256, U1024, U2048, Uint, modular::FixedMontyForm, modular::FixedMontyParams};
use zeroize::{Zeroize, Zeroizing};

/// RFC 7296 appendix B.2.
const P1024: U1024 = U1024::from_be_hex(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
);

/// RFC 3526 section 3.
const P2048: U2048 = U2048::from_be_hex(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AACAA68FFFFFFFFFFFFFFFF",
);

/// One of the two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modulus {
    Bits1024,
    Bits2048,
}

impl Modulus {
    /// 2 to the power of `secret`, padded to the length of the modulus.
    pub(super) fn public(self, secret: &[u8; 32]) -> Vec<u8> {
        match self {
            Self::Bits1024 => power(&P1024, &U1024::from_u8(2), secret).to_vec(),
            Self::Bits2048 => power(&P2048, &U2048::from_u8(2), secret).to_vec(),
        }
    }

    /// The peer's value to the power of `secret`; `None` unless it is within 2..=p-2.
    pub(super) fn agree(self, secret: &[u8; 32], peer: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::Bits1024 => checked(&P1024, peer).map(|base| power(&P1024, &base, secret)),
            Self::Bits2048 => checked(&P2048, peer).map(|base| power(&P2048, &base, secret)),
        }
    }
}

fn checked<const LIMBS: usize>(modulus: &Uint<LIMBS>, peer: &[u8]) -> Option<Uint<LIMBS>> {
    if peer.len() != Uint::<LIMBS>::BITS as usize / 8 {
        return None;
    }
    let value = Uint::from_be_slice(peer);
    let greatest = modulus.wrapping_sub(&Uint::from_u8(2));
    (value >= Uint::from_u8(2) && value <= greatest).then_some(value)
}

fn power<const LIMBS: usize>(
    modulus: &Uint<LIMBS>,
    base: &Uint<LIMBS>,
    secret: &[u8; 32],
) -> Zeroizing<Vec<u8>> {
    let modulus = Odd::new(*modulus).expect("both moduli are odd primes");
    let params = FixedMontyParams::new_vartime(modulus);
    let mut exponent = U256::from_be_slice(secret);
    let mut result = FixedMontyForm::new(base, &params).pow(&exponent).retrieve();
    exponent.zeroize();
    let octets = Zeroizing::new(result.to_be_bytes().as_ref().to_vec());
    result.zeroize();
    octets
}
