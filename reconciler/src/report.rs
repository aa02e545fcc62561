//! What a run says of itself: what it found, what is missing, and that the books agree with the bills.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tallygate_shared::money::Usd;

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It goes on.
    #[default]
    Running,
    /// Everything was there and is in the books.
    Complete,
    /// Something is missing: the report says what. The next run takes it up.
    Partial,
}

/// A run's report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The run.
    pub run: String,
    /// The first day.
    pub from: String,
    /// The day after the last.
    pub to: String,
    /// How it ended.
    pub status: Status,
    /// Workspace by workspace.
    pub workspaces: BTreeMap<String, WorkspaceReport>,
    /// Calls that cost money: all of the run's, however often it was taken up.
    #[serde(default)]
    pub paid_calls: u32,
    /// Those of them that it had made when it ended before as [`Status::Partial`], and said so.
    #[serde(default, skip_serializing_if = "is_none")]
    pub paid_calls_told: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_none(count: &u32) -> bool {
    *count == 0
}

/// One workspace's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceReport {
    /// The number of the pull.
    pub seq: u64,
    /// Sources and days that could not be had, and why. By what is missing.
    pub missing: BTreeMap<String, String>,
    /// Parts of answers that wait for a person.
    pub held: Vec<String>,
    /// What is doubtful, but not missing.
    pub notes: Vec<String>,
    /// Provider by provider.
    pub providers: BTreeMap<String, ProviderReport>,
    /// What people should hear of, in words.
    pub findings: Vec<String>,
    /// API keys that a provider knows and the gateway does not hold.
    pub unknown_credentials: Vec<String>,
    /// Days that were settled now.
    pub days_settled: u64,
    /// Days whose events and bills are those of the last run.
    pub days_unchanged: u64,
    /// Revisions written.
    pub rows_written: u64,
}

/// One provider's part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderReport {
    /// What the gateway had estimated, on all days.
    pub estimated: Usd,
    /// What it had estimated on days that have a bill.
    pub estimated_of_billed: Usd,
    /// The bill: what the source says, line by line.
    pub billed: Usd,
    /// The books: what all owners' parts add up to.
    pub ledger: Usd,
    /// What other quantities explain.
    pub quantity_variance: Usd,
    /// What other prices explain.
    pub price_variance: Usd,
    /// Billed for use that the gateway never saw.
    pub unmetered: Usd,
    /// Lines of the books.
    pub rows: u64,
    /// Lines that have no bill yet.
    pub unbilled_rows: u64,
}

impl ProviderReport {
    /// The books less the bill: nothing, or the books are wrong.
    pub fn difference(&self) -> Option<Usd> {
        self.ledger.checked_sub(self.billed)
    }
}

impl Report {
    /// Whether anything is missing or waits for a person.
    pub fn is_whole(&self) -> bool {
        self.workspaces
            .values()
            .all(|workspace| workspace.missing.is_empty() && workspace.held.is_empty())
    }

    /// Whether the books agree with the bills, for every provider.
    pub fn balances(&self) -> bool {
        let providers = self.workspaces.values().flat_map(|workspace| workspace.providers.values());
        providers.into_iter().all(|provider| provider.difference() == Some(Usd::ZERO))
    }
}

/// A table for people.
impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Running => "not finished",
            Status::Complete => "complete",
            Status::Partial => "partial",
        };
        writeln!(to, "{} ({} up to {}): {status}", self.run, self.from, self.to)?;
        for (id, workspace) in &self.workspaces {
            writeln!(to, "\n{id}: pull {}", workspace.seq)?;
            writeln!(
                to,
                "  {:<18} {:>18} {:>18} {:>18} {:>18} {:>18}",
                "provider", "estimated", "billed", "by quantity", "by price", "ledger - bill"
            )?;
            for (name, provider) in &workspace.providers {
                let difference = provider.difference().map_or("overflow".into(), |d| d.to_string());
                writeln!(
                    to,
                    "  {name:<18} {:>18} {:>18} {:>18} {:>18} {difference:>18}",
                    provider.estimated.to_string(),
                    provider.billed.to_string(),
                    provider.quantity_variance.to_string(),
                    provider.price_variance.to_string(),
                )?;
                if provider.unmetered != Usd::ZERO {
                    writeln!(to, "    of it never seen by the gateway: {}", provider.unmetered)?;
                }
                if provider.unbilled_rows > 0 {
                    writeln!(
                        to,
                        "    {} of {} lines wait for their bill",
                        provider.unbilled_rows, provider.rows
                    )?;
                }
            }
            writeln!(
                to,
                "  {} days settled, {} unchanged, {} revisions written",
                workspace.days_settled, workspace.days_unchanged, workspace.rows_written
            )?;
            for (what, why) in &workspace.missing {
                writeln!(to, "  MISSING {what}: {why}")?;
            }
            for held in &workspace.held {
                writeln!(to, "  HELD {held}")?;
            }
            for finding in &workspace.findings {
                writeln!(to, "  FOUND {finding}")?;
            }
            for credential in &workspace.unknown_credentials {
                writeln!(to, "  UNKNOWN KEY {credential}")?;
            }
            for note in &workspace.notes {
                writeln!(to, "  note: {note}")?;
            }
        }
        Ok(())
    }
}
