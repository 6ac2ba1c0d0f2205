//! Pages and states of a runner as bytes: what the buffers of its layers hold, one after the other.

use std::ops::Range;
use std::sync::Arc;

use super::GpuRunner;
use crate::error::Result;
use crate::gpu::dispatch::Resource;
use crate::gpu::memory::{page_bytes, page_elements};
use crate::gpu::readback::{GpuReadback, Parts};
use crate::plan::CachePlace;

/// Bytes that are read back at once, about.
const BATCH: u64 = 32 << 20;

impl GpuRunner {
    /// Where a page or a slot of states lies: bytes of buffers. A part of a plan has those of its layers.
    fn ranges(&self, kept: CachePlace) -> Vec<(&wgpu::Buffer, Range<u64>)> {
        let range = |index: u32, len: u64| u64::from(index) * len..(u64::from(index) + 1) * len;
        let of_layer = |layer: usize, page: u32| {
            let lens = page_elements(&self.plan, layer).map(|elements| page_bytes(self.options.kv, elements));
            let resources = [Resource::KPages(layer), Resource::VPages(layer)];
            resources.into_iter().zip(lens).map(move |(resource, len)| (resource, range(page, len)))
        };
        let all: Vec<(Resource, Range<u64>)> = match kept {
            CachePlace::Page { group, page } => {
                let layers = (0..self.plan.kv.len()).filter(|layer| self.plan.kv_groups[*layer] == group);
                layers.flat_map(|layer| of_layer(layer, page)).collect()
            }
            CachePlace::State(slot) => {
                let states = self.plan.states.iter().enumerate();
                states.map(|(i, n)| (Resource::States(i), range(slot, 4 * *n as u64))).collect()
            }
        };
        all.into_iter().filter_map(|(resource, range)| Some((self.memory.get(resource).ok()?, range))).collect()
    }

    /// What these pages and slots hold, each on its own. Waits for the device: not for a page.
    ///
    /// # Errors
    /// Where the device failed.
    pub fn read_kept(&self, all: &[CachePlace]) -> Result<Vec<Vec<u8>>> {
        self.gpu.check()?;
        let (mut read, mut rest) = (Vec::with_capacity(all.len()), all);
        while !rest.is_empty() {
            let mut bytes = 0;
            let sizes = rest.iter().map(|kept| self.ranges(*kept).iter().map(|(_, r)| r.end - r.start).sum::<u64>());
            let sizes: Vec<u64> = sizes
                .take_while(|size| {
                    bytes += size;
                    bytes <= BATCH.max(*size)
                })
                .collect();
            let (now, later) = rest.split_at(sizes.len().max(1));
            self.read_batch(now, &sizes, &mut read)?;
            rest = later;
        }
        Ok(read)
    }

    fn read_batch(&self, all: &[CachePlace], sizes: &[u64], read: &mut Vec<Vec<u8>>) -> Result<()> {
        let parts = Parts { values: (sizes.iter().sum::<u64>() / 4) as usize, ..Parts::default() };
        let staging = self.staging(parts);
        let (mut encoder, mut at) = (self.encoder(), 0);
        for (buffer, range) in all.iter().flat_map(|kept| self.ranges(*kept)) {
            let len = range.end - range.start;
            encoder.copy_buffer_to_buffer(buffer, range.start, &staging, at, len);
            at += len;
        }
        let index = self.gpu.queue().submit([encoder.finish()]);
        let values = GpuReadback::new(Arc::clone(&self.gpu), staging, parts, index, &self.spare).wait()?.values;
        let mut bytes: &[u8] = bytemuck::cast_slice(&values);
        for size in sizes {
            let (own, rest) = bytes.split_at(*size as usize);
            read.push(own.to_vec());
            bytes = rest;
        }
        Ok(())
    }

    /// Takes from the front of `bytes` what a page or a slot of states holds. Says whether there were as many.
    pub fn write_kept(&self, kept: CachePlace, bytes: &mut &[u8]) -> bool {
        for (buffer, range) in self.ranges(kept) {
            let Some((own, more)) = bytes.split_at_checked((range.end - range.start) as usize) else { return false };
            self.gpu.queue().write_buffer(buffer, range.start, own);
            *bytes = more;
        }
        self.gpu.check().is_ok()
    }
}
