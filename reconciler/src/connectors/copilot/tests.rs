use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::super::testing::{
    at, busy_once, days, page, pull, quick, refuses_bad_bodies, replaced, total, usd,
};
use super::*;

const CREDITS: &str = r#"{"timePeriod":{"year":2026},"organization":"acme","usageItems":[
 {"product":"Copilot","sku":"Copilot AI Credits","model":"GPT-5","unitType":"ai-credits","pricePerUnit":0.01,
  "grossQuantity":150,"grossAmount":1.5,"discountQuantity":100,"discountAmount":1,"netQuantity":50,"netAmount":0.5},
 {"product":"Copilot","sku":"Copilot AI Credits","model":"Claude Sonnet 4.6","unitType":"ai-credits","pricePerUnit":0.01,
  "grossQuantity":10.5,"grossAmount":0.105,"discountQuantity":0,"discountAmount":0,"netQuantity":10.5,"netAmount":0.105}]}"#;
const REQUESTS: &str = r#"{"usageItems":[
 {"product":"Copilot","sku":"Copilot Premium Request","model":"GPT-5","unitType":"requests","pricePerUnit":0.04,
  "grossQuantity":5,"grossAmount":0.2,"discountQuantity":0,"discountAmount":0,"netQuantity":5,"netAmount":0.2},
 {"product":"Copilot","sku":"Copilot AI Credits","model":"GPT-5","unitType":"ai-credits","pricePerUnit":0.01,
  "grossQuantity":150,"grossAmount":1.5,"discountQuantity":100,"discountAmount":1,"netQuantity":50,"netAmount":0.5}]}"#;
const EVERYTHING: &str = r#"{"usageItems":[
 {"date":"2026-11-18T00:00:00Z","product":"copilot","sku":"Copilot Business","quantity":1.2666,"unitType":"user-months",
  "pricePerUnit":19,"grossAmount":24.0654,"discountAmount":0,"netAmount":24.0654},
 {"date":"2026-11-18T00:00:00Z","product":"copilot","sku":"copilot ai credits","quantity":160.5,"unitType":"ai-credits",
  "pricePerUnit":0.01,"grossAmount":1.605,"discountAmount":1,"netAmount":0.605},
 {"date":"2026-11-18T00:00:00Z","product":"actions","sku":"Actions Linux","quantity":9,"unitType":"Minutes",
  "pricePerUnit":0.008,"grossAmount":0.072,"discountAmount":0,"netAmount":0.072}]}"#;
const SEAT_PAGE: &str = r#"{"total_seats":2,"seats":[
 {"assignee":{"login":"ann","id":1},"created_at":"2026-01-01T00:00:00Z","last_activity_at":"2026-11-17T22:30:00-02:00"},
 {"assignee":{"login":"bob","id":2},"last_activity_at":null}]}"#;

fn connector(base_url: &str) -> Copilot {
    let settings =
        serde_json::json!({"base_url": base_url, "organization": "acme", "token": "ghp"});
    Copilot::new(serde_json::from_value(settings).unwrap(), quick()).unwrap()
}

fn pages() -> Vec<RawPage> {
    vec![
        page("ai_credit/usage/2026-11-18", CREDITS),
        page("premium_request/usage/2026-11-18", REQUESTS),
        page("usage/2026-11-18", EVERYTHING),
        page(SEATS, SEAT_PAGE),
    ]
}

#[tokio::test]
async fn a_day_is_three_reports_and_the_seats_go_to_their_end() {
    let server = MockServer::start().await;
    let base = "/organizations/acme/settings/billing";
    busy_once(&server, "GET", &format!("{base}/usage")).await;
    let day = [("year", "2026"), ("month", "11"), ("day", "18")];
    for (report, body) in
        [("ai_credit/usage", CREDITS), ("premium_request/usage", REQUESTS), ("usage", EVERYTHING)]
    {
        let mut mock = Mock::given(method("GET"))
            .and(path(format!("{base}/{report}")))
            .and(header("authorization", "Bearer ghp"))
            .and(header("x-github-api-version", VERSION));
        for (name, value) in day {
            mock = mock.and(query_param(name, value));
        }
        let answer = ResponseTemplate::new(200).set_body_string(body);
        mock.respond_with(answer).expect(1).mount(&server).await;
    }
    for number in ["1", "2", "3"] {
        let login = format!(r#"{{"assignee":{{"login":"p{number}"}}}}"#);
        let body = format!(r#"{{"total_seats":201,"seats":[{login}]}}"#);
        Mock::given(method("GET"))
            .and(path("/orgs/acme/copilot/billing/seats"))
            .and(query_param("page", number))
            .respond_with(ResponseTemplate::new(200).set_body_string(body))
            .expect(1)
            .mount(&server)
            .await;
    }
    let bill = pull(&connector(&server.uri()), days("2026-11-18", 1)).await.unwrap();
    assert_eq!(bill.seats.len(), 3);
    assert_eq!(total(&bill), usd("24.8704"));
}

#[test]
fn no_dollar_is_booked_twice() {
    let bill = connector("https://example.com").read(days("2026-11-18", 1), &pages()).unwrap();
    let got: Vec<_> = bill
        .lines
        .iter()
        .map(|line| (line.kind, line.description.as_str(), line.model.as_deref(), line.amount))
        .collect();
    assert_eq!(
        got,
        [
            (ChargeKind::Usage, "Copilot AI Credits", Some("GPT-5"), usd("0.5")),
            (ChargeKind::Usage, "Copilot AI Credits", Some("Claude Sonnet 4.6"), usd("0.105")),
            (ChargeKind::Usage, "Copilot Premium Request", Some("GPT-5"), usd("0.2")),
            (ChargeKind::Seat, "Copilot Business", None, usd("24.0654")),
        ]
    );
    assert_eq!(bill.lines[0].list_amount, Some(usd("1.5")));
    assert_eq!(bill.lines[0].quantity.unwrap().to_string(), "150");
    assert_eq!(bill.lines[0].meter, Meter::Whole);
    assert_eq!(
        (bill.lines[2].meter, bill.lines[2].unit.as_deref()),
        (Meter::Calls, Some("requests"))
    );
    assert_eq!(bill.lines[3].quantity.unwrap().to_string(), "1.2666");
    let [note] = bill.notes.as_slice() else { panic!("{:?}", bill.notes) };
    assert!(note.contains("actions"), "{note}");
    let [ann, bob] = bill.seats.as_slice() else { panic!("{bill:?}") };
    assert_eq!((ann.person.as_str(), ann.last_active), ("ann", Some(at("2026-11-18T00:30:00Z"))));
    assert_eq!((bob.person.as_str(), bob.last_active), ("bob", None));
}

#[test]
fn a_report_that_github_does_not_give_is_not_asked_for() {
    let settings = serde_json::json!({"organization": "acme", "token": "ghp",
        "details": ["ai_credit"], "list_seats": false});
    let few = Copilot::new(serde_json::from_value(settings).unwrap(), quick()).unwrap();
    let mut pages = pages();
    pages.remove(3);
    pages.remove(1);
    let bill = few.read(days("2026-11-18", 1), &pages).unwrap();
    assert_eq!((total(&bill), bill.seats.len()), (usd("24.6704"), 0));
}

#[test]
fn what_only_the_whole_report_has_is_an_adjustment() {
    let mut pages = pages();
    pages[2] =
        page("usage/2026-11-18", EVERYTHING.replace("\"netAmount\":0.605", "\"netAmount\":0.61"));
    let bill = connector("https://example.com").read(days("2026-11-18", 1), &pages).unwrap();
    let last = bill.lines.last().unwrap();
    assert_eq!((last.kind, last.amount), (ChargeKind::Adjustment, usd("0.005")));
    assert!(bill.notes[0].contains("0.605") && bill.notes[0].contains("0.61"), "{:?}", bill.notes);
    assert_eq!(total(&bill), usd("24.8754"));
}

#[test]
fn answers_that_are_not_as_documented_are_refused() {
    let connector = connector("https://example.com");
    let days = days("2026-11-18", 1);
    for index in 0..4 {
        refuses_bad_bodies(&connector, days, &pages(), index);
    }
    for (from, to, field) in [
        ("\"netAmount\":0.5", "\"netAmount\":\"0.5\"", "usageItems[0].netAmount"),
        (",\"netAmount\":0.105", "", "usageItems[1]"),
        ("\"unitType\":\"ai-credits\",", "", "usageItems[0]"),
        ("2026-11-17T22:30:00-02:00", "yesterday", "seats[0].last_activity_at"),
        ("\"total_seats\":2", "\"total_seats\":900", "the answer"),
    ] {
        let (got, reason) = replaced(&connector, days, &pages(), (from, to));
        assert_eq!(got, field, "{from}: {reason}");
    }
    for missing in 0..4 {
        let mut pages = pages();
        pages.remove(missing);
        assert!(connector.read(days, &pages).is_err(), "{missing}");
    }
}
