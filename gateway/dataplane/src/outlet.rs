//! Raw sockets that sealed packets leave by where there is no AF_XDP: one for each port and IP version. The kernel looks
//! for the neighbour, and for no way but by that port.

use crate::{port::Port, sys::check};
use adit_maps::{address::Address, sa::DropCause};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// Bytes that packets on their way out may take.
static SEND_BUFFER: libc::c_int = 4 << 20;

/// The sockets of all ports.
pub(crate) struct Outlet(Vec<Way>);

struct Way {
    slot: u32,
    ifindex: u32,
    v4: OwnedFd,
    /// `None` on a kernel without IPv6.
    v6: Option<OwnedFd>,
}

impl Outlet {
    /// Opens the sockets in this network namespace.
    pub(crate) fn open(ports: &[Port]) -> io::Result<Self> {
        let ways = ports.iter().map(|port| {
            let v6 = match socket(libc::AF_INET6, &port.interface) {
                Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
                opened => Some(opened?),
            };
            let v4 = socket(libc::AF_INET, &port.interface)?;
            Ok(Way { slot: port.slot, ifindex: port.ifindex, v4, v6 })
        });
        ways.collect::<io::Result<_>>().map(Outlet)
    }

    /// Slot of the port that has this interface index.
    pub(crate) fn slot(&self, ifindex: u32) -> Option<u32> {
        self.0.iter().find(|way| way.ifindex == ifindex).map(|way| way.slot)
    }

    /// Sends an IP packet, its header first, by the port of this slot.
    ///
    /// # Errors
    /// What it is to be counted as.
    pub(crate) fn send(&self, slot: u32, packet: &[u8], destination: &Address) -> Result<(), DropCause> {
        let way = self.0.iter().find(|way| way.slot == slot).ok_or(DropCause::NoRoute)?;
        let sent = match destination.is_v4() {
            true => {
                let [.., a, b, c, d] = destination.0;
                let address = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: 0,
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([a, b, c, d]) },
                    sin_zero: [0; 8],
                };
                send(&way.v4, packet, &address)
            }
            false => {
                let address = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: 0,
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: destination.0 },
                    sin6_scope_id: 0,
                };
                send(way.v6.as_ref().ok_or(DropCause::NoRoute)?, packet, &address)
            }
        };
        sent.map_err(|e| match e.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropCause::QueueFull,
            Some(libc::EMSGSIZE) => DropCause::TooBig,
            _ => DropCause::NoRoute,
        })
    }
}

/// A socket that takes whole packets, and sends them by one interface and no other.
fn socket(family: libc::c_int, interface: &str) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointer is passed; a descriptor that is returned is new and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(check(libc::socket(family, kind, libc::IPPROTO_RAW))?) };
    let set = |option, value: *const libc::c_void, len: usize| {
        // SAFETY: every caller below passes a value of the length beside it.
        check(unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, len as libc::socklen_t)
        })
    };
    set(libc::SO_BINDTODEVICE, interface.as_ptr().cast(), interface.len())?;
    // It only makes bursts cheaper, and a lack of privilege refuses it.
    let _ = set(libc::SO_SNDBUFFORCE, (&raw const SEND_BUFFER).cast(), size_of_val(&SEND_BUFFER));
    Ok(socket)
}

fn send<T>(socket: &OwnedFd, packet: &[u8], to: &T) -> io::Result<()> {
    let (to, len) = ((&raw const *to).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: a readable packet and a readable address, each of the length beside it.
    let sent = unsafe { libc::sendto(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to, len) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
