//! Random plans: buffers are shared only where no group could tell.

use super::slots::live_ranges;
use super::*;
use crate::bytes::Bytes;
use crate::dtype::DType;
use proptest::prelude::*;

fn matrix(rec: &mut Recorder, rows: usize, cols: usize) -> WeightId {
    let segment = Segment { name: "w".into(), dtype: DType::F32, rows, bytes: Bytes::default(), row_bytes: cols * 4 };
    rec.weight(Weight { name: "w".into(), cols, segments: vec![segment] })
}

/// Appends one op chosen by `pick` on one of the slots so far; grouped as `fused` says.
fn random_op(
    rec: &mut Recorder,
    slots: &mut Vec<(Slot, usize)>,
    pick: usize,
    which: usize,
) -> Result<(), crate::error::Error> {
    let (x, cols) = slots[which % slots.len()];
    match pick % 5 {
        0 => {
            let rows = [8, 16, 24][which % 3];
            let w = matrix(rec, rows, cols);
            slots.push((rec.linear(x, w, None)?, rows));
        }
        1 => {
            let w = matrix(rec, cols, 1);
            slots.push((rec.norm(rec.all(x), w, NormKind::Rms, 1e-5, cols)?, cols));
        }
        2 => slots.push((rec.glu(x, Act::Silu)?, cols / 2)),
        3 => {
            let other = slots.iter().rev().find(|(y, c)| *y != x && *c == cols);
            if let Some((y, _)) = other {
                rec.add(x, *y)?;
            }
        }
        _ => {
            let rope = rec.rope_table(RopeTable { style: RopeStyle::Halves, inv_freq: vec![1.0], magnitude: 1.0 });
            rec.rope(rec.all(x), cols, rope)?;
        }
    }
    slots.retain(|(_, cols)| *cols >= 4);
    Ok(())
}

proptest! {
    #[test]
    fn no_group_reads_and_writes_one_buffer(steps in proptest::collection::vec((0usize..5, 0usize..50, 1usize..4), 1..60)) {
        let mut rec = Recorder::new();
        let table = matrix(&mut rec, 10, 16);
        let first = rec.embed(table).unwrap();
        let mut slots = vec![(first, 16)];
        for (pick, which, n) in steps {
            rec.fuse(|rec| (0..n).try_for_each(|i| random_op(rec, &mut slots, pick + i, which + i))).unwrap();
        }
        let taken = rec.take_rows(slots[0].0).unwrap();
        let plan = rec.finish(taken);
        let live = live_ranges(&plan.ops, plan.slots.len());
        for (i, a) in plan.slots.iter().enumerate() {
            for (j, b) in plan.slots.iter().enumerate().skip(i + 1) {
                if a.buffer != b.buffer || live[i].is_none() || live[j].is_none() {
                    continue;
                }
                let ((a0, a1), (b0, b1)) = (live[i].unwrap(), live[j].unwrap());
                prop_assert!(a1 < b0 || b1 < a0, "slots {i} and {j} share a buffer in groups {a0}..={a1} and {b0}..={b1}");
            }
        }
        for slot in plan.slots.iter().filter(|s| s.buffer != usize::MAX) {
            prop_assert!(plan.buffers[slot.buffer].cols >= slot.cols && plan.buffers[slot.buffer].rows == slot.rows);
        }
        prop_assert!(plan.ops.windows(2).all(|w| w[0].group == w[1].group || w[0].group + 1 == w[1].group));
    }
}

#[test]
fn wrong_shapes_are_refused_by_name() {
    let mut rec = Recorder::new();
    rec.scope("blk.0.attn");
    let table = matrix(&mut rec, 10, 16);
    let x = rec.embed(table).unwrap();
    let w = matrix(&mut rec, 8, 15);
    let error = rec.linear(x, w, None).unwrap_err().to_string();
    assert_eq!(error, "blk.0.attn: w takes 15 columns, but its input has 16");
    assert!(rec.view(x, 10, 7).is_err());
    assert!(rec.add(x, x).is_err());
}
