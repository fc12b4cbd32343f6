//! The window against a naive model, against time and against itself.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

struct Memory {
    top: AtomicU64,
    slots: Vec<AtomicU64>,
}

impl Memory {
    fn new() -> Self {
        Self { top: AtomicU64::new(0), slots: (0..REPLAY_SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    fn state(&self) -> ReplayState<'_> {
        ReplayState { top: &self.top, slots: &self.slots }
    }

    fn accept(&self, seq: u64, window: u32) -> bool {
        let checked = self.state().check(seq, window);
        let committed = self.state().commit(seq, window);
        assert_eq!(checked, committed, "sequence number {seq}");
        committed
    }
}

/// What RFC 4303 section 3.4.3 says, without regard to memory or time.
#[derive(Default)]
struct Model {
    top: u64,
    seen: HashSet<u64>,
}

impl Model {
    fn accept(&mut self, seq: u64, window: u32) -> bool {
        if seq == 0 || seq + u64::from(window) <= self.top || !self.seen.insert(seq) {
            return false;
        }
        self.top = self.top.max(seq);
        true
    }
}

/// Where the next sequence number lies, seen from the highest so far.
#[derive(Clone, Copy, Debug)]
enum Step {
    Back(u64),
    Ahead(u64),
    Absolute(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..5000).prop_map(Step::Back),
        6 => (1u64..70).prop_map(Step::Ahead),
        2 => (1u64..10_000).prop_map(Step::Ahead),
        1 => (1u64..1 << 33).prop_map(Step::Ahead),
        1 => (0u64..200).prop_map(Step::Absolute),
    ]
}

proptest! {
    #[test]
    fn agrees_with_the_model(
        window in prop_oneof![1..=4096u32, Just(32), Just(64), Just(1024), Just(4096)],
        first in prop_oneof![Just(0u64), 0..1u64 << 34, (1u64 << 44) - 40_000..1 << 44],
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let (memory, mut model) = (Memory::new(), Model::default());
        for step in std::iter::once(Step::Absolute(first)).chain(steps) {
            let seq = match step {
                Step::Back(by) => model.top.saturating_sub(by),
                Step::Ahead(by) => model.top + by,
                Step::Absolute(seq) => seq,
            };
            prop_assert_eq!(memory.accept(seq, window), model.accept(seq, window), "{}", seq);
            prop_assert_eq!(memory.top.load(Relaxed), model.top);
        }
    }

    #[test]
    fn extends_what_the_window_reaches(
        top in prop_oneof![0..1u64 << 40, (1u64 << 32) - 5000..(1 << 32) + 5000],
        window in 1..=4096u32,
        offset in -4096i64..1 << 31,
    ) {
        let memory = Memory::new();
        memory.top.store(top, Relaxed);
        let offset = offset.max(1 - i64::from(window)).max(-(top as i64));
        let seq = top.checked_add_signed(offset).unwrap();
        prop_assert_eq!(memory.state().extend(seq as u32, window), seq);
    }

    #[test]
    fn numbers_of_a_block_are_judged_together_as_one_after_the_other(
        window in 32u32..=4096,
        rounds in prop::collection::vec((0u64..12, any::<u32>()), 1..60),
    ) {
        let (together, alone) = (Memory::new(), Memory::new());
        for (block, bits) in rounds {
            let numbers = (0..32).filter(|i| bits >> i & 1 == 1);
            let accepted = numbers.fold(0, |accepted, i| {
                accepted | u32::from(alone.accept(block * BLOCK + i, window)) << i
            });
            prop_assert_eq!(together.state().commit_block(block, bits, window), accepted);
            prop_assert_eq!(together.top.load(Relaxed), alone.top.load(Relaxed));
        }
    }

    #[test]
    fn few_slots_never_accept_twice(
        slots in 0..8usize,
        seqs in prop::collection::vec(1..2000u64, 1..400),
    ) {
        let (top, slots) = (AtomicU64::new(0), (0..slots).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
        let state = ReplayState { top: &top, slots: &slots };
        let mut seen = HashSet::new();
        for seq in seqs {
            prop_assert!(!state.commit(seq, 4096) || seen.insert(seq));
        }
    }
}

#[test]
fn zero_is_never_valid() {
    for window in [0, 1, 4096] {
        assert!(!Memory::new().state().check(0, window));
    }
}

#[test]
fn without_anti_replay_everything_else_is_valid_and_the_top_rises() {
    let memory = Memory::new();
    for seq in [5, 5, 3, 9, 1] {
        assert!(memory.accept(seq, 0));
    }
    assert_eq!(memory.top.load(Relaxed), 9);
}

#[test]
fn laps_wrap_around() {
    let lap = BLOCK * REPLAY_SLOTS as u64;
    let memory = Memory::new();
    let wrap = lap << 32;
    for seq in [wrap - lap, wrap - 1, wrap, wrap + 1, wrap + lap - 1] {
        assert!(memory.accept(seq, 4096), "{seq}");
        assert!(!memory.accept(seq, 4096), "{seq}");
    }
    assert!(memory.accept(wrap + lap - 4096, 4096));
    assert!(!memory.accept(wrap + lap - 1 - 4096, 4096));
}

#[test]
fn a_crash_between_the_mark_and_the_top_loses_nothing() {
    let memory = Memory::new();
    assert!(memory.accept(10_000, 64));
    memory.top.store(0, Relaxed);
    assert!(!memory.accept(10_000, 64));
    assert!(memory.accept(10_001, 64));
    assert_eq!(memory.top.load(Relaxed), 10_001);
}

#[test]
fn extends_across_the_border_of_32_bits() {
    let memory = Memory::new();
    for (top, low, window, seq) in [
        (0, 1, 64, 1),
        // There are no numbers below 0 to go back to.
        (0, u32::MAX, 64, u64::from(u32::MAX)),
        ((1 << 32) - 1, 0, 64, 1 << 32),
        ((1 << 32) - 1, u32::MAX, 64, (1 << 32) - 1),
        (1 << 32, u32::MAX, 64, (1 << 32) - 1),
        ((5 << 32) + 10, u32::MAX - 52, 64, (5 << 32) - 53),
        ((5 << 32) + 10, u32::MAX - 53, 64, (5 << 32) + u64::from(u32::MAX) - 53),
        // Left of the window: taken for the next 2^32.
        ((5 << 32) + 1000, 1000 - 64, 64, (6 << 32) + 1000 - 64),
        ((5 << 32) + 1000, 1000 - 63, 64, (5 << 32) + 1000 - 63),
        // Without a window, the nearest.
        ((5 << 32) + 1000, 10, 0, (5 << 32) + 10),
        ((5 << 32) + 1000, 0x9000_0000, 0, (4 << 32) + 0x9000_0000),
    ] {
        memory.top.store(top, Relaxed);
        assert_eq!(memory.state().extend(low, window), seq, "top {top:#x}, low {low:#x}, window {window}");
    }
}

/// Threads that receive the same numbers in different orders: each number is accepted by one of them at most, and by
/// exactly one when nothing was ever too old.
#[test]
fn threads_never_accept_a_number_twice() {
    const THREADS: usize = 4;
    const NUMBERS: u64 = 40_000;
    for (window, all) in [(4096, false), (64, false), (0x1000, true)] {
        let memory = Memory::new();
        let start = std::sync::Barrier::new(THREADS);
        let accepted: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS as u64)
                .map(|thread| {
                    let (memory, start) = (&memory, &start);
                    scope.spawn(move || {
                        start.wait();
                        let numbers = if all { 4096 } else { NUMBERS };
                        // Shuffled within strides that differ between the threads.
                        let stride = [1, 7, 61, 509][thread as usize];
                        (0..numbers)
                            .map(|i| i / stride * stride + (stride - 1 - i % stride))
                            .map(|i| i.min(numbers - 1) + 1)
                            .filter(|seq| {
                                memory.state().check(*seq, window) && memory.state().commit(*seq, window)
                            })
                            .collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let total: usize = accepted.iter().map(Vec::len).sum();
        let distinct: HashSet<u64> = accepted.into_iter().flatten().collect();
        assert_eq!(total, distinct.len(), "a number was accepted twice");
        if all {
            assert_eq!(total, 4096);
        }
    }
}
