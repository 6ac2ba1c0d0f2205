//! [`ModelName`]: what people call a model, of every kind, and where its manifest stands in the store.

use std::fmt;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::hubs;

/// A name may have so many bytes.
const MAX_NAME: usize = 2048;

/// A part of a name may have so many.
const MAX_PART: usize = 96;

/// What people call a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelName {
    /// `./file.gguf`, `/models/x.gguf`: a file of this machine.
    Path(PathBuf),
    /// `https://host/file.gguf`, and `#sha256=...` where it is known.
    Url {
        /// The address, without the digest.
        url: String,
        /// What the file's SHA-256 must be.
        sha256: Option<Digest>,
    },
    /// `hf.co/user/repo[:QUANT][@revision]` and `user/repo...`: a repository of the hub.
    Hub {
        /// The owner.
        user: String,
        /// The repository.
        repo: String,
        /// A quantisation such as `Q4_K_M`, or a file's name.
        tag: Option<String>,
        /// A branch, tag or commit.
        revision: Option<String>,
    },
    /// `name[:tag]`, `host/namespace/name:tag`: a model of a registry, or one that was made or copied here.
    Registry {
        /// The host, `registry.ollama.ai` where none is given.
        host: String,
        /// The namespace, `library` where none is given.
        namespace: String,
        /// The model.
        model: String,
        /// The tag, `latest` where none is given.
        tag: String,
    },
}

/// The place of a manifest: host, namespace, model and tag, each a plain file name in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) [String; 4]);

impl ModelName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`crate::Kind::Name`] with a sentence, if it can be no model's name.
    pub fn parse(text: &str) -> Result<ModelName> {
        let shown = || text.chars().take(80).collect::<String>();
        if text.is_empty() {
            return Err(Error::name("a model's name is needed"));
        }
        if text.len() > MAX_NAME {
            return Err(Error::name(format!("a name of {} bytes is no model's: at most {MAX_NAME}", text.len())));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Error::name(format!("{:?} is no model's name: it has spaces or control characters", shown())));
        }
        if text.contains("://") {
            return url(text);
        }
        let first = text.split('/').next().unwrap_or("");
        let colon = text.find(':').is_some_and(|at| at > 1);
        if text.starts_with(['/', '.', '~', '\\']) || text.contains('\\') || text.as_bytes().get(1) == Some(&b':') {
            return Ok(ModelName::Path(text.into()));
        }
        if text.to_lowercase().ends_with(".gguf") && !colon {
            return Ok(ModelName::Path(text.into()));
        }
        let lower = first.to_lowercase();
        let rest = text.get(first.len() + 1..);
        match rest {
            Some(rest) if hubs::HUB_HOSTS.contains(&lower.as_str()) => hub(rest, text),
            Some(rest) if hubs::REGISTRY_HOSTS.contains(&lower.as_str()) => registry(hubs::REGISTRY_HOST, rest, text),
            Some(rest) if is_host(&lower) => registry(&lower, rest, text),
            Some(_) => hub(text, text),
            None => registry(hubs::REGISTRY_HOST, text, text),
        }
    }

    /// The place of the manifest; `None` for a file.
    pub(crate) fn key(&self) -> Option<Key> {
        let parts = match self {
            ModelName::Path(_) => return None,
            ModelName::Url { url, sha256 } => {
                let identity = sha256.map_or_else(|| Digest::of(url.as_bytes()), |d| d);
                ["url".to_owned(), "file".into(), identity.hex()[..32].to_owned(), "latest".into()]
            }
            ModelName::Hub { user, repo, tag, revision } => {
                let tag = tag.as_deref().unwrap_or("latest");
                let tag = revision.as_ref().map_or_else(|| tag.to_owned(), |r| format!("{tag}@{r}"));
                [hubs::HUB_HOST.to_owned(), user.clone(), repo.clone(), tag]
            }
            ModelName::Registry { host, namespace, model, tag } => {
                [host.clone(), namespace.clone(), model.clone(), tag.clone()]
            }
        };
        Some(Key(parts.map(|part| file_name(&part.to_lowercase()))))
    }

    /// Whether a pull could find it elsewhere.
    pub fn is_remote(&self) -> bool {
        !matches!(self, ModelName::Path(_))
    }

    /// The name as short as it is clear.
    pub fn short(&self) -> String {
        match self {
            ModelName::Registry { host, namespace, model, tag } if host == hubs::REGISTRY_HOST => {
                if namespace == "library" {
                    format!("{model}:{tag}")
                } else {
                    format!("{host}/{namespace}/{model}:{tag}")
                }
            }
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelName::Path(path) => write!(f, "{}", path.display()),
            ModelName::Url { url, sha256: None } => f.write_str(url),
            ModelName::Url { url, sha256: Some(digest) } => write!(f, "{url}#sha256={}", digest.hex()),
            ModelName::Hub { user, repo, tag, revision } => {
                write!(f, "{}/{user}/{repo}", hubs::HUB_HOST)?;
                if let Some(tag) = tag {
                    write!(f, ":{tag}")?;
                }
                revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
            }
            ModelName::Registry { host, namespace, model, tag } => write!(f, "{host}/{namespace}/{model}:{tag}"),
        }
    }
}

fn is_host(text: &str) -> bool {
    text.contains(['.', ':', '[']) || text == "localhost"
}

/// `user/repo[:tag][@revision]`.
fn hub(rest: &str, whole: &str) -> Result<ModelName> {
    let (rest, revision) = match rest.rsplit_once('@') {
        Some((rest, revision)) => (rest, Some(part(revision, "revision", whole)?)),
        None => (rest, None),
    };
    let (repository, tag) = match rest.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (rest, None),
    };
    let Some((user, repo)) = repository.split_once('/').filter(|(_, repo)| !repo.contains('/')) else {
        return Err(unreadable(whole));
    };
    let tag = tag.map(|tag| path_of_parts(tag, whole)).transpose()?;
    Ok(ModelName::Hub { user: part(user, "user", whole)?, repo: part(repo, "repository", whole)?, tag, revision })
}

/// `[namespace/]model[:tag]`.
fn registry(host: &str, rest: &str, whole: &str) -> Result<ModelName> {
    let host_ok = host.len() <= 255
        && host.chars().all(|c| c.is_ascii_alphanumeric() || "._-:[]".contains(c))
        && !host.contains("..")
        && host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    if !host_ok {
        return Err(unreadable(whole));
    }
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, tag),
        None => (rest, "latest"),
    };
    let (namespace, model) = path.split_once('/').unwrap_or(("library", path));
    Ok(ModelName::Registry {
        host: host.to_owned(),
        namespace: part(namespace, "namespace", whole)?,
        model: part(model, "model", whole)?,
        tag: part(tag, "tag", whole)?,
    })
}

/// An address; one of the hub's pages means the file on it.
fn url(text: &str) -> Result<ModelName> {
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    let sha256 = match fragment.strip_prefix("sha256=") {
        Some(digest) => Some(Digest::parse(digest).map_err(|e| Error::name(e.what))?),
        None => None,
    };
    let wrong =
        |why: &str| Error::name(format!("{} cannot be fetched: {why}", address.chars().take(200).collect::<String>()));
    let parsed = reqwest::Url::parse(address).map_err(|e| wrong(&e.to_string()))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong("an address must not hold a password"));
    }
    let host = parsed.host_str().unwrap_or("").to_lowercase();
    if hubs::HUB_HOSTS.contains(&host.as_str()) {
        let parts: Vec<&str> = parsed.path().trim_matches('/').split('/').collect();
        match parts.as_slice() {
            [user, repo] => return hub(&format!("{user}/{repo}"), text),
            [user, repo, "tree", revision] => return hub(&format!("{user}/{repo}@{revision}"), text),
            [user, repo, "resolve" | "blob", revision, file @ ..] if sha256.is_none() => {
                return hub(&format!("{user}/{repo}:{}@{revision}", file.join("/")), text);
            }
            _ => {}
        }
    }
    if !crate::http::may_ask(&parsed) {
        return Err(wrong("use https; plain http is for this machine only"));
    }
    if !parsed.path().to_lowercase().ends_with(".gguf") {
        return Err(wrong("the address must be that of a .gguf file"));
    }
    Ok(ModelName::Url { url: parsed.to_string(), sha256 })
}

fn unreadable(whole: &str) -> Error {
    let shown: String = whole.chars().take(80).collect();
    Error::name(format!(
        "{shown:?} is no model's name: give NAME[:TAG], USER/REPO[:QUANT], HOST/NAMESPACE/NAME:TAG, an https address or a file"
    ))
}

/// A part of a name, which is to be a file's name on every system.
fn part(text: &str, kind: &str, whole: &str) -> Result<String> {
    let why = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > MAX_PART {
        format!("has more than {MAX_PART} characters")
    } else if !text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        "has characters other than letters, digits, `.`, `_` and `-`".to_owned()
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') || text.ends_with('.') {
        "begins or ends with a sign".to_owned()
    } else if text.contains("..") {
        "has `..` in it".to_owned()
    } else if is_device(text) {
        "is a device's name on Windows".to_owned()
    } else {
        return Ok(text.to_owned());
    };
    let shown: String = whole.chars().take(80).collect();
    Err(Error::name(format!("{shown:?} is no model's name: its {kind} {why}")))
}

/// The name of a file in a repository.
fn path_of_parts(text: &str, whole: &str) -> Result<String> {
    let parts: Result<Vec<String>> = text.split('/').take(9).map(|p| part(p, "tag", whole)).collect();
    Ok(parts?.join("/"))
}

/// Names that Windows keeps for devices, whatever their ending.
pub(crate) fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or("").to_ascii_lowercase();
    let numbered = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
    matches!(stem.as_str(), "con" | "prn" | "aux" | "nul" | "conin$" | "conout$")
        || numbered.is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
}

/// A part as a file's name: what file systems read otherwise is written `%XX`.
fn file_name(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for c in part.chars() {
        match c {
            '/' => out.push('+'),
            c if c.is_ascii_alphanumeric() || "._-@".contains(c) => out.push(c),
            c => out.push_str(&format!("%{:02x}", c as u32)),
        }
    }
    out
}

/// What [`file_name`] wrote.
pub(crate) fn from_file_name(name: &str) -> String {
    name.replace("%3a", ":").replace("%5b", "[").replace("%5d", "]").replace('+', "/")
}
