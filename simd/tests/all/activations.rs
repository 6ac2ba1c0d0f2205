//! The exam of activations: every table's are those of the scalar one.

use super::tables::fast;
use ir_simd::exam::Random;
use ir_simd::{SCALAR, Table};

/// An activation of a table.
type Of = fn(&Table) -> fn(&mut [f32]);
const ALL: [(&str, Of); 3] = [("silu", |t| t.silu), ("gelu", |t| t.gelu), ("gelu_erf", |t| t.gelu_erf)];

/// What tables may differ by, relatively to the result and to what the activation is of: tanh near 0 loses what 1 + tanh rounds
/// away.
const BOUND: f32 = 1e-6;

#[test]
fn activations_equal_scalar() {
    let mut random = Random(17);
    for (t, (name, of)) in fast().flat_map(|t| ALL.map(|act| (t, act))) {
        for n in [1, 2, 7, 8, 15, 16, 17, 33, 64, 100, 1000] {
            let x: Vec<f32> = random.floats(n).iter().map(|x| 4.0 * x).collect();
            let (mut got, mut expected) = (x.clone(), x.clone());
            of(t)(&mut got);
            of(SCALAR)(&mut expected);
            for ((x, got), expected) in x.iter().zip(got).zip(expected) {
                let near = (got - expected).abs() <= BOUND * (expected.abs() + x.abs());
                assert!(near, "{} {name} of {x}: {got} and {expected}", t.name);
            }
        }
    }
}

#[test]
fn activations_end_as_the_scalar_ones() {
    let special = [f32::NAN, f32::INFINITY, 1e30, -1e30, 0.0, -0.0, 20.0, -20.0];
    for (t, (name, of)) in fast().flat_map(|t| ALL.map(|act| (t, act))) {
        let (mut got, mut expected) = (special, special);
        of(t)(&mut got);
        of(SCALAR)(&mut expected);
        for ((x, got), expected) in special.iter().zip(got).zip(expected) {
            // Exponentials end at e^88.
            let near = (got - expected).abs() <= BOUND * expected.abs() + 1e-8;
            let same = got.is_nan() && expected.is_nan() || got == expected || near;
            assert!(same, "{} {name} of {x}: {got} and {expected}", t.name);
        }
    }
}
