//! Any bytes as a GGUF file: the check of `tests/fuzz/gguf.rs`, with inputs that cargo-fuzz finds by coverage.

#![no_main]

#[path = "../../tests/fuzz/check.rs"]
mod check;
#[path = "../../tests/fuzz/random.rs"]
mod random;
#[path = "../../tests/fuzz/watch.rs"]
mod watch;

#[global_allocator]
static ALLOCATOR: watch::Watch = watch::Watch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::check(bytes.to_vec(), &mut random::Random::new(bytes.len() as u64));
});
