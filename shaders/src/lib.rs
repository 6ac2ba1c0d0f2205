//! The WGSL kernels of `ir` and the composer that puts them together.
//!
//! Nothing is here yet: the GPU executor is the next step. The crate stands so that the layout is settled.
