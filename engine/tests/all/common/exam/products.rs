//! Cases of `linear`: every norm in front of a product, every vector beside it, and everything that may happen then.

use ir_engine::device::KvKind;
use ir_engine::dtype::DType;
use ir_engine::plan::{
    Act, Attend, Gated, Heads, KvShape, Norm, NormKind, OpKind, Product, Recorder, RopeStyle, RopeTable, Slot, WeightId,
};

use super::{Builder, Case, matrix};

/// Columns of the products' inputs.
const K: usize = 96;
/// Columns of the products: halves of 38.
const N: usize = 76;

/// What may stand in front of a product.
fn front(b: &mut Builder, which: usize) -> Option<Norm> {
    let (kind, group) = match which {
        0 => return None,
        1 | 2 => (NormKind::Rms, K),
        3 => (NormKind::Rms, K / 3),
        4 => (NormKind::Layer, K),
        _ => (NormKind::Layer, K / 2),
    };
    let weight = match which {
        2 => None,
        3 => Some(b.vector(group)),
        _ => Some(b.vector(K)),
    };
    let bias = (which >= 4).then(|| b.vector(K));
    Some(Norm { kind, eps: 1e-5, group, weight, bias })
}

/// What may happen behind a product.
#[derive(Debug, Clone, Copy)]
enum Back {
    Store,
    Add(f32),
    Act(Act),
    Glu(Gated),
}

fn backs() -> Vec<Back> {
    let mut all = vec![Back::Store, Back::Add(1.0), Back::Add(-0.375)];
    all.extend(Act::ALL.iter().map(|act| Back::Act(*act)));
    all.extend(Act::ALL.iter().map(|act| Back::Glu(Gated::plain(*act))));
    all.push(Back::Glu(Gated { act: Act::GeluQuick, limit: 1.5, limits_result: false, up_offset: 1.0 }));
    all
}

/// How many sums are multiplied in the result.
fn powers(back: Back) -> f64 {
    let of = |act: Act| if act == Act::ReluSquared { 2.0 } else { 1.0 };
    match back {
        Back::Store | Back::Add(_) => 1.0,
        Back::Act(act) => of(act),
        Back::Glu(gated) => 1.0 + of(gated.act),
    }
}

/// Records the product and what happens then; gives the slot to compare.
fn record(b: &mut Builder, x: Slot, product: Product, back: Back) -> Slot {
    match back {
        Back::Store => b.rec.linear(x, product).unwrap(),
        Back::Add(factor) => {
            let to = b.input(N);
            b.rec.linear_add(x, product, to, factor).unwrap();
            to
        }
        Back::Act(act) => b.rec.linear_act(x, product, act).unwrap(),
        Back::Glu(gated) => b.rec.linear_glu(x, product, gated).unwrap(),
    }
}

pub(super) fn products(cases: &mut Vec<Case>) {
    for (i, back) in backs().into_iter().enumerate() {
        for (j, rows) in [1, 5, 12, 40].into_iter().enumerate() {
            let mut b = Builder::new((7 * i + j) as u64, rows);
            let x = b.input(K);
            let dtype = [DType::F32, DType::Q8_0, DType::F16, DType::Q4_1][(i + 3 * j) % 4];
            // Two segments of one type, and now and then of two: their halves then come from different parts.
            let other = if (i + j) % 5 == 0 { DType::F16 } else { dtype };
            let weight = matrix(&mut b.rec, &mut b.random, [dtype, other], N, K);
            let norm = front(&mut b, (i + j) % 6);
            let scale = ((i + j) % 3 == 0).then(|| b.vector(N));
            let bias = ((i + j) % 2 == 1).then(|| b.vector(N));
            let out = record(&mut b, x, Product { weight, norm, scale, bias }, back);
            let shown = norm.map(|n| (n.kind, n.group, n.weight.is_some()));
            let beside = (scale.map(|_| "scale"), bias.map(|_| "bias"));
            let name = format!("{dtype}+{other}, {rows} rows, norm {shown:?}, {beside:?}, {back:?}");
            let case = b.case(OpKind::Linear, name, out);
            cases.push(Case { dtype: Some(dtype), exponentials: true, powers: powers(back), ..case });
        }
    }
}

/// Heads of queries, keys and values: how many, how wide, and what is done to them.
struct Shape {
    n_heads: usize,
    kv: KvShape,
    what: &'static str,
}

fn shape(n_heads: usize, n_kv_heads: usize, k_dim: usize, v_dim: usize, what: &'static str) -> Shape {
    Shape { n_heads, kv: KvShape { n_kv_heads, k_dim, v_dim, v_in_k: false }, what }
}

fn rope(rec: &mut Recorder, style: RopeStyle, pairs: usize) -> usize {
    // A file's factors may turn some the other way.
    let sign = |i: usize| if i % 3 == 2 { -1.0 } else { 1.0 };
    let inv_freq = (0..pairs).map(|i| sign(i) * 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
    rec.rope_table(RopeTable { style, inv_freq, magnitude: 1.125, long: None })
}

fn norm(kind: NormKind, group: usize, weight: Option<WeightId>, bias: Option<WeightId>) -> Option<Norm> {
    Some(Norm { kind, eps: 1e-5, group, weight, bias })
}

/// What is done to the heads of a shape.
fn heads_of(b: &mut Builder, shape: &Shape, layer: usize) -> Heads {
    let Shape { n_heads, kv: KvShape { n_kv_heads, k_dim, v_dim, .. }, what } = *shape;
    let mut heads = Heads {
        layer,
        n_heads,
        clamp: None,
        q_norm: None,
        k_norm: None,
        v_norm: None,
        rope: None,
        norms_after_rope: false,
    };
    match what {
        "rope" => heads.rope = Some(rope(&mut b.rec, RopeStyle::Halves, k_dim / 2)),
        "some elements" => heads.rope = Some(rope(&mut b.rec, RopeStyle::Interleaved, k_dim / 4)),
        "halves of some elements" => heads.rope = Some(rope(&mut b.rec, RopeStyle::Halves, k_dim / 4)),
        "nothing" => {}
        "clamp" => {
            heads.clamp = Some(1.5);
            heads.rope = Some(rope(&mut b.rec, RopeStyle::Halves, k_dim / 2));
        }
        "norms by head" => {
            heads.q_norm = norm(NormKind::Rms, k_dim, Some(b.vector(k_dim)), None);
            heads.k_norm = norm(NormKind::Rms, k_dim, Some(b.vector(k_dim)), None);
            heads.rope = Some(rope(&mut b.rec, RopeStyle::Halves, k_dim / 2));
        }
        "norms behind the rotation" => {
            heads.q_norm = norm(NormKind::Rms, k_dim, Some(b.vector(k_dim)), None);
            heads.k_norm = norm(NormKind::Rms, k_dim, Some(b.vector(k_dim)), None);
            heads.rope = Some(rope(&mut b.rec, RopeStyle::Halves, k_dim / 2));
            heads.norms_after_rope = true;
        }
        "one norm" => {
            heads.k_norm = norm(NormKind::Rms, k_dim, None, None);
            heads.rope = Some(rope(&mut b.rec, RopeStyle::Interleaved, k_dim / 2));
        }
        "norms of all columns" => {
            let (q, k) = (n_heads * k_dim, n_kv_heads * k_dim);
            heads.q_norm = norm(NormKind::Rms, q, Some(b.vector(q)), None);
            heads.k_norm = norm(NormKind::Rms, k, Some(b.vector(k)), None);
            heads.rope = Some(rope(&mut b.rec, RopeStyle::Halves, k_dim / 2));
        }
        "three norms" => {
            let (q, k) = (n_heads * k_dim, n_kv_heads * k_dim);
            heads.q_norm = norm(NormKind::Layer, k_dim, Some(b.vector(q)), Some(b.vector(q)));
            heads.k_norm = norm(NormKind::Layer, k_dim, Some(b.vector(k)), None);
            heads.v_norm = norm(NormKind::Rms, v_dim, None, None);
            heads.rope = Some(rope(&mut b.rec, RopeStyle::Halves, k_dim / 2));
        }
        other => panic!("no heads with {other}"),
    }
    heads
}

/// Products of queries, keys and values, and attention over them: what was made ready and stored shows in what is seen.
/// The cache is f32: sums in another order would decide which of two halves, 2^-11 apart, an element becomes.
pub(super) fn heads(cases: &mut Vec<Case>) {
    let shapes = [
        shape(4, 2, 16, 16, "rope"),
        shape(3, 1, 24, 20, "some elements"),
        shape(2, 2, 16, 16, "nothing"),
        shape(4, 2, 32, 16, "halves of some elements"),
        shape(4, 1, 32, 32, "clamp"),
        shape(4, 2, 32, 32, "norms by head"),
        shape(4, 2, 16, 16, "norms behind the rotation"),
        shape(2, 1, 20, 20, "one norm"),
        shape(4, 2, 16, 16, "norms of all columns"),
        shape(4, 2, 24, 12, "three norms"),
    ];
    for (i, shape) in shapes.iter().enumerate() {
        for (j, rows) in [1, 6, 50].into_iter().enumerate() {
            let mut b = Builder::new((11 * i + j) as u64, rows);
            let x = b.input(K);
            let Shape { n_heads, kv, what } = *shape;
            let cols = n_heads * kv.k_dim + kv.n_kv_heads * (kv.k_dim + kv.v_dim);
            // Blocks have a form for bytes, too.
            let dtype = if i == 0 { DType::Q8_0 } else { DType::F16 };
            let weight = matrix(&mut b.rec, &mut b.random, [dtype; 2], cols, K);
            let layer = b.rec.kv_layer(kv);
            let heads = heads_of(&mut b, shape, layer);
            let norm = front(&mut b, [1, 0, 4][j]);
            let bias = (i % 2 == 1).then(|| b.vector(cols));
            let q = b.rec.linear_heads(x, Product { weight, norm, scale: None, bias }, heads).unwrap();
            let scale = 0.3 / (kv.k_dim as f32).sqrt();
            let out = b.rec.attend(q, Attend::plain(layer, n_heads, scale)).unwrap();
            let case = b.case(OpKind::Linear, format!("{rows} rows, heads of {kv:?} with {what}"), out);
            cases.push(Case { kv: KvKind::F32, exponentials: true, dtype: Some(dtype), ..case });
        }
    }
}
