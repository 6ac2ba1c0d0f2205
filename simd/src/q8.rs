//! Activations quantised to 8 bits in blocks of 32: the form in which quantised weights meet them.
//! The kernels that fill and read it are in the tables.

/// Elements of one activation block.
pub const BLOCK: usize = 32;
/// Rows are padded with zeros to a multiple of this, so that every instruction set can read whole vectors of groups.
pub const PAD: usize = 512;

/// Rows of activations in 8 bits. Element `i` of a row is about `scales[i / 32] * quants[i]`.
#[derive(Debug, Default)]
pub struct Q8 {
    /// Columns, a multiple of 32.
    k: usize,
    /// Columns with the padding.
    stride: usize,
    rows: usize,
    quants: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    sums16: Vec<i32>,
}

/// One row of [`Q8`], with its padding.
#[derive(Debug, Clone, Copy)]
pub struct Q8Row<'a> {
    /// Columns without the padding.
    pub k: usize,
    /// The values, -127 to 127; `k` rounded up to [`PAD`].
    pub quants: &'a [i8],
    /// One scale for 32; NaN where the block holds an infinity or a NaN.
    pub scales: &'a [f32],
    /// The sum of the quants of each 32.
    pub sums: &'a [i32],
    /// The sum of the quants of each 16.
    pub sums16: &'a [i32],
}

/// One row of [`Q8`] to be filled.
#[derive(Debug)]
pub struct Q8RowMut<'a> {
    /// As in [`Q8Row`].
    pub quants: &'a mut [i8],
    /// As in [`Q8Row`].
    pub scales: &'a mut [f32],
    /// As in [`Q8Row`].
    pub sums: &'a mut [i32],
    /// As in [`Q8Row`].
    pub sums16: &'a mut [i32],
}

impl Q8 {
    /// Makes room for `rows` rows of `k` columns, to be filled; the padding is zero.
    ///
    /// # Panics
    /// Where `k` is no multiple of 32.
    pub fn resize(&mut self, rows: usize, k: usize) {
        assert!(k.is_multiple_of(BLOCK), "{k} columns cannot be quantised in blocks of 32");
        let stride = k.next_multiple_of(PAD);
        if (self.rows, self.k) == (rows, k) {
            return;
        }
        let n = rows * stride;
        fn fit<T: Copy + Default>(v: &mut Vec<T>, len: usize) {
            if v.len() < len {
                v.resize(len, T::default());
            }
        }
        fit(&mut self.quants, n);
        fit(&mut self.scales, n / BLOCK);
        fit(&mut self.sums, n / BLOCK);
        fit(&mut self.sums16, n / 16);
        (self.rows, self.k, self.stride) = (rows, k, stride);
        if stride > k {
            for row in self.rows_mut() {
                row.quants[k..].fill(0);
                row.scales[k / BLOCK..].fill(0.0);
                row.sums[k / BLOCK..].fill(0);
                row.sums16[k / 16..].fill(0);
            }
        }
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns without the padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Row `r`.
    pub fn row(&self, r: usize) -> Q8Row<'_> {
        let (s, b, h) = (self.stride, self.stride / BLOCK, self.stride / 16);
        Q8Row {
            k: self.k,
            quants: &self.quants[r * s..(r + 1) * s],
            scales: &self.scales[r * b..(r + 1) * b],
            sums: &self.sums[r * b..(r + 1) * b],
            sums16: &self.sums16[r * h..(r + 1) * h],
        }
    }

    /// All rows, to be filled.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = Q8RowMut<'_>> {
        let (s, b, h) = (self.stride.max(PAD), (self.stride / BLOCK).max(1), (self.stride / 16).max(1));
        let n = self.rows;
        self.quants
            .chunks_exact_mut(s)
            .take(n)
            .zip(self.scales.chunks_exact_mut(b))
            .zip(self.sums.chunks_exact_mut(b))
            .zip(self.sums16.chunks_exact_mut(h))
            .map(|(((quants, scales), sums), sums16)| Q8RowMut { quants, scales, sums, sums16 })
    }
}
