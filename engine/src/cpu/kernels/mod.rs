//! One function per op, named as the op: the definition. Inner loops come from a [`super::simd::Table`], whose scalar
//! form is part of the definition. `heads` puts several of them together behind a product.

pub mod act;
pub mod adapter_scales;
pub mod add;
pub mod attend;
pub mod balance;
pub mod combine;
pub mod conv;
pub mod embed;
pub mod expert_linear;
pub mod gate;
pub mod glu;
pub mod head_linear;
pub mod heads;
pub mod kv_write;
pub mod linear;
pub mod mix;
pub mod norm;
pub mod pool;
pub mod recur;
pub mod rope;
pub mod route;
pub mod scale;
pub mod select;
pub mod softcap;
pub mod take_cols;
pub mod take_rows;
