//! From a request to its answer: who asks, how to behave, what to say, how it ends, and what is billed for it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Shared;
use crate::books::Entry;
use crate::clock::Day;
use crate::control::Sim;
use crate::openai::{Content, Event};
use crate::usage::Billed;
use crate::{anthropic, openai};

/// A request as it came.
pub(crate) struct Call {
    pub(crate) flavour: String,
    pub(crate) endpoint: String,
    pub(crate) credential: String,
    pub(crate) headers: Vec<String>,
    pub(crate) gateway_request_id: Option<String>,
    pub(crate) bytes: Bytes,
}

impl Call {
    fn speaks_anthropic(&self) -> bool {
        self.endpoint.starts_with("messages")
    }
}

/// Answers a provider's endpoint.
pub(crate) async fn answer(shared: Arc<Shared>, call: Call) -> Response {
    let valid = call.credential.starts_with("sk-sim-") && !call.credential.contains("revoked");
    if !valid {
        return error(&call, 401, "Incorrect API key provided.", &Sim::default());
    }
    if call.endpoint.is_empty() {
        return error(&call, 404, "Unknown endpoint.", &Sim::default());
    }
    if call.endpoint == "models" {
        return json_answer(200, &json!({ "object": "list", "data": [] }), "models");
    }
    let came = shared.now();
    let Ok(request) = serde_json::from_slice::<Value>(&call.bytes) else {
        return error(&call, 400, "The body is not JSON.", &Sim::default());
    };
    let sim = match request.get("sim") {
        Some(sim) => match serde_json::from_value::<Sim>(sim.clone()) {
            Ok(sim) => sim,
            Err(problem) => return error(&call, 400, &format!("sim: {problem}"), &Sim::default()),
        },
        None => shared.scripts(|scripts| scripts.next(&call.credential)).unwrap_or_default(),
    };
    if sim.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(sim.latency_ms)).await;
    }
    let mut entry = new_entry(&shared, &call, &request, &sim, came);
    if sim.hang_up {
        entry.status = "died";
        shared.books(|books| books.enter(entry));
        // A body that fails before its first byte makes the server drop the connection.
        let broken = stream::once(async { Err::<Bytes, _>(std::io::Error::other("hung up")) });
        return Response::new(Body::from_stream(broken));
    }
    if call.flavour == "cohere" && request.get("stream_options").is_some() {
        entry.status = "error";
        shared.books(|books| books.enter(entry));
        return error(&call, 400, "unknown field: stream_options", &sim);
    }
    if let Some(status) = sim.status.filter(|status| *status != 200) {
        entry.status = "error";
        entry.http_status = status;
        shared.books(|books| books.enter(entry));
        return error(&call, status, "The simulator was asked for this.", &sim);
    }
    respond(shared, &call, &request, sim, entry)
}

fn new_entry(
    shared: &Shared,
    call: &Call,
    request: &Value,
    sim: &Sim,
    came: jiff::Timestamp,
) -> Entry {
    let id = shared.books(|books| books.next_id());
    let hash = Sha256::digest(&call.bytes);
    Entry {
        id: format!("sim_{id}"),
        at: came.to_string(),
        day: Day::of(came),
        credential: call.credential.clone(),
        flavour: call.flavour.clone(),
        endpoint: call.endpoint.clone(),
        model: text_of(request, "model"),
        tier: sim.service_tier.clone(),
        status: "in_flight",
        http_status: 200,
        stream: request.get("stream").and_then(Value::as_bool).unwrap_or(false),
        chunks_sent: 0,
        billed: Billed::default(),
        gateway_request_id: call.gateway_request_id.clone(),
        body_sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn text_of(request: &Value, field: &str) -> String {
    request.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn respond(
    shared: Arc<Shared>,
    call: &Call,
    request: &Value,
    sim: Sim,
    mut entry: Entry,
) -> Response {
    let (content, billed) = content_of(&shared, call, request, &sim, &entry);
    if let Some(body) = strange_body(&sim) {
        entry.status = "completed";
        shared.books(|books| books.enter(entry));
        return body;
    }
    if entry.stream && call.endpoint != "embeddings" {
        return stream_answer(shared, call, request, sim, entry, &content, billed);
    }
    let body = match call.endpoint.as_str() {
        "embeddings" => openai::embeddings(request, &content.model, billed, &sim),
        "moderations" => openai::moderation(&content.id, &content.model),
        "responses" => openai::response(&content, billed.responses(&sim), "completed"),
        "completions" => openai::completion(&content, billed.chat(&call.flavour, &sim)),
        "messages" => anthropic::message(&content, billed.messages(&sim)),
        "messages/count_tokens" => json!({ "input_tokens": billed.input }),
        _ => openai::chat(&content, billed.chat(&call.flavour, &sim), &sim),
    };
    let free = matches!(call.endpoint.as_str(), "moderations" | "messages/count_tokens");
    if !free {
        entry.billed = billed;
    }
    entry.status = "completed";
    let id = entry.id.clone();
    shared.books(|books| books.enter(entry));
    let mut text = body.to_string();
    if sim.invalid_utf8 {
        return bytes_answer([text.as_bytes(), b"\xff\xfe"].concat(), &id);
    }
    if sim.long_line_bytes > 0 {
        text.push_str(&" ".repeat(sim.long_line_bytes));
    }
    bytes_answer(text.into_bytes(), &id)
}

/// What to say, and what it is billed.
fn content_of(
    shared: &Shared,
    call: &Call,
    request: &Value,
    sim: &Sim,
    entry: &Entry,
) -> (Content, Billed) {
    let inputs = ["messages", "input", "prompt", "system", "tools"].map(|field| request.get(field));
    let letters: u64 = inputs.into_iter().flatten().map(letters_of).sum();
    let input = sim.input_tokens.unwrap_or(letters.div_ceil(4).max(1));
    let mut text = sim.text.clone().unwrap_or_else(|| {
        structured(request)
            .unwrap_or_else(|| format!("This is the simulator's answer, seed {}.", shared.seed))
    });
    if sim.echo {
        text = json!({ "headers": call.headers, "body_sha256": entry.body_sha256 }).to_string();
    }
    let tool = tool_of(request);
    let natural = u64::try_from(text.len()).unwrap_or(0).div_ceil(4).max(1);
    let asked = sim.output_tokens.unwrap_or(natural) + sim.reasoning_tokens;
    let limits = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
    let limit = limits.iter().filter_map(|name| request.get(*name)?.as_u64()).min();
    let cut = limit.is_some_and(|limit| asked > limit);
    let output = limit.map_or(asked, |limit| asked.min(limit));
    let none =
        matches!(call.endpoint.as_str(), "embeddings" | "moderations" | "messages/count_tokens");
    let output = if none { 0 } else { output };
    let billed = Billed {
        input,
        cache_read: sim.cached_tokens,
        cache_write_5m: sim.cache_write_tokens,
        cache_write_1h: sim.cache_write_1h_tokens,
        output,
        reasoning: sim.reasoning_tokens.min(output),
    };
    let model = sim.model.clone().unwrap_or_else(|| entry.model.clone());
    let prefix = if call.speaks_anthropic() { "msg" } else { "chatcmpl" };
    let prefix = if call.endpoint == "responses" { "resp" } else { prefix };
    (Content { id: format!("{prefix}_{}", entry.id), model, text, tool, cut }, billed)
}

/// The letters of all texts in a value.
fn letters_of(value: &Value) -> u64 {
    match value {
        Value::String(text) => u64::try_from(text.len()).unwrap_or(0),
        Value::Array(items) => items.iter().map(letters_of).sum(),
        Value::Object(fields) => fields.values().map(letters_of).sum(),
        Value::Number(_) => 4,
        Value::Null | Value::Bool(_) => 0,
    }
}

/// A tool call, when tools are offered and the last word is the user's.
fn tool_of(request: &Value) -> Option<(String, String)> {
    let tool = request.get("tools")?.as_array()?.first()?;
    if request.get("tool_choice").and_then(Value::as_str) == Some("none") {
        return None;
    }
    let turns = request.get("messages").or(request.get("input"))?;
    let last = turns.as_array().and_then(|turns| turns.last());
    let is_result = last.is_some_and(|turn| {
        let text = turn.to_string();
        turn.get("role").and_then(Value::as_str) == Some("tool")
            || text.contains("tool_result")
            || text.contains("function_call_output")
    });
    if is_result {
        return None;
    }
    let function = tool.get("function").unwrap_or(tool);
    let schema = function.get("parameters").or(function.get("input_schema"));
    let arguments = schema.map_or_else(|| json!({}), sample);
    Some((text_of(function, "name"), arguments.to_string()))
}

/// An answer that fits the schema asked for.
fn structured(request: &Value) -> Option<String> {
    let chat = request.pointer("/response_format/json_schema/schema");
    let responses = request.pointer("/text/format/schema");
    let messages = request
        .pointer("/output_config/format/schema")
        .or(request.pointer("/output_format/schema"));
    Some(sample(chat.or(responses).or(messages)?).to_string())
}

/// The simplest value that fits a JSON schema.
fn sample(schema: &Value) -> Value {
    if let Some(first) = schema.get("enum").and_then(Value::as_array).and_then(|list| list.first())
    {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let fields = properties.into_iter().flatten();
            Value::Object(fields.map(|(name, schema)| (name.clone(), sample(schema))).collect())
        }
        Some("array") => json!([schema.get("items").map_or(Value::Null, sample)]),
        Some("integer" | "number") => json!(7),
        Some("boolean") => json!(true),
        _ => json!("sample"),
    }
}

/// A body that is no answer at all.
fn strange_body(sim: &Sim) -> Option<Response> {
    let (kind, body) = match sim.error_body.as_deref()? {
        "html" => ("text/html", "<html><body>Bad gateway</body></html>"),
        "empty" => ("application/json", ""),
        _ => ("application/json", "{\"choices\": [{]"),
    };
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert("content-type", kind.parse().ok()?);
    Some(response)
}

fn json_answer(status: u16, body: &Value, id: &str) -> Response {
    let mut response = bytes_answer(body.to_string().into_bytes(), id);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn bytes_answer(bytes: Vec<u8>, id: &str) -> Response {
    let mut response = Response::new(Body::from(bytes));
    headers(&mut response, "application/json", id);
    response
}

fn headers(response: &mut Response, content_type: &str, id: &str) {
    let list = [
        ("content-type", content_type),
        ("x-request-id", id),
        ("request-id", id),
        ("openai-processing-ms", "5"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("anthropic-ratelimit-requests-limit", "4000"),
    ];
    for (name, value) in list {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
}

fn error(call: &Call, status: u16, message: &str, sim: &Sim) -> Response {
    let body = if call.speaks_anthropic() {
        anthropic::error(status, message)
    } else {
        openai::error(status, message)
    };
    let mut response = strange_body(sim).unwrap_or_else(|| json_answer(status, &body, "sim_error"));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(Ok(value)) = sim.retry_after.map(|seconds| seconds.to_string().parse()) {
        response.headers_mut().insert("retry-after", value);
    }
    response
}

/// The rest of a stream, and the entry that is made when it is over, however it ends: also when it is dropped.
struct Stream {
    shared: Arc<Shared>,
    pieces: std::vec::IntoIter<(Bytes, bool)>,
    sim: Sim,
    entry: Option<Entry>,
    billed: Billed,
    content_chunks: u64,
    sent: u64,
}

impl Stream {
    fn enter(&mut self, status: &'static str) {
        if let Some(mut entry) = self.entry.take() {
            entry.status = status;
            entry.chunks_sent = self.sent;
            entry.billed = self.billed;
            if status != "completed" {
                // What was sent is billed; the rest was never generated.
                let share = self.billed.output * self.sent.min(self.content_chunks);
                entry.billed.output = share / self.content_chunks.max(1);
                entry.billed.reasoning = entry.billed.reasoning.min(entry.billed.output);
            }
            self.shared.books(|books| books.enter(entry));
        }
    }

    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        if self.sim.die_after_chunks.is_some_and(|limit| self.sent >= limit) {
            self.enter("died");
            return Some((Err(std::io::Error::other("died")), self));
        }
        if self.sim.stall_after_chunks.is_some_and(|limit| self.sent >= limit) {
            self.enter("stalled");
            std::future::pending::<()>().await;
        }
        let Some((piece, is_content)) = self.pieces.next() else {
            self.enter("completed");
            return None;
        };
        if self.sim.chunk_delay_ms > 0 && is_content {
            tokio::time::sleep(Duration::from_millis(self.sim.chunk_delay_ms)).await;
        }
        self.sent += u64::from(is_content);
        if self.pieces.as_slice().is_empty() {
            // The books are made before the last bytes leave, so that who reads those can read these.
            self.enter("completed");
        }
        Some((Ok(piece), self))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.enter("client_gone");
    }
}

fn stream_answer(
    shared: Arc<Shared>,
    call: &Call,
    request: &Value,
    sim: Sim,
    entry: Entry,
    content: &Content,
    billed: Billed,
) -> Response {
    let chunks = sim.chunks.unwrap_or(5);
    let include_usage =
        request.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false);
    let mut events = match call.endpoint.as_str() {
        "messages" => anthropic::events(content, billed, &sim, chunks),
        "responses" => openai::response_events(content, billed.responses(&sim), chunks),
        endpoint => {
            let usage = billed.chat(&call.flavour, &sim);
            let legacy = endpoint == "completions";
            openai::chat_events(content, usage, &sim, &call.flavour, include_usage, legacy, chunks)
        }
    };
    if sim.error_in_stream {
        events.truncate(events.len() / 2);
        events.push(match call.speaks_anthropic() {
            true => (Some("error"), anthropic::error(529, "Overloaded").to_string()),
            false => (None, openai::error(500, "The server had an error.").to_string()),
        });
    }
    if sim.long_line_bytes > 0 {
        let long = json!({ "id": content.id, "object": "chat.completion.chunk", "created": 1, "model": content.model,
            "choices": [{ "index": 0, "delta": { "content": "x".repeat(sim.long_line_bytes) } }] });
        events.insert(1.min(events.len()), (None, long.to_string()));
    }
    let pieces = pieces_of(&events, &sim);
    let content_chunks =
        u64::try_from(pieces.iter().filter(|(_, is_content)| *is_content).count()).unwrap_or(1);
    let id = entry.id.clone();
    let state = Stream {
        shared,
        pieces: pieces.into_iter(),
        sim,
        entry: Some(entry),
        billed,
        content_chunks,
        sent: 0,
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(state, Stream::next)));
    headers(&mut response, "text/event-stream; charset=utf-8", &id);
    response
}

/// The bytes of each event, and whether it carries content.
fn pieces_of(events: &[Event], sim: &Sim) -> Vec<(Bytes, bool)> {
    let end = if sim.crlf { "\r\n" } else { "\n" };
    let mut pieces = Vec::new();
    for (name, data) in events {
        let mut text = name.map(|name| format!("event: {name}{end}")).unwrap_or_default();
        text.push_str(&format!("data: {data}{end}{end}"));
        let mut bytes = text.into_bytes();
        let is_content = data.contains("delta") || data.contains("text_completion");
        if sim.invalid_utf8 && is_content {
            // Inside of a comment, where it hurts nobody's JSON.
            bytes.splice(0..0, *b": \xff\xfe\n");
        }
        pieces.push((Bytes::from(bytes), is_content));
    }
    if sim.split_bytes == 0 {
        return pieces;
    }
    let all: Vec<u8> = pieces.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
    all.chunks(sim.split_bytes).map(|piece| (Bytes::copy_from_slice(piece), true)).collect()
}
