//! The octets of IKEv1 (RFC 2408 section 3): ISAKMP headers, payloads and messages, decoded into owned values
//! and encoded back.
//!
//! Hashes of IKEv1 go over octets as they came, so a decoded [`Chain`] also gives access to those. Decoding
//! takes anything and never panics: whatever does not fit is a [`WireError`](crate::wire::WireError).

pub(crate) mod header;
pub(crate) mod notify;
pub(crate) mod payload;
pub(crate) mod sa;
pub(crate) mod vendor;

pub(crate) use header::Header;
pub(crate) use notify::Notify;
pub use notify::NotifyType;
pub(crate) use payload::{Chain, Delete, FragmentPayload, Payload};
pub(crate) use sa::{Attribute, Proposal, ProtocolId, SecurityAssociation, Transform};
pub(crate) use vendor::{NatTraversal, VendorId};

use crate::wire::header::set_length;

/// A message that is not encrypted.
pub(crate) fn encode_message(header: Header, payloads: &[Payload]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    header.encode(payload::first_type(payloads), &mut out);
    payload::encode_chain(payloads, &mut out);
    set_length(&mut out);
    out
}

#[cfg(test)]
mod tests;
