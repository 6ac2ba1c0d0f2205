//! [`Loading`]: a model on its way in. Pieces of its file go to the engine's loader as they come, and through SHA-256
//! where one was given; the file as a whole is never here.

use std::sync::Arc;

use ir_engine::cpu::{Cpu, CpuOptions};
use ir_engine::gpu::{Gpu, GpuOptions, threads_of_pipelines};
use ir_engine::run::EngineOptions;
use ir_engine::{Device, Error, LoadOptions as EngineLoad, Loader, Result};
use sha2::{Digest, Sha256};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::clock;
use crate::error::{throw, with_code};
use crate::host::Host;
use crate::wire::{self, LoadOptions};

/// Bytes that a file may have on the CPU: a module's memory ends at 4 GiB, and keys, values and the rest need theirs.
const MOST_ON_CPU: u64 = 7 << 29;
/// Bytes of keys and values where nothing else is asked.
const CACHE: u64 = 1 << 30;
/// Tokens of a prompt that the CPU computes at a time: a step cannot be stopped, and its activations take memory. A GPU
/// is kept to short steps by what they are measured to take.
const CPU_ROWS: usize = 64;

/// A model on its way in.
#[wasm_bindgen]
pub struct Loading {
    total: u64,
    loader: Loader,
    hash: Option<(Sha256, String)>,
    started: f64,
}

impl Loading {
    async fn open(total: f64, options: &str) -> Result<Loading> {
        let options: LoadOptions = wire::read(options)?;
        if !(total >= 0.0 && total <= (1_u64 << 53) as f64) {
            return Err(Error::request("the file's length must be a number of bytes"));
        }
        let total = total as u64;
        if !options.gpu && total > MOST_ON_CPU {
            return Err(Error::limit(format!(
                "this file has {:.1} GiB, and without a GPU a page can hold {:.1} GiB at most: \
                 use a browser with WebGPU, a smaller file, or the ir command",
                total as f64 / (1_u64 << 30) as f64,
                MOST_ON_CPU as f64 / (1_u64 << 30) as f64
            )));
        }
        let hash = options.sha256.as_deref().map(|text| digest(text).map(|d| (Sha256::new(), d))).transpose()?;
        let device = device(&options).await?;
        let most = if options.gpu { CACHE } else { CACHE.min((MOST_ON_CPU + (256 << 20) - total) / 2) };
        let usual = EngineOptions::default();
        let rows = if options.gpu { usual.max_rows } else { CPU_ROWS };
        let engine = EngineOptions {
            context: options.context_length,
            kv_budget: options.cache_bytes.map_or(most, |bytes| bytes as u64),
            max_sequences: 1,
            max_rows: rows,
            chunk: rows,
            ..usual
        };
        let options = EngineLoad { engine, ..EngineLoad::default() };
        Ok(Loading { total, loader: Loader::new(total, &device, &options), hash, started: clock::seconds() })
    }

    fn take(&mut self, offset: f64, bytes: &[u8]) -> Result<()> {
        if offset != self.loader.position() as f64 {
            return Err(Error::request("bytes were left out or fed twice"));
        }
        if let Some((hash, _)) = &mut self.hash {
            hash.update(bytes);
        }
        self.loader.feed(offset as u64, bytes)
    }

    fn end(self) -> Result<Host> {
        let engine = self.loader.finish()?;
        Ok(Host::new(engine, self.total, clock::seconds() - self.started))
    }
}

#[wasm_bindgen]
impl Loading {
    /// Opens the device and waits for the first bytes of a file of `total` bytes. `options` are [`LoadOptions`] as JSON.
    ///
    /// # Errors
    /// A device that does not open, options that do not fit, a file that is too long for the CPU.
    pub async fn begin(total: f64, options: String) -> std::result::Result<Loading, JsValue> {
        Loading::open(total, &options).await.map_err(throw)
    }

    /// Takes the file's bytes from `offset` on; they must follow those before.
    ///
    /// # Errors
    /// Where they are no part of a model that can run here.
    pub fn feed(&mut self, offset: f64, bytes: &[u8]) -> std::result::Result<(), JsValue> {
        self.take(offset, bytes).map_err(throw)
    }

    /// Waits until what was fed is on the device, so that no more than a few pieces are ever on their way.
    ///
    /// # Errors
    /// Where the device failed.
    pub async fn settled(&self) -> std::result::Result<(), JsValue> {
        self.loader.settled().await.map_err(throw)
    }

    /// Ends the file: the model runs.
    ///
    /// # Errors
    /// Where bytes are missing, or their SHA-256 is not the one that was given (code `integrity`).
    pub fn finish(mut self) -> std::result::Result<Host, JsValue> {
        if let Some((hash, expected)) = self.hash.take() {
            let found = hex(&hash.finalize());
            if found != expected {
                let sentence = format!(
                    "the file's SHA-256 is {found} and should be {expected}: it was damaged or changed, download it again"
                );
                return Err(with_code("integrity", &sentence));
            }
        }
        self.end().map_err(throw)
    }
}

async fn device(options: &LoadOptions) -> Result<Device> {
    if options.gpu {
        let gpu = GpuOptions {
            host_subgroups: options.subgroups,
            software_forms: options.all_forms,
            compile_ahead: Some(threads_of_pipelines()),
            ..GpuOptions::default()
        };
        return Ok(Device::Gpu(Arc::new(Gpu::open(&gpu).await?)));
    }
    Ok(Device::Cpu(Arc::new(Cpu::new(&CpuOptions { threads: options.threads, ..CpuOptions::default() })?)))
}

/// A SHA-256 as lower-case hexadecimal.
fn digest(text: &str) -> Result<String> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::request("sha256 must be 64 hexadecimal digits"));
    }
    Ok(text.to_ascii_lowercase())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
