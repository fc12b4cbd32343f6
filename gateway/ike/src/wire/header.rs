//! The IKE header (RFC 7296 section 3.1).

use std::fmt;

use super::{
    Notify, NotifyType, Payload, Reader, WireError,
    payload::{encode_chain, first_type},
};
use crate::config::Version;

/// Octets of the IKE header.
pub(crate) const HEADER_LEN: usize = 28;

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;
const VERSION_2_0: u8 = 0x20;

/// The kind of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExchangeType {
    /// IKE_SA_INIT.
    IkeSaInit,
    /// IKE_AUTH.
    IkeAuth,
    /// CREATE_CHILD_SA.
    CreateChildSa,
    /// INFORMATIONAL.
    Informational,
    /// IKE_INTERMEDIATE (RFC 9242).
    IkeIntermediate,
    /// IKE_FOLLOWUP_KE (RFC 9370).
    IkeFollowupKe,
    /// IKEv1's Identity Protection exchange (RFC 2408 section 4.5), which is Main Mode.
    MainMode,
    /// IKEv1's Aggressive Mode (RFC 2409 section 5).
    AggressiveMode,
    /// IKEv1's Quick Mode (RFC 2409 section 5.5).
    QuickMode,
    /// IKEv1's Informational exchange (RFC 2408 section 4.8).
    InformationalMode,
    /// IKEv1's Transaction exchange, of XAUTH and Mode Config: refused.
    Transaction,
}

impl ExchangeType {
    /// Every kind of exchange.
    pub const ALL: [Self; 11] = [
        Self::IkeSaInit,
        Self::IkeAuth,
        Self::CreateChildSa,
        Self::Informational,
        Self::IkeIntermediate,
        Self::IkeFollowupKe,
        Self::MainMode,
        Self::AggressiveMode,
        Self::QuickMode,
        Self::InformationalMode,
        Self::Transaction,
    ];

    /// Every kind of exchange of one version.
    pub fn of(version: Version) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |kind| kind.version() == version)
    }

    /// The version of IKE that has it.
    pub fn version(self) -> Version {
        if self.number() < 34 { Version::Ikev1 } else { Version::Ikev2 }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::MainMode => 2,
            Self::AggressiveMode => 4,
            Self::InformationalMode => 5,
            Self::Transaction => 6,
            Self::QuickMode => 32,
            Self::IkeSaInit => 34,
            Self::IkeAuth => 35,
            Self::CreateChildSa => 36,
            Self::Informational => 37,
            Self::IkeIntermediate => 43,
            Self::IkeFollowupKe => 44,
        }
    }

    /// The exchange of this number in one version.
    pub(crate) fn from_number(version: Version, number: u8) -> Result<Self, WireError> {
        Self::of(version).find(|kind| kind.number() == number).ok_or(WireError::Field("exchange type"))
    }
}

impl fmt::Display for ExchangeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IkeSaInit => "IKE_SA_INIT",
            Self::IkeAuth => "IKE_AUTH",
            Self::CreateChildSa => "CREATE_CHILD_SA",
            Self::Informational => "INFORMATIONAL",
            Self::IkeIntermediate => "IKE_INTERMEDIATE",
            Self::IkeFollowupKe => "IKE_FOLLOWUP_KE",
            Self::MainMode => "Main Mode",
            Self::AggressiveMode => "Aggressive Mode",
            Self::QuickMode => "Quick Mode",
            Self::InformationalMode => "Informational Exchange",
            Self::Transaction => "Transaction Exchange",
        })
    }
}

/// The fixed header of every message, without its next payload and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// SPI of the IKE SA's original initiator; never zero.
    pub(crate) initiator_spi: u64,
    /// SPI of its responder; zero in the first request.
    pub(crate) responder_spi: u64,
    pub(crate) exchange: ExchangeType,
    /// Whether the sender is the IKE SA's original initiator.
    pub(crate) from_initiator: bool,
    pub(crate) response: bool,
    pub(crate) message_id: u32,
}

impl Header {
    /// The header, the type of the first payload, and the payloads' octets. The length field must say exactly
    /// what came.
    pub(crate) fn decode(message: &[u8]) -> Result<(Self, u8, &[u8]), WireError> {
        let mut reader = Reader::new(message);
        let (initiator_spi, responder_spi) = (reader.u64()?, reader.u64()?);
        let (next, version, exchange, flags) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
        let (message_id, length) = (reader.u32()?, reader.u32()?);
        if version >> 4 != 2 {
            return Err(WireError::Version(version >> 4));
        }
        if length as usize != message.len() {
            return Err(WireError::Length);
        }
        if initiator_spi == 0 {
            return Err(WireError::Field("initiator SPI"));
        }
        let exchange = ExchangeType::from_number(Version::Ikev2, exchange)?;
        let header = Self {
            initiator_spi,
            responder_spi,
            exchange,
            from_initiator: flags & FLAG_INITIATOR != 0,
            response: flags & FLAG_RESPONSE != 0,
            message_id,
        };
        Ok((header, next, reader.rest()))
    }

    /// Appends the header with a length of zero, to be set by [`set_length`] when the message is whole.
    pub(crate) fn encode(&self, next_payload: u8, out: &mut Vec<u8>) {
        out.extend(self.initiator_spi.to_be_bytes());
        out.extend(self.responder_spi.to_be_bytes());
        let flags = if self.from_initiator { FLAG_INITIATOR } else { 0 }
            | if self.response { FLAG_RESPONSE } else { 0 };
        out.extend([next_payload, VERSION_2_0, self.exchange.number(), flags]);
        out.extend(self.message_id.to_be_bytes());
        out.extend([0; 4]);
    }
}

/// The answer to a request of a major version above ours (RFC 7296 section 2.5): the request's SPIs, exchange and
/// message ID, our version, and the notify INVALID_MAJOR_VERSION. `None` for whatever is no such request.
pub(crate) fn refuse_version(message: &[u8]) -> Option<Vec<u8>> {
    let fields = message.first_chunk::<HEADER_LEN>()?;
    let (version, exchange, flags) = (fields[17], fields[18], fields[19]);
    let length = u32::from_be_bytes([fields[24], fields[25], fields[26], fields[27]]);
    if version >> 4 <= VERSION_2_0 >> 4 || flags & FLAG_RESPONSE != 0 || length as usize != message.len() {
        return None;
    }
    let notify = [Payload::Notify(Notify::new(NotifyType::INVALID_MAJOR_VERSION, []))];
    let from_initiator = if flags & FLAG_INITIATOR == 0 { FLAG_INITIATOR } else { 0 };
    let mut answer = fields[..16].to_vec();
    answer.extend([first_type(&notify), VERSION_2_0, exchange, FLAG_RESPONSE | from_initiator]);
    answer.extend(&fields[20..24]);
    answer.extend([0; 4]);
    encode_chain(&notify, &mut answer);
    set_length(&mut answer);
    Some(answer)
}

/// Writes the length of `message` into its header.
pub(crate) fn set_length(message: &mut [u8]) {
    let length = u32::try_from(message.len()).expect("a message fits in a datagram");
    message[24..HEADER_LEN].copy_from_slice(&length.to_be_bytes());
}
