//! `ir show`: a model by its name: details, and what its Modelfile says.

use ir_engine::file::ModelFile;
use ir_engine::plan::KvKind;
use ir_engine::plan::Plan;
use ir_engine::text::chat::ChatTemplate;
use ir_store::{Capabilities, Details, GoTemplate, Need, Place, Recipe, parameter_lines};
use serde_json::json;

use crate::args::ShowArgs;
use crate::failure::Result;
use crate::info::{grouped, human_bytes, human_count, print_fit};
use crate::models::{self, Opening};
use crate::term::{self, Out, Style};

/// Prints a model's details, or the part that is asked for.
pub(crate) fn show(args: &ShowArgs) -> Result {
    let place = models::find_in(&args.model, &args.place)?;
    let recipe = place.recipe()?;
    let file = place.open_file(&args.place)?;
    let jinja = file.meta().opt_str("tokenizer.chat_template").ok().flatten().map(str::to_owned);
    let mut out = Out::new();
    if args.modelfile {
        return out.text(&recipe.modelfile(&place).to_string());
    }
    if args.template {
        let text = jinja.or(recipe.template);
        return out.line(text.unwrap_or_else(|| "(none)".into()).trim_end());
    }
    if args.parameters {
        return out.text(&parameters(&recipe, ""));
    }
    if args.system {
        return out.line(recipe.system.unwrap_or_default());
    }
    if args.license {
        let file = file.meta().opt_str("general.license").ok().flatten().map(str::to_owned);
        let all = if recipe.licenses.is_empty() { file.into_iter().collect() } else { recipe.licenses };
        return out.line(all.join("\n\n").trim_end());
    }
    let details = Details::of_file(&file);
    let can = Capabilities::of_file(file.meta()).names();
    if args.json {
        let json = json!({
            "name": place.name(), "bytes": file.byte_len(), "format": details.format, "family": details.family,
            "type": details.type_name, "parameters": details.parameters, "context": details.context,
            "embedding": details.embedding, "capabilities": can, "template": jinja.or(recipe.template.clone()),
            "system": recipe.system, "settings": recipe.parameters, "licenses": recipe.licenses,
            "modelfile": recipe.modelfile(&place).to_string(), "fit": need(&file).map(|(need, _)| crate::fit::as_json(&need)),
        });
        return out.line(json.to_string());
    }
    print(&mut out, &place, &recipe, &file, &details, &can)
}

fn print(out: &mut Out, place: &Place, recipe: &Recipe, file: &ModelFile, details: &Details, can: &[&str]) -> Result {
    out.styled(Style::Bold, &format!("{}\n", term::one_line(&place.name())))?;
    let mut lines = vec![
        ("family", term::one_line(&details.family)),
        ("parameters", human_count(details.parameters)),
        ("type", details.type_name.clone()),
        ("size", human_bytes(file.byte_len())),
        ("context", format!("{} tokens", grouped(details.context))),
        ("embedding", format!("{} values", grouped(details.embedding))),
        ("can", can.join(", ")),
        ("template", template(recipe, file)),
    ];
    if let Some(path) = place.path() {
        lines.push(("file", path.display().to_string()));
    }
    for (name, value) in lines {
        out.line(format!("  {name:11} {value}"))?;
    }
    if let Some((need, plan)) = need(file) {
        out.styled(Style::Bold, "\nFits\n")?;
        print_fit(out, &need, &plan)?;
    }
    if !recipe.parameters.is_empty() {
        out.styled(Style::Bold, "\nParameters\n")?;
        out.text(&parameters(recipe, "  "))?;
    }
    if let Some(system) = &recipe.system {
        out.styled(Style::Bold, "\nSystem\n")?;
        out.line(format!("  {}", term::cut(&term::one_line(system), 200)))?;
    }
    if let Some(license) = recipe.licenses.first() {
        out.styled(Style::Bold, "\nLicence\n")?;
        let first: Vec<&str> = license.lines().map(str::trim).filter(|l| !l.is_empty()).take(2).collect();
        out.line(format!("  {}", term::cut(&term::one_line(&first.join(" ")), 200)))?;
    }
    Ok(())
}

/// What the model takes of a device's memory, and its plan, if it runs at all.
fn need(file: &ModelFile) -> Option<(Need, Plan)> {
    let (spec, plan) = ir_engine::model::inspect(file).ok()?;
    Some((Need::new(file, &plan, spec.n_context, KvKind::F16), plan))
}

/// Which template lays a chat out.
fn template(recipe: &Recipe, file: &ModelFile) -> String {
    let known = chat_template(file);
    let own = file.meta().opt_str("tokenizer.chat_template").ok().flatten().is_some();
    match (own, known.is_some(), recipe.go_template()) {
        (true, _, _) => "of the file (Jinja)".into(),
        (false, true, _) => "of its family, by the file's turn tokens".into(),
        (false, false, Some(GoTemplate::Family(name))) => {
            format!("Ollama's for the {name} family, in Go's language, which is not run; the file has none")
        }
        (false, false, Some(GoTemplate::Unknown)) => {
            "in Go's language, which is not run; the file has none, so prompts are continued as they are".into()
        }
        (false, false, _) => "none: prompts are continued as they are".into(),
    }
}

fn chat_template(file: &ModelFile) -> Option<ChatTemplate> {
    let tokens = file.meta().opt_array("tokenizer.ggml.tokens").ok().flatten();
    let has = |text: &str| tokens.is_some_and(|t| t.iter().any(|token| token.as_bytes() == Some(text.as_bytes())));
    ChatTemplate::from_meta(file.meta(), &has).ok().flatten()
}

fn parameters(recipe: &Recipe, indent: &str) -> String {
    let lines = parameter_lines(&recipe.parameters);
    lines.iter().map(|(name, value)| format!("{indent}{name:30} {}\n", term::one_line(value))).collect()
}
