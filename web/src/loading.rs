//! [`Loading`]: a model on its way in. Pieces of its file, or of its parts, go to the engine's loader as they come, and through
//! SHA-256 where one was given; no file as a whole is ever here.

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
use crate::wire::{self, FileOptions, LoadOptions};

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
    loader: Loader,
    files: Vec<File>,
    total: u64,
    started: f64,
}

/// One of the files.
struct File {
    name: String,
    total: u64,
    /// What came of it, and the SHA-256 that it is to have; `None` once it was found to have it.
    hash: Option<(Sha256, String)>,
}

impl File {
    fn new(options: FileOptions) -> Result<File> {
        let FileOptions { name, size, sha256 } = options;
        if !(size >= 0.0 && size <= (1_u64 << 53) as f64) {
            return Err(Error::request("the file's length must be a number of bytes"));
        }
        let hash = sha256.as_deref().map(|text| digest(text).map(|d| (Sha256::new(), d))).transpose()?;
        Ok(File { name, total: size as u64, hash })
    }

    /// Compares the SHA-256 of what came with the one that the file is to have. `many`: it is one of several.
    fn check(&mut self, many: bool) -> std::result::Result<(), JsValue> {
        let Some((hash, expected)) = self.hash.take() else { return Ok(()) };
        let found = hex(&hash.finalize());
        if found == expected {
            return Ok(());
        }
        let whose = if many { format!("the SHA-256 of {}", self.name) } else { "the file's SHA-256".into() };
        let sentence =
            format!("{whose} is {found} and should be {expected}: it was damaged or changed, download it again");
        Err(with_code("integrity", &sentence))
    }
}

impl Loading {
    async fn open(options: &str) -> Result<Loading> {
        let mut options: LoadOptions = wire::read(options)?;
        let files: Vec<File> = std::mem::take(&mut options.files).into_iter().map(File::new).collect::<Result<_>>()?;
        let total = files.iter().map(|file| file.total).fold(0, u64::saturating_add);
        if !options.gpu && total > MOST_ON_CPU {
            let what = if files.len() == 1 { "file" } else { "model" };
            return Err(Error::limit(format!(
                "this {what} has {:.1} GiB, and without a GPU a page can hold {:.1} GiB at most: \
                 use a browser with WebGPU, a smaller file, or the ir command",
                total as f64 / (1_u64 << 30) as f64,
                MOST_ON_CPU as f64 / (1_u64 << 30) as f64
            )));
        }
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
            chain: options.chain,
            ..usual
        };
        let options = EngineLoad { engine, ..EngineLoad::default() };
        let named = files.iter().map(|file| (file.name.clone(), file.total)).collect();
        let loader = Loader::of_parts(named, &device, &options);
        Ok(Loading { loader, files, total, started: clock::seconds() })
    }

    /// Takes what is due of these bytes and says how many of them that were.
    fn take(&mut self, file: usize, offset: f64, bytes: &[u8]) -> Result<usize> {
        let before = match self.loader.due() {
            Some((due, at)) if due == file && offset <= at as f64 => at,
            _ => return Err(Error::request("bytes were left out, or are of a file that is not due")),
        };
        self.loader.feed_part(file, offset as u64, bytes)?;
        let fed = self.loader.fed(file);
        let new = bytes.get((before - offset as u64) as usize..).unwrap_or_default();
        let new = &new[..new.len().min((fed - before) as usize)];
        if let Some((hash, _)) = self.files.get_mut(file).and_then(|file| file.hash.as_mut()) {
            hash.update(new);
        }
        Ok(new.len())
    }

    fn end(self) -> Result<Host> {
        let engine = self.loader.finish()?;
        Ok(Host::new(engine, self.total, clock::seconds() - self.started))
    }
}

#[wasm_bindgen]
impl Loading {
    /// Opens the device and waits for the first bytes. `options` are [`LoadOptions`] as JSON, the files among them.
    ///
    /// # Errors
    /// A device that does not open, options that do not fit, files that are too long for the CPU.
    pub async fn begin(options: String) -> std::result::Result<Loading, JsValue> {
        Loading::open(&options).await.map_err(throw)
    }

    /// The number of the file whose bytes are due, and the offset of the next one: see [`Loader::due`].
    pub fn due(&self) -> Option<Vec<f64>> {
        self.loader.due().map(|(file, offset)| vec![file as f64, offset as f64])
    }

    /// All headers are there: what is due from now on is data.
    #[wasm_bindgen(js_name = hasHeaders)]
    pub fn has_headers(&self) -> bool {
        self.loader.table().is_some()
    }

    /// Takes bytes of the file that is due, from `offset` on; those that were taken before are passed over.
    ///
    /// # Errors
    /// Where they are no part of a model that can run here, or a file has come whose SHA-256 is not the one that was given
    /// (code `integrity`).
    pub fn feed(&mut self, file: usize, offset: f64, bytes: &[u8]) -> std::result::Result<(), JsValue> {
        let taken = self.take(file, offset, bytes).map_err(throw)?;
        let many = self.files.len() > 1;
        match self.files.get_mut(file) {
            Some(of) if taken > 0 && self.loader.fed(file) == of.total => of.check(many),
            _ => Ok(()),
        }
    }

    /// Waits until what was fed is on the device, so that no more than a few pieces are ever on their way.
    ///
    /// # Errors
    /// Where the device failed.
    pub async fn settled(&self) -> std::result::Result<(), JsValue> {
        self.loader.settled().await.map_err(throw)
    }

    /// Ends the files: the model runs.
    ///
    /// # Errors
    /// Where bytes are missing, or a SHA-256 is not the one that was given (code `integrity`).
    pub fn finish(mut self) -> std::result::Result<Host, JsValue> {
        let many = self.files.len() > 1;
        self.files.iter_mut().try_for_each(|file| file.check(many))?;
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
