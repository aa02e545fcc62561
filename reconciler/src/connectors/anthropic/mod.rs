//! Anthropic: what the organization was billed, what it used, and its API keys. Two reports exist. The older one
//! (`cost_report`, `usage_report/messages`) names no key on a cost and leaves Priority Tier out. The newer one
//! (`analytics/cost`, `analytics/usage`, a beta) names keys, states list prices, and says until when it is complete.
//!
//! Amounts are decimal text in **cents** in both, before credits.

mod analytics;
mod keys;
mod legacy;

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;
use tallygate_shared::tokens::{Calls, Tokens};

use super::http::{Http, Patience, address, base_url};
use super::read::{Lists, Paged, Reader};
use super::{Connector, Days, PullError, RawPage, Secret, keys_if_allowed, without_keys};
use crate::bill::{Bill, ChargeKind, Meter};

const NAME: &str = "anthropic";
const VERSION: &str = "2023-06-01";
const ANALYTICS_BETA: &str = "analytics-usage-cost-2026-08-24";
/// More days are refused by the newer report.
const ANALYTICS_DAYS: i64 = 31;
/// The workspace that Anthropic writes as `null`.
const DEFAULT_WORKSPACE: &str = "default";

/// Which of Anthropic's reports to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnthropicReport {
    /// `cost_report` and `usage_report/messages`.
    #[default]
    Legacy,
    /// `analytics/cost` and `analytics/usage`, a beta.
    Analytics,
}

/// What to ask Anthropic for, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnthropicSettings {
    /// The API's address.
    #[serde(default = "public_address")]
    pub base_url: String,
    /// The organization's id: the account of what is read.
    pub account: String,
    /// An admin key (`sk-ant-admin...`). A workspace's key is refused by Anthropic.
    pub admin_key: Secret,
    /// Which report.
    #[serde(default)]
    pub report: AnthropicReport,
    /// List the API keys.
    #[serde(default = "yes")]
    pub list_keys: bool,
}

fn public_address() -> String {
    "https://api.anthropic.com".into()
}

const fn yes() -> bool {
    true
}

/// The connector.
#[derive(Clone, Debug)]
pub struct Anthropic {
    settings: AnthropicSettings,
    http: Http,
    base: Url,
    key: HeaderValue,
}

impl Anthropic {
    /// Checks the settings. Nothing is asked yet.
    pub fn new(settings: AnthropicSettings, patience: Patience) -> Result<Self, PullError> {
        Ok(Self {
            http: Http::new(NAME, patience)?,
            base: base_url(NAME, &settings.base_url)?,
            key: settings.admin_key.header(NAME, "")?,
            settings,
        })
    }

    /// Asks for a list that says where its next page is. All parameters but `page` stay the same.
    async fn report(
        &self,
        label: &str,
        path: &[&str],
        query: &[(&str, &str)],
        pages: &mut Vec<RawPage>,
    ) -> Result<(), PullError> {
        let request = |client: &reqwest::Client, cursor: Option<&str>| {
            let mut query = query.to_vec();
            query.extend(cursor.map(|cursor| ("page", cursor)));
            self.ask(client, path, &query)
        };
        let next = |body: &[u8]| {
            let reader = Reader::new(NAME, label);
            let paged: Paged = reader.json(body)?;
            Ok(paged.next(&reader)?.map(str::to_owned))
        };
        self.http.list(label, pages, request, next).await
    }

    fn ask(
        &self,
        client: &reqwest::Client,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        let path: Vec<_> = ["v1", "organizations"].iter().chain(path).copied().collect();
        let request = client
            .get(address(&self.base, &path, query))
            .header("x-api-key", self.key.clone())
            .header("anthropic-version", VERSION);
        match self.settings.report {
            AnthropicReport::Legacy => request,
            AnthropicReport::Analytics => request.header("anthropic-beta", ANALYTICS_BETA),
        }
    }

    async fn legacy(&self, days: Days, pages: &mut Vec<RawPage>) -> Result<(), PullError> {
        for (label, path, groups) in [
            (legacy::COSTS, &["cost_report"][..], legacy::COST_GROUPS),
            (legacy::USAGE, &["usage_report", "messages"], legacy::USAGE_GROUPS),
        ] {
            let (start, end) = (days.start().to_string(), days.end().to_string());
            let mut query = vec![
                ("starting_at", start.as_str()),
                ("ending_at", end.as_str()),
                ("bucket_width", "1d"),
                ("limit", "31"),
            ];
            query.extend(groups.iter().map(|group| ("group_by[]", *group)));
            self.report(label, path, &query, pages).await?;
        }
        Ok(())
    }

    async fn analytics(&self, days: Days, pages: &mut Vec<RawPage>) -> Result<(), PullError> {
        for part in parts(days) {
            for (path, groups) in [
                (analytics::COSTS, analytics::COST_GROUPS),
                (analytics::USAGE, analytics::USAGE_GROUPS),
            ] {
                let (start, end) = (part.start().to_string(), part.end().to_string());
                let mut query = vec![
                    ("starting_at", start.as_str()),
                    ("ending_at", end.as_str()),
                    ("time_bucket_width", "1d"),
                    ("limit", "1000"),
                ];
                query.extend(groups.iter().map(|group| ("group_by[]", *group)));
                let label = analytics::label(path, part);
                let path: Vec<_> = path.split('/').collect();
                self.report(&label, &path, &query, pages).await?;
            }
        }
        Ok(())
    }
}

/// The days in runs that the newer report takes.
fn parts(days: Days) -> Vec<Days> {
    let (from, to) = (days.from.days(), days.to.days());
    let mut parts = Vec::new();
    let mut start = from;
    while start < to {
        let end = start.saturating_add(ANALYTICS_DAYS).min(to);
        parts.push(Days { from: Date::from_days(start), to: Date::from_days(end) });
        start = end;
    }
    parts
}

#[async_trait]
impl Connector for Anthropic {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let mut pages = Vec::new();
        match self.settings.report {
            AnthropicReport::Legacy => self.legacy(days, &mut pages).await?,
            AnthropicReport::Analytics => self.analytics(days, &mut pages).await?,
        }
        if self.settings.list_keys {
            let request = |client: &reqwest::Client, cursor: Option<&str>| {
                let mut query = vec![("limit", "1000")];
                query.extend(cursor.map(|cursor| ("after_id", cursor)));
                self.ask(client, &[keys::LABEL], &query)
            };
            let next = |body: &[u8]| keys::next(&Reader::new(NAME, keys::LABEL), body);
            let before = pages.len();
            let outcome = self.http.list(keys::LABEL, &mut pages, request, next).await;
            keys_if_allowed(outcome, &mut pages, before)?;
        }
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        let mut bill = Bill::default();
        let mut lists = Lists::new(NAME);
        let (mut older, mut newer) = (legacy::Legacy::default(), analytics::Analytics::default());
        let account = self.settings.account.as_str();
        for page in pages {
            let label = page.label.as_str();
            let reader = Reader::new(NAME, label);
            let of = Page { reader, days, account, body: &page.body };
            let more = match label {
                legacy::COSTS => older.costs(&of, &mut bill)?,
                legacy::USAGE => older.usage(&of, &mut bill)?,
                keys::LABEL => keys::page(&of, &mut bill)?,
                _ if label.starts_with(analytics::COSTS) => newer.costs(&of, &mut bill)?,
                _ if label.starts_with(analytics::USAGE) => newer.usage(&of, &mut bill)?,
                _ => return Err(reader.wrong("", "is no answer that this connector asks for")),
            };
            lists.page(label, more)?;
        }
        let expected = match self.settings.report {
            AnthropicReport::Legacy => vec![legacy::COSTS.to_owned(), legacy::USAGE.to_owned()],
            AnthropicReport::Analytics => parts(days)
                .into_iter()
                .map(|part| analytics::label(analytics::COSTS, part))
                .collect(),
        };
        lists.finish(expected.iter().map(String::as_str))?;
        if self.settings.report == AnthropicReport::Legacy {
            older.finish(days)?;
            // A day of Priority Tier alone is not without a charge: it is left out.
            bill.each_day = older.notes().is_none();
        }
        bill.notes.extend(older.notes());
        bill.notes.extend(newer.notes());
        bill.notes.extend(without_keys(NAME, self.settings.list_keys, pages, keys::LABEL));
        Ok(bill)
    }
}

/// A page, and what is needed to read it.
struct Page<'a> {
    reader: Reader<'a>,
    days: Days,
    account: &'a str,
    body: &'a [u8],
}

impl Page<'_> {
    /// True when more pages follow.
    fn more(&self) -> Result<bool, PullError> {
        let paged: Paged = self.reader.json(self.body)?;
        Ok(paged.next(&self.reader)?.is_some())
    }
}

/// The counts of both reports.
#[derive(Deserialize)]
struct Counts {
    uncached_input_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation: CacheCreation,
    output_tokens: u64,
    server_tool_use: ServerToolUse,
    // The newer report's only.
    total_tokens: Option<u64>,
    requests: Option<u64>,
    // The older report's only, which has its dimensions beside the counts.
    workspace_id: Option<String>,
    api_key_id: Option<String>,
    model: Option<String>,
    service_tier: Option<String>,
}

#[derive(Deserialize)]
struct CacheCreation {
    ephemeral_5m_input_tokens: u64,
    ephemeral_1h_input_tokens: u64,
}

#[derive(Deserialize)]
struct ServerToolUse {
    web_search_requests: u64,
}

impl Counts {
    fn buckets(&self) -> (Tokens, Calls) {
        let tokens = Tokens {
            input: self.uncached_input_tokens,
            cache_read: self.cache_read_input_tokens,
            cache_write_5m: self.cache_creation.ephemeral_5m_input_tokens,
            cache_write_1h: self.cache_creation.ephemeral_1h_input_tokens,
            output: self.output_tokens,
            ..Tokens::default()
        };
        let web_search = self.server_tool_use.web_search_requests;
        (tokens, Calls { web_search, ..Calls::default() })
    }
}

/// What a cost is for. A type that is not known is an error: it could be priced apart from all that is.
fn meter(
    reader: &Reader<'_>,
    at: &str,
    cost_type: Option<&str>,
    token_type: Option<&str>,
) -> Result<Meter, PullError> {
    let unknown = |field: &str, value: Option<&str>| {
        let reason = match value {
            Some(value) => {
                let value: String = value.chars().take(60).collect();
                format!("is `{value}`, which is not known here: teach the connector its meaning")
            }
            None => "is missing, and the answer was asked for by it".to_owned(),
        };
        Err(reader.wrong(&format!("{at}.{field}"), reason))
    };
    match (cost_type, token_type) {
        (Some("tokens"), Some("uncached_input_tokens")) => Ok(Meter::Input),
        (Some("tokens"), Some("output_tokens")) => Ok(Meter::Output),
        (Some("tokens"), Some("cache_read_input_tokens")) => Ok(Meter::CacheRead),
        (
            Some("tokens"),
            Some(
                "cache_creation.ephemeral_5m_input_tokens"
                | "cache_creation.ephemeral_1h_input_tokens",
            ),
        ) => Ok(Meter::CacheWrite),
        (Some("tokens"), other) => unknown("token_type", other),
        (Some("web_search"), _) => Ok(Meter::Calls),
        (Some("code_execution" | "session_usage"), _) => Ok(Meter::Whole),
        (other, _) => unknown("cost_type", other),
    }
}

/// Money that comes back is no use.
fn kind(amount: Usd) -> ChargeKind {
    if amount.is_negative() { ChargeKind::Adjustment } else { ChargeKind::Usage }
}

fn workspace(id: Option<String>) -> Option<String> {
    Some(id.unwrap_or_else(|| DEFAULT_WORKSPACE.into()))
}

fn tags<const N: usize>(
    values: [(&str, Option<String>); N],
) -> std::collections::BTreeMap<String, String> {
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests;
