//! Adapters that are made for models of [`Written`], in both forms, and merged into them.

use std::collections::BTreeMap;

use ir_engine::bytes::Bytes;
use ir_engine::dtype::DType;
use ir_engine::file::GgufWriter;
use ir_engine::meta::MetaBuilder;

use crate::common::exam::Random;
use crate::made::{Written, le_bytes};

/// A matrix of an adapter: its pair of matrices in GGUF's order of rows.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) a: Vec<f32>,
    pub(super) b: Vec<f32>,
    pub(super) cols: usize,
    pub(super) rows: usize,
}

/// An adapter that is made for a model: random matrices of this rank beside tensors.
#[derive(Clone)]
pub(super) struct MadeAdapter {
    pub(super) arch: String,
    pub(super) rank: usize,
    pub(super) alpha: f32,
    pub(super) pairs: BTreeMap<String, Made>,
}

pub(super) const ATTENTION: &[&str] = &["attn_q", "attn_k", "attn_v", "attn_output"];
pub(super) const ALL: &[&str] = &["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

impl MadeAdapter {
    /// Random matrices beside these of every layer's tensors, and beside others.
    pub(super) fn new(base: &Written, arch: &str, seed: u64, rank: usize, parts: &[&str]) -> MadeAdapter {
        let mut random = Random(seed);
        let mut pairs = BTreeMap::new();
        for (name, (dims, ..)) in &base.tensors {
            let part = name.strip_suffix(".weight").unwrap_or_default();
            let part = part.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or(part, |(_, part)| part);
            if !parts.contains(&part) {
                continue;
            }
            let (cols, rows) = (dims[0] as usize, dims[1] as usize);
            let (a_n, b_n) = if part == "token_embd" { (rows * rank, cols * rank) } else { (cols * rank, rows * rank) };
            let size = 0.3 / (cols as f32).sqrt();
            let a = random.floats(a_n).iter().map(|x| x * size).collect();
            let b = random.floats(b_n);
            pairs.insert(name.clone(), Made { a, b, cols, rows });
        }
        assert!(!pairs.is_empty(), "the model has none of {parts:?}");
        MadeAdapter { arch: arch.into(), rank, alpha: 2.0 * rank as f32, pairs }
    }

    pub(super) fn gguf(&self) -> Bytes {
        let meta = MetaBuilder::new()
            .str("general.architecture", &self.arch)
            .str("general.type", "adapter")
            .str("adapter.type", "lora")
            .f32("adapter.lora.alpha", self.alpha)
            .str("adapter.lora.task_name", "made");
        self.gguf_with(meta)
    }

    pub(super) fn gguf_with(&self, meta: MetaBuilder) -> Bytes {
        let mut writer = GgufWriter::new(meta).unwrap();
        let mut data = Vec::new();
        let rank = self.rank as u64;
        for (name, Made { a, b, cols, rows }) in &self.pairs {
            let table = name == "token_embd.weight";
            let (a_dims, b_dims) = match table {
                true => ([rank, *rows as u64], [rank, *cols as u64]),
                false => ([*cols as u64, rank], [rank, *rows as u64]),
            };
            writer.tensor(&format!("{name}.lora_a"), &a_dims, DType::F32).unwrap();
            writer.tensor(&format!("{name}.lora_b"), &b_dims, DType::F32).unwrap();
            data.extend([le_bytes(a), le_bytes(b)]);
        }
        let mut out = Vec::new();
        writer.write(&mut out, &mut |i| data[i].clone()).unwrap();
        Bytes::from(out)
    }

    /// The two files of PEFT, for a model of `head` rows a head whose queries and keys GGUF files have woven.
    pub(super) fn peft(&self, head: usize) -> (String, Bytes) {
        let names = [
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ];
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, Made { a, b, cols, rows }) in &self.pairs {
            let rest = name.strip_prefix("blk.").unwrap_or(name).strip_suffix(".weight").unwrap();
            let (theirs, woven) = match rest.split_once('.') {
                Some((layer, part)) => {
                    let (_, theirs) = names.iter().find(|(ours, _)| *ours == part).unwrap();
                    (format!("model.layers.{layer}.{theirs}"), head > 0 && ["attn_q", "attn_k"].contains(&part))
                }
                None if rest == "output" => ("lm_head".to_owned(), false),
                None => ("model.embed_tokens".to_owned(), false),
            };
            let r = self.rank;
            let b = match woven {
                // Row `head * len + 2 i + j` of the file is row `head * len + j * len / 2 + i` here.
                true => {
                    let mut out = vec![0.0; b.len()];
                    for row in 0..*rows {
                        let (at, i) = (row / head * head, row % head);
                        let from = at + if i < head / 2 { 2 * i } else { 2 * (i - head / 2) + 1 };
                        out[row * r..][..r].copy_from_slice(&b[from * r..][..r]);
                    }
                    out
                }
                false => b.clone(),
            };
            let table = name == "token_embd.weight";
            let a =
                if table { (0..r).flat_map(|i| (0..*rows).map(move |t| a[t * r + i])).collect() } else { a.clone() };
            let (ends, shapes) = match table {
                true => (["lora_embedding_A", "lora_embedding_B"], [[r, *rows], [*cols, r]]),
                false => (["lora_A.weight", "lora_B.weight"], [[r, *cols], [*rows, r]]),
            };
            for ((end, shape), values) in ends.into_iter().zip(shapes).zip([a, b]) {
                let from = data.len();
                data.extend(le_bytes(&values));
                let info = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]});
                header.insert(format!("base_model.model.{theirs}.{end}"), info);
            }
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        let config = serde_json::json!({
            "peft_type": "LORA", "r": self.rank, "lora_alpha": self.alpha, "bias": "none", "use_dora": false,
            "modules_to_save": null, "alpha_pattern": {}, "rank_pattern": {}, "fan_in_fan_out": false
        });
        (config.to_string(), Bytes::from(file))
    }

    /// Adds what the adapter changes to a model's weights.
    pub(super) fn merge(&self, into: &mut Written, scale: f32) {
        let (r, factor) = (self.rank, scale * self.alpha / self.rank as f32);
        for (name, Made { a, b, cols, rows }) in &self.pairs {
            let table = name == "token_embd.weight";
            let (_, _, data) = into.tensors.get_mut(name).unwrap();
            for (i, value) in data.chunks_exact_mut(4).enumerate() {
                let (row, col) = (i / cols, i % cols);
                assert!(row < *rows);
                let of = |k: usize| match table {
                    true => a[row * r + k] * b[col * r + k],
                    false => b[row * r + k] * a[k * cols + col],
                };
                let x = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
                let sum = f64::from(x) + f64::from(factor) * (0..r).map(|k| f64::from(of(k))).sum::<f64>();
                value.copy_from_slice(&(sum as f32).to_le_bytes());
            }
        }
    }
}
