use std::sync::LazyLock;

use proptest::prelude::*;
use tallygate_shared::money::Usd;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::connectors::testing::{
    answer, at, busy_once, days, page, pull, quick, refuses_bad_bodies, replaced, total,
    unreadable, usd,
};

const FIRST: &str = include_str!("../fixtures/openrouter/activity_2026-11-01.json");
const SECOND: &str = include_str!("../fixtures/openrouter/activity_2026-11-02.json");
const KEYS_PAGE: &str = include_str!("../fixtures/openrouter/keys.json");
const NO_MORE: &str = r#"{"data":[]}"#;

fn connector(base: &str) -> OpenRouter {
    let settings: OpenRouterSettings = serde_json::from_str(&format!(
        r#"{{"base_url":"{base}","account":"acme","management_key":"sk-or-test"}}"#
    ))
    .unwrap();
    OpenRouter::new(settings, quick()).unwrap()
}

fn offline() -> &'static OpenRouter {
    static OFFLINE: LazyLock<OpenRouter> =
        LazyLock::new(|| connector("https://openrouter.ai/api/v1"));
    &OFFLINE
}

fn pages() -> Vec<RawPage> {
    vec![
        page("activity/2026-11-01", FIRST),
        page("activity/2026-11-02", SECOND),
        page("keys", KEYS_PAGE),
        page("keys", NO_MORE),
    ]
}

#[test]
fn activity_is_billed_without_what_was_paid_upstream() {
    let bill = offline().read(days("2026-11-01", 2), &pages()).unwrap();
    let [own_key, credits] = &bill.lines[..] else { panic!() };
    assert_eq!((own_key.amount, own_key.meter), (usd("0.015"), Meter::Whole));
    assert_eq!(own_key.tags["byok_usage_inference"], "0.012");
    assert_eq!(own_key.model.as_deref(), Some("openai/gpt-6-astra"));
    assert_eq!((own_key.start, own_key.end), (at("2026-11-01"), at("2026-11-02")));
    assert_eq!(own_key.project.as_deref(), Some("ws_1"));
    assert!(!credits.tags.contains_key("byok_usage_inference"));
    assert_eq!(total(&bill), usd("0.015012345679"));
    assert!(bill.notes[0].contains("1 amounts came as floats"), "{:?}", bill.notes);
    let tokens =
        Tokens { input: 30, cache_read: 20, output: 100, reasoning: 25, ..Tokens::default() };
    assert_eq!((bill.usage[0].tokens, bill.usage[0].requests), (tokens, Some(5)));
    let [used, disabled] = &bill.credentials[..] else { panic!() };
    assert_eq!((used.hint.as_deref(), used.active), (Some("sk-or-v1-0e6...1c96"), true));
    assert_eq!((used.created, disabled.active), (Some(at("2026-08-24T10:30:00Z")), false));
}

#[test]
fn what_is_not_as_documented_is_an_error_that_names_it() {
    let (connector, days) = (offline(), days("2026-11-01", 2));
    for ((from, to), field, reason) in [
        (("0.015", "\"0.015\""), "data[0].usage", "text where a number"),
        (("\"usage\":0.015,", ""), "data[0]", "missing field `usage`"),
        (("0.012", "null"), "data[0].byok_usage_inference", "null"),
        (
            ("\"cached_tokens\":20", "\"cached_tokens\":51"),
            "data[0].cached_tokens",
            "more than the 50",
        ),
        (
            ("\"reasoning_tokens\":25", "\"reasoning_tokens\":126"),
            "data[0].reasoning_tokens",
            "more than the 125",
        ),
        (("\"requests\":5", "\"requests\":\"5\""), "data[0].requests", "invalid type"),
        (("2026-11-01", "2026-11-02"), "data[0].date", "2026-11-01 was asked for"),
        (("2026-11-01", "2026-11-03"), "data[0]", "was asked"),
        (("2026-11-01", "2026-11-01T00:00:00Z"), "data[0].date", "is no day"),
    ] {
        let (got_field, got_reason) = replaced(connector, days, &pages(), (from, to));
        assert!(
            got_field == field && got_reason.contains(reason),
            "{from}: {got_field} {got_reason}"
        );
    }
    for index in [0, 2] {
        refuses_bad_bodies(connector, days, &pages(), index);
    }
    for (missing, expect) in [(1, "missing in the pull"), (3, "more pages follow")] {
        let mut pages = pages();
        pages.remove(missing);
        assert!(unreadable(connector.read(days, &pages)).1.contains(expect));
    }
}

#[tokio::test]
async fn each_day_is_asked_for_and_keys_come_by_offset() {
    let server = MockServer::start().await;
    busy_once(&server, "GET", "/activity").await;
    answer(&server, "/activity", ("date", Some("2026-11-01")), FIRST).await;
    answer(&server, "/activity", ("date", Some("2026-11-02")), SECOND).await;
    answer(&server, "/keys", ("offset", Some("0")), KEYS_PAGE).await;
    answer(&server, "/keys", ("offset", Some("2")), NO_MORE).await;
    let days = days("2026-11-01", 2);
    let bill = pull(&connector(&server.uri()), days).await.unwrap();
    assert_eq!(bill, offline().read(days, &pages()).unwrap());
}

#[tokio::test]
async fn keys_that_ignore_the_offset_do_not_come_for_ever() {
    let server = MockServer::start().await;
    answer(&server, "/activity", ("date", Some("2026-11-01")), FIRST).await;
    Mock::given(method("GET"))
        .and(path("/keys"))
        .respond_with(ResponseTemplate::new(200).set_body_string(KEYS_PAGE))
        .expect(2)
        .mount(&server)
        .await;
    let (field, _) = unreadable(connector(&server.uri()).fetch(days("2026-11-01", 1)).await);
    assert_eq!(field, "next page");
}

#[tokio::test]
async fn activity_is_pulled_where_keys_may_not_be_listed() {
    let server = MockServer::start().await;
    answer(&server, "/activity", ("date", Some("2026-11-01")), FIRST).await;
    Mock::given(method("GET"))
        .and(path("/keys"))
        .respond_with(ResponseTemplate::new(401))
        .expect(1)
        .mount(&server)
        .await;
    let bill = pull(&connector(&server.uri()), days("2026-11-01", 1)).await.unwrap();
    assert_eq!(bill.lines.len(), 2);
    assert!(bill.notes[1].contains("could not be listed"), "{:?}", bill.notes);
}

proptest! {
    #[test]
    fn lines_always_add_up_to_their_source(
        rows in prop::collection::vec((0_i64..3, any::<i64>()), 0..30),
    ) {
        let days = days("2026-11-01", 3);
        let pages: Vec<_> = (0..3)
            .map(|day| {
                let date = Date::from_days(days.from.days() + day);
                let rows: Vec<_> = rows
                    .iter()
                    .filter(|(of, _)| *of == day)
                    .map(|(_, pico)| format!(
                        r#"{{"date":"{date}","model":"m","provider_name":"p","usage":{},
                        "byok_usage_inference":7.5,"requests":1,"prompt_tokens":1,"completion_tokens":1,
                        "reasoning_tokens":0,"cached_tokens":0}}"#,
                        Usd::from_pico(i128::from(*pico))
                    ))
                    .collect();
                page(&format!("activity/{date}"), format!(r#"{{"data":[{}]}}"#, rows.join(",")))
            })
            .collect();
        let bill = offline().read(days, &pages).unwrap();
        prop_assert_eq!(total(&bill).pico(), rows.iter().map(|(_, pico)| i128::from(*pico)).sum::<i128>());
    }
}
