//! What handlers share: the body of a request as JSON, who the client is, one JSON object as a response.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::ignored::Ignored;
use super::unpack::{encodings, too_large, unpacked};
use crate::engine::error::{ApiError, Kind};
use crate::engine::output_queue::lock;

/// Bytes of a body, at most.
pub const MAX_BODY: usize = 32 << 20;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// A request's JSON, whatever its `Content-Type` says.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (bytes, ignored) = read_object(request).await?;
        let (value, unknown) = parse_noting(&bytes)?;
        unknown.iter().for_each(|field| ignored.note(field));
        Ok(Body(value))
    }
}

/// A request's JSON that is a list.
#[derive(Debug)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for List<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (bytes, ignored) = read_any(request).await?;
        let (values, unknown) = parse_noting(&bytes)?;
        unknown.iter().for_each(|field| ignored.note(field));
        Ok(List(values))
    }
}

/// One object whose fields two structs describe: what several requests have in common, and the rest. Serde's `flatten`
/// would do the same, but its errors no longer know in which field they happened.
#[derive(Debug)]
pub(crate) struct Bodies<A, B>(pub(crate) A, pub(crate) B);

impl<S: Send + Sync, A: DeserializeOwned, B: DeserializeOwned> FromRequest<S> for Bodies<A, B> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (bytes, ignored) = read_object(request).await?;
        let ((common, unknown), (more, unknown_too)) = (parse_noting(&bytes)?, parse_noting(&bytes)?);
        for field in unknown.iter().filter(|field| holds(&unknown_too, field)) {
            ignored.note(field);
        }
        for field in unknown_too.iter().filter(|field| !unknown.contains(*field) && holds(&unknown, field)) {
            ignored.note(field);
        }
        Ok(Bodies(common, more))
    }
}

/// Whether a field, or one that it is within, is among these.
fn holds(fields: &BTreeSet<String>, field: &str) -> bool {
    let within = |(at, _): (usize, &str)| fields.contains(&field[..at]);
    fields.contains(field) || field.match_indices(['.', '[']).any(within)
}

/// The body of a request while it is answered: for the log, if it is refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<Bytes>>);

impl Asked {
    /// The model that it names.
    pub(crate) fn model(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            model: Option<String>,
        }
        let bytes = lock(&self.0).clone();
        serde_json::from_slice(&bytes)
            .or_else(|_| serde_json::from_str(&mended(&bytes)))
            .ok()
            .and_then(|n: Named| n.model)
    }
}

/// JSON as a type; errors name the field.
///
/// # Errors
/// What is no JSON, or of the wrong type.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    parse_noting(bytes).map(|(value, _)| value)
}

/// As [`parse`], with the fields that the type does not have.
fn parse_noting<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, BTreeSet<String>), ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::invalid("missing request body"));
    }
    match parse_once(bytes) {
        // JavaScript cuts texts in the middle of a character: only then is the body looked through.
        Err(refused) if refused.is_text => match mended(bytes) {
            Cow::Borrowed(_) => Err(refused.error),
            Cow::Owned(text) => parse_once(text.as_bytes()).map_err(|refused| refused.error),
        },
        other => other.map_err(|refused| refused.error),
    }
}

/// Why a body could not be read, and whether the form of a text was the reason.
struct Refused {
    error: ApiError,
    is_text: bool,
}

fn parse_once<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, BTreeSet<String>), Refused> {
    let mut unknown = BTreeSet::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        let mut name = String::new();
        named(&path, &mut name);
        unknown.insert(name);
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(&mut reader, &mut note));
    let value = value.map_err(|error| {
        let is_text = error.inner().is_syntax() || error.inner().is_eof();
        Refused { error: wrong_field(&error), is_text }
    })?;
    let end = reader.end();
    end.map_err(|e| Refused { error: ApiError::invalid(format!("the body is wrong: {e}")), is_text: false })?;
    Ok((value, unknown))
}

/// A field's place without the numbers of lists: `messages[].content`.
fn named(path: &serde_ignored::Path<'_>, out: &mut String) {
    use serde_ignored::Path;
    match path {
        Path::Root => {}
        Path::Seq { parent, .. } => {
            named(parent, out);
            out.push_str("[]");
        }
        Path::Map { parent, key } => {
            named(parent, out);
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(key);
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => named(parent, out),
    }
}

/// Stands in front of the place of an error within a value that was read by itself, and behind it.
const NESTED: char = '\u{1f}';

/// The error of a value that was read by itself, within that of the whole.
pub(super) fn nested<E: serde::de::Error>(error: serde_path_to_error::Error<serde_json::Error>) -> E {
    let path = error.path().to_string();
    E::custom(format!("{NESTED}{path}{NESTED}{}", error.inner()))
}

fn wrong_field(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let (mut path, mut what) = (error.path().to_string(), error.inner().to_string());
    let nothing = |path: &str| ["", ".", "?"].contains(&path);
    if nothing(&path) {
        path.clear();
    }
    // Values within values that were read by themselves.
    while let Some((inner, rest)) = what.strip_prefix(NESTED).and_then(|rest| rest.split_once(NESTED)) {
        if !nothing(inner) {
            path += &if path.is_empty() || inner.starts_with('[') { inner.to_owned() } else { format!(".{inner}") };
        }
        what = rest.to_owned();
    }
    // A missing field's place is that of the object which lacks it.
    let missing = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let field = match (missing, path.as_str()) {
        (None, path) => path.to_owned(),
        (Some(name), "") => name.to_owned(),
        (Some(name), path) => format!("{path}.{name}"),
    };
    match field.as_str() {
        "" => ApiError::invalid(format!("the body is wrong: {what}")),
        field => ApiError::param(field, format!("{field}: {what}")),
    }
}

/// A body whose texts can be read: halves of characters (`\ud83e` without its other half) and bytes that are no UTF-8
/// become U+FFFD, as Go and browsers read them.
fn mended(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    let escape = |at: usize| {
        let digits = text.as_bytes().get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut out, mut done, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find('\\').map(|n| at + n) {
        at = match escape(found) {
            Some(0xD800..0xDC00) if matches!(escape(found + 6), Some(0xDC00..0xE000)) => found + 12,
            Some(0xD800..0xE000) => {
                out.push_str(&text[done..found]);
                out.push_str("\\ufffd");
                done = found + 6;
                done
            }
            Some(_) => found + 6,
            // The escaped character may be wider than a byte only in what is no JSON.
            None => (found + 2..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len()),
        };
    }
    if done == 0 {
        return text;
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

/// A body that may be an object. A list would be read as an object's fields in their order, without their names.
async fn read_object(request: Request) -> Result<(Bytes, Ignored), ApiError> {
    let (bytes, ignored) = read_any(request).await?;
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::invalid("the body is wrong: invalid type: a list, expected an object"));
    }
    Ok((bytes, ignored))
}

/// A body, unpacked.
async fn read_any(request: Request) -> Result<(Bytes, Ignored), ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = read(body).await?;
    let bytes = match encodings(&parts.headers) {
        coded if coded.is_empty() => bytes,
        coded => unpacked(bytes, coded).await?,
    };
    if let Some(asked) = parts.extensions.get::<Asked>() {
        *lock(&asked.0) = bytes.clone();
    }
    Ok((bytes, Ignored::of(&parts)))
}

async fn read(body: HttpBody) -> Result<Bytes, ApiError> {
    let reading = axum::body::to_bytes(body, MAX_BODY);
    match tokio::time::timeout(BODY_TIME, reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large("the body ended early or is larger")),
        Err(_) => Err(ApiError::new(Kind::Slow, "the body did not arrive within a minute")),
    }
}

/// Whether a request came over loopback or a Unix socket; the server puts it among the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loopback(pub(crate) bool);

/// Who asks.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// A program on this machine that is no browser: it may name models by path.
    pub any_path: bool,
    /// Where what its request holds beyond what is read is said.
    pub(crate) ignored: Ignored,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let near = parts.extensions.get::<Loopback>().is_some_and(|n| n.0);
        // Browsers send at least one of these with every request that a page makes.
        let browser = [header::ORIGIN.as_str(), header::REFERER.as_str(), "sec-fetch-site", "sec-fetch-mode"];
        let any_path = near && !browser.iter().any(|name| parts.headers.contains_key(*name));
        Ok(Client { any_path, ignored: Ignored::of(parts) })
    }
}

/// One JSON object.
pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response(),
        Err(error) => ApiError::new(Kind::Internal, format!("the answer has no JSON form: {error}")).into_response(),
    }
}

/// The JSON of plain data, which always has one.
pub(crate) fn to_json(value: &impl Serialize) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

/// As what is read.
impl<T: ToSchema> PartialSchema for Body<T> {
    fn schema() -> RefOr<Schema> {
        T::schema()
    }
}

impl<T: ToSchema> ToSchema for Body<T> {
    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn schemas(all: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(all);
    }
}

/// Both structs' fields, as one object.
impl<A: ToSchema, B: ToSchema> PartialSchema for Bodies<A, B> {
    fn schema() -> RefOr<Schema> {
        let (RefOr::T(Schema::Object(mut all)), RefOr::T(Schema::Object(more))) = (A::schema(), B::schema()) else {
            return A::schema();
        };
        all.properties.extend(more.properties);
        all.required.extend(more.required);
        all.description = more.description;
        all.into()
    }
}

impl<A: ToSchema, B: ToSchema> ToSchema for Bodies<A, B> {
    fn name() -> Cow<'static, str> {
        format!("{}With{}", B::name(), A::name()).into()
    }

    fn schemas(all: &mut Vec<(String, RefOr<Schema>)>) {
        A::schemas(all);
        B::schemas(all);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[expect(dead_code, reason = "named so that another is unknown")]
        a: Option<u32>,
    }

    #[derive(Debug, Deserialize)]
    struct Outer {
        text: Option<String>,
        list: Option<Vec<Inner>>,
    }

    #[test]
    fn unknown_fields_are_named_without_numbers() {
        let (_, unknown) =
            parse_noting::<Outer>(br#"{"new": 1, "list": [{"a": 1}, {"b": 2, "c": {"d": 3}}]}"#).unwrap();
        assert_eq!(unknown.into_iter().collect::<Vec<_>>(), ["list[].b", "list[].c", "new"]);
    }

    #[test]
    fn a_field_is_unknown_where_nobody_reads_it_or_what_it_is_in() {
        let one = BTreeSet::from(["text".to_owned(), "list[].a".to_owned()]);
        for (field, want) in
            [("text", true), ("text.verbosity", true), ("texts", false), ("list[].a.b", true), ("list", false)]
        {
            assert_eq!(holds(&one, field), want, "{field}");
        }
    }

    #[test]
    fn halves_of_characters_are_replaced_and_whole_ones_stay() {
        let text = |body: &str| parse::<Outer>(body.as_bytes()).unwrap().text.unwrap();
        for (given, want) in [
            (r"half \ud83e end", "half \u{fffd} end"),
            (r"\ude00", "\u{fffd}"),
            (r"\ud83e\ud83e\udd8a", "\u{fffd}\u{1f98a}"),
            (r"\\ud83e \ud83e", "\\ud83e \u{fffd}"),
            (r"\ud83e", "\u{fffd}"),
            (r"\ud83e\n", "\u{fffd}\n"),
        ] {
            assert_eq!(text(&format!("{{\"text\": \"{given}\"}}")), want, "{given}");
        }
        let bytes = b"{\"text\": \"a\xff b\"}";
        assert_eq!(parse::<Outer>(bytes).unwrap().text.as_deref(), Some("a\u{fffd} b"));
        for wrong in [&br#"{"text": "\ud83"}"#[..], br#"{"text": "\"#, br#"{"text""#, b"{\"text\": \"\\\xc3\xa9\"}"] {
            assert!(parse::<Outer>(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse::<Outer>(b"{\"list\": []}").unwrap().list.is_some());
    }

    #[test]
    fn the_model_of_a_body_that_was_refused_is_known() {
        let asked = Asked(Arc::new(Mutex::new(Bytes::from_static(br#"{"model": "m", "text": 5}"#))));
        assert_eq!((asked.model().as_deref(), Asked::default().model()), (Some("m"), None));
    }
}
