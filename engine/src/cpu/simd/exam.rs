//! The exam of the tables: every entry of every table that this machine has, against the scalar definition.

use super::q8::{Q8, Q8Row};
use super::unpack::Groups;
use super::{Table, available, scalar};
use crate::dtype::DType;

/// A small generator with a fixed seed (xorshift64*), so that a failure can be seen again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Evenly in -1 to 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// Random blocks: any quants, block scales (F16 fields) of magnitude `scale` times -1 to 1.
    fn weights(&mut self, dtype: DType, n: usize, scale: f32) -> Vec<u8> {
        let bytes = dtype.bytes_for(n).unwrap();
        let mut out: Vec<u8> = (0..bytes).map(|_| self.next() as u8).collect();
        let fields: &[usize] = match dtype {
            DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
            DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
            DType::Q2_K => &[80, 82],
            DType::Q3_K => &[108],
            DType::Q6_K => &[208],
            DType::F32 | DType::F16 | DType::BF16 => &[],
        };
        for block in out.chunks_exact_mut(dtype.block_bytes()) {
            for at in fields {
                block[*at..at + 2].copy_from_slice(&half::f16::from_f32(scale * self.float()).to_le_bytes());
            }
            match dtype {
                DType::F32 => block.copy_from_slice(&(scale * self.float()).to_le_bytes()),
                DType::F16 => block.copy_from_slice(&half::f16::from_f32(scale * self.float()).to_le_bytes()),
                DType::BF16 => block.copy_from_slice(&half::bf16::from_f32(scale * self.float()).to_le_bytes()),
                _ => {}
            }
        }
        out
    }
}

fn quantised_types() -> impl Iterator<Item = DType> {
    DType::ALL.iter().copied().filter(|d| super::unpack::group_len(*d).is_some())
}

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut groups = Groups::new();
    let mut out = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    for (block, out) in bytes.chunks_exact(dtype.block_bytes()).zip(out.chunks_exact_mut(dtype.block_len())) {
        scalar::decode(dtype, block, &mut groups, out);
    }
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

/// The integer form of every block equals ggml's own decoding, bit for bit.
#[test]
fn blocks_decode_as_ggml_does() {
    let shared = std::env::var_os("IR_SHARED").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        std::path::PathBuf::from,
    );
    for dtype in DType::ALL {
        let Ok(bytes) = std::fs::read(shared.join(format!("quants/{dtype}.bin"))) else {
            eprintln!("skipped: no reference blocks of {dtype} in the shared folder");
            continue;
        };
        let expected = std::fs::read(shared.join(format!("quants/{dtype}.f32"))).unwrap();
        let expected: Vec<u32> = expected.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        let got: Vec<u32> = decode(*dtype, &bytes).iter().map(|v| v.to_bits()).collect();
        assert!(!got.is_empty());
        assert_eq!(got, expected, "{dtype}");
    }
}

/// Quantising the activations moves a result by at most half a step of each block times the weights' magnitudes.
#[test]
fn quantised_activations_stay_within_half_a_step() {
    let mut random = Random(7);
    let table = &scalar::TABLE;
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
    for table in available() {
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
