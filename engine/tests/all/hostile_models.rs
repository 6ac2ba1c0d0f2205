//! Files whose header is well-formed and whose numbers are not: each is refused at once, with a sentence.

use crate::common::seconds;
use ir_engine::bytes::Bytes;
use ir_engine::dtype::DType;
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Model, ModelOptions};

/// Refusing a model takes at most so many times what reading its header does, for which a tiny file is given a millisecond.
const TIMES: f64 = 20.0;

/// The sentence that refuses these bytes, and soon.
fn refusal(bytes: &Bytes) -> String {
    let mut error = String::new();
    let refused = seconds(3, || {
        error = Model::from_bytes(bytes.clone(), &ModelOptions::default()).unwrap_err().to_string();
    });
    let read = seconds(3, || drop(std::hint::black_box(ModelFile::from_bytes(bytes.clone()).unwrap())));
    assert!(refused < TIMES * read.max(1e-3), "{error}: {refused} s, the header {read} s");
    error
}

/// A file of these keys over a small Llama's, and one tensor.
fn file(keys: &[(&str, u32)], junk: usize) -> Bytes {
    let plain = [
        ("llama.block_count", 1),
        ("llama.context_length", 64),
        ("llama.embedding_length", 16),
        ("llama.feed_forward_length", 16),
        ("llama.attention.head_count", 2),
    ];
    let mut meta = MetaBuilder::new().str("general.architecture", "llama");
    for i in 0..junk {
        meta = meta.u32(&format!("a.{i}"), 0);
    }
    meta = meta.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    for (key, value) in plain.iter().filter(|p| keys.iter().all(|k| k.0 != p.0)).chain(keys) {
        meta = meta.u32(key, *value);
    }
    let mut out = Vec::new();
    let mut writer = GgufWriter::new(meta).unwrap();
    writer.tensor("token_embd.weight", &[16, 4], DType::F32).unwrap();
    writer.write(&mut out, &mut |_| vec![0; 16 * 4 * 4]).unwrap();
    Bytes::from(out)
}

#[test]
fn impossible_shapes_are_refused_at_once() {
    let cases: &[(&[(&str, u32)], &str)] = &[
        (
            &[("llama.block_count", 4096), ("llama.attention.head_count", 1), ("llama.attention.key_length", 1 << 20)],
            "layers",
        ),
        (&[("llama.attention.head_count", 1), ("llama.attention.key_length", 1 << 20)], "out of range"),
        (&[("llama.attention.head_count", 0)], "head_count"),
        (&[("llama.attention.head_count", 3), ("llama.attention.head_count_kv", 2)], "do not divide"),
        (&[("llama.attention.head_count", 1 << 20), ("llama.attention.key_length", 2)], "out of range"),
        (&[("llama.embedding_length", u32::MAX)], "embedding_length"),
        (&[("llama.context_length", 0)], "context_length"),
        (&[("llama.rope.dimension_count", 7)], "rope"),
        (&[("llama.embedding_length", 32)], "token_embd.weight"),
    ];
    for (keys, names) in cases {
        let error = refusal(&file(keys, 0));
        assert!(error.contains(names), "{keys:?}: {error}");
    }
}

#[test]
fn many_useless_keys_do_not_slow_the_useful_ones() {
    let error = refusal(&file(&[], 300_000));
    assert!(error.contains("is missing"), "{error}");
}
