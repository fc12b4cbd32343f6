//! The window against every interleaving of its threads, and every value that their relaxed loads may see (loom).

use super::*;
use loom::{model::Builder, sync::Arc, thread};

const WINDOW: u32 = 4096;

struct Memory {
    top: AtomicU64,
    slots: Vec<AtomicU64>,
}

impl Memory {
    fn new(slots: usize) -> Arc<Self> {
        let slots = (0..slots).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { top: AtomicU64::new(0), slots })
    }

    /// What a worker does with a packet that authenticates.
    fn accept(&self, seq: u64, window: u32) -> bool {
        let state = ReplayState { top: &self.top, slots: &self.slots };
        state.check(seq, window) && state.commit(seq, window)
    }
}

/// Runs threads that receive these numbers, in every order there is, and gives what was accepted to `judge`.
fn every_order(
    slots: usize,
    window: u32,
    threads: &'static [&'static [u64]],
    judge: impl Fn(&Memory, &[u64]) + Send + Sync + 'static,
) {
    let mut model = Builder::new();
    // Three switches where a thread could have gone on show what more would, in seconds.
    model.preemption_bound = Some(3);
    model.check(move || {
        let memory = Memory::new(slots);
        let workers: Vec<_> = threads
            .iter()
            .map(|seqs| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    seqs.iter().copied().filter(|seq| memory.accept(*seq, window)).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut accepted: Vec<u64> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        accepted.sort_unstable();
        assert!(accepted.is_sorted_by(|a, b| a < b), "a number was accepted twice: {accepted:?}");
        judge(&memory, &accepted);
    });
}

#[test]
fn one_of_the_threads_with_the_same_number_gets_it() {
    every_order(4, WINDOW, &[&[7], &[7], &[7]], |memory, accepted| {
        assert_eq!(accepted, [7]);
        assert_eq!(memory.top.load(Relaxed), 7);
    });
}

#[test]
fn numbers_of_one_word_are_all_accepted() {
    every_order(4, WINDOW, &[&[1, 3], &[2, 3]], |memory, accepted| {
        assert_eq!(accepted, [1, 2, 3]);
        assert_eq!(memory.top.load(Relaxed), 3);
    });
}

#[test]
fn a_word_that_begins_a_later_lap_takes_no_number_of_an_earlier_one() {
    // One word: 40 is in the lap behind 5's.
    every_order(1, WINDOW, &[&[5, 40], &[40, 5]], |memory, accepted| {
        assert!(accepted.ends_with(&[40]), "{accepted:?}");
        assert_eq!(memory.top.load(Relaxed), 40);
    });
}

#[test]
fn what_falls_out_of_the_window_meanwhile_is_accepted_once_at_most() {
    every_order(2, 8, &[&[3, 3], &[70, 3]], |memory, accepted| {
        assert!(accepted.ends_with(&[70]), "{accepted:?}");
        assert_eq!(memory.top.load(Relaxed), 70);
    });
}

#[test]
fn numbers_that_are_marked_together_are_accepted_once_each() {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let memory = Memory::new(4);
        let workers: Vec<_> = [0b0110, 0b1100]
            .into_iter()
            .map(|bits| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    ReplayState { top: &memory.top, slots: &memory.slots }.commit_block(0, bits, WINDOW)
                })
            })
            .collect();
        let accepted: Vec<u32> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert_eq!((accepted[0] & accepted[1], accepted[0] | accepted[1]), (0, 0b1110));
        assert_eq!(memory.top.load(Relaxed), 3);
    });
}
