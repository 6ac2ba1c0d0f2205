//! Quantised story models on this machine's GPU, in every form of the kernels, against logits that were computed in
//! float64 from the same decoded weights. The files are read beside the checkout; skips are said on stderr.
#![cfg(feature = "gpu")]

use std::sync::Arc;

use crate::common::{argmax, relative_error, shared, skipped};
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::model::{Model, ModelOptions};
use ir_engine::plan::Inputs;

/// The forms, and the relative error that they may have over the reference's eight largest logits: f32 arithmetic over a
/// cache of halves; tiles of halves; activations rounded to 8 bits.
const FORMS: &[(&str, KvKind, f64)] =
    &[("base", KvKind::F32, 2e-3), ("base+f16+subgroups", KvKind::F16, 1e-2), ("base+dot4", KvKind::F16, 2e-2)];

/// Logits after the last token, the prompt in one step or token by token.
fn last_logits(device: &Device, model: &Model, ids: &[u32], kv: KvKind, chunk: usize) -> Vec<f32> {
    let options = RunnerOptions {
        max_tokens: chunk,
        max_outputs: 1,
        kv,
        n_pages: ids.len().div_ceil(16),
        n_states: 1,
        n_window_pages: 0,
    };
    let mut runner = device.prepare(Arc::clone(model.plan()), options).unwrap();
    let mut inputs = Inputs { tables: vec![(0..options.n_pages as u32).collect()], ..Inputs::default() };
    let mut logits = Vec::new();
    for (i, ids) in ids.chunks(chunk).enumerate() {
        inputs.tokens.clear();
        inputs.positions.clear();
        inputs.seqs.clear();
        for (j, id) in ids.iter().enumerate() {
            inputs.push(*id, (i * chunk + j) as u32, 0);
        }
        inputs.outputs = vec![ids.len() as u32 - 1];
        logits = runner.submit(&inputs).unwrap().wait().unwrap().logits;
    }
    logits
}

#[test]
fn logits_of_quantised_models_agree_with_float64() {
    let Some(golden) = shared("models/golden.json") else { return };
    let models = golden.parent().unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(&golden).unwrap()).unwrap();
    for (forms, kv, tolerance) in FORMS {
        let device =
            match Gpu::open_now(&GpuOptions { forms: Some(Forms::parse(forms).unwrap()), ..Default::default() }) {
                Ok(gpu) => Device::Gpu(Arc::new(gpu)),
                Err(error) => {
                    skipped(format_args!("{forms}: {error}"));
                    continue;
                }
            };
        let (mut n, mut worst) = (0, (0.0, String::new()));
        for (file, cases) in golden.as_object().unwrap() {
            // Some of the reference's folders are others here.
            let name = file.rsplit('/').next().unwrap();
            let places = [models.join(file), models.join("babyllama-1M").join(name)];
            let Some(path) = places.iter().find(|path| path.exists()) else {
                skipped(format_args!("{file} is not beside this checkout"));
                continue;
            };
            let model = Model::open(path, &ModelOptions::default()).unwrap();
            // Plain types are the families' exam.
            let quantised = model.plan().weights.iter().flat_map(|w| &w.segments).any(|s| s.dtype.block_len() > 1);
            for case in cases.as_array().unwrap().iter().take(1).filter(|_| quantised) {
                let ids: Vec<u32> =
                    case["prompt_ids"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect();
                let top: Vec<(usize, f32)> = case["next_logits_top8"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|pair| (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap() as f32))
                    .collect();
                let want: Vec<f32> = top.iter().map(|t| t.1).collect();
                for chunk in [ids.len(), 1] {
                    let logits = last_logits(&device, &model, &ids, *kv, chunk);
                    let got: Vec<f32> = top.iter().map(|t| logits[t.0]).collect();
                    let error = relative_error(&got, &want);
                    assert!(error <= *tolerance, "{forms}, {file}, chunks of {chunk}: {error:e} above {tolerance:e}");
                    if want[0] - want[1] > 2.0 * want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) {
                        assert_eq!(argmax(&logits) as usize, top[0].0, "{forms}, {file}, chunks of {chunk}");
                    }
                    if error > worst.0 {
                        worst = (error, file.clone());
                    }
                    n += 1;
                }
            }
        }
        println!("{forms}: {n} cases, largest relative error {:.1e} ({})", worst.0, worst.1);
        assert!(n >= 10, "only {n} cases");
    }
}
