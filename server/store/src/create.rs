//! [`Store::create`]: a model of a Modelfile. Weights that the store has are shared; files are copied into it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ir_engine::builtin;
use ir_engine::file::ModelFile;
use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::gc::hash_file;
use crate::manifest::{Layer, MAX_TEXT, Manifest, NAME, TITLE};
use crate::modelfile::Modelfile;
use crate::name::ModelName;
use crate::place::parts;
use crate::pull::Wanted;
use crate::quant;
use crate::settings::Origin;
use crate::store::{Found, Store};

impl Store {
    /// Makes a model of this name. Paths in the Modelfile are relative to `folder`; without one, no path is allowed (as
    /// for clients of a server). `say` hears the steps, as Ollama's have them.
    ///
    /// # Errors
    /// What it is made from is not here or cannot be used, or the name cannot be given.
    pub fn create(
        &self,
        name: &ModelName,
        file: &Modelfile,
        folder: Option<&Path>,
        say: &mut dyn FnMut(&str),
    ) -> Result {
        let (Some(key), ModelName::Registry { .. }) = (name.key(), name) else {
            return Err(Error::name(format!(
                "{name} cannot be made here: give a plain name, as in my-model or my-model:small"
            )));
        };
        if !file.adapters.is_empty() {
            return Err(Error::unsupported(
                "adapters cannot be put on models yet: leave ADAPTER out, and give --lora FILE to ir run or ir serve",
            ));
        }
        let mut wanted = Wanted::new(self, std::iter::empty())?;
        let (mut layers, base) = match file.blobs.as_slice() {
            [] => self.base(&file.from, folder, &mut wanted, say)?,
            sent => (self.sent(sent, &mut wanted, say)?, None),
        };
        if let Some(kind) = &file.quantize {
            layers = self.quantized(layers, kind, &mut wanted, say)?;
        }
        let own = |role: &str| -> Result<Vec<String>> { base.as_ref().map_or(Ok(Vec::new()), |b| self.texts(b, role)) };
        let first = |texts: Vec<String>| texts.into_iter().next();
        let mut texts: Vec<(&str, String)> = Vec::new();
        let template = file.template.clone().map_or_else(|| own("template").map(first), |t| Ok(Some(t)))?;
        let system = file.system.clone().map_or_else(|| own("system").map(first), |t| Ok(Some(t)))?;
        texts.extend(template.map(|t| ("template", t)));
        texts.extend(system.map(|t| ("system", t)));
        let licenses = if file.licenses.is_empty() { own("license")? } else { file.licenses.clone() };
        texts.extend(licenses.into_iter().map(|l| ("license", l)));
        let mut parameters: Map<String, Value> =
            first(own("params")?).and_then(|p| serde_json::from_str(&p).ok()).unwrap_or_default();
        parameters.extend(file.parameters.clone());
        if !parameters.is_empty() {
            texts.push(("params", Value::Object(parameters).to_string()));
        }
        let messages: Vec<Value> =
            file.messages.iter().map(|(role, text)| json!({"role": role, "content": text})).collect();
        match first(own("messages")?) {
            Some(messages) if file.messages.is_empty() => texts.push(("messages", messages)),
            _ if !messages.is_empty() => texts.push(("messages", Value::Array(messages).to_string())),
            _ => {}
        }
        let _lock = self.lock()?;
        for (role, text) in texts {
            if text.len() as u64 > MAX_TEXT {
                return Err(Error::name(format!(
                    "the {role} has {} bytes, more than the {MAX_TEXT} that it may have",
                    text.len()
                )));
            }
            let digest = self.put(text.as_bytes())?;
            say(&format!("creating new layer {digest}"));
            layers.push(Layer::new(role, digest, text.len() as u64));
        }
        for layer in &layers {
            if !self.has_blob(&layer.digest()?, Some(layer.size))? {
                return Err(Error::corrupt(format!("the blob {} was removed meanwhile: try again", layer.digest)));
            }
        }
        let config = json!({ "model_format": "gguf" }).to_string();
        let config = Layer::new("", self.put(config.as_bytes())?, config.len() as u64);
        let mut manifest = Manifest::new(config, layers);
        manifest.annotations.insert(NAME.into(), name.short());
        manifest.annotations.extend(file.requires.clone().map(|r| ("ir.requires".to_owned(), r)));
        say("writing manifest");
        self.publish(&key, &manifest.bytes())?;
        say("success");
        Ok(())
    }

    /// The layers of the weights, and the model that they are of if it is one by name.
    fn base(
        &self,
        from: &str,
        folder: Option<&Path>,
        wanted: &mut Wanted,
        say: &mut dyn FnMut(&str),
    ) -> Result<(Vec<Layer>, Option<Found>)> {
        if let Some(digest) = from.strip_prefix('@') {
            return Ok((self.sent(&[(String::new(), digest.to_owned())], wanted, say)?, None));
        }
        if from.strip_suffix(":latest").unwrap_or(from).eq_ignore_ascii_case(builtin::NAME) {
            let digest = self.put(&builtin::bytes())?;
            wanted.add(self, &digest)?;
            say(&format!("creating new layer {digest}"));
            return Ok((vec![layer_of(&self.blob(&digest), digest)?], None));
        }
        if let Some(path) = folder.map(|f| f.join(from)).filter(|p| p.exists()) {
            return Ok((self.import(&path, wanted, say)?, None));
        }
        let name = ModelName::parse(from)?;
        if matches!(name, ModelName::Path(_)) {
            return Err(Error::new(Kind::NotFound, format!("there is no file {from:?}")));
        }
        let found = self.resolve(&name)?.ok_or_else(|| self.unknown(&name))?;
        if found.has_adapters() {
            return Err(Error::unsupported(format!("{name} has an adapter, and those of the store are not used yet")));
        }
        if found.origin != Origin::Store {
            return Ok((self.import(&found.path, wanted, say)?, Some(found)));
        }
        let manifest =
            found.manifest.clone().unwrap_or_else(|| Manifest::new(Layer::new("", Digest::of(b""), 0), Vec::new()));
        let layers: Vec<Layer> =
            manifest.layers.into_iter().filter(|l| matches!(l.role(), "model" | "file" | "projector")).collect();
        for layer in &layers {
            wanted.add(self, &layer.digest()?)?;
            say(&format!("using existing layer {}", layer.digest));
        }
        Ok((layers, Some(found)))
    }

    /// The layers of weights that a client has sent as blobs: the files' names and digests.
    fn sent(&self, files: &[(String, String)], wanted: &mut Wanted, say: &mut dyn FnMut(&str)) -> Result<Vec<Layer>> {
        if files.iter().any(|(name, _)| name.ends_with(".safetensors")) {
            return Err(Error::unsupported(
                "models are made of GGUF files: `ir convert` makes one of a folder of safetensors",
            ));
        }
        say("parsing GGUF");
        let mut layers = Vec::new();
        for (name, digest) in files {
            let digest = Digest::parse(digest)?;
            let path = self
                .blob_path(&digest)?
                .ok_or_else(|| Error::new(Kind::NotFound, format!("there is no blob {digest}")))?;
            wanted.add(self, &digest)?;
            let mut layer = layer_of(&path, digest)?;
            let stem = name.rsplit(['/', '\\']).next().unwrap_or("");
            if quant::part_of(stem.strip_suffix(".gguf").unwrap_or("")).is_some() {
                layer.annotations.insert(TITLE.into(), stem.to_owned());
                layer.title()?;
            } else if files.len() > 1 {
                return Err(Error::unsupported(format!(
                    "a model is made of one GGUF file or of all parts of one, and {name:?} is no part"
                )));
            } else {
                // Whoever sent it knows it by its name, and learns no path of this machine.
                let named = |e: ir_engine::error::Error| e.to_string().replace(&path.display().to_string(), name);
                ModelFile::open(&path).map_err(|e| Error::corrupt(named(e)))?;
            }
            say(&format!("using existing layer {digest}"));
            layers.push(layer);
        }
        layers.sort_by(|a, b| a.annotations.get(TITLE).cmp(&b.annotations.get(TITLE)));
        Ok(layers)
    }

    /// Copies a GGUF file, or all parts of one, into the store.
    fn import(&self, path: &Path, wanted: &mut Wanted, say: &mut dyn FnMut(&str)) -> Result<Vec<Layer>> {
        if path.is_dir() {
            return Err(Error::unsupported(format!("{} is a folder: give a GGUF file in FROM", path.display())));
        }
        say("parsing GGUF");
        ModelFile::open(path).map_err(|e| Error::corrupt(e.to_string()))?;
        let mut layers = Vec::new();
        for part in parts(path) {
            let metadata = std::fs::metadata(&part).map_err(|e| Error::disk("read", &part, &e))?;
            if !metadata.is_file() {
                return Err(Error::new(Kind::Disk, format!("{} is no file", part.display())));
            }
            let digest = self.copy_in(&part, metadata.len())?;
            wanted.add(self, &digest)?;
            say(&format!("creating new layer {digest}"));
            layers.push(layer_of(&part, digest)?);
        }
        Ok(layers)
    }

    /// Copies a file to the blobs. Where the file system shares copies, it takes no room.
    fn copy_in(&self, path: &Path, size: u64) -> Result<Digest> {
        let known = hash_file(path)?;
        if self.has_blob(&known, Some(size))? {
            return Ok(known);
        }
        self.expect_space(size)?;
        disk::make_folders(&self.settings.root, &["blobs"])?;
        let temporary = self.blob(&known).with_extension(format!("{}.tmp", std::process::id()));
        let copied = std::fs::copy(path, &temporary).map_err(|e| Error::disk("copy", path, &e));
        // What was copied counts: the file may have changed since.
        let digest = copied.and_then(|_| hash_file(&temporary));
        let kept = digest.and_then(|digest| {
            let blob = self.blob(&digest);
            std::fs::rename(&temporary, &blob).map_err(|e| Error::disk("write", &blob, &e)).map(|()| digest)
        });
        if kept.is_err() {
            disk::remove(&temporary)?;
        }
        kept
    }

    /// Stores a blob that a client sends.
    ///
    /// # Errors
    /// It cannot be written, or its digest is another.
    pub fn put_blob(&self, digest: &Digest, from: &mut dyn std::io::Read) -> Result {
        disk::make_folders(&self.settings.root, &["blobs"])?;
        if self.has_blob(digest, None)? {
            return Ok(());
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.own("partial", &format!("sent-{}-{number}-{}", std::process::id(), digest.hex()))?;
        // What a killed process of the same number left.
        disk::remove(&temporary)?;
        let mut write = || -> Result<Digest> {
            let failed = |e: std::io::Error| Error::disk("write", &temporary, &e);
            let mut file = std::fs::File::create_new(&temporary).map_err(failed)?;
            std::io::copy(from, &mut file).map_err(failed)?;
            file.sync_data().map_err(failed)?;
            hash_file(&temporary)
        };
        let found = write();
        let result = found.and_then(|found| {
            if found != *digest {
                return Err(Error::corrupt(format!("digest mismatch, expected {digest}, got {found}")));
            }
            let blob = self.blob(digest);
            std::fs::rename(&temporary, &blob).map_err(|e| Error::disk("write", &blob, &e))
        });
        if result.is_err() {
            disk::remove(&temporary)?;
        }
        result
    }
}

fn layer_of(path: &Path, digest: Digest) -> Result<Layer> {
    let size = std::fs::metadata(path).map_err(|e| Error::disk("read", path, &e))?.len();
    let mut layer = Layer::new("model", digest, size);
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    if quant::part_of(name.strip_suffix(".gguf").unwrap_or("")).is_some() {
        layer.annotations.insert(TITLE.into(), name.to_owned());
        layer.title()?;
    }
    Ok(layer)
}
