//! The APIs: each translates its fields into a job and what comes back into its own JSON, and has its own form of errors.
//! What they share is `common`; none uses another.

pub(crate) mod anthropic;
pub(crate) mod common;
pub(crate) mod llama;
pub(crate) mod ollama;
pub(crate) mod openai;
pub(crate) mod responses;

use axum::Router;
use utoipa::OpenApi;

use crate::generate::hub::Hub;
use common::dialect::Dialect;
use common::openai_error::OPENAI;

/// An API as the router takes it.
pub(crate) struct Api {
    /// Its addresses.
    pub(crate) routes: Router<Hub>,
    /// How it writes errors.
    pub(crate) dialect: Dialect,
    /// What it says of itself.
    pub(crate) description: utoipa::openapi::OpenApi,
}

/// All of them.
pub(crate) fn all() -> [Api; 5] {
    let api = |routes, dialect, description| Api { routes, dialect, description };
    [
        api(ollama::routes(), ollama::DIALECT, ollama::Api::openapi()),
        api(openai::routes(), OPENAI, openai::Api::openapi()),
        api(responses::routes(), OPENAI, responses::Api::openapi()),
        api(anthropic::routes(), anthropic::DIALECT, anthropic::Api::openapi()),
        api(llama::routes(), llama::DIALECT, llama::Api::openapi()),
    ]
}
