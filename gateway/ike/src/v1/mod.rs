//! IKEv1 (RFC 2407, 2408, 2409) with pre-shared keys.
#![allow(dead_code, unused_imports, reason = "what speaks with these parts follows them")]

pub(crate) mod cipher;
pub(crate) mod fragment;
pub(crate) mod id;
pub(crate) mod keys;
pub(crate) mod proposal;
pub(crate) mod wire;
