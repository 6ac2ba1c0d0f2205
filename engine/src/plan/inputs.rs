//! What a step brings to a recorded plan.

use super::Rows;

/// Tokens in one page of the KV cache.
pub const PAGE: usize = 16;

/// Tokens that [`Want::Top`] gives: at most this many.
pub const TOP: usize = 64;

/// Texts of a pair.
pub const SEGMENTS: usize = 2;

/// What is wanted of an output row. A device that only computes logits gives them whatever is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Want {
    /// Its logits, unchanged.
    #[default]
    Logits,
    /// After the row's changes: the token with the largest `(logit - maximum) * scale + noise`, among those whose logit
    /// is at most `-least` below the maximum; the largest logit where `scale` is 0. Of equals the smaller.
    Pick {
        /// The random generator's state for this row.
        draw: [u32; 2],
        /// 1 / temperature, or 0.
        scale: f32,
        /// Logarithm of min-p.
        least: f32,
    },
    /// After the row's changes: the [`TOP`] largest logits and their tokens.
    Top,
}

/// A change of one logit of a row: `bias` is added, then the result divided by `factor` where it is positive and
/// multiplied elsewhere, then `penalty` subtracted. A row names a token at most once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Index of the output.
    pub row: u32,
    /// The token.
    pub token: u32,
    /// Added first.
    pub bias: f32,
    /// Repetition penalty.
    pub factor: f32,
    /// Subtracted last.
    pub penalty: f32,
}

/// Neighbouring rows whose mean is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The first of them.
    pub first: u32,
    /// Their number; at least one.
    pub rows: u32,
}

/// Where the state of a sequence lies before and after a step. The two differ while the old one must survive: a step that
/// failed is run again, and a snapshot is read by whoever continues from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSlots {
    /// Before; `None` for a sequence without a past, whose state is zeros.
    pub from: Option<u32>,
    /// After.
    pub to: u32,
}

/// What a device keeps of a sequence beyond a step, and gives as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePlace {
    /// A page of a group of caches, in all its layers.
    Page {
        /// The group: see [`super::Plan::windows`].
        group: usize,
        /// The page.
        page: u32,
    },
    /// A slot of states, of all recurrent ops.
    State(u32),
}

/// One step's rows. All per-row vectors have one entry per row; rows of one sequence stand in the order of positions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inputs {
    /// Token id of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Which entry of `tables` each row belongs to.
    pub seqs: Vec<u32>,
    /// Which text of a pair each row belongs to, for plans that look it up ([`super::Lookup::Segment`]): 0 or 1; if empty, all to
    /// the first.
    pub segments: Vec<u32>,
    /// The pages of each sequence in order: position `p` lies in page `table[p / PAGE]` at place `p % PAGE`.
    pub tables: Vec<Vec<u32>>,
    /// The same for each group of caches behind the first (`[group - 1][sequence]`, see [`super::Plan::windows`]); if empty,
    /// every group has the pages of `tables`. In front of a sequence's window any page may stand.
    pub window_tables: Vec<Vec<Vec<u32>>>,
    /// The slots of each sequence's state, in the order of `tables`; if empty, sequence `i` has slot `i`, which is zeros
    /// when its first position is 0.
    pub states: Vec<StateSlots>,
    /// The rows whose logits are wanted, ascending.
    pub outputs: Vec<u32>,
    /// What is wanted of each output; logits of all where it is empty.
    pub wants: Vec<Want>,
    /// Changes of the logits of outputs that are not wanted as logits.
    pub changes: Vec<Change>,
    /// The rows whose means are wanted.
    pub pools: Vec<Pool>,
    /// For each sequence how many of its first positions are its source; none have one if empty.
    pub sources: Vec<u32>,
    /// Whether the rows are those of sources: all of one sequence's, or none.
    pub source: bool,
    /// What of each adapter is added to the products of each row, the factors of a row one after the other; empty if no row uses
    /// any. Those of rows of one sequence are the same.
    pub adapters: Vec<f32>,
    /// A chain: the steps that follow without the host, and what each wants of its outputs. A row of theirs is the token that
    /// was picked for it in the step before, at the next position.
    pub next: Vec<Vec<Want>>,
}

impl Inputs {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// How many rows of this kind the step has.
    pub fn count(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => {
                if self.source {
                    0
                } else {
                    self.n_rows()
                }
            }
            Rows::Sources => {
                if self.source {
                    self.n_rows()
                } else {
                    0
                }
            }
            Rows::Outputs => self.outputs.len(),
            Rows::Pools => self.pools.len(),
            Rows::Adapted => {
                if self.source || self.adapters.is_empty() {
                    0
                } else {
                    self.n_rows()
                }
            }
        }
    }

    /// Whether something else than logits is wanted.
    pub fn picks(&self) -> bool {
        self.wants.iter().any(|w| *w != Want::Logits)
    }

    /// Empties every list and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.seqs.clear();
        self.segments.clear();
        self.tables.clear();
        self.window_tables.clear();
        self.states.clear();
        self.outputs.clear();
        self.wants.clear();
        self.changes.clear();
        self.pools.clear();
        self.sources.clear();
        self.source = false;
        self.adapters.clear();
        self.next.clear();
    }

    /// The pages of a sequence in a group of caches.
    pub fn table(&self, seq: u32, group: usize) -> &[u32] {
        let tables = group.checked_sub(1).and_then(|at| self.window_tables.get(at)).unwrap_or(&self.tables);
        &tables[seq as usize]
    }

    /// Adds a row; returns its index.
    pub fn push(&mut self, token: u32, position: u32, seq: u32) -> u32 {
        self.tokens.push(token);
        self.positions.push(position);
        self.seqs.push(seq);
        (self.tokens.len() - 1) as u32
    }

    /// The rows of each sequence of the step: its index, and its rows, which are neighbours.
    pub fn runs(&self) -> Vec<(u32, std::ops::Range<usize>)> {
        self.each_run().collect()
    }

    /// [`Inputs::runs`] one after the other.
    pub fn each_run(&self) -> impl Iterator<Item = (u32, std::ops::Range<usize>)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = next;
            let seq = *self.seqs.get(first)?;
            next += self.seqs[first..].iter().take_while(|other| **other == seq).count();
            Some((seq, first..next))
        })
    }

    /// Positions of a sequence that are its source.
    pub fn n_source(&self, seq: u32) -> u32 {
        self.sources.get(seq as usize).copied().unwrap_or(0)
    }

    /// For each sequence the position behind its last row in the step.
    pub fn ends(&self) -> Vec<u32> {
        let mut ends = Vec::new();
        self.ends_into(&mut ends);
        ends
    }

    /// Puts [`Inputs::ends`] in place of what `ends` held.
    pub fn ends_into(&self, ends: &mut Vec<u32>) {
        ends.clear();
        ends.resize(self.tables.len(), 0);
        for (position, seq) in self.positions.iter().zip(&self.seqs) {
            let end = &mut ends[*seq as usize];
            *end = (*end).max(position + 1);
        }
    }

    /// The slots of a sequence's state whose first row in the step is `row`.
    pub fn state(&self, seq: u32, row: usize) -> StateSlots {
        let own = StateSlots { from: (self.positions[row] > 0).then_some(seq), to: seq };
        self.states.get(seq as usize).copied().unwrap_or(own)
    }

    /// Says what is inconsistent with the states of a plan that has some, if anything: rows of a sequence that are not
    /// neighbours, slots beyond `n_states`, a slot that two sequences write.
    pub fn check_states(&self, n_states: usize) -> Result<(), String> {
        if !self.states.is_empty() && self.states.len() != self.tables.len() {
            return Err("a step's page tables and states differ in number".into());
        }
        let runs = self.runs();
        let mut written = Vec::new();
        for (seq, rows) in &runs {
            let StateSlots { from, to } = self.state(*seq, rows.start);
            if from.unwrap_or(to).max(to) as usize >= n_states {
                return Err(format!("a state lies in slot {to} of {n_states}"));
            }
            written.push(to);
        }
        written.sort_unstable();
        let once = written.windows(2).all(|w| w[0] != w[1]);
        if once { Ok(()) } else { Err("two runs of rows write one state".into()) }
    }

    /// Says what is inconsistent with the tables of `n_groups` groups of caches, those behind the first of `n_pages` pages.
    pub fn check_windows(&self, n_groups: usize, n_pages: usize) -> Result<(), String> {
        if self.window_tables.is_empty() {
            return if n_groups > 1 { self.check_tables(&self.tables, n_pages) } else { Ok(()) };
        }
        if self.window_tables.len() + 1 != n_groups || self.window_tables.iter().any(|t| t.len() != self.tables.len()) {
            return Err(format!("a step brings page tables of other groups than the {n_groups} of the plan"));
        }
        self.window_tables.iter().try_for_each(|tables| self.check_tables(tables, n_pages))
    }

    fn check_tables(&self, tables: &[Vec<u32>], n_pages: usize) -> Result<(), String> {
        for (position, seq) in self.positions.iter().zip(&self.seqs) {
            let table = tables.get(*seq as usize).ok_or("a row names a sequence without a page table")?;
            if table.len() <= (*position as usize + self.next.len()) / PAGE {
                return Err(format!("position {position} has no page"));
            }
        }
        if tables.iter().flatten().any(|page| *page as usize >= n_pages) {
            return Err("a page table names a page outside the pool".into());
        }
        Ok(())
    }

    /// Says what is inconsistent with a plan of `n` adapters, if anything.
    pub fn check_adapters(&self, n: usize) -> Result<(), String> {
        let fits = self.adapters.is_empty() || self.adapters.len() == self.n_rows() * n;
        let fits = fits && self.adapters.iter().all(|scale| scale.is_finite());
        if fits { Ok(()) } else { Err(format!("a step's factors of adapters are not {n} numbers for each row")) }
    }

    /// Says what is inconsistent, if anything: lengths, ids beyond `n_vocab`, rows without a page, pages beyond `n_pages`.
    pub fn check(&self, n_vocab: usize, n_pages: usize) -> Result<(), String> {
        let n = self.n_rows();
        if self.positions.len() != n || self.seqs.len() != n {
            return Err("a step's lists differ in length".into());
        }
        let known = self.segments.iter().all(|segment| *segment < SEGMENTS as u32);
        if !known || !self.segments.is_empty() && self.segments.len() != n {
            return Err(format!("a step's segments are not one below {SEGMENTS} for each row"));
        }
        if let Some(id) = self.tokens.iter().find(|id| **id as usize >= n_vocab) {
            return Err(format!("token id {id} is outside the vocabulary of {n_vocab}"));
        }
        self.check_chain()?;
        self.check_tables(&self.tables, n_pages)?;
        let mut sources = self.sources.iter().zip(&self.tables);
        if self.sources.len() > self.tables.len() || sources.any(|(n, table)| *n as usize > table.len() * PAGE) {
            return Err("a source has no pages".into());
        }
        if self.outputs.iter().any(|row| *row as usize >= n) {
            return Err("an output row is outside the step".into());
        }
        let inside = |p: &Pool| p.rows > 0 && p.first.checked_add(p.rows).is_some_and(|end| end as usize <= n);
        if !self.pools.iter().all(inside) {
            return Err("the rows of a pool are none, or outside the step".into());
        }
        if !self.wants.is_empty() && self.wants.len() != self.outputs.len() {
            return Err("a step's wants and outputs differ in length".into());
        }
        Ok(())
    }

    /// The last position that a row has, in the steps that follow too.
    pub fn last_position(&self) -> u32 {
        self.positions.iter().copied().max().unwrap_or(0).saturating_add(self.next.len() as u32)
    }

    /// Says why the steps that follow cannot do without the host, if anything: every row must be picked for.
    fn check_chain(&self) -> Result<(), String> {
        let n = self.n_rows();
        let picks = |wants: &Vec<Want>| wants.len() == n && wants.iter().all(|w| matches!(w, Want::Pick { .. }));
        let alone = self.outputs.len() == n && self.changes.is_empty() && self.pools.is_empty();
        if self.next.is_empty() || alone && std::iter::once(&self.wants).chain(&self.next).all(picks) {
            return Ok(());
        }
        Err("the steps of a chain need the host".into())
    }
}
