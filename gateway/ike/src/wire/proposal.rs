//! Security association payloads: proposals and transforms (RFC 7296 section 3.3).

use super::{Reader, WireError, with_length};
use crate::config;

/// A security protocol identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ike,
    Ah,
    Esp,
}

impl Protocol {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Ike, Self::Ah, Self::Esp].into_iter().find(|p| p.number() == number)
    }

    pub(crate) fn number(self) -> u8 {
        1 + self as u8
    }
}

impl From<config::Protocol> for Protocol {
    fn from(protocol: config::Protocol) -> Self {
        match protocol {
            config::Protocol::Esp => Self::Esp,
            config::Protocol::Ah => Self::Ah,
        }
    }
}

/// A transform type, in the order in which people name them. Others are kept by number so that a proposal
/// that needs them can be told from one that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TransformType {
    Encryption,
    Integrity,
    Prf,
    DiffieHellman,
    /// ADDKE1, the first additional key exchange (RFC 9370).
    AdditionalKe,
    Esn,
    Other(u8),
}

impl TransformType {
    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Encryption,
            2 => Self::Prf,
            3 => Self::Integrity,
            4 => Self::DiffieHellman,
            5 => Self::Esn,
            6 => Self::AdditionalKe,
            other => Self::Other(other),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Encryption => 1,
            Self::Prf => 2,
            Self::Integrity => 3,
            Self::DiffieHellman => 4,
            Self::Esn => 5,
            Self::AdditionalKe => 6,
            Self::Other(other) => other,
        }
    }
}

/// One transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transform {
    pub(crate) kind: TransformType,
    pub(crate) id: u16,
    pub(crate) key_bits: Option<u16>,
    /// It carries an attribute other than the key length, and so must not be chosen (RFC 7296 section 3.3.6).
    pub(crate) unknown_attribute: bool,
}

impl Transform {
    pub(crate) fn new(kind: TransformType, id: u16, key_bits: Option<u16>) -> Self {
        Self { kind, id, key_bits, unknown_attribute: false }
    }
}

/// One proposal: alternatives of each transform type, all of which types are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) number: u8,
    pub(crate) protocol: Protocol,
    pub(crate) spi: Vec<u8>,
    pub(crate) transforms: Vec<Transform>,
}

const LAST: u8 = 0;
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;
/// The key length attribute, in the short (TV) format.
const KEY_LENGTH: u16 = 0x8000 | 14;

/// More transforms than any honest payload has: what can be made to cost time and space is bounded.
const MAX_TRANSFORMS: usize = 512;

/// Proposals for a protocol this endpoint does not know are left out: they can never be chosen.
pub(super) fn decode(body: &[u8]) -> Result<Vec<Proposal>, WireError> {
    let mut reader = Reader::new(body);
    let mut proposals = Vec::new();
    let mut count = 0;
    while !reader.is_empty() {
        let (_more, _reserved, length) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let mut inner =
            Reader::new(reader.take(usize::from(length).checked_sub(4).ok_or(WireError::Length)?)?);
        let (number, protocol, spi_len, transform_count) =
            (inner.u8()?, inner.u8()?, inner.u8()?, inner.u8()?);
        let spi = inner.take(spi_len.into())?.to_vec();
        // A proposal without transforms counts too.
        count += usize::from(transform_count).max(1);
        if count > MAX_TRANSFORMS {
            return Err(WireError::Field("number of transforms"));
        }
        let mut transforms = Vec::with_capacity(transform_count.into());
        for _ in 0..transform_count {
            transforms.push(decode_transform(&mut inner)?);
        }
        if !inner.is_empty() {
            return Err(WireError::Length);
        }
        if let Some(protocol) = Protocol::from_number(protocol) {
            proposals.push(Proposal { number, protocol, spi, transforms });
        }
    }
    Ok(proposals)
}

fn decode_transform(reader: &mut Reader<'_>) -> Result<Transform, WireError> {
    let (_more, _reserved, length) = (reader.u8()?, reader.u8()?, reader.u16()?);
    let mut inner = Reader::new(reader.take(usize::from(length).checked_sub(4).ok_or(WireError::Length)?)?);
    let (kind, _reserved, id) = (inner.u8()?, inner.u8()?, inner.u16()?);
    let mut transform = Transform::new(TransformType::from_number(kind), id, None);
    while !inner.is_empty() {
        let (attribute, value) = (inner.u16()?, inner.u16()?);
        if attribute == KEY_LENGTH {
            transform.key_bits = Some(value);
        } else {
            transform.unknown_attribute = true;
            if attribute & 0x8000 == 0 {
                inner.take(value.into())?;
            }
        }
    }
    Ok(transform)
}

pub(super) fn encode(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (at, proposal) in proposals.iter().enumerate() {
        out.extend([if at + 1 == proposals.len() { LAST } else { MORE_PROPOSALS }, 0]);
        with_length(out, 2, |out| {
            let counts = [proposal.spi.len() as u8, proposal.transforms.len() as u8];
            out.extend([proposal.number, proposal.protocol.number(), counts[0], counts[1]]);
            out.extend(&proposal.spi);
            for (at, transform) in proposal.transforms.iter().enumerate() {
                out.extend([if at + 1 == proposal.transforms.len() { LAST } else { MORE_TRANSFORMS }, 0]);
                with_length(out, 2, |out| {
                    out.extend([transform.kind.number(), 0]);
                    out.extend(transform.id.to_be_bytes());
                    if let Some(bits) = transform.key_bits {
                        out.extend(KEY_LENGTH.to_be_bytes());
                        out.extend(bits.to_be_bytes());
                    }
                });
            }
        });
    }
}
