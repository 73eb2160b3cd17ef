//! The fuzz targets over the kept corpus, and over a few thousand mutations of it: on any toolchain, in seconds.
//! `FUZZ_MUTATIONS` sets how many of each file, `FUZZ_SEED` other ones.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::path::PathBuf;

mod targets;

/// Mutations of each file of the corpus.
const MUTATIONS: u64 = 150;

/// Bytes that mean something in one of the formats.
const SPECIAL: &[u8] = b"\"{}[],:0-9.eE<>&/\\\x00\xff'$|?=%";

/// The same numbers in every run: splitmix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap()
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Bytes changed, cut out, doubled, and pieces of other files put in.
fn mutated(chance: &mut Chance, file: &[u8], all: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..=chance.below(4) {
        let (from, length) = (chance.below(bytes.len() + 1), chance.below(24));
        let to = (from + length).min(bytes.len());
        match chance.below(6) {
            0 if from < bytes.len() => bytes[from] = SPECIAL[chance.below(SPECIAL.len())],
            1 => drop(bytes.drain(from..to)),
            2 => {
                let piece = bytes[from..to].to_vec();
                bytes.splice(from..from, piece);
            }
            3 => {
                let other = &all[chance.below(all.len())];
                let start = chance.below(other.len());
                let piece = other[start..(start + length).min(other.len())].to_vec();
                bytes.splice(from..to, piece);
            }
            4 => bytes.truncate(from),
            _ => {
                let at = from.min(bytes.len().saturating_sub(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << chance.below(8);
                }
            }
        }
    }
    bytes
}

fn run(name: &str, target: fn(&[u8])) {
    let all = corpus(name);
    assert!(all.len() >= 5, "the corpus of {name} has {} files", all.len());
    let setting = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (mutations, mut chance) = (setting("FUZZ_MUTATIONS", MUTATIONS), Chance(setting("FUZZ_SEED", 7)));
    for file in &all {
        target(file);
        for _ in 0..mutations {
            let bytes = mutated(&mut chance, file, &all);
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            assert!(std::panic::catch_unwind(|| target(&bytes)).is_ok(), "{name}: {shown}");
        }
    }
}

#[test]
fn json_bodies() {
    run("json_body", targets::json_body);
}

#[test]
fn xml_bodies() {
    run("xml_body", targets::xml_body);
}

#[test]
fn bundles() {
    run("bundle", targets::bundle);
}

#[test]
fn patches() {
    run("patch", targets::patch);
}

#[test]
fn search_queries() {
    run("search_query", targets::search_query);
}
