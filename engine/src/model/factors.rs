//! Factors beside matrices: `x.scale` multiplies the product of `x.weight`. A file has one number for a matrix,
//! a folder of quantised weights may have one for each row.

use std::ops::Range;

use super::weights::{Weights, arrived};
use crate::adapter::Rows;
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::Result;
use crate::file::Table;
use crate::folder::FACTORS;
use crate::plan::{Recorder, Segment, WeightId};

/// Whether a name is that of a matrix or bias of a feed-forward part that every row uses.
fn is_dense_ffn(name: &str) -> bool {
    name.contains(".ffn_") && !name.contains("_exps.") && !name.contains("_inp")
}

/// The name of the tensor that goes with a matrix, `.weight` replaced.
fn beside(matrix: &str, end: &str) -> String {
    format!("{}{end}", matrix.strip_suffix(".weight").unwrap_or(matrix))
}

/// Whether recording reads a tensor's numbers because it is such a factor, or a bias that one multiplies.
pub(super) fn is_read(table: &Table, name: &str) -> bool {
    let bias = name.strip_suffix(".bias").filter(|_| is_dense_ffn(name));
    name.ends_with(".scale") || bias.is_some_and(|x| table.tensor(&format!("{x}.scale")).is_some())
}

/// Architectures in which llama.cpp multiplies products of plain numbers by factors, by the part of a layer.
const FFN: &str = "bitnet cohere2 cohere2moe deepseek32 dots3note gemma4 glm-dsa hy_v3 llama mistral3 nanbeige \
    nemotron_h nemotron_h_moe qwen3 qwen35";
const EXPERTS: &str = "cohere2moe deepseek32 dots3note gemma4 glm-dsa hy_v3 llama mellum mistral3 nemotron_h nemotron_h_moe \
    qwen35moe qwen3moe qwen3next qwen4exp";
const SHARED_EXPERTS: &str =
    "cohere2moe deepseek32 dots3note glm-dsa hy_v3 nemotron_h nemotron_h_moe qwen35moe qwen3next qwen4exp";
/// Of dense parts the last matrix alone.
const FFN_DOWN: &str = "talkie";
/// A gate on attention is multiplied in these alone.
const GATE: &str = "qwen35 qwen35moe";
/// Other parts are multiplied in all, but for these: attention, its queries, keys and values, and all of layers that keep a
/// state.
const NO_ATTENTION: &str = "bailingmoe3 glm5-next hy_v4 kimi-k3";
const NO_QUERIES: &str = "cogvlm mimo2 openelm plamo2 plamo3";
const NO_STATE: &str = "bailingmoe3 glm5-next kimi-k3 kimi-linear minimax-01 plamo2 qwen3next";
/// What layers have that keep a state.
const OF_STATE: [&str; 3] = ["ssm_conv1d.weight", "ssm_conv1d_q.weight", "attn_norm_2.weight"];

/// The factors beside a tensor.
struct Factors {
    values: Vec<f32>,
    /// Rows of a matrix, if each has its own.
    rows: Option<usize>,
}

impl Factors {
    /// Those of rows of the `e`-th matrix.
    fn of_rows(&self, e: usize, range: Range<usize>) -> Vec<f32> {
        match self.rows {
            Some(rows) => self.values[e * rows..][range].to_vec(),
            None => vec![self.values[e]; range.len()],
        }
    }
}

impl Weights<'_> {
    /// The factors beside the tensors of which rows are used, of `n` matrices each; `None` if the file holds none of them.
    pub(super) fn scale(&self, rec: &mut Recorder, name: &str, parts: &[Rows], n: usize) -> Result<Option<WeightId>> {
        if parts.iter().all(|(tensor, ..)| !self.has(&beside(tensor, ".scale"))) {
            return Ok(None);
        }
        // Each is looked at, also behind one that has not arrived.
        let all = parts.iter().map(|(tensor, rows, _)| self.factors(tensor, n, *rows)).collect::<Result<Vec<_>>>()?;
        let all: Option<Vec<Factors>> = all.into_iter().collect();
        let values = all.map(|all| {
            let of = |e: usize, (f, (_, _, ranges)): (&Factors, &Rows)| {
                ranges.iter().flat_map(|r| f.of_rows(e, r.clone())).collect::<Vec<f32>>()
            };
            let of = |e: usize| all.iter().zip(parts).flat_map(move |pair| of(e, pair));
            (0..n).flat_map(of).collect::<Vec<f32>>()
        });
        let rows = parts.iter().flat_map(|(_, _, ranges)| ranges).map(Range::len).sum::<usize>() * n;
        Ok(Some(self.constant(rec, &format!("{name}.scale"), values.as_deref(), rows)))
    }

    /// The factors of the `n` matrices of a tensor, of `rows` rows each; `None` if they have not arrived yet.
    fn factors(&self, matrix: &str, n: usize, rows: usize) -> Result<Option<Factors>> {
        let ones = || Factors { values: vec![1.0; n], rows: None };
        let Some(tensor) = self.file.tensor(&beside(matrix, ".scale")) else { return Ok(Some(ones())) };
        self.note_read(tensor.name());
        // One for each matrix, or for each row.
        let each = rows > 1 && tensor.n_elements() == n.saturating_mul(rows) as u64 && self.has_own_factors();
        let values = arrived(self.file, tensor, if each { n * rows } else { n })?;
        let factors = values.map(|values| Factors { values, rows: each.then_some(rows) });
        Ok(if self.multiplies(matrix) { factors } else { Some(ones()) })
    }

    /// Whether factors stand beside matrices because the door put them there.
    fn has_own_factors(&self) -> bool {
        self.file.meta().opt_bool(FACTORS).ok().flatten() == Some(true)
    }

    /// Whether the factor beside a matrix counts. It always does beside blocks. Beside plain numbers no converter writes one
    /// that matters, and llama.cpp, whose tests have some everywhere, passes many over.
    fn multiplies(&self, matrix: &str) -> bool {
        if self.has_own_factors()
            || self.file.tensor(matrix).and_then(|t| t.dtype().ok()).is_none_or(|t| t.block_len() > 1)
        {
            return true;
        }
        let arch = self.file.meta().arch().unwrap_or_default();
        let is_in = |names: &str| names.split(' ').any(|name| name == arch);
        let Some((layer, name)) = matrix.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            return true;
        };
        let beside_it = |tensor: &&str| self.has(&format!("blk.{layer}.{tensor}"));
        match name {
            m if m.contains("_shexp.") => is_in(SHARED_EXPERTS),
            m if m.contains("_exps.") => is_in(EXPERTS),
            m if is_dense_ffn(matrix) => is_in(FFN) || m.starts_with("ffn_down.") && is_in(FFN_DOWN),
            m if m.starts_with("attn_gate.") => is_in(GATE),
            _ if OF_STATE.iter().any(&beside_it) => !is_in(NO_STATE),
            // Queries of keys that are one row for all heads, too, in none.
            m if m.starts_with("attn_q.") && beside_it(&"attn_kv_a_mqa.weight") => false,
            m if ["attn_q.", "attn_k.", "attn_v.", "attn_qkv."].iter().any(|start| m.starts_with(start)) => {
                !is_in(NO_ATTENTION) && !is_in(NO_QUERIES)
            }
            m => !(m.starts_with("attn_") && is_in(NO_ATTENTION)),
        }
    }

    /// The bias of a matrix. In feed-forward parts the factor multiplies it too; then it is no range of the file.
    pub(super) fn bias_rows(&self, matrix: &str, rows: usize) -> Result<Vec<Segment>> {
        let name = beside(matrix, ".bias");
        let Some(bias) = self.file.tensor(&name).filter(|_| self.has(&name)) else {
            return Ok(vec![plain_rows(rows, Bytes::from(vec![0; 4 * rows]))]);
        };
        if !is_dense_ffn(&name) || !self.has(&beside(matrix, ".scale")) {
            return self.segments(&name, Some(rows), 1);
        }
        let factors = self.factors(matrix, 1, rows)?;
        // Factors of rows are scales of quantised weights, and a bias is not quantised with them.
        if factors.as_ref().is_some_and(|f| f.rows.is_some()) {
            return self.segments(&name, Some(rows), 1);
        }
        self.note_read(&name);
        let both = arrived(self.file, bias, rows)?.zip(factors);
        let times = |(bias, f): (Vec<f32>, Factors)| {
            bias.iter().zip(f.of_rows(0, 0..rows)).map(|(x, f)| x * f).collect::<Vec<f32>>()
        };
        let values = both.map(times);
        Ok(vec![plain_rows(rows, values.map_or(Bytes::default(), |values| floats(&values)))])
    }
}

/// Numbers as a segment that no file holds as they are.
pub(super) fn plain_rows(rows: usize, bytes: Bytes) -> Segment {
    Segment { name: String::new(), dtype: DType::F32, rows, bytes, row_bytes: 4, offset: 0 }
}

/// Numbers as a file has them.
pub(super) fn floats(values: &[f32]) -> Bytes {
    Bytes::from(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}
