//! Which models are known, how they are loaded and unloaded, and who uses them.

pub(crate) mod loaded;
pub(crate) mod loading;
pub(crate) mod registry;
