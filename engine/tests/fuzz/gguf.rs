//! Hostile GGUF files: seeds are mutated, and whatever comes out must open or be refused: no panic, no single
//! allocation above four times the file plus 64 KiB, and the same answer whole and in pieces.
//! `IR_FUZZ_ITERATIONS` sets the number of mutated files. `engine/fuzz` runs the same check under cargo-fuzz.

use std::sync::atomic::{AtomicU64, Ordering};

use super::check::check;
use super::mutate::{mutate, seeds};
use super::random::Random;

/// Mutated files in a plain run of the test; `.ci/run --full` takes ten million.
const ITERATIONS: u64 = 100_000;

/// Names the file that a panic is about.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the panic is about mutated file {}", self.0);
        }
    }
}

#[test]
fn mutated_files_open_or_are_refused() {
    let n: u64 = match std::env::var("IR_FUZZ_ITERATIONS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => ITERATIONS,
    };
    let seeds = seeds();
    for seed in &seeds {
        check(seed.bytes.clone(), &mut Random::new(0));
    }
    let (next, opened) = (AtomicU64::new(0), AtomicU64::new(0));
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= n {
                        break;
                    }
                    let _named = Named(i);
                    let mut random = Random::new(i);
                    let bytes = mutate(&seeds, &mut random);
                    if check(bytes, &mut random) {
                        opened.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let opened = opened.into_inner();
    eprintln!("{n} mutated files: {opened} opened, {} were refused", n - opened);
    assert!(
        n < 1000 || (n / 20..n - n / 20).contains(&opened),
        "the mutations are too tame or too wild: {opened} of {n}"
    );
}

/// A version 3 header of these counts, then these bytes.
fn raw(n_tensors: u64, n_pairs: u64, rest: &[u8]) -> Vec<u8> {
    let counts = [n_tensors.to_le_bytes(), n_pairs.to_le_bytes()].concat();
    [b"GGUF\x03\0\0\0", &counts[..], rest].concat()
}

/// Files of a megabyte or more that pack as many entries as the format allows: what is kept of each must not be more
/// than four times what it takes in the file.
#[test]
fn dense_files_stay_within_the_limit() {
    let n = 200_001u64;
    let pair = [&[0; 8][..], &[0; 4], &[7]].concat();
    let tensor = |i: u64| {
        let name = [(i & 127) as u8, (i >> 7 & 127) as u8, (i >> 14) as u8];
        let type_id = 77u32.to_le_bytes();
        [&3u64.to_le_bytes()[..], &name, &0u32.to_le_bytes(), &type_id, &(32 * i).to_le_bytes()].concat()
    };
    let tensors: Vec<u8> = (0..n).flat_map(tensor).collect();
    let end = (24 + tensors.len()).next_multiple_of(32) + 32 * n as usize;
    let key = [&1u64.to_le_bytes()[..], b"k", &9u32.to_le_bytes()].concat();
    let strings = [&key[..], &8u32.to_le_bytes(), &n.to_le_bytes(), &vec![0; 8 * n as usize]].concat();
    let empty_arrays = [&key[..], &9u32.to_le_bytes(), &n.to_le_bytes(), &vec![0; 12 * n as usize]].concat();
    let mut with_data = raw(n, 0, &tensors);
    with_data.resize(end, 0);
    let cases = [
        (raw(0, n, &pair.repeat(n as usize)), true),
        (raw(0, n + 1, &pair.repeat(n as usize)), false),
        (raw(0, 1, &strings), true),
        (raw(0, 1, &empty_arrays), true),
        (with_data, true),
        (raw(n, 0, &tensors), false),
        (raw(n, 0, &tensors[..tensors.len() - 1]), false),
        (raw(1 << 24, 0, &tensors), false),
    ];
    for (i, (bytes, opens)) in cases.into_iter().enumerate() {
        assert_eq!(check(bytes, &mut Random::new(1)), opens, "case {i}");
    }
}
