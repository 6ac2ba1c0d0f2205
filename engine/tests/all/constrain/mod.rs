//! Constraints: what grammars allow, that whatever comes of a random walk is valid, hostile grammars, and the engine.
#![cfg(feature = "constrain")]

mod engine;
mod grammars;
mod hostile;
mod schemas;
mod speed;
mod tools;
pub(crate) mod walk;
