//! Which buffer each slot lives in: live ranges over ops, and few buffers for many slots.

use super::{BufferInfo, Entry, Op, Readers, Rows, Slot, SlotInfo, Weight};

/// A slot before it has a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub rows: Rows,
    pub cols: usize,
}

/// Slots whose contents come from elsewhere, or are wanted elsewhere.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Slots that are filled before an op.
    pub enters: Vec<(usize, Slot)>,
    /// Slots that are read before an op; `usize::MAX`: behind the last one.
    pub leaves: Vec<(usize, Slot)>,
}

/// First and last op that uses each slot; `None` for slots that no op touches.
pub(super) fn live_ranges(ops: &[Entry], n_slots: usize) -> Vec<Option<(usize, usize)>> {
    let mut live = vec![None; n_slots];
    for (i, entry) in ops.iter().enumerate() {
        let op = &entry.op;
        for slot in op.reads().into_iter().chain(op.writes()).chain(op.scratch()) {
            let range = live[slot.0 as usize].get_or_insert((i, i));
            range.1 = i;
        }
    }
    live
}

/// Assigns buffers. Two slots share one only if the live range of the first ends at an op before the one at which the
/// second begins, so no op reads and writes one buffer except in place. Kept slots live from or to where they are copied.
pub(super) fn assign(
    ops: &[Entry],
    shapes: &[Shape],
    weights: &[Weight],
    kept: &Kept,
) -> (Vec<SlotInfo>, Vec<BufferInfo>) {
    let mut live = live_ranges(ops, shapes.len());
    for (at, slot) in &kept.enters {
        let (first, last) = live[slot.0 as usize].unwrap_or((*at, *at));
        live[slot.0 as usize] = Some((first.min(*at), last.max(*at)));
    }
    for (at, slot) in &kept.leaves {
        let until = if *at == usize::MAX { usize::MAX } else { at.saturating_sub(1) };
        live[slot.0 as usize] = live[slot.0 as usize].map(|(first, last)| (first, last.max(until)));
    }
    let mut order: Vec<usize> = (0..shapes.len()).filter(|i| live[*i].is_some()).collect();
    order.sort_by_key(|i| live[*i].map(|r| r.0));
    let mut buffers: Vec<(BufferInfo, usize)> = Vec::new(); // with the last op that uses it
    let mut buffer_of = vec![usize::MAX; shapes.len()];
    for i in order {
        let Some((first, last)) = live[i] else { continue };
        let shape = shapes[i];
        // The free buffer that wastes least; one that must grow only if none is wide enough.
        let free =
            (0..buffers.len()).filter(|b| buffers[*b].0.rows == shape.rows && buffers[*b].1 < first).min_by_key(|b| {
                let cols = buffers[*b].0.cols;
                (cols < shape.cols, cols.abs_diff(shape.cols))
            });
        let b = free.unwrap_or_else(|| {
            buffers.push((BufferInfo { rows: shape.rows, cols: 0 }, 0));
            buffers.len() - 1
        });
        buffers[b].0.cols = buffers[b].0.cols.max(shape.cols);
        buffers[b].1 = last;
        buffer_of[i] = b;
    }
    let mut readers = readers(ops, shapes.len(), weights);
    kept.leaves.iter().for_each(|(_, slot)| readers[slot.0 as usize].floats = true);
    let slots = shapes.iter().zip(buffer_of).zip(readers);
    let slots = slots.map(|((s, buffer), readers)| SlotInfo { rows: s.rows, cols: s.cols, buffer, readers });
    (slots.collect(), buffers.into_iter().map(|b| b.0).collect())
}

/// What the readers of each slot take.
fn readers(ops: &[Entry], n_slots: usize, weights: &[Weight]) -> Vec<Readers> {
    let mut all = vec![Readers::default(); n_slots];
    for entry in ops {
        for slot in entry.op.reads() {
            let blocks = match entry.op {
                Op::Linear { x, norm: None, weight, .. } | Op::ExpertLinear { x, weight, .. } if x == slot => {
                    weights[weight.0 as usize].segments.iter().all(|s| !s.dtype.is_plain())
                }
                _ => false,
            };
            let readers = &mut all[slot.0 as usize];
            *readers = Readers { floats: readers.floats | !blocks, blocks: readers.blocks | blocks };
        }
    }
    all
}
