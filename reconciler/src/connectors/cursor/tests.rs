use wiremock::matchers::{body_partial_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::super::testing::{
    at, busy_once, days, page, pull, quick, refuses_bad_bodies, replaced, total, unreadable, usd,
};
use super::*;

// 2026-11-18T00:00:00Z is 1794960000000.
const FIRST: &str = r#"{"totalUsageEventsCount":5,"pagination":{"numPages":2,"currentPage":1,"pageSize":3,
 "hasNextPage":true,"hasPreviousPage":false},"usageEvents":[
 {"timestamp":"1794960000000","userEmail":"ann@example.com","model":"claude-sonnet-4-6","kind":"Usage-based",
  "maxMode":true,"requestsCosts":2,"isTokenBasedCall":true,"isChargeable":true,"isHeadless":false,
  "tokenUsage":{"inputTokens":1000,"outputTokens":200,"cacheWriteTokens":30,"cacheReadTokens":4,"totalCents":1.25},
  "chargedCents":1.5,"cursorTokenFeeCents":0.25},
 {"timestamp":"1794960000500","userEmail":"ann@example.com","model":"claude-sonnet-4-6","kind":"Usage-based",
  "isChargeable":true,"chargedCents":4},
 {"timestamp":"1794960001000","userEmail":"bob@example.com","model":"gpt-5","kind":"Included in Business",
  "isChargeable":true,"tokenUsage":{"inputTokens":10,"outputTokens":2,"totalCents":0.7},"chargedCents":0.7}]}"#;
const SECOND: &str = r#"{"totalUsageEventsCount":5,"pagination":{"numPages":2,"currentPage":2,"pageSize":3,
 "hasNextPage":false,"hasPreviousPage":true},"usageEvents":[
 {"timestamp":"1794960000500","userEmail":"ann@example.com","model":"claude-sonnet-4-6","kind":"Usage-based",
  "isChargeable":true,"chargedCents":4},
 {"timestamp":"1794960002000","userEmail":"bob@example.com","model":"gpt-5","kind":"Errored, Not Charged",
  "isChargeable":false},
 {"timestamp":"1795046400000","userEmail":"bob@example.com","model":"gpt-5","kind":"Usage-based",
  "isChargeable":true,"chargedCents":900}]}"#;
const MEMBERS: &str = r#"{"subscriptionCycleStart":1793923200000,"totalMembers":2,"totalPages":1,"teamMemberSpend":[
 {"email":"ann@example.com","spendCents":2505.5,"includedSpendCents":2000,"fastPremiumRequests":1},
 {"email":"bob@example.com","spendCents":100,"includedSpendCents":100,"hardLimitOverrideDollars":0}]}"#;

fn connector(base_url: &str) -> Cursor {
    let settings = serde_json::json!({"base_url": base_url, "account": "team-1", "api_key": "key"});
    Cursor::new(serde_json::from_value(settings).unwrap(), quick()).unwrap()
}

fn pages() -> Vec<RawPage> {
    vec![page(EVENTS, FIRST), page(EVENTS, SECOND), page(SPEND, MEMBERS)]
}

#[tokio::test]
async fn pages_are_asked_for_by_number() {
    let server = MockServer::start().await;
    busy_once(&server, "POST", "/teams/spend").await;
    let window = json!({"startDate": 1_794_960_000_000_i64, "endDate": 1_795_046_400_000_i64});
    for (at, number, body) in [(EVENTS, 1, FIRST), (EVENTS, 2, SECOND), (SPEND, 1, MEMBERS)] {
        let mut question = if at == EVENTS { window.clone() } else { json!({}) };
        question["page"] = json!(number);
        question["pageSize"] = json!(100);
        Mock::given(method("POST"))
            .and(path(format!("/teams/{at}")))
            .and(header("authorization", "Basic a2V5Og=="))
            .and(body_partial_json(question))
            .respond_with(ResponseTemplate::new(200).set_body_string(body))
            .expect(1)
            .mount(&server)
            .await;
    }
    let bill = pull(&connector(&server.uri()), days("2026-11-18", 1)).await.unwrap();
    assert_eq!(total(&bill), usd("0.055"));
}

#[test]
fn what_is_charged_is_billed_once_and_only_that() {
    let bill = connector("https://example.com").read(days("2026-11-18", 1), &pages()).unwrap();
    let [line] = bill.lines.as_slice() else { panic!("{bill:?}") };
    assert_eq!((line.amount, line.model.as_deref()), (usd("0.055"), Some("claude-sonnet-4-6")));
    assert_eq!((line.tags["user"].as_str(), line.start), ("ann@example.com", at("2026-11-18")));
    let [ann, bob] = bill.seats.as_slice() else { panic!("{bill:?}") };
    assert_eq!((ann.estimated, bob.estimated), (Some(usd("0.0125")), Some(usd("0.007"))));
    assert_eq!((ann.tokens.input, ann.tokens.cache_write_5m, ann.tokens.total()), (1000, 30, 1234));
    assert_eq!(ann.last_active, Some(at("2026-11-18T00:00:00.500Z")));
    assert_eq!(ann.counts["events"], Quantity::whole(2));
    let counts = (bob.counts["included_events"], bob.counts["events"]);
    assert_eq!(counts, (Quantity::whole(1), Quantity::whole(1)));
    let notes = bill.notes.join("\n");
    assert!(notes.contains("1 events came on two pages"), "{notes}");
    assert!(notes.contains("5.055 dollars beyond"), "{notes}");
    // The last event belongs to the day after.
    let both = connector("https://example.com").read(days("2026-11-18", 2), &pages()).unwrap();
    assert_eq!(total(&both), usd("9.055"));
}

#[test]
fn answers_that_are_not_as_documented_are_refused() {
    let connector = connector("https://example.com");
    let days = days("2026-11-18", 1);
    for index in 0..3 {
        refuses_bad_bodies(&connector, days, &pages(), index);
    }
    for (from, to, field) in [
        ("\"1794960000000\"", "1794960000000", "usageEvents[0].timestamp"),
        ("\"chargedCents\":1.5,", "", "usageEvents[0].chargedCents"),
        ("\"chargedCents\":1.5", "\"chargedCents\":\"1.5\"", "usageEvents[0].chargedCents"),
        (",\"totalCents\":1.25", "", "usageEvents[0].tokenUsage"),
        ("\"isChargeable\":true,\"isHeadless\":false,", "", "usageEvents[0]"),
        ("\"totalPages\":1", "\"totalPages\":3", "totalPages"),
        ("\"includedSpendCents\":2000,", "", "teamMemberSpend[0]"),
    ] {
        let (got, reason) = replaced(&connector, days, &pages(), (from, to));
        assert_eq!(got, field, "{from}: {reason}");
    }
    let stated = |first: &str, second: &str| {
        let with =
            |body: &str, count| body.replace("EventsCount\":5", &format!("EventsCount\":{count}"));
        let mut pages = pages();
        pages[0] = page(EVENTS, with(FIRST, first));
        pages[1] = page(EVENTS, with(SECOND, second));
        connector.read(days, &pages)
    };
    assert!(unreadable(stated("50", "50")).1.contains("is 50, and 6 events came"));
    assert!(unreadable(stated("5", "6")).1.contains("changed while"));
    assert!(unreadable(stated("4", "4")).1.contains("is 4, and 5 events came"));
    // As many as there are: equal events are two.
    assert_eq!(total(&stated("6", "6").unwrap()), usd("0.095"));
    for missing in 0..3 {
        let mut pages = pages();
        pages.remove(missing);
        assert!(connector.read(days, &pages).is_err(), "{missing}");
    }
}
