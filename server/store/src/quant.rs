//! Which files of a repository make the model that is meant: a quantisation's file or its parts, a file by its name, or
//! the files of a safetensors model.

use crate::error::{Error, Kind, Result};

/// What is taken where no quantisation is named, best first.
const PREFERRED: [&str; 26] = [
    "Q4_K_M", "Q4_K_S", "Q4_K_L", "Q4_K_XL", "Q4_K", "Q4_0", "Q4_1", "Q5_K_M", "Q5_K_S", "Q5_K", "Q5_0", "Q5_1",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q3_K", "Q6_K", "Q8_0", "Q2_K", "F16", "BF16", "F32", "IQ4_XS", "IQ4_NL", "MXFP4",
    "IQ3_M",
];

/// Files of a safetensors model beside the weights.
const COMPANIONS: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

/// What a repository's files give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A GGUF file, or the parts of one in order.
    Gguf(Vec<String>),
    /// A folder of safetensors.
    Safetensors(Vec<String>),
}

/// A GGUF model of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// The path without `.gguf` and without a part's number.
    pub(crate) stem: String,
    /// The files in order.
    pub(crate) files: Vec<String>,
    /// How many there should be.
    count: usize,
}

/// Splits `NAME-00001-of-00003` into the name, the number and the count.
pub(crate) fn part_of(stem: &str) -> Option<(&str, usize, usize)> {
    let number = |text: &str| (text.len() == 5).then(|| text.parse::<usize>().ok()).flatten();
    let (front, count) = stem.rsplit_once("-of-")?;
    let (name, no) = front.rsplit_once('-')?;
    Some((name, number(no)?, number(count)?))
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a file's path in a repository or folder can be used at all.
pub(crate) fn is_plain(path: &str) -> bool {
    let part =
        |p: &str| !p.is_empty() && p != "." && p != ".." && !p.ends_with(['.', ' ']) && !crate::name::is_device(p);
    path.len() <= 512 && !path.chars().any(|c| c.is_control() || "\\:*?\"<>|".contains(c)) && path.split('/').all(part)
}

fn is_gguf(path: &str) -> bool {
    path.len() > 5 && path.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a GGUF file is the part of a model that sees: kept aside.
pub(crate) fn is_projector(path: &str) -> bool {
    is_gguf(path) && base(path).to_ascii_lowercase().contains("mmproj")
}

/// The GGUF models among these files.
pub(crate) fn groups(files: &[&str]) -> Vec<Group> {
    let mut all: Vec<Group> = Vec::new();
    let mut sorted: Vec<&str> = files.iter().copied().filter(|f| is_gguf(f)).collect();
    sorted.sort_unstable();
    for path in sorted {
        if is_projector(path) || base(path).to_ascii_lowercase().contains("imatrix") {
            continue;
        }
        let stem = &path[..path.len() - 5];
        let (name, no, count) = part_of(stem).unwrap_or((stem, 1, 1));
        match all.iter_mut().find(|g| g.stem == name && g.count == count && count > 1) {
            Some(group) if group.files.len() + 1 == no => group.files.push(path.to_owned()),
            Some(_) => {}
            None => all.push(Group { stem: name.to_owned(), files: vec![path.to_owned()], count }),
        }
    }
    all
}

impl Group {
    /// The quantisation as its name writes it, or the name itself.
    pub(crate) fn label(&self) -> String {
        let found = PREFERRED.iter().filter(|q| self.has(q)).max_by_key(|q| q.len());
        found.map_or_else(|| base(&self.stem).to_owned(), |q| (*q).to_owned())
    }

    /// Whether the name holds this word, not as a part of a longer one.
    fn has(&self, word: &str) -> bool {
        let (stem, word) = (self.stem.to_ascii_uppercase(), word.to_ascii_uppercase());
        stem.match_indices(&word).any(|(at, _)| {
            let before = stem[..at].chars().next_back();
            let after = stem[at + word.len()..].chars().next();
            !before.is_some_and(|c| c.is_ascii_alphanumeric())
                && !after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        })
    }

    fn whole(self) -> Result<Choice> {
        if self.files.len() == self.count && part_of(&self.files[0][..self.files[0].len() - 5]).is_none_or(|p| p.1 == 1)
        {
            return Ok(Choice::Gguf(self.files));
        }
        Err(Error::corrupt(format!(
            "{} is split into {} parts, of which not all are there: it cannot be used",
            base(&self.stem),
            self.count
        )))
    }
}

/// Chooses the files that a tag means.
///
/// # Errors
/// [`Kind::NotFound`], with what there is.
pub(crate) fn choose(files: &[&str], tag: Option<&str>, place: &str) -> Result<Choice> {
    let usable: Vec<&str> = files.iter().copied().filter(|f| is_plain(f)).collect();
    let groups = groups(&usable);
    let tag = tag.filter(|t| !t.eq_ignore_ascii_case("latest"));
    if groups.is_empty() {
        return safetensors(&usable, files.len() - usable.len(), tag, place);
    }
    if let Some(tag) = tag {
        let same = |path: &str| {
            path.eq_ignore_ascii_case(tag) || base(path).eq_ignore_ascii_case(tag) || {
                path.len() > 5
                    && (path[..path.len() - 5].eq_ignore_ascii_case(tag)
                        || base(&path[..path.len() - 5]).eq_ignore_ascii_case(tag))
            }
        };
        let by_file =
            groups.iter().find(|g| g.files.iter().any(|f| same(f)) || base(&g.stem).eq_ignore_ascii_case(tag));
        let found =
            by_file.or_else(|| groups.iter().filter(|g| g.has(tag)).min_by_key(|g| (extra(g, tag), g.stem.len())));
        return found.cloned().ok_or_else(|| missing(&groups, tag, place))?.whole();
    }
    let preferred =
        PREFERRED.iter().find_map(|q| groups.iter().filter(|g| g.label() == *q).min_by_key(|g| g.stem.len()));
    preferred.unwrap_or(&groups[0]).clone().whole()
}

/// Whether the name has a prefix to the quantisation (as in `UD-Q4_K_XL`) that was not asked for.
fn extra(group: &Group, tag: &str) -> bool {
    group.has("UD") && !tag.to_ascii_uppercase().contains("UD")
}

fn missing(groups: &[Group], tag: &str, place: &str) -> Error {
    let mut labels: Vec<String> = groups.iter().map(Group::label).collect();
    labels.sort();
    labels.dedup();
    labels.truncate(30);
    Error::new(Kind::NotFound, format!("{place} has no {tag}: it has {}", labels.join(", ")))
}

fn safetensors(files: &[&str], unusable: usize, tag: Option<&str>, place: &str) -> Result<Choice> {
    let weights = files.iter().filter(|f| f.ends_with(".safetensors") && !f.contains('/'));
    let mut all: Vec<String> = weights.map(|f| (*f).to_owned()).collect();
    if all.is_empty() {
        let hidden =
            if unusable > 0 { format!(" ({unusable} files have names that cannot be used)") } else { String::new() };
        return Err(Error::new(
            Kind::NotFound,
            format!("{place} holds neither GGUF files nor safetensors{hidden}: look for one whose name has GGUF in it"),
        ));
    }
    if let Some(tag) = tag {
        return Err(Error::new(
            Kind::NotFound,
            format!("{place} holds safetensors and no GGUF files, so there is no {tag}: leave it out"),
        ));
    }
    all.extend(files.iter().filter(|f| COMPANIONS.contains(f)).map(|f| (*f).to_owned()));
    Ok(Choice::Safetensors(all))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    /// The browser's side is held to the same file.
    #[test]
    fn which_files_of_a_repository_are_meant() {
        let cases: Vec<serde_json::Value> = serde_json::from_str(include_str!("../tests/store/choices.json")).unwrap();
        assert!(cases.len() > 10);
        for case in cases {
            let files: Vec<&str> = case["files"].as_array().unwrap().iter().filter_map(|f| f.as_str()).collect();
            let want = case["want"].as_array().map(|w| w.iter().map(|f| f.as_str().unwrap().to_owned()).collect());
            let chosen = match choose(&files, case["tag"].as_str(), "it") {
                Ok(Choice::Gguf(files)) => Some(files),
                _ => None,
            };
            assert_eq!(chosen, want, "{case}");
        }
    }
}
