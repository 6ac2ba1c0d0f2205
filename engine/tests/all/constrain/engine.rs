//! The engine with constraints: greedy and seeded, with penalties, log-probabilities and stop strings, in batches, preempted
//! and computed anew, behind reasoning.

use std::sync::Arc;

use ir_engine::cpu::{Cpu, CpuOptions};
use ir_engine::device::Device;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::run::{Engine, EngineOptions, Event, FinishReason, Request, Sampling, prompt_ids, wait};
use ir_engine::text::constrain::{Constrainer, Constraint, Grammar, Vocabulary};
use serde_json::{Value as Json, json};

use super::schemas::valid;

struct Bench {
    engine: Engine,
    constrainer: Constrainer,
}

impl Bench {
    fn new(options: EngineOptions) -> Bench {
        let model = Arc::new(Model::from_bytes(ir_engine::builtin::bytes(), &ModelOptions::default()).unwrap());
        let cpu = Cpu::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
        let constrainer = Constrainer::new(&Vocabulary::of(model.tokenizer())).unwrap();
        Bench { engine: Engine::new(model, &Device::Cpu(Arc::new(cpu)), &options).unwrap(), constrainer }
    }

    fn compile(&self, grammar: &Grammar) -> Constraint {
        self.constrainer.compile(grammar).unwrap()
    }

    fn prompt(&self, text: &str) -> Vec<u32> {
        prompt_ids(self.engine.model().tokenizer(), text)
    }

    fn request(&self, grammar: &Grammar, sampling: Sampling) -> Request {
        let prompt = self.prompt("Once upon a time there was a fox");
        let constraint = Some(self.compile(grammar));
        Request { prompt, sampling, constraint, max_tokens: Some(300), ..Request::default() }
    }

    /// Runs requests together; `forget_every` so many steps the cache is lost.
    fn run(&mut self, requests: &[Request], forget_every: Option<usize>) -> Vec<Answer> {
        let ids: Vec<_> = requests.iter().map(|r| self.engine.add(r.clone(), 0.0).unwrap()).collect();
        let mut answers = vec![Answer::default(); ids.len()];
        for step in 1.. {
            if self.engine.is_idle() {
                break;
            }
            if forget_every.is_some_and(|n| step % n == 0) {
                self.engine.forget();
            }
            for event in wait(self.engine.step(&|| 0.0)).unwrap() {
                let answer = &mut answers[ids.iter().position(|id| *id == event.seq()).unwrap()];
                match event {
                    Event::Token { id, text, logprobs, .. } => {
                        answer.tokens.push(id);
                        answer.text += &text;
                        answer.logprobs.extend(logprobs.map(|l| l.chosen.logprob));
                        assert_eq!(answer.logprobs.len() % answer.tokens.len(), 0);
                    }
                    Event::Done { reason, .. } => answer.reason = Some(reason),
                    Event::Error { error, .. } => answer.error = Some(error.to_string()),
                    Event::Embedding { .. } => panic!("nothing is embedded"),
                }
            }
        }
        answers
    }
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    text: String,
    logprobs: Vec<f32>,
    reason: Option<FinishReason>,
    error: Option<String>,
}

fn story() -> Json {
    json!({"type": "object", "required": ["title", "animals", "length"], "properties": {
        "title": {"type": "string", "maxLength": 30},
        "animals": {"type": "array", "items": {"enum": ["fox", "hen", "bear"]}, "maxItems": 3},
        "length": {"type": "integer", "minimum": 1, "maximum": 99}, "sad": {"type": "boolean"},
    }})
}

fn samplings() -> Vec<Sampling> {
    let seeded = |seed| Sampling { seed, temperature: 1.2, ..Sampling::default() };
    vec![
        Sampling::greedy(),
        seeded(1),
        Sampling { repeat_penalty: 1.3, frequency_penalty: 0.3, ..seeded(2) },
        Sampling { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 3.0, ..seeded(3) },
        Sampling { typical_p: 0.5, ..seeded(4) },
        Sampling { logit_bias: vec![(7, 50.0), (300, -5.0)], ..seeded(5) },
    ]
}

#[test]
fn answers_are_valid_however_they_are_sampled_and_batched() {
    let mut bench = Bench::new(EngineOptions::default());
    let grammar = Grammar::JsonSchema(story());
    let mut requests: Vec<Request> = samplings().into_iter().map(|s| bench.request(&grammar, s)).collect();
    requests[1].logprobs = Some(3);
    let alone: Vec<Answer> = requests.iter().map(|r| bench.run(std::slice::from_ref(r), None).remove(0)).collect();
    for answer in &alone {
        assert_eq!((answer.reason, &answer.error), (Some(FinishReason::Stop(None)), &None), "{answer:?}");
        let value: Json = serde_json::from_str(&answer.text).unwrap_or_else(|e| panic!("{e}: {}", answer.text));
        valid(&story(), &story(), &value).unwrap();
    }
    assert!(alone.iter().any(|a| a.text != alone[0].text), "seeds draw differently");
    // A free sequence in between is not touched.
    let free = Request { constraint: None, max_tokens: Some(40), ..requests[0].clone() };
    let free_alone = bench.run(std::slice::from_ref(&free), None).remove(0);
    requests.push(free);
    let batch = bench.run(&requests, None);
    assert_eq!(batch[..alone.len()], alone[..]);
    assert_eq!(batch[alone.len()], free_alone);
    let disturbed = bench.run(&requests, Some(7));
    assert_eq!(disturbed, batch, "computed anew again and again");
}

#[test]
fn preempted_sequences_keep_their_constraint() {
    let grammar = Grammar::JsonSchema(story());
    let mut roomy = Bench::new(EngineOptions::default());
    let requests: Vec<Request> =
        (0..4).map(|seed| roomy.request(&grammar, Sampling { seed, ..Sampling::default() })).collect();
    let expected = roomy.run(&requests, None);
    let model = Arc::clone(roomy.engine.model());
    let page = ir_engine::device::kv_bytes(model.plan(), ir_engine::device::KvKind::F16, 1);
    // Room for little more than one of them.
    let longest = requests.iter().zip(&expected).map(|(r, e)| r.prompt.len() + e.tokens.len()).max().unwrap();
    let pages = longest.div_ceil(ir_engine::plan::PAGE) + 2;
    let mut tight =
        Bench::new(EngineOptions { kv_budget: pages as u64 * page, reuse: false, ..EngineOptions::default() });
    let requests: Vec<Request> =
        requests.into_iter().map(|r| Request { constraint: Some(tight.compile(&grammar)), ..r }).collect();
    assert_eq!(tight.run(&requests, None), expected);
    assert!(tight.engine.stats().preemptions > 0, "nothing was preempted");
}

#[test]
fn log_probabilities_stay_those_of_the_model() {
    let mut bench = Bench::new(EngineOptions::default());
    let request =
        Request { logprobs: Some(1), ..bench.request(&Grammar::Regex("[0-9]{3}".into()), Sampling::greedy()) };
    let answer = bench.run(&[request], None).remove(0);
    assert_eq!((answer.text.len(), answer.reason), (3, Some(FinishReason::Stop(None))), "{answer:?}");
    // A story does not begin with digits: among all tokens they are unlikely, among digits one would be likely.
    assert!(answer.logprobs[0] < -3.0, "{answer:?}");
}

#[test]
fn ends_stops_and_lengths() {
    let mut bench = Bench::new(EngineOptions::default());
    let fixed = Grammar::Regex("once upon a time".into());
    let request = bench.request(&fixed, Sampling::greedy());
    let whole = bench.run(std::slice::from_ref(&request), None).remove(0);
    assert_eq!((whole.text.as_str(), whole.reason), ("once upon a time", Some(FinishReason::Stop(None))));
    let last = *whole.tokens.last().unwrap();
    assert!(!bench.engine.model().tokenizer().is_eog(last), "it ends by itself");
    let stop = Request { stop: vec![" a".into()], ..request.clone() };
    let stopped = bench.run(&[stop], None).remove(0);
    assert_eq!((stopped.text.as_str(), stopped.reason), ("once upon", Some(FinishReason::Stop(Some(0)))));
    let short = Request { max_tokens: Some(1), ..request.clone() };
    assert_eq!(bench.run(&[short], None)[0].reason, Some(FinishReason::Length));
    let endless = Request { ignore_eos: true, ..bench.request(&Grammar::Regex("a*".into()), Sampling::greedy()) };
    let endless = bench.run(&[Request { max_tokens: Some(50), ..endless }], None).remove(0);
    assert!(endless.text.bytes().all(|b| b == b'a') && endless.error.is_none(), "{endless:?}");
    let nothing = bench.request(&Grammar::Regex(String::new()), Sampling::greedy());
    let nothing = bench.run(&[nothing], None).remove(0);
    assert_eq!((nothing.text.as_str(), nothing.reason), ("", Some(FinishReason::Stop(None))));
    // Everything that the grammar allows is banned: that sequence fails, and the next is well.
    let all = (0..bench.engine.model().plan().n_vocab() as u32).map(|id| (id, f32::NEG_INFINITY)).collect();
    let banned = bench.request(&fixed, Sampling { logit_bias: all, ..Sampling::greedy() });
    let both = bench.run(&[banned, request], None);
    assert!(both[0].error.as_ref().unwrap().contains("banned") && both[1] == whole, "{both:?}");
}

#[test]
fn a_constraint_begins_behind_a_text() {
    let mut bench = Bench::new(EngineOptions::default());
    let free = Request { constraint: None, max_tokens: Some(30), ..bench.request(&Grammar::Json, Sampling::greedy()) };
    let free = bench.run(&[free], None).remove(0).text;
    // Some words that the model is going to say, cut within a word.
    let after: String = free.chars().skip(5).take(9).collect();
    let digits = Grammar::Regex("[0-9]{4}".into());
    let request = Request { constrain_after: Some(after.clone()), ..bench.request(&digits, Sampling::greedy()) };
    let answer = bench.run(std::slice::from_ref(&request), None).remove(0);
    let at = answer.text.find(&after).unwrap() + after.len();
    let begun = free.starts_with(&answer.text[..at]);
    match answer.error {
        // The token went on behind the text with what is no digit.
        Some(error) => assert!(error.contains("begins with") && begun, "{error}"),
        None => assert!(begun && answer.text[at..].trim().parse::<u32>().is_ok(), "{free:?}: {:?}", answer.text),
    }
    let word = free.split_whitespace().nth(2).unwrap().to_owned();
    let request = Request { constrain_after: Some(word.clone()), ..request };
    let answer = bench.run(std::slice::from_ref(&request), None).remove(0);
    let at = answer.text.find(&word).unwrap() + word.len();
    assert_eq!((answer.text.len() - at, answer.reason), (4, Some(FinishReason::Stop(None))), "{answer:?}");
    assert!(answer.text[at..].bytes().all(|b| b.is_ascii_digit()));
    let never = Request { constrain_after: Some("no such words".into()), ..request.clone() };
    assert!(free.starts_with(bench.run(&[Request { max_tokens: Some(30), ..never }], None)[0].text.trim_end()));
    assert!(bench.engine.add(Request { constrain_after: Some(String::new()), ..request }, 0.0).is_err());
}

#[test]
fn a_model_may_choose_what_the_constraint_waits_for() {
    let mut bench = Bench::new(EngineOptions::default());
    let digits = Grammar::Regex("[0-9]{4}".into());
    let opener = bench.prompt("fox").pop().unwrap();
    let base = bench.request(&digits, Sampling::greedy());
    let request = Request { constrain_after: Some(".".into()), constrain_opener: Some(opener), ..base };
    let is_digits = |text: &str| text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
    // With a bias against the opener something else comes first: digits, at once.
    let against = Sampling { logit_bias: vec![(opener, -80.0)], ..Sampling::greedy() };
    let at_once = bench.run(&[Request { sampling: against, ..request.clone() }], None).remove(0);
    assert!(is_digits(&at_once.text) && at_once.reason == Some(FinishReason::Stop(None)), "{at_once:?}");
    // With a bias for it: what follows is free until the full stop, and digits behind it.
    let sampling = Sampling { logit_bias: vec![(opener, 80.0)], ..Sampling::greedy() };
    let mut opened = bench.run(&[Request { sampling: sampling.clone(), max_tokens: Some(1), ..request.clone() }], None);
    assert_eq!(opened.remove(0).tokens, [opener]);
    let once = Request { stop: vec![".".into()], constraint: None, ..request.clone() };
    let with = |r: &Request| Request { prompt: [r.prompt.clone(), vec![opener]].concat(), ..r.clone() };
    let free = bench.run(&[Request { constrain_opener: None, ..with(&once) }], None).remove(0);
    let held = bench.run(&[Request { constrain_opener: None, ..with(&request) }], None).remove(0);
    let (before, after) = held.text.split_once('.').unwrap();
    assert_eq!((before, is_digits(after.trim())), (free.text.as_str(), true), "{held:?}");
    let refused = Request { constrain_opener: Some(u32::MAX), ..request };
    assert!(bench.engine.add(refused, 0.0).is_err());
}
