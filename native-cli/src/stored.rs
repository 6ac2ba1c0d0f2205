//! `ir cp`, `rm`, `create`, `push`, `search`, `verify` and `gc`: what is done with the store's models.

use std::io::Read;
use std::path::Path;

use ir_store::{ModelName, Modelfile};
use serde_json::json;

use crate::args::{CpArgs, CreateArgs, GcArgs, PushArgs, RmArgs, SearchArgs, VerifyArgs};
use crate::failure::{Failure, Result};
use crate::info::{human_bytes, human_count};
use crate::term::{self, Out, Style};
use crate::{models, pull};

/// `ir cp`.
pub(crate) fn cp(args: &CpArgs) -> Result {
    let (source, destination) = (ModelName::parse(&args.source)?, ModelName::parse(&args.destination)?);
    models::store(&args.store)?.copy(&source, &destination)?;
    Out::new().line(format!("{} is now also {}", source.short(), destination.short()))
}

/// `ir rm`.
pub(crate) fn rm(args: &RmArgs) -> Result {
    let names: Result<Vec<ModelName>> = args.model.iter().map(|m| Ok(ModelName::parse(m)?)).collect();
    let store = models::store(&args.store)?;
    let mut out = Out::new();
    for name in names? {
        store.remove(&name)?;
        out.line(format!("{} is removed", name.short()))?;
    }
    Ok(())
}

/// `ir create`.
pub(crate) fn create(args: &CreateArgs) -> Result {
    let name = ModelName::parse(&args.name)?;
    let (file, folder) = match &args.from {
        Some(from) => (Modelfile { from: from.clone(), ..Modelfile::default() }, Path::new(".").to_owned()),
        None => {
            let path = args.modelfile.clone().unwrap_or_else(|| "Modelfile".into());
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (Modelfile::parse(&read(&path)?)?, folder.to_owned())
        }
    };
    let file = Modelfile { quantize: args.quantize.clone(), ..file };
    for remark in &file.remarks {
        term::remark(remark);
    }
    let store = models::store(&args.store)?;
    store.create(&name, &file, Some(&folder), &mut |step| term::remark(step))?;
    Out::new().line(format!("{} is made: `ir run {}`", name.short(), args.name))
}

fn read(path: &Path) -> Result<String> {
    const MOST: u64 = 4 << 20;
    let failed =
        |e: std::io::Error| Failure::usage(format!("{}: {e}; -f names the Modelfile, --from a model", path.display()));
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(MOST).read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Failure::usage(format!("{} is no file", path.display())));
    }
    file.take(MOST).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// `ir push`.
pub(crate) fn push(args: &PushArgs) -> Result {
    let name = ModelName::parse(&args.model)?;
    let watcher = models::store(&args.store)?.push(&name)?;
    pull::follow(watcher, &format!("`ir push {}` sends only what the registry lacks", name.short()))
}

/// `ir search`.
pub(crate) fn search(args: &SearchArgs) -> Result {
    let store = models::store(&args.store)?;
    let hits = store.search(&args.words.join(" "), args.limit as usize)?;
    let memory = ir_store::memory().map(|m| m.total);
    // Weights, and a cache and buffers beside them.
    let fits = |bytes: u64| memory.map(|memory| bytes.saturating_add(bytes / 10) < memory);
    let mut out = Out::new();
    if args.json {
        let row = |h: &ir_store::Hit| {
            let (label, bytes) = h.default.clone().unzip();
            json!({ "name": h.name, "downloads": h.downloads, "likes": h.likes, "quantisation": label, "bytes": bytes,
                "fits": bytes.and_then(fits) })
        };
        return out.line(hits.iter().map(row).collect::<serde_json::Value>().to_string());
    }
    if hits.is_empty() {
        return out.line("Nothing was found: fewer words find more.");
    }
    let wide = hits.iter().map(|h| h.name.chars().count()).max().unwrap_or(0).clamp(8, 70);
    out.styled(
        Style::Bold,
        &format!("{:wide$}  {:>9}  {:8}  {:9}  {:>9}\n", "NAME", "SIZE", "TYPE", "FITS HERE", "DOWNLOADS"),
    )?;
    for hit in hits {
        let (label, bytes) = hit.default.unzip();
        let size = bytes.map_or_else(|| "-".into(), human_bytes);
        let fits = match bytes.and_then(fits) {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let (name, label) = (term::one_line(&hit.name), term::one_line(label.as_deref().unwrap_or("-")));
        out.line(format!("{name:wide$}  {size:>9}  {label:8}  {fits:9}  {:>9}", human_count(hit.downloads)))?;
    }
    Ok(())
}

/// `ir verify`.
pub(crate) fn verify(args: &VerifyArgs) -> Result {
    let store = models::store(&args.store)?;
    let (mut count, mut bytes) = (0, 0);
    let faults = store.verify(args.repair, &mut |_, size| (count, bytes) = (count + 1, bytes + size))?;
    let mut out = Out::new();
    for fault in &faults {
        out.line(format!("{}: {}", fault.what, fault.why))?;
    }
    if !faults.is_empty() {
        let removed =
            if args.repair { ", and what was spoiled is removed" } else { "; --repair removes what is spoiled" };
        return Err(Failure::run(format!("{} found{removed}", term::counted(faults.len(), "fault"))));
    }
    out.line(format!("{} of {} are what their digests say", term::counted(count, "file"), human_bytes(bytes)))
}

/// `ir gc`.
pub(crate) fn gc(args: &GcArgs) -> Result {
    let found = models::store(&args.store)?.gc(args.partial)?;
    let (blobs, partials) = (term::counted(found.blobs, "file"), term::counted(found.partials, "unfinished download"));
    Out::new().line(format!("{blobs} and {partials} removed, {}", human_bytes(found.bytes)))
}
