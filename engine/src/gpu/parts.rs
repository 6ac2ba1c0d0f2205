//! Which rows of a weight lie in which buffer: one part per run of equal types, split under the binding limit. Gate and up
//! rows that are multiplied together stay together. No device here.

use std::ops::Range;

use super::planes::{Layout, grid, plane_sizes, units};
use crate::dtype::DType;
use crate::plan::{Segment, Weight};

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

/// Rows of one type in one buffer. In a paired part the second range holds the ups of the first's gates. Of a stack it holds
/// the same rows of each of its matrices, one matrix after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub dtype: DType,
    /// Of the first of its matrices: places in the part, and rows of the matrix.
    pub ranges: Vec<RowRange>,
    pub paired: bool,
    pub layout: Layout,
    /// Which of the weight's matrices; a weight that is no stack is one.
    pub matrices: Range<usize>,
    /// Rows of a whole matrix in the weight.
    pub matrix_rows: usize,
}

/// How a weight is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    /// The first half of a matrix's rows are gates and the second their ups.
    pub paired: bool,
    /// Matrices of the weight.
    pub matrices: usize,
}

/// Most bytes that one row takes in planes, padding left out.
fn row_bytes(dtype: DType, cols: usize) -> u64 {
    plane_sizes(dtype, units(cols) as u64).iter().sum()
}

/// The parts of a weight. Where the types of gates and ups differ, the parts are as if they were not paired. Matrices of
/// a stack that are stored alike share parts.
pub(super) fn split(weight: &Weight, how: Use, max_bytes: u64) -> Vec<Part> {
    let (n, mut first, mut parts) = (how.matrices.max(1), 0, Vec::new());
    let (per, matrix_rows) = (weight.segments.len() / n, weight.rows() / n);
    let of_matrix = |m: usize| runs(&weight.segments[m * per..(m + 1) * per]);
    while first < n {
        let own = of_matrix(first);
        let end = (first + 1..n).find(|m| of_matrix(*m) != own).unwrap_or(n);
        let half = matrix_rows / 2;
        let paired = (how.paired && matrix_rows.is_multiple_of(2)).then(|| paired_runs(&own, half)).flatten();
        let (runs, half) = match paired {
            Some(gates) => (gates, Some(half)),
            None => (own, None),
        };
        let group = Group { cols: weight.cols, matrices: first..end, matrix_rows, half };
        group.cut(&runs, max_bytes, &mut parts);
        first = end;
    }
    parts
}

/// Runs of rows of one type: `(type, first row, rows)`.
fn runs(segments: &[Segment]) -> Vec<(DType, usize, usize)> {
    let mut runs: Vec<(DType, usize, usize)> = Vec::new();
    let mut row = 0;
    for segment in segments.iter().filter(|s| s.rows > 0) {
        match runs.last_mut() {
            Some(last) if last.0 == segment.dtype => last.2 += segment.rows,
            _ => runs.push((segment.dtype, row, segment.rows)),
        }
        row += segment.rows;
    }
    runs
}

/// Runs of gates whose ups have their type; `None` where some have another.
fn paired_runs(all: &[(DType, usize, usize)], half: usize) -> Option<Vec<(DType, usize, usize)>> {
    let gates = all.iter().filter(|r| r.1 < half).map(|r| (r.0, r.1, r.2.min(half - r.1)));
    let ups = all.iter().filter(|r| r.1 + r.2 > half).map(|r| {
        let first = r.1.max(half);
        (r.0, first - half, r.1 + r.2 - first)
    });
    gates.clone().eq(ups).then(|| gates.collect())
}

/// Neighbouring matrices that are stored alike.
struct Group {
    cols: usize,
    matrices: Range<usize>,
    matrix_rows: usize,
    /// From a gate's row to its up's, if they are paired.
    half: Option<usize>,
}

impl Group {
    /// Cuts runs of rows of a matrix into parts under the limit: first by matrices, then by rows.
    fn cut(&self, runs: &[(DType, usize, usize)], max_bytes: u64, parts: &mut Vec<Part>) {
        let copies = if self.half.is_some() { 2 } else { 1 };
        for &(dtype, first, n) in runs {
            // Four planes may each lose up to 15 bytes to their alignment. Even a single row must go somewhere.
            let fixed = 64 + 4 * grid(dtype).len() as u64;
            let most = (max_bytes.saturating_sub(fixed) / (row_bytes(dtype, self.cols) * copies).max(1)).max(1);
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let mut done = 0;
            while done < n {
                let rows = (n - done).min(most);
                for start in self.matrices.clone().step_by(most / rows) {
                    let matrices = start..self.matrices.end.min(start.saturating_add(most / rows));
                    parts.push(self.part(dtype, RowRange { at: 0, row: first + done, n: rows }, matrices));
                }
                done += rows;
            }
        }
    }

    fn part(&self, dtype: DType, range: RowRange, matrices: Range<usize>) -> Part {
        let mut ranges = vec![range];
        if let Some(half) = self.half {
            ranges.push(RowRange { at: range.n, row: half + range.row, n: range.n });
        }
        let all = (range.n * ranges.len() * matrices.len() * units(self.cols)) as u64;
        let (paired, layout, matrix_rows) = (self.half.is_some(), Layout::new(dtype, all), self.matrix_rows);
        Part { dtype, ranges, paired, layout, matrices, matrix_rows }
    }
}

impl Part {
    /// Rows of each of its matrices.
    pub(super) fn rows(&self) -> usize {
        self.ranges.iter().map(|range| range.n).sum()
    }

    /// Where a row of the weight lies in the part, and how many rows from it on are neighbours in both; `None` where it lies
    /// elsewhere.
    pub(super) fn place(&self, row: usize) -> Option<(usize, usize)> {
        let (matrix, row) = (row / self.matrix_rows.max(1), row % self.matrix_rows.max(1));
        let range = self.ranges.iter().find(|r| r.row <= row && row < r.row + r.n)?;
        let before = matrix.checked_sub(self.matrices.start).filter(|m| *m < self.matrices.len())? * self.rows();
        Some((before + range.at + row - range.row, range.row + range.n - row))
    }

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

    const PLAIN: Use = Use { paired: false, matrices: 1 };
    const PAIRED: Use = Use { paired: true, matrices: 1 };

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
        let parts = split(&weight(&[(Q4_K, 8), (Q4_K, 4), (Q6_K, 4)]), PLAIN, 1 << 20);
        assert_eq!(rows(&parts), [(Q4_K, vec![(0, 12)]), (Q6_K, vec![(12, 4)])]);
    }

    #[test]
    fn parts_stay_under_the_limit_and_gates_with_their_ups() {
        // A row of 256 columns of Q4_0 takes 144 bytes.
        let parts = split(&weight(&[(DType::Q4_0, 10)]), PLAIN, 64 + 4 * 144);
        assert_eq!(
            rows(&parts),
            [(DType::Q4_0, vec![(0, 4)]), (DType::Q4_0, vec![(4, 4)]), (DType::Q4_0, vec![(8, 2)])]
        );
        assert!(parts.iter().all(|p| p.layout.bytes <= 64 + 4 * 144));
        let parts = split(&weight(&[(DType::Q4_0, 5), (DType::Q4_0, 5)]), PAIRED, 64 + 6 * 144);
        assert_eq!(rows(&parts), [(DType::Q4_0, vec![(0, 3), (5, 3)]), (DType::Q4_0, vec![(3, 2), (8, 2)])]);
        assert!(parts.iter().all(|p| p.paired && p.layout.bytes <= 64 + 6 * 144));
        let mixed = split(&weight(&[(DType::Q4_0, 5), (DType::Q8_0, 5)]), PAIRED, 1 << 20);
        assert!(mixed.iter().all(|p| !p.paired) && mixed.len() == 2);
    }

    #[test]
    fn a_paired_part_in_one_piece_is_the_weight() {
        let parts = split(&weight(&[(DType::Q8_0, 6)]), PAIRED, 1 << 20);
        assert_eq!(parts[0].joined(), [RowRange { at: 0, row: 0, n: 6 }]);
    }

    #[test]
    fn matrices_of_a_stack_lie_one_after_the_other_under_the_limit() {
        let one = [(DType::Q4_0, 3), (DType::Q4_0, 3), (DType::Q8_0, 2)];
        let stack = weight(&one.repeat(5));
        let all = Use { paired: false, matrices: 5 };
        // Two matrices' rows of one type fit, of the other four.
        let parts = split(&stack, all, 64 + 12 * 144);
        let held: Vec<_> = parts.iter().map(|p| (p.dtype, p.rows(), p.matrices.clone())).collect();
        let (a, b) = (DType::Q4_0, DType::Q8_0);
        assert_eq!(held, [(a, 6, 0..2), (a, 6, 2..4), (a, 6, 4..5), (b, 2, 0..3), (b, 2, 3..5)]);
        // Every row has one place.
        for row in 0..40 {
            let mut places = parts.iter().filter_map(|p| p.place(row).map(|place| (p.dtype, place)));
            let (dtype, (at, left)) = places.next().unwrap();
            assert!(places.next().is_none() && left >= 1, "row {row}");
            let first = if row % 8 < 6 { (a, row / 8 % 2 * 6 + row % 8) } else { (b, row / 8 % 3 * 2 + row % 8 - 6) };
            assert_eq!((dtype, at), first, "row {row}");
        }
        // Gates with their ups in each matrix.
        let stack = weight(&[(a, 2), (a, 2)].repeat(3));
        let parts = split(&stack, Use { paired: true, matrices: 3 }, 1 << 20);
        assert_eq!(rows(&parts), [(a, vec![(0, 2), (2, 2)])]);
        assert_eq!((parts[0].place(9), parts[0].matrices.clone()), (Some((9, 1)), 0..3));
    }
}
