//! Attention: rows that share the reading of pages.

use super::*;
use crate::cpu::kernels::kv_write::kv_write;
use crate::plan::{KvKind, KvShape, Slot, View};
use ir_simd::exam::{Random, tables};

fn columns(data: &[f32], width: usize) -> Columns<'_> {
    Columns { data, width, view: View { slot: Slot(0), start: 0, cols: width } }
}

/// Rows that share the reading of pages give the same bits as each alone, on every table, from any position on.
#[test]
fn rows_together_equal_each_alone() {
    let mut random = Random(31);
    for t in tables() {
        for (kind, k_dim, v_dim, n_heads, window) in [
            (KvKind::F16, 64, 64, 4, None),
            (KvKind::F32, 20, 8, 2, Some(33)),
            (KvKind::F16, 80, 80, 8, Some(7)),
            (KvKind::F16, 100, 36, 16, None),
            (KvKind::Blocks8, 64, 32, 8, Some(40)),
        ] {
            let shape = KvShape { n_kv_heads: 2, k_dim, v_dim, v_in_k: false };
            let mut layer = KvLayer::new(kind, shape, 0, 16).unwrap();
            let tables = vec![(0..8).collect(), (8..16).rev().collect()];
            let (positions, seqs) = ((0..100).chain(0..70).collect(), [[0; 100].as_slice(), &[1; 70]].concat());
            let all = Inputs { tokens: vec![0; 170], positions, seqs, tables, ..Inputs::default() };
            let (k, v) = (random.floats(170 * 2 * k_dim), random.floats(170 * 2 * v_dim));
            kv_write(t, &all, columns(&k, 2 * k_dim), None, Some(columns(&v, 2 * v_dim)), &mut layer);
            let (q_cols, out_cols) = (n_heads * k_dim, n_heads * v_dim);
            let q = random.floats(170 * q_cols);
            let op = Attend {
                n_heads,
                scale: 0.2,
                cap: None,
                mask: AttentionMask::Causal,
                window,
                chunk: None,
                chosen: None,
                temperature: None,
                slopes: None,
                relative: None,
                sinks: None,
            };
            let run = |rows: Range<usize>, threads: usize| {
                let (positions, seqs) = (all.positions[rows.clone()].to_vec(), all.seqs[rows.clone()].to_vec());
                let inputs = Inputs { positions, seqs, ..all.clone() };
                let q = columns(&q[rows.start * q_cols..rows.end * q_cols], q_cols);
                let mut out = vec![f32::NAN; rows.len() * out_cols];
                attend(t, &Pool::new(threads), &mut Vec::new(), &inputs, q, &layer, op, &mut out);
                out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let alone: Vec<u32> = (0..170).flat_map(|r| run(r..r + 1, 1)).collect();
            assert!(alone.iter().all(|v| f32::from_bits(*v).is_finite()));
            assert_eq!(run(0..170, 1), alone, "{} {kind:?} {k_dim}", t.name);
            assert_eq!(run(0..170, 3), alone, "{} {kind:?} {k_dim}", t.name);
            assert_eq!(run(37..131, 1), alone[37 * out_cols..131 * out_cols], "{} {kind:?} {k_dim}", t.name);
        }
    }
}
