//! IQ2_XXS: 256 elements in eights that are rows of a grid, with signs; 4-bit scales for 32 each. `block_iq2_xxs`.

use bytemuck::{Pod, Zeroable};

use super::grid::{levels, row, with_parity};
use super::half::{f16, to_f16};
use super::planes::{Planes, put};
use super::{Block, Groups};

/// 256 elements in 8 groups of 32: `(d * (scale + 0.5) / 4) * q`. A group has 8 bytes of `qs`: four indices into the grid,
/// and a `u32` with four times 7 bits of signs below the 4-bit scale.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes IQ2_XXS, and so do the files")]
#[repr(C)]
pub struct IQ2_XXS {
    /// f16 scale of the scales.
    pub d: [u8; 2],
    /// Indices, signs and scales.
    pub qs: [u8; 64],
}

impl Block for IQ2_XXS {
    const USUAL: (f32, f32) = (3.7e-4, 0.0);
    const GRID: &'static [u32] = &GRID;

    fn groups(&self, out: &mut Groups) {
        let d = f16(self.d);
        for (g, (qs, quants)) in self.qs.chunks_exact(8).zip(out.quants.chunks_exact_mut(32)).enumerate() {
            let word = u32::from_le_bytes([qs[4], qs[5], qs[6], qs[7]]);
            out.scales[g] = d * (0.5 + (word >> 28) as f32) * 0.25;
            for (l, quants) in quants.chunks_exact_mut(8).enumerate() {
                quants.copy_from_slice(&levels(row(&GRID, usize::from(qs[l])), with_parity(word >> (7 * l))));
            }
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &[], &[], &self.d);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}

/// The grid, ggml's `iq2xxs_grid`: 256 rows of eight elements, two bits each.
pub(crate) static GRID: [u32; 128] = [
    0x00020000, 0x00080005, 0x0011000a, 0x00200014, 0x00280022, 0x0041002a, 0x00500044, 0x00610058, 0x00800064,
    0x008a0082, 0x010100a2, 0x01100104, 0x01400115, 0x01980184, 0x02020200, 0x02820222, 0x04040401, 0x04210410,
    0x04400424, 0x04480442, 0x04810460, 0x04900484, 0x050004a4, 0x05080502, 0x05460520, 0x05800569, 0x06090591,
    0x06400610, 0x06a40684, 0x08050800, 0x08140808, 0x08410828, 0x08500844, 0x08880852, 0x09400904, 0x0a140a02,
    0x10041001, 0x10211010, 0x10601040, 0x10901084, 0x11001095, 0x11201108, 0x115a1150, 0x12241180, 0x14001245,
    0x14201408, 0x14491425, 0x15181480, 0x16001562, 0x18011616, 0x18101804, 0x18811840, 0x19051900, 0x1a5119a0,
    0x20022000, 0x2044200a, 0x20802061, 0x21292082, 0x22002148, 0x24012202, 0x24102404, 0x24562440, 0x25412500,
    0x26902564, 0x28202808, 0x2a442894, 0x40044001, 0x40184010, 0x40244021, 0x40484040, 0x40604056, 0x40844081,
    0x41004090, 0x41614120, 0x41854180, 0x42104201, 0x42564248, 0x44004268, 0x44204408, 0x44994480, 0x45244512,
    0x48014600, 0x48104804, 0x48454840, 0x49584900, 0x49824961, 0x4a904a45, 0x50085000, 0x50195011, 0x50805020,
    0x51045088, 0x51a45142, 0x54905291, 0x550a5492, 0x56545601, 0x58115800, 0x58645819, 0x5a085940, 0x60106004,
    0x60686040, 0x61556100, 0x62606218, 0x64056400, 0x65126510, 0x68426584, 0x80028000, 0x8041800a, 0x81048082,
    0x81408118, 0x84018211, 0x84108404, 0x84408415, 0x85008460, 0x85948546, 0x86408609, 0x88028660, 0x8a118904,
    0x90109004, 0x90409024, 0x911690a1, 0x92459180, 0x94229400, 0x95519444, 0x99209881, 0xa050a002, 0xa109a085,
    0xa418a200, 0xa904a850,
];
