//! Every listed permutation: composed, validated, translated to SPIR-V, MSL and HLSL, and inside WebGPU's default limits.
//! No driver is needed. With IR_FULL=1 every feature of products is combined with every type of weights.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says what it covered"
)]

mod loads;

use ir_shaders::{Access, KERNELS, Permutation, Target, all_permutations, compose, permutations};
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// WebGPU's default limits.
const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_WORKGROUP_BYTES: u32 = 16_384;
const MAX_INVOCATIONS: u32 = 256;
/// What every device with cooperative matrices has; pages have none.
const MAX_NATIVE_WORKGROUP_BYTES: u32 = 32_768;

fn check(permutation: &Permutation) -> Result<(), String> {
    let Permutation { kernel, features, consts } = permutation;
    let composed = compose(kernel, features, consts, Target::Naga).map_err(|e| e.to_string())?;
    let module = naga::front::wgsl::parse_str(&composed.wgsl).map_err(|e| e.emit_to_string(&composed.wgsl))?;
    // unpack2x16float: every WebGPU device has it.
    let mut wanted = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if features.contains(&"F16") {
        wanted |= Capabilities::SHADER_FLOAT16;
    }
    let coop = features.contains(&"COOPMAT");
    if coop {
        wanted |= Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP;
    }
    if features.contains(&"SUBGROUPS") {
        wanted |= Capabilities::SUBGROUP;
    }
    if features.contains(&"COHERENT") {
        wanted |= Capabilities::MEMORY_DECORATION_COHERENT;
    }
    let info = Validator::new(ValidationFlags::all(), wanted)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(&composed.wgsl))?;
    check_limits(&module, &composed.bindings, if coop { MAX_NATIVE_WORKGROUP_BYTES } else { MAX_WORKGROUP_BYTES })?;
    translate(&module, &info, !coop)
}

fn check_limits(module: &naga::Module, bindings: &[ir_shaders::Binding], most_shared: u32) -> Result<(), String> {
    let storage = bindings.iter().filter(|b| b.access != Access::Uniform).count();
    if storage > MAX_STORAGE_BUFFERS {
        return Err(format!("{storage} storage buffers"));
    }
    let declared = module.global_variables.iter().filter(|(_, v)| v.binding.is_some()).count();
    if declared != bindings.len() {
        return Err(format!("the composer found {} of {declared} bindings", bindings.len()));
    }
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, v)| layouter[v.ty].size).sum();
    if bytes > most_shared {
        return Err(format!("{bytes} bytes of workgroup memory"));
    }
    let [x, y, z] = module.entry_points[0].workgroup_size;
    if x * y * z > MAX_INVOCATIONS {
        return Err(format!("{} invocations", x * y * z));
    }
    Ok(())
}

/// `hlsl`: naga knows no cooperative matrices there, and wgpu offers none on DX12.
fn translate(module: &naga::Module, info: &ModuleInfo, hlsl: bool) -> Result<(), String> {
    let options = spv::Options { lang_version: if hlsl { (1, 3) } else { (1, 6) }, ..Default::default() };
    spv::write_vec(module, info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
    let pipeline = msl::PipelineOptions::default();
    msl::write_string(module, info, &options, &pipeline).map_err(|e| format!("MSL: {e}"))?;
    if !hlsl {
        return Ok(());
    }
    let options =
        hlsl::Options { shader_model: hlsl::ShaderModel::V6_4, fake_missing_bindings: true, ..Default::default() };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| format!("HLSL: {e}"))?;
    Ok(())
}

#[test]
fn every_permutation_translates() {
    let all = if std::env::var_os("IR_FULL").is_some() { all_permutations() } else { permutations() };
    println!("{} permutations", all.len());
    assert!(all.len() > 500, "only {} permutations are listed", all.len());
    for (kernel, _) in KERNELS {
        assert!(all.iter().any(|p| p.kernel == *kernel), "no permutation of {kernel} is listed");
    }
    let mut failures = std::collections::BTreeMap::new(); // each error once
    for permutation in &all {
        if let Err(error) = check(permutation) {
            let key = (permutation.kernel, error.lines().next().unwrap_or_default().to_owned());
            failures.entry(key).or_insert_with(|| format!("{permutation:?}:\n{error}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.into_values().collect::<Vec<_>>().join("\n"));
}

/// Chromium's compiler for Vulkan sets a variable without an initial value only once, not in each turn of a loop.
#[test]
fn every_variable_has_its_first_value_written_out() {
    for permutation in permutations() {
        let composed = compose(permutation.kernel, &permutation.features, &permutation.consts, Target::Naga).unwrap();
        for line in composed.wgsl.lines().map(str::trim).filter(|line| line.starts_with("var ")) {
            assert!(line.contains('='), "{}: {line}", permutation.kernel);
        }
    }
}

#[test]
fn tint_is_told_what_it_demands() {
    let naga = compose("norm", &["SUBGROUPS"], &[("WG", 64)], Target::Naga).unwrap().wgsl;
    let tint = compose("norm", &["SUBGROUPS"], &[("WG", 64)], Target::Tint).unwrap().wgsl;
    assert!(!naga.contains("enable subgroups;") && tint.starts_with("enable subgroups;"));
}

#[test]
fn names_are_read_back() {
    let composed = compose("linear_vec", &["q4_0", "NORM", "BIAS"], &[("WG", 64), ("ROWS", 1)], Target::Naga).unwrap();
    let names: Vec<(u32, &str)> = composed.bindings.iter().map(|b| (b.index, b.name.as_str())).collect();
    let expected = [(0, "p"), (1, "step"), (2, "x"), (3, "w"), (4, "out"), (9, "constants")];
    assert_eq!(names, expected);
    assert_eq!(composed.params.first().map(String::as_str), Some("rows_at"));
    assert_eq!(composed.params.last().map(String::as_str), Some("x_stride"));
    assert!(compose("nothing", &[], &[], Target::Naga).is_err());
}
