//! The chain of payloads (RFC 2408 sections 3.2 and following; RFC 3947 sections 3.2 and 5.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    header::Header,
    notify::Notify,
    sa::{DOI_IPSEC, ProtocolId, SecurityAssociation},
    vendor::NatTraversal,
};
use crate::{
    v1::id::Identification,
    wire::{Reader, WireError, with_length},
};

/// One payload, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Sa(SecurityAssociation),
    KeyExchange(Vec<u8>),
    Id(Identification),
    Hash(Vec<u8>),
    Nonce(Vec<u8>),
    Notify(Notify),
    Delete(Delete),
    VendorId(Vec<u8>),
    /// HASH(CKY-I | CKY-R | address | port).
    NatD(NatTraversal, Vec<u8>),
    /// An address as its owner sees it.
    NatOa(NatTraversal, IpAddr),
    Fragment(FragmentPayload),
    /// A payload that is known and not needed (CERT, CR, SIG, ATTR), or of a private number.
    Ignored {
        number: u8,
    },
}

/// The body of a delete payload (RFC 2408 section 3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delete {
    pub(crate) protocol: ProtocolId,
    /// All of one size: four octets for ESP and AH; both cookies, sixteen, for the ISAKMP SA.
    pub(crate) spis: Vec<Vec<u8>>,
}

impl Delete {
    /// Of SAs of ESP or AH, by their inbound SPIs at the sender.
    pub(crate) fn children(protocol: ProtocolId, spis: &[u32]) -> Self {
        Self { protocol, spis: spis.iter().map(|spi| spi.to_be_bytes().to_vec()).collect() }
    }

    /// Of an ISAKMP SA.
    pub(crate) fn isakmp(cookies: (u64, u64)) -> Self {
        let spi = [cookies.0.to_be_bytes(), cookies.1.to_be_bytes()].concat();
        Self { protocol: ProtocolId::Isakmp, spis: vec![spi] }
    }

    /// The SPIs of SAs of ESP or AH.
    pub(crate) fn child_spis(&self) -> impl Iterator<Item = u32> {
        let octets = self.spis.iter().filter_map(|spi| spi.as_slice().try_into().ok());
        octets.map(u32::from_be_bytes)
    }

    /// Whether it names the ISAKMP SA with these cookies.
    pub(crate) fn names_isakmp(&self, cookies: (u64, u64)) -> bool {
        self.protocol == ProtocolId::Isakmp && self.spis.contains(&Self::isakmp(cookies).spis[0])
    }
}

/// A piece of a whole message, its header included (vendor ID "FRAGMENTATION").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FragmentPayload {
    /// The same in all pieces of a message.
    pub(crate) id: u16,
    /// From 1 on.
    pub(crate) number: u8,
    pub(crate) last: bool,
    pub(crate) data: Vec<u8>,
}

const NAT_D: u8 = 20;
const NAT_OA: u8 = 21;
const NAT_D_DRAFT: u8 = 130;
const NAT_OA_DRAFT: u8 = 131;
pub(crate) const FRAGMENT: u8 = 132;
/// Payloads of these numbers are known, though not needed: CERT, CR, SIG, ATTR.
const NOT_NEEDED: [u8; 4] = [6, 7, 9, 14];
const PRIVATE: std::ops::RangeInclusive<u8> = 128..=255;
const LAST_FRAGMENT: u8 = 1;
const ID_IPV4_ADDR: u8 = 1;
const ID_IPV6_ADDR: u8 = 5;

/// More payloads than any honest message has: some peers announce two dozen vendor IDs.
const MAX_PAYLOADS: usize = 96;
/// RFC 2409 section 5 has 8 to 256 octets.
const NONCE_LENGTHS: std::ops::RangeInclusive<usize> = 8..=256;

impl Payload {
    pub(crate) fn number(&self) -> u8 {
        match self {
            Self::Sa(_) => 1,
            Self::KeyExchange(_) => 4,
            Self::Id(_) => 5,
            Self::Hash(_) => 8,
            Self::Nonce(_) => 10,
            Self::Notify(_) => 11,
            Self::Delete(_) => 12,
            Self::VendorId(_) => 13,
            Self::NatD(NatTraversal::Rfc3947, _) => NAT_D,
            Self::NatD(NatTraversal::Draft, _) => NAT_D_DRAFT,
            Self::NatOa(NatTraversal::Rfc3947, _) => NAT_OA,
            Self::NatOa(NatTraversal::Draft, _) => NAT_OA_DRAFT,
            Self::Fragment(_) => FRAGMENT,
            Self::Ignored { number } => *number,
        }
    }

    /// The octets that follow the generic header, as hashes cover them: SAi_b, IDii_b, Ni_b.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Reserved numbers are refused (RFC 2408 section 5.3); private ones may mean something to whoever knows the
    /// vendor ID that goes with them, and are passed over.
    fn decode(number: u8, body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        Ok(match number {
            1 => Self::Sa(SecurityAssociation::decode(body)?),
            4 => Self::KeyExchange(body.to_vec()),
            5 => {
                let (kind, protocol, port) = (reader.u8()?, reader.u8()?, reader.u16()?);
                Self::Id(Identification { kind, protocol, port, data: reader.rest().to_vec() })
            }
            8 => Self::Hash(body.to_vec()),
            10 if !NONCE_LENGTHS.contains(&body.len()) => return Err(WireError::Field("nonce length")),
            10 => Self::Nonce(body.to_vec()),
            11 => Self::Notify(Notify::decode(body)?),
            12 => Self::Delete(decode_delete(&mut reader)?),
            13 => Self::VendorId(body.to_vec()),
            NAT_D => Self::NatD(NatTraversal::Rfc3947, body.to_vec()),
            NAT_D_DRAFT => Self::NatD(NatTraversal::Draft, body.to_vec()),
            NAT_OA => Self::NatOa(NatTraversal::Rfc3947, decode_nat_oa(&mut reader)?),
            NAT_OA_DRAFT => Self::NatOa(NatTraversal::Draft, decode_nat_oa(&mut reader)?),
            FRAGMENT => {
                let (id, number, flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
                let last = flags & LAST_FRAGMENT != 0;
                Self::Fragment(FragmentPayload { id, number, last, data: reader.rest().to_vec() })
            }
            number if NOT_NEEDED.contains(&number) || PRIVATE.contains(&number) => Self::Ignored { number },
            _ => return Err(WireError::Field("payload type")),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sa(sa) => sa.encode(out),
            Self::KeyExchange(octets)
            | Self::Hash(octets)
            | Self::Nonce(octets)
            | Self::VendorId(octets)
            | Self::NatD(_, octets) => out.extend(octets),
            Self::Id(id) => {
                out.extend([id.kind, id.protocol]);
                out.extend(id.port.to_be_bytes());
                out.extend(&id.data);
            }
            Self::Notify(notify) => notify.encode(out),
            Self::Delete(Delete { protocol, spis }) => {
                out.extend(DOI_IPSEC.to_be_bytes());
                out.extend([protocol.number(), spis.first().map_or(0, Vec::len) as u8]);
                out.extend((spis.len() as u16).to_be_bytes());
                out.extend(spis.iter().flatten());
            }
            Self::NatOa(_, address) => match address {
                IpAddr::V4(v4) => {
                    out.extend([ID_IPV4_ADDR, 0, 0, 0]);
                    out.extend(v4.octets());
                }
                IpAddr::V6(v6) => {
                    out.extend([ID_IPV6_ADDR, 0, 0, 0]);
                    out.extend(v6.octets());
                }
            },
            Self::Fragment(FragmentPayload { id, number, last, data }) => {
                out.extend(id.to_be_bytes());
                out.extend([*number, if *last { LAST_FRAGMENT } else { 0 }]);
                out.extend(data);
            }
            Self::Ignored { .. } => {}
        }
    }
}

fn decode_delete(reader: &mut Reader<'_>) -> Result<Delete, WireError> {
    let _doi = reader.u32()?;
    let (protocol, spi_len, count) = (reader.u8()?, reader.u8()?, reader.u16()?);
    let protocol = ProtocolId::from_number(protocol);
    let expected = match protocol {
        ProtocolId::Isakmp => Some(16),
        ProtocolId::Ah | ProtocolId::Esp => Some(4),
        ProtocolId::Other(_) => None,
    };
    if spi_len == 0 || expected.is_some_and(|expected| expected != spi_len) {
        return Err(WireError::Field("SPI size in DELETE"));
    }
    if count == 0 {
        return Err(WireError::Field("number of SPIs in DELETE"));
    }
    let spis = (0..count).map(|_| reader.take(spi_len.into()).map(<[u8]>::to_vec));
    let spis = spis.collect::<Result<_, _>>()?;
    if !reader.is_empty() {
        return Err(WireError::Length);
    }
    Ok(Delete { protocol, spis })
}

fn decode_nat_oa(reader: &mut Reader<'_>) -> Result<IpAddr, WireError> {
    let kind = reader.u8()?;
    reader.take(3)?;
    let address = match kind {
        ID_IPV4_ADDR => Ipv4Addr::from(reader.array::<4>()?).into(),
        ID_IPV6_ADDR => Ipv6Addr::from(reader.array::<16>()?).into(),
        _ => return Err(WireError::Field("ID type in NAT-OA")),
    };
    if !reader.is_empty() {
        return Err(WireError::Length);
    }
    Ok(address)
}

/// A decoded chain of payloads, with the octets that hashes cover.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    pub(crate) payloads: Vec<Payload>,
    bodies: Vec<&'a [u8]>,
    after_first: &'a [u8],
}

impl<'a> Chain<'a> {
    /// Decodes the chain of a whole message that is not encrypted.
    pub(crate) fn of(message: &'a [u8]) -> Result<Self, WireError> {
        let (_, first, rest) = Header::decode(message)?;
        Self::decode(first, rest)
    }

    /// Decodes the chain of a message that is not encrypted, whose first payload is of type `first`.
    pub(crate) fn decode(first: u8, octets: &'a [u8]) -> Result<Self, WireError> {
        match Self::decode_front(first, octets)? {
            (chain, []) => Ok(chain),
            _ => Err(WireError::Length),
        }
    }

    /// Decodes the chain of a decrypted message: what follows it is padding, whatever it says, and no hash covers
    /// it.
    pub(crate) fn decode_padded(first: u8, octets: &'a [u8]) -> Result<Self, WireError> {
        Self::decode_front(first, octets).map(|(chain, _padding)| chain)
    }

    fn decode_front(first: u8, octets: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        let mut reader = Reader::new(octets);
        let (mut payloads, mut bodies) = (Vec::new(), Vec::new());
        let (mut number, mut used, mut first_end) = (first, 0, 0);
        while number != 0 {
            if payloads.len() == MAX_PAYLOADS {
                return Err(WireError::Field("number of payloads"));
            }
            let (next, _reserved, length) = (reader.u8()?, reader.u8()?, usize::from(reader.u16()?));
            let body = reader.take(length.checked_sub(4).ok_or(WireError::Length)?)?;
            payloads.push(Payload::decode(number, body)?);
            bodies.push(body);
            used += length;
            if payloads.len() == 1 {
                first_end = used;
            }
            number = next;
        }
        Ok((Self { payloads, bodies, after_first: &octets[first_end..used] }, &octets[used..]))
    }

    /// The payloads after the first with their generic headers and without padding: what HASH(1), HASH(2) and the
    /// hash of informational messages cover, where the first payload is the hash itself.
    pub(crate) fn after_first(&self) -> &'a [u8] {
        self.after_first
    }

    /// Each payload with its body's octets as they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Payload, &'a [u8])> {
        self.payloads.iter().zip(self.bodies.iter().copied())
    }
}

/// The type of the first payload of a chain, 0 for none.
pub(crate) fn first_type(payloads: &[Payload]) -> u8 {
    payloads.first().map_or(0, Payload::number)
}

/// Appends a chain.
pub(crate) fn encode_chain(payloads: &[Payload], out: &mut Vec<u8>) {
    for (at, payload) in payloads.iter().enumerate() {
        out.extend([first_type(&payloads[at + 1..]), 0]);
        with_length(out, 2, |out| payload.encode(out));
    }
}
