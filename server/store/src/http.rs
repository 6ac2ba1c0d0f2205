//! Requests over HTTPS: redirects followed by hand, so that a key is shown to the host it is for and to no other; answers
//! bounded; what may pass is told from what will not.

mod retry;

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};
pub(crate) use retry::{ASKED, Retry};
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};
use crate::settings::Tuning;
use crate::store::locked;

/// Redirects that are followed, at most.
const MAX_REDIRECTS: usize = 10;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(20);

/// Bytes of an error's text that are read.
const MAX_COMPLAINT: usize = 2048;

/// Whether an address may be asked: https, or http on this machine.
pub(crate) fn may_ask(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A hub's or registry's address, without a slash at its end.
pub(crate) fn address(text: &str, variable: &str) -> Result<Url> {
    let wrong = |why: String| Error::new(Kind::Unsupported, format!("{variable} is {text:?}: {why}"));
    let url = Url::parse(text).map_err(|e| wrong(e.to_string()))?;
    if !may_ask(&url) {
        return Err(wrong("use https; plain http is for this machine only".into()));
    }
    if url.cannot_be_a_base() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("give an address as in https://hub.example".into()));
    }
    Ok(url)
}

/// The address of parts below another, each part escaped.
pub(crate) fn below<'a>(base: &Url, parts: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    url
}

type Origin = (String, String, Option<u16>);

fn origin(url: &Url) -> Origin {
    (url.scheme().into(), url.host_str().unwrap_or("").to_lowercase(), url.port_or_known_default())
}

/// A key and the one origin that it is shown to.
#[derive(Debug)]
pub(crate) struct Auth {
    origin: Origin,
    token: Mutex<Option<String>>,
    /// Whether the other side may send to a place that gives tokens to anyone, as registries do.
    dance: bool,
}

impl Auth {
    /// A key for the host of this address.
    pub(crate) fn key(url: &Url, token: Option<String>) -> Auth {
        Auth { origin: origin(url), token: Mutex::new(token), dance: false }
    }

    /// Whatever token the registry at this address sends us for.
    pub(crate) fn registry(url: &Url) -> Auth {
        Auth { origin: origin(url), token: Mutex::new(None), dance: true }
    }
}

/// Why a request did not end well.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may go better later; perhaps after the time that the other side named.
    Later(Error, Option<Duration>),
    /// It will not.
    Never(Error),
    /// The other side sends the whole file where a range was asked for.
    NoRanges,
}

/// An answer of the last host of all redirects.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) url: Url,
}

/// A client, and the word to stop.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client,
    pub(crate) tuning: Tuning,
    stop: watch::Receiver<bool>,
}

impl Http {
    /// A client that ends when `stop` becomes true.
    pub(crate) fn new(tuning: Tuning, stop: watch::Receiver<bool>) -> Result<Http> {
        // Another part of the program may have chosen one: that will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("ir/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::unsupported(format!("TLS cannot be set up: {}", chain(&e))))?;
        Ok(Http { client, tuning, stop })
    }

    /// Waits for it, but not longer than a connection may be silent, and not after the word to stop.
    pub(crate) async fn within<T, E: std::error::Error>(
        &self,
        host: &str,
        future: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, Trouble> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            Ok(_) = stop.wait_for(|stop| *stop) => Err(Trouble::Never(Error::cancelled())),
            result = tokio::time::timeout(self.tuning.stall, future) => match result {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(e)) => Err(Trouble::Later(Error::network(format!("{host}: {}", chain(&e))), None)),
                Err(_) => {
                    let seconds = self.tuning.stall.as_secs_f64();
                    Err(Trouble::Later(Error::network(format!("{host}: nothing came for {seconds} seconds")), None))
                }
            },
        }
    }

    /// Sleeps, unless it is to stop.
    async fn pause(&self, time: Duration) -> Result {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            Ok(_) = stop.wait_for(|stop| *stop) => Err(Error::cancelled()),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Waits a short time for something else, unless it is to stop.
    pub(crate) async fn tick(&self) -> Result {
        self.pause(Duration::from_millis(50)).await
    }

    /// Sends a request and follows redirects.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        auth: Option<&Auth>,
        headers: &[(HeaderName, String)],
        body: Option<Vec<u8>>,
    ) -> std::result::Result<Answer, Trouble> {
        let (mut url, mut danced, mut redirects) = (url.clone(), false, 0);
        loop {
            let host = url.host_str().unwrap_or("").to_owned();
            if !may_ask(&url) {
                return Err(Trouble::Never(Error::new(Kind::Denied, format!("{host} was not asked: it has no https"))));
            }
            let mut request = self.client.request(method.clone(), url.clone());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            if let Some(token) = auth.filter(|a| a.origin == origin(&url)).and_then(|a| locked(&a.token).clone()) {
                request = request.bearer_auth(token);
            }
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            let response = self.within(&host, request.send()).await?;
            let status = response.status();
            if let Some(next) = redirect(&response, &url)? {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    let what = format!("{host} redirects more than {MAX_REDIRECTS} times");
                    return Err(Trouble::Never(Error::network(what)));
                }
                url = next;
                continue;
            }
            if let Some(auth) = auth.filter(|a| a.dance && !danced && a.origin == origin(&url))
                && status == StatusCode::UNAUTHORIZED
                && let Some(place) = challenge(response.headers(), &url)
            {
                danced = true;
                let token = Box::pin(self.token(place)).await?;
                *locked(&auth.token) = Some(token);
                continue;
            }
            if status.is_success() {
                let coding = response.headers().get(header::CONTENT_ENCODING);
                if coding.is_some_and(|c| !c.as_bytes().eq_ignore_ascii_case(b"identity")) {
                    return Err(Trouble::Never(Error::corrupt(format!("{host} sends a compressed answer, unasked"))));
                }
                return Ok(Answer { response, url });
            }
            return Err(self.refusal(response, &host).await);
        }
    }

    /// Fetches a token that anyone may have.
    async fn token(&self, place: Url) -> std::result::Result<String, Trouble> {
        let host = place.host_str().unwrap_or("").to_owned();
        let answer = self.send(Method::GET, &place, None, &[], None).await?;
        let body = self.body(answer, 64 << 10).await?.0;
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = json["token"].as_str().or_else(|| json["access_token"].as_str()).unwrap_or("");
        if token.is_empty() || HeaderValue::from_str(token).is_err() {
            let what = format!("{host} was asked for a token and gave none");
            return Err(Trouble::Never(Error::new(Kind::Denied, what)));
        }
        Ok(token.to_owned())
    }

    /// The body of an answer of at most so many bytes.
    async fn body(&self, answer: Answer, most: u64) -> std::result::Result<(Vec<u8>, HeaderMap), Trouble> {
        let Answer { mut response, url } = answer;
        let host = url.host_str().unwrap_or("").to_owned();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = self.within(&host, response.chunk()).await? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > most {
                let what = format!("{host} answers with more than the {most} bytes that such an answer may have");
                return Err(Trouble::Never(Error::corrupt(what)));
            }
        }
        Ok((body, headers))
    }

    /// A small answer, asked for again where that may help.
    pub(crate) async fn get(
        &self,
        url: &Url,
        auth: Option<&Auth>,
        headers: &[(HeaderName, String)],
        most: u64,
    ) -> Result<(Vec<u8>, HeaderMap)> {
        let mut retry = Retry::new(self);
        loop {
            let result = match self.send(Method::GET, url, auth, headers, None).await {
                Ok(answer) => self.body(answer, most).await,
                Err(trouble) => Err(trouble),
            };
            match result {
                Ok(found) => return Ok(found),
                Err(trouble) => retry.after(trouble).await?,
            }
        }
    }

    /// What an answer that is no success means.
    async fn refusal(&self, response: Response, host: &str) -> Trouble {
        let (status, headers) = (response.status(), response.headers().clone());
        let url = response.url().clone();
        let named = headers.get("x-error-message").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let said = match named {
            Some(said) => said,
            None => {
                let body = self.body(Answer { response, url }, 64 << 10).await.map(|b| b.0).unwrap_or_default();
                complaint(&body)
            }
        };
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let code = status.as_u16();
        match code {
            408 | 425 | 429 | 500..=599 => {
                let what = format!("{host} answers {code}{said}: it is busy or broken, try later");
                Trouble::Later(Error::network(what), retry_after(&headers))
            }
            401 | 403 => Trouble::Never(Error::new(Kind::Denied, format!("{host} answers {code}{said}"))),
            404 | 410 => Trouble::Never(Error::new(Kind::NotFound, format!("{host} answers {code}{said}"))),
            416 => Trouble::Never(Error::corrupt(format!("{host} has fewer bytes than it said"))),
            _ => Trouble::Never(Error::network(format!("{host} answers {code}{said}"))),
        }
    }
}

/// Where an answer redirects to. Never from https to http.
fn redirect(response: &Response, from: &Url) -> std::result::Result<Option<Url>, Trouble> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let host = from.host_str().unwrap_or("");
    let target = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let next = target
        .and_then(|t| from.join(t).ok())
        .ok_or_else(|| Trouble::Never(Error::network(format!("{host} redirects to nowhere"))))?;
    if !may_ask(&next) || (from.scheme() == "https" && next.scheme() != "https") {
        let to = next.host_str().unwrap_or("nowhere");
        let what = format!("{host} redirects to {to} without https, which is not followed");
        return Err(Trouble::Never(Error::new(Kind::Denied, what)));
    }
    Ok(Some(next))
}

/// The place that gives tokens: `Bearer realm="...",service="...",scope="..."`.
fn challenge(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let text = headers.get(header::WWW_AUTHENTICATE)?.to_str().ok()?;
    let fields = text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("bearer "))?;
    let field = |name: &str| {
        let at = fields.split(&format!("{name}=\"")).nth(1)?;
        at.split('"').next().map(str::to_owned)
    };
    let mut url = Url::parse(&field("realm")?).ok()?;
    if !may_ask(&url) || (from.scheme() == "https" && url.scheme() != "https") {
        return None;
    }
    for name in ["service", "scope"] {
        if let Some(value) = field(name) {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    Some(url)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()
}

/// What an error's body says, if that is a sentence.
fn complaint(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_COMPLAINT)]).into_owned();
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = json.and_then(|json| {
        let first = &json["errors"][0]["message"];
        let all = [&json["error"], &json["error"]["message"], first, &json["message"]];
        all.into_iter().find_map(|v| v.as_str().map(str::to_owned))
    });
    let said = said.unwrap_or(if text.trim_start().starts_with(['<', '{']) { String::new() } else { text });
    said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut at = Some(error);
    while let Some(error) = at {
        let this = error.to_string();
        // The outermost repeats the address, which may hold a signature.
        let this = this.split(" for url (").next().unwrap_or(&this).to_owned();
        if !text.contains(&this) {
            text = if text.is_empty() { this } else { format!("{text}: {this}") };
        }
        at = error.source();
    }
    text
}
