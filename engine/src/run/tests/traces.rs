//! Random traces of the scheduler and the engine loop over the fake device.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Lcg;
use super::fake::{END, FakeDevice, Letters, N_VOCAB, WIDTH, hidden, logits, prefix_states};
use super::random::{random_groups, random_request, random_text};
use crate::device::Output;
use crate::model::Pooling;
use crate::plan::{Inputs, PAGE};
use crate::run::pages::PageKey;
use crate::run::scheduler::{Limits, PageCounts, Room, UsedAdapters};
use crate::run::steps::Steps;
use crate::run::vocabulary::Vocabulary;
use crate::run::{EmbedRequest, Event, FinishReason, Request, Sampler, SeqId, Usage};

/// What a request gives: tokens, text and reason.
type Answer = (Vec<u32>, String, Option<FinishReason>);

/// The same by the plain rule, one sequence on its own, no pages.
fn alone(request: &Request, scales: &[f32], context: usize, windows: &[Option<u32>]) -> Answer {
    let mut tokens = request.prompt.clone();
    let mut bytes = Vec::new();
    let mut sampler = Sampler::new(request.sampling.clone());
    let max = request.max_tokens.unwrap_or(usize::MAX);
    let done = |tokens: &[u32], bytes: &[u8], reason| {
        (tokens[request.prompt.len()..].to_vec(), String::from_utf8_lossy(bytes).into_owned(), Some(reason))
    };
    loop {
        if tokens.len() - request.prompt.len() >= max || tokens.len() >= context {
            return done(&tokens, &bytes, FinishReason::Length);
        }
        let token = sampler.sample(&logits(prefix_states(&tokens, scales, windows)), &tokens).unwrap();
        tokens.push(token);
        let ends = token == END && !request.ignore_eos;
        if !ends || request.show_special {
            Letters.piece(token, request.show_special, &mut bytes);
        }
        let stop = |s: &String| bytes.windows(s.len()).position(|w| w == s.as_bytes());
        let found = request.stop.iter().enumerate().filter_map(|(i, s)| Some((stop(s)?, i)));
        if let Some((at, i)) = found.min_by_key(|(at, i)| (*at, std::cmp::Reverse(request.stop[*i].len()))) {
            return done(&tokens, &bytes[..at], FinishReason::Stop(Some(i)));
        }
        if ends {
            return done(&tokens, &bytes, FinishReason::Stop(None));
        }
    }
}

/// A text's embedding by the plain rule: every row, then what is wanted of them.
fn embedding_alone(request: &EmbedRequest, scales: &[f32], windows: &[Option<u32>]) -> Vec<f32> {
    let rows: Vec<[f32; WIDTH]> =
        (1..=request.prompt.len()).map(|n| hidden(prefix_states(&request.prompt[..n], scales, windows))).collect();
    let pooled = match request.pooling.unwrap() {
        Pooling::Mean => &rows[..],
        Pooling::Cls => &rows[..1],
        _ => &rows[rows.len() - 1..],
    };
    let mean = |i: usize| pooled.iter().map(|row| f64::from(row[i])).sum::<f64>() / pooled.len() as f64;
    let mut values: Vec<f64> = (0..request.dimensions.unwrap_or(WIDTH)).map(mean).collect();
    let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    if request.normalize && length > 0.0 {
        values.iter_mut().for_each(|x| *x /= length);
    }
    values.iter().map(|x| *x as f32).collect()
}

/// Means of chunks in f32 against the mean in f64: rows are whole numbers up to 43, whose sums are exact, so a chunk's mean
/// is wrong by 2^-24 of that, 2.6e-6; normalising a vector shorter than 1 enlarges it.
const CHUNKS: f32 = 1e-5;

#[derive(Default)]
struct Totals {
    n_requests: usize,
    n_tokens: usize,
    n_preempted: u64,
    n_cached: usize,
    n_cancelled: usize,
    n_batched: usize,
    n_chained: usize,
    n_embedded: usize,
    n_chunked: usize,
    /// Prompt tokens that a recurrent model found.
    n_resumed: usize,
}

/// One random trace: limits, arrivals, cancellations, failed steps and a lost device, all from the seed.
struct Trace {
    rng: Lcg,
    steps: Steps,
    device: FakeDevice,
    limits: Limits,
    /// Rows of a step that the device asked for.
    brisk: usize,
    requests: BTreeMap<SeqId, Request>,
    texts: BTreeMap<SeqId, EmbedRequest>,
    answers: BTreeMap<SeqId, Answer>,
    /// Whether sequences use adapters, and how much of each they do.
    adapted: bool,
    scales: BTreeMap<SeqId, Arc<[f32]>>,
}

impl Trace {
    fn new(seed: u64) -> Self {
        let mut rng = Lcg(seed);
        let most = [4, 10, 40][rng.below(3)];
        let n_pages = 1 + rng.below(most);
        let limits = Limits {
            rows: 1 + rng.below(40),
            chunk: 1 + rng.below(40),
            seqs: 1 + rng.below(9),
            context: 2 + rng.below(200),
            reuse: rng.below(4) > 0,
            whole: false,
        };
        // A recurrent model has two slots for each running sequence, and some for snapshots.
        let n_states = if rng.below(2) == 0 { 0 } else { 2 * limits.seqs + rng.below(5) };
        let room = Room { groups: random_groups(&mut rng, n_pages), n_states };
        let mut steps = Steps::new(Arc::new(Letters), limits, &room);
        if rng.below(2) == 0 {
            steps.let_device_pick();
        }
        let limits = *steps.scheduler().limits();
        Self {
            rng,
            steps,
            device: FakeDevice::new(&room),
            limits,
            brisk: usize::MAX,
            requests: BTreeMap::new(),
            texts: BTreeMap::new(),
            answers: BTreeMap::new(),
            adapted: seed.is_multiple_of(4),
            scales: BTreeMap::new(),
        }
    }

    /// None of two adapters, one of them, or both.
    fn used(&mut self) -> UsedAdapters {
        let which = if self.adapted { self.rng.below(4) } else { 0 };
        let scales: &[f32] = [&[][..], &[1.0, 0.0], &[0.0, 1.0], &[0.5, 0.5]][which];
        UsedAdapters { scales: scales.into(), root: PageKey(which as u128) }
    }

    fn add(&mut self) {
        let used = self.used();
        if self.rng.below(4) == 0 {
            let text = random_text(&mut self.rng, self.limits.context);
            let id = self.steps.embed(text.clone(), text.pooling.unwrap(), WIDTH, used.clone(), 0.0).unwrap();
            self.scales.insert(id, used.scales);
            self.texts.insert(id, text);
            self.answers.insert(id, Answer::default());
            return;
        }
        let request = random_request(&mut self.rng, self.limits.context);
        let id = self.steps.add(request.clone(), 0, used.clone(), 0.0).unwrap();
        self.scales.insert(id, used.scales);
        self.requests.insert(id, request);
        self.answers.insert(id, Answer::default());
    }

    fn unfinished(&self) -> impl Iterator<Item = SeqId> {
        self.answers.iter().filter(|a| a.1.2.is_none()).map(|a| *a.0)
    }

    fn check_step(&self, inputs: &Inputs) {
        let Limits { rows, chunk, seqs, context, .. } = self.limits;
        let n_pages = |group: usize| self.device.places[group].len() / PAGE;
        inputs.check(N_VOCAB, n_pages(0)).unwrap();
        for (tables, group) in inputs.window_tables.iter().zip(1..) {
            let alone = Inputs { tables: tables.clone(), window_tables: Vec::new(), ..inputs.clone() };
            alone.check(N_VOCAB, n_pages(group)).unwrap();
        }
        inputs.check_windows(self.device.windows.len(), usize::MAX).unwrap();
        inputs.check_adapters(2).unwrap();
        assert!(self.adapted || inputs.adapters.is_empty());
        let rows = rows.min(self.brisk.max(seqs));
        assert!(
            inputs.n_rows() <= rows && inputs.tables.len() <= seqs && inputs.outputs.len() + inputs.pools.len() <= seqs
        );
        assert!(inputs.outputs.is_sorted() && (inputs.last_position() as usize) < context);
        for seq in 0..inputs.tables.len() as u32 {
            let mine: Vec<u32> =
                (0..inputs.n_rows()).filter(|r| inputs.seqs[*r] == seq).map(|r| inputs.positions[r]).collect();
            assert!(!mine.is_empty() && mine.len() <= chunk, "a sequence has {} rows", mine.len());
            assert!(mine.windows(2).all(|w| w[1] == w[0] + 1), "positions are not contiguous");
        }
    }

    fn step(&mut self, totals: &mut Totals) {
        let oldest = self.unfinished().next();
        if self.rng.below(10) == 0 {
            self.brisk = 1 + self.rng.below(40);
            self.steps.set_brisk_rows(self.brisk);
        }
        self.steps.set_chain(1 + self.rng.below(8));
        let inputs = self.steps.begin(0.0).cloned();
        self.steps.scheduler().check();
        let Some(inputs) = inputs else {
            assert_eq!(oldest, None, "nothing is scheduled though a sequence waits");
            return;
        };
        self.check_step(&inputs);
        totals.n_batched += usize::from(inputs.tables.len() > 1);
        totals.n_chained += inputs.next.len();
        let first = inputs.tables.first().map(Vec::len);
        assert!(first.is_some() && self.steps.first_part() == oldest, "the oldest sequence does not advance");
        let events = match self.rng.below(40) {
            // The step failed.
            0 => Vec::new(),
            1 => {
                self.steps.forget();
                self.device.lose();
                Vec::new()
            }
            // It was computed and its results were lost.
            2 => {
                self.device.chain(&inputs);
                Vec::new()
            }
            _ => {
                let output = self.device.chain(&inputs);
                self.steps.finish(&output, 0.0).unwrap()
            }
        };
        self.steps.scheduler().check();
        self.take(events, totals);
    }

    fn take(&mut self, events: Vec<Event>, totals: &mut Totals) {
        for event in events {
            let answer = self.answers.get_mut(&event.seq()).unwrap();
            assert_eq!(answer.2, None, "an event after the end");
            match event {
                Event::Token { id, text, logprobs, seq } => {
                    answer.0.push(id);
                    answer.1.push_str(&text);
                    assert_eq!(logprobs.is_some(), self.requests[&seq].logprobs.is_some());
                }
                Event::Embedding { seq, values, usage } => {
                    answer.2 = Some(FinishReason::Stop(None));
                    let text = &self.texts[&seq];
                    let want = embedding_alone(text, &self.scales[&seq], &self.device.windows);
                    assert_eq!(values.len(), want.len());
                    let error = values.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    let size = want.iter().fold(1f32, |most, x| most.max(x.abs()));
                    assert!(error <= CHUNKS * size, "{text:?}: {values:?}, not {want:?}");
                    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (text.prompt.len(), 0));
                    let last = matches!(text.pooling, Some(Pooling::Last | Pooling::None));
                    assert!(usage.cached_tokens == 0 || last, "rows that count were not computed");
                    totals.n_embedded += 1;
                    totals.n_chunked += usize::from(text.prompt.len() > self.limits.chunk);
                    totals.n_cached += usage.cached_tokens;
                }
                Event::Done { reason, seq, .. } if self.texts.contains_key(&seq) => {
                    assert_eq!(reason, FinishReason::Cancelled);
                    answer.2 = Some(reason);
                }
                Event::Done { reason, usage, seq } => {
                    answer.2 = Some(reason);
                    let Usage { prompt_tokens, cached_tokens, completion_tokens, .. } = usage;
                    assert_eq!((prompt_tokens, completion_tokens), (self.requests[&seq].prompt.len(), answer.0.len()));
                    assert!(cached_tokens < prompt_tokens.max(1) && cached_tokens % PAGE == 0);
                    totals.n_cached += cached_tokens;
                    totals.n_resumed += if self.device.states.is_empty() { 0 } else { cached_tokens };
                }
                Event::Error { error, .. } => panic!("{error}"),
            }
        }
    }

    fn run(mut self, totals: &mut Totals) {
        let mut to_come = 1 + self.rng.below(14);
        while to_come > 0 || self.unfinished().next().is_some() {
            while to_come > 0 && self.rng.below(3) > 0 {
                self.add();
                to_come -= 1;
            }
            if self.rng.below(100) == 0 {
                let live: Vec<SeqId> = self.unfinished().collect();
                if let Some(id) = live.get(self.rng.below(live.len())) {
                    assert!(self.steps.cancel(*id, 0.0) && !self.steps.cancel(*id, 0.0));
                    let events = self.steps.take_events();
                    self.take(events, totals);
                }
            }
            self.step(totals);
        }
        assert!(self.steps.is_idle());
        for PageCounts { all, free, kept } in self.steps.scheduler().pages() {
            assert!(all == free && kept <= free, "pages leaked");
        }
        totals.n_preempted += self.steps.scheduler().n_preempted();
        for (id, (tokens, text, reason)) in self.answers.iter().filter(|a| self.requests.contains_key(a.0)) {
            let expected = alone(&self.requests[id], &self.scales[id], self.limits.context, &self.device.windows);
            totals.n_requests += 1;
            totals.n_tokens += tokens.len();
            if *reason == Some(FinishReason::Cancelled) {
                totals.n_cancelled += 1;
                assert!(expected.0.starts_with(tokens) && expected.1.starts_with(text.as_str()));
            } else {
                assert_eq!((tokens, text, reason), (&expected.0, &expected.1, &expected.2), "{:?}", self.requests[id]);
            }
        }
    }
}

/// Batch equals single, chunked equals whole, preempted equals undisturbed, reused equals fresh: every answer of every
/// trace is what the request gives alone, and every step keeps the scheduler's promises.
#[test]
fn every_answer_of_every_trace_is_what_the_request_gives_alone() {
    let mut totals = Totals::default();
    for seed in 0..8000 {
        Trace::new(seed).run(&mut totals);
    }
    let Totals {
        n_requests,
        n_tokens,
        n_preempted,
        n_cached,
        n_cancelled,
        n_batched,
        n_chained,
        n_embedded,
        n_chunked,
        n_resumed,
    } = totals;
    println!(
        "{n_requests} requests, {n_tokens} tokens, {n_preempted} preemptions, {n_cached} cached, {n_cancelled} cancelled, {n_batched} mixed steps, {n_chained} chained, \
         {n_embedded} embeddings, {n_chunked} of them in chunks, {n_resumed} tokens from snapshots"
    );
    assert!(n_chained > 10_000 && n_embedded > 6_000 && n_chunked > 3_000 && n_resumed > 3_000 && n_batched > 50_000);
    assert!(n_requests > 25_000 && n_preempted > 2_000 && n_cached > 20_000 && n_cancelled > 2_000);
}

/// Room of one group.
fn plain(n_pages: usize) -> Room {
    Room { groups: vec![(None, n_pages)], ..Room::default() }
}

#[test]
fn what_cannot_fit_is_refused_in_a_sentence() {
    let limits = Limits { rows: 8, chunk: 8, seqs: 2, context: 1000, reuse: true, whole: false };
    let mut steps = Steps::new(Arc::new(Letters), limits, &plain(2));
    let refused = |steps: &mut Steps, request: Request| {
        steps.add(request, 0, UsedAdapters::default(), 0.0).unwrap_err().to_string()
    };
    let prompt = |n: usize| Request { prompt: vec![5; n], ..Request::default() };
    assert!(refused(&mut steps, prompt(32)).contains("the prompt has 32 tokens and the context holds 32"));
    assert!(refused(&mut steps, prompt(0)).contains("empty"));
    assert!(refused(&mut steps, Request { prompt: vec![24], ..prompt(0) }).contains("token id 24"));
    assert!(refused(&mut steps, Request { stop: vec![String::new()], ..prompt(1) }).contains("stop"));
    assert!(refused(&mut steps, Request { logprobs: Some(1 << 40), ..prompt(1) }).contains("log-prob"));
    assert!(steps.is_idle() && steps.begin(0.0).is_none());
    assert!(steps.add(prompt(31), 0, UsedAdapters::default(), 0.0).is_ok());
    let embed =
        |steps: &mut Steps, text: EmbedRequest| steps.embed(text, Pooling::Mean, WIDTH, UsedAdapters::default(), 0.0);
    let text = |n: usize| EmbedRequest { prompt: vec![5; n], ..EmbedRequest::default() };
    let refused = |steps: &mut Steps, text: EmbedRequest| embed(steps, text).unwrap_err().to_string();
    assert!(refused(&mut steps, text(33)).contains("the text has 33 tokens and the context holds 32"));
    assert!(refused(&mut steps, text(0)).contains("empty"));
    assert!(refused(&mut steps, EmbedRequest { prompt: vec![24], ..text(0) }).contains("token id 24"));
    for dimensions in [0, WIDTH + 1, usize::MAX] {
        let error = refused(&mut steps, EmbedRequest { dimensions: Some(dimensions), ..text(1) });
        assert!(error.contains("ask for 1 to 3"), "{error}");
    }
    assert!(embed(&mut steps, text(32)).is_ok());
}

#[test]
fn damaged_embeddings_and_results_of_another_step_are_told() {
    let limits = Limits { rows: 8, chunk: 8, seqs: 2, context: 64, reuse: true, whole: false };
    let mut steps = Steps::new(Arc::new(Letters), limits, &plain(8));
    let text = EmbedRequest { prompt: vec![5, 6], ..EmbedRequest::default() };
    let [a, b] =
        [0.0, 0.5].map(|now| steps.embed(text.clone(), Pooling::Mean, WIDTH, UsedAdapters::default(), now).unwrap());
    let output = |pooled: &[f32]| Output { pooled: pooled.to_vec(), ..Output::default() };
    for pooled in [&[][..], &[1.0], &[1.0; 5]] {
        steps.begin(1.0).unwrap();
        assert!(steps.finish(&output(pooled), 2.0).is_err(), "{pooled:?}");
    }
    steps.begin(1.5).unwrap();
    let events = steps.finish(&output(&[1.0, f32::NAN, 1.0, 0.0, 3.0, -4.0]), 2.0).unwrap();
    assert!(matches!(&events[0], Event::Error { seq, error } if *seq == a && error.to_string().contains("damaged")));
    let Event::Embedding { seq, values, usage } = &events[1] else { panic!("{events:?}") };
    assert_eq!((*seq, values.as_slice()), (b, &[0.0, 0.6, -0.8][..]));
    assert_eq!((usage.prompt_tokens, usage.queued, usage.prompt, usage.generation), (2, 0.5, 1.0, 0.0));
    assert!(steps.is_idle());
    // A row of zeros has no direction: it stays.
    steps.embed(text, Pooling::Last, WIDTH, UsedAdapters::default(), 3.0).unwrap();
    steps.begin(3.0).unwrap();
    let events = steps.finish(&output(&[0.0; 3]), 3.0).unwrap();
    assert!(matches!(&events[0], Event::Embedding { values, .. } if values == &[0.0; 3]));
}

#[test]
fn a_damaged_row_ends_its_own_sequence_only() {
    let limits = Limits { rows: 8, chunk: 8, seqs: 2, context: 64, reuse: true, whole: false };
    let mut steps = Steps::new(Arc::new(Letters), limits, &plain(8));
    let request = Request { prompt: vec![5, 6], max_tokens: Some(1), ..Request::default() };
    let (a, b) = (
        steps.add(request.clone(), 0, UsedAdapters::default(), 0.0).unwrap(),
        steps.add(request, 0, UsedAdapters::default(), 0.0).unwrap(),
    );
    steps.begin(1.0).unwrap();
    let mut rows = [logits(1), logits(1)].concat();
    rows[3] = f32::NAN;
    let output = |logits: &[f32]| Output { logits: logits.to_vec(), ..Output::default() };
    assert!(steps.finish(&output(&rows[1..]), 2.0).is_err(), "a row too short");
    steps.begin(1.5).unwrap();
    let events = steps.finish(&output(&rows), 2.0).unwrap();
    assert!(matches!(&events[..2], [Event::Error { seq, .. }, Event::Token { seq: o, .. }] if (*seq, *o) == (a, b)));
    let Event::Done { usage, reason: FinishReason::Length, .. } = &events[2] else { panic!("{events:?}") };
    assert_eq!((usage.queued, usage.prompt, usage.generation), (1.0, 1.0, 0.0));
    assert!(steps.is_idle());
}
