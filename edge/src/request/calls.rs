//! The messages between a request (in a Worker isolate) and the Meter of its key. Both ends are this build, so the
//! format may change with it; only the usage event is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallygate_shared::budget::hold::Hold;
use tallygate_shared::budget::lease::wallet::Need;
use tallygate_shared::budget::loop_breaker::Watched;
use tallygate_shared::events::decision::Decided;
use tallygate_shared::events::usage_event::{Attempt, Outcome};
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::ids::{RequestId, WorkspaceId};
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::key_plan::KeyPlan;
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::pricing::{Cost, PriceRow};
use tallygate_shared::telemetry::trace::Span;
use tallygate_shared::tokens::Usage;

/// "May this request go ahead?"
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmitCall {
    /// The request's new id.
    pub id: RequestId,
    /// SHA-256 of the key that the caller presented, lowercase hex. The key itself does not travel.
    pub key_sha256: String,
    /// What the request asks for.
    pub facts: RequestFacts,
    /// Whether the caller asked for a stream.
    pub stream: bool,
    /// The signed actor token, if one came.
    pub actor_token: Option<String>,
    /// Unsigned labels.
    pub labels: BTreeMap<String, String>,
    /// A random number, as text, for weighted routes.
    pub draw: String,
    /// The gateway's span in the caller's trace, where the caller sent one that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Span>,
}

impl AdmitCall {
    /// The request's span: in the caller's trace, or in one of its own where the workspace wants that.
    pub fn span(&self, plan: &KeyPlan) -> Option<Span> {
        let started = || plan.start_traces.then(|| Span::started_by(&self.id));
        self.trace.clone().or_else(started)
    }
}

/// The Meter's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdmitAnswer {
    /// Go ahead.
    Admit(Box<Admitted>),
    /// Do not.
    Refuse {
        /// Why not.
        refusal: Box<Refusal>,
        /// The state of the rate limits, for the answer's headers.
        #[serde(default)]
        limits: Limits,
    },
    /// Ask these Budgets, then ask again.
    Ask {
        /// Their names.
        accounts: Vec<String>,
        /// What to say when asking again, as JSON text.
        progress: String,
    },
}

/// The same, of an admission that stays where it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdmitAnswerRef<'a> {
    /// Go ahead.
    Admit(&'a Admitted),
}

/// What an admitted request may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admitted {
    /// The key is busy and far from its limits: its isolate may ask for a sublease. The first field, where the shell looks.
    pub hot: bool,
    /// The hold and all that its settlement must repeat, so that a Meter that restarted still knows the request.
    pub ticket: Ticket,
    /// The tenant, which is part of the seal of its credentials.
    pub workspace: WorkspaceId,
    /// Where to send the request, in order.
    pub targets: Vec<AdmittedTarget>,
    /// Attempts at each target.
    pub attempts: u32,
    /// Longest wait for an answer's headers.
    pub first_byte_timeout_ms: u64,
    /// Longest silence in an answer.
    pub idle_timeout_ms: u64,
    /// The output limit to write into the request.
    pub set_max_output_tokens: Option<u64>,
    /// What the tightest cap leaves after this hold.
    pub budget_remaining: Option<Usd>,
    /// The state of the rate limits, for the answer's headers.
    pub limits: Limits,
}

/// One place to ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmittedTarget {
    /// The workspace's name for the provider.
    pub provider: String,
    /// The kind of provider.
    pub kind: String,
    /// Its base URL.
    pub base_url: String,
    /// The sealed credential.
    pub credential: Option<String>,
    /// The header for it, where it is not the kind's own.
    pub auth_header: Option<String>,
    /// Azure's `api-version`.
    pub api_version: Option<String>,
    /// The region, where it changes the price.
    pub region: Option<String>,
    /// The model to ask for.
    pub model: String,
    /// What it costs. `None`: nothing prices it, and no budget depends on it.
    pub price: Option<PriceRow>,
}

/// What the settlement of a request must repeat.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// What is set aside.
    pub hold: Hold,
    /// The endpoint's path.
    pub endpoint: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The model as named by the caller.
    pub requested_model: String,
    /// Who is behind the request.
    pub actor: Actor,
    /// Unsigned labels.
    pub labels: BTreeMap<String, String>,
    /// What is set aside in shared budgets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Need>,
    /// The model that its cost teaches something about, where a budget goes by what is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learns: Option<String>,
    /// The budget that had it served by a cheaper model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downgraded_by: Option<String>,
    /// The sublet that an isolate admitted it under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<RequestId>,
    /// For a sublet itself: how many requests are left of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet: Option<u64>,
    /// The network that the caller asked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What the loop breaker wants to hear of the request when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched: Option<Watched>,
    /// The gateway's span, where the request belongs to a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Span>,
    /// What was decided, for the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Box<Decided>>,
}

impl Ticket {
    /// The ticket of a sublet of this many requests.
    pub fn of_sublet(hold: Hold, charges: Vec<Need>, requests: u64) -> Self {
        Self {
            hold,
            endpoint: String::new(),
            stream: false,
            requested_model: String::new(),
            actor: Actor::default(),
            labels: BTreeMap::new(),
            charges,
            learns: None,
            downgraded_by: None,
            under: None,
            sublet: Some(requests),
            network: None,
            watched: None,
            trace: None,
            decided: None,
        }
    }
}

/// The state of a key's rate limits, for `x-ratelimit-*`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests per minute.
    pub requests: Option<LimitState>,
    /// Tokens per minute.
    pub tokens: Option<LimitState>,
}

/// One limit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitState {
    /// The limit.
    pub limit: u64,
    /// What is left of it now.
    pub remaining: u64,
    /// Milliseconds until all of it is there again.
    pub reset_ms: u64,
}

/// "This is how the request ended." Idempotent by the ticket's id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settlement {
    /// What the Meter gave at admission.
    pub ticket: Ticket,
    /// How it ended.
    pub outcome: Outcome,
    /// The stable code of a failure.
    pub code: Option<String>,
    /// The status that the caller got.
    pub status: u16,
    /// The provider that answered.
    pub provider: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The model that answered.
    pub response_model: Option<String>,
    /// The provider's id of the answer.
    pub provider_request_id: Option<String>,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
    /// What was consumed.
    pub usage: Usage,
    /// What it cost, as the caller was told.
    pub cost: Option<Cost>,
    /// Milliseconds from receipt to the last byte.
    pub duration_ms: u64,
    /// Milliseconds to the provider's first byte.
    pub first_byte_ms: Option<u64>,
}
