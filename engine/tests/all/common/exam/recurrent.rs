//! Cases of what recurrent layers take: convolutions and recurrences, in two steps, so that a state is carried over.

use ir_engine::plan::{Act, OpKind, Recur, Recurrence, View};

use super::{Builder, Case};

pub(super) fn conv(cases: &mut Vec<Case>) {
    for (rows, taps, act) in [(1, 4, Some(Act::Silu)), (7, 3, None), (50, 4, Some(Act::Silu)), (50, 1, None)] {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(70);
        let view = b.rec.view(x, 5, 60).unwrap();
        let weight = b.vector(60 * taps);
        let bias = (rows > 1).then(|| b.vector(60));
        let out = b.rec.conv(view, weight, bias, taps, act).unwrap();
        let case = b.case(OpKind::Conv, format!("{rows} rows, {taps} taps, {act:?}"), out);
        cases.push(Case { exponentials: true, ..case });
    }
}

/// Shapes: plain, with a correction, with a decay for each element of a key, as Mamba 2 and as Mamba have it, as Mamba with keys
/// apart, and with rates and a correction whose strengths lie elsewhere.
pub(super) fn recur(cases: &mut Vec<Case>) {
    for (i, (n_heads, n_k_heads, k_dim, v_dim, tiled)) in [
        (4, 2, 16, 24, false),
        (4, 2, 16, 16, true),
        (2, 2, 12, 20, false),
        (6, 1, 8, 16, false),
        (40, 1, 16, 1, false),
        (40, 1, 16, 1, false),
        (6, 2, 5, 3, true),
    ]
    .into_iter()
    .enumerate()
    {
        for rows in [1, 9, 60] {
            let mut b = Builder::new((3 * i + rows) as u64, rows);
            let keys = n_k_heads * k_dim;
            let x = b.input(2 * keys + n_heads * v_dim);
            let n_decay = if i == 2 { n_heads * k_dim } else { n_heads };
            let decays = b.input(n_decay + 2 * n_heads);
            let decay = View { slot: decays, start: 0, cols: n_decay };
            let minus = b.constant(&vec![-1.0; n_decay]);
            b.rec.act(decay, Act::Softplus, None, Some(minus)).unwrap();
            // Between 0 and 1, as strengths are: beside the decays, or elsewhere.
            let (gates, start) = if matches!(i, 1 | 6) { (b.input(2 * n_heads), 0) } else { (decays, n_decay) };
            let strengths = b.rec.view(gates, start, 2 * n_heads).unwrap();
            b.rec.act(strengths, Act::Sigmoid, None, None).unwrap();
            let view = |b: &Builder, start, cols| b.rec.view(x, start, cols).unwrap();
            let k = if i == 5 { b.input(keys) } else { x };
            let rates: Vec<f32> = b.random.floats(n_heads * k_dim).iter().map(|rate| rate.abs()).collect();
            let recur = Recur {
                q: view(&b, 0, keys),
                k: b.rec.view(k, if i == 5 { 0 } else { keys }, keys).unwrap(),
                v: view(&b, 2 * keys, n_heads * v_dim),
                decay,
                rates: (i >= 4).then(|| b.constant(&rates)),
                beta: matches!(i, 0..3 | 6).then(|| b.rec.view(gates, start, n_heads).unwrap()),
                v_scale: (i >= 3).then(|| b.rec.view(gates, start + n_heads, n_heads).unwrap()),
                skip: (i >= 3).then(|| b.vector(n_heads)),
            };
            let root = 1.0 / (k_dim as f32).sqrt();
            let form = Recurrence { n_heads, n_k_heads, k_dim, v_dim, tiled, q_scale: root, k_scale: root };
            let out = b.rec.recur(form, recur).unwrap();
            let more = ["", ", strengths elsewhere", "", "", ", rates", ", rates, keys apart", ", rates, all"][i];
            let case = b.case(OpKind::Recur, format!("{rows} rows, {form:?}, {n_decay} decays{more}"), out);
            cases.push(Case { exponentials: true, ..case });
        }
    }
}
