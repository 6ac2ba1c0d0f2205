//! The local REST server: the APIs of Ollama, OpenAI, Anthropic and llama-server over one engine. HTTP ends here: models and
//! their computation are `ir-engine`'s. Floors, from the top: `http`, `api`, `generate`, `models`, `engine`; none
//! uses one above it.

/// The APIs: each translates its fields into a job and what comes back into its own JSON, and has its own form of errors.
/// What they share is `common`; none uses another.
mod api {
    pub(crate) mod anthropic;
    pub(crate) mod common;
    pub(crate) mod llama;
    pub(crate) mod ollama;
    pub(crate) mod openai;
    pub(crate) mod responses;
}
mod engine;

mod generate;
mod http;
mod models;

pub use api::common::body::{Client, MAX_BODY};
pub use api::common::options::duration;
pub use engine::error::{ApiError, Kind};
pub use generate::hub::{Hub, HubOptions};
pub use generate::job;
pub use generate::running::Running;
pub use http::router::{Guard, router};
pub use http::serve::{Limits, Listener, serve};
#[cfg(unix)]
pub use http::unix_socket::UnixSocket;
pub use models::devices::OpenDevice;
pub use models::loaded::{Lease, Loaded};
pub use models::pool::PoolOptions;
pub use models::prefix_caches::PrefixCaches;
pub use models::registry::{Entry, Recipes, Registry};
