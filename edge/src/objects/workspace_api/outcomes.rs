//! What became of requests and sessions, and what an accepted outcome costs: asked of the months' Ledgers.

use serde_json::json;

use super::reports::{moment, page};
use super::{Answer, Api};
use crate::admin::call::Step;
use crate::admin::problem::Problem;
use crate::dimensions::OUTCOME_DIMENSIONS;
use crate::objects::ledger_outcomes::{OutcomesQuery, Position};
use crate::objects::sql::Sql;

const DEFAULT_PAGE: u64 = 50;

impl<S: Sql> Api<'_, S> {
    pub(super) fn outcomes(&self) -> Answer {
        let mut query = OutcomesQuery { limit: DEFAULT_PAGE, ..OutcomesQuery::default() };
        let mut to = None;
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "cursor" => {
                    let position = Position::parse(&value).ok_or_else(|| {
                        let remedy = "Give the last answer's next_cursor.";
                        Problem::field("cursor", "is no cursor of outcomes", remedy)
                    })?;
                    to = Some(position.time_ms.saturating_add(1));
                    query.before = Some(value);
                }
                "limit" => query.limit = page(&value)?,
                _ => about(&mut query, name, value)?,
            }
        }
        // Nothing after the cursor's month is asked.
        let to = [query.to_ms, to].into_iter().flatten().min();
        let names = self.ledgers(query.from_ms, to)?;
        Ok(Step::Ledgers { names, method: "outcomes", payload: json!(query).to_string() })
    }

    pub(super) fn outcome_summary(&self) -> Answer {
        let mut query = OutcomesQuery::default();
        for (name, value) in self.context.call.parameters() {
            if name != "group_by" {
                about(&mut query, name, value)?;
                continue;
            }
            for part in value.split(',').filter(|part| !part.is_empty()) {
                let part = dimension("group_by", part)?;
                if !query.group_by.contains(&part) {
                    query.group_by.push(part);
                }
            }
        }
        let names = self.ledgers(query.from_ms, query.to_ms)?;
        Ok(Step::Ledgers { names, method: "outcome_summary", payload: json!(query).to_string() })
    }
}

/// Takes in which outcomes are meant.
fn about(query: &mut OutcomesQuery, name: String, value: String) -> Result<(), Problem> {
    match name.as_str() {
        "from" => query.from_ms = Some(moment("from", &value)?.ms()),
        "to" => query.to_ms = Some(moment("to", &value)?.ms()),
        "outcome" if !matches!(value.as_str(), "accepted" | "rejected") => {
            return Err(Problem::field("outcome", "is not known", "Use accepted or rejected."));
        }
        "request" | "session" | "outcome" => {
            query.filters.insert(name, value);
        }
        _ => {
            let name = dimension("query", &name)?;
            query.filters.insert(name, value);
        }
    }
    Ok(())
}

fn dimension(field: &str, name: &str) -> Result<String, Problem> {
    if OUTCOME_DIMENSIONS.contains(&name) {
        return Ok(name.to_owned());
    }
    let remedy = format!("Use one of {}.", OUTCOME_DIMENSIONS.join(", "));
    Err(Problem::field(field, "has an unknown dimension of outcomes", &remedy))
}
