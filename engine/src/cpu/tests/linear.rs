//! Products of every table, by rows, chunks and threads.

use super::*;
use ir_simd::exam::{Random, tables};

fn segment(dtype: DType, rows: usize, bytes: &[u8]) -> Segment {
    let (bytes, row_bytes) = (bytes.to_vec().into(), bytes.len() / rows);
    Segment { name: String::new(), dtype, rows, bytes, row_bytes, offset: 0 }
}

/// Every table gives the same bits for a row alone, among few, and among many, with any number of threads.
#[test]
fn batches_and_threads_change_no_bit() {
    let mut random = Random(21);
    let mut scratch = Scratch::default();
    for table in tables() {
        for (i, dtype) in DType::ALL.iter().enumerate() {
            let k = [256, 512, 768, 1280][i % 4];
            let other = DType::ALL[(i * 5 + 1) % DType::ALL.len()];
            let w = [random.weights(*dtype, 37 * k, 0.1), random.weights(other, 21 * k, 0.1)];
            let segments = [segment(*dtype, 37, &w[0]), segment(other, 21, &w[1])];
            // So many that the form for many rows is used.
            let (rows, n) = (if table.of(*dtype).rows.is_some() { MORE_ROWS + 2 } else { 37 }, 58);
            let (x, bias) = (random.floats(rows * k), random.floats(n));
            let mut run = |threads, x: &[f32]| {
                let mut out = vec![f32::NAN; x.len() / k * n];
                let (pool, mode) = (Pool::new(threads), Activations::Bf16);
                linear(table, &pool, &mut scratch, &segments, k, x, mode, None, Some(&bias), &mut out);
                out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let single: Vec<u32> = x.chunks_exact(k).flat_map(|x| run(1, x)).collect();
            assert!(single.iter().all(|v| f32::from_bits(*v).is_finite()));
            assert_eq!(run(1, &x), single, "{} {dtype} all rows", table.name);
            assert_eq!(run(3, &x), single, "{} {dtype} three threads", table.name);
            let chunked: Vec<u32> = x.chunks(5 * k).flat_map(|x| run(2, x)).collect();
            assert_eq!(chunked, single, "{} {dtype} chunks of 5", table.name);
        }
    }
}

/// Plain types of any width, against the definition computed here.
#[test]
fn plain_types_of_any_width() {
    let mut random = Random(22);
    let mut scratch = Scratch::default();
    let pool = Pool::new(2);
    for table in tables() {
        for k in [1, 5, 31, 33, 70, 2048, 2049, 4200] {
            for rows in [1, 3, 9, 40] {
                let n = 19;
                let w = random.weights(DType::F32, n * k, 1.0);
                let x = random.floats(rows * k);
                let mut out = vec![f32::NAN; rows * n];
                let segments = [segment(DType::F32, n, &w)];
                linear(table, &pool, &mut scratch, &segments, k, &x, Activations::F32, None, None, &mut out);
                let w: Vec<f64> =
                    w.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
                for (i, got) in out.iter().enumerate() {
                    let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                    let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * w);
                    // A few roundings for short rows; for long ones as many as their magnitude allows.
                    let most = 1e-5 + f64::from(f32::EPSILON) * products().map(f64::abs).sum::<f64>();
                    let off = (f64::from(*got) - products().sum::<f64>()).abs();
                    assert!(off < most, "{} k={k} rows={rows}: {off} above {most}", table.name);
                }
            }
        }
    }
}
