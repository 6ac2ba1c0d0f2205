//! The request fields that OpenAI's chats and completions have in common, with llama-server's and Ollama's beside them,
//! and the parameters they are. Fields that are not named here are passed over, as the real servers do.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::format::schema_grammar;
use super::ignored::Ignored;
use crate::api::common::body::Client;
use crate::api::common::params::GenerationParams;
use crate::api::common::util::{TextOr, whole};
use crate::engine::error::ApiError;
use crate::generate::job::{Grammar, SamplingChanges, Think};
use crate::generate::sampling::{kept, logit_bias, looked_at, plain_sampling};

/// What chats and completions have in common.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct Common {
    /// A model's name; `GET /v1/models` lists them.
    #[schema(example = "ir-tiny")]
    pub(crate) model: String,
    /// Sends the answer as it comes.
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
    /// Divides the logits; 0 takes the most likely token.
    #[schema(minimum = 0)]
    pub(crate) temperature: Option<f32>,
    /// Keeps the most likely tokens that together reach this probability.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) top_p: Option<f32>,
    /// Completions, 1 to 16.
    #[schema(minimum = 1, maximum = 16)]
    #[serde(default, deserialize_with = "whole")]
    pub(crate) n: Option<u64>,
    /// Texts before which the answer ends.
    stop: Option<TextOr<String>>,
    /// Tokens at most; negative: until the context is full.
    #[serde(default, deserialize_with = "whole")]
    max_tokens: Option<i64>,
    /// The same seed and prompt give the same answer; -1 is a new one for every request.
    #[serde(default, deserialize_with = "whole")]
    seed: Option<i64>,
    /// Subtracted from the logit of tokens that stand in the text already.
    presence_penalty: Option<f32>,
    /// Subtracted for every time a token stands in the text already.
    frequency_penalty: Option<f32>,
    /// From token ids to what is added to their logits, -100 to 100.
    #[schema(value_type = Option<HashMap<String, f32>>)]
    logit_bias: Option<HashMap<String, f32>>,
    /// Keeps this many most likely tokens; 0 is off. (llama-server's.)
    #[schema(minimum = 0)]
    #[serde(default, deserialize_with = "whole")]
    top_k: Option<i64>,
    /// Keeps tokens this share as likely as the most likely one. (llama-server's.)
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    /// Locally typical sampling. (llama-server's.)
    #[schema(minimum = 0, maximum = 1)]
    typical_p: Option<f32>,
    /// Divides the logits of tokens that stand in the text already. (llama-server's.)
    #[serde(alias = "repetition_penalty")]
    #[schema(exclusive_minimum = 0)]
    repeat_penalty: Option<f32>,
    /// How many last tokens the penalties look at; -1 is all. (llama-server's.)
    #[serde(default, deserialize_with = "whole")]
    repeat_last_n: Option<i64>,
    /// Goes on past the end of the answer. (llama-server's.)
    ignore_eos: Option<bool>,
    /// A grammar in GBNF that the answer is held to. (llama-server's.)
    grammar: Option<String>,
    /// A schema that the answer is held to. (llama-server's.)
    #[schema(value_type = Option<Object>)]
    json_schema: Option<Json>,
    /// The LoRA adapters that are used, those alone; as the server is set if it is left out. (llama-server's.)
    lora: Option<Vec<LoraScale>>,
    /// Tokens of the context. (Ollama's, as an option.)
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    num_ctx: Option<u64>,
    /// Ollama's options; the fields beside go over them.
    #[schema(value_type = Option<Object>)]
    options: Option<Json>,
    /// How long the model stays loaded: seconds or `5m`. (Ollama's.)
    #[schema(value_type = Option<Value>)]
    keep_alive: Option<Json>,
}

/// How much a model is to reason, by the words of all APIs, in the three steps that templates know; `None` where the word is
/// another, which is passed over.
pub(crate) fn effort(word: &str, ignored: &Ignored) -> Option<Think> {
    match word.to_ascii_lowercase().as_str() {
        "none" | "off" | "disabled" => Some(Think::Off),
        "minimal" | "low" => Some(Think::Effort("low".into())),
        "medium" => Some(Think::Effort("medium".into())),
        "high" | "xhigh" | "ultra" | "max" => Some(Think::Effort("high".into())),
        "" | "auto" | "default" => None,
        _ => {
            ignored.note("effort of another word");
            None
        }
    }
}

/// How much of a LoRA adapter is used.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, ToSchema)]
pub(crate) struct LoraScale {
    /// The adapter's number: see `GET /lora-adapters`.
    id: usize,
    /// How much of it: 1 is as it was made.
    scale: f32,
}

impl LoraScale {
    /// Number and scale.
    pub(crate) fn pair(self) -> (usize, f32) {
        (self.id, self.scale)
    }
}

/// How a stream is sent.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// Ends the stream with a chunk that counts tokens.
    include_usage: Option<bool>,
}

impl Common {
    /// Whether the answer is to be streamed.
    pub(crate) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// Whether a stream is to end with counts.
    pub(crate) fn counts(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|o| o.include_usage == Some(true))
    }

    /// What is asked, without its prompt; `format` is what the answer is held to and the field that says so.
    pub(crate) fn params(
        self,
        client: Client,
        format: Option<(Grammar, &'static str)>,
    ) -> Result<GenerationParams, ApiError> {
        let sampling = SamplingChanges {
            temperature: self.temperature,
            top_k: self.top_k.map(kept),
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repeat_last_n: self.repeat_last_n.map(looked_at),
            logit_bias: self.logit_bias.as_ref().map(logit_bias).transpose()?.unwrap_or_default(),
            ..SamplingChanges::default()
        };
        let gbnf = self.grammar.filter(|g| !g.is_empty()).map(|g| (Grammar::Gbnf(g), "grammar"));
        let schema = self.json_schema.filter(|s| !s.is_null());
        let schema = schema
            .map(|s| schema_grammar("json_schema", &s, false, &client.ignored))
            .transpose()?
            .map(|s| (s, "json_schema"));
        Ok(GenerationParams {
            model: self.model,
            client,
            keep_alive: self.keep_alive,
            options: self.options,
            context: self.num_ctx,
            n: self.n,
            max_tokens: self.max_tokens,
            stop: self.stop.map(TextOr::into_texts),
            defaults: plain_sampling(),
            sampling,
            seed: self.seed,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            lora: self.lora.map(|all| all.into_iter().map(LoraScale::pair).collect()),
            grammars: [gbnf, schema, format].into_iter().flatten().collect(),
            ..GenerationParams::default()
        })
    }
}

/// Texts or token ids: what completions go on from and embeddings are made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string, a list of strings, a list of token ids or a list of lists of token ids")]
pub(crate) enum Texts {
    /// One text.
    Text(String),
    /// The token ids of one text.
    Tokens(Vec<u32>),
    /// Several texts.
    List(Vec<String>),
    /// The token ids of several texts.
    TokenLists(Vec<Vec<u32>>),
}

impl Texts {
    /// Each by itself.
    pub(crate) fn split(self) -> Vec<OneText> {
        match self {
            Texts::Text(text) => vec![OneText::Text(text)],
            Texts::Tokens(ids) if ids.is_empty() => Vec::new(),
            Texts::Tokens(ids) => vec![OneText::Tokens(ids)],
            Texts::List(all) => all.into_iter().map(OneText::Text).collect(),
            Texts::TokenLists(all) => all.into_iter().map(OneText::Tokens).collect(),
        }
    }
}

/// One of several texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OneText {
    /// As text.
    Text(String),
    /// As token ids.
    Tokens(Vec<u32>),
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn common(body: &str) -> Result<Common, ApiError> {
        crate::api::common::body::parse(body.as_bytes())
    }

    #[test]
    fn fields_become_a_job_and_go_over_options() {
        let body = r#"{"model": "m", "n": 2, "temperature": 0.5, "seed": -7, "stop": ["a", ""], "max_tokens": -1.0,
            "options": {"temperature": 1.5, "top_k": 3, "num_predict": 9}, "num_ctx": 256, "user": 5,
            "logit_bias": {"5": -100, "6": 1.5}, "top_p": null}"#;
        let job = common(body).unwrap().params(Client::default(), None).unwrap().job().unwrap();
        assert_eq!((job.n, job.max_tokens, job.stop.as_slice()), (2, None, &["a".to_owned()][..]));
        let s = &job.sampling;
        assert_eq!((s.temperature, s.top_k, s.top_p, s.seed), (Some(0.5), Some(3), None, Some(-7i64 as u64)));
        assert_eq!(s.logit_bias, [(5, f32::NEG_INFINITY), (6, 1.5)]);
        assert_eq!(job.model.load.context, Some(256));
        assert_eq!((job.defaults.temperature, job.defaults.top_k, job.defaults.min_p), (1.0, 0, 0.0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |body: &str| common(body).and_then(|c| c.params(Client::default(), None)?.job()).unwrap_err();
        for (body, param) in [
            (r#"{"model": 5}"#, "model"),
            (r#"{}"#, "model"),
            (r#"{"model": "m", "n": 0}"#, "n"),
            (r#"{"model": "m", "n": 17}"#, "n"),
            (r#"{"model": "m", "n": 1.5}"#, "n"),
            (r#"{"model": "m", "seed": "one"}"#, "seed"),
            (r#"{"model": "m", "temperature": "hot"}"#, "temperature"),
            (r#"{"model": "m", "stop": [1]}"#, "stop[0]"),
            (r#"{"model": "m", "logit_bias": {"x": 1}}"#, "logit_bias"),
            (r#"{"model": "m", "logit_bias": {"1": 101}}"#, "logit_bias"),
            (r#"{"model": "m", "stream_options": {"include_usage": 1}}"#, "stream_options.include_usage"),
            (r#"{"model": "m", "keep_alive": true}"#, "keep_alive"),
        ] {
            let error = wrong(body);
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
            assert!(error.message.contains(param.split(['[', '.']).next().unwrap()), "{error}");
        }
        assert!(common("5").unwrap_err().message.contains("invalid type"));
    }

    #[test]
    fn one_format_at_most() {
        let held = |body: &str, format: Option<Grammar>| {
            let format = format.map(|f| (f, "response_format"));
            let job = common(body).unwrap().params(Client::default(), format)?.job()?;
            Ok::<_, ApiError>((job.grammar, job.grammar_field))
        };
        let gbnf = r#"{"model": "m", "grammar": "root ::= \"a\""}"#;
        let want = (Some(Grammar::Gbnf("root ::= \"a\"".into())), Some("grammar"));
        assert_eq!(held(gbnf, None).unwrap(), want);
        assert_eq!(
            held(r#"{"model": "m"}"#, Some(Grammar::Json)).unwrap(),
            (Some(Grammar::Json), Some("response_format"))
        );
        assert_eq!(held(gbnf, Some(Grammar::Json)).unwrap_err().param.as_deref(), Some("response_format"));
        let both = r#"{"model": "m", "grammar": "root ::= \"a\"", "json_schema": {}}"#;
        assert_eq!(held(both, None).unwrap_err().param.as_deref(), Some("json_schema"));
    }

    #[test]
    fn every_form_of_a_prompt() {
        let read = |text: &str| crate::api::common::body::parse::<Texts>(text.as_bytes()).map(Texts::split);
        let text = |t: &str| OneText::Text(t.into());
        assert_eq!(read("\"a\"").unwrap(), [text("a")]);
        assert_eq!(read("[\"a\", \"b\"]").unwrap(), [text("a"), text("b")]);
        assert_eq!(read("[1, 2]").unwrap(), [OneText::Tokens(vec![1, 2])]);
        assert_eq!(read("[[1], [2]]").unwrap(), [OneText::Tokens(vec![1]), OneText::Tokens(vec![2])]);
        assert_eq!(read("[]").unwrap(), []);
        for wrong in ["5", "{}", "[\"a\", 1]", "[-1]", "[[1], \"a\"]"] {
            assert!(read(wrong).unwrap_err().message.contains("a list of token ids"), "{wrong}");
        }
    }
}
