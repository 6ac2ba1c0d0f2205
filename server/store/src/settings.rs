//! [`Settings`]: where things are and how patient a download is. What the environment says is read by a function that is
//! given, so that tests and servers can say it instead.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::hubs;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store's folder; made when it is first needed.
    pub root: PathBuf,
    /// The hub's address.
    pub hub: String,
    /// The default registry's address.
    pub registry: String,
    /// The key that the hub is shown, and nobody else.
    pub hub_token: Option<String>,
    /// Other programs' models, read in place and never changed.
    pub foreign: Vec<Foreign>,
    /// How patient downloads are.
    pub tuning: Tuning,
}

/// Another program's folder of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Whose it is.
    pub origin: Origin,
    /// The folder.
    pub folder: PathBuf,
}

/// Whose a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// In this program.
    Builtin,
    /// A file that was named to the program.
    Named,
    /// This store's.
    Store,
    /// A file that lies in the models folder.
    Folder,
    /// An Ollama store's.
    Ollama,
    /// The Hugging Face cache's.
    HuggingFace,
    /// LM Studio's.
    LmStudio,
}

impl Origin {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Builtin => "built in",
            Origin::Named => "named",
            Origin::Store => "store",
            Origin::Folder => "folder",
            Origin::Ollama => "ollama",
            Origin::HuggingFace => "huggingface",
            Origin::LmStudio => "lmstudio",
        }
    }
}

/// How patient downloads are.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Ranges of one file that are fetched at once.
    pub streams: usize,
    /// Bytes that a range has at least.
    pub min_range: u64,
    /// Bytes after which the journal notes what has arrived.
    pub journal_step: u64,
    /// Tries in a row without a new byte before it is given up.
    pub attempts: u32,
    /// The wait before the second try; doubled for each further one.
    pub first_wait: Duration,
    /// The longest wait between tries, also where the other side asks for a longer one.
    pub longest_wait: Duration,
    /// A connection from which nothing comes for so long is given up.
    pub stall: Duration,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            streams: 4,
            min_range: 16 << 20,
            journal_step: 256 << 10,
            attempts: 8,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            stall: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// A store in this folder, with the public hubs and no other program's models.
    pub fn new(root: impl Into<PathBuf>) -> Settings {
        Settings {
            root: root.into(),
            hub: hubs::HUB.into(),
            registry: hubs::REGISTRY.into(),
            hub_token: None,
            foreign: Vec::new(),
            tuning: Tuning::default(),
        }
    }

    /// The same, and what these variables of the environment say: `HF_ENDPOINT`, `IR_REGISTRY`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`, `OLLAMA_MODELS`, `XDG_CACHE_HOME`, and the home folder.
    pub fn from_env(root: impl Into<PathBuf>, var: &dyn Fn(&str) -> Option<OsString>) -> Settings {
        let text = |name: &str| var(name).and_then(|v| v.into_string().ok()).filter(|v| !v.trim().is_empty());
        let path = |name: &str| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = path("HOME").or_else(|| path("USERPROFILE"));
        let mut settings = Settings::new(root);
        if let Some(hub) = text("HF_ENDPOINT") {
            settings.hub = hub.trim().trim_end_matches('/').to_owned();
        }
        if let Some(registry) = text("IR_REGISTRY") {
            settings.registry = registry.trim().trim_end_matches('/').to_owned();
        }
        let cache = path("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|h| h.join(".cache")));
        let hf_home = path("HF_HOME").or_else(|| cache.map(|c| c.join("huggingface")));
        settings.hub_token = text("HF_TOKEN").map(|t| t.trim().to_owned()).or_else(|| {
            let file = path("HF_TOKEN_PATH").or_else(|| hf_home.as_ref().map(|h| h.join("token")))?;
            let token = crate::disk::read_small(&file, 4096).ok()?;
            Some(String::from_utf8(token).ok()?.trim().to_owned()).filter(|t| !t.is_empty())
        });
        let mut add = |origin, folder: Option<PathBuf>| {
            settings.foreign.extend(folder.map(|folder| Foreign { origin, folder }));
        };
        match path("OLLAMA_MODELS") {
            Some(folder) => add(Origin::Ollama, Some(folder)),
            None => {
                add(Origin::Ollama, home.as_ref().map(|h| h.join(".ollama/models")));
                let system = cfg!(unix).then(|| PathBuf::from("/usr/share/ollama/.ollama/models"));
                add(Origin::Ollama, system);
            }
        }
        add(Origin::HuggingFace, path("HF_HUB_CACHE").or_else(|| hf_home.map(|h| h.join("hub"))));
        add(Origin::LmStudio, home.as_ref().map(|h| h.join(".lmstudio/models")));
        add(Origin::LmStudio, home.map(|h| h.join(".cache/lm-studio/models")));
        settings
    }
}
