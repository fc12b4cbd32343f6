//! The chain of payloads (RFC 7296 section 3.2 and following).

use super::{Notify, Proposal, Protocol, Reader, WireError, proposal, ts, with_length};
use crate::selector::TrafficSelector;

/// One payload, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Sa(Vec<Proposal>),
    KeyExchange {
        group: u16,
        public: Vec<u8>,
    },
    IdInitiator {
        kind: u8,
        data: Vec<u8>,
    },
    IdResponder {
        kind: u8,
        data: Vec<u8>,
    },
    Auth {
        method: u8,
        data: Vec<u8>,
    },
    Nonce(Vec<u8>),
    Notify(Notify),
    /// No SPIs mean the IKE SA itself.
    Delete {
        protocol: Protocol,
        spis: Vec<u32>,
    },
    TsInitiator(Vec<TrafficSelector>),
    TsResponder(Vec<TrafficSelector>),
    /// SK: always the last of its chain, so what it carries says of which type its first inner payload is.
    Encrypted {
        first_inner: u8,
        body: Vec<u8>,
    },
    /// A payload that is known and not needed (CERT, CERTREQ, V, CP, EAP), or unknown and not critical.
    Ignored {
        number: u8,
    },
}

/// The number of the SK payload.
pub(crate) const ENCRYPTED: u8 = 46;
/// The number of the SKF payload (RFC 7383 section 2.5).
pub(crate) const FRAGMENT: u8 = 53;
/// The number of the EAP payload.
pub(crate) const EAP: u8 = 48;
/// Payloads of these numbers are defined by RFC 7296 itself, where the critical bit has no meaning.
const BASE_PAYLOADS: std::ops::RangeInclusive<u8> = 33..=48;
const CRITICAL: u8 = 0x80;
/// More payloads than any honest message has.
const MAX_PAYLOADS: usize = 64;

impl Payload {
    pub(crate) fn number(&self) -> u8 {
        match self {
            Self::Sa(_) => 33,
            Self::KeyExchange { .. } => 34,
            Self::IdInitiator { .. } => 35,
            Self::IdResponder { .. } => 36,
            Self::Auth { .. } => 39,
            Self::Nonce(_) => 40,
            Self::Notify(_) => 41,
            Self::Delete { .. } => 42,
            Self::TsInitiator(_) => 44,
            Self::TsResponder(_) => 45,
            Self::Encrypted { .. } => ENCRYPTED,
            Self::Ignored { number } => *number,
        }
    }

    fn decode(number: u8, body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        Ok(match number {
            33 => Self::Sa(proposal::decode(body)?),
            34 => {
                let group = reader.u16()?;
                reader.take(2)?;
                Self::KeyExchange { group, public: reader.rest().to_vec() }
            }
            35 | 36 | 39 => {
                let kind = reader.u8()?;
                reader.take(3)?;
                let data = reader.rest().to_vec();
                match number {
                    35 => Self::IdInitiator { kind, data },
                    36 => Self::IdResponder { kind, data },
                    _ => Self::Auth { method: kind, data },
                }
            }
            40 if !(16..=256).contains(&body.len()) => return Err(WireError::Field("nonce length")),
            40 => Self::Nonce(body.to_vec()),
            41 => Self::Notify(Notify::decode(body)?),
            42 => decode_delete(&mut reader)?,
            44 => Self::TsInitiator(ts::decode(body)?),
            45 => Self::TsResponder(ts::decode(body)?),
            number => Self::Ignored { number },
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sa(proposals) => proposal::encode(proposals, out),
            Self::KeyExchange { group, public } => {
                out.extend(group.to_be_bytes());
                out.extend([0, 0]);
                out.extend(public);
            }
            Self::IdInitiator { kind, data }
            | Self::IdResponder { kind, data }
            | Self::Auth { method: kind, data } => {
                out.extend([*kind, 0, 0, 0]);
                out.extend(data);
            }
            Self::Nonce(nonce) => out.extend(nonce),
            Self::Notify(notify) => notify.encode(out),
            Self::Delete { protocol, spis } => {
                out.extend([protocol.number(), if spis.is_empty() { 0 } else { 4 }]);
                out.extend((spis.len() as u16).to_be_bytes());
                out.extend(spis.iter().flat_map(|spi| spi.to_be_bytes()));
            }
            Self::TsInitiator(selectors) | Self::TsResponder(selectors) => ts::encode(selectors, out),
            Self::Encrypted { body, .. } => out.extend(body),
            Self::Ignored { .. } => {}
        }
    }
}

fn decode_delete(reader: &mut Reader<'_>) -> Result<Payload, WireError> {
    let (protocol, spi_len, count) = (reader.u8()?, reader.u8()?, reader.u16()?);
    let protocol = Protocol::from_number(protocol).ok_or(WireError::Field("protocol in DELETE"))?;
    let expected = if protocol == Protocol::Ike { 0 } else { 4 };
    if spi_len != expected {
        return Err(WireError::Field("SPI size in DELETE"));
    }
    let spis = match protocol {
        Protocol::Ike => Vec::new(),
        _ => (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?,
    };
    if !reader.is_empty() {
        return Err(WireError::Length);
    }
    Ok(Payload::Delete { protocol, spis })
}

/// Decodes a chain whose first payload is of type `first`. SK ends it.
pub(crate) fn decode_chain(first: u8, bytes: &[u8]) -> Result<Vec<Payload>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut payloads = Vec::new();
    let mut number = first;
    while number != 0 {
        if payloads.len() == MAX_PAYLOADS {
            return Err(WireError::Field("number of payloads"));
        }
        let (next, flags, length) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let body = reader.take(usize::from(length).checked_sub(4).ok_or(WireError::Length)?)?;
        if number == ENCRYPTED {
            payloads.push(Payload::Encrypted { first_inner: next, body: body.to_vec() });
            break;
        }
        if flags & CRITICAL != 0 && !BASE_PAYLOADS.contains(&number) {
            return Err(WireError::Critical(number));
        }
        payloads.push(Payload::decode(number, body)?);
        number = next;
    }
    if !reader.is_empty() {
        return Err(WireError::Length);
    }
    Ok(payloads)
}

/// The type of the first payload of a chain, 0 for none.
pub(crate) fn first_type(payloads: &[Payload]) -> u8 {
    payloads.first().map_or(0, Payload::number)
}

/// Appends a chain.
pub(crate) fn encode_chain(payloads: &[Payload], out: &mut Vec<u8>) {
    for (at, payload) in payloads.iter().enumerate() {
        let next = match payload {
            Payload::Encrypted { first_inner, .. } => *first_inner,
            _ => first_type(&payloads[at + 1..]),
        };
        out.extend([next, 0]);
        with_length(out, 2, |out| payload.encode(out));
    }
}
