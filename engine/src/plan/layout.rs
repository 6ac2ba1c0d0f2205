//! [`CacheLayout`]: what the cache of a plan takes. Whoever reserves, counts or shows it asks here.

use super::{AttentionMask, Entry, KvKind, Op, PAGE, Plan};

/// Bytes of a plan's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLayout {
    /// How elements are stored.
    pub kind: KvKind,
    /// The groups of layers that keep the same positions, as in [`Plan::windows`].
    pub groups: Vec<CacheGroup>,
    /// Bytes of one sequence's states.
    pub state_bytes: u64,
}

/// A group of caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheGroup {
    /// Positions that a row sees, itself included; all if `None`.
    pub window: Option<u32>,
    /// Layers in it.
    pub n_layers: usize,
    /// Bytes of a page of all of them.
    pub page_bytes: u64,
}

impl CacheGroup {
    /// Pages that hold what a row sees, wherever it stands in its page; `None` where it sees everything.
    pub fn window_pages(&self) -> Option<usize> {
        self.window.map(|window| (window.max(1) as usize - 1).div_ceil(PAGE) + 1)
    }

    /// Pages that a sequence of so many tokens holds, steps of it having up to `rows` rows.
    pub fn pages(&self, tokens: usize, rows: usize) -> usize {
        let all = tokens.div_ceil(PAGE);
        self.window_pages().map_or(all, |window| all.min(window + rows.div_ceil(PAGE)))
    }
}

impl CacheLayout {
    /// That of a plan.
    pub fn of(plan: &Plan, kind: KvKind) -> CacheLayout {
        let group = |(index, window): (usize, &Option<u32>)| {
            let layers = || plan.kv.iter().zip(&plan.kv_groups).filter(move |(_, group)| **group == index);
            let page_bytes = layers().map(|(shape, _)| (shape.token_bytes(kind) * PAGE) as u64).sum();
            CacheGroup { window: *window, n_layers: layers().count(), page_bytes }
        };
        let groups = plan.windows.iter().enumerate().map(group).collect();
        CacheLayout { kind, groups, state_bytes: plan.state_bytes() }
    }

    /// Bytes that each token takes as long as its sequence lives: of the layers without a window.
    pub fn bytes_per_token(&self) -> u64 {
        self.groups.iter().filter(|g| g.window.is_none()).map(|g| g.page_bytes).sum::<u64>() / PAGE as u64
    }

    /// Bytes that a running sequence of so many tokens holds at most, steps of it having up to `rows` rows. Of its two
    /// states one is that of the step before.
    pub fn sequence_bytes(&self, tokens: usize, rows: usize) -> u64 {
        let pages: u64 = self.groups.iter().map(|g| (g.pages(tokens, rows) as u64).saturating_mul(g.page_bytes)).sum();
        pages.saturating_add(2 * self.state_bytes)
    }

    /// Bytes of a cache with so many pages in each group.
    pub fn bytes(&self, pages: impl Fn(usize) -> usize, n_states: usize) -> u64 {
        let groups = self.groups.iter().enumerate();
        let all: u64 = groups.map(|(i, group)| group.page_bytes.saturating_mul(pages(i) as u64)).sum();
        all.saturating_add(self.state_bytes.saturating_mul(n_states as u64))
    }
}

/// Groups of caches behind the first at most: if a file has more windows, the largest stands for all.
const MOST_WINDOWS: usize = 8;

/// The groups of caches, and the group of each, by what attention reads of them.
pub(super) fn groups(ops: &[Entry], n_caches: usize) -> (Vec<Option<u32>>, Vec<usize>) {
    let mut seen: Vec<Option<Option<u32>>> = vec![None; n_caches];
    for entry in ops {
        let Op::Attend { layer, mask, window, .. } = entry.op else { continue };
        // A window that moves on is that of rows which see what is before them; others see a text as a whole.
        let window = window.filter(|_| mask == AttentionMask::Causal);
        seen[layer] = Some(match seen[layer] {
            None => window,
            Some(before) => before.zip(window).map(|(a, b)| a.max(b)),
        });
    }
    let mut kept: Vec<Option<u32>> = seen.into_iter().map(Option::flatten).collect();
    let mut windows: Vec<u32> = kept.iter().copied().flatten().collect();
    windows.sort_unstable_by_key(|window| std::cmp::Reverse(*window));
    windows.dedup();
    if windows.len() > MOST_WINDOWS {
        windows.truncate(1);
        kept.iter_mut().flatten().for_each(|window| *window = windows[0]);
    }
    // A model without any has pages all the same: they stand for what its states have seen.
    let all = (kept.contains(&None) || kept.is_empty()).then_some(None);
    let groups: Vec<Option<u32>> = all.into_iter().chain(windows.into_iter().map(Some)).collect();
    let place = |window: &Option<u32>| groups.iter().position(|group| group == window).unwrap_or(0);
    let of = kept.iter().map(place).collect();
    (groups, of)
}
