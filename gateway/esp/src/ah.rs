//! The Authentication Header in tunnel mode (RFC 4302): it leaves the packet in clear, and covers the outer header too.

use crate::hmac::Hmac;
use crate::sa::{Auth, Cipher, InvalidSa, Protocol, SaParams};
use std::ops::Range;

/// Next header, length, reserved, SPI, sequence number.
pub(crate) const FIXED_LEN: usize = 12;
/// The longest IPv4 header, options included; an IPv6 one has 40 bytes.
const MAX_IP_LEN: usize = 60;
/// The longest header: its length is told in one byte, in words of four bytes, less two.
const MAX_LEN: usize = (u8::MAX as usize + 2) * 4;

/// What an AH SA does to its packets.
pub(crate) struct Ah {
    hmac: Hmac,
    /// Bytes of the header as we write it, the ICV padded to what the IP version asks for.
    len: usize,
}

impl Ah {
    /// Absorbs the key of `params`.
    ///
    /// # Errors
    /// [`InvalidSa`] when there is a cipher, no integrity algorithm, or an encapsulation.
    pub(crate) fn new(params: &SaParams) -> Result<Self, InvalidSa> {
        let (cipher, auth) = (params.cipher, params.auth);
        let hmac = Hmac::new(auth, &params.auth_key[..auth.key_len()])
            .filter(|_| cipher == Cipher::Null)
            .ok_or(InvalidSa::Combination { protocol: Protocol::Ah, cipher, auth })?;
        if params.outer.udp.is_some() {
            return Err(InvalidSa::EncapsulatedAh);
        }
        // RFC 4302 section 3.3.3.2.1.
        let alignment = if params.outer.local.is_ipv6() { 8 } else { 4 };
        let len = (FIXED_LEN + hmac.icv_len()).next_multiple_of(alignment);
        Ok(Self { hmac, len })
    }

    /// Bytes of the header that sealing writes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Writes the header behind the `ip_len` bytes of the outer IP header, which is complete in `packet` as is the
    /// inner packet.
    pub(crate) fn seal(
        &self,
        packet: &mut [u8],
        ip_len: usize,
        next_header: u8,
        spi: u32,
        seq: u64,
        seq_high: Option<u32>,
    ) {
        let (ip, rest) = packet.split_at_mut(ip_len);
        let (header, inner) = rest.split_at_mut(self.len);
        header[0] = next_header;
        header[1] = (self.len / 4 - 2) as u8;
        header[2..4].fill(0);
        header[4..8].copy_from_slice(&spi.to_be_bytes());
        header[8..FIXED_LEN].copy_from_slice(&(seq as u32).to_be_bytes());
        header[FIXED_LEN..].fill(0);
        let mut masked = [0; MAX_IP_LEN];
        let ip = mask(ip, &mut masked).expect("the header that we write has no options");
        let mut icv = [0; MAX_ICV_LEN];
        let icv = &mut icv[..self.hmac.icv_len()];
        self.hmac.sign(&[ip, header, inner], seq_high, icv);
        header[FIXED_LEN..FIXED_LEN + icv.len()].copy_from_slice(icv);
    }

    /// Where the payload lies in `ah`, the packet from the header on; `None` when the header is too short for its ICV
    /// or longer than the packet. A longer padding than ours is taken: some align to eight bytes under IPv4 too.
    pub(crate) fn payload(&self, ah: &[u8]) -> Option<Range<usize>> {
        let len = (usize::from(*ah.get(1)?) + 2) * 4;
        (FIXED_LEN + self.hmac.icv_len()..=ah.len()).contains(&len).then_some(len..ah.len())
    }

    /// Whether the ICV of `packet` is right, whose AH begins behind the outer header of `ip_len` bytes and whose
    /// length [`Ah::payload`] has accepted.
    #[must_use]
    pub(crate) fn verify(&self, packet: &[u8], ip_len: usize, seq_high: Option<u32>) -> bool {
        let (ip, rest) = packet.split_at(ip_len);
        let mut masked = [0; MAX_IP_LEN];
        let Some(ip) = mask(ip, &mut masked) else { return false };
        let (fixed, rest) = rest.split_at(FIXED_LEN);
        let (icv, rest) = rest.split_at(self.hmac.icv_len());
        const ZERO: [u8; MAX_ICV_LEN] = [0; MAX_ICV_LEN];
        self.hmac.verify(&[ip, fixed, &ZERO[..icv.len()], rest], seq_high, icv)
    }
}

/// Bytes of the longest ICV.
const MAX_ICV_LEN: usize = 32;

const _: () = {
    let mut i = 0;
    while i < Auth::ALL.len() {
        assert!(Auth::ALL[i].icv_len() <= MAX_ICV_LEN);
        i += 1;
    }
    assert!((FIXED_LEN + MAX_ICV_LEN).next_multiple_of(8) <= MAX_LEN);
};

/// Copies an outer header with all that changes on the way replaced by zero (RFC 4302 section 3.3.3.1); `None` for
/// options that contradict themselves.
fn mask<'a>(ip: &[u8], masked: &'a mut [u8; MAX_IP_LEN]) -> Option<&'a [u8]> {
    let masked = masked.get_mut(..ip.len())?;
    masked.copy_from_slice(ip);
    if ip.first()? >> 4 == 6 {
        // Traffic class, flow label, hop limit.
        masked[0] &= 0xf0;
        masked[1..4].fill(0);
        masked[7] = 0;
        return Some(masked);
    }
    // Type of service, flags and fragment offset, time to live, checksum.
    masked[1] = 0;
    masked[6..8].fill(0);
    masked[8] = 0;
    masked[10..12].fill(0);
    mask_options(&mut masked[20..])?;
    Some(masked)
}

/// Zeroes the IPv4 options that routers may change, and those that nobody here knows (RFC 4302 appendix A1).
fn mask_options(mut options: &mut [u8]) -> Option<()> {
    while let Some(&kind) = options.first() {
        let len = match kind {
            END => return Some(()),
            NO_OPERATION => 1,
            _ => options.get(1).map(|len| usize::from(*len)).filter(|len| *len >= 2)?,
        };
        let (option, rest) = options.split_at_mut_checked(len)?;
        if !IMMUTABLE.contains(&kind) {
            option.fill(0);
        }
        options = rest;
    }
    Some(())
}

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
/// No operation, security, extended security, commercial security, router alert, multi-destination delivery.
const IMMUTABLE: [u8; 6] = [NO_OPERATION, 130, 133, 134, 148, 149];

#[cfg(test)]
#[path = "ah_tests.rs"]
mod tests;
