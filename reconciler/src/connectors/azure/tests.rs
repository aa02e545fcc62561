use std::sync::LazyLock;

use proptest::prelude::*;
use tallygate_shared::money::Usd;
use wiremock::matchers::{body_partial_json, body_string_contains, header, method, path};
use wiremock::matchers::{query_param, query_param_is_missing};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::connectors::testing::{
    at, busy_once, days, page, pull, quick, refuses_bad_bodies, replaced, total, unreadable, usd,
};

const FIRST: &str = include_str!("../fixtures/azure/query_1.json");
const SECOND: &str = include_str!("../fixtures/azure/query_2.json");
const PATH: &str = "/subscriptions/s1/providers/Microsoft.CostManagement/query";

fn settings(base: &str) -> AzureSettings {
    serde_json::from_str(&format!(
        r#"{{"base_url":"{base}","account":"s1","scope":"/subscriptions/s1/","services":["Foundry Models"],
        "credential":{{"application":{{"tenant":"t1","client_id":"c1","client_secret":"very-secret",
        "login_url":"{base}"}}}}}}"#
    ))
    .unwrap()
}

fn connector(base: &str) -> Azure {
    Azure::new(settings(base), quick()).unwrap()
}

fn offline() -> &'static Azure {
    static OFFLINE: LazyLock<Azure> = LazyLock::new(|| connector("https://management.azure.com"));
    &OFFLINE
}

fn pages() -> Vec<RawPage> {
    vec![page(QUERY, FIRST), page(QUERY, SECOND)]
}

#[test]
fn columns_are_found_by_name() {
    let bill = offline().read(days("2026-11-01", 2), &pages()).unwrap();
    let [first, second, marketplace] = &bill.lines[..] else { panic!() };
    assert_eq!((first.amount, first.meter), (usd("12.34"), Meter::Whole));
    assert_eq!((first.start, first.end), (at("2026-11-01"), at("2026-11-02")));
    assert_eq!(first.description, "gpt 6 astra Inp glbl Tokens");
    assert!(first.project.as_deref().unwrap().ends_with("accounts/east"));
    assert_eq!(second.amount, usd("0.004379562044"));
    assert_eq!(marketplace.description, "Claude Consumption Units");
    assert_eq!((marketplace.kind, marketplace.amount), (ChargeKind::Adjustment, usd("-1.5")));
    assert_eq!((marketplace.start, marketplace.project.as_deref()), (at("2026-11-02"), None));
    assert!(bill.notes[0].contains("1 amounts came as floats"), "{:?}", bill.notes);
}

#[test]
fn what_is_not_as_documented_is_an_error_that_names_it() {
    let (connector, days) = (offline(), days("2026-11-01", 2));
    for ((from, to), field, reason) in [
        (("Tokens\",\"USD\"", "Tokens\",\"EUR\""), "properties.rows[0][4]", "EUR"),
        (("12.34", "\"12.34\""), "properties.rows[0][0]", "text where a number"),
        (("12.34", "null"), "properties.rows[0][0]", "null"),
        (("12.34,", ""), "properties.rows[0]", "4 cells for 5 columns"),
        (("20261101", "\"20261101\""), "properties.rows[0][1]", "invalid type"),
        (("20261101", "20261131"), "properties.rows[0][1]", "no day"),
        (("20261101", "20261031"), "properties.rows[0]", "was asked"),
        (("\"Cost\"", "\"PreTaxCost\""), "properties.columns", "has no `Cost`"),
        (("\"ResourceId\"", "\"Cost\""), "properties.columns", "`Cost` twice"),
        (
            ("\"UsageDate\",\"type\":\"Number\"", "\"UsageDate\",\"type\":\"String\""),
            "properties.columns",
            "another type",
        ),
        (
            ("https://management.azure.com/", "https://management.azure.com.example.org/"),
            "properties.nextLink",
            "another host",
        ),
        (
            ("https://management.azure.com/", "http://management.azure.com/"),
            "properties.nextLink",
            "another host",
        ),
        (("https://management.azure.com/", "/"), "properties.nextLink", "another host"),
    ] {
        let (got_field, got_reason) = replaced(connector, days, &pages(), (from, to));
        assert!(
            got_field == field && got_reason.contains(reason),
            "{from}: {got_field} {got_reason}"
        );
    }
    refuses_bad_bodies(connector, days, &pages(), 1);
    let mut moved = pages();
    let row = FIRST.split("[\n   ").nth(1).unwrap().split(",\n   [").next().unwrap();
    let again = row.replace("12.34", "12.35");
    moved[1] =
        page(QUERY, FIRST.replacen(row, &again, 1).replacen("\"nextLink\":\"", "\"was\":\"", 1));
    let (field, reason) = unreadable(connector.read(days, &moved));
    assert!(field == "properties.rows[0]" && reason.contains("count twice"), "{field} {reason}");
    let (_, reason) = unreadable(connector.read(days, &pages()[..1]));
    assert!(reason.contains("more pages follow"), "{reason}");
}

#[test]
fn settings_that_azure_would_refuse_are_refused_at_once() {
    let base = settings("https://management.azure.com");
    let three = vec!["a".into(), "b".into(), "c".into()];
    for wrong in [
        AzureSettings { group_by: three, ..base.clone() },
        AzureSettings { scope: "/".into(), ..base.clone() },
        AzureSettings { base_url: "management".into(), ..base.clone() },
        AzureSettings { credential: AzureCredential::Token(Secret::new("")), ..base.clone() },
    ] {
        assert!(Azure::new(wrong, quick()).is_err());
    }
    assert!(!format!("{:?}", offline()).contains("very-secret"));
}

async fn login(server: &MockServer, body: &str) {
    Mock::given(method("POST"))
        .and(path("/t1/oauth2/v2.0/token"))
        .and(body_string_contains("client_secret=very-secret"))
        .and(body_string_contains("scope=https%3A%2F%2Fmanagement.azure.com%2F.default"))
        .and(header("content-type", "application/x-www-form-urlencoded"))
        .respond_with(ResponseTemplate::new(200).set_body_string(body))
        .mount(server)
        .await;
}

#[tokio::test]
async fn the_same_question_is_asked_of_each_page() {
    let server = MockServer::start().await;
    login(&server, r#"{"token_type":"Bearer","expires_in":3599,"access_token":"short-lived"}"#)
        .await;
    busy_once(&server, "POST", PATH).await;
    let question = serde_json::json!({
        "type": "ActualCost",
        "timeframe": "Custom",
        "timePeriod": {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T23:59:59Z"},
        "dataset": {
            "granularity": "Daily",
            "aggregation": {"totalCost": {"name": "Cost", "function": "Sum"}},
            "grouping": [
                {"type": "Dimension", "name": "ResourceId"},
                {"type": "Dimension", "name": "Meter"}
            ],
            "filter": {"dimensions": {
                "name": "ServiceName", "operator": "In", "values": ["Foundry Models"]
            }}
        }
    });
    let ask = || {
        Mock::given(method("POST"))
            .and(path(PATH))
            .and(query_param("api-version", "2025-03-01"))
            .and(header("authorization", "Bearer short-lived"))
            .and(body_partial_json(&question))
    };
    let first = FIRST.replace("https://management.azure.com", &server.uri());
    ask()
        .and(query_param_is_missing("$skiptoken"))
        .respond_with(ResponseTemplate::new(200).set_body_string(first))
        .mount(&server)
        .await;
    ask()
        .and(query_param("$skiptoken", "AQAAAA=="))
        .respond_with(ResponseTemplate::new(200).set_body_string(SECOND))
        .mount(&server)
        .await;
    let days = days("2026-11-01", 2);
    let bill = pull(&connector(&server.uri()), days).await.unwrap();
    assert_eq!(bill, offline().read(days, &pages()).unwrap());
}

#[tokio::test]
async fn a_link_that_comes_again_and_a_link_elsewhere_are_not_followed() {
    let server = MockServer::start().await;
    login(&server, r#"{"access_token":"short-lived"}"#).await;
    let circle = FIRST.replace("https://management.azure.com", &server.uri());
    for (body, times, expect) in [(circle, 2, "circle"), (FIRST.to_owned(), 1, "another host")] {
        let mock = Mock::given(method("POST"))
            .and(path(PATH))
            .respond_with(ResponseTemplate::new(200).set_body_string(body))
            .expect(times)
            .mount_as_scoped(&server)
            .await;
        let (_, reason) = unreadable(pull(&connector(&server.uri()), days("2026-11-01", 2)).await);
        assert!(reason.contains(expect), "{reason}");
        drop(mock);
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_read_is_not_repeated() {
    let server = MockServer::start().await;
    login(&server, r#"{"access_token":["short-lived"]}"#).await;
    let error = connector(&server.uri()).fetch(days("2026-11-01", 1)).await.unwrap_err();
    assert!(error.to_string().contains("`access_token` is not as documented"), "{error}");
    assert!(!error.to_string().contains("short-lived"));
}

proptest! {
    #[test]
    fn lines_always_add_up_to_their_source_whatever_the_split(
        picos in prop::collection::vec(any::<i64>(), 1..30),
        per_page in 1_usize..10,
    ) {
        let numbered: Vec<_> = picos.iter().enumerate().collect();
        let parts: Vec<_> = numbered.chunks(per_page).collect();
        let pages: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(index, picos)| {
                let rows: Vec<_> = picos
                    .iter()
                    .map(|(meter, pico)| (meter, Usd::from_pico(i128::from(**pico))))
                    .map(|(meter, usd)| format!(r#"["USD",20261101,{usd},"{meter}"]"#))
                    .collect();
                let link = if index + 1 < parts.len() { "https://management.azure.com/next" } else { "" };
                page(QUERY, format!(
                    r#"{{"properties":{{"nextLink":"{link}","columns":[{{"name":"Currency","type":"String"}},
                    {{"name":"UsageDate","type":"Number"}},{{"name":"Cost","type":"Number"}},
                    {{"name":"Meter","type":"String"}}],"rows":[{}]}}}}"#,
                    rows.join(",")
                ))
            })
            .collect();
        let bill = offline().read(days("2026-11-01", 1), &pages).unwrap();
        prop_assert_eq!(total(&bill).pico(), picos.iter().map(|pico| i128::from(*pico)).sum::<i128>());
        prop_assert_eq!(bill.lines.len(), picos.len());
    }
}
