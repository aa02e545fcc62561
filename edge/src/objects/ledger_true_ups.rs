//! The true-ups of a month: what each line of a reconciled day was estimated and billed at, as the reconciler last said;
//! and the export that the reconciler reads events from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::feedback::TrueUp;
use tallygate_shared::money::Usd;
use tallygate_shared::time::HOUR_MS;

use super::archive_part::Place;
use super::ledger_object::{Filter, LedgerObject};
use super::ledger_search::first_id;
use super::sql::{Row, Sql, SqlError, integer, text};
use crate::dimensions::{TRUE_UP_DIMENSIONS, TRUE_UP_OWNER_DIMENSIONS};

/// Picodollars in a thousandth of a dollar. An amount is summed in two parts, so that neither sum leaves 64 bits.
pub(super) const PICO_PER_MILLI: i128 = 1_000_000_000;
/// The amounts of a line, each with the two columns that it is summed in.
const SUMMED: [&str; 4] = ["estimated", "billed", "quantity", "price"];

/// The step of the schema that lets SQLite add true-ups up: owners and amounts in columns. What is there is taken over.
pub const COLUMNS: &str = "
    ALTER TABLE true_ups ADD COLUMN of_key TEXT;
    ALTER TABLE true_ups ADD COLUMN of_owner TEXT;
    ALTER TABLE true_ups ADD COLUMN of_cost_centre TEXT;
    ALTER TABLE true_ups ADD COLUMN of_environment TEXT;
    ALTER TABLE true_ups ADD COLUMN of_user TEXT;
    ALTER TABLE true_ups ADD COLUMN of_team TEXT;
    ALTER TABLE true_ups ADD COLUMN of_app TEXT;
    ALTER TABLE true_ups ADD COLUMN of_feature TEXT;
    ALTER TABLE true_ups ADD COLUMN of_agent TEXT;
    ALTER TABLE true_ups ADD COLUMN of_customer TEXT;
    ALTER TABLE true_ups ADD COLUMN of_unmetered TEXT;
    ALTER TABLE true_ups ADD COLUMN estimated_milli INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE true_ups ADD COLUMN estimated_rest INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE true_ups ADD COLUMN billed_milli INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE true_ups ADD COLUMN billed_rest INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE true_ups ADD COLUMN quantity_milli INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE true_ups ADD COLUMN quantity_rest INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE true_ups ADD COLUMN price_milli INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE true_ups ADD COLUMN price_rest INTEGER NOT NULL DEFAULT 0;
    UPDATE true_ups SET
        of_key = json_extract(owner, '$.key'), of_owner = json_extract(owner, '$.owner'),
        of_cost_centre = json_extract(owner, '$.cost_centre'), of_environment = json_extract(owner, '$.environment'),
        of_user = json_extract(owner, '$.user'), of_team = json_extract(owner, '$.team'),
        of_app = json_extract(owner, '$.app'), of_feature = json_extract(owner, '$.feature'),
        of_agent = json_extract(owner, '$.agent'), of_customer = json_extract(owner, '$.customer'),
        of_unmetered = json_extract(owner, '$.unmetered'),
        estimated_milli = CAST(CASE WHEN length(ltrim(estimated_pico, '-')) > 9
            THEN substr(estimated_pico, 1, length(estimated_pico) - 9) ELSE '0' END AS INTEGER),
        estimated_rest = CAST(substr(ltrim(estimated_pico, '-'), -9) AS INTEGER)
            * (CASE WHEN estimated_pico LIKE '-%' THEN -1 ELSE 1 END),
        billed_milli = CAST(CASE WHEN length(ltrim(COALESCE(billed_pico, '0'), '-')) > 9
            THEN substr(billed_pico, 1, length(billed_pico) - 9) ELSE '0' END AS INTEGER),
        billed_rest = CAST(substr(ltrim(COALESCE(billed_pico, '0'), '-'), -9) AS INTEGER)
            * (CASE WHEN billed_pico LIKE '-%' THEN -1 ELSE 1 END),
        quantity_milli = CAST(CASE WHEN length(ltrim(quantity_pico, '-')) > 9
            THEN substr(quantity_pico, 1, length(quantity_pico) - 9) ELSE '0' END AS INTEGER),
        quantity_rest = CAST(substr(ltrim(quantity_pico, '-'), -9) AS INTEGER)
            * (CASE WHEN quantity_pico LIKE '-%' THEN -1 ELSE 1 END),
        price_milli = CAST(CASE WHEN length(ltrim(price_pico, '-')) > 9
            THEN substr(price_pico, 1, length(price_pico) - 9) ELSE '0' END AS INTEGER),
        price_rest = CAST(substr(ltrim(price_pico, '-'), -9) AS INTEGER)
            * (CASE WHEN price_pico LIKE '-%' THEN -1 ELSE 1 END)
";

/// An event's id begins with the time of the isolate that minted it; its time of admission is the Meter's. They differ by
/// less than this.
pub(super) const CLOCK_SKEW_MS: i64 = HOUR_MS;
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

/// A group's values, and what its lines add up to.
pub(super) type Grouped = (Vec<Option<String>>, TrueUpSums);

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
        let amounts = [
            line.estimated,
            line.billed.unwrap_or_default(),
            line.quantity_variance,
            line.price_variance,
        ];
        let parts = amounts.iter().flat_map(|amount| {
            [amount.pico() / PICO_PER_MILLI, amount.pico() % PICO_PER_MILLI]
                .map(|it| it.to_string())
        });
        let parts: Vec<String> = parts.collect();
        let columns: Vec<String> = TRUE_UP_OWNER_DIMENSIONS
            .iter()
            .map(|name| format!("of_{name}"))
            .chain(SUMMED.iter().flat_map(|name| [format!("{name}_milli"), format!("{name}_rest")]))
            .collect();
        let taken: Vec<String> =
            columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
        // Amounts are text: in picodollars 64 bits end at nine million dollars.
        let upsert = format!(
            "INSERT INTO true_ups (day, provider, line, revision, model, meter, kind, owner, estimated_pico,
                billed_pico, quantity_pico, price_pico, provisional, {})
            VALUES (?, ?, ?, CAST(? AS INTEGER), ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS INTEGER){}{})
            ON CONFLICT (day, provider, line) DO UPDATE SET revision = excluded.revision, model = excluded.model,
                meter = excluded.meter, kind = excluded.kind, owner = excluded.owner,
                estimated_pico = excluded.estimated_pico, billed_pico = excluded.billed_pico,
                quantity_pico = excluded.quantity_pico, price_pico = excluded.price_pico,
                provisional = excluded.provisional, {}
            WHERE excluded.revision >= true_ups.revision",
            columns.join(", "),
            ", ?".repeat(TRUE_UP_OWNER_DIMENSIONS.len()),
            ", CAST(? AS INTEGER)".repeat(parts.len()),
            taken.join(", ")
        );
        let mut params = vec![
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
        params
            .extend(TRUE_UP_OWNER_DIMENSIONS.map(|name| line.owner.get(name).map(String::as_str)));
        params.extend(parts.iter().map(|part| Some(part.as_str())));
        self.exec(&upsert, &params).map(|_| ())
    }

    /// Lines added up by any dimensions.
    pub(super) fn true_ups(&self, query: &TrueUpsQuery) -> Result<Value, SqlError> {
        let mut filter = Filter::default();
        if let Some(from) = &query.from {
            filter.add("day >= ?", from);
        }
        if let Some(to) = &query.to {
            filter.add("day < ?", to);
        }
        for (name, value) in &query.filters {
            filter.add(&format!("{} = ?", column_of(name)?), value);
        }
        let groups = query.group_by.iter().map(|name| column_of(name));
        let groups: Vec<String> = groups.collect::<Result<_, _>>()?;
        let data = self.sums(&groups, &filter)?.into_iter().map(|(group, sums)| {
            let names = query.group_by.iter().cloned().zip(group);
            json!({ "group": names.collect::<BTreeMap<_, _>>(), "sums": sums })
        });
        Ok(json!({ "data": data.collect::<Vec<_>>() }))
    }

    /// What lines add up to by some columns, in the order of their values.
    pub(super) fn sums(
        &self,
        groups: &[String],
        filter: &Filter,
    ) -> Result<Vec<Grouped>, SqlError> {
        let mut columns = groups.to_vec();
        let sum = |of: &str| format!("CAST(SUM({of}) AS TEXT)");
        for name in SUMMED {
            columns.extend([sum(&format!("{name}_milli")), sum(&format!("{name}_rest"))]);
        }
        let of_billed = |part| sum(&format!("IIF(billed_pico IS NULL, 0, estimated_{part})"));
        columns.extend([of_billed("milli"), of_billed("rest")]);
        columns.extend([sum("billed_pico IS NULL"), sum("provisional")]);
        // Without a group there is still no row of nothing.
        let by = if groups.is_empty() { "day IS NULL".to_owned() } else { groups.join(", ") };
        let select = format!(
            "SELECT {} FROM true_ups {} GROUP BY {by} ORDER BY {by}",
            columns.join(", "),
            filter.clause()
        );
        let rows = self.exec(&select, &filter.params())?;
        let of_row = |row: &Row| {
            let at = groups.len();
            let group = row.iter().take(at).cloned().collect();
            let sums = TrueUpSums {
                estimated_usd: amount(row, at)?,
                billed_usd: amount(row, at + 2)?,
                quantity_variance_usd: amount(row, at + 4)?,
                price_variance_usd: amount(row, at + 6)?,
                estimated_of_billed_usd: amount(row, at + 8)?,
                unbilled_lines: integer(row, at + 10)?,
                provisional_lines: integer(row, at + 11)?,
            };
            Ok((group, sums))
        };
        rows.iter().map(of_row).collect()
    }

    /// A page of events for the reconciler: each as it was recorded, in the order of their ids. `lines` is their text, a
    /// line each; `after` leads to the next page and is absent from the last. `parts` have further events of the page.
    pub(super) fn export(&self, query: &ExportQuery) -> Result<Value, SqlError> {
        let start = first_id(query.from_ms.saturating_sub(CLOCK_SKEW_MS));
        let end = first_id(query.to_ms.saturating_add(CLOCK_SKEW_MS));
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

/// The column of a dimension. A name becomes part of a statement only when it is one of ours.
fn column_of(name: &str) -> Result<String, SqlError> {
    if TRUE_UP_DIMENSIONS.contains(&name) {
        return Ok(name.to_owned());
    }
    if TRUE_UP_OWNER_DIMENSIONS.contains(&name) {
        return Ok(format!("of_{name}"));
    }
    Err(SqlError(format!("true-ups have no dimension `{name}`")))
}

/// An amount from its two parts.
fn amount(row: &Row, at: usize) -> Result<Usd, SqlError> {
    let milli: i128 = integer(row, at)?;
    let pico =
        milli.checked_mul(PICO_PER_MILLI).and_then(|it| it.checked_add(integer(row, at + 1).ok()?));
    pico.map(Usd::from_pico).ok_or_else(|| SqlError("the sum of true-ups does not fit".to_owned()))
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

    #[test]
    fn lines_of_the_older_schema_are_taken_over_exactly() {
        use crate::objects::ledger_object::MIGRATIONS;
        use crate::objects::migrations::migrate;
        let sql = TestSql::new();
        let before = MIGRATIONS.iter().position(|step| *step == COLUMNS).unwrap();
        migrate(&sql, &MIGRATIONS[..before]).unwrap();
        let amounts = [
            ("0", Some("7")),
            ("-999999999", Some("-1000000000")),
            ("12345678901234567890123", None),
            ("1000000001", Some("-12345678901234567890123")),
        ];
        for (place, (estimated, billed)) in amounts.iter().enumerate() {
            let insert = "INSERT INTO true_ups VALUES ('2026-11-20', 'p', ?, 1, 'm', 'input', 'usage', ?, ?, ?, '-5', '3', 1)";
            let (line, owner) = (place.to_string(), format!("{{\"team\":\"t{place}\"}}"));
            sql.exec(insert, &[Some(&line), Some(&owner), Some(estimated), *billed]).unwrap();
        }
        let ledger = LedgerObject::open(sql).unwrap();
        let query = TrueUpsQuery { group_by: vec!["team".into()], ..TrueUpsQuery::default() };
        let found = ledger.true_ups(&query).unwrap();
        for (place, (estimated, billed)) in amounts.iter().enumerate() {
            let (group, sums) = (&found["data"][place]["group"], &found["data"][place]["sums"]);
            let usd = |pico: &str| Usd::from_pico(pico.parse().unwrap());
            assert_eq!(group["team"], format!("t{place}"));
            assert_eq!(sums["estimated_usd"], json!(usd(estimated)), "{sums}");
            assert_eq!(sums["billed_usd"], json!(usd(billed.unwrap_or("0"))), "{sums}");
            assert_eq!(sums["unbilled_lines"], u64::from(billed.is_none()));
            assert_eq!(sums["quantity_variance_usd"], json!(Usd::from_pico(-5)));
        }
    }
}
