//! The place of a kernel on processors that it is not written for: there are no keys for it.

#![expect(dead_code, reason = "what a kernel would read")]

use super::Backend;

/// No key.
pub(crate) enum Key {}

impl Key {
    pub(crate) fn new(_backend: Backend, _key: &[u8]) -> Option<Box<Self>> {
        None
    }

    pub(crate) fn rounds(&self) -> usize {
        match *self {}
    }
}

pub(super) struct Text<'a> {
    pub(super) key: &'a Key,
    pub(super) blocks: &'a mut [u8],
}

pub(super) fn encrypt(texts: &mut [Text<'_>]) {
    if let Some(Text { key, blocks: _ }) = texts.first() {
        match **key {}
    }
}

pub(super) fn decrypt(key: &Key, _text: &mut [u8]) {
    match *key {}
}
