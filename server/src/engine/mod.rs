//! The threads that own engines, what goes to a request from them, what they count, and the one error of all floors.

pub(crate) mod error;
pub(crate) mod output_queue;
pub(crate) mod stats;
pub(crate) mod usage;
pub(crate) mod worker;
