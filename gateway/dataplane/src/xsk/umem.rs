//! The memory that packets lie in, cut into chunks.

use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// Bytes of a chunk: one packet with headroom and tailroom.
pub(crate) const CHUNK: usize = 4096;

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

impl Mapping {
    /// Maps `len` zeroed bytes that belong to nobody else.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// Maps `len` bytes of a descriptor, shared with the kernel.
    pub(super) fn shared(fd: libc::c_int, len: usize, offset: i64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED, fd, offset)
    }

    fn map(len: usize, flags: libc::c_int, fd: libc::c_int, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlays nothing.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, flags | libc::MAP_POPULATE, fd, offset)
        };
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

/// The right to touch one chunk of one [`Umem`].
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost to its UMEM: give it back"]
pub(crate) struct Frame {
    chunk: u32,
    owner: u32,
}

/// The chunks of one worker, and the free ones among them.
pub(crate) struct Umem {
    memory: Mapping,
    owner: u32,
    free: Vec<Frame>,
}

impl Umem {
    /// Maps `chunks` chunks, all free.
    pub(crate) fn new(chunks: u32) -> io::Result<Self> {
        static OWNERS: AtomicU32 = AtomicU32::new(0);
        let owner = OWNERS.fetch_add(1, Relaxed);
        let memory = Mapping::anonymous(chunks as usize * CHUNK)?;
        let free = (0..chunks).rev().map(|chunk| Frame { chunk, owner }).collect();
        Ok(Umem { memory, owner, free })
    }

    /// A free frame, if there is one.
    pub(crate) fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Takes a frame back.
    pub(crate) fn give(&mut self, frame: Frame) {
        debug_assert_eq!(frame.owner, self.owner);
        self.free.push(frame);
    }

    /// Frames that are free.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// The bytes of a frame's chunk, as long as the frame is borrowed.
    ///
    /// # Panics
    /// When the frame is another UMEM's.
    #[inline]
    pub(crate) fn bytes<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        assert_eq!(frame.owner, self.owner, "a frame of another UMEM");
        // SAFETY: a Frame of this UMEM names a chunk within the mapping, which lives as long as `self`. There is one
        // Frame a chunk, borrowed mutably for the result's lifetime, and none while the kernel owns the chunk.
        unsafe {
            let start = self.memory.base().add(frame.chunk as usize * CHUNK);
            std::slice::from_raw_parts_mut(start.as_ptr(), CHUNK)
        }
    }

    /// Address of the memory and its length in bytes, for the kernel.
    pub(super) fn region(&self) -> (u64, u64) {
        (self.memory.base().as_ptr() as u64, self.memory.len() as u64)
    }

    /// Gives a frame up to the kernel: its address plus `offset`. Undone by [`Umem::reclaim`].
    pub(super) fn release(&self, frame: Frame, offset: usize) -> u64 {
        assert_eq!(frame.owner, self.owner, "a frame of another UMEM");
        frame.chunk as u64 * CHUNK as u64 + offset as u64
    }

    /// The frame that the kernel gives back by its address, and the offset in it. `None` beyond the memory.
    ///
    /// # Safety
    /// `address` lies in a chunk that was given up by [`Umem::release`] and has not been reclaimed since.
    pub(super) unsafe fn reclaim(&self, address: u64) -> Option<(Frame, usize)> {
        let chunk = address / CHUNK as u64;
        (address < self.memory.len() as u64)
            .then(|| (Frame { chunk: chunk as u32, owner: self.owner }, (address % CHUNK as u64) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_disjoint_and_go_round() {
        let mut umem = Umem::new(3).unwrap();
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
    #[should_panic = "another UMEM"]
    fn a_frame_of_another_umem_is_refused() {
        let (mut one, two) = (Umem::new(1).unwrap(), Umem::new(1).unwrap());
        let mut frame = one.take().unwrap();
        two.bytes(&mut frame);
    }
}
