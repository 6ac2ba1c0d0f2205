//! What tells a model's cache from any other's: the root of the chains of page keys.

use sha2::{Digest, Sha256};

use super::pages::PageKey;
use crate::model::Model;
use crate::plan::{CacheLayout, PAGE, Plan};

/// The version of the chains: raised when pages of the same tokens would hold something else.
const VERSION: u32 = 1;

/// Tensors whose data is looked at, and bytes of each: a file is never read as a whole.
const SAMPLES: usize = 64;
const SAMPLE: usize = 64;

/// The key of the empty prefix of a model, whose plan is that of the context in use: its metadata but the tokenizer's, its
/// table of tensors, samples of their data if they are at hand, how positions turn, the layout of the cache, and the kind of
/// device, since kinds round differently.
pub(crate) fn root(model: &Model, plan: &Plan, layout: &CacheLayout, computed_by: &str) -> PageKey {
    let mut hash = Sha256::new_with_prefix(b"ir page keys");
    hash.update(VERSION.to_le_bytes());
    // Pages hold what token ids gave: how texts become ids changes nothing, and a vocabulary is long.
    for (key, value) in model.meta().iter().filter(|(key, _)| !key.starts_with("tokenizer.")) {
        text(&mut hash, key.as_bytes());
        text(&mut hash, value.encoded());
    }
    let tensors = model.file().tensors();
    let every = tensors.len().div_ceil(SAMPLES).max(1);
    for (i, tensor) in tensors.iter().enumerate() {
        text(&mut hash, tensor.name().as_bytes());
        text(&mut hash, format!("{} {:?}", tensor.type_id(), tensor.dims()).as_bytes());
        let held = if i % every == 0 { model.file().held(tensor).ok().flatten() } else { None };
        if let Some(bytes) = held {
            let start = (bytes.len() / 2).min(bytes.len().saturating_sub(SAMPLE));
            text(&mut hash, &bytes[start..bytes.len().min(start + SAMPLE)]);
        }
    }
    for rope in &plan.ropes {
        text(&mut hash, format!("{:?} {}", rope.style, rope.magnitude.to_bits()).as_bytes());
        rope.inv_freq.iter().for_each(|x| hash.update(x.to_le_bytes()));
    }
    text(&mut hash, format!("{PAGE} {layout:?} {:?}", plan.kv).as_bytes());
    text(&mut hash, computed_by.as_bytes());
    PageKey::root(hash)
}

/// The key of the empty prefix of sequences that use so much of each of a model's adapters.
pub(crate) fn adapted(root: PageKey, model: &Model, scales: &[f32]) -> PageKey {
    let mut hash = Sha256::new_with_prefix(b"ir adapted page keys");
    hash.update(root.0.to_le_bytes());
    for (attached, scale) in model.adapters().iter().zip(scales).filter(|(_, scale)| **scale != 0.0) {
        hash.update(attached.adapter.digest());
        hash.update(scale.to_le_bytes());
    }
    PageKey::root(hash)
}

/// Adds bytes and their number, so that what follows cannot be taken for a part of them.
fn text(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
