//! The command's tests, in one program: each runs the built binary.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails, and says what it skips")]

mod common;
mod embed;
mod figures;
mod gpu;
mod grammar;
mod launch;
#[cfg(target_os = "linux")]
mod repl;
#[cfg(unix)]
mod serve;
mod store;
mod talk;
mod usage;
