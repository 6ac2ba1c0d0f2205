//! IQ1_M: as IQ1_S, with a shift for 8 and a 3-bit scale for 16 elements. `block_iq1_m`.

use bytemuck::{Pod, Zeroable};

use super::grid::{eighths, row};
use super::half::{f16, to_f16};
use super::iq1_s::GRID;
use super::planes::{Planes, put};
use super::{Block, Groups};

/// 256 elements in 16 groups of 16: `(d * (2 scale + 1)) * (q + delta)`. An index into the grid, for eight elements, has 8
/// bits in `qs` and 3 in a nibble of `qh`, whose fourth is the sign of `delta`. Each of the four `u16` of `scales` holds four
/// 3-bit scales below four bits of the f16 `d`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes IQ1_M, and so do the files")]
#[repr(C)]
pub struct IQ1_M {
    /// The indices' low 8 bits.
    pub qs: [u8; 32],
    /// The indices' upper bits and the shifts.
    pub qh: [u8; 16],
    /// The scales.
    pub scales: [u8; 8],
}

impl IQ1_M {
    fn words(&self) -> [u16; 4] {
        std::array::from_fn(|i| u16::from_le_bytes([self.scales[2 * i], self.scales[2 * i + 1]]))
    }
}

impl Block for IQ1_M {
    const USUAL: (f32, f32) = (2.8e-3, 0.0);
    const GRID: &'static [u32] = &GRID;

    fn groups(&self, out: &mut Groups) {
        let words = self.words();
        let d = words.iter().rev().fold(0, |d, word| d << 4 | word >> 12);
        let d = f16(d.to_le_bytes());
        for (g, out) in out.scales.iter_mut().enumerate() {
            // In eighths: exact, as f16 has far fewer bits than f32.
            *out = d * f32::from(2 * (words[g / 4] >> (g % 4 * 3) & 7) + 1) / 8.0;
        }
        for (l, quants) in out.quants.chunks_exact_mut(8).enumerate() {
            let high = self.qh[l / 2] >> (l % 2 * 4);
            let row = row(&GRID, usize::from(self.qs[l]) | usize::from(high & 7) << 8);
            quants.copy_from_slice(&eighths(row, high & 8 != 0));
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &self.qh, &[], &self.scales);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        let d = u16::from_le_bytes(to_f16(scale));
        for (i, (word, to)) in self.words().into_iter().zip(self.scales.chunks_exact_mut(2)).enumerate() {
            to.copy_from_slice(&(word & 0xfff | d >> (4 * i) << 12).to_le_bytes());
        }
    }
}
