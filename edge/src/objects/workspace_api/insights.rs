//! Insights: unit economics, the weekly review, savings and archetypes are asked of the months' Ledgers; the calculators
//! answer by themselves.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::json;
use tallygate_shared::insights::market::{Market, Seller};
use tallygate_shared::insights::throughput::{Commitment, break_even};
use tallygate_shared::insights::week::Week;
use tallygate_shared::insights::workload::{Workload, compare};
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::{Answer, Api};
use crate::admin::call::Step;
use crate::admin::problem::Problem;
use crate::objects::alerts_review::months_of;
use crate::objects::ledger_insights::{
    ArchetypesQuery, ReviewQuery, SavingsQuery, UNIT_DIMENSIONS, UnitQuery,
};
use crate::objects::sql::Sql;
use crate::providers::catalog::{bill_name, price_book_name};

/// Days that savings and archetypes look back by themselves.
const DEFAULT_DAYS: u32 = 30;
/// The largest count that a calculator takes.
const MAX_COUNT: u64 = 1_000_000_000_000_000;
/// The largest count of tokens in a request.
const MAX_TOKENS: u64 = 1_000_000_000;
/// The largest price that a calculator takes.
const MAX_PRICE: i64 = 1_000_000;

impl<S: Sql> Api<'_, S> {
    pub(super) fn unit_economics(&self) -> Answer {
        let today = self.context.now.date();
        let (mut from, mut to) = (today.first_of_month(), Date::from_days(today.days() + 1));
        let mut query = UnitQuery { group_by: "feature".to_owned(), ..UnitQuery::default() };
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "from" => from = day("from", &value)?,
                "to" => to = day("to", &value)?,
                "bucket" => {
                    query.bucket = Some(one_of("bucket", value, &["day", "week", "month"])?)
                }
                _ => query.group_by = one_of("group_by", value, &UNIT_DIMENSIONS)?,
            }
        }
        (query.from_ms, query.to_ms) = (from.midnight().ms(), to.midnight().ms());
        let providers = self.workspace.config().providers.values();
        query.providers = providers.map(|it| bill_name(&it.kind).to_owned()).collect();
        let (from, to) = span(query.from_ms, query.to_ms)?;
        let names = self.billed_ledgers(from, to)?;
        Ok(Step::Ledgers { names, method: "unit_economics", payload: json!(query).to_string() })
    }

    pub(super) fn weekly_review(&self) -> Answer {
        let now = self.context.now;
        // The last whole week.
        let mut week = Week::of(now.date()).plus(-1);
        let mut markdown = false;
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "week" => {
                    let remedy = "Give one by ISO 8601, such as 2026-W47.";
                    let found = Week::parse(&value).filter(|week| week.start() <= now);
                    week = found.ok_or_else(|| {
                        Problem::field("week", "is no week that has begun", remedy)
                    })?;
                }
                _ => markdown = one_of("format", value, &["json", "markdown"])? == "markdown",
            }
        }
        let workspace = self.workspace.id()?.to_string();
        // Months before the workspace was there are asked too: they are empty.
        let names = months_of(&workspace, week);
        let query = ReviewQuery { workspace, week, at: now, markdown };
        Ok(Step::Ledgers { names, method: "weekly_review", payload: json!(query).to_string() })
    }

    pub(super) fn savings(&self) -> Answer {
        let days = self.days()?;
        let at = self.context.now;
        let config = self.workspace.config();
        let (archetypes, commitments) = (config.archetypes.clone(), config.commitments.clone());
        let from = at.plus_ms(-i64::from(days) * DAY_MS);
        // There is no traffic from before the workspace: these hours are not idle.
        let since = self.workspace.created().map_or(from, |made| made.max(from)).start_of_hour();
        let market = self.market();
        let query = SavingsQuery { at, days, market, archetypes, commitments, since };
        self.ask_ledgers(from.ms(), at.ms(), "savings", json!(query).to_string())
    }

    pub(super) fn archetypes(&self) -> Answer {
        let days = self.days()?;
        let group_by = match self.context.call.parameter("group_by") {
            Some(value) => one_of("group_by", value, &["feature", "app"])?,
            None => "feature".to_owned(),
        };
        let to_ms = self.context.now.ms();
        let from_ms = self.context.now.plus_ms(-i64::from(days) * DAY_MS).start_of_hour().ms();
        let archetypes = self.workspace.config().archetypes.clone();
        let query = ArchetypesQuery { from_ms, to_ms, group_by, archetypes };
        self.ask_ledgers(from_ms, to_ms, "archetypes", json!(query).to_string())
    }

    pub(super) fn workload(&self) -> Answer {
        let workload = Workload {
            requests: self.number("requests", None, 1, MAX_COUNT)?,
            input_tokens: self.number("input_tokens", None, 0, MAX_TOKENS)?,
            cached_tokens: self.number("cached_tokens", Some(0), 0, MAX_TOKENS)?,
            output_tokens: self.number("output_tokens", None, 0, MAX_TOKENS)?,
            batch_percent: self.number("batch_percent", Some(0), 0, 100)?,
        };
        if workload.cached_tokens > workload.input_tokens {
            let remedy = "Give at most the input tokens: cached ones are among them.";
            return Err(Problem::field("cached_tokens", "is more than the input", remedy).into());
        }
        let (data, unfit) = compare(&workload, &self.market(), self.context.now);
        Ok(Step::json(200, &json!({ "workload": workload, "data": data, "not_able": unfit })))
    }

    pub(super) fn provisioned_throughput(&self) -> Answer {
        let offer = Commitment {
            price_per_unit_hour: self.price("price_per_unit_hour_usd")?,
            units: self.number("units", Some(1), 1, 1_000_000)?,
            tokens_per_minute: self.number("tokens_per_minute", None, 1, MAX_COUNT)?,
            on_demand_per_million: self.price("on_demand_per_million_usd")?,
            tokens_per_month: self.number("tokens_per_month", None, 0, MAX_COUNT)?,
        };
        let answer = break_even(&offer).ok_or_else(|| {
            let remedy = "Give fewer units, or fewer tokens a minute.";
            Problem::field("units", "make a capacity that does not fit", remedy)
        })?;
        Ok(Step::json(200, &json!(answer)))
    }

    fn ask_ledgers(&self, from: i64, to: i64, method: &'static str, payload: String) -> Answer {
        let (from, to) = span(from, to)?;
        let names = self.ledgers(from, to)?;
        Ok(Step::Ledgers { names, method, payload })
    }

    /// What is for sale to the workspace.
    pub(super) fn market(&self) -> Market {
        let config = self.workspace.config();
        let seller = |(name, provider): (&String, &crate::admin::config::ProviderConfig)| {
            let price_book = price_book_name(&provider.kind).unwrap_or(&provider.kind).to_owned();
            (name.clone(), Seller { price_book, models: provider.models.clone() })
        };
        let sellers: BTreeMap<String, Seller> = config.providers.iter().map(seller).collect();
        Market { sellers, own: config.prices.values().cloned().collect() }
    }

    fn days(&self) -> Result<u32, Problem> {
        let text = self.context.call.parameter("days");
        let Some(text) = text else { return Ok(DEFAULT_DAYS) };
        ranged("days", &text, 1, 90)
    }

    fn number(
        &self,
        name: &str,
        usual: Option<u64>,
        least: u64,
        most: u64,
    ) -> Result<u64, Problem> {
        match (self.context.call.parameter(name).filter(|text| !text.is_empty()), usual) {
            (Some(text), _) => ranged(name, &text, least, most),
            (None, Some(usual)) => Ok(usual),
            (None, None) => {
                let remedy = format!("Give {least} to {most}.");
                Err(Problem::field(name, "is missing", &remedy))
            }
        }
    }

    fn price(&self, name: &str) -> Result<Usd, Problem> {
        let most = Usd::from_nanos(MAX_PRICE * 1_000_000_000);
        let text = self.context.call.parameter(name).unwrap_or_default();
        let price = text.parse::<Usd>().ok();
        price.filter(|usd| (Usd::ZERO..=most).contains(usd)).ok_or_else(|| {
            let remedy = "Give US dollars as decimal text from 0 to 1000000, such as 12.50.";
            Problem::field(name, "is no price", remedy)
        })
    }
}

/// A span of time that is one.
fn span(from: i64, to: i64) -> Result<(Option<i64>, Option<i64>), Problem> {
    if from < to {
        return Ok((Some(from), Some(to)));
    }
    let remedy = "Give a day after `from`: `to` is the first day that is left out.";
    Err(Problem::field("to", "is not after `from`", remedy))
}

fn ranged<T: FromStr + PartialOrd + Display>(
    field: &str,
    text: &str,
    least: T,
    most: T,
) -> Result<T, Problem> {
    let number = text.parse().ok().filter(|number| (&least..=&most).contains(&number));
    let remedy = || format!("Give a whole number from {least} to {most}.");
    number.ok_or_else(|| Problem::field(field, "is not in range", &remedy()))
}

fn day(field: &str, text: &str) -> Result<Date, Problem> {
    let day = Timestamp::parse(text).filter(|at| at.ms_of_day() == 0).map(Timestamp::date);
    let remedy = "Give a day, such as 2026-11-20.";
    day.ok_or_else(|| Problem::field(field, "is not a day", remedy))
}

fn one_of(field: &str, value: String, known: &[&str]) -> Result<String, Problem> {
    if known.contains(&value.as_str()) {
        return Ok(value);
    }
    let remedy = format!("Use one of {}.", known.join(", "));
    Err(Problem::field(field, "is not known", &remedy))
}
