//! A list: what models that make embeddings want in front of a text, by the use that is made of it. No file says it, so it goes
//! by the names that files have. It is shown and never put in front of anything.

use crate::meta::Meta;

/// A use of a text, and what the model's authors put in front of it.
pub type Prefix = (&'static str, &'static str);

const SENTENCE: &str = "Represent this sentence for searching relevant passages: ";
const NOMIC: &[Prefix] = &[
    ("query", "search_query: "),
    ("document", "search_document: "),
    ("clustering", "clustering: "),
    ("classification", "classification: "),
];

/// Names (architecture, or a part of the model's name in lower case), and what is wanted.
const PREFIXES: &[(&str, &[Prefix])] = &[
    ("nomic-bert", NOMIC),
    ("nomic-embed", NOMIC),
    ("modernbert-embed", NOMIC),
    ("gemma-embedding", &[("query", "task: search result | query: "), ("document", "title: none | text: ")]),
    ("embeddinggemma", &[("query", "task: search result | query: "), ("document", "title: none | text: ")]),
    ("qwen3-embedding", &[("query", "Instruct: {the task}\nQuery:")]),
    ("e5-large-instruct", &[("query", "Instruct: {the task}\nQuery: ")]),
    ("e5-mistral", &[("query", "Instruct: {the task}\nQuery: ")]),
    ("e5-", &[("query", "query: "), ("document", "passage: ")]),
    ("mxbai-embed", &[("query", SENTENCE)]),
    ("arctic-embed-m-v2", &[("query", "query: ")]),
    ("arctic-embed-l-v2", &[("query", "query: ")]),
    ("arctic-embed", &[("query", SENTENCE)]),
    ("bge-small-en", &[("query", SENTENCE)]),
    ("bge-base-en", &[("query", SENTENCE)]),
    ("bge-large-en", &[("query", SENTENCE)]),
];

/// What a model wants in front of texts, as far as its file's names tell.
pub fn task_prefixes(meta: &Meta) -> &'static [Prefix] {
    let text =
        |key: &str| meta.get(key).and_then(|v| v.as_str()).unwrap_or("").to_ascii_lowercase().replace([' ', '_'], "-");
    let names = ["general.name", "general.basename"].map(text);
    let arch = text("general.architecture");
    let fits = |name: &str| arch == name || arch == format!("{name}-moe") || names.iter().any(|n| n.contains(name));
    PREFIXES.iter().find(|(name, _)| fits(name)).map_or(&[], |(_, prefixes)| prefixes)
}

#[cfg(test)]
mod tests {
    use super::task_prefixes;
    use crate::meta::MetaBuilder;

    #[test]
    fn names_tell_what_is_wanted() {
        let of = |arch: &str, name: &str| {
            let meta = MetaBuilder::new().str("general.architecture", arch).str("general.name", name).build();
            task_prefixes(&meta).first().map(|(_, prefix)| *prefix)
        };
        assert_eq!(of("nomic-bert", "x"), Some("search_query: "));
        assert_eq!(of("bert", "Multilingual E5 Large Instruct"), Some("Instruct: {the task}\nQuery: "));
        assert_eq!(of("bert", "multilingual-e5-small"), Some("query: "));
        assert_eq!(of("bert", "bge-m3"), None);
        assert_eq!(of("llama", "Llama 3"), None);
    }
}
