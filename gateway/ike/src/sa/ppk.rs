//! Post-quantum pre-shared keys (RFC 8784): which one counts, and how the two sides say so.
//!
//! | the initiator says in IKE_AUTH | AUTH is by |
//! |---|---|
//! | PPK_IDENTITY, and the responder has that PPK | keys with the PPK; the responder says PPK_IDENTITY too |
//! | PPK_IDENTITY and NO_PPK_AUTH, and it has not | keys without; NO_PPK_AUTH stands for AUTH |
//! | PPK_IDENTITY alone, and it has not | refused: the initiator requires it |
//! | neither | keys without, unless the responder requires one |

use super::extensions::data_of;
use crate::{
    config::Ppk,
    error::Cause,
    wire::{Notify, NotifyType, Payload},
};

/// PPK_ID_FIXED: a static PPK, known by this ID to both sides.
const PPK_ID_FIXED: u8 = 2;
/// Octets of an ID that people are told.
const LONGEST_ID_SAID: usize = 64;

/// By which keys a side is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof<'a> {
    /// AUTH is by the keys of the handshake.
    Plain,
    /// AUTH is by the keys with this PPK.
    Mixed(&'a Ppk),
    /// NO_PPK_AUTH holds what AUTH would be without a PPK.
    Fallback(&'a [u8]),
}

/// The notify by which an initiator names its PPK.
pub(super) fn identity(ppk: &Ppk) -> Payload {
    let data = [&[PPK_ID_FIXED], &ppk.id[..]].concat();
    Payload::Notify(Notify::new(NotifyType::PPK_IDENTITY, data))
}

/// An initiator that goes on without a PPK, though the tunnel has one.
pub(super) fn missing(ppk: &Ppk) -> Cause {
    Cause::NoPpk { ours: in_words(&ppk.id) }
}

/// How the initiator of a tunnel is to prove who it is; `negotiated` is whether both sides said USE_PPK.
pub(super) fn of_initiator<'a>(
    ppk: Option<&'a Ppk>,
    negotiated: bool,
    payloads: &'a [Payload],
) -> Result<Proof<'a>, Cause> {
    let named = data_of(payloads, NotifyType::PPK_IDENTITY).filter(|_| negotiated);
    let Some(named) = named else {
        return match ppk {
            Some(ppk) if ppk.required => Err(missing(ppk)),
            _ => Ok(Proof::Plain),
        };
    };
    if let Some(ppk) = ppk
        && named.split_first().is_some_and(|(kind, id)| *kind == PPK_ID_FIXED && *id == ppk.id[..])
    {
        return Ok(Proof::Mixed(ppk));
    }
    match without(payloads) {
        Some(auth) if ppk.is_none_or(|ppk| !ppk.required) => Ok(Proof::Fallback(auth)),
        _ => Err(Cause::PpkIdMismatch {
            ours: ppk.map(|ppk| in_words(&ppk.id)),
            theirs: in_words(named.get(1..).unwrap_or_default()),
        }),
    }
}

/// How the responder of a tunnel is to prove who it is, to an initiator that has named this PPK.
pub(super) fn of_responder<'a>(named: Option<&'a Ppk>, payloads: &[Payload]) -> Result<Proof<'a>, Cause> {
    match (named, data_of(payloads, NotifyType::PPK_IDENTITY)) {
        (Some(ppk), Some(_)) => Ok(Proof::Mixed(ppk)),
        (Some(ppk), None) if ppk.required => Err(missing(ppk)),
        (None, Some(_)) => Err(Cause::Malformed { what: "PPK_IDENTITY in answer to none" }),
        (_, None) => Ok(Proof::Plain),
    }
}

/// What AUTH would be without a PPK, where the initiator says it.
pub(super) fn without(payloads: &[Payload]) -> Option<&[u8]> {
    data_of(payloads, NotifyType::NO_PPK_AUTH)
}

/// A PPK's ID for people: text where it is that, else hexadecimal digits.
pub(super) fn in_words(id: &[u8]) -> String {
    let id = &id[..id.len().min(LONGEST_ID_SAID)];
    match std::str::from_utf8(id) {
        Ok(text) if text.chars().all(|c| !c.is_control()) => format!("{text:?}"),
        _ => id.iter().map(|octet| format!("{octet:02x}")).collect(),
    }
}
