//! OpenAI: what the organization was billed (`/organization/costs`, a label, a project and a key a line), what it used
//! (`/organization/usage/...`), and the API keys of its projects. Costs are the bill; usage explains it.
//!
//! OpenAI does not say when a day's costs are final, so every line is provisional: only an invoice closes a month.

mod costs;
mod keys;
mod usage;

use std::collections::BTreeSet;

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;

use super::http::{Http, Patience, address, base_url};
use super::read::{Lists, Paged, Reader, Rounded};
use super::{Connector, Days, PullError, RawPage, Secret, keys_if_allowed, without_keys};
use crate::bill::Bill;

pub use costs::line_item_hint;
pub use usage::UsageKind;

const NAME: &str = "openai";
const COSTS: &str = "costs";
const PROJECTS: &str = "projects";

/// What to ask OpenAI for, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiSettings {
    /// The API's address.
    #[serde(default = "public_address")]
    pub base_url: String,
    /// The organization's id: the account of what is read.
    pub account: String,
    /// An admin key (`sk-admin-...`). A project's key is refused by OpenAI.
    pub admin_key: Secret,
    /// The kinds of use to ask for: all whose counts are documented, unless said otherwise.
    #[serde(default = "UsageKind::documented")]
    pub usage: Vec<UsageKind>,
    /// Ask for costs by API key too. Without it lines name no key.
    #[serde(default = "yes")]
    pub costs_by_key: bool,
    /// List the projects' API keys.
    #[serde(default = "yes")]
    pub list_keys: bool,
}

fn public_address() -> String {
    "https://api.openai.com/v1".into()
}

const fn yes() -> bool {
    true
}

/// The connector.
#[derive(Clone, Debug)]
pub struct OpenAi {
    settings: OpenAiSettings,
    http: Http,
    base: Url,
    authorization: HeaderValue,
}

impl OpenAi {
    /// Checks the settings. Nothing is asked yet.
    pub fn new(settings: OpenAiSettings, patience: Patience) -> Result<Self, PullError> {
        Ok(Self {
            http: Http::new(NAME, patience)?,
            base: base_url(NAME, &settings.base_url)?,
            authorization: settings.admin_key.header(NAME, "Bearer ")?,
            settings,
        })
    }

    /// Asks for a list of buckets. All parameters but `page` stay the same from page to page.
    async fn buckets(
        &self,
        label: &str,
        days: Days,
        limit: &str,
        groups: &[&str],
        pages: &mut Vec<RawPage>,
    ) -> Result<(), PullError> {
        let (start, end) = (days.start().seconds().to_string(), days.end().seconds().to_string());
        let mut query = vec![
            ("start_time", start.as_str()),
            ("end_time", end.as_str()),
            ("bucket_width", "1d"),
            ("limit", limit),
        ];
        query.extend(groups.iter().map(|group| ("group_by[]", *group)));
        let request = |client: &reqwest::Client, cursor: Option<&str>| {
            let mut query = query.clone();
            query.extend(cursor.map(|cursor| ("page", cursor)));
            let path: Vec<_> = ["organization"].into_iter().chain(label.split('/')).collect();
            client
                .get(address(&self.base, &path, &query))
                .header(AUTHORIZATION, self.authorization.clone())
        };
        let next = |body: &[u8]| {
            let reader = Reader::new(NAME, label);
            let paged: Paged = reader.json(body)?;
            Ok(paged.next(&reader)?.map(str::to_owned))
        };
        self.http.list(label, pages, request, next).await
    }

    /// Asks for a list of objects, which goes on after the last object's id.
    async fn objects(&self, label: &str, pages: &mut Vec<RawPage>) -> Result<(), PullError> {
        let request = |client: &reqwest::Client, cursor: Option<&str>| {
            let mut query = vec![("limit", "100")];
            query.extend(cursor.map(|cursor| ("after", cursor)));
            let path: Vec<_> = ["organization"].into_iter().chain(label.split('/')).collect();
            client
                .get(address(&self.base, &path, &query))
                .header(AUTHORIZATION, self.authorization.clone())
        };
        self.http
            .list(label, pages, request, |body| keys::next(&Reader::new(NAME, label), body))
            .await
    }

    async fn keys(&self, pages: &mut Vec<RawPage>) -> Result<(), PullError> {
        let before = pages.len();
        self.objects(PROJECTS, pages).await?;
        // An unreadable page is said so when it is read.
        let listed = pages.iter().skip(before).filter_map(|page| keys::projects(page).ok());
        for project in listed.flatten().collect::<Vec<_>>() {
            self.objects(&keys::label(&project), pages).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Connector for OpenAi {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let mut pages = Vec::new();
        let groups: &[&str] = if self.settings.costs_by_key {
            &["project_id", "line_item", "api_key_id"]
        } else {
            &["project_id", "line_item"]
        };
        self.buckets(COSTS, days, "180", groups, &mut pages).await?;
        for kind in &self.settings.usage {
            self.buckets(kind.label(), days, "31", kind.groups(), &mut pages).await?;
        }
        if self.settings.list_keys {
            let before = pages.len();
            let outcome = self.keys(&mut pages).await;
            keys_if_allowed(outcome, &mut pages, before)?;
        }
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        let mut bill = Bill::default();
        let mut lists = Lists::new(NAME);
        let (mut costs, mut usage) = (costs::Costs::default(), usage::Usage::default());
        let mut expected = vec![COSTS.to_owned()];
        let mut kinds = BTreeSet::new();
        let account = &self.settings.account;
        for page in pages {
            let label = page.label.as_str();
            let reader = Reader::new(NAME, label);
            let more = if label == COSTS {
                costs.page(&reader, days, account, page, &mut bill)?
            } else if let Some(kind) = UsageKind::of_label(label) {
                kinds.insert(kind);
                usage.page(&reader, kind, days, account, page, &mut bill)?
            } else if label == PROJECTS {
                expected.extend(keys::projects(page)?.iter().map(|project| keys::label(project)));
                keys::next(&reader, &page.body)?.is_some()
            } else if let Some(project) = keys::project_of(label) {
                keys::page(&reader, account, project, page, &mut bill)?
            } else {
                return Err(reader.wrong("", "is no answer that this connector asks for"));
            };
            lists.page(label, more)?;
        }
        lists.finish(expected.iter().map(String::as_str))?;
        costs.finish(days)?;
        bill.each_day = true;
        kinds.into_iter().try_for_each(|kind| usage.finish(kind, days))?;
        bill.notes.extend(costs.rounded.note(NAME));
        bill.notes.extend(usage.notes());
        bill.notes.extend(without_keys(NAME, self.settings.list_keys, pages, PROJECTS));
        Ok(bill)
    }
}

#[cfg(test)]
mod tests;
