//! How one night grows with the day's usage: makes events of 50,000 users and 20 models, aggregates them with spilling,
//! settles the day against a bill with a leak in it, and sums the rows as the ledger has them. Every event is read from
//! its JSON text, as in a night. Prints time, lines, peak memory, writes and what they cost.
//!
//! `cargo run --profile tools -p tallygate-reconciler --no-default-features --example night_scale -- 1000000 [lines in memory]`

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::json;
use tallygate_reconciler::bill::{BillLine, Meter, Quantity};
use tallygate_reconciler::ledger::UnitId;
use tallygate_reconciler::night::read::{Aggregator, OWNER_DIMENSIONS, ReadOptions, SpillOptions};
use tallygate_reconciler::night::write::Rows;
use tallygate_reconciler::night::{Options, ProviderEstimates, UnitBill, settle_stream};
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::money::Usd;
use tallygate_shared::pricing::CostParts;
use tallygate_shared::time::{DAY_MS, Timestamp};
use tallygate_shared::tokens::{Tally, Tokens, Usage};

const USERS: u64 = 50_000;
const MODELS: u64 = 20;
/// 2026-11-20.
const DAY: i64 = 20_777;
const LEAKED: u64 = 123_457;

type Failure = Box<dyn std::error::Error>;

/// A small generator, so that every run makes the same day.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let events: u64 = arguments.next().as_deref().unwrap_or("1000000").replace('_', "").parse()?;
    let max_lines: usize = arguments.next().as_deref().unwrap_or("250000").parse()?;
    let started = Instant::now();
    let providers = BTreeMap::from([("oa".to_owned(), ("openai".to_owned(), "org".to_owned()))]);
    let directory = std::env::temp_dir();
    let options = ReadOptions::new(providers, SpillOptions { max_lines, directory });
    let mut aggregator = Aggregator::new(options);
    let mut dice = Dice(7);
    let mut event = template()?;
    let (mut made, mut bytes) = (std::time::Duration::ZERO, 0_u64);
    for _ in 0..events {
        let making = Instant::now();
        fill(&mut event, &mut dice);
        let text = serde_json::to_string(&event)?;
        made += making.elapsed();
        bytes += text.len() as u64;
        aggregator.add(&serde_json::from_str(&text)?)?;
    }
    let read = aggregator.finish()?;
    let aggregated = started.elapsed();
    println!("events              {events}");
    println!("making them         {made:.1?}");
    println!(
        "reading             {:.1?} ({} MB of JSON)",
        aggregated.saturating_sub(made),
        bytes / 1_000_000
    );
    println!(
        "lines               {} (spilled: {})",
        read.estimates.len(),
        read.estimates.spilled()
    );
    println!("peak after reading  {}", peak());

    let source = ProviderEstimates { estimates: &read.estimates, provider: "openai" };
    let mut counted: BTreeMap<(String, Meter), (i128, i128)> = BTreeMap::new();
    read.estimates.scan(Some("openai"), &mut |estimate| {
        let key = (estimate.line.model.clone(), estimate.line.meter);
        let sum = counted.entry(key).or_default();
        sum.0 += estimate.estimated.pico();
        sum.1 += estimate.metered.pico();
        Ok(())
    })?;
    let bill = UnitBill {
        unit: UnitId {
            workspace: "ws_acme".to_owned(),
            day: "2026-11-20".to_owned(),
            provider: "openai".to_owned(),
        },
        facts: read.facts.get("openai").cloned().unwrap_or_default(),
        lines: lines(&counted)?,
        usage: Vec::new(),
        source: "sha256:bill".to_owned(),
        provisional: false,
        previous: Vec::new(),
    };
    let settling = Instant::now();
    let scratch = tempfile::tempdir()?;
    let dimensions: BTreeSet<String> =
        OWNER_DIMENSIONS.iter().filter(|name| **name != "user").map(|n| (*n).to_owned()).collect();
    let mut rows = Rows::begin(scratch.path(), &dimensions)?;
    let summary = settle_stream(&bill, &source, &Options::default(), &mut |line, content| {
        rows.push(line, content)
    })?;
    let rows = rows.finish()?;
    println!(
        "settling            {:.1?} (full rows written and hashed, summed for the ledger)",
        settling.elapsed()
    );
    let file = std::fs::metadata(scratch.path().join("rows"))?.len();
    println!("rows                {} in {} MB", rows.count, file / 1_000_000);
    println!("ledger lines        {} (without the user)", rows.lines());
    println!(
        "estimated, billed   {}, {}",
        summary.totals.estimated,
        summary.totals.billed.unwrap_or_default()
    );
    println!(
        "unmetered           {} ({} findings)",
        summary.totals.unmetered,
        summary.findings.len()
    );
    let work = started.elapsed().saturating_sub(made);
    println!("whole run           {work:.1?} (without making the events)");
    cost(events, rows.lines(), work);
    println!("peak memory         {}", peak());
    Ok(())
}

/// What the night costs at AWS's list prices in us-east-1 (November 2026, as in infra/README.md): $0.625 a million writes,
/// $0.005 a thousand PUTs, $0.0000133334 a GB-second on arm64. In millionths of a dollar.
fn cost(events: u64, lines: u64, work: std::time::Duration) {
    const LAMBDA_MB: u64 = 1_024;
    let writes = lines * 625_000 / 1_000_000;
    let puts = (events / 100_000 + 3) * 5;
    let lambda = work.as_secs() * LAMBDA_MB * 133_334 / 1_024 / 10_000;
    let total = writes + puts + lambda;
    println!("writes              {lines} to DynamoDB, {} to S3", events / 100_000 + 3);
    println!(
        "dollars             {}.{:06} (DynamoDB {writes}, S3 {puts}, Lambda of {LAMBDA_MB} MB {lambda} millionths)",
        total / 1_000_000,
        total % 1_000_000
    );
}

/// The most memory that this process ever had.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<u64> =
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.map_or_else(|| "unknown".to_owned(), |kib| format!("{} MiB", kib / 1024))
}

fn template() -> Result<UsageEvent, Failure> {
    Ok(serde_json::from_value(json!({
        "v": 1, "id": format!("req_{:032x}", 7), "seq": 1, "workspace": "ws_acme",
        "key": "0123456789abcdef", "at": DAY * DAY_MS, "settled_at": DAY * DAY_MS, "key_name": "ci",
        "owner": "ann", "cost_centre": "cc-1", "purpose": "", "environment": "production",
        "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "small",
        "provider": "oa", "model": "m", "response_model": "m-2026-01-02",
        "outcome": "completed", "status": 200, "actor": {"app": "shop"},
        "usage": {"source": "reported", "tally": {}},
        "cost": {"total": "0", "parts": {}, "price": {"book": "2026-11-20.1", "tier": "standard"}},
        "charged": "0", "hold": "1", "duration_ms": 5,
    }))?)
}

/// Another request in the same event: a user, a model, tokens on three meters.
fn fill(event: &mut UsageEvent, dice: &mut Dice) {
    let (user, model) = (dice.roll(USERS), dice.roll(MODELS));
    let tokens = Tokens {
        input: 100 + dice.roll(4000),
        cache_read: dice.roll(2000),
        output: 20 + dice.roll(800),
        ..Tokens::default()
    };
    let nanos =
        |tokens: u64, price: u64| Usd::from_nanos(i64::try_from(tokens * price).unwrap_or(0));
    let parts = CostParts {
        input: nanos(tokens.input, 2500 + model),
        cache_read: nanos(tokens.cache_read, 250 + model),
        output: nanos(tokens.output, 10_000 + model),
        ..CostParts::default()
    };
    event.actor.user = Some(format!("user-{user:06}"));
    event.actor.team = Some(format!("team-{:03}", user % 400));
    event.actor.customer = Some(format!("customer-{:05}", user % 2000));
    if let Some(cost) = &mut event.cost {
        cost.total = [parts.input, parts.cache_read, parts.output]
            .into_iter()
            .fold(Usd::ZERO, Usd::saturating_add);
        cost.parts = parts;
        cost.price.row = format!("openai/model-{model:02}");
        event.charged = cost.total;
    }
    event.usage = Usage::Reported(Tally { tokens, ..Tally::default() });
}

/// The bill: a line for each model and meter, in cents, dated names, and a leak on one of them.
fn lines(counted: &BTreeMap<(String, Meter), (i128, i128)>) -> Result<Vec<BillLine>, Failure> {
    let mut lines = Vec::new();
    for (at, ((model, meter), (estimated, metered))) in counted.iter().enumerate() {
        let leaked = if at == 0 { Quantity::whole(LEAKED).pico() } else { 0 };
        let cent = 10_000_000_000;
        let line = json!({
            "provider": "openai", "account": "org", "kind": "usage", "service": "API", "description": "",
            "start": Timestamp::from_ms(DAY * DAY_MS).ms(), "end": (DAY + 1) * DAY_MS,
            "model": format!("{model}-2026-01-02"), "meter": meter,
            "amount": Usd::from_pico((estimated + cent / 2) / cent * cent).to_string(),
            "quantity": Quantity::from_pico(metered + leaked).to_string(), "unit": "Tokens",
        });
        lines.push(serde_json::from_value(line)?);
    }
    lines.push(serde_json::from_value(json!({
        "provider": "openai", "account": "org", "kind": "tax", "service": "VAT", "description": "",
        "start": DAY * DAY_MS, "end": (DAY + 1) * DAY_MS, "meter": "whole", "amount": "1234.56",
    }))?);
    Ok(lines)
}
