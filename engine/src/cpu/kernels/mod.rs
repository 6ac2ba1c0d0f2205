//! One function per op, named as the op: the definition. Inner loops come from a [`super::simd::Table`], whose scalar
//! form is part of the definition.

pub mod add;
pub mod attend;
pub mod embed;
pub mod glu;
pub mod kv_write;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod rope;
pub mod take_rows;
