//! Writes the OpenAPI document from the table of operations and the types, and holds the committed one against it.

mod answers;
mod reports;

use std::collections::{BTreeMap, BTreeSet};

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tallygate_shared::alerts::alert::Figure;
use tallygate_shared::budget::baseline::Finding;
use tallygate_shared::budget::loop_breaker::shape::Evidence;
use tallygate_shared::budget::terms::{BudgetTerms, Raise};
use tallygate_shared::events::outcome::OutcomeEvent;
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::feedback::{
    BudgetCorrection, ExportEnd, PriceCorrection, ReconcilerContext, ReconcilerFinding,
    ReconcilerSettings, TrueUp,
};
use tallygate_shared::focus_export::{FileTaken, FocusExport};
use tallygate_shared::insights::archetype::{Band, Comparison};
use tallygate_shared::insights::review::Review;
use tallygate_shared::insights::savings::Savings;
use tallygate_shared::insights::throughput::BreakEven;
use tallygate_shared::insights::unit::Unit;
use tallygate_shared::insights::workload::Priced;
use tallygate_shared::maturity::Standing;
use tallygate_shared::policy::key_plan::{KeyPolicy, Route};
use tallygate_shared::pricing::{PriceRow, Skipped};
use tallygate_shared::reconciliation_run::ReconciliationRun;

use super::bodies::{
    KeyChange, NewActorSecret, NewKey, NewProvider, NewToken, NewWorkspace, PolicyTrial,
    PriceImport, ProviderChange, ReceiverBody, ReceiverRotation, RollBack, Rotation, Snooze,
    TakenProposal, TelemetryBody, Thought,
};
use super::config::{Change, Config, KeyConfig, ProviderConfig};
use super::config_alerts::AlertSettings;
use super::config_archive::ArchiveSettings;
use super::openapi::DOCUMENT;
use super::operations::{Operation, Spec, operations};
use super::problem::FieldError;
use crate::dialects::Endpoint;
use crate::objects::alerts_store::{SEVERITIES, STATES};
use crate::objects::workspace_api::demo::FillDemo;

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn array_of(item: &str) -> Value {
    json!({ "type": "array", "items": reference(item) })
}

fn list_of(item: &str) -> Value {
    answer(&[("data", json!({ "type": "array", "items": reference(item) }))])
}

/// An answer of ours: every field is always there.
fn answer(fields: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "required": names, "properties": properties })
}

fn all_of(base: &str, fields: &[(&str, Value)]) -> Value {
    json!({ "allOf": [reference(base), answer(fields)] })
}

/// What is sent in: the types themselves.
fn bodies() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = SchemaGenerator::new(settings);
    generator.subschema_for::<NewWorkspace>();
    generator.subschema_for::<NewToken>();
    generator.subschema_for::<NewProvider>();
    generator.subschema_for::<ProviderChange>();
    generator.subschema_for::<NewKey>();
    generator.subschema_for::<KeyChange>();
    generator.subschema_for::<Rotation>();
    generator.subschema_for::<NewActorSecret>();
    generator.subschema_for::<PriceImport>();
    generator.subschema_for::<Thought>();
    generator.subschema_for::<KeyPolicy>();
    generator.subschema_for::<Route>();
    generator.subschema_for::<BudgetTerms>();
    generator.subschema_for::<Raise>();
    generator.subschema_for::<PriceRow>();
    generator.subschema_for::<Config>();
    generator.subschema_for::<KeyConfig>();
    generator.subschema_for::<ProviderConfig>();
    generator.subschema_for::<AlertSettings>();
    generator.subschema_for::<ReceiverBody>();
    generator.subschema_for::<TelemetryBody>();
    generator.subschema_for::<ReceiverRotation>();
    generator.subschema_for::<Snooze>();
    generator.subschema_for::<Figure>();
    generator.subschema_for::<Change>();
    generator.subschema_for::<Skipped>();
    generator.subschema_for::<FieldError>();
    generator.subschema_for::<UsageEvent>();
    generator.subschema_for::<ReconcilerSettings>();
    generator.subschema_for::<ArchiveSettings>();
    generator.subschema_for::<ReconcilerContext>();
    generator.subschema_for::<TrueUp>();
    generator.subschema_for::<BudgetCorrection>();
    generator.subschema_for::<PriceCorrection>();
    generator.subschema_for::<ReconcilerFinding>();
    generator.subschema_for::<ExportEnd>();
    generator.subschema_for::<OutcomeEvent>();
    generator.subschema_for::<Evidence>();
    generator.subschema_for::<Finding>();
    generator.subschema_for::<ReconciliationRun>();
    generator.subschema_for::<FocusExport>();
    generator.subschema_for::<FileTaken>();
    generator.subschema_for::<PolicyTrial>();
    generator.subschema_for::<Unit>();
    generator.subschema_for::<Review>();
    generator.subschema_for::<Savings>();
    generator.subschema_for::<Comparison>();
    generator.subschema_for::<Band>();
    generator.subschema_for::<Priced>();
    generator.subschema_for::<BreakEven>();
    generator.subschema_for::<RollBack>();
    generator.subschema_for::<Standing>();
    generator.subschema_for::<TakenProposal>();
    generator.subschema_for::<FillDemo>();
    generator.take_definitions(true)
}

fn described_as(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

/// What `POST /v1/outcomes` takes.
fn outcome_report() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object", "required": ["outcome"], "additionalProperties": false,
        "oneOf": [{ "required": ["request"] }, { "required": ["session"] }],
        "properties": {
            "request": text("The request's id, of the last 400 days"),
            "session": text("The session's name, as its actor tokens have it"),
            "outcome": { "type": "string", "enum": ["accepted", "rejected"] },
            "value_usd": text("What it was worth: 0 to 1000000 US dollars as decimal text"),
            "label": { "type": "string", "pattern": "^[a-z0-9_.-]{1,64}$",
                       "description": "Tells several outcomes of one subject apart" },
            "at": { "type": "string", "format": "date-time",
                    "description": "When it was decided, UTC; now if left out. Of two, the later counts" },
        },
    })
}

fn budget_status() -> Value {
    let text = || json!({ "type": "string" });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let money = || json!({ "type": "string", "description": "US dollars as decimal text" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let pace = json!({ "type": "object", "properties": {
        "elapsed_percent": count(), "spent_percent": count(), "projected_usd": money(), "exhausted_at": time() } });
    let spent = json!({ "type": "object", "properties": {
        "mode": reference("Mode"), "window": text(), "starts_at": time(), "resets_at": time(), "cap_usd": money(),
        "overshoot_bound_usd": money(), "spent_usd": money(), "held_usd": money(), "leased_usd": money(),
        "remaining_usd": money(), "pace": pace } });
    let limit = json!({ "type": "object", "properties": {
        "limit": count(), "used": count(), "remaining": count() } });
    let past =
        json!({ "type": "object", "properties": { "window": text(), "spent_usd": money() } });
    json!({ "type": "object", "required": ["budget", "dimension", "value", "owner"], "properties": {
        "budget": text(), "dimension": text(), "value": text(), "owner": text(), "money": spent,
        "limits": { "type": "object", "additionalProperties": limit },
        "history": { "type": "array", "items": past } } })
}

fn time_or_none() -> Value {
    json!({ "type": ["string", "null"], "format": "date-time" })
}

fn pages_of(item: &str) -> Value {
    let data = json!({ "type": "array", "items": reference(item) });
    json!({ "type": "object", "required": ["data"],
            "properties": { "data": data, "next_cursor": { "type": "string" } } })
}

fn correction() -> Value {
    let text = || json!({ "type": "string" });
    let money = || json!({ "type": "string", "description": "US dollars as decimal text" });
    let whole =
        "All that the day's bill of the provider differs by, not a change to an earlier correction";
    let states = json!({ "enum": ["counts", "replaced", "no_budget"] });
    answer(&[
        ("came_at", json!({ "type": "string", "format": "date-time" })),
        ("day", text()),
        ("provider", text()),
        ("budget", text()),
        ("value", described_as(text(), "Whose: the team, key, ... where each has its own")),
        ("owner", json!({ "type": ["string", "null"] })),
        ("revision", json!({ "type": "integer", "minimum": 0 })),
        ("amount_usd", described_as(money(), whole)),
        ("change_usd", described_as(money(), "Against the correction before it")),
        ("by_quantity_usd", described_as(money(), "What of it other quantities explain")),
        ("by_price_usd", described_as(money(), "What of it other prices explain")),
        ("counted_usd", described_as(money(), "What the budget counts of it now")),
        ("windows", described_as(array_of_text(), "The windows of the budget that it counts in")),
        (
            "state",
            described_as(states, "Whether it counts, a newer one does, or its budget is gone"),
        ),
    ])
}

fn budget_standings() -> Value {
    let text = || json!({ "type": "string" });
    let money = || json!({ "type": "string", "description": "US dollars as decimal text" });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let row = answer(&[
        ("budget", text()),
        ("value", described_as(text(), "Whose account it is; empty: the workspace's")),
        ("owner", text()),
        ("limit_usd", money()),
        ("spent_usd", money()),
        ("held_usd", money()),
        (
            "percent",
            described_as(
                count(),
                "Spent and set aside, of the limit; 100 or more where requests are refused",
            ),
        ),
        (
            "at",
            described_as(
                text(),
                "When it stood so; half a minute ago at most while money is spent",
            ),
        ),
    ]);
    answer(&[
        ("data", json!({ "type": "array", "items": row })),
        ("all", described_as(count(), "How many accounts there are, also behind the limit")),
    ])
}

fn alert_counts() -> Value {
    let states = STATES.map(|state| (state, json!({ "type": "integer", "minimum": 0 })));
    let of_severity = answer(&states);
    answer(&SEVERITIES.map(|severity| (severity, of_severity.clone())))
}

fn array_of_text() -> Value {
    json!({ "type": "array", "items": { "type": "string" } })
}

fn alert() -> Value {
    let text = || json!({ "type": "string" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let status = json!({ "type": "object", "required": ["state"], "properties": {
        "state": { "enum": ["open", "acknowledged", "snoozed", "resolved"] }, "by": text(), "at": time(),
        "until": time(), "reason": text() } });
    let evidence = json!({ "type": "object", "additionalProperties": reference("Figure") });
    let mut alert = answer(&[
        ("id", text()),
        ("dedupe_key", text()),
        ("kind", reference("AlertKind")),
        ("severity", reference("Severity")),
        ("title", text()),
        ("evidence", evidence),
        ("link", json!({ "type": "string", "description": "The dashboard's path" })),
        ("status", status),
        ("present", json!({ "type": "boolean", "description": "Whether it is so still" })),
        ("first_seen", time()),
        ("last_seen", time()),
        ("opened_at", time()),
        ("count", json!({ "type": "integer", "minimum": 1 })),
    ]);
    alert["properties"]["owner"] = text();
    alert
}

fn receiver() -> [(&'static str, Value); 4] {
    let count = || json!({ "type": "integer", "minimum": 0 });
    let gone = "Whether it answered 410: nothing is sent until it is changed or tested";
    [
        ("name", json!({ "type": "string" })),
        ("secrets", count()),
        ("gone", json!({ "type": "boolean", "description": gone })),
        ("waiting", count()),
    ]
}

fn delivery() -> Value {
    let text = || json!({ "type": "string" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let mut delivery = answer(&[
        ("id", json!({ "type": "string", "description": "`webhook-id`" })),
        ("receiver", text()),
        ("alert", text()),
        ("type", text()),
        ("state", json!({ "enum": ["pending", "delivered", "failed"] })),
        ("attempts", json!({ "type": "integer", "minimum": 0 })),
        ("created_at", time()),
    ]);
    let more = [
        ("status", json!({ "type": "integer" })),
        ("error", text()),
        ("next_attempt_at", time()),
        ("ended_at", time()),
    ];
    for (name, schema) in more {
        delivery["properties"][name] = schema;
    }
    delivery
}

fn parameters(path: &str, query: &[&str]) -> Vec<Value> {
    let one = |name: &str, place: &str| json!({ "name": name, "in": place, "required": place == "path", "schema": { "type": "string" } });
    let path = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    path.map(|name| one(name, "path")).chain(query.iter().map(|name| one(name, "query"))).collect()
}

/// How the export of each signal stands.
fn exports() -> Value {
    let count = || json!({ "type": "integer", "minimum": 0 });
    let moment = || json!({ "type": ["string", "null"] });
    let export = answer(&[
        ("waiting", described_as(count(), "Events that wait for the collector")),
        ("delivered", described_as(count(), "Events, or pictures of the metrics, that it took")),
        ("dropped", described_as(count(), "What it refused, or that had no room")),
        ("failures", described_as(count(), "Attempts that failed in a row")),
        ("delivered_at", moment()),
        ("next_attempt_at", moment()),
        ("status", json!({ "type": ["integer", "null"] })),
        ("error", json!({ "type": ["string", "null"] })),
    ]);
    answer(&[("metrics", export.clone()), ("logs", export)])
}

fn content(schema: &str) -> Value {
    if schema == "Metrics" {
        let text = json!({ "schema": reference(schema) });
        return json!({ "text/plain": text, "application/openmetrics-text": text });
    }
    if schema == "WeeklyReview" {
        let text = json!({ "schema": { "type": "string" } });
        return json!({ "application/json": { "schema": reference(schema) }, "text/markdown": text });
    }
    if schema == "FileContent" {
        let bytes = json!({ "schema": reference(schema) });
        return FILE_TYPES.iter().map(|kind| ((*kind).to_owned(), bytes.clone())).collect();
    }
    json!({ "application/json": { "schema": reference(schema) } })
}

/// What files of exports are.
const FILE_TYPES: [&str; 2] = ["text/csv", "application/vnd.apache.parquet"];

fn described(spec: &Spec) -> Value {
    let mut operation = json!({
        "operationId": format!("{:?}", spec.operation),
        "summary": spec.summary,
        "tags": ["admin"],
        "parameters": parameters(spec.path, spec.query),
        "responses": {
            spec.status.to_string(): { "description": "Done", "content": content(spec.answer) },
            "default": { "description": "A problem (RFC 9457)", "content": { "application/problem+json": {
                "schema": reference("Problem") } } },
        },
    });
    if let Some(body) = spec.body {
        // A rotation may be asked for without a body.
        let required = spec.operation != Operation::RotateKey;
        operation["requestBody"] = json!({ "required": required, "content": content(body) });
    }
    if spec.operation == Operation::ShowOpenApi {
        operation["security"] = json!([]);
    }
    operation
}

fn forwarded(id: &str, path: &str, summary: &str) -> Value {
    json!({
        "operationId": id, "summary": summary, "tags": ["gateway"], "parameters": parameters(path, &[]),
        "security": [{ "gatewayKey": [] }],
        "responses": { "default": { "description": "What the provider answers, or a refusal in the same dialect",
                                    "content": { "application/json": {} } } },
    })
}

fn report_outcomes() -> Value {
    let list = json!({ "type": "array", "minItems": 1, "maxItems": 100, "items": reference("OutcomeReport") });
    let body = json!({ "oneOf": [reference("OutcomeReport"), list] });
    let mut operation = forwarded(
        "ReportOutcomes",
        "/v1/outcomes",
        "Say what became of this key's requests or sessions. The same again changes nothing",
    );
    operation["requestBody"] =
        json!({ "required": true, "content": { "application/json": { "schema": body } } });
    operation["responses"]["default"]["description"] =
        "What counts now, and whether it replaced another outcome; or an error".into();
    operation
}

fn generated() -> String {
    let mut paths: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    let mut add = |method: &str, path: &str, operation| {
        paths.entry(path.to_owned()).or_default().insert(method.to_ascii_lowercase(), operation);
    };
    for spec in operations() {
        add(spec.method, &format!("/api/v1{}", spec.path), described(spec));
    }
    for endpoint in Endpoint::ALL {
        let summary = "Authenticated, decided, metered and passed through; bodies as the provider documents them";
        add(
            endpoint.method(),
            endpoint.path(),
            forwarded(&format!("{endpoint:?}"), endpoint.path(), summary),
        );
    }
    let path = "/v1/requests/{request}";
    add(
        "GET",
        path,
        forwarded("ShowOwnRequest", path, "The record of one of this key's own requests"),
    );
    add("POST", "/v1/outcomes", report_outcomes());
    let mut schemas = bodies();
    for (name, schema) in answers::answers().into_iter().chain(reports::answers()) {
        assert!(schemas.insert(name.to_owned(), schema).is_none(), "two schemas named {name}");
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Tallygate", "version": env!("CARGO_PKG_VERSION"),
                  "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
                  "description": "The control plane under /api/v1, and the metered endpoints under /v1." },
        "security": [{ "apiToken": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiToken": { "type": "http", "scheme": "bearer", "description": "tga_... or the operator's token" },
                "gatewayKey": { "type": "http", "scheme": "bearer",
                    "description": "tg_..., also taken in x-api-key, api-key and x-goog-api-key" },
            },
            "schemas": schemas,
        },
    });
    let mut text = serde_json::to_string_pretty(&document).unwrap();
    text.push('\n');
    text
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                found.insert(target.clone());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_openapi_document_is_what_the_code_says() {
    let text = generated();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/openapi.json"), text)
            .unwrap();
        return;
    }
    assert!(
        text == DOCUMENT,
        "openapi.json is out of date: run UPDATE_OPENAPI=1 cargo test -p tallygate-edge openapi"
    );
}

#[test]
fn every_reference_of_the_openapi_document_leads_somewhere() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 30);
    for reference in found {
        let target = document.pointer(reference.trim_start_matches('#'));
        assert!(target.is_some(), "{reference}");
    }
}

#[test]
fn every_body_of_the_openapi_document_refuses_unknown_fields() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    for spec in operations() {
        // A file is no document of ours.
        let Some(body) = spec.body.filter(|body| *body != "FileContent") else { continue };
        let mut schema = &document["components"]["schemas"][body];
        if let Some(items) = schema["items"]["$ref"].as_str() {
            schema = document.pointer(items.trim_start_matches('#')).unwrap();
        }
        assert_eq!(schema["additionalProperties"], json!(false), "{body}");
    }
}
