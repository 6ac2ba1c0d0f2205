//! What the APIs share: bodies, streams, the fields of a generation, and how requests and answers are shaped.

pub(crate) mod http;
pub(crate) mod shape;
pub(crate) mod sse;
pub(crate) mod wishes;
