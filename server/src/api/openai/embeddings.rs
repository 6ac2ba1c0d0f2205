//! `POST /v1/embeddings`.

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::common::body::{self as http, Body, Client};
use crate::api::common::fields::{OneText, Texts};
use crate::api::common::openai_error::OpenAiErrors;
use crate::api::common::util::whole;
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::{EmbedInput, EmbedJob, Embedded, MAX_INPUTS, ModelRef};

/// What to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OpenAiEmbedRequest {
    /// A model's name.
    #[schema(example = "ir-tiny")]
    model: String,
    /// Texts or token ids, one or several.
    input: Texts,
    /// Keeps this many first numbers of each, scaled to length one again.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    dimensions: Option<u64>,
    /// How the numbers are written.
    encoding_format: Option<Encoding>,
}

/// How an embedding is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// Base64 of the numbers as 32-bit floats, least significant byte first.
    Base64,
}

/// Embeddings.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embeddings {
    object: &'static str,
    data: Vec<OneEmbedding>,
    model: String,
    usage: EmbedUsage,
}

/// One text's embedding.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OneEmbedding {
    object: &'static str,
    embedding: Numbers,
    index: usize,
}

/// The numbers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Numbers {
    /// As a list.
    Floats(Vec<f32>),
    /// As base64.
    Base64(String),
}

/// Tokens of all texts together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl OpenAiEmbedRequest {
    fn job(self, client: Client) -> Result<(EmbedJob, Encoding), ApiError> {
        if self.model.is_empty() {
            return Err(ApiError::param("model", "you must provide a model parameter"));
        }
        let inputs = self.input.split();
        if inputs.is_empty() || inputs.len() > MAX_INPUTS {
            return Err(ApiError::param("input", format!("input must hold 1 to {MAX_INPUTS} texts")));
        }
        if self.dimensions == Some(0) {
            return Err(ApiError::param("dimensions", "dimensions must be 1 or more"));
        }
        let empty = |input: &OneText| match input {
            OneText::Text(text) => text.is_empty(),
            OneText::Tokens(ids) => ids.is_empty(),
        };
        if let Some(i) = inputs.iter().position(empty) {
            return Err(ApiError::param("input", format!("input[{i}] is empty: give text or token ids")));
        }
        let one = |input: OneText| match input {
            OneText::Text(text) => EmbedInput::Text(text),
            OneText::Tokens(ids) => EmbedInput::Tokens(ids),
        };
        let job = EmbedJob {
            model: ModelRef { name: self.model, any_path: client.any_path, ..ModelRef::default() },
            inputs: inputs.into_iter().map(one).collect(),
            truncate: false,
            dimensions: self.dimensions.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            normalize: true,
        };
        Ok((job, self.encoding_format.unwrap_or_default()))
    }
}

impl Embeddings {
    fn new(model: String, embedded: Embedded, encoding: Encoding) -> Embeddings {
        let one = |(index, vector): (usize, Vec<f32>)| {
            let embedding = match encoding {
                Encoding::Float => Numbers::Floats(vector),
                Encoding::Base64 => {
                    let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
                    Numbers::Base64(STANDARD.encode(bytes))
                }
            };
            OneEmbedding { object: "embedding", embedding, index }
        };
        let tokens = embedded.prompt_tokens;
        Embeddings {
            object: "list",
            data: embedded.vectors.into_iter().enumerate().map(one).collect(),
            model,
            usage: EmbedUsage { prompt_tokens: tokens, total_tokens: tokens },
        }
    }
}

/// Embeddings of texts.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    operation_id = "create_embeddings",
    tag = "OpenAI",
    request_body = OpenAiEmbedRequest,
    responses((status = 200, description = "An embedding for each text", body = Embeddings), OpenAiErrors)
)]
pub(crate) async fn embeddings(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<OpenAiEmbedRequest>,
) -> Result<Response, ApiError> {
    let model = request.model.clone();
    let (job, encoding) = request.job(client)?;
    let embedded = hub.embed(job).await?;
    Ok(http::json(&Embeddings::new(model, embedded, encoding)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn job(body: Json) -> Result<(EmbedJob, Encoding), ApiError> {
        http::parse::<OpenAiEmbedRequest>(body.to_string().as_bytes())?.job(Client::default())
    }

    #[test]
    fn inputs_in_every_form() {
        let (read, encoding) =
            job(json!({"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 8})).unwrap();
        assert_eq!(read.inputs, [EmbedInput::Text("a".into()), EmbedInput::Text("b".into())]);
        assert_eq!(
            (encoding, read.dimensions, read.truncate, read.normalize),
            (Encoding::Base64, Some(8), false, true)
        );
        let (read, encoding) = job(json!({"model": "m", "input": [1, 2]})).unwrap();
        assert_eq!((read.inputs, encoding), (vec![EmbedInput::Tokens(vec![1, 2])], Encoding::Float));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (json!({"model": "m", "input": []}), "input"),
            (json!({"model": "m", "input": ["a", ""]}), "input"),
            (json!({"model": "m", "input": 5}), "input"),
            (json!({"model": "m", "input": "a", "dimensions": 0}), "dimensions"),
            (json!({"model": "m", "input": "a", "encoding_format": "hex"}), "encoding_format"),
            (json!({"model": "", "input": "a"}), "model"),
        ] {
            assert_eq!(job(body.clone()).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
        assert!(job(json!({"model": "m"})).unwrap_err().message.contains("missing field `input`"));
    }

    #[test]
    fn base64_holds_the_floats_bytes() {
        let embedded = || Embedded { vectors: vec![vec![1.0, -2.0]], prompt_tokens: 3, ..Embedded::default() };
        let json = |encoding| serde_json::to_value(Embeddings::new("m".into(), embedded(), encoding)).unwrap();
        assert_eq!(json(Encoding::Base64)["data"][0]["embedding"], "AACAPwAAAMA=");
        let whole = json(Encoding::Float);
        assert_eq!(whole["data"], json!([{"object": "embedding", "embedding": [1.0, -2.0], "index": 0}]));
        assert_eq!(whole["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    }
}
