//! Everything that touches keys: the PRF, the protection of messages, Diffie-Hellman and key derivation.

pub(crate) mod cipher;
pub(crate) mod dh;
pub(crate) mod keys;
mod modp;
pub(crate) mod prf;

#[cfg(test)]
mod tests;
