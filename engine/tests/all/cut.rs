//! A plan in two parts on one device, the border's slots copied, gives the same bits as the whole.

use std::sync::Arc;

use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, Runner, RunnerOptions};
use ir_engine::plan::{Inputs, Plan, Pool};

use crate::common::Golden;

/// Two steps of a sequence, each followed by its logits and its mean: a prompt, and a token behind it.
fn steps(ids: &[u32]) -> Vec<Inputs> {
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

fn run_all(runner: &mut Runner, inputs: &Inputs) {
    runner.run_ops(0..runner.plan().ops.len(), inputs).unwrap();
}

/// Cuts the plan at every `stride`-th place that the caches allow; gives how many there were.
fn cuts(device: &Device, name: &str, stride: usize) -> usize {
    let golden = Golden::load(name);
    let plan = golden.model.plan();
    let ids: Vec<u32> = golden.ids.iter().copied().take(40).collect();
    let mut whole = prepare(device, plan);
    let results = [plan.logits, plan.pooled.unwrap()];
    let want: Vec<_> = steps(&ids)
        .iter()
        .map(|inputs| {
            run_all(&mut whole, inputs);
            results.map(|slot| whole.slot(slot, inputs).unwrap())
        })
        .collect();
    let mut n = 0;
    for at in (0..=plan.ops.len()).step_by(stride) {
        let Ok((first, second, crossing)) = plan.cut(at) else { continue };
        let (mut first, mut second) = (prepare(device, &first), prepare(device, &second));
        for (inputs, want) in steps(&ids).iter().zip(&want) {
            run_all(&mut first, inputs);
            for slot in &crossing {
                second.set_slot(*slot, inputs, &first.slot(*slot, inputs).unwrap()).unwrap();
            }
            run_all(&mut second, inputs);
            for (slot, want) in results.into_iter().zip(want) {
                let written = |part: &Runner| part.plan().ops.iter().any(|e| e.op.writes() == Some(slot));
                let part = if written(&second) { &mut second } else { &mut first };
                assert_eq!(
                    &part.slot(slot, inputs).unwrap(),
                    want,
                    "{name} on {} cut at {at}: {slot:?}",
                    device.name()
                );
            }
        }
        n += 1;
    }
    n
}

#[test]
fn two_parts_give_the_bits_of_the_whole() {
    for name in ["llama3", "qwen3"] {
        let options = CpuOptions { threads: Some(2), simd: None, activations: Activations::Quantised };
        let n = cuts(&Device::Cpu(Arc::new(Cpu::new(&options).unwrap())), name, 1);
        assert!(n > 10, "{name}: {n} cuts");
        #[cfg(feature = "gpu")]
        match ir_engine::gpu::Gpu::open_now(&ir_engine::gpu::GpuOptions::default()) {
            Ok(gpu) => _ = cuts(&Device::Gpu(Arc::new(gpu)), name, 5),
            Err(error) => eprintln!("skipped on a GPU: {error}"),
        }
    }
}
