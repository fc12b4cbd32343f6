//! Everything that touches keys: the PRF, the protection of messages, Diffie-Hellman and key derivation.

pub(crate) mod aead;
pub(crate) mod cbc;
pub(crate) mod cipher;
pub(crate) mod dh;
mod ecp;
pub(crate) mod keys;
mod mlkem;
mod modp;
pub(crate) mod prf;
mod primes;

#[cfg(test)]
mod tests;
