//! Finding an adapter and opening it as a device, with what it has and not what the defaults are.

use std::sync::{Arc, Mutex};

use super::{Forms, experimental};
use crate::error::{Error, Result};

/// How a GPU is to be opened.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Which of [`adapters`], counted from 0; the best where `None`.
    pub adapter: Option<usize>,
    /// Forces forms of the kernels; what the adapter has where `None`.
    pub forms: Option<Forms>,
    /// Bytes of a matrix that lie in one buffer at most, below the adapter's own limit: for tests of split tensors.
    pub max_part: Option<u64>,
    /// Bytes of device memory that a runner may take; no limit where `None`.
    pub memory: Option<u64>,
    /// Arithmetic operations that one submission may take, so that watchdogs and compositors are not kept waiting. Where
    /// `None`, what the device was measured to do in a quarter of a second natively and in 25 ms in a page.
    pub work_per_submit: Option<u64>,
    /// The host adds `subgroups` to what the browser is asked for, since wgpu does not pass that wish on. Only for an
    /// adapter that has them.
    pub host_subgroups: bool,
    /// Uses f16 and subgroups of software adapters too, where they are no faster: for tests in a page.
    pub software_forms: bool,
    /// A folder where the driver's compiled pipelines are kept from one start to the next, natively on Vulkan; nowhere where
    /// `None`. What is in it must be this user's own.
    pub pipelines: Option<std::path::PathBuf>,
    /// All pipelines that a plan may need are made while its weights arrive: by so many threads beside that (see
    /// [`threads_of_pipelines`](super::threads_of_pipelines)), or, if 0, one for each piece of weights. Each at its first use if
    /// `None`, and on software adapters.
    pub compile_ahead: Option<usize>,
    /// Only WebGPU's default limits and features, as a page may have them.
    pub default_limits: bool,
    /// Breaks a kernel on purpose, to show that an exam finds it: its name, a piece of its text, what stands there
    /// instead.
    pub sabotage: Option<(&'static str, &'static str, &'static str)>,
}

/// What is known of an adapter before it is opened.
#[derive(Debug, Clone)]
pub struct AdapterDescription {
    /// The hardware's name.
    pub name: String,
    /// `vulkan`, `metal`, `dx12` or `browser webgpu`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// The driver, as it names itself.
    pub driver: String,
    /// Forms of the kernels that it can run.
    pub forms: Forms,
    /// Bytes that one binding may have.
    pub max_binding: u64,
    /// Bytes that one buffer may have.
    pub max_buffer: u64,
    /// Bytes of its memory; `None` where the backend does not say.
    pub memory: Option<u64>,
    /// Bytes of it that were free when it was looked at; `None` where the driver does not say.
    pub free_memory: Option<u64>,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Smallest and largest subgroup.
    pub subgroup_sizes: (u32, u32),
}

/// An opened device and what came with it.
pub(super) struct Opened {
    /// Asked for free memory; none of a device that does nothing.
    pub adapter: Option<wgpu::Adapter>,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub description: AdapterDescription,
    pub forms: Forms,
    pub limits: wgpu::Limits,
    pub faults: Arc<Faults>,
}

/// What went wrong since the device was opened. Drivers report it at any time, on any thread.
#[derive(Debug, Default)]
pub(super) struct Faults {
    first: Mutex<Option<String>>,
    lost: Mutex<Option<String>>,
}

impl Faults {
    fn note(slot: &Mutex<Option<String>>, what: String) {
        if let Ok(mut slot) = slot.lock() {
            slot.get_or_insert(what);
        }
    }

    /// An error where the device failed or was lost.
    pub(super) fn check(&self) -> Result<()> {
        let get = |slot: &Mutex<Option<String>>| slot.lock().ok().and_then(|s| s.clone());
        if let Some(why) = get(&self.lost) {
            return Err(Error::Lost(why));
        }
        match get(&self.first) {
            Some(why) => Err(Error::Device(format!("the GPU refused a command: {why}"))),
            None => Ok(()),
        }
    }

    /// Notes that the device is gone.
    pub(super) fn lose(&self, why: &str) {
        Faults::note(&self.lost, why.to_owned());
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends =
        wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12 | wgpu::Backends::BROWSER_WEBGPU;
    wgpu::Instance::new(descriptor)
}

/// Adapters, best first: real before software, discrete before integrated.
async fn found() -> Vec<wgpu::Adapter> {
    let mut all = instance().enumerate_adapters(wgpu::Backends::all()).await;
    all.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    let rank = |adapter: &wgpu::Adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
        wgpu::DeviceType::Cpu => 3,
    };
    all.sort_by_key(rank);
    all
}

/// Every adapter that this machine offers, best first. Numbers for [`GpuOptions::adapter`] are places in this list.
pub async fn adapters() -> Vec<AdapterDescription> {
    found().await.iter().map(describe).collect()
}

/// NVIDIA's number among makers of PCI devices.
const NVIDIA: u32 = 0x10de;

/// Whether tiles of halves are worth having: not on NVIDIA's, where tiles of f32 were measured a fifth faster (H200).
fn halves(info: &wgpu::AdapterInfo, features: wgpu::Features) -> bool {
    features.contains(wgpu::Features::SHADER_F16) && info.vendor != NVIDIA
}

/// Whether workgroups see in time what others wrote: where barriers order memory for the whole device. Metal's do so within
/// a workgroup only.
fn coherent(info: &wgpu::AdapterInfo, features: wgpu::Features) -> bool {
    features.contains(wgpu::Features::MEMORY_DECORATION_COHERENT)
        && matches!(info.backend, wgpu::Backend::Vulkan | wgpu::Backend::Dx12)
}

fn describe(adapter: &wgpu::Adapter) -> AdapterDescription {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let software = info.device_type == wgpu::DeviceType::Cpu;
    let (f16, coherent) = (halves(&info, features) && !software, coherent(&info, features));
    let subgroups = features.contains(wgpu::Features::SUBGROUP) && !software;
    let memory = super::heaps::memory(adapter);
    AdapterDescription {
        name: info.name,
        backend: info.backend.to_str().to_owned(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        forms: Forms { f16, subgroups, coherent, heads: coherent, ..Forms::BASE },
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        memory: memory.map(|memory| memory.total),
        free_memory: memory.and_then(|memory| memory.free),
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
    }
}

/// Opens an adapter.
pub(super) async fn open(options: &GpuOptions) -> Result<Opened> {
    let all = found().await;
    let n = all.len();
    if n == 0 {
        return Err(Error::Device(
            "no GPU was found: install its Vulkan driver (on Linux), or run with --device cpu".into(),
        ));
    }
    let index = options.adapter.unwrap_or(0);
    let adapter = all
        .into_iter()
        .nth(index)
        .ok_or_else(|| Error::Device(format!("there is no GPU {index}: this machine has {n}, counted from 0")))?;
    let mut description = describe(&adapter);
    let offered = adapter.features();
    let worth = description.kind != "software" || options.software_forms;
    description.forms.f16 |= worth && halves(&adapter.get_info(), offered);
    description.forms.subgroups |= worth && (options.host_subgroups || offered.contains(wgpu::Features::SUBGROUP));
    let of_forms = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP | wgpu::Features::MEMORY_DECORATION_COHERENT;
    let mut wanted = of_forms | wgpu::Features::TIMESTAMP_QUERY;
    wanted.set(wgpu::Features::PIPELINE_CACHE, options.pipelines.is_some());
    let (features, limits) = match options.default_limits {
        true => (wgpu::Features::empty(), wgpu::Limits::default()),
        false => (offered & wanted, adapter.limits()),
    };
    let forms = options.forms.unwrap_or(if options.default_limits { Forms::BASE } else { description.forms });
    let (features, experimental_features) = match forms.coopmat {
        true => (features | experimental::features(&adapter, &description, forms, &limits)?, experimental::enabled()),
        false => (features, wgpu::ExperimentalFeatures::disabled()),
    };
    for (on, feature, name) in [
        (forms.f16, wgpu::Features::SHADER_F16, "f16 arithmetic"),
        (forms.subgroups && !options.host_subgroups, wgpu::Features::SUBGROUP, "subgroups"),
        (forms.coherent, wgpu::Features::MEMORY_DECORATION_COHERENT, "coherent memory"),
    ] {
        if on && !features.contains(feature) {
            return Err(Error::Device(format!("{} has no {name}: choose other kernel forms", description.name)));
        }
    }
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("ir"),
        required_features: features,
        required_limits: limits.clone(),
        experimental_features,
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    let (device, queue) = adapter
        .request_device(&descriptor)
        .await
        .map_err(|error| Error::Device(format!("{} cannot be opened: {error}", description.name)))?;
    Ok(finish(Some(adapter), device, queue, description, forms, limits))
}

fn finish(
    adapter: Option<wgpu::Adapter>,
    device: wgpu::Device,
    queue: wgpu::Queue,
    description: AdapterDescription,
    forms: Forms,
    limits: wgpu::Limits,
) -> Opened {
    let faults = Arc::new(Faults::default());
    let noted = Arc::clone(&faults);
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        let what = match error {
            wgpu::Error::OutOfMemory { .. } => {
                "it has not enough free memory: ask for a shorter context, a smaller model, or fewer layers on it"
                    .into()
            }
            error => error.to_string(),
        };
        Faults::note(&noted.first, what);
    }));
    let noted = Arc::clone(&faults);
    device.set_device_lost_callback(move |reason, message| {
        if reason != wgpu::DeviceLostReason::Destroyed {
            Faults::note(&noted.lost, message);
        }
    });
    Opened { adapter, device, queue, description, forms, limits, faults }
}

/// A device that does nothing, with these forms: for measuring what the host does per step.
#[cfg(not(target_arch = "wasm32"))]
pub(super) async fn open_noop(forms: Forms) -> Result<Opened> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::NOOP;
    descriptor.backend_options.noop = wgpu::NoopBackendOptions { enable: true, ..Default::default() };
    let all = wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::NOOP).await;
    let adapter = all.first().ok_or_else(|| Error::Device("wgpu has no noop backend".into()))?;
    // The most that wgpu lets any device offer.
    let most = i32::MAX as u64;
    let limits =
        wgpu::Limits { max_storage_buffer_binding_size: most / 16 * 16, max_buffer_size: most, ..Default::default() };
    let mut required_features = wgpu::Features::empty();
    required_features.set(wgpu::Features::SHADER_F16, forms.f16);
    required_features.set(wgpu::Features::SUBGROUP, forms.subgroups);
    required_features.set(wgpu::Features::MEMORY_DECORATION_COHERENT, forms.coherent);
    let descriptor =
        wgpu::DeviceDescriptor { required_limits: limits.clone(), required_features, ..Default::default() };
    let opened = adapter.request_device(&descriptor).await;
    let (device, queue) =
        opened.map_err(|error| Error::Device(format!("the noop device cannot be opened: {error}")))?;
    let description = AdapterDescription {
        name: "nothing".into(),
        backend: "noop".into(),
        kind: "other",
        driver: String::new(),
        forms,
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        memory: None,
        free_memory: None,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        subgroup_sizes: (0, 0),
    };
    Ok(finish(None, device, queue, description, forms, limits))
}
