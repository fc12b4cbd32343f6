//! Packets that nobody should send: random, cut off, forged, replayed.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::sys::{Frames, RawIpv4};

/// Numbers that look random and are the same in every run.
#[derive(Debug)]
pub struct Noise(u64);

impl Noise {
    /// The noise of this seed.
    pub fn new(seed: u64) -> Noise {
        Noise(seed | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number().to_be_bytes()[0]).collect()
    }
}

/// Sends datagrams to `to` from a namespace, from a port of the kernel's choice.
///
/// # Errors
/// The namespace or the network says no.
pub fn datagrams(from: &Namespace, to: SocketAddr, datagrams: &[Vec<u8>]) -> Result<()> {
    from.inside(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        for datagram in datagrams {
            // An ICMP error for an earlier datagram shows up here, and is not about this one.
            let _ = socket.send_to(datagram, to);
            pace();
        }
        Ok(())
    })
}

/// Sends whole IPv4 packets from a namespace by its routes, whatever source they claim.
///
/// # Errors
/// The namespace or the network says no.
pub fn packets(from: &Namespace, to: Ipv4Addr, packets: &[Vec<u8>]) -> Result<()> {
    from.inside(|| {
        let socket = RawIpv4::open().context("failed to open a raw socket")?;
        for packet in packets {
            socket.send(packet, to).context("failed to send a forged packet")?;
            pace();
        }
        Ok(())
    })
}

/// Sends whole Ethernet frames by an interface of a namespace, as they are.
///
/// # Errors
/// The namespace or the network says no.
pub fn frames(from: &Namespace, interface: &str, frames: &[Vec<u8>]) -> Result<()> {
    from.inside(|| {
        let socket = Frames::open(interface).context("failed to open a packet socket")?;
        for frame in frames {
            socket.send(frame).context("failed to send a frame")?;
            pace();
        }
        Ok(())
    })
}

/// An IPv4 packet with this payload.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    // The kernel fills in identification and checksum.
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// An ESP packet: SPI, sequence number, and a body that stands for IV, ciphertext and ICV.
pub fn esp(spi: u32, sequence: u32, body: &[u8]) -> Vec<u8> {
    [&spi.to_be_bytes(), &sequence.to_be_bytes(), body].concat()
}

/// A UDP datagram without checksum.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = source.to_be_bytes().to_vec();
    datagram.extend(destination.to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// Slow enough that no queue on the way overflows: what is not counted was dropped by the gateway.
fn pace() {
    thread::sleep(Duration::from_micros(500));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Kind, classify};

    fn framed(packet: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &[8, 0], packet].concat()
    }

    #[test]
    fn forged_packets_are_what_they_claim() {
        let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1));
        let packet = esp(0xdead_beef, 7, &[9; 24]);
        assert_eq!(classify(&framed(&ipv4(from, to, 50, &packet))), Kind::Esp);
        assert_eq!(classify(&framed(&ipv4(from, to, 17, &udp(4500, 4500, &packet)))), Kind::EspInUdp);
        assert_eq!(classify(&framed(&ipv4(from, to, 17, &udp(500, 500, &[1; 28])))), Kind::Ike);
    }

    #[test]
    fn noise_repeats_with_its_seed() {
        assert_eq!(Noise::new(7).bytes(32), Noise::new(7).bytes(32));
        assert_ne!(Noise::new(7).bytes(32), Noise::new(9).bytes(32));
    }
}
