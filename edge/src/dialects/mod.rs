//! What a client speaks: the endpoints it may call and the error envelope it understands. Pure.
//!
//! Knows no provider and no policy: a refusal comes here finished, with its code, text and facts.

pub mod anthropic;
pub mod openai;

use serde_json::{Map, Value};

/// The family of an API: it decides the error envelope and the shape of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's API and the many that copy it.
    OpenAi,
    /// Anthropic's Messages API.
    Anthropic,
}

/// An endpoint that the gateway serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/moderations`
    Moderations,
    /// `GET /v1/models`
    Models,
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
}

impl Endpoint {
    /// All endpoints, for tables and tests.
    pub const ALL: [Self; 8] = [
        Self::ChatCompletions,
        Self::Responses,
        Self::Completions,
        Self::Embeddings,
        Self::Moderations,
        Self::Models,
        Self::Messages,
        Self::CountTokens,
    ];

    /// The endpoint of a request. `/v1` may be missing, as some clients' base URLs leave it out, and a trailing slash
    /// is forgiven.
    pub fn from_path(method: &str, path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let path = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path);
        let (expected, endpoint) = match path {
            "/chat/completions" => ("POST", Self::ChatCompletions),
            "/responses" => ("POST", Self::Responses),
            "/completions" => ("POST", Self::Completions),
            "/embeddings" => ("POST", Self::Embeddings),
            "/moderations" => ("POST", Self::Moderations),
            "/models" => ("GET", Self::Models),
            "/messages" => ("POST", Self::Messages),
            "/messages/count_tokens" => ("POST", Self::CountTokens),
            _ => return None,
        };
        (method == expected).then_some(endpoint)
    }

    /// The path that clients call.
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Moderations => "/v1/moderations",
            Self::Models => "/v1/models",
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
        }
    }

    /// The method that clients use.
    pub const fn method(self) -> &'static str {
        match self {
            Self::Models => "GET",
            Self::ChatCompletions
            | Self::Responses
            | Self::Completions
            | Self::Embeddings
            | Self::Moderations
            | Self::Messages
            | Self::CountTokens => "POST",
        }
    }

    /// The dialect of the endpoint. `Models` exists in both; see [`Dialect::guess`].
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            Self::ChatCompletions
            | Self::Responses
            | Self::Completions
            | Self::Embeddings
            | Self::Moderations
            | Self::Models => Dialect::OpenAi,
        }
    }

    /// Whether a call costs tokens. The others are free of charge at every provider.
    pub const fn is_billed(self) -> bool {
        match self {
            Self::Models | Self::CountTokens => false,
            Self::ChatCompletions
            | Self::Responses
            | Self::Completions
            | Self::Embeddings
            | Self::Moderations
            | Self::Messages => true,
        }
    }
}

impl Dialect {
    /// The dialect to answer in when the path alone does not tell: unknown paths, and `/v1/models`, which both have.
    pub fn guess(path: &str, has_anthropic_version: bool) -> Self {
        let of_anthropic = ["/v1/messages", "/messages", "/anthropic"];
        if has_anthropic_version || of_anthropic.iter().any(|prefix| path.starts_with(prefix)) {
            Self::Anthropic
        } else {
            Self::OpenAi
        }
    }
}

/// An error for the caller, before it is put into a dialect's envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerError<'a> {
    /// HTTP status.
    pub status: u16,
    /// Stable code, for programs.
    pub code: &'a str,
    /// What happened and what to do, for people.
    pub message: String,
    /// The field of the request that is at fault.
    pub param: Option<String>,
    /// The facts: which limit, its cap, what is spent, when it resets.
    pub metadata: Map<String, Value>,
    /// The gateway's id of the request.
    pub request_id: &'a str,
}

/// The content type and the body of an error in a dialect.
pub fn render_error(dialect: Dialect, error: &CallerError<'_>) -> (&'static str, String) {
    let body = match dialect {
        Dialect::OpenAi => openai::render_error(error),
        Dialect::Anthropic => anthropic::render_error(error),
    };
    ("application/json", body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_endpoint_is_found_at_its_own_path() {
        for endpoint in Endpoint::ALL {
            let (method, path) = (endpoint.method(), endpoint.path());
            assert_eq!(Endpoint::from_path(method, path), Some(endpoint), "{path}");
            assert_eq!(Endpoint::from_path(method, &format!("{path}/")), Some(endpoint), "{path}/");
            let short = path.strip_prefix("/v1").unwrap();
            assert_eq!(Endpoint::from_path(method, short), Some(endpoint), "{short}");
            assert_eq!(Endpoint::from_path("DELETE", path), None, "{path}");
        }
        for path in ["", "/", "/v1", "/v1/v1/models", "/v1models", "/v1/chat"] {
            assert_eq!(Endpoint::from_path("GET", path), None, "{path}");
        }
    }

    #[test]
    fn dialect_of_an_unknown_path_is_guessed_from_the_header_and_the_prefix() {
        for (path, header, expect) in [
            ("/v1/models", false, Dialect::OpenAi),
            ("/v1/models", true, Dialect::Anthropic),
            ("/v1/messages/batches", false, Dialect::Anthropic),
            ("/nowhere", false, Dialect::OpenAi),
        ] {
            assert_eq!(Dialect::guess(path, header), expect, "{path}");
        }
    }

    fn error(status: u16) -> CallerError<'static> {
        let mut metadata = Map::new();
        metadata.insert("limit".into(), json!("day"));
        CallerError {
            status,
            code: "budget_exhausted",
            message: "the budget is spent".into(),
            param: None,
            metadata,
            request_id: "req_1",
        }
    }

    #[test]
    fn openai_error_envelope_format_unchanged() {
        let (content_type, body) = render_error(Dialect::OpenAi, &error(402));
        assert_eq!(content_type, "application/json");
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!({"error": {"message": "the budget is spent", "type": "insufficient_quota",
                "param": null, "code": "budget_exhausted", "metadata": {"limit": "day"}},
                "request_id": "req_1"})
        );
    }

    #[test]
    fn anthropic_error_envelope_format_unchanged() {
        let (_, body) = render_error(Dialect::Anthropic, &error(402));
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!({"type": "error", "error": {"type": "billing_error",
                "message": "the budget is spent", "code": "budget_exhausted",
                "metadata": {"limit": "day"}}, "request_id": "req_1"})
        );
    }
}
