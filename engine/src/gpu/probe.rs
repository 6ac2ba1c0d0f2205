//! Forms of kernels tried when a device is opened, by a known answer: what is promised and not held is done without.

use std::sync::Arc;

use super::Gpu;
use super::dispatch::Key;
use super::readback::{GpuReadback, Parts, Spare, staging_bytes};
use crate::error::Result;

const WG: u32 = 64;
/// Cells, and workgroups of each.
const CELLS: u32 = 64;
const WORKGROUPS: u32 = 32;
const ROUNDS: u32 = 8;

impl Gpu {
    /// Whether workgroups see in time what others wrote: what the form `coherent` rests on.
    ///
    /// # Errors
    /// Where the device failed.
    pub(super) async fn is_coherent(self: &Arc<Gpu>) -> Result<bool> {
        let device = self.device();
        let key = Key { kernel: "probe_coherent", features: vec!["COHERENT"], consts: vec![("WG", WG)] };
        let kernel = self.kernels.get(device, &key)?;
        let params = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: 16,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let values = kernel.params(&[("n", WORKGROUPS), ("n_cells", CELLS)])?;
        self.queue().write_buffer(&params, 0, bytemuck::cast_slice(&values));
        let parts = self.buffer("probe", u64::from(16 * WG * WORKGROUPS * CELLS));
        let (finished, out) = (self.buffer("probe", u64::from(4 * CELLS)), self.buffer("probe", u64::from(8 * CELLS)));
        let buffers = [(0, &params), (2, &parts), (3, &finished), (4, &out)];
        let entries = buffers.map(|(binding, b)| wgpu::BindGroupEntry { binding, resource: b.as_entire_binding() });
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("probe"),
            layout: &kernel.layout,
            entries: &entries,
        });
        let results = Parts { picked: 2 * CELLS as usize, ..Parts::default() };
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("results"),
            size: staging_bytes(results),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(kernel.pipeline(self));
        pass.set_bind_group(0, &bind_group, &[]);
        (0..ROUNDS).for_each(|_| pass.dispatch_workgroups(CELLS * WORKGROUPS, 1, 1));
        drop(pass);
        encoder.copy_buffer_to_buffer(&out, 0, &staging, 0, u64::from(8 * CELLS));
        let index = self.queue().submit([encoder.finish()]);
        let read = GpuReadback::new(Arc::clone(self), staging, results, index, &Spare::default()).await?;
        Ok(read.picked.chunks_exact(2).all(|cell| cell == [ROUNDS, 0]))
    }
}
