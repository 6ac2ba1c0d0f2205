//! Model files that are put together from goldens, with other keys, tensors or names, and what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{data, shared};
use ir_engine::bytes::Bytes;
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::error::Result;
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::meta::MetaBuilder;
use ir_engine::model;
use ir_engine::plan::{Inputs, PAGE};
use ir_engine::quant;

/// A model file that is put together.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) meta: MetaBuilder,
    pub(crate) tensors: BTreeMap<String, (Vec<u64>, DType, Vec<u8>)>,
    /// Dimensions of 1 that every tensor gets at its end.
    pub(crate) padded: usize,
}

pub(crate) fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

impl Written {
    /// A golden model in plain numbers, without the keys that begin with one of these.
    pub(crate) fn golden(name: &str, without: &[&str]) -> Written {
        Written::of(name, without, |key| key.to_owned())
    }

    /// A golden model of one architecture as another, without the keys that begin with one of these.
    pub(crate) fn renamed(name: &str, from: &str, to: &str, without: &[&str]) -> Written {
        let without = [&["general.architecture", "tokenizer.chat_template"][..], without].concat();
        let renamed = |key: &str| match key.strip_prefix(from) {
            Some(rest) => format!("{to}{rest}"),
            None => key.to_owned(),
        };
        let mut written = Written::of(name, &without, renamed);
        written.meta = written.meta.str("general.architecture", to);
        written
    }

    /// A golden of the project, or else one that lies beside it.
    fn of(name: &str, without: &[&str], key_of: impl Fn(&str) -> String) -> Written {
        let own = data().join("golden").join(name);
        let folder = if own.is_dir() { own } else { shared("golden").unwrap().join(name) };
        let file = ModelFile::open(&folder.join("model-bf16.gguf")).unwrap();
        let keys = file.meta().iter().filter(|(key, _)| !without.iter().any(|w| key.starts_with(w)));
        let meta = keys.fold(MetaBuilder::new(), |meta, (key, value)| meta.value(&key_of(&key), value));
        let mut written = Written { meta, tensors: BTreeMap::new(), padded: 0 };
        for tensor in file.tensors() {
            let mut values = vec![0.0; tensor.n_elements() as usize];
            quant::decode(tensor.dtype().unwrap(), &file.bytes(tensor).unwrap(), &mut values).unwrap();
            written.add(tensor.name(), tensor.dims(), &values);
        }
        written
    }

    pub(crate) fn add(&mut self, name: &str, dims: &[u64], values: &[f32]) {
        self.tensors.insert(name.to_owned(), (dims.to_vec(), DType::F32, le_bytes(values)));
    }

    /// Multiplies a tensor.
    pub(crate) fn multiply(&mut self, name: &str, factor: impl Fn(usize) -> f32) {
        let (_, _, data) = self.tensors.get_mut(name).unwrap();
        for (i, value) in data.chunks_exact_mut(4).enumerate() {
            let x = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
            value.copy_from_slice(&(x * factor(i)).to_le_bytes());
        }
    }

    pub(crate) fn bytes(&self) -> Bytes {
        let mut writer = GgufWriter::new(self.meta.clone()).unwrap();
        for (name, (dims, dtype, _)) in &self.tensors {
            let dims = [&dims[..], &vec![1; self.padded.saturating_sub(dims.len())]].concat();
            writer.tensor(name, &dims, *dtype).unwrap();
        }
        let mut out = Vec::new();
        writer.write(&mut out, &mut |i| self.tensors.values().nth(i).unwrap().2.clone()).unwrap();
        Bytes::from(out)
    }

    pub(crate) fn logits(&self) -> Result<Vec<f32>> {
        logits(&self.bytes())
    }
}

/// Logits of some ids on the scalar kernels.
pub(crate) fn logits(bytes: &Bytes) -> Result<Vec<f32>> {
    logits_of(bytes, |i| 7 * i + 3)
}

/// Logits of 24 ids.
pub(crate) fn logits_of(bytes: &Bytes, id: impl Fn(u32) -> u32) -> Result<Vec<f32>> {
    let (_, plan) = model::inspect(&ModelFile::from_bytes(bytes.clone())?)?;
    let n_vocab = plan.n_vocab() as u32;
    let options = CpuOptions { threads: Some(1), simd: Some("scalar".into()), activations: Activations::F32 };
    let device = Device::Cpu(Arc::new(Cpu::new(&options)?));
    let ids: Vec<u32> = (0..24).map(|i| id(i) % n_vocab).collect();
    let n_pages = ids.len().div_ceil(PAGE);
    let options = RunnerOptions {
        max_tokens: ids.len(),
        max_outputs: ids.len(),
        kv: KvKind::F32,
        n_pages,
        n_states: 1,
        n_window_pages: 0,
    };
    let mut runner = device.prepare(Arc::new(plan), options)?;
    let mut inputs = Inputs { tables: vec![(0..n_pages as u32).collect()], ..Inputs::default() };
    for (i, id) in ids.iter().enumerate() {
        inputs.push(*id, i as u32, 0);
    }
    inputs.outputs = (0..ids.len() as u32).collect();
    Ok(runner.submit(&inputs)?.wait()?.logits)
}

pub(crate) fn refusal(written: &Written) -> String {
    written.logits().expect_err("it is refused").to_string()
}
