//! `ir-engine`: reads a GGUF model, records it as a plan of ops, and runs many requests over it.

pub mod builtin;
pub mod bytes;
#[cfg(not(target_arch = "wasm32"))]
pub mod check;
pub mod cpu;
pub mod device;
pub mod dtype;
pub mod error;
pub mod file;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod meta;
pub mod model;
pub mod plan;
pub mod quant;
pub mod run;
pub mod text;
