//! [`Roofline`]: work by which the limits of a machine are measured (Williams, Waterman and Patterson 2009): reading memory,
//! and products of operands that stay in registers. Whoever measures brings the clock.

use super::Cpu;
use super::zeroed::Zeroed;
use crate::error::Result;

/// The memory that is read.
#[derive(Debug)]
pub struct Roofline {
    memory: Zeroed<f32>,
}

impl Roofline {
    /// Reads are of so many bytes, which should be far more than the caches hold.
    ///
    /// # Errors
    /// If the system does not give that much memory.
    pub fn new(read_bytes: usize) -> Result<Roofline> {
        let mut memory = Zeroed::new(read_bytes / size_of::<f32>())?;
        // Memory that was never written is one page of zeros, read from the cache.
        memory.fill(1.0);
        Ok(Roofline { memory })
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

    /// Multiplies floats on every thread; gives how many products and sums were made.
    pub fn floats(&self, cpu: &Cpu, times: usize) -> u64 {
        products(cpu, || (cpu.table.peak_floats)(times, std::hint::black_box(0.5)))
    }

    /// The same of bytes.
    pub fn bytes(&self, cpu: &Cpu, times: usize) -> u64 {
        products(cpu, || (cpu.table.peak_bytes)(times, std::hint::black_box(1)))
    }
}

fn products(cpu: &Cpu, work: impl Fn() -> (u64, f32) + Sync) -> u64 {
    let mut made = vec![(0, 0.0); cpu.pool.threads()];
    cpu.pool.chunks_mut(&mut made, 1, |_, made| made[0] = work());
    std::hint::black_box(made).iter().map(|made| made.0).sum()
}
