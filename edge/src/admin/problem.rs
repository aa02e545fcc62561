//! Errors of the admin API: RFC 9457 problem documents, with the fields at fault and what to do about each.

use serde::Serialize;

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FieldError {
    /// The field, as a path: `policy.spend_caps[0].limit_usd`.
    pub field: String,
    /// What is wrong.
    pub detail: String,
    /// What to do.
    pub remedy: String,
}

/// Why an admin request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    /// The HTTP status.
    pub status: u16,
    detail: String,
    /// The stable code.
    pub code: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

impl Problem {
    /// A problem with a stable code.
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        let title = match status {
            400 => "The request is not valid",
            401 => "The token is not valid",
            403 => "The token's role does not allow this",
            404 => "There is no such thing",
            405 => "The method does not fit the resource",
            409 => "The request conflicts with what is there",
            413 => "The request is too large",
            411 => "The length of the body is missing",
            422 => "The configuration is not valid",
            503 => "Not now",
            _ => "The gateway failed",
        };
        Self {
            kind: format!("https://tallygate.dev/problems/{code}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            code: code.to_owned(),
            errors: Vec::new(),
        }
    }

    /// Something in the request's body is wrong.
    pub fn field(field: &str, detail: impl Into<String>, remedy: &str) -> Self {
        let detail = detail.into();
        let error = FieldError {
            field: field.to_owned(),
            detail: detail.clone(),
            remedy: remedy.to_owned(),
        };
        Self {
            errors: vec![error],
            ..Self::new(422, "invalid_field", format!("`{field}` {detail}"))
        }
    }

    /// A configuration with all that is wrong with it.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let first = errors.first().map(|error| format!("`{}` {}", error.field, error.detail));
        let detail = match (first, errors.len()) {
            (None, _) => "The configuration is not valid".to_owned(),
            (Some(first), 1) => first,
            (Some(first), count) => format!("{first}; and {} more", count - 1),
        };
        Self { errors, ..Self::new(422, "invalid_field", format!("{detail}.")) }
    }

    /// The fields that are wrong.
    pub fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// There is no such resource.
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(404, "not_found", format!("There is no {what} `{name}` in this workspace."))
    }

    /// A body that does not parse: malformed JSON, unknown fields, wrong types. `path` is where.
    pub fn body(path: &str, error: &serde_json::Error) -> Self {
        let detail = format!("The body cannot be read: {error}.");
        if !error.is_data() {
            return Self::new(400, "malformed_json", detail);
        }
        let error = FieldError {
            field: path.to_owned(),
            detail: error.to_string(),
            remedy: "See this operation's body in /api/v1/openapi.json.".to_owned(),
        };
        Self { errors: vec![error], ..Self::new(400, "invalid_body", detail) }
    }

    /// The document's JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
