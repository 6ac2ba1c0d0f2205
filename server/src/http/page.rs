//! `/ui`: the browser page's files from a folder, with the headers that its threads need. The page computes in the browser
//! and asks this server for nothing else.

use std::path::Path;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Redirect, Response};
use axum::routing::get;
use tower::ServiceBuilder;
use tower_http::services::ServeDir;

use crate::generate::hub::Hub;

/// What each answer says beside its file. Where scripts may come from is in the page itself, which knows which hosts it
/// was built for; what no page can say of itself is here.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-cache"),
];

/// The routes of a folder.
pub(crate) fn routes(folder: &Path) -> Router<Hub> {
    let with_headers = |mut response: Response<_>| {
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    };
    let files = ServiceBuilder::new().map_response(with_headers).service(ServeDir::new(folder));
    Router::new().route("/ui", get(async || Redirect::permanent("/ui/"))).nest_service("/ui/", files)
}
