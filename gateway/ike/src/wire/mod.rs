//! The octets of IKEv2 (RFC 7296 section 3): headers, payloads and messages, decoded into owned values and
//! encoded back.
//!
//! Decoding takes anything and never panics: whatever does not fit is a [`WireError`].

pub(crate) mod header;
pub(crate) mod notify;
pub(crate) mod payload;
pub(crate) mod proposal;
pub(crate) mod ts;

pub use header::ExchangeType;
pub(crate) use header::{HEADER_LEN, Header};
pub(crate) use notify::Notify;
pub use notify::NotifyType;
pub(crate) use payload::Payload;
pub(crate) use proposal::{Proposal, Protocol, Transform, TransformType};

/// Why octets are not an IKE message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer octets than a field needs, or than a length field says.
    #[error("cut short")]
    Truncated,
    /// A length field that its context does not allow.
    #[error("a length field is out of range")]
    Length,
    /// Another major version than the one asked for.
    #[error("major version {0}")]
    Version(u8),
    /// A payload marked critical that this endpoint does not know.
    #[error("unknown critical payload {0}")]
    Critical(u8),
    /// A field with a value that is not allowed.
    #[error("bad {0}")]
    Field(&'static str),
}

/// A cursor over octets; each read either gives what was asked for or says that there is not enough.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Appends what `body` writes, preceded by its 16-bit length; `before` octets in front of the length field
/// count too. What such a length cannot tell is cut off: nothing that this endpoint says comes near it.
pub(crate) fn with_length(out: &mut Vec<u8>, before: usize, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0, 0]);
    body(out);
    out.truncate((at + usize::from(u16::MAX)).saturating_sub(before));
    let length = u16::try_from(out.len() - at + before).unwrap_or(u16::MAX);
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

/// An unprotected message (IKE_SA_INIT), or the inside of a protected one.
pub(crate) fn encode_message(header: Header, payloads: &[Payload]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    header.encode(payload::first_type(payloads), &mut out);
    payload::encode_chain(payloads, &mut out);
    header::set_length(&mut out);
    out
}

#[cfg(test)]
pub(crate) mod tests;
