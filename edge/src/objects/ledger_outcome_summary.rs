//! Outcomes added up by group, with what the requests behind them were charged.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tallygate_shared::money::Usd;

use super::ledger_days::Span;
use super::ledger_object::LedgerObject;
use super::ledger_outcome_days::{NOT_EMPTY, OWNERS, Sources, counted};
use super::ledger_outcomes::{OutcomesQuery, known};
use super::ledger_released::{RowBehind, cost_unknown, rows_behind};
use super::ledger_true_ups::PICO_PER_MILLI;
use super::sql::{Sql, SqlError, integer};

/// What a group adds up to: accepted and rejected ones; their value in 10^-3 dollars, and what is over in 10^-12; accepted
/// and rejected ones of which no request is known; requests, and what they were charged in nanodollars.
type Sums = [i128; 8];
/// The first of them that counts requests, which outcomes that are read one by one may share.
const REQUESTS: usize = 6;

/// By the values of the dimensions.
type Groups = BTreeMap<Vec<Option<String>>, Sums>;

impl<S: Sql> LedgerObject<S> {
    /// Outcomes by group, with what the requests behind them were charged. In a group each request counts once, however
    /// many outcomes it has.
    pub(super) fn outcome_summary(&self, query: &OutcomesQuery) -> Result<Value, SqlError> {
        let (by, span) = (&query.group_by, Span { from: query.from_ms, to: query.to_ms });
        by.iter().try_for_each(|name| known(name))?;
        let conditions = query.conditions()?;
        let mut names = by.iter().chain(query.filters.keys());
        let sources = if names.all(|name| OWNERS.contains(&name.as_str())) {
            Sources::by_day(&conditions, span)
        } else {
            Sources::one_by_one(&conditions, span)
        };
        let mut groups = Groups::new();
        if by.is_empty() {
            groups.insert(Vec::new(), Sums::default());
        }
        self.add_days(by, &sources, &mut groups)?;
        self.add_counts(by, &sources, &mut groups)?;
        self.add_costs(by, &sources, &mut groups)?;
        let data = groups.iter().map(|(values, sums)| item(by, values, sums));
        Ok(json!({ "data": data.collect::<Result<Vec<_>, _>>()? }))
    }

    /// What the sums by day have.
    fn add_days(
        &self,
        by: &[String],
        sources: &Sources,
        groups: &mut Groups,
    ) -> Result<(), SqlError> {
        let Some(days) = &sources.days else { return Ok(()) };
        let columns = columns(
            by.to_vec(),
            &[
                "accepted",
                "rejected",
                "value_milli",
                "value_rest",
                "IIF(provider IS NULL, accepted, 0)",
                "IIF(provider IS NULL, rejected, 0)",
                "requests",
                "charged_nanos",
            ],
        );
        let clause = days.clause();
        let select = if by.is_empty() {
            format!("SELECT {columns} FROM outcome_days {clause}")
        } else {
            let names = by.join(", ");
            format!(
                "SELECT {columns} FROM outcome_days {clause} GROUP BY {names} HAVING {NOT_EMPTY}"
            )
        };
        self.gather(&select, &days.owned_params(), (by.len(), 0), groups)
    }

    /// The outcomes that are read one by one.
    fn add_counts(
        &self,
        by: &[String],
        sources: &Sources,
        groups: &mut Groups,
    ) -> Result<(), SqlError> {
        // A label that is not given is stored as none.
        let names: Vec<String> = by.iter().map(|name| format!("NULLIF({name}, '')")).collect();
        let [accepted, rejected, milli, rest] = counted();
        let unknown = cost_unknown();
        let [of_accepted, of_rejected] =
            [1, 0].map(|verdict| format!("CASE WHEN accepted = {verdict} THEN {unknown} END"));
        let sums = [&accepted, &rejected, &milli, &rest, &of_accepted, &of_rejected];
        let select = format!(
            "SELECT {} FROM ({}) AS o {}",
            columns(names.clone(), &sums.map(String::as_str)),
            sources.apart,
            grouping(&names)
        );
        self.gather(&select, &sources.params, (by.len(), 0), groups)
    }

    /// The requests behind the outcomes that are read one by one: how many are known, and what they were charged.
    fn add_costs(
        &self,
        by: &[String],
        sources: &Sources,
        groups: &mut Groups,
    ) -> Result<(), SqlError> {
        let picked: String = by
            .iter()
            .enumerate()
            .map(|(place, name)| format!("NULLIF(o.{name}, '') AS g{place}, "))
            .collect();
        let names: Vec<String> = (0..by.len()).map(|place| format!("g{place}")).collect();
        let behind = rows_behind(|row| {
            let RowBehind { requests, id, session, provider, model, charged } = row;
            format!(
                "{picked}{requests} AS requests, {id}, o.key, {session}, {provider}, {model}, {charged} AS charged_nanos"
            )
        });
        // UNION takes each request of a group once, whether by itself or by its session.
        let select = format!(
            "WITH o AS ({}) SELECT {} FROM ({}) {}",
            sources.apart,
            columns(names.clone(), &["requests", "charged_nanos"]),
            behind.join(" UNION "),
            grouping(&names)
        );
        self.gather(&select, &sources.params, (by.len(), REQUESTS), groups)
    }

    /// Adds rows of so many values of a group and then sums, of which the first is the one at `place`.
    fn gather(
        &self,
        select: &str,
        params: &[String],
        (values, place): (usize, usize),
        groups: &mut Groups,
    ) -> Result<(), SqlError> {
        for mut row in self.exec_with(select, params)? {
            let more = row.split_off(values.min(row.len()));
            let sums = groups.entry(row).or_default();
            for (column, sum) in sums.iter_mut().skip(place).take(more.len()).enumerate() {
                *sum += integer::<i128>(&more, column)?;
            }
        }
        Ok(())
    }
}

/// Values of a group and sums, as columns of a statement.
fn columns(mut values: Vec<String>, sums: &[&str]) -> String {
    values.extend(sums.iter().map(|sum| format!("CAST(COALESCE(SUM({sum}), 0) AS TEXT)")));
    values.join(", ")
}

fn grouping(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("GROUP BY {}", names.join(", ")) }
}

fn item(names: &[String], values: &[Option<String>], sums: &Sums) -> Result<Value, SqlError> {
    let does_not_fit = || SqlError("a sum of outcomes does not fit".to_owned());
    let count = |sum: i128| u64::try_from(sum).map_err(|_| does_not_fit());
    let [accepted, rejected, milli, rest, of_accepted, of_rejected, requests, charged] = *sums;
    let charged = i64::try_from(charged).map_err(|_| does_not_fit())?;
    let value = Usd::from_pico(milli * PICO_PER_MILLI + rest);
    let mut item = Map::new();
    for (name, value) in names.iter().zip(values) {
        item.insert(name.clone(), value.clone().into());
    }
    item.insert("accepted".to_owned(), count(accepted)?.into());
    item.insert("rejected".to_owned(), count(rejected)?.into());
    item.insert("value_usd".to_owned(), value.to_string().into());
    item.insert("requests".to_owned(), count(requests)?.into());
    item.insert("cost_usd".to_owned(), Usd::from_nanos(charged).to_string().into());
    item.insert("cost_unknown".to_owned(), count(of_accepted + of_rejected)?.into());
    item.insert("accepted_cost_unknown".to_owned(), count(of_accepted)?.into());
    Ok(Value::Object(item))
}
