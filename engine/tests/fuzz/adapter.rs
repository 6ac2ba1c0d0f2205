//! Hostile adapters: a GGUF adapter, and PEFT's two files, are mutated and put beside a small model. Each must fit or be refused:
//! no panic, no single allocation above eight times the files plus 64 KiB (matrices of halves are made floats, and those of
//! products that are one are put together). `IR_FUZZ_ADAPTERS` sets the number.

use std::sync::Arc;

use super::folder::mutate;
use super::random::Random;
use super::watch;
use ir_engine::builtin;
use ir_engine::bytes::Bytes;
use ir_engine::dtype::DType;
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Adapter, Attached, inspect_with};

const ADAPTERS: u64 = 20_000;
const RANK: u64 = 4;

/// Columns and rows of the tensors that the adapter is for.
fn shapes(model: &ModelFile) -> Vec<(String, u64, u64)> {
    let parts = [".attn_q.weight", ".attn_v.weight", ".ffn_down.weight"];
    let wanted = |name: &str| name.starts_with("blk.0.") && parts.iter().any(|part| name.ends_with(part));
    let tensors = model.tensors().iter().filter(|t| wanted(t.name()));
    tensors.map(|t| (t.name().to_owned(), t.dims()[0], t.dims()[1])).collect()
}

fn gguf(model: &ModelFile) -> Vec<u8> {
    let meta = MetaBuilder::new()
        .str("general.architecture", model.meta().arch().unwrap())
        .str("general.type", "adapter")
        .str("adapter.type", "lora")
        .f32("adapter.lora.alpha", 8.0);
    let mut writer = GgufWriter::new(meta).unwrap();
    let mut sizes = Vec::new();
    for (name, cols, rows) in shapes(model) {
        writer.tensor(&format!("{name}.lora_a"), &[cols, RANK], DType::F16).unwrap();
        writer.tensor(&format!("{name}.lora_b"), &[RANK, rows], DType::F16).unwrap();
        sizes.extend([2 * RANK * cols, 2 * RANK * rows]);
    }
    let mut out = Vec::new();
    writer.write(&mut out, &mut |i| vec![0x11; sizes[i] as usize]).unwrap();
    out
}

fn peft(model: &ModelFile) -> (String, Vec<u8>) {
    let (mut at, mut parts) = (0, Vec::new());
    for (name, cols, rows) in shapes(model) {
        let theirs = match name.as_str() {
            name if name.contains("attn_q") => "self_attn.q_proj",
            name if name.contains("attn_v") => "self_attn.v_proj",
            _ => "mlp.down_proj",
        };
        for (half, shape) in [("A", [RANK, cols]), ("B", [rows, RANK])] {
            let len = 2 * shape[0] * shape[1];
            let name = format!("base_model.model.model.layers.0.{theirs}.lora_{half}.weight");
            parts.push(format!(r#""{name}":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{at},{}]}}"#, at + len));
            at += len;
        }
    }
    let header = format!("{{{}}}", parts.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + at as usize, 0x11);
    let config = r#"{"peft_type":"LORA","r":4,"lora_alpha":8,"use_rslora":false,"bias":"none","use_dora":false,
        "modules_to_save":null,"alpha_pattern":{"layers.0.self_attn.q_proj":4.0},"target_modules":["q_proj","v_proj"]}"#;
    (config.to_owned(), file)
}

#[test]
fn mutated_adapters_fit_or_are_refused() {
    let n: u64 = std::env::var("IR_FUZZ_ADAPTERS").map_or(ADAPTERS, |text| text.parse().unwrap());
    let model = ModelFile::from_bytes(builtin::bytes()).unwrap();
    let whole = gguf(&model);
    let (config, weights) = peft(&model);
    // What recording the model alone takes is not the adapter's.
    watch::reset();
    inspect_with(&model, &[]).unwrap();
    let alone = watch::largest();
    let mut fitted = 0;
    for i in 0..n + 2 {
        let random = &mut Random::new(i);
        let mut changed = |bytes: &[u8]| if i < n { mutate(bytes, random) } else { bytes.to_vec() };
        let (files, kind) = match i % 4 {
            0 | 2 => (vec![changed(&whole)], "gguf"),
            1 => (vec![config.clone().into_bytes(), changed(&weights)], "weights"),
            _ => (vec![changed(config.as_bytes()), weights.clone()], "config"),
        };
        let size: usize = files.iter().map(Vec::len).sum();
        watch::reset();
        let opened = match files.as_slice() {
            [file] => Adapter::from_bytes(Bytes::from(file.clone())),
            files => Adapter::from_peft(&files[0], &Bytes::from(files[1].clone())),
        };
        let done = opened.and_then(|adapter| {
            let attached = Attached { name: "a".into(), adapter: Arc::new(adapter), scale: 1.0 };
            inspect_with(&model, &[attached]).map(|(_, plan)| std::hint::black_box(plan.to_string().len()))
        });
        let largest = watch::largest();
        assert!(largest <= alone.max(8 * size) + (64 << 10), "{kind} {i}: an allocation of {largest} bytes of {size}");
        match done {
            Ok(_) => fitted += 1,
            Err(error) => {
                let error = error.to_string();
                assert!(i < n, "{kind} fits before it is mutated: {error}");
                assert!(error.len() < 2000 && !error.contains(['\n', '\u{1b}']), "{kind} {i}: {error:?}");
            }
        }
    }
    eprintln!("{n} mutated adapters: {fitted} fit, {} were refused", n + 2 - fitted);
    assert!(n < 1000 || (n / 50..n).contains(&fitted), "the mutations are too tame or too wild: {fitted} of {n}");
}
