//! What each row does by itself, recorded: dense parts, and experts beside them.

use super::forward::{Branch, Part};
use super::spec::{Beside, Ffn, Layer};
use crate::error::Result;
use crate::plan::{Act, Gated, Norm, Product, Slot};

/// What a layer has computed of its own input, in front of attention.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Early {
    /// Logits of experts.
    logits: Option<Slot>,
    /// What experts beside a dense part give.
    rows: Option<Slot>,
}

impl Part<'_> {
    /// What of the feed-forward part reads what the layer reads.
    pub(super) fn early(&mut self, layer: &Layer, x: Slot) -> Result<Early> {
        let mut early = Early::default();
        if let Some(Ffn::Moe(moe)) = &layer.ffn
            && moe.early
        {
            early.logits = Some(self.router(moe, x)?);
        }
        if let Some(beside) = layer.beside.as_ref().filter(|beside| beside.early) {
            early.rows = Some(self.experts_beside(beside, x)?);
        }
        Ok(early)
    }

    /// What the feed-forward part leaves to be added to the stream.
    pub(super) fn ffn(&mut self, ffn: &Ffn, layer: &Layer, early: Early, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
        let before = self.model_norm(layer.ffn_norms.before, width)?;
        let after = self.norm_after(layer.ffn_norms)?;
        let branch = match *ffn {
            Ffn::Dense { hidden, gated } => self.dense(hidden, gated, before, x)?,
            Ffn::Bent { hidden, positive, negative, linear } => {
                self.bent(hidden, [positive, negative, linear], before, x)?
            }
            Ffn::Moe(ref moe) => {
                let normed = self.behind(before, x)?;
                let logits = match early.logits {
                    Some(logits) => logits,
                    None => self.router(moe, normed)?,
                };
                return Ok(Branch::Rows { rows: self.experts(moe, normed, logits)?, norm: after });
            }
        };
        let (input, product) = branch;
        let Some(beside) = &layer.beside else { return Ok(Branch::Product { input, product, norm: after }) };
        let mut rows = self.rec.linear(input, product)?;
        let norm = self.model_norm(beside.dense_after, width)?;
        rows = self.behind(norm, rows)?;
        let of_experts = match early.rows {
            Some(rows) => rows,
            None => self.experts_beside(beside, x)?,
        };
        self.rec.add(rows, of_experts, 1.0)?;
        if beside.scale != 1.0 {
            self.rec.scale(rows, beside.scale, None)?;
        }
        Ok(Branch::Rows { rows, norm: after })
    }

    /// The rows of experts beside a dense part. They are chosen by what they take, or by the stream without its length where
    /// the file has factors on that.
    fn experts_beside(&mut self, beside: &Beside, x: Slot) -> Result<Slot> {
        let (width, style) = (self.spec.width, self.spec.norm);
        let norm = self.model_norm(beside.norms.before, width)?;
        let normed = self.behind(norm, x)?;
        let scale = self.name("ffn_gate_inp.scale");
        let logits = match self.weights.dims(&scale) == Some(&[width as u64]) {
            true => {
                let weight = Some(self.weights.vector(self.rec, &scale, width)?);
                let norm = Norm { kind: style.kind, eps: style.eps, group: width, weight, bias: None };
                let names = [self.name("ffn_gate_inp.weight")];
                let name = self.name("ffn_gate_inp");
                let weight = self.weights.matrix(self.rec, &name, &names, &[beside.moe.n], width)?;
                let logits = self.rec.linear(x, Product { norm: Some(norm), ..weight.into() })?;
                self.rec.scale(logits, 1.0 / (width as f32).sqrt(), None)?;
                logits
            }
            false => self.router(&beside.moe, normed)?,
        };
        let rows = self.experts(&beside.moe, normed, logits)?;
        let norm = self.norm_after(beside.norms)?;
        self.behind(norm, rows)
    }

    /// The input of the last product of a dense part, and that product.
    pub(super) fn dense(
        &mut self,
        hidden: usize,
        gated: Gated,
        norm: Option<Norm>,
        x: Slot,
    ) -> Result<(Slot, Product)> {
        let width = self.spec.width;
        let up = self.weights.dims(&self.name("ffn_up.weight"));
        let fused = up.is_some_and(|dims| dims.get(1) == Some(&(2 * hidden as u64)));
        let input = if self.spec.soft_bounds[0].is_some() {
            self.soft_halves("", hidden, norm, x)?
        } else if self.has("ffn_gate.weight") || fused {
            let product = match fused {
                true => self.product("ffn_gate_up", &["ffn_up"], &[2 * hidden], width)?,
                false => self.product("ffn_gate_up", &["ffn_gate", "ffn_up"], &[hidden, hidden], width)?,
            };
            self.rec.linear_glu(x, Product { norm, ..product }, gated)?
        } else {
            let product = self.matrix("ffn_up", hidden, width)?;
            self.rec.linear_act(x, Product { norm, ..product }, gated.act)?
        };
        // MPT's quantised activations: what is between is divided by these.
        if self.has("ffn.act.scales") {
            let scales = self.weights.reciprocals(self.rec, &self.name("ffn.act.scales"), hidden)?;
            self.rec.scale(input, 1.0, Some(scales))?;
        }
        let norm = self.part_norm("ffn_sub_norm", hidden)?;
        let product = self.matrix("ffn_down", width, hidden)?;
        Ok((input, Product { norm, ..product }))
    }

    /// What a gate with a soft bound lets through, of two matrices whose names end with `end`.
    pub(super) fn soft_halves(&mut self, end: &str, hidden: usize, norm: Option<Norm>, x: Slot) -> Result<Slot> {
        let mut half = |part: &str| {
            let name = format!("ffn_{part}{end}");
            let product = self.product(&name, &[&name], &[hidden], self.spec.width)?;
            self.rec.linear(x, Product { norm, ..product })
        };
        let (gate, up) = (half("gate")?, half("up")?);
        self.soft_gate(gate, up)
    }

    /// The rows of `up` behind a gate, both with soft bounds.
    pub(super) fn soft_gate(&mut self, gate: Slot, up: Slot) -> Result<Slot> {
        let (one, all) = (self.constants(gate, "one", &[1.0])?, self.rec.all(gate));
        let bounded = self.rec.mix(all, self.rec.all(one), all.cols)?;
        for (slot, bound) in [bounded, up].into_iter().zip(self.spec.soft_bounds) {
            let Some(bound) = bound else { continue };
            self.rec.scale(slot, 1.0 / bound, None)?;
            self.rec.act(self.rec.all(slot), Act::Tanh, None, None)?;
            self.rec.scale(slot, bound, None)?;
        }
        self.rec.gate(self.rec.all(bounded), all, Act::Sigmoid, 1)?;
        self.rec.gate(self.rec.all(up), self.rec.all(bounded), Act::Identity, 1)?;
        Ok(up)
    }

    /// The input of the last product of a part whose activation differs above and below 0, and that product.
    fn bent(&mut self, hidden: usize, factors: [f32; 3], norm: Option<Norm>, x: Slot) -> Result<(Slot, Product)> {
        let width = self.spec.width;
        let product = self.matrix("ffn_up", hidden, width)?;
        let up = self.rec.linear(x, Product { norm, ..product })?;
        let three = self.constants(x, "thrice", &[1.0; 3])?;
        let copies = self.rec.mix(self.rec.all(up), self.rec.all(three), hidden)?;
        for (i, act) in [Act::ReluSquared, Act::ExpBelow].into_iter().enumerate() {
            let view = self.rec.view(copies, i * hidden, hidden)?;
            self.rec.act(view, act, None, None)?;
        }
        let factors = self.constants(x, "xielu", &factors)?;
        let input = self.rec.mix(self.rec.all(copies), self.rec.all(factors), hidden)?;
        Ok((input, self.matrix("ffn_down", width, hidden)?))
    }
}
