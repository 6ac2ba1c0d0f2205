//! Random plans: buffers are shared only where no op could tell, and a plan in two parts is the whole.

use super::slots::live_ranges;
use super::*;
use crate::bytes::Bytes;
use crate::dtype::DType;
use proptest::prelude::*;

fn matrix(rec: &mut Recorder, rows: usize, cols: usize) -> WeightId {
    let segment =
        Segment { name: "w".into(), dtype: DType::F32, rows, bytes: Bytes::default(), row_bytes: cols * 4, offset: 0 };
    rec.weight(Weight { name: "w".into(), cols, segments: vec![segment] })
}

/// Appends one op chosen by `pick` on one of the slots so far.
fn random_op(rec: &mut Recorder, slots: &mut Vec<(Slot, usize)>, pick: usize, which: usize) -> Result<()> {
    let (x, cols) = slots[which % slots.len()];
    let other = slots.iter().rev().find(|(y, c)| *y != x && *c == cols).map(|(y, _)| *y);
    let norm = Norm { kind: NormKind::Rms, eps: 1e-5, group: cols, weight: None, bias: None };
    let norm = which.is_multiple_of(2).then_some(norm);
    match pick % 7 {
        0 => {
            let rows = [8, 16, 24][which % 3];
            let product = Product { norm, ..matrix(rec, rows, cols).into() };
            slots.push((rec.linear(x, product)?, rows));
        }
        1 => {
            let weight = Some(matrix(rec, cols, 1));
            let norm = Norm { kind: NormKind::Layer, eps: 1e-5, group: cols, weight, bias: None };
            slots.push((rec.norm(rec.all(x), norm)?, cols));
        }
        2 => slots.push((rec.glu(x, Gated::plain(Act::Silu))?, cols / 2)),
        3 => other.map_or(Ok(()), |y| rec.add(x, y, 0.5))?,
        4 => {
            let product = Product { norm, ..matrix(rec, 2 * cols, cols).into() };
            slots.push((rec.linear_glu(x, product, Gated::plain(Act::Relu))?, cols));
        }
        5 => {
            if let Some(y) = other {
                let product = Product { norm, ..matrix(rec, cols, cols).into() };
                rec.linear_add(x, product, y, 1.0)?;
            }
        }
        _ => {
            let rope =
                rec.rope_table(RopeTable { style: RopeStyle::Halves, inv_freq: vec![1.0], magnitude: 1.0, long: None });
            rec.rope(rec.all(x), cols, 0, rope)?;
        }
    }
    slots.retain(|(_, cols)| *cols >= 4);
    Ok(())
}

/// Slots that share a buffer live one after the other.
fn no_op_reads_and_writes_one_buffer(plan: &Plan) -> Result<(), TestCaseError> {
    let live = live_ranges(&plan.ops, plan.slots.len());
    for (i, a) in plan.slots.iter().enumerate() {
        for (j, b) in plan.slots.iter().enumerate().skip(i + 1) {
            let (Some((a0, a1)), Some((b0, b1))) = (live[i], live[j]) else { continue };
            prop_assert!(
                a.buffer != b.buffer || a1 < b0 || b1 < a0,
                "slots {i} and {j} share a buffer in ops {a0}..={a1} and {b0}..={b1}"
            );
        }
    }
    for slot in plan.slots.iter().filter(|s| s.buffer != usize::MAX) {
        prop_assert!(plan.buffers[slot.buffer].cols >= slot.cols && plan.buffers[slot.buffer].rows == slot.rows);
    }
    Ok(())
}

/// Runs the stages over buffers that hold, instead of numbers, which slot was written last and by which of its writers: no
/// part reads a buffer that holds something else than the whole plan would have there.
fn every_stage_finds_what_it_needs(plan: &Plan, division: &Division) -> Result<(), TestCaseError> {
    let mut whole = vec![0; plan.slots.len()]; // how often each slot was written
    let mut parts: Vec<Vec<Option<(Slot, usize)>>> =
        division.parts.iter().map(|p| vec![None; p.buffers.len()]).collect();
    for stage in &division.stages {
        let place = |part: usize, slot: Slot| division.parts[part].slot(slot).buffer;
        for (from, slot) in &stage.enters {
            let held = parts[*from][place(*from, *slot)];
            prop_assert_eq!(held, Some((*slot, whole[slot.0 as usize])));
            parts[stage.part][place(stage.part, *slot)] = held;
        }
        for entry in &division.parts[stage.part].ops[stage.ops.clone()] {
            for slot in entry.op.reads() {
                let version = whole[slot.0 as usize];
                let held = parts[stage.part][place(stage.part, slot)];
                prop_assert!(version == 0 || held == Some((slot, version)), "{slot:?}: {held:?}, not {version}");
            }
            for slot in entry.op.scratch() {
                parts[stage.part][place(stage.part, slot)] = None;
            }
            if let Some(slot) = entry.op.writes() {
                whole[slot.0 as usize] += 1;
                parts[stage.part][place(stage.part, slot)] = Some((slot, whole[slot.0 as usize]));
            }
        }
    }
    let last = |slot: Slot| {
        division.parts.iter().zip(&parts).any(|(plan, held)| {
            let buffer = plan.slot(slot).buffer;
            buffer != usize::MAX && held[buffer] == Some((slot, whole[slot.0 as usize]))
        })
    };
    prop_assert!(last(plan.logits));
    Ok(())
}

proptest! {
    #[test]
    fn buffers_are_shared_only_if_no_op_can_tell(
        steps in proptest::collection::vec((0usize..7, 0usize..50), 1..80),
        parts in proptest::collection::vec(0usize..3, 1..80),
    ) {
        let mut rec = Recorder::new();
        let table = matrix(&mut rec, 10, 16);
        let first = rec.embed(table, Lookup::Token).unwrap();
        let mut slots = vec![(first, 16)];
        for (pick, which) in steps {
            random_op(&mut rec, &mut slots, pick, which).unwrap();
        }
        let taken = rec.take_rows(slots[0].0).unwrap();
        let plan = rec.finish(taken);
        no_op_reads_and_writes_one_buffer(&plan)?;
        let part_of: Vec<usize> = (0..plan.ops.len()).map(|i| parts[i % parts.len()]).collect();
        let division = plan.divide(&part_of).unwrap();
        for part in &division.parts {
            no_op_reads_and_writes_one_buffer(part)?;
        }
        every_stage_finds_what_it_needs(&plan, &division)?;
    }
}

#[test]
fn slots_name_the_forms_that_their_readers_take() {
    let mut rec = Recorder::new();
    let x = rec.input(Rows::Tokens, 32);
    let block =
        Segment { name: "q".into(), dtype: DType::Q8_0, rows: 8, bytes: Bytes::default(), row_bytes: 34, offset: 0 };
    let blocks = rec.weight(Weight { name: "q".into(), cols: 32, segments: vec![block.clone()] });
    let gate = rec.weight(Weight { name: "g".into(), cols: 32, segments: vec![Segment { rows: 64, ..block }] });
    let plain = matrix(&mut rec, 8, 32);
    let norm = Norm { kind: NormKind::Rms, eps: 1e-5, group: 32, weight: None, bias: None };
    let gated = rec.linear_glu(x, Product { norm: Some(norm), ..gate.into() }, Gated::plain(Act::Silu)).unwrap();
    let y = rec.linear(gated, blocks).unwrap();
    let z = rec.linear(gated, plain).unwrap();
    rec.add(y, z, 1.0).unwrap();
    let other = rec.norm(rec.all(x), norm).unwrap();
    let only = rec.linear(other, blocks).unwrap();
    let plan = rec.finish(only);
    let readers = |slot: Slot| (plan.slot(slot).readers.floats, plan.slot(slot).readers.blocks);
    assert_eq!(readers(x), (true, false), "a norm reads f32");
    assert_eq!(readers(gated), (true, true));
    assert_eq!(readers(other), (false, true));
    assert_eq!(readers(only), (true, false), "results are given back as f32");
}

#[test]
fn a_cache_in_two_parts_is_refused() {
    let mut rec = Recorder::new();
    let x = rec.input(Rows::Tokens, 16);
    let layer = rec.kv_layer(KvShape { n_kv_heads: 1, k_dim: 16, v_dim: 16, v_in_k: false });
    let w = matrix(&mut rec, 48, 16);
    let heads = Heads {
        layer,
        n_heads: 1,
        clamp: None,
        q_norm: None,
        k_norm: None,
        v_norm: None,
        rope: None,
        norms_after_rope: false,
    };
    let q = rec.linear_heads(x, w, heads).unwrap();
    let seen = rec.attend(q, Attend::plain(layer, 1, 1.0)).unwrap();
    let plan = rec.finish(seen);
    let error = plan.divide(&[0, 1]).unwrap_err().to_string();
    assert_eq!(error, "cache 0 would be used by two parts of the plan:  needs it where it lies");
    assert!(plan.divide(&[0, 0]).is_ok() && plan.divide(&[1, 1]).is_ok() && plan.divide(&[0]).is_err());
}

#[test]
fn wrong_shapes_are_refused_by_name() {
    let mut rec = Recorder::new();
    rec.scope("blk.0.attn");
    let table = matrix(&mut rec, 10, 16);
    let x = rec.embed(table, Lookup::Token).unwrap();
    let w = matrix(&mut rec, 8, 15);
    let error = rec.linear(x, w).unwrap_err().to_string();
    assert_eq!(error, "blk.0.attn: w takes 15 columns, but its input has 16");
    assert!(rec.view(x, 10, 7).is_err());
    assert!(rec.add(x, x, 1.0).is_err());
}

proptest! {
    #[test]
    fn micro_batches_are_the_rows_of_the_step(lengths in prop::collection::vec(1usize..9, 1..9), n in 1usize..7, within: bool) {
        let mut step = Inputs::default();
        for (seq, length) in lengths.iter().enumerate() {
            step.tables.push(vec![seq as u32]);
            for position in 0..*length as u32 {
                let row = step.push(100 * seq as u32 + position, position, seq as u32);
                if (row + seq as u32).is_multiple_of(3) {
                    step.changes.push(Change { row: step.outputs.len() as u32, token: row, bias: 0.0, factor: 1.0, penalty: 0.0 });
                    step.outputs.push(row);
                    step.wants.push(Want::Pick { draw: [row, 0], scale: 0.0, least: 0.0 });
                }
            }
        }
        step.adapters = step.seqs.iter().flat_map(|seq| [*seq as f32, 1.0]).collect();
        let batches = step.micro_batches(n, within);
        prop_assert!(batches.len() <= n.min(step.n_rows()) && batches.iter().all(|batch| batch.n_rows() > 0));
        let (mut row, mut output) = (0, 0);
        for batch in &batches {
            prop_assert!(batch.check(10_000, 10).is_ok());
            for (i, own) in batch.outputs.iter().enumerate() {
                prop_assert_eq!(step.outputs[output + i], own + row as u32);
            }
            prop_assert_eq!(&batch.wants, &step.wants[output..][..batch.wants.len()]);
            prop_assert_eq!(batch.wants.len(), batch.outputs.len());
            for change in &batch.changes {
                prop_assert_eq!(step.outputs[output + change.row as usize], change.token);
            }
            for i in 0..batch.n_rows() {
                let seq = step.seqs[row];
                prop_assert_eq!((batch.tokens[i], batch.positions[i]), (step.tokens[row], step.positions[row]));
                prop_assert_eq!(&batch.tables[batch.seqs[i] as usize], &step.tables[seq as usize]);
                prop_assert_eq!(batch.state(batch.seqs[i], i).to, seq);
                prop_assert_eq!(batch.adapters[2 * i..][..2].to_vec(), [seq as f32, 1.0]);
                row += 1;
            }
            let ends = row == step.n_rows() || step.seqs[row] != step.seqs[row - 1];
            prop_assert!(within || ends, "a sequence was cut");
            output += batch.outputs.len();
        }
        prop_assert_eq!((row, output), (step.n_rows(), step.outputs.len()));
        prop_assert_eq!(batches.iter().map(|batch| batch.changes.len()).sum::<usize>(), step.changes.len());
    }
}
