//! The CPU device.

pub mod linear;
pub mod pool;
pub mod simd;
