//! Folders of quantised weights: the goldens agree with PyTorch, and folders of other families that are quantised here compute
//! what the values of their matrices compute.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::common::{Golden, Scratch, relative_error, shared};
use crate::families::{SCALAR, check, logits};
use ir_engine::convert::{Job, Observer, Settings};
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::dtype::DType;
use ir_engine::file::safetensors::{Element, Stored};
use ir_engine::file::{Folder, GgufWriter, ModelFile, Tensor};
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Model, ModelOptions, open_file, open_natural};
use ir_engine::plan::OpKind;
use ir_engine::quant;
use ir_engine::quant::mixes::Mix;

/// How far weights may be off that are rounded to f16: FP8 in files, and columns whose order is not that of what is multiplied
/// with the same columns.
const ROUNDED: f64 = 1e-3;

/// Goldens of quantised folders, and how far they may be off.
const GOLDENS: &[(&str, f64)] = &[
    ("awq", SCALAR.1),
    ("fp8-block", SCALAR.1),
    ("fp8-channel", SCALAR.1),
    ("fp8-tensor", SCALAR.1),
    ("gptq", SCALAR.1),
    ("gptq-act-order", ROUNDED),
];

#[test]
fn quantised_folders_agree_with_pytorch() {
    let Some(goldens) = shared("golden-quant") else { return };
    let mut faults = Vec::new();
    for (name, tolerance) in GOLDENS {
        let dir = goldens.join(name);
        match Model::open(&dir.join("hf"), &ModelOptions::default()) {
            Ok(model) => faults.extend(check(&Golden::with(&dir, model), name, SCALAR.0, *tolerance)),
            Err(e) => faults.push(format!("{name}: {e}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn quantised_folders_become_files() {
    let Some(goldens) = shared("golden-quant") else { return };
    let scratch = Scratch::new("quantised-files");
    for (name, _) in GOLDENS {
        let dir = goldens.join(name);
        let to = scratch.0.join(format!("{name}.gguf"));
        let (folder, settings) = (open_natural(&dir.join("hf"), false).unwrap(), Settings::default());
        Job::new(&folder, &settings).unwrap().write(&to, 2, &mut |_| true).unwrap();
        let golden = Golden::with(&dir, Model::open(&to, &ModelOptions::default()).unwrap());
        assert_eq!(check(&golden, name, SCALAR.0, ROUNDED), None);
    }
}

/// The folder of act-order, with one order for all matrices that are multiplied with the same columns, as GPTQ finds it.
fn in_one_order(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let mut all = std::fs::read(from.join("model.safetensors")).unwrap();
    let start = 8 + u64::from_le_bytes(all[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&all[8..start]).unwrap();
    let place = |name: &str| {
        let at = |i: usize| start + header[name]["data_offsets"][i].as_u64().unwrap() as usize;
        at(0)..at(1)
    };
    for layer in 0..2 {
        let order = |part: &str| place(&format!("model.layers.{layer}.{part}_proj.g_idx"));
        for (part, of) in [("self_attn.k", "self_attn.q"), ("self_attn.v", "self_attn.q"), ("mlp.up", "mlp.gate")] {
            all.copy_within(order(of), order(part).start);
        }
    }
    std::fs::write(to.join("model.safetensors"), all).unwrap();
}

/// Of act-order columns lie in the order of their groups in blocks, which an op in front of each product follows, and inputs of
/// matrices are observed in their own order.
#[test]
fn act_order_stays_in_blocks() {
    let Some(goldens) = shared("golden-quant") else { return };
    let (golden, scratch) = (goldens.join("gptq-act-order"), Scratch::new("act-order"));
    let dir = scratch.0.join("folder");
    in_one_order(&golden.join("hf"), &dir);
    let model = Model::open(&dir, &ModelOptions::default()).unwrap();
    let n_of = |kind| model.plan().ops.iter().filter(|entry| entry.op.kind() == kind).count();
    let blocks = model.plan().weights.iter().flat_map(|w| &w.segments).filter(|s| s.dtype.block_len() == 32).count();
    assert_eq!((n_of(OpKind::TakeCols), blocks), (4 * 2, 7 * 2), "{}", model.plan());
    let natural = open_natural(&dir, false).unwrap();
    let error = off(&natural, &dir, &scratch.0.join("plain.gguf"), &golden).unwrap();
    assert!(error < ROUNDED, "{error:e}");
    let natural = Model::from_file(natural, &ModelOptions::default()).unwrap();
    let observed = |model: &Model| {
        let options = CpuOptions { threads: Some(1), simd: Some("scalar".into()), activations: Activations::F32 };
        let mut observer = Observer::new(Arc::new(Cpu::new(&options).unwrap()), model.plan(), 8).unwrap();
        observer.add(&[1, 5, 9, 13, 17]).unwrap();
        let path = scratch.0.join("imatrix.gguf");
        observer.write(&path, "text").unwrap();
        let file = ModelFile::read(&path).unwrap();
        ["attn_q", "attn_output", "ffn_down"].map(|base| {
            let tensor = file.tensor(&format!("blk.1.{base}.weight.in_sum2")).unwrap();
            let mut sums = vec![0.0; tensor.n_elements() as usize];
            quant::decode(tensor.dtype().unwrap(), &file.bytes(tensor).unwrap(), &mut sums).unwrap();
            sums
        })
    };
    for (ordered, natural) in observed(&model).iter().zip(&observed(&natural)) {
        assert!(relative_error(ordered, natural) < ROUNDED && natural[0] != natural[1], "{ordered:?}, {natural:?}");
    }
    let error = Job::new(&open_file(&dir, false).unwrap(), &Settings::default()).err().map(|e| e.to_string());
    assert!(error.is_some_and(|e| e.contains("open_natural")));
}

/// FP8 takes its own bytes, a byte for a weight and a scale for a block's 128 where blocks have scales, and not those of f16.
#[test]
fn floats_of_8_bits_take_half_the_memory() {
    let Some(goldens) = shared("golden-quant") else { return };
    for name in ["fp8-tensor", "fp8-channel", "fp8-block"] {
        let model = Model::open(&goldens.join(name).join("hf"), &ModelOptions::default()).unwrap();
        let matrices = |w: &&ir_engine::plan::Weight| w.cols > 1 && w.name.starts_with("blk.");
        let mut n = 0;
        for weight in model.plan().weights.iter().filter(matrices) {
            for segment in &weight.segments {
                // A matrix of a single block has one scale, which stands beside it.
                let blocks = name == "fp8-block" && segment.rows.max(weight.cols) > 128;
                assert_eq!(segment.dtype, quant::FLOATS_OF_8[usize::from(blocks)], "{name}: {}", segment.name);
                let elements = segment.rows * weight.cols;
                assert_eq!(
                    segment.bytes.len(),
                    if blocks { elements / 128 * 132 } else { elements },
                    "{}",
                    segment.name
                );
                n += 1;
            }
        }
        assert!(n >= 7, "{name}: {n} matrices");
    }
}

/// No file gets a type that GGUF has no number for.
#[test]
fn files_have_no_floats_of_8_bits() {
    let mut writer = GgufWriter::new(MetaBuilder::new()).unwrap();
    for dtype in quant::FLOATS_OF_8 {
        let said = writer.tensor("w", &[128, 2], dtype).unwrap_err().to_string();
        assert!(said.contains(dtype.name()) && said.contains("its values are F16"), "{said}");
        assert!(DType::from_id(dtype as u32).is_err() && DType::from_name(dtype.name()) == Some(dtype));
    }
}

/// A tensor to be written.
type Written = (String, &'static str, Vec<u64>, Vec<u8>);

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A row in FP8 with its scale: the nearest of all values.
fn to_fp8(row: &[f32]) -> (f32, Vec<u8>, Vec<f32>) {
    let value = |byte: u8| {
        let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
        let size = if exponent == 0 { mantissa * 2f32.powi(-6) } else { (1.0 + mantissa) * 2f32.powi(exponent - 7) };
        if byte < 128 { size } else { -size }
    };
    let scale = row.iter().fold(1e-9f32, |most, x| most.max(x.abs())) / 448.0;
    let off = |byte: &u8, x: f32| (value(*byte) * scale - x).abs();
    let nearest = |x: &f32| (0..=255u8).filter(|b| b & 127 < 127).min_by(|a, b| off(a, *x).total_cmp(&off(b, *x)));
    let all: Vec<u8> = row.iter().map(|x| nearest(x).unwrap()).collect();
    let values = all.iter().map(|b| value(*b) * scale).collect();
    (scale, all, values)
}

/// A group in integers of 4 bits around 8 with its scale, which an f16 holds.
fn to_4_bits(group: &[f32]) -> (f32, Vec<u8>, Vec<f32>) {
    let scale = group.iter().fold(1e-4f32, |most, x| most.max(x.abs())) / 7.0;
    let (mut half, mut rounded) = (Vec::new(), [0.0]);
    quant::encode(DType::F16, &[scale], &mut half).unwrap();
    quant::decode(DType::F16, &half, &mut rounded).unwrap();
    let scale = rounded[0];
    let all: Vec<i32> = group.iter().map(|x| ((x / scale).round() as i32).clamp(-8, 7)).collect();
    let values = all.iter().map(|q| *q as f32 * scale).collect();
    (scale, all.iter().map(|q| (q + 8) as u8).collect(), values)
}

/// A matrix as compressed-tensors has it, in FP8 or in 4 bits, and the values that it has.
fn quantised(name: &str, values: &[f32], [rows, cols]: [u64; 2], fp8: bool) -> (Vec<Written>, Vec<f32>) {
    let wide = cols as usize;
    let base = name.strip_suffix(".weight").unwrap();
    let (mut scales, mut numbers, mut result) = (Vec::new(), Vec::new(), Vec::new());
    let group = if fp8 || !wide.is_multiple_of(32) { wide } else { 32 };
    for row in values.chunks_exact(wide) {
        let mut packed = Vec::new();
        for group in row.chunks_exact(group) {
            let (scale, all, values) = if fp8 { to_fp8(group) } else { to_4_bits(group) };
            scales.push(scale);
            packed.extend(all);
            result.extend(values);
        }
        match fp8 {
            true => numbers.extend(packed),
            false => numbers.extend(packed.chunks(8).flat_map(|n| {
                (0..4).map(move |i| n.get(2 * i).map_or(0, |q| *q) | n.get(2 * i + 1).map_or(0, |q| *q) << 4)
            })),
        }
    }
    let scale_shape = vec![rows, (wide / group) as u64];
    let scale = (format!("{base}.weight_scale"), "F32", scale_shape, bytes(&scales));
    let shape = [rows, cols].iter().flat_map(|n| n.to_le_bytes()).collect();
    let all = match fp8 {
        true => vec![(name.to_owned(), "F8_E4M3", vec![rows, cols], numbers), scale],
        false => vec![
            (format!("{base}.weight_packed"), "I32", vec![rows, cols.div_ceil(8)], numbers),
            (format!("{base}.weight_shape"), "I64", vec![2], shape),
            scale,
        ],
    };
    (all, result)
}

fn write(folder: &Path, config: &Value, tensors: &[Written]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let range = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": range}));
        data.extend_from_slice(bytes);
    }
    let header = Value::Object(header).to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    std::fs::write(folder.join("model.safetensors"), out).unwrap();
}

/// A tensor's values.
fn values(tensor: &Stored) -> Vec<f32> {
    let dtype = match tensor.element {
        Element::BF16 => DType::BF16,
        Element::F16 => DType::F16,
        _ => DType::F32,
    };
    let mut values = vec![0.0; tensor.n_elements() as usize];
    quant::decode(dtype, &tensor.bytes, &mut values).unwrap();
    values
}

/// Whether linear layers that are quantised have such names.
fn is_linear(tensor: &Stored) -> bool {
    let others = ["embed", "norm", "lm_head", ".gate.weight", "shared_expert_gate", "in_proj_ba", "conv1d"];
    tensor.shape().len() == 2 && tensor.name.ends_with(".weight") && !others.iter().any(|o| tensor.name.contains(o))
}

/// The values of a model's tensors, those of quantised matrices with their factors.
fn tensors(file: &ModelFile) -> BTreeMap<String, Vec<f32>> {
    let decoded = |tensor: &Tensor| {
        let mut values = vec![0.0; tensor.n_elements() as usize];
        quant::decode(tensor.dtype().unwrap(), &file.bytes(tensor).unwrap(), &mut values).unwrap();
        values
    };
    let of = |tensor: &Tensor| {
        let (name, mut values) = (tensor.name().to_owned(), decoded(tensor));
        let factors = name.strip_suffix(".weight").and_then(|base| file.tensor(&format!("{base}.scale"))).map(decoded);
        let rows = values.len() / tensor.dims()[0] as usize;
        if let Some(factors) = factors.filter(|factors| factors.len() == rows) {
            for (row, factor) in values.chunks_exact_mut(tensor.dims()[0] as usize).zip(factors) {
                row.iter_mut().for_each(|x| *x *= factor);
            }
        }
        (name, values)
    };
    file.tensors().iter().filter(|t| !t.name().ends_with(".scale")).map(of).collect()
}

/// Experts, matrices that a family takes apart, factors of its own, biases.
const FAMILIES: &[&str] = &["qwen2", "qwen3-moe", "qwen3-next", "deepseek-v3", "falcon-h1", "gptneox", "nemotron-h"];

/// Writes a folder's model with its linear layers quantised, and with the values that these have then.
fn write_both(folder: &Folder, small: &Path, plain: &Path, fp8: bool) {
    let (mut few, mut all) = (Vec::new(), Vec::new());
    for tensor in folder.tensors() {
        let (mut values, shape) = (values(tensor), tensor.shape().to_vec());
        let as_is = |values: &[f32]| (tensor.name.clone(), "F32", shape.clone(), bytes(values));
        if is_linear(tensor) {
            let (written, result) = quantised(&tensor.name, &values, [shape[0], shape[1]], fp8);
            few.extend(written);
            values = result;
        } else {
            few.push(as_is(&values));
        }
        all.push(as_is(&values));
    }
    let mut config = folder.config().clone();
    write(plain, &config, &all);
    let weights = json!({"num_bits": if fp8 { 8 } else { 4 }});
    config["quantization_config"] =
        json!({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}});
    write(small, &config, &few);
    for (file, to) in ["tokenizer.json", "tokenizer_config.json"].iter().flat_map(|file| [(file, small), (file, plain)])
    {
        std::fs::copy(folder.path().join(file), to.join(file)).unwrap();
    }
}

/// The logits of a golden's prompt.
fn computed(model: &Path, golden: &Path) -> ir_engine::Result<Vec<f32>> {
    let golden = Golden::with(golden, Model::open(model, &ModelOptions::default())?);
    let (simd, activations, kv) = SCALAR.0;
    Ok(logits(&golden, &golden.ids, simd, activations, kv))
}

/// How far the logits of a folder are from those of a file with the values that its matrices have as they are read.
fn off(file: &ModelFile, folder: &Path, plain: &Path, golden: &Path) -> ir_engine::Result<f64> {
    let settings = Settings { mix: Mix::of("F32"), ..Settings::default() };
    Job::new(file, &settings)?.write(plain, 2, &mut |_| true)?;
    Ok(relative_error(&computed(folder, golden)?, &computed(plain, golden)?))
}

/// The tensor whose values are furthest apart, and how far.
fn furthest(few: &BTreeMap<String, Vec<f32>>, all: &BTreeMap<String, Vec<f32>>) -> (f64, String) {
    let off = |name: &str, values: &[f32]| if few[name] == values { 0.0 } else { relative_error(&few[name], values) };
    let errors = all.iter().map(|(name, values)| (off(name, values), name.clone()));
    errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

#[test]
fn other_families_compute_what_their_values_compute() {
    let Some(goldens) = shared("golden") else { return };
    let scratch = Scratch::new("quantised");
    let mut faults = Vec::new();
    for (name, fp8) in FAMILIES.iter().flat_map(|name| [(name, false), (name, true)]) {
        let dir = goldens.join(name);
        let (small, plain) = (scratch.0.join("small"), scratch.0.join("plain"));
        write_both(&Folder::open(&dir.join("hf")).unwrap(), &small, &plain, fp8);
        let file = open_file(&small, false).unwrap();
        let [few, all] = [tensors(&file), tensors(&open_file(&plain, false).unwrap())];
        assert_eq!(few.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>(), "{name}");
        let (worst, tensor) = furthest(&few, &all);
        match off(&file, &small, &scratch.0.join("plain.gguf"), &dir) {
            Ok(error) => {
                println!("{name}, FP8 {fp8}: relative error {error:.1e}, of weights {worst:.1e} ({tensor})");
                if !(worst < ROUNDED && error < SCALAR.1) {
                    faults
                        .push(format!("{name}, FP8 {fp8}: relative error {error:e}, of weights {worst:e} ({tensor})"));
                }
            }
            Err(e) => faults.push(format!("{name}, FP8 {fp8}: {e}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_quantised_in_another_way_is_refused() {
    let scratch = Scratch::new("quantised-otherwise");
    let says = |quantisation: Value| {
        let config = json!({"architectures": ["LlamaForCausalLM"], "quantization_config": quantisation});
        let weight = |name: &str, dtype| (name.to_owned(), dtype, vec![4, 4], vec![0; 16]);
        write(&scratch.0, &config, &[weight("model.layers.0.mlp.up_proj.weight", "F8_E5M2")]);
        open_file(&scratch.0, false).unwrap_err().to_string()
    };
    let cases = [
        (json!({"quant_method": "bitsandbytes"}), r#"quantised by "bitsandbytes""#),
        (json!({"bits": 4}), r#"quantised by "an unnamed method""#),
        (json!({"quant_method": "gptq", "checkpoint_format": "marlin"}), r#"in the format "marlin""#),
        (json!({"quant_method": "awq", "version": "gemv"}), r#"in the format "gemv""#),
        (json!({"quant_method": "compressed-tensors", "format": "marlin-24"}), r#"in the format "marlin-24""#),
        (
            json!({"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"R1": {}}}}),
            r#"in the format "with transforms""#,
        ),
        (json!({"quant_method": "fp8"}), "is of the type F8_E5M2"),
    ];
    for (quantisation, want) in cases {
        let said = says(quantisation);
        assert!(said.contains(want), "{said}");
    }
}
