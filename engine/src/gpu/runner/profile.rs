//! Device time of a step's dispatches, by timestamps around compute passes. Waits for the device, so not for pages.

use std::sync::Arc;

use super::GpuRunner;
use super::launch::Launch;
use crate::error::{Error, Result};
use crate::gpu::cost;
use crate::gpu::dispatch::Counts;
use crate::gpu::readback::{GpuReadback, Parts};
use crate::plan::Inputs;

/// Passes that one submission times at most: a query set has 4,096 queries at most, two of them to a pass.
const MAX_PASSES: usize = 1024;

/// A pass and how long it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// The kernel, with the block type where it reads a matrix, for example `linear_vec Q4_0`.
    pub kernel: String,
    /// Dispatches in the pass.
    pub dispatches: usize,
    /// From the pass's begin to its end on the device.
    pub seconds: f64,
    /// Bytes of matrices that it reads.
    pub weight_bytes: u64,
}

impl GpuRunner {
    /// Computes a step without reading anything back and times it on the device: every dispatch in a pass of its own with
    /// `each`, else as few passes as submissions allow. Passes of one dispatch cost the device more than their sum in
    /// one pass. The inputs must be such that [`GpuRunner::submit`] takes them.
    ///
    /// # Errors
    /// Where the device has no timestamps ([`crate::gpu::Gpu::has_timestamps`]), or failed.
    pub fn profile(&mut self, inputs: &Inputs, each: bool) -> Result<Vec<Timed>> {
        self.gpu.check()?;
        if !self.gpu.has_timestamps() {
            return Err(Error::Device(format!("{} has no timestamp queries: time whole steps", self.gpu.name())));
        }
        let counts = self.write_step(inputs)?;
        let live: Vec<&Launch> = self.steps.launches.iter().filter(|l| l.dispatch.workgroups(&counts) > 0).collect();
        let mut timed = Vec::new();
        let mut rest = &live[..];
        while !rest.is_empty() {
            let (submission, later) = rest.split_at(self.fits(rest, &counts));
            let passes: Vec<&[&Launch]> = submission.chunks(if each { 1 } else { MAX_PASSES }).collect();
            let seconds = self.timed(&passes, &counts)?;
            timed.extend(passes.iter().zip(seconds).map(|(pass, seconds)| self.describe(pass, seconds, &counts)));
            rest = later;
        }
        Ok(timed)
    }

    /// How many of these launches go into one submission.
    fn fits(&self, launches: &[&Launch], counts: &Counts) -> usize {
        let mut work = 0u64;
        let before = launches.iter().take(MAX_PASSES).take_while(|launch| {
            let go_on = work <= self.pace.most(super::is_many(counts));
            work = work.saturating_add(launch.work(counts));
            go_on
        });
        before.count()
    }

    /// Seconds that each of these passes takes.
    fn timed(&self, passes: &[&[&Launch]], counts: &Counts) -> Result<Vec<f64>> {
        let device = self.gpu.device();
        let n = 2 * passes.len() as u32;
        let (label, ty) = (Some("times"), wgpu::QueryType::Timestamp);
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor { label, ty, count: n });
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label,
            size: 8 * u64::from(n),
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let mut encoder = self.encoder();
        for (i, launches) in (0..).zip(passes) {
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: &queries,
                beginning_of_pass_write_index: Some(2 * i),
                end_of_pass_write_index: Some(2 * i + 1),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            for launch in *launches {
                launch.record(&self.gpu, counts, &mut pass)?;
            }
        }
        encoder.resolve_query_set(&queries, 0..n, &resolved, 0);
        // Each time has two words, the lower first.
        let parts = Parts { picked: 2 * n as usize, ..Parts::default() };
        let staging = self.staging(parts);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, 8 * u64::from(n));
        let index = self.gpu.queue().submit([encoder.finish()]);
        let words = GpuReadback::new(Arc::clone(&self.gpu), staging, parts, index, &self.spare).wait()?.picked;
        let tick = f64::from(self.gpu.queue().get_timestamp_period()) * 1e-9;
        let time = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let seconds = |w: &[u32]| time(w[2], w[3]).saturating_sub(time(w[0], w[1])) as f64 * tick;
        Ok(words.chunks_exact(4).map(seconds).collect())
    }

    fn describe(&self, launches: &[&Launch], seconds: f64, counts: &Counts) -> Timed {
        let kernel = match launches {
            [launch] => self.kernel_name(launch),
            _ => "step".to_owned(),
        };
        let bytes = launches.iter().map(|l| cost::weight_bytes(&l.dispatch, &self.parts, counts));
        Timed { kernel, dispatches: launches.len(), seconds, weight_bytes: bytes.sum() }
    }

    fn kernel_name(&self, launch: &Launch) -> String {
        let dispatch = &launch.dispatch;
        let Some(part) = cost::part(dispatch, &self.parts) else { return dispatch.key.kernel.to_owned() };
        // A tied head takes most of a small model's time: it is told apart from the layers' products.
        let is_head = self.plan.ops[dispatch.op].op.writes() == Some(self.plan.logits);
        let head = if is_head { " head" } else { "" };
        format!("{} {}{head}", dispatch.key.kernel, part.dtype)
    }
}
