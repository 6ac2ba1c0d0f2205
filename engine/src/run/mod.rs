//! The engine loop: requests in, events out. Schedules rows, keeps the KV pages' books, chooses tokens.
//! Nothing here computes: a step's rows go to a device as [`crate::plan::Inputs`] and come back as logits.

mod pages;
mod random;
mod request;
mod sampler;
mod scheduler;
mod select;
mod steps;
#[cfg(test)]
mod tests;
mod text;

pub use request::{Event, Finish, Logprob, Logprobs, Request, Sampling, SeqId, Usage};
pub use sampler::{Sampler, logprobs};
