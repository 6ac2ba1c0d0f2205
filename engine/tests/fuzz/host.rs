//! What a decode step on a GPU allocates on the host, on the backend that does nothing: the runner itself nothing, wgpu some
//! for each step and none that grow.

use std::sync::Arc;

use ir_engine::dtype::DType;
use ir_engine::gpu::{Forms, Gpu};
use ir_engine::plan::{Inputs, Want};

use crate::shape_1b::{LAYERS, OPTIONS, one_row, plan};
use crate::watch;

/// What wgpu allocates for a step of so many dispatches, at most: encoders, passes, lists of what is used.
const MOST: usize = 3 * 5 * LAYERS;

#[test]
fn a_steady_step_allocates_nothing_of_its_own() {
    let forms = Forms { coherent: true, heads: true, ..Forms::BASE };
    let mut runner = Arc::new(Gpu::noop(forms).unwrap()).prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
    let pick = Want::Pick { draw: [1, 2], scale: 1.0, least: -10.0 };
    let (mut first, mut last) = (0, 0);
    for position in 0..300 {
        let inputs = Inputs { wants: vec![pick], ..one_row(position) };
        watch::reset();
        let cost = runner.host_cost(&inputs);
        assert!(watch::count() == 0 || position == 0, "{} allocations at position {position}", watch::count());
        assert_eq!(cost.dispatches, 5 * LAYERS + 4);
        watch::reset();
        let readback = runner.submit(&inputs).unwrap();
        last = watch::count();
        if position == 20 {
            first = last;
        }
        readback.wait().unwrap();
    }
    println!("a step allocates {last} times, all of them in wgpu");
    assert!(last <= MOST, "{last} allocations");
    assert!(last <= first + first / 10, "{first} allocations became {last}");
}
