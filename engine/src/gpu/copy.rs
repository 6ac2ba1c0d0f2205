//! How fast a device's memory is, by copying one large buffer to another with a kernel: copies by the driver may go another
//! way. The caller holds the clock.

use std::sync::Arc;

use super::Gpu;
use super::dispatch::{Key, grid};
use super::kernels::Kernel;
use crate::error::{Error, Result};

/// Invocations of a workgroup.
const WG: u32 = 256;

/// Two buffers of one size, and the kernel between them.
#[derive(Debug)]
pub struct CopyTest {
    gpu: Arc<Gpu>,
    from: wgpu::Buffer,
    kernel: Arc<Kernel>,
    bind_group: wgpu::BindGroup,
    grid: [u32; 3],
}

impl CopyTest {
    /// Buffers of `bytes`, or of as much as the device takes.
    ///
    /// # Errors
    /// Where the device has not the memory.
    pub fn new(gpu: &Arc<Gpu>, bytes: u64) -> Result<CopyTest> {
        let bytes = bytes.min(gpu.max_binding()) / 16 * 16;
        let (from, to) = (gpu.buffer("from", bytes), gpu.buffer("to", bytes));
        gpu.check()?;
        let key = Key { kernel: "copy", features: Vec::new(), consts: vec![("WG", WG)] };
        let kernel = gpu.kernels.get(gpu.device(), &key)?;
        let quads = bytes / 16;
        let params = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: 16,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue().write_buffer(&params, 0, bytemuck::cast_slice(&kernel.params(&[("n", quads as u32)])?));
        let buffers = [(0, &params), (2, &from), (3, &to)];
        let entries = buffers.map(|(binding, b)| wgpu::BindGroupEntry { binding, resource: b.as_entire_binding() });
        let bind_group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("copy"),
            layout: &kernel.layout,
            entries: &entries,
        });
        let grid =
            grid(quads.div_ceil(u64::from(WG)) as usize).ok_or_else(|| Error::limit("a copy of so many bytes"))?;
        Ok(CopyTest { gpu: Arc::clone(gpu), from, kernel, bind_group, grid })
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
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(self.kernel.pipeline(&self.gpu));
        pass.set_bind_group(0, &self.bind_group, &[]);
        let [x, y, z] = self.grid;
        (0..times).for_each(|_| pass.dispatch_workgroups(x, y, z));
        drop(pass);
        let index = self.gpu.queue().submit([encoder.finish()]);
        self.gpu.wait(index)?;
        self.gpu.check()
    }
}
