//! The one interface between API handlers and the engine's side, as plain data: what is asked ([`Job`], [`EmbedJob`]).
//! What comes back is in `output`. Whoever speaks an API translates to and from these; how requests meet engines is in
//! `hub`.

use std::time::Duration;

use ir_engine::run::Sampling;
pub use ir_engine::run::ToolChoice;
use ir_engine::text::chat::Message;
pub use ir_engine::text::constrain::Grammar;
use serde_json::{Map, Value as Json};

pub use crate::generate::output::{
    Answer, Collector, Delta, Done, Embedded, Event, Output, Part, Ranked, Reason, Usage,
};
pub use crate::generate::sampling::SamplingChanges;
pub use crate::models::model_ref::{KeepAlive, LoadOptions, ModelRef};
pub use ir_store::Capabilities;

/// Completions of one request, at most.
pub const MAX_CHOICES: usize = 16;

/// Texts of one request to embed, at most.
pub const MAX_INPUTS: usize = 2048;

/// One thing to generate.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The model.
    pub model: ModelRef,
    /// What to go on from.
    pub prompt: Prompt,
    /// Completions of it, 1 to [`MAX_CHOICES`]; each has the seed of the one before plus one.
    pub n: usize,
    /// Tokens per completion at most; `None`: until the context is full.
    pub max_tokens: Option<usize>,
    /// The API's defaults. What the model's file recommends goes over them, `sampling` over both.
    pub defaults: Sampling,
    /// What the client asks for.
    pub sampling: SamplingChanges,
    /// A completion ends before the first of these.
    pub stop: Vec<String>,
    /// Log-probabilities of each token and of this many most likely ones.
    pub logprobs: Option<usize>,
    /// What the answer must conform to. It begins behind the reasoning.
    pub grammar: Option<Grammar>,
    /// The request's field that `grammar` comes from, for errors; `None`: `grammar`.
    pub grammar_field: Option<&'static str>,
    /// Reasoning: as the model does, none, or some.
    pub think: Think,
    /// Goes on past the end-of-generation tokens.
    pub ignore_eos: bool,
    /// The model's adapters that are used, by number, each so much; `None`: as the server is set.
    pub lora: Option<Vec<(usize, f32)>>,
    /// Ends with [`crate::engine::error::Kind::Deadline`] when it takes longer; the server's own limit holds too.
    pub deadline: Option<Duration>,
}

/// What a completion goes on from.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// A chat, laid out by the model's template.
    Chat(Box<Chat>),
    /// Text as it stands, special tokens parsed, BOS as the model wants it.
    Text(String),
    /// Token ids as they stand.
    Tokens(Vec<u32>),
    /// Text between two texts, for models with fill-in-the-middle tokens.
    Fill {
        /// What comes before.
        prefix: String,
        /// What comes after.
        suffix: String,
    },
    /// Token ids, then what a chat adds to them: Ollama's `context`.
    Continue {
        /// The earlier exchange.
        tokens: Vec<u32>,
        /// The new turn.
        chat: Box<Chat>,
    },
}

impl Default for Prompt {
    fn default() -> Self {
        Prompt::Text(String::new())
    }
}

/// A chat and its tools.
#[derive(Debug, Clone, Default)]
pub struct Chat {
    /// The turns so far; at least one. A last one of the assistant, behind others, is the beginning of the answer, which the
    /// model continues; it is not sent back.
    pub messages: Vec<Message>,
    /// Tool definitions in OpenAI's form (`{"type": "function", "function": {...}}`).
    pub tools: Vec<Json>,
    /// Whether and which tools are to be called.
    pub tool_choice: ToolChoice,
    /// Whether an answer may hold more than one call.
    pub parallel_calls: bool,
    /// More variables for the template (`chat_template_kwargs`).
    pub kwargs: Map<String, Json>,
    /// Drops the oldest turns (never the system's) where the chat is longer than the context; otherwise it is refused.
    pub truncate: bool,
    /// A template instead of the model's own.
    pub template: Option<String>,
    /// Markup that is spelled in a message (`<|im_end|>`) is markup; otherwise it is text.
    pub parse_special: bool,
}

/// What to do about reasoning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Think {
    /// The template's default.
    #[default]
    Default,
    /// None.
    Off,
    /// Some.
    On,
    /// Some, this much (`low`, `medium`, `high`), for templates that know `reasoning_effort`.
    Effort(String),
}

impl Think {
    /// As templates' switch: `None` is their default.
    pub(crate) fn switch(&self) -> Option<bool> {
        match self {
            Think::Default => None,
            Think::Off => Some(false),
            Think::On | Think::Effort(_) => Some(true),
        }
    }
}

/// Texts or token lists to embed, each by itself; at most [`MAX_INPUTS`].
#[derive(Debug, Clone, Default)]
pub struct EmbedJob {
    /// The model.
    pub model: ModelRef,
    /// What to embed.
    pub inputs: Vec<EmbedInput>,
    /// Cuts what is longer than the context; otherwise that is refused.
    pub truncate: bool,
    /// Keeps this many first values and scales them to length one again.
    pub dimensions: Option<usize>,
    /// Whether vectors get length one.
    pub normalize: bool,
}

/// Texts to score by how well they answer a query; at most [`MAX_INPUTS`].
#[derive(Debug, Clone, Default)]
pub struct RankJob {
    /// The model.
    pub model: ModelRef,
    /// What is asked.
    pub query: String,
    /// The texts.
    pub documents: Vec<String>,
}

/// One thing to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedInput {
    /// A text.
    Text(String),
    /// Its token ids.
    Tokens(Vec<u32>),
}
