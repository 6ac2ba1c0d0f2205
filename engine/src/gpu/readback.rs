//! Results on their way back from a GPU: the one place where natively and in a page something differs. Natively a poll of
//! the readback waits for the device, so that it is done at once; in a page the map's callback wakes it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::Gpu;
use crate::error::{Error, Result};

/// What the map's callback leaves.
#[derive(Debug, Default)]
struct Landing {
    mapped: Option<bool>,
    waker: Option<Waker>,
}

/// A copy of device memory that is being mapped.
#[derive(Debug)]
pub struct GpuReadback {
    gpu: Arc<Gpu>,
    staging: wgpu::Buffer,
    bytes: u64,
    index: wgpu::SubmissionIndex,
    landing: Arc<Mutex<Landing>>,
}

impl GpuReadback {
    /// Starts to map `staging`, which the submission `index` fills.
    pub(super) fn new(gpu: Arc<Gpu>, staging: wgpu::Buffer, bytes: u64, index: wgpu::SubmissionIndex) -> GpuReadback {
        let landing = Arc::new(Mutex::new(Landing::default()));
        let mine = Arc::clone(&landing);
        staging.map_async(wgpu::MapMode::Read, 0..bytes.max(4), move |result| {
            if let Ok(mut landing) = mine.lock() {
                landing.mapped = Some(result.is_ok());
                if let Some(waker) = landing.waker.take() {
                    waker.wake();
                }
            }
        });
        GpuReadback { gpu, staging, bytes, index, landing }
    }

    /// The values where they have arrived; the readback itself where not.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    pub fn ready(self) -> Result<Result<Vec<f32>, GpuReadback>> {
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
    pub fn wait(self) -> Result<Vec<f32>> {
        now(self).unwrap_or_else(|| Err(Error::Device("the GPU's results did not arrive".into())))
    }

    fn values(&self, mapped: bool) -> Result<Vec<f32>> {
        self.gpu.check()?;
        if !mapped {
            return Err(Error::Device("the GPU's results could not be read: it may have been reset".into()));
        }
        let view = self.staging.slice(0..self.bytes.max(4)).get_mapped_range();
        let view = view.map_err(|error| Error::Device(format!("the GPU's results could not be read: {error}")))?;
        let values = bytemuck::pod_collect_to_vec(&view[..self.bytes as usize]);
        drop(view);
        self.staging.unmap();
        Ok(values)
    }
}

impl Future for GpuReadback {
    type Output = Result<Vec<f32>>;

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
