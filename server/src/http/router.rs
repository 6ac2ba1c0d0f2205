//! The routes together, and what stands around them: errors in the asked API's form, the guard of the `Host` header,
//! the key, origins of browsers.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};
use utoipa::{OpenApi, ToSchema};

use super::access_log::RequestCounts;
use super::{access_log, metrics, openapi, page};
use crate::api::common::body::{self as http, Asked};
use crate::api::common::dialect::{Dialect, status};
use crate::api::common::ignored::IgnoredCounts;
use crate::api::common::openai_error::OPENAI;
use crate::api::{anthropic, llama, ollama, openai, responses};
use crate::engine::error::{ApiError, Kind, cut};
use crate::generate::hub::Hub;

/// Who may ask, and what is shown to anyone.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Keys, one of which every request must bring as a bearer token or `x-api-key`; empty: none is needed.
    pub keys: Vec<String>,
    /// Origins of web pages that may ask, beside those of this machine; `*` is any.
    pub origins: Vec<String>,
    /// Whether only `Host` headers of this machine and of private networks are served: against DNS rebinding.
    pub check_host: bool,
    /// The browser page's folder, shown at `/ui` to anyone.
    pub page: Option<PathBuf>,
}

/// An API as the router takes it.
pub(super) struct ServedApi {
    /// Its addresses.
    routes: Router<Hub>,
    /// How it writes errors.
    dialect: Dialect,
    /// What it says of itself.
    pub(super) description: utoipa::openapi::OpenApi,
}

/// All APIs.
pub(super) fn apis() -> [ServedApi; 5] {
    let api = |routes, dialect, description| ServedApi { routes, dialect, description };
    [
        api(ollama::routes(), ollama::DIALECT, ollama::Api::openapi()),
        api(openai::routes(), OPENAI, openai::Api::openapi()),
        api(responses::routes(), OPENAI, responses::Api::openapi()),
        api(anthropic::routes(), anthropic::DIALECT, anthropic::Api::openapi()),
        api(llama::routes(), llama::DIALECT, llama::Api::openapi()),
    ]
}

/// The whole server as a service.
pub fn router(hub: Hub, guard: Guard) -> Router {
    // Who may ask at all is `check_origin`' to say: here each gets its own origin back.
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods(AllowMethods::list([Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::PUT]))
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(Duration::from_secs(12 * 3600));
    let page = guard.page.as_deref().map(page::routes).unwrap_or_default();
    let mut routes = Router::new()
        .merge(page)
        .route("/", get(root))
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/api/health", get(api_health))
        .route("/metrics", get(metrics_page))
        .merge(openapi::routes());
    let mut dialects = Vec::new();
    for api in apis() {
        routes = routes.merge(api.routes);
        dialects.push(api.dialect);
    }
    let (dialects, requests) = (Dialects(dialects.into()), Arc::new(RequestCounts::default()));
    let ignored = Arc::new(IgnoredCounts::default());
    let origin_state = (guard.clone(), dialects.clone());
    routes
        .fallback(async |uri: Uri| ApiError::not_found(unknown_address(uri.path())))
        .method_not_allowed_fallback(async || ApiError::new(Kind::Method, "405 method not allowed"))
        .with_state(hub)
        .layer(Extension(Arc::clone(&requests)))
        .layer(Extension(ignored))
        .layer(from_fn_with_state(guard, check_key))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::new(Kind::Internal, "the server failed within: its log says more").into_response()
        }))
        .layer(from_fn_with_state(dialects, render_errors))
        .layer(cors)
        .layer(from_fn_with_state(origin_state, check_origin))
        .layer(from_fn_with_state(requests, access_log::access_log))
}

#[derive(OpenApi)]
#[openapi(paths(root, health, api_health, metrics_page))]
pub(super) struct Api;

/// Says that the server runs
#[utoipa::path(get, path = "/", responses((status = 200, description = "It runs", body = String, content_type = "text/plain")))]
async fn root() -> &'static str {
    "Ollama is running (this one is ir)"
}

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// Says whether the server is well
#[utoipa::path(get, path = "/health", responses((status = 200, description = "It is", body = Health)))]
async fn health() -> Response {
    http::json(&Health { status: "ok" })
}

/// Says whether the server is well
#[utoipa::path(get, path = "/api/health", responses((status = 200, description = "It is", body = Health)))]
async fn api_health() -> Response {
    health().await
}

/// Shows what was counted, for Prometheus
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "The counts", body = String, content_type = "text/plain")))]
async fn metrics_page(
    State(hub): State<Hub>,
    Extension(requests): Extension<Arc<RequestCounts>>,
    Extension(ignored): Extension<Arc<IgnoredCounts>>,
) -> Response {
    metrics::metrics(&hub, &requests, &ignored)
}

/// What is said of an address that nobody answers: clients that were given a base URL with a part too few or too many are
/// told which.
fn unknown_address(path: &str) -> String {
    let begins = |known: &[&str], path: &str| {
        known.iter().any(|k| path.strip_prefix(k).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    let bare = ["/chat/completions", "/completions", "/embeddings", "/models", "/responses", "/messages"];
    let advice = match path.strip_prefix("/v1") {
        None if begins(&bare, path) => format!("the address is /v1{path}: end the base URL with /v1"),
        Some(rest) if begins(&["/v1"], rest) => format!("the address is {rest}: the base URL has a /v1 too many"),
        Some(rest) if begins(&["/api"], rest) => format!("the address is {rest}: end the base URL in front of /v1"),
        _ => return "404 page not found".into(),
    };
    format!("404 page not found: {advice}")
}

/// How each API writes errors.
#[derive(Debug, Clone)]
struct Dialects(Arc<[Dialect]>);

impl Dialects {
    /// An error in the form of the API that an address belongs to.
    fn response(&self, path: &str, error: &ApiError) -> Response {
        let fitting = self.0.iter().filter_map(|d| Some((d.fits(path)?, d)));
        match fitting.max_by_key(|(length, _)| *length) {
            Some((_, dialect)) => dialect.response(error),
            None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// Writes an [`ApiError`] in the form of the API that was asked.
async fn render_errors(State(dialects): State<Dialects>, mut request: Request, next: Next) -> Response {
    let (path, asked) = (request.uri().path().to_owned(), Asked::default());
    let agent = request.headers().get(header::USER_AGENT).and_then(|v| v.to_str().ok()).map(|v| cut(v, 120));
    request.extensions_mut().insert(asked.clone());
    let response = next.run(request).await;
    match response.extensions().get::<ApiError>() {
        Some(error) => {
            let (status, field, why) = (status(error.kind).as_u16(), error.param.as_deref(), error.message.as_str());
            let model = asked.model().map(|name| cut(&name, 120));
            tracing::info!(path = cut(&path, 200), status, field, model, user_agent = agent, why, "refused");
            dialects.response(&path, error)
        }
        None => response,
    }
}

/// Lets through hosts and web pages that may ask, as Ollama does: strangers get 403, and what browsers ask beforehand 204.
async fn check_origin(State((guard, dialects)): State<(Guard, Dialects)>, request: Request, next: Next) -> Response {
    if guard.check_host && !host(&request).is_none_or(host_allowed) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let origin = request.headers().get(header::ORIGIN);
    if !origin.is_none_or(|o| o.to_str().is_ok_and(|o| is_own(o, &request) || origin_allowed(o, &guard.origins))) {
        let sentence = "pages of this origin may not ask this server: start it with --cors and the origin";
        return dialects.response(request.uri().path(), &ApiError::new(Kind::Forbidden, sentence));
    }
    let beforehand = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    if beforehand && response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    response
}

/// Whether a page is this server's own.
fn is_own(origin: &str, request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    let bare = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    bare.is_some() && bare == host
}

/// Lets through who has a key, where one is needed.
async fn check_key(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    // Who watches whether the server lives needs no key.
    let path = request.uri().path();
    let open = ["/", "/health", "/v1/health", "/api/health", "/ui"].contains(&path) || path.starts_with("/ui/");
    if !guard.keys.is_empty() && !open && !keyed(headers, &guard.keys) {
        return ApiError::new(Kind::Unauthorized, "this server wants a key: send it as a bearer token").into_response();
    }
    next.run(request).await
}

/// The host that the client believes to talk to, without its port.
fn host(request: &Request) -> Option<&str> {
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    Some(match host.rsplit_once(':') {
        Some((name, after)) if port(after) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    })
}

/// Whether a host's name is one that no stranger's DNS can point here.
fn host_allowed(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local(),
        };
    }
    host == "localhost" || [".localhost", ".local", ".internal"].iter().any(|end| host.ends_with(end))
}

/// Whether a page of this origin may ask: those of this machine, of desktop programs, and those that were allowed.
fn origin_allowed(origin: &str, allowed: &[String]) -> bool {
    if allowed.iter().any(|a| a == "*" || a.trim_end_matches('/') == origin) {
        return true;
    }
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let host = rest.split(['/', ':']).next().unwrap_or("");
    match scheme {
        "http" | "https" => ["localhost", "127.0.0.1", "0.0.0.0"].contains(&host) || rest.starts_with("[::1]"),
        "app" | "file" | "tauri" | "vscode-webview" | "vscode-file" => true,
        _ => false,
    }
}

fn keyed(headers: &HeaderMap, keys: &[String]) -> bool {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
    let given = bearer.or_else(|| headers.get("x-api-key").map(HeaderValue::as_bytes));
    // Every key is compared, each in time that does not depend on where it differs.
    given.is_some_and(|given| keys.iter().fold(false, |found, key| same(given, key.as_bytes()) | found))
}

fn same(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(differs) == 0 && a.len() == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_strangers_are_refused() {
        for host in ["localhost", "127.0.0.1", "[::1]", "box.local", "a.localhost", "192.168.1.2", "x.internal"] {
            assert!(host_allowed(host), "{host}");
        }
        for host in ["evil.example", "8.8.8.8", "localhost.evil.example", "notlocalhost", ""] {
            assert!(!host_allowed(host), "{host}");
        }
    }

    #[test]
    fn origins_of_strangers_are_refused() {
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080", "tauri://localhost"] {
            assert!(origin_allowed(origin, &[]), "{origin}");
        }
        for origin in ["https://evil.example", "http://localhost.evil.example", "null", "http://127.0.0.1.evil"] {
            assert!(!origin_allowed(origin, &[]), "{origin}");
        }
        assert!(origin_allowed("https://good.example", &["https://good.example/".into()]));
    }

    #[test]
    fn an_address_has_the_errors_of_its_api() {
        let dialects = Dialects(apis().map(|api| api.dialect).into());
        let error = ApiError::invalid("no");
        let body = |path: &str| {
            let fitting = dialects.0.iter().filter_map(|d| Some((d.fits(path)?, d)));
            fitting.max_by_key(|(length, _)| *length).map(|(_, d)| (d.body)(&error)).unwrap_or_default()
        };
        for path in ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages/batches"] {
            assert_eq!(body(path)["type"], "error", "{path}");
        }
        for path in ["/v1/chat/completions", "/v1/responses", "/v1/rerank", "/v1/nothing", "/v1/messagesque"] {
            assert!(body(path)["error"]["code"].is_null() && body(path)["error"]["message"] == "no", "{path}");
        }
        for path in ["/tokenize", "/v1/health", "/completion", "/props"] {
            assert_eq!(body(path)["error"]["code"], 400, "{path}");
        }
        for path in ["/api/chat", "/", "/nothing", "/v1x"] {
            assert_eq!(body(path)["error"], "no", "{path}");
        }
    }

    #[test]
    fn a_base_url_with_a_part_too_few_or_too_many_is_told() {
        for (path, part) in [
            ("/chat/completions", "is /v1/chat/completions: end"),
            ("/models/ir-tiny", "is /v1/models/ir-tiny: end"),
            ("/v1/v1/messages", "is /v1/messages: the base URL has a /v1 too many"),
            ("/v1/api/chat", "is /api/chat: end"),
        ] {
            assert!(unknown_address(path).contains(part), "{}", unknown_address(path));
        }
        for path in ["/nothing", "/v1/nothing", "/modelsque", "/"] {
            assert_eq!(unknown_address(path), "404 page not found", "{path}");
        }
    }

    #[test]
    fn keys_are_compared_whole() {
        assert!(same(b"secret", b"secret"));
        for wrong in [&b"secre"[..], b"secret1", b"", b"Secret"] {
            assert!(!same(wrong, b"secret"));
        }
    }
}
