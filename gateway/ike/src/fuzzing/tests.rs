//! A short run of every target without a fuzzer: its corpus, and copies of it that are changed by chance.

use std::{fs, path::PathBuf};

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{TARGETS, world::World};

/// The committed inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", directory.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Changes an input as fuzzers do: octets set, flipped, taken out, put in, and its tail that of another one.
fn change(input: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut ChaCha20Rng) {
    let below = |rng: &mut ChaCha20Rng, limit: usize| rng.next_u64() as usize % limit.max(1);
    for _ in 0..=below(rng, 4) {
        let at = below(rng, input.len());
        match below(rng, 6) {
            0 if !input.is_empty() => input[at] = rng.next_u64() as u8,
            1 if !input.is_empty() => input[at] ^= 1 << below(rng, 8),
            2 if !input.is_empty() => drop(input.remove(at)),
            3 => input.insert(at, rng.next_u64() as u8),
            4 => input.truncate(at),
            _ => {
                let other = &others[below(rng, others.len())];
                input.truncate(at);
                input.extend(&other[below(rng, other.len())..]);
            }
        }
    }
    input.truncate(4096);
}

fn run(target: &str, times: usize) {
    let (_, function) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let corpus = corpus(target);
    corpus.iter().for_each(|input| function(input));
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for _ in 0..times {
        let mut input = corpus[rng.next_u64() as usize % corpus.len()].clone();
        change(&mut input, &corpus, &mut rng);
        function(&input);
    }
}

#[test]
fn ike2_message() {
    run("ike2_message", 50_000);
}

#[test]
fn ike1_message() {
    run("ike1_message", 50_000);
}

#[test]
fn ike2_decrypted_payloads() {
    run("ike2_decrypted_payloads", 20_000);
}

#[test]
fn ike1_decrypted_payloads() {
    run("ike1_decrypted_payloads", 20_000);
}

#[test]
fn endpoint() {
    run("endpoint", 3_000);
}

/// What the scripts are mutated from does what it says; else fuzzing the endpoint would be fuzzing its front door.
#[test]
fn scripts_bring_tunnels_up() {
    for (script, up) in [
        (&[0, 0, 0, 13][..], 2),
        (&[0x08, 0, 0, 13, 0, 8, 13], 4),
        (&[0x02, 0, 0, 13], 2),
        (&[0x22, 0, 0, 13], 2),
        (&[0x40, 0, 0, 13], 2),
        (&[0x80, 0, 0, 13], 2),
        (&[0, 0, 0, 6, 9, 2, 13], 2),
        (&[0x01, 0, 0, 13], 2),
        (&[0x03, 0, 0, 13], 2),
        (&[0x09, 0, 0, 13, 0, 8, 13], 4),
        (&[0x81, 0, 0, 13], 2),
        (&[0x11, 0, 0, 13], 2),
    ] {
        assert_eq!(World::new(script).run(), up, "{script:02x?}");
    }
}
