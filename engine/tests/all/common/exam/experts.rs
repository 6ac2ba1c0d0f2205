//! Cases of what mixtures of experts take: routing, products with picked matrices, sums over the picks, gates.

use ir_engine::device::KvKind;
use ir_engine::dtype::DType;
use ir_engine::plan::{
    Act, ExpertEpilogue, Gated, OpKind, Pick, Product, Routing, Rows, Scoring, Slot, Weight, WeightId,
};

use super::{Builder, Case, segments};

/// Columns of the inputs.
const K: usize = 64;
/// Rows of each matrix.
const N: usize = 24;

/// A slot of picks that a test gives: `used` different indices of each row, and weights.
fn picks(b: &mut Builder, used: usize, of: usize) -> Pick {
    let picks = b.rec.input(Rows::Tokens, 2 * used);
    let mut data = Vec::new();
    for _ in 0..b.inputs.n_rows() {
        let first = b.random.below(of);
        data.extend((0..used).map(|j| f32::from_bits(((first + j * (of / used)) % of) as u32)));
        data.extend(b.random.floats(used));
    }
    b.slots.push((picks, data));
    Pick { picks, used, of }
}

/// A stack of `of` matrices of `N` rows, each in two segments.
fn stack(b: &mut Builder, dtype: DType, of: usize) -> WeightId {
    let segments = (0..of).flat_map(|_| segments(&mut b.random, [dtype; 2], N, K)).collect();
    b.rec.weight(Weight { name: "stack".into(), cols: K, segments })
}

pub(super) fn expert_linear(cases: &mut Vec<Case>) {
    let behinds = [
        ExpertEpilogue::Store,
        ExpertEpilogue::Act(Act::ReluSquared),
        ExpertEpilogue::Glu(Gated::plain(Act::Silu)),
        ExpertEpilogue::Glu(Gated { act: Act::GeluQuick, limit: 1.0, limits_result: false, up_offset: 1.0 }),
    ];
    for (i, behind) in behinds.into_iter().enumerate() {
        for (j, (rows, used, of)) in [(1, 2, 4), (5, 1, 3), (40, 4, 8), (7, 3, 4)].into_iter().enumerate() {
            let mut b = Builder::new((5 * i + j) as u64, rows);
            let each = (i + j) % 2 == 1;
            let x = b.input(if each { used * K } else { K });
            let pick = picks(&mut b, used, of);
            let dtype = [DType::F32, DType::Q8_0, DType::BF16][(i + j) % 3];
            let weight = stack(&mut b, dtype, of);
            let scale = (j == 1).then(|| b.vector(of * N));
            let bias = (j != 0).then(|| b.vector(of * N));
            let out = b.rec.expert_linear(x, each, pick, Product { weight, norm: None, scale, bias }, behind).unwrap();
            let powers = match behind {
                ExpertEpilogue::Store => 1.0,
                ExpertEpilogue::Act(_) | ExpertEpilogue::Glu(_) => 2.0,
            };
            let name = format!("{dtype}, {rows} rows, {used} of {of}, each {each}, {behind:?}");
            let case = b.case(OpKind::ExpertLinear, name, out);
            cases.push(Case { dtype: Some(dtype), exponentials: true, powers, ..case });
        }
    }
}

/// Matrices of heads, with columns that are passed on.
pub(super) fn head_linear(cases: &mut Vec<Case>) {
    for (i, (rows, n_heads, pass)) in [(1, 3, 8), (7, 2, 0), (40, 4, 5)].into_iter().enumerate() {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(n_heads * (K + pass));
        let dtype = [DType::BF16, DType::Q8_0, DType::F32][i];
        let weight = stack(&mut b, dtype, n_heads);
        let out = b.rec.head_linear(x, weight, n_heads, pass).unwrap();
        let case = b.case(OpKind::HeadLinear, format!("{dtype}, {rows} rows, {n_heads} heads, {pass} passed on"), out);
        cases.push(Case { dtype: Some(dtype), ..case });
    }
}

/// What was chosen shows in what the chosen matrices give.
pub(super) fn route(cases: &mut Vec<Case>) {
    let mixer = Scoring::SparseMixer { within: 0.5 };
    let scorings = [Scoring::Softmax, Scoring::Sigmoid, Scoring::SoftmaxOfPicked, Scoring::SqrtSoftplus, mixer];
    for (i, scoring) in scorings.into_iter().enumerate() {
        for (j, (rows, used, of, groups, groups_used)) in
            [(1, 1, 2, 1, 1), (7, 4, 12, 1, 1), (33, 3, 16, 4, 2)].into_iter().enumerate()
        {
            let mut b = Builder::new((7 * i + j) as u64, rows);
            let logits = b.input(of);
            // A sparse mixer has neither groups nor biases.
            let (groups, groups_used) = if scoring == mixer { (1, 1) } else { (groups, groups_used) };
            let bias = (j == 2 && scoring != mixer).then(|| b.vector(of));
            let routing = Routing { scoring, used, groups, groups_used, renorm: (i + j) % 2 == 0, scale: 1.5 };
            let pick = b.rec.route(logits, bias, routing).unwrap();
            let x = b.input(K);
            let weight = stack(&mut b, DType::F32, of);
            let y = b.rec.expert_linear(x, false, pick, weight, ExpertEpilogue::Store).unwrap();
            let out = b.rec.combine(y, pick, true).unwrap();
            let case = b.case(OpKind::Route, format!("{rows} rows, {of} experts, {routing:?}"), out);
            cases.push(Case { kv: KvKind::F32, exponentials: true, ..case });
        }
    }
}

pub(super) fn combine_and_gate(cases: &mut Vec<Case>) {
    for rows in [1, 6, 40] {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(3 * 41);
        let pick = picks(&mut b, 3, 7);
        let out = b.rec.combine(x, pick, rows != 6).unwrap();
        let mut case = b.case(OpKind::Combine, format!("{rows} rows, weighted {}", rows != 6), out);
        // What no op reads has no place on a device.
        case.slots.retain(|(slot, _)| rows != 6 || *slot == x);
        cases.push(case);
        for (act, group) in [(Act::Sigmoid, 1), (Act::Silu, 12), (Act::Sigmoid, 48)] {
            let mut b = Builder::new(rows as u64, rows);
            let (x, gate): (Slot, Slot) = (b.input(48), b.input(48 / group + 3));
            let view = b.rec.view(gate, 3, 48 / group).unwrap();
            let all = b.rec.all(x);
            b.rec.gate(all, view, act, group).unwrap();
            let case = b.case(OpKind::Gate, format!("{rows} rows, {act:?}, groups of {group}"), x);
            cases.push(Case { exponentials: true, ..case });
        }
    }
}

/// Streams mixed by factors of each row: as they are, in columns of wider slots, and of one column each.
pub(super) fn mix(cases: &mut Vec<Case>) {
    for rows in [1, 6, 40] {
        for (n_in, n_out, width) in [(4, 4, 33), (1, 3, 20), (3, 1, 8), (40, 1, 1)] {
            let mut b = Builder::new(rows as u64, rows);
            let (x, coef) = (b.input(n_in * width + 5), b.input(n_in * n_out + 2));
            let x = b.rec.view(x, 5, n_in * width).unwrap();
            let coef = b.rec.view(coef, 1, n_in * n_out).unwrap();
            let out = b.rec.mix(x, coef, width).unwrap();
            cases.push(b.case(OpKind::Mix, format!("{rows} rows, {n_in} streams of {width} to {n_out}"), out));
        }
    }
    // A row's own square.
    let mut b = Builder::new(3, 9);
    let x = b.input(50);
    let all = b.rec.all(x);
    let out = b.rec.mix(all, all, 1).unwrap();
    cases.push(b.case(OpKind::Mix, "a row by itself".into(), out));
}

pub(super) fn balance(cases: &mut Vec<Case>) {
    for (rows, n, rounds) in [(1, 4, 2), (40, 4, 20), (6, 3, 1)] {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(n * n + 3);
        let view = b.rec.view(x, 2, n * n).unwrap();
        b.rec.balance(view, n, rounds, 1e-6).unwrap();
        let case = b.case(OpKind::Balance, format!("{rows} rows, {n} streams, {rounds} rounds"), x);
        cases.push(Case { exponentials: true, ..case });
    }
}
