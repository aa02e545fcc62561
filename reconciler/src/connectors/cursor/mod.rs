//! Cursor: what a team's requests are charged, event by event, and what members spent beyond their plan.
//!
//! An event has two amounts: `totalCents` is what the model costs, an estimate here; `chargedCents` is what is charged,
//! Cursor's own fee included, and it is the bill. Events that the plan includes are charged nothing; the plan itself is
//! billed by the seat, which no API tells: it comes through the inbox. An answer without events is a good one where it
//! states that there are none.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use reqwest::Url;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{Date, Timestamp};
use tallygate_shared::tokens::Tokens;

use super::http::{Http, Patience, address, base_url};
use super::read::{Cents, Reader, Rounded, next_day};
use super::{Connector, Days, PullError, RawPage, Secret};
use crate::bill::{Bill, BillLine, ChargeKind, Meter, Quantity, SeatUse};

const NAME: &str = "cursor";
const EVENTS: &str = "filtered-usage-events";
const SPEND: &str = "spend";
const PAGE_SIZE: u64 = 100;

/// What to ask Cursor for, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CursorSettings {
    /// The API's address.
    #[serde(default = "public_address")]
    pub base_url: String,
    /// The team: the account of what is read.
    pub account: String,
    /// The team's admin API key.
    pub api_key: Secret,
}

fn public_address() -> String {
    "https://api.cursor.com".into()
}

/// The connector.
#[derive(Clone, Debug)]
pub struct Cursor {
    account: String,
    key: Secret,
    http: Http,
    base: Url,
}

impl Cursor {
    /// Checks the settings. Nothing is asked yet.
    pub fn new(settings: CursorSettings, patience: Patience) -> Result<Self, PullError> {
        // Cursor takes the key as a user name: this only tells a bad one before anything is asked.
        settings.api_key.header(NAME, "")?;
        Ok(Self {
            http: Http::new(NAME, patience)?,
            base: base_url(NAME, &settings.base_url)?,
            account: settings.account,
            key: settings.api_key,
        })
    }

    async fn list(
        &self,
        label: &str,
        question: serde_json::Value,
        pages: &mut Vec<RawPage>,
        next: impl Fn(&[u8]) -> Result<Option<String>, PullError>,
    ) -> Result<(), PullError> {
        let request = |client: &reqwest::Client, cursor: Option<&str>| {
            let mut question = question.clone();
            if let Some(fields) = question.as_object_mut() {
                let number: u64 = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(1);
                fields.insert("page".into(), number.into());
                fields.insert("pageSize".into(), PAGE_SIZE.into());
            }
            let request = client.post(address(&self.base, &["teams", label], &[]));
            request.basic_auth(self.key.expose(), Some("")).json(&question)
        };
        self.http.list(label, pages, request, next).await
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Events {
    usage_events: Vec<Event>,
    total_usage_events_count: u64,
    pagination: Pagination,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pagination {
    current_page: u64,
    has_next_page: bool,
}

impl Pagination {
    fn next(&self) -> Option<String> {
        self.has_next_page.then(|| self.current_page.saturating_add(1).to_string())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(deserialize_with = "milliseconds")]
    timestamp: Timestamp,
    user_email: String,
    model: String,
    #[serde(default)]
    kind: String,
    is_chargeable: bool,
    token_usage: Option<TokenUsage>,
    charged_cents: Option<Cents>,
}

impl Event {
    /// Equal for what may be one event that came twice.
    fn identity(&self) -> (Timestamp, String, String, String, [u64; 4]) {
        let tokens = self.token_usage.as_ref().map_or([0; 4], |used| {
            [used.input_tokens, used.output_tokens, used.cache_write_tokens, used.cache_read_tokens]
        });
        let (who, model) = (self.user_email.clone(), self.model.clone());
        (self.timestamp, who, model, self.kind.clone(), tokens)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenUsage {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    cache_write_tokens: u64,
    #[serde(default)]
    cache_read_tokens: u64,
    total_cents: Cents,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spend {
    team_member_spend: Vec<Member>,
    total_pages: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    spend_cents: Cents,
    included_spend_cents: Cents,
}

/// Milliseconds since 1970 as **text**.
fn milliseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(from)?;
    let ms = text
        .parse()
        .map_err(|_| serde::de::Error::custom("is no time in milliseconds since 1970, as text"))?;
    Ok(Timestamp::from_ms(ms))
}

#[async_trait]
impl Connector for Cursor {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let mut pages = Vec::new();
        let window = json!({"startDate": days.start().ms(), "endDate": days.end().ms()});
        let next = |body: &[u8]| {
            let page: Events = Reader::new(NAME, EVENTS).json(body)?;
            Ok(page.pagination.next())
        };
        self.list(EVENTS, window, &mut pages, next).await?;
        let asked = std::sync::atomic::AtomicU64::new(0);
        let next = |body: &[u8]| {
            let page: Spend = Reader::new(NAME, SPEND).json(body)?;
            let at = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed).saturating_add(1);
            Ok((at < page.total_pages).then(|| at.saturating_add(1).to_string()))
        };
        self.list(SPEND, json!({}), &mut pages, next).await?;
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        let mut rounded = Rounded::default();
        let mut books = Books::new(&self.account);
        let mut notes = Vec::new();
        let (events, twice) = events(pages)?;
        if twice > 0 {
            notes.push(format!("{NAME}: {twice} events came on two pages and count once"));
        }
        for (at, event) in events {
            if event.timestamp >= days.start() && event.timestamp < days.end() {
                books.take(event, at, &mut rounded)?;
            }
        }
        notes.extend(overage(pages, &mut rounded)?);
        notes.extend(rounded.note(NAME));
        let lines = books.lines.into_values().collect();
        let seats = books.seats.into_values().collect();
        Ok(Bill { lines, seats, notes, ..Bill::default() })
    }
}

/// All events with the field they stood in, and how many were left out because they came twice.
///
/// Nothing but its content names an event, and two may be equal. So equal ones count once only when more came than
/// Cursor says there are.
fn events(pages: &[RawPage]) -> Result<(Vec<(String, Event)>, usize), PullError> {
    let reader = Reader::new(NAME, EVENTS);
    let mut all: Vec<(String, Event)> = Vec::new();
    let (mut stated, mut more) = (None, None);
    for raw in pages.iter().filter(|page| page.label == EVENTS) {
        let page: Events = reader.json(&raw.body)?;
        if more == Some(false) {
            return Err(reader.wrong("", "has a page after its last page"));
        }
        if *stated.get_or_insert(page.total_usage_events_count) != page.total_usage_events_count {
            // New events move the others from page to page: some came twice, others not at all.
            let reason = "changed while the pages were read: the next run asks again";
            return Err(reader.wrong("totalUsageEventsCount", reason));
        }
        more = Some(page.pagination.has_next_page);
        let at = |(at, event)| (format!("usageEvents[{at}]"), event);
        all.extend(page.usage_events.into_iter().enumerate().map(at));
    }
    let stated = stated.ok_or_else(|| reader.wrong("", "is missing in the pull"))?;
    if more == Some(true) {
        return Err(
            reader.wrong("", "says that more pages follow, and they are missing in the pull")
        );
    }
    let stated = usize::try_from(stated).unwrap_or(usize::MAX);
    let came = all.len();
    if came > stated {
        let mut seen = BTreeSet::new();
        all.retain(|(_, event)| seen.insert(event.identity()));
    }
    if all.len() != stated {
        let reason = format!("is {stated}, and {} events came", all.len());
        return Err(reader.wrong("totalUsageEventsCount", reason));
    }
    let twice = came.saturating_sub(all.len());
    Ok((all, twice))
}

/// What members spent in the current cycle beyond what their plan includes: it fits no day, so it is only told.
fn overage(pages: &[RawPage], rounded: &mut Rounded) -> Result<Option<String>, PullError> {
    let reader = Reader::new(NAME, SPEND);
    let (mut overage, mut came, mut total) = (Usd::ZERO, 0_u64, None);
    for raw in pages.iter().filter(|page| page.label == SPEND) {
        let page: Spend = reader.json(&raw.body)?;
        came = came.saturating_add(1);
        total = Some(page.total_pages);
        for (at, member) in page.team_member_spend.into_iter().enumerate() {
            let spent = rounded.cents(member.spend_cents);
            let included = rounded.cents(member.included_spend_cents);
            let sum = spent.checked_sub(included).and_then(|over| overage.checked_add(over));
            let field = format!("teamMemberSpend[{at}].spendCents");
            overage = sum.ok_or_else(|| reader.wrong(&field, "is too large to add up"))?;
        }
    }
    match total {
        None => Err(reader.wrong("", "is missing in the pull")),
        // A team without members has no pages, and one answer all the same.
        Some(total) if came < total => {
            Err(reader.wrong("totalPages", format!("is {total}, and only {came} came")))
        }
        Some(_) if overage == Usd::ZERO => Ok(None),
        Some(_) => Ok(Some(format!(
            "{NAME}: members spent {overage} dollars beyond their plan in the current cycle"
        ))),
    }
}

/// Lines and seats by day and person.
struct Books<'a> {
    account: &'a str,
    lines: BTreeMap<(i64, String, String), BillLine>,
    seats: BTreeMap<(i64, String), SeatUse>,
}

impl<'a> Books<'a> {
    fn new(account: &'a str) -> Self {
        Self { account, lines: BTreeMap::new(), seats: BTreeMap::new() }
    }

    fn take(&mut self, event: Event, at: String, rounded: &mut Rounded) -> Result<(), PullError> {
        let reader = Reader::new(NAME, EVENTS);
        let wrong = |field: &str, reason: &str| reader.wrong(&format!("{at}.{field}"), reason);
        let day = event.timestamp.date();
        // Cursor names the kinds `Usage-based`, `Included in Business`, `Errored, Not Charged`.
        let included = event.kind.to_ascii_lowercase().contains("included");
        let seat = self.seat(day, &event.user_email);
        seat.last_active = seat.last_active.max(Some(event.timestamp));
        let count = if included { "included_events" } else { "events" };
        add_count(seat, count).ok_or_else(|| wrong("timestamp", "makes too many events"))?;
        if let Some(used) = &event.token_usage {
            let too_large = || wrong("tokenUsage", "is too large to add up");
            add_tokens(&mut seat.tokens, used).ok_or_else(too_large)?;
            let cost = rounded.cents(used.total_cents);
            let sum = seat.estimated.unwrap_or(Usd::ZERO).checked_add(cost);
            seat.estimated = Some(sum.ok_or_else(too_large)?);
        }
        if !event.is_chargeable || included {
            return Ok(());
        }
        let missing = "is missing on an event that is charged";
        let charged = event.charged_cents.ok_or_else(|| wrong("chargedCents", missing))?;
        let charged = rounded.cents(charged);
        let key = (day.days(), event.user_email.clone(), event.model.clone());
        let account = self.account;
        let line = self.lines.entry(key).or_insert_with(|| line(account, day, &event));
        let sum = line.amount.checked_add(charged);
        line.amount = sum.ok_or_else(|| wrong("chargedCents", "is too large to add up"))?;
        Ok(())
    }

    fn seat(&mut self, day: Date, person: &str) -> &mut SeatUse {
        let account = self.account;
        self.seats.entry((day.days(), person.to_owned())).or_insert_with(|| SeatUse {
            provider: NAME.into(),
            account: account.into(),
            person: person.into(),
            start: day.midnight(),
            end: next_day(day).midnight(),
            last_active: None,
            tokens: Tokens::default(),
            estimated: None,
            counts: BTreeMap::new(),
        })
    }
}

fn add_count(seat: &mut SeatUse, name: &str) -> Option<()> {
    let sum = seat.counts.entry(name.into()).or_default();
    *sum = sum.checked_add(Quantity::whole(1))?;
    Some(())
}

fn add_tokens(tokens: &mut Tokens, used: &TokenUsage) -> Option<()> {
    // Cursor does not say how long a cache entry lives: the providers' default.
    for (sum, count) in [
        (&mut tokens.input, used.input_tokens),
        (&mut tokens.output, used.output_tokens),
        (&mut tokens.cache_write_5m, used.cache_write_tokens),
        (&mut tokens.cache_read, used.cache_read_tokens),
    ] {
        *sum = sum.checked_add(count)?;
    }
    Some(())
}

fn line(account: &str, day: Date, event: &Event) -> BillLine {
    BillLine {
        provider: NAME.into(),
        account: account.into(),
        project: None,
        start: day.midnight(),
        end: next_day(day).midnight(),
        kind: ChargeKind::Usage,
        service: "Cursor".into(),
        description: event.kind.clone(),
        model: Some(event.model.clone()),
        meter: Meter::Whole,
        tier: None,
        quantity: None,
        unit: None,
        amount: Usd::ZERO,
        list_amount: None,
        invoice_id: None,
        credential: None,
        // Cursor keeps events for a while and does not say when they are final.
        provisional: true,
        tags: BTreeMap::from([("user".into(), event.user_email.clone())]),
    }
}

#[cfg(test)]
mod tests;
