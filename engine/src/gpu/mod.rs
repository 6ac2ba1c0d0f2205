//! A GPU as a device, through wgpu: lowers a plan to dispatches of the kernels in `ir-shaders`, prepares them once and
//! replays them every step. What each op computes is defined by `cpu/kernels`, not here.

mod constants;
#[cfg(not(target_arch = "wasm32"))]
mod copy;
mod cost;
mod dispatch;
mod experimental;
mod forms;
mod heaps;
mod kernels;
mod lower;
mod making;
mod memory;
mod open;
mod pace;
mod parts;
#[cfg(not(target_arch = "wasm32"))]
mod pipelines;
mod planes;
mod probe;
mod readback;
mod runner;
mod step;
mod upload;

use std::sync::Arc;

#[cfg(not(target_arch = "wasm32"))]
pub use copy::CopyTest;
pub use cost::{StepCost, permutations};
pub use forms::Forms;
pub use making::threads_of_pipelines;
pub use open::{AdapterDescription, GpuOptions, adapters};
pub use readback::{GpuReadback, Results};
#[cfg(not(target_arch = "wasm32"))]
pub use runner::Timed;
pub use runner::{GpuRunner, HostCost};

use crate::error::{Error, Result};
use kernels::Kernels;
use open::Opened;

/// Bytes that any binding may have: offsets are counted in 32 bits.
const MOST_BYTES: u64 = u32::MAX as u64;

/// An opened GPU.
pub struct Gpu {
    opened: Opened,
    kernels: Kernels,
    max_binding: u64,
    max_part: u64,
    options: GpuOptions,
    /// What was found out when it was opened and is worth a line in a log.
    note: Option<String>,
    #[cfg(not(target_arch = "wasm32"))]
    pipelines: Option<pipelines::PipelineFile>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Drop for Gpu {
    fn drop(&mut self) {
        if let Some(file) = &self.pipelines {
            file.close(self.kernels.made());
        }
    }
}

impl Gpu {
    /// Opens an adapter with the limits and features that it has.
    ///
    /// # Errors
    /// [`Error::Device`] where there is none, or it refuses.
    pub async fn open(options: &GpuOptions) -> Result<Gpu> {
        let gpu = Arc::new(Gpu::new(open::open(options).await?, options));
        let forms = gpu.forms();
        let wrong = if forms.coherent { gpu.is_coherent().await.map_or(true, |is| !is) } else { false };
        if wrong {
            // A device that failed says so for good: another one goes on.
            let without = Some(Forms { coherent: false, heads: false, ..forms });
            let mut other = Gpu::new(open::open(&GpuOptions { forms: without, ..options.clone() }).await?, options);
            let name = &other.opened.description.name;
            other.note =
                Some(format!("{name} has no coherent memory, though it says so: the forms that need it are left out"));
            return Ok(other);
        }
        Arc::into_inner(gpu).ok_or_else(|| Error::Device("a device is held while it is opened".into()))
    }

    /// Opens the same adapter again, after a loss.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub async fn reopen(&self) -> Result<Gpu> {
        Gpu::open(&self.options).await
    }

    /// [`Gpu::open`] where waiting is allowed.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open_now(options: &GpuOptions) -> Result<Gpu> {
        readback::now(Gpu::open(options)).unwrap_or_else(|| Err(Error::Device("the GPU did not open at once".into())))
    }

    /// [`Gpu::reopen`] where waiting is allowed.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn reopen_now(&self) -> Result<Gpu> {
        Gpu::open_now(&self.options)
    }

    /// A device that computes nothing, with these forms of kernels, for measuring what the host does.
    ///
    /// # Errors
    /// Where wgpu refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn noop(forms: Forms) -> Result<Gpu> {
        Gpu::noop_with(&GpuOptions { forms: Some(forms), ..GpuOptions::default() })
    }

    /// [`Gpu::noop`] with the other options that matter to it; the base form if none is given.
    ///
    /// # Errors
    /// Where wgpu refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn noop_with(options: &GpuOptions) -> Result<Gpu> {
        let opened = readback::now(open::open_noop(options.forms.unwrap_or(Forms::BASE)));
        let opened = opened.unwrap_or_else(|| Err(Error::Device("the noop device did not open at once".into())))?;
        Ok(Gpu::new(opened, options))
    }

    fn new(opened: Opened, options: &GpuOptions) -> Gpu {
        let most = opened.limits.max_storage_buffer_binding_size.min(opened.limits.max_buffer_size);
        let max_binding = most.min(MOST_BYTES) / 16 * 16;
        let kernels = Kernels::new(options.sabotage);
        let max_part = options.max_part.unwrap_or(u64::MAX).min(max_binding);
        #[cfg(not(target_arch = "wasm32"))]
        let pipelines =
            options.pipelines.as_deref().zip(opened.adapter.as_ref()).and_then(|(folder, adapter)| {
                pipelines::PipelineFile::open(folder, &opened.device, &adapter.get_info())
            });
        Gpu {
            opened,
            kernels,
            max_binding,
            max_part,
            options: options.clone(),
            note: None,
            #[cfg(not(target_arch = "wasm32"))]
            pipelines,
        }
    }

    /// What is worth a line in a log: a form that computed wrongly and is left out, a file of pipelines that was damaged, is of
    /// another driver, or cannot be written. The latter are said once.
    pub fn notes(&self) -> Vec<String> {
        #[cfg(not(target_arch = "wasm32"))]
        let of_file = self.pipelines.as_ref().and_then(pipelines::PipelineFile::note);
        #[cfg(target_arch = "wasm32")]
        let of_file = None;
        self.note.clone().into_iter().chain(of_file).collect()
    }

    /// How many pipelines were made since the device was opened.
    pub fn n_pipelines(&self) -> usize {
        self.kernels.made()
    }

    /// What the driver compiled before.
    fn pipeline_cache(&self) -> Option<&wgpu::PipelineCache> {
        #[cfg(not(target_arch = "wasm32"))]
        return self.pipelines.as_ref().map(|file| &file.cache);
        #[cfg(target_arch = "wasm32")]
        None
    }

    /// Behind a step: writes the file of pipelines if it is time to.
    fn keep_pipelines(&self) {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(file) = &self.pipelines {
            file.keep(self.kernels.made());
        }
    }

    /// For example `NVIDIA H200 (vulkan, base+f16+subgroups)`.
    pub fn name(&self) -> String {
        let Opened { description, forms, .. } = &self.opened;
        format!("{} ({}, {forms})", description.name, description.backend)
    }

    /// What is known of the adapter.
    pub fn description(&self) -> &AdapterDescription {
        &self.opened.description
    }

    /// The forms of kernels in use.
    pub fn forms(&self) -> Forms {
        self.opened.forms
    }

    /// Whether the device tells when its work began and ended.
    pub fn has_timestamps(&self) -> bool {
        self.device().features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Pretends that the device was lost, as a driver may report at any time: for tests of recovery.
    pub fn lose(&self) {
        self.opened.faults.lose("on request");
    }

    /// Bytes that one binding may have.
    fn max_binding(&self) -> u64 {
        self.max_binding
    }

    /// Bytes of the adapter's memory that are free now; `None` where the driver does not say.
    pub fn free_memory(&self) -> Option<u64> {
        self.opened.adapter.as_ref().and_then(heaps::memory)?.free
    }

    /// Bytes of device memory that a runner may take, if it was said.
    pub fn memory_budget(&self) -> Option<u64> {
        self.options.memory
    }

    /// Bytes of device memory that a runner of a plan would take.
    ///
    /// # Errors
    /// What the device cannot compute, by name.
    pub fn bytes_of(&self, plan: &crate::plan::Plan, options: &crate::plan::RunnerOptions) -> Result<u64> {
        runner::bytes(self, plan, options)
    }

    fn device(&self) -> &wgpu::Device {
        &self.opened.device
    }

    fn queue(&self) -> &wgpu::Queue {
        &self.opened.queue
    }

    /// An error where the device failed since it was opened.
    fn check(&self) -> Result<()> {
        self.opened.faults.check()
    }

    /// A storage buffer of zeros.
    fn buffer(&self, label: &str, size: u64) -> wgpu::Buffer {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: size.max(16).next_multiple_of(16),
            usage,
            mapped_at_creation: false,
        })
    }

    /// Sends what was written and waits for it where waiting is possible, so that staging memory is given back.
    fn flush(&self) -> Result<()> {
        let index = self.queue().submit([]);
        self.wait(index)?;
        self.check()
    }

    /// Waits for a submission where waiting is possible.
    fn wait(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        let poll = wgpu::PollType::Wait { submission_index: Some(index), timeout: None };
        let polled = self.device().poll(poll);
        // What the device said first is nearer to the cause.
        polled.map(|_| ()).map_err(|error| match self.check() {
            Err(cause) => cause,
            Ok(()) => Error::Device(format!("the GPU stopped answering: {error}")),
        })
    }

    /// Cache pages that can be bound at once.
    pub fn max_pages(&self, plan: &crate::plan::Plan, kv: crate::plan::KvKind) -> usize {
        let largest = (0..plan.kv.len()).flat_map(|layer| memory::page_elements(plan, layer)).max().unwrap_or(1);
        usize::try_from(self.max_binding / memory::page_bytes(kv, largest).max(1)).unwrap_or(usize::MAX)
    }

    /// Slots of states that can be bound at once.
    pub fn max_states(&self, plan: &crate::plan::Plan) -> usize {
        let largest = plan.states.iter().copied().max().unwrap_or(0).max(1);
        usize::try_from(self.max_binding / (4 * largest as u64)).unwrap_or(usize::MAX)
    }

    /// Makes a plan ready to run.
    ///
    /// # Errors
    /// Where memory does not suffice or a shape is beyond the kernels.
    pub fn prepare(
        self: &Arc<Gpu>,
        plan: Arc<crate::plan::Plan>,
        options: crate::plan::RunnerOptions,
    ) -> Result<GpuRunner> {
        GpuRunner::new(Arc::clone(self), plan, options)
    }
}
