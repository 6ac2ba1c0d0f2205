//! [`Registry`]: which models are known and by what names: those that the server was started with, and the store's. The
//! store keeps an index by modification times: a model that is put into its folder can be asked at once, and asking again
//! opens no file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ir_engine::builtin;
use ir_store::{Capabilities, Digest, Listed, Place, Recipe, Store};

use super::model_ref::ModelRef;
use crate::engine::error::{ApiError, Kind};
use crate::engine::output_queue::lock;

/// Recipes that are remembered, at most.
const MAX_RECIPES: usize = 1024;

/// A known model.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// How it is to be run.
    pub recipe: Arc<Recipe>,
    /// Whether it stays loaded whatever happens.
    pub pinned: bool,
}

impl Entry {
    /// What tells it from other models: its file; `None` is the built-in one. Names of one file share what is loaded.
    pub(crate) fn key(&self) -> Option<PathBuf> {
        self.place.path().map(Path::to_owned)
    }
}

/// The models that are known.
#[derive(Debug, Default)]
pub struct Registry {
    /// Models that the server was started with, by name.
    pub served: Vec<(String, Place)>,
    /// Other names: from alias to name. An alias with `*` stands for every name that fits and that no model has.
    pub aliases: BTreeMap<String, String>,
    /// Names of models that are never unloaded.
    pub pinned: BTreeSet<String>,
    /// The models of this machine; files below its folder may be named by anyone.
    pub store: Option<Arc<Store>>,
    /// Recipes that were read.
    pub recipes: Recipes,
}

/// Recipes that were read, by their models' manifests. The default has none.
#[derive(Debug, Default)]
pub struct Recipes(Mutex<HashMap<Digest, Arc<Recipe>>>);

impl Registry {
    /// All models that can be opened: those served first, then the store's, then the built-in one. Reads what changed since
    /// the last call: not for async threads.
    pub fn list(&self) -> Vec<Listed> {
        let mut all: Vec<Listed> = self.served.iter().map(|(name, place)| self.listed(name, place)).collect();
        let stored = self.store.iter().flat_map(|store| store.list());
        for mut model in stored.chain([Listed::builtin()]) {
            if all.iter().any(|known| known.name == model.name) {
                continue;
            }
            if model.path.is_none()
                && let Some(store) = &self.store
                && let Ok(Some(place)) = store.find(&model.name)
            {
                // A model of several files gets its folder of names now.
                model.path = place.path().map(Path::to_owned);
            }
            if model.is_usable() {
                all.push(model);
            }
        }
        all
    }

    /// Whether the server was started with a model.
    pub(crate) fn is_served(&self, entry: &Entry) -> bool {
        self.served.iter().any(|(_, place)| place.path().map(Path::to_owned) == entry.key())
    }

    /// A model that the server was started with, as the list has it.
    fn listed(&self, name: &str, place: &Place) -> Listed {
        match (place.path(), &self.store) {
            (None, _) => Listed { name: name.to_owned(), ..Listed::builtin() },
            (Some(path), Some(store)) => store.listed_file(name, path),
            (Some(path), None) => Listed {
                name: name.to_owned(),
                origin: ir_store::Origin::Named,
                path: Some(path.to_owned()),
                size: place.bytes(),
                modified: place.modified(),
                digest: None,
                details: ir_store::Details::of(path),
            },
        }
    }

    /// What models of the list can do, in its order. Not for async threads.
    pub(crate) fn capabilities(&self, models: &[Listed]) -> Vec<Capabilities> {
        match &self.store {
            Some(store) => store.capabilities(models),
            None => {
                let of = |place: Place| place.file(false).map(|f| Capabilities::of_file(f.meta()));
                let place = |m: &Listed| m.path.clone().map_or(Place::Builtin, Place::File);
                models.iter().map(|m| of(place(m)).unwrap_or_default()).collect()
            }
        }
    }

    /// The name of the first model of the list.
    pub(crate) fn first(&self) -> Option<String> {
        match self.served.first() {
            Some((name, _)) => Some(name.clone()),
            None => self.list().into_iter().next().map(|m| m.name),
        }
    }

    /// The model that a client means: an alias, a name with or without `:latest` and `.gguf` in any case, or a path
    /// where the client may name one.
    ///
    /// # Errors
    /// There is none, or none that this client may name; or it is there and cannot be used.
    pub fn find(&self, wanted: &ModelRef) -> Result<Entry, ApiError> {
        let name = wanted.name.as_str();
        let alias = self.aliases.iter().find(|(alias, _)| bare(alias) == bare(name));
        if let Some(entry) = self.by_name(alias.map_or(name, |(_, name)| name.as_str()))? {
            return Ok(entry);
        }
        // Of several patterns that fit the longest says most.
        let fitting = self.aliases.iter().filter(|(alias, _)| alias.contains('*') && fits(&bare(alias), &bare(name)));
        let meant = fitting.max_by_key(|(alias, _)| alias.len()).map(|(_, name)| name.as_str());
        match meant.map_or(Ok(None), |meant| self.by_name(meant))? {
            Some(entry) => Ok(entry),
            None => self.by_path(name, wanted.any_path),
        }
    }

    fn by_name(&self, meant: &str) -> Result<Option<Entry>, ApiError> {
        let without = bare(meant.strip_suffix(".gguf").unwrap_or(meant));
        let exact = self.served.iter().find(|(name, _)| name == meant);
        if let Some((name, place)) = exact.or_else(|| self.served.iter().find(|(name, _)| bare(name) == without)) {
            return self.entry(name.clone(), place.clone()).map(Some);
        }
        if without == builtin::NAME {
            return self.entry(builtin::NAME.into(), Place::Builtin).map(Some);
        }
        let found = self.store.as_ref().map_or(Ok(None), |store| store.find(meant));
        let refused = |e: ir_store::Error| match e.kind {
            ir_store::Kind::Unsupported => ApiError::new(Kind::NotImplemented, e.what),
            _ => ApiError::new(Kind::Internal, e.what),
        };
        let Some(place) = found.map_err(refused)? else { return Ok(None) };
        let name = match &place {
            Place::Stored(_) => None,
            // A file of the folder is known by its path in it, not by its last name alone.
            _ => {
                let store = self.store.iter().flat_map(|store| store.files());
                store.into_iter().find(|(_, path)| Some(path.as_path()) == place.path()).map(|(name, _)| name)
            }
        };
        self.entry(name.unwrap_or_else(|| place.name()), place).map(Some)
    }

    /// All models, as [`Registry::list`] has them, and behind them those of the aliases that are no patterns.
    pub fn named(&self) -> Vec<Listed> {
        let mut all = self.list();
        for (alias, name) in self.aliases.iter().filter(|(alias, _)| !alias.contains('*')) {
            let known = all.iter().any(|model| bare(&model.name) == bare(alias));
            let meant = all.iter().find(|model| bare(&model.name) == bare(name)).filter(|_| !known).cloned();
            all.extend(meant.map(|model| Listed { name: alias.clone(), ..model }));
        }
        all
    }

    fn entry(&self, name: String, place: Place) -> Result<Entry, ApiError> {
        let recipe = self.recipe(&place)?;
        let pinned = self.pinned.iter().any(|pinned| bare(pinned) == bare(&name));
        Ok(Entry { name, place, recipe, pinned })
    }

    /// How a model is to be run: read once for each manifest.
    fn recipe(&self, place: &Place) -> Result<Arc<Recipe>, ApiError> {
        let Place::Stored(found) = place else { return Ok(Arc::default()) };
        let digest = found.digest;
        if let Some(known) = digest.and_then(|digest| lock(&self.recipes.0).get(&digest).cloned()) {
            return Ok(known);
        }
        let recipe = Recipe::of(found).map_err(|e| ApiError::new(Kind::Internal, e.what))?;
        let recipe = Arc::new(recipe);
        if let Some(digest) = digest {
            let mut recipes = lock(&self.recipes.0);
            // Models that come and go must not fill the memory.
            if recipes.len() >= MAX_RECIPES {
                recipes.clear();
            }
            recipes.insert(digest, Arc::clone(&recipe));
        }
        Ok(recipe)
    }

    fn by_path(&self, name: &str, any_path: bool) -> Result<Entry, ApiError> {
        let is_path = name.contains(['/', '\\']) || name.ends_with(".gguf");
        // Links are followed first: what counts is where the file is.
        let path = Path::new(name).canonicalize().ok().filter(|p| is_path && is_model(p));
        let folder = self.store.as_ref().and_then(|s| s.settings().root.canonicalize().ok());
        let below = |path: &Path| folder.as_deref().is_some_and(|f| path.starts_with(f));
        // Whether a file exists elsewhere is not for everyone to know: the answer is the same.
        let Some(path) = path.filter(|p| any_path || below(p)) else {
            let known: Vec<String> = self.named().into_iter().map(|model| model.name).collect();
            return Err(ApiError::no_model(name, &known));
        };
        let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let stem = stem.unwrap_or_default().to_string_lossy().into_owned();
        self.entry(stem, Place::File(path))
    }
}

/// Whether a path may be a model: a file, or a folder of safetensors.
fn is_model(path: &Path) -> bool {
    path.is_file() || path.join("config.json").is_file()
}

/// A name as it is compared.
fn bare(name: &str) -> String {
    name.strip_suffix(":latest").unwrap_or(name).to_lowercase()
}

/// Whether a text is what a pattern says, in which each `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = rest.split('*').collect();
    let (last, between) = parts.split_last().map_or(("", &[][..]), |(last, between)| (*last, between));
    for part in between {
        // The earliest place leaves the most for what follows.
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use ir_store::Settings;

    #[test]
    fn patterns() {
        for (pattern, text) in [("claude-*", "claude-"), ("*", ""), ("a*b*c", "a-b-b-c"), ("*x", "xx"), ("a", "a")] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("claude-*", "claude"), ("a*b*c", "a-c-b"), ("ab*ba", "aba"), ("*x", "xy"), ("a", "b")]
        {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn names_aliases_and_paths() {
        let root = std::env::temp_dir().join(format!("ir-registry-{}", std::process::id()));
        let (inside, outside) = (root.join("models"), root.join("other"));
        for folder in [&inside.join("sub"), &outside] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let (known, secret) = (inside.join("Qwen.gguf"), outside.join("secret.gguf"));
        for file in [&known, &secret, &inside.join("sub/Deep.gguf")] {
            std::fs::write(file, builtin::bytes().to_vec()).unwrap();
        }
        let registry = Registry {
            aliases: [("gpt-4o", "Qwen"), ("claude-*", "Qwen"), ("claude-*-tiny", "ir-tiny"), ("lost", "gone")]
                .map(|(alias, name)| (alias.to_owned(), name.to_owned()))
                .into(),
            pinned: BTreeSet::from(["qwen".into()]),
            store: Some(Store::new(Settings::new(&inside))),
            ..Registry::default()
        };
        let find = |name: &str, any_path| {
            let wanted = ModelRef { name: name.into(), any_path, ..ModelRef::default() };
            registry.find(&wanted).map(|e| (e.name, e.pinned))
        };
        let path = |p: &Path| p.to_str().unwrap().to_owned();
        for name in ["Qwen", "qwen:latest", "QWEN.gguf", "GPT-4o", path(&known).as_str()] {
            assert_eq!(find(name, false).unwrap(), ("Qwen".into(), true), "{name}");
        }
        assert_eq!(find("sub/deep", false).unwrap().0, "sub/Deep");
        assert_eq!(find("IR-tiny:latest", false).unwrap(), ("ir-tiny".into(), false));
        assert_eq!(find(&path(&secret), true).unwrap().0, "secret");
        let names: Vec<String> = registry.list().into_iter().map(|m| m.name).collect();
        assert_eq!(names, ["Qwen", "sub/Deep", "ir-tiny"]);
        for (name, want) in [("Claude-Opus-9", "Qwen"), ("claude-x-tiny:latest", "ir-tiny")] {
            assert_eq!(find(name, false).unwrap().0, want, "{name}");
        }
        let named: Vec<String> = registry.named().into_iter().map(|m| m.name).collect();
        assert_eq!(named, ["Qwen", "sub/Deep", "ir-tiny", "gpt-4o"]);
        let missing = find("nope", false).unwrap_err().message;
        assert_eq!(missing, "model 'nope' not found: there are Qwen, sub/Deep, ir-tiny, gpt-4o");
        let around = format!("{}/../other/secret.gguf", path(&inside));
        for name in [path(&secret), around, "/nowhere/x.gguf".into(), String::new(), "nope".into()] {
            let error = find(&name, false).unwrap_err();
            assert_eq!(error.kind, Kind::NotFound, "{name}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}
