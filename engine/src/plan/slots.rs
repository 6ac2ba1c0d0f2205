//! Which buffer each slot lives in: live ranges over fusion groups, and few buffers for many slots.

use super::{BufferInfo, Entry, Rows, Slot};

/// A slot before it has a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub rows: Rows,
    pub cols: usize,
}

/// First and last group in which each slot is used; `None` for slots no op touches.
pub(super) fn live_ranges(ops: &[Entry], n_slots: usize) -> Vec<Option<(usize, usize)>> {
    let mut live = vec![None; n_slots];
    for entry in ops {
        for slot in entry.op.reads().into_iter().chain(entry.op.writes()) {
            let range = live[slot.0 as usize].get_or_insert((entry.group, entry.group));
            range.1 = entry.group;
        }
    }
    live
}

/// Assigns buffers. Two slots share one only where the live range of the first ends in a group before the one in which
/// the second begins, so no group reads and writes one buffer except through a declared in-place op.
/// What a step gives back lives to the end: the logits, and what is pooled.
pub(super) fn assign(
    ops: &[Entry],
    shapes: &[Shape],
    logits: Slot,
    pooled: Option<Slot>,
) -> (Vec<usize>, Vec<BufferInfo>) {
    let mut live = live_ranges(ops, shapes.len());
    for kept in std::iter::once(logits).chain(pooled) {
        if let Some(range) = &mut live[kept.0 as usize] {
            range.1 = usize::MAX;
        }
    }
    let mut order: Vec<usize> = (0..shapes.len()).filter(|i| live[*i].is_some()).collect();
    order.sort_by_key(|i| live[*i].map(|r| r.0));
    let mut buffers: Vec<(BufferInfo, usize)> = Vec::new(); // with the last group that uses it
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
    (buffer_of, buffers.into_iter().map(|b| b.0).collect())
}
