//! The ISAKMP header (RFC 2408 section 3.1).

use crate::{
    config::Version,
    wire::{ExchangeType, Reader, WireError},
};

const FLAG_ENCRYPTED: u8 = 0x01;
const FLAG_COMMIT: u8 = 0x02;
const FLAG_AUTHENTICATION_ONLY: u8 = 0x04;
const VERSION_1_0: u8 = 0x10;

/// The fixed header of every message, without its next payload and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// CKY-I; never zero.
    pub(crate) initiator_cookie: u64,
    /// CKY-R; zero in the first message.
    pub(crate) responder_cookie: u64,
    /// One of IKEv1's.
    pub(crate) exchange: ExchangeType,
    /// E: what follows the header is encrypted.
    pub(crate) encrypted: bool,
    /// C: the other side is to wait for a CONNECTED notify before it uses the SA.
    pub(crate) commit: bool,
    /// A: an informational message that is authenticated and not encrypted, a leftover of RFC 2408 that nothing
    /// uses.
    pub(crate) authentication_only: bool,
    /// M-ID; zero in phase 1.
    pub(crate) message_id: u32,
}

impl Header {
    /// A header without flags.
    pub(crate) fn new(
        initiator_cookie: u64,
        responder_cookie: u64,
        exchange: ExchangeType,
        message_id: u32,
    ) -> Self {
        let (encrypted, commit, authentication_only) = (false, false, false);
        Self {
            initiator_cookie,
            responder_cookie,
            exchange,
            encrypted,
            commit,
            authentication_only,
            message_id,
        }
    }

    /// The header, the type of the first payload, and the octets that follow the header. The length field must say
    /// exactly what came. Minor versions are passed over, as are flags that nobody defined.
    pub(crate) fn decode(message: &[u8]) -> Result<(Self, u8, &[u8]), WireError> {
        let mut reader = Reader::new(message);
        let (initiator_cookie, responder_cookie) = (reader.u64()?, reader.u64()?);
        let (next, version, exchange, flags) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
        let (message_id, length) = (reader.u32()?, reader.u32()?);
        if version >> 4 != 1 {
            return Err(WireError::Version(version >> 4));
        }
        if length as usize != message.len() {
            return Err(WireError::Length);
        }
        if initiator_cookie == 0 {
            return Err(WireError::Field("initiator cookie"));
        }
        let header = Self {
            initiator_cookie,
            responder_cookie,
            exchange: ExchangeType::from_number(Version::Ikev1, exchange)?,
            encrypted: flags & FLAG_ENCRYPTED != 0,
            commit: flags & FLAG_COMMIT != 0,
            authentication_only: flags & FLAG_AUTHENTICATION_ONLY != 0,
            message_id,
        };
        Ok((header, next, reader.rest()))
    }

    /// Appends the header with a length of zero, to be set by [`set_length`](crate::wire::header::set_length) when
    /// the message is whole.
    pub(crate) fn encode(&self, next_payload: u8, out: &mut Vec<u8>) {
        out.extend(self.initiator_cookie.to_be_bytes());
        out.extend(self.responder_cookie.to_be_bytes());
        let flags = [
            (self.encrypted, FLAG_ENCRYPTED),
            (self.commit, FLAG_COMMIT),
            (self.authentication_only, FLAG_AUTHENTICATION_ONLY),
        ];
        let flags = flags.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag);
        out.extend([next_payload, VERSION_1_0, self.exchange.number(), flags]);
        out.extend(self.message_id.to_be_bytes());
        out.extend([0; 4]);
    }
}
