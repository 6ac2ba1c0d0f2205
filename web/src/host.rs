//! [`Host`]: a model that runs. The worker adds requests, drives the steps and hands events on; between two steps it
//! may stop, add or ask anything. Nothing here waits but [`Host::step`].

use ir_engine::run::{Engine, Event, Sampling, SeqId, Usage};
use ir_engine::text::constrain::Vocabulary;
use ir_engine::{Device, Error, Result};
use serde_json::{Value, json};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::clock;
use crate::constraint::{PageRules, constraint};
use crate::error::throw;
use crate::wire::{self, Answers, Generate};

/// A model that runs.
#[wasm_bindgen]
pub struct Host {
    engine: Engine,
    answers: Answers,
    file_bytes: u64,
    load_seconds: f64,
    /// Tokens and seconds of prompts, then of answers, of all sequences that ended.
    prompt: (usize, f64),
    generation: (usize, f64),
}

impl Host {
    pub(crate) fn new(engine: Engine, file_bytes: u64, load_seconds: f64) -> Host {
        let none = (0, 0.0);
        Host { engine, answers: Answers::default(), file_bytes, load_seconds, prompt: none, generation: none }
    }

    fn start(&mut self, request: &str, rules: Option<PageRules>) -> Result<u64> {
        // Taken up first, so that they are given back where the request is refused.
        let constraint = rules.map(constraint);
        let generate: Generate = wire::read(request)?;
        let (turn, request) = generate.into_request(self.engine.model(), constraint)?;
        let seq = self.engine.add(request, clock::seconds())?;
        self.answers.insert(seq, turn.reader());
        Ok(seq.0)
    }

    fn report(&mut self, events: Vec<Event>) -> Result<String> {
        for event in &events {
            if let Event::Done { usage, .. } = event {
                self.count(usage);
            }
        }
        let all: Vec<Value> = events.iter().map(|e| self.answers.event(e)).collect();
        wire::write(&all)
    }

    fn count(&mut self, usage: &Usage) {
        let computed = usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens);
        self.prompt = (self.prompt.0 + computed, self.prompt.1 + usage.prompt);
        // The first token comes with the prompt.
        let more = usage.completion_tokens.saturating_sub(1);
        self.generation = (self.generation.0 + more, self.generation.1 + usage.generation);
    }

    fn describe(&self) -> Value {
        let model = self.engine.model();
        let meta = model.meta();
        let text = |key: &str| meta.opt_str(key).ok().flatten().map(str::to_owned);
        let spec = model.spec();
        let (kind, forms) = match self.engine.device() {
            Device::Cpu(_) => ("cpu", None),
            Device::Gpu(gpu) => ("gpu", Some(gpu.forms().to_string())),
            #[cfg(not(target_arch = "wasm32"))]
            Device::Split(_) => ("split", None),
        };
        json!({
            "name": text("general.name"),
            "architecture": text("general.architecture"),
            "sizeLabel": text("general.size_label"),
            "license": text("general.license"),
            "fileBytes": self.file_bytes,
            "modelContextLength": spec.n_context,
            "contextLength": self.engine.context(),
            "vocabulary": model.plan().n_vocab(),
            "layers": spec.layers.len(),
            "device": { "kind": kind, "name": self.engine.device().name(), "forms": forms, "build": crate::build() },
            "canChat": model.template().is_some(),
            "canSwitchThinking": model.template().is_some_and(|t| t.can_switch_thinking()),
            "supportsSystem": model.template().is_some_and(|t| t.supports_system()),
            "sampling": self.recommended(),
        })
    }

    /// What the file recommends, or the defaults.
    fn recommended(&self) -> Value {
        let s = Sampling::from_meta(self.engine.model().meta());
        let window = if s.repeat_last_n == usize::MAX { -1.0 } else { s.repeat_last_n as f64 };
        json!({
            "temperature": s.temperature, "topK": s.top_k, "topP": s.top_p, "minP": s.min_p, "typicalP": s.typical_p,
            "repeatPenalty": s.repeat_penalty, "presencePenalty": s.presence_penalty,
            "frequencyPenalty": s.frequency_penalty, "repeatLastN": window,
        })
    }
}

#[wasm_bindgen]
impl Host {
    /// Queues a request, [`Generate`] as JSON; gives the number that its events carry. `rules`: what its answer is held
    /// to, behind the reasoning where there is some.
    ///
    /// # Errors
    /// Values out of range, a template that refuses the messages, a prompt that is too long for the context.
    pub fn add(&mut self, request: &str, rules: Option<PageRules>) -> std::result::Result<f64, JsValue> {
        self.start(request, rules).map(|seq| seq as f64).map_err(throw)
    }

    /// What the other module needs to know of the model: [`Vocabulary::to_bytes`].
    pub fn vocabulary(&self) -> Vec<u8> {
        Vocabulary::of(self.engine.model().tokenizer()).to_bytes()
    }

    /// Ends a sequence. Its last event comes with the next step.
    pub fn cancel(&mut self, seq: f64) -> bool {
        self.engine.cancel(SeqId(seq as u64), clock::seconds())
    }

    /// Nothing is left to compute or to report.
    pub fn is_idle(&self) -> bool {
        self.engine.is_idle()
    }

    /// One step: events as a JSON array.
    ///
    /// # Errors
    /// Where the device failed; code `lost` where it is gone and the model must be loaded again.
    pub async fn step(&mut self) -> std::result::Result<String, JsValue> {
        let events = self.engine.step(&clock::seconds).await.map_err(throw)?;
        self.report(events).map_err(throw)
    }

    /// A text's token ids. `add_special` puts the model's own tokens around it; `parse_special` reads control tokens in it.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        self.engine.model().tokenizer().encode(text, add_special, parse_special)
    }

    /// The text of token ids; control tokens are written out where `special`.
    ///
    /// # Errors
    /// An id beyond the vocabulary.
    pub fn detokenize(&self, ids: &[u32], special: bool) -> std::result::Result<String, JsValue> {
        let tokenizer = self.engine.model().tokenizer();
        match ids.iter().find(|id| **id >= tokenizer.n_vocab()) {
            Some(id) => {
                let n = tokenizer.n_vocab();
                Err(throw(Error::request(format!("there is no token {id}: the vocabulary has {n}, counted from 0"))))
            }
            None => Ok(tokenizer.decode(ids, special)),
        }
    }

    /// What the model is and where it runs, as JSON.
    ///
    /// # Errors
    /// Never in practice.
    pub fn info(&self) -> std::result::Result<String, JsValue> {
        wire::write(&self.describe()).map_err(throw)
    }

    /// Rates and memory so far, as JSON.
    ///
    /// # Errors
    /// Never in practice.
    pub fn stats(&self) -> std::result::Result<String, JsValue> {
        let counts = self.engine.stats();
        let rate = |(n, seconds): (usize, f64)| (seconds > 0.0).then(|| n as f64 / seconds);
        let memory = memory_bytes();
        wire::write(&json!({
            "loadSeconds": self.load_seconds,
            "loadBytesPerSecond": rate((self.file_bytes as usize, self.load_seconds)),
            "promptTokens": self.prompt.0,
            "promptTokensPerSecond": rate(self.prompt),
            "generatedTokens": self.generation.0,
            "generatedTokensPerSecond": rate(self.generation),
            "memoryBytes": memory,
            "cachePages": counts.pages,
            "freeCachePages": counts.free_pages,
            "waiting": counts.waiting,
            "running": counts.running,
        }))
        .map_err(throw)
    }
}

/// Bytes of the module's memory.
fn memory_bytes() -> f64 {
    #[cfg(target_arch = "wasm32")]
    return core::arch::wasm32::memory_size::<0>() as f64 * 65536.0;
    #[cfg(not(target_arch = "wasm32"))]
    0.0
}
