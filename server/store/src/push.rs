//! [`Store::push`]: a model to a registry that takes it.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use reqwest::{Method, Url, header};

use crate::error::{Error, Kind, Result};
use crate::http::{Answer, Auth, Http, Retry, Trouble};
use crate::hubs;
use crate::manifest::{Layer, MANIFEST_TYPE, Manifest};
use crate::name::ModelName;
use crate::progress::{Event, Shared, Watcher};
use crate::registry;
use crate::store::Store;

/// Bytes that are sent at once.
const PIECE: u64 = 16 << 20;

impl Store {
    /// Sends a model to the registry that its name says.
    ///
    /// # Errors
    /// There is no such model, or no registry in its name that takes models from here.
    pub fn push(self: &Arc<Store>, name: &ModelName) -> Result<Watcher> {
        let ModelName::Registry { host, .. } = name else {
            return Err(Error::unsupported(
                "only registries take models from here: give the model a name with a registry's host, as in \
                 `ir cp MODEL 127.0.0.1:5000/me/model`, and push that",
            ));
        };
        if host == hubs::REGISTRY_HOST && self.settings.registry == hubs::REGISTRY {
            return Err(Error::unsupported(format!(
                "{host} takes models from its own accounts only, whose keys this program does not have; a registry of your \
                 own takes them: `ir cp MODEL HOST/NAMESPACE/MODEL`, and push that"
            )));
        }
        let key = name.key().ok_or_else(|| Error::name("that is a file"))?;
        let bytes = self.manifest_bytes(&key)?.ok_or_else(|| self.unknown(name))?;
        let shared = Shared::new();
        let watcher = shared.watch().ok_or_else(Error::cancelled)?;
        let (store, name) = (Arc::clone(self), name.clone());
        let work = move || {
            let result = crate::pull::on_a_thread(|runtime| {
                let http = Http::new(store.settings.tuning.clone(), shared.stopped())?;
                runtime.block_on(send(&store, &http, &name, &bytes, &shared))
            });
            shared.end(result);
        };
        let started = std::thread::Builder::new().name("ir-push".into()).spawn(work);
        started.map_err(|e| Error::unsupported(format!("cannot start a thread: {e}")))?;
        Ok(watcher)
    }
}

async fn send(store: &Store, http: &Http, name: &ModelName, bytes: &[u8], shared: &Shared) -> Result {
    let ModelName::Registry { host, tag, .. } = name else { return Ok(()) };
    shared.status("retrieving manifest");
    let manifest = Manifest::parse(bytes)?;
    let (base, auth) = registry::registry(&store.settings, host)?;
    for (i, layer) in manifest.blobs().enumerate() {
        let digest = layer.digest()?;
        if !store.has_blob(&digest, Some(layer.size))? {
            return Err(Error::corrupt(format!("the blob {digest} is missing: `ir pull` fetches it again")));
        }
        shared.step(Event {
            status: format!("pushing {}", digest.short()),
            digest: Some(layer.digest.clone()),
            total: Some(layer.size),
            completed: None,
        });
        let mut retry = if i == 0 { Retry::first(http) } else { Retry::new(http) };
        while let Err(trouble) = blob(store, http, &base, &auth, name, layer, shared).await {
            retry.after(trouble).await?;
        }
    }
    shared.status("pushing manifest");
    let url = registry::address(&base, name, ["manifests", tag])?;
    let headers = [(header::CONTENT_TYPE, MANIFEST_TYPE.to_owned())];
    let mut retry = Retry::new(http);
    while let Err(trouble) = http.send(Method::PUT, &url, Some(&auth), &headers, Some(bytes.to_vec())).await {
        retry.after(trouble).await?;
    }
    shared.status("success");
    Ok(())
}

/// Sends a blob in pieces, unless the registry has it.
async fn blob(
    store: &Store,
    http: &Http,
    base: &Url,
    auth: &Auth,
    name: &ModelName,
    layer: &Layer,
    shared: &Shared,
) -> std::result::Result<(), Trouble> {
    let never = Trouble::Never;
    let there = registry::address(base, name, ["blobs", &layer.digest]).map_err(never)?;
    match http.send(Method::HEAD, &there, Some(auth), &[], None).await {
        Ok(_) => {
            shared.completed(layer.size, None);
            return Ok(());
        }
        Err(Trouble::Never(e)) if e.kind == Kind::NotFound => {}
        Err(trouble) => return Err(trouble),
    }
    let begin = registry::address(base, name, ["blobs", "uploads"]).map_err(never)?;
    let begin = crate::http::below(&begin, [""]);
    let mut at = location(&http.send(Method::POST, &begin, Some(auth), &[], Some(Vec::new())).await?)?;
    let path = store.blob(&layer.digest().map_err(never)?);
    let failed = |e: std::io::Error| never(Error::disk("read", &path, &e));
    let mut file = File::open(&path).map_err(failed)?;
    let mut sent = 0;
    while sent < layer.size {
        let mut piece = Vec::new();
        (&mut file).take(PIECE.min(layer.size - sent)).read_to_end(&mut piece).map_err(failed)?;
        if piece.is_empty() {
            return Err(never(Error::corrupt(format!("{} became shorter", path.display()))));
        }
        let end = sent + piece.len() as u64;
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_RANGE, format!("{sent}-{}", end - 1)),
        ];
        at = location(&http.send(Method::PATCH, &at, Some(auth), &headers, Some(piece)).await?)?;
        sent = end;
        shared.completed(sent, None);
    }
    at.query_pairs_mut().append_pair("digest", &layer.digest);
    http.send(Method::PUT, &at, Some(auth), &[], Some(Vec::new())).await.map(|_| ())
}

/// Where the registry wants the next piece.
fn location(answer: &Answer) -> std::result::Result<Url, Trouble> {
    let text = answer.response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let url = text.and_then(|t| answer.url.join(t).ok()).filter(crate::http::may_ask);
    url.ok_or_else(|| {
        Trouble::Never(Error::network("the registry does not say where the model's parts are to be sent"))
    })
}
