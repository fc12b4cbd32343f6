//! A short run of every target without a fuzzer: its corpus, and copies of it that are changed by chance.

use super::TARGETS;
use proptest::prelude::*;
use std::{fs, path::PathBuf};

/// The committed inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", directory.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn run(target: &str, choice: usize, changes: &[(usize, u8)], end: usize) {
    let (_, function) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let corpus = corpus(target);
    let mut input = corpus[choice % corpus.len()].clone();
    for (at, octet) in changes {
        let at = at % input.len().max(1);
        input[at] = *octet;
    }
    input.truncate(end.max(1));
    function(&input);
}

#[test]
fn the_corpus_of_every_target() {
    for (name, function) in TARGETS {
        corpus(name).iter().for_each(|input| function(input));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn changed_copies_of_it(
        target in 0..TARGETS.len(),
        choice in any::<usize>(),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        end in prop_oneof![3 => Just(usize::MAX), 1 => 1..200usize],
    ) {
        run(TARGETS[target].0, choice, &changes, end);
    }
}
