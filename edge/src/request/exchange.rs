//! One request from its first byte to its last, as a state machine without I/O: each call takes what happened and says
//! what to do next. `guard.mjs` does it. So the whole path runs natively in tests, and a panic here can lose nothing
//! that a future would have held.
//!
//! In order: `begin` (receive), `answered` (admit), `next_fetch` / `received` / `unreachable` / `waited` (forward),
//! `push` / `finished` / `ended` (relay), and every ending carries its settlement.

mod forward;
mod relay;

use std::collections::BTreeMap;

use tallygate_shared::events::usage_event::Attempt;
use tallygate_shared::identity::gateway_key::GatewayKey;
use tallygate_shared::ids::RequestId;
use tallygate_shared::policy::decide::{Problem, RequestFacts};
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::telemetry::trace::Span;
use tallygate_shared::time::Timestamp;

use crate::dialects::{Dialect, Endpoint};
use crate::providers::ProviderKind;
use crate::request::answer::{Answer, refusal_answer};
use crate::request::body::Body;
use crate::request::calls::{AdmitAnswer, AdmitAnswerRef, AdmitCall, Admitted, Limits};
use crate::request::headers::{Headers, returned_headers};
use crate::request::isolate::Isolate;
use crate::request::labels::labels_of;
use crate::request::outcomes::{self, OutcomesCall};
use crate::request::settle::Ending;
use crate::request::step::{MeterReply, Step};
use crate::request::tap::{Tap, TapConfig};
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
