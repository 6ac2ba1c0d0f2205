//! What the APIs share: bodies and errors, streams, the fields of a generation, OpenAI's forms of turns and tools, which
//! others take too, and the one path from a request that generates to its answer.

pub(crate) mod body;
pub(crate) mod choice;
pub(crate) mod dialect;
pub(crate) mod fields;
pub(crate) mod format;
pub(crate) mod generation;
pub(crate) mod ignored;
pub(crate) mod known;
mod lark;
pub(crate) mod message;
pub(crate) mod openai_error;
pub(crate) mod options;
pub(crate) mod params;
pub(crate) mod stream;
pub(crate) mod tools;
pub(crate) mod unpack;
pub(crate) mod unread;
pub(crate) mod util;
