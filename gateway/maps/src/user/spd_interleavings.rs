//! The generations of the classes against every interleaving of `control` and who looks up (loom).

use super::*;
use loom::{model::Builder, sync::Arc, thread};

/// A head, and two areas of two words: more would only make more of the same.
struct Tables {
    head: [AtomicU64; 2],
    areas: [[AtomicU64; 2]; 2],
}

impl Tables {
    fn replace(&self) {
        replace(&self.head, |generation| {
            for word in &self.areas[generation as usize & 1] {
                word.store(generation, Relaxed);
            }
        });
    }

    /// What a look-up has read, if it believes it.
    fn read(&self) -> Option<(u64, [u64; 2])> {
        let generation = begun(&self.head);
        let words = self.areas[generation as usize & 1].each_ref().map(|word| word.load(Relaxed));
        is_still(&self.head, generation).then_some((generation, words))
    }
}

#[test]
fn what_is_believed_is_of_one_generation() {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let zero = || AtomicU64::new(0);
        let tables = Arc::new(Tables { head: [zero(), zero()], areas: [[zero(), zero()], [zero(), zero()]] });
        let reader = thread::spawn({
            let tables = Arc::clone(&tables);
            move || tables.read()
        });
        tables.replace();
        tables.replace();
        if let Some((generation, words)) = reader.join().unwrap() {
            assert_eq!(words, [generation; 2]);
        }
    });
}
