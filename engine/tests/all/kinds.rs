//! Kinds of model that no golden is of, made of those that one is of: what can be seen of them without a reference.

use std::sync::Arc;

use crate::common::shared;
use crate::loading::cpu;
use crate::made::{Written, logits_of, refusal};
use ir_engine::error::Result;
use ir_engine::file::ModelFile;
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{self, Model, ModelOptions, OutputKind};
use ir_engine::run::{Engine, EngineOptions};

/// Diffusion: every row sees every other, and no text is generated.
#[test]
fn a_model_that_fills_masked_places_gives_logits_and_no_text() {
    for (golden, from, to) in
        [("qwen2", "qwen2", "dream"), ("llama-tied", "llama", "llada"), ("qwen3", "qwen3", "rnd1")]
    {
        let mut made = Written::renamed(golden, from, to, &[]);
        made.meta = made.meta.bool(&format!("{to}.attention.causal"), false);
        let bytes = made.bytes();
        let (spec, plan) = model::inspect(&ModelFile::from_bytes(bytes.clone()).unwrap()).unwrap();
        assert!(spec.output == OutputKind::Masked && plan.has_head() && plan.reads_both_ways());
        let first = |last: u32| -> Result<Vec<f32>> {
            let logits = logits_of(&bytes, |i| if i == 23 { last } else { i + 5 })?;
            Ok(logits[..plan.n_vocab()].to_vec())
        };
        assert_ne!(first(7).unwrap(), first(8).unwrap(), "{to}: the first row does not see the last");
        let model = Arc::new(Model::from_bytes(bytes, &ModelOptions::default()).unwrap());
        let error = Engine::new(model, &cpu(), &EngineOptions::default()).unwrap_err().to_string();
        assert!(error.contains("diffusion") && error.contains("ir logits") && error.contains(to), "{error}");
    }
}

/// A mark for each layer, or one for all, says which turn.
#[test]
fn layers_that_turn_are_named_one_by_one_or_all_at_once() {
    let mut plain = Written::renamed("llama-tied", "llama", "granite_swa", &[]);
    let n = plain.tensors.keys().filter(|name| name.ends_with("ffn_up.weight")).count();
    plain.meta = plain.meta.i32s("granite_swa.attention.sliding_window_pattern", &vec![0; n]);
    let with = |marks: &[i32]| {
        let meta = plain.meta.clone().i32s("granite_swa.attention.rope_pattern", marks);
        Written { meta, ..plain.clone() }.logits()
    };
    let turning = plain.logits().unwrap();
    let one = Written { meta: plain.meta.clone().u32("granite_swa.attention.rope_pattern", 1), ..plain.clone() };
    assert_eq!(one.logits().unwrap(), turning);
    assert_eq!(with(&vec![1; n]).unwrap(), turning);
    assert_ne!(with(&vec![0; n]).unwrap(), turning);
    let short = with(&[1]).unwrap_err().to_string();
    assert!(short.contains("rope_pattern") && short.contains("layer 1"), "{short}");
}

/// Two stacks of one layer each.
#[test]
fn stacks_run_in_cycles_that_the_file_counts() {
    let mut made = Written::renamed("llama-tied", "llama", "hrm_text", &["llama.block_count"]);
    let kept = |name: &str| ["blk.0.", "blk.1.", "token_embd"].iter().any(|start| name.starts_with(start));
    made.tensors.retain(|name, _| kept(name) && !name.contains("norm"));
    let dims = made.tensors["blk.0.attn_q.weight"].0.clone();
    for i in 0..2 {
        made.add(&format!("blk.{i}.attn_gate.weight"), &dims, &vec![0.01; (dims[0] * dims[1]) as usize]);
    }
    made.add("hrm.z_l_init", &dims[..1], &vec![0.5; dims[0] as usize]);
    let with = |slots: u32, high: u32, low: u32| {
        let mut made = made.clone();
        let meta = made.meta.u32("hrm_text.block_count", slots).u32("hrm_text.hrm.layers_per_stack", 1);
        made.meta = meta.u32("hrm_text.hrm.h_cycles", high).u32("hrm_text.hrm.l_cycles", low);
        made
    };
    let (once, twice) = (with(2, 1, 1).logits().unwrap(), with(4, 2, 1).logits().unwrap());
    assert_ne!(once, twice);
    assert_ne!(with(3, 1, 2).logits().unwrap(), once);
    let error = refusal(&with(4, 1, 1));
    assert!(error.contains("are not 4 layers"), "{error}");
    let mut factors = with(2, 1, 1);
    factors.add("blk.0.attn_q.scale", &[1], &[2.0]);
    assert!(refusal(&factors).contains(".scale"), "{}", refusal(&factors));
}

/// What an index would leave out is beyond the context.
#[test]
fn a_context_ends_where_an_index_of_blocks_would_leave_some_out() {
    let mut made = Written::renamed("qwen3", "qwen3", "minimax-m3", &[]);
    made.meta =
        made.meta.u32("minimax-m3.attention.indexer.top_k", 3).u32("minimax-m3.attention.indexer.block_size", 4);
    made.add("blk.0.indexer.q_proj.weight", &[64], &[1.0; 64]);
    let (spec, _) = model::inspect(&ModelFile::from_bytes(made.bytes()).unwrap()).unwrap();
    assert_eq!(spec.n_context, 12);
}

/// A key that marks no layer is what writers of every key put for none.
#[test]
fn every_layer_has_an_index_unless_the_file_marks_some() {
    if shared("golden").is_none() {
        return;
    }
    let mut made = Written::renamed("deepseek-v3", "deepseek2", "deepseek32", &[]);
    let key = |name: &str| format!("deepseek32.attention.indexer.{name}");
    made.meta = made.meta.u32(&key("head_count"), 2).u32(&key("key_length"), 32);
    for i in 0..3 {
        for (name, dims) in [("attn_q_b", [48, 64]), ("attn_k", [64, 32]), ("proj", [64, 2])] {
            let values: Vec<f32> = (0..dims[0] * dims[1]).map(|k| ((k * (i + 3)) as f32).sin()).collect();
            made.add(&format!("blk.{i}.indexer.{name}.weight"), &dims, &values);
        }
        made.add(&format!("blk.{i}.indexer.k_norm.weight"), &[32], &[1.0; 32]);
        made.add(&format!("blk.{i}.indexer.k_norm.bias"), &[32], &[0.0; 32]);
    }
    let with = |top: u32, types: &dyn Fn(MetaBuilder) -> MetaBuilder| {
        let mut made = made.clone();
        made.meta = types(made.meta.u32(&key("top_k"), top));
        made
    };
    let all = with(4, &|meta| meta).logits().unwrap();
    assert!(with(4, &|meta| meta.u32(&key("types"), 0)).logits().unwrap() == all);
    assert!(with(4, &|meta| meta.u32s(&key("types"), &[1, 1, 1])).logits().unwrap() == all);
    assert!(with(256, &|meta| meta).logits().unwrap() != all);
    // The last two layers take the first one's choice, and do not read what would choose.
    let error = refusal(&with(4, &|meta| meta.u32s(&key("types"), &[1, 0, 0])));
    assert!(error.contains("blk.1.indexer"), "{error}");
}
