//! The processor as a device: walks a plan op by op. `kernels` holds the definition of every op in safe Rust,
//! `simd` the inner loops for each instruction set, `pool` the threads.

mod exec;
mod kept;
pub mod kernels;
pub mod pool;
mod roofline;
pub use ir_simd as simd;
mod zeroed;

use std::sync::Arc;

pub use exec::CpuRunner;
pub use kernels::linear::Activations;
#[cfg(all(target_arch = "wasm32", target_feature = "atomics"))]
pub use pool::work;
pub use roofline::Roofline;

use crate::error::Result;
use pool::Pool;
use simd::Table;

/// How the processor is to be used.
#[derive(Debug, Clone, Default)]
pub struct CpuOptions {
    /// Threads, the calling one included; as many as there are cores where `None`. WebAssembly does not know its cores
    /// (one thread where `None`), and the page brings the others: see `cpu::work`.
    pub threads: Option<usize>,
    /// Instruction set: `auto`, `scalar`, or one that [`simd::available`] has here; `auto` where `None`.
    pub simd: Option<String>,
    /// What quantised weights are multiplied with.
    pub activations: Activations,
}

/// A processor: its threads and the best inner loops it has.
pub struct Cpu {
    pool: Arc<Pool>,
    table: &'static Table,
    activations: Activations,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Cpu {
    /// Detects the instruction set and starts the threads.
    ///
    /// # Errors
    /// Where the named instruction set is unknown or not to be had on this machine.
    pub fn new(options: &CpuOptions) -> Result<Cpu> {
        let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
        Cpu::with_pool(options, Arc::new(Pool::new(threads.clamp(1, 1024))))
    }

    /// The same with threads that other models use too.
    ///
    /// # Errors
    /// As [`Cpu::new`].
    pub fn with_pool(options: &CpuOptions, pool: Arc<Pool>) -> Result<Cpu> {
        let table = simd::by_name(options.simd.as_deref().unwrap_or("auto"))?;
        Ok(Cpu { pool, table, activations: options.activations })
    }

    /// For example `cpu (avx512, 8 threads)`.
    pub fn name(&self) -> String {
        let n = self.pool.threads();
        format!("cpu ({}, {n} {})", self.table.name, if n == 1 { "thread" } else { "threads" })
    }

    /// The inner loops in use.
    pub fn table(&self) -> &'static Table {
        self.table
    }

    /// The threads in use.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}
