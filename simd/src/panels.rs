//! The many-rows form's activations: rows in panels, and the order of positions that tiles and panels share. The
//! multiplication itself is in `tile`.

use std::ops::Range;

use super::q8::{BLOCK, Q8Row};

/// Activation rows in panels, in the order that the tile kernel reads them.
#[derive(Debug, Default)]
pub struct Panels {
    /// Which layout this is: group length (1 for floats, 2 for pairs of BF16 numbers in their place) and offset.
    pub layout: (usize, i32),
    pub(super) rows: usize,
    /// Positions of a panel.
    pub(super) n: usize,
    /// Position, row, element.
    pub(super) quants: Vec<i8>,
    /// Scales (or elements): position, row.
    pub(super) scales: Vec<f32>,
    /// `-offset * sum`: position, row.
    pub(super) offsets: Vec<i32>,
    /// `scale * sum`: position, row.
    pub(super) sums: Vec<f32>,
}

/// The lane that comes at `rank` when a tree over `lanes` lanes is walked from left to right.
pub(super) const fn lane_at(rank: usize, lanes: usize) -> usize {
    rank.reverse_bits() >> (usize::BITS - lanes.trailing_zeros())
}

/// Copies `N` elements: a few instructions, where the compiler makes a call of a copy whose length it does not know.
#[inline(always)]
pub fn copy_exactly<const N: usize, T: Copy>(to: &mut [T], from: &[T]) {
    to[..N].copy_from_slice(&from[..N]);
}

/// How many of `n` groups fall on `lane`.
pub(super) const fn in_lane(n: usize, lane: usize, lanes: usize) -> usize {
    (n + lanes - 1 - lane) / lanes
}

/// The first position of each lane.
pub(super) fn starts(n: usize, lanes: usize) -> [usize; 32] {
    let (mut starts, mut at) = ([0; 32], 0);
    for rank in 0..lanes {
        starts[lane_at(rank, lanes)] = at;
        at += in_lane(n, lane_at(rank, lanes), lanes);
    }
    starts
}

/// One panel, to be filled.
pub struct PanelMut<'a> {
    rows: usize,
    n: usize,
    layout: (usize, i32),
    quants: &'a mut [i8],
    scales: &'a mut [f32],
    offsets: &'a mut [i32],
    sums: &'a mut [f32],
}

impl Panels {
    /// Makes room for `total` rows of `k` columns in panels of `rows`, and gives the panels to be filled.
    pub fn resize(
        &mut self,
        total: usize,
        k: usize,
        layout: (usize, i32),
        rows: usize,
    ) -> impl Iterator<Item = PanelMut<'_>> {
        let floats = layout.0 <= 2;
        let group = if floats { 1 } else { layout.0 };
        let n = k / group;
        let (len, size) = (total.div_ceil(rows) * rows * n, rows * n);
        (self.layout, self.rows, self.n) = (layout, rows, n);
        fn fit<T: Copy + Default>(v: &mut Vec<T>, len: usize) -> &mut [T] {
            if v.len() < len {
                v.resize(len, T::default());
            }
            &mut v[..len]
        }
        let quants = if floats { 0 } else { len };
        let mut rest =
            (fit(&mut self.quants, quants * group), fit(&mut self.offsets, quants), fit(&mut self.sums, quants));
        fit(&mut self.scales, len).chunks_exact_mut(size).map(move |scales| {
            let take = if floats { 0 } else { size };
            PanelMut {
                rows,
                n,
                layout,
                scales,
                quants: rest.0.split_off_mut(..take * group).unwrap_or_default(),
                offsets: rest.1.split_off_mut(..take).unwrap_or_default(),
                sums: rest.2.split_off_mut(..take).unwrap_or_default(),
            }
        })
    }
}

impl PanelMut<'_> {
    /// Lays out quantised rows for vectors of `lanes`.
    pub fn pack_q8(&mut self, x: &[Q8Row<'_>], lanes: usize) {
        let (group, offset) = self.layout;
        let starts = starts(self.n, lanes);
        for (i, x) in x.iter().enumerate() {
            let sums = if group == BLOCK { x.sums } else { x.sums16 };
            for (g, (quants, sum)) in x.quants.chunks_exact(group).zip(sums).take(self.n).enumerate() {
                let at = (starts[g % lanes] + g / lanes) * self.rows + i;
                let to = &mut self.quants[at * group..][..group];
                if group == BLOCK {
                    copy_exactly::<BLOCK, _>(to, quants);
                } else {
                    copy_exactly::<16, _>(to, quants);
                }
                self.scales[at] = x.scales[g * group / BLOCK];
                self.offsets[at] = -offset * sum;
                self.sums[at] = self.scales[at] * *sum as f32;
            }
        }
    }

    /// Lays out these columns of float rows, whose elements are those of `lanes` lanes.
    pub fn pack_f32(&mut self, x: &[&[f32]], columns: Range<usize>, lanes: usize) {
        match self.rows {
            8 if x.len() == 8 => self.pack_rows::<8>(x, columns, lanes),
            4 if x.len() == 4 => self.pack_rows::<4>(x, columns, lanes),
            _ => self.pack_some(x, columns, lanes),
        }
    }

    /// All rows of a panel at once: what is written lies together.
    fn pack_rows<const ROWS: usize>(&mut self, x: &[&[f32]], columns: Range<usize>, lanes: usize) {
        let starts = starts(self.n, lanes);
        let x: [&[f32]; ROWS] = std::array::from_fn(|i| &x[i][columns.clone()]);
        let (panel, _) = self.scales.as_chunks_mut::<ROWS>();
        for_parts(columns.len(), lanes, |lane, step, steps| {
            let to = &mut panel[starts[lane] + step..][..steps];
            for (s, to) in to.iter_mut().enumerate() {
                *to = std::array::from_fn(|i| x[i][(step + s) * lanes + lane]);
            }
        });
    }

    /// Fewer rows than a panel has: the others keep what they hold, which no result depends on.
    fn pack_some(&mut self, x: &[&[f32]], columns: Range<usize>, lanes: usize) {
        let (starts, rows) = (starts(self.n, lanes), self.rows);
        for_parts(columns.len(), lanes, |lane, step, steps| {
            let to = &mut self.scales[(starts[lane] + step) * rows..][..steps * rows];
            for (i, x) in x.iter().enumerate() {
                let x = &x[columns.clone()][step * lanes + lane..];
                to[i..].iter_mut().step_by(rows).zip(x.iter().step_by(lanes)).for_each(|(to, x)| *to = *x);
            }
        });
    }
}

/// Calls `part(lane, step, steps)` for parts of rows of `k` columns: some steps of a lane, so that what is written for it is in
/// one piece, and what is read is still in the cache.
fn for_parts(k: usize, lanes: usize, mut part: impl FnMut(usize, usize, usize)) {
    const STEPS: usize = 8;
    for first in (0..k).step_by(STEPS * lanes) {
        let have = (k - first).min(STEPS * lanes);
        for lane in 0..lanes.min(have) {
            part(lane, first / lanes, (have - lane).div_ceil(lanes));
        }
    }
}
