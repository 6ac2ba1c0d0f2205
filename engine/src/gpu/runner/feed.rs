//! How a runner gets its weights: from the plan where it holds them, piece by piece where the file is still arriving.

use std::sync::Arc;

use super::GpuRunner;
use crate::error::{Error, Result};
use crate::gpu::readback::{GpuReadback, Parts};
use crate::gpu::upload::{STAGING, Target, Upload};
use crate::plan::{Plan, WeightId};

/// Where a runner's weights go: its fields but `upload`, which is changed meanwhile.
macro_rules! target {
    ($runner:expr) => {
        Target {
            gpu: &$runner.gpu,
            plan: &$runner.plan,
            parts: &$runner.parts,
            constants: &$runner.constants,
            memory: &$runner.memory,
        }
    };
}

impl GpuRunner {
    /// Takes bytes of a weight's segment from `offset` on; those before must have come. Natively it waits for the device
    /// now and then, so that little memory is taken; in a page [`settled`](GpuRunner::settled) does.
    ///
    /// # Errors
    /// [`Error::Request`] where bytes were left out or are more than the segment's, or what the device says.
    pub fn feed(&mut self, weight: WeightId, segment: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let target = target!(self);
        self.upload.feed(&target, (weight, segment), offset, bytes)?;
        self.making.step(&self.gpu);
        self.gpu.check()
    }

    /// Ends the feeding of weights.
    ///
    /// # Errors
    /// [`Error::Request`] where a segment was begun and not ended, or what the device says.
    pub fn fed(&mut self) -> Result<()> {
        let target = target!(self);
        self.upload.finish(&target)?;
        self.upload = Upload::default();
        self.making.rest(&self.gpu);
        Ok(())
    }

    /// Takes a plan that differs from this one in its rotation frequencies alone, as when their factors arrived late.
    ///
    /// # Errors
    /// [`Error::Format`] where it differs otherwise.
    pub fn set_ropes(&mut self, plan: Arc<Plan>) -> Result<()> {
        let shapes = |plan: &Plan| plan.ropes.iter().map(|r| (r.style, r.inv_freq.len())).collect::<Vec<_>>();
        let ops = |plan: &Plan| plan.ops.iter().map(|entry| entry.op).collect::<Vec<_>>();
        if shapes(&plan) != shapes(&self.plan) || ops(&plan) != ops(&self.plan) || plan.heads != self.plan.heads {
            return Err(Error::format("the model's rope factors contradict its header: the file is damaged"));
        }
        self.memory.write_ropes(&self.gpu, &plan, &self.constants)?;
        self.plan = plan;
        self.gpu.flush()
    }

    /// What was fed so far is on the device, and its staging memory is given back.
    ///
    /// # Errors
    /// Where the device failed.
    pub async fn settled(&self) -> Result<()> {
        let (parts, encoder) = (Parts::default(), self.encoder());
        let staging = self.staging(parts);
        let index = self.gpu.queue().submit([encoder.finish()]);
        GpuReadback::new(Arc::clone(&self.gpu), staging, parts, index, &self.spare).await.map(|_| ())
    }

    /// Feeds the weights that the plan holds, a piece at a time; the memory that a mapped file took for them is given back.
    pub(super) fn feed_plan(&mut self) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        for (i, weight) in plan.weights.iter().enumerate() {
            for (j, segment) in weight.segments.iter().enumerate().filter(|(_, s)| !s.bytes.is_empty()) {
                let len = segment.bytes.len();
                if len as u64 != segment.n_bytes() {
                    let name = &segment.name;
                    return Err(Error::format(format!("{name} is shorter than its shape says: the file is damaged")));
                }
                for at in (0..len).step_by(STAGING) {
                    let piece = segment.bytes.slice(at..len.min(at + STAGING)).unwrap_or_default();
                    self.feed(WeightId(i as u32), j, at as u64, &piece)?;
                    piece.drop_pages();
                }
            }
        }
        self.fed()
    }
}
