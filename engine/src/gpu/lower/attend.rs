//! Lowering of attention: single rows split over their positions, and tiles of rows. No device here.

use super::Lowering;
use crate::error::Result;
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::plan::{AttentionMask, KvShape, Rows, Slot, Temperature, View, WeightId};

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
    pub temperature: Option<Temperature>,
    pub slopes: Option<WeightId>,
    pub sinks: Option<WeightId>,
    pub to: Slot,
}

/// Dispatches of `attend`.
pub(super) fn attend(lowering: &Lowering<'_>, op: &Attend, out: &mut Vec<Dispatch>) -> Result<()> {
    let Attend { q, layer, n_heads, scale, cap, mask, window, temperature, slopes, sinks, to } = *op;
    let KvShape { n_kv_heads, k_dim, v_dim, v_in_k } = lowering.plan.kv[layer];
    let (kq, vq) = (k_dim.div_ceil(4), v_dim.div_ceil(4));
    if kq.max(vq) > 256 {
        return Err(Lowering::too_large(format!("attention heads of {} elements", k_dim.max(v_dim))));
    }
    // Query heads of a workgroup: up to 8 of those that share a KV head, in equal blocks.
    let per_kv = n_heads / n_kv_heads;
    let blocks = per_kv.div_ceil((QUADS / kq).clamp(1, 8));
    let group = per_kv.div_ceil(blocks);
    let wg = ir_shaders::attend_vec_workgroup(kq as u32, vq as u32, group as u32);
    let both = match mask {
        AttentionMask::Causal => false,
        AttentionMask::Bidirectional => true,
        AttentionMask::Cross => return Err(super::missing("an encoder in front of a decoder")),
    };
    let buffer = |slot: Slot| Resource::Buffer(lowering.plan.slot(slot).buffer);
    let when = (Rows::Tokens, 1..=usize::MAX);
    let mut params = vec![
        ("q_start", q.start as u32),
        ("q_stride", lowering.plan.slot(q.slot).cols as u32),
        ("k_dim", k_dim as u32),
        ("v_dim", v_dim as u32),
        ("n_heads", n_heads as u32),
        ("n_kv_heads", n_kv_heads as u32),
        ("n_blocks", blocks as u32),
        ("tables", lowering.tables(layer)),
        ("window", window.map_or(u32::MAX, |window| if both { window / 2 } else { window })),
        ("scale", scale.to_bits()),
        ("cap", cap.unwrap_or(1.0).to_bits()),
        ("slopes_at", lowering.constants.word(slopes)),
        ("sinks_at", lowering.constants.word(sinks)),
    ];
    let heat = temperature.map_or([0.0; 3], |Temperature { factor, length, offset }| [factor, length, offset]);
    params.extend(["heat", "heat_length", "heat_offset"].into_iter().zip(heat.map(f32::to_bits)));
    let mut features = lowering.kv_features();
    let parts = [
        (both, "BOTH"),
        (temperature.is_some(), "HEAT"),
        (cap.is_some(), "CAP"),
        (slopes.is_some(), "SLOPES"),
        (sinks.is_some(), "SINKS"),
        (v_in_k, "V_IN_K"),
    ];
    features.extend(parts.into_iter().filter(|part| part.0).map(|part| part.1));
    let mut bindings = vec![("q", buffer(q.slot)), ("k_pages", Resource::KPages(layer)), ("out", buffer(to))];
    if !v_in_k {
        bindings.push(("v_pages", Resource::VPages(layer)));
    }
    let merged = [(sinks.is_some(), "SINKS"), (both, "BOTH")].into_iter().filter(|part| part.0).map(|part| part.1).collect();
    let (mut of_rows, mut scratch) = (features.clone(), vec![("parts", Resource::Splits)]);
    if lowering.forms.coherent {
        of_rows.push("COHERENT");
        scratch.push(("finished", Resource::Finished));
    }
    let quads = [("KQ", kq as u32), ("VQ", vq as u32)];
    let consts = [&[("WG", wg)][..], &quads, &[("GROUP", group as u32)]].concat();
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
            bindings: vec![("parts", Resource::Splits), ("out", buffer(to))],
            params: vec![
                ("n_heads", n_heads as u32),
                ("v_dim", v_dim as u32),
                ("sinks_at", lowering.constants.word(sinks)),
                ("window", window.map_or(u32::MAX, |window| if both { window / 2 } else { window })),
            ],
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
