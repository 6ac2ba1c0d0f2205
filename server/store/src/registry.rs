//! Models of a registry: manifests and blobs by the protocol of Docker's registries, version 2.

use std::sync::Arc;

use reqwest::{Url, header};

use crate::error::{Error, Kind, Result};
use crate::http::{self, Auth, Http};
use crate::hubs;
use crate::manifest::{MANIFEST_TYPE, MAX_MANIFEST, MAX_TEXT, Manifest};
use crate::name::ModelName;
use crate::plan::{Blob, Plan};
use crate::settings::Settings;
use crate::store::Store;

/// A registry's address, and whatever token it sends us for.
pub(crate) fn registry(settings: &Settings, host: &str) -> Result<(Url, Arc<Auth>)> {
    let url = if host == hubs::REGISTRY_HOST {
        http::address(&settings.registry, "IR_REGISTRY")?
    } else {
        let parsed = |scheme: &str| Url::parse(&format!("{scheme}://{host}")).ok();
        let url = parsed("http").filter(http::is_loopback).or_else(|| parsed("https"));
        url.ok_or_else(|| Error::name(format!("{host:?} is no host")))?
    };
    let auth = Auth::registry(&url);
    Ok((url, Arc::new(auth)))
}

/// The address of something of a model in its registry.
pub(crate) fn address(base: &Url, name: &ModelName, what: [&str; 2]) -> Result<Url> {
    let ModelName::Registry { namespace, model, .. } = name else { return Err(Error::name("no registry is named")) };
    Ok(http::below(base, ["v2", namespace, model, what[0], what[1]]))
}

/// What a model of a registry is made of.
pub(crate) async fn plan(store: &Store, http: &Http, name: &ModelName) -> Result<Plan> {
    let ModelName::Registry { host, tag, .. } = name else { return Err(Error::name("no registry is named")) };
    let (base, auth) = registry(&store.settings, host)?;
    let url = address(&base, name, ["manifests", tag])?;
    let accept = [(header::ACCEPT, MANIFEST_TYPE.to_owned())];
    let (bytes, _) = http.get(&url, Some(&auth), &accept, MAX_MANIFEST).await.map_err(|e| match e.kind {
        Kind::NotFound | Kind::Denied => {
            Error { what: format!("the registry has no {}: {}", name.short(), e.what), kind: Kind::NotFound }
        }
        _ => e,
    })?;
    let named = |e: Error| Error { what: format!("{}: {}", name.short(), e.what), ..e };
    let manifest = Manifest::parse(&bytes).map_err(named)?;
    if manifest.with_role("model").next().is_none() && manifest.with_role("file").next().is_none() {
        return Err(Error::unsupported(format!("{} holds no GGUF model: it cannot be run here", name.short())));
    }
    let mut blobs = Vec::new();
    for layer in manifest.blobs() {
        let texts = ["template", "system", "license", "params", "messages"];
        if texts.contains(&layer.role()) && layer.size > MAX_TEXT {
            return Err(Error::corrupt(format!("{}: its {} has {} bytes", name.short(), layer.role(), layer.size)));
        }
        let digest = layer.digest()?;
        let url = address(&base, name, ["blobs", &digest.to_string()])?;
        let (size, auth) = (Some(layer.size), Some(Arc::clone(&auth)));
        blobs.push(Blob { url, auth, digest: Some(digest), size, etag: None, role: "", title: None });
    }
    blobs.dedup_by_key(|b| b.digest);
    Ok(Plan { manifest: Some(bytes), ..Plan::new(name, &base, blobs) })
}
