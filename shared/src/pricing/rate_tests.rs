//! A golden test for each special rule, with figures worked out by hand, and properties over every row of the book.

use proptest::prelude::*;

use super::*;
use crate::money::Usd;
use crate::time::Timestamp;
use crate::tokens::{Calls, OtherModel, Tally, Tokens};

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn row(name: &str, when: &str) -> PriceRow {
    let (provider, model) = name.split_once('/').unwrap();
    PriceBook::built_in().unwrap().find(provider, model, at(when)).unwrap().clone()
}

fn tally(tokens: Tokens) -> Tally {
    Tally { tokens, ..Tally::default() }
}

const NOW: &str = "2026-11-20T12:00:00Z";

/// The total in dollars, or the error's code.
fn check(name: &str, tally: &Tally, expect: &str) {
    check_at(name, tally, NOW, None, expect);
}

fn check_at(name: &str, tally: &Tally, when: &str, region: Option<&str>, expect: &str) {
    let book = PriceBook::built_in().unwrap();
    let provider = name.split_once('/').unwrap().0;
    let found = rate_with(&row(name, when), tally, at(when), region, |model| {
        book.find(provider, model, at(when))
    });
    let found = found.map_or_else(|e| e.code().to_owned(), |cost| cost.total.to_string());
    assert_eq!(found, expect, "{name} {tally:?} at {when}");
}

#[test]
fn each_bucket_has_its_own_price() {
    let tokens = Tokens {
        input: 1_000,
        cache_read: 2_000,
        cache_write_5m: 3_000,
        cache_write_1h: 4_000,
        output: 500,
        reasoning: 100,
        ..Tokens::default()
    };
    // 1000x1 + 2000x0.1 + 3000x1.25 + 4000x2 + 600x5 per million
    check("anthropic/claude-haiku-4-5", &tally(tokens), "0.01595");
    let tokens = Tokens { cache_write_30m: 1_000, cache_write_12h: 1_000, ..Tokens::default() };
    // 1000x0.125 + 1000x0.25
    check("openai/gpt-6-luna", &tally(tokens), "0.000375");
}

#[test]
fn cache_writes_without_a_price_of_their_own_are_input_but_an_unknown_lifetime_is_an_error() {
    let tokens = Tokens { cache_write_30m: 1_000_000, ..Tokens::default() };
    check("openai/gpt-5.4-nano", &tally(tokens), "0.2");
    check("anthropic/claude-haiku-4-5", &tally(tokens), "bucket_unpriced");
}

#[test]
fn the_tier_that_was_used_decides_and_an_unknown_one_is_never_standard() {
    let million = Tokens { input: 100_000, output: 100_000, ..Tokens::default() };
    let tier = |tier: &str| Tally { service_tier: Some(tier.to_owned()), ..tally(million) };
    check("openai/gpt-6-sol", &tier("default"), "1.2");
    check("openai/gpt-6-sol", &tier("flex"), "0.6");
    check("openai/gpt-6-sol", &tier("priority"), "2.4");
    check("openai/gpt-6-sol", &tier("fast"), "2.4");
    check("openai/gpt-6-sol", &tier("scale"), "tier_unpriced");
    check("anthropic/claude-haiku-4-5", &tier("priority"), "tier_unpriced");
    check("anthropic/claude-haiku-4-5", &tier("batch"), "0.3");
}

#[test]
fn a_long_input_prices_the_whole_request_anew() {
    let input = |input| tally(Tokens { input, output: 1_000, ..Tokens::default() });
    // Over 272,000 tokens gpt-6-sol doubles input and takes half more for output; the threshold itself is short.
    check("openai/gpt-6-sol", &input(272_000), "0.554");
    check("openai/gpt-6-sol", &input(272_001), "1.103004");
    // Cache reads and writes count towards the threshold.
    let cached = Tokens { input: 1, cache_read: 272_000, ..Tokens::default() };
    check("openai/gpt-6-sol", &tally(cached), "0.108804");
    // xAI's threshold is long already.
    check("xai/grok-4.7", &input(199_999), "0.405998");
    check("xai/grok-4.7", &input(200_000), "0.812");
    // claude-haiku-5-5: five times everything over 100,000.
    check("anthropic/claude-haiku-5-5", &input(100_000), "0.0105");
    check("anthropic/claude-haiku-5-5", &input(100_001), "0.0525005");
}

#[test]
fn a_tier_without_long_context_prices_is_an_error_there() {
    let long = Tally {
        service_tier: Some("priority".to_owned()),
        ..tally(Tokens { input: 300_000, ..Tokens::default() })
    };
    check("openai/gpt-5.5", &long, "tier_unpriced");
}

#[test]
fn multipliers_apply_to_tokens_and_not_to_fees() {
    let tokens = Tokens { input: 1_000_000, ..Tokens::default() };
    let us = Tally { inference_geo: Some("us".to_owned()), ..tally(tokens) };
    check("anthropic/claude-opus-5-5", &us, "4.4");
    let fast = Tally { speed: Some("fast".to_owned()), ..us.clone() };
    check("anthropic/claude-opus-5-5", &fast, "8.8");
    let searched = Tally { calls: Calls { web_search: 3, ..Calls::default() }, ..us };
    check("anthropic/claude-opus-5-5", &searched, "4.43");
    let small = tally(Tokens { input: 1_000, ..Tokens::default() });
    check_at("openai/gpt-6-sol", &small, NOW, Some("eu"), "0.0022");
    check_at("xai/grok-4.7", &small, NOW, Some("us"), "0.0022");
    check_at("openai/gpt-6-sol", &small, NOW, None, "0.002");
}

#[test]
fn fees_are_charged_by_the_call_and_a_call_without_a_fee_is_an_error() {
    let sized = |size: Option<&str>| Tally {
        search_context_size: size.map(str::to_owned),
        ..tally(Tokens { input: 1_000, output: 1_000, ..Tokens::default() })
    };
    check("perplexity/sonar", &sized(Some("low")), "0.007");
    check("perplexity/sonar", &sized(Some("high")), "0.014");
    // Nobody stated the size: the dearest.
    check("perplexity/sonar", &sized(None), "0.014");
    let research = Tally {
        calls: Calls { search_query: 10, ..Calls::default() },
        ..tally(Tokens { citation: 1_000, reasoning: 1_000, ..Tokens::default() })
    };
    // 1000 citation tokens at 2, 1000 reasoning at 3, 10 searches at 5 a thousand.
    check("perplexity/sonar-deep-research", &research, "0.055");
    let searched = Tally { calls: Calls { web_search: 1, ..Calls::default() }, ..Tally::default() };
    check("groq/openai/gpt-oss-20b", &searched, "0.005");
    check("deepseek/deepseek-flash", &searched, "call_unpriced");
}

#[test]
fn what_the_provider_states_is_the_cost() {
    let stated = Tally {
        stated_cost: Some("0.0123456789".parse().unwrap()),
        ..tally(Tokens { input: 5, output: 5, ..Tokens::default() })
    };
    check("xai/grok-4.7", &stated, "0.012345679");
    check("perplexity/sonar", &stated, "0.012345679");
}

#[test]
fn deepseek_is_cheaper_off_peak_to_the_minute() {
    let tokens = tally(Tokens { input: 1_000_000, ..Tokens::default() });
    let friday = |clock: &str| format!("2026-11-20T{clock}Z");
    for (clock, expect) in [
        ("00:59:59", "0.15"),
        ("01:00:00", "0.3"),
        ("03:59:59", "0.3"),
        ("04:00:00", "0.15"),
        ("06:00:00", "0.3"),
        ("10:00:00", "0.15"),
        ("23:59:59", "0.15"),
    ] {
        check_at("deepseek/deepseek-flash", &tokens, &friday(clock), None, expect);
    }
    check_at("deepseek/deepseek-flash", &tokens, "2026-11-21T02:00:00Z", None, "0.15");
    check_at("deepseek/deepseek-flash", &tokens, "2026-11-23T02:00:00Z", None, "0.3");
}

#[test]
fn a_price_changes_on_its_day() {
    let tokens = tally(Tokens { cache_read: 1_000_000, ..Tokens::default() });
    check_at("anthropic/claude-sonnet-5-5", &tokens, "2026-10-06T23:59:59Z", None, "0.2");
    check_at("anthropic/claude-sonnet-5-5", &tokens, "2026-10-07T00:00:00Z", None, "0.1");
    let tokens = tally(Tokens { input: 1_000_000, ..Tokens::default() });
    check_at("google/gemini-3.8-flash", &tokens, "2026-12-31T23:59:59Z", None, "0.75");
    check_at("google/gemini-3.8-flash", &tokens, "2027-01-01T00:00:00Z", None, "1.5");
}

#[test]
fn audio_has_its_own_price_and_images_the_text_price_where_they_have_none() {
    let audio = tally(Tokens { input_audio: 1_000, ..Tokens::default() });
    check("google/gemini-2.5-flash", &audio, "0.001");
    let image = tally(Tokens { input_image: 1_000, ..Tokens::default() });
    check("google/gemini-2.5-flash", &image, "0.0003");
    let flex = Tally { service_tier: Some("flex".to_owned()), ..audio };
    check("google/gemini-2.5-flash", &flex, "bucket_unpriced");
}

#[test]
fn another_model_in_the_same_request_has_its_own_price() {
    let other = |model: &str| Tally {
        other_models: vec![OtherModel {
            model: model.to_owned(),
            tokens: Tokens { output: 1_000, ..Tokens::default() },
        }],
        ..tally(Tokens { output: 1_000, ..Tokens::default() })
    };
    check("anthropic/claude-haiku-4-5", &other("claude-opus-5-5"), "0.025");
    check("anthropic/claude-haiku-4-5", &other("claude-nobody"), "model_unpriced");
}

#[test]
fn embeddings_have_no_output_price_and_output_there_is_an_error() {
    let check = |tokens, expect| check("openai/text-embedding-3-small", &tally(tokens), expect);
    check(Tokens { input: 1_000_000, ..Tokens::default() }, "0.02");
    check(Tokens { output: 1, ..Tokens::default() }, "bucket_unpriced");
}

#[test]
fn halves_of_a_nanodollar_round_to_even_once_a_component() {
    let mut row = row("openai/gpt-6-luna", NOW);
    let standard = row.prices.get_mut("standard").unwrap();
    standard.input = Some("0.0005".parse().unwrap());
    for (input, expect) in [(1, "0"), (3, "0.000000002"), (5, "0.000000002"), (7, "0.000000004")] {
        let cost =
            rate(&row, &tally(Tokens { input, ..Tokens::default() }), at(NOW), None).unwrap();
        assert_eq!(cost.total.to_string(), expect, "{input}");
    }
}

prop_compose! {
    /// Tokens as a provider may report them for a request with `input` and `output` in all.
    fn any_tokens(input: u64, output: u64)(
        cuts in proptest::collection::vec(0..=input, 5),
        reasoning in 0..=output,
    ) -> Tokens {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let mut take = { let mut last = 0; move |to: u64| { let n = to - last; last = to; n } };
        Tokens {
            cache_read: take(cuts[0]),
            cache_write_5m: take(cuts[1]),
            cache_write_1h: take(cuts[2]),
            cache_write_30m: take(cuts[3]),
            cache_write_12h: take(cuts[4]),
            input: take(input),
            output: output - reasoning,
            reasoning,
            ..Tokens::default()
        }
    }
}

proptest! {
    #[test]
    fn the_total_is_always_the_sum_of_the_parts_and_never_above_the_worst_case(
        place in 0_usize..123,
        (input, output, tokens) in (0_u64..1_200_000, 0_u64..200_000)
            .prop_flat_map(|(i, o)| (Just(i), Just(o), any_tokens(i, o))),
        geo in any::<bool>(),
        ms in 1_790_000_000_000_i64..1_800_000_000_000,
    ) {
        let row = &PriceBook::built_in().unwrap().rows()[place];
        let tally = Tally { inference_geo: geo.then(|| "us".to_owned()), ..tally(tokens) };
        let Ok(cost) = rate(row, &tally, Timestamp::from_ms(ms), None) else { return Ok(()) };
        let sum = cost.parts.named().into_iter().fold(Usd::ZERO, |sum, (_, part)| sum.checked_add(part).unwrap());
        prop_assert_eq!(cost.total, sum);
        prop_assert!(!cost.total.is_negative());
        let worst = worst_case(row, input, output, None, None).unwrap();
        prop_assert!(cost.total <= worst, "{} {:?}: {} > {worst}", row.model, tally, cost.total);
    }

    #[test]
    fn more_tokens_never_cost_less(place in 0_usize..123, tokens in any_tokens(50_000, 5_000), more in 0_u64..1_000) {
        let row = &PriceBook::built_in().unwrap().rows()[place];
        let cost = |tokens| rate(row, &tally(tokens), at(NOW), None).map(|cost| cost.total);
        let grown = Tokens { output: tokens.output + more, input: tokens.input + more, ..tokens };
        if let (Ok(less), Ok(more)) = (cost(tokens), cost(grown)) {
            prop_assert!(less <= more);
        }
    }
}
