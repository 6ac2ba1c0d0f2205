//! Which rows of a weight lie in which buffer: one part per run of equal types, split under the binding limit. Gate and up
//! rows that are multiplied together stay together. No device here.

use super::planes::{Layout, grid, plane_sizes, units};
use crate::dtype::DType;
use crate::plan::Weight;

/// Neighbouring rows of a weight in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowRange {
    /// First row in the part.
    pub at: usize,
    /// First row in the weight.
    pub row: usize,
    /// Rows.
    pub n: usize,
}

/// Rows of one type in one buffer. In a paired part the second range holds the ups of the first's gates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub dtype: DType,
    pub ranges: Vec<RowRange>,
    pub paired: bool,
    pub layout: Layout,
}

/// Most bytes that one row takes in planes, padding left out.
fn row_bytes(dtype: DType, cols: usize) -> u64 {
    plane_sizes(dtype, units(cols) as u64).iter().sum()
}

/// The parts of a weight. With `paired` its first half of rows are gates and its second ups; where their types differ
/// from each other, the parts are as if they were not paired.
pub(super) fn split(weight: &Weight, paired: bool, max_bytes: u64) -> Vec<Part> {
    let half = weight.rows() / 2;
    if paired && let Some(runs) = paired_runs(weight, half) {
        return cut(weight.cols, &runs, max_bytes, Some(half));
    }
    cut(weight.cols, &runs(weight), max_bytes, None)
}

/// Runs of rows of one type: `(type, first row, rows)`.
fn runs(weight: &Weight) -> Vec<(DType, usize, usize)> {
    let mut runs: Vec<(DType, usize, usize)> = Vec::new();
    let mut row = 0;
    for segment in weight.segments.iter().filter(|s| s.rows > 0) {
        match runs.last_mut() {
            Some(last) if last.0 == segment.dtype => last.2 += segment.rows,
            _ => runs.push((segment.dtype, row, segment.rows)),
        }
        row += segment.rows;
    }
    runs
}

/// Runs of gates whose ups have their type; `None` where some have another.
fn paired_runs(weight: &Weight, half: usize) -> Option<Vec<(DType, usize, usize)>> {
    let all = runs(weight);
    let gates = all.iter().filter(|r| r.1 < half).map(|r| (r.0, r.1, r.2.min(half - r.1)));
    let ups = all.iter().filter(|r| r.1 + r.2 > half).map(|r| {
        let first = r.1.max(half);
        (r.0, first - half, r.1 + r.2 - first)
    });
    (weight.rows().is_multiple_of(2) && gates.clone().eq(ups)).then(|| gates.collect())
}

fn cut(cols: usize, runs: &[(DType, usize, usize)], max_bytes: u64, half: Option<usize>) -> Vec<Part> {
    let mut parts = Vec::new();
    let copies = if half.is_some() { 2 } else { 1 };
    for &(dtype, first, n) in runs {
        // Four planes may each lose up to 15 bytes to their alignment. Even a single row must go somewhere.
        let fixed = 64 + 4 * grid(dtype).len() as u64;
        let most = (max_bytes.saturating_sub(fixed) / (row_bytes(dtype, cols) * copies).max(1)).max(1);
        let mut done = 0;
        while done < n {
            let rows = (n - done).min(usize::try_from(most).unwrap_or(usize::MAX));
            let mut ranges = vec![RowRange { at: 0, row: first + done, n: rows }];
            if let Some(half) = half {
                ranges.push(RowRange { at: rows, row: half + first + done, n: rows });
            }
            let all = (rows * ranges.len() * units(cols)) as u64;
            parts.push(Part { dtype, ranges, paired: half.is_some(), layout: Layout::new(dtype, all) });
            done += rows;
        }
    }
    parts
}

impl Part {
    /// The ranges, neighbours joined: for multiplying without pairing.
    pub(super) fn joined(&self) -> Vec<RowRange> {
        let mut out: Vec<RowRange> = Vec::new();
        for range in &self.ranges {
            match out.last_mut() {
                Some(last) if last.at + last.n == range.at && last.row + last.n == range.row => last.n += range.n,
                _ => out.push(*range),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::plan::Segment;

    fn weight(segments: &[(DType, usize)]) -> Weight {
        let segment = |(dtype, rows): &(DType, usize)| Segment {
            name: String::new(),
            dtype: *dtype,
            rows: *rows,
            bytes: Bytes::default(),
            row_bytes: 0,
            offset: 0,
        };
        Weight { name: "w".into(), cols: 256, segments: segments.iter().map(segment).collect() }
    }

    fn rows(parts: &[Part]) -> Vec<(DType, Vec<(usize, usize)>)> {
        parts.iter().map(|p| (p.dtype, p.ranges.iter().map(|r| (r.row, r.n)).collect())).collect()
    }

    #[test]
    fn equal_types_share_a_buffer() {
        use DType::{Q4_K, Q6_K};
        let parts = split(&weight(&[(Q4_K, 8), (Q4_K, 4), (Q6_K, 4)]), false, 1 << 20);
        assert_eq!(rows(&parts), [(Q4_K, vec![(0, 12)]), (Q6_K, vec![(12, 4)])]);
    }

    #[test]
    fn parts_stay_under_the_limit_and_gates_with_their_ups() {
        // A row of 256 columns of Q4_0 takes 144 bytes.
        let parts = split(&weight(&[(DType::Q4_0, 10)]), false, 64 + 4 * 144);
        assert_eq!(
            rows(&parts),
            [(DType::Q4_0, vec![(0, 4)]), (DType::Q4_0, vec![(4, 4)]), (DType::Q4_0, vec![(8, 2)])]
        );
        assert!(parts.iter().all(|p| p.layout.bytes <= 64 + 4 * 144));
        let parts = split(&weight(&[(DType::Q4_0, 5), (DType::Q4_0, 5)]), true, 64 + 6 * 144);
        assert_eq!(rows(&parts), [(DType::Q4_0, vec![(0, 3), (5, 3)]), (DType::Q4_0, vec![(3, 2), (8, 2)])]);
        assert!(parts.iter().all(|p| p.paired && p.layout.bytes <= 64 + 6 * 144));
        let mixed = split(&weight(&[(DType::Q4_0, 5), (DType::Q8_0, 5)]), true, 1 << 20);
        assert!(mixed.iter().all(|p| !p.paired) && mixed.len() == 2);
    }

    #[test]
    fn a_paired_part_in_one_piece_is_the_weight() {
        let parts = split(&weight(&[(DType::Q8_0, 6)]), true, 1 << 20);
        assert_eq!(parts[0].joined(), [RowRange { at: 0, row: 0, n: 6 }]);
    }
}
