//! A step in micro-batches: pieces of its rows, one after the other, so that the devices of a divided plan can work on
//! different pieces at once.

use std::ops::Range;

use super::{Change, Inputs, Pool};

impl Inputs {
    /// The step in at most `n` micro-batches of about as many rows each. The results of all, one after the other, are those of
    /// the step. If `within` is false, or means of rows are wanted, the rows of a sequence stay together.
    pub fn micro_batches(&self, n: usize, within: bool) -> Vec<Inputs> {
        let rows = self.n_rows();
        let within = within && self.pools.is_empty();
        let ends: Vec<usize> = self.runs().into_iter().map(|(_, rows)| rows.end).collect();
        let (mut batches, mut from) = (Vec::new(), 0);
        for i in 1..=n.max(1) {
            let target = rows * i / n.max(1);
            let to = if within { target } else { ends.iter().copied().find(|end| *end >= target).unwrap_or(rows) };
            if to > from {
                batches.push(self.micro_batch(from..to));
                from = to;
            }
        }
        batches
    }

    /// These rows as a step.
    fn micro_batch(&self, rows: Range<usize>) -> Inputs {
        let mut batch = Inputs { source: self.source, ..Inputs::default() };
        batch.window_tables.resize_with(self.window_tables.len(), Vec::new);
        let mut known: Vec<u32> = Vec::new();
        for row in rows.clone() {
            let seq = self.seqs[row];
            let at = known.iter().position(|known| *known == seq).unwrap_or_else(|| {
                known.push(seq);
                self.copy_sequence(seq, row, &mut batch);
                known.len() - 1
            });
            batch.push(self.tokens[row], self.positions[row], at as u32);
        }
        let (first, inside) = (rows.start as u32, |row: u32| rows.contains(&(row as usize)));
        let before = self.outputs.iter().filter(|row| **row < first).count();
        batch.outputs = self.outputs.iter().filter(|row| inside(**row)).map(|row| row - first).collect();
        let outputs = before..before + batch.outputs.len();
        batch.wants = self.wants.get(outputs.clone()).unwrap_or_default().to_vec();
        let own = self.changes.iter().filter(|change| outputs.contains(&(change.row as usize)));
        batch.changes = own.map(|change| Change { row: change.row - before as u32, ..*change }).collect();
        let n_adapters = self.adapters.len() / self.n_rows().max(1);
        batch.adapters = self.adapters[rows.start * n_adapters..rows.end * n_adapters].to_vec();
        batch.segments = self.segments.get(rows.clone()).unwrap_or_default().to_vec();
        let own = self.pools.iter().filter(|pool| inside(pool.first));
        batch.pools = own.map(|pool| Pool { first: pool.first - first, ..*pool }).collect();
        batch
    }

    /// Puts what a step knows of a sequence, whose first row is `row`, behind what `batch` has.
    fn copy_sequence(&self, seq: u32, row: usize, batch: &mut Inputs) {
        batch.tables.push(self.tables[seq as usize].clone());
        for (to, from) in batch.window_tables.iter_mut().zip(&self.window_tables) {
            to.push(from[seq as usize].clone());
        }
        batch.states.push(self.state(seq, row));
        if !self.sources.is_empty() {
            batch.sources.push(self.n_source(seq));
        }
    }
}
