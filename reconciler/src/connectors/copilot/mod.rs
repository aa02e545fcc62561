//! GitHub Copilot: what an organization pays for it, day by day, and who has a seat.
//!
//! Three reports of GitHub's billing are read. `usage` has every product, without models; `ai_credit/usage` and
//! `premium_request/usage` name the model. A SKU that a detailed report has on a day is taken from there and left out of
//! `usage`, so that no dollar is booked twice; where the two sums differ, the rest is a line of its own.
//! A day on which nothing was charged has no items: a report may be empty, and that each came for each day is checked.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{Date, Timestamp};
use tallygate_shared::tokens::Tokens;

use super::http::{Http, Patience, address, base_url};
use super::read::{Amount, Dollars, Lists, Reader, Rounded, next_day};
use super::{Connector, Days, PullError, RawPage, Secret};
use crate::bill::{Bill, BillLine, ChargeKind, Meter, SeatUse};

const NAME: &str = "github_copilot";
const SERVICE: &str = "GitHub Copilot";
const VERSION: &str = "2022-11-28";
const SEATS: &str = "seats";
/// The report with everything.
const ALL: &str = "usage";
/// Seats on a page: GitHub's most.
const PER_PAGE: u64 = 100;

/// What to ask GitHub for, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopilotSettings {
    /// The API's address.
    #[serde(default = "public_address")]
    pub base_url: String,
    /// The organization's login: the account of what is read.
    pub organization: String,
    /// A token of an organization administrator, or a fine-grained one with "Administration: read".
    pub token: Secret,
    /// Which reports with models GitHub gives this organization. One that it does not give is answered with 404.
    #[serde(default = "all_details")]
    pub details: Vec<Detail>,
    /// List the seats too.
    #[serde(default = "yes")]
    pub list_seats: bool,
}

/// A report that names models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// AI credits.
    AiCredit,
    /// Premium requests.
    PremiumRequest,
}

impl Detail {
    const fn report(self) -> &'static str {
        match self {
            Self::AiCredit => "ai_credit/usage",
            Self::PremiumRequest => "premium_request/usage",
        }
    }
}

fn all_details() -> Vec<Detail> {
    vec![Detail::AiCredit, Detail::PremiumRequest]
}

fn public_address() -> String {
    "https://api.github.com".into()
}

const fn yes() -> bool {
    true
}

/// The connector.
#[derive(Clone, Debug)]
pub struct Copilot {
    organization: String,
    /// In order of preference, the report of everything last.
    reports: Vec<&'static str>,
    list_seats: bool,
    http: Http,
    base: Url,
    authorization: HeaderValue,
}

impl Copilot {
    /// Checks the settings. Nothing is asked yet.
    pub fn new(settings: CopilotSettings, patience: Patience) -> Result<Self, PullError> {
        let mut details = settings.details;
        details.sort_unstable();
        details.dedup();
        Ok(Self {
            reports: details.into_iter().map(Detail::report).chain([ALL]).collect(),
            http: Http::new(NAME, patience)?,
            base: base_url(NAME, &settings.base_url)?,
            authorization: settings.token.header(NAME, "Bearer ")?,
            organization: settings.organization,
            list_seats: settings.list_seats,
        })
    }

    fn ask(
        &self,
        client: &reqwest::Client,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        let request = client.get(address(&self.base, path, query));
        let request = request.header(AUTHORIZATION, self.authorization.clone());
        let request = request.header(ACCEPT, "application/vnd.github+json");
        request.header("x-github-api-version", VERSION)
    }

    async fn report(&self, report: &str, day: Date) -> Result<RawPage, PullError> {
        let label = label(report, day);
        let numbers = [day.year.to_string(), day.month.to_string(), day.day.to_string()];
        let query: Vec<(&str, &str)> =
            ["year", "month", "day"].into_iter().zip(numbers.iter().map(String::as_str)).collect();
        let path = ["organizations", &self.organization, "settings", "billing"];
        let path: Vec<&str> = path.into_iter().chain(report.split('/')).collect();
        let body = self.http.get(&label, |client| self.ask(client, &path, &query)).await?;
        Ok(RawPage { label, body })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    usage_items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    product: String,
    sku: String,
    model: Option<String>,
    unit_type: String,
    gross_quantity: Option<Amount>,
    // The report of everything calls it so.
    quantity: Option<Amount>,
    gross_amount: Dollars,
    net_amount: Dollars,
}

#[derive(Debug, Deserialize)]
struct Seats {
    total_seats: u64,
    seats: Vec<Seat>,
}

#[derive(Debug, Deserialize)]
struct Seat {
    assignee: Assignee,
    last_activity_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Assignee {
    login: String,
}

fn label(report: &str, day: Date) -> String {
    format!("{report}/{day}")
}

#[async_trait]
impl Connector for Copilot {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let mut pages = Vec::new();
        for day in days.each() {
            for report in self.reports.iter().copied() {
                pages.push(self.report(report, day).await?);
            }
        }
        if self.list_seats {
            let path = ["orgs", &self.organization, "copilot", "billing", "seats"];
            let request = |client: &reqwest::Client, cursor: Option<&str>| {
                let per_page = PER_PAGE.to_string();
                let query = [("per_page", per_page.as_str()), ("page", cursor.unwrap_or("1"))];
                self.ask(client, &path, &query)
            };
            let asked = std::sync::atomic::AtomicU64::new(0);
            let next = |body: &[u8]| {
                let page: Seats = Reader::new(NAME, SEATS).json(body)?;
                let at = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed).saturating_add(1);
                let more = at.saturating_mul(PER_PAGE) < page.total_seats && !page.seats.is_empty();
                Ok(more.then(|| at.saturating_add(1).to_string()))
            };
            self.http.list(SEATS, &mut pages, request, next).await?;
        }
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        let mut bill = Bill::default();
        let mut rounded = Rounded::default();
        let by_label = one_each(pages)?;
        let mut others: BTreeSet<String> = BTreeSet::new();
        for day in days.each() {
            let mut reports = Vec::new();
            for report in self.reports.iter().copied() {
                let label = label(report, day);
                let raw = by_label.get(label.as_str());
                let reader = Reader::new(NAME, &label);
                let raw = raw.ok_or_else(|| reader.wrong("", "is missing in the pull"))?;
                let read: Report = reader.json(&raw.body)?;
                reports.push((report, read));
            }
            let mut of_day = OfDay::new(&self.organization, day, &mut rounded);
            for (name, report) in reports {
                of_day.take(name, report, &mut others)?;
            }
            of_day.finish(&mut bill)?;
        }
        bill.seats = self.seats(days, pages)?;
        if !others.is_empty() {
            let names = others.into_iter().collect::<Vec<_>>().join(", ");
            bill.notes.push(format!("{NAME}: other products of GitHub are left out: {names}"));
        }
        bill.notes.extend(rounded.note(NAME));
        Ok(bill)
    }
}

impl Copilot {
    fn seats(&self, days: Days, pages: &[RawPage]) -> Result<Vec<SeatUse>, PullError> {
        let reader = Reader::new(NAME, SEATS);
        let mut lists = Lists::new(NAME);
        let mut seats: BTreeMap<String, SeatUse> = BTreeMap::new();
        let mut listed = 0_u64;
        for raw in pages.iter().filter(|page| page.label == SEATS) {
            let page: Seats = reader.json(&raw.body)?;
            listed = listed.saturating_add(PER_PAGE);
            lists.page(SEATS, listed < page.total_seats && !page.seats.is_empty())?;
            for (at, seat) in page.seats.into_iter().enumerate() {
                let wrong = || {
                    let field = format!("seats[{at}].last_activity_at");
                    reader.wrong(&field, "is no time by RFC 3339")
                };
                let last_active = seat.last_activity_at.as_deref().map(any_zone);
                let last_active = last_active.map(|at| at.ok_or_else(wrong)).transpose()?;
                let person = seat.assignee.login;
                // A seat given twice (by two teams) is one person's.
                seats.insert(
                    person.clone(),
                    SeatUse {
                        provider: NAME.into(),
                        account: self.organization.clone(),
                        person,
                        start: days.start(),
                        end: days.end(),
                        last_active,
                        tokens: Tokens::default(),
                        estimated: None,
                        counts: BTreeMap::new(),
                    },
                );
            }
        }
        lists.finish(self.list_seats.then_some(SEATS))?;
        Ok(seats.into_values().collect())
    }
}

/// The reports, each of which has one page.
fn one_each(pages: &[RawPage]) -> Result<BTreeMap<&str, &RawPage>, PullError> {
    let mut by_label = BTreeMap::new();
    for raw in pages.iter().filter(|raw| raw.label != SEATS) {
        if by_label.insert(raw.label.as_str(), raw).is_some() {
            return Err(Reader::new(NAME, &raw.label).wrong("", "is there twice in the pull"));
        }
    }
    Ok(by_label)
}

/// GitHub writes some times with the offset of the person.
fn any_zone(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_ms(at.as_millisecond()))
}

/// One day's reports on their way to lines.
struct OfDay<'a> {
    organization: &'a str,
    day: Date,
    rounded: &'a mut Rounded,
    lines: Vec<BillLine>,
    /// SKUs that detailed reports have: which, and how much in all.
    detailed: BTreeMap<String, (&'static str, Usd)>,
    /// What the report of everything says about these.
    stated: BTreeMap<String, Usd>,
}

impl<'a> OfDay<'a> {
    fn new(organization: &'a str, day: Date, rounded: &'a mut Rounded) -> Self {
        let (detailed, stated) = (BTreeMap::new(), BTreeMap::new());
        Self { organization, day, rounded, lines: Vec::new(), detailed, stated }
    }

    fn take(
        &mut self,
        name: &'static str,
        report: Report,
        others: &mut BTreeSet<String>,
    ) -> Result<(), PullError> {
        let detailed = (name != ALL).then_some(name);
        for (at, item) in report.usage_items.into_iter().enumerate() {
            if !item.product.to_ascii_lowercase().contains("copilot") {
                others.insert(item.product);
                continue;
            }
            let too_large = || {
                let field = format!("usageItems[{at}].netAmount");
                Reader::new(NAME, name).wrong(&field, "is too large to add up")
            };
            let net = self.rounded.dollars(item.net_amount);
            let sku = item.sku.to_ascii_lowercase();
            let known = self.detailed.get(&sku).copied();
            match (detailed, known) {
                // Both detailed reports have it: the first counts.
                (Some(this), Some((first, _))) if this != first => continue,
                (Some(this), known) => {
                    let sum = known.map_or(Usd::ZERO, |(_, sum)| sum).checked_add(net);
                    self.detailed.insert(sku, (this, sum.ok_or_else(too_large)?));
                }
                (None, Some(_)) => {
                    let sum = self.stated.entry(sku).or_default();
                    *sum = sum.checked_add(net).ok_or_else(too_large)?;
                    continue;
                }
                (None, None) => {}
            }
            let line = self.line(item, net);
            self.lines.push(line);
        }
        Ok(())
    }

    /// What is billed is net of the plan's allowance; gross is the list price.
    fn line(&mut self, item: Item, net: Usd) -> BillLine {
        let unit = item.unit_type.to_ascii_lowercase();
        let seat = unit.contains("user") || unit.contains("seat");
        let kind = if seat { ChargeKind::Seat } else { ChargeKind::Usage };
        let quantity = item.gross_quantity.or(item.quantity).map(|quantity| quantity.0);
        BillLine {
            provider: NAME.into(),
            account: self.organization.to_owned(),
            project: None,
            start: self.day.midnight(),
            end: next_day(self.day).midnight(),
            kind,
            service: SERVICE.into(),
            description: item.sku,
            model: item.model.filter(|model| !model.is_empty()),
            meter: if unit == "requests" { Meter::Calls } else { Meter::Whole },
            tier: None,
            unit: quantity.map(|_| item.unit_type),
            quantity,
            amount: net,
            list_amount: Some(self.rounded.dollars(item.gross_amount)),
            invoice_id: None,
            credential: None,
            // GitHub does not say when a day is final.
            provisional: true,
            tags: BTreeMap::new(),
        }
    }

    fn finish(mut self, bill: &mut Bill) -> Result<(), PullError> {
        for (sku, stated) in std::mem::take(&mut self.stated) {
            let Some((report, sum)) = self.detailed.get(&sku).copied() else { continue };
            let rest = stated.checked_sub(sum);
            let rest = rest.ok_or_else(|| Reader::new(NAME, report).wrong("", "is too large"))?;
            if rest == Usd::ZERO {
                continue;
            }
            bill.notes.push(format!(
                "{NAME}: on {} `{sku}` is {sum} in {report} and {stated} in {ALL}: the rest is an adjustment",
                self.day
            ));
            let item = Item {
                product: SERVICE.into(),
                sku,
                model: None,
                unit_type: String::new(),
                gross_quantity: None,
                quantity: None,
                gross_amount: Dollars { usd: rest, rounded: false },
                net_amount: Dollars { usd: rest, rounded: false },
            };
            let line = self.line(item, rest);
            self.lines.push(BillLine { kind: ChargeKind::Adjustment, ..line });
        }
        bill.lines.append(&mut self.lines);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
