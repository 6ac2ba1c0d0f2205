//! [`Talk`]: a model loaded for answering, and the streaming of its answers to standard output. What one question and a
//! chat have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ir_engine::error::Error;
use ir_engine::plan::CacheLayout;
use ir_engine::run::{Engine, EngineOptions, FinishReason, Part, Sampling, Session, Usage, wait};
use ir_engine::text::chat::{Message, Now};
use ir_store::{Place, Recipe};

use crate::args::{Number, RunArgs, SamplingArgs, Think};
use crate::compute;
use crate::failure::{Failure, Result};
use crate::fit;
use crate::grammar;
use crate::info::{Summary, grouped, human_bytes, human_count};
use crate::memory;
use crate::models::Opening;
use crate::recipe;
use crate::term::{self, Out, Style};

/// Memory that the cache may take where no context is asked for.
const KV_BUDGET: u64 = 2 << 30;

/// A loaded model and its conversation.
pub(crate) struct Talk {
    pub(crate) session: Session,
    pub(crate) out: Out,
    /// What to do with reasoning; `None` leaves it to the model and shows it.
    pub(crate) think: Option<Think>,
    /// Whether a seed was given; otherwise every answer gets a new one.
    pub(crate) fixed_seed: bool,
    /// Whether text is continued without a template.
    pub(crate) raw: bool,
    /// The system prompt.
    pub(crate) system: Option<String>,
    verbose: bool,
    load: Duration,
    about: String,
}

impl Talk {
    /// Opens the model and prepares it on the device.
    pub(crate) fn new(place: &Place, args: &RunArgs) -> Result<Talk> {
        let started = Instant::now();
        let model = Arc::new(place.open(&args.file, &args.lora)?);
        let compute::Chosen { device, why } = compute::choose(&args.device, args.threads.threads)?;
        term::notice(why.as_deref());
        if !args.any_size {
            fit::check(&model, &device, compute::kv_kind(args.device.kv_type))?;
        }
        let recipe = place.recipe()?;
        let options = engine_options(args, &recipe, &model);
        let engine = Engine::new(Arc::clone(&model), &device, &options).map_err(|e| place.failure(&e))?;
        let (summary, context) = (Summary::new(model.file()), engine.context());
        let load = started.elapsed();
        let mut session = Session::new(engine, Box::new(move || started.elapsed().as_secs_f64()));
        recipe::set(&recipe, &mut session.options);
        set_sampling(&mut session.options.sampling, &args.sampling);
        session.options.sampling.check(model.plan().n_vocab()).map_err(|e| Failure::usage(e.to_string()))?;
        session.options.max_tokens = args.n.map_or(session.options.max_tokens, Number::count);
        session.options.constraint = grammar::constraint(&args.grammar, model.tokenizer())?;
        let raw = args.raw || !session.can_chat();
        if raw && args.system.is_some() {
            let why = if args.raw { "--raw continues the prompt as it is" } else { "this model has no chat template" };
            return Err(Failure::usage(format!("{why}, and so there is no place for --system: leave it out")));
        }
        if !raw {
            recipe::examples(&recipe, &mut session, args.system.as_deref());
        } else if !args.raw && recipe.has_texts() {
            term::remark(recipe::NO_TEMPLATE);
        }
        let (name, parameters, bytes) = (place.name(), human_count(summary.parameters), human_bytes(summary.bytes));
        let kind = &summary.type_name;
        let about = format!(
            "model:     {name}, {parameters} parameters, {bytes}, {kind}\n\
             device:    {}\n\
             context:   {context} tokens, cache {} bytes per token",
            session.engine().placement(),
            grouped(CacheLayout::of(model.plan(), options.kv).bytes_per_token())
        );
        if args.ctx.is_some_and(|n| n as usize > model.spec().n_context) {
            let own = model.spec().n_context;
            term::remark(&format!("This model was made for {own} tokens of context; beyond that it may ramble."));
        }
        let mut talk = Talk {
            session,
            out: Out::new(),
            think: None,
            fixed_seed: args.sampling.seed.map_or(recipe.seed(), |seed| seed.0).is_some(),
            raw,
            system: args.system.clone().or_else(|| recipe.system.clone().filter(|_| !raw)),
            verbose: args.verbose,
            load,
            about,
        };
        if let Some(think) = args.think {
            talk.set_think(think);
        }
        Ok(talk)
    }

    /// Whether a template lays the conversation out.
    pub(crate) fn can_chat(&self) -> bool {
        !self.raw
    }

    /// Chooses what to do with reasoning. Where the model cannot follow, says so and leaves it as it is.
    pub(crate) fn set_think(&mut self, think: Think) {
        let template = self.session.engine().model().template().filter(|_| !self.raw);
        let (switch, thinks) = template.map_or((false, false), |t| (t.can_switch_thinking(), t.thinks()));
        if template.is_none() {
            return term::remark("The prompt is continued without a template, so there is no reasoning to choose.");
        }
        match think {
            Think::Hide if !switch && !thinks => {
                return term::remark("This model's template knows no reasoning: there is nothing to hide.");
            }
            Think::On | Think::Off if !switch => {
                return term::remark("This model's template has no switch for reasoning: it stays as it is.");
            }
            _ => {}
        }
        self.think = Some(think);
        self.session.options.think = Some(think != Think::Off);
    }

    /// Asks, and streams the answer to standard output. On Ctrl-C (counted by `stop`) the answer ends where it is.
    pub(crate) fn ask(&mut self, text: &str, stop: &AtomicUsize) -> Result {
        if !self.fixed_seed {
            self.session.options.sampling.seed = random_seed();
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.session.options.now = Now { unix_seconds: unix as i64, utc_offset: 0 };
        if self.raw {
            let before = self.session.tokens().len();
            self.session.extend(text);
            if let Err(error) = self.session.start() {
                let failure = self.refused(error, before > 0);
                self.session.truncate(before);
                return Err(failure);
            }
        } else {
            self.say(text);
            if let Err(error) = self.session.start() {
                let later = self.session.messages().iter().any(|m| m.role == "assistant");
                let failure = self.refused(error, later);
                self.session.unsay();
                return Err(failure);
            }
        }
        let streamed = self.stream(stop);
        if streamed.is_err() {
            self.session.stop();
        }
        streamed?;
        self.report();
        Ok(())
    }

    /// Why no answer can begin, in words of the command. `later`: the conversation has answers already.
    fn refused(&self, error: Error, later: bool) -> Failure {
        let (n, context) = (self.session.tokens().len(), self.session.engine().context());
        match error {
            Error::Limit(_) if later && n >= context => Failure::run(format!(
                "the conversation ({n} tokens) no longer fits the context of {context}: \
                 /reset begins anew, or start with a larger --ctx"
            )),
            Error::Template(_) => Failure::run(format!("{error} (--raw continues the prompt without the template)")),
            error => error.into(),
        }
    }

    /// Adds the user's message, and the system prompt before the first one: as its own message, or within the user's
    /// where the template has no place for it.
    fn say(&mut self, text: &str) {
        let system = self.system.as_deref().filter(|s| !s.is_empty() && self.session.messages().is_empty());
        let template = self.session.engine().model().template();
        match system {
            Some(system) if template.is_some_and(|t| t.supports_system()) => {
                self.session.say(Message::new("system", system));
                self.session.say(Message::new("user", text));
            }
            Some(system) => self.session.say(Message::new("user", format!("{system}\n\n{text}"))),
            None => self.session.say(Message::new("user", text)),
        }
    }

    fn stream(&mut self, stop: &AtomicUsize) -> Result {
        let (mut thinking, mut ends_line) = (false, true);
        while let Some(parts) = wait(self.session.next())? {
            for part in parts {
                match part {
                    Part::Thinking(_) if self.think == Some(Think::Hide) => {}
                    Part::Thinking(text) => {
                        if !thinking {
                            self.out.styled(Style::Dim, "Thinking...\n")?;
                            thinking = true;
                        }
                        self.out.styled(Style::Dim, &text)?;
                        ends_line = text.ends_with('\n');
                    }
                    Part::Text(text) => self.say_more(&text, &mut thinking, &mut ends_line)?,
                    Part::CallEnd { call, .. } => {
                        let text = format!("{}({})\n", call.name, call.arguments);
                        self.say_more(&text, &mut thinking, &mut ends_line)?;
                    }
                    Part::CallStart { .. } | Part::CallArguments { .. } | Part::CallBroken { .. } => {}
                }
            }
            if stop.load(Ordering::Relaxed) > 0 {
                self.session.stop();
                break;
            }
        }
        if ends_line { Ok(()) } else { self.out.text("\n") }
    }

    /// Writes text of the answer, which ends the reasoning in front of it.
    fn say_more(&mut self, text: &str, thinking: &mut bool, ends_line: &mut bool) -> Result {
        if std::mem::take(thinking) {
            let done = if *ends_line { "...done thinking.\n" } else { "\n...done thinking.\n" };
            self.out.styled(Style::Dim, done)?;
            self.out.text("\n")?;
        }
        self.out.text(text)?;
        *ends_line = text.ends_with('\n');
        Ok(())
    }

    /// Says why an answer was cut short, and the counts where they are wanted.
    fn report(&self) {
        let Some((reason, usage)) = self.session.usage() else { return };
        let cut = *reason == FinishReason::Length
            && self.session.options.max_tokens.is_none_or(|n| usage.completion_tokens < n);
        if cut {
            let context = self.session.engine().context();
            term::remark(&format!(
                "The context of {context} tokens is full, and the answer ends here: --ctx asks for a longer one."
            ));
        }
        if self.verbose {
            term::remark(&format!("\n{}\n{}", self.about, counts(*reason, usage, self.load)));
        }
    }
}

/// The counts, times and rates of an answer.
fn counts(reason: FinishReason, usage: &Usage, load: Duration) -> String {
    let rate =
        |n: usize, seconds: f64| if seconds > 0.0 { format!("{:.2} tokens/s", n as f64 / seconds) } else { "-".into() };
    let computed = usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens);
    // The first token comes with the prompt's last row.
    let followed = usage.completion_tokens.saturating_sub(1);
    let memory = match (memory::peak(), memory::mapped()) {
        (Some(peak), Some(mapped)) => {
            format!("{} at most, {} of it mapped files", human_bytes(peak), human_bytes(mapped))
        }
        (Some(peak), None) => format!("{} at most", human_bytes(peak)),
        _ => "not known on this system".into(),
    };
    format!(
        "load:      {:.1} ms\n\
         prompt:    {} ({} from cache) in {:.3} s, {}\n\
         generated: {} in {:.3} s, {}, ended by {}\n\
         memory:    {memory}",
        load.as_secs_f64() * 1e3,
        term::counted(usage.prompt_tokens, "token"),
        usage.cached_tokens,
        usage.prompt,
        rate(computed, usage.prompt),
        term::counted(usage.completion_tokens, "token"),
        usage.generation,
        rate(followed, usage.generation),
        reason.name(),
    )
}

fn engine_options(args: &RunArgs, recipe: &Recipe, model: &ir_engine::model::Model) -> EngineOptions {
    let kv = compute::kv_kind(args.device.kv_type);
    let context = args.ctx.map(|n| n as usize).or_else(|| recipe.context());
    // A context that is asked for is granted; the system gives the memory when it is used.
    let options = EngineOptions { context, kv, max_sequences: 1, ..EngineOptions::default() };
    let layout = CacheLayout::of(model.plan(), kv);
    let wanted = context.map_or(0, |n| layout.sequence_bytes(n, options.chunk).saturating_add(4 * layout.state_bytes));
    EngineOptions { kv_budget: KV_BUDGET.max(wanted), ..options }
}

/// Puts the flags that are given in place of the file's recommendations.
fn set_sampling(sampling: &mut Sampling, args: &SamplingArgs) {
    sampling.temperature = args.temp.unwrap_or(sampling.temperature);
    sampling.top_k = args.top_k.map_or(sampling.top_k, |k| k.count().unwrap_or(0));
    sampling.top_p = args.top_p.unwrap_or(sampling.top_p);
    sampling.min_p = args.min_p.unwrap_or(sampling.min_p);
    sampling.repeat_penalty = args.repeat_penalty.unwrap_or(sampling.repeat_penalty);
    sampling.seed = args.seed.and_then(|seed| seed.0).unwrap_or(sampling.seed);
}

/// A number that nobody could guess: the standard library keys its hash tables with the system's randomness.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
