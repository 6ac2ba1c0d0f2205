//! `ir-simd`: the storage types of weights ([`quant`]), and the hot inner loops over them: one [`Table`] of plain function
//! pointers per instruction set, chosen at run time. The scalar table is complete and is the definition; the others replace
//! what they improve and are held to it by the exam (`tests`). How the loops are spread over rows, columns and threads is the
//! engine's (`cpu::kernels`), not this crate's.
//!
//! A crate of its own because it is most of what there is to compile and the least of what changes, and because a module
//! for browsers is optimised for speed here and for size elsewhere.
#![allow(unsafe_code, reason = "SIMD intrinsics, and kernels over them that read blocks at any alignment")]
#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_feature = "simd128")),
    allow(unused, reason = "elsewhere the scalar table stands alone, and what the others share has no user")
)]
#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "not every instruction set uses all that they share")
)]

mod attend;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod decoded;
pub mod dot_rows;
mod dots;
mod eights;
#[cfg(not(target_arch = "wasm32"))]
pub mod encoders;
mod error;
pub mod exam;
mod floats;
mod formats;
mod grids;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod panels;
mod probe;
pub mod q8;
pub mod quant;
mod scalar;
mod table;
pub mod tile;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

pub use dots::PLAIN_BLOCK;
pub use error::{Error, Result};
pub use probe::is_exact;
use q8::{BLOCK, Q8Row, Q8RowMut};
use quant::DType;

/// Positions of one KV page.
pub const PAGE: usize = 16;

/// Blocks of activations whose largest magnitude is below this quantise to zeros: its inverse times 127 would overflow.
pub const MIN_QUANTISED: f32 = 1e-35;

/// The square root of 2 / pi, of GELU in its tanh form.
pub const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// The kernels of one instruction set. Every entry checks the lengths it is given and panics where they disagree (a
/// caller's bug: sizes from files are checked when a model is opened).
///
/// Each result depends only on its own rows, not on how many are computed together.
pub struct Table {
    /// The name that [`by_name`] knows.
    pub name: &'static str,
    /// Dot products by weight type, in the order of [`DType::ALL`]; read through [`Table::of`].
    pub types: [TypeKernels; DType::ALL.len()],
    /// The loops of block types without their own, for groups of 16 and of 32; the scalar table has none.
    pub shared: &'static [SharedKernels],
    /// As many products and sums of floats as the instruction set makes, in registers: how many they were, and a sum.
    pub peak_floats: fn(times: usize, x: f32) -> (u64, f32),
    /// The same of bytes, `x` from 0 to 127.
    pub peak_bytes: fn(times: usize, x: i8) -> (u64, f32),
    /// Quantises one row of activations (`k` floats) into a row of [`q8::Q8`]. The same bits on every table.
    pub quantise: fn(x: &[f32], out: Q8RowMut<'_>),
    /// `sum x[i] * y[i]`.
    pub dot: fn(x: &[f32], y: &[f32]) -> f32,
    /// `sum x[i]`.
    pub sum: fn(x: &[f32]) -> f32,
    /// `sum x[i]^2`.
    pub sum_squares: fn(x: &[f32]) -> f32,
    /// The largest element, NaN passed over; -inf for none.
    pub max: fn(x: &[f32]) -> f32,
    /// `out[i] = x[i] * scale * w[i]`.
    pub scale_mul: fn(x: &[f32], scale: f32, w: &[f32], out: &mut [f32]),
    /// `x[i] = exp(x[i] - max)`; gives their sum.
    pub exp_sum: fn(x: &mut [f32], max: f32) -> f32,
    /// `y[i] += a * x[i]`.
    pub axpy: fn(y: &mut [f32], a: f32, x: &[f32]),
    /// `y[i] += x[i]`.
    pub add: fn(y: &mut [f32], x: &[f32]),
    /// `y[i] *= a`.
    pub scale: fn(y: &mut [f32], a: f32),
    /// Floats to little-endian F16 bytes, rounded to nearest even.
    pub to_f16: fn(x: &[f32], out: &mut [u8]),
    /// Little-endian F16 bytes to floats.
    pub from_f16: fn(x: &[u8], out: &mut [f32]),
    /// `out[i] = silu(gate[i]) * up[i]`.
    pub silu_mul: fn(gate: &[f32], up: &[f32], out: &mut [f32]),
    /// `out[i] = gelu(gate[i]) * up[i]`, gelu in its tanh form.
    pub gelu_mul: fn(gate: &[f32], up: &[f32], out: &mut [f32]),
    /// `x[i] = silu(x[i])`.
    pub silu: fn(x: &mut [f32]),
    /// `x[i] = gelu(x[i])` in its tanh form.
    pub gelu: fn(x: &mut [f32]),
    /// `x[i] = gelu(x[i])` by the error function.
    pub gelu_erf: fn(x: &mut [f32]),
    /// Scores of query rows against one KV page: `out[r][p] = q[r] . page[p]` for `p < positions`.
    /// `q`: n x `head_dim`; `page`: \[16\]\[`head_dim`\] of F32 or F16; `out`: n x `positions`.
    pub attend_scores: fn(dtype: DType, q: &[f32], page: &[u8], head_dim: usize, positions: usize, out: &mut [f32]),
    /// The same of many query rows: a page of F32 keys is unpacked once. Each result has the same bits.
    pub attend_tile: Option<TileKernels>,
    /// Weighted values of one KV page: `acc[r] += sum over p < positions of weights[r][p] * page[p]`.
    /// `weights`: n x `positions`; `page`: \[16\]\[`head_dim`\] of F32 or F16; `acc`: n x `head_dim`.
    pub attend_values:
        fn(dtype: DType, weights: &[f32], page: &[u8], head_dim: usize, positions: usize, acc: &mut [f32]),
}

/// The dot products of one weight type: one weight row with a few activation rows, the weights read once.
#[derive(Clone, Copy)]
pub struct TypeKernels {
    /// With float activations.
    pub dots_f32: fn(w: &[u8], x: &[&[f32]], out: &mut [f32]),
    /// With quantised activations; block types only.
    pub dots_q8: fn(w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]),
    /// The form for many rows, where there is one: of quantised types with quantised activations, of plain types with
    /// floats.
    pub tile: Option<TileKernels>,
    /// Of types of 16 bits, the form for some rows, where it is faster than the dots.
    pub rows: Option<RowsKernel>,
    /// Of BF16, where the instruction set multiplies pairs of such numbers.
    pub pairs: Option<PairKernels>,
}

/// Products of a block of columns of weight rows (`w`, of `row_bytes` each) with at most [`dot_rows::ROWS`] activation rows:
/// `out[row * n + weight row]` of `n` weight rows. Each result has the same bits as from the dots. `ahead` is what will be
/// multiplied next: fetched meanwhile.
pub type RowsKernel = fn(w: &[u8], row_bytes: usize, block: usize, x: &[&[f32]], ahead: &[u8], out: &mut [f32]);

/// Products of BF16 weights with activations rounded to BF16, which lie in pairs in the place of floats.
#[derive(Clone, Copy)]
pub struct PairKernels {
    /// Of one weight row with a few activation rows.
    pub dots: fn(w: &[u8], x: &[&[f32]], out: &mut [f32]),
    /// The form for many rows.
    pub tile: TileKernels,
}

/// The many-rows form of a weight type. Each result has the same bits as from the dots.
#[derive(Clone, Copy)]
pub struct TileKernels {
    /// Lanes that the elements of a row are summed in.
    pub lanes: usize,
    /// Weight rows of a tile: one for each lane of its vectors.
    pub columns: usize,
    /// Activation rows of a panel.
    pub rows: usize,
    /// The layout of the panels: group length (1 for floats, 2 for pairs of BF16 numbers) and offset.
    pub layout: (usize, i32),
    /// Columns of a row that are multiplied and summed by themselves; the sums of blocks are added in their order.
    pub block: usize,
    /// Unpacks this block of up to `columns` weight rows of so many bytes.
    pub unpack: fn(w: &[u8], row_bytes: usize, block: usize, tile: &mut tile::Weights),
    /// Multiplies the tile with a panel; `out[row * columns + column]`. `ahead` is what will be unpacked next: fetched
    /// meanwhile.
    pub multiply: fn(tile: &tile::Weights, x: &panels::Panels, panel: usize, ahead: &[u8], out: &mut [f32]),
}

/// What the block types without a loop of their own share, for one group length.
pub struct SharedKernels {
    /// As [`TypeKernels::dots_f32`].
    pub dots_f32: fn(dtype: DType, w: &[u8], x: &[&[f32]], out: &mut [f32]),
    /// As [`TypeKernels::dots_q8`].
    pub dots_q8: fn(dtype: DType, w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]),
    /// As [`TileKernels::unpack`].
    pub unpack: fn(dtype: DType, w: &[u8], row_bytes: usize, tile: &mut tile::Weights),
    /// As [`TileKernels::multiply`].
    pub multiply: fn(tile: &tile::Weights, x: &panels::Panels, panel: usize, ahead: &[u8], out: &mut [f32]),
}

impl Table {
    /// The kernels of a weight type.
    pub fn of(&self, dtype: DType) -> &TypeKernels {
        &self.types[index(dtype)]
    }

    /// The dot product of one weight row (`w`, whole blocks of `dtype`) with float activations.
    pub fn dot_row(&self, dtype: DType, w: &[u8], x: &[f32]) -> f32 {
        let mut out = [0.0];
        (self.of(dtype).dots_f32)(w, &[x], &mut out);
        out[0]
    }
}

/// The table that defines what every other computes.
pub static SCALAR: &Table = &scalar::TABLE;

/// The place of a type in [`DType::ALL`].
pub const fn index(dtype: DType) -> usize {
    let mut i = 0;
    while i < DType::ALL.len() {
        if DType::ALL[i] as u32 == dtype as u32 {
            return i;
        }
        i += 1;
    }
    unreachable!()
}

/// The tables that this machine can run, slowest first; the first is scalar.
pub fn available() -> Vec<&'static Table> {
    let mut tables: Vec<&'static Table> = vec![SCALAR];
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2") && has!("fma") && has!("f16c") {
            tables.push(&avx2::TABLE);
            if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("avx512vnni") {
                tables.push(match (has!("avx512vbmi"), has!("avx512bf16")) {
                    (true, true) => &avx512::TABLE_BF16,
                    (true, false) => &avx512::TABLE_VBMI,
                    _ => &avx512::TABLE,
                });
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        tables.push(&neon::base::TABLE);
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            tables.push(&neon::dot::TABLE);
        }
    }
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    {
        #[cfg(any(not(target_feature = "relaxed-simd"), feature = "exam"))]
        tables.push(&wasm::plain::TABLE);
        #[cfg(target_feature = "relaxed-simd")]
        tables.extend(if wasm::sums_four() {
            [&wasm::pairs::TABLE, &wasm::dot::TABLE]
        } else {
            [&wasm::dot::TABLE, &wasm::pairs::TABLE]
        });
    }
    tables
}

/// The best table for this machine.
pub fn detect() -> &'static Table {
    available().last().copied().unwrap_or(SCALAR)
}

/// The table with this name, or the best one for `auto`.
///
/// # Errors
/// Where this machine has no table of that name; the message lists those it has.
pub fn by_name(name: &str) -> Result<&'static Table> {
    if name == "auto" {
        return Ok(detect());
    }
    let tables = available();
    tables.iter().find(|t| t.name == name).copied().ok_or_else(|| {
        let names: Vec<&str> = tables.iter().map(|t| t.name).collect();
        Error::unsupported(format!("no instruction set \"{name}\" on this machine: use auto or {}", names.join(", ")))
    })
}

fn check_q8(x: &[f32], out: &Q8RowMut<'_>) {
    let n = out.quants.len();
    assert!(x.len().is_multiple_of(BLOCK) && x.len() <= n && n.is_multiple_of(q8::PAD));
    assert!(out.scales.len() == n / BLOCK && out.sums.len() == n / BLOCK && out.sums16.len() == n / 16);
}

fn check_page(dtype: DType, page: &[u8], head_dim: usize, positions: usize, wide: usize, narrow: usize) {
    assert!(matches!(dtype, DType::F32 | DType::F16), "KV pages are F32 or F16");
    assert!(head_dim > 0 && (1..=PAGE).contains(&positions));
    assert!(page.len() >= positions * head_dim * dtype.block_bytes(), "a page too short");
    assert!(wide.is_multiple_of(head_dim) && wide / head_dim * positions == narrow, "rows disagree");
}
