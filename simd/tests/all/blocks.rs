//! Decoders against decoded blocks of ggml's own, bit for bit (those of folders, which ggml has not, against a few lines of
//! Python after the format's paper); encoders against their decoders.

use ir_simd::block_types;
use ir_simd::quant::{integers, *};

macro_rules! golden {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $feature:literal { $($rest:tt)* })*) => {
        &[$((
            DType::$name,
            include_bytes!(concat!("../data/", stringify!($name), ".bin")),
            include_bytes!(concat!("../data/", stringify!($name), ".f32")),
        )),*]
    };
}
/// Random blocks of every type and what they decode to, made for this project with the ggml library, those of folders without it.
const DECODED: &[(DType, &[u8], &[u8])] = block_types!(golden);

#[test]
fn decoding_is_bit_exact() {
    for (dtype, bytes, expected) in DECODED {
        let expected: Vec<u32> =
            expected.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut out = vec![0.0; expected.len()];
        decode(*dtype, bytes, &mut out).unwrap();
        assert!(expected.len() >= 16 * dtype.block_len(), "{dtype}: too few elements to show anything");
        for (i, (out, expected)) in out.iter().zip(&expected).enumerate() {
            assert_eq!(out.to_bits(), *expected, "{dtype} element {i}: {out} is not {}", f32::from_bits(*expected));
        }
    }
}

/// What a type's scale is set to is what its elements then scale with.
#[test]
fn scales_can_be_set() {
    for dtype in DType::ALL {
        let Some(traits) = &dtype.traits().groups else { continue };
        let mut block = DECODED.iter().find(|d| d.0 == *dtype).unwrap().1[..dtype.block_bytes()].to_vec();
        let mut decoded = [vec![0.0; dtype.block_len()], vec![0.0; dtype.block_len()]];
        for (out, scale) in decoded.iter_mut().zip([1.0, 8.0]) {
            (traits.set_scale)(&mut block, scale, 0.0);
            decode(*dtype, &block, out).unwrap();
        }
        assert!(decoded[0].iter().any(|x| *x != 0.0), "{dtype}");
        for (one, eight) in decoded[0].iter().zip(&decoded[1]) {
            assert_eq!(8.0 * one, *eight, "{dtype}");
        }
    }
}

/// Every f16 against its definition: sign, exponent, mantissa.
#[test]
fn f16_decodes_as_defined() {
    for bits in 0..=u16::MAX {
        let (sign, exponent, mantissa) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let magnitude = match exponent {
            0 => mantissa * 2f64.powi(-24),
            31 if mantissa == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            e => (1.0 + mantissa / 1024.0) * 2f64.powi(e - 15),
        };
        let expected = if sign == 1 { -magnitude } else { magnitude } as f32;
        let mut out = [0.0];
        decode(DType::F16, &bits.to_le_bytes(), &mut out).unwrap();
        let same = out[0].to_bits() == expected.to_bits() || out[0].is_nan() && expected.is_nan();
        assert!(same, "{bits:#06x}: {} is not {expected}", out[0]);
    }
}

/// Numbers that look like weights, from a fixed seed.
fn values(n: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (next() + next() + next()) * 0.04).collect()
}

/// Blocks as ggml's own encoders write them, in hexadecimal, of [`curve`].
const ENCODED: &[(DType, &str)] = &[
    (
        DType::Q2_K,
        "8b3a09bcafdc59690999fddbfbebc96a681f99d2a60542660543681f9992a6057226f5322bca047d11a3e88c1f9841108165\
        04467b1a98d1b5347d25f43226f9043d106f988c1f587d1c5a4726b4ed914c36f834",
    ),
    (
        DType::Q4_K,
        "3124fc2cfdfffcf0fcf9f4ea397bfcd9a0deb74b8b853b8c985fc2efb84c8b751a6b662d8fac74f7261fa4e4ef9507137d34\
        c7f5ce32817c01727e25b7d4ad004f39fe1e19f0315e16a9e7c1359580160869753dafcda5296852f748430a6c8951d403fd\
        81d1dd82e4f0b83b5932c606706b00616d2496b38c0f4e28dd1d18df314d1598c7a034847f2586925accfac3",
    ),
    (
        DType::Q5_K,
        "1820f62cfefffceffffff9ea28bbfdc816530a197f32a997d3416e53cb595ff005650cf5a7ab30a6602dbe9a53cae88060bc\
        7ea7261b671931bf94df81a816fb35d6ed5b2e58f9ff6c3f59e9ef4b0e37fb6a9ffbad7513f903e50d4a6fc94b019f53fd2e\
        24f064ae1d64d0827b2b103c11d3ea6a5faa4a52d0a3ff909605e913b2c916fb12b2ba05d8f08167c273ad1be0c500c2da47\
        3c76170f8c50aa2a21be619b2b319d506908fe3a0c25a4a9f4a6",
    ),
];

/// Values that are exact in f32 and in no order.
fn curve() -> Vec<f32> {
    (0..256).map(|i| ((i * i * 7919 + i * 31) % 1009) as f32 / 64.0 - 5.0).collect()
}

#[test]
fn types_with_scales_and_minima_are_encoded_as_ggml_does() {
    for (dtype, expected) in ENCODED {
        let mut bytes = Vec::new();
        encode(*dtype, &curve(), &mut bytes).unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, *expected, "{dtype}");
    }
}

/// What is decoded and encoded again is the same block, and an encoded value is at most about half a step away.
#[test]
fn encoders_round_to_the_nearest_step() {
    // The largest error in units of the block's largest magnitude: half a step, widened where the code is one-sided
    // (Q4_0 and Q5_0 clip the end opposite to the extreme by up to a step) and by the f16 rounding of scale and minimum.
    let bounds = [
        (DType::F32, 0.0),
        (DType::F16, 1.0 / 2048.0),
        (DType::BF16, 1.0 / 256.0),
        (DType::Q4_0, 1.01 / 8.0),
        (DType::Q4_1, 1.02 / 15.0),
        (DType::Q5_0, 1.01 / 16.0),
        (DType::Q5_1, 1.05 / 31.0),
        (DType::Q8_0, 0.57 / 127.0),
    ];
    let values = values(32 * 64);
    for (dtype, bound) in bounds {
        let mut bytes = Vec::new();
        encode(dtype, &values, &mut bytes).unwrap();
        let mut out = vec![0.0; values.len()];
        decode(dtype, &bytes, &mut out).unwrap();
        for (block, (values, out)) in values.chunks(32).zip(out.chunks(32)).enumerate() {
            let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (x, y) in values.iter().zip(out) {
                assert!((x - y).abs() <= largest * bound, "{dtype} block {block}: {x} became {y}");
            }
        }
    }
}

#[test]
fn encoders_take_zeros_and_what_is_no_number() {
    for dtype in [DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0] {
        for x in [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE / 4.0] {
            let mut bytes = Vec::new();
            encode(dtype, &[x; 32], &mut bytes).unwrap();
            let mut out = [1.0; 32];
            decode(dtype, &bytes, &mut out).unwrap();
            assert!(x != 0.0 || out.iter().all(|y| *y == 0.0), "{dtype}: zeros became {out:?}");
        }
    }
}

/// The root of the mean square error over that of the values, of every type that can be written; with weights, the error where
/// they are large is not worse than without.
#[test]
fn searched_blocks_are_near_their_values() {
    let bounds = [
        (DType::Q4_0, 0.1),
        (DType::Q5_1, 0.05),
        (DType::Q8_0, 0.01),
        (DType::Q2_K, 0.33),
        (DType::Q3_K, 0.18),
        (DType::Q4_K, 0.085),
        (DType::Q5_K, 0.042),
        (DType::Q6_K, 0.022),
        (DType::IQ4_NL, 0.09),
        (DType::IQ4_XS, 0.09),
        (DType::IQ3_S, 0.17),
        (DType::MXFP4, 0.16),
        (DType::TQ2_0, 0.75),
    ];
    let values = values(256 * 32);
    let columns: Vec<f32> = (0..512).map(|i| if i % 7 == 0 { 50.0 } else { 1.0 }).collect();
    for (dtype, bound) in bounds {
        let error = |bytes: &[u8], important: bool| {
            let mut out = vec![0.0; values.len()];
            decode(dtype, bytes, &mut out).unwrap();
            let w = |i: usize| if important { f64::from(columns[i % 512]) } else { 1.0 };
            let all = values.iter().zip(&out).enumerate();
            let (off, whole) = all.fold((0.0, 0.0), |(off, whole), (i, (x, y))| {
                (off + w(i) * f64::from(x - y).powi(2), whole + w(i) * f64::from(*x).powi(2))
            });
            (off / whole).sqrt()
        };
        let (mut plain, mut weighted) = (Vec::new(), Vec::new());
        encode(dtype, &values, &mut plain).unwrap();
        encode_for(dtype, &values, &columns, &mut weighted).unwrap();
        let (all, before, after) = (error(&plain, false), error(&plain, true), error(&weighted, true));
        println!("{dtype}: {all:.4}, weighted {before:.4} -> {after:.4}");
        assert!(all < bound, "{dtype}: {all} is not below {bound}");
        assert!(after <= before * 1.001, "{dtype}: weights made it worse, {before} to {after}");
        for x in [0.0, f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE / 4.0] {
            let mut bytes = Vec::new();
            encode(dtype, &[x; 256], &mut bytes).unwrap();
            let mut out = [1.0; 256];
            decode(dtype, &bytes, &mut out).unwrap();
            assert!(x != 0.0 || out.iter().all(|y| *y == 0.0), "{dtype}: zeros became {:?}", &out[..4]);
        }
    }
}

#[test]
fn lengths_are_checked() {
    assert!(decode(DType::Q8_0, &[0; 33], &mut [0.0; 32]).is_err());
    assert!(decode(DType::Q8_0, &[0; 34], &mut [0.0; 31]).is_err());
    assert!(encode(DType::Q8_0, &[0.0; 31], &mut Vec::new()).is_err());
    assert!(encode(DType::IQ1_S, &[0.0; 256], &mut Vec::new()).unwrap_err().to_string().contains("IQ1_S"));
    assert!(encode_for(DType::Q8_0, &[0.0; 64], &[1.0; 48], &mut Vec::new()).is_err());
}

#[test]
fn integers_come_back() {
    for (least, most) in [(-8, 7), (-15, 15), (-16, 14), (-128, 127)] {
        let dtype = integers::holding(least, most).unwrap();
        let levels: [i32; 32] = std::array::from_fn(|i| least + (i as i32 * 7) % (most - least + 1));
        let mut bytes = Vec::new();
        integers::push(dtype, 0.25, &levels, &mut bytes);
        let mut out = [0.0; 32];
        decode(dtype, &bytes, &mut out).unwrap();
        assert_eq!(out.map(|x| (x * 4.0) as i32), levels, "{dtype}");
        integers::multiply(dtype, &mut bytes, 4.0);
        decode(dtype, &bytes, &mut out).unwrap();
        assert_eq!(out.map(|x| x as i32), levels, "{dtype}");
    }
    assert!(integers::holding(-129, 0).is_none() && integers::holds(0.1f32.round()) && !integers::holds(0.1));
}

/// The value of a byte of [`DType::F8_E4M3`].
fn of_byte(byte: u8) -> f32 {
    let mut out = [0.0];
    decode(DType::F8_E4M3, &[byte], &mut out).unwrap();
    out[0]
}

/// The byte that a number becomes.
fn to_byte(x: f32) -> u8 {
    let mut out = Vec::new();
    encode(DType::F8_E4M3, &[x], &mut out).unwrap();
    out[0]
}

#[test]
fn floats_of_8_bits_have_the_values_of_the_format() {
    let cases =
        [(0x00, 0.0), (0x01, 0.001953125), (0x08, 0.015625), (0x38, 1.0), (0x3c, 1.5), (0x7e, 448.0), (0xc0, -2.0)];
    for (byte, expected) in cases {
        assert_eq!(of_byte(byte), expected, "{byte:#x}");
    }
    assert!(of_byte(0x7f).is_nan() && of_byte(0xff).is_nan());
    assert_eq!(of_byte(0x80).to_bits(), (-0.0f32).to_bits());
}

/// By looking at all of them.
#[test]
fn numbers_become_the_nearest_float_of_8_bits() {
    for byte in 0..=255u8 {
        assert_eq!(to_byte(of_byte(byte)), byte, "{byte:#x}");
    }
    for i in -5000..5000 {
        let x = i as f32 * 0.1 + (i as f32 * 1e-4).powi(3);
        let off = |byte: &u8| (of_byte(*byte) - x).abs();
        let best = (0..=255).filter(|byte| byte & 127 != 127).map(|byte| off(&byte)).fold(f32::MAX, f32::min);
        assert_eq!(off(&to_byte(x)), best, "{x}");
    }
    assert_eq!([f32::INFINITY, -1e9, f32::NAN].map(to_byte), [0x7e, 0xfe, 0x7f]);
    // Half way, also between the least steps.
    assert_eq!([1.0625, 1.1875, 0.0009765625].map(to_byte), [0x38, 0x3a, 0x00]);
}
