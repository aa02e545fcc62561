//! What a request's input consists of, in each dialect.

use super::*;
use serde_json::{Value, json};

fn parts(endpoint: Endpoint, body: &Value) -> PromptParts {
    let text = body.to_string();
    let body = Body::read(endpoint, text.as_bytes()).unwrap();
    let sum: u64 = body.parts.named().iter().map(|(_, part)| part).sum();
    assert!(sum >= body.counted_input_tokens, "nothing of the input is in no part");
    body.parts
}

#[test]
fn each_message_counts_where_it_belongs_in_every_dialect() {
    let (long, longer) = ("word ".repeat(400), "word ".repeat(800));
    let chat = json!({ "model": "m", "messages": [
        { "role": "system", "content": "be kind" }, { "content": longer, "role": "user" },
        { "role": "assistant", "content": "yes" }, { "role": "user", "content": long } ] });
    let messages = json!({ "model": "m", "system": "be kind", "messages": [
        { "role": "user", "content": longer }, { "role": "assistant", "content": "yes" },
        { "role": "user", "content": [{ "type": "text", "text": long }] } ] });
    let responses = json!({ "model": "m", "instructions": "be kind", "input": [
        { "role": "user", "content": longer }, { "role": "assistant", "content": "yes" },
        { "role": "user", "content": long } ] });
    for (endpoint, body) in [
        (Endpoint::ChatCompletions, chat),
        (Endpoint::Messages, messages),
        (Endpoint::Responses, responses),
    ] {
        let parts = parts(endpoint, &body);
        assert!((2..20).contains(&parts.system), "{endpoint:?} {parts:?}");
        // 2000 and 4000 bytes at a third of a token each, and the message around them.
        assert!((667..700).contains(&parts.last), "{endpoint:?} {parts:?}");
        assert!((1_333..1_380).contains(&parts.history), "{endpoint:?} {parts:?}");
        assert_eq!((parts.tools, parts.largest()), (0, "history"), "{endpoint:?}");
    }
}

#[test]
fn tools_text_and_images_are_parts_of_their_own() {
    let tools = json!({ "model": "m", "tools": [{ "name": "f", "role": "system", "input": "word ".repeat(900) }],
                        "messages": [{ "role": "user", "content": "go" }] });
    let found = parts(Endpoint::Messages, &tools);
    assert_eq!((found.largest(), found.system, found.history), ("tools", 0, 0));
    let text = json!({ "model": "m", "input": "word ".repeat(900) });
    assert_eq!(parts(Endpoint::Responses, &text).largest(), "last");
    let image = json!({ "model": "m", "messages": [{ "role": "user", "content": [
        { "type": "image_url", "image_url": { "url": "https://x.test/a.png" } } ] }] });
    assert_eq!(parts(Endpoint::ChatCompletions, &image).largest(), "other");
}
