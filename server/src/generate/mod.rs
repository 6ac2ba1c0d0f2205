//! From what is asked, as plain data, to an engine's request, and from its tokens to what comes back. No HTTP, no API.

pub(crate) mod choice;
pub(crate) mod embedding;
pub(crate) mod hub;
pub mod job;
pub(crate) mod output;
pub(crate) mod prompt;
pub(crate) mod recipe;
pub(crate) mod request;
pub(crate) mod running;
pub(crate) mod sampling;
