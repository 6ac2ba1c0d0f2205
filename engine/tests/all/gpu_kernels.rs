//! What plans ask of the GPU's kernels is in the list that `shaders/tests/validate.rs` translates: the common part of it in
//! every run, all of it with `IR_FULL=1`.
#![cfg(feature = "gpu")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use ir_engine::device::KvKind;
use ir_engine::error::Result;
use ir_engine::gpu::{Forms, permutations};
use ir_engine::plan::Plan;

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

#[test]
fn synthetic_shapes_ask_for_what_is_validated() {
    for (types, _) in crate::gpu_host::TYPES {
        let missing = unlisted(&crate::common::shape_1b::plan(*types)).unwrap();
        assert!(missing.is_empty(), "{types:?} asks for what no list has: {missing:?}");
    }
}
