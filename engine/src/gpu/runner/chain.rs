//! Chains: steps that are submitted one behind the other before the first has a result. What a step reads beside its tokens
//! (positions, pages, random draws) is known before; its tokens are those that the step before picked, which stay on the
//! device. Every step is computed by the same dispatches as one alone, so its bits are the same.

use std::sync::Arc;

use ir_shaders::step_word;

use super::{GpuRunner, is_many};
use crate::error::{Error, Result};
use crate::gpu::readback::{GpuReadback, Parts};
use crate::plan::{Inputs, StateSlots, Want};

/// Makes the step that follows of a step: its rows are the tokens picked for the outputs, one position further.
fn advance(step: &mut Inputs, wants: &[Want]) {
    for (i, row) in step.outputs.iter().enumerate() {
        step.tokens[*row as usize] = step_word("STEP_PICKED_BIT") | i as u32;
    }
    step.positions.iter_mut().for_each(|position| *position += 1);
    // The first step has brought the states to where the others change them.
    for slots in &mut step.states {
        *slots = StateSlots { from: Some(slots.to), to: slots.to };
    }
    step.wants.clear();
    step.wants.extend_from_slice(wants);
}

impl GpuRunner {
    /// Submits a step and those that follow it; what they picked comes back together.
    pub(super) fn submit_chain(&mut self, inputs: &Inputs) -> Result<GpuReadback> {
        self.gpu.check()?;
        let n = inputs.outputs.len();
        let parts = Parts { picked: n * (1 + inputs.next.len()), ..Parts::default() };
        let staging = self.staging(parts);
        let mut step = Inputs { next: Vec::new(), ..inputs.clone() };
        let mut submitted = None;
        self.work = 0;
        for i in 0..=inputs.next.len() {
            if i > 0 {
                advance(&mut step, &inputs.next[i - 1]);
            }
            let counts = self.write_step(&step)?;
            self.many = is_many(&counts);
            self.work += self.work_of(&counts);
            let results = self.results(&counts);
            if results.words() != n {
                return Err(Error::shape("a step of a chain gives something else than picks"));
            }
            let commands = self.encode_into(0, &counts, results, &staging, 4 * (i * n) as u64)?;
            submitted = Some(self.gpu.queue().submit([commands]));
        }
        self.keep_pipelines();
        let index = submitted.ok_or_else(|| Error::shape("a chain without steps"))?;
        Ok(GpuReadback::new(Arc::clone(&self.gpu), staging, parts, index, &self.spare))
    }
}
