//! [`Manifest`]: which blobs make a model, as Docker's registries write it and Ollama's stores keep it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// A manifest may have so many bytes.
pub(crate) const MAX_MANIFEST: u64 = 1 << 20;

/// A text layer (template, system prompt, licence, parameters) may have so many.
pub(crate) const MAX_TEXT: u64 = 4 << 20;

/// A blob may have so many: a pebibyte.
const MAX_BLOB: u64 = 1 << 50;

/// A manifest may name so many blobs.
const MAX_LAYERS: usize = 2000;

/// The form of manifest that is written.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The form of a config that is written.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";

/// The annotation with a file's name.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";

/// The annotation with the model's name as it was written.
pub(crate) const NAME: &str = "ir.name";

/// The annotation with the file names of projectors that were left where they are.
pub(crate) const PROJECTORS: &str = "ir.projectors";

const LAYER_PREFIX: &str = "application/vnd.ollama.image.";

/// The blobs of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The form.
    #[serde(default)]
    pub media_type: String,
    /// The config's blob.
    pub config: Layer,
    /// The others, in order.
    #[serde(default)]
    pub layers: Vec<Layer>,
    /// What else is known of the model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A blob and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// What it is: see [`Layer::role`].
    #[serde(default)]
    pub media_type: String,
    /// `sha256:HEX`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// What else is known of the blob.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Layer {
    /// A layer with this role.
    pub(crate) fn new(role: &str, digest: Digest, size: u64) -> Layer {
        let media_type = format!("{LAYER_PREFIX}{role}");
        Layer { media_type, digest: digest.to_string(), size, annotations: BTreeMap::new() }
    }

    /// `model`, `template`, `system`, `params`, `license`, `messages`, `adapter`, `projector`, `file`; empty for others.
    pub fn role(&self) -> &str {
        self.media_type.strip_prefix(LAYER_PREFIX).unwrap_or("")
    }

    /// The blob's digest.
    ///
    /// # Errors
    /// It is none.
    pub fn digest(&self) -> Result<Digest> {
        if !self.digest.starts_with("sha256:") {
            return Err(Error::corrupt(format!(
                "a manifest names the blob {:?}, which is no sha256 digest",
                self.digest.chars().take(90).collect::<String>()
            )));
        }
        Digest::parse(&self.digest)
    }

    /// The file's name, if one is noted: the last part of a path, fit to be a file's name anywhere.
    ///
    /// # Errors
    /// It is not fit.
    pub fn title(&self) -> Result<Option<&str>> {
        let Some(title) = self.annotations.get(TITLE) else { return Ok(None) };
        let name = title.rsplit('/').next().unwrap_or("");
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+ ()[]@,=".contains(c));
        let fit = plain && name.len() <= 255 && !name.starts_with('.') && !name.ends_with(['.', ' ']);
        if !fit || name.is_empty() || crate::name::is_device(name) {
            let shown: String = title.chars().take(80).collect();
            return Err(Error::corrupt(format!("{shown:?} cannot be used as a file's name")));
        }
        Ok(Some(name))
    }
}

impl Manifest {
    /// A manifest with these blobs.
    pub(crate) fn new(config: Layer, layers: Vec<Layer>) -> Manifest {
        let config = Layer { media_type: CONFIG_TYPE.into(), ..config };
        Manifest { schema_version: 2, media_type: MANIFEST_TYPE.into(), config, layers, annotations: BTreeMap::new() }
    }

    /// Reads a manifest and checks every digest, size and file name in it.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(Error::corrupt(format!("the manifest has more than {MAX_MANIFEST} bytes")));
        }
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|e| Error::corrupt(format!("the manifest cannot be read: {e}")))?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(Error::corrupt(format!("the manifest names more than {MAX_LAYERS} blobs")));
        }
        for layer in manifest.blobs() {
            layer.digest()?;
            layer.title()?;
            if layer.size > MAX_BLOB {
                return Err(Error::corrupt(format!("the manifest names a blob of {} bytes", layer.size)));
            }
        }
        let size = manifest.blobs().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
        size.map(|_| manifest).ok_or_else(|| Error::corrupt("the manifest's sizes add up to more than any disk holds"))
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// All blobs: the layers, then the config.
    pub fn blobs(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().chain([&self.config])
    }

    /// The layers of a role.
    pub fn with_role<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a Layer> {
        self.layers.iter().filter(move |layer| layer.role() == role)
    }

    /// Bytes of all blobs.
    pub fn size(&self) -> u64 {
        self.blobs().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}
