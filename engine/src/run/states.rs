//! [`States`]: who holds which slot of the recurrent states, and which slots hold the state at the end of a prefix that can
//! be used again. List work only: what the slots hold lives on the device.
//!
//! A slot has holders: a sequence whose state it is, and snapshots. A step never writes a slot that somebody else holds, so
//! nothing is copied: a sequence goes on from a snapshot by reading it and writing elsewhere.

use super::pages::PageKey;

/// Number of a slot in the pool.
pub(crate) type StateId = u32;

#[derive(Debug)]
struct Snapshot {
    at: PageKey,
    slot: StateId,
    /// Whether it is at a mark: such snapshots go last.
    marked: bool,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct States {
    holders: Vec<u32>,
    /// Least recently used first.
    snapshots: Vec<Snapshot>,
    /// Snapshots at most.
    most: usize,
}

impl States {
    /// A pool of `n_slots`, of which `n_running` are always there for the sequences that run.
    pub(crate) fn new(n_slots: usize, n_running: usize) -> States {
        States { holders: vec![0; n_slots], snapshots: Vec::new(), most: n_slots.saturating_sub(n_running) }
    }

    /// Whether there are any: a model without recurrent parts has none.
    pub(crate) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Takes a slot that nobody holds, if need be that of the snapshot that was used longest ago.
    pub(crate) fn alloc(&mut self) -> Option<StateId> {
        loop {
            if let Some(slot) = self.holders.iter().position(|n| *n == 0) {
                self.holders[slot] = 1;
                return Some(slot as StateId);
            }
            let oldest = self.oldest()?;
            self.drop_snapshot(oldest);
        }
    }

    /// The snapshot to give up first.
    fn oldest(&self) -> Option<usize> {
        let plain = self.snapshots.iter().position(|s| !s.marked);
        plain.or((!self.snapshots.is_empty()).then_some(0))
    }

    /// Holds a slot once more.
    pub(crate) fn hold(&mut self, slot: StateId) {
        self.holders[slot as usize] += 1;
    }

    /// Gives back one hold on a slot.
    pub(crate) fn release(&mut self, slot: StateId) {
        self.holders[slot as usize] -= 1;
    }

    /// The state behind this prefix, if a snapshot has it; it counts as used and is held once more.
    pub(crate) fn find(&mut self, at: PageKey) -> Option<StateId> {
        let place = self.snapshots.iter().position(|s| s.at == at)?;
        let snapshot = self.snapshots.remove(place);
        let slot = snapshot.slot;
        self.snapshots.push(snapshot);
        self.hold(slot);
        Some(slot)
    }

    /// The slot of the snapshot that has the state behind this prefix.
    pub(crate) fn peek(&self, at: PageKey) -> Option<StateId> {
        self.snapshots.iter().find(|s| s.at == at).map(|s| s.slot)
    }

    /// Whether a snapshot has the state behind this prefix.
    pub(crate) fn has(&self, at: PageKey) -> bool {
        self.snapshots.iter().any(|s| s.at == at)
    }

    /// Keeps a slot as the state behind this prefix. Snapshots at marks give way to others at marks alone.
    pub(crate) fn keep(&mut self, at: PageKey, slot: StateId, marked: bool) {
        if let Some(there) = self.snapshots.iter_mut().find(|s| s.at == at) {
            there.marked |= marked;
            return;
        }
        if self.snapshots.len() >= self.most {
            match self.oldest().filter(|at| marked || !self.snapshots[*at].marked) {
                Some(oldest) => self.drop_snapshot(oldest),
                None => return,
            }
        }
        self.hold(slot);
        self.snapshots.push(Snapshot { at, slot, marked });
    }

    /// Forgets the state behind this prefix.
    pub(crate) fn drop_at(&mut self, at: PageKey) {
        if let Some(place) = self.snapshots.iter().position(|s| s.at == at) {
            self.drop_snapshot(place);
        }
    }

    /// Forgets every snapshot: what the device held is gone.
    pub(crate) fn forget(&mut self) {
        while !self.snapshots.is_empty() {
            self.drop_snapshot(0);
        }
    }

    fn drop_snapshot(&mut self, place: usize) {
        let slot = self.snapshots.remove(place).slot;
        self.release(slot);
    }

    /// Slots in the pool, and those that hold snapshots.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.holders.len(), self.snapshots.len())
    }

    /// Checks every invariant against the slots that sequences hold; for tests.
    #[cfg(test)]
    pub(crate) fn check(&self, held: impl Iterator<Item = StateId>) {
        let mut holders = vec![0; self.holders.len()];
        let kept = self.snapshots.iter().map(|s| s.slot);
        held.chain(kept).for_each(|slot| holders[slot as usize] += 1);
        assert_eq!(holders, self.holders, "holders differ from the sequences and snapshots");
        assert!(self.snapshots.len() <= self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_used_longest_ago_gives_way_and_a_slot_in_use_does_not() {
        let mut states = States::new(4, 2);
        let (a, b) = (states.alloc().unwrap(), states.alloc().unwrap());
        let [first, second, third] = [1, 2, 3].map(PageKey);
        states.keep(first, a, false);
        states.keep(second, b, false);
        states.release(a);
        states.release(b);
        assert_eq!(states.find(first), Some(a), "found and held");
        states.check([a].into_iter());
        let c = states.alloc().unwrap();
        states.keep(third, c, false);
        assert_eq!(states.find(second), None, "the one used longest ago went");
        assert_eq!((states.alloc(), states.alloc()), (Some(b), Some(3)));
        assert_eq!(states.alloc(), None, "what sequences hold stays");
        states.release(a);
        assert_eq!(states.alloc(), Some(a));
        // A mark stays where others come and go.
        states.keep(first, 3, true);
        states.keep(second, a, false);
        states.keep(third, b, false);
        assert!(states.has(first) && !states.has(second) && states.has(third), "{states:?}");
        states.forget();
        states.check([a, b, c, 3].into_iter());
        assert_eq!(states.counts(), (4, 0));
    }
}
