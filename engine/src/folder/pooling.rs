//! What makes an embedding or a score of a text's rows: the files of sentence-transformers (`modules.json` and what it names),
//! heads of classifiers, and the two tokens by which Qwen 3's rerankers answer.

use serde_json::Value;

use super::keys::Keys;
use super::tensors::Door;
use super::views;
use crate::error::{Error, Result};
use crate::meta::shown;

/// Pooling as GGUF files number it.
const MEAN: u32 = 1;
const FIRST: u32 = 2;
const LAST: u32 = 3;
const RANK: u32 = 4;

/// The names of matrices behind the pooling.
const DENSE: [&str; 2] = ["dense_2", "dense_3"];

/// More modules than this has no model.
const MAX_MODULES: usize = 16;

/// Writes how rows are pooled, as far as the folder says, and adds the matrices behind it.
pub(super) fn write(keys: &mut Keys<'_, '_>) -> Result<()> {
    if classifies(keys.door) {
        return labels(keys);
    }
    // A head that ranks reads rows in its own way.
    let ranks = keys.door.dims_of("cls.output.weight").is_some();
    let Some(modules) = keys.door.folder.json("modules.json")?.filter(|_| !ranks) else { return Ok(()) };
    let mut dense = DENSE.iter();
    for module in behind(&modules)? {
        let text = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or("");
        let (kind, path) = (text("type").rsplit('.').next().unwrap_or(""), text("path"));
        match kind {
            // Whoever asks for an embedding says whether it is to be of length 1.
            "Normalize" => {}
            "Pooling" => {
                let pooling = pooling(&config(keys.door, path)?)?;
                keys.u32("pooling_type", Some(pooling));
            }
            "Dense" => {
                let name = dense.next().ok_or_else(|| unknown("more than two dense modules"))?;
                matrix(keys, path, name)?;
            }
            other => return Err(unknown(&format!("the module {}", shown(other.as_bytes())))),
        }
    }
    Ok(())
}

/// The modules behind the first, which is the model itself.
fn behind(modules: &Value) -> Result<&[Value]> {
    let all = modules.as_array().filter(|all| (1..=MAX_MODULES).contains(&all.len()));
    all.map(|all| &all[1..]).ok_or_else(|| {
        Error::format(format!(
            "modules.json of this folder is no list of 1 to {MAX_MODULES} modules: download it again"
        ))
    })
}

fn unknown(what: &str) -> Error {
    Error::unsupported(format!("modules.json of this folder puts {what} behind the model, which is not supported"))
}

/// Whether the class has a head of labels.
pub(super) fn classifies(door: &Door<'_>) -> bool {
    door.config.class().ends_with("ForSequenceClassification")
}

/// The labels of a classifier, which ranks if it has one.
fn labels(keys: &mut Keys<'_, '_>) -> Result<()> {
    let n = keys.door.dims_of("cls.output.weight").map_or(0, |dims| dims.get(1).copied().unwrap_or(1));
    if n != 1 {
        return Err(Error::unsupported(format!(
            "this folder holds a classifier of {n} labels: only those with one label, which rank texts, are supported"
        )));
    }
    let label = keys.config().get(&["id2label"]).and_then(|labels| labels.get("0")?.as_str());
    let label = label.unwrap_or("LABEL_0").to_owned();
    keys.strs("classifier.output_labels", &[&label]);
    keys.u32("pooling_type", Some(RANK));
    Ok(())
}

/// A module's `config.json`.
fn config(door: &Door<'_>, path: &str) -> Result<Value> {
    let name = format!("{path}/config.json");
    let plain = !path.is_empty() && !path.contains(['/', '\\', ':']) && path != "..";
    let found = if plain { door.folder.json(&name)? } else { None };
    found.ok_or_else(|| {
        Error::format(format!("modules.json names {}, which is missing from the folder", shown(name.as_bytes())))
    })
}

/// How a module pools, by one of two generations of settings.
fn pooling(config: &Value) -> Result<u32> {
    let flags = || {
        let all = config.as_object().into_iter().flatten().filter(|(_, on)| on.as_bool() == Some(true));
        all.filter_map(|(name, _)| name.strip_prefix("pooling_mode_")).collect()
    };
    let modes: Vec<&str> = config.get("pooling_mode").and_then(Value::as_str).map_or_else(flags, |mode| vec![mode]);
    match modes[..] {
        ["mean_tokens" | "mean"] => Ok(MEAN),
        ["cls_token" | "cls"] => Ok(FIRST),
        ["lasttoken"] => Ok(LAST),
        _ => {
            let modes = modes.join(" and ");
            Err(Error::unsupported(format!(
                "this folder pools rows by {}: only mean, cls and last are supported",
                shown(modes.as_bytes())
            )))
        }
    }
}

/// A matrix behind the pooling.
fn matrix(keys: &mut Keys<'_, '_>, path: &str, name: &str) -> Result<()> {
    let config = config(keys.door, path)?;
    let act = config.get("activation_function").and_then(Value::as_str).unwrap_or("torch.nn.modules.activation.Tanh");
    if config.get("bias").and_then(Value::as_bool) != Some(false) || !act.ends_with(".Identity") {
        return Err(unknown("a dense module with a bias or an activation"));
    }
    let tensors = keys.door.folder.within(path)?;
    let [tensor] = &tensors[..] else {
        return Err(Error::format(format!("{} holds {} tensors, not one", shown(path.as_bytes()), tensors.len())));
    };
    let &[rows, cols] = tensor.shape() else {
        return Err(Error::shape(format!("the tensor of {} is no matrix", shown(path.as_bytes()))));
    };
    let size = |n: u64| u32::try_from(n).ok();
    keys.u32(&format!("{name}_feat_in"), size(cols));
    keys.u32(&format!("{name}_feat_out"), size(rows));
    keys.door.rows(format!("{name}.weight"), tensor, std::slice::from_ref(&(0..rows)), vec![cols, rows])
}

/// What Qwen 3's rerankers are asked.
const JUDGE: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the \
    Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a \
    web search query, retrieve relevant passages that answer the query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n\
    <|im_start|>assistant\n<think>\n\n</think>\n\n";

/// Qwen 3: its rerankers are of the same class as models that generate, so their name tells them.
pub(super) fn qwen3(keys: &mut Keys<'_, '_>) -> Result<()> {
    if !is_reranker(keys.door)? {
        return Ok(());
    }
    let door = &mut *keys.door;
    let tied = door.config.bool(&["tie_word_embeddings"]) == Some(true);
    let head = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
    let folder = door.folder;
    let head = folder.tensor(head).ok_or_else(|| Error::format(format!("tensor {head} is missing from the folder")))?;
    let (rows, cols) = views::rows_and_cols(head);
    let vocabulary = folder.json("tokenizer.json")?.unwrap_or_default();
    let row = |token: &str| {
        let id = vocabulary.get("model").and_then(|m| m.get("vocab")?.get(token)?.as_u64()).filter(|id| *id < rows);
        let id =
            id.ok_or_else(|| Error::format(format!("tokenizer.json has no token {token}, which rerankers say")))?;
        Ok::<_, Error>(id..id + 1)
    };
    let answers = [row("yes")?, row("no")?];
    door.rows("cls.output.weight".into(), head, &answers, vec![cols, 2])?;
    keys.u32("pooling_type", Some(RANK));
    keys.strs("classifier.output_labels", &["yes", "no"]);
    keys.put(|meta| meta.str("tokenizer.chat_template.rerank", JUDGE));
    Ok(())
}

fn is_reranker(door: &Door<'_>) -> Result<bool> {
    let says = |text: &str| text.to_lowercase().contains("qwen3-reranker");
    let path = door.folder.path();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let named = path.file_name().is_some_and(|name| says(&name.to_string_lossy()));
    if named || door.config.str(&["_name_or_path"]).is_some_and(says) {
        return Ok(true);
    }
    let readme = door.folder.small("README.md")?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&readme).lines().any(|line| line.starts_with("# ") && says(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_is_read_in_both_generations_and_mixtures_are_refused() {
        let of = |text: &str| pooling(&serde_json::from_str(text).unwrap());
        assert_eq!(of(r#"{"pooling_mode": "cls"}"#).unwrap(), FIRST);
        assert_eq!(of(r#"{"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false}"#).unwrap(), LAST);
        let both = of(r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#);
        assert!(both.unwrap_err().to_string().contains("cls_token and mean_tokens"));
        assert!(of("{}").is_err() && of(r#"{"pooling_mode": "weightedmean"}"#).is_err());
    }

    #[test]
    fn what_is_no_list_of_modules_is_refused() {
        let of = |text: &str| behind(&serde_json::from_str(text).unwrap()).map(<[Value]>::len);
        assert_eq!(of("[{}, {}]").unwrap(), 1);
        for text in ["{}", "[]", "null", &format!("[{}{{}}]", "{},".repeat(MAX_MODULES))] {
            assert!(of(text).unwrap_err().to_string().contains("modules.json"), "{text}");
        }
    }
}
