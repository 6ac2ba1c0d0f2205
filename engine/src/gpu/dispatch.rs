//! A dispatch before it meets a device: kernel, resources, parameters, grid, all as plain data.

use std::ops::RangeInclusive;

use crate::plan::{Rows, WeightId};

/// One way to compose a kernel; pipelines are found by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub kernel: &'static str,
    pub features: Vec<&'static str>,
    pub consts: Vec<(&'static str, u32)>,
}

/// What a binding is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    /// A buffer of activations, by its index in the plan.
    Buffer(usize),
    /// A part of a matrix.
    Part(WeightId, usize),
    /// The plan's small vectors: see [`super::constants`].
    Constants,
    /// Pages of K, of a layer.
    KPages(usize),
    /// Pages of V.
    VPages(usize),
    /// Results of splits of attend_vec.
    Splits,
    /// How many workgroups of those that wait for each other's results are done.
    Finished,
    /// What a buffer of activations holds, as blocks of signed bytes, and behind them their scales.
    Bytes(usize),
    /// The states of sequences, of a recurrent part.
    States(usize),
    /// Rows and their picks sorted by matrix, and tiles of them: see expert_linear_sort.
    Order,
    Tiles,
    /// The tokens picked by the step before.
    Picked,
    /// Largest logits with their tokens, and the rows' maxima and sums: written by even and by odd rounds of top_k.
    Pairs(usize),
    Stats(usize),
}

/// Rows of a tile of sorted picks.
const SORTED: usize = 32;

/// Tiles that so many picks of one of `of` matrices each are in at most.
pub(super) fn most_sorted(picks: usize, of: usize) -> usize {
    picks.min(of) + picks / SORTED
}

/// What the size of a grid grows with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Rows(Rows),
    /// Rows attended one by one, times the splits of their positions.
    Singles,
    /// Rows attended one by one where there is more than one split; none otherwise.
    Merged,
    /// Tiles of rows of one sequence.
    Tiles,
    /// Sequences.
    Runs,
    /// At most so many tiles of [`SORTED`] rows and their picks that have one matrix, where each row picks `used` of `of`.
    Sorted {
        rows: Rows,
        used: usize,
        of: usize,
    },
    /// Changes of logits.
    Changes,
    /// Tokens, where means of rows are wanted.
    Pooled,
    /// Rows, where one of the step uses an adapter.
    Adapted(Rows),
    /// Outputs, where a token is to be picked for one of them.
    Picks,
    /// Outputs, where the largest logits of one of them are wanted.
    Tops,
}

/// Workgroups: `ceil(ceil(count / block) * times / per)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub count: Count,
    pub block: usize,
    pub times: usize,
    pub per: usize,
}

/// What a step has of each [`Count`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub tokens: usize,
    /// Of a step that reads sources, in place of tokens.
    pub sources: usize,
    pub outputs: usize,
    pub singles: usize,
    pub splits: usize,
    pub tiles: usize,
    pub runs: usize,
    pub changes: usize,
    pub pools: usize,
    /// Whether a row uses an adapter.
    pub adapted: bool,
    pub picks: bool,
    pub tops: bool,
    /// Whether logits are wanted of an output.
    pub logits: bool,
}

impl Counts {
    /// Rows of the step, whatever it reads.
    pub(super) fn n_rows(&self) -> usize {
        self.tokens + self.sources
    }

    pub(super) fn rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens | Rows::Adapted => self.tokens,
            Rows::Outputs => self.outputs,
            Rows::Pools => self.pools,
            Rows::Sources => self.sources,
        }
    }

    /// How many there are of what a grid grows with.
    pub(super) fn get(&self, count: Count) -> usize {
        match count {
            Count::Rows(rows) => self.rows(rows),
            Count::Singles => self.singles * self.splits,
            Count::Merged => {
                if self.splits > 1 {
                    self.singles
                } else {
                    0
                }
            }
            Count::Tiles => self.tiles,
            Count::Runs => self.runs,
            Count::Sorted { rows, used, of } => most_sorted(self.rows(rows) * used, of),
            Count::Changes => self.changes,
            Count::Pooled => self.tokens * usize::from(self.pools > 0),
            Count::Adapted(rows) => self.rows(rows) * usize::from(self.adapted),
            Count::Picks => self.outputs * usize::from(self.picks),
            Count::Tops => self.outputs * usize::from(self.tops),
        }
    }
}

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dispatch {
    pub key: Key,
    /// By the names in the kernel's text; `p`, `step` and `constants` are implied.
    pub bindings: Vec<(&'static str, Resource)>,
    /// By the names in the kernel's text.
    pub params: Vec<(&'static str, u32)>,
    pub grid: Grid,
    /// It runs where the step has so many of these rows.
    pub when: (Rows, RangeInclusive<usize>),
    /// Index of the op.
    pub op: usize,
    /// Arithmetic operations per row, where there are many.
    pub work: u64,
}

impl Dispatch {
    /// It is meant for steps that read sources.
    pub(super) fn of_sources(&mut self) {
        if self.when.0 == Rows::Tokens {
            self.when.0 = Rows::Sources;
        }
        if self.grid.count == Count::Rows(Rows::Tokens) {
            self.grid.count = Count::Rows(Rows::Sources);
        }
    }

    /// Rows that a workgroup takes at once.
    pub(super) fn rows_at_once(&self) -> usize {
        self.key.consts.iter().find(|c| c.0 == "ROWS").map_or(1, |c| c.1 as usize)
    }

    /// Workgroups in a step; none where the dispatch is not wanted.
    pub(super) fn workgroups(&self, counts: &Counts) -> usize {
        if !self.when.1.contains(&counts.rows(self.when.0)) {
            return 0;
        }
        let Grid { count, block, times, per } = self.grid;
        (counts.get(count).div_ceil(block) * times).div_ceil(per)
    }
}

/// The largest grid in one dimension that every device takes.
const MAX_GRID: usize = 65_535;

/// Two-dimensional where one dimension does not suffice; the kernels pass over what is too much.
pub(super) fn grid(workgroups: usize) -> Option<[u32; 3]> {
    let y = workgroups.div_ceil(MAX_GRID).max(1);
    let x = workgroups.div_ceil(y);
    (y <= MAX_GRID).then_some([x as u32, y as u32, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_go_two_dimensional() {
        for n in [1, 65_535, 65_536, 131_071, 20_000_000] {
            let [x, y, _] = grid(n).unwrap().map(|v| v as usize);
            assert!(x <= MAX_GRID && y <= MAX_GRID && x * y >= n && x * y < n + y, "{n}: {x} x {y}");
        }
    }
}
