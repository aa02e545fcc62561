//! The older report: `cost_report` and `usage_report/messages`, in buckets of a day.

use std::collections::BTreeSet;

use serde::Deserialize;
use tallygate_shared::time::{Date, Timestamp};

use super::{Counts, Days, NAME, Page, PullError, Reader, kind, meter, tags, workspace};
use crate::bill::{Bill, BillLine, MeasuredUsage};
use crate::connectors::read::{CentsText, Utc};

pub(super) const COSTS: &str = "cost_report";
pub(super) const USAGE: &str = "usage_report/messages";
pub(super) const COST_GROUPS: &[&str] = &["workspace_id", "description"];
pub(super) const USAGE_GROUPS: &[&str] = &["workspace_id", "api_key_id", "model", "service_tier"];

#[derive(Deserialize)]
struct Buckets<R> {
    data: Vec<Bucket<R>>,
}

#[derive(Deserialize)]
struct Bucket<R> {
    starting_at: Utc,
    ending_at: Utc,
    results: Vec<R>,
}

#[derive(Deserialize)]
struct Cost {
    currency: String,
    amount: CentsText,
    workspace_id: Option<String>,
    description: Option<String>,
    cost_type: Option<String>,
    token_type: Option<String>,
    model: Option<String>,
    service_tier: Option<String>,
    context_window: Option<String>,
    inference_geo: Option<String>,
    speed: Option<String>,
}

/// What reading the pages remembers from page to page.
#[derive(Default)]
pub(super) struct Legacy {
    costs: BTreeSet<Timestamp>,
    usage: BTreeSet<Timestamp>,
    priority: bool,
}

impl Legacy {
    /// Reads one page of costs, and says whether more follow.
    pub(super) fn costs(&mut self, page: &Page<'_>, bill: &mut Bill) -> Result<bool, PullError> {
        let read: Buckets<Cost> = page.reader.json(page.body)?;
        for (index, bucket) in read.data.into_iter().enumerate() {
            let at = format!("data[{index}]");
            let period = period(page, &at, &bucket, &mut self.costs)?;
            for (row, cost) in bucket.results.into_iter().enumerate() {
                bill.lines.push(line(page, &format!("{at}.results[{row}]"), period, cost)?);
            }
        }
        page.more()
    }

    /// Reads one page of usage, and says whether more follow.
    pub(super) fn usage(&mut self, page: &Page<'_>, bill: &mut Bill) -> Result<bool, PullError> {
        let read: Buckets<Counts> = page.reader.json(page.body)?;
        for (index, bucket) in read.data.into_iter().enumerate() {
            let at = format!("data[{index}]");
            let (start, end) = period(page, &at, &bucket, &mut self.usage)?;
            for (row, used) in bucket.results.into_iter().enumerate() {
                self.priority |=
                    used.service_tier.as_deref().is_some_and(|tier| tier.starts_with("priority"));
                let (tokens, calls) = used.buckets();
                let model = used.model.ok_or_else(|| {
                    let field = format!("{at}.results[{row}].model");
                    page.reader.wrong(&field, "is missing, and the answer was asked for by it")
                })?;
                bill.usage.push(MeasuredUsage {
                    provider: NAME.into(),
                    account: page.account.into(),
                    project: workspace(used.workspace_id),
                    start,
                    end,
                    model,
                    tier: used.service_tier,
                    credential: used.api_key_id,
                    requests: None,
                    tokens,
                    calls,
                });
            }
        }
        page.more()
    }

    /// Refuses answers that lack one of the days: each has a bucket.
    pub(super) fn finish(&self, days: Days) -> Result<(), PullError> {
        for (label, seen) in [(COSTS, &self.costs), (USAGE, &self.usage)] {
            let has = |day: Date| seen.contains(&day.midnight());
            Reader::new(NAME, label).each_day(days, has, "data")?;
        }
        Ok(())
    }

    /// What is missing in the bill.
    pub(super) fn notes(&self) -> Option<String> {
        self.priority.then(|| {
            format!("{NAME}: Priority Tier was used, and `cost_report` leaves its cost out: drop its invoice in the inbox")
        })
    }
}

/// The bucket's period: within the asked days, and there once. A page holds whole buckets.
fn period<R>(
    page: &Page<'_>,
    at: &str,
    bucket: &Bucket<R>,
    seen: &mut BTreeSet<Timestamp>,
) -> Result<(Timestamp, Timestamp), PullError> {
    let (start, end) = (bucket.starting_at.0, bucket.ending_at.0);
    page.reader.within_a_day(page.days, start, end, at)?;
    if !seen.insert(start) {
        return Err(page.reader.wrong(at, format!("has the bucket of {start} a second time")));
    }
    Ok((start, end))
}

fn line(
    page: &Page<'_>,
    at: &str,
    (start, end): (Timestamp, Timestamp),
    cost: Cost,
) -> Result<BillLine, PullError> {
    page.reader.us_dollars(&cost.currency, &format!("{at}.currency"))?;
    let meter = meter(&page.reader, at, cost.cost_type.as_deref(), cost.token_type.as_deref())?;
    Ok(BillLine {
        provider: NAME.into(),
        account: page.account.into(),
        project: workspace(cost.workspace_id),
        start,
        end,
        kind: kind(cost.amount.0),
        service: "Anthropic API".into(),
        description: cost.description.unwrap_or_default(),
        model: cost.model,
        meter,
        tier: cost.service_tier,
        quantity: None,
        unit: None,
        amount: cost.amount.0,
        list_amount: None,
        invoice_id: None,
        credential: None,
        provisional: false,
        tags: tags([
            ("token_type", cost.token_type),
            ("context_window", cost.context_window),
            ("inference_geo", cost.inference_geo),
            ("speed", cost.speed),
        ]),
    })
}
