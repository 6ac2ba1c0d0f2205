//! `expert_linear`: products with the matrices that each row picked. Rows are sorted by matrix, so that each matrix is read
//! once, and those that nobody picked not at all.

use super::linear::{Activations, Scratch, linear};
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::plan::Segment;

/// A stack of matrices and the vectors that go with them.
#[derive(Debug)]
pub struct Stack<'a> {
    /// The row segments of each matrix, one matrix after the other.
    pub segments: &'a [Segment],
    /// Matrices.
    pub n: usize,
    /// Input columns of each.
    pub k: usize,
    /// A factor for each row of each.
    pub scale: Option<&'a [f32]>,
    /// A summand for each row of each.
    pub bias: Option<&'a [f32]>,
}

/// Memory that [`expert_linear`] uses again from call to call.
#[derive(Debug, Default)]
pub struct Gathered {
    x: Vec<f32>,
    out: Vec<f32>,
}

/// The inputs: rows of `k` columns, or of `k` for each pick if `each`, and `used` picks of each row.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Activations.
    pub x: &'a [f32],
    /// Whether each pick has columns of its own.
    pub each: bool,
    /// `[rows, 2 * used]`: indices as bits, then weights, which are not used here.
    pub picks: &'a [f32],
    /// Picks of a row.
    pub used: usize,
}

/// `out[r][j] = x[r (and j if each)] * stack[pick j of r]^T * scale + bias`.
#[expect(clippy::too_many_arguments, reason = "an op with its operands; each is named at the call")]
pub fn expert_linear(
    t: &Table,
    pool: &Pool,
    scratch: &mut Scratch,
    gathered: &mut Gathered,
    stack: &Stack<'_>,
    rows: Rows<'_>,
    mode: Activations,
    out: &mut [f32],
) {
    let (k, per) = (stack.k, stack.segments.len() / stack.n);
    let n: usize = stack.segments[..per].iter().map(|s| s.rows).sum();
    for (e, places) in by_matrix(rows, stack.n).iter().enumerate().filter(|(_, places)| !places.is_empty()) {
        gathered.x.clear();
        for place in places {
            let from = if rows.each { *place } else { place / rows.used };
            gathered.x.extend_from_slice(&rows.x[from * k..(from + 1) * k]);
        }
        gathered.out.resize(places.len() * n, 0.0);
        let part = |vector: Option<&'_ [f32]>| vector.map(|v| v[e * n..(e + 1) * n].to_vec());
        let (scale, bias) = (part(stack.scale), part(stack.bias));
        let segments = &stack.segments[e * per..(e + 1) * per];
        linear(t, pool, scratch, segments, k, &gathered.x, mode, scale.as_deref(), bias.as_deref(), &mut gathered.out);
        for (place, y) in places.iter().zip(gathered.out.chunks_exact(n)) {
            out[place * n..(place + 1) * n].copy_from_slice(y);
        }
    }
}

/// For each matrix the places `row * used + j` that picked it. An index beyond the stack, which only damaged activations
/// give, counts as the last.
fn by_matrix(rows: Rows<'_>, n: usize) -> Vec<Vec<usize>> {
    let mut places = vec![Vec::new(); n];
    for (r, picks) in rows.picks.chunks_exact(2 * rows.used).enumerate() {
        for (j, id) in picks[..rows.used].iter().enumerate() {
            places[(id.to_bits() as usize).min(n - 1)].push(r * rows.used + j);
        }
    }
    places
}
