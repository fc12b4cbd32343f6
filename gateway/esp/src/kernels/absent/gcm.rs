//! The place of a kernel on processors that it is not written for: there are no keys for it.

use super::GcmJob;

/// As in the kernel.
pub(super) const WIDTH: usize = 4;

/// As in the kernel.
pub(super) const SHORT: usize = 96;

/// No key.
pub(crate) enum Key {}

impl Key {
    pub(crate) fn rounds(&self) -> usize {
        match *self {}
    }

    pub(crate) fn new(_key: &[u8]) -> Option<Self> {
        None
    }
}

pub(crate) fn is_available() -> bool {
    false
}

pub(crate) fn seal(_jobs: &mut [GcmJob<'_>]) {}

pub(crate) fn open(_jobs: &mut [GcmJob<'_>]) {}
