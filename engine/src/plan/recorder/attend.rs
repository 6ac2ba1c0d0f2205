//! Attention, recorded.

use super::Recorder;
use crate::error::Result;
use crate::plan::{AttentionMask, Op, Relative, Slot, Temperature, View, WeightId};

impl Recorder {
    /// Attention over the layer's pages.
    pub fn attend(&mut self, q: View, attend: Attend) -> Result<Slot> {
        let Attend { layer, n_heads, scale, cap, mask, window, chunk, chosen, temperature, slopes, relative, sinks } =
            attend;
        for vector in slopes.into_iter().chain(sinks) {
            self.expect_rows(vector, n_heads)?;
        }
        if let Some(Relative { weight, buckets, far }) = relative {
            self.expect_rows(weight, buckets * n_heads)?;
            self.expect(buckets >= 4 && far >= buckets, || format!("{buckets} buckets of distances up to {far}"))?;
        }
        let kv = self.kv[layer];
        let fits = n_heads.is_multiple_of(kv.n_kv_heads) && q.cols == n_heads * kv.k_dim;
        self.expect(fits, || {
            format!("{n_heads} query heads in {} columns do not fit {} heads of {}", q.cols, kv.n_kv_heads, kv.k_dim)
        })?;
        let out = self.slot(self.shape(q.slot).rows, n_heads * kv.v_dim);
        self.push(Op::Attend {
            q,
            layer,
            n_heads,
            scale,
            cap,
            mask,
            window,
            chunk,
            chosen,
            temperature,
            slopes,
            relative,
            sinks,
            out,
        });
        Ok(out)
    }
}

/// What attention is asked for, besides its queries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attend {
    /// Index of the layer's cache.
    pub layer: usize,
    /// Query heads, a multiple of the cache's heads.
    pub n_heads: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Soft cap of the scores.
    pub cap: Option<f32>,
    /// Which rows a row sees.
    pub mask: AttentionMask,
    /// Of these so many positions; all if `None`.
    pub window: Option<u32>,
    /// Positions of the runs of which a row sees its own.
    pub chunk: Option<u32>,
    /// The positions that a row sees, chosen by [`Recorder::select`].
    pub chosen: Option<Slot>,
    /// Factor on the queries by position.
    pub temperature: Option<Temperature>,
    /// Slopes of the heads (ALiBi).
    pub slopes: Option<WeightId>,
    /// Summands on the scores by distance.
    pub relative: Option<Relative>,
    /// Sinks of the heads.
    pub sinks: Option<WeightId>,
}

impl Attend {
    /// Attention to everything before.
    pub fn plain(layer: usize, n_heads: usize, scale: f32) -> Attend {
        Attend {
            layer,
            n_heads,
            scale,
            cap: None,
            mask: AttentionMask::Causal,
            window: None,
            chunk: None,
            chosen: None,
            temperature: None,
            slopes: None,
            relative: None,
            sinks: None,
        }
    }
}
