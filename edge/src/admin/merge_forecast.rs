//! The forecast of a month, and the state of the books, from the answers of several Ledgers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::forecast::{LEAST_DAYS, METHOD, forecast, record};
use tallygate_shared::money::Usd;
use tallygate_shared::time::{Date, Timestamp};

use super::call::Step;
use crate::objects::ledger_freshness::Books;
use crate::objects::ledger_object::UsageQuery;

/// A question for the forecast of the month that a day lies in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForecastQuery {
    /// Today.
    pub(crate) today: String,
    /// What the Ledgers are asked: usage by day.
    pub(crate) usage: UsageQuery,
}

/// The forecast, from rows of usage by day.
pub(super) fn forecast_of(payload: &str, rows: &[Value]) -> Option<Step> {
    let query: ForecastQuery = serde_json::from_str(payload).ok()?;
    let today = Date::parse(&query.today)?;
    let mut days: BTreeMap<i64, Usd> = BTreeMap::new();
    for row in rows {
        let start = Timestamp::parse(row.get("bucket_start")?.as_str()?)?;
        let amount: Usd = row.get("charged_usd")?.as_str()?.parse().ok()?;
        let day = days.entry(start.date().days()).or_default();
        *day = day.checked_add(amount)?;
    }
    let spent = |from: Date| {
        let days = days.range(from.days()..=today.days());
        days.map(|(_, spent)| *spent).fold(Usd::ZERO, Usd::saturating_add)
    };
    let made = forecast(&days, today);
    let reason =
        made.is_none().then(|| format!("{LEAST_DAYS} whole days with spending are needed."));
    Some(Step::json(
        200,
        &json!({
            "month": query.today.get(..7), "made_on": query.today,
            "until": today.first_of_next_month().to_string(),
            "spent_today_usd": spent(today), "spent_usd": spent(today.first_of_month()),
            "forecast": made, "no_forecast_because": reason, "method": METHOD, "accuracy": record(&days, today),
        }),
    ))
}

/// The state of the books of all months together.
pub(super) fn books(rows: Vec<Value>) -> Option<Step> {
    let mut all = Books::default();
    for row in rows {
        all.add(serde_json::from_value(row).ok()?)?;
    }
    Some(Step::json(200, &json!(all)))
}
