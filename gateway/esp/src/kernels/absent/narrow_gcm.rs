//! The place of a kernel on processors that it is not written for: there are no keys for it.

use super::{AeadJob, Backend};

/// No key.
pub(crate) enum Key {}

impl Key {
    pub(crate) fn new(_backend: Backend, _key: &[u8]) -> Option<Box<Self>> {
        None
    }
}

pub(super) fn is_available() -> bool {
    false
}

pub(super) fn has_avx2() -> bool {
    false
}

pub(crate) fn seal(_jobs: &mut [AeadJob<'_, Key>]) {}

pub(crate) fn open(_jobs: &mut [AeadJob<'_, Key>]) {}
