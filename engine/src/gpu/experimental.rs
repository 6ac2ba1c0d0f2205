//! Cooperative matrices, which wgpu 30 offers as an experiment: what the kernel `linear_coop` needs of an adapter, and the
//! consent that wgpu asks for.

use super::{AdapterDescription, Forms};
use crate::error::{Error, Result};

/// The kernel's workgroup has 256 invocations and must have 4 subgroups.
const MOST_LANES: u32 = 64;
/// Bytes of its tiles.
const TILE_BYTES: u32 = 20 << 10;

/// The features to ask for so that `linear_coop` runs.
///
/// # Errors
/// [`Error::Device`] says what the adapter lacks.
pub(super) fn features(
    adapter: &wgpu::Adapter,
    description: &AdapterDescription,
    forms: Forms,
    limits: &wgpu::Limits,
) -> Result<wgpu::Features> {
    let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SUBGROUP;
    let factors = if forms.f16 { wgpu::CooperativeScalarType::F16 } else { wgpu::CooperativeScalarType::F32 };
    let all = adapter.cooperative_matrix_properties();
    let fits = all.iter().any(|c| {
        [c.m_size, c.n_size, c.k_size] == [8; 3]
            && c.ab_type == factors
            && c.cr_type == wgpu::CooperativeScalarType::F32
    });
    let lanes = adapter.get_info().subgroup_max_size;
    let tile = limits.max_compute_workgroup_storage_size;
    if adapter.features().contains(needed) && fits && lanes <= MOST_LANES && tile > TILE_BYTES {
        return Ok(needed);
    }
    let shapes: Vec<String> = all
        .iter()
        .map(|c| format!("{}x{}x{} {:?} to {:?}", c.m_size, c.n_size, c.k_size, c.ab_type, c.cr_type))
        .collect();
    let shapes = if shapes.is_empty() { "none".to_owned() } else { shapes.join(", ") };
    Err(Error::Device(format!(
        "{} cannot run the cooperative-matrix kernels, which multiply 8x8x8 {factors:?} to F32 (it has: {shapes}): choose \
         other kernel forms",
        description.name
    )))
}

/// wgpu's consent form for features that it calls experimental.
pub(super) fn enabled() -> wgpu::ExperimentalFeatures {
    #[allow(unsafe_code, reason = "wgpu marks the use of experimental features so")]
    // SAFETY: the caller of the library asked for this form by name. The kernel reads and writes by cooperative loads and
    // stores only inside its own workgroup arrays, at places that are bounded by constants, so none is out of bounds.
    unsafe {
        wgpu::ExperimentalFeatures::enabled()
    }
}
