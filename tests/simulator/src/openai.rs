//! OpenAI's answers: chat, legacy completions, responses, embeddings, moderations and models.

use base64::Engine;
use serde_json::{Value, json};

use crate::control::Sim;
use crate::usage::Billed;

/// One event of a stream: its name, where the protocol has one, and its data.
pub(crate) type Event = (Option<&'static str>, String);

/// What an answer says.
pub(crate) struct Content {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) text: String,
    /// A tool's name and its arguments as JSON text.
    pub(crate) tool: Option<(String, String)>,
    pub(crate) cut: bool,
}

impl Content {
    fn finish(&self) -> &'static str {
        match (self.cut, &self.tool) {
            (true, _) => "length",
            (false, Some(_)) => "tool_calls",
            (false, None) => "stop",
        }
    }

    /// The text in so many pieces.
    pub(crate) fn pieces(&self, chunks: u64) -> Vec<String> {
        let text = self.tool.as_ref().map_or(&self.text, |(_, arguments)| arguments);
        let letters: Vec<char> = text.chars().collect();
        let count = usize::try_from(chunks).unwrap_or(1).max(1);
        let size = letters.len().div_ceil(count).max(1);
        let mut pieces: Vec<String> =
            letters.chunks(size).map(|piece| piece.iter().collect()).collect();
        // A test that asks for more chunks than there are letters gets them, filled up.
        while pieces.len() < count && self.tool.is_none() {
            pieces.push(".".to_owned());
        }
        pieces
    }
}

fn tool_call(content: &Content) -> Option<Value> {
    let (name, arguments) = content.tool.as_ref()?;
    Some(json!([{ "index": 0, "id": "call_1", "type": "function",
                  "function": { "name": name, "arguments": arguments } }]))
}

/// A chat completion.
pub(crate) fn chat(content: &Content, usage: Value, sim: &Sim) -> Value {
    let text = if content.tool.is_some() { Value::Null } else { content.text.as_str().into() };
    let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
    if let (Some(calls), Some(fields)) = (tool_call(content), message.as_object_mut()) {
        fields.insert("tool_calls".to_owned(), calls);
    }
    let mut answer = json!({
        "id": content.id, "object": "chat.completion", "created": 1_790_000_000, "model": content.model,
        "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": content.finish() }],
        "service_tier": sim.service_tier.as_deref().unwrap_or("default"),
    });
    put_usage(&mut answer, usage);
    answer
}

fn put_usage(answer: &mut Value, usage: Value) {
    if let Some(fields) = answer.as_object_mut()
        && !usage.is_null()
    {
        fields.insert("usage".to_owned(), usage);
    }
}

/// A legacy completion.
pub(crate) fn completion(content: &Content, usage: Value) -> Value {
    let mut answer = json!({
        "id": content.id, "object": "text_completion", "created": 1_790_000_000, "model": content.model,
        "choices": [{ "index": 0, "text": content.text, "logprobs": null, "finish_reason": content.finish() }],
    });
    put_usage(&mut answer, usage);
    answer
}

/// The events of a streamed chat (or legacy completion).
pub(crate) fn chat_events(
    content: &Content,
    usage: Value,
    sim: &Sim,
    flavour: &str,
    include_usage: bool,
    legacy: bool,
    chunks: u64,
) -> Vec<Event> {
    let base = |choices: Value| {
        let object = if legacy { "text_completion" } else { "chat.completion.chunk" };
        let mut chunk = json!({ "id": content.id, "object": object, "created": 1_790_000_000,
                                "model": content.model, "choices": choices });
        if include_usage && let Some(fields) = chunk.as_object_mut() {
            fields.insert("usage".to_owned(), Value::Null);
        }
        if let (Some(tier), Some(fields)) = (&sim.service_tier, chunk.as_object_mut()) {
            fields.insert("service_tier".to_owned(), tier.as_str().into());
        }
        chunk
    };
    let choice = |delta: Value, finish: Value| {
        if legacy {
            json!([{ "index": 0, "text": delta, "logprobs": null, "finish_reason": finish }])
        } else {
            json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }])
        }
    };
    let mut events = Vec::new();
    if !legacy {
        let first = match &content.tool {
            Some((name, _)) => json!({ "role": "assistant", "content": null, "tool_calls": [
                { "index": 0, "id": "call_1", "type": "function", "function": { "name": name, "arguments": "" } }] }),
            None => json!({ "role": "assistant", "content": "" }),
        };
        events.push((None, base(choice(first, Value::Null)).to_string()));
    }
    for piece in content.pieces(chunks) {
        let delta = match (&content.tool, legacy) {
            (_, true) => json!(piece),
            (Some(_), _) => {
                json!({ "tool_calls": [{ "index": 0, "function": { "arguments": piece } }] })
            }
            (None, _) => json!({ "content": piece }),
        };
        events.push((None, base(choice(delta, Value::Null)).to_string()));
    }
    let last_delta = if legacy { json!("") } else { json!({}) };
    let mut last = base(choice(last_delta, content.finish().into()));
    let unasked = ["mistral", "openrouter", "perplexity", "cohere"].contains(&flavour);
    if unasked {
        put_usage(&mut last, usage.clone());
    }
    if flavour == "groq"
        && let Some(fields) = last.as_object_mut()
    {
        fields.insert("x_groq".to_owned(), json!({ "id": content.id, "usage": usage }));
    }
    events.push((None, last.to_string()));
    if include_usage && !unasked && !usage.is_null() {
        let mut chunk = base(json!([]));
        put_usage(&mut chunk, usage);
        events.push((None, chunk.to_string()));
    }
    events.push((None, "[DONE]".to_owned()));
    events
}

/// A response of the Responses API.
pub(crate) fn response(content: &Content, usage: Value, status: &str) -> Value {
    let output = match (&content.tool, status) {
        (_, "in_progress") => json!([]),
        (Some((name, arguments)), _) => {
            json!([{ "type": "function_call", "id": "fc_1", "call_id": "call_1",
            "name": name, "arguments": arguments, "status": "completed" }])
        }
        (None, _) => {
            json!([{ "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "content": [{ "type": "output_text", "text": content.text, "annotations": [], "logprobs": [] }] }])
        }
    };
    let mut answer = json!({
        "id": content.id, "object": "response", "created_at": 1_790_000_000, "status": status,
        "model": content.model, "output": output, "error": null, "incomplete_details": null,
        "instructions": null, "metadata": {}, "parallel_tool_calls": true, "temperature": 1.0,
        "tool_choice": "auto", "tools": [], "top_p": 1.0, "service_tier": "default",
    });
    put_usage(&mut answer, usage);
    answer
}

/// The events of a streamed response.
pub(crate) fn response_events(content: &Content, usage: Value, chunks: u64) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut sequence = 0;
    let mut push = |name: &'static str, mut data: Value| {
        if let Some(fields) = data.as_object_mut() {
            fields.insert("type".to_owned(), name.into());
            fields.insert("sequence_number".to_owned(), sequence.into());
        }
        sequence += 1;
        events.push((Some(name), data.to_string()));
    };
    let started = response(content, Value::Null, "in_progress");
    push("response.created", json!({ "response": started }));
    push("response.in_progress", json!({ "response": started }));
    if let Some((name, arguments)) = &content.tool {
        let item = |arguments: &str, status: &str| {
            json!({ "type": "function_call", "id": "fc_1",
            "call_id": "call_1", "name": name, "arguments": arguments, "status": status })
        };
        push(
            "response.output_item.added",
            json!({ "output_index": 0, "item": item("", "in_progress") }),
        );
        push(
            "response.function_call_arguments.delta",
            json!({ "item_id": "fc_1", "output_index": 0, "delta": arguments }),
        );
        push(
            "response.function_call_arguments.done",
            json!({ "item_id": "fc_1", "output_index": 0,
            "name": name, "arguments": arguments }),
        );
        push(
            "response.output_item.done",
            json!({ "output_index": 0, "item": item(arguments, "completed") }),
        );
    } else {
        let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] });
        let item = |status: &str, content: Value| {
            json!({ "type": "message", "id": "msg_1", "status": status,
            "role": "assistant", "content": content })
        };
        push(
            "response.output_item.added",
            json!({ "output_index": 0, "item": item("in_progress", json!([])) }),
        );
        push(
            "response.content_part.added",
            json!({ "item_id": "msg_1", "output_index": 0, "content_index": 0, "part": part("") }),
        );
        let mut text = String::new();
        for piece in content.pieces(chunks) {
            text.push_str(&piece);
            push(
                "response.output_text.delta",
                json!({ "item_id": "msg_1", "output_index": 0,
                "content_index": 0, "delta": piece, "logprobs": [] }),
            );
        }
        push(
            "response.output_text.done",
            json!({ "item_id": "msg_1", "output_index": 0, "content_index": 0,
            "text": text, "logprobs": [] }),
        );
        push(
            "response.content_part.done",
            json!({ "item_id": "msg_1", "output_index": 0, "content_index": 0, "part": part(&text) }),
        );
        push(
            "response.output_item.done",
            json!({ "output_index": 0, "item": item("completed", json!([part(&text)])) }),
        );
    }
    push("response.completed", json!({ "response": response(content, usage, "completed") }));
    events
}

/// Embeddings, as floats or, as the SDKs ask, in base64.
pub(crate) fn embeddings(request: &Value, model: &str, billed: Billed, sim: &Sim) -> Value {
    let count = match request.get("input") {
        Some(Value::Array(items)) if items.first().is_some_and(|item| !item.is_number()) => {
            items.len()
        }
        _ => 1,
    };
    let base64 = request.get("encoding_format").and_then(Value::as_str) == Some("base64");
    // 0.5, 0.25 and -1 as 32-bit floats, little endian.
    let bytes = [0, 0, 0, 0x3f, 0, 0, 0x80, 0x3e, 0, 0, 0x80, 0xbf_u8];
    let vector = if base64 {
        json!(base64::engine::general_purpose::STANDARD.encode(bytes))
    } else {
        json!([0.5, 0.25, -1.0])
    };
    let data: Vec<Value> = (0..count)
        .map(|index| json!({ "object": "embedding", "index": index, "embedding": vector }))
        .collect();
    let mut answer = json!({ "object": "list", "data": data, "model": model });
    let usage = billed.chat("openai", sim);
    let input = usage.get("prompt_tokens").cloned();
    let usage =
        input.map_or(usage, |input| json!({ "prompt_tokens": input, "total_tokens": input }));
    put_usage(&mut answer, usage);
    answer
}

/// A moderation: nothing is ever wrong.
pub(crate) fn moderation(id: &str, model: &str) -> Value {
    json!({ "id": id, "model": model, "results": [{ "flagged": false, "categories": {}, "category_scores": {},
            "category_applied_input_types": {} }] })
}

/// An error body.
pub(crate) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        401 => "invalid_request_error",
        429 => "rate_limit_exceeded",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let code = if status == 401 { json!("invalid_api_key") } else { Value::Null };
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}
