//! `ir list`: the models that are known by name.

use std::time::{SystemTime, UNIX_EPOCH};

use ir_engine::builtin;
use ir_engine::file::ModelFile;
use ir_store::{Details, Listed, Origin};
use serde_json::json;

use crate::args::ListArgs;
use crate::failure::{Failure, Result};
use crate::info::{human_bytes, human_count};
use crate::models;
use crate::term::{self, Out, Style};

/// Prints the built-in model and all that the store knows.
pub(crate) fn list(args: &ListArgs) -> Result {
    let folder = models::folder(args.store.models.as_deref());
    // A folder that the environment names is made by the first pull.
    let usual = std::env::var_os("IR_MODELS");
    let mistyped = |f: &&std::path::Path| !f.is_dir() && usual.as_deref() != Some(f.as_os_str());
    if let Some(folder) = args.store.models.as_deref().filter(mistyped) {
        return Err(Failure::usage(format!("--models: {} does not exist or is no folder", folder.display())));
    }
    let models = if folder.is_some() { models::store(&args.store)?.list() } else { Vec::new() };
    let tiny = ModelFile::from_bytes(builtin::bytes())?;
    let tiny = (builtin::NAME.to_owned(), tiny.byte_len(), Details::of_file(&tiny), None);
    let rows: Vec<_> = [tiny]
        .into_iter()
        .chain(models.into_iter().map(|m| (m.name.clone(), m.size, m.details.clone(), Some(m))))
        .collect();
    let mut out = Out::new();
    if args.json {
        let rows = rows.iter().map(|(name, bytes, details, model)| as_json(name, *bytes, details, model.as_ref()));
        return out.line(rows.collect::<serde_json::Value>().to_string());
    }
    let wide = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0).clamp(8, 60);
    let head = ["NAME", "SIZE", "PARAMS", "TYPE", "KIND", "CONTEXT", "ORIGIN", "MODIFIED"];
    let [name, size, params, kind, family, context, origin, modified] = head;
    let head =
        format!("{name:wide$}  {size:>9}  {params:>7}  {kind:8}  {family:10}  {context:>9}  {origin:11}  {modified}\n");
    out.styled(Style::Bold, &head)?;
    for (name, bytes, details, model) in &rows {
        out.line(row(name, wide, *bytes, details, model.as_ref()))?;
    }
    match folder {
        Some(folder) if !folder.is_dir() => term::remark(&format!(
            "\nModels would be read from {}, which does not exist or is no folder: `ir pull` makes it, --models names another",
            folder.display()
        )),
        Some(folder) => term::remark(&format!("\nModels are read from {}", folder.display())),
        None => term::remark("\nThere is no home folder to read models from: set IR_MODELS or give --models"),
    }
    Ok(())
}

fn row(name: &str, wide: usize, bytes: u64, details: &Details, model: Option<&Listed>) -> String {
    let name = term::one_line(name);
    if let Some(error) = &details.error {
        return format!("{name:wide$}  cannot be read: {}", term::one_line(error));
    }
    let (size, count) = (human_bytes(bytes), human_count(details.parameters));
    let context = if details.context == 0 { "-".into() } else { details.context.to_string() };
    let origin = model.map_or("built in", |m| m.origin.name());
    let modified = model.map_or_else(|| "-".into(), |m| date(m.modified));
    let note = if details.vocabulary_only { ", a vocabulary only" } else { "" };
    let (kind, family) = (&details.type_name, term::one_line(&details.family));
    format!("{name:wide$}  {size:>9}  {count:>7}  {kind:8}  {family:10}  {context:>9}  {origin:11}  {modified}{note}")
}

fn as_json(name: &str, bytes: u64, details: &Details, model: Option<&Listed>) -> serde_json::Value {
    let path = model.and_then(|m| m.path.as_ref()).map(|p| p.display().to_string());
    if let Some(error) = &details.error {
        return json!({ "name": name, "path": path, "error": error });
    }
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    json!({ "name": name, "path": path, "bytes": bytes, "parameters": details.parameters,
        "type": details.type_name, "architecture": details.family, "vocabulary_only": details.vocabulary_only,
        "context": details.context, "origin": model.map_or("built in", |m| origin(m.origin)),
        "modified": model.map(|m| since(m.modified)), "digest": model.and_then(|m| m.digest.clone()) })
}

fn origin(origin: Origin) -> &'static str {
    origin.name()
}

/// `2026-09-01`, in UTC.
fn date(time: SystemTime) -> String {
    let days = time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() / 86_400);
    // The days of 400 years, which repeat; years begin in March, so that leap days are last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{of_month:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        for (days, want) in [(0, "1970-01-01"), (11_016, "2000-02-29"), (11_017, "2000-03-01"), (20_697, "2026-09-01")]
        {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(days * 86_400 + 5)), want);
        }
    }
}
