//! [`ApiError`]: what a client did wrong or the server cannot do, as one sentence. How it is written is each API's.

/// What kind of trouble it is; APIs name it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong: 400.
    Invalid,
    /// The prompt does not fit: 400, in each API's own words, by which clients know that they may shorten it.
    ContextLength {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of a sequence at most.
        context: usize,
    },
    /// No key or a wrong one: 401.
    Unauthorized,
    /// Refused for where it comes from or what it names: 403.
    Forbidden,
    /// There is no such model or address: 404.
    NotFound,
    /// The address knows other methods: 405.
    Method,
    /// The body did not come in time: 408.
    Slow,
    /// The body is too large: 413.
    TooLarge,
    /// The queue is full: 503 with `Retry-After`.
    Busy,
    /// Shutting down, or a model is not ready: 503.
    Unavailable,
    /// Known, and not built yet: 501.
    NotImplemented,
    /// The request's deadline passed: 504.
    Deadline,
    /// A device or the server itself failed: 500.
    Internal,
}

/// An error for a client. A handler returns it as it is, and it is written in the form of the API that was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub kind: Kind,
    /// One sentence that says what to do.
    pub message: String,
    /// The request's field in question, where there is one: OpenAI's `param`.
    pub param: Option<String>,
}

impl ApiError {
    /// An error of this kind with this sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> ApiError {
        ApiError { kind, message: message.into(), param: None }
    }

    /// A wrong request.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(Kind::Invalid, message)
    }

    /// A prompt of so many tokens does not fit into a context; `made_for`: no longer one is possible.
    pub fn too_long(tokens: usize, context: usize, made_for: bool) -> ApiError {
        let advice = if made_for {
            "the model was made for no more, whatever num_ctx says: shorten the input"
        } else {
            "shorten the input or ask for a larger num_ctx"
        };
        let message = format!(
            "the input length exceeds the context length: {tokens} tokens leave no room in a context of {context}; {advice}"
        );
        ApiError::new(Kind::ContextLength { tokens, context }, message)
    }

    /// A wrong request, with the field that is wrong.
    pub fn param(name: &str, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(name.to_owned()), ..ApiError::invalid(message) }
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(Kind::NotFound, message)
    }

    /// No model of this name is known, as Ollama says it; `known` are those that there are.
    pub fn no_model(name: &str, known: &[String]) -> ApiError {
        const SHOWN: usize = 8;
        let mut message = format!("model '{}' not found", cut(name, 200));
        if !known.is_empty() {
            let names: Vec<String> = known.iter().take(SHOWN).map(|name| cut(name, 100)).collect();
            let more = known.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            message = format!("{message}: there are {}{more}", names.join(", "));
        }
        ApiError::not_found(message)
    }

    /// Whether a model is what was not found.
    pub(crate) fn is_model(&self) -> bool {
        self.kind == Kind::NotFound && self.message.starts_with("model '")
    }
}

impl From<ir_engine::error::Error> for ApiError {
    fn from(error: ir_engine::error::Error) -> ApiError {
        use ir_engine::error::Error;
        let kind = match &error {
            Error::Request(_) | Error::Template(_) | Error::Limit(_) | Error::Unsupported(_) => Kind::Invalid,
            _ => Kind::Internal,
        };
        ApiError::new(kind, error.to_string())
    }
}

/// A text's first `n` characters, with an ellipsis where there were more: for sentences that quote a client.
pub(crate) fn cut(text: &str, n: usize) -> String {
    match text.char_indices().nth(n) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// What a fault within the server is to a client.
pub(crate) fn panicked() -> ApiError {
    ApiError::new(Kind::Internal, "the server failed within: its log says more")
}

/// What the requests get whose model goes away.
pub(crate) fn unloaded() -> ApiError {
    ApiError::new(Kind::Unavailable, "the model was unloaded: ask again")
}
