//! The engine on real models: batch equals single, chunked equals whole, preempted equals undisturbed, reused equals
//! fresh. Bit for bit on scalar kernels; on other instruction sets the same tokens except behind a near-tie.

use std::sync::Arc;

use crate::common::{Golden, shared};
use ir_engine::cpu::{Activations, Cpu, CpuOptions, simd};
use ir_engine::device::{Device, KvKind, kv_bytes};
use ir_engine::model::{Model, ModelOptions};
use ir_engine::plan::PAGE;
use ir_engine::run::{Engine, EngineOptions, Event, FinishReason, Request, Sampling, SeqId, Usage, wait};

const FAMILIES: &[&str] = &["llama3", "llama-tied", "llama2-spm", "qwen2", "qwen3"];
/// One of each kind of part that these do not have; their goldens are kept beside the project.
pub(crate) const KINDS: &[&str] =
    &["gemma3", "mixtral", "gpt-oss", "gpt2", "qwen3-next", "lfm2", "granite-hybrid", "deepseek-v3"];
/// Tokens of each answer.
pub(crate) const N_ANSWER: usize = 24;
/// Log-probabilities that are compared at each token.
const N_TOP: usize = 5;

/// A token and, most likely first, the log-probabilities at its position: ids and bits.
pub(crate) type Step = (u32, Vec<(u32, u32)>);

pub(crate) fn device(simd: &str, activations: Activations) -> Device {
    let options = CpuOptions { threads: Some(1), simd: Some(simd.into()), activations };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

/// Eight prompts of 1 to 120 tokens; the later ones share a start with one another.
fn prompts(all: &[u32]) -> Vec<Vec<u32>> {
    let from = |at: usize, n: usize| all[at..].iter().chain(all).take(n).copied().collect::<Vec<u32>>();
    let shared = |n: usize| [from(0, 40), from(n, n)].concat();
    vec![from(0, 1), from(3, 15), from(5, 16), from(7, 17), from(0, 79), shared(9), shared(30), shared(80)]
}

fn request(prompt: &[u32], sampling: Sampling) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens: Some(N_ANSWER),
        sampling,
        ignore_eos: true,
        logprobs: Some(N_TOP),
        ..Request::default()
    }
}

/// Every other prompt greedy, the others with a seed.
pub(crate) fn requests(golden: &Golden) -> Vec<Request> {
    let all = [golden.ids.as_slice(), &golden.greedy].concat();
    let drawn = |i: usize| Sampling { seed: i as u64, repeat_penalty: 1.1, ..Sampling::default() };
    let sampling = |i: usize| if i.is_multiple_of(2) { Sampling::greedy() } else { drawn(i) };
    prompts(&all).iter().enumerate().map(|(i, p)| request(p, sampling(i))).collect()
}

/// Runs requests to their end, `after` steps apart; gives each one's tokens and usage.
pub(crate) fn run(
    engine: &mut Engine,
    requests: &[Request],
    after: usize,
    forget_at: Option<usize>,
) -> Vec<(Vec<Step>, Usage)> {
    let mut ids: Vec<SeqId> = Vec::new();
    let mut answers = vec![(Vec::new(), Usage::default()); requests.len()];
    for n_steps in 0.. {
        while ids.len() < requests.len() && ids.len() * after <= n_steps {
            ids.push(engine.add(requests[ids.len()].clone(), 0.0).unwrap());
        }
        if forget_at == Some(n_steps) {
            engine.forget();
        }
        for event in wait(engine.step(&|| 0.0)).unwrap() {
            let answer = &mut answers[ids.iter().position(|id| *id == event.seq()).unwrap()];
            match event {
                Event::Token { id, logprobs, .. } => {
                    let top = logprobs.unwrap().top;
                    answer.0.push((id, top.iter().map(|t| (t.id, t.logprob.to_bits())).collect()));
                }
                Event::Done { reason, usage, .. } => {
                    assert_eq!(reason, FinishReason::Length);
                    answer.1 = usage;
                }
                Event::Embedding { .. } => panic!("none was asked for"),
                Event::Error { error, .. } => panic!("{error}"),
            }
        }
        if engine.is_idle() && ids.len() == requests.len() {
            break;
        }
    }
    answers
}

pub(crate) fn steps(answers: Vec<(Vec<Step>, Usage)>) -> Vec<Vec<Step>> {
    answers.into_iter().map(|a| a.0).collect()
}

/// The built-in model, whose weights are quantised and whose answers mean something, and a text of its kind.
fn ir_tiny() -> (Model, Vec<u32>) {
    let model = Model::from_bytes(ir_engine::builtin::bytes(), &ModelOptions::default()).unwrap();
    let text = "In a village there lived a quiet fox named Hana. Her best thing was a red wheel. One day she fell, and \
                the wheel broke. Hana was sad and began to cry. A cat named Diego said, \"Do not worry, we can mend it.\"";
    let ids = model.tokenizer().encode(text, true, false);
    assert!(ids.len() >= 80, "{}", ids.len());
    (model, ids)
}

/// Each request in an engine of its own, its prompt in one chunk.
pub(crate) fn alone(model: &Arc<Model>, device: &Device, requests: &[Request]) -> Vec<Vec<Step>> {
    let options = EngineOptions { reuse: false, ..EngineOptions::default() };
    let single = |r: &Request| {
        let mut engine = Engine::new(Arc::clone(model), device, &options).unwrap();
        steps(run(&mut engine, std::slice::from_ref(r), 0, None)).remove(0)
    };
    requests.iter().map(single).collect()
}

/// Ways of running the same requests that must not change an answer.
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) options: EngineOptions,
    pub(crate) after: usize,
    pub(crate) forget_at: Option<usize>,
}

/// A pool that holds little more than one of the eight sequences, so that the younger ones are preempted.
fn small_pool(model: &Model) -> EngineOptions {
    let n_pages = (160 + N_ANSWER).div_ceil(PAGE) + 2;
    let options = EngineOptions::default();
    // Beside two states of each sequence that may run, and two that are kept.
    let states = (2 * options.max_sequences as u64 + 2) * model.plan().state_bytes();
    let pages = kv_bytes(model.plan(), KvKind::F16, n_pages);
    EngineOptions { kv_budget: pages + states, ..options }
}

pub(crate) fn ways(model: &Model) -> Vec<Way> {
    let d = EngineOptions::default;
    let way = |name: &str, options| Way { name: name.into(), options, after: 0, forget_at: None };
    let mut ways = vec![
        way("batch of 8", d()),
        way("two at a time", EngineOptions { max_sequences: 2, ..d() }),
        Way { after: 3, ..way("arriving one by one", d()) },
        way("preempted", small_pool(model)),
        Way { forget_at: Some(20), ..way("cache lost on the way", d()) },
    ];
    for chunk in [1, 7, 64] {
        ways.push(way(&format!("chunks of {chunk}"), EngineOptions { chunk, ..d() }));
        ways.push(way(&format!("steps of {chunk} rows"), EngineOptions { max_rows: chunk, reuse: false, ..d() }));
    }
    ways
}

#[test]
fn every_way_of_running_gives_the_same_bits_on_scalar_kernels() {
    let own = FAMILIES.iter().map(|name| (*name, Golden::load(name)));
    let folder = shared("golden");
    let others = KINDS.iter().filter_map(|name| Some((*name, Golden::open(&folder.as_ref()?.join(name)))));
    for (family, golden) in own.chain(others) {
        let requests = requests(&golden);
        let model = Arc::new(golden.model);
        let device = device("scalar", Activations::F32);
        let expected = alone(&model, &device, &requests);
        assert!(expected.iter().all(|e| e.len() == N_ANSWER));
        for Way { name, options, after, forget_at } in ways(&model) {
            let mut engine = Engine::new(Arc::clone(&model), &device, &options).unwrap();
            let got = steps(run(&mut engine, &requests, after, forget_at));
            assert!(got == expected, "{family}: {name} differs");
            let n = engine.stats().preemptions;
            assert_eq!(name == "preempted", n > 0, "{name}: {n} preemptions");
        }
    }
}

#[test]
fn a_prefix_in_the_cache_gives_the_same_bits_as_a_fresh_one() {
    let golden = Golden::load("qwen3");
    let requests = requests(&golden);
    let model = Arc::new(golden.model);
    let device = device("scalar", Activations::F32);
    let expected = alone(&model, &device, &requests);
    let mut engine = Engine::new(Arc::clone(&model), &device, &EngineOptions::default()).unwrap();
    for round in 0..2 {
        for (request, expected) in requests.iter().zip(&expected) {
            let (got, usage) = run(&mut engine, std::slice::from_ref(request), 0, None).remove(0);
            assert!(got == *expected, "round {round}");
            let n = request.prompt.len();
            if round == 1 {
                assert_eq!(usage.cached_tokens, (n - 1) / PAGE * PAGE, "all full pages before the last token");
            }
        }
    }
    // A turn that goes on from an answer finds the answer in the cache too.
    let answer: Vec<u32> = expected[7].iter().map(|s| s.0).collect();
    let next = request(&[requests[7].prompt.clone(), answer, vec![5, 6, 7]].concat(), Sampling::greedy());
    let fresh = alone(&model, &device, std::slice::from_ref(&next)).remove(0);
    let (got, usage) = run(&mut engine, &[next], 0, None).remove(0);
    assert!(got == fresh);
    // The last token of an answer was chosen but never computed.
    let (n_prompt, n_computed) = (requests[7].prompt.len(), requests[7].prompt.len() + N_ANSWER - 1);
    assert_eq!(usage.cached_tokens, n_computed / PAGE * PAGE);
    assert!(usage.cached_tokens > n_prompt);
}

/// A token is behind a near-tie when the best two logits lie closer than this many times the form's error: each of the
/// two may be off by it in both runs.
const NEAR_TIE: f32 = 4.0;
/// The share of tokens that may claim one.
const MAX_CLAIMS: f64 = 0.05;

/// Largest difference of the log-probabilities that two runs report for the same tokens of a common start.
fn distance(a: &[Step], b: &[Step]) -> f32 {
    let mut most = 0f32;
    for ((id, top), (other_id, other_top)) in a.iter().zip(b) {
        for (id, bits) in top {
            let other = other_top.iter().find(|t| t.0 == *id);
            most = most.max(other.map_or(0.0, |t| (f32::from_bits(t.1) - f32::from_bits(*bits)).abs()));
        }
        if id != other_id {
            break;
        }
    }
    most
}

#[test]
fn other_instruction_sets_give_the_same_tokens_except_behind_a_near_tie() {
    let families = ["llama3", "qwen3", "ir-tiny"].map(|family| {
        let (model, all) = match family {
            "ir-tiny" => ir_tiny(),
            family => {
                let golden = Golden::load(family);
                (golden.model, [golden.ids.as_slice(), &golden.greedy].concat())
            }
        };
        let requests: Vec<Request> = prompts(&all).iter().map(|p| request(p, Sampling::greedy())).collect();
        let model = Arc::new(model);
        let truth = alone(&model, &device("scalar", Activations::F32), &requests);
        (family, model, requests, truth)
    });
    for table in simd::available() {
        let (mut n_tokens, mut n_claims) = (0, 0);
        for (family, model, requests, truth) in &families {
            let device = device(table.name, Activations::Quantised);
            let single = alone(model, &device, requests);
            let error = truth.iter().zip(&single).map(|(a, b)| distance(a, b)).fold(0.0, f32::max);
            for Way { name, options, after, forget_at } in ways(model) {
                let mut engine = Engine::new(Arc::clone(model), &device, &options).unwrap();
                let got = steps(run(&mut engine, requests, after, forget_at));
                for (got, single) in got.iter().zip(&single) {
                    let same = got.iter().zip(single).take_while(|(a, b)| a.0 == b.0).count();
                    n_tokens += same + usize::from(same < single.len());
                    if let Some((_, top)) = single.get(same) {
                        let gap = f32::from_bits(top[0].1) - f32::from_bits(top[1].1);
                        assert!(gap < NEAR_TIE * error, "{} {family}: {name}: gap {gap}, error {error}", table.name);
                        n_claims += 1;
                    }
                }
            }
        }
        println!("{}: {n_tokens} tokens compared, {n_claims} behind a near-tie", table.name);
        assert!(n_tokens > 5_000 && f64::from(n_claims) <= MAX_CLAIMS * n_tokens as f64);
    }
}

#[test]
fn the_context_is_a_promise() {
    let golden = Golden::load("llama3");
    let model = Arc::new(golden.model);
    let device = device("scalar", Activations::F32);
    let n_context = model.spec().n_context;
    let mut engine = Engine::new(Arc::clone(&model), &device, &EngineOptions::default()).unwrap();
    assert_eq!(engine.context(), n_context, "the model's own length");
    let whole = Request { max_tokens: None, ..request(&golden.ids, Sampling::greedy()) };
    let (answer, usage) = run(&mut engine, &[whole], 0, None).remove(0);
    assert_eq!(answer.len() + usage.prompt_tokens, n_context, "a full context ends with Length");

    let too_long = request(&vec![5; n_context], Sampling::greedy());
    assert!(engine.add(too_long, 0.0).unwrap_err().to_string().contains("shorten the prompt or raise the context"));

    let page = kv_bytes(model.plan(), KvKind::F16, 1);
    let small = EngineOptions { kv_budget: 3 * page, ..EngineOptions::default() };
    assert_eq!(Engine::new(Arc::clone(&model), &device, &small).unwrap().context(), 3 * PAGE, "what the budget holds");
    let asked = EngineOptions { context: Some(n_context), ..small };
    assert!(Engine::new(Arc::clone(&model), &device, &asked).unwrap_err().to_string().contains("MiB"));
    let none = EngineOptions { kv_budget: page - 1, ..EngineOptions::default() };
    assert!(Engine::new(model, &device, &none).is_err());
}
