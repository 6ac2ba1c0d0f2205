//! `ir-engine`: reads a GGUF model, records it as a plan of ops, and runs many requests over it.
//!
//! ```
//! use std::sync::Arc;
//! use ir_engine::{builtin, cpu::Cpu, device::Device, model::Model, run::*, text::chat::Message};
//!
//! let model = Arc::new(Model::from_bytes(builtin::bytes(), &Default::default())?); // or Model::open(path, ..)
//! let device = Device::Cpu(Arc::new(Cpu::new(&Default::default())?));
//! let engine = Engine::new(model, &device, &EngineOptions::default())?;
//! let mut session = Session::new(engine, Box::new(|| 0.0)); // the host's clock, in seconds
//! session.say(Message::new("user", "Hello!"));
//! session.start()?;
//! let mut answer = String::new();
//! while let Some(parts) = wait(session.next())? {
//!     for part in parts {
//!         if let Part::Text(text) = part {
//!             answer += &text;
//!         }
//!     }
//! }
//! assert!(!answer.is_empty());
//! # Ok::<(), ir_engine::error::Error>(())
//! ```

mod adapter;
pub mod builtin;
pub mod bytes;
#[cfg(not(target_arch = "wasm32"))]
pub mod check;
#[cfg(not(target_arch = "wasm32"))]
pub mod convert;
pub mod cpu;
pub mod device;
pub mod dtype;
pub mod error;
pub mod file;
mod folder;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod load;
pub mod meta;
pub mod model;
pub mod plan;
pub use ir_simd::quant;
pub mod run;
pub mod text;

pub use device::Device;
pub use error::{Error, Result};
pub use load::{LoadOptions, Loader};
pub use model::Model;
pub use run::{EmbedRequest, Engine, EngineOptions, Event, Request, Sampling, Session};
pub use text::Tokenizer;
