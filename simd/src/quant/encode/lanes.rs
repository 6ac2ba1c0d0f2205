//! Numbers of several groups side by side. A vector is an array, and what is done to it a loop over its lanes, which compilers
//! turn into vector instructions where there are any. Lanes never mix and nothing is rounded otherwise than alone, so that a
//! group's results have the same bits beside any others; one lane is the definition.
//!
//! Everything is inlined into the encoder of a type, which is compiled for several instruction sets. Loops over a group's
//! elements add to sums: those keep their order, so that it is the lanes that become vectors.

use std::ops::{Add, BitAnd, Div, Mul, Neg, Not, Sub};

/// A number of each of `W` groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vector<const W: usize>(pub(super) [f32; W]);

/// What is true of each of `W` groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask<const W: usize>([bool; W]);

/// What is added to a small number and subtracted again rounds it to an integer: 1.5 * 2^23, where the step is 1.
const ROUND: f32 = 12_582_912.0;

/// The number within bounds, of which `least` is not above 0; 0 for what is no number.
#[inline(always)]
fn within(x: f32, least: f32, most: f32) -> f32 {
    // Where `least` is 0, the comparison below does it.
    let x = if least < 0.0 && x.is_nan() { 0.0 } else { x };
    let x = if x > least { x } else { least };
    if x < most { x } else { most }
}

/// The nearest integer from `least`, not above 0, to `most`; of two, the even one. 0 for what is no number.
#[inline(always)]
pub(super) fn nearest(x: f32, least: f32, most: f32) -> i32 {
    ((within(x, least, most) + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// The integer part, from `least`, not above 0, to `most`. 0 for what is no number.
#[inline(always)]
pub(in crate::quant) fn truncated(x: f32, least: f32, most: f32) -> i32 {
    let x = within(x, least, most);
    let nearest = x.abs() + ROUND - ROUND;
    let below = if nearest > x.abs() { nearest - 1.0 } else { nearest };
    ((below.copysign(x) + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// The nearest integer from `least`, not above 0, to `most`; of two, the one further from 0. 0 for what is no number.
#[inline(always)]
pub(in crate::quant) fn rounded(x: f32, least: f32, most: f32) -> i32 {
    // The largest number below a half: a half itself would carry those just below one over it.
    truncated(x + 0.499_999_97_f32.copysign(x), least, most)
}

impl<const W: usize> Vector<W> {
    pub(super) const ZERO: Vector<W> = Vector([0.0; W]);

    #[inline(always)]
    pub(super) fn all(x: f32) -> Vector<W> {
        Vector([x; W])
    }

    #[inline(always)]
    pub(super) fn abs(mut self) -> Vector<W> {
        for lane in 0..W {
            self.0[lane] = self.0[lane].abs();
        }
        self
    }

    #[inline(always)]
    pub(super) fn sqrt(mut self) -> Vector<W> {
        for lane in 0..W {
            self.0[lane] = self.0[lane].sqrt();
        }
        self
    }

    /// As [`nearest`], as floats.
    #[inline(always)]
    pub(super) fn level(mut self, least: f32, most: f32) -> Vector<W> {
        for lane in 0..W {
            self.0[lane] = within(self.0[lane], least, most) + ROUND - ROUND;
        }
        self
    }

    #[inline(always)]
    pub(super) fn below(self, other: Vector<W>) -> Mask<W> {
        let mut is = [false; W];
        for lane in 0..W {
            is[lane] = self.0[lane] < other.0[lane];
        }
        Mask(is)
    }

    #[inline(always)]
    pub(super) fn at_most(self, other: Vector<W>) -> Mask<W> {
        let mut is = [false; W];
        for lane in 0..W {
            is[lane] = self.0[lane] <= other.0[lane];
        }
        Mask(is)
    }

    #[inline(always)]
    pub(super) fn is(self, other: Vector<W>) -> Mask<W> {
        let mut is = [false; W];
        for lane in 0..W {
            is[lane] = self.0[lane] == other.0[lane];
        }
        Mask(is)
    }

    /// Whether it is neither infinite nor no number.
    #[inline(always)]
    pub(super) fn is_finite(self) -> Mask<W> {
        self.abs().below(Vector::all(f32::INFINITY))
    }
}

macro_rules! lane_by_lane {
    ($($trait:ident $name:ident $op:tt),*) => {$(
        impl<const W: usize> $trait for Vector<W> {
            type Output = Vector<W>;

            #[inline(always)]
            fn $name(mut self, other: Vector<W>) -> Vector<W> {
                for lane in 0..W {
                    self.0[lane] $op other.0[lane];
                }
                self
            }
        }
    )*};
}
lane_by_lane!(Add add +=, Sub sub -=, Mul mul *=, Div div /=);

impl<const W: usize> Neg for Vector<W> {
    type Output = Vector<W>;

    #[inline(always)]
    fn neg(mut self) -> Vector<W> {
        for lane in 0..W {
            self.0[lane] = -self.0[lane];
        }
        self
    }
}

impl<const W: usize> Mask<W> {
    /// `yes` where it is true, else `no`.
    #[inline(always)]
    pub(super) fn pick(self, yes: Vector<W>, mut no: Vector<W>) -> Vector<W> {
        for lane in 0..W {
            no.0[lane] = if self.0[lane] { yes.0[lane] } else { no.0[lane] };
        }
        no
    }

    #[inline(always)]
    pub(super) fn any(self) -> bool {
        let mut any = false;
        for lane in 0..W {
            any |= self.0[lane];
        }
        any
    }
}

impl<const W: usize> BitAnd for Mask<W> {
    type Output = Mask<W>;

    #[inline(always)]
    fn bitand(mut self, other: Mask<W>) -> Mask<W> {
        for lane in 0..W {
            self.0[lane] &= other.0[lane];
        }
        self
    }
}

impl<const W: usize> Not for Mask<W> {
    type Output = Mask<W>;

    #[inline(always)]
    fn not(mut self) -> Mask<W> {
        for lane in 0..W {
            self.0[lane] = !self.0[lane];
        }
        self
    }
}

/// The elements of `W` groups of `N` that lie one behind the other.
#[inline(always)]
pub(super) fn side_by_side<const W: usize, const N: usize>(x: &[f32]) -> [Vector<W>; N] {
    let groups = &x.as_chunks::<N>().0[..W];
    let mut out = [Vector::ZERO; N];
    for lane in 0..W {
        for i in 0..N {
            out[i].0[lane] = groups[lane][i];
        }
    }
    out
}

/// The reverse.
#[inline(always)]
pub(super) fn one_by_one<const W: usize, const N: usize>(vectors: &[Vector<W>; N], out: &mut [f32]) {
    let groups = &mut out.as_chunks_mut::<N>().0[..W];
    for lane in 0..W {
        for i in 0..N {
            groups[lane][i] = vectors[i].0[lane];
        }
    }
}
