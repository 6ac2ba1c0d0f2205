//! HTTP around the APIs: connections and their limits, who may ask, the access log, metrics, and the documents.

pub(crate) mod access_log;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod router;
pub(crate) mod serve;
pub(crate) mod timed;
#[cfg(unix)]
pub(crate) mod unix_socket;
