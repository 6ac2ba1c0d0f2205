//! [`Folder`]: a model as Hugging Face publishes it: `config.json`, safetensors in one file or in shards, and beside them the
//! files of the tokenizer. Opened and checked here; what they mean is read in `folder` and `text/published`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::safetensors::{self, Stored};
use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// A small file beside the weights is read up to this: the largest tokenizers take some thirty megabytes.
const MAX_SMALL: u64 = 256 << 20;
/// `config.json` and its like.
const MAX_JSON: u64 = 16 << 20;
const MAX_SHARDS: usize = 4096;

/// An opened folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    config: Value,
    tensors: Vec<Stored>,
    files: Vec<Bytes>,
}

impl Folder {
    /// Whether a path is a folder that holds a model of this kind.
    pub fn is_one(path: &Path) -> bool {
        path.is_dir() && path.join("config.json").is_file()
    }

    /// Opens `config.json` and maps the safetensors.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be read, [`Error::Format`] where one is missing or damaged.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &Path) -> Result<Folder> {
        Folder::with(path, Bytes::map)
    }

    /// As [`open`](Folder::open), but reads the files into memory.
    ///
    /// # Errors
    /// As [`open`](Folder::open).
    pub fn read(path: &Path) -> Result<Folder> {
        Folder::with(path, Bytes::read)
    }

    fn with(path: &Path, load: fn(&Path) -> Result<Bytes>) -> Result<Folder> {
        let folder = |tensors, files| -> Result<Folder> {
            let config = json(path, "config.json")?.ok_or_else(|| {
                Error::format(format!("{} holds no config.json: give the folder of a model", path.display()))
            })?;
            Ok(Folder { path: path.to_owned(), config, tensors, files })
        };
        let mut opened = folder(Vec::new(), Vec::new())?;
        for name in shards(path)? {
            let file = path.join(name);
            let bytes = load(&file).map_err(|e| missing(e, &file))?;
            let read = safetensors::read(&bytes).map_err(|e| in_file(&file, &e))?;
            opened.tensors.extend(read);
            opened.files.push(bytes);
        }
        opened.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = opened.tensors.windows(2).find(|w| w[0].name == w[1].name) {
            return Err(Error::format(format!(
                "two files of {} hold a tensor {:?}: remove the one that does not belong to the model",
                path.display(),
                twice[0].name
            )));
        }
        Ok(opened)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The tensors of all files, by name.
    pub fn tensors(&self) -> &[Stored] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Stored> {
        let at = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[at])
    }

    /// The files of the weights.
    pub fn files(&self) -> &[Bytes] {
        &self.files
    }

    /// The tensors of a folder inside this one, whose `model.safetensors` is read into memory: matrices behind the model's own.
    ///
    /// # Errors
    /// Where the file is missing, damaged, or too large to be one of these.
    pub fn within(&self, name: &str) -> Result<Vec<Stored>> {
        let file = format!("{name}/model.safetensors");
        let bytes = small(&self.path, &file, MAX_SMALL)?;
        let file = self.path.join(file);
        let bytes = bytes.ok_or_else(|| Error::format(format!("{} is missing: download it", file.display())))?;
        safetensors::read(&Bytes::from(bytes)).map_err(|e| in_file(&file, &e))
    }

    /// A small file beside the weights; `None` if there is none of that name.
    ///
    /// # Errors
    /// Where it cannot be read, or is too large to be what its name says.
    pub fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        small(&self.path, name, MAX_SMALL)
    }

    /// A small JSON file beside the weights; `None` if there is none of that name.
    ///
    /// # Errors
    /// As [`small`](Folder::small), and where it is no JSON.
    pub fn json(&self, name: &str) -> Result<Option<Value>> {
        json(&self.path, name)
    }
}

fn small(folder: &Path, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    let Ok(meta) = std::fs::metadata(&path) else { return Ok(None) };
    if !meta.is_file() {
        return Ok(None);
    }
    if meta.len() > most {
        return Err(Error::format(format!("{} is larger than {} MiB", path.display(), most >> 20)));
    }
    Bytes::read(&path).map(|bytes| Some(bytes.into_vec()))
}

fn json(folder: &Path, name: &str) -> Result<Option<Value>> {
    let Some(bytes) = small(folder, name, MAX_JSON)? else { return Ok(None) };
    let said = |e| Error::format(format!("{} cannot be read as JSON: {e}", folder.join(name).display()));
    // Python writes Infinity and NaN, which JSON has not.
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(e) => serde_json::from_str(&without_infinity(&bytes)).map(Some).map_err(|_| said(e)),
    }
}

/// The text with Python's `Infinity`, `-Infinity` and `NaN` outside strings as null.
fn without_infinity(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (mut out, mut in_string, mut rest) = (String::with_capacity(text.len()), false, &*text);
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| !in_string && rest.starts_with(w));
        let taken = match (word, c) {
            (Some(word), _) => {
                out.push_str("null");
                word.len()
            }
            (None, '\\') if in_string => {
                let len = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..len]);
                len
            }
            _ => {
                in_string ^= c == '"';
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

/// The names of the files with weights: those of the index, or the one there is.
fn shards(folder: &Path) -> Result<Vec<String>> {
    let index = json(folder, "model.safetensors.index.json")?;
    if let Some(map) = index.as_ref().and_then(|i| i.get("weight_map")).and_then(Value::as_object) {
        let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
        let plain = |name: &&str| !name.contains(['/', '\\', ':']) && **name != *".." && name.ends_with(".safetensors");
        if let Some(odd) = names.iter().find(|name| !plain(name)) {
            let odd: String = odd.chars().take(64).collect();
            return Err(Error::format(format!(
                "model.safetensors.index.json names the file {odd:?}, which is no shard"
            )));
        }
        if names.is_empty() || names.len() > MAX_SHARDS {
            return Err(Error::format(format!("model.safetensors.index.json names {} files", names.len())));
        }
        return Ok(names.into_iter().map(str::to_owned).collect());
    }
    if folder.join("model.safetensors").is_file() {
        return Ok(vec!["model.safetensors".into()]);
    }
    let read =
        std::fs::read_dir(folder).map_err(|source| Error::Io { action: "open", path: folder.to_owned(), source })?;
    let names = read.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).take(1 << 16);
    let mut found: Vec<String> = Vec::new();
    let mut pickles = false;
    for name in names {
        pickles |= name.ends_with(".bin") || name.ends_with(".pth");
        if name.ends_with(".safetensors") && !name.starts_with("adapter_") && !name.starts_with("consolidated") {
            found.push(name);
        }
    }
    found.sort_unstable();
    let path = folder.display();
    match found.len() {
        0 if pickles => Err(Error::unsupported(format!(
            "{path} holds weights as Python pickles only, which are not read: download the safetensors or a GGUF of this model"
        ))),
        0 => Err(Error::format(format!("{path} holds no .safetensors file: download the model's weights"))),
        n if n > MAX_SHARDS => Err(Error::format(format!("{path} holds {n} safetensors files"))),
        _ => Ok(found),
    }
}

fn missing(error: Error, file: &Path) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::format(format!("a file of the model's weights is missing: download it to {}", file.display()))
        }
        other => other,
    }
}

fn in_file(file: &Path, error: &Error) -> Error {
    Error::format(format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::without_infinity;

    #[test]
    fn pythons_numbers_are_nulls() {
        let text = br#"{"a": [0.0, Infinity], "b": "NaN \" Infinity", "c": -Infinity, "d": NaN}"#;
        assert_eq!(without_infinity(text), r#"{"a": [0.0, null], "b": "NaN \" Infinity", "c": null, "d": null}"#);
    }
}
