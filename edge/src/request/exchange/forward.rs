//! Forwarding: which provider is asked next, with what, and what follows from its answer.

use tallygate_shared::events::usage_event::Attempt;
use tallygate_shared::time::Timestamp;

use super::{Exchange, Upstream, elapsed};
use crate::dialects::Endpoint;
use crate::providers::{Deployment, ProviderKind, upstream_url};
use crate::request::body::{Body, Edits};
use crate::request::calls::{Admitted, AdmittedTarget};
use crate::request::headers::{Headers, forwarded_headers, trace_headers};
use crate::request::retry::{Retry, is_retryable, next_wait};
use crate::request::settle::{End, Seen};
use crate::request::step::Step;
use crate::request::tap::Tap;
use crate::vault::KeyRing;

impl Exchange {
    /// The next attempt: at the current target, or where that one cannot be asked at all, at the next.
    pub(super) fn next_fetch(&mut self, ring: &KeyRing, now: Timestamp) -> Step {
        loop {
            let Some(admitted) = &self.admitted else { return self.gateway_error("not admitted") };
            let Some(target) = admitted.targets.get(self.forward.target) else {
                return self.exhausted(now);
            };
            match self.fetch_step(admitted, target, ring) {
                Ok((step, edited)) => {
                    self.edited = edited;
                    self.forward.started = now;
                    self.forward.first_started.get_or_insert(now);
                    return step;
                }
                Err(error) => {
                    let attempt = self.attempt(target, None, Some(error), now, now);
                    self.forward.attempts.push(attempt);
                    self.forward.target += 1;
                    self.forward.tries = 0;
                }
            }
        }
    }

    fn fetch_step(
        &self,
        admitted: &Admitted,
        target: &AdmittedTarget,
        ring: &KeyRing,
    ) -> Result<(Step, Option<Vec<u8>>), String> {
        let endpoint = self.endpoint.ok_or("no endpoint")?;
        let kind = ProviderKind::parse(&target.kind).ok_or("provider_kind_unknown")?;
        let context = format!("{}/provider/{}", admitted.workspace, target.provider);
        let credential = target.credential.as_deref().map(|sealed| ring.open(sealed, &context));
        // The cause stays inside: it could tell of the key ring.
        let credential = credential.transpose().map_err(|_| "credential_unreadable")?;
        let deployment =
            Deployment { name: &target.model, api_version: target.api_version.as_deref() };
        let url = upstream_url(kind, Some(&target.base_url), endpoint, Some(deployment))
            .map_err(|error| error.to_string())?;
        let mut headers = forwarded_headers(
            &self.headers,
            kind,
            endpoint,
            target.auth_header.as_deref(),
            credential.as_deref(),
            self.id.as_str(),
        );
        trace_headers(&self.headers, admitted.ticket.trace.as_ref(), &mut headers);
        let step = Step::Fetch {
            url,
            method: endpoint.method(),
            headers,
            first_byte_timeout_ms: admitted.first_byte_timeout_ms,
            target: self.forward.target,
        };
        Ok((step, self.edited_body(admitted, target, kind, endpoint)?))
    }

    /// The body with what must change in it; `None` when it goes out as it came.
    fn edited_body(
        &self,
        admitted: &Admitted,
        target: &AdmittedTarget,
        kind: ProviderKind,
        endpoint: Endpoint,
    ) -> Result<Option<Vec<u8>>, String> {
        let model =
            (target.model != admitted.ticket.requested_model).then_some(target.model.as_str());
        let limit = admitted.set_max_output_tokens;
        let max_output = kind.max_output_field(endpoint).zip(limit);
        let include_usage =
            self.facts.stream && !self.facts.include_usage && kind.needs_include_usage(endpoint);
        if model.is_none() && max_output.is_none() && !include_usage {
            return Ok(None);
        }
        let body = Body::read(endpoint, &self.body).map_err(|error| error.to_string())?;
        Ok(Some(body.edited(&Edits { model, max_output, include_usage }).into_owned()))
    }

    /// The body to send, where it differs from the caller's.
    pub fn upstream_body(&mut self) -> Option<Vec<u8>> {
        self.edited.take()
    }

    fn attempt(
        &self,
        target: &AdmittedTarget,
        status: Option<u16>,
        error: Option<String>,
        started: Timestamp,
        now: Timestamp,
    ) -> Attempt {
        Attempt {
            provider: target.provider.clone(),
            model: target.model.clone(),
            status,
            error,
            started_ms: elapsed(self.started, started),
            took_ms: elapsed(started, now),
        }
    }

    fn note_attempt(&mut self, status: Option<u16>, error: Option<&str>, now: Timestamp) {
        if let Some(target) = self.target() {
            let error = error.map(str::to_owned);
            let attempt = self.attempt(target, status, error, self.forward.started, now);
            self.forward.attempts.push(attempt);
        }
    }

    pub(super) fn target(&self) -> Option<&AdmittedTarget> {
        self.admitted.as_ref()?.targets.get(self.forward.target)
    }

    /// A provider's headers are here.
    pub fn received(
        &mut self,
        status: u16,
        headers: Headers,
        ring: &KeyRing,
        now: Timestamp,
    ) -> Step {
        self.note_attempt(Some(status), None, now);
        if is_retryable(status) {
            let retry_after = headers.retry_after_ms();
            if let Some(step) = self.retry(retry_after, ring, now) {
                return step;
            }
        }
        let event_stream = headers.get("content-type").is_some_and(|t| t.contains("event-stream"));
        self.upstream = Some(Upstream { status, headers, received: now });
        let idle_timeout_ms = self.admitted.as_ref().map_or(60_000, |a| a.idle_timeout_ms);
        if !(200..300).contains(&status) || !event_stream {
            return Step::Buffer { idle_timeout_ms };
        }
        self.tap = self.tap_config(true).map(Tap::new);
        let headers = self.response_headers(None);
        Step::Relay { status, headers, idle_timeout_ms }
    }

    /// A provider could not be reached, or sent no headers in time.
    pub fn unreachable(&mut self, why: &str, ring: &KeyRing, now: Timestamp) -> Step {
        self.note_attempt(None, Some(why), now);
        self.retry(None, ring, now).unwrap_or_else(|| self.exhausted(now))
    }

    /// The wait is over.
    pub fn waited(&mut self, ring: &KeyRing, now: Timestamp) -> Step {
        self.next_fetch(ring, now)
    }

    /// Another attempt, if there is one: at the same target after a wait, or at the next at once.
    fn retry(
        &mut self,
        retry_after_ms: Option<u64>,
        ring: &KeyRing,
        now: Timestamp,
    ) -> Option<Step> {
        let admitted = self.admitted.as_ref()?;
        let more_targets = self.forward.target + 1 < admitted.targets.len();
        self.forward.tries += 1;
        let tries = self.forward.tries;
        match next_wait(tries, admitted.attempts, retry_after_ms, more_targets, self.draw) {
            Retry::SameTarget { wait_ms } => Some(Step::Wait { ms: wait_ms }),
            Retry::NextTarget => {
                self.forward.target += 1;
                self.forward.tries = 0;
                Some(self.next_fetch(ring, now))
            }
            Retry::GiveUp => None,
        }
    }

    /// No provider could be asked, or none answered.
    fn exhausted(&mut self, now: Timestamp) -> Step {
        let error = self.forward.attempts.last().and_then(|attempt| attempt.error.clone());
        let timed_out = error.as_deref() == Some("first_byte_timeout");
        let (status, code, detail) = if timed_out {
            (504, "provider_timeout", "The provider did not answer in time.")
        } else {
            (502, "provider_unreachable", "The provider could not be reached.")
        };
        // Who keeps a request for minutes may well bill it; who refuses the connection does not.
        let end = if timed_out { End::TimedOut } else { End::Unreachable };
        let seen = Seen { end, status, code: Some(code.to_owned()), observed: None };
        let settled = self.settle(seen, now);
        let Step::Respond(answer) = self.error(status, code, detail, None) else {
            return self.gateway_error("no answer");
        };
        Step::Respond(answer.with_settlement(settled.map(|ending| ending.settlement)))
    }
}
