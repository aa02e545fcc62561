//! Claude Code analytics: who used it, for how much work and with how many tokens, a day an answer. Nothing here is a
//! bill: what API users cost is in Anthropic's costs, and a subscription is billed by the seat. The tool's own estimate
//! is kept as an estimate.

use std::collections::BTreeMap;

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;
use tallygate_shared::tokens::Tokens;

use super::http::{Http, Patience, address, base_url};
use super::read::{Cents, Lists, Paged, Reader, Rounded, Utc, next_day, parse_rounded};
use super::{Connector, Days, PullError, RawPage, Secret};
use crate::bill::{Bill, Quantity, SeatUse};

const NAME: &str = "claude_code";
const VERSION: &str = "2023-06-01";

/// What to ask Anthropic for, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaudeCodeSettings {
    /// The API's address.
    #[serde(default = "public_address")]
    pub base_url: String,
    /// The organization's id: the account of what is read.
    pub account: String,
    /// An Admin key (`sk-ant-admin...`). A workspace's key is refused by Anthropic.
    pub admin_key: Secret,
}

fn public_address() -> String {
    "https://api.anthropic.com".into()
}

/// The connector.
#[derive(Clone, Debug)]
pub struct ClaudeCode {
    account: String,
    http: Http,
    base: Url,
    key: HeaderValue,
}

impl ClaudeCode {
    /// Checks the settings. Nothing is asked yet.
    pub fn new(settings: ClaudeCodeSettings, patience: Patience) -> Result<Self, PullError> {
        Ok(Self {
            http: Http::new(NAME, patience)?,
            base: base_url(NAME, &settings.base_url)?,
            key: settings.admin_key.header(NAME, "")?,
            account: settings.account,
        })
    }
}

#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Row>,
    #[serde(flatten)]
    paged: Paged,
}

#[derive(Debug, Deserialize)]
struct Row {
    date: Option<Utc>,
    actor: Actor,
    customer_type: CustomerType,
    #[serde(default)]
    core_metrics: BTreeMap<String, Value>,
    model_breakdown: Vec<ModelUse>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Actor {
    UserActor { email_address: String },
    ApiActor { api_key_name: String },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CustomerType {
    Api,
    Subscription,
}

#[derive(Debug, Deserialize)]
struct ModelUse {
    tokens: Counted,
    estimated_cost: Estimate,
}

#[derive(Debug, Deserialize)]
struct Counted {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_creation: u64,
}

#[derive(Debug, Deserialize)]
struct Estimate {
    amount: Cents,
    currency: String,
}

/// The label of a day's answers.
fn label(day: Date) -> String {
    format!("usage_report/claude_code/{day}")
}

#[async_trait]
impl Connector for ClaudeCode {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let mut pages = Vec::new();
        for day in days.each() {
            let (label, text) = (label(day), day.to_string());
            let request = |client: &reqwest::Client, cursor: Option<&str>| {
                let mut query = vec![("starting_at", text.as_str()), ("limit", "1000")];
                query.extend(cursor.map(|cursor| ("page", cursor)));
                let path = ["v1", "organizations", "usage_report", "claude_code"];
                let request = client.get(address(&self.base, &path, &query));
                request.header("x-api-key", self.key.clone()).header("anthropic-version", VERSION)
            };
            let next = |body: &[u8]| {
                let reader = Reader::new(NAME, &label);
                let paged: Paged = reader.json(body)?;
                Ok(paged.next(&reader)?.map(str::to_owned))
            };
            self.http.list(&label, &mut pages, request, next).await?;
        }
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        let mut bill = Bill::default();
        let (mut lists, mut rounded) = (Lists::new(NAME), Rounded::default());
        let labels: Vec<(Date, String)> = days.each().map(|day| (day, label(day))).collect();
        let mut seats: BTreeMap<(i64, String), SeatUse> = BTreeMap::new();
        for raw in pages {
            let reader = Reader::new(NAME, &raw.label);
            let day = labels.iter().find(|(_, label)| *label == raw.label).map(|(day, _)| *day);
            let day = day.ok_or_else(|| reader.wrong("", "is for a day that was not asked for"))?;
            let page: Page = reader.json(&raw.body)?;
            lists.page(&raw.label, page.paged.next(&reader)?.is_some())?;
            for (at, row) in page.data.into_iter().enumerate() {
                let field = format!("data[{at}]");
                if row.date.is_some_and(|date| date.0.date() != day) {
                    return Err(reader.wrong(&format!("{field}.date"), "is another day"));
                }
                let person = match &row.actor {
                    Actor::UserActor { email_address } => email_address.clone(),
                    Actor::ApiActor { api_key_name } => api_key_name.clone(),
                };
                let seat = seats
                    .entry((day.days(), person.clone()))
                    .or_insert_with(|| empty(&self.account, person, day));
                add(seat, &row, (&reader, &field), &mut rounded)?;
            }
        }
        lists.finish(labels.iter().map(|(_, label)| label.as_str()))?;
        bill.seats = seats.into_values().collect();
        bill.notes.extend(rounded.note(NAME));
        Ok(bill)
    }
}

fn empty(account: &str, person: String, day: Date) -> SeatUse {
    SeatUse {
        provider: NAME.into(),
        account: account.into(),
        person,
        start: day.midnight(),
        end: next_day(day).midnight(),
        last_active: None,
        tokens: Tokens::default(),
        estimated: Some(Usd::ZERO),
        counts: BTreeMap::new(),
    }
}

/// Adds a row: a person has one for each terminal and each way of paying.
fn add(
    seat: &mut SeatUse,
    row: &Row,
    (reader, field): (&Reader<'_>, &str),
    rounded: &mut Rounded,
) -> Result<(), PullError> {
    let paid = match row.customer_type {
        CustomerType::Api => "api",
        CustomerType::Subscription => "subscription",
    };
    let mut tokens = 0_u64;
    for (at, used) in row.model_breakdown.iter().enumerate() {
        let field = format!("{field}.model_breakdown[{at}]");
        let overflow =
            |name: &str| reader.wrong(&format!("{field}.{name}"), "is too large to add up");
        reader.us_dollars(
            &used.estimated_cost.currency,
            &format!("{field}.estimated_cost.currency"),
        )?;
        let cost = rounded.cents(used.estimated_cost.amount);
        let sum = seat.estimated.unwrap_or(Usd::ZERO).checked_add(cost);
        seat.estimated = Some(sum.ok_or_else(|| overflow("estimated_cost"))?);
        let Counted { input, output, cache_read, cache_creation } = used.tokens;
        // Anthropic's default lifetime: the report does not say which.
        for (sum, count) in [
            (&mut seat.tokens.input, input),
            (&mut seat.tokens.output, output),
            (&mut seat.tokens.cache_read, cache_read),
            (&mut seat.tokens.cache_write_5m, cache_creation),
        ] {
            *sum = sum.checked_add(count).ok_or_else(|| overflow("tokens"))?;
            tokens = tokens.checked_add(count).ok_or_else(|| overflow("tokens"))?;
        }
    }
    // Tells what Anthropic's own costs hold from what a subscription covers.
    count(seat, &format!("{paid}_tokens"), Quantity::whole(tokens), (reader, field))?;
    for (name, value) in &row.core_metrics {
        metric(seat, name, value, (reader, &format!("{field}.core_metrics")))?;
    }
    Ok(())
}

/// Adds a metric, or those within it: `lines_of_code: {added, removed}` is `lines_of_code_added`, ...
fn metric(
    seat: &mut SeatUse,
    name: &str,
    value: &Value,
    at: (&Reader<'_>, &str),
) -> Result<(), PullError> {
    match value {
        Value::Number(number) => {
            let wrong = |_| at.0.wrong(&format!("{}.{name}", at.1), "is no count");
            let (pico, _) = parse_rounded(&number.to_string(), 12).map_err(wrong)?;
            count(seat, name, Quantity::from_pico(pico), at)
        }
        Value::Object(inner) => inner
            .iter()
            .try_for_each(|(inner, value)| metric(seat, &format!("{name}_{inner}"), value, at)),
        _ => Ok(()),
    }
}

fn count(
    seat: &mut SeatUse,
    name: &str,
    quantity: Quantity,
    (reader, field): (&Reader<'_>, &str),
) -> Result<(), PullError> {
    let sum = seat.counts.entry(name.to_owned()).or_default();
    let too_large = || reader.wrong(&format!("{field}.{name}"), "is too large to add up");
    *sum = sum.checked_add(quantity).ok_or_else(too_large)?;
    Ok(())
}

#[cfg(test)]
mod tests;
