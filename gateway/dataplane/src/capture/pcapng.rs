//! Captures as pcapng (draft-ietf-opsawg-pcapng): one section, an interface each for inner and outer packets, times in
//! nanoseconds.

use super::{Copied, Side};
use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// LINKTYPE_RAW: the packet begins with its IP header.
const RAW: u16 = 101;
const OPT_USER_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;
const NANOSECONDS: u8 = 9;

/// Writes a capture.
pub(crate) struct Writer<W>(W);

impl<W: Write> Writer<W> {
    /// Begins one with packets of the tunnel of this number.
    pub(crate) fn new(mut out: W, tunnel: u32) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        body.extend([1, 0, 0, 0]);
        // The section's length is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, OPT_USER_APPLICATION, concat!("Adit ", env!("CARGO_PKG_VERSION")).as_bytes());
        end_of_options(&mut body);
        block(&mut out, SECTION_HEADER, &body)?;
        for (name, what) in [("inner", "in clear"), ("outer", "sealed")] {
            let mut body = Vec::new();
            body.extend(RAW.to_le_bytes());
            body.extend([0; 2 + 4]);
            option(&mut body, IF_NAME, name.as_bytes());
            option(&mut body, IF_DESCRIPTION, format!("packets of tunnel {tunnel}, {what}").as_bytes());
            option(&mut body, IF_TSRESOL, &[NANOSECONDS]);
            end_of_options(&mut body);
            block(&mut out, INTERFACE_DESCRIPTION, &body)?;
        }
        Ok(Writer(out))
    }

    /// Adds a packet.
    pub(crate) fn packet(&mut self, copied: &Copied) -> io::Result<()> {
        let time = copied.at.as_nanos() as u64;
        let len = copied.packet.len() as u32;
        let mut body = Vec::with_capacity(copied.packet.len() + 48);
        body.extend(interface(copied.side).to_le_bytes());
        body.extend(((time >> 32) as u32).to_le_bytes());
        body.extend((time as u32).to_le_bytes());
        body.extend(len.to_le_bytes());
        body.extend(len.to_le_bytes());
        body.extend(&*copied.packet);
        pad(&mut body);
        let direction = if copied.is_outbound { 2u32 } else { 1 };
        option(&mut body, EPB_FLAGS, &direction.to_le_bytes());
        end_of_options(&mut body);
        block(&mut self.0, ENHANCED_PACKET, &body)
    }

    /// Ends it: `missed` packets are not in it that should be.
    pub(crate) fn end(mut self, missed: u64) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend(interface(Side::Inner).to_le_bytes());
        body.extend([0; 8]);
        option(&mut body, ISB_IFDROP, &missed.to_le_bytes());
        end_of_options(&mut body);
        block(&mut self.0, INTERFACE_STATISTICS, &body)?;
        self.0.flush()
    }

    /// Hands on what has been written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn interface(side: Side) -> u32 {
    match side {
        Side::Inner => 0,
        Side::Outer => 1,
    }
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len)?;
    out.write_all(body)?;
    out.write_all(&len)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn blocks_are_whole_and_their_lengths_agree() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 7).unwrap();
        let packet: Box<[u8]> = b"\x45hello".as_slice().into();
        let at = Duration::from_nanos(0x1_0000_0002);
        writer.packet(&Copied { at, side: Side::Outer, is_outbound: true, packet }).unwrap();
        writer.end(3).unwrap();
        let word = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().unwrap());
        let (mut at, mut kinds) = (0, Vec::new());
        while at < out.len() {
            let len = word(at + 4) as usize;
            assert!(len.is_multiple_of(4) && word(at + len - 4) as usize == len, "block at {at}");
            kinds.push(word(at));
            if word(at) == ENHANCED_PACKET {
                assert_eq!([8, 12, 16, 20, 24].map(|o| word(at + o)), [1, 1, 2, 6, 6]);
                assert_eq!(&out[at + 28..at + 34], b"\x45hello");
            }
            at += len;
        }
        let [section, interface] = [SECTION_HEADER, INTERFACE_DESCRIPTION];
        assert_eq!(kinds, [section, interface, interface, ENHANCED_PACKET, INTERFACE_STATISTICS]);
    }
}
