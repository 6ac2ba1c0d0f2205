//! The `ir` command.
fn main() {}
