//! Tests under an allocator that is watched. Hostile files: [`gguf`] mutates headers, [`model`] whole models. [`host`] counts
//! what a step allocates. `engine/fuzz` runs
//! the first one's check under cargo-fuzz.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it covered")]

mod adapter;
mod check;
mod folder;
mod gguf;
#[cfg(feature = "gpu")]
mod host;
mod model;
mod mutate;
mod random;
#[cfg(feature = "gpu")]
#[path = "../all/common/shape_1b.rs"]
mod shape_1b;
mod watch;

#[global_allocator]
static ALLOCATOR: watch::Watch = watch::Watch;
