//! How fast a device's memory is, by copying one large buffer to another. The caller holds the clock.

use std::sync::Arc;

use super::Gpu;
use crate::error::Result;

/// Two buffers of one size.
#[derive(Debug)]
pub struct CopyTest {
    gpu: Arc<Gpu>,
    from: wgpu::Buffer,
    to: wgpu::Buffer,
}

impl CopyTest {
    /// Buffers of `bytes`, or of as much as the device takes.
    ///
    /// # Errors
    /// Where the device has not the memory.
    pub fn new(gpu: &Arc<Gpu>, bytes: u64) -> Result<CopyTest> {
        let bytes = bytes.min(gpu.max_binding());
        let test = CopyTest { gpu: Arc::clone(gpu), from: gpu.buffer("from", bytes), to: gpu.buffer("to", bytes) };
        gpu.check()?;
        Ok(test)
    }

    /// Bytes that a copy reads, and as many that it writes.
    pub fn bytes(&self) -> u64 {
        self.from.size()
    }

    /// Copies so many times and waits for the last.
    ///
    /// # Errors
    /// Where the device failed.
    pub fn run(&self, times: usize) -> Result<()> {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        for _ in 0..times {
            encoder.copy_buffer_to_buffer(&self.from, 0, &self.to, 0, self.bytes());
        }
        let index = self.gpu.queue().submit([encoder.finish()]);
        self.gpu.wait(index)?;
        self.gpu.check()
    }
}
