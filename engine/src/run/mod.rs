//! The engine loop: requests in, events out. Schedules rows, keeps the KV pages' books, chooses tokens.
//! Nothing here computes: a step's rows go to a device as [`crate::plan::Inputs`] and come back as logits.

mod chain;
mod digest;
#[cfg(not(target_arch = "wasm32"))]
mod disk;
mod embed;
mod engine;
mod held;
mod lasting;
mod layout;
mod pages;
mod ram;
mod random;
mod reader;
mod request;
mod room;
mod sampler;
mod scheduler;
mod select;
mod session;
mod states;
mod steps;
#[cfg(test)]
mod tests;
mod text;
mod turn;
mod vocabulary;

#[cfg(not(target_arch = "wasm32"))]
pub use disk::{DiskCache, DiskCounts};
pub use embed::{embed_ids, rank_request};
pub use engine::{Engine, EngineOptions, Stats, wait};
pub use lasting::{PageStore, StoreKey};
pub use ram::{RamCache, RamCounts};
pub use reader::{AnswerReader, Part};
pub use request::{
    EmbedRequest, Event, FinishReason, Logprob, Logprobs, Marks, RankRequest, Request, Sampling, SeqId, Usage,
};
pub use sampler::{Sampler, logprobs};
pub(crate) use scheduler::Limits;
pub use session::{Clock, Session, SessionOptions};
pub use turn::{ChatInput, ChatTurn, ToolChoice, prompt_ids};
