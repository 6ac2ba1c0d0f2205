//! Kernels on the device: composed once, compiled at first use, found by their key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use ir_shaders::{Access, Composed, Target};

use super::Gpu;
use super::dispatch::Key;
use crate::error::{Error, Result};

/// A kernel and what binding it takes.
#[derive(Debug)]
pub(super) struct Kernel {
    name: &'static str,
    pub composed: Composed,
    pub layout: wgpu::BindGroupLayout,
    /// It multiplies by cooperative matrices.
    #[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
    is_cooperative: bool,
    pipeline: OnceLock<wgpu::ComputePipeline>,
}

/// All kernels of a device.
#[derive(Debug)]
pub(super) struct Kernels {
    /// See [`super::GpuOptions::sabotage`].
    sabotage: Option<(&'static str, &'static str, &'static str)>,
    by_key: Mutex<HashMap<Key, Arc<Kernel>>>,
    /// Pipelines that were made.
    made: AtomicUsize,
}

impl Kernels {
    pub(super) fn new(sabotage: Option<(&'static str, &'static str, &'static str)>) -> Kernels {
        Kernels { sabotage, by_key: Mutex::default(), made: AtomicUsize::new(0) }
    }

    /// How many pipelines were made.
    pub(super) fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// The kernel of this key; composed if it is new.
    ///
    /// # Errors
    /// Where the text cannot be composed, which a test excludes for every listed permutation.
    pub(super) fn get(&self, device: &wgpu::Device, key: &Key) -> Result<Arc<Kernel>> {
        let mut all = self.by_key.lock().map_err(|_| Error::Device("a thread died while composing a kernel".into()))?;
        if let Some(kernel) = all.get(key) {
            return Ok(Arc::clone(kernel));
        }
        let target = if cfg!(target_arch = "wasm32") { Target::Tint } else { Target::Naga };
        let mut composed = ir_shaders::compose(key.kernel, &key.features, &key.consts, target)
            .map_err(|error| Error::Device(error.to_string()))?;
        if let Some((_, find, replace)) = self.sabotage.filter(|s| s.0 == key.kernel) {
            composed.wgsl = composed.wgsl.replace(find, replace);
        }
        let entries: Vec<_> = composed.bindings.iter().map(|b| entry(b.index, b.access)).collect();
        let descriptor = wgpu::BindGroupLayoutDescriptor { label: Some(key.kernel), entries: &entries };
        let layout = device.create_bind_group_layout(&descriptor);
        let kernel = Arc::new(Kernel {
            name: key.kernel,
            composed,
            layout,
            #[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
            is_cooperative: key.features.contains(&"COOPMAT"),
            pipeline: OnceLock::new(),
        });
        all.insert(key.clone(), Arc::clone(&kernel));
        Ok(kernel)
    }
}

fn entry(binding: u32, access: Access) -> wgpu::BindGroupLayoutEntry {
    let ty = match access {
        Access::Uniform => wgpu::BufferBindingType::Uniform,
        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// A module without wgpu's counting of loops, clamping of places in arrays and checks of divisors: they keep drivers from
/// unrolling loops, which costs a third of the speed of prompts and a quarter of that of
/// decoding (NVIDIA H200).
fn module(device: &wgpu::Device, name: &str, wgsl: &str) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    #[allow(unsafe_code, reason = "wgpu marks modules without checks so")]
    // SAFETY: only this library's own kernels come here. Each loop of theirs goes up to a bound that the parameters, the
    // step or a constant give, by steps of at least one. Divisors are constants, or parameters that the lowering makes at
    // least one. Places in arrays come of parameters made from the plan's own shapes, and of the step's words, which the
    // host has checked against the room there is: `Inputs::check` tokens, positions and pages, `step` the rest. Picks of
    // matrices, which a kernel wrote, are held to the stack where they are read.
    unsafe {
        device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
    }
}

/// A module of words that [`super::translate`] made. What is wrong with them shows as the device's error.
#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
fn module_of_words(device: &wgpu::Device, name: &str, words: Vec<u32>) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
        label: Some(name),
        entry_points: vec![wgpu::PassthroughShaderEntryPoint { name: "main".into(), workgroup_size: (0, 0, 0) }].into(),
        spirv: Some(words.into()),
        ..Default::default()
    };
    #[allow(unsafe_code, reason = "wgpu marks modules that it does not read so")]
    // SAFETY: the words are naga's, of this library's own kernels that naga has validated, with the binding numbers that
    // wgpu gives their layout; the pass behind naga changes how memory is ordered and nothing else. For what wgpu would have
    // checked in WGSL, see `module`.
    unsafe {
        device.create_shader_module_passthrough(descriptor)
    }
}

impl Kernel {
    /// Its module: by wgpu's translation, or on Vulkan by that which completes cooperative matrices.
    fn module(&self, gpu: &Gpu) -> wgpu::ShaderModule {
        #[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
        if self.is_cooperative && gpu.device().features().contains(wgpu::Features::PASSTHROUGH_SHADERS) {
            match super::translate::spirv(&self.composed) {
                Ok(words) => return module_of_words(gpu.device(), self.name, words),
                // What follows is not run.
                Err(why) => gpu.opened.faults.fail(format!("{} cannot be translated: {why}", self.name)),
            }
        }
        module(gpu.device(), self.name, &self.composed.wgsl)
    }

    /// The compiled kernel. A failure shows as the device's error.
    pub(super) fn pipeline(&self, gpu: &Gpu) -> &wgpu::ComputePipeline {
        self.pipeline.get_or_init(|| {
            let device = gpu.device();
            gpu.kernels.made.fetch_add(1, Ordering::Relaxed);
            let module = self.module(gpu);
            let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(self.name),
                bind_group_layouts: &[Some(&self.layout)],
                immediate_size: 0,
            });
            let compilation_options = wgpu::PipelineCompilationOptions {
                // The kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            };
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(self.name),
                layout: Some(&layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options,
                cache: gpu.pipeline_cache(),
            })
        })
    }

    /// The parameters as bytes, in the order of the kernel's `struct Params`.
    ///
    /// # Errors
    /// Where one is missing: an error of this library.
    pub(super) fn params(&self, values: &[(&'static str, u32)]) -> Result<Vec<u32>> {
        let find = |name: &String| values.iter().find(|v| v.0 == name).map(|v| v.1);
        let names = self.composed.params.iter();
        names.map(|n| find(n).ok_or_else(|| Error::Device(format!("{}: no value for {n}", self.name)))).collect()
    }
}
