//! What is kept of a conversation: a second turn computes what is new, on every kind of model, also behind a template that
//! cuts reasoning out of the history, and after a restart from a folder. Windows hold no more than they need.

use std::path::PathBuf;
use std::sync::Arc;

use crate::common::{Golden, shared, skipped};
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, GpuLayers, KvKind, Split, SplitOptions};
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::model::Model;
use ir_engine::plan::PAGE;
use ir_engine::run::{
    ChatInput, ChatTurn, DiskCache, Engine, EngineOptions, Event, Marks, RamCache, Request, Sampling, Usage, wait,
};
use ir_engine::text::chat::{ChatTemplate, Message};

/// One of each kind of cache: pages alone, windows, states, latent rows.
const KINDS: &[&str] = &["llama3", "gemma3", "qwen35", "deepseek-v2"];

/// Tokens behind the longest shared start that a second turn may compute again.
const AGAIN: usize = 64;

fn device() -> Device {
    let options = CpuOptions { threads: Some(2), simd: Some("scalar".into()), activations: Activations::F32 };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

fn engine(model: &Arc<Model>, options: &EngineOptions) -> Engine {
    Engine::new(Arc::clone(model), &device(), options).unwrap()
}

/// Tokens and their log-probabilities, bit for bit.
type Answer = Vec<(u32, u32)>;

fn run(engine: &mut Engine, request: &Request) -> (Answer, Usage) {
    let seq = engine.add(request.clone(), 0.0).unwrap();
    let (mut answer, mut used) = (Vec::new(), None);
    while !engine.is_idle() {
        for event in wait(engine.step(&|| 0.0)).unwrap() {
            assert_eq!(event.seq(), seq);
            match event {
                Event::Token { id, logprobs, .. } => answer.push((id, logprobs.unwrap().chosen.logprob.to_bits())),
                Event::Done { usage, .. } => used = Some(usage),
                other => panic!("{other:?}"),
            }
        }
    }
    (answer, used.unwrap())
}

fn request(prompt: Vec<u32>, marks: Marks, n: usize) -> Request {
    let (max_tokens, sampling) = (Some(n), Sampling::greedy());
    Request { prompt, marks, max_tokens, sampling, ignore_eos: true, logprobs: Some(1), ..Request::default() }
}

/// The kinds that are on this machine, with tokens of their own texts.
fn kinds() -> Vec<(&'static str, Arc<Model>, Vec<u32>)> {
    let folder = shared("golden");
    let open = |name: &&'static str| {
        let golden = match *name {
            "llama3" => Golden::load(name),
            name => Golden::open(&folder.as_ref()?.join(name)),
        };
        Some((*name, Arc::new(golden.model), [golden.ids, golden.greedy].concat()))
    };
    KINDS.iter().filter_map(open).collect()
}

/// `n` tokens, all texts one after the other from a place on.
fn text(all: &[u32], at: usize, n: usize) -> Vec<u32> {
    all.iter().cycle().skip(at).take(n).copied().collect()
}

/// A first turn, and two second ones: what came before whole, and without what was generated.
struct Turns {
    first: Request,
    whole: Request,
    cut: Request,
}

fn turns(engine: &mut Engine, all: &[u32]) -> Turns {
    // The answer opens with a few tokens that the next turn does not have.
    let (n, opened) = (700, 5);
    let marks = Marks { last_user: Some(300), messages_end: Some(n) };
    let first = request(text(all, 0, n + opened), marks, 90);
    let (answer, usage) = run(engine, &first);
    assert_eq!(usage.cached_tokens, 0);
    let answer: Vec<u32> = answer.into_iter().map(|a| a.0).collect();
    let end = |prompt: &[u32]| Marks { last_user: None, messages_end: Some(prompt.len()) };
    let whole = [&first.prompt[..], &answer, &text(all, 3, 30)].concat();
    let cut = [&first.prompt[..n], &answer[50..], &text(all, 3, 30)].concat();
    let [whole, cut] = [whole, cut].map(|prompt| request(prompt.clone(), end(&prompt), 8));
    Turns { first, whole, cut }
}

fn shared_start(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

const OPTIONS: fn() -> EngineOptions = || EngineOptions { context: Some(2048), ..EngineOptions::default() };

#[test]
fn a_second_turn_computes_what_is_new() {
    for (name, model, all) in kinds() {
        let mut engine = engine(&model, &OPTIONS());
        let Turns { first, whole, cut } = turns(&mut engine, &all);
        let n_before = first.prompt.len() + 89;
        for (what, turn, shares) in
            [("whole", &whole, n_before), ("cut", &cut, shared_start(&first.prompt, &cut.prompt))]
        {
            let fresh = run(&mut self::engine(&model, &EngineOptions { reuse: false, ..OPTIONS() }), turn).0;
            let (got, usage) = run(&mut engine, turn);
            assert!(got == fresh, "{name}, {what}: another answer than without the cache");
            assert!(usage.cached_tokens + AGAIN >= shares, "{name}, {what}: {usage:?} of {shares} that it shares");
        }
    }
}

/// Opens the answer's reasoning, and leaves it out of what came before the last message of the user, as Qwen's do.
const CUTS_REASONING: &str = "\
{%- set ns = namespace(last=0) %}\
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}\
{%- if m.role == 'assistant' and loop.index0 > ns.last %}{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}\
{{- m.content + '<|im_end|>\\n' }}{% endfor %}\
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}";

#[test]
fn a_long_message_is_not_computed_again_where_the_template_cuts_reasoning_out() {
    let Some(folder) = shared("golden") else { return };
    let golden = Golden::open(&folder.join("qwen35"));
    let model = Arc::new(golden.model);
    let own = std::env::var("IR_TEMPLATE").ok().map(|path| std::fs::read_to_string(path).unwrap());
    let template = ChatTemplate::new(own.as_deref().unwrap_or(CUTS_REASONING), None).unwrap();
    let turn = |messages: &[Message]| {
        let input = ChatInput { messages, template: Some(&template), ..ChatInput::default() };
        ChatTurn::new(&model, &input).unwrap()
    };
    let (mut long, mut n) = (String::new(), 0);
    while n < 2000 {
        long += "one two three four five six seven ";
        n = model.tokenizer().encode(&long, false, false).len();
    }
    let mut engine = engine(&model, &EngineOptions { context: Some(8192), ..EngineOptions::default() });
    let asked = [Message::new("user", long)];
    let first = turn(&asked);
    assert!(first.marks.messages_end.is_some_and(|end| end >= n && end < first.ids.len()), "{:?}", first.marks);
    let request_of = |turn: &ChatTurn| request(turn.ids.clone(), turn.marks, 100);
    run(&mut engine, &request_of(&first));
    let mut answer = Message::new("assistant", "Eight.");
    answer.reasoning_content = Some("What comes after seven?".into());
    let second = turn(&[asked[0].clone(), answer, Message::new("user", "Why?")]);
    let shares = shared_start(&first.ids, &second.ids);
    assert!(shares >= n && shares < first.ids.len(), "the template cuts nothing out");
    let (got, usage) = run(&mut engine, &request_of(&second));
    println!("{} tokens, {shares} of them of the first turn's prompt, {} found", second.ids.len(), usage.cached_tokens);
    assert!(usage.cached_tokens + AGAIN >= shares, "{usage:?} of {shares}");
    let fresh = run(
        &mut self::engine(&model, &EngineOptions { reuse: false, context: Some(8192), ..EngineOptions::default() }),
        &request_of(&second),
    );
    assert!(got == fresh.0);
}

#[test]
fn a_window_holds_what_its_rows_see() {
    let Some((_, model, all)) = kinds().into_iter().find(|kind| kind.0 == "gemma3") else { return };
    let options = EngineOptions { context: Some(2048), chunk: 64, ..EngineOptions::default() };
    let mut engine = engine(&model, &options);
    let layout = engine.cache_layout().clone();
    let [whole, window] = &layout.groups[..] else { panic!("{layout:?}") };
    assert_eq!((whole.window, window.window, window.window_pages()), (None, Some(8), Some(2)));
    engine.add(request(text(&all, 0, 1500), Marks::default(), 40), 0.0).unwrap();
    let mut most = 0;
    while !engine.is_idle() {
        wait(engine.step(&|| 0.0)).unwrap();
        let stats = engine.stats();
        most = most.max(stats.held_bytes);
        assert!(stats.held_bytes + stats.evictable_bytes <= stats.cache_bytes);
    }
    assert!(most > 0 && most <= layout.sequence_bytes(1540, 64), "{most} bytes were held");
    let stats = engine.stats();
    assert_eq!((stats.held_bytes, stats.pages), (0, stats.free_pages));
    assert!(stats.evictable_bytes >= 1539 / PAGE as u64 * whole.page_bytes, "{stats:?}");
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ir-caches-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

#[test]
fn a_conversation_goes_on_after_a_restart() {
    for (name, model, all) in kinds() {
        let folder = folder(name);
        let open = |options: &EngineOptions| {
            let cache = DiskCache::open(&folder, 1 << 30).unwrap();
            let mut engine = engine(&model, options);
            assert!(engine.keep_in(Box::new(cache.clone())));
            (engine, cache)
        };
        let (mut before, cache) = open(&OPTIONS());
        let Turns { first, whole, cut } = turns(&mut before, &all);
        cache.flush();
        assert!(cache.counts().saved > 0);
        drop((before, cache));
        for (what, turn, shares) in
            [("whole", &whole, first.prompt.len() + 89), ("cut", &cut, shared_start(&first.prompt, &cut.prompt))]
        {
            let fresh = run(&mut engine(&model, &EngineOptions { reuse: false, ..OPTIONS() }), turn).0;
            let (mut after, cache) = open(&OPTIONS());
            let (got, usage) = run(&mut after, turn);
            assert!(got == fresh, "{name}, {what}: another answer than without the cache");
            assert!(usage.cached_tokens + AGAIN >= shares, "{name}, {what}: {usage:?} of {shares}");
            assert_eq!(cache.counts().damaged, 0);
            cache.flush();
        }
        // Another form of cache finds nothing here.
        let (mut other, cache) = open(&EngineOptions { kv: KvKind::F32, ..OPTIONS() });
        assert_eq!(run(&mut other, &whole).1.cached_tokens, 0, "{name}");
        cache.flush();
        drop((other, cache));
        // Damage is no wrong answer: what it hit is computed again.
        for entry in std::fs::read_dir(folder.join("ir-pages-1")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 0x40;
            std::fs::write(path, bytes).unwrap();
        }
        let (mut after, cache) = open(&OPTIONS());
        let fresh = run(&mut engine(&model, &EngineOptions { reuse: false, ..OPTIONS() }), &whole).0;
        let (got, usage) = run(&mut after, &whole);
        assert!(got == fresh && usage.cached_tokens == 0 && cache.counts().damaged > 0, "{name}: {usage:?}");
        cache.flush();
        drop((after, cache));
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn what_a_cancelled_conversation_leaves_is_kept_before_it_is_written_over() {
    for (name, model, all) in kinds() {
        let folder = folder(&format!("cancelled-{name}"));
        // Room for one sequence: the next one takes the pages of the one before.
        let context = 256;
        let layout = engine(&model, &OPTIONS()).cache_layout().clone();
        let mut options = EngineOptions { context: Some(context), max_sequences: 1, chunk: 64, ..OPTIONS() };
        options.kv_budget = layout.sequence_bytes(context, 64) + 2 * layout.state_bytes;
        let open = || {
            let cache = DiskCache::open(&folder, 1 << 30).unwrap();
            let mut engine = engine(&model, &options);
            assert!(engine.keep_in(Box::new(cache.clone())));
            (engine, cache)
        };
        let (mut before, cache) = open();
        let n = 160;
        let first = request(text(&all, 0, n + 5), Marks { last_user: None, messages_end: Some(n) }, 20);
        let seq = before.add(first.clone(), 0.0).unwrap();
        let tokens = |events: &[Event]| events.iter().any(|e| matches!(e, Event::Token { .. }));
        while !tokens(&wait(before.step(&|| 0.0)).unwrap()) {}
        assert!(before.cancel(seq, 0.0));
        before.take_events();
        run(&mut before, &request(text(&all, 7, 240), Marks::default(), 8));
        cache.flush();
        drop((before, cache));
        let fresh = run(&mut engine(&model, &EngineOptions { reuse: false, ..options.clone() }), &first).0;
        let (mut after, cache) = open();
        let (got, usage) = run(&mut after, &first);
        cache.flush();
        assert!(usage.cached_tokens + AGAIN >= n, "{name}: {usage:?}");
        assert!(got == fresh, "{name}: another answer than without the cache");
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// A GPU, and a processor and a GPU that share a model's layers.
fn devices_with_a_gpu() -> Vec<Device> {
    let options = GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() };
    let gpu = match Gpu::open_now(&options) {
        Ok(gpu) => Device::Gpu(Arc::new(gpu)),
        Err(error) => {
            skipped(error);
            return Vec::new();
        }
    };
    let options = SplitOptions { layers: GpuLayers::Count(1), ..SplitOptions::default() };
    let split = Split::new(device(), vec![gpu.clone()], options).unwrap();
    vec![gpu, Device::Split(Arc::new(split))]
}

/// A conversation whose first turn another engine computed, and its page-by-page content, found again in memory.
#[test]
fn what_a_gpu_computed_goes_to_memory_and_comes_back() {
    let options = EngineOptions { kv: KvKind::F32, ..OPTIONS() };
    for device in devices_with_a_gpu() {
        for (name, model, all) in kinds() {
            let what = format!("{name} on {}", device.name());
            let open = |options: &EngineOptions| Engine::new(Arc::clone(&model), &device, options).unwrap();
            let ram = RamCache::new(1 << 30);
            let first = request(text(&all, 0, 150), Marks { last_user: Some(100), messages_end: Some(140) }, 20);
            let mut before = open(&options);
            assert!(before.keep_in(Box::new(ram.clone())));
            let answer = run(&mut before, &first).0;
            drop(before);
            assert!(ram.counts().saved > 0, "{what}");
            let prompt = [first.prompt, answer.iter().map(|a| a.0).collect(), text(&all, 3, 10)].concat();
            let second = request(prompt.clone(), Marks { last_user: None, messages_end: Some(prompt.len()) }, 8);
            let (fresh, _) = run(&mut open(&EngineOptions { reuse: false, ..options.clone() }), &second);
            let mut after = open(&options);
            assert!(after.keep_in(Box::new(ram.clone())));
            let (got, usage) = run(&mut after, &second);
            assert!(usage.cached_tokens + AGAIN >= 150, "{what}: {usage:?}");
            for ((token, logprob), (want, wanted)) in got.iter().zip(&fresh) {
                let apart = (f32::from_bits(*logprob) - f32::from_bits(*wanted)).abs();
                assert!(token == want && apart < 1e-3, "{what}: {token} and {want}, {apart:.1e} apart");
            }
        }
    }
}
