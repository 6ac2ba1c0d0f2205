//! From the files to a [`Vocabulary`]: which kind of tokenizer they are, and what their normalisers and post-processors ask.

use std::collections::HashMap;

use serde_json::Value;

use super::json::{self, Added, Json, Merge};
use super::{Around, BYTE, NORMAL, Published, Vocabulary, pieces, pre, unknown_rule};
use crate::error::{Error, Result};
use crate::text::spm::SPACE_MARK;

/// The vocabulary of the files, if there is one.
pub(super) fn vocabulary(files: &Published) -> Result<Option<Vocabulary>> {
    let Some(bytes) = &files.json else {
        return match (&files.model, &files.words) {
            (Some(model), _) => {
                let mut read = pieces::vocabulary(model)?;
                // What is asked for counts more than what the model was trained with.
                if let Some(space) = files.config.get("add_prefix_space").and_then(Value::as_bool) {
                    read.space_prefix = Some(space);
                }
                Ok(Some(read))
            }
            (None, Some(words)) => words_alone(words, &files.config).map(Some),
            (None, None) => Ok(None),
        };
    };
    let json = json::parse(bytes)?;
    let kind = json.model.kind.as_deref().unwrap_or(if json.model.merges.is_empty() { "WordPiece" } else { "BPE" });
    let mut vocabulary = match kind {
        "BPE" if json.model.byte_fallback == Some(true) || !is_byte_level(&json.pre_tokenizer) => match &files.model {
            Some(model) => pieces::vocabulary(model)?,
            None => by_characters(&json)?,
        },
        "BPE" => by_bytes(&json)?,
        "WordPiece" => words(&json)?,
        "Unigram" => unigram(&json)?,
        other => return Err(unknown_rule("model", other)),
    };
    vocabulary.around = around(&json.post_processor, &json)?;
    Ok(Some(vocabulary))
}

/// Tokens that are added to the vocabulary, in whichever file they are.
pub(super) fn added(files: &Published) -> Result<Vec<Added>> {
    let mut all = Vec::new();
    if let Some(map) = files.added.as_object() {
        let of =
            |(text, id): (&String, &Value)| Some(Added { id: id.as_u64()?, content: text.clone(), special: false });
        all.extend(map.iter().filter_map(of));
    }
    if let Some(map) = files.config.get("added_tokens_decoder").and_then(Value::as_object) {
        let of = |(id, token): (&String, &Value)| {
            let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            Some(Added { id: id.parse().ok()?, content: token.get("content")?.as_str()?.to_owned(), special })
        };
        all.extend(map.iter().filter_map(of));
    }
    if let Some(bytes) = &files.json {
        all.extend(json::parse(bytes)?.added_tokens);
    }
    Ok(all)
}

fn is_byte_level(rules: &Value) -> bool {
    let inner = || rules.get("pretokenizers").and_then(Value::as_array);
    rules.get("type").and_then(Value::as_str) == Some("ByteLevel")
        || inner().is_some_and(|all| all.iter().any(is_byte_level))
}

/// Types of normalisers, sequences taken apart.
fn normalizers(rules: &Value) -> Vec<(&str, &Value)> {
    match (rules.get("type").and_then(Value::as_str), rules.get("normalizers").and_then(Value::as_array)) {
        (Some("Sequence"), Some(inner)) => inner.iter().take(64).flat_map(normalizers).collect(),
        (Some(kind), _) => vec![(kind, rules)],
        _ => Vec::new(),
    }
}

fn with_ids(json: &Json<'_>, mut text: impl FnMut(&str) -> Vec<u8>, kind: impl Fn(&str) -> i32) -> Result<Vocabulary> {
    let mut vocabulary = Vocabulary::default();
    let n = json.model.vocab.ids.len() + json.added_tokens.len();
    if json.model.vocab.ids.is_empty() {
        return Err(Error::format("tokenizer.json holds no vocabulary"));
    }
    for (token, id) in &json.model.vocab.ids {
        vocabulary.set(*id, &text(token), kind(token), n)?;
    }
    vocabulary.unknown = json.model.unk_token.as_ref().and_then(|unk| {
        let found = json.model.vocab.ids.iter().find(|(t, _)| t == unk);
        found.and_then(|(_, id)| u32::try_from(*id).ok())
    });
    Ok(vocabulary)
}

/// Byte-level pairs.
fn by_bytes(json: &Json<'_>) -> Result<Vocabulary> {
    let model = &json.model;
    for (kind, _) in normalizers(&json.normalizer) {
        // Texts are taken as they come; those that people type are composed already.
        if kind != "NFC" {
            return Err(unknown_rule("normaliser", kind));
        }
    }
    let affix =
        [&model.continuing_subword_prefix, &model.end_of_word_suffix].into_iter().flatten().any(|a| !a.is_empty());
    if affix {
        return Err(unknown_rule("model", "BPE with marks inside words"));
    }
    let mut vocabulary = with_ids(json, |text| text.as_bytes().to_vec(), |_| NORMAL)?;
    vocabulary.model = "gpt2";
    vocabulary.pre = Some(pre::name(&json.pre_tokenizer, model.ignore_merges == Some(true))?);
    let sides = model.merges.iter().filter_map(Merge::sides);
    vocabulary.merges = Some(sides.map(|(left, right)| format!("{left} {right}")).collect());
    Ok(vocabulary)
}

/// Pairs of characters with `▁` for a space, and bytes for what has no token. SentencePiece's scores stand for the ranks.
fn by_characters(json: &Json<'_>) -> Result<Vocabulary> {
    let mut space_prefix = false;
    for (kind, rule) in normalizers(&json.normalizer) {
        let text = |name: &str| rule.get(name).and_then(Value::as_str);
        let pattern = rule.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str);
        match kind {
            "Prepend" if text("prepend") == Some(SPACE_MARK) => space_prefix = true,
            "Replace" if pattern == Some(" ") && text("content") == Some(SPACE_MARK) => {}
            other => return Err(unknown_rule("normaliser", other)),
        }
    }
    match json.pre_tokenizer.get("type").and_then(Value::as_str) {
        // Gemma's cuts at spaces, which the normaliser has replaced.
        None | Some("Split") => {}
        Some("Metaspace") => {
            let scheme = json.pre_tokenizer.get("prepend_scheme").and_then(Value::as_str);
            let old = json.pre_tokenizer.get("add_prefix_space").and_then(Value::as_bool);
            space_prefix = scheme.map_or(old.unwrap_or(true), |scheme| scheme != "never");
        }
        Some(other) => return Err(unknown_rule("pre-tokenizer", other)),
    }
    let is_byte = |t: &str| t.len() == 6 && t.starts_with("<0x") && t.ends_with('>');
    let kind = |text: &str| if is_byte(text) { BYTE } else { NORMAL };
    let mut vocabulary = with_ids(json, |text| text.as_bytes().to_vec(), kind)?;
    vocabulary.model = "llama";
    vocabulary.pre = Some("default");
    vocabulary.space_prefix = Some(space_prefix);
    let mut ranks: HashMap<Vec<u8>, usize> = HashMap::with_capacity(json.model.merges.len());
    for (rank, merge) in json.model.merges.iter().enumerate() {
        if let Some((left, right)) = merge.sides() {
            ranks.entry([left.as_bytes(), right.as_bytes()].concat()).or_insert(rank);
        }
    }
    let last = ranks.len() as f32 + 1.0;
    let score = |token: &Vec<u8>| ranks.get(token).map_or(-last, |rank| -(*rank as f32));
    vocabulary.scores = Some(vocabulary.tokens.iter().map(score).collect());
    Ok(vocabulary)
}

/// A token of WordPiece as GGUF spells it: `▁` before what starts a word, nothing before what goes on.
fn word(token: &str, prefix: &str) -> Vec<u8> {
    match token.strip_prefix(prefix) {
        Some(rest) => rest.as_bytes().to_vec(),
        None if token.starts_with('[') && token.ends_with(']') => token.as_bytes().to_vec(),
        None => [SPACE_MARK, token].concat().into_bytes(),
    }
}

/// WordPiece.
fn words(json: &Json<'_>) -> Result<Vocabulary> {
    let prefix = json.model.continuing_subword_prefix.as_deref().unwrap_or("##");
    let mut vocabulary = with_ids(json, |text| word(text, prefix), |_| NORMAL)?;
    vocabulary.model = "bert";
    let (mut lowercase, mut strip_accents) = (false, None);
    for (kind, rule) in normalizers(&json.normalizer) {
        let flag = |name: &str| rule.get(name).and_then(Value::as_bool);
        match kind {
            "BertNormalizer" => {
                lowercase = flag("lowercase").unwrap_or(true);
                strip_accents = flag("strip_accents");
            }
            "Lowercase" => lowercase = true,
            "StripAccents" => strip_accents = Some(true),
            "NFC" | "NFD" | "NFKC" | "NFKD" => {}
            other => return Err(unknown_rule("normaliser", other)),
        }
    }
    (vocabulary.lowercase, vocabulary.strip_accents) = (Some(lowercase), strip_accents);
    Ok(vocabulary)
}

/// WordPiece of a `vocab.txt`.
fn words_alone(bytes: &[u8], config: &Value) -> Result<Vocabulary> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::format("vocab.txt is no text"))?;
    let mut vocabulary = Vocabulary { model: "bert", ..Vocabulary::default() };
    let lines: Vec<&str> = text.lines().collect();
    for (id, line) in lines.iter().enumerate() {
        let control = line.starts_with('[') && line.ends_with(']') && !line.starts_with("[unused");
        let kind = if control { super::CONTROL } else { NORMAL };
        vocabulary.set(id as u64, &word(line, "##"), kind, lines.len())?;
    }
    vocabulary.lowercase = Some(config.get("do_lower_case").and_then(Value::as_bool).unwrap_or(true));
    vocabulary.strip_accents = config.get("strip_accents").and_then(Value::as_bool);
    let ids = |texts: &[&str]| texts.iter().filter_map(|t| vocabulary.id(t)).collect();
    vocabulary.around = Some(Around { before: ids(&["[CLS]"]), after: ids(&["[SEP]"]), apart: false });
    vocabulary.unknown = vocabulary.id("[UNK]");
    Ok(vocabulary)
}

/// Unigram: the likeliest cut by scores.
fn unigram(json: &Json<'_>) -> Result<Vocabulary> {
    if json.model.vocab.scored.is_empty() {
        return Err(Error::format("tokenizer.json holds no vocabulary"));
    }
    let mut vocabulary = Vocabulary { model: "t5", pre: Some("default"), ..Vocabulary::default() };
    vocabulary.tokens = json.model.vocab.scored.iter().map(|(text, _)| text.as_bytes().to_vec()).collect();
    vocabulary.types = vec![NORMAL; vocabulary.tokens.len()];
    vocabulary.scores = Some(json.model.vocab.scored.iter().map(|(_, score)| *score as f32).collect());
    vocabulary.unknown = json.model.unk_id.and_then(|id| u32::try_from(id).ok());
    vocabulary.unknown = vocabulary.unknown.filter(|id| (*id as usize) < vocabulary.tokens.len());
    (vocabulary.space_prefix, vocabulary.squeeze_spaces) = (Some(true), true);
    for (kind, rule) in normalizers(&json.normalizer) {
        match kind {
            "Precompiled" => {
                let map = rule.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or("");
                vocabulary.charsmap = base64(map).ok_or_else(|| Error::format("the map of characters is no base64"))?;
            }
            // Runs of spaces made one, which the model's own rule says too.
            "Replace" | "Strip" => {}
            other => return Err(unknown_rule("normaliser", other)),
        }
    }
    Ok(vocabulary)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let value = |c: u8| {
        Some(match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0u32;
        for c in chunk {
            bits = bits << 6 | u32::from(value(*c)?);
        }
        let n = chunk.len();
        let bytes = (bits << (6 * (4 - n))).to_be_bytes();
        out.extend(&bytes[1..n]);
    }
    Some(out)
}

/// What a post-processor puts around a text; `None` if the file has none.
fn around(rules: &Value, json: &Json<'_>) -> Result<Option<Around>> {
    let id_of = |text: &str| {
        let added = json.added_tokens.iter().find(|t| t.content == text).map(|t| t.id);
        let known = || json.model.vocab.ids.iter().find(|(t, _)| t == text).map(|(_, id)| *id);
        let scored = || json.model.vocab.scored.iter().position(|(t, _)| t == text).map(|i| i as u64);
        let id = added.or_else(known).or_else(scored).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Error::format("tokenizer.json puts a token around texts that it does not have"))
    };
    match rules.get("type").and_then(Value::as_str) {
        None => Ok(None),
        // Changes no ids.
        Some("ByteLevel") => Ok(Some(Around::default())),
        Some("Sequence") => {
            let inner = rules.get("processors").and_then(Value::as_array).map_or(&[][..], |a| a);
            let mut all = Around::default();
            for rule in inner.iter().take(16).filter(|r| r.get("type").and_then(Value::as_str) != Some("Sequence")) {
                let one = around(rule, json)?.unwrap_or_default();
                all.before.splice(0..0, one.before);
                all.after.extend(one.after);
                all.apart |= one.apart;
            }
            Ok(Some(all))
        }
        Some("BertProcessing" | "RobertaProcessing") => {
            let of = |name: &str| match rules.get(name).and_then(|pair| pair.get(0)).and_then(Value::as_str) {
                Some(text) => id_of(text).map(|id| vec![id]),
                None => Ok(Vec::new()),
            };
            let apart = rules.get("type").and_then(Value::as_str) == Some("RobertaProcessing");
            Ok(Some(Around { before: of("cls")?, after: of("sep")?, apart }))
        }
        Some("TemplateProcessing") => {
            let (mut all, mut behind) = (Around::default(), false);
            for part in rules.get("single").and_then(Value::as_array).map_or(&[][..], |a| a).iter().take(16) {
                let Some(token) = part.get("SpecialToken").and_then(|t| t.get("id")).and_then(Value::as_str) else {
                    behind = true;
                    continue;
                };
                let id = id_of(token)?;
                if behind { all.after.push(id) } else { all.before.push(id) }
            }
            all.apart = between(rules) > all.after.len();
            Ok(Some(all))
        }
        Some(other) => Err(unknown_rule("post-processor", other)),
    }
}

/// How many tokens a template puts between the texts of a pair.
fn between(rules: &Value) -> usize {
    let parts = rules.get("pair").and_then(Value::as_array).map_or(&[][..], |a| a).iter().take(16);
    let is_text = |part: &&Value| part.get("Sequence").is_some();
    parts.skip_while(|part| !is_text(part)).skip(1).take_while(|part| !is_text(part)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(base64("aGVsbG8=").unwrap(), b"hello");
        assert_eq!(base64("aGVsbG8h").unwrap(), b"hello!");
        assert_eq!(base64("AA==").unwrap(), [0]);
        assert!(base64("a b=").is_none());
    }
}
