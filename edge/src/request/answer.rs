//! Answers to the caller: what the shell needs to build a response, and refusals in the caller's dialect.

use serde::Serialize;
use serde_json::{Map, json};
use tallygate_shared::events::usage_event::Attempt;
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::time::Timestamp;

use crate::dialects::{CallerError, Dialect, render_error};
use crate::request::calls::{AdmittedTarget, Limits};
use crate::request::headers::limit_headers;
use crate::request::status::status_of;

/// A response, and the settlement that goes to the Meter beside it.
#[derive(Debug, Serialize)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// The body is the provider's, byte for byte.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    upstream_body: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    settlement: Option<String>,
}

/// What a settlement needs to know of the forwarding.
pub struct Facts<'a> {
    /// The target that was asked last.
    pub target: Option<&'a AdmittedTarget>,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
    /// When the request came.
    pub started: Timestamp,
    /// When the provider's headers came.
    pub first_byte: Option<Timestamp>,
    /// Input tokens as counted.
    pub input_tokens: u64,
    /// The time.
    pub now: Timestamp,
}

impl Answer {
    /// A body of the gateway's own.
    pub fn text(status: u16, headers: Vec<(String, String)>, body: String) -> Self {
        Self { status, headers, body: Some(body), upstream_body: false, settlement: None }
    }

    /// The provider's body.
    pub fn upstream(status: u16, headers: Vec<(String, String)>, settlement: String) -> Self {
        Self { status, headers, body: None, upstream_body: true, settlement: Some(settlement) }
    }

    /// An error without facts.
    pub fn error(
        dialect: Dialect,
        status: u16,
        code: &str,
        detail: &str,
        retry_after_s: Option<u64>,
        request_id: &str,
    ) -> Self {
        let message = detail.to_owned();
        let error =
            CallerError { status, code, message, param: None, metadata: Map::new(), request_id };
        Self::rendered(dialect, &error, retry_after_s.map(|s| s * 1000))
    }

    fn rendered(dialect: Dialect, error: &CallerError<'_>, retry_after_ms: Option<u64>) -> Self {
        let (content_type, body) = render_error(dialect, error);
        let mut headers = vec![
            ("content-type".to_owned(), content_type.to_owned()),
            ("x-tallygate-request-id".to_owned(), error.request_id.to_owned()),
            ("x-tallygate-code".to_owned(), error.code.to_owned()),
        ];
        match retry_after_ms {
            Some(ms) => {
                headers.push(("retry-after".to_owned(), ms.div_ceil(1000).max(1).to_string()));
                headers.push(("retry-after-ms".to_owned(), ms.to_string()));
            }
            // SDKs try a 5xx again by themselves; where it cannot help they are told so.
            None if error.status < 500 => {
                headers.push(("x-should-retry".to_owned(), "false".to_owned()));
            }
            None => {}
        }
        Self {
            status: error.status,
            headers,
            body: Some(body),
            upstream_body: false,
            settlement: None,
        }
    }

    /// The same with a settlement.
    #[must_use]
    pub fn with_settlement(self, settlement: Option<String>) -> Self {
        Self { settlement, ..self }
    }

    /// The status, for tests and logs.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body, where it is the gateway's own.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }
}

/// A refusal in the caller's dialect, with its facts and what to do.
pub fn refusal_answer(
    dialect: Dialect,
    refusal: &Refusal,
    limits: &Limits,
    request_id: &str,
) -> Answer {
    let mut metadata = refusal.facts();
    metadata.insert("retryable".to_owned(), json!(refusal.retry_after_ms().is_some()));
    let error = CallerError {
        status: status_of(refusal),
        code: refusal.code(),
        message: refusal.to_string(),
        param: refusal.param().map(str::to_owned),
        metadata,
        request_id,
    };
    let mut answer = Answer::rendered(dialect, &error, refusal.retry_after_ms());
    limit_headers(limits, &mut answer.headers);
    answer
}
