use std::sync::LazyLock;

use proptest::prelude::*;
use tallygate_shared::tokens::{Calls, Tokens};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::connectors::testing::{
    answer, at, busy_once, days, page, pull, quick, refuses_bad_bodies, replaced, total,
    unreadable, usd,
};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../fixtures/anthropic/", $name, ".json"))
    };
}

fn connector(base: &str, report: &str) -> Anthropic {
    let settings: AnthropicSettings = serde_json::from_str(&format!(
        r#"{{"base_url":"{base}","account":"org-1","admin_key":"sk-ant-admin01-test","report":"{report}"}}"#
    ))
    .unwrap();
    Anthropic::new(settings, quick()).unwrap()
}

fn older() -> &'static Anthropic {
    static OFFLINE: LazyLock<Anthropic> =
        LazyLock::new(|| connector("https://api.anthropic.com", "legacy"));
    &OFFLINE
}

fn newer() -> &'static Anthropic {
    static OFFLINE: LazyLock<Anthropic> =
        LazyLock::new(|| connector("https://api.anthropic.com", "analytics"));
    &OFFLINE
}

fn keys() -> [RawPage; 2] {
    [page("api_keys", fixture!("api_keys_1")), page("api_keys", fixture!("api_keys_2"))]
}

fn older_pages() -> Vec<RawPage> {
    let mut pages = vec![
        page("cost_report", fixture!("cost_report_1")),
        page("cost_report", fixture!("cost_report_2")),
        page("usage_report/messages", fixture!("usage_report")),
    ];
    pages.extend(keys());
    pages
}

fn newer_pages() -> Vec<RawPage> {
    let mut pages = vec![
        page("analytics/cost/2026-11-01", fixture!("analytics_cost_1")),
        page("analytics/cost/2026-11-01", fixture!("analytics_cost_2")),
        page("analytics/usage/2026-11-01", fixture!("analytics_usage")),
    ];
    pages.extend(keys());
    pages
}

#[test]
fn the_older_report_is_in_cents_and_names_what_is_counted() {
    let bill = older().read(days("2026-11-01", 2), &older_pages()).unwrap();
    let [input, write, search, code] = &bill.lines[..] else { panic!() };
    assert_eq!(input.amount, usd("1.2378912"));
    assert_eq!(input.meter, Meter::Input);
    assert_eq!(input.project.as_deref(), Some("default"));
    assert_eq!(input.model.as_deref(), Some("claude-sonnet-4-20250514"));
    assert_eq!((input.start, input.end), (at("2026-11-01"), at("2026-11-02")));
    assert_eq!(input.tags["context_window"], "0-200k");
    assert_eq!((write.amount, write.meter), (usd("0.000000375"), Meter::CacheWrite));
    assert_eq!(
        (write.project.as_deref(), write.tier.as_deref()),
        (Some("wrkspc_1"), Some("batch"))
    );
    assert_eq!((search.amount, search.meter), (usd("0.04"), Meter::Calls));
    assert_eq!((code.meter, code.kind), (Meter::Whole, ChargeKind::Adjustment));
    assert_eq!(total(&bill), usd("1.272891575"));

    let used = &bill.usage[0];
    let tokens = Tokens {
        input: 1_500,
        cache_read: 200,
        cache_write_5m: 30,
        cache_write_1h: 40,
        output: 500,
        ..Tokens::default()
    };
    assert_eq!((used.tokens, used.calls), (tokens, Calls { web_search: 10, ..Calls::default() }));
    assert_eq!(used.credential.as_deref(), Some("apikey_1"));
    // The Console has no key.
    assert_eq!(bill.usage[1].credential, None);
    assert!(bill.notes[0].contains("Priority Tier"), "{:?}", bill.notes);
    assert!(!bill.each_day, "a day of Priority Tier alone has charges that it leaves out");
    let used = |page: &RawPage| page.label == super::legacy::USAGE;
    let mut pages = older_pages();
    for page in pages.iter_mut().filter(|page| used(page)) {
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        page.body = text.replace("\"priority", "\"standard").into();
    }
    assert!(older().read(days("2026-11-01", 2), &pages).unwrap().each_day);
}

#[test]
fn the_newer_report_names_keys_and_list_prices_and_what_may_change() {
    let bill = newer().read(days("2026-11-01", 2), &newer_pages()).unwrap();
    let [output, session] = &bill.lines[..] else { panic!() };
    assert_eq!((output.amount, output.list_amount), (usd("0.9025"), Some(usd("1.002777777777"))));
    assert_eq!((output.meter, output.credential.as_deref()), (Meter::Output, Some("apikey_1")));
    assert_eq!(output.description, "claude-opus-5, tokens, output_tokens");
    assert!(!output.provisional);
    assert_eq!((session.amount, session.meter), (usd("0.01000000001"), Meter::Whole));
    assert!(session.provisional);
    assert_eq!(bill.complete_until, Some(at("2026-11-02T23:10:00Z")));
    assert_eq!((bill.usage[0].requests, bill.usage[0].tokens.total()), (Some(5), 87));
    assert_eq!(bill.notes, Vec::<String>::new());
}

#[test]
fn each_type_of_cost_has_its_meter() {
    let reader = Reader::new(NAME, "cost_report");
    for (cost, token, expect) in [
        ("tokens", Some("uncached_input_tokens"), Meter::Input),
        ("tokens", Some("output_tokens"), Meter::Output),
        ("tokens", Some("cache_read_input_tokens"), Meter::CacheRead),
        ("tokens", Some("cache_creation.ephemeral_5m_input_tokens"), Meter::CacheWrite),
        ("tokens", Some("cache_creation.ephemeral_1h_input_tokens"), Meter::CacheWrite),
        ("web_search", None, Meter::Calls),
        ("code_execution", None, Meter::Whole),
        ("session_usage", None, Meter::Whole),
    ] {
        assert_eq!(meter(&reader, "row", Some(cost), token), Ok(expect), "{cost} {token:?}");
    }
    assert_eq!(unreadable(meter(&reader, "row", None, Some("output_tokens"))).0, "row.cost_type");
}

#[test]
fn rows_that_end_when_the_report_was_refreshed_are_complete() {
    let refreshed = |at: &str| {
        let mut pages = newer_pages();
        let first = fixture!("analytics_cost_1").replace("2026-11-03T04:00:00Z", at);
        pages[0] = page("analytics/cost/2026-11-01", first);
        newer().read(days("2026-11-01", 2), &pages).unwrap().lines[0].provisional
    };
    assert!(!refreshed("2026-11-02T00:00:00Z"));
    assert!(refreshed("2026-11-01T23:59:59.999Z"));
}

#[test]
fn keys_are_listed_with_their_status() {
    let bill = older().read(days("2026-11-01", 2), &older_pages()).unwrap();
    let [used, archived] = &bill.credentials[..] else { panic!() };
    assert_eq!((used.id.as_str(), used.active), ("apikey_1", true));
    assert_eq!(used.created, Some(at("2026-01-30T23:58:27.427Z")));
    assert_eq!((archived.project.as_deref(), archived.active), (Some("default"), false));
}

#[test]
fn what_is_not_as_documented_is_an_error_that_names_it() {
    let days = days("2026-11-01", 2);
    for ((from, to), field, reason) in [
        (("\"USD\"", "\"EUR\""), "data[0].results[0].currency", "`EUR`"),
        (
            ("\"123.78912\"", "123.78912"),
            "data[0].results[0].amount",
            "a number where decimal text",
        ),
        (("\"123.78912\"", "null"), "data[0].results[0].amount", "null"),
        (("\"amount\":\"123.78912\",", ""), "data[0].results[0]", "missing field `amount`"),
        (("\"123.78912\"", "\"1.00000000001\""), "data[0].results[0].amount", "12 decimal places"),
        (
            ("\"uncached_input_tokens\"", "\"thinking_tokens\""),
            "data[0].results[0].token_type",
            "`thinking_tokens`",
        ),
        (("\"uncached_input_tokens\"", "null"), "data[0].results[0].token_type", "missing"),
        (("\"web_search\"", "\"video\""), "data[0].results[0].cost_type", "`video`"),
        (("\"web_search\"", "null"), "data[0].results[0].cost_type", "missing"),
        (("2026-11-01T00:00:00Z", "2026-10-31T00:00:00Z"), "data[0]", "was asked"),
        (("2026-11-01T00:00:00Z", "2026-11-01T00:00:00+02:00"), "data[0].starting_at", "RFC 3339"),
        (("\"page_2\"", "null"), "next_page", "missing"),
        (
            ("\"output_tokens\":500", "\"output_tokens\":\"500\""),
            "data[0].results[0].output_tokens",
            "invalid type",
        ),
        (("\"output_tokens\":500,", ""), "data[0].results[0]", "missing field `output_tokens`"),
        (("\"last_id\":\"apikey_1\"", "\"last_id\":null"), "last_id", "missing"),
    ] {
        let (got_field, got_reason) = replaced(older(), days, &older_pages(), (from, to));
        assert!(
            got_field == field && got_reason.contains(reason),
            "{from}: {got_field} {got_reason}"
        );
    }
    for ((from, to), field, reason) in [
        (("\"USD\"", "\"GBP\""), "data[0].cost.currency", "`GBP`"),
        (("\"90.25\"", "90.25"), "data[0].cost.amount", "a number where decimal text"),
        (("\"list_amount\":\"100.2777777777\",", ""), "data[0].cost", "list_amount"),
        (("\"session_usage\"", "\"seat\""), "data[0].group.cost_type", "`seat`"),
        (
            ("\"token_type\":\"output_tokens\"", "\"token_type\":\"dreams\""),
            "data[0].group.token_type",
            "`dreams`",
        ),
        (
            ("2026-11-02T00:00:00Z\",\n", "2026-11-03T00:00:00Z\",\n"),
            "data[0]",
            "longer than its day",
        ),
        (
            (",\"data_refreshed_at\":\"2026-11-03T04:00:00Z\"", ""),
            "the answer",
            "data_refreshed_at",
        ),
    ] {
        let (got_field, got_reason) = replaced(newer(), days, &newer_pages(), (from, to));
        assert!(
            got_field == field && got_reason.contains(reason),
            "{from}: {got_field} {got_reason}"
        );
    }
    for index in [0, 2, 4] {
        refuses_bad_bodies(older(), days, &older_pages(), index);
        refuses_bad_bodies(newer(), days, &newer_pages(), index);
    }
}

#[test]
fn rows_that_come_twice_and_runs_that_are_missing_are_errors() {
    let mut pages = newer_pages();
    let again = fixture!("analytics_cost_1").replace("page_b", "page_c");
    pages.insert(1, page("analytics/cost/2026-11-01", again));
    let (field, reason) = unreadable(newer().read(days("2026-11-01", 2), &pages));
    assert!(field == "data[0]" && reason.contains("second time"), "{field} {reason}");
    // 40 days are asked for in two runs.
    let (_, reason) = unreadable(newer().read(days("2026-11-01", 40), &newer_pages()));
    assert!(reason.contains("missing in the pull"), "{reason}");
    let twice = [page("cost_report", fixture!("cost_report_1")); 1];
    let twice = [twice.clone(), twice].concat();
    let (_, reason) = unreadable(older().read(days("2026-11-01", 2), &twice));
    assert!(reason.contains("second time"), "{reason}");
}

#[test]
fn an_answer_that_lacks_a_day_is_no_bill() {
    let none = idle(0);
    for (costs, usage, label, day) in [
        (none.clone(), fixture!("usage_report").to_owned(), "cost_report", "2026-11-01"),
        (fixture!("cost_report_2").into(), fixture!("usage_report").into(), "cost_report", "-01"),
        (idle(2), none.clone(), "usage_report/messages", "2026-11-01"),
    ] {
        let pages = [page("cost_report", costs), page("usage_report/messages", usage)];
        let error = older().read(days("2026-11-01", 2), &pages).unwrap_err().to_string();
        let named = error.contains("anthropic") && error.contains(label) && error.contains(day);
        assert!(named && error.contains("does not have"), "{error}");
    }
    let mut half = older_pages();
    half[1] = page(
        "cost_report",
        fixture!("cost_report_2").replace("2026-11-02T00:00:00Z", "2026-11-02T12:00:00Z"),
    );
    let error = older().read(days("2026-11-01", 2), &half).unwrap_err().to_string();
    assert!(error.contains("does not have 2026-11-02"), "{error}");
    // Days on which nothing was used have empty buckets, or no rows in the newer report.
    let pages = [page("cost_report", idle(2)), page("usage_report/messages", idle(2))];
    assert_eq!(older().read(days("2026-11-01", 2), &pages).unwrap().lines, []);
    let none = none.replace('{', "{\"data_refreshed_at\":\"2026-11-03T00:00:00Z\",");
    let pages = [page("analytics/cost/2026-11-01", none)];
    assert_eq!(newer().read(days("2026-11-01", 2), &pages).unwrap().lines, []);
}

/// November's first days without anything.
fn idle(days: u8) -> String {
    let buckets: Vec<_> = (1..=days)
        .map(|day| {
            format!(
                r#"{{"starting_at":"2026-11-{day:02}T00:00:00Z","ending_at":"2026-11-{:02}T00:00:00Z","results":[]}}"#,
                day + 1
            )
        })
        .collect();
    format!(r#"{{"data":[{}],"has_more":false,"next_page":null}}"#, buckets.join(","))
}

#[test]
fn runs_of_days_fit_the_report() {
    let lengths = |count| -> Vec<i64> {
        let parts = parts(days("2026-10-01", count));
        assert!(parts.windows(2).all(|pair| pair[0].to == pair[1].from));
        parts.iter().map(|part| part.to.days() - part.from.days()).collect()
    };
    assert_eq!((lengths(0), lengths(31), lengths(64)), (vec![], vec![31], vec![31, 31, 2]));
}

#[tokio::test]
async fn both_reports_are_pulled_page_by_page() {
    let server = MockServer::start().await;
    let root = "/v1/organizations";
    busy_once(&server, "GET", &format!("{root}/cost_report")).await;
    for (path, parameter, cursor, body) in [
        ("cost_report", "page", None, fixture!("cost_report_1")),
        ("cost_report", "page", Some("page_2"), fixture!("cost_report_2")),
        ("usage_report/messages", "page", None, fixture!("usage_report")),
        ("analytics/cost", "page", None, fixture!("analytics_cost_1")),
        ("analytics/cost", "page", Some("page_b"), fixture!("analytics_cost_2")),
        ("analytics/usage", "page", None, fixture!("analytics_usage")),
        ("api_keys", "after_id", None, fixture!("api_keys_1")),
        ("api_keys", "after_id", Some("apikey_1"), fixture!("api_keys_2")),
    ] {
        answer(&server, &format!("{root}/{path}"), (parameter, cursor), body).await;
    }
    let days = days("2026-11-01", 2);
    let bill = pull(&connector(&server.uri(), "legacy"), days).await.unwrap();
    assert_eq!(bill, older().read(days, &older_pages()).unwrap());
    let bill = pull(&connector(&server.uri(), "analytics"), days).await.unwrap();
    assert_eq!(bill, newer().read(days, &newer_pages()).unwrap());

    let asked = server.received_requests().await.unwrap();
    assert_eq!(
        asked[0].url.query().unwrap(),
        "starting_at=2026-11-01T00%3A00%3A00.000Z&ending_at=2026-11-03T00%3A00%3A00.000Z\
         &bucket_width=1d&limit=31&group_by%5B%5D=workspace_id&group_by%5B%5D=description"
    );
    for request in &asked {
        assert_eq!(request.headers["x-api-key"], "sk-ant-admin01-test");
        assert_eq!(request.headers["anthropic-version"], "2023-06-01");
        let beta = request.headers.contains_key("anthropic-beta");
        assert!(beta || !request.url.path().contains("analytics"));
    }
}

#[tokio::test]
async fn costs_are_pulled_where_keys_may_not_be_listed() {
    let server = MockServer::start().await;
    let root = "/v1/organizations";
    let costs = [(None, fixture!("cost_report_1")), (Some("page_2"), fixture!("cost_report_2"))];
    for (cursor, body) in costs {
        answer(&server, &format!("{root}/cost_report"), ("page", cursor), body).await;
    }
    answer(
        &server,
        &format!("{root}/usage_report/messages"),
        ("page", None),
        fixture!("usage_report"),
    )
    .await;
    Mock::given(method("GET"))
        .and(path(format!("{root}/api_keys")))
        .respond_with(ResponseTemplate::new(403))
        .expect(1)
        .mount(&server)
        .await;
    let bill = pull(&connector(&server.uri(), "legacy"), days("2026-11-01", 2)).await.unwrap();
    assert_eq!(bill.lines.len(), 4);
    assert!(bill.notes[1].contains("could not be listed"), "{:?}", bill.notes);
}

proptest! {
    #[test]
    fn lines_of_the_older_report_always_add_up_whatever_the_split(
        picos in prop::collection::vec((0_i64..9, any::<i64>()), 0..40),
        per_page in 1_usize..9,
    ) {
        let buckets: Vec<_> = (0..9)
            .map(|day| {
                let rows: Vec<_> = picos
                    .iter()
                    .filter(|(of, _)| *of == day)
                    .map(|(_, pico)| format!(
                        r#"{{"currency":"USD","amount":"{}","cost_type":"tokens","token_type":"output_tokens"}}"#,
                        Usd::from_pico(i128::from(*pico) * 100)
                    ))
                    .collect();
                format!(
                    r#"{{"starting_at":"2026-11-{:02}T00:00:00Z","ending_at":"2026-11-{:02}T00:00:00Z","results":[{}]}}"#,
                    day + 1,
                    day + 2,
                    rows.join(",")
                )
            })
            .collect();
        let parts: Vec<_> = buckets.chunks(per_page).collect();
        let mut pages: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(at, buckets)| {
                page("cost_report", format!(
                    r#"{{"data":[{}],"has_more":{},"next_page":"p{at}"}}"#,
                    buckets.join(","),
                    at + 1 < parts.len()
                ))
            })
            .collect();
        pages.push(page("usage_report/messages", idle(9)));
        let bill = older().read(days("2026-11-01", 9), &pages).unwrap();
        prop_assert_eq!(total(&bill).pico(), picos.iter().map(|(_, pico)| i128::from(*pico)).sum::<i128>());
        prop_assert_eq!(bill.lines.len(), picos.len());
    }
}

proptest! {
    #[test]
    fn lines_always_add_up_to_their_source_whatever_the_split(
        picos in prop::collection::vec(any::<i64>(), 1..40),
        per_page in 1_usize..12,
    ) {
        // In the newer report rows are split anywhere. A cent at ten decimals is a dollar at twelve.
        let rows: Vec<_> = picos
            .iter()
            .enumerate()
            .map(|(at, pico)| {
                let cents = format!(
                    "{}{}.{:010}",
                    if *pico < 0 { "-" } else { "" },
                    pico.unsigned_abs() / 10_000_000_000,
                    pico.unsigned_abs() % 10_000_000_000
                );
                format!(
                    r#"{{"starting_at":"2026-11-01T00:00:00Z","ending_at":"2026-11-02T00:00:00Z",
                    "group":{{"api_key_id":"k{at}","cost_type":"code_execution"}},
                    "cost":{{"amount":"{cents}","list_amount":"0","currency":"USD"}}}}"#
                )
            })
            .collect();
        let parts: Vec<_> = rows.chunks(per_page).collect();
        let pages: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(at, rows)| {
                page("analytics/cost/2026-11-01", format!(
                    r#"{{"data":[{}],"has_more":{},"next_page":"p{at}","data_refreshed_at":"2026-11-03T00:00:00Z"}}"#,
                    rows.join(","),
                    at + 1 < parts.len()
                ))
            })
            .collect();
        let bill = newer().read(days("2026-11-01", 2), &pages).unwrap();
        prop_assert_eq!(total(&bill).pico(), picos.iter().map(|pico| i128::from(*pico)).sum::<i128>());
        prop_assert_eq!(bill.lines.len(), picos.len());
    }
}
