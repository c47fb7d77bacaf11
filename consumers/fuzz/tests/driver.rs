//! Every target with its committed inputs, and with changes of them from a seed: what can be found without an eye on
//! coverage, in each plain test run. `cargo xtask fuzz` looks longer, and with libFuzzer.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use millrace_fuzz::TARGETS;

/// Longest input.
const LONGEST: usize = 1 << 16;

/// Inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// How many changed inputs a plain test tries: about a second's worth.
fn tries(target: &str) -> u64 {
    match target {
        "header" => 200_000,
        "decode" => 50_000,
        "registry" => 1_500,
        _ => 3_000,
    }
}

#[test]
fn every_target_stands_what_is_in_its_corpus_and_what_becomes_of_that() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 3, "the corpus of {name} is nearly empty");
        let stands = |what: &str, input: &[u8]| {
            if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
                panic!("{name}, {what}: {:02x?}", &input[..input.len().min(4096)]);
            }
        };
        corpus.iter().enumerate().for_each(|(at, input)| stands(&format!("file {at}"), input));
        for number in 0..tries(name) {
            let mut random = Random(number);
            stands(&format!("change {number}"), &changed(&corpus, &mut random));
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit.max(1) as u64) as usize
    }
}

fn changed(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    /// Integers at the edges of what is read, as Avro writes them.
    const EDGES: [&[u8]; 8] = [
        &[1],
        &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0x80, 0x80, 0x80, 0x10],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x80, 0x80, 0x80, 0x01],
        &[0x80, 0],
    ];
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let to = (at + random.below(16)).min(input.len());
        match random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.bits() as u8,
            2 => input.truncate(at),
            3 => drop(input.drain(at..to)),
            4 => input.splice(at..at, EDGES[random.below(EDGES.len())].iter().copied()).for_each(drop),
            5 => input.splice(at..to, EDGES[random.below(EDGES.len())].iter().copied()).for_each(drop),
            6 => input.extend_from_within(at..to),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(64)).min(other.len())];
                input.splice(at..at, piece.iter().copied()).for_each(drop);
            }
        }
    }
    input.truncate(LONGEST);
    input
}
