//! Lowering of rotations and cache writes, and of the kernel that does a whole group of them. No device here.

use super::{ANY, Lowering, WG};
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::plan::{Entry, KvShape, Op, RopeStyle, Rows, Slot, View, WeightId};

/// A rope, perhaps with a norm in front: `[norm] rope`.
struct Turn {
    view: View,
    norm: Option<(WeightId, f32, Slot)>,
    head_dim: usize,
    rope: usize,
}

impl Lowering<'_> {
    pub(super) fn rope(&self, x: View, head_dim: usize, rope: usize) -> Dispatch {
        let table = &self.plan.ropes[rope];
        let (pairs, heads) = (table.inv_freq.len(), x.cols / head_dim);
        Dispatch {
            key: Key { kernel: "rope", features: vec![], consts: vec![("WG", WG)] },
            bindings: vec![("freqs", Resource::Freqs(rope)), ("x", self.buffer(x.slot))],
            params: vec![
                ("start", x.start as u32),
                ("stride", self.plan.slot(x.slot).cols as u32),
                ("n_heads", heads as u32),
                ("head_dim", head_dim as u32),
                ("n_pairs", pairs as u32),
                ("halves", u32::from(table.style == RopeStyle::Halves)),
                ("magnitude", table.magnitude.to_bits()),
            ],
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: pairs * heads, per: WG as usize },
            when: (Rows::Tokens, ANY),
            op: 0,
            work: 0,
        }
    }

    /// `[norm q] [norm k] rope q, rope k, kv_write` in one kernel; gives the number of ops.
    pub(super) fn rope_kv(&self, ops: &[Entry], out: &mut Vec<Dispatch>) -> Option<usize> {
        let normed = ops.iter().take_while(|e| e.op.kind() == crate::plan::OpKind::Norm).count();
        if !matches!(normed, 0 | 2) || ops.len() < normed + 3 {
            return None;
        }
        let turn = |norm: Option<&Entry>, rope: &Entry| -> Option<Turn> {
            let Op::Rope { x, head_dim, rope } = rope.op else { return None };
            let whole = x.start == 0 && x.cols == self.plan.slot(x.slot).cols;
            match norm.map(|n| n.op) {
                None => Some(Turn { view: x, norm: None, head_dim, rope }),
                Some(Op::Norm { x: from, weight, eps, group, out, .. })
                    if out == x.slot && whole && group == head_dim =>
                {
                    Some(Turn { view: from, norm: Some((weight, eps, out)), head_dim, rope })
                }
                Some(_) => None,
            }
        };
        let norms = |i: usize| (normed == 2).then(|| &ops[i]);
        let (q, k) = (turn(norms(0), &ops[normed])?, turn(norms(1), &ops[normed + 1])?);
        let Op::KvWrite { k: stored, v, layer } = ops[normed + 2].op else { return None };
        let KvShape { n_kv_heads, k_dim, v_dim } = self.plan.kv[layer];
        let k_view = k.norm.map_or(k.view, |(_, _, out)| View { slot: out, start: 0, cols: k.view.cols });
        let one_slot = q.view.slot == k.view.slot && v.slot == k.view.slot;
        if !one_slot || q.head_dim != k_dim || k.head_dim != k_dim || q.rope != k.rope || stored != k_view {
            return None;
        }
        let (slot, table) = (q.view.slot, &self.plan.ropes[q.rope]);
        let mut features = self.kv_features();
        let mut bindings = vec![
            ("freqs", Resource::Freqs(q.rope)),
            ("qkv", self.buffer(slot)),
            ("k_pages", Resource::KPages(layer)),
            ("v_pages", Resource::VPages(layer)),
        ];
        let mut eps = 0.0;
        if let (Some((q_norm, q_eps, q_out)), Some((k_norm, k_eps, k_out))) = (q.norm, k.norm) {
            if q_eps != k_eps {
                return None;
            }
            eps = q_eps;
            features.push("QK_NORM");
            if self.forms.subgroups {
                features.push("SUBGROUPS");
            }
            let norms = Resource::Vectors(q_norm, k_norm);
            bindings.extend([("q_out", self.buffer(q_out)), ("k_out", self.buffer(k_out)), ("qk_norm", norms)]);
        }
        let n_heads = q.view.cols / k_dim;
        let dim = k_dim.max(v_dim).next_multiple_of(4) as u32;
        out.push(Dispatch {
            key: Key { kernel: "rope_kv", features, consts: vec![("WG", WG), ("DIM", dim)] },
            bindings,
            params: vec![
                ("stride", self.plan.slot(slot).cols as u32),
                ("q_start", q.view.start as u32),
                ("k_start", k.view.start as u32),
                ("v_start", v.start as u32),
                ("n_heads", n_heads as u32),
                ("n_kv_heads", n_kv_heads as u32),
                ("head_dim", k_dim as u32),
                ("v_dim", v_dim as u32),
                ("n_pairs", table.inv_freq.len() as u32),
                ("halves", u32::from(table.style == RopeStyle::Halves)),
                ("magnitude", table.magnitude.to_bits()),
                ("eps", eps.to_bits()),
            ],
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: n_heads + 2 * n_kv_heads, per: 1 },
            when: (Rows::Tokens, ANY),
            op: 0,
            work: 0,
        });
        Some(normed + 3)
    }

    pub(super) fn kv_write(&self, k: View, v: View, layer: usize) -> Dispatch {
        let KvShape { n_kv_heads, k_dim, v_dim } = self.plan.kv[layer];
        let quads = k_dim.div_ceil(4) + v_dim.div_ceil(4);
        Dispatch {
            key: Key { kernel: "kv_write", features: self.kv_features(), consts: vec![("WG", WG)] },
            bindings: vec![
                ("k", self.buffer(k.slot)),
                ("v", self.buffer(v.slot)),
                ("k_pages", Resource::KPages(layer)),
                ("v_pages", Resource::VPages(layer)),
            ],
            params: vec![
                ("k_start", k.start as u32),
                ("k_stride", self.plan.slot(k.slot).cols as u32),
                ("v_start", v.start as u32),
                ("v_stride", self.plan.slot(v.slot).cols as u32),
                ("n_kv_heads", n_kv_heads as u32),
                ("k_dim", k_dim as u32),
                ("v_dim", v_dim as u32),
            ],
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: quads * n_kv_heads, per: WG as usize },
            when: (Rows::Tokens, ANY),
            op: 0,
            work: 0,
        }
    }
}
