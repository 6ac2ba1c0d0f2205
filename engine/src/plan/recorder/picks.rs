//! Recording of what mixes by picks and by heads: routing, products with picked matrices, sums over picks, gates.

use super::{Product, Recorder};
use crate::error::Result;
use crate::plan::{Act, Epilogue, Gated, Op, Pick, Routing, Scoring, Slot, View, WeightId};

/// What happens behind a product with picked matrices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExpertEpilogue {
    /// Nothing.
    Store,
    /// An activation.
    Act(Act),
    /// A gated activation of the halves of each pick's columns.
    Glu(Gated),
}

impl Recorder {
    /// Chooses `routing.used` experts of each row's logits.
    pub fn route(&mut self, x: Slot, bias: Option<WeightId>, routing: Routing) -> Result<Pick> {
        let (shape, Routing { used, groups, groups_used, .. }) = (self.shape(x), routing);
        let fits = (1..=shape.cols).contains(&used)
            && groups > 0
            && shape.cols.is_multiple_of(groups)
            && (1..=groups).contains(&groups_used)
            && used <= shape.cols / groups * groups_used;
        self.expect(fits, || {
            format!("{used} of {} experts in {groups_used} of {groups} groups cannot be chosen", shape.cols)
        })?;
        bias.map_or(Ok(()), |bias| self.expect_rows(bias, shape.cols))?;
        if let Scoring::SparseMixer { within } = routing.scoring {
            let plain = bias.is_none() && groups == groups_used && within.is_finite();
            self.expect(plain, || "a sparse mixer has neither biases nor groups of experts".into())?;
        }
        let out = self.slot(shape.rows, 2 * used);
        self.push(Op::Route { x, bias, routing, out });
        Ok(Pick { picks: out, used, of: shape.cols })
    }

    /// Products with picked matrices: of the row's own columns for each pick if `each`.
    pub fn expert_linear(
        &mut self,
        x: Slot,
        each: bool,
        pick: Pick,
        product: impl Into<Product>,
        behind: ExpertEpilogue,
    ) -> Result<Slot> {
        let Product { weight, norm, scale, bias } = product.into();
        let (shape, w) = (self.shape(x), &self.weights[weight.0 as usize]);
        let (rows, cols, n_segments) = (w.rows(), w.cols, w.segments.len());
        let takes = if each { cols * pick.used } else { cols };
        let fits = norm.is_none() && takes == shape.cols && rows.is_multiple_of(pick.of);
        self.expect(fits && n_segments.is_multiple_of(pick.of) && n_segments > 0, || {
            format!("{} matrices of {cols} columns do not fit an input of {}", pick.of, shape.cols)
        })?;
        for vector in scale.into_iter().chain(bias) {
            self.expect_rows(vector, rows)?;
        }
        let n = rows / pick.of * pick.used;
        let then = match behind {
            ExpertEpilogue::Store => Epilogue::Store { out: self.slot(shape.rows, n) },
            ExpertEpilogue::Act(act) => Epilogue::Act { act, out: self.slot(shape.rows, n) },
            ExpertEpilogue::Glu(gated) => {
                self.expect_halves(rows / pick.of)?;
                let product = self.slot(shape.rows, n);
                Epilogue::Glu { gated, product, out: self.slot(shape.rows, n / 2) }
            }
        };
        self.push(Op::ExpertLinear { x, each, pick, weight, scale, bias, then });
        Ok(then.result())
    }

    /// The sums of the picks' columns, by their weights if `weighted`.
    pub fn combine(&mut self, x: Slot, pick: Pick, weighted: bool) -> Result<Slot> {
        let shape = self.shape(x);
        self.expect(shape.cols.is_multiple_of(pick.used), || {
            format!("{} columns are not those of {} picks", shape.cols, pick.used)
        })?;
        let out = self.slot(shape.rows, shape.cols / pick.used);
        self.push(Op::Combine { x, pick, weighted, out });
        Ok(out)
    }

    /// `x *= act(gate)`, an element of the gate for each `group` of columns.
    pub fn gate(&mut self, x: View, gate: View, act: Act, group: usize) -> Result<()> {
        let same_rows = self.shape(x.slot).rows == self.shape(gate.slot).rows;
        let fits = group > 0 && x.cols == gate.cols * group && same_rows && gate.slot != x.slot;
        self.expect(fits, || format!("{} columns do not gate {} in groups of {group}", gate.cols, x.cols))?;
        self.push(Op::Gate { x, gate, act, group });
        Ok(())
    }

    /// The `top` positions whose keys in the layer's cache are most alike to a row.
    pub fn select(&mut self, q: View, weights: View, layer: usize, top: usize) -> Result<Slot> {
        let kv = self.kv[layer];
        let fits = kv.n_kv_heads == 1 && kv.v_in_k && q.cols == weights.cols * kv.k_dim && top > 0;
        self.expect(fits, || format!("{} columns do not select among keys of {}", q.cols, kv.k_dim))?;
        let out = self.slot(self.shape(q.slot).rows, top);
        self.push(Op::Select { q, weights, layer, out });
        Ok(out)
    }

    /// Factors of `n` sums of `n` streams, which are logits until then.
    pub fn balance(&mut self, x: View, n: usize, rounds: usize, eps: f32) -> Result<()> {
        self.expect(n > 0 && n.checked_mul(n) == Some(x.cols) && rounds > 0, || {
            format!("{} columns are not the factors of {n} sums of {n} streams, made in {rounds} rounds", x.cols)
        })?;
        self.push(Op::Balance { x, n, rounds, eps });
        Ok(())
    }

    /// Sums of streams of `width` columns: of all streams of `x`, as many as `coef` has factors for.
    pub fn mix(&mut self, x: View, coef: View, width: usize) -> Result<Slot> {
        let n_in = x.cols.checked_div(width).unwrap_or(0);
        let same_rows = self.shape(x.slot).rows == self.shape(coef.slot).rows;
        let fits = n_in > 0 && n_in * width == x.cols && coef.cols.is_multiple_of(n_in) && same_rows;
        self.expect(fits, || format!("{} factors do not mix {} columns in streams of {width}", coef.cols, x.cols))?;
        let out = self.slot(self.shape(x.slot).rows, coef.cols / n_in * width);
        self.push(Op::Mix { x, coef, width, out });
        Ok(out)
    }

    /// The product of every head's columns with its own matrix of a stack; `pass` columns of each head are passed on.
    pub fn head_linear(&mut self, x: Slot, weight: WeightId, n_heads: usize, pass: usize) -> Result<Slot> {
        let (shape, w) = (self.shape(x), &self.weights[weight.0 as usize]);
        let (rows, n_segments) = (w.rows(), w.segments.len());
        let fits = n_heads > 0
            && shape.cols == n_heads * (w.cols + pass)
            && rows.is_multiple_of(n_heads)
            && n_segments.is_multiple_of(n_heads);
        self.expect(fits, || format!("{n_heads} heads of {} do not lie in {} columns", w.cols + pass, shape.cols))?;
        let out = self.slot(shape.rows, rows + n_heads * pass);
        self.push(Op::HeadLinear { x, weight, n_heads, pass, out });
        Ok(out)
    }
}
