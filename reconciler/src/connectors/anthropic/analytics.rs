//! The newer report: `analytics/cost` and `analytics/usage`, rows of a day and a group.
//!
//! A day without use has no row here, so an answer without rows is a good one: `data_refreshed_at` says until when.

use std::collections::BTreeSet;

use serde::Deserialize;
use tallygate_shared::time::Timestamp;

use super::{Counts, Days, NAME, Page, PullError, kind, meter, tags, workspace};
use crate::bill::{Bill, BillLine, MeasuredUsage};
use crate::connectors::read::{CentsText, Utc};

pub(super) const COSTS: &str = "analytics/cost";
pub(super) const USAGE: &str = "analytics/usage";
// Five dimensions at most, not counting the last two.
pub(super) const COST_GROUPS: &[&str] = &[
    "workspace_id",
    "api_key_id",
    "model",
    "service_tier",
    "context_window",
    "cost_type",
    "token_type",
];
pub(super) const USAGE_GROUPS: &[&str] = &["workspace_id", "api_key_id", "model", "service_tier"];

/// What the pages of a run of days are kept under.
pub(super) fn label(path: &str, days: Days) -> String {
    format!("{path}/{}", days.from)
}

#[derive(Deserialize)]
struct Rows<R> {
    data: Vec<R>,
    data_refreshed_at: Utc,
}

/// The dimensions asked for. Absent and `null` are both "none".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Group {
    workspace_id: Option<String>,
    api_key_id: Option<String>,
    model: Option<String>,
    service_tier: Option<String>,
    context_window: Option<String>,
    cost_type: Option<String>,
    token_type: Option<String>,
}

#[derive(Deserialize)]
struct CostRow {
    starting_at: Utc,
    ending_at: Utc,
    group: Group,
    cost: Cost,
}

#[derive(Deserialize)]
struct Cost {
    amount: CentsText,
    list_amount: CentsText,
    currency: String,
}

#[derive(Deserialize)]
struct UsageRow {
    starting_at: Utc,
    ending_at: Utc,
    group: Group,
    usage: Counts,
}

/// What reading the pages remembers from page to page.
#[derive(Default)]
pub(super) struct Analytics {
    costs: BTreeSet<(Timestamp, Group)>,
    usage: BTreeSet<(Timestamp, Group)>,
    unequal: u64,
}

impl Analytics {
    /// Reads one page of costs, and says whether more follow.
    pub(super) fn costs(&mut self, page: &Page<'_>, bill: &mut Bill) -> Result<bool, PullError> {
        let read: Rows<CostRow> = page.reader.json(page.body)?;
        let complete = read.data_refreshed_at.0;
        bill.complete_until = Some(bill.complete_until.map_or(complete, |at| at.min(complete)));
        for (index, row) in read.data.into_iter().enumerate() {
            let at = format!("data[{index}]");
            let period = (row.starting_at.0, row.ending_at.0);
            once(page, &at, period, &row.group, &mut self.costs)?;
            page.reader.us_dollars(&row.cost.currency, &format!("{at}.cost.currency"))?;
            bill.lines.push(line(page, &at, period, row, complete)?);
        }
        page.more()
    }

    /// Reads one page of usage, and says whether more follow.
    pub(super) fn usage(&mut self, page: &Page<'_>, bill: &mut Bill) -> Result<bool, PullError> {
        let read: Rows<UsageRow> = page.reader.json(page.body)?;
        for (index, row) in read.data.into_iter().enumerate() {
            let at = format!("data[{index}]");
            let (start, end) = (row.starting_at.0, row.ending_at.0);
            once(page, &at, (start, end), &row.group, &mut self.usage)?;
            let (tokens, calls) = row.usage.buckets();
            if row.usage.total_tokens.is_some_and(|stated| stated != tokens.total()) {
                self.unequal = self.unequal.saturating_add(1);
            }
            let model = row.group.model.ok_or_else(|| {
                let field = format!("{at}.group.model");
                page.reader.wrong(&field, "is missing, and the answer was asked for by it")
            })?;
            bill.usage.push(MeasuredUsage {
                provider: NAME.into(),
                account: page.account.into(),
                project: workspace(row.group.workspace_id),
                start,
                end,
                model,
                tier: row.group.service_tier,
                credential: row.group.api_key_id,
                requests: row.usage.requests,
                tokens,
                calls,
            });
        }
        page.more()
    }

    /// What is doubtful in the counts.
    pub(super) fn notes(&self) -> Option<String> {
        (self.unequal > 0).then(|| {
            format!(
                "{NAME}: in {} rows of usage `total_tokens` is not the sum of the counts; they were used",
                self.unequal
            )
        })
    }
}

/// Refuses a row outside the asked days, and a group that is there twice: rows that shift from page to page while the
/// report is refreshed would be booked twice.
fn once(
    page: &Page<'_>,
    at: &str,
    (start, end): (Timestamp, Timestamp),
    group: &Group,
    seen: &mut BTreeSet<(Timestamp, Group)>,
) -> Result<(), PullError> {
    page.reader.within_a_day(page.days, start, end, at)?;
    if !seen.insert((start, group.clone())) {
        return Err(page.reader.wrong(at, format!("has a group of {start} a second time")));
    }
    Ok(())
}

fn line(
    page: &Page<'_>,
    at: &str,
    (start, end): (Timestamp, Timestamp),
    row: CostRow,
    complete: Timestamp,
) -> Result<BillLine, PullError> {
    let (group, cost) = (row.group, row.cost);
    let at = format!("{at}.group");
    let meter = meter(&page.reader, &at, group.cost_type.as_deref(), group.token_type.as_deref())?;
    // The report has no words for a line: its dimensions are.
    let words = [&group.model, &group.cost_type, &group.token_type];
    let words: Vec<_> = words.into_iter().filter_map(Option::as_deref).collect();
    Ok(BillLine {
        provider: NAME.into(),
        account: page.account.into(),
        project: workspace(group.workspace_id),
        start,
        end,
        kind: kind(cost.amount.0),
        service: "Anthropic API".into(),
        description: words.join(", "),
        model: group.model,
        meter,
        tier: group.service_tier,
        quantity: None,
        unit: None,
        amount: cost.amount.0,
        list_amount: Some(cost.list_amount.0),
        invoice_id: None,
        credential: group.api_key_id,
        provisional: end > complete,
        tags: tags([("token_type", group.token_type), ("context_window", group.context_window)]),
    })
}
