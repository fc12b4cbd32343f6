//! Security association payloads: proposals, transforms and their attributes (RFC 2408 sections 3.3 to 3.6,
//! RFC 2407 section 4.6.1).

use crate::wire::{Reader, WireError, with_length};

/// The IPsec DOI (RFC 2407 section 4.2), in SA, notify and delete payloads alike.
pub(crate) const DOI_IPSEC: u32 = 1;
const SIT_IDENTITY_ONLY: u32 = 1;

/// A security protocol identifier (RFC 2407 section 4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProtocolId {
    Isakmp,
    Ah,
    Esp,
    /// IPCOMP and what nobody defined: kept, because a proposal that needs it must not be taken for one that does
    /// not.
    Other(u8),
}

impl ProtocolId {
    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Isakmp,
            2 => Self::Ah,
            3 => Self::Esp,
            other => Self::Other(other),
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Isakmp => 1,
            Self::Ah => 2,
            Self::Esp => 3,
            Self::Other(other) => other,
        }
    }
}

impl From<crate::config::Protocol> for ProtocolId {
    fn from(protocol: crate::config::Protocol) -> Self {
        match protocol {
            crate::config::Protocol::Esp => Self::Esp,
            crate::config::Protocol::Ah => Self::Ah,
        }
    }
}

/// The value of an attribute, in the form in which it came: an answer must repeat it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Type/value, two octets.
    Short(u16),
    /// Type/length/value.
    Long(Vec<u8>),
}

/// A data attribute (RFC 2408 section 3.3); types are below 2^15.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) kind: u16,
    pub(crate) value: Value,
}

impl Attribute {
    /// In the short form where the number fits.
    pub(crate) fn new(kind: u16, number: u32) -> Self {
        let value =
            u16::try_from(number).map_or_else(|_| Value::Long(number.to_be_bytes().to_vec()), Value::Short);
        Self { kind, value }
    }

    /// The value as a number, `None` where it does not fit.
    pub(crate) fn number(&self) -> Option<u64> {
        match &self.value {
            Value::Short(number) => Some((*number).into()),
            Value::Long(octets) => {
                let significant = octets.iter().position(|o| *o != 0).map_or(&[][..], |at| &octets[at..]);
                (significant.len() <= 8 && !octets.is_empty())
                    .then(|| significant.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)))
            }
        }
    }
}

/// One transform: an algorithm and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transform {
    pub(crate) number: u8,
    pub(crate) id: u8,
    pub(crate) attributes: Vec<Attribute>,
}

/// One proposal: alternative transforms for one protocol. Proposals of the same number are meant together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) number: u8,
    pub(crate) protocol: ProtocolId,
    pub(crate) spi: Vec<u8>,
    pub(crate) transforms: Vec<Transform>,
}

/// An SA payload of the IPsec DOI, its situation "identity only".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SecurityAssociation {
    pub(crate) proposals: Vec<Proposal>,
}

const PROPOSAL: u8 = 2;
const TRANSFORM: u8 = 3;
const LAST: u8 = 0;
const SHORT_FORM: u16 = 0x8000;

/// More transforms than any honest payload has: what can be made to cost time and space is bounded.
const MAX_TRANSFORMS: usize = 1024;

impl SecurityAssociation {
    pub(super) fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        if reader.u32()? != DOI_IPSEC {
            return Err(WireError::Field("DOI"));
        }
        if reader.u32()? != SIT_IDENTITY_ONLY {
            return Err(WireError::Field("situation"));
        }
        let mut proposals = Vec::new();
        let mut count = 0;
        let mut next = PROPOSAL;
        while next != LAST {
            let (more, mut inner) = substructure(&mut reader, next, PROPOSAL)?;
            next = more;
            let (number, protocol, spi_len, transform_count) =
                (inner.u8()?, inner.u8()?, inner.u8()?, inner.u8()?);
            let spi = inner.take(spi_len.into())?.to_vec();
            // A proposal without transforms counts too.
            count += usize::from(transform_count).max(1);
            if count > MAX_TRANSFORMS {
                return Err(WireError::Field("number of transforms"));
            }
            let protocol = ProtocolId::from_number(protocol);
            let transforms = decode_transforms(inner, transform_count)?;
            proposals.push(Proposal { number, protocol, spi, transforms });
        }
        if !reader.is_empty() {
            return Err(WireError::Length);
        }
        Ok(Self { proposals })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(DOI_IPSEC.to_be_bytes());
        out.extend(SIT_IDENTITY_ONLY.to_be_bytes());
        for (at, proposal) in self.proposals.iter().enumerate() {
            out.extend([if at + 1 == self.proposals.len() { LAST } else { PROPOSAL }, 0]);
            with_length(out, 2, |out| proposal.encode(out));
        }
    }
}

/// One proposal or transform: what follows it, and its content.
fn substructure<'a>(reader: &mut Reader<'a>, kind: u8, expected: u8) -> Result<(u8, Reader<'a>), WireError> {
    if kind != expected {
        return Err(WireError::Field("next payload within an SA payload"));
    }
    let (next, _reserved, length) = (reader.u8()?, reader.u8()?, reader.u16()?);
    Ok((next, Reader::new(reader.take(usize::from(length).checked_sub(4).ok_or(WireError::Length)?)?)))
}

fn decode_transforms(mut reader: Reader<'_>, count: u8) -> Result<Vec<Transform>, WireError> {
    let mut transforms = Vec::with_capacity(count.into());
    let mut next = if count == 0 { LAST } else { TRANSFORM };
    for _ in 0..count {
        let (more, mut inner) = substructure(&mut reader, next, TRANSFORM)?;
        next = more;
        let (number, id, _reserved) = (inner.u8()?, inner.u8()?, inner.u16()?);
        transforms.push(Transform { number, id, attributes: decode_attributes(inner.rest())? });
    }
    if next != LAST || !reader.is_empty() {
        return Err(WireError::Length);
    }
    Ok(transforms)
}

/// A list of attributes, as transforms and RESPONDER-LIFETIME have.
pub(crate) fn decode_attributes(octets: &[u8]) -> Result<Vec<Attribute>, WireError> {
    let mut reader = Reader::new(octets);
    let mut attributes = Vec::new();
    while !reader.is_empty() {
        let (kind, value) = (reader.u16()?, reader.u16()?);
        let value = match kind & SHORT_FORM {
            0 => Value::Long(reader.take(value.into())?.to_vec()),
            _ => Value::Short(value),
        };
        attributes.push(Attribute { kind: kind & !SHORT_FORM, value });
    }
    Ok(attributes)
}

/// Appends a list of attributes, none longer than 65,535 octets.
pub(crate) fn encode_attributes(attributes: &[Attribute], out: &mut Vec<u8>) {
    for attribute in attributes {
        match &attribute.value {
            Value::Short(value) => {
                out.extend((attribute.kind | SHORT_FORM).to_be_bytes());
                out.extend(value.to_be_bytes());
            }
            Value::Long(octets) => {
                out.extend(attribute.kind.to_be_bytes());
                out.extend((octets.len() as u16).to_be_bytes());
                out.extend(octets);
            }
        }
    }
}

impl Proposal {
    fn encode(&self, out: &mut Vec<u8>) {
        let counts = [self.spi.len() as u8, self.transforms.len() as u8];
        out.extend([self.number, self.protocol.number(), counts[0], counts[1]]);
        out.extend(&self.spi);
        for (at, transform) in self.transforms.iter().enumerate() {
            out.extend([if at + 1 == self.transforms.len() { LAST } else { TRANSFORM }, 0]);
            with_length(out, 2, |out| {
                out.extend([transform.number, transform.id, 0, 0]);
                encode_attributes(&transform.attributes, out);
            });
        }
    }
}
