//! Results on their way back from a GPU: the one place where natively and in a page something differs. Natively a poll of
//! the readback waits for the device, so that it is done at once; in a page the map's callback wakes it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::Gpu;
use crate::error::{Error, Result};

/// What a step or a slot gives back; parts that were not asked for are empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results {
    /// Logits, or a slot's values.
    pub values: Vec<f32>,
    /// A token per output, `u32::MAX` where the row's logits are damaged.
    pub picked: Vec<u32>,
    /// The largest logits of each output, falling, with their tokens.
    pub top: Vec<(f32, u32)>,
    /// Each output's largest logit and the sum of exponentials relative to it.
    pub stats: Vec<(f32, f32)>,
    /// The means of rows that were wanted.
    pub pooled: Vec<f32>,
}

/// How many of each a readback brings, in this order, four bytes to a word.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parts {
    pub values: usize,
    pub picked: usize,
    pub top: usize,
    pub stats: usize,
    pub pooled: usize,
}

impl Parts {
    pub(super) fn words(&self) -> usize {
        self.values + self.picked + 2 * self.top + 2 * self.stats + self.pooled
    }

    fn read(&self, bytes: &[u8]) -> Results {
        let (values, rest) = bytes.split_at(4 * self.values);
        let (picked, rest) = rest.split_at(4 * self.picked);
        let (top, rest) = rest.split_at(8 * self.top);
        let (stats, pooled) = rest.split_at(8 * self.stats);
        let words = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, u32>(bytes);
        let floats = |w: &[u32]| (f32::from_bits(w[0]), w[1]);
        Results {
            values: bytemuck::pod_collect_to_vec(values),
            picked: words(picked),
            top: words(top).chunks_exact(2).map(floats).collect(),
            stats: words(stats).chunks_exact(2).map(|w| (f32::from_bits(w[0]), f32::from_bits(w[1]))).collect(),
            pooled: bytemuck::pod_collect_to_vec(pooled),
        }
    }
}

/// What the map's callback leaves.
#[derive(Debug, Default)]
struct Landing {
    mapped: Option<bool>,
    waker: Option<Waker>,
}

/// Bytes of the staging buffer; none can be empty.
pub(super) fn staging_bytes(parts: Parts) -> u64 {
    4 * parts.words().max(1) as u64
}

/// Buffers that results come back in, between two uses: what a step gives has mostly the size of what the one before gave.
#[derive(Debug, Clone, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<wgpu::Buffer>>>);

/// How many are kept: a step's results, those of the step that is encoded ahead, and one of another size for each.
const MOST_SPARE: usize = 4;
/// Bytes of one that is kept, at most.
const MOST_SPARE_BYTES: u64 = 4 << 20;

impl Spare {
    /// One of this size, if there is one.
    pub(super) fn take(&self, bytes: u64) -> Option<wgpu::Buffer> {
        let mut all = self.0.lock().ok()?;
        let at = all.iter().position(|buffer| buffer.size() == bytes)?;
        Some(all.swap_remove(at))
    }

    fn give(&self, buffer: wgpu::Buffer) {
        if buffer.size() > MOST_SPARE_BYTES {
            return;
        }
        if let Ok(mut all) = self.0.lock() {
            // The oldest goes first.
            if all.len() == MOST_SPARE {
                all.remove(0);
            }
            all.push(buffer);
        }
    }
}

/// A copy of device memory that is being mapped.
#[derive(Debug)]
pub struct GpuReadback {
    gpu: Arc<Gpu>,
    staging: wgpu::Buffer,
    parts: Parts,
    index: wgpu::SubmissionIndex,
    landing: Arc<Mutex<Landing>>,
    /// Where `staging` goes when it has been read.
    spare: Spare,
}

impl GpuReadback {
    /// Starts to map `staging`, which the submission `index` fills.
    pub(super) fn new(
        gpu: Arc<Gpu>,
        staging: wgpu::Buffer,
        parts: Parts,
        index: wgpu::SubmissionIndex,
        spare: &Spare,
    ) -> GpuReadback {
        let landing = Arc::new(Mutex::new(Landing::default()));
        let mine = Arc::clone(&landing);
        staging.map_async(wgpu::MapMode::Read, 0..staging_bytes(parts), move |result| {
            if let Ok(mut landing) = mine.lock() {
                landing.mapped = Some(result.is_ok());
                if let Some(waker) = landing.waker.take() {
                    waker.wake();
                }
            }
        });
        GpuReadback { gpu, staging, parts, index, landing, spare: spare.clone() }
    }

    /// The values where they have arrived; the readback itself where not.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    pub fn ready(self) -> Result<Result<Results, GpuReadback>> {
        self.gpu.device().poll(wgpu::PollType::Poll).map_err(|error| Error::Device(error.to_string()))?;
        let mapped = self.landing.lock().ok().and_then(|l| l.mapped);
        match mapped {
            None => self.gpu.check().map(|()| Err(self)),
            Some(ok) => self.values(ok).map(Ok),
        }
    }

    /// The values, waited for by blocking.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(self) -> Result<Results> {
        now(self).unwrap_or_else(|| Err(Error::Device("the GPU's results did not arrive".into())))
    }

    fn values(&self, mapped: bool) -> Result<Results> {
        self.gpu.check()?;
        if !mapped {
            return Err(Error::Lost("its results could not be read".into()));
        }
        let view = self.staging.slice(0..staging_bytes(self.parts)).get_mapped_range();
        let view = view.map_err(|error| Error::Device(format!("the GPU's results could not be read: {error}")))?;
        let values = self.parts.read(&view[..4 * self.parts.words()]);
        drop(view);
        self.staging.unmap();
        self.spare.give(self.staging.clone());
        Ok(values)
    }
}

impl Future for GpuReadback {
    type Output = Result<Results>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if cfg!(not(target_arch = "wasm32"))
            && let Err(error) = self.gpu.wait(self.index.clone())
        {
            return Poll::Ready(Err(self.gpu.check().err().unwrap_or(error)));
        }
        let Ok(mut landing) = self.landing.lock() else {
            return Poll::Ready(Err(Error::Device("a thread died while reading the GPU's results".into())));
        };
        let Some(mapped) = landing.mapped else {
            landing.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        drop(landing);
        Poll::Ready(self.values(mapped))
    }
}

/// The result of a future that is ready at its first poll, as all of wgpu's are natively.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
