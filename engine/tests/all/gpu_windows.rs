//! What attention with a window reads on GPUs, in every form and every cache: nothing of the pages in front of it. They are filled
//! with numbers that are none, so that one element of them that takes part, though with the weight 0, shows in the result.
#![cfg(feature = "gpu")]

use std::sync::Arc;

use crate::common::exam::Random;
use crate::common::{relative_error, skipped};
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, Runner, RunnerOptions};
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::plan::{Attend, CachePlace, Inputs, KvShape, PAGE, Plan, Recorder, Rows, Slot};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
/// So wide that tiles of positions begin inside pages.
const DIM: usize = 160;
const COLS: usize = (HEADS + 2 * KV_HEADS) * DIM;
/// Positions that are filled first: three chunks of a split, of which the window lies in the last one or two.
const N: u32 = 700;
/// A window of so many positions, or runs of so many: each ends inside a page, and leaves out a split in front.
const LIMITS: [Limit; 2] = [Limit::Window(100), Limit::Chunk(300)];
const PAGES: usize = 50;

/// What a row sees of the positions before it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Window(u32),
    Chunk(u32),
}

impl Limit {
    /// The first position that a row sees.
    fn first(self, position: u32) -> u32 {
        match self {
            Limit::Window(n) => (position + 1).saturating_sub(n),
            Limit::Chunk(n) => position - position % n,
        }
    }
}

type Sabotage = Option<(&'static str, &'static str, &'static str)>;

fn gpu(forms: &str, sabotage: Sabotage) -> Option<Device> {
    let options = GpuOptions { forms: Some(Forms::parse(forms).unwrap()), sabotage, ..GpuOptions::default() };
    Gpu::open_now(&options).map_err(skipped).ok().map(|gpu| Device::Gpu(Arc::new(gpu)))
}

/// A plan of attention alone: what it takes, what it gives.
fn plan(limit: Limit) -> (Arc<Plan>, Slot, Slot) {
    let mut rec = Recorder::new();
    let x = rec.input(Rows::Tokens, COLS);
    let layer = rec.kv_layer(KvShape { n_kv_heads: KV_HEADS, k_dim: DIM, v_dim: DIM, v_in_k: false });
    let k = rec.view(x, 0, KV_HEADS * DIM).unwrap();
    let v = rec.view(x, KV_HEADS * DIM, KV_HEADS * DIM).unwrap();
    let q = rec.view(x, 2 * KV_HEADS * DIM, HEADS * DIM).unwrap();
    rec.kv_write(k, None, Some(v), layer).unwrap();
    let (window, chunk) = match limit {
        Limit::Window(n) => (Some(n), None),
        Limit::Chunk(n) => (None, Some(n)),
    };
    let attend = Attend { window, chunk, ..Attend::plain(layer, HEADS, 0.6) };
    let out = rec.attend(q, attend).unwrap();
    (Arc::new(rec.finish(out)), x, out)
}

/// Computes rows at these positions; `page` says which page each of the sequence's is.
fn rows(
    runner: &mut Runner,
    (x, out): (Slot, Slot),
    positions: &[u32],
    data: &[f32],
    page: impl Fn(usize) -> u32,
) -> Vec<f32> {
    let mut inputs = Inputs { tables: vec![(0..PAGES - 1).map(page).collect()], ..Inputs::default() };
    positions.iter().for_each(|position| _ = inputs.push(0, *position, 0));
    runner.set_slot(x, &inputs, data).unwrap();
    runner.run_ops(0..runner.plan().ops.len(), &inputs).unwrap();
    runner.slot(out, &inputs).unwrap()
}

/// Results of prompts' rows and of single rows behind `N` positions, the windows' first rows at all places of a page. `poisoned`:
/// pages in front of windows hold no numbers.
fn windows(device: &Device, limit: Limit, kv: KvKind, poisoned: bool) -> Vec<f32> {
    let (plan, x, out) = plan(limit);
    let options =
        RunnerOptions { max_tokens: 350, max_outputs: 1, kv, n_pages: PAGES, n_states: 1, n_window_pages: PAGES };
    let mut runner = device.prepare(plan, options).unwrap();
    let bad = PAGES as u32 - 1;
    let place = CachePlace::Page { group: 0, page: bad };
    let len = runner.read_kept(&[place]).map_or(0, |pages| pages[0].len());
    assert!(runner.write_kept(place, &vec![0xff; len]) && len > 0);
    let front = poisoned.then_some(bad);
    let (mut random, mut all) = (Random(3), Vec::new());
    let mut at = 0;
    for n in [350, 350, 7, 20, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 7, 17] {
        let positions: Vec<u32> = (at..at + n).collect();
        let data = random.floats(n as usize * COLS);
        let seen = limit.first(at) as usize / PAGE;
        let page = |i: usize| front.filter(|_| at >= N && i < seen).unwrap_or(i as u32);
        let got = rows(&mut runner, (x, out), &positions, &data, page);
        at += n;
        if at > N {
            all.extend(got);
        }
    }
    assert!(at as usize <= (PAGES - 1) * PAGE);
    all
}

const CACHES: [(KvKind, f64); 3] = [(KvKind::F32, 1e-5), (KvKind::F16, 1e-5), (KvKind::Blocks8, 1e-5)];

#[test]
fn windows_read_no_page_in_front_of_them() {
    let options = CpuOptions { threads: Some(2), simd: Some("scalar".into()), activations: Activations::F32 };
    let truth = Device::Cpu(Arc::new(Cpu::new(&options).unwrap()));
    let cases = CACHES.iter().flat_map(|cache| LIMITS.iter().map(move |limit| (*cache, *limit)));
    for ((kv, most), limit) in cases {
        let want = windows(&truth, limit, kv, false);
        let mut of_base = None;
        for forms in ["base", "base+subgroups", "base+coherent"] {
            let Some(device) = gpu(forms, None) else { return };
            let got = windows(&device, limit, kv, true);
            let error = relative_error(&got, &want);
            println!("{forms}, {limit:?}, {kv:?}: relative error {error:.1e}");
            assert!(error <= most, "{forms}, {limit:?}, {kv:?}: relative error {error:e} above {most:e}");
            let of_base = of_base.get_or_insert_with(|| got.clone());
            assert!(*of_base == got, "{forms}, {limit:?}, {kv:?}: other bits than of the base form");
        }
    }
}

/// Were a value read in front of a window, the comparison would say so.
#[test]
fn a_page_read_in_front_of_a_window_is_found() {
    for sabotage in [
        (
            "attend_vec",
            "skipped + (subset + SUBSETS - skipped % SUBSETS) % SUBSETS",
            "subset + skipped / SUBSETS * SUBSETS",
        ),
        ("attend_tile", "base + j >= lowest", "true"),
    ] {
        let Some(device) = gpu("base", Some(sabotage)) else { return };
        assert!(windows(&device, LIMITS[0], KvKind::F32, true).iter().any(|v| v.is_nan()), "{sabotage:?}");
    }
}
