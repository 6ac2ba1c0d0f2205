//! A step's inputs as the words that kernels read: header, then lists (see `ir_shaders::STEP`). No device here.

use std::ops::Range;

use ir_shaders::step_word;

use super::dispatch::Counts;
use crate::plan::{Inputs, Rows, StateSlots, Want};

/// Rows of a tile of attend_tile.
const TILE: usize = 16;
/// Shorter runs of rows of one sequence are attended one by one.
const TILE_FROM: usize = 4;
/// Positions in a split of attend_vec are a multiple of this.
const CHUNK: usize = 256;
/// Most single rows times splits where there is more than one split: what the scratch buffer has room for.
pub(super) const MAX_SPLITS: usize = 128;

const HEADER: usize = step_word("STEP_HEADER") as usize;

/// Words that steps of so many rows and outputs take at most, page lists left out.
pub(super) fn words(max_tokens: usize, max_outputs: usize) -> usize {
    HEADER + 14 * max_tokens + 64 * max_outputs
}

/// Steps as words. The lists that writing takes are kept, so that a step like the one before allocates nothing.
#[derive(Debug, Default)]
pub(super) struct StepWords {
    /// The words of the step that was written last.
    pub words: Vec<u32>,
    ends: Vec<u32>,
    places: Vec<u32>,
    singles: Vec<u32>,
    tiles: Vec<u32>,
}

impl StepWords {
    /// Writes a step and counts what it holds. The inputs must have been checked.
    pub(super) fn write(&mut self, inputs: &Inputs) -> Counts {
        let out = &mut self.words;
        out.clear();
        out.resize(HEADER, 0);
        let tokens = list(out, inputs.tokens.iter().copied());
        let positions = list(out, inputs.positions.iter().copied());
        // Behind the header; 0 says that there are none.
        let segments = if inputs.segments.is_empty() { 0 } else { list(out, inputs.segments.iter().copied()) };
        // A step without tables of their own for groups with a window has the same for all.
        let mut tables = [tables_of(inputs, &inputs.tables, &mut self.places, out); 1 + MOST_GROUPS];
        for (place, group) in tables[1..].iter_mut().zip(&inputs.window_tables) {
            *place = tables_of(inputs, group, &mut self.places, out);
        }
        inputs.ends_into(&mut self.ends);
        let ends = list(out, inputs.seqs.iter().map(|seq| self.ends[*seq as usize]));
        let outputs = list(out, inputs.outputs.iter().copied());
        attended(inputs, &out[tables[0] as usize..], &mut self.singles, &mut self.tiles);
        let sees = |row: &u32| {
            let row = *row as usize;
            (inputs.positions[row] + 1).max(inputs.n_source(inputs.seqs[row])) as usize
        };
        let longest = self.singles.iter().map(sees).max().unwrap_or(1);
        let (splits, chunk) = split(self.singles.len(), longest);
        let counts = Counts {
            tokens: inputs.count(Rows::Tokens),
            sources: inputs.count(Rows::Sources),
            outputs: inputs.outputs.len(),
            singles: self.singles.len(),
            splits,
            tiles: self.tiles.len() / 4,
            runs: inputs.each_run().count(),
            changes: inputs.changes.len(),
            pools: inputs.pools.len(),
            adapted: inputs.count(Rows::Adapted) > 0,
            picks: inputs.wants.iter().any(|w| matches!(w, Want::Pick { .. })),
            tops: inputs.wants.contains(&Want::Top),
            logits: inputs.wants.is_empty() || inputs.wants.contains(&Want::Logits),
        };
        let changes = inputs.changes.iter();
        let changes = list(
            out,
            changes.flat_map(|c| [c.row, c.token, c.bias.to_bits(), c.factor.to_bits(), c.penalty.to_bits()]),
        );
        let draws = list(out, inputs.wants.iter().flat_map(|w| draw(*w)));
        let singles = list(out, self.singles.iter().copied());
        let tiles = list(out, self.tiles.iter().copied());
        let runs = list(out, inputs.each_run().flat_map(|(seq, rows)| run_words(inputs, seq, rows)));
        let adapters = list(out, inputs.adapters.iter().map(|scale| scale.to_bits()));
        // Steps of most plans have none.
        let sources = match inputs.sources.iter().any(|n| *n > 0) {
            true => list(out, inputs.seqs.iter().map(|seq| inputs.n_source(*seq))),
            false => 0,
        };
        let pools = list(out, inputs.pools.iter().flat_map(|p| [p.first, p.rows]));
        for (name, value) in [
            ("STEP_N_TOKENS", counts.n_rows() as u32),
            ("STEP_N_OUTPUTS", counts.outputs as u32),
            ("STEP_N_SINGLES", counts.singles as u32),
            ("STEP_N_SPLITS", splits as u32),
            ("STEP_CHUNK", chunk as u32),
            ("STEP_N_TILES", counts.tiles as u32),
            ("STEP_N_PENALTIES", counts.changes as u32),
            ("STEP_PENALTIES", changes),
            ("STEP_SEEDS", draws),
            ("STEP_MINUS_INFINITY", f32::NEG_INFINITY.to_bits()),
            ("STEP_TOKENS", tokens),
            ("STEP_POSITIONS", positions),
            ("STEP_SEGMENTS", segments),
            ("STEP_OUTPUTS", outputs),
            ("STEP_SINGLES", singles),
            ("STEP_TILES", tiles),
            ("STEP_N_RUNS", counts.runs as u32),
            ("STEP_RUNS", runs),
            ("STEP_N_POOLS", counts.pools as u32),
            ("STEP_POOLS", pools),
            ("STEP_ENDS", ends),
            ("STEP_ADAPTERS", adapters),
            ("STEP_SOURCES", sources),
        ] {
            out[step_word(name) as usize] = value;
        }
        for (group, place) in tables.into_iter().enumerate() {
            out[tables_word(group) as usize] = place;
        }
        counts
    }
}

/// Rows that are attended one by one, and tiles of the others: (first row, rows, first position, where its page list begins).
/// `tables` says where each row's page list begins.
fn attended(inputs: &Inputs, tables: &[u32], singles: &mut Vec<u32>, tiles: &mut Vec<u32>) {
    singles.clear();
    tiles.clear();
    let mut row = 0;
    while row < inputs.n_rows() {
        let n = run(inputs, row);
        if n < TILE_FROM {
            singles.extend((row..row + n).map(|r| r as u32));
        } else {
            for first in (row..row + n).step_by(TILE) {
                let rows = TILE.min(row + n - first) as u32;
                tiles.extend([first as u32, rows, inputs.positions[first], tables[first]]);
            }
        }
        row += n;
    }
}

/// Groups of caches behind the first that the header has room for.
const MOST_GROUPS: usize = 8;

/// The word that says where a group's page tables begin: a word per row, which says where its sequence's pages do.
pub(super) fn tables_word(group: usize) -> u32 {
    match group {
        0 => step_word("STEP_TABLES"),
        group => step_word("STEP_WINDOW_TABLES") + group.min(MOST_GROUPS) as u32 - 1,
    }
}

/// Writes the page lists of a group, and where each row's begins.
fn tables_of(inputs: &Inputs, tables: &[Vec<u32>], places: &mut Vec<u32>, out: &mut Vec<u32>) -> u32 {
    places.clear();
    places.extend(tables.iter().map(|table| list(out, table.iter().copied())));
    list(out, inputs.seqs.iter().map(|seq| places[*seq as usize]))
}

/// What the kernel `pick` reads of a row.
fn draw(want: Want) -> [u32; 4] {
    match want {
        Want::Pick { draw: [a, b], scale, least } => [a, b, scale.to_bits(), least.to_bits()],
        Want::Logits | Want::Top => [0; 4],
    }
}

/// What the recurrent kernels read of a sequence's rows.
fn run_words(inputs: &Inputs, seq: u32, rows: Range<usize>) -> [u32; 4] {
    let StateSlots { from, to } = inputs.state(seq, rows.start);
    [rows.start as u32, rows.len() as u32, from.unwrap_or(u32::MAX), to]
}

/// Appends a list; gives the word where it begins.
fn list(out: &mut Vec<u32>, values: impl Iterator<Item = u32>) -> u32 {
    let at = out.len();
    out.extend(values);
    at as u32
}

/// Length of the run of rows from `row` on that belong to one sequence and follow each other.
fn run(inputs: &Inputs, row: usize) -> usize {
    let (seq, position) = (inputs.seqs[row], inputs.positions[row]);
    let same = |r: &usize| inputs.seqs[*r] == seq && inputs.positions[*r] == position + (*r - row) as u32;
    (row..inputs.n_rows()).take_while(same).count()
}

/// How many splits, and positions in each, for `singles` rows of which the longest sees `longest` positions.
fn split(singles: usize, longest: usize) -> (usize, usize) {
    let most = (MAX_SPLITS / singles.max(1)).max(1);
    let chunk = longest.div_ceil(longest.div_ceil(CHUNK).clamp(1, most)).next_multiple_of(CHUNK);
    (longest.div_ceil(chunk), chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_become_tiles_and_the_rest_singles() {
        let mut inputs = Inputs { tables: vec![vec![5, 6], vec![7]], ..Inputs::default() };
        (0..20).for_each(|p| _ = inputs.push(1, p, 0));
        (3..5).for_each(|p| _ = inputs.push(2, p, 1));
        inputs.outputs = vec![19, 21];
        let mut words = StepWords::default();
        let counts = words.write(&inputs);
        let words = words.words;
        assert_eq!(
            counts,
            Counts {
                tokens: 22,
                outputs: 2,
                singles: 2,
                splits: 1,
                tiles: 2,
                runs: 2,
                logits: true,
                ..Counts::default()
            }
        );
        let at = |name| words[step_word(name) as usize] as usize;
        let tiles = at("STEP_TILES");
        let pages = words[tiles + 3] as usize;
        assert_eq!(words[tiles..tiles + 8], [0, 16, 0, pages as u32, 16, 4, 16, pages as u32]);
        assert_eq!(words[tables_word(1) as usize] as usize, at("STEP_TABLES"));
        assert_eq!(words[pages..pages + 2], [5, 6]);
        assert_eq!(words[at("STEP_SINGLES")..][..2], [20, 21]);
        assert_eq!(words[words[at("STEP_TABLES") + 21] as usize], 7);
        // The second sequence goes on from the state in its own slot.
        assert_eq!(words[at("STEP_RUNS")..][..8], [0, 20, u32::MAX, 0, 20, 2, 1, 1]);
    }

    #[test]
    fn groups_have_tables_of_their_own() {
        let tables = vec![vec![5, 6], vec![7]];
        let mut inputs = Inputs { tables, window_tables: vec![vec![vec![1, 2], vec![3]]], ..Inputs::default() };
        (0..20).for_each(|p| _ = inputs.push(1, p, 0));
        inputs.push(2, 0, 1);
        let mut words = StepWords::default();
        words.write(&inputs);
        let words = words.words;
        let page = |group, row: usize| words[words[words[tables_word(group) as usize] as usize + row] as usize];
        assert_eq!([page(0, 0), page(0, 20), page(1, 0), page(1, 20)], [5, 7, 1, 3]);
    }

    #[test]
    fn splits_cover_every_position_and_fit_the_scratch() {
        for singles in [1, 3, 64, 500] {
            for longest in [1, 256, 257, 5000, 131_072] {
                let (splits, chunk) = split(singles, longest);
                assert!(splits * chunk >= longest && (splits - 1) * chunk < longest && chunk % CHUNK == 0);
                assert!(splits == 1 || splits * singles <= MAX_SPLITS, "{singles} {longest}: {splits}");
            }
        }
    }
}
