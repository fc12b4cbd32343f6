//! Raw sockets: packets of one IP protocol that the kernel has let through to this machine.

use crate::sys::check;
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

const IPV6_HEADER: usize = 40;
/// Of an IPv6 header that the kernel has taken off; nobody who reads these packets looks at it.
const HOP_LIMIT: u8 = 64;
/// Bytes of packets that wait to be taken.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// A raw socket of one IP version and protocol.
pub(crate) struct Raw {
    socket: OwnedFd,
    v6: bool,
    protocol: u8,
}

/// What a socket had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A packet of so many bytes, its IP header first.
    Packet(usize),
    /// A packet longer than the buffer; it is gone.
    TooLong,
}

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Raw {
    /// Opens one in this network namespace, for packets that `filter` lets through; all, when it is empty. A filter sees
    /// an IPv4 packet from its IP header on, an IPv6 one from what follows that.
    pub(crate) fn open(v6: bool, protocol: u8, filter: &[libc::sock_filter]) -> io::Result<Self> {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointer is passed; a descriptor that is returned is new and ours.
        let socket = unsafe { OwnedFd::from_raw_fd(check(libc::socket(family, kind, i32::from(protocol)))?) };
        let raw = Raw { socket, v6, protocol };
        if v6 {
            // The kernel takes the IPv6 header off; this is what is needed of it.
            raw.set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1i32)?;
            raw.set(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, &1i32)?;
        }
        // Bursts are what makes it full; without the right to, what the system allows has to do.
        let _ = raw.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER);
        if !filter.is_empty() {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            raw.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        }
        Ok(raw)
    }

    fn set<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        let (value, len) = ((&raw const *value).cast(), size_of::<T>() as libc::socklen_t);
        // SAFETY: as many readable bytes as are said; a pointer in them is to a filter that lives in the caller.
        check(unsafe { libc::setsockopt(self.as_raw_fd(), level, name, value, len) }).map(drop)
    }

    /// Takes a packet into `buf`, `None` when there is none.
    pub(crate) fn take(&self, buf: &mut [u8]) -> Option<Taken> {
        let header = if self.v6 { IPV6_HEADER } else { 0 };
        let (ip, payload) = buf.split_at_mut_checked(header)?;
        let mut iov = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
        // SAFETY: all-zero bytes are valid in both: no address, null pointers and no lengths.
        let (mut source, mut message): (libc::sockaddr_in6, libc::msghdr) = unsafe { std::mem::zeroed() };
        // As aligned as a control message has to be.
        let mut control = [0u64; 16];
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        if self.v6 {
            message.msg_name = (&raw mut source).cast();
            message.msg_namelen = size_of_val(&source) as libc::socklen_t;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
        }
        // SAFETY: every pointer in the message is to writable memory of the length beside it, which outlives the call.
        let n = unsafe { libc::recvmsg(self.as_raw_fd(), &raw mut message, 0) };
        let len = usize::try_from(n).ok()?;
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return Some(Taken::TooLong);
        }
        if self.v6 {
            let (destination, traffic_class) = told(&message);
            ip.fill(0);
            ip[0] = 0x60 | traffic_class >> 4;
            ip[1] = traffic_class << 4;
            ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            ip[6] = self.protocol;
            ip[7] = HOP_LIMIT;
            ip[8..24].copy_from_slice(&source.sin6_addr.s6_addr);
            ip[24..40].copy_from_slice(&destination);
        }
        Some(Taken::Packet(header + len))
    }
}

/// Destination and traffic class, as the control messages behind a packet tell them.
fn told(message: &libc::msghdr) -> ([u8; 16], u8) {
    let (mut destination, mut traffic_class) = ([0; 16], 0);
    // SAFETY: the kernel has written `msg_controllen` bytes of well-formed control messages.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null or a control message within what the kernel has written.
    while let Some(control) = unsafe { next.as_ref() } {
        // SAFETY: as above; the data lies behind the header.
        let data = unsafe { libc::CMSG_DATA(control) };
        match (control.cmsg_level, control.cmsg_type) {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: this type's data is an in6_pktinfo.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                destination = info.ipi6_addr.s6_addr;
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // SAFETY: this type's data is an int.
                traffic_class = unsafe { data.cast::<libc::c_int>().read_unaligned() } as u8;
            }
            _ => {}
        }
        // SAFETY: `control` is a control message of this one.
        next = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
    (destination, traffic_class)
}
