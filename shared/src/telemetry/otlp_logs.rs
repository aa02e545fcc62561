//! One OpenTelemetry log event for each usage event, by the semantic conventions for generative AI.

use serde_json::{Value, json};

use super::attributes::{error_type, operation, outcome_name, tokens_of};
use super::histogram::seconds;
use super::otlp::{Attributes, Speaker, nanos};
use crate::events::usage_event::{Outcome, UsageEvent};
use crate::money::Usd;
use crate::time::Timestamp;
use crate::tokens::{Tokens, Usage};

/// The conventions' event of an operation. Its messages are opt-in there, and never sent from here.
const OPERATION: &str = "gen_ai.client.inference.operation.details";
/// A request that was refused: no operation took place.
const REFUSAL: &str = "tallygate.request.refused";

/// The body of `POST /v1/logs`.
pub fn encode(events: &[UsageEvent], speaker: &Speaker<'_>, now: Timestamp) -> Value {
    let records: Vec<Value> = events.iter().map(|event| record(event, speaker, now)).collect();
    let logs = json!([{ "scope": Speaker::scope(), "logRecords": records }]);
    json!({ "resourceLogs": [{ "resource": speaker.resource(), "scopeLogs": logs }] })
}

fn record(event: &UsageEvent, speaker: &Speaker<'_>, now: Timestamp) -> Value {
    let (number, text) = match event.outcome {
        Outcome::Completed => (9, "INFO"),
        Outcome::Refused | Outcome::ClientGone => (13, "WARN"),
        _ => (17, "ERROR"),
    };
    let name = if event.outcome == Outcome::Refused { REFUSAL } else { OPERATION };
    let mut attributes = Attributes::default();
    conventional(event, speaker, &mut attributes);
    own(event, &mut attributes);
    let mut record = json!({
        "timeUnixNano": nanos(event.settled_at),
        "observedTimeUnixNano": nanos(now),
        "severityNumber": number,
        "severityText": text,
        "eventName": name,
        "attributes": attributes.0,
    });
    if let (Some(fields), Some(trace), Some(span)) =
        (record.as_object_mut(), &event.trace_id, &event.span_id)
    {
        fields.insert("traceId".to_owned(), trace.as_str().into());
        fields.insert("spanId".to_owned(), span.as_str().into());
    }
    record
}

/// Attributes of the conventions.
fn conventional(event: &UsageEvent, speaker: &Speaker<'_>, to: &mut Attributes) {
    to.text("gen_ai.operation.name", operation(&event.endpoint));
    if let Some(provider) = &event.provider {
        to.text("gen_ai.provider.name", speaker.provider_name(provider));
    }
    let asked_for = event.model.as_ref().unwrap_or(&event.requested_model);
    to.text("gen_ai.request.model", asked_for);
    to.boolean("gen_ai.request.stream", event.stream);
    to.some_text("gen_ai.response.model", event.response_model.as_deref());
    to.some_text("gen_ai.response.id", event.provider_request_id.as_deref());
    if let Some(ms) = event.first_byte_ms.filter(|_| event.stream) {
        to.double("gen_ai.response.time_to_first_chunk", &seconds(ms));
    }
    let tokens = tokens_of(event);
    if !tokens.is_empty() {
        let sum = |part: fn(&Tokens) -> u64| tokens.iter().map(part).fold(0, u64::saturating_add);
        to.integer("gen_ai.usage.input_tokens", sum(Tokens::input_total));
        to.integer("gen_ai.usage.output_tokens", sum(Tokens::output_total));
        to.integer("gen_ai.usage.cache_read.input_tokens", sum(Tokens::cache_read_total));
        to.integer("gen_ai.usage.cache_write.input_tokens", sum(Tokens::cache_write_total));
        to.integer("gen_ai.usage.reasoning.output_tokens", sum(|t| t.reasoning));
    }
    to.some_text("gen_ai.conversation.id", event.actor.session.as_deref());
    to.some_text("user.id", event.actor.user.as_deref());
    to.some_text("error.type", error_type(event));
    if event.status != 0 {
        to.integer("http.response.status_code", event.status);
    }
}

/// Attributes that the conventions have no name for. Unsigned labels are not among them: they are what a caller wrote.
fn own(event: &UsageEvent, to: &mut Attributes) {
    to.text("tallygate.request.id", event.id.as_str());
    to.text("tallygate.key.id", event.key.as_str());
    to.text("tallygate.outcome", outcome_name(event.outcome));
    to.some_text("tallygate.provider", event.provider.as_deref());
    to.text("tallygate.requested_model", &event.requested_model);
    to.text("tallygate.cost_centre", &event.cost_centre);
    let actor = &event.actor;
    for (name, value) in [
        ("tallygate.team", &actor.team),
        ("tallygate.app", &actor.app),
        ("tallygate.feature", &actor.feature),
        ("tallygate.agent", &actor.agent),
        ("tallygate.customer", &actor.customer),
    ] {
        to.some_text(name, value.as_deref());
    }
    let environment = actor.environment.as_ref().unwrap_or(&event.environment);
    to.text("tallygate.environment", environment);
    let source = match event.usage {
        Usage::Reported(_) => "reported",
        Usage::Estimated(_) => "estimated",
        Usage::Absent => "absent",
    };
    to.text("tallygate.usage.source", source);
    if let Some(cost) = &event.cost {
        money("tallygate.cost", cost.total, to);
        to.text("tallygate.price.row", &cost.price.row);
    }
    money("tallygate.charged", event.charged, to);
    to.text("tallygate.budget.decision", budget_decision(event));
    to.some_text("tallygate.budget.downgraded_by", event.downgraded_by.as_deref());
    to.integer("tallygate.attempts", event.attempts.len());
    to.integer("tallygate.duration_ms", event.duration_ms);
    to.integer("tallygate.sampled", event.sampled);
}

/// As a number to draw, and in nanodollars to add up.
fn money(name: &str, amount: Usd, to: &mut Attributes) {
    to.double(&format!("{name}.usd"), &amount.to_string());
    if let Some(nanos) = amount.nanos() {
        to.integer(&format!("{name}.nano_usd"), nanos);
    }
}

/// What budgets said: `allowed`, `downgraded` to a cheaper model, `refused`, or `not_asked` where a request was refused
/// for another reason.
fn budget_decision(event: &UsageEvent) -> &'static str {
    let code = event.code.as_deref().unwrap_or_default();
    match event.outcome {
        Outcome::Refused if code.contains("budget") => "refused",
        Outcome::Refused => "not_asked",
        _ if event.downgraded_by.is_some() => "downgraded",
        _ => "allowed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::WorkspaceId;
    use crate::telemetry::counters::tests::{event, refusal};

    fn encoded(events: &[UsageEvent]) -> Value {
        let workspace = WorkspaceId::parse("ws_0123456789abcdef").unwrap();
        let resource =
            BTreeMap::from([("deployment.environment.name".to_owned(), "eu".to_owned())]);
        let providers = BTreeMap::from([("main".to_owned(), "openai".to_owned())]);
        let speaker = Speaker { workspace: &workspace, resource: &resource, providers: &providers };
        encode(events, &speaker, Timestamp::from_ms(1_790_000_009_000))
    }

    fn attribute<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
        let list = record["attributes"].as_array().unwrap();
        list.iter().find(|entry| entry["key"] == name).map(|entry| &entry["value"])
    }

    #[test]
    fn log_format_unchanged() {
        let traced = event(json!({
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7",
        }));
        let body = encoded(&[traced, refusal("model_not_allowed", 3)]);
        let golden = include_str!("golden/logs.json");
        assert_eq!(serde_json::to_string_pretty(&body).unwrap(), golden.trim());
    }

    #[test]
    fn labels_and_names_of_keys_stay_here() {
        let text = encoded(&[event(json!({}))]).to_string();
        assert!(!text.contains("vouches"));
        assert!(!text.contains("\"free\""));
    }

    #[test]
    fn budgets_decisions_are_told_apart() {
        for (changes, decision) in [
            (json!({}), "allowed"),
            (json!({ "downgraded_by": "team-month" }), "downgraded"),
            (json!({ "outcome": "refused", "code": "budget_exceeded" }), "refused"),
            (json!({ "outcome": "refused", "code": "model_not_allowed" }), "not_asked"),
        ] {
            let body = encoded(&[event(changes)]);
            let record = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
            let said = attribute(record, "tallygate.budget.decision").unwrap();
            assert_eq!(said["stringValue"], decision);
        }
    }

    #[test]
    fn a_failure_says_its_type_and_a_success_none() {
        let failed = json!({ "outcome": "provider_error", "code": "provider_overloaded" });
        let body = encoded(&[event(json!({})), event(failed)]);
        let records = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
        assert_eq!(attribute(&records[0], "error.type"), None);
        let said = attribute(&records[1], "error.type").unwrap();
        assert_eq!(said["stringValue"], "provider_overloaded");
        assert_eq!(records[1]["severityNumber"], 17);
    }
}
