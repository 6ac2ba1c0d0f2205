//! Constraints: what grammars allow, that whatever comes of a random walk is valid, hostile grammars, and the engine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says what it covered"
)]
#![cfg(feature = "constrain")]

#[path = "../common/mod.rs"]
mod common;
mod engine;
mod grammars;
mod hostile;
mod schemas;
mod speed;
mod tools;
mod walk;
