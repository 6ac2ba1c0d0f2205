//! The exam of the tables: every entry of every table that this machine has, against the scalar definition.

use ir_simd::dot_rows::ROWS;
use ir_simd::exam::{Random, tables};
use ir_simd::q8::{Q8, Q8Row};
use ir_simd::quant::{self, DType, Groups};
use ir_simd::{PLAIN_BLOCK, SCALAR, Table};

fn quantised_types() -> impl Iterator<Item = DType> {
    DType::ALL.iter().copied().filter(|d| !d.is_plain())
}

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    quant::decode(dtype, bytes, &mut out).unwrap();
    out
}

fn quantised(table: &Table, x: &[&[f32]]) -> Q8 {
    let mut q8 = Q8::default();
    q8.resize(x.len(), x[0].len());
    for (row, x) in q8.rows_mut().zip(x) {
        (table.quantise)(x, row);
    }
    q8
}

/// Quantising the activations moves a result by at most half a step of each block times the weights' magnitudes.
#[test]
fn quantised_activations_stay_within_half_a_step() {
    let mut random = Random(7);
    let table = SCALAR;
    for dtype in quantised_types() {
        for _ in 0..20 {
            let k = 512;
            let (w, x) = (random.weights(dtype, k, 0.1), random.floats(k));
            let q8 = quantised(table, &[&x]);
            let mut out = [0.0];
            (table.of(dtype).dots_q8)(&w, &[q8.row(0)], &mut out);
            let values = decode(dtype, &w);
            let bound: f32 = (0..k).map(|i| values[i].abs() * q8.row(0).scales[i / 32] * 0.5).sum();
            let rounding: f32 = 1e-4 * (0..k).map(|i| (values[i] * x[i]).abs()).sum::<f32>() + 1e-4;
            let expected = table.dot_row(dtype, &w, &x);
            assert!((out[0] - expected).abs() <= bound + rounding, "{dtype}: {} against {expected}", out[0]);
        }
    }
}

/// A scalar result does not depend on what is computed beside it.
#[test]
fn many_equal_single() {
    let mut random = Random(8);
    for table in tables() {
        for dtype in quantised_types() {
            let k = 768;
            let w = random.weights(dtype, k, 0.1);
            let x: Vec<Vec<f32>> = (0..8).map(|_| random.floats(k)).collect();
            let x: Vec<&[f32]> = x.iter().map(Vec::as_slice).collect();
            let q8 = quantised(table, &x);
            let rows: Vec<Q8Row<'_>> = (0..8).map(|r| q8.row(r)).collect();
            let (mut many, mut single) = ([0.0; 8], [0.0; 1]);
            (table.of(dtype).dots_q8)(&w, &rows, &mut many);
            for r in 0..8 {
                (table.of(dtype).dots_q8)(&w, &rows[r..r + 1], &mut single);
                assert_eq!(single[0].to_bits(), many[r].to_bits(), "{} {dtype}", table.name);
            }
            (table.of(dtype).dots_f32)(&w, &x, &mut many);
            for r in 0..8 {
                assert_eq!(table.dot_row(dtype, &w, x[r]).to_bits(), many[r].to_bits(), "{} {dtype}", table.name);
            }
        }
    }
}

/// Two orders of adding up n floats differ by at most about n units in the last place (6e-8) of the sum of
/// magnitudes; the rows here have at most 64 terms a lane.
const SUM_ORDER: f32 = 4e-6;

/// The sum of the magnitudes that a dot product adds up.
fn magnitude(dtype: DType, w: &[u8], x: &[f32]) -> f32 {
    let Some(traits) = &dtype.traits().groups else {
        return decode(dtype, w).iter().zip(x).map(|(w, x)| (w * x).abs()).sum();
    };
    let mut groups = Groups::ZERO;
    let mut sum = 0.0;
    for (block, x) in w.chunks_exact(dtype.block_bytes()).zip(x.chunks_exact(dtype.block_len())) {
        (traits.read)(block, &mut groups);
        for (i, x) in x.iter().enumerate() {
            let (scale, min) = (groups.scales[i / traits.len], groups.mins[i / traits.len]);
            sum += ((scale * f32::from(groups.quants[i])).abs() + min.abs()) * x.abs();
        }
    }
    sum
}

/// The tables beside the scalar one.
pub(crate) fn fast() -> impl Iterator<Item = &'static Table> {
    let tables = tables();
    eprintln!("tables here: {}", tables.iter().map(|t| t.name).collect::<Vec<_>>().join(" "));
    tables.into_iter().skip(1)
}

/// Row lengths: one block, whole units of every instruction set, and rests of every length class.
fn lengths(dtype: DType) -> Vec<usize> {
    match dtype.block_len() {
        1 => vec![1, 3, 15, 16, 17, 31, 33, 64, 100, 2048],
        32 => vec![32, 64, 96, 128, 224, 256, 480, 512, 544, 1504, 2048],
        // Plain types are multiplied in parts of 2,048 columns.
        n if dtype.is_plain() => [1, 2, 3, 5, 8, 17, 33].map(|blocks| blocks * n).to_vec(),
        n => [1, 2, 3, 5, 8].map(|blocks| blocks * n).to_vec(),
    }
}

#[test]
fn dots_equal_scalar() {
    let mut random = Random(9);
    for table in fast() {
        for dtype in DType::ALL {
            for k in lengths(*dtype) {
                for (rows, offset, scale) in [(1, 0, 0.1), (2, 1, 0.1), (8, 2, 1e-7), (3, 3, 60000.0)] {
                    let mut bytes = vec![0; offset];
                    bytes.extend(random.weights(*dtype, k, scale));
                    let w = &bytes[offset..];
                    let x: Vec<Vec<f32>> = (0..rows).map(|_| random.floats(k)).collect();
                    let x: Vec<&[f32]> = x.iter().map(Vec::as_slice).collect();
                    let (mut got, mut expected) = (vec![0.0; rows], vec![0.0; rows]);
                    let check = |form: &str, got: &[f32], expected: &[f32]| {
                        for r in 0..rows {
                            let bound = SUM_ORDER * magnitude(*dtype, w, x[r]);
                            let (g, e) = (got[r], expected[r]);
                            assert!((g - e).abs() <= bound, "{} {form} {dtype} k={k}: {g} and {e}", table.name);
                        }
                    };
                    (table.of(*dtype).dots_f32)(w, &x, &mut got);
                    (SCALAR.of(*dtype).dots_f32)(w, &x, &mut expected);
                    check("f32", &got, &expected);
                    if !dtype.is_plain() {
                        let q8 = quantised(table, &x);
                        let rows: Vec<Q8Row<'_>> = (0..rows).map(|r| q8.row(r)).collect();
                        (table.of(*dtype).dots_q8)(w, &rows, &mut got);
                        (SCALAR.of(*dtype).dots_q8)(w, &rows, &mut expected);
                        check("q8", &got, &expected);
                    }
                }
            }
        }
    }
}

/// The form for some rows gives the bits of the dots, block of columns by block; what is fetched ahead changes nothing.
#[test]
fn rows_equal_dots() {
    let mut random = Random(31);
    for table in fast() {
        for (dtype, kernel) in DType::ALL.iter().filter_map(|d| Some((*d, table.of(*d).rows?))) {
            for (k, n) in [(1, 2), (15, 1), (33, 5), (256, 4), (2048, 3), (4200, 5)] {
                let w = random.weights(dtype, n * k, 0.1);
                let row_bytes = w.len() / n;
                for count in 1..=ROWS {
                    let x: Vec<Vec<f32>> = (0..count).map(|_| random.floats(k)).collect();
                    let x: Vec<&[f32]> = x.iter().map(Vec::as_slice).collect();
                    let mut got = vec![0.0; count * n];
                    for block in 0..k.div_ceil(PLAIN_BLOCK) {
                        let mut sums = vec![f32::NAN; count * n];
                        kernel(&w, row_bytes, block, &x, &w[..row_bytes / 2], &mut sums);
                        got.iter_mut().zip(sums).for_each(|(to, sum)| *to = if block == 0 { sum } else { *to + sum });
                    }
                    for (i, w) in w.chunks(row_bytes).enumerate() {
                        let mut expected = vec![0.0; count];
                        (table.of(dtype).dots_f32)(w, &x, &mut expected);
                        let got: Vec<u32> = (0..count).map(|r| got[r * n + i].to_bits()).collect();
                        let expected: Vec<u32> = expected.iter().map(|v| v.to_bits()).collect();
                        assert_eq!(got, expected, "{} {dtype} k={k} row {i}", table.name);
                    }
                }
            }
        }
    }
}

/// Floats of 8 bits are few enough to look at all of them, NaN among them.
#[test]
fn every_float_of_8_bits_is_what_it_is_defined_as() {
    for table in tables() {
        for dtype in DType::ALL.iter().filter(|dtype| dtype.block_bytes() == 1) {
            for byte in 0..=255u8 {
                let (got, expected) = (table.dot_row(*dtype, &[byte], &[1.0]), decode(*dtype, &[byte])[0]);
                let same = got == expected || got.is_nan() && expected.is_nan();
                assert!(same, "{} {dtype} {byte:#x}: {got} is not {expected}", table.name);
            }
        }
    }
}

/// The extremes of the quants (all bits 0 or 1: -128, 255, every scale at its end) against activations at theirs.
#[test]
fn extreme_quants_are_exact() {
    for table in fast() {
        for dtype in quantised_types() {
            let fills = [0_u8, 255, 0x80, 0x7f, 0x88, 0xf0];
            for (fill, x) in fills.into_iter().flat_map(|fill| [(fill, 1.0), (fill, -1.0)]) {
                let k = 1280;
                let mut w = vec![fill; dtype.bytes_for(k).unwrap()];
                let (mut random, traits) = (Random(10), dtype.traits().groups.as_ref().unwrap());
                for block in w.chunks_exact_mut(dtype.block_bytes()) {
                    (traits.set_scale)(block, random.float(), random.float());
                }
                let x = vec![x; k];
                let q8 = quantised(table, &[&x]);
                let (mut got, mut expected) = ([0.0], [0.0]);
                (table.of(dtype).dots_q8)(&w, &[q8.row(0)], &mut got);
                (SCALAR.of(dtype).dots_q8)(&w, &[q8.row(0)], &mut expected);
                let bound = SUM_ORDER * magnitude(dtype, &w, &x);
                assert!(
                    (got[0] - expected[0]).abs() <= bound,
                    "{} {dtype} {fill:#x}: {got:?} {expected:?}",
                    table.name
                );
            }
        }
    }
}

#[test]
fn quantising_gives_the_same_bits() {
    let mut random = Random(11);
    let mut rows: Vec<Vec<f32>> = (0..20).map(|_| random.floats(96)).collect();
    rows.push(vec![0.0; 96]);
    rows.push(rows[0].iter().map(|v| v * 1e-38).collect());
    rows.push(rows[0].iter().map(|v| v * 3e38).collect());
    rows.push((0..96).map(|i| if i % 7 == 0 { 127.0 } else { i as f32 - 48.5 }).collect());
    for (i, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
        rows.push(rows[i].clone());
        rows.last_mut().unwrap()[40 + i] = bad;
    }
    for table in fast() {
        for x in &rows {
            let (got, expected) = (quantised(table, &[x]), quantised(SCALAR, &[x]));
            let (got, expected) = (got.row(0), expected.row(0));
            let bits = |scales: &[f32]| scales.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
            assert_eq!(got.quants, expected.quants, "{}", table.name);
            assert_eq!(bits(got.scales), bits(expected.scales), "{}", table.name);
            assert_eq!((got.sums, got.sums16), (expected.sums, expected.sums16), "{}", table.name);
        }
    }
}

/// A NaN or an infinity among the activations, or in a weight's scale, comes out as NaN.
#[test]
fn not_a_number_reaches_the_result() {
    let mut random = Random(12);
    for table in tables() {
        for dtype in quantised_types() {
            let mut x = random.floats(512);
            let mut w = random.weights(dtype, 512, 1.0);
            let run = |w: &[u8], x: &[f32]| {
                let (q8, mut out) = (quantised(table, &[x]), [0.0]);
                (table.of(dtype).dots_q8)(w, &[q8.row(0)], &mut out);
                out[0]
            };
            assert!(run(&w, &x).is_finite());
            let good = w.clone();
            (dtype.traits().groups.as_ref().unwrap().set_scale)(&mut w[..dtype.block_bytes()], f32::NAN, 0.0);
            // Not every format's scale can be NaN.
            let expected = decode(dtype, &w).iter().any(|v| v.is_nan());
            assert_eq!(run(&w, &x).is_nan(), expected, "{} {dtype}", table.name);
            x[300] = f32::INFINITY;
            assert!(run(&good, &x).is_nan(), "{} {dtype}", table.name);
        }
    }
}

/// The vectorised exponential is within this of the library's, relatively.
const EXP_ERROR: f32 = 3e-7;

#[test]
fn float_kernels_equal_scalar() {
    let mut random = Random(13);
    let s = SCALAR;
    for t in fast() {
        let near = |what: &str, got: f32, expected: f32, bound: f32| {
            assert!((got - expected).abs() <= bound, "{} {what}: {got} and {expected}", t.name);
        };
        for n in [1, 2, 7, 8, 15, 16, 17, 33, 64, 100, 1000] {
            let (x, y) = (random.floats(n), random.floats(n));
            let sum_abs = |f: &dyn Fn(usize) -> f32| (0..n).map(|i| f(i).abs()).sum::<f32>();
            near("dot", (t.dot)(&x, &y), (s.dot)(&x, &y), SUM_ORDER * sum_abs(&|i| x[i] * y[i]));
            near("sum", (t.sum)(&x), (s.sum)(&x), SUM_ORDER * sum_abs(&|i| x[i]));
            near("sum_squares", (t.sum_squares)(&x), (s.sum_squares)(&x), SUM_ORDER * sum_abs(&|i| x[i] * x[i]));
            near("max", (t.max)(&x), (s.max)(&x), 0.0);

            let both = |what: &str, bound: &dyn Fn(f32, usize) -> f32, f: &dyn Fn(&Table, &mut [f32])| {
                let (mut got, mut expected) = (y.clone(), y.clone());
                f(t, &mut got);
                f(s, &mut expected);
                for i in 0..n {
                    near(what, got[i], expected[i], bound(expected[i], i));
                }
            };
            let ulp = |v: f32, _: usize| 3e-7 * v.abs() + 1e-30;
            both("scale_mul", &|_, _| 0.0, &|t, out| (t.scale_mul)(&x, 1.7, &x, out));
            both("add", &|_, _| 0.0, &|t, out| (t.add)(out, &x));
            both("scale", &|_, _| 0.0, &|t, out| (t.scale)(out, 0.3));
            both("axpy", &|_, _| 3e-7, &|t, out| (t.axpy)(out, 1.3, &x));
            both("silu_mul", &|v, _| 1e-6 * v.abs(), &|t, out| (t.silu_mul)(&x, &x, out));
            // tanh near 0 loses what 1 + tanh rounds away: absolute, of the gate's magnitude.
            both("gelu_mul", &|v, i| 1e-6 * (v.abs() + x[i].abs()), &|t, out| (t.gelu_mul)(&x, &x, out));
            both("exp_sum", &ulp, &|t, out| {
                (t.exp_sum)(out, 1.0);
            });
            let mut wide: Vec<f32> = x.iter().map(|v| v * 60.0 - 60.0).collect();
            let mut wide2 = wide.clone();
            let (got, expected) = ((t.exp_sum)(&mut wide, 0.0), (s.exp_sum)(&mut wide2, 0.0));
            near("exp_sum", got, expected, (SUM_ORDER + EXP_ERROR) * expected + 2e-38 * n as f32);

            let mut bytes = [vec![0; n * 2], vec![0; n * 2]];
            (t.to_f16)(&x, &mut bytes[0]);
            (s.to_f16)(&x, &mut bytes[1]);
            assert_eq!(bytes[0], bytes[1], "{} to_f16", t.name);
            both("from_f16", &|_, _| 0.0, &|t, out| (t.from_f16)(&bytes[0], out));
        }
    }
}

#[test]
fn exp_is_within_its_bound() {
    for t in fast() {
        let mut worst = 0.0_f32;
        for start in (-873..880).map(|i| i as f32 * 0.1) {
            let mut x: Vec<f32> = (0..64).map(|i| start + i as f32 * 0.001_56).collect();
            let exact: Vec<f64> = x.iter().map(|v| f64::from(*v).exp()).collect();
            (t.exp_sum)(&mut x, 0.0);
            for (x, e) in x.iter().zip(exact) {
                if e > 1.2e-38 {
                    worst = worst.max((((f64::from(*x)) - e) / e).abs() as f32);
                }
            }
        }
        assert!(worst <= EXP_ERROR, "{}: {worst}", t.name);
        let mut x = [-100.0, f32::NEG_INFINITY, -0.0, f32::NAN, 1000.0];
        (t.exp_sum)(&mut x, 0.0);
        assert_eq!(x[..3], [0.0, 0.0, 1.0], "{}", t.name);
        assert!(x[3].is_nan() && x[4] > 1e38, "{}: {x:?}", t.name);
        assert_eq!((t.max)(&[f32::NAN, -1.0, f32::NAN]), -1.0);
        assert_eq!((t.max)(&[]), f32::NEG_INFINITY);
    }
}

#[test]
fn attention_equals_scalar() {
    let mut random = Random(14);
    for t in fast() {
        for dtype in [DType::F32, DType::F16] {
            for (head_dim, positions, rows) in
                [(1, 1, 1), (8, 16, 2), (16, 3, 1), (64, 16, 4), (80, 5, 3), (100, 16, 5), (128, 16, 7), (256, 15, 8)]
            {
                let mut bytes = vec![0; 1];
                bytes.extend(random.weights(dtype, 16 * head_dim, 1.0));
                let page = &bytes[1..];
                let q = random.floats(rows * head_dim);
                let weights = random.floats(rows * positions);
                let (mut got, mut expected) = (vec![0.0; rows * positions], vec![0.0; rows * positions]);
                (t.attend_scores)(dtype, &q, page, head_dim, positions, &mut got);
                (SCALAR.attend_scores)(dtype, &q, page, head_dim, positions, &mut expected);
                let bound = SUM_ORDER * head_dim as f32;
                assert!(got.iter().zip(&expected).all(|(g, e)| (g - e).abs() <= bound), "{} {dtype}", t.name);
                let (mut got, mut expected) = (q.clone(), q.clone());
                (t.attend_values)(dtype, &weights, page, head_dim, positions, &mut got);
                (SCALAR.attend_values)(dtype, &weights, page, head_dim, positions, &mut expected);
                let bound = SUM_ORDER * (positions + 1) as f32;
                assert!(got.iter().zip(&expected).all(|(g, e)| (g - e).abs() <= bound), "{} {dtype}", t.name);
                // One row alone gives the same bits as among others.
                let mut single = vec![0.0; positions];
                let mut many = vec![0.0; rows * positions];
                (t.attend_scores)(dtype, &q, page, head_dim, positions, &mut many);
                (t.attend_scores)(dtype, &q[..head_dim], page, head_dim, positions, &mut single);
                assert_eq!(single, many[..positions], "{} {dtype}", t.name);
            }
        }
    }
}

/// Sums of 16 bits, at every bound that a type's quants may have.
#[cfg(target_arch = "x86_64")]
#[test]
fn narrow_sums_hold_the_largest_products() {
    if !ir_simd::exam::avx2::narrow_sums_hold_the_largest_products() {
        println!("skipped: this processor has no AVX2");
    }
}
