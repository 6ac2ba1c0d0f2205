//! The probe passes every table of this machine, and none whose sums are off by one.

use ir_simd::quant::DType;
use ir_simd::{SCALAR, Table, TypeKernels, available, index, is_exact};

#[test]
fn the_probe_tells_right_from_wrong() {
    for table in available() {
        assert!(is_exact(table), "{}", table.name);
    }
    let off = TypeKernels {
        dots_q8: |w, x, out| {
            (SCALAR.of(DType::Q8_0).dots_q8)(w, x, out);
            out[x.len() - 1] += 1.0;
        },
        ..*SCALAR.of(DType::Q8_0)
    };
    let mut types = SCALAR.types;
    types[index(DType::Q8_0)] = off;
    assert!(!is_exact(&Table { types, ..*SCALAR }));
}
