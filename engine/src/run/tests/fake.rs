//! A fake device that stores what a real one would, and a vocabulary of letters.

use crate::device::{Output, Picked};
use crate::plan::{Inputs, PAGE, Pool, StateSlots, Want};
use crate::run::pages::PageId;
use crate::run::random::Draw;
use crate::run::scheduler::Room;
use crate::run::vocabulary::Vocabulary;

pub(crate) const N_VOCAB: usize = 24;
pub(crate) const END: u32 = 0;

/// Token 0 ends; token 1 is silent; the others are letters, two of them halves of one character.
pub(crate) struct Letters;

impl Vocabulary for Letters {
    fn n_vocab(&self) -> usize {
        N_VOCAB
    }

    fn is_end(&self, id: u32) -> bool {
        id == END
    }

    fn piece(&self, id: u32, special: bool, out: &mut Vec<u8>) {
        match id {
            0 | 1 if special => out.extend_from_slice(b"<>"),
            0 | 1 => {}
            2 => out.push(0xC3),
            3 => out.push(0xA9),
            id => out.push(b'a' + (id % 3) as u8),
        }
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let x = (a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 29)
}

/// What a row adds to what is before it: its token, and how much of each adapter it uses.
fn row(token: u32, scales: &[f32]) -> u64 {
    let used = scales.iter().fold(0, |sum, scale| mix(sum, u64::from(scale.to_bits())));
    u64::from(token) + 1 + if scales.iter().all(|scale| *scale == 0.0) { 0 } else { used << 8 }
}

/// The logits that follow a prefix, given what the cache says about it.
pub(crate) fn logits(state: u64) -> Vec<f32> {
    let logit = |id: usize| (mix(state, id as u64) >> 40) as f32 / (1 << 22) as f32 - if id == 0 { 2.0 } else { 0.0 };
    (0..N_VOCAB).map(logit).collect()
}

/// What a device picks of a row.
fn picked(row: &[f32], want: Want) -> u32 {
    let Want::Pick { draw, scale, least } = want else { unreachable!("only picks are asked for") };
    let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let score = |logit: f32, token: u32| match scale > 0.0 {
        false => logit,
        true if logit < best + least => f32::NEG_INFINITY,
        true => (logit - best) * scale + Draw::of_words(draw).gumbel(token),
    };
    let scores = (0..).zip(row).map(|(token, logit)| (score(*logit, token), token));
    scores.fold((f32::NEG_INFINITY, 0), |best, next| if next.0 > best.0 { next } else { best }).1
}

/// Columns of a normed row.
pub(crate) const WIDTH: usize = 3;

/// The normed row that follows a prefix.
pub(crate) fn hidden(state: u64) -> [f32; WIDTH] {
    [1000, 1001, 1002].map(|i| (mix(state, i) % 64) as f32 - 20.0)
}

/// What attention over these positions gives, by the state at each.
fn attend(positions: impl Iterator<Item = u32>, state: impl Fn(u32) -> u64) -> u64 {
    positions.fold(0, |sum, position| mix(sum, state(position) ^ u64::from(position)))
}

/// The positions that the row at `position` sees.
fn seen(window: Option<u32>, position: u32) -> std::ops::RangeInclusive<u32> {
    window.map_or(0, |window| (position + 1).saturating_sub(window))..=position
}

/// What attention gives behind a prefix of a sequence with these adapters: of every group of layers in turn.
pub(crate) fn prefix_states(tokens: &[u32], scales: &[f32], windows: &[Option<u32>]) -> u64 {
    let mut chain = 0;
    let step = |token: &u32| {
        chain = mix(chain, row(*token, scales));
        chain
    };
    let chains: Vec<u64> = tokens.iter().map(step).collect();
    let last = tokens.len() as u32 - 1;
    windows.iter().fold(0, |sum, window| mix(sum, attend(seen(*window, last), |p| chains[p as usize])))
}

/// How much of each adapter a row of a step uses.
fn scales(inputs: &Inputs, row: usize) -> &[f32] {
    let n = inputs.adapters.len() / inputs.n_rows();
    &inputs.adapters[row * n..][..n]
}

/// Pages that hold, per group and place, the position and a state that depends on the whole prefix, as deep layers' keys do.
pub(crate) struct FakeDevice {
    pub(crate) places: Vec<Vec<Option<(u32, u64)>>>,
    pub(crate) windows: Vec<Option<u32>>,
    /// Of a recurrent model: what each slot holds, as the number of tokens and a state that depends on all of them.
    pub(crate) states: Vec<Option<(u32, u64)>>,
}

impl FakeDevice {
    pub(crate) fn new(room: &Room) -> Self {
        Self {
            places: room.groups.iter().map(|(_, n_pages)| vec![None; n_pages * PAGE]).collect(),
            windows: room.groups.iter().map(|(window, _)| *window).collect(),
            states: vec![None; room.n_states],
        }
    }

    /// Forgets everything.
    pub(crate) fn lose(&mut self) {
        self.places.iter_mut().for_each(|places| places.fill(None));
        self.states.fill(None);
    }

    /// Goes on from each sequence's state, which must be the one behind the tokens before.
    fn recur(&mut self, inputs: &Inputs) {
        if self.states.is_empty() {
            return;
        }
        inputs.check_states(self.states.len()).unwrap();
        assert_eq!(inputs.states.len(), inputs.tables.len(), "a sequence without a state");
        let before = self.states.clone();
        for (seq, rows) in inputs.runs() {
            let slots = inputs.state(seq, rows.start);
            let others = inputs.states.iter().enumerate().filter(|(i, _)| *i != seq as usize);
            assert!(others.clone().all(|(_, s)| s.from != Some(slots.to)), "a state is written that another reads");
            let start = inputs.positions[rows.start];
            let (n, mut state) = match slots.from {
                None => (0, 0),
                Some(from) => before[from as usize].expect("reads a state that nobody wrote"),
            };
            assert_eq!(n, start, "a state of another length");
            if start > 0 {
                assert_eq!(state, self.before(inputs, seq, start), "a state of another prefix");
            }
            for at in rows.clone() {
                state = mix(state, row(inputs.tokens[at], scales(inputs, at)));
            }
            self.states[slots.to as usize] = Some((start + rows.len() as u32, state));
        }
    }

    fn place(table: &[PageId], position: u32) -> usize {
        table[position as usize / PAGE] as usize * PAGE + position as usize % PAGE
    }

    /// The state in front of a position: every row of a group sees the one before it.
    fn before(&self, inputs: &Inputs, seq: u32, position: u32) -> u64 {
        if position == 0 { 0 } else { self.read(0, inputs.table(seq, 0), position - 1) }
    }

    fn read(&self, group: usize, table: &[PageId], position: u32) -> u64 {
        let (stored, chain) =
            self.places[group][Self::place(table, position)].expect("reads a place that nobody wrote");
        assert_eq!(stored, position, "a page holds another position");
        chain
    }

    /// Computes a step and the others of its chain, as a device does that picks tokens itself where that is all that is wanted.
    pub(crate) fn chain(&mut self, inputs: &Inputs) -> Output {
        let output = self.step(inputs);
        let picks = |wants: &[Want]| !wants.is_empty() && wants.iter().all(|w| matches!(w, Want::Pick { .. }));
        if !inputs.changes.is_empty() || !picks(&inputs.wants) {
            assert!(inputs.next.is_empty(), "a chain that needs the host");
            return output;
        }
        let pick = |logits: &[f32], wants: &[Want]| -> Vec<Option<Picked>> {
            let rows = logits.chunks_exact(N_VOCAB).zip(wants);
            rows.map(|(row, want)| Some(Picked::Token(Some(picked(row, *want))))).collect()
        };
        let mut all = vec![pick(&output.logits, &inputs.wants)];
        let mut step = inputs.clone();
        for wants in &inputs.next {
            assert!(picks(wants) && wants.len() == step.n_rows(), "a chain that needs the host");
            for (row, picked) in step.outputs.iter().zip(all.last().unwrap()) {
                let Some(Picked::Token(Some(token))) = picked else { unreachable!("every row is picked for") };
                step.tokens[*row as usize] = *token;
            }
            step.positions.iter_mut().for_each(|p| *p += 1);
            step.states.iter_mut().for_each(|s| *s = StateSlots { from: Some(s.to), to: s.to });
            all.push(pick(&self.step(&step).logits, wants));
        }
        let picked = all.remove(0);
        Output { picked, later: all, n_vocab: N_VOCAB, pooled: output.pooled, ..Output::default() }
    }

    pub(crate) fn step(&mut self, inputs: &Inputs) -> Output {
        self.recur(inputs);
        for at in 0..inputs.n_rows() {
            let (position, seq) = (inputs.positions[at], inputs.seqs[at]);
            let chain = mix(self.before(inputs, seq, position), row(inputs.tokens[at], scales(inputs, at)));
            for (group, places) in self.places.iter_mut().enumerate() {
                places[Self::place(inputs.table(seq, group), position)] = Some((position, chain));
            }
        }
        let attend = |row: u32| {
            let (position, seq) = (inputs.positions[row as usize], inputs.seqs[row as usize]);
            self.windows.iter().enumerate().fold(0, |sum, (group, window)| {
                let table = inputs.table(seq, group);
                mix(sum, attend(seen(*window, position), |p| self.read(group, table, p)))
            })
        };
        let mean = |pool: &Pool| {
            let mut sum = [0.0; WIDTH];
            for row in pool.first..pool.first + pool.rows {
                sum.iter_mut().zip(hidden(attend(row))).for_each(|(sum, x)| *sum += x);
            }
            sum.map(|sum| sum / pool.rows as f32)
        };
        let logits = inputs.outputs.iter().flat_map(|row| logits(attend(*row))).collect();
        let pooled = inputs.pools.iter().flat_map(mean).collect();
        Output { logits, n_vocab: N_VOCAB, pooled, ..Output::default() }
    }
}
