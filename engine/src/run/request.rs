//! What goes into the engine and what comes out, as plain data: [`Request`], [`EmbedRequest`], [`RankRequest`], [`Sampling`], [`Event`],
//! [`Usage`].
//! The same for a command line, a server and a web page. Chats and their templates belong to [`super::ChatTurn`].

use crate::error::{Error, Result};
use crate::meta::Meta;
use crate::model::Pooling;
use crate::text::constrain::Constraint;

/// Names a sequence in one engine. Ids ascend in the order requests were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId(pub u64);

/// One thing to generate.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Token ids to continue; at least one.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most; `None` means until the context is full. 0 only computes the prompt.
    pub max_tokens: Option<usize>,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Generation ends before the first of these strings to appear in the text; none of it is sent.
    pub stop: Vec<String>,
    /// Goes on past the end-of-generation tokens.
    pub ignore_eos: bool,
    /// Control tokens (`<|im_end|>`) appear in the text instead of vanishing.
    pub show_special: bool,
    /// These control tokens appear in the text all the same: the marks of tool calls
    /// ([`ToolFormat::token_ids`](crate::text::tools::ToolFormat::token_ids)).
    pub show: Vec<u32>,
    /// Sends each token's log-probability and those of this many most likely tokens.
    pub logprobs: Option<usize>,
    /// What the text is held to: tokens that it does not allow are banned before anything else of the sampling, and the
    /// sequence ends with [`FinishReason::Stop`] where it is complete and can go no further. Each request takes a constraint
    /// that has accepted nothing. A device gives such a sequence its whole row of logits and picks nothing itself.
    pub constraint: Option<Constraint>,
    /// The constraint begins behind the first time this text is generated (`</think>`), control tokens written out;
    /// until then anything may come, the end included. `None`: at once.
    pub constrain_after: Option<String>,
    /// What opens that which `constrain_after` closes (`<think>`), for models that choose whether to reason: it may come
    /// first beside what the constraint allows, and where another token does, the constraint holds from there.
    pub constrain_opener: Option<u32>,
    /// The constraint begins behind this text (`<tool_call>`), anew each time it is generated behind what
    /// `constrain_after` says; what comes between is free, and so is what the constraint cannot go on with.
    pub constrain_again: Option<String>,
    /// Places of the prompt that a cache had better keep.
    pub marks: Marks,
    /// The adapters that are used, by their numbers in [`Model::adapters`](crate::Model::adapters), each so many times; others
    /// are not. `None`: all, as the model was opened.
    pub adapters: Option<Vec<(usize, f32)>>,
}

/// Places of a conversation, counted in tokens from its start, where the next request is likely to go on from or to branch
/// off; the end of the answer, which is one too, is known when it has come. `None` where no token ends there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// Where the last message of the user starts.
    pub last_user: Option<usize>,
    /// Where the last message ends, in front of what opens the answer.
    pub messages_end: Option<usize>,
}

/// One text to make an embedding of.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedRequest {
    /// Token ids of the text, at least one and at most the context. [`super::embed_ids`] gives them.
    pub prompt: Vec<u32>,
    /// How rows become an embedding; `None` means as the model's file says. [`Pooling::Rank`] is refused.
    pub pooling: Option<Pooling>,
    /// Keeps this many numbers from the start (Matryoshka embeddings, arXiv 2205.13147), at most the model's width;
    /// `None` keeps all.
    pub dimensions: Option<usize>,
    /// The adapters that are used: see [`Request::adapters`].
    pub adapters: Option<Vec<(usize, f32)>>,
    /// Divides the embedding, after it was cut, by its length: its dot products are cosines then.
    pub normalize: bool,
}

impl Default for EmbedRequest {
    fn default() -> Self {
        Self { prompt: Vec::new(), pooling: None, dimensions: None, adapters: None, normalize: true }
    }
}

impl EmbedRequest {
    /// Refuses what no engine could do; the engine also checks the prompt against its context.
    ///
    /// # Errors
    /// Names the first value that is out of range.
    pub fn check(&self, n_vocab: usize, width: usize) -> Result<()> {
        check_prompt(&self.prompt, n_vocab)?;
        match self.dimensions.filter(|n| !(1..=width).contains(n)) {
            Some(n) => Err(Error::request(format!(
                "dimensions is {n}: the model's embeddings have {width}, ask for 1 to {width}"
            ))),
            None => Ok(()),
        }
    }
}

/// A pair of texts to score, as [`super::rank_request`] joins them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RankRequest {
    /// Token ids of both; at least one.
    pub prompt: Vec<u32>,
    /// Where the second text begins in them, for models that tell the two apart by the types of their tokens. `None`: they
    /// are one text, as templates make of them.
    pub second: Option<usize>,
    /// The adapters that are used: see [`Request::adapters`].
    pub adapters: Option<Vec<(usize, f32)>>,
}

impl RankRequest {
    /// Refuses what no engine could do; the engine also checks the pair against its context.
    ///
    /// # Errors
    /// A token id out of range, or a second text that begins behind the end.
    pub fn check(&self, n_vocab: usize) -> Result<()> {
        check_prompt(&self.prompt, n_vocab)?;
        match self.second.filter(|n| *n > self.prompt.len()) {
            Some(n) => {
                Err(Error::request(format!("the second text begins at {n} of a pair of {} tokens", self.prompt.len())))
            }
            None => Ok(()),
        }
    }
}

fn check_prompt(prompt: &[u32], n_vocab: usize) -> Result<()> {
    match prompt.iter().find(|id| **id as usize >= n_vocab) {
        Some(id) => Err(Error::request(format!("the prompt holds token id {id} of a vocabulary of {n_vocab}"))),
        None => Ok(()),
    }
}

/// How a token is chosen from a row of logits. [`super::Sampler`] says in which order the fields apply; a field at its
/// "off" value changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits before the pick; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps this many most likely tokens; 0 is off.
    pub top_k: usize,
    /// Keeps the most likely tokens that together reach this probability; 1 is off.
    pub top_p: f32,
    /// Keeps tokens at least this share as likely as the most likely one; 0 is off.
    pub min_p: f32,
    /// Keeps the tokens whose surprise is closest to the expected one, up to this probability (locally typical
    /// sampling, arXiv 2202.00666); 1 is off.
    pub typical_p: f32,
    /// Divides positive logits of tokens in the window and multiplies negative ones; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from the logit of every token in the window; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted once for every time the token stands in the window; 0 is off.
    pub frequency_penalty: f32,
    /// The window of the three penalties: the last tokens of the sequence, prompt included. `usize::MAX`: all of them.
    pub repeat_last_n: usize,
    /// The random numbers' seed. The same seed, prompt and logits give the same text.
    pub seed: u64,
    /// Added to single tokens' logits before anything else; negative infinity bans a token.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    /// llama.cpp's defaults.
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: 64,
            seed: 0,
            logit_bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// The defaults with what the file recommends in its place: `general.sampling.temp`, `top_k`, `top_p`, `min_p`,
    /// `penalty_last_n`, `penalty_repeat`. Values out of range are passed over.
    pub fn from_meta(meta: &Meta) -> Self {
        Self::default().recommended(meta)
    }

    /// These values with what the file recommends in their place, as [`Sampling::from_meta`] reads it.
    #[must_use]
    pub fn recommended(self, meta: &Meta) -> Self {
        let mut sampling = self;
        let number = |name: &str| meta.get(&format!("general.sampling.{name}")).and_then(|v| v.as_f64());
        let mut set = |name: &str, write: fn(&mut Self, f64)| {
            if let Some(value) = number(name).filter(|v| v.is_finite()) {
                let mut changed = sampling.clone();
                write(&mut changed, value);
                if changed.check(usize::MAX).is_ok() {
                    sampling = changed;
                }
            }
        };
        set("temp", |s, v| s.temperature = v as f32);
        set("top_k", |s, v| s.top_k = v.max(0.0) as usize);
        set("top_p", |s, v| s.top_p = v as f32);
        set("min_p", |s, v| s.min_p = v as f32);
        set("penalty_repeat", |s, v| s.repeat_penalty = v as f32);
        set("penalty_last_n", |s, v| s.repeat_last_n = if v < 0.0 { usize::MAX } else { v as usize });
        sampling
    }

    /// Refuses values out of range, for a vocabulary of `n_vocab`.
    ///
    /// # Errors
    /// Names the first field that is out of range and what it may be.
    pub fn check(&self, n_vocab: usize) -> Result<()> {
        let within = |name: &str, value: f32, ok: bool, range: &str| {
            if ok { Ok(()) } else { Err(Error::request(format!("{name} is {value}: it must be {range}"))) }
        };
        let t = self.temperature;
        within("temperature", t, t.is_finite() && t >= 0.0, "0 or more")?;
        within("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1")?;
        within("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1")?;
        within("typical_p", self.typical_p, self.typical_p > 0.0 && self.typical_p <= 1.0, "above 0 and at most 1")?;
        let r = self.repeat_penalty;
        // Beyond these a logit would be infinite, which damage shows by.
        within("repeat_penalty", r, (1e-20..=1e20).contains(&r), "from 1e-20 to 1e20")?;
        within("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), "finite")?;
        within("frequency_penalty", self.frequency_penalty, self.frequency_penalty.is_finite(), "finite")?;
        for (id, bias) in &self.logit_bias {
            if *id as usize >= n_vocab {
                return Err(Error::request(format!("logit_bias names token {id} of a vocabulary of {n_vocab}")));
            }
            within("a logit bias", *bias, *bias < f32::INFINITY, "below infinity")?;
        }
        Ok(())
    }
}

/// The most stop strings of a request, and the bytes of the longest.
const MAX_STOPS: (usize, usize) = (256, 4096);
/// The most tokens per position that a request may ask log-probabilities of.
const MAX_LOGPROBS: usize = 1024;

impl Request {
    /// Refuses what no engine could do; the engine also checks the prompt against its context.
    ///
    /// # Errors
    /// Names the first value that is out of range.
    pub fn check(&self, n_vocab: usize) -> Result<()> {
        check_prompt(&self.prompt, n_vocab)?;
        let (n, len) = MAX_STOPS;
        if self.stop.len() > n || self.stop.iter().any(|s| s.is_empty() || s.len() > len) {
            return Err(Error::request(format!("give at most {n} stop strings, none empty or above {len} bytes")));
        }
        if self.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
            return Err(Error::request(format!("ask for at most {MAX_LOGPROBS} log-probabilities per token")));
        }
        let begins = [&self.constrain_after, &self.constrain_again];
        if begins.into_iter().flatten().any(|text| text.is_empty() || text.len() > len) {
            return Err(Error::request(format!("the text that a constraint begins after has 1 to {len} bytes")));
        }
        if let Some(id) = self.constrain_opener.filter(|id| *id as usize >= n_vocab) {
            return Err(Error::request(format!("constrain_opener is token id {id} of a vocabulary of {n_vocab}")));
        }
        self.sampling.check(n_vocab)
    }
}

/// What the engine reports, in order for each sequence: any number of tokens, then one `Done` or `Error`. A text to embed
/// ends with one `Embedding`, or with `Error`, or with `Done` where it was cancelled.
#[derive(Debug)]
pub enum Event {
    /// A token was chosen.
    Token {
        /// The sequence.
        seq: SeqId,
        /// The token; the last one may be an end-of-generation token.
        id: u32,
        /// Text that is final from here on: whole characters, and nothing that may yet turn out to be the start of a
        /// stop string, so often empty and sometimes more than this token's own.
        text: String,
        /// Where the request asked for them.
        logprobs: Option<Box<Logprobs>>,
    },
    /// A text's embedding: its sequence ended.
    Embedding {
        /// The sequence.
        seq: SeqId,
        /// As many numbers as the model is wide or the request's `dimensions` say; all finite.
        values: Vec<f32>,
        /// What it took. No token was generated: `prompt` is the time from the first step to the end.
        usage: Usage,
    },
    /// The sequence ended.
    Done {
        /// The sequence.
        seq: SeqId,
        /// Why.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
    /// The sequence failed, and the others go on.
    Error {
        /// The sequence.
        seq: SeqId,
        /// What went wrong.
        error: Error,
    },
}

impl Event {
    /// The sequence it is about.
    pub fn seq(&self) -> SeqId {
        match self {
            Event::Token { seq, .. }
            | Event::Embedding { seq, .. }
            | Event::Done { seq, .. }
            | Event::Error { seq, .. } => *seq,
        }
    }
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The stop string of this number in [`Request::stop`]; `None`: an end-of-generation token, or a constraint that is
    /// complete.
    Stop(Option<usize>),
    /// `max_tokens` or the context is used up.
    Length,
    /// The host cancelled it.
    Cancelled,
}

impl FinishReason {
    /// The word that the usual APIs use: `stop`, `length`, `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop(_) => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// What a sequence took. Times are seconds between the clock readings that the host passed in.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that an earlier sequence had computed.
    pub cached_tokens: usize,
    /// Tokens generated, an end-of-generation token included.
    pub completion_tokens: usize,
    /// From adding the request to the first step that worked on it.
    pub queued: f64,
    /// From there to the first token.
    pub prompt: f64,
    /// From the first token to the end.
    pub generation: f64,
}

/// Log-probabilities at one position. They are those of the model's own distribution: the softmax of the raw logits,
/// before bias, penalties and temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// The token that was chosen.
    pub chosen: Logprob,
    /// The most likely tokens, most likely first.
    pub top: Vec<Logprob>,
}

/// One token's log-probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprob {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// What it stands for; not always whole characters.
    pub bytes: Vec<u8>,
}
