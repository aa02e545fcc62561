//! OpenAI's error envelope. Its SDKs choose the exception by the status alone; `type` is for people and for code that
//! tells `insufficient_quota` (do not retry) from `rate_limit_exceeded`.

use serde_json::{Value, json};

use super::CallerError;

/// The envelope `{"error": {...}}`. `request_id` stands beside it: the SDKs read it from a header, people from here.
pub(super) fn render_error(error: &CallerError<'_>) -> Value {
    let mut inner = json!({
        "message": error.message,
        "type": error_type(error.status),
        "param": error.param,
        "code": error.code,
    });
    if let (Value::Object(fields), false) = (&mut inner, error.metadata.is_empty()) {
        fields.insert("metadata".into(), Value::Object(error.metadata.clone()));
    }
    let mut envelope = json!({ "error": inner });
    if let (Value::Object(fields), false) = (&mut envelope, error.request_id.is_empty()) {
        fields.insert("request_id".into(), Value::String(error.request_id.to_owned()));
    }
    envelope
}

/// OpenAI's name for the kind of error that a status means.
pub const fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "insufficient_quota",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}
