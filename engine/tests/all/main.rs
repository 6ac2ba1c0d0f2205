//! The engine's tests in one program: linking is what many small ones would spend their time on. A test that measures its
//! process's memory runs itself in another one (`common::alone`); those with an allocator of their own are in `tests/fuzz`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says what it covered or skipped"
)]

mod adapters;
mod caches;
mod chat;
mod chat_hostile;
mod chat_marked;
mod common;
mod constrain;
mod convert;
mod embed;
mod encoders;
mod engine;
mod families;
mod files;
mod folders;
mod gguf;
mod gpu;
mod gpu_experts;
mod gpu_faults;
mod gpu_heads;
mod gpu_host;
mod gpu_kernels;
mod gpu_loading;
mod gpu_models;
mod gpu_picks;
mod gpu_references;
mod gpu_windows;
mod hostile_models;
mod kinds;
mod loading;
mod made;
mod ops;
mod parts;
mod plans;
mod quantised;
mod session;
mod split;
mod tidy;
mod tokenizers;
mod turns;
mod written;
