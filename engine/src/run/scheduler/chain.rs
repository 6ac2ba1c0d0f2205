//! Room for chains: the steps that follow a step of sequences that decode, without the host between them.

use super::{Part, Scheduler};
use crate::plan::{Inputs, PAGE};

impl Scheduler {
    /// Reserves what up to `most` steps in a row need, the first of which is the one that was just scheduled, and adds the
    /// pages to its inputs. Gives for how many it is there: one where the step is of another kind, or a sequence that waits
    /// could be let in between.
    pub(crate) fn reserve(&mut self, parts: &[Part], most: usize, inputs: &mut Inputs) -> usize {
        let decodes = |part: &Part| part.rows == 1 && part.output.is_some();
        let open = !self.waiting.is_empty() && self.running.len() < self.limits.seqs;
        if open || parts.len() != self.running.len() || !parts.iter().all(decodes) {
            return 1;
        }
        let mut n = most.max(1);
        if !self.states.is_empty() {
            // What is kept of an answer is the state at the end of a page: chains end there, too.
            let left = self.running.iter().map(|seq| PAGE - seq.n_computed % PAGE).min();
            n = n.min(left.unwrap_or(1));
        }
        for (i, seq) in self.running.iter_mut().enumerate() {
            for (index, (group, table)) in self.groups.iter_mut().zip(&mut seq.tables).enumerate() {
                while table.end() * PAGE < seq.n_computed + n {
                    match group.pages.alloc() {
                        Some(page) => table.pages.push(page),
                        None => n = table.end() * PAGE - seq.n_computed,
                    }
                }
                // The parts are all running sequences, in their order.
                let tables = if index == 0 { &mut inputs.tables } else { &mut inputs.window_tables[index - 1] };
                tables[i] = table.whole();
            }
        }
        n
    }
}
