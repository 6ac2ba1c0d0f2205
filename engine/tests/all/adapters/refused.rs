//! What adapters are refused for, by name, and what their settings mean.

use ir_engine::bytes::Bytes;
use ir_engine::file::ModelFile;
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Adapter, inspect_with};

use super::made::{ATTENTION, MadeAdapter};
use super::{attached, cpu, head, ids, logits, plan};
use crate::made::Written;

#[test]
fn what_is_no_adapter_for_a_model_is_refused_by_name() {
    let written = Written::golden("llama3", &[]);
    let base = written.bytes();
    let made = MadeAdapter::new(&written, "llama", 1, 4, ATTENTION);
    let file = || ModelFile::from_bytes(base.clone()).unwrap();
    let refusal = |adapter: ir_engine::Result<Adapter>| match adapter {
        Err(error) => error.to_string(),
        Ok(adapter) => inspect_with(&file(), &[attached(adapter, 1.0)]).unwrap_err().to_string(),
    };
    let gguf = |change: &dyn Fn(&mut MadeAdapter)| {
        let mut made = made.clone();
        change(&mut made);
        refusal(Adapter::from_bytes(made.gguf()))
    };
    let says = |said: String, words: &[&str]| assert!(words.iter().all(|word| said.contains(word)), "{said}");
    says(gguf(&|made| made.arch = "qwen2".into()), &["qwen2", "llama"]);
    let rename = |made: &mut MadeAdapter, to: &str| {
        let (_, pair) = made.pairs.pop_first().unwrap();
        made.pairs.insert(to.into(), pair);
    };
    says(gguf(&|made| rename(made, "blk.99.attn_q.weight")), &["blk.99.attn_q.weight", "another model"]);
    says(gguf(&|made| rename(made, "blk.0.attn_norm.weight")), &["blk.0.attn_norm.weight"]);
    says(gguf(&|made| rename(made, "blk.0.ffn_down.weight")), &["blk.0.ffn_down.weight", "another model"]);
    says(gguf(&|made| made.alpha = f32::INFINITY), &["factor"]);
    says(gguf(&|made| made.pairs.values_mut().for_each(|pair| pair.a[0] = f32::NAN)), &["numbers that are none"]);
    let meta = |kind: &str| {
        let meta = MetaBuilder::new().str("general.architecture", "llama").str("general.type", "adapter");
        refusal(Adapter::from_bytes(made.gguf_with(meta.str("adapter.type", kind))))
    };
    says(meta("control_vector"), &["control_vector"]);
    says(refusal(Adapter::from_bytes(base.clone())), &["no adapter"]);
    let as_model = ir_engine::model::inspect(&ModelFile::from_bytes(made.gguf()).unwrap()).unwrap_err().to_string();
    says(as_model, &["--lora"]);

    let (config, weights) = made.peft(head(&base, "llama"));
    let peft = |from: &str, to: &str| {
        assert!(config.contains(from), "{config}");
        refusal(Adapter::from_peft(config.replace(from, to).as_bytes(), &weights))
    };
    says(peft("\"use_dora\":false", "\"use_dora\":true"), &["use_dora"]);
    says(peft("\"bias\":\"none\"", "\"bias\":\"all\""), &["biases"]);
    says(peft("\"modules_to_save\":null", "\"modules_to_save\":[\"lm_head\"]"), &["modules_to_save"]);
    says(peft("\"LORA\"", "\"IA3\""), &["IA3"]);
    says(peft("\"alpha_pattern\":{}", "\"alpha_pattern\":{\".*q_proj\":1}"), &["regular expression"]);
    says(refusal(Adapter::from_peft(b"[]", &weights)), &["adapter_config.json"]);
    let renamed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = weights.to_vec();
        let at: Vec<usize> =
            (0..bytes.len() - from.len()).filter(|i| bytes[*i..].starts_with(from.as_bytes())).collect();
        at.iter().for_each(|i| bytes[*i..*i + to.len()].copy_from_slice(to.as_bytes()));
        refusal(Adapter::from_peft(config.as_bytes(), &Bytes::from(bytes)))
    };
    says(renamed("q_proj.lora_A", "q_what.lora_A"), &["q_proj", "incomplete"]);
    says(renamed("self_attn.q_proj", "self_what.q_proj"), &["self_what.q_proj"]);
    says(renamed("lora_B.weight", "lora_M.weight"), &["lora_M"]);
}

#[test]
fn factors_are_those_of_the_config() {
    let written = Written::golden("llama3", &[]);
    let base = written.bytes();
    let mut made = MadeAdapter::new(&written, "llama", 1, 4, ATTENTION);
    let ids = ids(12, 7);
    let of = |adapter: Adapter| logits(&cpu("scalar"), &plan(&base, &[attached(adapter, 1.0)]), &[(&ids, &[1.0])]);
    let (config, weights) = made.peft(head(&base, "llama"));
    let peft = |from: &str, to: &str| of(Adapter::from_peft(config.replace(from, to).as_bytes(), &weights).unwrap());
    // alpha / sqrt(rank), with a rank of 4, is twice alpha / rank.
    let root = peft("\"bias\"", "\"use_rslora\":true,\"bias\"");
    let own = peft("\"alpha_pattern\":{}", &format!("\"alpha_pattern\":{{\"self_attn.q_proj\":{}}}", 2.0 * made.alpha));
    made.alpha *= 2.0;
    assert_eq!(root, of(Adapter::from_bytes(made.gguf()).unwrap()));
    made.alpha /= 2.0;
    for (name, pair) in &mut made.pairs {
        if name.ends_with("attn_q.weight") {
            pair.b.iter_mut().for_each(|x| *x *= 2.0);
        }
    }
    assert_eq!(own, of(Adapter::from_bytes(made.gguf()).unwrap()));
    // Without an alpha the factor is 1.
    made.alpha = made.rank as f32;
    let one = of(Adapter::from_bytes(made.gguf()).unwrap());
    made.alpha = 0.0;
    assert_eq!(one, of(Adapter::from_bytes(made.gguf()).unwrap()));
}
