//! Text: what turns words into ids and a prompt, and a model's output back into words. No tensors, no devices.
//! Tokenizers are read from a model file's metadata; chat templates lay out messages. Sampling is in `run`.

mod bpe;
mod category;
mod category_table;
mod charmap;
pub mod chat;
pub mod constrain;
mod decode;
mod merge;
mod plamo2;
mod pre;
mod prefixes;
pub mod published;
mod rwkv;
mod special;
mod split;
mod spm;
pub mod tokenizer;
pub mod tools;
mod unigram;
mod vocab;
mod wordpiece;

pub use decode::Decoder;
pub use tokenizer::Tokenizer;
