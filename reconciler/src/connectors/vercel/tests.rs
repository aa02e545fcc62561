use std::sync::LazyLock;

use proptest::prelude::*;
use tallygate_shared::money::Usd;
use wiremock::MockServer;

use super::*;
use crate::bill::Quantity;
use crate::connectors::testing::{
    answer, at, busy_once, days, page, pull, quick, replaced, total, unreadable, usd,
};

const LINES: &str = include_str!("../fixtures/vercel/charges.jsonl");

fn connector(base: &str) -> Vercel {
    let settings: VercelSettings = serde_json::from_str(&format!(
        r#"{{"base_url":"{base}","account":"team_1","token":"vercel-test"}}"#
    ))
    .unwrap();
    Vercel::new(settings, quick()).unwrap()
}

fn offline() -> &'static Vercel {
    static OFFLINE: LazyLock<Vercel> = LazyLock::new(|| connector("https://api.vercel.com"));
    &OFFLINE
}

#[test]
fn charges_keep_their_category_and_their_project() {
    let bill = offline().read(days("2026-11-01", 2), &[page(CHARGES, LINES)]).unwrap();
    let [usage, committed, purchase, credit] = &bill.lines[..] else { panic!() };
    assert_eq!((usage.amount, usage.kind), (usd("0.12"), ChargeKind::Usage));
    assert_eq!(usage.quantity, Some(Quantity::parse("12.5").unwrap()));
    assert_eq!((usage.unit.as_deref(), usage.project.as_deref()), (Some("GB"), Some("prj_1")));
    assert_eq!((usage.start, usage.end), (at("2026-11-01"), at("2026-11-02")));
    assert!(!usage.tags.contains_key("vercel:effective_cost"));
    assert_eq!((committed.amount, &*committed.tags["vercel:effective_cost"]), (Usd::ZERO, "1.5"));
    assert_eq!((purchase.kind, purchase.quantity), (ChargeKind::Purchase, None));
    assert_eq!((credit.kind, credit.amount), (ChargeKind::Credit, usd("-5.25")));
    assert_eq!(total(&bill), usd("14.87"));
}

#[test]
fn what_is_not_as_documented_is_an_error_that_names_its_line() {
    let (connector, days, pages) = (offline(), days("2026-11-01", 2), [page(CHARGES, LINES)]);
    for ((from, to), field, reason) in [
        (
            ("\"BillingCurrency\":\"USD\"", "\"BillingCurrency\":\"EUR\""),
            "line 1.BillingCurrency",
            "EUR",
        ),
        (
            ("\"BilledCost\":20", "\"BilledCost\":\"20\""),
            "line 3.BilledCost",
            "text where a number",
        ),
        (("\"BilledCost\":-5.25,", ""), "line 4", "missing field `BilledCost`"),
        (
            ("\"Credit\",\"ChargeP", "\"Gift\",\"ChargeP"),
            "line 4.ChargeCategory",
            "unknown variant",
        ),
        (("\"Hours\"", "null"), "line 2.ConsumedUnit", "missing"),
        (("2026-11-03T", "2026-11-04T"), "line 3", "was asked"),
        (("}\n{", "}\n\n{"), "line 2", "is empty"),
        (("}\n{", "}{"), "line 1", "trailing"),
        (("{\"BilledCost\":20", "<html>{\"BilledCost\":20"), "line 3", "HTML"),
    ] {
        let (got_field, got_reason) = replaced(connector, days, &pages, (from, to));
        assert!(
            got_field == field && got_reason.contains(reason),
            "{from}: {got_field} {got_reason}"
        );
    }
    // Whatever is cut within a line is missed. A cut between lines is a shorter answer, which its length tells.
    for cut in (1..LINES.trim_end().len()).filter(|cut| !LINES[..*cut].ends_with(['\n', '}'])) {
        unreadable(connector.read(days, &[page(CHARGES, &LINES[..cut])]));
    }
    let cut = page(CHARGES, &LINES[..LINES.len() - 40]);
    let (field, reason) = unreadable(connector.read(days, &[cut]));
    assert!(
        field.starts_with("line 4") && reason.contains("ends in the middle"),
        "{field} {reason}"
    );
    assert!(unreadable(connector.read(days, &[])).1.contains("missing in the pull"));
    let twice = [page(CHARGES, LINES), page(CHARGES, LINES)];
    assert!(unreadable(connector.read(days, &twice)).1.contains("after its last page"));
}

#[test]
fn days_without_charges_are_said_so() {
    let bill = offline().read(days("2026-11-01", 2), &[page(CHARGES, "\n")]).unwrap();
    assert_eq!(bill.notes, ["vercel: no charges in 2026-11-01..2026-11-03"]);
}

#[tokio::test]
async fn charges_are_asked_for_by_team_after_a_wait() {
    let server = MockServer::start().await;
    busy_once(&server, "GET", "/v1/billing/charges").await;
    answer(&server, "/v1/billing/charges", ("teamId", Some("team_1")), LINES).await;
    let days = days("2026-11-01", 2);
    let bill = pull(&connector(&server.uri()), days).await.unwrap();
    assert_eq!(bill, offline().read(days, &[page(CHARGES, LINES)]).unwrap());
    let asked = server.received_requests().await.unwrap();
    assert_eq!(
        asked[1].url.query().unwrap(),
        "from=2026-11-01T00%3A00%3A00.000Z&to=2026-11-03T00%3A00%3A00.000Z&teamId=team_1"
    );
    assert_eq!(asked[1].headers["authorization"], "Bearer vercel-test");
}

proptest! {
    #[test]
    fn lines_always_add_up_to_their_source(picos in prop::collection::vec(any::<i64>(), 1..30)) {
        let lines: Vec<_> = picos
            .iter()
            .map(|pico| format!(
                r#"{{"BilledCost":{},"EffectiveCost":9,"BillingCurrency":"USD","ChargeCategory":"Usage","ChargePeriodStart":"2026-11-01T00:00:00.000Z","ChargePeriodEnd":"2026-11-02T00:00:00.000Z","ServiceName":"s"}}"#,
                Usd::from_pico(i128::from(*pico))
            ))
            .collect();
        let bill = offline().read(days("2026-11-01", 1), &[page(CHARGES, lines.join("\n"))]).unwrap();
        prop_assert_eq!(total(&bill).pico(), picos.iter().map(|pico| i128::from(*pico)).sum::<i128>());
        prop_assert_eq!(bill.lines.len(), picos.len());
    }
}
