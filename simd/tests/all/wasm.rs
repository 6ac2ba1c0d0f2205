//! The products and conversions of WebAssembly's tables by themselves.

use ir_simd::exam::wasm;

#[test]
fn all_forms_give_the_exact_sums() {
    wasm::all_forms_give_the_exact_sums();
}

#[test]
fn halves_convert_as_the_library_does() {
    wasm::halves_convert_as_the_library_does();
}
