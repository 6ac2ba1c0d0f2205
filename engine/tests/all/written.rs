//! Files as the world writes them: keys that say nothing, dimensions of 1 that are none, factors beside matrices, tensors
//! that are beside the model, and what nothing would read.

use std::collections::BTreeMap;

use crate::common::Golden;
use crate::loading::{cpu, fed, tokens, whole};
use crate::made::{Written, le_bytes, refusal};
use ir_engine::dtype::DType;
use ir_engine::file::ModelFile;
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::text::Tokenizer;

#[test]
fn dimensions_of_one_at_the_end_are_none() {
    let plain = Written::golden("llama-tied", &[]);
    let padded = Written { padded: 4, ..plain.clone() };
    assert_eq!(padded.logits().unwrap(), plain.logits().unwrap());
    let file = ModelFile::from_bytes(padded.bytes()).unwrap();
    let width = u64::from(file.meta().u32("llama.embedding_length").unwrap());
    assert_eq!(file.tensor("output_norm.weight").unwrap().dims(), [width]);
    assert_eq!(file.tensor("token_embd.weight").unwrap().dims().len(), 2);
}

#[test]
fn keys_that_say_nothing_change_nothing() {
    let plain = Written::golden("llama-tied", &["llama.rope.scaling", "llama.pooling"]);
    let want = plain.logits().unwrap();
    let silent = |meta: MetaBuilder| {
        meta.f32("llama.rope.scaling.factor", 0.0)
            .f32("llama.rope.scaling.attn_factor", 0.0)
            .f32("llama.rope.scale_linear", 0.0)
            .str("llama.rope.scaling.type", "linear")
            .u32("llama.rope.scaling.original_context_length", 0)
            .f32("llama.attention.max_alibi_bias", 0.0)
            .f32("llama.attention.clamp_kqv", 0.0)
            .u32("llama.attention.sliding_window", 0)
            .u32("llama.expert_count", 0)
            .u32("llama.expert_used_count", 0)
            .u32("llama.nextn_predict_layers", 0)
            .i32s("llama.rope.dimension_sections", &[])
            .i32s("llama.attention.sliding_window_pattern", &[])
            .i32s("llama.attention.key_length", &[])
            .i32s("llama.attention.causal", &[])
    };
    let poolings: [&dyn Fn(MetaBuilder) -> MetaBuilder; 3] =
        [&|meta| meta.u32("llama.pooling_type", u32::MAX), &|meta| meta.i32("llama.pooling_type", -1), &|meta| {
            meta.i32s("llama.pooling_type", &[])
        }];
    for pooling in poolings {
        let silent = Written { meta: pooling(silent(plain.meta.clone())), ..plain.clone() };
        assert_eq!(silent.logits().unwrap(), want);
    }
    let wrong = Written { meta: plain.meta.clone().u32("llama.pooling_type", 5), ..plain.clone() };
    assert!(refusal(&wrong).contains("pooling"), "{}", refusal(&wrong));
    // A key that is needed is missing if it says nothing, and 0 layers or heads are not absence but damage.
    for (key, names) in [("llama.block_count", "block_count"), ("llama.attention.head_count", "head_count")] {
        for meta in [
            Written::golden("llama-tied", &[key]).meta.u32(key, 0),
            Written::golden("llama-tied", &[key]).meta.i32s(key, &[]),
        ] {
            let damaged = Written { meta, ..plain.clone() };
            assert!(refusal(&damaged).contains(names), "{}", refusal(&damaged));
        }
    }
}

#[test]
fn a_factor_beside_a_matrix_multiplies_its_product() {
    // Powers of two change no rounding, so the bits are those of multiplied weights.
    let factors = [
        ("blk.0.attn_q", 2.0),
        ("blk.0.attn_v", 0.5),
        ("blk.1.attn_output", 4.0),
        ("blk.0.ffn_gate", 0.25),
        ("blk.1.ffn_up", -2.0),
        ("blk.1.ffn_down", 0.5),
    ];
    for name in ["llama3", "llama-tied", "qwen3"] {
        let (mut with, mut by_hand) = (Written::golden(name, &[]), Written::golden(name, &[]));
        let plain = with.logits().unwrap();
        for (matrix, factor) in factors {
            with.add(&format!("{matrix}.scale"), &[1], &[factor]);
            with.add(&format!("{matrix}.input_scale"), &[1], &[123.0]);
            by_hand.multiply(&format!("{matrix}.weight"), |_| factor);
        }
        let got = with.logits().unwrap();
        assert_ne!(got, plain, "{name}");
        assert_eq!(got, by_hand.logits().unwrap(), "{name}");
        // The head, whether or not it is the table of the embedding.
        with.add("output.scale", &[1], &[8.0]);
        let want: Vec<f32> = got.iter().map(|x| x * 8.0).collect();
        assert_eq!(with.logits().unwrap(), want, "{name}");
        // Whole or in pieces.
        let bytes = with.bytes();
        let whole = tokens(&mut whole(&bytes, &cpu()));
        assert_eq!(tokens(&mut fed(&bytes, &cpu(), 4096).unwrap()), whole, "{name}");
    }
}

/// In feed-forward parts the factor multiplies the bias too, as llama.cpp has it; in attention it does not.
#[test]
fn factors_and_biases() {
    let (mut with, mut by_hand) = (Written::golden("llama-tied", &[]), Written::golden("llama-tied", &[]));
    for (matrix, factor, biased) in
        [("blk.0.attn_k", 2.0, false), ("blk.0.ffn_up", 4.0, true), ("blk.1.ffn_down", 0.5, true)]
    {
        let rows = with.tensors[&format!("{matrix}.weight")].0[1];
        let bias: Vec<f32> = (0..rows).map(|i| (i as f32 - 30.0) / 64.0).collect();
        let name = format!("{matrix}.bias");
        with.add(&format!("{matrix}.scale"), &[1], &[factor]);
        by_hand.multiply(&format!("{matrix}.weight"), |_| factor);
        with.add(&name, &[rows], &bias);
        by_hand.add(&name, &[rows], &bias);
        if biased {
            by_hand.multiply(&name, |_| factor);
        }
    }
    assert_eq!(with.logits().unwrap(), by_hand.logits().unwrap());
    let bytes = with.bytes();
    assert_eq!(tokens(&mut fed(&bytes, &cpu(), 1000).unwrap()), tokens(&mut whole(&bytes, &cpu())));
}

/// A mixture of four experts made of a golden model's dense parts.
fn mixture() -> Written {
    let mut made = Written::golden("llama-tied", &[]);
    made.meta = made.meta.u32("llama.expert_count", 4).u32("llama.expert_used_count", 2);
    let n_layers = made.tensors.keys().filter(|name| name.ends_with("ffn_up.weight")).count();
    for i in 0..n_layers {
        let mut width = 0;
        for part in ["gate", "up", "down"] {
            let (dims, _, data) = made.tensors.remove(&format!("blk.{i}.ffn_{part}.weight")).unwrap();
            width = if part == "down" { dims[1] } else { dims[0] };
            let one: Vec<f32> = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let all: Vec<f32> = (0..4).flat_map(|e| one.iter().map(move |x| x * (1.0 + e as f32 / 8.0))).collect();
            made.add(&format!("blk.{i}.ffn_{part}_exps.weight"), &[dims[0], dims[1], 4], &all);
        }
        let router: Vec<f32> = (0..4 * width).map(|j| ((j * 37 % 101) as f32 - 50.0) / 50.0).collect();
        made.add(&format!("blk.{i}.ffn_gate_inp.weight"), &[width, 4], &router);
    }
    made
}

#[test]
fn every_expert_has_a_factor_of_its_own() {
    let (mut with, mut by_hand) = (mixture(), mixture());
    let plain = with.logits().unwrap();
    let factors = [0.5, 2.0, 4.0, 1.0];
    for matrix in ["blk.0.ffn_gate_exps", "blk.0.ffn_down_exps", "blk.1.ffn_up_exps"] {
        let dims = with.tensors[&format!("{matrix}.weight")].0.clone();
        with.add(&format!("{matrix}.scale"), &[4], &factors);
        by_hand.multiply(&format!("{matrix}.weight"), |i| factors[i / (dims[0] * dims[1]) as usize]);
    }
    let got = with.logits().unwrap();
    assert_ne!(got, plain);
    assert_eq!(got, by_hand.logits().unwrap());
    with.add("blk.0.ffn_gate_exps.scale", &[3], &factors[..3]);
    assert!(refusal(&with).contains("blk.0.ffn_gate_exps.scale"), "{}", refusal(&with));
}

/// Blocks are always multiplied; plain numbers only in the parts in which llama.cpp does.
#[test]
fn factors_of_blocks_count_in_every_architecture() {
    let mut plain = Written::golden("qwen2", &[]);
    let name = "blk.0.ffn_up.weight";
    let (dims, _, data) = plain.tensors[name].clone();
    let with_factor = |written: &Written| {
        let mut with = written.clone();
        with.add("blk.0.ffn_up.scale", &[1], &[2.0]);
        with
    };
    assert_eq!(with_factor(&plain).logits().unwrap(), plain.logits().unwrap());
    // Blocks of 32 halves of a byte or 34 bytes: any bytes are valid, but the scale should be small.
    assert!(dims[0].is_multiple_of(32));
    let blocks = data.len() / 4 / 32;
    let block = |i: usize| {
        let scale = half::f16::from_f32(1.0 / 512.0).to_le_bytes();
        scale.into_iter().chain((0..32).map(move |j| (i * 31 + j * 7) as u8))
    };
    plain.tensors.insert(name.to_owned(), (dims, DType::Q8_0, (0..blocks).flat_map(block).collect()));
    assert_ne!(with_factor(&plain).logits().unwrap(), plain.logits().unwrap());
}

#[test]
fn what_nothing_reads_is_refused_by_name() {
    let plain = Written::golden("llama-tied", &[]);
    let want = plain.logits().unwrap();
    let with = |name: &str| {
        let mut with = plain.clone();
        with.add(name, &[32], &[1.0; 32]);
        with
    };
    for (name, says) in [
        ("blk.0.attn_sub_gate.weight", "blk.0.attn_sub_gate.weight"),
        ("blk.1.attn_k_shift.weight", "blk.1.attn_k_shift.weight"),
        ("blk.0.indexer.proj.weight", "an index of keys"),
        ("blk.0.ssm_a", "recurrent layers"),
        // A factor without a matrix.
        ("blk.0.attn_nothing.scale", "blk.0.attn_nothing.scale"),
        ("blk.0.attn_norm.scale", "blk.0.attn_norm.scale"),
    ] {
        let error = refusal(&with(name));
        assert!(error.contains(name) && error.contains(says), "{name}: {error}");
        assert!(error.contains("not supported yet") && error.contains("llama"), "{error}");
    }
    let mut several = with("blk.0.odd.weight");
    several.add("blk.1.odd.weight", &[1], &[0.0]);
    assert!(refusal(&several).contains("and 1 more"), "{}", refusal(&several));
    for beside in
        ["v.blk.0.attn_q.weight", "mm.0.weight", "a.conv.weight", "cls.output.weight", "blk.0.attn_q.input_scale"]
    {
        assert_eq!(with(beside).logits().unwrap(), want, "{beside}");
    }
}

/// Blocks that draft tokens are counted as layers, stand behind them, and are not read.
#[test]
fn blocks_that_draft_are_left_alone() {
    let plain = Written::golden("llama-tied", &["llama.block_count"]);
    let n = plain.tensors.keys().filter(|name| name.ends_with("ffn_up.weight")).count() as u32;
    let meta =
        |n: u32, drafts: u32| plain.meta.clone().u32("llama.block_count", n).u32("llama.nextn_predict_layers", drafts);
    let want = Written { meta: meta(n, 0), ..plain.clone() }.logits().unwrap();
    let mut with = Written { meta: meta(n + 1, 1), ..plain.clone() };
    for name in ["attn_norm.weight", "nextn.eh_proj.weight", "nextn.enorm.weight"] {
        with.add(&format!("blk.{n}.{name}"), &[32], &[1.0; 32]);
    }
    assert_eq!(with.logits().unwrap(), want);
    let all = Written { meta: meta(n, n), ..plain.clone() };
    assert!(refusal(&all).contains("draft"), "{}", refusal(&all));
}

#[test]
fn fused_matrices_are_their_rows_one_after_the_other() {
    for name in ["qwen2", "llama-tied"] {
        let want = Written::golden(name, &[]).logits().unwrap();
        let mut fused = Written::golden(name, &[]);
        let n = fused.tensors.keys().filter(|name| name.ends_with("ffn_up.weight")).count();
        let mut join = |parts: &[String], to: String| {
            let parts: Vec<_> = parts.iter().filter_map(|part| fused.tensors.remove(part)).collect();
            let Some((first, _, _)) = parts.first() else { return };
            let mut dims = first.clone();
            *dims.last_mut().unwrap() = parts.iter().map(|(dims, ..)| dims.last().unwrap()).sum();
            fused.tensors.insert(to, (dims, DType::F32, parts.into_iter().flat_map(|(.., data)| data).collect()));
        };
        for i in 0..n {
            for end in ["weight", "bias"] {
                let names = ["q", "k", "v"].map(|part| format!("blk.{i}.attn_{part}.{end}"));
                join(&names, format!("blk.{i}.attn_qkv.{end}"));
            }
            let names = ["gate", "up"].map(|part| format!("blk.{i}.ffn_{part}.weight"));
            join(&names, format!("blk.{i}.ffn_up.weight"));
        }
        assert_eq!(fused.logits().unwrap(), want, "{name}");
    }
}

#[test]
fn a_file_without_a_tokenizer_takes_ids() {
    let want = Written::golden("llama-tied", &[]).logits().unwrap();
    let bare = Written::golden("llama-tied", &["tokenizer."]);
    let test = Written { meta: bare.meta.clone().str("tokenizer.ggml.model", "test"), ..bare.clone() };
    let none = Written { meta: bare.meta.clone().str("tokenizer.ggml.model", "none"), ..bare.clone() };
    for (written, says) in [
        (&bare, "the file has no tokenizer"),
        (&none, "the file has no tokenizer"),
        (&test, "the tokenizer \"test\" is not supported"),
    ] {
        assert_eq!(written.logits().unwrap(), want, "{says}");
        let file = ModelFile::from_bytes(written.bytes()).unwrap();
        let known = Tokenizer::expect_known(file.meta()).unwrap_err().to_string();
        let error = Model::from_file(file, &ModelOptions::default()).unwrap_err().to_string();
        assert_eq!(error, known);
        assert!(error.starts_with(says) && error.contains("ir logits --ids"), "{error}");
    }
    assert!(Tokenizer::expect_known(Golden::load("llama-tied").model.meta()).is_ok());
}

#[test]
fn a_template_that_does_not_parse_opens() {
    let meta = Written::golden("llama-tied", &["tokenizer.chat_template"]).meta;
    let broken =
        Written { meta: meta.str("tokenizer.chat_template", "{% if %}"), ..Written::golden("llama-tied", &[]) };
    let model = Model::from_bytes(broken.bytes(), &ModelOptions::default()).unwrap();
    assert!(model.template().is_some_and(|t| t.broken().is_some()));
}

#[test]
fn architectures_are_refused_by_what_they_need() {
    let of = |arch: &str| {
        let meta = MetaBuilder::new().str("general.architecture", arch);
        Written {
            meta,
            tensors: BTreeMap::from([("blk.0.ssm_a".into(), (vec![1], DType::F32, le_bytes(&[1.0])))]),
            padded: 0,
        }
    };
    for (arch, needs) in [("rwkv7", "recurrent"), ("gptj", "layer norms"), ("deepseek4", "compressed keys")] {
        let error = refusal(&of(arch));
        assert!(error.contains(&format!("architecture {arch} is not supported yet: it needs")), "{error}");
        assert!(error.contains(needs), "{error}");
    }
    let error = refusal(&of("brand-new"));
    assert!(error.contains("\"brand-new\" is not known") && error.contains("recurrent layers"), "{error}");
    assert!(error.contains("qwen3"), "the supported ones are named: {error}");
}
