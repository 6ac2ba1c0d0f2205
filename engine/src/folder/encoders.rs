//! Encoders: what their classes name otherwise, and what of their settings is known.

use serde_json::Value;

use super::config::missing;
use super::keys::Keys;
use super::pooling::classifies;
use super::rows::odd_shape;
use super::tensors::{Door, Named};
use super::views;
use crate::error::{Error, Result};
use crate::file::Folder;
use crate::meta::shown;

type Names = &'static [(&'static str, &'static str)];

/// BERT and XLM-R.
pub(super) const BERT: Names = &[
    ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"),
    ("embeddings.LayerNorm", "token_embd_norm"),
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
    ("classifier.dense", "cls"),
    ("classifier.out_proj", "cls.output"),
    ("classifier", "cls.output"),
];

pub(super) const MODERN_BERT: Names = &[
    ("embeddings.tok_embeddings", "token_embd"),
    ("embeddings.norm", "token_embd_norm"),
    ("final_norm", "output_norm"),
    ("attn_norm", "attn_norm"),
    ("attn.Wqkv", "attn_qkv"),
    ("attn.Wo", "attn_output"),
    ("mlp_norm", "ffn_norm"),
    ("mlp.Wi", "ffn_up"),
    ("mlp.Wo", "ffn_down"),
    ("head.dense", "cls"),
    ("head.norm", "cls.norm"),
    ("classifier", "cls.output"),
];

pub(super) const NOMIC_BERT: Names = &[
    ("embeddings.word_embeddings", "token_embd"),
    ("emb_ln", "token_embd_norm"),
    ("attn.Wqkv", "attn_qkv"),
    ("attn.out_proj", "attn_output"),
    ("norm1", "attn_output_norm"),
    ("mlp.fc11", "ffn_up"),
    ("mlp.fc12", "ffn_gate"),
    ("mlp.fc2", "ffn_down"),
    ("norm2", "layer_output_norm"),
];

/// Types of tokens are rows of a table. The matrix that pools is the first of a head that ranks; what it does for another task
/// is passed over.
pub(super) fn bert(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    match named.name {
        "embeddings.token_type_embeddings.weight" => types(door, named),
        "pooler.dense.weight" | "pooler.dense.bias" if classifies(door) => {
            door.whole(named.name.replace("pooler.dense", "cls"), named.tensor).map(|()| true)
        }
        "pooler.dense.weight" | "pooler.dense.bias" => Ok(true),
        _ => Ok(false),
    }
}

/// The same; positions begin behind the one of padding.
pub(super) fn xlm_roberta(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    if named.name != "embeddings.position_embeddings.weight" {
        return bert(door, named);
    }
    let first = u64::from(door.config.u32(&["pad_token_id"]).unwrap_or(1)) + 1;
    let (rows, cols) = views::rows_and_cols(named.tensor);
    if first >= rows {
        return Err(odd_shape(named.tensor));
    }
    let kept = first..rows;
    door.rows("position_embd.weight".into(), named.tensor, std::slice::from_ref(&kept), vec![cols, rows - first])?;
    Ok(true)
}

fn types(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    door.vector("token_types.weight".into(), named.tensor, |x| x)?;
    Ok(true)
}

pub(super) fn bert_keys(keys: &mut Keys<'_, '_>) -> Result<()> {
    keys.only(&[("hidden_act", "gelu"), ("position_embedding_type", "absolute"), ("is_decoder", "false")])?;
    keys.bool("attention.causal", Some(false));
    // Tables of positions are as long as contexts.
    let positions = keys.door.dims_of("position_embd.weight").and_then(|dims| u32::try_from(*dims.get(1)?).ok());
    keys.u32("context_length", positions);
    let types = keys.door.dims_of("token_types.weight").map_or(0, |dims| dims.get(1).copied().unwrap_or(1));
    keys.put(|meta| meta.u32("tokenizer.ggml.token_type_count", u32::try_from(types).unwrap_or(u32::MAX)));
    if types > 1 && classifies(keys.door) && types_tell_texts(keys.door.folder)? {
        keys.bool("pairs_have_types", Some(true));
    }
    Ok(())
}

/// Whether the folder's tokenizer gives the second text of a pair a type of its own. Without rules it is BERT's, which does.
fn types_tell_texts(folder: &Folder) -> Result<bool> {
    let Some(tokenizer) = folder.json("tokenizer.json")? else { return Ok(true) };
    let Some(rules) = tokenizer.get("post_processor") else { return Ok(false) };
    let parts = rules.get("processors").and_then(Value::as_array);
    Ok(parts.map_or(std::slice::from_ref(rules), Vec::as_slice).iter().any(types_second))
}

fn types_second(rules: &Value) -> bool {
    let second = |part: &Value| {
        let text = part.get("Sequence").filter(|text| text.get("id").and_then(Value::as_str) == Some("B"));
        text.and_then(|text| text.get("type_id")?.as_u64()) == Some(1)
    };
    match rules.get("type").and_then(Value::as_str) {
        Some("BertProcessing") => true,
        Some("TemplateProcessing") => {
            rules.get("pair").and_then(Value::as_array).is_some_and(|pair| pair.iter().any(second))
        }
        _ => false,
    }
}

/// Heads that guess hidden tokens are passed over.
pub(super) fn modern_bert(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    let guesses = ["head.", "decoder."].iter().any(|start| named.name.starts_with(start));
    Ok(guesses && !classifies(door))
}

pub(super) fn modern_bert_keys(keys: &mut Keys<'_, '_>) -> Result<()> {
    let gated = [("hidden_activation", "gelu")];
    let head = [("hidden_activation", "gelu"), ("classifier_activation", "gelu")];
    keys.only(if classifies(keys.door) { &head } else { &gated })?;
    let rows = match keys.config().str(&["classifier_pooling"]) {
        None | Some("cls") => 2,
        Some("mean") => 1,
        Some(other) => {
            let other = shown(other.as_bytes());
            return Err(Error::unsupported(format!("classifiers that read rows by {other} are not supported")));
        }
    };
    keys.u32("classifier.pooling_type", Some(rows));
    keys.str("hidden_activation", "gelu");
    keys.bool("attention.causal", Some(false));
    keys.copy_f32("attention.layer_norm_epsilon", &["norm_eps", "layer_norm_eps"]);
    keys.copy("attention.sliding_window", &["local_attention", "sliding_window"]);
    let kinds = keys.config().layer_types();
    let marks: Option<Vec<bool>> = kinds.map(|all| all.iter().map(|kind| *kind == "sliding_attention").collect());
    match marks {
        Some(marks) => keys.bools("attention.sliding_window_pattern", &marks),
        None => keys.copy("attention.sliding_window_pattern", &["global_attn_every_n_layers"]),
    }
    Ok(())
}

pub(super) fn nomic_bert(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    match named.name {
        "embeddings.token_type_embeddings.weight" => types(door, named),
        _ => Ok(false),
    }
}

pub(super) fn nomic_bert_keys(keys: &mut Keys<'_, '_>) -> Result<()> {
    keys.only(&[
        ("activation_function", "swiglu"),
        ("causal", "false"),
        ("prenorm", "false"),
        ("use_rms_norm", "false"),
        ("parallel_block", "false"),
        ("rotary_emb_fraction", "1.0"),
        ("rotary_emb_interleaved", "false"),
        ("num_experts", "0"),
    ])?;
    let base = keys.config().f32(&["rotary_emb_base"]).ok_or_else(|| missing(&["rotary_emb_base"]))?;
    keys.f32("rope.freq_base", Some(base));
    keys.bool("attention.causal", Some(false));
    // Behind the trained context the base grows, which is not computed.
    keys.copy("context_length", &["max_trained_positions"]);
    Ok(())
}
