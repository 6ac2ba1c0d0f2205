//! [`Roofline`]: work by which the limits of a machine are measured (Williams, Waterman and Patterson 2009): reading memory,
//! and products of operands that stay in the caches. Whoever measures brings the clock.

use super::Cpu;
use super::kernels::linear::{self, Activations, Scratch};
use super::pool::Pool;
use super::zeroed::Zeroed;
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::Result;
use crate::plan::Segment;

/// Columns, weight rows and activation rows of the products: both sides stay in a core's own caches.
const SHAPE: [usize; 3] = [256, 64, 192];

/// The memory and the operands.
#[derive(Debug)]
pub struct Roofline {
    memory: Zeroed<f32>,
    floats: Segment,
    bytes: Segment,
    x: Vec<f32>,
}

/// The type of short blocks with most bits to an element.
fn widest() -> DType {
    let short =
        DType::ALL.iter().filter(|t| !t.is_plain() && SHAPE[0].is_multiple_of(t.block_len()) && t.block_len() == 32);
    short.copied().max_by_key(|t| t.block_bytes()).unwrap_or(DType::F32)
}

impl Roofline {
    /// Reads are of so many bytes, which should be far more than the caches hold.
    ///
    /// # Errors
    /// If the system does not give that much memory.
    pub fn new(read_bytes: usize) -> Result<Roofline> {
        let [k, n, rows] = SHAPE;
        let mut memory = Zeroed::new(read_bytes / size_of::<f32>())?;
        // Memory that was never written is one page of zeros, read from the cache.
        memory.fill(1.0);
        let segment = |dtype: DType| {
            let row_bytes = dtype.bytes_for(k).unwrap_or(0);
            let bytes = Bytes::from(vec![0; row_bytes * n]);
            Segment { name: String::new(), dtype, rows: n, bytes, row_bytes, offset: 0 }
        };
        Ok(Roofline { memory, floats: segment(DType::F32), bytes: segment(widest()), x: vec![1.0; k * rows] })
    }

    /// Reads the memory once, on all threads; gives its bytes.
    pub fn read(&self, cpu: &Cpu) -> u64 {
        let parts = cpu.pool.threads() * super::pool::PARTS_PER_THREAD;
        let part = self.memory.len().div_ceil(parts).max(1);
        let mut sums = vec![0.0; self.memory.len().div_ceil(part)];
        cpu.pool.chunks_mut(&mut sums, 1, |i, sum| {
            sum[0] = (cpu.table.sum_squares)(&self.memory[i * part..((i + 1) * part).min(self.memory.len())]);
        });
        std::hint::black_box(sums);
        size_of_val(&*self.memory) as u64
    }

    /// Multiplies floats `times` times on every thread; gives how many products and sums were made.
    pub fn floats(&self, cpu: &Cpu, times: usize) -> u64 {
        self.products(cpu, &self.floats, times)
    }

    /// The same of bytes.
    pub fn bytes(&self, cpu: &Cpu, times: usize) -> u64 {
        self.products(cpu, &self.bytes, times)
    }

    fn products(&self, cpu: &Cpu, segment: &Segment, times: usize) -> u64 {
        let [k, n, rows] = SHAPE;
        let threads = cpu.pool.threads();
        let mut outs = vec![vec![0.0; rows * n]; threads];
        cpu.pool.chunks_mut(&mut outs, 1, |_, out| {
            let (alone, mut scratch, segments) = (Pool::new(1), Scratch::default(), std::slice::from_ref(segment));
            for _ in 0..times {
                let (mode, out) = (Activations::Quantised, &mut out[0]);
                linear::linear(cpu.table, &alone, &mut scratch, segments, k, &self.x, mode, None, None, out);
            }
        });
        std::hint::black_box(outs);
        (2 * k * n * rows * times * threads) as u64
    }
}
