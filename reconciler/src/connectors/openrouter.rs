//! OpenRouter: what each completed UTC day cost by model and endpoint (`/activity`), and the API keys (`/keys`).
//!
//! `usage` is what OpenRouter takes from the credits and is the bill. What it paid a provider with the caller's own
//! key (`byok_usage_inference`) is on that provider's bill and is only told in a tag. The fee on buying credits is in
//! neither: it is on the receipt. Days older than 30 are gone at the source. A day without requests has no rows, so a
//! day's answer may be empty; that each day was answered is checked.

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use tallygate_shared::time::Date;
use tallygate_shared::tokens::{Calls, Tokens};

use super::http::{Cursors, Http, Patience, address, base_url};
use super::read::{Day, Dollars, Lists, Reader, Rounded, Utc, next_day};
use super::{Connector, Days, PullError, RawPage, Secret, keys_if_allowed, without_keys};
use crate::bill::{Bill, BillLine, ChargeKind, Credential, MeasuredUsage, Meter};

const NAME: &str = "openrouter";
const ACTIVITY: &str = "activity";
const KEYS: &str = "keys";

/// What to ask OpenRouter for, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRouterSettings {
    /// The API's address.
    #[serde(default = "public_address")]
    pub base_url: String,
    /// A name for the account: OpenRouter states none.
    pub account: String,
    /// A management (provisioning) key. A key for completions is refused by OpenRouter.
    pub management_key: Secret,
    /// List the API keys.
    #[serde(default = "yes")]
    pub list_keys: bool,
}

fn public_address() -> String {
    "https://openrouter.ai/api/v1".into()
}

const fn yes() -> bool {
    true
}

/// The connector.
#[derive(Clone, Debug)]
pub struct OpenRouter {
    settings: OpenRouterSettings,
    http: Http,
    base: Url,
    authorization: HeaderValue,
}

#[derive(Deserialize)]
struct Rows<R> {
    data: Vec<R>,
}

#[derive(Deserialize)]
struct Activity {
    date: Day,
    model: String,
    model_permaslug: Option<String>,
    endpoint_id: Option<String>,
    provider_name: String,
    usage: Dollars,
    byok_usage_inference: Dollars,
    requests: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    reasoning_tokens: u64,
    cached_tokens: u64,
    workspace_id: Option<String>,
}

#[derive(Deserialize)]
struct Key {
    hash: String,
    name: Option<String>,
    label: Option<String>,
    disabled: bool,
    created_at: Option<Utc>,
    workspace_id: Option<String>,
}

impl OpenRouter {
    /// Checks the settings. Nothing is asked yet.
    pub fn new(settings: OpenRouterSettings, patience: Patience) -> Result<Self, PullError> {
        Ok(Self {
            http: Http::new(NAME, patience)?,
            base: base_url(NAME, &settings.base_url)?,
            authorization: settings.management_key.header(NAME, "Bearer ")?,
            settings,
        })
    }

    async fn ask(
        &self,
        label: &str,
        path: &str,
        query: (&str, &str),
    ) -> Result<RawPage, PullError> {
        let url = address(&self.base, &[path], &[query]);
        let authorization = &self.authorization;
        let request = |client: &reqwest::Client| {
            client.get(url.clone()).header(AUTHORIZATION, authorization.clone())
        };
        Ok(RawPage { label: label.into(), body: self.http.get(label, request).await? })
    }

    /// Keys come by offset, up to an empty page.
    async fn keys(&self, pages: &mut Vec<RawPage>) -> Result<(), PullError> {
        let mut cursors = Cursors::new(NAME, KEYS);
        let mut offset = 0_usize;
        loop {
            let page = self.ask(KEYS, KEYS, ("offset", &offset.to_string())).await?;
            let read: Result<Rows<Key>, _> = Reader::new(NAME, KEYS).json(&page.body);
            pages.push(page);
            // An unreadable page is said so when it is read.
            let Ok(Rows { data }) = read else { return Ok(()) };
            let Some(first) = data.first() else { return Ok(()) };
            // A server that ignores the offset sends the same keys for ever.
            cursors.follow(&first.hash)?;
            offset = offset.saturating_add(data.len());
        }
    }

    fn activity(
        &self,
        reader: &Reader<'_>,
        at: &str,
        row: Activity,
        rounded: &mut Rounded,
        bill: &mut Bill,
    ) -> Result<(), PullError> {
        let (start, end) = (row.date.0.midnight(), next_day(row.date.0).midnight());
        let less = |total: u64, part: u64, field: &str| {
            total.checked_sub(part).ok_or_else(|| {
                reader.wrong(
                    &format!("{at}.{field}"),
                    format!("is {part}, more than the {total} it is counted in"),
                )
            })
        };
        let tokens = Tokens {
            input: less(row.prompt_tokens, row.cached_tokens, "cached_tokens")?,
            cache_read: row.cached_tokens,
            output: less(row.completion_tokens, row.reasoning_tokens, "reasoning_tokens")?,
            reasoning: row.reasoning_tokens,
            ..Tokens::default()
        };
        let byok = rounded.dollars(row.byok_usage_inference);
        let tags = [
            ("provider_name", Some(row.provider_name.clone())),
            ("endpoint_id", row.endpoint_id),
            ("model_permaslug", row.model_permaslug),
            ("byok_usage_inference", (byok.pico() != 0).then(|| byok.to_string())),
        ];
        let amount = rounded.dollars(row.usage);
        bill.lines.push(BillLine {
            provider: NAME.into(),
            account: self.settings.account.clone(),
            project: row.workspace_id.clone(),
            start,
            end,
            kind: if amount.is_negative() { ChargeKind::Adjustment } else { ChargeKind::Usage },
            service: "OpenRouter".into(),
            description: format!("{} by {}", row.model, row.provider_name),
            model: Some(row.model.clone()),
            meter: Meter::Whole,
            tier: None,
            quantity: None,
            unit: None,
            amount,
            list_amount: None,
            invoice_id: None,
            credential: None,
            provisional: false,
            tags: tags
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect(),
        });
        bill.usage.push(MeasuredUsage {
            provider: NAME.into(),
            account: self.settings.account.clone(),
            project: row.workspace_id,
            start,
            end,
            model: row.model,
            tier: None,
            credential: None,
            requests: Some(row.requests),
            tokens,
            calls: Calls::default(),
        });
        Ok(())
    }

    fn credential(&self, key: Key) -> Credential {
        Credential {
            provider: NAME.into(),
            account: self.settings.account.clone(),
            project: key.workspace_id,
            id: key.hash,
            name: key.name,
            hint: key.label,
            created: key.created_at.map(|at| at.0),
            last_used: None,
            active: !key.disabled,
        }
    }
}

fn label(day: Date) -> String {
    format!("{ACTIVITY}/{day}")
}

#[async_trait]
impl Connector for OpenRouter {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let mut pages = Vec::new();
        for day in days.each() {
            let date = day.to_string();
            pages.push(self.ask(&label(day), ACTIVITY, ("date", &date)).await?);
        }
        if self.settings.list_keys {
            let before = pages.len();
            let outcome = self.keys(&mut pages).await;
            keys_if_allowed(outcome, &mut pages, before)?;
        }
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        let (mut bill, mut rounded) = (Bill::default(), Rounded::default());
        let mut lists = Lists::new(NAME);
        let expected: Vec<_> = days.each().map(label).collect();
        for page in pages {
            let label = page.label.as_str();
            let reader = Reader::new(NAME, label);
            let more = if label == KEYS {
                let read: Rows<Key> = reader.json(&page.body)?;
                let more = !read.data.is_empty();
                bill.credentials.extend(read.data.into_iter().map(|key| self.credential(key)));
                more
            } else if let Some(asked) = label.strip_prefix("activity/") {
                let read: Rows<Activity> = reader.json(&page.body)?;
                for (index, row) in read.data.into_iter().enumerate() {
                    let at = format!("data[{index}]");
                    let day = row.date.0;
                    reader.within(days, day.midnight(), next_day(day).midnight(), &at)?;
                    if day.to_string() != asked {
                        return Err(reader.wrong(
                            &format!("{at}.date"),
                            format!("is {day}, and {asked} was asked for"),
                        ));
                    }
                    self.activity(&reader, &at, row, &mut rounded, &mut bill)?;
                }
                false
            } else {
                return Err(reader.wrong("", "is no answer that this connector asks for"));
            };
            lists.page(label, more)?;
        }
        lists.finish(expected.iter().map(String::as_str))?;
        bill.notes.extend(rounded.note(NAME));
        bill.notes.extend(without_keys(NAME, self.settings.list_keys, pages, KEYS));
        Ok(bill)
    }
}

#[cfg(test)]
mod tests;
