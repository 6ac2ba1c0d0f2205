//! What a GPU picks against what the sampler picks from the whole row, on identical logits. Skips are said on stderr.
#![cfg(feature = "gpu")]

use std::sync::Arc;

use crate::common::exam::Random;
use crate::common::skipped;
use ir_engine::bytes::Bytes;
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::plan::{Inputs, Lookup, Plan, Recorder, Segment, Weight};
use ir_engine::run::{Sampler, Sampling};

const ROWS: usize = 6;

/// A plan whose logits are the rows of its token table, and that table.
fn table(n_vocab: usize, random: &mut Random) -> (Plan, Vec<f32>) {
    let mut values: Vec<f32> = (0..ROWS * n_vocab).map(|_| 8.0 * random.float() * random.float()).collect();
    // Equal largest values, and a banned token.
    values[n_vocab / 2] = 9.0;
    values[n_vocab / 3] = 9.0;
    values[n_vocab / 4] = f32::NEG_INFINITY;
    let mut rec = Recorder::new();
    let segment = Segment {
        name: "table".into(),
        dtype: DType::F32,
        rows: ROWS,
        bytes: Bytes::from(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
        row_bytes: 4 * n_vocab,
        offset: 0,
    };
    let table = rec.weight(Weight { name: "table".into(), cols: n_vocab, segments: vec![segment] });
    let x = rec.embed(table, Lookup::Token).unwrap();
    let logits = rec.take_rows(x).unwrap();
    (rec.finish(logits), values)
}

fn samplings() -> Vec<Sampling> {
    let plain = Sampling { top_k: 0, top_p: 1.0, min_p: 0.0, ..Sampling::default() };
    let bias = vec![(7, f32::NEG_INFINITY), (11, 3.0), (12, -2.0)];
    vec![
        Sampling { temperature: 0.0, ..plain.clone() },
        Sampling { temperature: 1.0, ..plain.clone() },
        Sampling { temperature: 0.3, min_p: 0.1, ..plain.clone() },
        Sampling {
            temperature: 1.5,
            repeat_penalty: 1.3,
            presence_penalty: 0.2,
            frequency_penalty: 0.1,
            ..plain.clone()
        },
        Sampling { logit_bias: bias.clone(), repeat_penalty: 1.1, ..plain },
        Sampling::default(),
        Sampling {
            top_k: 64,
            top_p: 0.8,
            typical_p: 0.9,
            logit_bias: bias,
            repeat_penalty: 1.2,
            ..Sampling::default()
        },
        // No candidates of a fixed number can prove this one: the row is read.
        Sampling { top_k: 0, top_p: 0.9, ..Sampling::default() },
    ]
}

/// Picks that may differ, of all: two scores within the rounding of a driver's logarithm of each other.
const NEAR_TIES: f64 = 0.005;

#[test]
fn picks_equal_those_of_the_whole_row() {
    for forms in ["base", "base+subgroups"] {
        let options = GpuOptions { forms: Some(Forms::parse(forms).unwrap()), ..GpuOptions::default() };
        let device = match Gpu::open_now(&options) {
            Ok(gpu) => Device::Gpu(Arc::new(gpu)),
            Err(error) => return skipped(error),
        };
        let (mut n, mut different) = (0, 0);
        for n_vocab in [50, 1000, 5000, 70_000] {
            let mut random = Random(n_vocab as u64);
            let (plan, values) = table(n_vocab, &mut random);
            let options = RunnerOptions {
                max_tokens: ROWS,
                max_outputs: ROWS,
                kv: KvKind::F16,
                n_pages: 1,
                n_states: 1,
                n_window_pages: 0,
            };
            let mut runner = device.prepare(Arc::new(plan), options).unwrap();
            for seed in 0..8 {
                for sampling in samplings() {
                    let mut sampler = Sampler::new(Sampling { seed, ..sampling.clone() });
                    let mut inputs = Inputs { tables: vec![vec![0]], ..Inputs::default() };
                    let mut texts = Vec::new();
                    for row in 0..ROWS as u32 {
                        inputs.push(row, row, 0);
                        inputs.outputs.push(row);
                        let tokens: Vec<u32> = (0..20 + row).map(|_| random.below(n_vocab.min(60)) as u32).collect();
                        inputs.wants.push(sampler.want(&tokens, row, &mut inputs.changes));
                        texts.push(tokens);
                    }
                    let output = runner.submit(&inputs).unwrap().wait().unwrap();
                    for (row, tokens) in texts.iter().enumerate() {
                        let want = sampler.sample(&values[row * n_vocab..][..n_vocab], tokens).unwrap();
                        let got = match &output.picked[row] {
                            Some(picked) => sampler.finish(picked, tokens).unwrap(),
                            None => sampler.sample(output.row(row), tokens).unwrap(),
                        };
                        n += 1;
                        different += usize::from(got != want);
                        assert!(got == want || sampling.temperature > 0.0, "greedy: {got}, not {want}");
                    }
                }
            }
        }
        println!("{forms}: {different} of {n} picks differ");
        assert!(n > 1000 && different as f64 <= NEAR_TIES * f64::from(n), "{forms}: {different} of {n} picks differ");
    }
}

#[test]
fn damaged_rows_are_errors_and_not_picks() {
    let Ok(gpu) = Gpu::open_now(&GpuOptions::default()) else { return skipped("no GPU") };
    for damage in [f32::NAN, f32::INFINITY] {
        for (i, sampling) in samplings().into_iter().enumerate().filter(|(_, s)| s.top_k != 0 || s.top_p == 1.0) {
            let (plan, _) = table(3000, &mut Random(1));
            let mut rec = Recorder::new();
            let mut values = vec![0.5f32; 3000];
            values[1234] = damage;
            let bytes = Bytes::from(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
            let segment = Segment { bytes, rows: 1, ..plan.weights[0].segments[0].clone() };
            let table = rec.weight(Weight { name: "table".into(), cols: 3000, segments: vec![segment] });
            let x = rec.embed(table, Lookup::Token).unwrap();
            let logits = rec.take_rows(x).unwrap();
            let options = RunnerOptions {
                max_tokens: 1,
                max_outputs: 1,
                kv: KvKind::F16,
                n_pages: 1,
                n_states: 1,
                n_window_pages: 0,
            };
            let device = Device::Gpu(Arc::new(Gpu::open_now(&GpuOptions::default()).unwrap()));
            let mut runner = device.prepare(Arc::new(rec.finish(logits)), options).unwrap();
            let mut sampler = Sampler::new(sampling);
            let mut inputs = Inputs { tables: vec![vec![0]], outputs: vec![0], ..Inputs::default() };
            inputs.push(0, 0, 0);
            inputs.wants.push(sampler.want(&[1], 0, &mut inputs.changes));
            let output = runner.submit(&inputs).unwrap().wait().unwrap();
            let picked = output.picked[0].as_ref().unwrap();
            assert!(sampler.finish(picked, &[1]).is_err(), "{damage} with sampling {i} on {}", gpu.name());
        }
    }
}
