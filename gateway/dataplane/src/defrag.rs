//! ESP and AH that came in fragments: the XDP program leaves them to the kernel, which puts them together, and raw
//! sockets bring what comes of it. All else of these protocols never gets as far as the kernel.

use crate::raw::{Raw, Taken};
use adit_maps::decode::protocol;
use std::io;

/// Port of ESP in UDP (RFC 3948).
const NAT_T: u32 = 4500;

/// Raw sockets for ESP, AH and ESP in UDP over both IP versions.
pub(crate) struct Defrag {
    sockets: Vec<Raw>,
    /// Sockets that take nothing, and so are never full: where every socket of a protocol is, the kernel tells the sender
    /// by ICMP that nobody here speaks it.
    _listeners: Vec<Raw>,
}

impl Defrag {
    /// Opens the sockets in this network namespace; those over IPv6 where the kernel has it.
    pub(crate) fn open() -> io::Result<Self> {
        let (mut sockets, mut listeners) = (Vec::new(), Vec::new());
        for v6 in [false, true] {
            for protocol in [protocol::ESP, protocol::AH, protocol::UDP] {
                let filter = if protocol == protocol::UDP { esp_in_udp(v6) } else { Vec::new() };
                match Raw::open(v6, protocol, &filter) {
                    Ok(raw) => {
                        sockets.push(raw);
                        if protocol != protocol::UDP {
                            listeners.push(Raw::open(v6, protocol, &[nothing()])?);
                        }
                    }
                    Err(e) if v6 && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(Defrag { sockets, _listeners: listeners })
    }

    /// The sockets, to be waited for.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = &Raw> {
        self.sockets.iter()
    }

    /// Takes a packet into `buf`, `None` when there is none.
    pub(crate) fn take(&self, buf: &mut [u8]) -> Option<Taken> {
        self.sockets.iter().find_map(|raw| raw.take(buf))
    }
}

/// A classic BPF program that takes nothing.
fn nothing() -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }
}

/// A classic BPF program that takes UDP for port 4500 without the non-ESP marker. A raw IPv4 socket sees the packet
/// from the IP header on, an IPv6 one from the UDP header on.
fn esp_in_udp(v6: bool) -> Vec<libc::sock_filter> {
    use libc::{
        BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET, BPF_W,
    };
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mode = if v6 { BPF_ABS } else { BPF_IND };
    let mut program = vec![
        step(BPF_LD | BPF_H | mode, 0, 0, 2),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, NAT_T),
        step(BPF_LD | BPF_W | mode, 0, 0, 8),
        step(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0),
        step(BPF_RET | BPF_K, 0, 0, u32::MAX),
        step(BPF_RET | BPF_K, 0, 0, 0),
    ];
    if !v6 {
        // The index register becomes the length of the IPv4 header.
        program.insert(0, step(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0));
    }
    program
}
