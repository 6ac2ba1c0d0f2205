//! Lowering of what is done to queries, keys and values: all of it behind a product, and rotations and cache writes alone.
//! No device here.

use std::ops::RangeInclusive;

use super::{ANY, Lowering, WG};
use crate::error::Result;
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::gpu::parts::Part;
use crate::plan::{Heads, KvKind, KvShape, Norm, NormKind, RopeStyle, Rows, Slot, View};

/// Columns of a head for which the kernel has workgroup memory.
const MOST_DIM: usize = 2048;

/// Names of the parameters of a norm in the kernel `heads`: of queries, keys and values.
const NORM_PARAMS: [[&str; 3]; 3] =
    [["q_eps", "q_norm", "q_step"], ["k_eps", "k_norm", "k_step"], ["v_eps", "v_norm", "v_step"]];

/// Whether the kernel `heads` has this norm of heads of `dim` columns.
fn by_head(norm: &Norm, dim: usize) -> bool {
    let Norm { kind, eps: _, group, weight: _, bias } = norm;
    *kind == NormKind::Rms && *group == dim && bias.is_none()
}

/// What a kernel of products is given so that it ends with heads.
pub(super) struct InProduct {
    pub features: Vec<&'static str>,
    pub bindings: Vec<(&'static str, Resource)>,
    pub params: Vec<(&'static str, u32)>,
}

impl Lowering<'_> {
    /// How a product of few rows, whose parts are these, ends with heads. A workgroup there has two pairs of columns. Norms, and
    /// the scales of an 8-bit cache, need more of a head: with the form `heads` the last workgroup that has columns of one makes
    /// it ready. `None` where there is no such form, or a part begins inside a head.
    pub(super) fn in_product(&self, heads: &Heads, parts: &[Part]) -> Option<InProduct> {
        let Heads { layer, n_heads, clamp, q_norm, k_norm, v_norm, rope, norms_after_rope } = *heads;
        let KvShape { n_kv_heads, k_dim, v_dim, v_in_k } = self.plan.kv[layer];
        let v_start = (n_heads + n_kv_heads) * k_dim;
        let whole = |column: usize| match column.checked_sub(v_start) {
            Some(column) => column.is_multiple_of(v_dim),
            None => column.is_multiple_of(k_dim),
        };
        let pairs = rope.map_or(0, |rope| self.plan.ropes[rope].inv_freq.len());
        let cut = parts.iter().flat_map(Part::joined).any(|r| !whole(r.row) || !whole(r.row + r.n));
        let norms = [q_norm, k_norm, v_norm];
        let normed = norms.iter().any(Option::is_some);
        let odd = !k_dim.is_multiple_of(4) || !v_dim.is_multiple_of(4) || !pairs.is_multiple_of(2);
        if cut || odd || v_in_k || v_dim == 0 {
            return None;
        }
        let whole = normed || self.kv == KvKind::Blocks8;
        let dims = [k_dim, k_dim, v_dim];
        let foreign = norms.iter().zip(dims).any(|(norm, dim)| norm.is_some_and(|norm| !by_head(&norm, dim)));
        if whole && (!self.forms.heads || foreign || (normed && norms_after_rope)) {
            return None;
        }
        let mut features = self.kv_features();
        features.push("QKV");
        if clamp.is_some() {
            features.push("CLAMP");
        }
        let mut params = vec![
            ("limit", clamp.unwrap_or(0.0).to_bits()),
            ("n_heads", n_heads as u32),
            ("n_kv_heads", n_kv_heads as u32),
            ("head_dim", k_dim as u32),
            ("v_dim", v_dim as u32),
            ("tables", self.tables(layer)),
        ];
        params.extend(self.rotation(rope));
        let mut bindings = vec![("k_pages", Resource::KPages(layer)), ("v_pages", Resource::VPages(layer))];
        if whole {
            features.push("COHERENT");
            bindings.push(("finished", Resource::Finished));
            params.extend(self.head_norms(norms));
        }
        Some(InProduct { features, bindings, params })
    }

    /// Queries, keys and values that lie in `slot`, in steps of so many rows. Norms that the kernel lacks, that take more columns
    /// than a head, or that come behind the rotation are dispatches of their own, and with them what stands in front of them.
    pub(super) fn heads(
        &self,
        heads: &Heads,
        slot: Slot,
        when: RangeInclusive<usize>,
        out: &mut Vec<Dispatch>,
    ) -> Result<()> {
        let Heads { layer, n_heads, clamp, q_norm, k_norm, v_norm, rope, norms_after_rope } = *heads;
        let KvShape { n_kv_heads, k_dim, v_dim, v_in_k: _ } = self.plan.kv[layer];
        if k_dim.max(v_dim) > MOST_DIM {
            return Err(Lowering::too_large(format!("attention heads of {} elements", k_dim.max(v_dim))));
        }
        let parts = [(q_norm, n_heads, k_dim), (k_norm, n_kv_heads, k_dim), (v_norm, n_kv_heads, v_dim)];
        let late = norms_after_rope && parts.iter().any(|part| part.0.is_some());
        let apart = late || parts.iter().any(|(norm, _, dim)| norm.is_some_and(|norm| !by_head(&norm, *dim)));
        if apart {
            if let Some(clamp) = clamp {
                out.push(self.elementwise("clamp", &[], &[("x", slot)], slot, &[("limit", clamp.to_bits())]));
            }
            if let Some(rope) = rope.filter(|_| late) {
                let view = View { slot, start: 0, cols: (n_heads + n_kv_heads) * k_dim };
                out.push(self.rope(view, k_dim, 0, rope));
            }
            let mut start = 0;
            for (norm, n, dim) in parts {
                let view = View { slot, start, cols: n * dim };
                out.extend(norm.map(|norm| self.norm(view, &norm, view, ANY)));
                start += n * dim;
            }
        }
        let (clamp, norms) = if apart { (None, [None; 3]) } else { (clamp, [q_norm, k_norm, v_norm]) };
        let mut features = self.kv_features();
        if clamp.is_some() {
            features.push("CLAMP");
        }
        if norms.iter().any(Option::is_some) {
            features.push("NORM");
            if self.forms.subgroups {
                features.push("SUBGROUPS");
            }
        }
        let mut params = vec![
            ("stride", self.plan.slot(slot).cols as u32),
            ("n_heads", n_heads as u32),
            ("n_kv_heads", n_kv_heads as u32),
            ("head_dim", k_dim as u32),
            ("v_dim", v_dim as u32),
            ("limit", clamp.unwrap_or(0.0).to_bits()),
            ("tables", self.tables(layer)),
        ];
        params.extend(self.head_norms(norms));
        params.extend(self.rotation(rope.filter(|_| !late)));
        let dim = k_dim.max(v_dim).next_multiple_of(4) as u32;
        out.push(Dispatch {
            key: Key { kernel: "heads", features, consts: vec![("WG", WG), ("DIM", dim)] },
            bindings: vec![
                ("qkv", self.buffer(slot)),
                ("k_pages", Resource::KPages(layer)),
                ("v_pages", Resource::VPages(layer)),
            ],
            params,
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: n_heads + 2 * n_kv_heads, per: 1 },
            when: (Rows::Tokens, when),
            op: 0,
            work: 0,
        });
        Ok(())
    }

    /// Parameters of the norms of single heads of queries, keys and values.
    fn head_norms(&self, norms: [Option<Norm>; 3]) -> Vec<(&'static str, u32)> {
        let mut params = vec![("norms", (0..3).map(|i| u32::from(norms[i].is_some()) << i).sum())];
        for (norm, names) in norms.into_iter().zip(NORM_PARAMS) {
            let weight = norm.and_then(|norm| norm.weight);
            let values = [
                norm.map_or(0, |norm| norm.eps.to_bits()),
                self.constants.word(weight),
                norm.map_or(0, |norm| self.step(weight, norm.group)),
            ];
            params.extend(names.into_iter().zip(values));
        }
        params
    }

    /// Parameters of a rotation; none turns no pairs.
    fn rotation(&self, rope: Option<usize>) -> [(&'static str, u32); 4] {
        let table = rope.map(|rope| &self.plan.ropes[rope]);
        [
            ("n_pairs", table.map_or(0, |t| t.inv_freq.len() as u32)),
            ("halves", table.map_or(0, |t| u32::from(t.style == RopeStyle::Halves))),
            ("magnitude", table.map_or(1.0, |t| t.magnitude).to_bits()),
            ("freqs_at", rope.map_or(0, |rope| self.constants.rope_word(rope))),
        ]
    }

    /// Turns heads of a view, each from its element `first` on.
    pub(super) fn rope(&self, x: View, head_dim: usize, first: usize, rope: usize) -> Dispatch {
        let (pairs, heads) = (self.plan.ropes[rope].inv_freq.len(), x.cols / head_dim);
        let view = [
            ("start", x.start as u32),
            ("stride", self.plan.slot(x.slot).cols as u32),
            ("n_heads", heads as u32),
            ("head_dim", head_dim as u32),
            ("first", first as u32),
        ];
        Dispatch {
            key: Key { kernel: "rope", features: vec![], consts: vec![("WG", WG)] },
            bindings: vec![("x", self.buffer(x.slot))],
            params: [&view[..], &self.rotation(Some(rope))].concat(),
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: pairs * heads, per: WG as usize },
            when: (Rows::Tokens, ANY),
            op: 0,
            work: 0,
        }
    }

    pub(super) fn kv_write(&self, k: View, tail: Option<View>, v: Option<View>, layer: usize) -> Dispatch {
        let KvShape { n_kv_heads, k_dim, v_dim, v_in_k: _ } = self.plan.kv[layer];
        let mut features = self.kv_features();
        let mut bindings = vec![("k", self.buffer(k.slot)), ("k_pages", Resource::KPages(layer))];
        let stride = |view: View| self.plan.slot(view.slot).cols as u32;
        let mut params = vec![
            ("k_start", k.start as u32),
            ("k_stride", stride(k)),
            ("n_kv_heads", n_kv_heads as u32),
            ("k_dim", k_dim as u32),
            ("k_cols", (k_dim - tail.map_or(0, |tail| tail.cols)) as u32),
        ];
        if let Some(tail) = tail {
            features.push("TAIL");
            bindings.push(("tail", self.buffer(tail.slot)));
            params.extend([("tail_start", tail.start as u32), ("tail_stride", stride(tail))]);
        }
        match v {
            Some(v) => {
                bindings.extend([("v", self.buffer(v.slot)), ("v_pages", Resource::VPages(layer))]);
                params.extend([("v_start", v.start as u32), ("v_stride", stride(v)), ("v_dim", v_dim as u32)]);
            }
            None => features.push("V_IN_K"),
        }
        params.push(("tables", self.tables(layer)));
        let quads = k_dim.div_ceil(4) + v.map_or(0, |_| v_dim.div_ceil(4));
        // Eight quads have a scale in common.
        let units = if self.kv == KvKind::Blocks8 { quads / 8 } else { quads };
        Dispatch {
            key: Key { kernel: "kv_write", features, consts: vec![("WG", WG)] },
            bindings,
            params,
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: units * n_kv_heads, per: WG as usize },
            when: (Rows::Tokens, ANY),
            op: 0,
            work: 0,
        }
    }
}
