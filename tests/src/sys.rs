//! The few system calls that the standard library does not have.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Moves the calling thread into the network namespace that `file` names.
pub(crate) fn enter_network_namespace(file: &File) -> io::Result<()> {
    // SAFETY: setns takes a descriptor, which `file` keeps open, and touches no memory of ours.
    match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends `signal` to the process `pid`.
pub(crate) fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: kill touches no memory of ours.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends IPv4 packets, headers and all, through the routes of the calling thread's namespace.
pub(crate) struct RawIpv4(OwnedFd);

impl RawIpv4 {
    pub(crate) fn open() -> io::Result<RawIpv4> {
        // SAFETY: socket touches no memory of ours.
        let fd =
            unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        Ok(RawIpv4(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends `packet` towards `destination`, which its header should name too.
    pub(crate) fn send(&self, packet: &[u8], destination: Ipv4Addr) -> io::Result<()> {
        let to = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(destination.octets()) },
            sin_zero: [0; 8],
        };
        let length = size_of_val(&to) as libc::socklen_t;
        // SAFETY: `packet` and `to` are valid for their lengths for as long as the call lasts.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                length,
            )
        };
        match sent {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Sends Ethernet frames by an interface of the calling thread's namespace.
pub(crate) struct Frames(OwnedFd, libc::c_int);

impl Frames {
    pub(crate) fn open(interface: &str) -> io::Result<Frames> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: a string that ends in NUL.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: socket touches no memory of ours.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        Ok(Frames(unsafe { OwnedFd::from_raw_fd(fd) }, index as libc::c_int))
    }

    /// Sends a frame, its Ethernet header first.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: all-zero bytes are a valid address.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as libc::sa_family_t;
        to.sll_ifindex = self.1;
        let length = size_of_val(&to) as libc::socklen_t;
        // SAFETY: `frame` and `to` are valid for their lengths for as long as the call lasts.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                length,
            )
        };
        match sent {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Write end of the pipe that tells of SIGINT and SIGTERM; -1 before [`on_interrupt`].
static INTERRUPTED: AtomicI32 = AtomicI32::new(-1);

/// Calls `then` on a thread of its own when SIGINT, SIGTERM or SIGHUP arrives. Programs started from here have the default
/// handlers again.
pub(crate) fn on_interrupt(then: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two descriptors into `ends`, which has room for them.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the read end was just opened and belongs to nobody else; the write end stays open for good.
    let mut reader = unsafe { File::from_raw_fd(ends[0]) };
    INTERRUPTED.store(ends[1], Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = tell as extern "C" fn(libc::c_int);
        // SAFETY: `tell` does only what a signal handler may: an atomic load and write(2).
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    std::thread::spawn(move || {
        if io::Read::read_exact(&mut reader, &mut [0]).is_ok() {
            then();
        }
    });
    Ok(())
}

extern "C" fn tell(_signal: libc::c_int) {
    let end = INTERRUPTED.load(Ordering::Relaxed);
    // SAFETY: one byte is read from a constant; write(2) may be called from a signal handler.
    unsafe { libc::write(end, [1u8].as_ptr().cast(), 1) };
}

/// Takes whole frames of one protocol from one interface, and sends frames by it.
pub(crate) struct PacketSocket(OwnedFd);

/// Bytes that may wait in a socket of a busy lab.
const PATIENT: libc::c_int = 64 << 20;

impl PacketSocket {
    /// For the interface of this index in the calling thread's namespace, and an EtherType. What is sent by it is not
    /// taken.
    pub(crate) fn open(ifindex: u32, ethertype: u16) -> io::Result<PacketSocket> {
        // SAFETY: socket touches no memory of ours; a descriptor that is returned is new and ours.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            PacketSocket(OwnedFd::from_raw_fd(fd))
        };
        set_option(&socket.0, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        set_option(&socket.0, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, PATIENT)?;
        // SAFETY: all-zero bytes are an address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a sockaddr_ll of the size that is given.
        let bound = unsafe {
            let length = size_of_val(&address) as libc::socklen_t;
            libc::bind(socket.0.as_raw_fd(), (&raw const address).cast(), length)
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }

    /// The next frame, if one comes within `milliseconds`: its length, cut off at the end of `frame`.
    pub(crate) fn receive(&self, frame: &mut [u8], milliseconds: i32) -> io::Result<Option<usize>> {
        let mut ready = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, and a buffer of the length that is given.
        let length = unsafe {
            if libc::poll(&raw mut ready, 1, milliseconds) <= 0 {
                return Ok(None);
            }
            libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Sends a frame. One that the interface at the other end has no room for is lost, and counted by this one.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: a buffer of the length that is given.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        match io::Error::last_os_error() {
            error if sent < 0 && error.raw_os_error() != Some(libc::ENOBUFS) => Err(error),
            _ => Ok(()),
        }
    }

    /// Frames that came and found no room, since this was last asked.
    pub(crate) fn missed(&self) -> io::Result<u64> {
        let mut statistics = [0u32; 2];
        read_option(&self.0, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut statistics)?;
        Ok(statistics[1].into())
    }
}

/// Makes a UDP socket wait patiently for its reader.
pub(crate) fn patient(socket: &std::net::UdpSocket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, PATIENT)
}

/// Datagrams that a UDP socket had no room for.
pub(crate) fn overflowed(socket: &std::net::UdpSocket) -> io::Result<u64> {
    /// Place of the drops among the words of SO_MEMINFO (linux/sock_diag.h).
    const DROPS: usize = 8;
    let mut words = [0u32; DROPS + 1];
    read_option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut words)?;
    Ok(words[DROPS].into())
}

/// Sends a UDP socket's datagrams whole by its own interface, whatever was heard of the path: those of IPv4 without DF.
pub(crate) fn ignore_path_mtu(socket: &std::net::UdpSocket, is_ipv4: bool) -> io::Result<()> {
    match is_ipv4 {
        true => set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        false => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
    }
}

fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: an integer of the size that is given.
    let done = unsafe {
        let length = size_of_val(&value) as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn read_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    words: &mut [u32],
) -> io::Result<()> {
    let mut length = size_of_val(words) as libc::socklen_t;
    // SAFETY: as many bytes may be written as `length` says.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, words.as_mut_ptr().cast(), &raw mut length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
