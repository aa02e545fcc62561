//! MongoDB Atlas: the invoices of an organization and their lines, in **cents**. An invoice covers a month and is asked
//! for as a whole. Each line belongs to one day, and lines of other days than the asked ones are left to the pull of
//! their day, so no line is booked twice. A line within a day is that day's. A longer one (Atlas documents no longest
//! period) is booked whole on its last day, or on the invoice's if that comes first, with its period in a tag: what a
//! pull of some days spread over the days before them would be lost, and only on its last day is its amount known.
//!
//! A line's price is `totalPriceCents`, which Atlas has rounded: it is never recomputed from quantity and unit price.

mod invoice;

use std::collections::BTreeSet;

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use tallygate_shared::time::Timestamp;

use super::http::{Cursors, Http, Patience, address, base_url};
use super::read::{Lists, Reader, Utc};
use super::{Connector, Days, PullError, RawPage, Secret, oauth};
use crate::bill::Bill;

const NAME: &str = "mongodb_atlas";
const INVOICES: &str = "invoices";
const VERSION: &str = "application/vnd.atlas.2023-01-01+json";

/// What to ask Atlas for, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtlasSettings {
    /// The API's address.
    #[serde(default = "public_address")]
    pub base_url: String,
    /// The organization's id: the account of what is read.
    pub account: String,
    /// The id of a service account with the role Org Billing Viewer.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
}

fn public_address() -> String {
    "https://cloud.mongodb.com".into()
}

/// The connector.
#[derive(Clone, Debug)]
pub struct Atlas {
    settings: AtlasSettings,
    http: Http,
    base: Url,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    results: Vec<Summary>,
    total_count: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    id: String,
    start_date: Utc,
    end_date: Utc,
}

impl Summary {
    fn overlaps(&self, days: Days) -> bool {
        self.start_date.0 < days.end() && self.end_date.0 >= days.start()
    }
}

impl Atlas {
    /// Checks the settings. Nothing is asked yet.
    pub fn new(settings: AtlasSettings, patience: Patience) -> Result<Self, PullError> {
        settings.client_secret.header(NAME, "")?;
        let base = base_url(NAME, &settings.base_url)?;
        Ok(Self { http: Http::new(NAME, patience)?, base, settings })
    }

    async fn authorization(&self) -> Result<HeaderValue, PullError> {
        let url = address(&self.base, &["api", "oauth", "token"], &[]);
        let fields = [("grant_type", "client_credentials")];
        let (id, secret) = (&self.settings.client_id, self.settings.client_secret.expose());
        let request =
            |client: &reqwest::Client| client.post(url.clone()).basic_auth(id, Some(secret));
        oauth::token(&self.http, NAME, &fields, request).await
    }

    async fn ask(
        &self,
        authorization: &HeaderValue,
        label: &str,
        query: &[(&str, &str)],
    ) -> Result<RawPage, PullError> {
        let path: Vec<_> = ["api", "atlas", "v2", "orgs", &self.settings.account]
            .into_iter()
            .chain(label.split('/'))
            .collect();
        let url = address(&self.base, &path, query);
        let request = |client: &reqwest::Client| {
            client
                .get(url.clone())
                .header(AUTHORIZATION, authorization.clone())
                .header(ACCEPT, VERSION)
        };
        Ok(RawPage { label: label.into(), body: self.http.get(label, request).await? })
    }

    /// Asks for the list of invoices, and gives the ids of those that may hold lines of the days.
    async fn invoices(
        &self,
        authorization: &HeaderValue,
        days: Days,
        pages: &mut Vec<RawPage>,
    ) -> Result<Vec<String>, PullError> {
        let mut cursors = Cursors::new(NAME, INVOICES);
        let (mut ids, mut seen, mut number) = (Vec::new(), 0_u64, 1_u64);
        loop {
            let query = [
                ("pageNum", number.to_string()),
                ("itemsPerPage", "500".into()),
                ("includeCount", "true".into()),
                // With the invoices of linked organizations a line would come in two pulls.
                ("viewLinkedInvoices", "false".into()),
            ];
            let query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let page = self.ask(authorization, INVOICES, &query).await?;
            let read = listed(&Reader::new(NAME, INVOICES), &page.body);
            pages.push(page);
            // An unreadable page is said so when it is read.
            let Ok(listed) = read else { return Ok(Vec::new()) };
            seen = seen.saturating_add(listed.results.len() as u64);
            let Some(first) = listed.results.first() else { return Ok(ids) };
            cursors.follow(&first.id)?;
            ids.extend(
                listed.results.iter().filter(|one| one.overlaps(days)).map(|one| one.id.clone()),
            );
            if seen >= listed.total_count {
                return Ok(ids);
            }
            number = number.saturating_add(1);
        }
    }
}

fn listed(reader: &Reader<'_>, body: &[u8]) -> Result<Listed, PullError> {
    let listed: Listed = reader.json(body)?;
    for (index, invoice) in listed.results.iter().enumerate() {
        // The id becomes a part of an address and of a label.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if invoice.id.is_empty() || !invoice.id.bytes().all(plain) {
            return Err(reader.wrong(&format!("results[{index}].id"), "is no id of an invoice"));
        }
    }
    Ok(listed)
}

fn label(id: &str) -> String {
    format!("{INVOICES}/{id}")
}

#[async_trait]
impl Connector for Atlas {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let authorization = self.authorization().await?;
        let mut pages = Vec::new();
        for id in self.invoices(&authorization, days, &mut pages).await? {
            pages.push(self.ask(&authorization, &label(&id), &[]).await?);
        }
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        let mut bill = Bill::default();
        let mut lists = Lists::new(NAME);
        let (mut seen, mut expected) = (BTreeSet::new(), vec![INVOICES.to_owned()]);
        let mut stated = 0;
        for page in pages {
            let reader = Reader::new(NAME, &page.label);
            let more = if page.label == INVOICES {
                let listed = listed(&reader, &page.body)?;
                let any = !listed.results.is_empty();
                stated = listed.total_count;
                for (index, invoice) in listed.results.into_iter().enumerate() {
                    if invoice.overlaps(days) {
                        expected.push(label(&invoice.id));
                    }
                    if !seen.insert(invoice.id) {
                        let again = "is an invoice that was listed before";
                        return Err(reader.wrong(&format!("results[{index}].id"), again));
                    }
                }
                any && (seen.len() as u64) < listed.total_count
            } else if let Some(id) = page.label.strip_prefix("invoices/") {
                invoice::read(&reader, days, (&self.settings.account, id), &page.body, &mut bill)?;
                false
            } else {
                return Err(reader.wrong("", "is no answer that this connector asks for"));
            };
            lists.page(&page.label, more)?;
        }
        lists.finish(expected.iter().map(String::as_str))?;
        // An organization that is new or free has no invoice, so none may be listed: but not fewer than stated.
        if (seen.len() as u64) < stated {
            let reason = format!("is {stated}, and {} invoices came", seen.len());
            return Err(Reader::new(NAME, INVOICES).wrong("totalCount", reason));
        }
        Ok(bill)
    }
}

/// Whether a moment is within the days.
fn on(days: Days, at: Timestamp) -> bool {
    days.start() <= at && at < days.end()
}

#[cfg(test)]
mod tests;
