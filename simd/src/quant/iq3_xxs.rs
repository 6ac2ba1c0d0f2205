//! IQ3_XXS: 256 elements in fours that are rows of a grid, with signs; 4-bit scales for 32 each. `block_iq3_xxs`.

use bytemuck::{Pod, Zeroable};

use super::grid::{ONES, negated, row, two_fours, with_parity};
use super::half::{f16, to_f16};
use super::planes::{Planes, put};
use super::{Block, Groups};

/// 256 elements in 8 groups of 32: `(d * (scale + 0.5) / 2) * q`. A group has eight indices into the grid, of four elements
/// each, and a `u32` with four times 7 bits of signs below the 4-bit scale.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes IQ3_XXS, and so do the files")]
#[repr(C)]
pub struct IQ3_XXS {
    /// f16 scale of the scales.
    pub d: [u8; 2],
    /// Indices.
    pub qs: [u8; 64],
    /// Signs and scales.
    pub signs: [u8; 32],
}

impl Block for IQ3_XXS {
    const USUAL: (f32, f32) = (1.4e-4, 0.0);
    const GRID: &'static [u32] = &GRID;

    fn groups(&self, out: &mut Groups) {
        let d = f16(self.d);
        for (g, (signs, quants)) in self.signs.chunks_exact(4).zip(out.quants.chunks_exact_mut(32)).enumerate() {
            let word = u32::from_le_bytes([signs[0], signs[1], signs[2], signs[3]]);
            out.scales[g] = d * (0.5 + (word >> 28) as f32) * 0.5;
            for (l, quants) in quants.chunks_exact_mut(8).enumerate() {
                let at = 8 * g + 2 * l;
                let q = two_fours([at, at + 1].map(|i| row(&GRID, usize::from(self.qs[i]))));
                // 8 q + 4, but 62 for 7.
                let levels = 8 * q + 4 * ONES + 2 * (q & q >> 1 & q >> 2 & ONES);
                quants.copy_from_slice(&negated(levels, with_parity(word >> (7 * l))));
            }
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &[], &self.signs, &self.d);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}

/// The grid, ggml's `iq3xxs_grid`: 256 rows of four elements, four bits each, for 4, 12, 20, 28, 36, 44, 52 and 62.
pub(crate) static GRID: [u32; 128] = [
    0x00020000, 0x00110004, 0x00170013, 0x00220020, 0x00420031, 0x00750073, 0x01030101, 0x01120110, 0x01250121,
    0x01320130, 0x01540141, 0x02000170, 0x02040202, 0x02200211, 0x02310222, 0x02370233, 0x02570251, 0x03010275,
    0x03100307, 0x03250312, 0x04130370, 0x04440437, 0x04730457, 0x05010475, 0x05320507, 0x06350552, 0x07100664,
    0x07160714, 0x07610743, 0x10031001, 0x10121010, 0x10231021, 0x10321030, 0x10471034, 0x11001050, 0x11111102,
    0x11221120, 0x12031201, 0x12121210, 0x12301221, 0x13001272, 0x13201302, 0x13461331, 0x14011366, 0x14501405,
    0x15241520, 0x15711546, 0x17221605, 0x20001740, 0x20112002, 0x20202013, 0x20262022, 0x20422031, 0x21032101,
    0x21102105, 0x21212112, 0x21632130, 0x21702167, 0x22022200, 0x22172211, 0x22222220, 0x22402237, 0x23012255,
    0x23142310, 0x23742370, 0x24532435, 0x25272503, 0x25742541, 0x27032701, 0x27452716, 0x30103001, 0x30213012,
    0x30503023, 0x30723065, 0x31023100, 0x31313120, 0x31463144, 0x32033201, 0x32253210, 0x32723252, 0x33333311,
    0x34473430, 0x35003472, 0x35223506, 0x36143555, 0x36633636, 0x37603733, 0x40174004, 0x40374035, 0x40574053,
    0x42204174, 0x42404237, 0x42664260, 0x43454307, 0x44514404, 0x45254464, 0x45704543, 0x47104705, 0x47304712,
    0x50415012, 0x51005070, 0x51265106, 0x52145155, 0x52725232, 0x53535302, 0x54235410, 0x54725427, 0x55315502,
    0x57245650, 0x60245742, 0x60466044, 0x61216064, 0x62176161, 0x63306264, 0x64446336, 0x65526505, 0x67036633,
    0x70036721, 0x70077005, 0x70327010, 0x71267052, 0x72127140, 0x72527245, 0x73157300, 0x73607333, 0x74417421,
    0x75027500, 0x76307524,
];
