//! What plans ask of the GPU's kernels is in the list that `shaders/tests/validate.rs` translates: the common part of it in
//! every run, all of it with `IR_FULL=1`.
#![cfg(feature = "gpu")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use ir_engine::device::KvKind;
use ir_engine::dtype::DType;
use ir_engine::error::Result;
use ir_engine::gpu::{Forms, StepCost, permutations};
use ir_engine::plan::{Inputs, Op, Plan, Slot};

const FORMS: &[&str] = &[
    "base",
    "base+subgroups",
    "base+f16+subgroups",
    "base+dot4",
    "base+subgroups+dot4",
    "base+coopmat",
    "base+f16+coopmat",
    "base+coherent",
    "base+subgroups+owned",
    "base+subgroups+dot4+owned",
    "base+coherent+heads",
    "base+subgroups+dot4+owned+coherent+heads",
];

/// A kernel with its features. Its numbers are those of shapes, which have no end.
type Asked = (&'static str, BTreeSet<&'static str>);

fn asked(of: ir_shaders::Permutation) -> Asked {
    (of.kernel, of.features.into_iter().collect())
}

/// What a plan asks for and no list has.
fn unlisted(plan: &Plan) -> Result<BTreeSet<Asked>> {
    static LISTED: LazyLock<BTreeSet<Asked>> =
        LazyLock::new(|| ir_shaders::all_permutations().into_iter().map(asked).collect());
    let mut all = BTreeSet::new();
    for forms in FORMS.iter().map(|text| Forms::parse(text).unwrap()) {
        let blocks = plan.kv.iter().all(|shape| shape.expect_blocks(KvKind::Blocks8).is_ok());
        for kv in KvKind::ALL.into_iter().filter(|kv| blocks || *kv != KvKind::Blocks8) {
            all.extend(permutations(plan, forms, kv)?.into_iter().map(asked));
        }
    }
    assert!(all.len() > 20, "only {} kernels", all.len());
    Ok(all.difference(&LISTED).cloned().collect())
}

#[test]
fn families_ask_for_what_is_validated() {
    let mut n = 0;
    for (name, golden) in crate::families::goldens() {
        let missing = unlisted(golden.model.plan()).unwrap();
        assert!(missing.is_empty(), "{name} asks for what no list has: {missing:?}");
        n += 1;
    }
    assert!(n >= 5, "only {n} families run on a GPU");
}

/// The plan with matrices of blocks, where rows are whole blocks: goldens are of plain types, which have no form for bytes.
fn of_blocks(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    for weight in plan.weights.iter_mut().filter(|weight| weight.cols.is_multiple_of(32)) {
        weight.segments.iter_mut().for_each(|segment| segment.dtype = DType::Q8_0);
    }
    for entry in &plan.ops {
        if let Op::Linear { x, norm: None, weight, .. } | Op::ExpertLinear { x, weight, .. } = entry.op {
            let blocks = plan.weights[weight.0 as usize].segments.iter().all(|s| s.dtype.block_len() > 1);
            plan.slots[x.0 as usize].readers.blocks |= blocks;
        }
    }
    plan
}

/// So many sequences with a row each.
fn rows(n: usize) -> Inputs {
    let mut inputs = Inputs { tables: vec![vec![0]; n], outputs: vec![0], ..Inputs::default() };
    (0..n).for_each(|seq| _ = inputs.push(0, 3, seq as u32));
    inputs
}

/// Activations as signed bytes: of a single row no dispatch makes them; of several one for each op that writes what products take
/// so, and one for each product behind a norm.
#[test]
fn bytes_of_a_row_take_no_dispatch_in_any_family() {
    let forms = |text| Forms::parse(text).unwrap();
    let mut n = 0;
    for (name, golden) in crate::families::goldens() {
        let plan = of_blocks(golden.model.plan());
        let dispatches = |rows_at_once, text| {
            StepCost::of(&plan, &rows(rows_at_once), forms(text), KvKind::F16).map(|cost| cost.dispatches)
        };
        let Ok(base) = dispatches(1, "base") else { continue };
        assert_eq!(dispatches(1, "base+dot4").unwrap(), base, "{name}: a row's bytes take dispatches");
        let blocks = |slot: Slot| plan.slots[slot.0 as usize].readers.blocks;
        let makes = |op: &Op| {
            usize::from(matches!(op, Op::Linear { norm: Some(_), .. })) + usize::from(op.writes().is_some_and(blocks))
        };
        let most: usize = plan.ops.iter().map(|entry| makes(&entry.op)).sum();
        let few = dispatches(2, "base").unwrap();
        let bytes = dispatches(2, "base+dot4").unwrap() - few;
        println!("{name}: two rows take {few} dispatches, and {bytes} for bytes");
        assert!((1..=most).contains(&bytes), "{name}: {bytes} dispatches make bytes, where {most} ops want them");
        n += 1;
    }
    for (types, _) in crate::gpu_host::TYPES {
        let plan = crate::common::shape_1b::plan(*types);
        let dispatches =
            |rows_at_once, text| StepCost::of(&plan, &rows(rows_at_once), forms(text), KvKind::F16).unwrap().dispatches;
        assert_eq!(dispatches(1, "base+dot4"), dispatches(1, "base"), "{types:?}");
        let layers = crate::common::shape_1b::LAYERS;
        // Two norms, attention and gates in each layer. The head has one row.
        assert_eq!(dispatches(2, "base+dot4") - dispatches(2, "base"), 4 * layers, "{types:?}");
        assert!(dispatches(1, "base+subgroups+dot4+owned") > dispatches(1, "base+subgroups+owned"), "{types:?}");
    }
    assert!(n >= 5, "only {n} families run on a GPU");
}

#[test]
fn synthetic_shapes_ask_for_what_is_validated() {
    for (types, _) in crate::gpu_host::TYPES {
        let missing = unlisted(&crate::common::shape_1b::plan(*types)).unwrap();
        assert!(missing.is_empty(), "{types:?} asks for what no list has: {missing:?}");
    }
}
