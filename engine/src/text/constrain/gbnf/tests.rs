//! Tests of the translation of GBNF: what becomes a terminal. What the grammars accept is tested with a vocabulary, in
//! `tests/all/constrain`.

use super::to_lark;

/// The rules of the translation, without those of runs.
fn lark(text: &str) -> String {
    to_lark(text).unwrap()
}

#[test]
fn regular_rules_are_terminals_and_recursive_ones_are_not() {
    assert_eq!(lark("root ::= \"a\" b\nb ::= [0-9]+"), "start: T0\nT0: /(?:a)/ T1\nT1: /[0-9]/+\n");
    let nested = lark("root ::= \"(\" root \")\" | \"x\"");
    assert_eq!(nested, "start: r0\nr0: X0 r0 X1 | X2\nX0: /(?:\\x{28})/\nX1: /(?:\\x{29})/\nX2: /(?:x)/\n");
}

#[test]
fn recursion_at_the_end_is_repetition() {
    assert!(lark("root ::= ws\nws ::= ([ \\t] ws)?").contains("T1: ("), "{}", lark("root ::= ws\nws ::= ([ \\t] ws)?"));
    assert!(lark("root ::= \"a\" root | \"b\"").starts_with("start: T0\n"));
    assert!(lark("root ::= root \"a\" | \"b\"").starts_with("start: r0\n"), "at its beginning it stays a rule");
}

#[test]
fn a_token_makes_its_rule_no_terminal() {
    let text = lark("root ::= <think> rest\nrest ::= !<[7]>* \"x\"");
    assert!(text.starts_with("start: r0\nr0: <think> r1\n") && text.contains("<[^7]>*"), "{text}");
}
