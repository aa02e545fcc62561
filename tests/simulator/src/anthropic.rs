//! Anthropic's answers: messages and token counts.

use serde_json::{Value, json};

use crate::control::Sim;
use crate::openai::{Content, Event};
use crate::usage::Billed;

fn stop_reason(content: &Content) -> &'static str {
    match (content.cut, &content.tool) {
        (true, _) => "max_tokens",
        (false, Some(_)) => "tool_use",
        (false, None) => "end_turn",
    }
}

fn block(content: &Content, filled: bool) -> Value {
    match &content.tool {
        Some((name, arguments)) => {
            let input: Value = serde_json::from_str(arguments).unwrap_or_default();
            let input = if filled { input } else { json!({}) };
            json!({ "type": "tool_use", "id": "toolu_1", "name": name, "input": input })
        }
        None => json!({ "type": "text", "text": if filled { content.text.as_str() } else { "" } }),
    }
}

/// A message.
pub(crate) fn message(content: &Content, usage: Value) -> Value {
    let mut answer = json!({
        "id": content.id, "type": "message", "role": "assistant", "model": content.model,
        "content": [block(content, true)], "stop_reason": stop_reason(content), "stop_sequence": null,
    });
    if let Some(fields) = answer.as_object_mut()
        && !usage.is_null()
    {
        fields.insert("usage".to_owned(), usage);
    }
    answer
}

/// The events of a streamed message.
pub(crate) fn events(content: &Content, billed: Billed, sim: &Sim, chunks: u64) -> Vec<Event> {
    let usage = billed.messages(sim);
    let mut first = usage.clone();
    if let Some(fields) = first.as_object_mut()
        && sim.usage.is_none()
    {
        // The output at the start is a small placeholder.
        fields.insert("output_tokens".to_owned(), 1.into());
    }
    let start = json!({ "id": content.id, "type": "message", "role": "assistant", "model": content.model,
        "content": [], "stop_reason": null, "stop_sequence": null, "usage": first });
    let mut events: Vec<Event> = Vec::new();
    let mut push = |name: &'static str, mut data: Value| {
        if let Some(fields) = data.as_object_mut() {
            fields.insert("type".to_owned(), name.into());
        }
        events.push((Some(name), data.to_string()));
    };
    push("message_start", json!({ "message": start }));
    push("content_block_start", json!({ "index": 0, "content_block": block(content, false) }));
    push("ping", json!({}));
    for piece in content.pieces(chunks) {
        let delta = match content.tool {
            Some(_) => json!({ "type": "input_json_delta", "partial_json": piece }),
            None => json!({ "type": "text_delta", "text": piece }),
        };
        push("content_block_delta", json!({ "index": 0, "delta": delta }));
    }
    push("content_block_stop", json!({ "index": 0 }));
    let delta = json!({ "stop_reason": stop_reason(content), "stop_sequence": null });
    // Cumulative, and without the split of the cache and the tier, which came at the start.
    let total = match usage.get("output_tokens") {
        Some(output) => {
            json!({ "input_tokens": usage.get("input_tokens"), "output_tokens": output })
        }
        None => usage,
    };
    push("message_delta", json!({ "delta": delta, "usage": total }));
    push("message_stop", json!({}));
    events
}

/// An error body.
pub(crate) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": message }, "request_id": "req_sim" })
}
