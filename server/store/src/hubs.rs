//! The addresses of the public hubs, and the names that people give them. Nowhere else does an address stand.

/// Repositories of GGUF files and safetensors. `HF_ENDPOINT` takes its place.
pub const HUB: &str = "https://huggingface.co";

/// Models in layers. `IR_REGISTRY` takes its place.
pub const REGISTRY: &str = "https://registry.ollama.ai";

/// The host of a hub's repository in names.
pub const HUB_HOST: &str = "hf.co";

/// The default registry's host in names and in stores.
pub const REGISTRY_HOST: &str = "registry.ollama.ai";

/// Hosts in names that mean the hub.
pub(crate) const HUB_HOSTS: [&str; 4] = ["hf.co", "huggingface.co", "www.hf.co", "www.huggingface.co"];

/// Hosts in names that mean the default registry.
pub(crate) const REGISTRY_HOSTS: [&str; 3] = ["registry.ollama.ai", "ollama.com", "ollama.ai"];
