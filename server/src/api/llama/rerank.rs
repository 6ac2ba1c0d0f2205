//! `POST /v1/rerank` and its other names, as llama-server, Jina's clients and, with `texts`, those of text-embeddings-inference
//! have it.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::common::body::{self as http, Body, Client};
use crate::api::common::openai_error::OpenAiErrors;
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::{ModelRef, RankJob, Ranked};

/// What to rank.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RerankRequest {
    /// The model's name; without it the one used last.
    model: Option<String>,
    /// What is asked.
    query: Option<String>,
    /// The texts.
    documents: Option<Vec<Document>>,
    /// The texts, if the answer is to be a bare list of `score`.
    texts: Option<Vec<Document>>,
    /// Keeps so many of the best.
    top_n: Option<usize>,
    /// Whether the answer repeats the documents.
    #[serde(default)]
    return_documents: bool,
    /// The same where `texts` are given.
    #[serde(default)]
    return_text: bool,
}

/// A text, alone or in an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Document {
    /// Alone.
    Text(String),
    /// In an object.
    Object {
        /// The text.
        text: String,
    },
}

impl Document {
    fn into_text(self) -> String {
        match self {
            Document::Text(text) | Document::Object { text } => text,
        }
    }
}

/// Texts by how well they answer the query, the best first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reranked {
    model: String,
    object: &'static str,
    usage: RerankUsage,
    results: Vec<Relevance>,
}

/// Tokens of all texts, each with the query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RerankUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// How well a text answers the query.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Relevance {
    /// The text's place in the request.
    index: usize,
    /// The model's own score: the larger, the better. Its range is the model's.
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

/// The same in the form of text-embeddings-inference.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct TextScore {
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// A request, read.
struct Wanted {
    job: RankJob,
    top_n: usize,
    returned: bool,
    bare: bool,
}

impl RerankRequest {
    fn wanted(self, model: ModelRef) -> Result<Wanted, ApiError> {
        let query = self.query.ok_or_else(|| ApiError::param("query", "give a query: what the texts are to answer"))?;
        let bare = self.texts.is_some();
        let field = if bare { "texts" } else { "documents" };
        let documents: Vec<String> =
            self.texts.or(self.documents).unwrap_or_default().into_iter().map(Document::into_text).collect();
        if documents.is_empty() {
            return Err(ApiError::param(field, format!("{field} must hold one text at least")));
        }
        if self.top_n == Some(0) {
            return Err(ApiError::param("top_n", "top_n must be 1 or more"));
        }
        let returned = if bare { self.return_text } else { self.return_documents };
        let top_n = self.top_n.unwrap_or(usize::MAX);
        Ok(Wanted { job: RankJob { model, query, documents }, top_n, returned, bare })
    }
}

/// Places and scores, the best first; equal ones in the order given.
fn best(scores: &[f32], top_n: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(top_n);
    order
}

fn answer(model: String, ranked: &Ranked, wanted: &Shape) -> Response {
    let text = |index: usize| wanted.documents.as_ref().and_then(|all| all.get(index).cloned());
    let best = best(&ranked.scores, wanted.top_n).into_iter();
    if wanted.bare {
        let all: Vec<_> = best.map(|(index, score)| TextScore { index, score, text: text(index) }).collect();
        return http::json(&all);
    }
    let results = best
        .map(|(index, score)| {
            let document = text(index).map(|text| Document::Object { text });
            Relevance { index, relevance_score: score, document }
        })
        .collect();
    let tokens = ranked.prompt_tokens;
    let usage = RerankUsage { prompt_tokens: tokens, total_tokens: tokens };
    http::json(&Reranked { model, object: "list", usage, results })
}

/// How the answer is written.
struct Shape {
    top_n: usize,
    bare: bool,
    documents: Option<Vec<String>>,
}

/// Ranks documents by how well they answer a query
#[utoipa::path(post, path = "/v1/rerank", request_body = RerankRequest, responses(
    (status = 200, description = "The documents' scores, the best first", body = Reranked), OpenAiErrors))]
pub(crate) async fn rerank(
    State(hub): State<Hub>,
    client: Client,
    Body(mut request): Body<RerankRequest>,
) -> Result<Response, ApiError> {
    let name = request.model.take().filter(|name| !name.is_empty()).unwrap_or_else(|| hub.default_model());
    let model = ModelRef { name: name.clone(), any_path: client.any_path, ..ModelRef::default() };
    let Wanted { job, top_n, returned, bare } = request.wanted(model)?;
    let shape = Shape { top_n, bare, documents: returned.then(|| job.documents.clone()) };
    let ranked = hub.rank(job).await?;
    Ok(answer(name, &ranked, &shape))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn wanted(body: Json) -> Result<Wanted, ApiError> {
        http::parse::<RerankRequest>(body.to_string().as_bytes())?.wanted(ModelRef::default())
    }

    #[test]
    fn documents_in_every_form() {
        let read = wanted(json!({"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1})).unwrap();
        assert_eq!((read.job.documents, read.top_n, read.bare), (vec!["a".to_owned(), "b".to_owned()], 1, false));
        let read = wanted(json!({"query": "q", "texts": ["a"], "return_text": true, "raw_scores": true})).unwrap();
        assert!(read.bare && read.returned);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (json!({"documents": ["a"]}), "query"),
            (json!({"query": "q"}), "documents"),
            (json!({"query": "q", "documents": []}), "documents"),
            (json!({"query": "q", "texts": []}), "texts"),
            (json!({"query": "q", "documents": ["a"], "top_n": 0}), "top_n"),
        ] {
            let error = wanted(body.clone()).err().unwrap();
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn the_best_come_first() {
        assert_eq!(best(&[0.1, -2.0, 5.0, 0.1], 3), [(2, 5.0), (0, 0.1), (3, 0.1)]);
        assert_eq!(best(&[], 3), []);
    }
}
