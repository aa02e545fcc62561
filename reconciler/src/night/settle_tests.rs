//! Small stories of one unit: what the bill says, what the gateway counted, and what the books make of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::read::{Estimate, ProviderFacts, UNCERTAIN_TIER};
use super::*;
use crate::bill::{BillLine, ChargeKind, MeasuredUsage, Meter, Quantity};
use crate::ledger::{LineId, UnitId};

/// 2026-11-20.
const DAY: i64 = 20_777;

pub(super) fn unit() -> UnitId {
    UnitId { workspace: "ws_acme".into(), day: "2026-11-20".into(), provider: "p".into() }
}

/// A line of the unit with the given fields.
pub(super) fn line(fields: Value) -> BillLine {
    let (start, end) = (DAY * DAY_MS, (DAY + 1) * DAY_MS);
    let mut line = json!({"provider": "p", "account": "org", "start": start, "end": end,
        "kind": "usage", "service": "API", "description": "", "meter": "input"});
    for (name, value) in fields.as_object().unwrap() {
        line[name] = value.clone();
    }
    serde_json::from_value(line).unwrap()
}

pub(super) fn measured(fields: Value) -> MeasuredUsage {
    let (start, end) = (DAY * DAY_MS, (DAY + 1) * DAY_MS);
    let mut usage = json!({"provider": "p", "account": "org", "start": start, "end": end});
    for (name, value) in fields.as_object().unwrap() {
        usage[name] = value.clone();
    }
    serde_json::from_value(usage).unwrap()
}

/// An estimate: user, model, meter, money, quantity.
pub(super) fn estimate(user: &str, model: &str, meter: Meter, usd: &str, count: u64) -> Estimate {
    let owner = BTreeMap::from([("user".to_owned(), user.to_owned())]);
    Estimate {
        provider: "p".into(),
        line: LineId {
            account: "org".into(),
            model: model.into(),
            meter,
            tier: "standard".into(),
            kind: ChargeKind::Usage,
            owner,
        },
        estimated: usd.parse().unwrap(),
        metered: Quantity::whole(count),
        requests: 1,
        uncertain: Usd::ZERO,
    }
}

fn tiered(tier: &str, estimate: Estimate) -> Estimate {
    Estimate { line: LineId { tier: tier.into(), ..estimate.line }, ..estimate }
}

pub(super) fn uncertain(user: &str, model: &str, charged: &str, bound: &str) -> Estimate {
    let whole = estimate(user, model, Meter::Whole, charged, 0);
    Estimate { uncertain: bound.parse().unwrap(), ..tiered(UNCERTAIN_TIER, whole) }
}

pub(super) fn bill(lines: Vec<BillLine>, usage: Vec<MeasuredUsage>) -> UnitBill {
    UnitBill {
        unit: unit(),
        facts: ProviderFacts::default(),
        lines,
        is_stated: false,
        usage,
        source: "sha256:bill".into(),
        provisional: false,
        previous: Vec::new(),
    }
}

/// Settles, after checking that the order of the input changes nothing.
pub(super) fn settled(input: &UnitInput, options: &Options) -> UnitOutcome {
    let mut backwards = input.clone();
    backwards.estimates.reverse();
    backwards.bill.lines.reverse();
    backwards.bill.usage.reverse();
    let outcome = settle_unit(input.clone(), options).unwrap();
    assert_eq!(settle_unit(backwards, options).unwrap(), outcome);
    let difference =
        |row: &crate::ledger::Content| row.billed.map(|b| b.checked_sub(row.estimated).unwrap());
    for (line, row) in &outcome.rows {
        let parts = row.quantity_variance.checked_add(row.price_variance).unwrap();
        assert_eq!(parts, difference(row).unwrap_or(Usd::ZERO), "{line:?}");
    }
    let list = |row: &crate::ledger::Content| row.list.or(row.billed);
    let lists: Option<Vec<i128>> =
        outcome.rows.iter().map(|(_, row)| Some(list(row)?.pico())).collect();
    if let Some(lists) = lists.filter(|lists| !lists.is_empty()) {
        let stated = input.bill.lines.iter().map(|line| line.before_discounts().pico());
        assert_eq!(lists.iter().sum::<i128>(), stated.sum::<i128>(), "before discounts");
    }
    outcome
}

/// The rows in short: `model meter owner: estimated > billed, quantity (quantity + price variance)`, and the findings.
fn story(
    lines: &[Value],
    usage: &[Value],
    estimates: &[Estimate],
    options: &Options,
) -> Vec<String> {
    let input = UnitInput {
        bill: bill(
            lines.iter().cloned().map(line).collect(),
            usage.iter().cloned().map(measured).collect(),
        ),
        estimates: estimates.to_vec(),
    };
    tell(&settled(&input, options))
}

fn tell(outcome: &UnitOutcome) -> Vec<String> {
    let row = |(line, row): &(LineId, crate::ledger::Content)| {
        let owner: Vec<String> = line.owner.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let text = |usd: Option<Usd>| usd.map_or("-".to_owned(), |usd| usd.to_string());
        let quantity = row.billed_quantity.map_or("-".to_owned(), |q| q.to_string());
        format!(
            "{} {:?} {}: {} > {}, {} ({} + {})",
            line.model,
            line.meter,
            owner.join(","),
            row.estimated,
            text(row.billed),
            quantity,
            row.quantity_variance,
            row.price_variance
        )
    };
    let rows = outcome.rows.iter().map(row);
    rows.chain(outcome.findings.iter().map(|finding| match finding {
        Finding::Unmetered(found) => {
            let quantity = found.quantity.map_or("-".to_owned(), |q| q.to_string());
            format!("! {:?} {} {} for {}", found.reason, found.label, quantity, found.amount)
        }
        Finding::Price(found) => {
            let (ours, billed) = (found.ours_per_million, found.billed_per_million);
            format!("! {} {:?} at {billed} not {ours}: {}", found.model, found.meter, found.effect)
        }
        Finding::Uncertain { quantity, amount, .. } => {
            format!("! uncertain {} for {amount}", quantity.unwrap_or_default())
        }
        Finding::QuantityUnknown { difference, .. } => format!("! quantity unknown {difference}"),
        Finding::NotBilled { model, estimated, .. } => format!("! not billed {model} {estimated}"),
        Finding::Variance { estimated, billed } => format!("! {billed} for {estimated}"),
    }))
    .collect()
}

fn two_users() -> Vec<Estimate> {
    vec![
        estimate("ann", "m", Meter::Input, "1", 1_000_000),
        estimate("bob", "m", Meter::Input, "2", 2_000_000),
    ]
}

fn holds(keys: &[&str]) -> Options {
    Options {
        known_credentials: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..Options::default()
    }
}

#[test]
fn a_bill_in_cents_is_allocated_to_the_last_digit() {
    let bill = json!({"model": "m", "amount": "3.01", "quantity": "3000", "unit": "1K tokens"});
    assert_eq!(
        story(&[bill], &[], &two_users(), &Options::default()),
        [
            "m Input user=ann: 1 > 1.003333333333, 1000000 (0 + 0.003333333333)",
            "m Input user=bob: 2 > 2.006666666667, 2000000 (0 + 0.006666666667)",
        ]
    );
}

#[test]
fn another_price_is_told_from_another_quantity() {
    // Twice the price for half of what was counted.
    let bill = json!({"model": "m", "amount": "3.00", "quantity": "1500000", "unit": "Tokens"});
    assert_eq!(
        story(&[bill], &[], &two_users(), &Options::default()),
        [
            "m Input user=ann: 1 > 1, 500000 (-0.5 + 0.5)",
            "m Input user=bob: 2 > 2, 1000000 (-1 + 1)",
            "! m Input at 2 not 1: 1.5",
        ]
    );
}

#[test]
fn use_beyond_the_counted_is_nobodys_to_the_token() {
    let bill = json!({"model": "m", "amount": "4", "quantity": "4000001", "unit": "Tokens"});
    assert_eq!(
        story(&[bill], &[], &two_users(), &Options::default()),
        [
            "m Input unmetered=org: 0 > 1.00000075, 1000001 (1.00000075 + 0)",
            "m Input user=ann: 1 > 0.99999975, 1000000 (0 + -0.00000025)",
            "m Input user=bob: 2 > 1.9999995, 2000000 (0 + -0.0000005)",
            "! BeyondMetered org 1000001 for 1.00000075",
        ]
    );
}

#[test]
fn strangers_credentials_are_unmetered_wholly() {
    let lines = [
        json!({"model": "m", "amount": "3", "quantity": "3000000", "unit": "Tokens", "credential": "ours"}),
        json!({"model": "m", "amount": "5", "quantity": "5000000", "unit": "Tokens", "credential": "leaked"}),
    ];
    let books = story(&lines, &[], &two_users(), &holds(&["ours"]));
    assert_eq!(books[0], "m Input unmetered=leaked: 0 > 5, 5000000 (5 + 0)");
    assert_eq!(books[2], "m Input user=bob: 2 > 2, 2000000 (0 + 0)");
    assert_eq!(books[3], "! UnknownCredential leaked 5000000 for 5");
    // Without a list of keys nothing is told by them: what is beyond the counted is found all the same.
    let books = story(&lines, &[], &two_users(), &Options::default());
    assert_eq!(books[0], "m Input unmetered=org: 0 > 5, 5000000 (5 + 0)");
}

#[test]
fn a_strangers_line_without_a_quantity_gets_what_was_measured_of_it() {
    let lines = [
        json!({"model": "m", "meter": "whole", "amount": "3", "credential": "ours"}),
        json!({"model": "m", "meter": "whole", "amount": "5", "credential": "leaked"}),
        json!({"meter": "whole", "amount": "1", "service": "Storage", "credential": "idle"}),
    ];
    let usage = [
        json!({"model": "m", "credential": "ours", "tokens": {"input": 3_000_000}}),
        json!({"model": "m", "credential": "leaked", "tokens": {"input": 20, "output": 5}}),
    ];
    let mut books = story(&lines, &usage, &two_users(), &holds(&["ours"]));
    assert_eq!(books.pop().unwrap(), "! 9 for 3");
    assert_eq!(
        books,
        [
            "Storage Whole unmetered=idle: 0 > 1, - (1 + 0)",
            "m Input unmetered=leaked: 0 > 4, 20 (4 + 0)",
            "m Input user=ann: 1 > 1, 1000000 (0 + 0)",
            "m Input user=bob: 2 > 2, 2000000 (0 + 0)",
            "m Output unmetered=leaked: 0 > 1, 5 (1 + 0)",
            "! UnknownCredential idle - for 1",
            "! UnknownCredential leaked 20 for 4",
            "! UnknownCredential leaked 5 for 1",
        ]
    );
}

#[test]
fn a_cost_that_nothing_can_be_weighed_by_is_one_row_of_nobodys() {
    let mut nobody = estimate("ann", "m", Meter::Input, "0", 0);
    nobody.line.owner.clear();
    nobody.requests = 0;
    let bill = json!({"model": "m", "amount": "1", "quantity": "0", "unit": "Tokens"});
    let books = story(&[bill], &[], &[nobody], &Options::default());
    assert_eq!(books, ["m Input : 0 > 1, 0 (1 + 0)"]);
}

#[test]
fn measured_usage_tells_what_a_cost_report_leaves_out() {
    let lines = [
        json!({"model": "m-20260101", "amount": "9", "tier": "standard"}),
        json!({"model": "m-20260101", "amount": "10", "meter": "output", "tier": "standard"}),
    ];
    let use_of = |key: &str, input: u64, output: u64| json!({"model": "m-20260101", "credential": key, "tokens": {"input": input, "output": output}});
    let usage = [use_of("ours", 3_000_000, 1000), use_of("leaked", 6_000_000, 0)];
    let mut estimates = two_users();
    estimates.push(estimate("ann", "m", Meter::Output, "10", 1000));
    assert_eq!(
        story(&lines, &usage, &estimates, &holds(&["ours"])),
        [
            "m Input unmetered=leaked: 0 > 6, 6000000 (6 + 0)",
            "m Input user=ann: 1 > 1, 1000000 (0 + 0)",
            "m Input user=bob: 2 > 2, 2000000 (0 + 0)",
            "m Output user=ann: 10 > 10, 1000 (0 + 0)",
            "! UnknownCredential leaked 6000000 for 6",
            "! 19 for 13",
        ]
    );
    // Measured, and none of it: a 0 is a 0.
    let usage = [json!({"model": "m-20260101", "tokens": {"input": 3_000_000}})];
    let books = story(&lines, &usage, &estimates, &Options::default());
    assert_eq!(books[2], "m Output user=ann: 10 > 10, 0 (-10 + 10)");
    // The same key used elsewhere: known by the key.
    let usage = [use_of("ours", 9_000_000, 1000)];
    let books = story(&lines, &usage, &estimates, &holds(&["ours"]));
    assert_eq!(books[0], "m Input unmetered=ours: 0 > 6, 6000000 (6 + 0)");
}

#[test]
fn a_line_for_a_whole_model_is_weighed_by_estimated_prices() {
    // Input at 1, output at 10 for a million: 2 million more input is a sixth of 12 + 2, twice the price.
    let lines = [json!({"model": "m", "meter": "whole", "amount": "28"})];
    let usage = [json!({"model": "m", "tokens": {"input": 4_000_000, "output": 1_000_000}})];
    let estimates = [
        estimate("ann", "m", Meter::Input, "2", 2_000_000),
        estimate("bob", "m", Meter::Output, "10", 1_000_000),
    ];
    assert_eq!(
        story(&lines, &usage, &estimates, &Options::default()),
        [
            "m Input unmetered=org: 0 > 4, 2000000 (4 + 0)",
            "m Input user=ann: 2 > 4, 2000000 (0 + 2)",
            "m Output user=bob: 10 > 20, 1000000 (0 + 10)",
            "! BeyondMetered org 2000000 for 4",
            "! 28 for 12",
        ]
    );
}

#[test]
fn a_days_total_covers_every_model_and_needs_no_quantity() {
    let lines = [json!({"meter": "whole", "amount": "6"})];
    let estimates =
        [estimate("ann", "a", Meter::Input, "1", 10), estimate("bob", "b", Meter::Output, "2", 10)];
    assert_eq!(
        story(&lines, &[], &estimates, &Options::default()),
        [
            "a Input user=ann: 1 > 2, - (0 + 1)",
            "b Output user=bob: 2 > 4, - (0 + 2)",
            "! quantity unknown 1",
            "! quantity unknown 2",
            "! 6 for 3",
        ]
    );
    // With quantities, use of one model beyond what was counted is told.
    let usage = [
        json!({"model": "a", "tokens": {"input": 10}}),
        json!({"model": "b", "tokens": {"output": 20}}),
    ];
    assert_eq!(
        story(&lines, &usage, &estimates, &Options::default())[..3],
        [
            "a Input user=ann: 1 > 1.2, 10 (0 + 0.2)",
            "b Output unmetered=org: 0 > 2.4, 10 (2.4 + 0)",
            "b Output user=bob: 2 > 2.4, 10 (0 + 0.4)",
        ]
    );
}

#[test]
fn stated_costs_follow_their_statement_and_still_show_a_leak() {
    let lines = [json!({"model": "m", "meter": "whole", "amount": "9"})];
    let usage = [json!({"model": "m", "tokens": {"input": 300}})];
    let estimates =
        [estimate("ann", "m", Meter::Input, "0", 100), estimate("ann", "m", Meter::Whole, "3", 0)];
    assert_eq!(
        story(&lines, &usage, &estimates, &Options::default()),
        [
            "m Input unmetered=org: 0 > 6, 200 (6 + 0)",
            "m Input user=ann: 0 > 0, 100 (0 + 0)",
            "m Whole user=ann: 3 > 3, - (0 + 0)",
            "! BeyondMetered org 200 for 6",
            "! 9 for 3",
        ]
    );
    // Statements without any counted tokens: no quantity can be beyond them.
    let books = story(&lines, &usage, &estimates[1..], &Options::default());
    assert_eq!(books[0], "m Whole user=ann: 3 > 9, - (0 + 6)");
}

#[test]
fn requests_of_unknown_use_explain_what_is_beyond_first() {
    let bill = json!({"model": "m", "amount": "3.7", "quantity": "3700000", "unit": "Tokens"});
    let mut estimates = two_users();
    // Charged with its hold, model unknown; and one that was never charged.
    estimates.push(uncertain("cy", "", "0.4", "0.4"));
    estimates.push(uncertain("dan", "m", "0", "0.2"));
    assert_eq!(
        story(std::slice::from_ref(&bill), &[], &estimates, &Options::default()),
        [
            " Whole user=cy: 0.4 > 0.4, - (0 + 0)",
            "m Input unmetered=org: 0 > 0.1, 100000 (0.1 + 0)",
            "m Input user=ann: 1 > 1, 1000000 (0 + 0)",
            "m Input user=bob: 2 > 2, 2000000 (0 + 0)",
            "m Whole user=dan: 0 > 0.2, - (0.2 + 0)",
            "! BeyondMetered org 100000 for 0.1",
            "! uncertain 600000 for 0.6",
        ]
    );
    // A request whose hold was charged and that the provider never billed.
    estimates.pop();
    let exact = json!({"model": "m", "amount": "3", "quantity": "3000000", "unit": "Tokens"});
    let books = story(&[exact], &[], &estimates, &Options::default());
    assert_eq!(books[0], " Whole user=cy: 0.4 > 0, - (-0.4 + 0)");
}

#[test]
fn tiers_are_folded_where_the_bill_folds_them_and_joined_where_it_used_another() {
    let bill = |tier: Option<&str>, amount: &str, tokens: &str| json!({"model": "m", "tier": tier, "amount": amount, "quantity": tokens, "unit": "Tokens"});
    let estimates = [
        estimate("ann", "m", Meter::Input, "1", 1_000_000),
        tiered("batch", estimate("ann", "m", Meter::Input, "0.5", 1_000_000)),
    ];
    let options = Options::default();
    let folded = story(&[bill(None, "1.5", "2000000")], &[], &estimates, &options);
    assert_eq!(folded.len(), 2, "{folded:?}");
    let apart = [bill(Some("default"), "2", "1000000"), bill(Some("batch"), "0.5", "1000000")];
    let apart = story(&apart, &[], &estimates, &options);
    assert_eq!(apart[0], "m Input user=ann: 0.5 > 0.5, 1000000 (0 + 0)");
    assert_eq!(apart[2], "! m Input at 2 not 1: 1");
    // Priced as standard, billed as priority: a price, not a leak and an unbilled model.
    let other = story(&[bill(Some("priority"), "2", "1000000")], &[], &estimates[..1], &options);
    assert_eq!(other, ["m Input user=ann: 1 > 2, 1000000 (0 + 1)", "! m Input at 2 not 1: 1"]);
}

#[test]
fn use_billed_on_another_tier_than_it_was_counted_on_is_no_leak() {
    let bill = |tier: &str, tokens: &str| json!({"model": "m", "tier": tier, "amount": "1", "quantity": tokens, "unit": "Tokens"});
    let leaks = |lines: &[Value], estimates: &[Estimate]| {
        let told = story(lines, &[], estimates, &Options::default());
        let leaks =
            told.iter().filter(|row| row.contains("BeyondMetered") || row.contains("NeverSeen"));
        leaks.cloned().collect::<Vec<_>>()
    };
    let standard = estimate("ann", "m", Meter::Input, "1", 1_000_000);
    let batch = tiered("batch", estimate("bob", "m", Meter::Input, "0.5", 1_000_000));
    // Both counted, all billed as standard; counted as standard, partly billed as batch.
    let none: [&str; 0] = [];
    assert_eq!(leaks(&[bill("standard", "2000000")], &[standard.clone(), batch.clone()]), none);
    let split = [bill("standard", "400000"), bill("batch", "600000")];
    assert_eq!(leaks(&split, std::slice::from_ref(&standard)), none);
    // A tier that fills no gap was used by somebody else.
    let more = [bill("standard", "1000000"), bill("batch", "600000")];
    assert_eq!(leaks(&more, std::slice::from_ref(&standard)), ["! NeverSeen org 600000 for 1"]);
    // Late is late: what is not billed yet does not take another tier's bill.
    let late = story(&[bill("standard", "1000000")], &[], &[standard, batch], &Options::default());
    assert!(late.contains(&"m Input user=ann: 1 > 1, 1000000 (0 + 0)".to_owned()), "{late:?}");
}

#[test]
fn accounts_are_kept_apart_where_both_sides_know_them() {
    let on = |account: &str, tokens: &str| json!({"model": "m", "account": account, "amount": "1", "quantity": tokens, "unit": "Tokens"});
    let known = estimate("ann", "m", Meter::Input, "1", 1_000_000);
    let lines = [on("org", "1000000"), on("shadow", "7")];
    let books = story(&lines, &[], std::slice::from_ref(&known), &Options::default());
    assert_eq!(books[1], "m Input unmetered=shadow: 0 > 1, 7 (1 + 0)");
    assert_eq!(books[2], "! NeverSeen shadow 7 for 1");
    // Not known to us: any account's, and what is beyond the counted is no single account's.
    let mut unknown = known;
    unknown.line.account = String::new();
    let books = story(&lines, &[], &[unknown], &Options::default());
    assert!(books.iter().any(|row| row.starts_with("! BeyondMetered p 7 for ")), "{books:?}");
}

#[test]
fn taxes_follow_the_bill_and_credits_are_nobodys() {
    let lines = [
        json!({"model": "m", "amount": "4", "quantity": "4000000", "unit": "Tokens"}),
        json!({"kind": "tax", "meter": "whole", "amount": "0.4", "service": "VAT"}),
        json!({"kind": "credit", "meter": "whole", "amount": "-1", "service": "Promo"}),
    ];
    assert_eq!(
        story(&lines, &[], &two_users(), &Options::default())[..4],
        [
            "Promo Whole : 0 > -1, - (-1 + 0)",
            "VAT Whole unmetered=org: 0 > 0.1, - (0.1 + 0)",
            "VAT Whole user=ann: 0 > 0.1, - (0.1 + 0)",
            "VAT Whole user=bob: 0 > 0.2, - (0.2 + 0)",
        ]
    );
}

#[test]
fn harness_costs_are_joined_by_tags() {
    let lines = [
        json!({"meter": "whole", "amount": "4", "service": "S3", "tags": {"app": "shop"}, "quantity": "3", "unit": "GB"}),
        json!({"meter": "whole", "amount": "1", "service": "S3"}),
    ];
    let tags = BTreeMap::from([("app".to_owned(), "app".to_owned())]);
    let options = Options { tag_owners: tags, ..Options::default() };
    assert_eq!(
        story(&lines, &[], &[], &options)[..2],
        ["S3 Whole : 0 > 1, - (1 + 0)", "S3 Whole app=shop: 0 > 4, - (4 + 0)"]
    );
    // Beside lines that name models, too: they are not the models' owners'.
    let mut lines = lines.to_vec();
    lines.push(json!({"model": "m", "amount": "3", "quantity": "3000000", "unit": "Tokens"}));
    let books = story(&lines, &[], &two_users(), &options);
    assert_eq!(books[2], "m Input user=ann: 1 > 1, 1000000 (0 + 0)");
}

#[test]
fn without_a_bill_the_estimate_is_all_there_is() {
    let books = story(&[], &[], &two_users()[..1], &Options::default());
    assert_eq!(books, ["m Input user=ann: 1 > -, - (0 + 0)"]);
    // What was measured warns of a leak at once.
    let usage = [
        json!({"model": "m", "credential": "ours", "tokens": {"input": 1_000_000}}),
        json!({"model": "m", "credential": "leaked", "tokens": {"input": 5, "output": 6}}),
    ];
    let mut estimates = two_users()[..1].to_vec();
    let warned = story(&[], &usage, &estimates, &holds(&["ours"]));
    let known = ["! UnknownCredential leaked 5 for 0", "! UnknownCredential leaked 6 for 0"];
    assert_eq!(warned[1..], known);
    let warned = story(&[], &usage, &estimates, &Options::default());
    assert_eq!(warned[1..], ["! NeverSeen leaked 6 for 0", "! BeyondMetered org 5 for 0"]);
    // Where requests of unknown use may be behind it, only the key says so for certain.
    estimates.push(uncertain("cy", "m", "0", "9"));
    assert_eq!(story(&[], &usage, &estimates, &holds(&["ours"]))[2..], known);
    assert_eq!(story(&[], &usage, &estimates, &Options::default()).len(), 2);
}

#[test]
fn what_is_no_longer_there_is_withdrawn_and_what_is_not_billed_is_said() {
    let lines =
        vec![line(json!({"model": "other", "amount": "0", "quantity": "0", "unit": "Tokens"}))];
    let estimates = vec![estimate("ann", "m", Meter::Input, "7", 1_000_000)];
    let gone = estimate("bob", "m", Meter::Input, "2", 1).line;
    let mut input = UnitInput { bill: bill(lines, Vec::new()), estimates };
    input.bill.previous = vec![input.estimates[0].line.clone(), gone];
    assert_eq!(
        tell(&settled(&input, &Options::default())),
        [
            "m Input user=ann: 7 > 0, - (-7 + 0)",
            "m Input user=bob: 0 > 0, - (0 + 0)",
            "! not billed m 7",
            "! 0 for 7",
        ]
    );
}

#[test]
fn a_unit_that_is_not_understood_counts_as_no_quantity() {
    let bill = json!({"model": "m", "amount": "4", "quantity": "4", "unit": "Bananas"});
    let input = UnitInput { bill: bill_of(bill), estimates: two_users() };
    let outcome = settled(&input, &Options::default());
    let units = BTreeSet::from(["Bananas".to_owned()]);
    assert!(outcome.findings.iter().any(|finding| matches!(
        finding,
        Finding::QuantityUnknown { units: told, .. } if *told == units
    )));
}

fn bill_of(fields: Value) -> UnitBill {
    bill(vec![line(fields)], Vec::new())
}

#[test]
fn input_that_belongs_elsewhere_is_named() {
    let told = |change: &dyn Fn(&mut UnitInput)| {
        let lines = bill_of(json!({"model": "m", "amount": "1"}));
        let mut input = UnitInput { bill: lines, estimates: two_users() };
        change(&mut input);
        settle_unit(input, &Options::default()).unwrap_err().to_string()
    };
    let month = told(&|input| input.bill.lines[0].end = Timestamp::from_ms((DAY + 2) * DAY_MS));
    assert!(month.contains("spread_over_days"), "{month}");
    let other = told(&|input| input.bill.lines[0].provider = "q".into());
    assert!(other.contains("`q` in the unit ws_acme#2026-11-20#p"), "{other}");
    let other = told(&|input| input.estimates[0].provider = "q".into());
    assert!(other.contains("`q`, Usage"), "{other}");
    let negative = told(&|input| input.estimates[0].estimated = Usd::from_pico(-1));
    assert!(negative.contains("is negative"), "{negative}");
    let day = told(&|input| input.bill.unit.day = "yesterday".into());
    assert!(day.contains("YYYY-MM-DD"), "{day}");
    let huge = told(&|input| {
        let line = input.bill.lines[0].clone();
        input.bill.lines[0].amount = Usd::from_pico(i128::MAX);
        input.bill.lines.push(BillLine { amount: Usd::from_pico(1), ..line });
    });
    assert!(huge.contains("overflows"), "{huge}");
}
