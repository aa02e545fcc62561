//! What bills made of budgets: each correction of the reconciler, kept when its Budgets have it, for a little more than
//! a year. What says nothing new is not kept again: nights repeat themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::budget::terms::BudgetTerms;
use tallygate_shared::feedback::BudgetCorrection;
use tallygate_shared::money::Usd;
use tallygate_shared::reconciliation_run::RUNS_KEPT_DAYS;
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::reconciler::day_of;
use super::reports::{number, page};
use super::{Answer, Api};
use crate::admin::call::{Correct, Step};
use crate::objects::ledger_object::Filter;
use crate::objects::sql::{Row, Sql, SqlError, integer, text};
use crate::objects::workspace_object::WorkspaceObject;

/// The step of the Workspace's schema that brings corrections. Amounts are text: in picodollars 64 bits end at nine
/// million dollars.
pub(in crate::objects) const CORRECTIONS: &str = "
    CREATE TABLE budget_corrections (seq INTEGER PRIMARY KEY AUTOINCREMENT, budget TEXT NOT NULL, value TEXT NOT NULL,
        day TEXT NOT NULL, source TEXT NOT NULL, revision INTEGER NOT NULL, amount TEXT NOT NULL, change TEXT NOT NULL,
        by_quantity TEXT NOT NULL, by_price TEXT NOT NULL, windows TEXT NOT NULL, came_ms INTEGER NOT NULL,
        UNIQUE (budget, value, day, source, revision));
    CREATE INDEX budget_corrections_by_day ON budget_corrections (day);
    CREATE INDEX budget_corrections_by_age ON budget_corrections (came_ms)
";
/// Corrections in a page, where no limit is asked for.
const DEFAULT_PAGE: u64 = 50;
/// One correction: what makes it, in the order of the parameters.
const SAME: &str = "budget = ? AND value = ? AND day = ? AND source = ?";

/// The changes of a budget's terms, the newest first: when, and what they were before.
pub(super) struct History(Vec<(Timestamp, Option<BudgetTerms>)>);

impl History {
    /// Whether what this value spent on a day, all of it, is on the line that the budget counts on now.
    pub(super) fn counted(&self, now: &BudgetTerms, value: &str, day: Timestamp) -> bool {
        let end = day.plus_ms(DAY_MS);
        let (mut until, mut terms) = (None, Some(now));
        for (at, before) in &self.0 {
            // These terms were in force from `at` until the next change.
            let overlaps = *at < end && until.is_none_or(|until| until > day);
            if overlaps && !terms.is_some_and(|terms| terms.counts_as(now, value)) {
                return false;
            }
            if *at <= day {
                return true;
            }
            (until, terms) = (Some(*at), before.as_ref());
        }
        // Before the oldest change that is known.
        terms.is_some_and(|terms| terms.counts_as(now, value))
    }
}

/// What Budgets are told, and what is kept of it.
#[derive(Default)]
pub(super) struct Corrections {
    /// One call for each Budget.
    pub(super) calls: Vec<Correct>,
    /// Every correction.
    pub(super) kept: Vec<Kept>,
}

/// A correction, and where it counts.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    correction: BudgetCorrection,
    /// The windows of its budget that it counts in: `month:2026-11`. None where there is no such budget any more.
    windows: Vec<String>,
}

impl Kept {
    pub(super) const fn new(correction: BudgetCorrection, windows: Vec<String>) -> Self {
        Self { correction, windows }
    }
}

/// Corrections as the Workspace is told of them when Budgets have them.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// When they came.
    pub(super) at: Timestamp,
    /// The corrections.
    pub(super) kept: Vec<Kept>,
}

impl<S: Sql> WorkspaceObject<S> {
    /// Remembers corrections that their Budgets have.
    pub fn corrected(&self, record: &str) -> Result<(), SqlError> {
        // A demo that was removed meanwhile remembers nothing.
        if self.id().is_err() {
            return Ok(());
        }
        let Record { at, kept } =
            serde_json::from_str(record).map_err(|e| SqlError(format!("corrections: {e}")))?;
        kept.iter().try_for_each(|kept| self.keep_correction(kept, at))?;
        let old = at.plus_ms(-RUNS_KEPT_DAYS * DAY_MS).ms().to_string();
        let forget = "DELETE FROM budget_corrections WHERE came_ms < CAST(? AS INTEGER)";
        self.exec(forget, &[Some(&old)]).map(|_| ())
    }

    fn keep_correction(&self, kept: &Kept, at: Timestamp) -> Result<(), SqlError> {
        let Kept { correction, windows } = kept;
        let BudgetCorrection { budget, value, day, source, amount, .. } = correction;
        let of = [budget, value, day, source].map(|it| Some(it.as_str()));
        let select = format!(
            "SELECT CAST(seq AS TEXT), CAST(revision AS TEXT), amount, windows FROM budget_corrections
                WHERE {SAME} ORDER BY revision DESC LIMIT 1"
        );
        let known = self.exec(&select, &of)?;
        let (revision, windows) = (correction.revision.to_string(), windows.join(" "));
        let mut before = Usd::ZERO;
        if let Some(row) = known.first() {
            let (seq, newest) = (text(row, 0)?, integer::<u64>(row, 1)?);
            if newest > correction.revision {
                return Ok(());
            }
            let (was, counted_in) = (Usd::from_pico(integer(row, 2)?), text(row, 3)?);
            if was == *amount && counted_in == windows {
                let update = "UPDATE budget_corrections SET revision = CAST(? AS INTEGER)
                    WHERE seq = CAST(? AS INTEGER)";
                return self.exec(update, &[Some(&revision), Some(seq)]).map(|_| ());
            }
            before = if counted_in.is_empty() { Usd::ZERO } else { was };
            if newest == correction.revision {
                let delete = "DELETE FROM budget_corrections WHERE seq = CAST(? AS INTEGER)";
                self.exec(delete, &[Some(seq)])?;
            }
        }
        let does_not_fit = || SqlError("a correction does not fit".to_owned());
        let change = amount.checked_sub(before).ok_or_else(does_not_fit)?;
        let amounts = [*amount, change, correction.by_quantity, correction.by_price]
            .map(|amount| amount.pico().to_string());
        let insert =
            "INSERT INTO budget_corrections (budget, value, day, source, revision, amount, change,
                by_quantity, by_price, windows, came_ms)
            VALUES (?, ?, ?, ?, CAST(? AS INTEGER), ?, ?, ?, ?, ?, CAST(? AS INTEGER))";
        let came = at.ms().to_string();
        let mut params = of.to_vec();
        params.push(Some(&revision));
        params.extend(amounts.iter().map(|amount| Some(amount.as_str())));
        params.extend([Some(windows.as_str()), Some(came.as_str())]);
        self.exec(insert, &params).map(|_| ())
    }
}

impl<S: Sql> Api<'_, S> {
    /// How the terms of these budgets came about, as the audit log has it. The log is kept for good, so it knows of
    /// every budget.
    pub(super) fn histories(
        &self,
        corrections: &[BudgetCorrection],
    ) -> Result<BTreeMap<String, History>, SqlError> {
        let named: BTreeSet<&String> = corrections.iter().map(|it| &it.budget).collect();
        let there = self.workspace.config().budgets.keys().filter(|name| named.contains(name));
        there.map(|name| Ok((name.clone(), self.history(name)?))).collect()
    }

    fn history(&self, name: &str) -> Result<History, SqlError> {
        let select = "SELECT at, json_extract(body, '$.before') FROM audit WHERE path = ?
            ORDER BY seq DESC";
        let rows = self.workspace.exec(select, &[Some(&format!("budgets.{name}"))])?;
        let change = |row: &Row| {
            let before = row.get(1).and_then(Option::as_deref);
            let at = Timestamp::parse(text(row, 0)?)
                .ok_or_else(|| SqlError("a change without a time".to_owned()))?;
            Ok((at, before.and_then(|it| serde_json::from_str(it).ok())))
        };
        rows.iter().map(change).collect::<Result<_, _>>().map(History)
    }

    /// Whether a correction of a time that the budget does not count takes back what one took off in this window, when it
    /// did count that time: what a bill that was not whole yet took off must not stay off. It can only take room.
    pub(super) fn takes_back(
        &self,
        correction: &BudgetCorrection,
        window: &str,
    ) -> Result<bool, SqlError> {
        let BudgetCorrection { budget, value, day, source, .. } = correction;
        let select = format!(
            "SELECT amount FROM budget_corrections WHERE {SAME} AND instr(' ' || windows || ' ', ?) > 0
                ORDER BY revision DESC LIMIT 1"
        );
        let window = format!(" {window} ");
        let params = [budget, value, day, source, &window].map(|it| Some(it.as_str()));
        let known = self.workspace.exec(&select, &params)?;
        let known = known.first().map(|row| integer(row, 0)).transpose()?.map(Usd::from_pico);
        Ok(known.is_some_and(|known| known < correction.amount))
    }

    /// What changed budgets, the newest first. What changed nothing is left out.
    pub(super) fn corrections(&self) -> Answer {
        let mut filter = Filter::default();
        let mut limit = DEFAULT_PAGE;
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => {
                    day_of("from", &value)?;
                    filter.add("day >= ?", &value);
                }
                "to" => {
                    day_of("to", &value)?;
                    filter.add("day < ?", &value);
                }
                "provider" => filter.add("source = ?", &value),
                "budget" => filter.add("budget = ?", &value),
                "limit" => limit = page(&value)?,
                _ => {
                    let seq = number("cursor", &value)?.to_string();
                    filter.add("seq < CAST(? AS INTEGER)", &seq);
                }
            }
        }
        let budgets = &self.workspace.config().budgets;
        if self.principal.owner.is_some() {
            let seen = budgets.iter().filter(|(_, terms)| self.sees(&terms.owner));
            let seen: Vec<&String> = seen.map(|(name, _)| name).collect();
            filter.add("budget IN (SELECT value FROM json_each(?))", &json!(seen).to_string());
        }
        filter.add("change <> ?", "0");
        let newer =
            "EXISTS (SELECT 1 FROM budget_corrections AS newer WHERE newer.budget = this.budget
            AND newer.value = this.value AND newer.day = this.day AND newer.source = this.source
            AND newer.revision > this.revision)";
        let select = format!(
            "SELECT CAST(seq AS TEXT), budget, value, day, source, CAST(revision AS TEXT), amount, change, by_quantity,
                by_price, windows, CAST(came_ms AS TEXT), CAST({newer} AS TEXT)
             FROM budget_corrections AS this {} ORDER BY seq DESC LIMIT {}",
            filter.clause(),
            limit + 1
        );
        let rows = self.workspace.exec(&select, &filter.params())?;
        let size = usize::try_from(limit).unwrap_or(usize::MAX);
        let shown = |row: &Row| {
            let owner = budgets.get(text(row, 1)?).map(|terms| terms.owner.as_str());
            correction(row, owner)
        };
        let data: Vec<Value> = rows.iter().take(size).map(shown).collect::<Result<_, _>>()?;
        let last = rows.get(size.saturating_sub(1)).filter(|_| rows.len() > size);
        let next = last.map(|row| text(row, 0)).transpose()?;
        Ok(Step::json(200, &json!({ "data": data, "next_cursor": next })))
    }
}

fn correction(row: &Row, owner: Option<&str>) -> Result<Value, SqlError> {
    let amount = |at| Ok::<_, SqlError>(Usd::from_pico(integer(row, at)?));
    let windows: Vec<&str> = text(row, 10)?.split_whitespace().collect();
    let state = match (text(row, 12)?, windows.as_slice()) {
        ("1", _) => "replaced",
        (_, []) => "no_budget",
        _ => "counts",
    };
    // Budgets count in nanodollars.
    let counted = if state == "counts" { amount(6)?.round_to_nanos() } else { Usd::ZERO };
    let came = Timestamp::from_ms(integer(row, 11)?).to_string();
    Ok(
        json!({ "came_at": came, "day": text(row, 3)?, "provider": text(row, 4)?, "budget": text(row, 1)?,
               "value": text(row, 2)?, "owner": owner, "revision": integer::<u64>(row, 5)?, "amount_usd": amount(6)?,
               "change_usd": amount(7)?, "by_quantity_usd": amount(8)?, "by_price_usd": amount(9)?,
               "counted_usd": counted, "windows": windows, "state": state }),
    )
}
