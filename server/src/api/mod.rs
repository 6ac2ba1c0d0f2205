//! The APIs: each translates its fields into a job and what comes back into its own JSON. What they share is `common`.

pub(crate) mod anthropic;
pub(crate) mod common;
pub(crate) mod llama;
pub(crate) mod ollama;
pub(crate) mod openai;
pub(crate) mod responses;
