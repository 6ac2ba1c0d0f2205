//! The scheduler's invariants, for tests.

use super::Scheduler;
use crate::plan::PAGE;

impl Scheduler {
    /// Checks every invariant.
    pub(crate) fn check(&self) {
        self.states.check(self.running.iter().flat_map(|s| s.state.into_iter().chain(s.next_state)));
        self.pages.check(self.running.iter().map(|s| s.pages.as_slice()));
        assert!(self.running.is_sorted_by_key(|s| s.id) && self.waiting.iter().is_sorted_by_key(|s| s.id));
        if let (Some(youngest), Some(head)) = (self.running.last(), self.waiting.front()) {
            assert!(youngest.id < head.id, "a younger sequence runs while an older one waits");
        }
        assert!(self.running.len() <= self.limits.seqs);
        for seq in &self.running {
            assert!(seq.n_computed + seq.n_scheduled <= seq.pages.len() * PAGE && seq.n_computed <= seq.tokens.len());
        }
    }
}
