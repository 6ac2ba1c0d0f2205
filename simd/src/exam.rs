//! What tests of tables are made with: random numbers and blocks, and every table that this machine can run, also those that
//! are not handed out. Nothing else uses it.

use crate::quant::{self, DType};
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd", feature = "exam"))]
pub use crate::wasm::exam as wasm;
use crate::{Table, available};

#[cfg(target_arch = "x86_64")]
pub use crate::avx2::exam as avx2;

/// A small generator with a fixed seed (xorshift64*), so that a failure can be seen again.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// 64 bits.
    #[allow(clippy::should_implement_trait, reason = "it is no iterator: it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Evenly in -1 to 1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    /// So many of these.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// Random blocks: any quants, block scales and minima of magnitude `scale` times -1 to 1.
    pub fn weights(&mut self, dtype: DType, n: usize, scale: f32) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(traits) = &dtype.traits().groups else {
            let values: Vec<f32> = (0..n).map(|_| scale * self.float()).collect();
            quant::encode(dtype, &values, &mut out).expect("plain types can be written");
            return out;
        };
        out.extend((0..dtype.bytes_for(n).expect("whole blocks")).map(|_| self.next() as u8));
        for block in out.chunks_exact_mut(dtype.block_bytes()) {
            (traits.set_scale)(block, scale * self.float(), scale * self.float());
        }
        out
    }
}

/// The tables of this machine, each with the shared loop for every block type, and what older processors use of them.
pub fn tables() -> Vec<&'static Table> {
    available().into_iter().flat_map(|table| [Some(table), decoded(table.name), older(table)]).flatten().collect()
}

/// The table of processors without VBMI.
fn older(table: &Table) -> Option<&'static Table> {
    #[cfg(target_arch = "x86_64")]
    if table.name == crate::avx512::TABLE.name {
        return Some(&crate::avx512::TABLE);
    }
    let _ = table;
    None
}

/// A table with the shared loop for every block type.
fn decoded(name: &str) -> Option<&'static Table> {
    Some(match name {
        #[cfg(target_arch = "x86_64")]
        "avx2" => &crate::avx2::DECODED,
        #[cfg(target_arch = "x86_64")]
        "avx512" => &crate::avx512::DECODED,
        #[cfg(target_arch = "aarch64")]
        "neon" => &crate::neon::base::DECODED,
        #[cfg(target_arch = "aarch64")]
        "neon-dot" => &crate::neon::dot::DECODED,
        #[cfg(all(
            target_arch = "wasm32",
            target_feature = "simd128",
            any(not(target_feature = "relaxed-simd"), feature = "exam")
        ))]
        "simd128" => &crate::wasm::plain::DECODED,
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        "relaxed-pairs" => &crate::wasm::pairs::DECODED,
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        "relaxed-dot" => &crate::wasm::dot::DECODED,
        _ => return None,
    })
}
