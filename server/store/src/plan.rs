//! [`Plan`]: what a pull will fetch, from where, and how much of it is missing.

use std::sync::Arc;

use reqwest::Url;

use crate::digest::Digest;
use crate::error::Result;
use crate::http::{ASKED, Auth, Http};
use crate::manifest::{Layer, Manifest, TITLE};
use crate::name::ModelName;
use crate::progress::Shared;
use crate::store::Store;

/// A file to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) url: Url,
    pub(crate) auth: Option<Arc<Auth>>,
    /// What its SHA-256 must be, if that is known.
    pub(crate) digest: Option<Digest>,
    /// Its bytes, if that is known.
    pub(crate) size: Option<u64>,
    /// What the other side calls this state of the file, if that is as good as a digest to go on by.
    pub(crate) etag: Option<String>,
    /// What it is in the manifest.
    pub(crate) role: &'static str,
    /// Its file's name, if the model needs it.
    pub(crate) title: Option<String>,
}

impl Blob {
    /// The name of its unfinished file: its digest, else that of its address.
    pub(crate) fn id(&self) -> String {
        self.digest.unwrap_or_else(|| Digest::of(self.url.as_str().as_bytes())).hex()
    }

    /// What an unfinished file must be of to be gone on with.
    pub(crate) fn identity(&self) -> String {
        match (&self.digest, &self.etag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(etag)) => format!("etag {}", Digest::of(etag.as_bytes()).hex()),
            // Nothing is known of it: it is never gone on with.
            (None, None) => format!("unknown {}", std::process::id()),
        }
    }

    /// Whether its parts may come apart from each other.
    pub(crate) fn can_resume(&self) -> bool {
        self.digest.is_some() || self.etag.is_some()
    }
}

/// What a pull will fetch.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The model.
    pub name: ModelName,
    /// The host that has it.
    pub source: String,
    /// Files of the model.
    pub files: usize,
    /// Bytes of all files, as far as they are known.
    pub bytes: u64,
    /// Bytes of those that are not here.
    pub missing: u64,
    /// Files that were left aside: projectors of models that see.
    pub aside: Vec<String>,
    pub(crate) blobs: Vec<Blob>,
    /// The manifest's bytes, if it is another's and is kept as it is.
    pub(crate) manifest: Option<Vec<u8>>,
}

impl Plan {
    pub(crate) fn new(name: &ModelName, url: &Url, blobs: Vec<Blob>) -> Plan {
        Plan {
            name: name.clone(),
            source: url.host_str().unwrap_or("").to_owned(),
            files: blobs.len(),
            bytes: blobs.iter().filter_map(|b| b.size).fold(0, u64::saturating_add),
            missing: 0,
            aside: Vec::new(),
            blobs,
            manifest: None,
        }
    }

    /// The manifest, once it is known what every file's digest and size are.
    pub(crate) fn manifest(&self, config: Layer, known: &[(Digest, u64)]) -> Manifest {
        let layers = self.blobs.iter().zip(known).map(|(blob, (digest, size))| {
            let mut layer = Layer::new(blob.role, *digest, *size);
            layer.annotations.extend(blob.title.clone().map(|title| (TITLE.to_owned(), title)));
            layer
        });
        let mut manifest = Manifest::new(config, layers.collect());
        manifest.annotations.insert(crate::manifest::NAME.into(), self.name.short());
        if !self.aside.is_empty() {
            manifest.annotations.insert(crate::manifest::PROJECTORS.into(), self.aside.join(", "));
        }
        manifest
    }
}

impl Store {
    /// Asks the hub or registry what a model is made of. Takes as long as that takes.
    ///
    /// # Errors
    /// Nothing of that name is there, or it cannot be asked.
    pub fn plan(&self, name: &ModelName) -> Result<Plan> {
        let shared = Shared::new();
        let stop = shared.stopped();
        let mut tuning = self.settings.tuning.clone();
        // Somebody waits for the answer.
        tuning.attempts = tuning.attempts.min(ASKED);
        crate::pull::on_a_thread(|runtime| {
            let http = Http::new(tuning, stop)?;
            runtime.block_on(make(self, &http, name))
        })
    }
}

/// The same where there is a client already.
pub(crate) async fn make(store: &Store, http: &Http, name: &ModelName) -> Result<Plan> {
    let mut plan = match name {
        ModelName::Hub { .. } => crate::hub::plan(store, http, name).await?,
        ModelName::Registry { .. } => crate::registry::plan(store, http, name).await?,
        ModelName::Url { .. } => crate::hub::plan_of_url(http, name).await?,
        ModelName::Path(path) => {
            return Err(crate::Error::name(format!(
                "{} is a file of this machine: there is nothing to pull",
                path.display()
            )));
        }
    };
    for blob in &plan.blobs {
        let here = match &blob.digest {
            Some(digest) => store.has_blob(digest, blob.size)?,
            None => false,
        };
        if !here {
            plan.missing = plan.missing.saturating_add(blob.size.unwrap_or(0));
        }
    }
    Ok(plan)
}
