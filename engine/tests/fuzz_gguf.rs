//! Hostile GGUF files: seeds are mutated, and whatever comes out must open or be refused: no panic, no single
//! allocation above four times the file plus 64 KiB, and the same answer whole and in pieces.
//! `IR_FUZZ_ITERATIONS` sets the number of mutated files. `engine/fuzz` runs the same check under cargo-fuzz.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it covered")]

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/watch.rs"]
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};

use ir_engine::bytes::Bytes;
use ir_engine::error::Result;
use ir_engine::file::{ModelFile, PushReader, Table};
use ir_engine::meta::{Kind, Value};
use mutate::{Random, mutate, seeds};

/// Mutated files in a plain run of the test.
const ITERATIONS: u64 = 1_000_000;

#[global_allocator]
static ALLOCATOR: watch::Watch = watch::Watch;

/// Reads all that the library can say about a file. What it returns only has to exist.
fn exercise(bytes: &Bytes) -> Result<ModelFile> {
    let file = ModelFile::from_bytes(bytes.clone())?;
    let mut sum = 0;
    for (key, value) in file.meta().iter() {
        sum += key.len() as u64 + read(value);
    }
    let meta = file.meta();
    for key in ["general.architecture", "general.alignment", "k.u16", "tokenizer.ggml.tokens", "none"] {
        sum += meta.u32(key).map_or(0, u64::from) + meta.str(key).map_or(0, |s| s.len() as u64);
        sum += meta.array(key).map_or(0, |a| a.len() as u64) + u64::from(meta.opt_bool(key).is_ok());
    }
    for tensor in file.tensors() {
        let data = file.bytes(tensor)?;
        assert_eq!(data.len() as u64, tensor.byte_len());
        assert_eq!(file.tensor(tensor.name()).map(|t| t.name()), Some(tensor.name()));
        sum += u64::from(data.first().copied().unwrap_or(0)) + u64::from(data.last().copied().unwrap_or(0));
        sum += tensor.n_elements() + tensor.dtype().map_or(0, |d| d as u64) + tensor.dims().len() as u64;
    }
    std::hint::black_box(sum);
    Ok(file)
}

/// Touches a value as every getter sees it.
fn read(value: Value<'_>) -> u64 {
    let plain = value.as_u64().is_some() as u64 + value.as_i64().is_some() as u64 + value.as_f64().is_some() as u64;
    let text = value.as_bytes().map_or(0, |b| b.len() as u64) + value.as_str().map_or(0, |s| s.len() as u64);
    let Some(array) = value.as_array() else { return plain + text + u64::from(value.as_bool() == Some(true)) };
    let n: u64 =
        array.iter().map(|v| if v.kind() == Kind::Array { read(v) } else { v.as_u64().unwrap_or(1) & 1 }).sum();
    assert_eq!(array.iter().count(), array.len(), "an array holds what it says");
    n
}

/// The file in pieces of random sizes; its tensors' bytes are compared with `whole`'s.
fn push(bytes: &Bytes, whole: Option<&ModelFile>, random: &mut Random) -> Result<Table> {
    let total = bytes.len() as u64;
    let mut reader = PushReader::new(total);
    let mut placed = 0;
    let mut at = 0;
    let scale = 1 + random.below(bytes.len());
    while at < bytes.len() {
        let end = bytes.len().min(at + 1 + random.below(scale));
        reader.feed(at as u64, &bytes[at..end], &mut |piece| {
            if let Some(file) = whole {
                let tensor = &file.tensors()[piece.tensor];
                let from = (tensor.offset() + piece.offset) as usize;
                assert_eq!(piece.bytes, &bytes[from..from + piece.bytes.len()]);
            }
            placed += piece.bytes.len() as u64;
            Ok(())
        })?;
        at = end;
    }
    let table = reader.finish()?;
    assert_eq!(placed, table.tensors().iter().map(|t| t.byte_len()).sum::<u64>(), "every byte of a tensor arrives");
    Ok(table)
}

/// One mutated file: returns whether it opened.
fn check(bytes: Vec<u8>, random: &mut Random) -> bool {
    let limit = 4 * bytes.len() + (64 << 10);
    let bytes = Bytes::from(bytes);
    watch::reset();
    let whole = exercise(&bytes);
    let pushed = push(&bytes, whole.as_ref().ok(), random);
    let largest = watch::largest();
    assert!(largest <= limit, "an allocation of {largest} bytes for a file of {}", bytes.len());
    match (whole, pushed) {
        (Ok(file), Ok(table)) => {
            assert_eq!(file.tensors(), table.tensors());
            assert_eq!(file.meta().len(), table.meta().len());
            true
        }
        (Err(whole), Err(pushed)) => {
            let whole = whole.to_string();
            assert!(whole.len() < 600 && !whole.contains('\n'), "{whole}");
            assert_eq!(whole, pushed.to_string());
            false
        }
        // A part of a split set does not open alone, but can be pushed.
        (Err(whole), Ok(_)) => {
            assert!(whole.to_string().contains("split"), "only whole: {whole}");
            false
        }
        (Ok(_), Err(pushed)) => panic!("only in pieces: {pushed}"),
    }
}

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
