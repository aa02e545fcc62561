//! What makes two requests alike, and which tool calls are seen, in each dialect.

use super::*;
use serde_json::{Value, json};

fn shape(endpoint: Endpoint, body: &Value) -> RequestShape {
    Body::read(endpoint, body.to_string().as_bytes()).unwrap().shape
}

fn chat(body: &Value) -> RequestShape {
    shape(Endpoint::ChatCompletions, body)
}

fn text(content: &str) -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": content }] })
}

fn print(content: &str) -> u64 {
    chat(&text(content)).fingerprint
}

#[test]
fn white_space_and_clock_times_do_not_count() {
    let same = ["Now 12:30:59.123: go on", " Now  23:01 :\tgo\non"];
    assert_ne!(print(same[0]), print(same[1]), "a colon alone is another word");
    assert_eq!(print("Now 12:30:59.123 go on"), print(" Now  23:01\tgo\non "));
    assert_eq!(print("at 2026-11-21T07:29:33Z"), print("at 2026-11-21T08:00:01Z"));
    // A compact record keeps all but its clock.
    let record = |id: u8, clock: &str| print(&format!(r#"{{"id":{id},"at":"{clock}"}}"#));
    assert_eq!(record(1, "10:00:00"), record(1, "11:11:11"));
    assert_ne!(record(1, "10:00:00"), record(2, "10:00:00"));
}

#[test]
fn words_numbers_roles_order_and_settings_count() {
    let base = print("Summarise document 17 of 2026");
    for other in ["Summarise document 18 of 2026", "Summarise document 17 of 2027", "", "ab c"] {
        assert_ne!(base, print(other), "{other}");
    }
    assert_ne!(print("a b"), print("ab"));
    let two = |a: &str, b: &str, role: &str| {
        let messages = json!([{ "role": "user", "content": a }, { "role": role, "content": b }]);
        chat(&json!({ "model": "m", "messages": messages })).fingerprint
    };
    assert_ne!(two("x", "y", "user"), two("y", "x", "user"));
    assert_ne!(two("x", "y", "user"), two("x", "y", "assistant"));
    for (field, value) in [
        ("model", json!("other")),
        ("temperature", json!(0.5)),
        ("seed", json!(7)),
        ("top_p", json!(0.9)),
        ("n", json!(2)),
        ("response_format", json!({ "type": "json_object" })),
        ("previous_response_id", json!("resp_1")),
    ] {
        let mut body = text("x");
        body[field] = value;
        assert_ne!(chat(&body).fingerprint, print("x"), "{field}");
    }
}

#[test]
fn tools_ids_users_and_field_order_do_not_count() {
    let call = |id: &str, tools: Value| {
        let message = json!({ "role": "assistant", "tool_calls": [
            { "id": id, "type": "function", "function": { "name": "f", "arguments": "{}" } }] });
        let result = json!({ "role": "tool", "tool_call_id": id, "content": "ok" });
        chat(&json!({ "model": "m", "messages": [message, result], "tools": tools, "user": id }))
    };
    assert_eq!(call("a", json!([])), call("b", json!([{ "name": "x", "arguments": "{}" }])));
    let body = r#"{"messages":[{"content":"hi","role":"user"}],"model":"m"}"#;
    let turned = r#"{"model":"m","messages":[{"role":"user","content":"\u0068i"}]}"#;
    let read = |body: &str| {
        Body::read(Endpoint::ChatCompletions, body.as_bytes()).unwrap().shape.fingerprint
    };
    assert_eq!(read(body), read(turned));
}

#[test]
fn pictures_count_by_their_data() {
    let picture = |data: &str| {
        let url = format!("data:image/png;base64,{data}");
        let part = json!({ "type": "image_url", "image_url": { "url": url } });
        chat(&json!({ "model": "m", "messages": [{ "role": "user", "content": [part] }] }))
    };
    assert_ne!(picture("AAAA").fingerprint, picture("AAAB").fingerprint);
}

#[test]
fn tool_calls_are_alike_in_every_dialect_if_their_arguments_are() {
    let arguments = [r#"{"a":1,"b":[2,3]}"#, r#"{ "b": [2, 3], "a": 1 }"#];
    let function = |arguments| json!({ "function": { "name": "f", "arguments": arguments } });
    let chat = chat(&json!({ "model": "m", "messages": [
        { "role": "assistant", "tool_calls": [function(arguments[0])] },
        { "role": "tool", "content": "x" },
        { "role": "assistant", "tool_calls": [function(arguments[1]), function("{}")] },
    ] }));
    let item = |arguments: &str| {
        json!({ "type": "function_call", "name": "f", "call_id": "c",
        "arguments": arguments })
    };
    let responses = shape(
        Endpoint::Responses,
        &json!({ "model": "m", "input": [item(arguments[0]),
            { "type": "function_call_output", "call_id": "c", "output": "x" },
            item(arguments[1]), item("{}")] }),
    );
    let used = |input: Value| json!({ "type": "tool_use", "id": "t", "name": "f", "input": input });
    let messages = shape(
        Endpoint::Messages,
        &json!({ "model": "m", "messages": [
            { "role": "assistant", "content": [used(json!({ "a": 1, "b": [2, 3] }))] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t", "content": "x" }] },
            { "role": "assistant", "content": [
                used(json!({ "b": [2, 3], "a": 1 })), used(json!({}))] },
        ] }),
    );
    let calls = &chat.tool_calls;
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[0], calls[1]);
    assert_ne!(calls[0], calls[2]);
    assert_eq!((&responses.tool_calls, &messages.tool_calls), (calls, calls));
    assert_eq!([chat.messages, responses.messages, messages.messages], [3, 0, 3]);
}

#[test]
fn arguments_that_look_like_a_message_or_an_id_are_arguments() {
    let input = |input: Value| {
        let used = json!({ "type": "tool_use", "id": "t", "name": "f", "input": input });
        let message = json!({ "role": "assistant", "content": [used] });
        shape(Endpoint::Messages, &json!({ "model": "m", "messages": [message] })).tool_calls
    };
    let text = |arguments: Value| {
        let call = json!({ "name": "f", "arguments": arguments.to_string() });
        shape(Endpoint::Responses, &json!({ "model": "m", "input": [call] })).tool_calls
    };
    for of in [&input as &dyn Fn(Value) -> Vec<u64>, &text] {
        assert_ne!(of(json!({ "id": 17 })), of(json!({ "id": 18 })));
        assert_ne!(of(json!({ "at": [{ "id": 17 }] })), of(json!({ "at": [{ "id": 18 }] })));
        let nested = of(json!({ "role": "user", "name": "g", "arguments": "{}" }));
        assert_eq!(nested.len(), 1);
        assert_eq!(of(json!({ "type": "tool_result" })).len(), 1);
    }
}

#[test]
fn only_the_last_calls_since_somebody_spoke_are_kept() {
    let call = |n: u32| {
        json!({ "role": "assistant", "tool_calls": [
        { "function": { "name": "f", "arguments": format!("[{n}]") } }] })
    };
    let with = |messages: Vec<Value>| chat(&json!({ "model": "m", "messages": messages }));
    let last = with((4..20).map(call).collect()).tool_calls;
    assert_eq!(last.len(), 16);
    assert_eq!(with((0..20).map(call).collect()).tool_calls, last);
    let spoken = json!({ "role": "user", "content": "Stop that." });
    assert_eq!(with(vec![call(1), call(1), spoken, call(2)]).tool_calls.len(), 1);
}

#[test]
fn hashes_cross_javascript_as_numbers() {
    for n in 0..1_000 {
        assert!(print(&format!("{n}")) < 1 << 52);
    }
    let all: std::collections::BTreeSet<u64> = (0..20_000).map(|n| print(&n.to_string())).collect();
    assert_eq!(all.len(), 20_000);
}
