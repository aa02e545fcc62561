//! Writes a believable FOCUS export into a directory, and checks it: October closed and November open, three providers
//! of models, seats and a cloud's costs around them; every category of charge, split charges, prepaid balances, unmetered
//! use, and corrections of October that are booked in November.
//!
//! ```text
//! cargo run --example focus_sample -- <directory> [teams]
//! ```
//!
//! The directory gets the export as the object store has it (`export/v1/…`), and beside it each table as one file, for
//! tools that read one. `teams` (3) makes it larger: a team has 279 rows in October.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use tallygate_reconciler::bill::{BillLine, ChargeKind, Meter, Quantity};
use tallygate_reconciler::focus::charges::{Account, Context, Estimates, Prepaid, rows_of_unit};
use tallygate_reconciler::focus::check::{Checker, Findings, check_csv, check_table};
use tallygate_reconciler::focus::columns::{self, Version};
use tallygate_reconciler::focus::csv::CsvTable;
use tallygate_reconciler::focus::export::{Exporter, Format, Record};
use tallygate_reconciler::focus::invoices::{BillingPeriodRow, InvoiceDetailRow, InvoiceIndex};
use tallygate_reconciler::focus::month::Month;
#[cfg(feature = "parquet")]
use tallygate_reconciler::focus::parquet::ParquetTable;
use tallygate_reconciler::focus::row::{FocusRow, PREPAID_TIER};
use tallygate_reconciler::ledger::{Content, LineId, Revision, UNMETERED, UnitId};
use tallygate_shared::money::Usd;
use tallygate_shared::pricing::PriceBook;
use tallygate_shared::time::Date;

type Fallible<T> = Result<T, Box<dyn Error>>;

const WORKSPACE: &str = "acme";
/// Provider, account, model, and what is billed in percent of the list price.
const PROVIDERS: [(&str, &str, &str, i128); 3] = [
    ("anthropic", "org-acme-research", "claude-opus-5", 100),
    ("bedrock", "acct-210987654321", "anthropic.claude-haiku-4-5", 100),
    ("openai", "org-acme", "gpt-5-mini", 95),
];
/// Meters and their list prices in millionths of a dollar for a million tokens.
const METERS: [(Meter, i128); 3] =
    [(Meter::Input, 250_000), (Meter::CacheRead, 25_000), (Meter::Output, 2_000_000)];

/// Tokens that look like use: scattered, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % below
    }
}

fn owner(team: u64) -> BTreeMap<String, String> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    BTreeMap::from([
        pair("cost_centre", format!("CC-{}", 100 + team % 7)),
        pair("environment", "production".to_owned()),
        pair("feature", "chat".to_owned()),
        pair("key", format!("key_{team:04}")),
        pair("team", format!("team-{team:04}")),
    ])
}

fn line(unit: &UnitId, id: LineId, billed: Option<Usd>, tokens: Option<u64>) -> Revision {
    let estimated = billed.unwrap_or(Usd::from_pico(1_234_567_890_000)).round_to_nanos();
    let price_variance =
        billed.and_then(|billed| billed.checked_sub(estimated)).unwrap_or_default();
    Revision {
        unit: unit.clone(),
        line: id,
        rev: 1,
        seq: 1,
        cause: "first".to_owned(),
        run: format!("night#{}", unit.day),
        booked_in: None,
        content: Content {
            estimated,
            metered: Quantity::whole(tokens.unwrap_or_default()),
            requests: tokens.unwrap_or_default() / 900,
            billed,
            billed_quantity: billed.and(tokens).map(Quantity::whole),
            list: None,
            quantity_variance: Usd::ZERO,
            price_variance,
            provisional: false,
            price_version: "2026-10-01.1".to_owned(),
            source: if billed.is_some() { format!("bill-{}", unit.day) } else { String::new() },
            method: "direct".to_owned(),
        },
    }
}

/// A day's lines of a provider, with the later revisions of them.
fn unit(
    day: Date,
    (provider, account, model, percent): (&str, &str, &str, i128),
    teams: u64,
) -> Vec<Revision> {
    let unit = UnitId {
        workspace: WORKSPACE.to_owned(),
        day: day.to_string(),
        provider: provider.to_owned(),
    };
    let mut dice = Dice(day.days().unsigned_abs() * 31 + provider.len() as u64);
    let billed = day < Date { year: 2026, month: 11, day: 20 };
    let mut lines = Vec::new();
    for (meter, price) in METERS {
        for team in 0..teams {
            // Cents by cents of a day's bill: the price is not to be had from it exactly.
            let tokens = 1_000 + dice.roll(9_000_000);
            let exact = i128::from(tokens) * price * percent / 100;
            let id = LineId {
                account: account.to_owned(),
                model: model.to_owned(),
                meter,
                tier: if team == 2 { "batch" } else { "standard" }.to_owned(),
                kind: ChargeKind::Usage,
                owner: owner(team),
            };
            let mut line = line(&unit, id, billed.then(|| Usd::from_pico(exact)), Some(tokens));
            if team < 2 {
                line.content.method = "proportional".to_owned();
            }
            lines.push(line);
        }
    }
    if provider == "openai" {
        specials(&unit, day, account, &mut lines);
    }
    lines
}

/// What a month has beside use.
fn specials(unit: &UnitId, day: Date, account: &str, lines: &mut Vec<Revision>) {
    let whole = |kind, model: &str, tier: &str, amount: i128| {
        let id = LineId {
            account: account.to_owned(),
            model: model.to_owned(),
            meter: Meter::Whole,
            tier: tier.to_owned(),
            kind,
            owner: BTreeMap::new(),
        };
        line(unit, id, Some(Usd::from_pico(amount)), None)
    };
    const CENT: i128 = 10_000_000_000;
    match (day.month, day.day) {
        (10, 1) => lines.extend([
            whole(ChargeKind::Purchase, "API credit", PREPAID_TIER, 50_000 * CENT),
            whole(ChargeKind::Credit, "API credit drawn", PREPAID_TIER, -2_000 * CENT),
            whole(ChargeKind::Credit, "Promotional credit", "standard", -2_500 * CENT),
            whole(ChargeKind::Discount, "Volume discount", "standard", -120 * CENT),
            whole(ChargeKind::MinimumFee, "Minimum commitment", "standard", 75 * CENT),
        ]),
        (10, 31) => lines.extend([
            whole(ChargeKind::Tax, "Sales tax", "standard", 1_234 * CENT),
            whole(ChargeKind::Adjustment, "Invoice rounding", "standard", -3_000_000_000),
            whole(ChargeKind::Refund, "Service credit for an outage", "standard", -40 * CENT),
        ]),
        (10, 7) => {
            // Found in November: a split charge was too high, and a leaked key was used.
            let corrected: Vec<Revision> = lines
                .iter()
                .filter(|l| l.content.method == "proportional")
                .take(1)
                .cloned()
                .collect();
            for mut later in corrected {
                later.rev = 2;
                later.cause = "correction".to_owned();
                later.booked_in = Some("2026-11".to_owned());
                let half = later.content.billed.map(|billed| Usd::from_pico(billed.pico() / 2));
                later.content.billed = half;
                later.content.price_variance = half
                    .and_then(|half| half.checked_sub(later.content.estimated))
                    .unwrap_or_default();
                lines.push(later);
            }
            let leaked = LineId {
                account: account.to_owned(),
                model: "gpt-5-mini".to_owned(),
                meter: Meter::Output,
                tier: "standard".to_owned(),
                kind: ChargeKind::Usage,
                owner: BTreeMap::from([(UNMETERED.to_owned(), "key_leaked".to_owned())]),
            };
            let mut leaked = line(unit, leaked, Some(Usd::from_pico(475 * CENT)), Some(2_500_000));
            leaked.content.method = "unowned".to_owned();
            leaked.booked_in = Some("2026-11".to_owned());
            leaked.cause = "correction".to_owned();
            lines.push(leaked);
        }
        _ => {}
    }
}

/// Seats, and the costs around the models.
fn others(day: Date) -> Vec<Revision> {
    if day.day != 1 {
        return Vec::new();
    }
    let one = |provider: &str, model: &str, kind, meter, amount: i128, count| {
        let unit = UnitId {
            workspace: WORKSPACE.to_owned(),
            day: day.to_string(),
            provider: provider.to_owned(),
        };
        let id = LineId {
            account: format!("acct-{provider}-acme"),
            model: model.to_owned(),
            meter,
            tier: "standard".to_owned(),
            kind,
            owner: owner(0),
        };
        line(&unit, id, Some(Usd::from_pico(amount)), count)
    };
    vec![
        one(
            "aws",
            "Amazon OpenSearch Service",
            ChargeKind::Usage,
            Meter::Whole,
            12_345_678_901_234,
            None,
        ),
        one(
            "github_copilot",
            "Copilot Business",
            ChargeKind::Seat,
            Meter::Whole,
            228_000_000_000_000,
            Some(12),
        ),
    ]
}

/// The accounts' names. The research account pays from a balance.
fn accounts() -> BTreeMap<(String, String), Account> {
    let named = |provider: &str, account: &str, name: &str| {
        let account_of = Account { name: Some(name.to_owned()), prepaid: None };
        ((provider.to_owned(), account.to_owned()), account_of)
    };
    let mut accounts = BTreeMap::from([
        named("anthropic", "org-acme-research", "Acme Research"),
        named("aws", "acct-aws-acme", "Acme Cloud"),
        named("bedrock", "acct-210987654321", "Acme Cloud"),
        named("github_copilot", "acct-github_copilot-acme", "Acme"),
        named("openai", "org-acme", "Acme"),
    ]);
    for ((provider, _), account) in &mut accounts {
        if provider == "anthropic" {
            let (id, name) = ("balance-research".to_owned(), "Research balance".to_owned());
            account.prepaid = Some(Prepaid { id, name });
        }
    }
    accounts
}

/// All revisions of a day, unit by unit.
fn day_units(day: Date, teams: u64) -> Vec<Vec<Revision>> {
    let models = PROVIDERS.iter().map(|provider| unit(day, *provider, teams));
    models.chain(others(day).into_iter().map(|line| vec![line])).collect()
}

fn days() -> impl Iterator<Item = Date> {
    let first = Date { year: 2026, month: 10, day: 1 }.days();
    (first..first + 51).map(Date::from_days)
}

/// What the providers' invoices would say of these lines.
fn invoices(teams: u64) -> Fallible<InvoiceIndex> {
    let mut index = InvoiceIndex::default();
    for day in days() {
        for unit in day_units(day, teams) {
            for revision in &unit {
                // The research account is prepaid: its use is on no invoice.
                if revision.unit.provider == "anthropic" {
                    continue;
                }
                // Nobody says which invoice a correction is on.
                let Some(amount) = revision.content.billed.filter(|_| revision.booked_in.is_none())
                else {
                    continue;
                };
                let month = Month::of(day);
                index.add(&bill_line(revision, day, month, amount), month)?;
            }
        }
    }
    Ok(index)
}

fn bill_line(revision: &Revision, day: Date, month: Month, amount: Usd) -> BillLine {
    let provider = &revision.unit.provider;
    BillLine {
        provider: provider.clone(),
        account: revision.line.account.clone(),
        project: None,
        start: day.midnight(),
        end: day.midnight().plus_ms(86_400_000),
        kind: revision.line.kind,
        service: revision.line.model.clone(),
        description: revision.line.model.clone(),
        model: None,
        meter: revision.line.meter,
        tier: Some(revision.line.tier.clone()),
        quantity: None,
        unit: None,
        amount,
        list_amount: None,
        invoice_id: Some(format!("INV-{}-{month}", provider.to_uppercase())),
        credential: None,
        provisional: month.to_string() == "2026-11",
        tags: BTreeMap::new(),
    }
}

/// One table as one file, and as the parts of the object store.
struct Table<R: Record> {
    csv: CsvTable<BufWriter<File>, R>,
    #[cfg(feature = "parquet")]
    parquet: ParquetTable<BufWriter<File>, R>,
    exporters: Vec<Exporter<R>>,
}

impl<R: Record> Table<R> {
    fn new(directory: &Path, version: Version) -> Fallible<Self> {
        let file = |extension: &str| {
            let name = format!("{}_{}.{extension}", R::DATASET, version.as_str());
            File::create(directory.join(name)).map(BufWriter::new)
        };
        let formats: &[Format] = if cfg!(feature = "parquet") {
            &[Format::Csv, Format::Parquet]
        } else {
            &[Format::Csv]
        };
        let mut exporters = Vec::new();
        for format in formats {
            exporters.push(Exporter::new(directory, WORKSPACE, version, *format)?);
        }
        Ok(Self {
            csv: CsvTable::new(file("csv")?, R::columns(version))?,
            #[cfg(feature = "parquet")]
            parquet: ParquetTable::new(file("parquet")?, R::columns(version))?,
            exporters,
        })
    }

    fn push(&mut self, row: &R) -> Fallible<()> {
        self.csv.push(row)?;
        #[cfg(feature = "parquet")]
        self.parquet.push(row)?;
        for exporter in &mut self.exporters {
            exporter.push(row)?;
        }
        Ok(())
    }

    fn finish(self) -> Fallible<usize> {
        self.csv.finish()?;
        #[cfg(feature = "parquet")]
        self.parquet.finish()?;
        let mut parts = 0;
        for exporter in self.exporters {
            parts += exporter.finish()?.len();
        }
        Ok(parts)
    }
}

fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: focus_sample <directory> [teams]")?;
    let directory = Path::new(&directory);
    let teams: u64 = arguments.next().map_or(Ok(3), |teams| teams.parse())?;
    std::fs::create_dir_all(directory)?;
    let october = Month::parse("2026-10").ok_or("no month")?;
    let november = Month::parse("2026-11").ok_or("no month")?;
    let index = invoices(teams)?;
    let details = index.details(&BTreeMap::new());
    let accounts = accounts();
    let context = Context {
        prices: PriceBook::built_in()?,
        invoices: &index,
        accounts: &accounts,
        estimates: Estimates::LeaveOut,
    };
    let mut tables = [
        (
            Table::<FocusRow>::new(directory, Version::V1_4)?,
            Checker::new(Version::V1_4, Some(&details)),
        ),
        (
            Table::<FocusRow>::new(directory, Version::V1_2)?,
            Checker::new(Version::V1_2, Some(&details)),
        ),
    ];
    let (mut rows, mut unbilled) = (0_u64, 0);
    for month in [october, november] {
        for day in days() {
            for unit in day_units(day, teams) {
                let made = rows_of_unit(&unit, month, &context)?;
                unbilled += made.unbilled;
                rows += made.rows.len() as u64;
                for row in &made.rows {
                    for (table, checker) in &mut tables {
                        table.push(row)?;
                        checker.row(row);
                    }
                }
            }
        }
    }
    let mut parts = 0;
    for (table, checker) in tables {
        parts += table.finish()?;
        clean("rows", &checker.finish())?;
    }
    let mut table = Table::<InvoiceDetailRow>::new(directory, Version::V1_4)?;
    details.iter().try_for_each(|row| table.push(row))?;
    parts += table.finish()?;
    let mut table = Table::<BillingPeriodRow>::new(directory, Version::V1_4)?;
    for month in [october, november] {
        for provider in ["anthropic", "bedrock", "github_copilot", "openai"] {
            let updated = Date { year: 2026, month: 11, day: 20 }.midnight();
            table.push(&BillingPeriodRow::new(month, provider, month == october, updated))?;
        }
    }
    parts += table.finish()?;
    for version in [Version::V1_4, Version::V1_2] {
        let name = format!("cost_and_usage_{}.csv", version.as_str());
        let file = BufReader::new(File::open(directory.join(name))?);
        clean("file", &check_csv(file, version, Some(&details)))?;
    }
    let file = File::open(directory.join("invoice_detail_focus_1_4.csv"))?;
    clean("invoice details", &check_table::<InvoiceDetailRow>(file, Version::V1_4))?;
    let file = File::open(directory.join("billing_period_focus_1_4.csv"))?;
    clean("billing periods", &check_table::<BillingPeriodRow>(file, Version::V1_4))?;
    let columns = columns::cost_and_usage(Version::V1_4).len();
    println!(
        "{rows} rows of {columns} columns, {} invoice details, {parts} parts; {unbilled} lines not billed yet",
        details.len()
    );
    Ok(())
}

fn clean(what: &str, findings: &Findings) -> Fallible<()> {
    for problem in &findings.problems {
        eprintln!("{what}: {problem}");
    }
    if findings.is_clean() {
        Ok(())
    } else {
        Err(format!("{what}: {} problems", findings.total).into())
    }
}
