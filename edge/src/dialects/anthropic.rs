//! Anthropic's error envelope, with the error types that its SDKs know.

use serde_json::{Value, json};

use super::CallerError;

/// The envelope `{"type": "error", "error": {...}, "request_id": ...}`.
pub(super) fn render_error(error: &CallerError<'_>) -> Value {
    let mut inner = json!({
        "type": error_type(error.status),
        "message": error.message,
        "code": error.code,
    });
    if let Value::Object(fields) = &mut inner {
        if let Some(param) = &error.param {
            fields.insert("param".into(), Value::String(param.clone()));
        }
        if !error.metadata.is_empty() {
            fields.insert("metadata".into(), Value::Object(error.metadata.clone()));
        }
    }
    json!({"type": "error", "error": inner, "request_id": error.request_id})
}

/// Anthropic's name for the kind of error that a status means.
pub const fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}
