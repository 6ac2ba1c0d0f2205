//! `ir-store`: the models of this machine, by name: found, listed, pulled, copied, made, checked and removed.
//!
//! ```no_run
//! use ir_store::{ModelName, Settings, Store};
//! let store = Store::new(Settings::new("/data/models"));
//! let name = ModelName::parse("smollm2:135m")?;
//! let mut pull = store.pull(&name)?;
//! while let Some(event) = pull.next_blocking() {
//!     assert!(!event?.status.is_empty());
//! }
//! assert!(store.resolve(&name)?.is_some());
//! # Ok::<(), ir_store::Error>(())
//! ```
//!
//! The store's folder has the shape of Ollama's: `blobs/sha256-HEX` and `manifests/HOST/NAMESPACE/MODEL/TAG`. What it needs
//! for itself is in `.ir`: `lock`, held for moments while names or blobs come or go; `partial` and `locks`, downloads
//! under way; `pulls`, what running pulls need; `links`, names for models of several files; `index.json`. A manifest is
//! written when all its blobs are there and are what their digests say. Nothing is trusted that comes from elsewhere or
//! stands on the disk: names are checked part by part, sizes are bounded, and no link is followed.

mod capabilities;
mod create;
mod details;
mod digest;
mod disk;
mod download;
mod error;
mod fit;
mod foreign;
mod gc;
mod go_template;
mod hasher;
mod http;
mod hub;
pub mod hubs;
mod index;
mod links;
mod list;
mod manifest;
mod modelfile;
mod name;
mod nearest;
mod partial;
mod place;
mod plan;
mod progress;
mod pull;
mod push;
mod quant;
mod quantize;
mod recipe;
mod registry;
mod settings;
mod store;

pub use capabilities::{Capabilities, fill_tokens};
pub use details::Details;
pub use digest::Digest;
pub use error::{Error, Kind, Result};
pub use fit::{Memory, Need, memory};
pub use gc::{Collected, Fault};
pub use go_template::GoTemplate;
pub use hub::Hit;
pub use list::Listed;
pub use manifest::{Layer, Manifest};
pub use modelfile::{Modelfile, parameter_lines};
pub use name::ModelName;
pub use place::Place;
pub use plan::Plan;
pub use progress::{Event, Watcher};
pub use recipe::Recipe;
pub use settings::{Foreign, Origin, Settings, Tuning};
pub use store::{Found, Store};

/// Files and folders that this process opened to list models, so that tests can count them.
pub fn files_opened() -> u64 {
    disk::OPENED.load(std::sync::atomic::Ordering::Relaxed)
}
