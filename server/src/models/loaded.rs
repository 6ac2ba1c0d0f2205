//! [`Loaded`]: a model that an engine runs, as the handlers see it; [`Lease`]: the promise that it stays.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use ir_engine::meta::{Array, Meta};
use ir_engine::model::{Model, Pooling};
use ir_engine::run::Stats;
use ir_engine::text::chat::ChatTemplate;
use ir_engine::text::constrain::{Constrainer, Vocabulary};
use ir_engine::text::tools::ToolFormat;

use crate::engine::mailbox::lock;
use crate::engine::worker::Shared;
use crate::error::ApiError;
use crate::generate::hub::Inner;
use crate::generate::job::{Capabilities, KeepAlive};
use crate::generate::prompt;
use crate::models::registry::Place;

/// A loaded model.
#[derive(Debug)]
pub struct Loaded {
    /// The name it is listed by.
    pub name: String,
    /// Where it comes from.
    pub place: Place,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Tokens of a sequence at most.
    pub context: usize,
    /// The device it runs on, for people.
    pub device: String,
    /// Bytes of its file and of the cache at its largest.
    pub size: u64,
    /// Whether it lies in a GPU's memory.
    pub on_gpu: bool,
    pub(crate) id: u64,
    /// The device as it was asked for: by a client, or by the server's settings.
    pub(crate) asked_device: String,
    pub(crate) model: Arc<Model>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) life: Mutex<Life>,
    /// Made when a grammar is first asked for.
    pub(crate) constrainer: OnceLock<Result<Constrainer, ApiError>>,
}

/// Who uses a model and how long it stays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) users: usize,
    pub(crate) last_used: Instant,
    /// It is to be unloaded as soon as nobody uses it.
    pub(crate) leaving: bool,
    /// When it is unloaded if nobody uses it; `None`: when the memory is needed.
    pub(crate) expires: Option<Instant>,
}

impl Loaded {
    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Counts of its engine after the last step.
    pub fn stats(&self) -> Stats {
        *lock(&self.shared.stats)
    }

    /// When it is unloaded if nobody asks it; `None`: when the memory is needed.
    pub fn expires_at(&self) -> Option<SystemTime> {
        let expires = lock(&self.life).expires?;
        Some(SystemTime::now() + expires.saturating_duration_since(Instant::now()))
    }

    /// What compiles grammars for this model. The first call takes a fraction of a second: not for async threads.
    pub(crate) fn constrainer(&self) -> Result<&Constrainer, ApiError> {
        let make = || Constrainer::new(&Vocabulary::of(self.model.tokenizer())).map_err(ApiError::from);
        self.constrainer.get_or_init(make).as_ref().map_err(ApiError::clone)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Acquire)
    }
}

/// What the model of a file can do; its template compiled, and `id_of` a token by its text.
pub(crate) fn capabilities(
    meta: &Meta,
    template: Option<&ChatTemplate>,
    id_of: &dyn Fn(&str) -> Option<u32>,
) -> Capabilities {
    let format = || ToolFormat::of_meta(meta, &|text| id_of(text).is_some());
    // As Ollama has it: a file that says how to pool is of a model made to embed.
    let pooling = Pooling::from_meta(meta).unwrap_or_default();
    Capabilities {
        completion: pooling == Pooling::None,
        tools: template.is_some_and(ChatTemplate::supports_tools) && format().is_some(),
        thinking: template.is_some_and(ChatTemplate::thinks),
        insert: prompt::fill_tokens(meta, id_of).is_some(),
        embedding: !matches!(pooling, Pooling::None | Pooling::Rank),
    }
}

/// The same without a model: from its file's metadata alone.
pub(crate) fn capabilities_of_file(meta: &Meta) -> Capabilities {
    let tokens = meta.opt_array("tokenizer.ggml.tokens").ok().flatten();
    let texts = tokens.iter().flat_map(Array::iter).map(|t| t.as_str().unwrap_or(""));
    let ids: HashMap<&str, u32> = texts.zip(0..).collect();
    let id_of = |text: &str| ids.get(text).copied();
    let template = ChatTemplate::from_meta(meta, &|text| id_of(text).is_some()).ok().flatten();
    capabilities(meta, template.as_ref(), &id_of)
}

/// A loaded model that is not unloaded while this lives.
#[derive(Debug)]
pub struct Lease {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) hub: Arc<Inner>,
    pub(crate) keep_alive: KeepAlive,
    /// What loading took; zero where it was loaded.
    pub load: Duration,
}

impl Deref for Lease {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        &self.loaded
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now = Instant::now();
        {
            let mut life = lock(&self.loaded.life);
            life.users -= 1;
            life.last_used = now;
            life.expires = match self.keep_alive {
                _ if life.leaving => Some(now),
                // So far in the future that no clock holds it: for ever.
                KeepAlive::For(time) => now.checked_add(time),
                KeepAlive::Forever => None,
            };
        }
        self.hub.changed.notify_waiters();
        self.hub.sweep.notify_one();
    }
}
