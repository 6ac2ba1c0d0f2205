//! Recording of recurrent ops: convolutions and recurrences, with the states that they keep.

use super::Recorder;
use crate::error::Result;
use crate::plan::{Act, Op, Recurrence, Rows, Slot, View, WeightId};

/// The operands of a recurrence: see [`Op::Recur`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recur {
    /// Queries.
    pub q: View,
    /// Keys.
    pub k: View,
    /// Values.
    pub v: View,
    /// Logarithms of decay.
    pub decay: View,
    /// Factors on them, one per element of each head's key.
    pub rates: Option<WeightId>,
    /// Strengths of correction.
    pub beta: Option<View>,
    /// Factors on the values.
    pub v_scale: Option<View>,
    /// Factors of what is passed on of the values.
    pub skip: Option<WeightId>,
}

impl Recorder {
    /// A state of so many elements for each sequence.
    fn state(&mut self, n: usize) -> usize {
        self.states.push(n);
        self.states.len() - 1
    }

    /// Causal convolution of the columns of `x` with `taps` factors each.
    pub fn conv(
        &mut self,
        x: View,
        weight: WeightId,
        bias: Option<WeightId>,
        taps: usize,
        act: Option<Act>,
    ) -> Result<Slot> {
        self.expect(taps > 0 && self.shape(x.slot).rows == Rows::Tokens, || format!("a convolution of {taps} taps"))?;
        self.expect_rows(weight, x.cols * taps)?;
        bias.map_or(Ok(()), |bias| self.expect_rows(bias, x.cols))?;
        let (state, out) = (self.state((taps - 1) * x.cols), self.slot(Rows::Tokens, x.cols));
        self.push(Op::Conv { x, weight, bias, act, state, out });
        Ok(out)
    }

    /// The recurrence of every head over its sequence's rows.
    pub fn recur(&mut self, form: Recurrence, recur: Recur) -> Result<Slot> {
        let Recur { q, k, v, decay, rates, beta, v_scale, skip } = recur;
        let Recurrence { n_heads, n_k_heads, k_dim, v_dim, .. } = form;
        let keys = n_k_heads * k_dim;
        let fits = n_heads > 0
            && n_k_heads > 0
            && n_heads.is_multiple_of(n_k_heads)
            && (q.cols, k.cols, v.cols) == (keys, keys, n_heads * v_dim)
            && (decay.cols == n_heads || decay.cols == n_heads * k_dim && rates.is_none())
            && beta.into_iter().chain(v_scale).all(|view| view.cols == n_heads)
            && self.shape(v.slot).rows == Rows::Tokens;
        self.expect(fits, || format!("the columns of a recurrence do not fit {n_heads} heads of {k_dim} x {v_dim}"))?;
        skip.map_or(Ok(()), |skip| self.expect_rows(skip, n_heads))?;
        rates.map_or(Ok(()), |rates| self.expect_rows(rates, n_heads * k_dim))?;
        let (state, out) = (self.state(form.n_state()), self.slot(Rows::Tokens, n_heads * v_dim));
        self.push(Op::Recur { q, k, v, decay, rates, beta, v_scale, skip, form, state, out });
        Ok(out)
    }
}
