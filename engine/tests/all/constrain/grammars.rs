//! Regular expressions, Lark and GBNF: what they accept, and what is said of malformed ones.

use ir_engine::text::Tokenizer;
use ir_engine::text::constrain::{Constrainer, Grammar, Vocabulary};

use super::walk::{allows, made, tiny};
use crate::common::exam::Random;

fn regex(text: &str) -> Grammar {
    Grammar::Regex(text.into())
}

fn gbnf(text: &str) -> Grammar {
    Grammar::Gbnf(text.into())
}

/// Texts that a grammar accepts, and texts that it does not.
fn check(grammar: &Grammar, good: &[&str], bad: &[&str]) {
    for text in good {
        assert!(tiny().accepts(grammar, text), "{grammar:?} should accept {text:?}");
    }
    for text in bad {
        assert!(!tiny().accepts(grammar, text), "{grammar:?} should not accept {text:?}");
    }
}

#[test]
fn regular_expressions() {
    check(&regex("(yes|no)"), &["yes", "no"], &["ye", "yesno", "", "Yes"]);
    check(&regex("^[a-z]+@[a-z]+\\.com$"), &["a@b.com"], &["a@b,com", "a@b.comx"]);
    check(&regex("\\d{4}/\\d{2}"), &["2026/11"], &["2026-11", "٢٠٢٦/١١"]);
    check(&regex("a\\$"), &["a$"], &["a", "a\\"]);
    check(&regex(""), &[""], &["a"]);
    check(&regex("(?i)stop"), &["StOp"], &["stap"]);
    check(&regex("[^x]*"), &["", "é\n🦀"], &["x"]);
}

#[test]
fn lark() {
    let sum = Grammar::Lark("start: term (\"+\" term)*\nterm: NUMBER | \"(\" start \")\"\nNUMBER: /[0-9]+/\n".into());
    check(&sum, &["1", "1+2", "(1+(2))+33"], &["", "1+", "(1", "1 + 2", "a"]);
}

/// llama.cpp's own grammars of arithmetic, lists and JSON, and every form that its syntax has.
#[test]
fn gbnf_accepts_what_llama_cpp_does() {
    let arithmetic = gbnf(
        "root  ::= (expr \"=\" ws term \"\\n\")+\nexpr  ::= term ([-+*/] term)*\n\
         term  ::= ident | num | \"(\" ws expr \")\" ws\nident ::= [a-z] [a-z0-9_]* ws\nnum   ::= [0-9]+ ws\nws    ::= [ \\t\\n]*\n",
    );
    let good = ["1+2=3\n", "1 +2 = 3 \n", "a *( b+1) = c\n1=1\n", "a=b\n \n\nc=d\n\n"];
    check(&arithmetic, &good, &["1+2", "1+=2\n", "(1=2\n", "a = 1", "a=b\nc"]);
    let list =
        gbnf("# a list\nroot ::= item+\n# an item\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ \"\\n\"\n");
    check(&list, &["- a\n", "- a b\n- é\n"], &["a\n", "- a", "- \n"]);
    let json = gbnf(
        r#"root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#,
    );
    let good = ["{}", "{ \"a\": [1, -2.5e3, {\"b\": \"\\u00e9\\n\"}], \"c\": null }", "{\n  \"a\": true\n}\n"];
    check(&json, &good, &["[1]", "{\"a\" 1}", "{\"a\": 01}", "{\"a\": \"\n\"}", "{\"a\": 1,}"]);
    let old = gbnf("root ::= ws \"x\" ws\nws ::= ([ \\t\\n] ws)?\n");
    check(&old, &["x", " \n\tx  "], &["", " ", "xx"]);
    check(
        &gbnf("root ::= [a-z]{2} [0-9]{1,3} \"!\"{2,} .{0,2}"),
        &["ab1!!", "ab123!!!é\n"],
        &["a1!!", "ab1234!!", "ab1!"],
    );
    check(
        &gbnf("root ::= \"\\x41\\u00e9\\U0001F980\\t\\\\\\\"\" [\\]\\[\\-x]"),
        &["Aé🦀\t\\\"]", "Aé🦀\t\\\"-"],
        &["Aé🦀\t\\\"y"],
    );
    check(&gbnf("root ::= \"a\" |\n  \"b\" | (\"c\"\n \"d\")"), &["a", "b", "cd"], &["c", "ab"]);
    check(
        &gbnf("root ::= a+ b?\na ::= \"x\" | \"(\" a* \")\"\nb ::= \"y\"{0} \"z\""),
        &["x", "(x())xz"],
        &["", "(x", "xy"],
    );
    check(&gbnf("root ::= left \"!\"\nleft ::= left \"a\" | \"b\""), &["b!", "baa!"], &["a!", "b"]);
    check(
        &gbnf("root ::= item tail\nitem ::= [0-9]+\ntail ::= \",\" item tail | \";\""),
        &["1;", "1,22,3;"],
        &["1", "1,;"],
    );
    check(&gbnf("root ::= [^]"), &["é"], &["ab"]);
    // What a terminal could go on with follows it, however deep.
    check(&gbnf("root ::= words \" end\"\nwords ::= [a-z ]+"), &["a end", "end end end"], &["end", "a  endx"]);
    let nested = "root ::= (list \";\")+\nlist ::= word (\",\" word)*\nword ::= \"(\" list \")\" | [a-z;]+ tail{0,2}\ntail ::= \"!\" [;,]*";
    check(&gbnf(nested), &["a;", "a;;", "a,b!;;c;", "(a!,!;);"], &["a", ";", "a!!!;"]);
}

#[test]
fn gbnf_walks_end_where_the_grammar_ends() {
    let nested = gbnf("root ::= \"(\" root* \")\" | [a-z]+ \".\"");
    let mut random = Random(11);
    for _ in 0..20 {
        let text = tiny().walk(tiny().compile(&nested), b"(ab", &mut random);
        assert!(tiny().accepts(&nested, std::str::from_utf8(&text).unwrap()), "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn faults_name_their_line() {
    let cases = [
        ("root ::= \"a\"\nroot ::= \"b\"", "line 2: the rule \"root\" is defined twice"),
        ("root ::= a", "line 1: the rule \"a\" is used and not defined"),
        ("a ::= \"x\"", "no rule named root"),
        ("root ::= \"a", "line 1: a text ends with \""),
        ("root ::= [a", "line 1: a class of characters ends with ]"),
        ("# c\n\nroot ::= (\"a\"", "line 3: a parenthesis is not closed"),
        ("root ::= \"a\" )", "line 1: ')' stands where a rule should end"),
        ("root ::= \"\\q\"", "line 1: the escape \\q is not known"),
        ("root ::= \"\\x4\"", "line 1: \\x takes 2 hexadecimal digits"),
        ("root ::= \"\\uD800\"", "line 1: \\uD800 is no character"),
        ("root ::= *", "line 1: there is nothing to repeat"),
        ("root ::= \"a\"{3,2}", "below its first"),
        ("root ::= \"a\"{9999999999}", "counts to"),
        ("root ::= [z-a]", "is empty"),
        ("root = \"a\"", "line 1: \"::=\" should follow"),
        ("", "no rule named root"),
    ];
    for (text, expected) in cases {
        let error = tiny().constrainer.compile(&gbnf(text)).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{text:?}: {error}");
    }
    let lark = |text: &str| tiny().constrainer.compile(&Grammar::Lark(text.into())).unwrap_err().to_string();
    for (text, expected) in [
        ("start: \"a\"\nb: (\"c\"\n", "line 2"),
        ("b: \"c\"\n", "start"),
        ("start: missing\n", "missing"),
        ("start: /(/\n", "unclosed group"),
        ("start: <|no-such-token|>\n", "no-such-token"),
    ] {
        let error = lark(text);
        assert!(error.contains(expected) && !error.contains('\n'), "{text:?}: {error}");
    }
    let error = tiny().constrainer.compile(&regex("a(b")).unwrap_err().to_string();
    assert!(error.contains("unclosed group") && !error.contains('\n'), "{error}");
}

#[test]
fn control_tokens_match_no_text_and_ends_only_where_the_text_may_end() {
    let tokenizer: Tokenizer = made(&[("<|x|>", 3), ("<tag>", 4), ("abc", 1), ("abc", 1)]);
    let (control, user, end) = (256, 257, 260);
    let constrainer = Constrainer::new(&Vocabulary::of(&tokenizer)).unwrap();
    let mut any = constrainer.compile(&regex("[^!]{2,}!?")).unwrap();
    let bits = any.allowed().unwrap().to_vec();
    assert!(!allows(&bits, control) && !allows(&bits, end) && allows(&bits, user));
    assert!(allows(&bits, 258) && allows(&bits, 259), "both tokens of one text");
    assert!(!allows(&bits, 0xFF) && !allows(&bits, u32::from(b'!')));
    any.accept(258).unwrap();
    assert!(any.is_complete().unwrap() && !any.is_done() && allows(any.allowed().unwrap(), end));
    let fork = any.clone();
    any.accept(u32::from(b'!')).unwrap();
    assert!(any.is_done() && !fork.is_done());
    let mut marks = constrainer.compile(&gbnf("root ::= <|x|> \"a\" <[257]> !<[257]>")).unwrap();
    for token in [control, u32::from(b'a'), user] {
        assert!(allows(marks.allowed().unwrap(), token));
        marks.accept(token).unwrap();
    }
    assert!(!allows(marks.allowed().unwrap(), user) && allows(marks.allowed().unwrap(), 5));
    assert!(marks.accept(user).is_err(), "a token that may not come");
    assert!(marks.allowed().is_err(), "and then nothing can");
}
