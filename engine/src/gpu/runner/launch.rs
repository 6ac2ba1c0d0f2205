//! Dispatches with their pipelines, parameters and bind groups, ready to be encoded.

use std::sync::Arc;

use super::GpuRunner;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::dispatch::{Count, Counts, Dispatch, Resource, grid};
use crate::gpu::kernels::Kernel;
use crate::gpu::making::Making;
use crate::plan::Slot;

/// Dispatches ready to be encoded.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub launches: Vec<Launch>,
}

impl Prepared {
    /// The dispatches with their kernels.
    pub(super) fn kernels(&self) -> impl Iterator<Item = (&Dispatch, &Arc<Kernel>)> {
        self.launches.iter().map(|launch| (&launch.dispatch, &launch.kernel))
    }
}

#[derive(Debug)]
pub(super) struct Launch {
    pub dispatch: Dispatch,
    kernel: Arc<Kernel>,
    bind_group: wgpu::BindGroup,
}

impl Launch {
    /// Encodes the dispatch; gives its arithmetic operations, none where the step does not want it.
    pub(super) fn record(&self, gpu: &Gpu, counts: &Counts, pass: &mut wgpu::ComputePass<'_>) -> Result<u64> {
        let n = self.dispatch.workgroups(counts);
        if n == 0 {
            let (rows, range) = &self.dispatch.when;
            if self.dispatch.grid.count == Count::Merged && range.contains(&counts.rows(*rows)) {
                // Longer contexts will want it: no step behind the first waits for a compiler.
                self.kernel.pipeline(gpu);
            }
            return Ok(0);
        }
        let Some([x, y, z]) = grid(n) else {
            return Err(Error::limit(format!("a step of {} rows is too large for the GPU", counts.n_rows())));
        };
        pass.set_pipeline(self.kernel.pipeline(gpu));
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
        Ok(self.work(counts))
    }

    pub(super) fn work(&self, counts: &Counts) -> u64 {
        self.dispatch.work * counts.rows(self.dispatch.when.0) as u64
    }
}

impl GpuRunner {
    /// Gives each dispatch its kernel, parameters and bind group.
    pub(super) fn prepare(&self, dispatches: Vec<Dispatch>) -> Result<Prepared> {
        let device = self.gpu.device();
        let slot = device.limits().min_uniform_buffer_offset_alignment.max(16) as usize / 4;
        let mut arena: Vec<u32> = Vec::new();
        let mut kernels = Vec::with_capacity(dispatches.len());
        for dispatch in &dispatches {
            let kernel = self.gpu.kernels.get(device, &dispatch.key)?;
            let params = kernel.params(&dispatch.params)?;
            let at = arena.len();
            let len = params.len().next_multiple_of(4).max(4);
            arena.extend(params);
            arena.resize(at + len.next_multiple_of(slot), 0);
            kernels.push((kernel, 4 * at as u64, 4 * len as u64));
        }
        let uniforms = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: (4 * arena.len() as u64).max(16),
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.gpu.queue().write_buffer(&uniforms, 0, bytemuck::cast_slice(&arena));
        let mut launches = Vec::with_capacity(dispatches.len());
        for (dispatch, (kernel, offset, size)) in dispatches.into_iter().zip(kernels) {
            let params = wgpu::BufferBinding { buffer: &uniforms, offset, size: wgpu::BufferSize::new(size) };
            let bind_group = self.bind(&dispatch, &kernel, params)?;
            launches.push(Launch { dispatch, kernel, bind_group });
        }
        Ok(Prepared { launches })
    }

    /// Begins to make all pipelines that steps may want, and what makes the blocks of slots that are filled from elsewhere.
    ///
    /// # Errors
    /// As [`GpuRunner::prepare`].
    pub(super) fn make_pipelines(&mut self, n_threads: usize) -> Result<()> {
        let blocks = (0..self.plan.slots.len()).find_map(|slot| self.lowering().blocks(Slot(slot as u32)));
        let blocks =
            blocks.map(|d| Ok::<_, Error>((self.gpu.kernels.get(self.gpu.device(), &d.key)?, d))).transpose()?;
        let has_room = |dispatch: &Dispatch| *dispatch.when.1.start() <= self.options.most(dispatch.when.0);
        let all = self.steps.kernels().chain(self.picks.kernels()).filter(|(dispatch, _)| has_room(dispatch));
        let all = all.chain(blocks.iter().map(|(kernel, dispatch)| (dispatch, kernel)));
        self.making = Making::start(&self.gpu, all, n_threads);
        Ok(())
    }

    /// Waits until the pipelines are made that are made while the model loads: for measuring.
    pub fn pipelines_made(&mut self) {
        self.making.wait(&self.gpu);
    }

    fn bind(&self, dispatch: &Dispatch, kernel: &Kernel, params: wgpu::BufferBinding<'_>) -> Result<wgpu::BindGroup> {
        let mut entries = Vec::with_capacity(kernel.composed.bindings.len());
        for binding in &kernel.composed.bindings {
            let resource = match binding.name.as_str() {
                "p" => wgpu::BindingResource::Buffer(params.clone()),
                "step" => self.step.as_entire_binding(),
                "constants" => self.memory.get(Resource::Constants)?.as_entire_binding(),
                name => {
                    let found = dispatch.bindings.iter().find(|b| b.0 == name);
                    let (_, resource) = found
                        .ok_or_else(|| Error::Device(format!("{}: nothing is bound to {name}", dispatch.key.kernel)))?;
                    self.memory.get(*resource)?.as_entire_binding()
                }
            };
            entries.push(wgpu::BindGroupEntry { binding: binding.index, resource });
        }
        Ok(self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(dispatch.key.kernel),
            layout: &kernel.layout,
            entries: &entries,
        }))
    }
}
