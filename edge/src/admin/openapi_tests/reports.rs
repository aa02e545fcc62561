//! Answers of the reports on models, prompts and refusals.

use serde_json::{Value, json};

use super::{answer, described_as, reference};

fn text() -> Value {
    json!({ "type": "string" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn money() -> Value {
    json!({ "type": "string", "description": "US dollars as decimal text" })
}

fn or_null(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn each(of: &str) -> Value {
    json!({ "type": ["string", "null"], "description": format!("US dollars as decimal text, {of}, to 1e-9") })
}

fn rows(row: Value, more: &[(&str, Value)]) -> Value {
    let data = ("data", json!({ "type": "array", "items": row }));
    answer(&[&[data], more].concat())
}

fn since() -> (&'static str, Value) {
    let meaning = "Requests until then are in no sum here: they were recorded before it was kept";
    ("measured_after", described_as(or_null("string"), meaning))
}

fn percentiles(of: &str) -> Value {
    let mut percentiles = answer(&[
        ("p50", or_null("integer")),
        ("p95", or_null("integer")),
        ("p99", or_null("integer")),
        ("count", described_as(count(), "How many were measured")),
    ]);
    percentiles["description"] = of.into();
    percentiles
}

fn model_performance() -> Value {
    let mut row = answer(&[
        ("requests", count()),
        ("completed", count()),
        ("errors", count()),
        ("client_gone", count()),
        ("refused", count()),
        ("error_rate_basis_points", described_as(or_null("integer"), "Of what was sent")),
        ("attempts", described_as(count(), "Also of requests that another model answered")),
        ("failed_attempts", count()),
        ("retries", described_as(count(), "Attempts that followed another of the same request")),
        ("latency_ms", percentiles("To the last byte, of completed requests")),
        ("first_byte_ms", percentiles("To the first byte, of completed streams")),
        ("tokens", reference("Tokens")),
        ("input_tokens", count()),
        ("cached_tokens", count()),
        ("output_tokens", count()),
        ("total_tokens", count()),
        ("cache_hit_rate_basis_points", described_as(or_null("integer"), "Of input tokens")),
        ("cost_usd", money()),
        ("charged_usd", money()),
        ("usd_per_million_tokens", each("charged for a million tokens")),
        ("usd_per_request", each("charged for a request that was sent")),
        (
            "accepted",
            described_as(
                count(),
                "Accepted outcomes; one of a session counts for each model of it",
            ),
        ),
        ("outcome_cost_usd", money()),
        ("usd_per_accepted", each("of the requests behind outcomes, for an accepted one")),
    ]);
    for (name, schema) in
        [("bucket_start", text()), ("provider", or_null("string")), ("model", or_null("string"))]
    {
        row["properties"][name] = schema;
    }
    let error = "How far a percentile can be from the true one";
    let unknown = "Accepted outcomes of unknown cost, which are of no model";
    let more = [
        since(),
        ("accepted_cost_unknown", described_as(count(), unknown)),
        ("percentile_error_basis_points", described_as(count(), error)),
    ];
    rows(row, &more)
}

fn prompt_shapes() -> Value {
    let row = answer(&[
        ("feature", or_null("string")),
        ("model", text()),
        ("shape", text()),
        ("requests", count()),
        ("input_tokens", count()),
        ("cached_tokens", count()),
        ("output_tokens", count()),
        ("parts", described_as(reference("PromptParts"), "By the gateway's estimate")),
        ("input_tokens_per_request", or_null("integer")),
        ("charged_usd", money()),
        ("usd_per_request", each("charged for a request")),
    ]);
    rows(row, &[since()])
}

fn agent_sessions() -> Value {
    let row = answer(&[
        ("session", text()),
        ("key", text()),
        ("agent", or_null("string")),
        ("feature", or_null("string")),
        ("first_at", text()),
        ("last_at", text()),
        ("requests", count()),
        ("first_input_tokens", count()),
        ("last_input_tokens", count()),
        ("largest_input_tokens", count()),
        ("growth_tokens", json!({ "type": "integer", "description": "Last input less the first" })),
        ("input_tokens", count()),
        ("cached_tokens", count()),
        ("output_tokens", count()),
        ("charged_usd", money()),
    ]);
    rows(row, &[since()])
}

fn agent_session() -> Value {
    let turn = answer(&[
        ("turn", count()),
        ("id", text()),
        ("at", text()),
        ("key", text()),
        ("model", or_null("string")),
        ("outcome", text()),
        ("code", or_null("string")),
        ("input_tokens", count()),
        ("increase_tokens", described_as(or_null("integer"), "Since the request before")),
        ("cached_tokens", count()),
        ("output_tokens", count()),
        ("charged_usd", money()),
        ("parts", json!({ "anyOf": [reference("PromptParts"), { "type": "null" }] })),
    ]);
    let more = [("session", text()), ("charged_usd", money())];
    rows(turn, &[&more[..], &[("has_more", json!({ "type": "boolean" }))]].concat())
}

fn simulation() -> Value {
    let counts = || {
        vec![
            ("refusals", count()),
            ("would_pass", count()),
            ("still_refused", count()),
            ("cannot_be_told", count()),
        ]
    };
    let with = |names: &[&'static str]| {
        let names = names.iter().map(|name| (*name, text())).collect::<Vec<_>>();
        json!({ "type": "array", "items": answer(&[names, counts()].concat()) })
    };
    let by = |name| json!({ "type": "array", "items": answer(&[(name, text()), ("refusals", count())]) });
    let more = vec![
        ("looked_at", described_as(count(), "Those that were decided again: the newest")),
        (
            "worst_case_usd",
            described_as(money(), "What those that pass could have cost, US dollars"),
        ),
        (
            "shared_budgets_not_asked",
            described_as(count(), "Of those that pass: a shared budget might refuse them"),
        ),
        ("by_code", with(&["code"])),
        ("by_key", with(&["key", "key_name", "owner"])),
        ("refused_for", by("code")),
        ("not_told_because", by("reason")),
    ];
    answer(&[counts(), more].concat())
}

pub(super) fn answers() -> Vec<(&'static str, Value)> {
    let refusals = json!({ "type": "object", "required": ["refusals"], "properties": { "refusals": count() } });
    vec![
        ("ModelPerformanceReport", model_performance()),
        ("PromptShapeReport", prompt_shapes()),
        ("AgentSessionList", agent_sessions()),
        ("AgentSession", agent_session()),
        ("RefusalReport", rows(refusals, &[])),
        ("RefusalSimulation", simulation()),
    ]
}
