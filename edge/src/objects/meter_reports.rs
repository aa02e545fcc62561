//! What a Meter says about itself: the outcome of a thought-out request, and its books.

use std::collections::BTreeMap;

use serde::Serialize;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::Check;

/// What `simulate` answers.
#[derive(Debug, Serialize)]
pub struct Simulated {
    /// `admit` or `refuse`.
    pub decision: &'static str,
    /// The status the caller would get, if the provider answers.
    pub status: u16,
    /// The refusal's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The refusal's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What would be set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_usd: Option<Usd>,
    /// Where the request would go, in order.
    pub targets: Vec<String>,
    /// The output limit that would be written into it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_max_output_tokens: Option<u64>,
    /// What the tightest cap would leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_remaining_usd: Option<Usd>,
    /// Every check, in order.
    pub checks: Vec<Check>,
}

/// The Meter's books at a moment.
#[derive(Debug, Serialize)]
pub struct State {
    /// The plan in force.
    pub plan_version: Option<u64>,
    /// Requests in flight that the Meter knows one by one.
    pub in_flight: usize,
    /// Requests that this Meter admitted since it was opened. The others were admitted by Workers, under subleases.
    pub admitted_here: u64,
    /// Calls to Budgets since it was opened.
    pub budget_calls: u64,
    /// Money set aside.
    pub held_usd: Usd,
    /// The durable ceiling of what may be set aside.
    pub ceiling_usd: Usd,
    /// Spent in each present window.
    pub spent_usd: BTreeMap<String, Usd>,
    /// Events kept here.
    pub events: u64,
    /// The sum of what they charged.
    pub events_charged_usd: Usd,
    /// Whether the Ledger still lacks some.
    pub undelivered: bool,
}
