//! The experts of a layer, recorded: router, picked products, shared experts.

use super::forward::{Branch, Part};
use super::spec::{Layer, Moe};
use crate::error::{Error, Result};
use crate::plan::{Act, Behind, Gated, Pick, Product, Slot};

impl Part<'_> {
    /// What the experts of a layer add to the stream.
    pub(super) fn moe(&mut self, moe: &Moe, layer: &Layer, x: Slot) -> Result<Branch> {
        let (spec, width) = (self.spec, self.spec.width);
        let normed = match self.norm(spec.norm, layer.ffn_norms.before, &[width], width)? {
            Some(norm) => self.rec.norm(self.rec.all(x), norm)?,
            None => x,
        };
        let router = self.product("ffn_gate_inp", &["ffn_gate_inp"], &[moe.n], width)?;
        let logits = self.rec.linear(normed, router)?;
        let bias = ["exp_probs_b.bias", "exp_probs_b"].into_iter().find(|name| self.has(name));
        let bias = match bias {
            Some(name) => Some(self.weights.vector(self.rec, &self.name(name), moe.n)?),
            None => None,
        };
        let pick = self.rec.route(logits, bias, moe.routing)?;
        let hidden = self.picked_gate_up(moe, normed, pick)?;
        let down = self.stack("ffn_down_exps", &["ffn_down_exps"], &[width], (moe.hidden, moe.n))?;
        let down = self.rec.expert_linear(hidden, true, pick, down, Behind::Store)?;
        let out = self.rec.combine(down, pick)?;
        if self.has("ffn_up_shexp.weight") {
            self.shared_experts(moe.gated, normed, out)?;
        }
        let norm = self.norm(spec.norm, layer.ffn_norms.after, &[width], width)?;
        Ok(Branch::Rows { rows: out, norm })
    }

    /// The product of a stack of matrices, with the factors and biases of each.
    fn stack(&mut self, name: &str, tensors: &[&str], rows: &[usize], shape: (usize, usize)) -> Result<Product> {
        let names: Vec<String> = tensors.iter().map(|t| format!("{}.weight", self.name(t))).collect();
        let weight = self.weights.stack(self.rec, &self.name(name), &names, rows, shape)?;
        let scale = self.weights.scale(self.rec, &self.name(name), &names, rows, shape.1)?;
        let bias = self.weights.stack_bias(self.rec, &self.name(name), &names, rows, shape.1)?;
        Ok(Product { scale, bias, ..weight.into() })
    }

    /// What stands between the two products of each picked expert.
    fn picked_gate_up(&mut self, moe: &Moe, x: Slot, pick: Pick) -> Result<Slot> {
        let (shape, hidden) = ((self.spec.width, moe.n), moe.hidden);
        let gated = Behind::Glu(moe.gated);
        if self.has("ffn_gate_up_exps.weight") {
            let product = self.stack("ffn_gate_up_exps", &["ffn_gate_up_exps"], &[2 * hidden], shape)?;
            return self.rec.expert_linear(x, false, pick, product, gated);
        }
        if self.has("ffn_gate_exps.weight") {
            let tensors = &["ffn_gate_exps", "ffn_up_exps"];
            let product = self.stack("ffn_gate_up_exps", tensors, &[hidden, hidden], shape)?;
            return self.rec.expert_linear(x, false, pick, product, gated);
        }
        let product = self.stack("ffn_up_exps", &["ffn_up_exps"], &[hidden], shape)?;
        self.rec.expert_linear(x, false, pick, product, Behind::Act(moe.gated.act))
    }

    /// Adds the experts that every row uses, gated if the file has a gate for them.
    fn shared_experts(&mut self, gated: Gated, x: Slot, out: Slot) -> Result<()> {
        let width = self.spec.width;
        let name = self.name("ffn_down_shexp.weight");
        let dims = self.weights.dims(&name).and_then(|dims| dims.first().copied());
        let hidden = dims.and_then(|n| usize::try_from(n).ok());
        let hidden = hidden.ok_or_else(|| Error::format(format!("tensor {name} is missing")))?;
        let between = if self.has("ffn_gate_shexp.weight") {
            let product =
                self.product("ffn_gate_up_shexp", &["ffn_gate_shexp", "ffn_up_shexp"], &[hidden, hidden], width)?;
            self.rec.linear_glu(x, product, gated)?
        } else {
            let product = self.product("ffn_up_shexp", &["ffn_up_shexp"], &[hidden], width)?;
            self.rec.linear_act(x, product, gated.act)?
        };
        let down = self.product("ffn_down_shexp", &["ffn_down_shexp"], &[width], hidden)?;
        if !self.has("ffn_gate_inp_shexp.weight") {
            return self.rec.linear_add(between, down, out, 1.0);
        }
        let gate = self.product("ffn_gate_inp_shexp", &["ffn_gate_inp_shexp"], &[1], width)?;
        let gate = self.rec.linear(x, gate)?;
        let shared = self.rec.linear(between, down)?;
        self.rec.gate(self.rec.all(shared), self.rec.all(gate), Act::Sigmoid, width)?;
        self.rec.add(out, shared, 1.0)
    }
}
