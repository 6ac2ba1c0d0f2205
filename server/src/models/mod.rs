//! Which models are known, what they can do, how they are loaded and unloaded, and who uses them.

pub(crate) mod capabilities;
pub(crate) mod devices;
pub(crate) mod loaded;
pub(crate) mod loading;
pub(crate) mod model_ref;
pub(crate) mod pool;
pub(crate) mod registry;
