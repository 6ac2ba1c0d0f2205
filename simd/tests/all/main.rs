//! The exam of block types and of tables, in one binary: the crate itself is compiled once for it and for all that use it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says which tables it found"
)]

mod activations;
mod blocks;
#[cfg(not(target_arch = "wasm32"))]
mod encoders;
#[cfg(not(target_arch = "wasm32"))]
mod mixes;
mod probe;
mod tables;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd", feature = "exam"))]
mod wasm;
