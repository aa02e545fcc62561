//! Headers: which of the caller's go to the provider, which of the provider's come back, and the gateway's own.

use crate::dialects::Endpoint;
use crate::providers::{Auth, ProviderKind};
use crate::request::calls::{LimitState, Limits};
use tallygate_shared::telemetry::trace::{Span, passed_state};

/// Headers as a list, names in lower case, as the runtime gives them.
#[derive(Clone, Debug, Default)]
pub struct Headers(Vec<(String, String)>);

/// The caller's headers that a provider understands and may see. All else stays here: above all keys, cookies, addresses,
/// and the choice of the account that pays (`openai-organization`, `openai-project`).
const FORWARDED: [&str; 8] = [
    "content-type",
    "accept",
    "user-agent",
    "idempotency-key",
    "anthropic-version",
    "anthropic-beta",
    "openai-beta",
    "http-referer",
];

/// The provider's headers that the caller gets. Its rate limits are the account's and not this key's: they stay here.
const RETURNED: [&str; 9] = [
    "content-type",
    "request-id",
    "x-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "openai-processing-ms",
    "openai-version",
    "openai-model",
];

impl Headers {
    /// From the runtime's list.
    pub fn new(list: Vec<(String, String)>) -> Self {
        Self(list)
    }

    /// The value of a header, by its name in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// How long the provider asks to wait. `retry-after-ms` is the finer one; a date is not believed.
    pub fn retry_after_ms(&self) -> Option<u64> {
        let ms = self.get("retry-after-ms").and_then(|ms| ms.trim().parse::<u64>().ok());
        let seconds = || self.get("retry-after").and_then(|s| s.trim().parse::<u64>().ok());
        ms.or_else(|| seconds().map(|s| s.saturating_mul(1000)))
    }
}

/// The headers of the request to the provider.
pub fn forwarded_headers(
    incoming: &Headers,
    kind: ProviderKind,
    endpoint: Endpoint,
    auth_header: Option<&str>,
    credential: Option<&str>,
    request_id: &str,
) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::with_capacity(12);
    for name in FORWARDED {
        if let Some(value) = incoming.get(name) {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    for (name, value) in kind.default_headers(endpoint) {
        if incoming.get(name).is_none() {
            headers.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    if let Some(credential) = credential {
        let (name, value) = match auth_header {
            None => kind.facts().auth.header(credential),
            Some("authorization") => Auth::Bearer.header(credential),
            Some(name) => (name, credential.to_owned()),
        };
        headers.push((name.to_owned(), value));
    }
    // The answer is read on its way, so it must come as it is.
    headers.push(("accept-encoding".to_owned(), "identity".to_owned()));
    headers.push(("x-tallygate-request-id".to_owned(), request_id.to_owned()));
    headers
}

/// Adds the request's trace: the provider's work is a child of the gateway's span. Without a span there is nothing to
/// add: what the caller sent could not be read, and is not passed on. Every attempt has the same span; the usage event
/// tells them apart.
pub fn trace_headers(incoming: &Headers, span: Option<&Span>, to: &mut Vec<(String, String)>) {
    let Some(span) = span else { return };
    to.push(("traceparent".to_owned(), span.traceparent()));
    // A state belongs to its `traceparent`: with one that could not be read, it is dropped too.
    let continues =
        incoming.get("traceparent").is_some_and(|parent| parent.contains(span.trace_id.as_str()));
    let state = incoming.get("tracestate").filter(|_| continues).and_then(passed_state);
    if let Some(state) = state {
        to.push(("tracestate".to_owned(), state));
    }
}

/// Adds the provider's headers that the caller may see.
pub fn returned_headers(upstream: &Headers, to: &mut Vec<(String, String)>) {
    for name in RETURNED {
        if let Some(value) = upstream.get(name) {
            to.push((name.to_owned(), value.to_owned()));
        }
    }
}

/// Adds OpenAI's `x-ratelimit-*` for this key's own limits.
pub fn limit_headers(limits: &Limits, to: &mut Vec<(String, String)>) {
    for (unit, state) in [("requests", limits.requests), ("tokens", limits.tokens)] {
        let Some(LimitState { limit, remaining, reset_ms }) = state else { continue };
        to.push((format!("x-ratelimit-limit-{unit}"), limit.to_string()));
        to.push((format!("x-ratelimit-remaining-{unit}"), remaining.to_string()));
        to.push((format!("x-ratelimit-reset-{unit}"), format!("{reset_ms}ms")));
    }
}
