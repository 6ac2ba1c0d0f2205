//! The scheduler's invariants, for tests.

use super::Scheduler;
use crate::plan::PAGE;

impl Scheduler {
    /// Checks every invariant.
    pub(crate) fn check(&self) {
        self.states.check(self.running.iter().flat_map(|s| s.state.into_iter().chain(s.next_state)));
        for (index, group) in self.groups.iter().enumerate() {
            group.pages.check(self.running.iter().map(|s| s.tables[index].pages.as_slice()));
        }
        assert!(self.running.is_sorted_by_key(|s| s.id) && self.waiting.iter().is_sorted_by_key(|s| s.id));
        if let (Some(youngest), Some(head)) = (self.running.last(), self.waiting.front()) {
            assert!(youngest.id < head.id, "a younger sequence runs while an older one waits");
        }
        assert!(self.running.len() <= self.limits.seqs);
        for seq in &self.running {
            assert!(seq.n_computed <= seq.tokens.len());
            for (group, table) in self.groups.iter().zip(&seq.tables) {
                assert!(seq.n_computed + seq.n_scheduled <= table.end() * PAGE);
                assert_eq!(
                    table.first,
                    group.first_page(seq.n_computed),
                    "what no row sees is held, or what one sees not"
                );
                let most = group.most(self.limits.chunk).unwrap_or(usize::MAX);
                assert!(table.pages.len() <= most, "{} pages are held, more than {most}", table.pages.len());
            }
        }
    }
}
