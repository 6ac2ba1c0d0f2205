//! Cases of attention to keys with common ends, and to positions that an index chooses.

use ir_engine::device::KvKind;
use ir_engine::plan::{Act, Attend, KvShape, OpKind};

use super::{Builder, Case};

/// Keys of several heads whose last elements are the same.
pub(super) fn common_ends(cases: &mut Vec<Case>) {
    for rows in [1, 40] {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(3 * 12 + 4 + 3 * 20 + 3 * 16);
        let layer = b.rec.kv_layer(KvShape { n_kv_heads: 3, k_dim: 16, v_dim: 20, v_in_k: false });
        let [k, tail, v, q] = [(0, 36), (36, 4), (40, 60), (100, 48)].map(|(at, n)| b.rec.view(x, at, n).unwrap());
        b.rec.kv_write(k, Some(tail), Some(v), layer).unwrap();
        let out = b.rec.attend(q, Attend::plain(layer, 3, 0.25)).unwrap();
        cases.push(Case { exponentials: true, ..b.case(OpKind::Attend, format!("{rows} rows, common ends"), out) });
    }
}

/// What was chosen shows in what is seen.
pub(super) fn select(cases: &mut Vec<Case>) {
    // Of 150 positions fewer than 120 are alike to a row at all: of the others the first.
    for (rows, top) in [(1, 4), (60, 5), (240, 16), (450, 120)] {
        let mut b = Builder::new(rows as u64, rows);
        let (x, index) = (b.input(3 * 64), b.input(16 + 2 * 16 + 2));
        let keys = b.rec.kv_layer(KvShape { n_kv_heads: 1, k_dim: 16, v_dim: 16, v_in_k: true });
        let [k, q, weights] = [(0, 16), (16, 32), (48, 2)].map(|(at, n)| b.rec.view(index, at, n).unwrap());
        b.rec.act(weights, Act::Sigmoid, None, None).unwrap();
        b.rec.kv_write(k, None, None, keys).unwrap();
        let chosen = Some(b.rec.select(q, weights, keys, top).unwrap());
        let layer = b.rec.kv_layer(KvShape { n_kv_heads: 2, k_dim: 32, v_dim: 32, v_in_k: false });
        let [k, v, q] = [0, 64, 128].map(|at| b.rec.view(x, at, 64).unwrap());
        b.rec.kv_write(k, None, Some(v), layer).unwrap();
        let out = b.rec.attend(q, Attend { chosen, ..Attend::plain(layer, 2, 0.2) }).unwrap();
        let case = b.case(OpKind::Select, format!("{top} of up to {rows} positions"), out);
        cases.push(Case { kv: KvKind::F32, exponentials: true, ..case });
    }
}
