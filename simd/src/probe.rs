//! A known answer, for machines that nobody tested: whether a table's integer sums are exact here. Not a replacement of
//! the exam: it asks a few sums of 4-bit and 8-bit weights, in a fraction of a millisecond.

use super::q8::{BLOCK, PAD, Q8, Q8Row};
use super::{Table, scalar};
use crate::quant::DType;

/// Rows of activations, as many as a table takes at once.
const ROWS: usize = 4;

/// Whether `table` multiplies quantised weights and activations as the scalar definition does. The numbers are whole and
/// the scales 1, so that results are equal in whatever order they are added.
pub fn is_exact(table: &Table) -> bool {
    let mut x = Q8::default();
    x.resize(ROWS, PAD);
    for (r, row) in x.rows_mut().enumerate() {
        for (i, q) in row.quants.iter_mut().enumerate() {
            *q = ((i * (37 + r) + i * i / 5 + 101 * r) % 255) as u8 as i8;
            // -128 does not occur: magnitudes are at most 127.
            *q = (*q).max(-127);
        }
        row.scales.fill(1.0);
        let sum = |quants: &[i8]| quants.iter().map(|q| i32::from(*q)).sum();
        row.sums.iter_mut().zip(row.quants.chunks(BLOCK)).for_each(|(s, quants)| *s = sum(quants));
        row.sums16.iter_mut().zip(row.quants.chunks(16)).for_each(|(s, quants)| *s = sum(quants));
    }
    let x: Vec<Q8Row<'_>> = (0..ROWS).map(|r| x.row(r)).collect();
    // Types with one scale for a block: with finer ones the sums would not stay exact in floats.
    DType::ALL.iter().copied().filter(|dtype| dtype.block_len() == BLOCK).all(|dtype| {
        let Some(w) = weights(dtype) else { return true };
        [1, ROWS].into_iter().all(|rows| {
            let (mut expected, mut got) = ([0.0; ROWS], [0.0; ROWS]);
            (scalar::TABLE.of(dtype).dots_q8)(&w, &x[..rows], &mut expected[..rows]);
            (table.of(dtype).dots_q8)(&w, &x[..rows], &mut got[..rows]);
            expected == got
        })
    })
}

/// A row of weights of all magnitudes, each block with the scale 1.
fn weights(dtype: DType) -> Option<Vec<u8>> {
    let (block, traits) = (dtype.block_bytes(), dtype.traits().groups.as_ref()?);
    let mut w: Vec<u8> = (0..PAD / BLOCK * block).map(|i| (i * 151 + i * i / 3 + 17) as u8).collect();
    w.chunks_exact_mut(block).for_each(|block| (traits.set_scale)(block, 1.0, 0.0));
    Some(w)
}
