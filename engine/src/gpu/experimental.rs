//! Cooperative matrices, which wgpu 30 offers as an experiment: what their kernels need of an adapter, which of them it gets,
//! and the consent that wgpu asks for.

use wgpu::CooperativeScalarType::{F16, F32};

use super::{AdapterDescription, Forms, Matrices};
use crate::error::{Error, Result};

/// The largest subgroup that is foreseen: a workgroup of 256 invocations must have 4.
const MOST_LANES: u32 = 64;
/// Bytes of workgroup memory that the kernels take.
const TILE_BYTES: u32 = 27 << 10;

/// What a device is asked for so that it computes `matrices`.
pub(super) struct Chosen {
    pub matrices: Matrices,
    pub features: wgpu::Features,
}

/// What a kind of matrices needs: features, its size, the type of its factors.
fn needs(matrices: Matrices, halves: bool) -> (wgpu::Features, u32, wgpu::CooperativeScalarType) {
    let features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SUBGROUP;
    match matrices {
        Matrices::Sixteen(_) => (features | wgpu::Features::SHADER_F16 | wgpu::Features::PASSTHROUGH_SHADERS, 16, F16),
        Matrices::Plain => (wgpu::Features::SHADER_F16, 0, F16),
        Matrices::Listed | Matrices::Eight => (features, 8, if halves { F16 } else { F32 }),
    }
}

/// How an adapter is to compute what `forms` ask for, or what a test asks for.
///
/// # Errors
/// [`Error::Device`] says what the adapter lacks.
pub(super) fn choose(
    adapter: &wgpu::Adapter,
    description: &AdapterDescription,
    forms: Forms,
    limits: &wgpu::Limits,
) -> Result<Chosen> {
    let info = adapter.get_info();
    let vulkan = info.backend == wgpu::Backend::Vulkan;
    let lanes = info.subgroup_max_size;
    let all = adapter.cooperative_matrix_properties();
    let has_room = lanes <= MOST_LANES && limits.max_compute_workgroup_storage_size >= TILE_BYTES;
    let has = |matrices: Matrices| {
        let (features, size, factors) = needs(matrices, forms.f16);
        let listed =
            all.iter().any(|c| [c.m_size, c.n_size, c.k_size] == [size; 3] && c.ab_type == factors && c.cr_type == F32);
        // What naga leaves out of SPIR-V is put in on the way to Vulkan: see `translate`.
        let translated = vulkan || size == 8;
        adapter.features().contains(features) && has_room && (matrices == Matrices::Plain || listed && translated)
    };
    let candidates = match forms.coopmat.unwrap_or_default() {
        Matrices::Listed => vec![Matrices::Sixteen(lanes), Matrices::Eight],
        asked => vec![asked],
    };
    if let Some(matrices) = candidates.into_iter().find(|matrices| has(*matrices)) {
        let (mut features, ..) = needs(matrices, forms.f16);
        // Those of 8 are completed on Vulkan too.
        features.set(wgpu::Features::PASSTHROUGH_SHADERS, vulkan && matrices != Matrices::Plain);
        return Ok(Chosen { matrices, features });
    }
    let shapes: Vec<String> = all
        .iter()
        .map(|c| format!("{}x{}x{} {:?} to {:?}", c.m_size, c.n_size, c.k_size, c.ab_type, c.cr_type))
        .collect();
    let shapes = if shapes.is_empty() { "none".to_owned() } else { shapes.join(", ") };
    let of_eight = needs(Matrices::Eight, forms.f16).2;
    Err(Error::Device(format!(
        "{} cannot run the cooperative-matrix kernels, which multiply 16x16x16 F16 to F32 on Vulkan and 8x8x8 {of_eight:?} to \
         F32 (it has: {shapes}): choose other kernel forms",
        description.name
    )))
}

/// wgpu's consent form for features that it calls experimental.
pub(super) fn enabled() -> wgpu::ExperimentalFeatures {
    #[allow(unsafe_code, reason = "wgpu marks the use of experimental features so")]
    // SAFETY: the caller of the library asked for this form by name. The kernels read and write by cooperative loads and
    // stores only inside their own workgroup arrays, at places that are bounded by constants, so none is out of bounds.
    unsafe {
        wgpu::ExperimentalFeatures::enabled()
    }
}
