//! `embed`: rows of the token table.

use crate::cpu::pool::Pool;
use crate::plan::Weight;

/// `out[r] = table[tokens[r]]`, decoded. Ids are inside the table (the step's inputs were checked).
pub fn embed(pool: &Pool, table: &Weight, tokens: &[u32], out: &mut [f32]) {
    pool.chunks_mut(out, table.cols, |r, out| {
        let mut row = tokens[r] as usize;
        for segment in &table.segments {
            if row < segment.rows {
                let bytes = &segment.bytes[row * segment.row_bytes..(row + 1) * segment.row_bytes];
                if crate::quant::decode(segment.dtype, bytes, out).is_err() {
                    unreachable!("the loader has checked that a row's bytes fit its columns");
                }
                return;
            }
            row -= segment.rows;
        }
    });
}
