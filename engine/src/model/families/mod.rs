//! The families: from a file to a spec. A family says only what goes beyond the common keys.

use super::common::{self, Keys};
use super::spec::ModelSpec;
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::meta::shown;
use crate::plan::RopeStyle;

type Family = fn(&Keys) -> Result<ModelSpec>;

/// Architecture name in the file, and what it means.
const FAMILIES: &[(&str, Family)] = &[("llama", llama), ("mistral3", llama), ("qwen2", qwen), ("qwen3", qwen)];

/// The spec of a file.
///
/// # Errors
/// An unknown architecture is named, with those that are known.
pub(super) fn spec(file: &ModelFile) -> Result<ModelSpec> {
    let arch = file.meta().arch()?;
    let Some((_, family)) = FAMILIES.iter().find(|(name, _)| *name == arch) else {
        let known: Vec<_> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let known = known.join(", ");
        let arch = shown(arch.as_bytes());
        return Err(Error::unsupported(format!("architecture {arch} is not supported yet (known: {known})")));
    };
    family(&Keys { file, arch })
}

/// Llama 1 to 3 and Mistral: q and k rows in the file are permuted for interleaved rotation.
fn llama(keys: &Keys) -> Result<ModelSpec> {
    if keys.file.tensor("blk.0.ffn_gate_exps.weight").is_some()
        || keys.file.tensor("blk.0.ffn_gate_inp.weight").is_some()
    {
        return Err(Error::unsupported("mixture-of-experts models are not supported yet"));
    }
    common::dense(keys, RopeStyle::Interleaved)
}

/// Qwen 2 (biases) and Qwen 3 (norms on heads): both are found in the file.
fn qwen(keys: &Keys) -> Result<ModelSpec> {
    common::dense(keys, RopeStyle::Halves)
}
