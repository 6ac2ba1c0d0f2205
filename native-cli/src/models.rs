//! From what the user calls a model to an opened one: a file, a name in the models folder, or the built-in model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ir_engine::error::Error;
use ir_engine::file::ModelFile;
use ir_engine::model::{self, Adapter, Attached, Model, ModelOptions, ModelSpec};
use ir_engine::plan::Plan;
use ir_engine::{Tokenizer, builtin};

use ir_store::{ModelName, Place, Recipe, Settings, Store};

use crate::args::{FileArgs, LoraArgs, PlaceArgs, StoreArgs};
use crate::failure::{Failure, Result};

/// What commands do with a place.
pub(crate) trait Opening {
    /// How the model is to be run, if anything says so.
    fn recipe(&self) -> Result<Recipe>;
    /// Opens the file: metadata and tensor table, no weights.
    fn open_file(&self, args: &PlaceArgs) -> Result<ModelFile>;
    /// The same, to write the matrices elsewhere.
    fn open_natural(&self, args: &PlaceArgs) -> Result<ModelFile>;
    /// Opens the model.
    fn open(&self, args: &FileArgs, lora: &LoraArgs) -> Result<Model>;
    /// Opens the model to run on token ids: no tokenizer is built, and the file needs none.
    fn record(&self, args: &FileArgs, lora: &LoraArgs) -> Result<Recorded>;
    /// The tokenizer of a model that was opened without.
    fn tokenizer(&self, model: &Recorded, args: &FileArgs) -> Result<Tokenizer>;
    /// What the model's file is to blame for, with its path or name in front.
    fn failure(&self, error: &Error) -> Failure;
}

/// Why a file was not opened.
fn unopened(place: &Place, error: &Error) -> Failure {
    match place {
        Place::Stored(_) => place.failure(error),
        _ => Failure::run(error.to_string()),
    }
}

impl Opening for Place {
    fn recipe(&self) -> Result<Recipe> {
        Ok(Recipe::of_place(self)?)
    }

    fn open_file(&self, args: &PlaceArgs) -> Result<ModelFile> {
        self.file(args.no_mmap).map_err(|e| unopened(self, &e))
    }

    fn open_natural(&self, args: &PlaceArgs) -> Result<ModelFile> {
        self.file_natural(args.no_mmap).map_err(|e| unopened(self, &e))
    }

    fn open(&self, args: &FileArgs, lora: &LoraArgs) -> Result<Model> {
        let options = options(args, lora)?;
        Model::from_file(self.open_file(&args.place)?, &options).map_err(|e| self.failure(&e))
    }

    fn record(&self, args: &FileArgs, lora: &LoraArgs) -> Result<Recorded> {
        Recorded::new(self.open_file(&args.place)?, &adapters(lora)?).map_err(|e| self.failure(&e))
    }

    fn tokenizer(&self, model: &Recorded, args: &FileArgs) -> Result<Tokenizer> {
        Tokenizer::from_meta(model.file.meta(), args.tokenizer_pre.as_deref()).map_err(|e| self.failure(&e))
    }

    fn failure(&self, error: &Error) -> Failure {
        let sentence = error.to_string();
        Failure::run(match self {
            Place::File(path) if !sentence.contains(&*path.to_string_lossy()) => {
                format!("{}: {sentence}", path.display())
            }
            Place::Stored(found) => format!("{}: {sentence}", found.name),
            _ => sentence,
        })
    }
}

/// How a model is opened.
///
/// # Errors
/// An adapter that cannot be opened.
pub(crate) fn options(args: &FileArgs, lora: &LoraArgs) -> Result<ModelOptions> {
    let (no_mmap, tokenizer_pre) = (args.place.no_mmap, args.tokenizer_pre.clone());
    Ok(ModelOptions { no_mmap, tokenizer_pre, adapters: adapters(lora)? })
}

/// The adapters of the flags.
fn adapters(args: &LoraArgs) -> Result<Vec<Attached>> {
    args.lora.iter().chain(&args.lora_scaled).map(|text| adapter("--lora", text)).collect()
}

/// An adapter as a flag names it: a file or a folder, and perhaps how much of it is used.
pub(crate) fn adapter(flag: &str, text: &str) -> Result<Attached> {
    let scaled = text.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse::<f32>().ok()?)));
    // A file may be named like that.
    let (path, scale) = scaled.filter(|_| !Path::new(text).exists()).unwrap_or((text, 1.0));
    if !scale.is_finite() {
        return Err(Failure::usage(format!("{flag} {text}: an adapter's scale is a finite number")));
    }
    if !Path::new(path).exists() {
        return Err(Failure::usage(format!("{flag} {text}: there is no file or folder {path:?}")));
    }
    let adapter = Adapter::open(Path::new(path)).map_err(|e| Failure::run(format!("{path}: {e}")))?;
    Ok(Attached { name: path.to_owned(), adapter: Arc::new(adapter), scale })
}

/// A model without tokenizer and template: it takes token ids and gives logits.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) file: ModelFile,
    pub(crate) spec: ModelSpec,
    pub(crate) plan: Arc<Plan>,
}

impl Recorded {
    /// The model of an open file.
    pub(crate) fn new(file: ModelFile, adapters: &[Attached]) -> ir_engine::Result<Recorded> {
        let (spec, plan) = model::inspect_with(&file, adapters)?;
        Ok(Recorded { file, spec, plan: Arc::new(plan) })
    }
}

/// The models folder: the flag, else `IR_MODELS`, else `ir/models` in the user's data folder.
pub(crate) fn folder(flag: Option<&Path>) -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let from_env = || std::env::var_os("IR_MODELS").filter(|v| !v.is_empty()).map(PathBuf::from);
    let from_home = || Some(etcetera::choose_base_strategy().ok()?.data_dir().join("ir").join("models"));
    flag.map(Path::to_owned).or_else(from_env).or_else(from_home)
}

/// The store of the models folder.
///
/// # Errors
/// There is no folder for it.
pub(crate) fn store(args: &StoreArgs) -> Result<Arc<Store>> {
    let root = folder(args.models.as_deref());
    let root = root
        .ok_or_else(|| Failure::usage("there is no home folder to keep models in: set IR_MODELS or give --models"))?;
    let mut settings = Settings::from_env(root, &|name| std::env::var_os(name));
    let plain = |text: &String| text.trim().trim_end_matches('/').to_owned();
    settings.hub = args.hub.as_ref().map_or(settings.hub, plain);
    settings.registry = args.registry.as_ref().map_or(settings.registry, plain);
    Ok(Store::new(settings))
}

/// Finds the model that the user names.
///
/// # Errors
/// [`Failure::Usage`] where there is none of that name.
pub(crate) fn find(name: &str, args: &FileArgs) -> Result<Place> {
    find_in(name, &args.place)
}

/// The same where no tokenizer is needed.
///
/// # Errors
/// As [`find`].
pub(crate) fn find_in(name: &str, args: &PlaceArgs) -> Result<Place> {
    look(name, args)?.ok_or_else(|| Failure::usage(unknown(name, args)))
}

/// The same, and a model that is elsewhere is fetched.
///
/// # Errors
/// There is none of that name, or it cannot be fetched.
pub(crate) fn find_or_pull(name: &str, args: &FileArgs) -> Result<Place> {
    if let Some(place) = look(name, &args.place)? {
        return Ok(place);
    }
    let unknown = unknown(name, &args.place);
    let (Ok(parsed), Ok(store)) = (ModelName::parse(name), store(&args.place.store)) else {
        return Err(Failure::usage(unknown));
    };
    if !parsed.is_remote() {
        return Err(Failure::usage(unknown));
    }
    let plan = store
        .plan(&parsed)
        .map_err(|e| Failure::usage(format!("{unknown}; it could not be fetched either: {}", e.what)))?;
    crate::pull::announce(&plan);
    crate::fit::check_plan(&plan)?;
    crate::pull::fetch(&store, plan)?;
    find(name, args)
}

/// `None` if nothing has the name.
fn look(name: &str, args: &PlaceArgs) -> Result<Option<Place>> {
    if name == builtin::NAME {
        return Ok(Some(Place::Builtin));
    }
    let path = Path::new(name);
    if path.exists() && !path.is_dir() {
        return Ok(Some(Place::File(path.to_owned())));
    }
    if let Ok(store) = store(&args.store)
        && let Some(place) = store.find(name)?
    {
        return Ok(Some(place));
    }
    // A directory: opening it says so.
    Ok(path.exists().then(|| Place::File(path.to_owned())))
}

/// What to say of a name that nothing has.
fn unknown(name: &str, args: &PlaceArgs) -> String {
    let shown = crate::term::cut(name, 80);
    let tiny = builtin::NAME;
    if name.contains(char::is_whitespace) {
        return format!(
            "no model is named {shown:?}: if that is a prompt, ask the built-in model with `ir run {tiny} \"...\"`"
        );
    }
    let kind = if name.ends_with(".gguf") || name.contains(['/', '\\']) { "no file" } else { "no file or model" };
    let near = match (ModelName::parse(name), store(&args.store)) {
        (Ok(parsed), Ok(store)) if parsed.is_remote() => store.nearest(&parsed),
        _ => Vec::new(),
    };
    let near = if near.is_empty() { String::new() } else { format!(", the nearest being {}", near.join(", ")) };
    format!(
        "there is {kind} {shown:?}: `ir list` shows the models that are known{near}, \
         and `ir run {tiny} \"...\"` asks the built-in one"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_say_how_to_ask_the_built_in_model() {
        for name in ["nope", "nope.gguf", "Tell me a story", "a/b"] {
            let Err(Failure::Usage(what)) = find(name, &FileArgs::default()) else { panic!("{name} was found") };
            assert!(what.contains("ir run ir-tiny \"...\""), "{what}");
        }
    }
}
