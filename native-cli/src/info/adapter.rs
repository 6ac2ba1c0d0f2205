//! What `ir info` says of a LoRA adapter.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ir_engine::file::ModelFile;
use ir_engine::model::Adapter;
use serde_json::json;

use super::human_count;
use crate::failure::{Failure, Result};
use crate::term::{self, Out, Style};

/// The path of an adapter: a folder of PEFT, one of its files, or a GGUF file that says so.
pub(super) fn path_of(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let folder = if path.is_dir() { path } else { path.parent()? };
    let is_peft = |folder: &Path| folder.join("adapter_config.json").is_file();
    let is_part = path.file_name().is_some_and(|n| n == "adapter_config.json" || n == "adapter_model.safetensors");
    if is_peft(folder) && (path.is_dir() || is_part) {
        return Some(path.to_owned());
    }
    let is_gguf = |file: &ModelFile| file.meta().opt_str("general.type").ok().flatten() == Some("adapter");
    (path.is_file() && ModelFile::open(path).is_ok_and(|file| is_gguf(&file))).then(|| path.to_owned())
}

/// Prints what an adapter is.
pub(super) fn print(path: &Path, as_json: bool) -> Result {
    let adapter = Adapter::open(path).map_err(|e| Failure::run(format!("{}: {e}", path.display())))?;
    let mut out = Out::new();
    // What is changed, and in how many layers.
    let mut parts: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in adapter.pairs() {
        let name = pair.name().trim_end_matches(".weight");
        let part = match name.split_once(|c: char| c.is_ascii_digit()) {
            Some((_, rest)) => rest.split_once('.').map_or(name, |(_, part)| part),
            None => name,
        };
        *parts.entry(part).or_default() += 1;
    }
    let (least, most) = adapter.ranks();
    let types: Vec<&str> = adapter.dtypes().iter().map(|dtype| dtype.name()).collect();
    if as_json {
        let json = json!({
            "kind": "adapter", "type": "lora", "architecture": adapter.arch(), "rank": [least, most], "alpha": adapter.alpha(),
            "parameters": adapter.n_params(), "types": types, "matrices": parts, "task_name": adapter.task_name(),
            "prompt_prefix": adapter.prompt_prefix(),
        });
        return out.line(json.to_string());
    }
    let form = adapter.arch().map_or("PEFT".to_owned(), |arch| format!("GGUF, for {} models", term::one_line(arch)));
    let rank = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let mut text = format!("  form        {form}\n  rank        {rank}\n");
    if let Some(alpha) = adapter.alpha() {
        let _ = writeln!(text, "  alpha       {alpha}");
    }
    let _ = writeln!(text, "  parameters  {} ({})", human_count(adapter.n_params()), types.join(", "));
    let changed: Vec<String> = parts.iter().map(|(part, n)| format!("{} x {n}", term::one_line(part))).collect();
    let _ = writeln!(text, "  changes     {}", changed.join(", "));
    for (what, said) in [("task", adapter.task_name()), ("prefix", adapter.prompt_prefix())] {
        if !said.is_empty() {
            let _ = writeln!(text, "  {what:11} {}", term::one_line(said));
        }
    }
    out.styled(Style::Bold, &format!("{}: a LoRA adapter\n", term::one_line(&path.display().to_string())))?;
    out.text(&text)?;
    out.text("Use it as in `ir run MODEL --lora FILE`, or merge it: `ir convert MODEL OUT.gguf --merge FILE`.\n")
}
