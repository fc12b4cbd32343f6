//! The memory that packets lie in, cut into chunks.

use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// Bytes of a chunk: one packet with headroom and tailroom.
pub(crate) const CHUNK: usize = 4096;

/// Chunks of a long frame, side by side: for packets that one chunk does not hold.
const LONG: usize = 4;
/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Bytes of a long frame.
pub(crate) const LONG_BYTES: usize = LONG * CHUNK;

/// Longest packet that fits a chunk with headroom, tailroom for sealing, and a page that drivers receive into.
pub(crate) const SHORT_PACKET: usize = 3400;

/// Offset in its chunk where the kernel puts a received frame, and we one that we make: `XDP_PACKET_HEADROOM`. Sealing
/// takes at most 14 + 40 + 48 of these bytes (Ethernet, IPv6, AH with its longest ICV).
pub(crate) const HEADROOM: usize = 256;

/// An anonymous or shared mapping.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is not tied to the thread that made it.
unsafe impl Send for Mapping {}
// SAFETY: of a mapping that is shared, only where it lies and how long it is can be asked.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` zeroed bytes that belong to nobody else.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        let mapping = Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        // Large pages where the kernel has them: every chunk is a small page of its own, and there are more chunks than
        // a processor remembers translations. Then all pages, before the first packet is. Neither has to succeed, and
        // Miri knows neither.
        for advice in [libc::MADV_HUGEPAGE, libc::MADV_POPULATE_WRITE] {
            if !cfg!(miri) {
                // SAFETY: the mapping that was just made, whose contents stay what they are.
                unsafe { libc::madvise(mapping.base.as_ptr().cast(), len, advice) };
            }
        }
        Ok(mapping)
    }

    /// Maps `len` bytes of a descriptor, shared with the kernel.
    pub(super) fn shared(fd: libc::c_int, len: usize, offset: i64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED, fd, offset)
    }

    fn map(len: usize, flags: libc::c_int, fd: libc::c_int, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlays nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Mapping { base, len })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map`; who keeps pointers into it keeps it too.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The right to touch one chunk of one [`Umem`], or [`LONG`] of them.
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost to its UMEM: give it back"]
pub(crate) struct Frame(u64);

impl Frame {
    const OWNER: u32 = 32;
    const LONG: u64 = 1 << 63;

    /// One number, which stays in one register wherever a packet goes: the chunk, the UMEM's owner below 2^31, and
    /// whether others belong to the chunk.
    #[inline]
    fn new(chunk: u32, owner: u32, is_long: bool) -> Self {
        Frame(u64::from(chunk) | u64::from(owner) << Self::OWNER | if is_long { Self::LONG } else { 0 })
    }

    #[inline]
    fn chunk(&self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn owner(&self) -> u32 {
        ((self.0 & !Self::LONG) >> Self::OWNER) as u32
    }

    #[inline]
    fn is_long(&self) -> bool {
        self.0 & Self::LONG != 0
    }
}

/// The chunks of one worker, and the free ones among them.
pub(crate) struct Umem {
    memory: Mapping,
    owner: u32,
    free: Vec<Frame>,
    /// Where long frames begin: behind every other chunk.
    first_long: u32,
    free_long: Vec<Frame>,
    /// Of each long frame, the pieces that the kernel has yet to give back.
    pieces: Vec<u8>,
}

impl Umem {
    /// Maps `chunks` chunks and `long` long frames, all free.
    pub(crate) fn new(chunks: u32, long: u32) -> io::Result<Self> {
        static OWNERS: AtomicU32 = AtomicU32::new(0);
        let owner = OWNERS.fetch_add(1, Relaxed) % (1 << 31);
        let memory = Mapping::anonymous(chunks as usize * CHUNK + long as usize * LONG_BYTES)?;
        let free = (0..chunks).rev().map(|chunk| Frame::new(chunk, owner, false)).collect();
        let place = |n| chunks + n * LONG as u32;
        let free_long = (0..long).rev().map(|n| Frame::new(place(n), owner, true)).collect();
        let pieces = vec![0; long as usize];
        Ok(Umem { memory, owner, free, first_long: chunks, free_long, pieces })
    }

    /// A free frame, if there is one.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// A free long frame, if there is one.
    pub(crate) fn take_long(&mut self) -> Option<Frame> {
        self.free_long.pop()
    }

    /// A free frame that holds a packet of `len` bytes, which has yet to be sealed.
    pub(crate) fn take_for(&mut self, len: usize) -> Option<Frame> {
        if len <= SHORT_PACKET { self.take() } else { self.take_long() }
    }

    /// Takes a frame back.
    #[inline]
    pub(crate) fn give(&mut self, frame: Frame) {
        debug_assert_eq!(frame.owner(), self.owner);
        if frame.is_long() { self.free_long.push(frame) } else { self.free.push(frame) }
    }

    /// Frames of one chunk that are free.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Frames that are free for packets of `len` bytes, which have yet to be sealed.
    pub(crate) fn free_for(&self, len: usize) -> usize {
        if len <= SHORT_PACKET { self.free.len() } else { self.free_long.len() }
    }

    /// The bytes of a frame, as long as the frame is borrowed.
    ///
    /// # Panics
    /// When the frame is another UMEM's.
    #[inline]
    pub(crate) fn bytes<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        assert!(frame.owner() == self.owner, "a frame of another UMEM");
        let len = if frame.is_long() { LONG_BYTES } else { CHUNK };
        // SAFETY: a Frame of this UMEM names one chunk, or as many as are long, within the mapping, which lives as long
        // as `self`. There is one Frame a chunk, borrowed mutably for the result's lifetime, and none while the kernel
        // owns the chunk.
        unsafe {
            let start = self.memory.base().add(frame.chunk() as usize * CHUNK);
            std::slice::from_raw_parts_mut(start.as_ptr(), len)
        }
    }

    /// Brings near what lies around an offset of a frame: the two lines from the one before it on.
    #[inline]
    pub(crate) fn prefetch(&self, frame: &Frame, at: usize) {
        self.prefetch_address((frame.chunk() as usize * CHUNK + at) as u64);
    }

    /// The same, of a chunk that the kernel gives back.
    #[inline]
    pub(super) fn prefetch_address(&self, address: u64) {
        let line = self.memory.base().as_ptr().wrapping_add(address as usize).wrapping_sub(LINE);
        adit_esp::prefetch(line, 2);
    }

    /// What the kernel has in a chunk that was given up to it, from `address` to the end of the chunk.
    ///
    /// # Panics
    /// When the address is beyond the memory.
    #[cfg(feature = "in-memory")]
    pub(crate) fn given_up(&mut self, address: u64) -> &mut [u8] {
        let (at, len) = (address as usize, CHUNK - address as usize % CHUNK);
        assert!(at + len <= self.memory.len(), "an address beyond the memory");
        // SAFETY: within the mapping, as was just asserted. What `bytes` gives out borrows the UMEM, and so does this,
        // exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.memory.base().add(at).as_ptr(), len) }
    }

    /// Address of the memory and its length in bytes, for the kernel.
    pub(super) fn region(&self) -> (u64, u64) {
        (self.memory.base().as_ptr() as u64, self.memory.len() as u64)
    }

    /// Gives a frame of one chunk up to the kernel: its address plus `offset`. Undone by [`Umem::reclaim`].
    #[inline]
    pub(super) fn release(&self, frame: Frame, offset: usize) -> u64 {
        assert!(frame.owner() == self.owner, "a frame of another UMEM");
        assert!(!frame.is_long(), "the kernel takes one chunk at a time");
        frame.chunk() as u64 * CHUNK as u64 + offset as u64
    }

    /// How many pieces `start..end` of a frame is given up in: none crosses from one chunk to the next.
    #[inline]
    pub(super) fn pieces(&self, frame: &Frame, start: usize, end: usize) -> u32 {
        if frame.is_long() { (end.div_ceil(CHUNK) - start / CHUNK) as u32 } else { 1 }
    }

    /// Gives a frame up to the kernel to be sent: address and length of each piece of `start..end`, in order, and whether
    /// others follow. Undone by [`Umem::reclaim_sent`], once for each piece.
    #[inline(always)]
    pub(super) fn release_to_send(
        &mut self,
        frame: Frame,
        start: usize,
        end: usize,
        mut piece: impl FnMut(u64, usize, bool),
    ) {
        if !frame.is_long() {
            return piece(self.release(frame, start), end - start, false);
        }
        assert!(frame.owner() == self.owner, "a frame of another UMEM");
        let pieces = self.pieces(&frame, start, end);
        self.pieces[(frame.chunk() - self.first_long) as usize / LONG] = pieces as u8;
        let base = frame.chunk() as u64 * CHUNK as u64;
        let mut at = start;
        while at < end {
            let next = (at / CHUNK * CHUNK + CHUNK).min(end);
            piece(base + at as u64, next - at, next < end);
            at = next;
        }
    }

    /// The frame that the kernel gives back after sending, or a piece of it; `None` until the last piece is back, and
    /// beyond the memory.
    ///
    /// # Safety
    /// `address` is of a piece that was given up by [`Umem::release_to_send`] and has not been reclaimed since.
    #[inline]
    pub(super) unsafe fn reclaim_sent(&mut self, address: u64) -> Option<Frame> {
        let chunk = u32::try_from(address / CHUNK as u64).ok()?;
        let Some(behind) = chunk.checked_sub(self.first_long) else {
            // SAFETY: by the contract of this function.
            return unsafe { self.reclaim(address) }.map(|(frame, _)| frame);
        };
        let n = behind / LONG as u32;
        let left = self.pieces.get_mut(n as usize)?;
        *left = left.saturating_sub(1);
        let chunk = self.first_long + n * LONG as u32;
        (*left == 0).then_some(Frame::new(chunk, self.owner, true))
    }

    /// The frame of one chunk that the kernel gives back by its address, and the offset in it. `None` beyond those.
    ///
    /// # Safety
    /// `address` lies in a chunk that was given up by [`Umem::release`] and has not been reclaimed since.
    #[inline]
    pub(super) unsafe fn reclaim(&self, address: u64) -> Option<(Frame, usize)> {
        let chunk = address / CHUNK as u64;
        (chunk < u64::from(self.first_long)).then(|| {
            let frame = Frame::new(chunk as u32, self.owner, false);
            (frame, (address % CHUNK as u64) as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_disjoint_and_go_round() {
        let mut umem = Umem::new(3, 0).unwrap();
        let mut frames: Vec<Frame> = std::iter::from_fn(|| umem.take()).collect();
        assert_eq!(frames.len(), 3);
        {
            let mut views: Vec<&mut [u8]> = frames.iter_mut().map(|f| umem.bytes(f)).collect();
            for (i, view) in views.iter_mut().enumerate() {
                view.fill(i as u8);
            }
            assert!(
                views.iter().enumerate().all(|(i, v)| v.len() == CHUNK && v.iter().all(|b| *b == i as u8))
            );
        }
        let frame = frames.pop().unwrap();
        let address = umem.release(frame, HEADROOM);
        // SAFETY: just released.
        let (frame, offset) = unsafe { umem.reclaim(address) }.unwrap();
        assert_eq!(offset, HEADROOM);
        umem.give(frame);
        assert!(umem.take().is_some() && umem.take().is_none());
        // SAFETY: beyond the memory nothing is reclaimed.
        assert!(unsafe { umem.reclaim(3 * CHUNK as u64) }.is_none());
    }

    #[test]
    fn a_long_frame_is_sent_in_pieces_and_is_back_when_the_last_one_is() {
        let mut umem = Umem::new(2, 2).unwrap();
        let other = umem.take_long().unwrap();
        let mut frame = umem.take_long().unwrap();
        assert!(umem.take_for(SHORT_PACKET + 1).is_none() && umem.free_for(SHORT_PACKET) == 2);
        assert_eq!(umem.bytes(&mut frame).len(), LONG_BYTES);
        let base = (2 + LONG) as u64 * CHUNK as u64;
        for (start, end, expected) in [
            (HEADROOM, CHUNK, vec![(HEADROOM, CHUNK - HEADROOM, false)]),
            (
                HEADROOM,
                2 * CHUNK + 1,
                vec![(HEADROOM, CHUNK - HEADROOM, true), (CHUNK, CHUNK, true), (2 * CHUNK, 1, false)],
            ),
            (CHUNK, 2 * CHUNK, vec![(CHUNK, CHUNK, false)]),
        ] {
            assert_eq!(umem.pieces(&frame, start, end) as usize, expected.len());
            let mut given = Vec::new();
            umem.release_to_send(frame, start, end, |at, len, more| given.push((at, len, more)));
            let expected: Vec<_> =
                expected.iter().map(|(at, len, m)| (base + *at as u64, *len, *m)).collect();
            assert_eq!(given, expected);
            // SAFETY: each piece was just released, and is reclaimed once.
            let mut back: Vec<_> = given.iter().map(|p| unsafe { umem.reclaim_sent(p.0) }).collect();
            frame = back.pop().unwrap().unwrap();
            assert!(back.iter().all(Option::is_none) && frame.chunk() as usize == 2 + LONG);
        }
        umem.give(frame);
        umem.give(other);
        assert_eq!((umem.free(), umem.free_for(LONG_BYTES)), (2, 2));
    }

    #[test]
    #[should_panic = "another UMEM"]
    fn a_frame_of_another_umem_is_refused() {
        let (mut one, two) = (Umem::new(1, 0).unwrap(), Umem::new(1, 0).unwrap());
        let mut frame = one.take().unwrap();
        two.bytes(&mut frame);
    }
}
