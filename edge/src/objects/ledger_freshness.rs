//! How far a month's books have come: the newest event, the newest day that each provider has billed, and how much of
//! the charges names an owner.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::ledger_object::{Filter, LedgerObject};
use super::sql::{Sql, SqlError, integer, text};

/// The dimensions that charges should name.
const ALLOCATED: [&str; 4] = ["owner", "team", "feature", "cost_centre"];

/// A question for the state of the books.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BooksQuery {
    /// The first moment of the month whose allocation is asked for.
    pub month_ms: i64,
}

/// The state of one Ledger's books, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Books {
    /// When the newest request was admitted.
    pub newest_event_at: Option<String>,
    /// Provider by provider, as bills name them.
    pub providers: BTreeMap<String, Freshness>,
    /// What was charged in the month.
    pub charged_usd: Usd,
    /// What of it has no bill yet.
    pub still_estimated_usd: Usd,
    /// The month as trued up: bills where there are any, charges where there are none.
    pub ledger_usd: Usd,
    /// What of it names each dimension.
    pub allocated_usd: BTreeMap<String, Usd>,
}

/// How far a provider's days are reconciled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// The newest day that the reconciler has looked at.
    pub seen_until: Option<String>,
    /// The newest day with a bill.
    pub billed_until: Option<String>,
    /// The newest day with a bill that is final.
    pub final_until: Option<String>,
}

impl Books {
    /// Takes another month's in; `None` when a sum does not fit.
    pub fn add(&mut self, other: Self) -> Option<()> {
        // Moments and days in ISO 8601 sort as time does, and nothing sorts before all.
        self.newest_event_at = self.newest_event_at.take().max(other.newest_event_at);
        for (name, fresh) in other.providers {
            let known = self.providers.entry(name).or_default();
            known.seen_until = known.seen_until.take().max(fresh.seen_until);
            known.billed_until = known.billed_until.take().max(fresh.billed_until);
            known.final_until = known.final_until.take().max(fresh.final_until);
        }
        self.charged_usd = self.charged_usd.checked_add(other.charged_usd)?;
        self.still_estimated_usd =
            self.still_estimated_usd.checked_add(other.still_estimated_usd)?;
        self.ledger_usd = self.ledger_usd.checked_add(other.ledger_usd)?;
        for (name, amount) in other.allocated_usd {
            let known = self.allocated_usd.entry(name).or_default();
            *known = known.checked_add(amount)?;
        }
        Some(())
    }
}

impl<S: Sql> LedgerObject<S> {
    /// The state of this month's books.
    pub(super) fn books(&self, query: &BooksQuery) -> Result<Value, SqlError> {
        let newest = "SELECT CAST(at_ms AS TEXT) FROM events ORDER BY id DESC LIMIT 1";
        let newest = self.exec(newest, &[])?;
        let newest: Option<i64> = newest.first().map(|row| integer(row, 0)).transpose()?;
        let providers = "SELECT provider, MAX(day), MAX(IIF(billed_pico IS NULL, NULL, day)),
                MAX(IIF(billed_pico IS NULL OR provisional, NULL, day)) FROM true_ups GROUP BY provider";
        let day = |row: &super::sql::Row, at: usize| row.get(at).cloned().flatten();
        let providers = self.exec(providers, &[])?;
        let providers = providers.iter().map(|row| {
            let fresh = Freshness {
                seen_until: day(row, 1),
                billed_until: day(row, 2),
                final_until: day(row, 3),
            };
            Ok((text(row, 0)?.to_owned(), fresh))
        });
        let mut month = Filter::default();
        month.hours(Some(query.month_ms), None);
        let (from, params) = self.summed(&ALLOCATED, &month)?;
        let sums =
            ALLOCATED.map(|name| format!("SUM(IIF(COALESCE({name}, '') = '', 0, charged_nanos))"));
        let sums = sums.iter().map(String::as_str).chain(["SUM(charged_nanos)"]);
        let sums: Vec<String> =
            sums.map(|sum| format!("CAST(COALESCE({sum}, 0) AS TEXT)")).collect();
        let select = format!("SELECT {} FROM {from}", sums.join(", "));
        let rows = self.exec_with(&select, &params)?;
        let amount = |at: usize| {
            rows.first().map_or(Ok(Usd::ZERO), |row| integer(row, at).map(Usd::from_nanos))
        };
        let allocated = ALLOCATED.iter().enumerate();
        let allocated = allocated.map(|(at, name)| Ok(((*name).to_owned(), amount(at)?)));
        let mut days = Filter::default();
        days.add("day >= ?", &Timestamp::from_ms(query.month_ms).date().to_string());
        let booked = self.sums(&[], &days)?.pop().map(|(_, sums)| sums).unwrap_or_default();
        let charged = amount(ALLOCATED.len())?;
        let left = charged.checked_sub(booked.estimated_of_billed_usd);
        let ledger = left.and_then(|left| left.checked_add(booked.billed_usd));
        let unfit = || SqlError("the sum of the books does not fit".to_owned());
        let books = Books {
            newest_event_at: newest.map(|ms| Timestamp::from_ms(ms).to_string()),
            providers: providers.collect::<Result<_, SqlError>>()?,
            charged_usd: charged,
            still_estimated_usd: left.ok_or_else(unfit)?,
            ledger_usd: ledger.ok_or_else(unfit)?,
            allocated_usd: allocated.collect::<Result<_, SqlError>>()?,
        };
        Ok(json!({ "data": [books] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(newest: Option<&str>, billed: Option<&str>, charged: &str) -> Books {
        let fresh = Freshness { billed_until: billed.map(str::to_owned), ..Freshness::default() };
        Books {
            newest_event_at: newest.map(str::to_owned),
            providers: BTreeMap::from([("openai".to_owned(), fresh)]),
            charged_usd: charged.parse().unwrap(),
            still_estimated_usd: Usd::ZERO,
            ledger_usd: charged.parse().unwrap(),
            allocated_usd: BTreeMap::from([("team".to_owned(), charged.parse().unwrap())]),
        }
    }

    #[test]
    fn the_newest_of_several_months_counts_and_charges_add_up() {
        let mut all = books(None, Some("2026-10-31"), "1");
        all.add(books(Some("2026-11-20T10:00:00.000Z"), None, "2.5")).unwrap();
        assert_eq!(all, books(Some("2026-11-20T10:00:00.000Z"), Some("2026-10-31"), "3.5"));
    }
}
