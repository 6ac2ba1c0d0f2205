//! What a step costs the host, and how many dispatches it takes, for the shape of a 1B model: on wgpu's backend that does
//! nothing, so no adapter is needed. What it allocates is in `tests/fuzz`, whose allocator counts.
#![cfg(feature = "gpu")]

use std::sync::Arc;
use std::time::Instant;

use crate::common::shape_1b::{LAYERS, OPTIONS, VOCABULARY, one_row, plan, plan_with};
use crate::common::timed;
use ir_engine::device::KvKind;
use ir_engine::dtype::DType;
use ir_engine::gpu::{Forms, Gpu, GpuOptions, HostCost, StepCost};
use ir_engine::plan::{Change, Inputs, Pool, RunnerOptions, Want};

/// Forms that a native GPU has by default.
const NATIVE: Forms = Forms { coherent: true, heads: true, ..Forms::BASE };

/// Types of q and k, v and down, and the most dispatches per layer: the products of q, k, v, with what is done to heads, of
/// o, of gate and up and of down, and attention. One more if one product has two types.
pub(crate) const TYPES: &[([DType; 3], usize)] =
    &[([DType::Q4_0; 3], 5), ([DType::Q8_0; 3], 5), ([DType::Q4_K, DType::Q4_K, DType::Q6_K], 6)];

/// Where memory is not coherent, as in pages, splits of attention are joined by a dispatch of their own.
#[test]
fn a_decode_step_takes_few_dispatches() {
    for (types, most) in TYPES {
        for (forms, position, more) in
            [(NATIVE, 10, 0), (NATIVE, 1000, 0), (Forms::BASE, 10, 0), (Forms::BASE, 1000, 1)]
        {
            let runner = Arc::new(Gpu::noop(forms).unwrap()).prepare(Arc::new(plan(*types)), OPTIONS).unwrap();
            let n = runner.n_dispatches(&one_row(position));
            // Embedding, rows taken and the head are three more.
            assert!(n <= (most + more) * LAYERS + 3, "{types:?} at {position}: {n} dispatches for {LAYERS} layers");
            println!(
                "{types:?}, {forms}, at position {position}: {n} dispatches, {:.2} per layer",
                (n - 3) as f64 / LAYERS as f64
            );
            // An embedding takes a norm and a mean more, and no head: the row's and the product.
            let mut pooled = one_row(position);
            pooled.pools = vec![Pool { first: 0, rows: 1 }];
            assert_eq!(runner.n_dispatches(&pooled), n + 2);
            pooled.outputs.clear();
            assert_eq!(runner.n_dispatches(&pooled), n);
        }
    }
}

/// Norms on heads, and a cache whose scales take 32 columns, need no dispatch more where the last workgroup of a head makes it
/// ready, for as many rows as have kernels of their own; many rows, and the base form, take one.
#[test]
fn whole_heads_take_no_dispatch_of_their_own() {
    for (types, most) in TYPES {
        for (norms, kv) in [(true, KvKind::F16), (false, KvKind::Blocks8), (true, KvKind::Blocks8)] {
            let plan = Arc::new(plan_with(*types, norms));
            let options = RunnerOptions { kv, ..OPTIONS };
            for (forms, own) in [(NATIVE, 0), (Forms { heads: false, ..NATIVE }, 1), (Forms::BASE, 1)] {
                let runner = Arc::new(Gpu::noop(forms).unwrap()).prepare(Arc::clone(&plan), options).unwrap();
                for rows in 1..=12 {
                    let own = if rows > 8 { 1 } else { own };
                    let n = runner.n_dispatches(&of_rows(rows, 10));
                    // Behind a product of tiles its norm is a dispatch of its own, two of a layer and that of the head.
                    let normed = if rows > 8 { 2 * LAYERS } else { 0 };
                    assert_eq!(
                        n,
                        (most + own) * LAYERS + normed + 3,
                        "{types:?}, {norms}, {kv:?}, {forms}, {rows} rows"
                    );
                }
            }
        }
    }
}

/// The same of families: those with norms on heads take a dispatch less per layer. Qwen 3 takes five.
#[test]
fn families_with_norms_on_heads_take_no_dispatch_for_them() {
    let mut fewer = Vec::new();
    for (name, golden) in crate::families::goldens() {
        let cost = |forms| StepCost::of(golden.model.plan(), &of_rows(1, 10), forms, KvKind::F16);
        let (Ok(with), Ok(without)) = (cost(NATIVE), cost(Forms { heads: false, ..NATIVE })) else { continue };
        assert!(with.dispatches <= without.dispatches, "{name}: {with:?}, {without:?}");
        if with.dispatches < without.dispatches {
            fewer.push(format!("{name} {} to {}", without.most_per_layer, with.most_per_layer));
        }
    }
    println!("dispatches of the layer that takes most: {}", fewer.join(", "));
    assert!(fewer.contains(&"qwen3 6 to 5".to_owned()), "{fewer:?}");
}

/// Sequences in a step, each with a row at this position. One gives logits.
fn of_rows(rows: usize, position: u32) -> Inputs {
    let mut inputs = Inputs { tables: vec![(0..64).collect(); rows], ..Inputs::default() };
    (0..rows).for_each(|seq| _ = inputs.push(5, position, seq as u32));
    inputs.outputs = vec![0];
    inputs
}

/// What the host may spend on a decode step of 16 layers.
const MOST_MICROSECONDS: f64 = 200.0;

#[test]
fn a_decode_step_costs_the_host_little() {
    let mut runner = Arc::new(Gpu::noop(NATIVE).unwrap()).prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
    let mut best = f64::INFINITY;
    for position in 0..60 {
        let inputs = one_row(position);
        let start = Instant::now();
        let readback = runner.submit(&inputs).unwrap();
        if position >= 10 {
            best = best.min(start.elapsed().as_secs_f64() * 1e6);
        }
        readback.wait().unwrap();
    }
    println!("a decode step costs the host {best:.0} us");
    assert!(!timed() || best <= MOST_MICROSECONDS, "{best} us");
}

const PICK: Want = Want::Pick { draw: [1, 2], scale: 1.0, least: -10.0 };

#[test]
fn a_decode_step_takes_few_commands_and_bytes() {
    let mut runner = Arc::new(Gpu::noop(NATIVE).unwrap()).prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
    for position in [15, 1000] {
        let cost = runner.host_cost(&Inputs { wants: vec![PICK], ..one_row(position) });
        println!("a decode step at position {position}: {cost:?}");
        // Three commands for a dispatch, and one that brings the token back.
        let dispatches = 5 * LAYERS + 4;
        let HostCost { commands, bytes, .. } = cost;
        assert_eq!((cost.dispatches, commands), (dispatches, 3 * dispatches + 1));
        // The header, one row's words, and a page list of 64.
        assert!(bytes <= 4 * (32 + 64 + 32), "{bytes} bytes");
    }
}

/// The first step makes every pipeline of those that follow, however long the context becomes.
#[test]
fn no_pipeline_is_made_behind_the_first_token() {
    for forms in [NATIVE, Forms::BASE] {
        let gpu = Arc::new(Gpu::noop(forms).unwrap());
        let mut runner = gpu.prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
        assert_eq!(gpu.n_pipelines(), 0, "none before they are wanted");
        let step = |position| Inputs { wants: vec![PICK], ..one_row(position) };
        runner.submit(&step(15)).unwrap().wait().unwrap();
        let first = gpu.n_pipelines();
        for position in 16..1020 {
            runner.submit(&step(position)).unwrap().wait().unwrap();
        }
        let chain = Inputs { next: vec![vec![PICK]; 3], ..step(1020) };
        runner.submit(&chain).unwrap().wait().unwrap();
        println!("{forms}: {first} pipelines");
        assert!(first > 5 && gpu.n_pipelines() == first, "{first} pipelines became {}", gpu.n_pipelines());
    }
}

/// Whatever the steps behind a load and its first token are, prompts, several rows, chains, embeddings, all ways of picking, all
/// pipelines are there: made by threads, or with the weights if there are none.
#[test]
fn no_pipeline_is_made_behind_the_loading() {
    let all = Forms { subgroups: true, dot4: true, f16: true, ..NATIVE };
    for (forms, n_threads) in [(NATIVE, 2), (Forms::BASE, 0), (all, 1)] {
        let options = GpuOptions { forms: Some(forms), compile_ahead: Some(n_threads), ..GpuOptions::default() };
        let gpu = Arc::new(Gpu::noop_with(&options).unwrap());
        let mut runner = gpu.prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
        assert!(n_threads > 0 || gpu.n_pipelines() > 20, "only {} pipelines came with the weights", gpu.n_pipelines());
        let mut step = |inputs: Inputs| _ = runner.submit(&inputs).unwrap().wait().unwrap();
        step(Inputs { wants: vec![PICK], ..one_row(15) });
        runner.pipelines_made();
        let made = gpu.n_pipelines();
        let mut step = |inputs: Inputs| _ = runner.submit(&inputs).unwrap().wait().unwrap();
        let change = Change { row: 0, token: 1, bias: 1.0, factor: 1.0, penalty: 0.0 };
        for rows in (1..=9).chain([16, 32, 33, 64]) {
            for want in [PICK, Want::Top, Want::Logits] {
                for position in [16, 1000] {
                    let inputs = of_rows(rows, position);
                    step(Inputs { wants: vec![want], changes: vec![change], ..inputs });
                }
            }
        }
        let mut prompt = one_row(0);
        (1..512).for_each(|position| _ = prompt.push(5, position, 0));
        step(prompt.clone());
        prompt.pools = vec![Pool { first: 0, rows: 512 }];
        step(prompt);
        step(Inputs { wants: vec![PICK], next: vec![vec![PICK]; 3], ..one_row(1000) });
        println!("{forms}, {n_threads} threads: {made} pipelines");
        assert!(made > 20 && gpu.n_pipelines() == made, "{made} pipelines became {}", gpu.n_pipelines());
    }
}

/// A runner that goes while its pipelines are made takes nothing with it.
#[test]
fn a_runner_may_go_before_its_pipelines_are_made() {
    let options = GpuOptions { forms: Some(NATIVE), compile_ahead: Some(2), ..GpuOptions::default() };
    let gpu = Arc::new(Gpu::noop_with(&options).unwrap());
    let plan = Arc::new(plan([DType::Q4_0; 3]));
    drop(gpu.prepare(Arc::clone(&plan), OPTIONS).unwrap());
    assert_eq!(Arc::strong_count(&gpu), 1, "threads hold the device");
    let mut runner = gpu.prepare(plan, OPTIONS).unwrap();
    runner.pipelines_made();
    runner.submit(&one_row(3)).unwrap().wait().unwrap();
}

/// Four steps are submitted before the first has a result, which all come back together.
#[test]
fn a_chain_has_one_way_back() {
    let mut runner = Arc::new(Gpu::noop(NATIVE).unwrap()).prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
    let mut inputs = Inputs { wants: vec![PICK], next: vec![vec![PICK]; 3], ..one_row(15) };
    let results = runner.submit(&inputs).unwrap().wait().unwrap();
    assert_eq!((results.picked.len(), results.values.len()), (4, 0));
    // What would need the host between its steps is no chain.
    inputs.next[1] = vec![Want::Top];
    assert!(inputs.check(VOCABULARY, 64).is_err());
    inputs.next.truncate(1);
    assert!(inputs.check(VOCABULARY, 64).is_ok());
    assert!(
        Inputs { tables: vec![vec![0]], ..inputs.clone() }.check(VOCABULARY, 64).is_err(),
        "no page for position 16"
    );
    assert!(Inputs { outputs: vec![], ..inputs }.check(VOCABULARY, 64).is_err());
}

#[test]
fn a_slow_device_is_given_less_at_once() {
    let mut runner = Arc::new(Gpu::noop(NATIVE).unwrap()).prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
    let mut prompt = Inputs { tables: vec![(0..64).collect()], outputs: vec![511], ..Inputs::default() };
    for position in 0..512 {
        prompt.push(5, position, 0);
    }
    assert!(runner.brisk_rows() >= 512, "a device that was not measured takes whole chunks");
    runner.submit(&prompt).unwrap().wait().unwrap();
    // About 1.2e12 operations: 120 G a second.
    runner.took(10.0);
    let slow = runner.brisk_rows();
    assert!((100..=800).contains(&slow), "{slow} rows");
    // Ten times slower, and such that no dispatch of 16 rows fits.
    runner.submit(&prompt).unwrap().wait().unwrap();
    runner.took(100.0);
    assert!((16..slow / 5).contains(&runner.brisk_rows()), "{} rows", runner.brisk_rows());
    // Steps of one row are another kind and change nothing.
    let before = runner.brisk_rows();
    runner.submit(&one_row(600)).unwrap().wait().unwrap();
    runner.took(0.001);
    assert_eq!(runner.brisk_rows(), before);
    for _ in 0..12 {
        runner.submit(&prompt).unwrap().wait().unwrap();
        runner.took(0.1);
    }
    assert!(runner.brisk_rows() >= 512, "a fast device is found out: {} rows", runner.brisk_rows());
}
