//! The server's tests, in one program.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod anthropic;
mod clients;
mod common;
mod constrained;
mod dialects;
mod disk_cache;
mod embeddings;
mod floors;
mod llama;
mod lora;
mod ollama;
mod openai;
mod recorded;
mod serving;
mod staying;
mod store;
mod streams;
mod turns;
