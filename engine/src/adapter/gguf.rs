//! Adapters as GGUF files, as llama.cpp's converter writes them: `general.type` is `adapter`, and beside each tensor's name
//! stand `.lora_a` and `.lora_b`.

use std::collections::BTreeMap;

use super::{Adapter, Form, Pair, Thin};
use crate::error::{Error, Result};
use crate::file::{ModelFile, Tensor};
use crate::meta::{Meta, shown};

#[cfg(not(target_arch = "wasm32"))]
pub(super) fn open(path: &std::path::Path) -> Result<Adapter> {
    read(&ModelFile::read(path)?)
}

/// Reads an adapter of an open file.
pub(super) fn read(file: &ModelFile) -> Result<Adapter> {
    let meta = file.meta();
    expect_lora(meta)?;
    let alpha = meta.opt_f32("adapter.lora.alpha")?.filter(|alpha| *alpha != 0.0);
    let mut halves: BTreeMap<&str, [Option<&Tensor>; 2]> = BTreeMap::new();
    for tensor in file.tensors() {
        let name = tensor.name();
        let (base, half) = match (name.strip_suffix(".lora_a"), name.strip_suffix(".lora_b")) {
            (Some(base), _) => (base, 0),
            (_, Some(base)) => (base, 1),
            _ => {
                return Err(Error::unsupported(format!(
                    "the adapter holds a tensor {}, which is no lora_a or lora_b: adapters that change more than products are not supported",
                    shown(name.as_bytes())
                )));
            }
        };
        halves.entry(base).or_default()[half] = Some(tensor);
    }
    let mut pairs = Vec::with_capacity(halves.len());
    for (name, halves) in halves {
        let [Some(a), Some(b)] = halves else {
            return Err(Error::format(format!(
                "the adapter has one of the two matrices for {}: the file is incomplete",
                shown(name.as_bytes())
            )));
        };
        let (a, b) = (thin(file, a)?, thin(file, b)?);
        let factor = alpha.map_or(1.0, |alpha| alpha / b.cols as f32);
        // Beside the token table the first one lies on its side.
        pairs.push(Pair { name: name.to_owned(), a, a_on_side: name == TABLE, b, factor });
    }
    let adapter = Adapter::new(Form::Gguf(meta.arch()?.to_owned()), pairs, alpha)?;
    let text = |key: &str| Ok::<_, Error>(meta.opt_str(key)?.unwrap_or_default().to_owned());
    let (task_name, prompt_prefix) = (text("adapter.lora.task_name")?, text("adapter.lora.prompt_prefix")?);
    Ok(Adapter { task_name, prompt_prefix, ..adapter })
}

/// The token table, whose rows are looked up.
pub(super) const TABLE: &str = "token_embd.weight";

/// Whether metadata says that a file is an adapter and no model.
pub(crate) fn is_adapter(meta: &Meta) -> bool {
    meta.opt_str("general.type").ok().flatten() == Some("adapter")
}

fn expect_lora(meta: &Meta) -> Result<()> {
    if !is_adapter(meta) {
        return Err(Error::format(
            "this file is no adapter (general.type is not adapter): give it as the model instead",
        ));
    }
    let kind = meta.opt_str("adapter.type")?.unwrap_or("unknown");
    if kind != "lora" {
        let kind = shown(kind.as_bytes());
        return Err(Error::unsupported(format!("adapters of type {kind} are not supported: LoRA is")));
    }
    match meta.get("adapter.alora.invocation_tokens") {
        Some(_) => Err(Error::unsupported(
            "this adapter begins behind certain tokens (activated LoRA), which is not supported: LoRA for whole texts is",
        )),
        None => Ok(()),
    }
}

/// A matrix of the file.
fn thin(file: &ModelFile, tensor: &Tensor) -> Result<Thin> {
    let wrong = |what: &str| Error::shape(format!("tensor {} of the adapter {what}", shown(tensor.name().as_bytes())));
    if tensor.dims().len() > 2 {
        return Err(wrong("is no matrix: adapters of stacks of experts are not supported"));
    }
    let dim = |i: usize| usize::try_from(tensor.dims().get(i).copied().unwrap_or(1));
    let (Ok(cols), Ok(rows)) = (dim(0), dim(1)) else { return Err(wrong("is too large")) };
    Ok(Thin { dtype: tensor.dtype()?, rows, cols, bytes: file.bytes(tensor)? })
}
