//! The words that families say of a decoder's spec: what goes beyond the common keys and tensors, each said once.

use super::common::{Keys, MAX_COLS, is_marked, rope_table};
use super::spec::{
    Beside, Ffn, Heads, Hyper, Index, Kda, Latent, Layer, Mixer, ModelSpec, Moe, Normed, Norms, OutputKind, Pooling,
    Ranking, Route, Wiring,
};
use crate::error::{Error, Result};
use crate::plan::{Act, AttentionMask, Gated, RopeStyle, Routing, Scoring};

/// How experts are chosen where it is the family that says so, or the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<T> {
    /// The family; keys that say otherwise are passed over.
    Family(T),
    /// The file's key; this if there is none.
    Key(T),
}

impl ModelSpec {
    /// The rule by which experts are chosen: scores, and whether a row's weights are divided by their sum. The file's factor
    /// on the weights is used if it says either.
    pub(super) fn routed(self, keys: &Keys, scoring: By<Scoring>, renorm: By<bool>) -> Result<ModelSpec> {
        let scaled = matches!(scoring, By::Key(_)) || matches!(renorm, By::Key(_));
        let scoring = match scoring {
            By::Family(scoring) => scoring,
            By::Key(absent) => match keys.opt_u32("expert_gating_func")? {
                None | Some(0) => absent,
                Some(1) => Scoring::Softmax,
                Some(2) => Scoring::Sigmoid,
                Some(3) => Scoring::SoftmaxOfPicked,
                Some(4) => Scoring::SqrtSoftplus,
                Some(other) => {
                    return Err(Error::unsupported(format!("experts chosen by gating function {other} are not known")));
                }
            },
        };
        let renorm = match renorm {
            By::Family(renorm) => renorm,
            By::Key(absent) => keys.opt_bool("expert_weights_norm")?.unwrap_or(absent),
        };
        let scale = if scaled { keys.factor("expert_weights_scale")?.unwrap_or(1.0) } else { 1.0 };
        Ok(self.each_moe(|_, moe| moe.routing = Routing { scoring, renorm, scale, ..moe.routing }))
    }

    /// Changes the experts of every layer that has some.
    pub(super) fn each_moe(mut self, mut change: impl FnMut(usize, &mut Moe)) -> ModelSpec {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let ffn = layer.ffn.as_mut().and_then(|ffn| if let Ffn::Moe(moe) = ffn { Some(moe) } else { None });
            ffn.into_iter().chain(layer.beside.as_mut().map(|beside| &mut beside.moe)).for_each(|moe| change(i, moe));
        }
        self
    }

    /// Experts become what stands beside a dense part, in layers that have both.
    pub(super) fn beside_dense(
        mut self,
        keys: &Keys,
        hidden: Option<usize>,
        beside: impl Fn(Moe) -> Beside,
    ) -> Result<ModelSpec> {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            if let Some(Ffn::Moe(moe)) = layer.ffn
                && keys.has(i, "ffn_up.weight")
            {
                let hidden = match hidden {
                    Some(hidden) => hidden,
                    None => keys.per_layer("feed_forward_length", i, None)?,
                };
                layer.ffn = Some(Ffn::Dense { hidden, gated: moe.gated });
                layer.beside = Some(beside(moe));
            }
        }
        Ok(self)
    }

    /// Latent layers choose what they see by an index, theirs or that of the layer before, if contexts may have more positions
    /// than are chosen. `own` says of a layer whether it has an index if the file does not; a key that marks no layer is what
    /// writers of every key put for none.
    pub(super) fn indexed(mut self, keys: &Keys, style: RopeStyle, own: impl Fn(usize) -> bool) -> Result<ModelSpec> {
        let top = keys.count("attention.indexer.top_k", u32::MAX >> 1)?;
        let (n_heads, dim) =
            (keys.count("attention.indexer.head_count", 4096)?, keys.count("attention.indexer.key_length", 4096)?);
        self.unindexed = top >= self.n_context;
        if self.unindexed {
            return Ok(self);
        }
        let marked = |i| Ok(keys.of_layer("attention.indexer.types", i)?.map(|kind| is_marked(&kind)));
        let marks = (0..self.layers.len()).map(marked).collect::<Result<Vec<_>>>()?;
        let marks = if marks.contains(&Some(true)) { marks } else { vec![None; marks.len()] };
        self.try_mixers(|i, mixer| {
            if let Mixer::Latent(latent) = mixer
                && latent.window.is_none()
            {
                let own = marks[i].unwrap_or_else(|| own(i));
                let rope = rope_table(keys, style, dim, None)?;
                latent.index = Some(Index { n_heads, dim, top, rope, first: 0, eps: 1e-6, own });
            }
            Ok(())
        })
    }

    /// Contexts end where the file's index of keys would leave something out: it chooses so many positions.
    pub(super) fn seen_whole(self, n: usize) -> ModelSpec {
        ModelSpec { n_context: self.n_context.min(n), unindexed: true, ..self }
    }

    /// Limits of gates, by the file's keys for experts and for what every row uses (this key), layer by layer; 0 is none.
    pub(super) fn limited(mut self, keys: &Keys, limits_result: bool, others: &str) -> Result<ModelSpec> {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let limit =
                |key: &str| -> Result<Option<f32>> { Ok(keys.layer_f32(key, i)?.filter(|limit| *limit > 1e-6)) };
            let of = |gated: Gated, limit: Option<f32>| match limit {
                Some(limit) => Gated { limit, limits_result, ..gated },
                None => gated,
            };
            let (experts, others) = (limit("swiglu_clamp_exp")?, limit(others)?);
            match &mut layer.ffn {
                Some(Ffn::Moe(moe)) => (moe.gated, moe.shared) = (of(moe.gated, experts), of(moe.shared, others)),
                Some(Ffn::Dense { gated, .. }) => *gated = of(*gated, others),
                _ => {}
            }
        }
        Ok(self)
    }

    /// Several streams side by side: the most that a part is added by, what is added to that, and in how many rounds factors
    /// between the streams are balanced, if there are any.
    pub(super) fn streams(mut self, keys: &Keys, most: [f32; 2], rounds: Option<usize>) -> Result<ModelSpec> {
        let n = keys.count("hyper_connection.count", 64)?;
        if n.saturating_mul(self.width) > MAX_COLS as usize {
            return Err(Error::shape(format!("{n} streams of {} columns are out of range", self.width)));
        }
        let eps = keys.factor("hyper_connection.epsilon")?.unwrap_or(0.0);
        self.route = Route::Hyper(Hyper { n, eps, most, rounds });
        Ok(self)
    }

    /// The gate of every feed-forward part.
    pub(super) fn gated(self, of_all: Gated) -> ModelSpec {
        let spec = self.each_moe(|_, moe| (moe.gated, moe.shared) = (of_all, of_all));
        spec.each_layer(|_, layer| {
            if let Some(Ffn::Dense { gated, .. }) = &mut layer.ffn {
                *gated = of_all;
            }
        })
    }

    /// A factor on the weights of experts.
    pub(super) fn weighted(self, scale: f32) -> ModelSpec {
        self.each_moe(|_, moe| moe.routing.scale = scale)
    }

    /// Changes what every layer mixes rows with.
    pub(super) fn try_mixers(mut self, mut change: impl FnMut(usize, &mut Mixer) -> Result<()>) -> Result<ModelSpec> {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            layer.mixers.iter_mut().try_for_each(|mixer| change(i, mixer))?;
        }
        Ok(self)
    }

    pub(super) fn each_mixer(self, mut change: impl FnMut(usize, &mut Mixer)) -> ModelSpec {
        self.each_layer(|i, layer| layer.mixers.iter_mut().for_each(|mixer| change(i, mixer)))
    }

    /// Changes the heads of every layer.
    pub(super) fn with_heads(self, mut change: impl FnMut(usize, &mut Heads)) -> ModelSpec {
        self.each_mixer(|i, mixer| {
            if let Mixer::Heads(heads) = mixer {
                change(i, heads);
            }
        })
    }

    /// Changes every latent attention.
    pub(super) fn latent(self, change: impl Fn(&mut Latent)) -> ModelSpec {
        self.each_mixer(|_, mixer| {
            if let Mixer::Latent(latent) = mixer {
                change(latent);
            }
        })
    }

    /// Changes every delta rule with decays of elements.
    pub(super) fn kda(self, change: impl Fn(&mut Kda)) -> ModelSpec {
        self.each_mixer(|_, mixer| {
            if let Mixer::Kda(kda) = mixer {
                change(kda);
            }
        })
    }

    /// Only heads of which this is true turn.
    pub(super) fn turning(self, turns: impl Fn(usize, &Heads) -> bool) -> ModelSpec {
        self.with_heads(|i, heads| heads.rope = heads.rope.take().filter(|_| turns(i, heads)))
    }

    /// Changes every layer.
    pub(super) fn each_layer(mut self, mut change: impl FnMut(usize, &mut Layer)) -> ModelSpec {
        self.layers.iter_mut().enumerate().for_each(|(i, layer)| change(i, layer));
        self
    }

    /// A parallel residual: both parts read the same stream.
    pub(super) fn parallel(self) -> ModelSpec {
        self.each_layer(|_, layer| layer.wiring = Wiring::Parallel)
    }

    /// Norms behind both parts, by these tensors.
    pub(super) fn post_norms(self, attn: &'static str, ffn: &'static str) -> ModelSpec {
        self.each_layer(|_, layer| {
            (layer.attn_norms.after, layer.ffn_norms.after) = (Normed::By(attn), Normed::By(ffn));
        })
    }

    /// The norm in front of the feed-forward part has this name.
    pub(super) fn ffn_norm(self, tensor: &'static str) -> ModelSpec {
        self.each_layer(|_, layer| layer.ffn_norms.before = Normed::By(tensor))
    }

    /// Norms without weights in front of both parts and of the head.
    pub(super) fn bare_norms(mut self) -> ModelSpec {
        self.output_norm = Normed::Bare;
        self.each_layer(|_, layer| {
            (layer.attn_norms.before, layer.ffn_norms.before) = (Normed::Bare, Normed::Bare);
        })
    }

    /// Diffusion: rows see all of their text, and the logits are those of the tokens that are masked in it.
    pub(super) fn masked(mut self) -> ModelSpec {
        self.output = OutputKind::Masked;
        self.with_heads(|_, heads| heads.mask = AttentionMask::Bidirectional)
    }

    /// An encoder: rows see all of their text, and there is no head. A file that says nothing of pooling has a head that
    /// ranks, or wants the mean.
    pub(super) fn both_ways(mut self, keys: &Keys) -> Result<ModelSpec> {
        self.generates = false;
        if self.pooling == Pooling::None {
            let ranks = ["cls", "cls.output"].iter().any(|t| keys.file.tensor(&format!("{t}.weight")).is_some());
            self.pooling = if ranks { Pooling::Rank } else { Pooling::Mean };
        }
        self.ranking = Ranking { rows: Pooling::Cls, act: Act::Tanh, softmax: false };
        Ok(self.with_heads(|_, heads| heads.mask = AttentionMask::Bidirectional))
    }

    /// Norms behind the additions and none in front of the parts or of the head.
    pub(super) fn norms_on_stream(mut self, attn: &'static str, ffn: &'static str) -> ModelSpec {
        self.output_norm = Normed::No;
        self.each_layer(|_, layer| {
            layer.attn_norms = Norms { stream: Normed::By(attn), ..Norms::default() };
            layer.ffn_norms = Norms { stream: Normed::By(ffn), ..Norms::default() };
        })
    }

    /// Every `period`-th layer sees everything and the others a window of the file's size, or of `absent` if the file has
    /// none. Layers with a window turn by a rotation of their own: with `base`, not scaled.
    pub(super) fn windows(
        self,
        keys: &Keys,
        period: usize,
        absent: Option<u32>,
        rope: WindowRope,
    ) -> Result<ModelSpec> {
        let marks = keys.windowed(self.layers.len(), period, false)?;
        self.windowed(keys, &marks, absent, rope)
    }

    /// The same, by a mark for each layer. Heads of layers with a window may have sizes of their own.
    pub(super) fn windowed(
        self,
        keys: &Keys,
        marks: &[bool],
        absent: Option<u32>,
        rope: WindowRope,
    ) -> Result<ModelSpec> {
        let size = keys.opt_u32("attention.sliding_window")?.or(absent).filter(|n| *n > 0);
        // Without a window anywhere all turn alike.
        let rope = if size.is_none() { WindowRope::Same } else { rope };
        self.try_mixers(|i, mixer| {
            let Mixer::Heads(heads) = mixer else { return Ok(()) };
            heads.window = size.filter(|_| marks[i]);
            rope.turn(keys, heads)
        })
    }
}

/// How the rotation of layers with a window differs from that of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum WindowRope {
    /// It does not.
    Same,
    /// The layers with a window turn by this base if the file names none, without scaling.
    Base(f32),
    /// The layers with a window turn by the base that the file names for them, scaled as the others.
    Scaled,
    /// The same, and the others do not turn.
    Only,
}

impl WindowRope {
    /// The sizes and the rotation of these heads, by whether they have a window.
    fn turn(self, keys: &Keys, heads: &mut Heads) -> Result<()> {
        if heads.window.is_some() {
            let own = heads.head_dim;
            heads.head_dim = keys.head_size("attention.key_length_swa", own, heads.n_heads)?;
            heads.v_dim = keys.head_size("attention.value_length_swa", heads.v_dim, heads.n_heads)?;
            if heads.head_dim != own {
                heads.scale = 1.0 / (heads.head_dim as f32).sqrt();
            }
        }
        let Some(style) = heads.rope.as_ref().map(|table| table.style) else { return Ok(()) };
        let (absent, scaled) = match (self, heads.window.is_some()) {
            (WindowRope::Base(absent), true) => (absent, false),
            (WindowRope::Scaled | WindowRope::Only, true) => (keys.base()?, true),
            (WindowRope::Only, false) => {
                heads.rope = None;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let base = keys.factor("rope.freq_base_swa")?.unwrap_or(absent);
        heads.rope = Some(rope_table(keys, style, heads.head_dim, Some((base, scaled)))?);
        Ok(())
    }
}
