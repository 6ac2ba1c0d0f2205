//! Which models are known, what they can do, how they are loaded and unloaded, and who uses them.

/// What a model can do, found in its file's metadata.
pub(crate) mod capabilities {
    pub(crate) use ir_store::{Capabilities, fill_tokens};
}
pub(crate) mod devices;
pub(crate) mod downloads;
pub(crate) mod events;
pub(crate) mod loaded;
pub(crate) mod loading;
pub(crate) mod model_ref;
pub(crate) mod pool;
pub(crate) mod prefix_caches;
pub(crate) mod registry;

/// How long what comes of a file is gathered before it is told.
pub(crate) const PROGRESS_STEP: std::time::Duration = std::time::Duration::from_millis(60);
