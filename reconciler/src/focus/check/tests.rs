use std::collections::BTreeMap;

use super::*;
use crate::bill::{ChargeKind, Meter};
use crate::focus::charges::{Account, Prepaid};
use crate::focus::charges_tests::{World, revision};
use crate::focus::csv::CsvTable;
use crate::focus::export::Record;
use crate::focus::invoices::{BillingPeriodRow, InvoiceIndex};
use crate::focus::month::Month;
use crate::ledger::Revision;

const USAGE: usize = 0;
const SPLIT: usize = 1;
const TAX: usize = 3;
const CREDIT: usize = 4;
const PURCHASE: usize = 5;
const DRAWN: usize = 6;
const REVERSAL: usize = 7;

fn of_kind(kind: ChargeKind, amount: &str) -> Revision {
    let mut line = revision("t", Some(amount), 0);
    line.line.kind = kind;
    line.line.meter = Meter::Whole;
    line
}

fn part(team: &str, billed: &str) -> Revision {
    let mut part = revision(team, Some(billed), 3_000_000);
    part.content.method = "proportional".into();
    part
}

/// Good rows of every kind, in the order of the constants.
fn rows() -> Vec<FocusRow> {
    let world = World::new();
    let one = |line: Revision| world.rows(&[line], "2026-11");
    let mut rows = one(revision("usage", Some("39.9"), 8_400_000));
    rows.extend(world.rows(&[part("a", "10"), part("b", "20.000000000001")], "2026-11"));
    rows.extend(one(of_kind(ChargeKind::Tax, "1.9")));
    rows.extend(one(of_kind(ChargeKind::Credit, "-5")));
    let mut prepaid = World::new();
    let balance = Some(Prepaid { id: "bal".into(), name: "Balance".into() });
    let account = Account { name: None, prepaid: balance };
    prepaid.accounts.insert(("openai".into(), "org-1".into()), account);
    rows.extend(prepaid.rows(&[of_kind(ChargeKind::Purchase, "500")], "2026-11"));
    rows.extend(prepaid.rows(&[revision("drawn", Some("3"), 600_000)], "2026-11"));
    let mut later = revision("corrected", Some("4"), 1_000_000);
    (later.rev, later.booked_in) = (2, Some("2026-12".into()));
    rows.extend(world.rows(&[revision("corrected", Some("5"), 1_000_000), later], "2026-12"));
    assert_eq!(rows.len(), 9);
    rows
}

/// The CSV file of the rows as fields, header first.
fn file(version: Version) -> Vec<Vec<String>> {
    let mut table = CsvTable::new(Vec::new(), FocusRow::columns(version)).unwrap();
    rows().iter().for_each(|row| table.push(row).unwrap());
    let bytes = table.finish().unwrap();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes.as_slice());
    let fields = |record: csv::StringRecord| record.iter().map(str::to_owned).collect();
    reader.records().map(|record| fields(record.unwrap())).collect()
}

fn findings(fields: &[Vec<String>], version: Version) -> Findings {
    let mut out = csv::Writer::from_writer(Vec::new());
    fields.iter().for_each(|record| out.write_record(record).unwrap());
    check_csv(out.into_inner().unwrap().as_slice(), version, None)
}

/// The rules that are broken when these fields of one row say something else.
fn broken(row: usize, changes: &[(&str, &str)]) -> Vec<Rule> {
    let mut fields = file(Version::V1_4);
    for (column, value) in changes {
        let place = fields[0].iter().position(|name| name == column).unwrap();
        fields[row + 1][place] = (*value).to_owned();
    }
    let mut rules: Vec<_> =
        findings(&fields, Version::V1_4).problems.iter().map(|problem| problem.rule).collect();
    rules.sort();
    rules.dedup();
    rules
}

#[test]
fn good_rows_and_files_are_clean() {
    for version in [Version::V1_2, Version::V1_4] {
        let found = check_rows(&rows(), version, None);
        assert!(found.is_clean(), "{:?}", found.problems);
        let found = findings(&file(version), version);
        assert!(found.is_clean() && found.rows == 9, "{:?}", found.problems);
    }
}

/// The rule, the row, and what the row says instead.
type Case = (Rule, usize, &'static [(&'static str, &'static str)]);

#[test]
fn every_rule_broken_once_is_caught() {
    let cases: &[Case] = &[
        (Rule::NotNull, USAGE, &[("BilledCost", "")]),
        (Rule::NotNull, USAGE, &[("x_WorkspaceId", "")]),
        (Rule::Decimal, USAGE, &[("BilledCost", "39,9")]),
        (Rule::Decimal, USAGE, &[("BilledCost", "+39.9")]),
        (Rule::Decimal, USAGE, &[("BilledCost", "3.99E1")]),
        (Rule::Decimal, USAGE, &[("BilledCost", "39.9000000000001")]),
        (Rule::NotNegative, USAGE, &[("ListUnitPrice", "-5.0")]),
        (Rule::AllowedValue, USAGE, &[("ChargeCategory", "Foo")]),
        (Rule::AllowedValue, USAGE, &[("ChargeFrequency", "Weekly")]),
        (Rule::AllowedValue, USAGE, &[("ServiceCategory", "AI")]),
        (Rule::DateTime, USAGE, &[("ChargePeriodStart", "2026-11-20 00:00:00")]),
        (Rule::DateTime, USAGE, &[("ChargePeriodStart", "2026-11-20T00:00:00.000Z")]),
        (Rule::Currency, USAGE, &[("BillingCurrency", "EUR")]),
        (Rule::Unit, USAGE, &[("PricingUnit", "1M tokens")]),
        (Rule::Json, USAGE, &[("Tags", r#"{"team":["a"]}"#)]),
        (Rule::Json, USAGE, &[("Tags", r#"{"team":"a","team":"b"}"#)]),
        (Rule::Json, USAGE, &[("Tags", "team=a")]),
        (Rule::Json, SPLIT, &[("AllocatedMethodDetails", "[]")]),
        (Rule::Period, USAGE, &[("BillingPeriodEnd", "2026-11-30T00:00:00Z")]),
        (Rule::Period, USAGE, &[("ChargePeriodEnd", "2026-11-20T00:00:00Z")]),
        (Rule::Period, USAGE, &[("ChargePeriodEnd", "2026-12-02T00:00:00Z")]),
        (
            Rule::Period,
            REVERSAL,
            &[
                ("BillingPeriodStart", "2026-11-01T00:00:00Z"),
                ("BillingPeriodEnd", "2026-12-01T00:00:00Z"),
            ],
        ),
        (Rule::Identity, USAGE, &[("ListCost", "42.000000000001")]),
        (Rule::Identity, USAGE, &[("ContractedCost", "39.8")]),
        (Rule::Identity, REVERSAL, &[("ListCost", "5.0")]),
        (Rule::Costs, TAX, &[("EffectiveCost", "0.0"), ("PricingCurrencyEffectiveCost", "0.0")]),
        (Rule::Costs, CREDIT, &[("BilledCost", "-4.0")]),
        (
            Rule::Costs,
            PURCHASE,
            &[("EffectiveCost", "500.0"), ("PricingCurrencyEffectiveCost", "500.0")],
        ),
        (Rule::Costs, DRAWN, &[("BilledCost", "3.0")]),
        (Rule::Costs, USAGE, &[("x_CostBasis", "Estimated")]),
        (Rule::Costs, USAGE, &[("PricingCurrencyEffectiveCost", "1.0")]),
        (Rule::Costs, USAGE, &[("PricingCurrencyListUnitPrice", "1.0")]),
        (Rule::Pair, USAGE, &[("ConsumedUnit", "")]),
        (Rule::Pair, USAGE, &[("RegionId", "eu-central-1")]),
        (Rule::Pair, DRAWN, &[("CommitmentDiscountUnit", "")]),
        (
            Rule::Sku,
            USAGE,
            &[("ContractedUnitPrice", ""), ("PricingCurrencyContractedUnitPrice", "")],
        ),
        (Rule::Sku, USAGE, &[("ConsumedQuantity", ""), ("ConsumedUnit", "")]),
        (Rule::Sku, USAGE, &[("SkuPriceId", ""), ("SkuId", "")]),
        (Rule::Sku, USAGE, &[("SkuId", "other")]),
        (Rule::Frequency, PURCHASE, &[("ChargeFrequency", "Usage-Based")]),
        (Rule::Correction, USAGE, &[("x_CorrectionStep", "Reversal")]),
        (Rule::Correction, REVERSAL, &[("x_ChargeId", "other")]),
        (Rule::Service, USAGE, &[("ServiceSubcategory", "Search")]),
        (
            Rule::Service,
            USAGE,
            &[("ServiceCategory", "Other"), ("ServiceSubcategory", "Other (Other)")],
        ),
        (Rule::Allocation, SPLIT, &[("AllocatedResourceId", "")]),
        (Rule::Allocation, SPLIT, &[("AllocatedTags", "{}")]),
        (
            Rule::Allocation,
            SPLIT,
            &[("AllocatedMethodDetails", r#"{"Elements":[{"UsageQuantity":1}]}"#)],
        ),
        (
            Rule::RatioSum,
            SPLIT,
            &[("AllocatedMethodDetails", r#"{"Elements":[{"AllocatedRatio":0.333333333334}]}"#)],
        ),
    ];
    for (rule, row, changes) in cases {
        let rules = broken(*row, changes);
        assert!(rules.contains(rule), "{rule:?} is not among {rules:?} for {changes:?}");
    }
}

#[test]
fn a_charge_that_stands_twice_is_caught() {
    let mut fields = file(Version::V1_4);
    fields.push(fields[1].clone());
    assert_eq!(findings(&fields, Version::V1_4).problems[0].rule, Rule::Unique);
}

#[test]
fn a_missing_or_moved_column_is_named() {
    let mut fields = file(Version::V1_4);
    fields.iter_mut().for_each(|record| record.swap(0, 1));
    assert_eq!(findings(&fields, Version::V1_4).problems[0].rule, Rule::Header);
    fields.iter_mut().for_each(|record| drop(record.remove(0)));
    let found = findings(&fields, Version::V1_4);
    assert_eq!(found.problems[0].rule, Rule::Header);
    assert!(found.problems[0].what.contains("`AllocatedMethodId` is missing"));
}

#[test]
fn a_file_that_ends_in_the_middle_of_a_row_is_caught() {
    let mut fields = file(Version::V1_4);
    fields[3].truncate(9);
    let mut out = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    fields.iter().for_each(|record| out.write_record(record).unwrap());
    let found = check_csv(out.into_inner().unwrap().as_slice(), Version::V1_4, None);
    assert_eq!((found.problems[0].rule, found.problems[0].row), (Rule::Header, 3));
}

#[test]
fn charges_that_do_not_add_up_to_their_invoice_are_caught() {
    let line = |kind: &str, amount: &str| {
        serde_json::from_str(&format!(
            r#"{{"provider":"openai","account":"org-1","start":0,"end":1,"kind":"{kind}","service":"s",
             "description":"d","meter":"input","amount":"{amount}","invoice_id":"INV-1"}}"#
        ))
        .unwrap()
    };
    let check_of = |amount: &str, kinds: &[&str], invoice: Option<&str>, version| {
        let mut world = World::new();
        world.invoices = InvoiceIndex::default();
        for kind in kinds {
            world.invoices.add(&line(kind, amount), Month::parse("2026-11").unwrap()).unwrap();
        }
        let details = world.invoices.details(&BTreeMap::new());
        let mut rows = world.rows(&[revision("a", Some("39.9"), 8_400_000)], "2026-11");
        rows[0].invoice = invoice.map(str::to_owned);
        check_rows(&rows, version, Some(&details))
    };
    let check =
        |amount: &str, kinds: &[&str], version| check_of(amount, kinds, Some("INV-1"), version);
    for version in [Version::V1_2, Version::V1_4] {
        assert!(check("39.9", &["usage"], version).is_clean());
        // A charge that names no invoice could be the invoice's use, and is no tax.
        assert!(check_of("9", &["usage"], None, version).is_clean());
        assert_eq!(check_of("9", &["tax"], None, version).total, 1);
        let short = check("39.900000000001", &["usage"], version);
        assert_eq!(short.problems[0].rule, Rule::InvoiceSum);
        // An invoice that has a tax only, and a charge of use on it.
        let rules: Vec<_> =
            check("39.9", &["tax"], version).problems.iter().map(|p| p.rule).collect();
        assert_eq!(rules, [Rule::InvoiceSum, Rule::InvoiceSum]);
    }
}

#[test]
fn other_tables_are_checked_column_by_column() {
    let month = Month::parse("2026-11").unwrap();
    let row = BillingPeriodRow::new(month, "openai", true, month.end());
    let mut table = CsvTable::new(Vec::new(), BillingPeriodRow::columns(Version::V1_4)).unwrap();
    table.push(&row).unwrap();
    let good = String::from_utf8(table.finish().unwrap()).unwrap();
    let check = |text: &str| check_table::<BillingPeriodRow>(text.as_bytes(), Version::V1_4);
    assert!(check(&good).is_clean());
    let (_, line) = good.split_once('\n').unwrap();
    assert_eq!(check(&format!("{good}{line}")).problems[0].rule, Rule::Unique);
    assert_eq!(check(&good.replace("Closed", "Done")).problems[0].rule, Rule::AllowedValue);
    assert_eq!(check(&good.replace("OpenAI", "")).problems[0].rule, Rule::NotNull);
}

#[test]
fn a_file_in_which_all_is_wrong_is_counted_and_not_listed() {
    let mut fields = file(Version::V1_4);
    let row = fields[1].clone();
    fields.extend(std::iter::repeat_n(row, 500));
    let found = findings(&fields, Version::V1_4);
    assert_eq!((found.total, found.problems.len()), (500, Findings::SHOWN));
}
