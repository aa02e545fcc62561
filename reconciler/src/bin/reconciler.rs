//! The reconciler on the command line: the same night as the Lambda's, by hand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tallygate_reconciler::app::{App, AppError, Span, SystemClock, read_config};
use tallygate_reconciler::deliver;
use tallygate_reconciler::night::run::{Again, Ended, Progress};
use tallygate_reconciler::report::{Report, Status};
use tallygate_shared::time::{Date, Timestamp};

/// Makes the gateway's estimates agree with what the providers billed.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration: a JSON document.
    #[arg(long, short, global = true, default_value = "reconciler.json")]
    config: PathBuf,
    /// What time it is, in RFC 3339: for a gateway whose clock was moved.
    #[arg(long, global = true, hide = true, value_parser = moment)]
    now: Option<Timestamp>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pull what providers say they billed, and keep every answer. The books are not touched.
    Pull {
        /// The first day. Default: the look-back of the configuration.
        #[arg(long, value_parser = day, requires = "to")]
        from: Option<Date>,
        /// The last day.
        #[arg(long, value_parser = day, requires = "from")]
        to: Option<Date>,
    },
    /// Reconcile the look-back up to yesterday: pull, explain, allocate, write, feed back.
    Reconcile {
        /// How many days before today to look at. Default: as configured.
        #[arg(long)]
        days: Option<u32>,
    },
    /// Reconcile chosen days.
    Backfill {
        /// The first day.
        #[arg(long, value_parser = day)]
        from: Date,
        /// The last day.
        #[arg(long, value_parser = day)]
        to: Date,
    },
    /// Export a month as FOCUS 1.4 and 1.2, as CSV and Parquet.
    Export {
        /// The month, YYYY-MM.
        #[arg(long)]
        month: String,
        /// Where the files go. Default: ./export.
        #[arg(long, default_value = "export")]
        directory: PathBuf,
    },
    /// Unit economics of a month: cost for each request and each accepted outcome, by feature, customer, app and team.
    Economics {
        /// The month, YYYY-MM.
        #[arg(long)]
        month: String,
    },
    /// Show the last report.
    Show,
    /// Close a month that is over: from then on it changes by correction only.
    Close {
        /// The workspace.
        #[arg(long)]
        workspace: String,
        /// The month, YYYY-MM.
        #[arg(long)]
        month: String,
    },
    /// Look whether stores, edge and every source answer.
    Doctor,
}

fn day(text: &str) -> Result<Date, String> {
    Date::parse(text).ok_or_else(|| "give a day such as 2026-11-20".to_owned())
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "give a time such as 2026-11-20T02:00:00Z".to_owned())
}

/// A bar on the terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{spinner} {prefix} {msg} {wide_bar} {pos}/{len}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

impl Progress for Bar {
    fn step(&self, workspace: &str, what: &str, done: u64, of: u64) {
        self.0.set_prefix(workspace.to_owned());
        self.0.set_message(what.to_owned());
        if of > 0 {
            self.0.set_length(of);
            self.0.set_position(done);
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let logs = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(logs.unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .init();
    match work(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reconciler: {error}");
            ExitCode::from(2)
        }
    }
}

async fn work(arguments: Arguments) -> Result<ExitCode, AppError> {
    let path = &arguments.config;
    let text = std::fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        AppError::Usage(format!("{path}: {error}. Name the configuration with --config."))
    })?;
    let mut config = read_config(&text).await?;
    if let Command::Reconcile { days: Some(days) } = arguments.command {
        config.lookback_days = days.clamp(1, 400);
        config.reread_days = config.reread_days.min(config.lookback_days);
    }
    let clock = arguments.now.map_or_else(SystemClock::default, SystemClock::showing);
    let app = App::open(config, clock).await?;
    let whole = match arguments.command {
        Command::Pull { from, to } => {
            let span = match (from, to) {
                (Some(from), Some(last)) => Span::Backfill { from, last },
                _ => Span::Nightly,
            };
            app.pull(&span, &mut |line| println!("{line}")).await?
        }
        Command::Reconcile { .. } => reconcile(&app, &Span::Nightly, arguments.json).await?,
        Command::Backfill { from, to } => {
            if to.midnight() < from.midnight() {
                return Err(AppError::Usage("--to is before --from".to_owned()));
            }
            reconcile(&app, &Span::Backfill { from, last: to }, arguments.json).await?
        }
        Command::Export { month, directory } => export(&app, &month, &directory).await?,
        Command::Economics { month } => {
            unit_costs(&app, &month, arguments.json).await?;
            true
        }
        Command::Show => match app.last_report().await? {
            Some(report) => print(&report, arguments.json),
            None => {
                println!("There was no run yet.");
                true
            }
        },
        Command::Close { workspace, month } => {
            let closed = app.close(&workspace, &month).await?;
            let word = if closed { "is closed now" } else { "was closed already" };
            println!("{workspace} {month} {word}.");
            true
        }
        Command::Doctor => app.doctor(&mut |line| println!("{line}")).await,
    };
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn reconcile(app: &App, span: &Span, json: bool) -> Result<bool, AppError> {
    let bar = Bar::new();
    loop {
        let (ended, report) = app.reconcile(span, Again::Always, &bar).await?;
        if ended != Ended::More {
            bar.0.finish_and_clear();
            return Ok(print(&report, json));
        }
    }
}

/// Prints a report. True when it is whole and the books agree with the bills.
fn print(report: &Report, json: bool) -> bool {
    if json {
        println!("{}", serde_json::to_string_pretty(report).unwrap_or_default());
    } else {
        println!("{report}");
    }
    report.status == Status::Complete && report.balances()
}

async fn unit_costs(app: &App, month: &str, json: bool) -> Result<(), AppError> {
    for workspace in &app.config.workspaces {
        let costs = app.unit_costs(workspace, month).await?;
        if json {
            println!("{}", serde_json::to_string_pretty(&costs).unwrap_or_default());
            continue;
        }
        println!("{} {month}", workspace.id);
        let all = [("everything".to_owned(), vec![costs.overall.clone()])];
        for (dimension, units) in all.into_iter().chain(costs.by) {
            println!(
                "  {:<24} {:>16} {:>16} {:>9} {:>14} {:>9} {:>14}",
                dimension,
                "models",
                "harness",
                "requests",
                "per request",
                "accepted",
                "per accepted"
            );
            for unit in units {
                let shown = |amount: Option<tallygate_shared::money::Usd>| {
                    amount.map_or("-".to_owned(), |a| a.to_string())
                };
                let name = if unit.name.is_empty() { "(none)" } else { &unit.name };
                println!(
                    "    {name:<22} {:>16} {:>16} {:>9} {:>14} {:>9} {:>14}",
                    unit.models.to_string(),
                    unit.harness.to_string(),
                    unit.requests,
                    shown(unit.per_request),
                    unit.accepted,
                    shown(unit.per_accepted),
                );
            }
        }
    }
    Ok(())
}

/// Exports a month of each workspace. False when the edge of one was not reached.
async fn export(app: &App, month: &str, directory: &std::path::Path) -> Result<bool, AppError> {
    let mut whole = true;
    for workspace in &app.config.workspaces {
        let (made, exported) = deliver::one_to(app, workspace, month, directory).await?;
        println!("{}: export {} of {month}", workspace.id, made.number);
        for part in &made.parts {
            println!("  {} ({} rows)", part.path.display(), part.rows);
        }
        if made.unbilled > 0 {
            println!("  {} lines have no bill yet and are left out", made.unbilled);
        }
        if let Some(why) = exported.not_handed_over {
            whole = false;
            println!("  NOT AT THE EDGE: {why}. Export again when it answers");
        }
    }
    Ok(whole)
}
