//! Attention over what the stream was, recorded: it is kept every few layers, and each part reads a mixture.

use super::feed::Early;
use super::forward::Part;
use super::spec::Normed;
use crate::error::{Error, Result};
use crate::plan::{Act, Product, Slot};

impl Part<'_> {
    /// All layers, from the embedded rows to those in front of the last norm.
    pub(super) fn banked(&mut self, every: usize, mut x: Slot) -> Result<Slot> {
        let mut kept = Vec::new();
        for (i, layer) in self.spec.layers.iter().enumerate() {
            self.enter(i, layer);
            self.rec.scope(self.name("attn"));
            let input = self.mixture(&kept, x, "attn_res_score")?;
            let mut branches = self.mixed(layer, input)?;
            if i % every == 0 {
                kept.push(x);
                let first = branches.pop().ok_or_else(|| Error::format(format!("layer {i} mixes no rows")))?;
                x = self.rows(first)?;
            }
            branches.into_iter().try_for_each(|branch| self.add(branch, x, layer.residual))?;
            let input = self.mixture(&kept, x, "ffn_res_score")?;
            let fed = self.fed(layer, Early::default(), input)?;
            fed.into_iter().try_for_each(|branch| self.add(branch, x, layer.residual))?;
        }
        self.prefix.clear();
        self.mixture(&kept, x, "output_res_score")
    }

    /// The sum of what was kept and the stream, weighted by the softmax of their scores: products of their normed rows with a
    /// vector. It is merged one by one, with the logarithm of the sum of exponentials so far.
    fn mixture(&mut self, kept: &[Slot], x: Slot, score: &str) -> Result<Slot> {
        let Some((first, others)) = kept.split_first() else {
            // Files have scores for the first part, which nothing is mixed for.
            self.weights.note_read(&self.name(&format!("{score}.weight")));
            return Ok(x);
        };
        let width = self.spec.width;
        let norm = self.model_norm(Normed::Bare, width)?;
        let score = Product { norm, ..self.matrix(score, 1, width)? };
        let one = self.constants(x, "one", &[1.0])?;
        let one = self.rec.all(one);
        let sum = self.rec.mix(self.rec.all(*first), one, width)?;
        let log = self.rec.linear(*first, score)?;
        for slot in others.iter().chain([&x]) {
            let share = self.rec.linear(*slot, score)?;
            self.rec.add(share, log, -1.0)?;
            let more = self.rec.mix(self.rec.all(share), one, 1)?;
            self.rec.act(self.rec.all(more), Act::Softplus, None, None)?;
            self.rec.add(log, more, 1.0)?;
            self.rec.act(self.rec.all(share), Act::Sigmoid, None, None)?;
            // sum += share * (row - sum)
            let apart = self.rec.mix(self.rec.all(*slot), one, width)?;
            self.rec.add(apart, sum, -1.0)?;
            self.rec.gate(self.rec.all(apart), self.rec.all(share), Act::Identity, width)?;
            self.rec.add(sum, apart, 1.0)?;
        }
        Ok(sum)
    }
}
