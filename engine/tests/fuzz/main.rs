//! Hostile files under an allocator that is watched: [`gguf`] mutates headers, [`model`] whole models. `engine/fuzz` runs
//! the first one's check under cargo-fuzz.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it covered")]

mod adapter;
mod check;
mod folder;
mod gguf;
mod model;
mod mutate;
mod random;
mod watch;

#[global_allocator]
static ALLOCATOR: watch::Watch = watch::Watch;
