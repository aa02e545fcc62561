//! The OpenAPI document, from the table of operations.

use serde_json::{Map, Value, json};

/// An operation: method, path, what it does, and the name of its body's schema.
type Operation = (&'static str, &'static str, &'static str, Option<&'static str>);

const WS: &str = "/api/v1/workspaces/{workspace}";

/// Every operation of the control plane, relative to a workspace.
pub const OPERATIONS: &[Operation] = &[
    ("get", "", "Describe the workspace", None),
    ("get", "/tokens", "List API tokens", None),
    ("post", "/tokens", "Issue an API token; it is shown once", Some("NewToken")),
    ("delete", "/tokens/{id}", "Delete an API token", None),
    ("get", "/providers", "List providers", None),
    (
        "post",
        "/providers",
        "Register a provider; its credential is write-only",
        Some("NewProvider"),
    ),
    ("get", "/providers/{name}", "Describe a provider", None),
    ("patch", "/providers/{name}", "Change a provider or its credential", Some("ProviderChange")),
    ("delete", "/providers/{name}", "Remove a provider", None),
    ("get", "/keys", "List gateway keys", None),
    ("post", "/keys", "Issue a gateway key; it is shown once", Some("NewKey")),
    ("get", "/keys/{id}", "Describe a key", None),
    ("patch", "/keys/{id}", "Change a key", Some("KeyChange")),
    ("post", "/keys/{id}/rotate", "Issue a new secret; the old one may overlap", Some("Rotation")),
    ("post", "/keys/{id}/suspend", "Suspend a key", None),
    ("post", "/keys/{id}/resume", "Resume a key", None),
    ("post", "/keys/{id}/revoke", "Revoke a key for good", None),
    ("post", "/keys/{id}/simulate", "What would this request get, and why?", Some("Thought")),
    ("get", "/keys/{id}/state", "The key's books at its Meter", None),
    ("get", "/actor-secrets", "List the secrets for actor tokens", None),
    (
        "post",
        "/actor-secrets",
        "Add a secret for actor tokens; it is shown once",
        Some("NewActorSecret"),
    ),
    ("delete", "/actor-secrets/{kid}", "Retire a secret, after overlap_seconds if given", None),
    ("get", "/policies", "List policies", None),
    ("put", "/policies/{name}", "Create or replace a policy", Some("KeyPolicy")),
    ("delete", "/policies/{name}", "Remove a policy", None),
    ("get", "/routes", "List model aliases", None),
    ("put", "/routes/{name}", "Create or replace a model alias", Some("Route")),
    ("delete", "/routes/{name}", "Remove a model alias", None),
    ("get", "/prices", "List price overrides", None),
    ("post", "/prices", "Add or replace a price override", Some("PriceRow")),
    ("delete", "/prices/{name}", "Remove a price override", None),
    (
        "put",
        "/prices/default",
        "Set the price of models that nothing else prices",
        Some("PriceRow"),
    ),
    ("delete", "/prices/default", "Remove the default price", None),
    ("post", "/prices/import", "Import LiteLLM's price map", Some("PriceImport")),
    ("get", "/requests", "List requests, filtered and paged", None),
    ("get", "/requests/{id}", "Describe a request", None),
    ("get", "/usage", "Sums by hour or day and any dimension", None),
    ("get", "/audit", "The audit log, newest first", None),
    ("get", "/config", "Export the configuration", None),
    ("put", "/config", "Apply a configuration", Some("Config")),
    ("post", "/config/validate", "Validate a configuration", Some("Config")),
    ("post", "/config/diff", "What applying a configuration would change", Some("Config")),
];

/// The document.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut add = |method: &str, path: &str, operation: Value| {
        let item = paths.entry(path.to_owned()).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(method.to_owned(), operation);
        }
    };
    add(
        "get",
        "/api/v1/workspaces",
        operation("List workspaces (operator)", "/api/v1/workspaces", None),
    );
    let create =
        operation("Create a workspace (operator)", "/api/v1/workspaces", Some("NewWorkspace"));
    add("post", "/api/v1/workspaces", create);
    for (method, path, summary, body) in OPERATIONS {
        let path = format!("{WS}{path}");
        add(method, &path, operation(summary, &path, *body));
    }
    for endpoint in crate::dialects::Endpoint::ALL {
        let summary = "Metered and passed through to a provider";
        add(
            &endpoint.method().to_ascii_lowercase(),
            endpoint.path(),
            operation(summary, endpoint.path(), None),
        );
    }
    let summary = "The record of one of the key's requests";
    add("get", "/v1/requests/{id}", operation(summary, "/v1/requests/{id}", None));
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Tallygate", "version": env!("CARGO_PKG_VERSION") },
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": super::schemas::schemas(),
        },
    })
}

fn operation(summary: &str, path: &str, body: Option<&str>) -> Value {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let parameters: Vec<Value> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let mut operation = json!({
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "2XX": { "description": "Done" },
            "default": { "description": "A problem (RFC 9457)", "content": { "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" } } } },
        },
    });
    if let (Some(body), Some(fields)) = (body, operation.as_object_mut()) {
        let schema = json!({ "$ref": format!("#/components/schemas/{body}") });
        fields.insert(
            "requestBody".to_owned(),
            json!({ "required": true, "content": { "application/json": { "schema": schema } } }),
        );
    }
    operation
}
