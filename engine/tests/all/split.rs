//! A model over several devices: the bits of the whole where the parts are of one kind, the exam's tolerance where they
//! differ; budgets that are kept, devices that are lost, and what crosses.

use std::sync::Arc;

use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, Experts, GpuLayers, KvKind, Runner, RunnerOptions, Split, SplitOptions};
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::model::{Model, ModelOptions};
use ir_engine::plan::{Inputs, Plan, Pool};
use ir_engine::run::{Engine, EngineOptions, Request, Sampling, wait};

use crate::common::{Golden, full, relative_error, shared, skipped};
use crate::engine::{KINDS, Way, alone, device, requests, run, steps, ways};

/// Two steps of a sequence, each followed by its logits and its mean: a prompt, and a token behind it.
fn two_steps(ids: &[u32]) -> Vec<Inputs> {
    let (last, first) = ids.split_last().unwrap();
    let step = |ids: &[u32], at: usize| {
        let mut inputs = Inputs { tables: vec![(0..4).collect()], ..Inputs::default() };
        ids.iter().enumerate().for_each(|(i, id)| _ = inputs.push(*id, (at + i) as u32, 0));
        inputs.outputs = vec![ids.len() as u32 - 1];
        inputs.pools = vec![Pool { first: 0, rows: ids.len() as u32 }];
        inputs
    };
    vec![step(first, 0), step(&[*last], first.len())]
}

fn prepare(device: &Device, plan: &Plan) -> Runner {
    let options =
        RunnerOptions { max_tokens: 64, max_outputs: 1, kv: KvKind::F16, n_pages: 4, n_states: 1, n_window_pages: 0 };
    device.prepare(Arc::new(plan.clone()), options).unwrap()
}

/// Cuts the plan in two at every `stride`-th place that the caches allow; gives how many there were.
fn cuts(device: &Device, name: &str, stride: usize) -> usize {
    let golden = Golden::load(name);
    let plan = golden.model.plan();
    let ids: Vec<u32> = golden.ids.iter().copied().take(40).collect();
    let (mut whole, results) = (prepare(device, plan), [plan.logits, plan.pooled.unwrap()]);
    let want = two_steps(&ids).into_iter().map(|inputs| {
        whole.run_ops(0..plan.ops.len(), &inputs).unwrap();
        results.map(|slot| whole.slot(slot, &inputs).unwrap())
    });
    let want: Vec<_> = want.collect();
    let mut n = 0;
    for at in (1..plan.ops.len()).step_by(stride) {
        let part_of: Vec<usize> = (0..plan.ops.len()).map(|i| usize::from(i >= at)).collect();
        let Ok(division) = plan.divide(&part_of) else { continue };
        let mut parts: Vec<Runner> = division.parts.iter().map(|part| prepare(device, part)).collect();
        for (inputs, want) in two_steps(&ids).iter().zip(&want) {
            for stage in &division.stages {
                for (from, slot) in &stage.enters {
                    let rows = parts[*from].slot(*slot, inputs).unwrap();
                    parts[stage.part].set_slot(*slot, inputs, &rows).unwrap();
                }
                parts[stage.part].run_ops(stage.ops.clone(), inputs).unwrap();
            }
            for (slot, want) in results.into_iter().zip(want) {
                let part = usize::from(division.parts[1].writes(slot));
                let got = parts[part].slot(slot, inputs).unwrap();
                assert_eq!(&got, want, "{name} on {} cut at {at}: {slot:?}", device.name());
            }
        }
        n += 1;
    }
    n
}

fn gpu(options: GpuOptions) -> Option<Device> {
    let base = GpuOptions { forms: Some(Forms::BASE), ..options };
    Gpu::open_now(&base).map(|gpu| Device::Gpu(Arc::new(gpu))).map_err(skipped).ok()
}

#[test]
fn two_parts_give_the_bits_of_the_whole_wherever_it_is_cut() {
    for name in ["llama3", "qwen3"] {
        let options = CpuOptions { threads: Some(2), simd: None, activations: Activations::Quantised };
        let n = cuts(&Device::Cpu(Arc::new(Cpu::new(&options).unwrap())), name, 1);
        assert!(n > 10, "{name}: {n} cuts");
        if let Some(gpu) = gpu(GpuOptions::default()) {
            cuts(&gpu, name, 5);
        }
    }
}

fn split(cpu: &Device, gpus: Vec<Device>, options: SplitOptions) -> Device {
    Device::Split(Arc::new(Split::new(cpu.clone(), gpus, options).unwrap()))
}

fn layers(n: usize) -> SplitOptions {
    SplitOptions { layers: GpuLayers::Count(n), ..SplitOptions::default() }
}

/// A dense model of the project's own, and one of every other kind if it is at hand.
fn kinds() -> Vec<(&'static str, Golden)> {
    let folder = shared("golden");
    let others = KINDS.iter().filter_map(|name| Some((*name, Golden::open(&folder.as_ref()?.join(name)))));
    std::iter::once(("llama3", Golden::load("llama3"))).chain(others).collect()
}

#[test]
fn a_model_over_processors_gives_the_bits_of_one() {
    let cpu = device("scalar", Activations::F32);
    for (family, golden) in kinds() {
        let requests = requests(&golden);
        let model = Arc::new(golden.model);
        let expected = alone(&model, &cpu, &requests);
        let experts = SplitOptions { experts: Experts::OnCpu(usize::MAX), ..layers(usize::MAX) };
        let shares = SplitOptions { shares: vec![3.0, 1.0], ..layers(3) };
        let one = |options| split(&cpu, vec![cpu.clone()], options);
        for (how, device) in [
            ("one layer", one(layers(1))),
            ("experts", one(experts)),
            ("three parts", split(&cpu, vec![cpu.clone(), cpu.clone()], shares.clone())),
            ("micro-batches", one(SplitOptions { micro_batches: Some(2), ..layers(1) })),
            (
                "more micro-batches",
                split(&cpu, vec![cpu.clone(), cpu.clone()], SplitOptions { micro_batches: Some(5), ..shares }),
            ),
        ] {
            let few = |way: &Way| match how {
                "micro-batches" | "more micro-batches" => ["batch of 8", "cache lost on the way"].contains(&&*way.name),
                _ => ["batch of 8", "preempted", "cache lost on the way", "chunks of 7"].contains(&&*way.name),
            };
            for Way { name, options, after, forget_at } in ways(&model).into_iter().filter(few) {
                let mut engine = Engine::new(Arc::clone(&model), &device, &options).unwrap();
                let got = steps(run(&mut engine, &requests, after, forget_at));
                assert!(got == expected, "{family}, {how} ({}): {name} differs", engine.placement());
            }
        }
    }
}

/// Logits of a prompt's tokens.
fn logits(device: &Device, model: &Model, ids: &[u32]) -> (Vec<f32>, Runner) {
    let n_pages = ids.len().div_ceil(16);
    let options =
        RunnerOptions { max_tokens: 64, max_outputs: 64, kv: KvKind::F32, n_pages, n_states: 1, n_window_pages: 0 };
    let mut runner = device.prepare(model.plan().clone(), options).unwrap();
    let (mut inputs, mut out) =
        (Inputs { tables: vec![(0..n_pages as u32).collect()], ..Inputs::default() }, Vec::new());
    for (at, chunk) in ids.chunks(9).enumerate() {
        (inputs.tokens, inputs.positions, inputs.seqs) = Default::default();
        chunk.iter().enumerate().for_each(|(i, id)| _ = inputs.push(*id, (9 * at + i) as u32, 0));
        inputs.outputs = (0..chunk.len() as u32).collect();
        out.extend(runner.submit(&inputs).unwrap().wait().unwrap().logits);
    }
    (out, runner)
}

/// What the exam of whole models on a GPU allows with f32 caches.
const TOLERANCE: f64 = 1e-4;

#[test]
fn a_processor_and_a_gpu_agree_with_the_reference() {
    let cpu = device("scalar", Activations::F32);
    for (family, golden) in kinds() {
        let Some(gpu) = gpu(GpuOptions::default()) else { return };
        let shares = SplitOptions { shares: vec![1.0, 2.0], ..layers(usize::MAX) };
        let experts = SplitOptions { experts: Experts::OnCpu(usize::MAX), ..layers(usize::MAX) };
        let wanted = golden.logits.len() / golden.model.plan().n_vocab();
        for device in [
            split(&cpu, vec![gpu.clone()], layers(1)),
            split(&cpu, vec![gpu.clone()], experts),
            split(&cpu, vec![gpu.clone(), gpu.clone()], shares),
        ] {
            let (got, runner) = logits(&device, &golden.model, &golden.ids[..wanted]);
            let error = relative_error(&got, &golden.logits);
            assert!(error < TOLERANCE, "{family} ({}): {error:.1e}", runner.placement());
        }
    }
}

/// Eight prompts of several lengths, whose last rows are wanted, in one step.
fn eight(ids: &[u32]) -> Inputs {
    let mut inputs = Inputs::default();
    for seq in 0..8 {
        inputs.tables.push(vec![2 * seq, 2 * seq + 1]);
        for (position, id) in ids.iter().skip(seq as usize).take(9 + seq as usize).enumerate() {
            inputs.push(*id, position as u32, seq);
        }
        inputs.outputs.push(inputs.n_rows() as u32 - 1);
    }
    inputs
}

#[test]
fn several_sequences_keep_several_devices_busy() {
    let cpu = device("scalar", Activations::F32);
    for (family, golden) in kinds() {
        let Some(gpus) = [0, 1].map(|_| gpu(GpuOptions::default())).into_iter().collect::<Option<Vec<_>>>() else {
            return;
        };
        let inputs = eight(&golden.ids);
        let options = RunnerOptions {
            max_tokens: 128,
            max_outputs: 8,
            kv: KvKind::F32,
            n_pages: 16,
            n_states: 8,
            n_window_pages: 0,
        };
        let run = |gpus: &[Device], n: usize, micro: usize| {
            let options_of_split = SplitOptions { micro_batches: Some(micro), ..layers(n) };
            let device = split(&cpu, gpus.to_vec(), options_of_split);
            let mut runner = device.prepare(golden.model.plan().clone(), options).unwrap();
            let output = runner.submit(&inputs).unwrap().wait().unwrap();
            let at_work = match &runner {
                Runner::Split(runner) => runner.most_at_work(),
                _ => 1,
            };
            (output.logits, at_work)
        };
        let (want, _) = run(&gpus[..1], 0, 1);
        for (parts, n, micro, together) in [(&gpus[..1], 1, 1, 1), (&gpus[..1], 1, 4, 2), (&gpus[..], usize::MAX, 2, 2)]
        {
            let (got, at_work) = run(parts, n, micro);
            let error = relative_error(&got, &want);
            let what = format!("{family}, {} GPUs, {micro} micro-batches", parts.len());
            assert!(error < TOLERANCE, "{what}: {error:.1e}");
            assert_eq!(at_work, together, "{what}");
        }
    }
}

#[test]
fn a_budget_is_kept_with_as_many_layers_as_fit() {
    let cpu = device("scalar", Activations::F32);
    let model = || Model::from_bytes(ir_engine::builtin::bytes(), &ModelOptions::default()).unwrap();
    let (tiny_model, ids) = (model(), (1..41).collect::<Vec<u32>>());
    let Some(whole) = gpu(GpuOptions::default()) else { return };
    let (want, runner) = logits(&whole, &tiny_model, &ids);
    let taken = |runner: &Runner| runner.device_bytes().iter().map(|(_, bytes)| bytes).sum::<u64>();
    let all = taken(&runner);
    let auto = SplitOptions::default();
    let mut before = u64::MAX;
    for percent in [100, 80, 60] {
        let budget = all * percent / 100;
        let Some(gpu) = gpu(GpuOptions { memory: Some(budget), ..GpuOptions::default() }) else { return };
        let (got, runner) = logits(&split(&cpu, vec![gpu], auto.clone()), &tiny_model, &ids);
        let bytes = taken(&runner);
        assert!(bytes <= budget && bytes < before && (bytes == all) == (percent == 100), "{bytes} of {budget}");
        assert!(relative_error(&got, &want) < TOLERANCE, "{}", runner.placement());
        before = bytes;
    }
    // A head that no room is left for stays on the processor, behind the layers.
    let head = layers(1);
    let Some(one) = gpu(GpuOptions::default()) else { return };
    let (_, runner) = logits(&split(&cpu, vec![one], head), &tiny_model, &ids);
    let budget = taken(&runner) - 1;
    let Some(gpu) = gpu(GpuOptions { memory: Some(budget), ..GpuOptions::default() }) else { return };
    let (got, runner) = logits(&split(&cpu, vec![gpu], auto.clone()), &tiny_model, &ids);
    assert!(taken(&runner) <= budget && runner.placement().ends_with(&format!("the head on {}", cpu.name())));
    assert!(relative_error(&got, &want) < TOLERANCE, "{}", runner.placement());
    let Some(tiny) = crate::split::gpu(GpuOptions { memory: Some(1000), ..GpuOptions::default() }) else { return };
    let prepare = |options| {
        let options = SplitOptions { or_cpu: options, ..SplitOptions::default() };
        Engine::new(Arc::new(model()), &split(&cpu, vec![tiny.clone()], options), &EngineOptions::default())
    };
    let error = prepare(false).unwrap_err().to_string();
    assert!(error.contains("does not hold one layer"), "{error}");
    assert_eq!(prepare(true).unwrap().placement(), cpu.name(), "where the choice was open, the processor computes");
}

#[test]
fn what_a_gpu_does_not_compute_is_left_to_the_processor_if_the_choice_was_open() {
    let cpu = device("scalar", Activations::F32);
    let Some(gpu) = gpu(GpuOptions::default()) else { return };
    let model = Golden::load("llama3").model;
    let runs = Arc::clone(model.plan());
    let mut refused = Plan::clone(&runs);
    refused.kv.iter_mut().for_each(|shape| shape.k_dim = 4096);
    let refused = Arc::new(refused);
    for (or_cpu, plan) in [(true, &refused), (false, &refused), (true, &runs)] {
        let device = split(&cpu, vec![gpu.clone()], SplitOptions { or_cpu, ..SplitOptions::default() });
        let options = RunnerOptions {
            max_tokens: 8,
            max_outputs: 1,
            kv: KvKind::F16,
            n_pages: 4,
            n_states: 1,
            n_window_pages: 0,
        };
        match device.prepare(Arc::clone(plan), options) {
            Ok(runner) => {
                let on_cpu = runner.placement() == cpu.name();
                assert_eq!(on_cpu, Arc::ptr_eq(plan, &refused), "{}", runner.placement());
            }
            Err(error) => assert!(!or_cpu && error.to_string().contains("heads of 4096 elements"), "{error}"),
        }
    }
}

#[test]
fn what_crosses_are_activations() {
    let cpu = device("scalar", Activations::F32);
    let Some(folder) = shared("golden") else { return skipped("experts on the processor: there is no ../shared") };
    let golden = Golden::open(&folder.join("mixtral"));
    let plan = golden.model.plan();
    let ids = &golden.ids[..36];
    let experts = SplitOptions { experts: Experts::OnCpu(usize::MAX), ..layers(usize::MAX) };
    for (options, slots_per_layer) in [(layers(1), 1), (experts, 4)] {
        let (_, runner) = logits(&split(&cpu, vec![cpu.clone()], options), &golden.model, ids);
        let Runner::Split(runner) = runner else { panic!("it is not divided") };
        let width = plan.slots.iter().map(|slot| slot.cols).max().unwrap();
        let n_layers = golden.model.spec().layers.len();
        let most = (4 * width * ids.len() * slots_per_layer * n_layers) as u64;
        let crossed = runner.crossed();
        assert!(crossed > 0 && crossed <= most, "{}: {crossed} bytes crossed, {most} at most", runner.placement());
    }
}

#[test]
fn a_loss_in_the_second_part_costs_a_pause() {
    let cpu = device("scalar", Activations::F32);
    let golden = Golden::load("qwen3");
    let requests = requests(&golden);
    let model = Arc::new(golden.model);
    let Some(gpu) = gpu(GpuOptions::default()) else { return };
    let Device::Gpu(handle) = &gpu else { panic!("a GPU was opened") };
    let device = split(&cpu, vec![gpu.clone()], layers(1));
    let mut engine = Engine::new(Arc::clone(&model), &device, &EngineOptions::default()).unwrap();
    let want = steps(run(&mut engine, &requests, 0, None));
    handle.lose();
    let got = steps(run(&mut engine, &requests, 0, None));
    assert_eq!(got.len(), want.len());
    let tokens = |all: &[Vec<crate::engine::Step>]| -> Vec<Vec<u32>> {
        all.iter().map(|one| one.iter().map(|step| step.0).collect()).collect()
    };
    assert_eq!(tokens(&got), tokens(&want));
}

#[test]
fn shares_that_make_no_sense_are_refused() {
    let cpu = device("scalar", Activations::F32);
    for shares in [vec![1.0], vec![1.0, 0.0], vec![-1.0, 2.0], vec![f32::NAN, 1.0], vec![1.0, f32::INFINITY]] {
        let options = SplitOptions { shares: shares.clone(), ..SplitOptions::default() };
        let error = Split::new(cpu.clone(), vec![cpu.clone(), cpu.clone()], options).unwrap_err().to_string();
        assert!(error.contains("share"), "{shares:?}: {error}");
    }
}

/// Tokens per second of a small model, whole and in two halves on two pools of threads, in turn.
#[test]
fn a_division_costs_the_host_little() {
    if !full() {
        return skipped("the cost of a division: only with IR_FULL=1");
    }
    let cpu = || {
        let options = CpuOptions { threads: Some(1), ..CpuOptions::default() };
        Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
    };
    let (whole, halves) = (cpu(), split(&cpu(), vec![cpu()], layers(3)));
    let model = Arc::new(Model::from_bytes(ir_engine::builtin::bytes(), &ModelOptions::default()).unwrap());
    let rate = |device: &Device| {
        let mut engine = Engine::new(Arc::clone(&model), device, &EngineOptions::default()).unwrap();
        let request = Request { prompt: vec![1, 2, 3], max_tokens: Some(900), ignore_eos: true, ..Request::default() };
        engine.add(Request { sampling: Sampling::greedy(), ..request }, 0.0).unwrap();
        let started = std::time::Instant::now();
        while !engine.is_idle() {
            wait(engine.step(&|| 0.0)).unwrap();
        }
        900.0 / started.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..9).map(|_| rate(&halves) / rate(&whole)).collect();
    ratios.sort_by(f64::total_cmp);
    println!("two halves: {:.3} of the whole (median of nine; {:.3} to {:.3})", ratios[4], ratios[0], ratios[8]);
    assert!(ratios[4] >= 0.97, "{ratios:?}");
}
