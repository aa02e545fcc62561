//! How a night grows with the day's usage: a whole night in local stores, as it runs in a Lambda. The events come over
//! HTTP from a gateway that is played, as JSON; the bill has a leak in it. Each invocation has 15 minutes of processor
//! time, and the next one goes on where it stood. Prints what it took, what it wrote and what that would cost on AWS.
//!
//! `cargo run --profile tools -p tallygate-reconciler --no-default-features --example night_scale -- 1000000 [minutes]`

mod edge;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tallygate_reconciler::config::from_value;
use tallygate_reconciler::connectors::http::Patience;
use tallygate_reconciler::edge::Signing;
use tallygate_reconciler::ledger::UnitId;
use tallygate_reconciler::night::run::{Again, Clock, Ended, Night, Progress, Steps, nightly, run};
use tallygate_reconciler::ports::{LedgerStore, ObjectStore, PAGE_MAX};
use tallygate_reconciler::stores::local;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use crate::edge::{DAY, METERS, Played};

const LEAKED: u64 = 123_457;
/// One whole vCPU.
const LAMBDA_MB: u64 = 1_769;

type Failure = Box<dyn std::error::Error>;

/// Time as one processor has it: what the night took, without the played gateway.
struct Processor {
    played: Played,
    began_ms: AtomicU64,
    limit_ms: u64,
    nonces: AtomicU64,
}

impl Processor {
    fn taken_ms(&self) -> u64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        // Hundredths of a second, in the program and in the system.
        let ticks: u64 = fields.take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        (ticks * 10).saturating_sub(self.played.busy_ms())
    }

    fn of_invocation_ms(&self) -> u64 {
        self.taken_ms().saturating_sub(self.began_ms.load(Ordering::Relaxed))
    }
}

impl Signing for Processor {
    fn now_seconds(&self) -> i64 {
        self.now().ms() / 1000
    }

    fn nonce(&self) -> String {
        format!("{:032}", self.nonces.fetch_add(1, Ordering::Relaxed))
    }
}

impl Clock for Processor {
    fn now(&self) -> Timestamp {
        let night = Timestamp::parse("2026-11-21T02:00:00Z").map_or(0, Timestamp::ms);
        Timestamp::from_ms(night + i64::try_from(self.taken_ms()).unwrap_or(0))
    }

    fn left_ms(&self) -> Option<i64> {
        i64::try_from(self.limit_ms.saturating_sub(self.of_invocation_ms())).ok()
    }
}

/// Says when each step began.
struct Said(Mutex<Instant>);

impl Progress for Said {
    fn step(&self, _: &str, what: &str, _: u64, _: u64) {
        if let Ok(began) = self.0.lock() {
            println!("  {:>7.1?}  {what}", began.elapsed());
        }
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let events: u64 = arguments.next().as_deref().unwrap_or("1000000").replace('_', "").parse()?;
    let minutes: u64 = arguments.next().as_deref().unwrap_or("15").parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(night(events, minutes))
}

async fn night(events: u64, minutes: u64) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let books = directory.path().join("books");
    let (ledger, objects) = local::open(&books).await?;
    let (ledger, objects) = (Arc::new(ledger), Arc::new(objects));
    let played = Played::default();
    let url = played.start(events)?;
    objects.put_once("inbox/openai/1.csv", bill(events)?.into()).await?;
    let config = from_value(json!({
        "storage": { "local": { "directory": &books } }, "lookback_days": 1, "reread_days": 1,
        "scratch": directory.path(),
        "workspaces": [{ "id": "ws_acme", "accounts": { "oa": "org" },
            "edge": { "url": url, "key_id": "k", "secret": "0123456789abcdef0123456789abcdef" },
            "sources": [{ "connector": "inbox", "mapping": { "files": [{
                "path": "openai/*.csv", "provider": "openai", "account": "org",
                "format": { "csv": {
                    "period": { "range": { "start": "From", "end": "To", "format": "%Y-%m-%d",
                        "end_is_last_day": true } },
                    "amount": { "column": "Cost", "unit": "dollars", "currency": { "fixed": "USD" } },
                    "model": { "column": "Model" },
                    "meter": { "column": { "name": "Item", "values": {
                        "in": "input", "cached": "cache_read", "out": "output" } } },
                    "quantity": { "column": "Tokens", "unit": { "fixed": "Tokens" } } } } }] } }] }]
    }))?;
    let clock = Processor {
        played: played.clone(),
        began_ms: AtomicU64::new(0),
        limit_ms: minutes * 60_000,
        nonces: AtomicU64::new(0),
    };
    let (name, days) = nightly(clock.now(), config.lookback_days);
    let before_ms = clock.taken_ms();
    let mut invocations = 0;
    let report = loop {
        clock.began_ms.store(clock.taken_ms(), Ordering::Relaxed);
        invocations += 1;
        println!("invocation {invocations}");
        let night = Night {
            config: &config,
            objects: objects.clone(),
            ledger: ledger.clone(),
            clock: &clock,
            progress: &Said(Mutex::new(Instant::now())),
            patience: Patience { retries: 0, first_wait: Duration::from_millis(1) },
            holder: clock.nonce(),
            steps: Steps::default(),
        };
        let began = Instant::now();
        let (ended, report) = run(&night, name.clone(), days, Again::IfPartial).await?;
        println!(
            "  {:>7.1?}  {ended:?}: {:.1} s of one processor, peak {} MiB",
            began.elapsed(),
            Seconds(clock.of_invocation_ms()),
            peak_mib()
        );
        if ended != Ended::More {
            break report;
        }
    };
    let taken_ms = clock.taken_ms().saturating_sub(before_ms);
    let workspace = report.workspaces.get("ws_acme").ok_or("no report")?;
    if !workspace.missing.is_empty() {
        return Err(format!("{:?}", workspace.missing).into());
    }
    let openai = workspace.providers.get("openai").copied().unwrap_or_default();
    println!(
        "events              {events}, {} MB of JSON",
        played.sent.load(Ordering::Relaxed) / 1_000_000
    );
    println!("estimated, billed   {}, {}", openai.estimated, openai.billed);
    println!(
        "books minus bill    {}",
        openai.difference().map_or_else(String::new, |d| d.to_string())
    );
    println!("unmetered           {}", openai.unmetered);
    println!("invocations         {invocations} of {minutes} minutes");
    println!(
        "processor           {:.1} s, {:.1} us an event",
        Seconds(taken_ms),
        Seconds(taken_ms * 1_000_000 / events)
    );
    println!("peak memory         {} MiB", peak_mib());
    let written = Written {
        lines: workspace.rows_written,
        told: played.told.load(Ordering::Relaxed),
        objects: files(&books.join("objects"))?,
        bytes_of_item: bytes_of_item(ledger.as_ref()).await?,
    };
    written.print(taken_ms);
    Ok(())
}

/// Milliseconds, shown as seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}.{}", self.0 / 1000, self.0 % 1000 / 100)
    }
}

struct Written {
    lines: u64,
    told: u64,
    objects: (u64, u64),
    bytes_of_item: u64,
}

impl Written {
    /// What the night costs at AWS's list prices in us-east-1 (November 2026, as in infra/README.md): $0.625 a million
    /// write units of 1 KB, $0.125 a million read units of 4 KB, $0.005 a thousand PUTs, $0.0000133334 a GB-second on arm64.
    /// In millionths of a dollar.
    fn print(&self, taken_ms: u64) {
        let Self { lines, told, objects: (objects, bytes), bytes_of_item } = self;
        let units = lines * bytes_of_item.div_ceil(1024);
        // Each line is looked for when it is written, and read when it is told, set against the bill and summed up.
        let reads = lines + 3 * lines * bytes_of_item / 4096;
        let (writes, reads) = (units * 625_000 / 1_000_000, reads * 125_000 / 1_000_000);
        let puts = objects * 5;
        let lambda = taken_ms * LAMBDA_MB / 1_024 * 133_334 / 10_000_000;
        let total = writes + reads + puts + lambda;
        println!(
            "ledger              {lines} lines of {bytes_of_item} bytes; {told} told to the edge"
        );
        println!("objects             {objects}, {} MB", bytes / 1_000_000);
        println!(
            "dollars             {}.{:04} (DynamoDB writes {writes}, reads {reads}, S3 {puts}, Lambda of {LAMBDA_MB} MB {lambda} millionths)",
            total / 1_000_000,
            total % 1_000_000 / 100
        );
    }
}

/// A line of the books as an item of DynamoDB: its JSON and about 300 bytes of keys.
async fn bytes_of_item(ledger: &dyn LedgerStore) -> Result<u64, Failure> {
    let (workspace, day, provider) = ("ws_acme".into(), DAY.into(), "openai".into());
    let unit = UnitId { workspace, day, provider };
    let page = ledger.newest_page(&unit, None, PAGE_MAX).await?;
    let mut bytes = 0;
    for row in &page {
        bytes += serde_json::to_vec(row)?.len() as u64 + 300;
    }
    Ok(bytes / (page.len() as u64).max(1))
}

/// How many files there are, and their bytes.
fn files(directory: &Path) -> Result<(u64, u64), Failure> {
    let (mut count, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (more, size) = match entry.file_type()?.is_dir() {
            true => files(&entry.path())?,
            false => (1, entry.metadata()?.len()),
        };
        count += more;
        bytes += size;
    }
    Ok((count, bytes))
}

/// The most memory that this process ever had.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// The bill: a line for each model and meter, in cents, and a leak on one of them.
fn bill(events: u64) -> Result<String, Failure> {
    let mut text = "From,To,Model,Item,Tokens,Cost\n".to_owned();
    for (at, ((model, meter), (nanos, tokens))) in edge::billed(events).into_iter().enumerate() {
        let tokens = if at == 0 { tokens + LEAKED } else { tokens };
        let cent = 10_000_000;
        let amount = Usd::from_nanos(i64::try_from((nanos + cent / 2) / cent * cent)?);
        let item = METERS.get(meter).ok_or("no meter")?;
        writeln!(text, "{DAY},{DAY},model-{model:02},{item},{tokens},{amount}")?;
    }
    Ok(text)
}
