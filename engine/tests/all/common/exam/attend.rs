//! Cases of attention and of the cache.

use super::{Builder, Case, DType, matrix};
use ir_engine::device::KvKind;
use ir_engine::plan::{Attend, AttentionMask, KvShape, Lookup, OpKind, PAGE, Relative, Rows, Temperature};

/// Writes keys and values, then attends: what is stored shows in what is seen.
pub(super) fn attend(cases: &mut Vec<Case>) {
    for (rows, heads, kv_heads, k_dim, v_dim, window, cap) in [
        (1, 1, 1, 16, 16, None, None),
        (7, 4, 2, 64, 64, None, None),
        (70, 6, 2, 32, 48, None, None),
        (200, 8, 1, 128, 128, Some(20), None),
        (120, 3, 3, 80, 80, Some(1), None),
        (2, 2, 2, 64, 64, None, Some(0.5)),
        (90, 4, 1, 32, 32, Some(30), Some(0.25)),
    ] {
        let blocks = (k_dim % 32 == 0 && v_dim % 32 == 0).then_some(KvKind::Blocks8);
        for kv in [KvKind::F16, KvKind::F32].into_iter().chain(blocks) {
            let mut b = Builder::new(rows as u64, rows);
            let x = b.input(kv_heads * (k_dim + v_dim) + heads * k_dim);
            let layer = b.rec.kv_layer(KvShape { n_kv_heads: kv_heads, k_dim, v_dim, v_in_k: false });
            let k = b.rec.view(x, 0, kv_heads * k_dim).unwrap();
            let v = b.rec.view(x, kv_heads * k_dim, kv_heads * v_dim).unwrap();
            let q = b.rec.view(x, kv_heads * (k_dim + v_dim), heads * k_dim).unwrap();
            b.rec.kv_write(k, None, Some(v), layer).unwrap();
            let scale = 1.0 / (k_dim as f32).sqrt();
            let attend = Attend { cap, window, ..Attend::plain(layer, heads, scale) };
            let out = b.rec.attend(q, attend).unwrap();
            let name = format!(
                "{rows} rows, {heads}/{kv_heads} heads of {k_dim}/{v_dim}, window {window:?}, cap {cap:?}, {kv:?}"
            );
            cases.push(Case { kv, exponentials: true, ..b.case(OpKind::Attend, name, out) });
        }
    }
    let with = [(1, "slopes"), (60, "slopes"), (1, "sinks"), (60, "sinks"), (60, "temperature"), (90, "chunks")];
    for (rows, with) in with {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(3 * 4 * 16);
        let layer = b.rec.kv_layer(KvShape { n_kv_heads: 4, k_dim: 16, v_dim: 16, v_in_k: false });
        let [k, v, q] = [0, 64, 128].map(|at| b.rec.view(x, at, 64).unwrap());
        b.rec.kv_write(k, None, Some(v), layer).unwrap();
        let mut attend = Attend { window: Some(40), ..Attend::plain(layer, 4, 0.25) };
        match with {
            "slopes" => attend.slopes = Some(b.vector(4)),
            "sinks" => attend.sinks = Some(b.vector(4)),
            // The second run begins in the middle of a page.
            "chunks" => (attend.window, attend.chunk) = (None, Some(13)),
            _ => attend.temperature = Some(Temperature { factor: 0.5, length: 6.0, offset: 1.0 }),
        }
        let out = b.rec.attend(q, attend).unwrap();
        cases.push(Case { exponentials: true, ..b.case(OpKind::Attend, format!("{rows} rows, {with}"), out) });
    }
    // Both ways: several texts in a step, with and without a window.
    for (rows, window, with) in
        [(1, None, ""), (3, None, ""), (70, None, ""), (70, Some(16), ""), (90, Some(7), "slopes")]
    {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(3 * 4 * 16);
        let layer = b.rec.kv_layer(KvShape { n_kv_heads: 2, k_dim: 16, v_dim: 16, v_in_k: false });
        let [k, v, q] = [(0, 32), (64, 32), (128, 64)].map(|(at, n)| b.rec.view(x, at, n).unwrap());
        b.rec.kv_write(k, None, Some(v), layer).unwrap();
        let slopes = (with == "slopes").then(|| b.vector(4));
        let out = b
            .rec
            .attend(q, Attend { mask: AttentionMask::Bidirectional, window, slopes, ..Attend::plain(layer, 4, 0.25) })
            .unwrap();
        let name = format!("{rows} rows, both ways, window {window:?} {with}");
        cases.push(Case { exponentials: true, ..b.case(OpKind::Attend, name, out) });
    }
    // Summands by distance, in both directions and in one.
    for (rows, mask) in [(70, AttentionMask::Causal), (70, AttentionMask::Bidirectional)] {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(3 * 4 * 16);
        let layer = b.rec.kv_layer(KvShape { n_kv_heads: 4, k_dim: 16, v_dim: 16, v_in_k: false });
        let [k, v, q] = [0, 64, 128].map(|at| b.rec.view(x, at, 64).unwrap());
        b.rec.kv_write(k, None, Some(v), layer).unwrap();
        let relative = Some(Relative { weight: b.vector(8 * 4), buckets: 8, far: 16 });
        let out = b.rec.attend(q, Attend { mask, relative, ..Attend::plain(layer, 4, 1.0) }).unwrap();
        cases.push(Case { exponentials: true, ..b.case(OpKind::Attend, format!("relative, {mask:?}"), out) });
    }
    sources(cases);
    // Keys in two pieces, whose first elements are the values: what latent attention keeps.
    for (rows, kv) in [(1, KvKind::F16), (5, KvKind::F32), (70, KvKind::F16)] {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(24 + 8 + 4 * 32);
        let layer = b.rec.kv_layer(KvShape { n_kv_heads: 1, k_dim: 32, v_dim: 24, v_in_k: true });
        let [k, tail, q] = [(0, 24), (24, 8), (32, 128)].map(|(at, n)| b.rec.view(x, at, n).unwrap());
        b.rec.kv_write(k, Some(tail), None, layer).unwrap();
        let out = b.rec.attend(q, Attend::plain(layer, 4, 0.2)).unwrap();
        let name = format!("{rows} rows, values inside keys, {kv:?}");
        cases.push(Case { kv, exponentials: true, ..b.case(OpKind::Attend, name, out) });
    }
    // One row that sees one position gives its value back: `kv_write` alone, in both forms.
    for kv in [KvKind::F16, KvKind::F32] {
        let mut b = Builder::new(3, 5);
        let x = b.input(3 * 24);
        let layer = b.rec.kv_layer(KvShape { n_kv_heads: 1, k_dim: 24, v_dim: 24, v_in_k: false });
        let [k, v, q] = [0, 24, 48].map(|at| b.rec.view(x, at, 24).unwrap());
        b.rec.kv_write(k, None, Some(v), layer).unwrap();
        let attend = Attend { window: Some(1), ..Attend::plain(layer, 1, 1.0) };
        let out = b.rec.attend(q, attend).unwrap();
        cases.push(Case { kv, ..b.case(OpKind::KvWrite, format!("{kv:?}"), out) });
    }
}

/// Rows that see their source alone, and rows that begin behind it, with and without summands by distance.
fn sources(cases: &mut Vec<Case>) {
    for (rows, mask, with) in [
        (1, AttentionMask::Cross, ""),
        (7, AttentionMask::Cross, ""),
        (90, AttentionMask::Cross, ""),
        (2, AttentionMask::Causal, ""),
        (70, AttentionMask::Causal, "relative"),
    ] {
        let mut b = Builder::new(rows as u64, rows);
        // Something reads sources, which are of different lengths.
        let table = matrix(&mut b.rec, &mut b.random, [DType::F32; 2], 40, 8);
        b.rec.only_with(Rows::Sources, |rec| rec.embed(table, Lookup::Token)).unwrap();
        b.inputs.sources = match mask {
            AttentionMask::Cross => b.inputs.ends().iter().map(|end| (end * 2).div_ceil(3)).collect(),
            _ => vec![3, 0, 30],
        };
        if mask == AttentionMask::Causal {
            let inputs = &mut b.inputs;
            for (position, seq) in inputs.positions.iter_mut().zip(&inputs.seqs) {
                *position += inputs.sources[*seq as usize];
            }
            let n_pages = (rows + 30).div_ceil(PAGE) as u32;
            inputs.tables = (0..3).map(|seq| (seq * n_pages..(seq + 1) * n_pages).rev().collect()).collect();
        }
        let x = b.input(3 * 4 * 16);
        let layer = b.rec.kv_layer(KvShape { n_kv_heads: 2, k_dim: 16, v_dim: 16, v_in_k: false });
        let [k, v, q] = [(0, 32), (64, 32), (128, 64)].map(|(at, n)| b.rec.view(x, at, n).unwrap());
        b.rec.kv_write(k, None, Some(v), layer).unwrap();
        let relative = (with == "relative").then(|| Relative { weight: b.vector(8 * 4), buckets: 8, far: 16 });
        let out = b.rec.attend(q, Attend { mask, relative, ..Attend::plain(layer, 4, 0.25) }).unwrap();
        let name = format!("{rows} rows, sources, {mask:?} {with}");
        cases.push(Case { exponentials: true, ..b.case(OpKind::Attend, name, out) });
    }
}
