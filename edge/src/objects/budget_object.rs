//! The Budget: one account of a shared budget. It grants leases to the Meters whose requests spend from it, and asks for
//! what they do not need when another lacks it.
//!
//! One call of a Meter is one transaction: what is granted is durable before the answer leaves. The rules are
//! [`Grantor`]'s; this object loads, calls, saves, and says whom to ask.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tallygate_shared::alerts::detect::BudgetSnapshot;
use tallygate_shared::budget::lease::{Grantor, Report, SILENT_MS, Share, Standing, Units};
use tallygate_shared::budget::pace::{Pace, pace};
use tallygate_shared::budget::rate_limit::State as RateState;
use tallygate_shared::budget::terms::{BudgetTerms, LineKind, account_parts};
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::budget_calls::{CorrectCall, PastWindow, Recall, Returned, SyncAnswer, SyncCall};
use super::migrations::migrate;
use super::sql::{Sql, SqlError, integer, text};

/// The schema, one step a version; a step is never edited once it shipped.
pub const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE shares (
        line TEXT NOT NULL, holder TEXT NOT NULL, version INTEGER NOT NULL, authorised INTEGER NOT NULL,
        spent INTEGER NOT NULL, keep INTEGER NOT NULL, quota INTEGER NOT NULL, quota_bound INTEGER NOT NULL,
        at_ms INTEGER NOT NULL, PRIMARY KEY (line, holder)
    ) WITHOUT ROWID;
    CREATE TABLE rates (line TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE adjustments (line TEXT PRIMARY KEY, units INTEGER NOT NULL) WITHOUT ROWID
", "
    DROP TABLE adjustments;
    CREATE TABLE corrections (line TEXT NOT NULL, source TEXT NOT NULL, revision INTEGER NOT NULL, units INTEGER NOT NULL,
        PRIMARY KEY (line, source)) WITHOUT ROWID, STRICT;
"];

/// Meters asked in one round, those with most unused money first: more would delay the request that waits for them, and
/// the next request that lacks something asks the next ones.
const RECALLED_AT_ONCE: usize = 32;
/// A Meter that was asked is not asked again for so long: what it held then, it mostly still holds.
const RECALL_PAUSE_MS: i64 = 100;
/// How often the workspace's alerts hear of spending that crosses nothing: for the pace, whose shortest window is 5
/// minutes.
const NEWS_MS: i64 = 30_000;
/// Windows shown as history.
const HISTORY: usize = 60;

/// What can go wrong in a Budget. The request that waits for it is then refused: without the Budget nothing is spent.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// Storage refused.
    #[error(transparent)]
    Storage(#[from] SqlError),
    /// A message could not be read.
    #[error("message: {0}")]
    Message(#[from] serde_json::Error),
    /// Nobody has told this Budget its terms.
    #[error("this Budget has no terms")]
    NoTerms,
}

/// One account of a shared budget.
pub struct BudgetObject<S> {
    sql: S,
    account: String,
    version: u64,
    terms: Option<BudgetTerms>,
    lines: BTreeMap<String, Grantor>,
    recalled: BTreeMap<String, Timestamp>,
    refused: Option<Refused>,
    told: Option<Told>,
}

/// A request did not fit into what is left, although nothing but spent money stood in its way. It says so for as long
/// as the window and the limit are these.
#[derive(Clone, PartialEq, Eq)]
struct Refused {
    line: String,
    limit: Units,
}

/// What the workspace's alerts were last told.
struct Told {
    at: Timestamp,
    line: String,
    spent: Units,
    limit: Units,
    refusing: bool,
}

/// News for the workspace's alerts.
#[derive(Debug, Serialize)]
pub struct News {
    /// The workspace, which is the Alerts object's name.
    pub workspace: String,
    /// The Budget as it stands.
    pub snapshot: BudgetSnapshot,
}

/// The outcome of a Meter's call.
#[derive(Debug, Serialize)]
pub struct Synced {
    /// The answer, as JSON text: it is not for the shell to read.
    pub answer: String,
    /// Whom to ask before the same call is processed again, because it lacks something.
    pub recall: Vec<Recall>,
}

/// What an alarm asks for.
#[derive(Debug, Serialize)]
pub struct Wake {
    /// The Budget's own name.
    pub account: String,
    /// Meters that were silent for long.
    pub recall: Vec<Recall>,
}

/// A Budget at a moment, for people.
#[derive(Debug, Serialize)]
pub struct BudgetStatus {
    /// The budget's name.
    pub budget: String,
    /// What its scope tells requests apart by.
    pub dimension: String,
    /// The value that this account counts.
    pub value: String,
    /// Who answers for it.
    pub owner: String,
    /// Its money in the present window, if it has a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money: Option<MoneyStatus>,
    /// Its rates and slots.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<&'static str, LimitStatus>,
    /// Earlier windows, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PastMoney>,
}

/// A Budget's money in the present window.
#[derive(Debug, Serialize)]
pub struct MoneyStatus {
    /// `strict` or `expected`.
    pub mode: tallygate_shared::budget::terms::Mode,
    /// The kind of window.
    pub window: &'static str,
    /// Its first moment.
    pub starts_at: String,
    /// The first moment after it, when all begins anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<String>,
    /// The limit now, a raise included.
    pub cap_usd: Usd,
    /// How far what is finally spent can pass the cap, at most.
    pub overshoot_bound_usd: Usd,
    /// Spent, as far as it was reported: Meters report within 30 seconds.
    pub spent_usd: Usd,
    /// Set aside for requests in flight.
    pub held_usd: Usd,
    /// Granted to Meters and not spent: what is held, and what waits there.
    pub leased_usd: Usd,
    /// The cap without what is spent and held.
    pub remaining_usd: Usd,
    /// Whether it lasts.
    pub pace: Pace,
}

/// A rate or a number of slots.
#[derive(Debug, Serialize)]
pub struct LimitStatus {
    /// The limit.
    pub limit: Units,
    /// Used of it now.
    pub used: Units,
    /// Left of it now.
    pub remaining: Units,
}

/// What was spent in an earlier window.
#[derive(Debug, Serialize)]
pub struct PastMoney {
    /// `day:2026-11-20`, ...
    pub window: String,
    /// What was spent in it.
    pub spent_usd: Usd,
}

impl<S: Sql> BudgetObject<S> {
    /// Opens the Budget from its storage.
    pub fn open(sql: S) -> Result<Self, BudgetError> {
        migrate(&sql, MIGRATIONS)?;
        let mut budget = Self {
            sql,
            account: String::new(),
            version: 0,
            terms: None,
            lines: BTreeMap::new(),
            recalled: BTreeMap::new(),
            refused: None,
            told: None,
        };
        for row in &budget.sql.exec("SELECT name, value FROM meta", &[])? {
            match text(row, 0)? {
                "account" => budget.account = text(row, 1)?.to_owned(),
                "version" => budget.version = integer(row, 1)?,
                "terms" => budget.terms = Some(serde_json::from_str(text(row, 1)?)?),
                _ => {}
            }
        }
        Ok(budget)
    }

    /// Takes a Meter's reports in and answers each line. `may_recall`: whether others may be asked first.
    pub fn sync(
        &mut self,
        call: &SyncCall,
        may_recall: bool,
        now: Timestamp,
    ) -> Result<Synced, BudgetError> {
        self.adopt(call)?;
        let terms = self.terms.clone().ok_or(BudgetError::NoTerms)?;
        let mut answer = SyncAnswer::default();
        let mut recall: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (line, report) in &call.reports {
            let (grant, short) = self.take_report(&terms, &call.meter, line, report, now)?;
            answer.grants.push((line.clone(), grant));
            if !short || !may_recall {
                continue;
            }
            for meter in self.line(line)?.recallable(&holder(line, &call.meter, report.boot)) {
                let meter = meter_of(&meter).to_owned();
                if meter != call.meter {
                    let lines = recall.entry(meter).or_default();
                    lines.push(line.clone());
                }
            }
        }
        Ok(Synced {
            answer: serde_json::to_string(&answer)?,
            recall: self.worth_asking(recall, now),
        })
    }

    /// Those of the candidates that are worth asking now.
    fn worth_asking(
        &mut self,
        candidates: BTreeMap<String, Vec<String>>,
        now: Timestamp,
    ) -> Vec<Recall> {
        self.recalled.retain(|_, at| now.since_ms(*at).abs() < RECALL_PAUSE_MS);
        let mut asked = Vec::new();
        let mut by_loose: Vec<(Units, String, Vec<String>)> = candidates
            .into_iter()
            .filter(|(meter, _)| !self.recalled.contains_key(meter))
            .map(|(meter, lines)| {
                let loose = |line: &String| {
                    self.lines.get(line).map_or(0, |grantor| grantor.share(&meter).loose())
                };
                (lines.iter().map(loose).fold(0, Units::saturating_add), meter, lines)
            })
            .collect();
        by_loose.sort_by_key(|(loose, ..)| std::cmp::Reverse(*loose));
        for (_, meter, lines) in by_loose.into_iter().take(RECALLED_AT_ONCE) {
            self.recalled.insert(meter.clone(), now);
            asked.push(Recall { meter, lines });
        }
        asked
    }

    /// A Meter that was asked gives back what it does not need. It must hear the answer: only who names the present
    /// version can give back again.
    pub fn returned(
        &mut self,
        returned: &Returned,
        now: Timestamp,
    ) -> Result<SyncAnswer, BudgetError> {
        let terms = self.terms.clone().ok_or(BudgetError::NoTerms)?;
        let mut answer = SyncAnswer::default();
        for (line, report) in &returned.reports {
            let (grant, _) = self.take_report(&terms, &returned.meter, line, report, now)?;
            answer.grants.push((line.clone(), grant));
        }
        Ok(answer)
    }

    fn take_report(
        &mut self,
        terms: &BudgetTerms,
        meter: &str,
        line: &str,
        report: &Report,
        now: Timestamp,
    ) -> Result<(tallygate_shared::budget::lease::Grant, bool), BudgetError> {
        let holder = holder(line, meter, report.boot);
        let pool = terms.pool(line, now);
        let grantor = self.line(line)?;
        let outcome = grantor.report(&holder, report, pool, now);
        let (share, rate) = (grantor.share(&holder), grantor.rate());
        let standing = grantor.standing(pool, now);
        if outcome.short
            && LineKind::of(line).is_some_and(LineKind::is_money)
            && report.unit <= standing.limit
            && standing.spent.saturating_add(report.unit) > standing.limit
        {
            self.refused = Some(Refused { line: line.to_owned(), limit: standing.limit });
        }
        self.save_share(line, &holder, &share)?;
        if matches!(LineKind::of(line), Some(LineKind::Requests | LineKind::Tokens)) {
            self.save_rate(line, &rate)?;
        }
        Ok((outcome.grant, outcome.short))
    }

    /// Takes terms from a newer plan. All Meters bring the same ones for the same version.
    fn adopt(&mut self, call: &SyncCall) -> Result<(), BudgetError> {
        if self.account.is_empty() {
            self.set_meta("account", &call.account)?;
            self.account.clone_from(&call.account);
        }
        let Some(terms) = &call.terms else { return Ok(()) };
        if self.terms.as_ref() == Some(terms)
            || (self.terms.is_some() && call.plan_version <= self.version)
        {
            return Ok(());
        }
        self.set_meta("terms", &serde_json::to_string(terms)?)?;
        self.set_meta("version", &call.plan_version.to_string())?;
        (self.terms, self.version) = (Some(terms.clone()), call.plan_version);
        Ok(())
    }

    /// The alarm's work: whom to ask because they were silent for so long, and what can be forgotten.
    pub fn wake(&mut self, now: Timestamp) -> Result<Wake, BudgetError> {
        let mut silent: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.known_lines()? {
            let grantor = self.line(&line)?;
            for holder in grantor.silent(now) {
                silent.entry(meter_of(&holder).to_owned()).or_default().push(line.clone());
            }
            if LineKind::of(&line).is_some_and(LineKind::is_money) {
                continue;
            }
            for holder in grantor.forget_old(now) {
                let forget = "DELETE FROM shares WHERE line = ? AND holder = ?";
                self.sql.exec(forget, &[Some(&line), Some(&holder)])?;
            }
        }
        let recall = silent.into_iter().map(|(meter, lines)| Recall { meter, lines }).collect();
        Ok(Wake { account: self.account.clone(), recall })
    }

    /// When the alarm must ring next: as long as somebody may spend here, now and then.
    pub fn alarm_at(&self, now: Timestamp) -> Option<Timestamp> {
        let leased = self.lines.values().any(Grantor::is_leased);
        leased.then(|| now.plus_ms(SILENT_MS + 1_000))
    }

    /// Lines on which somebody has something, or might.
    fn known_lines(&self) -> Result<BTreeSet<String>, BudgetError> {
        let select = "SELECT DISTINCT line FROM shares WHERE authorised > spent";
        let rows = self.sql.exec(select, &[])?;
        Ok(rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect::<Result<_, _>>()?)
    }

    /// A line, loaded when it is first asked for: lines of windows that are over stay in storage.
    fn line(&mut self, line: &str) -> Result<&mut Grantor, BudgetError> {
        if !self.lines.contains_key(line) {
            let grantor = self.load_line(line)?;
            self.lines.insert(line.to_owned(), grantor);
        }
        // It was put there just now, where it was not there before.
        Ok(self.lines.entry(line.to_owned()).or_default())
    }

    fn load_line(&self, line: &str) -> Result<Grantor, BudgetError> {
        let select = "SELECT holder, CAST(version AS TEXT), CAST(authorised AS TEXT), CAST(spent AS TEXT),
                CAST(keep AS TEXT), CAST(quota AS TEXT), CAST(quota_bound AS TEXT), CAST(at_ms AS TEXT)
            FROM shares WHERE line = ?";
        let rows = self.sql.exec(select, &[Some(line)])?;
        let share = |row: &super::sql::Row| -> Result<(String, Share), SqlError> {
            let share = Share {
                version: integer(row, 1)?,
                authorised: integer(row, 2)?,
                spent: integer(row, 3)?,
                keep: integer(row, 4)?,
                quota: integer(row, 5)?,
                quota_bound: integer(row, 6)?,
                at: Timestamp::from_ms(integer(row, 7)?),
            };
            Ok((text(row, 0)?.to_owned(), share))
        };
        let shares: Vec<(String, Share)> = rows.iter().map(share).collect::<Result<_, _>>()?;
        let rate = self.sql.exec("SELECT body FROM rates WHERE line = ?", &[Some(line)])?;
        let rate: RateState = match rate.first() {
            Some(row) => serde_json::from_str(text(row, 0)?)?,
            None => RateState::default(),
        };
        Ok(Grantor::restore(shares, rate, self.corrected(line)?))
    }

    /// What corrections add to a line's spending.
    fn corrected(&self, line: &str) -> Result<i128, BudgetError> {
        let select = "SELECT CAST(COALESCE(SUM(units), 0) AS TEXT) FROM corrections WHERE line = ?";
        let rows = self.sql.exec(select, &[Some(line)])?;
        Ok(rows.first().map_or(Ok(0), |row| integer(row, 0))?)
    }

    /// Takes corrections in: what bills add to, or take from, what was reported as spent. Each is absolute for its source;
    /// one that is older than what is there changes nothing. Where more is leased now than the cap leaves, the leases are
    /// called in: the cap must not wait until they are spent.
    pub fn correct(&mut self, call: &CorrectCall, now: Timestamp) -> Result<Wake, BudgetError> {
        self.adopt(&call.terms)?;
        let mut recall: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for correction in &call.corrections {
            let [revision, units] = [correction.revision.to_string(), correction.units.to_string()];
            let upsert = "INSERT INTO corrections (line, source, revision, units)
                VALUES (?, ?, CAST(? AS INTEGER), CAST(? AS INTEGER))
                ON CONFLICT (line, source) DO UPDATE SET revision = excluded.revision, units = excluded.units
                WHERE excluded.revision >= corrections.revision";
            let params = [&correction.line, &correction.source, &revision, &units];
            self.sql.exec(upsert, &params.map(|param| Some(param.as_str())))?;
            let corrected = self.corrected(&correction.line)?;
            self.line(&correction.line)?.adjust(corrected);
            let standing = self.standing(&correction.line, now)?;
            if standing.spent.saturating_add(standing.leased) > standing.limit {
                for holder in self.line(&correction.line)?.recallable("") {
                    let lines = recall.entry(meter_of(&holder).to_owned()).or_default();
                    lines.push(correction.line.clone());
                }
            }
        }
        let recall = self.worth_asking(recall, now);
        Ok(Wake { account: self.account.clone(), recall })
    }

    fn save_share(&self, line: &str, holder: &str, share: &Share) -> Result<(), BudgetError> {
        let numbers = [
            i128::from(share.version),
            i128::from(share.authorised),
            i128::from(share.spent),
            i128::from(share.keep),
            i128::from(share.quota),
            i128::from(share.quota_bound),
            i128::from(share.at.ms()),
        ]
        .map(|number| number.to_string());
        let upsert = "INSERT OR REPLACE INTO shares
                (line, holder, version, authorised, spent, keep, quota, quota_bound, at_ms)
            VALUES (?, ?, CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS INTEGER),
                CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS INTEGER))";
        let mut params = vec![Some(line), Some(holder)];
        params.extend(numbers.iter().map(|number| Some(number.as_str())));
        self.sql.exec(upsert, &params)?;
        Ok(())
    }

    fn save_rate(&self, line: &str, rate: &RateState) -> Result<(), BudgetError> {
        let body = serde_json::to_string(rate)?;
        let upsert = "INSERT OR REPLACE INTO rates (line, body) VALUES (?, ?)";
        self.sql.exec(upsert, &[Some(line), Some(&body)])?;
        Ok(())
    }

    fn set_meta(&self, name: &str, value: &str) -> Result<(), BudgetError> {
        let upsert = "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)";
        self.sql.exec(upsert, &[Some(name), Some(value)])?;
        Ok(())
    }

    fn standing(&mut self, line: &str, now: Timestamp) -> Result<Standing, BudgetError> {
        let pool = self.terms.as_ref().ok_or(BudgetError::NoTerms)?.pool(line, now);
        Ok(self.line(line)?.standing(pool, now))
    }

    /// What the workspace's alerts should hear now: when a threshold is crossed or a request refused, and twice a minute while money is spent.
    /// It counts as told; [`BudgetObject::untold`] takes that back.
    pub fn news(&mut self, now: Timestamp) -> Result<Option<News>, BudgetError> {
        let Some(terms) = self.terms.clone() else { return Ok(None) };
        let Some(limit) = terms.limit_at(now) else { return Ok(None) };
        let line = terms.money_line(now);
        let standing = self.standing(&line, now)?;
        let reached = |spent: Units, limit: Units| {
            let percent = i128::from(spent).saturating_mul(100) / i128::from(limit.max(1));
            terms.thresholds.iter().filter(|threshold| i128::from(**threshold) <= percent).count()
        };
        let refused = Refused { line: line.clone(), limit: standing.limit };
        let refusing = self.refused.as_ref() == Some(&refused);
        let is_news = match &self.told {
            None => standing.spent > 0,
            Some(told) if told.line != line => standing.spent > 0,
            Some(told) => {
                let waited = now.since_ms(told.at).abs() >= NEWS_MS;
                let crossed =
                    reached(standing.spent, standing.limit) != reached(told.spent, told.limit);
                crossed || told.refusing != refusing || (waited && standing.spent != told.spent)
            }
        };
        let parts = account_parts(&self.account);
        let Some((workspace, budget, value)) = parts.filter(|_| is_news) else { return Ok(None) };
        let Ok(id) = WorkspaceId::parse(workspace) else { return Ok(None) };
        let calendar = terms.calendar();
        let snapshot = BudgetSnapshot {
            workspace: id,
            budget: budget.to_owned(),
            dimension: Some(terms.scope.dimension),
            value: if value == workspace { String::new() } else { value.to_owned() },
            owner: terms.owner.clone(),
            window_starts_at: calendar.start(terms.window, now),
            window_ends_at: calendar.end(terms.window, now),
            limit,
            spent: Usd::from_nanos(standing.spent),
            held: Usd::from_nanos(standing.held),
            thresholds: terms.thresholds.clone(),
            refusing,
            at: now,
        };
        let workspace = workspace.to_owned();
        let (spent, limit) = (standing.spent, standing.limit);
        self.told = Some(Told { at: now, line, spent, limit, refusing });
        Ok(Some(News { workspace, snapshot }))
    }

    /// The news did not arrive: they are told again.
    pub fn untold(&mut self) {
        self.told = None;
    }

    /// The Budget as people see it; `None` when nobody has told it its terms.
    pub fn status(
        &mut self,
        call: Option<&SyncCall>,
        now: Timestamp,
    ) -> Result<Option<BudgetStatus>, BudgetError> {
        if let Some(call) = call {
            self.adopt(call)?;
        }
        let Some(terms) = self.terms.clone() else { return Ok(None) };
        let account = self.account.clone();
        let (_, budget, value) = account_parts(&account).unwrap_or_default();
        let money = match terms.limit_at(now) {
            Some(cap) => Some(self.money_status(&terms, cap, now)?),
            None => None,
        };
        let mut limits = BTreeMap::new();
        for (line, name, is_there) in [
            ("requests", "requests_per_minute", terms.requests_per_minute.is_some()),
            ("tokens", "tokens_per_minute", terms.tokens_per_minute.is_some()),
            ("slots", "concurrent_requests", terms.max_concurrency.is_some()),
        ] {
            if is_there {
                let standing = self.standing(line, now)?;
                let used = if line == "slots" { standing.held } else { standing.spent };
                let remaining = standing.limit.saturating_sub(used).max(0);
                limits.insert(name, LimitStatus { limit: standing.limit, used, remaining });
            }
        }
        let past = self.history(&terms.money_line(now))?;
        let past = past
            .into_iter()
            .map(|past| PastMoney { window: past.window, spent_usd: Usd::from_nanos(past.spent) });
        Ok(Some(BudgetStatus {
            budget: budget.to_owned(),
            dimension: terms.scope.dimension.name().to_owned(),
            value: value.to_owned(),
            owner: terms.owner.clone(),
            money,
            limits,
            history: past.collect(),
        }))
    }

    fn money_status(
        &mut self,
        terms: &BudgetTerms,
        cap: Usd,
        now: Timestamp,
    ) -> Result<MoneyStatus, BudgetError> {
        let standing = self.standing(&terms.money_line(now), now)?;
        let calendar = terms.calendar();
        let start = calendar.start(terms.window, now);
        let end = calendar.end(terms.window, now);
        let (spent, held) = (Usd::from_nanos(standing.spent), Usd::from_nanos(standing.held));
        Ok(MoneyStatus {
            mode: terms.mode,
            window: terms.window.name(),
            starts_at: start.to_string(),
            resets_at: end.map(|end| end.to_string()),
            cap_usd: cap,
            overshoot_bound_usd: terms.overshoot(),
            spent_usd: spent,
            held_usd: held,
            leased_usd: Usd::from_nanos(standing.leased),
            remaining_usd: cap.remaining_after(spent.saturating_add(held)),
            pace: pace(cap, spent, start, end, now),
        })
    }

    /// Earlier windows, the latest first.
    fn history(&self, present: &str) -> Result<Vec<PastWindow>, BudgetError> {
        let kind = present.rsplit_once(':').map_or(present, |(kind, _)| kind);
        let select = format!(
            "SELECT line, CAST(SUM(spent) AS TEXT) FROM shares WHERE line LIKE ? AND line < ?
             GROUP BY line ORDER BY line DESC LIMIT {HISTORY}"
        );
        let rows = self.sql.exec(&select, &[Some(&format!("{kind}:%")), Some(present)])?;
        rows.iter()
            .map(|row| {
                let line = text(row, 0)?;
                let window = line.split_once(':').map_or(line, |(_, window)| window).to_owned();
                let spent: i128 = integer(row, 1)?;
                let spent = spent.saturating_add(self.corrected(text(row, 0)?)?);
                Ok(PastWindow { window, spent: Units::try_from(spent).unwrap_or(Units::MAX) })
            })
            .collect()
    }
}

/// What a Meter is called on a line: lines that drain by themselves are counted anew by each of its incarnations.
fn holder(line: &str, meter: &str, boot: u64) -> String {
    match LineKind::of(line) {
        Some(kind) if !kind.is_money() => format!("{meter}#{boot}"),
        _ => meter.to_owned(),
    }
}

fn meter_of(holder: &str) -> &str {
    holder.split_once('#').map_or(holder, |(meter, _)| meter)
}
