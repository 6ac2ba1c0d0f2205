//! Which type each tensor of a file gets: mixes by name, as llama.cpp has them (`llama-quant.cpp`). Matrices that matter more
//! get more bits: by their part of the layer, and in some layers by its number.

use DType::{F16, IQ3_S, IQ4_NL, IQ4_XS, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, TQ2_0};

use super::DType;

/// A mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Its name.
    pub name: &'static str,
    /// The type of what nothing else is said of.
    pub dtype: DType,
    /// Its number in files: `general.file_type`.
    pub file_type: u32,
}

macro_rules! mixes {
    ($($name:literal $dtype:ident $id:literal,)*) => {
        /// All mixes.
        pub const MIXES: &[Mix] = &[$(Mix { name: $name, dtype: DType::$dtype, file_type: $id }),*];
    };
}
mixes! {
    "F32" F32 0, "F16" F16 1, "BF16" BF16 32,
    "Q4_0" Q4_0 2, "Q4_1" Q4_1 3, "Q5_0" Q5_0 8, "Q5_1" Q5_1 9, "Q8_0" Q8_0 7,
    "Q2_K" Q2_K 10, "Q2_K_S" Q2_K 21, "Q3_K_S" Q3_K 11, "Q3_K_M" Q3_K 12, "Q3_K_L" Q3_K 13,
    "Q4_K_S" Q4_K 14, "Q4_K_M" Q4_K 15, "Q5_K_S" Q5_K 16, "Q5_K_M" Q5_K 17, "Q6_K" Q6_K 18,
    "IQ4_NL" IQ4_NL 25, "IQ4_XS" IQ4_XS 30, "IQ3_S" IQ3_S 26, "IQ3_M" IQ3_S 27,
    "TQ2_0" TQ2_0 37, "MXFP4" MXFP4 38, "MXFP4_MOE" MXFP4 38,
}

impl Mix {
    /// The mix of this name, in letters of either case; `Q4_K` is `Q4_K_M`.
    pub fn of(name: &str) -> Option<Mix> {
        let find = |name: &str| MIXES.iter().find(|m| m.name.eq_ignore_ascii_case(name)).copied();
        find(name).or_else(|| find(&format!("{name}_M")))
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name)
    }
}

/// What the choice depends on, beside the tensor.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The architecture.
    pub arch: String,
    /// Blocks, those that draft tokens included.
    pub n_layers: usize,
    /// Query heads for a key head, in the first layer.
    pub queries_per_key: usize,
    /// Experts in a layer; 0 if there are none.
    pub n_experts: usize,
    /// Whether the token table is also the head.
    pub tied: bool,
    /// Whether there is an importance matrix.
    pub important: bool,
    /// Tensors that make values.
    pub n_values: usize,
}

/// Which part a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The token table.
    Tokens,
    /// The head.
    Head,
    /// Values, also together with queries and keys.
    Values,
    /// Keys.
    Keys,
    /// The output of attention.
    Output,
    /// The second matrix of a feed-forward part.
    Down,
    /// Any other matrix.
    Other,
}

impl Part {
    /// The part of this name.
    pub fn of(name: &str) -> Part {
        let has = |part: &str| name.contains(part);
        match name {
            "output.weight" => Part::Head,
            "token_embd.weight" | "per_layer_token_embd.weight" => Part::Tokens,
            _ if has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight") => Part::Values,
            _ if has("attn_k.weight") => Part::Keys,
            _ if has("attn_output.weight") => Part::Output,
            _ if has("ffn_down") => Part::Down,
            _ => Part::Other,
        }
    }
}

/// Parts of names of matrices that are small, or whose rounding costs too much.
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    "position_embd",
    "token_types",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
];

/// Whether a tensor is rounded at all.
pub fn is_rounded(name: &str, n_dims: usize) -> bool {
    n_dims >= 2 && name.ends_with("weight") && !KEPT.iter().any(|kept| name.contains(kept))
}

/// The type of a matrix: the `nth` of its part, of rows of `cols`. `stacked` if it is several matrices.
pub fn choose(mix: Mix, facts: &Facts, part: Part, nth: usize, cols: usize, stacked: bool) -> DType {
    let fits = |dtype: DType| cols.is_multiple_of(dtype.block_len());
    let other = facts.arch == "falcon";
    match part {
        _ if part == Part::Head || part == Part::Tokens && facts.tied => match mix.dtype {
            _ if mix.is(&["MXFP4_MOE"]) || other || !fits(mix.dtype) => Q8_0,
            Q8_0 => Q8_0,
            _ => Q6_K,
        },
        _ if mix.is(&["MXFP4_MOE"]) => {
            if stacked {
                mix.dtype
            } else {
                Q8_0
            }
        }
        Part::Tokens => {
            if mix.dtype == TQ2_0 {
                Q4_K
            } else {
                mix.dtype
            }
        }
        Part::Values => values(mix, facts, nth),
        Part::Keys => {
            if facts.n_experts == 8 {
                Q8_0
            } else {
                mix.dtype
            }
        }
        Part::Down => down(mix, facts, nth, other),
        Part::Output => output(mix, facts, other),
        _ => mix.dtype,
    }
}

/// Whether a layer is among those whose parts get more bits: the first and last eighth, and every third between.
fn more(i: usize, n: usize) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

fn values(mix: Mix, facts: &Facts, i: usize) -> DType {
    let many = facts.queries_per_key >= 4;
    let dtype = match mix.name {
        "Q2_K" => {
            if many {
                Q4_K
            } else {
                Q3_K
            }
        }
        "Q2_K_S" | "IQ3_S" if many => Q4_K,
        "IQ3_M" => Q4_K,
        "Q3_K_M" => {
            if i < 2 {
                Q5_K
            } else {
                Q4_K
            }
        }
        "Q3_K_L" => Q5_K,
        "IQ4_NL" | "IQ4_XS" if many => Q5_K,
        "Q4_K_M" | "Q5_K_M" if more(i, facts.n_values) => Q6_K,
        "Q4_K_S" if i < 4 => Q5_K,
        _ => mix.dtype,
    };
    match dtype {
        _ if facts.n_experts == 8 => Q8_0,
        // The models of 70B have 80 layers, and values that are few.
        Q3_K | Q4_K if facts.n_layers == 80 && facts.queries_per_key > 1 => Q5_K,
        dtype => dtype,
    }
}

fn down(mix: Mix, facts: &Facts, i: usize, other: bool) -> DType {
    let n = facts.n_layers;
    let early = i < n / 8;
    match mix.name {
        "Q2_K" => Q3_K,
        "Q2_K_S" if early => Q4_K,
        "Q3_K_M" if i < n / 16 => Q5_K,
        "Q3_K_M" if !other || more(i, n) => Q4_K,
        "IQ3_M" if early || facts.n_experts == 8 && more(i, n) => Q4_K,
        "Q3_K_L" => {
            if other {
                Q4_K
            } else {
                Q5_K
            }
        }
        "Q4_K_M" if other && i < n / 16 => Q6_K,
        "Q4_K_M" if more(i, n) => {
            if other {
                Q5_K
            } else {
                Q6_K
            }
        }
        "IQ4_NL" | "IQ4_XS" if early && !facts.important => Q5_K,
        "Q5_K_M" if more(i, n) => Q6_K,
        "Q4_K_S" if !other && early => Q5_K,
        "Q4_0" if early && facts.important => Q4_1,
        "Q5_0" if early && facts.important => Q5_1,
        _ => mix.dtype,
    }
}

fn output(mix: Mix, facts: &Facts, other: bool) -> DType {
    const OF_EIGHT: &[&str] = &["Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS"];
    match mix.name {
        "Q3_K_L" if other => Q4_K,
        _ if other => mix.dtype,
        _ if facts.n_experts == 8 => {
            if mix.is(OF_EIGHT) {
                Q5_K
            } else {
                mix.dtype
            }
        }
        "Q2_K" => Q3_K,
        "Q3_K_M" | "IQ3_M" => Q4_K,
        "Q3_K_L" => Q5_K,
        _ => mix.dtype,
    }
}

/// The type, or one of about as many bits for rows that are no whole number of its blocks.
pub fn fitting(dtype: DType, cols: usize) -> DType {
    let fits = |dtype: DType| cols.is_multiple_of(dtype.block_len());
    if fits(dtype) {
        return dtype;
    }
    let other = match dtype {
        IQ3_S | IQ4_XS => IQ4_NL,
        Q2_K | Q3_K | TQ2_0 => Q4_0,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        other => other,
    };
    if fits(other) { other } else { F16 }
}
