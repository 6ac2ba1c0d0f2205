//! What a step costs by its plan alone: dispatches and the bytes of weights that they read. Pure; no device here.

use std::collections::BTreeMap;

use super::constants::Constants;
use super::dispatch::{Count, Counts, Dispatch, Key, Resource};
use super::parts::Part;
use super::{Forms, MOST_BYTES, lower, memory, step};
use crate::error::Result;
use crate::plan::{Inputs, KvKind, Plan};

/// What a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepCost {
    /// Dispatches of all kernels.
    pub dispatches: usize,
    /// Dispatches of the layer that takes most.
    pub most_per_layer: usize,
    /// Bytes of matrices that the kernels read, as they lie on the device; of the token table only the rows looked up.
    pub weight_bytes: u64,
}

impl StepCost {
    /// What a step with these inputs takes on a GPU that binds up to 4 GiB at once.
    ///
    /// # Errors
    /// Where a shape is beyond the kernels.
    pub fn of(plan: &Plan, inputs: &Inputs, forms: Forms, kv: KvKind) -> Result<StepCost> {
        let parts = memory::parts(plan, MOST_BYTES / 16 * 16);
        let (parts, constants) = (&parts, &Constants::new(plan));
        let dispatches = lower::Lowering { plan, parts, constants, forms, kv }.lower(0..plan.ops.len())?;
        let counts = step::StepWords::default().write(inputs);
        let mut layers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut cost = StepCost { dispatches: 0, most_per_layer: 0, weight_bytes: 0 };
        for dispatch in dispatches.iter().filter(|d| d.workgroups(&counts) > 0) {
            cost.dispatches += 1;
            cost.weight_bytes += weight_bytes(dispatch, parts, &counts);
            if let Some(layer) = layer(&plan.ops[dispatch.op].scope) {
                *layers.entry(layer).or_default() += 1;
            }
        }
        cost.most_per_layer = layers.into_values().max().unwrap_or(0);
        Ok(cost)
    }
}

/// The permutations of kernels that a plan asks for on a GPU that binds up to 4 GiB at once, whatever its steps.
///
/// # Errors
/// Where a shape is beyond the kernels.
pub fn permutations(plan: &Plan, forms: Forms, kv: KvKind) -> Result<Vec<ir_shaders::Permutation>> {
    let (parts, constants) = (&memory::parts(plan, MOST_BYTES / 16 * 16), &Constants::new(plan));
    let dispatches = lower::Lowering { plan, parts, constants, forms, kv }.lower(0..plan.ops.len())?;
    let keys = dispatches.into_iter().chain(lower::sample(plan, forms)).map(|dispatch| dispatch.key);
    let permutation =
        |key: Key| ir_shaders::Permutation { kernel: key.kernel, features: key.features, consts: key.consts };
    Ok(keys.map(permutation).collect())
}

/// The number in `blk.3.attn`.
fn layer(scope: &str) -> Option<&str> {
    scope.strip_prefix("blk.")?.split('.').next()
}

/// The part of a matrix that a dispatch reads.
pub(super) fn part<'a>(dispatch: &Dispatch, parts: &'a [Vec<Part>]) -> Option<&'a Part> {
    dispatch.bindings.iter().find_map(|(_, resource)| match resource {
        Resource::Part(weight, index) => parts.get(weight.0 as usize)?.get(*index),
        _ => None,
    })
}

/// Bytes of matrices that a dispatch reads in a step.
pub(super) fn weight_bytes(dispatch: &Dispatch, parts: &[Vec<Part>], counts: &Counts) -> u64 {
    let Some(part) = part(dispatch, parts) else { return 0 };
    let all = part.rows() * part.matrices.len();
    let used = dispatch.params.iter().find(|p| p.0 == "used").map_or(1, |p| p.1 as usize);
    let rows = if dispatch.key.kernel == "embed" {
        counts.n_rows()
    } else {
        let n = dispatch.params.iter().find(|p| p.0 == "n").map_or(0, |p| p.1 as usize);
        let both = if dispatch.key.features.contains(&"GLU") { 2 } else { 1 };
        let reads = match dispatch.grid.count {
            // Tiles of rows that have one matrix: at most so many.
            count @ Count::Sorted { rows: _, used: _, of: _ } => counts.get(count),
            // Picks of one matrix by fours: at most so many.
            _ if dispatch.key.features.contains(&"TOGETHER") => {
                let (picks, four) = (counts.rows(dispatch.when.0) * used, dispatch.rows_at_once());
                picks.min(part.matrices.len() + picks / four)
            }
            _ => counts.rows(dispatch.when.0).div_ceil(dispatch.grid.block) * used,
        };
        n * both * reads
    };
    (u128::from(part.layout.bytes) * rows as u128 / all.max(1) as u128) as u64
}
