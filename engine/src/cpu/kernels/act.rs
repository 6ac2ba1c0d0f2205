//! `act`: activations, element by element.

use crate::cpu::pool::Pool;
use crate::cpu::simd::SQRT_2_OVER_PI;
use crate::plan::Act;

/// Elements one task takes: enough to outweigh handing it out.
const CHUNK: usize = 4096;

/// `x = act(x)`.
pub fn act(pool: &Pool, x: &mut [f32], act: Act) {
    pool.chunks_mut(x, CHUNK, |_, x| x.iter_mut().for_each(|x| *x = value(act, *x)));
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
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
