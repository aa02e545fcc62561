//! Vercel: what a team was charged (`/v1/billing/charges`), one FOCUS row a line of JSON. `BilledCost` is the bill. Under
//! a commitment it may be 0 where `EffectiveCost` is not: that is told in a tag.

use std::collections::BTreeMap;

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde::Deserialize;

use super::http::{Http, Patience, address, base_url};
use super::read::{Amount, Dollars, Lists, Reader, Rounded, Utc};
use super::{Connector, Days, PullError, RawPage, Secret};
use crate::bill::{Bill, BillLine, ChargeKind, Meter};

const NAME: &str = "vercel";
const CHARGES: &str = "charges";

/// What to ask Vercel for, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VercelSettings {
    /// The API's address.
    #[serde(default = "public_address")]
    pub base_url: String,
    /// The team's id (`team_...`): the account of what is read.
    pub account: String,
    /// A token of somebody who may see the team's billing.
    pub token: Secret,
}

fn public_address() -> String {
    "https://api.vercel.com".into()
}

/// The connector.
#[derive(Clone, Debug)]
pub struct Vercel {
    settings: VercelSettings,
    http: Http,
    base: Url,
    authorization: HeaderValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Charge {
    billed_cost: Dollars,
    effective_cost: Dollars,
    billing_currency: String,
    charge_category: Category,
    charge_period_start: Utc,
    charge_period_end: Utc,
    consumed_quantity: Option<Amount>,
    consumed_unit: Option<String>,
    region_id: Option<String>,
    service_name: String,
    service_category: Option<String>,
    tags: Option<BTreeMap<String, Option<String>>>,
    pricing_category: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
enum Category {
    Usage,
    Purchase,
    Credit,
    Tax,
    Adjustment,
}

impl Vercel {
    /// Checks the settings. Nothing is asked yet.
    pub fn new(settings: VercelSettings, patience: Patience) -> Result<Self, PullError> {
        Ok(Self {
            http: Http::new(NAME, patience)?,
            base: base_url(NAME, &settings.base_url)?,
            authorization: settings.token.header(NAME, "Bearer ")?,
            settings,
        })
    }

    fn line(
        &self,
        reader: &Reader<'_>,
        at: &str,
        charge: Charge,
        rounded: &mut Rounded,
    ) -> Result<BillLine, PullError> {
        reader.us_dollars(&charge.billing_currency, &format!("{at}.BillingCurrency"))?;
        if charge.consumed_quantity.is_some() && charge.consumed_unit.is_none() {
            return Err(reader.wrong(
                &format!("{at}.ConsumedUnit"),
                "is missing, and `ConsumedQuantity` is there",
            ));
        }
        let (amount, effective) =
            (rounded.dollars(charge.billed_cost), rounded.dollars(charge.effective_cost));
        let mut tags: BTreeMap<_, _> = charge
            .tags
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let project = tags.get("ProjectId").cloned();
        for (name, value) in [
            ("vercel:effective_cost", (effective != amount).then(|| effective.to_string())),
            ("vercel:region", charge.region_id),
            ("vercel:service_category", charge.service_category),
            ("vercel:pricing_category", charge.pricing_category),
        ] {
            tags.extend(value.map(|value| (name.to_owned(), value)));
        }
        Ok(BillLine {
            provider: NAME.into(),
            account: self.settings.account.clone(),
            project,
            start: charge.charge_period_start.0,
            end: charge.charge_period_end.0,
            kind: match charge.charge_category {
                Category::Usage => ChargeKind::Usage,
                Category::Purchase => ChargeKind::Purchase,
                Category::Credit => ChargeKind::Credit,
                Category::Tax => ChargeKind::Tax,
                Category::Adjustment => ChargeKind::Adjustment,
            },
            description: charge.service_name.clone(),
            service: charge.service_name,
            model: None,
            meter: Meter::Whole,
            tier: None,
            quantity: charge.consumed_quantity.map(|quantity| quantity.0),
            unit: charge.consumed_unit.filter(|_| charge.consumed_quantity.is_some()),
            amount,
            list_amount: None,
            invoice_id: None,
            credential: None,
            provisional: false,
            tags,
        })
    }
}

#[async_trait]
impl Connector for Vercel {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let (from, to) = (days.start().to_string(), days.end().to_string());
        let query =
            [("from", from.as_str()), ("to", to.as_str()), ("teamId", &self.settings.account)];
        let url = address(&self.base, &["v1", "billing", CHARGES], &query);
        let request = |client: &reqwest::Client| {
            client
                .get(url.clone())
                .header(AUTHORIZATION, self.authorization.clone())
                .header(ACCEPT, "application/jsonl")
        };
        let body = self.http.get(CHARGES, request).await?;
        Ok(vec![RawPage { label: CHARGES.into(), body }])
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        let (mut bill, mut rounded) = (Bill::default(), Rounded::default());
        let mut lists = Lists::new(NAME);
        for page in pages {
            let reader = Reader::new(NAME, &page.label);
            if page.label != CHARGES {
                return Err(reader.wrong("", "is no answer that this connector asks for"));
            }
            lists.page(CHARGES, false)?;
            let body = page.body.trim_ascii_end();
            // One line a charge: a team without charges has none, and nothing else in the answer could tell it.
            if body.is_empty() {
                bill.notes.push(format!("{NAME}: no charges in {}..{}", days.from, days.to));
                continue;
            }
            for (index, text) in body.split(|byte| *byte == b'\n').enumerate() {
                let at = format!("line {}", index + 1);
                let charge: Charge = reader.json_at(&at, text)?;
                let (start, end) = (charge.charge_period_start.0, charge.charge_period_end.0);
                reader.within_a_day(days, start, end, &at)?;
                bill.lines.push(self.line(&reader, &at, charge, &mut rounded)?);
            }
        }
        lists.finish([CHARGES])?;
        bill.notes.extend(rounded.note(NAME));
        Ok(bill)
    }
}

#[cfg(test)]
mod tests;
