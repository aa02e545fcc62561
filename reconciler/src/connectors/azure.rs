//! Azure Cost Management: what a scope was charged by day (`.../query`), grouped by up to two dimensions. It covers
//! Azure OpenAI and Foundry, and whatever else the scope or the filter lets through. Claude in Foundry is sold through
//! the Marketplace: a filter on the Cognitive Services alone leaves it out.
//!
//! Columns are found by their names, never by place. Meters are the source's words: lines name no model. A day without
//! charges has no row, so an answer without rows, with all its columns, is a good one.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use tallygate_shared::time::Date;

use super::http::{Http, Patience, address, base_url};
use super::read::{Dollars, Lists, Reader, Rounded, next_day};
use super::{Connector, Days, PullError, RawPage, Secret, oauth};
use crate::bill::{Bill, BillLine, ChargeKind, Meter};

const NAME: &str = "azure";
const QUERY: &str = "query";
const API_VERSION: &str = "2025-03-01";

/// Who asks Azure.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AzureCredential {
    /// A token for `https://management.azure.com`, made elsewhere. It lives an hour.
    Token(Secret),
    /// An application of Entra with the role Cost Management Reader on the scope.
    Application {
        /// The directory's id.
        tenant: String,
        /// The application's id.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// Where tokens are asked for.
        #[serde(default = "public_login")]
        login_url: String,
    },
}

/// What to ask Azure for, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureSettings {
    /// The API's address.
    #[serde(default = "public_address")]
    pub base_url: String,
    /// A name for the billed account: the subscription's or the billing account's id.
    pub account: String,
    /// The scope: `subscriptions/{id}`, a resource group in it, or a billing account.
    pub scope: String,
    /// Who asks.
    pub credential: AzureCredential,
    /// The provider that lines are booked under, as the price book names it.
    #[serde(default = "provider")]
    pub provider: String,
    /// Service names to ask for (`Cognitive Services`, `Foundry Models`). Empty asks for all of the scope.
    #[serde(default)]
    pub services: Vec<String>,
    /// Dimensions to group by, two at most.
    #[serde(default = "dimensions")]
    pub group_by: Vec<String>,
}

fn public_address() -> String {
    "https://management.azure.com".into()
}

fn public_login() -> String {
    "https://login.microsoftonline.com".into()
}

fn provider() -> String {
    NAME.into()
}

fn dimensions() -> Vec<String> {
    vec!["ResourceId".into(), "Meter".into()]
}

/// The connector.
#[derive(Clone, Debug)]
pub struct Azure {
    settings: AzureSettings,
    http: Http,
    base: Url,
}

#[derive(Deserialize)]
struct Answer {
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    next_link: Option<String>,
    columns: Vec<Column>,
    rows: Vec<Vec<Box<RawValue>>>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Azure {
    /// Checks the settings. Nothing is asked yet.
    pub fn new(settings: AzureSettings, patience: Patience) -> Result<Self, PullError> {
        let wrong = |reason: &str| PullError::Unavailable {
            source_name: NAME.into(),
            what: "anything".into(),
            reason: reason.into(),
        };
        if settings.group_by.len() > 2 {
            return Err(wrong("`group_by` has more than the two dimensions that Azure takes"));
        }
        if settings.scope.trim_matches('/').is_empty() {
            return Err(wrong("`scope` is empty: name a subscription or a billing account"));
        }
        match &settings.credential {
            AzureCredential::Token(token) => {
                token.header(NAME, "Bearer ")?;
            }
            AzureCredential::Application { client_secret, login_url, .. } => {
                client_secret.header(NAME, "")?;
                base_url(NAME, login_url)?;
            }
        }
        let base = base_url(NAME, &settings.base_url)?;
        Ok(Self { http: Http::new(NAME, patience)?, base, settings })
    }

    async fn authorization(&self) -> Result<HeaderValue, PullError> {
        match &self.settings.credential {
            AzureCredential::Token(token) => token.header(NAME, "Bearer "),
            AzureCredential::Application { tenant, client_id, client_secret, login_url } => {
                let login = base_url(NAME, login_url)?;
                let url = address(&login, &[tenant, "oauth2", "v2.0", "token"], &[]);
                let fields = [
                    ("grant_type", "client_credentials"),
                    ("client_id", client_id),
                    ("client_secret", client_secret.expose()),
                    ("scope", "https://management.azure.com/.default"),
                ];
                oauth::token(&self.http, NAME, &fields, |client| client.post(url.clone())).await
            }
        }
    }

    /// The question, the same for each page.
    fn question(&self, days: Days) -> serde_json::Value {
        let last = Date::from_days(days.to.days().saturating_sub(1));
        let grouping: Vec<_> = self
            .settings
            .group_by
            .iter()
            .map(|name| serde_json::json!({"type": "Dimension", "name": name}))
            .collect();
        let mut dataset = serde_json::json!({
            "granularity": "Daily",
            "aggregation": {"totalCost": {"name": "Cost", "function": "Sum"}},
            "grouping": grouping,
        });
        if let (false, Some(dataset)) = (self.settings.services.is_empty(), dataset.as_object_mut())
        {
            let services = serde_json::json!({
                "dimensions": {"name": "ServiceName", "operator": "In", "values": self.settings.services}
            });
            dataset.insert("filter".into(), services);
        }
        serde_json::json!({
            "type": "ActualCost",
            "timeframe": "Custom",
            // Both ends are days: right whether Azure means the last moment inclusively or not.
            "timePeriod": {"from": format!("{}T00:00:00Z", days.from), "to": format!("{last}T23:59:59Z")},
            "dataset": dataset,
        })
    }

    /// The next page's address. It must be Azure's own: the token goes there.
    fn next(&self, reader: &Reader<'_>, answer: &Answer) -> Result<Option<String>, PullError> {
        let Some(link) = answer.properties.next_link.as_deref().filter(|link| !link.is_empty())
        else {
            return Ok(None);
        };
        let ours = Url::parse(link).is_ok_and(|url| url.origin() == self.base.origin());
        ours.then(|| Some(link.to_owned())).ok_or_else(|| {
            reader.wrong("properties.nextLink", "leads to another host, and is not followed")
        })
    }

    fn line(&self, row: Row, rounded: &mut Rounded) -> BillLine {
        let amount = rounded.dollars(row.cost);
        let mut tags = row.others;
        let project = tags.get("ResourceId").cloned();
        let service = tags.remove("ServiceName").unwrap_or_else(|| "Azure".into());
        let description = tags
            .get("Meter")
            .cloned()
            .unwrap_or_else(|| tags.values().cloned().collect::<Vec<_>>().join(", "));
        BillLine {
            provider: self.settings.provider.clone(),
            account: self.settings.account.clone(),
            project,
            start: row.day.midnight(),
            end: next_day(row.day).midnight(),
            kind: if amount.is_negative() { ChargeKind::Adjustment } else { ChargeKind::Usage },
            service,
            description,
            model: None,
            meter: Meter::Whole,
            tier: None,
            quantity: None,
            unit: None,
            amount,
            list_amount: None,
            invoice_id: None,
            credential: None,
            // Azure refreshes open months every few hours and says nowhere that a day is done.
            provisional: true,
            tags,
        }
    }
}

/// A row, its cells told apart by their columns.
struct Row {
    cost: Dollars,
    day: Date,
    others: BTreeMap<String, String>,
}

/// Checks that each needed column is there once, with its documented type.
fn check_columns(reader: &Reader<'_>, columns: &[Column]) -> Result<(), PullError> {
    for (name, kind) in [("Cost", "Number"), ("UsageDate", "Number"), ("Currency", "String")] {
        let mut found = columns.iter().filter(|column| column.name == name);
        match (found.next(), found.next()) {
            (Some(column), None) if column.kind == kind => {}
            (Some(_), None) => {
                let reason = format!("has `{name}` of another type than {kind}");
                return Err(reader.wrong("properties.columns", reason));
            }
            (None, _) => {
                return Err(reader.wrong("properties.columns", format!("has no `{name}`")));
            }
            (Some(_), Some(_)) => {
                return Err(reader.wrong("properties.columns", format!("has `{name}` twice")));
            }
        }
    }
    Ok(())
}

fn row(
    reader: &Reader<'_>,
    at: &str,
    columns: &[Column],
    cells: &[Box<RawValue>],
) -> Result<Row, PullError> {
    if cells.len() != columns.len() {
        let reason = format!("has {} cells for {} columns", cells.len(), columns.len());
        return Err(reader.wrong(at, reason));
    }
    let (mut cost, mut day, mut others) = (None, None, BTreeMap::new());
    for (index, (column, cell)) in columns.iter().zip(cells).enumerate() {
        let at = format!("{at}[{index}]");
        let cell = cell.get().as_bytes();
        match column.name.as_str() {
            "Cost" => cost = Some(reader.json_at(&at, cell)?),
            "UsageDate" => {
                let digits: u32 = reader.json_at(&at, cell)?;
                let text =
                    format!("{:04}-{:02}-{:02}", digits / 10_000, digits / 100 % 100, digits % 100);
                let read = Date::parse(&text);
                day = Some(read.ok_or_else(|| reader.wrong(&at, "is no day such as 20261119"))?);
            }
            "Currency" => {
                let currency: String = reader.json_at(&at, cell)?;
                reader.us_dollars(&currency, &at)?;
            }
            name if column.kind == "String" => {
                let value: Option<String> = reader.json_at(&at, cell)?;
                others.extend(value.map(|value| (name.to_owned(), value)));
            }
            _ => {}
        }
    }
    match (cost, day) {
        (Some(cost), Some(day)) => Ok(Row { cost, day, others }),
        _ => Err(reader.wrong(at, "has no cost or no day")),
    }
}

/// All of a row but its cost, whatever the order of the columns.
fn identity(columns: &[Column], cells: &[Box<RawValue>]) -> BTreeMap<String, String> {
    let named = columns.iter().zip(cells).filter(|(column, _)| column.name != "Cost");
    named.map(|(column, cell)| (column.name.clone(), cell.get().to_owned())).collect()
}

#[async_trait]
impl Connector for Azure {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let authorization = self.authorization().await?;
        let path: Vec<_> = self
            .settings
            .scope
            .trim_matches('/')
            .split('/')
            .chain(["providers", "Microsoft.CostManagement", QUERY])
            .collect();
        let first = address(&self.base, &path, &[("api-version", API_VERSION)]);
        let question = self.question(days);
        let request = |client: &reqwest::Client, cursor: Option<&str>| {
            client
                .post(cursor.unwrap_or(first.as_str()))
                .header(AUTHORIZATION, authorization.clone())
                .json(&question)
        };
        let next = |body: &[u8]| {
            let reader = Reader::new(NAME, QUERY);
            self.next(&reader, &reader.json(body)?)
        };
        let mut pages = Vec::new();
        self.http.list(QUERY, &mut pages, request, next).await?;
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        let (mut bill, mut rounded) = (Bill::default(), Rounded::default());
        let mut lists = Lists::new(NAME);
        let mut seen = BTreeSet::new();
        for page in pages {
            let reader = Reader::new(NAME, &page.label);
            if page.label != QUERY {
                return Err(reader.wrong("", "is no answer that this connector asks for"));
            }
            let answer: Answer = reader.json(&page.body)?;
            let columns = &answer.properties.columns;
            check_columns(&reader, columns)?;
            for (index, cells) in answer.properties.rows.iter().enumerate() {
                let at = format!("properties.rows[{index}]");
                let row = row(&reader, &at, columns, cells)?;
                reader.within(days, row.day.midnight(), next_day(row.day).midnight(), &at)?;
                if !seen.insert(identity(columns, cells)) {
                    // Rows are groups. They move from page to page when Azure refreshes its data in between.
                    let reason = "has the day and the groups of a row before: it would count twice";
                    return Err(reader.wrong(&at, reason));
                }
                bill.lines.push(self.line(row, &mut rounded));
            }
            lists.page(QUERY, self.next(&reader, &answer)?.is_some())?;
        }
        lists.finish([QUERY])?;
        bill.notes.extend(rounded.note(NAME));
        Ok(bill)
    }
}

#[cfg(test)]
mod tests;
