//! `recur`: a matrix per head that each row decays, corrects and reads; and the states that sequences keep between steps.

use super::kv_write::Columns;
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::cpu::zeroed::Zeroed;
use crate::error::Result;
use crate::plan::{Inputs, Recurrence, StateSlots};

/// One state of every slot.
#[derive(Debug)]
pub struct States {
    n: usize,
    data: Zeroed<f32>,
}

impl States {
    /// `n_slots` states of `n` elements. The system gives the memory when a slot is first used.
    ///
    /// # Errors
    /// If the system would not give that much memory.
    pub fn new(n: usize, n_slots: usize) -> Result<States> {
        Ok(States { n, data: Zeroed::new(n.saturating_mul(n_slots))? })
    }

    /// A slot's state.
    pub fn slot(&self, slot: u32) -> &[f32] {
        &self.data[slot as usize * self.n..][..self.n]
    }

    /// A slot's state, to be changed.
    pub fn slot_mut(&mut self, slot: u32) -> &mut [f32] {
        &mut self.data[slot as usize * self.n..][..self.n]
    }

    /// Brings what a sequence had before a step to where its state will lie.
    pub fn start(&mut self, slots: StateSlots) {
        let StateSlots { from, to } = slots;
        match from {
            None => self.slot_mut(to).fill(0.0),
            Some(from) if from == to => {}
            Some(from) => {
                let start = from as usize * self.n;
                self.data.copy_within(start..start + self.n, to as usize * self.n);
            }
        }
    }
}

/// The operands.
#[derive(Debug, Clone, Copy)]
pub struct Recur<'a> {
    /// The shape.
    pub form: Recurrence,
    /// Queries.
    pub q: Columns<'a>,
    /// Keys.
    pub k: Columns<'a>,
    /// Values.
    pub v: Columns<'a>,
    /// Logarithms of decay: one per head or one per element of its key.
    pub decay: Columns<'a>,
    /// Factors on those of heads, one per element of the key.
    pub rates: Option<&'a [f32]>,
    /// Strengths of correction.
    pub beta: Option<Columns<'a>>,
    /// Factors on the values.
    pub v_scale: Option<Columns<'a>>,
    /// Factors of what is passed on of the values.
    pub skip: Option<&'a [f32]>,
}

/// A head of a sequence: its state and what it gives for each of the sequence's rows.
struct Task<'a> {
    head: usize,
    rows: std::ops::Range<usize>,
    state: &'a mut [f32],
    out: Vec<f32>,
}

/// Row by row, so that a result does not depend on how a sequence is cut into steps. See [`Recurrence`] for the formula.
pub fn recur(t: &Table, pool: &Pool, inputs: &Inputs, op: &Recur<'_>, states: &mut States, out: &mut [f32]) {
    let Recurrence { n_heads, k_dim, v_dim, .. } = op.form;
    let mut runs = inputs.runs();
    for (seq, rows) in &runs {
        states.start(inputs.state(*seq, rows.start));
    }
    // Slots in the order of memory, each taken by one run of rows at most.
    runs.sort_by_key(|(seq, rows)| inputs.state(*seq, rows.start).to);
    let mut tasks = Vec::new();
    let mut slots = states.data.chunks_exact_mut(states.n.max(1)).enumerate();
    for (seq, rows) in runs {
        let to = inputs.state(seq, rows.start).to as usize;
        let Some((_, state)) = slots.find(|(slot, _)| *slot == to) else { continue };
        for (head, state) in state.chunks_exact_mut(k_dim * v_dim).enumerate() {
            tasks.push(Task { head, rows: rows.clone(), state, out: vec![0.0; rows.len() * v_dim] });
        }
    }
    // Mamba has thousands of small heads.
    let at_once = (tasks.len() / 64).max(1);
    pool.chunks_mut(&mut tasks, at_once, |_, tasks| tasks.iter_mut().for_each(|task| task.run(t, op)));
    let width = n_heads * v_dim;
    for task in tasks {
        for (row, from) in task.rows.zip(task.out.chunks_exact(v_dim)) {
            out[row * width + task.head * v_dim..][..v_dim].copy_from_slice(from);
        }
    }
}

impl Task<'_> {
    fn run(&mut self, t: &Table, op: &Recur<'_>) {
        let Recurrence { n_heads, n_k_heads, k_dim, v_dim, tiled, q_scale, k_scale } = op.form;
        let h = self.head;
        let g = if tiled { h % n_k_heads } else { h / (n_heads / n_k_heads) };
        let mut change = vec![0.0; v_dim];
        for (r, out) in self.rows.clone().zip(self.out.chunks_exact_mut(v_dim)) {
            let q = &op.q.row(r)[g * k_dim..][..k_dim];
            let k = &op.k.row(r)[g * k_dim..][..k_dim];
            let v = &op.v.row(r)[h * v_dim..][..v_dim];
            decay(t, self.state, op.decay.row(r), op.rates, (h, n_heads), v_dim);
            let factor = op.v_scale.map_or(1.0, |scale| scale.row(r)[h]);
            change.iter_mut().zip(v).for_each(|(c, v)| *c = factor * v);
            if let Some(beta) = op.beta {
                for (k, s) in k.iter().zip(self.state.chunks_exact(v_dim)) {
                    (t.axpy)(&mut change, -k_scale * k, s);
                }
                (t.scale)(&mut change, beta.row(r)[h]);
            }
            out.fill(0.0);
            for ((k, q), s) in k.iter().zip(q).zip(self.state.chunks_exact_mut(v_dim)) {
                (t.axpy)(s, k_scale * k, &change);
                (t.axpy)(out, q_scale * q, s);
            }
            if let Some(skip) = op.skip {
                (t.axpy)(out, skip[h], v);
            }
        }
    }
}

/// Shrinks a head's state.
fn decay(
    t: &Table,
    state: &mut [f32],
    row: &[f32],
    rates: Option<&[f32]>,
    (head, n_heads): (usize, usize),
    v_dim: usize,
) {
    if let Some(rates) = rates {
        let own = &rates[head * (rates.len() / n_heads)..];
        for (rate, s) in own.iter().zip(state.chunks_exact_mut(v_dim)) {
            (t.scale)(s, (row[head] * rate).exp());
        }
        return;
    }
    if row.len() == n_heads {
        return (t.scale)(state, row[head].exp());
    }
    let k_dim = row.len() / n_heads;
    let own = &row[head * k_dim..][..k_dim];
    for (g, s) in own.iter().zip(state.chunks_exact_mut(v_dim)) {
        (t.scale)(s, g.exp());
    }
}
