//! Dot products of one weight row with a few activation rows, the weights read once; written over `lanes`.
//!
//! The order of the additions is the same as in `tile`: group `g` of a row is added to lane `g % LANES`, and the lanes
//! are added as a tree at the end. So a result has the same bits whichever form made it.
#![allow(non_camel_case_types, reason = "safetensors writes F8_E4M3")]

use std::mem::MaybeUninit;

use super::formats::{Format, UNIT_BYTES, offset, pad_unit, unit};
use super::lanes::Lanes;
use super::q8::Q8Row;

/// Most activation rows of one call.
pub(crate) const MOST: usize = 8;
/// How far ahead of the read the weights are asked for. Measured on a mapped file, one thread of a Zen 5, Q4_0 and Q8_0
/// in GB/s: 2 KB 24 and 24, 4 KB 26 and 27, 8 KB 27 and 28, 16 KB 26 and 31. The hint crosses pages, where the
/// hardware's own prefetcher stops.
const AHEAD: usize = 8192;

/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn dots_q8<S: Lanes, T: Format>(w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len() <= MOST, "one result for each of at most 8 activation rows");
    let k = w.len() / T::BYTES * T::LEN;
    for x in x {
        assert!(x.k == k && x.quants.len() >= k.next_multiple_of(unit::<S, T>()), "rows of different lengths");
        assert!(x.scales.len() * 32 == x.quants.len() && x.sums.len() * 32 == x.quants.len());
        assert!(x.sums16.len() * 16 == x.quants.len());
    }
    // SAFETY: the lengths agree, and the instruction set is the caller's promise.
    unsafe {
        match x.len() {
            1 => row::<S, T, 1>(w, x, out),
            _ => row::<S, T, MOST>(w, x, out),
        }
    }
}

/// `N` is a bound for the number of activation rows, so that one row keeps its sums in a register.
#[inline(always)]
unsafe fn row<S: Lanes, T: Format, const N: usize>(w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]) {
    let unit_bytes = unit::<S, T>() / T::LEN * T::BYTES;
    let n_units = w.len() / unit_bytes;
    let x = &x[..x.len().min(N)];
    // SAFETY: `n_units` whole units lie in `w`; the rest is copied into a zeroed unit; the activations are padded to
    // whole units.
    unsafe {
        let mut acc = [S::zero(); N];
        for u in 0..n_units {
            let p = w.as_ptr().add(u * unit_bytes);
            for line in (0..unit_bytes).step_by(64) {
                S::prefetch(p.wrapping_add(AHEAD + line));
            }
            one_unit::<S, T, N>(p, u, x, &mut acc);
        }
        let rest = &w[n_units * unit_bytes..];
        if !rest.is_empty() {
            let mut padded = [MaybeUninit::uninit(); UNIT_BYTES];
            one_unit::<S, T, N>(pad_unit::<S, T, _>(rest, &mut padded), n_units, x, &mut acc);
        }
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = S::sum(acc);
        }
    }
}

/// Adds the products of the unit at `p`, unit `u` of the row.
///
/// # Safety
/// Needs the instruction set `S`, a unit readable at `p`, and activations as far.
#[inline(always)]
pub(crate) unsafe fn one_unit<S: Lanes, T: Format, const N: usize>(
    p: *const u8,
    u: usize,
    x: &[Q8Row<'_>],
    acc: &mut [S::F; N],
) {
    const { assert!(T::MOST <= 64, "sums of four products fit in 16 bits") };
    let (vectors, chunk) = (T::GROUP / 4, S::LANES * T::GROUP);
    // SAFETY: a unit is readable at `p`, and the activations reach to the end of unit `u`.
    unsafe {
        let parts = T::parts::<S>(p);
        for sub in 0..unit::<S, T>() / chunk {
            let at = u * unit::<S, T>() + sub * chunk;
            let mut quants = [S::bytes(x[0].quants.as_ptr().cast()); 8];
            for (i, q) in quants[..vectors].iter_mut().enumerate() {
                *q = T::quants::<S>(p, &parts, sub * vectors + i);
            }
            let (scale, min) = T::scales::<S>(p, sub);
            for (x, acc) in x.iter().zip(acc.iter_mut()) {
                let xq = x.quants.as_ptr().add(at).cast::<u8>();
                let mut sums = [S::open(S::int(0)); 8];
                for i in 0..vectors {
                    let x = S::bytes(xq.add(i * 4 * S::LANES));
                    sums[i] = if T::WIDE { S::dp_wide(sums[i], quants[i], x) } else { S::dp(sums[i], quants[i], x) };
                }
                let (dot, xs, xsum) = if T::GROUP == 32 {
                    let xsum = S::int_load(x.sums.as_ptr().add(at / 32));
                    (S::sum_groups32(sums, T::WIDE), S::load(x.scales.as_ptr().add(at / 32)), xsum)
                } else {
                    let xsum = S::int_load(x.sums16.as_ptr().add(at / 16));
                    let dot = S::sum_groups16([sums[0], sums[1], sums[2], sums[3]], T::WIDE);
                    (dot, S::load_twice(x.scales.as_ptr().add(at / 32)), xsum)
                };
                let dot = less_offset::<S>(offset::<S, T>(), dot, xsum);
                *acc = S::fma(S::mul(scale, xs), S::to_f(dot), *acc);
                if T::MINS {
                    let scaled = S::mul(xs, S::to_f(xsum));
                    *acc = S::fma(S::sub(S::zero(), min), scaled, *acc);
                }
            }
        }
    }
}

/// `dot - offset * xsum`: takes back what the quants had added.
#[inline(always)]
unsafe fn less_offset<S: Lanes>(offset: i32, dot: S::I, xsum: S::I) -> S::I {
    // SAFETY: no memory is touched.
    unsafe {
        match offset {
            0 => dot,
            1 => S::int_sub(dot, xsum),
            4 => S::int_sub(dot, S::int_shl::<2>(xsum)),
            8 => S::int_sub(dot, S::int_shl::<3>(xsum)),
            16 => S::int_sub(dot, S::int_shl::<4>(xsum)),
            32 => S::int_sub(dot, S::int_shl::<5>(xsum)),
            64 => S::int_sub(dot, S::int_shl::<6>(xsum)),
            128 => S::int_sub(dot, S::int_shl::<7>(xsum)),
            _ => unreachable!("offsets are these powers of two"),
        }
    }
}

/// The same with float activations: units are decoded into a buffer. Element `k` is added to lane `k % (2 * LANES)`, as
/// with the plain types.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn dots_decoded<S: Lanes, T: Format>(w: &[u8], x: &[&[f32]], out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len() <= MOST, "one result for each of at most 8 activation rows");
    let k = w.len() / T::BYTES * T::LEN;
    assert!(x.iter().all(|x| x.len() == k), "rows of different lengths");
    let (unit_bytes, len) = (unit::<S, T>() / T::LEN * T::BYTES, unit::<S, T>());
    // SAFETY: a chunk of `w` is a whole unit or is copied into a zeroed one; `have` activations of the unit exist, a
    // whole number of vectors since blocks are.
    unsafe {
        let mut acc = [[S::zero(); 2]; MOST];
        let (mut values, mut padded) = ([0.0; 512], [MaybeUninit::uninit(); UNIT_BYTES]);
        for (u, chunk) in w.chunks(unit_bytes).enumerate() {
            let mut p = chunk.as_ptr();
            if chunk.len() < unit_bytes {
                p = pad_unit::<S, T, _>(chunk, &mut padded);
            }
            decode_unit::<S, T>(p, &mut values);
            multiply_values::<S>(&values[..len.min(k - u * len)], x, u * len, &mut acc);
        }
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = S::sum(S::add(acc[0], acc[1]));
        }
    }
}

/// Multiplies decoded weights, a whole number of pairs of vectors, with the activations from `at` on.
#[inline(always)]
pub(crate) unsafe fn multiply_values<S: Lanes>(values: &[f32], x: &[&[f32]], at: usize, acc: &mut [[S::F; 2]; MOST]) {
    // SAFETY: as many activations follow `at`; the caller has compared the lengths.
    unsafe {
        for (x, acc) in x.iter().zip(acc) {
            let x = x.as_ptr().add(at);
            for at in (0..values.len()).step_by(2 * S::LANES) {
                for (i, acc) in acc.iter_mut().enumerate() {
                    let at = at + i * S::LANES;
                    *acc = S::fma(S::load(values.as_ptr().add(at)), S::load(x.add(at)), *acc);
                }
            }
        }
    }
}

/// Decodes a unit: `scale * quant - min`, each step rounded as in the definition.
#[inline(always)]
unsafe fn decode_unit<S: Lanes, T: Format>(p: *const u8, out: &mut [f32; 512]) {
    let (vectors, chunk) = (T::GROUP / 4, S::LANES * T::GROUP);
    let (mut scales, mut mins, mut quants) = ([0.0; 16], [0.0; 16], [0_u8; 64]);
    // SAFETY: a unit is readable at `p` and fits in `out`; the buffers hold a vector.
    unsafe {
        let parts = T::parts::<S>(p);
        for sub in 0..unit::<S, T>() / chunk {
            let (scale, min) = T::scales::<S>(p, sub);
            S::store(scales.as_mut_ptr(), scale);
            S::store(mins.as_mut_ptr(), min);
            for i in 0..vectors {
                S::bytes_store(quants.as_mut_ptr(), T::quants::<S>(p, &parts, sub * vectors + i));
                for part in 0..4 {
                    let at = (i * 4 + part) * S::LANES;
                    let bytes = quants.as_ptr().add(part * S::LANES);
                    let signed = T::WIDE && S::WIDE_OFFSET == 0;
                    let quant = if signed { S::from_i8(bytes) } else { S::from_u8(bytes) };
                    let quant = S::sub(quant, S::splat(offset::<S, T>() as f32));
                    let group = at / T::GROUP;
                    let v = S::sub(S::mul(S::splat(scales[group]), quant), S::splat(mins[group]));
                    S::store(out.as_mut_ptr().add(sub * chunk + at), v);
                }
            }
        }
    }
}

/// How rows of floats load.
pub(crate) trait Plain {
    /// Elements and bytes of a block: 1 if elements stand alone, else whole vectors of every instruction set.
    const LEN: usize = 1;
    const BYTES: usize;
    /// Whether a load takes few instructions and less of a cache than floats do, so that it pays for every few activation rows.
    const IS_HALF: bool = Self::LEN == 1 && Self::BYTES == 2;
    /// The vector from element `at` of a row on, which is that of a whole vector.
    ///
    /// # Safety
    /// `LANES` elements are readable there; the instruction set is there.
    unsafe fn load<S: Lanes>(row: *const u8, at: usize) -> S::F;
    /// Its first `n` elements, then zeros. Of elements that stand alone.
    ///
    /// # Safety
    /// `n < LANES` elements are readable there; the instruction set is there.
    #[inline(always)]
    unsafe fn load_part<S: Lanes>(row: *const u8, at: usize, n: usize) -> S::F {
        let mut buffer = [0_u8; 16 * 4];
        // SAFETY: `n < LANES` elements are readable; the buffer holds a whole vector.
        unsafe {
            std::ptr::copy_nonoverlapping(row.add(at * Self::BYTES), buffer.as_mut_ptr(), n * Self::BYTES);
            Self::load::<S>(buffer.as_ptr(), 0)
        }
    }
    /// Elements of a row of so many bytes.
    fn elements(bytes: usize) -> usize {
        bytes / Self::BYTES * Self::LEN
    }
    /// Bytes of so many elements.
    fn bytes(elements: usize) -> usize {
        elements / Self::LEN * Self::BYTES
    }
}

macro_rules! plain {
    ($name:ident, $bytes:literal, |$s:ident, $p:ident| $load:expr) => {
        pub(crate) struct $name;
        impl Plain for $name {
            const BYTES: usize = $bytes;
            #[inline(always)]
            unsafe fn load<$s: Lanes>(row: *const u8, at: usize) -> $s::F {
                // SAFETY: the contract of `Plain`.
                unsafe {
                    let $p = row.add(at * $bytes);
                    $load
                }
            }
        }
    };
}
plain!(F32, 4, |S, p| S::load(p.cast()));
plain!(F16, 2, |S, p| S::load_f16(p));
plain!(BF16, 2, |S, p| S::load_bf16(p));
plain!(F8_E4M3, 1, |S, p| S::load_e4m3(p));

/// Blocks of 128 with an f32 scale in front.
pub(crate) struct F8_E4M3_128;

impl Plain for F8_E4M3_128 {
    const LEN: usize = 128;
    const BYTES: usize = 132;
    #[inline(always)]
    unsafe fn load<S: Lanes>(row: *const u8, at: usize) -> S::F {
        // SAFETY: the contract of `Plain`: a vector does not reach beyond its block.
        unsafe {
            let block = row.add(at / 128 * 132);
            let scale = S::splat(block.cast::<f32>().read_unaligned());
            S::mul(S::load_e4m3(block.add(4 + at % 128)), scale)
        }
    }
}

/// How elements of plain rows are multiplied and added up.
pub(crate) trait Product {
    /// The layout of panels that it reads.
    const LAYOUT: (usize, i32);
    /// # Safety
    /// The instruction set is there.
    unsafe fn add<S: Lanes>(w: S::F, x: S::F, sum: S::F) -> S::F;
}

/// Products of floats.
pub(crate) struct Floats;

impl Product for Floats {
    const LAYOUT: (usize, i32) = (1, 0);
    #[inline(always)]
    unsafe fn add<S: Lanes>(w: S::F, x: S::F, sum: S::F) -> S::F {
        // SAFETY: the contract of `Product`.
        unsafe { S::fma(w, x, sum) }
    }
}

/// Products of pairs of BF16 numbers, each pair in the place of a float.
pub(crate) struct Pairs;

impl Product for Pairs {
    const LAYOUT: (usize, i32) = (2, 0);
    #[inline(always)]
    unsafe fn add<S: Lanes>(w: S::F, x: S::F, sum: S::F) -> S::F {
        // SAFETY: the contract of `Product`.
        unsafe { S::fma_pairs(w, x, sum) }
    }
}

/// Columns of plain rows that are summed by themselves, so that many rows of activations stay in a cache while all weight
/// rows pass over these columns.
pub const PLAIN_BLOCK: usize = 2048;

/// Element `k` of a block of columns is added to lane `k % (2 * LANES)`; the lanes are added as a tree, the blocks in their
/// order.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn dots_plain<S: Lanes, T: Plain, M: Product>(w: &[u8], x: &[&[f32]], out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len() <= MOST, "one result for each of at most 8 activation rows");
    let k = T::elements(w.len());
    assert!(x.iter().all(|x| x.len() == k) && w.len() == T::bytes(k), "rows of different lengths");
    let (mut x, mut out) = (x, out);
    while !x.is_empty() {
        let n = [1, 1, 2, 2, 4][x.len().min(4)];
        let (first, rest) = out.split_at_mut(n);
        // SAFETY: the lengths agree, and the instruction set is the caller's promise.
        unsafe {
            match n {
                1 => row_plain::<S, T, M, 1>(w, x, first),
                2 => row_plain::<S, T, M, 2>(w, x, first),
                _ => row_plain::<S, T, M, 4>(w, x, first),
            }
        }
        (x, out) = (&x[n..], rest);
    }
}

/// All blocks of a row, for the first `N` activation rows, whose sums stay in registers.
#[inline(always)]
unsafe fn row_plain<S: Lanes, T: Plain, M: Product, const N: usize>(w: &[u8], x: &[&[f32]], out: &mut [f32]) {
    out.fill(0.0);
    for (b, w) in w.chunks(T::bytes(PLAIN_BLOCK)).enumerate() {
        let x: [&[f32]; N] = std::array::from_fn(|r| &x[r][b * PLAIN_BLOCK..][..T::elements(w.len())]);
        // SAFETY: the parts of the rows are of one length; the instruction set is the caller's promise.
        let sums = unsafe { block_plain::<S, T, M, N>(w, &x) };
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = if b == 0 { sum } else { *out + sum };
        }
    }
}

#[inline(always)]
unsafe fn block_plain<S: Lanes, T: Plain, M: Product, const N: usize>(w: &[u8], x: &[&[f32]; N]) -> [f32; N] {
    let (k, step) = (T::elements(w.len()), 2 * S::LANES);
    // SAFETY: whole steps lie inside the rows; the rest, of elements that stand alone, is copied into zeroed buffers of one step.
    unsafe {
        let mut acc = [[S::zero(); 2]; N];
        let whole = k / step * step;
        for at in (0..whole).step_by(step) {
            // Where the elements are, but for what blocks have between.
            let (p, bytes) = (w.as_ptr().wrapping_add(at * T::BYTES / T::LEN), step * T::BYTES / T::LEN);
            for line in (0..bytes).step_by(64) {
                S::prefetch(p.wrapping_add(AHEAD + line));
            }
            let w = [T::load::<S>(w.as_ptr(), at), T::load::<S>(w.as_ptr(), at + S::LANES)];
            for (x, acc) in x.iter().zip(&mut acc) {
                acc[0] = M::add::<S>(w[0], S::load(x.as_ptr().add(at)), acc[0]);
                acc[1] = M::add::<S>(w[1], S::load(x.as_ptr().add(at + S::LANES)), acc[1]);
            }
        }
        if whole < k {
            let mut tail = [0_u8; 32 * 4];
            tail[..(k - whole) * T::BYTES].copy_from_slice(&w[whole * T::BYTES..]);
            let w = [T::load::<S>(tail.as_ptr(), 0), T::load::<S>(tail.as_ptr(), S::LANES)];
            for (x, acc) in x.iter().zip(&mut acc) {
                let mut tail = [0.0_f32; 32];
                tail[..k - whole].copy_from_slice(&x[whole..]);
                acc[0] = M::add::<S>(w[0], S::load(tail.as_ptr()), acc[0]);
                acc[1] = M::add::<S>(w[1], S::load(tail.as_ptr().add(S::LANES)), acc[1]);
            }
        }
        let mut sums = [0.0; N];
        for (sum, acc) in sums.iter_mut().zip(acc) {
            *sum = S::sum(S::add(acc[0], acc[1]));
        }
        sums
    }
}
