//! Statements of a month.

use serde_json::json;
use tallygate_shared::time::Date;

use super::{Answer, Api};
use crate::admin::call::Step;
use crate::admin::problem::Problem;
use crate::objects::ledger_statement::{STATEMENT_DIMENSIONS, StatementQuery};
use crate::objects::sql::Sql;

impl<S: Sql> Api<'_, S> {
    pub(super) fn statement(&self) -> Answer {
        let this_month = self.context.now.date().first_of_month();
        let month = match self.context.call.parameter("month") {
            None => this_month,
            Some(text) => month_of(&text)?,
        };
        if month.days() > this_month.days() {
            let remedy = "Give this month or an earlier one.";
            return Err(Problem::field("month", "has not begun", remedy).into());
        }
        let by = self.context.call.parameter("by").unwrap_or_else(|| "cost_centre".to_owned());
        if !STATEMENT_DIMENSIONS.contains(&by.as_str()) {
            let remedy = format!("Use one of {}.", STATEMENT_DIMENSIONS.join(", "));
            return Err(Problem::field("by", "is not known", &remedy).into());
        }
        let open = month == this_month;
        let query = StatementQuery { month: month.to_string(), by, open };
        let end = month.first_of_next_month().midnight().ms();
        let names = self.billed_ledgers(Some(month.midnight().ms()), Some(end))?;
        Ok(Step::Ledgers { names, method: "statement", payload: json!(query).to_string() })
    }
}

/// The month of `2026-11`.
pub(super) fn month_of(text: &str) -> Result<Date, Problem> {
    let first = (text.len() == 7).then(|| Date::parse(&format!("{text}-01"))).flatten();
    first.ok_or_else(|| Problem::field("month", "is not a month", "Give a month such as 2026-11."))
}
