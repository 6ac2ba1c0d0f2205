//! `act`: activations, element by element.

use crate::cpu::pool::Pool;
use crate::cpu::simd::{SQRT_2_OVER_PI, Table};
use crate::plan::{Act, View};

/// `x = factor * act(x + bias)` in the columns `view` of rows of `cols`.
#[allow(clippy::too_many_arguments, reason = "the op's fields, and who computes it")]
pub fn act(
    t: &Table,
    pool: &Pool,
    x: &mut [f32],
    cols: usize,
    view: View,
    act: Act,
    bias: Option<&[f32]>,
    factor: Option<&[f32]>,
) {
    pool.rows_mut(x, cols, |_, row| {
        let row = &mut row[view.start..view.start + view.cols];
        if let Some(bias) = bias {
            row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
        all(t, act, row);
        if let Some(factor) = factor {
            row.iter_mut().zip(factor).for_each(|(x, f)| *x *= f);
        }
    });
}

/// Every element.
pub fn all(t: &Table, act: Act, x: &mut [f32]) {
    match act {
        Act::Silu => (t.silu)(x),
        Act::GeluTanh => (t.gelu)(x),
        Act::GeluErf => (t.gelu_erf)(x),
        _ => x.iter_mut().for_each(|x| *x = value(act, *x)),
    }
}

/// One element.
pub fn value(act: Act, x: f32) -> f32 {
    match act {
        Act::Silu => x * sigmoid(x),
        Act::GeluTanh => 0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)).tanh()),
        Act::GeluErf => 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
        Act::GeluQuick => x * sigmoid(1.702 * x),
        Act::Relu => x.max(0.0),
        Act::ReluSquared => x.max(0.0).powi(2),
        Act::Sigmoid => sigmoid(x),
        Act::Tanh => x.tanh(),
        Act::Sqrt => x.max(0.0).sqrt(),
        Act::ExpBelow => x.min(0.0).exp_m1() - x.min(0.0),
        Act::Identity => x,
        // Beyond, the sum is the exponential itself.
        Act::Softplus => {
            if x > 20.0 {
                x
            } else {
                x.exp().ln_1p()
            }
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
