//! The protocol of generations against every interleaving of `control` and the workers (loom).

use super::*;
use loom::{model::Builder, sync::Arc, thread};

/// Runs `model` in every order that has no more than three switches where a thread could have gone on.
fn every_order(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn sad() -> Arc<Sad> {
    Arc::new(Sad { config: Mapped::anonymous(1), state: Mapped::anonymous(1) })
}

fn config(key: u8) -> SadConfig {
    SadConfig { key: [key; 32], spi: u32::from(key), ..SadConfig::free() }
}

#[test]
fn workers_share_an_sa_and_never_a_sequence_number() {
    every_order(|| {
        let sad = sad();
        let sa = sad.install(0, &config(1)).unwrap();
        let workers = [2, 3].map(|count| {
            let sad = Arc::clone(&sad);
            thread::spawn(move || {
                let first = sad.reserve(sa, count).unwrap();
                first..first + count
            })
        });
        let mut numbers: Vec<u64> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    });
}

#[test]
fn no_number_of_a_successors_counter_goes_with_the_old_key() {
    every_order(|| {
        let sad = sad();
        let old = sad.install(0, &config(1)).unwrap();
        assert_eq!(sad.reserve(old, 5), Some(1));
        let worker = thread::spawn({
            let sad = Arc::clone(&sad);
            move || sad.reserve(old, 1)
        });
        sad.free(0);
        let new = sad.install(0, &config(2)).unwrap();
        assert_ne!(new.generation, old.generation);
        assert!(
            matches!(worker.join().unwrap(), None | Some(6)),
            "the old key would be used with a number twice"
        );
    });
}

/// An entry with two words for its content: more would only make more of the same.
fn entry(words: [u64; 4]) -> Arc<[AtomicU64; 4]> {
    Arc::new(words.map(AtomicU64::new))
}

fn reader(entry: &Arc<[AtomicU64; 4]>) -> thread::JoinHandle<Option<[u64; 4]>> {
    let entry = Arc::clone(entry);
    thread::spawn(move || copied(&entry))
}

#[test]
fn a_copy_is_of_one_sa_or_of_none() {
    every_order(|| {
        let entry = entry([transmute!([1u32, 1u32]), 0, 10, 11]);
        let reader = reader(&entry);
        assert_eq!(replace(&entry, &[0, 0, 20, 21], || ()), 2);
        let (old, new) = ([transmute!([1u32, 1u32]), 0, 10, 11], [transmute!([2u32, 2u32]), 0, 20, 21]);
        if let Some(copy) = reader.join().unwrap() {
            assert!(copy == old || copy == new, "{copy:x?}");
        }
    });
}

#[test]
fn a_copy_is_of_one_place_or_of_none() {
    every_order(|| {
        let entry = entry([transmute!([1u32, 1u32]), 0, 10, 11]);
        let reader = reader(&entry);
        change(&entry, &[0, 0, 20, 21]);
        change(&entry, &[0, 0, 30, 31]);
        if let Some([_, revision, content @ ..]) = reader.join().unwrap() {
            let expected = [[10, 11], [20, 21], [30, 31]][halves(revision)[0] as usize / 2];
            assert_eq!(content, expected, "revision {revision}");
        }
    });
}
