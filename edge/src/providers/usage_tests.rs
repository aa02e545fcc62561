//! Properties of every provider's reader: what it reports without a flag adds up, and nothing makes it panic.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use tallygate_shared::money::Usd;

fn report(usage: &str, endpoint: Endpoint) -> Report<'_> {
    Report {
        endpoint,
        usage,
        service_tier: None,
        cache_ttl: None,
        search_context_size: None,
        web_search_calls: 0,
    }
}

fn chat(provider: ProviderKind, usage: &serde_json::Value) -> Result<Tally, UsageError> {
    provider.read_usage(&report(&usage.to_string(), Endpoint::ChatCompletions))
}

#[test]
fn part_larger_than_its_total_is_flagged_and_never_counted_beyond_it() {
    for (usage, input, output) in [
        (
            json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 99}}),
            10,
            5,
        ),
        (
            json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4}}),
            10,
            5,
        ),
        (
            json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
            "completion_tokens_details": {"reasoning_tokens": 6}}),
            10,
            5,
        ),
    ] {
        let tally = chat(ProviderKind::Openai, &usage).unwrap();
        assert!(tally.flags.contains(&UsageFlag::SubsetExceedsTotal), "{usage}");
        assert_eq!((tally.tokens.input_total(), tally.tokens.output_total()), (input, output));
    }
}

#[test]
fn total_decides_whether_reasoning_is_inside_the_output() {
    let usage = |total: u64| {
        json!({"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": total,
            "completion_tokens_details": {"reasoning_tokens": 20}})
    };
    for (provider, total, output, mismatch) in [
        (ProviderKind::Openai, 60, 50, false),
        (ProviderKind::Compatible, 80, 70, false),
        (ProviderKind::Xai, 60, 50, false),
        (ProviderKind::Xai, 80, 70, false),
        (ProviderKind::Xai, 81, 70, true),
        (ProviderKind::Openai, 59, 50, true),
    ] {
        let tally = chat(provider, &usage(total)).unwrap();
        assert_eq!(tally.tokens.output_total(), output, "{provider:?} {total}");
        let flagged = tally.flags.contains(&UsageFlag::TotalMismatch);
        assert_eq!(flagged, mismatch, "{provider:?} {total}");
    }
}

#[test]
fn cache_writes_without_a_split_have_the_requested_lifetime() {
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10,
        "prompt_tokens_details": {"cache_write_tokens": 4}})
    .to_string();
    let requested = Some(CacheTtl::TwelveHours);
    let report = Report { cache_ttl: requested, ..report(&usage, Endpoint::ChatCompletions) };
    let tally = ProviderKind::Openai.read_usage(&report).unwrap();
    assert_eq!((tally.tokens.cache_write_12h, tally.tokens.input), (4, 6));
    assert_eq!(tally.flags, []);
}

#[test]
fn deepseek_hits_and_misses_that_do_not_add_up_are_flagged() {
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11,
        "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 7});
    let tally = chat(ProviderKind::Deepseek, &usage).unwrap();
    assert_eq!((tally.tokens.cache_read, tally.tokens.input), (4, 6));
    assert_eq!(tally.flags, [UsageFlag::TotalMismatch]);
}

#[test]
fn fee_of_a_request_with_the_customers_own_key_is_never_taken_for_its_cost() {
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2,
        "cost": 0.00000000000149, "is_byok": true});
    let tally = chat(ProviderKind::Openrouter, &usage).unwrap();
    assert_eq!(tally.stated_cost, None);
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2,
        "cost": 0.00000000000149, "is_byok": false});
    let tally = chat(ProviderKind::Openrouter, &usage).unwrap();
    assert_eq!(tally.stated_cost, Some(Usd::from_pico(1)));
}

#[test]
fn iteration_of_an_unknown_kind_is_refused() {
    let usage = r#"{"input_tokens":1,"output_tokens":1,"iterations":[
        {"type":"new_kind","input_tokens":1,"output_tokens":1}]}"#;
    let read = ProviderKind::Anthropic.read_usage(&report(usage, Endpoint::Messages));
    assert_eq!(read, Err(UsageError::UnknownShape));
}

proptest! {
    #[test]
    fn unflagged_buckets_always_add_up_to_the_stated_total(
        (prompt, completion, reasoning) in (0_u64..9, 0_u64..9, 0_u64..9),
        (cached, written, audio, image, audio_out) in (0_u64..9, 0_u64..5, 0_u64..5, 0_u64..5, 0_u64..5),
        beyond in 0_u64..3,
    ) {
        let total = prompt + completion + [0, reasoning, 1][usize::try_from(beyond).unwrap()];
        let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written,
                "audio_tokens": audio, "image_tokens": image},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": audio_out}});
        for provider in ProviderKind::ALL {
            if provider == ProviderKind::Anthropic {
                continue;
            }
            let tally = chat(provider, &usage).unwrap();
            let is_flagged = tally.flags.iter().any(|flag| *flag != UsageFlag::CacheWriteTtlAssumed);
            prop_assert!(is_flagged || tally.tokens.total() == total, "{provider:?} {usage} {tally:?}");
            prop_assert_eq!(tally.tokens.input_total(), prompt, "{:?} {}", provider, usage);
        }
    }

    #[test]
    fn anthropic_buckets_always_add_up_to_the_counts_they_came_from(
        (input, read, output) in (0_u64..100, 0_u64..100, 0_u64..100),
        (short, long, thinking) in (0_u64..100, 0_u64..100, 0_u64..200),
    ) {
        let usage = json!({"input_tokens": input, "cache_read_input_tokens": read, "output_tokens": output,
            "cache_creation_input_tokens": short + long, "output_tokens_details": {"thinking_tokens": thinking},
            "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}}).to_string();
        let tally = ProviderKind::Anthropic.read_usage(&report(&usage, Endpoint::Messages)).unwrap();
        prop_assert_eq!(tally.tokens.total(), input + read + output + short + long);
        prop_assert_eq!(tally.flags.is_empty(), thinking <= output);
    }

    #[test]
    fn reading_never_panics_and_never_counts_beyond_what_is_possible(
        fields in prop::collection::vec((0_usize..14, "(null|-?[0-9]{1,25}(\\.[0-9]{1,3})?(e[0-9]{1,3})?|\"7\"|\\{\\}|\\[\\]|true|\\{\"cached_tokens\":[0-9]{1,12}\\})"), 0..8),
        garbage in "\\PC{0,40}",
    ) {
        let names = ["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens",
            "prompt_tokens_details", "completion_tokens_details", "cost", "cost_in_usd_ticks", "iterations",
            "billed_units", "cache_creation", "reasoning_tokens", "citation_tokens"];
        let fields: Vec<String> = fields.iter().map(|(at, value)| format!("\"{}\":{value}", names[*at])).collect();
        let usage = format!("{{{}}}", fields.join(","));
        for provider in ProviderKind::ALL {
            for endpoint in Endpoint::ALL {
                let _ = provider.read_usage(&report(&garbage, endpoint));
                if let Ok(tally) = provider.read_usage(&report(&usage, endpoint)) {
                    prop_assert!(tally.tokens.total() <= 10 * tallygate_shared::tokens::MAX_TOKENS);
                }
            }
        }
    }
}
