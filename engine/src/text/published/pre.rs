//! A list: which pre-tokenizer of `text/pre.rs` the rules of a `tokenizer.json` are. They are written as regular expressions;
//! each published spelling has a line here.

use serde_json::Value;

use super::unknown_rule;
use crate::error::Result;

/// Contractions, as most write them and as some do.
const CONTRACTIONS: [&str; 2] = ["(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:[sdmt]|ll|ve|re)"];

/// One rule in short: `split EXPRESSION`, `bytes` (byte-level only), `gpt2` (byte-level with its own expression), `digits` and
/// `digit` (runs, or each alone), `punctuation`. An asterisk at the end stands for any rest. With `true`, merges that are whole
/// tokens are taken as they are.
const KNOWN: &[(&[&str], bool, &str)] = &[
    (
        &[
            "split {C}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
            "bytes",
        ],
        true,
        "llama-bpe",
    ),
    (
        &[
            "split {C}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
            "bytes",
        ],
        false,
        "dbrx",
    ),
    (
        &[
            "split {C}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
            "bytes",
        ],
        false,
        "qwen2",
    ),
    (
        &[
            "split {C}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
            "bytes",
        ],
        false,
        "qwen35",
    ),
    (
        &[
            "split {C}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
            "bytes",
        ],
        false,
        "seed-coder",
    ),
    (&["gpt2"], false, "gpt-2"),
    (
        &["split '(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", "bytes"],
        false,
        "gpt-2",
    ),
    (
        &["split 's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", "bytes"],
        false,
        "gpt-2",
    ),
    (&["digit", "gpt2"], false, "starcoder"),
    (&["split \\p{N}", "gpt2"], false, "starcoder"),
    (
        &[
            "split [^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+{C}?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*{C}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
            "bytes",
        ],
        false,
        "gpt-4o",
    ),
    (
        &[
            "split [^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+{C}?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*{C}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
            "bytes",
        ],
        true,
        "granite-embed-multi-97m",
    ),
    (
        &[
            "split [^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
            "bytes",
        ],
        true,
        "tekken",
    ),
    (
        &[
            "split \\p{N}{1,3}",
            "split [一-龥\u{3040}-ゟ゠-ヿ]+",
            "split [!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
            "bytes",
        ],
        false,
        "deepseek-v3",
    ),
    (
        &[
            "split [\\r\\n]",
            "split \\s?\\p{L}+",
            "split \\s?\\p{P}+",
            "split [一-龥ࠀ-一가-\u{d7ff}]+",
            "digit",
            "bytes",
        ],
        false,
        "deepseek-coder",
    ),
    (
        &[
            "split [\\r\\n]",
            "split \\s?[A-Za-zµÀ-ÖØ-öø-ƺ*",
            "split \\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+",
            "split \\s+$",
            "split [一-龥ࠀ-一가-\u{d7ff}]+",
            "digits",
            "bytes",
        ],
        false,
        "deepseek-llm",
    ),
    (&["punctuation", "gpt2", "split [0-9][0-9][0-9]"], false, "falcon"),
    (&["punctuation", "gpt2", "digits", "split [0-9][0-9][0-9]"], false, "default"),
    (&["split  ?[^(\\s|[.,!?…。，、।۔،])]+", "bytes"], false, "bloom"),
];

/// The name of the pre-tokenizer that these rules are.
///
/// # Errors
/// Where no known one has them.
pub(super) fn name(rules: &Value, ignore_merges: bool) -> Result<&'static str> {
    let mut list = Vec::new();
    flatten(rules, &mut list)?;
    let same = |known: &str, rule: &str| {
        CONTRACTIONS.iter().any(|c| {
            let known = known.replace("{C}", c);
            known
                .strip_suffix('*')
                .filter(|_| known.contains("µÀ"))
                .map_or(known == rule, |start| rule.starts_with(start))
        })
    };
    let fits = |known: &&[&str]| known.len() == list.len() && known.iter().zip(&list).all(|(k, rule)| same(k, rule));
    let mut found = KNOWN.iter().filter(|(known, ..)| fits(known));
    let found = match found.clone().find(|(_, ignores, _)| *ignores == ignore_merges) {
        Some(found) => Some(found),
        None => found.next(),
    };
    found.map(|(.., name)| *name).ok_or_else(|| unknown_rule("pre-tokenizer", &list.join(", ")))
}

/// Rules in short, sequences taken apart.
fn flatten(rules: &Value, list: &mut Vec<String>) -> Result<()> {
    let kind = rules.get("type").and_then(Value::as_str).unwrap_or("none");
    let is = |name: &str, absent: bool| rules.get(name).and_then(Value::as_bool).unwrap_or(absent);
    match kind {
        "Sequence" => {
            let inner = rules.get("pretokenizers").and_then(Value::as_array).map_or(&[][..], |a| a);
            return inner.iter().take(16).try_for_each(|rule| flatten(rule, list));
        }
        "Split" => {
            let pattern = rules.get("pattern");
            let regex = pattern.and_then(|p| p.get("Regex")).and_then(Value::as_str);
            let behavior = rules.get("behavior").and_then(Value::as_str).unwrap_or("");
            match regex.filter(|_| behavior == "Isolated" || behavior == "Removed" && is("invert", false)) {
                Some(regex) => list.push(format!("split {regex}")),
                None => return Err(unknown_rule("pre-tokenizer", &rules.to_string())),
            }
        }
        "ByteLevel" if is("add_prefix_space", false) => {
            return Err(unknown_rule("pre-tokenizer", "ByteLevel with a space"));
        }
        "ByteLevel" => list.push(if is("use_regex", true) { "gpt2" } else { "bytes" }.into()),
        "Digits" => list.push(if is("individual_digits", false) { "digit" } else { "digits" }.into()),
        "Punctuation" => list.push("punctuation".into()),
        other => return Err(unknown_rule("pre-tokenizer", other)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_and_rules_are_recognised() {
        for (.., name) in KNOWN {
            assert!(crate::text::Tokenizer::known_pre().any(|n| n == *name), "{name}");
        }
        let rules = |json: &str| name(&serde_json::from_str(json).unwrap(), false);
        assert_eq!(rules(r#"{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}"#).unwrap(), "gpt-2");
        let digits = r#"{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},
            {"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]}"#;
        assert_eq!(rules(digits).unwrap(), "starcoder");
        let odd = r#"{"type":"Split","pattern":{"Regex":"x+"},"behavior":"Isolated","invert":false}"#;
        assert!(rules(odd).unwrap_err().to_string().contains("split x+"));
        assert!(rules("null").is_err() && rules(r#"{"type":"Whatever"}"#).is_err());
    }
}
