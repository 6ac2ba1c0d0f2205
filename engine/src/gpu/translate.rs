//! Kernels of cooperative matrices on their way to Vulkan: WGSL to SPIR-V by wgpu's own naga, with the options that wgpu takes
//! for modules without checks, then what naga leaves out of the words ([`ir_shaders::with_memory_semantics`]). No device here.
//! Goes when wgpu writes such words itself (its pull request 10016).

use ir_shaders::Composed;
use wgpu::naga;
use wgpu::naga::back::spv;
use wgpu::naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

/// What every device with cooperative matrices takes; theirs is Vulkan 1.2 at least.
const VERSION: (u8, u8) = (1, 5);
const CAPABILITIES: [spv::Capability; 7] = [
    spv::Capability::Shader,
    spv::Capability::Matrix,
    spv::Capability::Float16,
    spv::Capability::StorageBuffer16BitAccess,
    spv::Capability::GroupNonUniform,
    spv::Capability::CooperativeMatrixKHR,
    spv::Capability::VulkanMemoryModel,
];

/// The words of a kernel, entry point `main`.
///
/// # Errors
/// Says what naga or the pass behind it refuses.
pub(super) fn spirv(composed: &Composed) -> Result<Vec<u32>, String> {
    let module = naga::front::wgsl::parse_str(&composed.wgsl).map_err(|e| e.emit_to_string(&composed.wgsl))?;
    let wanted = Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SUBGROUP
        | Capabilities::COOPERATIVE_MATRIX;
    let info = Validator::new(ValidationFlags::all(), wanted)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(&composed.wgsl))?;
    let unchecked = naga::proc::BoundsCheckPolicy::Unchecked;
    // wgpu numbers what a layout binds anew, without gaps.
    let numbered = composed.bindings.iter().enumerate().map(|(i, binding)| {
        let from = naga::ResourceBinding { group: 0, binding: binding.index };
        (from, spv::BindingInfo { descriptor_set: 0, binding: i as u32, binding_array_size: None })
    });
    let options = spv::Options {
        lang_version: VERSION,
        flags: spv::WriterFlags::empty(),
        fake_missing_bindings: false,
        binding_map: numbered.collect(),
        capabilities: Some(CAPABILITIES.into_iter().collect()),
        bounds_check_policies: naga::proc::BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into() };
    let words = spv::write_vec(&module, &info, &options, Some(&pipeline)).map_err(|e| e.to_string())?;
    ir_shaders::with_memory_semantics(&words).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel as the engine asks for it.
    fn compose(kernel: &str, features: &[&str], lanes: u32) -> Composed {
        let features = [&["q8_0", "COOPMAT"], features].concat();
        ir_shaders::compose(kernel, &features, &[("WG", 4 * lanes)], ir_shaders::Target::Naga).unwrap()
    }

    #[test]
    fn kernels_of_matrices_become_words() {
        for (kernel, features) in
            [("linear_sixteen", &["F16", "HALVES"][..]), ("linear_coop", &["F16"]), ("linear_coop", &[])]
        {
            let composed = compose(kernel, features, 64);
            let words = spirv(&composed).unwrap();
            // OpDecorate of what is bound: descriptor set 34, binding 33.
            let bindings: Vec<u32> =
                words.windows(4).filter(|w| w[0] == 4 << 16 | 71 && w[2] == 33).map(|w| w[3]).collect();
            assert_eq!(bindings.len(), composed.bindings.len());
            assert!((0..bindings.len() as u32).all(|i| bindings.contains(&i)), "{bindings:?}");
        }
    }

    #[test]
    fn what_naga_refuses_is_said() {
        let mut composed = compose("linear_sixteen", &["F16", "HALVES"], 32);
        composed.wgsl = composed.wgsl.replace("coopMultiplyAdd(a0, b0, c0)", "coopMultiplyAdd(b0, a0, c0)");
        assert!(spirv(&composed).is_err());
        composed.wgsl = "nothing".into();
        assert!(spirv(&composed).is_err());
    }
}
