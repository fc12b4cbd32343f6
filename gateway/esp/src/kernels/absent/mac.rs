//! The place of a kernel on processors that it is not written for: there are no keys for it.

#![expect(dead_code, reason = "what a kernel would read")]

use super::Backend;
use crate::sa::Auth;

/// Octets of the longest MAC.
pub(super) const MAC_LEN: usize = 64;

/// No hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hash {}

/// No key.
pub(crate) enum Key {}

impl Key {
    pub(crate) fn new(_backend: Backend, _auth: Auth, _key: &[u8]) -> Option<Box<Self>> {
        None
    }

    pub(super) fn hash(&self) -> Hash {
        match *self {}
    }

    pub(super) fn lanes(&self) -> usize {
        match *self {}
    }
}

pub(super) struct Message<'a> {
    pub(super) key: &'a Key,
    pub(super) octets: &'a [u8],
    pub(super) more: Option<[u8; 4]>,
    pub(super) mac: [u8; MAC_LEN],
}

pub(super) fn authenticate(messages: &mut [Message<'_>]) {
    if let Some(Message { key, octets: _, more: _, mac: _ }) = messages.first() {
        match **key {}
    }
}
