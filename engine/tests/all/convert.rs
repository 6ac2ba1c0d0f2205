//! Files made of others: folders become what llama.cpp's converter makes of them, mixes give the types that they should, parts
//! are cut and joined, and what was stopped leaves nothing.

use std::path::Path;
use std::sync::Arc;

use crate::common::{Golden, Scratch, data, relative_error, shared};
use crate::families::{SCALAR, check};
use ir_engine::convert::{self, ImportanceMatrix, Job, Observer, PartLimit, Settings};
use ir_engine::cpu::{Cpu, CpuOptions};
use ir_engine::dtype::DType;
use ir_engine::file::{GgufWriter, ModelFile, Tensor};
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Model, ModelOptions, open_file};
use ir_engine::quant::{self, mixes::Mix};

fn values(file: &ModelFile, tensor: &Tensor) -> Vec<f32> {
    let mut out = vec![0.0; tensor.n_elements() as usize];
    quant::decode(tensor.dtype().unwrap(), &file.bytes(tensor).unwrap(), &mut out).unwrap();
    out
}

fn write(from: &ModelFile, settings: &Settings, to: &Path) {
    Job::new(from, settings).unwrap().write(to, 2, &mut |_| true).unwrap();
}

/// One of each kind: q and k permuted, fused and split, experts, folded vectors, value heads dealt out, factors.
const CONVERTED: &[&str] =
    &["llama3", "falcon-40b", "gemma3", "qwen35", "qwen35-moe", "deepseek-v3", "gpt-oss", "falcon-h1", "gpt2"];

#[test]
fn a_converted_folder_is_the_converters_file() {
    let Some(goldens) = shared("golden") else { return };
    let scratch = Scratch::new("folders");
    for name in CONVERTED {
        let dir = goldens.join(name);
        let to = scratch.0.join(format!("{name}.gguf"));
        write(&open_file(&dir.join("hf"), false).unwrap(), &Settings::default(), &to);
        let (ours, theirs) = (ModelFile::open(&to).unwrap(), ModelFile::open(&dir.join("model-bf16.gguf")).unwrap());
        assert!(ours.meta().iter().all(|(key, _)| !key.starts_with("folder.")), "{name}");
        for tensor in theirs.tensors() {
            let found = ours.tensor(tensor.name()).unwrap_or_else(|| panic!("{name}: no {}", tensor.name()));
            let (a, b) = (values(&ours, found), values(&theirs, tensor));
            let near = a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs());
            assert!(a.len() == b.len() && near, "{name}: {} has other values", tensor.name());
        }
        let golden = Golden::with(&dir, Model::open(&to, &ModelOptions::default()).unwrap());
        assert_eq!(check(&golden, name, SCALAR.0, SCALAR.1), None);
    }
}

#[test]
fn a_file_that_is_rounded_computes_nearly_the_same() {
    let scratch = Scratch::new("mixes");
    let dir = data().join("golden/llama3");
    let from = ModelFile::open(&dir.join("model-bf16.gguf")).unwrap();
    for (mix, bound) in [("F32", 1e-7), ("F16", 1e-3), ("Q8_0", 2e-2), ("Q5_1", 8e-2), ("Q4_0", 0.3), ("IQ4_NL", 0.3)] {
        let to = scratch.0.join(format!("{mix}.gguf"));
        write(&from, &Settings { mix: Mix::of(mix), ..Settings::default() }, &to);
        let made = ModelFile::open(&to).unwrap();
        let rounded = made.tensor("blk.1.ffn_up.weight").unwrap();
        assert_eq!(rounded.dtype().unwrap().name(), mix);
        let error =
            relative_error(&values(&made, rounded), &values(&from, from.tensor("blk.1.ffn_up.weight").unwrap()));
        assert!(error < bound, "{mix}: {error}");
        assert_eq!(made.tensor("blk.0.attn_norm.weight").unwrap().dtype().unwrap(), DType::F32);
        assert_eq!(made.meta().u32("general.file_type").unwrap(), Mix::of(mix).unwrap().file_type);
        Model::open(&to, &ModelOptions::default()).unwrap();
    }
}

/// A file of a llama's shapes, without weights that mean anything.
fn shapes(layers: usize, cols: u64, kv_cols: u64) -> ModelFile {
    let meta = MetaBuilder::new()
        .str("general.architecture", "llama")
        .u32("llama.block_count", layers as u32)
        .u32("llama.attention.head_count", 8)
        .u32("llama.attention.head_count_kv", (8 * kv_cols / cols) as u32);
    let mut writer = GgufWriter::new(meta).unwrap();
    let mut add = |name: String, rows: u64| writer.tensor(&name, &[cols, rows], DType::BF16).unwrap();
    add("token_embd.weight".into(), 32);
    add("output.weight".into(), 32);
    for i in 0..layers {
        for (name, rows) in [
            ("attn_q", cols),
            ("attn_k", kv_cols),
            ("attn_v", kv_cols),
            ("attn_output", cols),
            ("ffn_down", cols),
            ("ffn_up", cols),
        ] {
            add(format!("blk.{i}.{name}.weight"), rows);
        }
    }
    let mut bytes = Vec::new();
    let sizes: Vec<usize> = {
        let mut all = vec![32, 32];
        all.extend((0..layers).flat_map(|_| [cols, kv_cols, kv_cols, cols, cols, cols]));
        all.iter().map(|rows| (2 * cols * rows) as usize).collect()
    };
    writer.write(&mut bytes, &mut |i| vec![0x3c; sizes[i]]).unwrap();
    ModelFile::from_bytes(bytes.into()).unwrap()
}

/// As `llama-quantize --dry-run` of the same shapes says.
#[test]
fn mixes_give_each_tensor_its_type() {
    let file = shapes(16, 256, 64);
    let types = |settings: Settings| -> Vec<(String, DType)> {
        Job::new(&file, &settings).unwrap().planned().iter().map(|t| (t.name.clone(), t.to)).collect()
    };
    let of = |all: &[(String, DType)], name: &str| all.iter().find(|(n, _)| n == name).unwrap().1;
    let all = types(Settings { mix: Mix::of("Q4_K_M"), ..Settings::default() });
    assert_eq!((of(&all, "output.weight"), of(&all, "token_embd.weight")), (DType::Q6_K, DType::Q4_K));
    let better: Vec<usize> = (0..16).filter(|i| of(&all, &format!("blk.{i}.ffn_down.weight")) == DType::Q6_K).collect();
    assert_eq!(better, [0, 1, 4, 7, 10, 13, 14, 15]);
    assert_eq!(of(&all, "blk.3.attn_v.weight"), DType::Q4_K);
    let all = types(Settings { mix: Mix::of("Q2_K"), ..Settings::default() });
    assert_eq!((of(&all, "blk.3.attn_v.weight"), of(&all, "blk.3.attn_output.weight")), (DType::Q4_K, DType::Q3_K));
    let all = types(Settings { mix: Mix::of("Q3_K_L"), pure: true, ..Settings::default() });
    assert!(all.iter().all(|(_, dtype)| *dtype == DType::Q3_K));
    let overrides: Vec<(convert::Pattern, DType)> = vec![(Box::new(|n: &str| n.contains("ffn_up")), DType::Q8_0)];
    let all = types(Settings { mix: Mix::of("Q4_K_S"), overrides, ..Settings::default() });
    assert_eq!((of(&all, "blk.9.ffn_up.weight"), of(&all, "blk.9.attn_q.weight")), (DType::Q8_0, DType::Q4_K));
    let narrow = shapes(2, 64, 64);
    let settings = Settings { mix: Mix::of("Q4_K_S"), ..Settings::default() };
    let planned = Job::new(&narrow, &settings).unwrap().planned().to_vec();
    assert!(
        planned.iter().all(|t| t.to == DType::Q8_0 && t.name == "output.weight" || t.to.block_len() == 32),
        "{planned:?}"
    );
}

#[test]
fn what_is_stopped_leaves_nothing_and_what_was_there_stays() {
    let scratch = Scratch::new("stopped");
    let to = scratch.0.join("out.gguf");
    std::fs::write(&to, b"old").unwrap();
    let file = shapes(4, 256, 64);
    let settings = Settings { mix: Mix::of("Q8_0"), ..Settings::default() };
    let job = Job::new(&file, &settings).unwrap();
    let mut told = 0;
    let said = job.write(&to, 2, &mut |progress| {
        told += 1;
        assert!(progress.done <= progress.total && progress.tensors < progress.n_tensors);
        told < 5
    });
    assert!(said.is_err());
    assert_eq!(std::fs::read(&to).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 1, "nothing else is left");
    let mut last = 0;
    job.write(&to, 3, &mut |progress| {
        last = progress.done;
        true
    })
    .unwrap();
    assert_eq!(std::fs::metadata(&to).unwrap().len(), job.byte_len());
    assert_eq!(last, job.planned().iter().map(|t| t.bytes_before).sum::<u64>());
}

#[test]
fn an_importance_matrix_is_read_and_used() {
    let sums: Vec<f32> = (0..256).map(|i| if i < 8 { 4000.0 } else { 4.0 }).collect();
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let matrix = |count: f32, with_counts: bool| {
        let mut writer = GgufWriter::new(MetaBuilder::new().str("general.type", "imatrix")).unwrap();
        writer.tensor("blk.0.attn_q.weight.in_sum2", &[256, 1], DType::F32).unwrap();
        if with_counts {
            writer.tensor("blk.0.attn_q.weight.counts", &[1, 1], DType::F32).unwrap();
        }
        let mut out = Vec::new();
        writer.write(&mut out, &mut |i| if i == 0 { bytes(&sums) } else { bytes(&[count]) }).unwrap();
        ImportanceMatrix::read(&ModelFile::from_bytes(out.into()).unwrap())
    };
    assert!(matrix(4.0, false).unwrap_err().to_string().contains("counts"));
    assert!(matrix(f32::NAN, true).is_ok_and(|m| m.len() == 1), "what was never used counts evenly");
    let scratch = Scratch::new("important");
    let mut writer = GgufWriter::new(MetaBuilder::new().str("general.architecture", "llama")).unwrap();
    writer.tensor("blk.0.attn_q.weight", &[256, 64], DType::F32).unwrap();
    let weights: Vec<f32> =
        (0..256 * 64u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32 / 65536.0 - 0.5).collect();
    let mut out = Vec::new();
    writer.write(&mut out, &mut |_| bytes(&weights)).unwrap();
    let file = ModelFile::from_bytes(out.into()).unwrap();
    let error = |importance| {
        let settings = Settings { mix: Mix::of("Q2_K"), pure: true, importance, ..Settings::default() };
        let to = scratch.0.join("out.gguf");
        write(&file, &settings, &to);
        let made = ModelFile::open(&to).unwrap();
        let got = values(&made, &made.tensors()[0]);
        let off = got.iter().zip(&weights).enumerate().filter(|(i, _)| i % 256 < 8);
        off.map(|(_, (a, b))| f64::from(a - b).powi(2)).sum::<f64>()
    };
    let (plain, important) = (error(None), error(Some(matrix(4.0, true).unwrap())));
    assert!(important < 0.9 * plain, "important columns: {important} against {plain}");
}

#[test]
fn a_file_that_was_cut_and_joined_is_the_file() {
    let scratch = Scratch::new("parts");
    let path = data().join("golden/llama3/model-bf16.gguf");
    let file = ModelFile::open(&path).unwrap();
    let n = file.tensors().len();
    let largest = file.tensors().iter().map(|t| t.byte_len()).max().unwrap();
    let cut = |name: &str, most| convert::split(&file, &scratch.0.join(name), most, &mut |_| true).unwrap();
    for (name, most) in
        [("few", PartLimit::Tensors(n - 1)), ("each", PartLimit::Tensors(1)), ("small", PartLimit::Bytes(largest))]
    {
        let paths = cut(name, most);
        assert!(name == "small" || paths.len() == if name == "few" { 2 } else { n }, "{name}: {paths:?}");
        let wanted = |i: usize| scratch.0.join(format!("{name}-{:05}-of-{:05}.gguf", i + 1, paths.len()));
        assert!(paths.iter().enumerate().all(|(i, path)| *path == wanted(i)), "{paths:?}");
        let set = ModelFile::open(&paths[1]).unwrap();
        assert_eq!(set.meta().u32("split.tensors.count").unwrap() as usize, n);
        for (i, path) in paths.iter().enumerate() {
            let part = ModelFile::from_bytes(std::fs::read(path).unwrap().into());
            assert!(part.unwrap_err().to_string().contains(&format!("part {} of {}", i + 1, paths.len())));
            let bytes: u64 = set.tensors().iter().filter(|t| t.part() == i).map(|t| t.byte_len()).sum();
            assert!(name != "small" || bytes <= largest, "{bytes} of {largest}");
        }
        let joined = scratch.0.join(format!("{name}.gguf"));
        convert::merge(&set, &joined, &mut |_| true).unwrap();
        assert!(std::fs::read(&joined).unwrap() == std::fs::read(&path).unwrap(), "{name}: other bytes");
    }
}

#[test]
fn parts_are_written_whole_and_over_nothing() {
    let scratch = Scratch::new("parts-refused");
    let file = shapes(4, 256, 64);
    let prefix = scratch.0.join("model");
    let cut = |most| convert::split(&file, &prefix, most, &mut |_| true);
    let says = |result: ir_engine::Result<Vec<std::path::PathBuf>>| result.unwrap_err().to_string();
    assert!(says(cut(PartLimit::Tensors(1000))).contains("fit into one part"));
    assert!(
        says(convert::split(&file, &prefix, PartLimit::Tensors(5), &mut |_| false)).contains("nothing was written")
    );
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 0);
    std::fs::write(scratch.0.join("model-00003-of-00006.gguf"), b"mine").unwrap();
    assert!(says(cut(PartLimit::Tensors(5))).contains("model-00003-of-00006.gguf is there already"));
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 1);
    let parts = cut(PartLimit::Tensors(13)).unwrap();
    let set = ModelFile::open(&parts[0]).unwrap();
    let merge = |file: &ModelFile, to: &Path| convert::merge(file, to, &mut |_| true).unwrap_err().to_string();
    assert!(merge(&set, &parts[1]).contains("is there already"));
    assert!(merge(&file, &scratch.0.join("whole.gguf")).contains("one file"));
    std::fs::remove_file(&parts[1]).unwrap();
    assert!(ModelFile::open(&parts[0]).unwrap_err().to_string().contains("part 2 of 2 is missing"));
}

/// An importance matrix of a golden's own prompt, `windows` times over, as it was read back: names, sums, counts.
fn observed(name: &str, windows: usize) -> Option<Vec<(String, Vec<f32>, Vec<f32>)>> {
    let dir = shared("golden")?.join(name);
    let golden = Golden::open(&dir);
    let cpu = Cpu::new(&CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap();
    let mut observer = Observer::new(Arc::new(cpu), golden.model.plan(), golden.ids.len()).unwrap();
    (0..windows).for_each(|_| observer.add(&golden.ids).unwrap());
    assert!(observer.add(&[]).is_err() && observer.add(&[u32::MAX]).is_err());
    let scratch = Scratch::new(&format!("observed-{name}"));
    let path = scratch.0.join("imatrix.gguf");
    observer.write(&path, "a golden").unwrap();
    let file = ModelFile::open(&path).unwrap();
    assert_eq!(file.meta().u32("imatrix.chunk_count").unwrap() as usize, windows);
    assert_eq!(ImportanceMatrix::read(&file).unwrap().len(), observer.len());
    let sums = file.tensors().iter().filter_map(|t| Some((t, t.name().strip_suffix(".in_sum2")?)));
    let all = sums.map(|(t, name)| {
        (name.to_owned(), values(&file, t), values(&file, file.tensor(&format!("{name}.counts")).unwrap()))
    });
    Some(all.collect())
}

#[test]
fn what_matrices_are_multiplied_with_is_added_up() {
    let (Some(once), Some(twice)) = (observed("qwen3-moe", 1), observed("qwen3-moe", 2)) else { return };
    let of = |all: &[(String, Vec<f32>, Vec<f32>)], name: &str| {
        let found = all.iter().find(|(n, ..)| n == name).unwrap_or_else(|| panic!("no {name}"));
        (found.1.clone(), found.2.clone())
    };
    let dir = shared("golden").unwrap().join("qwen3-moe");
    let model = ModelFile::open(&dir.join("model-bf16.gguf")).unwrap();
    let n = Golden::open(&dir).ids.len() as f32;
    let matrices = model.tensors().iter().filter(|t| t.name().starts_with("blk.") && t.dims().len() > 1);
    for tensor in matrices {
        let (sums, counts) = of(&once, tensor.name());
        let n_matrices = tensor.dims().get(2).map_or(1, |n| *n as usize);
        assert_eq!(
            (sums.len(), counts.len()),
            (tensor.dims()[0] as usize * n_matrices, n_matrices),
            "{}",
            tensor.name()
        );
        // Every row picks two of the experts.
        assert_eq!(counts.iter().sum::<f32>(), if n_matrices > 1 { 2.0 * n } else { n }, "{}", tensor.name());
        let doubled = of(&twice, tensor.name());
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (2.0 * a - b).abs() <= 1e-3 * b.abs());
        assert!(near(&sums, &doubled.0) && near(&counts, &doubled.1), "{}", tensor.name());
    }
    assert_eq!(of(&once, "blk.0.attn_q.weight"), of(&once, "blk.0.attn_v.weight"));
    assert_eq!(of(&once, "blk.0.ffn_gate_exps.weight"), of(&once, "blk.0.ffn_up_exps.weight"));
    // A norm comes before the first product: its rows have the squares of its weights on the mean.
    let norm = values(&model, model.tensor("blk.0.attn_norm.weight").unwrap());
    let sums = of(&once, "blk.0.attn_q.weight").0;
    let mean = sums.iter().zip(&norm).map(|(sum, w)| f64::from(sum / (w * w))).sum::<f64>() / norm.len() as f64;
    assert!((mean / f64::from(n) - 1.0).abs() < 1e-2, "{mean} of {n}");
}

#[test]
fn matrices_of_heads_are_observed_too() {
    let Some(all) = observed("deepseek-v3", 1) else { return };
    let (_, sums, counts) = all.iter().find(|(name, ..)| name == "blk.0.attn_k_b.weight").unwrap();
    assert!(counts.len() > 1 && counts.iter().all(|n| *n == counts[0]) && sums.iter().all(|sum| *sum > 0.0));
}
