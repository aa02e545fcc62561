use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::value::RawValue;
use tallygate_shared::money::Usd;
use tallygate_shared::tokens::{Calls, Tokens};
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::bill::{ChargeKind, Meter, Quantity};
use crate::connectors::testing::{
    self, answer, at, busy_once, days, page, pull, quick, refuses_bad_bodies, replaced, total,
    unreadable, usd,
};

const COSTS_1: &str = include_str!("../fixtures/openai/costs_1.json");
const COSTS_2: &str = include_str!("../fixtures/openai/costs_2.json");
const COSTS_BESIDE_USE: &str = include_str!("../fixtures/openai/costs_beside_use.json");
const COMPLETIONS: &str = include_str!("../fixtures/openai/usage_completions.json");
const OTHERS: &str = include_str!("../fixtures/openai/usage_others.json");
const PROJECTS_PAGE: &str = include_str!("../fixtures/openai/projects.json");
const KEYS_1: &str = include_str!("../fixtures/openai/api_keys_1.json");
const KEYS_2: &str = include_str!("../fixtures/openai/api_keys_2.json");

fn connector(base: &str) -> OpenAi {
    let settings: OpenAiSettings = serde_json::from_str(&format!(
        r#"{{"base_url":"{base}","account":"org-1","admin_key":"sk-admin-test"}}"#
    ))
    .unwrap();
    OpenAi::new(settings, quick()).unwrap()
}

/// For reading only. Made once: a client loads the system's certificates.
fn offline() -> &'static OpenAi {
    static OFFLINE: LazyLock<OpenAi> = LazyLock::new(|| connector("https://api.openai.com/v1"));
    &OFFLINE
}

fn others() -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(OTHERS).unwrap()
}

fn pages() -> Vec<RawPage> {
    let mut pages = vec![
        page("costs", COSTS_1),
        page("costs", COSTS_2),
        page("usage/completions", COMPLETIONS),
    ];
    pages.extend(others().iter().map(|(label, body)| page(label, body.get())));
    pages.extend([
        page("projects", PROJECTS_PAGE),
        page("projects/proj_x/api_keys", KEYS_1),
        page("projects/proj_x/api_keys", KEYS_2),
    ]);
    pages
}

#[test]
fn costs_keep_their_digits_labels_and_units() {
    let bill = offline().read(days("2026-11-01", 2), &pages()).unwrap();
    assert_eq!(bill.lines.len(), 4);
    assert!(bill.each_day, "it says of each day what it charges");
    let input = &bill.lines[0];
    assert_eq!((input.amount, input.meter), (usd("0.06"), Meter::Input));
    assert_eq!(input.model.as_deref(), Some("gpt-6-astra"));
    assert_eq!(input.quantity, Some(Quantity::whole(48_000)));
    assert_eq!(input.unit.as_deref(), Some("Tokens"));
    assert_eq!((input.start, input.end), (at("2026-11-01"), at("2026-11-02")));
    assert_eq!(input.project.as_deref(), Some("proj_x"));
    assert_eq!(input.credential.as_deref(), Some("key_a"));
    assert!(input.provisional);

    assert_eq!(bill.lines[1].unit.as_deref(), Some("1000 Tokens"));
    assert_eq!(bill.lines[1].quantity, Some(Quantity::parse("10.900365").unwrap()));

    let session = &bill.lines[2];
    assert_eq!((session.model.as_deref(), session.meter), (None, Meter::Whole));
    assert_eq!((session.quantity, session.tags["quantity_without_unit"].as_str()), (None, "2"));
    assert_eq!(session.tags["api_source"], "unlabeled");

    assert_eq!(bill.lines[3].kind, ChargeKind::Adjustment);
    assert_eq!(total(&bill), usd("0.180819383403"));
    assert!(bill.notes.iter().any(|note| note.contains("1 amounts came as floats")));
}

#[test]
fn costs_beside_use_are_told_by_their_labels() {
    let settings = OpenAiSettings { usage: Vec::new(), ..offline().settings.clone() };
    let connector = OpenAi { settings, ..offline().clone() };
    let pages = [
        page("costs", COSTS_BESIDE_USE),
        page("projects", PROJECTS_PAGE),
        page("projects/proj_x/api_keys", KEYS_1),
        page("projects/proj_x/api_keys", KEYS_2),
    ];
    let bill = connector.read(days("2026-11-03", 1), &pages).unwrap();
    let kinds: Vec<_> =
        bill.lines.iter().map(|line| (line.kind, line.amount, line.description.as_str())).collect();
    let expected = [
        (ChargeKind::Usage, "2", "gpt-6-astra, input"),
        (ChargeKind::Tax, "0.38", "Sales tax"),
        (ChargeKind::Tax, "-0.01", "Tax refund"),
        (ChargeKind::Credit, "-0.5", "Credit: promotional"),
        (ChargeKind::Adjustment, "0.25", "Credit: promotional"),
        (ChargeKind::Refund, "-0.125", "Refund for 2026-10"),
        (ChargeKind::Discount, "-0.2", "Volume discount"),
        (ChargeKind::MinimumFee, "10", "Minimum fee"),
        (ChargeKind::Adjustment, "0.000001", "Rounding"),
        // What is counted in units is use, whatever its label says.
        (ChargeKind::Usage, "0.04", "Agent credits"),
        (ChargeKind::Usage, "3", "ft:gpt-4o:tax::x1, training"),
        (ChargeKind::Usage, "1", ""),
    ];
    assert_eq!(kinds, expected.map(|(kind, amount, label)| (kind, usd(amount), label)));
    let beside: Vec<_> = bill.lines.iter().filter(|line| line.kind != ChargeKind::Usage).collect();
    assert!(beside.iter().all(|line| line.model.is_none() && line.meter == Meter::Whole));
}

#[test]
fn usage_is_taken_apart_into_buckets_that_add_up_to_the_totals() {
    let bill = offline().read(days("2026-11-01", 2), &pages()).unwrap();
    let by_model =
        |model: &str| bill.usage.iter().filter(|row| row.model == model).collect::<Vec<_>>();
    let [plain, batch, searched] = by_model("gpt-6-astra")[..] else { panic!() };
    let expect = Tokens {
        input: 47_000,
        input_audio: 900,
        input_image: 100,
        cache_read: 1_400,
        cache_read_audio: 70,
        cache_read_image: 30,
        cache_write_30m: 300,
        cache_write_12h: 200,
        output: 11_500,
        output_audio: 400,
        output_image: 100,
        ..Tokens::default()
    };
    assert_eq!(plain.tokens, expect);
    assert_eq!(plain.tokens.total(), 50_000 + 12_000);
    assert_eq!((plain.requests, plain.tier.as_deref()), (Some(31), Some("default")));
    assert_eq!(batch.tier.as_deref(), Some("batch"));
    assert_eq!(searched.calls, Calls { web_search: 9, ..Calls::default() });
    assert_eq!(searched.requests, None);
    assert_eq!(by_model("embed-4")[0].tokens.input, 700);
    assert_eq!(by_model("asr-2")[0].calls.audio_second, 61);
    assert_eq!(by_model("image-2")[0].requests, Some(2));
    for expect in ["3 images", "450 characters", "5 file searches", "2 sessions", "4096 bytes"] {
        assert!(bill.notes.iter().any(|note| note.contains(expect)), "{expect}: {:?}", bill.notes);
    }
    assert!(bill.notes.iter().any(|note| note.contains("1 rows of decisions")));
}

#[test]
fn keys_are_listed_with_their_project() {
    let bill = offline().read(days("2026-11-01", 2), &pages()).unwrap();
    let [a, b] = &bill.credentials[..] else { panic!() };
    assert_eq!((a.id.as_str(), a.project.as_deref()), ("key_a", Some("proj_x")));
    assert_eq!(a.hint.as_deref(), Some("sk-proj-...aaaa"));
    assert_eq!(a.last_used, Some(at("2026-11-01T00:01:40Z")));
    assert_eq!((b.name.as_deref(), b.last_used), (None, None));
}

#[test]
fn what_is_not_as_documented_is_an_error_that_names_it() {
    let (connector, days, pages) = (offline(), days("2026-11-01", 2), pages());
    for ((from, to), field, reason) in [
        (("\"usd\"", "\"eur\""), "data[0].results[0].amount.currency", "`eur`"),
        (("0.06", "\"0.06\""), "data[0].results[0].amount.value", "text where a number"),
        (("0.06", "null"), "data[0].results[0].amount.value", "null"),
        (("\"value\":0.06,", ""), "data[0].results[0].amount", "missing field `value`"),
        (("\"amount\":{\"value\":0.06,\"currency\":\"usd\"},", ""), "data[0].results[0]", "amount"),
        (("\"tokens\"", "\"megatokens\""), "data[0].results[0].quantity_unit", "megatokens"),
        (("1793491200", "1793404800"), "data[0]", "2026-11-01..2026-11-03 was asked"),
        (("1793664000", "1793667600"), "data[0]", "was asked"),
        (("1793491200", "\"1793491200\""), "data[0].start_time", "invalid type"),
        (("\"page_AAAA\"", "null"), "next_page", "missing"),
        (
            ("\"input_cached_tokens\":1500", "\"input_cached_tokens\":50001"),
            "data[0].results[0].input_tokens",
            "less than",
        ),
        (
            ("\"input_audio_tokens\":900", "\"input_audio_tokens\":99000"),
            "data[0].results[0].input_tokens",
            "less than",
        ),
        (
            ("\"output_audio_tokens\":400", "\"output_audio_tokens\":12001"),
            "data[0].results[0].output_tokens",
            "less than",
        ),
        (
            ("_30m_tokens\":300", "_30m_tokens\":301"),
            "data[0].results[0].input_cache_write_30m_tokens",
            "more than",
        ),
        (
            ("\"input_tokens\":50000", "\"input_tokens\":\"50000\""),
            "data[0].results[0].input_tokens",
            "invalid type",
        ),
        (("\"input_tokens\":50000,", ""), "data[0].results[0].input_tokens", "missing"),
        (
            ("\"num_model_requests\":31,\"model\":\"gpt-6-astra\"", "\"num_model_requests\":31"),
            "data[0].results[0].model",
            "missing",
        ),
        (("\"id\":\"proj_x\"", "\"id\":\"../admin\""), "data[0].id", "no id"),
    ] {
        let (got_field, got_reason) = replaced(connector, days, &pages, (from, to));
        assert!(
            got_field == field && got_reason.contains(reason),
            "{from}: {got_field} {got_reason}"
        );
    }
    for index in [0, 2, pages.len() - 3, pages.len() - 1] {
        refuses_bad_bodies(connector, days, &pages, index);
    }
}

#[test]
fn missing_repeated_and_foreign_pages_are_errors() {
    let (connector, days) = (offline(), days("2026-11-01", 2));
    for (broken, expect) in [
        (vec![page("costs", COSTS_1)], "more pages follow"),
        (vec![page("usage/completions", COMPLETIONS)], "missing in the pull"),
        (vec![page("costs", COSTS_2), page("costs", COSTS_1)], "after its last page"),
        (vec![page("costs", COSTS_1), page("costs", COSTS_1)], "second time"),
        (vec![page("costs", COSTS_2), page("projects", PROJECTS_PAGE)], "missing in the pull"),
        // Days on which nothing was used have empty buckets.
        (vec![page("costs", COSTS_2)], "does not have 2026-11-01"),
        (vec![page("costs", NOTHING)], "does not have 2026-11-01"),
        (
            vec![page("costs", both_days()), page("usage/embeddings", NOTHING)],
            "not have 2026-11-01",
        ),
        (vec![page("costs", COSTS_2), page("invoices", "{}")], "no answer that"),
    ] {
        let (field, reason) = unreadable(connector.read(days, &broken));
        assert!(reason.contains(expect), "{field} {reason}");
    }
    let idle = NOTHING
        .replace("[]", "[{\"start_time\":1793491200,\"end_time\":1793577600,\"results\":[]}]");
    let without_rows = [page("costs", idle), page("usage/decisions", NOTHING)];
    assert_eq!(connector.read(testing::days("2026-11-01", 1), &without_rows).unwrap().lines, []);
    // Half of a day is not the day.
    let half = COSTS_2.replace("1793664000", "1793620800").replace("1793577600", "1793600000");
    let (field, reason) =
        unreadable(connector.read(testing::days("2026-11-02", 1), &[page("costs", half)]));
    assert!(field == "data" && reason.contains("does not have 2026-11-02"), "{field} {reason}");
}

const NOTHING: &str = r#"{"data":[],"has_more":false,"next_page":null}"#;

/// The costs of both days on one page.
fn both_days() -> String {
    let (first, second) = (COSTS_1.trim_end(), COSTS_2.split_once("\"data\":[").unwrap().1);
    let first =
        first.strip_suffix("]}").unwrap().replace("true,\"next_page\":\"page_AAAA\"", "false");
    format!("{first},{second}")
}

#[test]
fn a_count_that_does_not_add_up_is_noted() {
    let changed =
        COMPLETIONS.replace("\"input_uncached_tokens\":48000", "\"input_uncached_tokens\":47999");
    let pages = [page("costs", both_days()), page("usage/completions", changed)];
    let bill = offline().read(days("2026-11-01", 2), &pages).unwrap();
    assert!(bill.notes[1].contains("in 1 rows `input_uncached_tokens`"), "{:?}", bill.notes);
}

#[tokio::test]
async fn pages_are_followed_with_the_same_parameters_after_a_wait() {
    let server = MockServer::start().await;
    busy_once(&server, "GET", "/v1/organization/costs").await;
    for (cursor, body) in [(None, COSTS_1), (Some("page_AAAA"), COSTS_2)] {
        answer(&server, "/v1/organization/costs", ("page", cursor), body).await;
    }
    answer(&server, "/v1/organization/usage/completions", ("page", None), COMPLETIONS).await;
    for (label, body) in &others() {
        answer(&server, &format!("/v1/organization/{label}"), ("page", None), body.get()).await;
    }
    answer(&server, "/v1/organization/projects", ("after", None), PROJECTS_PAGE).await;
    let keys = "/v1/organization/projects/proj_x/api_keys";
    answer(&server, keys, ("after", None), KEYS_1).await;
    answer(&server, keys, ("after", Some("key_a")), KEYS_2).await;

    let connector = connector(&format!("{}/v1", server.uri()));
    let days = days("2026-11-01", 2);
    let bill = pull(&connector, days).await.unwrap();
    // The order of the kinds is the fixture's, not the server's.
    let expect = offline().read(days, &pages()).unwrap();
    assert_eq!((bill.lines, bill.credentials), (expect.lines, expect.credentials));
    assert_eq!(bill.usage.len(), expect.usage.len());

    let asked = server.received_requests().await.unwrap();
    let costs: Vec<_> = asked.iter().filter(|one| one.url.path().ends_with("/costs")).collect();
    assert_eq!(costs.len(), 3);
    let first = costs[0].url.query().unwrap();
    assert_eq!(
        first,
        "start_time=1793491200&end_time=1793664000&bucket_width=1d&limit=180\
         &group_by%5B%5D=project_id&group_by%5B%5D=line_item&group_by%5B%5D=api_key_id"
    );
    assert_eq!(costs[2].url.query().unwrap(), format!("{first}&page=page_AAAA"));
    assert!(asked.iter().all(|one| one.headers["authorization"] == "Bearer sk-admin-test"));
}

#[tokio::test]
async fn a_repeated_cursor_and_a_refused_key_end_the_pull() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/v1/organization/costs"))
        .and(header("authorization", "Bearer sk-admin-test"))
        .respond_with(ResponseTemplate::new(200).set_body_string(COSTS_1))
        .expect(2)
        .mount(&server)
        .await;
    let days = days("2026-11-01", 2);
    let connector = connector(&format!("{}/v1", server.uri()));
    let (field, reason) = unreadable(connector.fetch(days).await);
    assert!(field == "next page" && reason.contains("circle"), "{field} {reason}");

    server.reset().await;
    Mock::given(method("GET"))
        .and(query_param("bucket_width", "1d"))
        .respond_with(ResponseTemplate::new(401))
        .expect(1)
        .mount(&server)
        .await;
    let refused = connector.fetch(days).await.unwrap_err();
    assert!(matches!(refused, PullError::Refused { .. }), "{refused}");
    assert!(!format!("{refused} {connector:?}").contains("sk-admin"));
}

#[tokio::test]
async fn costs_are_pulled_where_keys_may_not_be_listed() {
    let server = MockServer::start().await;
    answer(&server, "/organization/costs", ("page", None), COSTS_2).await;
    answer(&server, "/organization/projects", ("after", None), PROJECTS_PAGE).await;
    Mock::given(method("GET"))
        .and(path("/organization/projects/proj_x/api_keys"))
        .respond_with(ResponseTemplate::new(403))
        .expect(1)
        .mount(&server)
        .await;
    let settings = OpenAiSettings { usage: Vec::new(), ..connector(&server.uri()).settings };
    let connector = OpenAi::new(settings, quick()).unwrap();
    let bill = pull(&connector, days("2026-11-02", 1)).await.unwrap();
    assert_eq!((bill.lines.len(), bill.credentials.len()), (1, 0));
    assert!(bill.notes[0].contains("could not be listed"), "{:?}", bill.notes);
}

#[tokio::test]
async fn an_unreadable_answer_is_kept_for_people_and_read_as_an_error() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(ResponseTemplate::new(200).set_body_string("<html>maintenance</html>"))
        .mount(&server)
        .await;
    let connector = connector(&server.uri());
    let days = days("2026-11-01", 2);
    let pages = connector.fetch(days).await.unwrap();
    assert_eq!(pages[0].body, "<html>maintenance</html>");
    assert!(unreadable(connector.read(days, &pages)).1.contains("HTML"));
}

proptest! {
    #[test]
    fn lines_always_add_up_to_their_source_whatever_the_split(
        amounts in prop::collection::vec((0_i64..6, any::<i64>()), 0..40),
        cuts in prop::collection::vec(any::<bool>(), 6),
    ) {
        let mut written = vec![Vec::new()];
        for (day, cut) in cuts.iter().enumerate() {
            let rows: Vec<_> = amounts
                .iter()
                .filter(|(of, _)| *of == day as i64)
                .map(|(_, pico)| Usd::from_pico(i128::from(*pico) * 1_000_003))
                .map(|usd| format!(r#"{{"amount":{{"value":{usd},"currency":"usd"}}}}"#))
                .collect();
            let start = 1_793_491_200 + day * 86_400;
            written.last_mut().unwrap().push(format!(
                r#"{{"start_time":{start},"end_time":{},"results":[{}]}}"#,
                start + 86_400,
                rows.join(",")
            ));
            if *cut {
                written.push(Vec::new());
            }
        }
        let last = written.len() - 1;
        let pages: Vec<_> = written
            .iter()
            .enumerate()
            .map(|(at, buckets)| {
                page("costs", format!(
                    r#"{{"has_more":{},"next_page":"p{at}","data":[{}]}}"#,
                    at < last,
                    buckets.join(",")
                ))
            })
            .collect();
        let bill = offline().read(days("2026-11-01", 6), &pages).unwrap();
        let expect: i128 = amounts.iter().map(|(_, pico)| i128::from(*pico) * 1_000_003).sum();
        prop_assert_eq!(total(&bill).pico(), expect);
        prop_assert_eq!(bill.lines.len(), amounts.len());
        prop_assert!(bill.notes.iter().all(|note| !note.contains("rounded")));
    }

    #[test]
    fn tokens_never_count_twice(
        parts in prop::array::uniform8(0_u64..1_000_000),
        output in prop::array::uniform3(0_u64..1_000_000),
    ) {
        let [text, audio, image, read, read_audio, read_image, short, long] = parts;
        let body = format!(
            r#"{{"has_more":false,"data":[{{"start_time":1793491200,"end_time":1793577600,"results":[{{
                "input_tokens":{},"input_cached_tokens":{},"input_cache_write_tokens":{},
                "input_cache_write_12h_tokens":{long},"input_audio_tokens":{audio},
                "input_image_tokens":{image},"input_cached_audio_tokens":{read_audio},
                "input_cached_image_tokens":{read_image},"output_tokens":{},
                "output_audio_tokens":{},"output_image_tokens":{},"num_model_requests":1,
                "model":"m"}}]}}]}}"#,
            parts.iter().sum::<u64>(),
            read + read_audio + read_image,
            short + long,
            output.iter().sum::<u64>(),
            output[1],
            output[2],
        );
        let costs = COSTS_1.replace("true,\"next_page\":\"page_AAAA\"", "false");
        let pages = [page("costs", costs), page("usage/completions", body)];
        let bill = offline().read(days("2026-11-01", 1), &pages).unwrap();
        let tokens = bill.usage[0].tokens;
        prop_assert_eq!((tokens.input, tokens.cache_read, tokens.cache_write_30m), (text, read, short));
        prop_assert_eq!(tokens.output, output[0]);
        prop_assert_eq!(tokens.total(), parts.iter().chain(&output).sum::<u64>());
    }
}
