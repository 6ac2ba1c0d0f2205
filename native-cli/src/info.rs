//! `ir info`: what a model file holds. Reads the header only; no weight is touched.

mod adapter;
mod cache;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ir_engine::file::{ModelFile, Tensor};
use ir_engine::gpu::{Forms, StepCost};
use ir_engine::meta::{Kind, Value};
use ir_engine::model::{self, ModelSpec, Pooling, task_prefixes};
use ir_engine::plan::{CacheLayout, Inputs, KvKind, PAGE, Plan};
use ir_engine::text::Tokenizer;
use ir_engine::text::chat::{ChatTemplate, Source};
use ir_store::Need;
use serde_json::{Map, Value as Json, json};

use crate::args::InfoArgs;
use crate::failure::Result;
use crate::fit;
use crate::models::{self, Opening};
use crate::term::{self, Out, Style};

/// Elements of an array that are shown.
const SHOWN_ELEMENTS: usize = 6;

/// Elements of an array that JSON output repeats; of a longer one it gives the length.
const JSON_ELEMENTS: usize = 64;

/// A model file's figures.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Bytes of all parts.
    pub(crate) bytes: u64,
    /// Elements of all tensors.
    pub(crate) parameters: u64,
    /// The type that most bytes have.
    pub(crate) type_name: String,
    /// `general.architecture`.
    pub(crate) arch: String,
    /// By type name: tensors, elements, bytes.
    pub(crate) types: BTreeMap<String, (u64, u64, u64)>,
}

impl Summary {
    /// Counts a file's tensors.
    pub(crate) fn new(file: &ModelFile) -> Summary {
        let mut types: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        for tensor in file.tensors() {
            let entry = types.entry(type_name(tensor)).or_default();
            *entry =
                (entry.0 + 1, entry.1.saturating_add(tensor.n_elements()), entry.2.saturating_add(tensor.byte_len()));
        }
        let most = types.iter().max_by_key(|(_, (_, _, bytes))| *bytes).map(|(name, _)| name.clone());
        Summary {
            bytes: file.byte_len(),
            parameters: types.values().fold(0, |sum, t| sum.saturating_add(t.1)),
            type_name: most.unwrap_or_else(|| "-".into()),
            arch: file.meta().arch().unwrap_or("-").to_owned(),
            types,
        }
    }
}

fn type_name(tensor: &Tensor) -> String {
    tensor.dtype().map_or_else(|_| format!("type {}", tensor.type_id()), |d| d.name().to_owned())
}

/// `1.3 GB`, as disks are sold.
pub(crate) fn human_bytes(bytes: u64) -> String {
    let x = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.0} kB", x / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", x / 1e6),
        _ => format!("{:.2} GB", x / 1e9),
    }
}

/// `1.24B`, as models are named.
pub(crate) fn human_count(n: u64) -> String {
    let x = n as f64;
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.0}K", x / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", x / 1e6),
        _ => format!("{:.2}B", x / 1e9),
    }
}

/// A number with its thousands apart: `1,235,814,432`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Prints a model's metadata and figures; the plan and the tensors where they are asked for.
pub(crate) fn info(args: &InfoArgs) -> Result {
    if let Some(path) = adapter::path_of(&args.model) {
        return adapter::print(&path, args.json);
    }
    let place = models::find_in(&args.model, &args.place)?;
    let file = place.open_file(&args.place)?;
    let summary = Summary::new(&file);
    // A file that cannot run still has things to show; why it cannot is one of them.
    let model = Inspected::new(&file);
    let mut out = Out::new();
    if args.json {
        return out.line(as_json(args, &file, &summary, model.as_ref()).to_string());
    }
    if args.fit {
        let model = model.as_ref().map_err(|e| place.failure(e))?;
        return print_fit(&mut out, &model.need(&file), &model.plan);
    }
    if args.plan {
        let plan = &model.as_ref().map_err(|e| place.failure(e))?.plan;
        out.line(plan.to_string().trim_end())?;
        out.line(gpu_costs(plan))?;
    }
    if args.tensors {
        out.text(if args.plan { "\n" } else { "" })?;
        out.text(&tensor_table(&file))?;
    }
    if args.plan || args.tensors {
        return Ok(());
    }
    out.styled(Style::Bold, &format!("{}\n", term::one_line(&place.name())))?;
    out.text(&figures(&file, &summary, model.as_ref()))?;
    out.styled(Style::Bold, "\nSizes by type\n")?;
    out.text(&type_table(&summary))?;
    out.styled(Style::Bold, "\nMetadata\n")?;
    out.text(&metadata(&file))
}

/// A line for each device.
pub(crate) fn print_fit(out: &mut Out, need: &Need, plan: &Plan) -> Result {
    for (device, fits) in fit::lines(need, plan) {
        out.line(format!("  {device:11} {}", term::one_line(&fits)))?;
    }
    Ok(())
}

/// What the header says of a model that can run.
struct Inspected {
    spec: ModelSpec,
    plan: Plan,
    template: Option<ChatTemplate>,
}

impl Inspected {
    /// What it takes of a device's memory.
    fn need(&self, file: &ModelFile) -> Need {
        Need::new(file, &self.plan, self.spec.n_context, KvKind::F16)
    }

    fn new(file: &ModelFile) -> ir_engine::error::Result<Inspected> {
        let (spec, plan) = model::inspect(file)?;
        // A tokenizer would know better, but takes longer to build than all else here.
        let tokens = file.meta().opt_array("tokenizer.ggml.tokens")?;
        let has = |text: &str| tokens.is_some_and(|t| t.iter().any(|token| token.as_bytes() == Some(text.as_bytes())));
        Ok(Inspected { spec, plan, template: ChatTemplate::from_meta(file.meta(), &has)? })
    }
}

/// Positions of the decode steps whose costs are shown: at the second, attention is split over the cache.
const POSITIONS: [u32; 2] = [0, 2000];

/// What a decode step takes on a GPU, at [`POSITIONS`], with the kernels that every GPU runs.
fn decode_costs(plan: &Plan) -> ir_engine::error::Result<[StepCost; 2]> {
    let cost = |position: u32| {
        let pages = position / PAGE as u32 + 1;
        let mut inputs = Inputs { tables: vec![(0..pages).collect()], ..Inputs::default() };
        inputs.push(0, position, 0);
        inputs.outputs = vec![0];
        StepCost::of(plan, &inputs, Forms::BASE, KvKind::F16)
    };
    Ok([cost(POSITIONS[0])?, cost(POSITIONS[1])?])
}

fn gpu_costs(plan: &Plan) -> String {
    match decode_costs(plan) {
        Ok([short, long]) => format!(
            "GPU: {} dispatches per decode step, {} per layer ({} and {} in long contexts); {} of weights read",
            short.dispatches,
            short.most_per_layer,
            long.dispatches,
            long.most_per_layer,
            human_bytes(short.weight_bytes)
        ),
        Err(e) => format!("GPU: {}", term::one_line(&e.to_string())),
    }
}

type Opened<'a> = std::result::Result<&'a Inspected, &'a ir_engine::error::Error>;

fn figures(file: &ModelFile, summary: &Summary, model: Opened) -> String {
    let format = match file.is_folder() {
        true => "Hugging Face folder".to_owned(),
        false => format!("GGUF version {}", file.table().version()),
    };
    let mut lines = vec![
        ("format", format),
        ("size", format!("{} ({} bytes)", human_bytes(summary.bytes), grouped(summary.bytes))),
        ("architecture", term::one_line(&summary.arch)),
    ];
    if file.parts().len() > 1 {
        lines.push(("parts", file.parts().len().to_string()));
    }
    if !file.tensors().is_empty() {
        let count = human_count(summary.parameters);
        lines.push(("parameters", format!("{count} ({})", grouped(summary.parameters))));
        lines.push(("tensors", file.tensors().len().to_string()));
    }
    match model {
        Ok(model) => {
            let spec = &model.spec;
            lines.push(("layers", format!("{} of width {}", spec.layers.len(), spec.width)));
            lines.push(("vocabulary", grouped(model.plan.n_vocab() as u64)));
            lines.push(("context", format!("{} tokens", grouped(spec.n_context as u64))));
            lines.extend(made(spec, &model.plan));
            let prefixes = task_prefixes(file.meta()).iter().filter(|_| spec.pooling != Pooling::None);
            let prefixes: Vec<String> = prefixes.map(|(of, text)| format!("{of} {text:?}")).collect();
            if !prefixes.is_empty() {
                lines.push(("prefixes", format!("{} (not put there by ir)", prefixes.join(", "))));
            }
            lines.push(("KV cache", cache::text(&CacheLayout::of(&model.plan, KvKind::F16), spec.n_context)));
            lines.push(match Tokenizer::expect_known(file.meta()) {
                Ok(()) => ("chat", chat(model.template.as_ref())),
                Err(e) => ("text", format!("no: {}", term::one_line(&e.to_string()))),
            });
        }
        Err(e) => lines.push(("runs", format!("no: {}", term::one_line(&e.to_string())))),
    }
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "  {name:13} {value}");
        text
    })
}

/// What a model makes that is no text.
fn made(spec: &ModelSpec, plan: &Plan) -> Option<(&'static str, String)> {
    let both = if plan.reads_both_ways() { "; reads a text both ways, in one step" } else { "" };
    match spec.pooling {
        Pooling::None => {
            plan.reads_source().then(|| ("encoder", "reads the prompt, and the decoder answers".to_owned()))
        }
        Pooling::Rank => Some(("ranks", format!("scores of a query and a text{both}"))),
        pooling => Some(("embeddings", format!("of {} numbers, {} pooling{both}", plan.n_pooled(), pooling.name()))),
    }
}

fn chat(template: Option<&ChatTemplate>) -> String {
    let Some(template) = template else { return "no template: prompts are continued as they are".into() };
    let mut text = match template.source() {
        Source::File => match template.broken() {
            Some(why) => return format!("template of the file, which does not parse: {}", term::one_line(why)),
            None => "template of the file".to_owned(),
        },
        Source::Family(name) => format!("template of the {name} family, by the file's turn tokens"),
    };
    for (has, what) in [
        (template.supports_system(), "system prompt"),
        (template.supports_tools(), "tools"),
        (template.thinks(), "reasoning"),
    ] {
        if has {
            let _ = write!(text, ", {what}");
        }
    }
    text
}

fn type_table(summary: &Summary) -> String {
    let mut text = String::new();
    for (name, (tensors, elements, bytes)) in &summary.types {
        let bits = if *elements == 0 { 0.0 } else { *bytes as f64 * 8.0 / *elements as f64 };
        let (size, count) = (human_bytes(*bytes), human_count(*elements));
        let _ = writeln!(text, "  {name:8} {tensors:>5} tensors  {count:>8}  {size:>9}  {bits:.2} bits each");
    }
    if text.is_empty() {
        text.push_str("  no tensors: the file holds a vocabulary only\n");
    }
    text
}

fn tensor_table(file: &ModelFile) -> String {
    let wide = file.tensors().iter().map(|t| t.name().chars().count()).max().unwrap_or(0).clamp(4, 64);
    let mut text = format!("{:wide$}  {:8}  {:>22}  {:>9}  {:>14}\n", "name", "type", "shape", "size", "offset");
    for tensor in file.tensors() {
        let name = term::one_line(tensor.name());
        let shape = tensor.dims().iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
        let (kind, size) = (type_name(tensor), human_bytes(tensor.byte_len()));
        let _ = writeln!(text, "{name:wide$}  {kind:8}  {shape:>22}  {size:>9}  {:>14}", tensor.offset());
    }
    text
}

fn metadata(file: &ModelFile) -> String {
    let keys: Vec<_> = file.meta().iter().collect();
    let wide = keys.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0).min(44);
    let room = term::width().saturating_sub(wide + 4).max(20);
    let mut text = String::new();
    for (key, value) in keys {
        let (key, value) = (term::cut(&term::one_line(&key), 64), term::cut(&shown(value), room));
        let _ = writeln!(text, "  {key:wide$}  {value}");
    }
    text
}

/// A value on one line, arrays by their first elements.
fn shown(value: Value) -> String {
    if let Some(array) = value.as_array() {
        let first: Vec<String> = array.iter().take(SHOWN_ELEMENTS).map(shown).collect();
        let more = if array.len() > SHOWN_ELEMENTS { ", …" } else { "" };
        return format!("{} {:?}: [{}{more}]", grouped(array.len() as u64), array.kind(), first.join(", "));
    }
    if let Some(bytes) = value.as_bytes() {
        // Enough for any terminal, and nothing of a template's remaining kilobytes.
        return format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(2048)]));
    }
    match (value.as_bool(), value.kind()) {
        (Some(b), _) => b.to_string(),
        (None, Kind::F32 | Kind::F64) => value.as_f64().map_or_else(String::new, |x| (x as f32).to_string()),
        _ => value.as_i64().map(|n| n.to_string()).or(value.as_u64().map(|n| n.to_string())).unwrap_or_default(),
    }
}

fn as_json(args: &InfoArgs, file: &ModelFile, summary: &Summary, model: Opened) -> Json {
    let types: Map<String, Json> = summary
        .types
        .iter()
        .map(|(name, t)| (name.clone(), json!({ "tensors": t.0, "elements": t.1, "bytes": t.2 })))
        .collect();
    let metadata: Map<String, Json> = file.meta().iter().map(|(k, v)| (k.into_owned(), value_json(v))).collect();
    let mut all = json!({
        "version": file.table().version(),
        "bytes": summary.bytes,
        "parts": file.parts().len(),
        "architecture": summary.arch,
        "parameters": summary.parameters,
        "n_tensors": file.tensors().len(),
        "types": types,
        "metadata": metadata,
    });
    match model {
        Ok(model) => {
            all["context"] = json!(model.spec.n_context);
            all["layers"] = json!(model.spec.layers.len());
            all["width"] = json!(model.spec.width);
            all["vocabulary"] = json!(model.plan.n_vocab());
            all["pooling"] = json!(model.spec.pooling.name());
            let prefixes = task_prefixes(file.meta()).iter().map(|(of, text)| ((*of).to_owned(), json!(text)));
            all["prefixes"] = Json::Object(prefixes.collect());
            all["kv_bytes_per_token"] = KvKind::ALL
                .iter()
                .map(|kind| (kind.name(), json!(CacheLayout::of(&model.plan, *kind).bytes_per_token())))
                .collect::<Map<String, Json>>()
                .into();
            all["cache"] = cache::json(&CacheLayout::of(&model.plan, KvKind::F16), model.spec.n_context);
            all["chat_template"] = json!(model.template.as_ref().is_some_and(|t| t.broken().is_none()));
            if let Err(e) = Tokenizer::expect_known(file.meta()) {
                all["no_text"] = json!(e.to_string());
            }
            if args.fit {
                all["fit"] = fit::as_json(&model.need(file));
            }
            if args.plan {
                all["plan"] = json!(model.plan.to_string());
                if let Ok(costs) = decode_costs(&model.plan) {
                    let as_json = |c: &StepCost| {
                        json!({ "dispatches": c.dispatches,
                        "dispatches_per_layer": c.most_per_layer, "weight_bytes": c.weight_bytes })
                    };
                    all["gpu_decode_step"] = as_json(&costs[0]);
                    all["gpu_decode_step_long"] = as_json(&costs[1]);
                }
            }
        }
        Err(e) => all["cannot_run"] = json!(e.to_string()),
    }
    if args.tensors {
        let tensor = |t: &Tensor| {
            json!({ "name": t.name(), "shape": t.dims(), "type": type_name(t), "bytes": t.byte_len(),
                "part": t.part(), "offset": t.offset() })
        };
        all["tensors"] = file.tensors().iter().map(tensor).collect();
    }
    all
}

/// A value as JSON. Long arrays give their length and their type.
fn value_json(value: Value) -> Json {
    if let Some(array) = value.as_array() {
        if array.len() > JSON_ELEMENTS {
            return json!({ "length": array.len(), "type": format!("{:?}", array.kind()) });
        }
        return array.iter().map(value_json).collect();
    }
    if let Some(bytes) = value.as_bytes() {
        return Json::from(String::from_utf8_lossy(bytes));
    }
    match (value.as_bool(), value.kind()) {
        (Some(b), _) => Json::from(b),
        (None, Kind::F32 | Kind::F64) => json!(value.as_f64()),
        _ => value.as_i64().map(Json::from).or(value.as_u64().map(Json::from)).unwrap_or(Json::Null),
    }
}
