//! The threads that own engines, what goes to a request from them, and what they count.

pub(crate) mod mailbox;
pub(crate) mod meters;
pub(crate) mod worker;
