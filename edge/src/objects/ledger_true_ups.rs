//! The true-ups of a month: what each line of a reconciled day was estimated and billed at, as the reconciler last said;
//! and the export that the reconciler reads events from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::feedback::TrueUp;
use tallygate_shared::money::Usd;
use tallygate_shared::time::HOUR_MS;

use super::archive_part::Place;
use super::ledger_object::LedgerObject;
use super::sql::{Sql, SqlError, integer, text};
use crate::dimensions::TRUE_UP_DIMENSIONS;

/// An event's id begins with the time of the isolate that minted it; its time of admission is the Meter's. They differ by
/// less than this.
const CLOCK_SKEW_MS: i64 = HOUR_MS;
/// Events in one page of an export, and their bytes: a page crosses between isolates whole. Few in tests, so that there
/// are many pages.
const PAGE_EVENTS: usize = if cfg!(test) { 3 } else { 1_000 };
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A question for the events of a span of time.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// From this moment on.
    pub from_ms: i64,
    /// Before this moment.
    pub to_ms: i64,
    /// Behind this event: `<id>~<key>`.
    #[serde(default)]
    pub after: Option<String>,
}

/// A question for true-ups.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrueUpsQuery {
    /// From this day on.
    pub from: Option<String>,
    /// Before this day.
    pub to: Option<String>,
    /// Dimensions to group by.
    pub group_by: Vec<String>,
    /// Only with these values.
    pub filters: BTreeMap<String, String>,
}

/// What lines add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrueUpSums {
    /// What the edge had estimated.
    pub estimated_usd: Usd,
    /// What was billed.
    pub billed_usd: Usd,
    /// What was estimated of lines that have a bill.
    pub estimated_of_billed_usd: Usd,
    /// What other quantities explain.
    pub quantity_variance_usd: Usd,
    /// What other prices explain.
    pub price_variance_usd: Usd,
    /// Lines without a bill yet.
    pub unbilled_lines: u64,
    /// Lines that the provider may still change.
    pub provisional_lines: u64,
}

impl TrueUpSums {
    /// Adds another sum up to this one; `None` when it does not fit.
    pub fn add(&mut self, other: &Self) -> Option<()> {
        self.estimated_usd = self.estimated_usd.checked_add(other.estimated_usd)?;
        self.billed_usd = self.billed_usd.checked_add(other.billed_usd)?;
        let estimated = self.estimated_of_billed_usd.checked_add(other.estimated_of_billed_usd)?;
        self.estimated_of_billed_usd = estimated;
        let quantity = self.quantity_variance_usd.checked_add(other.quantity_variance_usd)?;
        self.quantity_variance_usd = quantity;
        self.price_variance_usd = self.price_variance_usd.checked_add(other.price_variance_usd)?;
        self.unbilled_lines = self.unbilled_lines.checked_add(other.unbilled_lines)?;
        self.provisional_lines = self.provisional_lines.checked_add(other.provisional_lines)?;
        Some(())
    }
}

impl<S: Sql> LedgerObject<S> {
    /// Takes lines in. Each is absolute: one that is older than what is there changes nothing.
    pub fn true_up(&self, lines: &str) -> Result<String, SqlError> {
        let lines: Vec<TrueUp> =
            serde_json::from_str(lines).map_err(|e| SqlError(format!("true-up: {e}")))?;
        for line in &lines {
            self.put_true_up(line)?;
        }
        Ok(json!({ "taken": lines.len() }).to_string())
    }

    fn put_true_up(&self, line: &TrueUp) -> Result<(), SqlError> {
        let owner = serde_json::to_string(&line.owner).map_err(|e| SqlError(e.to_string()))?;
        let [revision, estimated, quantity, price] = [
            line.revision.to_string(),
            line.estimated.pico().to_string(),
            line.quantity_variance.pico().to_string(),
            line.price_variance.pico().to_string(),
        ];
        let billed = line.billed.map(|billed| billed.pico().to_string());
        // Amounts are text: in picodollars 64 bits end at nine million dollars.
        let upsert = "INSERT INTO true_ups (day, provider, line, revision, model, meter, kind, owner, estimated_pico,
                billed_pico, quantity_pico, price_pico, provisional)
            VALUES (?, ?, ?, CAST(? AS INTEGER), ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS INTEGER))
            ON CONFLICT (day, provider, line) DO UPDATE SET revision = excluded.revision, model = excluded.model,
                meter = excluded.meter, kind = excluded.kind, owner = excluded.owner,
                estimated_pico = excluded.estimated_pico, billed_pico = excluded.billed_pico,
                quantity_pico = excluded.quantity_pico, price_pico = excluded.price_pico,
                provisional = excluded.provisional
            WHERE excluded.revision >= true_ups.revision";
        let params = [
            Some(line.day.as_str()),
            Some(&line.provider),
            Some(&line.line),
            Some(&revision),
            Some(&line.model),
            Some(&line.meter),
            Some(&line.kind),
            Some(&owner),
            Some(&estimated),
            billed.as_deref(),
            Some(&quantity),
            Some(&price),
            Some(if line.provisional { "1" } else { "0" }),
        ];
        self.exec(upsert, &params).map(|_| ())
    }

    /// Lines added up by any dimensions. Sums are taken here, since SQLite's end at 64 bits.
    pub(super) fn true_ups(&self, query: &TrueUpsQuery) -> Result<Value, SqlError> {
        let select = "SELECT day, provider, model, meter, kind, owner, estimated_pico, billed_pico, quantity_pico,
                price_pico, CAST(provisional AS TEXT) FROM true_ups WHERE day >= ? AND day < ?";
        let from = query.from.as_deref().unwrap_or("");
        let to = query.to.as_deref().unwrap_or("~");
        let mut groups: BTreeMap<Vec<Option<String>>, TrueUpSums> = BTreeMap::new();
        for row in &self.exec(select, &[Some(from), Some(to)])? {
            let owner: BTreeMap<String, String> = serde_json::from_str(text(row, 5)?)
                .map_err(|e| SqlError(format!("stored owner: {e}")))?;
            let value = |name: &str| -> Option<String> {
                match TRUE_UP_DIMENSIONS.iter().position(|known| *known == name) {
                    Some(place) => row.get(place).cloned().flatten(),
                    None => owner.get(name).cloned(),
                }
            };
            if query.filters.iter().any(|(name, wanted)| value(name).as_ref() != Some(wanted)) {
                continue;
            }
            let group = query.group_by.iter().map(|name| value(name)).collect();
            let amount = |place| Ok::<_, SqlError>(Usd::from_pico(integer(row, place)?));
            let estimated = amount(6)?;
            let billed = row.get(7).is_some_and(Option::is_some).then(|| amount(7)).transpose()?;
            let one = TrueUpSums {
                estimated_usd: estimated,
                billed_usd: billed.unwrap_or_default(),
                estimated_of_billed_usd: billed.map_or(Usd::ZERO, |_| estimated),
                quantity_variance_usd: amount(8)?,
                price_variance_usd: amount(9)?,
                unbilled_lines: u64::from(billed.is_none()),
                provisional_lines: integer(row, 10)?,
            };
            let overflow = || SqlError("the sum of true-ups does not fit".to_owned());
            groups.entry(group).or_default().add(&one).ok_or_else(overflow)?;
        }
        let data = groups.into_iter().map(|(group, sums)| {
            let names = query.group_by.iter().cloned().zip(group);
            json!({ "group": names.collect::<BTreeMap<_, _>>(), "sums": sums })
        });
        Ok(json!({ "data": data.collect::<Vec<_>>() }))
    }

    /// A page of events for the reconciler: each as it was recorded, in the order of their ids. `lines` is their text, a
    /// line each; `after` leads to the next page and is absent from the last. `parts` have further events of the page.
    pub(super) fn export(&self, query: &ExportQuery) -> Result<Value, SqlError> {
        let id = |ms: i64| format!("req_{:012x}", ms.max(0));
        let start = id(query.from_ms.saturating_sub(CLOCK_SKEW_MS));
        let end = id(query.to_ms.saturating_add(CLOCK_SKEW_MS));
        let pruned = self.exec("SELECT value FROM marks WHERE name = 'pruned_to'", &[])?;
        if let Some(row) = pruned.first()
            && text(row, 0)? >= start.as_str()
        {
            return Ok(json!({ "pruned": true }));
        }
        let begin = Place { id: start, key: String::new() };
        let begin = query.after.as_deref().and_then(Place::parse).unwrap_or(begin);
        let select = format!(
            "SELECT id, key, body FROM events WHERE (id, key) > (?, ?) AND id < ?
                AND at_ms >= CAST(? AS INTEGER) AND at_ms < CAST(? AS INTEGER)
             ORDER BY id, key LIMIT {PAGE_EVENTS}"
        );
        let (from, to) = (query.from_ms.to_string(), query.to_ms.to_string());
        let params = [&begin.id, &begin.key, &end, &from, &to].map(|text| Some(text.as_str()));
        let rows = self.exec(&select, &params)?;
        let (mut lines, mut count, mut after) = (String::new(), 0_usize, None);
        for row in &rows {
            if lines.len() >= PAGE_BYTES {
                break;
            }
            lines.push_str(text(row, 2)?);
            lines.push('\n');
            count += 1;
            after = Some(Place { id: text(row, 0)?.to_owned(), key: text(row, 1)?.to_owned() });
        }
        let is_last = rows.len() < PAGE_EVENTS && count == rows.len();
        let after = after.filter(|_| !is_last);
        let end = Place { id: end, key: String::new() };
        let parts = self.released(&begin, after.as_ref().unwrap_or(&end))?;
        Ok(json!({ "lines": lines, "after": after.map(|after| after.to_string()), "parts": parts }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::test_sql::TestSql;

    fn line(name: &str, revision: u64, team: &str, billed: Option<&str>) -> Value {
        json!({ "day": "2026-11-20", "provider": "openai", "line": name, "revision": revision, "model": "m",
                "meter": "input", "kind": "usage", "owner": { "team": team }, "estimated": "1",
                "billed": billed, "quantity_variance": "0", "price_variance": "0.000000000001", "provisional": false })
    }

    #[test]
    fn lines_are_absolute_and_older_words_change_nothing() {
        let ledger = LedgerObject::open(TestSql::new()).unwrap();
        let put = |lines: Vec<Value>| ledger.true_up(&json!(lines).to_string()).unwrap();
        put(vec![line("a", 2, "x", Some("1.5")), line("b", 2, "y", None)]);
        put(vec![line("a", 2, "x", Some("1.5"))]);
        put(vec![line("a", 1, "x", Some("9"))]);
        put(vec![line("a", 3, "x", Some("9000000.000000000001"))]);
        let query = TrueUpsQuery { group_by: vec!["team".into()], ..TrueUpsQuery::default() };
        let found = ledger.true_ups(&query).unwrap();
        let sums = |at: usize| found["data"][at]["sums"].clone();
        assert_eq!(found["data"][0]["group"]["team"], "x");
        assert_eq!(sums(0)["billed_usd"], "9000000.000000000001");
        assert_eq!(sums(0)["price_variance_usd"], "0.000000000001");
        assert_eq!((&sums(1)["unbilled_lines"], &sums(1)["billed_usd"]), (&json!(1), &json!("0")));
        let query = TrueUpsQuery {
            filters: BTreeMap::from([("team".into(), "y".into())]),
            from: Some("2026-11-20".into()),
            to: Some("2026-11-21".into()),
            ..TrueUpsQuery::default()
        };
        assert_eq!(ledger.true_ups(&query).unwrap()["data"][0]["sums"]["estimated_usd"], "1");
        let query = TrueUpsQuery { from: Some("2026-11-21".into()), ..TrueUpsQuery::default() };
        assert_eq!(ledger.true_ups(&query).unwrap()["data"], json!([]));
    }
}
