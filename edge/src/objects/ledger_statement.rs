//! A month's statement: what each cost centre (or any owner) owes, from the month's charges and its bills.
//!
//! The trued-up ledger is every charge of the month, and for each line that has a bill the difference between bill and
//! estimate. A statement cuts that sum into rows; it never leaves a part of it out, and what has no owner is a row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

use super::ledger_object::{Filter, LedgerObject};
use super::ledger_true_ups::TrueUpSums;
use super::sql::{Sql, SqlError, integer};

/// What a statement can be made by: the dimensions that both usage and bills know.
pub(crate) const STATEMENT_DIMENSIONS: [&str; 10] = [
    "cost_centre",
    "team",
    "owner",
    "feature",
    "app",
    "agent",
    "customer",
    "user",
    "key",
    "environment",
];
/// The kind of a line that is metered use.
const USAGE: &str = "usage";
/// How use that the gateway never saw is told from the rest.
const UNMETERED: &str = "unmetered";

/// A question for a statement.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementQuery {
    /// Any day of the month.
    pub month: String,
    /// The dimension.
    pub by: String,
    /// The month is not over.
    pub open: bool,
}

/// One owner's part of a month.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatementRow {
    /// The cost centre, team, ...; absent for what belongs to nobody.
    pub value: Option<String>,
    /// What the gateway charged when the requests were made.
    pub estimated_usd: Usd,
    /// What was billed for metered use.
    pub billed_usd: Usd,
    /// Charged and not billed yet.
    pub still_estimated_usd: Usd,
    /// Billed for use that the gateway never saw.
    pub unmetered_usd: Usd,
    /// Billed beside use, by kind: taxes, credits, discounts, fees.
    pub adjustments: BTreeMap<String, Usd>,
    /// Billed, not billed yet, unmetered and adjustments together.
    pub total_usd: Usd,
}

/// A line of the trued-up ledger as a statement reads it: whose, of which kind, and what it adds up to.
#[derive(Clone, Debug)]
pub struct Booked {
    /// Whose.
    pub value: Option<String>,
    /// The kind of charge, or `unmetered`.
    pub kind: String,
    /// The sums.
    pub sums: TrueUpSums,
}

/// A statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// The rows, the dearest first; what belongs to nobody is the last.
    pub data: Vec<StatementRow>,
    /// The sum of all rows.
    pub total: StatementRow,
    /// Why the figures may still change.
    pub provisional_because: Vec<String>,
}

/// Makes a statement; `None` when a sum does not fit.
pub fn statement(
    charges: &[(Option<String>, Usd)],
    booked: &[Booked],
    open: bool,
) -> Option<Statement> {
    let mut rows: BTreeMap<Option<String>, StatementRow> = BTreeMap::new();
    let mut total = StatementRow::default();
    let (mut unbilled, mut provisional) = (0_u64, 0_u64);
    for (value, amount) in charges {
        let row = rows.entry(value.clone()).or_default();
        for row in [row, &mut total] {
            row.estimated_usd = row.estimated_usd.checked_add(*amount)?;
            row.still_estimated_usd = row.still_estimated_usd.checked_add(*amount)?;
            row.total_usd = row.total_usd.checked_add(*amount)?;
        }
    }
    for line in booked {
        let (billed, estimated) = (line.sums.billed_usd, line.sums.estimated_of_billed_usd);
        unbilled = unbilled.checked_add(line.sums.unbilled_lines)?;
        provisional = provisional.checked_add(line.sums.provisional_lines)?;
        let row = rows.entry(line.value.clone()).or_default();
        for row in [row, &mut total] {
            let part = match line.kind.as_str() {
                USAGE => &mut row.billed_usd,
                UNMETERED => &mut row.unmetered_usd,
                kind => row.adjustments.entry(kind.to_owned()).or_default(),
            };
            *part = part.checked_add(billed)?;
            row.still_estimated_usd = row.still_estimated_usd.checked_sub(estimated)?;
            row.total_usd = row.total_usd.checked_add(billed)?.checked_sub(estimated)?;
        }
    }
    let mut data: Vec<StatementRow> =
        rows.into_iter().map(|(value, row)| StatementRow { value, ..row }).collect();
    data.sort_by_key(|row| (row.value.is_none(), std::cmp::Reverse(row.total_usd)));
    let mut because = Vec::new();
    if open {
        because.push("The month is not over.".to_owned());
    }
    if unbilled > 0 || total.still_estimated_usd != Usd::ZERO {
        because.push("Not everything is billed yet.".to_owned());
    }
    if provisional > 0 {
        because.push("Providers may still change lines of their bills.".to_owned());
    }
    Some(Statement { data, total, provisional_because: because })
}

impl Statement {
    /// The statement as the API answers it. The control is the trued-up ledger's own sum, added up without any owner.
    pub fn answer(&self, query: &StatementQuery, control: &Control) -> Value {
        json!({
            "month": query.month.get(..7), "by": query.by, "data": self.data, "total": self.total,
            "provisional": !self.provisional_because.is_empty(), "provisional_because": self.provisional_because,
            "control": {
                "charged_usd": control.charged, "corrected_usd": control.corrected, "ledger_usd": control.ledger(),
                "agrees": control.ledger() == Some(self.total.total_usd),
            },
        })
    }
}

/// The trued-up ledger of a month as two sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// All charges.
    pub charged: Usd,
    /// What bills change: billed less what was estimated for it.
    pub corrected: Usd,
}

impl Control {
    fn ledger(&self) -> Option<Usd> {
        self.charged.checked_add(self.corrected)
    }
}

impl<S: Sql> LedgerObject<S> {
    /// A month's statement by a dimension.
    pub(super) fn statement(&self, query: &StatementQuery) -> Result<Value, SqlError> {
        let unfit = || SqlError("the sum of a statement does not fit".to_owned());
        if !STATEMENT_DIMENSIONS.contains(&query.by.as_str()) {
            return Err(SqlError(format!("no statement by `{}`", query.by)));
        }
        let first = Date::parse(&query.month).ok_or_else(|| SqlError("no month".to_owned()))?;
        let (first, end) = (first.first_of_month(), first.first_of_next_month());
        let mut span = Filter::default();
        span.hours(Some(first.midnight().ms()), Some(end.midnight().ms()));
        // A bill's lines have the actor's environment before the key's.
        let (column, columns) = match query.by.as_str() {
            by @ "environment" => (
                "COALESCE(NULLIF(actor_environment, ''), environment)",
                vec!["actor_environment", by],
            ),
            by => (by, vec![by]),
        };
        let (from, params) = self.summed(&columns, &span)?;
        let select = format!(
            "SELECT NULLIF({column}, ''), CAST(SUM(charged_nanos) AS TEXT) FROM {from} GROUP BY 1"
        );
        let charges = self.exec_with(&select, &params)?;
        let charges = charges
            .iter()
            .map(|row| Ok((row.first().cloned().flatten(), Usd::from_nanos(integer(row, 1)?))));
        let charges: Vec<(Option<String>, Usd)> = charges.collect::<Result<_, SqlError>>()?;
        let mut days = Filter::default();
        days.add("day >= ?", &first.to_string());
        days.add("day < ?", &end.to_string());
        let kind =
            format!("IIF(of_unmetered IS NOT NULL AND kind = '{USAGE}', '{UNMETERED}', kind)");
        let groups = [format!("of_{}", query.by), kind];
        let booked = self.sums(&groups, &days)?.into_iter().map(|(mut group, sums)| {
            let kind = group.pop().flatten().unwrap_or_default();
            Booked { value: group.pop().flatten(), kind, sums }
        });
        let booked: Vec<Booked> = booked.collect();
        let made = statement(&charges, &booked, query.open).ok_or_else(unfit)?;
        Ok(made.answer(query, &self.control(&span, &days)?))
    }

    /// The trued-up ledger's sum, taken without any group.
    fn control(&self, span: &Filter, days: &Filter) -> Result<Control, SqlError> {
        let select = format!(
            "SELECT CAST(COALESCE(SUM(charged_nanos), 0) AS TEXT) FROM rollups {}",
            span.clause()
        );
        let rows = self.exec(&select, &span.params())?;
        let charged = rows.first().map_or(Ok(0), |row| integer(row, 0))?;
        let mut control = Control { charged: Usd::from_nanos(charged), ..Control::default() };
        for (_, sums) in self.sums(&[], days)? {
            let corrected = sums.billed_usd.checked_sub(sums.estimated_of_billed_usd);
            control.corrected = corrected
                .ok_or_else(|| SqlError("the sum of a statement does not fit".to_owned()))?;
        }
        Ok(control)
    }
}
