//! What a step brings to a recorded plan.

/// Tokens in one page of the KV cache.
pub const PAGE: usize = 16;

/// One step's rows. All per-row vectors have one entry per row; rows of one sequence stand in the order of positions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inputs {
    /// Token id of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Which entry of `tables` each row belongs to.
    pub seqs: Vec<u32>,
    /// The pages of each sequence in order: position `p` lies in page `table[p / PAGE]` at place `p % PAGE`.
    pub tables: Vec<Vec<u32>>,
    /// The rows whose logits are wanted, ascending.
    pub outputs: Vec<u32>,
}

impl Inputs {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// Empties every list and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.seqs.clear();
        self.tables.clear();
        self.outputs.clear();
    }

    /// Adds a row; returns its index.
    pub fn push(&mut self, token: u32, position: u32, seq: u32) -> u32 {
        self.tokens.push(token);
        self.positions.push(position);
        self.seqs.push(seq);
        (self.tokens.len() - 1) as u32
    }

    /// Says what is inconsistent, if anything: lengths, ids beyond `n_vocab`, rows without a page, pages beyond `n_pages`.
    pub fn check(&self, n_vocab: usize, n_pages: usize) -> Result<(), String> {
        let n = self.n_rows();
        if self.positions.len() != n || self.seqs.len() != n {
            return Err("a step's lists differ in length".into());
        }
        if let Some(id) = self.tokens.iter().find(|id| **id as usize >= n_vocab) {
            return Err(format!("token id {id} is outside the vocabulary of {n_vocab}"));
        }
        for (position, seq) in self.positions.iter().zip(&self.seqs) {
            let table = self.tables.get(*seq as usize).ok_or("a row names a sequence without a page table")?;
            match table.get(*position as usize / PAGE) {
                None => return Err(format!("position {position} has no page")),
                Some(_) => continue,
            }
        }
        if self.tables.iter().flatten().any(|page| *page as usize >= n_pages) {
            return Err("a page table names a page outside the pool".into());
        }
        if self.outputs.iter().any(|row| *row as usize >= n) {
            return Err("an output row is outside the step".into());
        }
        Ok(())
    }
}
