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

#[cfg(test)]
mod tests {
    use super::*;
    use tallygate_shared::ids::RequestId;
    use tallygate_shared::time::Timestamp;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn passed(headers: &[(&str, &str)], start: bool) -> Vec<(String, String)> {
        let list = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let incoming = Headers::new(list.collect());
        let id = RequestId::mint(Timestamp::from_ms(1_790_000_000_000), &[3; 10]);
        let span = incoming.get("traceparent").and_then(|text| Span::under(text, &id));
        let span = span.or_else(|| start.then(|| Span::started_by(&id)));
        let mut headers = forwarded_headers(
            &incoming,
            ProviderKind::Openai,
            Endpoint::ChatCompletions,
            None,
            None,
            id.as_str(),
        );
        trace_headers(&incoming, span.as_ref(), &mut headers);
        headers.retain(|(name, _)| name.starts_with("trace"));
        headers
    }

    #[test]
    fn the_provider_s_work_is_a_child_of_the_gateway_s_span() {
        let headers = passed(&[("traceparent", PARENT), ("tracestate", "a=1, b=2")], false);
        let [(_, parent), (name, state)] = headers.as_slice() else { panic!("{headers:?}") };
        assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(!parent.contains("00f067aa0ba902b7"), "{parent}");
        assert_eq!((name.as_str(), state.as_str()), ("tracestate", "a=1,b=2"));
        let without_state = passed(&[("traceparent", PARENT), ("tracestate", "A=!,")], false);
        assert_eq!(without_state.len(), 1, "a state that cannot be read is dropped alone");
    }

    #[test]
    fn without_a_trace_nothing_starts_unless_the_workspace_wants_it() {
        let malformed = [("traceparent", "00-zz"), ("tracestate", "a=1")];
        assert_eq!(passed(&[], false), []);
        assert_eq!(passed(&malformed, false), []);
        let started = passed(&malformed, true);
        assert_eq!(started.len(), 1, "the state of a trace that cannot be read is dropped with it");
        assert!(started[0].1.ends_with("-03"), "{started:?}");
    }
}
