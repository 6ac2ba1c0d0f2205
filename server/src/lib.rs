//! The local REST server: the APIs of Ollama, OpenAI, Anthropic and llama-server over one engine. HTTP ends here: models and
//! their computation are `ir-engine`'s. Reading order: `job` (what is asked) and `output` (what comes back), `hub` (where
//! requests meet engines), `worker` (the engine's thread), `openai` (an API's handlers), `sse` and `shape` (what APIs share).

mod anthropic;
mod choice;
mod embedding;
mod error;
mod hold;
pub mod http;
mod hub;
pub mod job;
mod llama;
mod loaded;
mod loading;
mod mailbox;
mod meters;
mod metrics;
mod ollama;
mod openai;
mod openapi;
mod output;
mod page;
mod prompt;
mod registry;
mod responses;
mod router;
mod running;
mod sampling;
mod sequence;
mod serve;
mod shape;
mod sse;
mod timed;
#[cfg(unix)]
mod unix_socket;
mod watch;
mod wishes;
mod worker;

pub use error::{ApiError, Flavour, Kind};
pub use http::Client;
pub use hub::{Hub, HubOptions, OpenDevice};
pub use loaded::{Lease, Loaded};
pub use ollama::duration;
pub use registry::{Entry, ListFolder, Place, Registry};
pub use router::{Guard, router};
pub use running::Running;
pub use serve::{Limits, Listener, serve};
#[cfg(unix)]
pub use unix_socket::UnixSocket;
