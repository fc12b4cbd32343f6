//! Load for a gateway, paced; and probes that go with it and tell how long they took.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Frames that one system call sends.
const BURST: usize = 32;
/// What is not worth sleeping for.
const SHORT: Duration = Duration::from_micros(80);
/// Port of the probes.
const PROBES: u16 = 4711;

/// Sends one frame over and over.
pub(super) struct Generator {
    socket: OwnedFd,
    frame: Vec<u8>,
}

/// What was offered, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offered {
    pub(super) packets: u64,
    pub(super) time: Duration,
}

impl Generator {
    /// By an interface of the calling thread's network namespace, past its queue.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn open(ifindex: u32, frame: Vec<u8>) -> io::Result<Self> {
        // SAFETY: no pointer is passed; a descriptor that is returned is new and ours.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let on: libc::c_int = 1;
        // SAFETY: an integer and an address on this stack, each of the size that is given; all zeros are an address.
        unsafe {
            let size = size_of_val(&on) as libc::socklen_t;
            let fd = socket.as_raw_fd();
            let option = libc::setsockopt(
                fd,
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                size,
            );
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = ifindex as libc::c_int;
            let length = size_of_val(&address) as libc::socklen_t;
            if option != 0 || libc::bind(fd, (&raw const address).cast(), length) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Generator { socket, frame })
    }

    /// Offers frames at `rate` in a second, or as many as can be, until it is to stop or `limit` is over.
    pub(super) fn run(&mut self, rate: Option<f64>, limit: Duration, stop: &AtomicBool) -> Offered {
        // A timer that is late by 50 µs, as the kernel has them, would make bursts of what should be even.
        // SAFETY: takes integers.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let mut part = libc::iovec { iov_base: self.frame.as_mut_ptr().cast(), iov_len: self.frame.len() };
        // SAFETY: all zeros are a message: without an address, for the socket is bound.
        let mut messages: [libc::mmsghdr; BURST] = unsafe { std::mem::zeroed() };
        for message in &mut messages {
            message.msg_hdr.msg_iov = &raw mut part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let (begun, mut packets) = (Instant::now(), 0);
        loop {
            let now = begun.elapsed();
            if now >= limit || stop.load(Relaxed) {
                return Offered { packets, time: now };
            }
            let due = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(packets as f64 / rate));
            match due.saturating_sub(now) {
                Duration::ZERO => {}
                early if early > SHORT => thread::sleep(early - SHORT / 2),
                _ => {
                    std::hint::spin_loop();
                    continue;
                }
            }
            // SAFETY: as many messages as there are, each of one part, which outlives the call. What the interface had
            // no room for was offered all the same.
            unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    messages.as_mut_ptr(),
                    BURST as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            packets += BURST as u64;
        }
    }
}

/// A socket for probes at either end of the way.
pub(super) struct Probes {
    pub(super) from: UdpSocket,
    pub(super) to: UdpSocket,
}

/// Binds one end of the probes' way in the calling thread's network namespace.
///
/// # Errors
/// What the kernel says.
pub(super) fn probe_socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PROBES)))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

impl Probes {
    /// Sends one probe every millisecond for `limit`; microseconds that each took that came, in order of length, and how
    /// many were sent.
    ///
    /// # Errors
    /// They cannot be sent.
    pub(super) fn run(&self, host: std::net::Ipv4Addr, limit: Duration) -> Result<(Vec<f64>, usize)> {
        let begun = Instant::now();
        let mut times = Vec::new();
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 0;
                while begun.elapsed() < limit {
                    let stamp = (begun.elapsed().as_nanos() as u64).to_be_bytes();
                    self.from.send_to(&stamp, (host, PROBES)).context("a probe could not be sent")?;
                    sent += 1;
                    thread::sleep(Duration::from_millis(1));
                }
                Ok::<_, anyhow::Error>(sent)
            });
            let mut stamp = [0; 8];
            while let Ok(8) = self.to.recv(&mut stamp) {
                let took = begun.elapsed().as_nanos() as u64 - u64::from_be_bytes(stamp);
                times.push(took as f64 / 1e3);
            }
            sender.join().map_err(|_| anyhow::anyhow!("the probes' thread panicked"))?
        })?;
        times.sort_by(f64::total_cmp);
        Ok((times, sent))
    }
}
