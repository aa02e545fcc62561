//! Tests of reading and editing bodies.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const CHAT: Endpoint = Endpoint::ChatCompletions;

fn read(body: &str) -> Result<Body<'_>, BodyError> {
    Body::read(CHAT, body.as_bytes())
}

fn refused(body: &str, expect: BodyError) {
    assert_eq!(read(body), Err(expect), "{body}");
}

#[test]
fn body_is_refused_with_the_field_and_the_remedy() {
    refused("", BodyError::Malformed { line: 1, column: 0 });
    refused("{\"model\":\"a\",}", BodyError::Malformed { line: 1, column: 14 });
    refused("{\"model\":\"a\"} x", BodyError::Malformed { line: 1, column: 15 });
    for other in ["[]", "1", "null", "\"text\"", "true"] {
        refused(other, BodyError::NotAnObject);
    }
    for missing in ["{}", "{\"model\":null}", "{\"model\":\"\"}"] {
        refused(missing, BodyError::MissingModel);
    }
    refused("{\"model\":1}", BodyError::WrongType { field: "model", expected: "a string" });
    let count = "a whole number that is not negative";
    for bad in ["-1", "1.5", "\"9\"", "99999999999999999999"] {
        refused(
            &format!("{{\"model\":\"m\",\"max_tokens\":{bad}}}"),
            BodyError::WrongType { field: "max_tokens", expected: count },
        );
    }
    refused(
        r#"{"model":"m","stream_options":{"include_usage":1}}"#,
        BodyError::WrongType { field: "stream_options.include_usage", expected: "true or false" },
    );
    assert_eq!(Body::read(CHAT, b"{\"model\":\"\xff\"}"), Err(BodyError::InvalidUtf8 { at: 10 }));
    let deep = format!("{{\"model\":\"m\",\"messages\":{}{}}}", "[".repeat(500), "]".repeat(500));
    refused(&deep, BodyError::TooDeep);
}

#[test]
fn body_is_refused_when_a_field_occurs_twice_even_if_written_differently() {
    refused(r#"{"model":"a","model":"b"}"#, BodyError::Duplicate { field: "model" });
    refused(r#"{"model":"a","mod\u0065l":"b"}"#, BodyError::Duplicate { field: "model" });
    refused(
        r#"{"model":"a","messages":[],"messages":[]}"#,
        BodyError::Duplicate { field: "messages" },
    );
    refused(
        r#"{"model":"a","stream_options":{"include_usage":false,"include_usage":true}}"#,
        BodyError::Duplicate { field: "stream_options.include_usage" },
    );
}

#[test]
fn settings_are_read() {
    let body = r#"{"model":"m\u0041","stream":true,"stream_options":{"include_usage":true},
        "max_tokens":5,"max_completion_tokens":9,"n":3,"service_tier":"flex","user":"u",
        "metadata":{"team":"x","n":1},"web_search_options":{"search_context_size":"high"},
        "prompt_cache_options":{"ttl":"12h"},"previous_response_id":"r"}"#;
    let body = read(body).unwrap();
    assert_eq!(body.model, "mA");
    assert!(body.stream && body.include_usage && body.web_search && body.unseen_input);
    assert_eq!((body.max_output_tokens, body.choices), (Some(9), 3));
    assert_eq!(body.service_tier.as_deref(), Some("flex"));
    assert_eq!(body.user.as_deref(), Some("u"));
    assert_eq!(body.metadata, [("team".into(), "x".into())]);
    assert_eq!(body.search_context_size.as_deref(), Some("high"));
    assert_eq!(body.cache_ttl, Some(CacheTtl::TwelveHours));
}

#[test]
fn user_and_cache_lifetime_are_read_as_anthropic_writes_them() {
    let body = br#"{"model":"m","max_tokens":1,"metadata":{"user_id":"u1"},
        "system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral","ttl":"1h"}}]}"#;
    let body = Body::read(Endpoint::Messages, body).unwrap();
    assert_eq!(body.user.as_deref(), Some("u1"));
    assert_eq!(body.cache_ttl, Some(CacheTtl::OneHour));
}

#[test]
fn input_is_counted_by_what_it_is() {
    let data = "A".repeat(40_000);
    let check = |endpoint: Endpoint, input: Value, at_least: u64, at_most: u64, images: u64| {
        let mut body = input;
        body["model"] = json!("m");
        let text = body.to_string();
        let body = Body::read(endpoint, text.as_bytes()).unwrap();
        let counted = body.counted_input_tokens;
        assert!((at_least..=at_most).contains(&counted), "{counted}: {:.200}", text);
        assert_eq!(body.images, images, "{:.200}", text);
    };
    let message = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    check(CHAT, json!({"messages": []}), 16, 30, 0);
    check(CHAT, json!({"messages": [{"role": "user", "content": "Hello there"}]}), 20, 50, 0);
    let image = IMAGE_TOKENS;
    let url = format!("data:image/png;base64,{data}");
    check(
        CHAT,
        message(json!({"type": "image_url", "image_url": {"url": url}})),
        image,
        image + 90,
        1,
    );
    check(
        CHAT,
        message(json!({"type": "input_image", "image_url": "https://h/i.png"})),
        image,
        image + 90,
        1,
    );
    let source = json!({"type": "base64", "media_type": "image/png", "data": data});
    check(
        Endpoint::Messages,
        message(json!({"type": "image", "source": source})),
        image,
        image + 120,
        1,
    );
    let source = json!({"type": "base64", "media_type": "application/pdf", "data": data});
    check(
        Endpoint::Messages,
        message(json!({"type": "document", "source": source})),
        10_000,
        10_150,
        0,
    );
    let audio = json!({"data": data, "format": "wav"});
    check(CHAT, message(json!({"type": "input_audio", "input_audio": audio})), 625, 750, 0);
    check(Endpoint::Embeddings, json!({"input": vec![50_000; 1000]}), 1000, 1030, 0);
    check(CHAT, json!({"messages": [], "tools": [{"type": "function"}]}), 600, 650, 0);
    // A text that only looks like an attachment is still a text.
    check(CHAT, message(json!({"type": "text", "text": url})), 20_000, 60_000, 0);
}

fn check_edit(body: &str, edits: &Edits<'_>, expect: &str) {
    let read = read(body).unwrap();
    let edited = read.edited(edits);
    assert_eq!(std::str::from_utf8(&edited).unwrap(), expect, "{body}");
    assert_eq!(matches!(edited, Cow::Borrowed(_)), body == expect, "{body}");
}

#[test]
fn edits_change_only_the_bytes_they_must() {
    let model = Edits { model: Some("b"), ..Edits::default() };
    check_edit(r#" { "model" : "a" , "x":1.0 }"#, &model, r#" { "model" : "b" , "x":1.0 }"#);
    check_edit(r#"{"model":"b"}"#, &model, r#"{"model":"b"}"#);
    let quote = Edits { model: Some("a\"b"), ..Edits::default() };
    check_edit(r#"{"model":"a"}"#, &quote, r#"{"model":"a\"b"}"#);

    let limit = Edits { max_output: Some(("max_completion_tokens", 10)), ..Edits::default() };
    check_edit(r#"{"model":"a"}"#, &limit, r#"{"max_completion_tokens":10,"model":"a"}"#);
    check_edit(r#"{"model":"a","max_tokens":99}"#, &limit, r#"{"model":"a","max_tokens":10}"#);
    check_edit(r#"{"model":"a","max_tokens":null}"#, &limit, r#"{"model":"a","max_tokens":10}"#);
    check_edit(r#"{"max_tokens":9,"model":"a"}"#, &limit, r#"{"max_tokens":9,"model":"a"}"#);

    let usage = Edits { include_usage: true, ..Edits::default() };
    let with = |options: &str| format!(r#"{{"model":"a","stream_options":{options}}}"#);
    check_edit(
        r#"{"model":"a"}"#,
        &usage,
        r#"{"stream_options":{"include_usage":true},"model":"a"}"#,
    );
    for (before, after) in [
        ("null", r#"{"include_usage":true}"#),
        ("{}", r#"{"include_usage":true}"#),
        ("{ }", r#"{"include_usage":true }"#),
        (r#"{"x":1}"#, r#"{"include_usage":true,"x":1}"#),
        (r#"{"include_usage":false}"#, r#"{"include_usage":true}"#),
        (r#"{"include_usage":null,"x":1}"#, r#"{"include_usage":true,"x":1}"#),
        (r#"{"include_usage":true}"#, r#"{"include_usage":true}"#),
    ] {
        check_edit(&with(before), &usage, &with(after));
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,9}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn edited_body_always_equals_the_original_with_just_the_change(
        messages in any_json(),
        extra in any_json(),
        max in prop::option::of(0_u64..2000),
        options in prop::option::of(prop::option::of(any::<bool>())),
        model in "\\PC{1,20}",
        pretty in any::<bool>(),
    ) {
        let mut original = json!({"model": "m", "messages": messages, "zz_extra": extra});
        if let Some(max) = max {
            original["max_tokens"] = json!(max);
        }
        if let Some(flag) = options {
            original["stream_options"] = flag.map_or(json!({"x": 1}), |flag| json!({"include_usage": flag}));
        }
        let text = if pretty { serde_json::to_string_pretty(&original) } else { serde_json::to_string(&original) };
        let text = text.unwrap();
        let edits = Edits { model: Some(&model), max_output: Some(("max_tokens", 1000)), include_usage: true };
        let body = read(&text).unwrap();
        let edited: Value = serde_json::from_slice(&body.edited(&edits)).unwrap();

        let mut expect = original;
        expect["model"] = json!(model);
        expect["max_tokens"] = json!(max.unwrap_or(1000).min(1000));
        expect["stream_options"]["include_usage"] = json!(true);
        prop_assert_eq!(edited, expect);
    }

    #[test]
    fn reading_never_panics_on_garbage(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Body::read(CHAT, &bytes);
    }

    #[test]
    fn reading_never_panics_on_almost_json(text in "[{}\\[\\]\":,a0\\\\un\\-.e ]{0,80}") {
        for endpoint in Endpoint::ALL {
            let _ = Body::read(endpoint, text.as_bytes());
            let _ = Body::read(endpoint, format!("{{\"model\":\"m\",\"input\":{text}}}").as_bytes());
        }
    }
}
