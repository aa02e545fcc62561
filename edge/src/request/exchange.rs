//! One request from its first byte to its last, as a state machine without I/O: each call takes what happened and says
//! what to do next. `guard.mjs` does it. So the whole path runs natively in tests, and a panic here can lose nothing
//! that a future would have held.
//!
//! In order: `begin` (receive), `answered` (admit), `next_fetch` / `received` / `unreachable` / `waited` (forward),
//! `push` / `finished` / `ended` (relay), and every ending carries its settlement.

use std::collections::BTreeMap;

use tallygate_shared::events::usage_event::Attempt;
use tallygate_shared::identity::gateway_key::GatewayKey;
use tallygate_shared::ids::RequestId;
use tallygate_shared::policy::decide::{Problem, RequestFacts};
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::telemetry::trace::Span;
use tallygate_shared::time::Timestamp;

use crate::dialects::{Dialect, Endpoint};
use crate::providers::{Deployment, ProviderKind, upstream_url};
use crate::request::answer::{Answer, Facts, refusal_answer};
use crate::request::body::{Body, Edits};
use crate::request::calls::{
    AdmitAnswer, AdmitAnswerRef, AdmitCall, Admitted, AdmittedTarget, Limits,
};
use crate::request::headers::{Headers, forwarded_headers, returned_headers, trace_headers};
use crate::request::isolate::Isolate;
use crate::request::labels::labels_of;
use crate::request::outcomes::{self, OutcomesCall};
use crate::request::retry::{Retry, is_retryable, next_wait};
use crate::request::settle::{End, Ending, Seen};
use crate::request::step::{Last, MeterReply, Step};
use crate::request::tap::{Observed, Passed, Tap, TapConfig, read_body};
use crate::vault::KeyRing;

/// A request as it came in.
pub struct Incoming<'a> {
    /// `POST`, ...
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The headers.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// Why the body could not be had, if so.
    pub body_problem: Option<&'a str>,
    /// 32 random bytes.
    pub random: &'a [u8],
    /// When it came.
    pub now: Timestamp,
}

/// One request under way.
pub struct Exchange {
    endpoint: Option<Endpoint>,
    dialect: Dialect,
    method: String,
    path: String,
    headers: Headers,
    body: Vec<u8>,
    body_problem: Option<String>,
    edited: Option<Vec<u8>>,
    id: RequestId,
    draw: u64,
    started: Timestamp,
    /// The Meter was asked a question of the key's holder, not for an admission.
    asked_question: bool,
    /// The outcomes that were reported came as an array.
    listed: bool,
    admitted: Option<Box<Admitted>>,
    /// The key's public id, for a request that was admitted without its Meter.
    meter: Option<String>,
    facts: BodyFacts,
    forward: Forward,
    upstream: Option<Upstream>,
    tap: Option<Tap>,
    replaced: Vec<u8>,
}

/// What was read of the body and is needed again later.
#[derive(Clone, Debug, Default)]
pub struct BodyFacts {
    /// A stream was asked for.
    pub stream: bool,
    /// With usage.
    pub include_usage: bool,
    /// Input tokens as counted.
    pub input_tokens: u64,
    /// The cache lifetime asked for.
    pub cache_ttl: Option<crate::providers::CacheTtl>,
    /// The search context size asked for.
    pub search_context_size: Option<String>,
}

/// Where the forwarding stands.
#[derive(Debug, Default)]
struct Forward {
    target: usize,
    tries: u32,
    attempts: Vec<Attempt>,
    started: Timestamp,
    first_started: Option<Timestamp>,
}

/// The answer that is being relayed.
struct Upstream {
    status: u16,
    headers: Headers,
    received: Timestamp,
}

impl Exchange {
    /// Takes a request in.
    pub fn receive(incoming: Incoming<'_>) -> Self {
        let path = incoming.target.split('?').next().unwrap_or_default();
        let endpoint = Endpoint::from_path(incoming.method, path);
        let anthropic = incoming.headers.get("anthropic-version").is_some();
        let dialect = match endpoint {
            Some(Endpoint::Models) | None => Dialect::guess(path, anthropic),
            Some(endpoint) => endpoint.dialect(),
        };
        let (seed, draw) = split_random(incoming.random);
        Self {
            endpoint,
            dialect,
            method: incoming.method.to_owned(),
            path: path.to_owned(),
            headers: incoming.headers,
            body: incoming.body,
            body_problem: incoming.body_problem.map(str::to_owned),
            edited: None,
            id: RequestId::mint(incoming.now, &seed),
            draw,
            started: incoming.now,
            asked_question: false,
            listed: false,
            admitted: None,
            meter: None,
            facts: BodyFacts::default(),
            forward: Forward::default(),
            upstream: None,
            tap: None,
            replaced: Vec::new(),
        }
    }

    /// The first step: who is asking, and for what.
    /// `isolate` may let it pass without a call.
    pub fn begin(&mut self, isolate: &mut Isolate, ring: &KeyRing, now: Timestamp) -> Step {
        let key = match self.key() {
            Ok(key) => key,
            Err((code, detail)) => return self.stranger(code, detail),
        };
        let sha256 = key.secret_hash().as_str().to_owned();
        let meter = key.public_id().as_str().to_owned();
        if self.endpoint == Some(Endpoint::Models) {
            self.asked_question = true;
            let call = self.question(&sha256, None);
            return Step::AskMeter { meter, method: "models", call };
        }
        if self.method == "GET" && self.path == "/v1/budget" {
            self.asked_question = true;
            let token = self.headers.get("x-tallygate-actor");
            let call =
                serde_json::json!({ "key_sha256": sha256, "actor_token": token }).to_string();
            return Step::AskMeter { meter, method: "budget", call };
        }
        if self.method == "GET"
            && let Some(id) = self.path.strip_prefix("/v1/requests/")
        {
            let call = self.question(&sha256, Some(id));
            self.asked_question = true;
            return Step::AskMeter { meter, method: "request", call };
        }
        if self.method == "POST" && self.path == outcomes::PATH {
            self.asked_question = true;
            return match serde_json::to_string(&self.outcomes_call(sha256)) {
                Ok(call) => Step::AskMeter { meter, method: "outcomes", call },
                Err(_) => self.gateway_error("the outcomes could not be written"),
            };
        }
        let call = self.admit_call(sha256);
        if let Some(admitted) = isolate.admit(&meter, &call, now) {
            self.admitted = Some(admitted);
            self.meter = Some(meter);
            return self.next_fetch(ring, now);
        }
        match serde_json::to_string(&call) {
            Ok(call) => Step::AskMeter { meter, method: "admit", call },
            Err(_) => self.gateway_error("the admission could not be written"),
        }
    }

    /// What the shell must know of a request that was admitted without its Meter: the key, the sublease, and the answer
    /// that the Meter would have given, from which a request is settled whose core died.
    pub fn admitted_here(&self) -> Option<(&str, &str, String)> {
        let admitted = self.admitted.as_ref()?;
        let lease = admitted.ticket.under.as_ref()?.as_str();
        let answer = serde_json::to_string(&AdmitAnswerRef::Admit(admitted)).ok()?;
        Some((self.meter.as_deref()?, lease, answer))
    }

    /// The gateway key, in whichever header the caller's SDK puts it. With several, the one of our form is meant.
    fn key(&self) -> Result<GatewayKey, (&'static str, String)> {
        let bearer = self.headers.get("authorization").and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        let named = ["x-api-key", "api-key", "x-goog-api-key"].map(|name| self.headers.get(name));
        let candidates =
            || std::iter::once(bearer).chain(named).flatten().filter(|key| !key.is_empty());
        let ours = candidates().find(|key| key.starts_with("tg_"));
        let Some(key) = ours.or_else(|| candidates().next()) else {
            let detail = "No gateway key. Send it as `authorization: Bearer tg_...`, or in x-api-key, \
                api-key or x-goog-api-key.";
            return Err(("key_missing", detail.to_owned()));
        };
        GatewayKey::parse(key).map_err(|error| (error.code(), error.to_string()))
    }

    fn question(&self, sha256: &str, id: Option<&str>) -> String {
        let anthropic = self.dialect == Dialect::Anthropic;
        serde_json::json!({ "key_sha256": sha256, "id": id, "anthropic": anthropic }).to_string()
    }

    fn admit_call(&mut self, key_sha256: String) -> AdmitCall {
        let mut facts = RequestFacts {
            endpoint: match self.endpoint {
                Some(endpoint) => endpoint.path().to_owned(),
                None => printable(&self.path),
            },
            free: matches!(self.endpoint, Some(Endpoint::CountTokens | Endpoint::Moderations)),
            has_output: !matches!(
                self.endpoint,
                Some(Endpoint::Embeddings | Endpoint::Moderations | Endpoint::CountTokens)
            ),
            body_bytes: u64::try_from(self.body.len()).unwrap_or(u64::MAX),
            ip: self.headers.get("cf-connecting-ip").and_then(|ip| ip.parse().ok()),
            choices: 1,
            ..RequestFacts::default()
        };
        let mut labels = BTreeMap::new();
        match self.read_body() {
            Err(problem) => facts.problem = Some(problem),
            Ok(body) => {
                facts.model = body.model.clone().into_owned();
                facts.input_tokens = body.counted_input_tokens;
                facts.parts = (facts.has_output && !facts.free).then_some(body.parts);
                facts.max_output_tokens = body.max_output_tokens;
                facts.choices = body.choices;
                // What generates nothing is no agent's turn.
                facts.shape = (facts.has_output && !facts.free).then(|| body.shape.clone());
                facts.service_tier = body.service_tier.as_deref().map(str::to_owned);
                labels = labels_of(&self.headers, &body);
                self.facts = BodyFacts {
                    stream: body.stream,
                    include_usage: body.include_usage,
                    input_tokens: body.counted_input_tokens,
                    cache_ttl: body.cache_ttl,
                    search_context_size: body.search_context_size.as_deref().map(str::to_owned),
                };
            }
        }
        AdmitCall {
            id: self.id.clone(),
            key_sha256,
            facts,
            stream: self.facts.stream,
            actor_token: self.headers.get("x-tallygate-actor").map(str::to_owned),
            labels,
            draw: self.draw.to_string(),
            trace: self.headers.get("traceparent").and_then(|text| Span::under(text, &self.id)),
        }
    }

    fn outcomes_call(&self, key_sha256: String) -> OutcomesCall {
        let too_large = || problem("request_too_large", "Send at most 128 KiB of outcomes.", None);
        let unreadable = || problem("invalid_request_body", "The body is no UTF-8 text.", None);
        let body = self.arrived().and_then(|()| {
            let size_ok = self.body.len() <= outcomes::MAX_BYTES;
            size_ok.then_some(()).ok_or_else(too_large)?;
            String::from_utf8(self.body.clone()).map_err(|_| unreadable())
        });
        OutcomesCall {
            key_sha256,
            actor_token: self.headers.get("x-tallygate-actor").map(str::to_owned),
            address: self.headers.get("cf-connecting-ip").and_then(|ip| ip.parse().ok()),
            body,
        }
    }

    /// Whether the body is here whole, and JSON by its content type.
    fn arrived(&self) -> Result<(), Problem> {
        if let Some(code) = &self.body_problem {
            let detail = match code.as_str() {
                "request_too_large" => "The request body is larger than 32 MiB.",
                "request_timeout" => "The request body did not arrive within 30 seconds.",
                _ => "The request body broke off before its end.",
            };
            return Err(problem(code, detail, None));
        }
        let content_type = self.headers.get("content-type").unwrap_or("application/json");
        if !content_type.to_ascii_lowercase().contains("json") {
            let detail = "The body must be JSON: send `content-type: application/json`.";
            return Err(problem("unsupported_media_type", detail, None));
        }
        Ok(())
    }

    fn read_body(&self) -> Result<Body<'_>, Problem> {
        let Some(endpoint) = self.endpoint else {
            let detail = format!("There is no endpoint {} {}.", self.method, printable(&self.path));
            return Err(problem("not_found", &detail, None));
        };
        self.arrived()?;
        Body::read(endpoint, &self.body)
            .map_err(|error| problem("invalid_request_body", &error.to_string(), error.field()))
    }

    /// The Meter's answer to the question asked last.
    pub fn answered(&mut self, answer: &str, ring: &KeyRing, now: Timestamp) -> Step {
        if self.asked_question {
            // The answers to `models` and `request` come finished.
            return match serde_json::from_str::<MeterReply>(answer) {
                Ok(MeterReply::Record { listed, calls }) => {
                    self.listed = listed;
                    Step::AskLedgers { calls }
                }
                Ok(reply) => self.reply(reply),
                Err(_) => self.gateway_error("the Meter's answer could not be read"),
            };
        }
        match serde_json::from_str::<AdmitAnswer>(answer) {
            Ok(AdmitAnswer::Admit(admitted)) => {
                self.admitted = Some(admitted);
                self.next_fetch(ring, now)
            }
            Ok(AdmitAnswer::Refuse { refusal, limits }) => self.refused(&refusal, limits),
            // The Meter's own shell asks the Budgets; a request never hears of it.
            Ok(AdmitAnswer::Ask { .. }) | Err(_) => {
                self.gateway_error("the Meter's answer could not be read")
            }
        }
    }

    /// The Ledgers' answers, a list of texts, to the outcomes sent to them.
    pub fn recorded(&self, answers: &str) -> Step {
        let answers: Option<Vec<String>> = serde_json::from_str(answers).ok();
        match answers.and_then(|answers| outcomes::reply(self.listed, &answers)) {
            Some(Ok(body)) => self.found(200, body),
            Some(Err(refusal)) => self.refused(&refusal, Limits::default()),
            None => self.gateway_error("a Ledger's answer could not be read"),
        }
    }

    /// A Ledger could not be asked. What the others recorded stays: the call may be sent again as it is.
    pub fn ledger_failed(&self) -> Step {
        let detail = "The gateway cannot record outcomes right now. Send the same again.";
        self.error(503, "ledger_unavailable", detail, Some(1))
    }

    fn found(&self, status: u16, body: String) -> Step {
        let headers =
            vec![("content-type".to_owned(), "application/json".to_owned()), self.id_header()];
        Step::Respond(Answer::text(status, headers, body))
    }

    fn reply(&self, reply: MeterReply) -> Step {
        match reply {
            MeterReply::Found { status, body } => self.found(status, body),
            MeterReply::Record { .. } => self.gateway_error("a record is no answer"),
            MeterReply::Refused { refusal } => self.refused(&refusal, Limits::default()),
            MeterReply::NotFound => {
                let detail =
                    "No such request of this key. Older ones are in the workspace's ledger.";
                self.error(404, "request_not_found", detail, None)
            }
        }
    }

    /// The Meter could not be asked, twice: without it nothing is decided, so the request is refused.
    pub fn meter_failed(&self) -> Step {
        let detail = "The gateway cannot decide about this request right now. Try again.";
        self.error(503, "meter_unavailable", detail, Some(1))
    }

    /// The next attempt: at the current target, or where that one cannot be asked at all, at the next.
    fn next_fetch(&mut self, ring: &KeyRing, now: Timestamp) -> Step {
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

    fn target(&self) -> Option<&AdmittedTarget> {
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

    /// One chunk of a stream came. True when something else goes out in its place: see [`Self::replaced`].
    pub fn push(&mut self, chunk: &[u8]) -> bool {
        match self.tap.as_mut().map(|tap| tap.push(chunk)) {
            Some(Passed::Replaced(bytes)) => {
                self.replaced = bytes;
                true
            }
            Some(Passed::AsIs) | None => false,
        }
    }

    /// What goes out in place of the last chunk.
    pub fn replaced(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replaced)
    }

    /// What was held back when a stream ended.
    pub fn flush(&mut self) -> Vec<u8> {
        self.tap.as_mut().map(Tap::flush).unwrap_or_default()
    }

    /// A stream is over. `ended` is `complete`, `died`, `stalled` or `client_gone`; `gone` says that the caller left.
    pub fn ended(&mut self, ended: &str, gone: bool, now: Timestamp) -> Option<Last> {
        let observed = self.tap.take()?.finish();
        let status = self.upstream.as_ref().map_or(0, |upstream| upstream.status);
        let seen =
            Seen { end: End::of_stream(ended, gone), status, code: None, observed: Some(observed) };
        self.settle(seen, now).map(Ending::into_last)
    }

    /// A whole answer was read. `ended` is `complete`, `died`, `stalled` or `too_large`.
    pub fn finished(&mut self, ended: &str, bytes: &[u8], now: Timestamp) -> Step {
        let Some(upstream) = &self.upstream else {
            return self.gateway_error("no answer to finish");
        };
        let status = upstream.status;
        let good = (200..300).contains(&status);
        if ended != "complete" {
            let observed = self.observe(bytes).filter(|_| good);
            let code = if ended == "stalled" { "provider_stalled" } else { "provider_died" };
            let end = if ended == "stalled" { End::Stalled } else { End::Died };
            let seen = Seen { end, status: 502, code: Some(code.to_owned()), observed };
            let settled = self.settle(seen, now).map(|ending| ending.settlement);
            let detail = "The provider's answer broke off before its end.";
            return match self.error(502, code, detail, None) {
                Step::Respond(answer) => Step::Respond(answer.with_settlement(settled)),
                other => other,
            };
        }
        let end = if good { End::Complete } else { End::ProviderError };
        let observed = if good { self.observe(bytes) } else { None };
        let seen = Seen { end, status, code: None, observed };
        let Some(ending) = self.settle(seen, now) else {
            return self.gateway_error("not admitted");
        };
        let headers = self.response_headers(Some(&ending));
        Step::Respond(Answer::upstream(status, headers, ending.settlement))
    }

    fn observe(&self, bytes: &[u8]) -> Option<Observed> {
        self.tap_config(false).map(|config| read_body(&config, bytes))
    }

    fn tap_config(&self, streaming: bool) -> Option<TapConfig> {
        let kind = ProviderKind::parse(&self.target()?.kind)?;
        let endpoint = self.endpoint?;
        let injected = streaming && !self.facts.include_usage && kind.needs_include_usage(endpoint);
        Some(self.facts.tap_config(kind, endpoint, injected))
    }

    fn settle(&self, seen: Seen, now: Timestamp) -> Option<Ending> {
        let admitted = self.admitted.as_ref()?;
        let facts = Facts {
            target: self.target(),
            attempts: self.forward.attempts.clone(),
            started: self.started,
            first_byte: self.upstream.as_ref().map(|upstream| upstream.received),
            input_tokens: self.facts.input_tokens,
            now,
        };
        Some(crate::request::settle::settle(admitted, facts, seen))
    }

    fn response_headers(&self, ending: Option<&Ending>) -> Vec<(String, String)> {
        let mut headers = Vec::with_capacity(24);
        if let Some(upstream) = &self.upstream {
            returned_headers(&upstream.headers, &mut headers);
        }
        headers.push(self.id_header());
        let mut push = |name: &str, value: String| {
            headers.push((format!("x-tallygate-{name}"), printable(&value)));
        };
        if let Some(target) = self.target() {
            push("provider", target.provider.clone());
            push("model", target.model.clone());
        }
        if let Some(budget) = self.admitted.as_ref().and_then(|a| a.ticket.downgraded_by.as_ref()) {
            push("downgraded-by", budget.clone());
        }
        push("attempts", self.forward.attempts.len().to_string());
        let asked = self.forward.first_started.unwrap_or(self.started);
        push("overhead-ms", elapsed(self.started, asked).to_string());
        if let Some(admitted) = &self.admitted {
            if let Some(remaining) = admitted.budget_remaining {
                push("budget-remaining-usd", remaining.to_string());
            }
            crate::request::headers::limit_headers(&admitted.limits, &mut headers);
        }
        if let Some(ending) = ending {
            ending.cost_headers(&mut headers);
        }
        headers
    }

    fn id_header(&self) -> (String, String) {
        ("x-tallygate-request-id".to_owned(), self.id.as_str().to_owned())
    }

    fn refused(&self, refusal: &Refusal, limits: Limits) -> Step {
        Step::Respond(refusal_answer(self.dialect, refusal, &limits, self.id.as_str()))
    }

    /// An error for somebody who has no key to record it under: it goes to the log, without the key.
    fn stranger(&self, code: &str, detail: String) -> Step {
        self.error(401, code, &detail, None)
    }

    fn gateway_error(&self, inside: &str) -> Step {
        let _ = inside;
        self.error(500, "gateway_error", "The gateway failed on this request. Try again.", None)
    }

    fn error(&self, status: u16, code: &str, detail: &str, retry_after_s: Option<u64>) -> Step {
        let id = self.id.as_str();
        Step::Respond(Answer::error(self.dialect, status, code, detail, retry_after_s, id))
    }
}

fn problem(code: &str, detail: &str, param: Option<&str>) -> Problem {
    let (code, detail) = (code.to_owned(), detail.to_owned());
    Problem { code, detail, param: param.map(str::to_owned) }
}

impl BodyFacts {
    /// How to read an answer to this request.
    pub fn tap_config(
        &self,
        provider: ProviderKind,
        endpoint: Endpoint,
        strip_usage_chunk: bool,
    ) -> TapConfig {
        TapConfig {
            provider,
            endpoint,
            strip_usage_chunk,
            counted_input_tokens: self.input_tokens,
            cache_ttl: self.cache_ttl,
            search_context_size: self.search_context_size.clone(),
        }
    }
}

/// Milliseconds from one moment to another, never negative.
pub fn elapsed(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.since_ms(from)).unwrap_or(0)
}

/// A text that is safe in a header and in an error: visible ASCII, at most 200 characters.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(200).collect()
}

fn split_random(random: &[u8]) -> ([u8; 10], u64) {
    let mut seed = [0; 10];
    for (to, from) in seed.iter_mut().zip(random) {
        *to = *from;
    }
    let draw =
        random.iter().skip(10).take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (seed, draw)
}
