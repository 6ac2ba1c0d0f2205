//! The local REST server: Ollama's API over one engine. HTTP ends here: models and their computation are `ir-engine`'s.
//! Reading order: `job` (what is asked and what comes back), `hub` (where requests meet engines), `worker` (the engine's
//! thread), `ollama` (an API's handlers).

mod anthropic;
mod error;
pub mod http;
mod hub;
pub mod job;
mod loaded;
mod mailbox;
mod ollama;
mod openai;
mod prompt;
mod registry;
mod responses;
mod router;
mod running;
mod serve;
mod shape;
mod sse;
mod worker;

pub use error::{ApiError, Flavour, Kind};
pub use http::Client;
pub use hub::{Hub, HubOptions, OpenDevice};
pub use loaded::{Lease, Loaded};
pub use ollama::duration;
pub use registry::{Entry, ListFolder, Place, Registry};
pub use router::{Guard, router};
pub use running::Running;
pub use serve::{Limits, serve};
