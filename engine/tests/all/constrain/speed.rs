//! What a mask costs at 128k tokens, and that texts of the language pass it.

use std::time::{Duration, Instant};

use ir_engine::text::constrain::{Constrainer, Grammar, Vocabulary};
use serde_json::json;

use super::walk::{allows, llama};
use crate::common::exam::Random;
use crate::common::timed;

/// The bound that users see, at the median.
const MEDIAN: Duration = Duration::from_millis(1);

#[test]
fn a_mask_takes_less_than_a_millisecond() {
    let Some(words) = llama() else { return };
    let start = Instant::now();
    Constrainer::new(&Vocabulary::of(&words.tokenizer)).unwrap();
    println!("a constrainer for {} tokens: {:?}", words.tokenizer.n_vocab(), start.elapsed());
    let person = json!({"type": "object", "required": ["name", "age", "email", "tags", "address"], "properties": {
        "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"}, "score": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}},
        "address": {"type": "object", "required": ["street", "city"], "properties": {
            "street": {"type": "string"}, "city": {"type": "string"}, "zip": {"type": "string", "pattern": "^\\d{5}$"}}},
        "role": {"enum": ["admin", "user", "guest"]},
    }});
    let texts = [
        r#"{"name": "Ada Lovelace, countess and programmer", "age": 36, "email": "ada@engine.example", "score": 9.75, "tags": ["mathematics", "poetry", "machines"], "address": {"street": "12 St James's Square", "city": "London", "zip": "12345"}, "role": "admin"}"#,
        "{\n  \"name\": \"é🦀\",\n  \"age\": 7,\n  \"email\": \"x@y.example\",\n  \"tags\": [],\n  \"address\": {\"street\": \"\", \"city\": \"Paris\"}\n}",
    ];
    for (name, grammar) in [("a person", Grammar::JsonSchema(person)), ("any object", Grammar::Json)] {
        let start = Instant::now();
        let compiled = words.compile(&grammar);
        println!("{name}: compiled in {:?}", start.elapsed());
        let (mut times, mut random) = (Vec::new(), Random(8));
        for text in texts {
            let mut constraint = compiled.clone();
            for token in words.tokenizer.encode(text, false, false) {
                let start = Instant::now();
                assert!(allows(constraint.allowed().unwrap(), token), "{text}");
                times.push(start.elapsed());
                constraint.accept(token).unwrap();
            }
            assert!(constraint.is_complete().unwrap());
        }
        let n_texts = times.len();
        let walked = words.walk(compiled.clone(), b" etaoin\"", &mut random);
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!(
            "{name}: {n_texts} masks, median {:?}, p90 {:?}, largest {:?}; a walk of {} bytes",
            at(50),
            at(90),
            at(100),
            walked.len()
        );
        assert!(!timed() || at(50) < MEDIAN, "{name}: {:?}", at(50));
    }
}
