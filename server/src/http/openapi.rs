//! `/openapi.json`: all addresses in OpenAPI's form, put together from what each API lists of itself, and `/docs`, a plain
//! page of it that fetches nothing from elsewhere.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value as Json;
use utoipa::OpenApi;

use super::router;
use crate::api::common::body::json;
use crate::generate::hub::Hub;

#[derive(OpenApi)]
#[openapi(info(
    title = "ir",
    description = "Language models on this machine, through the APIs of Ollama, OpenAI, Anthropic and llama-server. \
        Coding clients: `ir launch CLIENT --print` shows what each is told.",
    license(name = "MIT OR Apache-2.0")
))]
struct Frame;

/// What each API lists of itself.
fn parts() -> Vec<utoipa::openapi::OpenApi> {
    let apis = router::apis().into_iter().map(|api| api.description);
    std::iter::once(router::Api::openapi()).chain(apis).collect()
}

/// The whole document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut all = Frame::openapi();
    for part in parts() {
        all.merge(part);
    }
    all
}

static JSON: LazyLock<Json> = LazyLock::new(|| serde_json::to_value(document()).unwrap_or(Json::Null));
static PAGE: LazyLock<String> = LazyLock::new(|| page(&JSON));

pub(crate) fn routes() -> Router<Hub> {
    Router::new().route("/openapi.json", get(async || json(&*JSON))).route("/docs", get(docs))
}

async fn docs() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, PAGE.as_str()).into_response()
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color-scheme:\
light dark}code,pre{font:13px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.6em;border:1px solid #8886}\
summary{cursor:pointer;padding:.3em 0}b{display:inline-block;min-width:4em}table{border-collapse:collapse}\
td{padding:.1em 1em .1em 0;vertical-align:top}";

/// The page: every address with its fields.
fn page(doc: &Json) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>ir: API</title><style>{STYLE}</style>\
         <h1>ir {}</h1><p>{}</p><p>The same for programs: <a href=\"/openapi.json\">/openapi.json</a>.</p>",
        text(&doc["info"]["version"]),
        text(&doc["info"]["description"])
    );
    for (path, methods) in doc["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let summary = text(&operation["summary"]);
            let (method, path) = (escape(&method.to_uppercase()), escape(path));
            let _ = write!(out, "<details><summary><b>{method}</b><code>{path}</code> {summary}</summary>");
            let _ = write!(out, "<p>{}</p>", text(&operation["description"]));
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            fields(doc, schema, &mut out);
            out.push_str("<table>");
            for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                let (status, what) = (escape(status), text(&response["description"]));
                let _ = write!(out, "<tr><td><code>{status}</code><td>{what}");
            }
            out.push_str("</table></details>");
        }
    }
    out
}

/// A table of an object's fields; schemas that refer to another, or are put together of several, are followed.
fn fields(doc: &Json, schema: &Json, out: &mut String) {
    let schema = resolved(doc, schema);
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fields(doc, part, out);
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    out.push_str("<table>");
    for (name, property) in properties {
        let star = if required.contains(&name.as_str()) { "*" } else { "" };
        let (name, kind) = (escape(name), escape(&kind(property)));
        let what = text(&property["description"]);
        let _ = write!(out, "<tr><td><code>{name}{star}</code><td>{kind}<td>{what}");
    }
    out.push_str("</table>");
}

fn resolved<'a>(doc: &'a Json, schema: &'a Json) -> &'a Json {
    let name = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/components/schemas/"));
    name.map_or(schema, |name| &doc["components"]["schemas"][name])
}

/// A type in a word or two.
fn kind(schema: &Json) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or(name).to_owned();
    }
    if let Some(parts) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let parts: Vec<String> = parts.iter().map(kind).collect();
        return parts.join(" or ");
    }
    match &schema["type"] {
        Json::String(kind) if kind == "array" => format!("array of {}", self::kind(&schema["items"])),
        Json::String(kind) => kind.clone(),
        Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" or "),
        _ => "anything".into(),
    }
}

fn text(value: &Json) -> String {
    escape(value.as_str().unwrap_or(""))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_in_json_has_a_schema_of_its_own() {
        let mut n = 0;
        for (path, methods) in JSON["paths"].as_object().into_iter().flatten() {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    let Some(body) = response["content"].get("application/json") else { continue };
                    let mut schema = resolved(&JSON, &body["schema"]);
                    if schema["type"] == "array" {
                        schema = resolved(&JSON, &schema["items"]);
                    }
                    let known = ["properties", "allOf"].iter().any(|key| !schema[*key].is_null());
                    assert!(known, "{method} {path} {status}: {schema}");
                    n += 1;
                }
            }
        }
        assert!(n > 100, "{n}");
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        fn references<'a>(value: &'a Json, out: &mut Vec<&'a str>) {
            match value {
                Json::Object(map) => {
                    out.extend(map.get("$ref").and_then(Json::as_str));
                    map.values().for_each(|v| references(v, out));
                }
                Json::Array(all) => all.iter().for_each(|v| references(v, out)),
                _ => {}
            }
        }
        let mut all = Vec::new();
        references(&JSON, &mut all);
        assert!(!all.is_empty());
        for reference in all {
            assert!(JSON.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        let ids: Vec<&str> = JSON["paths"]
            .as_object()
            .into_iter()
            .flat_map(|paths| paths.values())
            .flat_map(|methods| methods.as_object().into_iter().flat_map(|m| m.values()))
            .filter_map(|o| o["operationId"].as_str())
            .collect();
        let unique: std::collections::BTreeSet<&&str> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len(), "{ids:?}");
    }

    #[test]
    fn a_schemas_name_means_one_thing() {
        let mut all: std::collections::BTreeMap<String, Json> = std::collections::BTreeMap::new();
        for part in parts() {
            for (name, schema) in part.components.into_iter().flat_map(|c| c.schemas) {
                let schema = serde_json::to_value(schema).unwrap_or_default();
                let known = all.entry(name.clone()).or_insert_with(|| schema.clone());
                assert_eq!(*known, schema, "{name}");
            }
        }
    }

    #[test]
    fn the_page_shows_every_address_and_no_markup_of_others() {
        for path in JSON["paths"].as_object().into_iter().flat_map(|p| p.keys()) {
            assert!(PAGE.contains(&escape(path)), "{path}");
        }
        assert_eq!(escape("<a b=\"&\">"), "&lt;a b=&quot;&amp;&quot;&gt;");
    }
}
