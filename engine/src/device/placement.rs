//! Where a runner computes, and what it holds there.

use super::Runner;

impl Runner {
    /// The kind of device, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Runner::Cpu(_) => "cpu",
            #[cfg(feature = "gpu")]
            Runner::Gpu(_) => "gpu",
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(_) => "split",
        }
    }

    /// Whether the processor computes this op.
    #[cfg_attr(target_arch = "wasm32", expect(unused_variables, reason = "ops differ only where a model is divided"))]
    pub fn computes_on_cpu(&self, op: usize) -> bool {
        match self {
            Runner::Cpu(_) => true,
            #[cfg(feature = "gpu")]
            Runner::Gpu(_) => false,
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.computes_on_cpu(op),
        }
    }

    /// What computes, for people: the device's name, or which layers are on which.
    pub fn placement(&self) -> String {
        match self {
            Runner::Cpu(runner) => runner.cpu().name(),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => runner.gpu().name(),
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.placement().to_owned(),
        }
    }

    /// Bytes that the runner holds on each GPU, with the GPU's name.
    pub fn device_bytes(&self) -> Vec<(String, u64)> {
        match self {
            Runner::Cpu(_) => Vec::new(),
            #[cfg(feature = "gpu")]
            Runner::Gpu(runner) => vec![(runner.gpu().name(), runner.bytes())],
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.runners().flat_map(Runner::device_bytes).collect(),
        }
    }
}
