//! The schemas of the admin API's bodies, for the OpenAPI document. A test sends each schema's example through the type
//! it describes, so that the two cannot drift apart unseen.

use serde_json::{Value, json};

/// Every schema by name.
pub fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let money = || json!({ "type": "string", "description": "US dollars as decimal text", "examples": ["12.50"] });
    let count = || json!({ "type": "integer", "minimum": 1 });
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "additionalProperties": false, "properties": properties });
    let map = |values: Value| json!({ "type": "object", "additionalProperties": values });
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let policy_or_name = || json!({ "oneOf": [text(), reference("KeyPolicy")] });
    let cap = object(
        &["window", "limit_usd"],
        json!({ "window": { "enum": ["day", "week", "month", "lifetime"] }, "limit_usd": money() }),
    );
    let target = object(
        &["provider", "model"],
        json!({ "provider": text(), "model": text(), "weight": { "type": "integer", "minimum": 0 } }),
    );
    let owner = || {
        json!({ "name": text(), "owner": text(), "cost_centre": text(), "purpose": text(),
                "environment": text(), "actor": reference("Actor"), "policy": policy_or_name(),
                "expires_at": { "type": "string", "format": "date-time" } })
    };
    let provider = json!({ "name": text(), "kind": text(), "credential": text(), "base_url": text(),
        "auth_header": text(), "api_version": text(), "region": { "enum": ["us", "eu"] },
        "models": map(text()), "rank": { "type": "integer", "minimum": 0 } });
    let mut provider_change = provider.clone();
    if let Some(fields) = provider_change.as_object_mut() {
        fields.retain(|name, _| name != "name" && name != "kind");
    }
    json!({
        "NewWorkspace": object(&["name"], json!({ "id": text(), "name": text() })),
        "NewToken": object(&["name", "role"],
            json!({ "name": text(), "role": { "enum": ["admin", "finance", "developer", "auditor"] } })),
        "NewProvider": object(&["name", "kind"], provider),
        "ProviderChange": object(&[], provider_change),
        "NewKey": object(&["name", "owner", "cost_centre", "purpose", "environment"], owner()),
        "KeyChange": object(&[], owner()),
        "Rotation": object(&[], json!({ "overlap_seconds": { "type": "integer", "minimum": 0, "maximum": 2_592_000 } })),
        "NewActorSecret": object(&["kid"], json!({ "kid": text(), "secret": { "type": "string", "minLength": 32 } })),
        "Thought": object(&["model"], json!({ "endpoint": text(), "model": text(), "input_tokens": count(),
            "max_output_tokens": count(), "body_bytes": count(), "ip": text(), "service_tier": text(),
            "actor": reference("Actor") })),
        "Actor": object(&[], json!({ "user": text(), "team": text(), "app": text(), "feature": text(),
            "agent": text(), "customer": text(), "environment": text(), "session": text() })),
        "KeyPolicy": object(&[], json!({
            "models": object(&[], json!({ "allow": { "type": "array", "items": text() },
                                          "deny": { "type": "array", "items": text() } })),
            "refuse_floating_aliases": { "type": "boolean" },
            "ip_ranges": { "type": "array", "items": text() },
            "require_actor": { "type": "boolean" },
            "required_claims": { "type": "array", "items": text() },
            "max_output_tokens": count(), "on_output_excess": { "enum": ["clamp", "refuse"] },
            "max_request_usd": money(), "requests_per_minute": count(), "tokens_per_minute": count(),
            "max_concurrency": count(), "spend_caps": { "type": "array", "items": cap },
            "max_request_bytes": count() })),
        "Route": object(&["targets"], json!({ "strategy": { "enum": ["ordered", "weighted"] },
            "targets": { "type": "array", "minItems": 1, "maxItems": 16, "items": target },
            "attempts": { "type": "integer", "minimum": 1, "maximum": 10 },
            "first_byte_timeout_ms": { "type": "integer", "minimum": 100, "maximum": 800_000 },
            "idle_timeout_ms": { "type": "integer", "minimum": 100, "maximum": 800_000 } })),
        "PriceRow": { "type": "object", "required": ["provider", "model"],
            "description": "Prices in US dollars per million tokens, as decimal text, by service tier" },
        "PriceImport": object(&["map", "providers"], json!({ "map": { "type": "object" }, "providers": map(text()) })),
        "Config": object(&[], json!({ "providers": map(json!({ "type": "object" })),
            "policies": map(reference("KeyPolicy")), "routes": map(reference("Route")),
            "prices": map(reference("PriceRow")), "default_price": reference("PriceRow"),
            "keys": map(json!({ "type": "object" })) })),
        "Problem": { "type": "object", "required": ["type", "title", "status", "detail", "code"],
            "properties": { "type": text(), "title": text(), "status": { "type": "integer" }, "detail": text(),
                "code": text(), "errors": { "type": "array", "items": { "type": "object",
                    "properties": { "field": text(), "detail": text(), "remedy": text() } } } } },
    })
}
