//! [`Steps`]: the engine without its device. Requests in, a step's `Inputs` out; that step's logits in, events out.
//! Plain functions over plain data, so tests drive them with invented logits.

mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use super::embed::Embedding;
use super::held::Held;
use super::request::{EmbedRequest, Event, FinishReason, RankRequest, Request, SeqId, Usage};
use super::sampler::Sampler;
use super::scheduler::{Limits, Part, Room, Scheduler, UsedAdapters};
use super::text::TextStream;
use super::vocabulary::{Vocabulary, describe};
use crate::device::{Output, Picked};
use crate::error::{Error, Result};
use crate::model::{Pooling, Ranking};
use crate::plan::{Inputs, Want};
use stream::{Row, Stream};

/// Scheduler and streams, one owner, one step at a time.
pub(crate) struct Steps {
    scheduler: Scheduler,
    vocabulary: Arc<dyn Vocabulary>,
    streams: HashMap<SeqId, Stream>,
    embeddings: HashMap<SeqId, Embedding>,
    next_id: u64,
    inputs: Inputs,
    /// Whether the device is asked for picks instead of logits.
    device_picks: bool,
    /// Steps in a row that the device computes without the host, at most.
    longest_chain: usize,
    /// The step that is under way.
    parts: Vec<Part>,
    /// Events of sequences that ended between steps.
    events: Vec<Event>,
    piece: Vec<u8>,
}

impl Steps {
    pub(crate) fn new(vocabulary: Arc<dyn Vocabulary>, limits: Limits, room: &Room) -> Self {
        Self {
            scheduler: Scheduler::new(limits, room),
            vocabulary,
            streams: HashMap::new(),
            embeddings: HashMap::new(),
            next_id: 0,
            inputs: Inputs::default(),
            device_picks: false,
            longest_chain: 1,
            parts: Vec::new(),
            events: Vec::new(),
            piece: Vec::new(),
        }
    }

    /// Asks the device for picks from here on, where less than logits will do.
    pub(crate) fn let_device_pick(&mut self) {
        self.device_picks = true;
    }

    /// Keeps steps from here on to so many rows: see [`Scheduler::set_brisk_rows`].
    pub(crate) fn set_brisk_rows(&mut self, rows: usize) {
        self.scheduler.set_brisk_rows(rows);
    }

    /// Lets so many steps follow one another without the host where they can, the first included.
    pub(crate) fn set_chain(&mut self, longest: usize) {
        self.longest_chain = longest.max(1);
    }

    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    pub(crate) fn scheduler_mut(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// Queues a request; an encoder reads the first `n_source` tokens of its prompt.
    ///
    /// # Errors
    /// Values out of range, or a prompt that does not fit the context.
    pub(crate) fn add(&mut self, request: Request, n_source: usize, used: UsedAdapters, now: f64) -> Result<SeqId> {
        request.check(self.vocabulary.n_vocab())?;
        let id = SeqId(self.next_id);
        let n_prompt = request.prompt.len();
        self.scheduler.add(id, request.prompt, n_source, request.marks, used)?;
        self.next_id += 1;
        let room = self.scheduler.limits().context - n_prompt;
        let stream = Stream {
            sampler: Sampler::new(request.sampling),
            text: TextStream::new(request.stop),
            remaining: request.max_tokens.map_or(room, |n| n.min(room)),
            ignore_eos: request.ignore_eos,
            show_special: request.show_special,
            show: request.show,
            n_logprobs: request.logprobs,
            held: request
                .constraint
                .map(|c| Held::new(c, request.constrain_after, request.constrain_opener, request.constrain_again)),
            usage: Usage { prompt_tokens: n_prompt, ..Usage::default() },
            added: now,
            started: None,
            first: None,
        };
        self.streams.insert(id, stream);
        Ok(id)
    }

    /// Queues a text to embed, `width` numbers wide before it is cut.
    ///
    /// # Errors
    /// Values out of range, or a text that does not fit the context.
    pub(crate) fn embed(
        &mut self,
        request: EmbedRequest,
        pooling: Pooling,
        width: usize,
        used: UsedAdapters,
        now: f64,
    ) -> Result<SeqId> {
        request.check(self.vocabulary.n_vocab(), width)?;
        let (id, embedding) = (SeqId(self.next_id), Embedding::new(&request, now));
        self.scheduler.add_pooled(id, request.prompt, None, pooling, used)?;
        self.next_id += 1;
        self.embeddings.insert(id, embedding);
        Ok(id)
    }

    /// Queues a pair of texts to score.
    ///
    /// # Errors
    /// Token ids out of range, or a pair that does not fit the context.
    pub(crate) fn rank(&mut self, pair: RankRequest, ranking: Ranking, used: UsedAdapters, now: f64) -> Result<SeqId> {
        pair.check(self.vocabulary.n_vocab())?;
        let (id, embedding) = (SeqId(self.next_id), Embedding::ranked(&pair, ranking, now));
        self.scheduler.add_pooled(id, pair.prompt, pair.second, ranking.rows, used)?;
        self.next_id += 1;
        self.embeddings.insert(id, embedding);
        Ok(id)
    }

    /// Ends a sequence; its `Done` comes with the next events. Says whether it was there.
    pub(crate) fn cancel(&mut self, id: SeqId, now: f64) -> bool {
        if let Some(embedding) = self.embeddings.remove(&id) {
            let usage = embedding.usage(self.scheduler.n_cached(id), now);
            self.scheduler.remove(id);
            self.events.push(Event::Done { seq: id, reason: FinishReason::Cancelled, usage });
            return true;
        }
        let there = self.streams.contains_key(&id);
        if there {
            self.end(id, FinishReason::Cancelled, now);
        }
        there
    }

    /// No sequence is left and no event waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.embeddings.is_empty() && self.events.is_empty()
    }

    /// Schedules a step; `None` when no sequence needs one. A step that was never finished is scheduled again.
    pub(crate) fn begin(&mut self, now: f64) -> Option<&Inputs> {
        self.parts = self.scheduler.schedule(&mut self.inputs);
        for part in &self.parts {
            if let Some(stream) = self.streams.get_mut(&part.id) {
                stream.started.get_or_insert(now);
            }
            if let Some(embedding) = self.embeddings.get_mut(&part.id) {
                embedding.start(now);
            }
        }
        if self.device_picks {
            self.want();
            self.chain();
        }
        (!self.parts.is_empty()).then_some(&self.inputs)
    }

    /// Says what each output is wanted for: less than its logits where its sampler can do with less.
    fn want(&mut self) {
        let Inputs { wants, changes, outputs, .. } = &mut self.inputs;
        wants.clear();
        changes.clear();
        wants.resize(outputs.len(), Want::Logits);
        for part in &self.parts {
            let (Some(row), Some(stream)) = (part.output, self.streams.get_mut(&part.id)) else { continue };
            let Some(tokens) = self.scheduler.tokens(part.id).filter(|_| !stream.needs_row()) else { continue };
            wants[row] = stream.sampler.want(tokens, row as u32, changes);
        }
    }

    /// Makes a chain of the step where nothing needs the host between it and those that follow.
    fn chain(&mut self) {
        let mut most = self.longest_chain;
        for part in &self.parts {
            let (Some(stream), Some(tokens)) = (self.streams.get(&part.id), self.scheduler.tokens(part.id)) else {
                return;
            };
            most = most.min(stream.remaining);
            if stream.held.is_some() || stream.needs_row() || stream.sampler.want_blind(tokens.len()).is_none() {
                return;
            }
        }
        if most > 1 {
            most = self.scheduler.reserve(&self.parts, most, &mut self.inputs);
        }
        for ahead in 1..most {
            let want = |part: &Part| {
                let tokens = self.scheduler.tokens(part.id)?;
                self.streams.get(&part.id)?.sampler.want_blind(tokens.len() + ahead)
            };
            // Every row is an output, in the order of the parts.
            let wants = self.parts.iter().filter_map(want).collect();
            self.inputs.next.push(wants);
        }
    }

    /// Takes the step's logits (`[n_outputs, n_vocab]`), or what the device picked, and the means of rows (`[n_pools,
    /// width]`); chooses tokens and says what happened. An error leaves the step undone, to be scheduled again.
    pub(crate) fn finish(&mut self, output: &Output, now: f64) -> Result<Vec<Event>> {
        let Output { logits, picked, later, pooled, .. } = output;
        let parts = std::mem::take(&mut self.parts);
        let n_vocab = self.vocabulary.n_vocab();
        let n_outputs = parts.iter().filter(|p| p.output.is_some()).count();
        let all_picked = picked.len() == n_outputs && picked.iter().all(Option::is_some);
        if logits.len() != n_outputs * n_vocab && !(all_picked && logits.is_empty()) {
            return Err(Error::Shape(format!("a step gave {} logits, not {n_outputs} x {n_vocab}", logits.len())));
        }
        let n_pools = self.inputs.pools.len();
        if pooled.len().checked_rem(n_pools).unwrap_or(pooled.len()) != 0 || (n_pools > 0 && pooled.is_empty()) {
            return Err(Error::Shape(format!("a step gave {} values for {n_pools} embeddings", pooled.len())));
        }
        if later.len() != self.inputs.next.len() || later.iter().any(|picked| picked.len() != n_outputs) {
            return Err(Error::Shape(format!("a chain gave {} steps, not {}", later.len(), self.inputs.next.len())));
        }
        self.scheduler.commit(&parts);
        self.pool(&parts, pooled, now);
        self.choose(&parts, picked, logits, now);
        for picked in later {
            // Those that have ended are passed over, and what was computed for them is dropped.
            self.scheduler.commit(&parts);
            self.choose(&parts, picked, &[], now);
        }
        Ok(self.take_events())
    }

    /// Chooses the tokens of a step's sequences.
    fn choose(&mut self, parts: &[Part], picked: &[Option<Picked>], logits: &[f32], now: f64) {
        let n_vocab = self.vocabulary.n_vocab();
        for part in parts {
            let Some(row) = part.output else { continue };
            match picked.get(row).and_then(Option::as_ref) {
                Some(picked) => self.advance(part.id, Row::Picked(picked), now),
                None => self.advance(part.id, Row::Logits(&logits[row * n_vocab..][..n_vocab]), now),
            }
        }
    }

    /// Adds the step's means of rows to their embeddings; ends those that are whole.
    fn pool(&mut self, parts: &[Part], pooled: &[f32], now: f64) {
        let width = pooled.len().checked_div(self.inputs.pools.len()).unwrap_or(0);
        for part in parts {
            let Some(embedding) = self.embeddings.get_mut(&part.id) else { continue };
            if let Some(index) = part.pool {
                embedding.add(part, &pooled[index * width..][..width], self.inputs.pools[index].rows);
            }
            if !part.whole {
                continue;
            }
            let Some(embedding) = self.embeddings.remove(&part.id) else { continue };
            let usage = embedding.usage(self.scheduler.n_cached(part.id), now);
            self.scheduler.remove(part.id);
            self.events.push(match embedding.finish() {
                Ok(values) => Event::Embedding { seq: part.id, values, usage },
                Err(error) => Event::Error { seq: part.id, error },
            });
        }
    }

    /// Forgets what the device held: every sequence is computed again from its tokens.
    pub(crate) fn forget(&mut self) {
        self.parts.clear();
        self.scheduler.forget();
    }

    /// Events that wait for no step.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether the step under way has one row of each sequence, behind which a token is chosen.
    pub(crate) fn decodes(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|part| part.rows == 1 && part.output.is_some())
    }

    /// The oldest sequence of the step under way; for tests.
    #[cfg(test)]
    pub(crate) fn first_part(&self) -> Option<SeqId> {
        self.parts.first().map(|p| p.id)
    }

    /// Chooses a sequence's next token from its row.
    fn advance(&mut self, id: SeqId, row: Row, now: f64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(tokens) = self.scheduler.tokens(id) else { return };
        stream.usage.cached_tokens = self.scheduler.n_cached(id);
        stream.first.get_or_insert(now);
        if stream.remaining == 0 {
            return self.end(id, FinishReason::Length, now);
        }
        let token = match stream.choose(row, tokens) {
            Ok(token) => token,
            Err(error) => return self.fail(id, error),
        };
        let ends = !stream.ignore_eos && self.vocabulary.is_end(token);
        let complete = match stream.hold(token, &*self.vocabulary, &mut self.piece) {
            Ok(complete) => complete,
            Err(error) => return self.fail(id, error),
        };
        stream.usage.completion_tokens += 1;
        stream.remaining -= 1;
        let logprobs = match (stream.n_logprobs, row) {
            (Some(n), Row::Logits(row)) => Some(Box::new(describe(&*self.vocabulary, row, token, n))),
            _ => None,
        };
        self.piece.clear();
        if !ends || stream.show_special {
            let special = stream.show_special || stream.show.contains(&token);
            self.vocabulary.piece(token, special, &mut self.piece);
        }
        let (mut text, stopped) = stream.text.push(&self.piece);
        let reason = match (stopped, ends || complete, stream.remaining) {
            (Some(_), ..) | (None, true, _) => Some(FinishReason::Stop(stopped)),
            (None, false, 0) => Some(FinishReason::Length),
            _ => None,
        };
        if reason.is_some() && stopped.is_none() {
            text.push_str(&stream.text.flush());
        }
        self.events.push(Event::Token { seq: id, id: token, text, logprobs });
        match reason {
            Some(reason) => self.end(id, reason, now),
            None => self.scheduler.push(id, token),
        }
    }

    fn end(&mut self, id: SeqId, reason: FinishReason, now: f64) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.scheduler.remove(id);
        let mut usage = stream.usage;
        let (started, first) = (stream.started.unwrap_or(now), stream.first.unwrap_or(now));
        usage.queued = started - stream.added;
        usage.prompt = first - started;
        usage.generation = now - first;
        self.events.push(Event::Done { seq: id, reason, usage });
    }

    fn fail(&mut self, id: SeqId, error: Error) {
        self.streams.remove(&id);
        self.scheduler.remove(id);
        self.events.push(Event::Error { seq: id, error });
    }
}
