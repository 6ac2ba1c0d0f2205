//! Names of matrices that adapters of Hugging Face's form change, in GGUF's terms. What the door does to a matrix beside its name
//! must be done to the adapter's too: heads that are permuted are said so, and what is reordered otherwise is refused.

use super::rows::{ROWS, Row};
use super::tensors::{lookup, parted};
use crate::error::{Error, Result};
use crate::meta::shown;

/// A matrix as folders know it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Theirs {
    /// Its name in GGUF files.
    pub name: String,
    /// Whether GGUF files have its rows permuted for rotations of neighbours.
    pub woven: bool,
}

/// Matrices of these architectures that GGUF files hold multiplied by a factor.
const MULTIPLIED: &[(&str, &[&str])] = &[("falcon-h1", &["token_embd.weight", "output.weight"])];

/// Parts whose rows or columns GGUF files of delta nets have in another order.
const DEALT: &[&str] = &["attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "ssm_ba", "ssm_out", "ssm_in"];

/// What a matrix of a folder (its name without `.weight`) is in GGUF files of an architecture. `in_folder` says that the model
/// itself is a folder, whose rows are as they were published.
///
/// # Errors
/// [`Error::Unsupported`] with the name of a matrix that cannot be translated.
pub(crate) fn translated(arch: &str, theirs: &str, in_folder: bool) -> Result<Theirs> {
    let refused = |why: &str| {
        let name = shown(theirs.as_bytes());
        Err(Error::unsupported(format!("the adapter changes {name}, {why}")))
    };
    let Some(row) = ROWS.iter().find(|row| row.arch == arch) else {
        return refused(&format!(
            "and names of {arch} models are known in GGUF files alone: convert the adapter by llama.cpp's convert_lora_to_gguf.py"
        ));
    };
    let (layer, name) = parted(theirs);
    if row.taken.contains(&name) {
        return refused("whose rows are reordered when the model is read: merge it into the model with PEFT first");
    }
    let Some(base) = lookup(row, layer, name).filter(|base| !base.contains(".weight")) else {
        return refused(&format!("which is no matrix of {arch} models that adapters are read for"));
    };
    let name = match layer {
        Some(layer) => format!("blk.{layer}.{base}.weight"),
        None => format!("{base}.weight"),
    };
    if !in_folder && is_changed(row, theirs, &base, &name) {
        return refused("which GGUF files hold in another form: merge it into the model with PEFT first");
    }
    Ok(Theirs { name, woven: row.halves && ["attn_q", "attn_k"].contains(&base.as_str()) })
}

/// Whether GGUF files have a matrix in another order, or multiplied.
fn is_changed(row: &Row, theirs: &str, base: &str, name: &str) -> bool {
    let multiplied = MULTIPLIED.iter().any(|(arch, names)| *arch == row.arch && names.contains(&name));
    multiplied || theirs.contains("linear_attn.") && DEALT.contains(&base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated_or_refused() {
        let name = |arch: &str, theirs: &str| translated(arch, theirs, false).map(|t| (t.name, t.woven));
        let ok = |name: &str, woven| Some((name.to_owned(), woven));
        assert_eq!(name("llama", "model.layers.3.self_attn.q_proj").ok(), ok("blk.3.attn_q.weight", true));
        assert_eq!(name("llama", "model.layers.3.self_attn.v_proj").ok(), ok("blk.3.attn_v.weight", false));
        assert_eq!(name("qwen3", "model.layers.0.self_attn.q_proj").ok(), ok("blk.0.attn_q.weight", false));
        assert_eq!(name("llama", "lm_head").ok(), ok("output.weight", false));
        for (arch, theirs) in [
            ("llama", "model.layers.0.mlp.experts.3.up_proj"),
            ("llama", "model.layers.0.what_is_this"),
            ("falcon", "transformer.h.0.self_attention.query_key_value"),
            ("falcon-h1", "lm_head"),
            ("qwen3next", "model.layers.0.linear_attn.out_proj"),
            ("bloom", "transformer.h.0.mlp.dense_h_to_4h"),
        ] {
            let said = name(arch, theirs).unwrap_err().to_string();
            assert!(said.contains(theirs), "{said}");
        }
    }
}
