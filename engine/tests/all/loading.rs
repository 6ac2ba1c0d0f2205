//! Models that arrive in pieces: the same engine as from the whole file, on the CPU and on this machine's GPU; pieces of
//! any size, tensors in any order, offsets beyond 4 GiB; damaged files end in a sentence. Skips are said on stderr.

use std::io::Write;
use std::sync::Arc;

use crate::common::{data, skipped};
use ir_engine::bytes::Bytes;
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::Device;
use ir_engine::error::{Error, Result};
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::run::{Engine, EngineOptions, Event, Request, Sampling, wait};
use ir_engine::{LoadOptions, Loader, builtin};

/// Loading in pieces and loading whole put the same bits in the same places, so the tokens must be equal, whatever the
/// margins.
pub(crate) fn tokens(engine: &mut Engine) -> Vec<u32> {
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let request =
        Request { prompt: (1..40).collect(), sampling, max_tokens: Some(16), ignore_eos: true, ..Request::default() };
    engine.add(request, 0.0).unwrap();
    let mut tokens = Vec::new();
    while !engine.is_idle() {
        for event in wait(engine.step(&|| 0.0)).unwrap() {
            if let Event::Token { id, .. } = event {
                tokens.push(id);
            }
        }
    }
    tokens
}

pub(crate) fn options() -> LoadOptions {
    let engine =
        EngineOptions { kv_budget: 1 << 22, context: Some(128), max_rows: 64, chunk: 64, ..Default::default() };
    LoadOptions { model: ModelOptions::default(), engine }
}

pub(crate) fn whole(bytes: &Bytes, device: &Device) -> Engine {
    let model = Model::from_bytes(bytes.clone(), &ModelOptions::default()).unwrap();
    Engine::new(Arc::new(model), device, &options().engine).unwrap()
}

pub(crate) fn fed(bytes: &[u8], device: &Device, chunk: usize) -> Result<Engine> {
    let mut loader = Loader::new(bytes.len() as u64, device, &options());
    for (i, piece) in bytes.chunks(chunk).enumerate() {
        loader.feed((i * chunk) as u64, piece)?;
    }
    assert_eq!(loader.missing(), 0);
    loader.finish()
}

pub(crate) fn cpu() -> Device {
    let options = CpuOptions { threads: Some(1), activations: Activations::F32, ..CpuOptions::default() };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

#[cfg(feature = "gpu")]
pub(crate) fn gpu(max_part: Option<u64>) -> Option<Device> {
    use ir_engine::gpu::{Forms, Gpu, GpuOptions};
    match Gpu::open_now(&GpuOptions { forms: Some(Forms::BASE), max_part, ..GpuOptions::default() }) {
        Ok(gpu) => Some(Device::Gpu(Arc::new(gpu))),
        Err(error) => {
            skipped(error);
            None
        }
    }
}

pub(crate) fn golden(name: &str) -> Bytes {
    Bytes::from(std::fs::read(data().join("golden").join(name).join("model-bf16.gguf")).unwrap())
}

#[test]
fn pieces_of_any_size_make_the_same_engine_on_the_cpu() {
    // `llama3` has a tensor that is read while the model is recorded.
    for (bytes, chunks) in
        [(builtin::bytes(), &[1000, 1 << 20][..]), (golden("llama3"), &[1, 7, 4096, 1 << 30]), (golden("qwen2"), &[33])]
    {
        let want = tokens(&mut whole(&bytes, &cpu()));
        assert_eq!(want.len(), 16);
        for chunk in chunks {
            let mut engine = fed(&bytes, &cpu(), *chunk).unwrap();
            assert_eq!(tokens(&mut engine), want, "chunks of {chunk}");
        }
    }
}

#[test]
#[cfg(feature = "gpu")]
fn pieces_of_any_size_make_the_same_engine_on_a_gpu() {
    for max_part in [None, Some(6 << 10)] {
        let Some(device) = gpu(max_part) else { return };
        for (bytes, chunks) in [
            (builtin::bytes(), &[1000, 1 << 20][..]),
            (golden("llama3"), &[1, 4096, 1 << 30]),
            (golden("qwen2"), &[33]),
            (golden("llama-tied"), &[77]),
        ] {
            let want = tokens(&mut whole(&bytes, &device));
            for chunk in chunks {
                let mut engine = fed(&bytes, &device, *chunk).unwrap();
                assert_eq!(tokens(&mut engine), want, "chunks of {chunk}, parts of {max_part:?}");
            }
        }
    }
}

#[test]
#[cfg(feature = "gpu")]
fn a_lost_device_takes_weights_with_it_that_were_not_kept() {
    let Some(device) = gpu(None) else { return };
    let bytes = golden("llama3");
    let mut engine = fed(&bytes, &device, 4096).unwrap();
    let want = tokens(&mut engine);
    if let Device::Gpu(gpu) = engine.device() {
        gpu.lose();
    }
    engine.add(Request { prompt: vec![1], ..Request::default() }, 0.0).unwrap();
    let error = wait(engine.step(&|| 0.0)).unwrap_err();
    assert!(matches!(error, Error::Reload(_)), "{error}");
    assert!(error.to_string().contains("load the model again"), "{error}");
    let Some(device) = gpu(None) else { return };
    assert_eq!(tokens(&mut fed(&bytes, &device, 4096).unwrap()), want);
}

/// Hands on to a loader what is written.
struct Feed(Option<Loader>, Option<Error>);

impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(loader) = &mut self.0 else { return Err(std::io::ErrorKind::BrokenPipe.into()) };
        match loader.feed(loader.position(), bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                (self.0, self.1) = (None, Some(error));
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The file's tensors in the opposite order, behind `padding` bytes that no model uses.
pub(crate) fn rewritten(file: &ModelFile, padding: u64) -> (GgufWriter, Vec<Vec<u8>>) {
    let meta = file.meta().iter().fold(MetaBuilder::new(), |meta, (key, value)| meta.value(&key, value));
    let mut writer = GgufWriter::new(meta).unwrap();
    let mut data = Vec::new();
    if padding > 0 {
        writer.tensor("padding.input_scale", &[padding / 4], ir_engine::dtype::DType::F32).unwrap();
        // Zeroed pages that are only read cost no memory.
        data.push(vec![0; padding as usize]);
    }
    for tensor in file.tensors().iter().rev() {
        writer.tensor(tensor.name(), tensor.dims(), tensor.dtype().unwrap()).unwrap();
        data.push(file.bytes(tensor).unwrap().to_vec());
    }
    (writer, data)
}

fn fed_written(device: &Device, bytes: &Bytes, padding: u64) -> Engine {
    let (writer, data) = rewritten(&ModelFile::from_bytes(bytes.clone()).unwrap(), padding);
    let mut data: Vec<Option<Vec<u8>>> = data.into_iter().map(Some).collect();
    let mut feed = Feed(Some(Loader::new(writer.byte_len(), device, &options())), None);
    let written = writer.write(&mut feed, &mut |i| data[i].take().unwrap());
    assert!(written.is_ok(), "{:?}", feed.1);
    feed.0.unwrap().finish().unwrap()
}

#[test]
#[cfg(target_pointer_width = "64")]
fn tensors_beyond_4_gib_in_any_order() {
    let bytes = golden("llama3");
    let want = tokens(&mut whole(&bytes, &cpu()));
    assert_eq!(tokens(&mut fed_written(&cpu(), &bytes, 0)), want);
    assert_eq!(tokens(&mut fed_written(&cpu(), &bytes, (4 << 30) + (64 << 20))), want);
    #[cfg(feature = "gpu")]
    if let Some(device) = gpu(None) {
        let want = tokens(&mut whole(&bytes, &device));
        assert_eq!(tokens(&mut fed_written(&device, &bytes, (4 << 30) + (64 << 20))), want);
    }
}

#[test]
fn damaged_files_end_in_a_sentence() {
    let bytes = golden("llama3");
    let text = "This is no model, but a long enough text. ".repeat(100);
    let error = fed(text.as_bytes(), &cpu(), 10).unwrap_err().to_string();
    assert!(error.contains("text file") && error.contains(".gguf"), "{error}");

    let mut loader = Loader::new(bytes.len() as u64, &cpu(), &options());
    loader.feed(0, &bytes[..bytes.len() - 100]).unwrap();
    // Again what was there: no harm.
    loader.feed(1000, &bytes[1000..2000]).unwrap();
    assert_eq!(loader.missing(), 100);
    assert!(loader.model().is_some() && loader.context() == Some(128));
    let error = loader.finish().unwrap_err().to_string();
    assert!(error.contains("cut short") && error.contains("download it again"), "{error}");

    let mut loader = Loader::new(bytes.len() as u64, &cpu(), &options());
    loader.feed(0, &bytes[..100]).unwrap();
    assert!(loader.feed(200, &bytes[200..]).is_err(), "bytes were left out");
    assert!(loader.feed(100, &bytes[100..]).is_err(), "a loader that failed takes no more");
    assert!(loader.finish().is_err());

    // The file is shorter than its header says.
    let cut = bytes.slice(0..bytes.len() / 2).unwrap();
    assert!(fed(&cut, &cpu(), 4096).is_err());
}
