//! `ir list`: the models that are known by name.

use ir_engine::builtin;
use ir_engine::file::ModelFile;
use serde_json::json;

use crate::args::ListArgs;
use crate::failure::{Failure, Result};
use crate::info::{Summary, human_bytes, human_count};
use crate::models::{self, Named};
use crate::term::{self, Out, Style};

/// Prints the built-in model and those of the models folder.
pub(crate) fn list(args: &ListArgs) -> Result {
    let folder = models::folder(args.models.as_deref());
    if let Some(folder) = args.models.as_deref().filter(|f| !f.is_dir()) {
        return Err(Failure::usage(format!("--models: {} does not exist or is no folder", folder.display())));
    }
    let named = folder.as_deref().map(models::named).unwrap_or_default();
    let mut rows = vec![(builtin::NAME.to_owned(), ModelFile::from_bytes(builtin::bytes()), None)];
    rows.extend(named.into_iter().map(|Named { name, path }| (name, ModelFile::open(&path), Some(path))));
    let mut out = Out::new();
    if args.json {
        let entry = |(name, file, path): &(String, ir_engine::error::Result<ModelFile>, Option<std::path::PathBuf>)| {
            let path = path.as_ref().map(|p| p.display().to_string());
            match file {
                Ok(file) => {
                    let s = Summary::new(file);
                    json!({ "name": name, "path": path, "bytes": s.bytes, "parameters": s.parameters,
                        "type": s.type_name, "architecture": s.arch, "vocabulary_only": file.tensors().is_empty() })
                }
                Err(e) => json!({ "name": name, "path": path, "error": e.to_string() }),
            }
        };
        let models: Vec<_> = rows.iter().map(entry).collect();
        return out.line(serde_json::Value::from(models).to_string());
    }
    let wide = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0).clamp(8, 60);
    out.styled(Style::Bold, &format!("{:wide$}  {:>9}  {:>7}  {:8}  {}\n", "NAME", "SIZE", "PARAMS", "TYPE", "KIND"))?;
    for (name, file, path) in &rows {
        let name = term::one_line(name);
        let line = match file {
            Ok(file) => {
                let s = Summary::new(file);
                let (size, count) = (human_bytes(s.bytes), human_count(s.parameters));
                let note = match path {
                    None => ", built in",
                    Some(_) if file.tensors().is_empty() => ", a vocabulary only",
                    Some(_) => "",
                };
                format!("{name:wide$}  {size:>9}  {count:>7}  {:8}  {}{note}", s.type_name, term::one_line(&s.arch))
            }
            Err(e) => format!("{name:wide$}  cannot be read: {}", term::one_line(&e.to_string())),
        };
        out.line(line)?;
    }
    match folder {
        Some(folder) if !folder.is_dir() => term::remark(&format!(
            "\nModels would be read from {}, which does not exist or is no folder: make it, or give --models",
            folder.display()
        )),
        Some(folder) => term::remark(&format!("\nModels are read from {}", folder.display())),
        None => term::remark("\nThere is no home folder to read models from: set IR_MODELS or give --models"),
    }
    Ok(())
}
