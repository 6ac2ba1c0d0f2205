//! Flags that say what computes, and how a model is divided over devices.

use std::fmt;
use std::str::FromStr;

use clap::{Args, ValueEnum};

/// What computes, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub(crate) struct DeviceArgs {
    /// What computes: auto (a GPU that is not software, else the processor), cpu, gpu (the best one), gpu:N (as `ir devices`
    /// numbers them), or several as in gpu:0,gpu:1
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub(crate) device: DeviceChoice,
    /// Layers of the model on GPUs, the last ones and the head; the others are computed by the processor: auto (as many as
    /// fit), all, or a number [-ngl means the same]
    #[arg(long, visible_alias = "n-gpu-layers", default_value = "auto", value_name = "N")]
    pub(crate) gpu_layers: LayersChoice,
    /// GiB of memory that a model may take on each GPU [default: nine tenths of what the driver names]
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    pub(crate) gpu_memory: Option<f64>,
    /// Where a mixture's experts are: gpu (with their layers), cpu, or the number of last layers whose experts are on the CPU
    #[arg(long, default_value = "gpu", value_name = "PLACE")]
    pub(crate) experts: ExpertsChoice,
    /// How layers are shared among several GPUs, as ratios such as 3,1 [default: by their memory]
    #[arg(long, value_name = "RATIOS", value_delimiter = ',', value_parser = share)]
    pub(crate) split: Vec<f32>,
    /// Forms of the GPU's kernels: base, f16, subgroups, dot4, coherent, owned, heads, joined by + [default: what the GPU has]
    #[arg(long, value_name = "FORMS")]
    pub(crate) gpu_forms: Option<String>,
    /// Instruction set of what the processor computes (beside a GPU: what does not fit there): auto, scalar, or one by its
    /// name (avx2, avx512, neon)
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(crate) simd: String,
    /// What weights are multiplied with: `quantised` is fast, `f32` is exact, `bf16` is faster with BF16 weights
    #[arg(long, value_enum, default_value_t = ActivationsChoice::Quantised, value_name = "KIND")]
    pub(crate) activations: ActivationsChoice,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = KvChoice::F16, value_name = "TYPE")]
    pub(crate) kv_type: KvChoice,
}

impl DeviceArgs {
    /// A flag that divides a model between a GPU and the processor or among GPUs, if one was given.
    pub(crate) fn divides(&self) -> Option<&'static str> {
        let flags = [
            (self.gpu_layers != LayersChoice::Auto, "--gpu-layers"),
            (self.gpu_memory.is_some(), "--gpu-memory"),
            (self.experts != ExpertsChoice::WithLayer, "--experts"),
            (!self.split.is_empty(), "--split"),
        ];
        flags.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }
}

fn gibibytes(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0 && *n < 1e6);
    number.ok_or_else(|| "give a number of GiB above zero, as in 8 or 0.5".into())
}

fn share(text: &str) -> Result<f32, String> {
    let number = text.trim().parse().ok().filter(|n: &f32| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| "shares are numbers above zero joined by commas, one for each GPU, as in 3,1".into())
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// A GPU that is not software, or else the processor.
    Auto,
    /// This machine's processor.
    Cpu,
    /// GPUs by their numbers; the best one without any.
    Gpu(Vec<usize>),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        let number = |name: &str| name.trim().strip_prefix("gpu:").and_then(|n| n.parse().ok());
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "gpu" => Ok(DeviceChoice::Gpu(Vec::new())),
            _ => text.split(',').map(number).collect::<Option<_>>().map(DeviceChoice::Gpu).ok_or_else(|| {
                "use auto, cpu, gpu, or gpu:N with a number that `ir devices` shows; several as in gpu:0,gpu:1".into()
            }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Gpu(all) if all.is_empty() => f.write_str("gpu"),
            DeviceChoice::Gpu(all) => {
                f.write_str(&all.iter().map(|n| format!("gpu:{n}")).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// Layers on GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayersChoice {
    /// As many as fit.
    Auto,
    /// So many, or all if the model has fewer.
    Count(usize),
}

impl FromStr for LayersChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<LayersChoice, String> {
        match text {
            "auto" => Ok(LayersChoice::Auto),
            // llama.cpp's word for all.
            "all" | "-1" => Ok(LayersChoice::Count(usize::MAX)),
            _ => text.parse().map(LayersChoice::Count).map_err(|_| "give auto, all, or a number of layers".into()),
        }
    }
}

impl fmt::Display for LayersChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayersChoice::Auto => f.write_str("auto"),
            LayersChoice::Count(usize::MAX) => f.write_str("all"),
            LayersChoice::Count(n) => write!(f, "{n}"),
        }
    }
}

/// Where a mixture's experts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpertsChoice {
    /// Where their layer is.
    WithLayer,
    /// On the processor, those of so many last layers.
    OnCpu(usize),
}

impl FromStr for ExpertsChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<ExpertsChoice, String> {
        match text {
            "gpu" => Ok(ExpertsChoice::WithLayer),
            "cpu" => Ok(ExpertsChoice::OnCpu(usize::MAX)),
            _ => text.parse().map(ExpertsChoice::OnCpu).map_err(|_| "give cpu, gpu, or a number of layers".into()),
        }
    }
}

impl fmt::Display for ExpertsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpertsChoice::WithLayer => f.write_str("gpu"),
            ExpertsChoice::OnCpu(usize::MAX) => f.write_str("cpu"),
            ExpertsChoice::OnCpu(n) => write!(f, "{n}"),
        }
    }
}

/// What weights are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActivationsChoice {
    /// Single precision
    F32,
    /// 8-bit blocks, where the weights are quantised too
    #[value(alias = "quantized")]
    Quantised,
    /// The same, and rounded to BF16 where the weights are BF16 and the processor multiplies such pairs (AVX512_BF16)
    Bf16,
}

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvChoice {
    /// Half precision
    F16,
    /// Single precision: twice the memory
    F32,
    /// 8-bit blocks: half the memory, on the processor
    #[value(name = "q8_0")]
    Blocks8,
}
