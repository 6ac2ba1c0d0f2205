//! The experts of a layer, recorded: router, picked products, shared experts.

use super::forward::Part;
use super::spec::{Moe, Second};
use super::weights::whole;
use crate::adapter::Rows;
use crate::error::{Error, Result};
use crate::plan::{Act, ExpertEpilogue, Gated, Pick, Product, Routing, Slot};

impl Part<'_> {
    /// Logits of the experts.
    pub(super) fn router(&mut self, moe: &Moe, x: Slot) -> Result<Slot> {
        self.times(x, "ffn_gate_inp", moe.n)
    }

    /// What the experts of a layer give.
    pub(super) fn experts(&mut self, moe: &Moe, x: Slot, logits: Slot) -> Result<Slot> {
        let width = self.spec.width;
        let bias = match self.optional("exp_probs_b.bias", moe.n)? {
            None => self.optional("exp_probs_b", moe.n)?,
            bias => bias,
        };
        let pick = self.rec.route(logits, bias, moe.routing)?;
        // Experts may work on fewer columns.
        let few = [["ffn_latent_down", "ffn_latent_up"], ["ffn_routed_down", "ffn_routed_up"]];
        let few = few.into_iter().find(|[down, _]| self.has(&format!("{down}.weight")));
        let (input, cols) = match few {
            Some([down, _]) => {
                let cols = self.rows_of(down)?;
                (self.times(x, down, cols)?, cols)
            }
            None => (x, width),
        };
        let hidden = self.picked_gate_up(moe, input, cols, pick)?;
        let down = self.stack("ffn_down_exps", &["ffn_down_exps"], &[cols], (moe.hidden, moe.n))?;
        let down = self.rec.expert_linear(hidden, true, pick, down, ExpertEpilogue::Store)?;
        let mut out = self.rec.combine(down, pick, !moe.weighs_input)?;
        if let Some([_, up]) = few {
            let norm = self.part_norm("ffn_routed_norm", cols)?;
            out = self.behind(norm, out)?;
            out = self.times(out, up, width)?;
        }
        if let Some(second) = &moe.second {
            self.second_experts(moe, second, logits, out)?;
        }
        if self.has("ffn_up_shexp.weight") {
            self.shared_experts(moe.shared, x, out)?;
            if moe.shared_scale != 1.0 {
                self.rec.scale(out, moe.shared_scale, None)?;
            }
        }
        Ok(out)
    }

    /// Adds what the second set makes of what the first gave: the expert behind each of those that the logits choose.
    fn second_experts(&mut self, moe: &Moe, second: &Second, logits: Slot, out: Slot) -> Result<()> {
        let (width, hidden) = (self.spec.width, second.hidden);
        let routing = Routing { used: moe.routing.used.min(second.n), ..moe.routing };
        let pick = self.rec.route(logits, None, routing)?;
        let mut stack = |name: &str, tensors: &[&str], rows: &[usize], cols: usize| {
            let names: Vec<String> = tensors.iter().map(|t| format!("{}.weight", self.name(t))).collect();
            let name = self.name(name);
            self.weights.stack_of(self.rec, &name, &names, rows, (cols, second.n), (0..moe.n).map(|e| e / second.per))
        };
        let gate_up = stack("ffn_gate_up_chexps", &["ffn_gate_chexps", "ffn_up_chexps"], &[hidden, hidden], width)?;
        let down = stack("ffn_down_chexps", &["ffn_down_chexps"], &[width], hidden)?;
        let between = self.rec.expert_linear(out, false, pick, gate_up, ExpertEpilogue::Glu(moe.gated))?;
        let down = self.rec.expert_linear(between, true, pick, down, ExpertEpilogue::Store)?;
        let more = self.rec.combine(down, pick, true)?;
        self.rec.add(out, more, second.scale)
    }

    /// The products of picked experts with their gates and with the others of their matrices, each by itself.
    fn picked_halves(&mut self, moe: &Moe, x: Slot, cols: usize, pick: Pick) -> Result<[Slot; 2]> {
        let mut half = |name: &str| {
            let product = self.stack(name, &[name], &[moe.hidden], (cols, moe.n))?;
            self.rec.expert_linear(x, false, pick, product, ExpertEpilogue::Store)
        };
        Ok([half("ffn_gate_exps")?, half("ffn_up_exps")?])
    }

    /// The product of a stack of matrices, with the factors and biases of each.
    fn stack(&mut self, name: &str, tensors: &[&str], rows: &[usize], shape: (usize, usize)) -> Result<Product> {
        let names: Vec<String> = tensors.iter().map(|t| format!("{}.weight", self.name(t))).collect();
        let weight = self.weights.stack(self.rec, &self.name(name), &names, rows, shape)?;
        let parts: Vec<Rows> = names.iter().zip(rows).map(|(t, rows)| (t.clone(), *rows, whole(*rows))).collect();
        let scale = self.weights.scale(self.rec, &self.name(name), &parts, shape.1)?;
        let bias = self.weights.stack_bias(self.rec, &self.name(name), &names, rows, shape.1)?;
        Ok(Product { scale, bias, ..weight.into() })
    }

    /// What stands between the two products of each picked expert.
    fn picked_gate_up(&mut self, moe: &Moe, x: Slot, cols: usize, pick: Pick) -> Result<Slot> {
        let (shape, hidden) = ((cols, moe.n), moe.hidden);
        let gated = ExpertEpilogue::Glu(moe.gated);
        if moe.weighs_input {
            // The weights are on what experts take.
            let [gate, up] = self.picked_halves(moe, x, cols, pick)?;
            let weights = self.rec.view(pick.picks, pick.used, pick.used)?;
            for rows in [gate, up] {
                self.rec.gate(self.rec.all(rows), weights, Act::Identity, hidden)?;
            }
            self.rec.gate(self.rec.all(up), self.rec.all(gate), moe.gated.act, 1)?;
            return Ok(up);
        }
        if self.spec.soft_bounds[0].is_some() {
            let [gate, up] = self.picked_halves(moe, x, cols, pick)?;
            return self.soft_gate(gate, up);
        }
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
        self.rec.expert_linear(x, false, pick, product, ExpertEpilogue::Act(moe.gated.act))
    }

    /// Adds the experts that every row uses, gated if the file has a gate for them.
    fn shared_experts(&mut self, gated: Gated, x: Slot, out: Slot) -> Result<()> {
        let width = self.spec.width;
        let name = self.name("ffn_down_shexp.weight");
        let dims = self.weights.dims(&name).and_then(|dims| dims.first().copied());
        let hidden = dims.and_then(|n| usize::try_from(n).ok());
        let hidden = hidden.ok_or_else(|| Error::format(format!("tensor {name} is missing")))?;
        let between = if self.spec.soft_bounds[0].is_some() {
            self.soft_halves("_shexp", hidden, None, x)?
        } else if self.has("ffn_gate_shexp.weight") {
            let product =
                self.product("ffn_gate_up_shexp", &["ffn_gate_shexp", "ffn_up_shexp"], &[hidden, hidden], width)?;
            self.rec.linear_glu(x, product, gated)?
        } else if self.rows_of("ffn_up_shexp")? == 2 * hidden {
            let product = self.product("ffn_gate_up_shexp", &["ffn_up_shexp"], &[2 * hidden], width)?;
            self.rec.linear_glu(x, product, gated)?
        } else {
            let product = self.matrix("ffn_up_shexp", hidden, width)?;
            self.rec.linear_act(x, product, gated.act)?
        };
        let down = self.matrix("ffn_down_shexp", width, hidden)?;
        if !self.has("ffn_gate_inp_shexp.weight") {
            return self.rec.linear_add(between, down, out, 1.0);
        }
        let gate = self.times(x, "ffn_gate_inp_shexp", 1)?;
        let shared = self.rec.linear(between, down)?;
        self.rec.gate(self.rec.all(shared), self.rec.all(gate), Act::Sigmoid, width)?;
        self.rec.add(out, shared, 1.0)
    }
}
