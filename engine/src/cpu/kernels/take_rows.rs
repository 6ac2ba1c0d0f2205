//! `take_rows`: the rows whose logits are wanted.

/// `out[i] = x[rows[i]]`, rows of `cols`.
pub fn take_rows(x: &[f32], cols: usize, rows: &[u32], out: &mut [f32]) {
    for (out, row) in out.chunks_exact_mut(cols).zip(rows) {
        let start = *row as usize * cols;
        out.copy_from_slice(&x[start..start + cols]);
    }
}
