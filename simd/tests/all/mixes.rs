//! Which types a mix gives a model's parts.

use ir_simd::quant::DType::*;
use ir_simd::quant::mixes::{Facts, Mix, Part, choose, fitting, is_rounded};

#[test]
fn names_are_found_in_either_case_and_alone() {
    assert_eq!(Mix::of("q4_k_m").unwrap().name, "Q4_K_M");
    assert_eq!(Mix::of("q4_k").unwrap().name, "Q4_K_M");
    assert_eq!(Mix::of("Q2_K").unwrap().name, "Q2_K");
    assert_eq!(Mix::of("Q9"), None);
}

#[test]
fn a_mix_gives_more_bits_where_llama_cpp_does() {
    let facts = Facts { n_layers: 32, queries_per_key: 4, n_values: 32, ..Facts::default() };
    let mix = Mix::of("Q4_K_M").unwrap();
    let down: Vec<usize> = (0..32).filter(|i| choose(mix, &facts, Part::Down, *i, 4096, false) == Q6_K).collect();
    assert_eq!(down, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
    assert_eq!(choose(mix, &facts, Part::Head, 0, 4096, false), Q6_K);
    assert_eq!(choose(mix, &facts, Part::Tokens, 0, 4096, false), Q4_K);
    assert_eq!(choose(mix, &facts, Part::Other, 0, 4096, false), Q4_K);
    assert_eq!((fitting(Q4_K, 288), fitting(Q6_K, 288), fitting(Q3_K, 16)), (Q5_0, Q8_0, F16));
    assert!(is_rounded("blk.0.attn_q.weight", 2) && !is_rounded("blk.0.ffn_gate_inp.weight", 2));
    assert!(!is_rounded("blk.0.attn_norm.weight", 1) && !is_rounded("blk.0.attn_q.bias", 2));
}
