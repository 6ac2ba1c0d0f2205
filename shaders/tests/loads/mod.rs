//! How often products of few rows load and decode a unit of weights: once for all rows that a workgroup takes, in every form, for
//! every type, for stacks too. Counted in the parsed kernels, by the loops around the calls.

use ir_shaders::{Target, WEIGHT_TYPES, compose};
use naga::{Block, Expression, Function, Module, Statement};

/// A function that is called, the loops around that, and whether it reads the weights itself.
struct Called {
    name: String,
    loops: usize,
    reads: bool,
}

fn reads_weights(module: &Module, function: &Function) -> bool {
    function.expressions.iter().any(|(_, expression)| match expression {
        Expression::GlobalVariable(global) => module.global_variables[*global].name.as_deref() == Some("w"),
        _ => false,
    })
}

/// Every call in a block and in what it calls.
fn calls(module: &Module, block: &Block, loops: usize, all: &mut Vec<Called>) {
    for statement in block.iter() {
        match statement {
            Statement::Block(inner) => calls(module, inner, loops, all),
            Statement::If { condition: _, accept, reject } => {
                calls(module, accept, loops, all);
                calls(module, reject, loops, all);
            }
            Statement::Switch { selector: _, cases } => {
                cases.iter().for_each(|case| calls(module, &case.body, loops, all));
            }
            Statement::Loop { body, continuing, break_if: _ } => {
                calls(module, body, loops + 1, all);
                calls(module, continuing, loops + 1, all);
            }
            Statement::Call { function, arguments: _, result: _ } => {
                let function = &module.functions[*function];
                let name = function.name.clone().unwrap_or_default();
                all.push(Called { name, loops, reads: reads_weights(module, function) });
                calls(module, &function.body, loops, all);
            }
            _ => {}
        }
    }
}

/// The loops around the calls of a function, each of them.
fn loops_around(all: &[Called], name: &str) -> Vec<usize> {
    all.iter().filter(|called| called.name == name).map(|called| called.loops).collect()
}

/// A kernel, its features, the loops around a unit of weights, and the rows of weights that it takes at once.
type Form = (&'static str, &'static [&'static str], usize, usize);

const FORMS: &[Form] = &[
    ("linear_vec", &[], 1, 4),
    ("linear_vec", &["NORM", "SUBGROUPS"], 1, 4),
    ("linear_vec", &["DOT4", "NORM"], 1, 4),
    ("linear_vec", &["DOT4", "BYTES"], 1, 4),
    ("linear_vec", &["SUBGROUPS", "OWNED"], 2, 2),
    ("linear_vec", &["SUBGROUPS", "OWNED", "NORM"], 2, 2),
    ("linear_vec", &["SUBGROUPS", "OWNED", "DOT4", "BYTES", "NORM"], 2, 2),
    ("expert_linear", &["STACK"], 1, 4),
    ("expert_linear", &["STACK", "TOGETHER"], 1, 4),
    ("expert_linear", &["STACK", "TOGETHER", "DOT4", "BYTES"], 1, 4),
];

#[test]
fn a_unit_of_weights_is_loaded_once_for_all_rows() {
    let mut n = 0;
    for (dtype, blocks) in WEIGHT_TYPES {
        for (kernel, features, around, at_once) in FORMS.iter().filter(|form| *blocks || !form.1.contains(&"DOT4")) {
            let together = *kernel == "linear_vec" || features.contains(&"TOGETHER");
            for rows in if together { &[1, 2, 4, 8][..] } else { &[1] } {
                let features = [&[*dtype][..], features].concat();
                let consts = [("WG", 64), ("ROWS", *rows), ("MOST", 256)];
                let composed = compose(kernel, &features, &consts, Target::Naga).unwrap();
                let module = naga::front::wgsl::parse_str(&composed.wgsl).unwrap();
                let main = &module.entry_points[0].function;
                let mut all = Vec::new();
                calls(&module, &main.body, 0, &mut all);
                let what = format!("{kernel} {features:?}, {rows} rows");
                assert_eq!(loops_around(&all, "load_unit"), vec![*around; *at_once], "{what}");
                assert!(!reads_weights(&module, main), "{what}: weights are read beside load_unit");
                // The loop over rows is inside, and reads none.
                assert!(all.iter().all(|called| !called.reads || called.loops == *around), "{what}");
                let dots = if features.contains(&"DOT4") { "unit_dot_bytes" } else { "floats_dot" };
                let dots = if *blocks || features.contains(&"OWNED") { dots } else { "vecs_dot" };
                let dots = loops_around(&all, dots);
                assert!(!dots.is_empty() && dots.iter().all(|loops| *loops > *around), "{what}: {dots:?}");
                // With bytes nothing of it is decoded for each row, and with floats only if a subgroup does not own the row.
                let decoded = loops_around(&all, "ints");
                let once = features.contains(&"DOT4") || features.contains(&"OWNED");
                assert!(!once || decoded.iter().all(|loops| loops == around), "{what}: {decoded:?}");
                n += 1;
            }
        }
    }
    assert!(n > 500, "only {n} forms");
}
