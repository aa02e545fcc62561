use wiremock::matchers::{header, method, query_param, query_param_is_missing};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::super::testing::{busy_once, days, page, quick, refuses_bad_bodies, replaced, usd};
use super::*;

const DAY: &str = r#"{"data":[
 {"date":"2026-11-18T00:00:00Z","actor":{"type":"user_actor","email_address":"ann@example.com"},
  "customer_type":"subscription","terminal_type":"vscode",
  "core_metrics":{"num_sessions":3,"lines_of_code":{"added":120,"removed":7},"commits_by_claude_code":2},
  "model_breakdown":[{"model":"claude-sonnet-4-6","tokens":{"input":1000,"output":200,"cache_read":5000,
   "cache_creation":40},"estimated_cost":{"amount":123.45,"currency":"USD"}}]},
 {"actor":{"type":"user_actor","email_address":"ann@example.com"},"customer_type":"api",
  "core_metrics":{"num_sessions":1},
  "model_breakdown":[{"model":"claude-haiku-4-5","tokens":{"input":1,"output":2,"cache_read":0,
   "cache_creation":0},"estimated_cost":{"amount":0.5,"currency":"USD"}}]},
 {"actor":{"type":"api_actor","api_key_name":"ci"},"customer_type":"api","model_breakdown":[]}
],"has_more":true,"next_page":"p2"}"#;
const LAST: &str = r#"{"data":[],"has_more":false,"next_page":null}"#;

fn connector(base_url: &str) -> ClaudeCode {
    let settings =
        serde_json::json!({"base_url": base_url, "account": "org-1", "admin_key": "sk-x"});
    ClaudeCode::new(serde_json::from_value(settings).unwrap(), quick()).unwrap()
}

fn pages() -> Vec<RawPage> {
    let label = "usage_report/claude_code/2026-11-18";
    vec![page(label, DAY), page(label, LAST)]
}

#[tokio::test]
async fn every_day_is_asked_for_to_its_last_page() {
    let server = MockServer::start().await;
    let at = "/v1/organizations/usage_report/claude_code";
    busy_once(&server, "GET", at).await;
    let answer = |body: &str| ResponseTemplate::new(200).set_body_string(body);
    for (day, cursor, body) in
        [("2026-11-18", None, DAY), ("2026-11-18", Some("p2"), LAST), ("2026-11-19", None, LAST)]
    {
        let mock = Mock::given(method("GET"))
            .and(query_param("starting_at", day))
            .and(header("x-api-key", "sk-x"))
            .and(header("anthropic-version", VERSION));
        let mock = match cursor {
            Some(cursor) => mock.and(query_param("page", cursor)),
            None => mock.and(query_param_is_missing("page")),
        };
        mock.respond_with(answer(body)).expect(1).mount(&server).await;
    }
    let connector = connector(&server.uri());
    let days = days("2026-11-18", 2);
    let pages = connector.fetch(days).await.unwrap();
    assert_eq!(pages[2].label, "usage_report/claude_code/2026-11-19");
    assert_eq!(connector.read(days, &pages).unwrap().seats.len(), 2);
}

#[test]
fn a_person_is_one_seat_and_nothing_is_billed() {
    let bill = connector("https://example.com").read(days("2026-11-18", 1), &pages()).unwrap();
    assert!(bill.lines.is_empty() && bill.notes.is_empty());
    let [ann, ci] = bill.seats.as_slice() else { panic!("{bill:?}") };
    assert_eq!((ann.person.as_str(), ci.person.as_str()), ("ann@example.com", "ci"));
    assert_eq!(ann.estimated, Some(usd("1.2395")));
    let tokens = (ann.tokens.input, ann.tokens.output, ann.tokens.cache_read_total());
    assert_eq!((tokens, ann.tokens.cache_write_5m), ((1001, 202, 5000), 40));
    let counts: Vec<_> = ann.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    assert_eq!(
        counts,
        [
            "api_tokens 3",
            "commits_by_claude_code 2",
            "lines_of_code_added 120",
            "lines_of_code_removed 7",
            "num_sessions 4",
            "subscription_tokens 6240",
        ]
    );
}

#[test]
fn answers_that_are_not_as_documented_are_refused() {
    let connector = connector("https://example.com");
    let days = days("2026-11-18", 1);
    refuses_bad_bodies(&connector, days, &pages(), 0);
    for (from, to, field) in [
        ("\"USD\"", "\"EUR\"", "data[0].model_breakdown[0].estimated_cost.currency"),
        ("123.45", "\"123.45\"", "data[0].model_breakdown[0].estimated_cost.amount"),
        ("\"output\":200,", "", "data[0].model_breakdown[0].tokens"),
        ("\"subscription\"", "\"gift\"", "data[0].customer_type"),
        ("\"api_actor\"", "\"robot\"", "data[2].actor"),
        ("2026-11-18T", "2026-11-17T", "data[0].date"),
        ("\"next_page\":\"p2\"", "\"next_page\":null", "next_page"),
    ] {
        let (got, reason) = replaced(&connector, days, &pages(), (from, to));
        assert!(got.starts_with(field), "{from}: {got} {reason}");
    }
    assert!(connector.read(days, &[]).is_err());
    assert!(connector.read(days, &pages()[..1]).is_err());
}
