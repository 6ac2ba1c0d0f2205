//! Lowering of attention: single rows split over their positions, tiles of rows, and rows for which positions are chosen. No
//! device here.

use super::{ANY, Lowering};
use crate::error::Result;
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::plan::{AttentionMask, KvShape, Relative, Rows, Slot, Temperature, View, WeightId};

/// Quads of workgroup memory for the query heads of a workgroup, and for a tile of K or V: 8 KiB.
const QUADS: usize = 512;

/// The op's own fields.
pub(super) struct Attend {
    pub q: View,
    pub layer: usize,
    pub n_heads: usize,
    pub scale: f32,
    pub cap: Option<f32>,
    pub mask: AttentionMask,
    pub window: Option<u32>,
    pub chunk: Option<u32>,
    pub chosen: Option<Slot>,
    pub temperature: Option<Temperature>,
    pub slopes: Option<WeightId>,
    pub relative: Option<Relative>,
    pub sinks: Option<WeightId>,
    pub to: Slot,
}

/// Dispatches of `attend`.
pub(super) fn attend(lowering: &Lowering<'_>, op: &Attend, out: &mut Vec<Dispatch>) -> Result<()> {
    let Attend { q, layer, n_heads, chosen, to, .. } = *op;
    let KvShape { n_kv_heads, k_dim, v_dim, v_in_k } = lowering.plan.kv[layer];
    let (kq, vq) = (k_dim.div_ceil(4), v_dim.div_ceil(4));
    if kq.max(vq) > 256 {
        return Err(Lowering::too_large(format!("attention heads of {} elements", k_dim.max(v_dim))));
    }
    // Query heads of a workgroup: up to 8 of those that share a KV head, in equal blocks.
    let per_kv = n_heads / n_kv_heads;
    let blocks = per_kv.div_ceil((QUADS / kq).clamp(1, 8));
    let group = per_kv.div_ceil(blocks);
    let wg = ir_shaders::attend_vec_workgroup(kq as u32, vq as u32, group as u32, chosen.is_some());
    let when = (Rows::Tokens, ANY);
    let (mut features, mut params) = lowering.scores(op);
    params.extend([
        ("q_start", q.start as u32),
        ("q_stride", lowering.plan.slot(q.slot).cols as u32),
        ("k_dim", k_dim as u32),
        ("v_dim", v_dim as u32),
        ("n_heads", n_heads as u32),
        ("n_kv_heads", n_kv_heads as u32),
        ("n_blocks", blocks as u32),
        ("tables", lowering.tables(layer)),
    ]);
    let mut bindings =
        vec![("q", lowering.buffer(q.slot)), ("k_pages", Resource::KPages(layer)), ("out", lowering.buffer(to))];
    if v_in_k {
        features.push("V_IN_K");
    } else {
        bindings.push(("v_pages", Resource::VPages(layer)));
    }
    let quads = [("KQ", kq as u32), ("VQ", vq as u32)];
    let consts = [&[("WG", wg)][..], &quads, &[("GROUP", group as u32)]].concat();
    if let Some(chosen) = chosen {
        features.push("CHOSEN");
        bindings.push(("chosen", lowering.buffer(chosen)));
        params.push(("top", lowering.plan.slot(chosen).cols as u32));
        out.push(Dispatch {
            key: Key { kernel: "attend_vec", features, consts },
            bindings,
            params,
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: n_kv_heads * blocks, per: 1 },
            when,
            op: 0,
            work: 0,
        });
        return Ok(());
    }
    // What says which positions a row sees, and what takes part in the softmax beside them.
    let of_merge = ["SINKS", "BOTH", "CROSS", "CHUNK", "SOURCE"];
    let merged = features.iter().copied().filter(|feature| of_merge.contains(feature)).collect();
    let (mut of_rows, mut scratch) = (features.clone(), vec![("parts", Resource::Splits)]);
    if lowering.forms.coherent {
        of_rows.push("COHERENT");
        scratch.push(("finished", Resource::Finished));
    }
    out.push(Dispatch {
        key: Key { kernel: "attend_vec", features: of_rows, consts },
        bindings: [&bindings[..], &scratch].concat(),
        params: params.clone(),
        grid: Grid { count: Count::Singles, block: 1, times: n_kv_heads * blocks, per: 1 },
        when: when.clone(),
        op: 0,
        work: 0,
    });
    if !lowering.forms.coherent {
        out.push(Dispatch {
            key: Key { kernel: "attend_merge", features: merged, consts: vec![("WG", 64)] },
            bindings: vec![("parts", Resource::Splits), ("out", lowering.buffer(to))],
            params: params.clone(),
            grid: Grid { count: Count::Merged, block: 1, times: n_heads, per: 1 },
            when: when.clone(),
            op: 0,
            work: 0,
        });
    }
    let tile = (QUADS / kq.max(vq)).clamp(1, 16) as u32;
    out.push(Dispatch {
        key: Key { kernel: "attend_tile", features, consts: [&quads[..], &[("KT", tile)]].concat() },
        bindings,
        params,
        grid: Grid { count: Count::Tiles, block: 1, times: n_heads, per: 1 },
        when,
        op: 0,
        work: 0,
    });
    Ok(())
}

impl Lowering<'_> {
    /// What is done to scores, and which positions a row sees: features and parameters.
    fn scores(&self, op: &Attend) -> (Vec<&'static str>, Vec<(&'static str, u32)>) {
        let Attend { scale, cap, mask, window, chunk, temperature, slopes, relative, sinks, .. } = *op;
        let (both, cross) = match mask {
            AttentionMask::Causal => (false, false),
            AttentionMask::Bidirectional => (true, false),
            AttentionMask::Cross => (false, true),
        };
        let mut params = vec![
            ("window", window.map_or(u32::MAX, |window| if both { window / 2 } else { window })),
            ("scale", scale.to_bits()),
            ("cap", cap.unwrap_or(1.0).to_bits()),
            ("slopes_at", self.constants.word(slopes)),
            ("sinks_at", self.constants.word(sinks)),
        ];
        let heat = temperature.map_or([0.0; 3], |Temperature { factor, length, offset }| [factor, length, offset]);
        params.extend(["heat", "heat_length", "heat_offset"].into_iter().zip(heat.map(f32::to_bits)));
        if let Some(chunk) = chunk {
            params.push(("chunk", chunk.max(1)));
        }
        if let Some(relative) = relative {
            let (n, at) = self.constants.buckets(&relative, both);
            params.extend([
                ("relative_at", self.constants.word(Some(relative.weight))),
                ("buckets_at", at),
                ("n_buckets", n),
            ]);
        }
        let parts = [
            (both, "BOTH"),
            (cross, "CROSS"),
            (chunk.is_some() && mask == AttentionMask::Causal, "CHUNK"),
            (self.plan.reads_source() && mask == AttentionMask::Causal, "SOURCE"),
            (temperature.is_some(), "HEAT"),
            (cap.is_some(), "CAP"),
            (slopes.is_some(), "SLOPES"),
            (relative.is_some(), "RELATIVE"),
            (sinks.is_some(), "SINKS"),
        ];
        let features = self.kv_features().into_iter().chain(parts.into_iter().filter(|part| part.0).map(|part| part.1));
        (features.collect(), params)
    }

    /// Dispatches of `select`.
    pub(super) fn select(&self, q: View, weights: View, layer: usize, to: Slot) -> Result<Dispatch> {
        let (n_heads, k_dim) = (weights.cols, self.plan.kv[layer].k_dim);
        let kq = k_dim.div_ceil(4);
        if kq > 256 {
            return Err(Lowering::too_large(format!("keys of an index of {k_dim} elements")));
        }
        let stride = |view: View| self.plan.slot(view.slot).cols as u32;
        // Keys of such caches have no values beside them.
        let features = self.kv_features().into_iter().chain(["V_IN_K"]).collect();
        Ok(Dispatch {
            key: Key { kernel: "select", features, consts: vec![("WG", 128), ("KQ", kq as u32)] },
            bindings: vec![
                ("q", self.buffer(q.slot)),
                ("weights", self.buffer(weights.slot)),
                ("k_pages", Resource::KPages(layer)),
                ("out", self.buffer(to)),
            ],
            params: vec![
                ("q_start", q.start as u32),
                ("q_stride", stride(q)),
                ("weights_start", weights.start as u32),
                ("weights_stride", stride(weights)),
                ("k_dim", k_dim as u32),
                ("n_heads", n_heads as u32),
                ("top", self.plan.slot(to).cols as u32),
                ("tables", self.tables(layer)),
            ],
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: 1, per: 1 },
            when: (Rows::Tokens, ANY),
            op: 0,
            work: 0,
        })
    }
}
