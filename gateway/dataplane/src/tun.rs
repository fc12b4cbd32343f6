//! The TUN device `adit0`: traffic of the gateway itself, into tunnels and out of them.

use crate::{
    error::Error,
    sys::{check, control_socket, ifreq, interface_index},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
};

/// MTU of the device: what fits an outer packet of 1,500 bytes under every algorithm. The dearest is AES-CBC with
/// HMAC-SHA512-256 in UDP over IPv6: 40 + 8 + 8 + 16 + 32 leave 1,396, of which 1,392 are blocks, less the trailer.
const MTU: libc::c_int = 1390;

/// An open TUN device. It is persistent: routes to it stay, and what they lead to it is dropped, while nobody reads.
pub(crate) struct Tun {
    file: File,
}

impl Tun {
    /// Makes the device unless it is there, brings it up, and takes hold of it.
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let file = open(name)?;
        let failed = |e: io::Error| Error::tun(name, e.to_string());
        // SAFETY: the ioctl takes an integer.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1) }).map_err(failed)?;

        let socket = control_socket().map_err(failed)?;
        let mut request = ifreq(name).map_err(failed)?;
        request.ifr_ifru.ifru_mtu = MTU;
        // SAFETY: an ifreq on this stack, its MTU set.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &request) }).map_err(failed)?;
        let mut request = ifreq(name).map_err(failed)?;
        // SAFETY: an ifreq on this stack, which the kernel fills.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) })
            .map_err(failed)?;
        // SAFETY: the ioctl before wrote the flags.
        unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
        // SAFETY: an ifreq on this stack, its flags set.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) }).map_err(failed)?;
        Ok(Tun { file })
    }

    /// Reads the next packet into `buf`, `None` when there is none now.
    pub(crate) fn read(&self, buf: &mut [u8]) -> Option<usize> {
        (&self.file).read(buf).ok().filter(|n| *n > 0)
    }

    /// Hands a packet to the kernel; false when it refuses.
    pub(crate) fn write(&self, packet: &[u8]) -> bool {
        (&self.file).write(packet).is_ok()
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Removes the device; no error when there is none.
pub(crate) fn remove(name: &str) -> Result<(), Error> {
    if interface_index(name).is_none() {
        return Ok(());
    }
    let file = open(name)?;
    // SAFETY: the ioctl takes an integer.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 0) })
        .map(drop)
        .map_err(|e| Error::tun(name, e.to_string()))
}

fn open(name: &str) -> Result<File, Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => Error::Privilege { what: "opening /dev/net/tun" },
            _ => Error::tun(name, format!("/dev/net/tun: {e}; load the kernel module `tun`")),
        })?;
    let mut request = ifreq(name).map_err(|e| Error::tun(name, e.to_string()))?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: an ifreq on this stack, its flags set.
    match check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) }) {
        Ok(_) => Ok(file),
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            Err(Error::tun(name, "another process holds it: is a data plane running already?"))
        }
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            Err(Error::tun(name, "an interface of that name exists and is no TUN device: give another name"))
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::Privilege { what: "making a TUN device" })
        }
        Err(e) => Err(Error::tun(name, e.to_string())),
    }
}
