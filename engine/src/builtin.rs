//! The model that every `ir` carries: a toy that answers at once and needs no download. What it can do and how it was
//! made is in `models/ir-tiny/MODEL_CARD.md`. A program that does not name [`bytes`] does not carry it.

use crate::bytes::Bytes;

/// The name by which it is asked.
pub const NAME: &str = "ir-tiny";

static IR_TINY: &[u8] = include_bytes!("../models/ir-tiny/ir-tiny-q4_0.gguf");

/// Its GGUF file.
pub fn bytes() -> Bytes {
    Bytes::from_static(IR_TINY)
}
