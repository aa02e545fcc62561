use std::sync::LazyLock;

use proptest::prelude::*;
use wiremock::matchers::{body_string, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::bill::{ChargeKind, Quantity};
use crate::connectors::testing::{
    at, busy_once, days, page, pull, quick, refuses_bad_bodies, replaced, total, unreadable, usd,
};

const LIST_1: &str = include_str!("../fixtures/atlas/invoices_1.json");
const LIST_2: &str = include_str!("../fixtures/atlas/invoices_2.json");
const PENDING: &str = include_str!("../fixtures/atlas/invoice_pending.json");
const PAID: &str = include_str!("../fixtures/atlas/invoice_paid.json");
const EMPTY: &str = r#"{"results":[],"totalCount":4}"#;
const PENDING_LABEL: &str = "invoices/6566e8d7c1d2e3f4a5b6c7d8";
const PAID_LABEL: &str = "invoices/6540e8d7c1d2e3f4a5b6c7d8";
const ROOT: &str = "/api/atlas/v2/orgs/org1";

fn connector(base: &str) -> Atlas {
    let settings: AtlasSettings = serde_json::from_str(&format!(
        r#"{{"base_url":"{base}","account":"org1","client_id":"mdb_sa_id_1","client_secret":"very-secret"}}"#
    ))
    .unwrap();
    Atlas::new(settings, quick()).unwrap()
}

fn offline() -> &'static Atlas {
    static OFFLINE: LazyLock<Atlas> = LazyLock::new(|| connector("https://cloud.mongodb.com"));
    &OFFLINE
}

fn pages() -> Vec<RawPage> {
    vec![
        page("invoices", LIST_1),
        page("invoices", LIST_2),
        page(PENDING_LABEL, PENDING),
        page(PAID_LABEL, PAID),
    ]
}

#[test]
fn a_line_within_a_day_belongs_to_it() {
    let bill = offline().read(days("2026-11-01", 1), &pages()).unwrap();
    let [line] = &bill.lines[..] else { panic!("{:?}", bill.lines) };
    assert_eq!((line.amount, line.kind), (usd("1.2"), ChargeKind::Usage));
    assert_eq!((line.start, line.end), (at("2026-11-01"), at("2026-11-02")));
    assert_eq!(line.quantity, Some(Quantity::whole(24)));
    assert_eq!(
        (line.unit.as_deref(), line.project.as_deref()),
        (Some("server hours"), Some("grp1"))
    );
    assert_eq!(
        (line.description.as_str(), line.tags["team"].as_str()),
        ("ATLAS_AWS_INSTANCE_M10 main", "search,rag")
    );
    assert_eq!((line.invoice_id.as_deref(), line.provisional), (None, true));
    // Each day alone, and all together: no line twice, none lost.
    let by_day: Vec<_> = ["2026-10-31", "2026-11-01", "2026-11-02"]
        .iter()
        .flat_map(|day| offline().read(days(day, 1), &pages()).unwrap().lines)
        .collect();
    assert_eq!(by_day.len(), 6);
    let mut all = offline().read(days("2026-10-31", 3), &pages()).unwrap().lines;
    all.sort_by_key(|line| line.start);
    assert_eq!(by_day, all);
}

#[test]
fn a_line_longer_than_a_day_is_booked_whole_and_once_whatever_the_look_back() {
    let item = |cents: u32, start: &str, end: &str| {
        format!(
            r#"{{"sku":"S","totalPriceCents":{cents},"startDate":"{start}T00:00:00Z","endDate":"{end}T00:00:00Z"}}"#
        )
    };
    let lines = [
        item(3_000, "2026-11-01", "2026-11-29"),
        item(200, "2026-11-03", "2026-11-05"),
        // A prepaid year: no pull of its last day asks for this invoice.
        item(70_000, "2026-11-10", "2027-11-10"),
        item(1, "2026-11-10", "2026-11-11"),
    ];
    let end = PENDING.find("\"lineItems\"").unwrap();
    let body = format!("{}\"lineItems\":[{}]}}", &PENDING[..end], lines.join(","));
    let pages = [page("invoices", LIST_1), page("invoices", LIST_2), page(PENDING_LABEL, body)];
    let booked = |from: &str, count| -> Vec<_> {
        let bill = offline().read(days(from, count), &pages).unwrap();
        bill.lines.into_iter().map(|line| (line.start, line.amount, line.tags)).collect()
    };
    let [fee, short, year, daily] = &booked("2026-11-02", 29)[..] else { panic!() };
    assert_eq!((fee.0, fee.1), (at("2026-11-28"), usd("30")));
    assert_eq!(fee.2["atlas:period"], "2026-11-01T00:00:00.000Z..2026-11-29T00:00:00.000Z");
    assert_eq!((short.0, short.1), (at("2026-11-04"), usd("2")));
    assert_eq!((year.0, year.1), (at("2026-11-30"), usd("700")));
    assert_eq!((daily.0, daily.2.get("atlas:period")), (at("2026-11-10"), None));
    // Pulls of seven days, one after the other, find each line once.
    let weeks = ["2026-11-02", "2026-11-09", "2026-11-16", "2026-11-23", "2026-11-30"];
    assert_eq!(weeks.iter().map(|from| booked(from, 7).len()).sum::<usize>(), 4);
}

#[test]
fn a_closed_invoice_adds_up_to_what_it_bills() {
    let pages = [page("invoices", LIST_1), page("invoices", LIST_2), page(PAID_LABEL, PAID)];
    let bill = offline().read(days("2026-10-02", 30), &pages).unwrap();
    let [usage, support, tax, credit] = &bill.lines[..] else { panic!("{:?}", bill.lines) };
    assert_eq!((usage.amount, usage.tags["atlas:discount_cents"].as_str()), (usd("10"), "50"));
    assert_eq!(usage.invoice_id.as_deref(), Some("6540e8d7c1d2e3f4a5b6c7d8"));
    assert_eq!((support.start, support.end), (at("2026-10-31"), at("2026-11-01")));
    assert_eq!((tax.kind, tax.amount), (ChargeKind::Tax, usd("0.67")));
    assert_eq!((credit.kind, credit.amount), (ChargeKind::Credit, usd("-2")));
    assert_eq!((credit.start, credit.end), (at("2026-10-31"), at("2026-11-01")));
    assert!(!credit.provisional);
    assert_eq!((total(&bill), bill.notes.len()), (usd("9.67"), 0));
}

#[test]
fn credits_are_not_booked_twice_and_never_guessed() {
    let read = |paid: String| {
        let pages = [page("invoices", LIST_1), page("invoices", LIST_2), page(PAID_LABEL, paid)];
        offline().read(days("2026-10-02", 30), &pages).unwrap()
    };
    let among_lines = PAID.replace(
        "\"lineItems\":[",
        "\"lineItems\":[{\"sku\":\"CREDIT\",\"totalPriceCents\":-200,\
         \"startDate\":\"2026-10-31T00:00:00Z\",\"endDate\":\"2026-11-01T00:00:00Z\"},",
    );
    let bill = read(among_lines);
    assert_eq!((total(&bill), bill.lines.len(), bill.notes.len()), (usd("9.67"), 4, 0));
    assert_eq!(bill.lines[0].kind, ChargeKind::Credit);

    let bill = read(PAID.replace(
        "\"amountBilledCents\":967,\"amountPaid",
        "\"amountBilledCents\":966,\"amountPaid",
    ));
    assert_eq!(total(&bill), usd("11.67"));
    assert!(bill.notes[0].contains("bills 966 cents"), "{:?}", bill.notes);
}

#[test]
fn what_is_not_as_documented_is_an_error_that_names_it() {
    let (connector, days) = (offline(), days("2026-10-31", 3));
    for ((from, to), field, reason) in [
        (
            ("\"totalPriceCents\":120", "\"totalPriceCents\":\"120\""),
            "lineItems[0].totalPriceCents",
            "invalid type",
        ),
        (
            ("\"totalPriceCents\":120", "\"totalPriceCents\":1.2"),
            "lineItems[0].totalPriceCents",
            "invalid type",
        ),
        (("\"totalPriceCents\":120,", ""), "lineItems[0]", "missing field `totalPriceCents`"),
        (("24.0", "\"24\""), "lineItems[0].quantity", "text where a number"),
        (("\"unit\":\"GB\",", ""), "lineItems[1].unit", "missing"),
        (("\"salesTaxCents\":0,", ""), "the answer", "missing field `salesTaxCents`"),
        (
            ("\"endDate\":\"2026-11-03T00:00:00Z\"", "\"endDate\":\"2026-11-01T00:00:00Z\""),
            "lineItems[1].endDate",
            "before",
        ),
        (("\"totalCount\":3,", ""), "the answer", "missing field `totalCount`"),
        (("6500e8d7c1d2e3f4a5b6c7d8", "../../users"), "results[0].id", "no id"),
        (("6500e8d7c1d2e3f4a5b6c7d8", "6540e8d7c1d2e3f4a5b6c7d8"), "results[0].id", "before"),
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
    for (missing, expect) in [(1, "more pages follow"), (2, "missing in the pull")] {
        let mut pages = pages();
        pages.remove(missing);
        assert!(unreadable(connector.read(days, &pages)).1.contains(expect));
    }
    let short = page("invoices", LIST_2.replace("\"totalCount\":3", "\"totalCount\":4"));
    let pages_of_three = [page("invoices", LIST_1), short, page("invoices", EMPTY)];
    let (field, reason) =
        unreadable(connector.read(days, &[&pages_of_three, &pages()[2..]].concat()));
    assert!(field == "totalCount" && reason.contains("is 4, and 3 invoices"), "{field} {reason}");
    let none = page("invoices", EMPTY.replace('4', "0"));
    assert_eq!(connector.read(days, &[none]).unwrap().lines, []);
    let mut swapped = pages();
    swapped[2].body = swapped[3].body.clone();
    assert_eq!(unreadable(connector.read(days, &swapped)).0, "id");
    let status = replaced(connector, days, &pages()[2..], ("\"PENDING\"", "\"LOST\""));
    assert!(status.0 == "statusName" && status.1.contains("unknown variant"), "{status:?}");
}

async fn serve(server: &MockServer, at: &str, page: Option<&str>, body: &str) {
    let mock = Mock::given(method("GET"))
        .and(path(format!("{ROOT}/{at}")))
        .and(header("authorization", "Bearer short-lived"))
        .and(header("accept", "application/vnd.atlas.2023-01-01+json"));
    let mock = match page {
        Some(page) => mock.and(query_param("pageNum", page)),
        None => mock,
    };
    mock.respond_with(ResponseTemplate::new(200).set_body_string(body)).mount(server).await;
}

async fn login(server: &MockServer) {
    Mock::given(method("POST"))
        .and(path("/api/oauth/token"))
        // mdb_sa_id_1:very-secret
        .and(header("authorization", "Basic bWRiX3NhX2lkXzE6dmVyeS1zZWNyZXQ="))
        .and(body_string("grant_type=client_credentials"))
        .respond_with(ResponseTemplate::new(200).set_body_string(
            r#"{"access_token":"short-lived","expires_in":3600,"token_type":"Bearer"}"#,
        ))
        .mount(server)
        .await;
}

#[tokio::test]
async fn only_invoices_of_the_days_are_pulled() {
    let server = MockServer::start().await;
    login(&server).await;
    busy_once(&server, "GET", &format!("{ROOT}/{PENDING_LABEL}")).await;
    serve(&server, "invoices", Some("1"), LIST_1).await;
    serve(&server, "invoices", Some("2"), LIST_2).await;
    serve(&server, PENDING_LABEL, None, PENDING).await;
    serve(&server, PAID_LABEL, None, PAID).await;
    let days = days("2026-10-31", 3);
    let connector = connector(&server.uri());
    let pulled = connector.fetch(days).await.unwrap();
    assert_eq!(pulled, pages());
    assert!(pulled.iter().all(|page| !page.label.contains("token")));
    let asked = server.received_requests().await.unwrap();
    let list = asked.iter().find(|one| one.url.path().ends_with("/invoices")).unwrap();
    assert!(list.url.query().unwrap().contains("viewLinkedInvoices=false"));
    assert!(!format!("{connector:?}").contains("very-secret"));
}

#[tokio::test]
async fn a_list_that_repeats_itself_ends_the_pull() {
    let server = MockServer::start().await;
    login(&server).await;
    serve(&server, "invoices", None, LIST_1).await;
    let error = pull(&connector(&server.uri()), days("2026-11-01", 1)).await;
    assert_eq!(unreadable(error).0, "next page");
}

proptest! {
    #[test]
    fn lines_always_add_up_to_their_source(cents in prop::collection::vec(any::<i64>(), 0..30)) {
        let lines: Vec<_> = cents
            .iter()
            .map(|cents| format!(
                r#"{{"sku":"S","totalPriceCents":{cents},"startDate":"2026-11-05T00:00:00Z","endDate":"2026-11-06T00:00:00Z"}}"#
            ))
            .collect();
        let body = format!(
            r#"{{"id":"6566e8d7c1d2e3f4a5b6c7d8","statusName":"PENDING","startDate":"2026-11-01T00:00:00Z",
            "endDate":"2026-12-01T00:00:00Z","amountBilledCents":0,"creditsCents":0,"salesTaxCents":0,
            "lineItems":[{}]}}"#,
            lines.join(",")
        );
        let pages = [page("invoices", LIST_1), page("invoices", LIST_2), page(PENDING_LABEL, body)];
        let bill = offline().read(days("2026-11-02", 20), &pages).unwrap();
        let expect: i128 = cents.iter().map(|cents| i128::from(*cents)).sum();
        prop_assert_eq!(total(&bill).pico(), expect * 10_000_000_000);
    }
}
