//! Byte-pair merging: joins neighbouring symbols of a piece, best pair first and the leftmost of equals, until no pair
//! is left. What a pair is worth comes from a [`Pairs`]; SentencePiece scores and BPE ranks both do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What joining two neighbouring symbols gives.
pub(super) trait Pairs {
    /// The order key (smaller is joined first) and the id of the joined symbol, where the two may be joined.
    /// `text` is the text of both, and `left` and `right` their ids ([`NONE`] where a symbol is no token).
    fn pair(&self, text: &[u8], left: u32, right: u32) -> Option<(u32, u32)>;
}

/// The id of a symbol that is no token.
pub(super) const NONE: u32 = u32::MAX;
/// The key of a pair that cannot be joined.
const NEVER: u32 = u32::MAX;
/// Up to this many symbols the best pair is found by looking at all.
const SHORT: usize = 48;

/// A symbol of the piece being merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// Where its text starts in the piece.
    pub(super) start: u32,
    /// Its token, or [`NONE`].
    pub(super) id: u32,
    /// What joining it with the next symbol is worth, and the joined id.
    key: u32,
    joined: u32,
    /// Its neighbours as indices; on long pieces only.
    prev: u32,
    next: u32,
}

/// Reused memory for merging.
#[derive(Debug, Default)]
pub(super) struct Merger {
    /// The symbols of the piece: filled by [`Merger::push`], and what is left of them after [`Merger::run`].
    pub(super) symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// Adds a symbol that starts at this byte of the piece.
    #[inline]
    pub(super) fn push(&mut self, start: usize, id: u32) {
        self.symbols.push(Symbol { start: start as u32, id, key: NEVER, joined: NONE, prev: NONE, next: NONE });
    }

    /// Joins what can be joined. The piece is shorter than 4 GiB.
    pub(super) fn run(&mut self, piece: &[u8], pairs: &impl Pairs) {
        if self.symbols.len() <= SHORT { self.run_short(piece, pairs) } else { self.run_long(piece, pairs) }
    }

    /// Sets what symbol `i` and its neighbour `next` (whose text ends at `end`) are worth.
    #[inline]
    fn weigh(&mut self, piece: &[u8], i: usize, next: usize, end: usize, pairs: &impl Pairs) {
        let (left, right) = (self.symbols[i], self.symbols[next]);
        let pair = pairs.pair(&piece[left.start as usize..end], left.id, right.id);
        let symbol = &mut self.symbols[i];
        (symbol.key, symbol.joined) = pair.unwrap_or((NEVER, NONE));
    }

    fn end(&self, piece: &[u8], after: usize) -> usize {
        self.symbols.get(after).map_or(piece.len(), |s| s.start as usize)
    }

    fn run_short(&mut self, piece: &[u8], pairs: &impl Pairs) {
        for i in 1..self.symbols.len() {
            self.weigh(piece, i - 1, i, self.end(piece, i + 1), pairs);
        }
        loop {
            let best = self.symbols.iter().enumerate().min_by_key(|(_, s)| s.key);
            let Some((i, _)) = best.filter(|(_, s)| s.key != NEVER) else { return };
            self.symbols[i].id = self.symbols[i].joined;
            self.symbols[i].key = NEVER;
            self.symbols.remove(i + 1);
            if i + 1 < self.symbols.len() {
                self.weigh(piece, i, i + 1, self.end(piece, i + 2), pairs);
            }
            if i > 0 {
                self.weigh(piece, i - 1, i, self.end(piece, i + 1), pairs);
            }
        }
    }

    fn run_long(&mut self, piece: &[u8], pairs: &impl Pairs) {
        let n = self.symbols.len();
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.clear();
        for i in 0..n {
            self.symbols[i].prev = (i as u32).wrapping_sub(1);
            self.symbols[i].next = if i + 1 < n { i as u32 + 1 } else { NONE };
            if i + 1 < n {
                self.weigh(piece, i, i + 1, self.end(piece, i + 2), pairs);
                entries.extend(self.entry(i));
            }
        }
        self.heap = BinaryHeap::from(entries);
        while let Some(Reverse(entry)) = self.heap.pop() {
            let i = entry as u32 as usize;
            // Entries of pairs that have changed since stay behind; the pair's present key tells.
            if u64::from(self.symbols[i].key) != entry >> 32 || self.symbols[i].key == NEVER {
                continue;
            }
            let next = self.symbols[i].next as usize;
            let after = self.symbols[next].next;
            self.symbols[next].key = NEVER;
            self.symbols[next].start = NONE;
            self.symbols[i].id = self.symbols[i].joined;
            self.symbols[i].next = after;
            self.symbols[i].key = NEVER;
            if after != NONE {
                self.symbols[after as usize].prev = i as u32;
                self.reweigh(piece, i, pairs);
            }
            if self.symbols[i].prev != NONE {
                self.reweigh(piece, self.symbols[i].prev as usize, pairs);
            }
        }
        self.symbols.retain(|s| s.start != NONE);
    }

    fn entry(&self, i: usize) -> Option<Reverse<u64>> {
        let key = self.symbols[i].key;
        (key != NEVER).then_some(Reverse(u64::from(key) << 32 | i as u64))
    }

    /// Weighs symbol `i` and its neighbour anew and queues the pair.
    fn reweigh(&mut self, piece: &[u8], i: usize, pairs: &impl Pairs) {
        let next = self.symbols[i].next as usize;
        let end = match self.symbols[next].next {
            NONE => piece.len(),
            after => self.symbols[after as usize].start as usize,
        };
        self.weigh(piece, i, next, end, pairs);
        let entry = self.entry(i);
        self.heap.extend(entry);
    }
}
