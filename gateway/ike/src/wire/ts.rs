//! Traffic selector payloads (RFC 7296 section 3.13).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Reader, WireError, with_length};
use crate::selector::{MAX_SELECTORS, TrafficSelector};

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;

/// Selectors of a type this endpoint does not know are left out, as are empty ranges: neither can be narrowed
/// to.
pub(super) fn decode(body: &[u8]) -> Result<Vec<TrafficSelector>, WireError> {
    let mut reader = Reader::new(body);
    let count = reader.u8()?;
    reader.take(3)?;
    let mut selectors = Vec::new();
    for _ in 0..count {
        let (kind, protocol, length) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let mut inner =
            Reader::new(reader.take(usize::from(length).checked_sub(4).ok_or(WireError::Length)?)?);
        if kind != TS_IPV4_ADDR_RANGE && kind != TS_IPV6_ADDR_RANGE {
            continue;
        }
        let ports = inner.u16()?..=inner.u16()?;
        let mut address = || -> Result<IpAddr, WireError> {
            Ok(if kind == TS_IPV4_ADDR_RANGE {
                Ipv4Addr::from(inner.array::<4>()?).into()
            } else {
                Ipv6Addr::from(inner.array::<16>()?).into()
            })
        };
        let (start, end) = (address()?, address()?);
        if !inner.is_empty() {
            return Err(WireError::Length);
        }
        if start <= end && !ports.is_empty() {
            selectors.push(TrafficSelector { protocol, ports, start, end });
        }
    }
    Ok(selectors)
}

/// Callers see to it that there are no more than [`MAX_SELECTORS`].
pub(super) fn encode(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    debug_assert!(selectors.len() <= MAX_SELECTORS);
    out.extend([selectors.len() as u8, 0, 0, 0]);
    for selector in selectors {
        let kind = if selector.start.is_ipv4() { TS_IPV4_ADDR_RANGE } else { TS_IPV6_ADDR_RANGE };
        out.extend([kind, selector.protocol]);
        with_length(out, 2, |out| {
            out.extend(selector.ports.start().to_be_bytes());
            out.extend(selector.ports.end().to_be_bytes());
            for address in [selector.start, selector.end] {
                match address {
                    IpAddr::V4(v4) => out.extend(v4.octets()),
                    IpAddr::V6(v6) => out.extend(v6.octets()),
                }
            }
        });
    }
}
