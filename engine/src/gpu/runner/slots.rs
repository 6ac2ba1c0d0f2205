//! Single ops on what slots hold, and slots written and read: for examining ops, and for plans in parts.

use std::ops::Range;
use std::sync::Arc;

use super::GpuRunner;
use crate::error::{Error, Result};
use crate::gpu::dispatch::Resource;
use crate::gpu::lower;
use crate::gpu::readback::{GpuReadback, Parts};
use crate::plan::{Inputs, Slot};

impl GpuRunner {
    /// Computes these ops alone, on what the slots hold.
    ///
    /// # Errors
    /// Where the device failed.
    pub fn run_ops(&mut self, ops: Range<usize>, inputs: &Inputs) -> Result<()> {
        self.gpu.check()?;
        let counts = self.write_step(inputs)?;
        let encoder = self.encode(self.launches(ops), &counts, self.encoder())?;
        self.gpu.queue().submit([encoder.finish()]);
        self.gpu.check()
    }

    pub(super) fn lowering(&self) -> lower::Lowering<'_> {
        let (plan, parts, constants) = (&self.plan, &self.parts, &self.constants);
        lower::Lowering { plan, parts, constants, forms: self.gpu.forms(), kv: self.options.kv }
    }

    /// Overwrites a slot's rows in this step.
    ///
    /// # Errors
    /// Where the device failed, or `data` is not as long as the slot.
    pub fn set_slot(&mut self, slot: Slot, inputs: &Inputs, data: &[f32]) -> Result<()> {
        if data.len() != self.elements(slot, inputs) {
            return Err(Error::shape(format!("a slot of {} values got {}", self.elements(slot, inputs), data.len())));
        }
        self.gpu.queue().write_buffer(self.slot_buffer(slot)?, 0, bytemuck::cast_slice(data));
        let Some(blocks) = self.lowering().blocks(slot) else { return self.gpu.check() };
        let counts = self.write_step(inputs)?;
        if !self.blocks.contains_key(&slot) {
            let prepared = self.prepare(vec![blocks])?;
            self.blocks.insert(slot, prepared);
        }
        let launches = self.blocks.get(&slot).into_iter().flat_map(|prepared| &prepared.launches);
        let encoder = self.encode(launches, &counts, self.encoder())?;
        self.gpu.queue().submit([encoder.finish()]);
        self.gpu.check()
    }

    /// Starts to read a slot's rows in this step.
    ///
    /// # Errors
    /// Where the device failed.
    pub fn slot(&mut self, slot: Slot, inputs: &Inputs) -> Result<GpuReadback> {
        self.gpu.check()?;
        let parts = Parts { values: self.elements(slot, inputs), ..Parts::default() };
        let staging = self.staging(parts);
        let mut encoder = self.encoder();
        encoder.copy_buffer_to_buffer(self.slot_buffer(slot)?, 0, &staging, 0, 4 * parts.values as u64);
        let index = self.gpu.queue().submit([encoder.finish()]);
        Ok(GpuReadback::new(Arc::clone(&self.gpu), staging, parts, index, &self.spare))
    }

    fn slot_buffer(&self, slot: Slot) -> Result<&wgpu::Buffer> {
        self.memory.get(Resource::Buffer(self.plan.slot(slot).buffer))
    }

    /// Elements that a slot has in this step.
    fn elements(&self, slot: Slot, inputs: &Inputs) -> usize {
        let info = self.plan.slot(slot);
        inputs.count(info.rows) * info.cols
    }
}
