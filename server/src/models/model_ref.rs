//! Which model a client means, and how it is to be loaded and kept.

use std::time::Duration;

/// Which model is meant and how it is to be loaded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelRef {
    /// The name as the client wrote it.
    pub name: String,
    /// Whether the name may be any path of this machine: only for programs on this machine ([`crate::Client`]).
    pub any_path: bool,
    /// How it is loaded, where it is not loaded yet or differently.
    pub load: LoadOptions,
    /// How long it stays loaded after this request; `None`: as the server is configured.
    pub keep_alive: Option<KeepAlive>,
}

/// What a client may choose about loading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Tokens of a sequence at most (`num_ctx`). A smaller one than the loaded model's only limits the request.
    pub context: Option<usize>,
    /// `cpu`, `gpu`, `gpu:N` or `auto`.
    pub device: Option<String>,
    /// Layers on GPUs (`num_gpu`): all if the model has fewer.
    pub gpu_layers: Option<usize>,
}

/// How long a model stays loaded after its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// This long; zero unloads at once.
    For(Duration),
    /// Until the memory is needed.
    Forever,
}
