//! T5: an encoder's and a decoder's blocks, of which each has its parts by number.

use super::keys::Keys;
use super::rows::odd_shape;
use super::tensors::{Door, Named};
use crate::error::{Error, Result};
use crate::meta::shown;

/// What a part's tensors are, whatever its number.
const PARTS: &[(&str, &str)] = &[
    ("SelfAttention.q", "attn_q"),
    ("SelfAttention.k", "attn_k"),
    ("SelfAttention.v", "attn_v"),
    ("SelfAttention.o", "attn_o"),
    ("SelfAttention.relative_attention_bias", "attn_rel_b"),
    ("EncDecAttention.q", "cross_attn_q"),
    ("EncDecAttention.k", "cross_attn_k"),
    ("EncDecAttention.v", "cross_attn_v"),
    ("EncDecAttention.o", "cross_attn_o"),
    ("DenseReluDense.wi", "ffn_up"),
    ("DenseReluDense.wi_0", "ffn_gate"),
    ("DenseReluDense.wi_1", "ffn_up"),
    ("DenseReluDense.wo", "ffn_down"),
];

/// The norms in front of the parts, by their numbers.
const ENCODER_NORMS: &[&str] = &["attn_norm", "ffn_norm"];
const DECODER_NORMS: &[&str] = &["attn_norm", "cross_attn_norm", "ffn_norm"];

pub(super) fn tensor(door: &mut Door<'_>, named: &Named<'_>) -> Result<bool> {
    let name = match named.name {
        "shared.weight" => "token_embd.weight".to_owned(),
        "encoder.final_layer_norm.weight" => "enc.output_norm.weight".to_owned(),
        "decoder.final_layer_norm.weight" => "dec.output_norm.weight".to_owned(),
        // The same table once more.
        "encoder.embed_tokens.weight" | "decoder.embed_tokens.weight" => return Ok(true),
        // Unused: the class gives one to the first block of cross attention in old files.
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight" => return Ok(true),
        name => match in_block(name) {
            Some(name) => name,
            None => return Ok(false),
        },
    };
    if name.ends_with("attn_rel_b.weight") && named.tensor.shape().len() != 2 {
        return Err(odd_shape(named.tensor));
    }
    door.whole(name, named.tensor)?;
    Ok(true)
}

/// The name in GGUF files of `encoder.block.0.layer.1.layer_norm.weight` and the like.
fn in_block(name: &str) -> Option<String> {
    let sides = [("encoder.block.", "enc", ENCODER_NORMS), ("decoder.block.", "dec", DECODER_NORMS)];
    let (rest, side, norms) =
        sides.iter().find_map(|(start, ours, norms)| Some((name.strip_prefix(start)?, ours, norms)))?;
    let (block, rest) = rest.split_once(".layer.")?;
    let (part, rest) = rest.split_once('.')?;
    let (block, part) = (block.parse::<u32>().ok()?, part.parse::<usize>().ok()?);
    let base = rest.strip_suffix(".weight")?;
    let ours = match base {
        "layer_norm" => norms.get(part)?,
        _ => PARTS.iter().find(|(theirs, _)| *theirs == base).map(|(_, ours)| ours)?,
    };
    Some(format!("{side}.blk.{block}.{ours}.weight"))
}

pub(super) fn keys(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    match config.str(&["feed_forward_proj"]) {
        Some("relu" | "gated-gelu") => {}
        other => {
            let other = shown(other.unwrap_or("unknown").as_bytes());
            return Err(Error::unsupported(format!("feed-forward parts of the kind {other} are not supported in T5")));
        }
    }
    keys.only(&[("relative_attention_max_distance", "128")])?;
    let dim = config.count(&["d_kv"])?;
    let blocks = config.u32(&["num_decoder_layers"]).map_or_else(|| config.layers(), Ok)?;
    keys.u32("decoder_block_count", Some(blocks));
    keys.u32("attention.key_length", Some(dim));
    keys.u32("attention.value_length", Some(dim));
    keys.copy("attention.relative_buckets_count", &["relative_attention_num_buckets"]);
    keys.copy("decoder_start_token_id", &["decoder_start_token_id"]);
    keys.copy_f32("attention.layer_norm_rms_epsilon", &["layer_norm_epsilon"]);
    Ok(())
}
