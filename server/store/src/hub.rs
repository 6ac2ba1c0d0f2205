//! Repositories of the hub: their files, the choice among them, and files at an address.

use std::sync::Arc;

use reqwest::{Method, Url, header};
use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::http::{self, Answer, Auth, Http, Retry};
use crate::name::ModelName;
use crate::plan::{Blob, Plan};
use crate::quant::{self, Choice};
use crate::settings::Settings;
use crate::store::Store;

/// A repository's description may have so many bytes.
const MAX_ANSWER: u64 = 32 << 20;

/// A repository may have so many files.
const MAX_FILES: usize = 50_000;

#[derive(Debug, Deserialize)]
struct Repository {
    #[serde(default)]
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// The hub's address, and the key for it alone.
pub(crate) fn hub(settings: &Settings) -> Result<(Url, Arc<Auth>)> {
    let url = http::address(&settings.hub, "HF_ENDPOINT")?;
    let auth = Auth::key(&url, settings.hub_token.clone());
    Ok((url, Arc::new(auth)))
}

/// Asks what a repository holds.
async fn repository(http: &Http, base: &Url, auth: &Auth, name: &ModelName) -> Result<Repository> {
    let ModelName::Hub { user, repo, revision, .. } = name else { return Err(Error::name("no repository is named")) };
    let revision = revision.as_deref().unwrap_or("main");
    let mut url = http::below(base, ["api", "models", user, repo, "revision", revision]);
    url.query_pairs_mut().append_pair("blobs", "true");
    let (body, _) = http.get(&url, Some(auth), &[], MAX_ANSWER).await.map_err(|e| match e.kind {
        // Who may not read a repository is told that there is none.
        Kind::Denied | Kind::NotFound => Error {
            what: format!(
                "there is no {user}/{repo} (revision {revision}) that may be read: {}; check the name, and if the \
                 repository is private or asks for consent, give a key in HF_TOKEN",
                e.what
            ),
            ..e
        },
        _ => e,
    })?;
    let host = base.host_str().unwrap_or("").to_owned();
    let found: Repository = serde_json::from_slice(&body)
        .map_err(|e| Error::corrupt(format!("{host} describes {user}/{repo} in no known way: {e}")))?;
    if found.siblings.len() > MAX_FILES {
        return Err(Error::corrupt(format!("{user}/{repo} has more than {MAX_FILES} files")));
    }
    Ok(found)
}

/// What a model of the hub is made of.
pub(crate) async fn plan(store: &Store, http: &Http, name: &ModelName) -> Result<Plan> {
    let ModelName::Hub { user, repo, tag, revision } = name else { return Err(Error::name("no repository is named")) };
    let (base, auth) = hub(&store.settings)?;
    let found = repository(http, &base, &auth, name).await?;
    let names: Vec<&str> = found.siblings.iter().map(|s| s.rfilename.as_str()).collect();
    let choice = quant::choose(&names, tag.as_deref(), &format!("{user}/{repo}"))?;
    // The commit, so that all files are of one; it must be one to stand in an address.
    let commit =
        Some(found.sha.as_str()).filter(|s| s.len() >= 7 && s.len() <= 64 && s.chars().all(|c| c.is_ascii_hexdigit()));
    let commit = commit.or(revision.as_deref()).unwrap_or("main");
    let (role, files, split) = match &choice {
        Choice::Gguf(files) => ("model", files, files.len() > 1),
        Choice::Safetensors(files) => ("file", files, true),
    };
    let mut blobs = Vec::new();
    for file in files {
        let sibling = found.siblings.iter().find(|s| s.rfilename == *file);
        let lfs = sibling.and_then(|s| s.lfs.as_ref());
        let digest = lfs.and_then(|l| l.sha256.as_deref()).map(Digest::parse).transpose()?;
        let size = lfs.and_then(|l| l.size).or(sibling.and_then(|s| s.size));
        let parts = [user.as_str(), repo, "resolve", commit].into_iter().chain(file.split('/'));
        let title = split.then(|| file.clone());
        blobs.push(Blob {
            url: http::below(&base, parts),
            auth: Some(Arc::clone(&auth)),
            digest,
            size,
            etag: None,
            role,
            title,
        });
    }
    let mut plan = Plan::new(name, &base, blobs);
    plan.aside = names.iter().filter(|n| quant::is_projector(n)).take(8).map(|n| (*n).to_owned()).collect();
    Ok(plan)
}

/// What there is at an address.
pub(crate) async fn plan_of_url(http: &Http, name: &ModelName) -> Result<Plan> {
    let ModelName::Url { url, sha256 } = name else { return Err(Error::name("no address is named")) };
    let url = Url::parse(url).map_err(|e| Error::name(e.to_string()))?;
    let range = [(header::RANGE, "bytes=0-0".to_owned())];
    let mut retry = Retry::new(http);
    let Answer { response, .. } = loop {
        match http.send(Method::GET, &url, None, &range, None).await {
            Ok(answer) => break answer,
            Err(trouble) => retry.after(trouble).await?,
        }
    };
    let text = |name: header::HeaderName| response.headers().get(name).and_then(|v| v.to_str().ok());
    let size = match response.status().as_u16() {
        206 => text(header::CONTENT_RANGE).and_then(|r| r.rsplit('/').next()?.parse().ok()),
        _ => response.content_length(),
    };
    // A weak one says nothing of single bytes.
    let etag = text(header::ETAG).filter(|e| e.starts_with('"')).map(str::to_owned);
    let etag = etag.filter(|_| response.status().as_u16() == 206);
    let blob = Blob { url: url.clone(), auth: None, digest: *sha256, size, etag, role: "model", title: None };
    Ok(Plan::new(name, &url, vec![blob]))
}

/// A repository that a search found.
#[derive(Debug, Clone)]
pub struct Hit {
    /// `user/repo`.
    pub name: String,
    /// How often it was fetched in the last month.
    pub downloads: u64,
    /// How many people like it.
    pub likes: u64,
    /// What a pull without a quantisation fetches: its label and bytes.
    pub default: Option<(String, u64)>,
}

impl Store {
    /// Searches the hub for GGUF repositories, those that are fetched most first.
    ///
    /// # Errors
    /// The hub cannot be asked.
    pub fn search(&self, words: &str, most: usize) -> Result<Vec<Hit>> {
        let stop = crate::progress::Shared::new().stopped();
        crate::pull::on_a_thread(|runtime| {
            let http = Http::new(self.settings.tuning.clone(), stop)?;
            runtime.block_on(search(&self.settings, &http, words, most))
        })
    }
}

async fn search(settings: &Settings, http: &Http, words: &str, most: usize) -> Result<Vec<Hit>> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(alias = "modelId")]
        id: String,
        #[serde(default)]
        downloads: u64,
        #[serde(default)]
        likes: u64,
    }
    let (base, auth) = hub(settings)?;
    let mut url = http::below(&base, ["api", "models"]);
    let limit = most.to_string();
    for (key, value) in
        [("search", words), ("filter", "gguf"), ("sort", "downloads"), ("direction", "-1"), ("limit", &limit)]
    {
        url.query_pairs_mut().append_pair(key, value);
    }
    let (body, _) = http.get(&url, Some(&auth), &[], MAX_ANSWER).await?;
    let rows: Vec<Row> = serde_json::from_slice(&body)
        .map_err(|e| Error::corrupt(format!("{} answers the search in no known way: {e}", settings.hub)))?;
    let mut hits = Vec::new();
    for row in rows.into_iter().take(most) {
        let Ok(name) = ModelName::parse(&format!("{}/{}", crate::hubs::HUB_HOST, row.id)) else { continue };
        // A repository that may not be read is listed all the same.
        let default = match repository(http, &base, &auth, &name).await {
            Ok(found) => default_of(&found),
            Err(e) if e.kind == Kind::Network => return Err(e),
            Err(_) => None,
        };
        hits.push(Hit { name: row.id, downloads: row.downloads, likes: row.likes, default });
    }
    Ok(hits)
}

fn default_of(found: &Repository) -> Option<(String, u64)> {
    let names: Vec<&str> = found.siblings.iter().map(|s| s.rfilename.as_str()).collect();
    let Ok(Choice::Gguf(files)) = quant::choose(&names, None, "") else { return None };
    let size = |file: &String| {
        let sibling = found.siblings.iter().find(|s| s.rfilename == *file)?;
        sibling.lfs.as_ref().and_then(|l| l.size).or(sibling.size)
    };
    let bytes = files.iter().map(size).sum::<Option<u64>>()?;
    Some((quant::groups(&[files[0].as_str()]).first()?.label(), bytes))
}
