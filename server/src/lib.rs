//! The local REST server: the APIs of Ollama, OpenAI, Anthropic and llama-server over one engine. HTTP ends here: models and
//! their computation are `ir-engine`'s. Floors, from the top: `http`, `api`, `generate`, `models`, `engine`, `error`; none
//! uses one above it.

mod api;
mod engine;
mod error;
mod generate;
mod http;
mod models;

pub use api::common::http::{Client, MAX_BODY};
pub use api::ollama::duration;
pub use error::{ApiError, Flavour, Kind};
pub use generate::hub::{Hub, HubOptions, OpenDevice};
pub use generate::job;
pub use generate::running::Running;
pub use http::router::{Guard, router};
pub use http::serve::{Limits, Listener, serve};
#[cfg(unix)]
pub use http::unix_socket::UnixSocket;
pub use models::loaded::{Lease, Loaded};
pub use models::registry::{Entry, ListFolder, Place, Registry};
