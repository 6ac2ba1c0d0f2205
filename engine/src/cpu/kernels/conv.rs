//! `conv`: causal convolution of columns over a sequence's rows.

use super::act;
use super::kv_write::Columns;
use super::recur::States;
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::plan::{Act, Inputs};

/// The factors of every column and what is done with the sum.
#[derive(Debug, Clone, Copy)]
pub struct Conv<'a> {
    /// The taps of each column, one column after the other.
    pub weight: &'a [f32],
    /// A summand for each column.
    pub bias: Option<&'a [f32]>,
    /// On the sum.
    pub act: Option<Act>,
}

/// `out[t][c] = act(sum over j of weight[c][j] * x[t - taps + 1 + j][c] + bias[c])`. The state is the last `taps - 1` rows.
pub fn conv(
    t: &Table,
    pool: &Pool,
    inputs: &Inputs,
    x: Columns<'_>,
    op: Conv<'_>,
    states: &mut States,
    out: &mut [f32],
) {
    let cols = x.view.cols;
    let taps = op.weight.len() / cols;
    let runs = inputs.runs();
    for (seq, rows) in &runs {
        states.start(inputs.state(*seq, rows.start));
    }
    let of_row: Vec<(usize, u32)> = runs
        .iter()
        .flat_map(|(seq, rows)| rows.clone().map(|row| (row - rows.start, inputs.state(*seq, rows.start).to)))
        .collect();
    let before = &*states;
    pool.rows_mut(out, cols, |r, out| {
        // Rows of the sequence in this step up to this one, and those of the state before them.
        let (done, slot) = of_row[r];
        let past = before.slot(slot);
        out.iter_mut().enumerate().for_each(|(c, out)| *out = op.bias.map_or(0.0, |bias| bias[c]));
        for j in 0..taps {
            let back = taps - 1 - j;
            let row = match back <= done {
                true => x.row(r - back),
                false => &past[(taps - 1 + done - back) * cols..][..cols],
            };
            for (c, (out, x)) in out.iter_mut().zip(row).enumerate() {
                *out += op.weight[c * taps + j] * x;
            }
        }
        if let Some(act) = op.act {
            act::all(t, act, out);
        }
    });
    for (seq, rows) in &runs {
        let state = states.slot_mut(inputs.state(*seq, rows.start).to);
        let kept = (taps - 1).saturating_sub(rows.len());
        state.copy_within((taps - 1 - kept) * cols.., 0);
        for (i, row) in rows.clone().rev().take(taps - 1).enumerate() {
            state[(taps - 2 - i) * cols..][..cols].copy_from_slice(x.row(row));
        }
    }
}
