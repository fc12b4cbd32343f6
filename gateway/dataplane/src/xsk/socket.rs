//! One AF_XDP socket: a queue of an interface, its four rings, and how frames pass through them.

use super::{
    ring::{Consumer, Layout, Producer},
    umem::{CHUNK, Frame, LONG_BYTES, Mapping, Umem},
};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    thread,
    time::{Duration, Instant},
};

/// Entries of every ring.
pub(crate) const RING: u32 = 2048;

/// Most descriptors that one `sendto` moves in copy mode; the kernel's default is 32. Option 9 is not in libc yet.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
const TX_BUDGET: u32 = 256;

/// Bytes that packets on their way out may take in copy mode; the default holds less than 100 packets.
const SEND_BUFFER: libc::c_int = 8 << 20;

/// Sockets take and send packets that lie in several chunks (`XDP_USE_SG`), and the mark on every such descriptor but the
/// last.
const XDP_USE_SG: u16 = 1 << 4;
const XDP_PKT_CONTD: u32 = 1;

/// Parts of one packet at most, as the kernel has them (`MAX_SKB_FRAGS` and its head).
const MAX_PARTS: usize = 18;
/// How many frames ahead the first lines of one are fetched.
const AHEAD: u32 = 6;
/// Room behind a joined packet for what sealing adds.
const TAILROOM: usize = 256;

/// Rings of a socket that was closed just now are released a little later.
const BUSY_FOR: Duration = Duration::from_secs(2);
/// How soon such a queue is tried again.
const AGAIN: Duration = Duration::from_millis(2);

/// A queue of an interface, and how to bind to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bind {
    pub(crate) ifindex: u32,
    pub(crate) queue: u32,
    /// Whether packets may be longer than a chunk.
    pub(crate) long: bool,
}

/// A packet that came in and is gone: no frame was free that holds it.
#[derive(Debug)]
pub(crate) struct Lost;

/// A frame that came in.
pub(crate) struct Received {
    pub(crate) frame: Frame,
    /// Offset of the Ethernet header in the chunk.
    pub(crate) start: usize,
    /// Offset just past the frame.
    pub(crate) end: usize,
}

/// A socket bound to a queue.
pub(crate) struct Socket {
    // The rings are unmapped before the descriptor is closed.
    receive: Consumer<libc::xdp_desc>,
    transmit: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    fd: OwnedFd,
    /// Frames in the transmit ring or beyond it.
    in_flight: u32,
    is_unflushed: bool,
    /// Whether packets may lie in several chunks.
    takes_long: bool,
    /// Frames that the kernel could not give to this socket, when last asked.
    missed: u64,
    /// Of a packet that has not all come yet.
    parts: Vec<Received>,
}

/// Our ends of the rings for receiving, for transmitting, of free frames and of those that were sent.
pub(super) type Rings = (Consumer<libc::xdp_desc>, Producer<libc::xdp_desc>, Producer<u64>, Consumer<u64>);

/// Whether the kernel is to copy packets into the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copying {
    /// No: without zero-copy there is no socket.
    Never,
    /// Only when some queue has no zero-copy.
    WhereNeeded,
    /// Yes; zero-copy is not tried.
    Always,
}

/// How packets get into the UMEM.
#[derive(Debug)]
pub(crate) enum Memory {
    /// The NIC puts them there.
    ZeroCopy,
    /// The kernel copies them; which queue has refused zero-copy and why, where that was tried.
    Copied(Option<(Bind, io::Error)>),
}

/// Binds one socket a queue, all on one UMEM; the first owns it. All are of the same kind.
///
/// # Errors
/// Which queue failed, and what the kernel says.
pub(crate) fn open_all(
    binds: &[Bind],
    umem: &Umem,
    copying: Copying,
) -> Result<(Vec<Socket>, Memory), (Bind, io::Error)> {
    let mut refused = None;
    if copying != Copying::Always {
        match open_with(binds, umem, libc::XDP_ZEROCOPY) {
            Ok(sockets) => return Ok((sockets, Memory::ZeroCopy)),
            Err(why) if copying == Copying::Never => return Err(why),
            Err(why) => refused = Some(why),
        }
    }
    open_with(binds, umem, libc::XDP_COPY).map(|sockets| (sockets, Memory::Copied(refused)))
}

fn open_with(binds: &[Bind], umem: &Umem, mode: u16) -> Result<Vec<Socket>, (Bind, io::Error)> {
    let mut sockets: Vec<Socket> = Vec::with_capacity(binds.len());
    for bind in binds {
        let patience = Instant::now() + BUSY_FOR;
        let socket = loop {
            match Socket::open(*bind, umem, sockets.first(), mode) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < patience => {
                    thread::sleep(AGAIN);
                }
                other => break other,
            }
        };
        sockets.push(socket.map_err(|e| (*bind, e))?);
    }
    Ok(sockets)
}

impl Socket {
    fn open(bind: Bind, umem: &Umem, owner: Option<&Socket>, mode: u16) -> io::Result<Self> {
        // SAFETY: no pointer is passed; a descriptor that is returned is new and ours.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            OwnedFd::from_raw_fd(crate::sys::check(fd)?)
        };
        let raw = fd.as_raw_fd();
        if owner.is_none() {
            let (addr, len) = umem.region();
            let region = libc::xdp_umem_reg {
                addr,
                len,
                chunk_size: CHUNK as u32,
                headroom: 0,
                flags: 0,
                tx_metadata_len: 0,
            };
            set_option(raw, libc::SOL_XDP, libc::XDP_UMEM_REG, &region)?;
        }
        for ring in
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
        {
            set_option(raw, libc::SOL_XDP, ring, &RING)?;
        }
        // Both only make bursts cheaper, and an older kernel or a lack of privilege refuses them.
        let _ = set_option(raw, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &TX_BUDGET);
        let _ = set_option(raw, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER);

        let offsets = get_option::<libc::xdp_mmap_offsets>(raw, libc::XDP_MMAP_OFFSETS)?;
        // SAFETY: each ring is mapped at its page offset with the layout the kernel gives for it, and has one producer
        // and one consumer: the kernel and this socket.
        let (receive, transmit, fill, completion) = unsafe {
            let (m, l) = map_ring::<libc::xdp_desc>(raw, &offsets.rx, libc::XDP_PGOFF_RX_RING)?;
            let receive = Consumer::new(m.base(), l, RING, Some(m.into()));
            let (m, l) = map_ring::<libc::xdp_desc>(raw, &offsets.tx, libc::XDP_PGOFF_TX_RING)?;
            let transmit = Producer::new(m.base(), l, RING, Some(m.into()));
            let (m, l) = map_ring::<u64>(raw, &offsets.fr, libc::XDP_UMEM_PGOFF_FILL_RING as i64)?;
            let fill = Producer::new(m.base(), l, RING, Some(m.into()));
            let (m, l) = map_ring::<u64>(raw, &offsets.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64)?;
            (receive, transmit, fill, Consumer::new(m.base(), l, RING, Some(m.into())))
        };

        let long = if bind.long { XDP_USE_SG } else { 0 };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            // With a shared UMEM the mode is that of its owner, and flags for it are refused.
            sxdp_flags: owner.map_or(mode | libc::XDP_USE_NEED_WAKEUP | long, |_| libc::XDP_SHARED_UMEM),
            sxdp_ifindex: bind.ifindex,
            sxdp_queue_id: bind.queue,
            sxdp_shared_umem_fd: owner.map_or(0, |o| o.fd.as_raw_fd() as u32),
        };
        // SAFETY: a sockaddr_xdp of the size that is given.
        crate::sys::check(unsafe {
            libc::bind(raw, (&raw const address).cast(), size_of::<libc::sockaddr_xdp>() as u32)
        })?;
        Ok(Self::on((receive, transmit, fill, completion), fd, bind.long))
    }

    /// A socket of these rings: of receive, transmit, fill and completion.
    pub(super) fn on((receive, transmit, fill, completion): Rings, fd: OwnedFd, takes_long: bool) -> Self {
        Socket {
            receive,
            transmit,
            fill,
            completion,
            fd,
            in_flight: 0,
            is_unflushed: false,
            takes_long,
            missed: 0,
            parts: Vec::with_capacity(MAX_PARTS),
        }
    }

    /// The next frame that came in.
    #[inline(always)]
    pub(crate) fn receive(&mut self, umem: &mut Umem) -> Option<Result<Received, Lost>> {
        loop {
            let descriptor = self.receive.pop()?;
            if let Some(ahead) = self.receive.peek(AHEAD) {
                umem.prefetch_address(ahead.addr);
            }
            // SAFETY: the kernel gives back what the fill ring gave it, once.
            let Some((frame, start)) = (unsafe { umem.reclaim(descriptor.addr) }) else { continue };
            let end = (start + descriptor.len as usize).min(CHUNK);
            let part = Received { frame, start, end };
            let is_last = descriptor.options & XDP_PKT_CONTD == 0;
            if is_last && self.parts.is_empty() {
                return Some(Ok(part));
            }
            self.parts.push(part);
            if is_last {
                return Some(join(&mut self.parts, umem));
            }
        }
    }

    /// Lets the kernel use the places in the receive ring again, and gives it free frames for what comes next.
    pub(crate) fn refill(&mut self, umem: &mut Umem) {
        self.receive.release();
        let mut given = false;
        while self.fill.room_for(1) > 0
            && let Some(frame) = umem.take()
        {
            let address = umem.release(frame, 0);
            // There is room: asked just before.
            given |= self.fill.push(address);
        }
        if given {
            self.fill.commit();
        }
        // Asked every time: a driver that found the ring empty may say so only after the frames were in it.
        if self.fill.needs_wakeup() && self.fill.pending() > 0 {
            // SAFETY: a receive without a buffer only wakes the driver.
            unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    std::ptr::null_mut(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                )
            };
        }
    }

    /// Hands `start..end` of a frame to the transmit ring; sent by [`Socket::flush`].
    ///
    /// # Errors
    /// The frame, when the ring is full, or the packet does not lie in one chunk and the socket sends no such.
    #[inline(always)]
    pub(crate) fn transmit(
        &mut self,
        umem: &mut Umem,
        frame: Frame,
        start: usize,
        end: usize,
    ) -> Result<(), Frame> {
        let pieces = umem.pieces(&frame, start, end);
        if self.transmit.room_for(pieces) < pieces || (pieces > 1 && !self.takes_long) {
            return Err(frame);
        }
        umem.release_to_send(frame, start, end, |addr, len, more| {
            let options = if more { XDP_PKT_CONTD } else { 0 };
            let pushed = self.transmit.push(libc::xdp_desc { addr, len: len as u32, options });
            debug_assert!(pushed, "there was room");
        });
        self.in_flight += pieces;
        self.is_unflushed = true;
        Ok(())
    }

    /// Sends what [`Socket::transmit`] was handed, and what the kernel did not take before.
    pub(crate) fn flush(&mut self) {
        if self.is_unflushed {
            self.transmit.commit();
            self.is_unflushed = false;
        }
        let mut left = self.transmit.pending();
        while left > 0 && self.transmit.needs_wakeup() {
            // What fails (no buffers, the device is down) goes away by itself or not at all, and is tried again after
            // the next batch.
            // SAFETY: a send without data only wakes the driver.
            unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
            // In copy mode one call moves a budget of descriptors, and there may be more than that.
            let before = std::mem::replace(&mut left, self.transmit.pending());
            if left == before {
                return;
            }
        }
    }

    /// Whether frames wait for the kernel to take them out of the transmit ring.
    pub(crate) fn is_sending(&self) -> bool {
        self.unsent() > 0
    }

    /// Pieces that wait for the kernel to take them out of the transmit ring.
    pub(crate) fn unsent(&self) -> u32 {
        self.transmit.pending()
    }

    /// What part of the receive ring and of the transmit ring waits to be taken, in millionths.
    pub(crate) fn fill(&self) -> [u64; 2] {
        [self.receive.fill(), self.transmit.fill()]
    }

    /// Frames that the kernel dropped because the receive ring was full, no chunk was there for them, or they were longer
    /// than one; since this was last asked.
    pub(crate) fn missed(&mut self) -> u64 {
        let statistics = get_option::<libc::xdp_statistics>(self.fd.as_raw_fd(), libc::XDP_STATISTICS);
        let now = statistics.map_or(self.missed, |s| s.rx_dropped + s.rx_ring_full);
        now - std::mem::replace(&mut self.missed, now)
    }

    /// Takes back the frames that were sent.
    pub(crate) fn reap(&mut self, umem: &mut Umem) {
        if self.in_flight == 0 {
            return;
        }
        let mut any = false;
        while let Some(address) = self.completion.pop() {
            // SAFETY: the kernel gives back what the transmit ring gave it, once.
            if let Some(frame) = unsafe { umem.reclaim_sent(address) } {
                umem.give(frame);
            }
            self.in_flight -= 1;
            any = true;
        }
        if any {
            self.completion.release();
        }
    }
}

/// Puts the parts of a packet together in a long frame; what lies before the first part comes with it.
fn join(parts: &mut Vec<Received>, umem: &mut Umem) -> Result<Received, Lost> {
    let rest: usize = parts.iter().skip(1).map(|part| part.end - part.start).sum();
    let start = parts.first().map_or(0, |part| part.start);
    let end = parts.first().map_or(0, |part| part.end) + rest;
    let mut long = if end + TAILROOM <= LONG_BYTES { umem.take_long() } else { None };
    let mut at = 0;
    for mut part in parts.drain(..) {
        let from = if at == 0 { 0 } else { part.start };
        if let Some(frame) = &mut long {
            let bytes = &umem.bytes(&mut part.frame)[from..part.end];
            umem.bytes(frame)[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
        umem.give(part.frame);
    }
    long.map(|frame| Received { frame, start, end }).ok_or(Lost)
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn set_option<T>(fd: RawFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: a readable value of the size that is given.
    crate::sys::check(unsafe {
        libc::setsockopt(fd, level, option, (&raw const *value).cast(), size_of::<T>() as u32)
    })
    .map(drop)
}

/// What the kernel may write into any bytes of.
trait Plain {}
impl Plain for libc::xdp_mmap_offsets {}
impl Plain for libc::xdp_statistics {}

/// An option of AF_XDP. An error when this kernel's is shorter.
fn get_option<T: Plain>(fd: RawFd, option: libc::c_int) -> io::Result<T> {
    // SAFETY: both kinds are made of integers: all-zero bytes are a value, as is whatever the kernel writes.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: a writable structure of the size that is given.
    crate::sys::check(unsafe {
        libc::getsockopt(fd, libc::SOL_XDP, option, (&raw mut value).cast(), &mut len)
    })?;
    if len as usize != size_of::<T>() {
        return Err(io::Error::other(
            "this kernel's AF_XDP has no wakeup flags: Linux 5.4 or newer is needed",
        ));
    }
    Ok(value)
}

fn map_ring<T>(fd: RawFd, offsets: &libc::xdp_ring_offset, page: i64) -> io::Result<(Mapping, Layout)> {
    let layout = Layout {
        producer: offsets.producer as usize,
        consumer: offsets.consumer as usize,
        flags: offsets.flags as usize,
        entries: offsets.desc as usize,
    };
    let mapping = Mapping::shared(fd, layout.entries + RING as usize * size_of::<T>(), page)?;
    Ok((mapping, layout))
}
