//! Dot products of plain types: two weight rows with three activation rows at a time, whose sums stay in registers, so that
//! what is loaded is multiplied more than once. Written over `lanes`; additions are in the order of `dots`.

use std::sync::atomic::{Ordering, compiler_fence};

use super::dots::{Floats, PLAIN_BLOCK, Plain, Product};
use super::lanes::Lanes;
use super::tile::fetch;

/// Weight rows of which the sums are made together.
const PAIR: usize = 2;
/// Activation rows of one call, at most.
pub const ROWS: usize = 3;

/// One block of columns of weight rows of `row_bytes` with at most [`ROWS`] activation rows: `out[row * n + weight row]` of
/// `n` weight rows. Meanwhile `ahead` is fetched.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn rows_plain<S: Lanes, T: Plain>(
    w: &[u8],
    row_bytes: usize,
    block: usize,
    x: &[&[f32]],
    ahead: &[u8],
    out: &mut [f32],
) {
    // SAFETY: the instruction set is the caller's promise.
    unsafe {
        match x {
            [a] => rows_of::<S, T, 1>(w, row_bytes, block, [a], ahead, out),
            [a, b] => rows_of::<S, T, 2>(w, row_bytes, block, [a, b], ahead, out),
            [a, b, c] => rows_of::<S, T, ROWS>(w, row_bytes, block, [a, b, c], ahead, out),
            _ => panic!("{} activation rows are given at once", x.len()),
        }
    }
}

#[inline(always)]
unsafe fn rows_of<S: Lanes, T: Plain, const N: usize>(
    w: &[u8],
    row_bytes: usize,
    block: usize,
    x: [&[f32]; N],
    ahead: &[u8],
    out: &mut [f32],
) {
    let (rows, first, k) = (w.len() / row_bytes, block * PLAIN_BLOCK, T::elements(row_bytes));
    assert!(
        T::LEN == 1 && rows * row_bytes == w.len() && out.len() == N * rows,
        "{rows} weight rows of {row_bytes} bytes"
    );
    assert!(first < k && x.iter().all(|x| x.len() == k), "rows of different lengths");
    let (n, pairs) = ((k - first).min(PLAIN_BLOCK), rows.div_ceil(PAIR));
    let x = x.map(|x| x[first..].as_ptr());
    for pair in 0..pairs {
        let at = |i: usize| (pair * PAIR + i).min(rows - 1);
        let w = std::array::from_fn(|i| w[at(i) * row_bytes + T::bytes(first)..].as_ptr());
        // SAFETY: `n` elements lie behind each pointer; the instruction set is the caller's promise.
        let sums = unsafe {
            fetch::<S>(ahead, pair, pairs);
            pair_of::<S, T, N>(w, x, n)
        };
        for (i, sums) in sums.iter().enumerate() {
            sums.iter().enumerate().for_each(|(r, sum)| out[r * rows + at(i)] = *sum);
        }
    }
}

/// The sums of `n` products of two weight rows with `N` activation rows.
///
/// # Safety
/// Needs the instruction set `S`, and `n` elements behind each pointer.
#[inline(always)]
unsafe fn pair_of<S: Lanes, T: Plain, const N: usize>(
    w: [*const u8; PAIR],
    x: [*const f32; N],
    n: usize,
) -> [[f32; N]; PAIR] {
    let step = 2 * S::LANES;
    let whole = n / step * step;
    // SAFETY: whole steps lie behind the pointers; the rest is copied into zeroed buffers of one step.
    unsafe {
        let mut acc = [[[S::zero(); 2]; N]; PAIR];
        for at in (0..whole).step_by(step) {
            add_step::<S, T, N>(w.map(|w| w.add(at * T::BYTES)), x.map(|x| x.add(at)), &mut acc);
        }
        if whole < n {
            let mut w_rest = [[0_u8; 32 * 4]; PAIR];
            for (to, from) in w_rest.iter_mut().zip(w) {
                std::ptr::copy_nonoverlapping(from.add(whole * T::BYTES), to.as_mut_ptr(), (n - whole) * T::BYTES);
            }
            let mut x_rest = [[0.0_f32; 32]; N];
            for (to, from) in x_rest.iter_mut().zip(x) {
                std::ptr::copy_nonoverlapping(from.add(whole), to.as_mut_ptr(), n - whole);
            }
            let (w, x) = (std::array::from_fn(|i| w_rest[i].as_ptr()), std::array::from_fn(|r| x_rest[r].as_ptr()));
            add_step::<S, T, N>(w, x, &mut acc);
        }
        let mut sums = [[0.0; N]; PAIR];
        for (sums, acc) in sums.iter_mut().zip(acc) {
            for (sum, acc) in sums.iter_mut().zip(acc) {
                *sum = S::sum(S::add(acc[0], acc[1]));
            }
        }
        sums
    }
}

/// Adds two vectors of products of each pair of rows.
///
/// # Safety
/// Needs the instruction set `S`, and two vectors of elements behind each pointer.
#[inline(always)]
unsafe fn add_step<S: Lanes, T: Plain, const N: usize>(
    w: [*const u8; PAIR],
    x: [*const f32; N],
    acc: &mut [[[S::F; 2]; N]; PAIR],
) {
    // SAFETY: the contract above.
    unsafe {
        for half in 0..2 {
            let at = half * S::LANES;
            let mut xs = [S::zero(); N];
            for (to, from) in xs.iter_mut().zip(x) {
                *to = S::load(from.add(at));
            }
            for (acc, w) in acc.iter_mut().zip(w) {
                let w = T::load::<S>(w, at);
                for (acc, x) in acc.iter_mut().zip(xs) {
                    acc[half] = Floats::add::<S>(w, x, acc[half]);
                }
                // No instruction. The compiler would load what follows before it needs it, and some of the sums, which with
                // what is multiplied fill all registers of AVX2, would live in memory.
                compiler_fence(Ordering::SeqCst);
            }
        }
    }
}
