//! The threads that own engines, what goes to a request from them, what they count, and the one error of all floors.

pub(crate) mod error;
pub(crate) mod mailbox;
pub(crate) mod meters;
pub(crate) mod usage;
pub(crate) mod worker;
