//! What an encoder gives does not depend on how many groups it searches at once. One at a time is the definition.

use ir_simd::encoders;
use ir_simd::quant::encode::encode_blocks;
use ir_simd::quant::*;

/// Numbers that look like weights, from a seed.
fn random(n: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (next() + next() + next()) * 0.04).collect()
}

/// Values of all kinds in whole blocks of every type, as many as are no multiple of what is encoded at once.
fn cases() -> Vec<(String, Vec<f32>)> {
    const N: usize = 256 * 9;
    let weights = random(N, 7);
    let mut cases = vec![("random".to_owned(), weights.clone())];
    for x in [0.0, -0.0, 0.37, -0.37, f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE / 4.0, 1e-15] {
        cases.push((format!("all {x}"), vec![x; N]));
        let mut some = weights.clone();
        some.iter_mut().step_by(89).for_each(|v| *v = x);
        some.iter_mut().skip(40).step_by(401).for_each(|v| *v = -x);
        cases.push((format!("some {x}"), some));
    }
    for factor in [1e-38, 1e-13, 1e6, 1e18, 1e38] {
        cases.push((format!("times {factor}"), weights.iter().map(|x| x * 30.0 * factor).collect()));
    }
    cases.push(("above 0".to_owned(), weights.iter().map(|x| x.abs()).collect()));
    cases.push(("below 0".to_owned(), weights.iter().map(|x| -x.abs()).collect()));
    cases.push(("halves".to_owned(), weights.iter().map(|x| (x * 200.0).round() * 0.5).collect()));
    let of_group = |(i, x): (usize, &f32)| x * [0.0, 1e-16, 1e10, 1.0, 1e-4][i / 16 % 5];
    cases.push(("mixed".to_owned(), weights.iter().enumerate().map(of_group).collect()));
    cases
}

/// Weights of the columns of rows of these values: none, uneven ones, and some zeros.
fn columns() -> Vec<Option<Vec<f32>>> {
    let uneven: Vec<f32> = random(256 * 3, 11).iter().map(|x| x.abs() * 100.0).collect();
    let zeros = uneven.iter().enumerate().map(|(i, w)| if i / 16 % 3 == 0 { 0.0 } else { *w }).collect();
    vec![None, Some(uneven), Some(zeros)]
}

/// Encodes every case by two encoders of a type.
fn expect_same(dtype: DType, one: Encoder, other: Encoder) {
    for (name, values) in cases() {
        for (i, important) in columns().iter().enumerate() {
            let mut bytes = [(); 2].map(|()| vec![0; dtype.bytes_for(values.len()).unwrap()]);
            one(&values, important.as_deref(), &mut bytes[0]);
            other(&values, important.as_deref(), &mut bytes[1]);
            let block = bytes[0].iter().zip(&bytes[1]).position(|(a, b)| a != b).map(|at| at / dtype.block_bytes());
            assert_eq!(block, None, "{dtype}, {name}, weights {i}: a block differs");
        }
    }
}

macro_rules! encoder {
    (yes $lanes:literal, $len:literal, $block:ty) => {
        Some(encode_blocks::<$lanes, $len, $block> as Encoder)
    };
    (no $lanes:literal, $len:literal, $block:ty) => {
        None
    };
}

macro_rules! encoders {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $feature:literal {
        block: $len:literal x $bytes:literal, decode: $kind:ident $($group:literal)?, encode: $encode:ident, $($rest:tt)*
    })*) => {
        &[$((DType::$name, encoder!($encode 1, $len, $block), encoder!($encode 4, $len, $block))),*]
    };
}

/// The encoders of every type, of one group at a time and of four.
const ENCODERS: &[(DType, Option<Encoder>, Option<Encoder>)] = block_types!(encoders);

#[test]
fn groups_side_by_side_are_encoded_as_alone() {
    let mut n = 0;
    for (dtype, one, four) in ENCODERS {
        let (Some(one), Some(four), Some(usual)) = (*one, *four, dtype.encoder()) else { continue };
        expect_same(*dtype, one, four);
        expect_same(*dtype, one, usual);
        n += 1;
    }
    assert!(n >= 15, "only {n} types");
}

#[test]
fn vectors_are_encoded_as_their_lanes_alone() {
    for dtype in DType::ALL {
        let (Some(here), Some(definition)) = (encoders::encoder(*dtype), dtype.encoder()) else { continue };
        expect_same(*dtype, definition, here);
    }
}

#[test]
fn halves_are_decoded_as_defined() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut out = [vec![0.0; 1 << 16], vec![0.0; 1 << 16]];
    encoders::decode(DType::F16, &bytes, &mut out[0]).unwrap();
    decode(DType::F16, &bytes, &mut out[1]).unwrap();
    assert!(out[0].iter().zip(&out[1]).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()));
}
