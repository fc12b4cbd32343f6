//! An array map, mapped into memory as rows of atomic words.

use super::{Directory, Error};
use crate::atomic::AtomicU64;
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
};

/// A BPF array created with `BPF_F_MMAPABLE`, shared with every other process that maps it. Each entry is `WORDS`
/// 64-bit words; everything is read and written as atomics, so sharing it is never a data race.
pub struct Mapped<const WORDS: usize> {
    base: NonNull<[AtomicU64; WORDS]>,
    entries: u32,
    /// Bytes of the mapping; `None` of an array that is no map.
    bytes: Option<usize>,
}

// SAFETY: the mapping is plain shared memory that is only reached as atomics, from any thread.
unsafe impl<const WORDS: usize> Send for Mapped<WORDS> {}
// SAFETY: as above; shared references only give out shared references to atomics.
unsafe impl<const WORDS: usize> Sync for Mapped<WORDS> {}

impl<const WORDS: usize> Mapped<WORDS> {
    /// Maps the array `name` of `dir`.
    ///
    /// # Errors
    /// When it is not pinned there, its values have another size than `WORDS` × 8 bytes, or the kernel refuses.
    pub fn open(dir: &Directory, name: &'static str) -> Result<Self, Error> {
        let data = dir.data(name)?;
        let info = data.info().map_err(|e| dir.failed(name, e))?;
        if info.value_size() as usize != WORDS * 8 {
            let source = io::Error::other(format!(
                "its entries have {} bytes where {} are expected",
                info.value_size(),
                WORDS * 8
            ));
            return Err(Error::Mmap { name, source });
        }
        let entries = info.max_entries();
        let bytes = entries as usize * WORDS * 8;
        // SAFETY: a fresh shared mapping of a file descriptor we own, nothing is overlaid; the kernel checks length,
        // protection and that the map is mmapable. The mapping outlives the descriptor.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Error::Mmap { name, source: io::Error::last_os_error() });
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| Error::Mmap {
            name,
            source: io::Error::other("the kernel mapped it at address 0"),
        })?;
        Ok(Mapped { base, entries, bytes: Some(bytes) })
    }

    /// An array of zeros that is no map, for tests.
    #[cfg(test)]
    pub(super) fn anonymous(entries: u32) -> Self {
        let array = (0..entries).map(|_| std::array::from_fn(|_| AtomicU64::new(0)));
        let array: Box<[[AtomicU64; WORDS]]> = array.collect();
        let base = NonNull::new(Box::into_raw(array).cast()).unwrap();
        Mapped { base, entries, bytes: None }
    }

    /// Entries of the array.
    pub fn len(&self) -> u32 {
        self.entries
    }

    /// Whether the array has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The words of an entry, `None` beyond the end.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&[AtomicU64; WORDS]> {
        (index < self.entries).then(|| {
            // SAFETY: `index` is within the mapping, which lives as long as `self`; entries of an mmapable array of a
            // multiple of eight bytes lie without gaps; the memory is only ever reached as atomics.
            unsafe { self.base.add(index as usize).as_ref() }
        })
    }
}

impl<const WORDS: usize> Drop for Mapped<WORDS> {
    fn drop(&mut self) {
        match self.bytes {
            // SAFETY: exactly the mapping that this was made with; every reference into it borrowed `self`.
            Some(bytes) => unsafe {
                libc::munmap(self.base.as_ptr().cast(), bytes);
            },
            // SAFETY: exactly the box that this was made with; as above.
            None => unsafe {
                let array = std::ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.entries as usize);
                drop(Box::from_raw(array));
            },
        }
    }
}
