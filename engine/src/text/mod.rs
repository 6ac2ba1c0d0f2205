//! Text: what turns words into a prompt and a model's output back into words. No tensors, no devices.

pub mod chat;
