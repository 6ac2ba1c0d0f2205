//! Weights on their way to the device: pieces of a file's tensors become whole rows, rows become planes or floats, and
//! those are written where they belong. One code for mapped files and for files that arrive in pieces.

use std::collections::BTreeMap;

use super::Gpu;
use super::constants::Constants;
use super::dispatch::Resource;
use super::memory::Memory;
use super::parts::Part;
use super::planes::{grid, plane_sizes, rearrange, units};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::plan::{Plan, Segment, WeightId};

/// Bytes of weights that stand in host memory at once on their way to the device, or not much more.
pub(super) const STAGING: usize = 8 << 20;
/// What a write costs the host beside its bytes, about: many small ones are waited for, too.
const PER_WRITE: usize = 4 << 10;

/// Where weights go.
pub(super) struct Target<'a> {
    pub gpu: &'a Gpu,
    pub plan: &'a Plan,
    pub parts: &'a [Vec<Part>],
    pub constants: &'a Constants,
    pub memory: &'a Memory,
}

/// What of the weights is between the host and the device.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Segments of which some bytes have come and not all.
    open: BTreeMap<(WeightId, usize), Fill>,
    /// Words of a part that two pieces share, by weight, part and place, with what has come of them.
    edges: BTreeMap<(WeightId, usize, u64), [u8; 4]>,
    /// Bytes written since the device was last waited for.
    written: usize,
}

/// A segment that is being filled.
#[derive(Debug, Default)]
struct Fill {
    /// Bytes of the segment that have come.
    fed: u64,
    /// The start of a row whose end has not come.
    carry: Vec<u8>,
    /// Elements of a vector, and the row of the first.
    floats: (usize, Vec<f32>),
    /// Rows of a part in planes, and where they go.
    planes: [Vec<u8>; 4],
    run: Option<Run>,
}

/// Neighbouring rows of a part.
#[derive(Debug, Clone, Copy)]
struct Run {
    part: usize,
    at: usize,
    n: usize,
}

impl Upload {
    /// Takes bytes of a segment from `offset` on; those before must have come.
    ///
    /// # Errors
    /// [`Error::Request`] where bytes were left out or are more than the segment's, or what the device says.
    pub(super) fn feed(&mut self, to: &Target<'_>, place: (WeightId, usize), offset: u64, bytes: &[u8]) -> Result<()> {
        let (id, index) = place;
        let weight = to.plan.weights.get(id.0 as usize);
        let Some(segment) = weight.and_then(|w| w.segments.get(index)) else {
            return Err(Error::request(format!("the plan has no segment {index} of weight {}", id.0)));
        };
        let mut fill = self.open.remove(&place).unwrap_or_default();
        let end = offset.saturating_add(bytes.len() as u64);
        if fill.fed != offset || end > segment.n_bytes() {
            let (name, due) = (&segment.name, fill.fed);
            return Err(Error::request(format!(
                "bytes {offset} to {end} of {name} were given where those from {due} on are due"
            )));
        }
        let first = weight.map_or(0, |w| w.segments[..index].iter().map(|s| s.rows).sum());
        self.take(to, id, segment, first, &mut fill, bytes)?;
        fill.fed = end;
        if end < segment.n_bytes() {
            self.open.insert(place, fill);
            return Ok(());
        }
        self.write_floats(to, id, &mut fill)?;
        self.write_run(to, id, &mut fill)
    }

    /// Ends the upload: waits until the device has everything, where waiting is possible.
    ///
    /// # Errors
    /// [`Error::Request`] where a segment was begun and not ended.
    pub(super) fn finish(&mut self, to: &Target<'_>) -> Result<()> {
        if let Some((id, _)) = self.open.keys().next() {
            return Err(Error::request(format!("{} was not given whole", to.plan.weight(*id).name)));
        }
        (self.edges, self.written) = (BTreeMap::new(), 0);
        to.gpu.flush()
    }

    /// Completes the row that was begun, takes the whole rows, and keeps the start of another. `first` is the segment's
    /// first row in the weight.
    fn take(
        &mut self,
        to: &Target<'_>,
        id: WeightId,
        segment: &Segment,
        first: usize,
        fill: &mut Fill,
        bytes: &[u8],
    ) -> Result<()> {
        let row_bytes = segment.row_bytes.max(1);
        let (mut row, mut bytes) = (first + (fill.fed / row_bytes as u64) as usize, bytes);
        if !fill.carry.is_empty() {
            let n = bytes.len().min(row_bytes - fill.carry.len());
            fill.carry.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if fill.carry.len() < row_bytes {
                return Ok(());
            }
            let mut carry = std::mem::take(&mut fill.carry);
            self.rows(to, id, segment, row, fill, &carry)?;
            row += 1;
            carry.clear();
            fill.carry = carry;
        }
        let whole = bytes.len() / row_bytes * row_bytes;
        self.rows(to, id, segment, row, fill, &bytes[..whole])?;
        fill.carry.extend_from_slice(&bytes[whole..]);
        Ok(())
    }

    /// Takes whole rows, the first of which is `row` of the weight.
    fn rows(
        &mut self,
        to: &Target<'_>,
        id: WeightId,
        segment: &Segment,
        row: usize,
        fill: &mut Fill,
        bytes: &[u8],
    ) -> Result<()> {
        let cols = to.plan.weight(id).cols;
        if to.constants.byte(id).is_some() {
            self.elements(to, id, segment.dtype, row, fill, bytes)?;
        }
        let parts = &to.parts[id.0 as usize];
        if parts.is_empty() {
            return Ok(());
        }
        let most = match STAGING / segment.row_bytes.max(1) {
            n if n > 8 => n / 8 * 8,
            n => n.max(1),
        };
        let (mut row, mut bytes) = (row, bytes);
        while !bytes.is_empty() {
            let (part, at, left) = locate(parts, row)
                .ok_or_else(|| Error::Device(format!("row {row} of {} has no place", segment.name)))?;
            let follows = |r: &Run| r.part == part && r.at + r.n == at && r.n < most;
            if !fill.run.as_ref().is_some_and(follows) {
                self.write_run(to, id, fill)?;
                fill.run = Some(Run { part, at, n: 0 });
            }
            let Some(run) = &mut fill.run else { continue };
            let n = left.min(most - run.n).min(bytes.len() / segment.row_bytes);
            let (now, rest) = bytes.split_at(n * segment.row_bytes);
            rearrange(segment.dtype, now, cols, &mut fill.planes);
            run.n += n;
            (row, bytes) = (row + n, rest);
        }
        Ok(())
    }

    /// Takes elements of a vector, the first of which is its element `row`.
    fn elements(
        &mut self,
        to: &Target<'_>,
        id: WeightId,
        dtype: DType,
        row: usize,
        fill: &mut Fill,
        bytes: &[u8],
    ) -> Result<()> {
        let element = dtype.block_bytes();
        for (i, bytes) in bytes.chunks(STAGING / 4 * element).enumerate() {
            let row = row + i * (STAGING / 4);
            let (first, floats) = &mut fill.floats;
            if floats.is_empty() {
                *first = row;
            }
            let held = floats.len();
            floats.resize(held + bytes.len() / element, 0.0);
            crate::quant::decode(dtype, bytes, &mut floats[held..])?;
            if floats.len() * 4 >= STAGING {
                self.write_floats(to, id, fill)?;
            }
        }
        Ok(())
    }

    fn write_floats(&mut self, to: &Target<'_>, id: WeightId, fill: &mut Fill) -> Result<()> {
        let (first, floats) = &mut fill.floats;
        if floats.is_empty() {
            return Ok(());
        }
        if let Some(byte) = to.constants.byte(id) {
            let (buffer, start) = (to.memory.get(Resource::Constants)?, byte + 4 * *first as u64);
            to.gpu.queue().write_buffer(buffer, start, bytemuck::cast_slice(floats));
            self.written += 4 * floats.len() + PER_WRITE;
        }
        floats.clear();
        self.pause(to.gpu)
    }

    fn write_run(&mut self, to: &Target<'_>, id: WeightId, fill: &mut Fill) -> Result<()> {
        let Some(run) = fill.run.take() else { return Ok(()) };
        let part = &to.parts[id.0 as usize][run.part];
        let before = plane_sizes(part.dtype, run.at as u64 * units(to.plan.weight(id).cols) as u64);
        let buffer = to.memory.get(Resource::Part(id, run.part));
        // The grid comes with the part's first row.
        if let (Ok(buffer), 0, grid @ [_, ..]) = (&buffer, run.at, grid(part.dtype)) {
            to.gpu.queue().write_buffer(buffer, 0, bytemuck::cast_slice(grid));
        }
        for (i, plane) in fill.planes.iter_mut().enumerate().filter(|(_, p)| !p.is_empty()) {
            // A weight that no kernel reads has parts and no buffer.
            if let Ok(buffer) = buffer {
                let start = self.whole_words((id, run.part), part.layout.starts[i] + before[i], plane);
                to.gpu.queue().write_buffer(buffer, start, plane);
                self.written += plane.len() + PER_WRITE;
            }
            plane.clear();
        }
        self.pause(to.gpu)
    }

    /// Makes the bytes that go to `start` of a part whole words of 4, as a device takes them: with what its neighbours had
    /// of the first and the last word. Gives the place of the first word.
    fn whole_words(&mut self, part: (WeightId, usize), start: u64, bytes: &mut Vec<u8>) -> u64 {
        let first = start / 4 * 4;
        let head = (start - first) as usize;
        let known =
            |edges: &BTreeMap<_, [u8; 4]>, at: u64| edges.get(&(part.0, part.1, at)).copied().unwrap_or_default();
        if head > 0 {
            let word = known(&self.edges, first);
            bytes.splice(..0, word[..head].iter().copied());
        }
        let tail = bytes.len() % 4;
        let last = first + (bytes.len() - tail) as u64;
        if tail > 0 {
            bytes.extend_from_slice(&known(&self.edges, last)[tail..]);
        }
        for (at, shared) in [(first, head > 0), (last, tail > 0)] {
            let word = bytes.get((at - first) as usize..).and_then(|rest| rest.first_chunk());
            if let Some(word) = word.filter(|_| shared) {
                self.edges.insert((part.0, part.1, at), *word);
            }
        }
        first
    }

    /// Waits for the device where much was written, so that its staging memory is given back.
    fn pause(&mut self, gpu: &Gpu) -> Result<()> {
        if self.written < STAGING {
            return Ok(());
        }
        self.written = 0;
        gpu.flush()
    }
}

/// The part that holds a row of a weight, the row's place there, and how many rows from it on are neighbours in both.
fn locate(parts: &[Part], row: usize) -> Option<(usize, usize, usize)> {
    parts.iter().enumerate().find_map(|(i, part)| part.place(row).map(|(at, left)| (i, at, left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_pieces_share_end_up_whole_in_any_order() {
        let whole: Vec<u8> = (1..=21).collect();
        let cuts = [0, 2, 3, 9, 10, 11, 17, 21];
        let pieces: Vec<_> = cuts.windows(2).map(|w| w[0]..w[1]).collect();
        for order in [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 5, 2, 4]] {
            let (mut upload, mut device) = (Upload::default(), vec![0; 24]);
            for i in order {
                let mut bytes = whole[pieces[i].clone()].to_vec();
                let start = upload.whole_words((WeightId(0), 0), pieces[i].start as u64, &mut bytes) as usize;
                assert!(start.is_multiple_of(4) && bytes.len().is_multiple_of(4));
                device[start..start + bytes.len()].copy_from_slice(&bytes);
            }
            assert_eq!(device[..21], whole, "{order:?}");
        }
    }
}
