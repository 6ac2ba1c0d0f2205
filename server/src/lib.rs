//! The local REST server: Ollama's API, OpenAI's, Anthropic's messages and what llama-server adds, from one engine.
//! HTTP ends here: models and their computation are `ir-engine`'s.

mod error;
pub mod job;

pub use error::{ApiError, Flavour, Kind};
