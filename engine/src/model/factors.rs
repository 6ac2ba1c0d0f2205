//! Factors beside matrices: `x.scale` multiplies the product of `x.weight`. A file has one number for a matrix.

use std::ops::Range;

use super::weights::{Weights, arrived};
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::Result;
use crate::file::Table;
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

/// Architectures in which llama.cpp multiplies products of plain numbers by factors, by the part of a layer. Attention is
/// multiplied in all of them but [`FUSED_QKV_WITHOUT`].
const FFN: &str = "bitnet cohere2 cohere2moe deepseek32 dots3note gemma4 glm-dsa hy_v3 llama mistral3 nanbeige \
    nemotron_h nemotron_h_moe qwen3 qwen35 talkie";
const EXPERTS: &str = "cohere2moe deepseek32 dots3note gemma4 glm-dsa hy_v3 llama mellum mistral3 nemotron_h nemotron_h_moe \
    qwen35moe qwen3moe qwen3next qwen4exp";
const SHARED_EXPERTS: &str =
    "cohere2moe deepseek32 dots3note glm-dsa hy_v3 nemotron_h nemotron_h_moe qwen35moe qwen3next qwen4exp";
const FUSED_QKV_WITHOUT: &str = "cogvlm openelm mimo2 plamo2 plamo3";
/// A gate on attention is multiplied in these alone, and what delta rules of this kind take in none.
const GATE: &str = "qwen35 qwen35moe";
const NO_ATTENTION: &str = "bailingmoe3 kimi-linear";

impl Weights<'_> {
    /// The factors that go with `names` on the products of `n` matrices whose `rows[i]` output columns come from `names[i]`,
    /// or `None` if the file holds none of them.
    pub(super) fn scale(
        &self,
        rec: &mut Recorder,
        name: &str,
        names: &[String],
        rows: &[usize],
        n: usize,
    ) -> Result<Option<WeightId>> {
        if names.iter().all(|name| !self.has(&beside(name, ".scale"))) {
            return Ok(None);
        }
        // Each is looked at, also behind one that has not arrived.
        let all = names.iter().map(|name| self.factors(name, n)).collect::<Result<Vec<_>>>()?;
        let all: Option<Vec<Vec<f32>>> = all.into_iter().collect();
        let values = all.map(|all| {
            let of = |e: usize| all.iter().zip(rows).flat_map(move |(f, rows)| std::iter::repeat_n(f[e], *rows));
            (0..n).flat_map(of).collect::<Vec<f32>>()
        });
        let rows = rows.iter().sum::<usize>() * n;
        Ok(Some(self.constant(rec, &format!("{name}.scale"), values.as_deref(), rows)))
    }

    /// The factors beside tensors of which ranges of rows are used; `None` if the file holds none of them.
    pub(super) fn slices_scale(
        &self,
        rec: &mut Recorder,
        name: &str,
        parts: &[(String, usize, Vec<Range<usize>>)],
    ) -> Result<Option<WeightId>> {
        if parts.iter().all(|(tensor, ..)| !self.has(&beside(tensor, ".scale"))) {
            return Ok(None);
        }
        let all = parts.iter().map(|(tensor, ..)| self.factors(tensor, 1)).collect::<Result<Vec<_>>>()?;
        let n_rows = |ranges: &[Range<usize>]| ranges.iter().map(Range::len).sum::<usize>();
        let all: Option<Vec<Vec<f32>>> = all.into_iter().collect();
        let values = all.map(|all| {
            let of = |(f, (_, _, ranges)): (&Vec<f32>, &(_, _, Vec<_>))| std::iter::repeat_n(f[0], n_rows(ranges));
            all.iter().zip(parts).flat_map(of).collect::<Vec<f32>>()
        });
        let rows = parts.iter().map(|(_, _, ranges)| n_rows(ranges)).sum();
        Ok(Some(self.constant(rec, &format!("{name}.scale"), values.as_deref(), rows)))
    }

    /// The factors of the `n` matrices of a tensor; `None` if they have not arrived yet.
    fn factors(&self, matrix: &str, n: usize) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.file.tensor(&beside(matrix, ".scale")) else { return Ok(Some(vec![1.0; n])) };
        self.note_read(tensor.name());
        let factors = arrived(self.file, tensor, n)?;
        Ok(if self.multiplies(matrix) { factors } else { Some(vec![1.0; n]) })
    }

    /// Whether the factor beside a matrix counts. It always does beside blocks. Beside plain numbers no converter writes one
    /// that matters, and llama.cpp, whose tests have some everywhere, passes many over.
    fn multiplies(&self, matrix: &str) -> bool {
        if self.file.tensor(matrix).and_then(|t| t.dtype().ok()).is_none_or(|t| t.block_len() > 1) {
            return true;
        }
        let arch = self.file.meta().arch().unwrap_or_default();
        let is_in = |names: &str| names.split(' ').any(|name| name == arch);
        match matrix {
            m if m.contains("_shexp.") => is_in(SHARED_EXPERTS),
            m if m.contains("_exps.") => is_in(EXPERTS),
            m if is_dense_ffn(m) => is_in(FFN),
            m if m.contains(".attn_gate.") => is_in(GATE),
            m if m.contains(".attn_") && is_in(NO_ATTENTION) => false,
            m => !(m.contains(".attn_qkv.") && is_in(FUSED_QKV_WITHOUT)),
        }
    }

    /// The bias of a matrix. In feed-forward parts the factor multiplies it too; then it is no range of the file.
    pub(super) fn bias_rows(&self, matrix: &str, rows: usize) -> Result<Segment> {
        let name = beside(matrix, ".bias");
        let Some(bias) = self.file.tensor(&name).filter(|_| self.has(&name)) else {
            return Ok(plain_rows(rows, Bytes::from(vec![0; 4 * rows])));
        };
        if !is_dense_ffn(&name) || !self.has(&beside(matrix, ".scale")) {
            return self.segment(&name, Some(rows), 1);
        }
        self.note_read(&name);
        let both = arrived(self.file, bias, rows)?.zip(self.factors(matrix, 1)?);
        let values = both.map(|(bias, factor)| bias.iter().map(|x| x * factor[0]).collect::<Vec<f32>>());
        Ok(plain_rows(rows, values.map_or(Bytes::default(), |values| floats(&values))))
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
