//! Tests of the tap over the fixtures: `fixtures/<provider>/<endpoint>[-variant].{json,sse}`, each with the tally expected of it
//! beside it. A provider is added by adding fixtures.

use std::fs;
use std::path::Path;

use super::*;
use proptest::prelude::*;
use serde_json::json;
use tallygate_shared::tokens::Tally;

struct Fixture {
    path: String,
    config: TapConfig,
    bytes: Vec<u8>,
    expect: Tally,
}

impl Fixture {
    fn is_stream(&self) -> bool {
        self.path.ends_with(".sse")
    }
}

fn config(provider: ProviderKind, endpoint: Endpoint) -> TapConfig {
    TapConfig {
        provider,
        endpoint,
        strip_usage_chunk: false,
        counted_input_tokens: 77,
        cache_ttl: None,
        search_context_size: None,
    }
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut all = Vec::new();
    for provider in ProviderKind::ALL {
        for entry in fs::read_dir(root.join(provider.name())).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".tally.json") {
                continue;
            }
            let stem = name.split('.').next().unwrap();
            let endpoint = match stem.split('-').next().unwrap() {
                "chat" => Endpoint::ChatCompletions,
                "responses" => Endpoint::Responses,
                "completions" => Endpoint::Completions,
                "embeddings" => Endpoint::Embeddings,
                "messages" => Endpoint::Messages,
                "count_tokens" => Endpoint::CountTokens,
                other => panic!("no endpoint is called {other}"),
            };
            let expect = fs::read(path.with_file_name(format!("{name}.tally.json"))).unwrap();
            all.push(Fixture {
                path: format!("{}/{name}", provider.name()),
                config: config(provider, endpoint),
                bytes: fs::read(&path).unwrap(),
                expect: serde_json::from_slice(&expect).unwrap(),
            });
        }
    }
    all
}

/// What the client gets, and what was observed.
fn relay(config: &TapConfig, bytes: &[u8], size: usize) -> (Vec<u8>, Observed) {
    let mut tap = Tap::new(config.clone());
    let mut out = Vec::new();
    for chunk in bytes.chunks(size.max(1)) {
        match tap.push(chunk) {
            Passed::AsIs => out.extend_from_slice(chunk),
            Passed::Replaced(bytes) => out.extend_from_slice(&bytes),
        }
    }
    out.extend_from_slice(&tap.flush());
    (out, tap.finish())
}

fn stripping(config: &TapConfig) -> TapConfig {
    TapConfig { strip_usage_chunk: true, ..config.clone() }
}

/// The stream without its usage chunk, made by another way than the tap's.
fn without_usage_chunk(stream: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(stream).unwrap();
    let border = ["\r\n\r\n", "\n\n", "\r\r"].into_iter().find(|b| text.contains(b)).unwrap();
    let kept: Vec<&str> = text
        .split_inclusive(border)
        .filter(|event| !(event.contains("\"choices\":[],\"usage\":{")))
        .collect();
    kept.concat().into_bytes()
}

#[test]
fn every_provider_has_fixtures_streamed_and_not() {
    let fixtures = fixtures();
    for provider in ProviderKind::ALL {
        for is_stream in [true, false] {
            let mut of = fixtures.iter().filter(|f| f.config.provider == provider);
            assert!(of.any(|f| f.is_stream() == is_stream), "{provider:?} stream: {is_stream}");
        }
    }
}

#[test]
fn every_answer_in_one_piece_is_read_to_the_expected_tally() {
    for fixture in fixtures().iter().filter(|fixture| !fixture.is_stream()) {
        let observed = read_body(&fixture.config, &fixture.bytes);
        assert_eq!(observed.usage, Usage::Reported(fixture.expect.clone()), "{}", fixture.path);
        assert!(observed.complete, "{}", fixture.path);
        if !matches!(fixture.config.endpoint, Endpoint::CountTokens) {
            assert!(observed.response_model.is_some(), "{}", fixture.path);
        }
    }
}

#[test]
fn every_stream_is_read_to_the_expected_tally_in_every_cut_and_passes_unchanged() {
    for fixture in fixtures().iter().filter(|fixture| fixture.is_stream()) {
        let whole = relay(&fixture.config, &fixture.bytes, fixture.bytes.len()).1;
        assert!(whole.complete && whole.first_content, "{}", fixture.path);
        assert!(whole.response_model.is_some(), "{}", fixture.path);
        assert!(whole.provider_response_id.is_some(), "{}", fixture.path);
        assert_eq!(whole.usage, Usage::Reported(fixture.expect.clone()), "{}", fixture.path);
        let small = 1..200.min(fixture.bytes.len());
        for size in small.chain((200..fixture.bytes.len()).step_by(13)) {
            let (out, observed) = relay(&fixture.config, &fixture.bytes, size);
            assert!(out == fixture.bytes, "{} by {size}", fixture.path);
            assert_eq!(observed, whole, "{} by {size}", fixture.path);
        }
    }
}

#[test]
fn stripped_stream_lacks_exactly_the_usage_chunk_in_every_cut() {
    for fixture in fixtures().iter().filter(|fixture| fixture.is_stream()) {
        let is_chat = fixture.config.endpoint.dialect() == crate::dialects::Dialect::OpenAi
            && fixture.config.endpoint != Endpoint::Responses;
        let expect =
            if is_chat { without_usage_chunk(&fixture.bytes) } else { fixture.bytes.clone() };
        let config = stripping(&fixture.config);
        for size in 1..=fixture.bytes.len() {
            let (out, observed) = relay(&config, &fixture.bytes, size);
            assert!(out == expect, "{} by {size}\n{}", fixture.path, String::from_utf8_lossy(&out));
            assert_eq!(observed.usage, Usage::Reported(fixture.expect.clone()), "{}", fixture.path);
        }
    }
}

#[test]
fn stripping_never_holds_back_an_event_that_is_over() {
    for fixture in fixtures().iter().filter(|fixture| fixture.is_stream()) {
        let mut tap = Tap::new(stripping(&fixture.config));
        let text = std::str::from_utf8(&fixture.bytes).unwrap();
        let border = ["\r\n\r\n", "\n\n", "\r\r"].into_iter().find(|b| text.contains(b)).unwrap();
        for event in text.split_inclusive(border) {
            let passed = tap.push(event.as_bytes());
            let is_dropped = passed == Passed::Replaced(Vec::new());
            assert!(passed == Passed::AsIs || is_dropped, "{}: {event}", fixture.path);
            assert!(tap.held.is_empty(), "{}: {event}", fixture.path);
        }
    }
}

#[test]
fn stream_cut_anywhere_is_never_reported_with_other_figures() {
    for fixture in fixtures().iter().filter(|fixture| fixture.is_stream()) {
        for end in 0..fixture.bytes.len() {
            let part = &fixture.bytes[..end];
            let (out, observed) = relay(&stripping(&fixture.config), part, 50);
            assert!(fixture.bytes.starts_with(&out) || out.len() < part.len(), "{}", fixture.path);
            match &observed.usage {
                Usage::Reported(tally) => {
                    assert_eq!(tally.tokens, fixture.expect.tokens, "{} at {end}", fixture.path);
                }
                Usage::Estimated(tally) => {
                    assert!(tally.tokens.input_total() > 0, "{} at {end}", fixture.path);
                    assert!(tally.flags.contains(&UsageFlag::StreamIncomplete), "{}", fixture.path);
                }
                Usage::Absent => panic!("{} at {end}: absent", fixture.path),
            }
        }
    }
}

#[test]
fn rescan_finds_the_usage_in_the_ends_of_a_stream() {
    for fixture in fixtures().iter().filter(|fixture| fixture.is_stream()) {
        let (head, rest) = fixture.bytes.split_at(fixture.bytes.len() / 3);
        // The tail starts inside of whatever event is there, but before the final one.
        let from = rest.len().saturating_sub(1600);
        let observed = rescan(&fixture.config, head, &rest[from..]);
        let tally = observed.usage.tally().unwrap();
        assert_eq!(tally.tokens, fixture.expect.tokens, "{}", fixture.path);
        assert!(observed.complete, "{}", fixture.path);
    }
}

#[test]
fn comment_passes_as_soon_as_it_is_over_while_stripping() {
    let mut tap = Tap::new(stripping(&config(ProviderKind::Openrouter, CHAT)));
    assert_eq!(tap.push(b": PROC"), Passed::Replaced(vec![]));
    assert_eq!(tap.push(b"ESSING\n\ndata: {"), Passed::Replaced(b": PROCESSING\n\n".to_vec()));
    assert_eq!(tap.push(b"}\n\n"), Passed::Replaced(b"data: {}\n\n".to_vec()));
    assert_eq!(tap.push(b": PROCESSING\n\n"), Passed::AsIs);
    assert_eq!(tap.push(b"data: [DO"), Passed::Replaced(vec![]));
    assert_eq!(tap.flush(), b"data: [DO");
}

#[test]
fn usage_chunk_almost_too_large_to_hold_never_goes_out_by_half() {
    for pad in EVENT_LIMIT - 60..EVENT_LIMIT + 5 {
        let head = format!("data: {{\"choices\":[],\"x\":\"{}\",", "x".repeat(pad));
        let tail = "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";
        let mut tap = Tap::new(stripping(&config(ProviderKind::Openai, CHAT)));
        let mut out = Vec::new();
        for chunk in [head.as_bytes(), tail.as_bytes()] {
            match tap.push(chunk) {
                Passed::AsIs => out.extend_from_slice(chunk),
                Passed::Replaced(bytes) => out.extend_from_slice(&bytes),
            }
        }
        let whole = [head.as_bytes(), tail.as_bytes()].concat();
        assert!(out == b"data: [DONE]\n\n" || out == whole, "{pad}");
    }
}

const CHAT: Endpoint = Endpoint::ChatCompletions;

fn read_stream(provider: ProviderKind, endpoint: Endpoint, stream: &str) -> Observed {
    let config = config(provider, endpoint);
    let whole = relay(&config, stream.as_bytes(), stream.len()).1;
    for size in 1..stream.len() {
        assert_eq!(relay(&config, stream.as_bytes(), size).1, whole, "{stream} by {size}");
    }
    whole
}

#[test]
fn cut_openai_stream_is_estimated_from_the_counted_input_and_the_text_seen() {
    let stream = "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"Hello there\"}}]}\n\n";
    let observed = read_stream(ProviderKind::Openai, CHAT, stream);
    let Usage::Estimated(tally) = &observed.usage else { panic!("{observed:?}") };
    assert_eq!((tally.tokens.input, tally.tokens.output), (77, 4));
    assert_eq!(tally.flags, [UsageFlag::StreamIncomplete]);
    assert_eq!((observed.text_bytes, observed.output_estimate_tokens), (11, 4));
}

#[test]
fn cut_anthropic_stream_keeps_the_real_input_and_estimates_the_output() {
    let stream = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"c\",\"usage\":{\"input_tokens\":500,\"cache_read_input_tokens\":40,\"output_tokens\":1}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello there\"}}\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n";
    let observed = read_stream(ProviderKind::Anthropic, Endpoint::Messages, stream);
    let Usage::Estimated(tally) = &observed.usage else { panic!("{observed:?}") };
    assert_eq!((tally.tokens.input, tally.tokens.cache_read, tally.tokens.output), (500, 40, 4));
    assert_eq!(observed.stream_error.as_deref(), Some("overloaded_error"));
}

#[test]
fn error_before_anything_was_generated_is_no_usage() {
    let stream = "data: {\"error\":{\"code\":502,\"message\":\"x\"}}\n\ndata: [DONE]\n\n";
    let observed = read_stream(ProviderKind::Openrouter, CHAT, stream);
    assert_eq!(observed.usage, Usage::Absent);
    assert_eq!(observed.stream_error.as_deref(), Some("502"));
}

#[test]
fn unusable_usage_is_estimated_and_flagged_and_never_zero() {
    for usage in [
        json!({"prompt_tokens": -5, "completion_tokens": 1, "total_tokens": -4}),
        json!({"prompt_tokens": 5_000_000_000_u64, "completion_tokens": 1}),
        json!({"prompt_tokens": 18_446_744_073_709_551_615_u64, "completion_tokens": 2}),
        json!({"prompt_tokens": 1.5, "completion_tokens": 1}),
        json!({"prompt_tokens": "5", "completion_tokens": 1}),
        json!({"prompt_tokens": 5}),
        json!({}),
        json!({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": 3}),
    ] {
        let body = json!({"model": "m", "choices": [], "usage": usage}).to_string();
        let observed = read_body(&config(ProviderKind::Openai, CHAT), body.as_bytes());
        let Usage::Estimated(tally) = &observed.usage else { panic!("{usage}: {observed:?}") };
        assert_eq!(tally.tokens.input, 77, "{usage}");
        assert_eq!(tally.flags, [UsageFlag::CountUnusable], "{usage}");
    }
}

#[test]
fn reported_zero_stays_a_reported_zero() {
    let body =
        br#"{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#;
    let observed = read_body(&config(ProviderKind::Openai, CHAT), body);
    assert_eq!(observed.usage, Usage::Reported(Tally::default()));
}

#[test]
fn usage_of_an_event_too_large_to_keep_is_found_at_its_end() {
    let large = "x".repeat(2 << 20);
    let stream = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{{\"result\":\"{large}\"}}],\"usage\":{{\"input_tokens\":5,\"output_tokens\":6,\"total_tokens\":11}}}}}}\n\n"
    );
    for strip in [true, false] {
        let config = TapConfig {
            strip_usage_chunk: strip,
            ..config(ProviderKind::Openai, Endpoint::Responses)
        };
        for size in [4096, 100_000, stream.len()] {
            let (out, observed) = relay(&config, stream.as_bytes(), size);
            assert!(out == stream.as_bytes(), "{size}");
            let Usage::Reported(tally) = observed.usage else { panic!("{size}") };
            assert_eq!((tally.tokens.input, tally.tokens.output), (5, 6), "{size}");
            assert!(observed.complete, "{size}");
        }
    }
}

proptest! {
    #[test]
    fn relaying_never_panics_and_never_loses_a_byte_of_what_is_not_usage(
        stream in "(data: |event: |\\{\"usage\":|\\{\"choices\":\\[\\]|\"delta\":|\\{|\\}|\"a\"|:|,|\r|\n|\n\n){0,40}",
        size in 1_usize..20,
    ) {
        for provider in [ProviderKind::Openai, ProviderKind::Anthropic, ProviderKind::Groq] {
            for endpoint in Endpoint::ALL {
                let config = stripping(&config(provider, endpoint));
                let (out, _) = relay(&config, stream.as_bytes(), size);
                prop_assert_eq!(out, stream.as_bytes());
                let _ = read_body(&config, stream.as_bytes());
            }
        }
    }
}
