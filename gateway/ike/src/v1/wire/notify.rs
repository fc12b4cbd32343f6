//! Notification payloads (RFC 2408 section 3.14) and their message types (there, RFC 2407 section 4.6.3, RFC 3706).

use super::sa::{Attribute, DOI_IPSEC, ProtocolId, encode_attributes};
use crate::wire::{Reader, WireError, notify::notify_types};

notify_types! {
    /// A notify message type of IKEv1: below 16384 an error, from there on a status. It is written as in RFC 2408, with
    /// hyphens.
    written |name| name.replace('_', "-");
    INVALID_PAYLOAD_TYPE = 1,
    DOI_NOT_SUPPORTED = 2,
    SITUATION_NOT_SUPPORTED = 3,
    INVALID_COOKIE = 4,
    INVALID_MAJOR_VERSION = 5,
    INVALID_MINOR_VERSION = 6,
    INVALID_EXCHANGE_TYPE = 7,
    INVALID_FLAGS = 8,
    INVALID_MESSAGE_ID = 9,
    INVALID_PROTOCOL_ID = 10,
    INVALID_SPI = 11,
    INVALID_TRANSFORM_ID = 12,
    ATTRIBUTES_NOT_SUPPORTED = 13,
    NO_PROPOSAL_CHOSEN = 14,
    BAD_PROPOSAL_SYNTAX = 15,
    PAYLOAD_MALFORMED = 16,
    INVALID_KEY_INFORMATION = 17,
    INVALID_ID_INFORMATION = 18,
    INVALID_CERT_ENCODING = 19,
    INVALID_CERTIFICATE = 20,
    CERT_TYPE_UNSUPPORTED = 21,
    INVALID_CERT_AUTHORITY = 22,
    INVALID_HASH_INFORMATION = 23,
    AUTHENTICATION_FAILED = 24,
    INVALID_SIGNATURE = 25,
    ADDRESS_NOTIFICATION = 26,
    NOTIFY_SA_LIFETIME = 27,
    CERTIFICATE_UNAVAILABLE = 28,
    UNSUPPORTED_EXCHANGE_TYPE = 29,
    UNEQUAL_PAYLOAD_LENGTHS = 30,
    CONNECTED = 16384,
    RESPONDER_LIFETIME = 24576,
    REPLAY_STATUS = 24577,
    INITIAL_CONTACT = 24578,
    R_U_THERE = 36136,
    R_U_THERE_ACK = 36137,
}

/// The body of a notification payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notify {
    pub(crate) protocol: ProtocolId,
    /// Of the SA it is about: four octets for ESP and AH; for the ISAKMP SA both cookies, or nothing.
    pub(crate) spi: Vec<u8>,
    pub(crate) kind: NotifyType,
    pub(crate) data: Vec<u8>,
}

impl Notify {
    /// About the ISAKMP SA with these cookies.
    pub(crate) fn about_isakmp(kind: NotifyType, cookies: (u64, u64), data: impl Into<Vec<u8>>) -> Self {
        let spi = [cookies.0.to_be_bytes(), cookies.1.to_be_bytes()].concat();
        Self { protocol: ProtocolId::Isakmp, spi, kind, data: data.into() }
    }

    /// About an SA of ESP or AH.
    pub(crate) fn about_child(
        kind: NotifyType,
        protocol: ProtocolId,
        spi: u32,
        data: impl Into<Vec<u8>>,
    ) -> Self {
        Self { protocol, spi: spi.to_be_bytes().to_vec(), kind, data: data.into() }
    }

    /// R-U-THERE or its answer, with its sequence number (RFC 3706 section 5.4).
    pub(crate) fn dpd(kind: NotifyType, cookies: (u64, u64), sequence: u32) -> Self {
        Self::about_isakmp(kind, cookies, sequence.to_be_bytes())
    }

    /// The sequence number of R-U-THERE or its answer.
    pub(crate) fn dpd_sequence(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.data.as_slice().try_into().ok()?))
    }

    /// With attributes as its data, as RESPONDER-LIFETIME has them.
    pub(crate) fn with_attributes(mut self, attributes: &[Attribute]) -> Self {
        self.data.clear();
        encode_attributes(attributes, &mut self.data);
        self
    }

    /// Other DOIs are taken as if they were ours: some peers send zero, the generic ISAKMP DOI.
    pub(super) fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let _doi = reader.u32()?;
        let (protocol, spi_len, kind) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let spi = reader.take(spi_len.into())?.to_vec();
        let protocol = ProtocolId::from_number(protocol);
        Ok(Self { protocol, spi, kind: NotifyType(kind), data: reader.rest().to_vec() })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(DOI_IPSEC.to_be_bytes());
        out.extend([self.protocol.number(), self.spi.len() as u8]);
        out.extend(self.kind.0.to_be_bytes());
        out.extend(&self.spi);
        out.extend(&self.data);
    }
}
