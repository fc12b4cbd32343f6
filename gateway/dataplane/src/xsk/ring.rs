//! Single-producer, single-consumer rings in memory shared with the kernel.
//!
//! Producer and consumer index run freely and wrap at 2^32; an entry's place is its index modulo the size, a power of
//! two. Whoever writes an index stores it with release after the entries it covers; whoever reads the other side's
//! index loads it with acquire before touching what it covers.

use super::umem::Mapping;
use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

/// Offsets in bytes of a ring's parts from the start of its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: usize,
    pub(super) entries: usize,
}

/// Where a ring lies.
struct Memory<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// Keeps the pointers above valid.
    _mapping: Option<Arc<Mapping>>,
}

// SAFETY: the pointers are into memory that lives as long as this, and are used by one owner at a time.
unsafe impl<T: Send> Send for Memory<T> {}

impl<T: Copy> Memory<T> {
    /// # Safety
    /// `base` with `layout` describes a ring of `size` entries, a power of two, in memory that stays valid as long as
    /// this value (by `mapping`, or by the caller), whose other side keeps to the protocol above.
    unsafe fn new(base: NonNull<u8>, layout: Layout, size: u32, mapping: Option<Arc<Mapping>>) -> Self {
        assert!(size.is_power_of_two());
        // SAFETY: by the contract all offsets are within the memory, and aligned.
        unsafe {
            Memory {
                producer: base.add(layout.producer).cast(),
                consumer: base.add(layout.consumer).cast(),
                flags: base.add(layout.flags).cast(),
                entries: base.add(layout.entries).cast(),
                size,
                _mapping: mapping,
            }
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid as long as `self`, and only reached as an atomic.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }.load(Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn place(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked below `size`, so within the entries.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

/// The producing side of a ring.
pub(super) struct Producer<T> {
    memory: Memory<T>,
    /// Index of the next entry to write; ahead of the shared one until [`Producer::commit`].
    next: u32,
    /// The consumer's index when last looked at.
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    /// # Safety
    /// As [`Memory::new`]; nobody else produces into this ring.
    pub(super) unsafe fn new(
        base: NonNull<u8>,
        layout: Layout,
        size: u32,
        mapping: Option<Arc<Mapping>>,
    ) -> Self {
        // SAFETY: by this function's contract.
        let memory = unsafe { Memory::new(base, layout, size, mapping) };
        let (next, consumed) = (memory.producer().load(Relaxed), memory.consumer().load(Acquire));
        Producer { memory, next, consumed }
    }

    /// Entries that can be written now; at least `wanted`, if there are so many.
    pub(super) fn room_for(&mut self, wanted: u32) -> u32 {
        let room = self.memory.size - self.next.wrapping_sub(self.consumed);
        if room >= wanted {
            return room;
        }
        self.consumed = self.memory.consumer().load(Acquire);
        self.memory.size - self.next.wrapping_sub(self.consumed)
    }

    /// Writes an entry; false when the ring is full. The other side sees it after [`Producer::commit`].
    #[must_use]
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.room_for(1) == 0 {
            return false;
        }
        // SAFETY: a place that the consumer has left and will not look at before the index covers it.
        unsafe { self.memory.place(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Lets the other side see what was written.
    pub(super) fn commit(&mut self) {
        self.memory.producer().store(self.next, Release);
    }

    /// Entries that the other side has not taken.
    pub(super) fn pending(&self) -> u32 {
        self.next.wrapping_sub(self.memory.consumer().load(Relaxed))
    }

    /// What part of the ring the other side has not taken, in millionths.
    pub(super) fn fill(&self) -> u64 {
        u64::from(self.pending()) * 1_000_000 / u64::from(self.memory.size)
    }

    /// Whether the other side sleeps until it is called.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.memory.needs_wakeup()
    }
}

/// The consuming side of a ring.
pub(super) struct Consumer<T> {
    memory: Memory<T>,
    /// Index of the next entry to read; ahead of the shared one until [`Consumer::release`].
    next: u32,
    /// The producer's index when last looked at.
    produced: u32,
}

impl<T: Copy> Consumer<T> {
    /// # Safety
    /// As [`Memory::new`]; nobody else consumes from this ring.
    pub(super) unsafe fn new(
        base: NonNull<u8>,
        layout: Layout,
        size: u32,
        mapping: Option<Arc<Mapping>>,
    ) -> Self {
        // SAFETY: by this function's contract.
        let memory = unsafe { Memory::new(base, layout, size, mapping) };
        let (next, produced) = (memory.consumer().load(Relaxed), memory.producer().load(Acquire));
        Consumer { memory, next, produced }
    }

    /// Reads an entry, `None` when there is none. The other side may reuse its place after [`Consumer::release`].
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            self.produced = self.memory.producer().load(Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        // SAFETY: the producer's index covers this entry, and the producer will not touch it before ours passes it.
        let entry = unsafe { self.memory.place(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// The entry that lies so many behind the next, if it is known to be there.
    #[inline]
    pub(super) fn peek(&self, behind: u32) -> Option<T> {
        if self.produced.wrapping_sub(self.next) <= behind {
            return None;
        }
        // SAFETY: as in `pop`.
        Some(unsafe { self.memory.place(self.next.wrapping_add(behind)).read() })
    }

    /// What part of the ring has entries that were not read, in millionths.
    pub(super) fn fill(&self) -> u64 {
        let unread = self.memory.producer().load(Relaxed).wrapping_sub(self.next);
        u64::from(unread) * 1_000_000 / u64::from(self.memory.size)
    }

    /// Lets the other side reuse what was read.
    pub(super) fn release(&mut self) {
        self.memory.consumer().store(self.next, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const SIZE: u32 = 8;
    const LAYOUT: Layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192 };

    /// A ring in memory of ours whose indices start at `start`, with both of its ends.
    fn ring(start: u32) -> (Mapping, Producer<u64>, Consumer<u64>) {
        let memory = Mapping::anonymous(LAYOUT.entries + SIZE as usize * size_of::<u64>()).unwrap();
        let base = memory.base();
        // SAFETY: the layout fits the memory, which the caller keeps; one producer, one consumer.
        unsafe {
            for index in [LAYOUT.producer, LAYOUT.consumer] {
                base.add(index).cast().write(start);
            }
            let producer = Producer::new(base, LAYOUT, SIZE, None);
            (memory, producer, Consumer::new(base, LAYOUT, SIZE, None))
        }
    }

    #[test]
    fn a_ring_tells_what_part_of_it_waits() {
        let (_memory, mut producer, mut consumer) = ring(u32::MAX - 1);
        assert_eq!((producer.fill(), consumer.fill()), (0, 0));
        assert!((0..6).all(|entry| producer.push(entry)));
        assert_eq!(consumer.fill(), 0, "the other side does not see them yet");
        producer.commit();
        assert_eq!((producer.fill(), consumer.fill()), (750_000, 750_000));
        assert_eq!((consumer.pop(), consumer.pop()), (Some(0), Some(1)));
        assert_eq!((producer.fill(), consumer.fill()), (750_000, 500_000));
        consumer.release();
        assert_eq!(producer.fill(), 500_000);
    }

    #[test]
    fn nothing_is_seen_before_it_is_committed_and_no_place_reused_before_it_is_released() {
        let (_memory, mut producer, mut consumer) = ring(u32::MAX - 3);
        for i in 0..8 {
            assert!(producer.push(i));
        }
        assert!(!producer.push(8));
        assert_eq!(consumer.pop(), None);
        producer.commit();
        assert_eq!(consumer.peek(0), None);
        assert_eq!(
            (consumer.pop(), consumer.peek(0), consumer.peek(6), consumer.peek(7)),
            (Some(0), Some(1), Some(7), None)
        );
        assert!((1..8).all(|i| consumer.pop() == Some(i)));
        assert_eq!(consumer.pop(), None);
        assert_eq!(producer.pending(), 8);
        assert!(!producer.push(8));
        consumer.release();
        assert_eq!(producer.pending(), 0);
        assert_eq!(producer.room_for(1), 8);
    }

    #[test]
    fn ends_that_are_opened_later_go_on_where_the_ring_is() {
        let (memory, mut producer, _) = ring(7);
        assert!(producer.push(1) && producer.push(2));
        producer.commit();
        // SAFETY: as in `ring`.
        let mut late = unsafe { Consumer::<u64>::new(memory.base(), LAYOUT, SIZE, None) };
        assert_eq!((late.pop(), late.pop(), late.pop()), (Some(1), Some(2), None));
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_queue(start in any::<u32>(), steps in proptest::collection::vec(0u8..4, 0..400)) {
            let (_memory, mut producer, mut consumer) = ring(start);
            let (mut staged, mut queue, mut reading) = (VecDeque::new(), VecDeque::new(), 0usize);
            let mut next = 0u64;
            for step in steps {
                match step {
                    0 => {
                        let full = staged.len() + queue.len() + reading == SIZE as usize;
                        prop_assert_eq!(producer.push(next), !full);
                        if !full {
                            staged.push_back(next);
                            next += 1;
                        }
                    }
                    1 => {
                        producer.commit();
                        queue.append(&mut staged);
                    }
                    2 => {
                        let expected = queue.pop_front();
                        reading += usize::from(expected.is_some());
                        prop_assert_eq!(consumer.pop(), expected);
                    }
                    _ => {
                        consumer.release();
                        reading = 0;
                    }
                }
            }
        }
    }
}
