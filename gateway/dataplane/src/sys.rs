//! System calls that the standard library lacks, each behind a safe function.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

/// Turns the kernel's -1 into the error behind it.
pub(crate) fn check(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// Wakes a thread out of [`poll`]; clones wake the same one.
#[derive(Clone)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed; a descriptor that is returned is new and ours.
        let fd =
            unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?) };
        Ok(Waker(Arc::new(fd)))
    }

    pub(crate) fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. A counter that is full wakes as well, so the result says nothing.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Forgets every wake so far.
    pub(crate) fn reset(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes; the descriptor does not block.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// An entry for [`poll`] that waits for something to read.
pub(crate) fn readable(fd: &impl AsRawFd) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// Waits until a descriptor is ready, or for so many milliseconds. A signal ends it early, as readiness does. A
/// descriptor that only tells of an error from now on, because its device is gone, is not waited for again.
pub(crate) fn poll(fds: &mut [libc::pollfd], milliseconds: i32) {
    // SAFETY: pointer and length are those of one slice.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) };
    for fd in fds {
        let dead = fd.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        if dead && fd.revents & libc::POLLIN == 0 {
            tracing::error!(
                "a device that packets came in by is gone; restart the data plane when it is back"
            );
            fd.fd = -1;
        }
    }
}

/// Milliseconds of CLOCK_BOOTTIME.
pub(crate) fn boottime_ms() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a writable timespec; the clock exists on every Linux since 2.6.39, and 0 is what stays otherwise.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut t) };
    t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000
}

/// CPUs that this process may run on.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a writable set of the size that is given.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return vec![0];
    }
    // SAFETY: every index is below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` comes from `allowed_cpus`, so it is below the set's size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a readable set of the size that is given.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) }).map(drop)
}

/// Index of an interface of this network namespace.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends in NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// A socket that interface ioctls go through.
pub(crate) fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed; a descriptor that is returned is new and ours.
    unsafe {
        let fd = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// An ioctl's argument for the interface `name`, all else zero.
pub(crate) fn ifreq(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all-zero bytes are a valid ifreq: an empty name and a null union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface name has 1 to 15 characters"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Receive queues of an interface that are in use. A driver that cannot tell has one.
pub(crate) fn receive_queues(interface: &str) -> io::Result<u32> {
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    #[repr(C)]
    struct Channels {
        command: u32,
        maxima: [u32; 4],
        receive: u32,
        transmit: u32,
        other: u32,
        combined: u32,
    }
    let mut channels = Channels {
        command: ETHTOOL_GCHANNELS,
        maxima: [0; 4],
        receive: 0,
        transmit: 0,
        other: 0,
        combined: 0,
    };
    let mut request = ifreq(interface)?;
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    let socket = control_socket()?;
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points at the command's structure; both are on this stack.
    match check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &mut request) }) {
        Ok(_) => Ok((channels.receive + channels.combined).max(1)),
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Err(e),
        Err(_) => Ok(1),
    }
}

/// Logs which IP versions the kernel does not forward: without XDP, it is the kernel that forwards.
pub(crate) fn tell_if_nothing_is_forwarded() {
    let switches = [("IPv4", "net.ipv4.ip_forward"), ("IPv6", "net.ipv6.conf.all.forwarding")];
    for (version, switch) in switches {
        let value = std::fs::read_to_string(format!("/proc/sys/{}", switch.replace('.', "/")));
        // Where there is no such file, there is no such version.
        if value.is_ok_and(|v| v.trim() == "0") {
            tracing::warn!(
                "the kernel does not forward {version} and so nor does this gateway: `sysctl {switch}=1`"
            );
        }
    }
}
