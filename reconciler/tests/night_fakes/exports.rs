//! What nights export, before the project's own checks: the files themselves, with the charges added up to the invoices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tallygate_reconciler::focus::check::{check_csv, check_table};
use tallygate_reconciler::focus::columns::Version;
use tallygate_reconciler::focus::export::Part;
use tallygate_reconciler::focus::invoices::{BillingPeriodRow, InvoiceDetailRow, InvoiceFacts};
use tallygate_reconciler::focus::month::Month;
use tallygate_reconciler::focus::row::Category;
use tallygate_reconciler::night::export::Delivery;
use tallygate_reconciler::night::run::Clock as _;
use tallygate_reconciler::stores::local;
use tallygate_shared::focus_export::FocusTable;
use tallygate_shared::money::Usd;

use crate::world::{DAY, World};

/// A row by the names of its columns.
type Row = BTreeMap<String, String>;

/// The tables of an export, as their CSV files of FOCUS 1.4 have them.
struct Tables {
    charges: Vec<Row>,
    details: Vec<Row>,
    periods: Vec<Row>,
}

impl Tables {
    /// The charges of a provider's kind.
    fn of(&self, issuer: &str, kind: &str) -> Vec<&Row> {
        let of = |row: &&Row| row["InvoiceIssuerName"] == issuer && row["x_ChargeKind"] == kind;
        self.charges.iter().filter(of).collect()
    }

    fn sum(&self, column: &str) -> Usd {
        let amounts = self.charges.iter().map(|row| row[column].parse::<Usd>().unwrap());
        amounts.fold(Usd::ZERO, |sum, amount| sum.checked_add(amount).unwrap())
    }
}

/// The files of a table one behind the other, under a single header.
fn whole(parts: &[Part], folder: &str) -> String {
    let mut text = String::new();
    for part in parts.iter().filter(|part| part.key.contains(&format!("/{folder}/"))) {
        let file = std::fs::read_to_string(&part.path).unwrap();
        let header = file.split_inclusive('\n').next().unwrap();
        text.push_str(if text.is_empty() { &file } else { &file[header.len()..] });
    }
    text
}

fn rows(text: &str) -> Vec<Row> {
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
}

fn detail(row: &Row) -> InvoiceDetailRow {
    let categories = [
        Category::Usage,
        Category::Purchase,
        Category::Tax,
        Category::Credit,
        Category::Adjustment,
    ];
    let billing = Month::parse(&row["BillingPeriodStart"][..7]).unwrap();
    InvoiceDetailRow {
        billing,
        account: row["BillingAccountId"].clone(),
        issuer: row["InvoiceIssuerName"].clone(),
        invoice: row["InvoiceId"].clone(),
        detail: row["InvoiceDetailId"].clone(),
        category: categories
            .into_iter()
            .find(|category| category.as_str() == row["ChargeCategory"])
            .unwrap(),
        billed: row["BilledCost"].parse().unwrap(),
        facts: InvoiceFacts::of_month(billing),
    }
}

/// Exports a month, and asks the project's own checks of every file.
async fn exported(world: &World, month: &str) -> (Tables, Delivery) {
    let delivery = world.export(month).await;
    let table = |folder: &str| whole(&delivery.parts, folder);
    let details = table("focus_1_4_csv/invoice_detail");
    let periods = table("focus_1_4_csv/billing_period");
    let said: Vec<_> = rows(&details).iter().map(detail).collect();
    for (version, folder) in [
        (Version::V1_4, "focus_1_4_csv/cost_and_usage"),
        (Version::V1_2, "focus_1_2_csv/cost_and_usage"),
    ] {
        let found = check_csv(table(folder).as_bytes(), version, Some(&said));
        assert!(found.rows > 0 && found.is_clean(), "{folder}: {:#?}", found.problems);
    }
    if !details.is_empty() {
        let found = check_table::<InvoiceDetailRow>(details.as_bytes(), Version::V1_4);
        assert!(found.is_clean(), "invoice details: {:#?}", found.problems);
    }
    let found = check_table::<BillingPeriodRow>(periods.as_bytes(), Version::V1_4);
    assert!(found.rows > 0 && found.is_clean(), "billing periods: {:#?}", found.problems);
    let charges = rows(&table("focus_1_4_csv/cost_and_usage"));
    (Tables { charges, details: rows(&details), periods: rows(&periods) }, delivery)
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

/// A bill line of the day: kind, service, model, item, count, cost, list, tier, invoice.
fn line(text: &str) -> String {
    format!("{DAY},{DAY},{text}\n")
}

#[tokio::test]
async fn charges_without_an_invoice_are_put_on_nobody_elses() {
    let world = World::new(2).await;
    world
        .drop_full(
            "openai/1",
            &[
                line("use,API,gpt-5,in,100,1000,,,"),
                line("use,API,gpt-5-mini,in,100,100,,,INV-9"),
                line("tax,API,,,,7,,,INV-9"),
            ]
            .concat(),
        )
        .await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let (tables, _) = exported(&world, "2026-11").await;
    let invoices = |kind| -> Vec<&str> {
        tables.of("OpenAI", kind).iter().map(|row| row["InvoiceId"].as_str()).collect()
    };
    assert_eq!(invoices("Usage"), ["", ""], "either could be on it");
    assert_eq!(invoices("Tax"), ["INV-9"]);
}

#[tokio::test]
async fn a_month_is_exported_whole_and_its_billing_periods_last() {
    let world = World::new(2).await;
    world.drop_full("openai/1", &line("use,API,gpt-5,in,100,1,,,INV-1")).await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let (_, first) = exported(&world, "2026-11").await;
    let (_, second) = exported(&world, "2026-11").await;
    // Made in one millisecond, and two exports all the same.
    let now = u64::try_from(world.watch.now().ms()).unwrap();
    assert_eq!((first.number, second.number), (now, now + 1));
    let numbered = format!("/part-r{}-", second.number);
    assert!(second.parts.iter().all(|part| part.key.contains(&numbered)));
    // Queries take an export for made when its billing periods are there.
    for folder in ["focus_1_4/", "focus_1_4_csv/"] {
        let of = second.parts.iter().filter(|part| part.key.contains(folder));
        let tables: Vec<FocusTable> = of.map(|part| part.table).collect();
        let order =
            [FocusTable::CostAndUsage, FocusTable::InvoiceDetail, FocusTable::BillingPeriod];
        assert_eq!(tables, order, "{folder}");
    }
}

#[tokio::test]
async fn what_books_that_begin_anew_export_is_the_newer_export() {
    let mut world = World::new(2).await;
    world.drop_full("openai/1", &line("use,API,gpt-5,in,100,1,,,INV-1")).await;
    world.night().await;
    let (_, before) = exported(&world, "2026-11").await;
    // The ledger is lost, and the objects are not.
    let (ledger, _) = local::open(&world.directory.path().join("anew")).await.unwrap();
    world.ledger = Arc::new(ledger);
    world.watch.now_ms.fetch_add(1000, Ordering::SeqCst);
    world.night().await;
    let (_, after) = exported(&world, "2026-11").await;
    assert!(after.number > before.number, "{} and {}", after.number, before.number);
}

#[tokio::test]
async fn a_billing_period_is_an_issuers_once() {
    let world = World::new(2).await;
    world.drop_full("aws/1", &line("use,Amazon OpenSearch Service,,,,2,,,")).await;
    world.drop_full("bedrock/1", &line("use,Amazon Bedrock,nova-pro,in,100,3,,,")).await;
    world.drop_full("vertex/1", &line("use,Vertex AI,gemini-3-pro,in,100,3,,,")).await;
    world.drop("google/1", &format!("{DAY},{DAY},m,in,100,0.02\n")).await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let (tables, _) = exported(&world, "2026-11").await;
    let issuers: Vec<&str> =
        tables.periods.iter().map(|row| row["InvoiceIssuerName"].as_str()).collect();
    assert_eq!(issuers, ["Amazon Web Services", "Google"]);
}

#[tokio::test]
async fn what_is_paid_ahead_costs_when_it_is_used() {
    let world = World::new(2).await;
    world
        .drop_full(
            "openai/1",
            &[
                line("bought,API credit,,,,100,,prepaid,INV-1"),
                line("use,API,gpt-5,in,100,10,,,INV-1"),
                line("credit,API credit drawn,,,,-10,,prepaid,INV-1"),
                line("credit,Promotion,,,,-1,,,INV-1"),
            ]
            .concat(),
        )
        .await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let (tables, _) = exported(&world, "2026-11").await;
    assert_eq!(tables.sum("BilledCost"), usd("99"));
    assert_eq!(tables.sum("EffectiveCost"), usd("9"), "the use less what was given");
    let categories: Vec<&str> =
        tables.details.iter().map(|row| row["ChargeCategory"].as_str()).collect();
    assert_eq!(categories, ["Usage", "Purchase", "Credit", "Adjustment"]);
}

#[tokio::test]
async fn use_of_a_configured_balance_is_not_billed_again() {
    let world = World::new(2).await;
    world
        .drop_full(
            "vertex/1",
            &[
                line("bought,Credit,,,,50,,prepaid,INV-1"),
                line("use,Vertex AI,gemini-3-pro,in,100,3,,,"),
            ]
            .concat(),
        )
        .await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let (tables, _) = exported(&world, "2026-11").await;
    let said = |kind| {
        let [row] = tables.of("Google", kind)[..] else { panic!("{kind}") };
        let columns = [
            "BillingAccountName",
            "CommitmentDiscountId",
            "BilledCost",
            "EffectiveCost",
            "InvoiceId",
        ];
        columns.map(|column| row[column].clone()).join(" ")
    };
    assert_eq!(said("Purchase"), "Acme balance-1 50.0 0.0 INV-1");
    assert_eq!(said("Usage"), "Acme balance-1 0.0 3.0 ");
}

#[tokio::test]
async fn seats_are_counted_and_list_prices_told_apart() {
    let world = World::new(2).await;
    world.drop_full("github_copilot/1", &line("seat,Copilot Business,,,12,228,252,,INV-C")).await;
    world.drop_full("github_copilot/2", &line("use,Premium requests,,,,0,40,,INV-C")).await;
    world.drop_full("aws/1", &line("use,Amazon OpenSearch Service,,,,90,100,,")).await;
    world.drop_full("openai/1", &line("use,API,a-model-of-ours,in,3000000,9,12,,INV-O")).await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let (tables, _) = exported(&world, "2026-11").await;
    let said = |issuer, kind| {
        let [row] = tables.of(issuer, kind)[..] else { panic!("{issuer} {kind}") };
        let columns =
            ["PricingQuantity", "PricingUnit", "ListCost", "ContractedCost", "BilledCost"];
        columns.map(|column| row[column].clone()).join(" ")
    };
    assert_eq!(said("GitHub", "Seat"), "12.0 Seats 252.0 228.0 228.0");
    assert_eq!(said("GitHub", "Usage"), "40.0 USD 40.0 0.0 0.0");
    assert_eq!(said("Amazon Web Services", "Usage"), "100.0 USD 100.0 90.0 90.0");
    assert_eq!(said("OpenAI", "Usage"), "3.0 1000000 Tokens 12.0 9.0 9.0");
}

#[tokio::test]
async fn a_corrected_month_adds_up_to_its_invoices_before_and_after() {
    let world = World::new(40).await;
    let october = "2026-10-15,2026-10-15,";
    let use_of = |cost: &str| format!("use,API,gpt-5,in,100,{cost},,,");
    let (first, own) = (use_of("10"), line(&format!("{}INV-11", use_of("3"))));
    world.drop_full("openai/1", &format!("{october}{first}INV-10\n{own}")).await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    exported(&world, "2026-10").await;
    world.close("2026-10").await;
    let late = use_of("0.5");
    world.drop_full("openai/2", &format!("{october}{late}INV-10\n")).await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let (closed, _) = exported(&world, "2026-10").await;
    assert_eq!((closed.sum("BilledCost"), closed.details.len()), (usd("10"), 1));
    let (open, _) = exported(&world, "2026-11").await;
    assert_eq!(open.sum("BilledCost"), usd("3.5"));
    let invoices: Vec<(&str, &str)> = open
        .charges
        .iter()
        .map(|row| (row["x_CorrectionStep"].as_str(), row["InvoiceId"].as_str()))
        .collect();
    assert_eq!(invoices, [("Reversal", ""), ("Restatement", ""), ("", "INV-11")]);
}

#[tokio::test]
async fn all_that_a_month_has_is_exported_for_others_to_read() {
    let world = World::new(40).await;
    world.event(DAY, 1, "a", 100, "0.01");
    world.event(DAY, 2, "b", 200, "0.02");
    world.drop("google/1", &format!("{DAY},{DAY},m,in,400,0.0400000001\n")).await;
    let october = "2026-10-15,2026-10-15,use,API,gpt-5,in,100,";
    world.drop_full("openai/1", &format!("{october}10,,,INV-10\n")).await;
    let november = [
        line("bought,API credit,,,,100,,prepaid,INV-11"),
        line("use,API,gpt-5,in,3000000,10,,,INV-11"),
        line("use,API,a-model-of-ours,in,3000000,9,12,batch,INV-11"),
        line("credit,API credit drawn,,,,-10,,prepaid,INV-11"),
        line("credit,Promotion,,,,-1,,,INV-11"),
        line("discount,Volume,,,,-0.5,,,INV-11"),
        line("tax,VAT,,,,7,,,INV-11"),
    ];
    world.drop_full("openai/2", &november.concat()).await;
    let seats = line("seat,Copilot Business,,,12,228,252,,INV-C");
    let requests = line("use,Premium requests,,,,0,40,,INV-C");
    world.drop_full("github_copilot/1", &format!("{seats}{requests}")).await;
    world.drop_full("aws/1", &line("use,Amazon OpenSearch Service,,,,90,100,,INV-A")).await;
    world.drop_full("bedrock/1", &line("use,Amazon Bedrock,nova-pro,in,100,3,,,INV-A")).await;
    let balance = line("bought,Credit,,,,50,,prepaid,INV-V");
    let drawn = line("use,Vertex AI,gemini-3-pro,in,100,3,,,");
    world.drop_full("vertex/1", &format!("{balance}{drawn}")).await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    world.close("2026-10").await;
    world.drop_full("openai/3", &format!("{october}0.5,,,INV-10\n")).await;
    assert_eq!(world.night().await.missing, BTreeMap::new());
    let (tables, delivery) = exported(&world, "2026-11").await;
    let split = tables.charges.iter().filter(|row| !row["AllocatedMethodId"].is_empty());
    assert_eq!((split.count(), tables.periods.len()), (2, 4));
    // For the public validators.
    let Some(keep) = std::env::var_os("TALLYGATE_KEEP_EXPORT") else { return };
    let keep = std::path::Path::new(&keep);
    for (folder, file) in [
        ("focus_1_4_csv/cost_and_usage", "cost_and_usage_focus_1_4.csv"),
        ("focus_1_4_csv/invoice_detail", "invoice_detail_focus_1_4.csv"),
        ("focus_1_4_csv/billing_period", "billing_period_focus_1_4.csv"),
        ("focus_1_2_csv/cost_and_usage", "cost_and_usage_focus_1_2.csv"),
    ] {
        std::fs::write(keep.join(file), whole(&delivery.parts, folder)).unwrap();
    }
}
