//! What the Lambda and the command line share: opening stores, time, and the commands.

use std::path::Path;
use std::sync::Arc;

use tallygate_shared::money::Usd;
use tallygate_shared::time::{Date, Timestamp};

use crate::config::{self, Config, ConfigError, Machine, Storage, from_value, resolve, secrets_of};
use crate::connectors::http::Patience;
use crate::connectors::{Connector, Days};
use crate::edge::{Edge, Signing};
use crate::ledger::hex;
use crate::night::pull::{self, Pulled, Shared};
use crate::night::run::{
    Again, Clock, Ended, Night, Progress, RunError, Steps, backfill, nightly, run,
};
use crate::ports::{LedgerStore, ObjectStore, RunId, StoreError};
use crate::report::Report;

/// Anything that ends a command.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The export.
    #[error(transparent)]
    Export(#[from] crate::night::export::ExportFailed),
    /// Unit economics.
    #[error(transparent)]
    UnitCosts(#[from] crate::night::unit_costs::UnitCostsFailed),
    /// What was asked for.
    #[error("{0}")]
    Usage(String),
}

/// The system's time and randomness. `shift_ms` moves the clock, for tests against a gateway whose clock was moved.
#[derive(Clone, Debug, Default)]
pub struct SystemClock {
    /// How far the clock is moved.
    pub shift_ms: i64,
    /// When the process will be ended, in milliseconds since 1970 by the system's clock.
    pub deadline_ms: Option<i64>,
}

fn system_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

impl SystemClock {
    /// A clock that shows `now`, and goes on from there.
    pub fn showing(now: Timestamp) -> Self {
        Self { shift_ms: now.ms().saturating_sub(system_ms()), deadline_ms: None }
    }
}

impl Signing for SystemClock {
    fn now_seconds(&self) -> i64 {
        self.now().seconds()
    }

    fn nonce(&self) -> String {
        random()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(system_ms().saturating_add(self.shift_ms))
    }

    fn left_ms(&self) -> Option<i64> {
        self.deadline_ms.map(|deadline| deadline.saturating_sub(system_ms()))
    }
}

/// 128 random bits as text. Without randomness the text is of zeros, and what it names is refused the second time.
fn random() -> String {
    let mut bytes = [0_u8; 16];
    let _no_randomness = getrandom::fill(&mut bytes);
    hex(&bytes)
}

/// Everything that commands work on.
pub struct App {
    /// The configuration.
    pub config: Config,
    /// Objects.
    pub objects: Arc<dyn ObjectStore>,
    /// The ledger.
    pub ledger: Arc<dyn LedgerStore>,
    /// Time.
    pub clock: SystemClock,
    /// How patient to be with sources and the edge.
    pub patience: Patience,
}

/// Reads a configuration, secrets included.
pub async fn read_config(text: &str) -> Result<Config, AppError> {
    let document: serde_json::Value = serde_json::from_str(text)
        .map_err(|e| ConfigError::new(config::WHOLE, format!("is no JSON: {e}")))?;
    complete(document).await
}

async fn complete(mut document: serde_json::Value) -> Result<Config, AppError> {
    let secrets = secrets(secrets_of(&document)).await?;
    resolve(&mut document, "", &Machine { secrets })?;
    Ok(from_value(document)?)
}

/// Where the bucket may hold a configuration.
const CONFIG_OBJECT: &str = "config/reconciler.json";

/// The configuration of a Lambda, secrets included: the document `config/reconciler.json` of the bucket if it is there
/// (its storage may be left out), else what the environment says.
pub async fn config_of_lambda() -> Result<Config, AppError> {
    let variables = |name: &str| std::env::var(name).ok();
    let (_, objects) = open(&config::storage(&variables)?).await?;
    let Some(body) = objects.get(CONFIG_OBJECT).await? else {
        let secrets = secrets(config::secrets_in_environment(&variables)?).await?;
        return Ok(config::from_environment(&variables, &secrets)?);
    };
    let mut document: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|e| ConfigError::new(CONFIG_OBJECT, format!("is no JSON: {e}")))?;
    config::complete_storage(&mut document, &variables)?;
    complete(document).await
}

#[cfg(feature = "aws")]
async fn secrets(
    names: std::collections::BTreeSet<String>,
) -> Result<std::collections::BTreeMap<String, String>, AppError> {
    if names.is_empty() {
        return Ok(std::collections::BTreeMap::new());
    }
    Ok(crate::stores::aws::secrets(names).await?)
}

#[cfg(not(feature = "aws"))]
async fn secrets(
    names: std::collections::BTreeSet<String>,
) -> Result<std::collections::BTreeMap<String, String>, AppError> {
    match names.into_iter().next() {
        None => Ok(std::collections::BTreeMap::new()),
        Some(name) => {
            let problem = "this build is without AWS: build it with the feature `aws`";
            Err(ConfigError::new(name, problem).into())
        }
    }
}

/// The two stores of a configuration.
pub type Stores = (Arc<dyn LedgerStore>, Arc<dyn ObjectStore>);

/// Opens the stores.
pub async fn open(storage: &Storage) -> Result<Stores, AppError> {
    match storage {
        Storage::Local { directory } => {
            let (ledger, objects) = crate::stores::local::open(directory).await?;
            Ok((Arc::new(ledger), Arc::new(objects)))
        }
        #[cfg(feature = "aws")]
        Storage::Aws { table, bucket, region, dynamodb_endpoint, s3_endpoint } => {
            let settings = crate::stores::aws::Settings {
                table: table.clone(),
                bucket: bucket.clone(),
                region: region.clone(),
                dynamodb_endpoint: dynamodb_endpoint.clone(),
                s3_endpoint: s3_endpoint.clone(),
            };
            let (ledger, objects) = crate::stores::aws::open(&settings).await;
            Ok((Arc::new(ledger), Arc::new(objects)))
        }
        #[cfg(not(feature = "aws"))]
        Storage::Aws { .. } => {
            let problem = "this build is without AWS: build it with the feature `aws`";
            Err(ConfigError::new("storage", problem).into())
        }
    }
}

/// Which days to reconcile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// The look-back of the configuration, up to yesterday.
    Nightly,
    /// Chosen days, the last one included.
    Backfill {
        /// The first.
        from: Date,
        /// The last.
        last: Date,
    },
}

impl App {
    /// Opens everything.
    pub async fn open(config: Config, clock: SystemClock) -> Result<Self, AppError> {
        let (ledger, objects) = open(&config.storage).await?;
        Ok(Self { config, objects, ledger, clock, patience: Patience::default() })
    }

    /// Reconciles until it is done or the time is up.
    pub async fn reconcile(
        &self,
        span: &Span,
        again: Again,
        progress: &dyn Progress,
    ) -> Result<(Ended, Report), AppError> {
        let (name, days) = self.span(span);
        let night = Night {
            config: &self.config,
            objects: self.objects.clone(),
            ledger: self.ledger.clone(),
            clock: &self.clock,
            progress,
            patience: self.patience,
            holder: random(),
            steps: Steps::default(),
        };
        Ok(run(&night, name, days, again).await?)
    }

    fn span(&self, span: &Span) -> (RunId, Days) {
        match span {
            Span::Nightly => nightly(self.clock.now(), self.config.lookback_days),
            Span::Backfill { from, last } => {
                backfill(*from, last_to_ask(*from, *last, self.clock.now().date()))
            }
        }
    }

    /// What sources share.
    pub fn shared(&self) -> Shared {
        use crate::connectors::cost_explorer::PaidCalls;
        Shared {
            objects: self.objects.clone(),
            paid_calls: Arc::new(PaidCalls::new(self.config.max_paid_calls)),
            patience: self.patience,
        }
    }

    /// Pulls and keeps every answer, and says what came. The books are not touched.
    pub async fn pull(&self, span: &Span, say: &mut dyn FnMut(String)) -> Result<bool, AppError> {
        let (_, days) = self.span(span);
        let shared = self.shared();
        let mut whole = true;
        for workspace in &self.config.workspaces {
            for source in &workspace.sources {
                let name = format!("{}: {}", workspace.id, source.name());
                let today = self.clock.now().date();
                let pulled = match pull::connector(source, &shared).await {
                    Ok(connector) => self.pull_one(connector.as_ref(), days, today).await,
                    Err(error) => Err(error.to_string()),
                };
                match pulled {
                    Ok(pulled) => {
                        say(format!("{name}: {}", told(&pulled)));
                        whole &= pulled.held.is_empty();
                        for held in &pulled.held {
                            say(format!("{name}: HELD {held}"));
                        }
                        for note in &pulled.bill.notes {
                            say(format!("{name}: note: {note}"));
                        }
                    }
                    Err(why) => {
                        whole = false;
                        say(format!("{name}: MISSING {why}"));
                    }
                }
            }
        }
        Ok(whole)
    }

    async fn pull_one(
        &self,
        connector: &dyn Connector,
        days: Days,
        today: Date,
    ) -> Result<Pulled, String> {
        let pulled = pull::pull(connector, days, today, self.objects.as_ref()).await;
        pulled.map_err(|error| error.to_string())
    }

    /// Looks whether everything that a night needs is there, and says what is not. True when all is well.
    pub async fn doctor(&self, say: &mut dyn FnMut(String)) -> bool {
        let mut well = true;
        let mut check = |what: String, result: Result<String, String>| {
            let line = match &result {
                Ok(words) => format!("ok    {what}: {words}"),
                Err(why) => format!("FAIL  {what}: {why}"),
            };
            say(line);
            well &= result.is_ok();
        };
        check("objects".into(), self.check_objects().await);
        let number = self.ledger.next_number("doctor", 0).await;
        let number = number.map(|number| format!("wrote and read number {number}"));
        check("ledger".into(), number.map_err(|error| error.to_string()));
        let yesterday = self.clock.now().plus_ms(-tallygate_shared::time::DAY_MS).date();
        let days = Days { from: yesterday, to: self.clock.now().date() };
        // A person waits for the answer.
        let patience = Patience { retries: self.patience.retries.min(2), ..self.patience };
        let shared = Shared { patience, ..self.shared() };
        for workspace in &self.config.workspaces {
            let what = format!("{}: edge", workspace.id);
            let context = match Edge::new(&workspace.id, &workspace.edge, &self.clock, patience) {
                Ok(edge) => edge.context().await,
                Err(error) => Err(error),
            };
            let words = context.map(|context| {
                format!("{} providers, {} budgets", context.providers.len(), context.budgets.len())
            });
            check(what, words.map_err(|error| error.to_string()));
            for source in &workspace.sources {
                let what = format!("{}: {}", workspace.id, source.name());
                let found = match pull::connector(source, &shared).await {
                    Ok(connector) => self.pull_one(connector.as_ref(), days, days.to).await,
                    Err(error) => Err(error.to_string()),
                };
                check(
                    what,
                    found.and_then(|pulled| match pulled.held.as_slice() {
                        [] => Ok(told(&pulled)),
                        held => {
                            Err(held.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
                        }
                    }),
                );
            }
        }
        well
    }

    /// Whether objects are written once: a store that knows no conditional writes would lose what was written before.
    async fn check_objects(&self) -> Result<String, String> {
        let probe = format!("doctor/v1/{}", random());
        let objects = self.objects.as_ref();
        objects.put_once(&probe, "probe".into()).await.map_err(|error| error.to_string())?;
        match objects.put_once(&probe, "other".into()).await {
            Err(StoreError::Damaged { .. }) => {}
            Err(error) => return Err(error.to_string()),
            Ok(_) => {
                return Err(
                    "it writes over what is there: use a store that honours `If-None-Match: *`"
                        .into(),
                );
            }
        }
        let read = objects.get(&probe).await.map_err(|error| error.to_string())?;
        match read.as_deref() {
            Some(b"probe") => Ok("wrote once and read 5 bytes".into()),
            _ => Err(format!("`{probe}` is not there as it was written")),
        }
    }

    /// The last report.
    pub async fn last_report(&self) -> Result<Option<Report>, AppError> {
        let Some(key) = self.ledger.mark("report#latest").await? else { return Ok(None) };
        let body = self.objects.get(&key).await?;
        let damaged = || StoreError::Damaged {
            store: "reports",
            key: key.clone(),
            reason: "it is no report".to_owned(),
        };
        let body = body.ok_or_else(damaged)?;
        Ok(Some(serde_json::from_slice(&body).map_err(|_| damaged())?))
    }

    /// A month's unit economics of a workspace.
    pub async fn unit_costs(
        &self,
        workspace: &crate::config::WorkspaceConfig,
        month: &str,
    ) -> Result<crate::night::unit_costs::UnitCosts, AppError> {
        let parsed = crate::focus::month::Month::parse(month);
        let parsed = parsed
            .ok_or_else(|| AppError::Usage(format!("`{month}` is no month: give YYYY-MM")))?;
        let edge = Edge::new(&workspace.id, &workspace.edge, &self.clock, self.patience)
            .map_err(crate::night::unit_costs::UnitCostsFailed::Edge)?;
        let ledger = self.ledger.as_ref();
        let now = self.clock.now();
        Ok(crate::night::unit_costs::of_month(&workspace.id, parsed, now, &edge, ledger).await?)
    }

    /// Closes a month that is over: from then on it changes by correction only. False: it was closed before.
    pub async fn close(&self, workspace: &str, month: &str) -> Result<bool, AppError> {
        let parsed = crate::focus::month::Month::parse(month);
        let end = parsed
            .ok_or_else(|| AppError::Usage(format!("`{month}` is no month: give YYYY-MM")))?
            .end();
        let now = self.clock.now();
        if now < end {
            return Err(AppError::Usage(format!(
                "{month} is not over: close it from {} on (UTC)",
                end.date()
            )));
        }
        if !self.config.workspaces.iter().any(|known| known.id == workspace) {
            return Err(AppError::Usage(format!(
                "`{workspace}` is no workspace of the configuration"
            )));
        }
        let name = crate::night::run::month_mark(workspace, month);
        Ok(self.ledger.set_mark(&name, None, &now.to_string()).await?)
    }
}

/// What a pull brought, in a line.
fn told(pulled: &Pulled) -> String {
    let bill = &pulled.bill;
    let total = bill.lines.iter().try_fold(Usd::ZERO, |sum, line| sum.checked_add(line.amount));
    let total = total.map_or("too much".to_owned(), |total| total.to_string());
    format!(
        "{} charges of {total} USD, {} rows of use, {} keys, kept as {}",
        bill.lines.len(),
        bill.usage.len(),
        bill.credentials.len(),
        pulled.manifest
    )
}

/// The last day of a backfill that sources are asked for. Of days to come there is no bill, and an answer in days has
/// none of them.
fn last_to_ask(from: Date, last: Date, today: Date) -> Date {
    last.min(today).max(from)
}

/// Where the configuration is read from when nothing else is said.
pub fn default_config() -> &'static Path {
    Path::new("reconciler.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_to_come_are_not_asked_for() {
        let day = |text| Date::parse(text).unwrap();
        for (from, last, asked) in [
            ("2026-11-01", "2026-11-30", "2026-11-21"),
            ("2026-11-01", "2026-11-21", "2026-11-21"),
            ("2026-11-01", "2026-11-20", "2026-11-20"),
            // A source says that it does not have it.
            ("2026-11-25", "2026-11-30", "2026-11-25"),
        ] {
            assert_eq!(last_to_ask(day(from), day(last), day("2026-11-21")), day(asked), "{last}");
        }
    }
}
