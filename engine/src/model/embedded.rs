//! What tokens bring, recorded: the embedded rows, and the rows that every token has for every layer.

use super::forward::{Branch, Part};
use super::spec::{Normed, TokenTypes};
use crate::error::Result;
use crate::plan::{Act, Lookup, Slot};

impl Part<'_> {
    /// The embedded rows as the layers take them.
    pub(super) fn embedding(&mut self, x: Slot) -> Result<Slot> {
        let spec = self.spec;
        if spec.embedding.scale != 1.0 {
            self.rec.scale(x, spec.embedding.scale, None)?;
        }
        match spec.embedding.types {
            TokenTypes::No => {}
            TokenTypes::First => {
                let first = self.weights.first_row(self.rec, "token_types.weight", spec.width)?;
                self.rec.act(self.rec.all(x), Act::Identity, Some(first), None)?;
            }
            TokenTypes::OfPair => {
                let table = self.weights.table(self.rec, "token_types.weight", spec.width)?;
                let types = self.rec.embed(table, Lookup::Segment)?;
                self.rec.add(x, types, 1.0)?;
            }
        }
        if spec.embedding.positions {
            let table = self.weights.table(self.rec, "position_embd.weight", spec.width)?;
            let positions = self.rec.embed(table, Lookup::Position)?;
            self.rec.add(x, positions, 1.0)?;
        }
        if let Some(n) = spec.embedding.per_layer {
            self.own = Some((self.own_rows(n, x)?, n));
        }
        let norm = self.model_norm(spec.embedding.norm, spec.width)?;
        let x = self.behind(norm, x)?;
        if spec.embedding.again {
            let one = self.constants(x, "one", &[1.0])?;
            self.again = Some(self.rec.mix(self.rec.all(x), self.rec.all(one), spec.width)?);
        }
        Ok(x)
    }

    /// What every token has for every layer: rows of a table of their own and a product with the embedded rows.
    fn own_rows(&mut self, n: usize, x: Slot) -> Result<Slot> {
        let (width, cols) = (self.spec.width, n * self.spec.layers.len());
        let table = self.weights.table(self.rec, "per_layer_token_embd.weight", cols)?;
        let own = self.rec.embed(table, Lookup::Token)?;
        self.rec.scale(own, (n as f32).sqrt(), None)?;
        let rows = self.times(x, "per_layer_model_proj", cols)?;
        self.rec.scale(rows, 1.0 / (width as f32).sqrt(), None)?;
        if let Some(norm) = self.model_norm(Normed::By("per_layer_proj_norm"), n)? {
            let rows = self.rec.norm(self.rec.all(rows), norm)?;
            self.rec.add(own, rows, 1.0)?;
        }
        self.rec.scale(own, std::f32::consts::FRAC_1_SQRT_2, None)?;
        Ok(own)
    }

    /// Adds what the layer makes of the token's own row for it, if tokens have any.
    pub(super) fn own_row(&mut self, x: Slot) -> Result<()> {
        let Some((own, n)) = self.own else { return Ok(()) };
        let branch = self.own_branch(own, n, x)?;
        self.add(branch, x, 1.0)
    }

    /// What the layer makes of the stream and the token's own row.
    pub(super) fn own_branch(&mut self, own: Slot, n: usize, x: Slot) -> Result<Branch> {
        let width = self.spec.width;
        let product = self.matrix("inp_gate", n, width)?;
        let input = self.rec.linear_act(x, product, Act::GeluTanh)?;
        let view = self.rec.view(own, self.index * n, n)?;
        self.rec.gate(self.rec.all(input), view, Act::Identity, 1)?;
        let product = self.matrix("proj", width, n)?;
        let norm = self.model_norm(Normed::By("post_norm"), width)?;
        Ok(Branch::Product { input, product, norm })
    }

    /// What the file has the stream multiplied by behind a layer, or the embedded rows that are added to it again.
    pub(super) fn layer_factor(&mut self, x: Slot) -> Result<()> {
        if !self.has("layer_output_scale.weight") {
            return Ok(());
        }
        let weight = self.weights.vector(self.rec, &self.name("layer_output_scale.weight"), 1)?;
        let Some(again) = self.again else { return self.rec.scale(x, 1.0, Some(weight)) };
        let one = self.constants(x, "one", &[1.0])?;
        self.rec.scale(one, 1.0, Some(weight))?;
        let more = self.rec.mix(self.rec.all(again), self.rec.all(one), self.spec.width)?;
        self.rec.add(x, more, 1.0)
    }
}
